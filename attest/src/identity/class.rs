//! Classes of TPM, and the bundle of root certificates that decides them.
//!
//! DESIGN law 7: nothing simulated passes for real. A class comes from **where the operator put the root**
//! (`/etc/hostmark/trust/ek/<class>/`), never from a word in a certificate: anybody's CA can write a vendor's name.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_parser::prelude::X509Certificate;

use super::der::{Element, SEQUENCE};
use crate::bytes::Reader;
use crate::tpm::key::without_leading_zeros;

/// What a TPM is, lowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum TpmClass {
    /// No TPM.
    None,
    /// A software TPM for demos and tests.
    Simulated,
    /// A TPM without an EK certificate: it may be software.
    Unverified,
    /// A cloud's or hypervisor's TPM.
    Virtual,
    /// A TPM inside the platform's firmware or CPU.
    Firmware,
    /// A discrete chip.
    Hardware,
}

impl TpmClass {
    /// The classes that a root certificate can give, lowest first.
    pub const CERTIFIED: [Self; 4] = [Self::Simulated, Self::Virtual, Self::Firmware, Self::Hardware];

    /// The name in configuration and directories.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Simulated => "simulated",
            Self::Unverified => "unverified",
            Self::Virtual => "virtual",
            Self::Firmware => "firmware",
            Self::Hardware => "hardware",
        }
    }

    /// By its name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::None, Self::Simulated, Self::Unverified, Self::Virtual, Self::Firmware, Self::Hardware]
            .into_iter()
            .find(|class| class.name() == name)
    }
}

impl fmt::Display for TpmClass {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// A deviation of makers' certificates; each use is a finding.
#[derive(Debug, PartialEq, Eq)]
pub struct Quirk {
    /// Its name in configuration, and (after `ek.quirk.`) its finding's id.
    pub id: &'static str,
    /// Whose certificates show it.
    pub scope: &'static str,
    /// Why it can be tolerated.
    pub reason: &'static str,
    /// Whether it loosens a check, so that the operator must tolerate it by name. The others are only shown.
    pub loosens: bool,
}

/// Every quirk that this version knows. What loosens a check is off unless the bundle enables it.
pub const QUIRKS: [Quirk; 9] = [
    Quirk {
        id: CRITICAL_POLICIES,
        scope: "intermediates of STMicroelectronics and Intel, as the operator holds them",
        reason: "they mark certificatePolicies critical, which path validation here does not process; with no policy asked for it cannot \
                 change an outcome (RFC 5280 6.1.1), so such an intermediate of the operator's own bundle is trusted as it stands",
        loosens: true,
    },
    Quirk {
        id: NO_EKU,
        scope: "class virtual: Google Cloud's EK/AK CA",
        reason: "its EK certificates carry no extended key usage; the key usage (keyAgreement or keyEncipherment, nothing else) \
                 still tells them from the AK certificates of the same CA",
        loosens: true,
    },
    Quirk {
        id: NV_PADDING,
        scope: "EK certificates read as a whole NV index (Nuvoton, Nationz)",
        reason: "the index is larger than the certificate and ends in 0x00 or 0xff bytes, which no signature covers",
        loosens: true,
    },
    Quirk {
        id: RSAES_OAEP,
        scope: "TPM 1.2 certificates, and those of TPMs that were upgraded from it (Nuvoton NPCT6xx, STMicroelectronics ST33ZP24)",
        reason: "the key's algorithm is id-RSAES-OAEP (RFC 4055 4.1) instead of rsaEncryption: the same RSA key, and an EK only decrypts \
                 with OAEP anyway",
        loosens: true,
    },
    Quirk {
        id: NV_HEADER,
        scope: "EK certificates as a TPM 1.2 keeps them in its NV index",
        reason: "TCG_PCCLIENT_STORED_CERT puts 7 bytes before the certificate; only files are read so, never what a host sends",
        loosens: false,
    },
    Quirk {
        id: PEM_TEXT,
        scope: "PEM files that people have touched",
        reason: "text before or after the encapsulated certificate is no part of it (RFC 7468 2); only files are read so",
        loosens: false,
    },
    Quirk {
        id: UNSORTED_SET,
        scope: "names in Nuvoton's certificates",
        reason: "the members of a SET OF are not in DER's order; the signature covers the bytes as they are, and names are compared as bytes",
        loosens: false,
    },
    Quirk {
        id: EXPLICIT_DEFAULT,
        scope: "extensions in the certificates of Intel, STMicroelectronics and Google",
        reason: "a FALSE that DER leaves out is written; it says the same, and the signature covers the bytes as they are",
        loosens: false,
    },
    Quirk {
        id: NO_END,
        scope: "swtpm's CA, IDevID certificates (IEEE 802.1AR 8.7)",
        reason: "not after 99991231235959Z means that there is no end (RFC 5280 4.1.2.5)",
        loosens: false,
    },
];

/// The quirk of this id, for a finding's text.
pub(super) fn quirk_finding(id: &'static str) -> crate::finding::Finding {
    let reason = QUIRKS.iter().find(|one| one.id == id).map_or("", |one| one.reason);
    crate::finding::Finding::info(format!("ek.quirk.{id}"), reason)
}

/// See [`QUIRKS`].
pub(super) const CRITICAL_POLICIES: &str = "critical-policies";
/// See [`QUIRKS`].
pub(super) const NO_EKU: &str = "no-eku";
/// See [`QUIRKS`].
pub(super) const NV_PADDING: &str = "nv-padding";
/// See [`QUIRKS`].
pub(super) const RSAES_OAEP: &str = "rsaes-oaep";
/// See [`QUIRKS`].
pub(super) const NV_HEADER: &str = "nv-header";
/// See [`QUIRKS`].
pub(super) const PEM_TEXT: &str = "pem-text";
/// See [`QUIRKS`].
pub(super) const UNSORTED_SET: &str = "unsorted-set";
/// See [`QUIRKS`].
pub(super) const EXPLICIT_DEFAULT: &str = "explicit-default";
/// See [`QUIRKS`].
pub(super) const NO_END: &str = "no-end";

/// Most certificates in one bundle: all makers' CAs together are below 1000 today.
const CERTIFICATES_MAX: usize = 4096;

/// Why a certificate file cannot be part of the bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// Neither a PEM bundle nor one DER certificate or CRL.
    #[error("neither PEM certificates or CRLs nor one of them in DER")]
    NotACertificate,
    /// A CRL that path validation cannot use, so that what it revokes would be trusted.
    #[error("the CRL of `{issuer}` cannot be used: {reason}")]
    Crl {
        /// Its issuer.
        issuer: String,
        /// Why not.
        reason: String,
    },
    /// A root that cannot serve as a trust anchor.
    #[error("`{subject}` cannot be a trust anchor: {reason}")]
    Anchor {
        /// The certificate's subject.
        subject: String,
        /// Why not.
        reason: String,
    },
    /// A class that no root gives.
    #[error("no root certificate gives the class {0}")]
    Class(TpmClass),
    /// A name that is not in [`QUIRKS`].
    #[error("unknown quirk `{0}`")]
    Quirk(String),
    /// Above the limit.
    #[error("a bundle has at most {CERTIFICATES_MAX} certificates")]
    TooMany,
}

