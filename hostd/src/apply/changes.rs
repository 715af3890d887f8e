//! What each control changes, down to the bytes: several controls of one file become one new content.
//!
//! Establishes the exact content, rights or value that would be written, and by which controls; a control that cannot be changed from here is
//! told with the reason. Nothing is written, and nothing of a profile is a command.

use std::collections::{BTreeMap, BTreeSet};

use hostmark_attest::manifest::Setting;
use hostmark_attest::profile::{Control, KeyPath, Keyed, Outcome, Predicate, Resource, SourceKind};
use serde_json::Value;

use super::edit;
use super::snapshot::{Access, FILE_MAX, Facts, Item};
use crate::engines::{below_root, settings};
use crate::profile::Host;

/// Rights of a file or directory that is new.
const NEW_FILE: u32 = 0o644;

/// A file as it is and as it would be.
#[derive(Debug, Clone)]
pub(super) struct FileDraft {
    pub(super) before: Option<(Vec<u8>, Access)>,
    pub(super) after: Vec<u8>,
    pub(super) access: Access,
    pub(super) controls: BTreeSet<String>,
}

/// Everything that would be written.
#[derive(Debug, Default)]
pub(super) struct Drafts {
    /// By path below the root, links followed.
    pub(super) files: BTreeMap<String, FileDraft>,
    /// Directories that are missing, outermost first.
    pub(super) directories: Vec<String>,
}

/// What is changed, or why it cannot be from here.
type Result<T = ()> = std::result::Result<T, String>;

impl Drafts {
    /// Adds what a control changes.
    pub(super) fn add(&mut self, host: &Host, control: &Control, outcome: &Outcome) -> Result {
        match &control.resource {
            Resource::Json(keyed) if !keyed.path.ends_with(".json") => {
                Err(format!("{} is no JSON: change it by hand", keyed.path))
            }
            Resource::Json(keyed) => self.json(host, control, keyed, outcome),
            other => Err(format!("a resource of kind {} is changed by hand", other.kind())),
        }
    }

    /// As items, files in the order of their paths.
    pub(super) fn items(&self) -> Vec<Item> {
        let file = |(path, draft): (&String, &FileDraft)| Item::File {
            path: path.clone(),
            before: draft.before.as_ref().map(|(bytes, access)| Facts::of(bytes, *access)),
            after: Facts::of(&draft.after, draft.access),
        };
        self.files.iter().map(file).collect()
    }

    /// Nothing would be written.
    pub(super) fn is_empty(&self) -> bool {
        self.files.values().all(|draft| draft.before.as_ref().is_some_and(|(bytes, _)| *bytes == draft.after))
    }

    fn json(&mut self, host: &Host, control: &Control, keyed: &Keyed, outcome: &Outcome) -> Result {
        let mut path = keyed.path.clone();
        if path == "/etc/docker/daemon.json" {
            // dockerd refuses to start where a flag and the file say one thing, whatever they say.
            let stated = outcome.effective.iter().chain(&outcome.others);
            if let Some(flag) = stated.into_iter().find(|one| matches!(one.by, SourceKind::Argv | SourceKind::Unit)) {
                let problem = "dockerd does not start with both a flag and a key: take the flag away there";
                return Err(format!("{flag}; {problem}"));
            }
            path = docker_file(host)?;
        }
        let old = self.text(host, &path)?;
        let wanted = self.wanted(control, &old, &keyed.key);
        let new =
            edit::json::edit(&old, keyed.key.segments(), wanted.as_ref()).map_err(|why| format!("{path}: {why}"))?;
        self.put(host, &path, new, control)
    }

    /// The value to write; None removes the key. What a list has to have is added to what it has.
    fn wanted(&self, control: &Control, old: &str, key: &KeyPath) -> Option<Value> {
        let root: Value = serde_json::from_str(old).unwrap_or_default();
        let found = key.segments().iter().try_fold(&root, |value, segment| value.get(segment));
        let list = found.and_then(Value::as_array);
        match (&control.want.is, control.value_to_write(), list) {
            // A daemon that reloads a file keeps what the file no longer has: an empty list says it.
            (Predicate::Empty, None, Some(_)) => Some(Value::Array(Vec::new())),
            (Predicate::SupersetOf(_) | Predicate::AnyOf(_), Some(Setting::List(more)), Some(list)) => {
                let missing = more.iter().map(|one| Value::String(one.clone())).filter(|one| !list.contains(one));
                Some(Value::Array(list.iter().cloned().chain(missing.collect::<Vec<_>>()).collect()))
            }
            (_, value, _) => value.as_ref().map(of_setting),
        }
    }

