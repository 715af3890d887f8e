//! The attack table's rows about what a host runs: which IMA policy rules, and what the entries of its list are. Each test has its
//! honest twin.
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

use common::bench::{Boot, Host, command_line, judge, judge_by, policy, told};
use common::policy_entry::{POLICY_PATH, SHIPPED, booted_with, ima_buf, ima_ng, with_policy};
use hostmark_attest::appraisal::{Appraisal, Judge};
use hostmark_attest::digest::sha256;
use hostmark_attest::finding::Severity;
use hostmark_attest::host_log::Event;
use hostmark_attest::ima::ImaLog;
use hostmark_attest::manifest::{EngineManifest, EngineState, FileDigest, FileState, Mode};
use hostmark_attest::policy::capture::{Capture, capture};
use hostmark_attest::policy::{AppraisalPolicy, PolicyError};
use hostmark_attest::tier::{Submodule, Tier};

const RUNC: &str = "/usr/sbin/runc";

/// Unknown files refuse, as under the shipped policies.
fn strict() -> String {
    policy("").replace("unknown = \"warning\"", "unknown = \"contraindicated\"")
}

/// What hostd reports of a Docker Engine with this runc.
fn manifest(runc: &str) -> EngineManifest {
    let sha256 = FileDigest(sha256(&[runc.as_bytes()]));
    let file = FileState::File { sha256, size: 1, mode: Mode(0o755), uid: 0, gid: 0 };
    let binaries = BTreeMap::from([(RUNC.to_owned(), file)]);
    let docker = EngineState { installed: true, binaries, ..EngineState::default() };
    EngineManifest { version: 1, root_is_default: true, engines: BTreeMap::from([("docker".to_owned(), docker)]) }
}

fn lab() -> Judge {
    judge(&strict(), &[&manifest("runc 1")])
}

/// Ids of the runtime subsystem's findings that are more than information, neighbours of one id once, and its tier.
fn runtime(appraisal: &Appraisal) -> (String, Tier) {
    let mut ids: Vec<&str> =
        told(appraisal).into_iter().map(|(_, id)| id).filter(|id| id.starts_with("ima.")).collect();
    ids.dedup();
    (ids.join(" "), appraisal.tier(Submodule::Runtime))
}

fn is(ids: &[&str], tier: Tier) -> (String, Tier) {
    (ids.join(" "), tier)
}

fn honest() -> (String, Tier) {
    is(&[], Tier::Affirming)
}

#[test]
fn b17_memory_modules_firmware_and_kexec_are_told_by_their_kind() {
    let known = "runc 1";
    let rows: [(&str, &str, &[&str]); 15] = [
        ("memfd:payload", "evil", &["ima.unknown-file", "ima.memory-execution"]),
        ("/memfd:payload (deleted)", "evil", &["ima.unknown-file", "ima.memory-execution"]),
        ("/dev/shm/payload", "evil", &["ima.unknown-file", "ima.memory-execution"]),
        ("/run/payload", "evil", &["ima.unknown-file", "ima.memory-execution"]),
        ("/tmp/payload", "evil", &["ima.unknown-file", "ima.memory-execution"]),
        ("/usr/lib/modules/6.1.0/extra/evil.ko", "evil", &["ima.unknown-file", "ima.unknown-module"]),
        ("/usr/lib/firmware/evil.bin", "evil", &["ima.unknown-file", "ima.unknown-firmware"]),
        ("/root/vmlinuz", "evil", &["ima.unknown-file", "ima.kexec-image"]),
        ("kexec-cmdline", "console=ttyS0", &["ima.unknown-file", "ima.kexec"]),
        ("kexec-cmdline", known, &["ima.kexec"]),
        // A buffer that begins as a signature does.
        ("kexec-cmdline", "\u{3}console=ttyS0", &["ima.unknown-file", "ima.kexec"]),
        // The digest decides, wherever a known file lies: runc starts itself again from a copy in memory.
        ("memfd:runc_cloned:/proc/self/exe", known, &[]),
        ("/dev/shm/runc", known, &[]),
        ("/root/vmlinuz", known, &[]),
        ("/tmp/known.ko", known, &[]),
    ];
    for (path, content, expect) in rows {
        let judge = lab();
        let mut host = Host::boot(&manifest("runc 1"));
        assert_eq!(runtime(&host.round(&judge).unwrap()), honest(), "honest twin");
        happens(&mut host, path, content);
        let tier = if expect.is_empty() { Tier::Affirming } else { Tier::Contraindicated };
        let delta = host.round(&judge).unwrap();
        assert_eq!(runtime(&delta), is(expect, tier), "{path}");
        // It is not forgotten when the next round has nothing new, and not told otherwise by the whole list.
        for whole in [false, true] {
            host.whole = whole;
            assert_eq!(runtime(&host.round(&judge).unwrap()), is(expect, tier), "{path}: whole {whole}");
        }
    }
    // Where unknown files are a reservation, a kexec still refuses.
    for (path, tier) in [("/dev/shm/payload", Tier::Warning), ("kexec-cmdline", Tier::Contraindicated)] {
        let mut host = Host::boot(&manifest("runc 1"));
        happens(&mut host, path, "evil");
        let lenient = judge(&policy(""), &[&manifest("runc 1")]);
        assert_eq!(runtime(&host.round(&lenient).unwrap()).1, tier, "{path}");
    }
}

