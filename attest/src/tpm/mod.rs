//! TPM 2.0 structures as a TPM marshals them, read from untrusted bytes and verified over exactly those bytes.
//!
//! TPM 2.0 Library Part 2. [`public`] and [`name`] say which key or object is meant, [`attest`] what was attested,
//! [`signature`] who signed, [`signed`] puts the three together once for every subject (quote, TLS key, tag).
//! Nothing here knows a policy.

pub mod attest;
pub mod key;
pub mod name;
pub mod public;
pub mod signature;
pub mod signed;

/// TPM_ALG_NULL.
pub const ALG_NULL: u16 = 0x0010;
/// TPM_ALG_RSA, an object's type.
pub const ALG_RSA: u16 = 0x0001;
/// TPM_ALG_ECC, an object's type.
pub const ALG_ECC: u16 = 0x0023;
/// TPM_ALG_RSASSA.
pub const ALG_RSASSA: u16 = 0x0014;
/// TPM_ALG_RSAES.
pub const ALG_RSAES: u16 = 0x0015;
/// TPM_ALG_RSAPSS.
pub const ALG_RSAPSS: u16 = 0x0016;
/// TPM_ALG_OAEP.
pub const ALG_OAEP: u16 = 0x0017;
/// TPM_ALG_ECDSA.
pub const ALG_ECDSA: u16 = 0x0018;
/// TPM_ALG_ECDH.
pub const ALG_ECDH: u16 = 0x0019;
/// TPM_ALG_ECDAA, the one scheme that carries a count beside its hash.
pub const ALG_ECDAA: u16 = 0x001a;
/// TPM_ALG_SM2.
pub const ALG_SM2: u16 = 0x001b;
/// TPM_ALG_ECSCHNORR.
pub const ALG_ECSCHNORR: u16 = 0x001c;
/// TPM_ALG_ECMQV.
pub const ALG_ECMQV: u16 = 0x001d;
