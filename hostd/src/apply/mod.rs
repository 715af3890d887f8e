//! Making a host hold a profile: plan, preflight, journalled snapshot, atomic writes, activation, a look at what holds, and a confirmation in
//! time, without which everything goes back to how it was.
//!
//! Issue "Hardened host profiles", 4b. Establishes that a host is, after any interruption, as before or as confirmed, to the byte, mode and owner
//! of every file; and that what is reported as held is the effective state. Does not establish that a profile is good for a host's workloads:
//! that is what the confirmation is for. Existing containers are never touched, and a host is never rebooted from here.

mod activate;
mod bridge;
mod changes;
mod confirm;
mod consent;
mod dead_man;
mod edit;
mod journal;
mod preflight;
mod receipt;
mod sequence;
mod snapshot;
mod undo;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::profile::Host;
use crate::state;
use journal::Journal;

pub use activate::{Activation, ApplyConfig, Outcome as ActivationOutcome};
pub use confirm::Confirmer;
pub use consent::Consent;
pub use dead_man::{guard, now_ms};
pub use journal::{Begun, Changed, Held, Step};
pub use receipt::{Confirmed, Receipt, State};
pub use sequence::{Applied, Intended, LeftOut};
pub use snapshot::{Access, Facts, Item};

/// Shortest time to confirm in: a person has to read what came out.
pub const CONFIRM_MIN: Duration = Duration::from_secs(1);
/// Longest: somebody is there who watches.
pub const CONFIRM_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest wait for another apply, confirm or rollback: a dead-man's look takes milliseconds.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// Between two tries.
const LOCK_EVERY: Duration = Duration::from_millis(50);

/// What happens, for who watches: after it is on the disk.
#[derive(Debug)]
pub enum Moment<'a> {
    /// A part of the sequence begins.
    Stage(&'a str),
    /// A step stands in the journal.
    Step(&'a Step),
    /// A new file is complete beside its place, or rights are half given.
    Beside {
        /// The file.
        path: &'a str,
    },
}

/// Why nothing was applied, confirmed or rolled back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// Another process is at it.
    #[error("another apply, confirm or rollback is at work; try again when it is done")]
    Busy,
    /// An earlier apply waits.
    #[error("apply {receipt} waits to be confirmed: `hostd confirm` keeps it, `hostd rollback {receipt}` undoes it")]
    Waiting {
        /// Its receipt.
        receipt: String,
    },
    /// Nothing waits.
    #[error("no apply waits to be confirmed{}", last.as_ref().map(|last| format!("; the last one, {last}")).unwrap_or_default())]
    NothingWaits {
        /// What became of the last one.
        last: Option<String>,
    },
    /// The time was over.
    #[error("too late: {receipt} was to be confirmed by then, and {became}")]
    TooLate {
        /// Its receipt.
        receipt: String,
        /// What became of it.
        became: String,
    },
    /// No such receipt.
    #[error("no receipt {receipt} is kept here; known: {}", if known.is_empty() { "none".to_owned() } else { known.join(", ") })]
    Unknown {
        /// What was asked for.
        receipt: String,
        /// What there is.
        known: Vec<String>,
    },
    /// It was undone before.
    #[error("{receipt} was rolled back already at {at}")]
    AlreadyBack {
        /// Its receipt.
        receipt: String,
        /// When.
        at: String,
    },
    /// A control that the profile does not have.
    #[error("the profile has no control `{0}`")]
    UnknownControl(String),
    /// Engines would not take it; nothing was changed.
    #[error("nothing was changed: {}", .0.join("; "))]
    Preflight(Vec<String>),
    /// Containers would stop; nothing was changed.
    #[error(
        "nothing was changed: a restart of {part} would stop {}: apply live-restore first, or agree with --allow-interruption",
        containers.iter().cloned().collect::<Vec<_>>().join(", ")
    )]
    Interruption {
        /// The part.
        part: String,
        /// The containers.
        containers: BTreeSet<String>,
    },
    /// A receipt is of another root than the configured one.
    #[error("{receipt} configured {}, and this configuration is for another root", root.display())]
    OtherRoot {
        /// The receipt.
        receipt: String,
        /// Its root.
        root: PathBuf,
    },
    /// The system's.
    #[error("{what}: {source}")]
    Io {
        /// What was done.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl ApplyError {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// Somebody who is told what happens.
type Watcher<'a> = Box<dyn FnMut(&Moment<'_>) + 'a>;

