//! Measuring files below a root: links followed inside it, contents hashed, nothing that blocks ever opened.
//!
//! Establishes the content, owner and mode of each file at one moment, and every link on the way. Does not establish that
//! the content is what a daemon has loaded: that is what processes and live settings are for.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fs::{File, Metadata, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hostmark_attest::manifest::{FileDigest, FileState, Mode, Setting, TEXT_MAX, Unreadable};
use nix::fcntl::OFlag;
use sha2::Digest as _;

use super::transitions::Stamp;

/// Largest file that is hashed. Engines' programs have some 100 MB; statically linked ones with models inside do not exist.
const FILE_MAX: u64 = 1 << 30;
/// Largest file whose text is also interpreted.
pub(crate) const TEXT_FILE_MAX: u64 = 1 << 20;
/// Most files of one measurement, below what a manifest may hold for all its engines.
const FILES_MAX: usize = 8192;
/// Most entries of one directory.
const DIRECTORY_MAX: usize = 4096;
/// Deepest directory below a measured one.
const DEPTH_MAX: usize = 8;
/// Most links on the way to one file: Linux's own limit.
const LINKS_MAX: usize = 40;
/// A file is read again when it changed meanwhile, this many times.
const READS_MAX: usize = 3;
/// Smallest file whose digest is kept between measurements: smaller ones are read each time.
const CACHED_MIN: u64 = 1 << 20;
/// A digest is kept only when the file was last changed this long before it was read: file systems' time stamps are coarse.
const SETTLED: Duration = Duration::from_millis(200);

/// Most answers of programs that are kept: one for each daemon, and some states ago.
const DUMPS_MAX: usize = 16;

/// Links of merged-/usr systems and of /var/run: every path crosses them, and they say nothing about an engine.
const WELL_KNOWN_LINKS: [&str; 7] = ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/var/run"];

/// What identifies one content of one inode.
pub(crate) type Identity = (u64, u64, u64, i64, i64, i64, i64);

/// Digests of large files between measurements, by inode, size and both time stamps.
///
/// Root can keep an inode's time stamps and change its content; so can it lie for hostd. Call [`DigestCache::forget`]
/// now and then.
#[derive(Debug, Default)]
pub struct DigestCache {
    digests: HashMap<Identity, FileDigest>,
    /// What programs said of configuration, by the digest of all that it depends on.
    dumps: HashMap<[u8; 32], BTreeMap<String, Setting>>,
}

impl DigestCache {
    /// Reads everything again next time.
    pub fn forget(&mut self) {
        self.digests.clear();
        self.dumps.clear();
    }
}

/// What a path led to.
#[derive(Debug)]
pub(crate) enum Found {
    /// Nothing there.
    Missing,
    /// A regular file: its canonical path and, when it was asked for and is not too large, its content.
    File { path: String, content: Option<Vec<u8>> },
    /// A directory: its canonical path.
    Directory { path: String },
    /// Something else, or something that could not be read.
    Other,
}

impl Found {
    /// The content as text, if there is one.
    pub(crate) fn text(self) -> Option<String> {
        match self {
            Self::File { content, .. } => content.and_then(|bytes| String::from_utf8(bytes).ok()),
            _ => None,
        }
    }
}

struct Link {
    path: String,
    target: String,
    uid: u32,
    gid: u32,
}

struct Resolved {
    path: String,
    meta: Option<Metadata>,
    links: Vec<Link>,
}

/// One measurement's view of the files below a root.
pub(crate) struct Files<'a> {
    root: &'a Path,
    cache: &'a mut DigestCache,
    left: usize,
    /// Every real path that was looked at, there or not.
    pub(crate) looked_at: BTreeSet<PathBuf>,
    /// Files that were hashed and directories whose entries were, by canonical path.
    pub(crate) stamps: BTreeMap<String, Stamp>,
    /// What could not be measured since the last [`Files::take_unreadable`].
    unreadable: BTreeSet<Unreadable>,
}

impl<'a> Files<'a> {
    pub(crate) fn new(root: &'a Path, cache: &'a mut DigestCache) -> Self {
        Self {
            root,
            cache,
            left: FILES_MAX,
            looked_at: BTreeSet::new(),
            stamps: BTreeMap::new(),
            unreadable: BTreeSet::new(),
        }
    }

