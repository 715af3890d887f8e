//! Replayed logs: the boot log, systemd's log, the IMA list and the host log, held against the quoted PCRs.
//!
//! DESIGN §4 "Replay rule": per PCR the boot log, then at most one log of the running system; PCR 13 is its boot part, then
//! the host log; PCR 11 and 15 are theirs, then systemd's log. [`ReplayedLogs`] can only be made from [`GenuineEvidence`]. What does
//! not replay is a finding, and nothing that it says becomes a claim. Whether what replays is acceptable is [`crate::appraisal`]'s question.

mod userspace;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::appraisal::Judge;
use crate::boot_log::{Authorities, BootClaims, BootLog, BootQuirks};
use crate::bytes::{ParseError, Problem};
use crate::cel::userspace::{PHASE_PCR, UserspaceLog};
use crate::counters::Continuity;
use crate::digest::{Digest, HashAlg, PcrBanks, PcrValues, sha256};
use crate::evidence::IMA_SENT_MAX;
use crate::finding::{Finding, Findings, Severity};
use crate::genuine::GenuineEvidence;
use crate::host_log::{HostLog, HostLogContext, VerifiedHostLog};
use crate::ima::parse::{ENTRIES_MAX, LIST_ENTRIES, LIST_SIZE};
use crate::ima::{ImaLog, ImaPosition, ImaPrefix, ImaQuirks, check_boot_aggregate, replay_prefix};
use crate::kernel_parameters::{Lockdown, reads_whole, resumes_from_disk};
use crate::policy::{AppraisalPolicy, quirks};
use crate::predict::Phase;
use crate::remembered::{Inputs, Outcome};
use crate::state::RoundState;

/// The bank that everything is judged in. Policies may have others quoted beside it.
pub const BANK: HashAlg = HashAlg::Sha256;
/// IMA's PCR.
pub const IMA_PCR: u8 = 10;
/// The host log's PCR where the policy names none.
const HOST_LOG_PCR: u8 = 13;

/// Where GRUB measures its commands. It measures each file that it reads into PCR 9, before any kernel measures there.
const GRUB_PCR: u8 = 8;
/// Longest part of a text that is shown in a finding.
const SHOWN: usize = 256;

/// The logs of one round, framed but not yet believed.
#[derive(Debug)]
pub struct ParsedLogs<'e> {
    /// Parsed, like systemd's log, where nobody remembers what they come to.
    boot: &'e [u8],
    ima: Result<ImaLog<'e>, ParseError>,
    host: Result<HostLog, ParseError>,
}

impl<'e> ParsedLogs<'e> {
    /// Parses the logs of a round.
    #[must_use]
    pub fn parse(genuine: &'e GenuineEvidence) -> Self {
        let evidence = genuine.evidence();
        Self {
            boot: &evidence.boot_log,
            ima: ImaLog::parse_as(&evidence.ima.list, crate::ima::ImaFormat::Binary),
            host: HostLog::parse(&evidence.host_log),
        }
    }
}

/// The round does not continue from the last one: the host must send whole logs under a new nonce. Trust neither ends nor grows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resend {
    /// Why.
    pub findings: Findings,
}

/// What the boot log proves.
#[derive(Debug, Clone)]
pub struct ReplayedBoot {
    /// The claims of data whose digest was recomputed.
    pub claims: BootClaims,
    /// The kernel command line, where its digest replays to a PCR.
    pub command_line: Option<String>,
    /// PCR 11 without systemd's phases, where there are any and nothing else: what the image gave, whatever phase the host is in.
    pub before_phases: Option<Digest>,
    /// The boot phase that the host is in, where PCR 11 tells it.
    pub phase: Option<&'static str>,
    /// The machine id that systemd measured into PCR 15, where its log replays.
    pub machine_id: Option<String>,
    /// The texts of systemd's log that hash to what was extended, by PCR, for people.
    pub userspace: BTreeMap<u8, Vec<String>>,
    /// SHA-256 of what PK, KEK, db and dbx hold, by the claim's name, where the policy has a rule on one of them.
    pub key_databases: BTreeMap<&'static str, [u8; 32]>,
    /// Whose keys vouched for what was started, and shim's level, where the policy has a rule on them.
    pub authorities: Option<Authorities>,
    /// The lockdown that the proven command line asks for; none where no command line is proven.
    pub lockdown: Option<Lockdown>,
}

