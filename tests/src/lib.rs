//! End-to-end tests, the demo, benches.
