//! Editing configuration as text: one module for each format.

pub(super) mod json;
