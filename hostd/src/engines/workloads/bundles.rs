//! Containers by the OCI bundles that their runtimes were given: containerd's tasks, Podman's, and those that were started by hand.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hostmark_attest::workload::{CONTAINERS_MAX, Container, EngineWorkloads, LIST_MAX, Mount, rules_by_device};
use serde_json::Value;

use super::{KERNEL_FILE_SYSTEMS, capability, confinement, list, reached, resolved, text, unreadable};
use crate::engines::files::bounded;
use crate::state;

/// Largest `config.json` of a bundle: an engine's own has some 10 kB.
const BUNDLE_MAX: u64 = 1 << 20;
/// containerd's tasks, by namespace.
const TASKS: &str = "run/containerd/io.containerd.runtime.v2.task";
/// Where runc keeps the state of containers that no engine gave it another directory for.
const RUNC: &str = "run/runc";
/// Podman's containers: with runc it keeps their state in [`RUNC`] too.
const PODMAN: &str = "var/lib/containers/storage/overlay-containers";
/// A container that is being made or removed has a directory and no file in it, for some milliseconds.
const BEING_MADE: [Duration; 3] = [Duration::from_millis(20), Duration::from_millis(80), Duration::from_millis(400)];
/// The kernel's file systems of which a container has its own.
const OWN_FILE_SYSTEMS: [&str; 6] = ["cgroup", "cgroup2", "devpts", "mqueue", "proc", "sysfs"];
/// Namespaces, as a bundle names them and as /proc does.
const NAMESPACES: [(&str, &str); 5] =
    [("ipc", "ipc"), ("mount", "mnt"), ("network", "net"), ("pid", "pid"), ("uts", "uts")];
/// What engines keep read-only.
const READ_ONLY: &str = "/proc/sys";

/// containerd's tasks, as their directories name them.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    /// Namespace, id, bundle.
    found: Vec<(String, String, PathBuf)>,
    workloads: EngineWorkloads,
}

impl Tasks {
    /// Lists them. To be asked before Docker is: whatever runs by then, Docker knows.
    pub(super) fn list(root: &Path) -> Self {
        let mut tasks = Self::default();
        for namespace in names(&root.join(TASKS), &mut tasks.workloads) {
            let directory = root.join(TASKS).join(&namespace);
            for id in names(&directory, &mut tasks.workloads) {
                let bundle = directory.join(&id);
                tasks.found.push((namespace.clone(), id, bundle));
            }
        }
        tasks
    }

    /// What their bundles say. Those that Docker told of are left out, and no other in Docker's namespace.
    pub(super) fn read(self, docker: Option<&EngineWorkloads>) -> EngineWorkloads {
        let mut workloads = self.workloads;
        for (namespace, id, bundle) in self.found {
            if namespace != "moby" || docker.is_none_or(|docker| !docker.containers.contains_key(&id)) {
                from_bundle(&format!("{namespace}/{id}"), &bundle, &bundle, &mut workloads);
            }
        }
        workloads
    }
}

/// Containers whose state lies where runc puts it when nobody says otherwise: Podman's, and those that were started by hand.
pub(super) fn by_runc(root: &Path) -> (EngineWorkloads, EngineWorkloads) {
    let (mut podman, mut by_hand) = (EngineWorkloads::default(), EngineWorkloads::default());
    for id in names(&root.join(RUNC), &mut by_hand) {
        let workloads = if root.join(PODMAN).join(&id).exists() { &mut podman } else { &mut by_hand };
        let place = root.join(RUNC).join(&id);
        let Some(state) = json(&place, "state.json", workloads.unreadable.is_empty()) else {
            if place.exists() {
                nameless(&id, "its state cannot be read", workloads);
            }
            continue;
        };
        let labels = list(&state, "/config/labels").unwrap_or_default();
        match labels.iter().filter_map(Value::as_str).find_map(|label| label.strip_prefix("bundle=")) {
            Some(bundle) => from_bundle(&id, Path::new(bundle), &place, workloads),
            None => nameless(&id, "its state names no bundle", workloads),
        }
    }
    (podman, by_hand)
}

