//! What operators do away from the verifier: capture references from a machine that they trust, and sign files with their own key.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use hostmark_attest::jws::{Purpose, SignError, Signer, key_id, sign_detached};
use hostmark_attest::policy::capture::{Capture, capture};

use crate::engine_files::{DAEMON_JSON, DAEMON_JSON_LOCAL_LOGS, DAEMON_JSON_PATH, EngineFiles};
use crate::recording::Recording;

/// An operator's offline signing key, made for one test or demo.
pub struct OperatorKey {
    pair: EcdsaKeyPair,
    kid: String,
    private_pem: String,
    public_pem: String,
}

impl std::fmt::Debug for OperatorKey {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("OperatorKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl OperatorKey {
    /// Makes a P-256 key.
    ///
    /// # Errors
    /// When the random source fails.
    pub fn generate() -> anyhow::Result<Self> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.serialized_der())?;
        let kid = key_id(pair.public_key().as_ref());
        Ok(Self { pair, kid, private_pem: key.serialize_pem(), public_pem: key.public_key_pem() })
    }

    /// PKCS#8, PEM.
    #[must_use]
    pub fn private_pem(&self) -> &str {
        &self.private_pem
    }

    /// SubjectPublicKeyInfo, PEM.
    #[must_use]
    pub fn public_pem(&self) -> &str {
        &self.public_pem
    }

    /// A detached JWS over the bytes of a file.
    ///
    /// # Errors
    /// [`SignError`].
    pub fn sign_file(&self, purpose: &Purpose, bytes: &[u8]) -> Result<String, SignError> {
        sign_detached(purpose, bytes, self)
    }
}

impl Signer for OperatorKey {
    fn kid(&self) -> &str {
        &self.kid
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignError> {
        let failed = || SignError { kid: self.kid.clone() };
        let signature = self.pair.sign(&SystemRandom::new(), message).map_err(|_| failed())?;
        signature.as_ref().try_into().map_err(|_| failed())
    }
}

/// References for hosts of one image: boot and IMA from a recorded boot of it, engines in every configuration that the
/// laboratory permits. Made on a machine of the operator's own, never on a host that is judged by them.
///
/// # Errors
/// When a source is malformed or cannot be read.
pub fn capture_references(from: &Recording, version: u64) -> anyhow::Result<String> {
    let scratch = tempfile::tempdir()?;
    let files = EngineFiles::create(&scratch.path().join("root"))?;
    let mut manifests = Vec::new();
    for permitted in [DAEMON_JSON, DAEMON_JSON_LOCAL_LOGS] {
        files.write(DAEMON_JSON_PATH, permitted)?;
        manifests.push(files.manifest());
    }
    let manifests: Vec<&[u8]> = manifests.iter().map(Vec::as_slice).collect();
    let (boot_log, ima) = (from.boot_log()?, from.ima()?);
    Ok(capture(&Capture { boot_log: &boot_log, ima: &ima, manifests: &manifests, ..Capture::default() }, version)?)
}