/// Applies profiles to one host, confirms and undoes.
pub struct Applier<'a> {
    config: &'a Config,
    /// The kernel behind a root that is not `/`.
    kernel: Option<PathBuf>,
    /// The command that waits for the confirmation; the receipt's id is put behind it.
    guard: Vec<String>,
    watch: RefCell<Watcher<'a>>,
}

impl std::fmt::Debug for Applier<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Applier").field("kernel", &self.kernel).field("guard", &self.guard).finish_non_exhaustive()
    }
}

impl<'a> Applier<'a> {
    /// For the configured host.
    #[must_use]
    pub fn new(config: &'a Config) -> Self {
        Self { config, kernel: None, guard: Vec::new(), watch: RefCell::new(Box::new(|_| {})) }
    }

    /// With the /proc and /sys of a directory: for tests.
    #[must_use]
    pub fn with_kernel(mut self, kernel: impl Into<PathBuf>) -> Self {
        self.kernel = Some(kernel.into());
        self
    }

    /// With a command that undoes what nobody confirms in time, see [`guard`].
    #[must_use]
    pub fn with_guard(mut self, command: Vec<String>) -> Self {
        self.guard = command;
        self
    }

    /// With somebody who watches.
    #[must_use]
    pub fn with_watch(mut self, watch: impl FnMut(&Moment<'_>) + 'a) -> Self {
        self.watch = RefCell::new(Box::new(watch));
        self
    }

    fn say(&self, moment: &Moment<'_>) {
        // A watcher that applies something itself is not told of it.
        if let Ok(mut watch) = self.watch.try_borrow_mut() {
            watch(moment);
        }
    }

    fn step(&self, journal: &mut Journal, step: &Step) -> Result<(), ApplyError> {
        journal.append(step).map_err(ApplyError::io(journal.directory().display().to_string()))?;
        self.say(&Moment::Step(step));
        Ok(())
    }

    /// The host as it is now.
    fn host(&self) -> Host {
        let host = Host::new(self.config.engines.clone());
        match &self.kernel {
            Some(kernel) => host.with_kernel(kernel),
            None => host,
        }
    }

    fn home(&self) -> PathBuf {
        self.config.state_dir.join("apply")
    }

    /// One apply, confirm or rollback at a time.
    fn lock(&self) -> Result<state::Lock, ApplyError> {
        let end = Instant::now().checked_add(LOCK_WAIT);
        loop {
            match state::lock(&self.home()) {
                Ok(lock) => return Ok(lock),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Err(ApplyError::io(self.home().display().to_string())(error));
                }
                Err(_) if end.is_some_and(|end| Instant::now() < end) => std::thread::sleep(LOCK_EVERY),
                Err(_) => return Err(ApplyError::Busy),
            }
        }
    }

    /// Every receipt that is kept, oldest first. A directory without a first step is none.
    ///
    /// # Errors
    /// The state directory cannot be read, or a journal is damaged.
    pub fn receipts(&self) -> Result<Vec<Receipt>, ApplyError> {
        let mut receipts = Vec::new();
        for name in self.names()? {
            let steps = Journal::read(&self.home().join(&name)).map_err(ApplyError::io(name))?;
            receipts.extend(Receipt::of(&steps));
        }
        Ok(receipts)
    }

    /// Directories of receipts, oldest first: their names begin with the time.
    fn names(&self) -> Result<Vec<String>, ApplyError> {
        let told = || ApplyError::io(self.home().display().to_string());
        let entries = match std::fs::read_dir(self.home()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(told()(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(told())?;
            if entry.path().is_dir() {
                names.extend(entry.file_name().into_string().ok());
            }
        }
        names.sort();
        Ok(names)
    }
}

/// Now, for a person: RFC 3339 in UTC, whole seconds.
fn at() -> String {
    let now = time::OffsetDateTime::now_utc();
    let now = now.replace_nanosecond(0).unwrap_or(now);
    now.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}