    /// A file's text as it would be so far; empty when there is none.
    fn text(&self, host: &Host, path: &str) -> Result<String> {
        let place = place_of(host, path)?;
        if let Some(draft) = self.files.get(&place) {
            return text_of(path, draft.after.clone());
        }
        read(host, &place)?.map_or(Ok(String::new()), |(bytes, _)| text_of(path, bytes))
    }

    /// A file's new text.
    fn put(&mut self, host: &Host, path: &str, text: String, control: &Control) -> Result {
        let place = place_of(host, path)?;
        if !self.files.contains_key(&place) {
            let before = read(host, &place)?;
            let access = before.as_ref().map_or_else(|| own(NEW_FILE), |(_, access)| *access);
            let after = before.as_ref().map(|(bytes, _)| bytes.clone()).unwrap_or_default();
            self.directories_for(host, &place);
            let draft = FileDraft { before, after, access, controls: BTreeSet::new() };
            self.files.insert(place.clone(), draft);
        }
        if let Some(draft) = self.files.get_mut(&place) {
            draft.after = text.into_bytes();
            draft.controls.insert(control.id.clone());
        }
        Ok(())
    }

    /// Directories above a new file that are missing.
    fn directories_for(&mut self, host: &Host, path: &str) {
        let mut missing = Vec::new();
        let mut at = path;
        while let Some((parent, _)) = at.rsplit_once('/').filter(|(parent, _)| !parent.is_empty()) {
            if host.root.real(parent).is_dir() {
                break;
            }
            missing.push(parent.to_owned());
            at = parent;
        }
        for one in missing.into_iter().rev() {
            if !self.directories.contains(&one) {
                self.directories.push(one);
            }
        }
    }
}

/// Rights under which this process makes a new file.
pub(super) fn own(mode: u32) -> Access {
    Access { mode, uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() }
}

/// The file that dockerd reads: the one that its arguments name, else the configured one.
pub(super) fn docker_file(host: &Host) -> Result<String> {
    let daemons = host.engine("docker").map(|docker| &docker.processes);
    let named: BTreeSet<String> = daemons
        .into_iter()
        .flatten()
        .map(|daemon| match settings::flag_value(&daemon.argv, &["config-file"]) {
            Some(path) => below_root(&host.config, &path),
            None => host.config.docker_config.clone(),
        })
        .collect();
    match (named.len(), named.into_iter().next()) {
        (0, _) => Ok(host.config.docker_config.clone()),
        (1, Some(path)) => Ok(path),
        _ => {
            Err("several daemons with files of their own run: which of them is meant is for a person to say".to_owned())
        }
    }
}

/// Where a path leads below the root; a file that is not there yet has the place that its directory leads to.
fn place_of(host: &Host, path: &str) -> Result<String> {
    if let Some(place) = host.root.leads_to(path) {
        return Ok(place);
    }
    if let Some(trouble) = host.root.take_trouble() {
        return Err(trouble);
    }
    if std::fs::symlink_metadata(host.root.real(path)).is_ok_and(|meta| meta.is_symlink()) {
        return Err(format!("{path} is a link that leads nowhere: remove it or make what it leads to"));
    }
    let Some((parent, name)) = path.rsplit_once('/') else { return Err(format!("{path}: not an absolute path")) };
    if parent.is_empty() {
        return Ok(path.to_owned());
    }
    let parent = place_of(host, parent)?;
    Ok(format!("{}/{name}", parent.trim_end_matches('/')))
}

/// What a file holds, and its rights; None: there is none.
fn read(host: &Host, place: &str) -> Result<Option<(Vec<u8>, Access)>> {
    let real = host.root.real(place);
    let told = |error: std::io::Error| format!("{place}: {error}");
    let meta = match std::fs::symlink_metadata(&real) {
        Ok(meta) if meta.is_file() => meta,
        Ok(_) => return Err(format!("{place}: it is no regular file")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(told(error)),
    };
    let bytes = crate::state::read(&real, FILE_MAX).map_err(told)?;
    Ok(bytes.map(|bytes| (bytes, Access::of(&meta))))
}

fn text_of(path: &str, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|_| format!("{path}: it is not UTF-8 text"))
}

fn of_setting(value: &Setting) -> Value {
    match value {
        Setting::Flag(flag) => Value::Bool(*flag),
        Setting::Number(number) => Value::Number((*number).into()),
        Setting::Text(text) => Value::String(text.clone()),
        Setting::List(list) => list.iter().map(|one| Value::String(one.clone())).collect(),
    }
}
