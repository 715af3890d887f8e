//! Nonces: issued by the verifier, for one host and one purpose, used once.
//!
//! A3, A24, A27. Of one host's rounds only those count that were asked for later than the one that is recorded: an answer that was held
//! back on its way shows older counters and says nothing of the host. The row is consumed under `BEGIN IMMEDIATE` in the transaction that grants something, so one nonce shown to two processes wins once.

use std::time::Duration;

use hostmark_attest::check::violated;
use hostmark_attest::finding::Finding;
use hostmark_attest::wire::Nonce;
use rusqlite::{OptionalExtension as _, params};

use super::{Store, Tx};
use crate::clock::{Now, millis};
use crate::keys::random;
use crate::refusal::{Kind, Outcome, Refusal};

/// Unused nonces that one host may hold: a host has one round at a time, some retries are lost on the way.
const OUTSTANDING_MAX: i64 = 8;
/// How long a used or expired nonce is remembered, so that its refusal can say why.
const REMEMBERED: Duration = Duration::from_secs(600);

/// What a nonce is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Purpose {
    /// An attestation round.
    Round,
    /// The renewal of a host's certificate.
    Renewal,
}

impl Purpose {
    /// Its name in the store.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Round => "round",
            Self::Renewal => "renewal",
        }
    }
}

/// A new nonce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedNonce {
    /// The nonce.
    pub nonce: Nonce,
    /// Time left to answer.
    pub expires_in_ms: u64,
}

/// A nonce that was just used up. Its issue is where a lease starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumedNonce {
    /// The nonce.
    pub nonce: Nonce,
    /// The host it was issued to.
    pub host: String,
    /// Boot id under which the next field counts.
    pub boot_id: String,
    /// CLOCK_BOOTTIME at issue.
    pub issued_boot_ms: i64,
    /// Wall clock at issue.
    pub issued_unix_ms: i64,
    /// What the challenge asked for, as given to [`Store::issue_nonce`].
    pub detail: String,
}

impl Tx<'_> {
    /// Uses a nonce up.
    ///
    /// # Errors
    /// 422 with one of `nonce.unknown`, `nonce.purpose`, `nonce.other-host`, `nonce.used`, `nonce.expired`, `nonce.superseded`.
    pub fn consume_nonce(&self, nonce: &Nonce, host: &str, purpose: Purpose) -> Outcome<ConsumedNonce> {
        let refuse = |id: &str, message: &str| {
            Err(Refusal::new(Kind::Refused, Finding::error(id, message).fix("ask for a new challenge")))
        };
        let row = self
            .prepare_cached(
                "SELECT host, purpose, boot_id, issued_boot_ms, issued_unix_ms, expires_boot_ms, detail, used_unix_ms IS NOT NULL FROM nonces WHERE nonce = ?",
            )?
            .query_row(
                [nonce.0],
                |row| {
                    let consumed = ConsumedNonce {
                        nonce: *nonce,
                        host: row.get(0)?,
                        boot_id: row.get(2)?,
                        issued_boot_ms: row.get(3)?,
                        issued_unix_ms: row.get(4)?,
                        detail: row.get(6)?,
                    };
                    Ok((consumed, row.get::<_, String>(1)?, row.get::<_, i64>(5)?, row.get::<_, bool>(7)?))
                },
            )
            .optional()?;
        let Some((consumed, issued_for, expires_boot_ms, used)) = row else {
            return refuse("nonce.unknown", "the verifier did not issue this nonce, or has long forgotten it");
        };
        if violated("nonce.other-host", consumed.host != host) {
            return refuse("nonce.other-host", "this nonce was issued to another host");
        }
        if violated("nonce.purpose", issued_for != purpose.name()) {
            return refuse("nonce.purpose", "this nonce was issued for something else");
        }
        if violated("nonce.used", used) {
            return refuse("nonce.used", "this nonce was used before");
        }
        if violated("nonce.expired", self.now().left(&consumed.boot_id, expires_boot_ms) == 0) {
            return refuse("nonce.expired", "this nonce has expired");
        }
        if violated("nonce.superseded", purpose == Purpose::Round && self.recorded_later(&consumed)?) {
            return refuse("nonce.superseded", "a round of this host that was asked for later is recorded");
        }
        self.prepare_cached("UPDATE nonces SET used_unix_ms = ? WHERE nonce = ?")?
            .execute(params![self.now().unix_ms, nonce.0])?;
        Ok(consumed)
    }
}

impl Store {
    /// Issues a nonce. A host that holds too many unused ones loses its oldest.
    ///
    /// # Errors
    /// 503.
    pub fn issue_nonce(
        &self,
        now: &Now,
        host: &str,
        purpose: Purpose,
        life: Duration,
        detail: &str,
    ) -> Outcome<IssuedNonce> {
        let nonce = Nonce(random().map_err(Refusal::internal)?);
        self.write_soon(now, |tx| {
            tx.prepare_cached(
                "DELETE FROM nonces WHERE host = ?1 AND purpose = ?3 AND used_unix_ms IS NULL AND nonce NOT IN
                   (SELECT nonce FROM nonces WHERE host = ?1 AND purpose = ?3 AND used_unix_ms IS NULL ORDER BY issued_unix_ms DESC, rowid DESC LIMIT ?2)",
            )?
            .execute(params![host, OUTSTANDING_MAX.saturating_sub(1), purpose.name()])?;
            tx.prepare_cached(
                "INSERT INTO nonces (nonce, host, purpose, boot_id, issued_boot_ms, issued_unix_ms, expires_boot_ms, detail) VALUES (?,?,?,?,?,?,?,?)",
            )?
            .execute(params![
                nonce.0,
                host,
                purpose.name(),
                &*now.boot_id,
                now.boot_ms,
                now.unix_ms,
                now.boot_after(life),
                detail
            ])?;
            Ok(())
        })?;
        Ok(IssuedNonce { nonce, expires_in_ms: u64::try_from(millis(life)).unwrap_or_default() })
    }

