//! Pools: hosts that carry one sensitivity label, and what happens when a host's trust ends.
//!
//! CSA best practices 3.1.2 and domain 8 (like with like). A pool says what it carries and for how long one proof counts;
//! which hosts may enter is the admission policy's ([`crate::admission`]).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::check::violated;
use crate::label::{Label, Levels};
use crate::policy::{PolicyError, parse_toml};
use crate::span::Span;

/// Whether a pool's decisions have effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// They do.
    Enforce,
    /// They are only shown.
    Observe,
}

/// Which workload labels a pool accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accept {
    /// Exactly the pool's own label: like with like (CSA domain 8).
    #[default]
    Exact,
    /// Every label that the pool's dominates.
    Dominated,
}

/// What happens to workloads when trust ends (law 3). Carried out by connectors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnEnd {
    /// When proof lapses.
    pub lapsed: Reaction,
    /// When evidence is bad.
    pub disproven: Reaction,
}

/// One reaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reaction {
    /// What to do.
    pub act: Act,
    /// For cordon: when to evict after all (`never`, or a duration).
    #[serde(default)]
    pub evict_after: Option<String>,
    /// For evict: time to leave.
    #[serde(default)]
    pub grace: Option<String>,
}

/// What a connector does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Act {
    /// No new workloads.
    Cordon,
    /// Move workloads away.
    Evict,
}

/// How fast workloads may be moved away; never delays a permit's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Brake {
    /// Share of the pool per time, `5%/10m`.
    pub max_evict: String,
    /// Hosts that always stay.
    pub min_hosts: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPool {
    label: Label,
    mode: Mode,
    #[serde(default)]
    accept: Accept,
    lease: Span,
    admission: String,
    on: Option<OnEnd>,
    brake: Option<Brake>,
}

/// A pool of hosts for one sensitivity label, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    name: String,
    raw: RawPool,
}

/// Shortest and longest lease.
const LEASE_MIN: Duration = Duration::from_secs(3);
const LEASE_MAX: Duration = Duration::from_secs(3600);

impl Pool {
    /// Parses and validates `pools/<name>.toml`.
    ///
    /// # Errors
    /// [`PolicyError`] naming line and column, or what is invalid.
    pub fn parse(name: &str, text: &str, levels: &Levels) -> Result<Self, PolicyError> {
        let file = format!("pools/{name}.toml");
        let raw: RawPool = parse_toml(&file, text)?;
        let invalid = |id, problem: String| Err(PolicyError::Invalid { file: file.clone(), id, problem });
        let unknown = levels.accept(&raw.label).err();
        if violated("pool.label", unknown.is_some()) {
            return invalid("pool.label", unknown.map_or_else(String::new, |error| error.to_string()));
        }
        if violated("pool.name", !is_name(name)) {
            return invalid("pool.name", "a pool's name matches [a-z][a-z0-9-]{0,62}".to_owned());
        }
        if violated("pool.lease", !(LEASE_MIN..=LEASE_MAX).contains(&raw.lease.0)) {
            return invalid("pool.lease", "a lease is between 3s and 1h".to_owned());
        }
        Ok(Self { name: name.to_owned(), raw })
    }

    /// The pool's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its label.
    #[must_use]
    pub const fn label(&self) -> &Label {
        &self.raw.label
    }

    /// Whether its decisions have effect.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.raw.mode
    }

    /// How long one proof carries, from the issue of its nonce.
    #[must_use]
    pub const fn lease(&self) -> Duration {
        self.raw.lease.0
    }

    /// Name of the admission policy.
    #[must_use]
    pub fn admission(&self) -> &str {
        &self.raw.admission
    }

    /// Whether a workload with this label belongs here.
    #[must_use]
    pub fn accepts(&self, workload: &Label, levels: &Levels) -> bool {
        match self.raw.accept {
            Accept::Exact => self.raw.label == *workload,
            Accept::Dominated => levels.dominates(&self.raw.label, workload),
        }
    }

    /// What happens to workloads when trust ends.
    #[must_use]
    pub const fn on_end(&self) -> Option<&OnEnd> {
        self.raw.on.as_ref()
    }
}

/// Lower-case names of pools and policies: `[a-z][a-z0-9-]{0,62}`.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_lowercase())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && text.len() <= 63
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d3_a_pool_has_a_known_label_a_plain_name_and_a_short_lease() {
        const POOL: &str = "label = \"internal@a\"\nmode = \"enforce\"\nlease = \"60s\"\nadmission = \"a\"\n";
        let refused =
            |name: &str, from: &str, to: &str| match Pool::parse(name, &POOL.replace(from, to), &Levels::default()) {
                Ok(_) => None,
                Err(PolicyError::Invalid { id, .. }) => Some(id),
                Err(other) => panic!("{other}"),
            };
        for (name, from, to, expect) in [
            ("phi", "", "", None),
            ("phi", "60s", "3s", None),
            ("phi", "60s", "1h", None),
            ("phi", "60s", "2s", Some("pool.lease")),
            ("phi", "60s", "3601s", Some("pool.lease")),
            ("phi", "internal", "mine", Some("pool.label")),
            ("Phi", "", "", Some("pool.name")),
            ("phi/a", "", "", Some("pool.name")),
            ("", "", "", Some("pool.name")),
        ] {
            assert_eq!(refused(name, from, to), expect, "{name}: {to}");
        }
    }
}
