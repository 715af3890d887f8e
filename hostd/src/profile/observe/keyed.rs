//! Keys of files, and settings of engines: what several sources state, and which of them holds.
//!
//! dockerd(8): a flag and a key of daemon.json are one setting. containerd-config.toml(5): imports. containers.conf(5), registries.conf(5),
//! crio.conf(5): drop-in directories over /etc over /usr/share. Engines' own files are taken from the engine manifest's measurement, so that
//! there is one reading of flags, units and imports.

use std::collections::{BTreeMap, BTreeSet};

use hostmark_attest::manifest::{EngineState, Setting};
use hostmark_attest::profile::{Control, KeyPath, Keyed, Observation, Observed, Prove, SourceKind, Stated};
use serde_json::Value;

use super::Result;
use crate::engines::files::join;
use crate::engines::settings::leaf;
use crate::profile::host::Host;
use crate::profile::root::{Root, Text};

/// Files that others lie over: the vendor's file, the host's, the drop-in directory. Later ones win.
const LAYERED: [(&str, &str, &str); 4] = [
    ("/etc/containers/containers.conf", "/usr/share/containers/containers.conf", "/etc/containers/containers.conf.d"),
    ("/etc/containers/registries.conf", "/usr/share/containers/registries.conf", "/etc/containers/registries.conf.d"),
    ("/etc/containers/storage.conf", "/usr/share/containers/storage.conf", ""),
    ("/etc/crio/crio.conf", "/usr/share/crio/crio.conf", "/etc/crio/crio.conf.d"),
];

pub(super) fn json(host: &Host, control: &Control, keyed: &Keyed) -> Result {
    if keyed.path == "/etc/docker/daemon.json" {
        return engine(host, control, "docker", &keyed.key.dotted(), keyed.default.as_ref());
    }
    let value = read(&host.root, &keyed.path, |text| {
        let value = match keyed.path.ends_with(".yaml") {
            true => super::yaml::parse(text),
            false => serde_json::from_str(text).map_err(|error| error.to_string()),
        };
        value.map_err(|error| format!("{}: {error}", keyed.path))
    })?;
    let found = value.as_ref().and_then(|value| at(value, &keyed.key));
    Ok(read_once(host, &keyed.path, one_file(&keyed.path, found, keyed.default.as_ref())))
}

/// Daemons that read their file once, at their start, and take arguments over it; and whether those arguments could say otherwise.
const READ_ONCE: [(&str, &str, bool); 4] = [
    ("/etc/crio/", "crio", true),
    ("/var/lib/kubelet/", "kubelet", true),
    ("/etc/kubernetes/", "kubelet", true),
    ("/etc/audit/auditd.conf", "auditd", false),
];

/// A file that its daemon reads once does not show what holds: arguments go over it, and a change waits for the next start. A bad file fails all
/// the same.
fn read_once(host: &Host, path: &str, observation: Observation) -> Observation {
    let Some((_, daemon, overridden)) = READ_ONCE.iter().find(|(place, ..)| path.starts_with(place)) else {
        return observation;
    };
    let reason = if *overridden {
        format!("a file alone: the arguments of {daemon}, which go over it, are not compared")
    } else if host.changed_since(daemon, path) {
        format!("{path} was changed after {daemon} started: what it runs with is not known until it starts again")
    } else {
        return observation;
    };
    match observation {
        Observation::Seen { effective, others } => {
            Observation::OutOfSight { reason, files: std::iter::once(effective).chain(others).collect() }
        }
        other => other,
    }
}

pub(super) fn toml(host: &Host, control: &Control, keyed: &Keyed) -> Result {
    if keyed.path == "/etc/containerd/config.toml" {
        let key = keyed.key.dotted();
        if let Some(observed) = host.engine("containerd").and_then(|state| of_other_files(control, state, &key, keyed))
        {
            return Ok(observed);
        }
        let name = host.engine("containerd").and_then(|state| in_version_3(state, "version", &key));
        return engine(host, control, "containerd", &name.unwrap_or(key), keyed.default.as_ref());
    }
    let mut paths = Vec::new();
    if let Some((own, vendor, directory)) = LAYERED.iter().find(|(own, ..)| *own == keyed.path) {
        paths.extend([(*vendor).to_owned(), (*own).to_owned()]);
        if !directory.is_empty() {
            let names = host.root.list(directory)?;
            paths.extend(names.iter().filter(|name| name.ends_with(".conf")).map(|name| join(directory, name)));
        }
    } else {
        paths.push(keyed.path.clone());
    }
    let mut stated = Vec::new();
    for path in paths {
        let value = read(&host.root, &path, |text| {
            let table: ::toml::Table =
                text.parse().map_err(|error: ::toml::de::Error| format!("{path}: {}", error.message()))?;
            serde_json::to_value(table).map_err(|error| format!("{path}: {error}"))
        })?;
        if let Some(found) = value.as_ref().and_then(|value| at(value, &keyed.key)) {
            stated.push(Stated::new(SourceKind::File, path, Observed::Value(found)));
        }
    }
    if keyed.path == "/etc/containers/registries.conf" && keyed.key.dotted() == "registry" {
        return Ok(one_file(&keyed.path, registries(&stated), keyed.default.as_ref()));
    }
    let Some(effective) = stated.pop() else {
        return Ok(read_once(host, &keyed.path, one_file(&keyed.path, None, keyed.default.as_ref())));
    };
    // What a drop-in overrides is no contradiction; it is told where the drop-in is what is wrong.
    let good = matches!(&effective.value, Observed::Value(value) if control.want.accepts(Some(value), false));
    let others = if good { Vec::new() } else { stated };
    Ok(read_once(host, &keyed.path, Observation::Seen { effective, others }))
}

