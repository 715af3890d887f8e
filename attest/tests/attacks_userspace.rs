//! systemd's log in a round, as the verifier judges it: what it explains, what it may not hide, and what rules and references make of it.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reads its recordings"
)]

mod common;

use std::collections::BTreeMap;

use common::bench::{Host, booted, command_line, judge, judge_by, judge_of, policy, told};
use common::policy_entry::with_event;
use common::systemd_log::{self, Measured};
use hostmark_attest::appraisal::{Appraisal, Judge};
use hostmark_attest::digest::HashAlg;
use hostmark_attest::manifest::EngineManifest;
use hostmark_attest::policy::capture::{Capture, capture};
use hostmark_attest::tier::{Submodule, Tier};

const BANK: HashAlg = HashAlg::Sha256;
const ID: &str = "0123456789abcdef0123456789abcdef";

fn manifest() -> EngineManifest {
    EngineManifest { version: 1, root_is_default: true, engines: BTreeMap::new() }
}

/// A policy that has PCR 15 quoted too, tolerates unlogged phases, and has these rules.
fn judging(rules: &str) -> String {
    let all = policy("").replace("13, 14]", "13, 14, 15]");
    all.replacen("[ima]", "quirks = [\"pcrphase-unlogged\"]\n[ima]", 1) + rules
}

/// What is told of the boot, and its tier.
fn boot(appraisal: &Appraisal) -> (Vec<&str>, Tier) {
    let ours = |id: &&str| id.starts_with("boot.") || id.starts_with("userspace-log.") || id.starts_with("cel.");
    let ids = told(appraisal).iter().map(|one| one.1).filter(ours).collect();
    (ids, appraisal.tier(Submodule::Boot))
}

/// A round of a host whose systemd measured `measured`, and that sends `sent`.
fn round(judge: &Judge, measured: &[Measured], sent: Vec<u8>) -> Appraisal {
    let mut host = Host::boot(&manifest());
    host.systemd(measured);
    host.userspace_log = sent;
    host.round(judge).unwrap()
}

fn log(measured: &[Measured]) -> Vec<u8> {
    systemd_log::log(measured, &[BANK])
}

