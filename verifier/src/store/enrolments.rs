//! Enrolments: from the challenge to an approved host.
//!
//! A10, A11, A13. Who may become which host is decided in the transaction that uses the enrolment (and a join token) up. Another TPM or
//! another AK never takes an existing host's place without a person: it waits as a *rebinding*.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use hostmark_attest::check::violated;
use hostmark_attest::finding::{Finding, Findings};
use hostmark_attest::identity::class::TpmClass;
use hostmark_attest::wire::{B64, Nonce};

use super::hosts::{COLUMNS as HOST_COLUMNS, by_id, host as host_row, intermediates};
use super::tokens::preregistration_of;
use super::{Assignment, HostRow, Store, Tx};
use crate::ca::Issued;
use crate::clock::{Now, millis};
use crate::refusal::{Kind, Outcome, Refusal};

/// Enrolments that wait for a person, or for an activation, at most of each: a row has up to 30 KiB, so this bounds the store at 300 MB.
const WAITING_MAX: i64 = 5_000;
/// The same for TPMs without EK certificate.
const UNVERIFIED_MAX: i64 = 500;
/// How long an enrolment may wait for a person.
const PENDING_LIFE: Duration = Duration::from_secs(7 * 86_400);

/// Where an enrolment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EnrolmentState {
    /// The credential challenge is out.
    Challenged,
    /// The TPM has proven itself; a person must approve.
    Pending,
    /// It is (again) a host.
    Approved,
    /// It was approved, and another enrolment speaks for its host since.
    Superseded,
    /// It failed, or was turned down.
    Refused,
}

impl EnrolmentState {
    const fn name(self) -> &'static str {
        match self {
            Self::Challenged => "challenged",
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Superseded => "superseded",
            Self::Refused => "refused",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        let all = [Self::Challenged, Self::Pending, Self::Approved, Self::Superseded, Self::Refused];
        all.into_iter().find(|state| state.name() == name)
    }
}

/// An enrolment to record with its challenge.
#[derive(Debug, Clone)]
pub struct NewEnrolment {
    /// Its id, a UUID.
    pub id: String,
    /// The host id that a new host will have, a UUID.
    pub host: String,
    /// SHA-256 of the EK's SubjectPublicKeyInfo, hex.
    pub ek_id: String,
    /// TPMT_PUBLIC of the EK.
    pub ek_public: Vec<u8>,
    /// DER of the EK certificate.
    pub ek_certificate: Option<Vec<u8>>,
    /// DER of intermediates.
    pub ek_intermediates: Vec<B64>,
    /// TPM class, from the trust directory.
    pub class: String,
    /// TPMT_PUBLIC of the AK.
    pub ak_public: Vec<u8>,
    /// Name of the AK.
    pub ak_name: Vec<u8>,
    /// SHA-256 of the join token that was shown.
    pub token_hash: Option<[u8; 32]>,
    /// SHA-256 of the credential's secret.
    pub secret_hash: [u8; 32],
    /// Bound into the TLS key's certification.
    pub nonce: Nonce,
    /// Time to answer.
    pub life: Duration,
    /// What was noticed so far.
    pub findings: Findings,
}

/// A recorded enrolment.
#[derive(Debug, Clone)]
pub struct EnrolmentRow {
    /// Its id.
    pub id: String,
    /// Where it stands.
    pub state: EnrolmentState,
    /// The host it will be, or wants to be again.
    pub host: String,
    /// Whether it would replace the TPM or AK of an existing host.
    pub rebinds: bool,
    /// SHA-256 of the EK's SubjectPublicKeyInfo, hex.
    pub ek_id: String,
    /// TPMT_PUBLIC of the EK.
    pub ek_public: Vec<u8>,
    /// DER of the EK certificate.
    pub ek_certificate: Option<Vec<u8>>,
    /// DER of intermediates.
    pub ek_intermediates: Vec<Vec<u8>>,
    /// TPM class.
    pub class: String,
    /// TPMT_PUBLIC of the AK.
    pub ak_public: Vec<u8>,
    /// Name of the AK.
    pub ak_name: Vec<u8>,
    /// SHA-256 of the join token.
    pub token_hash: Option<[u8; 32]>,
    /// SHA-256 of the credential's secret.
    pub secret_hash: [u8; 32],
    /// Bound into the TLS key's certification.
    pub nonce: Nonce,
    /// Boot id of the deadline.
    pub boot_id: String,
    /// End of the time to answer.
    pub deadline_boot_ms: i64,
    /// When it began, milliseconds since 1970.
    pub created_unix_ms: i64,
    /// TPMT_PUBLIC of the TLS key, once activated.
    pub tls_public: Option<Vec<u8>>,
    /// What was noticed.
    pub findings: Vec<Finding>,
}

