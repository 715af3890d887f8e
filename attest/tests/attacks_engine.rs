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
use hostmark_attest::host_log::Event;
use hostmark_attest::manifest::{EngineManifest, EngineState, FileDigest, FileState, Mode};
use hostmark_attest::tier::{Submodule, Tier};
use hostmark_attest::workload::{Container, EngineWorkloads, Inventory, Mount};

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

const IMAGE: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// An inventory of Docker with one container.
fn one_container(change: impl FnOnce(&mut Container)) -> Vec<u8> {
    let mut container = Container {
        name: "web".into(),
        image: IMAGE.into(),
        state: "running".into(),
        restart: "no".into(),
        runtime: "runc".into(),
        ..Container::default()
    };
    change(&mut container);
    let docker =
        EngineWorkloads { containers: [("c0ffee".to_owned(), container)].into(), ..EngineWorkloads::default() };
    Inventory { version: 1, engines: [("docker".to_owned(), docker)].into() }.to_canonical()
}

fn with(capabilities: &[&str], device_rules: &[&str], system_paths: bool) -> Vec<u8> {
    let owned = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect();
    one_container(|container| {
        container.capabilities = owned(capabilities);
        container.device_rules = owned(device_rules);
        container.system_paths = system_paths;
    })
}

fn mounted(source: &str, leads_to: Option<&str>, writable: bool) -> Vec<u8> {
    let (source, leads_to) = (source.to_owned(), leads_to.map(str::to_owned));
    one_container(|container| {
        container.mounts.insert(Mount { source, leads_to, destination: "/host".into(), writable });
    })
}

/// A policy that takes hostd's accusations for reservations. Nothing softens them unless it says so.
const LAX: &str = "content_unknown = \"warning\"\nbind_mount = \"warning\"\n[workload]\nprivileged = \"warning\"\n\
                   host_namespace = \"warning\"\ncapability = \"warning\"\nsensitive_mount = \"warning\"";

#[test]
fn e9_a_container_that_reaches_into_the_host_is_told_whatever_its_state() {
    let rows: [(&str, Vec<u8>, &[&str]); 22] = [
        ("honest: nobody asked", Vec::new(), &[]),
        ("honest: a plain container", one_container(|_| ()), &[]),
        ("honest: data of its own", mounted("/srv/data", None, true), &[]),
        ("privileged", one_container(|container| container.privileged = true), &["workload.privileged"]),
        (
            "privileged, stopped, started again by itself",
            one_container(|container| {
                container.privileged = true;
                (container.state, container.restart) = ("exited".into(), "always".into());
            }),
            &["workload.privileged"],
        ),
        (
            "created and never started",
            one_container(|container| {
                container.state = "created".into();
                container.host_namespaces = ["pid".to_owned(), "network".to_owned()].into();
            }),
            &["workload.host-namespace"],
        ),
        ("the root", mounted("/", None, true), &["workload.sensitive-mount"]),
        ("/etc, read-only", mounted("/etc", None, false), &["workload.sensitive-mount"]),
        ("/proc", mounted("/proc", None, true), &["workload.sensitive-mount"]),
        ("the state of something", mounted("/var/lib/docker", None, true), &["workload.sensitive-mount"]),
        ("what holds it", mounted("/var", None, true), &["workload.sensitive-mount"]),
        ("Docker's socket", mounted("/run/docker.sock", None, true), &["workload.sensitive-mount"]),
        (
            "its other name",
            mounted("/var/run/docker.sock", Some("/run/docker.sock"), false),
            &["workload.sensitive-mount"],
        ),
        ("by a link", mounted("/srv/link", Some("/etc"), true), &["workload.sensitive-mount"]),
        (
            "by a link that leads out of it",
            mounted("/etc/link", Some("/srv/data"), true),
            &["workload.sensitive-mount"],
        ),
        ("honest: an engine's own capability and device", with(&["CHOWN", "NET_RAW"], &["c 1:3 rwm"], false), &[]),
        ("one capability", with(&["SYS_ADMIN"], &[], false), &["workload.capability"]),
        ("another", with(&["CHOWN", "DAC_READ_SEARCH", "BPF"], &[], false), &["workload.capability"]),
        ("every disk", with(&[], &["b *:* rwm"], false), &["workload.device-rule"]),
        ("the host's core_pattern", with(&[], &[], true), &["workload.system-paths"]),
        ("systemd's socket", mounted("/run/systemd/private", None, true), &["workload.sensitive-mount"]),
        ("no inventory at all", b"{}".to_vec(), &["workload.malformed"]),
    ];
    let by = |rules: &str| judge(&policy(rules), &[&manifest("A", "runc 1")]);
    let lax = by(LAX);
    let strict = by("");
    let exempt = by(&format!("[workload]\nexempt_images = [\"{IMAGE}\"]"));
    for (name, inventory, expect) in rows {
        let mut host = Host::boot(&manifest("A", "runc 1"));
        host.inventory = inventory;
        let mut rounds = [&lax, &strict, &exempt].map(|judge| {
            host.state = None;
            host.round(judge).unwrap()
        });
        let found = |appraisal: &Appraisal| told(appraisal).iter().map(|(_, id)| (*id).to_owned()).collect::<Vec<_>>();
        let [lax, strict, exempt] = &mut rounds;
        assert_eq!(
            (found(lax), found(strict)),
            (expect.iter().map(|id| (*id).to_owned()).collect(), found(lax)),
            "{name}"
        );
        let malformed = expect == ["workload.malformed"];
        let tiers = if malformed { [Tier::Contraindicated; 3] } else { [REPORTED, REPORTED, REPORTED] };
        let strictly = if expect.is_empty() { REPORTED } else { Tier::Contraindicated };
        assert_eq!([engine(lax), engine(exempt)], [tiers[0], tiers[1]], "{name}");
        assert_eq!(engine(strict), strictly, "{name}");
        assert_eq!(found(exempt).is_empty(), !malformed, "{name}: an exempt image");
    }
}

