//! Who a host is: its EK and the class of its TPM, its AK, its TLS key, its asset tag.

pub mod ak;
pub mod certificate;
pub mod certify;
mod chain;
pub mod class;
pub mod credential;
mod der;
pub mod devid;
pub mod ek;
pub mod ek_certificate;
pub mod nv;
pub mod platform_certificate;
pub mod roca;
pub mod tag;
pub mod tpm_attributes;
