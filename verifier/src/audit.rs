//! The audit chain: one record per change, each hashed over the one before, and a signed head kept outside the database.
//!
//! An edited, removed or reordered record breaks the chain at that record (D9). A cut tail, or a chain that was recomputed whole, disagrees
//! with the signed head (D16). It does **not** show the rollback of database and head file together; keep copies of the head elsewhere.

use hostmark_attest::check::violated;
use hostmark_attest::digest::sha256;
use hostmark_attest::finding::{Finding, Findings};
use hostmark_attest::jws::{self, KeySet, Purpose, SignError, Signer};
use serde::{Deserialize, Serialize};

/// What a signed head is, and the checks on its signature.
pub const HEAD: Purpose = Purpose {
    typ: "audit-head",
    malformed: "audit.head-malformed",
    algorithm: "audit.head-algorithm",
    purpose: "audit.head-purpose",
    key: "audit.head-key",
    signature: "audit.head-signature",
};
/// `aud` of a signed head.
pub const HEAD_AUDIENCE: &str = "hostmark-audit";
/// What the first record is chained to.
pub const GENESIS: [u8; 32] = [0; 32];

const DOMAIN: &[u8] = b"hostmark-audit-v1";

/// One record of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Position, from 1.
    pub seq: u64,
    /// Wall clock, milliseconds since 1970.
    pub unix_ms: i64,
    /// Who: `operator:<name>`, `host:<id>`, `verifier`.
    pub actor: String,
    /// What: a dotted verb (`host.approve`).
    pub action: String,
    /// On what.
    pub subject: String,
    /// Further facts, one JSON object as text, exactly as hashed.
    pub detail: String,
    /// Hash of the record before, hex.
    pub prev: String,
    /// Hash of this record, hex.
    pub hash: String,
}

impl Record {
    /// A record chained to `prev`.
    #[must_use]
    pub fn chained(
        seq: u64,
        unix_ms: i64,
        actor: &str,
        action: &str,
        subject: &str,
        detail: &str,
        prev: &[u8; 32],
    ) -> Self {
        let mut record = Self {
            seq,
            unix_ms,
            actor: actor.to_owned(),
            action: action.to_owned(),
            subject: subject.to_owned(),
            detail: detail.to_owned(),
            prev: hex::encode(prev),
            hash: String::new(),
        };
        record.hash = hex::encode(record.compute(prev));
        record
    }

    /// SHA-256 over the domain, the numbers, each text with its length, and the hash before.
    fn compute(&self, prev: &[u8; 32]) -> [u8; 32] {
        let mut bytes = DOMAIN.to_vec();
        bytes.extend_from_slice(&self.seq.to_be_bytes());
        bytes.extend_from_slice(&self.unix_ms.to_be_bytes());
        for text in [&self.actor, &self.action, &self.subject, &self.detail] {
            bytes.extend_from_slice(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        sha256(&[&bytes, prev])
    }
}

/// The claims of a signed head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// [`HEAD_AUDIENCE`].
    pub aud: String,
    /// The last record's position; 0 for an empty chain.
    pub seq: u64,
    /// The last record's hash, hex.
    pub hash: String,
    /// When it was signed, milliseconds since 1970.
    pub unix_ms: i64,
}

/// Signs the head of a chain.
///
/// # Errors
/// [`SignError`].
pub fn sign_head(key: &dyn Signer, seq: u64, hash: &[u8; 32], unix_ms: i64) -> Result<String, SignError> {
    let head = Head { aud: HEAD_AUDIENCE.to_owned(), seq, hash: hex::encode(hash), unix_ms };
    jws::sign(&HEAD, &serde_json::to_vec(&head).unwrap_or_default(), key)
}

/// Verifies a signed head.
///
/// # Errors
/// Findings of [`HEAD`]'s ids, or `audit.head-audience`.
pub fn verify_head(token: &str, keys: &KeySet) -> Result<Head, Findings> {
    let payload = jws::verify(&HEAD, token.trim(), keys)?;
    let head: Head = serde_json::from_slice(&payload)
        .map_err(|error| Finding::error("audit.head-malformed", "the signed head is malformed").found(error))?;
    if violated("audit.head-audience", head.aud != HEAD_AUDIENCE) {
        return Err(Finding::error("audit.head-audience", "this was not signed as an audit head")
            .found(&head.aud)
            .into());
    }
    Ok(head)
}

/// The point of the chain that a verification has reached.
#[derive(Debug, Clone)]
pub struct Walk {
    seq: u64,
    prev: [u8; 32],
    head: Option<Head>,
    head_seen: bool,
}

impl Walk {
    /// Starts before the first record. `head` is the signed head to hold the chain against.
    #[must_use]
    pub fn new(head: Option<Head>) -> Self {
        let head_seen = head.as_ref().is_none_or(|head| head.seq == 0);
        Self { seq: 0, prev: GENESIS, head, head_seen }
    }