/// One certificate of the bundle.
#[derive(Debug, Clone)]
struct Trusted {
    class: TpmClass,
    /// Self-issued: a trust anchor. Otherwise an intermediate.
    root: bool,
    /// Its certificatePolicies are critical, and nothing else in it is that path validation does not know.
    critical_policies: bool,
    /// Names, as DER.
    subject: Vec<u8>,
    issuer: Vec<u8>,
    der: CertificateDer<'static>,
}

/// One list of revoked certificates. Its signature is verified with the path that it is asked about.
#[derive(Debug, Clone)]
pub(super) struct Revocations {
    class: TpmClass,
    list: Arc<CertRevocationList<'static>>,
    /// The issuer, for people.
    pub(super) issuer: String,
    pub(super) this_update: OffsetDateTime,
    /// When the next one was promised.
    pub(super) next_update: Option<OffsetDateTime>,
}

impl Revocations {
    fn parse(class: TpmClass, der: &[u8]) -> Result<Self, BundleError> {
        let (rest, parsed) = x509_parser::parse_x509_crl(der).map_err(|_| BundleError::NotACertificate)?;
        let issuer = crate::finding::one_line(&parsed.issuer().to_string());
        let unusable = |reason: String| BundleError::Crl { issuer: issuer.clone(), reason };
        if !rest.is_empty() {
            return Err(unusable(format!("{} bytes follow it", rest.len())));
        }
        let list = OwnedCertRevocationList::from_der(der).map_err(|error| unusable(error.to_string()))?;
        let this_update = parsed.last_update().to_datetime();
        let next_update = parsed.next_update().map(|time| time.to_datetime());
        Ok(Self { class, list: Arc::new(CertRevocationList::Owned(list)), issuer, this_update, next_update })
    }

