//! The endorsement key: whose TPM is this?
//!
//! TCG EK Credential Profile 2.5, 3.2 (certificate), B.3 (templates); RFC 5280 6 (path validation, by rustls-webpki).
//!
//! Establishes: a maker whose root the operator put into one class's directory vouches for this very key as a TPM's EK; and the public
//! area is one that MakeCredential can address. Does **not** establish that the host at hand holds the key (credential activation
//! does), nor, without a certificate, anything at all beyond the shape (class `unverified`).

use time::OffsetDateTime;
use x509_parser::prelude::X509Certificate;

use super::chain::{Subject, check_chain};
use super::class::{
    EXPLICIT_DEFAULT, NO_EKU, NV_PADDING, RSAES_OAEP, TpmClass, TrustBundle, UNSORTED_SET, quirk_finding,
};
use super::credential::{AesKey, ProtectionKey};
use super::der::Deviations;
use super::roca;
use super::tpm_attributes::TpmAttributes;
use crate::digest::HashAlg;
use crate::finding::{Finding, Findings};
use crate::tpm::key::{Curve, PublicKey};
use crate::tpm::public::{ObjectAttributes, Public};

/// tcg-kp-EKCertificate, 2.23.133.8.1, as DER contents.
pub(super) const EK_CERTIFICATE: &[u8] = &[0x67, 0x81, 0x05, 0x08, 0x01];
/// TPM_ALG_AES.
const ALG_AES: u16 = 0x0006;
/// TPM_ALG_CFB.
const ALG_CFB: u16 = 0x0043;
/// Largest EK certificate: the NV indices that hold them have at most 2 KiB; makers' are below 1.5 KiB.
const CERTIFICATE_MAX: usize = 4096;
/// Most intermediates that a host may send: makers' chains have at most three.
const INTERMEDIATES_MAX: usize = 8;

/// An EK that passed every check, with the class that the bundle gives it.
///
/// Never stored as such: what is stored is the evidence (public area and certificates), judged again by the current bundle.
#[derive(Debug, Clone)]
pub struct GenuineEk {
    public: Public,
    class: TpmClass,
    id: [u8; 32],
    protection: ProtectionKey,
    tpm: Option<TpmAttributes>,
    advice: Findings,
}

impl GenuineEk {
    /// The public area.
    #[must_use]
    pub const fn public(&self) -> &Public {
        &self.public
    }

    /// The class, by the bundle's directory.
    #[must_use]
    pub const fn class(&self) -> TpmClass {
        self.class
    }

    /// EK id: SHA-256 of the key's SubjectPublicKeyInfo.
    #[must_use]
    pub const fn id(&self) -> &[u8; 32] {
        &self.id
    }

    /// What a credential for this EK is made with.
    #[must_use]
    pub const fn protection(&self) -> &ProtectionKey {
        &self.protection
    }

    /// Manufacturer, model and version as the certificate names them. None without a certificate, or where it does not say.
    #[must_use]
    pub const fn tpm(&self) -> Option<&TpmAttributes> {
        self.tpm.as_ref()
    }

    /// Findings that do not refuse: `ek.expired`, `ek.no-certificate`, `ek.crl-stale`, `ek.tpm-attributes`, `ek.quirk.*`.
    #[must_use]
    pub const fn advice(&self) -> &Findings {
        &self.advice
    }
}

/// Judges an EK: its public area, its certificate against the bundle, at the time `now`.
///
/// Without a certificate the EK is accepted as class [`TpmClass::Unverified`].
///
/// # Errors
/// Every finding, among them at least one that refuses: `ek.key-size`, `ek.attributes`, `ek.protection`, `ek.certificate`, `ek.chain`,
/// `ek.algorithm`, `ek.critical-extension`, `ek.usage`, `ek.key-mismatch`, `ek.roca`, `ek.revoked`, `ek.crl`.
pub fn verify_ek(
    public: &Public,
    certificate: Option<&[u8]>,
    intermediates: &[Vec<u8>],
    bundle: &TrustBundle,
    now: OffsetDateTime,
) -> Result<GenuineEk, Findings> {
    let mut findings = Findings::new();
    let shape = check_public(public, &mut findings);
    let class = match certificate {
        // No signature is looked at for a key that is refused anyway.
        _ if !findings.acceptable() => TpmClass::Unverified,
        Some(certificate) => check_certificate(Some(public), certificate, intermediates, bundle, now, &mut findings),
        None => {
            findings.push(
                Finding::info("ek.no-certificate", "the TPM has no EK certificate: nothing tells it from software")
                    .fix("use a TPM with an EK certificate where a pool asks for one"),
            );
            TpmClass::Unverified
        }
    };
    match shape {
        Some((protection, id)) if findings.acceptable() => {
            let tpm = certificate.and_then(|certificate| tpm_attributes(certificate, &mut findings));
            Ok(GenuineEk { public: public.clone(), class, id, protection, tpm, advice: findings })
        }
        _ => Err(findings),
    }
}

