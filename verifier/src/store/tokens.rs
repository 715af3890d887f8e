//! Join tokens and pre-registered TPMs: approvals given before a host asks.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use hostmark_attest::check::violated;
use hostmark_attest::finding::Finding;
use hostmark_attest::label::Label;

use super::{Assignment, Store, Tx};
use crate::clock::Now;
use crate::refusal::{Kind, Outcome, Refusal};

/// A join token to record. The token itself is not in here.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Its id.
    pub id: String,
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// The one TPM that may use it.
    pub ek_id: Option<String>,
    /// The least TPM class that may use it, where it is not bound to one TPM.
    pub min_class: Option<String>,
    /// End, milliseconds since 1970.
    pub expires_unix_ms: i64,
    /// What the host becomes.
    pub assignment: Assignment,
}

/// A recorded join token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// Its id.
    pub id: String,
    /// The one TPM that may use it.
    pub ek_id: Option<String>,
    /// The least TPM class that may use it.
    pub min_class: Option<String>,
    /// End, milliseconds since 1970.
    pub expires_unix_ms: i64,
    /// What the host becomes.
    pub assignment: Assignment,
    /// Who made it.
    pub created_by: String,
    /// Whether it was revoked.
    pub revoked: bool,
    /// The host that used it.
    pub used_by: Option<String>,
}

/// A TPM that is approved before it asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preregistration {
    /// SHA-256 of the EK's SubjectPublicKeyInfo, hex.
    pub ek_id: String,
    /// What the host becomes.
    pub assignment: Assignment,
}

/// Parses a stored label; a row that does not parse is refused alone (D22).
pub(super) fn label(text: &str) -> rusqlite::Result<Label> {
    text.parse().map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(
            0,
            rusqlite::types::Type::Text,
            Box::<hostmark_attest::label::LabelError>::new(error),
        )
    })
}

fn token(row: &Row<'_>) -> rusqlite::Result<TokenRow> {
    Ok(TokenRow {
        id: row.get(0)?,
        ek_id: row.get(1)?,
        min_class: row.get(2)?,
        expires_unix_ms: row.get(3)?,
        assignment: Assignment {
            node: row.get(4)?,
            scheduler: row.get(5)?,
            label: label(&row.get::<_, String>(6)?)?,
            policy: row.get(7)?,
        },
        created_by: row.get(8)?,
        revoked: row.get(9)?,
        used_by: row.get(10)?,
    })
}

const TOKEN_COLUMNS: &str = "SELECT id, ek_id, min_class, expires_unix_ms, node, scheduler, label, policy, created_by, revoked_unix_ms IS NOT NULL, used_by FROM tokens";

/// What is known about the token with this hash.
pub(super) fn token_by_hash(sql: &Connection, hash: &[u8; 32]) -> Outcome<Option<TokenRow>> {
    Ok(sql.query_row(&format!("{TOKEN_COLUMNS} WHERE hash = ?"), [hash], token).optional()?)
}

impl Tx<'_> {
    /// Uses a join token up for `host`. Single use: of many at once, one wins (A11).
    ///
    /// `rank` orders TPM classes, best last; `class` is the class of the TPM that asks.
    ///
    /// # Errors
    /// 422 `token.unknown`, `token.revoked`, `token.used`, `token.expired`, `token.other-tpm`, `token.class`.
    pub fn consume_token(
        &self,
        hash: &[u8; 32],
        host: &str,
        ek_id: &str,
        class: &str,
        rank: impl Fn(&str) -> Option<usize>,
    ) -> Outcome<TokenRow> {
        let refuse =
            |finding: Finding| Err(Refusal::new(Kind::Refused, finding.fix("ask the operator for a new token")));
        let Some(token) = token_by_hash(self, hash)? else {
            return refuse(Finding::error("token.unknown", "the verifier did not make this join token"));
        };
        if violated("token.revoked", token.revoked) {
            return refuse(Finding::error("token.revoked", "this join token was revoked"));
        }
        if violated("token.used", token.used_by.is_some()) {
            return refuse(Finding::error("token.used", "this join token was used before"));
        }
        if violated("token.expired", token.expires_unix_ms <= self.now().unix_ms) {
            return refuse(Finding::error("token.expired", "this join token has expired"));
        }
        if violated("token.other-tpm", token.ek_id.as_deref().is_some_and(|bound| bound != ek_id)) {
            return refuse(Finding::error("token.other-tpm", "this join token is bound to another TPM").found(ek_id));
        }
        let least = token.min_class.as_deref();
        let low = least.is_some_and(|least| match (rank(class), rank(least)) {
            (Some(have), Some(need)) => have < need,
            _ => true,
        });
        if violated("token.class", low) {
            let finding = Finding::error("token.class", "this join token asks for a better TPM class");
            return refuse(finding.expected(least.unwrap_or_default()).found(class));
        }
        self.execute(
            "UPDATE tokens SET used_unix_ms = ?, used_by = ? WHERE id = ?",
            params![self.now().unix_ms, host, token.id],
        )?;
        Ok(token)
    }
}