    /// What a program said of configuration that is the same.
    pub(crate) fn known_dump(&self, key: &[u8; 32]) -> Option<BTreeMap<String, Setting>> {
        self.cache.dumps.get(key).cloned()
    }

    /// Keeps it, in the place of older ones when there are too many.
    pub(crate) fn keep_dump(&mut self, key: [u8; 32], dump: BTreeMap<String, Setting>) {
        if self.cache.dumps.len() >= DUMPS_MAX {
            self.cache.dumps.clear();
        }
        self.cache.dumps.insert(key, dump);
    }

    /// What could not be measured since the last call.
    pub(crate) fn take_unreadable(&mut self) -> BTreeSet<Unreadable> {
        std::mem::take(&mut self.unreadable)
    }

    /// Notes that something could not be measured.
    pub(crate) fn unreadable(&mut self, what: &str, why: &str) {
        self.unreadable.insert(Unreadable { what: bounded(what), why: why.to_owned() });
    }

    /// Measures one path and the links on the way; a directory only by owner and mode.
    pub(crate) fn measure(&mut self, path: &str, into: &mut BTreeMap<String, FileState>) -> Found {
        self.measure_with(path, into, false)
    }

    /// As [`Files::measure`], and returns the very content that was hashed.
    pub(crate) fn read(&mut self, path: &str, into: &mut BTreeMap<String, FileState>) -> Found {
        self.measure_with(path, into, true)
    }

    /// Measures everything below a directory, except entries for which `skip` is true.
    pub(crate) fn tree(&mut self, path: &str, skip: &dyn Fn(&str) -> bool, into: &mut BTreeMap<String, FileState>) {
        let mut waiting = VecDeque::from([(path.to_owned(), 0usize)]);
        let mut done = BTreeSet::new();
        while let Some((at, depth)) = waiting.pop_front() {
            if let Found::Directory { path: directory } = self.measure(&at, into) {
                if !done.insert(directory.clone()) {
                    continue;
                }
                if depth > DEPTH_MAX {
                    self.unreadable(&directory, "too deep");
                    continue;
                }
                for name in self.list_all(&directory) {
                    if !skip(&name) {
                        waiting.push_back((join(&directory, &name), depth.saturating_add(1)));
                    }
                }
            }
        }
    }

    /// Names in a directory, sorted; empty when there is none.
    pub(crate) fn list(&mut self, directory: &str) -> Vec<String> {
        let Ok(resolved) = self.resolve(directory) else { return Vec::new() };
        if !resolved.meta.is_some_and(|meta| meta.is_dir()) {
            return Vec::new();
        }
        let mut names = Vec::new();
        match std::fs::read_dir(self.real(&resolved.path)) {
            Ok(entries) => {
                for entry in entries.take(DIRECTORY_MAX.saturating_add(1)) {
                    match entry.map(|entry| entry.file_name().into_string()) {
                        Ok(Ok(name)) => names.push(name),
                        Ok(Err(name)) => {
                            let what = join(&resolved.path, &name.to_string_lossy());
                            self.unreadable(&what, "the name is not UTF-8");
                        }
                        Err(_) => self.unreadable(&resolved.path, "cannot be listed"),
                    }
                }
                if names.len() > DIRECTORY_MAX {
                    names.truncate(DIRECTORY_MAX);
                    self.unreadable(&resolved.path, "too many entries");
                }
            }
            Err(error) => self.unreadable(&resolved.path, reason(&error)),
        }
        names.sort();
        names
    }

    /// As [`Files::list`], for a directory of which every entry counts: one that comes and goes leaves a trace.
    pub(crate) fn list_all(&mut self, directory: &str) -> Vec<String> {
        // Looked at before the names: a later change shows next time.
        let resolved = self.resolve(directory).ok().and_then(|resolved| Some((resolved.path, resolved.meta?)));
        let names = self.list(directory);
        if let Some((path, meta)) = resolved.filter(|(_, meta)| meta.is_dir()) {
            self.stamps.insert(path, Stamp::Directory(identity(&meta), names.clone()));
        }
        names
    }

    /// Where a path leads, when it leads anywhere.
    pub(crate) fn leads_to(&mut self, path: &str) -> Option<String> {
        self.resolve(path).ok().filter(|resolved| resolved.meta.is_some()).map(|resolved| resolved.path)
    }

