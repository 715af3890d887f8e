//! Who a host is: its EK and the class of its TPM, its AK, its TLS key, its asset tag.

pub mod ak;
pub mod certify;
pub mod class;
pub mod credential;
pub mod ek;
pub mod nv;
pub mod tag;
