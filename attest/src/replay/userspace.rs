//! systemd's log as part of a round: the one log of the running system on PCR 11 and 15.
//!
//! DESIGN §4 "Replay rule". Establishes which of the two PCRs hold their boot-log part, then exactly this log's records, in every quoted
//! bank that the records carry; and what of it may be claimed. Whether the boot log's part is acceptable is its own replay's question.

use std::collections::BTreeMap;

use super::{BANK, malformed};
use crate::boot_log::BootLog;
use crate::bytes::ParseError;
use crate::cel::userspace::{PHASE_PCR, ReplayedUserspaceLog, UserspaceLog};
use crate::digest::{HashAlg, PcrBanks, PcrValues};
use crate::finding::{Findings, one_line};

/// Most texts that are told of a boot: phases, the machine id, a few dozen file systems.
const TOLD_MAX: usize = 64;
/// Most characters of each: a file system's record has some 150.
const TEXT_MAX: usize = 256;

/// What systemd's log came to.
pub(super) struct Userspace<'a> {
    /// None where the log is malformed.
    pub(super) replayed: Option<ReplayedUserspaceLog<'a>>,
    pub(super) findings: Findings,
}

/// Holds the log, where the host sent one, against the quoted PCRs: of the judged bank, and of the other `banks`. `others` are the PCRs of other logs of the running system.
pub(super) fn replay<'a>(
    log: Option<&'a Result<UserspaceLog, ParseError>>,
    boot: &BootLog,
    quoted: &PcrValues,
    banks: &PcrBanks,
    others: &[u8],
) -> Option<Userspace<'a>> {
    let log = match log? {
        Ok(log) => log,
        Err(error) => {
            let findings = malformed("userspace-log.malformed", "log of systemd", error).into();
            return Some(Userspace { replayed: None, findings });
        }
    };
    let (replayed, mut findings) = log.explain_quoted(BANK, &boot.replay_bank(BANK), quoted, others);
    let carried = |bank: &HashAlg| *bank != BANK && boot.banks().any(|known| known == *bank);
    for (bank, values) in banks.iter().filter(|(bank, _)| carried(bank)) {
        findings.append(log.compare_bank(*bank, &boot.replay_bank(*bank), values));
    }
    Some(Userspace { replayed: Some(replayed), findings })
}

impl Userspace<'_> {
    /// The PCRs whose value is this log's to explain; the boot log alone is not held against them.
    pub(super) fn compared(&self) -> impl Iterator<Item = u8> {
        self.replayed.iter().flat_map(|one| one.compared().iter().copied())
    }

    /// The PCRs whose boot-log part counts as proven. Of PCR 11 only where nothing but phases follows it.
    pub(super) fn explained(&self) -> impl Iterator<Item = u8> {
        let phases = self.phases().is_some();
        let pcrs = self.replayed.iter().flat_map(|one| one.explained().iter().copied());
        pcrs.filter(move |pcr| *pcr != PHASE_PCR || phases)
    }

    /// The phases in PCR 11, if the log has them.
    pub(super) fn phases(&self) -> Option<Vec<&'static str>> {
        self.replayed.as_ref()?.phases()
    }

    /// The machine id in PCR 15.
    pub(super) fn machine_id(&self) -> Option<String> {
        self.replayed.as_ref()?.machine_id().map(one_line)
    }

    /// The texts of explained PCRs, for people.
    pub(super) fn told(&self) -> BTreeMap<u8, Vec<String>> {
        let mut told = BTreeMap::<u8, Vec<String>>::new();
        for event in self.replayed.iter().flat_map(ReplayedUserspaceLog::events).take(TOLD_MAX) {
            let text: String = event.text.chars().take(TEXT_MAX).collect();
            told.entry(event.pcr).or_default().push(one_line(&text));
        }
        told
    }
}
