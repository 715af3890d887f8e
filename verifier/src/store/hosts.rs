//! Approved hosts and what people decide about them.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use hostmark_attest::check::violated;
use hostmark_attest::finding::Finding;
use hostmark_attest::label::Label;
use hostmark_attest::tpm::name::Name;

use super::tokens::label;
use super::{Store, Tx};
use crate::clock::Now;
use crate::enrol::enrolled::Enrolled;
use crate::refusal::{Kind, Outcome, Refusal};

/// What an approver assigns to a host. A host never names itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Node name (RFC 1123), unique per scheduler.
    pub node: String,
    /// The scheduler whose node it is.
    pub scheduler: String,
    /// Clearance.
    pub label: Label,
    /// AppraisalPolicy by name.
    pub policy: String,
}

/// A host's place in a scheduler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Host id.
    pub host: String,
    /// Node name.
    pub node: String,
    /// Scheduler.
    pub scheduler: String,
}

/// An approved or retired host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRow {
    /// Host id, a UUID.
    pub id: String,
    /// Retired hosts keep their row for the audit's sake.
    pub retired: bool,
    /// Node, scheduler, label, policy.
    pub assignment: Assignment,
    /// TPM class at enrolment; appraisal derives it again.
    pub class: String,
    /// SHA-256 of the EK's SubjectPublicKeyInfo, hex.
    pub ek_id: String,
    /// TPMT_PUBLIC of the EK.
    pub ek_public: Vec<u8>,
    /// DER of the EK certificate.
    pub ek_certificate: Option<Vec<u8>>,
    /// DER of the intermediates that the host sent.
    pub ek_intermediates: Vec<Vec<u8>>,
    /// TPMT_PUBLIC of the AK.
    pub ak_public: Vec<u8>,
    /// Name of the AK.
    pub ak_name: Vec<u8>,
    /// When approved, milliseconds since 1970.
    pub approved_unix_ms: i64,
    /// By whom.
    pub approved_by: String,
    /// The signed tag that the host shall hold.
    pub tag_nv: Option<Vec<u8>>,
    /// Serial of that tag: a lower one is refused.
    pub tag_serial: u64,
    /// End of planned maintenance, milliseconds since 1970; 0 for none.
    pub maintenance_until_unix_ms: i64,
    /// Counts changes that a running appraisal or a permit must notice.
    pub generation: u64,
    /// Whether a state is kept between this host's rounds: its absence is then somebody's doing.
    pub kept_state: bool,
    /// MAC over identity, assignment and `kept_state`.
    pub seal: Vec<u8>,
}

impl HostRow {
    /// What the seal covers: everything that decides whose evidence is judged, and for what.
    #[must_use]
    pub fn seal_message(&self) -> Vec<u8> {
        let to = &self.assignment;
        let (label, serial, retired) = (to.label.to_string(), self.tag_serial.to_string(), self.retired.to_string());
        let kept = self.kept_state.to_string();
        let parts: [&[u8]; 12] = [
            self.id.as_bytes(),
            retired.as_bytes(),
            to.node.as_bytes(),
            to.scheduler.as_bytes(),
            label.as_bytes(),
            to.policy.as_bytes(),
            self.ek_id.as_bytes(),
            &self.ek_public,
            &self.ak_public,
            &self.ak_name,
            serial.as_bytes(),
            kept.as_bytes(),
        ];
        let mut message = Vec::new();
        for part in parts {
            message.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            message.extend_from_slice(part);
        }
        message
    }
}

pub(super) const COLUMNS: &str = "SELECT id, state = 'retired', node, scheduler, label, policy, class, ek_id, ek_public, ek_certificate, ek_intermediates, ak_public, ak_name, approved_unix_ms, approved_by, tag_nv, tag_serial, maintenance_until_unix_ms, generation, seal, kept_state FROM hosts";

pub(super) fn intermediates(text: &str) -> Vec<Vec<u8>> {
    serde_json::from_str::<Vec<hostmark_attest::wire::B64>>(text)
        .unwrap_or_default()
        .into_iter()
        .map(|one| one.0)
        .collect()
}

