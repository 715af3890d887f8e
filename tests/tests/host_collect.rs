//! What hostd collects on a real software TPM, judged by the production path: genuine, replayed, appraised.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hostmark_attest::appraisal::{Appraisal, Endorsed, Judge, appraise};
use hostmark_attest::digest::{Digest, HashAlg, sha256};
use hostmark_attest::evidence::Evidence;
use hostmark_attest::finding::{Findings, Severity};
use hostmark_attest::genuine::{GenuineEvidence, Last, RoundExpectation};
use hostmark_attest::host_log::{Event, HostLog};
use hostmark_attest::identity::ak::verify_ak;
use hostmark_attest::identity::class::TpmClass;
use hostmark_attest::identity::tag::Tag;
use hostmark_attest::jws::{KeySet, Signer as _};
use hostmark_attest::policy::{AppraisalPolicy, References};
use hostmark_attest::replay::{ParsedLogs, ReplayedLogs};
use hostmark_attest::state::RoundState;
use hostmark_attest::tier::{Submodule, Tier};
use hostmark_attest::tpm::public::Public;
use hostmark_attest::wire::{B64, Challenge, Nonce, SignedTag};
use hostmark_hostd::collect::{CollectError, Collected, Collector};
use hostmark_hostd::config::Config;
use hostmark_hostd::tpm::{Auth, EkKind, Identity, Tpm, TpmError};
use hostmark_tests::engine_files::{DAEMON_JSON_LOCAL_LOGS, DAEMON_JSON_OPEN, DAEMON_JSON_PATH};
use hostmark_tests::forge::systemd_log::Measured;
use hostmark_tests::lab::{host_boot, reference_boot};
use hostmark_tests::machine::Machine;
use hostmark_tests::operator::{OperatorKey, capture_references};
use hostmark_tests::swtpm::{LocalCa, available};
use nix::fcntl::{Flock, FlockArg};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;
use time::OffsetDateTime;

const POLICY: &str = r#"
version = 1
pcrs = { sha256 = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14] }
references = ["lab"]
quirks = ["pcrphase-unlogged"]
[ima]
policy = "container-host"
unknown = "contraindicated"
[engine]
"#;
/// TPM_CC_Quote.
const QUOTE: u32 = 0x158;

/// Commands that somebody else gives the TPM just before it gets the next quotes, one before each.
type Meanwhile = Arc<Mutex<Vec<Vec<u8>>>>;

/// TPM2_PCR_Extend(10) with an empty password and one SHA-256 digest.
fn extend_10(digest: Digest) -> Vec<u8> {
    let head = "8002 00000041 00000182 0000000a 00000009 40000009 0000000000 00000001 000b";
    [hex::decode(head.replace(' ', "")).unwrap(), digest.as_bytes().to_vec()].concat()
}

/// TPM2_DictionaryAttackParameters: no failure at all is tolerated, so the TPM is in lockout from now on.
fn lock_out() -> Vec<u8> {
    let text = "8002 00000027 0000013a 4000000a 00000009 40000009 0000000000 00000000 00001000 00001000";
    hex::decode(text.replace(' ', "")).unwrap()
}

/// A way to the TPM that lets things happen between two commands of its one client.
fn proxy(swtpm: u16, meanwhile: &Meanwhile) -> u16 {
    fn command(stream: &mut TcpStream) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 10];
        stream.read_exact(&mut bytes).ok()?;
        let size = u32::from_be_bytes(bytes[2..6].try_into().unwrap());
        bytes.resize(size.try_into().unwrap(), 0);
        stream.read_exact(&mut bytes[10..]).ok()?;
        Some(bytes)
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let meanwhile = Arc::clone(meanwhile);
    std::thread::spawn(move || {
        while let Ok((mut client, _)) = listener.accept() {
            let mut tpm = TcpStream::connect(("127.0.0.1", swtpm)).unwrap();
            client.set_nodelay(true).unwrap();
            tpm.set_nodelay(true).unwrap();
            while let Some(bytes) = command(&mut client) {
                let code = u32::from_be_bytes(bytes[6..10].try_into().unwrap());
                if code == QUOTE
                    && let Some(other) = meanwhile.lock().unwrap().pop()
                {
                    tpm.write_all(&other).unwrap();
                    assert_eq!(command(&mut tpm).unwrap()[6..10], [0; 4], "done");
                }
                tpm.write_all(&bytes).unwrap();
                client.write_all(&command(&mut tpm).unwrap()).unwrap();
            }
        }
    });
    port
}