#[test]
fn e9_of_many_containers_the_worst_is_listed_and_what_is_cut_weighs_as_much() {
    let many = |count: usize, worst: bool| {
        let one = |number: usize| {
            let capabilities = ["SYS_ADMIN".to_owned()].into();
            let container =
                Container { name: format!("c{number}"), image: IMAGE.into(), capabilities, ..Container::default() };
            (format!("{number:064x}"), container)
        };
        let mut containers: BTreeMap<String, Container> = (0..count).map(one).collect();
        if let Some(last) = containers.values_mut().next_back().filter(|_| worst) {
            last.privileged = true;
        }
        let docker = EngineWorkloads { containers, ..EngineWorkloads::default() };
        Inventory { version: 1, engines: [("docker".to_owned(), docker)].into() }.to_canonical()
    };
    let judge = judge(&policy(&LAX.replace("privileged = \"warning\"\n", "")), &[&manifest("A", "runc 1")]);
    for (count, worst, more) in [(64, false, None), (65, false, Some(Warning)), (200, true, Some(Error))] {
        let mut host = Host::boot(&manifest("A", "runc 1"));
        host.inventory = many(count, worst);
        let appraisal = host.round(&judge).unwrap();
        let found: Vec<_> = told(&appraisal).into_iter().filter(|(_, id)| id.starts_with("workload.")).collect();
        assert_eq!(found.len(), 64 + usize::from(more.is_some()), "{count}");
        let cut = found.iter().find(|(_, id)| *id == "workload.more").map(|(severity, _)| *severity);
        assert_eq!(cut, more, "{count}");
        assert_eq!(found.contains(&(Error, "workload.privileged")), worst, "{count}");
    }
}

