//! systemd's log of what it extends (`/run/log/systemd/tpm2-measure.log`), as the one log of the running system per PCR.
//!
//! Establishes that a PCR holds its boot-log part, then exactly this log's records, and which of their texts hash to what was
//! extended. Does not establish who extended: any root process can, with a record beside it. A volume key's record tells what the
//! key belongs to; its digest is keyed, so that the text is the log's word. Records of the firmware's PCRs are refused: nothing tells
//! where the boot log ends, and whoever may move its last events over here hides them from every claim.

use std::collections::BTreeSet;

use super::{CelAuthenticity, CelLog, Content, Encoding, Index, Record};
use crate::bytes::ParseError;
use crate::digest::{Digest, HashAlg, PcrValues};
use crate::finding::{Finding, Findings, one_line};
use crate::predict::Phase;

/// Longest log, in bytes: a boot makes some dozen records of 300 bytes, a round carries those of three thousand.
pub const LOG_MAX: usize = 1 << 20;
/// systemd's PCR of the kernel image, which it extends by a word in each boot phase (systemd-pcrphase.service(8)).
pub const PHASE_PCR: u8 = 11;
/// systemd's PCR of the machine's identity: machine id, file systems, volume keys (systemd-pcrmachine.service(8)).
pub const IDENTITY_PCR: u8 = 15;
/// The PCRs that systemd extends from the running system, and nobody else may.
pub const PCRS: [u8; 2] = [PHASE_PCR, IDENTITY_PCR];

/// Event types whose digest is keyed: the text tells what a secret belongs to.
const KEYED: [&str; 1] = ["volume-key"];
/// Longest list of words that is shown.
const SHOWN: usize = 256;
/// What stands before the machine id in its record.
const MACHINE_ID: &str = "machine-id:";

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
    compared: BTreeSet<u8>,
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
        if bytes.len() > LOG_MAX {
            return Err(super::over(LOG_MAX, "size of systemd's log", bytes.len(), LOG_MAX));
        }
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
        self.log.records().iter().filter_map(Record::extends).collect()
    }

    /// The value of each PCR that has records, on top of what the boot log gives. Unproven.
    #[must_use]
    pub fn replay(&self, bank: HashAlg, boot: &PcrValues) -> PcrValues {
        self.log.replay(bank, boot)
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
        let values = self.replay(bank, boot);
        let (mut compared, mut explained, mut unquoted) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        for pcr in self.pcrs() {
            let single = findings.check("userspace-log.second-log", others.contains(&pcr), || {
                Finding::error("", format!("PCR {pcr} is extended by systemd and by another log of the running system"))
                    .expected("one log of the running system for each PCR")
                    .fix("let the host log extend another PCR (host_log_pcr), and name it in the appraisal policy")
            });
            let systemds = single
                && findings.check("userspace-log.pcr", !PCRS.contains(&pcr), || {
                    Finding::error("", format!("systemd's log has records of PCR {pcr}, which is not systemd's"))
                        .expected("records of PCR 11 and 15")
                        .found(format!("PCR {pcr}"))
                        .fix("mask what extends it (systemd-pcrosseparator.service) and reboot; else somebody moves events of the boot log")
                });
            if !systemds {
                continue;
            }
            let Some(found) = quoted.get(&pcr) else {
                unquoted.push(pcr.to_string());
                continue;
            };
            compared.insert(pcr);
            if compare(bank, pcr, values.get(&pcr), found, &mut findings) {
                explained.insert(pcr);
            }
        }
        if !unquoted.is_empty() {
            findings.push(
                Finding::info(
                    "userspace-log.unquoted",
                    "systemd's log has records of PCRs that nobody quoted: they say nothing",
                )
                .found(format!("PCR {}", unquoted.join(", ")))
                .fix("select these PCRs in the appraisal policy"),
            );
        }
        let replayed = ReplayedUserspaceLog { log: &self.log, bank, compared, explained };
        findings.append(replayed.noticed());
        (replayed, findings)
    }

    /// Holds the log against another quoted bank, as far as its records carry that: a boot log without the bank explains nothing here.
    #[must_use]
    pub fn compare_bank(&self, bank: HashAlg, boot: &PcrValues, quoted: &PcrValues) -> Findings {
        let mut findings = Findings::new();
        for (pcr, value) in self.replay(bank, boot) {
            if let Some(found) = quoted.get(&pcr).filter(|_| PCRS.contains(&pcr)) {
                compare(bank, pcr, Some(&value), found, &mut findings);
            }
        }
        findings
    }
}

