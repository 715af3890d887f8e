//! Reference values from other projects' files. What has no meaning here is told, never taken over: an exclusion that another tool
//! grants, or a SHA-1 digest, would make an unknown file a known one.
//!
//! Keylime runtime policy, version 1 (docs/user_guide/runtime_ima.rst). It establishes nothing of who made the file: the operator who
//! signs the bundle vouches for it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::References;
use super::capture::CaptureError;
use super::references::{RawBundle, RawWindow};
use crate::digest::{Digest, HashAlg};
use crate::finding::{Finding, Findings};
use crate::replay::BANK;

/// A bundle made from another project's file, and what was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The bundle's text.
    pub text: String,
    /// Files with at least one digest, or PCRs.
    pub entries: usize,
    /// What was not taken over, and why.
    pub findings: Findings,
}

/// Why a file cannot be imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// Not the JSON that is expected.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// A version or algorithm that is not known here.
    #[error("{0}")]
    Unknown(String),
    /// Nothing in it has a meaning here.
    #[error("it holds no reference value that has a meaning here")]
    Empty,
    /// The bundle would be unsound.
    #[error(transparent)]
    Policy(#[from] super::PolicyError),
    /// The bundle cannot be written.
    #[error(transparent)]
    Capture(#[from] CaptureError),
}

#[derive(Debug, Deserialize)]
struct Keylime {
    meta: Meta,
    /// Path → digests in hex, of any algorithm.
    #[serde(default)]
    digests: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    excludes: Vec<String>,
    #[serde(default)]
    keyrings: BTreeMap<String, Vec<String>>,
    #[serde(default, rename = "ima-buf")]
    buffers: BTreeMap<String, Vec<String>>,
    #[serde(default, rename = "verification-keys")]
    verification_keys: serde_json::Value,
}

#[derive(Debug, Deserialize)]
struct Meta {
    version: u64,
}

/// Makes the text of a bundle from a Keylime runtime policy.
///
/// # Errors
/// [`ImportError`]: not such a policy, or nothing in it can be used.
pub fn keylime(json: &[u8], version: u64) -> Result<Imported, ImportError> {
    let policy: Keylime = serde_json::from_slice(json)?;
    if policy.meta.version != 1 {
        return Err(ImportError::Unknown(format!("a runtime policy of version {}, not 1", policy.meta.version)));
    }
    let mut window = RawWindow::default();
    let (mut weak, mut unread) = (0u64, BTreeSet::new());
    for (path, digests) in &policy.digests {
        // boot_aggregate is the TPM's own, and is checked against the PCRs.
        if path == "boot_aggregate" {
            continue;
        }
        let mut list = BTreeSet::new();
        for hex in digests {
            let alg =
                [BANK, HashAlg::Sha384, HashAlg::Sha512].into_iter().find(|alg| Digest::from_hex(*alg, hex).is_some());
            match alg.and_then(|alg| Digest::from_hex(alg, hex)) {
                Some(digest) => {
                    list.insert(format!("{digest:?}"));
                }
                None if Digest::from_hex(HashAlg::Sha1, hex).is_some() => weak = weak.saturating_add(1),
                None => {
                    unread.insert(hex.clone());
                }
            }
        }
        if !list.is_empty() {
            window.ima.insert(path.clone(), list.into_iter().collect());
        }
    }
    let mut findings = Findings::new();
    let mut left_out = |id: &str, count: u64, message: &str, fix: &str| {
        if count > 0 {
            findings.push(Finding::warning(id, message).found(count).fix(fix));
        }
    };
    let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
    left_out(
        "references.import.sha1",
        weak,
        "SHA-1 digests identify no file and are left out",
        "measure with ima_hash=sha256",
    );
    left_out(
        "references.import.unread",
        count(unread.len()),
        "texts that are no digest of a known algorithm are left out",
        "look at the file: nothing was guessed",
    );
    left_out(
        "references.import.excludes",
        count(policy.excludes.len()),
        "excluded paths are left out: no path excuses a file here",
        "add the digests of those files with `hostmark refs ima`",
    );
    left_out(
        "references.import.keyrings",
        count(policy.keyrings.len()),
        "keyrings are left out",
        "name the keys and keyrings that count in the appraisal policy's [ima] table",
    );
    left_out(
        "references.import.buffers",
        count(policy.buffers.len()),
        "digests of buffers (ima-buf) are left out",
        "none is needed: what the kernel loads is judged by the files and keys that it comes from",
    );
    let keys = match &policy.verification_keys {
        serde_json::Value::String(text) => !text.is_empty(),
        serde_json::Value::Array(list) => !list.is_empty(),
        _ => false,
    };
    left_out(
        "references.import.verification-keys",
        u64::from(keys),
        "verification keys are left out",
        "name the keys that count in the appraisal policy's [ima] table",
    );
    finish(window, None, version, findings)
}

/// The bundle, which must be readable.
pub(super) fn finish(
    window: RawWindow,
    model: Option<String>,
    version: u64,
    findings: Findings,
) -> Result<Imported, ImportError> {
    let pcrs = window.pcrs.values().map(BTreeMap::len).sum::<usize>();
    let entries = window.ima.len().saturating_add(pcrs);
    if entries == 0 {
        return Err(ImportError::Empty);
    }
    let bundle = RawBundle { version, model, windows: vec![window] };
    let text = toml::to_string(&bundle).map_err(CaptureError::from)?;
    References::parse("imported", &text)?;
    Ok(Imported { text, entries, findings })
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn a_keylime_policy_gives_files_and_tells_what_it_cannot_give() {
        let (one, two, weak) = ("01".repeat(32), "02".repeat(48), "03".repeat(20));
        let policy = serde_json::json!({
            "meta": {"version": 1, "generator": 3, "timestamp": "2026-01-01 00:00:00"},
            "release": 0,
            "digests": {"/usr/bin/a": [one, two, "text"], "/usr/bin/old": [weak], "boot_aggregate": ["00".repeat(32)]},
            "excludes": ["/tmp/.*"],
            "keyrings": {".ima": [one]},
            "ima-buf": {"dm_table_load": [one]},
            "ima": {"ignored_keyrings": [], "log_hash_alg": "sha256", "dm_policy": null},
            "verification-keys": "",
        });
        let imported = keylime(policy.to_string().as_bytes(), 3).unwrap();
        let ids: Vec<&str> = imported.findings.as_slice().iter().map(|one| one.id.as_str()).collect();
        let parts = ["sha1", "unread", "excludes", "keyrings", "buffers"];
        assert_eq!(ids, parts.map(|part| format!("references.import.{part}")));
        let bundle = References::parse("r", &imported.text).unwrap();
        let now = datetime!(2026-11-22 0:00 UTC);
        let known = |alg, hex: &str| bundle.open(now).any(|w| w.knows_file(&Digest::from_hex(alg, hex).unwrap()));
        assert!(known(HashAlg::Sha256, &one) && known(HashAlg::Sha384, &two));
        assert!(!known(HashAlg::Sha256, &"00".repeat(32)) && !known(HashAlg::Sha1, &weak));
        assert_eq!((imported.entries, bundle.version()), (1, 3));
        assert!(bundle.open(now).all(|window| !window.names_path(b"/usr/bin/old")));

        let rows = [
            ("{}", "missing field `meta`"),
            ("{\"meta\": {\"version\": 2}}", "version 2, not 1"),
            ("{\"meta\": {\"version\": 1}}", "no reference value"),
            ("{\"meta\": {\"version\": 1}, \"digests\": {\"/a\": [\"00\"]}}", "no reference value"),
            ("[", "EOF"),
        ];
        for (json, part) in rows {
            let error = keylime(json.as_bytes(), 1).unwrap_err().to_string();
            assert!(error.contains(part), "{json}: {error}");
        }
    }
}
