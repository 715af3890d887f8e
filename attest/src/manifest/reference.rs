//! Comparing a manifest with reference values.
//!
//! Establishes that each file, link and setting that a manifest states is one that the reference allows, and that the
//! sources of one setting agree. Does not establish that the manifest is complete: a host under an attacker's root can leave
//! things out, which is why [`EngineReference::files`] must be present by default and why engine claims are "reported".

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{EngineManifest, EngineState, FileDigest, FileState, Setting};
use crate::finding::{Finding, Findings};

/// Most findings of one id. A host that differs everywhere is not better explained by ten thousand lines.
const SAME_ID_MAX: usize = 50;
/// Most links followed from a reference path to the file it means.
const LINKS_MAX: usize = 8;

/// What the engines of a group of hosts may be made of. Part of a signed reference bundle.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineReference {
    /// Engines that must be installed.
    pub engines: BTreeSet<String>,
    /// Files by path, each with every digest that is allowed. They must exist unless `optional` names them.
    pub files: BTreeMap<String, BTreeSet<FileDigest>>,
    /// Paths of `files` that may be absent.
    pub optional: BTreeSet<String>,
    /// Links by path, each with every target that is allowed.
    pub links: BTreeMap<String, BTreeSet<String>>,
    /// Paths, or prefixes that end in `/`, about which this reference says nothing on purpose.
    pub ignored: BTreeSet<String>,
    /// Settings by `engine.name`, each with every value that is allowed. A setting that no source states fails unless
    /// `may_be_unset` names it.
    pub settings: BTreeMap<String, Vec<Setting>>,
    /// Settings of `settings` that nobody needs to state.
    pub may_be_unset: BTreeSet<String>,
    /// Settings by `engine.name`, each with values that are not allowed; a list must hold none of them.
    pub forbidden: BTreeMap<String, Vec<Setting>>,
}

impl EngineReference {
    /// The reference that exactly this manifest satisfies: its files, links and settings, each with one value.
    #[must_use]
    pub fn capture(manifest: &EngineManifest) -> Self {
        let mut reference = Self::default();
        for (name, engine) in &manifest.engines {
            if engine.installed {
                reference.engines.insert(name.clone());
            }
            for (path, state) in engine.files() {
                match state {
                    FileState::File { sha256, .. } => {
                        reference.files.entry(path.clone()).or_default().insert(*sha256);
                    }
                    FileState::Link { target, .. } => {
                        reference.links.entry(path.clone()).or_default().insert(target.clone());
                    }
                    FileState::Other { .. } => {}
                }
            }
            for process in &engine.processes {
                reference.files.entry(process.exe.clone()).or_default().extend(process.sha256);
            }
            for (setting, stated) in &engine.settings {
                let values: BTreeSet<&Setting> = stated.values().collect();
                reference.settings.insert(format!("{name}.{setting}"), values.into_iter().cloned().collect());
            }
        }
        reference
    }

    /// Allows what `other` allows too: files, links and settings of both, engines that both require.
    pub fn merge(&mut self, other: Self) {
        self.engines.retain(|engine| other.engines.contains(engine));
        let one_sided = |mine: &BTreeMap<String, BTreeSet<FileDigest>>,
                         theirs: &BTreeMap<String, BTreeSet<FileDigest>>| {
            let lacks = |path: &&String| !mine.contains_key(*path) || !theirs.contains_key(*path);
            mine.keys().chain(theirs.keys()).filter(lacks).cloned().collect::<BTreeSet<_>>()
        };
        let sometimes = one_sided(&self.files, &other.files);
        self.optional.extend(sometimes.into_iter().chain(other.optional));
        for (path, digests) in other.files {
            self.files.entry(path).or_default().extend(digests);
        }
        for (path, targets) in other.links {
            self.links.entry(path).or_default().extend(targets);
        }
        for name in self.settings.keys().chain(other.settings.keys()) {
            if !self.settings.contains_key(name) || !other.settings.contains_key(name) {
                self.may_be_unset.insert(name.clone());
            }
        }
        for (name, values) in other.settings {
            let mine = self.settings.entry(name).or_default();
            mine.extend(values.into_iter().filter(|value| !mine.contains(value)).collect::<Vec<_>>());
        }
        self.may_be_unset.extend(other.may_be_unset);
        self.ignored.retain(|path| other.ignored.contains(path));
        for (name, values) in other.forbidden {
            self.forbidden.entry(name).or_default().extend(values);
        }
    }

