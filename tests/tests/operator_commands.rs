//! A person's whole way with `hostmark` alone: from a waiting host to a permit, to a maintenance, to its end.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use hostmark_tests::lab::{LABEL, Lab, POLICY_NAME, POOL, SCHEDULER};
use hostmark_tests::process::Finished;
use hostmark_tests::programs::workspace;
use hostmark_tests::swtpm::available;
use serde_json::Value;

/// Runs a command that must end with this code, and reads its JSON.
fn answer(lab: &Lab, code: i32, arguments: &[&str]) -> Value {
    let seen = lab.verifier.hostmark(&[arguments, &["--output", "json"]].concat()).unwrap();
    assert_eq!(seen.code, Some(code), "{arguments:?}: {seen}");
    seen.json().unwrap()
}

/// What a person reads.
fn text(lab: &Lab, arguments: &[&str]) -> Finished {
    lab.verifier.hostmark(arguments).unwrap()
}

#[test]
fn a_host_is_approved_explained_placed_rested_and_retired_by_command() {
    if !available("operator commands against real hosts") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::start(dir.path(), "").unwrap();
    let mut host = lab.host("node-1").unwrap();
    host.provision(None).unwrap();

    // It waits for a person, and the list says so and what to do.
    let list = answer(&lab, 0, &["host", "list"]);
    assert_eq!((list[0]["state"].as_str(), list[0]["standing"].is_null()), (Some("pending"), true), "{list}");
    assert!(text(&lab, &["host", "list"]).stdout.contains("hostmark host approve"));
    let id = list[0]["host"].as_str().unwrap().to_owned();
    let assign = ["--node", "node-1", "--scheduler", SCHEDULER, "--label", LABEL, "--policy", POLICY_NAME];
    answer(&lab, 0, &[&["host", "approve", &id][..], &assign].concat());
    host.provision(None).unwrap().good().unwrap();
    assert_eq!(answer(&lab, 1, &["pool", "explain", "node-1", POOL])["admitted"], false, "it has proven nothing yet");

    // A second one is approved under a policy that nobody published: whoever approves is told, and so is whoever asks later.
    let second = lab.host("node-2").unwrap();
    second.provision(None).unwrap();
    let waiting = answer(&lab, 0, &["host", "list"]);
    let second = waiting.as_array().unwrap().iter().find(|one| one["state"] == "pending").unwrap()["host"].clone();
    let assign = ["--node", "node-2", "--scheduler", SCHEDULER, "--label", LABEL];
    let told = text(&lab, &[&["host", "approve", second.as_str().unwrap()][..], &assign].concat());
    assert!(told.code == Some(0) && told.stdout.contains("cannot be judged yet"), "{told}");
    assert!(told.stdout.contains("expected a published policy (lab-uki); found server-uki"), "{told}");
    assert!(told.stdout.contains("hostmark policy publish"), "{told}");
    let why = answer(&lab, 0, &["host", "explain", "node-2"]);
    assert_eq!(why["refused"][0]["id"], "policy.unpublished", "{why}");
    answer(&lab, 0, &["host", "retire", "node-2"]);

    // Of the shipped pools only those whose policy is not published are told.
    let configs = workspace().join("configs");
    let same = answer(&lab, 0, &["pool", "diff", configs.to_str().unwrap()]);
    let waiting: Vec<&str> =
        same["warnings"].as_array().unwrap().iter().map(|one| one["found"].as_str().unwrap()).collect();
    assert_eq!(waiting, ["server-uki"], "{same}");

    host.run().unwrap();
    lab.wait_admitted(&mut host).unwrap();
    let good = text(&lab, &["pool", "explain", "node-1", POOL]);
    assert_eq!(good.code, Some(0), "{good}");
    assert!(good.stdout.contains("admitted until ") && good.stdout.contains("because every condition"), "{good}");
    let detail = answer(&lab, 0, &["host", "explain", &id]);
    assert_eq!((&detail["node"], &detail["state"]), (&"node-1".into(), &"proven".into()), "{detail}");
    let shown = text(&lab, &["host", "explain", "node-1"]);
    for part in ["boot", "runtime", "engine", "pool lab: admitted until", POLICY_NAME] {
        assert!(shown.stdout.contains(part), "{part} in {shown}");
    }
    let listed = text(&lab, &["host", "list"]);
    assert!(listed.stdout.contains("proven") && listed.stdout.contains(POOL), "{listed}");

    // The permit and the result hold without the verifier, for this node, pool and host only.
    let keys = dir.path().join("keys.json");
    let keys = keys.to_str().unwrap();
    assert_eq!(text(&lab, &["key", "fetch", "-o", keys]).code, Some(0));
    let placed = answer(&lab, 0, &["place", LABEL]);
    let permit = placed["hosts"][0]["permit"].as_str().unwrap();
    answer(&lab, 0, &["verify", "permit", permit, "--keys", keys, "--node", "node-1", "--pool", POOL]);
    let other = answer(&lab, 1, &["verify", "permit", permit, "--keys", keys, "--node", "node-2"]);
    assert_eq!(other["findings"][0]["id"], "permit.node");
    let late = answer(&lab, 1, &["verify", "permit", permit, "--keys", keys, "--at", "2100-01-01T00:00:00Z"]);
    assert_eq!(late["findings"][0]["id"], "permit.expired");
    let result = detail["result"].as_str().unwrap();
    answer(&lab, 0, &["verify", "result", result, "--keys", keys, "--host", &id]);
    let other = answer(&lab, 1, &["verify", "result", result, "--keys", keys, "--host", "somebody"]);
    assert_eq!(other["findings"][0]["id"], "result.host");
    let two = answer(&lab, 4, &["place", LABEL, "--count", "2"]);
    assert_eq!(two["hosts"].as_array().unwrap().len(), 1);

    // Maintenance and a lower label take it out of the pool, each with its reason and its way back.
    answer(&lab, 0, &["host", "maintenance", "node-1", "--for", "2h"]);
    let why = text(&lab, &["pool", "explain", "node-1", POOL]);
    assert!(why.code == Some(1) && why.stdout.contains("admission.maintenance"), "{why}");
    assert!(why.stdout.contains("hostmark host maintenance"), "{why}");
    answer(&lab, 0, &["host", "maintenance", "node-1", "--for", "0s"]);
    answer(&lab, 0, &["host", "label", "node-1", "public"]);
    let why = text(&lab, &["pool", "explain", "node-1", POOL]);
    assert!(why.code == Some(1) && why.stdout.contains("admission.label"), "{why}");
    answer(&lab, 1, &["place", LABEL]);

    answer(&lab, 0, &["host", "retire", "node-1"]);
    assert_eq!(answer(&lab, 0, &["host", "list"]), serde_json::json!([]));
    assert_eq!(answer(&lab, 0, &["host", "list", "--all"]).as_array().unwrap().len(), 2);
    assert_eq!(answer(&lab, 0, &["audit", "verify"])["verdict"], "verified");
}
