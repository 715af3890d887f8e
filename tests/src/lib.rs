//! End-to-end tests, the demo, benches.
//!
//! The harness starts the real programs as child processes: software TPMs in the state of a recorded boot ([`machine`]), a
//! verifier ([`verifier`]), host daemons ([`hostd`]), the command line, and a REST client with any certificate ([`client`]).
//! Nothing here is mocked, nothing listens on a fixed port, and every child is ended by its process id when its owner is dropped.

#[allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what cannot make its lies fails its test by panicking"
)]
pub mod attester;
pub mod client;
pub mod engine_files;
/// A TPM in software, shared with the library's own tests.
#[allow(
    clippy::new_without_default,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what cannot make its lies fails its test by panicking"
)]
#[path = "../../attest/tests/common/mod.rs"]
pub mod forge;
#[allow(clippy::arithmetic_side_effects, reason = "times of a test")]
pub mod guest;
pub mod hostd;
pub mod lab;
pub mod machine;
pub mod operator;
/// Makers' CAs and EKs in software, shared with the library's own tests.
#[allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what cannot make its lies fails its test by panicking"
)]
#[path = "../../attest/tests/common/identity.rs"]
pub mod pki;
#[allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what cannot be set up fails its test by panicking"
)]
pub mod private;
pub mod process;
pub mod programs;
pub mod recording;
#[allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what does not hold fails its test by panicking"
)]
pub mod scene;
pub mod swtpm;
pub mod tap;
pub mod verifier;
pub mod wait;
