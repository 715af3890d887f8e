//! The runtime subsystem: what the kernel executed, mapped and loaded since boot, by IMA.
//!
//! Linux `Documentation/ABI/testing/ima_policy`, `security/integrity/ima/`. Digests decide. A path in the list is relative to a
//! mount namespace, has no one spelling, and belongs to whoever made the namespace: it explains a finding and never excuses an
//! entry, which is also why an appraisal policy can exclude no path. A violation hashes nothing, its path least of all.
//!
//! Establishes: every entry up to the quoted PCR 10 is a known file or a finding; which IMA policy ruled ([`coverage`]). Does not
//! establish: what ran before the kernel had that policy beyond what `tcb` measures; modules that a program decompresses itself
//! (`init_module` takes no file: lockdown must want signatures); code that a measured interpreter reads; that a known file
//! measured once was not replaced and put back; what runs in containers on overlay file systems.

mod coverage;
mod engine_paths;
mod kinds;
mod signed;

use super::Subject;
use super::engine::Told;
use crate::finding::{Finding, Severity};
use crate::ima::loaded::POLICY_PATH;
use crate::ima::{Measured, batches};
use crate::policy::{AppraisalPolicy, Window};
use crate::replay::{ReplayedLogs, Resend};
use crate::state::{RoundState, RuntimeSeen};
use crate::tier::{Basis, Tier};
use engine_paths::EnginePaths;
pub(super) use engine_paths::unknown_programs;
use signed::{MeasuredKey, Signers};

/// Most findings about single files that are kept; the counts stay complete.
const LISTED_MAX: usize = 32;

pub(super) fn appraise(
    logs: &ReplayedLogs<'_>,
    policy: &AppraisalPolicy,
    windows: &[&Window],
    state: Option<&RoundState>,
    fingerprint: &str,
    told: &Told<'_>,
) -> Result<(Subject, RuntimeSeen), Resend> {
    let mut subject = Subject::default();
    let mut seen = RuntimeSeen::default();
    let Some(rules) = policy.ima() else {
        // Another policy may ask again, and its list then continues where this one left off.
        let before = state.filter(|_| logs.same_boot());
        return Ok((subject, before.map_or(seen, |before| before.runtime().clone())));
    };
    let Some(prefix) = logs.ima() else {
        subject.findings = logs.ima_findings().clone();
        subject.claim("executables", Tier::Contraindicated, Basis::PcrAnchored);
        // One bad list wipes nothing out: the next good one continues from the last, and what manifests said stays said.
        if let Some(before) = state.filter(|_| logs.same_boot()) {
            seen = before.runtime().clone();
        }
        EnginePaths::note_said(told, &mut seen.programs);
        return Ok((subject, seen));
    };
    if let Some(before) = state {
        if !logs.ima_is_whole() {
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
        } else if logs.same_boot() {
            // The entries are judged anew. What the manifest said of engine programs in this boot is not said again.
            seen.programs.said.clone_from(&before.runtime().programs.said);
        }
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
    let (unknown, engines, signers) = (rules.unknown.severity(), EnginePaths::of(windows), Signers::of(rules));
    let mut judging = Judging { windows, unknown, engines, signers, seen };
    // The first entry of a whole list is no file: `check_boot_aggregate` judged it. A file of that name is a file.
    let first = usize::from(logs.ima_is_whole());
    for batch in batches(prefix.entries().skip(first)) {
        let named = |one: &Measured<'_>| {
            one.digest.is_some_and(|digest| windows.iter().any(|window| window.knows_file(&digest)))
        };
        let named: Vec<bool> = batch.iter().map(named).collect();
        for (one, named) in batch.iter().zip(named) {
            judging.judge(one, named);
        }
    }
    let Judging { unknown, mut seen, .. } = judging;
    for finding in &seen.findings {
        subject.findings.push(finding.clone());
    }
    let replaced = EnginePaths::resolve(logs, told, &mut seen.programs, |path, digest| {
        unknown_file(windows, unknown, path.as_bytes(), digest)
    });
    let unknown_files = seen.unknown.saturating_add(replaced.unknown);
    for finding in replaced.findings.into_vec() {
        subject.findings.push(finding);
    }
    let unlisted =
        seen.unknown.saturating_add(seen.violations).saturating_sub(seen.findings.len().try_into().unwrap_or(u64::MAX));
    if crate::check::violated("ima.more", unlisted > 0) {
        // The list is cut, the counts are not: what is not listed weighs as much.
        let weight = if seen.unknown > 0 { unknown } else { Severity::Warning };
        let message = format!("{unlisted} more files of the same kinds are not listed");
        subject.findings.push(Finding::new("ima.more", weight, message));
    }
    kinds::report(&seen.kinds, unknown, &mut subject.findings);
    let nothing = seen.known == 0 && unknown_files == 0;
    let measured = subject.findings.check("ima.nothing-measured", nothing, || {
        Finding::warning("", "the kernel measured no file since boot: its IMA policy is absent or measures nothing")
            .expected("at least one measured file")
            .fix("load the IMA policy of configs/ima and reboot; hostd doctor tells whether it is loaded")
    });
    coverage::report(rules.policy, logs, &seen.policy, &mut subject.findings);
    let named = references || rules.names_signers();
    let tier = if named && measured && seen.known > 0 { Tier::Affirming } else { Tier::None };
    subject.claim("executables", tier.after(subject.findings.worst()), Basis::PcrAnchored);
    Ok((subject, seen))
}

