//! The audit chain in the store: appended inside the change's transaction, its signed head written after the commit.

use hostmark_attest::finding::Finding;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::{Store, Tx, lock};
use crate::audit::{GENESIS, Head, Record, Walk, sign_head, verify_head};
use crate::files::write_atomic;
use crate::refusal::{Outcome, Refusal};

/// Where the signed head stands inside the database, for recovery after a crash between commit and file.
const HEAD_ROW: &str = "audit_head";
/// Most records that one answer carries.
pub(crate) const PAGE_MAX: u32 = 1000;

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record {
        seq: row.get(0)?,
        unix_ms: row.get(1)?,
        actor: row.get(2)?,
        action: row.get(3)?,
        subject: row.get(4)?,
        detail: row.get(5)?,
        prev: hex::encode(row.get::<_, Vec<u8>>(6)?),
        hash: hex::encode(row.get::<_, Vec<u8>>(7)?),
    })
}

fn tail(sql: &Connection) -> rusqlite::Result<(u64, [u8; 32])> {
    let last = sql
        .query_row("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(last.unwrap_or((0, GENESIS)))
}

impl Tx<'_> {
    /// Appends a record of this change to the chain.
    ///
    /// # Errors
    /// 503 when the store refuses.
    pub fn audit(&self, actor: &str, action: &str, subject: &str, detail: &serde_json::Value) -> Outcome<()> {
        let (seq, prev) = tail(self)?;
        let entry = Record::chained(
            seq.saturating_add(1),
            self.now.unix_ms,
            actor,
            action,
            subject,
            &detail.to_string(),
            &prev,
        );
        let hash = hex::decode(&entry.hash).map_err(Refusal::internal)?;
        self.execute(
            "INSERT INTO audit (seq, unix_ms, actor, action, subject, detail, prev, hash) VALUES (?,?,?,?,?,?,?,?)",
            params![entry.seq, entry.unix_ms, entry.actor, entry.action, entry.subject, entry.detail, prev, hash],
        )?;
        self.audited.set(true);
        Ok(())
    }
}

impl Store {
    /// Commits a change that was audited, then writes the new head. A head that cannot be written (full disk) is written with the next change.
    pub(super) fn commit_with_head(&self, tx: Tx<'_>) -> Outcome<()> {
        let (seq, hash) = tail(&tx)?;
        let head = sign_head(&self.keys.audit, seq, &hash, tx.now.unix_ms).map_err(Refusal::internal)?;
        tx.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", params![HEAD_ROW, head])?;
        // Held from before the commit until the file is there: heads of two processes never overtake each other.
        self.head_lock.lock().map_err(Refusal::internal)?;
        let committed = tx.sql.commit();
        if committed.is_ok()
            && let Err(error) = write_atomic(&self.head_path, 0o600, head.as_bytes())
        {
            tracing::error!(%error, path = %self.head_path.display(), "the signed audit head could not be written");
        }
        let _ = self.head_lock.unlock();
        Ok(committed?)
    }

    /// At open: the chain must be whole and reach the signed head in the file. A chain that is ahead of the file (a crash after the commit) is
    /// accepted only when the head inside the database is validly signed and names its end.
    pub(super) fn check_chain(&self) -> rusqlite::Result<()> {
        // No process commits a change with its head while this is held: chain, head inside and head file are of one moment.
        let locked = self.head_lock.lock();
        let outcome = self.check_chain_locked();
        if locked.is_ok() {
            let _ = self.head_lock.unlock();
        }
        outcome
    }

    fn check_chain_locked(&self) -> rusqlite::Result<()> {
        let writer = lock(&self.writer);
        let keys = self.keys.audit_set();
        let inside: Option<String> =
            writer.query_row("SELECT value FROM meta WHERE key = ?", [HEAD_ROW], |row| row.get(0)).optional()?;
        let file = std::fs::read_to_string(&self.head_path).ok();
        let verified = |jws: &Option<String>| jws.as_deref().and_then(|jws| verify_head(jws, &keys).ok());
        let (file_head, inside_head) = (verified(&file), verified(&inside));
        let broken = if file.is_some() && file_head.is_none() {
            Some(Finding::error("audit.head", "the audit head file is not signed by this verifier's audit key"))
        } else if inside.is_some() && file.is_none() && inside_head.as_ref().is_some_and(|head| head.seq > 1) {
            Some(
                Finding::error("audit.head", "the audit head file is missing")
                    .fix("restore audit-head.jws from a copy"),
            )
        } else {
            Self::walk(&writer, file_head, inside_head)?
        };
        drop(writer);
        if let Some(finding) = broken {
            tracing::error!(finding = %finding, "the store is read-only");
            let _ = self.read_only.set(finding);
        } else if inside != file
            && let Some(head) = inside
            && let Err(error) = write_atomic(&self.head_path, 0o600, head.as_bytes())
        {
            tracing::error!(%error, "the signed audit head could not be written");
        }
        Ok(())
    }

