//! Docker's containers, as its daemon states them.
//!
//! Everything but the state is fixed when a container is made, but for its restart policy, which changes with an event. A volume's options
//! are fixed too, and a volume outlives the containers that use it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::time::{Duration, Instant};

use hostmark_attest::workload::{CONTAINERS_MAX, Container, EngineWorkloads, LIST_MAX, Mount};
use serde_json::Value;

use super::{KERNEL_FILE_SYSTEMS, api, capability, confinement, list, reached, resolved, text, unreadable};
use crate::engines::files::bounded;

/// What engines keep read-only below /proc, and what a container that may write there can have the host run.
const READ_ONLY: &str = "/proc/sys";
/// File systems that hold nothing of the host but what their source or options name.
const OTHER_FILE_SYSTEMS: [&str; 15] = [
    "",
    "9p",
    "ceph",
    "cifs",
    "glusterfs",
    "nfs",
    "nfs4",
    "none",
    "overlay",
    "ramfs",
    "smb3",
    "smbfs",
    "tmpfs",
    "virtiofs",
    "zfs",
];

/// How long Docker is waited for in all. It tells nothing of a container that it is just starting, which takes seconds on a crowded machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// What Docker said of containers, by id.
#[derive(Debug, Default)]
pub struct WorkloadCache(HashMap<String, Known>);

impl WorkloadCache {
    /// Asks for everything again next time.
    pub fn forget(&mut self) {
        self.0.clear();
    }
}

/// A container, and what of it is not known.
#[derive(Debug, Clone, Default)]
struct Known {
    container: Container,
    problems: BTreeMap<String, &'static str>,
    /// Another answer may come next time.
    passing: bool,
}

impl Known {
    fn list<'v>(&mut self, value: &'v Value, pointer: &str) -> &'v [Value] {
        list(value, pointer).unwrap_or_else(|why| {
            self.problems.insert(pointer.to_owned(), why);
            &[]
        })
    }

    fn mount(&mut self, mount: Mount) {
        if self.container.mounts.len() < LIST_MAX {
            self.container.mounts.insert(mount);
        } else {
            self.problems.insert("mounts".to_owned(), "there are more than an inventory may hold");
        }
    }
}

/// Docker's containers, running or not. None when no daemon is there to have any.
pub(super) fn told(socket: &Path, runs: bool, cache: &mut WorkloadCache) -> Option<EngineWorkloads> {
    let mut workloads = EngineWorkloads::default();
    let end = Instant::now().checked_add(PATIENCE);
    let answer = api::get_until(socket, "/containers/json?all=1", end);
    let listed = match answer.as_ref().map(Value::as_array) {
        Ok(Some(listed)) => listed,
        Ok(None) => {
            unreadable(&mut workloads, "containers", "the answer is not a list");
            return Some(workloads);
        }
        Err(_) if !runs => return None,
        Err(why) => {
            unreadable(&mut workloads, &format!("api:{}", socket.display()), why);
            return Some(workloads);
        }
    };
    if listed.len() > CONTAINERS_MAX {
        unreadable(&mut workloads, "containers", "there are more than an inventory may hold");
    }
    let ids: BTreeSet<&str> = listed.iter().filter_map(|one| text(one, "/Id")).collect();
    cache.0.retain(|id, _| ids.contains(id.as_str()));
    for one in listed.iter().take(CONTAINERS_MAX) {
        let Some(id) = text(one, "/Id").filter(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
        else {
            unreadable(&mut workloads, "containers", "one of them has no id");
            continue;
        };
        let known = match cache.0.get(id).cloned().map_or_else(|| inspect(socket, id, end), |known| Ok(Some(known))) {
            Ok(Some(known)) => known,
            // Gone between two requests.
            Ok(None) => continue,
            Err(why) => {
                unreadable(&mut workloads, id, why);
                continue;
            }
        };
        if !known.passing && !cache.0.contains_key(id) {
            cache.0.insert(id.to_owned(), known.clone());
        }
        for (what, why) in &known.problems {
            unreadable(&mut workloads, &format!("{id} {what}"), why);
        }
        let mut container = known.container;
        container.state = bounded(text(one, "/State").unwrap_or_default());
        container.mounts = container.mounts.into_iter().map(resolved).collect();
        workloads.containers.insert(bounded(id), container);
    }
    Some(workloads)
}

/// What one container was made with; None when there is none.
fn inspect(socket: &Path, id: &str, end: Option<Instant>) -> Result<Option<Known>, &'static str> {
    let inspected = match api::get_until(socket, &format!("/containers/{id}/json"), end) {
        Err(api::ABSENT) => return Ok(None),
        answer => answer?,
    };
    let (mut known, volumes) = from_inspected(&inspected);
    for (name, mount) in volumes {
        let sources = match volume(socket, &name, end) {
            Ok(sources) => sources,
            Err(why) => {
                known.problems.insert(format!("volume {name}"), why);
                known.passing = true;
                continue;
            }
        };
        for source in sources {
            known.mount(Mount { source, ..mount.clone() });
        }
    }
    Ok(Some(known))
}