/// There is a container, and nothing more is known.
fn nameless(id: &str, why: &str, workloads: &mut EngineWorkloads) {
    unreadable(workloads, id, why);
    if workloads.containers.len() < CONTAINERS_MAX {
        let container = Container { name: bounded(id), runtime: "runc".to_owned(), ..Container::default() };
        workloads.containers.insert(bounded(id), container);
    }
}

/// `place` is there as long as the container is.
fn from_bundle(id: &str, bundle: &Path, place: &Path, workloads: &mut EngineWorkloads) {
    if workloads.containers.len() >= CONTAINERS_MAX {
        return unreadable(workloads, "containers", "there are more than an inventory may hold");
    }
    let Some(specification) = json(bundle, "config.json", workloads.unreadable.is_empty()) else {
        if place.exists() {
            unreadable(workloads, id, "its bundle cannot be read");
        }
        return;
    };
    let container = from_specification(id, &specification, &mut |what, why| {
        unreadable(workloads, &format!("{id} {what}"), why);
    });
    workloads.containers.insert(bounded(id), container);
}

fn from_specification(id: &str, specification: &Value, problem: &mut dyn FnMut(&str, &str)) -> Container {
    let mut get = |pointer: &str| {
        list(specification, pointer).unwrap_or_else(|why| {
            problem(pointer, why);
            &[]
        })
    };
    let capabilities: BTreeSet<String> = ["bounding", "effective", "permitted", "inheritable", "ambient"]
        .iter()
        .flat_map(|set| get(&format!("/process/capabilities/{set}")))
        .map(|one| capability(one.as_str().unwrap_or_default()))
        .collect();
    let own: BTreeSet<&str> = get("/linux/namespaces")
        .iter()
        .filter(|one| {
            !text(one, "/path").is_some_and(|path| is_the_hosts(path, text(one, "/type").unwrap_or_default()))
        })
        .filter_map(|one| text(one, "/type"))
        .collect();
    let host = NAMESPACES.iter().map(|(name, _)| *name).filter(|name| !own.contains(name));
    let device_rules: BTreeSet<String> =
        get("/linux/resources/devices").iter().filter_map(device_rule).filter(|rule| rules_by_device(rule)).collect();
    let read_only = get("/linux/readonlyPaths");
    let mut mounts = BTreeSet::new();
    for mount in get("/mounts") {
        let kind = text(mount, "/type").unwrap_or_default();
        let options = list(mount, "/options").unwrap_or_else(|why| {
            problem("/mounts/options", why);
            &[]
        });
        let options: Vec<&str> = options.iter().filter_map(Value::as_str).collect();
        let kernel = KERNEL_FILE_SYSTEMS.iter().find(|(name, _)| *name == kind && !OWN_FILE_SYSTEMS.contains(name));
        let paths = reached(kind, text(mount, "/source").unwrap_or_default(), options.iter().copied());
        mounts.extend(paths.into_iter().chain(kernel.map(|(_, place)| (*place).to_owned())).map(|source| {
            resolved(Mount {
                source,
                leads_to: None,
                destination: bounded(text(mount, "/destination").unwrap_or_default()),
                writable: !options.contains(&"ro"),
            })
        }));
    }
    if mounts.len() > LIST_MAX {
        problem("mounts", "there are more than an inventory may hold");
        mounts = mounts.into_iter().take(LIST_MAX).collect();
    }
    let image = text(specification, "/annotations/io.kubernetes.cri.image-name").unwrap_or_default();
    Container {
        name: bounded(id),
        image: bounded(image),
        state: "running".to_owned(),
        restart: "no".to_owned(),
        runtime: "runc".to_owned(),
        // What an engine gives a privileged container and no other.
        privileged: ["SYS_ADMIN", "SYS_MODULE", "SYS_RAWIO"].iter().all(|name| capabilities.contains(*name)),
        host_namespaces: host.map(str::to_owned).collect(),
        mounts,
        confinement: Some(confinement::specified(specification, &capabilities)),
        capabilities,
        device_rules,
        system_paths: !read_only.iter().any(|path| path.as_str() == Some(READ_ONLY)),
    }
}

