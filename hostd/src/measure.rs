//! `hostd measure`: the engine manifest on a terminal, or its canonical bytes.
//!
//! SURFACE.md. Shows what a round would state of the engines; extends nothing and asks no TPM.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use hostmark_attest::finding::one_line;
use hostmark_attest::manifest::{EngineManifest, EngineState, FileState};

use crate::engines::{DigestCache, EnginesConfig, measure};

/// Arguments of `hostd measure`.
#[derive(Debug, Clone, Default, Args)]
pub struct MeasureArgs {
    /// Measure this directory as if it were `/`: no running daemon, no live setting.
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
}

/// Measures and prints: a table, or the manifest's canonical bytes without a line end. Exit codes: 0 all was measured, 4 something could not be, 2 the configuration is unusable.
#[must_use]
pub fn run_measure(args: &MeasureArgs, config: &EnginesConfig, json: bool) -> ExitCode {
    let config = match &args.root {
        Some(root) => EnginesConfig { enabled: config.enabled.clone(), ..EnginesConfig::of_root(root) },
        None => config.clone(),
    };
    if let Some(name) = config.unknown_engines().first() {
        eprintln!(
            "hostd: engines.enabled: `{name}` is no engine that can be measured; known: docker, containerd, podman, nvidia"
        );
        return ExitCode::from(2);
    }
    if !config.root.is_dir() {
        eprintln!(
            "hostd: {}: not a directory; give --root a directory that holds a root file system",
            config.root.display()
        );
        return ExitCode::from(2);
    }
    let manifest = measure(&config, &mut DigestCache::default()).manifest;
    let bytes = manifest.to_canonical();
    let out = if json { bytes } else { table(&manifest, &bytes).into_bytes() };
    if std::io::stdout().write_all(&out).is_err() {
        return ExitCode::from(3);
    }
    let complete = manifest.engines.values().all(|engine| engine.unreadable.is_empty());
    if complete { ExitCode::SUCCESS } else { ExitCode::from(4) }
}

/// One block for each engine: programs, configuration, units, processes, settings, and what could not be read.
fn table(manifest: &EngineManifest, bytes: &[u8]) -> String {
    let mut out = String::new();
    for (name, engine) in &manifest.engines {
        if engine.installed || engine.files().next().is_some() {
            block(name, engine, &mut out);
        } else {
            let _ = writeln!(out, "{name}: not installed\n");
        }
    }
    let _ = writeln!(out, "manifest sha256 {} ({} bytes)", hex::encode(EngineManifest::digest(bytes)), bytes.len());
    out
}

fn block(name: &str, engine: &EngineState, out: &mut String) {
    let _ = writeln!(out, "{name}: {}", if engine.installed { "installed" } else { "files only" });
    for (title, files) in [
        ("program", &engine.binaries),
        ("config", &engine.configuration),
        ("unit", &engine.unit_files),
        ("env file", &engine.environment_files),
    ] {
        for (path, state) in files {
            let state = match state {
                FileState::File { sha256, mode, uid, gid, .. } => {
                    format!("{} {mode} {uid}:{gid}", sha256.to_string().get(..16).unwrap_or_default())
                }
                FileState::Link { target, .. } => format!("-> {}", one_line(target)),
                FileState::Other { what, mode, uid, gid } => format!("{what} {mode} {uid}:{gid}"),
            };
            let _ = writeln!(out, "  {title:<9} {:<58} {state}", one_line(path));
        }
    }
    for process in &engine.processes {
        let state = if process.deleted { " (deleted, replaced or renamed since its start)" } else { "" };
        let _ = writeln!(out, "  {:<9} {}{state}", "running", one_line(&process.argv.join(" ")));
    }
    for (setting, stated) in &engine.settings {
        let values: Vec<String> = stated.iter().map(|(source, value)| format!("{value} ({source})")).collect();
        let _ = writeln!(out, "  {:<9} {setting} = {}", "setting", one_line(&values.join(", ")));
    }
    for one in &engine.unreadable {
        let _ = writeln!(out, "  {:<9} {}: {}", "unknown", one_line(&one.what), one.why);
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_every_file_and_the_digest() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("usr/sbin")).unwrap();
        std::fs::write(dir.path().join("usr/sbin/dockerd"), "dockerd").unwrap();
        let manifest = measure(&EnginesConfig::of_root(dir.path()), &mut DigestCache::default()).manifest;
        let bytes = manifest.to_canonical();
        let text = table(&manifest, &bytes);
        assert!(text.contains("/usr/sbin/dockerd") && text.contains("podman: not installed"), "{text}");
        assert!(text.contains(&hex::encode(EngineManifest::digest(&bytes))));
    }
}
