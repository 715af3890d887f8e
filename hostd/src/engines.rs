//! Measuring container engines: Docker Engine, containerd, Podman, the NVIDIA toolkit.
//!
//! DESIGN §4, "engine manifest". Establishes, for one moment, the content of programs, configuration and units, what their
//! running daemons were started with, and what they say of themselves. Nothing here decides trust, and an error is never
//! skipped: what cannot be read is stated as unreadable.

pub mod config;
pub mod events;

mod api;
mod containerd;
mod docker;
pub(crate) mod files;
mod mounts;
mod nvidia;
mod podman;
pub(crate) mod process;
pub(crate) mod settings;
pub mod transitions;
pub(crate) mod units;
mod workloads;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use hostmark_attest::manifest::{EngineManifest, EngineState, FileState, Setting, VERSION};

pub use config::{EnginesConfig, Processes};
pub use files::DigestCache;
use files::{Files, Found, join};
use process::Running;
use transitions::Stamp;
pub use workloads::{WorkloadCache, inventory};

/// The engines that can be measured.
pub const NAMES: [&str; 4] = ["docker", "containerd", "podman", "nvidia"];

/// Where programs are looked for. Different paths to one file are one entry.
const PROGRAM_DIRECTORIES: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// A manifest and the paths whose change makes it stale.
#[derive(Debug)]
pub struct Measured {
    /// The state of the engines.
    pub manifest: EngineManifest,
    /// Every real path that was looked at, whether something was there or not.
    pub looked_at: BTreeSet<PathBuf>,
    /// What was seen of files and directories beside their content, to be compared with the next measurement.
    pub stamps: BTreeMap<String, Stamp>,
}

/// Measures the enabled engines.
#[must_use]
pub fn measure(config: &EnginesConfig, cache: &mut DigestCache) -> Measured {
    let mut files = Files::new(&config.root, cache);
    let running = process::find(config, &mut files, &["dockerd", "containerd"]);
    let mounted = mounts::points(config).unwrap_or_else(|table| {
        files.unreadable(&format!("mounts:{table}"), "it cannot be read: a mount over an engine's file would not show");
        BTreeSet::new()
    });
    let mut engines = BTreeMap::new();
    for name in NAMES {
        if !config.enabled.iter().any(|enabled| enabled == name) {
            continue;
        }
        let mut engine = EngineState::default();
        match name {
            "docker" => docker::measure(config, &mut files, &running, &mut engine),
            "containerd" => containerd::measure(config, &mut files, &running, &mut engine),
            "podman" => podman::measure(&mut files, &mut engine),
            _ => nvidia::measure(&mut files, &mut engine),
        }
        engine.mounted = mounts::over(&mounted, engine.files().map(|(path, _)| path));
        let regular = engine.files().filter(|(_, state)| matches!(state, FileState::File { .. })).map(|(path, _)| path);
        for (path, why) in mounts::seen_otherwise(config, regular) {
            files.unreadable(&path, why);
        }
        engine.unreadable = files.take_unreadable();
        engines.insert(name.to_owned(), engine);
    }
    let manifest = EngineManifest { version: VERSION, root_is_default: config.root_is_default(), engines };
    Measured { manifest, looked_at: files.looked_at, stamps: files.stamps }
}

/// What a unit's fragment and drop-ins put into its environment (`NAME=value`), its environment files left out; and what of them cannot be read.
#[must_use]
pub fn unit_environment(root: &Path, name: &str) -> (Vec<String>, Vec<String>) {
    let mut cache = DigestCache::default();
    let (mut files, mut engine) = (Files::new(root, &mut cache), EngineState::default());
    units::measure(&mut files, name, &mut engine);
    let lines = engine.units.get(name).map(|unit| unit.environment.clone()).unwrap_or_default();
    let unreadable = files.take_unreadable().into_iter().map(|one| one.what).collect();
    (lines.iter().flat_map(|line| units::words(line)).collect(), unreadable)
}

/// Measures programs by name wherever they are looked for; a name that ends in `*` stands for all that begin so.
fn programs(files: &mut Files<'_>, names: &[&str], into: &mut BTreeMap<String, FileState>) {
    for directory in PROGRAM_DIRECTORIES {
        for name in names {
            match name.strip_suffix('*') {
                None => {
                    files.measure(&join(directory, name), into);
                }
                Some(prefix) => {
                    for found in files.list(directory).into_iter().filter(|found| found.starts_with(prefix)) {
                        files.measure(&join(directory, &found), into);
                    }
                }
            }
        }
    }
}

/// Measures a program that configuration names: by path, or by name wherever programs are looked for.
fn program(files: &mut Files<'_>, named: &str, into: &mut BTreeMap<String, FileState>) {
    if !named.starts_with('/') {
        programs(files, &[named.trim_end_matches('*')], into);
    } else if matches!(files.measure(named, into), Found::Missing) {
        files.unreadable(named, "the configuration names it, and it is absent");
    }
}

/// Measures a unit with its environment files, and returns the arguments it would start with.
fn unit(files: &mut Files<'_>, name: &str, engine: &mut EngineState) -> Vec<String> {
    units::measure(files, name, engine);
    let variables = units::environment(files, name, engine);
    engine.units.get(name).map(|unit| units::arguments(unit, &variables)).unwrap_or_default()
}

/// States settings under a source's name.
fn state(engine: &mut EngineState, source: &str, settings: BTreeMap<String, Setting>) {
    for (name, value) in settings.into_iter().take(settings::SETTINGS_MAX) {
        engine.settings.entry(name).or_default().insert(source.to_owned(), value);
    }
}

/// A path that a running daemon names, as seen from the measured root.
pub(crate) fn below_root(config: &EnginesConfig, path: &str) -> String {
    match Path::new(path).strip_prefix(&config.root) {
        Ok(below) if !config.root_is_default() => format!("/{}", below.display()),
        _ => path.to_owned(),
    }
}

/// Puts the daemons with this program's name into an engine, and returns their argument lists.
fn take_processes(running: &[Running], name: &str, engine: &mut EngineState) -> Vec<Vec<String>> {
    let mut lists = Vec::new();
    for one in running.iter().filter(|one| one.name == name) {
        if engine.processes.len() < hostmark_attest::manifest::LIST_MAX && engine.processes.insert(one.state.clone()) {
            lists.push(one.state.argv.clone());
        }
    }
    lists
}

/// The name under which several daemons of one kind state their settings.
fn source(kind: &str, number: usize) -> String {
    if number == 0 { kind.to_owned() } else { format!("{kind}#{}", number.saturating_add(1)) }
}
