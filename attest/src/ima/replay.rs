//! The verified prefix of an IMA list: the entries that reproduce the quoted PCR 10.
//!
//! Linux `ima_queue.c` (`ima_add_template_entry`: append to the list, then extend). A list that is read after a quote may be longer than what was
//! quoted, so the first prefix that gives the quoted value in **every** quoted bank is verified, and what follows yields nothing. It does not
//! establish what the entries mean, nor that IMA's policy measured what matters.

use std::collections::BTreeMap;

use super::entry::{Entry, FileMeasurement, IMA_PCR};
use super::parse::ImaLog;
use crate::check::violated;
use crate::digest::{Digest, HashAlg, extend_sha256};
use crate::finding::{Finding, Findings};

/// How far a list was verified: where the next delta starts, and the running PCR 10 there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImaPosition {
    /// Entries of the whole list before this position, whatever their PCR.
    pub entries: u64,
    /// Running PCR 10 by bank. A bank that is missing at entry 0 starts at zero.
    pub pcr10: BTreeMap<HashAlg, Digest>,
}

/// Named deviations that a caller's policy may allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ImaQuirks {
    /// `ima-padded-sha1`: a kernel before 5.8 extends every bank with the SHA-1 template digest, padded with zeros.
    pub padded_sha1: bool,
}

/// Why no prefix was verified: one finding, `ima.replay`, `ima.bank` or `ima.position`. The caller asks for the list from entry 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{finding}")]
pub struct ImaMismatch {
    /// What was expected and found.
    pub finding: Box<Finding>,
}

/// The verified prefix. Only [`replay_prefix`] makes one.
#[derive(Debug)]
pub struct ImaPrefix<'l> {
    log: &'l ImaLog<'l>,
    verified: u64,
    end: ImaPosition,
    violations: u64,
    findings: Findings,
}

impl<'l> ImaPrefix<'l> {
    /// The verified entries of PCR 10, in order.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'l>> + use<'l> {
        let verified = usize::try_from(self.verified).unwrap_or(usize::MAX);
        self.log.entries().take(verified).filter(|entry| entry.pcr() == IMA_PCR)
    }

    /// Where the next delta starts.
    #[must_use]
    pub const fn end(&self) -> &ImaPosition {
        &self.end
    }

    /// Entries of this list that belong to the prefix, those of other PCRs included.
    #[must_use]
    pub const fn verified(&self) -> u64 {
        self.verified
    }

    /// Entries behind the prefix: logged after the quote. They yield no claim.
    #[must_use]
    pub const fn tail(&self) -> u64 {
        self.log.len().saturating_sub(self.verified)
    }

    /// Violations in the prefix.
    #[must_use]
    pub const fn violations(&self) -> u64 {
        self.violations
    }

    /// What was noticed in the prefix.
    #[must_use]
    pub const fn findings(&self) -> &Findings {
        &self.findings
    }
}

/// One entry, and what it measured.
#[derive(Debug, Clone, Copy)]
pub struct Measured<'l> {
    /// The entry.
    pub entry: Entry<'l>,
    /// What it says of a file, where it says that.
    pub file: Option<FileMeasurement<'l>>,
    /// That file's digest, where its algorithm is known.
    pub digest: Option<Digest>,
}

/// Entries of a batch: as many reads of memory as a processor has under way at once, and more.
const BATCH: usize = 32;

/// What these entries measured, some at a time. A large set of digests lies in no cache: who looks up a whole batch, and then judges its
/// entries, waits once and not for each.
pub fn batches<'l>(entries: impl Iterator<Item = Entry<'l>>) -> impl Iterator<Item = Vec<Measured<'l>>> {
    let mut measured = entries.map(|entry| {
        let file = entry.measurement();
        Measured { entry, file, digest: file.and_then(|file| file.file_digest()) }
    });
    std::iter::from_fn(move || {
        Some(measured.by_ref().take(BATCH).collect::<Vec<_>>()).filter(|batch| !batch.is_empty())
    })
}

