//! Rounds: what the verifier kept of a host, and the one transaction that uses a nonce up and renews what was proven.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension as _, params};

use hostmark_attest::check::violated;
use hostmark_attest::copied_tpm::CLONE_SUSPECTED;
use hostmark_attest::finding::Finding;
use hostmark_attest::wire::Nonce;

use super::{Purpose, Store};
use crate::clock::Now;
use crate::refusal::{Outcome, Refusal};

/// What a round came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoundRecord {
    /// The host.
    pub host: String,
    /// The host's generation that was judged: a change meanwhile makes the round count for nothing.
    pub generation: u64,
    /// The nonce.
    pub nonce: Nonce,
    /// Whether the evidence disproves the host.
    pub disproven: bool,
    /// The signed Attestation Result; none for evidence that is not genuine.
    pub result: Option<String>,
    /// What disproves the host. Kept beside the result only where there is none.
    pub findings: Vec<Finding>,
    /// What was kept of the host when the round was judged, sealed.
    pub kept: Option<Vec<u8>>,
    /// The sealed state for the next round; None keeps what was there.
    pub sealed: Option<Vec<u8>>,
    /// Name of the AK, for the state.
    pub ak_name: Vec<u8>,
    /// The appraisal policy and its version.
    pub policy: (String, u64),
    /// The serial of the tag that was proven.
    pub tag_serial: Option<u64>,
}

impl RoundRecord {
    /// Whether this round is the one that shows two states of the host's TPM: later ones only repeat it.
    #[must_use]
    pub fn suspects_a_clone(&self) -> bool {
        self.sealed.is_some() && self.findings.iter().any(|one| one.id == CLONE_SUSPECTED)
    }
}

/// The last completed round of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredResult {
    /// Whether the evidence disproved the host.
    pub disproven: bool,
    /// The signed Attestation Result.
    pub result: Option<String>,
    /// Findings of evidence that was not genuine.
    pub findings: Vec<Finding>,
    /// Boot id under which the next field counts.
    pub boot_id: String,
    /// CLOCK_BOOTTIME at the nonce's issue: the lease counts from here.
    pub issued_boot_ms: i64,
    /// Wall clock at the nonce's issue.
    pub issued_unix_ms: i64,
    /// Grows with each round.
    pub sequence: u64,
}

/// A nonce that a host says it was given: when it was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NonceIssue {
    /// Wall clock at issue, milliseconds since 1970.
    pub issued_unix_ms: i64,
    /// What the challenge asked for, as given to [`Store::issue_nonce`].
    pub detail: String,
}

/// Changes since a known point, for caches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// The newest change.
    pub newest: i64,
    /// Hosts that changed.
    pub hosts: Vec<String>,
    /// The newest change of what is published.
    pub rules: i64,
}

impl StoredResult {
    /// What the seal of a result covers: whose round it was, what it came to (the word in the row), and from when its lease counts.
    #[must_use]
    pub fn seal_message(&self, host: &str, state: &str) -> Vec<u8> {
        let parts: [&[u8]; 7] = [
            host.as_bytes(),
            state.as_bytes(),
            self.result.as_deref().unwrap_or_default().as_bytes(),
            self.boot_id.as_bytes(),
            &self.issued_boot_ms.to_be_bytes(),
            &self.issued_unix_ms.to_be_bytes(),
            &self.sequence.to_be_bytes(),
        ];
        let mut message = b"result".to_vec();
        for part in parts {
            message.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            message.extend_from_slice(part);
        }
        message
    }
}

/// A host's row of results as it stands: the word of its state, what it holds, and its seal, which nobody has verified yet.
fn row(sql: &rusqlite::Connection, host: &str) -> Outcome<Option<(String, StoredResult, Vec<u8>)>> {
    let mut statement = sql.prepare_cached(
        "SELECT state, result, findings, boot_id, issued_boot_ms, issued_unix_ms, sequence, seal FROM results WHERE host = ?",
    )?;
    let found = statement
        .query_row([host], |row| {
            let state: String = row.get(0)?;
            let stored = StoredResult {
                // Anything but the one good word is bad.
                disproven: state != "proven",
                result: row.get(1)?,
                findings: serde_json::from_str(&row.get::<_, String>(2)?).unwrap_or_default(),
                boot_id: row.get(3)?,
                issued_boot_ms: row.get(4)?,
                issued_unix_ms: row.get(5)?,
                sequence: row.get(6)?,
            };
            Ok((state, stored, row.get::<_, Vec<u8>>(7)?))
        })
        .optional()?;
    Ok(found)
}