/// Whether a namespace that is joined by its path is PID 1's.
fn is_the_hosts(path: &str, kind: &str) -> bool {
    let Some((_, file)) = NAMESPACES.iter().find(|(name, _)| *name == kind) else { return false };
    let identity = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    let first =
        identity(&Path::new("/proc/1/ns").join(file)).or_else(|| identity(&Path::new("/proc/self/ns").join(file)));
    path.starts_with("/proc/1/") || (first.is_some() && identity(Path::new(path)) == first)
}

/// A rule of a bundle as the devices cgroup writes it; None for one that forbids.
fn device_rule(rule: &Value) -> Option<String> {
    let allowed = rule.get("allow").and_then(Value::as_bool).unwrap_or_default();
    let number = |name: &str| match rule.get(name).and_then(Value::as_i64) {
        Some(number) if number >= 0 => number.to_string(),
        _ => "*".to_owned(),
    };
    let kind = text(rule, "/type").filter(|kind| !kind.is_empty()).unwrap_or("a");
    let access = text(rule, "/access").filter(|access| !access.is_empty()).unwrap_or("rwm");
    allowed.then(|| bounded(&format!("{kind} {}:{} {access}", number("major"), number("minor"))))
}

/// The names in a directory, sorted; what is not there is empty, and what cannot be listed is told.
fn names(directory: &Path, workloads: &mut EngineWorkloads) -> Vec<String> {
    let told = directory.display().to_string();
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(_) => {
            unreadable(workloads, &told, "it cannot be listed");
            return Vec::new();
        }
    };
    let mut names = Vec::new();
    for entry in entries {
        if names.len() >= CONTAINERS_MAX {
            unreadable(workloads, &told, "there are more than an inventory may hold");
            break;
        }
        match entry.ok().and_then(|entry| entry.file_name().into_string().ok()) {
            Some(name) => names.push(name),
            None => unreadable(workloads, &told, "one of its entries has no name that can be read"),
        }
    }
    names.sort();
    names
}

