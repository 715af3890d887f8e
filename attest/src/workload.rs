//! The workload inventory: the containers of a host and what each can reach of it, as canonical JSON.
//!
//! Hostmark's own format (DESIGN §4, "platform facts, workload inventory"). hostd writes it, the quote is bound to its bytes. It establishes
//! what hostd says of the containers at one moment, whatever their state: one that is stopped may be started by its restart policy. It does
//! not establish that there are no others: hostd sees what the engines' own interfaces and state directories show.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::bytes::{ParseError, Problem};
use crate::manifest::{TEXT_MAX, Unreadable};

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
                let texts =
                    [id, &container.name, &container.image, &container.state, &container.restart, &container.runtime];
                let mounts = container.mounts.iter().flat_map(|mount| {
                    [Some(&mount.source), mount.leads_to.as_ref(), Some(&mount.destination)].into_iter().flatten()
                });
                for text in texts.into_iter().chain(mounts) {
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

/// Directories whose content rules a host, with all below them.
const RULING: [&str; 8] = ["/boot", "/dev", "/etc", "/proc", "/root", "/sys", "/usr", "/var/lib"];
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
    // /var/run is /run on every system that has systemd.
    let path = path
        .strip_prefix("/var/run")
        .filter(|rest| rest.is_empty() || rest.starts_with('/'))
        .map_or_else(|| path.trim_end_matches('/').to_owned(), |rest| format!("/run{}", rest.trim_end_matches('/')));
    if path.is_empty() {
        return Some("/");
    }
    let below = |outer: &str, inner: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let holds = |one: &&&str| below(one, &path) || below(&path, one);
    SOCKETS.iter().find(holds).or_else(|| RULING.iter().find(holds)).copied()
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
        ] {
            assert_eq!(sensitive(path), expect, "{path}");
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
