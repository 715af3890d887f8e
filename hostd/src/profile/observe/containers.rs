//! Facts of containers, from the inventory that each round states too: every engine's, whatever their state; and of those that run, what the
//! kernel holds each of their processes to.
//!
//! BASELINE rows 110–127; proc(5), `/proc/PID/{cgroup,status,attr/current}`. A container of which nothing is known is none that is harmless: what
//! an engine does not state makes an error, unless another container fails.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use hostmark_attest::manifest::Setting;
use hostmark_attest::profile::{ContainerFact, Control, Observation, Observed, SourceKind, Stated};
use hostmark_attest::workload::{Container, Inventory, sensitive};

use super::{Result, not_applicable};
use crate::profile::host::Host;
use crate::profile::root::{Root, Text};

/// Most processes that are looked at.
const PROCESSES_MAX: usize = 1 << 15;
/// Capabilities by their bits (capability.h).
pub(in crate::profile) const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

pub(super) fn containers(host: &Host, control: &Control, fact: ContainerFact) -> Result {
    let Some(kernel) = &host.kernel else {
        let reason = "a directory has no engine to ask for its containers".to_owned();
        return Ok(Observation::OutOfSight { reason, files: Vec::new() });
    };
    let inventory = host.inventory()?;
    let mut unknown = unseen(host, kernel, inventory);
    let Some(inventory) = inventory else {
        return unknown.map_or_else(|| Ok(not_applicable("no engine has containers")), Err);
    };
    let mut each: BTreeMap<String, Option<Setting>> = BTreeMap::new();
    let mut names: BTreeMap<&str, String> = BTreeMap::new();
    for (engine, workloads) in &inventory.engines {
        if let Some(one) = workloads.unreadable.iter().next() {
            unknown = Some(format!("{engine}: {}: {}", one.what, one.why));
        }
        for (id, container) in &workloads.containers {
            let name = if container.name.is_empty() { id } else { &container.name };
            let name = format!("{engine}/{name}");
            match of(container, fact, &Defaults::of(host, engine)) {
                Some(value) => drop(each.insert(format!("{name} ({})", container.state), Some(value))),
                None => unknown = Some(format!("{name}: its engine does not state {}", fact.name())),
            }
            names.insert(id.rsplit('/').next().unwrap_or(id), name);
        }
    }
    let now = processes(kernel, &names, fact)?;
    let textual = control.resource.is_textual();
    let bad = each.values().chain(now.values()).any(|value| !control.want.accepts(value.as_ref(), textual));
    match unknown {
        Some(unknown) if !bad => return Err(unknown),
        _ if each.is_empty() => return Ok(not_applicable("there are no containers")),
        _ => {}
    }
    let effective = Stated::new(SourceKind::Inventory, "the engines' containers", Observed::Each(each));
    let others =
        if now.is_empty() { Vec::new() } else { vec![Stated::new(SourceKind::Kernel, "/proc", Observed::Each(now))] };
    Ok(Observation::Seen { effective, others })
}

/// Containers that the inventory cannot have or does not have: what is not seen is not known to be harmless.
fn unseen(host: &Host, kernel: &Root, inventory: Option<&Inventory>) -> Option<String> {
    for engine in ["podman", "crio"] {
        if host.installed(engine) {
            return Some(format!(
                "{engine} is installed, and not all of its containers are seen: none that is stopped or under crun"
            ));
        }
    }
    // Engines of another root are not all those of the kernel.
    if host.root.path() != Path::new("/") {
        return None;
    }
    let known: BTreeSet<&str> = inventory
        .into_iter()
        .flat_map(|inventory| inventory.engines.values())
        .flat_map(|workloads| workloads.containers.keys())
        .map(|id| id.rsplit('/').next().unwrap_or(id))
        .collect();
    let read = |pid: &str| std::fs::read_to_string(kernel.real(&format!("/proc/{pid}/cgroup"))).unwrap_or_default();
    // Where hostd itself lives in a container, that one is not the host's.
    let own = read("self");
    let own: BTreeSet<&str> = ids(&own).collect();
    let pids = match pids(kernel) {
        Ok(pids) => pids,
        Err(why) => return Some(why),
    };
    for pid in pids {
        let groups = read(&pid);
        if let Some(id) = ids(&groups).find(|id| !own.contains(id) && !known.contains(id)) {
            return Some(format!("process {pid} is in container {id}, which no engine states"));
        }
    }
    None
}