struct Bench {
    dir: tempfile::TempDir,
    machine: Machine,
    config: Config,
    tpm: Tpm,
    keys: Identity,
    ek: Public,
    judge: Judge,
    operator: OperatorKey,
    signers: KeySet,
    meanwhile: Meanwhile,
    rounds: u8,
    entries: u32,
}

impl Bench {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = LocalCa::new(&dir.path().join("ca")).unwrap();
        let machine = Machine::boot(&dir.path().join("m"), &ca, &host_boot().unwrap()).unwrap();
        let meanwhile = Meanwhile::default();
        let swtpm = machine.tcti().rsplit_once('=').unwrap().1.parse().unwrap();
        let port = proxy(swtpm, &meanwhile);
        let toml = format!(
            "tpm = \"swtpm:port={port}\"\n[source]\nroot = \"{}\"\nboot_log = \"{}\"\nima = \"{}\"\nuserspace_log = \"{}\"\n\
             run_dir = \"{}\"\nboot_id = \"{}\"\n",
            machine.engines().root().display(),
            machine.boot_log().display(),
            machine.ima().display(),
            machine.userspace_log().display(),
            machine.run_dir().display(),
            machine.boot_id()
        );
        let config = Config::parse("hostd.toml", &toml).unwrap();
        let tpm = Tpm::open(&config.tcti().unwrap(), Auth::default()).unwrap();
        let keys = tpm.create_keys(&dir.path().join("state"), EkKind::EccP384).unwrap();
        let ek = Public::parse(&tpm.ek(Some(EkKind::EccP384)).unwrap().public).unwrap();
        let references = capture_references(&reference_boot().unwrap(), 1).unwrap();
        let references = Arc::new(References::parse("lab", &references).unwrap());
        let judge = Judge::new(Arc::new(AppraisalPolicy::parse("p", POLICY).unwrap()), &[references]).unwrap();
        let operator = OperatorKey::generate().unwrap();
        let spki = SubjectPublicKeyInfoDer::from_pem_slice(operator.public_pem().as_bytes()).unwrap();
        let mut signers = KeySet::new();
        signers.insert(operator.kid(), &spki[spki.len() - 65..]);
        Self { dir, machine, config, tpm, keys, ek, judge, operator, signers, meanwhile, rounds: 0, entries: 0 }
    }

    fn collector(&self) -> Collector {
        Collector::new(&self.config, self.tpm.clone()).unwrap()
    }

    fn challenge(&mut self, state: Option<&RoundState>) -> Challenge {
        self.rounds += 1;
        Challenge {
            nonce: Nonce([self.rounds; 32]),
            expires_in_ms: 60_000,
            selection: self.judge.policy().selection().clone(),
            ima_from: state.map_or(0, |state| state.ima().entries),
            reset_count: state.map_or(0, |state| state.counters().reset_count),
            tag: None,
        }
    }

    fn judge(&self, challenge: &Challenge, collected: &Collected, state: Option<&RoundState>) -> (Appraisal, Evidence) {
        let evidence = Evidence::parse(&collected.evidence).unwrap();
        let ak = verify_ak(&Public::parse(&self.keys.ak_public).unwrap()).unwrap();
        let now = OffsetDateTime::now_utc();
        let expect = RoundExpectation {
            ak: &ak,
            ek_name: self.ek.name(),
            tag_signers: &self.signers,
            tag_serial: None,
            now,
            nonce: challenge.nonce,
            selection: &challenge.selection,
            last: state.map_or(Last::FirstRound, |state| Last::Round(state.counters())),
        };
        let genuine = GenuineEvidence::verify(evidence.clone(), &expect).unwrap();
        let parsed = ParsedLogs::parse(&genuine);
        let logs = ReplayedLogs::replay(&genuine, &parsed, &self.judge, state).unwrap();
        let endorsed = Endorsed { class: TpmClass::Simulated, findings: Findings::new() };
        (appraise(&logs, &self.judge, endorsed, "host-1", "ak-1", state, now).unwrap(), evidence)
    }

    /// One round; its evidence is genuine and replays, or the test ends here.
    fn round(&mut self, collector: &mut Collector, state: Option<&RoundState>) -> (Appraisal, Evidence, Collected) {
        let challenge = self.challenge(state);
        let collected = collector.collect(&challenge).unwrap();
        let (appraisal, evidence) = self.judge(&challenge, &collected, state);
        (appraisal, evidence, collected)
    }

    /// The kernel lists another execution of a known file, and gives what it is about to extend.
    fn kernel_lists(&mut self) -> Digest {
        self.entries += 1;
        let field = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_le_bytes(), bytes].concat();
        // A script that no reference knows would contraindicate; the recorded list's own second entry is known.
        let list = reference_boot().unwrap().ima().unwrap();
        let log = hostmark_attest::ima::ImaLog::parse(&list).unwrap();
        let known = log.entries().nth(self.entries.try_into().unwrap()).unwrap();
        let file = known.measurement().unwrap();
        let path = [file.path, b"\0"].concat();
        let alg = [file.alg.as_bytes(), b":\0", file.digest].concat();
        let data = [field(&alg), field(&path)].concat();
        let mut entry = 10u32.to_le_bytes().to_vec();
        entry.extend(HashAlg::Sha1.hash(&[&data]).unwrap().as_bytes());
        entry.extend([field(b"ima-ng"), field(&data)].concat());
        std::fs::OpenOptions::new().append(true).open(self.machine.ima()).unwrap().write_all(&entry).unwrap();
        HashAlg::Sha256.hash(&[&data]).unwrap()
    }

    fn tag(&self, serial: u64) -> Vec<u8> {
        let tag = Tag {
            ek: self.ek.name().clone(),
            serial,
            label: "restricted".parse().unwrap(),
            location: "jp-east/rack-7".into(),
            not_before: 0,
            not_after: u32::MAX.into(),
        };
        tag.sign(&self.operator).unwrap()
    }
}

