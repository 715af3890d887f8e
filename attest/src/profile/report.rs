//! The outcomes of one observation of a host, as canonical JSON.
//!
//! Establishes equal bytes for equal outcomes: no time, no process id, no order of discovery in it. What it says is hostd's word.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::control::Severity;
use super::layer::Profile;
use super::outcome::{Outcome, Status};
use super::waiver::{SignedWaiver, WAIVER_MAX, WAIVERS_MAX, Waiver};
use super::{CONTROLS_MAX, Level, Part};
use crate::bytes::{ParseError, Problem};
use crate::manifest::FileDigest;

/// The format's version.
pub(super) const VERSION: u32 = 1;
/// Most bytes of a report: five hundred controls with a few hundred observed things each stay below it.
pub(super) const BYTES_MAX: usize = 2 << 20;

/// What came of a profile on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileReport {
    /// 1.
    pub version: u32,
    /// The profile's level.
    pub level: Level,
    /// Its parts.
    pub parts: BTreeSet<Part>,
    /// [`Profile::digest`].
    pub profile: FileDigest,
    /// The running host was observed, not a directory that looks like one.
    pub root_is_default: bool,
    /// How many of each status.
    pub counts: Counts,
    /// By the controls' ids.
    pub outcomes: Vec<Outcome>,
    /// Waivers about controls that fail here, in the order of their texts: nobody's word until they are verified.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub waivers: Vec<SignedWaiver>,
}

/// How many controls have each status. No single score: what counts is which ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Counts {
    /// [`Status::Pass`].
    pub pass: u32,
    /// [`Status::Fail`].
    pub fail: u32,
    /// [`Status::Error`].
    pub error: u32,
    /// [`Status::NotApplicable`].
    pub not_applicable: u32,
    /// [`Status::Manual`].
    pub manual: u32,
    /// [`Status::Waived`].
    pub waived: u32,
}

impl Counts {
    /// Counts outcomes.
    #[must_use]
    pub fn of(outcomes: &[Outcome]) -> Self {
        let mut counts = Self::default();
        for outcome in outcomes {
            counts.add(outcome.status);
        }
        counts
    }

    /// One more of a status.
    pub(super) fn add(&mut self, status: Status) {
        let count = match status {
            Status::Pass => &mut self.pass,
            Status::Fail => &mut self.fail,
            Status::Error => &mut self.error,
            Status::NotApplicable => &mut self.not_applicable,
            Status::Manual => &mut self.manual,
            Status::Waived => &mut self.waived,
        };
        *count = count.saturating_add(1);
    }

    /// How many have this status.
    #[must_use]
    pub const fn get(&self, status: Status) -> u32 {
        match status {
            Status::Pass => self.pass,
            Status::Fail => self.fail,
            Status::Error => self.error,
            Status::NotApplicable => self.not_applicable,
            Status::Manual => self.manual,
            Status::Waived => self.waived,
        }
    }
}

impl ProfileReport {
    /// A report on a profile.
    #[must_use]
    pub fn new(profile: &Profile, root_is_default: bool, mut outcomes: Vec<Outcome>) -> Self {
        outcomes.sort_by(|one, other| one.control.cmp(&other.control));
        Self {
            version: VERSION,
            level: profile.level(),
            parts: profile.parts().clone(),
            profile: profile.digest(),
            root_is_default,
            counts: Counts::of(&outcomes),
            outcomes,
            waivers: Vec::new(),
        }
    }

    /// The canonical bytes: compact JSON, fields in the order of the types, outcomes in the order of their controls.
    #[must_use]
    pub fn to_canonical(&self) -> Vec<u8> {
        // Text keys and no custom failing serializer: serde_json cannot fail here, and an empty report never parses.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a report that a host sent.
    ///
    /// # Errors
    /// Not exactly the canonical bytes of a report within the limits, or counts that its outcomes do not have.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let malformed = |at, what| ParseError { at, problem: Problem::Malformed { what } };
        if bytes.len() > BYTES_MAX {
            return Err(malformed(BYTES_MAX, "the profile report is too long"));
        }
        let report: Self = serde_json::from_slice(bytes).map_err(|error| {
            malformed(error.column().saturating_sub(1), "the profile report is not the agreed JSON")
        })?;
        if report.version != VERSION || report.outcomes.len() > CONTROLS_MAX {
            return Err(malformed(0, "the profile report has another version or too many outcomes"));
        }
        if !report.outcomes.is_sorted_by(|one, next| one.control < next.control)
            || report.counts != Counts::of(&report.outcomes)
        {
            return Err(malformed(0, "the profile report's outcomes are not in order, doubled or counted wrongly"));
        }
        let long = |waiver: &SignedWaiver| waiver.text.len() > WAIVER_MAX;
        if report.waivers.len() > WAIVERS_MAX
            || report.waivers.iter().any(long)
            || !report.waivers.is_sorted_by(|one, next| one < next)
        {
            return Err(malformed(0, "the profile report's waivers are too many, too long, not in order or doubled"));
        }
        let canonical = report.to_canonical();
        if canonical != bytes {
            let at = canonical.iter().zip(bytes).take_while(|(ours, theirs)| ours == theirs).count();
            return Err(malformed(at, "the profile report is not canonical"));
        }
        Ok(report)
    }

    /// Why, by whom and until when a failure is borne, as the waiver says that its outcome names.
    #[must_use]
    pub fn waiver_of(&self, outcome: &Outcome) -> Option<String> {
        let signed = self.waivers.iter().find(|signed| Some(signed.digest()) == outcome.waiver)?;
        Waiver::parse("waiver", &signed.text).ok().map(|waiver| waiver.told())
    }

    /// Controls of this weight or above that are not known to be met: failed, in error, or left to people.
    pub fn unmet<'a>(&'a self, profile: &'a Profile, least: Severity) -> impl Iterator<Item = &'a Outcome> {
        self.outcomes.iter().filter(move |outcome| {
            let heavy = profile.control(&outcome.control).is_none_or(|control| control.severity >= least);
            heavy && matches!(outcome.status, Status::Fail | Status::Error | Status::Manual)
        })
    }
}
