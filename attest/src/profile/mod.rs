//! Host profiles: what a hardened container host should hold, as data, and how what was observed is judged against it.
//!
//! Hostmark's own format (SURFACE, `profiles/docker/hardened.toml`; the reference for authors is configs/profiles/README.md). A [`Control`]
//! wants one [`Resource`] to satisfy one [`Want`], says which effect proves it, what a change needs and what it may break. Resources are
//! typed: nothing in a profile is a command. [`judge`] holds an observation against a control; hostd makes the observations.
//!
//! Establishes that every verdict names who said what, and that a pass rests on the effective state that the control asks for. Does not
//! establish that hostd told the truth: like the engine manifest, what it observes is reported.

mod control;
mod export;
mod html;
mod key;
mod layer;
mod outcome;
mod report;
mod resource;
mod version;
mod waiver;
mod want;

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use control::{Activate, Control, Fix, Prove, Role, Severity, When};
pub use html::Heading;
pub use key::KeyPath;
pub use layer::{Absent, Coverage, Layer, Profile};
pub use outcome::{Effect, Observation, Observed, Outcome, SourceKind, Stated, Status, judge};
pub use report::{Counts, ProfileReport};
pub use resource::{AuditRule, ContainerFact, Keyed, Resource, UnitFact};
pub use version::at_least as version_at_least;
pub use waiver::{SignedWaiver, WAIVER, WAIVER_MAX, WAIVERS_MAX, Waiver};
pub use want::{Predicate, Want};

/// Most bytes of one profile file: the largest part has some forty controls of half a kilobyte.
pub const FILE_MAX: usize = 256 << 10;
/// Most controls of one file, and of an assembled profile.
pub const CONTROLS_MAX: usize = 512;
/// Most bytes of a text in a profile: the longest is a sentence on why.
pub const TEXT_MAX: usize = 2048;
/// Most entries of a list in a profile: capabilities, modules, options.
pub const LIST_MAX: usize = 256;
/// Rows of the catalogue of controls that coverage is counted against.
pub const ROWS: u16 = 127;

/// How much a profile asks for. Each level holds all that the one below it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// What no host has a reason to be without, and what nothing breaks by.
    Baseline,
    /// What a host for sensitive workloads holds; some workloads need to be adapted.
    Hardened,
    /// What few workloads live with: user namespaces, no published ports, nothing that is not pinned.
    Restricted,
}

impl Level {
    /// Every level, weakest first.
    pub const ALL: [Self; 3] = [Self::Baseline, Self::Hardened, Self::Restricted];

    /// As in a file's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Hardened => "hardened",
            Self::Restricted => "restricted",
        }
    }
}

/// What a file of controls is about: the folder that it lies in and the first word of its controls' ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The kernel's audit rules and auditd.
    Audit,
    /// containerd.
    Containerd,
    /// CRI-O.
    Crio,
    /// Docker Engine.
    Docker,
    /// Kernel, command line, modules, mounts, accounts, packages.
    Host,
    /// The kubelet.
    Kubelet,
    /// Podman and what it shares with its siblings below /etc/containers.
    Podman,
    /// The containers of every engine.
    Workload,
}

impl Part {
    /// Every part.
    pub const ALL: [Self; 8] = [
        Self::Audit,
        Self::Containerd,
        Self::Crio,
        Self::Docker,
        Self::Host,
        Self::Kubelet,
        Self::Podman,
        Self::Workload,
    ];

    /// As in a folder's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Audit => "audit",
            Self::Containerd => "containerd",
            Self::Crio => "crio",
            Self::Docker => "docker",
            Self::Host => "host",
            Self::Kubelet => "kubelet",
            Self::Podman => "podman",
            Self::Workload => "workload",
        }
    }
}

/// Displays and reads the names of an enumeration that has `ALL` and `name`.
macro_rules! named {
    ($($kind:ty),*) => {$(
        impl fmt::Display for $kind {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.pad(self.name())
            }
        }

        impl std::str::FromStr for $kind {
            type Err = UnknownName;

            fn from_str(text: &str) -> Result<Self, UnknownName> {
                let known = Self::ALL.into_iter().find(|one| one.name() == text);
                known.ok_or_else(|| UnknownName { name: text.to_owned(), known: Self::ALL.map(Self::name).join(", ") })
            }
        }
    )*};
}
named!(Level, Part, Severity);

/// A word that names nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not known; known: {known}")]
pub struct UnknownName {
    /// The word.
    pub name: String,
    /// What could have been meant.
    pub known: String,
}

/// One word or a list of them, as authors like to write it. Never empty, in the order written, without doubles.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn into_list(self) -> Result<Vec<String>, String> {
        let list = match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        };
        if list.is_empty() || list.len() > LIST_MAX {
            return Err(format!("a list has between 1 and {LIST_MAX} entries"));
        }
        let mut seen = BTreeSet::new();
        match list.iter().find(|one| one.is_empty() || one.len() > TEXT_MAX || !seen.insert(*one)) {
            Some(bad) => Err(format!("`{}` is empty, too long or written twice", crate::finding::one_line(bad))),
            None => Ok(list),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_others_are_told() {
        for level in Level::ALL {
            assert_eq!(level.to_string().parse::<Level>().unwrap(), level);
        }
        for part in Part::ALL {
            assert_eq!(part.to_string().parse::<Part>().unwrap(), part);
        }
        let error = "paranoid".parse::<Level>().unwrap_err();
        assert_eq!(error.to_string(), "`paranoid` is not known; known: baseline, hardened, restricted");
    }
}
