//! The verifier as a process: who may ask, and what survives its end.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use hostmark_tests::client::{Client, Credentials};
use hostmark_tests::lab::{Lab, POLICY_NAME, REFERENCE_BOOT, shipped};
use hostmark_tests::operator::capture_references;
use hostmark_tests::recording::Recording;
use hostmark_tests::verifier::{Options, Verifier};
use serde_json::Value;

#[test]
fn a_verifier_is_the_same_after_sigterm_and_after_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut verifier = Verifier::start(dir.path(), &Options::default()).unwrap();
    let viewer = verifier.client_as("viewer").unwrap();
    let url = verifier.url();
    let keys: Value = verifier.stranger().unwrap().get("/v1/keys").unwrap().read().unwrap();

    verifier.stop().unwrap();
    verifier.restart().unwrap();
    assert_eq!(verifier.url(), url);
    verifier.kill();
    verifier.restart().unwrap();
    assert_eq!(verifier.url(), url);

    let whoami: Value = viewer.get("/v1/whoami").unwrap().read().unwrap();
    assert_eq!(whoami["role"], "viewer", "an acknowledged operator survives");
    assert_eq!(verifier.stranger().unwrap().get("/v1/keys").unwrap().read::<Value>().unwrap(), keys);
}

#[test]
fn nobody_without_a_certificate_of_this_verifier_is_heard() {
    let dir = tempfile::tempdir().unwrap();
    let mut verifier = Verifier::start(&dir.path().join("a"), &Options::default()).unwrap();
    let other = Verifier::start(&dir.path().join("b"), &Options::default()).unwrap();
    let read = |path| std::fs::read_to_string(path).unwrap();
    let foreign = other.admin();
    let (certificate, key) = (read(foreign.0), read(foreign.1));
    let credentials = Credentials { certificate: &certificate, key: &key };
    let foreign = Client::new(&verifier.url(), &read(verifier.ca()), Some(credentials)).unwrap();

    assert_eq!(verifier.client().unwrap().get("/v1/whoami").unwrap().status, 200, "honest");
    let answer = verifier.stranger().unwrap().get("/v1/whoami").unwrap();
    assert_eq!((answer.status, answer.refusal().unwrap()), (401, vec!["auth.no-certificate".to_owned()]));
    let answer = verifier.client_as("viewer").unwrap().get("/v1/audit").unwrap();
    assert_eq!((answer.status, answer.refusal().unwrap()), (403, vec!["auth.role".to_owned()]));
    foreign.get("/v1/whoami").unwrap_err();
}

#[test]
fn two_processes_serve_one_store() {
    let dir = tempfile::tempdir().unwrap();
    let mut verifier = Verifier::start(dir.path(), &Options::default()).unwrap();
    let replica = verifier.replica().unwrap();
    let scheduler = verifier.client_as("scheduler").unwrap();
    assert_eq!(scheduler.get("/v1/whoami").unwrap().status, 200);
    let there = scheduler.at(&replica.url);
    assert_eq!(there.get("/v1/whoami").unwrap().status, 200, "what one acknowledged, the other knows");
    assert_eq!(verifier.client().unwrap().delete("/v1/operators/scheduler-1").unwrap().status, 204);
    assert_eq!(there.get("/v1/whoami").unwrap().refusal().unwrap(), ["auth.revoked"]);
}

#[test]
fn a_policy_published_before_its_references_says_what_it_waits_for() {
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::trusting(dir.path(), "", Vec::new()).unwrap();
    let policy = shipped("appraisal", POLICY_NAME).unwrap();
    let publish = |toml: &str| lab.publish_policy(POLICY_NAME, toml).unwrap();
    assert_eq!(publish(&policy).waits_for, [POLICY_NAME], "the shipped policy names references of its own name");
    let log = lab.verifier.log();
    assert!(log.contains("waits for references") && !log.contains("ERROR"), "{log}");
    let references = capture_references(&Recording::named(REFERENCE_BOOT).unwrap(), 1).unwrap();
    assert!(lab.publish_references(POLICY_NAME, &references).unwrap().waits_for.is_empty());
    assert!(publish(&policy.replace("version = 1", "version = 2")).waits_for.is_empty());
}
