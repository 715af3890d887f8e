//! Hostmark's pure library: evidence formats, endorsements, replay, appraisal, results, labels and permits.
//!
//! Data moves one way, and each arrow consumes the previous type:
//!
//! ```text
//! bytes → Evidence (untrusted) → GenuineEvidence → ReplayedLogs → Claims → Appraisal → AttestationResult → Permit
//! ```
//!
//! No async, no files, no clock, no randomness of its own: time and nonces are arguments.

pub mod admission;
pub mod appraisal;
pub mod boot_log;
pub mod bytes;
pub mod ccel;
pub mod cel;
pub mod check;
pub mod copied_tpm;
pub mod counters;
pub mod digest;
pub mod evidence;
pub mod finding;
pub mod genuine;
pub mod host_log;
pub mod identity;
pub mod ima;
pub mod jws;
pub mod kernel_parameters;
pub mod label;
pub mod manifest;
pub mod permit;
pub mod policy;
pub mod pool;
pub mod predict;
pub mod profile;
pub mod quote;
mod remembered;
pub mod replay;
pub mod result;
pub mod round;
pub mod selection;
pub mod span;
pub mod state;
pub mod stored_round;
pub mod tier;
pub mod tools;
pub mod tpm;
pub mod wire;
pub mod workload;