    /// Takes the next record.
    ///
    /// # Errors
    /// The finding that names the first bad record: `audit.chain`, or `audit.head` where the signed head says another hash.
    pub fn step(&mut self, record: &Record) -> Result<(), Box<Finding>> {
        let expected = self.seq.saturating_add(1);
        let place = |what: &str| format!("audit record {expected}: {what}");
        let hash = record.compute(&self.prev);
        let bad = if record.seq != expected {
            Some((place("is missing or out of order"), expected.to_string(), record.seq.to_string()))
        } else if record.prev != hex::encode(self.prev) {
            Some((place("is not chained to the record before it"), hex::encode(self.prev), record.prev.clone()))
        } else if record.hash != hex::encode(hash) {
            Some((place("was changed after it was written"), record.hash.clone(), hex::encode(hash)))
        } else {
            None
        };
        if violated("audit.chain", bad.is_some()) {
            let (message, expected, found) = bad.unwrap_or_default();
            return Err(Box::new(Finding::error("audit.chain", message).expected(expected).found(found)));
        }
        self.seq = record.seq;
        self.prev = hash;
        if let Some(head) = self.head.as_ref().filter(|head| head.seq == record.seq) {
            self.head_seen = true;
            if violated("audit.head", head.hash != record.hash) {
                let message =
                    format!("audit record {expected}: the signed head names another hash; the chain was recomputed");
                return Err(Box::new(Finding::error("audit.head", message).expected(&head.hash).found(&record.hash)));
            }
        }
        Ok(())
    }

