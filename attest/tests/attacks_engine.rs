//! The attack table's rows about engines, as the verifier judges them: the manifest against IMA, the host log and the facts beside it.
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

use common::bench::{Host, judge, policy, told};
use hostmark_attest::appraisal::{Appraisal, Judge};
use hostmark_attest::digest::sha256;
use hostmark_attest::finding::Severity::{Error, Warning};
use hostmark_attest::manifest::{EngineManifest, EngineState, FileDigest, FileState, Mode};
use hostmark_attest::tier::{Submodule, Tier};

const CONFIG: &str = "/etc/docker/daemon.json";
const RUNC: &str = "/usr/sbin/runc";

fn file(content: &str) -> FileState {
    let sha256 = FileDigest(sha256(&[content.as_bytes()]));
    FileState::File { sha256, size: content.len() as u64, mode: Mode(0o644), uid: 0, gid: 0 }
}

/// What hostd reports of a Docker Engine with this configuration and this runc.
fn manifest(configuration: &str, runc: &str) -> EngineManifest {
    let docker = EngineState {
        installed: true,
        configuration: BTreeMap::from([(CONFIG.to_owned(), file(configuration))]),
        binaries: BTreeMap::from([(RUNC.to_owned(), file(runc))]),
        ..EngineState::default()
    };
    EngineManifest { version: 1, root_is_default: true, engines: BTreeMap::from([("docker".to_owned(), docker)]) }
}

/// Permits the configurations A and B, and two releases of runc.
fn covered() -> Judge {
    judge(&policy("ima_covers = [\"/etc/docker/\"]"), &[&manifest("A", "runc 1"), &manifest("B", "runc 2")])
}

fn engine(appraisal: &Appraisal) -> Tier {
    appraisal.tier(Submodule::Engine)
}

/// hostd's word that nothing contradicts: as good as it gets.
const REPORTED: Tier = Tier::Warning;

#[test]
fn b13_a_digest_that_the_kernel_never_measured_there_contradicts() {
    let mismatch = |severity| vec![(severity, "engine.file-mismatch")];
    let unmeasured = || vec![(Warning, "engine.file-unmeasured")];
    type Reads<'a> = &'a [(&'a str, &'a str)];
    let rows: [(&str, Reads<'_>, _, Tier); 8] = [
        ("honest: hostd itself read it", &[(CONFIG, "A")], vec![], REPORTED),
        ("honest: read before it was renamed", &[("/etc/docker/daemon.json.new", "A")], vec![], REPORTED),
        ("honest: a container's own file of that name beside it", &[(CONFIG, "A"), (CONFIG, "B")], vec![], REPORTED),
        ("another content was read there", &[(CONFIG, "B")], mismatch(Error), Tier::Contraindicated),
        ("the content lies elsewhere", &[("/etc/other/daemon.json", "A")], unmeasured(), REPORTED),
        ("nothing was read", &[], unmeasured(), REPORTED),
        ("honest: an earlier release ran", &[(CONFIG, "A"), (RUNC, "runc 2")], vec![], REPORTED),
        // The path may be a container's: a reservation, never a refusal. The runtime subsystem judges the program itself.
        (
            "another program ran as runc",
            &[(CONFIG, "A"), (RUNC, "evil")],
            vec![(Warning, "ima.unknown-file"), (Warning, "engine.file-mismatch")],
            REPORTED,
        ),
    ];
    for (name, reads, expect, tier) in rows {
        let mut host = Host::boot(&manifest("A", "runc 1"));
        for (path, content) in reads {
            host.reads(path, content.as_bytes());
        }
        let judge = covered();
        let whole = host.round(&judge).unwrap();
        assert_eq!((told(&whole), engine(&whole)), (expect.clone(), tier), "{name}");
        // And in a delta that holds none of it any more.
        let delta = host.round(&judge).unwrap();
        assert_eq!((told(&delta), engine(&delta)), (expect, tier), "{name}: the next round");
        // Where the policy names no directory, nothing is asked of configuration.
        host.state = None;
        let uncovered = judge_uncovered();
        let plain = host.round(&uncovered).unwrap();
        assert_ne!(engine(&plain), Tier::Contraindicated, "{name}: not covered");
    }
}

fn judge_uncovered() -> Judge {
    judge(&policy(""), &[&manifest("A", "runc 1"), &manifest("B", "runc 2")])
}

#[test]
fn b13_what_was_reported_too_early_is_measured_later() {
    let judge = covered();
    let mut host = Host::boot(&manifest("A", "runc 1"));
    let first = host.round(&judge).unwrap();
    assert_eq!(told(&first), [(Warning, "engine.file-unmeasured")]);
    host.reads(CONFIG, b"A");
    let second = host.round(&judge).unwrap();
    assert_eq!(told(&second), [], "the delta holds it");
    // The other way round: a lie that only a later entry shows.
    let mut host = Host::boot(&manifest("A", "runc 1"));
    host.round(&judge).unwrap();
    host.reads(CONFIG, b"B");
    let second = host.round(&judge).unwrap();
    assert_eq!((told(&second), engine(&second)), (vec![(Error, "engine.file-mismatch")], Tier::Contraindicated));
}

#[test]
fn b13_a_file_that_no_round_judged_needs_the_whole_list_once() {
    let judge = covered();
    let mut host = Host::boot(&manifest("A", "runc 1"));
    host.reads(CONFIG, b"B");
    host.reads(CONFIG, b"A");
    assert_eq!(told(&host.round(&judge).unwrap()), []);
    // A content that was measured before hostd ever reported it: the delta cannot tell, the whole list can.
    host.report(&manifest("B", "runc 1"));
    let Err(resend) = host.round(&judge) else { panic!("judged without the entry") };
    assert!(resend.findings.has("engine.file-unjudged"));
    assert_eq!(told(&host.round(&judge).unwrap()), [], "the whole list has it");
    assert_eq!(told(&host.round(&judge).unwrap()), [], "and the next delta needs no other");
    // A lie is found in the same way, and stays found.
    let lie = manifest("C", "runc 1");
    let judge = common::bench::judge(&policy("ima_covers = [\"/etc/docker/\"]"), &[&lie]);
    host.state = None;
    host.report(&lie);
    for round in ["whole", "delta", "delta"] {
        let appraisal = host.round(&judge).unwrap();
        assert!(told(&appraisal).contains(&(Error, "engine.file-mismatch")), "{round}");
    }
}

#[test]
fn b20_a_configuration_that_changes_and_comes_back_is_no_mismatch() {
    let judge = covered();
    let mut host = Host::boot(&manifest("A", "runc 1"));
    // The kernel lists a pair once: the third content adds no entry.
    for (round, content) in ["A", "B", "A", "B"].into_iter().enumerate() {
        host.reads(CONFIG, content.as_bytes());
        host.report(&manifest(content, "runc 1"));
        let appraisal = host.round(&judge).unwrap();
        assert_eq!((told(&appraisal), engine(&appraisal)), (vec![], REPORTED), "round {round}");
    }
    // A content that nobody ever had there is one.
    host.report(&manifest("C", "runc 1"));
    let Err(resend) = host.round(&judge) else { panic!("a delta cannot tell") };
    assert!(resend.findings.has("engine.file-unjudged"));
    let appraisal = host.round(&judge).unwrap();
    assert!(told(&appraisal).contains(&(Error, "engine.file-mismatch")), "{:?}", told(&appraisal));
}
