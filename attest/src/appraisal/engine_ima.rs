//! The engine manifest held against IMA: what hostd says of a file, and what the kernel measured of it.
//!
//! DESIGN §4, "files cross-checked with IMA". Two kinds of files have a second witness. Under the policy's `ima_covers` the kernel
//! measures each read (FILE_CHECK on a file system of its own), hostd's included: a digest that it never measured there is an
//! invention. Engine programs are measured where they run. Establishes that the kernel measured this content under this path (or,
//! where the path is covered, under another name of its directory: an editor reads a new file before it renames it). Does not establish that
//! it is the content now: the kernel lists a pair once, so A, B and A again look like A and B. A path is one of some mount namespace: a
//! program that a container brings under an engine's name adds a digest, so other digests beside the right one say nothing, and other
//! digests instead of it contradict only where `ima_covers` names the file system.

use std::collections::{BTreeMap, BTreeSet};

use crate::digest::{Digest, HashAlg, sha256};
use crate::finding::{Finding, Findings, Severity};
use crate::ima::ImaPrefix;
use crate::manifest::{EngineManifest, FileDigest, FileState};
use crate::policy::{EngineRules, Window};
use crate::replay::Resend;
use crate::state::EngineSeen;

/// Most pairs that are kept of a host: its engines' programs, and the files of a site with some hundred registries. A host with more is
/// asked for its whole list in each round.
const KEPT_MAX: usize = 1024;
/// Bytes of a kept pair's digest: nobody finds a second pair for 96 bits.
const KEY: usize = 12;
/// Most findings of one id.
const LISTED_MAX: usize = 32;

/// A file of the manifest that IMA may have measured.
#[derive(Debug)]
pub(super) struct Claimed {
    path: String,
    digest: FileDigest,
    covered: bool,
    key: String,
}

/// What the entries at hand say of the claimed files.
#[derive(Default)]
struct Measured {
    by_path: BTreeMap<Vec<u8>, BTreeSet<[u8; 32]>>,
    by_directory: BTreeMap<Vec<u8>, BTreeSet<[u8; 32]>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Confirmed,
    /// The kernel measured nothing that speaks for or against it.
    Absent,
    /// The kernel measured other contents under this path, and never this one.
    Other,
}

/// Judges the files of an anchored manifest. `before`: what earlier rounds of this boot kept, when the list is only the rest of one.
///
/// # Errors
/// [`Resend`]: the rest of the list does not hold a file that no earlier round judged.
pub(super) fn cross_check(
    claimed: &[Claimed],
    prefix: &ImaPrefix<'_>,
    before: Option<&EngineSeen>,
    windows: &[&Window],
) -> Result<(Findings, EngineSeen), Resend> {
    let measured = measured(prefix, claimed);
    let mut findings = Findings::new();
    let mut seen = EngineSeen::default();
    let mut unjudged = None::<&Claimed>;
    let mut listed = BTreeMap::<&str, usize>::new();
    for file in claimed {
        let here = measured.outcome(file, windows);
        let outcome = match (here, before) {
            (Outcome::Confirmed, _) | (_, None) => here,
            (_, Some(before)) if before.confirmed.contains(&file.key) => Outcome::Confirmed,
            (_, Some(before)) if before.other.contains(&file.key) => Outcome::Other,
            (_, Some(before)) if before.absent.contains(&file.key) => here,
            _ => {
                unjudged.get_or_insert(file);
                here
            }
        };
        let kept = match outcome {
            Outcome::Confirmed => &mut seen.confirmed,
            Outcome::Absent => &mut seen.absent,
            Outcome::Other => &mut seen.other,
        };
        keep(kept, &file.key);
        let id = if outcome == Outcome::Other { "engine.file-mismatch" } else { "engine.file-unmeasured" };
        let count = listed.entry(id).or_default();
        *count = count.saturating_add(usize::from(outcome != Outcome::Confirmed));
        if *count <= LISTED_MAX {
            tell(file, outcome, &measured, &mut findings);
        }
    }
    if crate::check::violated("engine.file-unjudged", unjudged.is_some()) {
        let path = unjudged.map(|file| file.path.as_str()).unwrap_or_default();
        let finding = Finding::error(
            "engine.file-unjudged",
            "a file of the engines changed, and the rest of the IMA list does not hold it",
        )
        .found(path)
        .fix("ask for a new challenge and send the list from entry 0");
        return Err(Resend { findings: finding.into() });
    }
    // What the kernel measured stays measured until the next boot: a content that comes back is known.
    for key in before.into_iter().flat_map(|before| &before.confirmed) {
        keep(&mut seen.confirmed, key);
    }
    Ok((findings, seen))
}

fn keep(kept: &mut BTreeSet<String>, key: &str) {
    if kept.len() < KEPT_MAX && !kept.contains(key) {
        kept.insert(key.to_owned());
    }
}

