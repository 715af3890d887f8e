//! The attack table's part B for the IMA list and the host log. Each test has its honest twin.
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
use hostmark_attest::finding::Findings;
use hostmark_attest::host_log::{Event, HostLog, HostLogContext, Record};
use hostmark_attest::ima::replay::replay_all;
use hostmark_attest::ima::{ImaLog, ImaPosition, ImaQuirks, check_boot_aggregate, replay_prefix};
use proptest::prelude::*;

type Quoted = BTreeMap<HashAlg, Digest>;

fn read(boot: &str, file: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/recorded").join(boot).join(file);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn pcrs(boot: &str) -> PcrBanks {
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

fn pcr10(boot: &str) -> Quoted {
    Quoted::from([(HashAlg::Sha256, pcrs(boot)[&HashAlg::Sha256][&10])])
}

fn ids(findings: &Findings) -> Vec<&str> {
    findings.as_slice().iter().map(|finding| finding.id.as_str()).collect()
}

/// Each entry of a binary list, as its bytes.
fn split(list: &[u8]) -> Vec<Vec<u8>> {
    let log = ImaLog::parse(list).unwrap();
    let mut starts: Vec<usize> = log.entries().map(|entry| entry.at()).collect();
    starts.push(list.len());
    starts.windows(2).map(|pair| list[pair[0]..pair[1]].to_vec()).collect()
}

/// The ids that a list gives: of the mismatch, or of the verified prefix.
fn verdict(list: &[u8], start: &ImaPosition, quoted: &Quoted) -> Vec<String> {
    let log = ImaLog::parse(list).unwrap();
    match replay_prefix(&log, start, quoted, ImaQuirks::default()) {
        Err(mismatch) => vec![mismatch.finding.id.clone()],
        Ok(prefix) => ids(prefix.findings()).into_iter().map(str::to_owned).collect(),
    }
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}

/// The same entry with another template name.
fn renamed(entry: &[u8], to: &[u8]) -> Vec<u8> {
    let length = u32::from_le_bytes(entry[24..28].try_into().unwrap()) as usize;
    let mut out = entry[..24].to_vec();
    out.extend_from_slice(&u32::try_from(to.len()).unwrap().to_le_bytes());
    out.extend_from_slice(to);
    out.extend_from_slice(&entry[28 + length..]);
    out
}

#[test]
fn b7_ima_entries_removed_reordered_or_changed() {
    let honest = split(&read("systemd", "ima.bin"));
    let quoted = pcr10("systemd");
    let start = ImaPosition::default();
    assert_eq!(verdict(&honest.concat(), &start, &quoted), [""; 0], "honest twin");

    let change = |index: usize, entry: Vec<u8>| {
        let mut list = honest.clone();
        list[index] = entry;
        list.concat()
    };
    let mut removed = honest.clone();
    removed.remove(7);
    let mut reordered = honest.clone();
    reordered.swap(7, 8);
    let mut added = honest.clone();
    added.insert(7, honest[3].clone());
    let mut digest = honest[7].clone();
    let last = digest.windows(7).position(|window| window == b"sha256:").unwrap() + 8;
    digest[last] ^= 1;
    let mut violation = honest[7].clone();
    violation[4..24].fill(0);
    let mut other_pcr = honest[7].clone();
    other_pcr[0] = 11;
    let rows = [
        ("removed", removed.concat()),
        ("reordered", reordered.concat()),
        ("added", added.concat()),
        ("digest", change(7, digest)),
        ("path", change(1, replace(&honest[1], b"/usr/bin/kmod", b"/usr/bin/true"))),
        ("violation", change(7, violation)),
        ("other PCR", change(7, other_pcr)),
        ("cut", honest[..129].concat()),
        ("empty", Vec::new()),
    ];
    for (what, list) in rows {
        assert_eq!(verdict(&list, &start, &quoted), ["ima.replay"], "{what}");
    }
    // The listed SHA-1 digest is extended nowhere in the SHA-256 bank: it must still be that of the data.
    let mut listed = honest[7].clone();
    listed[10] ^= 1;
    assert_eq!(verdict(&change(7, listed), &start, &quoted), ["ima.template-digest"]);
    // An entry of another PCR is not anchored: it is told, counts as an entry of the list, and is never yielded.
    let mut unanchored = honest[3].clone();
    unanchored[0] = 11;
    let list = [honest[..7].concat(), unanchored, honest[7..].concat()].concat();
    assert_eq!(verdict(&list, &start, &quoted), ["ima.other-pcr"]);
    let log = ImaLog::parse(&list).unwrap();
    let prefix = replay_prefix(&log, &start, &quoted, ImaQuirks::default()).unwrap();
    assert_eq!((prefix.verified(), prefix.entries().count()), (131, 130));
}

#[test]
fn b7_ima_entries_changed_in_the_ascii_form() {
    let honest = String::from_utf8(read("systemd", "ima.txt")).unwrap();
    let quoted = pcr10("systemd");
    let start = ImaPosition::default();
    assert_eq!(verdict(honest.as_bytes(), &start, &quoted), [""; 0], "honest twin");
    let lines: Vec<&str> = honest.lines().collect();
    let swapped = honest.replacen(lines[4], "", 1).replacen(lines[5], &format!("{}\n{}", lines[5], lines[4]), 1);
    let rows = [
        honest.replacen("/usr/bin/kmod", "/usr/bin/true", 1),
        honest.replacen(lines[4], "", 1),
        honest.replacen("ima-sig", "ima-ng", 1),
        swapped,
    ];
    for list in rows {
        assert_eq!(verdict(list.as_bytes(), &start, &quoted), ["ima.replay"]);
    }
}

#[test]
fn b7_a_template_name_is_not_hashed() {
    let honest = split(&read("systemd", "ima.bin"));
    let quoted = pcr10("systemd");
    let start = ImaPosition::default();
    for name in ["ima-sig", "d-ng|n-ng|sig"] {
        let mut list = honest.clone();
        list[9] = renamed(&honest[9], name.as_bytes());
        assert_eq!(verdict(&list.concat(), &start, &quoted), [""; 0], "honest twin: {name}");
    }
    for name in ["ima-ng", "ima-buf", "ima-modsig", "x", "ima\n", ""] {
        let mut list = honest.clone();
        list[9] = renamed(&honest[9], name.as_bytes());
        let list = list.concat();
        assert_eq!(verdict(&list, &start, &quoted), ["ima.unauthenticated-template-name"], "{name}");
        // The data decides: digest and path are the same as under the true name.
        let (log, twin) = (ImaLog::parse(&list).unwrap(), honest.concat());
        let twin = ImaLog::parse(&twin).unwrap();
        let prefix = replay_prefix(&log, &start, &quoted, ImaQuirks::default()).unwrap();
        assert!(prefix.entries().map(|e| e.measurement()).eq(twin.entries().map(|e| e.measurement())), "{name}");
    }
}

#[test]
fn b10_a_delta_from_the_wrong_offset() {
    let list = read("systemd", "ima.bin");
    let entries = split(&list);
    let quoted = pcr10("systemd");
    let at = |count: usize| {
        let head = entries[..count].concat();
        let pcr10 = replay_all(&ImaLog::parse(&head).unwrap(), &[HashAlg::Sha256]);
        ImaPosition { entries: count as u64, pcr10 }
    };
    assert_eq!(verdict(&entries[100..].concat(), &at(100), &quoted), [""; 0], "honest twin");
    for (start, from) in [(100, 99), (100, 101), (100, 0), (0, 100), (100, 130), (99, 100)] {
        assert_eq!(verdict(&entries[from..].concat(), &at(start), &quoted), ["ima.replay"], "{start} {from}");
    }
    // A list that is shorter than last time, without a reboot: the running value is already past the quote.
    let shorter = replay_all(&ImaLog::parse(&entries[..90].concat()).unwrap(), &[HashAlg::Sha256]);
    assert_eq!(verdict(&[], &at(100), &shorter), ["ima.replay"]);
    // A position without the quoted bank cannot be gone on from.
    let sha1 = ImaPosition { entries: 100, pcr10: BTreeMap::new() };
    assert_eq!(verdict(&entries[100..].concat(), &sha1, &quoted), ["ima.position"]);
    // Nothing quoted is no match of everything.
    assert_eq!(verdict(&list, &ImaPosition::default(), &Quoted::new()), ["ima.bank"]);
}

fn host_log(events: &[Event]) -> (Vec<u8>, Digest) {
    let mut pcr = Digest::zero(HashAlg::Sha256);
    let mut log = Vec::new();
    for (recnum, event) in (0u64..).zip(events) {
        let (line, digest) = Record::encode(recnum, 13, event);
        log.extend(line);
        pcr = pcr.extend(&Digest::new(HashAlg::Sha256, &digest).unwrap()).unwrap();
    }
    (log, pcr)
}

fn boot(id: &str) -> Event {
    Event::Boot { boot_id: id.to_owned(), hostd: "0.1.0".to_owned() }
}

const fn manifest(byte: u8) -> Event {
    Event::Manifest { sha256: [byte; 32] }
}

#[test]
fn b11_host_log_edited_extended_or_of_another_boot() {
    let start = Digest::zero(HashAlg::Sha256);
    let check = |log: &[u8], quoted: Digest| -> Result<Option<[u8; 32]>, Vec<String>> {
        let context = HostLogContext { pcr: 13, start, quoted, boot_id: "this" };
        match HostLog::parse(log).unwrap().verify(&context) {
            Ok(verified) => Ok(verified.last_manifest()),
            Err(findings) => Err(ids(&findings).into_iter().map(str::to_owned).collect()),
        }
    };
    let (honest, quoted) = host_log(&[boot("this"), manifest(1), manifest(2)]);
    assert_eq!(check(&honest, quoted), Ok(Some([2; 32])), "honest twin");
    assert_eq!(check(b"", start), Ok(None), "honest twin: nothing extended, nothing logged");

    let (edited, _) = host_log(&[boot("this"), manifest(1), manifest(3)]);
    let (more, moved) = host_log(&[boot("this"), manifest(1), manifest(2), manifest(3)]);
    let (swapped, _) = host_log(&[boot("this"), manifest(2), manifest(1)]);
    let (other, other_pcr) = host_log(&[boot("other"), manifest(1)]);
    let (later, later_pcr) = host_log(&[boot("this"), boot("other"), manifest(1)]);
    let (headless, headless_pcr) = host_log(&[manifest(1), boot("this")]);
    let forged = {
        let text = String::from_utf8(honest.clone()).unwrap();
        let digest = hex::encode(hostmark_attest::digest::sha256(&[&manifest(2).to_bytes()]));
        text.replace(&digest, &"0".repeat(64)).into_bytes()
    };
    let rows: [(&str, &[u8], Digest, &[&str]); 10] = [
        ("edited without an extend", &edited, quoted, &["host-log.replay"]),
        ("an entry without an extend", &more, quoted, &["host-log.replay"]),
        ("an extend without an entry", &honest, moved, &["host-log.replay"]),
        ("reordered", &swapped, quoted, &["host-log.replay"]),
        ("of another boot, not extended in this one", &other, quoted, &["host-log.replay", "host-log.boot-id"]),
        ("of another boot, extended again", &other, other_pcr, &["host-log.boot-id"]),
        ("going on from another boot", &later, later_pcr, &["host-log.boot-id"]),
        ("no boot bound", &headless, headless_pcr, &["host-log.first-record"]),
        ("log gone", b"", quoted, &["host-log.empty"]),
        ("listed digest forged", &forged, quoted, &["host-log.digest"]),
    ];
    for (what, log, quoted, expect) in rows {
        assert_eq!(check(log, quoted).unwrap_err(), expect, "{what}");
    }
    let context = HostLogContext { pcr: 14, start, quoted, boot_id: "this" };
    assert_eq!(ids(&HostLog::parse(&honest).unwrap().verify(&context).unwrap_err()), ["host-log.pcr"]);
    // An event of a later release is told, and refuses nothing.
    let (newer, quoted) = host_log(&[boot("this"), Event::Unknown { kind: "later".into() }]);
    let context = HostLogContext { pcr: 13, start, quoted, boot_id: "this" };
    let verified = HostLog::parse(&newer).unwrap().verify(&context).unwrap();
    assert_eq!(ids(verified.findings()), ["host-log.unknown-event"]);
}

#[test]
fn b14_the_boot_aggregate_is_the_hash_of_the_boot_pcrs() {
    let list = read("systemd", "ima.bin");
    let log = ImaLog::parse(&list).unwrap();
    let mut entries = log.entries();
    let (first, second) = (entries.next().unwrap(), entries.next().unwrap());
    let honest = pcrs("systemd");
    assert_eq!(ids(&check_boot_aggregate(Some(&first), &honest)), [""; 0], "honest twin");

    let mut moved = honest.clone();
    moved.get_mut(&HashAlg::Sha256).unwrap().insert(9, Digest::ones(HashAlg::Sha256));
    let mut unquoted = honest.clone();
    unquoted.get_mut(&HashAlg::Sha256).unwrap().remove(&8);
    // Forged entries: what a kernel whose list is of another boot, or that found no TPM, would log.
    let forge = |digest: &[u8], alg: &str| {
        let line = format!("10 {} ima-ng {alg}:{} boot_aggregate\n", "11".repeat(20), hex::encode(digest));
        line.into_bytes()
    };
    let hash = |alg: HashAlg, last: u8, banks: &PcrBanks| {
        let parts: Vec<&[u8]> = (0..=last).map(|index| banks[&alg][&index].as_bytes()).collect();
        alg.hash(&parts).unwrap().as_bytes().to_vec()
    };
    let mut sha1 = honest.clone();
    sha1.insert(HashAlg::Sha1, (0..8).map(|index| (index, Digest::ones(HashAlg::Sha1))).collect());
    let rows: [(&str, Vec<u8>, &PcrBanks, &[&str]); 7] = [
        ("all zero", forge(&[0; 32], "sha256"), &honest, &["ima.tpm-bypass"]),
        ("another value", forge(&[1; 32], "sha256"), &honest, &["ima.boot-aggregate"]),
        ("older kernel", forge(&hash(HashAlg::Sha256, 7, &honest), "sha256"), &honest, &["ima.boot-aggregate-0-7"]),
        ("SHA-1", forge(&hash(HashAlg::Sha1, 7, &sha1), "sha1"), &sha1, &["ima.boot-aggregate-0-7"]),
        ("SHA-1, another value", forge(&[1; 20], "sha1"), &sha1, &["ima.boot-aggregate"]),
        ("SHA-1 not quoted", forge(&[1; 20], "sha1"), &honest, &["ima.boot-aggregate-bank"]),
        ("an algorithm without a bank", forge(&[1; 16], "md5"), &honest, &["ima.boot-aggregate-bank"]),
    ];
    for (what, list, banks, expect) in rows {
        let log = ImaLog::parse(&list).unwrap();
        let entry = log.entries().next();
        assert_eq!(ids(&check_boot_aggregate(entry.as_ref(), banks)), expect, "{what}");
    }
    assert_eq!(ids(&check_boot_aggregate(Some(&first), &moved)), ["ima.boot-aggregate"]);
    assert_eq!(ids(&check_boot_aggregate(Some(&first), &unquoted)), ["ima.boot-aggregate-bank"]);
    assert_eq!(ids(&check_boot_aggregate(Some(&second), &honest)), ["ima.boot-aggregate"], "not the first entry");
    assert_eq!(ids(&check_boot_aggregate(None, &honest)), ["ima.boot-aggregate"], "no entry");
}

#[test]
fn b19_the_list_grows_between_quote_and_read() {
    let list = read("systemd", "ima.bin");
    let quoted = pcr10("systemd");
    let other = split(&read("plain", "ima.bin"));
    let grown = [list.clone(), other[5].clone(), other[6].clone()].concat();
    let log = ImaLog::parse(&grown).unwrap();
    let prefix = replay_prefix(&log, &ImaPosition::default(), &quoted, ImaQuirks::default()).unwrap();
    assert_eq!((prefix.verified(), prefix.tail(), prefix.entries().count()), (130, 2, 130));
    assert_eq!(ids(prefix.findings()), [""; 0]);
    // The tail yields nothing, however it is made: an edited tail neither refuses nor is seen.
    let mut forged = other[5].clone();
    forged[10] ^= 1;
    let forged = renamed(&forged, b"x");
    let tail = [list.clone(), forged.clone()].concat();
    let log = ImaLog::parse(&tail).unwrap();
    let prefix = replay_prefix(&log, &ImaPosition::default(), &quoted, ImaQuirks::default()).unwrap();
    assert_eq!((prefix.tail(), prefix.entries().count(), ids(prefix.findings())), (1, 130, vec![]));
    // The next delta begins behind the prefix, and there the same entry is judged.
    assert_eq!(prefix.end().entries, 130);
    assert_eq!(verdict(&forged, prefix.end(), &pcr10("plain")), ["ima.replay"]);
}

#[test]
fn sha1_digests_padded_by_old_kernels_are_a_named_quirk() {
    let list = read("plain", "ima.bin");
    let log = ImaLog::parse(&list).unwrap();
    let mut value = Digest::zero(HashAlg::Sha256);
    for entry in log.entries() {
        let mut padded = entry.listed_digest().to_vec();
        padded.resize(32, 0);
        value = value.extend(&Digest::new(HashAlg::Sha256, &padded).unwrap()).unwrap();
    }
    let quoted = Quoted::from([(HashAlg::Sha256, value)]);
    assert_eq!(verdict(&list, &ImaPosition::default(), &quoted), ["ima.replay"]);
    let prefix = replay_prefix(&log, &ImaPosition::default(), &quoted, ImaQuirks { padded_sha1: true }).unwrap();
    assert_eq!((ids(prefix.findings()), prefix.verified()), (vec!["ima.padded-sha1"], 69));
}

/// A hashed byte is one of the template data; the others (name, listed digest, framing) are covered by their own findings.
fn hashed(list: &[u8]) -> Vec<bool> {
    let mut hashed = vec![false; list.len()];
    let mut at = 0;
    while at < list.len() {
        let name = u32::from_le_bytes(list[at + 24..at + 28].try_into().unwrap()) as usize;
        let data = at + 28 + name;
        let length = u32::from_le_bytes(list[data..data + 4].try_into().unwrap()) as usize;
        hashed[data + 4..data + 4 + length].fill(true);
        at = data + 4 + length;
    }
    hashed
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_flipped_ima_byte_never_panics_and_never_verifies_if_hashed(at in 0usize..16804, bit in 0u8..8) {
        let mut list = read("systemd", "ima.bin");
        let at = at % list.len();
        let was_hashed = hashed(&list)[at];
        list[at] ^= 1 << bit;
        if let Ok(log) = ImaLog::parse(&list) {
            let result = replay_prefix(&log, &ImaPosition::default(), &pcr10("systemd"), ImaQuirks::default());
            if let Ok(prefix) = result {
                prop_assert!(!was_hashed);
                prop_assert!(!prefix.findings().as_slice().is_empty());
            }
        }
    }

    #[test]
    fn a_cut_or_flipped_ascii_list_never_panics_and_never_verifies(at in 0usize..21224, bit in 0u8..8, cut: bool) {
        let mut list = read("systemd", "ima.txt");
        let at = at % (list.len() - 2);
        if cut { list.truncate(at) } else { list[at] ^= 1 << bit }
        if let Ok(log) = ImaLog::parse(&list) {
            let result = replay_prefix(&log, &ImaPosition::default(), &pcr10("systemd"), ImaQuirks::default());
            if let Ok(prefix) = result {
                // The case of a hex digit, and a listed digest, are not extended.
                let entries = prefix.entries().zip(log.entries());
                prop_assert!(!cut || entries.count() == 130);
                prop_assert_eq!(prefix.verified(), 130);
            }
        }
    }

    #[test]
    fn a_cut_ima_list_never_panics_and_never_verifies(at in 0usize..16804) {
        let list = read("systemd", "ima.bin");
        if let Ok(log) = ImaLog::parse(&list[..at % list.len()]) {
            prop_assert!(replay_prefix(&log, &ImaPosition::default(), &pcr10("systemd"), ImaQuirks::default()).is_err());
        }
    }

    #[test]
    fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = hostmark_attest::ima::inspect(&bytes);
        let _ = HostLog::parse(&bytes);
        let _ = Event::parse(&bytes);
    }

    #[test]
    fn a_cut_or_flipped_host_log_never_panics_and_never_verifies(at in 0usize..600, bit in 0u8..8, cut: bool) {
        let (mut log, quoted) = host_log(&[boot("this"), manifest(1), manifest(2)]);
        let at = at % log.len();
        let honest = HostLog::parse(&log).unwrap();
        if cut { log.truncate(at) } else { log[at] ^= 1 << bit }
        let context = HostLogContext { pcr: 13, start: Digest::zero(HashAlg::Sha256), quoted, boot_id: "this" };
        if let Ok(parsed) = HostLog::parse(&log) {
            // The case of a listed digest's hex digit changes nothing.
            prop_assert!(parsed == honest || parsed.verify(&context).is_err());
        }
    }
}