/// What [`verify_ek`] would say of a certificate, before its TPM is at hand: the class, and every finding.
///
/// For people who look at a file. It yields no proof: no key is bound to anything.
#[must_use]
pub fn verify_ek_certificate(
    certificate: &[u8],
    intermediates: &[Vec<u8>],
    bundle: &TrustBundle,
    now: OffsetDateTime,
) -> (TpmClass, Findings) {
    let mut findings = Findings::new();
    let class = check_certificate(None, certificate, intermediates, bundle, now, &mut findings);
    (if findings.acceptable() { class } else { TpmClass::Unverified }, findings)
}

/// The public area by itself: size, attributes, and what MakeCredential needs.
fn check_public(public: &Public, findings: &mut Findings) -> Option<(ProtectionKey, [u8; 32])> {
    let key = public.key();
    let listed = match key {
        PublicKey::Ec { curve: Curve::P256 | Curve::P384, .. } => true,
        PublicKey::Rsa { .. } => key.bits() == Some(2048) && key.weakness().is_none(),
        PublicKey::Ec { .. } => false,
    };
    findings.check("ek.key-size", !listed, || {
        Finding::error("", "the EK's kind or size is not on the list")
            .expected("RSA-2048, P-256 or P-384")
            .found(key.weakness().unwrap_or_else(|| key.kind()))
            .fix("use one of the TPM's other EK templates")
    });
    let weak = matches!(key, PublicKey::Rsa { modulus, .. } if roca::is_weak(modulus));
    findings.check("ek.roca", weak, || {
        Finding::error("", "the EK was made by a faulty key generator (ROCA, CVE-2017-15361): its private part can be computed")
            .expected("a modulus without the generator's fingerprint")
            .found(key)
            .fix("update the TPM's firmware and renew its EK as the maker says, or use its ECC EK; a TPM that cannot must be replaced")
    });
    let wanted = ObjectAttributes::FIXED_TPM
        .with(ObjectAttributes::FIXED_PARENT)
        .with(ObjectAttributes::SENSITIVE_DATA_ORIGIN)
        .with(ObjectAttributes::RESTRICTED)
        .with(ObjectAttributes::DECRYPT);
    let attributes = public.attributes();
    findings.check("ek.attributes", !attributes.has(wanted) || attributes.has(ObjectAttributes::SIGN), || {
        Finding::error("", "the EK's public area is not an endorsement key's")
            .expected(format!("{wanted}, not sign"))
            .found(attributes)
            .fix("create the EK from the TCG's template")
    });
    let aes = public.symmetric().and_then(|symmetric| match (symmetric.algorithm, symmetric.mode, symmetric.bits) {
        (ALG_AES, ALG_CFB, 128) => Some(AesKey::Bits128),
        (ALG_AES, ALG_CFB, 256) => Some(AesKey::Bits256),
        _ => None,
    });
    let hash = matches!(public.name_alg(), HashAlg::Sha256 | HashAlg::Sha384);
    findings.check("ek.protection", aes.is_none() || !hash, || {
        Finding::error("", "no secret can be protected for this EK")
            .expected("AES-128 or AES-256 in CFB mode; nameAlg sha256 or sha384")
            .found(format!("{:?}; nameAlg {}", public.symmetric(), public.name_alg()))
            .fix("create the EK from the TCG's template")
    });
    Some((ProtectionKey { key: key.clone(), name_alg: public.name_alg(), aes: aes? }, key.id()?))
}