    fn ignores(&self, path: &str) -> bool {
        self.ignored.iter().any(|one| path == one || (one.ends_with('/') && path.starts_with(one.as_str())))
    }
}

/// Every difference between what a manifest states and what the reference allows.
#[must_use]
pub fn compare(manifest: &EngineManifest, reference: &EngineReference) -> Findings {
    let mut findings = Findings::new();
    if !manifest.root_is_default {
        findings.push(Finding::info("engine.root", "The manifest describes a directory, not the running host's root"));
    }
    compare_presence(manifest, reference, &mut findings);
    compare_files(manifest, reference, &mut findings);
    for (name, engine) in &manifest.engines {
        compare_processes(name, engine, &mut findings);
        for one in &engine.unreadable {
            findings.check("engine.unreadable", true, || {
                Finding::error("", format!("The content of {} is unknown: {}", one.what, one.why))
                    .fix("make it readable for hostd, or remove it, and measure again")
            });
        }
    }
    compare_settings(manifest, reference, &mut findings);
    shorten(findings)
}

fn compare_presence(manifest: &EngineManifest, reference: &EngineReference, findings: &mut Findings) {
    for name in &reference.engines {
        let installed = manifest.engines.get(name).is_some_and(|engine| engine.installed);
        findings.check("engine.absent", !installed, || {
            Finding::error("", format!("The engine {name} is not installed, or hostd does not measure it"))
                .expected("installed")
                .found("absent")
                .fix(format!("install {name}, or take it out of the reference"))
        });
    }
}

/// A digest that was found for a path, and whether a running process has it rather than the file.
struct Seen<'a> {
    path: &'a str,
    digest: &'a FileDigest,
    running: bool,
}

fn compare_files(manifest: &EngineManifest, reference: &EngineReference, findings: &mut Findings) {
    let mut seen: Vec<Seen<'_>> = Vec::new();
    let mut links: BTreeMap<&str, (&str, Option<&str>)> = BTreeMap::new();
    let mut present: BTreeSet<(&str, &FileDigest)> = BTreeSet::new();
    for engine in manifest.engines.values() {
        for (path, state) in engine.files() {
            match state {
                // Two engines may share a file (runc): one entry says it all, if they agree.
                FileState::File { sha256, .. } if present.insert((path, sha256)) => {
                    seen.push(Seen { path, digest: sha256, running: false });
                }
                FileState::Link { target, leads_to, .. } => {
                    links.insert(path, (target, leads_to.as_deref()));
                }
                FileState::File { .. } | FileState::Other { .. } => {}
            }
        }
    }
    for engine in manifest.engines.values() {
        for process in &engine.processes {
            if let Some(sha256) = &process.sha256 {
                seen.push(Seen { path: &process.exe, digest: sha256, running: true });
            }
        }
    }
    // A reference may name a file by a path that is a link on this host.
    let mut meant: BTreeMap<&str, &BTreeSet<FileDigest>> = BTreeMap::new();
    for (path, digests) in &reference.files {
        let end = follow(path, &links);
        let exists = seen.iter().any(|one| one.path == end);
        findings.check("engine.file-missing", !exists && !reference.optional.contains(path), || {
            Finding::error("", format!("{path} is not on the host, or could not be measured"))
                .expected(alternatives(digests))
                .found("no file")
                .fix(format!("install the file, or mark {path} as optional in the reference"))
        });
        meant.insert(end, digests);
        meant.insert(path, digests);
    }
    for one in &seen {
        let Some(allowed) = meant.get(one.path) else {
            findings.check("engine.file-unknown", !reference.ignores(one.path), || {
                Finding::warning("", format!("The reference does not name {}", one.path))
                    .found(one.digest)
                    .fix("capture a reference that names it, ignore it there on purpose, or remove the file")
            });
            continue;
        };
        findings.check("engine.file-changed", !allowed.contains(one.digest), || {
            let what = if one.running { "The running program" } else { "The file" };
            Finding::error("", format!("{what} {} is not one that the reference allows", one.path))
                .expected(alternatives(allowed))
                .found(one.digest)
                .fix("restore the file (and restart the engine), or publish a reference that allows this content")
        });
    }
    for (path, (target, _)) in &links {
        let allowed = reference.links.get(*path);
        let named = allowed.is_some() || meant.contains_key(path);
        findings.check("engine.link-unknown", !named && !reference.ignores(path), || {
            Finding::warning("", format!("The reference does not name the link {path}"))
                .found(target)
                .fix("capture a reference that names it, or remove the link")
        });
        let changed = allowed.is_some_and(|targets| !targets.contains(*target));
        findings.check("engine.link-changed", changed, || {
            let targets: Vec<&str> = allowed.into_iter().flatten().map(String::as_str).collect();
            Finding::error("", format!("The link {path} points elsewhere than the reference allows"))
                .expected(targets.join(" or "))
                .found(target)
                .fix("restore the link, or publish a reference that allows this target")
        });
    }
}

