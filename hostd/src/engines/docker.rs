//! Docker Engine: dockerd(8), daemon.json, docker.service and docker.socket, `GET /info`.
//!
//! Establishes the programs that run containers, the configuration that the daemon would read, what it was started with and
//! what it says it runs with. `/etc/docker/key.json` is left out: each daemon generates its own and nothing reads it.

use hostmark_attest::manifest::{EngineState, Unreadable};

use super::config::EnginesConfig;
use super::files::{Files, Found, bounded};
use super::process::Running;
use super::{api, below_root, program, programs, settings, source, state, take_processes, unit};

/// Programs that start, supervise or network containers for Docker Engine.
const PROGRAMS: [&str; 12] = [
    "dockerd",
    "docker",
    "docker-proxy",
    "docker-init",
    "docker-runc",
    "docker-containerd*",
    "rootlesskit",
    "tini",
    "runc",
    "crun",
    "runsc",
    "youki",
];
/// Where command-line plugins live: programs that `docker` runs as its caller.
const PLUGIN_DIRECTORIES: [&str; 4] = [
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
];

pub(super) fn measure(config: &EnginesConfig, files: &mut Files<'_>, running: &[Running], engine: &mut EngineState) {
    programs(files, &PROGRAMS, &mut engine.binaries);
    for directory in PLUGIN_DIRECTORIES {
        files.tree(directory, &|_| false, &mut engine.binaries);
    }
    let volatile = |name: &str| name == "key.json";
    files.tree("/etc/docker", &volatile, &mut engine.configuration);
    for path in &config.extra {
        files.tree(path, &volatile, &mut engine.configuration);
    }
    for path in ["/etc/default/docker", "/etc/sysconfig/docker", "/etc/sysconfig/docker-storage"] {
        files.measure(path, &mut engine.environment_files);
    }
    let mut lists: Vec<(String, Vec<String>)> = Vec::new();
    let from_unit = unit(files, "docker.service", engine);
    if !from_unit.is_empty() {
        lists.push(("unit".to_owned(), from_unit));
    }
    unit(files, "docker.socket", engine);
    for (number, argv) in take_processes(running, "dockerd", engine).into_iter().enumerate() {
        lists.push((source("argv", number), argv));
    }
    let mut configurations = Vec::new();
    for (name, arguments) in lists {
        if let Some(path) = arguments.first().filter(|path| name == "unit" && path.starts_with('/')) {
            program(files, path, &mut engine.binaries);
        }
        let named = settings::flag_value(&arguments, &["config-file"]).map(|path| below_root(config, &path));
        if let Some(path) = named.as_ref().filter(|path| files.leads_to(path).is_none()) {
            files.unreadable(path, "the command line names it, and it is absent");
        }
        configurations.push(named.unwrap_or_else(|| config.docker_config.clone()));
        state(engine, &name, settings::docker_arguments(&arguments));
    }
    if configurations.is_empty() {
        configurations.push(config.docker_config.clone());
    }
    configurations.sort();
    configurations.dedup();
    for (number, path) in configurations.iter().enumerate() {
        read_configuration(files, path, &source("file", number), engine);
    }
    name_runtimes(files, engine);
    ask(config, files, engine);
    engine.installed = engine.binaries.keys().any(|path| path.ends_with("/dockerd")) || !engine.processes.is_empty();
}

fn read_configuration(files: &mut Files<'_>, path: &str, source: &str, engine: &mut EngineState) {
    match files.read(path, &mut engine.configuration) {
        Found::Missing => {}
        found => match found.text().and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok()) {
            Some(value) if value.is_object() => state(engine, source, settings::from_json(&value)),
            _ => files.unreadable(path, "it is not a JSON object"),
        },
    }
}

/// Measures the OCI runtimes that any source names.
fn name_runtimes(files: &mut Files<'_>, engine: &mut EngineState) {
    let mut named = Vec::new();
    for (setting, stated) in &engine.settings {
        let Some(name) = setting.strip_prefix("runtimes.") else { continue };
        let name = name.strip_suffix(".path").or_else(|| name.strip_suffix(".runtimeType")).unwrap_or(name);
        for value in stated.values() {
            if let hostmark_attest::manifest::Setting::Text(path) = value {
                named.push((name.to_owned(), path.clone()));
            }
        }
    }
    for (name, path) in named {
        program(files, &path, &mut engine.binaries);
        engine.runtimes.insert(name, bounded(&path));
    }
}

/// Asks the running daemon. Silence counts only when a daemon runs.
fn ask(config: &EnginesConfig, files: &mut Files<'_>, engine: &mut EngineState) {
    let Some(socket) = config.socket() else { return };
    files.looked_at.insert(socket.clone());
    match api::docker_settings(&socket) {
        Ok(live) => {
            for (name, path) in live.iter().filter_map(|(name, value)| Some((runtime_name(name)?, value))) {
                if let hostmark_attest::manifest::Setting::Text(path) = path {
                    engine.runtimes.entry(name.to_owned()).or_insert_with(|| bounded(path));
                    if path.starts_with('/') {
                        program(files, path, &mut engine.binaries);
                    }
                }
            }
            state(engine, "live", live);
        }
        Err(_) if engine.processes.is_empty() => {}
        Err(why) => {
            let one = Unreadable { what: format!("api:{}", socket.display()), why: why.to_owned() };
            files.unreadable(&one.what, &one.why);
        }
    }
}

