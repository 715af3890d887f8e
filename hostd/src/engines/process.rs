//! Running daemons: the program that really runs, its arguments, and the few variables that change what it does.
//!
//! proc(5): `/proc/PID/{exe,cmdline,environ,ns}`. Establishes what the kernel says of processes at one moment. A daemon that
//! rewrites its own arguments, or hides behind another name, is not found here; IMA is what sees its program.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hostmark_attest::manifest::{LIST_MAX, ProcessState, TEXT_MAX};

use super::config::{EnginesConfig, Processes};
use super::files::{Files, bounded};

/// Most bytes of `/proc/PID/cmdline` and `environ` that are read: Linux's default for one program's arguments.
const ARGUMENTS_MAX: u64 = 2 << 20;
/// Most processes that are looked at: Linux's largest pid_max is 4 million, a host's tasks are far fewer.
const PROCESSES_MAX: usize = 1 << 17;

/// Variables whose value changes what an engine loads, where it looks, or what it does.
const VARIABLES: [&str; 12] = [
    "LD_PRELOAD",
    "LD_AUDIT",
    "LD_LIBRARY_PATH",
    "GODEBUG",
    "GCONV_PATH",
    "HOME",
    "PATH",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "CONTAINERS_CONF",
    "CONTAINERS_STORAGE_CONF",
];
/// Prefixes of such variables.
const VARIABLE_PREFIXES: [&str; 3] = ["DOCKER_", "CONTAINERD_", "BUILDKIT_"];
/// Variables that may hold a password: only a digest is stated.
const SECRET_VARIABLES: [&str; 6] =
    ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];

/// A daemon and the path of its program, before it is put into an engine.
pub(crate) struct Running {
    /// Base name of the program.
    pub(crate) name: String,
    pub(crate) state: ProcessState,
}

/// Finds the running daemons whose program has one of these names.
pub(crate) fn find(config: &EnginesConfig, files: &mut Files<'_>, names: &[&str]) -> Vec<Running> {
    let (every, pids) = candidates(config);
    let own_pids = namespace(Path::new("/proc/self"), "pid");
    // hostd's own unit gives it a mount namespace; the host's is that of PID 1.
    let first = if config.root_is_default() { namespace(Path::new("/proc/1"), "mnt") } else { None };
    let own_mounts = first.or_else(|| namespace(Path::new("/proc/self"), "mnt"));
    let mut running = Vec::new();
    for pid in pids {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        // A process that ends while we look at it is simply not there.
        let Ok(link) = std::fs::read_link(proc.join("exe")) else { continue };
        let link = link.to_string_lossy().into_owned();
        let exe = link.strip_suffix(" (deleted)").unwrap_or(&link);
        // A program that was renamed after its start shows its new name; the task still has the one it was started by.
        let comm = std::fs::read_to_string(proc.join("comm")).unwrap_or_default();
        let by_file = exe.rsplit('/').next().unwrap_or_default();
        let Some(name) = names.iter().copied().find(|name| *name == by_file || *name == comm.trim_end()) else {
            continue;
        };
        if every && namespace(&proc, "pid") != own_pids {
            continue;
        }
        let Some(argv) = read_list(&proc.join("cmdline")) else { continue };
        let Ok(mut program) = File::open(proc.join("exe")) else {
            files.unreadable(exe, "the running program cannot be read");
            continue;
        };
        let Ok(meta) = program.metadata() else { continue };
        let foreign_mounts = namespace(&proc, "mnt") != own_mounts;
        let at_path = std::fs::metadata(proc.join("root").join(exe.trim_start_matches('/')));
        let same = at_path.is_ok_and(|there| (there.dev(), there.ino()) == (meta.dev(), meta.ino()));
        let same = same && name == by_file;
        let state = ProcessState {
            sha256: files.digest_of(&mut program),
            exe: bounded(&super::below_root(config, exe)),
            deleted: meta.nlink() == 0 || !same,
            foreign_mounts,
            argv: argv.iter().take(LIST_MAX).map(|argument| bounded(argument)).collect(),
            environment: variables(&read_list(&proc.join("environ")).unwrap_or_default()),
        };
        if !foreign_mounts && !config.root_is_default() {
            // The engine of a test or a demo runs the machine's own program.
            files.looked_at.insert(PathBuf::from(exe));
        }
        running.push(Running { name: name.to_owned(), state });
    }
    running
}

/// Processes that are looked at, and whether that is every one of this PID namespace.
fn candidates(config: &EnginesConfig) -> (bool, Vec<u32>) {
    let every = match config.processes {
        Processes::All => true,
        Processes::Auto => config.root_is_default(),
        Processes::PidFiles | Processes::None => false,
    };
    let pids = match config.processes {
        Processes::None => Vec::new(),
        _ if every => all_pids(),
        _ => config.pid_files.iter().filter_map(|path| pid_in(path)).collect(),
    };
    (every, pids)
}

