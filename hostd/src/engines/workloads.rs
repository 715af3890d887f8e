//! The containers of a host: Docker's by its API, those of containerd and of a runc that nobody asked for by their OCI bundles.
//!
//! Docker Engine API `GET /containers/json`, `/containers/{id}/json`, `/volumes`; OCI runtime specification, `config.json`. Establishes what
//! each container shares with the host and has mounted of it, whatever its state. containerd states its containers by gRPC, which is not
//! spoken here: of those only what has a task (was started and not removed) is seen, by its bundle below /run.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use hostmark_attest::manifest::{EngineManifest, Unreadable};
use hostmark_attest::workload::{
    BYTES_MAX, CONTAINERS_MAX, Container, EngineWorkloads, Inventory, LIST_MAX, Mount, VERSION,
};
use serde_json::Value;

use super::api;
use super::config::EnginesConfig;
use super::files::bounded;
use crate::state;

/// Largest `config.json` of a bundle: an engine's own has some 10 kB.
const BUNDLE_MAX: u64 = 1 << 20;
/// containerd's tasks, by namespace.
const TASKS: &str = "run/containerd/io.containerd.runtime.v2.task";
/// Where runc keeps the state of containers that no engine gave it another directory for.
const RUNC: &str = "run/runc";
/// Podman's containers: with runc it keeps their state in [`RUNC`] too.
const PODMAN: &str = "var/lib/containers/storage/overlay-containers";

/// What Docker said of containers, by id: everything but the state is fixed when a container is made, but for its restart policy, which changes
/// with an event that forgets this.
#[derive(Debug, Default)]
pub struct WorkloadCache(HashMap<String, (Container, Vec<(String, Mount)>)>);

impl WorkloadCache {
    /// Asks for everything again next time.
    pub fn forget(&mut self) {
        self.0.clear();
    }
}

