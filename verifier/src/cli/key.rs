//! `hostmark key`: an operator's offline signing key (ES256), for policies, references and tags.
//!
//! The private half never leaves its file and is never sent anywhere; the public half goes to `trust/signers/` of the verifier.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use hostmark_attest::jws::{Signer as _, SoftwareKey};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Serialize;
use zeroize::Zeroizing;

use super::answer::Answer;
use super::client::Client;
use super::connect::Connection;
use super::document::write_beside;
use super::failure::Failure;
use super::show::facts;
use super::{Outcome, input};
use crate::keys::Jwk;

/// `hostmark key …`
#[derive(Debug, Subcommand)]
pub(super) enum Key {
    /// Make a signing key: FILE (PKCS#8 PEM, mode 0600) and FILE.pub (the public half, PEM).
    Create {
        /// The new file. An existing one is never overwritten.
        file: PathBuf,
    },
    /// Show the public half of a signing key.
    Show {
        /// The private key.
        file: PathBuf,
    },
    /// Print the verifier's public keys (a JWK Set), for verifying results, permits and audit heads without it.
    Fetch {
        /// Write here instead of standard output.
        #[arg(short = 'o', long = "out", value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

impl Key {
    pub(super) fn run(self, connection: &Connection) -> Outcome {
        match self {
            Self::Create { file } => create(&file),
            Self::Show { file } => {
                let (key, public) = load(&file)?;
                view(&file, None, &key, &public)
            }
            Self::Fetch { out } => {
                let keys: serde_json::Value = Client::new(connection)?.get(&["v1", "keys"])?;
                let text = format!("{keys:#}\n");
                let Some(path) = out else { return Ok(Answer::new(&keys, text)?.product()) };
                write_beside(&path, text.as_bytes())?;
                Answer::new(&keys, facts([("written", path.display().to_string())]))
            }
        }
    }
}

/// The JSON of `key create` and `key show`.
#[derive(Debug, Serialize)]
struct KeyView<'a> {
    file: &'a Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_file: Option<&'a Path>,
    kid: &'a str,
    public_jwk: Jwk,
    public_pem: &'a str,
}

fn create(file: &Path) -> Outcome {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
        .map_err(|error| Failure::unusable(format!("no key could be generated: {error}")))?;
    let key = SoftwareKey::from_pkcs8(&pair.serialize_der())
        .ok_or_else(|| Failure::unusable("the generated key cannot be read back: nothing was written"))?;
    let public = pair.public_key_pem();
    let mut public_file = file.as_os_str().to_owned();
    public_file.push(".pub");
    let (secret, open) = (new_secret(file.to_owned())?, new_file(PathBuf::from(public_file), 0o644)?);
    secret.keep(Zeroizing::new(pair.serialize_pem()).as_bytes())?;
    let public_file = open.keep(public.as_bytes())?;
    view(file, Some(&public_file), &key, &public)
}

fn view(file: &Path, public_file: Option<&Path>, key: &SoftwareKey, public: &str) -> Outcome {
    let jwk = Jwk::of(key, "operator");
    let json = serde_json::to_string(&jwk).unwrap_or_default();
    let mut rows = vec![("key", file.display().to_string())];
    rows.extend(public_file.map(|path| ("public half", path.display().to_string())));
    rows.extend([("key id", key.kid().to_owned()), ("JWK", json)]);
    let mut text = facts(rows);
    if let Some(path) = public_file {
        text += &format!(
            "\nKeep the key offline. To trust it, put {} into the verifier's trust/signers/ as a .pem file.\n",
            path.display()
        );
    } else {
        text += &format!("\n{public}");
    }
    Answer::new(&KeyView { file, public_file, kid: key.kid(), public_jwk: jwk, public_pem: public }, text)
}

/// A new file that is still empty; it goes away unless something is kept in it.
#[derive(Debug)]
pub(super) struct NewFile {
    path: PathBuf,
    file: File,
    kept: bool,
}

/// A new file of mode 0600. An existing one is never overwritten.
pub(super) fn new_secret(path: PathBuf) -> Result<NewFile, Failure> {
    new_file(path, 0o600)
}

fn new_file(path: PathBuf, mode: u32) -> Result<NewFile, Failure> {
    match OpenOptions::new().write(true).create_new(true).mode(mode).open(&path) {
        Ok(file) => Ok(NewFile { path, file, kept: false }),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(Failure::unusable(format!("{}: exists, and is never overwritten: name another file", path.display())))
        }
        Err(error) => Err(Failure::io(&path, &error)),
    }
}

impl NewFile {
    /// Writes the content to disk and keeps the file.
    pub(super) fn keep(mut self, bytes: &[u8]) -> Result<PathBuf, Failure> {
        self.file
            .write_all(bytes)
            .and_then(|()| self.file.sync_all())
            .map_err(|error| Failure::io(&self.path, &error))?;
        self.kept = true;
        Ok(self.path.clone())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.kept {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Loads an operator's signing key, and its public half in PEM. A key that others may read is refused.
pub(super) fn load(path: &Path) -> Result<(SoftwareKey, String), Failure> {
    let pem = Zeroizing::new(input::read_text(path, "a private key", input::SMALL_MAX)?);
    let private = pem.contains("PRIVATE KEY-----");
    if !private && ["-----BEGIN PUBLIC KEY-----", "-----BEGIN CERTIFICATE-----"].iter().any(|mark| pem.contains(mark)) {
        return Err(Failure::unusable(format!(
            "{}: is the public half of a key, which signs nothing: name the private key{}",
            path.display(),
            path.to_str()
                .and_then(|name| name.strip_suffix(".pub"))
                .map_or_else(String::new, |name| format!(", {name}"))
        )));
    }
    let mode = std::fs::metadata(path).map(|data| data.mode() & 0o777).unwrap_or(0);
    if mode & 0o077 != 0 {
        return Err(Failure::unusable(format!(
            "{0}: has mode {mode:03o}, so others can sign with it: chmod 600 {0}, and make a new key if they could read it",
            path.display()
        )));
    }
    let wrong = || {
        Failure::unusable(format!(
            "{}: at byte 0: not a P-256 private key in PKCS#8 PEM: make one with `hostmark key create`",
            path.display()
        ))
    };
    let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| wrong())?;
    let key = SoftwareKey::from_pkcs8(der.secret_pkcs8_der()).ok_or_else(wrong)?;
    let pair = rcgen::KeyPair::from_pem_and_sign_algo(&pem, &rcgen::PKCS_ECDSA_P256_SHA256).map_err(|_| wrong())?;
    Ok((key, pair.public_key_pem()))
}
