//! Admission: which proven host may carry which label.
//!
//! The Relying Party's side (RFC 9334 §8.5, SP 800-207's policy engine). [`explain`] states every condition, met or not;
//! [`admit`] turns them into an [`Admission`] or a [`Refusal`]. It works on Attestation Results only and never sees evidence.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::check::violated;
use crate::finding::{Finding, Severity};
use crate::identity::class::TpmClass;
use crate::label::{Label, Levels};
use crate::policy::{PolicyError, parse_toml};
use crate::pool::Pool;
use crate::result::VerifiedResult;
use crate::span::Span;
use crate::tier::{Submodule, Tier};

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
        let unproven = !raw.tiers.contains_key(&Submodule::Boot)
            || raw.tiers.values().any(|tier| !matches!(tier, Tier::Affirming | Tier::Warning));
        if violated("admission.tiers", unproven) {
            return invalid(
                "admission.tiers",
                "[tiers] names `boot`, and every tier is `affirming` or `warning`: nothing unproven is admitted",
            );
        }
        let nothing = raw.tpm_class.is_empty() || raw.tpm_class.contains(&TpmClass::None);
        if violated("admission.tpm-classes", nothing) {
            return invalid("admission.tpm-classes", "`tpm_class` names the accepted classes; none is not one");
        }
        // Nothing simulated passes for real, and nothing unverified passes for verified.
        for alone in [TpmClass::Simulated, TpmClass::Unverified] {
            let beside = raw.tpm_class.contains(&alone) && raw.tpm_class.iter().any(|class| *class != alone);
            if violated("admission.simulated", beside) {
                return invalid(
                    "admission.simulated",
                    "class simulated or unverified never stands beside another class: nothing simulated passes for real",
                );
            }
        }
        Ok(Self { name: name.to_owned(), raw })
    }

    /// The policy's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The greatest age of a proof, in milliseconds.
    #[must_use]
    pub fn max_age_ms(&self) -> u64 {
        self.raw.max_age.millis()
    }

    /// Name of the appraisal policy under which a host must have been judged.
    #[must_use]
    pub fn requires_appraisal(&self) -> &str {
        &self.raw.requires_appraisal
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
    /// Whether an asset tag was signed for this host: then it must be proven.
    pub tag_assigned: bool,
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
    if said.tag_label.is_none() && host.tag_assigned {
        list.push(condition(
            "admission.tag-label",
            true,
            "the asset tag that was signed for this host",
            "no proven tag",
            "see the findings of the tag: it has ended, was not written, or is withheld",
        ));
    }
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
        pool: pool.name().to_owned(),
        label: pool.label().clone(),
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

#[cfg(test)]
mod tests;