fn follow<'a>(path: &'a str, links: &BTreeMap<&str, (&'a str, Option<&'a str>)>) -> &'a str {
    let mut at = path;
    for _ in 0..LINKS_MAX {
        match links.get(at) {
            Some((_, Some(next))) => at = next,
            _ => break,
        }
    }
    at
}

fn compare_processes(name: &str, engine: &EngineState, findings: &mut Findings) {
    for process in &engine.processes {
        findings.check("engine.deleted-binary", process.deleted, || {
            Finding::error(
                "",
                format!("{name} runs a program that was deleted, replaced or renamed since: {}", process.exe),
            )
            .expected("the file at that path")
            .found(process.sha256.map_or_else(|| "unreadable".to_owned(), |digest| digest.to_string()))
            .fix(format!("restart {name}"))
        });
        findings.check("engine.foreign-mounts", process.foreign_mounts, || {
            Finding::warning(
                "",
                format!("{} runs in another mount namespace: its paths are not the host's", process.exe),
            )
            .fix("run the engine in the host's mount namespace, or judge that container by itself")
        });
    }
}

fn compare_settings(manifest: &EngineManifest, reference: &EngineReference, findings: &mut Findings) {
    let none = BTreeMap::new();
    for (name, engine) in &manifest.engines {
        for (setting, stated) in &engine.settings {
            let differ = stated.values().collect::<BTreeSet<_>>().len() > 1;
            findings.check("engine.shadowed", differ, || {
                let all: Vec<String> = stated.iter().map(|(source, value)| format!("{source}: {value}")).collect();
                Finding::error(
                    "",
                    format!("The sources of {name}.{setting} disagree: what is written is not what runs"),
                )
                .expected("one value")
                .found(all.join("; "))
                .fix("state it in one place and restart the engine")
            });
        }
    }
    let stated_of = |key: &str| {
        let (engine, setting) = key.split_once('.')?;
        manifest.engines.get(engine)?.settings.get(setting)
    };
    let keys: BTreeSet<&String> = reference.settings.keys().chain(reference.forbidden.keys()).collect();
    for key in keys {
        let stated = stated_of(key).unwrap_or(&none);
        let allowed = reference.settings.get(key);
        let forbidden = reference.forbidden.get(key).map_or(&[][..], Vec::as_slice);
        let unset = stated.is_empty() && allowed.is_some() && !reference.may_be_unset.contains(key);
        let wrong = stated.iter().find(|(_, value)| {
            allowed.is_some_and(|allowed| !allowed.contains(value)) || forbidden.iter().any(|one| holds(value, one))
        });
        findings.check("engine.setting", unset || wrong.is_some(), || {
            let list = |values: &[Setting]| values.iter().map(Setting::to_string).collect::<Vec<_>>().join(" or ");
            let expected = match allowed {
                Some(allowed) => list(allowed),
                None => format!("not {}", list(forbidden)),
            };
            let found = wrong.map_or_else(|| "not set".to_owned(), |(source, value)| format!("{value} ({source})"));
            Finding::error("", format!("The setting {key} is not as required"))
                .expected(expected)
                .found(found)
                .fix("set it in the engine's configuration and restart the engine")
        });
    }
}

