//! The boot subsystem: firmware to kernel, by reference values of PCRs that replay.

use super::{Subject, accepted};
use crate::cel::userspace::{IDENTITY_PCR, PHASE_PCR};
use crate::finding::Finding;
use crate::policy::{AppraisalPolicy, Window};
use crate::replay::{BANK, ReplayedLogs};
use crate::tier::{Basis, Tier};

/// Which PCRs carry which AR4SI claim. PCR 1, 5 and 6 differ between equal machines and are replayed, never judged by value.
const CLAIMS: [(&str, &[u8]); 3] =
    [("hardware", &[0, 2, 3]), ("executables", &[4, 9, 11]), ("configuration", &[7, 8, 12, 14, IDENTITY_PCR])];

/// Those without which a claim says nothing. PCR 8 and 14 are GRUB's and shim's: used by some boots only.
const REQUIRED: [u8; 8] = [0, 2, 3, 4, 7, 9, 11, 12];

/// `names`: whether references name a PCR, in open windows or others.
pub(super) fn appraise(
    logs: &ReplayedLogs<'_>,
    policy: &AppraisalPolicy,
    windows: &[&Window],
    names: impl Fn(u8) -> bool,
) -> Subject {
    let mut subject = Subject { findings: logs.boot_findings().clone(), ..Subject::default() };
    if logs.boot().is_none() {
        for (claim, _) in CLAIMS {
            subject.claim(claim, Tier::Contraindicated, Basis::PcrAnchored);
        }
        return subject;
    }
    for (claim, pcrs) in CLAIMS {
        // A claim rests on all of its PCRs, and on those that references ask for: one that nobody quoted leaves it at none.
        let mut unquoted = REQUIRED.iter().any(|pcr| pcrs.contains(pcr) && !policy.selection().contains(BANK, *pcr));
        for pcr in pcrs.iter().filter(|pcr| names(**pcr)) {
            let passed =
                subject.findings.check("boot.reference-unquoted", !policy.selection().contains(BANK, *pcr), || {
                    Finding::info(
                        "",
                        format!("references name PCR {pcr}, and the policy has it not quoted: nothing is claimed"),
                    )
                    .fix("add the PCR to `pcrs` of the appraisal policy, or take it out of the references")
                });
            unquoted |= !passed;
        }
        // Every machine has an identity of its own: it is judged by value only where references name one.
        let named = |pcr: u8| pcr != IDENTITY_PCR || names(pcr);
        let selected = pcrs.iter().copied().filter(|pcr| policy.selection().contains(BANK, *pcr) && named(*pcr));
        let tier = selected.map(|pcr| judge(pcr, logs, windows, &mut subject)).max().unwrap_or(Tier::None);
        // A reservation about the log touches whatever is read from it.
        let tier = tier.after(subject.findings.worst());
        let tier = if unquoted { tier.max(Tier::None) } else { tier };
        subject.claim(claim, tier, Basis::PcrAnchored);
    }
    subject
}

fn judge(pcr: u8, logs: &ReplayedLogs<'_>, windows: &[&Window], subject: &mut Subject) -> Tier {
    let value = logs.genuine().quote().pcrs().get(&BANK).and_then(|values| values.get(&pcr));
    let Some(accepted) = accepted(windows.iter().map(|window| window.pcr(BANK, pcr))) else {
        subject.findings.push(
            Finding::info(
                "boot.reference-missing",
                format!("no open reference window names PCR {pcr}: nothing is claimed"),
            )
            .fix("capture and publish references for this kind of host: hostmark refs capture"),
        );
        return Tier::None;
    };
    // systemd's phases change PCR 11 while the host runs; the replay has shown what it held before them.
    let before = logs.boot().and_then(|boot| boot.before_phases.as_ref()).filter(|_| pcr == PHASE_PCR);
    let known =
        value.is_some_and(|value| accepted.contains(value)) || before.is_some_and(|value| accepted.contains(value));
    let passed = subject.findings.check("boot.reference", !known, || {
        let expected: Vec<String> = accepted.iter().map(ToString::to_string).collect();
        Finding::error("", format!("PCR {pcr} holds no reference value"))
            .expected(expected.join(" or "))
            .found(value.map_or_else(|| "not quoted".to_owned(), ToString::to_string))
            .fix("find out what changed with `hostmark inspect boot-log`; publish new references if the change was meant")
    });
    if passed { Tier::Affirming } else { Tier::Contraindicated }
}
