//! A canary seen from outside: what the kernel says of its process. proc(5), namespaces(7), cgroups(7).
//!
//! Establishes that the process is the canary's program, byte for byte, and reads its confinement where the container cannot lie: status, limits,
//! maps, namespaces, control group, mounts, device nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use super::engine::{Inspected, Told};
use super::image::PROGRAM;

/// Namespaces that a container has of its own, but for the user's (whose map says more).
const NAMESPACES: [&str; 6] = ["cgroup", "ipc", "mnt", "net", "pid", "uts"];
/// Deepest directory below /dev that is looked into.
const DEPTH_MAX: usize = 4;
/// Most entries below /dev that are looked at.
const NODES_MAX: usize = 4096;
/// Nodes that engines give every container, some by a mount.
const USUAL_NODES: [&str; 9] = ["null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "fuse"];
/// Files that engines mount into every container.
const USUAL_MOUNTS: [&str; 8] = [
    "/",
    "/etc/resolv.conf",
    "/etc/hostname",
    "/etc/hosts",
    "/run/.containerenv",
    "/run/secrets",
    "/dev/shm",
    "/sys/fs/cgroup",
];

/// What was seen of one canary.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// Its own words.
    pub(super) words: BTreeMap<String, String>,
    /// /proc/PID/status.
    pub(super) status: BTreeMap<String, String>,
    /// First line of /proc/PID/uid_map, single spaces.
    pub(super) uid_map: String,
    /// Hard limits of /proc/PID/limits, by name; -1: none.
    pub(super) limits: BTreeMap<String, i64>,
    /// Namespaces that it shares with the host.
    pub(super) of_host: BTreeSet<String>,
    /// Path of its control group without the part that names itself.
    pub(super) group: Option<String>,
    /// `pids.max`; -1: none.
    pub(super) pids_max: Option<i64>,
    /// /proc/PID/attr/current without its mode.
    pub(super) label: Option<String>,
    /// Mount points from the host's file systems.
    pub(super) mounts: Vec<String>,
    /// Device nodes beyond the usual ones.
    pub(super) devices: Vec<String>,
    /// One of them is a block device.
    pub(super) disk: bool,
}

/// Looks at a container's first process.
pub(super) fn look(canary: &Inspected, words: BTreeMap<String, String>) -> Told<Look> {
    let proc = PathBuf::from(format!("/proc/{}", canary.pid));
    is_canary(&proc)?;
    let text = |name: &str| {
        fs::read_to_string(proc.join(name)).map_err(|error| format!("{}: {error}", proc.join(name).display()))
    };
    let mut seen = Look { words, ..Look::default() };
    for (name, value) in text("status")?.lines().filter_map(|line| line.split_once(':')) {
        seen.status.insert(name.to_owned(), value.trim().to_owned());
    }
    let map = text("uid_map")?;
    seen.uid_map = map.lines().next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
    seen.limits = limits(&text("limits")?);
    for kind in NAMESPACES {
        if shared(&proc, kind)? {
            seen.of_host.insert(kind.to_owned());
        }
    }
    let groups = text("cgroup")?;
    seen.group = group(&groups, &canary.id);
    seen.pids_max = pids_max(&groups);
    seen.label = text("attr/current").ok().map(|label| {
        let label = label.trim_end_matches(['\n', '\0']);
        label.rsplit_once(" (").map_or(label, |(label, _)| label).to_owned()
    });
    let host = fs::read_to_string("/proc/self/mountinfo").map_err(|error| format!("/proc/self/mountinfo: {error}"))?;
    seen.mounts = mounts(&text("mountinfo")?, &host);
    let mut count = NODES_MAX;
    nodes(&proc.join("root/dev"), "", 0, &mut count, &mut seen)?;
    seen.devices.sort();
    // What was read above was read of the canary and not of a process that got its number.
    is_canary(&proc)?;
    Ok(seen)
}

/// The process runs the program that this image was made of.
fn is_canary(proc: &Path) -> Told<()> {
    let mut program = Vec::new();
    let most = u64::try_from(PROGRAM.len()).unwrap_or(u64::MAX).saturating_add(1);
    let read = fs::File::open(proc.join("exe")).and_then(|file| file.take(most).read_to_end(&mut program));
    match read {
        Ok(_) if program == PROGRAM => Ok(()),
        Ok(_) => Err(format!("{}: the process that the engine names is not the canary", proc.display())),
        Err(error) => Err(format!("{}: {error}", proc.join("exe").display())),
    }
}

fn shared(proc: &Path, kind: &str) -> Told<bool> {
    let link = |path: PathBuf| fs::read_link(&path).map_err(|error| format!("{}: {error}", path.display()));
    let own = link(proc.join("ns").join(kind))?;
    // hostd's unit may give it namespaces of its own; the host's are those of PID 1 too.
    let first = fs::read_link(Path::new("/proc/1/ns").join(kind)).ok();
    Ok(link(Path::new("/proc/self/ns").join(kind))? == own || first == Some(own))
}

/// `Max open files            1024                 524288               files`
fn limits(text: &str) -> BTreeMap<String, i64> {
    let line = |line: &str| {
        let (name, values) = line.split_at_checked(26)?;
        let hard = values.split_whitespace().nth(1)?;
        let hard = if hard == "unlimited" { -1 } else { hard.parse().ok()? };
        Some((name.trim().to_owned(), hard))
    };
    text.lines().filter_map(line).collect()
}