/// The claims on Secure Boot's key databases, and the variables that they are of.
const KEY_DATABASES: [(&str, &str); 4] =
    [("secure_boot_pk", "PK"), ("secure_boot_kek", "KEK"), ("secure_boot_db", "db"), ("secure_boot_dbx", "dbx")];

/// What a boot log comes to against the quoted PCRs, under one policy: a function of [`BootInputs`] alone.
#[derive(Debug)]
pub(crate) struct BootReplay {
    boot: Option<ReplayedBoot>,
    /// The log's own part of each PCR.
    replay: PcrValues,
    findings: Findings,
}

impl Outcome for BootReplay {
    fn weight(&self) -> usize {
        // The command line is no part of the log; what the log says is some times its size at most.
        let line = self.boot.as_ref().and_then(|boot| boot.command_line.as_ref()).map_or(0, String::len);
        self.findings.weight().saturating_add(line)
    }
}

/// Logs that were held against the quoted PCRs.
#[derive(Debug)]
pub struct ReplayedLogs<'e> {
    genuine: &'e GenuineEvidence,
    boot: Arc<BootReplay>,
    ima: Option<ImaPrefix<'e>>,
    ima_start: ImaPosition,
    host_log: Option<VerifiedHostLog>,
    ima_findings: Findings,
    host_log_findings: Findings,
}

impl<'e> ReplayedLogs<'e> {
    /// Replays a round's logs.
    ///
    /// # Errors
    /// [`Resend`] when the round leaves out what it would need to continue from `state`.
    pub fn replay(
        genuine: &'e GenuineEvidence,
        logs: &'e ParsedLogs<'e>,
        judge: &Judge,
        state: Option<&RoundState>,
    ) -> Result<Self, Resend> {
        let policy = judge.policy();
        let quoted = bank_values(genuine);
        let boot = boot_replay(genuine, logs.boot, judge, quoted);
        let (host_log, host_log_findings) = replay_host_log(genuine, logs, policy, quoted, &boot.replay, state);
        let mut this = Self {
            genuine,
            boot,
            ima: None,
            ima_start: ImaPosition::default(),
            host_log,
            ima_findings: Findings::new(),
            host_log_findings,
        };
        if policy.ima().is_some() {
            this.replay_ima(logs, policy, quoted, state)?;
        }
        Ok(this)
    }

    fn replay_ima(
        &mut self,
        logs: &'e ParsedLogs<'e>,
        policy: &AppraisalPolicy,
        quoted: &PcrValues,
        state: Option<&RoundState>,
    ) -> Result<(), Resend> {
        let left_out = self.genuine.evidence().ima.left_out;
        let too_long = match &logs.ima {
            _ if left_out > 0 => Some(format!("more than {left_out} bytes, says the host")),
            Err(error) if matches!(error.problem, Problem::OverLimit { what: LIST_SIZE | LIST_ENTRIES, .. }) => {
                Some(error.to_string())
            }
            _ => None,
        };
        let within = self.ima_findings.check("ima.too-long", too_long.is_some(), || {
            Finding::error("", "the IMA list is longer than a round can carry, so that nothing in it can be verified")
                .expected(format!(
                    "at most {} MiB and {ENTRIES_MAX} entries from where the last round ended",
                    IMA_SENT_MAX >> 20
                ))
                .found(too_long.unwrap_or_default())
                .fix("reboot the host, which begins a new list; let the IMA policy leave out whatever fills it")
        });
        if !within {
            return Ok(());
        }
        let log = match &logs.ima {
            Ok(log) => log,
            Err(error) => {
                self.ima_findings.push(malformed("ima.malformed", "IMA list", error));
                return Ok(());
            }
        };
        self.ima_start = self.ima_position(state)?;
        let target: BTreeMap<HashAlg, Digest> = quoted.get(&IMA_PCR).map(|value| (BANK, *value)).into_iter().collect();
        let quirks = ImaQuirks { padded_sha1: policy.tolerates(quirks::IMA_PADDED_SHA1) };
        let prefix = match replay_prefix(log, &self.ima_start, &target, quirks) {
            Ok(prefix) => prefix,
            // A delta that does not fit may have a harmless cause; the whole list has none.
            Err(mismatch) if self.ima_start.entries > 0 => return Err(Resend { findings: (*mismatch.finding).into() }),
            Err(mismatch) => {
                self.ima_findings.push(*mismatch.finding);
                return Ok(());
            }
        };
        self.ima_findings.append(prefix.findings().clone());
        if self.ima_start.entries == 0 {
            let pcrs: PcrBanks = [(BANK, quoted.clone())].into();
            let first = prefix.entries().next();
            self.ima_findings.append(check_boot_aggregate(first.as_ref(), &pcrs));
        }
        let same_boot = matches!(self.genuine.continuity(), Some(Continuity::SameBoot | Continuity::Resumed));
        let before = state.map_or(0, |state| state.ima().entries);
        self.ima_findings.check("ima.shrunk", same_boot && prefix.end().entries < before, || {
            Finding::error("", "the IMA list is shorter than in an earlier round of the same boot")
                .expected(format!("at least {before} entries"))
                .found(prefix.end().entries)
                .fix("the kernel never removes entries: find out what does, then reboot the host")
        });
        self.ima = Some(prefix);
        Ok(())
    }

