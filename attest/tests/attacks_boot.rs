//! What a boot proves as the verifier judges it: sleep and hibernation, the proven command line, systemd's phases.
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
use hostmark_attest::appraisal::{Appraisal, Judge};
use hostmark_attest::boot_log::BootLog;
use hostmark_attest::digest::{Digest, HashAlg, sha256};
use hostmark_attest::finding::{Finding, Severity};
use hostmark_attest::kernel_parameters::Lockdown;
use hostmark_attest::manifest::EngineManifest;
use hostmark_attest::policy::References;
use hostmark_attest::policy::capture::{Capture, capture};
use hostmark_attest::tier::{Submodule, Tier};

const BANK: HashAlg = HashAlg::Sha256;
const OTHER: HashAlg = HashAlg::Sha384;

fn manifest() -> EngineManifest {
    EngineManifest { version: 1, root_is_default: true, engines: BTreeMap::new() }
}

fn finding<'a>(appraisal: &'a Appraisal, id: &str) -> Option<&'a Finding> {
    appraisal.findings().find(|one| one.id == id)
}

/// A round of a host that booted with `line` and says `said`, judged by a policy with these rules.
fn round(line: &str, said: &str, rules: &str) -> Appraisal {
    let judge = judge_of(&(policy("") + rules), &[&manifest()], line);
    let mut host = Host::boot_with(&manifest(), line);
    host.facts.insert("lockdown".to_owned(), "integrity".to_owned());
    if said != line {
        host.facts.insert("cmdline".to_owned(), said.to_owned());
    }
    host.round(&judge).unwrap()
}

#[test]
fn b15_every_quoted_bank_is_explained() {
    let firmware: [u8; 8] = std::array::from_fn(|index| u8::try_from(index).unwrap());
    let both = policy("").replace("pcrs = { sha256", &format!("pcrs = {{ sha384 = {firmware:?}, sha256"));
    let unexplained = ["boot.bank-missing"];
    for (policy, value, expect) in [
        (policy(""), None, &[][..]),
        // The log does not carry the bank: neither an empty one nor a filled one is explained.
        (both.clone(), Some(Digest::zero(HashAlg::Sha384)), &unexplained),
        (both, Some(Digest::ones(HashAlg::Sha384)), &unexplained),
    ] {
        let judge = judge(&policy, &[&manifest()]);
        let mut host = Host::boot(&manifest());
        for (index, value) in firmware.iter().zip(std::iter::repeat(value)) {
            if let Some(value) = value {
                host.tpm.set(HashAlg::Sha384, *index, value);
            }
        }
        let appraisal = host.round(&judge).unwrap();
        let boot: Vec<&str> =
            told(&appraisal).into_iter().map(|(_, id)| id).filter(|id| id.starts_with("boot.")).collect();
        assert_eq!(boot, expect);
        let tier = appraisal.tier(Submodule::Boot);
        assert_eq!(tier == Tier::Contraindicated, !expect.is_empty(), "{tier}");
    }
}

/// The log with a column of SHA-384: what hashes to its digest does so in both, and what the log does not hold is, in PCR 4, of `programs`.
fn with_sha384(log: &[u8], programs: &[u8]) -> Vec<u8> {
    let parsed = BootLog::parse(log).unwrap();
    let mut events = parsed.events();
    let spec_id = events.next().unwrap().data();
    let mut out = [&log[..28], &37u32.to_le_bytes(), &spec_id[..24], &2u32.to_le_bytes()].concat();
    out.extend([0x0b, 0, 0x20, 0, 0x0c, 0, 0x30, 0, 0]);
    for event in events {
        let (digest, data) = (event.digest(BANK).unwrap(), event.data());
        // Whole, or a boot variable's content behind its GUID, lengths and name.
        let name = data.get(16..24).map_or(0, |length| u64::from_le_bytes(length.try_into().unwrap()));
        let content = usize::try_from(name).ok().and_then(|name| data.get(name.checked_mul(2)?.checked_add(32)?..));
        let programs = if event.pcr() == 4 { programs } else { b"" };
        let other = match [Some(data), content].into_iter().flatten().find(|part| BANK.hash(&[part]) == Some(digest)) {
            Some(measured) => OTHER.hash(&[measured]),
            None => OTHER.hash(&[programs, digest.as_bytes()]),
        };
        out.extend([event.pcr(), event.event_type().0, 2].map(u32::to_le_bytes).concat());
        out.extend([&[0x0b, 0], digest.as_bytes(), &[0x0c, 0], other.unwrap().as_bytes()].concat());
        out.extend([&u32::try_from(data.len()).unwrap().to_le_bytes(), data].concat());
    }
    out
}

