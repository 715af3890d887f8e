//! Asking engines, before anything is written, whether they would take the new configuration.
//!
//! `dockerd --validate` where it has it (23 and later), else a shadow dockerd with the new configuration on private paths and in namespaces of its
//! own: 20.10 says what it refuses only by not starting. Establishes that the configuration parses, has no unknown key and no conflicting values.
//! Does not establish that the host has what it needs: paths, ports, drivers of storage. That shows at the restart, and is undone.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hostmark_attest::finding::one_line;
use hostmark_attest::manifest::Setting;
use serde_json::{Map, Value};

use super::changes::{Drafts, docker_file};
use crate::config::Config;
use crate::profile::Host;

/// Longest until a shadow dockerd answers or ends: it starts a containerd of its own first.
const SHADOW_MAX: Duration = Duration::from_secs(60);
/// Longest until it has ended.
const END_MAX: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Keys of daemon.json that are a place, a device or an account of the host: a shadow has its own or none.
const HOSTS_OWN: [&str; 26] = [
    "allow-direct-routing",
    "bip",
    "bip6",
    "bridge",
    "containerd",
    "containerd-namespace",
    "containerd-plugin-namespace",
    "data-root",
    "default-gateway",
    "default-gateway-v6",
    "exec-root",
    "fixed-cidr",
    "fixed-cidr-v6",
    "graph",
    "group",
    "hosts",
    "ip-forward-no-drop",
    "ipv6",
    "live-restore",
    "metrics-addr",
    "pidfile",
    "storage-driver",
    "storage-opts",
    "swarm-default-advertise-addr",
    "userland-proxy-path",
    "userns-remap",
];

/// What a shadow without namespaces of its own must not touch either.
const NETWORK: [&str; 4] = ["icc", "ip-forward", "ip6tables", "iptables"];

/// Why engines would not take what is drafted; empty: they would, as far as can be told.
pub(super) fn problems(host: &Host, drafts: &Drafts, config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    if !host.is_live() && config.engines.root_is_default() {
        return problems;
    }
    let docker = docker_file(host).ok().map(|path| host.root.leads_to(&path).unwrap_or(path));
    if let Some(draft) = docker.and_then(|path| drafts.files.get(&path)) {
        problems.extend(docker_problem(host, &draft.after, config));
    }
    problems
}

fn docker_problem(host: &Host, text: &[u8], config: &Config) -> Option<String> {
    let value: Value = match serde_json::from_slice(text) {
        Ok(value) => value,
        Err(error) => return Some(format!("daemon.json would not be JSON: {error}")),
    };
    let swarm = host.engine("docker").and_then(|docker| docker.settings.get("swarm.state")?.get("live").cloned());
    let on = |key: &str| value.get(key) == Some(&Value::Bool(true));
    if on("live-restore") && swarm.is_some_and(|state| state != Setting::Text("inactive".to_owned())) {
        return Some("dockerd does not start with live-restore while a swarm is active".to_owned());
    }
    let program = dockerd(host)?;
    let place = config.source.run_dir.join("shadow");
    let tried = fresh(&place).map_err(|error| format!("{}: {error}", place.display())).and_then(|()| {
        if validates(&program) {
            validate(&program, &place, text)
        } else {
            shadow(&program, &place, with_arguments(host, &value))
        }
    });
    // What is left of it is removed by the next one.
    let _ = std::fs::remove_dir_all(&place);
    tried.err()
}

/// The program of the daemon that runs, else the installed one; None: there is none to ask.
fn dockerd(host: &Host) -> Option<PathBuf> {
    let docker = host.engine("docker")?;
    let running = docker.processes.iter().map(|daemon| daemon.exe.clone());
    let installed = docker.binaries.keys().filter(|path| path.ends_with("/dockerd")).cloned();
    running.chain(installed).map(|path| host.root.real(&path)).find(|path| path.is_file())
}

fn fresh(place: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(place) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => crate::state::directory(place),
    }
}

/// Whether this dockerd can check a configuration without starting.
fn validates(program: &Path) -> bool {
    let help = Command::new(program).arg("--help").stdin(Stdio::null()).output();
    help.is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains("--validate"))
}

