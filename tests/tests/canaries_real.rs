//! Proof by effect on a real Docker Engine: what canaries see of a good configuration and of its wrong twin.
//!
//! One daemon is started as the profile asks, one with the wrong twin of every control; each row says what is stored of either. A control
//! whose wrong twin stored the same would prove nothing.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hostmark_attest::profile::{Effect, Level, Outcome, Part, Profile, Status, judge};
use hostmark_hostd::engines::EnginesConfig;
use hostmark_hostd::profile::{Host, canary, examine_with, load, observe};
use hostmark_tests::private::{Daemon, inside};
use hostmark_tests::programs::workspace;

const CONFIG: &str = "/etc/docker/daemon.json";

/// dockerd at its usual places, with this configuration.
fn dockerd(config: &str) -> Daemon {
    dockerd_with(config, &[])
}

fn dockerd_with(config: &str, arguments: &[&str]) -> Daemon {
    std::fs::write(CONFIG, config).unwrap();
    // Times of files and of processes are compared in hundredths of a second.
    std::thread::sleep(Duration::from_millis(100));
    let socket = Path::new("/run/docker.sock");
    let _ = std::fs::remove_file(socket);
    Daemon::start(Command::new("/usr/sbin/dockerd").args(arguments), Path::new("/run/dockerd.log"), || {
        UnixStream::connect(socket).is_ok() && ask("GET", "/_ping").starts_with("HTTP/1.0 200")
    })
}

/// One request to Docker's API; the whole answer.
fn ask(method: &str, path: &str) -> String {
    request(method, path, "application/json", b"")
}

fn post(path: &str, kind: &str, body: &[u8]) -> String {
    request("POST", path, kind, body)
}

fn request(method: &str, path: &str, kind: &str, body: &[u8]) -> String {
    let mut stream = UnixStream::connect("/run/docker.sock").unwrap();
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.0\r\nHost: docker\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

fn profile(level: Level, part: Part) -> Profile {
    load(&workspace().join("configs/profiles"), level, &[part].into()).unwrap()
}

/// Every control's outcome, with canaries.
fn judged(profile: &Profile) -> BTreeMap<String, Outcome> {
    let start = Instant::now();
    let host = Host::new(EnginesConfig::default());
    let effects = canary::effects(&host, profile);
    let shown = start.elapsed();
    let report = examine_with(&host, profile, &effects);
    println!(
        "{} canaries' effects in {} ms, all judged in {} ms",
        effects.len(),
        shown.as_millis(),
        start.elapsed().as_millis()
    );
    for (id, effect) in &effects {
        if let Effect::Failed(why) = effect {
            println!("no effect of {id}: {why}");
        }
    }
    let left = ask("GET", "/containers/json?all=1");
    assert!(left.ends_with("[]\n") || left.ends_with("[]"), "containers are left: {left}");
    assert!(!ask("GET", "/images/json?all=1").contains("hostmark"), "an image is left");
    assert!(!ask("GET", "/networks").contains("hostmark"), "a network is left");
    assert_eq!(std::fs::read_dir("/run/hostmark/canary").map_or(0, Iterator::count), 0, "a note is left");
    report.outcomes.into_iter().map(|outcome| (outcome.control.clone(), outcome)).collect()
}

fn show(outcome: &Outcome) -> String {
    let effect = outcome.effect.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
    let effective = outcome.effective.as_ref().map_or_else(|| "-".to_owned(), |stated| stated.value.to_string());
    format!("{:<9} {:<34} {effective:<40} {effect:<30} {}", outcome.status.name(), outcome.control, outcome.reason)
}

/// What the engine, its files and iptables remember of the daemon before.
fn forget(daemon: Daemon) {
    drop(daemon);
    for table in ["filter", "nat"] {
        for what in ["-F", "-X"] {
            let _ = Command::new("iptables").args(["-w", "-t", table, what]).status();
        }
    }
    let _ = Command::new("iptables").args(["-w", "-P", "FORWARD", "ACCEPT"]).status();
    let _ = Command::new("ip").args(["link", "delete", "docker0"]).status();
    // Control groups are the machine's: those of the wrong twin go again.
    for controller in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let _ = std::fs::remove_dir(controller.path().join(GROUP.trim_start_matches('/')));
    }
}

/// A `--cgroup-parent` that nobody else has.
const GROUP: &str = "/hostmark-test-canaries";

