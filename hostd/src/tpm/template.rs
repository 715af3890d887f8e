//! The public areas that hostd asks the TPM to create (TPMT_PUBLIC, TPM 2.0 Library Part 2, 12.2.4).
//!
//! EKs: TCG EK Credential Profile 2.5, B.3.3 (L-1), B.3.4 (L-2), B.4.5 (H-3). The other keys are the project's choice: all carry
//! noDA, so that a dictionary-attack lockout does not end attestation. Attributes here are requests; what counts is what the
//! verifier reads in the created public area.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

const ALG_RSA: u16 = 0x0001;
const ALG_AES: u16 = 0x0006;
pub(super) const ALG_SHA256: u16 = 0x000B;
const ALG_SHA384: u16 = 0x000C;
const ALG_NULL: u16 = 0x0010;
pub(super) const ALG_ECDSA: u16 = 0x0018;
const ALG_ECC: u16 = 0x0023;
const ALG_CFB: u16 = 0x0043;
const NIST_P256: u16 = 0x0003;
const NIST_P384: u16 = 0x0004;

// TPMA_OBJECT (Part 2, 8.3).
const FIXED_TPM: u32 = 1 << 1;
const FIXED_PARENT: u32 = 1 << 4;
const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
const USER_WITH_AUTH: u32 = 1 << 6;
const ADMIN_WITH_POLICY: u32 = 1 << 7;
const NO_DA: u32 = 1 << 10;
const RESTRICTED: u32 = 1 << 16;
const DECRYPT: u32 = 1 << 17;
const SIGN: u32 = 1 << 18;
const MADE_HERE: u32 = FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN;

/// PolicySecret(TPM_RH_ENDORSEMENT), SHA-256 (EK Credential Profile, B.6.2).
const POLICY_A_SHA256: &str = "837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa";
/// The same with SHA-384 (B.6.3).
pub(super) const POLICY_A_SHA384: &str = "8bbf2266537c171cb56e403c4dc1d4b64f432611dc386e6f532050c3278c930e\
                                          143e8bb1133824ccb431053871c6db53";
/// PolicyAuthorizeNV on the profile's index, SHA-384 (B.6.4).
pub(super) const POLICY_C_SHA384: &str = "d6032ce61f2fb3c240eb3cf6a33237ef2b6a16f4293c22b455e261cffd217ad5\
                                          b4947c2d73e63005eed2dc2b3593d165";
/// PolicyOR(PolicyA, PolicyC), SHA-384 (B.6.5).
const POLICY_B_SHA384: &str = "b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419ca\
                               cb47ba09699646150f9fc000f3f80e12";

/// The EK kinds of the profile that hostd uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EkKind {
    /// Template L-2.
    #[serde(rename = "ecc-p256")]
    EccP256,
    /// Template L-1.
    #[serde(rename = "rsa-2048")]
    Rsa2048,
    /// Template H-3.
    #[serde(rename = "ecc-p384")]
    EccP384,
}

impl EkKind {
    /// In the order hostd prefers them: small and fast first.
    pub const ALL: [Self; 3] = [Self::EccP256, Self::Rsa2048, Self::EccP384];

    /// As written in hostd.toml.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EccP256 => "ecc-p256",
            Self::Rsa2048 => "rsa-2048",
            Self::EccP384 => "ecc-p384",
        }
    }

    /// The NV index of its certificate (EK Credential Profile 2.2.1.4 and 2.2.1.5).
    #[must_use]
    pub const fn certificate_index(self) -> u32 {
        match self {
            Self::Rsa2048 => 0x01C0_0002,
            Self::EccP256 => 0x01C0_000A,
            Self::EccP384 => 0x01C0_0016,
        }
    }

    /// TPM_ALG_ID of the EK's name and of its policy.
    pub(super) const fn name_alg(self) -> u16 {
        match self {
            Self::EccP256 | Self::Rsa2048 => ALG_SHA256,
            Self::EccP384 => ALG_SHA384,
        }
    }

    /// The EK's template.
    pub(super) fn template(self) -> Vec<u8> {
        let low = MADE_HERE | ADMIN_WITH_POLICY | RESTRICTED | DECRYPT;
        match self {
            Self::Rsa2048 => Template::new(ALG_RSA, ALG_SHA256, low)
                .policy(POLICY_A_SHA256)
                .words(&[ALG_AES, 128, ALG_CFB, ALG_NULL, 2048, 0, 0])
                .tpm2b(&[0; 256]),
            Self::EccP256 => Template::new(ALG_ECC, ALG_SHA256, low)
                .policy(POLICY_A_SHA256)
                .words(&[ALG_AES, 128, ALG_CFB, ALG_NULL, NIST_P256, ALG_NULL])
                .tpm2b(&[0; 32])
                .tpm2b(&[0; 32]),
            Self::EccP384 => Template::new(ALG_ECC, ALG_SHA384, low | USER_WITH_AUTH)
                .policy(POLICY_B_SHA384)
                .words(&[ALG_AES, 256, ALG_CFB, ALG_NULL, NIST_P384, ALG_NULL])
                .tpm2b(&[])
                .tpm2b(&[]),
        }
        .0
    }
}

