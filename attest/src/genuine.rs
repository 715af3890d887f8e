//! Genuine evidence: one round, signed by this host's AK for this nonce.
//!
//! RFC 9334 §7.3 (freshness by nonce). [`GenuineEvidence`] exists only after the quote was verified over the received bytes
//! with the enrolled AK, bound to the nonce and to the unanchored part, and the TPM's counters went forward. It does not say
//! that anything measured is good: genuine first, acceptable second.

use time::OffsetDateTime;

use crate::counters::{self, Continuity, Counters};
use crate::evidence::{Evidence, Unanchored};
use crate::finding::{Finding, Findings};
use crate::identity::ak::AkPublic;
use crate::identity::tag::{self, VerifiedTag};
use crate::jws::KeySet;
use crate::quote::{self, GenuineQuote, QuoteExpectation};
use crate::selection::PcrSelection;
use crate::tpm::name::Name;
use crate::tpm::signed::Signer;
use crate::wire::{DOMAIN_QUOTE, Nonce};

/// What a genuine round must be.
#[derive(Debug, Clone, Copy)]
pub struct RoundExpectation<'a> {
    /// The enrolled AK.
    pub ak: &'a AkPublic,
    /// The Name of the EK under which it was created.
    pub ek_name: &'a Name,
    /// Keys of the operators who may sign asset tags.
    pub tag_signers: &'a KeySet,
    /// The highest serial of a tag that was ever accepted for this host.
    pub tag_serial: Option<u64>,
    /// Now, for the tag's validity.
    pub now: OffsetDateTime,
    /// The nonce that this host was given.
    pub nonce: Nonce,
    /// Exactly what must be quoted.
    pub selection: &'a PcrSelection,
    /// The counters of the AK's last genuine round; None only for the first round of a newly enrolled AK.
    pub last: Last,
}

/// The counters of the last genuine round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// This AK has never proven anything.
    FirstRound,
    /// These.
    Round(Counters),
}

/// Evidence of one (AK, nonce), proven.
#[derive(Debug)]
pub struct GenuineEvidence {
    evidence: Evidence,
    quote: GenuineQuote,
    counters: Counters,
    continuity: Option<Continuity>,
    tag: Result<Option<VerifiedTag>, Findings>,
    findings: Findings,
}

impl GenuineEvidence {
    /// Verifies a round.
    ///
    /// # Errors
    /// The findings that refuse it: `evidence.nonce`, `quote.*`, `counters.*`.
    pub fn verify(evidence: Evidence, expect: &RoundExpectation<'_>) -> Result<Self, Findings> {
        let mut findings = Findings::new();
        let said = evidence.unanchored().nonce;
        if !findings.check("evidence.nonce", said != expect.nonce, || {
            Finding::error("", "the evidence was made for another nonce").expected(expect.nonce).found(said)
        }) {
            return Err(findings);
        }
        let bound = expect.nonce.bind(DOMAIN_QUOTE, evidence.unanchored_bytes());
        let quote_expectation = QuoteExpectation {
            signer: Signer::EnrolledAk { public: expect.ak.public(), ek_name: expect.ek_name },
            selection: expect.selection,
            qualifying_data: &bound,
        };
        let signed = &evidence.quote;
        let (quote, noticed) =
            quote::verify_quote(&signed.attest.0, &signed.signature.0, &evidence.pcrs, &quote_expectation)?;
        findings.append(noticed);
        let counters = Counters::from(quote.clock_info());
        let continuity = match expect.last {
            Last::FirstRound => None,
            Last::Round(last) => {
                let (continuity, noticed) = counters::compare(&last, &counters);
                findings.append(noticed);
                Some(continuity)
            }
        };
        if !findings.acceptable() {
            return Err(findings);
        }
        let tag = verify_tag(&evidence, expect);
        Ok(Self { evidence, quote, counters, continuity, tag, findings })
    }

    /// The proven PCR values and clock.
    #[must_use]
    pub const fn quote(&self) -> &GenuineQuote {
        &self.quote
    }

    /// The TPM's counters.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// How this round follows the last; None in the first round.
    #[must_use]
    pub const fn continuity(&self) -> Option<Continuity> {
        self.continuity
    }

    /// What the host said beside the logs. Bound to the quote, and still only its word.
    #[must_use]
    pub const fn unanchored(&self) -> &Unanchored {
        self.evidence.unanchored()
    }

    /// The logs and the rest, not yet replayed.
    #[must_use]
    pub const fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// The asset tag, where the TPM holds one; a tag that does not verify is no tag, and its findings say why.
    ///
    /// # Errors
    /// The findings of the tag: `tag.*`.
    pub const fn tag(&self) -> Result<Option<&VerifiedTag>, &Findings> {
        match &self.tag {
            Ok(Some(tag)) => Ok(Some(tag)),
            Ok(None) => Ok(None),
            Err(findings) => Err(findings),
        }
    }

    /// What was noticed on the way; refuses nothing.
    #[must_use]
    pub const fn findings(&self) -> &Findings {
        &self.findings
    }
}

fn verify_tag(evidence: &Evidence, expect: &RoundExpectation<'_>) -> Result<Option<VerifiedTag>, Findings> {
    let Some(part) = &evidence.unanchored().tag else { return Ok(None) };
    let evidence = tag::TagEvidence {
        nv: &part.nv,
        nv_public: &part.nv_public,
        attest: &part.certification.attest.0,
        signature: &part.certification.signature.0,
    };
    tag::verify_tag(
        &evidence,
        expect.ak,
        expect.ek_name,
        &expect.nonce,
        expect.tag_signers,
        expect.tag_serial,
        expect.now,
    )
    .map(Some)
}
