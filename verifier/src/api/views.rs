//! What the API says about hosts, pools and placements. Shared with the command line.

use std::collections::BTreeMap;

use hostmark_attest::admission::Condition;
use hostmark_attest::finding::Finding;
use hostmark_attest::result::BootFacts;
use hostmark_attest::tier::{Submodule, Tier};
use hostmark_attest::wire::{HostState, PoolPlace};
use serde::{Deserialize, Serialize};

/// One host, as `GET /v1/standings` lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingSummary {
    /// Who and in which state.
    #[serde(flatten)]
    pub fields: StandingFields,
    /// Tiers of the last result.
    pub tiers: BTreeMap<Submodule, Tier>,
    /// Enforcing pools that admit it now.
    pub pools: Vec<PoolPlace>,
    /// What to read first when it is not proven.
    pub reason: Option<Finding>,
}

/// One host explained, as `GET /v1/hosts/{host}/standing` tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingDetail {
    /// Who and in which state.
    #[serde(flatten)]
    pub fields: StandingFields,
    /// The appraisal policy and its version, as of the last result.
    pub appraisal: Option<String>,
    /// What the boot log of the last result proves.
    #[serde(default)]
    pub boot: Option<BootFacts>,
    /// Each subsystem with its findings.
    pub subsystems: BTreeMap<Submodule, SubsystemDetail>,
    /// Findings of evidence that was not genuine, or of a stored result that does not count.
    pub refused: Vec<Finding>,
    /// Each pool with every condition.
    pub pools: Vec<PoolVerdict>,
    /// The last Attestation Result, a signed JWT.
    pub result: Option<String>,
}

/// What a host's summary and its detail share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingFields {
    /// Host id.
    pub host: String,
    /// Node name.
    pub node: String,
    /// The scheduler whose node it is.
    pub scheduler: String,
    /// Clearance.
    pub label: String,
    /// Whether it is trusted now.
    pub state: HostState,
    /// The TPM's class as of the last result, or as of enrolment.
    pub tpm_class: String,
    /// Milliseconds since its last proof's nonce was issued.
    pub age_ms: Option<u64>,
}

/// One subsystem of a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubsystemDetail {
    /// Its tier.
    pub tier: Tier,
    /// What was found.
    pub findings: Vec<Finding>,
}

/// One pool and one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolVerdict {
    /// The pool.
    pub pool: String,
    /// `enforce` or `observe`.
    pub mode: String,
    /// Whether every condition is met now.
    pub admitted: bool,
    /// End of the permit, RFC 3339, where admitted.
    pub not_after: Option<String>,
    /// The admission policy.
    pub rule: String,
    /// Every condition.
    pub conditions: Vec<Condition>,
}

/// One pool, as `GET /v1/pools` lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolSummary {
    /// Its name.
    pub pool: String,
    /// Its label.
    pub label: String,
    /// `enforce` or `observe`.
    pub mode: String,
    /// How long one proof counts, in milliseconds.
    pub lease_ms: u64,
    /// Its admission policy.
    pub admission: String,
    /// Nodes that every condition admits now.
    pub admitted: Vec<String>,
    /// Nodes that it does not admit, of those whose label would allow it.
    pub refused: Vec<String>,
}

/// A file by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedFile {
    /// Its name without `.toml`.
    pub name: String,
    /// Its exact text.
    pub toml: String,
}

/// `POST /v1/pools`: all pools and admission policies; what is not named is removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplyPools {
    /// Pools.
    pub pools: Vec<NamedFile>,
    /// Admission policies.
    pub admission: Vec<NamedFile>,
    /// Only say what would change.
    #[serde(default)]
    pub dry_run: bool,
}

/// What an application of pools changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolChanges {
    /// Whether it was applied.
    pub applied: bool,
    /// Pools that are new.
    pub added: Vec<String>,
    /// Pools or admission policies whose text changes.
    pub changed: Vec<String>,
    /// Pools that are gone.
    pub removed: Vec<String>,
    /// Nodes that enter, as `pool/node`.
    pub enter: Vec<String>,
    /// Nodes that leave, as `pool/node`.
    pub leave: Vec<String>,
    /// What keeps these pools from admitting anybody: appraisal policies that judge nobody yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Finding>,
}

/// `POST /v1/policies` and `POST /v1/references`: a signed file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishFile {
    /// Its name without `.toml`.
    pub name: String,
    /// Its exact text.
    pub toml: String,
    /// The detached JWS over it.
    pub signature: String,
}

/// What was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// Id of the key that signed it.
    pub signer: String,
    /// For a policy: references that it names and that are not published yet. Until they are, it judges nobody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<String>,
}

/// How placements are spread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Spread {
    /// Not at all.
    #[default]
    None,
    /// Over zones: the first part of the proven location.
    Zone,
}

/// `POST /v1/placements`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlacementRequest {
    /// The workload's label.
    pub label: String,
    /// How many hosts.
    pub count: u32,
    /// How to spread them.
    #[serde(default)]
    pub spread: Spread,
    /// Only nodes of this scheduler.
    #[serde(default)]
    pub scheduler: Option<String>,
}

/// A host that may carry the workload, with its permit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placed {
    /// Host id.
    pub host: String,
    /// Node name.
    pub node: String,
    /// The scheduler whose node it is.
    pub scheduler: String,
    /// The pool.
    pub pool: String,
    /// The proven location.
    pub location: Option<String>,
    /// End of the permit, RFC 3339.
    pub not_after: String,
    /// Milliseconds left when this answer was made.
    pub remaining_ms: u64,
    /// The permit, a signed JWT.
    pub permit: String,
}

/// A host that may not, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unplaced {
    /// Host id.
    pub host: String,
    /// Node name.
    pub node: String,
    /// The pool that would carry the label.
    pub pool: String,
    /// The conditions that are not met.
    pub unmet: Vec<Condition>,
}

/// The answer to [`PlacementRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlacementResponse {
    /// The workload's label in canonical form.
    pub label: String,
    /// How many were asked for.
    pub asked: u32,
    /// The hosts; fewer than asked when there are no more.
    pub hosts: Vec<Placed>,
    /// Where there are too few: hosts that do not qualify, and why.
    pub refused: Vec<Unplaced>,
    /// Why no host could qualify at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Finding>,
}