    pub(super) fn list(&self) -> &CertRevocationList<'static> {
        &self.list
    }

    /// Whether it is the list of this issuer (a Name's contents).
    pub(super) fn is_of(&self, issuer: &[u8]) -> bool {
        self.list.issuer() == issuer
    }

    /// Whether it names this certificate, whoever signed the list. Serial numbers are compared as numbers: CAs write leading zeros
    /// now and then.
    pub(super) fn names(&self, certificate: &X509Certificate<'_>) -> bool {
        let issuer = Element::expect(&mut Reader::new(certificate.issuer().as_raw()), SEQUENCE, "the issuer");
        let bare = without_leading_zeros(certificate.raw_serial());
        let padded = [[0].as_slice(), bare].concat();
        let forms = [certificate.raw_serial(), bare, &padded];
        issuer.is_ok_and(|issuer| self.is_of(issuer.rest()))
            && forms.iter().any(|serial| !matches!(self.list.find_serial(serial), Ok(None)))
    }
}

/// The roots and intermediates that EK certificates may chain to, by class, what they revoked, and the quirks that are tolerated.
///
/// An empty bundle trusts nothing.
#[derive(Debug, Clone, Default)]
pub struct TrustBundle {
    certificates: Vec<Trusted>,
    /// The newest first.
    revocations: Vec<Revocations>,
    quirks: BTreeSet<&'static str>,
}

impl TrustBundle {
    /// An empty bundle: every EK certificate is refused.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the certificates and CRLs of one file from the class's directory: a PEM bundle, or one of them in DER. Self-issued
    /// certificates become roots, others intermediates.
    ///
    /// # Errors
    /// [`BundleError`]; nothing of the file is added then.
    pub fn add(&mut self, class: TpmClass, file: &[u8]) -> Result<(), BundleError> {
        if !TpmClass::CERTIFIED.contains(&class) {
            return Err(BundleError::Class(class));
        }
        let mut added = Vec::new();
        let (certificates, lists) = contents(file)?;
        let mut revoked =
            lists.iter().map(|der| Revocations::parse(class, der)).collect::<Result<Vec<_>, BundleError>>()?;
        for der in certificates {
            let (subject, issuer, critical_policies) = {
                let (_, parsed) =
                    x509_parser::parse_x509_certificate(&der).map_err(|_| BundleError::NotACertificate)?;
                let (subject, issuer) = (parsed.subject().as_raw(), parsed.issuer().as_raw());
                if subject == issuer {
                    webpki::anchor_from_trusted_cert(&der).map_err(|reason| BundleError::Anchor {
                        subject: crate::finding::one_line(&parsed.subject().to_string()),
                        reason: reason.to_string(),
                    })?;
                }
                (subject.to_vec(), issuer.to_vec(), has_critical_policies(&parsed))
            };
            added.push(Trusted { class, root: subject == issuer, critical_policies, subject, issuer, der });
        }
        if self.certificates.len().saturating_add(added.len()) > CERTIFICATES_MAX
            || self.revocations.len().saturating_add(revoked.len()) > CERTIFICATES_MAX
        {
            return Err(BundleError::TooMany);
        }
        self.certificates.extend(added);
        self.revocations.append(&mut revoked);
        // Path validation asks the first list of an issuer.
        self.revocations.sort_by_key(|one| std::cmp::Reverse(one.this_update));
        Ok(())
    }

    /// Tolerates a quirk of [`QUIRKS`].
    ///
    /// # Errors
    /// [`BundleError::Quirk`] for an unknown name.
    pub fn tolerate(&mut self, quirk: &str) -> Result<(), BundleError> {
        let known = QUIRKS.iter().find(|known| known.id == quirk);
        self.quirks.insert(known.ok_or_else(|| BundleError::Quirk(quirk.to_owned()))?.id);
        Ok(())
    }

    /// Whether the quirk is tolerated.
    pub(super) fn tolerates(&self, quirk: &str) -> bool {
        self.quirks.contains(quirk)
    }

    /// The roots of one class.
    pub(super) fn roots(&self, class: TpmClass) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.certificates.iter().filter(move |one| one.class == class && one.root).map(|one| &one.der)
    }

    /// The intermediates of one class that may stand above a certificate of this issuer, by their names. The others say nothing of it:
    /// path validation would only confuse its reader with what is odd in them.
    pub(super) fn above(&self, class: TpmClass, issuer: &[u8]) -> Above<'_> {
        let mut above = Above::default();
        let mut wanted = vec![issuer];
        while let Some(name) = wanted.pop() {
            let new = |one: &&Trusted| one.class == class && !one.root && one.subject == name;
            for one in self.certificates.iter().filter(new) {
                if above.all.contains(&&one.der) {
                    continue;
                }
                above.all.push(&one.der);
                wanted.push(&one.issuer);
                if one.critical_policies {
                    let revoked = self.is_revoked_up_from(one);
                    if revoked { &mut above.revoked } else { &mut above.critical_policies }.push(&one.der);
                }
            }
        }
        above
    }

    /// Whether a list of its class names this certificate, or one that may stand above it.
    fn is_revoked_up_from(&self, one: &Trusted) -> bool {
        let named = |one: &Trusted| {
            let parsed = x509_parser::parse_x509_certificate(&one.der);
            parsed.is_ok_and(|(_, parsed)| self.revocations(one.class).any(|list| list.names(&parsed)))
        };
        let mut walked = vec![one];
        let mut at = 0;
        while let Some(one) = walked.get(at).copied() {
            if named(one) {
                return true;
            }
            at = at.saturating_add(1);
            for over in self.certificates.iter().filter(|over| over.class == one.class && over.subject == one.issuer) {
                if !walked.iter().any(|known| known.der == over.der) {
                    walked.push(over);
                }
            }
        }
        false
    }

    /// The lists of revoked certificates of one class.
    pub(super) fn revocations(&self, class: TpmClass) -> impl Iterator<Item = &Revocations> {
        self.revocations.iter().filter(move |one| one.class == class)
    }
}

