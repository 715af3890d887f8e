//! What operators and the verifier say to each other in JSON. Shared with the command line; unknown fields are refused on both sides.

use serde::{Deserialize, Serialize};

use crate::auth::Role;

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
