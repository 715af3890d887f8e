//! The TLS key: does it live in the same TPM as the AK, and only there?
//!
//! TPM 2.0 Library Part 3, 18.2 (TPM2_Certify); Part 2, 10.12.2 (TPMS_CERTIFY_INFO); RFC 2986 (PKCS#10).
//!
//! Establishes: the key in this request was made by the AK's TPM, never was outside it, signs and does nothing else, and was certified
//! for this nonce and this request. TPM2_Certify alone would not: it succeeds for imported keys too (row A21), so each attribute is
//! judged from the public area whose Name the TPM signed. Says nothing about who may hold a host certificate; that is enrolment's.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
    VerificationAlgorithm,
};
use x509_parser::prelude::{FromDer as _, X509CertificationRequest};

use super::ak::AkPublic;
use crate::finding::{Finding, Findings};
use crate::tpm::attest::{AttestType, Attested};
use crate::tpm::key::PublicKey;
use crate::tpm::name::Name;
use crate::tpm::public::{ObjectAttributes, Public};
use crate::tpm::signed::{Expectation, Signer, TLS_KEY, open};
use crate::wire::{DOMAIN_TLS, Nonce};

/// Largest certification request: a P-256 one has about 250 bytes, an RSA-2048 one about 700.
const CSR_MAX: usize = 4096;

/// A TLS key that the AK's TPM made and certified, as its holder asks to have it certified.
///
/// Nothing else of the request is kept: a host never names itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertifiedTlsKey {
    spki: Vec<u8>,
    public: Public,
}

impl CertifiedTlsKey {
    /// DER of the key's SubjectPublicKeyInfo: what a host certificate is issued for.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The key's public area.
    #[must_use]
    pub const fn public(&self) -> &Public {
        &self.public
    }
}

/// What a host sends for its TLS key.
#[derive(Debug, Clone, Copy)]
pub struct TlsKeyEvidence<'a> {
    /// TPMS_ATTEST of TPM2_Certify.
    pub attest: &'a [u8],
    /// TPMT_SIGNATURE of the AK.
    pub signature: &'a [u8],
    /// TPMT_PUBLIC of the TLS key.
    pub tls_public: &'a [u8],
    /// PKCS#10 request in DER, signed by the TLS key.
    pub csr: &'a [u8],
}

/// Attributes of the TLS key, each with its id.
const RULES: [(&str, ObjectAttributes, bool, &str); 6] = [
    ("tls-key.fixed-tpm", ObjectAttributes::FIXED_TPM, true, "the key can be duplicated to another TPM or to software"),
    ("tls-key.fixed-parent", ObjectAttributes::FIXED_PARENT, true, "the key can be duplicated to another parent"),
    (
        "tls-key.sensitive-data-origin",
        ObjectAttributes::SENSITIVE_DATA_ORIGIN,
        true,
        "the key was made outside the TPM and imported: its private part may be known",
    ),
    ("tls-key.sign", ObjectAttributes::SIGN, true, "the key cannot sign"),
    ("tls-key.decrypt", ObjectAttributes::DECRYPT, false, "a TLS key only signs"),
    ("tls-key.restricted", ObjectAttributes::RESTRICTED, false, "a restricted key cannot sign a TLS handshake"),
];

/// What to do about a wrong TLS key.
const FIX: &str = "let hostd create the TLS key: ECC P-256, sign|fixedTPM|fixedParent|sensitiveDataOrigin|userWithAuth";

