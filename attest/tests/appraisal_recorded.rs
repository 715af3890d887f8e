//! One round from evidence to result, on the recorded boots: the host is `systemd-again`, its references come from `systemd`.
//!
//! The recordings' quotes carry the recorder's nonce, so a software AK (a generated key) signs the same PCR values again,
//! bound to our nonce; everything that verifies, replays and appraises is the production code.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    dead_code,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::SoftwareTpm;
use common::policy_entry::{ima_ng, with_policy};
use hostmark_attest::appraisal::{Appraisal, Endorsed, Judge, appraise};
use hostmark_attest::boot_log::BootLog;
use hostmark_attest::digest::{Digest, HashAlg, sha256};
use hostmark_attest::evidence::{Evidence, ImaPart, Unanchored};
use hostmark_attest::finding::Findings;
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
use hostmark_attest::selection::PcrSelection;
use hostmark_attest::state::RoundState;
use hostmark_attest::tier::{Submodule, Tier};
use hostmark_attest::wire::{B64, DOMAIN_QUOTE, Nonce, SignedAttest};
use time::OffsetDateTime;
use time::macros::datetime;

const NOW: OffsetDateTime = datetime!(2026-11-22 12:00 UTC);
const POLICY: &str = r#"
version = 1
pcrs = { sha256 = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14] }
references = ["lab"]
[[rule]]
id = "boot.secure-boot"
claim = "secure_boot"
want = ["on", "off"]
else = "contraindicated"
[ima]
policy = "container-host"
unknown = "contraindicated"
[engine]
"#;