fn validate(program: &Path, place: &Path, text: &[u8]) -> Result<(), String> {
    let path = place.join("daemon.json");
    crate::state::write(&path, text).map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.args(["--validate", "--config-file"]).arg(&path).stdin(Stdio::null());
    let output = command.output().map_err(|error| format!("{}: {error}", program.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stderr, output.stdout].concat();
    Err(format!("dockerd refuses the new configuration: {}", last_line(&String::from_utf8_lossy(&said))))
}

/// The new keys with what the running daemon's arguments say beside them: some values only exclude each other together.
fn with_arguments(host: &Host, value: &Value) -> Map<String, Value> {
    let mut keys: Map<String, Value> = value.as_object().cloned().unwrap_or_default();
    let docker = host.engine("docker");
    for (key, stated) in docker.into_iter().flat_map(|docker| &docker.settings) {
        let Some(argument) = stated.get("argv").filter(|_| !key.contains('.')) else { continue };
        let argument = match argument {
            Setting::Flag(flag) => Value::Bool(*flag),
            Setting::Number(number) => Value::Number((*number).into()),
            Setting::Text(text) => Value::String(text.clone()),
            Setting::List(_) => continue,
        };
        keys.insert(key.clone(), argument);
    }
    keys.retain(|key, _| {
        let own = ["config-file", "host", "tls", "tlsverify", "tlscacert", "tlscert", "tlskey"].contains(&key.as_str());
        !own && !HOSTS_OWN.contains(&key.as_str()) && (contains() || !NETWORK.contains(&key.as_str()))
    });
    keys
}

/// Starts a dockerd that touches nothing of the host, and ends it.
fn shadow(program: &Path, place: &Path, keys: Map<String, Value>) -> Result<(), String> {
    let at = |name: &str| place.join(name);
    let told = |error: std::io::Error| format!("{}: {error}", place.display());
    crate::state::write(&at("daemon.json"), &serde_json::to_vec(&keys).unwrap_or_default()).map_err(told)?;
    let log = std::fs::File::create(at("log")).map_err(told)?;
    let mut command = contained(program);
    command.arg("--config-file").arg(at("daemon.json")).arg("--data-root").arg(at("data"));
    command.arg("--exec-root").arg(at("exec")).arg("--pidfile").arg(at("pid"));
    command.arg("--host").arg(format!("unix://{}", at("s").display()));
    command.args(["--bridge=none", "--storage-driver=vfs"]);
    if !contains() {
        command.args(["--iptables=false", "--ip-forward=false"]);
    }
    let logs = log.try_clone().map_err(told)?;
    let child = command.stdin(Stdio::null()).stdout(logs).stderr(log).spawn();
    let mut child = child.map_err(|error| format!("{}: {error}", program.display()))?;
    let end = Instant::now().checked_add(SHADOW_MAX);
    let outcome = loop {
        match child.try_wait() {
            Ok(None) if answers(&at("s")) => break Ok(()),
            Ok(None) if end.is_some_and(|end| Instant::now() < end) => std::thread::sleep(LOOK_EVERY),
            Ok(None) => break Err("a dockerd with the new configuration did not answer in time".to_owned()),
            Ok(Some(_)) => {
                let said = std::fs::read(at("log")).unwrap_or_default();
                break Err(format!(
                    "dockerd refuses the new configuration: {}",
                    last_line(&String::from_utf8_lossy(&said))
                ));
            }
            Err(error) => break Err(error.to_string()),
        }
    };
    finish(&mut child);
    outcome
}

/// Whether a process can be put into namespaces of its own here, which end with it.
fn contains() -> bool {
    ["/usr/bin/setpriv", "/usr/bin/unshare"].iter().all(|path| Path::new(path).is_file())
}

/// A command in mount, network and process namespaces of its own, which ends with this process; as it is where that cannot be had.
fn contained(program: &Path) -> Command {
    if !contains() {
        return Command::new(program);
    }
    let mut command = Command::new("/usr/bin/setpriv");
    command.args(["--pdeathsig", "KILL", "/usr/bin/unshare"]);
    command.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]).arg(program);
    command
}

/// Whether a daemon answers at a socket.
fn answers(socket: &Path) -> bool {
    use std::io::{Read as _, Write as _};
    let Ok(mut stream) = std::os::unix::net::UnixStream::connect(socket) else { return false };
    let waits = stream.set_read_timeout(Some(Duration::from_secs(5)));
    let asked = waits.and_then(|()| stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n"));
    let mut start = [0u8; 12];
    asked.and_then(|()| stream.read_exact(&mut start)).is_ok() && start.ends_with(b"200")
}

/// Ends a process that was started here, by its id, at last with everything in its namespace.
fn finish(child: &mut Child) {
    let Ok(pid) = i32::try_from(child.id()) else { return };
    if !contains() {
        // It may have ended by itself.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
        let end = Instant::now().checked_add(END_MAX);
        while end.is_some_and(|end| Instant::now() < end) {
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// What a daemon said last, without its time stamps.
fn last_line(said: &str) -> String {
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
    let message = last.split_once("msg=").map_or(last, |(_, message)| message);
    one_line(message)
}
