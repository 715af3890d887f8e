//! Applying profiles: to a real dockerd in its own network and mount namespaces, and to directories by processes that are killed.
//!
//! Nothing of this machine is configured: every root, every /proc/sys and every daemon is the test's own.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hostmark_attest::profile::{Layer, Level, Part, Profile};
use hostmark_hostd::apply::{Applied, Applier, ApplyError, Confirmer, Consent, Held, Receipt, State};
use hostmark_hostd::config::Config;
use hostmark_hostd::engines::EnginesConfig;

const WITHIN: Duration = Duration::from_secs(60);

fn skipped(what: &str, why: &str) {
    println!("skipped (1): {what}: {why}");
}

fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn wait_for(mut ready: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(40);
    while Instant::now() < end {
        if ready() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    false
}

/// A profile of one layer.
fn profile(part: Part, controls: &[String]) -> Profile {
    let layer = Layer::parse(part, Level::Baseline, &controls.concat()).unwrap_or_else(|error| panic!("{error}"));
    Profile::build(Level::Baseline, vec![layer]).unwrap()
}

fn control(id: &str, resource: &str, want: &str, more: &str) -> String {
    format!(
        "[[control]]\nid = '{id}'\ntitle = 't'\nrefs = []\nrole = 'operator'\nseverity = 'high'\nresource = {resource}\nwant = {want}\n{more}\n"
    )
}

fn daemon_json(name: &str, key: &str, want: &str, proof: &str, activate: &str) -> String {
    let resource = format!("{{ json = '/etc/docker/daemon.json', key = '{key}' }}");
    let more = format!("prove = '{proof}'\nactivate = '{activate}'\nfix = 'automatic'");
    control(&format!("docker.{name}"), &resource, want, &more)
}

/// Everything below a directory: content, rights, owner.
fn tree(root: &Path) -> BTreeMap<String, (Vec<u8>, u32, u32, u32)> {
    let mut all = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let meta = std::fs::symlink_metadata(&path).unwrap();
            let content = if meta.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
            let name = path.strip_prefix(root).unwrap().display().to_string();
            all.insert(name, (content, meta.mode(), meta.uid(), meta.gid()));
            if meta.is_dir() {
                open.push(path);
            }
        }
    }
    all
}

/// A dockerd of its own, in a network and a mount namespace of its own, that a script restarts.
struct Docker {
    _dir: tempfile::TempDir,
    root: PathBuf,
    config: Config,
}

