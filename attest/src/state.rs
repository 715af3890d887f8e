//! What the verifier keeps of a host between rounds.
//!
//! DESIGN §4: counters, the IMA position, what earlier rounds established about files. A proof type is never read back from
//! bytes that merely look right: [`RoundState::open`] needs the seal, and the seal binds the host id and the AK's name.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};

use crate::counters::Counters;
use crate::digest::{Digest, HashAlg};
use crate::finding::{Finding, Findings};
use crate::ima::ImaPosition;
use crate::ima::keys::KeptKey;

/// Longest path that is kept to be shown.
const PATH_SHOWN: usize = 256;
/// Length of a seal: HMAC-SHA-256.
const SEAL: usize = 32;

/// What was established about one AK of one host, as of its last genuine round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoundState {
    raw: Raw,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Raw {
    host: String,
    ak_name: String,
    reset_count: u32,
    restart_count: u32,
    clock: u64,
    boot_id: String,
    ima_entries: u64,
    ima_pcr10: Option<String>,
    judged_by: String,
    runtime: RuntimeSeen,
    #[serde(default)]
    engine: EngineSeen,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    strayed: Option<Strayed>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    clone_suspected: bool,
}

/// An answer of this AK that is of another state of its TPM than the kept line: it fell behind, or is of another boot of one reset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Strayed {
    /// Its counters.
    pub counters: Counters,
    /// The boot that it says it is of.
    pub boot_id: String,
    /// It was of an earlier reset than the kept line when it was noted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub earlier_reset: bool,
    /// A round was accepted since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub passed: bool,
}

impl Strayed {
    pub(crate) fn new(counters: Counters, boot_id: &str) -> Self {
        Self { counters, boot_id: boot_id.to_owned(), earlier_reset: false, passed: false }
    }
}

/// What the files seen so far in this boot came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeSeen {
    /// Files whose digest a reference names.
    pub known: u64,
    /// Files whose digest no reference names.
    pub unknown: u64,
    /// Violations.
    pub violations: u64,
    /// The first findings about files; the counts above are complete.
    pub findings: Vec<Finding>,
    /// What was found of the list itself and is more than information: a delta does not show it again.
    #[serde(default)]
    pub list: Vec<Finding>,
    /// Kinds of entries that mean more than an unknown file.
    #[serde(default)]
    pub kinds: Kinds,
    /// When the IMA policy was loaded.
    #[serde(default)]
    pub policy: PolicySeen,
    /// Files at the paths of engine programs.
    #[serde(default)]
    pub programs: ProgramsSeen,
    /// Keys that keyrings of the policy were measured to hold, in this boot. As many as are followed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeptKey>,
}

/// Kinds of entries by their finding's id: how many, and the first one's path. As many as there are kinds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Kinds(BTreeMap<String, (u64, String)>);

impl Kinds {
    /// Counts one entry.
    pub(crate) fn add(&mut self, id: &str, path: &[u8]) {
        if let Some((count, _)) = self.0.get_mut(id) {
            *count = count.saturating_add(1);
        } else {
            let path = String::from_utf8_lossy(path.get(..PATH_SHOWN).unwrap_or(path)).into_owned();
            self.0.insert(id.to_owned(), (1, path));
        }
    }

    /// How many there are of a kind, and the first one's path.
    #[must_use]
    pub fn of(&self, id: &str) -> Option<(u64, &str)> {
        self.0.get(id).map(|(count, first)| (*count, first.as_str()))
    }
}

/// When the IMA policy was loaded, as far as the list shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicySeen {
    /// The policy's file was measured, with a digest that the references name.
    pub measured: bool,
    /// Known files measured before it that are neither PID 1's nor expected there.
    pub others: u64,
    /// The first of them.
    pub first: String,
}

/// Files at the paths of engine programs, and what was said of them. Bounded by the references and by what is judged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProgramsSeen {
    /// Measured, with a digest that the references allow for the path.
    pub listed: BTreeSet<PathDigest>,
    /// Measured, with an unknown digest, and held back.
    pub contested: BTreeSet<PathDigest>,
    /// Named by an engine manifest of this boot, with an unknown digest.
    pub said: BTreeSet<PathDigest>,
}

