//! The endorsement key: whose TPM is this?
//!
//! TCG EK Credential Profile 2.5, 3.2 (certificate), B.3 (templates); RFC 5280 6 (path validation, by rustls-webpki).
//!
//! Establishes: a maker whose root the operator put into one class's directory vouches for this very key as a TPM's EK; and the public
//! area is one that MakeCredential can address. Does **not** establish that the host at hand holds the key (credential activation
//! does), nor, without a certificate, anything at all beyond the shape (class `unverified`).

use rustls_pki_types::{CertificateDer, UnixTime};
use time::OffsetDateTime;
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::X509Certificate;

use super::class::{CRITICAL_POLICIES, NO_EKU, NV_PADDING, QUIRKS, TpmClass, TrustBundle};
use super::credential::{AesKey, ProtectionKey};
use crate::digest::HashAlg;
use crate::finding::{Finding, Findings};
use crate::tpm::key::{Curve, PublicKey};
use crate::tpm::public::{ObjectAttributes, Public};

/// tcg-kp-EKCertificate, 2.23.133.8.1, as DER contents.
const EK_CERTIFICATE: &[u8] = &[0x67, 0x81, 0x05, 0x08, 0x01];
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

    /// Findings that do not refuse: `ek.expired`, `ek.no-certificate`, `ek.quirk.*`.
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
/// `ek.algorithm`, `ek.critical-extension`, `ek.usage`, `ek.key-mismatch`.
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
        Some(certificate) => check_certificate(public, certificate, intermediates, bundle, now, &mut findings),
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
            Ok(GenuineEk { public: public.clone(), class, id, protection, advice: findings })
        }
        _ => Err(findings),
    }
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
    public: &Public,
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
            findings.push(quirk_used("ek.quirk.nv-padding", NV_PADDING));
        }
    }
    let exact = certificate.get(..certificate.len().saturating_sub(padding.len())).unwrap_or_default();

    // Parsed before any signature work, so that a key of a wrong size never reaches the mathematics (A14).
    let certified = PublicKey::from_spki(leaf.public_key().raw);
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
    check_usage(leaf, bundle, findings);
    check_chain(exact, leaf, intermediates, bundle, now, findings)
}

/// The leaf's extended key usage: without it, any certificate of the maker's CA would do.
fn check_usage(leaf: &X509Certificate<'_>, bundle: &TrustBundle, findings: &mut Findings) {
    let extended = leaf.extended_key_usage().ok().flatten();
    let named =
        extended.as_ref().is_some_and(|usage| usage.value.other.iter().any(|oid| oid.as_bytes() == EK_CERTIFICATE));
    let encrypts_only = leaf.key_usage().ok().flatten().is_some_and(|usage| {
        // Bits 2 (keyEncipherment) and 4 (keyAgreement); no other.
        usage.value.flags & !0b1_0100 == 0 && usage.value.flags != 0
    });
    let by_quirk = extended.is_none() && encrypts_only && bundle.tolerates(NO_EKU);
    if by_quirk && !named {
        findings.push(quirk_used("ek.quirk.no-eku", NO_EKU));
    }
    findings.check("ek.usage", !named && !by_quirk, || {
        Finding::error("", "the certificate is not an EK certificate")
            .expected("extended key usage 2.23.133.8.1 (tcg-kp-EKCertificate)")
            .found(if extended.is_some() { "another extended key usage" } else { "no extended key usage" })
            .fix("send the EK's own certificate, not another one of the same CA")
    });
}

