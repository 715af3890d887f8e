//! The boot subsystem: firmware to kernel, by reference values of PCRs that replay.
//!
//! A bank that is quoted beside [`BANK`] is judged by value where references name it: that it replays says nothing of programs, whose
//! digests no log can show to be those of one program. One quoted bank cannot show that the firmware never extended it (CVE-2021-42299).

use std::collections::BTreeSet;

use super::Subject;
use crate::cel::userspace::{IDENTITY_PCR, PHASE_PCR};
use crate::digest::{Digest, HashAlg};
use crate::finding::Finding;
use crate::policy::capture::IN_EVERY_BANK;
use crate::policy::{AppraisalPolicy, Window};
use crate::replay::{BANK, ReplayedLogs};
use crate::tier::{Basis, Tier};

/// Which PCRs carry which AR4SI claim. PCR 1, 5 and 6 differ between equal machines and are replayed, never judged by value.
const CLAIMS: [(&str, &[u8]); 3] =
    [("hardware", &[0, 2, 3]), ("executables", &[4, 9, 11]), ("configuration", &[7, 8, 12, 14, IDENTITY_PCR])];

/// Those without which a claim says nothing. PCR 8 and 14 are GRUB's and shim's: used by some boots only.
const REQUIRED: [u8; 8] = [0, 2, 3, 4, 7, 9, 11, 12];

/// `names`: whether references name a bank's PCR, in windows that are open or have been.
pub(super) fn appraise(
    logs: &ReplayedLogs<'_>,
    policy: &AppraisalPolicy,
    windows: &[&Window],
    names: impl Fn(HashAlg, u8) -> bool,
) -> Subject {
    let mut subject = Subject { findings: logs.boot_findings().clone(), ..Subject::default() };
    if logs.boot().is_none() {
        for (claim, _) in CLAIMS {
            subject.claim(claim, Tier::Contraindicated, Basis::PcrAnchored);
        }
        return subject;
    }
    let beside = || policy.selection().banks().iter().map(|one| one.bank).filter(|bank| *bank != BANK);
    let judged = |bank: HashAlg, pcr: u8| policy.selection().contains(bank, pcr) && names(bank, pcr);
    for bank in beside() {
        let mut quoted = IN_EVERY_BANK.into_iter().filter(|pcr| policy.selection().contains(bank, *pcr)).peekable();
        let unjudged = quoted.peek().is_none() || !quoted.all(|pcr| names(bank, pcr));
        subject.findings.check("boot.bank-unjudged", unjudged, || only_replayed(bank));
    }
    for (claim, pcrs) in CLAIMS {
        // A claim rests on all of its PCRs, and on those that references ask for: one that nobody quoted leaves it at none.
        let mut unquoted = REQUIRED.iter().any(|pcr| pcrs.contains(pcr) && !policy.selection().contains(BANK, *pcr));
        for pcr in pcrs.iter().filter(|pcr| names(BANK, **pcr)) {
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
        let named = |pcr: u8| pcr != IDENTITY_PCR || names(BANK, pcr);
        let selected = pcrs.iter().copied().filter(|pcr| policy.selection().contains(BANK, *pcr) && named(*pcr));
        let firmware = pcrs.iter().copied().filter(|pcr| IN_EVERY_BANK.contains(pcr));
        let others = beside().flat_map(|bank| firmware.clone().map(move |pcr| (bank, pcr)));
        let others = others.filter(|(bank, pcr)| judged(*bank, *pcr));
        let all = selected.map(|pcr| (BANK, pcr)).chain(others);
        let tier = all.map(|(bank, pcr)| judge(bank, pcr, logs, windows, &mut subject)).max().unwrap_or(Tier::None);
        // A reservation about the log touches whatever is read from it.
        let tier = tier.after(subject.findings.worst());
        let tier = if unquoted { tier.max(Tier::None) } else { tier };
        subject.claim(claim, tier, Basis::PcrAnchored);
    }
    subject
}

fn only_replayed(bank: HashAlg) -> Finding {
    Finding::warning("", format!("the {bank} bank is quoted and only replayed: what it holds of programs is judged by nobody"))
        .expected(format!("reference values of {bank} for the quoted of PCR {IN_EVERY_BANK:?}"))
        .found("PCRs that no reference names in this bank")
        .fix(format!("name the bank's values in the references ([window.pcrs.{bank}]), or take it out of `pcrs` of the appraisal policy"))
}

fn judge(bank: HashAlg, pcr: u8, logs: &ReplayedLogs<'_>, windows: &[&Window], subject: &mut Subject) -> Tier {
    let which = || if bank == BANK { format!("PCR {pcr}") } else { format!("PCR {pcr} of the {bank} bank") };
    let value = logs.genuine().quote().pcrs().get(&bank).and_then(|values| values.get(&pcr));
    // Open windows are alternatives.
    let accepted = || windows.iter().filter_map(|window| window.pcr(bank, pcr));
    if accepted().next().is_none() {
        subject.findings.push(
            Finding::info(
                "boot.reference-missing",
                format!("no open reference window names {}: nothing is claimed", which()),
            )
            .fix("capture and publish references for this kind of host: hostmark refs capture"),
        );
        return Tier::None;
    }
    // systemd's phases change PCR 11 while the host runs; the replay has shown what it held before them.
    let before = logs.boot().and_then(|boot| boot.before_phases.as_ref()).filter(|_| (bank, pcr) == (BANK, PHASE_PCR));
    let is_accepted = |value: &Digest| accepted().any(|values| values.contains(value));
    let known = value.is_some_and(is_accepted) || before.is_some_and(is_accepted);
    let passed = subject.findings.check("boot.reference", !known, || {
        let expected: BTreeSet<&Digest> = accepted().flatten().collect();
        let expected: Vec<String> = expected.into_iter().map(Digest::to_string).collect();
        Finding::error("", format!("{} holds no reference value", which()))
            .expected(expected.join(" or "))
            .found(value.map_or_else(|| "not quoted".to_owned(), ToString::to_string))
            .fix("find out what changed with `hostmark inspect boot-log`; publish new references if the change was meant")
    });
    if passed { Tier::Affirming } else { Tier::Contraindicated }
}
