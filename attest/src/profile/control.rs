//! One control: a resource, what is wanted of it, what proves it, and what a change needs.
//!
//! Establishes that a control does not contradict itself: nothing that is only shown asks for a restart, nothing that cannot be undone
//! happens by itself, and the proof that is asked for is one that its resource has. Does not establish that its advice is good.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::resource::{AuditRule, ContainerFact, Resource, UnitFact};
use super::want::{Predicate, Want};
use super::{LIST_MAX, OneOrMany, ROWS, TEXT_MAX};
use crate::manifest::Setting;

/// A control, validated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Raw")]
pub struct Control {
    /// Dotted, its part first: `docker.icc`. Never changes its meaning.
    pub id: String,
    /// One line in our words, as a state that holds: "Containers do not reach each other by default".
    pub title: String,
    /// Rows of the catalogue that it covers, wholly or in part.
    pub rows: BTreeSet<u16>,
    /// Where others ask for the same: `D2.2`, `S9.3`, `N4.5`.
    pub refs: Vec<String>,
    /// Who usually has to act.
    pub role: Role,
    /// How much a failure weighs.
    pub severity: Severity,
    /// What it is about.
    pub resource: Resource,
    /// What is wanted of it.
    pub want: Want,
    /// What a change writes, where that does not follow from `want`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set: Option<Setting>,
    /// What shows the effective state.
    pub prove: Prove,
    /// What must happen before a change is in effect, in this order. Empty: nothing.
    pub activate: BTreeSet<Activate>,
    /// What must be so for it to apply at all.
    pub when: When,
    /// Whether a change happens by itself.
    pub fix: Fix,
    /// What a change may break: 0 nothing known, 1 some workloads or habits, 2 many of them or the host.
    pub blast: u8,
    /// Whether a change can be undone on the running host.
    pub reversible: bool,
    /// It stands in for a control of the same id in a lower level, and asks for more.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tightens: bool,
    /// Why it matters, and what a change may break.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Who usually has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Who builds images and declares containers.
    Developer,
    /// Who runs the host.
    Operator,
}

/// How much a failure weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good habit.
    Low,
    /// Makes an attack easier.
    Medium,
    /// Opens a way that needs little more.
    High,
    /// Hands the host over.
    Critical,
}

impl Severity {
    /// Every severity, lightest first.
    pub const ALL: [Self; 4] = [Self::Low, Self::Medium, Self::High, Self::Critical];

    /// As in a file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// Whether a change happens by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fix {
    /// `apply` changes it.
    Automatic,
    /// `apply` changes it when it was named or consented to, after a preflight.
    Gated,
    /// Only shown: changing it needs a decision or a rebuild.
    Evidence,
    /// Only shown: what breaks it has to be prevented before it starts.
    Prevention,
}

impl Fix {
    /// Whether `apply` may change it at all.
    #[must_use]
    pub const fn changes(self) -> bool {
        matches!(self, Self::Automatic | Self::Gated)
    }
}

/// What must happen before a change is in effect, mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activate {
    /// The audit rules are loaded again.
    LoadRules,
    /// The daemon reads its configuration again (SIGHUP).
    Sighup,
    /// The part's daemon restarts (auditd for audit).
    EngineRestart,
    /// Containers that exist keep the old state until they are made anew.
    RecreateContainers,
    /// The host restarts.
    Reboot,
}

impl Activate {
    /// As in a file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LoadRules => "load-rules",
            Self::Sighup => "sighup",
            Self::EngineRestart => "engine-restart",
            Self::RecreateContainers => "recreate-containers",
            Self::Reboot => "reboot",
        }
    }
}

/// What shows the effective state. `prove = "kernel"`, `prove = "canary:no-new-privs"`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Prove {
    /// The kernel says so: /proc, /sys, its list of audit rules.
    Kernel,
    /// The running engine says so.
    Api,
    /// What the daemon would start with: files, drop-ins and argv together.
    Merged,
    /// The file itself is the state: permissions, or configuration that is read at each use.
    File,
    /// The inventory of containers of every engine.
    Inventory,
    /// The package manager's database.
    Packages,
    /// A container that is started to look, by its name.
    Canary(String),
}

impl Prove {
    /// How much it shows, among the proofs that one kind of resource can have.
    pub(super) const fn strength(&self) -> u8 {
        match self {
            Self::File | Self::Inventory | Self::Packages => 0,
            Self::Merged => 1,
            Self::Api | Self::Kernel => 2,
            Self::Canary(_) => 3,
        }
    }
}