const COLUMNS: &str = "SELECT id, state, host, rebinds, ek_id, ek_public, ek_certificate, ek_intermediates, class, ak_public, ak_name, token_hash, secret_hash, nonce, boot_id, deadline_boot_ms, created_unix_ms, tls_public, findings FROM enrolments";

fn bytes32(row: &Row<'_>, column: usize) -> rusqlite::Result<[u8; 32]> {
    row.get(column)
}

fn enrolment(row: &Row<'_>) -> rusqlite::Result<EnrolmentRow> {
    let state: String = row.get(1)?;
    Ok(EnrolmentRow {
        id: row.get(0)?,
        state: EnrolmentState::from_name(&state).unwrap_or(EnrolmentState::Refused),
        host: row.get(2)?,
        rebinds: row.get(3)?,
        ek_id: row.get(4)?,
        ek_public: row.get(5)?,
        ek_certificate: row.get(6)?,
        ek_intermediates: intermediates(&row.get::<_, String>(7)?),
        class: row.get(8)?,
        ak_public: row.get(9)?,
        ak_name: row.get(10)?,
        token_hash: row.get(11)?,
        secret_hash: bytes32(row, 12)?,
        nonce: Nonce(bytes32(row, 13)?),
        boot_id: row.get(14)?,
        deadline_boot_ms: row.get(15)?,
        created_unix_ms: row.get(16)?,
        tls_public: row.get(17)?,
        findings: serde_json::from_str(&row.get::<_, String>(18)?).unwrap_or_default(),
    })
}

fn find(sql: &Connection, id: &str) -> Outcome<EnrolmentRow> {
    sql.query_row(&format!("{COLUMNS} WHERE id = ?"), [id], enrolment)
        .optional()?
        .ok_or_else(|| Refusal::not_found("enrolment"))
}

fn approved(sql: &Connection, condition: &str, values: &[&dyn rusqlite::ToSql]) -> Outcome<Option<HostRow>> {
    let query = format!("{HOST_COLUMNS} WHERE state = 'approved' AND {condition}");
    Ok(sql.query_row(&query, values, host_row).optional()?)
}

/// What an activation makes of an enrolment.
enum Decision {
    /// A new host, approved beforehand.
    Create(Assignment, String),
    /// The same TPM and the same AK: the host is itself.
    Again(HostRow),
    /// A person must look. With a host: this would replace that host's TPM or AK.
    Wait(Option<HostRow>),
}

fn insert_host(tx: &Tx<'_>, from: &EnrolmentRow, to: &Assignment, by: &str) -> Outcome<()> {
    let taken = approved(tx, "scheduler = ?1 AND node = ?2", &[&to.scheduler, &to.node])?;
    if violated("enrolment.node-taken", taken.is_some()) {
        let finding = Finding::error("enrolment.node-taken", "another host has this node name in this scheduler");
        return Err(Refusal::new(
            Kind::Conflict,
            finding.found(&to.node).fix("choose another name, retire that host, or rebind it"),
        ));
    }
    let list: Vec<B64> = from.ek_intermediates.iter().cloned().map(B64).collect();
    tx.execute(
        "INSERT INTO hosts (id, state, node, scheduler, label, policy, class, ek_id, ek_public, ek_certificate, ek_intermediates, ak_public, ak_name, approved_unix_ms, approved_by)
         VALUES (?, 'approved', ?,?,?,?,?,?,?,?,?,?,?,?,?)",
        params![
            from.host, to.node, to.scheduler, to.label.to_string(), to.policy, from.class, from.ek_id, from.ek_public,
            from.ek_certificate, serde_json::to_string(&list).map_err(Refusal::internal)?, from.ak_public, from.ak_name, tx.now().unix_ms, by
        ],
    )?;
    tx.seal_host(&from.host)?;
    let detail = serde_json::json!({
        "node": to.node, "scheduler": to.scheduler, "label": to.label, "policy": to.policy, "class": from.class,
        "ek_id": from.ek_id, "ak_name": hex::encode(&from.ak_name), "enrolment": from.id,
    });
    tx.audit(by, "host.approve", &from.host, &detail)
}