fn bad(appraisal: &Appraisal) -> Vec<&str> {
    appraisal.findings().filter(|one| one.severity == Severity::Error).map(|one| one.id.as_str()).collect()
}

fn tiers(appraisal: &Appraisal) -> [Tier; 4] {
    [Submodule::Boot, Submodule::Runtime, Submodule::Engine, Submodule::Tag].map(|one| appraisal.tier(one))
}

const GOOD: [Tier; 4] = [Tier::Affirming, Tier::Affirming, Tier::Warning, Tier::None];

#[test]
fn what_is_collected_is_genuine_replays_and_is_appraised() {
    if !available("evidence of a real software TPM") {
        return;
    }
    let mut bench = Bench::start();
    let mut collector = bench.collector();

    // The first round, whole.
    let start = Instant::now();
    let (first, evidence, collected) = bench.round(&mut collector, None);
    println!("a first round is collected and judged in {} ms", start.elapsed().as_millis());
    assert_eq!((bad(&first), tiers(&first)), (vec![], GOOD));
    assert_eq!(collected.problems, Vec::<String>::new());
    assert_eq!(evidence.ima.from, 0);
    assert_eq!(
        evidence.unanchored().sources,
        ["root", "boot-log", "ima", "userspace-log", "run-dir", "boot-id", "tpm"]
    );
    assert_eq!(evidence.unanchored().facts["cmdline"], reference_boot().unwrap().command_line().unwrap().trim_end());
    let state = first.state().clone();

    // Nothing happened: an empty delta.
    let start = Instant::now();
    let (second, evidence, _) = bench.round(&mut collector, Some(&state));
    println!("a steady round is collected and judged in {} ms", start.elapsed().as_millis());
    assert_eq!((bad(&second), tiers(&second)), (vec![], GOOD));
    assert_eq!((evidence.ima.from, evidence.ima.list.len()), (state.ima().entries, 0));

    // Something ran, and something was listed and is not extended yet.
    let digest = bench.kernel_lists();
    bench.tpm.pcr_extend(10, &[digest]).unwrap();
    bench.kernel_lists();
    let (third, evidence, _) = bench.round(&mut collector, Some(second.state()));
    assert_eq!((bad(&third), tiers(&third)), (vec![], GOOD));
    assert_eq!(evidence.ima.from, state.ima().entries);
    assert_eq!(third.state().ima().entries, state.ima().entries + 1, "the unextended tail is no claim");

    // Another reset count: the whole list, whatever entry is asked for.
    let mut challenge = bench.challenge(Some(third.state()));
    challenge.reset_count += 1;
    let collected = collector.collect(&challenge).unwrap();
    assert_eq!(Evidence::parse(&collected.evidence).unwrap().ima.from, 0);
    assert_eq!(bad(&bench.judge(&challenge, &collected, Some(third.state())).0), Vec::<&str>::new());
}

