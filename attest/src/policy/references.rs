//! Reference values: what a good host measures, in validity windows.
//!
//! RFC 9334 §8.3. A bundle has a monotonic version and any number of windows; a value counts while one of its windows is
//! open, so a firmware or kernel update evicts nobody and a planned rollback inside a window is allowed.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::capture::{IN_EVERY_BANK, JUDGED};
use super::file_set::FileSet;
use super::{PolicyError, parse_toml};
use crate::check::violated;
use crate::digest::{Digest, HashAlg};
use crate::manifest::EngineReference;
use crate::replay::BANK;

/// Most windows in one bundle.
const WINDOWS_MAX: usize = 64;
/// Longest name of a hardware model: SMBIOS strings are below 128.
pub(super) const MODEL_MAX: usize = 128;
/// Longest id of a change.
const CHANGE_MAX: usize = 64;

/// A bundle of reference values, compiled.
#[derive(Debug, Clone)]
pub struct References {
    name: String,
    version: u64,
    model: Option<String>,
    windows: Vec<Window>,
}

/// What is acceptable while this window is open.
#[derive(Debug, Clone, Default)]
pub struct Window {
    from: Option<OffsetDateTime>,
    until: Option<OffsetDateTime>,
    change: Option<String>,
    pcrs: BTreeMap<(HashAlg, u8), BTreeSet<Digest>>,
    /// Named among the files, or allowed by the engine reference: where the kernel measures those too, they are no strangers.
    files: FileSet,
    names_files: bool,
    paths: HashSet<Box<[u8]>>,
    ima_policy: HashSet<Digest>,
    before_policy: HashSet<Digest>,
    engine: Option<EngineReference>,
}

/// The file's shape, also written by `hostmark refs capture`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawBundle {
    pub(crate) version: u64,
    /// The hardware model that the bundle is for. For people and `refs rebase`: no host is told apart by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) model: Option<String>,
    #[serde(rename = "window")]
    pub(crate) windows: Vec<RawWindow>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawWindow {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<String>,
    /// The id of the change under which the window accepts what differs. Such a window must end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) change: Option<String>,
    /// Digests, as `alg:hex`, that the IMA policy's file may have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) ima_policy: Vec<String>,
    /// Digests of files that a good host uses before it has loaded its IMA policy, beside PID 1 and libraries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) ima_before_policy: Vec<String>,
    /// Bank → PCR index → acceptable values in hex.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) pcrs: BTreeMap<String, BTreeMap<String, Vec<String>>>,
    /// Path → acceptable digests as `alg:hex`. The path is for the reader; the digest decides.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) ima: BTreeMap<String, Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) engine: Option<EngineReference>,
}

impl References {
    /// Parses and compiles. `name` is the file's name without `.toml`.
    ///
    /// # Errors
    /// [`PolicyError`] naming line and column, or what is invalid.
    pub fn parse(name: &str, text: &str) -> Result<Self, PolicyError> {
        let file = format!("{name}.toml");
        let raw: RawBundle = parse_toml(&file, text)?;
        let invalid = |problem: String| PolicyError::Invalid { file: file.clone(), id: "references.invalid", problem };
        if raw.windows.is_empty() || raw.windows.len() > WINDOWS_MAX {
            return Err(invalid(format!("a bundle has 1 to {WINDOWS_MAX} [[window]] tables")));
        }
        let windows = raw.windows.into_iter().map(Window::compile).collect::<Result<_, _>>().map_err(invalid)?;
        if raw.model.as_ref().is_some_and(|model| model.is_empty() || model.len() > MODEL_MAX || has_control(model)) {
            return Err(invalid(format!("`model` has 1 to {MODEL_MAX} bytes and no control characters")));
        }
        Ok(Self { name: name.to_owned(), version: raw.version, model: raw.model, windows })
    }

