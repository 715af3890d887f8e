//! Flattening what engines configure: JSON and TOML into dotted names, daemons' flags into the names of their files.
//!
//! Docker's `dockerd(8)`: a flag's name in daemon.json; containerd's `config.toml(5)`. Establishes one name for one setting
//! whoever states it, so that sources can be compared. A flag that this table does not know is still stated, by its own name.

use std::collections::BTreeMap;

use hostmark_attest::manifest::{LIST_MAX, Setting, TEXT_MAX};
use serde_json::Value;

use super::files::bounded;

/// Most settings of one source: `containerd config dump` has 200.
pub(crate) const SETTINGS_MAX: usize = 4096;
/// Most entries of a list that are kept.
pub(crate) const LIST_KEPT: usize = LIST_MAX;
/// Deepest nesting that is flattened; deeper values are stated as text.
const DEPTH_MAX: usize = 16;

/// Settings of a JSON object, by dotted names.
pub(crate) fn from_json(value: &Value) -> BTreeMap<String, Setting> {
    let mut out = BTreeMap::new();
    flatten(String::new(), value, 0, &mut out);
    out
}

/// Settings of a TOML document, by dotted names. None when it is not TOML.
pub(crate) fn from_toml(text: &str) -> Option<(toml::Table, BTreeMap<String, Setting>)> {
    let table: toml::Table = text.parse().ok()?;
    let value = serde_json::to_value(&table).ok()?;
    Some((table, from_json(&value)))
}

fn flatten(prefix: String, value: &Value, depth: usize, out: &mut BTreeMap<String, Setting>) {
    if out.len() >= SETTINGS_MAX {
        return;
    }
    match value {
        Value::Object(map) if depth < DEPTH_MAX && !(map.is_empty() && depth > 0) => {
            for (key, value) in map {
                let dotted = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(dotted, value, depth.saturating_add(1), out);
            }
        }
        Value::Null => {}
        Value::Object(map) if map.is_empty() => {}
        _ => {
            if let Some(setting) = leaf(value, false) {
                out.insert(name(&prefix), setting);
            }
        }
    }
}

/// A value that is not flattened further. Objects and odd numbers become their compact text.
pub(crate) fn leaf(value: &Value, sort: bool) -> Option<Setting> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(flag) => Setting::Flag(*flag),
        Value::Number(number) => match number.as_i64() {
            Some(number) => Setting::Number(number),
            None => Setting::Text(number.to_string()),
        },
        Value::String(text) => Setting::Text(bounded(text)),
        Value::Array(values) => {
            let mut list: Vec<String> = values
                .iter()
                .take(LIST_KEPT)
                .map(|value| match value {
                    Value::String(text) => bounded(text),
                    other => bounded(&sorted(other).to_string()),
                })
                .collect();
            if sort {
                list.sort();
            }
            Setting::List(list)
        }
        Value::Object(_) => Setting::Text(bounded(&sorted(value).to_string())),
    })
}

/// The same value with its keys in order: a file's order of keys changes its digest, not its settings.
pub(crate) fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let ordered: BTreeMap<&String, Value> = map.iter().map(|(key, value)| (key, sorted(value))).collect();
            ordered.into_iter().map(|(key, value)| (key.clone(), value)).collect()
        }
        Value::Array(values) => values.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

/// A setting's name, cut to what a manifest allows.
pub(crate) fn name(text: &str) -> String {
    if text.len() > TEXT_MAX { bounded(text) } else { text.to_owned() }
}

