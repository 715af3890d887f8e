//! The engine subsystem: the engine manifest, anchored by the host log and compared with reference values.
//!
//! The manifest is hostd's word (DESIGN §3): its digest in the host log shows when it was said, not that it is true. Its
//! claims are therefore `reported`, which caps them at warning. Where IMA measured its files too, [`super::engine_ima`] compares.

use std::cell::OnceCell;
use std::sync::Arc;

use super::runtime::unknown_programs;
use super::{Judge, Subject, engine_ima, workload};
use crate::bytes::ParseError;
use crate::finding::{Finding, Findings, Severity};
use crate::host_log::{Event, VerifiedHostLog};
use crate::manifest::{EngineManifest, compare};
use crate::policy::{EngineRules, Window};
use crate::remembered::{Inputs, Outcome};
use crate::replay::{ReplayedLogs, Resend};
use crate::state::{EngineSeen, PathDigest, RoundState};
use crate::tier::{Basis, Tier};

/// What a file of a manifest takes in memory beside its path: two structures, and digests in hex.
const FILE_WEIGHT: usize = 256;

/// What a manifest comes to under one judge's policy and open windows: a function of its bytes and of these.
#[derive(Debug)]
pub(crate) struct Said {
    manifest: Result<EngineManifest, ParseError>,
    judged: (Tier, Findings),
    mounts: Findings,
    claimed: Vec<engine_ima::Claimed>,
    unknown_programs: Vec<PathDigest>,
}

impl Outcome for Said {
    fn weight(&self) -> usize {
        // The manifest itself is some times the input.
        let files = self.claimed.len().saturating_add(self.unknown_programs.len());
        let said = self.judged.1.weight().saturating_add(self.mounts.weight());
        said.saturating_add(files.saturating_mul(FILE_WEIGHT))
    }
}

impl Said {
    fn of(bytes: &[u8], judge: &Judge, windows: &[&Window]) -> Self {
        let manifest = EngineManifest::parse(bytes);
        let judged = manifest.as_ref().map_or((Tier::None, Findings::new()), |manifest| compared(manifest, windows));
        let known = manifest.as_ref().ok();
        let rules = known.zip(judge.policy().engine());
        Self {
            judged,
            mounts: rules.map_or_else(Findings::new, |(manifest, rules)| bind_mounts(manifest, rules)),
            claimed: rules.map_or_else(Vec::new, |(manifest, rules)| engine_ima::claimed(manifest, rules)),
            unknown_programs: known.map_or_else(Vec::new, |manifest| unknown_programs(manifest, windows)),
            manifest,
        }
    }

    /// The digests of programs that it names and no reference does, at the paths of engines.
    pub(super) fn unknown_programs(&self) -> &[PathDigest] {
        &self.unknown_programs
    }
}

/// A round's engine manifest beside what the host log recorded last. It is read where that is asked for, and once.
pub(super) struct Told<'a> {
    judge: &'a Judge,
    windows: &'a [&'a Window],
    fingerprint: &'a str,
    bytes: &'a [u8],
    digest: [u8; 32],
    logged: Option<[u8; 32]>,
    said: OnceCell<Arc<Said>>,
}

impl<'a> Told<'a> {
    /// `fingerprint`: the judge's, which names the open windows.
    pub(super) fn of(
        logs: &'a ReplayedLogs<'_>,
        judge: &'a Judge,
        windows: &'a [&'a Window],
        fingerprint: &'a str,
    ) -> Self {
        let bytes = &logs.genuine().unanchored().manifest;
        Self {
            judge,
            windows,
            fingerprint,
            bytes,
            digest: EngineManifest::digest(bytes),
            logged: logs.host_log().and_then(VerifiedHostLog::last_manifest),
            said: OnceCell::new(),
        }
    }

    fn said(&self) -> &Said {
        self.said.get_or_init(|| {
            let inputs = Inputs::of("engine")
                .bind("remembered.manifest", &self.digest)
                .bind("remembered.windows", self.fingerprint.as_bytes());
            let work_out = || Said::of(self.bytes, self.judge, self.windows);
            self.judge.memory().engines.get_or(inputs, self.bytes.len(), work_out)
        })
    }

    /// The manifest, if the host log recorded it last and it can be read.
    pub(super) fn anchored(&self) -> Option<(&EngineManifest, &Said)> {
        if self.logged != Some(self.digest) {
            return None;
        }
        let said = self.said();
        Some((said.manifest.as_ref().ok()?, said))
    }
}

