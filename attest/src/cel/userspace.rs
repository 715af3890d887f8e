//! systemd's log of what it extends (`/run/log/systemd/tpm2-measure.log`), as the one log of the running system per PCR.
//!
//! Establishes that a PCR holds its boot-log part, then exactly this log's records, and which of their texts hash to what was
//! extended. Does not establish who extended: any root process can, with a record beside it. A volume key's record tells what the
//! key belongs to; its digest is keyed, so that the text is the log's word.

use std::collections::BTreeSet;

use super::{CelAuthenticity, CelLog, Content, Encoding, Index};
use crate::bytes::ParseError;
use crate::digest::{HashAlg, PcrValues};
use crate::finding::{Finding, Findings};

/// A log of systemd, framed.
#[derive(Debug, Clone)]
pub struct UserspaceLog {
    log: CelLog,
}

/// The log together with the PCRs that it explains. Only [`UserspaceLog::explain_quoted`] makes one.
#[derive(Debug, Clone)]
pub struct ReplayedUserspaceLog<'a> {
    log: &'a CelLog,
    bank: HashAlg,
    explained: BTreeSet<u8>,
}

/// What systemd measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserspaceEvent<'a> {
    /// The PCR.
    pub pcr: u8,
    /// `phase`, `filesystem`… Not hashed.
    pub logged_type: &'a str,
    /// The measured text.
    pub text: &'a str,
}

impl UserspaceLog {
    /// Reads the log. An empty one is a log.
    ///
    /// # Errors
    /// At the byte where it is malformed, over a limit, or not systemd's.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let log = CelLog::parse(bytes)?;
        let foreign = log.records().iter().find(|record| !matches!(record.content, Content::Systemd { .. }));
        match foreign.map(|record| record.at).or((log.encoding() != Encoding::Json).then_some(0)) {
            Some(at) => Err(super::malformed(at, "a record is not systemd's")),
            None => Ok(Self { log }),
        }
    }

    /// The PCRs that it extends.
    #[must_use]
    pub fn pcrs(&self) -> BTreeSet<u8> {
        self.log.records().iter().filter_map(super::Record::extends).collect()
    }

    /// Replays on top of what the boot log gives (`boot`), against quoted values. `others`: PCRs that another log of the running
    /// system explains; one with records here too has two logs, whose order nothing tells, and is refused.
    #[must_use]
    pub fn explain_quoted(
        &self,
        bank: HashAlg,
        boot: &PcrValues,
        quoted: &PcrValues,
        others: &[u8],
    ) -> (ReplayedUserspaceLog<'_>, Findings) {
        let mut findings = self.log.findings().clone();
        let replayed = self.log.replay(bank, boot);
        let mut explained = BTreeSet::new();
        for pcr in self.pcrs() {
            let single = findings.check("userspace-log.second-log", others.contains(&pcr), || {
                Finding::error("", format!("PCR {pcr} is extended by systemd and by another log of the running system"))
                    .expected("one log of the running system for each PCR")
                    .fix("let the host log extend another PCR (host_log_pcr), and name it in the appraisal policy")
            });
            let Some(found) = quoted.get(&pcr) else { continue };
            let passed = findings.check("userspace-log.replay", replayed.get(&pcr) != Some(found), || {
                let expected =
                    replayed.get(&pcr).map_or_else(|| format!("a {bank} digest in each record"), ToString::to_string);
                Finding::error("", format!("the boot log and systemd's log do not replay to PCR {pcr}"))
                    .expected(expected)
                    .found(found)
                    .fix("something extended this PCR without a record, or the log was changed: reboot the host")
            });
            if single && passed {
                explained.insert(pcr);
            }
        }
        (ReplayedUserspaceLog { log: &self.log, bank, explained }, findings)
    }
}

impl<'a> ReplayedUserspaceLog<'a> {
    /// The PCRs that it explains.
    #[must_use]
    pub const fn explained(&self) -> &BTreeSet<u8> {
        &self.explained
    }

    /// What was measured into explained PCRs, as far as it hashes to what was extended.
    pub fn events(&self) -> impl Iterator<Item = UserspaceEvent<'a>> {
        let whole = |record: &&super::Record| record.authenticity(self.bank) == CelAuthenticity::Whole;
        self.log.records().iter().filter(whole).filter_map(|record| {
            let (Index::Pcr(pcr), Content::Systemd { event_type, text }) = (record.index, &record.content) else {
                return None;
            };
            let pcr = u8::try_from(pcr).ok().filter(|pcr| self.explained.contains(pcr))?;
            Some(UserspaceEvent { pcr, logged_type: event_type, text })
        })
    }
}