impl fmt::Display for Prove {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel => out.write_str("kernel"),
            Self::Api => out.write_str("api"),
            Self::Merged => out.write_str("merged"),
            Self::File => out.write_str("file"),
            Self::Inventory => out.write_str("inventory"),
            Self::Packages => out.write_str("packages"),
            Self::Canary(name) => write!(out, "canary:{name}"),
        }
    }
}

impl Serialize for Prove {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Prove {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(match text.as_str() {
            "kernel" => Self::Kernel,
            "api" => Self::Api,
            "merged" => Self::Merged,
            "file" => Self::File,
            "inventory" => Self::Inventory,
            "packages" => Self::Packages,
            _ => match text.strip_prefix("canary:").filter(|name| crate::pool::is_name(name)) {
                Some(name) => Self::Canary(name.to_owned()),
                None => {
                    return Err(serde::de::Error::custom(
                        "`prove` is kernel, api, merged, file, inventory, packages or canary:NAME",
                    ));
                }
            },
        })
    }
}

/// What must be so for a control to apply; all that is given. Otherwise it is not applicable, with the reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct When {
    /// This engine is installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// Docker is part of a swarm, or is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swarm: Option<bool>,
    /// An engine runs without root, or none does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rootless: Option<bool>,
    /// A kubelet is installed, or is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<bool>,
    /// The host booted from EFI, or did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub efi: Option<bool>,
    /// This unit is installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// This package is installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// This file is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// This file is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_file: Option<String>,
}

/// A control as written, before its fields are held against each other.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    id: String,
    title: String,
    row: Option<Rows>,
    refs: Vec<String>,
    role: Role,
    severity: Severity,
    resource: Resource,
    want: Want,
    set: Option<Setting>,
    prove: Prove,
    activate: Option<Steps>,
    #[serde(default)]
    when: When,
    fix: Fix,
    #[serde(default)]
    blast: u8,
    #[serde(default = "yes")]
    reversible: bool,
    #[serde(default)]
    tightens: bool,
    why: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a row's number, or a list of them")]
enum Rows {
    One(u16),
    Many(Vec<u16>),
}

/// `"none"`, one step, or several.
struct Steps(BTreeSet<Activate>);

impl<'de> Deserialize<'de> for Steps {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let words = OneOrMany::deserialize(deserializer)?.into_list().map_err(D::Error::custom)?;
        if words == ["none"] {
            return Ok(Self(BTreeSet::new()));
        }
        let read = |word: String| Activate::deserialize(serde::de::value::StringDeserializer::<D::Error>::new(word));
        words.into_iter().map(read).collect::<Result<_, _>>().map(Self)
    }
}

const fn yes() -> bool {
    true
}

impl TryFrom<Raw> for Control {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, String> {
        let rows = match raw.row {
            None => BTreeSet::new(),
            Some(Rows::One(row)) => BTreeSet::from([row]),
            Some(Rows::Many(rows)) => rows.into_iter().collect(),
        };
        let Raw {
            id,
            title,
            refs,
            role,
            severity,
            resource,
            want,
            set,
            prove,
            when,
            fix,
            blast,
            reversible,
            tightens,
            why,
            ..
        } = raw;
        let activate = raw.activate.map(|steps| steps.0).unwrap_or_default();
        let control = Self {
            id,
            title,
            rows,
            refs,
            role,
            severity,
            resource,
            want,
            set,
            prove,
            activate,
            when,
            fix,
            blast,
            reversible,
            tightens,
            why,
        };
        match control.contradiction() {
            Some(problem) => Err(format!("control `{}`: {problem}", crate::finding::one_line(&control.id))),
            None => Ok(control),
        }
    }
}

impl Control {
    /// What a change writes: `set`, or what follows from `want`.
    #[must_use]
    pub fn value_to_write(&self) -> Option<Setting> {
        self.set.clone().or_else(|| self.want.value_to_write())
    }

