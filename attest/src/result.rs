//! Attestation Results: EAR, a signed JWT that says what was found and until when it holds.
//!
//! draft-ietf-rats-ear, RFC 7519. [`VerifiedResult`] exists only after signature, purpose, audience, host and expiry were
//! checked; the Relying Party admits from nothing else. It does not say that a host may enter a pool: that is [`crate::admission`]'s.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use serde::{Deserialize, Serialize};

use crate::finding::{Finding, Findings};
use crate::identity::class::TpmClass;
use crate::jws::{self, KeySet, Purpose, SignError, Signer};
use crate::kernel_parameters::Lockdown;
use crate::label::Label;
use crate::tier::{Basis, Submodule, Tier};

/// Signatures over Attestation Results.
pub const RESULT: Purpose = Purpose {
    typ: "ear+jwt",
    malformed: "result.malformed",
    algorithm: "result.algorithm",
    purpose: "result.purpose",
    key: "result.key",
    signature: "result.signature",
};

/// The audience of every result: whoever admits hosts.
pub const AUDIENCE: &str = "hostmark-relying-party";
/// The EAT profile of EAR.
const PROFILE: &str = "tag:github.com,2023:veraison/ear";
/// Bytes that the payload of most results has room in.
const PAYLOAD: usize = 4096;
/// Contents of results that are kept track of without looking whether anybody holds them.
const SHARED_MIN: usize = 256;

/// The payload of a result. Its times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResultClaims {
    /// The EAT profile.
    pub eat_profile: String,
    /// The host id.
    pub sub: String,
    /// Who may rely on it.
    pub aud: String,
    /// When the round's nonce was issued: the lease counts from here.
    pub iat: i64,
    /// When the result ends.
    pub exp: i64,
    /// Who appraised.
    #[serde(rename = "ear.verifier-id")]
    pub verifier: VerifierId,
    /// One appraisal per subsystem.
    pub submods: BTreeMap<Submodule, SubmoduleClaims>,
    /// What Hostmark says beyond EAR.
    pub hostmark: HostClaims,
}

/// `ear.verifier-id`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifierId {
    /// The developer.
    pub developer: String,
    /// Name and version.
    pub build: String,
}

/// One subsystem's appraisal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubmoduleClaims {
    /// The worst tier among its claims; none when nothing was checked.
    #[serde(rename = "ear.status")]
    pub status: Tier,
    /// AR4SI claim → value.
    #[serde(rename = "ear.trustworthiness-vector")]
    pub vector: BTreeMap<String, i8>,
    /// The policy that judged.
    #[serde(rename = "ear.appraisal-policy-id")]
    pub policy: String,
    /// AR4SI claim → what it rests on.
    #[serde(rename = "hostmark.basis")]
    pub basis: BTreeMap<String, Basis>,
    /// The findings about this subsystem.
    #[serde(rename = "hostmark.findings")]
    pub findings: Vec<Finding>,
}

/// What admission needs beside the tiers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostClaims {
    /// The TPM's class, derived from the current root bundle in this round.
    pub tpm_class: TpmClass,
    /// The appraisal policy's name.
    pub appraisal: String,
    /// Its version.
    pub appraisal_version: u64,
    /// Names of evidence sources that were not the machine's own.
    pub sources: Vec<String>,
    /// The asset tag's label, where a tag was proven.
    #[serde(default)]
    pub tag_label: Option<Label>,
    /// The asset tag's location, where a tag was proven.
    #[serde(default)]
    pub tag_location: Option<String>,
    /// The asset tag's serial, where a tag was proven.
    #[serde(default)]
    pub tag_serial: Option<u64>,
    /// What the boot log proves, where it replays.
    #[serde(default)]
    pub boot: Option<BootFacts>,
}

/// What a boot log proves of a boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootFacts {
    /// `on`, `off` or `unknown`.
    pub secure_boot: String,
    /// The kernel command line, where a PCR holds it.
    pub command_line: Option<String>,
    /// The lockdown that it asks for.
    pub lockdown: Option<Lockdown>,
    /// The sections of the unified kernel image that was booted, with their digests in hex.
    #[serde(default)]
    pub image: BTreeMap<String, String>,
    /// What systemd measured while the host runs (boot phases, machine id, file systems), by PCR, where its log replays: the texts that
    /// hash to what was extended.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub userspace: BTreeMap<u8, Vec<String>>,
}

impl ResultClaims {
    /// The claims of one round.
    #[must_use]
    pub fn new(
        host: String,
        issued: i64,
        expires: i64,
        submods: BTreeMap<Submodule, SubmoduleClaims>,
        hostmark: HostClaims,
    ) -> Self {
        let build = concat!("hostmark-attest ", env!("CARGO_PKG_VERSION")).to_owned();
        Self {
            eat_profile: PROFILE.to_owned(),
            sub: host,
            aud: AUDIENCE.to_owned(),
            iat: issued,
            exp: expires,
            verifier: VerifierId { developer: "hostmark".to_owned(), build },
            submods,
            hostmark,
        }
    }