    /// Ends the walk: the last position and hash.
    ///
    /// # Errors
    /// `audit.head` when the chain ends before the signed head does.
    pub fn finish(self) -> Result<(u64, [u8; 32]), Box<Finding>> {
        if violated("audit.head", !self.head_seen) {
            let signed = self.head.map_or(0, |head| head.seq);
            let message = format!("audit record {}: is missing; the chain was cut", self.seq.saturating_add(1));
            return Err(Box::new(
                Finding::error("audit.head", message).expected(format!("{signed} records")).found(self.seq),
            ));
        }
        Ok((self.seq, self.prev))
    }
}

/// Verifies a whole chain against a signed head.
///
/// # Errors
/// The finding that names the first bad record.
pub fn verify<'r>(
    records: impl IntoIterator<Item = &'r Record>,
    head: Option<Head>,
) -> Result<(u64, [u8; 32]), Box<Finding>> {
    let mut walk = Walk::new(head);
    for record in records {
        walk.step(record)?;
    }
    walk.finish()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as URL;

    use super::*;
    use crate::keys::Keys;

    fn chain(count: u64) -> Vec<Record> {
        let mut prev = GENESIS;
        let mut out = Vec::new();
        for seq in 1..=count {
            let record = Record::chained(seq, 5, "operator:a", "host.label", &format!("h{seq}"), "{}", &prev);
            prev = hex::decode(&record.hash).unwrap().try_into().unwrap();
            out.push(record);
        }
        out
    }

    type Change = fn(&mut Vec<Record>);
    /// The last position, or the finding's id and the start of its message.
    type Expect = Result<u64, (&'static str, &'static str)>;

    #[test]
    fn d9_the_first_bad_record_is_named() {
        let rows: [(&str, Change, Expect); 7] = [
            ("honest", |_| {}, Ok(6)),
            ("edited", |c| c[2].subject = "other".into(), Err(("audit.chain", "audit record 3: was changed"))),
            (
                "edited, rehashed",
                |c| {
                    c[2] = Record::chained(
                        3,
                        5,
                        "x",
                        "y",
                        "z",
                        "{}",
                        &hex::decode(&c[1].hash).unwrap().try_into().unwrap(),
                    )
                },
                Err(("audit.chain", "audit record 4: is not chained")),
            ),
            (
                "removed",
                |c| {
                    c.remove(3);
                },
                Err(("audit.chain", "audit record 4: is missing")),
            ),
            ("reordered", |c| c.swap(1, 2), Err(("audit.chain", "audit record 2: is missing or out of order"))),
            ("d16 tail cut", |c| c.truncate(4), Err(("audit.head", "audit record 5: is missing; the chain was cut"))),
            (
                "d16 recomputed",
                |c| {
                    let mut other = chain(6);
                    other[0] = Record::chained(1, 6, "a", "b", "c", "{}", &GENESIS);
                    let mut prev: [u8; 32] = hex::decode(&other[0].hash).unwrap().try_into().unwrap();
                    for r in other.iter_mut().skip(1) {
                        *r = Record::chained(r.seq, r.unix_ms, &r.actor, &r.action, &r.subject, &r.detail, &prev);
                        prev = hex::decode(&r.hash).unwrap().try_into().unwrap();
                    }
                    *c = other;
                },
                Err(("audit.head", "audit record 6: the signed head names another hash")),
            ),
        ];
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::create(&dir.path().join("s")).unwrap();
        for (name, change, expect) in rows {
            let mut records = chain(6);
            let last: [u8; 32] = hex::decode(&records[5].hash).unwrap().try_into().unwrap();
            let head = sign_head(&keys.audit, 6, &last, 7).unwrap();
            let head = verify_head(&head, &keys.audit_set()).unwrap();
            change(&mut records);
            match (verify(&records, Some(head)), expect) {
                (Ok((seq, _)), Ok(want)) => assert_eq!(seq, want, "{name}"),
                (Err(finding), Err((id, text))) => {
                    assert_eq!(finding.id, id, "{name}");
                    assert!(finding.message.starts_with(text), "{name}: {}", finding.message);
                }
                (got, want) => panic!("{name}: {got:?}, expected {want:?}"),
            }
        }
    }

    #[test]
    fn d16_a_head_counts_only_under_the_audit_key() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::create(&dir.path().join("s")).unwrap();
        let good = sign_head(&keys.audit, 1, &GENESIS, 0).unwrap();
        assert!(verify_head(&good, &keys.audit_set()).is_ok());
        let stripped = good.rsplit_once('.').unwrap().0.to_owned() + ".";
        let other_typ = jws::sign(&Purpose { typ: "permit", ..HEAD }, b"{}", &keys.audit).unwrap();
        let unsigned = |header: String| format!("{}.e30.AAAA", URL.encode(header));
        let hashed = unsigned(format!(r#"{{"alg":"HS256","kid":"{}","typ":"{}"}}"#, keys.audit.kid(), HEAD.typ));
        let elsewhere = Head { aud: "hostmark".into(), seq: 1, hash: String::new(), unix_ms: 0 };
        let other_audience = jws::sign(&HEAD, &serde_json::to_vec(&elsewhere).unwrap(), &keys.audit).unwrap();
        let rows = [
            ("another audience", other_audience, "audit.head-audience"),
            ("another key of the same verifier", sign_head(&keys.results, 1, &GENESIS, 0).unwrap(), "audit.head-key"),
            ("another typ", other_typ, "audit.head-purpose"),
            ("no signature", stripped, "audit.head-signature"),
            ("a signature of another kind", hashed, "audit.head-algorithm"),
            ("no header", unsigned("{".into()), "audit.head-malformed"),
        ];
        for (name, token, expect) in rows {
            let findings = verify_head(&token, &keys.audit_set()).unwrap_err();
            assert!(findings.has(expect), "{name}: {findings:?}");
        }
    }
}
