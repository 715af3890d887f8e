//! The recorded boots' IMA lists, in both forms, against the PCR 10 that their TPM quoted.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reads its recordings"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use hostmark_attest::digest::{Digest, HashAlg, PcrBanks};
use hostmark_attest::ima::{
    ImaFormat, ImaLog, ImaPosition, ImaQuirks, Shape, check_boot_aggregate, inspect, replay_prefix,
};

const BOOTS: [(&str, u64); 5] =
    [("plain", 69), ("other-cmdline", 69), ("secureboot", 69), ("systemd", 130), ("systemd-again", 130)];

fn read(boot: &str, file: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/recorded").join(boot).join(file);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn quoted(boot: &str) -> PcrBanks {
    let text = String::from_utf8(read(boot, "pcrs.quoted.txt")).unwrap();
    let mut banks = PcrBanks::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let bank = HashAlg::from_name(words[0]).unwrap();
        let value = Digest::from_hex(bank, words[2]).unwrap();
        banks.entry(bank).or_default().insert(words[1].parse().unwrap(), value);
    }
    banks
}

#[test]
fn both_forms_give_the_quoted_pcr_10() {
    for (boot, count) in BOOTS {
        let pcrs = quoted(boot);
        let pcr10 = BTreeMap::from([(HashAlg::Sha256, pcrs[&HashAlg::Sha256][&10])]);
        for (file, format) in [("ima.bin", ImaFormat::Binary), ("ima.txt", ImaFormat::Ascii)] {
            let bytes = read(boot, file);
            assert_eq!(ImaFormat::detect(&bytes), format, "{boot}/{file}");
            let log = ImaLog::parse(&bytes).unwrap();
            assert_eq!(log.len(), count, "{boot}/{file}");
            let prefix = replay_prefix(&log, &ImaPosition::default(), &pcr10, ImaQuirks::default()).unwrap();
            assert_eq!((prefix.verified(), prefix.tail(), prefix.end().entries), (count, 0, count), "{boot}/{file}");
            assert_eq!(prefix.findings().as_slice(), [], "{boot}/{file}");
            assert!(prefix.entries().all(|entry| entry.shape() == Shape::Sig && entry.measurement().is_some()));
            let first = prefix.entries().next();
            assert_eq!(check_boot_aggregate(first.as_ref(), &pcrs).as_slice(), [], "{boot}/{file}");

            let report = inspect(&bytes).unwrap();
            assert_eq!(report.templates, BTreeMap::from([("ima-sig".to_owned(), count)]));
            assert_eq!(report.pcr10.sha256, pcr10[&HashAlg::Sha256].to_string());
        }
    }
}

#[test]
fn a_delta_goes_on_from_any_position() {
    let bytes = read("systemd", "ima.bin");
    let log = ImaLog::parse(&bytes).unwrap();
    let pcr10 = BTreeMap::from([(HashAlg::Sha256, quoted("systemd")[&HashAlg::Sha256][&10])]);
    let starts: Vec<usize> = log.entries().map(|entry| entry.at()).collect();
    for cut in [1, 64, 129] {
        let head = ImaLog::parse(&bytes[..starts[cut]]).unwrap();
        let running = inspect(&bytes[..starts[cut]]).unwrap().pcr10.sha256;
        let middle = BTreeMap::from([(HashAlg::Sha256, Digest::from_hex(HashAlg::Sha256, &running).unwrap())]);
        let first = replay_prefix(&head, &ImaPosition::default(), &middle, ImaQuirks::default()).unwrap();
        let delta = ImaLog::parse(&bytes[starts[cut]..]).unwrap();
        let second = replay_prefix(&delta, first.end(), &pcr10, ImaQuirks::default()).unwrap();
        assert_eq!((second.verified(), second.end().entries), (130 - cut as u64, 130));
        let nothing = ImaLog::parse(&[]).unwrap();
        let third = replay_prefix(&nothing, second.end(), &pcr10, ImaQuirks::default()).unwrap();
        assert_eq!((third.verified(), third.end()), (0, second.end()));
    }
}
