//! The workload inventory: the containers of a host and what each can reach of it, as canonical JSON.
//!
//! Hostmark's own format (DESIGN §4, "platform facts, workload inventory"). hostd writes it, the quote is bound to its bytes. It establishes
//! what hostd says of the containers at one moment, whatever their state: one that is stopped may be started by its restart policy. It does
//! not establish that there are no others: hostd sees what the engines' own interfaces and state directories show.

mod confinement;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::bytes::{ParseError, Problem};
use crate::manifest::{TEXT_MAX, Unreadable};

pub use confinement::Confinement;

/// The format's version.
pub const VERSION: u32 = 1;
/// Most bytes of an inventory.
pub const BYTES_MAX: usize = 1 << 20;
/// Most containers of one engine: a host runs some hundred.
pub const CONTAINERS_MAX: usize = 1024;
/// Most entries of a container's lists.
pub const LIST_MAX: usize = 256;

/// What a container shares with the host or reaches on it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// Its name; its id where it has none.
    pub name: String,
    /// Id of its image, or its name where the engine gives no id.
    pub image: String,
    /// `created`, `running`, `paused`, `exited`…
    pub state: String,
    /// When the engine starts it by itself: `no`, `always`, `unless-stopped`, `on-failure`.
    pub restart: String,
    /// The OCI runtime that runs it, as the engine names it.
    pub runtime: String,
    /// Every capability, every device, no confinement.
    pub privileged: bool,
    /// Namespaces of the host that it lives in: `cgroup`, `ipc`, `mount`, `network`, `pid`, `user` (only where the engine was told so), `uts`.
    pub host_namespaces: BTreeSet<String>,
    /// What it has mounted of the host's file system.
    pub mounts: BTreeSet<Mount>,
    /// Capabilities that it was given (Docker: beyond the engine's own set; bundles: all), without `CAP_`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub capabilities: BTreeSet<String>,
    /// Devices that it may open, as cgroups name them: `b 8:* rwm`. Those that every engine grants are left out.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub device_rules: BTreeSet<String>,
    /// It may write what engines keep read-only: `/proc/sys`, `/proc/sysrq-trigger`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub system_paths: bool,
    /// How it is confined, where its engine states that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confinement: Option<Confinement>,
}

/// A part of the host's file system inside a container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// The host's path as it was asked for.
    pub source: String,
    /// Where that path leads after every link, when that is elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leads_to: Option<String>,
    /// Where it lies in the container.
    pub destination: String,
    /// Whether the container may write there.
    pub writable: bool,
}

/// The containers of one engine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineWorkloads {
    /// By id.
    pub containers: BTreeMap<String, Container>,
    /// What could not be read, and so is not known to be harmless.
    pub unreadable: BTreeSet<Unreadable>,
}

/// The containers of one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inventory {
    /// [`VERSION`].
    pub version: u32,
    /// By engine: `docker`, `containerd`, `runc` (started by hand, without an engine).
    pub engines: BTreeMap<String, EngineWorkloads>,
}

