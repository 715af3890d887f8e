//! One round, from evidence to appraisal: the one path that the service and a replay of what it kept both take.
//!
//! RFC 9334 5. Genuine first, acceptable second. It establishes nothing of its own; each stage's proof is the next one's argument.

use time::OffsetDateTime;

use crate::appraisal::{Appraisal, Endorsed, Judge, appraise};
use crate::copied_tpm;
use crate::evidence::Evidence;
use crate::finding::Findings;
use crate::genuine::{GenuineEvidence, Last, RoundExpectation};
use crate::identity::ak::AkPublic;
use crate::jws::KeySet;
use crate::replay::{ParsedLogs, ReplayedLogs, Resend};
use crate::state::RoundState;
use crate::tpm::attest::Attest;
use crate::tpm::public::Public;
use crate::wire::Nonce;

/// What is known of a host beside its evidence.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The host id.
    pub host: &'a str,
    /// The enrolled EK.
    pub ek: &'a Public,
    /// The enrolled AK.
    pub ak: &'a AkPublic,
    /// The class of its TPM.
    pub endorsed: &'a Endorsed,
    /// Keys of the operators who may sign asset tags.
    pub tag_signers: &'a KeySet,
    /// The highest serial of a tag that was ever accepted for it.
    pub tag_serial: Option<u64>,
    /// What was kept of its last genuine round.
    pub kept: Option<&'a RoundState>,
    /// The nonce that it was given.
    pub nonce: Nonce,
    /// When it is judged.
    pub at: OffsetDateTime,
}

impl Known<'_> {
    /// The AK's Name in hex.
    #[must_use]
    pub fn ak_name(&self) -> String {
        hex::encode(self.ak.name().as_bytes())
    }
}

/// Why a round yields no appraisal.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Stop {
    /// The evidence is not this host's for this nonce.
    NotGenuine(Findings),
    /// The AK's answer, but of another state of its TPM than the answers before: the findings, and what is to be kept from now on.
    Strayed(Findings, Box<RoundState>),
    /// Whole logs are needed; trust neither ends nor grows.
    Resend(Resend),
}

/// Judges one round.
///
/// # Errors
/// [`Stop`].
pub fn judge_round(evidence: Evidence, known: &Known<'_>, judge: &Judge) -> Result<Appraisal, Stop> {
    let expect = RoundExpectation {
        ak: known.ak,
        ek_name: known.ek.name(),
        tag_signers: known.tag_signers,
        tag_serial: known.tag_serial,
        now: known.at,
        nonce: known.nonce,
        selection: judge.policy().selection(),
        last: known.kept.map_or(Last::FirstRound, |kept| Last::Round(kept.counters())),
    };
    let boot_id = evidence.unanchored().boot_id.clone();
    let attest = evidence.quote.attest.0.clone();
    let genuine = match GenuineEvidence::verify(evidence, &expect) {
        Ok(genuine) => genuine,
        Err(findings) if copied_tpm::fell(&findings) => {
            let Some((kept, attest)) = known.kept.zip(Attest::parse(&attest).ok()) else {
                return Err(Stop::NotGenuine(findings));
            };
            let turn = copied_tpm::judge(kept, attest.clock_info.into(), &boot_id, Some(findings.clone()));
            return Err(turn.map_or(Stop::NotGenuine(findings), stop));
        }
        Err(findings) => return Err(Stop::NotGenuine(findings)),
    };
    if let Some(turn) = known.kept.and_then(|kept| copied_tpm::judge(kept, genuine.counters(), &boot_id, None)) {
        return Err(stop(turn));
    }
    let parsed = ParsedLogs::parse(&genuine);
    let logs = ReplayedLogs::replay(&genuine, &parsed, judge, known.kept).map_err(Stop::Resend)?;
    let endorsed = known.endorsed.clone();
    appraise(&logs, judge, endorsed, known.host, &known.ak_name(), known.kept, known.at).map_err(Stop::Resend)
}

fn stop(turn: copied_tpm::Turn) -> Stop {
    match turn.state {
        Some(state) => Stop::Strayed(turn.findings, Box::new(state)),
        None => Stop::NotGenuine(turn.findings),
    }
}
