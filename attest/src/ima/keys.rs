//! Keys that sign files, and certificates that the kernel measures as they enter a keyring.
//!
//! Linux `security/integrity/digsig_asymmetric.c` (a key is found by the last four bytes of its identifier), `ima_asymmetric_keys.c`
//! (`func=KEY_CHECK`: an `ima-buf` entry named after the keyring, holding the certificate). RFC 5280 4.2.1.2 (identifiers).
//!
//! Establishes that a measured certificate was issued by a key that the policy names. A keyring's entry alone proves nothing: root
//! can extend PCR 10 with any entry, its own key on `.ima` included. Validity dates are not judged: the kernel does not either.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey,
    VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use x509_parser::prelude::{FromDer as _, ParsedExtension, SubjectPublicKeyInfo, X509Certificate};

use crate::check::violated;
use crate::digest::HashAlg;

/// Longest certificate that is read: those of kernels have under 2 KiB.
const CERTIFICATE_MAX: usize = 16 << 10;

/// What signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Rsa,
    P256,
    P384,
}

/// A public key: RSA of 2048 bits or more, or ECDSA on P-256 or P-384.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImaKey {
    kind: Kind,
    /// RSAPublicKey, or the uncompressed point.
    bits: Vec<u8>,
    /// SubjectPublicKeyInfo.
    spki: Vec<u8>,
    /// What signatures may name it by.
    ids: Vec<[u8; 4]>,
}

/// Why a text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a signing key is the PEM of a public key or of a certificate: RSA of at least 2048 bits, P-256 or P-384")]
pub struct NotAKey;

impl ImaKey {
    /// From PEM: `PUBLIC KEY` or `CERTIFICATE`.
    ///
    /// # Errors
    /// [`NotAKey`].
    pub fn from_pem(pem: &str) -> Result<Self, NotAKey> {
        let bytes = pem.as_bytes();
        if let Ok(spki) = SubjectPublicKeyInfoDer::from_pem_slice(bytes) {
            return Self::from_spki(spki.as_ref()).ok_or(NotAKey);
        }
        let certificate = CertificateDer::from_pem_slice(bytes).map_err(|_| NotAKey)?;
        Self::from_certificate(&parse(&certificate).ok_or(NotAKey)?).ok_or(NotAKey)
    }

    /// From DER of a SubjectPublicKeyInfo.
    #[must_use]
    pub fn from_spki(der: &[u8]) -> Option<Self> {
        let (rest, spki) = SubjectPublicKeyInfo::from_der(der).ok()?;
        if rest.is_empty() { Self::of(&spki) } else { None }
    }

    /// The key of a measured certificate, if one of `issuers` signed it for signing code: an issuer may sign TLS keys too, and root can
    /// put any certificate into the list.
    #[must_use]
    pub fn issued(der: &[u8], issuers: &[Self]) -> Option<Self> {
        let certificate = parse(der)?;
        let alg = certificate.signature_algorithm.algorithm.to_id_string();
        // The signed part names the algorithm too; they must agree (RFC 5280 4.1.1.2).
        if alg != certificate.tbs_certificate.signature.algorithm.to_id_string() {
            return None;
        }
        let hash = certificate_hash(&alg)?;
        let (message, signature) = (certificate.tbs_certificate.as_ref(), certificate.signature_value.data.as_ref());
        let signed = issuers.iter().any(|issuer| {
            let fits = alg.starts_with(RSA) == (issuer.kind == Kind::Rsa);
            fits && issuer.algorithm(hash).is_some_and(|algorithm| {
                UnparsedPublicKey::new(algorithm, &issuer.bits).verify(message, signature).is_ok()
            })
        });
        let usable = !violated("ima.key-issuer", !signed) && !violated("ima.key-usage", !signs_files(&certificate));
        if usable { Self::from_certificate(&certificate) } else { None }
    }

