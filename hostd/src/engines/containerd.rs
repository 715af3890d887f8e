//! containerd: config.toml with its imports, registry hosts, shims and runtimes, containerd.service.
//!
//! containerd-config.toml(5), "imports"; docs/hosts.md. Establishes what containerd would load. `containerd config dump`
//! shows the merge as the installed program does it; the running daemon has no interface that states its configuration, so a
//! file that was changed and not loaded shows in the files only.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hostmark_attest::digest::sha256;
use hostmark_attest::manifest::{EngineState, FileState, Setting};

use super::config::EnginesConfig;
use super::files::{Files, Found, TEXT_FILE_MAX, bounded};
use super::process::Running;
use super::{below_root, program, programs, settings, state, take_processes, unit, units};

const PROGRAMS: [&str; 9] =
    ["containerd", "containerd-shim*", "containerd-stress", "ctr", "nerdctl", "runc", "crun", "runsc", "youki"];
/// Most files that imports may add up to.
const IMPORTS_MAX: usize = 64;
/// `config dump` reads a few files; at boot a crowded machine needs some seconds for it, and one that takes longer hangs.
const DUMP_DEADLINE: Duration = Duration::from_secs(15);
/// A dump that fails is tried once more.
const DUMP_TRIES: usize = 2;

pub(super) fn measure(config: &EnginesConfig, files: &mut Files<'_>, running: &[Running], engine: &mut EngineState) {
    programs(files, &PROGRAMS, &mut engine.binaries);
    let mut lists = Vec::new();
    let from_unit = unit(files, "containerd.service", engine);
    if let Some(path) = from_unit.first() {
        if path.starts_with('/') {
            program(files, path, &mut engine.binaries);
        }
        lists.push(from_unit);
    }
    lists.extend(take_processes(running, "containerd", engine));
    if config.root_is_default() {
        // A restart makes it anew: worth measuring again.
        files.looked_at.insert("/run/containerd/containerd.sock".into());
    }
    let mut configurations = BTreeSet::new();
    for arguments in &lists {
        // dockerd starts a containerd of its own with a file that it writes below its state directory.
        let named = settings::flag_value(arguments, &["config", "c"]).map(|path| below_root(config, &path));
        if let Some(path) = named.as_ref().filter(|path| files.leads_to(path).is_none()) {
            files.unreadable(path, "the command line names it, and it is absent");
        }
        configurations.insert(named.unwrap_or_else(|| config.containerd_config.clone()));
        if let Some(address) = settings::flag_value(arguments, &["address", "a"]) {
            let stated = BTreeMap::from([("address".to_owned(), Setting::Text(bounded(&address)))]);
            state(engine, "argv", stated);
        }
    }
    if configurations.is_empty() {
        configurations.insert(config.containerd_config.clone());
    }
    files.tree("/etc/containerd", &|_| false, &mut engine.configuration);
    for path in &configurations {
        let merged = read_with_imports(files, path, engine);
        name_runtimes(files, &merged, engine);
        for directory in certificates(&merged) {
            files.tree(&directory, &|_| false, &mut engine.configuration);
        }
        let dumped = if config.root_is_default() && config.ask_containerd { dump(files, path, engine) } else { None };
        let (source, settings) = dumped.map_or(("file", merged), |dumped| ("dump", dumped));
        // Several containerds (dockerd's own, Kubernetes') are several configurations, not sources of one.
        let settings = match *path == config.containerd_config {
            true => settings,
            false => settings.into_iter().map(|(name, value)| (format!("{path}:{name}"), value)).collect(),
        };
        state(engine, source, settings);
    }
    engine.installed = engine.binaries.keys().any(|path| path.ends_with("/containerd")) || !engine.processes.is_empty();
}

/// The settings of a file and its imports; as in containerd, an import wins over the file that imports it.
fn read_with_imports(files: &mut Files<'_>, path: &str, engine: &mut EngineState) -> BTreeMap<String, Setting> {
    let mut merged = BTreeMap::new();
    let mut waiting = vec![path.to_owned()];
    let mut done = BTreeSet::new();
    while let Some(path) = waiting.pop() {
        if !done.insert(path.clone()) {
            continue;
        }
        if done.len() > IMPORTS_MAX {
            files.unreadable(&path, "too many imports");
            break;
        }
        let found = files.read(&path, &mut engine.configuration);
        if matches!(found, Found::Missing) {
            continue;
        }
        let Some((table, settings)) = found.text().and_then(|text| settings::from_toml(&text)) else {
            files.unreadable(&path, "it is not TOML");
            continue;
        };
        merged.extend(settings);
        let imports = table.get("imports").and_then(toml::Value::as_array).into_iter().flatten();
        let mut next: Vec<String> = Vec::new();
        for pattern in imports.filter_map(toml::Value::as_str) {
            let pattern = match path.rsplit_once('/') {
                Some((directory, _)) if !pattern.starts_with('/') => format!("{directory}/{pattern}"),
                _ => pattern.to_owned(),
            };
            next.extend(units::glob(files, &pattern));
        }
        // The last one that is applied wins, and the stack gives back the last one first.
        next.reverse();
        waiting.extend(next);
    }
    merged.remove("imports");
    merged
}