    /// The first thing that does not fit together.
    fn contradiction(&self) -> Option<String> {
        let says = |bad: bool, problem: &str| bad.then(|| problem.to_owned());
        says(!is_id(&self.id), "its id is not of the form part.name: `docker.icc`")
            .or_else(|| self.text_problem())
            .or_else(|| says(self.blast > 2, "blast is 0, 1 or 2"))
            .or_else(|| {
                says(
                    !self.fix.changes() && !self.activate.is_empty(),
                    "fix is evidence or prevention: nothing is changed, so nothing is activated",
                )
            })
            .or_else(|| {
                says(!self.fix.changes() && self.set.is_some(), "fix is evidence or prevention: nothing is set")
            })
            .or_else(|| {
                says(
                    self.fix == Fix::Automatic && !self.reversible,
                    "what cannot be undone is never automatic: fix = \"gated\"",
                )
            })
            .or_else(|| {
                let gated_package = self.fix == Fix::Gated && matches!(self.resource, Resource::Package { .. });
                says(
                    self.fix.changes() && !self.resource.is_writable() && !gated_package,
                    "this kind of resource is not written: fix = \"evidence\" or \"prevention\"",
                )
            })
            .or_else(|| {
                let unclear = self.fix.changes() && self.set.is_none() && !self.change_is_clear();
                says(unclear, "`want` does not say what to write: add `set`, or fix = \"evidence\"")
            })
            .or_else(|| {
                let wrong =
                    self.set.as_ref().is_some_and(|set| !self.want.accepts(Some(set), self.resource.is_textual()));
                says(wrong, "what `set` writes does not satisfy `want`")
            })
            .or_else(|| self.proof_problem())
            .or_else(|| self.want_problem())
    }

    fn text_problem(&self) -> Option<String> {
        let texts = [Some(&self.title), self.why.as_ref()].into_iter().flatten().chain(&self.refs);
        let long = texts
            .into_iter()
            .any(|text| text.is_empty() || text.len() > TEXT_MAX || text.chars().any(char::is_control));
        if long {
            return Some("title, refs and why are non-empty single lines".to_owned());
        }
        if self.rows.iter().any(|row| !(1..=ROWS).contains(row)) || self.refs.len() > LIST_MAX {
            return Some(format!("rows are between 1 and {ROWS}"));
        }
        None
    }

    /// Kinds whose change follows from the kind itself, whatever is wanted.
    fn change_is_clear(&self) -> bool {
        self.want.is_constructive()
            || matches!(&self.resource, Resource::Audit(AuditRule::Watch { .. } | AuditRule::Syscalls { .. }))
            || matches!((&self.resource, &self.want.is), (Resource::Group { .. }, Predicate::SubsetOf(_)))
            || matches!(&self.resource, Resource::Package { .. } | Resource::Subid { .. })
    }

    /// The proof is one that the resource has.
    fn proof_problem(&self) -> Option<String> {
        let engines_own =
            matches!(&self.resource, Resource::Json(keyed) | Resource::Toml(keyed) if is_engines_own(&keyed.path));
        let fits = match (&self.resource, &self.prove) {
            // A canary shows the effect of anything but a permission.
            (Resource::File { .. } | Resource::Package { .. } | Resource::Group { .. }, Prove::Canary(_)) => false,
            (_, Prove::Canary(_)) => true,
            (Resource::Json(_) | Resource::Toml(_), Prove::File) => !engines_own,
            (Resource::Json(_) | Resource::Toml(_), Prove::Merged | Prove::Api) => engines_own,
            (
                Resource::Ini { .. } | Resource::File { .. } | Resource::Group { .. } | Resource::Subid { .. },
                Prove::File,
            ) => true,
            (Resource::Unit { fact: UnitFact::Active, .. }, Prove::Kernel) => true,
            (Resource::Unit { fact, .. }, Prove::Merged) => *fact != UnitFact::Active,
            (
                Resource::Sysctl { .. }
                | Resource::Audit(_)
                | Resource::Module { .. }
                | Resource::Cmdline { .. }
                | Resource::Mount { .. },
                Prove::Kernel,
            ) => true,
            (Resource::Package { .. }, Prove::Packages) => true,
            (Resource::Engine { .. }, Prove::Api | Prove::Merged) => true,
            (Resource::Container { .. }, Prove::Inventory) => true,
            _ => false,
        };
        let hint = if engines_own { " (an engine's own file proves nothing: merged, api or a canary)" } else { "" };
        (!fits).then(|| format!("a resource of kind {} is not proven by {}{hint}", self.resource.kind(), self.prove))
    }