#[test]
fn b1_b3_b11_a_tampered_log_of_systemd_is_refused_by_its_pcr() {
    let judge = judge(&judging(""), &[&manifest()]);
    let honest = systemd_log::boot();
    let edited = |change: &dyn Fn(&mut Vec<Measured>)| {
        let mut measured = honest.clone();
        change(&mut measured);
        log(&measured)
    };
    let flipped = |nth: usize| {
        let text = String::from_utf8(log(&honest)).unwrap();
        let at = text.match_indices("\"digest\":\"").nth(nth).unwrap().0 + 10;
        let mut bytes = text.into_bytes();
        bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
        bytes
    };
    let refused = |ids: &'static [&'static str]| (ids.to_vec(), Tier::Contraindicated);
    let replay = || refused(&["userspace-log.replay"]);
    type Row = (&'static str, Vec<u8>, (Vec<&'static str>, Tier), &'static [u8]);
    let rows: [Row; 13] = [
        ("the honest twin", log(&honest), (vec![], Tier::Affirming), &[]),
        ("a flipped digest of PCR 11", flipped(0), replay(), &[11]),
        ("a flipped digest of PCR 15", flipped(1), replay(), &[15]),
        ("a record removed", edited(&|all| drop(all.remove(6))), replay(), &[11]),
        ("a record appended", edited(&|all| all.push(Measured::phase("shutdown"))), replay(), &[11]),
        ("records reordered", edited(&|all| all.swap(5, 6)), replay(), &[11]),
        ("another boot's", edited(&|all| all[3] = Measured::machine_id("ffff")), replay(), &[15]),
        (
            "two logs for PCR 13",
            edited(&|all| all.push(Measured::phase("x").of(13))),
            refused(&["userspace-log.second-log"]),
            &[13],
        ),
        (
            "two logs for PCR 10",
            edited(&|all| all.push(Measured::phase("x").of(10))),
            refused(&["userspace-log.second-log"]),
            &[10],
        ),
        (
            "a PCR of the firmware",
            edited(&|all| all.push(Measured::phase("x").of(4))),
            refused(&["userspace-log.pcr"]),
            &[4],
        ),
        // The host log holds PCR 15 to nothing: withheld, or stripped, it is a mismatch.
        (
            "all records of PCR 15 removed",
            edited(&|all| all.retain(|one| one.pcr != 15)),
            refused(&["boot.replay"]),
            &[15],
        ),
        // Its words are no longer guessed once there is a log.
        (
            "all records of PCR 11 removed",
            edited(&|all| all.retain(|one| one.pcr != 11)),
            refused(&["boot.replay"]),
            &[11],
        ),
        (
            "cut",
            log(&honest)[..700].to_vec(),
            refused(&["boot.replay", "boot.replay", "userspace-log.malformed"]),
            &[11, 15],
        ),
    ];
    for (what, sent, expect, pcrs) in rows {
        let appraisal = round(&judge, &honest, sent);
        assert_eq!(boot(&appraisal), expect, "{what}");
        for pcr in pcrs {
            let named = |text: &str| format!("{text} ").replace(',', " ").contains(&format!("PCR {pcr} "));
            assert!(appraisal.findings().any(|one| named(&one.message)), "{what}: {pcr}");
        }
        let told = appraisal.boot().map(|boot| boot.userspace.len());
        assert_eq!(
            told,
            (expect.1 == Tier::Affirming).then_some(2),
            "{what}: nothing is told of a log that does not replay"
        );
    }
    // Extended without a record.
    let mut host = Host::boot(&manifest());
    host.systemd(&honest);
    host.extend(15, BANK.hash(&[b"x"]).unwrap());
    assert_eq!(boot(&host.round(&judge).unwrap()), replay());
}

#[test]
fn b3_a_text_that_does_not_hash_is_no_claim() {
    let rule = |claim: &str, want: &str| {
        format!("[[rule]]\nid = \"boot.wanted\"\nclaim = \"{claim}\"\nwant = \"{want}\"\nelse = \"contraindicated\"\n")
    };
    let honest = systemd_log::boot();
    let mut other_id = honest.clone();
    other_id[3].text = "machine-id:ffff".to_owned();
    let mut other_word = honest.clone();
    other_word[6].text = "shutdown".to_owned();
    let wanted = |ids: &'static [&'static str], tier| (ids.to_vec(), tier);
    let refused = Tier::Contraindicated;
    let rows = [
        (rule("machine_id", ID), &honest, wanted(&[], Tier::Affirming)),
        (rule("machine_id", "ffff"), &honest, wanted(&["boot.wanted"], refused)),
        (rule("machine_id", "ffff"), &other_id, wanted(&["boot.wanted"], refused)),
        (rule("machine_id", ID), &other_id, wanted(&["boot.wanted"], refused)),
        (rule("boot_phase", "ready"), &honest, wanted(&[], Tier::Affirming)),
        (rule("boot_phase", "shutdown"), &honest, wanted(&["boot.wanted"], refused)),
        // Then the image's part is nobody's either: PCR 11 is judged whole.
        (
            rule("boot_phase", "shutdown"),
            &other_word,
            wanted(&["boot.reference", "boot.wanted", "userspace-log.phases"], refused),
        ),
    ];
    for (rule, sent, expect) in rows {
        let appraisal = round(&judge(&judging(&rule), &[&manifest()]), &honest, log(sent));
        let (mut ids, tier) = boot(&appraisal);
        ids.sort_unstable();
        assert_eq!((ids, tier), expect, "{rule}");
        let unhashed = appraisal.findings().any(|one| one.id == "userspace-log.event-data-unauthenticated");
        assert_eq!(unhashed, *sent != honest, "{rule}");
        let texts: Vec<&String> =
            appraisal.boot().map(|boot| boot.userspace.values().flatten().collect()).unwrap_or_default();
        assert!(!texts.iter().any(|text| text.contains("ffff") || *text == "shutdown" || text.contains("cryptsetup")));
    }
}