    /// The bundle's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its version: never falls.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The hardware model that it is for, where it says so.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// Whether any window that has begun at `now`, open still or not, names this PCR.
    #[must_use]
    pub fn names(&self, bank: HashAlg, pcr: u8, now: OffsetDateTime) -> bool {
        let mut named = self.windows.iter().filter(|window| window.pcr(bank, pcr).is_some());
        named.any(|window| !violated("references.not-begun", !window.has_begun(now)))
    }

    /// The windows that are open at `now`.
    pub fn open(&self, now: OffsetDateTime) -> impl Iterator<Item = &Window> {
        self.windows.iter().filter(move |window| window.is_open(now))
    }
}

impl References {
    /// The positions of the open windows.
    pub(crate) fn open_indices(&self, now: OffsetDateTime) -> impl Iterator<Item = usize> {
        self.windows.iter().enumerate().filter(move |(_, window)| window.is_open(now)).map(|(index, _)| index)
    }
}

impl Window {
    fn compile(raw: RawWindow) -> Result<Self, String> {
        let instant = |text: Option<String>| {
            text.map(|text| OffsetDateTime::parse(&text, &Rfc3339).map_err(|_| format!("`{text}` is not RFC 3339")))
                .transpose()
        };
        let mut window =
            Self { from: instant(raw.from)?, until: instant(raw.until)?, engine: raw.engine, ..Self::default() };
        if window.from.zip(window.until).is_some_and(|(from, until)| until <= from) {
            return Err("a window ends before it begins: it would never be open".to_owned());
        }
        if let Some(change) = raw.change {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/#:".contains(&byte);
            if change.is_empty() || change.len() > CHANGE_MAX || !change.bytes().all(plain) {
                return Err(format!("a change's id has 1 to {CHANGE_MAX} letters, digits and . _ - / # :"));
            }
            if window.until.is_none() {
                return Err(format!("the window of the change {change} has no `until`: what it accepts must end"));
            }
            window.change = Some(change);
        }
        for (bank, values) in &raw.pcrs {
            let alg = HashAlg::from_name(bank).ok_or_else(|| format!("unknown PCR bank `{bank}`"))?;
            for (index, accepted) in values {
                let pcr = index.parse::<u8>().ok().filter(|pcr| *pcr < 24);
                let pcr = pcr.ok_or_else(|| format!("`{index}` is not a PCR (0 to 23)"))?;
                let strong = alg.computable() && alg != HashAlg::Sha1;
                let judged = if alg == BANK { JUDGED.contains(&pcr) } else { strong && IN_EVERY_BANK.contains(&pcr) };
                if !judged {
                    let (own, others) = (JUDGED.map(|pcr| pcr.to_string()), IN_EVERY_BANK.map(|pcr| pcr.to_string()));
                    return Err(format!(
                        "{alg} PCR {pcr} is never judged by value; judged are {BANK} {}, and of other banks than sha1's {}",
                        own.join(", "),
                        others.join(", ")
                    ));
                }
                if accepted.is_empty() {
                    return Err(format!("PCR {pcr} has no acceptable value: leave it out, or name one"));
                }
                for hex in accepted {
                    let value = Digest::from_hex(alg, hex);
                    let value = value.ok_or_else(|| format!("PCR {pcr}: `{hex}` is not a {alg} digest"))?;
                    window.pcrs.entry((alg, pcr)).or_default().insert(value);
                }
            }
        }
        for (path, digests) in &raw.ima {
            window.names_files |= !digests.is_empty();
            for text in digests {
                window.files.insert(file_digest(path, text)?);
            }
            window.paths.insert(path.as_bytes().into());
        }
        for (name, digests, set) in [
            ("ima_policy", &raw.ima_policy, &mut window.ima_policy),
            ("ima_before_policy", &raw.ima_before_policy, &mut window.before_policy),
        ] {
            for text in digests {
                set.insert(file_digest(name, text)?);
            }
        }
        let allowed = window.engine.iter().flat_map(|engine| engine.files.values().flatten());
        for digest in allowed.filter_map(|digest| Digest::new(BANK, &digest.0)) {
            window.files.insert(digest);
        }
        Ok(window)
    }