/// The path up to the component that has the container's id.
fn group(groups: &str, id: &str) -> Option<String> {
    let id = Some(id).filter(|id| id.len() >= 12)?;
    groups.lines().filter_map(|line| line.splitn(3, ':').nth(2)).find_map(|path| {
        let parts: Vec<&str> = path.split('/').collect();
        let at = parts.iter().position(|part| part.contains(id))?;
        let above = parts.get(..at)?.join("/");
        Some(if above.is_empty() { "/".to_owned() } else { above })
    })
}

fn pids_max(groups: &str) -> Option<i64> {
    let path = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let base = match controllers {
            "" => "/sys/fs/cgroup",
            _ if controllers.split(',').any(|one| one == "pids") => "/sys/fs/cgroup/pids",
            _ => return None,
        };
        fs::read_to_string(format!("{base}{path}/pids.max")).ok()
    };
    let max = groups.lines().find_map(path)?;
    if max.trim() == "max" { Some(-1) } else { max.trim().parse().ok() }
}

/// Mount points whose file system is one that the host has mounted too: a bind mount, a volume.
fn mounts(own: &str, host: &str) -> Vec<String> {
    fn fields(line: &str) -> Option<(&str, &str, &str)> {
        let mut fields = line.split(' ').skip(2);
        Some((fields.next()?, fields.next()?, fields.next()?))
    }
    let of_host: BTreeSet<&str> = host.lines().filter_map(|line| Some(fields(line)?.0)).collect();
    let foreign = |line: &str| {
        let (device, root, point) = fields(line)?;
        let kernel = line.split_once(" - ").and_then(|(_, rest)| rest.split(' ').next());
        let kernel = matches!(kernel, Some("proc" | "sysfs" | "cgroup" | "cgroup2" | "mqueue" | "devpts"));
        let usual = USUAL_MOUNTS.contains(&point)
            // A path of the kernel's that is hidden behind /dev/null, and nodes of /dev that are mounted where they cannot be made.
            || (root == "/null" && (point.starts_with("/proc/") || point.starts_with("/sys/")))
            || point.strip_prefix("/dev/").is_some_and(|node| USUAL_NODES.contains(&node));
        (of_host.contains(device) && !kernel && !usual).then(|| point.to_owned())
    };
    let mut points: Vec<String> = own.lines().filter_map(foreign).collect();
    points.sort();
    points.dedup();
    points
}

fn nodes(directory: &Path, below: &str, depth: usize, count: &mut usize, seen: &mut Look) -> Told<()> {
    let unreadable = |error: std::io::Error| format!("{}: {error}", directory.display());
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        *count = count.checked_sub(1).ok_or("there are too many device nodes")?;
        let kind = entry.file_type().map_err(unreadable)?;
        let name = format!("{below}{}", entry.file_name().to_string_lossy());
        if kind.is_dir() && depth < DEPTH_MAX && !matches!(name.as_str(), "pts" | "shm" | "mqueue") {
            nodes(&entry.path(), &format!("{name}/"), depth.saturating_add(1), count, seen)?;
        } else if (kind.is_char_device() || kind.is_block_device()) && !USUAL_NODES.contains(&name.as_str()) {
            seen.disk |= kind.is_block_device();
            seen.devices.push(name);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_prints_is_read_as_it_means() {
        let id = "0123456789abcdef";
        for (groups, expect) in [
            ("0::/system.slice/docker-0123456789abcdef.scope\n", Some("/system.slice")),
            ("12:pids:/docker/0123456789abcdef\n0::/\n", Some("/docker")),
            ("0::/machine.slice/libpod-0123456789abcdef.scope/container\n", Some("/machine.slice")),
            ("0::/0123456789abcdef\n", Some("/")),
            ("0::/\n", None),
        ] {
            assert_eq!(group(groups, id).as_deref(), expect, "{groups}");
        }
        assert_eq!(group("0::/docker/x\n", ""), None, "no id is in every name");
        let read = limits(
            "Limit                     Soft Limit           Hard Limit           Units     \n\
             Max processes             unlimited            unlimited            processes \n\
             Max open files            1024                 524288               files     \n",
        );
        assert_eq!((read["Max processes"], read["Max open files"]), (-1, 524_288));
        let host =
            "1 0 254:0 / / rw - ext4 /dev/vda rw\n2 1 0:30 / /run rw - tmpfs t rw\n3 1 0:5 / /dev rw - devtmpfs d rw\n";
        let own = "9 8 0:99 / / rw - overlay overlay rw\n10 9 0:100 / /proc rw - proc proc rw\n11 9 0:101 / /dev rw - tmpfs tmpfs rw\n";
        assert_eq!(mounts(own, host), Vec::<String>::new());
        let more = format!(
            "{own}12 9 254:0 /v/hosts /etc/hosts rw - ext4 /dev/vda rw\n13 9 0:5 /null /proc/kcore rw - devtmpfs d rw\n\
             14 9 254:0 /etc /host rw - ext4 /dev/vda rw\n15 9 0:30 / /run rw - tmpfs t rw\n16 9 0:5 /sda /dev/sda rw - devtmpfs d rw\n"
        );
        assert_eq!(mounts(&more, host), ["/dev/sda", "/host", "/run"], "each comes from the host");
    }

    #[test]
    fn another_process_is_no_canary() {
        let own = Inspected { pid: std::process::id(), ..Inspected::default() };
        assert!(look(&own, BTreeMap::new()).is_err_and(|why| why.contains("is not the canary")));
    }
}