fn decide(tx: &Tx<'_>, from: &EnrolmentRow, rank: impl Fn(&str) -> Option<usize>) -> Outcome<Decision> {
    let holder = approved(tx, "ak_name = ?1", &[&from.ak_name])?;
    if violated("enrolment.ak-taken", holder.is_some_and(|host| host.ek_id != from.ek_id)) {
        let finding = Finding::error("enrolment.ak-taken", "this AK belongs to a host on another TPM");
        return Err(Refusal::new(Kind::Refused, finding.fix("create a new AK on this TPM")));
    }
    if let Some(host) = approved(tx, "ek_id = ?1", &[&from.ek_id])? {
        if violated("enrolment.rebind", host.ak_name != from.ak_name) {
            return Ok(Decision::Wait(Some(host)));
        }
        return Ok(Decision::Again(host));
    }
    let before = match from.token_hash {
        Some(hash) => {
            let token = tx.consume_token(&hash, &from.host, &from.ek_id, &from.class, rank)?;
            Some((token.assignment, format!("token:{}", token.id)))
        }
        None => {
            preregistration_of(tx, &from.ek_id)?.map(|one| (one.assignment, format!("preregistration:{}", one.ek_id)))
        }
    };
    let Some((to, by)) = before else { return Ok(Decision::Wait(None)) };
    Ok(match approved(tx, "scheduler = ?1 AND node = ?2", &[&to.scheduler, &to.node])? {
        Some(host) => Decision::Wait(Some(host)),
        None => Decision::Create(to, by),
    })
}

impl Tx<'_> {
    /// Ends what approved enrolments of a host still could collect, but for this one.
    fn supersede_enrolments(&self, host: &str, but: &str) -> Outcome<()> {
        self.execute(
            "UPDATE enrolments SET state = 'superseded' WHERE host = ? AND id <> ? AND state = 'approved'",
            params![host, but],
        )?;
        Ok(())
    }
}

