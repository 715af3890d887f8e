//! The verifier service and the operator command line.
//!
//! `store` keeps, `enrol` decides who a host is, `api` translates HTTP into commands, `tls` and `auth` say who is calling. RATS Verifier
//! and Relying Party are kept apart: nothing here edits evidence, and no pool status flows back into an appraisal.

pub mod api;
pub mod audit;
pub mod auth;
pub mod ca;
pub mod cli;
pub mod clock;
pub mod config;
pub mod enrol;
pub mod files;
pub mod kept_rounds;
pub mod keys;
pub mod limit;
pub mod metrics;
pub mod names;
pub mod placement;
pub mod refusal;
pub mod rounds;
pub mod rules;
pub mod server;
pub mod setup;
pub mod standing;
pub mod state;
pub mod store;
pub mod tls;
pub mod trust;
