//! Measuring real engines: a private dockerd and a private containerd, edited, reloaded, replaced.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hostmark_attest::manifest::{EngineManifest, EngineReference, Setting, compare};
use hostmark_attest::profile::{Control, Outcome, SourceKind, Status, judge};
use hostmark_attest::workload::{Container, Inventory};
use hostmark_hostd::engines::events::EngineEvents;
use hostmark_hostd::engines::{DigestCache, EnginesConfig, Processes, WorkloadCache, inventory, measure};
use hostmark_hostd::profile::{Host, observe};
use hostmark_hostd::watch::Watcher;

const START: Duration = Duration::from_secs(40);

/// A daemon that the test started: ended by its id, its own children included (it ends them itself on SIGTERM).
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id().try_into().unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let end = Instant::now() + Duration::from_secs(15);
        while Instant::now() < end {
            if self.0.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn skipped(what: &str, why: &str) {
    println!("skipped (1): {what}: {why}");
}

fn installed(program: &str) -> Option<PathBuf> {
    ["/usr/sbin", "/usr/bin"].iter().map(|dir| Path::new(dir).join(program)).find(|path| path.is_file())
}

fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn wait_for(mut ready: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + START;
    while Instant::now() < end {
        if ready() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    false
}

/// A root with a copy of the installed dockerd that runs from it. None when dockerd cannot run here.
fn docker(what: &str) -> Option<(tempfile::TempDir, Daemon, EnginesConfig)> {
    let Some(program) = installed("dockerd") else {
        skipped(what, "dockerd is not installed (apt-get install docker.io)");
        return None;
    };
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    put(&root, "etc/docker/daemon.json", r#"{"log-driver": "local", "debug": false}"#);
    std::fs::create_dir_all(root.join("usr/sbin")).unwrap();
    std::fs::create_dir_all(root.join("run")).unwrap();
    std::fs::copy(program, root.join("usr/sbin/dockerd")).unwrap();
    let at = |path: &str| root.join(path).display().to_string();
    let log = std::fs::File::create(root.join("dockerd.log")).unwrap();
    let child = Command::new(root.join("usr/sbin/dockerd"))
        .args(["--config-file", &at("etc/docker/daemon.json"), "--data-root", &at("data"), "--exec-root", &at("exec")])
        .args(["--host", &format!("unix://{}", at("run/docker.sock")), "--pidfile", &at("run/docker.pid")])
        .args(["--iptables=false", "--bridge=none", "--storage-driver=vfs"])
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut daemon = Daemon(child);
    let config = EnginesConfig {
        enabled: vec!["docker".into(), "containerd".into()],
        pid_files: vec![root.join("run/docker.pid"), root.join("exec/containerd/containerd.pid")],
        docker_socket: Some(root.join("run/docker.sock")),
        ..EnginesConfig::of_root(&root)
    };
    let mut cache = DigestCache::default();
    let up = wait_for(|| {
        daemon.0.try_wait().unwrap().is_some()
            || measure(&config, &mut cache).manifest.engines["docker"]
                .settings
                .get("log-driver")
                .is_some_and(|stated| stated.contains_key("live"))
    });
    if !up || daemon.0.try_wait().unwrap().is_some() {
        let said = std::fs::read_to_string(root.join("dockerd.log")).unwrap_or_default();
        skipped(what, &format!("dockerd does not run here: {}", said.lines().last().unwrap_or_default()));
        return None;
    }
    Some((dir, daemon, config))
}

#[tokio::test]
async fn a_live_docker_engine_is_measured_and_its_changes_show() {
    let Some((_dir, daemon, config)) = docker("a live Docker Engine") else { return };
    let mut cache = DigestCache::default();
    let measured = measure(&config, &mut cache);
    let first = measured.manifest;
    let docker = &first.engines["docker"];
    assert!(docker.installed && docker.unreadable.is_empty(), "{:?}", docker.unreadable);
    assert_eq!(docker.processes.len(), 1);
    assert_eq!(docker.processes.first().unwrap().exe, "/usr/sbin/dockerd");
    assert_eq!(docker.settings["log-driver"]["live"], Setting::Text("local".into()));
    assert_eq!(docker.settings["log-driver"]["file"], Setting::Text("local".into()));
    assert_eq!(docker.settings["storage-driver"]["argv"], docker.settings["storage-driver"]["live"]);
    assert!(docker.settings.contains_key("version") && docker.settings.contains_key("cgroup.driver"));
    assert_eq!(first.engines["containerd"].processes.len(), 1, "dockerd's own containerd");
    assert_eq!(first.to_canonical(), measure(&config, &mut cache).manifest.to_canonical(), "same state, same bytes");
    assert_eq!(EngineManifest::parse(&first.to_canonical()).unwrap(), first);
    let reference = EngineReference::capture(&first);
    let clean = compare(&first, &reference);
    assert!(clean.acceptable(), "{clean:?}");

    // An edit of the file alone: the daemon still runs with the old value, and that is what is said.
    let mut watcher = Watcher::start(&measured.looked_at).unwrap();
    watcher.changed().await.unwrap();
    let start = Instant::now();
    put(&config.root, "etc/docker/daemon.json", r#"{"log-driver": "none", "debug": true}"#);
    tokio::time::timeout(Duration::from_secs(5), watcher.changed()).await.unwrap().unwrap();
    let told = start.elapsed();
    let edited = measure(&config, &mut cache).manifest;
    println!("told {} ms after the write, measured after {} ms", told.as_millis(), start.elapsed().as_millis());
    let findings = compare(&edited, &reference);
    for id in ["engine.file-changed", "engine.shadowed", "engine.setting"] {
        assert!(findings.has(id), "{id}: {findings:?}");
    }
    assert_eq!(edited.engines["docker"].settings["log-driver"]["live"], Setting::Text("local".into()));

    // E2: SIGHUP applies `debug` and not `log-driver`.
    let pid = nix::unistd::Pid::from_raw(daemon.0.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).unwrap();
    assert!(wait_for(|| {
        let now = measure(&config, &mut cache).manifest;
        now.engines["docker"].settings["debug"]["live"] == Setting::Flag(true)
    }));
    let reloaded = measure(&config, &mut cache).manifest;
    assert_eq!(reloaded.engines["docker"].settings["log-driver"]["live"], Setting::Text("local".into()));

    // Back to what it was: the same bytes again.
    put(&config.root, "etc/docker/daemon.json", r#"{"log-driver": "local", "debug": false}"#);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).unwrap();
    assert!(wait_for(|| measure(&config, &mut cache).manifest.to_canonical() == first.to_canonical()));
}

/// What comes of a control that wants this of a resource.
fn judged(config: &EnginesConfig, resource: &str, want: &str, prove: &str) -> Outcome {
    let text = format!(
        "id = 'docker.x'\ntitle = 't'\nrefs = []\nrole = 'operator'\nseverity = 'high'\nfix = 'evidence'\nresource = {resource}\nwant = {want}\nprove = '{prove}'"
    );
    let control: Control = toml::from_str(&text).unwrap_or_else(|error| panic!("{resource}: {error}"));
    judge(&control, observe(&Host::new(config.clone()).with_kernel("/"), &control), None)
}

#[test]
fn e1_e2_a_profile_goes_by_what_docker_runs_with() {
    let Some((_dir, _daemon, config)) = docker("a profile of a real Docker Engine") else { return };
    let setting = |key: &str, want: &str, prove: &str| {
        judged(
            &config,
            &format!("{{ json = '/etc/docker/daemon.json', key = '{key}', default = 'info' }}"),
            want,
            prove,
        )
    };
    let driver = setting("log-driver", "'local'", "api");
    assert_eq!(driver.status, Status::Pass, "{driver:?}");
    assert_eq!(driver.effective.unwrap().by, SourceKind::Api);
    let level = setting("log-level", "'info'", "merged");
    assert_eq!(level.status, Status::Pass, "{level:?}");
    let iptables = setting("iptables", "true", "merged");
    assert_eq!(
        (iptables.status, iptables.effective.unwrap().by),
        (Status::Fail, SourceKind::Argv),
        "the arguments say no"
    );

    put(&config.root, "etc/docker/daemon.json", r#"{"log-driver": "journald", "log-level": "info"}"#);
    let wanted = setting("log-driver", "'journald'", "api");
    assert_eq!(wanted.status, Status::Fail, "a file that nobody loaded: {wanted:?}");
    assert!(wanted.reason.contains("but what holds is \"local\""), "{}", wanted.reason);
    let lost = setting("log-driver", "'local'", "api");
    assert_eq!(lost.status, Status::Fail, "what holds until the next start: {lost:?}");
    let level = setting("log-level", "'info'", "merged");
    assert_eq!(level.status, Status::Manual, "written, and not loaded: {level:?}");
    assert!(level.reason.contains("was changed after docker started"), "{}", level.reason);
}

#[test]
fn e6_a_replaced_program_of_a_running_engine_is_named() {
    let Some((_dir, _daemon, config)) = docker("a replaced dockerd") else { return };
    let mut cache = DigestCache::default();
    let first = measure(&config, &mut cache).manifest;
    let reference = EngineReference::capture(&first);
    assert!(compare(&first, &reference).acceptable(), "the honest twin");
    std::fs::write(config.root.join("usr/sbin/.new"), "another program").unwrap();
    std::fs::rename(config.root.join("usr/sbin/.new"), config.root.join("usr/sbin/dockerd")).unwrap();
    let manifest = measure(&config, &mut cache).manifest;
    let process = manifest.engines["docker"].processes.first().unwrap();
    assert!(process.deleted);
    assert_eq!(process.sha256, first.engines["docker"].processes.first().unwrap().sha256, "what runs is measured");
    let findings = compare(&manifest, &reference);
    let about =
        |id: &str| findings.as_slice().iter().any(|one| one.id == id && one.message.contains("/usr/sbin/dockerd"));
    assert!(about("engine.deleted-binary") && about("engine.file-changed"), "{findings:?}");
}

/// One request to Docker's API; its answer's status and body.
fn ask(socket: &Path, request: &str, kind: &str, body: &[u8]) -> (u16, serde_json::Value) {
    let mut stream = UnixStream::connect(socket).unwrap();
    write!(
        stream,
        "{request} HTTP/1.0\r\nHost: docker\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_default())
}

#[tokio::test]
async fn e9_containers_of_a_real_docker_are_told_whatever_their_state() {
    let Some((dir, _daemon, config)) = docker("containers of a real Docker Engine") else { return };
    let socket = config.socket().unwrap();
    // An image of one empty file: nothing of it is ever started.
    let mut tar = vec![0u8; 512];
    tar[..4].copy_from_slice(b"none");
    tar[100..108].copy_from_slice(b"0000644\0");
    tar[124..136].copy_from_slice(b"00000000000\0");
    tar[148..156].copy_from_slice(b"        ");
    let sum: u32 = tar.iter().map(|byte| u32::from(*byte)).sum();
    tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar.extend([0; 1024]);
    let (status, answer) = ask(&socket, "POST /images/create?fromSrc=-&repo=none", "application/x-tar", &tar);
    assert_eq!(status, 200, "{answer}");
    let link = dir.path().join("link");
    std::os::unix::fs::symlink("/etc", &link).unwrap();
    let link = link.canonicalize().map(|_| link.display().to_string()).unwrap();
    let device = r#"{"Name": "etc", "DriverOpts": {"type": "none", "o": "bind", "device": "/etc"}}"#;
    let layers = r#"{"Name": "layers", "DriverOpts": {"type": "overlay", "o": "lowerdir=/boot", "device": "overlay"}}"#;
    for volume in [device, layers] {
        assert_eq!(ask(&socket, "POST /volumes/create", "application/json", volume.as_bytes()).0, 201);
    }

    let mut events = EngineEvents::start(socket.clone()).unwrap();
    events.next().await.unwrap();
    let mut cache = WorkloadCache::default();
    let manifest = measure(&config, &mut DigestCache::default()).manifest;
    let mut look = |forget: bool| -> Vec<Container> {
        if forget {
            cache.forget();
        }
        let inventory = Inventory::parse(&inventory(&config, &manifest, &mut cache)).unwrap();
        let docker = inventory.engines["docker"].clone();
        assert!(docker.unreadable.is_empty(), "{:?}", docker.unreadable);
        docker.containers.into_values().collect()
    };
    assert_eq!(look(false), [], "no container yet");
    let sources = |container: &Container| -> Vec<(String, bool)> {
        let ends = container
            .mounts
            .iter()
            .map(|mount| (mount.leads_to.as_ref().unwrap_or(&mount.source).clone(), mount.writable));
        ends.collect()
    };
    type Reach = fn(&Container) -> bool;
    type Row<'a> = (&'a str, String, &'a [(&'a str, bool)], Reach);
    let rows: [Row<'_>; 10] = [
        ("plain", "{}".into(), &[], |one| {
            let nothing = one.capabilities.is_empty() && one.device_rules.is_empty() && !one.system_paths;
            nothing && !one.privileged && one.host_namespaces.is_empty()
        }),
        ("capable", r#"{"CapAdd": ["SYS_ADMIN"]}"#.into(), &[], |one| {
            !one.privileged && one.capabilities == ["SYS_ADMIN".to_owned()].into()
        }),
        ("devices", r#"{"DeviceCgroupRules": ["b *:* rwm"]}"#.into(), &[], |one| {
            one.device_rules == ["b *:* rwm".to_owned()].into()
        }),
        ("paths", r#"{"ReadonlyPaths": [], "MaskedPaths": []}"#.into(), &[], |one| one.system_paths),
        ("layers", r#"{"Binds": ["layers:/v"]}"#.into(), &[("/boot", true)], |one| !one.privileged),
        ("privileged", r#"{"Privileged": true, "RestartPolicy": {"Name": "always"}}"#.into(), &[], |one| {
            one.privileged && one.restart == "always"
        }),
        ("host", r#"{"PidMode": "host", "NetworkMode": "host"}"#.into(), &[], |one| {
            one.host_namespaces == ["network".to_owned(), "pid".to_owned()].into()
        }),
        ("mounts", r#"{"Binds": ["/:/h:ro", "/proc:/p"]}"#.into(), &[("/", false), ("/proc", true)], |one| {
            !one.privileged
        }),
        ("link", format!(r#"{{"Binds": ["{link}:/l"]}}"#), &[("/etc", true)], |one| !one.privileged),
        ("volume", r#"{"Binds": ["etc:/v"]}"#.into(), &[("/etc", true)], |one| !one.privileged),
    ];
    for (name, host, mounts, reach) in &rows {
        let body = format!(r#"{{"Image": "none", "Cmd": ["/none"], "HostConfig": {host}}}"#);
        let start = Instant::now();
        let (status, answer) =
            ask(&socket, &format!("POST /containers/create?name={name}"), "application/json", body.as_bytes());
        assert_eq!(status, 201, "{name}: {answer}");
        tokio::time::timeout(Duration::from_secs(10), events.next()).await.unwrap().unwrap();
        let told = start.elapsed();
        let found = look(true).into_iter().find(|one| one.name == *name).unwrap();
        println!("{name}: told after {} ms, known after {} ms", told.as_millis(), start.elapsed().as_millis());
        let mounts: Vec<(String, bool)> =
            mounts.iter().map(|(path, writable)| ((*path).to_owned(), *writable)).collect();
        assert!(reach(&found) && found.state == "created", "{name}: {found:?}");
        assert_eq!(sources(&found), mounts, "{name}");
    }
    assert_eq!(look(false).len(), rows.len(), "and all stay known");
    // What a profile makes of them: the worst is named, with its state.
    for (fact, want, status, named) in [
        ("privileged", "false", Status::Fail, "docker/privileged (created): true"),
        ("host-namespaces", "'empty'", Status::Fail, "docker/host (created): [network, pid]"),
        ("sensitive-mounts", "'empty'", Status::Fail, "docker/link (created): [/etc"),
        ("engine-sockets", "'empty'", Status::Pass, ""),
        ("seccomp", "{ none_of = ['unconfined'] }", Status::Fail, "docker/privileged (created): unconfined"),
        ("capabilities", "{ superset_of = ['CHOWN'] }", Status::Fail, "docker/privileged (created): [ALL]"),
        ("restart-limit", "{ at_least = 0, at_most = 5 }", Status::Fail, "docker/privileged (created): -1"),
        ("propagation", "'empty'", Status::Pass, ""),
        ("health-check", "false", Status::Pass, ""),
        ("runtime", "'runc'", Status::Pass, ""),
    ] {
        let outcome = judged(&config, &format!("{{ container = '{fact}' }}"), want, "inventory");
        assert_eq!(outcome.status, status, "{fact}: {outcome:?}");
        let effective = outcome.effective.unwrap();
        assert_eq!(effective.by, SourceKind::Inventory);
        assert!(effective.to_string().contains(named), "{fact}: {effective}");
    }
    // A policy that starts a stopped container by itself may come later.
    ask(&socket, "POST /containers/plain/update", "application/json", br#"{"RestartPolicy": {"Name": "always"}}"#);
    tokio::time::timeout(Duration::from_secs(10), events.next()).await.unwrap().unwrap();
    assert!(look(true).iter().any(|one| one.name == "plain" && one.restart == "always"));
    assert_eq!(ask(&socket, "DELETE /containers/plain", "application/json", b"").0, 204);
    assert_eq!(look(false).len(), rows.len() - 1, "removed");
}

#[test]
fn a_live_containerd_is_measured_with_what_it_would_load() {
    let Some(program) = installed("containerd") else {
        return skipped("a live containerd", "containerd is not installed (apt-get install containerd)");
    };
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let at = |path: &str| root.join(path).display().to_string();
    let configuration = format!(
        "version = 2\nroot = \"{}\"\nstate = \"{}\"\noom_score = -10\nimports = [\"{}\"]\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
         [grpc]\naddress = \"{}\"\n",
        at("root"),
        at("state"),
        at("conf.d/*.toml"),
        at("c.sock")
    );
    put(&root, "config.toml", &configuration);
    put(&root, "conf.d/10.toml", "version = 2\noom_score = -20\n");
    let child = Command::new(program)
        .args(["--config", &at("config.toml"), "--log-level", "error"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    put(&root, "pid", &child.id().to_string());
    let mut daemon = Daemon(child);
    if !wait_for(|| root.join("c.sock").exists() || daemon.0.try_wait().unwrap().is_some())
        || daemon.0.try_wait().unwrap().is_some()
    {
        return skipped("a live containerd", "containerd does not run here");
    }
    let config = EnginesConfig {
        enabled: vec!["containerd".into()],
        processes: Processes::PidFiles,
        pid_files: vec![root.join("pid")],
        ..EnginesConfig::default()
    };
    let mut cache = DigestCache::default();
    let first = measure(&config, &mut cache).manifest;
    let containerd = &first.engines["containerd"];
    assert!(containerd.unreadable.is_empty(), "{:?}", containerd.unreadable);
    assert_eq!(containerd.processes.len(), 1);
    assert!(containerd.configuration.contains_key(&at("conf.d/10.toml")), "imports are followed");
    let dumped = |manifest: &EngineManifest, name: &str| {
        manifest.engines["containerd"].settings[&format!("{}:{name}", at("config.toml"))]["dump"].clone()
    };
    assert_eq!(dumped(&first, "oom_score"), Setting::Number(-20), "as containerd itself merges it");
    assert_eq!(first.to_canonical(), measure(&config, &mut cache).manifest.to_canonical(), "same state, same bytes");
    let reference = EngineReference::capture(&first);
    put(&root, "conf.d/10.toml", "version = 2\noom_score = 5\n");
    let edited = measure(&config, &mut cache).manifest;
    assert_eq!(dumped(&edited, "oom_score"), Setting::Number(5));
    let findings = compare(&edited, &reference);
    assert!(findings.has("engine.file-changed") && findings.has("engine.setting"), "{findings:?}");
}
