//! Making what was written hold: daemons read their configuration again, or start again; and whether they then answer.
//!
//! systemctl(1) where systemd runs them, else the commands of `[apply]` in hostd.toml; without either a restart is the operator's. A host is
//! never rebooted and a container never made anew from here. Establishes that a daemon was told and runs; what it made of it is observed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hostmark_attest::manifest::Setting;
use hostmark_attest::profile::{Activate, Part};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::engines::{EnginesConfig, process};
use crate::profile::Host;

/// Longest a restart may take: dockerd restores hundreds of containers in less.
const RESTART_MAX: Duration = Duration::from_secs(120);
/// Longest until a restarted daemon answers.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Longest that none may be seen running before it is taken for ended.
const GONE_MAX: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// `[apply]` in hostd.toml: how daemons are restarted where systemd does not run them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApplyConfig {
    /// The program and arguments that restart a part's daemon: `restart.docker = ["/usr/local/sbin/restart-docker"]`. No shell reads them.
    pub restart: BTreeMap<String, Vec<String>>,
}

/// One thing that is done, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activation {
    /// The part.
    pub part: Part,
    /// What it takes.
    pub step: Activate,
    /// Done, or why it is left to somebody.
    pub outcome: Outcome,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is about to be done.
    Planned,
    /// It was done.
    Done,
    /// It is left to somebody, for this reason.
    Left(String),
    /// It was tried.
    Failed(String),
}

/// A part's daemon: program and unit.
const DAEMONS: [(Part, &str, &str); 5] = [
    (Part::Docker, "dockerd", "docker.service"),
    (Part::Containerd, "containerd", "containerd.service"),
    (Part::Crio, "crio", "crio.service"),
    (Part::Kubelet, "kubelet", "kubelet.service"),
    (Part::Audit, "auditd", "auditd.service"),
];

/// Tells daemons.
#[derive(Debug)]
pub(super) struct Activator<'a> {
    pub(super) engines: &'a EnginesConfig,
    pub(super) apply: &'a ApplyConfig,
    /// Where what commands say is kept.
    pub(super) directory: &'a Path,
}

