//! E7: a host daemon that is killed, stopped or replaced keeps no trust beyond its lease, and comes back by attesting again.
//! Real hostd, real verifier, a software TPM each.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use hostmark_tests::hostd::Hostd;
use hostmark_tests::lab::{LABEL, Lab, POOL, shipped_files};
use hostmark_tests::swtpm;
use hostmark_tests::wait::until;
use hostmark_verifier::api::views::ApplyPools;
use serde_json::Value;

const LEASE: Duration = Duration::from_secs(8);
const LONG: Duration = Duration::from_secs(90);

fn placed(lab: &Lab, node: &str) -> bool {
    lab.place(LABEL, 100).unwrap().hosts.iter().any(|one| one.node == node)
}

/// Waits for the end of the host's place; it must come at most a lease after `silent`.
fn ends_with_the_lease(lab: &Lab, node: &str, silent: Instant, what: &str) {
    until(what, LONG, || {
        let asked = Instant::now();
        let yes = placed(lab, node);
        assert!(!yes || asked < silent + LEASE + Duration::from_millis(5), "{what}: a permit after the lease");
        Ok((!yes).then_some(()))
    })
    .unwrap();
    assert_eq!(lab.standing(node).unwrap().fields.state, hostmark_attest::wire::HostState::Lapsed, "{what}");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn back(lab: &Lab, host: &mut Hostd, what: &str) {
    until(what, LONG, || {
        host.process()?.must_run()?;
        Ok(placed(lab, host.name()).then_some(()))
    })
    .unwrap();
}

#[test]
fn e7_a_killed_stopped_or_replaced_hostd_is_trusted_no_longer_than_its_lease() {
    if !swtpm::available("e7") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::start(dir.path(), "").unwrap();
    let mut pools = shipped_files("pools").unwrap();
    pools.retain(|file| file.name == POOL);
    pools[0].toml = pools[0].toml.replace("lease = \"60s\"", "lease = \"8s\"");
    let mut admission = shipped_files("admission").unwrap();
    admission.retain(|file| file.name == POOL);
    let apply = ApplyPools { pools, admission, dry_run: false };
    let _: Value = lab.admin.post("/v1/pools", &apply).unwrap().read().unwrap();
    let mut host = lab.admitted_host("node-1").unwrap();
    let old_state = dir.path().join("old-state");
    copy(&host.state_dir(), &old_state);

    // Honest: it outlives its first lease.
    let first = lab.standing("node-1").unwrap().result;
    until("a later round", LONG, || Ok((lab.standing("node-1")?.result != first).then_some(()))).unwrap();
    back(&lab, &mut host, "honest");

    host.kill();
    ends_with_the_lease(&lab, "node-1", Instant::now(), "killed");
    host.run().unwrap();
    back(&lab, &mut host, "back after a kill");

    host.process().unwrap().freeze().unwrap();
    ends_with_the_lease(&lab, "node-1", Instant::now(), "stopped");
    host.process().unwrap().thaw().unwrap();
    back(&lab, &mut host, "back after a stop");

    // Another process on its socket: the verifier never asks there, so nothing is gained.
    host.kill();
    let silent = Instant::now();
    let sockets: Vec<_> = std::fs::read_dir(host.machine.run_dir())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sock"))
        .collect();
    for socket in &sockets {
        std::fs::remove_file(socket).unwrap();
    }
    let impostor = sockets.first().cloned().unwrap_or_else(|| host.machine.run_dir().join("hostd.sock"));
    let listener = std::os::unix::net::UnixListener::bind(&impostor).unwrap();
    ends_with_the_lease(&lab, "node-1", silent, "its socket taken");
    drop(listener);
    std::fs::remove_file(&impostor).unwrap();
    host.run().unwrap();
    back(&lab, &mut host, "back after its socket was taken");

    // State from a copy: the keys are the TPM's, so it must attest, and does.
    host.kill();
    let silent = Instant::now();
    std::fs::remove_dir_all(host.state_dir()).unwrap();
    copy(&old_state, &host.state_dir());
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(host.state_dir(), std::fs::Permissions::from_mode(0o700)).unwrap();
    ends_with_the_lease(&lab, "node-1", silent, "its state restored");
    let before = lab.standing("node-1").unwrap().result;
    host.run().unwrap();
    back(&lab, &mut host, "back with its old state");
    assert_ne!(lab.standing("node-1").unwrap().result, before, "by a new round");
}
