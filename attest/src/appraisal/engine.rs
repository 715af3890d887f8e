//! The engine subsystem: the engine manifest, anchored by the host log and compared with reference values.
//!
//! The manifest is hostd's word (DESIGN §3): its digest in the host log shows when it was said, not that it is true. Its
//! claims are therefore `reported`, which caps them at warning. Where IMA measured its files too, [`super::engine_ima`] compares.

use super::{Subject, engine_ima, workload};
use crate::finding::{Finding, Findings, Severity};
use crate::host_log::{Event, VerifiedHostLog};
use crate::manifest::{EngineManifest, compare};
use crate::policy::{AppraisalPolicy, EngineRules, Window};
use crate::replay::{ReplayedLogs, Resend};
use crate::state::{EngineSeen, RoundState};
use crate::tier::{Basis, Tier};

/// `before`: the last round's state, when the IMA list continues from it.
pub(super) fn appraise(
    logs: &ReplayedLogs<'_>,
    policy: &AppraisalPolicy,
    windows: &[&Window],
    before: Option<&RoundState>,
) -> Result<(Subject, EngineSeen), Resend> {
    let mut subject = Subject { findings: logs.host_log_findings().clone(), ..Subject::default() };
    let mut seen = EngineSeen::default();
    let Some(rules) = policy.engine() else { return Ok((subject, seen)) };
    let facts = check_hostd(logs, rules, &mut subject);
    let mut tier = Tier::Contraindicated;
    if let Some(manifest) = anchored(logs, &mut subject) {
        tier = judge(&manifest, windows, &mut subject);
        let mounts = bind_mounts(&manifest, rules);
        tier = tier.after(mounts.worst());
        subject.findings.append(mounts);
        if let Some(prefix) = logs.ima() {
            let (findings, kept) =
                engine_ima::cross_check(&manifest, prefix, before.map(RoundState::engine), rules, windows)?;
            tier = tier.after(findings.worst());
            subject.findings.append(findings);
            seen = kept;
        }
        let containers = workload::appraise(&logs.genuine().unanchored().inventory, &manifest, policy.workload());
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
fn anchored(logs: &ReplayedLogs<'_>, subject: &mut Subject) -> Option<EngineManifest> {
    let log = logs.host_log()?;
    let bytes = &logs.genuine().unanchored().manifest;
    let said = EngineManifest::digest(bytes);
    let logged = log.last_manifest();
    let anchored = subject.findings.check("engine.manifest-unlogged", logged != Some(said), || {
        Finding::error("", "the engine manifest is not the one that the host log recorded last")
            .expected(logged.map_or_else(|| "a manifest in the host log".to_owned(), hex::encode))
            .found(hex::encode(said))
            .fix("restart hostd; if it persists, something else writes its host log")
    });
    if !anchored {
        return None;
    }
    match EngineManifest::parse(bytes) {
        Ok(manifest) => Some(manifest),
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

fn judge(manifest: &EngineManifest, windows: &[&Window], subject: &mut Subject) -> Tier {
    // Windows are alternatives: the one that explains the host best is the one that is told.
    let best = windows
        .iter()
        .filter_map(|window| window.engine())
        .map(|reference| compare(manifest, reference))
        .min_by_key(|findings| (findings.worst(), findings.as_slice().len()));
    let Some(findings) = best else {
        subject.findings.push(
            Finding::info(
                "engine.reference-missing",
                "no open reference window describes the engines: nothing is claimed",
            )
            .fix("capture and publish references for this kind of host: hostmark refs capture"),
        );
        return Tier::None;
    };
    let tier = Tier::Affirming.after(findings.worst());
    subject.findings.append(findings);
    tier
}
