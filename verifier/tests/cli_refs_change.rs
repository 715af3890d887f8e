//! `hostmark refs rebase` and `refs capture --review`: the real binary on recorded boots.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reads files"
)]

mod command;

use std::path::Path;

use serde_json::{Value, json};

use command::{json_of, run};

fn log(boot: &str) -> String {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../attest/testdata/recorded").join(boot).join("boot-log.bin");
    path.to_str().unwrap().to_owned()
}

#[test]
fn an_update_is_accepted_for_one_model_under_its_change_until_its_date() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("fw.toml");
    let bundle = bundle.to_str().unwrap();
    let first = json_of(0, &["refs", "capture", "--boot-log", &log("systemd"), "--model", "QEMU q35", "-o", bundle]);
    assert_eq!(first["model"], json!("QEMU q35"));
    let before = std::fs::read_to_string(bundle).unwrap();
    // Secure Boot's variables changed PCR 7, the signed image PCR 4 and others.
    let other = log("secureboot");
    let rebase = |more: &[&'static str]| {
        let mut arguments = vec!["refs", "rebase", bundle, "--boot-log", other.as_str()];
        arguments.extend(["--change", "CHG-42", "--until", "2999-01-01T00:00:00Z", "--model"]);
        arguments.extend(if more.is_empty() { &["QEMU q35"] } else { more });
        arguments.iter().map(|one| (*one).to_owned()).collect::<Vec<String>>()
    };
    let texts = |list: &[String]| json_of_owned(1, list);
    let shown = texts(&rebase(&[]));
    let told: Vec<&str> =
        shown["differences"].as_array().unwrap().iter().map(|one| one["what"].as_str().unwrap()).collect();
    assert!(told.contains(&"pcrs.sha256.7") && shown["accepted"] == json!(false), "{shown}");
    assert_eq!(std::fs::read_to_string(bundle).unwrap(), before, "shown, not written");

    let accepted = json_of_owned(0, &rebase(&["QEMU q35", "--accept"]));
    assert_eq!((&accepted["accepted"], &accepted["differences"]), (&json!(true), &shown["differences"]));
    let after: toml::Table = std::fs::read_to_string(bundle).unwrap().parse().unwrap();
    let window = &after["window"].as_array().unwrap()[1];
    assert_eq!((after["version"].as_integer(), window["change"].as_str()), (Some(2), Some("CHG-42")));
    assert_eq!(window["until"].as_str(), Some("2999-01-01T00:00:00Z"));
    let again = json_of_owned(0, &rebase(&[]));
    assert_eq!(again["differences"], json!([]), "accepted once, nothing is left");
    // The bundle says the same to those who review it.
    let reviewed = run(&["policy", "check", bundle]);
    assert_eq!(reviewed.0, 0, "{reviewed:?}");

    for (model, part) in [("Dell R340", "is for the model `QEMU q35`"), ("", "is for the model")] {
        let (code, out, err) = run(&[
            "refs",
            "rebase",
            bundle,
            "--boot-log",
            &other,
            "--model",
            model,
            "--change",
            "C",
            "--until",
            "2999-01-01T00:00:00Z",
        ]);
        assert_eq!((code, out.as_str()), (2, ""), "{err}");
        assert!(err.contains(part), "{err}");
    }
    let (code, _, err) = run(&[
        "refs",
        "rebase",
        bundle,
        "--boot-log",
        &other,
        "--model",
        "QEMU q35",
        "--change",
        "C",
        "--until",
        "2001-01-01T00:00:00Z",
    ]);
    assert!(code == 2 && err.contains("already"), "{err}");
}

fn json_of_owned(code: i32, arguments: &[String]) -> Value {
    json_of(code, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn a_capture_is_reviewed_against_the_bundle_that_it_replaces() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("fw.toml"), dir.path().join("new.toml"));
    let (old, new) = (old.to_str().unwrap(), new.to_str().unwrap());
    assert_eq!(run(&["refs", "capture", "--boot-log", &log("systemd"), "--version", "6", "-o", old]).0, 0);
    let same = json_of(0, &["refs", "capture", "--boot-log", &log("systemd-again"), "--review", old, "-o", new]);
    assert_eq!(same["changes"], json!([]));
    let written: toml::Table = std::fs::read_to_string(new).unwrap().parse().unwrap();
    assert_eq!(written["version"].as_integer(), Some(7));
    let other = json_of(1, &["refs", "capture", "--boot-log", &log("secureboot"), "--review", old]);
    assert!(other["changes"].to_string().contains("pcrs.sha256.7"), "{other}");
}
