//! A round that the verifier kept: the evidence as it came, what the verifier knew of the host, and what it said.
//!
//! The verifier signs the whole, so that an auditor can judge it again offline and hold the outcome against the recorded one, claim by
//! claim. It establishes that this verifier kept this round; with [`StoredRound::replay`], that the same evidence comes to the same
//! result under given policies. It does **not** say that the host is good now, and grants nothing.
//!
//! The file: a line `hostmark-evidence-v1 SIGNATURE` (a detached JWS over all that follows), a line of JSON, the evidence's CBOR.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::appraisal::{Endorsed, Judge};
use crate::bytes::{ParseError, Problem};
use crate::evidence::{EVIDENCE_MAX, Evidence};
use crate::finding::{Finding, Findings, Severity};
use crate::identity::ak::verify_ak;
use crate::identity::class::TpmClass;
use crate::jws::{KeySet, Purpose, SignError, Signer, TOKEN_MAX, sign_detached, verify_detached};
use crate::result::{ResultClaims, SubmoduleClaims, VerifiedResult};
use crate::round::{Known, Stop, judge_round};
use crate::state::{Raw, RoundState};
use crate::tpm::public::Public;
use crate::wire::{B64, Nonce};

/// Signatures over kept rounds, by the key of results.
pub const STORED_ROUND: Purpose = Purpose {
    typ: "hostmark-evidence",
    malformed: "evidence.malformed-signature",
    algorithm: "evidence.algorithm",
    purpose: "evidence.purpose",
    key: "evidence.key",
    signature: "evidence.signature",
};

const MAGIC: &[u8] = b"hostmark-evidence-v1 ";
/// Largest file: the evidence, and what is kept of a host (its findings and programs are bounded).
pub const STORED_ROUND_MAX: usize = EVIDENCE_MAX + (16 << 20);

/// What a round came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    /// Whether it disproved the host.
    pub disproven: bool,
    /// The signed Attestation Result; None for evidence that was not genuine.
    pub result: Option<String>,
    /// Why there is none.
    pub findings: Vec<Finding>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Meta {
    host: String,
    ek: B64,
    ak: B64,
    tpm_class: TpmClass,
    endorsement: Vec<Finding>,
    tag_signers: BTreeMap<String, B64>,
    tag_serial: Option<u64>,
    kept: Option<Raw>,
    nonce: Nonce,
    /// Seconds since 1970.
    at: i64,
    policy: String,
    policy_version: u64,
    judged_by: String,
    recorded: Recorded,
}

/// Makes the file of a round: what came in, what was known, and what it came to.
///
/// # Errors
/// [`SignError`].
pub fn keep(
    evidence: &[u8],
    known: &Known<'_>,
    judge: &Judge,
    recorded: Recorded,
    signer: &dyn Signer,
) -> Result<Vec<u8>, SignError> {
    let meta = Meta {
        host: known.host.to_owned(),
        ek: B64(known.ek.as_bytes().to_vec()),
        ak: B64(known.ak.public().as_bytes().to_vec()),
        tpm_class: known.endorsed.class,
        endorsement: known.endorsed.findings.as_slice().to_vec(),
        tag_signers: known.tag_signers.iter().map(|(kid, point)| (kid.to_owned(), B64(point.to_vec()))).collect(),
        tag_serial: known.tag_serial,
        kept: known.kept.map(|kept| kept.raw().clone()),
        nonce: known.nonce,
        at: known.at.unix_timestamp(),
        policy: judge.policy().name().to_owned(),
        policy_version: judge.policy().version(),
        judged_by: judge.fingerprint(known.at),
        recorded,
    };
    let mut body = serde_json::to_vec(&meta).map_err(|_| SignError { kid: signer.kid().to_owned() })?;
    body.push(b'\n');
    body.extend_from_slice(evidence);
    let token = sign_detached(&STORED_ROUND, &body, signer)?;
    Ok([MAGIC, token.as_bytes(), b"\n", &body].concat())
}

/// Why a file is no kept round.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoredRoundError {
    /// Not of the form.
    Malformed(ParseError),
    /// Of the form, but not this verifier's.
    Refused(Findings),
}

impl From<ParseError> for StoredRoundError {
    fn from(error: ParseError) -> Self {
        Self::Malformed(error)
    }
}