/// What a key of the CRI plugin is called in a configuration of version 3; None: as in version 2.
fn in_version_3(state: &EngineState, version: &str, key: &str) -> Option<String> {
    /// Stayed where they were: the plugin's own service.
    const SERVICE: [&str; 4] = ["disable_tcp_service", "stream_", "enable_tls_streaming", "x509_key_pair_streaming"];
    const IMAGES: [&str; 2] = ["registry.", "image_decryption."];
    let third = state.settings.get(version)?.values().any(|version| *version == Setting::Number(3));
    let rest = key.strip_prefix("plugins.io.containerd.grpc.v1.cri.").filter(|_| third)?;
    let among = |names: &[&str]| names.iter().any(|name| rest.starts_with(name));
    let plugin = match (among(&SERVICE), among(&IMAGES)) {
        (true, _) => return None,
        (false, true) => "images",
        (false, false) => "runtime",
    };
    Some(format!("plugins.io.containerd.cri.v1.{plugin}.{rest}"))
}

/// Where a containerd is started with another file than the usual one: what each of its files says, every one of which has to satisfy. None
/// where all have the usual one.
fn of_other_files(control: &Control, state: &EngineState, key: &str, keyed: &Keyed) -> Option<Observation> {
    let path_of = |name: &String| {
        let (path, _) = name.split_once(".toml:").filter(|_| name.starts_with('/'))?;
        Some(format!("{path}.toml"))
    };
    let mut paths: BTreeSet<String> = state.settings.keys().filter_map(path_of).collect();
    if paths.is_empty() {
        return None;
    }
    // The usual file counts too where a daemon or the unit has it: then its settings stand without a path.
    let plain = |(name, stated): (&String, &BTreeMap<String, Setting>)| {
        path_of(name).is_none() && stated.keys().any(|source| source == "file" || source == "dump")
    };
    if state.settings.iter().any(plain) {
        paths.insert(keyed.path.clone());
    }
    let of = |path: &String| {
        let prefix = if *path == keyed.path { String::new() } else { format!("{path}:") };
        let name = in_version_3(state, &format!("{prefix}version"), key).unwrap_or_else(|| key.to_owned());
        let stated = state.settings.get(&format!("{prefix}{name}"));
        let found = stated.and_then(|stated| stated.get("dump").or_else(|| stated.get("file")));
        match (found, &keyed.default) {
            (Some(value), _) => Stated::new(SourceKind::File, path, Observed::Value(value.clone())),
            (None, default) => Stated::new(
                SourceKind::Default,
                format!("{path} does not, and the default"),
                Observed::of(default.clone()),
            ),
        }
    };
    let mut stated: Vec<Stated> = paths.iter().map(of).collect();
    // The worst speaks for all: what is absent in one is overlooked beside another.
    let bad = |one: &Stated| match &one.value {
        Observed::Value(value) => !control.want.accepts(Some(value), false),
        _ => !control.want.accepts(None, false),
    };
    let worst = stated.iter().position(bad).unwrap_or_default();
    let effective = stated.remove(worst);
    Some(Observation::Seen { effective, others: stated })
}

/// Registries of all files: a drop-in adds to the list, and replaces what has the same prefix.
fn registries(stated: &[Stated]) -> Option<Setting> {
    let mut by_prefix: BTreeMap<String, String> = BTreeMap::new();
    for one in stated {
        let Observed::Value(Setting::List(list)) = &one.value else { continue };
        for entry in list {
            let table: Value = serde_json::from_str(entry).unwrap_or_default();
            let text = |name: &str| table.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
            let prefix = text("prefix").or_else(|| text("location")).unwrap_or(entry);
            by_prefix.insert(prefix.to_owned(), entry.clone());
        }
    }
    (!by_prefix.is_empty()).then(|| Setting::List(by_prefix.into_values().collect()))
}

