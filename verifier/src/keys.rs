//! The verifier's keys: separate ES256 keys for the CA, results, permits and audit heads, and the MAC key of between-round state.
//!
//! SURFACE.md, "Keys". Files of mode 0600 in the state directory (0700), outside the database: who can write the database can
//! forge neither a result nor a host's kept state. Losing the directory loses the trust anchor; `hostmark` never copies it.

use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hostmark_attest::jws::{KeySet, Signer as _, SoftwareKey};
use hostmark_attest::state::SealKey;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::files::{private_dir, write_atomic};

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not a P-256 private key in PKCS#8 PEM, or not a MAC key.
    #[error(
        "{path} does not hold the key it should; restore it from a backup, or run `verifier init` in an empty directory"
    )]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// The random generator or the signer failed.
    #[error("a key could not be generated or used")]
    Crypto,
}

/// Makes `count` random bytes.
///
/// # Errors
/// [`KeyError::Crypto`] when the system gives none.
pub fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut out = [0u8; N];
    aws_lc_rs::rand::fill(&mut out).map_err(|_| KeyError::Crypto)?;
    Ok(out)
}

/// A public key as a JWK (RFC 7517). `use_for` says which signatures it may verify.
#[derive(Debug, Clone, Serialize)]
pub struct Jwk {
    kty: &'static str,
    crv: &'static str,
    alg: &'static str,
    #[serde(rename = "use")]
    usage: &'static str,
    kid: String,
    /// `results`, `permits` or `audit-heads`.
    #[serde(rename = "hostmark_use")]
    pub use_for: &'static str,
    x: String,
    y: String,
}

impl Jwk {
    /// The public half of a key.
    #[must_use]
    pub fn of(key: &SoftwareKey, use_for: &'static str) -> Self {
        let coordinate =
            |range| URL_SAFE_NO_PAD.encode(key.point().get::<std::ops::Range<usize>>(range).unwrap_or_default());
        Self {
            kty: "EC",
            crv: "P-256",
            alg: "ES256",
            usage: "sig",
            kid: key.kid().to_owned(),
            use_for,
            x: coordinate(1..33),
            y: coordinate(33..65),
        }
    }
}

/// Every key of one verifier.
pub struct Keys {
    /// Signs certificates.
    pub ca: rcgen::KeyPair,
    /// Signs Attestation Results.
    pub results: SoftwareKey,
    /// Signs permits.
    pub permits: SoftwareKey,
    /// Signs heads of the audit chain.
    pub audit: SoftwareKey,
    /// Seals what is kept of a host between rounds.
    pub seal: SealKey,
}

impl fmt::Debug for Keys {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Keys")
            .field("results", &self.results.kid())
            .field("permits", &self.permits.kid())
            .finish_non_exhaustive()
    }
}

/// Domain string of the seal over a stored row.
const ROW_DOMAIN: &str = "hostmark-row-v1";

fn set(key: &SoftwareKey) -> KeySet {
    let mut keys = KeySet::new();
    keys.insert(key.kid(), key.point());
    keys
}

impl Keys {
    /// Makes all keys below `state_dir`, in files that must not exist yet.
    ///
    /// # Errors
    /// [`KeyError`]; an existing key is never overwritten.
    pub fn create(state_dir: &Path) -> Result<Self, KeyError> {
        let dir = state_dir.join("keys");
        let io = |path: &Path| {
            let path = path.to_path_buf();
            move |source| KeyError::Io { path, source }
        };
        private_dir(state_dir).map_err(io(state_dir))?;
        private_dir(&dir).map_err(io(&dir))?;
        let fresh = |name: &str| {
            let path = dir.join(name);
            if path.exists() {
                let source =
                    std::io::Error::new(std::io::ErrorKind::AlreadyExists, "exists; this verifier was set up before");
                return Err(KeyError::Io { path, source });
            }
            Ok(path)
        };
        for name in ["ca.pem", "results.pem", "permits.pem", "audit.pem"] {
            let path = fresh(name)?;
            let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(|_| KeyError::Crypto)?;
            let pem = Zeroizing::new(pair.serialize_pem());
            write_atomic(&path, 0o600, pem.as_bytes()).map_err(io(&path))?;
        }
        let path = fresh("state-mac.key")?;
        let key = Zeroizing::new(hex::encode(Zeroizing::new(random::<32>()?).as_slice()));
        write_atomic(&path, 0o600, key.as_bytes()).map_err(io(&path))?;
        Self::load(state_dir)
    }