fn runtime_name(setting: &str) -> Option<&str> {
    setting.strip_prefix("runtimes.")?.strip_suffix(".path")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use hostmark_attest::manifest::{EngineManifest, EngineReference, Setting, compare};

    use super::super::{DigestCache, measure};
    use super::*;

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn host() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        put(root, "usr/sbin/dockerd", "dockerd");
        put(root, "usr/bin/runc", "runc");
        put(root, "opt/kata/kata-runtime", "kata");
        put(root, "usr/libexec/docker/cli-plugins/docker-buildx", "buildx");
        put(
            root,
            "etc/docker/daemon.json",
            r#"{"icc": false, "runtimes": {"kata": {"path": "/opt/kata/kata-runtime"}}}"#,
        );
        put(root, "etc/docker/key.json", "volatile");
        put(root, "etc/docker/certs.d/r:5000/ca.crt", "ca");
        put(root, "etc/default/docker", "DOCKER_OPTS=\"--live-restore\"\n");
        put(
            root,
            "usr/lib/systemd/system/docker.service",
            "[Service]\nEnvironmentFile=-/etc/default/docker\nExecStart=/usr/sbin/dockerd -H fd:// $DOCKER_OPTS\n",
        );
        dir
    }

    fn manifest(root: &Path) -> EngineManifest {
        let config = EnginesConfig { enabled: vec!["docker".into()], ..EnginesConfig::of_root(root) };
        measure(&config, &mut DigestCache::default()).manifest
    }

    #[test]
    fn the_same_state_gives_the_same_bytes_and_every_part_is_there() {
        let dir = host();
        let first = manifest(dir.path());
        assert_eq!(first.to_canonical(), manifest(dir.path()).to_canonical());
        assert_eq!(EngineManifest::parse(&first.to_canonical()).unwrap(), first);
        let docker = &first.engines["docker"];
        assert!(docker.installed && docker.unreadable.is_empty() && !first.root_is_default);
        let paths: BTreeSet<&str> = docker.files().map(|(path, _)| path.as_str()).collect();
        assert_eq!(
            paths,
            BTreeSet::from([
                "/usr/sbin/dockerd",
                "/usr/bin/runc",
                "/opt/kata/kata-runtime",
                "/usr/libexec/docker/cli-plugins/docker-buildx",
                "/etc/docker/daemon.json",
                "/etc/docker/certs.d/r:5000/ca.crt",
                "/etc/default/docker",
                "/usr/lib/systemd/system/docker.service",
            ])
        );
        assert_eq!(docker.settings["icc"]["file"], Setting::Flag(false));
        assert_eq!(docker.settings["live-restore"]["unit"], Setting::Flag(true));
        assert_eq!(docker.runtimes["kata"], "/opt/kata/kata-runtime");
        put(dir.path(), "etc/docker/key.json", "another");
        assert_eq!(first, manifest(dir.path()), "key.json is volatile");
    }

    #[test]
    fn e1_a_drop_in_or_environment_file_that_says_otherwise_is_found() {
        let reference = {
            let dir = host();
            EngineReference::capture(&manifest(dir.path()))
        };
        let rows: &[(&str, &str, &str, &[&str])] = &[
            ("honest", "etc/unrelated", "x", &[]),
            ("the file", "etc/docker/daemon.json", "{\"icc\": true}", &["engine.file-changed", "engine.setting"]),
            (
                "a drop-in",
                "etc/systemd/system/docker.service.d/x.conf",
                "[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd --icc=true\n",
                &["engine.file-unknown", "engine.shadowed", "engine.setting"],
            ),
            (
                "the environment file",
                "etc/default/docker",
                "DOCKER_OPTS=--icc=true",
                &["engine.file-changed", "engine.shadowed", "engine.setting"],
            ),
            (
                "not JSON",
                "etc/docker/daemon.json",
                "{",
                &["engine.file-changed", "engine.unreadable", "engine.setting"],
            ),
            ("a plugin", "usr/libexec/docker/cli-plugins/docker-x", "x", &["engine.file-unknown"]),
        ];
        for (name, path, text, expect) in rows {
            let dir = host();
            put(dir.path(), path, text);
            let findings = compare(&manifest(dir.path()), &reference);
            for id in *expect {
                assert!(findings.has(id), "{name}: {id} in {findings:?}");
            }
            assert_eq!(
                expect.is_empty(),
                findings.acceptable() && findings.as_slice().len() < 2,
                "{name}: {findings:?}"
            );
        }
    }

    #[test]
    fn a_runtime_that_is_named_and_absent_is_content_unknown() {
        let dir = host();
        std::fs::remove_file(dir.path().join("opt/kata/kata-runtime")).unwrap();
        let manifest = manifest(dir.path());
        assert_eq!(manifest.engines["docker"].unreadable.first().unwrap().what, "/opt/kata/kata-runtime");
    }
}