/// A round that its verifier signed. Only [`StoredRound::verify`] makes one.
#[derive(Debug)]
pub struct StoredRound {
    meta: Meta,
    ek: Public,
    ak: Public,
    at: OffsetDateTime,
    evidence: Vec<u8>,
    recorded: Option<ResultClaims>,
}

/// What a replay came to.
#[derive(Debug)]
pub struct Replay {
    /// The result's claims; None where the evidence yields none.
    pub claims: Option<ResultClaims>,
    /// `evidence.replay` where the outcome is not the recorded one, and what explains it. For evidence that yields no result, why.
    pub findings: Findings,
}

impl StoredRound {
    /// Reads a file and verifies its signature, and that of the recorded result, with the verifier's keys for results.
    ///
    /// # Errors
    /// [`StoredRoundError`].
    pub fn verify(file: &[u8], keys: &KeySet) -> Result<Self, StoredRoundError> {
        let malformed = |at, what| ParseError { at, problem: Problem::Malformed { what } };
        let rest = file.strip_prefix(MAGIC).ok_or_else(|| malformed(0, "not a kept round of a verifier"))?;
        let line = rest.iter().take(TOKEN_MAX).position(|byte| *byte == b'\n');
        let line = line.ok_or_else(|| malformed(MAGIC.len(), "the line of the signature does not end"))?;
        let (token, body) = rest.split_at_checked(line).unwrap_or_default();
        let token = std::str::from_utf8(token).map_err(|_| malformed(MAGIC.len(), "the signature is not text"))?;
        let body = body.get(1..).unwrap_or_default();
        verify_detached(&STORED_ROUND, body, token, keys).map_err(StoredRoundError::Refused)?;

        let start = file.len().saturating_sub(body.len());
        let end = body.iter().position(|byte| *byte == b'\n').ok_or_else(|| malformed(start, "no evidence follows"))?;
        let (json, evidence) = body.split_at_checked(end).unwrap_or_default();
        let meta: Meta =
            serde_json::from_slice(json).map_err(|_| malformed(start, "what the verifier knew cannot be read"))?;
        let ek = Public::parse(&meta.ek.0)?;
        let ak = Public::parse(&meta.ak.0)?;
        let at = OffsetDateTime::from_unix_timestamp(meta.at).map_err(|_| malformed(start, "no such time"))?;
        let recorded = match &meta.recorded.result {
            Some(token) => {
                let issued = issued(token).ok_or_else(|| malformed(start, "the recorded result cannot be read"))?;
                let result =
                    VerifiedResult::verify(token, keys, &meta.host, issued).map_err(StoredRoundError::Refused)?;
                Some(result.claims())
            }
            None => None,
        };
        let evidence = evidence.get(1..).unwrap_or_default().to_vec();
        Ok(Self { meta, ek, ak, at, evidence, recorded })
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.meta.host
    }

    /// When it was judged.
    #[must_use]
    pub const fn at(&self) -> OffsetDateTime {
        self.at
    }

    /// The appraisal policy that judged, and its version.
    #[must_use]
    pub fn policy(&self) -> (&str, u64) {
        (&self.meta.policy, self.meta.policy_version)
    }

    /// What it came to.
    #[must_use]
    pub const fn recorded(&self) -> &Recorded {
        &self.meta.recorded
    }

    /// Judges the evidence again, at the time `at`, and holds the outcome against the recorded one.
    #[must_use]
    pub fn replay(&self, judge: &Judge, at: OffsetDateTime) -> Replay {
        let mut findings = Findings::new();
        if at != self.at {
            findings.push(
                Finding::info("evidence.time", "judged at another time than the verifier did")
                    .expected(self.at)
                    .found(at),
            );
        }
        findings.check("evidence.judged-by", judge.fingerprint(at) != self.meta.judged_by, || {
            Finding::warning("", "judged by another policy or other references than the verifier's")
                .expected(format!("{}@{} and the references of that time", self.meta.policy, self.meta.policy_version))
                .found(format!("{}@{}", judge.policy().name(), judge.policy().version()))
                .fix("give the files that were published when the round was judged, to hold it against the recorded result")
        });
        let (claims, told) = match self.judge(judge, at) {
            Ok(claims) => (Some(claims), Vec::new()),
            Err(told) => (None, told.into_vec()),
        };
        let difference = match (&self.recorded, &claims) {
            (Some(recorded), Some(claims)) => difference(recorded, claims, &mut findings),
            (None, None) if told == self.meta.recorded.findings => None,
            (None, None) => Some((ids(&self.meta.recorded.findings), ids(&told))),
            (Some(_), None) => Some(("a result".to_owned(), format!("no result: {}", ids(&told)))),
            (None, Some(_)) => {
                Some((format!("no result: {}", ids(&self.meta.recorded.findings)), "a result".to_owned()))
            }
        };
        let (expected, found) = difference.clone().unwrap_or_default();
        findings.check("evidence.replay", difference.is_some(), || {
            Finding::error("", "the evidence does not come to the result that was recorded")
                .expected(expected)
                .found(found)
                .fix("if policy, references and time are the round's own, ask who could change the verifier")
        });
        findings.append(told.into());
        Replay { claims, findings }
    }