/// Entries while they are judged, one after the other.
struct Judging<'a> {
    windows: &'a [&'a Window],
    unknown: Severity,
    engines: EnginePaths<'a>,
    signers: Signers<'a>,
    seen: RuntimeSeen,
}

impl Judging<'_> {
    /// `named`: whether a reference names the digest.
    fn judge(&mut self, measured: &Measured<'_>, named: bool) {
        let Measured { entry, file, digest } = measured;
        if crate::check::violated("ima.violation", entry.is_violation()) {
            // A violation hashes nothing: its path is shown and excuses nothing.
            self.seen.violations = self.seen.violations.saturating_add(1);
            let path = String::from_utf8_lossy(entry.unauthenticated_path().unwrap_or_default()).into_owned();
            self.list(
                Finding::warning(
                    "ima.violation",
                    "a file was open for writing while it was measured, so its content is unknown",
                )
                .found(path)
                .fix("reboot the host if this should not happen; the path is not authenticated"),
            );
            return;
        }
        let Some(file) = file else {
            self.seen.unknown = self.seen.unknown.saturating_add(1);
            self.list(
                Finding::new("ima.unreadable-entry", self.unknown, "an entry does not say which file it measured")
                    .found(entry.template()),
            );
            return;
        };
        let digest = *digest;
        let key = self.signers.keyring(file, &mut self.seen.keys);
        if let (Some(MeasuredKey::Stranger), false) = (&key, named) {
            self.seen.unknown = self.seen.unknown.saturating_add(1);
            self.list(signed::unknown_key(self.unknown, file));
            return;
        }
        let known = named || key.is_some() || self.signers.signed(file, &self.seen.keys);
        if file.path == POLICY_PATH {
            let named = digest.is_some_and(|digest| self.windows.iter().any(|window| window.is_ima_policy(&digest)));
            if kinds::POLICY_REPLACED.violated(!named) {
                self.seen.kinds.add(kinds::POLICY_REPLACED.id, file.path);
            } else {
                self.seen.policy.measured = true;
            }
        } else if known && !self.seen.policy.measured {
            self.seen.policy.before(file.path, digest, self.windows);
        }
        if kinds::KEXEC.violated(file.buffer.is_some() && kinds::is_kexec_command_line(file.path)) {
            self.seen.kinds.add(kinds::KEXEC.id, file.path);
        }
        let known = !crate::check::violated("ima.unknown-file", !known);
        if let (true, Some(digest)) = (self.engines.has(file.path), digest)
            && self.engines.note(file.path, digest, known, &mut self.seen.programs)
        {
            return;
        }
        if known {
            self.seen.known = self.seen.known.saturating_add(1);
            return;
        }
        self.seen.unknown = self.seen.unknown.saturating_add(1);
        for kind in kinds::of_unknown(file.path) {
            self.seen.kinds.add(kind.id, file.path);
        }
        let mut digest = digest.map_or_else(|| "no usable digest".to_owned(), |digest| format!("{digest:?}"));
        if let Some(id) = signed::signer_of(file) {
            digest.push_str(&format!(", with a signature by key id {id} that no key of the policy bears out"));
        }
        let finding = unknown_file(self.windows, self.unknown, file.path, &digest);
        self.list(finding);
    }

    fn list(&mut self, finding: Finding) {
        if self.seen.findings.len() < LISTED_MAX {
            self.seen.findings.push(finding);
        }
    }
}

/// The one finding about a file that no reference names. It says what a path tells, and that this excuses nothing.
fn unknown_file(windows: &[&Window], weight: Severity, path: &[u8], digest: &str) -> Finding {
    let expected = if windows.iter().any(|window| window.names_path(path)) {
        "a digest of the references; they name another file of this path, and a path is relative to a mount namespace"
    } else if !is_plain(path) {
        "a digest of the references; the path is not a plain absolute one and may name any file"
    } else {
        "a digest of the references"
    };
    Finding::new("ima.unknown-file", weight, "a file was executed, mapped or loaded that no reference names")
        .expected(expected)
        .found(format!("{} {digest}", String::from_utf8_lossy(path)))
        .fix("publish references that name it if it belongs there: hostmark refs capture; else find out who ran it")
}

/// Absolute, without `.` and `..`, without control characters, not deleted, and not over-long.
fn is_plain(path: &[u8]) -> bool {
    path.len() < crate::ima::parse::PATH_MAX
        && path.strip_prefix(b"/").is_some_and(|rest| rest.split(|byte| *byte == b'/').all(is_plain_name))
        && !path.ends_with(b" (deleted)")
}

fn is_plain_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && !name.iter().any(u8::is_ascii_control)
}