/// See [`TrustBundle::above`].
#[derive(Debug, Default)]
pub(super) struct Above<'b> {
    pub(super) all: Vec<&'b CertificateDer<'static>>,
    /// Those that [`CRITICAL_POLICIES`] is about.
    pub(super) critical_policies: Vec<&'b CertificateDer<'static>>,
    /// Those of them that a list revokes, or whose issuers one does: path validation, which takes them as they stand, does not ask.
    pub(super) revoked: Vec<&'b CertificateDer<'static>>,
}

/// Whether certificatePolicies is the one critical extension that rustls-webpki does not know.
fn has_critical_policies(certificate: &X509Certificate<'_>) -> bool {
    unknown_critical(certificate) == [POLICIES]
}

/// certificatePolicies.
pub(super) const POLICIES: &str = "2.5.29.32";

/// The critical extensions that rustls-webpki does not know, by OID.
pub(super) fn unknown_critical(certificate: &X509Certificate<'_>) -> Vec<String> {
    // keyUsage, subjectAltName, basicConstraints, nameConstraints, cRLDistributionPoints, extKeyUsage
    const KNOWN: [&str; 6] = ["2.5.29.15", "2.5.29.17", "2.5.29.19", "2.5.29.30", "2.5.29.31", "2.5.29.37"];
    let critical = certificate.extensions().iter().filter(|one| one.critical).map(|one| one.oid.to_id_string());
    critical.filter(|oid| !KNOWN.contains(&oid.as_str())).collect()
}

/// Certificates and CRLs of a file.
type Contents = (Vec<CertificateDer<'static>>, Vec<CertificateRevocationListDer<'static>>);

/// The certificates and CRLs of a PEM bundle, or the one in DER.
fn contents(file: &[u8]) -> Result<Contents, BundleError> {
    if file.first() == Some(&0x30) {
        return Ok(match x509_parser::parse_x509_crl(file) {
            Ok(_) => (Vec::new(), vec![CertificateRevocationListDer::from(file.to_vec())]),
            Err(_) => (vec![CertificateDer::from(file.to_vec())], Vec::new()),
        });
    }
    let bad = |_| BundleError::NotACertificate;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(file).collect::<Result<_, _>>().map_err(bad)?;
    let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(file).collect::<Result<_, _>>().map_err(bad)?;
    if certificates.is_empty() && lists.is_empty() {
        Err(BundleError::NotACertificate)
    } else {
        Ok((certificates, lists))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_root_of_a_class_is_refused() {
        let root = include_bytes!("../../testdata/recorded/swtpm-localca-rootca-cert.pem");
        let mut bundle = TrustBundle::new();
        for class in [TpmClass::None, TpmClass::Unverified] {
            assert_eq!(bundle.add(class, root).unwrap_err(), BundleError::Class(class));
        }
        for bad in [&b""[..], b"text", b"\x30\x03abc"] {
            assert_eq!(bundle.add(TpmClass::Hardware, bad).unwrap_err(), BundleError::NotACertificate);
        }
        assert_eq!(bundle.tolerate("sloppy").unwrap_err(), BundleError::Quirk("sloppy".to_owned()));
        bundle.add(TpmClass::Simulated, root).unwrap();
        assert_eq!(bundle.roots(TpmClass::Simulated).count(), 1);
        assert_eq!(bundle.roots(TpmClass::Hardware).count(), 0);
    }

    #[test]
    fn classes_are_ordered_and_named() {
        assert!(TpmClass::CERTIFIED.is_sorted());
        assert!(TpmClass::Unverified < TpmClass::Virtual && TpmClass::Simulated < TpmClass::Unverified);
        for class in TpmClass::CERTIFIED {
            assert_eq!(TpmClass::from_name(class.name()), Some(class));
        }
    }
}