/// Verifies the first prefix of `log` (the entries from `start` on) whose running PCR 10 equals `quoted` in every bank of `quoted`.
/// No new entry is a valid prefix when `start` already equals the quoted values.
///
/// # Errors
/// [`ImaMismatch`] when there is no such prefix, when nothing was quoted, when a quoted bank cannot be computed, or when `start` has no value for it.
pub fn replay_prefix<'l>(
    log: &'l ImaLog<'l>,
    start: &ImaPosition,
    quoted: &BTreeMap<HashAlg, Digest>,
    quirks: ImaQuirks,
) -> Result<ImaPrefix<'l>, ImaMismatch> {
    let native = Running::start(start, quoted, Rule::Native)?;
    let (found, running, notes) = walk(log, start, native, quoted);
    if found.is_none() && quirks.padded_sha1 && quoted.keys().any(|bank| *bank != HashAlg::Sha1) {
        let (padded, running, notes) = walk(log, start, Running::start(start, quoted, Rule::PaddedSha1)?, quoted);
        if let Some(verified) = padded {
            return Ok(describe(log, start, verified, &running, notes));
        }
    }
    if violated("ima.replay", found.is_none()) {
        let finding = Finding::error("ima.replay", "no prefix of the IMA list gives the quoted PCR 10")
            .expected(values(quoted.iter().map(|(bank, value)| (*bank, *value))))
            .found(values(running.banks.iter().map(|bank| (bank.alg(), *bank))))
            .fix("send the whole list from entry 0; if that does not match either, an entry was removed, reordered or changed: reboot the host and find out by what");
        return Err(ImaMismatch { finding: Box::new(finding) });
    }
    Ok(describe(log, start, found.unwrap_or(log.len()), &running, notes))
}

/// Running PCR 10 of the whole list from zero, for display: proves nothing without a quote.
#[must_use]
pub fn replay_all(log: &ImaLog<'_>, banks: &[HashAlg]) -> BTreeMap<HashAlg, Digest> {
    let mut running = Running { banks: banks.iter().map(|bank| Digest::zero(*bank)).collect(), rule: Rule::Native };
    for entry in log.entries().filter(|entry| entry.pcr() == IMA_PCR) {
        running.extend(&entry);
    }
    running.banks.iter().map(|bank| (bank.alg(), *bank)).collect()
}

fn values(banks: impl Iterator<Item = (HashAlg, Digest)>) -> String {
    banks.map(|(bank, value)| format!("{bank}:{value}")).collect::<Vec<_>>().join(" ")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Each bank is extended with the template data's hash in the bank's algorithm.
    Native,
    /// Each bank is extended with the SHA-1 of the template data, padded with zeros.
    PaddedSha1,
}

/// The running values of the quoted banks.
struct Running {
    banks: Vec<Digest>,
    rule: Rule,
}

impl Running {
    fn start(start: &ImaPosition, quoted: &BTreeMap<HashAlg, Digest>, rule: Rule) -> Result<Self, ImaMismatch> {
        if violated("ima.bank", quoted.is_empty() || quoted.keys().any(|bank| !bank.computable())) {
            let finding = Finding::error("ima.bank", "PCR 10 was quoted in no bank, or in one that cannot be replayed")
                .expected("PCR 10 in sha256")
                .found(values(quoted.iter().map(|(bank, value)| (*bank, *value))))
                .fix("select PCR 10 of the sha256 bank in the appraisal policy");
            return Err(ImaMismatch { finding: Box::new(finding) });
        }
        let mut banks = Vec::with_capacity(quoted.len());
        for bank in quoted.keys() {
            match start.pcr10.get(bank) {
                Some(value) => banks.push(*value),
                None if !violated("ima.position", start.entries != 0) => banks.push(Digest::zero(*bank)),
                None => {
                    let message = "the IMA position has no running PCR 10 for a quoted bank";
                    let finding = Finding::error("ima.position", message).expected(bank);
                    return Err(ImaMismatch { finding: Box::new(finding.fix("send the whole list from entry 0")) });
                }
            }
        }
        Ok(Self { banks, rule })
    }

