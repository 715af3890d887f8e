//! An EK certificate by itself: what a person sees before a root or a host is at hand.
//!
//! TCG EK Credential Profile 2.5, 3.2. It shows the fields and what is wrong with them alone; it does **not** establish who signed it
//! ([`super::ek::verify_ek`] does) nor that a TPM holds the key.

use serde::Serialize;

use super::certificate::{CertificateFacts, deviations, parse};
use super::ek::{ALTERNATIVE_NAME, EK_CERTIFICATE};
use super::roca;
use super::tpm_attributes::{TpmAttributes, TpmSpecification};
use crate::bytes::ParseError;
use crate::finding::{Finding, Findings};
use crate::tpm::key::PublicKey;

/// subjectDirectoryAttributes.
const DIRECTORY_ATTRIBUTES: &str = "2.5.29.9";

/// What an EK certificate says: the JSON of `hostmark inspect ek-cert`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EkCertificate {
    /// What every certificate says.
    #[serde(flatten)]
    pub facts: CertificateFacts,
    /// The TPM that it is for.
    pub tpm: Option<TpmAttributes>,
    /// The specification that the TPM follows.
    pub specification: Option<TpmSpecification>,
    /// What is wrong or odd in it.
    pub findings: Findings,
}

/// Reads an EK certificate in DER.
///
/// # Errors
/// What is no X.509 certificate. Anything suspicious that can be read is a finding: `ek.usage`, `ek.key-size`, `ek.roca`,
/// `ek.tpm-attributes`, `ek.algorithm`, `ek.quirk.*`.
pub fn inspect_ek_certificate(der: &[u8]) -> Result<EkCertificate, ParseError> {
    let certificate = parse(der)?;
    let (facts, key) = CertificateFacts::of(der, &certificate);
    let mut findings = Findings::new();
    let value =
        |oid: &str| certificate.extensions().iter().find(|one| one.oid.to_id_string() == oid).map(|one| one.value);
    let mut unreadable = |error: ParseError| {
        findings.push(
            Finding::warning("ek.tpm-attributes", "the certificate does not say readably which TPM it is for")
                .expected("manufacturer, model and version in the alternative name (TCG EK Credential Profile 3.2.9)")
                .found(error)
                .fix("report the certificate to its maker; nothing is decided by these attributes"),
        );
        None
    };
    let tpm = value(ALTERNATIVE_NAME)
        .and_then(|name| TpmAttributes::from_alternative_name(name).unwrap_or_else(&mut unreadable));
    let specification = value(DIRECTORY_ATTRIBUTES)
        .and_then(|list| TpmSpecification::from_directory_attributes(list).map_err(unreadable).unwrap_or_default());
    let usage = super::der::oid(EK_CERTIFICATE);
    if !facts.extended_key_usage.contains(&usage) {
        findings.push(
            Finding::warning("ek.usage", "the certificate does not say that it is an EK certificate")
                .expected(format!("extended key usage {usage} (tcg-kp-EKCertificate)"))
                .found(if facts.extended_key_usage.is_empty() {
                    "none".to_owned()
                } else {
                    facts.extended_key_usage.join(", ")
                })
                .fix("if its CA issues EK certificates without it (Google Cloud), tolerate the quirk `no-eku`"),
        );
    }
    let weakness = key.as_ref().map_or_else(|| Some(facts.key.clone()), PublicKey::weakness);
    if let Some(weakness) = weakness {
        findings.push(
            Finding::error("ek.key-size", "the EK's kind or size is not on the list")
                .expected("RSA-2048, P-256 or P-384")
                .found(weakness)
                .fix("use the certificate of one of the TPM's other EKs"),
        );
    }
    if matches!(&key, Some(PublicKey::Rsa { modulus, .. }) if roca::is_weak(modulus)) {
        findings.push(
            Finding::error("ek.roca", "the EK was made by a faulty key generator (ROCA, CVE-2017-15361)")
                .expected("a modulus without the generator's fingerprint")
                .found(&facts.key)
                .fix("update the TPM's firmware and renew its EK as the maker says, or use its ECC EK"),
        );
    }
    // sha1WithRSAEncryption, ecdsa-with-SHA1
    if ["1.2.840.113549.1.1.5", "1.2.840.10045.4.1"].contains(&facts.signature_algorithm.as_str()) {
        findings.push(
            Finding::error("ek.algorithm", "the certificate is signed with SHA-1")
                .expected("RSA from 2048 bits or ECDSA, with SHA-256 or longer")
                .found(&facts.signature_algorithm)
                .fix("TPM 1.2 certificates cannot be used; use the machine's TPM 2.0"),
        );
    }
    findings.append(deviations(der, &certificate));
    Ok(EkCertificate { facts, tpm, specification, findings })
}