impl fmt::Display for EkKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl FromStr for EkKind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or(())
    }
}

/// The AK: restricted signing, ECDSA P-256 with SHA-256, child of the EK.
pub(super) fn ak() -> Vec<u8> {
    signing_key(RESTRICTED)
}

/// The TLS key: unrestricted signing, ECDSA P-256 with SHA-256.
pub(super) fn tls_key() -> Vec<u8> {
    signing_key(0)
}

fn signing_key(restricted: u32) -> Vec<u8> {
    Template::new(ALG_ECC, ALG_SHA256, MADE_HERE | USER_WITH_AUTH | NO_DA | SIGN | restricted)
        .tpm2b(&[])
        .words(&[ALG_NULL, ALG_ECDSA, ALG_SHA256, NIST_P256, ALG_NULL])
        .tpm2b(&[])
        .tpm2b(&[])
        .0
}

/// The storage root key under which the TLS key is created.
pub(super) fn srk() -> Vec<u8> {
    Template::new(ALG_ECC, ALG_SHA256, MADE_HERE | USER_WITH_AUTH | NO_DA | RESTRICTED | DECRYPT)
        .tpm2b(&[])
        .words(&[ALG_AES, 128, ALG_CFB, ALG_NULL, NIST_P256, ALG_NULL])
        .tpm2b(&[])
        .tpm2b(&[])
        .0
}

struct Template(Vec<u8>);

impl Template {
    fn new(kind: u16, name_alg: u16, attributes: u32) -> Self {
        let mut out = Self(Vec::new()).words(&[kind, name_alg]);
        out.0.extend(attributes.to_be_bytes());
        out
    }

    fn words(mut self, words: &[u16]) -> Self {
        for word in words {
            self.0.extend(word.to_be_bytes());
        }
        self
    }

    fn tpm2b(mut self, bytes: &[u8]) -> Self {
        self.0.extend(super::command::size_prefixed(bytes));
        self
    }

    fn policy(self, digits: &str) -> Self {
        self.tpm2b(&hex::decode(digits).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha384};

    use super::*;

    /// Policies are computed as Part 3 says, from the empty policy of all zeros.
    #[test]
    fn policy_b_is_the_or_of_a_and_c() {
        let (a, c) = (hex::decode(POLICY_A_SHA384).unwrap(), hex::decode(POLICY_C_SHA384).unwrap());
        let either =
            Sha384::new().chain_update([0; 48]).chain_update([0, 0, 1, 0x71]).chain_update(&a).chain_update(&c);
        assert_eq!(hex::encode(either.finalize()), POLICY_B_SHA384);
        // PolicySecret: H(H(0 ‖ TPM_CC_PolicySecret ‖ name) ‖ policyRef)
        let secret = Sha384::new().chain_update([0; 48]).chain_update([0, 0, 1, 0x51, 0x40, 0, 0, 0x0B]).finalize();
        assert_eq!(hex::encode(Sha384::digest(secret)), POLICY_A_SHA384);
    }

    #[test]
    fn attributes_are_the_contract() {
        assert_eq!(hex::encode(&ak()[4..8]), "00050472");
        assert_eq!(hex::encode(&tls_key()[4..8]), "00040472");
        assert_eq!(hex::encode(&EkKind::Rsa2048.template()[4..8]), "000300b2");
        assert_eq!(hex::encode(&EkKind::EccP384.template()[4..8]), "000300f2");
    }
}