impl Inventory {
    /// The canonical bytes: compact JSON, fields in the order of the types, maps in the order of their keys.
    #[must_use]
    pub fn to_canonical(&self) -> Vec<u8> {
        // Text keys and no custom failing serializer: serde_json cannot fail here, and an empty inventory never parses.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads an inventory that a host sent.
    ///
    /// # Errors
    /// Not exactly the canonical bytes of an inventory within the limits.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        if bytes.len() > BYTES_MAX {
            return Err(over("workload inventory bytes", bytes.len(), BYTES_MAX));
        }
        let malformed = |at, what| ParseError { at, problem: Problem::Malformed { what } };
        let inventory: Self = serde_json::from_slice(bytes).map_err(|error| {
            malformed(error.column().saturating_sub(1), "the workload inventory is not the agreed JSON")
        })?;
        if inventory.version != VERSION {
            return Err(malformed(0, "the workload inventory has another version"));
        }
        inventory.within_limits()?;
        let canonical = inventory.to_canonical();
        if canonical != bytes {
            let at = canonical.iter().zip(bytes).take_while(|(ours, theirs)| ours == theirs).count();
            return Err(malformed(at, "the workload inventory is not canonical"));
        }
        Ok(inventory)
    }

    fn within_limits(&self) -> Result<(), ParseError> {
        limit("engines of an inventory", self.engines.len(), LIST_MAX)?;
        for engine in self.engines.values() {
            limit("containers of an engine", engine.containers.len(), CONTAINERS_MAX)?;
            limit("unreadable parts of an engine", engine.unreadable.len(), LIST_MAX)?;
            for (id, container) in &engine.containers {
                limit("namespaces of a container", container.host_namespaces.len(), LIST_MAX)?;
                limit("mounts of a container", container.mounts.len(), LIST_MAX)?;
                limit("capabilities of a container", container.capabilities.len(), LIST_MAX)?;
                limit("device rules of a container", container.device_rules.len(), LIST_MAX)?;
                container.confinement.as_ref().map_or(Ok(()), Confinement::within_limits)?;
                let texts =
                    [id, &container.name, &container.image, &container.state, &container.restart, &container.runtime];
                let texts = texts.into_iter().chain(&container.capabilities).chain(&container.device_rules);
                let mounts = container.mounts.iter().flat_map(|mount| {
                    [Some(&mount.source), mount.leads_to.as_ref(), Some(&mount.destination)].into_iter().flatten()
                });
                for text in texts.chain(mounts) {
                    limit("bytes of a text", text.len(), TEXT_MAX)?;
                }
            }
        }
        Ok(())
    }
}

fn over(what: &'static str, found: usize, limit: usize) -> ParseError {
    let wide = |count| u64::try_from(count).unwrap_or(u64::MAX);
    ParseError { at: 0, problem: Problem::OverLimit { what, found: wide(found), limit: wide(limit) } }
}

fn limit(what: &'static str, found: usize, most: usize) -> Result<(), ParseError> {
    if found > most { Err(over(what, found, most)) } else { Ok(()) }
}

/// Directories whose content rules a host, with all below them. Programs and libraries have two places on a host whose /usr is not merged;
/// cron's tables make programs of text; bundles say what a container may do.
const RULING: [&str; 22] = [
    "/bin",
    "/boot",
    "/dev",
    "/efi",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/proc",
    "/root",
    "/run/containerd/io.containerd.runtime.v2.task",
    "/run/dbus",
    "/run/docker/runtime-runc",
    "/run/runc",
    "/run/systemd",
    "/run/udev",
    "/sbin",
    "/sys",
    "/usr",
    "/var/lib",
    "/var/spool/cron",
];
/// Sockets through which a container orders others.
const SOCKETS: [&str; 7] = [
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/docker.sock",
    "/run/docker/containerd/containerd.sock",
    "/run/dockershim.sock",
    "/run/podman/podman.sock",
    "/run/user",
];

/// Why a host path inside a container lets it rule the host; None where it does not.
#[must_use]
pub fn sensitive(path: &str) -> Option<&'static str> {
    let path = plain(path);
    // /var/run is /run on every system that has systemd.
    let path = match path.strip_prefix("/var/run") {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("/run{rest}"),
        _ => path,
    };
    if path.is_empty() {
        return Some("/");
    }
    let below = |outer: &str, inner: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let holds = |one: &&&str| below(one, &path) || below(&path, one);
    SOCKETS.iter().find(holds).or_else(|| RULING.iter().find(holds)).copied()
}

/// Without `.`, `..` and doubled slashes, as text: where links lead is the host's to say. The root is empty.
fn plain(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.into_iter().map(|part| format!("/{part}")).collect()
}

/// Capabilities of which one alone is enough to rule the host, or to speak in its name (capabilities(7)). No engine gives any of them.
const RULING_CAPABILITIES: [&str; 15] = [
    "ALL",
    "BPF",
    "CHECKPOINT_RESTORE",
    "DAC_READ_SEARCH",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "NET_ADMIN",
    "PERFMON",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_MODULE",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_TIME",
];

/// Whether a container with this capability (without `CAP_`) may rule the host.
#[must_use]
pub fn rules_by_capability(name: &str) -> bool {
    RULING_CAPABILITIES.contains(&name)
}

