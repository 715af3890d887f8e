//! Who is calling, and what they may do.
//!
//! The certificate was verified against our CA at the handshake (`tls`). That proves a key and a subject, once. On **every request** the
//! serial is looked up in the store: revoked or expired since the handshake means 401, a role that the route does not list means 403.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};

use hostmark_attest::check::violated;
use hostmark_attest::finding::Finding;

use crate::clock::Now;
use crate::refusal::{Kind, Outcome, Refusal};
use crate::store::CertificateRow;

/// What a caller may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Role {
    /// Reads hosts, pools and metrics.
    Viewer,
    /// Asks for placements and permits.
    Scheduler,
    /// Pre-registers hosts and makes join tokens.
    Provisioner,
    /// Approves hosts, labels, pools and policies.
    Approver,
    /// Reads everything and the audit chain.
    Auditor,
    /// May do all that people do.
    Admin,
    /// A host; its common name is the host id.
    Host,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 7] =
        [Self::Viewer, Self::Scheduler, Self::Provisioner, Self::Approver, Self::Auditor, Self::Admin, Self::Host];

    /// Its name in certificates, the store and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Scheduler => "scheduler",
            Self::Provisioner => "provisioner",
            Self::Approver => "approver",
            Self::Auditor => "auditor",
            Self::Admin => "admin",
            Self::Host => "host",
        }
    }

    /// By name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody who reaches the port.
    Public,
    /// These roles.
    Roles(&'static [Role]),
}

/// The client certificate of a connection, as the handshake verified it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Serial number in hex.
    pub serial: String,
    /// O of the subject.
    pub organization: String,
    /// CN of the subject.
    pub common_name: String,
    /// SHA-256 of the certificate's DER.
    pub fingerprint: [u8; 32],
}

impl Peer {
    /// Reads a certificate.
    #[must_use]
    pub fn from_der(der: &[u8]) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        let subject = certificate.subject();
        Some(Self {
            serial: hex::encode(certificate.raw_serial()),
            organization: subject.iter_organization().next()?.as_str().ok()?.to_owned(),
            common_name: subject.iter_common_name().next()?.as_str().ok()?.to_owned(),
            fingerprint: hostmark_attest::digest::sha256(&[der]),
        })
    }
}

/// An authenticated, authorised caller. Only [`authorise`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    role: Role,
    name: String,
    serial: String,
}

impl Caller {
    /// The role.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// The operator's name or the host's id.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The certificate's serial.
    #[must_use]
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// As the audit chain names it.
    #[must_use]
    pub fn actor(&self) -> String {
        format!("{}:{}", if self.role == Role::Host { "host" } else { "operator" }, self.name)
    }

    /// The host id, for routes that only a host may use.
    ///
    /// # Errors
    /// 403 for anybody else.
    pub fn host(&self) -> Outcome<&str> {
        if self.role == Role::Host { Ok(&self.name) } else { Err(forbidden(self.role)) }
    }

    /// Requires that a host speaks for itself (D2). Operators pass.
    ///
    /// # Errors
    /// 403.
    pub fn about(&self, host: &str) -> Outcome<()> {
        if violated("auth.other-host", self.role == Role::Host && self.name != host) {
            return Err(Refusal::new(
                Kind::Forbidden,
                Finding::error("auth.other-host", "a host's certificate speaks for that host only")
                    .expected(&self.name)
                    .found(host),
            ));
        }
        Ok(())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Refusal> {
        parts.extensions.get::<Self>().cloned().ok_or_else(unauthenticated)
    }
}

fn unauthenticated() -> Refusal {
    Refusal::new(
        Kind::Unauthenticated,
        Finding::error("auth.no-certificate", "this route needs a client certificate")
            .fix("present a certificate that this verifier issued"),
    )
}

fn forbidden(role: Role) -> Refusal {
    Refusal::new(
        Kind::Forbidden,
        Finding::error("auth.role", "this role may not do that")
            .found(role.name())
            .fix("ask an operator whose role allows it"),
    )
}

/// Decides whether the peer may use a route now. `row` is what the store says about the peer's serial at this moment.
///
/// # Errors
/// 401: no certificate, unknown to the store, revoked, expired. 403: wrong role.
pub fn authorise(
    access: Access,
    peer: Option<&Peer>,
    row: Option<CertificateRow>,
    now: &Now,
) -> Outcome<Option<Caller>> {
    let Access::Roles(roles) = access else { return Ok(None) };
    let peer = peer.ok_or_else(unauthenticated)?;
    let refuse = |id, message: &str| Err(Refusal::new(Kind::Unauthenticated, Finding::error(id, message)));
    let Some(row) = row else {
        return refuse("auth.unknown-certificate", "this certificate is not in the verifier's records");
    };
    let same = row.fingerprint == peer.fingerprint
        && peer.organization == format!("hostmark:{}", row.role.name())
        && peer.common_name == row.subject;
    if violated("auth.certificate-mismatch", !same) {
        return refuse(
            "auth.certificate-mismatch",
            "this certificate is not the one that the verifier recorded under its serial",
        );
    }
    if violated("auth.revoked", row.revoked) {
        return refuse("auth.revoked", "this certificate was revoked");
    }
    if violated("auth.expired", row.not_after_unix_ms <= now.unix_ms) {
        return refuse("auth.expired", "this certificate has expired");
    }
    if violated("auth.role", !roles.contains(&row.role)) {
        return Err(forbidden(row.role));
    }
    Ok(Some(Caller { role: row.role, name: row.subject, serial: peer.serial.clone() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut Peer, &mut CertificateRow);

    #[test]
    fn d1_a_certificate_counts_only_as_it_was_recorded() {
        let now = Now { boot_id: "b".into(), boot_ms: 0, unix_ms: 1000 };
        let rows: [(&str, Change, Result<(), &str>); 8] = [
            ("honest", |_, _| {}, Ok(())),
            (
                "another certificate of the same serial",
                |peer, _| peer.fingerprint = [1; 32],
                Err("auth.certificate-mismatch"),
            ),
            ("its row says another role", |_, row| row.role = Role::Admin, Err("auth.certificate-mismatch")),
            ("its row says another name", |_, row| row.subject = "bob".into(), Err("auth.certificate-mismatch")),
            ("revoked", |_, row| row.revoked = true, Err("auth.revoked")),
            ("ends now", |_, row| row.not_after_unix_ms = 1000, Err("auth.expired")),
            ("ends later", |_, row| row.not_after_unix_ms = 1001, Ok(())),
            (
                "another role, rightly",
                |peer, row| {
                    row.role = Role::Scheduler;
                    peer.organization = "hostmark:scheduler".into();
                },
                Err("auth.role"),
            ),
        ];
        for (name, change, expect) in rows {
            let mut peer = Peer {
                serial: "01".into(),
                organization: "hostmark:viewer".into(),
                common_name: "ann".into(),
                fingerprint: [0; 32],
            };
            let mut row = CertificateRow {
                role: Role::Viewer,
                subject: "ann".into(),
                fingerprint: [0; 32],
                not_after_unix_ms: 2000,
                revoked: false,
            };
            change(&mut peer, &mut row);
            let outcome = authorise(Access::Roles(&[Role::Viewer]), Some(&peer), Some(row), &now);
            assert_eq!(outcome.as_ref().map(|_| ()).map_err(Refusal::id), expect, "{name}");
        }
    }
}