#[test]
fn a_changed_manifest_is_in_the_host_log_before_it_is_sent() {
    if !available("the host log on a real software TPM") {
        return;
    }
    let mut bench = Bench::start();
    let mut collector = bench.collector();
    let log = |evidence: &Evidence| -> Vec<Event> {
        HostLog::parse(&evidence.host_log).unwrap().records().iter().map(|record| record.event()).collect()
    };
    let last = |evidence: &Evidence| Event::Manifest { sha256: sha256(&[&evidence.unanchored().manifest]) };
    let (first, evidence, _) = bench.round(&mut collector, None);
    let boot = Event::Boot { boot_id: bench.machine.boot_id(), hostd: env!("CARGO_PKG_VERSION").into() };
    assert_eq!(log(&evidence), [boot.clone(), last(&evidence)]);

    // A permitted change, seen by the watcher's call, then by a round alone.
    bench.machine.engines().write(DAEMON_JSON_PATH, DAEMON_JSON_LOCAL_LOGS).unwrap();
    let measured = collector.measure().unwrap();
    assert!(measured.changed && !collector.measure().unwrap().changed, "told once");
    let (second, evidence, _) = bench.round(&mut collector, Some(first.state()));
    assert_eq!((bad(&second), tiers(&second), log(&evidence).len()), (vec![], GOOD, 3));
    bench.machine.engines().write(DAEMON_JSON_PATH, DAEMON_JSON_OPEN).unwrap();
    let (third, evidence, collected) = bench.round(&mut collector, Some(second.state()));
    assert!(collected.measurement.changed);
    assert_eq!(third.tier(Submodule::Engine), Tier::Contraindicated);
    assert!(bad(&third).contains(&"engine.setting"), "{:?}", bad(&third));
    assert_eq!((log(&evidence).len(), log(&evidence).last()), (4, Some(&last(&evidence))));

    // The daemon starts again in the same boot: the log is adopted.
    drop(collector);
    let mut collector = bench.collector();
    let (_, again, _) = bench.round(&mut collector, Some(third.state()));
    assert_eq!(again.host_log, evidence.host_log);

    // Somebody else extends the PCR: it is told here, and explained by the verifier.
    bench.tpm.pcr_extend(13, &[Digest::ones(HashAlg::Sha256)]).unwrap();
    drop(collector);
    let mut collector = bench.collector();
    assert!(collector.problem().unwrap().starts_with("host-log-broken: PCR 13"));
    let (broken, evidence, collected) = bench.round(&mut collector, Some(third.state()));
    assert_eq!(evidence.host_log, again.host_log, "it is sent as it is");
    assert!(collected.problems[0].starts_with("host-log-broken"), "{:?}", collected.problems);
    assert!(bad(&broken).contains(&"host-log.replay"), "{:?}", bad(&broken));
}

