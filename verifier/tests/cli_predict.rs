//! `hostmark refs predict`: the real binary on a made kernel image.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reads files"
)]

#[path = "../../attest/tests/common/uki.rs"]
mod uki;

use std::process::{Command, Output};

use serde_json::Value;

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hostmark")).args(arguments).output().unwrap()
}

#[test]
fn a_prediction_is_shown_written_and_added_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (image, bundle) = (path("uki.efi"), path("host.toml"));
    std::fs::write(&image, uki::uki()).unwrap();

    let text = run(&["refs", "predict", &image, "--systemd-initrd"]);
    let shown = String::from_utf8(text.stdout).unwrap();
    for part in [
        "6.1.0-56-cloud-amd64",
        "ro lockdown=integrity",
        ".initrd: its name",
        "systemd phase leave-initrd",
        "EV_EVENT_TAG",
    ] {
        assert!(shown.contains(part), "{part} in\n{shown}");
    }

    let json = |arguments: &[&str]| {
        let done = run(&[&["refs", "predict", &image, "--output", "json"], arguments].concat());
        assert_eq!(done.status.code(), Some(0), "{done:?}");
        serde_json::from_slice::<Value>(&done.stdout).unwrap()
    };
    let secure = json(&["-o", &bundle, "--secure-boot", "on", "--version", "4"]);
    assert_eq!((secure["phase"].as_str(), secure["secure_boot"].as_bool()), (Some("ready"), Some(true)));
    let recorded = concat!(env!("CARGO_MANIFEST_DIR"), "/../attest/testdata/recorded/plain/boot-log.bin");
    let like = json(&["--into", &bundle, "--like", recorded, "--from", "2027-01-01T00:00:00Z"]);
    assert_eq!((like["secure_boot"].as_bool(), like["failed_boot_options"].as_u64()), (Some(false), Some(1)));
    let written: toml::Table = std::fs::read_to_string(&bundle).unwrap().parse().unwrap();
    assert_eq!(written["version"].as_integer(), Some(5), "the version rose");
    let windows = written["window"].as_array().unwrap();
    for (window, view) in windows.iter().zip([&secure, &like]) {
        for pcr in ["4", "9", "11", "12"] {
            let values = window["pcrs"]["sha256"][pcr].as_array().unwrap();
            assert_eq!(values.last().unwrap().as_str(), view["pcrs"][pcr]["value"].as_str(), "PCR {pcr}");
        }
    }
    assert_ne!(secure["pcrs"]["4"], like["pcrs"]["4"]);
    let checked = run(&["policy", "check", &bundle]);
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
}

#[test]
fn what_cannot_be_used_is_told_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (image, cut, bundle) = (path("uki.efi"), path("cut.efi"), path("host.toml"));
    std::fs::write(&image, uki::uki()).unwrap();
    std::fs::write(&cut, &uki::uki()[..700]).unwrap();
    let rows: [(&[&str], &[&str]); 7] = [
        (&[&cut], &["cut.efi", "at byte"]),
        (&[env!("CARGO_BIN_EXE_hostmark")], &["at byte 0", "MZ"]),
        (&[&image, "--phase", "leave-initrd"], &["--systemd-initrd"]),
        (&[&image, "--bank", "sha384", "-o", &bundle], &["sha256"]),
        (&[&image, "--from", "2027-01-01T00:00:00Z"], &["-o FILE or --into FILE"]),
        (&[&image, "-o", &bundle, "--from", "soon"], &["RFC 3339"]),
        (&[&image, "--into", &bundle], &["host.toml"]),
    ];
    for (arguments, parts) in rows {
        let done = run(&[&["refs", "predict"], arguments].concat());
        let said = String::from_utf8(done.stderr).unwrap();
        assert_eq!((done.status.code(), done.stdout.as_slice()), (Some(2), [].as_slice()), "{arguments:?}: {said}");
        assert_eq!(said.matches('\n').count(), 1, "{said}");
        for part in parts {
            assert!(said.contains(part), "{part} in {said}");
        }
        assert!(!std::path::Path::new(&bundle).exists(), "{arguments:?} wrote a bundle");
    }
}