    /// Where a path leads; None when nothing is there.
    ///
    /// # Errors
    /// Why that cannot be told.
    pub(crate) fn find(&mut self, path: &str) -> Result<Option<String>, &'static str> {
        self.resolve(path).map(|resolved| resolved.meta.map(|_| resolved.path))
    }

    /// The digest of an open program, through the cache.
    pub(crate) fn digest_of(&mut self, file: &mut File) -> Option<FileDigest> {
        let meta = file.metadata().ok()?;
        self.hash(file, &meta, None).ok()
    }

    fn measure_with(&mut self, path: &str, into: &mut BTreeMap<String, FileState>, keep: bool) -> Found {
        let resolved = match self.resolve(path) {
            Ok(resolved) => resolved,
            Err(why) => {
                self.unreadable(path, why);
                return Found::Other;
            }
        };
        if self.left == 0 {
            self.unreadable("files", "too many files");
            return Found::Other;
        }
        for link in &resolved.links {
            if WELL_KNOWN_LINKS.contains(&link.path.as_str()) {
                continue;
            }
            let leads_to = self.leads_to(&link.path);
            self.left = self.left.saturating_sub(1);
            let Link { path, target, uid, gid } = link;
            into.insert(path.clone(), FileState::Link { target: target.clone(), leads_to, uid: *uid, gid: *gid });
        }
        let Some(meta) = resolved.meta else { return Found::Missing };
        self.left = self.left.saturating_sub(1);
        let (mode, uid, gid) = (mode_of(&meta), meta.uid(), meta.gid());
        let path = resolved.path;
        if meta.is_file() {
            match self.content(&path, keep) {
                Ok((state, content)) => {
                    into.insert(path.clone(), state);
                    return Found::File { path, content };
                }
                Err(why) => {
                    self.unreadable(&path, why);
                    return Found::Other;
                }
            }
        }
        let kind = meta.file_type();
        if kind.is_dir() {
            return Found::Directory { path };
        }
        // /dev/null is how units and drop-ins are masked: it is not a device to wonder about.
        if path != "/dev/null" {
            let what = match () {
                () if kind.is_socket() => "socket",
                () if kind.is_fifo() => "fifo",
                () => "device",
            };
            into.insert(path.clone(), FileState::Other { what: what.to_owned(), mode, uid, gid });
            if !kind.is_socket() {
                self.unreadable(&path, "not a regular file");
            }
        }
        Found::Other
    }

    /// Reads a regular file once as a whole, and again when it changed meanwhile.
    fn content(&mut self, path: &str, keep: bool) -> Result<(FileState, Option<Vec<u8>>), &'static str> {
        let flags = OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_NOCTTY;
        for _ in 0..READS_MAX {
            let opened = OpenOptions::new().read(true).custom_flags(flags.bits()).open(self.real(path));
            let mut file = opened.map_err(|error| reason(&error))?;
            let before = file.metadata().map_err(|error| reason(&error))?;
            if !before.is_file() {
                return Err("not a regular file");
            }
            if before.len() > FILE_MAX {
                return Err("too large");
            }
            let mut content = (keep && before.len() <= TEXT_FILE_MAX).then(Vec::new);
            let sha256 = self.hash(&mut file, &before, content.as_mut())?;
            let after = file.metadata().map_err(|error| reason(&error))?;
            if identity(&before) == identity(&after) {
                let (mode, uid, gid) = (mode_of(&after), after.uid(), after.gid());
                self.stamps.insert(path.to_owned(), Stamp::File(identity(&after)));
                return Ok((FileState::File { sha256, size: after.len(), mode, uid, gid }, content));
            }
        }
        Err("it changes while it is read")
    }

    fn hash(
        &mut self,
        file: &mut File,
        meta: &Metadata,
        mut keep: Option<&mut Vec<u8>>,
    ) -> Result<FileDigest, &'static str> {
        let key = identity(meta);
        if keep.is_none()
            && let Some(known) = self.cache.digests.get(&key)
        {
            return Ok(*known);
        }
        let mut hasher = sha2::Sha256::new();
        let mut buffer = vec![0u8; 256 << 10];
        let mut total = 0u64;
        loop {
            let count = file.read(&mut buffer).map_err(|error| reason(&error))?;
            let Some(part) = buffer.get(..count).filter(|part| !part.is_empty()) else { break };
            total = total.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
            if total > FILE_MAX || (keep.is_some() && total > TEXT_FILE_MAX) {
                return Err("too large");
            }
            hasher.update(part);
            if let Some(keep) = keep.as_deref_mut() {
                keep.extend_from_slice(part);
            }
        }
        let digest = FileDigest(hasher.finalize().into());
        if meta.len() >= CACHED_MIN && settled(meta) {
            self.cache.digests.insert(key, digest);
        }
        Ok(digest)
    }

    fn real(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Follows every link of an absolute path, none of them out of the root.
    fn resolve(&mut self, path: &str) -> Result<Resolved, &'static str> {
        let mut waiting: VecDeque<String> = path.split('/').map(str::to_owned).collect();
        let mut at: Vec<String> = Vec::new();
        let mut links = Vec::new();
        let mut meta = None;
        self.looked_at.insert(self.real(path));
        while let Some(part) = waiting.pop_front() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    at.pop();
                    continue;
                }
                _ => at.push(part),
            }
            let here = format!("/{}", at.join("/"));
            let real = self.real(&here);
            match std::fs::symlink_metadata(&real) {
                Ok(found) if found.is_symlink() => {
                    if links.len() >= LINKS_MAX {
                        return Err("too many links");
                    }
                    let target = std::fs::read_link(&real).map_err(|error| reason(&error))?;
                    let target = target.to_str().ok_or("the link's target is not UTF-8")?.to_owned();
                    self.looked_at.insert(real);
                    if target.starts_with('/') {
                        at.clear();
                    } else {
                        at.pop();
                    }
                    for part in target.rsplit('/') {
                        waiting.push_front(part.to_owned());
                    }
                    links.push(Link { path: here, target, uid: found.uid(), gid: found.gid() });
                    meta = None;
                }
                Ok(found) => meta = Some(found),
                Err(error) if matches!(error.raw_os_error(), Some(2 | 20)) => {
                    // ENOENT, ENOTDIR: nothing there; the rest of the path only says where it would be.
                    at.extend(waiting.into_iter().filter(|part| !part.is_empty()));
                    let path = format!("/{}", at.join("/"));
                    self.looked_at.insert(self.real(&path));
                    return Ok(Resolved { path, meta: None, links });
                }
                Err(error) => return Err(reason(&error)),
            }
        }
        if at.is_empty() {
            meta = std::fs::symlink_metadata(self.root).ok();
        }
        let path = format!("/{}", at.join("/"));
        if path.len() > TEXT_MAX {
            return Err("the path is too long");
        }
        self.looked_at.insert(self.real(&path));
        Ok(Resolved { path, meta, links })
    }
}

