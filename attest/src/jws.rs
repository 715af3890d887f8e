//! Compact JSON Web Signatures with exactly one algorithm.
//!
//! RFC 7515 (JWS), RFC 7518 §3.4 (ES256). Establishes that one of the given keys signed exactly these payload bytes under
//! exactly this `typ`. It does not look at the payload: expiry and audience are [`crate::result`]'s and [`crate::permit`]'s.
//! `alg` is never a choice: a header that names anything but ES256 is refused before a key is looked up.

use std::collections::BTreeMap;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as URL;
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};

use crate::finding::{Finding, Findings};
use crate::tpm::key::{Curve, PublicKey};

/// Longest token or detached signature that is looked at, in bytes: an EAR with a full list of findings stays below it.
pub const TOKEN_MAX: usize = 1 << 20;

/// Signing failed (the key is gone, or the device refused).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the signing key `{kid}` cannot sign")]
pub struct SignError {
    /// The key's id.
    pub kid: String,
}

/// A key that can sign ES256. Who holds it is the caller's business.
pub trait Signer {
    /// The key id that verifiers look up.
    fn kid(&self) -> &str;

    /// ECDSA P-256 with SHA-256 over `message`, as r ‖ s.
    ///
    /// # Errors
    /// [`SignError`].
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignError>;
}

/// What a token is for, and the ids of the checks on it. Two purposes never accept each other's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purpose {
    /// The header's `typ`.
    pub typ: &'static str,
    /// Not three base64url parts with a strict header, or too long.
    pub malformed: &'static str,
    /// `alg` is not ES256.
    pub algorithm: &'static str,
    /// `typ` is another purpose's.
    pub purpose: &'static str,
    /// `kid` names no key that we trust for this purpose.
    pub key: &'static str,
    /// The signature does not verify.
    pub signature: &'static str,
}

/// How every PEM label of a private key ends, encrypted or not.
const PRIVATE: &[u8] = b"PRIVATE KEY-----";

/// Why a file gives no signer's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignerKeyError {
    /// It holds a private key.
    #[error("holds a private key, where only public ones belong")]
    Private,
    /// It holds none, or something else.
    #[error("holds no P-256 public key in PEM (BEGIN PUBLIC KEY)")]
    NoKey,
}

/// Trusted public keys by key id: uncompressed P-256 points (65 bytes).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeySet(BTreeMap<String, Vec<u8>>);

impl KeySet {
    /// An empty set: trusts nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Trusts `point` (0x04 ‖ x ‖ y) under `kid`.
    pub fn insert(&mut self, kid: impl Into<String>, point: &[u8]) {
        self.0.insert(kid.into(), point.to_vec());
    }

    /// Adds the P-256 public keys of a signer's file (PEM, `BEGIN PUBLIC KEY`), one at least.
    ///
    /// # Errors
    /// [`SignerKeyError`]; nothing is added then that was not sound.
    pub fn add_pem(&mut self, pem: &[u8]) -> Result<(), SignerKeyError> {
        // Beside a public one too: whoever may read a trust directory could sign.
        if pem.windows(PRIVATE.len()).any(|bytes| bytes == PRIVATE) {
            return Err(SignerKeyError::Private);
        }
        let mut points = Vec::new();
        for spki in SubjectPublicKeyInfoDer::pem_slice_iter(pem) {
            match spki.map(|spki| PublicKey::from_spki(&spki)) {
                Ok(Ok(key @ PublicKey::Ec { curve: Curve::P256, .. })) => points.push(key.key_bytes()),
                _ => return Err(SignerKeyError::NoKey),
            }
        }
        if points.is_empty() {
            return Err(SignerKeyError::NoKey);
        }
        for point in points {
            self.insert(key_id(&point), &point);
        }
        Ok(())
    }

    /// Key ids and points.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(kid, point)| (kid.as_str(), point.as_slice()))
    }
}

/// The key id of a P-256 public key: the first 16 bytes of SHA-256 over its uncompressed point, in hex.
#[must_use]
pub fn key_id(point: &[u8]) -> String {
    hex::encode(crate::digest::sha256(&[point]).get(..16).unwrap_or_default())
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    kid: String,
    typ: String,
}