/// A path and a SHA-256 in hex.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathDigest {
    /// The path.
    pub path: String,
    /// The digest.
    pub digest: String,
}

/// Files of the engine manifest that were held against IMA, as truncated digests of path and content: bounded, and a delta that no
/// longer holds them needs no whole list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineSeen {
    /// Measured by the kernel in this boot.
    pub confirmed: BTreeSet<String>,
    /// Of the last manifest: nothing was measured under the path.
    pub absent: BTreeSet<String>,
    /// Of the last manifest: only other contents were measured under the path.
    pub other: BTreeSet<String>,
}

/// A key for seals, kept outside the database.
pub struct SealKey(hmac::Key);

impl SealKey {
    /// From 32 random bytes.
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// HMAC-SHA-256 over a domain string and length-prefixed parts.
    #[must_use]
    pub fn seal(&self, domain: &str, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        for part in std::iter::once(&domain.as_bytes()).chain(parts) {
            context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            context.update(part);
        }
        let mut out = [0; SEAL];
        out.copy_from_slice(context.sign().as_ref());
        out
    }

    /// Whether `seal` is the seal of these parts, in constant time.
    #[must_use]
    pub fn holds(&self, domain: &str, parts: &[&[u8]], seal: &[u8]) -> bool {
        use subtle::ConstantTimeEq as _;
        self.seal(domain, parts).ct_eq(seal).into()
    }
}

impl std::fmt::Debug for SealKey {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("SealKey")
    }
}

const DOMAIN: &str = "hostmark-round-state-v1";

impl RoundState {
    #[allow(clippy::too_many_arguments, reason = "each is one field, and only appraisal builds a state")]
    pub(crate) fn new(
        host: &str,
        ak_name: &str,
        counters: Counters,
        boot_id: &str,
        ima: &ImaPosition,
        judged_by: &str,
        runtime: RuntimeSeen,
        engine: EngineSeen,
    ) -> Self {
        Self {
            raw: Raw {
                host: host.to_owned(),
                ak_name: ak_name.to_owned(),
                reset_count: counters.reset_count,
                restart_count: counters.restart_count,
                clock: counters.clock,
                boot_id: boot_id.to_owned(),
                ima_entries: ima.entries,
                ima_pcr10: ima.pcr10.get(&HashAlg::Sha256).map(Digest::to_string),
                judged_by: judged_by.to_owned(),
                runtime,
                engine,
                strayed: None,
                clone_suspected: false,
            },
        }
    }

    /// The same, with an answer beside it that does not continue it.
    pub(crate) fn after_stray(&self, stray: Strayed) -> Self {
        Self { raw: Raw { strayed: Some(stray), ..self.raw.clone() } }
    }

    /// The same, as what follows `before`: a stray answer stays noted over a reset, or a copy that is reset before each answer is never seen.
    pub(crate) fn following(mut self, before: Option<&Self>) -> Self {
        let stray = before.and_then(Self::strayed).cloned();
        self.raw.strayed = stray.map(|stray| Strayed { passed: true, ..stray });
        self
    }

    /// The same, and not believed any more.
    pub(crate) fn suspected(&self) -> Self {
        Self { raw: Raw { clone_suspected: true, ..self.raw.clone() } }
    }

    /// The sealed form.
    #[must_use]
    pub fn seal(&self, key: &SealKey) -> Vec<u8> {
        let body = serde_json::to_vec(&self.raw).unwrap_or_default();
        let mut out = key.seal(DOMAIN, &[self.raw.host.as_bytes(), self.raw.ak_name.as_bytes(), &body]).to_vec();
        out.extend_from_slice(&body);
        out
    }