    /// What is wanted is something that the resource can be.
    fn want_problem(&self) -> Option<String> {
        let fits = match (&self.want.is, &self.resource) {
            (Predicate::Access { .. } | Predicate::Digest(_), resource) => matches!(resource, Resource::File { .. }),
            (Predicate::Floor(_), resource) => matches!(resource, Resource::Package { .. }),
            (Predicate::Present | Predicate::Absent, Resource::File { .. } | Resource::Package { .. }) => true,
            (_, Resource::File { .. } | Resource::Package { .. }) => false,
            (Predicate::Absent, Resource::Module { .. }) => true,
            (_, Resource::Module { .. }) => false,
            (Predicate::Present, Resource::Audit(AuditRule::Watch { .. } | AuditRule::Syscalls { .. })) => true,
            (_, Resource::Audit(AuditRule::Watch { .. } | AuditRule::Syscalls { .. })) => false,
            _ => true,
        };
        let digest = matches!(
            (&self.want.is, &self.resource),
            (Predicate::Digest(_), Resource::Container { fact: ContainerFact::ImageDigest | ContainerFact::Seccomp })
        );
        (!fits && !digest).then(|| format!("a resource of kind {} can never be `{}`", self.resource.kind(), self.want))
    }
}

/// Files whose effective value is more than their text: an engine's flags, drop-ins and imports say the rest.
#[must_use]
pub(super) fn is_engines_own(path: &str) -> bool {
    matches!(path, "/etc/docker/daemon.json" | "/etc/containerd/config.toml")
}

/// `part.name` in lower case; the name may have dots.
fn is_id(text: &str) -> bool {
    let mut parts = text.split('.');
    let sound = |part: &str| {
        part.bytes().next().is_some_and(|first| first.is_ascii_lowercase() || first.is_ascii_digit())
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    };
    text.len() <= 128 && parts.clone().count() >= 2 && parts.all(sound)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
id = "docker.icc"
title = "t"
row = 45
refs = ["D2.2"]
role = "operator"
severity = "high"
resource = { json = "/etc/docker/daemon.json", key = "icc" }
want = false
prove = "merged"
activate = "engine-restart"
fix = "automatic"
"#;

    fn parsed(text: &str) -> Result<Control, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_control_that_contradicts_itself_is_refused() {
        let control = parsed(GOOD).unwrap();
        assert_eq!(
            (control.blast, control.reversible, control.value_to_write()),
            (0, true, Some(Setting::Flag(false)))
        );
        let change = |from: &str, to: &str| {
            assert!(GOOD.contains(from), "{from}");
            GOOD.replacen(from, to, 1)
        };
        let sysctl = change("json = \"/etc/docker/daemon.json\", key = \"icc\"", "sysctl = \"a.b\"");
        let with = |more: &str| format!("{GOOD}{more}\n");
        for (text, part) in [
            (change("docker.icc", "icc"), "part.name"),
            (change("docker.icc", "Docker.icc"), "part.name"),
            (change("row = 45", "row = 128"), "between 1 and 127"),
            (change("row = 45", "row = [0]"), "between 1 and 127"),
            (change("title = \"t\"", "title = \"\""), "non-empty"),
            (change("title = \"t\"", "title = \"a\\nb\""), "single lines"),
            (change("automatic", "evidence"), "nothing is activated"),
            (
                change("activate = \"engine-restart\"\nfix = \"automatic\"", "fix = \"evidence\"\nset = false"),
                "nothing is set",
            ),
            (change("engine-restart", "restart"), "unknown variant `restart`"),
            (with("blast = 3"), "blast is 0, 1 or 2"),
            (with("reversible = false"), "never automatic"),
            (with("set = true"), "does not satisfy"),
            (with("shell = \"true\""), "unknown field `shell`"),
            (with("when = { engin = \"docker\" }"), "unknown field `engin`"),
            (change("want = false", "want = \"not-empty\""), "does not say what to write"),
            (change("merged", "file"), "an engine's own file proves nothing"),
            (change("merged", "kernel"), "is not proven by kernel"),
            (change("merged", "canary:"), "canary:NAME"),
            (sysctl, "is not proven by merged"),
            (change("want = false", "want = { mode = \"0644\" }"), "can never be"),
            (
                change("{ json = \"/etc/docker/daemon.json\", key = \"icc\" }", "{ container = \"privileged\" }"),
                "is not written",
            ),
            (
                change(
                    "{ json = \"/etc/docker/daemon.json\", key = \"icc\" }",
                    "{ engine = \"docker\", setting = \"x\" }",
                ),
                "is not written",
            ),
        ] {
            let error = parsed(&text).expect_err(&text);
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}
