//! A host in software in the state of a recorded boot, and rounds of it through the production path.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(unreachable_pub, missing_docs, reason = "shared by test binaries")]
#![allow(clippy::disallowed_methods, reason = "a test reads its recordings")]

use std::collections::BTreeMap;
use std::sync::Arc;

use hostmark_attest::appraisal::{Appraisal, Endorsed, Judge, appraise};
use hostmark_attest::boot_log::BootLog;
use hostmark_attest::digest::{Digest, HashAlg, sha256};
use hostmark_attest::evidence::{Evidence, ImaPart, Unanchored};
use hostmark_attest::finding::{Findings, Severity};
use hostmark_attest::genuine::{GenuineEvidence, Last, RoundExpectation};
use hostmark_attest::host_log::{Event, Record};
use hostmark_attest::identity::ak::verify_ak;
use hostmark_attest::identity::class::TpmClass;
use hostmark_attest::ima::ImaLog;
use hostmark_attest::jws::KeySet;
use hostmark_attest::manifest::EngineManifest;
use hostmark_attest::policy::capture::{Capture, capture};
use hostmark_attest::policy::{AppraisalPolicy, References};
use hostmark_attest::replay::{ParsedLogs, ReplayedLogs, Resend};
use hostmark_attest::state::RoundState;
use hostmark_attest::wire::{B64, DOMAIN_QUOTE, Nonce, SignedAttest};
use time::OffsetDateTime;
use time::macros::datetime;

use super::SoftwareTpm;
use super::policy_entry::{booted_with, ima_ng, with_policy};
use super::systemd_log::Measured;

const NOW: OffsetDateTime = datetime!(2026-11-22 12:00 UTC);
const BANK: HashAlg = HashAlg::Sha256;

/// A policy that judges everything, with these lines in its `[engine]` table.
pub fn policy(engine: &str) -> String {
    format!(
        "version = 1\npcrs = {{ sha256 = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14] }}\nreferences = [\"lab\"]\n\
         [ima]\npolicy = \"container-host\"\nunknown = \"warning\"\n[engine]\n{engine}\n"
    )
}

/// This policy with references that are captured from the recorded boot and these manifests.
pub fn judge(policy: &str, manifests: &[&EngineManifest]) -> Judge {
    judge_of(policy, manifests, &command_line())
}

/// As [`judge`], for a boot with this command line.
pub fn judge_of(policy: &str, manifests: &[&EngineManifest], line: &str) -> Judge {
    let bytes: Vec<Vec<u8>> = manifests.iter().map(|manifest| manifest.to_canonical()).collect();
    let slices: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
    let (boot_log, ima, _) = booted(line);
    judge_by(
        policy,
        &capture(&Capture { boot_log: &boot_log, ima: &ima, manifests: &slices, ..Capture::default() }, 1).unwrap(),
    )
}

/// This policy with these references.
pub fn judge_by(policy: &str, references: &str) -> Judge {
    let references = Arc::new(References::parse("lab", references).unwrap());
    Judge::new(Arc::new(AppraisalPolicy::parse("p", policy).unwrap()), &[references]).unwrap()
}

/// The recorded boot's command line.
pub fn command_line() -> String {
    String::from_utf8(recorded("cmdline")).unwrap()
}

/// Boot log, IMA list and command line.
pub type Boot = (Vec<u8>, Vec<u8>, String);

/// The recorded boot, as if with this command line, and with the IMA policy's entry.
pub fn booted(line: &str) -> Boot {
    with_policy(booted_with(recorded("boot-log.bin"), line.trim_end()), recorded("ima.bin"), line)
}