    fn has_begun(&self, now: OffsetDateTime) -> bool {
        self.from.is_none_or(|from| from <= now)
    }

    fn is_open(&self, now: OffsetDateTime) -> bool {
        self.has_begun(now) && self.until.is_none_or(|until| now < until)
    }

    /// The id of the change under which it accepts what differs.
    #[must_use]
    pub fn change(&self) -> Option<&str> {
        self.change.as_deref()
    }

    /// The acceptable values of one PCR, if the window names it.
    #[must_use]
    pub fn pcr(&self, bank: HashAlg, index: u8) -> Option<&BTreeSet<Digest>> {
        self.pcrs.get(&(bank, index))
    }

    /// Whether a measured file is known: named among the files, or allowed as one of an engine.
    #[must_use]
    #[inline]
    pub fn knows_file(&self, digest: &Digest) -> bool {
        self.files.contains(digest)
    }

    /// Whether the window names a file of this path, whatever its digest. A path proves nothing: this explains, it never excuses.
    #[must_use]
    pub fn names_path(&self, path: &[u8]) -> bool {
        self.paths.contains(path)
    }

    /// Whether a file is the IMA policy that hosts must load.
    #[must_use]
    pub fn is_ima_policy(&self, digest: &Digest) -> bool {
        self.ima_policy.contains(digest)
    }

    /// Whether a known file may be used before the IMA policy is loaded.
    #[must_use]
    pub fn may_precede_policy(&self, digest: &Digest) -> bool {
        self.before_policy.contains(digest)
    }

    /// Whether the window names any file at all.
    #[must_use]
    pub const fn names_files(&self) -> bool {
        self.names_files
    }

    /// What the engines must look like.
    #[must_use]
    pub const fn engine(&self) -> Option<&EngineReference> {
        self.engine.as_ref()
    }
}

fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}

/// `alg:hex` of a file. SHA-1 identifies none.
fn file_digest(what: &str, text: &str) -> Result<Digest, String> {
    let parsed = text.split_once(':').and_then(|(alg, hex)| Digest::from_hex(HashAlg::from_name(alg)?, hex));
    let digest = parsed.ok_or_else(|| format!("{what}: `{text}` is not `algorithm:hex`"))?;
    if digest.alg() == HashAlg::Sha1 {
        return Err(format!("{what}: a SHA-1 digest identifies no file"));
    }
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn a_value_counts_while_its_window_is_open() {
        let zero = "00".repeat(32);
        let text = format!(
            "version = 2\n[[window]]\nfrom = \"2026-01-01T00:00:00Z\"\nuntil = \"2026-02-01T00:00:00Z\"\n[window.pcrs.sha256]\n4 = [\"{zero}\"]\n"
        );
        let references = References::parse("r", &text).unwrap();
        let accepted = |now| references.open(now).any(|window| window.pcr(HashAlg::Sha256, 4).is_some());
        assert!(accepted(datetime!(2026-01-15 0:00 UTC)));
        assert!(!accepted(datetime!(2025-12-31 23:59:59 UTC)));
        assert!(!accepted(datetime!(2026-02-01 0:00 UTC)));
    }

    #[test]
    fn what_cannot_be_judged_is_refused() {
        for body in [
            "pcrs.sha256.1 = []",
            "pcrs.sha256.24 = []",
            "pcrs.md5.4 = []",
            "pcrs.sha256.4 = [\"00\"]",
            "ima.x = [\"sha1:00\"]",
            "ima_policy = [\"sha1:0000000000000000000000000000000000000000\"]",
            "ima_before_policy = [\"00\"]",
        ] {
            let text = format!("version = 1\n[[window]]\n{body}\n");
            assert!(matches!(References::parse("r", &text), Err(PolicyError::Invalid { .. })), "{body}");
        }
        assert!(References::parse("r", "version = 1\nwindow = []\n").is_err());
    }
}