/// The path to a root. Lower classes are asked first, so a root that stands in two classes gives the lower one.
fn check_chain(
    exact: &[u8],
    leaf: &X509Certificate<'_>,
    intermediates: &[Vec<u8>],
    bundle: &TrustBundle,
    now: OffsetDateTime,
    findings: &mut Findings,
) -> TpmClass {
    let not_after = leaf.validity().not_after.to_datetime();
    let expired = now > not_after;
    if expired {
        // A TPM outlives its certificate and cannot get another: TCG EK Credential Profile 2.5, 2.2.1.5. The chain is then judged at the
        // certificate's last second.
        findings.push(
            Finding::warning("ek.expired", "the EK certificate has expired")
                .expected("valid now")
                .found(format!("not after {not_after}"))
                .fix("none is needed: a TPM's key stays the same; plan the machine's replacement"),
        );
    }
    let at = if expired { not_after } else { now };
    let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(
        u64::try_from(at.unix_timestamp()).unwrap_or_default(),
    ));
    let mut outcome = Err(webpki::Error::UnknownIssuer);
    for class in TpmClass::CERTIFIED {
        match verify_path(exact, intermediates, bundle, class, at) {
            Ok(as_it_stands) => {
                if as_it_stands {
                    findings.push(quirk_used("ek.quirk.critical-policies", CRITICAL_POLICIES));
                }
                outcome = Ok(class);
                break;
            }
            // "Unknown issuer" says the least: keep what another class's roots said.
            Err(webpki::Error::UnknownIssuer) => {}
            Err(error) => outcome = Err(error),
        }
    }
    let error = outcome.as_ref().err();
    let critical = matches!(error, Some(webpki::Error::UnsupportedCriticalExtension));
    #[allow(deprecated, reason = "webpki may still return the variant without context")]
    let algorithm = matches!(
        error,
        Some(
            webpki::Error::UnsupportedSignatureAlgorithm
                | webpki::Error::UnsupportedSignatureAlgorithmContext(_)
                | webpki::Error::UnsupportedSignatureAlgorithmForPublicKey
                | webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)
        )
    );
    findings.check("ek.critical-extension", critical, || {
        Finding::error("", "a certificate of the chain has a critical extension that is not understood")
            .expected("only extensions that path validation knows")
            .found(critical_extensions(leaf))
            .fix(
                "if it is certificatePolicies in a maker's intermediate, put that into the class's directory and tolerate the quirk \
                 `critical-policies`; else report the certificate, so that its extension can be judged",
            )
    });
    findings.check("ek.algorithm", algorithm, || {
        Finding::error("", "a certificate of the chain is signed with an algorithm that is not accepted")
            .expected("RSA from 2048 bits or ECDSA, with SHA-256 or longer")
            .found(leaf.signature_algorithm.algorithm.to_id_string())
            .fix("TPM 1.2 certificates signed with SHA-1 cannot be used; use the machine's TPM 2.0")
    });
    findings.check("ek.chain", !critical && !algorithm && error.is_some(), || {
        Finding::error("", "the EK certificate does not chain to a trusted root")
            .expected("a root under trust/ek/<class>/ that signed it, directly or through intermediates")
            .found(format!("{}; issuer {}", error.map(ToString::to_string).unwrap_or_default(), leaf.issuer()))
            .fix("if the maker is to be trusted, put its root and intermediates into the class's directory")
    });
    outcome.unwrap_or(TpmClass::Unverified)
}

/// Whether the leaf chains to a root of the class. Ok(true): only by the quirk [`CRITICAL_POLICIES`].
fn verify_path(
    leaf: &[u8],
    intermediates: &[Vec<u8>],
    bundle: &TrustBundle,
    class: TpmClass,
    at: UnixTime,
) -> Result<bool, webpki::Error> {
    let leaf = CertificateDer::from(leaf);
    let leaf = EndEntityCert::try_from(&leaf)?;
    let mut between: Vec<CertificateDer<'_>> =
        bundle.intermediates(class).map(|one| CertificateDer::from(one.as_ref())).collect();
    between.extend(intermediates.iter().map(|one| CertificateDer::from(one.as_slice())));
    let attempt = |roots: Vec<CertificateDer<'_>>| {
        let anchors = roots.iter().map(webpki::anchor_from_trusted_cert).collect::<Result<Vec<_>, _>>()?;
        // The leaf's own usage is checked apart, strictly; here an intermediate's constraint on usage is honoured.
        let usage = KeyUsage::required_if_present(EK_CERTIFICATE);
        leaf.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, &between, at, usage, None, None).map(|_| ())
    };
    let strict = attempt(bundle.roots(class).map(|one| CertificateDer::from(one.as_ref())).collect());
    match strict {
        Err(webpki::Error::UnsupportedCriticalExtension | webpki::Error::UnknownIssuer)
            if bundle.tolerates(CRITICAL_POLICIES) =>
        {
            let trusted: Vec<_> =
                bundle.critical_policies(class).map(|one| CertificateDer::from(one.as_ref())).collect();
            if trusted.is_empty() { strict.map(|()| false) } else { attempt(trusted).map(|()| true) }
        }
        strict => strict.map(|()| false),
    }
}

/// The critical extensions of the leaf, by OID.
fn critical_extensions(leaf: &X509Certificate<'_>) -> String {
    let list: Vec<_> = leaf.extensions().iter().filter(|one| one.critical).map(|one| one.oid.to_id_string()).collect();
    format!("critical in the leaf: {}", list.join(", "))
}

fn quirk_used(id: &'static str, quirk: &str) -> Finding {
    let text = QUIRKS.iter().find(|one| one.id == quirk).map_or("", |one| one.reason);
    Finding::info(id, text)
}