impl super::Tx<'_> {
    /// Whether a round with a later nonce than this is recorded, as this verifier wrote it: a row that was changed from outside shuts
    /// nobody out.
    pub(super) fn recorded_later(&self, nonce: &super::ConsumedNonce) -> Outcome<bool> {
        let Some((state, stored, seal)) = row(self, &nonce.host)? else { return Ok(false) };
        let later = stored.boot_id == nonce.boot_id && stored.issued_boot_ms > nonce.issued_boot_ms;
        Ok(later && self.keys.sealed(&stored.seal_message(&nonce.host, &state), &seal))
    }

    /// Remembers the serial of a proven tag: an older one is refused from now on.
    fn accept_tag_serial(&self, host: &str, serial: u64) -> Outcome<()> {
        let raised =
            self.execute("UPDATE hosts SET tag_serial = ?1 WHERE id = ?2 AND tag_serial < ?1", params![serial, host])?;
        if raised > 0 { self.seal_host(host) } else { Ok(()) }
    }
}

impl Store {
    /// When an unused nonce of this host was issued. For anything else, the refusal of [`super::Tx::consume_nonce`].
    ///
    /// # Errors
    /// 422 `nonce.*`.
    pub fn nonce_issue(&self, now: &Now, nonce: &Nonce, host: &str) -> Outcome<NonceIssue> {
        let issued = self.read(|sql| {
            let mut statement = sql.prepare_cached(
                "SELECT issued_unix_ms, detail FROM nonces WHERE nonce = ? AND host = ? AND purpose = ? AND boot_id = ? AND expires_boot_ms > ? AND used_unix_ms IS NULL",
            )?;
            let wanted = params![nonce.0, host, Purpose::Round.name(), &*now.boot_id, now.boot_ms];
            let read = |row: &rusqlite::Row<'_>| Ok(NonceIssue { issued_unix_ms: row.get(0)?, detail: row.get(1)? });
            Ok(statement.query_row(wanted, read).optional()?)
        })?;
        match issued {
            Some(issued) => Ok(issued),
            // The reason is told by the command that would use it up; it changes nothing when it refuses.
            None => {
                let consumed = self.consume_nonce(now, nonce, host, Purpose::Round)?;
                Ok(NonceIssue { issued_unix_ms: consumed.issued_unix_ms, detail: consumed.detail })
            }
        }
    }

    /// What was kept of a host: the sealed bytes.
    ///
    /// # Errors
    /// 503.
    pub fn host_state(&self, host: &str) -> Outcome<Option<Vec<u8>>> {
        self.read(|sql| {
            let mut statement = sql.prepare_cached("SELECT sealed FROM host_state WHERE host = ?")?;
            Ok(statement.query_row([host], |row| row.get(0)).optional()?)
        })
    }