    fn judge(&self, judge: &Judge, at: OffsetDateTime) -> Result<ResultClaims, Findings> {
        let evidence = Evidence::parse(&self.evidence).map_err(|error| {
            Findings::from(Finding::error("evidence.malformed", "the evidence cannot be read").found(error))
        })?;
        let ak = verify_ak(&self.ak)?;
        let ak_name = hex::encode(ak.name().as_bytes());
        let kept = match &self.meta.kept {
            Some(raw) => Some(RoundState::of_verified(raw.clone(), &self.meta.host, &ak_name)?),
            None => None,
        };
        let endorsed = Endorsed { class: self.meta.tpm_class, findings: self.meta.endorsement.clone().into() };
        let mut tag_signers = KeySet::new();
        for (kid, point) in &self.meta.tag_signers {
            tag_signers.insert(kid.clone(), &point.0);
        }
        let known = Known {
            host: &self.meta.host,
            ek: &self.ek,
            ak: &ak,
            endorsed: &endorsed,
            tag_signers: &tag_signers,
            tag_serial: self.meta.tag_serial,
            kept: kept.as_ref(),
            nonce: self.meta.nonce,
            at,
        };
        match judge_round(evidence, &known, judge) {
            Ok(appraisal) => {
                let (issued, expires) =
                    self.recorded.as_ref().map_or((self.meta.at, self.meta.at), |one| (one.iat, one.exp));
                Ok(appraisal.into_result(self.meta.host.clone(), issued, expires))
            }
            Err(Stop::NotGenuine(findings) | Stop::Strayed(findings, _)) => Err(findings),
            Err(Stop::Resend(resend)) => Err(resend.findings),
        }
    }
}

/// `iat` of a token, unverified: the time at which it is verified.
fn issued(token: &str) -> Option<i64> {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as URL;
    let payload = URL.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<serde_json::Value>(&payload).ok()?.get("iat")?.as_i64()
}

/// How two results differ: what is recorded, and what is found. Another release's build is told, and is no difference.
fn difference(recorded: &ResultClaims, claims: &ResultClaims, findings: &mut Findings) -> Option<(String, String)> {
    let mut claims = claims.clone();
    if claims.verifier != recorded.verifier {
        findings.push(
            Finding::info("evidence.build", "another release judges than the one that recorded the result")
                .expected(&recorded.verifier.build)
                .found(&claims.verifier.build),
        );
        claims.verifier.clone_from(&recorded.verifier);
    }
    if serde_json::to_vec(recorded).ok()? == serde_json::to_vec(&claims).ok()? {
        return None;
    }
    let (mut was, mut is) = (Vec::new(), Vec::new());
    let names: BTreeSet<_> = recorded.submods.keys().chain(claims.submods.keys()).collect();
    for name in names {
        let (before, after) = (recorded.submods.get(name), claims.submods.get(name));
        if before != after {
            was.push(format!("{}: {}", name.name(), shown(before)));
            is.push(format!("{}: {}", name.name(), shown(after)));
        }
    }
    if recorded.hostmark != claims.hostmark {
        was.push("the host's claims".to_owned());
        is.push("other claims of the host".to_owned());
    }
    Some((was.join("; "), is.join("; ")))
}

fn shown(claims: Option<&SubmoduleClaims>) -> String {
    claims.map_or_else(|| "nothing".to_owned(), |one| format!("{} ({})", one.status.name(), ids(&one.findings)))
}

/// The findings that are more than information.
fn ids(findings: &[Finding]) -> String {
    let list: Vec<&str> =
        findings.iter().filter(|one| one.severity != Severity::Info).map(|one| one.id.as_str()).collect();
    if list.is_empty() { "no finding".to_owned() } else { list.join(", ") }
}
