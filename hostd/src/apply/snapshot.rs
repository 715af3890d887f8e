//! What an apply replaces, how it was, and how one item is written or put back.
//!
//! Establishes that what is replaced is what was read (bytes, mode, owner), that a file is whole or not there at every moment, and that a
//! restored one has its bytes, mode and owner. Extended attributes, access lists and times are not kept: a new file takes the old one's place.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown, fchown};
use std::path::{Path, PathBuf};

use hostmark_attest::digest::sha256;
use hostmark_attest::manifest::FileDigest;
use serde::{Deserialize, Serialize};

use super::Moment;
use crate::profile::root::Root;

/// Largest file that is edited: configuration, never data.
pub(super) const FILE_MAX: u64 = 4 << 20;

/// How a file is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Its content.
    pub sha256: FileDigest,
    /// Its rights.
    pub access: Access,
}

/// Who may do what with a file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// The lower twelve bits, octal.
    #[serde(with = "octal")]
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// One thing that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Item {
    /// A file's content.
    File {
        /// Below the root, links followed.
        path: String,
        /// None: there was none.
        before: Option<Facts>,
        /// As it shall be.
        after: Facts,
    },
    /// A file's or directory's rights; its content is not touched.
    Access {
        /// Below the root, links followed.
        path: String,
        /// As it was.
        before: Access,
        /// As it shall be.
        after: Access,
    },
    /// A setting of the running kernel.
    Kernel {
        /// Below /proc/sys.
        path: String,
        /// As it was.
        before: String,
        /// As it shall be.
        after: String,
    },
}

/// `0644`, as everybody writes rights.
mod octal {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
    pub(super) fn serialize<S: Serializer>(mode: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{mode:04o}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        u32::from_str_radix(&String::deserialize(deserializer)?, 8).map_err(D::Error::custom)
    }
}

/// How an item is now, held against its snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Now {
    /// As before the apply.
    Before,
    /// As the apply wrote it, wholly or in part.
    Ours,
    /// As somebody else made it.
    Foreign,
}

/// Where items are written.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) root: &'a Root,
    pub(super) kernel: Option<&'a Root>,
    /// The receipt's directory, with `before/` and `after/`.
    pub(super) directory: &'a Path,
    pub(super) receipt: &'a str,
    /// Contents that stand in a file for a moment while it is put back.
    pub(super) bridges: Vec<FileDigest>,
}

impl Item {
    /// What it is called for a person.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::File { path, .. } | Self::Access { path, .. } | Self::Kernel { path, .. } => path,
        }
    }
}

impl Access {
    /// Of what the system says.
    pub(super) fn of(meta: &std::fs::Metadata) -> Self {
        Self { mode: meta.mode() & 0o7777, uid: meta.uid(), gid: meta.gid() }
    }
}

impl Facts {
    /// Of a content with these rights.
    pub(super) fn of(bytes: &[u8], access: Access) -> Self {
        Self { sha256: FileDigest(sha256(&[bytes])), access }
    }
}