/// The host's paths that a volume of the driver `local` shows under another name.
fn volume(socket: &Path, name: &str, end: Option<Instant>) -> Result<Vec<String>, &'static str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if name.is_empty() || !name.bytes().all(plain) {
        return Err("it has no volume's name");
    }
    match api::get_until(socket, &format!("/volumes/{name}"), end) {
        // Removed by force: Docker makes a new one without options when the container starts.
        Err(api::ABSENT) => Ok(Vec::new()),
        answer => shown(&answer?),
    }
}

fn shown(volume: &Value) -> Result<Vec<String>, &'static str> {
    let options = match volume.get("Options") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Object(options)) => options,
        Some(_) => return Err("its options are no table"),
    };
    let option = |name: &str| options.get(name).and_then(Value::as_str).unwrap_or_default();
    let (kind, device) = (option("type"), option("device"));
    if let Some((_, place)) = KERNEL_FILE_SYSTEMS.iter().find(|(name, _)| *name == kind) {
        return Ok(vec![(*place).to_owned()]);
    }
    let paths = reached(kind, device, option("o").split(','));
    if paths.is_empty() && !OTHER_FILE_SYSTEMS.contains(&kind) && !kind.starts_with("fuse.") {
        return Err("its options name a file system that may hold anything");
    }
    Ok(paths)
}

/// What a container was made with, and its volumes by name.
fn from_inspected(inspected: &Value) -> (Known, Vec<(String, Mount)>) {
    let string = |pointer: &str| bounded(text(inspected, pointer).unwrap_or_default());
    let mut known = Known::default();
    let capabilities: BTreeSet<String> = texts(known.list(inspected, "/HostConfig/CapAdd")).map(capability).collect();
    let device_rules: BTreeSet<String> =
        texts(known.list(inspected, "/HostConfig/DeviceCgroupRules")).map(bounded).collect();
    let read_only = inspected.pointer("/HostConfig/ReadonlyPaths").and_then(Value::as_array);
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
    known.container = Container {
        name: string("/Name").trim_start_matches('/').to_owned(),
        image: string("/Image"),
        state: string("/State/Status"),
        restart: restart.unwrap_or_else(|| "no".to_owned()),
        runtime: string("/HostConfig/Runtime"),
        privileged: capabilities.contains("ALL")
            || inspected.pointer("/HostConfig/Privileged") == Some(&Value::Bool(true)),
        host_namespaces: modes.iter().filter(|mode| host(mode)).map(|(name, _)| (*name).to_owned()).collect(),
        mounts: BTreeSet::new(),
        capabilities,
        device_rules,
        // None are stated of a privileged container, and of one that a daemon made which knew no such list.
        system_paths: read_only.is_some_and(|paths| !paths.iter().any(|path| path.as_str() == Some(READ_ONLY))),
        confinement: Some(confinement::inspected(inspected)),
    };
    let mut volumes = Vec::new();
    for mount in known.list(inspected, "/Mounts") {
        let mounted = Mount {
            source: bounded(text(mount, "/Source").unwrap_or_default()),
            leads_to: None,
            destination: bounded(text(mount, "/Destination").unwrap_or_default()),
            writable: mount.get("RW") != Some(&Value::Bool(false)),
        };
        match (text(mount, "/Type"), text(mount, "/Name"), text(mount, "/Driver")) {
            (Some("volume"), Some(name), None | Some("local" | "")) => volumes.push((name.to_owned(), mounted)),
            (Some("tmpfs"), ..) => {}
            // Another driver keeps a volume where it likes; its plugin's own state is Docker's.
            (Some("volume"), ..) if mounted.source.starts_with("/var/lib/docker/plugins/") => {}
            _ => known.mount(mounted),
        }
    }
    for device in known.list(inspected, "/HostConfig/Devices") {
        known.mount(Mount {
            source: bounded(text(device, "/PathOnHost").unwrap_or_default()),
            leads_to: None,
            destination: bounded(text(device, "/PathInContainer").unwrap_or_default()),
            writable: text(device, "/CgroupPermissions").is_none_or(|allowed| allowed.contains('w')),
        });
    }
    (known, volumes)
}

