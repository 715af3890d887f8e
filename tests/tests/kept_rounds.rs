//! The evidence of a changed verdict is kept, and an auditor's offline tool comes to what the verifier recorded.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reads files"
)]

use std::path::{Path, PathBuf};

use hostmark_attest::digest::{Digest, HashAlg};
use hostmark_attest::wire::{HostState, RoundOutcome};
use hostmark_tests::lab::{POLICY_NAME, host_boot, reference_boot, shipped_files};
use hostmark_tests::operator::capture_references;
use hostmark_tests::scene::Scene;
use serde_json::Value;

fn kept(scene: &Scene, host: &str) -> Vec<PathBuf> {
    let folder = scene.lab.verifier.state_dir().join("evidence").join(host);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().map(|one| one.unwrap().path()).collect();
    files.sort();
    files
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn d9_the_evidence_of_a_changed_verdict_is_kept_and_comes_to_what_was_recorded() {
    let scene = Scene::start("");
    let mut host = scene.enrolled("node-1");
    let id = host.identity().host.clone();
    assert_eq!(host.round().state, HostState::Proven);
    assert_eq!(kept(&scene, &id).len(), 1, "the first verdict");
    assert_eq!(host.round().state, HostState::Proven);
    assert_eq!(kept(&scene, &id).len(), 1, "nothing changed");

    // Something that no log tells is extended: the host is disproven, and then refused as somebody else's.
    host.extend(4, Digest::from_hex(HashAlg::Sha256, &"ab".repeat(32)).unwrap());
    assert_eq!(host.round().state, HostState::Disproven);
    assert_eq!(host.round().state, HostState::Disproven);
    assert_eq!(kept(&scene, &id).len(), 2, "the change alone");
    host.reboot();
    let challenge = host.challenge();
    let mut evidence = host.sign(host.draft(&challenge)).encode();
    let last = evidence.len() - 1;
    evidence[last] ^= 1;
    let _ = host.send(evidence);
    let outcome: RoundOutcome = host.round();
    assert_eq!(outcome.state, HostState::Proven);
    let files = kept(&scene, &id);
    assert_eq!(files.len(), 3, "proven again");

    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let policy = shipped_files("appraisal").unwrap().into_iter().find(|one| one.name == POLICY_NAME).unwrap();
    let policy = write(&format!("{POLICY_NAME}.toml"), &policy.toml);
    let bundles = dir.path().join("references");
    std::fs::create_dir(&bundles).unwrap();
    let references = bundles.join(format!("{POLICY_NAME}.toml"));
    std::fs::write(&references, capture_references(&reference_boot().unwrap(), 1).unwrap()).unwrap();
    let jwks = scene.lab.verifier.stranger().unwrap().get("/v1/keys").unwrap();
    let keys = write("keys.json", &jwks.json().to_string());
    let verify = |file: &Path, references: &Path| {
        let arguments = ["verify", "evidence", text(file), "--keys", text(&keys), "--policy", text(&policy)];
        let more = ["--references", text(references), "--output", "json"];
        let done = scene.lab.verifier.hostmark(&[&arguments[..], &more].concat()).unwrap();
        let json: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done:?}"));
        (done.code, json)
    };
    for (file, recorded) in files.iter().zip(["proven", "disproven", "proven"]) {
        let (code, json) = verify(file, &references);
        assert_eq!(
            (code, &json["verdict"], &json["round"]["recorded"]),
            (Some(0), &"verified".into(), &recorded.into()),
            "{json}"
        );
        assert_eq!(
            (&json["round"]["host"], json["findings"].as_array().unwrap().len()),
            (&id.as_str().into(), 0),
            "{json}"
        );
        assert!(json["result"]["submods"]["boot"].is_object(), "{json}");
    }
    // References of another boot: the outcome differs, and why is said.
    let others = dir.path().join("others");
    std::fs::create_dir(&others).unwrap();
    let other = others.join(format!("{POLICY_NAME}.toml"));
    std::fs::write(&other, capture_references(&host_boot().unwrap(), 2).unwrap()).unwrap();
    let (_, json) = verify(&files[0], &other);
    assert_eq!(json["findings"][0]["id"], "evidence.judged-by", "{json}");
    // Changed on disk: refused.
    let mut bytes = std::fs::read(&files[0]).unwrap();
    let at = bytes.len() - 10;
    bytes[at] ^= 1;
    let forged = dir.path().join("forged.evidence");
    std::fs::write(&forged, bytes).unwrap();
    let (code, json) = verify(&forged, &references);
    assert_eq!((code, &json["findings"][0]["id"]), (Some(1), &"evidence.signature".into()), "{json}");
}