#[test]
fn e5_a_configuration_that_was_edited_and_restored_is_in_the_host_log() {
    if !available("an edit that is undone at once") {
        return;
    }
    let mut bench = Bench::start();
    let mut collector = bench.collector();
    let weighty = |appraisal: &Appraisal| -> Vec<String> {
        let engine = appraisal.findings().filter(|one| one.id.starts_with("engine."));
        engine.filter(|one| one.severity != Severity::Info).map(|one| one.id.clone()).collect()
    };
    let logged = |evidence: &Evidence| -> Vec<Event> {
        let log = HostLog::parse(&evidence.host_log).unwrap();
        log.records().iter().map(|record| record.event()).skip(1).collect()
    };
    let quiet = || std::thread::sleep(std::time::Duration::from_millis(20));
    let (first, ..) = bench.round(&mut collector, None);
    assert_eq!(weighty(&first), Vec::<String>::new());

    // Honest: each state is measured, so each is in the log, and nothing is unknown.
    let original = std::fs::read_to_string(bench.machine.engines().root().join(DAEMON_JSON_PATH)).unwrap();
    for text in [DAEMON_JSON_LOCAL_LOGS, &original] {
        quiet();
        bench.machine.engines().write(DAEMON_JSON_PATH, text).unwrap();
        assert!(collector.measure().unwrap().changed);
    }
    let (second, evidence, _) = bench.round(&mut collector, Some(first.state()));
    assert_eq!(weighty(&second), Vec::<String>::new());
    let manifests = logged(&evidence);
    assert!(manifests.len() == 3 && manifests[0] == manifests[2] && manifests[0] != manifests[1], "{manifests:?}");

    // The same faster than anybody looks.
    quiet();
    for text in [DAEMON_JSON_OPEN, &original] {
        bench.machine.engines().write(DAEMON_JSON_PATH, text).unwrap();
    }
    assert!(collector.measure().unwrap().changed, "attested at once");
    let (third, evidence, _) = bench.round(&mut collector, Some(second.state()));
    assert_eq!(
        (weighty(&third), third.tier(Submodule::Engine)),
        (vec!["engine.content-unknown".into()], Tier::Contraindicated)
    );
    let last = logged(&evidence).pop().unwrap();
    assert!(matches!(&last, Event::ContentUnknown { what, .. } if what == "/etc/docker/daemon.json"), "{last:?}");
    assert_eq!(logged(&evidence).len(), 4, "once");

    // One that nobody can read.
    quiet();
    let path = bench.machine.engines().root().join(DAEMON_JSON_PATH);
    std::fs::File::create(&path).unwrap().set_len(2 << 20).unwrap();
    let (fourth, evidence, _) = bench.round(&mut collector, Some(third.state()));
    assert!(bad(&fourth).contains(&"engine.unreadable"), "{:?}", bad(&fourth));
    quiet();
    bench.machine.engines().write(DAEMON_JSON_PATH, &original).unwrap();
    let (fifth, ..) = bench.round(&mut collector, Some(fourth.state()));
    assert_eq!(weighty(&fifth), ["engine.content-unknown"], "restored, and not forgotten");
    let unread = |event: &Event| matches!(event, Event::ContentUnknown { why, .. } if why == "it could not be read");
    assert!(logged(&evidence).iter().any(unread));
}

#[test]
fn e15_a_stranger_at_the_tpm_is_named_and_a_lockout_stops_nobody() {
    if !available("a TPM that somebody else uses") {
        return;
    }
    let mut bench = Bench::start();
    let mut collector = bench.collector();
    let (first, ..) = bench.round(&mut collector, None);
    assert_eq!((bad(&first), tiers(&first)), (vec![], GOOD), "the honest twin");
    // AK and TLS key have noDA: in lockout both still sign, and their keys load.
    bench.meanwhile.lock().unwrap().push(lock_out());
    let (locked, ..) = bench.round(&mut collector, Some(first.state()));
    assert!(bench.meanwhile.lock().unwrap().is_empty());
    assert!(bench.tpm.facts().unwrap().in_lockout, "the attack did what it should");
    let (still, ..) = bench.round(&mut collector, Some(locked.state()));
    assert_eq!((bad(&locked), bad(&still), tiers(&still)), (vec![], vec![], GOOD));
    bench.tpm.open_keys(&bench.dir.path().join("state")).unwrap();
    bench.tpm.signing_time(1).unwrap();
    // PCR 13 by another hand: the log and the PCR part, and both sides say so.
    bench.tpm.pcr_extend(13, &[Digest::ones(HashAlg::Sha256)]).unwrap();
    let (broken, ..) = bench.round(&mut collector, Some(still.state()));
    assert_eq!(bad(&broken), ["host-log.replay"]);
    let finding = broken.findings().find(|one| one.id == "host-log.replay").unwrap();
    assert!(finding.message.contains("PCR 13"), "{finding}");
    let (_, _, collected) = {
        bench.machine.engines().write(DAEMON_JSON_PATH, DAEMON_JSON_LOCAL_LOGS).unwrap();
        bench.round(&mut collector, Some(broken.state()))
    };
    println!("hostd says: {:?}", collected.problems);
}

