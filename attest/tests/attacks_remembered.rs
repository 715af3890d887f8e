//! What a judge remembers of earlier rounds is never used for other inputs than those it was worked out from.
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

use common::bench::{Host, booted, command_line, judge, judge_by, policy, told};
use hostmark_attest::appraisal::{Appraisal, Judge};
use hostmark_attest::digest::{Digest, HashAlg, sha256};
use hostmark_attest::finding::Severity::Error;
use hostmark_attest::host_log::Event;
use hostmark_attest::manifest::{EngineManifest, EngineState, FileDigest, FileState, Mode};
use hostmark_attest::policy::capture::{Capture, capture};
use hostmark_attest::tier::{Submodule, Tier};
use time::Duration;

const RUNC: &str = "/usr/sbin/runc";

fn manifest(runc: &str) -> EngineManifest {
    let sha256 = FileDigest(sha256(&[runc.as_bytes()]));
    let file = FileState::File { sha256, size: runc.len() as u64, mode: Mode(0o755), uid: 0, gid: 0 };
    let docker =
        EngineState { installed: true, binaries: BTreeMap::from([(RUNC.to_owned(), file)]), ..EngineState::default() };
    EngineManifest { version: 1, root_is_default: true, engines: BTreeMap::from([("docker".to_owned(), docker)]) }
}

/// An honest host after two rounds, so that its judge remembers.
fn remembered(judge: &Judge) -> Host {
    let mut host = Host::boot(&manifest("runc 1"));
    for _ in 0..2 {
        good(&host.round(judge).unwrap());
    }
    host
}

fn good(appraisal: &Appraisal) {
    assert!(!appraisal.disproven(), "{:?}", told(appraisal));
    assert_eq!(appraisal.tier(Submodule::Boot), Tier::Affirming, "{:?}", told(appraisal));
    assert!(appraisal.boot().unwrap().command_line.is_some());
}

fn refuses(appraisal: &Appraisal, id: &str) {
    assert!(told(appraisal).contains(&(Error, id)), "{id} is missing in {:?}", told(appraisal));
}

#[test]
fn b1_another_boot_log_is_replayed_whatever_was_remembered() {
    let judge = judge(&policy(""), &[&manifest("runc 1")]);
    let mut host = remembered(&judge);
    let good_log = host.boot_log.clone();
    host.boot_log = booted("quiet").0;
    refuses(&host.round(&judge).unwrap(), "boot.replay");
    host.boot_log = good_log[..good_log.len() - 1].to_vec();
    refuses(&host.round(&judge).unwrap(), "boot.malformed");
    host.boot_log = good_log;
    good(&host.round(&judge).unwrap());
}

#[test]
fn b1_other_quoted_values_are_explained_anew() {
    let judge = judge(&policy(""), &[&manifest("runc 1")]);
    let mut host = remembered(&judge);
    // The host goes on, and PCR 4 with it: the log that replayed a moment ago does not any more.
    host.extend(4, Digest::ones(HashAlg::Sha256));
    refuses(&host.round(&judge).unwrap(), "boot.replay");
    good(&remembered(&judge).round(&judge).unwrap());
}

#[test]
fn b1_another_told_command_line_is_not_the_proven_one() {
    let judge = judge(&policy(""), &[&manifest("runc 1")]);
    let mut host = remembered(&judge);
    let honest = host.facts.clone();
    for lie in [Some("lockdown=integrity"), Some(""), None] {
        host.facts = lie.map(|lie| ("cmdline".to_owned(), lie.to_owned())).into_iter().collect();
        let appraisal = host.round(&judge).unwrap();
        assert_eq!(appraisal.boot().unwrap().command_line, None, "{lie:?}");
    }
    host.facts = honest;
    good(&host.round(&judge).unwrap());
}

#[test]
fn b11_another_log_of_systemd_is_replayed_whatever_was_remembered() {
    let judge = judge(&policy(""), &[&manifest("runc 1")]);
    let mut host = remembered(&judge);
    let honest = host.userspace_log.clone();
    host.userspace_log = b"no record\n".to_vec();
    refuses(&host.round(&judge).unwrap(), "userspace-log.malformed");
    host.userspace_log = honest;
    good(&host.round(&judge).unwrap());
}

#[test]
fn b5_a_log_that_cannot_be_read_proves_nothing() {
    let judge = judge(&policy(""), &[&manifest("runc 1")]);
    let mut host = remembered(&judge);
    let (boot_log, host_log) = (host.boot_log.clone(), host.host_log.clone());
    let lost = |host: &mut Host, submodule, id| {
        let appraisal = host.round(&judge).unwrap();
        refuses(&appraisal, id);
        assert_eq!(appraisal.tier(submodule), Tier::Contraindicated, "{id}");
    };
    host.boot_log.pop();
    lost(&mut host, Submodule::Boot, "boot.malformed");
    host.boot_log = boot_log;
    host.host_log.extend(b"no record\n");
    lost(&mut host, Submodule::Engine, "host-log.malformed");
    host.host_log = host_log;
    host.flood = vec![0xff; 20];
    lost(&mut host, Submodule::Runtime, "ima.malformed");
    host.flood.clear();
    host.whole = true;
    good(&host.round(&judge).unwrap());
    // A manifest that was measured, and that nobody can read.
    host.manifest = b"{".to_vec();
    host.log(&Event::Manifest { sha256: sha256(&[b"{"]) });
    lost(&mut host, Submodule::Engine, "engine.manifest-malformed");
    host.report(&manifest("runc 1"));
    host.whole = true;
    good(&host.round(&judge).unwrap());
}

#[test]
fn b13_another_manifest_is_read_whatever_was_remembered() {
    let judge = judge(&policy(""), &[&manifest("runc 1")]);
    let mut host = remembered(&judge);
    host.report(&manifest("runc 2"));
    host.whole = true;
    refuses(&host.round(&judge).unwrap(), "engine.file-changed");
    good(&remembered(&judge).round(&judge).unwrap());
}

#[test]
fn b13_what_a_window_allowed_ends_with_it() {
    let (boot_log, ima, _) = booted(&command_line());
    let captured = |runc: &str, part: &str| {
        let manifest = manifest(runc).to_canonical();
        let all = Capture { boot_log: &boot_log, ima: &ima, manifests: &[&manifest], ..Capture::default() };
        capture(&all, 1).unwrap().replacen("[[window]]", &format!("[[window]]\n{part}"), 1)
    };
    let start = Host::boot(&manifest("runc 1")).now;
    let end = start + Duration::hours(1);
    let until = end.format(&time::format_description::well_known::Rfc3339).unwrap();
    let stays = captured("runc 2", "");
    let ends = captured("runc 1", &format!("until = \"{until}\"\n"));
    let references = format!("{stays}\n{}", ends.split_once('\n').unwrap().1);
    let judge = judge_by(&policy(""), &references);
    let mut host = remembered(&judge);
    host.now = end;
    host.whole = true;
    refuses(&host.round(&judge).unwrap(), "engine.file-changed");
    host.now = start;
    host.whole = true;
    good(&host.round(&judge).unwrap());
}

#[test]
fn b1_another_judge_remembers_nothing_of_this_one() {
    let first = judge(&policy(""), &[&manifest("runc 1")]);
    let mut host = remembered(&first);
    // Of the same name and version, by other references: nothing that the first one found is the second one's.
    let second = judge(&policy(""), &[&manifest("runc 2")]);
    host.whole = true;
    refuses(&host.round(&second).unwrap(), "engine.file-changed");
}
