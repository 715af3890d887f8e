//! Fuzz targets: one per parser that reads bytes from a host, an operator or a file.
//!
//! A target must return for every input, without a panic and in bounded time, and what it returns must hold together: what has one
//! encoding is encoded again, a replay is computed a second time, and nothing unproven becomes a claim.
//! `src/main.rs` drives the targets by mutating seeds (what CI runs); `guided/` drives the same table with libFuzzer's
//! coverage feedback. This does **not** establish that a parser accepts what it should: see each crate's own tables.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a tool for tests: a panic here stops a fuzz run, nothing else"
)]

pub mod made;
pub mod mutate;
pub mod parsers;
pub mod seeds;
pub mod signed;
pub mod targets;
/// The maker of small images that the library's own tests use.
#[path = "../../../attest/tests/common/uki.rs"]
#[allow(clippy::unwrap_used, reason = "a seed that cannot be made stops a fuzz run, nothing else")]
pub mod uki;
