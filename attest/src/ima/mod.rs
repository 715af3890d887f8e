//! IMA measurement lists: parsing, replay against PCR 10, and the boot aggregate.
//!
//! Linux `Documentation/security/IMA-templates.rst` and `security/integrity/ima/`. The verified prefix of a list says which
//! measurements the kernel made, in which order. It does not say what a path means: paths are relative to a mount
//! namespace, and an entry that was measured once is not measured again.

mod ascii;
pub mod boot_aggregate;
pub mod entry;
pub mod inspect;
pub mod keys;
pub mod loaded;
pub mod parse;
pub mod replay;
pub mod signature;
mod template;

pub use boot_aggregate::check_boot_aggregate;
pub use entry::{DigestOf, Entry, FileMeasurement, Shape};
pub use inspect::{EntryView, LISTED_MAX, inspect, list_entries};
pub use keys::ImaKey;
pub use parse::{ImaFormat, ImaLog, boundaries};
pub use replay::{ImaMismatch, ImaPosition, ImaPrefix, ImaQuirks, Measured, batches, replay_prefix};
