//! The engine manifest: what the container engines of a host are made of, as canonical JSON.
//!
//! Hostmark's own format (DESIGN §4, "Evidence of one round"). hostd writes it; its SHA-256 goes into the host log and so
//! into a PCR; the verifier reads it. Equal states give equal bytes: there is no time, no process id and no count of
//! containers in it. It establishes what hostd says it saw, and since when it cannot unsay it. It does not establish that
//! hostd told the truth: its claims have the basis "reported" (see [`compare`] for what a reference adds).

mod reference;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::bytes::{ParseError, Problem};
use crate::digest::sha256;

pub use reference::{EngineReference, compare};

/// The format's version.
pub const VERSION: u32 = 1;
/// Most bytes of a manifest. A host with every engine and a thousand registries' certificates stays below 1 MiB.
pub const BYTES_MAX: usize = 4 << 20;
/// Most engines: there are five kinds today.
pub const ENGINES_MAX: usize = 16;
/// Most files of one engine: `certs.d` of a large site has hundreds, NVIDIA's CDI a dozen.
pub const FILES_MAX: usize = 8192;
/// Most bytes of one path, argument or value: Linux's PATH_MAX. hostd replaces longer ones by their digest.
pub const TEXT_MAX: usize = 4096;
/// Most entries of a list: arguments of a daemon, drop-ins of a unit, values of a setting.
pub const LIST_MAX: usize = 1024;

/// The SHA-256 of a file's content, 64 lower-case hex digits in JSON and TOML.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileDigest(pub [u8; 32]);

impl fmt::Display for FileDigest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for FileDigest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "sha256:{self}")
    }
}

impl Serialize for FileDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FileDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(D::Error::custom("a digest is lower-case hex"));
        }
        let bytes = hex::decode(&text).map_err(D::Error::custom)?;
        bytes.try_into().map(Self).map_err(|_| D::Error::custom("a SHA-256 has 32 bytes"))
    }
}

/// Permission bits with set-uid, set-gid and sticky, four octal digits in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mode(pub u16);

impl fmt::Display for Mode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:04o}", self.0 & 0o7777)
    }
}

impl Serialize for Mode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.len() == 4 && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        match u16::from_str_radix(&text, 8) {
            Ok(mode) if digits => Ok(Self(mode)),
            _ => Err(D::Error::custom("a mode is four octal digits")),
        }
    }
}

/// What is at one path. Links and what they lead to are entries of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum FileState {
    /// A regular file whose whole content was read.
    File {
        /// Digest of the content.
        sha256: FileDigest,
        /// Bytes.
        size: u64,
        /// Permission bits.
        mode: Mode,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// A symbolic link.
    Link {
        /// Where it points, as written in the link.
        target: String,
        /// Where it leads after every link on the way, seen from the measured root. Absent when it dangles.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        leads_to: Option<String>,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// Something that has an owner and a mode but no content to hash: a directory, a socket, a device.
    Other {
        /// `directory`, `socket`, `fifo`, `device`.
        what: String,
        /// Permission bits.
        mode: Mode,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

/// A value of a setting. Engines nest deeper; hostd flattens with dotted names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Setting {
    /// true or false.
    Flag(bool),
    /// A whole number.
    Number(i64),
    /// Text.
    Text(String),
    /// A list of texts, sorted where its order means nothing.
    List(Vec<String>),
}

impl fmt::Display for Setting {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(out, "{flag}"),
            Self::Number(number) => write!(out, "{number}"),
            Self::Text(text) => write!(out, "\"{text}\""),
            Self::List(list) => write!(out, "[{}]", list.join(", ")),
        }
    }
}

/// A unit of the service manager, as it would be loaded now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitState {
    /// The file that defines it (systemd's FragmentPath). Absent when only drop-ins exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fragment: Option<String>,
    /// Drop-ins in the order in which they are applied.
    pub drop_ins: Vec<String>,
    /// The fragment is empty or leads to /dev/null.
    pub masked: bool,
    /// The ExecStart lines that remain after fragment and drop-ins.
    pub exec_start: Vec<String>,
    /// `Environment=` assignments that remain.
    pub environment: Vec<String>,
    /// `EnvironmentFile=` paths that remain; a leading `-` means "may be absent".
    pub environment_files: Vec<String>,
}

/// A running daemon of the engine. Several with equal values are one entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessState {
    /// Path of the program that runs, without the kernel's " (deleted)".
    pub exe: String,
    /// Digest of the program that runs, which need not be the file that is at `exe` now. Absent when unreadable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<FileDigest>,
    /// The program was deleted, replaced or renamed after it was started.
    pub deleted: bool,
    /// It lives in another mount namespace than hostd: its paths are not the host's.
    pub foreign_mounts: bool,
    /// Its arguments, the program's name first.
    pub argv: Vec<String>,
    /// Variables of its environment that change what an engine does or loads.
    pub environment: BTreeMap<String, String>,
}

/// Something that should have been measured and could not be: its content is unknown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unreadable {
    /// A path, or the name of an interface (`api:/run/docker.sock`).
    pub what: String,
    /// Why, in stable words.
    pub why: String,
}