/// OCI runtimes of the CRI plugin: `….runtimes.NAME.options.BinaryName`.
fn name_runtimes(files: &mut Files<'_>, merged: &BTreeMap<String, Setting>, engine: &mut EngineState) {
    for (name, value) in merged {
        let Some((_, rest)) = name.split_once(".runtimes.") else { continue };
        if let (Some(runtime), Setting::Text(path)) = (rest.strip_suffix(".options.BinaryName"), value)
            && !path.is_empty()
        {
            program(files, path, &mut engine.binaries);
            engine.runtimes.insert(runtime.to_owned(), path.clone());
        }
    }
}

/// Directories with registries' `hosts.toml` and certificates, separated by colons.
fn certificates(merged: &BTreeMap<String, Setting>) -> Vec<String> {
    let mut directories = Vec::new();
    for (name, value) in merged {
        if let (true, Setting::Text(paths)) = (name.ends_with("registry.config_path"), value) {
            directories.extend(paths.split(':').filter(|path| path.starts_with('/')).map(str::to_owned));
        }
    }
    directories
}

/// Runs `containerd --config PATH config dump`: no shell, an empty environment, bounded time and output, and only a program
/// that root alone can write.
fn dump(files: &mut Files<'_>, path: &str, engine: &EngineState) -> Option<BTreeMap<String, Setting>> {
    let (program, _) = engine.binaries.iter().find(|(path, state)| {
        let ours = matches!(state, FileState::File { mode, uid: 0, .. } if mode.0 & 0o022 == 0 && mode.0 & 0o111 != 0);
        ours && path.ends_with("/containerd")
    })?;
    // No content, but an answer: one that is missing is missing now, and leaves nothing unread behind.
    let what = format!("dump:{program}");
    // The same program says the same of the same files.
    let key = dump_key(program, path, engine);
    if let Some(known) = files.known_dump(&key) {
        return Some(known);
    }
    let end = Instant::now().checked_add(DUMP_DEADLINE)?;
    let run = || -> Option<String> {
        let mut child = Command::new(program)
            .args(["--config", path, "config", "dump"])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let output = child.stdout.take()?;
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            output.take(TEXT_FILE_MAX).read_to_string(&mut text).ok().map(|_| text)
        });
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break Some(status),
                Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(5)),
                _ => break None,
            }
        };
        if status.is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let text = reader.join().ok().flatten();
        text.filter(|_| status.is_some_and(|status| status.success()))
    };
    let attempt = |_| run().and_then(|text| settings::from_toml(&text)).map(|(_, settings)| settings);
    let mut dumped = (0..DUMP_TRIES).find_map(attempt);
    match &mut dumped {
        Some(dumped) => {
            dumped.remove("imports");
            files.keep_dump(key, dumped.clone());
        }
        None => files.unreadable(&what, "it fails, takes too long, or is not TOML"),
    }
    dumped
}

/// What a dump depends on: the program, and every file that was measured as configuration.
fn dump_key(program: &str, path: &str, engine: &EngineState) -> [u8; 32] {
    let parts = (program, path, engine.binaries.get(program), &engine.configuration);
    sha256(&[&serde_json::to_vec(&parts).unwrap_or_default()])
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{DigestCache, measure};
    use super::*;

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn imports_are_followed_once_and_win_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        put(root, "usr/bin/containerd", "containerd");
        put(root, "usr/bin/containerd-shim-runc-v2", "shim");
        put(root, "opt/nvidia-container-runtime", "nvidia");
        put(
            root,
            "etc/containerd/config.toml",
            "version = 2\noom_score = 1\nimports = [\"conf.d/*.toml\", \"/opt/more.toml\"]\n\
             [plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/opt/certs.d\"\n",
        );
        put(root, "etc/containerd/conf.d/10-a.toml", "oom_score = 2\nimports = [\"/etc/containerd/config.toml\"]\n");
        put(root, "etc/containerd/conf.d/20-b.toml", "oom_score = 3\n");
        put(root, "etc/containerd/conf.d/ignored.txt", "oom_score = 4\n");
        put(
            root,
            "opt/more.toml",
            "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.nvidia.options]\n\
             BinaryName = \"/opt/nvidia-container-runtime\"\n",
        );
        put(root, "opt/certs.d/docker.io/hosts.toml", "server = \"https://mirror\"\n");
        let config = EnginesConfig { enabled: vec!["containerd".into()], ..EnginesConfig::of_root(root) };
        let manifest = measure(&config, &mut DigestCache::default()).manifest;
        let containerd = &manifest.engines["containerd"];
        assert!(containerd.unreadable.is_empty(), "{:?}", containerd.unreadable);
        assert_eq!(containerd.settings["oom_score"]["file"], Setting::Number(3));
        for path in ["/opt/more.toml", "/opt/certs.d/docker.io/hosts.toml", "/etc/containerd/conf.d/20-b.toml"] {
            assert!(containerd.configuration.contains_key(path), "{path}");
        }
        for path in ["/opt/nvidia-container-runtime", "/usr/bin/containerd-shim-runc-v2"] {
            assert!(containerd.binaries.contains_key(path), "{path}");
        }
        assert_eq!(containerd.runtimes["nvidia"], "/opt/nvidia-container-runtime");
    }

    #[test]
    fn an_import_that_is_not_toml_is_content_unknown() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "etc/containerd/config.toml", "imports = [\"/etc/x.toml\"]\n");
        put(dir.path(), "etc/x.toml", "not toml");
        let config = EnginesConfig { enabled: vec!["containerd".into()], ..EnginesConfig::of_root(dir.path()) };
        let manifest = measure(&config, &mut DigestCache::default()).manifest;
        assert_eq!(manifest.engines["containerd"].unreadable.first().unwrap().what, "/etc/x.toml");
    }
}