pub(super) fn host(row: &Row<'_>) -> rusqlite::Result<HostRow> {
    Ok(HostRow {
        id: row.get(0)?,
        retired: row.get(1)?,
        assignment: Assignment {
            node: row.get(2)?,
            scheduler: row.get(3)?,
            label: label(&row.get::<_, String>(4)?)?,
            policy: row.get(5)?,
        },
        class: row.get(6)?,
        ek_id: row.get(7)?,
        ek_public: row.get(8)?,
        ek_certificate: row.get(9)?,
        ek_intermediates: intermediates(&row.get::<_, String>(10)?),
        ak_public: row.get(11)?,
        ak_name: row.get(12)?,
        approved_unix_ms: row.get(13)?,
        approved_by: row.get(14)?,
        tag_nv: row.get(15)?,
        tag_serial: row.get(16)?,
        maintenance_until_unix_ms: row.get(17)?,
        generation: row.get(18)?,
        seal: row.get(19)?,
        kept_state: row.get(20)?,
    })
}

/// A host by id.
pub(super) fn by_id(sql: &Connection, id: &str) -> Outcome<Option<HostRow>> {
    Ok(sql.prepare_cached(&format!("{COLUMNS} WHERE id = ?"))?.query_row([id], host).optional()?)
}

impl Tx<'_> {
    /// An approved host by id.
    ///
    /// # Errors
    /// 404 `host.unknown`; 409 `host.retired`.
    pub fn approved_host(&self, id: &str) -> Outcome<HostRow> {
        match by_id(self, id)? {
            None => Err(Refusal::not_found("host")),
            Some(host) if host.retired => {
                Err(Refusal::conflict("host.retired", "this host was retired; enrol it again"))
            }
            Some(host) => Ok(host),
        }
    }

    /// Seals a host's row as it stands now. The last step of every command that changes it; the row must have been good before.
    ///
    /// # Errors
    /// 503.
    pub(super) fn seal_host(&self, id: &str) -> Outcome<()> {
        let row = by_id(self, id)?.ok_or_else(|| Refusal::internal("the host to seal is not there"))?;
        self.execute("UPDATE hosts SET seal = ? WHERE id = ?", params![self.keys.seal_row(&row.seal_message()), id])?;
        Ok(())
    }

    /// An approved host whose row is as the verifier wrote it.
    ///
    /// # Errors
    /// As [`Tx::approved_host`]; 422 `host.sealed`.
    pub fn enrolled(&self, id: &str) -> Outcome<Enrolled> {
        Enrolled::verify(self.approved_host(id)?, self.keys)
    }

    /// Ends what was proven about a host: its result and kept state. Its next round starts from nothing. The caller seals the row.
    ///
    /// # Errors
    /// 503.
    pub fn forget_proof(&self, host: &str) -> Outcome<()> {
        for table in ["results", "host_state"] {
            self.execute(&format!("DELETE FROM {table} WHERE host = ?"), [host])?;
        }
        self.execute("UPDATE hosts SET generation = generation + 1, kept_state = 0 WHERE id = ?", [host])?;
        Ok(())
    }
}

impl Store {
    /// All hosts, approved before retired, by scheduler and node.
    ///
    /// # Errors
    /// 503. A row that cannot be read is left out and logged (D22).
    pub fn hosts(&self) -> Outcome<Vec<HostRow>> {
        self.read(|sql| {
            let mut statement = sql.prepare_cached(&format!("{COLUMNS} ORDER BY state, scheduler, node"))?;
            let rows = statement.query_map([], host)?;
            Ok(rows
                .filter_map(|row| row.inspect_err(|error| tracing::error!(%error, "a stored host is malformed")).ok())
                .collect())
        })
    }

    /// A host by id.
    ///
    /// # Errors
    /// 503.
    pub fn host(&self, id: &str) -> Outcome<Option<HostRow>> {
        self.read(|sql| by_id(sql, id))
    }

    /// An approved host whose row is as the verifier wrote it: what a round is judged against.
    ///
    /// # Errors
    /// 404 `host.unknown`; 409 `host.retired`; 422 `host.sealed`.
    pub fn enrolled(&self, id: &str) -> Outcome<Enrolled> {
        let row = self.host(id)?.ok_or_else(|| Refusal::not_found("host"))?;
        Enrolled::verify(row, self.keys())
    }

    /// A host by id, or by node name where one scheduler only has it.
    ///
    /// # Errors
    /// 404 `host.unknown`; 409 `host.ambiguous`.
    pub fn find_host(&self, text: &str) -> Outcome<HostRow> {
        self.read(|sql| {
            if let Some(found) = by_id(sql, text)? {
                return Ok(found);
            }
            let mut statement = sql.prepare_cached(&format!("{COLUMNS} WHERE node = ? AND state = 'approved'"))?;
            let mut found = statement.query_map([text], host)?.collect::<Result<Vec<_>, _>>()?;
            match (found.pop(), violated("host.ambiguous", !found.is_empty())) {
                (Some(one), false) => Ok(one),
                (Some(_), true) => Err(Refusal::conflict(
                    "host.ambiguous",
                    "several schedulers have a node of this name; use the host id",
                )),
                (None, _) => Err(Refusal::not_found("host")),
            }
        })
    }

