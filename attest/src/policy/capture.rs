//! Capturing references from a machine that is known to be good: its boot log, IMA list and engine manifest.
//!
//! The values come from logs alone, so a capture proves nothing by itself: an operator reviews and signs it. A host is never
//! judged by a capture of its own evidence.

use std::collections::{BTreeMap, BTreeSet};

use super::references::{RawBundle, RawWindow};
use crate::boot_log::BootLog;
use crate::bytes::ParseError;
use crate::cel::userspace::{IDENTITY_PCR, UserspaceLog};
use crate::digest::Digest;
use crate::ima::ImaLog;
use crate::ima::loaded::{POLICY_PATH, is_pid1_or_library};
use crate::manifest::{EngineManifest, EngineReference};
use crate::replay::BANK;

/// PCRs of which the boot log gives reference values.
pub(super) const CAPTURED: [u8; 10] = [0, 2, 3, 4, 7, 8, 9, 11, 12, 14];
/// PCRs that are judged by value: those, and the one of the machine's identity where a reference names it.
pub(super) const JUDGED: [u8; 11] = [0, 2, 3, 4, 7, 8, 9, 11, 12, 14, IDENTITY_PCR];

/// Of those, what firmware extends in every bank that it knows: judged in the other quoted banks too.
pub(crate) const IN_EVERY_BANK: [u8; 5] = [0, 2, 3, 4, 7];

/// What to capture from. Empty parts are left out of the bundle.
#[derive(Debug, Clone, Copy, Default)]
pub struct Capture<'a> {
    /// binary_bios_measurements.
    pub boot_log: &'a [u8],
    /// systemd's tpm2-measure.log of the same boot: gives PCR 15, which holds for this one machine. Of PCR 11 the image's part is
    /// captured, so that references hold through all phases.
    pub userspace_log: &'a [u8],
    /// An IMA list, binary or ascii.
    pub ima: &'a [u8],
    /// Canonical engine manifests; each is one acceptable state of the files that it names.
    pub manifests: &'a [&'a [u8]],
}

/// Why a capture was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// A source is malformed.
    #[error("the {what} is malformed: {error}")]
    Malformed {
        /// Which source.
        what: &'static str,
        /// Where and why.
        error: ParseError,
    },
    /// The bundle cannot be written as TOML.
    #[error("the bundle cannot be written as TOML: {0}")]
    Toml(#[from] toml::ser::Error),
}

/// Makes the text of a reference bundle with one window that is always open.
///
/// # Errors
/// [`CaptureError`].
pub fn capture(from: &Capture<'_>, version: u64) -> Result<String, CaptureError> {
    let malformed = |what| move |error| CaptureError::Malformed { what, error };
    let mut window = RawWindow::default();
    if !from.boot_log.is_empty() {
        let log = BootLog::parse(from.boot_log).map_err(malformed("boot log"))?;
        let replay = log.replay_bank(BANK);
        let value = |pcr: &u8| replay.get(pcr).copied().unwrap_or_else(|| Digest::zero(BANK)).to_string();
        let mut values: BTreeMap<String, Vec<String>> =
            CAPTURED.iter().map(|pcr| (pcr.to_string(), vec![value(pcr)])).collect();
        if !from.userspace_log.is_empty() {
            let log = UserspaceLog::parse(from.userspace_log).map_err(malformed("log of systemd"))?;
            let identity = log.replay(BANK, &replay).get(&IDENTITY_PCR).map(|value| vec![value.to_string()]);
            values.extend(identity.map(|value| (IDENTITY_PCR.to_string(), value)));
        }
        window.pcrs.insert(BANK.name().to_owned(), values);
    }
    if !from.ima.is_empty() {
        let log = ImaLog::parse(from.ima).map_err(malformed("IMA list"))?;
        let mut files = BTreeMap::<String, BTreeSet<String>>::new();
        let mut before = BTreeSet::new();
        for entry in log.entries().filter(|entry| !entry.is_violation()) {
            let Some(file) = entry.measurement().filter(|file| file.path != b"boot_aggregate") else { continue };
            let Some(digest) = file.file_digest().filter(|digest| digest.alg() == BANK) else { continue };
            let digest = format!("{digest:?}");
            if file.path == POLICY_PATH {
                window.ima_policy.push(digest.clone());
            } else if window.ima_policy.is_empty() && !is_pid1_or_library(file.path) {
                before.insert(digest.clone());
            }
            files.entry(file.path_lossy().into_owned()).or_default().insert(digest);
        }
        // Without a policy in the list, "before" would be everything.
        if !window.ima_policy.is_empty() {
            window.ima_before_policy = before.into_iter().collect();
        }
        window.ima = files.into_iter().map(|(path, digests)| (path, digests.into_iter().collect())).collect();
    }
    for bytes in from.manifests {
        let manifest = EngineManifest::parse(bytes).map_err(malformed("engine manifest"))?;
        let captured = EngineReference::capture(&manifest);
        match &mut window.engine {
            Some(engine) => engine.merge(captured),
            none => *none = Some(captured),
        }
    }
    bundle(window, version)
}

/// Makes the text of a reference bundle that names files alone: (path on the host, digest).
///
/// # Errors
/// [`CaptureError::Toml`].
pub fn capture_files(files: &[(String, Digest)], version: u64) -> Result<String, CaptureError> {
    let mut window = RawWindow::default();
    for (path, digest) in files {
        if path.as_bytes() == POLICY_PATH {
            window.ima_policy.push(format!("{digest:?}"));
        }
        window.ima.entry(path.clone()).or_default().push(format!("{digest:?}"));
    }
    bundle(window, version)
}

fn bundle(window: RawWindow, version: u64) -> Result<String, CaptureError> {
    Ok(toml::to_string(&RawBundle { version, model: None, windows: vec![window] })?)
}