    /// Uses a nonce up in a transaction of its own.
    ///
    /// # Errors
    /// As [`Tx::consume_nonce`].
    pub fn consume_nonce(&self, now: &Now, nonce: &Nonce, host: &str, purpose: Purpose) -> Outcome<ConsumedNonce> {
        self.write(now, |tx| tx.consume_nonce(nonce, host, purpose))
    }

    /// Forgets nonces that expired some time ago, and those of earlier boots. Returns how many.
    ///
    /// # Errors
    /// 503.
    pub fn prune_nonces(&self, now: &Now) -> Outcome<usize> {
        self.write(now, |tx| {
            let before = now.boot_ms.saturating_sub(millis(REMEMBERED));
            Ok(tx.execute(
                "DELETE FROM nonces WHERE boot_id <> ?1 OR expires_boot_ms < ?2",
                params![&*now.boot_id, before],
            )?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{at, store};
    use super::*;
    use std::sync::Arc;

    const LIFE: Duration = Duration::from_secs(60);

    #[test]
    fn a3_each_bad_nonce_has_its_own_reason() {
        let (_dir, store) = store();
        let fresh = |purpose| store.issue_nonce(&at(0), "a", purpose, LIFE, "{}").unwrap().nonce;
        let used = fresh(Purpose::Round);
        let honest = store.consume_nonce(&at(5), &used, "a", Purpose::Round).unwrap();
        assert_eq!((honest.issued_boot_ms, honest.host.as_str()), (0, "a"));
        let mut other_boot = at(5);
        other_boot.boot_id = "boot-2".into();
        let rows = [
            ("nonce.used", used, "a", at(6)),
            ("nonce.unknown", Nonce([7; 32]), "a", at(6)),
            ("nonce.other-host", fresh(Purpose::Round), "b", at(6)),
            ("nonce.purpose", fresh(Purpose::Renewal), "a", at(6)),
            ("nonce.expired", fresh(Purpose::Round), "a", at(60_000)),
            ("nonce.expired", fresh(Purpose::Round), "a", other_boot),
        ];
        for (expect, nonce, host, now) in rows {
            assert_eq!(store.consume_nonce(&now, &nonce, host, Purpose::Round).unwrap_err().id(), expect);
        }
        assert!(store.consume_nonce(&at(59_999), &fresh(Purpose::Round), "a", Purpose::Round).is_ok());
    }

    #[test]
    fn what_grants_nothing_waits_for_no_disk_and_everything_else_does() {
        let (_dir, store) = store();
        // SQLite's own numbers: 1 NORMAL, 2 FULL.
        let level = |tx: &Tx<'_>| Ok(tx.pragma_query_value(None, "synchronous", |row| row.get::<_, i64>(0))?);
        for _ in 0..2 {
            assert_eq!(store.write_soon(&at(0), level).unwrap(), 1);
            let nonce = store.issue_nonce(&at(0), "a", Purpose::Round, LIFE, "{}").unwrap().nonce;
            assert_eq!(store.write(&at(0), level).unwrap(), 2, "whatever came before");
            // A command that is refused leaves nothing behind either.
            let refused = store.write_soon(&at(0), |tx| tx.consume_nonce(&nonce, "b", Purpose::Round));
            assert_eq!(refused.unwrap_err().id(), "nonce.other-host");
            assert_eq!(store.write(&at(0), level).unwrap(), 2);
            store.consume_nonce(&at(1), &nonce, "a", Purpose::Round).unwrap();
        }
    }

    #[test]
    fn a27_two_stores_on_one_file_consume_a_nonce_once() {
        let (dir, first) = store();
        let second = Arc::new(Store::open(&dir.path().join("state/store.sqlite"), Arc::clone(first.keys())).unwrap());
        for _ in 0..10 {
            let nonce = first.issue_nonce(&at(0), "a", Purpose::Round, LIFE, "{}").unwrap().nonce;
            let tries: Vec<_> = [&first, &second, &first, &second]
                .map(|store| {
                    let store = Arc::clone(store);
                    std::thread::spawn(move || store.consume_nonce(&at(1), &nonce, "a", Purpose::Round).map(|_| ()))
                })
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect();
            assert_eq!(tries.iter().filter(|one| one.is_ok()).count(), 1);
            assert!(tries.iter().filter_map(|one| one.as_ref().err()).all(|refusal| refusal.id() == "nonce.used"));
        }
    }

    #[test]
    fn d5_a_host_that_only_asks_fills_nothing() {
        let (_dir, store) = store();
        let nonces: Vec<_> =
            (0..40).map(|ms| store.issue_nonce(&at(ms), "a", Purpose::Round, LIFE, "{}").unwrap().nonce).collect();
        let kept: i64 =
            store.read(|sql| Ok(sql.query_row("SELECT count(*) FROM nonces", [], |row| row.get(0))?)).unwrap();
        assert_eq!(kept, OUTSTANDING_MAX);
        assert!(store.consume_nonce(&at(41), &nonces[39], "a", Purpose::Round).is_ok());
        assert_eq!(store.prune_nonces(&at(10_000_000)).unwrap(), 8);
    }
}
