//! Certificates that this verifier issued, and operators.

use rusqlite::{OptionalExtension as _, params};

use hostmark_attest::check::violated;
use hostmark_attest::finding::Finding;

use super::{Store, Tx};
use crate::auth::Role;
use crate::ca::Issued;
use crate::clock::Now;
use crate::refusal::{Kind, Outcome, Refusal};

/// What the store knows about a certificate at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRow {
    /// Role at issue.
    pub role: Role,
    /// Operator's name or host id.
    pub subject: String,
    /// SHA-256 of the DER.
    pub fingerprint: [u8; 32],
    /// End, milliseconds since 1970.
    pub not_after_unix_ms: i64,
    /// Revoked, or its owner was removed.
    pub revoked: bool,
}

/// An operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorRow {
    /// Unique name.
    pub name: String,
    /// Role.
    pub role: Role,
    /// When added, milliseconds since 1970.
    pub added_unix_ms: i64,
    /// By whom.
    pub added_by: String,
}

fn malformed(what: &str) -> Refusal {
    Refusal::internal(format!("a stored {what} is malformed"))
}

impl Tx<'_> {
    /// Records a certificate. It counts for nothing before that.
    ///
    /// # Errors
    /// 503.
    pub fn record_certificate(&self, issued: &Issued) -> Outcome<()> {
        self.execute(
            "INSERT INTO certificates (serial, role, subject, fingerprint, not_after_unix_ms, issued_unix_ms) VALUES (?,?,?,?,?,?)",
            params![
                issued.serial,
                issued.role.name(),
                issued.subject,
                hostmark_attest::digest::sha256(&[&issued.der]),
                issued.not_after_unix_ms,
                self.now().unix_ms
            ],
        )?;
        Ok(())
    }

    /// Revokes every certificate of a subject. Returns how many still counted.
    ///
    /// # Errors
    /// 503.
    pub fn revoke_certificates(&self, role_is_host: bool, subject: &str) -> Outcome<usize> {
        let sql = if role_is_host {
            "UPDATE certificates SET revoked_unix_ms = ?1 WHERE subject = ?2 AND role = 'host' AND revoked_unix_ms IS NULL"
        } else {
            "UPDATE certificates SET revoked_unix_ms = ?1 WHERE subject = ?2 AND role <> 'host' AND revoked_unix_ms IS NULL"
        };
        Ok(self.execute(sql, params![self.now().unix_ms, subject])?)
    }
}

impl Store {
    /// What is known about a serial, now.
    ///
    /// # Errors
    /// 503; 500 for a malformed row.
    pub fn certificate(&self, serial: &str) -> Outcome<Option<CertificateRow>> {
        self.read(|sql| {
            let mut statement = sql.prepare_cached(
                "SELECT role, subject, fingerprint, not_after_unix_ms, revoked_unix_ms IS NOT NULL FROM certificates WHERE serial = ?",
            )?;
            let row = statement
                .query_row([serial], |row| {
                    Ok((row.get::<_, String>(0)?, row.get(1)?, row.get::<_, Vec<u8>>(2)?, row.get(3)?, row.get(4)?))
                })
                .optional()?;
            let Some((role, subject, fingerprint, not_after_unix_ms, revoked)) = row else { return Ok(None) };
            let role = Role::from_name(&role).ok_or_else(|| malformed("certificate"))?;
            let fingerprint = fingerprint.try_into().map_err(|_| malformed("certificate"))?;
            Ok(Some(CertificateRow { role, subject, fingerprint, not_after_unix_ms, revoked }))
        })
    }

    /// Adds an operator with a first certificate.
    ///
    /// # Errors
    /// 409 `operator.exists`.
    pub fn add_operator(&self, now: &Now, actor: &str, issued: &Issued) -> Outcome<()> {
        self.write(now, |tx| {
            let known: Option<i64> = tx
                .query_row(
                    "SELECT 1 FROM operators WHERE name = ? AND removed_unix_ms IS NULL",
                    [&issued.subject],
                    |row| row.get(0),
                )
                .optional()?;
            if violated("operator.exists", known.is_some()) {
                return Err(Refusal::conflict(
                    "operator.exists",
                    format!("operator `{}` exists already", issued.subject),
                ));
            }
            tx.execute(
                "INSERT OR REPLACE INTO operators (name, role, added_unix_ms, added_by) VALUES (?,?,?,?)",
                params![issued.subject, issued.role.name(), now.unix_ms, actor],
            )?;
            tx.record_certificate(issued)?;
            let detail = serde_json::json!({ "role": issued.role, "serial": issued.serial });
            tx.audit(actor, "operator.add", &issued.subject, &detail)
        })
    }

    /// Removes an operator: all certificates are revoked at once. The last admin stays.
    ///
    /// # Errors
    /// 404; 409 `operator.last-admin`.
    pub fn remove_operator(&self, now: &Now, actor: &str, name: &str) -> Outcome<()> {
        self.write(now, |tx| {
            let role: Option<String> = tx
                .query_row("SELECT role FROM operators WHERE name = ? AND removed_unix_ms IS NULL", [name], |row| {
                    row.get(0)
                })
                .optional()?;
            let role = role.ok_or_else(|| Refusal::not_found("operator"))?;
            let admins: i64 = tx.query_row(
                "SELECT count(*) FROM operators WHERE role = 'admin' AND removed_unix_ms IS NULL",
                [],
                |row| row.get(0),
            )?;
            if violated("operator.last-admin", role == "admin" && admins <= 1) {
                let finding = Finding::error("operator.last-admin", "the last admin cannot be removed")
                    .fix("add another admin first");
                return Err(Refusal::new(Kind::Conflict, finding));
            }
            tx.execute("UPDATE operators SET removed_unix_ms = ? WHERE name = ?", params![now.unix_ms, name])?;
            let revoked = tx.revoke_certificates(false, name)?;
            tx.audit(
                actor,
                "operator.remove",
                name,
                &serde_json::json!({ "role": role, "certificates_revoked": revoked }),
            )
        })
    }

    /// All present operators, by name.
    ///
    /// # Errors
    /// 503.
    pub fn operators(&self) -> Outcome<Vec<OperatorRow>> {
        self.read(|sql| {
            let mut statement = sql.prepare_cached(
                "SELECT name, role, added_unix_ms, added_by FROM operators WHERE removed_unix_ms IS NULL ORDER BY name",
            )?;
            let rows = statement
                .query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?, row.get(3)?)))?
                .collect::<Result<Vec<_>, _>>()?;
            rows.into_iter()
                .map(|(name, role, added_unix_ms, added_by)| {
                    let role = Role::from_name(&role).ok_or_else(|| malformed("operator"))?;
                    Ok(OperatorRow { name, role, added_unix_ms, added_by })
                })
                .collect()
        })
    }
}