#[test]
fn b15_a_filled_bank_is_seen_where_another_one_is_judged_too() {
    let firmware: [u8; 8] = std::array::from_fn(|index| u8::try_from(index).unwrap());
    let alone = policy("");
    let both = alone.replace("pcrs = { sha256", &format!("pcrs = {{ sha384 = {firmware:?}, sha256"));
    let (plain, ima, line) = booted(&command_line());
    let bytes = manifest().to_canonical();
    let capture_of = Capture { boot_log: &plain, ima: &ima, manifests: &[&bytes], ..Capture::default() };
    let captured = capture(&capture_of, 1).unwrap();
    let honest = with_sha384(&plain, b"");
    // The operating system of somebody's own filled SHA-256 with what the references hold; the firmware's bank tells what it was.
    let filled = with_sha384(&plain, b"own kernel");
    let replay = BootLog::parse(&honest).unwrap().replay_bank(OTHER);
    let naming = |pcrs: &[u8]| {
        let values: String = pcrs.iter().map(|pcr| format!("{pcr} = [\"{}\"]\n", replay[pcr])).collect();
        format!("{captured}\n[window.pcrs.sha384]\n{values}")
    };
    let (all, some) = (naming(&[0, 2, 3, 4, 7]), naming(&[4, 7]));
    type Told = &'static [(Severity, &'static str)];
    let unjudged: Told = &[(Severity::Warning, "boot.bank-unjudged")];
    let refused: Told = &[(Severity::Error, "boot.reference")];
    for (what, policy, references, log, expect, tier) in [
        ("honest", &both, &all, &honest, &[][..], Tier::Affirming),
        ("honest, one bank", &alone, &all, &honest, &[], Tier::Affirming),
        ("honest, not judged", &both, &captured, &honest, unjudged, Tier::Warning),
        ("honest, judged in part", &both, &some, &honest, unjudged, Tier::Warning),
        ("filled", &both, &all, &filled, refused, Tier::Contraindicated),
        ("filled, not judged", &both, &captured, &filled, unjudged, Tier::Warning),
        ("filled, which one bank cannot show", &alone, &all, &filled, &[], Tier::Affirming),
    ] {
        let mut host = Host::booted_as(&manifest(), (log.clone(), ima.clone(), line.clone()));
        for (index, value) in BootLog::parse(log).unwrap().replay_bank(OTHER).into_iter().filter(|(pcr, _)| *pcr < 8) {
            host.tpm.set(OTHER, index, value);
        }
        let appraisal = host.round(&judge_by(policy, references)).unwrap();
        let mut boot = told(&appraisal);
        boot.retain(|(_, id)| id.starts_with("boot."));
        boot.dedup();
        assert_eq!((boot.as_slice(), appraisal.tier(Submodule::Boot)), (expect, tier), "{what}");
    }
    // SHA-1 is nobody's proof.
    for references in [naming(&[1]), captured.replace("pcrs.sha256", "pcrs.sha1")] {
        assert!(References::parse("lab", &references).is_err());
    }
}

#[test]
fn b15_what_a_log_says_of_a_bank_that_nobody_quotes_disproves_no_host() {
    let (plain, ima, line) = booted(&command_line());
    // A firmware that writes rubbish for a bank that is not active: the column says nothing of the data.
    let honest = with_sha384(&plain, b"");
    let column = |log: &[u8]| -> Vec<Digest> {
        BootLog::parse(log).unwrap().events().skip(1).map(|event| event.digest(OTHER).unwrap()).collect()
    };
    let mut rubbish = honest.clone();
    for digest in column(&honest) {
        let at = rubbish.windows(48).position(|part| part == digest.as_bytes()).unwrap();
        rubbish[at..at + 48].fill(0);
    }
    let firmware: [u8; 8] = std::array::from_fn(|index| u8::try_from(index).unwrap());
    let both = policy("").replace("pcrs = { sha256", &format!("pcrs = {{ sha384 = {firmware:?}, sha256"));
    let disagree = |severity| vec![(severity, "boot.banks-disagree")];
    for (policy, log, expect, tier) in [
        (policy(""), &honest, vec![], Tier::Affirming),
        (policy(""), &rubbish, disagree(Severity::Warning), Tier::Warning),
        (both, &rubbish, disagree(Severity::Error), Tier::Contraindicated),
    ] {
        let mut host = Host::booted_as(&manifest(), (log.clone(), ima.clone(), line.clone()));
        for (index, value) in BootLog::parse(log).unwrap().replay_bank(OTHER).into_iter().filter(|(pcr, _)| *pcr < 8) {
            host.tpm.set(OTHER, index, value);
        }
        let appraisal = host.round(&judge(&policy, &[&manifest()])).unwrap();
        let mut boot = told(&appraisal);
        boot.retain(|(_, id)| id.starts_with("boot.banks"));
        assert_eq!((boot, appraisal.tier(Submodule::Boot)), (expect, tier));
    }
}