#[test]
fn b2_events_of_the_boot_log_cannot_be_moved_into_systemds_log() {
    // With GRUB's commands out of the boot log, the first file that GRUB read would pass for the kernel's own measurement.
    let rule = "[[rule]]\nid = \"boot.lockdown\"\nclaim = \"lockdown_boot\"\nwant = \"integrity\"\nelse = \"contraindicated\"\n";
    let line = "lockdown=integrity";
    let judge = judge_of(&judging(rule), &[&manifest()], line);
    let command = "grub_cmd: linux /k init=/bin/sh";
    let honest = booted(line);
    let by_grub = with_event(honest.clone(), 8, command.as_bytes());
    let moved = Measured::new(8, "phase", command);
    // (what booted, its boot log as sent, systemd's log, whether the command line is proven)
    for (boot, sent, log, proven) in [
        (&honest, &honest.0, vec![], true),
        (&by_grub, &by_grub.0, vec![], false),
        (&by_grub, &honest.0, log(&[moved]), false),
    ] {
        let mut host = Host::booted_as(&manifest(), boot.clone());
        (host.boot_log, host.userspace_log) = (sent.clone(), log);
        let appraisal = host.round(&judge).unwrap();
        let line = appraisal.boot().and_then(|boot| boot.command_line.as_ref());
        assert_eq!(line.is_some(), proven);
        let wanted = appraisal.findings().any(|one| one.id == "boot.lockdown");
        assert_eq!((wanted, appraisal.tier(Submodule::Boot) == Tier::Affirming), (!proven, proven));
        assert_eq!(appraisal.findings().any(|one| one.id == "userspace-log.pcr"), !host.userspace_log.is_empty());
    }
}

#[test]
fn b11_phases_are_not_guessed_beside_a_log_of_them() {
    let judge = judge(&judging(""), &[&manifest()]);
    let phases = |words: &[&str]| -> Vec<Measured> { words.iter().map(|word| Measured::phase(word)).collect() };
    let measured = phases(&["sysinit", "ready"]);
    let unlogged = |appraisal: &Appraisal| appraisal.findings().any(|one| one.id == "boot.pcrphase-unlogged");
    // (log as sent, told, whether words were guessed)
    for (sent, expect, guessed) in [
        (vec![], (vec![], Tier::Affirming), true),
        (log(&measured), (vec![], Tier::Affirming), false),
        (log(&measured[..1]), (vec!["userspace-log.replay"], Tier::Contraindicated), false),
        (b"\n".to_vec(), (vec!["boot.replay"], Tier::Contraindicated), false),
    ] {
        let appraisal = round(&judge, &measured, sent);
        assert_eq!((boot(&appraisal), unlogged(&appraisal)), (expect, guessed));
    }
    // An order that systemd never has, or another word, replays and is judged whole: no reference names such a value.
    for words in
        [&["ready", "sysinit"][..], &["sysinit", "ready", "x"], &["sysinit", "ready", "shutdown", "final", "sysinit"]]
    {
        let measured = phases(words);
        let appraisal = round(&judge, &measured, log(&measured));
        assert_eq!(
            boot(&appraisal),
            (vec!["userspace-log.phases", "boot.reference"], Tier::Contraindicated),
            "{words:?}"
        );
        assert_eq!(appraisal.boot().unwrap().image.len(), 0, "{words:?}");
    }
}