pub(super) fn ini(host: &Host, path: &str, section: Option<&str>, key: &str, default: Option<&Setting>) -> Result {
    let found = match host.root.text(path) {
        Text::Missing => None,
        Text::Unreadable(why) => return Err(why),
        Text::Read(text) => last_assignment(&text, section, key),
    };
    Ok(read_once(host, path, one_file(path, found.map(Setting::Text), default)))
}

/// The last assignment of a key in a section, quotes around the value removed.
fn last_assignment(text: &str, section: Option<&str>, key: &str) -> Option<String> {
    let mut inside = section.is_none();
    let mut found = None;
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            inside = section == Some(name.trim());
        } else if let Some((name, value)) = line.split_once('=').filter(|_| inside)
            && name.trim().trim_start_matches("export ") == key
        {
            let value = value.trim();
            let quoted = |quote: char| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
            found = Some(quoted('"').or_else(|| quoted('\'')).unwrap_or(value).to_owned());
        }
    }
    found
}

/// A file that is the state itself.
fn one_file(path: &str, found: Option<Setting>, default: Option<&Setting>) -> Observation {
    let effective = match (found, default) {
        (Some(value), _) => Stated::new(SourceKind::File, path, Observed::Value(value)),
        (None, Some(value)) => Stated::new(SourceKind::Default, "the default", Observed::Value(value.clone())),
        (None, None) => Stated::new(SourceKind::File, path, Observed::Absent),
    };
    Observation::Seen { effective, others: Vec::new() }
}

fn read(root: &Root, path: &str, parse: impl Fn(&str) -> Result<Value>) -> Result<Option<Value>> {
    match root.text(path) {
        Text::Missing => Ok(None),
        Text::Unreadable(why) => Err(why),
        Text::Read(text) => parse(&text).map(Some),
    }
}

/// The value at a key; of a table the names of its keys.
fn at(value: &Value, key: &KeyPath) -> Option<Setting> {
    let found = key.segments().iter().try_fold(value, |value, segment| value.get(segment))?;
    match found {
        Value::Object(table) => Some(Setting::List(table.keys().cloned().collect())),
        other => leaf(other, false),
    }
}

/// A setting of an engine, from every source that the engine manifest names.
pub(super) fn engine(host: &Host, control: &Control, name: &str, setting: &str, default: Option<&Setting>) -> Result {
    let Some(state) = host.engine(name) else { return Err(format!("{name} is not an engine that is measured")) };
    let mut stated = sources(name, state, setting);
    if let Some(one) = blinding(state, &stated) {
        return Err(one);
    }
    let by_default = Stated::new(SourceKind::Default, "the default", Observed::of(default.cloned()));
    let told = |kind: SourceKind| stated.iter().any(|one| one.by == kind);
    if control.prove == Prove::Api && !told(SourceKind::Api) {
        let why = match (host.is_live(), state.processes.is_empty()) {
            (false, _) => format!("a directory has no running {name} to ask"),
            (true, true) => format!("{name} does not run"),
            (true, false) => format!("{name} does not say"),
        };
        // What it would start with.
        let files = if stated.is_empty() && default.is_some() { vec![by_default] } else { stated };
        return Ok(Observation::OutOfSight { reason: why, files });
    }
    // A running daemon has what its own arguments say; its unit's are for the next start.
    let runs = !state.processes.is_empty();
    let weight = |kind: SourceKind| match kind {
        SourceKind::Api => 0,
        SourceKind::Argv => 1,
        SourceKind::Dump => 2,
        SourceKind::Unit if !runs => 2,
        SourceKind::File => 3,
        SourceKind::Unit => 5,
        _ => 6,
    };
    if runs && stated.iter().all(|one| one.by == SourceKind::Unit) && default.is_some() {
        stated.push(by_default.clone());
    }
    stated.sort_by_key(|one| if one.by == SourceKind::Default { 4 } else { weight(one.by) });
    let mut stated = stated.into_iter();
    let effective = stated.next().unwrap_or(by_default);
    let written = matches!(effective.by, SourceKind::File | SourceKind::Dump | SourceKind::Default);
    if let Some(path) = host.changed_since_start(name).filter(|_| runs && written && control.prove == Prove::Merged) {
        let reason =
            format!("{path} was changed after {name} started: what it runs with is not known until it starts again");
        let files = std::iter::once(effective).chain(stated).collect();
        return Ok(Observation::OutOfSight { reason, files });
    }
    Ok(Observation::Seen { effective, others: stated.filter(|one| one.by != SourceKind::Default).collect() })
}

