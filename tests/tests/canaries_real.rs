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
    if Path::new("/run/docker.sock").exists() {
        let left = ask("GET", "/containers/json?all=1");
        assert!(left.ends_with("[]\n") || left.ends_with("[]"), "containers are left: {left}");
        assert!(!ask("GET", "/images/json?all=1").contains("hostmark"), "an image is left");
        assert!(!ask("GET", "/networks").contains("hostmark"), "a network is left");
    }
    let notes = std::fs::read_dir("/run/hostmark/canary").map(Iterator::flatten).into_iter().flatten();
    assert_eq!(notes.filter(|note| note.file_name() != "policy.json").count(), 0, "a note is left");
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
    compare("Docker", &[(&EFFECTS, true), (&STATED, false), (&MERGED, false)], &good, &wrong);
}

/// Control, what is stored of it from the good configuration, and from its wrong twin.
type Row<'a> = (&'a str, &'a str, &'a str);

/// Every row holds: a pass and a failure, with the values that are to be stored. True beside rows: what the canary saw is.
fn compare(
    what: &str,
    tables: &[(&[Row<'_>], bool)],
    good: &BTreeMap<String, Outcome>,
    wrong: &BTreeMap<String, Outcome>,
) {
    let (mut problems, mut proven) = (Vec::new(), 0);
    for (rows, effect) in tables {
        for (id, holds, twin) in *rows {
            let stored = |outcome: &Outcome| match effect {
                true => outcome.effect.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
                false => outcome.effective.as_ref().map_or_else(|| "-".to_owned(), |stated| stated.value.to_string()),
            };
            let (good, wrong) = (&good[*id], &wrong[*id]);
            let is = |stored: String, expect: &str| stored == expect || expect == "ANY" && stored != "-";
            let sound = good.status == Status::Pass
                && wrong.status == Status::Fail
                && is(stored(good), holds)
                && is(stored(wrong), twin)
                && stored(good) != stored(wrong);
            println!("{} {id}: {} | {}", if sound { "proven" } else { "WRONG" }, stored(good), stored(wrong));
            proven += usize::from(sound);
            if !sound {
                problems.push(format!("{}\n{}", show(good), show(wrong)));
            }
        }
    }
    println!("{proven} controls of {what} proven with a wrong twin");
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Not among them: `cgroupns`, which Podman gives only where control groups are of the new kind, and what Debian's version does not read at all.
const PODMAN: [Row<'_>; 13] = [
    ("podman.default-capabilities", "[CHOWN, DAC_OVERRIDE, FOWNER, KILL, NET_BIND_SERVICE, SETGID, SETUID]", "ANY"),
    ("podman.pids-limit", "2048", "-1"),
    ("podman.seccomp-profile", "\"2 refused\"", "\"0 granted\""),
    ("podman.netns", "ANY", "[cgroup, ipc, net, pid, uts]"),
    ("podman.pidns", "ANY", "[cgroup, ipc, net, pid, uts]"),
    ("podman.ipcns", "ANY", "[cgroup, ipc, net, pid, uts]"),
    ("podman.utsns", "ANY", "[cgroup, ipc, net, pid, uts]"),
    ("podman.default-volumes", "[]", "[/host]"),
    ("podman.default-devices", "[]", "[kmsg]"),
    ("podman.policy-default", "\"refused\"", "\"fetched\""),
    ("podman.default-ulimits", "16384", "ANY"),
    ("podman.log-driver", "\"journald\"", "absent"),
    ("podman.userns", "ANY", "\"0 0 4294967295\""),
];
/// What Debian's Podman needs where control groups are of the old kind and nothing supervises.
const PODMAN_HERE: &str = "[engine]\ncgroup_manager = \"cgroupfs\"\nruntime = \"runc\"\nevents_logger = \"file\"\n";
const PODMAN_GOOD: &str = r#"[containers]
default_capabilities = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID"]
pids_limit = 2048
default_ulimits = ["nofile=16384:16384", "nproc=4096:4096"]
log_driver = "journald"
userns = "auto"
read_only = true
"#;
const PODMAN_WRONG: &str = r#"[containers]
default_capabilities = ["CHOWN", "NET_RAW", "SYS_PTRACE"]
pids_limit = 0
seccomp_profile = "unconfined"
netns = "host"
pidns = "host"
ipcns = "host"
utsns = "host"
cgroupns = "host"
volumes = ["/etc:/host"]
devices = ["/dev/kmsg:/dev/kmsg:r"]
env_host = true
log_driver = "none"
"#;

#[test]
fn each_effect_of_podman_is_seen_and_its_wrong_twin_stores_another() {
    let name = "each_effect_of_podman_is_seen_and_its_wrong_twin_stores_another";
    if !inside(name, &["podman", "runc", "journalctl"]) {
        return;
    }
    let _journal = journald();
    let profile = profile(Level::Restricted, Part::Podman);
    for table in ["/etc/subuid", "/etc/subgid"] {
        std::fs::write(table, "containers:2147483648:1048576\n").unwrap();
    }
    let mut both = Vec::new();
    for (containers, policy) in
        [(PODMAN_GOOD, r#"[{"type":"reject"}]"#), (PODMAN_WRONG, r#"[{"type":"insecureAcceptAnything"}]"#)]
    {
        std::fs::write("/etc/containers/containers.conf", format!("{containers}{PODMAN_HERE}")).unwrap();
        std::fs::write("/etc/containers/policy.json", format!(r#"{{"default": {policy}}}"#)).unwrap();
        both.push(judged(&profile));
        let left = Command::new("podman").args(["ps", "--all", "--quiet"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&left.stdout), "", "containers are left");
        let left = Command::new("podman").args(["images", "--quiet"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&left.stdout), "", "images are left");
    }
    compare("Podman", &[(&PODMAN, true)], &both[0], &both[1]);
    // Podman 4.3 knows no such key, and does not say so: whatever the file has, it is not what containers get.
    let read_only = &both[0]["podman.read-only"];
    let version = Command::new("podman").arg("--version").output().unwrap().stdout;
    if String::from_utf8_lossy(&version).contains(" 4.3.") {
        assert_eq!(read_only.status, Status::Fail, "{}", show(read_only));
        assert!(read_only.reason.contains("but canary read-only-root shows \"written\""), "{}", read_only.reason);
    }
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

/// Control, name, the value that is wanted, its wrong twin: settings that each network namespace has of its own.
const NETWORK: [(&str, &str, &str, &str); 17] = [
    ("host.ip-forward", "net.ipv4.ip_forward", "1", "0"),
    ("host.bridge-filter", "net.bridge.bridge-nf-call-iptables", "1", "0"),
    ("host.bridge-filter", "net.bridge.bridge-nf-call-ip6tables", "1", "1"),
    ("host.redirects", "net.ipv4.conf.all.accept_redirects", "0", "0"),
    ("host.redirects", "net.ipv4.conf.default.accept_redirects", "0", "0"),
    ("host.redirects", "net.ipv4.conf.all.send_redirects", "0", "0"),
    ("host.redirects", "net.ipv4.conf.default.send_redirects", "0", "1"),
    ("host.source-route", "net.ipv4.conf.all.accept_source_route", "0", "1"),
    ("host.source-route", "net.ipv4.conf.default.accept_source_route", "0", "0"),
    ("host.reverse-path", "net.ipv4.conf.all.rp_filter", "1", "0"),
    ("host.reverse-path", "net.ipv4.conf.default.rp_filter", "1", "0"),
    ("host.syncookies", "net.ipv4.tcp_syncookies", "1", "0"),
    ("host.unprivileged-ports", "net.ipv4.ip_unprivileged_port_start", "1024", "80"),
    ("host.log-martians", "net.ipv4.conf.all.log_martians", "1", "1"),
    ("host.log-martians", "net.ipv4.conf.default.log_martians", "1", "0"),
    ("host.ipv6-redirects", "net.ipv6.conf.all.accept_redirects", "0", "1"),
    ("host.ipv6-redirects", "net.ipv6.conf.default.accept_redirects", "0", "0"),
];

#[test]
fn each_network_setting_of_the_kernel_is_seen_and_its_wrong_twin_stores_another() {
    let name = "each_network_setting_of_the_kernel_is_seen_and_its_wrong_twin_stores_another";
    if !inside(name, &["dockerd"]) {
        return;
    }
    let profile = profile(Level::Restricted, Part::Host);
    let there = |name: &str| Path::new("/proc/sys").join(name.replace('.', "/")).exists();
    let mut both = Vec::new();
    for good in [true, false] {
        let mut file = String::new();
        for (_, name, holds, twin) in NETWORK.iter().filter(|row| there(row.1)) {
            let value = if good { holds } else { twin };
            std::fs::write(Path::new("/proc/sys").join(name.replace('.', "/")), value).unwrap();
            file += &format!("{name} = {value}\n");
        }
        // What is set at the next start says the same.
        std::fs::write("/etc/sysctl.d/99-zz-test.conf", file).unwrap();
        let report = examine_with(&Host::new(EnginesConfig::default()), &profile, &BTreeMap::new());
        let outcomes = report.outcomes.into_iter().map(|outcome| (outcome.control.clone(), outcome));
        both.push(outcomes.collect::<BTreeMap<_, _>>());
    }
    let mut ids: Vec<&str> = NETWORK.iter().filter(|row| there(row.1)).map(|row| row.0).collect();
    ids.dedup();
    let rows: Vec<Row<'_>> = ids.into_iter().map(|id| (id, "ANY", "ANY")).collect();
    compare("the kernel's network", &[(&rows, false)], &both[0], &both[1]);
}

/// What containerd itself makes of its configuration, while it runs with it.
const CONTAINERD: [Row<'_>; 12] = [
    ("containerd.tcp", "\"\"", "\"127.0.0.1:10107\""),
    ("containerd.grpc-uid", "0", "1000"),
    ("containerd.grpc-gid", "0", "1000"),
    ("containerd.tcp-service", "true", "false"),
    ("containerd.stream-address", "\"127.0.0.1\"", "\"0.0.0.0\""),
    ("containerd.apparmor", "false", "true"),
    ("containerd.unset-seccomp-profile", "\"runtime/default\"", "\"\""),
    ("containerd.privileged-devices", "true", "false"),
    ("containerd.unprivileged-ports", "false", "true"),
    ("containerd.unprivileged-icmp", "false", "true"),
    ("containerd.decryption-model", "\"node\"", "\"\""),
    ("containerd.base-runtime-spec", "\"/etc/containerd/base.json\"", "\"\""),
];

fn containerd(good: bool) -> String {
    let pick = |one: &'static str, other: &'static str| if good { one } else { other };
    let id = pick("0", "1000");
    [
        format!("version = 2\n[grpc]\nuid = {id}\ngid = {id}\ntcp_address = \"{}\"\n", pick("", "127.0.0.1:10107")),
        "[plugins.\"io.containerd.grpc.v1.cri\"]\n".to_owned(),
        format!("disable_tcp_service = {good}\nstream_server_address = \"{}\"\n", pick("127.0.0.1", "0.0.0.0")),
        format!("disable_apparmor = {}\nenable_selinux = {good}\n", !good),
        format!("enable_unprivileged_ports = {}\nenable_unprivileged_icmp = {}\n", !good, !good),
        format!("unset_seccomp_profile = \"{}\"\n", pick("runtime/default", "")),
        "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n"
            .to_owned(),
        format!("privileged_without_host_devices = {good}\n"),
        format!("base_runtime_spec = \"{}\"\n", pick("/etc/containerd/base.json", "")),
        format!("[plugins.\"io.containerd.grpc.v1.cri\".image_decryption]\nkey_model = \"{}\"\n", pick("node", "")),
    ]
    .concat()
}

#[test]
fn what_containerd_runs_with_is_seen_and_its_wrong_twin_stores_another() {
    if !inside("what_containerd_runs_with_is_seen_and_its_wrong_twin_stores_another", &["containerd"]) {
        return;
    }
    let profile = profile(Level::Restricted, Part::Containerd);
    // Whether there is a kubelet is told by its program being there; none of this is asked of other hosts.
    let mounted = Command::new("mount").args(["-t", "tmpfs", "corner", "/usr/local/sbin"]).status().unwrap();
    assert!(mounted.success());
    std::fs::write("/usr/local/sbin/kubelet", "").unwrap();
    let spec = Command::new("ctr").args(["oci", "spec"]).output().unwrap().stdout;
    std::fs::write("/etc/containerd/base.json", spec).unwrap();
    let mut both = Vec::new();
    for good in [true, false] {
        std::fs::write("/etc/containerd/config.toml", containerd(good)).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        let socket = Path::new("/run/containerd/containerd.sock");
        let _ = std::fs::remove_file(socket);
        let daemon = Daemon::start(&mut Command::new("/usr/bin/containerd"), Path::new("/run/containerd.log"), || {
            UnixStream::connect(socket).is_ok()
        });
        let report = examine_with(&Host::new(EnginesConfig::default()), &profile, &BTreeMap::new());
        let outcomes = report.outcomes.into_iter().map(|outcome| (outcome.control.clone(), outcome));
        both.push(outcomes.collect::<BTreeMap<_, _>>());
        drop(daemon);
    }
    compare("containerd", &[(&CONTAINERD, false)], &both[0], &both[1]);
}