#[test]
fn e14_a_library_that_would_be_loaded_beside_hostd_is_told() {
    if !available("a preloaded library") {
        return;
    }
    let mut bench = Bench::start();
    let mut collector = bench.collector();
    let (first, evidence, _) = bench.round(&mut collector, None);
    assert_eq!((bad(&first), evidence.unanchored().facts.get("hostd-preload")), (vec![], None), "the honest twin");
    let rows = [
        ("etc/ld.so.preload", "/tmp/x.so\n"),
        ("etc/systemd/system/hostmark-hostd.service.d/x.conf", "[Service]\nEnvironment=LD_PRELOAD=/tmp/x.so\n"),
    ];
    for (path, text) in rows {
        bench.machine.engines().write(path, text).unwrap();
        let (round, ..) = bench.round(&mut collector, Some(first.state()));
        assert_eq!(
            (bad(&round), round.tier(Submodule::Engine)),
            (vec!["hostd.preload"], Tier::Contraindicated),
            "{path}"
        );
        bench.machine.engines().remove(path).unwrap();
    }
    let (last, ..) = bench.round(&mut collector, Some(first.state()));
    assert_eq!(bad(&last), Vec::<&str>::new());
}

#[test]
fn a_pcr_that_moves_while_quoting_is_quoted_again() {
    if !available("quotes of a moving PCR") {
        return;
    }
    let mut bench = Bench::start();
    let mut collector = bench.collector();
    let (first, ..) = bench.round(&mut collector, None);
    // The kernel lists, then extends; twice it does so between hostd's reading and quoting.
    let mut digests: Vec<Vec<u8>> = (0..2).map(|_| extend_10(bench.kernel_lists())).collect();
    digests.reverse();
    *bench.meanwhile.lock().unwrap() = digests;
    let (second, ..) = bench.round(&mut collector, Some(first.state()));
    assert!(bench.meanwhile.lock().unwrap().is_empty(), "both quotes were overtaken");
    assert_eq!((bad(&second), tiers(&second)), (vec![], GOOD));
    assert_eq!(second.state().ima().entries, first.state().ima().entries + 2);

    // A third time in a row: no evidence now, and the next round is good.
    let mut digests: Vec<Vec<u8>> = (0..3).map(|_| extend_10(bench.kernel_lists())).collect();
    digests.reverse();
    *bench.meanwhile.lock().unwrap() = digests;
    let challenge = bench.challenge(Some(second.state()));
    let error = collector.collect(&challenge).unwrap_err();
    assert!(matches!(error, CollectError::Tpm(TpmError::PcrsMoving { tries: 3 })), "{error}");
    let (third, ..) = bench.round(&mut collector, Some(second.state()));
    assert_eq!((bad(&third), tiers(&third)), (vec![], GOOD));
}