fn header(purpose: &Purpose, signer: &dyn Signer) -> String {
    let header = Header { alg: "ES256".to_owned(), kid: signer.kid().to_owned(), typ: purpose.typ.to_owned() };
    URL.encode(serde_json::to_vec(&header).unwrap_or_default())
}

/// Signs `payload` as a compact JWS.
///
/// # Errors
/// [`SignError`].
pub fn sign(purpose: &Purpose, payload: &[u8], signer: &dyn Signer) -> Result<String, SignError> {
    let signed = [header(purpose, signer), URL.encode(payload)].join(".");
    let signature = signer.sign(signed.as_bytes())?;
    Ok([signed, URL.encode(signature)].join("."))
}

/// Signs a file's bytes; the result names the header and the signature only (RFC 7515 appendix F).
///
/// # Errors
/// [`SignError`].
pub fn sign_detached(purpose: &Purpose, payload: &[u8], signer: &dyn Signer) -> Result<String, SignError> {
    let whole = sign(purpose, payload, signer)?;
    let (head, tail) = (whole.split('.').next().unwrap_or_default(), whole.rsplit('.').next().unwrap_or_default());
    Ok(format!("{head}..{tail}"))
}

/// Verifies a compact JWS and returns its payload.
///
/// # Errors
/// The one finding that refuses it, under the purpose's ids.
pub fn verify(purpose: &Purpose, token: &str, keys: &KeySet) -> Result<Vec<u8>, Findings> {
    let (_, payload, _) = split(purpose, token)?;
    let bytes = URL.decode(payload).map_err(|_| malformed(purpose))?;
    check(purpose, token, payload, keys)?;
    Ok(bytes)
}

/// Verifies a detached JWS over a file's bytes. Returns the id of the key that signed.
///
/// # Errors
/// The one finding that refuses it, under the purpose's ids.
pub fn verify_detached(purpose: &Purpose, payload: &[u8], token: &str, keys: &KeySet) -> Result<String, Findings> {
    let token = token.trim_end();
    let (_, between, _) = split(purpose, token)?;
    if !between.is_empty() {
        return Err(malformed(purpose));
    }
    check(purpose, token, &URL.encode(payload), keys)
}

fn malformed(purpose: &Purpose) -> Findings {
    Finding::error(purpose.malformed, "not a compact JWS with an ES256 header")
        .expected("three base64url parts; header with alg, kid, typ and nothing else")
        .fix("obtain it again from the verifier or sign the file again")
        .into()
}

fn split<'t>(purpose: &Purpose, token: &'t str) -> Result<(&'t str, &'t str, &'t str), Findings> {
    let mut parts = token.split('.');
    match (parts.next(), parts.next(), parts.next(), parts.next(), token.len() <= TOKEN_MAX) {
        (Some(head), Some(payload), Some(signature), None, true) => Ok((head, payload, signature)),
        _ => Err(malformed(purpose)),
    }
}

fn check(purpose: &Purpose, token: &str, payload: &str, keys: &KeySet) -> Result<String, Findings> {
    let (head, _, signature) = split(purpose, token)?;
    let header = URL.decode(head).map_err(|_| malformed(purpose))?;
    let signature = URL.decode(signature).map_err(|_| malformed(purpose))?;
    let named = serde_json::from_slice::<serde_json::Value>(&header).map_err(|_| malformed(purpose))?;
    let mut findings = Findings::new();
    let alg = named.get("alg").and_then(serde_json::Value::as_str).unwrap_or_default();
    if !findings.check(purpose.algorithm, alg != "ES256", || {
        Finding::error("", "the signature's algorithm is not allowed").expected("ES256").found(alg)
    }) {
        return Err(findings);
    }
    let header = serde_json::from_value::<Header>(named.clone()).map_err(|_| malformed(purpose))?;
    if !findings.check(purpose.purpose, header.typ != purpose.typ, || {
        Finding::error("", "the token was made for another purpose").expected(purpose.typ).found(&header.typ)
    }) {
        return Err(findings);
    }
    let Some(point) = keys.0.get(&header.kid) else {
        return Err(Finding::error(purpose.key, "the signing key is not trusted for this")
            .found(&header.kid)
            .fix("add the signer's public key to the trusted keys, or sign with a trusted key")
            .into());
    };
    let input = format!("{head}.{payload}");
    let bad = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(input.as_bytes(), &signature).is_err();
    if !findings.check(purpose.signature, bad, || {
        Finding::error("", "the signature does not verify over these bytes").found(format!("key {}", header.kid))
    }) {
        return Err(findings);
    }
    Ok(header.kid)
}