/// Everything that states a setting. Of a table the names of what is in it.
fn sources(engine: &str, state: &EngineState, setting: &str) -> Vec<Stated> {
    let mut by_source: BTreeMap<&str, Setting> = BTreeMap::new();
    if let Some(stated) = state.settings.get(setting) {
        by_source.extend(stated.iter().map(|(source, value)| (source.as_str(), value.clone())));
    } else {
        let prefix = format!("{setting}.");
        let mut tables: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (name, stated) in &state.settings {
            let Some(rest) = name.strip_prefix(&prefix) else { continue };
            // A runtime's own name may have dots: Docker states `runtimes.io.containerd.runc.v2.path`.
            let runtime = rest.strip_suffix(".path").filter(|_| setting == "runtimes");
            let child = runtime.or_else(|| rest.split('.').next()).unwrap_or(rest).to_owned();
            for source in stated.keys() {
                let names = tables.entry(source).or_default();
                if names.last() != Some(&child) {
                    names.push(child.clone());
                }
            }
        }
        by_source.extend(tables.into_iter().map(|(source, names)| (source, Setting::List(names))));
    }
    let configuration = |source: &str| {
        let own = if engine == "docker" { "/etc/docker/daemon.json" } else { "/etc/containerd/config.toml" };
        let known = source == "file" && state.configuration.contains_key(own);
        if known { own.to_owned() } else { format!("{engine}'s configuration {source}") }
    };
    let one = |(source, value): (&str, Setting)| {
        let (by, name) = match source.split('#').next().unwrap_or_default() {
            "live" => (SourceKind::Api, format!("{engine} itself")),
            "argv" => (SourceKind::Argv, format!("the arguments of the running {engine} daemon")),
            "unit" => (SourceKind::Unit, format!("the unit of {engine}")),
            "dump" => (SourceKind::Dump, format!("{engine} config dump")),
            _ => (SourceKind::File, configuration(source)),
        };
        Stated::new(by, name, Observed::Value(value))
    };
    let mut all: Vec<Stated> = by_source.into_iter().map(one).collect();
    // What Docker says of the registries that it runs with, under its own names.
    let own = RUNNING.iter().find(|(key, _)| engine == "docker" && *key == setting);
    if let Some(value) = own.and_then(|(_, name)| state.settings.get(*name)?.get("live")) {
        all.push(Stated::new(SourceKind::Api, "docker itself", Observed::Value(value.clone())));
    }
    all
}

/// Keys of daemon.json, and the names under which the running daemon states what became of them.
const RUNNING: [(&str, &str); 2] =
    [("insecure-registries", "registry.insecure-indexes"), ("registry-mirrors", "registry.mirrors")];

/// A configuration that cannot be read may say anything: nothing that rests on it is known.
fn blinding(state: &EngineState, stated: &[Stated]) -> Option<String> {
    let told = stated.iter().any(|one| one.by == SourceKind::Api);
    let configures = |what: &str| {
        what.starts_with("/etc/") || what.ends_with(".service") || what.ends_with(".conf") || what.starts_with("dump:")
    };
    let one = state.unreadable.iter().find(|one| configures(&one.what) && !told)?;
    Some(format!("{}: {}", one.what, one.why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_containerd_has_the_name_of_its_version() {
        let cri = "plugins.io.containerd.grpc.v1.cri.";
        let of = |version: i64, key: &str| {
            let stated = BTreeMap::from([("dump".to_owned(), Setting::Number(version))]);
            let settings = BTreeMap::from([("version".to_owned(), stated)]);
            in_version_3(&EngineState { settings, ..EngineState::default() }, "version", key)
        };
        for (version, key, expect) in [
            (2, "disable_apparmor", None),
            (3, "disable_apparmor", Some("plugins.io.containerd.cri.v1.runtime.disable_apparmor")),
            (3, "containerd.runtimes.runc.x", Some("plugins.io.containerd.cri.v1.runtime.containerd.runtimes.runc.x")),
            (3, "registry.config_path", Some("plugins.io.containerd.cri.v1.images.registry.config_path")),
            (3, "stream_server_address", None),
        ] {
            assert_eq!(of(version, &format!("{cri}{key}")).as_deref(), expect, "{version} {key}");
        }
        assert_eq!(of(3, "grpc.uid"), None);
        assert_eq!(in_version_3(&EngineState::default(), "version", &format!("{cri}disable_apparmor")), None);
    }

    #[test]
    fn the_last_assignment_in_its_section_counts() {
        let text = "# a=0\na = 1\n;a=2\n[Time]\na=3\n  NTP=\"x y\"\n[Other]\na=4\nexport b='5'\n";
        for (section, key, expect) in [
            (None, "a", Some("1")),
            (Some("Time"), "a", Some("3")),
            (Some("Time"), "NTP", Some("x y")),
            (Some("Other"), "b", Some("5")),
            (Some("Time"), "b", None),
            (None, "c", None),
        ] {
            assert_eq!(last_assignment(text, section, key).as_deref(), expect, "{section:?} {key}");
        }
    }
}
