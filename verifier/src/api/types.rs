//! What operators and the verifier say to each other in JSON. Shared with the command line; unknown fields are refused on both sides.

use hostmark_attest::finding::Finding;
use hostmark_attest::label::Levels;
use hostmark_attest::span::Span;
use hostmark_attest::wire::{B64, HostState};
use serde::{Deserialize, Serialize};

use crate::auth::Role;
use crate::clock::{Now, rfc3339};
use crate::names;
use crate::refusal::Outcome;
use crate::store::{Assignment, EnrolmentRow, HostRow, TokenRow};

/// `GET /v1/whoami`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhoAmI {
    /// Role of the client certificate.
    pub role: Role,
    /// Operator's name or host id.
    pub name: String,
    /// The certificate's serial.
    pub serial: String,
}

/// `GET /readyz`: 200 when ready, 503 with the same body when not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    /// Whether changes are accepted.
    pub ready: bool,
    /// Why not.
    pub reason: Option<String>,
    /// Version of the verifier.
    pub version: String,
}

/// `POST /v1/operators`. The key pair is made by the client; only the request travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddOperator {
    /// Unique name.
    pub name: String,
    /// Role; never `host`.
    pub role: Role,
    /// PKCS#10 request, PEM.
    pub csr: String,
}

/// The answer to [`AddOperator`] (201).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorCertificate {
    /// Name.
    pub name: String,
    /// Role.
    pub role: Role,
    /// The certificate and its issuer, PEM.
    pub certificate: String,
    /// End, RFC 3339.
    pub not_after: String,
}

/// One row of `GET /v1/operators`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operator {
    /// Name.
    pub name: String,
    /// Role.
    pub role: Role,
    /// When added, RFC 3339.
    pub added: String,
    /// By whom.
    pub added_by: String,
}

/// `GET /v1/audit?since=SEQ&limit=N` answers a list of [`crate::audit::Record`] in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    /// First position, from 1.
    #[serde(default)]
    pub since: u64,
    /// At most this many records (1000 at most).
    #[serde(default = "audit_limit")]
    pub limit: u32,
}

const fn audit_limit() -> u32 {
    1000
}

/// `GET /v1/audit/head`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditHead {
    /// The signed head, a compact JWS of `typ` `audit-head`; absent while the chain is empty.
    pub head: Option<String>,
}

/// What an approver assigns to a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assign {
    /// Node name, RFC 1123, unique per scheduler.
    pub node: String,
    /// The scheduler whose node it is (`swarm-a`).
    pub scheduler: String,
    /// Clearance.
    pub label: String,
    /// AppraisalPolicy by name; without it, the verifier's default.
    #[serde(default)]
    pub policy: Option<String>,
}

impl Assign {
    /// Checks every field.
    ///
    /// # Errors
    /// 400 naming the field.
    pub fn checked(&self, levels: &Levels, default_policy: &str) -> Outcome<Assignment> {
        names::node("node", &self.node)?;
        names::name("scheduler", &self.scheduler)?;
        let label = names::label("label", &self.label, levels)?;
        let policy = self.policy.clone().unwrap_or_else(|| default_policy.to_owned());
        names::name("policy", &policy)?;
        Ok(Assignment { node: self.node.clone(), scheduler: self.scheduler.clone(), label, policy })
    }
}

impl From<Assignment> for Assign {
    fn from(to: Assignment) -> Self {
        Self { node: to.node, scheduler: to.scheduler, label: to.label.to_string(), policy: Some(to.policy) }
    }
}

/// `POST /v1/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// What the host becomes; the label is the highest it may have by this token.
    pub assignment: Assign,
    /// The one TPM that may use it: its EK id.
    #[serde(default)]
    pub ek_id: Option<String>,
    /// The least TPM class that may use it.
    #[serde(default)]
    pub min_class: Option<String>,
    /// Life, at most `30d`.
    pub expires_in: Span,
}

/// The answer to [`CreateToken`] (201). The token is shown here and nowhere else.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreatedToken {
    /// Its id, for revoking.
    pub id: String,
    /// The token: give it to the host in a file.
    pub token: String,
    /// End, RFC 3339.
    pub expires: String,
    /// Why the host could not be judged if it came now: its appraisal policy judges nobody yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Finding>,
}

/// Never shows the token.
impl std::fmt::Debug for CreatedToken {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("CreatedToken").field("id", &self.id).field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// One row of `GET /v1/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Its id.
    pub id: String,
    /// What the host becomes.
    pub assignment: Assign,
    /// The one TPM that may use it.
    pub ek_id: Option<String>,
    /// The least TPM class that may use it.
    pub min_class: Option<String>,
    /// End, RFC 3339.
    pub expires: String,
    /// By whom.
    pub created_by: String,
    /// Whether it was revoked.
    pub revoked: bool,
    /// The host that used it.
    pub used_by: Option<String>,
}

