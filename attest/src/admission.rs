//! Pools and admission: which proven host may carry which label.
//!
//! The Relying Party's side (RFC 9334 §8.5, SP 800-207's policy engine). [`explain`] states every condition, met or not;
//! [`admit`] turns them into an [`Admission`] or a [`Refusal`]. It works on Attestation Results only and never sees evidence.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use crate::check::violated;
use crate::finding::{Finding, Severity};
use crate::identity::class::TpmClass;
use crate::label::{Label, Levels};
use crate::policy::{PolicyError, parse_toml};
use crate::result::VerifiedResult;
use crate::tier::{Submodule, Tier};

/// A duration as people write it: `60s`, `5m`, `4h`, `120ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Span(pub Duration);

impl Span {
    /// Reads `<number><ms|s|m|h|d>`.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let digits = text.find(|c: char| !c.is_ascii_digit())?;
        let number = text.get(..digits)?.parse::<u64>().ok()?;
        let millis = match text.get(digits..)? {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        Some(Self(Duration::from_millis(number.checked_mul(millis)?)))
    }

    /// Whole milliseconds.
    #[must_use]
    pub fn millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_text(&text)
            .ok_or_else(|| D::Error::custom(format!("`{text}` is not a duration such as 60s, 5m or 4h")))
    }
}

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
        if let Err(error) = levels.accept(&raw.label) {
            return invalid("pool.label", error.to_string());
        }
        if !is_name(name) {
            return invalid("pool.name", "a pool's name matches [a-z][a-z0-9-]{0,62}".to_owned());
        }
        if raw.lease.0 < LEASE_MIN || raw.lease.0 > LEASE_MAX {
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

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAdmission {
    requires_appraisal: String,
    tpm_class: Vec<TpmClass>,
    max_age: Span,
    #[serde(default)]
    location: Vec<String>,
    tiers: BTreeMap<Submodule, Tier>,
    #[serde(default)]
    profile: Option<ProfileDemand>,
    #[serde(default)]
    tee: Option<TeeDemand>,
    #[serde(default, rename = "override")]
    break_glass: Option<OverrideRule>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileDemand {
    min_level: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct TeeDemand {
    require: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct OverrideRule {
    approvers: u32,
    max: Span,
}

/// What a pool demands of Attestation Results, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmissionPolicy {
    name: String,
    raw: RawAdmission,
}

impl AdmissionPolicy {
    /// Parses and validates `admission/<name>.toml`.
    ///
    /// # Errors
    /// [`PolicyError`] naming line and column, or what is invalid.
    pub fn parse(name: &str, text: &str) -> Result<Self, PolicyError> {
        let file = format!("admission/{name}.toml");
        let raw: RawAdmission = parse_toml(&file, text)?;
        let invalid =
            |id, problem: &str| Err(PolicyError::Invalid { file: file.clone(), id, problem: problem.to_owned() });
        if !raw.tiers.contains_key(&Submodule::Boot)
            || raw.tiers.values().any(|tier| !matches!(tier, Tier::Affirming | Tier::Warning))
        {
            return invalid(
                "admission.tiers",
                "[tiers] names `boot`, and every tier is `affirming` or `warning`: nothing unproven is admitted",
            );
        }
        if raw.tpm_class.is_empty() || raw.tpm_class.iter().any(|class| matches!(class, TpmClass::None)) {
            return invalid("admission.tpm-class", "`tpm_class` names the accepted classes; none is not one");
        }
        let production = raw.tpm_class.iter().any(|class| *class != TpmClass::Simulated);
        if production && raw.tpm_class.contains(&TpmClass::Simulated) {
            return invalid(
                "admission.simulated",
                "class simulated never stands beside another class: nothing simulated passes for real",
            );
        }
        Ok(Self { name: name.to_owned(), raw })
    }

    /// The policy's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// What the approver or the signed tag says of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRecord<'a> {
    /// Node name.
    pub node: &'a str,
    /// The clearance that the approver gave.
    pub clearance: &'a Label,
    /// Whether the host is in maintenance.
    pub maintenance: bool,
}

/// One condition of admission, met or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// Dotted path, subject first.
    pub id: String,
    /// Whether it is met.
    pub met: bool,
    /// What the pool demands.
    pub expected: String,
    /// What the host has.
    pub found: String,
    /// What to do when it is not met.
    #[serde(default)]
    pub fix: Option<String>,
    /// The findings behind it.
    #[serde(default)]
    pub findings: Vec<Finding>,
}

fn condition(id: &'static str, bad: bool, expected: impl ToString, found: impl ToString, fix: &str) -> Condition {
    let bad = violated(id, bad);
    Condition {
        id: id.to_owned(),
        met: !bad,
        expected: expected.to_string(),
        found: found.to_string(),
        fix: bad.then(|| fix.to_owned()),
        findings: Vec::new(),
    }
}

/// Every condition of this pool for this host. `age_ms` is the time since the result's nonce was issued.
#[must_use]
pub fn explain(
    pool: &Pool,
    policy: &AdmissionPolicy,
    levels: &Levels,
    host: &HostRecord<'_>,
    result: Option<&VerifiedResult>,
    age_ms: u64,
) -> Vec<Condition> {
    let mut list = vec![
        condition(
            "admission.label",
            !levels.dominates(host.clearance, pool.label()),
            format!("a clearance that dominates {}", pool.label()),
            host.clearance,
            "an approver may give the host another label: hostmark host label",
        ),
        condition(
            "admission.maintenance",
            host.maintenance,
            "in service",
            if host.maintenance { "in maintenance" } else { "in service" },
            "end the maintenance: hostmark host maintenance HOST --for 0s",
        ),
    ];
    let Some(result) = result else {
        list.push(condition(
            "admission.result",
            true,
            "a fresh Attestation Result",
            "none",
            "wait for the host's next round, or look at hostd status on the host",
        ));
        return list;
    };
    let said = result.host_claims();
    let limit = policy.raw.max_age.millis().min(Span(pool.lease()).millis());
    list.push(condition(
        "admission.age",
        age_ms >= limit,
        format!("a proof younger than {limit} ms"),
        format!("{age_ms} ms"),
        "the host must attest again; look at hostd status on the host",
    ));
    list.push(condition(
        "admission.appraisal",
        said.appraisal != policy.raw.requires_appraisal,
        &policy.raw.requires_appraisal,
        &said.appraisal,
        "approve the host under the appraisal policy that the pool requires",
    ));
    let classes: Vec<String> = policy.raw.tpm_class.iter().map(ToString::to_string).collect();
    list.push(condition(
        "admission.tpm-class",
        !policy.raw.tpm_class.contains(&said.tpm_class),
        classes.join(" or "),
        said.tpm_class,
        "only a TPM whose EK certificate chains to a trusted root of that class qualifies",
    ));
    let foreign = !said.sources.is_empty() && said.tpm_class != TpmClass::Simulated;
    list.push(condition(
        "admission.sources",
        foreign,
        "evidence from the machine's own sources",
        if said.sources.is_empty() { "own sources".to_owned() } else { said.sources.join(", ") },
        "remove the [source] table from hostd.toml",
    ));
    for (submodule, wanted) in &policy.raw.tiers {
        let have = result.tier(*submodule);
        let mut one =
            condition(tier_id(*submodule), !have.meets(*wanted), wanted, have, "see the findings of this subsystem");
        if !one.met {
            one.findings =
                result.findings(*submodule).iter().filter(|f| f.severity != Severity::Info).cloned().collect();
        }
        list.push(one);
    }
    list.push(condition(
        "admission.disproven",
        result.disproven(),
        "no subsystem contraindicated",
        if result.disproven() { "contraindicated" } else { "none contraindicated" },
        "see the findings of the contraindicated subsystem",
    ));
    if let Some(tag) = &said.tag_label {
        list.push(condition(
            "admission.tag-label",
            tag != host.clearance,
            format!("the tag's label equals the approver's: {}", host.clearance),
            tag,
            "write a new tag, or give the host the tag's label",
        ));
    }
    if !policy.raw.location.is_empty() {
        let place = said.tag_location.as_deref();
        let inside =
            place.is_some_and(|place| policy.raw.location.iter().any(|pattern| matches_location(pattern, place)));
        list.push(condition(
            "admission.location",
            !inside,
            policy.raw.location.join(" or "),
            place.unwrap_or("no proven location"),
            "write an asset tag with the host's location: hostmark host tag",
        ));
    }
    if let Some(profile) = &policy.raw.profile
        && profile.min_level != "none"
    {
        list.push(condition(
            "admission.profile",
            true,
            &profile.min_level,
            "none: profiles are not measured by this release",
            "set [profile] min_level = \"none\"",
        ));
    }
    if let Some(tee) = &policy.raw.tee
        && tee.require != "none"
    {
        list.push(condition(
            "admission.tee",
            true,
            &tee.require,
            "none: no TEE evidence is verified by this release",
            "set [tee] require = \"none\"",
        ));
    }
    list
}

const fn tier_id(submodule: Submodule) -> &'static str {
    match submodule {
        Submodule::Boot => "admission.boot",
        Submodule::Runtime => "admission.runtime",
        Submodule::Engine => "admission.engine",
        Submodule::Profile => "admission.profile-tier",
        Submodule::Tag => "admission.tag",
        Submodule::Platform => "admission.platform",
    }
}

/// `jp-east/*` matches every place below; anything else matches itself.
fn matches_location(pattern: &str, place: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => prefix.ends_with('/') && place.starts_with(prefix),
        None => pattern == place,
    }
}