/// Whether the replay is the quoted value. A PCR with a record that lacks the bank has no replay.
fn compare(bank: HashAlg, pcr: u8, replayed: Option<&Digest>, found: &Digest, findings: &mut Findings) -> bool {
    findings.check("userspace-log.replay", replayed != Some(found), || {
        let expected = replayed.map_or_else(|| format!("a {bank} digest in each record"), ToString::to_string);
        Finding::error("", format!("the boot log and systemd's log do not replay to PCR {pcr} of the {bank} bank"))
            .expected(expected)
            .found(found)
            .fix("something extended this PCR without a record, or the log was changed: reboot the host")
    })
}

impl<'a> ReplayedUserspaceLog<'a> {
    /// The PCRs that were held against quoted values, whatever came out.
    #[must_use]
    pub const fn compared(&self) -> &BTreeSet<u8> {
        &self.compared
    }

    /// The PCRs that it explains.
    #[must_use]
    pub const fn explained(&self) -> &BTreeSet<u8> {
        &self.explained
    }

    /// Records of explained PCRs, and whether each text hashes to what was extended.
    fn records(&self) -> impl Iterator<Item = (UserspaceEvent<'a>, bool)> {
        self.log.records().iter().filter_map(|record| {
            let (Index::Pcr(pcr), Content::Systemd { event_type, text }) = (record.index, &record.content) else {
                return None;
            };
            let pcr = u8::try_from(pcr).ok().filter(|pcr| self.explained.contains(pcr))?;
            let whole = record.authenticity(self.bank) == CelAuthenticity::Whole;
            Some((UserspaceEvent { pcr, logged_type: event_type, text }, whole))
        })
    }

    /// What was measured into explained PCRs, as far as it hashes to what was extended.
    pub fn events(&self) -> impl Iterator<Item = UserspaceEvent<'a>> {
        self.records().filter(|(_, whole)| *whole).map(|(event, _)| event)
    }

    /// The boot phases that PCR 11 was extended by, if the log has nothing else of it, and has them in systemd's order.
    #[must_use]
    pub fn phases(&self) -> Option<Vec<&'static str>> {
        let words: Vec<(&str, bool)> =
            self.records().filter(|(one, _)| one.pcr == PHASE_PCR).map(|(one, whole)| (one.text, whole)).collect();
        if words.is_empty() {
            return None;
        }
        [true, false].into_iter().find_map(|systemd_initrd| {
            let known: Vec<&str> = Phase::Final.words(systemd_initrd).take(words.len()).collect();
            words.iter().copied().eq(known.iter().map(|word| (*word, true))).then_some(known)
        })
    }

    /// The machine id, if PCR 15 holds exactly one.
    #[must_use]
    pub fn machine_id(&self) -> Option<&'a str> {
        let mut ids =
            self.events().filter(|one| one.pcr == IDENTITY_PCR).filter_map(|one| one.text.strip_prefix(MACHINE_ID));
        ids.next().filter(|_| ids.next().is_none())
    }

    fn noticed(&self) -> Findings {
        let mut findings = Findings::new();
        let unhashed: Vec<_> = self
            .records()
            .filter(|(one, whole)| !whole && !KEYED.contains(&one.logged_type))
            .map(|(one, _)| one)
            .collect();
        findings.check("userspace-log.event-data-unauthenticated", !unhashed.is_empty(), || {
            let first = unhashed.first().map(|one| format!("PCR {}, {}", one.pcr, one_line(one.logged_type)));
            Finding::info("", "texts of systemd's log do not hash to the logged digests; they are used for no claim")
                .expected("texts that hash to their digests")
                .found(format!("{} records, the first: {}", unhashed.len(), first.unwrap_or_default()))
        });
        let others = self.explained.contains(&PHASE_PCR) && self.phases().is_none();
        findings.check("userspace-log.phases", others, || {
            let words = self.records().filter(|(one, _)| one.pcr == PHASE_PCR);
            let words: Vec<String> = words
                .map(|(one, whole)| if whole { one_line(one.text) } else { "(unauthenticated)".to_owned() })
                .collect();
            let words: String = words.join(", ").chars().take(SHOWN).collect();
            Finding::warning(
                "",
                "PCR 11 was extended by more than the boot phases in their order, so that its whole value is judged",
            )
            .expected(Phase::Final.words(true).collect::<Vec<_>>().join(", "))
            .found(words)
            .fix("reboot the host; whatever measures more (systemd-pcrextend) has to use another PCR")
        });
        findings
    }
}