/// Whether a value is the forbidden one, or a list that holds it.
fn holds(value: &Setting, forbidden: &Setting) -> bool {
    match (value, forbidden) {
        (Setting::List(list), Setting::Text(one)) => list.contains(one),
        _ => value == forbidden,
    }
}

fn alternatives(digests: &BTreeSet<FileDigest>) -> String {
    digests.iter().map(FileDigest::to_string).collect::<Vec<_>>().join(" or ")
}

/// Keeps at most [`SAME_ID_MAX`] findings of each id and says how many more there were.
fn shorten(findings: Findings) -> Findings {
    let mut counts: BTreeMap<String, (usize, crate::finding::Severity)> = BTreeMap::new();
    let mut kept = Vec::new();
    for finding in findings.into_vec() {
        let (count, _) = counts.entry(finding.id.clone()).or_insert((0, finding.severity));
        *count = count.saturating_add(1);
        if *count <= SAME_ID_MAX {
            kept.push(finding);
        }
    }
    for (id, (count, severity)) in counts {
        let more = count.saturating_sub(SAME_ID_MAX);
        if more > 0 {
            kept.push(Finding::new(id, severity, format!("… and {more} more of the same kind")));
        }
    }
    kept.into()
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::super::*;
    use super::*;

    fn docker(manifest: &mut EngineManifest) -> &mut EngineState {
        manifest.engines.get_mut("docker").unwrap()
    }

    fn ids(findings: &Findings) -> Vec<&str> {
        findings.as_slice().iter().map(|finding| finding.id.as_str()).collect()
    }

    type Change = fn(&mut EngineManifest, &mut EngineReference);

    #[test]
    fn each_difference_has_its_finding() {
        let rows: &[(&str, &[&str], Change)] = &[
            ("honest", &[], |_, _| {}),
            ("a changed configuration", &["engine.file-changed"], |manifest, _| {
                let file = FileState::File { sha256: FileDigest([8; 32]), size: 3, mode: Mode(0o644), uid: 0, gid: 0 };
                docker(manifest).configuration.insert("/etc/docker/daemon.json".into(), file);
            }),
            ("a second allowed content", &[], |manifest, reference| {
                let file = FileState::File { sha256: FileDigest([8; 32]), size: 3, mode: Mode(0o644), uid: 0, gid: 0 };
                docker(manifest).configuration.insert("/etc/docker/daemon.json".into(), file);
                reference.files.get_mut("/etc/docker/daemon.json").unwrap().insert(FileDigest([8; 32]));
            }),
            ("a new file", &["engine.file-unknown"], |manifest, _| {
                let file = FileState::File { sha256: FileDigest([8; 32]), size: 3, mode: Mode(0o644), uid: 0, gid: 0 };
                docker(manifest).unit_files.insert("/etc/systemd/system/docker.service.d/x.conf".into(), file);
            }),
            ("a missing file", &["engine.file-missing"], |manifest, _| {
                docker(manifest).configuration.clear();
            }),
            ("an optional file", &[], |manifest, reference| {
                docker(manifest).configuration.clear();
                reference.optional.insert("/etc/docker/daemon.json".into());
            }),
            ("a link elsewhere", &["engine.link-changed"], |manifest, _| {
                let link = FileState::Link { target: "evil".into(), leads_to: None, uid: 0, gid: 0 };
                docker(manifest).binaries.insert("/usr/local/bin/docker".into(), link);
            }),
            ("a new link", &["engine.link-unknown"], |manifest, _| {
                let link = FileState::Link { target: "evil".into(), leads_to: None, uid: 0, gid: 0 };
                docker(manifest).binaries.insert("/usr/local/bin/runc".into(), link);
            }),
            ("an unreadable file", &["engine.unreadable"], |manifest, _| {
                docker(manifest)
                    .unreadable
                    .insert(Unreadable { what: "/etc/docker/x".into(), why: "permission denied".into() });
            }),
            ("no engine", &["engine.absent", "engine.file-missing", "engine.file-missing"], |manifest, reference| {
                manifest.engines.clear();
                reference.settings.clear();
                reference.files.remove("/usr/bin/docker");
            }),
            ("a setting that is not allowed", &["engine.setting"], |_, reference| {
                reference.settings.insert("docker.icc".into(), vec![Setting::Flag(true)]);
            }),
            ("a setting that nobody states", &["engine.setting"], |_, reference| {
                reference.settings.insert("docker.userns-remap".into(), vec![Setting::Text("default".into())]);
            }),
            ("a setting that may be unset", &[], |_, reference| {
                reference.settings.insert("docker.live-restore".into(), vec![Setting::Flag(true)]);
                reference.may_be_unset.insert("docker.live-restore".into());
            }),
            ("a forbidden entry of a list", &["engine.setting"], |manifest, reference| {
                let hosts = Setting::List(vec!["fd://".into(), "tcp://0.0.0.0:2375".into()]);
                docker(manifest).settings.insert("hosts".into(), BTreeMap::from([("argv".into(), hosts)]));
                reference.forbidden.insert("docker.hosts".into(), vec![Setting::Text("tcp://0.0.0.0:2375".into())]);
            }),
            ("another root", &["engine.root"], |manifest, _| manifest.root_is_default = false),
            ("a bind mount over a program is no matter of references", &[], |manifest, _| {
                docker(manifest).mounted.insert("/usr/bin/docker".into());
            }),
            ("foreign mounts", &["engine.foreign-mounts"], |manifest, _| {
                let mut process = docker(manifest).processes.pop_first().unwrap();
                process.foreign_mounts = true;
                docker(manifest).processes.insert(process);
            }),
        ];
        for (name, expect, change) in rows {
            let mut manifest = sample();
            let mut reference = EngineReference::capture(&manifest);
            change(&mut manifest, &mut reference);
            assert_eq!(ids(&compare(&manifest, &reference)), *expect, "{name}");
        }
    }

    #[test]
    fn e1_shadowed_configuration_never_passes() {
        let reference = EngineReference::capture(&sample());
        assert!(compare(&sample(), &reference).as_slice().is_empty(), "the honest twin");
        let mut manifest = sample();
        docker(&mut manifest).settings.get_mut("icc").unwrap().insert("argv".into(), Setting::Flag(true));
        let findings = compare(&manifest, &reference);
        assert_eq!(ids(&findings), ["engine.shadowed", "engine.setting"]);
        assert_eq!(findings.as_slice()[1].found.as_deref(), Some("true (argv)"));
    }

    #[test]
    fn e6_a_replaced_running_binary_is_named() {
        let reference = EngineReference::capture(&sample());
        let mut manifest = sample();
        let mut process = docker(&mut manifest).processes.pop_first().unwrap();
        process.deleted = true;
        process.sha256 = Some(FileDigest([9; 32]));
        docker(&mut manifest).processes.insert(process);
        let findings = compare(&manifest, &reference);
        assert_eq!(ids(&findings), ["engine.file-changed", "engine.deleted-binary"]);
        assert!(findings.as_slice().iter().all(|finding| finding.message.contains("/usr/bin/dockerd")));
    }

    #[test]
    fn many_equal_findings_are_cut_and_counted() {
        let reference = EngineReference::capture(&sample());
        let mut manifest = sample();
        for number in 0..70u32 {
            let why = "permission denied".to_owned();
            docker(&mut manifest).unreadable.insert(Unreadable { what: format!("/etc/docker/{number}"), why });
        }
        let findings = compare(&manifest, &reference);
        assert_eq!(findings.as_slice().len(), SAME_ID_MAX.saturating_add(1));
        assert!(!findings.acceptable());
        assert!(findings.as_slice().last().unwrap().message.contains("20 more"));
    }

    #[test]
    fn a_reference_is_strict_toml() {
        let text = r#"
            engines = ["docker"]
            [files]
            "/usr/bin/dockerd" = ["0707070707070707070707070707070707070707070707070707070707070707"]
            [settings]
            "docker.icc" = [false]
            "docker.log-driver" = ["journald", "local"]
        "#;
        let reference: EngineReference = toml::from_str(text).unwrap();
        assert_eq!(reference.settings["docker.icc"], [Setting::Flag(false)]);
        assert!(toml::from_str::<EngineReference>("golden = []").is_err());
        assert!(toml::from_str::<EngineReference>("[files]\n\"/x\" = [\"00\"]").is_err());
    }
}
