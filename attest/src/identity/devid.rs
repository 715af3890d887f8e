//! Identity certificates: IAK and IDevID of a device's maker, AK certificates of clouds and privacy CAs.
//!
//! TCG "TPM 2.0 Keys for Device Identity and Attestation" 1.00, 8 (profiles) and 8.1 (subjectAltName); IEEE 802.1AR 8; RFC 4108 5
//! (hardwareModuleName). [`read_identity`] shows what a certificate says; [`verify_identity`] establishes which class's root vouches
//! for it. Neither establishes that a TPM holds the key: credential activation does, and Hostmark never skips that for a certificate.

use serde::Serialize;
use time::OffsetDateTime;

use super::certificate::{CertificateFacts, deviations, parse};
use super::chain::{Subject, check_chain};
use super::class::{TpmClass, TrustBundle};
use super::der::{Element, OCTET_STRING, OID, SEQUENCE, oid};
use super::ek::ALTERNATIVE_NAME;
use super::roca;
use crate::bytes::{ParseError, Problem, Reader};
use crate::finding::{Finding, Findings, one_line};
use crate::tpm::key::PublicKey;

/// tcg-kp-AIKCertificate, 2.23.133.8.3, as DER contents.
const AIK_CERTIFICATE: &[u8] = &[0x67, 0x81, 0x05, 0x08, 0x03];
/// id-kp-clientAuth and id-kp-serverAuth, as DER contents.
const CLIENT_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];
const SERVER_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
/// id-on-hardwareModuleName.
const HARDWARE_MODULE_NAME: &str = "1.3.6.1.5.5.7.8.4";
/// tcg-tpm20, the hwType of a TPM 2.0.
const TPM20: &str = "2.23.133.1.2";
/// Tag of a GeneralName's otherName, `[0] IMPLICIT`, and of its value, `[0] EXPLICIT`.
const OTHER_NAME: u8 = 0xa0;

/// The TCG's certificate policies: what the CA says that it verified before it issued.
const POLICIES: [(&str, &str); 3] = [
    ("2.23.133.11.1.1", "the key is in a TPM"),
    ("2.23.133.11.1.2", "the key is fixedTPM"),
    ("2.23.133.11.1.3", "the key is restricted"),
];

/// What kind of identity a certificate is for, by its own word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum IdentityKind {
    /// A device's initial attestation key.
    Iak,
    /// A device's initial identity.
    IDevId,
    /// An attestation key without a device's name.
    Ak,
    /// Nothing in it says.
    Unstated,
}

impl IdentityKind {
    /// `IAK`, `IDevID`, `AK`, `unstated`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Iak => "IAK",
            Self::IDevId => "IDevID",
            Self::Ak => "AK",
            Self::Unstated => "unstated",
        }
    }
}

/// The device, as its maker names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HardwareModule {
    /// hwType, an object identifier.
    pub hw_type: String,
    /// Whether that is a TPM 2.0, so that the serial number names its EK.
    pub tpm20: bool,
    /// hwSerialNum: text where it is some, else hex.
    pub hw_serial: String,
}

/// What an identity certificate says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IdentityCertificate {
    /// Its kind.
    pub kind: IdentityKind,
    /// What every certificate says.
    #[serde(flatten)]
    pub facts: CertificateFacts,
    /// The device that it is for.
    pub hardware_module: Option<HardwareModule>,
    /// What the CA says that it verified.
    pub verified_by_ca: Vec<&'static str>,
    /// What is wrong or odd in it.
    pub findings: Findings,
}