/// Flags of dockerd that take no value.
const DOCKER_SWITCHES: [&str; 20] = [
    "debug",
    "experimental",
    "icc",
    "init",
    "ip-forward",
    "ip-masq",
    "ip6tables",
    "iptables",
    "ipv6",
    "live-restore",
    "no-new-privileges",
    "raw-logs",
    "rootless",
    "selinux-enabled",
    "tls",
    "tlsverify",
    "userland-proxy",
    "validate",
    "help",
    "version",
];
/// Flags of dockerd whose name in daemon.json differs, and which there are lists.
const DOCKER_LISTS: [(&str, &str); 11] = [
    ("host", "hosts"),
    ("insecure-registry", "insecure-registries"),
    ("registry-mirror", "registry-mirrors"),
    ("label", "labels"),
    ("exec-opt", "exec-opts"),
    ("storage-opt", "storage-opts"),
    ("authorization-plugin", "authorization-plugins"),
    ("dns", "dns"),
    ("dns-opt", "dns-opts"),
    ("dns-search", "dns-search"),
    ("default-address-pool", "default-address-pools"),
];
/// Flags of dockerd whose values are numbers in daemon.json.
const DOCKER_NUMBERS: [&str; 8] = [
    "mtu",
    "shutdown-timeout",
    "max-concurrent-downloads",
    "max-concurrent-uploads",
    "max-download-attempts",
    "network-control-plane-mtu",
    "oom-score-adjust",
    "api-cors-max-age",
];
/// One-letter flags of dockerd, and the old name of data-root.
const DOCKER_SHORT: [(&str, &str); 8] = [
    ("H", "host"),
    ("D", "debug"),
    ("l", "log-level"),
    ("s", "storage-driver"),
    ("g", "data-root"),
    ("G", "group"),
    ("p", "pidfile"),
    ("graph", "data-root"),
];

/// The flags of an argument list (its first entry, the program, is skipped), each with its value; `switches` take none.
fn flags(arguments: &[String], switches: &[&str], short: &[(&str, &str)]) -> Vec<(String, Option<String>)> {
    let long = |name: &str| short.iter().find(|(from, _)| *from == name).map_or(name, |(_, to)| to).to_owned();
    let mut out = Vec::new();
    let mut rest = arguments.iter().skip(1);
    while let Some(argument) = rest.next() {
        if argument == "--" {
            break;
        }
        let (body, one_letter) = match (argument.strip_prefix("--"), argument.strip_prefix('-')) {
            (Some(body), _) => (body, false),
            (None, Some(body)) => (body, true),
            (None, None) => continue,
        };
        if let Some((name, value)) = body.split_once('=') {
            out.push((long(name), Some(value.to_owned())));
            continue;
        }
        // `-Hfd://` and `-lwarn`: the value may follow its letter at once.
        if one_letter
            && let Some((first, value)) = body.char_indices().nth(1).and_then(|(at, _)| body.split_at_checked(at))
            && !switches.contains(&long(first).as_str())
        {
            out.push((long(first), Some(value.to_owned())));
            continue;
        }
        let name = long(body);
        let value = if switches.contains(&name.as_str()) { None } else { rest.next().cloned() };
        out.push((name, value));
    }
    out
}

/// Settings that dockerd's arguments state, by their names in daemon.json.
pub(crate) fn docker_arguments(arguments: &[String]) -> BTreeMap<String, Setting> {
    let mut out: BTreeMap<String, Setting> = BTreeMap::new();
    for (flag, value) in flags(arguments, &DOCKER_SWITCHES, &DOCKER_SHORT) {
        if let Some((_, key)) = DOCKER_LISTS.iter().find(|(from, _)| *from == flag) {
            let entry = out.entry((*key).to_owned()).or_insert_with(|| Setting::List(Vec::new()));
            if let (Setting::List(list), Some(value)) = (entry, value)
                && list.len() < LIST_KEPT
            {
                list.push(bounded(&value));
            }
            continue;
        }
        let keyed = value.as_deref().and_then(|value| value.split_once('='));
        let (key, setting) = match (flag.as_str(), keyed, value.as_deref()) {
            ("log-opt", Some((key, value)), _) => (format!("log-opts.{key}"), Setting::Text(bounded(value))),
            ("default-ulimit", Some((key, value)), _) => {
                (format!("default-ulimits.{key}"), Setting::Text(bounded(value)))
            }
            ("add-runtime", Some((key, value)), _) => (format!("runtimes.{key}.path"), Setting::Text(bounded(value))),
            (switch, _, None) => (switch.to_owned(), Setting::Flag(true)),
            (switch, _, Some(text)) if DOCKER_SWITCHES.contains(&switch) => match text {
                "true" | "1" | "t" | "T" | "TRUE" | "True" => (switch.to_owned(), Setting::Flag(true)),
                "false" | "0" | "f" | "F" | "FALSE" | "False" => (switch.to_owned(), Setting::Flag(false)),
                _ => (switch.to_owned(), Setting::Text(bounded(text))),
            },
            (number, _, Some(text)) if DOCKER_NUMBERS.contains(&number) => match text.parse() {
                Ok(value) => (number.to_owned(), Setting::Number(value)),
                Err(_) => (number.to_owned(), Setting::Text(bounded(text))),
            },
            (other, _, Some(text)) => (other.to_owned(), Setting::Text(bounded(text))),
        };
        out.insert(name(&key), setting);
    }
    out
}

