//! Published files: pools, admission policies, appraisal policies, reference bundles.

use rusqlite::{Connection, OptionalExtension as _, params};

use hostmark_attest::check::violated;
use hostmark_attest::finding::Finding;

use super::{Store, Tx};
use crate::clock::Now;
use crate::refusal::{Kind, Outcome, Refusal};
use crate::rules::{StoredFile, StoredRules};

/// A kind of file that is signed and has a monotonic version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignedKind {
    /// An appraisal policy.
    Policy,
    /// A reference bundle.
    References,
}

impl SignedKind {
    const fn table(self) -> &'static str {
        match self {
            Self::Policy => "appraisal_policies",
            Self::References => "reference_bundles",
        }
    }

    const fn action(self) -> &'static str {
        match self {
            Self::Policy => "policy.publish",
            Self::References => "references.publish",
        }
    }

    const fn version_check(self) -> &'static str {
        match self {
            Self::Policy => "policy.version",
            Self::References => "references.version",
        }
    }
}

fn unsigned(sql: &Connection, table: &str) -> rusqlite::Result<Vec<StoredFile>> {
    let mut statement = sql.prepare(&format!("SELECT name, toml FROM {table} ORDER BY name"))?;
    let rows = statement
        .query_map([], |row| Ok(StoredFile { name: row.get(0)?, toml: row.get(1)?, signature: String::new() }))?;
    rows.collect()
}

fn newest(sql: &Connection, kind: SignedKind) -> rusqlite::Result<Vec<StoredFile>> {
    let table = kind.table();
    let mut statement = sql.prepare(&format!(
        "SELECT name, toml, signature FROM {table} AS one WHERE version = (SELECT max(version) FROM {table} WHERE name = one.name) ORDER BY name"
    ))?;
    let rows = statement
        .query_map([], |row| Ok(StoredFile { name: row.get(0)?, toml: row.get(1)?, signature: row.get(2)? }))?;
    rows.collect()
}

impl Tx<'_> {
    fn replace(&self, table: &str, files: &[StoredFile], actor: &str) -> Outcome<()> {
        self.execute(&format!("DELETE FROM {table}"), [])?;
        for file in files {
            self.execute(
                &format!("INSERT INTO {table} (name, toml, changed_unix_ms, changed_by) VALUES (?,?,?,?)"),
                params![file.name, file.toml, self.now().unix_ms, actor],
            )?;
        }
        Ok(())
    }
}

impl Store {
    /// Everything that is published.
    ///
    /// # Errors
    /// 503.
    pub fn rules(&self) -> Outcome<StoredRules> {
        self.read(|sql| {
            Ok(StoredRules {
                pools: unsigned(sql, "pools")?,
                admission: unsigned(sql, "admission_policies")?,
                appraisal: newest(sql, SignedKind::Policy)?,
                references: newest(sql, SignedKind::References)?,
            })
        })
    }

    /// Publishes a signed file. The same file again changes nothing; an older version, or another file under the same version,
    /// is refused.
    ///
    /// # Errors
    /// 409 `policy.version` or `references.version`.
    pub fn publish(
        &self,
        now: &Now,
        actor: &str,
        kind: SignedKind,
        file: &StoredFile,
        version: u64,
        signer: &str,
    ) -> Outcome<()> {
        let table = kind.table();
        self.write(now, |tx| {
            let floor: Option<u64> = tx
                .query_row(
                    "SELECT version FROM version_floors WHERE kind = ? AND name = ?",
                    params![kind.action(), file.name],
                    |row| row.get(0),
                )
                .optional()?;
            let same: bool = tx.query_row(
                &format!("SELECT count(*) FROM {table} WHERE name = ? AND version = ? AND toml = ? AND signature = ?"),
                params![file.name, version, file.toml, file.signature],
                |row| Ok(row.get::<_, i64>(0)? > 0),
            )?;
            if same && floor == Some(version) {
                return Ok(());
            }
            if violated(kind.version_check(), floor.is_some_and(|floor| version <= floor)) {
                let finding = Finding::error(kind.version_check(), "a published file's version only grows")
                    .expected(format!("a version above {}", floor.unwrap_or_default()))
                    .found(version)
                    .fix("raise `version` in the file and sign it again");
                return Err(Refusal::new(Kind::Conflict, finding));
            }
            tx.execute(
                &format!("INSERT OR REPLACE INTO {table} (name, version, toml, signature, published_unix_ms, published_by) VALUES (?,?,?,?,?,?)"),
                params![file.name, version, file.toml, file.signature, now.unix_ms, actor],
            )?;
            tx.execute(
                "INSERT OR REPLACE INTO version_floors (kind, name, version) VALUES (?,?,?)",
                params![kind.action(), file.name, version],
            )?;
            let digest = hex::encode(hostmark_attest::digest::sha256(&[file.toml.as_bytes()]));
            let detail = serde_json::json!({ "version": version, "sha256": digest, "signer": signer });
            tx.audit(actor, kind.action(), &file.name, &detail)
        })
    }

    /// Replaces all pools and admission policies at once.
    ///
    /// # Errors
    /// 503.
    pub fn apply_pools(&self, now: &Now, actor: &str, rules: &StoredRules) -> Outcome<()> {
        self.write(now, |tx| {
            tx.replace("pools", &rules.pools, actor)?;
            tx.replace("admission_policies", &rules.admission, actor)?;
            let digests = |files: &[StoredFile]| -> serde_json::Value {
                let one = |file: &StoredFile| {
                    (file.name.clone(), hex::encode(hostmark_attest::digest::sha256(&[file.toml.as_bytes()])).into())
                };
                serde_json::Value::Object(files.iter().map(one).collect())
            };
            let detail = serde_json::json!({ "pools": digests(&rules.pools), "admission": digests(&rules.admission) });
            tx.audit(actor, "pools.apply", "pools", &detail)
        })
    }
}