impl From<TokenRow> for Token {
    fn from(row: TokenRow) -> Self {
        Self {
            id: row.id,
            assignment: row.assignment.into(),
            ek_id: row.ek_id,
            min_class: row.min_class,
            expires: rfc3339(row.expires_unix_ms),
            created_by: row.created_by,
            revoked: row.revoked,
            used_by: row.used_by,
        }
    }
}

/// `POST /v1/preregistrations`: all rows or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preregistrations {
    /// The TPMs.
    pub hosts: Vec<PreregisteredHost>,
}

/// One pre-registered TPM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreregisteredHost {
    /// SHA-256 of the EK's SubjectPublicKeyInfo, 64 lower-case hex digits.
    pub ek_id: String,
    /// What the host becomes.
    pub assignment: Assign,
}

/// The answer to [`Preregistrations`] (201).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Imported {
    /// Rows.
    pub imported: usize,
    /// Appraisal policies among the rows that judge nobody yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Finding>,
}

/// `POST /v1/hosts/{host}/approve`, by host id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approve {
    /// What the host becomes.
    pub assignment: Assign,
}

/// `POST /v1/hosts/{host}/label`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// The new clearance.
    pub label: String,
}

/// `POST /v1/hosts/{host}/maintenance`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Maintenance {
    /// How long (`2h`); absent or null ends it.
    #[serde(default, rename = "for")]
    pub for_: Option<Span>,
}

/// `POST /v1/hosts/{host}/rebind`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rebind {
    /// The waiting enrolment; needed only where several want to be this host, or none said so itself.
    #[serde(default)]
    pub enrolment: Option<String>,
}

/// `POST /v1/hosts/{host}/retire`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retire {}

/// `POST /v1/hosts/{host}/tag`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetTag {
    /// The exact contents of the tag's NV index.
    pub nv: B64,
}

/// Where a host stands, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Standing {
    /// Its TPM has proven itself; a person must approve.
    Pending,
    /// A TPM or AK that would replace an existing host's: a person must look.
    RebindPending,
    /// Approved, never proven.
    Unproven,
    /// Fresh proof within the lease.
    Proven,
    /// No fresh proof.
    Lapsed,
    /// The evidence is bad.
    Disproven,
    /// Planned absence.
    Maintenance,
    /// Ended.
    Retired,
}

/// One row of `GET /v1/hosts`, and `GET /v1/hosts/{host}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Host id.
    pub host: String,
    /// Where it stands.
    pub state: Standing,
    /// The waiting enrolment, for a host that is pending.
    pub enrolment: Option<String>,
    /// What was assigned; absent while pending.
    pub assignment: Option<Assign>,
    /// TPM class at enrolment.
    pub class: String,
    /// EK id.
    pub ek_id: String,
    /// Name of the AK, hex.
    pub ak_name: String,
    /// When approved, or when the enrolment began, RFC 3339.
    pub since: String,
    /// By whom it was approved.
    pub approved_by: Option<String>,
    /// End of planned maintenance, RFC 3339.
    pub maintenance_until: Option<String>,
    /// Serial of the tag that it shall hold; 0 for none.
    pub tag_serial: u64,
    /// What enrolment noticed.
    pub findings: Vec<Finding>,
}

impl From<EnrolmentRow> for Host {
    fn from(row: EnrolmentRow) -> Self {
        Self {
            host: row.host,
            state: if row.rebinds { Standing::RebindPending } else { Standing::Pending },
            enrolment: Some(row.id),
            assignment: None,
            class: row.class,
            ek_id: row.ek_id,
            ak_name: hex::encode(row.ak_name),
            since: rfc3339(row.created_unix_ms),
            approved_by: None,
            maintenance_until: None,
            tag_serial: 0,
            findings: row.findings,
        }
    }
}

impl Host {
    /// A known host. `stands` is its state at `now`; none for one that stands nowhere.
    #[must_use]
    pub fn known(row: HostRow, stands: Option<HostState>, now: &Now) -> Self {
        let maintenance = row.maintenance_until_unix_ms > now.unix_ms;
        let state = match stands {
            _ if row.retired => Standing::Retired,
            Some(HostState::Disproven) => Standing::Disproven,
            _ if maintenance => Standing::Maintenance,
            Some(HostState::Proven) => Standing::Proven,
            Some(HostState::Lapsed) => Standing::Lapsed,
            _ => Standing::Unproven,
        };
        Self {
            host: row.id,
            state,
            enrolment: None,
            assignment: Some(row.assignment.into()),
            class: row.class,
            ek_id: row.ek_id,
            ak_name: hex::encode(row.ak_name),
            since: rfc3339(row.approved_unix_ms),
            approved_by: Some(row.approved_by),
            maintenance_until: maintenance.then(|| rfc3339(row.maintenance_until_unix_ms)),
            tag_serial: row.tag_serial,
            findings: Vec::new(),
        }
    }
}