    /// Signs the result.
    ///
    /// # Errors
    /// [`SignError`].
    pub fn sign(&self, signer: &dyn Signer) -> Result<String, SignError> {
        let mut payload = Vec::with_capacity(PAYLOAD);
        serde_json::to_writer(&mut payload, self).map_err(|_| SignError { kid: signer.kid().to_owned() })?;
        jws::sign(&RESULT, &payload, signer)
    }
}

/// A result whose signature, purpose, audience, host and times were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedResult {
    host: Box<str>,
    issued: i64,
    expires: i64,
    said: Arc<Said>,
}

/// What a result says, but for whom and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Said {
    verifier: VerifierId,
    submods: BTreeMap<Submodule, SubmoduleClaims>,
    hostmark: HostClaims,
}

/// What results say, each content once: most hosts of a site come to the same. Nothing is looked up in it but by the whole content.
#[derive(Debug, Default)]
pub struct SharedResults {
    all: HashMap<[u8; 32], Weak<Said>>,
    /// Contents that nobody holds any longer go when there are this many.
    full: usize,
}

impl VerifiedResult {
    /// Verifies a token for `host` at `now` (seconds since 1970).
    ///
    /// # Errors
    /// The findings that refuse it: `result.*`.
    pub fn verify(token: &str, keys: &KeySet, host: &str, now: i64) -> Result<Self, Findings> {
        let payload = jws::verify(&RESULT, token, keys)?;
        let claims: ResultClaims = serde_json::from_slice(&payload).map_err(|error| {
            Findings::from(
                Finding::error("result.claims", "the payload is not a complete Attestation Result")
                    .found(error)
                    .fix("every claim must be present, `exp` included; obtain a result from the verifier"),
            )
        })?;
        let mut findings = Findings::new();
        findings.check("result.audience", claims.aud != AUDIENCE || claims.eat_profile != PROFILE, || {
            Finding::error("", "the result is meant for someone else").expected(AUDIENCE).found(&claims.aud)
        });
        findings.check("result.host", claims.sub != host, || {
            Finding::error("", "the result is another host's").expected(host).found(&claims.sub)
        });
        findings.check("result.expired", now >= claims.exp || claims.exp <= claims.iat, || {
            Finding::error("", "the result has ended").expected(format!("exp after {now}")).found(claims.exp)
        });
        findings.check("result.not-yet", now < claims.iat, || {
            Finding::error("", "the result begins in the future").expected(format!("iat up to {now}")).found(claims.iat)
        });
        let said = Said { verifier: claims.verifier, submods: claims.submods, hostmark: claims.hostmark };
        let verified = Self { host: claims.sub.into(), issued: claims.iat, expires: claims.exp, said: Arc::new(said) };
        if findings.acceptable() { Ok(verified) } else { Err(findings) }
    }

    /// The same result, sharing what it says with equal ones.
    #[must_use]
    pub fn shared(mut self, results: &mut SharedResults) -> Self {
        // Text keys and plain values: this cannot fail, and what failed would be shared with nothing.
        let Ok(content) = serde_json::to_vec(&*self.said) else { return self };
        let key = crate::digest::sha256(&[&content]);
        match results.all.get(&key).and_then(Weak::upgrade).filter(|known| *known == self.said) {
            Some(known) => self.said = known,
            None => {
                results.all.insert(key, Arc::downgrade(&self.said));
                if results.all.len() > results.full {
                    results.all.retain(|_, one| one.strong_count() > 0);
                    results.full = results.all.len().saturating_mul(2).max(SHARED_MIN);
                }
            }
        }
        self
    }

    /// The host's id.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// When the nonce was issued, seconds since 1970.
    #[must_use]
    pub const fn issued(&self) -> i64 {
        self.issued
    }

    /// When it ends, seconds since 1970.
    #[must_use]
    pub const fn expires(&self) -> i64 {
        self.expires
    }

    /// Every subsystem's appraisal.
    #[must_use]
    pub fn submodules(&self) -> &BTreeMap<Submodule, SubmoduleClaims> {
        &self.said.submods
    }

    /// One subsystem's tier; none when it was not appraised.
    #[must_use]
    pub fn tier(&self, submodule: Submodule) -> Tier {
        self.said.submods.get(&submodule).map_or(Tier::None, |one| one.status)
    }

    /// One subsystem's findings.
    #[must_use]
    pub fn findings(&self, submodule: Submodule) -> &[Finding] {
        self.said.submods.get(&submodule).map_or(&[], |one| one.findings.as_slice())
    }

    /// Whether any subsystem is contraindicated: the host is disproven.
    #[must_use]
    pub fn disproven(&self) -> bool {
        self.said.submods.values().any(|one| one.status == Tier::Contraindicated)
    }

    /// What admission needs beside the tiers.
    #[must_use]
    pub fn host_claims(&self) -> &HostClaims {
        &self.said.hostmark
    }

    /// All claims, to show.
    #[must_use]
    pub fn claims(&self) -> ResultClaims {
        let Said { verifier, submods, hostmark } = &*self.said;
        ResultClaims {
            eat_profile: PROFILE.to_owned(),
            sub: self.host.to_string(),
            aud: AUDIENCE.to_owned(),
            iat: self.issued,
            exp: self.expires,
            verifier: verifier.clone(),
            submods: submods.clone(),
            hostmark: hostmark.clone(),
        }
    }
}
