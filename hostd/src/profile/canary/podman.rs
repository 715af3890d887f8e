//! Podman as a canary's engine: its command line, as an administrator's root uses it.
//!
//! podman-run(1), podman-import(1), podman-inspect(1). It has no daemon, so what its files say takes effect here. Its environment is made anew: what
//! hostd itself was started with points it nowhere.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hostmark_attest::finding::one_line;
use serde_json::Value;

use super::engine::{Ask, Engine, Inspected, LABEL, Made, Told, Words};

/// Where programs are.
const DIRECTORIES: [&str; 3] = ["/usr/bin", "/usr/local/bin", "/bin"];
/// Most of what one call may say.
const ANSWER_MAX: u64 = 1 << 20;
/// Between two looks at whether a call has ended.
const PAUSE: Duration = Duration::from_millis(10);
/// How Podman says that there is nothing to remove.
const NOTHING: [&str; 5] = ["no such", "not found", "not known", "does not exist", "unable to find"];

/// Podman at a path.
#[derive(Debug)]
pub(super) struct Podman {
    program: PathBuf,
    /// A policy that lets the canary's own image in, whatever the host's says of others.
    policy: PathBuf,
}

impl Podman {
    /// The installed one.
    pub(super) fn installed(notes: &Path) -> Option<Self> {
        let program =
            DIRECTORIES.iter().map(|directory| Path::new(directory).join("podman")).find(|path| path.is_file())?;
        Some(Self { program, policy: notes.join("policy.json") })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).env_clear().env("HOME", "/root").env("LC_ALL", "C");
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// One call, until its end; what it said.
    fn call(&self, arguments: &[&str], input: Option<&[u8]>, end: Instant) -> Told<String> {
        let problem = |error: std::io::Error| format!("{}: {error}", self.program.display());
        let mut command = self.command(arguments);
        let (mut reader, writer) = std::io::pipe().map_err(problem)?;
        command.stdout(writer.try_clone().map_err(problem)?).stderr(writer);
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = command.spawn().map_err(problem)?;
        // Its ends of the pipe go with it.
        drop(command);
        let said = std::thread::spawn(move || {
            let mut said = Vec::new();
            let _ = reader.by_ref().take(ANSWER_MAX).read_to_end(&mut said);
            String::from_utf8_lossy(&said).into_owned()
        });
        if let (Some(mut pipe), Some(input)) = (child.stdin.take(), input) {
            pipe.write_all(input).map_err(problem)?;
        }
        let status = loop {
            if let Some(status) = child.try_wait().map_err(problem)? {
                break status;
            }
            if Instant::now() >= end {
                let _ = child.kill();
                let _ = child.wait();
                return Err("Podman did not end in time".to_owned());
            }
            std::thread::sleep(PAUSE);
        };
        let said = said.join().unwrap_or_default();
        if status.success() { Ok(said) } else { Err(one_line(&format!("Podman refuses: {}", said.trim()))) }
    }
}

impl Engine for Podman {
    fn name(&self) -> &'static str {
        "podman"
    }

    fn import(&self, image: &str, archive: &[u8], end: Instant) -> Told<()> {
        crate::state::write(&self.policy, br#"{"default":[{"type":"insecureAcceptAnything"}]}"#)
            .map_err(|error| format!("{}: {error}", self.policy.display()))?;
        let policy = self.policy.display().to_string();
        self.call(&["import", "--quiet", "--signature-policy", &policy, "-", image], Some(archive), end).map(drop)
    }

    fn start(&self, image: &str, run: &str, ask: &Ask<'_>, _: Instant) -> Told<Words> {
        let problem = |error: std::io::Error| format!("{}: {error}", self.program.display());
        let (label, memory) = (format!("{LABEL}={run}"), ask.memory_of.map(|other| format!("container:{other}")));
        let port = ask.publish.map(|port| port.to_string());
        let mut arguments = vec!["run", "--rm", "--pull=never", "--name", ask.name, "--label", &label];
        let options = [("--network", ask.network), ("--ipc", memory.as_deref()), ("--publish", port.as_deref())];
        for (option, value) in options {
            arguments.extend(value.into_iter().flat_map(|value| [option, value]));
        }
        if ask.privileged {
            arguments.extend(["--privileged", "--userns=host"]);
        }
        arguments.push(image);
        arguments.extend(ask.command);
        let (reader, writer) = std::io::pipe().map_err(problem)?;
        let mut command = self.command(&arguments);
        if let Some(variable) = ask.variable {
            command.env(variable, "1");
        }
        command.stdin(Stdio::null()).stdout(writer.try_clone().map_err(problem)?).stderr(writer);
        let child = command.spawn().map_err(problem)?;
        drop(command);
        Ok(Words::of(reader).with(child))
    }

    fn inspect(&self, name: &str, end: Instant) -> Told<Inspected> {
        let said = self.call(&["inspect", "--type", "container", name], None, end)?;
        let answer: Value = serde_json::from_str(&said).map_err(|_| "Podman's answer is not JSON".to_owned())?;
        let text = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
        let pid = answer.pointer("/0/State/Pid").and_then(Value::as_u64).and_then(|pid| u32::try_from(pid).ok());
        let networks = answer.pointer("/0/NetworkSettings/Networks").and_then(Value::as_object);
        let address = networks
            .into_iter()
            .flat_map(|networks| networks.values())
            .find_map(|network| network.get("IPAddress").and_then(Value::as_str).filter(|address| !address.is_empty()));
        let ports = answer.pointer("/0/NetworkSettings/Ports").and_then(Value::as_object);
        let bindings = ports.into_iter().flat_map(|ports| ports.values()).filter_map(Value::as_array).flatten();
        let binding = |binding: &Value| {
            let port = binding.get("HostPort")?.as_str()?.parse().ok()?;
            let address = binding.get("HostIp").and_then(Value::as_str).filter(|address| !address.is_empty());
            Some((address.unwrap_or("0.0.0.0").to_owned(), port))
        };
        Ok(Inspected {
            id: text("/0/Id").unwrap_or_default().to_owned(),
            pid: pid.filter(|pid| *pid > 0).ok_or("Podman names no process of the container")?,
            address: address.map(str::to_owned),
            published: bindings.filter_map(binding).collect(),
            log_driver: text("/0/HostConfig/LogConfig/Type").unwrap_or_default().to_owned(),
            log_path: text("/0/HostConfig/LogConfig/Path").map(str::to_owned),
        })
    }

    fn log(&self, name: &str, end: Instant) -> Told<String> {
        self.call(&["logs", name], None, end)
    }

    fn network(&self, name: &str, run: &str, end: Instant) -> Told<()> {
        self.call(&["network", "create", "--label", &format!("{LABEL}={run}"), name], None, end).map(drop)
    }

    fn remove(&self, what: &Made, end: Instant) -> Told<()> {
        let arguments = match what {
            Made::Container(name) => vec!["rm", "--force", "--time", "0", "--volumes", name],
            Made::Network(name) => vec!["network", "rm", name],
            Made::Image(name) => vec!["rmi", "--force", name],
        };
        match self.call(&arguments, None, end) {
            Err(why) if NOTHING.iter().any(|words| why.to_ascii_lowercase().contains(words)) => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    fn fetch(&self, image: &str, end: Instant) -> Told<bool> {
        match self.call(&["pull", "--quiet", "--tls-verify=false", image], None, end) {
            Ok(_) => Ok(true),
            Err(why) if why.contains("rejected by policy") || why.contains("ignature") => Ok(false),
            Err(why) => Err(why),
        }
    }
}
