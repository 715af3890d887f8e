//! The attestation key: can what it signs only come from inside a TPM?
//!
//! TPM 2.0 Library Part 1, 25.1 (object attributes), 31.1 (restricted signing keys); Part 2, 8.3 (TPMA_OBJECT).
//!
//! Establishes the shape: a restricted signing key that its TPM made, cannot leave, and cannot use for anything else. Does **not**
//! establish that such a key exists: credential activation for exactly this Name does (`credential`), and each attestation's
//! qualifiedSigner shows that it lives under the EK in the endorsement hierarchy (`tpm::signed`, `*.signer`).

use super::roca;
use crate::digest::HashAlg;
use crate::finding::{Finding, Findings};
use crate::tpm::key::{Curve, PublicKey};
use crate::tpm::name::Name;
use crate::tpm::public::{KeyScheme, ObjectAttributes, Public};
use crate::tpm::{ALG_ECDSA, ALG_RSASSA};

/// The public area of a key that has every attribute of an AK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AkPublic(Public);

impl AkPublic {
    /// The public area.
    #[must_use]
    pub const fn public(&self) -> &Public {
        &self.0
    }

    /// The AK's Name, for which the credential is made.
    #[must_use]
    pub const fn name(&self) -> &Name {
        self.0.name()
    }
}

/// One attribute that decides whether an AK is one.
struct Rule {
    id: &'static str,
    attribute: ObjectAttributes,
    /// Whether it must be set, or clear.
    set: bool,
    why: &'static str,
}

/// Every attribute by itself, so that a refusal names what is missing (row A2).
const RULES: [Rule; 7] = [
    Rule {
        id: "ak.restricted",
        attribute: ObjectAttributes::RESTRICTED,
        set: true,
        why: "an unrestricted key signs anything, also bytes that look like a quote",
    },
    Rule {
        id: "ak.fixed-tpm",
        attribute: ObjectAttributes::FIXED_TPM,
        set: true,
        why: "the key can be duplicated to another TPM or to software",
    },
    Rule {
        id: "ak.fixed-parent",
        attribute: ObjectAttributes::FIXED_PARENT,
        set: true,
        why: "the key can be duplicated to another parent",
    },
    Rule {
        id: "ak.sensitive-data-origin",
        attribute: ObjectAttributes::SENSITIVE_DATA_ORIGIN,
        set: true,
        why: "the key was made outside the TPM: its private part may be known",
    },
    Rule { id: "ak.sign", attribute: ObjectAttributes::SIGN, set: true, why: "the key cannot sign" },
    Rule {
        id: "ak.decrypt",
        attribute: ObjectAttributes::DECRYPT,
        set: false,
        why: "a key that signs and decrypts is no attestation key",
    },
    Rule {
        id: "ak.no-da",
        attribute: ObjectAttributes::NO_DA,
        set: true,
        why: "anybody who can reach the TPM can lock the key out by wrong passwords",
    },
];

/// What to do about each of these findings.
const FIX: &str = "let hostd create the AK: restricted|sign|fixedTPM|fixedParent|sensitiveDataOrigin|userWithAuth|noDA, ECC P-256 with \
                   ECDSA and SHA-256, under the EK";

/// Judges an AK's public area.
///
/// # Errors
/// Every finding: `ak.restricted`, `ak.fixed-tpm`, `ak.fixed-parent`, `ak.sensitive-data-origin`, `ak.sign`, `ak.decrypt`, `ak.no-da`,
/// `ak.name-alg`, `ak.key-size`, `ak.roca`, `ak.sha1`, `ak.scheme`.
pub fn verify_ak(public: &Public) -> Result<AkPublic, Findings> {
    let mut findings = Findings::new();
    let attributes = public.attributes();
    for rule in &RULES {
        findings.check(rule.id, attributes.has(rule.attribute) != rule.set, || {
            let wanted = if rule.set { "set" } else { "clear" };
            Finding::error("", rule.why).expected(format!("{} {wanted}", rule.attribute)).found(attributes).fix(FIX)
        });
    }
    findings.check("ak.name-alg", public.name_alg() != HashAlg::Sha256, || {
        Finding::error("", "the AK's Name is not made with SHA-256")
            .expected(HashAlg::Sha256)
            .found(public.name_alg())
            .fix(FIX)
    });
    let key = public.key();
    let size = match key {
        PublicKey::Rsa { .. } => key.bits() == Some(2048) && key.weakness().is_none(),
        PublicKey::Ec { curve, .. } => *curve == Curve::P256,
    };
    findings.check("ak.key-size", !size, || {
        Finding::error("", "the AK's kind or size is not on the list")
            .expected("P-256 or RSA-2048")
            .found(key.weakness().unwrap_or_else(|| key.kind()))
            .fix(FIX)
    });
    // A TPM whose firmware has the fault makes such AKs too, whatever its EK is.
    let weak = matches!(key, PublicKey::Rsa { modulus, .. } if roca::is_weak(modulus));
    findings.check("ak.roca", weak, || {
        Finding::error(
            "",
            "the AK was made by a faulty key generator (ROCA, CVE-2017-15361): anybody can compute its private part",
        )
        .expected("a modulus without the generator's fingerprint")
        .found(key)
        .fix("update the TPM's firmware, then let hostd create an ECC AK")
    });
    check_scheme(public, &mut findings);
    if findings.acceptable() { Ok(AkPublic(public.clone())) } else { Err(findings) }
}

/// The scheme is fixed in the key: a key without one lets the caller choose, down to SHA-1.
fn check_scheme(public: &Public, findings: &mut Findings) {
    let scheme = public.scheme();
    let sha1 = scheme.is_some_and(|scheme| scheme.hash == Some(HashAlg::Sha1));
    findings.check("ak.sha1", sha1, || {
        Finding::error("", "the AK signs SHA-1 digests").expected(HashAlg::Sha256).found(HashAlg::Sha1).fix(FIX)
    });
    let wanted = match public.key() {
        PublicKey::Rsa { .. } => ALG_RSASSA,
        PublicKey::Ec { .. } => ALG_ECDSA,
    };
    let right = scheme == Some(KeyScheme { scheme: wanted, hash: Some(HashAlg::Sha256) });
    findings.check("ak.scheme", !right && !sha1, || {
        let found = match scheme {
            Some(scheme) => {
                format!("scheme {:#06x} with {}", scheme.scheme, scheme.hash.map_or("no hash", HashAlg::name))
            }
            None => "no scheme: the caller chooses".to_owned(),
        };
        Finding::error("", "the AK's signing scheme is not on the list")
            .expected("ECDSA with sha256 on P-256, or RSASSA with sha256 on RSA-2048")
            .found(found)
            .fix(FIX)
    });
}