#[test]
fn b23_sleep_is_accepted_and_told() {
    let judge = judge(&policy(""), &[&manifest()]);
    // (times slept between two rounds, told)
    for (sleeps, expect) in [(0, None), (1, Some(Severity::Info)), (3, Some(Severity::Info))] {
        let mut host = Host::boot(&manifest());
        let before = host.round(&judge).unwrap();
        host.sleeps += sleeps;
        let after = host.round(&judge).unwrap();
        assert_eq!(finding(&after, "counters.resumed").map(|one| one.severity), expect, "{sleeps}");
        for one in Submodule::ALL {
            assert_eq!(after.tier(one), before.tier(one), "{sleeps}: {one}");
        }
        assert_eq!(after.tier(Submodule::Boot), Tier::Affirming);
    }
}

#[test]
fn b23_a_kernel_that_resumes_from_disk_is_a_reservation() {
    let rows = [
        ("ro", None, Tier::Affirming),
        ("ro resume=UUID=1 noresume", None, Tier::Affirming),
        ("ro resume=UUID=1", Some(Severity::Warning), Tier::Warning),
        // A locked-down kernel does not resume: known, and no reservation.
        ("ro resume=UUID=1 lockdown=integrity", Some(Severity::Info), Tier::Affirming),
    ];
    for (line, expect, tier) in rows {
        let appraisal = round(line, line, "");
        assert_eq!(finding(&appraisal, "boot.hibernation").map(|one| one.severity), expect, "{line}");
        assert_eq!(appraisal.tier(Submodule::Boot), tier, "{line}");
    }
}

#[test]
fn a_rule_on_a_key_database_wants_its_content() {
    let log = BootLog::parse(&booted("ro").0).unwrap();
    let said = log.describe(BANK);
    let dbx = said.variables.iter().find(|one| one.name == "dbx").unwrap();
    let other = "00".repeat(32);
    // (claim, wanted, satisfied)
    for (claim, want, expect) in
        [("secure_boot_dbx", &dbx.sha256, true), ("secure_boot_dbx", &other, false), ("secure_boot_db", &other, false)]
    {
        let rule = format!(
            "[[rule]]\nid = \"boot.keys\"\nclaim = \"{claim}\"\nwant = \"{want}\"\nelse = \"contraindicated\"\n"
        );
        let appraisal = round("ro", "ro", &rule);
        assert_eq!(finding(&appraisal, "boot.keys").is_none(), expect, "{claim}");
        assert_eq!(appraisal.tier(Submodule::Boot) == Tier::Contraindicated, !expect, "{claim}");
    }
}

#[test]
fn b3_every_authority_must_be_wanted_and_none_satisfies_no_rule() {
    // Two entries of db as firmware measures them: vendor, lengths, name, content.
    let entry = |content: &[u8]| [&[7; 16][..], &2u64.to_le_bytes(), &2u64.to_le_bytes(), b"d\0b\0", content].concat();
    let named = |content: &[u8]| hex::encode(sha256(&[content]));
    let wanting = |want: &[String]| {
        format!(
            "[[rule]]\nid = \"boot.keys\"\nclaim = \"secure_boot_authorities\"\nwant = {want:?}\nelse = \"warning\"\n"
        )
    };
    let one = with_event(booted("ro"), 7, &entry(b"c1"));
    let two = with_event(one.clone(), 7, &entry(b"c2"));
    let (first, both) = (vec![named(b"c1")], vec![named(b"c1"), named(b"c2")]);
    // (boot, wanted, satisfied)
    for (boot, want, expect) in [
        (booted("ro"), &first, false),
        (one.clone(), &first, true),
        (one, &both, true),
        (two.clone(), &first, false),
        (two, &both, true),
    ] {
        let judge = judge(&(policy("") + &wanting(want)), &[&manifest()]);
        let appraisal = Host::booted_as(&manifest(), boot).round(&judge).unwrap();
        assert_eq!(finding(&appraisal, "boot.keys").is_none(), expect, "{want:?}");
        assert!(finding(&appraisal, "boot.replay").is_none());
    }
}