    /// Gives a host another label.
    ///
    /// # Errors
    /// 404, 409.
    pub fn set_label(&self, now: &Now, actor: &str, id: &str, to: &Label) -> Outcome<()> {
        self.write(now, |tx| {
            let host = tx.enrolled(id)?.row().clone();
            tx.execute(
                "UPDATE hosts SET label = ?, generation = generation + 1 WHERE id = ?",
                params![to.to_string(), host.id],
            )?;
            tx.seal_host(&host.id)?;
            tx.audit(actor, "host.label", &host.id, &serde_json::json!({ "from": host.assignment.label, "to": to }))
        })
    }

    /// Plans an absence until a wall-clock time; 0 ends it. Maintenance grants nothing.
    ///
    /// # Errors
    /// 404, 409.
    pub fn set_maintenance(&self, now: &Now, actor: &str, id: &str, until_unix_ms: i64) -> Outcome<()> {
        self.write(now, |tx| {
            let host = tx.enrolled(id)?.row().clone();
            tx.execute(
                "UPDATE hosts SET maintenance_until_unix_ms = ?, generation = generation + 1 WHERE id = ?",
                params![until_unix_ms, host.id],
            )?;
            tx.seal_host(&host.id)?;
            tx.audit(actor, "host.maintenance", &host.id, &serde_json::json!({ "until_unix_ms": until_unix_ms }))
        })
    }

    /// Ends a host: certificates revoked, proof forgotten, pre-registration and pending enrolments removed, its node name free again.
    ///
    /// # Errors
    /// 404, 409.
    pub fn retire(&self, now: &Now, actor: &str, id: &str) -> Outcome<()> {
        self.write(now, |tx| {
            let host = tx.approved_host(id)?;
            tx.forget_proof(&host.id)?;
            tx.execute(
                "UPDATE hosts SET state = 'retired', retired_unix_ms = ? WHERE id = ?",
                params![now.unix_ms, host.id],
            )?;
            tx.seal_host(&host.id)?;
            tx.execute("DELETE FROM preregistrations WHERE ek_id = ?", [&host.ek_id])?;
            tx.execute("UPDATE enrolments SET state = 'refused' WHERE host = ? AND state <> 'refused'", [&host.id])?;
            tx.execute("DELETE FROM nonces WHERE host = ?", [&host.id])?;
            let revoked = tx.revoke_certificates(true, &host.id)?;
            tx.audit(
                actor,
                "host.retire",
                &host.id,
                &serde_json::json!({ "node": host.assignment.node, "certificates_revoked": revoked }),
            )
        })
    }

    /// Records a newer signed tag for the machine with the EK `ek`. The caller has verified its signature.
    ///
    /// # Errors
    /// 404; 422 `tag.ek` when the host has another EK; 409 `tag.serial` when the tag is not newer.
    pub fn set_tag(&self, now: &Now, actor: &str, id: &str, nv: &[u8], ek: &Name, serial: u64) -> Outcome<()> {
        self.write(now, |tx| {
            let enrolled = tx.enrolled(id)?;
            let host = enrolled.row().clone();
            // The EK that the host has in this transaction: a rebinding may have come between.
            if violated("tag.ek", ek != enrolled.ek().name()) {
                let finding = Finding::error("tag.ek", "the tag is for another machine's EK");
                return Err(Refusal::findings(finding.expected(enrolled.ek().name()).found(ek).into()));
            }
            if violated("tag.serial", serial <= host.tag_serial) {
                let finding = Finding::error("tag.serial", "a tag must be newer than the one before it");
                return Err(Refusal::new(
                    Kind::Conflict,
                    finding.expected(format!("above {}", host.tag_serial)).found(serial),
                ));
            }
            tx.execute(
                "UPDATE hosts SET tag_nv = ?, tag_serial = ?, generation = generation + 1 WHERE id = ?",
                params![nv, serial, host.id],
            )?;
            tx.seal_host(&host.id)?;
            tx.audit(actor, "host.tag", &host.id, &serde_json::json!({ "serial": serial }))
        })
    }
}