/// A software ES256 key (a PKCS#8 document), for the verifier's own keys and for operators' signing keys.
pub struct SoftwareKey {
    kid: String,
    point: Vec<u8>,
    pair: aws_lc_rs::signature::EcdsaKeyPair,
}

impl SoftwareKey {
    /// Reads a PKCS#8 P-256 key. None when it is not one.
    #[must_use]
    pub fn from_pkcs8(der: &[u8]) -> Option<Self> {
        use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).ok()?;
        let point = pair.public_key().as_ref().to_vec();
        Some(Self { kid: key_id(&point), point, pair })
    }

    /// The public point (0x04 ‖ x ‖ y).
    #[must_use]
    pub fn point(&self) -> &[u8] {
        &self.point
    }
}

/// Shows the key id only.
impl std::fmt::Debug for SoftwareKey {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("SoftwareKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl Signer for SoftwareKey {
    fn kid(&self) -> &str {
        &self.kid
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignError> {
        // ECDSA draws its nonce inside the library; the randomness that decides anything here is the caller's.
        let failed = || SignError { kid: self.kid.clone() };
        let signature = self.pair.sign(&aws_lc_rs::rand::SystemRandom::new(), message).map_err(|_| failed())?;
        signature.as_ref().try_into().map_err(|_| failed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PURPOSE: Purpose = Purpose {
        typ: "test",
        malformed: "t.malformed",
        algorithm: "t.algorithm",
        purpose: "t.type",
        key: "t.key",
        signature: "t.signature",
    };

    fn key() -> SoftwareKey {
        use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &aws_lc_rs::rand::SystemRandom::new());
        SoftwareKey::from_pkcs8(document.unwrap().as_ref()).unwrap()
    }

    fn set(key: &SoftwareKey) -> KeySet {
        let mut keys = KeySet::new();
        keys.insert(key.kid(), key.point());
        keys
    }

    #[test]
    fn each_refusal_has_its_own_id() {
        let (mine, other) = (key(), key());
        let good = sign(&PURPOSE, b"{}", &mine).unwrap();
        assert_eq!(verify(&PURPOSE, &good, &set(&mine)).unwrap(), b"{}");
        let [head, body, tail] = good.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
        let with_header = |json: String| format!("{}.{body}.{tail}", URL.encode(json));
        let kid = mine.kid();
        let rows = [
            (format!("{head}.{}.{tail}", URL.encode("{ }")), "t.signature"),
            (format!("{head}.{body}"), "t.malformed"),
            (format!("{head}.{body}.{tail}.x"), "t.malformed"),
            (with_header(format!(r#"{{"alg":"none","kid":"{kid}","typ":"test"}}"#)), "t.algorithm"),
            (with_header(format!(r#"{{"alg":"HS256","kid":"{kid}","typ":"test"}}"#)), "t.algorithm"),
            (with_header(format!(r#"{{"alg":"ES256","kid":"{kid}","typ":"other"}}"#)), "t.type"),
            (with_header(format!(r#"{{"alg":"ES256","kid":"{kid}","typ":"test","crit":[]}}"#)), "t.malformed"),
        ];
        for (token, id) in rows {
            let findings = verify(&PURPOSE, &token, &set(&mine)).unwrap_err();
            assert_eq!(findings.as_slice()[0].id, id, "{token}");
        }
        let findings = verify(&PURPOSE, &good, &set(&other)).unwrap_err();
        assert_eq!(findings.as_slice()[0].id, "t.key");
    }

    #[test]
    fn a_detached_signature_covers_the_file() {
        let mine = key();
        let signature = sign_detached(&PURPOSE, b"a = 1\n", &mine).unwrap();
        assert_eq!(verify_detached(&PURPOSE, b"a = 1\n", &signature, &set(&mine)).unwrap(), mine.kid());
        let refused = verify_detached(&PURPOSE, b"a = 2\n", &signature, &set(&mine)).unwrap_err();
        assert!(refused.has("t.signature"));
    }
}