/// What is no text among texts stands as an empty one: it is none that is known to be harmless.
fn texts(list: &[Value]) -> impl Iterator<Item = &str> {
    list.iter().map(|one| one.as_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, Write as _};
    use std::os::unix::net::UnixListener;

    use serde_json::json;

    use super::*;

    #[test]
    fn e9_what_docker_inspects_becomes_what_a_container_reaches() {
        let proc = ["/proc/bus", "/proc/sys", "/proc/sysrq-trigger"];
        let (plain, volumes) = from_inspected(&json!({
            "Name": "/web", "Image": "sha256:1", "State": {"Status": "running"},
            "HostConfig": {"NetworkMode": "default", "RestartPolicy": {"Name": ""}, "Runtime": "runc", "Privileged": false, "CapAdd": null,
                "ReadonlyPaths": proc},
            "Mounts": [{"Type": "volume", "Name": "data", "Source": "/var/lib/docker/volumes/data/_data", "Destination": "/d", "RW": true}],
        }));
        assert!(plain.problems.is_empty());
        let plain = plain.container;
        assert!(!plain.privileged && plain.host_namespaces.is_empty() && plain.mounts.is_empty());
        assert!(plain.capabilities.is_empty() && plain.device_rules.is_empty() && !plain.system_paths);
        assert_eq!((plain.name.as_str(), plain.restart.as_str(), volumes.len()), ("web", "no", 1));
        let (bad, _) = from_inspected(&json!({
            "Name": "/x", "Image": "sha256:2", "State": {"Status": "created"},
            "HostConfig": {"NetworkMode": "host", "PidMode": "host", "RestartPolicy": {"Name": "always"}, "CapAdd": ["ALL"],
                "DeviceCgroupRules": ["b *:* rwm"], "ReadonlyPaths": [],
                "Devices": [{"PathOnHost": "/dev/sda", "PathInContainer": "/dev/sda", "CgroupPermissions": "r"}]},
            "Mounts": [{"Type": "bind", "Source": "/etc", "Destination": "/host", "RW": false}],
        }));
        let bad = bad.container;
        assert!(bad.privileged && bad.system_paths);
        assert_eq!(bad.device_rules, ["b *:* rwm".to_owned()].into());
        assert_eq!(bad.host_namespaces, ["network".to_owned(), "pid".to_owned()].into());
        let mounts: Vec<(&str, bool)> = bad.mounts.iter().map(|one| (one.source.as_str(), one.writable)).collect();
        assert_eq!((bad.restart.as_str(), mounts), ("always", vec![("/dev/sda", false), ("/etc", false)]));
        let (capable, _) = from_inspected(&json!({"HostConfig": {"CapAdd": ["cap_sys_admin", "NET_ADMIN"]}}));
        assert_eq!(capable.container.capabilities, ["NET_ADMIN".to_owned(), "SYS_ADMIN".to_owned()].into());
        assert!(!capable.container.privileged);
    }

    #[test]
    fn e9_a_volume_shows_what_its_options_name() {
        let unknown = Err("its options name a file system that may hold anything");
        for (options, expect) in [
            (json!(null), Ok(vec![])),
            (json!({}), Ok(vec![])),
            (json!({"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}), Ok(vec![])),
            (json!({"type": "nfs", "device": ":/data", "o": "addr=10.0.0.1"}), Ok(vec![])),
            (json!({"type": "none", "device": "/etc", "o": "bind"}), Ok(vec!["/etc".to_owned()])),
            (json!({"type": "none", "device": "etc", "o": "rbind,ro"}), Ok(vec!["/etc".to_owned()])),
            (
                json!({"type": "overlay", "device": "overlay", "o": "lowerdir=/etc:/srv"}),
                Ok(vec!["/etc".to_owned(), "/srv".to_owned()]),
            ),
            (json!({"type": "proc", "device": "proc"}), Ok(vec!["/proc".to_owned()])),
            (json!({"type": "ext4", "device": "/dev/sda1"}), Ok(vec!["/dev/sda1".to_owned()])),
            (json!({"type": "newfs", "device": "x"}), unknown),
            (json!([]), Err("its options are no table")),
        ] {
            assert_eq!(shown(&json!({"Name": "v", "Options": options})), expect, "{options}");
        }
    }

    /// Answers each request by its path until the socket is dropped; what it does not know is 404.
    fn daemon(answers: Vec<(&'static str, &'static str, Value)>) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("docker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = std::io::BufReader::new(&stream).lines();
                let asked = lines.next().unwrap().unwrap();
                assert!(lines.any(|line| line.unwrap().is_empty()), "the end of the head");
                let path = asked.split(' ').nth(1).unwrap_or_default();
                let found = answers.iter().find(|(one, ..)| *one == path);
                let (status, body) = found.map_or(("404", Value::Null), |(_, status, body)| (*status, body.clone()));
                let _ = write!(stream, "HTTP/1.0 {status} x\r\n\r\n{body}");
            }
        });
        (dir, socket)
    }

    #[test]
    fn e9_what_docker_does_not_state_is_unreadable() {
        let all = "/containers/json?all=1";
        let one = json!([{"Id": "c0ffee", "State": "running"}]);
        let with_volume = json!({"Name": "/web", "Mounts": [{"Type": "volume", "Name": "data", "Destination": "/d"}]});
        let many: Vec<Value> = (0..LIST_MAX.saturating_add(1))
            .map(|number| json!({"Type": "bind", "Source": format!("/srv/{number}"), "Destination": "/d"}))
            .collect();
        type Answers = Vec<(&'static str, &'static str, Value)>;
        let rows: Vec<(&str, Answers, &[&str], usize)> = vec![
            ("honest: none", vec![(all, "200", json!([]))], &[], 0),
            (
                "honest: one",
                vec![(all, "200", one.clone()), ("/containers/c0ffee/json", "200", json!({"Name": "/web"}))],
                &[],
                1,
            ),
            ("honest: gone meanwhile", vec![(all, "200", one.clone())], &[], 0),
            (
                "honest: its volume is gone",
                vec![(all, "200", one.clone()), ("/containers/c0ffee/json", "200", with_volume.clone())],
                &[],
                1,
            ),
            ("no list", vec![(all, "200", json!({}))], &["containers"], 0),
            ("no id", vec![(all, "200", json!([{"Id": "../x"}]))], &["containers"], 0),
            (
                "an inspection that is refused",
                vec![(all, "200", one.clone()), ("/containers/c0ffee/json", "500", json!({}))],
                &["c0ffee"],
                0,
            ),
            (
                "a volume that is refused",
                vec![
                    (all, "200", one.clone()),
                    ("/containers/c0ffee/json", "200", with_volume),
                    ("/volumes/data", "500", json!({})),
                ],
                &["c0ffee volume data"],
                1,
            ),
            (
                "mounts that are no list",
                vec![(all, "200", one.clone()), ("/containers/c0ffee/json", "200", json!({"Mounts": "none"}))],
                &["c0ffee /Mounts"],
                1,
            ),
            (
                "capabilities that are no list",
                vec![
                    (all, "200", one.clone()),
                    ("/containers/c0ffee/json", "200", json!({"HostConfig": {"CapAdd": {"a": 1}}})),
                ],
                &["c0ffee /HostConfig/CapAdd"],
                1,
            ),
            (
                "too many mounts",
                vec![(all, "200", one), ("/containers/c0ffee/json", "200", json!({"Mounts": many}))],
                &["c0ffee /Mounts"],
                1,
            ),
        ];
        for (name, answers, expect, containers) in rows {
            let (_dir, socket) = daemon(answers);
            let mut cache = WorkloadCache::default();
            // And the second time, when it is known.
            for _ in 0..2 {
                let told = told(&socket, true, &mut cache).unwrap();
                let missing: Vec<&str> = told.unreadable.iter().map(|one| one.what.as_str()).collect();
                assert_eq!((missing.as_slice(), told.containers.len()), (expect, containers), "{name}");
            }
        }
    }
}
