//! The harness's machines are what they stand for: their TPM's PCRs are the recorded boot's, and a reboot starts them anew.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;

use hostmark_attest::digest::{Digest, HashAlg, PcrValues};
use hostmark_attest::ima::{ImaLog, ImaPosition, ImaQuirks, replay_prefix};
use hostmark_attest::manifest::{EngineManifest, compare};
use hostmark_attest::policy::References;
use hostmark_attest::selection::PcrSelection;
use hostmark_tests::engine_files::{DAEMON_JSON_LOCAL_LOGS, DAEMON_JSON_OPEN, DAEMON_JSON_PATH};
use hostmark_tests::lab::{HOST_BOOT, REFERENCE_BOOT, judged_by_another_boot};
use hostmark_tests::machine::Machine;
use hostmark_tests::operator::capture_references;
use hostmark_tests::recording::Recording;
use hostmark_tests::swtpm::{LocalCa, available};

fn quoted(recording: &Recording) -> PcrValues {
    let text = std::fs::read_to_string(recording.path("pcrs.quoted.txt")).unwrap();
    let value = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        (words[1].parse().unwrap(), Digest::from_hex(HashAlg::Sha256, words[2]).unwrap())
    };
    text.lines().map(value).collect()
}

fn pcrs(machine: &Machine) -> PcrValues {
    let selection = PcrSelection::from_text("sha256:0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15").unwrap();
    machine.tpm().unwrap().pcr_read(&selection).unwrap()[&HashAlg::Sha256].clone()
}

#[test]
fn a_machine_is_in_the_recorded_boots_state_before_and_after_a_reboot() {
    if !available("machines in a recorded boot's state") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let ca = LocalCa::new(&dir.path().join("ca")).unwrap();
    let recording = Recording::named("systemd-again").unwrap();
    let mut machine = Machine::boot(&dir.path().join("m"), &ca, &recording).unwrap();
    assert_eq!(pcrs(&machine), quoted(&recording));
    let first = (machine.boot_id(), machine.run_dir(), machine.tpm().unwrap().time().unwrap());

    // A program that the recorded machine never ran: list and PCR 10 agree, and both differ from the recording.
    machine.execute("/usr/local/bin/surprise", b"surprise").unwrap();
    let list = std::fs::read(machine.ima()).unwrap();
    let log = ImaLog::parse(&list).unwrap();
    let now = pcrs(&machine)[&10];
    assert_ne!(now, quoted(&recording)[&10]);
    let target = BTreeMap::from([(HashAlg::Sha256, now)]);
    let prefix = replay_prefix(&log, &ImaPosition::default(), &target, ImaQuirks::default()).unwrap();
    assert_eq!((prefix.verified(), prefix.tail()), (log.len(), 0));

    machine.reboot().unwrap();
    assert_eq!(pcrs(&machine), quoted(&recording));
    let time = machine.tpm().unwrap().time().unwrap();
    assert!(time.reset_count > first.2.reset_count);
    assert!(machine.boot_id() != first.0 && machine.run_dir() != first.1);
}

#[test]
fn references_name_both_permitted_configurations_and_no_other() {
    let recording = Recording::named("systemd").unwrap();
    let text = capture_references(&recording, 1).unwrap();
    let references = References::parse("lab-uki", &text).unwrap();
    let window = references.open(time::OffsetDateTime::now_utc()).next().unwrap().clone();
    let dir = tempfile::tempdir().unwrap();
    let files = hostmark_tests::engine_files::EngineFiles::create(dir.path()).unwrap();
    let ids = || {
        let manifest = EngineManifest::parse(&files.manifest()).unwrap();
        let findings = compare(&manifest, window.engine().unwrap());
        findings.into_vec().into_iter().map(|finding| finding.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(), ["engine.root"]);
    files.write(DAEMON_JSON_PATH, DAEMON_JSON_LOCAL_LOGS).unwrap();
    assert_eq!(ids(), ["engine.root"]);
    files.write(DAEMON_JSON_PATH, DAEMON_JSON_OPEN).unwrap();
    let findings = ids();
    assert!(findings.contains(&"engine.file-changed".to_owned()), "{findings:?}");
    assert!(findings.contains(&"engine.setting".to_owned()), "{findings:?}");
}

#[test]
fn no_reference_of_the_demo_comes_from_the_recording_of_the_host_it_judges() {
    let (host, references) = (Recording::named(HOST_BOOT).unwrap(), Recording::named(REFERENCE_BOOT).unwrap());
    judged_by_another_boot(&host, &references).unwrap();
    judged_by_another_boot(&host, &host).unwrap_err();
    judged_by_another_boot(&references, &references).unwrap_err();
    // The honest host of the demo is another boot of the same image: same firmware and kernel, another history.
    assert_ne!(host.ima().unwrap(), references.ima().unwrap());
    assert_eq!(host.command_line().unwrap(), references.command_line().unwrap());
}