    /// What the kernel extends for one entry. A bank that cannot be computed keeps its value, which then never matches.
    fn extend(&mut self, entry: &Entry<'_>) {
        let what = match self.rule {
            _ if entry.is_violation() => Extended::Ones,
            Rule::Native => Extended::Hash(entry.hashed_parts()),
            Rule::PaddedSha1 => match HashAlg::Sha1.hash(&entry.hashed_parts()) {
                Some(sha1) => Extended::Padded(sha1),
                None => return,
            },
        };
        for value in &mut self.banks {
            let next = match value.alg() {
                HashAlg::Sha1 => step::<sha1::Sha1>(value, &what),
                HashAlg::Sha256 => match (&what, value.as_sha256()) {
                    (Extended::Hash(parts), Some(before)) => {
                        Digest::new(HashAlg::Sha256, &extend_sha256(before, &crate::digest::sha256(parts)))
                    }
                    _ => step::<sha2::Sha256>(value, &what),
                },
                HashAlg::Sha384 => step::<sha2::Sha384>(value, &what),
                HashAlg::Sha512 => step::<sha2::Sha512>(value, &what),
                HashAlg::Sm3 => None,
            };
            if let Some(next) = next {
                *value = next;
            }
        }
    }

    /// True when every bank has its target; both are in the order of the quoted map.
    fn equals(&self, targets: &[Digest]) -> bool {
        self.banks.as_slice() == targets
    }
}

