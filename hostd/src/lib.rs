//! The host daemon: collects evidence with the TPM and applies profiles.
//!
//! It reports and never judges: whether this host is trusted is the verifier's decision (DESIGN, law 4).

pub mod apply;
pub mod client;
pub mod collect;
pub mod config;
pub mod doctor;
pub mod engines;
pub mod host_log;
pub mod measure;
pub mod profile;
pub mod provision;
pub mod run;
pub mod state;
pub mod status;
pub mod tpm;
pub mod watch;