    fn from_certificate(certificate: &X509Certificate<'_>) -> Option<Self> {
        let mut key = Self::of(certificate.public_key())?;
        let named = certificate.extensions().iter().find_map(|one| match one.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => last_four(id.0),
            _ => None,
        });
        key.ids.extend(named);
        Some(key)
    }

    fn of(spki: &SubjectPublicKeyInfo<'_>) -> Option<Self> {
        let bits = spki.subject_public_key.data.to_vec();
        let curve =
            || spki.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok()).map(|oid| oid.to_id_string());
        let kind = match spki.algorithm.algorithm.to_id_string().as_str() {
            "1.2.840.113549.1.1.1" => Kind::Rsa,
            "1.2.840.10045.2.1" => match curve()?.as_str() {
                "1.2.840.10045.3.1.7" => Kind::P256,
                "1.3.132.0.34" => Kind::P384,
                _ => return None,
            },
            _ => return None,
        };
        let id = HashAlg::Sha1.hash(&[&bits]).and_then(|hash| last_four(hash.as_bytes()));
        Some(Self { kind, bits, spki: spki.raw.to_vec(), ids: id.into_iter().collect() })
    }

    /// Whether a signature that names this identifier may be this key's.
    #[must_use]
    pub(super) fn is_named(&self, id: [u8; 4]) -> bool {
        self.ids.contains(&id)
    }

    /// How this key verifies a digest of this kind.
    pub(super) fn algorithm(&self, hash: HashAlg) -> Option<&'static dyn VerificationAlgorithm> {
        Some(match (self.kind, hash) {
            (Kind::Rsa, HashAlg::Sha256) => &RSA_PKCS1_2048_8192_SHA256,
            (Kind::Rsa, HashAlg::Sha384) => &RSA_PKCS1_2048_8192_SHA384,
            (Kind::Rsa, HashAlg::Sha512) => &RSA_PKCS1_2048_8192_SHA512,
            (Kind::P256, HashAlg::Sha256) => &ECDSA_P256_SHA256_ASN1,
            (Kind::P256, HashAlg::Sha384) => &ECDSA_P256_SHA384_ASN1,
            (Kind::P384, HashAlg::Sha256) => &ECDSA_P384_SHA256_ASN1,
            (Kind::P384, HashAlg::Sha384) => &ECDSA_P384_SHA384_ASN1,
            _ => return None,
        })
    }

    /// What kind of key it is.
    pub(crate) const fn kind(&self) -> Kind {
        self.kind
    }

    /// RSAPublicKey, or the uncompressed point.
    pub(crate) fn bits(&self) -> &[u8] {
        &self.bits
    }
}

/// Prefix of the RSA PKCS#1 signature algorithms.
const RSA: &str = "1.2.840.113549.1.1.";

/// sha256, sha384 and sha512 with RSA; ECDSA with sha256 and sha384.
fn certificate_hash(alg: &str) -> Option<HashAlg> {
    match alg {
        "1.2.840.113549.1.1.11" | "1.2.840.10045.4.3.2" => Some(HashAlg::Sha256),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Some(HashAlg::Sha384),
        "1.2.840.113549.1.1.13" => Some(HashAlg::Sha512),
        _ => None,
    }
}

fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    if der.len() > CERTIFICATE_MAX {
        return None;
    }
    let (rest, certificate) = X509Certificate::from_der(der).ok()?;
    rest.is_empty().then_some(certificate)
}

fn last_four(id: &[u8]) -> Option<[u8; 4]> {
    id.last_chunk().copied()
}

/// In a policy: PEM.
impl<'de> Deserialize<'de> for ImaKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_pem(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// A key that a keyring held, as it is kept between rounds: base64 of its SubjectPublicKeyInfo and identifiers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptKey(pub ImaKey);

impl Serialize for KeptKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ids: Vec<String> = self.0.ids.iter().map(hex::encode).collect();
        serializer.collect_str(&format_args!("{}:{}", ids.join(","), STANDARD.encode(&self.0.spki)))
    }
}

impl<'de> Deserialize<'de> for KeptKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let read = || {
            let (ids, spki) = text.split_once(':')?;
            let mut key = ImaKey::from_spki(&STANDARD.decode(spki).ok()?)?;
            key.ids = ids.split(',').map(|id| hex::decode(id).ok()?.try_into().ok()).collect::<Option<_>>()?;
            Some(Self(key))
        };
        read().ok_or_else(|| serde::de::Error::custom("not a kept key"))
    }
}
/// Whether a certificate is for a key that signs code: digitalSignature, no CA, and codeSigning wherever usage is extended at all
/// (RFC 5280 4.2.1.3, 4.2.1.9, 4.2.1.12).
fn signs_files(certificate: &X509Certificate<'_>) -> bool {
    let usage = certificate.key_usage().ok().flatten();
    let extended = certificate.extended_key_usage();
    usage.is_some_and(|usage| usage.value.digital_signature())
        && !certificate.is_ca()
        && extended.is_ok_and(|extended| extended.is_none_or(|extended| extended.value.code_signing))
}
