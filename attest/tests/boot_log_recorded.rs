//! The five recorded boots: their logs replay to the quoted PCR values and say what the booted kernel said.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

use std::path::PathBuf;

use hostmark_attest::boot_log::{BootLog, CommandLineSource, Format, SecureBoot, inspect, list_events};
use hostmark_attest::digest::{Digest, HashAlg, PcrValues};

fn file(boot: &str, name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/recorded").join(boot).join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn text(boot: &str, name: &str) -> String {
    String::from_utf8(file(boot, name)).unwrap()
}

fn quoted(boot: &str) -> PcrValues {
    let lines = text(boot, "pcrs.quoted.txt");
    let values = lines.lines().map(|line| {
        let mut words = line.split_whitespace();
        assert_eq!(words.next(), Some("sha256"));
        let index = words.next().unwrap().parse().unwrap();
        (index, Digest::from_hex(HashAlg::Sha256, words.next().unwrap()).unwrap())
    });
    values.collect()
}

const BOOTS: [(&str, SecureBoot); 5] = [
    ("plain", SecureBoot::Off),
    ("other-cmdline", SecureBoot::Off),
    ("systemd", SecureBoot::Off),
    ("systemd-again", SecureBoot::Off),
    ("secureboot", SecureBoot::On),
];

#[test]
fn each_log_replays_to_the_quoted_values() {
    for (boot, _) in BOOTS {
        let log = BootLog::parse(&file(boot, "boot-log.bin")).unwrap();
        let quoted = quoted(boot);
        let indices = (0..=14).filter(|index| *index != 10 && quoted.contains_key(index));
        let indices: Vec<u8> = indices.collect();
        assert!(indices.len() >= 12, "{boot}: {indices:?}");
        let findings = log.compare(HashAlg::Sha256, &quoted, indices);
        assert!(findings.as_slice().is_empty(), "{boot}: {findings:?}");
        assert_eq!(log.format(), Format::CryptoAgile);
    }
}

#[test]
fn secure_boot_is_as_the_machine_was_set_up() {
    for (boot, expect) in BOOTS {
        let log = BootLog::parse(&file(boot, "boot-log.bin")).unwrap();
        let (claims, findings) = log.claims(HashAlg::Sha256);
        assert_eq!(claims.secure_boot, expect, "{boot}: {findings:?}");
        assert!(findings.acceptable(), "{boot}: {findings:?}");
        assert_eq!(claims.separators.len(), 8, "{boot}");
        // With Secure Boot off, systemd-stub starts the kernel in the image through the firmware, which measures it once more.
        let programs = if expect == SecureBoot::On { 1 } else { 2 };
        assert_eq!(
            claims.boot_applications.as_ref().unwrap().len(),
            programs,
            "{boot}: {:?}",
            claims.boot_applications
        );
    }
}

#[test]
fn the_command_line_is_the_one_that_the_kernel_was_given() {
    for (boot, _) in BOOTS {
        let log = BootLog::parse(&file(boot, "boot-log.bin")).unwrap();
        let given = text(boot, "cmdline");
        let confirmed = log.confirm_command_line(HashAlg::Sha256, &given).unwrap();
        assert_eq!((confirmed.pcr, confirmed.source), (9, CommandLineSource::LoadOptions), "{boot}");
        assert_eq!(confirmed.text, given.trim_end(), "{boot}");
        assert_eq!(log.confirm_command_line(HashAlg::Sha256, &format!("{} quiet", given.trim_end())), None, "{boot}");
    }
}

#[test]
fn inspect_shows_the_agreed_shape() {
    let bytes = file("secureboot", "boot-log.bin");
    let json = serde_json::to_value(inspect(&bytes).unwrap()).unwrap();
    assert_eq!(json["format"], "crypto-agile");
    assert_eq!(json["events"], 40);
    assert_eq!(json["secure_boot"], "on");
    assert!(json["findings"].is_array());
    assert!(json.get("event_list").is_none());
    let banks = json["banks"]["sha256"].as_object().unwrap();
    assert_eq!(
        banks.keys().map(String::as_str).collect::<Vec<_>>(),
        ["0", "1", "2", "3", "4", "5", "6", "7", "9", "11"]
    );
    for (index, value) in quoted("secureboot") {
        if let Some(found) = banks.get(&index.to_string()).filter(|_| index != 10) {
            assert_eq!(found, &value.to_string(), "PCR {index}");
        }
    }
    let list = serde_json::to_value(list_events(&bytes).unwrap()).unwrap();
    assert_eq!(list["event_list"][4]["type"], "EV_EFI_VARIABLE_DRIVER_CONFIG");
    assert_eq!(list["event_list"][4]["authenticated"], "whole");
}