/// `before`: the last round's state, when the IMA list continues from it.
pub(super) fn appraise(
    logs: &ReplayedLogs<'_>,
    told: &Told<'_>,
    before: Option<&RoundState>,
) -> Result<(Subject, EngineSeen), Resend> {
    let (policy, windows) = (told.judge.policy(), told.windows);
    let mut subject = Subject { findings: logs.host_log_findings().clone(), ..Subject::default() };
    let mut seen = EngineSeen::default();
    let Some(rules) = policy.engine() else { return Ok((subject, seen)) };
    let facts = check_hostd(logs, rules, &mut subject);
    let mut tier = Tier::Contraindicated;
    if let Some((manifest, said)) = anchored(logs, told, &mut subject) {
        tier = said.judged.0;
        subject.findings.append(said.judged.1.clone());
        tier = tier.after(said.mounts.worst());
        subject.findings.append(said.mounts.clone());
        if let Some(prefix) = logs.ima() {
            let (findings, kept) =
                engine_ima::cross_check(&said.claimed, prefix, before.map(RoundState::engine), windows)?;
            tier = tier.after(findings.worst());
            subject.findings.append(findings);
            seen = kept;
        }
        let containers = workload::appraise(&logs.genuine().unanchored().inventory, manifest, policy.workload());
        tier = tier.after(containers.worst());
        subject.findings.append(containers);
        tier = tier.after(facts);
    }
    subject.claim("configuration", tier, Basis::Reported);
    subject.claim("executables", tier, Basis::Reported);
    Ok((subject, seen))
}

/// What speaks against hostd's own word: libraries that were slipped in beside it, and what it saw too late. Returns the weight.
fn check_hostd(logs: &ReplayedLogs<'_>, rules: &EngineRules, subject: &mut Subject) -> Option<Severity> {
    let mut findings = Findings::new();
    let preloaded = logs.genuine().unanchored().facts.get("hostd-preload");
    findings.check("hostd.preload", preloaded.is_some(), || {
        Finding::error("", "hostd runs with code that is not its own: what it says is not its word")
            .expected("no LD_PRELOAD, LD_AUDIT, LD_LIBRARY_PATH or /etc/ld.so.preload, and system libraries only")
            .found(preloaded.map(String::as_str).unwrap_or_default())
            .fix("remove the drop-in or /etc/ld.so.preload, restart hostmark-hostd.service, and find out who set it")
    });
    let unknown: Vec<(&str, &str)> = logs
        .host_log()
        .into_iter()
        .flat_map(VerifiedHostLog::events)
        .filter_map(|event| match event {
            Event::ContentUnknown { what, why } => Some((what.as_str(), why.as_str())),
            _ => None,
        })
        .collect();
    findings.check("engine.content-unknown", !unknown.is_empty(), || {
        let (what, why) = unknown.last().copied().unwrap_or_default();
        let text = format!("{} times since boot a measured file was not what hostd could read", unknown.len());
        Finding::new("", rules.content_unknown.severity(), text)
            .expected("each content measured")
            .found(format!("last {what}: {why}"))
            .fix("find out who changed it and what ran meanwhile (hostd's journal has the times); a reboot begins anew")
    });
    let worst = findings.worst();
    subject.findings.append(findings);
    worst
}

/// Mounts over the engines' files: what runs there is not what is installed, whatever content hostd read.
fn bind_mounts(manifest: &EngineManifest, rules: &EngineRules) -> Findings {
    let mut findings = Findings::new();
    for (name, engine) in &manifest.engines {
        let path = engine.mounted.first();
        findings.check("engine.bind-mount", path.is_some(), || {
            let path = path.map(String::as_str).unwrap_or_default();
            let text = format!("something is mounted over {path}: what runs is not what is installed");
            let more = match engine.mounted.len().saturating_sub(1) {
                0 => String::new(),
                more => format!(" (and {more} more)"),
            };
            Finding::new("", rules.bind_mount.severity(), text)
                .expected("no mount there")
                .found(format!("{path}{more}"))
                .fix(format!("umount {path}, restart {name}, and find out who mounted it"))
        });
    }
    findings
}

/// The manifest, if the host log recorded it last.
fn anchored<'t>(
    logs: &ReplayedLogs<'_>,
    told: &'t Told<'_>,
    subject: &mut Subject,
) -> Option<(&'t EngineManifest, &'t Said)> {
    logs.host_log()?;
    let anchored = subject.findings.check("engine.manifest-unlogged", told.logged != Some(told.digest), || {
        Finding::error("", "the engine manifest is not the one that the host log recorded last")
            .expected(told.logged.map_or_else(|| "a manifest in the host log".to_owned(), hex::encode))
            .found(hex::encode(told.digest))
            .fix("restart hostd; if it persists, something else writes its host log")
    });
    if !anchored {
        return None;
    }
    let said = told.said();
    match &said.manifest {
        Ok(manifest) => Some((manifest, said)),
        Err(error) => {
            subject.findings.push(
                Finding::error("engine.manifest-malformed", "the engine manifest is malformed")
                    .found(error)
                    .fix("run the same release of hostd and verifier"),
            );
            None
        }
    }
}

fn compared(manifest: &EngineManifest, windows: &[&Window]) -> (Tier, Findings) {
    // Windows are alternatives: the one that explains the host best is the one that is told.
    let best = windows
        .iter()
        .filter_map(|window| window.engine())
        .map(|reference| compare(manifest, reference))
        .min_by_key(|findings| (findings.worst(), findings.as_slice().len()));
    let Some(findings) = best else {
        let finding = Finding::info(
            "engine.reference-missing",
            "no open reference window describes the engines: nothing is claimed",
        );
        let finding = finding.fix("capture and publish references for this kind of host: hostmark refs capture");
        return (Tier::None, finding.into());
    };
    (Tier::Affirming.after(findings.worst()), findings)
}