#[test]
fn a_tag_is_written_certified_and_replaced_by_a_newer_one() {
    if !available("an asset tag in a real software TPM") {
        return;
    }
    let mut bench = Bench::start();
    let mut collector = bench.collector();
    let mut state: Option<RoundState> = None;
    for serial in [1, 2, 2] {
        let mut challenge = bench.challenge(state.as_ref());
        let nv = bench.tag(serial);
        challenge.tag = Some(SignedTag { nv: B64(nv.clone()) });
        let collected = collector.collect(&challenge).unwrap();
        let (appraisal, evidence) = bench.judge(&challenge, &collected, state.as_ref());
        assert_eq!((bad(&appraisal), appraisal.tier(Submodule::Tag)), (vec![], Tier::Affirming), "serial {serial}");
        assert_eq!(evidence.unanchored().tag.as_ref().unwrap().nv, nv);
        state = Some(appraisal.state().clone());
    }
    // It stays, without being sent again.
    let (later, ..) = bench.round(&mut collector, state.as_ref());
    assert_eq!(later.tier(Submodule::Tag), Tier::Affirming);
    // One that no TPM would certify is told, and the rest is sent.
    let mut challenge = bench.challenge(Some(later.state()));
    challenge.tag = Some(SignedTag { nv: B64(vec![0; 4000]) });
    let collected = collector.collect(&challenge).unwrap();
    assert!(collected.problems[0].contains("4000 bytes"), "{:?}", collected.problems);
    let (kept, _) = bench.judge(&challenge, &collected, Some(later.state()));
    assert_eq!(kept.tier(Submodule::Tag), Tier::Affirming);
}

#[test]
fn b11_what_systemd_extends_during_a_round_is_never_a_mismatch() {
    if !available("systemd's log that grows while rounds are collected") {
        return;
    }
    let mut bench = Bench::start();
    let path = bench.machine.userspace_log();
    let mut collector = bench.collector();
    // Before systemd's first record there is no log, and no part of one.
    let (before, evidence, _) = bench.round(&mut collector, None);
    assert_eq!((bad(&before), evidence.userspace_log.len()), (vec![], 0));
    let tpm = bench.tpm.clone();
    let systemd = std::thread::spawn(move || {
        for word in ["enter-initrd", "leave-initrd", "sysinit", "ready", "shutdown", "final"] {
            let measured = Measured::phase(word);
            let log = OpenOptions::new().append(true).create(true).open(&path).unwrap();
            let log = Flock::lock(log, FlockArg::LockExclusive).unwrap();
            tpm.pcr_extend(measured.pcr, &[measured.digest(HashAlg::Sha256)]).unwrap();
            // Whoever quotes now without the lock has a PCR that no record explains.
            std::thread::sleep(Duration::from_millis(120));
            (&*log).write_all(measured.line(&[HashAlg::Sha256]).as_bytes()).unwrap();
            drop(log);
            std::thread::sleep(Duration::from_millis(250));
        }
    });
    let (mut state, mut lengths) = (before.state().clone(), BTreeSet::new());
    loop {
        let last = systemd.is_finished();
        let (appraisal, evidence, collected) = bench.round(&mut collector, Some(&state));
        assert_eq!(
            (bad(&appraisal), appraisal.tier(Submodule::Boot)),
            (vec![], Tier::Affirming),
            "{:?}",
            collected.problems
        );
        lengths.insert(evidence.userspace_log.len());
        state = appraisal.state().clone();
        if last {
            let told = appraisal.boot().unwrap().userspace[&11].len();
            assert_eq!((told, collected.problems.len()), (6, 0));
            break;
        }
    }
    systemd.join().unwrap();
    assert!(lengths.len() > 2, "rounds saw the log grow: {lengths:?}");
}

#[test]
fn absent_logs_are_empty_parts_and_give_no_credit() {
    if !available("a host without logs") {
        return;
    }
    let mut bench = Bench::start();
    let nowhere = bench.dir.path().join("nowhere");
    bench.config.source.boot_log = nowhere.clone();
    bench.config.source.ima = nowhere;
    let mut collector = bench.collector();
    let challenge = bench.challenge(None);
    let collected = collector.collect(&challenge).unwrap();
    assert_eq!(collected.problems.len(), 2, "{:?}", collected.problems);
    let (appraisal, evidence) = bench.judge(&challenge, &collected, None);
    assert_eq!((evidence.boot_log.len(), evidence.ima.list.len()), (0, 0));
    assert!(
        appraisal.tier(Submodule::Boot) != Tier::Affirming && appraisal.tier(Submodule::Runtime) != Tier::Affirming
    );
}
