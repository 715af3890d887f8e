//! Who a host is: its EK and the class of its TPM, its AK, its TLS key, its asset tag.

pub mod credential;
