//! The main job with the real programs: a host proves itself, is admitted, changes, reboots, stops; its verifier ends and returns.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::time::{Duration, Instant};

use hostmark_attest::finding::Severity;
use hostmark_attest::tier::Submodule;
use hostmark_attest::wire::HostState;
use hostmark_tests::engine_files::{DAEMON_JSON, DAEMON_JSON_LOCAL_LOGS, DAEMON_JSON_OPEN, DAEMON_JSON_PATH};
use hostmark_tests::hostd::Hostd;
use hostmark_tests::lab::{Lab, POOL};
use hostmark_tests::machine::change_last_event;
use hostmark_tests::swtpm::available;
use hostmark_tests::wait::until;

/// From an engine's file being written to the scheduler being refused. Far above what it takes, far below a lease.
const NOTICED: Duration = Duration::from_secs(15);
/// A lease that a test can wait for.
const LEASE: &str = "10s";
const LEASE_TIME: Duration = Duration::from_secs(10);
/// Anything that needs a few rounds, on a loaded machine.
const SOON: Duration = Duration::from_secs(60);

fn lab(what: &str) -> Option<(tempfile::TempDir, Lab)> {
    if !available(what) {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::start(dir.path(), "").unwrap();
    Some((dir, lab))
}

/// Ids of a subsystem's findings that count against it.
fn against(lab: &Lab, node: &str, subsystem: Submodule) -> Vec<String> {
    let standing = lab.standing(node).unwrap();
    let findings = standing.subsystems.get(&subsystem).map(|one| one.findings.clone()).unwrap_or_default();
    findings.into_iter().filter(|one| one.severity == Severity::Error).map(|one| one.id).collect()
}

fn state(lab: &Lab, node: &str) -> HostState {
    lab.standing(node).unwrap().fields.state
}

/// The nodes that may carry an `internal` workload now.
fn placed(lab: &Lab) -> Vec<String> {
    lab.place("internal", 10).unwrap().hosts.into_iter().map(|one| one.node).collect()
}

fn wait_state(lab: &Lab, node: &str, wanted: HostState, within: Duration) -> Duration {
    let what = format!("{node} is {wanted:?}, not {:?}", state(lab, node));
    until(&what, within, || Ok((state(lab, node) == wanted).then_some(()))).unwrap().1
}

/// Waits for a good round whose nonce was issued after `since`.
fn wait_proof(lab: &Lab, node: &str, since: Instant) {
    until(&format!("a proof of {node} that is newer than {since:?}"), SOON, || {
        let fields = lab.standing(node)?.fields;
        let age = Duration::from_millis(fields.age_ms.unwrap_or(u64::MAX));
        Ok((fields.state == HostState::Proven && age < since.elapsed()).then_some(()))
    })
    .unwrap();
}

#[test]
fn a_host_is_admitted_leaves_its_pool_when_its_engine_changes_and_returns_when_it_is_mended() {
    let Some((_dir, lab)) = lab("a host's life in a pool") else { return };
    let mut host = lab.admitted_host("node-1").unwrap();
    assert_eq!(placed(&lab), ["node-1"]);
    assert_eq!(state(&lab, "node-1"), HostState::Proven);
    let placement = lab.place("internal", 1).unwrap();
    assert!(!placement.hosts[0].permit.is_empty() && placement.hosts[0].remaining_ms <= 60_000);
    let verdict = lab.verdict("phi-a", "node-1").unwrap();
    assert!(!verdict.admitted, "a software TPM enters no production pool");
    let unmet: Vec<_> = verdict.conditions.iter().filter(|one| !one.met).map(|one| one.id.as_str()).collect();
    assert!(unmet.contains(&"admission.tpm-class") && unmet.contains(&"admission.label"), "{unmet:?}");

    // Another configuration that the references permit: measured, told at once, and no reason to leave.
    let permitted = Instant::now();
    host.machine.engines().write(DAEMON_JSON_PATH, DAEMON_JSON_LOCAL_LOGS).unwrap();
    wait_proof(&lab, "node-1", permitted);
    assert_eq!(placed(&lab), ["node-1"]);

    let written = Instant::now();
    host.machine.engines().write(DAEMON_JSON_PATH, DAEMON_JSON_OPEN).unwrap();
    until("a refused placement", NOTICED, || Ok(placed(&lab).is_empty().then_some(()))).unwrap();
    println!("from the write to the scheduler's refusal: {:?}", written.elapsed());
    assert_eq!(state(&lab, "node-1"), HostState::Disproven);
    let found = against(&lab, "node-1", Submodule::Engine);
    assert!(found.contains(&"engine.file-changed".to_owned()), "{found:?}");
    assert!(found.contains(&"engine.setting".to_owned()), "{found:?}");
    let refused = lab.place("internal", 1).unwrap().refused;
    assert_eq!(refused[0].node, "node-1");
    let verdict = lab.verdict(POOL, "node-1").unwrap();
    let engine = verdict.conditions.iter().find(|one| one.id == "admission.engine").unwrap();
    assert!(!engine.met && engine.fix.is_some());
    let named = engine.findings.iter().any(|one| one.message.contains("/etc/docker/daemon.json") && one.fix.is_some());
    assert!(named, "{engine:?}");

    host.machine.engines().write(DAEMON_JSON_PATH, DAEMON_JSON).unwrap();
    lab.wait_admitted(&mut host).unwrap();
    assert_eq!(state(&lab, "node-1"), HostState::Proven);
    host.stop().unwrap();
}

#[test]
fn a_host_comes_back_after_a_reboot_and_after_kill_9() {
    let Some((_dir, lab)) = lab("reboot and kill -9 of a host") else { return };
    lab.shorten_lease(LEASE).unwrap();
    let mut host = lab.admitted_host("node-1").unwrap();
    let id = host.id().unwrap();

    // Killed: its permit ends with the lease at the latest, nobody has to notice; then it returns by itself.
    host.kill();
    let killed = Instant::now();
    wait_state(&lab, "node-1", HostState::Lapsed, LEASE_TIME * 2);
    assert!(killed.elapsed() <= LEASE_TIME + Duration::from_secs(2), "{:?}", killed.elapsed());
    assert!(placed(&lab).is_empty());
    host.run().unwrap();
    lab.wait_admitted(&mut host).unwrap();

    // Stopped, with its connections open: the same.
    host.process().unwrap().freeze().unwrap();
    wait_state(&lab, "node-1", HostState::Lapsed, LEASE_TIME * 2);
    assert!(placed(&lab).is_empty());
    host.process().unwrap().thaw().unwrap();
    lab.wait_admitted(&mut host).unwrap();

    // Another boot: the same host, whole logs, a host log that begins anew.
    let rebooted = Instant::now();
    host.reboot().unwrap();
    host.run().unwrap();
    wait_proof(&lab, "node-1", rebooted);
    assert_eq!(placed(&lab), ["node-1"]);
    assert_eq!(host.id().unwrap(), id);
    assert_eq!(lab.hosts().unwrap().len(), 1);
}

#[test]
fn trust_outlives_the_verifiers_process_and_grows_without_it_in_no_host() {
    let Some((_dir, mut lab)) = lab("stop and kill -9 of a verifier") else { return };
    let mut hosts: Vec<Hostd> = ["node-1", "node-2"].map(|node| lab.admitted_host(node).unwrap()).into();
    for kill in [false, true] {
        if kill {
            lab.verifier.kill();
        } else {
            lab.verifier.stop().unwrap();
        }
        lab.verifier.restart().unwrap();
        // The same boot of the verifier's machine: what is left of the leases still holds.
        assert_eq!(placed(&lab).len(), 2, "kill: {kill}");
        wait_proof(&lab, "node-1", Instant::now());
    }

    // What happens to a host while nobody looks is seen when somebody looks again.
    lab.verifier.kill();
    hosts[0].machine.engines().write(DAEMON_JSON_PATH, DAEMON_JSON_OPEN).unwrap();
    lab.verifier.restart().unwrap();
    lab.wait_refused(&mut hosts[0]).unwrap();
    wait_state(&lab, "node-1", HostState::Disproven, SOON);
    assert_eq!(placed(&lab), ["node-2"]);
}

#[test]
fn what_the_kernel_executed_and_what_the_firmware_logged_is_judged() {
    let Some((_dir, lab)) = lab("bad logs of a host") else { return };
    let mut honest = lab.admitted_host("node-1").unwrap();

    let mut host = lab.host("node-2").unwrap();
    lab.enrol(&host).unwrap();
    host.machine.execute("/usr/local/bin/surprise", b"surprise").unwrap();
    host.run().unwrap();
    wait_state(&lab, "node-2", HostState::Disproven, SOON);
    assert_eq!(against(&lab, "node-2", Submodule::Runtime), ["ima.unknown-file"]);

    let mut host = lab.host("node-3").unwrap();
    lab.enrol(&host).unwrap();
    host.machine.tamper_boot_log(change_last_event).unwrap();
    host.run().unwrap();
    wait_state(&lab, "node-3", HostState::Disproven, SOON);
    let found = against(&lab, "node-3", Submodule::Boot);
    assert!(found.contains(&"boot.replay".to_owned()), "{found:?}");

    assert_eq!(placed(&lab), ["node-1"]);
    lab.wait_admitted(&mut honest).unwrap();
}