    /// Reads all keys.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn load(state_dir: &Path) -> Result<Self, KeyError> {
        let dir = state_dir.join("keys");
        let read = |name: &str| {
            let path = dir.join(name);
            match std::fs::read_to_string(&path) {
                Ok(text) => Ok((path, Zeroizing::new(text))),
                Err(source) => Err(KeyError::Io { path, source }),
            }
        };
        let pair = |name: &str| {
            let (path, text) = read(name)?;
            rcgen::KeyPair::from_pem_and_sign_algo(&text, &rcgen::PKCS_ECDSA_P256_SHA256)
                .map_err(|_| KeyError::Malformed { path })
        };
        let signing = |name: &str| SoftwareKey::from_pkcs8(pair(name)?.serialized_der()).ok_or(KeyError::Crypto);
        let (path, text) = read("state-mac.key")?;
        let mac = Zeroizing::new(hex::decode(text.trim()).unwrap_or_default());
        let Ok(mac) = <[u8; 32]>::try_from(mac.as_slice()).map(Zeroizing::new) else {
            return Err(KeyError::Malformed { path });
        };
        Ok(Self {
            ca: pair("ca.pem")?,
            results: signing("results.pem")?,
            permits: signing("permits.pem")?,
            audit: signing("audit.pem")?,
            seal: SealKey::new(&mac),
        })
    }

    /// The public keys that consumers verify results, permits and audit heads with.
    #[must_use]
    pub fn jwks(&self) -> Vec<Jwk> {
        vec![Jwk::of(&self.results, "results"), Jwk::of(&self.permits, "permits"), Jwk::of(&self.audit, "audit-heads")]
    }

    /// What a verification of results trusts.
    #[must_use]
    pub fn results_set(&self) -> KeySet {
        set(&self.results)
    }

    /// What a verification of permits trusts.
    #[must_use]
    pub fn permits_set(&self) -> KeySet {
        set(&self.permits)
    }

    /// What a verification of audit heads trusts.
    #[must_use]
    pub fn audit_set(&self) -> KeySet {
        set(&self.audit)
    }

    /// Seals a stored row: `message` is its framed content.
    #[must_use]
    pub fn seal_row(&self, message: &[u8]) -> Vec<u8> {
        self.seal.seal(ROW_DOMAIN, &[message]).to_vec()
    }

    /// Whether `tag` was made by [`Self::seal_row`] for exactly this content. Constant time.
    #[must_use]
    pub fn sealed(&self, message: &[u8], tag: &[u8]) -> bool {
        self.seal.holds(ROW_DOMAIN, &[message], tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_and_are_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let made = Keys::create(&state).unwrap();
        let loaded = Keys::load(&state).unwrap();
        assert_eq!(made.results.kid(), loaded.results.kid());
        let ids: std::collections::BTreeSet<_> =
            [made.results.kid(), made.permits.kid(), made.audit.kid()].into_iter().map(str::to_owned).collect();
        assert_eq!(ids.len(), 3, "one key per purpose");
        assert!(matches!(Keys::create(&state), Err(KeyError::Io { .. })));
        std::fs::write(state.join("keys/permits.pem"), "x").unwrap();
        assert!(matches!(Keys::load(&state), Err(KeyError::Malformed { .. })));
    }
}
