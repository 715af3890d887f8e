//! End-to-end tests, the demo, benches.

pub mod swtpm;
