//! Permits: this host may carry this pool's workloads until then, by this rule.
//!
//! A permit is a lease (law 2): it ends by itself. `not_after` is a wall-clock time for people and distant consumers;
//! `remaining_ms` lets a consumer count on its own boot-time clock from receipt and take the earlier end.

use serde::{Deserialize, Serialize};

use crate::finding::{Finding, Findings};
use crate::jws::{self, KeySet, Purpose, SignError, Signer};
use crate::label::Label;

/// Signatures over permits.
pub const PERMIT: Purpose = Purpose {
    typ: "hostmark-permit+jwt",
    malformed: "permit.malformed",
    algorithm: "permit.algorithm",
    purpose: "permit.purpose",
    key: "permit.key",
    signature: "permit.signature",
};

/// The audience of every permit: whoever places workloads.
pub const AUDIENCE: &str = "hostmark-scheduler";

/// How far a consumer's clock may run behind the verifier's, in milliseconds. It lets a fresh permit begin, and moves no end.
const SKEW_MS: i64 = 5_000;

/// The payload of a permit. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PermitClaims {
    /// Host id.
    pub host: String,
    /// Node name in its scheduler.
    pub node: String,
    /// The pool.
    pub pool: String,
    /// The pool's label.
    pub label: Label,
    /// The admission policy that granted it.
    pub rule: String,
    /// Who may rely on it.
    pub aud: String,
    /// When it was signed.
    pub issued_at: i64,
    /// When it ends.
    pub not_after: i64,
    /// Time left when it was signed.
    pub remaining_ms: u64,
    /// Grows with every decision about this host.
    pub sequence: u64,
}

impl PermitClaims {
    /// Signs the permit.
    ///
    /// # Errors
    /// [`SignError`].
    pub fn sign(&self, signer: &dyn Signer) -> Result<String, SignError> {
        let payload = serde_json::to_vec(self).map_err(|_| SignError { kid: signer.kid().to_owned() })?;
        jws::sign(&PERMIT, &payload, signer)
    }
}

/// A permit whose signature, purpose and audience were checked. Whether it still holds is asked at each use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    claims: PermitClaims,
}

impl Permit {
    /// Verifies a token. `now` is milliseconds since 1970.
    ///
    /// # Errors
    /// The findings that refuse it: `permit.*`.
    pub fn verify(token: &str, keys: &KeySet, now: i64) -> Result<Self, Findings> {
        let payload = jws::verify(&PERMIT, token, keys)?;
        let claims: PermitClaims = serde_json::from_slice(&payload).map_err(|error| {
            Findings::from(
                Finding::error("permit.claims", "the payload is not a complete permit")
                    .found(error)
                    .fix("every claim must be present, `not_after` included; ask the verifier for a permit"),
            )
        })?;
        let mut findings = Findings::new();
        findings.check("permit.audience", claims.aud != AUDIENCE, || {
            Finding::error("", "the permit is meant for someone else").expected(AUDIENCE).found(&claims.aud)
        });
        findings.check("permit.expired", now >= claims.not_after, || {
            Finding::error("", "the permit has ended")
                .expected(format!("not_after later than {now}"))
                .found(claims.not_after)
                .fix("ask again: the host may have attested since")
        });
        findings.check("permit.not-yet", now.saturating_add(SKEW_MS) < claims.issued_at, || {
            Finding::error("", "the permit begins in the future").found(claims.issued_at)
        });
        if findings.acceptable() { Ok(Self { claims }) } else { Err(findings) }
    }

    /// Whether this permit allows a workload of `pool` on `node` at `now` (milliseconds since 1970).
    #[must_use]
    pub fn allows(&self, node: &str, pool: &str, now: i64) -> bool {
        let claims = &self.claims;
        let begun = claims.issued_at <= now.saturating_add(SKEW_MS);
        claims.node == node && claims.pool == pool && begun && now < claims.not_after
    }

    /// What it says.
    #[must_use]
    pub const fn claims(&self) -> &PermitClaims {
        &self.claims
    }
}
