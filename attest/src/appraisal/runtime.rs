//! The runtime subsystem: what the kernel executed, mapped and loaded since boot, by IMA.

use super::Subject;
use crate::finding::{Finding, Severity};
use crate::ima::Entry;
use crate::policy::{AppraisalPolicy, Window};
use crate::replay::{ReplayedLogs, Resend};
use crate::state::{RoundState, RuntimeSeen};
use crate::tier::{Basis, Tier};

/// Most findings about single files that are kept; the counts stay complete.
const LISTED_MAX: usize = 32;

pub(super) fn appraise(
    logs: &ReplayedLogs<'_>,
    policy: &AppraisalPolicy,
    windows: &[&Window],
    before: Option<&RoundState>,
    fingerprint: &str,
) -> Result<(Subject, RuntimeSeen), Resend> {
    let mut subject = Subject::default();
    let mut seen = RuntimeSeen::default();
    let Some(rules) = policy.ima() else { return Ok((subject, seen)) };
    let Some(prefix) = logs.ima() else {
        subject.findings = logs.ima_findings().clone();
        subject.claim("executables", Tier::Contraindicated, Basis::PcrAnchored);
        return Ok((subject, seen));
    };
    if let Some(before) = before {
        let stale = crate::check::violated("ima.judged-before", before.judged_by() != fingerprint);
        if stale {
            let finding = Finding::error(
                "ima.judged-before",
                "policy or references changed since the earlier entries were judged",
            )
            .fix("ask for a new challenge and send the list from entry 0");
            return Err(Resend { findings: finding.into() });
        }
        seen = before.runtime().clone();
    }
    for finding in logs.ima_findings().as_slice() {
        if finding.severity == Severity::Info {
            subject.findings.push(finding.clone());
        } else if !seen.list.iter().any(|earlier| earlier.id == finding.id) {
            seen.list.push(finding.clone());
        }
    }
    for finding in &seen.list {
        subject.findings.push(finding.clone());
    }
    let references = windows.iter().any(|window| window.names_files());
    // The first entry of a whole list is no file: `check_boot_aggregate` judged it. A file of that name is a file.
    let first = usize::from(logs.ima_is_whole());
    for entry in prefix.entries().skip(first) {
        judge(&entry, windows, rules.unknown.severity(), &mut seen);
    }
    for finding in &seen.findings {
        subject.findings.push(finding.clone());
    }
    let unlisted =
        seen.unknown.saturating_add(seen.violations).saturating_sub(seen.findings.len().try_into().unwrap_or(u64::MAX));
    if unlisted > 0 {
        // The list is cut, the counts are not: what is not listed weighs as much.
        let weight = if seen.unknown > 0 { rules.unknown.severity() } else { Severity::Warning };
        let message = format!("{unlisted} more files of the same kinds are not listed");
        subject.findings.push(Finding::new("ima.more", weight, message));
    }
    let nothing = seen.known == 0 && seen.unknown == 0;
    let measured = subject.findings.check("ima.nothing-measured", nothing, || {
        Finding::warning("", "the kernel measured no file since boot: its IMA policy is absent or measures nothing")
            .expected("at least one measured file")
            .fix("load the IMA policy of configs/ima and reboot; hostd doctor tells whether it is loaded")
    });
    let tier = if references && measured && seen.known > 0 { Tier::Affirming } else { Tier::None };
    subject.claim("executables", tier.after(subject.findings.worst()), Basis::PcrAnchored);
    Ok((subject, seen))
}

fn judge(entry: &Entry<'_>, windows: &[&Window], unknown: Severity, seen: &mut RuntimeSeen) {
    let mut list = |finding: Finding| {
        if seen.findings.len() < LISTED_MAX {
            seen.findings.push(finding);
        }
    };
    if entry.is_violation() {
        // A violation hashes nothing: its path is shown and excuses nothing.
        seen.violations = seen.violations.saturating_add(1);
        let path = String::from_utf8_lossy(entry.unauthenticated_path().unwrap_or_default()).into_owned();
        list(
            Finding::warning(
                "ima.violation",
                "a file was open for writing while it was measured, so its content is unknown",
            )
            .found(path)
            .fix("reboot the host if this should not happen; the path is not authenticated"),
        );
        return;
    }
    let Some(file) = entry.measurement() else {
        seen.unknown = seen.unknown.saturating_add(1);
        list(
            Finding::new("ima.unreadable-entry", unknown, "an entry does not say which file it measured")
                .found(entry.template()),
        );
        return;
    };
    let known = file.file_digest().is_some_and(|digest| windows.iter().any(|window| window.knows_file(&digest)));
    if !crate::check::violated("ima.unknown-file", !known) {
        seen.known = seen.known.saturating_add(1);
        return;
    }
    seen.unknown = seen.unknown.saturating_add(1);
    let digest = file.file_digest().map_or_else(|| "no usable digest".to_owned(), |digest| format!("{digest:?}"));
    list(
        Finding::new("ima.unknown-file", unknown, "a file was executed, mapped or loaded that no reference names")
            .expected("a digest of the references")
            .found(format!("{} {digest}", file.path_lossy()))
            .fix(
                "publish references that name it if it belongs there: hostmark refs capture; else find out who ran it",
            ),
    );
}
