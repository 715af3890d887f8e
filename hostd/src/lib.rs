//! The host daemon: collects evidence with the TPM and applies profiles.