/// A host's admission to a pool: exists only when every condition is met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    host: String,
    node: String,
    pool: String,
    label: Label,
    rule: String,
    lease: Duration,
}

/// Why a host is not admitted: the conditions that are not met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The unmet conditions.
    pub unmet: Vec<Condition>,
}

/// Admits a host to a pool, or says which conditions are not met.
///
/// # Errors
/// [`Refusal`].
pub fn admit(
    pool: &Pool,
    policy: &AdmissionPolicy,
    levels: &Levels,
    host: &HostRecord<'_>,
    result: &VerifiedResult,
    age_ms: u64,
) -> Result<Admission, Refusal> {
    let unmet: Vec<Condition> =
        explain(pool, policy, levels, host, Some(result), age_ms).into_iter().filter(|one| !one.met).collect();
    if !unmet.is_empty() {
        return Err(Refusal { unmet });
    }
    Ok(Admission {
        host: result.host().to_owned(),
        node: host.node.to_owned(),
        pool: pool.name.clone(),
        label: pool.raw.label.clone(),
        rule: policy.name.clone(),
        lease: pool.lease(),
    })
}

impl Admission {
    /// The permit's content. Its end is the nonce's issue plus the lease, never later.
    #[must_use]
    pub fn permit(&self, now_ms: i64, remaining_ms: u64, sequence: u64) -> crate::permit::PermitClaims {
        let remaining_ms = remaining_ms.min(Span(self.lease).millis());
        crate::permit::PermitClaims {
            host: self.host.clone(),
            node: self.node.clone(),
            pool: self.pool.clone(),
            label: self.label.clone(),
            rule: self.rule.clone(),
            aud: crate::permit::AUDIENCE.to_owned(),
            issued_at: now_ms,
            not_after: now_ms.saturating_add_unsigned(remaining_ms),
            remaining_ms,
            sequence,
        }
    }

    /// The pool.
    #[must_use]
    pub fn pool(&self) -> &str {
        &self.pool
    }

    /// The admission policy that granted it.
    #[must_use]
    pub fn rule(&self) -> &str {
        &self.rule
    }

    /// How long one proof carries.
    #[must_use]
    pub const fn lease(&self) -> Duration {
        self.lease
    }
}
