//! Reading below a root: links stay inside it, sizes are bounded, nothing that blocks is opened.
//!
//! A thin layer over the engines' measuring of files, so that an image's directory is seen as the host that it will be.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::engines::files::{DigestCache, Files, join};

/// Largest text that is read below a root: dpkg's status of a full desktop has some 10 MB.
const TEXT_MAX: u64 = 64 << 20;
/// Most paths that one pattern may match.
const MATCHES_MAX: usize = 4096;
/// Deepest directory below a `**`.
const DEPTH_MAX: usize = 8;

/// A text that was looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Text {
    /// Nothing is there.
    Missing,
    /// It is there, but cannot be read, for this reason.
    Unreadable(String),
    /// It was read whole.
    Read(String),
}

/// A directory that is seen as `/`.
#[derive(Debug, Clone)]
pub(crate) struct Root(PathBuf, RefCell<Option<String>>);

impl Root {
    pub(crate) fn new(root: impl Into<PathBuf>) -> Self {
        Self(root.into(), RefCell::new(None))
    }

    /// The real path of an absolute path below the root, links not followed.
    pub(crate) fn real(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    /// Where a path leads after every link, when there is something. A path of which that cannot be told is kept as trouble.
    pub(crate) fn leads_to(&self, path: &str) -> Option<String> {
        let mut cache = DigestCache::default();
        Files::new(&self.0, &mut cache).find(path).unwrap_or_else(|why| {
            self.1.borrow_mut().get_or_insert_with(|| format!("{path}: {why}"));
            None
        })
    }

    /// The first path since the last call of which it could not be told whether something is there: it is not known to be absent.
    pub(crate) fn take_trouble(&self) -> Option<String> {
        self.1.borrow_mut().take()
    }

    /// What a path leads to.
    pub(crate) fn meta(&self, path: &str) -> Option<Metadata> {
        std::fs::symlink_metadata(self.real(&self.leads_to(path)?)).ok()
    }

    /// Whether something is at a path.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.leads_to(path).is_some()
    }

    /// A regular file's text.
    pub(crate) fn text(&self, path: &str) -> Text {
        let Some(end) = self.leads_to(path) else { return Text::Missing };
        match self.meta(&end) {
            Some(meta) if meta.is_file() => {}
            Some(_) => return Text::Unreadable(format!("{path}: it is no regular file")),
            None => return Text::Missing,
        }
        match crate::state::read(&self.real(&end), TEXT_MAX) {
            Ok(Some(bytes)) => match String::from_utf8(bytes) {
                Ok(text) => Text::Read(text),
                Err(_) => Text::Unreadable(format!("{path}: it is not UTF-8 text")),
            },
            Ok(None) => Text::Missing,
            Err(error) => Text::Unreadable(format!("{path}: {error}")),
        }
    }

    /// Names in a directory, sorted.
    ///
    /// # Errors
    /// It is there and cannot be listed whole.
    pub(crate) fn list(&self, directory: &str) -> Result<Vec<String>, String> {
        if self.leads_to(directory).is_none() {
            return Ok(Vec::new());
        }
        let mut cache = DigestCache::default();
        let mut files = Files::new(&self.0, &mut cache);
        let names = files.list(directory);
        match files.take_unreadable().into_iter().next() {
            Some(one) => Err(format!("{}: {}", one.what, one.why)),
            None => Ok(names),
        }
    }

    /// The `*.conf` files of several directories, strongest first, in the order of their names: one hides those of its name in weaker
    /// directories, and a link to nothing or to /dev/null takes its name's place and says nothing. Path and text of each.
    ///
    /// # Errors
    /// A directory cannot be listed, or a file cannot be read.
    pub(crate) fn conf_files(&self, directories: &[&str]) -> Result<Vec<(String, String)>, String> {
        let mut files: BTreeMap<String, String> = BTreeMap::new();
        for directory in directories {
            for name in self.list(directory)? {
                if name.ends_with(".conf") {
                    let path = join(directory, &name);
                    files.entry(name).or_insert(path);
                }
            }
        }
        let mut texts = Vec::new();
        for path in files.into_values() {
            match self.text(&path) {
                Text::Read(text) => texts.push((path, text)),
                Text::Missing => {}
                Text::Unreadable(_) if self.leads_to(&path).as_deref() == Some("/dev/null") => {}
                Text::Unreadable(why) => return Err(why),
            }
        }
        Ok(texts)
    }

    /// Existing paths that a pattern matches: `*` and `?` in a component, `**` as the last one for all that is below.
    ///
    /// # Errors
    /// A directory on the way cannot be listed, or too much matches.
    pub(crate) fn matching(&self, pattern: &str) -> Result<Vec<String>, String> {
        let mut found = vec![String::new()];
        for part in pattern.split('/').filter(|part| !part.is_empty()) {
            let mut next = Vec::new();
            for directory in &found {
                if part == "**" {
                    self.below(directory, 0, &mut next)?;
                } else if part.contains(['*', '?']) {
                    let names = self.list(if directory.is_empty() { "/" } else { directory })?;
                    let fits = names.iter().filter(|name| crate::engines::units::matches(part, name));
                    next.extend(fits.map(|name| join(directory, name)));
                } else {
                    next.push(join(directory, part));
                }
                if next.len() > MATCHES_MAX {
                    return Err(format!("{pattern}: more than {MATCHES_MAX} paths match"));
                }
            }
            found = next;
        }
        found.retain(|path| self.has(path));
        Ok(found)
    }

    fn below(&self, directory: &str, depth: usize, into: &mut Vec<String>) -> Result<(), String> {
        if depth > DEPTH_MAX || into.len() > MATCHES_MAX {
            return Err(format!("{directory}: too deep or too many entries"));
        }
        if std::fs::symlink_metadata(self.real(directory)).is_ok_and(|meta| meta.is_symlink()) && depth > 0 {
            return Ok(());
        }
        for name in self.list(directory)? {
            let path = join(directory, &name);
            into.push(path.clone());
            if self.meta(&path).is_some_and(|meta| meta.is_dir()) {
                self.below(&path, depth.saturating_add(1), into)?;
            }
        }
        Ok(())
    }

    /// `/etc/passwd` or `/etc/group`: name, fields. Lines that are none are left out.
    pub(crate) fn accounts(&self, path: &str) -> Vec<Vec<String>> {
        let Text::Read(text) = self.text(path) else { return Vec::new() };
        let line = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
        text.lines().map(line).filter(|fields| fields.len() >= 3).collect()
    }

    /// `MODE OWNER GROUP` of a file, names as this root knows them.
    pub(crate) fn access(&self, meta: &Metadata) -> String {
        let name = |table: &str, id: u32| {
            let id = id.to_string();
            let known = self.accounts(table).into_iter().find(|fields| fields.get(2) == Some(&id));
            // The root of a directory that has no accounts of its own is root all the same.
            let fallback = if id == "0" { "root".to_owned() } else { id };
            known.and_then(|fields| fields.into_iter().next()).unwrap_or(fallback)
        };
        let (owner, group) = (name("/etc/passwd", meta.uid()), name("/etc/group", meta.gid()));
        format!("{:04o} {owner} {group}", meta.mode() & 0o7777)
    }

    /// The directory itself.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}