/// What one entry extends into a bank.
enum Extended<'a> {
    /// The hash of the template data.
    Hash([&'a [u8]; 3]),
    /// A SHA-1 digest with zeros behind it, as long as the bank's.
    Padded(Digest),
    /// 0xff…ff, for a violation.
    Ones,
}

/// H(value ‖ what is extended), without a copy between the two hashes: this is the whole cost of a replay.
fn step<H: sha2::Digest>(value: &Digest, what: &Extended<'_>) -> Option<Digest> {
    let mut outer = H::new_with_prefix(value.as_bytes());
    match what {
        Extended::Hash([data, rest @ ..]) => {
            let mut inner = H::new_with_prefix(data);
            for part in rest.iter().filter(|part| !part.is_empty()) {
                inner.update(part);
            }
            outer.update(inner.finalize());
        }
        Extended::Padded(sha1) => {
            let padding = value.alg().size().checked_sub(sha1.as_bytes().len())?;
            outer.update(sha1.as_bytes());
            outer.update([0u8; 64].get(..padding)?);
        }
        Extended::Ones => outer.update(Digest::ones(value.alg()).as_bytes()),
    }
    Digest::new(value.alg(), &outer.finalize())
}

/// How many entries give the quoted values, the running values there (or at the list's end), and what was noticed on the way.
fn walk(
    log: &ImaLog<'_>,
    start: &ImaPosition,
    mut running: Running,
    quoted: &BTreeMap<HashAlg, Digest>,
) -> (Option<u64>, Running, Notes) {
    let mut notes = Notes::default();
    let targets: Vec<Digest> = quoted.values().copied().collect();
    if running.equals(&targets) {
        return (Some(0), running, notes);
    }
    let mut walked = 0u64;
    for entry in log.entries() {
        notes.look(start.entries.saturating_add(walked), &entry, log.listed_bank());
        walked = walked.saturating_add(1);
        if entry.pcr() == IMA_PCR {
            running.extend(&entry);
            if running.equals(&targets) {
                return (Some(walked), running, notes);
            }
        }
    }
    (None, running, notes)
}

/// The first finding of one kind and how many more there are: a hostile list must not make a long report.
#[derive(Default)]
struct Tally {
    first: Option<Finding>,
    count: u64,
}

impl Tally {
    fn check(&mut self, id: &'static str, bad: bool, describe: impl FnOnce() -> Finding) {
        if violated(id, bad) {
            self.count = self.count.saturating_add(1);
            self.first.get_or_insert_with(|| Finding { id: id.to_owned(), ..describe() });
        }
    }

    fn report(self, findings: &mut Findings) {
        if let Some(mut first) = self.first {
            if self.count > 1 {
                first.message = format!("{} (and {} more)", first.message, self.count.saturating_sub(1));
            }
            findings.push(first);
        }
    }
}

/// What is noticed in the entries of a list.
#[derive(Default)]
pub(super) struct Notes {
    digests: Tally,
    names: Tally,
    other_pcrs: Tally,
    pub(super) violations: u64,
}

impl Notes {
    /// Looks at entry `index` (counted from the start of the whole list).
    pub(super) fn look(&mut self, index: u64, entry: &Entry<'_>, listed_bank: HashAlg) {
        if entry.pcr() != IMA_PCR {
            self.other_pcrs.check("ima.other-pcr", true, || {
                Finding::info("", format!("entry {index} was extended into another PCR and is not verified"))
                    .expected(format!("PCR {IMA_PCR}"))
                    .found(format!("PCR {}", entry.pcr()))
            });
            return;
        }
        if entry.is_violation() {
            self.violations = self.violations.saturating_add(1);
            return;
        }
        let recomputed = entry.template_digest(listed_bank);
        let equal = recomputed.is_some_and(|digest| digest.as_bytes() == entry.listed_digest());
        self.digests.check("ima.template-digest", !equal, || {
            Finding::error("", format!("the template digest of entry {index} is not that of its data"))
                .expected(recomputed.map_or_else(String::new, |digest| digest.to_string()))
                .found(hex::encode(entry.listed_digest()))
                .fix("the list was edited: reboot the host and find out by what")
        });
        self.names.check("ima.unauthenticated-template-name", !entry.name_fits(), || {
            Finding::warning(
                "",
                format!(
                    "the template name of entry {index} does not fit its data; names are not hashed, the data decides"
                ),
            )
            .expected(format!("a name for data of the form {:?}", entry.shape()))
            .found(entry.template())
            .fix("if the kernel uses an own template, name it by its format string; else the list was edited")
        });
    }

    pub(super) fn report(self, log: &ImaLog<'_>) -> Findings {
        let mut findings = Findings::new();
        if log.stray_bytes() > 0 {
            let message = "bytes follow the last entry of the IMA list; they are not used";
            findings.push(Finding::info("ima.stray-bytes", message).found(log.stray_bytes()));
        }
        self.digests.report(&mut findings);
        self.names.report(&mut findings);
        self.other_pcrs.report(&mut findings);
        findings
    }
}

fn describe<'l>(
    log: &'l ImaLog<'l>,
    start: &ImaPosition,
    verified: u64,
    running: &Running,
    notes: Notes,
) -> ImaPrefix<'l> {
    let violations = notes.violations;
    let mut findings = notes.report(log);
    if violations > 0 {
        let message =
            "the list has violations: files that were open for writing while measured; their entries prove nothing";
        findings.push(Finding::warning("ima.violation", message).found(violations));
    }
    findings.check("ima.padded-sha1", running.rule == Rule::PaddedSha1, || {
        let message = "PCR 10 is extended with SHA-1 template digests padded with zeros (quirk ima-padded-sha1)";
        Finding::warning("", message).fix("boot a kernel of 5.8 or later")
    });
    let mut pcr10 = start.pcr10.clone();
    // A bank that is not quoted now has no running value behind the new entries.
    if verified > 0 {
        pcr10.clear();
    }
    pcr10.extend(running.banks.iter().map(|bank| (bank.alg(), *bank)));
    let end = ImaPosition { entries: start.entries.saturating_add(verified), pcr10 };
    ImaPrefix { log, verified, end, violations, findings }
}