/// An authorization plugin that refuses privileged containers (Docker Engine, "Access authorization plugin").
fn guard() {
    std::fs::create_dir_all("/run/docker/plugins").unwrap();
    let _ = std::fs::remove_file("/run/docker/plugins/guard.sock");
    let listener = UnixListener::bind("/run/docker/plugins/guard.sock").unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
}

fn answer(stream: UnixStream) {
    let mut reader = BufReader::new(stream);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).unwrap();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap() == 0 || line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let asked = body["RequestBody"].as_str().and_then(|text| BASE64_STANDARD.decode(text).ok()).unwrap_or_default();
    let refused = String::from_utf8_lossy(&asked).contains("\"Privileged\":true");
    let said = match first.contains("/Plugin.Activate") {
        true => serde_json::json!({ "Implements": ["authz"] }),
        false => serde_json::json!({ "Allow": !refused, "Msg": "privileged containers are not started here" }),
    };
    let said = said.to_string();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", said.len());
    let _ = reader.get_mut().write_all(format!("{head}{said}").as_bytes());
}

/// A journal of the corner's own.
fn journald() -> Daemon {
    std::fs::write("/etc/systemd/journald.conf", "[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\n").unwrap();
    Daemon::start(&mut Command::new("/lib/systemd/systemd-journald"), Path::new("/run/journald.log"), || {
        Path::new("/run/systemd/journal/socket").exists()
    })
}

/// Control, what is stored of it from the good configuration, and from its wrong twin.
const EFFECTS: [(&str, &str, &str); 16] = [
    ("docker.iptables", "\"silent\"", "\"reached\""),
    ("docker.hosts", "nothing", "tcp://127.0.0.1:2375: answers"),
    ("docker.cgroup-parent", "\"/docker\"", "\"/hostmark-test-canaries\""),
    ("docker.log-driver", "\"journald\"", "absent"),
    ("docker.log-driver-forwarded", "\"journald\"", "absent"),
    ("docker.seccomp-profile", "\"2 refused\"", "\"2 granted\""),
    ("docker.default-ipc-mode", "\"private\"", "\"shareable\""),
    ("docker.icc", "\"silent\"", "\"reached\""),
    ("docker.ulimit-nofile", "16384", "ANY"),
    ("docker.ulimit-nproc", "4096", "ANY"),
    ("docker.no-new-privileges", "1", "0"),
    ("docker.userland-proxy", "\"reached, no proxy\"", "\"reached, docker-proxy\""),
    ("docker.default-cgroupns-mode", "\"private\"", "\"host\""),
    ("docker.userns-remap", "\"0 100000 65536\"", "\"0 0 4294967295\""),
    ("docker.authorization-plugins", "\"refused\"", "ANY"),
    ("docker.default-address", "[127.0.0.1]", "[0.0.0.0, ::]"),
];
/// The same for what the running engine states of itself.
const STATED: [(&str, &str, &str); 9] = [
    ("docker.swarm", "\"inactive\"", "\"active\""),
    ("docker.debug", "false", "true"),
    ("docker.experimental", "false", "true"),
    ("docker.live-restore", "true", "false"),
    ("docker.storage-driver", "\"overlay2\"", "\"vfs\""),
    ("docker.insecure-registries-live", "[127.0.0.0/8]", "[10.0.0.0/8, 127.0.0.0/8]"),
    ("docker.default-runtime", "\"runc\"", "\"odd\""),
    (
        "docker.runtimes",
        "[io.containerd.runc.v2, io.containerd.runtime.v1.linux, runc]",
        "[io.containerd.runc.v2, io.containerd.runtime.v1.linux, odd, runc]",
    ),
    (
        "docker.rootless",
        "[name=cgroupns, name=seccomp,profile=default, name=userns]",
        "[name=seccomp,profile=/etc/docker/open.json]",
    ),
];
/// The same for what its files, unit and arguments come to, while it runs with them.
const MERGED: [(&str, &str, &str); 6] = [
    ("docker.ip6tables", "absent", "false"),
    ("docker.network-diagnostic-port", "0", "9998"),
    ("docker.log-level", "\"info\"", "\"debug\""),
    ("docker.insecure-registries", "[]", "[registry.invalid:5000]"),
    ("docker.registry-mirrors", "[]", "[http://mirror.invalid/]"),
    ("docker.metrics-address", "\"\"", "\"0.0.0.0:9323\""),
];
const GOOD: &str = r#"{"icc": false, "no-new-privileges": true, "userland-proxy": false, "ip": "127.0.0.1", "userns-remap": "default",
    "default-ulimits": {"nofile": {"Name": "nofile", "Hard": 16384, "Soft": 1024}, "nproc": {"Name": "nproc", "Hard": 4096, "Soft": 4096}},
    "default-cgroupns-mode": "private", "log-driver": "journald", "live-restore": true, "authorization-plugins": ["guard"]}"#;