/// One engine: Docker Engine, containerd, Podman, the NVIDIA toolkit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineState {
    /// At least one of its daemons or runtimes is there.
    pub installed: bool,
    /// Programs: daemons, shims, OCI runtimes, those that the configuration names included.
    pub binaries: BTreeMap<String, FileState>,
    /// Configuration with drop-ins and imports.
    pub configuration: BTreeMap<String, FileState>,
    /// Files that define its units, with drop-ins.
    pub unit_files: BTreeMap<String, FileState>,
    /// Files from which its units take environment variables.
    pub environment_files: BTreeMap<String, FileState>,
    /// OCI runtimes by the name under which a container asks for them.
    pub runtimes: BTreeMap<String, String>,
    /// Its units, by name.
    pub units: BTreeMap<String, UnitState>,
    /// Its running daemons.
    pub processes: BTreeSet<ProcessState>,
    /// Settings by name, then by who states them: a file's path, `argv`, `env`, `live` (the engine's own interface).
    /// Two sources that differ mean that what is written is not what runs.
    pub settings: BTreeMap<String, BTreeMap<String, Setting>>,
    /// What could not be measured.
    pub unreadable: BTreeSet<Unreadable>,
    /// Measured paths at which something is mounted: what is there is not what the file system below has.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub mounted: BTreeSet<String>,
}

impl EngineState {
    /// Every measured file, by path.
    pub fn files(&self) -> impl Iterator<Item = (&String, &FileState)> {
        self.binaries.iter().chain(&self.configuration).chain(&self.unit_files).chain(&self.environment_files)
    }
}

/// The engines of one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineManifest {
    /// [`VERSION`].
    pub version: u32,
    /// Paths are those of the running host. False for a directory that only looks like one (tests, images).
    pub root_is_default: bool,
    /// Engines by name: `docker`, `containerd`, `podman`, `nvidia`.
    pub engines: BTreeMap<String, EngineState>,
}

impl EngineManifest {
    /// The canonical bytes: compact JSON, fields in the order of the types, maps in the order of their keys.
    #[must_use]
    pub fn to_canonical(&self) -> Vec<u8> {
        // Text keys and no custom failing serializer: serde_json cannot fail here, and an empty manifest never parses.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a manifest that a host sent.
    ///
    /// # Errors
    /// Not exactly the canonical bytes of a manifest within the limits (unknown or doubled keys, spaces, another order).
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        if bytes.len() > BYTES_MAX {
            return Err(over(0, "engine manifest bytes", bytes.len(), BYTES_MAX));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| ParseError {
            at: offset(bytes, error.line(), error.column()),
            problem: Problem::Malformed {
                what: match error.classify() {
                    serde_json::error::Category::Eof => "the engine manifest ends too early",
                    serde_json::error::Category::Data => "a key or value that no engine manifest has",
                    _ => "the engine manifest is not JSON",
                },
            },
        })?;
        if manifest.version != VERSION {
            let problem = Problem::Mismatch {
                what: "engine manifest version",
                expected: u64::from(VERSION),
                found: u64::from(manifest.version),
            };
            return Err(ParseError { at: 0, problem });
        }
        manifest.within_limits()?;
        let canonical = manifest.to_canonical();
        if canonical != bytes {
            let at = canonical.iter().zip(bytes).take_while(|(ours, theirs)| ours == theirs).count();
            return Err(ParseError {
                at,
                problem: Problem::Malformed { what: "the engine manifest is not canonical" },
            });
        }
        Ok(manifest)
    }

    /// What the host log holds for a manifest: SHA-256 over the bytes as they were received.
    #[must_use]
    pub fn digest(received: &[u8]) -> [u8; 32] {
        sha256(&[received])
    }

    /// Counts and lengths. The byte limit bounds the work; these bound what a finding or a page may show.
    fn within_limits(&self) -> Result<(), ParseError> {
        limit("engines", self.engines.len(), ENGINES_MAX)?;
        for (name, engine) in &self.engines {
            text(name)?;
            limit("files of an engine", engine.files().count(), FILES_MAX)?;
            for (path, state) in engine.files() {
                text(path)?;
                if let FileState::Link { target, leads_to, .. } = state {
                    text(target)?;
                    leads_to.as_deref().map_or(Ok(()), text)?;
                }
            }
            for (name, path) in &engine.runtimes {
                text(name)?;
                text(path)?;
            }
            for unit in engine.units.values() {
                list(&unit.drop_ins)?;
                list(&unit.exec_start)?;
                list(&unit.environment)?;
                list(&unit.environment_files)?;
            }
            for process in &engine.processes {
                text(&process.exe)?;
                list(&process.argv)?;
                process.environment.values().try_for_each(|value| text(value))?;
            }
            limit("settings of an engine", engine.settings.len(), FILES_MAX)?;
            for value in engine.settings.values().flat_map(BTreeMap::values) {
                match value {
                    Setting::Text(value) => text(value)?,
                    Setting::List(values) => list(values)?,
                    Setting::Flag(_) | Setting::Number(_) => {}
                }
            }
            limit("mounted paths of an engine", engine.mounted.len(), FILES_MAX)?;
            engine.mounted.iter().try_for_each(|path| text(path))?;
            for one in &engine.unreadable {
                text(&one.what)?;
                text(&one.why)?;
            }
        }
        Ok(())
    }
}