impl Activator<'_> {
    /// Whether a restart of this part can be done from here; else why not.
    pub(super) fn restarts(&self, part: Part) -> Result<(), String> {
        let Some((_, program, unit)) = DAEMONS.iter().find(|(one, ..)| *one == part) else {
            return Err(format!("{part} has no daemon that is restarted"));
        };
        if self.apply.restart.contains_key(part.name()) || self.systemd_runs(unit) {
            return Ok(());
        }
        if process::pids(self.engines, program).is_empty() {
            return Err(format!("{program} does not run; it starts with the new configuration"));
        }
        Err(format!("restart {program} yourself, or name the command in hostd.toml: [apply] restart.{part} = [\"…\"]"))
    }

    /// Whether systemd has a unit running, of the real host.
    fn systemd_runs(&self, unit: &str) -> bool {
        self.engines.root_is_default()
            && Path::new("/run/systemd/system").is_dir()
            && Command::new("systemctl")
                .args(["is-active", "--quiet", unit])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
    }

    /// Does one step for a part.
    pub(super) fn activate(&self, part: Part, step: Activate) -> Outcome {
        let Some((_, program, unit)) = DAEMONS.iter().find(|(one, ..)| *one == part) else {
            return Outcome::Left(format!("{part} has no daemon"));
        };
        match step {
            Activate::Sighup => self.reload(part, program),
            Activate::EngineRestart => match self.restarts(part) {
                Err(why) => Outcome::Left(why),
                Ok(()) => self.restart(part, program, unit),
            },
            Activate::LoadRules => Outcome::Left("load them with `augenrules --load`".to_owned()),
            Activate::RecreateContainers => {
                Outcome::Left("containers that exist keep the old state until they are made anew".to_owned())
            }
            Activate::Reboot => Outcome::Left("it holds after the next start of the host".to_owned()),
        }
    }

    fn reload(&self, part: Part, program: &str) -> Outcome {
        match process::pids(self.engines, program).as_slice() {
            [] => Outcome::Left(format!("{program} does not run; it starts with the new configuration")),
            pids => {
                for pid in pids {
                    let sent = i32::try_from(*pid)
                        .map_err(|error| error.to_string())
                        .and_then(|pid| kill(Pid::from_raw(pid), Signal::SIGHUP).map_err(|error| error.to_string()));
                    if let Err(why) = sent {
                        return Outcome::Failed(format!("SIGHUP to {program} of {part}: {why}"));
                    }
                }
                Outcome::Done
            }
        }
    }

    fn restart(&self, part: Part, program: &str, unit: &str) -> Outcome {
        let before: BTreeSet<u32> = process::pids(self.engines, program).into_iter().collect();
        let systemctl = ["systemctl", "restart", unit].map(str::to_owned).to_vec();
        let command = self.apply.restart.get(part.name()).unwrap_or(&systemctl);
        if let Err(why) = self.run(command) {
            return Outcome::Failed(why);
        }
        let end = Instant::now().checked_add(ANSWER_MAX);
        let mut gone = Instant::now().checked_add(GONE_MAX);
        loop {
            let now: BTreeSet<u32> = process::pids(self.engines, program).into_iter().collect();
            if !now.is_empty() {
                gone = Instant::now().checked_add(GONE_MAX);
            }
            if !now.is_empty() && now.is_disjoint(&before) && (part != Part::Docker || docker_answers(self.engines)) {
                return Outcome::Done;
            }
            if end.is_none_or(|end| Instant::now() > end) || gone.is_none_or(|gone| Instant::now() > gone) {
                let what = if now.is_empty() { "does not run" } else { "does not answer" };
                return Outcome::Failed(format!("{program} {what} after its restart"));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Runs a command to its end, its words kept in a file: a daemon that it leaves behind may go on writing there.
    fn run(&self, command: &[String]) -> Result<(), String> {
        let Some((program, arguments)) = command.split_first() else {
            return Err("the command is empty".to_owned());
        };
        let path = self.directory.join("restart.log");
        let start = std::fs::metadata(&path).map_or(0, |meta| meta.len());
        let failed = |why: String| format!("{}: {why}", command.join(" "));
        let log = File::options().append(true).create(true).open(&path).map_err(|error| failed(error.to_string()))?;
        let other = log.try_clone().map_err(|error| failed(error.to_string()))?;
        let spawned = Command::new(program).args(arguments).stdin(Stdio::null()).stdout(log).stderr(other).spawn();
        let mut child = spawned.map_err(|error| failed(error.to_string()))?;
        let end = Instant::now().checked_add(RESTART_MAX);
        loop {
            match child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => {
                    let text = std::fs::read(&path).unwrap_or_default();
                    let said = text.get(usize::try_from(start).unwrap_or(usize::MAX)..).unwrap_or_default();
                    let said = String::from_utf8_lossy(said);
                    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
                    return Err(failed(format!("{status}: {}", hostmark_attest::finding::one_line(last))));
                }
                Ok(None) if end.is_some_and(|end| Instant::now() < end) => std::thread::sleep(LOOK_EVERY),
                Ok(None) => {
                    // It is ended by its id; how that goes changes nothing about the failure.
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(failed(format!("not done after {} s", RESTART_MAX.as_secs())));
                }
                Err(error) => return Err(failed(error.to_string())),
            }
        }
    }
}

fn docker_answers(config: &EnginesConfig) -> bool {
    let host = Host::new(config.clone());
    config.socket().is_none() || live(&host, "version").is_some()
}

/// What the running Docker says of a setting.
pub(super) fn live(host: &Host, setting: &str) -> Option<Setting> {
    host.engine("docker")?.settings.get(setting)?.get("live").cloned()
}

/// Running containers that a restart of a part's daemon would end: with `live-restore` in effect none.
pub(super) fn interrupted(host: &Host, part: Part) -> Result<BTreeSet<String>, String> {
    if part != Part::Docker || live(host, "live-restore") == Some(Setting::Flag(true)) {
        return Ok(BTreeSet::new());
    }
    running(host)
}

/// Running containers of Docker, by name.
pub(super) fn running(host: &Host) -> Result<BTreeSet<String>, String> {
    let Some(inventory) = host.inventory()? else { return Ok(BTreeSet::new()) };
    let docker = inventory.engines.get("docker");
    let running = docker.into_iter().flat_map(|docker| docker.containers.values());
    Ok(running.filter(|one| one.state == "running").map(|one| one.name.clone()).collect())
}