/// Verifies that the TLS key is the TPM's own, certified by `ak` for this nonce and request.
///
/// # Errors
/// Every finding: those of `tpm::signed` with the subject `tls-key`, and `tls-key.malformed`, `tls-key.name`, `tls-key.key-size`,
/// `tls-key.fixed-tpm`, `tls-key.fixed-parent`, `tls-key.sensitive-data-origin`, `tls-key.sign`, `tls-key.decrypt`,
/// `tls-key.restricted`, `tls-key.csr`, `tls-key.csr-key`, `tls-key.csr-signature`.
pub fn verify_tls_key(
    evidence: &TlsKeyEvidence<'_>,
    ak: &AkPublic,
    ek_name: &Name,
    nonce: &Nonce,
) -> Result<CertifiedTlsKey, Findings> {
    let public = Public::parse(evidence.tls_public)
        .map_err(|error| Finding::error("tls-key.malformed", format!("the TPMT_PUBLIC cannot be read: {error}")))?;
    let mut findings = Findings::new();
    check_shape(&public, &mut findings);
    let spki = public.key().to_spki();

    let qualifying_data = nonce.bind(DOMAIN_TLS, evidence.csr);
    let expectation = Expectation {
        ids: &TLS_KEY,
        kind: AttestType::Certify,
        signer: Signer::EnrolledAk { public: ak.public(), ek_name },
        qualifying_data: &qualifying_data,
    };
    match open(evidence.attest, evidence.signature, &expectation) {
        Ok((genuine, more)) => {
            findings.append(more);
            let attested = match &genuine.attest().attested {
                Attested::Certify { name, .. } => name.as_slice(),
                _ => &[],
            };
            findings.check("tls-key.name", attested != public.name().as_bytes(), || {
                Finding::error("", "the AK certified another object than the public area that was sent")
                    .expected(public.name())
                    .found(hex::encode(attested))
                    .fix("send the TPMT_PUBLIC of the certified key")
            });
        }
        Err(more) => findings.append(more),
    }
    check_request(evidence.csr, &public, &mut findings);
    match spki {
        Some(spki) if findings.acceptable() => Ok(CertifiedTlsKey { spki, public }),
        _ => Err(findings),
    }
}

fn check_shape(public: &Public, findings: &mut Findings) {
    let attributes = public.attributes();
    for (id, attribute, set, why) in RULES {
        findings.check(id, attributes.has(attribute) != set, || {
            let wanted = if set { "set" } else { "clear" };
            Finding::error("", why).expected(format!("{attribute} {wanted}")).found(attributes).fix(FIX)
        });
    }
    let weakness = public.key().weakness();
    findings.check("tls-key.key-size", weakness.is_some(), || {
        Finding::error("", "the TLS key's kind or size is not on the list")
            .expected("P-256, P-384 or RSA from 2048 bits")
            .found(weakness.unwrap_or_default())
            .fix(FIX)
    });
}

/// The request is for this key and signed by it.
fn check_request(csr: &[u8], public: &Public, findings: &mut Findings) {
    let parsed = X509CertificationRequest::from_der(csr).ok();
    let usable = parsed.filter(|(rest, _)| rest.is_empty() && csr.len() <= CSR_MAX).map(|(_, request)| request);
    findings.check("tls-key.csr", usable.is_none(), || {
        Finding::error("", "the certification request cannot be read")
            .expected(format!("PKCS#10 in DER, at most {CSR_MAX} bytes, nothing after it"))
            .found(format!("{} bytes", csr.len()))
            .fix("let hostd make the request")
    });
    let Some(request) = usable else { return };
    let info = &request.certification_request_info;
    let requested = PublicKey::from_spki(info.subject_pki.raw);
    let same = requested.as_ref().is_ok_and(|key| key == public.key());
    findings.check("tls-key.csr-key", !same, || {
        Finding::error("", "the request is for another key than the certified one")
            .expected(public.key())
            .found(requested.map_or_else(|error| error.to_string(), |key| key.to_string()))
            .fix("sign the request with the certified key")
    });
    // Only after the sizes were judged: a huge key must not reach the mathematics.
    let oid = request.signature_algorithm.algorithm.to_id_string();
    let verified = public.key().weakness().is_none()
        && algorithm(&oid).is_some_and(|algorithm| {
            UnparsedPublicKey::new(algorithm, public.key().key_bytes())
                .verify(info.raw, request.signature_value.data.as_ref())
                .is_ok()
        });
    findings.check("tls-key.csr-signature", !verified, || {
        Finding::error("", "the request is not signed by the certified key")
            .expected(format!("a signature of {} with SHA-256 or SHA-384", public.key()))
            .found(format!("signature algorithm {oid}"))
            .fix("sign the request with the certified key")
    });
}

/// ecdsa-with-SHA256, ecdsa-with-SHA384, sha256WithRSAEncryption.
fn algorithm(oid: &str) -> Option<&'static dyn VerificationAlgorithm> {
    match oid {
        "1.2.840.10045.4.3.2" => Some(&ECDSA_P256_SHA256_ASN1),
        "1.2.840.10045.4.3.3" => Some(&ECDSA_P384_SHA384_ASN1),
        "1.2.840.113549.1.1.11" => Some(&RSA_PKCS1_2048_8192_SHA256),
        _ => None,
    }
}