    /// Uses the nonce up and records what the round came to. A change of state is in the audit chain. `late` is asked once the
    /// store is ours: a round whose host was told that nothing was granted grants nothing (D20).
    ///
    /// # Errors
    /// 422 `nonce.*`; 409 `round.superseded` when the host was changed while it was appraised; 404, 409, 422 of the host; 500 `error`
    /// when it is late.
    pub fn record_round(&self, now: &Now, round: &RoundRecord, late: impl FnOnce() -> bool) -> Outcome<()> {
        self.write(now, |tx| {
            if violated("round.late", late()) {
                return Err(Refusal::internal("the round was not recorded in time"));
            }
            let nonce = tx.consume_nonce(&round.nonce, &round.host, Purpose::Round)?;
            let enrolled = tx.enrolled(&round.host)?;
            let host = enrolled.row();
            if violated("round.superseded", host.generation != round.generation) {
                let message = "the host was changed while this round was appraised; attest again";
                return Err(Refusal::conflict("round.superseded", message));
            }
            let before: Option<(String, u64)> = tx
                .prepare_cached("SELECT state, sequence FROM results WHERE host = ?")?
                .query_row([&round.host], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            // Of two rounds in flight one counts: what it was judged with must still be what is kept.
            let kept: Option<Vec<u8>> = tx
                .query_row("SELECT sealed FROM host_state WHERE host = ?", [&round.host], |row| row.get(0))
                .optional()?;
            let missing = host.kept_state && kept.is_none();
            if violated("round.overtaken", kept != round.kept || missing) {
                let message = "a later round of this host was recorded meanwhile; attest again";
                return Err(Refusal::conflict("round.overtaken", message));
            }
            let (was, sequence) = before.map_or((None, 0), |(was, sequence)| (Some(was), sequence));
            let state = if round.disproven { "disproven" } else { "proven" };
            let kept: &[Finding] = if round.result.is_some() { &[] } else { &round.findings };
            let findings = serde_json::to_string(kept).map_err(Refusal::internal)?;
            let sequence = sequence.saturating_add(1);
            let stored = StoredResult {
                disproven: round.disproven,
                result: round.result.clone(),
                findings: Vec::new(),
                boot_id: nonce.boot_id.clone(),
                issued_boot_ms: nonce.issued_boot_ms,
                issued_unix_ms: nonce.issued_unix_ms,
                sequence,
            };
            let message = stored.seal_message(&round.host, state);
            tx.prepare_cached(
                "INSERT OR REPLACE INTO results (host, state, result, findings, policy, policy_version, boot_id, issued_boot_ms, issued_unix_ms, sequence, seal) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            )?
            .execute(params![
                round.host, state, round.result, findings, round.policy.0, round.policy.1, nonce.boot_id,
                nonce.issued_boot_ms, nonce.issued_unix_ms, sequence, tx.keys.seal_row(&message)
            ])?;
            if let Some(sealed) = &round.sealed {
                tx.prepare_cached("INSERT OR REPLACE INTO host_state (host, ak_name, sealed) VALUES (?,?,?)")?
                    .execute(params![round.host, round.ak_name, sealed])?;
                if !host.kept_state {
                    tx.execute("UPDATE hosts SET kept_state = 1 WHERE id = ?", [&round.host])?;
                    tx.seal_host(&round.host)?;
                }
            }
            if round.disproven {
                // A good round that is still being judged was quoted before this one was recorded: it must not undo it.
                tx.execute("UPDATE hosts SET generation = generation + 1 WHERE id = ?", [&round.host])?;
            }
            if let Some(serial) = round.tag_serial {
                tx.accept_tag_serial(&round.host, serial)?;
            }
            if was.as_deref() != Some(state) {
                let ids: BTreeMap<&str, &str> =
                    round.findings.iter().map(|one| (one.id.as_str(), one.message.as_str())).collect();
                let detail = serde_json::json!({ "from": was, "to": state, "findings": ids });
                tx.audit("verifier", &format!("host.{state}"), &round.host, &detail)?;
            }
            if round.suspects_a_clone() {
                let told = round.findings.iter().find(|one| one.id == CLONE_SUSPECTED);
                let detail = serde_json::json!({
                    "expected": told.and_then(|one| one.expected.as_ref()), "found": told.and_then(|one| one.found.as_ref()),
                });
                tx.audit("verifier", "host.clone-suspected", &round.host, &detail)?;
            }
            Ok(())
        })
    }

    /// The last completed round of a host, as this verifier wrote it: who writes the database cannot turn a bad round into a
    /// good one, nor make a lease longer. The seal does **not** show that a whole row was put back to an older one of this host:
    /// that one's lease still counts from its own nonce.
    ///
    /// # Errors
    /// 503; 422 `result.seal` for a row that was changed from outside.
    pub fn result(&self, host: &str) -> Outcome<Option<StoredResult>> {
        self.read(|sql| {
            let Some((state, stored, seal)) = row(sql, host)? else { return Ok(None) };
            let message = stored.seal_message(host, &state);
            if violated("result.seal", !self.keys().sealed(&message, &seal)) {
                let finding =
                    Finding::error("result.seal", "the stored result of this host was changed outside the verifier");
                return Err(Refusal::findings(
                    finding.fix("let the host attest again; look for who wrote the database").into(),
                ));
            }
            Ok(Some(stored))
        })
    }

    /// What changed since `seen`, whoever changed it. The schema's triggers keep the list.
    ///
    /// # Errors
    /// 503.
    pub fn changes(&self, seen: i64) -> Outcome<Changes> {
        self.read(|sql| {
            let newest: i64 = sql
                .prepare_cached("SELECT coalesce(max(change), 0) FROM host_changes")?
                .query_row([], |row| row.get(0))?;
            let rules: i64 = sql.prepare_cached("SELECT change FROM rule_changes")?.query_row([], |row| row.get(0))?;
            let mut hosts = Vec::new();
            if newest > seen {
                let mut statement = sql.prepare_cached("SELECT host FROM host_changes WHERE change > ?")?;
                hosts = statement.query_map([seen], |row| row.get(0))?.collect::<Result<_, _>>()?;
            }
            Ok(Changes { newest, hosts, rules })
        })
    }
}
