//! The containers of a host: Docker's by its API, those of containerd and of a runc that nobody asked for by their OCI bundles.
//!
//! Docker Engine API `GET /containers/json`, `/containers/{id}/json`, `/volumes/{name}`; OCI runtime specification, `config.json`. Establishes
//! what each container shares with the host and has mounted of it, whatever its state. containerd states its containers by gRPC, which is not
//! spoken here: of those only what has a task (was started and not removed) is seen, by its bundle below /run. A bundle says what a container
//! was started with as long as nobody edits it afterwards, which takes root on the host; nothing here holds against that.
//!
//! What cannot be read, is cut or is not understood is stated as unreadable: a container of which nothing is known is none that is harmless.

mod bundles;
mod confinement;
mod docker;

use std::collections::BTreeMap;
use std::path::Path;

use hostmark_attest::manifest::{EngineManifest, Unreadable};
use hostmark_attest::workload::{BYTES_MAX, EngineWorkloads, Inventory, LIST_MAX, Mount, VERSION};
use serde_json::Value;

use super::api;
use super::config::EnginesConfig;
use super::files::bounded;
pub use docker::WorkloadCache;

/// The containers of this host. Empty bytes when no engine can have any.
#[must_use]
pub fn inventory(config: &EnginesConfig, manifest: &EngineManifest, cache: &mut WorkloadCache) -> Vec<u8> {
    let mut engines = BTreeMap::new();
    let runs = |name: &str| manifest.engines.get(name).is_some_and(|engine| !engine.processes.is_empty());
    let enabled = |name: &str| config.enabled.iter().any(|enabled| enabled == name);
    let tasks = enabled("containerd").then(|| bundles::Tasks::list(&config.root));
    let docker =
        config.socket().filter(|_| enabled("docker")).and_then(|socket| docker::told(&socket, runs("docker"), cache));
    let containerd = tasks.map(|tasks| tasks.read(docker.as_ref()));
    if let Some(docker) = docker {
        engines.insert("docker".to_owned(), docker);
    }
    let some = |workloads: &EngineWorkloads| !workloads.containers.is_empty() || !workloads.unreadable.is_empty();
    if let Some(containerd) = containerd.filter(|containerd| runs("containerd") || some(containerd)) {
        engines.insert("containerd".to_owned(), containerd);
    }
    let (podman, by_hand) = bundles::by_runc(&config.root);
    for (name, workloads) in [("podman", podman), ("runc", by_hand)] {
        if some(&workloads) {
            engines.insert(name.to_owned(), workloads);
        }
    }
    if engines.is_empty() {
        return Vec::new();
    }
    let mut inventory = Inventory { version: VERSION, engines };
    let bytes = inventory.to_canonical();
    if bytes.len() <= BYTES_MAX {
        return bytes;
    }
    for workloads in inventory.engines.values_mut() {
        workloads.containers.clear();
        unreadable(workloads, "containers", "they need more than an inventory may hold");
    }
    inventory.to_canonical()
}

fn unreadable(workloads: &mut EngineWorkloads, what: &str, why: &str) {
    if workloads.unreadable.len() < LIST_MAX {
        workloads.unreadable.insert(Unreadable { what: bounded(what), why: why.to_owned() });
    }
}

/// The list at a place of an answer. None there, or `null`, is an empty one; anything else is no list, and an unknown one.
fn list<'v>(value: &'v Value, pointer: &str) -> Result<&'v [Value], &'static str> {
    match value.pointer(pointer) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(list)) if list.len() <= LIST_MAX => Ok(list),
        Some(Value::Array(_)) => Err("a list of it is longer than an inventory may hold"),
        Some(_) => Err("what should be a list of it is none"),
    }
}

fn text<'v>(value: &'v Value, pointer: &str) -> Option<&'v str> {
    value.pointer(pointer).and_then(Value::as_str)
}

/// Without `CAP_`, in capitals: engines write both.
fn capability(name: &str) -> String {
    let name = name.to_ascii_uppercase();
    bounded(name.strip_prefix("CAP_").unwrap_or(&name))
}

/// Where the kernel's own file systems belong. A container's own /proc and /sys are of its namespaces; one that an engine mounts for it is
/// the host's.
const KERNEL_FILE_SYSTEMS: [(&str, &str); 16] = [
    ("binfmt_misc", "/proc/sys/fs/binfmt_misc"),
    ("bpf", "/sys/fs/bpf"),
    ("cgroup", "/sys/fs/cgroup"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("configfs", "/sys/kernel/config"),
    ("debugfs", "/sys/kernel/debug"),
    ("devpts", "/dev/pts"),
    ("devtmpfs", "/dev"),
    ("efivarfs", "/sys/firmware/efi/efivars"),
    ("mqueue", "/dev/mqueue"),
    ("proc", "/proc"),
    ("pstore", "/sys/fs/pstore"),
    ("securityfs", "/sys/kernel/security"),
    ("selinuxfs", "/sys/fs/selinux"),
    ("sysfs", "/sys"),
    ("tracefs", "/sys/kernel/tracing"),
];
/// Options of overlayfs that name directories.
const LAYERS: [&str; 5] = ["lowerdir", "lowerdir+", "datadir+", "upperdir", "workdir"];

/// The host's paths that a mount of this kind shows: what is bound, a device, the layers of an overlay. mount(8), `overlayfs.rst`. A relative
/// path starts at the root, where daemons live.
fn reached<'o>(kind: &str, source: &str, options: impl Iterator<Item = &'o str>) -> Vec<String> {
    let absolute = |path: &str| bounded(&format!("/{}", path.trim_start_matches('/')));
    let mut paths = Vec::new();
    let mut bound = kind == "bind";
    for option in options {
        bound |= matches!(option, "bind" | "rbind");
        if let Some((_, layers)) = option.split_once('=').filter(|(name, _)| LAYERS.contains(name)) {
            paths.extend(layers.split(':').filter(|path| !path.is_empty()).map(&absolute));
        }
    }
    if bound || source.starts_with('/') {
        paths.push(absolute(source));
    }
    paths
}

/// The same with the place to which its links lead now.
fn resolved(mount: Mount) -> Mount {
    let end = std::fs::canonicalize(Path::new(&mount.source)).ok().map(|end| end.to_string_lossy().into_owned());
    let leads_to = end.filter(|end| *end != mount.source).map(|end| bounded(&end));
    Mount { leads_to, ..mount }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e9_a_mount_shows_what_it_is_made_of() {
        for (kind, source, options, expect) in [
            ("none", "/srv/data", "bind", &["/srv/data"][..]),
            ("none", "etc", "rw,rbind", &["/etc"]),
            ("bind", "/etc", "", &["/etc"]),
            ("ext4", "/dev/sda1", "ro", &["/dev/sda1"]),
            ("overlay", "overlay", "lowerdir=/etc:/srv/a,upperdir=/u,workdir=/w", &["/etc", "/srv/a", "/u", "/w"]),
            ("overlay", "overlay", "lowerdir+=/etc,datadir+=/usr", &["/etc", "/usr"]),
            ("tmpfs", "tmpfs", "size=1m,mode=755", &[]),
            ("nfs", ":/export", "addr=10.0.0.1,rw", &[]),
            ("proc", "proc", "nosuid", &[]),
        ] {
            assert_eq!(reached(kind, source, options.split(',')), expect, "{kind} {source} {options}");
        }
    }
}