    fn walk(sql: &Connection, file: Option<Head>, inside: Option<Head>) -> rusqlite::Result<Option<Finding>> {
        let mut walk = Walk::new(file);
        let mut statement =
            sql.prepare("SELECT seq, unix_ms, actor, action, subject, detail, prev, hash FROM audit ORDER BY seq")?;
        for entry in statement.query_map([], record)? {
            if let Err(finding) = walk.step(&entry?) {
                return Ok(Some(*finding));
            }
        }
        Ok(match walk.finish() {
            Err(finding) => Some(*finding),
            Ok((0, _)) => None,
            Ok((seq, hash)) => match inside {
                Some(head) if head.seq == seq && head.hash == hex::encode(hash) => None,
                _ => Some(Finding::error(
                    "audit.head",
                    format!("audit record {seq}: no signed head names it as the end of the chain"),
                )),
            },
        })
    }

    /// Records from `since` (a position, from 1) on, in order; at most `limit`.
    ///
    /// # Errors
    /// 503.
    pub fn audit_records(&self, since: u64, limit: u32) -> Outcome<Vec<Record>> {
        self.read(|sql| {
            let mut statement = sql.prepare_cached(
                "SELECT seq, unix_ms, actor, action, subject, detail, prev, hash FROM audit WHERE seq >= ? ORDER BY seq LIMIT ?",
            )?;
            let rows = statement.query_map(params![since, limit.min(PAGE_MAX)], record)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// The signed head, as it stands in the database.
    ///
    /// # Errors
    /// 503.
    pub fn audit_head(&self) -> Outcome<Option<String>> {
        self.read(|sql| {
            Ok(sql.query_row("SELECT value FROM meta WHERE key = ?", [HEAD_ROW], |row| row.get(0)).optional()?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{at, store};
    use super::*;
    use std::sync::Arc;

    #[test]
    fn d16_a_store_whose_chain_and_head_disagree_is_read_only() {
        type Attack = fn(&Connection, &std::path::Path);
        let rows: [(&str, Attack, Option<&str>); 6] = [
            ("honest", |_, _| {}, None),
            (
                "crash before the head file",
                |_, dir| std::fs::write(dir.join("audit-head.jws"), std::fs::read(dir.join("older")).unwrap()).unwrap(),
                None,
            ),
            (
                "edited",
                |sql, _| {
                    sql.execute("UPDATE audit SET actor = 'x' WHERE seq = 2", []).unwrap();
                },
                Some("audit.chain"),
            ),
            (
                "cut",
                |sql, _| {
                    sql.execute("DELETE FROM audit WHERE seq = 3", []).unwrap();
                },
                Some("audit.head"),
            ),
            (
                "head file removed",
                |_, dir| std::fs::remove_file(dir.join("audit-head.jws")).unwrap(),
                Some("audit.head"),
            ),
            (
                "appended by hand",
                |sql, _| {
                    let (seq, prev) = tail(sql).unwrap();
                    let r = Record::chained(seq + 1, 0, "x", "y", "z", "{}", &prev);
                    sql.execute(
                        "INSERT INTO audit VALUES (?,?,?,?,?,?,?,?)",
                        params![
                            r.seq,
                            r.unix_ms,
                            r.actor,
                            r.action,
                            r.subject,
                            r.detail,
                            prev,
                            hex::decode(&r.hash).unwrap()
                        ],
                    )
                    .unwrap();
                },
                Some("audit.head"),
            ),
        ];
        for (name, attack, expect) in rows {
            let (dir, store) = store();
            let state = dir.path().join("state");
            let path = state.join("store.sqlite");
            for n in 0..3 {
                store.write(&at(n), |tx| tx.audit("verifier", "test", "s", &serde_json::json!({ "n": n }))).unwrap();
                if n == 1 {
                    std::fs::copy(state.join("audit-head.jws"), state.join("older")).unwrap();
                }
            }
            let keys = Arc::clone(store.keys());
            drop(store);
            attack(&Connection::open(&path).unwrap(), &state);
            let store = Store::open(&path, keys).unwrap();
            assert_eq!(store.read_only().map(|finding| finding.id.as_str()), expect, "{name}");
            let wrote = store.write(&at(9), |tx| tx.audit("verifier", "test", "s", &serde_json::json!({})));
            assert_eq!(wrote.is_ok(), expect.is_none(), "{name}");
        }
    }
}