/// A file is read; for a kexec the kernel measures a command line as a buffer.
fn happens(host: &mut Host, path: &str, content: &str) {
    match path {
        "kexec-cmdline" => host.measure(&ima_buf(path, content.as_bytes())),
        path => host.reads(path, content.as_bytes()),
    }
}

#[test]
fn b17_a_files_name_makes_no_kexec() {
    let judge = judge(&policy(""), &[&manifest("runc 1")]);
    // A container's program whose path is too long for the kernel is listed by its bare name, which the tenant chose.
    type Row = (&'static str, fn(&mut Host), (String, Tier));
    let rows: [Row; 3] = [
        ("a known file of that name", |host| host.reads("kexec-cmdline", b"runc 1"), honest()),
        ("an unknown one", |host| host.reads("kexec-cmdline", b"evil"), is(&["ima.unknown-file"], Tier::Warning)),
        (
            "the kernel's own entry",
            |host| host.measure(&ima_buf("kexec-cmdline", b"evil")),
            is(&["ima.unknown-file", "ima.kexec"], Tier::Contraindicated),
        ),
    ];
    for (name, happens, expect) in rows {
        let mut host = Host::boot(&manifest("runc 1"));
        happens(&mut host);
        for _ in 0..2 {
            assert_eq!(runtime(&host.round(&judge).unwrap()), expect, "{name}");
        }
    }
}

#[test]
fn b17_a_kernel_that_is_not_locked_down_never_affirms() {
    let (_, _, line) = booted();
    let without = |lockdown: &str| line.replace("lockdown=integrity", lockdown);
    for (line, expect) in [
        (line.clone(), honest()),
        (without("lockdown=confidentiality"), honest()),
        (without("quiet"), is(&["ima.unlocked-kernel"], Tier::Warning)),
        (without("-- lockdown=integrity"), is(&["ima.unlocked-kernel", "ima.coverage-gap"], Tier::Warning)),
    ] {
        let judge = common::bench::judge_of(&policy(""), &[&manifest("runc 1")], &line);
        let mut host = Host::boot_with(&manifest("runc 1"), &line);
        for _ in 0..2 {
            assert_eq!(runtime(&host.round(&judge).unwrap()), expect, "{line}");
        }
    }
}

fn booted() -> Boot {
    common::bench::booted(&command_line())
}

/// What it is, the boot, and the findings that it must give.
type Case = (&'static str, Boot, &'static [&'static str]);

/// Boots whose list has the policy's entry, or not, and whose command line asks for `tcb`, or not.
fn boots() -> [Case; 8] {
    let (boot_log, ima, line) = booted();
    let starts: Vec<usize> = ImaLog::parse(&ima).unwrap().entries().map(|entry| entry.at()).collect();
    let (second, third) = (starts[1], starts[2]);
    let without = |line: &str| {
        let booted = booted_with(boot_log.clone(), line);
        with_policy_at(booted, &ima, line, starts.as_slice())
    };
    let parsed = ImaLog::parse(&ima).unwrap();
    let last = parsed.entries().last().unwrap();
    let known = <[u8; 32]>::try_from(last.measurement().unwrap().digest).unwrap();
    let replaced = |digest: &[u8; 32]| {
        let list = [&ima[..second], &ima_ng(POLICY_PATH, digest), &ima[third..]].concat();
        (boot_log.clone(), list, line.clone())
    };
    let late = [&ima[..second], &ima[third..], &ima[second..third]].concat();
    let other = line.replace("ima_policy=tcb", "ima_policy=secure_boot");
    let init = line.replace("ima_policy=tcb", "-- ima_policy=tcb");
    let quoted = line.replace("ima_policy=tcb", "x=\"a ima_policy=tcb\"");
    [
        ("honest", booted(), &[]),
        (
            "no policy's file in the list",
            (boot_log.clone(), [&ima[..second], &ima[third..]].concat(), line.clone()),
            &["ima.coverage-gap"],
        ),
        (
            "another policy",
            replaced(&sha256(&[b"measure func=MODULE_CHECK"])),
            &["ima.unknown-file", "ima.policy-replaced", "ima.coverage-gap"],
        ),
        ("a known file in its place", replaced(&known), &["ima.policy-replaced", "ima.coverage-gap"]),
        ("read when programs had run already", (boot_log.clone(), late, line.clone()), &["ima.policy-late"]),
        ("not measured from the start", without(&other), &["ima.coverage-gap"]),
        ("a parameter of PID 1", without(&init), &["ima.coverage-gap"]),
        ("a part of another parameter", without(&quoted), &["ima.coverage-gap"]),
    ]
}

/// The list again with the boot aggregate of another boot log.
fn with_policy_at(boot_log: Vec<u8>, ima: &[u8], line: &str, starts: &[usize]) -> Boot {
    let bare = [&ima[..starts[1]], &ima[starts[2]..]].concat();
    // Made anew for this boot log; its own command line is put back.
    let (_, made, _) = with_policy(boot_log.clone(), bare, line);
    let own = common::policy_entry::boot_aggregate(&boot_log);
    let second = ImaLog::parse(&made).unwrap().entries().nth(1).unwrap().at();
    (boot_log, [&own, &made[second..]].concat(), line.to_owned())
}

#[test]
fn b17_an_ima_policy_that_is_not_proven_never_affirms() {
    for (what, boot, expect) in boots() {
        // The command line is judged by its own rule: its PCR is left out of these references.
        let judge = judge_by(&strict(), &references(&booted().1));
        let mut host = Host::booted_as(&manifest("runc 1"), boot);
        for round in ["whole", "delta"] {
            let appraisal = host.round(&judge).unwrap();
            let (ids, tier) = runtime(&appraisal);
            assert_eq!(ids, expect.join(" "), "{what}: {round}");
            let unknown = if expect.contains(&"ima.policy-replaced") { Tier::Contraindicated } else { Tier::Warning };
            assert_eq!(tier, if expect.is_empty() { Tier::Affirming } else { unknown }, "{what}: {round}");
        }
    }
    // Replaced later: the next boot would load it.
    let judge = lab();
    let mut host = Host::boot(&manifest("runc 1"));
    assert_eq!(runtime(&host.round(&judge).unwrap()), honest());
    host.reads(POLICY_PATH, b"dont_measure");
    let (ids, tier) = runtime(&host.round(&judge).unwrap());
    assert_eq!((ids, tier), is(&["ima.unknown-file", "ima.policy-replaced"], Tier::Contraindicated));
    // A command line that nobody proves is none.
    let mut host = Host::boot(&manifest("runc 1"));
    host.facts.clear();
    assert_eq!(runtime(&host.round(&judge).unwrap()), is(&["ima.unlocked-kernel", "ima.coverage-gap"], Tier::Warning));
}

/// References for the files of a list and nothing else.
fn references(ima: &[u8]) -> String {
    let engine = manifest("runc 1").to_canonical();
    capture(&Capture { boot_log: &[], ima, manifests: &[&engine], ..Capture::default() }, 1).unwrap()
}

#[test]
fn b17_references_without_a_policy_prove_none_and_one_captured_late_is_expected_late() {
    let (boot_log, ima, line) = booted();
    let [.., (_, (_, late, _), _), _, _, _] = boots();
    let without =
        references(&ima).lines().filter(|line| !line.starts_with("ima_policy")).collect::<Vec<_>>().join("\n");
    let mut host = Host::boot(&manifest("runc 1"));
    let (ids, tier) = runtime(&host.round(&judge_by(&strict(), &without)).unwrap());
    assert_eq!((ids, tier), is(&["ima.policy-replaced", "ima.coverage-gap"], Tier::Contraindicated));
    // A machine whose initrd runs programs on a measured file system: its references say which.
    let captured = references(&late);
    assert!(captured.contains("ima_before_policy = ["));
    let mut host = Host::booted_as(&manifest("runc 1"), (boot_log, late, line));
    assert_eq!(runtime(&host.round(&judge_by(&strict(), &captured)).unwrap()), honest());
}

#[test]
fn b17_under_tcb_the_gap_is_told() {
    let tcb = strict().replace("container-host", "tcb");
    let manifest = manifest("runc 1");
    let mut host = Host::boot(&manifest);
    assert_eq!(runtime(&host.round(&lab()).unwrap()), honest(), "honest twin");
    host.state = None;
    let appraisal = host.round(&judge(&tcb, &[&manifest])).unwrap();
    assert_eq!(runtime(&appraisal), is(&["ima.coverage-gap"], Tier::Warning));
    let unknown = strict().replace("container-host", "anything");
    assert!(matches!(AppraisalPolicy::parse("p", &unknown), Err(PolicyError::Toml { .. })));
}

#[test]
fn b8_no_path_allows_another_content() {
    let allowed = "/usr/bin/bash";
    let explained = "they name another file of this path";
    let odd = "not a plain absolute one";
    let rows = [
        (allowed, explained),
        ("/usr/bin/../bin/bash", odd),
        ("/usr/bin/bash\n10 00 ima-ng sha256:00 /usr/bin/true", odd),
        ("/usr/bin//bash", odd),
        ("bash", odd),
        ("/usr/bin/bash (deleted)", odd),
        ("/usr/bin/bash\u{1b}[2K", odd),
        ("/usr/bin/bash_", "a digest of the references"),
        ("/var/lib/docker/overlay2/x/merged/usr/bin/bash", "a digest of the references"),
    ];
    for (path, told) in rows {
        let judge = lab();
        let mut host = Host::boot(&manifest("runc 1"));
        // The honest twin: a known file may lie anywhere, whatever its path looks like.
        host.reads(path, b"runc 1");
        assert_eq!(runtime(&host.round(&judge).unwrap()), honest(), "{path}");
        host.reads(path, b"evil");
        let appraisal = host.round(&judge).unwrap();
        assert_eq!(runtime(&appraisal), is(&["ima.unknown-file"], Tier::Contraindicated), "{path}");
        let finding = appraisal.findings().find(|one| one.id == "ima.unknown-file").unwrap();
        assert!(finding.expected.as_deref().unwrap().contains(told), "{finding}");
        assert!(!finding.to_string().contains(['\n', '\u{1b}']), "{finding}");
    }
}

#[test]
fn b8_a_newline_in_a_path_makes_no_entry_of_the_ascii_list() {
    let known = hex::encode(sha256(&[b"runc 1"]));
    let path = format!("/tmp/x\n10 {} ima-ng sha256:{known} /usr/sbin/runc", "11".repeat(20));
    let entry = ima_ng(&path, &sha256(&[b"evil"]));
    let log = ImaLog::parse(&entry).unwrap();
    assert_eq!((log.len(), log.entries().next().unwrap().measurement().unwrap().path), (1, path.as_bytes()), "binary");
    let quoted = hostmark_attest::ima::replay::replay_all(&log, &[hostmark_attest::digest::HashAlg::Sha256]);
    let replays = |text: &str| {
        let Ok(log) = ImaLog::parse(text.as_bytes()) else { return false };
        hostmark_attest::ima::replay_prefix(&log, &Default::default(), &quoted, Default::default()).is_ok()
    };
    let line = |path: &str| {
        let digest = hex::encode(sha256(&[b"evil"]));
        format!("10 {} ima-ng sha256:{digest} {path}\n", hex::encode(log.entries().next().unwrap().listed_digest()))
    };
    assert!(!replays(&line(&path)), "the kernel's ascii form of such a path is two lines, which replay to nothing");
    let plain = ima_ng("/tmp/x", &sha256(&[b"evil"]));
    let quoted = hostmark_attest::ima::replay::replay_all(
        &ImaLog::parse(&plain).unwrap(),
        &[hostmark_attest::digest::HashAlg::Sha256],
    );
    let text = line("/tmp/x");
    let honest = ImaLog::parse(text.as_bytes()).unwrap();
    assert!(
        hostmark_attest::ima::replay_prefix(&honest, &Default::default(), &quoted, Default::default()).is_ok(),
        "honest twin"
    );
}

#[test]
fn b9_no_path_is_excluded_and_none_can_be() {
    for line in ["exclude = [\"/var/lib/app/\"]", "excludes = []", "exclude_paths = []"] {
        let text = strict().replace("[engine]", &format!("{line}\n[engine]"));
        let error = AppraisalPolicy::parse("p", &text).unwrap_err();
        assert!(matches!(&error, PolicyError::Toml { problem, .. } if problem.contains("unknown field")), "{error}");
    }
    AppraisalPolicy::parse("p", &strict()).unwrap();
    // Through a symbolic link, renamed, moved, deleted, or where software is built: a program is what its digest says.
    let judge = lab();
    for path in [
        "/var/lib/app/run",
        "/var/lib/app/../../../tmp/run",
        "/proc/1/root/usr/bin/run",
        "/opt/renamed",
        "/opt/run (deleted)",
    ] {
        let mut host = Host::boot(&manifest("runc 1"));
        host.reads(path, b"runc 1");
        assert_eq!(runtime(&host.round(&judge).unwrap()), honest(), "{path}");
        host.reads(path, b"evil");
        let (ids, tier) = runtime(&host.round(&judge).unwrap());
        assert_eq!((ids.split(' ').next(), tier), (Some("ima.unknown-file"), Tier::Contraindicated), "{path}");
    }
}

/// A violation of a path: a zero digest is listed, and 0xff…ff extended.
fn violation(path: &str, content: &[u8]) -> Vec<u8> {
    let entry = ima_ng(path, &sha256(&[content]));
    [&entry[..4], [0; 20].as_slice(), &entry[24..]].concat()
}

#[test]
fn b16_a_violations_path_excuses_nothing() {
    let judge = lab();
    let (boot_log, ima, line) = booted();
    let starts: Vec<usize> = ImaLog::parse(&ima).unwrap().entries().map(|entry| entry.at()).collect();
    let mut twin = Host::boot(&manifest("runc 1"));
    assert_eq!(runtime(&twin.round(&judge).unwrap()), honest(), "honest twin");
    // The same 0xff…ff is extended, whatever the host writes beside it.
    for (path, content) in
        [("/usr/bin/evil", "evil"), (RUNC, "runc 1"), ("boot_aggregate", ""), ("kexec-cmdline", ""), ("", "")]
    {
        let mut host = Host::boot(&manifest("runc 1"));
        host.measure(&violation(path, content.as_bytes()));
        for round in ["whole", "delta"] {
            let appraisal = host.round(&judge).unwrap();
            assert_eq!(runtime(&appraisal), is(&["ima.violation"], Tier::Warning), "{path}: {round}");
        }
    }
    // A violation at the policy's path with the policy's digest proves no policy.
    let list = [&ima[..starts[1]], &violation(POLICY_PATH, SHIPPED), &ima[starts[2]..]].concat();
    let mut host = Host::booted_as(&manifest("runc 1"), (boot_log, list, line));
    let (ids, tier) = runtime(&host.round(&judge).unwrap());
    assert_eq!((ids, tier), is(&["ima.violation", "ima.coverage-gap"], Tier::Warning));
}

#[test]
fn b18_a_containers_own_runc_is_ambiguous_and_a_replaced_one_is_not() {
    let judge = lab();
    let evil = |host: &mut Host| host.reads(RUNC, b"evil");
    let unknown = is(&["ima.unknown-file"], Tier::Contraindicated);
    let ambiguous = is(&["ima.path-ambiguous"], Tier::Warning);
    // A manifest with a file that no round judged is asked for again with the whole list.
    let run = |host: &mut Host| runtime(&host.round(&judge).or_else(|_| host.round(&judge)).unwrap());

    // The honest twin: the host's own runc ran, and then a container's.
    let mut host = Host::boot(&manifest("runc 1"));
    host.reads(RUNC, b"runc 1");
    assert_eq!(run(&mut host), honest());
    evil(&mut host);
    let appraisal = host.round(&judge).unwrap();
    assert_eq!(runtime(&appraisal), ambiguous);
    assert!(!appraisal.disproven(), "no host is evicted by a name alone");
    let finding = appraisal.findings().find(|one| one.id == "ima.path-ambiguous").unwrap();
    let digests = [b"runc 1".as_slice(), b"evil"].map(|content| hex::encode(sha256(&[content])));
    assert!(digests.iter().all(|digest| finding.to_string().contains(digest)), "{finding}");
    assert_eq!(run(&mut host), ambiguous, "nor in the next round");
    host.whole = true;
    assert_eq!(run(&mut host), ambiguous, "nor by the whole list");
    // The manifest names it: it is the host's, and stays so when the file is put back, in deltas and in whole lists.
    host.report(&manifest("evil"));
    assert_eq!(run(&mut host), unknown);
    host.report(&manifest("runc 1"));
    for whole in [false, true, false] {
        host.whole = whole;
        assert_eq!(run(&mut host), unknown, "put back, whole {whole}");
    }

    // Replaced before it ran, put back, and run from elsewhere under that name.
    let mut host = Host::boot(&manifest("runc 1"));
    host.reads(RUNC, b"runc 1");
    host.report(&manifest("evil"));
    assert_eq!(run(&mut host).1, Tier::Affirming, "the engine subsystem judges the manifest");
    host.report(&manifest("runc 1"));
    evil(&mut host);
    assert_eq!(run(&mut host), unknown);

    // The host's own never ran; another path; a manifest without the program; a manifest that nothing anchors.
    let mut host = Host::boot(&manifest("runc 1"));
    evil(&mut host);
    assert_eq!(run(&mut host), unknown, "the host's own is not in the list");
    let mut host = Host::boot(&manifest("runc 1"));
    host.reads(RUNC, b"runc 1");
    host.reads("/usr/bin/true", b"evil");
    assert_eq!(run(&mut host), unknown, "another path");
    let empty = EngineManifest { version: 1, root_is_default: true, engines: BTreeMap::new() };
    let mut host = Host::boot(&empty);
    host.reads(RUNC, b"runc 1");
    evil(&mut host);
    assert_eq!(run(&mut host), unknown, "no manifest names it");
}

#[test]
fn b18_a_round_without_a_list_forgets_nothing() {
    let judge = lab();
    let unknown = is(&["ima.unknown-file"], Tier::Contraindicated);
    let too_long = is(&["ima.too-long"], Tier::Contraindicated);
    let run = |host: &mut Host| runtime(&host.round(&judge).or_else(|_| host.round(&judge)).unwrap());
    let without_a_list = |host: &mut Host| {
        let before = host.state.as_ref().unwrap().ima();
        host.left_out = 32 << 20;
        assert_eq!(run(host), too_long);
        (host.left_out, host.whole) = (0, false);
        assert_eq!(
            host.state.as_ref().unwrap().ima(),
            before,
            "the next round continues where the last good one ended"
        );
    };
    // The last manifest of each row is the honest one; what earlier ones named is the host's own.
    let rows: [(&str, &[&str], Option<&str>, _); 3] = [
        ("honest twin: no manifest named it", &[], None, is(&["ima.path-ambiguous"], Tier::Warning)),
        ("one named it before the list was withheld", &["evil"], None, unknown.clone()),
        ("one named it in that very round", &[], Some("evil"), unknown),
    ];
    for (name, before, meanwhile, expect) in rows {
        let mut host = Host::boot(&manifest("runc 1"));
        host.reads(RUNC, b"runc 1");
        host.reads(RUNC, b"evil");
        run(&mut host);
        for content in before {
            host.report(&manifest(content));
            run(&mut host);
        }
        host.report(&manifest(meanwhile.unwrap_or("runc 1")));
        without_a_list(&mut host);
        host.report(&manifest("runc 1"));
        for whole in [false, true, false] {
            host.whole = whole;
            assert_eq!(run(&mut host), expect, "{name}: whole {whole}");
        }
    }
}

#[test]
fn b18_a_program_that_was_put_back_unread_is_no_containers() {
    let judge = lab();
    let unread = |what: &str| Event::ContentUnknown { what: what.into(), why: "it was changed and restored".into() };
    for (what, expect) in [
        ("/etc/docker/daemon.json", is(&["ima.path-ambiguous"], Tier::Warning)),
        (RUNC, is(&["ima.unknown-file"], Tier::Contraindicated)),
    ] {
        let mut host = Host::boot(&manifest("runc 1"));
        host.reads(RUNC, b"runc 1");
        host.round(&judge).unwrap();
        host.reads(RUNC, b"evil");
        host.log(&unread(what));
        for _ in 0..2 {
            assert_eq!(runtime(&host.round(&judge).unwrap()), expect, "{what}");
        }
    }
}

#[test]
fn b18_many_of_them_are_unknown_files() {
    let judge = lab();
    let mut host = Host::boot(&manifest("runc 1"));
    host.reads(RUNC, b"runc 1");
    for number in 0..40 {
        host.reads(RUNC, format!("evil {number}").as_bytes());
    }
    let appraisal = host.round(&judge).unwrap();
    assert_eq!(appraisal.tier(Submodule::Runtime), Tier::Contraindicated);
    let ambiguous =
        told(&appraisal).into_iter().filter(|(weight, id)| (*weight, *id) == (Severity::Warning, "ima.path-ambiguous"));
    assert_eq!(ambiguous.count(), 16);
}

#[test]
fn b24_a_list_beyond_the_limit_is_told_and_is_no_proof() {
    let judge = lab();
    let too_long = is(&["ima.too-long"], Tier::Contraindicated);
    // A host that says that its list does not fit, whole or from where the last round ended.
    let mut host = Host::boot(&manifest("runc 1"));
    assert_eq!(runtime(&host.round(&judge).unwrap()), honest(), "honest twin");
    host.left_out = 32 << 20;
    assert_eq!(runtime(&host.round(&judge).unwrap()), too_long);
    // It was not cut for good: the whole list, where it fits again, is judged as ever.
    (host.left_out, host.whole) = (0, true);
    assert_eq!(runtime(&host.round(&judge).unwrap()), honest());
    // A list of more entries than a verifier reads, all of them as short as can be.
    let shortest = [&10u32.to_le_bytes(), [1; 20].as_slice(), &[0; 8]].concat();
    let mut host = Host::boot(&manifest("runc 1"));
    host.flood = shortest.repeat(1000);
    assert_eq!(runtime(&host.round(&judge).unwrap()), honest(), "a tail within the limit is no part of the proof");
    host.flood = shortest.repeat(1_000_000);
    host.whole = true;
    assert_eq!(runtime(&host.round(&judge).unwrap()), too_long);
}