fn recorded(name: &str, file: &str) -> Vec<u8> {
    let path = format!("{}/testdata/recorded/{name}/{file}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Boot log, IMA list and command line, with the IMA policy's entry.
fn booted(name: &str) -> (Vec<u8>, Vec<u8>, String) {
    let line = String::from_utf8(recorded(name, "cmdline")).unwrap();
    with_policy(recorded(name, "boot-log.bin"), recorded(name, "ima.bin"), &line)
}

/// A machine in the state of a recording, with a host log of its own on PCR 13.
struct Host {
    tpm: SoftwareTpm,
    boot_log: Vec<u8>,
    ima: Vec<u8>,
    ima_from: u64,
    host_log: Vec<u8>,
    manifest: Vec<u8>,
    command_line: String,
    sources: Vec<String>,
    clock: u64,
    resets: u32,
}

impl Host {
    fn new(recording: &str) -> Self {
        let (boot_log, ima, command_line) = booted(recording);
        let mut tpm = SoftwareTpm::new();
        let replay = BootLog::parse(&boot_log).unwrap().replay_bank(HashAlg::Sha256);
        for index in 0..24 {
            tpm.set(HashAlg::Sha256, index, replay.get(&index).copied().unwrap_or(Digest::zero(HashAlg::Sha256)));
        }
        let mut host = Self {
            tpm,
            boot_log,
            ima: Vec::new(),
            ima_from: 0,
            host_log: Vec::new(),
            manifest: manifest(),
            command_line,
            sources: Vec::new(),
            clock: 1000,
            resets: 5,
        };
        host.run_ima(&ima);
        host.log(&Event::Boot { boot_id: "boot-1".into(), hostd: "0.1.0".into() });
        host.log(&Event::Manifest { sha256: sha256(&[&host.manifest.clone()]) });
        host
    }

    fn pcr(&self, index: u8) -> Digest {
        self.tpm.pcrs[&HashAlg::Sha256][&index]
    }

    fn extend(&mut self, index: u8, digest: Digest) {
        self.tpm.set(HashAlg::Sha256, index, self.pcr(index).extend(&digest).unwrap());
    }

    /// The kernel measures these entries.
    fn run_ima(&mut self, list: &[u8]) {
        let log = ImaLog::parse(list).unwrap();
        for entry in log.entries() {
            self.extend(10, entry.template_digest(HashAlg::Sha256).unwrap());
        }
        self.ima.extend_from_slice(list);
    }

    fn log(&mut self, event: &Event) {
        let number = self.host_log.iter().filter(|byte| **byte == b'\n').count();
        let (line, digest) = Record::encode(number as u64, 13, event);
        self.host_log.extend(line);
        self.extend(13, Digest::new(HashAlg::Sha256, &digest).unwrap());
    }

    fn evidence(&self, nonce: Nonce, selection: &PcrSelection) -> Evidence {
        let unanchored = Unanchored {
            nonce,
            boot_id: "boot-1".into(),
            hostd: "0.1.0".into(),
            manifest: self.manifest.clone(),
            facts: BTreeMap::from([
                ("cmdline".to_owned(), self.command_line.clone()),
                ("kernel".to_owned(), "6.1.0".to_owned()),
            ]),
            sources: self.sources.clone(),
            tag: None,
            inventory: Vec::new(),
        };
        let bound = nonce.bind(DOMAIN_QUOTE, &unanchored.encode());
        let mut quote = self.tpm.quote(selection, &bound);
        quote.clock_info.clock = self.clock;
        quote.clock_info.reset_count = self.resets;
        let attest = quote.build();
        let signature = self.tpm.ak.sign(&attest);
        let signed = SignedAttest { attest: B64(attest), signature: B64(signature) };
        let mut evidence = Evidence::new(unanchored, signed, self.tpm.values(selection));
        evidence.boot_log = self.boot_log.clone();
        evidence.ima = ImaPart { from: self.ima_from, list: self.ima.clone(), left_out: 0 };
        evidence.host_log = self.host_log.clone();
        // Over the wire and back: what is appraised is what was received.
        Evidence::parse(&evidence.encode()).unwrap()
    }
}

fn manifest() -> Vec<u8> {
    EngineManifest { version: 1, root_is_default: true, engines: BTreeMap::new() }.to_canonical()
}

fn judge(policy: &str, references: &str) -> Judge {
    let policy = Arc::new(AppraisalPolicy::parse("p", policy).unwrap());
    let references = Arc::new(References::parse("lab", references).unwrap());
    Judge::new(policy, &[references]).unwrap()
}

fn lab() -> String {
    let ((boot_log, ima, _), manifest) = (booted("systemd"), manifest());
    capture(&Capture { boot_log: &boot_log, ima: &ima, manifests: &[&manifest], ..Capture::default() }, 1).unwrap()
}

fn round(host: &Host, judge: &Judge, state: Option<&RoundState>) -> Result<Appraisal, Resend> {
    round_of(host, judge, state, TpmClass::Simulated)
}

fn round_of(host: &Host, judge: &Judge, state: Option<&RoundState>, class: TpmClass) -> Result<Appraisal, Resend> {
    let nonce = Nonce([9; 32]);
    let ak = verify_ak(&host.tpm.ak.public).unwrap();
    let last = state.map_or(Last::FirstRound, |state| Last::Round(state.counters()));
    let expect = RoundExpectation {
        ak: &ak,
        ek_name: &host.tpm.ek_name,
        tag_signers: &KeySet::new(),
        tag_serial: None,
        now: NOW,
        nonce,
        selection: judge.policy().selection(),
        last,
    };
    let genuine = GenuineEvidence::verify(host.evidence(nonce, judge.policy().selection()), &expect).unwrap();
    let parsed = ParsedLogs::parse(&genuine);
    let logs = ReplayedLogs::replay(&genuine, &parsed, judge, state)?;
    let endorsed = Endorsed { class, findings: Findings::new() };
    appraise(&logs, judge, endorsed, "host-1", "ak-1", state, NOW)
}

fn tiers(appraisal: &Appraisal) -> Vec<(Submodule, Tier)> {
    Submodule::ALL.map(|one| (one, appraisal.tier(one))).to_vec()
}

fn ids(appraisal: &Appraisal) -> Vec<&str> {
    appraisal
        .findings()
        .filter(|one| one.severity != hostmark_attest::finding::Severity::Info)
        .map(|one| one.id.as_str())
        .collect()
}

#[test]
fn an_honest_host_is_affirmed_by_another_machines_references() {
    let appraisal = round(&Host::new("systemd-again"), &judge(POLICY, &lab()), None).unwrap();
    assert_eq!(ids(&appraisal), Vec::<&str>::new());
    use Submodule::{Boot, Engine, Platform, Profile, Runtime, Tag};
    let expect = [
        (Boot, Tier::Affirming),
        (Runtime, Tier::Affirming),
        // hostd's word never affirms.
        (Engine, Tier::Warning),
        (Profile, Tier::None),
        (Tag, Tier::None),
        (Platform, Tier::Warning),
    ];
    assert_eq!(tiers(&appraisal), expect);
}

#[test]
fn nothing_is_credited_without_references() {
    let appraisal = round(&Host::new("systemd-again"), &judge(POLICY, "version = 1\n[[window]]\n"), None).unwrap();
    for submodule in [Submodule::Boot, Submodule::Engine] {
        assert_eq!(appraisal.tier(submodule), Tier::None, "{submodule}");
    }
    assert_eq!(appraisal.tier(Submodule::Runtime), Tier::Contraindicated, "every file is unknown");
}

#[test]
fn another_boot_is_told_by_its_pcrs() {
    let appraisal = round(&Host::new("other-cmdline"), &judge(POLICY, &lab()), None).unwrap();
    assert_eq!(appraisal.tier(Submodule::Boot), Tier::Contraindicated);
    assert!(ids(&appraisal).contains(&"boot.reference"));
}

#[test]
fn b1_a_tampered_boot_log_contraindicates() {
    let mut host = Host::new("systemd-again");
    let last = host.boot_log.len() - 1;
    assert_eq!(round(&host, &judge(POLICY, &lab()), None).unwrap().tier(Submodule::Boot), Tier::Affirming);
    // The digests of the last event lie before its data; cut the event instead of guessing where.
    let log = BootLog::parse(&host.boot_log).unwrap();
    let at = log.events().next_back().unwrap().at();
    host.boot_log.truncate(at.min(last));
    let appraisal = round(&host, &judge(POLICY, &lab()), None).unwrap();
    assert_eq!(appraisal.tier(Submodule::Boot), Tier::Contraindicated);
    assert!(ids(&appraisal).contains(&"boot.replay"), "{:?}", ids(&appraisal));
}

#[test]
fn a12_evidence_from_elsewhere_is_told_and_only_a_simulated_tpm_may_send_it() {
    let judge = judge(POLICY, &lab());
    let rows = [
        (&[][..], TpmClass::Hardware, false, Tier::Affirming),
        (&["boot-log"], TpmClass::Simulated, true, Tier::Warning),
        (&["boot-log"], TpmClass::Hardware, true, Tier::Contraindicated),
        (&["boot-log"], TpmClass::Virtual, true, Tier::Contraindicated),
    ];
    for (sources, class, told, tier) in rows {
        let mut host = Host::new("systemd-again");
        host.sources = sources.iter().map(|one| (*one).to_owned()).collect();
        let appraisal = round_of(&host, &judge, None, class).unwrap();
        assert_eq!(ids(&appraisal).contains(&"platform.sources"), told, "{class}");
        assert_eq!(appraisal.tier(Submodule::Platform), tier, "{class}, from {sources:?}");
    }
}

#[test]
fn a3_evidence_that_names_another_nonce_is_told_by_its_own_word() {
    let (host, judge) = (Host::new("systemd-again"), judge(POLICY, &lab()));
    let ak = verify_ak(&host.tpm.ak.public).unwrap();
    let verify = |nonce| {
        let expect = RoundExpectation {
            ak: &ak,
            ek_name: &host.tpm.ek_name,
            tag_signers: &KeySet::new(),
            tag_serial: None,
            now: NOW,
            nonce,
            selection: judge.policy().selection(),
            last: Last::FirstRound,
        };
        let evidence = host.evidence(Nonce([9; 32]), judge.policy().selection());
        GenuineEvidence::verify(evidence, &expect).map(|_| ()).map_err(Findings::into_vec)
    };
    assert_eq!(verify(Nonce([9; 32])), Ok(()), "the honest twin");
    let told = verify(Nonce([8; 32])).unwrap_err();
    assert_eq!(told.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["evidence.nonce"]);
}

#[test]
fn b10_a_list_that_shrank_without_a_reset_is_no_list_of_this_boot() {
    let judge = judge(POLICY, &lab());
    let mut host = Host::new("systemd-again");
    let first = round(&host, &judge, None).unwrap();
    host.clock += 1;
    let again = round(&host, &judge, Some(first.state())).unwrap();
    assert_eq!(again.tier(Submodule::Runtime), Tier::Affirming, "the honest twin: the whole list again");

    // The TPM of a copy that was made earlier in this boot: PCR 10 and the list agree with each other, and not with what was proven.
    let whole = std::mem::take(&mut host.ima);
    let end = ImaLog::parse(&whole).unwrap().entries().nth(100).unwrap().at();
    host.tpm.set(HashAlg::Sha256, 10, Digest::zero(HashAlg::Sha256));
    host.run_ima(&whole[..end]);
    let shrunk = round(&host, &judge, Some(first.state())).unwrap();
    assert_eq!(ids(&shrunk), ["ima.shrunk"]);
    assert_eq!(shrunk.tier(Submodule::Runtime), Tier::Contraindicated);
    // After a reset a shorter list is as good as any.
    host.resets += 1;
    assert_eq!(round(&host, &judge, Some(first.state())).unwrap().tier(Submodule::Runtime), Tier::Affirming);
}

#[test]
fn b10_a_delta_continues_only_where_the_last_round_ended() {
    let judge = judge(POLICY, &lab());
    let mut host = Host::new("systemd-again");
    let first = round(&host, &judge, None).unwrap();
    let state = first.state().clone();
    let entries = state.ima().entries;
    // An honest delta: nothing new.
    host.ima = Vec::new();
    host.ima_from = entries;
    host.clock += 10;
    let second = round(&host, &judge, Some(&state)).unwrap();
    assert_eq!(second.tier(Submodule::Runtime), Tier::Affirming);
    // From another entry.
    host.ima_from = entries - 1;
    let Err(resend) = round(&host, &judge, Some(&state)) else { panic!("a wrong offset was accepted") };
    assert!(resend.findings.has("ima.offset"));
    // After a reset: a delta is not enough, whatever it says.
    host.ima_from = entries;
    host.resets += 1;
    let Err(resend) = round(&host, &judge, Some(&state)) else { panic!("a delta after a reset was accepted") };
    assert!(resend.findings.has("ima.delta-after-reset"));
}

#[test]
fn what_an_earlier_round_saw_is_not_forgotten_in_a_delta() {
    let judge = judge(POLICY, &lab());
    let mut host = Host::new("systemd-again");
    let honest = round(&host, &judge, None).unwrap();
    assert_eq!(honest.tier(Submodule::Runtime), Tier::Affirming);
    // A file of another image is executed.
    let foreign = recorded("plain", "ima.bin");
    let log = ImaLog::parse(&foreign).unwrap();
    let (second, third) = (log.entries().nth(1).unwrap().at(), log.entries().nth(2).unwrap().at());
    host.ima.clear();
    host.ima_from = honest.state().ima().entries;
    host.clock += 10;
    host.run_ima(&foreign[second..third]);
    let bad = round(&host, &judge, Some(honest.state())).unwrap();
    assert_eq!(ids(&bad), ["ima.unknown-file"]);
    // The next delta is empty, and the host is still bad.
    host.ima.clear();
    host.ima_from = bad.state().ima().entries;
    host.clock += 10;
    let still = round(&host, &judge, Some(bad.state())).unwrap();
    assert_eq!((ids(&still), still.tier(Submodule::Runtime)), (vec!["ima.unknown-file"], Tier::Contraindicated));
}

#[test]
fn b14_what_the_first_round_found_of_the_list_counts_in_every_delta() {
    let judge = judge(POLICY, &lab());
    let tiers = |mut host: Host| {
        let first = round(&host, &judge, None).unwrap();
        host.ima.clear();
        host.ima_from = first.state().ima().entries;
        host.clock += 10;
        let second = round(&host, &judge, Some(first.state())).unwrap();
        assert_eq!(ids(&first), ids(&second));
        (ids(&second).join(" "), first.tier(Submodule::Runtime), second.tier(Submodule::Runtime))
    };
    assert_eq!(tiers(Host::new("systemd-again")), (String::new(), Tier::Affirming, Tier::Affirming));
    // A list whose first entry is another boot's: the list replays to PCR 10, but is not tied to PCR 0-9.
    let mut host = Host::new("systemd-again");
    let foreign = recorded("plain", "ima.bin");
    let own = booted("systemd-again").1;
    let second = |list: &[u8]| ImaLog::parse(list).unwrap().entries().nth(1).unwrap().at();
    host.tpm.set(HashAlg::Sha256, 10, Digest::zero(HashAlg::Sha256));
    host.ima.clear();
    host.run_ima(&[&foreign[..second(&foreign)], &own[second(&own)..]].concat());
    let bad = tiers(host);
    assert_eq!(bad, ("ima.boot-aggregate".to_owned(), Tier::Contraindicated, Tier::Contraindicated));
}

#[test]
fn b11_a_manifest_that_the_host_log_does_not_hold_is_no_claim() {
    let mut host = Host::new("systemd-again");
    host.manifest = EngineManifest { version: 1, root_is_default: false, engines: BTreeMap::new() }.to_canonical();
    let appraisal = round(&host, &judge(POLICY, &lab()), None).unwrap();
    assert_eq!(
        (ids(&appraisal), appraisal.tier(Submodule::Engine)),
        (vec!["engine.manifest-unlogged"], Tier::Contraindicated)
    );
}

#[test]
fn a_rule_that_is_not_met_costs_what_it_says() {
    let wanted = POLICY.replace("[\"on\", \"off\"]", "\"on\"");
    let appraisal = round(&Host::new("systemd-again"), &judge(&wanted, &lab()), None).unwrap();
    assert_eq!((ids(&appraisal), appraisal.tier(Submodule::Boot)), (vec!["boot.secure-boot"], Tier::Contraindicated));
}

#[test]
fn only_the_first_entry_of_a_whole_list_is_the_boot_aggregate() {
    let judge = judge(POLICY, &lab());
    let mut host = Host::new("systemd-again");
    let honest = round(&host, &judge, None).unwrap();
    assert_eq!(honest.tier(Submodule::Runtime), Tier::Affirming);
    // A program of that name, in a whole list and in a delta.
    let entry = ima_ng("boot_aggregate", &[7; 32]);
    host.run_ima(&entry);
    let whole = round(&host, &judge, None).unwrap();
    assert_eq!((ids(&whole), whole.tier(Submodule::Runtime)), (vec!["ima.unknown-file"], Tier::Contraindicated));
    (host.ima, host.ima_from, host.clock) = (entry, honest.state().ima().entries, host.clock + 10);
    let delta = round(&host, &judge, Some(honest.state())).unwrap();
    assert_eq!((ids(&delta), delta.tier(Submodule::Runtime)), (vec!["ima.unknown-file"], Tier::Contraindicated));
}

#[test]
fn a_kernel_that_measures_nothing_proves_nothing() {
    let mut host = Host::new("systemd-again");
    let log = ImaLog::parse(&host.ima).unwrap();
    let second = log.entries().nth(1).unwrap().at();
    let first = host.ima[..second].to_vec();
    host.ima.clear();
    host.tpm.set(HashAlg::Sha256, 10, Digest::zero(HashAlg::Sha256));
    host.run_ima(&first);
    let appraisal = round(&host, &judge(POLICY, &lab()), None).unwrap();
    assert_eq!(
        (ids(&appraisal), appraisal.tier(Submodule::Runtime)),
        (vec!["ima.nothing-measured", "ima.coverage-gap"], Tier::None)
    );
}

#[test]
fn what_the_list_of_findings_leaves_out_weighs_as_much() {
    let mut host = Host::new("systemd-again");
    // Violations fill the list of findings; the unknown program comes after them.
    let violation = [&10u32.to_le_bytes(), [0u8; 20].as_slice(), &ima_ng("/x", &[1; 32])[24..]].concat();
    for _ in 0..40 {
        host.extend(10, Digest::ones(HashAlg::Sha256));
        host.ima.extend_from_slice(&violation);
    }
    let reserved = round(&host, &judge(POLICY, &lab()), None).unwrap();
    assert_eq!(reserved.tier(Submodule::Runtime), Tier::Warning);
    host.run_ima(&ima_ng("/usr/bin/unknown", &[2; 32]));
    let appraisal = round(&host, &judge(POLICY, &lab()), None).unwrap();
    assert_eq!(appraisal.tier(Submodule::Runtime), Tier::Contraindicated);
    assert!(ids(&appraisal).contains(&"ima.more"));
}

#[test]
fn hostds_word_never_carries_an_affirming_claim() {
    let policy = POLICY
        .replace("claim = \"secure_boot\"", "claim = \"kernel_release\"")
        .replace("boot.secure-boot", "platform.kernel");
    let tier = |policy: &str| {
        let appraisal =
            round_of(&Host::new("systemd-again"), &judge(policy, &lab()), None, TpmClass::Hardware).unwrap();
        appraisal.tier(Submodule::Platform)
    };
    assert_eq!(tier(POLICY), Tier::Affirming, "the honest twin: a TPM chip, and no rule on hostd's word");
    assert_eq!(tier(&policy.replace("[\"on\", \"off\"]", "\"6.1.0\"")), Tier::Warning, "the rule is met");
    assert_eq!(tier(&policy), Tier::Contraindicated, "the rule is not met");
}