impl Place<'_> {
    /// Keeps what an item's file holds and what it will hold, before anything is written.
    pub(super) fn keep(&self, number: usize, before: Option<&[u8]>, after: &[u8]) -> io::Result<()> {
        crate::state::write(&self.directory.join("after").join(number.to_string()), after)?;
        before.map_or(Ok(()), |bytes| crate::state::write(&self.kept(number), bytes))
    }

    /// What a file was to hold.
    pub(super) fn held_after(&self, number: usize) -> io::Result<Vec<u8>> {
        Ok(crate::state::read(&self.directory.join("after").join(number.to_string()), FILE_MAX)?.unwrap_or_default())
    }

    /// What a file held before; empty where there was none.
    pub(super) fn held_before(&self, number: usize) -> io::Result<Vec<u8>> {
        Ok(crate::state::read(&self.kept(number), FILE_MAX)?.unwrap_or_default())
    }

    fn kept(&self, number: usize) -> PathBuf {
        self.directory.join("before").join(number.to_string())
    }

    /// How an item is now.
    pub(super) fn look(&self, item: &Item) -> io::Result<Now> {
        Ok(match item {
            Item::File { path, before, after } => {
                let now = self.facts(path)?;
                if now == *before {
                    return Ok(Now::Before);
                }
                let bridge = now.as_ref().is_some_and(|now| self.bridges.contains(&now.sha256));
                if now.as_ref() == Some(after) || bridge { Now::Ours } else { Now::Foreign }
            }
            Item::Access { path, before, after } => {
                let Ok(meta) = std::fs::symlink_metadata(self.root.real(path)) else { return Ok(Now::Foreign) };
                let now = Access::of(&meta);
                // Rights are set in two steps, and the first (chown) takes set-user-id bits away.
                let plain = |mode: u32| mode & 0o1777;
                let between = (plain(now.mode) == plain(before.mode) || plain(now.mode) == plain(after.mode))
                    && ((now.uid, now.gid) == (before.uid, before.gid) || (now.uid, now.gid) == (after.uid, after.gid));
                match (now == *before, between) {
                    (true, _) => Now::Before,
                    (false, true) => Now::Ours,
                    (false, false) => Now::Foreign,
                }
            }
            Item::Kernel { path, before, after } => match self.value(path)? {
                now if now == *before => Now::Before,
                now if now == *after => Now::Ours,
                _ => Now::Foreign,
            },
        })
    }

    /// Writes an item. What is replaced must still be what was read.
    pub(super) fn write(
        &self,
        number: usize,
        item: &Item,
        after: &[u8],
        watch: &mut dyn FnMut(&Moment<'_>),
    ) -> io::Result<()> {
        if self.look(item)? != Now::Before {
            let problem = format!("{}: it was changed by somebody else since it was read", item.path());
            return Err(io::Error::other(problem));
        }
        match item {
            Item::File { path, after: facts, .. } => self.replace(number, path, after, facts.access, watch),
            Item::Access { path, after, .. } => self.give(path, *after, watch),
            Item::Kernel { path, after, .. } => self.set(path, after),
        }
    }

    /// Puts an item back as it was.
    pub(super) fn restore(&self, number: usize, item: &Item, watch: &mut dyn FnMut(&Moment<'_>)) -> io::Result<()> {
        match item {
            Item::File { path, before: None, .. } => {
                let real = self.root.real(path);
                match std::fs::remove_file(&real) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
                sync_parent(&real)
            }
            Item::File { path, before: Some(facts), .. } => {
                let bytes = crate::state::read(&self.kept(number), FILE_MAX)?
                    .filter(|bytes| sha256(&[bytes]) == facts.sha256.0)
                    .ok_or_else(|| {
                        io::Error::new(io::ErrorKind::InvalidData, format!("what {path} was is not kept any more"))
                    })?;
                self.replace(number, path, &bytes, facts.access, watch)
            }
            Item::Access { path, before, .. } => self.give(path, *before, watch),
            Item::Kernel { path, before, .. } => self.set(path, before),
        }
    }

    /// The bytes and facts of a file; None: there is none.
    pub(super) fn facts(&self, path: &str) -> io::Result<Option<Facts>> {
        let real = self.root.real(path);
        let meta = match std::fs::symlink_metadata(&real) {
            Ok(meta) if meta.is_file() => meta,
            Ok(_) => return Err(io::Error::other(format!("{path}: it is no regular file"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let bytes = crate::state::read(&real, FILE_MAX)?;
        Ok(bytes.map(|bytes| Facts::of(&bytes, Access::of(&meta))))
    }

    /// Removes new files that a kill left beside their places.
    pub(super) fn sweep(&self, number: usize, item: &Item) -> io::Result<()> {
        let Item::File { path, .. } = item else { return Ok(()) };
        match std::fs::remove_file(self.beside(number, path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The new file's name until it takes its place: in the same directory, with a name that no daemon reads.
    fn beside(&self, number: usize, path: &str) -> PathBuf {
        self.root.real(path).with_file_name(format!(".hostmark-{}-{number}", self.receipt))
    }

    /// A new file in the old one's place: complete, with its rights, before it has the name.
    pub(super) fn replace(
        &self,
        number: usize,
        path: &str,
        bytes: &[u8],
        access: Access,
        watch: &mut dyn FnMut(&Moment<'_>),
    ) -> io::Result<()> {
        let (real, new) = (self.root.real(path), self.beside(number, path));
        self.sweep_path(&new)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        let written = file
            .write_all(bytes)
            .and_then(|()| fchown(&file, Some(access.uid), Some(access.gid)))
            .and_then(|()| file.set_permissions(std::fs::Permissions::from_mode(access.mode)))
            .and_then(|()| file.sync_all())
            .map(|()| watch(&Moment::Beside { path }))
            .and_then(|()| std::fs::rename(&new, &real));
        if let Err(error) = written {
            // The first error is the one to tell.
            let _ = std::fs::remove_file(&new);
            return Err(io::Error::new(error.kind(), format!("{path}: {error}")));
        }
        sync_parent(&real)
    }

    fn sweep_path(&self, path: &Path) -> io::Result<()> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn give(&self, path: &str, access: Access, watch: &mut dyn FnMut(&Moment<'_>)) -> io::Result<()> {
        let real = self.root.real(path);
        let told = |error: io::Error| io::Error::new(error.kind(), format!("{path}: {error}"));
        // Links were followed when it was planned: one here now is somebody else's.
        if std::fs::symlink_metadata(&real).map_err(told)?.is_symlink() {
            return Err(io::Error::other(format!("{path}: it is a link now")));
        }
        // The owner first: chown takes set-user-id bits away.
        chown(&real, Some(access.uid), Some(access.gid)).map_err(told)?;
        watch(&Moment::Beside { path });
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(access.mode)).map_err(told)?;
        sync_parent(&real)
    }

    /// A kernel setting's value, spaces between several as one.
    pub(super) fn value(&self, path: &str) -> io::Result<String> {
        let kernel = self.kernel.ok_or_else(|| io::Error::other("there is no running kernel"))?;
        let text = std::fs::read_to_string(kernel.real(path))?;
        Ok(text.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// Writes a kernel setting, and reads back that the kernel took it.
    fn set(&self, path: &str, value: &str) -> io::Result<()> {
        let kernel = self.kernel.ok_or_else(|| io::Error::other("there is no running kernel"))?;
        let told = |error: io::Error| io::Error::new(error.kind(), format!("{path}: {error}"));
        let mut file = OpenOptions::new().write(true).truncate(true).open(kernel.real(path)).map_err(told)?;
        file.write_all(format!("{value}\n").as_bytes()).map_err(told)?;
        drop(file);
        let now = self.value(path)?;
        if now == value {
            return Ok(());
        }
        Err(io::Error::other(format!("{path}: the kernel keeps {now} where {value} was written")))
    }
}

/// What happened in a file's directory is on the disk.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}