const WRONG: &str = r#"{"iptables": false, "cgroup-parent": "/hostmark-test-canaries", "log-driver": "none", "default-cgroupns-mode": "host",
    "default-ipc-mode": "shareable", "hosts": ["unix:///run/docker.sock", "tcp://127.0.0.1:2375"], "experimental": true, "debug": true,
    "seccomp-profile": "/etc/docker/open.json", "insecure-registries": ["10.0.0.0/8", "registry.invalid:5000"], "storage-driver": "vfs", "log-level": "debug",
    "registry-mirrors": ["http://mirror.invalid/"], "metrics-addr": "0.0.0.0:9323", "ip6tables": false, "network-diagnostic-port": 9998,
    "runtimes": {"odd": {"path": "/usr/sbin/runc"}}, "default-runtime": "odd"}"#;

#[test]
fn each_effect_of_docker_is_seen_and_its_wrong_twin_stores_another() {
    let name = "each_effect_of_docker_is_seen_and_its_wrong_twin_stores_another";
    if !inside(name, &["dockerd", "runc", "journalctl"]) {
        return;
    }
    let _journal = journald();
    guard();
    std::fs::write("/etc/docker/open.json", r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#).unwrap();
    let profile = profile(Level::Restricted, Part::Docker);
    let daemon = dockerd(GOOD);
    let good = judged(&profile);
    forget(daemon);
    let daemon = dockerd(WRONG);
    let mut wrong = judged(&profile);
    // Last, since a swarm excuses other controls.
    let body = br#"{"ListenAddr": "127.0.0.1:2377", "AdvertiseAddr": "127.0.0.1"}"#;
    assert!(post("/swarm/init", "application/json", body).starts_with("HTTP/1.0 200"));
    let swarm = profile.control("docker.swarm").unwrap();
    let now = Host::new(EnginesConfig::default());
    wrong.insert(swarm.id.clone(), judge(swarm, observe(&now, swarm), None));
    forget(daemon);
    let mut problems = Vec::new();
    let mut proven = 0;
    for (rows, effect) in [(&EFFECTS[..], true), (&STATED[..], false), (&MERGED[..], false)] {
        for (id, holds, twin) in rows {
            let stored = |outcome: &Outcome| match effect {
                true => outcome.effect.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
                false => outcome.effective.as_ref().map_or_else(|| "-".to_owned(), |stated| stated.value.to_string()),
            };
            let (good, wrong) = (&good[*id], &wrong[*id]);
            let sound = good.status == Status::Pass
                && wrong.status == Status::Fail
                && stored(good) == *holds
                && (stored(wrong) == *twin || *twin == "ANY" && stored(wrong) != "-")
                && stored(good) != stored(wrong);
            println!("{} {id}: {} | {}", if sound { "proven" } else { "WRONG" }, stored(good), stored(wrong));
            proven += usize::from(sound);
            if !sound {
                problems.push(format!("{}\n{}", show(good), show(wrong)));
            }
        }
    }
    println!("{proven} controls of Docker proven with a wrong twin");
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// The outcomes of these controls.
fn of(profile: &Profile, ids: &[&str]) -> Vec<Outcome> {
    let judged = judged(profile);
    ids.iter().map(|id| judged[*id].clone()).collect()
}

#[test]
fn e1_a_canary_believes_no_file_that_the_daemon_does_not_read() {
    if !inside("e1_a_canary_believes_no_file_that_the_daemon_does_not_read", &["dockerd", "runc"]) {
        return;
    }
    let profile = profile(Level::Hardened, Part::Docker);
    let ids = ["docker.no-new-privileges", "docker.icc", "docker.userland-proxy"];
    let good = r#"{"no-new-privileges": true, "icc": false, "userland-proxy": false}"#;
    let other = "/etc/docker/other.json";
    std::fs::write(other, "{}").unwrap();
    let daemon = dockerd_with(good, &["--config-file", other]);
    for outcome in of(&profile, &ids) {
        assert_eq!(outcome.status, Status::Fail, "{}", show(&outcome));
        let seen = outcome.effect.as_ref().map(ToString::to_string).unwrap();
        assert!(["0", "\"reached\"", "\"reached, docker-proxy\""].contains(&seen.as_str()), "{seen}");
    }
    forget(daemon);
    // The honest twin: the file that says so is the one that is read.
    let daemon = dockerd(good);
    for outcome in of(&profile, &ids) {
        assert_eq!(outcome.status, Status::Pass, "{}", show(&outcome));
    }
    forget(daemon);
}

#[test]
fn e2_a_reloaded_file_is_not_what_containers_get() {
    if !inside("e2_a_reloaded_file_is_not_what_containers_get", &["dockerd", "runc"]) {
        return;
    }
    let profile = profile(Level::Hardened, Part::Docker);
    let ids = ["docker.no-new-privileges", "docker.icc"];
    let daemon = dockerd(r#"{"debug": false}"#);
    let good = r#"{"no-new-privileges": true, "icc": false, "debug": true}"#;
    std::fs::write(CONFIG, good).unwrap();
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    let end = Instant::now() + Duration::from_secs(20);
    while !ask("GET", "/info").contains("\"Debug\":true") {
        assert!(Instant::now() < end, "the daemon did not read its file again");
        std::thread::sleep(Duration::from_millis(100));
    }
    for outcome in of(&profile, &ids) {
        // The file says what is wanted, and so does everything that reads it: only the canary knows better.
        assert_eq!(outcome.status, Status::Fail, "{}", show(&outcome));
        assert!(outcome.reason.contains("but canary"), "{}", outcome.reason);
    }
    forget(daemon);
    let daemon = dockerd(good);
    for outcome in of(&profile, &ids) {
        assert_eq!(outcome.status, Status::Pass, "the honest twin, started again: {}", show(&outcome));
    }
    forget(daemon);
}

#[test]
fn a_canary_that_was_killed_is_removed_and_no_label_is_believed() {
    if !inside("a_canary_that_was_killed_is_removed_and_no_label_is_believed", &["dockerd", "runc"]) {
        return;
    }
    let daemon = dockerd("{}");
    let profile = profile(Level::Hardened, Part::Docker);
    let host = Host::new(EnginesConfig::default());
    // A run that nobody holds any more, and a container of somebody else's with the label.
    let id = "0123456789abcdef0123456789abcdef";
    std::fs::create_dir_all("/run/hostmark/canary").unwrap();
    std::fs::write(format!("/run/hostmark/canary/docker-{id}"), "").unwrap();
    let tar = Command::new("tar").args(["-C", "/etc", "-c", "hostname"]).output().unwrap().stdout;
    assert!(post("/images/create?fromSrc=-&repo=other", "application/x-tar", &tar).starts_with("HTTP/1.0 200"));
    for name in [format!("hostmark-canary-{id}-look"), "stranger".to_owned()] {
        let body = format!(r#"{{"Image": "other", "Cmd": ["x"], "Labels": {{"org.hostmark.canary": "{id}"}}}}"#);
        let created = post(&format!("/containers/create?name={name}"), "application/json", body.as_bytes());
        assert!(created.starts_with("HTTP/1.0 201"), "{created}");
    }
    let effects = canary::effects(&host, &profile);
    assert!(matches!(effects["docker.no-new-privileges"], Effect::Seen { good: false, .. }), "{effects:?}");
    let left = ask("GET", "/containers/json?all=1");
    assert!(left.contains("/stranger") && !left.contains("hostmark-canary"), "{left}");
    assert_eq!(std::fs::read_dir("/run/hostmark/canary").unwrap().count(), 0, "a note is left");
    // What bears the label is judged as any other container is.
    let workload = load(&workspace().join("configs/profiles"), Level::Baseline, &[Part::Workload].into()).unwrap();
    let report = examine_with(&Host::new(EnginesConfig::default()), &workload, &BTreeMap::new());
    let named = report.outcomes.iter().filter(|outcome| {
        outcome.effective.as_ref().is_some_and(|stated| stated.value.to_string().contains("stranger"))
    });
    assert!(named.count() > 0, "{:?}", report.outcomes);
    // No daemon, no pass.
    drop(daemon);
    let effects = canary::effects(&Host::new(EnginesConfig::default()), &profile);
    assert!(matches!(effects["docker.no-new-privileges"], Effect::Failed(_)), "{effects:?}");
}
