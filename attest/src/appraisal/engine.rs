//! The engine subsystem: the engine manifest, anchored by the host log and compared with reference values.
//!
//! The manifest is hostd's word (DESIGN §3): its digest in the host log shows when it was said, not that it is true. Its
//! claims are therefore `reported`, which caps them at warning. Where IMA measured its files too, [`super::engine_ima`] compares.

use super::{Subject, engine_ima, workload};
use crate::finding::Finding;
use crate::manifest::{EngineManifest, compare};
use crate::policy::{AppraisalPolicy, Window};
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
    let mut tier = Tier::Contraindicated;
    if let Some(manifest) = anchored(logs, &mut subject) {
        tier = judge(&manifest, windows, &mut subject);
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
    }
    subject.claim("configuration", tier, Basis::Reported);
    subject.claim("executables", tier, Basis::Reported);
    Ok((subject, seen))
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