#[test]
fn b23_without_a_proven_command_line_the_kernel_may_have_resumed() {
    for (said, expect) in [("ro", None), ("ro quiet", Some(Severity::Warning))] {
        let appraisal = round("ro", said, "");
        assert_eq!(finding(&appraisal, "boot.hibernation").map(|one| one.severity), expect, "{said}");
        assert_eq!(appraisal.tier(Submodule::Boot), if expect.is_some() { Tier::Warning } else { Tier::Affirming });
    }
}

const LOCKED: &str =
    "[[rule]]\nid = \"boot.lockdown\"\nclaim = \"lockdown_boot\"\nwant = \"integrity\"\nelse = \"contraindicated\"\n";

#[test]
fn b2_a_text_that_the_kernel_reads_otherwise_proves_nothing() {
    // The bench appends what its IMA policy needs.
    let padded = |length: usize| format!("lockdown=integrity {}", "x".repeat(length - 19 - " ima_policy=tcb".len()));
    let rows = [
        ("lockdown=integrity".to_owned(), false),
        (padded(2047), false),
        (padded(2048), true),
        ("ro\nlockdown=integrity".to_owned(), true),
        ("ro\0lockdown=integrity".to_owned(), true),
        ("ro \u{e9} lockdown=integrity".to_owned(), true),
    ];
    for (line, cut) in rows {
        let appraisal = round(&line, &line, LOCKED);
        assert_eq!(finding(&appraisal, "boot.command-line-cut").is_some(), cut, "{line:?}");
        assert_eq!(finding(&appraisal, "boot.lockdown").is_some(), cut, "{line:?}");
        assert_eq!(appraisal.boot().unwrap().command_line.is_none(), cut, "{} bytes", line.len());
    }
}

#[test]
fn b2_a_file_that_grub_reads_first_is_no_command_line() {
    // GRUB measures each file that it reads into PCR 9: the first may hold what the kernel would have measured there.
    let line = "lockdown=integrity";
    let boot = common::bench::booted(line);
    let judge = judge_of(&(policy("") + LOCKED), &[&manifest()], line);
    for (boot, by_grub) in [(boot.clone(), false), (with_event(boot, 8, b"grub_cmd: linux /k init=/bin/sh"), true)] {
        let appraisal = Host::booted_as(&manifest(), boot).round(&judge).unwrap();
        assert_eq!(finding(&appraisal, "boot.command-line-loader").is_some(), by_grub);
        assert_eq!(finding(&appraisal, "boot.lockdown").is_some(), by_grub);
        assert_eq!(appraisal.boot().and_then(|boot| boot.command_line.as_ref()).is_none(), by_grub);
    }
    // Nor where nobody quoted GRUB's PCR.
    let blind = policy("").replace("7, 8, 9", "7, 9") + LOCKED;
    let judge = judge_of(&blind, &[&manifest()], line);
    let appraisal = Host::booted_as(&manifest(), common::bench::booted(line)).round(&judge).unwrap();
    assert!(
        finding(&appraisal, "boot.command-line-loader").is_some() && finding(&appraisal, "boot.lockdown").is_some()
    );
}

