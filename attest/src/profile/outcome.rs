//! Holding what was observed against what is wanted.
//!
//! Establishes one status per control, with who said what. A pass needs the effective state, from a source that the control accepts as proof,
//! and no other source that says otherwise: a file is not the state, and what a file undoes at the next start is none to rely on.
//! Where no file states a kernel's setting, what the kernel says now is taken for what it starts with: a bare `sysctl -w` is not told from it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::control::{Control, Prove};
use super::want::Predicate;
use crate::check::violated;
use crate::finding::one_line;
use crate::manifest::{FileDigest, Setting};

/// What came of a control.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// The effective state is as wanted, proven as the control asks.
    Pass,
    /// It is not.
    Fail,
    /// It could not be observed or proven. Never as good as a pass.
    Error,
    /// The control does not concern this host, for the reason given.
    NotApplicable,
    /// Nobody can say from here: somebody has to look, or a canary has to run.
    Manual,
    /// It is not as wanted, and a signed waiver bears it.
    Waived,
}

impl Status {
    /// Every status, in the order of reports.
    pub const ALL: [Self; 6] = [Self::Pass, Self::Fail, Self::Error, Self::NotApplicable, Self::Manual, Self::Waived];

    /// As in a report.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Error => "error",
            Self::NotApplicable => "not-applicable",
            Self::Manual => "manual",
            Self::Waived => "waived",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.name())
    }
}

/// What kind of source said something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// The running kernel.
    Kernel,
    /// The running engine's own interface.
    Api,
    /// The arguments of the running daemon.
    Argv,
    /// The arguments that its unit would start it with, or a unit's setting.
    Unit,
    /// What the engine's own program makes of its files.
    Dump,
    /// A file.
    File,
    /// Nobody states it: what holds then.
    Default,
    /// Containers as their engines state them.
    Inventory,
    /// The package manager's database.
    Packages,
    /// A container that was started to look.
    Canary,
}

/// A value as it was observed, in canonical form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Observed {
    /// Nothing is there.
    Absent,
    /// One value.
    Value(Setting),
    /// Several things, each of which must satisfy: settings, files, modules, containers. `null`: absent there.
    Each(BTreeMap<String, Option<Setting>>),
    /// Several things of which one is enough: units that do the same.
    Any(BTreeMap<String, Option<Setting>>),
    /// A package's version.
    Version {
        /// os-release's `ID-VERSION_ID`.
        distribution: String,
        /// The package that is installed.
        package: String,
        /// Its version.
        version: String,
    },
}

impl Observed {
    /// A value that may not be there.
    #[must_use]
    pub fn of(value: Option<Setting>) -> Self {
        value.map_or(Self::Absent, Self::Value)
    }
}

impl fmt::Display for Observed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |map: &BTreeMap<String, Option<Setting>>| {
            let one = |(name, value): (&String, &Option<Setting>)| match value {
                Some(Setting::Text(text)) => format!("{name}: {text}"),
                Some(value) => format!("{name}: {value}"),
                None => format!("{name}: absent"),
            };
            map.iter().map(one).collect::<Vec<_>>().join("; ")
        };
        match self {
            Self::Absent => out.write_str("absent"),
            Self::Value(value) => write!(out, "{value}"),
            Self::Each(map) | Self::Any(map) if map.is_empty() => out.write_str("nothing"),
            Self::Each(map) | Self::Any(map) => out.write_str(&show(map)),
            Self::Version { distribution, package, version } => write!(out, "{package} {version} on {distribution}"),
        }
    }
}

/// A value and who says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stated {
    /// What kind of source.
    pub by: SourceKind,
    /// Which: a path, `dockerd's arguments`, `/proc/sys/kernel/kptr_restrict`.
    pub source: String,
    /// What it says.
    pub value: Observed,
}

impl Stated {
    /// Somebody's word.
    #[must_use]
    pub fn new(by: SourceKind, source: impl Into<String>, value: Observed) -> Self {
        Self { by, source: source.into(), value }
    }
}

impl fmt::Display for Stated {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} says {}", self.source, self.value)
    }
}

/// What hostd found out about a control's resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// What holds now, and what else states it: a file behind an argument, a setting behind the kernel's.
    Seen {
        /// What holds now.
        effective: Stated,
        /// Others that state it, in the order of their weight.
        others: Vec<Stated>,
    },
    /// What holds cannot be seen from here (another root than the running one, no right to look); files that state it are.
    OutOfSight {
        /// Why.
        reason: String,
        /// What files say.
        files: Vec<Stated>,
    },
    /// The control does not concern this host.
    NotApplicable {
        /// Why.
        reason: String,
    },
    /// It should have been seen and was not.
    Failed {
        /// Why.
        reason: String,
    },
}

/// What a canary showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// What it saw, held against `want` when the canary measures the wanted value itself.
    Seen {
        /// The effect is the wanted one.
        good: bool,
        /// What it saw: `NoNewPrivs: 1`.
        value: Observed,
    },
    /// It could not run, for this reason.
    Failed(String),
}

/// A control's verdict, with all that it rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// The control.
    pub control: String,
    /// The verdict.
    pub status: Status,
    /// What was wanted.
    pub wanted: String,
    /// What holds, and who says so.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub effective: Option<Stated>,
    /// Who else states it.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub others: Vec<Stated>,
    /// What the canary showed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub effect: Option<Observed>,
    /// The kind of proof that the control asks for.
    pub proof: String,
    /// Why, in one line.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub reason: String,
    /// The waiver that bears a failure, by the digest of its file. Counts by [`super::ProfileReport::waived_by`] alone.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub waiver: Option<FileDigest>,
}