/// The value of a flag that names a file, in any daemon's arguments.
pub(crate) fn flag_value(arguments: &[String], names: &[&str]) -> Option<String> {
    let mut rest = arguments.iter().skip(1);
    let mut found = None;
    while let Some(argument) = rest.next() {
        let Some(body) = argument.strip_prefix('-') else { continue };
        let body = body.strip_prefix('-').unwrap_or(body);
        match body.split_once('=') {
            Some((name, value)) if names.contains(&name) => found = Some(value.to_owned()),
            None if names.contains(&body) => found = rest.next().cloned(),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_flag_and_its_key_in_daemon_json_have_one_name_and_value() {
        let rows = [
            ("--icc=false", r#"{"icc": false}"#),
            ("-D --tlsverify", r#"{"debug": true, "tlsverify": true}"#),
            ("-H fd:// --host=tcp://127.0.0.1:1", r#"{"hosts": ["fd://", "tcp://127.0.0.1:1"]}"#),
            ("--insecure-registry r:5000", r#"{"insecure-registries": ["r:5000"]}"#),
            (
                "--log-opt max-file=3 --log-driver journald",
                r#"{"log-opts": {"max-file": "3"}, "log-driver": "journald"}"#,
            ),
            ("--mtu 1400 -g /data", r#"{"mtu": 1400, "data-root": "/data"}"#),
            ("--add-runtime x=/opt/x", r#"{"runtimes": {"x": {"path": "/opt/x"}}}"#),
            ("-lwarn -Hfd:// -D", r#"{"log-level": "warn", "hosts": ["fd://"], "debug": true}"#),
            ("--live-restore --userns-remap default", r#"{"live-restore": true, "userns-remap": "default"}"#),
        ];
        for (line, json) in rows {
            let flags = docker_arguments(&arguments(&format!("/usr/bin/dockerd {line}")));
            assert_eq!(flags, from_json(&serde_json::from_str(json).unwrap()), "{line}");
        }
    }

    #[test]
    fn the_order_of_keys_does_not_matter() {
        let parse = |text: &str| from_json(&serde_json::from_str(text).unwrap());
        assert_eq!(
            parse(r#"{"default-address-pools": [{"base": "10.0.0.0/8", "size": 24}], "a": {"b": 1, "c": 2.5}}"#),
            parse(r#"{"a": {"c": 2.5, "b": 1}, "default-address-pools": [{"size": 24, "base": "10.0.0.0/8"}]}"#),
        );
        let deep = format!("{}1{}", r#"{"a":"#.repeat(60), "}".repeat(60));
        assert_eq!(parse(&deep).len(), 1);
    }

    #[test]
    fn the_last_configuration_flag_wins() {
        let line = arguments("containerd --config /a -c /b --root /r");
        assert_eq!(flag_value(&line, &["config", "c"]).as_deref(), Some("/b"));
        assert_eq!(flag_value(&line, &["config-file"]), None);
    }
}