impl Store {
    /// Records a join token.
    ///
    /// # Errors
    /// 503.
    pub fn create_token(&self, now: &Now, actor: &str, new: &NewToken) -> Outcome<()> {
        self.write(now, |tx| {
            let to = &new.assignment;
            tx.execute(
                "INSERT INTO tokens (id, hash, ek_id, min_class, expires_unix_ms, node, scheduler, label, policy, created_unix_ms, created_by) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
                params![new.id, new.hash, new.ek_id, new.min_class, new.expires_unix_ms, to.node, to.scheduler, to.label.to_string(), to.policy, now.unix_ms, actor],
            )?;
            let detail = serde_json::json!({ "node": to.node, "scheduler": to.scheduler, "label": to.label, "ek_id": new.ek_id, "min_class": new.min_class });
            tx.audit(actor, "token.create", &new.id, &detail)
        })
    }

    /// Revokes an unused join token.
    ///
    /// # Errors
    /// 404; 409 `token.used`.
    pub fn revoke_token(&self, now: &Now, actor: &str, id: &str) -> Outcome<()> {
        self.write(now, |tx| {
            let used: Option<bool> = tx
                .query_row("SELECT used_unix_ms IS NOT NULL FROM tokens WHERE id = ?", [id], |row| row.get(0))
                .optional()?;
            match used {
                None => return Err(Refusal::not_found("token")),
                Some(true) => {
                    return Err(Refusal::conflict("token.used", "this join token was used; retire its host instead"));
                }
                Some(false) => {}
            }
            tx.execute(
                "UPDATE tokens SET revoked_unix_ms = ? WHERE id = ? AND revoked_unix_ms IS NULL",
                params![now.unix_ms, id],
            )?;
            tx.audit(actor, "token.revoke", id, &serde_json::json!({}))
        })
    }

    /// All join tokens, newest first.
    ///
    /// # Errors
    /// 503.
    pub fn tokens(&self) -> Outcome<Vec<TokenRow>> {
        self.read(|sql| {
            let mut statement =
                sql.prepare(&format!("{TOKEN_COLUMNS} ORDER BY created_unix_ms DESC, id LIMIT 10000"))?;
            Ok(statement.query_map([], token)?.collect::<Result<_, _>>()?)
        })
    }

    /// Pre-registers TPMs in bulk: all of them or none.
    ///
    /// # Errors
    /// 409 `preregistration.exists` or `preregistration.node-taken`, naming the row.
    pub fn preregister(&self, now: &Now, actor: &str, list: &[Preregistration]) -> Outcome<()> {
        self.write(now, |tx| {
            for (position, one) in list.iter().enumerate() {
                let to = &one.assignment;
                let taken: Option<String> = tx
                    .query_row(
                        "SELECT ek_id FROM preregistrations WHERE ek_id = ?1 OR (scheduler = ?2 AND node = ?3)",
                        params![one.ek_id, to.scheduler, to.node],
                        |row| row.get(0),
                    )
                    .optional()?;
                if let Some(by) = taken {
                    let id = if by == one.ek_id { "preregistration.exists" } else { "preregistration.node-taken" };
                    let finding = Finding::error(id, format!("row {position}: this TPM or node is pre-registered already; nothing was imported"));
                    return Err(Refusal::new(Kind::Conflict, finding.found(format!("{} in {}", to.node, to.scheduler))));
                }
                tx.execute(
                    "INSERT INTO preregistrations (ek_id, node, scheduler, label, policy, created_unix_ms, created_by) VALUES (?,?,?,?,?,?,?)",
                    params![one.ek_id, to.node, to.scheduler, to.label.to_string(), to.policy, now.unix_ms, actor],
                )?;
                let detail = serde_json::json!({ "node": to.node, "scheduler": to.scheduler, "label": to.label, "policy": to.policy });
                tx.audit(actor, "preregistration.add", &one.ek_id, &detail)?;
            }
            Ok(())
        })
    }

    /// Removes a pre-registration.
    ///
    /// # Errors
    /// 404.
    pub fn remove_preregistration(&self, now: &Now, actor: &str, ek_id: &str) -> Outcome<()> {
        self.write(now, |tx| {
            if tx.execute("DELETE FROM preregistrations WHERE ek_id = ?", [ek_id])? == 0 {
                return Err(Refusal::not_found("preregistration"));
            }
            tx.audit(actor, "preregistration.remove", ek_id, &serde_json::json!({}))
        })
    }

    /// All pre-registrations, by scheduler and node.
    ///
    /// # Errors
    /// 503.
    pub fn preregistrations(&self) -> Outcome<Vec<Preregistration>> {
        self.read(|sql| {
            let mut statement =
                sql.prepare("SELECT ek_id, node, scheduler, label, policy FROM preregistrations ORDER BY scheduler, node LIMIT 100000")?;
            Ok(statement.query_map([], preregistration)?.collect::<Result<_, _>>()?)
        })
    }
}

/// The pre-registration of a TPM.
pub(super) fn preregistration_of(sql: &Connection, ek_id: &str) -> Outcome<Option<Preregistration>> {
    let mut statement =
        sql.prepare_cached("SELECT ek_id, node, scheduler, label, policy FROM preregistrations WHERE ek_id = ?")?;
    Ok(statement.query_row([ek_id], preregistration).optional()?)
}

fn preregistration(row: &Row<'_>) -> rusqlite::Result<Preregistration> {
    let assignment = Assignment {
        node: row.get(1)?,
        scheduler: row.get(2)?,
        label: label(&row.get::<_, String>(3)?)?,
        policy: row.get(4)?,
    };
    Ok(Preregistration { ek_id: row.get(0)?, assignment })
}