/// Character devices that engines grant every container: null, zero, full, random, urandom, tty, console, ptmx, ptys, tun.
const USUAL_DEVICES: [(&str, &str); 10] = [
    ("1", "3"),
    ("1", "5"),
    ("1", "7"),
    ("1", "8"),
    ("1", "9"),
    ("5", "0"),
    ("5", "1"),
    ("5", "2"),
    ("136", "*"),
    ("10", "200"),
];

/// Whether a rule of the devices cgroup (`type major:minor access`) opens more than engines grant every container. To make a node
/// (`m` alone) opens nothing. What is no such rule opens everything.
#[must_use]
pub fn rules_by_device(rule: &str) -> bool {
    let mut words = rule.split(' ');
    let (Some(kind), Some(number), Some(access), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return true;
    };
    let Some((major, minor)) = number.split_once(':') else { return true };
    access != "m" && !(kind == "c" && USUAL_DEVICES.contains(&(major, minor)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rules_the_host_is_named() {
        for (path, expect) in [
            ("/", Some("/")),
            ("//", Some("/")),
            ("/etc", Some("/etc")),
            ("/etc/", Some("/etc")),
            ("/etc/ssl", Some("/etc")),
            ("/etcetera", None),
            ("/proc/1", Some("/proc")),
            ("/var", Some("/var/lib")),
            ("/var/lib/kubelet", Some("/var/lib")),
            ("/var/log", None),
            ("/var/run/docker.sock", Some("/run/docker.sock")),
            ("/var/run", Some("/run/containerd/containerd.sock")),
            ("/var/running", None),
            ("/run/containerd", Some("/run/containerd/containerd.sock")),
            ("/srv/data", None),
            ("/home/app", None),
            ("//etc", Some("/etc")),
            ("/srv/../etc/./ssl", Some("/etc")),
            ("/..", Some("/")),
            ("/run/systemd/private", Some("/run/systemd")),
            ("/run/dbus/system_bus_socket", Some("/run/dbus")),
            ("/run/udev", Some("/run/udev")),
            ("/var/spool/cron/crontabs", Some("/var/spool/cron")),
            ("/var/spool/mail", None),
            ("/sbin", Some("/sbin")),
            ("/lib64/ld-linux-x86-64.so.2", Some("/lib64")),
            ("/library", None),
            ("/run/runc/x", Some("/run/runc")),
        ] {
            assert_eq!(sensitive(path), expect, "{path}");
        }
    }

    #[test]
    fn a_capability_or_a_device_is_told_from_an_engines_own() {
        for (name, expect) in [("CHOWN", false), ("NET_RAW", false), ("SYS_ADMIN", true), ("BPF", true), ("", false)] {
            assert_eq!(rules_by_capability(name), expect, "{name}");
        }
        for (rule, expect) in [
            ("c 1:3 rwm", false),
            ("c 136:* rwm", false),
            ("c *:* m", false),
            ("b *:* m", false),
            ("b 8:0 r", true),
            ("c 1:1 rwm", true),
            ("c *:* rwm", true),
            ("a *:* rwm", true),
            ("b 1:3 rwm", true),
            ("c 1:3", true),
            ("", true),
        ] {
            assert_eq!(rules_by_device(rule), expect, "{rule}");
        }
    }

    #[test]
    fn canonical_bytes_come_back_and_nothing_else_does() {
        let mount = Mount { source: "/srv".into(), leads_to: None, destination: "/data".into(), writable: true };
        let container = Container { name: "web".into(), mounts: [mount].into(), ..Container::default() };
        let docker = EngineWorkloads { containers: [("1".to_owned(), container)].into(), ..EngineWorkloads::default() };
        let inventory = Inventory { version: VERSION, engines: [("docker".to_owned(), docker)].into() };
        let bytes = inventory.to_canonical();
        assert_eq!(Inventory::parse(&bytes).unwrap(), inventory);
        let good = String::from_utf8(bytes).unwrap();
        for bad in [
            good.replacen(':', ": ", 1),
            good.replacen("\"version\":1", "\"version\":2", 1),
            good.replacen("\"privileged\"", "\"x\":1,\"privileged\"", 1),
            good.replacen("web", &"w".repeat(TEXT_MAX + 1), 1),
            String::new(),
        ] {
            assert!(Inventory::parse(bad.as_bytes()).is_err(), "{bad:.60}");
        }
    }
}
