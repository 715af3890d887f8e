//! Classes of TPM, and the bundle of root certificates that decides them.
//!
//! DESIGN law 7: nothing simulated passes for real. A class comes from **where the operator put the root**
//! (`/etc/hostmark/trust/ek/<class>/`), never from a word in a certificate: anybody's CA can write a vendor's name.

use std::collections::BTreeSet;
use std::fmt;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use x509_parser::prelude::X509Certificate;

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

/// A deviation of a maker's certificates that the operator may tolerate by name; each use is a finding.
#[derive(Debug, PartialEq, Eq)]
pub struct Quirk {
    /// Its name in configuration, and (after `ek.quirk.`) its finding's id.
    pub id: &'static str,
    /// Whose certificates show it.
    pub scope: &'static str,
    /// Why it can be tolerated.
    pub reason: &'static str,
}

/// Every quirk that this version knows. Off unless the bundle enables it.
pub const QUIRKS: [Quirk; 3] = [
    Quirk {
        id: CRITICAL_POLICIES,
        scope: "intermediates of STMicroelectronics and Intel, as the operator holds them",
        reason: "they mark certificatePolicies critical, which path validation here does not process; with no policy asked for it cannot \
                 change an outcome (RFC 5280 6.1.1), so such an intermediate of the operator's own bundle is trusted as it stands",
    },
    Quirk {
        id: NO_EKU,
        scope: "class virtual: Google Cloud's EK/AK CA",
        reason: "its EK certificates carry no extended key usage; the key usage (keyAgreement or keyEncipherment, nothing else) \
                 still tells them from the AK certificates of the same CA",
    },
    Quirk {
        id: NV_PADDING,
        scope: "EK certificates read as a whole NV index (Nuvoton, Nationz)",
        reason: "the index is larger than the certificate and ends in 0x00 or 0xff bytes, which no signature covers",
    },
];

/// See [`QUIRKS`].
pub(super) const CRITICAL_POLICIES: &str = "critical-policies";
/// See [`QUIRKS`].
pub(super) const NO_EKU: &str = "no-eku";
/// See [`QUIRKS`].
pub(super) const NV_PADDING: &str = "nv-padding";

/// Most certificates in one bundle: all makers' CAs together are below 1000 today.
const CERTIFICATES_MAX: usize = 4096;

/// Why a certificate file cannot be part of the bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// Neither a PEM bundle nor one DER certificate.
    #[error("neither PEM certificates nor one certificate in DER")]
    NotACertificate,
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
    der: CertificateDer<'static>,
}

/// The roots and intermediates that EK certificates may chain to, by class, and the quirks that are tolerated.
///
/// An empty bundle trusts nothing.
#[derive(Debug, Clone, Default)]
pub struct TrustBundle {
    certificates: Vec<Trusted>,
    quirks: BTreeSet<&'static str>,
}

impl TrustBundle {
    /// An empty bundle: every EK certificate is refused.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the certificates of one file from the class's directory: a PEM bundle or one DER certificate. Self-issued ones
    /// become roots, others intermediates.
    ///
    /// # Errors
    /// [`BundleError`]; nothing of the file is added then.
    pub fn add(&mut self, class: TpmClass, file: &[u8]) -> Result<(), BundleError> {
        if !TpmClass::CERTIFIED.contains(&class) {
            return Err(BundleError::Class(class));
        }
        let mut added = Vec::new();
        for der in certificates(file)? {
            let (root, critical_policies) = {
                let (_, parsed) =
                    x509_parser::parse_x509_certificate(&der).map_err(|_| BundleError::NotACertificate)?;
                let root = parsed.subject().as_raw() == parsed.issuer().as_raw();
                if root {
                    webpki::anchor_from_trusted_cert(&der).map_err(|reason| BundleError::Anchor {
                        subject: crate::finding::one_line(&parsed.subject().to_string()),
                        reason: reason.to_string(),
                    })?;
                }
                (root, has_critical_policies(&parsed))
            };
            added.push(Trusted { class, root, critical_policies, der });
        }
        if self.certificates.len().saturating_add(added.len()) > CERTIFICATES_MAX {
            return Err(BundleError::TooMany);
        }
        self.certificates.extend(added);
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
        self.of(class, true)
    }

    /// The intermediates of one class.
    pub(super) fn intermediates(&self, class: TpmClass) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.of(class, false)
    }

    /// The intermediates of one class that [`CRITICAL_POLICIES`] is about.
    pub(super) fn critical_policies(&self, class: TpmClass) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.certificates
            .iter()
            .filter(move |one| one.class == class && !one.root && one.critical_policies)
            .map(|one| &one.der)
    }

    fn of(&self, class: TpmClass, root: bool) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.certificates.iter().filter(move |one| one.class == class && one.root == root).map(|one| &one.der)
    }
}

/// Whether certificatePolicies is the one critical extension that rustls-webpki does not know.
fn has_critical_policies(certificate: &X509Certificate<'_>) -> bool {
    // keyUsage, subjectAltName, basicConstraints, nameConstraints, cRLDistributionPoints, extKeyUsage
    const KNOWN: [&str; 6] = ["2.5.29.15", "2.5.29.17", "2.5.29.19", "2.5.29.30", "2.5.29.31", "2.5.29.37"];
    let critical = certificate.extensions().iter().filter(|one| one.critical).map(|one| one.oid.to_id_string());
    let unknown: Vec<_> = critical.filter(|oid| !KNOWN.contains(&oid.as_str())).collect();
    unknown == ["2.5.29.32"]
}

/// The certificates of a PEM bundle, or the one in DER.
fn certificates(file: &[u8]) -> Result<Vec<CertificateDer<'static>>, BundleError> {
    if file.first() == Some(&0x30) {
        return Ok(vec![CertificateDer::from(file.to_vec())]);
    }
    let list: Vec<_> =
        CertificateDer::pem_slice_iter(file).collect::<Result<_, _>>().map_err(|_| BundleError::NotACertificate)?;
    if list.is_empty() { Err(BundleError::NotACertificate) } else { Ok(list) }
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