#[test]
fn a_host_with_systemds_log_is_judged_by_its_image_and_its_identity() {
    let honest = systemd_log::boot();
    let (boot_log, ima, _) = booted(&command_line());
    let bytes = manifest().to_canonical();
    let captured = |userspace_log: &[u8]| {
        capture(&Capture { boot_log: &boot_log, userspace_log, ima: &ima, manifests: &[&bytes] }, 1).unwrap()
    };
    let mut other = honest.clone();
    other[3] = Measured::machine_id("ffff");
    let text = judging("");
    let (any, one) = (judge_by(&text, &captured(b"")), judge_by(&text, &captured(&log(&honest))));
    let refused = || (vec!["boot.reference"], Tier::Contraindicated);
    // (references, systemd's measurements, told)
    for (judge, measured, expect) in [
        (&any, &honest, (vec![], Tier::Affirming)),
        (&any, &other, (vec![], Tier::Affirming)),
        (&one, &honest, (vec![], Tier::Affirming)),
        (&one, &other, refused()),
    ] {
        assert_eq!(boot(&round(judge, measured, log(measured))), expect);
    }
    // In every phase, with all of it in the result.
    for phases in [1, 3, 6, 7] {
        let appraisal = round(&any, &honest[..phases], log(&honest[..phases]));
        assert_eq!(boot(&appraisal), (vec![], Tier::Affirming), "{phases}");
        assert_eq!(appraisal.boot().unwrap().image.len(), 4, "{phases}");
    }
    let told = round(&any, &honest, log(&honest)).boot().unwrap().userspace.clone();
    assert_eq!(told[&11], ["enter-initrd", "leave-initrd", "sysinit", "ready"]);
    assert_eq!(told[&15], [&format!("machine-id:{ID}"), "file-system:/:ext4:4-5-6::::"]);
    // Nobody quoted PCR 15: what the log says of it is nothing, and that is told.
    let blind = judge(&text.replace(", 15]", "]"), &[&manifest()]);
    let appraisal = round(&blind, &honest, log(&other));
    assert_eq!(boot(&appraisal), (vec![], Tier::Affirming));
    assert!(appraisal.findings().any(|one| one.id == "userspace-log.unquoted"));
    assert_eq!(appraisal.boot().unwrap().userspace.keys().copied().collect::<Vec<_>>(), [11]);
}

#[test]
fn a16_what_references_began_to_demand_does_not_end_with_a_window() {
    let honest = systemd_log::boot();
    let (boot_log, ima, _) = booted(&command_line());
    let bytes = manifest().to_canonical();
    let bundle = |userspace_log: &[u8]| {
        capture(&Capture { boot_log: &boot_log, userspace_log, ima: &ima, manifests: &[&bytes] }, 1).unwrap()
    };
    // The window that names PCR 15 is over; the other one, which names no identity, is open.
    let named = bundle(&log(&honest));
    let (_, window) = named.split_once("[[window]]").unwrap();
    let over = format!("{}[[window]]\nuntil = \"2026-01-01T00:00:00Z\"\n{window}", bundle(b""));
    // A planned change that begins to name it next month demands nothing yet.
    let planned = format!("{}[[window]]\nfrom = \"2027-01-01T00:00:00Z\"\n{window}", bundle(b""));
    let quoted = judging("");
    let unquoted = quoted.replace(", 15]", "]");
    // (policy, references, told, tier)
    for (policy, references, expect) in [
        (&quoted, &named, (vec![], Tier::Affirming)),
        (&quoted, &over, (vec!["boot.reference-missing"], Tier::None)),
        (&quoted, &planned, (vec![], Tier::Affirming)),
        (&unquoted, &bundle(b""), (vec![], Tier::Affirming)),
        (&unquoted, &planned, (vec![], Tier::Affirming)),
        (&unquoted, &named, (vec!["boot.reference-unquoted"], Tier::None)),
        (&unquoted, &over, (vec!["boot.reference-unquoted"], Tier::None)),
    ] {
        let appraisal = round(&judge_by(policy, references), &honest, log(&honest));
        let told: Vec<&str> =
            appraisal.findings().map(|one| one.id.as_str()).filter(|id| id.starts_with("boot.reference")).collect();
        assert_eq!((told, appraisal.tier(Submodule::Boot)), expect);
    }
}