#[test]
fn e9_containers_that_nobody_told_of_are_missed() {
    let with = |inventory: Inventory| {
        let mut running = manifest("A", "runc 1");
        let process = hostmark_attest::manifest::ProcessState {
            exe: RUNC.into(),
            sha256: None,
            deleted: false,
            foreign_mounts: false,
            argv: vec!["dockerd".into()],
            environment: BTreeMap::new(),
        };
        running.engines.get_mut("docker").unwrap().processes.insert(process);
        let mut host = Host::boot(&running);
        host.inventory = inventory.to_canonical();
        // As much as the worst that such a container could be found to do.
        let one = LAX.replace("sensitive_mount = \"warning\"", "");
        let judges = [(LAX, Warning), (one.as_str(), Error), ("", Error)];
        let mut ids = Vec::new();
        for (rules, weight) in judges {
            host.state = None;
            let appraisal = host.round(&judge(&policy(rules), &[&manifest("A", "runc 1")])).unwrap();
            let found = told(&appraisal);
            assert!(found.iter().all(|(severity, _)| *severity == weight), "{rules}: {found:?}");
            let tier = if weight == Error && !found.is_empty() { Tier::Contraindicated } else { REPORTED };
            assert_eq!(engine(&appraisal), tier, "{rules}");
            ids = found.iter().map(|(_, id)| (*id).to_owned()).collect();
        }
        ids
    };
    let docker = |workloads| Inventory { version: 1, engines: [("docker".to_owned(), workloads)].into() };
    assert_eq!(with(docker(EngineWorkloads::default())), Vec::<String>::new(), "honest: none");
    assert_eq!(with(Inventory { version: 1, engines: BTreeMap::new() }), ["workload.unknown"]);
    let silent =
        hostmark_attest::manifest::Unreadable { what: "api:/run/docker.sock".into(), why: "no answer in time".into() };
    let unreadable = EngineWorkloads { unreadable: [silent].into(), ..EngineWorkloads::default() };
    assert_eq!(with(docker(unreadable)), ["workload.unreadable"]);
}

#[test]
fn e11_another_runtime_and_a_container_past_every_engine_are_told() {
    let mut reported = manifest("A", "runc 1");
    let live = BTreeMap::from([("live".to_owned(), hostmark_attest::manifest::Setting::Text("runc".into()))]);
    reported.engines.get_mut("docker").unwrap().settings.insert("default-runtime".into(), live);
    let by_hand = |inventory: &str| inventory.replacen("\"docker\"", "\"runc\"", 1).into_bytes();
    let plain = String::from_utf8(one_container(|_| ())).unwrap();
    let renamed = |container: &mut Container| (container.privileged, container.runtime) = (true, "crun".into());
    let annotated = String::from_utf8(one_container(|container| container.privileged = true)).unwrap();
    let exempt = format!("exempt_images = [\"{IMAGE}\"]");
    let rows: [(&str, Vec<u8>, &str, &[&str]); 9] = [
        ("honest", plain.clone().into_bytes(), "", &[]),
        ("another runtime", one_container(|container| container.runtime = "crun".into()), "", &["workload.runtime"]),
        (
            "another that may",
            one_container(|container| container.runtime = "crun".into()),
            "runtimes = [\"crun\"]",
            &[],
        ),
        ("direct runc", by_hand(&plain), "", &["workload.runtime"]),
        ("honest: an exempt image", annotated.clone().into_bytes(), &exempt, &[]),
        ("an exempt image by another runtime", one_container(renamed), &exempt, &["workload.runtime"]),
        (
            "an exempt image's name, in a bundle made by hand",
            by_hand(&annotated),
            &exempt,
            &["workload.privileged", "workload.runtime"],
        ),
        ("a capability", with(&["NET_ADMIN"], &[], false), "", &["workload.capability"]),
        ("one that may be had", with(&["NET_ADMIN"], &[], false), "allowed_capabilities = [\"NET_ADMIN\"]", &[]),
    ];
    for (name, inventory, rules, expect) in rows {
        let judge = judge(&policy(&format!("[workload]\n{rules}")), &[&reported]);
        let mut host = Host::boot(&reported);
        host.inventory = inventory;
        let appraisal = host.round(&judge).unwrap();
        assert_eq!(told(&appraisal).iter().map(|(_, id)| *id).collect::<Vec<_>>(), expect, "{name}");
    }
}