impl Docker {
    /// None where it cannot run.
    fn start(what: &str, daemon_json: &str) -> Option<Self> {
        let program = ["/usr/sbin/dockerd", "/usr/bin/dockerd"].into_iter().find(|path| Path::new(path).is_file());
        let Some(program) = program.filter(|_| Path::new("/usr/bin/unshare").is_file()) else {
            skipped(what, "dockerd or unshare is not installed (apt-get install docker.io util-linux)");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        put(&root, "etc/docker/daemon.json", daemon_json);
        for directory in ["usr/sbin", "run", "state", "kernel/proc/sys"] {
            std::fs::create_dir_all(root.join(directory)).unwrap();
        }
        std::fs::copy(program, root.join("usr/sbin/dockerd")).unwrap();
        let script = format!(
            "#!/bin/sh\nR={root}\nif [ -f $R/run/docker.pid ]; then p=$(cat $R/run/docker.pid); kill $p 2>/dev/null; while kill -0 $p 2>/dev/null; do sleep 0.1; done; fi\n\
             rm -f $R/run/docker.pid $R/run/docker.sock\n\
             unshare --net --mount --propagation slave $R/usr/sbin/dockerd --config-file $R/etc/docker/daemon.json --data-root $R/data --exec-root $R/exec \
             --host unix://$R/run/docker.sock --pidfile $R/run/docker.pid --storage-driver=vfs >$R/dockerd.log 2>&1 </dev/null &\n\
             p=$!\nfor i in $(seq 200); do sleep 0.1; kill -0 $p 2>/dev/null || {{ tail -1 $R/dockerd.log; exit 1; }}; [ -S $R/run/docker.sock ] && exit 0; done\nexit 1\n",
            root = root.display()
        );
        put(&root, "restart", &script);
        std::fs::set_permissions(root.join("restart"), std::fs::Permissions::from_mode(0o755)).unwrap();
        let toml = format!(
            "state_dir = '{root}/state'\n[source]\nrun_dir = '{root}/run/h'\n[engines]\nroot = '{root}'\nenabled = ['docker', 'containerd']\n\
             pid_files = ['{root}/run/docker.pid', '{root}/exec/containerd/containerd.pid']\ndocker_socket = '{root}/run/docker.sock'\n\
             [apply]\nrestart.docker = ['{root}/restart']\n",
            root = root.display()
        );
        put(&root, "hostd.toml", &toml);
        let config = Config::parse("hostd.toml", &toml).unwrap();
        let docker = Self { _dir: dir, root, config };
        let started = docker.restart();
        if !started || !wait_for(|| docker.ask("GET /_ping", b"").is_some_and(|(status, _)| status == 200)) {
            let said = std::fs::read_to_string(docker.root.join("dockerd.log")).unwrap_or_default();
            skipped(what, &format!("dockerd does not run here: {}", said.lines().last().unwrap_or_default()));
            return None;
        }
        Some(docker)
    }

    fn restart(&self) -> bool {
        let mut command = Command::new(self.root.join("restart"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().unwrap().success()
    }

    fn applier(&self) -> Applier<'_> {
        Applier::new(&self.config).with_kernel(self.root.join("kernel"))
    }

    /// One request to its API.
    fn ask(&self, request: &str, body: &[u8]) -> Option<(u16, serde_json::Value)> {
        let mut stream = UnixStream::connect(self.root.join("run/docker.sock")).ok()?;
        let kind = if body.starts_with(b"{") { "application/json" } else { "application/x-tar" };
        let length = body.len();
        let head =
            format!("{request} HTTP/1.0\r\nHost: docker\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(body).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, serde_json::from_str(body).unwrap_or_default()))
    }

    /// Starts a container; its first process. None where none can run.
    fn container(&self, name: &str) -> Option<i64> {
        let image = self.root.join("image");
        std::fs::create_dir_all(image.join("bin")).unwrap();
        std::fs::copy("/bin/busybox", image.join("bin/busybox")).ok()?;
        let tar = Command::new("tar").arg("-C").arg(&image).args(["-c", "."]).output().unwrap().stdout;
        self.ask("POST /images/create?fromSrc=-&repo=busybox", &tar)?;
        let body =
            br#"{"Image": "busybox", "Cmd": ["/bin/busybox", "sleep", "600"], "HostConfig": {"NetworkMode": "none"}}"#;
        self.ask(&format!("POST /containers/create?name={name}"), body)?;
        let (started, _) = self.ask(&format!("POST /containers/{name}/start"), b"")?;
        (started == 204).then(|| self.pid_of(name)).flatten()
    }

    fn pid_of(&self, name: &str) -> Option<i64> {
        let (_, told) = self.ask(&format!("GET /containers/{name}/json"), b"")?;
        told["State"]["Pid"].as_i64().filter(|pid| *pid > 0 && Path::new(&format!("/proc/{pid}")).exists())
    }

    fn info(&self) -> serde_json::Value {
        self.ask("GET /info", b"").map(|(_, info)| info).unwrap_or_default()
    }

    fn daemon(&self) -> String {
        std::fs::read_to_string(self.root.join("run/docker.pid")).unwrap()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if let Some((_, list)) = self.ask("GET /containers/json?all=1", b"") {
            for one in list.as_array().into_iter().flatten() {
                self.ask(&format!("DELETE /containers/{}?force=1", one["Id"].as_str().unwrap_or_default()), b"");
            }
        }
        let Ok(pid) = self.daemon().trim().parse::<i32>() else { return };
        let pid = nix::unistd::Pid::from_raw(pid);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        wait_for(|| nix::sys::signal::kill(pid, None).is_err());
    }
}

fn pending(applied: Applied) -> Receipt {
    match applied {
        Applied::Pending(receipt, _) => *receipt,
        other => panic!("{other:?}"),
    }
}

fn rolled_back(applied: Applied) -> (Receipt, String) {
    match applied {
        Applied::RolledBack(receipt) => match receipt.state.clone() {
            State::RolledBack { why, left, trouble, .. } => {
                assert!(left.is_empty() && trouble.is_empty(), "{left:?} {trouble:?}");
                (*receipt, why)
            }
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

fn shipped(part: &str, level: Level) -> Profile {
    let directory = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/profiles"));
    hostmark_hostd::profile::load(directory, level, &[part.parse().unwrap()].into()).unwrap()
}

#[test]
fn a_real_docker_is_hardened_confirmed_and_put_back_while_a_container_runs() {
    // In an order, with spaces and without an end of line, as somebody wrote it.
    let before = "{ \"debug\":true,\n\n   \"log-driver\" : \"local\" }";
    let Some(docker) = Docker::start("hardening a real Docker Engine", before) else { return };
    let file = docker.root.join("etc/docker/daemon.json");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let Some(container) = docker.container("lives") else { return skipped("a container", "none can be run here") };
    let (etc, hardened) = (tree(&docker.root.join("etc")), shipped("docker", Level::Hardened));
    let (consent, applier) = (Consent::default(), docker.applier());
    let first = docker.daemon();
    let start = Instant::now();
    let receipt = pending(applier.apply(&hardened, &consent, WITHIN).unwrap());
    println!("applied in {} ms", start.elapsed().as_millis());
    let held = |id: &str| receipt.controls.iter().find(|one| one.control == id).map(|one| one.held);
    assert_eq!(held("docker.debug"), Some(Held::Held), "{receipt:?}");
    assert_eq!(held("docker.live-restore"), Some(Held::Held));
    assert_eq!(held("docker.icc"), Some(Held::EffectUnseen), "its proof is a canary");
    assert_ne!(docker.daemon(), first, "icc takes a restart");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("{ \"debug\":false,\n\n   \"log-driver\" : \"local\""), "{text}");
    assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    let info = docker.info();
    assert_eq!((&info["Debug"], &info["LiveRestoreEnabled"]), (&false.into(), &true.into()));
    assert_eq!(docker.pid_of("lives"), Some(container), "it ran on while the daemon was started again");

    assert!(matches!(applier.apply(&hardened, &consent, WITHIN), Err(ApplyError::Waiting { .. })));
    let kept = applier.confirm(&Confirmer("a test".into())).unwrap();
    assert_eq!((&kept.state, kept.confirmed.unwrap().by.as_str()), (&State::Confirmed, "a test"));
    let twice = applier.confirm(&Confirmer("a test".into())).unwrap_err().to_string();
    assert!(twice.starts_with("no apply waits") && twice.contains("was confirmed by a test"), "{twice}");
    let after = tree(&docker.root.join("etc"));
    assert!(matches!(applier.apply(&hardened, &consent, WITHIN), Ok(Applied::Unchanged(_))));
    assert_eq!(tree(&docker.root.join("etc")), after, "nothing is written when nothing is to change");

    // The container outlasts the way back too, although live-restore goes with it.
    let back = applier.rollback(&receipt.receipt, false).unwrap();
    assert!(
        matches!(&back.state, State::RolledBack { left, trouble, .. } if left.is_empty() && trouble.is_empty()),
        "{back:?}"
    );
    assert_eq!(tree(&docker.root.join("etc")), etc, "bytes, rights and owners");
    assert!(wait_for(|| docker.info()["LiveRestoreEnabled"] == false));
    assert_eq!((&docker.info()["Debug"], docker.pid_of("lives")), (&true.into(), Some(container)));
    let kept = std::fs::read(docker.root.join("state/apply").join(&receipt.receipt).join("receipt.json")).unwrap();
    assert_eq!(kept, back.to_canonical());
    assert!(matches!(applier.rollback(&receipt.receipt, false), Err(ApplyError::AlreadyBack { .. })));
    assert!(matches!(applier.rollback("none", false), Err(ApplyError::Unknown { .. })));
}

#[test]
fn e2_what_a_signal_cannot_load_is_not_held_and_goes_back() {
    let before = "{\"log-driver\": \"local\", \"debug\": true}\n";
    let Some(docker) = Docker::start("SIGHUP for what takes a restart", before) else { return };
    let consent = Consent::default();
    let first = docker.daemon();
    for (name, key, want, proof) in
        [("driver", "log-driver", "'json-file'", "api"), ("level", "log-level", "'warn'", "merged")]
    {
        let wrong = profile(Part::Docker, &[daemon_json(name, key, want, proof, "sighup")]);
        let (receipt, why) = rolled_back(docker.applier().apply(&wrong, &consent, WITHIN).unwrap());
        assert_eq!(receipt.controls[0].held, Held::NotHeld);
        assert!(why.starts_with(&format!("docker.{name} does not hold: ")), "{why}");
        assert_eq!(std::fs::read_to_string(docker.root.join("etc/docker/daemon.json")).unwrap(), before);
    }
    assert_eq!(docker.daemon(), first, "it was never started again");
    // The honest twins: what SIGHUP loads is held, and what takes a restart is with one.
    let debug = profile(Part::Docker, &[daemon_json("debug", "debug", "false", "api", "sighup")]);
    assert_eq!(pending(docker.applier().apply(&debug, &consent, WITHIN).unwrap()).controls[0].held, Held::Held);
    docker.applier().confirm(&Confirmer("a test".into())).unwrap();
    let driver = profile(Part::Docker, &[daemon_json("driver", "log-driver", "'json-file'", "api", "engine-restart")]);
    assert_eq!(pending(docker.applier().apply(&driver, &consent, WITHIN).unwrap()).controls[0].held, Held::Held);
    assert_eq!(docker.info()["LoggingDriver"], "json-file");
}

#[test]
fn e4_a_value_that_stops_the_engine_goes_back_and_containers_live() {
    let before = "{\"live-restore\": true}\n";
    let Some(docker) = Docker::start("a value that stops Docker Engine", before) else { return };
    let file = docker.root.join("etc/docker/daemon.json");
    let Some(container) = docker.container("lives") else { return skipped("a container", "none can be run here") };
    let (first, consent) = (docker.daemon(), Consent::default());
    // What a shadow dockerd refuses is never written.
    for (key, want, says) in [
        ("no-such-key", "true", "don't match any configuration option"),
        ("log-level", "'nonsense'", "nonsense"),
        ("default-runtime", "'nonsense'", "nonsense"),
    ] {
        let bad = profile(Part::Docker, &[daemon_json("bad", key, want, "merged", "engine-restart")]);
        let refused = docker.applier().apply(&bad, &consent, WITHIN).unwrap_err().to_string();
        assert!(refused.starts_with("nothing was changed: dockerd refuses") && refused.contains(says), "{refused}");
    }
    assert_eq!((docker.daemon(), docker.pid_of("lives")), (first, Some(container)));
    assert!(docker.applier().receipts().unwrap().is_empty());

    // What only the host's own daemon trips over: a shadow asks for no account of the host.
    let bad = [
        daemon_json("bad", "userns-remap", "'no-such-account'", "merged", "engine-restart"),
        daemon_json("debug", "debug", "true", "api", "sighup"),
    ];
    let (receipt, why) = rolled_back(docker.applier().apply(&profile(Part::Docker, &bad), &consent, WITHIN).unwrap());
    println!("{why}");
    assert!(why.contains("no-such-account"), "{why}");
    assert_eq!(receipt.controls.len(), 2);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
    assert!(wait_for(|| docker.pid_of("lives") == Some(container)), "the container lives, and the engine knows it");
    assert_eq!(docker.info()["Debug"], false);
}

/// What the killed process applies: a file that is there, one that is not, below a directory that is not.
fn to_files() -> Profile {
    let json = |name: &str, path: &str, key: &str, want: &str| {
        let resource = format!("{{ json = '{path}', key = '{key}' }}");
        control(&format!("host.{name}"), &resource, want, "prove = 'file'\nfix = 'automatic'")
    };
    profile(
        Part::Host,
        &[
            json("old", "/etc/app/old.json", "a.b", "false"),
            json("more", "/etc/app/old.json", "c", "'x'"),
            json("new", "/etc/new/deep/er.json", "k", "1"),
        ],
    )
}

/// A host of files alone, and hostd's state beside it.
fn files() -> (tempfile::TempDir, Config) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    put(&root, "etc/app/old.json", "{\n\t\"a\": {\"b\": true}\n}\n");
    put(&root, "etc/app/other", "other\n");
    std::fs::set_permissions(root.join("etc/app/old.json"), std::fs::Permissions::from_mode(0o640)).unwrap();
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(root.join("etc/app/old.json"), Some(1234), Some(4321)).unwrap();
    }
    (dir, files_config(root.parent().unwrap()))
}

fn files_config(dir: &Path) -> Config {
    let engines = EnginesConfig { enabled: Vec::new(), ..EnginesConfig::of_root(dir.join("root")) };
    Config { state_dir: dir.join("state"), engines, ..Config::default() }
}

const KILLED_IN: &str = "HOSTMARK_TEST_KILLED_IN";
const KILLED_AT: &str = "HOSTMARK_TEST_KILLED_AT";

/// The process that e3 kills: it applies, confirms and rolls back, and kills itself at one moment of that.
#[test]
#[ignore = "started by e3_*"]
fn the_process_that_is_killed() {
    let (Some(dir), Some(at)) = (std::env::var_os(KILLED_IN), std::env::var(KILLED_AT).ok()) else { return };
    let config = files_config(Path::new(&dir));
    let at: usize = at.parse().unwrap();
    let mut moments = 0;
    let applier = Applier::new(&config).with_kernel(Path::new(&dir).join("kernel")).with_watch(|_| {
        moments += 1;
        if moments == at {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
        }
    });
    let receipt = pending(applier.apply(&to_files(), &Consent::default(), WITHIN).unwrap());
    applier.confirm(&Confirmer("a test".into())).unwrap();
    applier.rollback(&receipt.receipt, false).unwrap();
}

#[test]
fn e3_killed_at_every_step_a_host_is_as_before_or_as_confirmed() {
    let (dir, config) = files();
    let before = tree(&config.engines.root);
    let applier = Applier::new(&config).with_kernel(dir.path().join("kernel"));
    pending(applier.apply(&to_files(), &Consent::default(), WITHIN).unwrap());
    applier.confirm(&Confirmer("a test".into())).unwrap();
    let after = tree(&config.engines.root);
    assert_ne!(before, after);
    let (mut kills, mut stayed) = (0, 0);
    for at in 1.. {
        let (dir, config) = files();
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_process_that_is_killed", "--ignored", "--quiet"])
            .env(KILLED_IN, dir.path())
            .env(KILLED_AT, at.to_string())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        let applier = Applier::new(&config).with_kernel(dir.path().join("kernel"));
        if status.success() {
            assert_eq!(tree(&config.engines.root), before, "all of it, and back");
            break;
        }
        assert_eq!(status.signal(), Some(9), "step {at}");
        kills += 1;
        applier.recover().unwrap();
        let mut now = applier.receipts().unwrap().pop().map(|receipt| (receipt.state, receipt.receipt));
        if let Some((State::Pending { .. }, receipt)) = &now {
            // It still may be confirmed; somebody says no.
            assert_eq!(tree(&config.engines.root), after, "step {at}");
            now = Some((applier.rollback(receipt, false).unwrap().state, String::new()));
        }
        let expect = match now {
            Some((State::Confirmed, _)) => &after,
            Some((State::RolledBack { left, .. }, _)) => {
                assert!(left.is_empty(), "step {at}: {left:?}");
                &before
            }
            None => &before,
            Some(other) => panic!("step {at}: {other:?}"),
        };
        stayed += usize::from(std::ptr::eq(expect, &after));
        assert_eq!(&tree(&config.engines.root), expect, "step {at}");
        // Whatever it was, the next apply works.
        match applier.apply(&to_files(), &Consent::default(), WITHIN).unwrap() {
            Applied::Pending(..) => drop(applier.confirm(&Confirmer("a test".into())).unwrap()),
            Applied::Unchanged(_) => assert!(std::ptr::eq(expect, &after), "step {at}"),
            other => panic!("step {at}: {other:?}"),
        }
        assert_eq!(tree(&config.engines.root), after, "step {at}");
    }
    println!("killed at {kills} moments, {stayed} of them after the confirmation and before the way back");
    assert!(kills > 20 && stayed >= 1, "{kills} {stayed}");
}
