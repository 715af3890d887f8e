//! What an apply did, as one document: read from its journal, written canonically at its end.
//!
//! Establishes for a later reader what changed from what to what, by whose confirmation it stayed or why it did not. Compact JSON with a fixed
//! order of fields, so that its digest can stand in the engine manifest.

use hostmark_attest::manifest::FileDigest;
use hostmark_attest::profile::{Level, Part};
use serde::{Deserialize, Serialize};

use super::activate::Activation;
use super::journal::{Begun, Changed, Step};
use super::snapshot::Item;

/// Version of the document.
const VERSION: u32 = 1;

/// What an apply did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// The document's version.
    pub version: u32,
    /// Its id.
    pub receipt: String,
    /// When it began, RFC 3339.
    pub at: String,
    /// The profile's level.
    pub level: Level,
    /// Its parts.
    pub parts: Vec<Part>,
    /// Its digest.
    pub profile: FileDigest,
    /// Controls, from what to what, and what holds.
    pub controls: Vec<Changed>,
    /// Files, rights and kernel settings, before and after.
    pub items: Vec<Item>,
    /// Directories that were made.
    pub directories: Vec<String>,
    /// What was done to make it hold.
    pub activation: Vec<Activation>,
    /// Who confirmed it and when, if anybody did.
    pub confirmed: Option<Confirmed>,
    /// How it stands.
    pub state: State,
}

/// A confirmation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirmed {
    /// Who.
    pub by: String,
    /// When, RFC 3339.
    pub at: String,
}

/// How an apply stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", tag = "is", deny_unknown_fields)]
pub enum State {
    /// It was interrupted, or still runs.
    Unfinished,
    /// It waits to be confirmed.
    Pending {
        /// Until then on the clock that counts from the boot, in milliseconds.
        deadline: u64,
        /// Of this boot.
        boot: String,
    },
    /// It stays.
    Confirmed,
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

impl Receipt {
    /// What a journal tells; None: nothing began.
    #[must_use]
    pub fn of(steps: &[Step]) -> Option<Self> {
        let Some(Step::Begun(begun)) = steps.first() else { return None };
        let Begun { receipt, at, level, parts, digest, controls, .. } = begun.clone();
        let mut told = Self {
            version: VERSION,
            receipt,
            at,
            level,
            parts,
            profile: digest,
            controls,
            items: Vec::new(),
            directories: Vec::new(),
            activation: Vec::new(),
            confirmed: None,
            state: State::Unfinished,
        };
        for step in steps {
            told.take(step);
        }
        Some(told)
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Snapshot { items, directories } => {
                self.items.clone_from(items);
                self.directories.clone_from(directories);
            }
            Step::Activating { what } => self.activation.push(what.clone()),
            Step::Activated { what } => {
                let same = |one: &&mut Activation| (one.part, one.step) == (what.part, what.step);
                match self.activation.iter_mut().rev().find(same) {
                    Some(one) => *one = what.clone(),
                    None => self.activation.push(what.clone()),
                }
            }
            Step::Observed { controls } => self.controls.clone_from(controls),
            Step::Pending { deadline_ms, boot_id } => {
                self.state = State::Pending { deadline: *deadline_ms, boot: boot_id.clone() };
            }
            Step::Confirmed { by, at } => {
                self.confirmed = Some(Confirmed { by: by.clone(), at: at.clone() });
                self.state = State::Confirmed;
            }
            Step::RollingBack { .. } => self.state = State::Unfinished,
            Step::RolledBack { why, at, left, trouble } => {
                let (why, at, left, trouble) = (why.clone(), at.clone(), left.clone(), trouble.clone());
                self.state = State::RolledBack { why, at, left, trouble };
            }
            Step::Begun(_)
            | Step::Guarded { .. }
            | Step::Writing { .. }
            | Step::Written { .. }
            | Step::Bridging { .. }
            | Step::Restored { .. } => {}
        }
    }

    /// Whether nothing more happens to it by itself.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        matches!(self.state, State::Confirmed | State::RolledBack { .. })
    }

    /// The canonical bytes.
    #[must_use]
    pub fn to_canonical(&self) -> Vec<u8> {
        // Text keys and no custom failing serializer: this cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}