fn tell(file: &Claimed, outcome: Outcome, measured: &Measured, findings: &mut Findings) {
    let path = file.path.as_str();
    // A program's path alone never contradicts: a container may run its own file of that name.
    let severity = if file.covered { Severity::Error } else { Severity::Warning };
    findings.check("engine.file-mismatch", outcome == Outcome::Other, || {
        let text = if file.covered {
            format!("hostd reports a content of {path} that the kernel never measured; it measured others under this path")
        } else {
            format!("the kernel executed other programs as {path} than the one that hostd reports; the path may be that of a container")
        };
        Finding::new("", severity, text)
            .expected(measured.told(path))
            .found(file.digest)
            .fix("compare the file with its reference on the host; if it is as reported, find out what ran under its name, and reboot")
    });
    findings.check("engine.file-unmeasured", outcome == Outcome::Absent && file.covered, || {
        Finding::warning("", format!("the kernel measured no content of {path}, although the policy says that it measures each read there"))
            .expected("an entry of the IMA list for this path")
            .found("none")
            .fix("put the directory on a file system that the IMA policy's FILE_CHECK rule names (configs/ima), or take it out of ima_covers")
    });
}

/// The files of a manifest that IMA may know, each pair of path and digest once.
pub(super) fn claimed(manifest: &EngineManifest, rules: &EngineRules) -> Vec<Claimed> {
    let mut all = BTreeMap::<(&str, FileDigest), bool>::new();
    for engine in manifest.engines.values() {
        for (path, state) in engine.files() {
            let FileState::File { sha256, .. } = state else { continue };
            let covered = rules.covers(path);
            if covered || engine.binaries.contains_key(path) {
                all.insert((path, *sha256), covered);
            }
        }
    }
    let key = |path: &str, digest: &FileDigest| {
        let hash = sha256(&[path.as_bytes(), &[0], &digest.0]);
        hex::encode(hash.get(..KEY).unwrap_or_default())
    };
    all.into_iter()
        .map(|((path, digest), covered)| Claimed { key: key(path, &digest), path: path.to_owned(), digest, covered })
        .collect()
}

/// A path as the kernel logs it: spaces become underscores.
fn logged(path: &str) -> Vec<u8> {
    path.bytes().map(|byte| if byte == b' ' { b'_' } else { byte }).collect()
}

fn directory(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').and_then(|at| path.get(..at)).unwrap_or_default()
}

fn measured(prefix: &ImaPrefix<'_>, claimed: &[Claimed]) -> Measured {
    let mut measured = Measured::default();
    if prefix.verified() == 0 {
        return measured;
    }
    for file in claimed {
        let path = logged(&file.path);
        if file.covered {
            measured.by_directory.entry(directory(&path).to_vec()).or_default();
        }
        measured.by_path.entry(path).or_default();
    }
    for entry in prefix.entries() {
        let Some(file) = entry.measurement().filter(|file| file.buffer.is_none()) else { continue };
        let Some(digest) = file.file_digest().filter(|digest| digest.alg() == HashAlg::Sha256) else { continue };
        let Ok(digest) = <[u8; 32]>::try_from(digest.as_bytes()) else { continue };
        if let Some(digests) = measured.by_path.get_mut(file.path) {
            digests.insert(digest);
        }
        if let Some(digests) = measured.by_directory.get_mut(directory(file.path)) {
            digests.insert(digest);
        }
    }
    measured
}

impl Measured {
    fn outcome(&self, file: &Claimed, windows: &[&Window]) -> Outcome {
        if self.by_path.is_empty() {
            return Outcome::Absent;
        }
        let path = logged(&file.path);
        let there = self.by_path.get(&path);
        let has =
            |digests: Option<&BTreeSet<[u8; 32]>>| digests.is_some_and(|digests| digests.contains(&file.digest.0));
        if has(there) || (file.covered && has(self.by_directory.get(directory(&path)))) {
            return Outcome::Confirmed;
        }
        // A program that was replaced and has not run since has only earlier digests. Those of the references are earlier releases.
        let speaks = |digest: &[u8; 32]| {
            let digest = Digest::new(HashAlg::Sha256, digest);
            file.covered || !digest.is_some_and(|digest| windows.iter().any(|window| window.knows_file(&digest)))
        };
        if there.into_iter().flatten().any(speaks) { Outcome::Other } else { Outcome::Absent }
    }

    /// The digests that were measured under a path, for a finding.
    fn told(&self, path: &str) -> String {
        let digests: Vec<String> = self.by_path.get(&logged(path)).into_iter().flatten().map(hex::encode).collect();
        if digests.is_empty() { "another content, in an earlier round".to_owned() } else { digests.join(" or ") }
    }
}