/// The containers of this host. Empty bytes when no engine can have any.
#[must_use]
pub fn inventory(config: &EnginesConfig, manifest: &EngineManifest, cache: &mut WorkloadCache) -> Vec<u8> {
    let mut engines = BTreeMap::new();
    let runs = |name: &str| manifest.engines.get(name).is_some_and(|engine| !engine.processes.is_empty());
    let enabled = |name: &str| config.enabled.iter().any(|enabled| enabled == name);
    let docker =
        config.socket().filter(|_| enabled("docker")).and_then(|socket| docker(&socket, runs("docker"), cache));
    let told_by_docker = docker.as_ref().is_some_and(|docker| docker.unreadable.is_empty());
    if let Some(docker) = docker {
        engines.insert("docker".to_owned(), docker);
    }
    if enabled("containerd") {
        let containerd = tasks(&config.root, told_by_docker);
        if runs("containerd") || !containerd.containers.is_empty() {
            engines.insert("containerd".to_owned(), containerd);
        }
    }
    let (podman, by_hand) = by_runc(&config.root);
    for (name, workloads) in [("podman", podman), ("runc", by_hand)] {
        if !workloads.containers.is_empty() {
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

/// Docker's containers, running or not. None when no daemon is there to have any.
fn docker(socket: &Path, runs: bool, cache: &mut WorkloadCache) -> Option<EngineWorkloads> {
    let mut workloads = EngineWorkloads::default();
    let listed = match api::get(socket, "/containers/json?all=1") {
        Ok(listed) => listed,
        Err(_) if !runs => return None,
        Err(why) => {
            unreadable(&mut workloads, &format!("api:{}", socket.display()), why);
            return Some(workloads);
        }
    };
    let listed = listed.as_array().map(Vec::as_slice).unwrap_or_default();
    if listed.len() > CONTAINERS_MAX {
        unreadable(&mut workloads, "containers", "there are more than an inventory may hold");
    }
    let ids: BTreeSet<&str> = listed.iter().filter_map(|one| text(one, "/Id")).collect();
    cache.0.retain(|id, _| ids.contains(id.as_str()));
    let mut volumes = None;
    for one in listed.iter().take(CONTAINERS_MAX) {
        let Some(id) = text(one, "/Id").filter(|id| id.bytes().all(|byte| byte.is_ascii_hexdigit())) else { continue };
        if !cache.0.contains_key(id) {
            match api::get(socket, &format!("/containers/{id}/json")) {
                Ok(inspected) => {
                    cache.0.insert(id.to_owned(), from_docker(&inspected));
                }
                // Gone between two requests: the next inventory does not list it.
                Err("the request was refused") => continue,
                Err(why) => unreadable(&mut workloads, id, why),
            }
        }
        let Some((container, of_volumes)) = cache.0.get(id) else { continue };
        let mut container = Container { state: bounded(text(one, "/State").unwrap_or_default()), ..container.clone() };
        for (volume, mount) in of_volumes {
            let devices = volumes.get_or_insert_with(|| devices(socket));
            if let Some(device) = devices.get(volume).filter(|_| container.mounts.len() < LIST_MAX) {
                container.mounts.insert(Mount { source: device.clone(), ..mount.clone() });
            }
        }
        container.mounts = container.mounts.into_iter().map(resolved).collect();
        workloads.containers.insert(bounded(id), container);
    }
    Some(workloads)
}

/// Volumes that are a directory of the host under another name.
fn devices(socket: &Path) -> BTreeMap<String, String> {
    let answer = api::get(socket, "/volumes").unwrap_or_default();
    let volumes = answer.get("Volumes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let named = volumes.iter().filter_map(|volume| {
        let device = text(volume, "/Options/device").filter(|device| device.starts_with('/'))?;
        Some((text(volume, "/Name")?.to_owned(), bounded(device)))
    });
    named.collect()
}

/// What a container was made with, and its volumes by name.
fn from_docker(inspected: &Value) -> (Container, Vec<(String, Mount)>) {
    let string = |pointer: &str| bounded(text(inspected, pointer).unwrap_or_default());
    let list =
        |pointer: &str| inspected.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let all =
        list("/HostConfig/CapAdd").iter().filter_map(Value::as_str).any(|one| matches!(one, "ALL" | "CAP_ALL" | "all"));
    let modes = [
        ("ipc", "/HostConfig/IpcMode"),
        ("network", "/HostConfig/NetworkMode"),
        ("pid", "/HostConfig/PidMode"),
        ("user", "/HostConfig/UsernsMode"),
        ("uts", "/HostConfig/UTSMode"),
        ("cgroup", "/HostConfig/CgroupnsMode"),
    ];
    let host = |(name, pointer): &(&str, &str)| {
        // With the legacy hierarchy every container is in the host's cgroup namespace unless it is told otherwise.
        text(inspected, pointer) == Some("host")
            && (*name != "cgroup" || Path::new("/sys/fs/cgroup/cgroup.controllers").exists())
    };
    let restart = Some(string("/HostConfig/RestartPolicy/Name")).filter(|name| !name.is_empty());
    let mut container = Container {
        name: string("/Name").trim_start_matches('/').to_owned(),
        image: string("/Image"),
        state: string("/State/Status"),
        restart: restart.unwrap_or_else(|| "no".to_owned()),
        runtime: string("/HostConfig/Runtime"),
        privileged: all || inspected.pointer("/HostConfig/Privileged") == Some(&Value::Bool(true)),
        host_namespaces: modes.iter().filter(|mode| host(mode)).map(|(name, _)| (*name).to_owned()).collect(),
        mounts: BTreeSet::new(),
    };
    let mut volumes = Vec::new();
    for mount in list("/Mounts").iter().take(LIST_MAX) {
        let mounted = Mount {
            source: bounded(text(mount, "/Source").unwrap_or_default()),
            leads_to: None,
            destination: bounded(text(mount, "/Destination").unwrap_or_default()),
            writable: mount.get("RW") != Some(&Value::Bool(false)),
        };
        match (text(mount, "/Type"), text(mount, "/Name")) {
            (Some("bind"), _) => {
                container.mounts.insert(mounted);
            }
            (Some("volume"), Some(name)) => volumes.push((name.to_owned(), mounted)),
            _ => {}
        }
    }
    for device in list("/HostConfig/Devices").iter().take(LIST_MAX.saturating_sub(container.mounts.len())) {
        container.mounts.insert(Mount {
            source: bounded(text(device, "/PathOnHost").unwrap_or_default()),
            leads_to: None,
            destination: bounded(text(device, "/PathInContainer").unwrap_or_default()),
            writable: text(device, "/CgroupPermissions").is_none_or(|allowed| allowed.contains('w')),
        });
    }
    (container, volumes)
}

/// containerd's tasks, by their bundles. Docker's own are left out when Docker told of them.
fn tasks(root: &Path, told_by_docker: bool) -> EngineWorkloads {
    let mut workloads = EngineWorkloads::default();
    for namespace in names(&root.join(TASKS)) {
        if namespace == "moby" && told_by_docker {
            continue;
        }
        let directory = root.join(TASKS).join(&namespace);
        for id in names(&directory) {
            from_bundle(&format!("{namespace}/{id}"), &directory.join(&id), &mut workloads);
        }
    }
    workloads
}

/// Containers whose state lies where runc puts it when nobody says otherwise: Podman's, and those that were started by hand.
fn by_runc(root: &Path) -> (EngineWorkloads, EngineWorkloads) {
    let (mut podman, mut by_hand) = (EngineWorkloads::default(), EngineWorkloads::default());
    for id in names(&root.join(RUNC)) {
        let workloads = if root.join(PODMAN).join(&id).exists() { &mut podman } else { &mut by_hand };
        let state = json(&root.join(RUNC).join(&id).join("state.json"));
        let labels = state.as_ref().and_then(|state| state.pointer("/config/labels")?.as_array());
        let bundle =
            labels.into_iter().flatten().filter_map(Value::as_str).find_map(|label| label.strip_prefix("bundle="));
        match bundle {
            Some(bundle) => from_bundle(&id, Path::new(bundle), workloads),
            // A directory that is being made or removed, or a bundle that was: there is a container, and nothing more is known.
            None => {
                let container = Container { name: bounded(&id), runtime: "runc".to_owned(), ..Container::default() };
                workloads.containers.insert(bounded(&id), container);
            }
        }
    }
    (podman, by_hand)
}

fn from_bundle(id: &str, bundle: &Path, workloads: &mut EngineWorkloads) {
    if workloads.containers.len() >= CONTAINERS_MAX {
        return unreadable(workloads, "containers", "there are more than an inventory may hold");
    }
    let Some(specification) = json(&bundle.join("config.json")) else {
        return unreadable(workloads, id, "its bundle cannot be read");
    };
    workloads.containers.insert(bounded(id), from_specification(id, &specification));
}

fn from_specification(id: &str, specification: &Value) -> Container {
    let list =
        |pointer: &str| specification.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let capable = |name: &str| list("/process/capabilities/bounding").iter().any(|one| one.as_str() == Some(name));
    let own: BTreeSet<&str> = list("/linux/namespaces")
        .iter()
        // One that is joined by the path of PID 1's is the host's.
        .filter(|one| !text(one, "/path").is_some_and(|path| path.starts_with("/proc/1/")))
        .filter_map(|one| text(one, "/type"))
        .collect();
    let host = ["ipc", "mount", "network", "pid", "uts"].into_iter().filter(|name| !own.contains(name));
    let bound = |mount: &&Value| {
        let options = mount.get("options").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        text(mount, "/type") == Some("bind") || options.iter().any(|one| matches!(one.as_str(), Some("bind" | "rbind")))
    };
    let mounts = list("/mounts").iter().filter(bound).take(LIST_MAX).map(|mount| {
        let options = mount.get("options").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        resolved(Mount {
            source: bounded(text(mount, "/source").unwrap_or_default()),
            leads_to: None,
            destination: bounded(text(mount, "/destination").unwrap_or_default()),
            writable: !options.iter().any(|one| one.as_str() == Some("ro")),
        })
    });
    let image = text(specification, "/annotations/io.kubernetes.cri.image-name").unwrap_or_default();
    Container {
        name: bounded(id),
        image: bounded(image),
        state: "running".to_owned(),
        restart: "no".to_owned(),
        runtime: "runc".to_owned(),
        // What an engine gives a privileged container and no other.
        privileged: capable("CAP_SYS_ADMIN") && capable("CAP_SYS_MODULE") && capable("CAP_SYS_RAWIO"),
        host_namespaces: host.map(str::to_owned).collect(),
        mounts: mounts.collect(),
    }
}

/// The same with the place to which its links lead now.
fn resolved(mount: Mount) -> Mount {
    let end = std::fs::canonicalize(&mount.source).ok().map(|end| end.to_string_lossy().into_owned());
    let leads_to = end.filter(|end| *end != mount.source).map(|end| bounded(&end));
    Mount { leads_to, ..mount }
}

fn names(directory: &PathBuf) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let found =
        entries.take(CONTAINERS_MAX.saturating_mul(2)).filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = found.collect();
    names.sort();
    names
}

fn json(path: &Path) -> Option<Value> {
    serde_json::from_slice(&state::read(path, BUNDLE_MAX).ok()??).ok()
}

fn text<'v>(value: &'v Value, pointer: &str) -> Option<&'v str> {
    value.pointer(pointer).and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn e9_what_docker_inspects_becomes_what_a_container_reaches() {
        let (plain, volumes) = from_docker(&json!({
            "Name": "/web", "Image": "sha256:1", "State": {"Status": "running"},
            "HostConfig": {"NetworkMode": "default", "RestartPolicy": {"Name": ""}, "Runtime": "runc", "Privileged": false, "CapAdd": null},
            "Mounts": [{"Type": "volume", "Name": "data", "Source": "/var/lib/docker/volumes/data/_data", "Destination": "/d", "RW": true}],
        }));
        assert!(!plain.privileged && plain.host_namespaces.is_empty() && plain.mounts.is_empty());
        assert_eq!((plain.name.as_str(), plain.restart.as_str(), volumes.len()), ("web", "no", 1));
        let (bad, _) = from_docker(&json!({
            "Name": "/x", "Image": "sha256:2", "State": {"Status": "created"},
            "HostConfig": {"NetworkMode": "host", "PidMode": "host", "RestartPolicy": {"Name": "always"}, "CapAdd": ["ALL"],
                "Devices": [{"PathOnHost": "/dev/sda", "PathInContainer": "/dev/sda", "CgroupPermissions": "r"}]},
            "Mounts": [{"Type": "bind", "Source": "/etc", "Destination": "/host", "RW": false}],
        }));
        assert!(bad.privileged);
        assert_eq!(bad.host_namespaces, ["network".to_owned(), "pid".to_owned()].into());
        let mounts: Vec<(&str, bool)> = bad.mounts.iter().map(|one| (one.source.as_str(), one.writable)).collect();
        assert_eq!((bad.restart.as_str(), mounts), ("always", vec![("/dev/sda", false), ("/etc", false)]));
    }

    #[test]
    fn e11_bundles_show_what_no_engine_tells() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, value: &Value| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, value.to_string()).unwrap();
        };
        let own = |names: &[&str]| names.iter().map(|name| json!({"type": name})).collect::<Vec<_>>();
        let plain = json!({
            "process": {"capabilities": {"bounding": ["CAP_CHOWN"]}},
            "linux": {"namespaces": own(&["pid", "network", "ipc", "uts", "mount"])},
            "mounts": [{"type": "proc", "source": "proc", "destination": "/proc"}],
        });
        let wide = json!({
            "process": {"capabilities": {"bounding": ["CAP_SYS_ADMIN", "CAP_SYS_MODULE", "CAP_SYS_RAWIO"]}},
            "linux": {"namespaces": own(&["ipc", "uts", "mount"])},
            "mounts": [{"type": "bind", "source": "/etc", "destination": "/e", "options": ["rbind", "ro"]}],
        });
        put("run/containerd/io.containerd.runtime.v2.task/default/plain/config.json", &plain);
        put("run/containerd/io.containerd.runtime.v2.task/default/wide/config.json", &wide);
        put("run/containerd/io.containerd.runtime.v2.task/moby/docker/config.json", &plain);
        put("bundle/config.json", &wide);
        let label = format!("bundle={}", dir.path().join("bundle").display());
        put("run/runc/hand/state.json", &json!({"config": {"labels": [label]}}));
        let manifest = EngineManifest { version: 1, root_is_default: false, engines: BTreeMap::new() };
        let config = EnginesConfig::of_root(dir.path());
        let bytes = inventory(&config, &manifest, &mut WorkloadCache::default());
        let inventory = Inventory::parse(&bytes).unwrap();
        let containerd = &inventory.engines["containerd"].containers;
        assert_eq!(containerd.keys().collect::<Vec<_>>(), ["default/plain", "default/wide", "moby/docker"]);
        let (plain, wide) = (&containerd["default/plain"], &containerd["default/wide"]);
        assert!(!plain.privileged && plain.host_namespaces.is_empty() && plain.mounts.is_empty());
        assert!(wide.privileged && wide.mounts.iter().any(|mount| mount.source == "/etc" && !mount.writable));
        assert_eq!(wide.host_namespaces, ["network".to_owned(), "pid".to_owned()].into());
        assert!(inventory.engines["runc"].containers["hand"].privileged);
        let empty = tempfile::tempdir().unwrap();
        assert!(
            super::inventory(&EnginesConfig::of_root(empty.path()), &manifest, &mut WorkloadCache::default())
                .is_empty()
        );
    }
}
