//! The host log: hostd's own measurements, replayed against the PCR that they extend.
//!
//! TCG Canonical Event Log Format 1.0, CEL-JSON: one record per line. The PCR's value is its boot-log part, then this log's records. A verified log says
//! what was extended and in which order. It does not say that hostd extended it: root can extend any unlocked PCR, so what the events claim is `reported`.

mod record;
mod verify;

pub use record::{EVENT_MAX, Event, HostLog, LOG_MAX, RECORDS_MAX, Record};
pub use verify::{HostLogContext, VerifiedHostLog};
