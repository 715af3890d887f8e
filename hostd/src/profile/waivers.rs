//! Waivers that lie on the host: read, verified, carried in the report that they excuse something in.
//!
//! `NAME.toml` with `NAME.toml.sig` beside it. What counts is decided by [`ProfileReport::waived_by`], here and again by whoever reads the report.

use std::path::{Path, PathBuf};

use hostmark_attest::finding::{Finding, Findings};
use hostmark_attest::jws::{KeySet, SignerKeyError};
use hostmark_attest::policy::PolicyError;
use hostmark_attest::profile::{ProfileReport, SignedWaiver, Waiver};
use time::OffsetDateTime;

use crate::state::read;

/// Where waivers are.
pub const WAIVERS: &str = "/etc/hostmark/waivers";
/// Where the public keys are of those who may sign them.
pub const SIGNERS: &str = "/etc/hostmark/trust/signers";
/// Most bytes of a signer's file.
const KEY_MAX: u64 = 64 << 10;
/// Most bytes of a waiver or its signature that are read; what a waiver may have is less.
const TEXT_MAX: u64 = 64 << 10;

/// Why waivers cannot be used at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WaiverError {
    /// A directory or file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A signer's file that gives no keys.
    #[error("{path} {source}")]
    Signer {
        /// Which.
        path: PathBuf,
        /// Why.
        source: SignerKeyError,
    },
    /// More waivers than a report carries.
    #[error(transparent)]
    Count(#[from] PolicyError),
}

/// Where waivers and their signers' keys are, and who this host is.
#[derive(Debug, Clone)]
pub struct Waivers {
    /// [`WAIVERS`].
    pub directory: PathBuf,
    /// [`SIGNERS`].
    pub signers: PathBuf,
    /// The host's node name and id. Empty: no waiver is for it.
    pub names: Vec<String>,
}

impl Waivers {
    /// The report with what waivers excuse in it at `now`, and findings on those that excuse nothing. A file that is no waiver, and one whose
    /// signature nobody trusts, are told and excuse nothing.
    ///
    /// # Errors
    /// [`WaiverError`].
    pub fn on(&self, mut report: ProfileReport, now: OffsetDateTime) -> Result<(ProfileReport, Findings), WaiverError> {
        let mut keys = KeySet::new();
        for path in files(&self.signers, "pem")? {
            keys.add_pem(&content(&path, KEY_MAX)?).map_err(|source| WaiverError::Signer { path, source })?;
        }
        let mut findings = Findings::new();
        let mut found = Vec::new();
        for path in files(&self.directory, "toml")? {
            match verified(&path, &keys)? {
                Ok(waiver) => found.push(waiver),
                Err(finding) => findings.push(finding),
            }
        }
        report.carry(found)?;
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let (report, more) = report.waived_by(&keys, &names, now);
        findings.append(more);
        Ok((report, findings))
    }
}

fn verified(path: &Path, keys: &KeySet) -> Result<Result<(SignedWaiver, Waiver), Finding>, WaiverError> {
    let file = path.display().to_string();
    let beside = PathBuf::from(format!("{file}.sig"));
    let text = |path: &Path| content(path, TEXT_MAX).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let signed =
        SignedWaiver { text: text(path)?, signature: if beside.exists() { text(&beside)? } else { String::new() } };
    Ok(match signed.verify(&file, keys) {
        Ok(waiver) => Ok((signed, waiver)),
        Err(PolicyError::Unsigned { findings, .. }) => {
            let told = findings.as_slice().first().map(ToString::to_string).unwrap_or_default();
            Err(Finding::warning("waiver.unsigned", format!("{file} excuses nothing: {told}"))
                .fix(format!("sign it with `hostmark waiver sign`, and have the signer's public key in {SIGNERS}")))
        }
        Err(error) => Err(Finding::warning("waiver.invalid", error.to_string())),
    })
}

/// The files of a directory with this ending, sorted; none where there is no directory.
fn files(directory: &Path, ending: &str) -> Result<Vec<PathBuf>, WaiverError> {
    let io = |source| WaiverError::Io { path: directory.to_owned(), source };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io(error)),
    };
    let mut paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>().map_err(io)?;
    paths.retain(|path| path.extension().is_some_and(|found| found == ending));
    paths.sort();
    Ok(paths)
}

fn content(path: &Path, most: u64) -> Result<Vec<u8>, WaiverError> {
    let io = |source| WaiverError::Io { path: path.to_owned(), source };
    read(path, most).map_err(io)?.ok_or_else(|| io(std::io::ErrorKind::NotFound.into()))
}