/// The certificate: chain, usage, key. Returns the class that its root gives.
fn check_certificate(
    public: Option<&Public>,
    certificate: &[u8],
    intermediates: &[Vec<u8>],
    bundle: &TrustBundle,
    now: OffsetDateTime,
    findings: &mut Findings,
) -> TpmClass {
    let parsed = x509_parser::parse_x509_certificate(certificate).ok();
    let oversize = certificate.len() > CERTIFICATE_MAX
        || intermediates.len() > INTERMEDIATES_MAX
        || intermediates.iter().any(|one| one.len() > CERTIFICATE_MAX);
    let usable = parsed.as_ref().filter(|_| !oversize);
    findings.check("ek.certificate", usable.is_none(), || {
        Finding::error("", "the EK certificate cannot be read")
            .expected(format!(
                "X.509 v3 in DER, at most {CERTIFICATE_MAX} bytes, at most {INTERMEDIATES_MAX} intermediates"
            ))
            .found(format!("{} bytes, {} intermediates", certificate.len(), intermediates.len()))
            .fix("read the TPM's NV index of the EK certificate again; `hostd doctor` shows it")
    });
    let Some((padding, leaf)) = usable else { return TpmClass::Unverified };
    let padded = !padding.is_empty();
    if padded {
        let blank = padding.iter().all(|byte| *byte == 0) || padding.iter().all(|byte| *byte == 0xff);
        findings.check("ek.certificate", !blank || !bundle.tolerates(NV_PADDING), || {
            Finding::error("", "bytes follow the EK certificate")
                .expected("nothing, or padding and the quirk `nv-padding` tolerated")
                .found(format!("{} bytes", padding.len()))
                .fix("send the certificate without the padding of its NV index")
        });
        if blank && bundle.tolerates(NV_PADDING) {
            findings.push(quirk_finding(NV_PADDING));
        }
    }
    let exact = certificate.get(..certificate.len().saturating_sub(padding.len())).unwrap_or_default();

    // Parsed before any signature work, so that a key of a wrong size never reaches the mathematics (A14).
    let mut certified = PublicKey::from_spki(leaf.public_key().raw);
    if let (Err(_), Some(key), true) = (&certified, oaep_key(leaf), bundle.tolerates(RSAES_OAEP)) {
        certified = Ok(key);
        findings.push(quirk_finding(RSAES_OAEP));
    }
    if let Some(public) = public {
        let same = certified.as_ref().is_ok_and(|key| key == public.key());
        findings.check("ek.key-mismatch", !same, || {
            let found = match &certified {
                Ok(key) => key.to_string(),
                Err(error) => error.to_string(),
            };
            Finding::error("", "the EK certificate is for another key")
                .expected(public.key())
                .found(found)
                .fix("send the certificate of the EK that the host uses (RSA and ECC EKs have one each)")
        });
    }
    let deviations = Deviations::of(exact);
    for (seen, quirk) in [(deviations.unsorted_set, UNSORTED_SET), (deviations.explicit_default, EXPLICIT_DEFAULT)] {
        if seen {
            findings.push(quirk_finding(quirk));
        }
    }
    let class = check_chain(&EK, exact, leaf, intermediates, bundle, now, findings);
    check_usage(leaf, class, bundle, findings);
    class
}

/// The ids of an EK certificate's chain.
const EK: Subject = Subject {
    what: "the EK certificate",
    prefix: "ek",
    chain: "ek.chain",
    algorithm: "ek.algorithm",
    critical: "ek.critical-extension",
    revoked: "ek.revoked",
    crl: "ek.crl",
    outlives: true,
    usages: &[EK_CERTIFICATE],
};

/// The RSA key of a SubjectPublicKeyInfo whose algorithm is id-RSAES-OAEP (quirk [`RSAES_OAEP`]).
pub(super) fn oaep_key(certificate: &X509Certificate<'_>) -> Option<PublicKey> {
    let spki = certificate.public_key();
    if spki.algorithm.algorithm.to_id_string() != "1.2.840.113549.1.1.7" {
        return None;
    }
    PublicKey::from_rsa_public_key(&spki.subject_public_key.data).ok()
}

/// What the certificate says of the TPM. A name that cannot be read is told: nothing is decided by it.
fn tpm_attributes(certificate: &[u8], findings: &mut Findings) -> Option<TpmAttributes> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = parsed.extensions().iter().find(|one| one.oid.to_id_string() == ALTERNATIVE_NAME)?;
    TpmAttributes::from_alternative_name(name.value).unwrap_or_else(|error| {
        findings.push(
            Finding::warning("ek.tpm-attributes", "the EK certificate does not say readably which TPM it is for")
                .expected("manufacturer, model and version in the alternative name (TCG EK Credential Profile 3.2.9)")
                .found(error)
                .fix("report the certificate to its maker; nothing is decided by these attributes"),
        );
        None
    })
}

/// subjectAltName.
pub(super) const ALTERNATIVE_NAME: &str = "2.5.29.17";

/// The leaf's extended key usage: without it, any certificate of the maker's CA would do.
fn check_usage(leaf: &X509Certificate<'_>, class: TpmClass, bundle: &TrustBundle, findings: &mut Findings) {
    let extended = leaf.extended_key_usage().ok().flatten();
    let named =
        extended.as_ref().is_some_and(|usage| usage.value.other.iter().any(|oid| oid.as_bytes() == EK_CERTIFICATE));
    let encrypts_only = leaf.key_usage().ok().flatten().is_some_and(|usage| {
        // Bits 2 (keyEncipherment) and 4 (keyAgreement); no other.
        usage.value.flags & !0b1_0100 == 0 && usage.value.flags != 0
    });
    // Other makers' CAs sign more than EKs: the quirk is a cloud's alone.
    let by_quirk = extended.is_none() && encrypts_only && class == TpmClass::Virtual && bundle.tolerates(NO_EKU);
    if by_quirk && !named {
        findings.push(quirk_finding(NO_EKU));
    }
    findings.check("ek.usage", !named && !by_quirk, || {
        Finding::error("", "the certificate is not an EK certificate")
            .expected("extended key usage 2.23.133.8.1 (tcg-kp-EKCertificate)")
            .found(if extended.is_some() { "another extended key usage" } else { "no extended key usage" })
            .fix("send the EK's own certificate, not another one of the same CA")
    });
}