/// The running daemons with this name, of this PID namespace.
pub(crate) fn pids(config: &EnginesConfig, name: &str) -> Vec<u32> {
    let (every, pids) = candidates(config);
    let own = namespace(Path::new("/proc/self"), "pid");
    let named = |pid: &u32| {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let comm = std::fs::read_to_string(proc.join("comm")).unwrap_or_default();
        let exe = std::fs::read_link(proc.join("exe")).unwrap_or_default();
        let exe = exe.to_string_lossy().trim_end_matches(" (deleted)").to_owned();
        let named = comm.trim_end() == name || exe.rsplit('/').next() == Some(name);
        named && (!every || namespace(&proc, "pid") == own)
    };
    pids.into_iter().filter(named).collect()
}

/// When the first of the running daemons with this name was started; None when none runs or that cannot be told.
pub(crate) fn started(config: &EnginesConfig, name: &str) -> Option<SystemTime> {
    // proc(5): `starttime` counts from the boot, in hundredths of a second on every architecture.
    let read = |path: String| std::fs::read_to_string(path).ok();
    let uptime: f64 = read("/proc/uptime".to_owned())?.split(' ').next()?.parse().ok()?;
    let booted = SystemTime::now().checked_sub(Duration::try_from_secs_f64(uptime).ok()?)?;
    let start = |pid: u32| {
        // The name in parentheses may hold spaces; the fields after it are counted from the third.
        let stat = read(format!("/proc/{pid}/stat"))?;
        let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
        booted.checked_add(Duration::from_millis(ticks.checked_mul(10)?))
    };
    pids(config, name).into_iter().filter_map(start).min()
}

fn all_pids() -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let names = entries.take(PROCESSES_MAX).filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut pids: Vec<u32> = names.filter_map(|name| name.parse().ok()).collect();
    pids.sort_unstable();
    pids
}

fn pid_in(path: &Path) -> Option<u32> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn namespace(proc: &Path, kind: &str) -> Option<PathBuf> {
    std::fs::read_link(proc.join("ns").join(kind)).ok()
}

/// Texts that end in a zero byte.
fn read_list(path: &Path) -> Option<Vec<String>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(ARGUMENTS_MAX).read_to_end(&mut bytes).ok()?;
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    Some(bytes.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned()).collect())
}

fn variables(environ: &[String]) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for (name, value) in environ.iter().filter_map(|entry| entry.split_once('=')) {
        if name.len() > TEXT_MAX {
            continue;
        }
        if SECRET_VARIABLES.contains(&name) {
            let digest = hostmark_attest::digest::sha256(&[value.as_bytes()]);
            variables.insert(name.to_owned(), format!("sha256:{}", hex::encode(digest)));
        } else if VARIABLES.contains(&name) || VARIABLE_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            variables.insert(name.to_owned(), bounded(value));
        }
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::super::files::DigestCache;
    use super::*;

    #[test]
    fn e6_a_deleted_or_replaced_running_program_is_seen_by_its_inode() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("dockerd");
        std::fs::copy("/bin/sleep", &program).unwrap();
        let mut child = std::process::Command::new(&program).arg("60").env("LD_PRELOAD", "").spawn().unwrap();
        let pid_file = dir.path().join("pid");
        std::fs::write(&pid_file, child.id().to_string()).unwrap();
        let config = EnginesConfig { pid_files: vec![pid_file], ..EnginesConfig::of_root(dir.path()) };
        let look = || {
            let mut cache = DigestCache::default();
            let mut files = Files::new(dir.path(), &mut cache);
            find(&config, &mut files, &["dockerd"]).pop().map(|running| running.state)
        };
        // Between fork and exec the child is still this test.
        let honest = (0..200)
            .find_map(|_| {
                std::thread::sleep(std::time::Duration::from_millis(5));
                look()
            })
            .unwrap();
        let content = hostmark_attest::digest::sha256(&[&std::fs::read(&program).unwrap()]);
        std::fs::rename(&program, dir.path().join("moved")).unwrap();
        let moved = look();
        std::fs::write(&program, "another").unwrap();
        let replaced = look();
        std::fs::remove_file(dir.path().join("moved")).unwrap();
        std::fs::remove_file(&program).unwrap();
        let deleted = look();
        child.kill().unwrap();
        child.wait().unwrap();

        assert!(!honest.deleted && !honest.foreign_mounts);
        assert_eq!(honest.argv.last().map(String::as_str), Some("60"));
        assert_eq!(honest.sha256.unwrap().0, content);
        assert!(honest.environment.contains_key("LD_PRELOAD"));
        for (step, state) in [("moved", moved), ("replaced", replaced), ("deleted", deleted)] {
            let state = state.unwrap_or_else(|| panic!("{step}: not found"));
            assert!(state.deleted, "{step}");
            assert_eq!(state.sha256, honest.sha256, "{step}: what runs is what is measured");
        }
    }
}