#[test]
fn b21_root_that_speaks_with_hostds_keys_is_believed_no_more_than_hostd() {
    let judge = judge_uncovered();
    let honest = Host::boot(&manifest("A", "runc 1")).round(&judge).unwrap();
    // A root process forges the manifest, extends PCR 13 with it and quotes: nothing tells it from hostd. That is the residual.
    let mut host = Host::boot(&manifest("evil", "evil"));
    host.report(&manifest("A", "runc 1"));
    let forged = host.round(&judge).unwrap();
    assert_eq!((told(&forged), engine(&forged)), (told(&honest), engine(&honest)));
    // So the word of either is capped: no pool that wants an affirming engine takes it.
    assert_eq!(engine(&honest), Tier::Warning);
    assert!(!engine(&honest).meets(Tier::Affirming) && engine(&honest).meets(Tier::Warning));
    // What the kernel measured is no word of hostd's, and is not capped.
    assert_eq!(honest.tier(Submodule::Runtime), Tier::Affirming);
    // And what the kernel measured of the forger's files still counts.
    let mut host = Host::boot(&manifest("evil", "runc 1"));
    host.reads(CONFIG, b"evil");
    host.report(&manifest("A", "runc 1"));
    let forged = host.round(&covered()).unwrap();
    assert!(told(&forged).contains(&(Error, "engine.file-mismatch")), "{:?}", told(&forged));
}

#[test]
fn e6_a_program_below_a_bind_mount_is_named() {
    for (rules, weight, tier) in [("", Error, Tier::Contraindicated), (LAX, Warning, REPORTED)] {
        let judge = judge(&policy(rules), &[&manifest("A", "runc 1")]);
        let mut host = Host::boot(&manifest("A", "runc 1"));
        assert_eq!(told(&host.round(&judge).unwrap()), [], "the honest twin");
        // Even with the content that the reference allows.
        let mut mounted = manifest("A", "runc 1");
        mounted.engines.get_mut("docker").unwrap().mounted.insert(RUNC.into());
        host.report(&mounted);
        let appraisal = host.round(&judge).unwrap();
        assert_eq!((told(&appraisal), engine(&appraisal)), (vec![(weight, "engine.bind-mount")], tier));
        let found = appraisal.findings().find(|one| one.id == "engine.bind-mount").unwrap();
        assert!(found.message.contains(RUNC));
    }
}

#[test]
fn e5_a_content_that_nobody_read_is_told_until_the_next_boot() {
    for (rules, weight, tier) in [("", Error, Tier::Contraindicated), (LAX, Warning, REPORTED)] {
        e5_content_unknown(&judge(&policy(rules), &[&manifest("A", "runc 1")]), weight, tier);
    }
}

fn e5_content_unknown(judge: &Judge, weight: hostmark_attest::finding::Severity, tier: Tier) {
    let mut host = Host::boot(&manifest("A", "runc 1"));
    assert_eq!(told(&host.round(judge).unwrap()), [], "the honest twin");
    let why = "it was changed and restored before it was read".to_owned();
    host.log(&Event::ContentUnknown { what: CONFIG.into(), why });
    for _ in 0..2 {
        let appraisal = host.round(judge).unwrap();
        assert_eq!((told(&appraisal), engine(&appraisal)), (vec![(weight, "engine.content-unknown")], tier));
        let found = appraisal.findings().find(|one| one.id == "engine.content-unknown").unwrap();
        assert!(found.found.as_ref().unwrap().contains(CONFIG));
    }
}

#[test]
fn e14_a_library_beside_hostd_is_told() {
    let judge = judge_uncovered();
    let mut host = Host::boot(&manifest("A", "runc 1"));
    assert_eq!(told(&host.round(&judge).unwrap()), [], "the honest twin");
    host.facts.insert("hostd-preload".into(), "LD_PRELOAD=/tmp/x.so".into());
    let appraisal = host.round(&judge).unwrap();
    assert_eq!((told(&appraisal), engine(&appraisal)), (vec![(Error, "hostd.preload")], Tier::Contraindicated));
}

#[test]
fn e15_a_foreign_extension_of_the_host_logs_pcr_is_named() {
    let judge = judge_uncovered();
    let mut host = Host::boot(&manifest("A", "runc 1"));
    assert_eq!(told(&host.round(&judge).unwrap()), [], "the honest twin");
    host.extend(13, hostmark_attest::digest::Digest::ones(hostmark_attest::digest::HashAlg::Sha256));
    let appraisal = host.round(&judge).unwrap();
    assert_eq!((told(&appraisal), engine(&appraisal)), (vec![(Error, "host-log.replay")], Tier::Contraindicated));
    let found = appraisal.findings().find(|one| one.id == "host-log.replay").unwrap();
    assert!(found.message.contains("PCR 13") && found.message.contains("something else than hostd"), "{found}");
}
