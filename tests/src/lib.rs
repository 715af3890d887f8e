//! End-to-end tests, the demo, benches.
//!
//! The harness starts the real programs as child processes: software TPMs in the state of a recorded boot ([`machine`]), a
//! verifier ([`verifier`]), host daemons ([`hostd`]), the command line, and a REST client with any certificate ([`client`]).
//! Nothing here is mocked, nothing listens on a fixed port, and every child is ended by its process id when its owner is dropped.

pub mod client;
pub mod engine_files;
pub mod hostd;
pub mod lab;
pub mod machine;
pub mod operator;
pub mod process;
pub mod programs;
pub mod recording;
pub mod swtpm;
pub mod verifier;
pub mod wait;
