//! An unknown file at the path of an engine's program: the host's own, replaced, or a container's of the same name.
//!
//! IMA's paths are relative to a mount namespace, so that a container with an own /usr/bin/runc on a measured file system looks
//! like a host whose runc was replaced, and a tenant could have any host evicted by it. The file is ambiguous, a warning and no
//! refusal, only while all of this holds: the engine manifest that the host log anchors names that path with another digest, the
//! references know that digest, IMA lists it at that path, no manifest of this boot ever named the unknown one, and the host log does
//! not say that the path had a content that nobody read. hostd says so, too, of a program that a manifest named which was replaced before
//! a round told of it.
//!
//! The manifest is hostd's word (DESIGN §3): root can forge it, and so turn this one refusal into a warning. Runtime does not affirm
//! then either. No other path is treated so.

use std::cell::OnceCell;
use std::collections::{BTreeSet, HashMap};

use super::super::engine::Told;
use crate::digest::{Digest, HashAlg};
use crate::finding::{Finding, Findings};
use crate::host_log::{Event, VerifiedHostLog};
use crate::manifest::{EngineManifest, FileDigest, FileState};
use crate::policy::Window;
use crate::replay::ReplayedLogs;
use crate::state::{PathDigest, ProgramsSeen};

/// Most unknown files at such paths that are held back; further ones are unknown files at once.
const CONTESTED_MAX: usize = 16;
/// Most digests that manifests of one boot may name and no reference; with more of them nothing is ambiguous any longer.
const SAID_MAX: usize = 64;

/// The paths of engine files that the references name, with the digests that they allow.
pub(super) struct EnginePaths<'w> {
    windows: &'w [&'w Window],
    /// Made when the first file asks: most rounds bring none.
    paths: OnceCell<HashMap<&'w [u8], BTreeSet<FileDigest>>>,
}

/// What became of the files that were held back.
pub(super) struct Resolved {
    /// Those that are unknown files.
    pub(super) unknown: u64,
    pub(super) findings: Findings,
}

impl<'w> EnginePaths<'w> {
    pub(super) const fn of(windows: &'w [&'w Window]) -> Self {
        Self { windows, paths: OnceCell::new() }
    }

    fn paths(&self) -> &HashMap<&'w [u8], BTreeSet<FileDigest>> {
        self.paths.get_or_init(|| {
            let mut paths: HashMap<&[u8], BTreeSet<FileDigest>> = HashMap::new();
            for reference in self.windows.iter().filter_map(|window| window.engine()) {
                for (path, digests) in &reference.files {
                    paths.entry(path.as_bytes()).or_default().extend(digests);
                }
            }
            paths
        })
    }

    pub(super) fn has(&self, path: &[u8]) -> bool {
        self.paths().contains_key(path)
    }

    /// Notes an entry at one of these paths. True when it is held back until the manifest is looked at.
    pub(super) fn note(&self, path: &[u8], digest: Digest, known: bool, seen: &mut ProgramsSeen) -> bool {
        let Ok(path) = std::str::from_utf8(path) else { return false };
        let entry = PathDigest { path: path.to_owned(), digest: digest.to_string() };
        if known {
            // As many as the references have: a digest that they name elsewhere is not this file's.
            let own = self.paths().get(path.as_bytes()).is_some_and(|all| all.iter().any(|one| is(one, &digest)));
            if own {
                seen.listed.insert(entry);
            }
            return false;
        }
        let room = digest.alg() == HashAlg::Sha256 && seen.contested.len() < CONTESTED_MAX;
        if room {
            seen.contested.insert(entry);
        }
        room
    }

    /// Notes the unknown digests that the manifest names, also in a round whose IMA list is of no use.
    pub(super) fn note_said(told: &Told<'_>, seen: &mut ProgramsSeen) {
        for unknown in told.anchored().into_iter().flat_map(|(_, said)| said.unknown_programs()) {
            if seen.said.len() <= SAID_MAX {
                seen.said.insert(unknown.clone());
            }
        }
    }

    /// Judges what was held back, in every round anew: what the manifest says now may make it worse, never better.
    pub(super) fn resolve(
        logs: &ReplayedLogs<'_>,
        told: &Told<'_>,
        seen: &mut ProgramsSeen,
        unknown_file: impl Fn(&str, &str) -> Finding,
    ) -> Resolved {
        Self::note_said(told, seen);
        let manifest = told.anchored().map(|(manifest, _)| manifest);
        let unread: BTreeSet<&str> = logs
            .host_log()
            .into_iter()
            .flat_map(VerifiedHostLog::events)
            .filter_map(|event| match event {
                Event::ContentUnknown { what, .. } => Some(what.as_str()),
                _ => None,
            })
            .collect();
        let mut resolved = Resolved { unknown: 0, findings: Findings::new() };
        for held in &seen.contested {
            let own = manifest.and_then(|manifest| host_file(manifest, &held.path)).filter(|own| {
                let own = PathDigest { path: held.path.clone(), digest: own.to_string() };
                let told = seen.said.contains(held) || unread.contains(held.path.as_str());
                seen.listed.contains(&own) && !told && seen.said.len() <= SAID_MAX
            });
            let Some(own) = own else {
                resolved.unknown = resolved.unknown.saturating_add(1);
                resolved.findings.push(unknown_file(&held.path, &format!("sha256:{}", held.digest)));
                continue;
            };
            resolved.findings.check("ima.path-ambiguous", true, || {
                Finding::warning("", "an unknown file was executed under the path of an engine's program; the host's own is known and was measured too")
                    .expected(format!("{} sha256:{own}", held.path))
                    .found(format!("{} sha256:{}", held.path, held.digest))
                    .fix("a container with an own file of that name on a measured file system looks like this: find out which, and move it to overlay2")
            });
        }
        resolved
    }
}

fn is(known: &FileDigest, digest: &Digest) -> bool {
    digest.alg() == HashAlg::Sha256 && digest.as_bytes() == known.0
}

/// The digests that a manifest names at these paths and no reference anywhere.
pub(in crate::appraisal) fn unknown_programs(manifest: &EngineManifest, windows: &[&Window]) -> Vec<PathDigest> {
    let engines = EnginePaths::of(windows);
    let is_known = |digest: &FileDigest| {
        let digest = Digest::new(HashAlg::Sha256, &digest.0);
        digest.is_some_and(|digest| windows.iter().any(|window| window.knows_file(&digest)))
    };
    programs(manifest)
        .filter(|(path, digest)| engines.has(path.as_bytes()) && !is_known(digest))
        .map(|(path, digest)| PathDigest { path: path.clone(), digest: digest.to_string() })
        .collect()
}

/// Every program that a manifest names: the files, and what runs.
fn programs(manifest: &EngineManifest) -> impl Iterator<Item = (&String, FileDigest)> {
    manifest.engines.values().flat_map(|engine| {
        let files = engine.binaries.iter().filter_map(|(path, state)| match state {
            FileState::File { sha256, .. } => Some((path, *sha256)),
            _ => None,
        });
        files.chain(engine.processes.iter().filter_map(|one| Some((&one.exe, one.sha256?))))
    })
}

/// The one digest that a manifest gives for a path: none when its files and processes disagree.
fn host_file(manifest: &EngineManifest, path: &str) -> Option<FileDigest> {
    let said: BTreeSet<FileDigest> =
        programs(manifest).filter(|(other, _)| *other == path).map(|(_, digest)| digest).collect();
    if said.len() == 1 { said.first().copied() } else { None }
}
