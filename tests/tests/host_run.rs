//! `hostd run` against the running verifier: rounds, changes, outages, restarts, the status socket, deprovisioning.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::time::{Duration, Instant};

use hostmark_tests::engine_files::{DAEMON_JSON, DAEMON_JSON_LOCAL_LOGS, DAEMON_JSON_OPEN, DAEMON_JSON_PATH};
use hostmark_tests::lab::{Lab, ROUND};
use hostmark_tests::swtpm::available;
use hostmark_tests::wait::until;

#[test]
fn a_host_proves_itself_through_changes_outages_and_restarts() {
    if !available("the daemon against a verifier") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut lab = Lab::start(dir.path(), "").unwrap();
    let mut host = lab.host("node-1").unwrap();
    assert_eq!(host.hostd("run", &[]).unwrap().code, Some(2), "a host that is not provisioned has nothing to prove");
    lab.enrol(&host).unwrap();
    assert_eq!(host.hostd("status", &[]).unwrap().code, Some(3), "it does not run");
    let start = Instant::now();
    host.run().unwrap();
    lab.wait_admitted(&mut host).unwrap();
    println!("from the start of hostd to its admission: {} ms", start.elapsed().as_millis());
    let status = host.status().unwrap();
    assert_eq!((&status["state"], &status["node"]), (&"proven".into(), &"node-1".into()));
    println!("the round took {} ms", status["last_round_ms"]);
    assert_eq!(host.hostd("status", &[]).unwrap().code, Some(0));
    assert_eq!(host.hostd("run", &[]).unwrap().code, Some(2), "one process for a state directory");

    // What nobody permits, and back.
    let start = Instant::now();
    host.machine.engines().write(DAEMON_JSON_PATH, DAEMON_JSON_OPEN).unwrap();
    lab.wait_refused(&mut host).unwrap();
    println!("from the write to the verifier's refusal: {} ms", start.elapsed().as_millis());
    until("hostd knows", ROUND, || Ok((host.hostd("status", &[])?.code == Some(1)).then_some(()))).unwrap();
    host.machine.engines().write(DAEMON_JSON_PATH, DAEMON_JSON).unwrap();
    lab.wait_admitted(&mut host).unwrap();

    // The verifier is away for a while: the host keeps trying, and says so.
    lab.verifier.kill();
    host.machine.engines().write(DAEMON_JSON_PATH, DAEMON_JSON_LOCAL_LOGS).unwrap();
    until("hostd misses its verifier", ROUND, || {
        Ok(host.status()?["last_error"]
            .as_str()
            .is_some_and(|error| error.contains("can not be reached"))
            .then_some(()))
    })
    .unwrap();
    lab.verifier.restart().unwrap();
    let seen = until("a round after the outage", ROUND, || Ok(host.status()?["last_error"].is_null().then_some(())));
    println!("from the verifier's return to a round: {} ms", seen.unwrap().1.as_millis());
    lab.wait_admitted(&mut host).unwrap();

    // Killed and started again in the same boot; then another boot.
    host.kill();
    assert_eq!(host.hostd("status", &[]).unwrap().code, Some(3));
    for reboot in [false, true] {
        if reboot {
            host.reboot().unwrap();
        }
        host.run().unwrap();
        until("a round after the restart", ROUND, || {
            let status = host.status().unwrap_or_default();
            Ok((status["last_round"].is_string() && status["state"] == "proven").then_some(()))
        })
        .unwrap();
        assert_eq!(host.status().unwrap()["problems"], serde_json::json!([]), "after a reboot: {reboot}");
        host.stop().unwrap();
    }
    assert!(host.log().contains("stopped"));

    // Forgotten, keys and tag.
    assert_eq!(host.hostd("deprovision", &[]).unwrap().code, Some(2), "not without --yes");
    let told = host.hostd("deprovision", &["--yes"]).unwrap();
    assert_eq!(told.code, Some(0), "{told:?}");
    assert_eq!(host.hostd("run", &[]).unwrap().code, Some(2), "it is nobody's now");
}

#[test]
fn an_expired_certificate_is_renewed_by_a_quote_without_a_person() {
    if !available("renewal by a quote") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::start(dir.path(), "host_certificate = \"3s\"\n").unwrap();
    let mut host = lab.host("node-1").unwrap();
    lab.enrol(&host).unwrap();
    let file = host.state_dir().join("host.json");
    // By its own clock, and where only the verifier knows (it answers 401).
    for believed in [None, Some("2099-01-01T00:00:00Z")] {
        std::thread::sleep(Duration::from_secs(4));
        let mut kept: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let old = kept["identity"]["certificate"].clone();
        if let Some(end) = believed {
            kept["identity"]["not_after"] = end.into();
            std::fs::write(&file, kept.to_string()).unwrap();
        }
        host.run().unwrap();
        until("a round with a new certificate", ROUND, || {
            Ok((host.status().unwrap_or_default()["state"] == "proven").then_some(()))
        })
        .unwrap();
        host.stop().unwrap();
        let kept: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert!(kept["identity"]["certificate"] != old, "{believed:?}");
        assert_ne!(kept["identity"]["not_after"], "2099-01-01T00:00:00Z");
    }
    assert_eq!(host.log().matches("certificate renewed").count(), 2, "{}", host.log());
}