/// Every process that there is.
fn pids(kernel: &Root) -> Result<Vec<String>> {
    let Ok(entries) = std::fs::read_dir(kernel.real("/proc")) else { return Ok(Vec::new()) };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let pids: Vec<String> = names.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).collect();
    match pids.len() {
        0..=PROCESSES_MAX => Ok(pids),
        count => Err(format!("{count} processes run, more than the {PROCESSES_MAX} that are looked at")),
    }
}

/// Ids of containers among the cgroups of a process: engines name them by 64 hexadecimal digits.
fn ids(groups: &str) -> impl Iterator<Item = &str> {
    let paths = groups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let id = |part: &'_ str| -> usize { part.strip_suffix(".scope").unwrap_or(part).len() };
    paths.flat_map(|path| path.split('/')).filter_map(move |part| {
        let part = part.get(..id(part))?;
        let end = part.rsplit('-').next()?;
        (end.len() == 64 && end.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(end)
    })
}

/// What an engine adds to every container by its own configuration.
#[derive(Debug, Default)]
struct Defaults {
    no_new_privileges: bool,
    user_namespace: bool,
    cgroup_parent: bool,
    /// No filter of system calls.
    unfiltered: bool,
}

impl Defaults {
    fn of(host: &Host, engine: &str) -> Self {
        let Some(state) = host.engine(engine).filter(|_| engine == "docker") else { return Self::default() };
        let stated = |name: &str| state.settings.get(name).into_iter().flat_map(BTreeMap::values);
        let option = |option: &str| {
            stated("security-options")
                .any(|value| matches!(value, Setting::List(list) if list.iter().any(|one| one == option)))
        };
        Self {
            // Of several sources one that says no is enough for none.
            no_new_privileges: stated("no-new-privileges").count() > 0
                && stated("no-new-privileges").all(|value| *value == Setting::Flag(true)),
            user_namespace: option("name=userns") || option("name=rootless"),
            cgroup_parent: stated("cgroup-parent").count() > 0,
            unfiltered: stated("seccomp-profile").any(|value| *value == Setting::Text("unconfined".to_owned())),
        }
    }
}

/// A fact in its canonical form; None: the inventory does not state it.
fn of(container: &Container, fact: ContainerFact, defaults: &Defaults) -> Option<Setting> {
    let list = |set: &BTreeSet<String>| Setting::List(set.iter().cloned().collect());
    let number = |number: u64| Setting::Number(i64::try_from(number).unwrap_or(i64::MAX));
    let reached = || container.mounts.iter().flat_map(|mount| [Some(&mount.source), mount.leads_to.as_ref()]).flatten();
    let ruling = |sockets: bool| {
        let paths: BTreeSet<String> =
            reached().filter(|path| sensitive(path).is_some_and(|what| is_socket(what) == sockets)).cloned().collect();
        list(&paths)
    };
    let confined = container.confinement.as_ref();
    Some(match fact {
        ContainerFact::Privileged => Setting::Flag(container.privileged),
        ContainerFact::SensitiveMounts => ruling(false),
        ContainerFact::EngineSockets => ruling(true),
        ContainerFact::HostNamespaces => list(&container.host_namespaces),
        ContainerFact::Devices => list(&devices(container)),
        ContainerFact::Runtime => Setting::Text(container.runtime.clone()),
        ContainerFact::ImageDigest if container.image.starts_with("sha256:") => Setting::Text(container.image.clone()),
        ContainerFact::ImageDigest => return None,
        ContainerFact::Capabilities => list(&confined?.capabilities),
        ContainerFact::Seccomp if defaults.unfiltered && confined?.seccomp == "default" => {
            Setting::Text("unconfined".to_owned())
        }
        ContainerFact::Seccomp => Setting::Text(confined?.seccomp.clone()),
        ContainerFact::Lsm => Setting::Text(confined?.lsm.clone()),
        ContainerFact::NoNewPrivileges => {
            Setting::Flag(confined?.no_new_privileges.unwrap_or(defaults.no_new_privileges))
        }
        ContainerFact::HostUid => {
            host_uid(confined?.user.as_str(), confined?.user_namespace || defaults.user_namespace)
        }
        ContainerFact::ReadOnlyRoot => Setting::Flag(confined?.read_only_root),
        ContainerFact::MemoryLimit => number(confined?.memory),
        ContainerFact::CpuLimit => number(confined?.cpu),
        ContainerFact::PidsLimit => number(confined?.pids),
        ContainerFact::Propagation => list(&confined?.propagation),
        ContainerFact::PublishedPorts => list(confined?.ports.as_ref()?),
        ContainerFact::RestartLimit => Setting::Number(confined?.restarts?),
        ContainerFact::CgroupParent if defaults.cgroup_parent => Setting::Text("the daemon's".to_owned()),
        ContainerFact::CgroupParent => Setting::Text(confined?.cgroup_parent.clone()?),
        ContainerFact::HealthCheck => Setting::Flag(confined?.health_check?),
        ContainerFact::Labels => list(confined?.labels.as_ref()?),
        ContainerFact::ByDigest => Setting::Flag(confined?.by_digest?),
    })
}

/// The user of a container as it is outside; a name stays one, and is not known to be no root.
fn host_uid(user: &str, mapped: bool) -> Setting {
    let user = user.split(':').next().unwrap_or_default();
    let id = match user {
        "" | "root" => Some(0),
        user => user.parse::<i64>().ok(),
    };
    match id {
        Some(id) if mapped => Setting::Text(format!("{id}, mapped to another")),
        Some(id) => Setting::Number(id),
        None => Setting::Text(user.to_owned()),
    }
}

/// What it may open by the rules of its cgroup, and what is mounted of the host's /dev.
fn devices(container: &Container) -> BTreeSet<String> {
    const NO_DEVICES: [&str; 4] = ["/dev/log", "/dev/shm", "/dev/mqueue", "/dev/hugepages"];
    let of_dev = |source: &&str| {
        (*source == "/dev" || source.starts_with("/dev/"))
            && !NO_DEVICES.iter().any(|other| Path::new(source).starts_with(other))
    };
    let mounted =
        container.mounts.iter().map(|mount| mount.leads_to.as_deref().unwrap_or(&mount.source)).filter(of_dev);
    container.device_rules.iter().cloned().chain(mounted.map(str::to_owned)).collect()
}

fn is_socket(what: &str) -> bool {
    what.ends_with(".sock") || what == "/run/user"
}

/// What the kernel says of each process of a container, for facts that it knows.
fn processes(
    kernel: &Root,
    names: &BTreeMap<&str, String>,
    fact: ContainerFact,
) -> Result<BTreeMap<String, Option<Setting>>> {
    let mut each = BTreeMap::new();
    let known = matches!(
        fact,
        ContainerFact::Capabilities
            | ContainerFact::Seccomp
            | ContainerFact::Lsm
            | ContainerFact::NoNewPrivileges
            | ContainerFact::HostUid
    );
    if !known || names.is_empty() {
        return Ok(each);
    }
    let read = |pid: &str, file: &str| match std::fs::read_to_string(kernel.real(&format!("/proc/{pid}/{file}"))) {
        Ok(text) => Text::Read(text),
        Err(_) => Text::Missing,
    };
    for pid in pids(kernel)? {
        let Text::Read(groups) = read(&pid, "cgroup") else { continue };
        let Some(name) = names.iter().find_map(|(id, name)| in_group(&groups, id).then_some(name)) else { continue };
        let (Text::Read(status), label) = (read(&pid, "status"), read(&pid, "attr/current")) else { continue };
        let label = if let Text::Read(label) = label { Some(label) } else { None };
        if let Some(value) = held_to(&status, label.as_deref(), fact) {
            each.insert(format!("{name} process {pid}"), Some(value));
        }
    }
    Ok(each)
}

/// Whether one of a process's cgroups is a container's: `…/ID`, `…/docker-ID.scope`, and what is below.
fn in_group(groups: &str, id: &str) -> bool {
    let own = |part: &str| {
        let part = part.strip_suffix(".scope").unwrap_or(part);
        part == id || part.rsplit_once('-').is_some_and(|(_, end)| end == id)
    };
    // The first two fields are the hierarchy's number and its controllers.
    groups.lines().filter_map(|line| line.splitn(3, ':').nth(2)).any(|path| path.split('/').any(own))
}

/// What the kernel holds a process to; None where it does not say.
fn held_to(status: &str, label: Option<&str>, fact: ContainerFact) -> Option<Setting> {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    match fact {
        ContainerFact::NoNewPrivileges => Some(Setting::Flag(field("NoNewPrivs")? == "1")),
        // A filter says nothing of its name.
        ContainerFact::Seccomp => (field("Seccomp")? == "0").then(|| Setting::Text("unconfined".to_owned())),
        ContainerFact::HostUid => field("Uid")?.split_whitespace().next()?.parse().ok().map(Setting::Number),
        ContainerFact::Capabilities => {
            let bits = u64::from_str_radix(field("CapBnd")?, 16).ok()?;
            let has = |(bit, name): (u32, &&str)| (bits.checked_shr(bit)? & 1 == 1).then(|| (*name).to_owned());
            Some(Setting::List((0u32..).zip(&CAPABILITIES).filter_map(has).collect()))
        }
        ContainerFact::Lsm => {
            let label = label?.trim_matches(['\0', '\n', ' ']);
            (!label.is_empty()).then(|| Setting::Text(label.strip_suffix(" (enforce)").unwrap_or(label).to_owned()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use hostmark_attest::workload::{Confinement, Mount};

    use super::*;

    #[test]
    fn e9_each_fact_of_a_container_has_its_form() {
        let set = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect::<BTreeSet<String>>();
        let mount = |source: &str| Mount {
            source: source.to_owned(),
            leads_to: None,
            destination: "/x".to_owned(),
            writable: false,
        };
        let confinement = Confinement {
            capabilities: set(&["CHOWN"]),
            seccomp: "default".to_owned(),
            lsm: "docker-default".to_owned(),
            pids: 7,
            ports: Some(set(&["0.0.0.0:80"])),
            restarts: Some(-1),
            ..Confinement::default()
        };
        let container = Container {
            image: "sha256:00".to_owned(),
            mounts: ["/etc", "/var/run/docker.sock", "/srv", "/dev/sda", "/dev/shm"].map(mount).into(),
            device_rules: set(&["b 8:* rwm"]),
            host_namespaces: set(&["pid"]),
            confinement: Some(confinement),
            ..Container::default()
        };
        let of = |fact| of(&container, fact, &Defaults::default()).map(|value| value.to_string());
        let remapped = Defaults { user_namespace: true, no_new_privileges: true, ..Defaults::default() };
        for (fact, expect) in [
            (ContainerFact::Privileged, Some("false")),
            (ContainerFact::Devices, Some("[/dev/sda, b 8:* rwm]")),
            (ContainerFact::SensitiveMounts, Some("[/dev/sda, /dev/shm, /etc]")),
            (ContainerFact::EngineSockets, Some("[/var/run/docker.sock]")),
            (ContainerFact::HostNamespaces, Some("[pid]")),
            (ContainerFact::Capabilities, Some("[CHOWN]")),
            (ContainerFact::Seccomp, Some("\"default\"")),
            (ContainerFact::NoNewPrivileges, Some("false")),
            (ContainerFact::HostUid, Some("0")),
            (ContainerFact::PidsLimit, Some("7")),
            (ContainerFact::MemoryLimit, Some("0")),
            (ContainerFact::PublishedPorts, Some("[0.0.0.0:80]")),
            (ContainerFact::RestartLimit, Some("-1")),
            (ContainerFact::ImageDigest, Some("\"sha256:00\"")),
            (ContainerFact::HealthCheck, None),
            (ContainerFact::Labels, None),
        ] {
            assert_eq!(of(fact).as_deref(), expect, "{fact:?}");
        }
        assert_eq!(super::of(&container, ContainerFact::NoNewPrivileges, &remapped), Some(Setting::Flag(true)));
        assert_ne!(super::of(&container, ContainerFact::HostUid, &remapped), Some(Setting::Number(0)));
        assert_eq!(super::of(&Container::default(), ContainerFact::Seccomp, &remapped), None, "nothing is stated");
        assert_eq!(host_uid("1000:0", false), Setting::Number(1000));
        assert_eq!(host_uid("app", false), Setting::Text("app".to_owned()));
    }

    #[test]
    fn e2_a_process_is_held_to_what_the_kernel_says() {
        let status =
            "Name:\tsh\nUid:\t100000\t100000\t100000\t100000\nCapBnd:\t00000000a80425fb\nNoNewPrivs:\t0\nSeccomp:\t2\n";
        for (fact, label, expect) in [
            (ContainerFact::NoNewPrivileges, None, Some("false")),
            (ContainerFact::HostUid, None, Some("100000")),
            (ContainerFact::Seccomp, None, None),
            (ContainerFact::Lsm, Some("docker-default (enforce)\n"), Some("\"docker-default\"")),
            (ContainerFact::Lsm, Some("docker-default (complain)\n"), Some("\"docker-default (complain)\"")),
            (ContainerFact::Lsm, Some("unconfined\n"), Some("\"unconfined\"")),
            (ContainerFact::Lsm, None, None),
            (ContainerFact::Privileged, None, None),
        ] {
            assert_eq!(held_to(status, label, fact).map(|value| value.to_string()).as_deref(), expect, "{fact:?}");
        }
        let Some(Setting::List(capabilities)) = held_to(status, None, ContainerFact::Capabilities) else { panic!() };
        assert_eq!(capabilities.len(), 14, "Docker's own: {capabilities:?}");
        assert!(capabilities.contains(&"NET_RAW".to_owned()) && !capabilities.contains(&"SYS_ADMIN".to_owned()));
        let open = status.replace("Seccomp:\t2", "Seccomp:\t0");
        assert_eq!(held_to(&open, None, ContainerFact::Seccomp), Some(Setting::Text("unconfined".to_owned())));
        let long = "ab".repeat(32);
        let in_podman = format!("0::/machine.slice/libpod-{long}.scope/container\n");
        assert_eq!(ids(&in_podman).collect::<Vec<_>>(), [long.as_str()]);
        assert_eq!(ids("0::/system.slice/docker.service\n").count(), 0);
        let id = "c0ffee";
        for (groups, expect) in [
            ("0::/system.slice/docker-c0ffee.scope\n", true),
            ("12:pids:/docker/c0ffee\n0::/\n", true),
            ("0::/machine.slice/libpod-c0ffee.scope/container\n", true),
            ("0::/kubepods/podx/c0ffee\n", true),
            ("0::/docker/c0ffee2\n", false),
            ("0::/\n", false),
        ] {
            assert_eq!(in_group(groups, id), expect, "{groups}");
        }
    }
}