    /// Where the sent part of the IMA list begins: at entry 0, or exactly where the last round of the same boot ended.
    fn ima_position(&self, state: Option<&RoundState>) -> Result<ImaPosition, Resend> {
        let from = self.genuine.evidence().ima.from;
        if from == 0 {
            return Ok(ImaPosition::default());
        }
        let same_boot = matches!(self.genuine.continuity(), Some(Continuity::SameBoot | Continuity::Resumed));
        let mut findings = Findings::new();
        let position = state.filter(|_| same_boot).map(RoundState::ima).unwrap_or_default();
        findings.check("ima.delta-after-reset", !same_boot, || {
            Finding::error("", "the machine was reset since the last round, and the IMA list is only the rest of one")
                .expected("the list from entry 0")
                .found(format!("from entry {from}"))
                .fix("hostd sends the whole list after a reset: ask for a new challenge")
        });
        findings.check("ima.offset", same_boot && position.entries != from, || {
            Finding::error("", "the IMA list does not continue where the last round ended")
                .expected(format!("from entry {}", position.entries))
                .found(format!("from entry {from}"))
                .fix("ask for a new challenge and send the list from the entry it names")
        });
        if findings.acceptable() { Ok(position) } else { Err(Resend { findings }) }
    }

    /// Whether the TPM was not reset since the round whose state is kept.
    #[must_use]
    pub const fn same_boot(&self) -> bool {
        matches!(self.genuine.continuity(), Some(Continuity::SameBoot | Continuity::Resumed))
    }

    /// The proven round that these logs belong to.
    #[must_use]
    pub const fn genuine(&self) -> &'e GenuineEvidence {
        self.genuine
    }

    /// What the boot log proves, if all of it replays.
    #[must_use]
    pub fn boot(&self) -> Option<&ReplayedBoot> {
        self.boot.boot.as_ref()
    }

    /// The verified part of the IMA list, if it replays.
    #[must_use]
    pub const fn ima(&self) -> Option<&ImaPrefix<'e>> {
        self.ima.as_ref()
    }

    /// Whether the IMA list was sent from entry 0.
    #[must_use]
    pub const fn ima_is_whole(&self) -> bool {
        self.ima_start.entries == 0
    }

    /// What the host log proves, if it replays.
    #[must_use]
    pub const fn host_log(&self) -> Option<&VerifiedHostLog> {
        self.host_log.as_ref()
    }

    /// Findings about the boot log.
    #[must_use]
    pub fn boot_findings(&self) -> &Findings {
        &self.boot.findings
    }

    /// Findings about the IMA list.
    #[must_use]
    pub const fn ima_findings(&self) -> &Findings {
        &self.ima_findings
    }

    /// Findings about the host log.
    #[must_use]
    pub const fn host_log_findings(&self) -> &Findings {
        &self.host_log_findings
    }
}

fn bank_values(genuine: &GenuineEvidence) -> &PcrValues {
    static NONE: PcrValues = PcrValues::new();
    genuine.quote().pcrs().get(&BANK).unwrap_or(&NONE)
}

fn malformed(id: &'static str, what: &str, error: &ParseError) -> Finding {
    Finding::error(id, format!("the {what} is malformed"))
        .found(error)
        .fix("reboot the host; if it persists, its firmware or kernel writes a broken log")
}

fn host_log_pcr(policy: &AppraisalPolicy) -> u8 {
    policy.engine().map_or(HOST_LOG_PCR, |engine| engine.host_log_pcr)
}

