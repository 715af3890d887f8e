//! Telling at once when something that was measured may have changed.
//!
//! inotify(7). Establishes that a change of a watched name becomes an event within some tens of milliseconds. It proves nothing
//! and may miss what inotify does not see (writes through another mount or a mapping, a daemon that reloads by a signal):
//! hostd measures in every round as well.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool, atomic::Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// An editor or a package manager changes several names in a row: what comes this soon after is one event.
const QUIET: Duration = Duration::from_millis(20);
/// A change is told after this long even when it does not end.
const LONGEST: Duration = Duration::from_millis(100);

/// Something that was measured may have changed: measure again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed;

/// Watches the names that a measurement looked at. Missing ones are watched by the nearest directory above them.
#[derive(Debug)]
pub struct Watcher {
    shared: Arc<Shared>,
    events: mpsc::Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    inotify: Inotify,
    stop: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Paths that were looked at.
    wanted: BTreeSet<PathBuf>,
    /// Their ancestors: a change of one moves what is below it.
    above: BTreeSet<PathBuf>,
    by_descriptor: HashMap<WatchDescriptor, PathBuf>,
    by_path: HashMap<PathBuf, WatchDescriptor>,
    unwatched: usize,
}

impl Watcher {
    /// Starts watching. The first event comes at once, so that nothing is missed between measuring and watching.
    ///
    /// # Errors
    /// The system's (no inotify instance is left, no thread).
    pub fn start(looked_at: &BTreeSet<PathBuf>) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC)?;
        let shared = Arc::new(Shared { inotify, stop: AtomicBool::new(false), state: Mutex::default() });
        let (sender, events) = mpsc::channel(1);
        shared.want(looked_at);
        let _ = sender.try_send(());
        let in_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("watch".to_owned()).spawn(move || in_thread.run(&sender))?;
        Ok(Self { shared, events, thread: Some(thread) })
    }

    /// Watches what the latest measurement looked at, and nothing else.
    pub fn update(&self, looked_at: &BTreeSet<PathBuf>) {
        self.shared.want(looked_at);
    }

    /// Waits for the next change; several close together are one. None when the watching thread has ended.
    pub async fn changed(&mut self) -> Option<Changed> {
        self.events.recv().await?;
        let now = Instant::now();
        let end = now.checked_add(LONGEST).unwrap_or(now);
        loop {
            let now = Instant::now();
            let quiet = now.checked_add(QUIET).unwrap_or(now).min(end);
            match timeout_at(quiet, self.events.recv()).await {
                Ok(Some(())) if now < end => {}
                _ => return Some(Changed),
            }
        }
    }

    /// Directories that could not be watched (`fs.inotify.max_user_watches`): their changes are seen in rounds only.
    #[must_use]
    pub fn unwatched(&self) -> usize {
        self.shared.lock().unwatched
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Adding and removing a watch makes an event, which ends the thread's read.
        if let Ok(descriptor) = self.shared.inotify.add_watch("/", AddWatchFlags::IN_DELETE_SELF) {
            let _ = self.shared.inotify.rm_watch(descriptor);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn want(&self, looked_at: &BTreeSet<PathBuf>) {
        let mut state = self.lock();
        if state.wanted == *looked_at {
            return;
        }
        state.above = looked_at.iter().flat_map(|path| path.ancestors().skip(1)).map(Path::to_owned).collect();
        state.wanted.clone_from(looked_at);
        self.watch(&mut state);
    }

    fn run(&self, sender: &mpsc::Sender<()>) {
        loop {
            let events = match self.inotify.read_events() {
                Ok(events) => events,
                Err(Errno::EINTR) => continue,
                Err(_) => return,
            };
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let mut state = self.lock();
            let mut relevant = false;
            for event in events {
                if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                    relevant = true;
                    continue;
                }
                let Some(directory) = state.by_descriptor.get(&event.wd).cloned() else { continue };
                if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                    state.by_descriptor.remove(&event.wd);
                    state.by_path.remove(&directory);
                    relevant = true;
                    continue;
                }
                let path = event.name.map_or_else(|| directory.clone(), |name| directory.join(name));
                // An ancestor matters when it comes or goes, not when its own content or mode changes.
                let moved = AddWatchFlags::IN_CREATE
                    | AddWatchFlags::IN_DELETE
                    | AddWatchFlags::IN_MOVED_FROM
                    | AddWatchFlags::IN_MOVED_TO
                    | AddWatchFlags::IN_DELETE_SELF
                    | AddWatchFlags::IN_MOVE_SELF;
                relevant |= state.wanted.contains(&path)
                    || state.wanted.contains(&directory)
                    || (event.mask.intersects(moved) && state.above.contains(&path));
            }
            if relevant {
                // What appeared may have names below it that wait to be watched.
                self.watch(&mut state);
                drop(state);
                if sender.try_send(()) == Err(mpsc::error::TrySendError::Closed(())) {
                    return;
                }
            }
        }
    }

    /// Makes the watches those of the wanted paths: each that is a directory, and every directory above.
    fn watch(&self, state: &mut State) {
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        let gone: Vec<PathBuf> = state
            .by_path
            .keys()
            .filter(|path| !state.wanted.contains(*path) && !state.above.contains(*path))
            .cloned()
            .collect();
        for path in gone {
            if let Some(descriptor) = state.by_path.remove(&path) {
                state.by_descriptor.remove(&descriptor);
                let _ = self.inotify.rm_watch(descriptor);
            }
        }
        state.unwatched = 0;
        let wanted: Vec<PathBuf> = state.above.iter().chain(&state.wanted).cloned().collect();
        for path in wanted {
            // Again for a path that is watched: another directory may have taken its name.
            match self.inotify.add_watch(&path, flags) {
                Ok(descriptor) => {
                    if let Some(before) = state.by_path.insert(path.clone(), descriptor)
                        && before != descriptor
                    {
                        state.by_descriptor.remove(&before);
                        let _ = self.inotify.rm_watch(before);
                    }
                    state.by_descriptor.insert(descriptor, path);
                }
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {}
                Err(_) => state.unwatched = state.unwatched.saturating_add(1),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::engines::{DigestCache, EnginesConfig, measure};

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    async fn told(watcher: &mut Watcher, within: Duration) -> bool {
        tokio::time::timeout(within, watcher.changed()).await.is_ok_and(|event| event == Some(Changed))
    }

    const SOON: Duration = Duration::from_secs(5);
    const NEVER: Duration = Duration::from_millis(300);

    #[tokio::test]
    async fn each_kind_of_change_is_told_and_nothing_else() {
        type Change = fn(&Path);
        let rows: &[(&str, bool, Change)] = &[
            ("an edit", true, |root| put(root, "etc/docker/daemon.json", r#"{"icc": true}"#)),
            ("a replaced file", true, |root| {
                put(root, "etc/docker/.new", "{ }");
                fs::rename(root.join("etc/docker/.new"), root.join("etc/docker/daemon.json")).unwrap();
            }),
            ("a binary", true, |root| put(root, "usr/sbin/dockerd", "another")),
            ("a mode", true, |root| {
                use std::os::unix::fs::PermissionsExt as _;
                fs::set_permissions(root.join("usr/sbin/dockerd"), fs::Permissions::from_mode(0o777)).unwrap();
            }),
            ("a drop-in in directories that were not there", true, |root| {
                put(
                    root,
                    "etc/systemd/system/docker.service.d/x.conf",
                    "[Service]
",
                );
            }),
            ("a directory that takes another's name", true, |root| {
                put(root, "etc/other/daemon.json", "{ }");
                fs::rename(root.join("etc/docker"), root.join("etc/old")).unwrap();
                fs::rename(root.join("etc/other"), root.join("etc/docker")).unwrap();
            }),
            ("an unrelated directory", false, |root| put(root, "etc/unrelated/x", "x")),
            ("reading", false, |root| drop(fs::read(root.join("usr/sbin/dockerd")).unwrap())),
        ];
        for (name, expect, change) in rows {
            let dir = tempfile::tempdir().unwrap();
            put(dir.path(), "usr/sbin/dockerd", "dockerd");
            put(dir.path(), "etc/docker/daemon.json", "{}");
            let config = EnginesConfig::of_root(dir.path());
            let measured = measure(&config, &mut DigestCache::default());
            let mut watcher = Watcher::start(&measured.looked_at).unwrap();
            assert!(told(&mut watcher, SOON).await, "the first one comes at once");
            let again = measure(&config, &mut DigestCache::default());
            assert!(!told(&mut watcher, NEVER).await, "{name}: measuring is no change");
            change(dir.path());
            assert_eq!(told(&mut watcher, if *expect { SOON } else { NEVER }).await, *expect, "{name}");
            let after = measure(&config, &mut DigestCache::default());
            assert_eq!(again.manifest != after.manifest, *expect, "{name}");
            if *expect {
                // And the next change too, wherever things are now.
                watcher.update(&after.looked_at);
                while told(&mut watcher, NEVER).await {}
                put(dir.path(), "etc/docker/daemon.json", r#"{"debug": true}"#);
                assert!(told(&mut watcher, SOON).await, "{name}: afterwards");
            }
            assert_eq!(watcher.unwatched(), 0);
        }
    }

    #[tokio::test]
    async fn a_change_is_told_within_tens_of_milliseconds() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "etc/docker/daemon.json", "{}");
        let measured = measure(&EnginesConfig::of_root(dir.path()), &mut DigestCache::default());
        let mut watcher = Watcher::start(&measured.looked_at).unwrap();
        assert!(told(&mut watcher, SOON).await);
        let mut best = SOON;
        for turn in 0..5 {
            let start = std::time::Instant::now();
            put(dir.path(), "etc/docker/daemon.json", &format!(r#"{{"mtu": {turn}}}"#));
            assert!(told(&mut watcher, SOON).await);
            best = best.min(start.elapsed());
        }
        println!("from the write to the event: {} ms at best of 5", best.as_millis());
    }
}