/// `directory/name`.
pub(crate) fn join(directory: &str, name: &str) -> String {
    format!("{}/{name}", directory.trim_end_matches('/'))
}

/// Text as a manifest holds it: longer than its limit, only its digest and size.
pub(crate) fn bounded(text: &str) -> String {
    if text.len() <= TEXT_MAX {
        return text.to_owned();
    }
    let digest = hostmark_attest::digest::sha256(&[text.as_bytes()]);
    format!("({} bytes, sha256:{})", text.len(), hex::encode(digest))
}

/// Whether a text is what [`bounded`] makes of a longer one.
pub(crate) fn is_cut(text: &str) -> bool {
    let inside = text.strip_prefix('(').and_then(|text| text.strip_suffix(')'));
    let digest = inside.and_then(|text| text.split_once(" bytes, sha256:")).map(|(_, digest)| digest);
    digest.is_some_and(|digest| digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Stable words for an error: no number, no locale.
fn reason(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => "permission denied",
        std::io::ErrorKind::NotFound => "it vanished",
        _ => "cannot be read",
    }
}

fn identity(meta: &Metadata) -> Identity {
    (meta.dev(), meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec())
}

fn settled(meta: &Metadata) -> bool {
    let changed = u64::try_from(meta.ctime()).ok().zip(u32::try_from(meta.ctime_nsec()).ok());
    changed
        .and_then(|(seconds, nanos)| UNIX_EPOCH.checked_add(Duration::new(seconds, nanos)))
        .and_then(|changed| SystemTime::now().duration_since(changed).ok())
        .is_some_and(|age| age > SETTLED)
}

fn mode_of(meta: &Metadata) -> Mode {
    Mode(u16::try_from(meta.mode() & 0o7777).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn measured(root: &Path, path: &str) -> (BTreeMap<String, FileState>, BTreeSet<Unreadable>, Found) {
        let mut cache = DigestCache::default();
        let mut files = Files::new(root, &mut cache);
        let mut into = BTreeMap::new();
        let found = files.read(path, &mut into);
        (into, files.take_unreadable(), found)
    }

    #[test]
    fn links_stay_inside_the_root_and_are_reported_with_what_they_lead_to() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir_all(root.join("etc/real")).unwrap();
        std::fs::write(root.join("etc/real/passwd"), "mine").unwrap();
        symlink("/etc/real", root.join("etc/docker")).unwrap();
        symlink("../../../../../etc/real/passwd", root.join("etc/real/up")).unwrap();
        symlink("loop", root.join("etc/loop")).unwrap();

        let (into, unreadable, found) = measured(root, "/etc/docker/up");
        assert_eq!(found.text().as_deref(), Some("mine"));
        assert!(unreadable.is_empty());
        let keys: Vec<&str> = into.keys().map(String::as_str).collect();
        assert_eq!(keys, ["/etc/docker", "/etc/real/passwd", "/etc/real/up"]);
        assert!(
            matches!(&into["/etc/real/up"], FileState::Link { leads_to: Some(to), .. } if to == "/etc/real/passwd")
        );

        let (_, unreadable, _) = measured(root, "/etc/loop");
        assert_eq!(unreadable.first().unwrap().why, "too many links");
        assert!(matches!(measured(root, "/etc/passwd").2, Found::Missing));
    }

    #[test]
    fn a_fifo_does_not_hang_and_is_content_unknown() {
        let dir = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&dir.path().join("daemon.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let (into, unreadable, _) = measured(dir.path(), "/daemon.json");
        assert!(matches!(&into["/daemon.json"], FileState::Other { what, .. } if what == "fifo"));
        assert_eq!(unreadable.first().unwrap().why, "not a regular file");
        std::fs::remove_file(dir.path().join("daemon.json")).unwrap();
        std::fs::write(dir.path().join("daemon.json"), "{}").unwrap();
        assert!(measured(dir.path(), "/daemon.json").1.is_empty(), "the honest twin");
    }

    #[test]
    fn a_kept_digest_is_used_only_for_the_same_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dockerd");
        std::fs::write(&path, vec![1u8; 2 << 20]).unwrap();
        let mut cache = DigestCache::default();
        let mut digests = Vec::new();
        for step in 0..3 {
            if step == 2 {
                std::fs::write(&path, vec![2u8; 2 << 20]).unwrap();
            } else {
                std::thread::sleep(SETTLED * 2);
            }
            let mut files = Files::new(dir.path(), &mut cache);
            let mut into = BTreeMap::new();
            files.measure("/dockerd", &mut into);
            digests.push(into["/dockerd"].clone());
        }
        assert_eq!(digests[0], digests[1]);
        assert_ne!(digests[1], digests[2]);
        assert_eq!(cache.digests.len(), 1, "the last one had not settled");
    }

    #[test]
    fn a_tree_is_measured_whole_and_a_link_loop_ends() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("etc/docker/certs.d/r:5000")).unwrap();
        std::fs::write(dir.path().join("etc/docker/certs.d/r:5000/ca.crt"), "ca").unwrap();
        std::fs::write(dir.path().join("etc/docker/key.json"), "volatile").unwrap();
        symlink("..", dir.path().join("etc/docker/certs.d/back")).unwrap();
        let mut cache = DigestCache::default();
        let mut files = Files::new(dir.path(), &mut cache);
        let mut into = BTreeMap::new();
        files.tree("/etc/docker", &|name| name == "key.json", &mut into);
        let keys: Vec<&str> = into.keys().map(String::as_str).collect();
        assert_eq!(keys, ["/etc/docker/certs.d/back", "/etc/docker/certs.d/r:5000/ca.crt"]);
        assert!(files.take_unreadable().is_empty());
    }
}