fn over(at: usize, what: &'static str, found: usize, limit: usize) -> ParseError {
    let number = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    ParseError { at, problem: Problem::OverLimit { what, found: number(found), limit: number(limit) } }
}

fn limit(what: &'static str, found: usize, most: usize) -> Result<(), ParseError> {
    if found > most { Err(over(0, what, found, most)) } else { Ok(()) }
}

fn text(value: &str) -> Result<(), ParseError> {
    limit("bytes of a path or value", value.len(), TEXT_MAX)
}

fn list(values: &[String]) -> Result<(), ParseError> {
    limit("entries of a list", values.len(), LIST_MAX)?;
    values.iter().try_for_each(|value| text(value))
}

/// Byte offset of a line and column as serde_json counts them (both from 1).
fn offset(bytes: &[u8], line: usize, column: usize) -> usize {
    let before: usize =
        bytes.split_inclusive(|byte| *byte == b'\n').take(line.saturating_sub(1)).map(<[u8]>::len).sum();
    before.saturating_add(column.saturating_sub(1)).min(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn sample() -> EngineManifest {
        let file = FileState::File { sha256: FileDigest([7; 32]), size: 3, mode: Mode(0o644), uid: 0, gid: 0 };
        let link =
            FileState::Link { target: "docker".into(), leads_to: Some("/usr/bin/docker".into()), uid: 0, gid: 0 };
        let mut docker = EngineState { installed: true, ..EngineState::default() };
        docker.binaries.insert("/usr/bin/dockerd".into(), file.clone());
        docker.binaries.insert("/usr/bin/docker".into(), file.clone());
        docker.binaries.insert("/usr/local/bin/docker".into(), link);
        docker.configuration.insert("/etc/docker/daemon.json".into(), file);
        docker.settings.insert(
            "icc".into(),
            BTreeMap::from([
                ("/etc/docker/daemon.json".into(), Setting::Flag(false)),
                ("live".into(), Setting::Flag(false)),
            ]),
        );
        docker.processes.insert(ProcessState {
            exe: "/usr/bin/dockerd".into(),
            sha256: Some(FileDigest([7; 32])),
            deleted: false,
            foreign_mounts: false,
            argv: vec!["/usr/bin/dockerd".into(), "-H".into(), "fd://".into()],
            environment: BTreeMap::new(),
        });
        EngineManifest { version: VERSION, root_is_default: true, engines: BTreeMap::from([("docker".into(), docker)]) }
    }

    #[test]
    fn canonical_bytes_come_back() {
        let bytes = sample().to_canonical();
        assert_eq!(EngineManifest::parse(&bytes).unwrap(), sample());
        assert_eq!(EngineManifest::digest(&bytes), sha256(&[&bytes]));
    }

    #[test]
    fn anything_else_is_refused_with_its_byte() {
        let good = String::from_utf8(sample().to_canonical()).unwrap();
        let rows: &[(&str, String, &str)] = &[
            ("a space", good.replacen(':', ": ", 1), "not canonical"),
            ("a line end at the end", format!("{good}\n"), "not canonical"),
            ("a doubled key", good.replacen("{\"version\":1", "{\"version\":1,\"version\":1", 1), "no engine manifest"),
            ("an unknown key", good.replacen("\"installed\"", "\"pid\":4,\"installed\"", 1), "no engine manifest"),
            ("an unknown key in a file", good.replacen("\"size\"", "\"t\":1,\"size\"", 1), "no engine manifest"),
            ("an upper-case digest", good.replacen("0707", "0A07", 1), "no engine manifest"),
            ("a short mode", good.replacen("\"0644\"", "\"644\"", 1), "no engine manifest"),
            ("another version", good.replacen("\"version\":1", "\"version\":2", 1), "version is 0x2"),
            ("a cut", good.get(..40).unwrap().to_owned(), "too early"),
            ("nothing", String::new(), "too early"),
            ("a long path", good.replacen("/usr/bin/dockerd", &"y".repeat(TEXT_MAX + 1), 1), "limit is 4096"),
        ];
        for (name, input, expect) in rows {
            let error = EngineManifest::parse(input.as_bytes()).unwrap_err();
            assert!(error.to_string().contains(expect), "{name}: {error}");
        }
        assert!(EngineManifest::parse(&vec![b' '; BYTES_MAX + 1]).is_err());
        let mut deep = String::new();
        deep.push_str(&"[".repeat(100_000));
        assert!(EngineManifest::parse(deep.as_bytes()).is_err(), "nesting is bounded");
    }

    #[test]
    fn a_missing_optional_field_is_the_only_spelling_of_absent() {
        let good = String::from_utf8(sample().to_canonical()).unwrap();
        let null = good.replacen("\"leads_to\":\"/usr/bin/docker\"", "\"leads_to\":null", 1);
        assert!(EngineManifest::parse(null.as_bytes()).is_err());
    }
}