/// Reads an identity certificate in DER.
///
/// # Errors
/// What is no X.509 certificate, or has a hardwareModuleName that cannot be read.
pub fn read_identity(der: &[u8]) -> Result<IdentityCertificate, ParseError> {
    let certificate = parse(der)?;
    let (facts, key) = CertificateFacts::of(der, &certificate);
    let name = certificate.extensions().iter().find(|one| one.oid.to_id_string() == ALTERNATIVE_NAME);
    let hardware_module = name.map(|name| hardware_module(name.value)).transpose()?.flatten();
    let attests = facts.extended_key_usage.contains(&oid(AIK_CERTIFICATE));
    let kind = match (&hardware_module, attests) {
        (Some(_), true) => IdentityKind::Iak,
        (Some(_), false) => IdentityKind::IDevId,
        (None, true) => IdentityKind::Ak,
        (None, false) => IdentityKind::Unstated,
    };
    let said = |policy: &&(&str, &'static str)| facts.policies.iter().any(|one| one == policy.0);
    let verified_by_ca = POLICIES.iter().filter(said).map(|(_, text)| *text).collect();
    let mut findings = deviations(der, &certificate);
    check_key(key.as_ref(), &facts, &mut findings);
    Ok(IdentityCertificate { kind, facts, hardware_module, verified_by_ca, findings })
}

fn check_key(key: Option<&PublicKey>, facts: &CertificateFacts, findings: &mut Findings) {
    let weakness = key.map_or_else(|| Some(facts.key.clone()), PublicKey::weakness);
    let roca = matches!(key, Some(PublicKey::Rsa { modulus, .. }) if roca::is_weak(modulus));
    findings.check("identity.key", weakness.is_some() || roca, || {
        Finding::error("", "the certified key is not one that can be relied on")
            .expected("RSA-2048, -3072 or -4096 of a sound generator, P-256 or P-384")
            .found(if roca { "ROCA (CVE-2017-15361)".to_owned() } else { weakness.unwrap_or_default() })
            .fix("ask the maker for an identity with another key")
    });
}

/// The hardwareModuleName of a subjectAltName's value.
fn hardware_module(value: &[u8]) -> Result<Option<HardwareModule>, ParseError> {
    let mut reader = Reader::new(value);
    let names = Element::expect(&mut reader, SEQUENCE, "the alternative name")?;
    for name in Element::all(names, "a general name")? {
        if name.tag != OTHER_NAME {
            continue;
        }
        let mut fields = name.contents;
        if oid(Element::expect(&mut fields, OID, "an other name's type")?.rest()) != HARDWARE_MODULE_NAME {
            continue;
        }
        let mut wrapped = Element::expect(&mut fields, OTHER_NAME, "the hardwareModuleName")?;
        let mut parts = Element::expect(&mut wrapped, SEQUENCE, "the hardwareModuleName")?;
        let hw_type = oid(Element::expect(&mut parts, OID, "the hwType")?.rest());
        let serial = Element::expect(&mut parts, OCTET_STRING, "the hwSerialNum")?;
        if !parts.is_empty() {
            return Err(parts.error(Problem::Trailing { what: "the hardwareModuleName", left: parts.left() }));
        }
        let bytes = serial.rest();
        let text =
            bytes.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ').then(|| std::str::from_utf8(bytes));
        let hw_serial = match text {
            Some(Ok(text)) if !text.is_empty() => one_line(text),
            _ => hex::encode(bytes),
        };
        return Ok(Some(HardwareModule { tpm20: hw_type == TPM20, hw_type, hw_serial }));
    }
    Ok(None)
}

/// An identity certificate that a root of the bundle vouches for.
#[derive(Debug, Clone)]
pub struct GenuineIdentity {
    certificate: IdentityCertificate,
    class: TpmClass,
    key: PublicKey,
}

impl GenuineIdentity {
    /// What it says.
    #[must_use]
    pub const fn certificate(&self) -> &IdentityCertificate {
        &self.certificate
    }

    /// The class of its root.
    #[must_use]
    pub const fn class(&self) -> TpmClass {
        self.class
    }

    /// The key that is certified.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }
}

/// The ids of an identity certificate's chain.
const IDENTITY: Subject = Subject {
    what: "the identity certificate",
    prefix: "identity",
    chain: "identity.chain",
    algorithm: "identity.algorithm",
    critical: "identity.critical-extension",
    revoked: "identity.revoked",
    crl: "identity.crl",
    // Clouds renew them, and a maker's has no end: an expired one is refused.
    outlives: false,
    // Google's CA is constrained to EK certificates and issues AK certificates without a usage; an IDevID is for TLS.
    usages: &[AIK_CERTIFICATE, super::ek::EK_CERTIFICATE, CLIENT_AUTH, SERVER_AUTH],
};

/// Judges an identity certificate against the bundle at the time `now`.
///
/// # Errors
/// Every finding: `identity.certificate`, `identity.key`, `identity.usage`, `identity.chain`, `identity.algorithm`, `identity.critical-extension`,
/// `identity.revoked`, `identity.crl`.
pub fn verify_identity(
    der: &[u8],
    intermediates: &[Vec<u8>],
    bundle: &TrustBundle,
    now: OffsetDateTime,
) -> Result<GenuineIdentity, Findings> {
    let unreadable = |error: String| {
        let finding = Finding::error("identity.certificate", "the identity certificate cannot be read");
        Findings::from(finding.expected("X.509 v3 in DER").found(error).fix("fetch the certificate again"))
    };
    let mut certificate = read_identity(der).map_err(|error| unreadable(error.to_string()))?;
    let parsed = parse(der).map_err(|error| unreadable(error.to_string()))?;
    let key = PublicKey::from_spki(parsed.public_key().raw).map_err(|error| unreadable(error.to_string()))?;
    let signs = parsed.key_usage().ok().flatten().is_none_or(|usage| usage.value.digital_signature());
    let ek = oid(super::ek::EK_CERTIFICATE);
    let only_ek = certificate.facts.extended_key_usage.contains(&ek) && certificate.kind != IdentityKind::Ak;
    certificate.findings.check("identity.usage", !signs || only_ek, || {
        Finding::error("", "the certificate is not one of a signing key")
            .expected("key usage digitalSignature, where it states one; no EK certificate")
            .found(if only_ek { "an EK certificate" } else { "another key usage" })
            .fix("send the certificate of the IAK, IDevID or AK, not the EK's")
    });
    if !certificate.findings.acceptable() {
        return Err(certificate.findings);
    }
    let class = check_chain(&IDENTITY, der, &parsed, intermediates, bundle, now, &mut certificate.findings);
    if !certificate.findings.acceptable() {
        return Err(certificate.findings);
    }
    Ok(GenuineIdentity { certificate, class, key })
}
