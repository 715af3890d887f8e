//! What an apply has done so far, one line of JSON a step, each on the disk before the next thing happens.
//!
//! Issue "Hardened host profiles", 4b. Establishes what must be undone after a kill or a power loss: a step's intent stands in the journal before
//! the step. A last line that was torn is one whose step has not begun. It does not protect against root, who can write it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use hostmark_attest::manifest::FileDigest;
use hostmark_attest::profile::{Level, Part};
use serde::{Deserialize, Serialize};

use super::activate::Activation;
use super::snapshot::Item;

/// A journal has a few lines for each file; snapshots lie beside it.
const SIZE_MAX: u64 = 16 << 20;
/// Its name in the directory of a receipt.
const NAME: &str = "journal";

/// One step, before or after it happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// An apply began. Nothing has changed.
    Begun(Begun),
    /// A process of its own waits for the confirmation.
    Guarded {
        /// Its id.
        pid: u32,
    },
    /// What will be written; what was there lies in `before/`.
    Snapshot {
        /// Everything that changes, in its order.
        items: Vec<Item>,
        /// Directories that are made for it, outermost first, below the root.
        directories: Vec<String>,
    },
    /// An item is about to be written.
    Writing {
        /// Which.
        item: usize,
    },
    /// It was written.
    Written {
        /// Which.
        item: usize,
    },
    /// Daemons are about to be told.
    Activating {
        /// What is done.
        what: Activation,
    },
    /// They were told.
    Activated {
        /// What was done, and what came of it.
        what: Activation,
    },
    /// What holds now.
    Observed {
        /// Control by control.
        controls: Vec<Changed>,
    },
    /// Everything is done but the confirmation.
    Pending {
        /// On the clock that counts from the boot, sleep included.
        deadline_ms: u64,
        /// Of this boot: another one's deadline is over.
        boot_id: String,
    },
    /// Somebody confirmed it in time.
    Confirmed {
        /// Who, as the system knows them.
        by: String,
        /// When, RFC 3339.
        at: String,
    },
    /// It is being undone.
    RollingBack {
        /// Why.
        why: String,
        /// When, RFC 3339.
        at: String,
    },
    /// A content that keeps containers over a restart is about to stand in a file, until that is as it was.
    Bridging {
        /// Which item's file.
        item: usize,
        /// The content's.
        sha256: FileDigest,
    },
    /// An item is as it was.
    Restored {
        /// Which.
        item: usize,
    },
    /// It was undone.
    RolledBack {
        /// Why.
        why: String,
        /// When, RFC 3339.
        at: String,
        /// Paths that were left as somebody else made them.
        left: Vec<String>,
        /// What did not go well on the way.
        trouble: Vec<String>,
    },
}

/// What an apply was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// Its receipt's id.
    pub receipt: String,
    /// When, RFC 3339.
    pub at: String,
    /// The boot that it began in.
    pub boot_id: String,
    /// The directory that is configured as if it were `/`.
    pub root: PathBuf,
    /// Where /proc and /sys of the kernel are that is configured; none: of no kernel.
    pub kernel: Option<PathBuf>,
    /// The profile's level.
    pub level: Level,
    /// Its parts.
    pub parts: Vec<Part>,
    /// Its digest.
    pub digest: FileDigest,
    /// Within how many milliseconds it must be confirmed.
    pub confirm_within_ms: u64,
    /// What is to change, as planned.
    pub controls: Vec<Changed>,
}

/// One control and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Its id.
    pub control: String,
    /// What changed.
    pub resource: String,
    /// What held before, and who said so.
    pub from: String,
    /// What should hold.
    pub to: String,
    /// What holds.
    pub held: Held,
    /// Why not, or by what.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Held {
    /// Not looked at yet.
    Planned,
    /// The effective state is as wanted.
    Held,
    /// It is configured and loaded as wanted; a container that is started to look has not shown the effect.
    EffectUnseen,
    /// It is written, and waits for something that is not done from here: an operator's restart, a reboot, new containers.
    Awaiting,
    /// It was written and loaded, and is not so.
    NotHeld,
}

impl Held {
    /// As in a receipt.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Held => "held",
            Self::EffectUnseen => "effect-unseen",
            Self::Awaiting => "awaiting",
            Self::NotHeld => "not-held",
        }
    }
}

/// A journal that is being written.
#[derive(Debug)]
pub(crate) struct Journal {
    directory: PathBuf,
    file: File,
}

impl Journal {
    /// A new one, in a new directory.
    ///
    /// # Errors
    /// The system's; `AlreadyExists`.
    pub(crate) fn create(directory: &Path) -> io::Result<Self> {
        std::fs::DirBuilder::new().create(directory)?;
        crate::state::directory(directory)?;
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(directory.join(NAME))?;
        File::open(directory)?.sync_all()?;
        if let Some(parent) = directory.parent() {
            File::open(parent)?.sync_all()?;
        }
        Ok(Self { directory: directory.to_owned(), file })
    }

    /// An existing one to write on; a torn last line is cut off.
    ///
    /// # Errors
    /// The system's; `InvalidData` for what no apply wrote.
    pub(crate) fn open(directory: &Path) -> io::Result<(Self, Vec<Step>)> {
        let (steps, whole) = parse(directory)?;
        let file = OpenOptions::new().append(true).open(directory.join(NAME))?;
        if file.metadata()?.len() != whole {
            file.set_len(whole)?;
            file.sync_all()?;
        }
        Ok((Self { directory: directory.to_owned(), file }, steps))
    }

    /// Its steps, without a lock.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) fn read(directory: &Path) -> io::Result<Vec<Step>> {
        parse(directory).map(|(steps, _)| steps)
    }

    /// Where it lies.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// A step more; on the disk when this returns.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn append(&mut self, step: &Step) -> io::Result<()> {
        let mut line = serde_json::to_vec(step)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.file.sync_all()
    }
}

/// The steps, and how many bytes of the file are whole lines.
fn parse(directory: &Path) -> io::Result<(Vec<Step>, u64)> {
    let bytes = crate::state::read(&directory.join(NAME), SIZE_MAX)?.unwrap_or_default();
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at.saturating_add(1));
    let mut steps = Vec::new();
    for (number, line) in bytes.get(..whole).unwrap_or_default().split(|byte| *byte == b'\n').enumerate() {
        if line.is_empty() {
            continue;
        }
        let step = serde_json::from_slice(line).map_err(|error| {
            let problem = format!("{}: line {}: {error}", directory.join(NAME).display(), number.saturating_add(1));
            io::Error::new(io::ErrorKind::InvalidData, problem)
        })?;
        steps.push(step);
    }
    Ok((steps, u64::try_from(whole).unwrap_or(u64::MAX)))
}