    /// Opens a sealed form for exactly this host and AK.
    ///
    /// # Errors
    /// `state.seal`: the stored form was changed, or is another host's or another AK's.
    pub fn open(sealed: &[u8], key: &SealKey, host: &str, ak_name: &str) -> Result<Self, Findings> {
        let (seal, body) = sealed.split_at(sealed.len().min(SEAL));
        let holds = key.holds(DOMAIN, &[host.as_bytes(), ak_name.as_bytes(), body], seal);
        let raw = serde_json::from_slice::<Raw>(body).ok();
        let refused = || {
            Finding::error("", "what was kept of this host is not what the verifier stored")
                .expected(format!("a seal for host {host} and AK {ak_name}"))
                .fix("restore the database from a backup, or enrol the host again")
        };
        let mut findings = Findings::new();
        findings.check("state.seal", !holds, refused);
        match raw {
            Some(raw) if findings.acceptable() => Ok(Self { raw }),
            Some(_) => Err(findings),
            None => Err(Findings::from(Finding { id: "state.seal".to_owned(), ..refused() })),
        }
    }

    /// What is kept, for a round that the verifier signs (`stored_round`).
    pub(crate) const fn raw(&self) -> &Raw {
        &self.raw
    }

    /// What a verified signature of the verifier covers, for exactly this host and AK.
    pub(crate) fn of_verified(raw: Raw, host: &str, ak_name: &str) -> Result<Self, Findings> {
        let mut findings = Findings::new();
        findings.check("state.owner", raw.host != host || raw.ak_name != ak_name, || {
            Finding::error("", "what was kept is another host's or another AK's")
                .expected(format!("host {host}, AK {ak_name}"))
                .found(format!("host {}, AK {}", raw.host, raw.ak_name))
        });
        if findings.acceptable() { Ok(Self { raw }) } else { Err(findings) }
    }

    /// The TPM's counters in that round.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        Counters { reset_count: self.raw.reset_count, restart_count: self.raw.restart_count, clock: self.raw.clock }
    }

    /// The last answer that did not continue this line.
    #[must_use]
    pub const fn strayed(&self) -> Option<&Strayed> {
        self.raw.strayed.as_ref()
    }

    /// Whether two states of this TPM answered in turn: no answer counts until a person has enrolled the host again.
    #[must_use]
    pub const fn clone_suspected(&self) -> bool {
        self.raw.clone_suspected
    }

    /// The boot id that the host log bore out; empty while none did.
    #[must_use]
    pub fn boot_id(&self) -> &str {
        &self.raw.boot_id
    }

    /// How far the IMA list was verified.
    #[must_use]
    pub fn ima(&self) -> ImaPosition {
        let value = self.raw.ima_pcr10.as_deref().and_then(|hex| Digest::from_hex(HashAlg::Sha256, hex));
        ImaPosition {
            entries: self.raw.ima_entries,
            pcr10: value.into_iter().map(|value| (HashAlg::Sha256, value)).collect(),
        }
    }

    /// Which policy, references and windows judged the files so far.
    #[must_use]
    pub fn judged_by(&self) -> &str {
        &self.raw.judged_by
    }

    /// What the files seen so far came to.
    #[must_use]
    pub const fn runtime(&self) -> &RuntimeSeen {
        &self.raw.runtime
    }

    /// Which files of the engine manifest were held against IMA.
    #[must_use]
    pub const fn engine(&self) -> &EngineSeen {
        &self.raw.engine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_binds_host_ak_and_content() {
        let key = SealKey::new(&[1; 32]);
        let counters = Counters { reset_count: 1, restart_count: 2, clock: 3 };
        let position = ImaPosition { entries: 4, pcr10: [(HashAlg::Sha256, Digest::ones(HashAlg::Sha256))].into() };
        let state =
            RoundState::new("h", "ak", counters, "b", &position, "p1", RuntimeSeen::default(), EngineSeen::default());
        let sealed = state.seal(&key);
        let opened = RoundState::open(&sealed, &key, "h", "ak").unwrap();
        assert_eq!((&opened, opened.ima()), (&state, position));
        let refused = |sealed: &[u8], key: &SealKey, host, ak| RoundState::open(sealed, key, host, ak).is_err();
        assert!(refused(&sealed, &key, "h2", "ak"));
        assert!(refused(&sealed, &key, "h", "ak2"));
        assert!(refused(&sealed, &SealKey::new(&[2; 32]), "h", "ak"));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(refused(&changed, &key, "h", "ak"), "byte {at}");
        }
        assert!(refused(&sealed[..20], &key, "h", "ak"));
    }
}