fn boot_quirks(policy: &AppraisalPolicy) -> BootQuirks {
    BootQuirks {
        exit_boot_services: policy.tolerates(quirks::EXIT_BOOT_SERVICES_UNLOGGED),
        startup_locality: policy.tolerates(quirks::STARTUP_LOCALITY_MISSING),
    }
}

/// PCRs that other logs of the running system extend: neither the boot log nor systemd's explains them.
fn later(policy: &AppraisalPolicy) -> [u8; 2] {
    [IMA_PCR, host_log_pcr(policy)]
}

/// Everything that decides what [`replay_boot`] finds, but for the policy: what is remembered is one judge's.
struct BootInputs<'a> {
    log: &'a [u8],
    /// systemd's log; empty where the host sent none.
    userspace: &'a [u8],
    /// The quoted values of [`BANK`].
    quoted: &'a PcrValues,
    /// PCRs that other logs explain.
    later: [u8; 2],
    /// Every quoted bank: of the others, systemd's log is held against what its records carry.
    more: &'a PcrBanks,
    /// The command line as hostd tells it.
    command_line: Option<&'a str>,
}

impl<'a> BootInputs<'a> {
    fn of(genuine: &'a GenuineEvidence, log: &'a [u8], policy: &AppraisalPolicy, quoted: &'a PcrValues) -> Self {
        Self {
            log,
            userspace: &genuine.evidence().userspace_log,
            quoted,
            later: later(policy),
            more: genuine.quote().pcrs(),
            command_line: genuine.unanchored().facts.get("cmdline").map(String::as_str),
        }
    }

    /// The quoted values of [`BANK`], without those that other logs explain.
    fn explained(&self) -> impl Iterator<Item = (&u8, &Digest)> {
        self.quoted.iter().filter(|(index, _)| !self.later.contains(index))
    }

    /// The other banks that are quoted.
    fn other_banks(&self) -> impl Iterator<Item = (HashAlg, &PcrValues)> {
        self.more.iter().filter(|(bank, _)| **bank != BANK).map(|(bank, values)| (*bank, values))
    }

    fn hashed(&self) -> Inputs {
        let mut values = Vec::new();
        for (index, value) in self.explained().chain(self.other_banks().flat_map(|(_, quoted)| quoted)) {
            values.extend_from_slice(&value.alg().to_tpm().to_be_bytes());
            values.push(*index);
            values.extend_from_slice(value.as_bytes());
        }
        Inputs::of("boot")
            .bind("remembered.boot-log", &sha256(&[self.log]))
            .bind("remembered.userspace-log", self.userspace)
            .bind("remembered.pcrs", &values)
            .bind("remembered.command-line", &[u8::from(self.command_line.is_some())])
            .bind("remembered.command-line", self.command_line.unwrap_or_default().as_bytes())
    }
}

/// The boot log of a round, as an earlier round of the same inputs found it or as it is found now.
fn boot_replay(genuine: &GenuineEvidence, log: &[u8], judge: &Judge, quoted: &PcrValues) -> Arc<BootReplay> {
    let policy = judge.policy();
    let inputs = BootInputs::of(genuine, log, policy, quoted);
    let size = log.len().saturating_add(inputs.userspace.len());
    judge.memory().boots.get_or(inputs.hashed(), size, || replay_boot(&inputs, policy))
}