impl Prove {
    /// Whether a source of this kind is the effective state that is asked for. A canary's own word comes apart from the configuration's.
    #[must_use]
    pub const fn accepts(&self, by: SourceKind) -> bool {
        match self {
            Self::Kernel => matches!(by, SourceKind::Kernel),
            Self::Api => matches!(by, SourceKind::Api),
            Self::Merged => !matches!(by, SourceKind::Inventory | SourceKind::Packages),
            Self::File => matches!(by, SourceKind::File | SourceKind::Default | SourceKind::Unit),
            Self::Inventory => matches!(by, SourceKind::Inventory),
            Self::Packages => matches!(by, SourceKind::Packages),
            Self::Canary(_) => true,
        }
    }
}

/// Holds an observation against a control. `effect`: what the control's canary showed, when it ran.
#[must_use]
pub fn judge(control: &Control, observation: Observation, effect: Option<&Effect>) -> Outcome {
    let mut outcome = Outcome {
        control: control.id.clone(),
        status: Status::Error,
        wanted: control.want.to_string(),
        effective: None,
        others: Vec::new(),
        effect: None,
        proof: control.prove.to_string(),
        reason: String::new(),
        waiver: None,
    };
    let (status, reason) = match observation {
        Observation::NotApplicable { reason } => (Status::NotApplicable, reason),
        Observation::Failed { reason } => (Status::Error, reason),
        Observation::OutOfSight { reason, files } => {
            let bad = files.iter().find(|stated| accepts(control, &stated.value) == Some(false));
            let told = bad.map(|stated| (Status::Fail, format!("{stated}; {reason}")));
            outcome.others = files;
            told.unwrap_or((Status::Manual, reason))
        }
        Observation::Seen { effective, others } => {
            let verdict = seen(control, &effective, &others, effect);
            outcome.effective = Some(effective);
            outcome.others = others;
            if let Some(Effect::Seen { value, .. }) = effect {
                outcome.effect = Some(value.clone());
            }
            verdict
        }
    };
    outcome.status = status;
    outcome.reason = one_line(&reason);
    outcome
}

fn seen(control: &Control, effective: &Stated, others: &[Stated], effect: Option<&Effect>) -> (Status, String) {
    let Some(good) = accepts(control, &effective.value) else {
        return (Status::Manual, format!("{effective}: no floor is known for that distribution"));
    };
    let told = |stated: &Stated| format!("{} says {}", stated.source, control.offending(&stated.value));
    if violated("profile.effective", !good) {
        let shadowed =
            others.iter().find(|other| other.value != Observed::Absent && accepts(control, &other.value) == Some(true));
        return (
            Status::Fail,
            match shadowed {
                Some(other) => {
                    let holds = control.offending(&effective.value);
                    format!("{other}, but what holds is {holds} ({})", effective.source)
                }
                None => told(effective),
            },
        );
    }
    let otherwise =
        others.iter().find(|other| other.value != Observed::Absent && accepts(control, &other.value) == Some(false));
    if violated("profile.shadowed", otherwise.is_some()) {
        let now = otherwise.is_some_and(|other| other.by == SourceKind::Kernel);
        let other = otherwise.map(told).unwrap_or_default();
        let why = match now {
            true => format!("{other}, whatever {} say", effective.source),
            false => format!("{other}; it holds now ({}), and not after the next start", effective.source),
        };
        return (Status::Fail, why);
    }
    if violated("profile.proof", !control.prove.accepts(effective.by)) {
        return (
            Status::Error,
            format!("{effective}, which does not show what holds: proof by {} is asked for", control.prove),
        );
    }
    let Prove::Canary(name) = &control.prove else { return (Status::Pass, String::new()) };
    match effect {
        Some(Effect::Seen { good, value }) if violated("profile.effect", !good) => {
            (Status::Fail, format!("{effective}, but canary {name} shows {value}"))
        }
        Some(Effect::Seen { .. }) => (Status::Pass, String::new()),
        Some(Effect::Failed(why)) => (Status::Error, format!("canary {name}: {why}")),
        None if violated("profile.canary", true) => (
            Status::Manual,
            format!(
                "configured as wanted ({}); canary {name} has not shown the effect (--canary starts it)",
                effective.source
            ),
        ),
        None => (Status::Pass, String::new()),
    }
}

impl Control {
    /// Of several things that are observed, those that do not satisfy: what a person has to look at. Anything else as it is.
    #[must_use]
    pub fn offending(&self, value: &Observed) -> Observed {
        let Observed::Each(map) = value else { return value.clone() };
        let bad = |one: &Option<Setting>| !self.want.accepts(one.as_ref(), self.resource.is_textual());
        Observed::Each(map.iter().filter(|(_, one)| bad(one)).map(|(name, one)| (name.clone(), one.clone())).collect())
    }
}

/// Whether an observed value satisfies a control; None: nobody can say (no floor for this distribution).
pub(super) fn accepts(control: &Control, value: &Observed) -> Option<bool> {
    let textual = control.resource.is_textual();
    let good = |one: &Option<Setting>| control.want.accepts(one.as_ref(), textual);
    match value {
        Observed::Absent => Some(control.want.accepts(None, textual)),
        Observed::Value(value) => Some(control.want.accepts(Some(value), textual)),
        Observed::Each(map) if map.is_empty() => Some(control.want.accepts(None, textual)),
        Observed::Each(map) => Some(map.values().all(good)),
        Observed::Any(map) => Some(map.values().any(good)),
        Observed::Version { distribution, version, .. } => match &control.want.is {
            Predicate::Floor(_) => control.want.reaches_floor(distribution, version),
            Predicate::Absent => Some(false),
            _ => Some(true),
        },
    }
}

#[cfg(test)]
#[path = "outcome_tests.rs"]
mod tests;
