//! Asking Docker Engine for what it really runs with: two GET requests over its unix socket.
//!
//! Docker Engine API, `GET /info` and `GET /version`. Establishes what the daemon says of itself; only keys that change with
//! its configuration are kept, nothing that changes with its load. HTTP/1.0 is spoken, so an answer has no chunks.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use hostmark_attest::manifest::Setting;
use serde_json::Value;

use super::settings;

/// Largest answer. `/info` of a large swarm has some 100 kB.
const ANSWER_MAX: usize = 4 << 20;
/// A daemon that needs longer than this for one answer counts as silent, which speaks against its host: a crowded machine is not.
const DEADLINE: Duration = Duration::from_secs(15);

/// Why there is no answer, in stable words.
type Silence = &'static str;

/// The daemon knows no such thing (404).
pub(crate) const ABSENT: Silence = "there is no such thing";

/// One request, one JSON answer.
pub(crate) fn get(socket: &Path, path: &str) -> Result<Value, Silence> {
    get_until(socket, path, Instant::now().checked_add(DEADLINE))
}

/// The same with more patience, or less.
pub(crate) fn get_until(socket: &Path, path: &str, end: Option<Instant>) -> Result<Value, Silence> {
    let end = end.ok_or("no clock")?;
    let mut stream = UnixStream::connect(socket).map_err(|_| "nobody listens")?;
    stream.set_write_timeout(Some(DEADLINE)).map_err(|_| "no time limit")?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: docker\r\nAccept: application/json\r\n\r\n")
        .map_err(|_| "no answer")?;
    let mut answer = Vec::new();
    let mut buffer = [0u8; 16 << 10];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err("no answer in time");
        }
        stream.set_read_timeout(Some(left)).map_err(|_| "no time limit")?;
        let count = stream.read(&mut buffer).map_err(|_| "no answer in time")?;
        let Some(part) = buffer.get(..count).filter(|part| !part.is_empty()) else { break };
        answer.extend_from_slice(part);
        if answer.len() > ANSWER_MAX {
            return Err("the answer is too long");
        }
    }
    body(&answer)
}

fn body(answer: &[u8]) -> Result<Value, Silence> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or("the answer is not HTTP")?;
    let (head, rest) = answer.split_at(end);
    let head = std::str::from_utf8(head).map_err(|_| "the answer is not HTTP")?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).ok_or("the answer is not HTTP")?;
    if status == "404" {
        return Err(ABSENT);
    }
    if status != "200" {
        return Err("the request was refused");
    }
    if lines.any(|line| line.to_ascii_lowercase().starts_with("transfer-encoding:")) {
        return Err("the answer is chunked");
    }
    serde_json::from_slice(rest.get(4..).unwrap_or_default()).map_err(|_| "the answer is not JSON")
}

/// The settings that a running Docker Engine states.
pub(crate) fn docker_settings(socket: &Path) -> Result<BTreeMap<String, Setting>, Silence> {
    let info = get(socket, "/info")?;
    let version = get(socket, "/version")?;
    Ok(from_answers(&info, &version))
}

/// Name here, JSON pointer there. The names are those of daemon.json where it has them, so that sources can be compared.
const INFO: [(&str, &str); 14] = [
    ("live-restore", "/LiveRestoreEnabled"),
    ("default-runtime", "/DefaultRuntime"),
    ("log-driver", "/LoggingDriver"),
    ("storage-driver", "/Driver"),
    ("data-root", "/DockerRootDir"),
    ("debug", "/Debug"),
    ("experimental", "/ExperimentalBuild"),
    ("cgroup.driver", "/CgroupDriver"),
    ("cgroup.version", "/CgroupVersion"),
    ("swarm.state", "/Swarm/LocalNodeState"),
    ("security-options", "/SecurityOptions"),
    ("authorization-plugins", "/Plugins/Authorization"),
    ("registry.insecure-cidrs", "/RegistryConfig/InsecureRegistryCIDRs"),
    ("registry.mirrors", "/RegistryConfig/Mirrors"),
];

fn from_answers(info: &Value, version: &Value) -> BTreeMap<String, Setting> {
    let mut out = BTreeMap::new();
    for (name, pointer) in INFO {
        if let Some(value) = info.pointer(pointer).and_then(|value| settings::leaf(value, true)) {
            out.insert(name.to_owned(), value);
        }
    }
    if let Some(value) = version.pointer("/Version").and_then(|value| settings::leaf(value, false)) {
        out.insert("version".to_owned(), value);
    }
    if let Some(value) = version.pointer("/ApiVersion").and_then(|value| settings::leaf(value, false)) {
        out.insert("api-version".to_owned(), value);
    }
    if let Some(runtimes) = info.get("Runtimes").and_then(Value::as_object) {
        for (name, runtime) in runtimes.iter().take(settings::SETTINGS_MAX) {
            if let Some(path) = runtime.get("path").and_then(|value| settings::leaf(value, false)) {
                out.insert(settings::name(&format!("runtimes.{name}.path")), path);
            }
        }
    }
    if let Some(indexes) = info.pointer("/RegistryConfig/IndexConfigs").and_then(Value::as_object) {
        let insecure = indexes.iter().filter(|(_, index)| index.get("Secure") == Some(&Value::Bool(false)));
        let mut names: Vec<String> = insecure.map(|(name, _)| settings::name(name)).collect();
        names.sort();
        names.truncate(settings::LIST_KEPT);
        out.insert("registry.insecure-indexes".to_owned(), Setting::List(names));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_not_plain_json_over_http_is_silence() {
        for (answer, expect) in [
            ("", "the answer is not HTTP"),
            ("HTTP/1.0 200 OK\r\n\r\n{", "the answer is not JSON"),
            ("HTTP/1.0 403 Forbidden\r\n\r\n{}", "the request was refused"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}", "the answer is chunked"),
        ] {
            assert_eq!(body(answer.as_bytes()), Err(expect), "{answer}");
        }
        assert!(body(b"HTTP/1.0 200 OK\r\nX: y\r\n\r\n{}").is_ok(), "the honest twin");
    }

    #[test]
    fn only_configuration_is_kept_and_lists_are_sorted() {
        let info = serde_json::json!({
            "Containers": 7, "SystemTime": "now", "LiveRestoreEnabled": false, "SecurityOptions": ["name=seccomp", "name=apparmor"],
            "Runtimes": {"runc": {"path": "runc"}},
            "RegistryConfig": {"IndexConfigs": {"docker.io": {"Secure": true}, "r:5000": {"Secure": false}}},
        });
        let settings = from_answers(&info, &serde_json::json!({"Version": "20.10.24"}));
        let text = format!("{settings:?}");
        assert!(!text.contains("SystemTime") && !text.contains("Containers"));
        assert_eq!(settings["security-options"], Setting::List(vec!["name=apparmor".into(), "name=seccomp".into()]));
        assert_eq!(settings["registry.insecure-indexes"], Setting::List(vec!["r:5000".into()]));
        assert_eq!(settings["runtimes.runc.path"], Setting::Text("runc".into()));
    }

    #[test]
    fn a_silent_socket_is_not_waited_for_forever() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(get(&dir.path().join("none"), "/info"), Err("nobody listens"));
    }
}