fn recorded(file: &str) -> Vec<u8> {
    let path = format!("{}/testdata/recorded/systemd/{file}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub struct Host {
    pub tpm: SoftwareTpm,
    /// Sent as it stands, whatever was extended.
    pub boot_log: Vec<u8>,
    list: Vec<u8>,
    /// Sent as it stands.
    pub host_log: Vec<u8>,
    /// systemd's log, sent as it stands.
    pub userspace_log: Vec<u8>,
    /// Sent as it stands; what was logged of it is another thing.
    pub manifest: Vec<u8>,
    clock: u64,
    /// The next round sends the list from entry 0.
    pub whole: bool,
    /// Times that the machine slept and resumed.
    pub sleeps: u32,
    /// Bytes of the IMA list that are not sent because they are too many; the list is not sent then.
    pub left_out: u64,
    /// Sent behind the list, and never extended.
    pub flood: Vec<u8>,
    /// What is sent beside the logs.
    pub facts: BTreeMap<String, String>,
    /// The workload inventory, if hostd sends one.
    pub inventory: Vec<u8>,
    /// What the last appraisal left, if a verifier kept it.
    pub state: Option<RoundState>,
    /// When its rounds are judged.
    pub now: OffsetDateTime,
}

impl Host {
    pub fn boot(manifest: &EngineManifest) -> Self {
        Self::boot_with(manifest, &command_line())
    }

    /// As if the machine had booted with this command line, which hostd tells.
    pub fn boot_with(manifest: &EngineManifest, line: &str) -> Self {
        Self::booted_as(manifest, booted(line))
    }

    /// A host that booted otherwise.
    pub fn booted_as(manifest: &EngineManifest, (boot_log, ima, line): Boot) -> Self {
        let mut tpm = SoftwareTpm::new();
        let replay = BootLog::parse(&boot_log).unwrap().replay_bank(BANK);
        for index in 0..24 {
            tpm.set(BANK, index, replay.get(&index).copied().unwrap_or(Digest::zero(BANK)));
        }
        let (list, host_log, userspace_log, inventory) = Default::default();
        let facts = BTreeMap::from([("cmdline".to_owned(), line)]);
        let mut host = Self {
            tpm,
            boot_log,
            list,
            host_log,
            userspace_log,
            manifest: Vec::new(),
            clock: 1000,
            whole: false,
            sleeps: 0,
            left_out: 0,
            flood: Vec::new(),
            inventory,
            facts,
            state: None,
            now: NOW,
        };
        host.measure(&ima);
        host.log(&Event::Boot { boot_id: "boot-1".into(), hostd: "0.1.0".into() });
        host.report(manifest);
        host
    }

    pub fn extend(&mut self, index: u8, digest: Digest) {
        let value = self.tpm.pcrs[&BANK][&index].extend(&digest).unwrap();
        self.tpm.set(BANK, index, value);
    }

    /// The kernel lists these entries, and extends them as it does.
    pub fn measure(&mut self, list: &[u8]) {
        for entry in ImaLog::parse(list).unwrap().entries() {
            let violation = entry.is_violation();
            self.extend(10, if violation { Digest::ones(BANK) } else { entry.template_digest(BANK).unwrap() });
        }
        self.list.extend_from_slice(list);
    }

    /// The kernel measures a file, unless the list holds this pair already.
    pub fn reads(&mut self, path: &str, content: &[u8]) {
        let entry = ima_ng(path, &sha256(&[content]));
        if !self.list.windows(entry.len()).any(|window| window == entry) {
            self.measure(&entry);
        }
    }

    pub fn log(&mut self, event: &Event) {
        let number = self.host_log.iter().filter(|byte| **byte == b'\n').count();
        let (line, digest) = Record::encode(number as u64, 13, event);
        self.host_log.extend(line);
        self.extend(13, Digest::new(BANK, &digest).unwrap());
    }

    /// systemd measures, with a record.
    pub fn systemd(&mut self, measured: &[Measured]) {
        for one in measured {
            self.extend(one.pcr, one.digest(BANK));
            self.userspace_log.extend(one.line(&[BANK]).into_bytes());
        }
    }

    /// hostd measures the engines, and logs the manifest when it changed.
    pub fn report(&mut self, manifest: &EngineManifest) {
        let bytes = manifest.to_canonical();
        if bytes != self.manifest {
            self.log(&Event::Manifest { sha256: sha256(&[&bytes]) });
            self.manifest = bytes;
        }
    }

    /// What hostd sends for this nonce.
    pub fn evidence(&self, judge: &Judge, nonce: Nonce) -> Evidence {
        let selection = judge.policy().selection();
        let unanchored = Unanchored {
            nonce,
            boot_id: "boot-1".into(),
            hostd: "0.1.0".into(),
            manifest: self.manifest.clone(),
            facts: self.facts.clone(),
            sources: Vec::new(),
            tag: None,
            inventory: self.inventory.clone(),
        };
        let mut quote = self.tpm.quote(selection, &nonce.bind(DOMAIN_QUOTE, &unanchored.encode()));
        (quote.clock_info.clock, quote.clock_info.reset_count) = (self.clock, 5);
        quote.clock_info.restart_count = self.sleeps;
        let attest = quote.build();
        let signed = SignedAttest { signature: B64(self.tpm.ak.sign(&attest)), attest: B64(attest) };
        let mut evidence = Evidence::new(unanchored, signed, self.tpm.values(selection));
        let from = self.state.as_ref().filter(|_| !self.whole).map_or(0, |state| state.ima().entries);
        let rest = ImaLog::parse(&self.list).unwrap().entries().nth(from.try_into().unwrap()).map(|entry| entry.at());
        let list = [&self.list[rest.unwrap_or(self.list.len())..], &self.flood].concat();
        (evidence.boot_log, evidence.ima) = (self.boot_log.clone(), ImaPart { from, list, left_out: self.left_out });
        evidence.host_log = self.host_log.clone();
        evidence.userspace_log = self.userspace_log.clone();
        Evidence::parse(&evidence.encode()).unwrap()
    }

    /// One round, from where the last one ended, or from entry 0 when the last one was to be sent again.
    pub fn round(&mut self, judge: &Judge) -> Result<Appraisal, Resend> {
        let outcome = self.try_round(judge);
        self.whole = outcome.is_err();
        outcome
    }

    fn try_round(&mut self, judge: &Judge) -> Result<Appraisal, Resend> {
        self.clock += 10;
        let nonce = Nonce([9; 32]);
        let ak = verify_ak(&self.tpm.ak.public).unwrap();
        let expect = RoundExpectation {
            ak: &ak,
            ek_name: &self.tpm.ek_name,
            tag_signers: &KeySet::new(),
            tag_serial: None,
            now: self.now,
            nonce,
            selection: judge.policy().selection(),
            last: self.state.as_ref().map_or(Last::FirstRound, |state| Last::Round(state.counters())),
        };
        let genuine = GenuineEvidence::verify(self.evidence(judge, nonce), &expect).unwrap();
        let parsed = ParsedLogs::parse(&genuine);
        let logs = ReplayedLogs::replay(&genuine, &parsed, judge, self.state.as_ref())?;
        let endorsed = Endorsed { class: TpmClass::Simulated, findings: Findings::new() };
        let appraisal = appraise(&logs, judge, endorsed, "host-1", "ak-1", self.state.as_ref(), self.now)?;
        self.state = Some(appraisal.state().clone());
        Ok(appraisal)
    }
}

/// The findings that are more than information: weight and id.
pub fn told(appraisal: &Appraisal) -> Vec<(Severity, &str)> {
    let weighty = appraisal.findings().filter(|one| one.severity != Severity::Info);
    weighty.map(|one| (one.severity, one.id.as_str())).collect()
}