/// A JSON file of a container, which may be about to be written. `patient`: nothing was waited for in vain yet.
fn json(directory: &Path, file: &str, patient: bool) -> Option<Value> {
    let read = || serde_json::from_slice(&state::read(&directory.join(file), BUNDLE_MAX).ok()??).ok();
    read().or_else(|| {
        BEING_MADE.iter().find_map(|pause| {
            if !patient || !directory.exists() {
                return None;
            }
            std::thread::sleep(*pause);
            read()
        })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use hostmark_attest::manifest::EngineManifest;
    use hostmark_attest::workload::Inventory;
    use serde_json::json;

    use super::super::{WorkloadCache, inventory};
    use super::*;
    use crate::engines::EnginesConfig;

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
            "linux": {
                "namespaces": own(&["pid", "network", "ipc", "uts", "mount"]),
                "readonlyPaths": ["/proc/bus", "/proc/sys"],
                "resources": {"devices": [
                    {"allow": false, "access": "rwm"},
                    {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
                    {"allow": true, "type": "b", "access": "m"},
                ]},
            },
            "mounts": [{"type": "proc", "source": "proc", "destination": "/proc"}],
        });
        let wide = json!({
            "process": {"capabilities": {"bounding": ["CAP_SYS_ADMIN", "CAP_SYS_MODULE", "CAP_SYS_RAWIO"]}},
            "linux": {
                "namespaces": [
                    {"type": "ipc"}, {"type": "uts", "path": "/proc/self/ns/uts"}, {"type": "mount"},
                    {"type": "pid", "path": "/proc/1/ns/pid"},
                ],
                "resources": {"devices": [{"allow": true, "type": "b", "major": 8, "access": "rwm"}, {"allow": true}]},
            },
            "mounts": [
                {"type": "bind", "source": "/etc", "destination": "/e", "options": ["rbind", "ro"]},
                {"type": "overlay", "source": "overlay", "destination": "/o", "options": ["lowerdir=/boot"]},
                {"type": "debugfs", "source": "debugfs", "destination": "/d"},
            ],
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
        assert!(inventory.engines.values().all(|engine| engine.unreadable.is_empty()), "{inventory:?}");
        let containerd = &inventory.engines["containerd"].containers;
        assert_eq!(containerd.keys().collect::<Vec<_>>(), ["default/plain", "default/wide", "moby/docker"]);
        // Docker's word covers its own containers alone, not whatever stands in its namespace.
        let told = |id: &str| EngineWorkloads {
            containers: BTreeMap::from([(id.to_owned(), Container::default())]),
            ..EngineWorkloads::default()
        };
        for (id, left) in [("docker", 2), ("another", 3)] {
            assert_eq!(Tasks::list(dir.path()).read(Some(&told(id))).containers.len(), left, "{id}");
        }
        let (plain, wide) = (&containerd["default/plain"], &containerd["default/wide"]);
        assert!(!plain.privileged && plain.host_namespaces.is_empty() && plain.mounts.is_empty());
        assert!(
            plain.device_rules.is_empty() && !plain.system_paths && plain.capabilities == ["CHOWN".to_owned()].into()
        );
        assert_eq!(wide.device_rules, ["a *:* rwm", "b 8:* rwm"].map(str::to_owned).into());
        for source in ["/boot", "/sys/kernel/debug"] {
            assert!(wide.mounts.iter().any(|mount| mount.source == source), "{source}");
        }
        assert!(
            wide.system_paths
                && wide.privileged
                && wide.mounts.iter().any(|mount| mount.source == "/etc" && !mount.writable)
        );
        assert_eq!(wide.host_namespaces, ["network", "pid", "uts"].map(str::to_owned).into());
        assert!(inventory.engines["runc"].containers["hand"].privileged);
        let empty = tempfile::tempdir().unwrap();
        assert!(
            super::super::inventory(&EnginesConfig::of_root(empty.path()), &manifest, &mut WorkloadCache::default())
                .is_empty()
        );
    }

    #[test]
    fn e11_what_no_bundle_tells_is_unreadable() {
        type Make = fn(&Path);
        let rows: [(&str, Make, &str, &[&str]); 6] = [
            ("honest: none", |_| (), "runc", &[]),
            ("a task without a bundle", |root| put(root, "TASKS/default/x/other", "{}"), "containerd", &["default/x"]),
            (
                "a bundle that is no JSON",
                |root| put(root, "TASKS/default/x/config.json", "{"),
                "containerd",
                &["default/x"],
            ),
            (
                "mounts that are no list",
                |root| put(root, "TASKS/default/x/config.json", r#"{"mounts": {}}"#),
                "containerd",
                &["default/x /mounts"],
            ),
            ("a state that is no JSON", |root| put(root, "run/runc/x/state.json", "{"), "runc", &["x"]),
            ("a state without a bundle", |root| put(root, "run/runc/x/state.json", "{}"), "runc", &["x"]),
        ];
        for (name, make, engine, expect) in rows {
            let dir = tempfile::tempdir().unwrap();
            make(dir.path());
            let manifest = EngineManifest { version: 1, root_is_default: false, engines: BTreeMap::new() };
            let bytes = inventory(&EnginesConfig::of_root(dir.path()), &manifest, &mut WorkloadCache::default());
            if expect.is_empty() {
                assert!(bytes.is_empty(), "{name}");
                continue;
            }
            let inventory = Inventory::parse(&bytes).unwrap();
            let missing: Vec<&str> = inventory.engines[engine].unreadable.iter().map(|one| one.what.as_str()).collect();
            assert_eq!(missing, expect, "{name}");
        }
    }

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path.replace("TASKS", TASKS));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}