#[test]
fn rules_on_the_command_line_rest_on_what_the_kernel_measured() {
    let lockdown = "[[rule]]\nid = \"boot.lockdown\"\nclaim = \"lockdown_boot\"\nwant = [\"integrity\", \"confidentiality\"]\nelse = \"contraindicated\"\n";
    let reported =
        "[[rule]]\nid = \"boot.lockdown\"\nclaim = \"lockdown\"\nwant = \"integrity\"\nelse = \"contraindicated\"\n";
    let words = "[[rule]]\nid = \"boot.words\"\nclaim = \"kernel_command_line\"\nwant = { has = [\"ima_hash=sha256\"], lacks = [\"init\"] }\nelse = \"warning\"\n";
    // (rules, command line, what hostd says it is, findings, tier)
    type Row<'a> = (&'a str, &'a str, &'a str, &'a [&'a str], Tier);
    let rows: [Row<'_>; 10] = [
        (lockdown, "ro lockdown=integrity", "ro lockdown=integrity", &[], Tier::Affirming),
        (lockdown, "ro lockdown=confidentiality", "ro lockdown=confidentiality", &[], Tier::Affirming),
        (lockdown, "ro", "ro", &["boot.lockdown"], Tier::Contraindicated),
        (lockdown, "ro x=lockdown=integrity", "ro x=lockdown=integrity", &["boot.lockdown"], Tier::Contraindicated),
        // hostd says what the policy wants to hear.
        (lockdown, "ro", "ro lockdown=integrity", &["boot.hibernation", "boot.lockdown"], Tier::Contraindicated),
        // hostd's word about the running kernel carries less.
        (reported, "ro", "ro", &[], Tier::Warning),
        (words, "ro ima_hash=sha256", "ro ima_hash=sha256", &[], Tier::Affirming),
        (words, "ro", "ro", &["boot.words"], Tier::Warning),
        (words, "ima_hash=sha256 init=/bin/sh", "ima_hash=sha256 init=/bin/sh", &["boot.words"], Tier::Warning),
        (words, "ima_hash=sha256 init=/bin/sh", "ima_hash=sha256", &["boot.hibernation", "boot.words"], Tier::Warning),
    ];
    for (rules, line, said, ids, tier) in rows {
        let appraisal = round(line, said, rules);
        let boot: Vec<&str> = told(&appraisal).iter().map(|one| one.1).filter(|id| id.starts_with("boot.")).collect();
        assert_eq!((boot, appraisal.tier(Submodule::Boot)), (ids.to_vec(), tier), "{line} said to be {said}");
    }
}

#[test]
fn what_the_boot_proves_is_in_the_result() {
    let line = "ro lockdown=integrity";
    let proven = |said: &str| round(line, said, "").boot().cloned().unwrap();
    let boot = proven(line);
    assert!(boot.command_line.unwrap().starts_with(line));
    assert_eq!(boot.lockdown, Some(Lockdown::Integrity));
    assert_eq!(boot.secure_boot, "off");
    let sections: Vec<&str> = boot.image.keys().map(String::as_str).collect();
    assert_eq!(sections, [".cmdline", ".initrd", ".linux", ".osrel"]);
    let boot = proven("ro lockdown=confidentiality");
    assert_eq!((boot.command_line, boot.lockdown), (None, None), "what hostd says and no PCR holds is no fact");
}

#[test]
fn a_host_is_judged_by_its_image_in_every_phase() {
    let quirk = policy("").replacen("[ima]", "quirks = [\"pcrphase-unlogged\"]\n[ima]", 1);
    let (tolerant, strict): (Judge, Judge) = (judge(&quirk, &[&manifest()]), judge(&policy(""), &[&manifest()]));
    let affirmed = (vec![], Tier::Affirming);
    let refused = (vec!["boot.replay"], Tier::Contraindicated);
    // (words that systemd extended into PCR 11, tolerated, told)
    let rows: [(&[&str], bool, _); 7] = [
        (&[], true, &affirmed),
        (&["sysinit"], true, &affirmed),
        (&["sysinit", "ready"], true, &affirmed),
        (&["enter-initrd", "leave-initrd", "sysinit", "ready"], true, &affirmed),
        (&["sysinit", "ready"], false, &refused),
        (&["ready", "sysinit"], true, &refused),
        (&["sysinit", "ready", "anything"], true, &refused),
    ];
    for (words, tolerated, expect) in rows {
        let mut host = Host::boot(&manifest());
        for word in words {
            host.extend(11, BANK.hash(&[word.as_bytes()]).unwrap());
        }
        let appraisal = host.round(if tolerated { &tolerant } else { &strict }).unwrap();
        let boot: Vec<&str> = told(&appraisal).iter().map(|one| one.1).filter(|id| id.starts_with("boot.")).collect();
        assert_eq!(&(boot, appraisal.tier(Submodule::Boot)), expect, "{words:?}");
        let image = appraisal.boot().map_or(0, |boot| boot.image.len());
        assert_eq!(image, if expect.0.is_empty() { 4 } else { 0 }, "{words:?}");
    }
}