fn replay_boot(from: &BootInputs<'_>, policy: &AppraisalPolicy) -> BootReplay {
    let log = match BootLog::parse(from.log) {
        Ok(log) => log,
        Err(error) => {
            let findings = malformed("boot.malformed", "boot log", &error).into();
            return BootReplay { boot: None, replay: PcrValues::new(), findings };
        }
    };
    let quoted: PcrValues = from.explained().map(|(index, value)| (*index, *value)).collect();
    let mut findings = log.findings().clone();
    let mut compared = Findings::new();
    let carried = log.replay_for(BANK, &mut compared);
    let mut replay = carried.clone().unwrap_or_default();
    let (mut before_phases, mut phase) = (None, None);
    // Whoever writes a log of phases leaves none to be guessed.
    let parsed = Some(from.userspace).filter(|log| !log.is_empty()).map(UserspaceLog::parse);
    let systemd = userspace::replay(parsed.as_ref(), &log, &quoted, from.more, &from.later);
    if let Some(words) = systemd.as_ref().and_then(userspace::Userspace::phases) {
        before_phases = Some(replay.get(&PHASE_PCR).copied().unwrap_or_else(|| Digest::zero(BANK)));
        phase = words.last().copied();
    }
    if policy.tolerates(quirks::PCRPHASE_UNLOGGED)
        && systemd.is_none()
        && let Some((words, value)) = unlogged_phases(&replay, &quoted)
    {
        findings.push(
            Finding::info("boot.pcrphase-unlogged", "PCR 11 holds systemd boot phases that no log records")
                .found(words.join(", ")),
        );
        phase = words.last().copied();
        before_phases = replay.insert(PHASE_PCR, value);
    }
    let mut excused: Vec<u8> = before_phases.iter().map(|_| PHASE_PCR).collect();
    excused.extend(systemd.iter().flat_map(userspace::Userspace::compared));
    let indices = quoted.keys().copied().filter(|index| !excused.contains(index));
    let quirks = boot_quirks(policy);
    let mut explained = log.explain_replayed(BANK, carried.as_ref(), &quoted, indices, quirks, &mut compared);
    let by_systemd = systemd.iter().flat_map(userspace::Userspace::explained);
    for pcr in by_systemd.chain(before_phases.map(|_| PHASE_PCR)) {
        explained = explained.extended_later(pcr);
    }
    let others = other_banks(from, &log, policy);
    let systemd_replays = systemd.as_ref().is_none_or(|one| one.findings.acceptable());
    let replays = compared.acceptable() && others.acceptable() && systemd_replays;
    findings.append(compared);
    findings.append(others);
    findings.append(systemd.as_ref().map(|one| one.findings.clone()).unwrap_or_default());
    // Only what rests on explained PCRs: a log may say anything about a PCR that nobody quoted.
    let beside: Vec<HashAlg> = from.other_banks().map(|(bank, _)| bank).collect();
    let (claims, noticed) = explained.claims_beside(&beside);
    findings.append(noticed);
    let confirmed = from.command_line.and_then(|text| explained.confirm_command_line(text));
    let by_grub = !explained.explained().contains(&GRUB_PCR) || log.in_pcr(GRUB_PCR).next().is_some();
    let sure = findings.check("boot.command-line-loader", confirmed.is_some() && by_grub, || {
        Finding::warning("", "GRUB may have started the kernel: the first file that it read may hold what looks like the kernel's own measurement")
            .expected("PCR 8 selected by the policy, and empty")
            .found("events in PCR 8, or no proof that there are none")
            .fix("boot a unified kernel image without GRUB, and select PCR 8 in the appraisal policy")
    });
    let command_line = confirmed
        .filter(|_| sure)
        .or_else(|| claims.command_line.clone().filter(|line| !line.extendable_later))
        .map(|line| line.text);
    let cut = command_line.as_deref().is_some_and(|line| !reads_whole(line));
    let whole = findings.check("boot.command-line-cut", cut, || {
        Finding::warning("", "the kernel reads another command line than the text that was measured")
            .expected("at most 2047 printable ASCII characters")
            .found(command_line.as_deref().unwrap_or_default().chars().take(SHOWN).collect::<String>().escape_debug())
            .fix("shorten the kernel command line, and take everything out of it that is not printable ASCII")
    });
    let command_line = command_line.filter(|_| whole);
    findings.append(hibernation(command_line.as_deref()));
    let wanted = policy.rules().iter().any(|rule| KEY_DATABASES.iter().any(|(claim, _)| *claim == rule.claim));
    let found = if wanted { explained.key_databases() } else { BTreeMap::new() };
    let named = |(claim, name): &(&'static str, &str)| Some((*claim, *found.get(name)?));
    let key_databases = KEY_DATABASES.iter().filter_map(named).collect();
    let wanted =
        policy.rules().iter().any(|rule| matches!(rule.claim.as_str(), "secure_boot_authorities" | "sbat_level"));
    let authorities = if wanted { explained.authorities() } else { None };
    let begun = !claims.image.is_empty() && before_phases.is_none() && explained.explained().contains(&PHASE_PCR);
    let lockdown = command_line.as_deref().map(Lockdown::of);
    let boot = ReplayedBoot {
        phase: phase.or_else(|| begun.then_some(Phase::Boot.name())),
        machine_id: systemd.as_ref().and_then(userspace::Userspace::machine_id),
        userspace: systemd.as_ref().map(userspace::Userspace::told).unwrap_or_default(),
        claims,
        command_line,
        before_phases,
        key_databases,
        authorities,
        lockdown,
    };
    BootReplay { boot: replays.then_some(boot), replay, findings }
}

/// The firmware's PCRs in every other bank that was quoted: a bank that the firmware left empty is the operating system's to fill.
fn other_banks(from: &BootInputs<'_>, log: &BootLog, policy: &AppraisalPolicy) -> Findings {
    let mut findings = Findings::new();
    for (bank, quoted) in from.other_banks() {
        let firmware = quoted.keys().copied().filter(|index| *index < 8);
        findings.append(log.explain_quoted(bank, quoted, firmware, boot_quirks(policy)).1);
    }
    findings
}

/// A kernel image on disk is measured nowhere: whoever writes it runs a kernel that no PCR names. A locked-down kernel does not
/// resume from one. Without lockdown root can have one resumed at any time (`/sys/power/resume`), and an initrd can find its place in an EFI
/// variable: [`crate::appraisal`] gives a kernel that is not locked down no affirming runtime.
fn hibernation(command_line: Option<&str>) -> Findings {
    let mut findings = Findings::new();
    let line = command_line.unwrap_or_default();
    findings.check("boot.hibernation", command_line.is_none() || resumes_from_disk(line), || {
        let locked = Lockdown::of(line) != Lockdown::None;
        let (severity, text) = match command_line {
            None => (
                Severity::Warning,
                "no command line is proven: the kernel may resume from a hibernation image, which no PCR holds",
            ),
            Some(_) if locked => (Severity::Info, "the kernel is told to resume from disk, which its lockdown forbids"),
            Some(_) => (Severity::Warning, "the kernel is told to resume from a hibernation image, which no PCR holds"),
        };
        Finding::new("", severity, text)
            .expected("a proven command line without resume=, or with lockdown")
            .found(command_line.unwrap_or("no proven command line"))
            .fix("take resume= off the kernel command line, or add lockdown=integrity, which forbids hibernation")
    });
    findings
}

/// The systemd phases that explain the quoted PCR 11 on top of the boot log's part, if any do.
fn unlogged_phases(replay: &PcrValues, quoted: &PcrValues) -> Option<(Vec<&'static str>, Digest)> {
    let quoted = quoted.get(&PHASE_PCR)?;
    let start = *replay.get(&PHASE_PCR)?;
    [true, false].into_iter().find_map(|systemd_initrd| {
        let mut value = start;
        let mut told = Vec::new();
        Phase::Final.words(systemd_initrd).find_map(|word| {
            value = value.extend(&BANK.hash(&[word.as_bytes()])?)?;
            told.push(word);
            (value == *quoted).then(|| (std::mem::take(&mut told), value))
        })
    })
}

fn replay_host_log(
    genuine: &GenuineEvidence,
    logs: &ParsedLogs<'_>,
    policy: &AppraisalPolicy,
    quoted: &PcrValues,
    boot_replay: &PcrValues,
    state: Option<&RoundState>,
) -> (Option<VerifiedHostLog>, Findings) {
    let pcr = host_log_pcr(policy);
    let log = match &logs.host {
        Ok(log) => log,
        Err(error) => return (None, malformed("host-log.malformed", "host log", error).into()),
    };
    let Some(quoted) = quoted.get(&pcr) else { return (None, Findings::new()) };
    let start = boot_replay.get(&pcr).copied().unwrap_or_else(|| Digest::zero(BANK));
    let said = genuine.unanchored().boot_id.as_str();
    let context = HostLogContext { pcr, start, quoted: *quoted, boot_id: said };
    let verified = match log.verify(&context) {
        Ok(verified) => verified,
        Err(findings) => return (None, findings),
    };
    let mut findings = verified.findings().clone();
    let same_boot = matches!(genuine.continuity(), Some(Continuity::SameBoot | Continuity::Resumed));
    let before = state.filter(|_| same_boot).map(RoundState::boot_id).filter(|before| !before.is_empty());
    findings.check("host-log.boot-changed", before.is_some_and(|before| before != said), || {
        Finding::error("", "the boot id changed although the TPM was not reset")
            .expected(before.unwrap_or_default())
            .found(said)
            .fix("reboot the host: what it says of its boot is not what it said before")
    });
    let replays = findings.acceptable();
    (replays.then_some(verified), findings)
}