impl Store {
    /// Records an enrolment whose challenge is about to be sent.
    ///
    /// # Errors
    /// 429 `enrolment.too-many`.
    pub fn begin_enrolment(&self, now: &Now, new: &NewEnrolment) -> Outcome<()> {
        self.write(now, |tx| {
            tx.execute(
                "DELETE FROM enrolments WHERE (state IN ('challenged', 'refused', 'superseded') AND (boot_id <> ?1 OR deadline_boot_ms < ?2))
                   OR (state IN ('pending', 'approved') AND created_unix_ms < ?3)",
                params![&*now.boot_id, now.boot_ms, now.unix_ms.saturating_sub(millis(PENDING_LIFE))],
            )?;
            // Anybody can make an EK without certificate: such strangers have a share of their own, and cannot lock others out.
            let bare = new.class == TpmClass::Unverified.name();
            let (limit, same) = if bare { (UNVERIFIED_MAX, "=") } else { (WAITING_MAX, "<>") };
            let query = format!("SELECT coalesce(max(n), 0) FROM (SELECT count(*) AS n FROM enrolments WHERE state IN ('pending', 'challenged') AND class {same} 'unverified' GROUP BY state)");
            let waiting: i64 = tx.query_row(&query, [], |row| row.get(0))?;
            if violated("enrolment.too-many", waiting >= limit) {
                let finding = Finding::error("enrolment.too-many", "too many enrolments wait already")
                    .fix("approve or retire waiting hosts, then try again");
                return Err(Refusal::new(Kind::TooMany, finding));
            }
            tx.execute(
                "INSERT INTO enrolments (id, state, host, ek_id, ek_public, ek_certificate, ek_intermediates, class, ak_public, ak_name, token_hash, secret_hash, nonce, boot_id, deadline_boot_ms, created_unix_ms, findings)
                 VALUES (?, 'challenged', ?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                params![
                    new.id, new.host, new.ek_id, new.ek_public, new.ek_certificate,
                    serde_json::to_string(&new.ek_intermediates).map_err(Refusal::internal)?, new.class, new.ak_public, new.ak_name,
                    new.token_hash, new.secret_hash, new.nonce.0, &*now.boot_id, now.boot_after(new.life), now.unix_ms,
                    serde_json::to_string(&new.findings).map_err(Refusal::internal)?
                ],
            )?;
            Ok(())
        })
    }

    /// An enrolment by id.
    ///
    /// # Errors
    /// 404 `enrolment.unknown`.
    pub fn enrolment(&self, id: &str) -> Outcome<EnrolmentRow> {
        self.read(|sql| find(sql, id))
    }

    /// Burns an enrolment whose activation failed: its secret never counts again.
    ///
    /// # Errors
    /// 503.
    pub fn refuse_enrolment(&self, now: &Now, id: &str, findings: &[Finding]) -> Outcome<()> {
        self.write(now, |tx| {
            let text = serde_json::to_string(findings).map_err(Refusal::internal)?;
            let changed = tx.execute(
                "UPDATE enrolments SET state = 'refused', findings = ? WHERE id = ? AND state = 'challenged'",
                params![text, id],
            )?;
            if changed > 0 {
                let ids: Vec<&str> = findings.iter().map(|finding| finding.id.as_str()).collect();
                tx.audit("verifier", "enrolment.refuse", id, &serde_json::json!({ "findings": ids }))?;
            }
            Ok(())
        })
    }

    /// Uses an activated enrolment up: its secret, and the join token if it showed one, in one transaction. `issue` makes the certificate
    /// for the host id. None: it waits for a person.
    ///
    /// # Errors
    /// 409 `enrolment.used`; 422 `enrolment.deadline`, `enrolment.ak-taken`, `token.*`.
    pub fn activate(
        &self,
        now: &Now,
        id: &str,
        tls_public: &[u8],
        rank: impl Fn(&str) -> Option<usize>,
        issue: impl FnOnce(&str) -> Outcome<Issued>,
    ) -> Outcome<Option<(HostRow, Issued)>> {
        self.write(now, |tx| {
            let from = find(tx, id)?;
            if violated("enrolment.used", from.state != EnrolmentState::Challenged) {
                return Err(Refusal::conflict("enrolment.used", "this enrolment's secret was used before"));
            }
            if violated("enrolment.deadline", now.left(&from.boot_id, from.deadline_boot_ms) == 0) {
                let finding = Finding::error("enrolment.deadline", "the activation came too late").fix("begin a new enrolment");
                return Err(Refusal::new(Kind::Refused, finding));
            }
            let decision = decide(tx, &from, rank)?;
            let (state, host, rebinds) = match &decision {
                Decision::Create(..) => (EnrolmentState::Approved, from.host.clone(), false),
                Decision::Again(host) => (EnrolmentState::Approved, host.id.clone(), false),
                Decision::Wait(Some(host)) => (EnrolmentState::Pending, host.id.clone(), true),
                Decision::Wait(None) => (EnrolmentState::Pending, from.host.clone(), false),
            };
            // One TPM waits once, and one enrolment speaks for a host: the latest.
            tx.execute("UPDATE enrolments SET state = 'refused' WHERE ek_id = ? AND state = 'pending'", [&from.ek_id])?;
            if state == EnrolmentState::Approved {
                tx.supersede_enrolments(&host, id)?;
            }
            tx.execute(
                "UPDATE enrolments SET state = ?, host = ?, rebinds = ?, tls_public = ? WHERE id = ?",
                params![state.name(), host, rebinds, tls_public, id],
            )?;
            match decision {
                Decision::Create(to, by) => insert_host(tx, &from, &to, &by)?,
                Decision::Again(again) => {
                    // A new TLS key speaks for the host from now on; the old one no longer does.
                    tx.revoke_certificates(true, &again.id)?;
                    tx.audit(&format!("host:{}", again.id), "host.reenrol", &again.id, &serde_json::json!({ "enrolment": id }))?;
                }
                Decision::Wait(_) => {
                    let detail = serde_json::json!({ "enrolment": id, "ek_id": from.ek_id, "class": from.class, "rebinds": rebinds });
                    tx.audit("verifier", "enrolment.pending", &host, &detail)?;
                    return Ok(None);
                }
            }
            let issued = issue(&host)?;
            tx.record_certificate(&issued)?;
            let row = by_id(tx, &host)?.ok_or_else(|| Refusal::internal("the new host is not there"))?;
            Ok(Some((row, issued)))
        })
    }

    /// Hands out the certificate of an enrolment that was approved meanwhile. None: it still waits.
    ///
    /// # Errors
    /// 404; 409 `enrolment.not-activated`, `enrolment.refused`, `enrolment.superseded`.
    pub fn collect(
        &self,
        now: &Now,
        id: &str,
        issue: impl FnOnce(&str, &[u8]) -> Outcome<Issued>,
    ) -> Outcome<Option<(HostRow, Issued)>> {
        self.write(now, |tx| {
            let from = find(tx, id)?;
            let tls_public = match (from.state, from.tls_public) {
                (EnrolmentState::Pending, _) => return Ok(None),
                (EnrolmentState::Approved | EnrolmentState::Superseded, Some(tls_public)) => tls_public,
                (EnrolmentState::Challenged, _) => {
                    let finding =
                        Finding::error("enrolment.not-activated", "this enrolment's activation did not arrive")
                            .fix("begin a new enrolment");
                    return Err(Refusal::new(Kind::Conflict, finding));
                }
                _ => {
                    let finding =
                        Finding::error("enrolment.refused", "this enrolment was refused, or another was preferred")
                            .fix("begin a new enrolment");
                    return Err(Refusal::new(Kind::Conflict, finding));
                }
            };
            let host = tx.enrolled(&from.host)?.row().clone();
            // Only the latest enrolment, of the AK that the host has now: an older one would bring back a TLS key that no longer counts.
            let older =
                from.state == EnrolmentState::Superseded || host.ak_name != from.ak_name || host.ek_id != from.ek_id;
            if violated("enrolment.superseded", older) {
                return Err(Refusal::conflict(
                    "enrolment.superseded",
                    "the host was enrolled again, or bound to another TPM, meanwhile",
                ));
            }
            let issued = issue(&host.id, &tls_public)?;
            tx.record_certificate(&issued)?;
            Ok(Some((host, issued)))
        })
    }

    /// Records a renewed certificate, in the transaction that uses the nonce up. The AK that was judged must still be the host's.
    ///
    /// # Errors
    /// 422 `nonce.*`; 404, 409; 409 `enrolment.superseded`.
    pub fn renew_certificate(&self, now: &Now, judged: &HostRow, nonce: &Nonce, issued: &Issued) -> Outcome<HostRow> {
        self.write(now, |tx| {
            tx.consume_nonce(nonce, &judged.id, super::Purpose::Renewal)?;
            let host = tx.enrolled(&judged.id)?.row().clone();
            if violated("enrolment.superseded", host.ak_name != judged.ak_name || host.ek_id != judged.ek_id) {
                return Err(Refusal::conflict("enrolment.superseded", "the host was bound to another TPM meanwhile"));
            }
            tx.record_certificate(issued)?;
            tx.audit(
                &format!("host:{}", host.id),
                "host.renew",
                &host.id,
                &serde_json::json!({ "serial": issued.serial }),
            )?;
            Ok(host)
        })
    }

    /// Enrolments that wait for a person, oldest first.
    ///
    /// # Errors
    /// 503.
    pub fn pending_enrolments(&self) -> Outcome<Vec<EnrolmentRow>> {
        self.read(|sql| {
            let mut statement =
                sql.prepare(&format!("{COLUMNS} WHERE state = 'pending' ORDER BY created_unix_ms, id"))?;
            Ok(statement.query_map([], enrolment)?.collect::<Result<_, _>>()?)
        })
    }

    /// A person approves a waiting host that is new.
    ///
    /// # Errors
    /// 404; 409 `enrolment.rebind`, `enrolment.node-taken`.
    pub fn approve(&self, now: &Now, actor: &str, host: &str, to: &Assignment) -> Outcome<()> {
        self.write(now, |tx| {
            let query = format!("{COLUMNS} WHERE host = ? AND state = 'pending'");
            let from =
                tx.query_row(&query, [host], enrolment).optional()?.ok_or_else(|| Refusal::not_found("enrolment"))?;
            if violated("enrolment.rebind", from.rebinds) {
                let finding =
                    Finding::error("enrolment.rebind", "this would replace the TPM or AK of an existing host");
                return Err(Refusal::new(
                    Kind::Conflict,
                    finding.fix("check the machine, then use `hostmark host rebind-tpm`"),
                ));
            }
            let taken = approved(tx, "ek_id = ?1 OR ak_name = ?2", &[&from.ek_id, &from.ak_name])?.is_some();
            if violated("enrolment.ek-taken", taken) {
                return Err(Refusal::conflict("enrolment.ek-taken", "a host on this TPM was approved meanwhile"));
            }
            insert_host(tx, &from, to, actor)?;
            tx.execute("UPDATE enrolments SET state = 'approved' WHERE id = ?", [&from.id])?;
            Ok(())
        })
    }

    /// A person lets a waiting enrolment take an existing host's place: its certificates are revoked and its proof is forgotten.
    ///
    /// # Errors
    /// 404; 409 `enrolment.ambiguous`, `enrolment.ek-taken`.
    pub fn rebind(&self, now: &Now, actor: &str, host: &str, enrolment_id: Option<&str>) -> Outcome<()> {
        self.write(now, |tx| {
            let old = tx.enrolled(host)?.row().clone();
            let from = match enrolment_id {
                Some(id) => find(tx, id)?,
                None => {
                    let mut statement = tx.prepare(&format!("{COLUMNS} WHERE host = ? AND state = 'pending' AND rebinds = 1"))?;
                    let mut found = statement.query_map([host], enrolment)?.collect::<Result<Vec<_>, _>>()?;
                    match (found.pop(), violated("enrolment.ambiguous", !found.is_empty())) {
                        (Some(one), false) => one,
                        (Some(_), true) => {
                            return Err(Refusal::conflict("enrolment.ambiguous", "several enrolments want to be this host; name one by its id"));
                        }
                        (None, _) => return Err(Refusal::not_found("enrolment")),
                    }
                }
            };
            if from.state != EnrolmentState::Pending {
                return Err(Refusal::conflict("enrolment.used", "this enrolment does not wait for approval"));
            }
            let other = approved(tx, "id <> ?1 AND (ek_id = ?2 OR ak_name = ?3)", &[&old.id, &from.ek_id, &from.ak_name])?;
            if violated("enrolment.ek-taken", other.is_some()) {
                return Err(Refusal::conflict("enrolment.ek-taken", "this TPM is another host already"));
            }
            let list: Vec<B64> = from.ek_intermediates.iter().cloned().map(B64).collect();
            tx.execute(
                "UPDATE hosts SET class = ?, ek_id = ?, ek_public = ?, ek_certificate = ?, ek_intermediates = ?, ak_public = ?, ak_name = ?, tag_nv = NULL WHERE id = ?",
                params![
                    from.class, from.ek_id, from.ek_public, from.ek_certificate,
                    serde_json::to_string(&list).map_err(Refusal::internal)?, from.ak_public, from.ak_name, old.id
                ],
            )?;
            tx.forget_proof(&old.id)?;
            tx.seal_host(&old.id)?;
            let revoked = tx.revoke_certificates(true, &old.id)?;
            tx.supersede_enrolments(&old.id, &from.id)?;
            tx.execute("UPDATE enrolments SET state = 'approved', host = ? WHERE id = ?", params![old.id, from.id])?;
            tx.execute("UPDATE enrolments SET state = 'refused' WHERE host = ? AND id <> ? AND state = 'pending'", params![old.id, from.id])?;
            let detail = serde_json::json!({
                "enrolment": from.id, "ek_id": from.ek_id, "ek_id_before": old.ek_id, "class": from.class, "certificates_revoked": revoked,
                "ak_name": hex::encode(&from.ak_name), "ak_name_before": hex::encode(&old.ak_name),
            });
            tx.audit(actor, "host.rebind", &old.id, &detail)
        })
    }
}
