//! One run of canaries in one engine: what it creates is noted before it is there, and gone afterwards.
//!
//! Establishes that nothing stays behind, even of a run that was killed: its note says what it may have left, and the next run removes that. Only
//! names out of such notes are removed, never what merely carries the label: a label is nobody's proof of anything.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use super::engine::{Ask, Engine, Inspected, Made, Told, Words};
use super::image;

/// Where runs leave their notes: gone with the boot, as running containers are.
pub(super) const NOTES: &str = "/run/hostmark/canary";
/// Name of the image and beginning of every name.
const PREFIX: &str = "hostmark-canary";
/// Containers that a run may create.
const CONTAINERS: [&str; 7] = ["look", "caller", "published", "memory", "privileged", "near", "far"];
/// Networks that a run may create.
const NETWORKS: [&str; 2] = ["near", "far"];
/// How long removing may take. An engine that is this slow is not waited for: the next run removes what is left.
const REMOVAL: Duration = Duration::from_secs(20);
/// Most notes of killed runs that are looked at.
const NOTES_MAX: usize = 256;

/// A run. Everything of it is removed when it is dropped.
pub(super) struct Run<'e> {
    pub(super) engine: &'e dyn Engine,
    /// Random, unique, without anything that a name may not have.
    id: String,
    note: Flock<File>,
    path: PathBuf,
    pub(super) end: Instant,
}

impl<'e> Run<'e> {
    /// Removes what killed runs left, notes this one, and makes its image.
    pub(super) fn begin(engine: &'e dyn Engine, notes: &Path, end: Instant) -> Told<Self> {
        let problem = |error: std::io::Error| format!("{}: {error}", notes.display());
        crate::state::directory(notes).map_err(problem)?;
        leftovers(engine, notes, end);
        let id = fs::read_to_string("/proc/sys/kernel/random/uuid").map_err(problem)?.trim().replace('-', "");
        let path = notes.join(format!("{}-{id}", engine.name()));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(problem)?;
        let note = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| problem(errno.into()))?;
        let run = Self { engine, id, note, path, end };
        engine.import(&run.image(), &image::archive(), end)?;
        Ok(run)
    }

    fn image(&self) -> String {
        format!("{PREFIX}:{}", self.id)
    }

    /// The word by which a canary of this run is known.
    pub(super) fn token(&self) -> &str {
        &self.id
    }

    /// The name of one of `CONTAINERS` or `NETWORKS`.
    pub(super) fn name(&self, role: &str) -> String {
        format!("{PREFIX}-{}-{role}", self.id)
    }

    /// Starts a container in a role.
    pub(super) fn start(&self, role: &str, ask: &Ask<'_>) -> Told<Words> {
        debug_assert!(CONTAINERS.contains(&role), "what is not in the table is not removed");
        let name = self.name(role);
        self.engine.start(&self.image(), &self.id, &Ask { name: &name, ..*ask }, self.end)
    }

    /// What the engine says of one of its containers.
    pub(super) fn inspect(&self, role: &str) -> Told<Inspected> {
        self.engine.inspect(&self.name(role), self.end)
    }

    /// Creates a network in a role.
    pub(super) fn network(&self, role: &str) -> Told<String> {
        debug_assert!(NETWORKS.contains(&role), "what is not in the table is not removed");
        let name = self.name(role);
        self.engine.network(&name, &self.id, self.end).map(|()| name)
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        let removed = remove(self.engine, &self.id)
            .and_then(|()| fs::remove_file(&self.path).map_err(|error| format!("{}: {error}", self.path.display())));
        if let Err(why) = removed {
            tracing::warn!("a canary was not removed, the next run will try again: {why}");
        }
        let _held_until_here = &self.note;
    }
}

/// Removes all that a run of this id may have created.
fn remove(engine: &dyn Engine, id: &str) -> Told<()> {
    let end = Instant::now().checked_add(REMOVAL).ok_or("no clock")?;
    let named = |role: &&str| format!("{PREFIX}-{id}-{role}");
    let containers: Vec<Made> = CONTAINERS.iter().map(|role| Made::Container(named(role))).collect();
    let removed = std::thread::scope(|scope| {
        let each: Vec<_> = containers.iter().map(|one| scope.spawn(move || engine.remove(one, end))).collect();
        each.into_iter().try_for_each(|one| one.join().unwrap_or_else(|_| Err("a thread ended".to_owned())))
    });
    let mut outcome: Told<()> = removed;
    let networks = NETWORKS.iter().map(|role| Made::Network(named(role)));
    for made in networks.chain([Made::Image(format!("{PREFIX}:{id}"))]) {
        outcome = outcome.and(engine.remove(&made, end));
    }
    outcome
}

/// What killed runs of this engine left: a note that nobody holds.
fn leftovers(engine: &dyn Engine, notes: &Path, end: Instant) {
    let Ok(entries) = fs::read_dir(notes) else { return };
    for entry in entries.flatten().take(NOTES_MAX) {
        let name = entry.file_name();
        let id = name.to_str().and_then(|name| name.strip_prefix(engine.name())?.strip_prefix('-'));
        let sound = |id: &&str| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let Some(id) = id.filter(sound) else { continue };
        if Instant::now() >= end {
            return;
        }
        let Ok(file) = OpenOptions::new().write(true).open(entry.path()) else { continue };
        let Ok(_held) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else { continue };
        match remove(engine, id) {
            Ok(()) => drop(fs::remove_file(entry.path())),
            Err(why) => tracing::warn!("canaries of an earlier run are left: {why}"),
        }
    }
}
