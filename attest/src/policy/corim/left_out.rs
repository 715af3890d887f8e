//! What a CoRIM says and a bundle of reference values cannot: counted, with the reason, and never taken over in silence.

use std::collections::BTreeMap;

use crate::finding::{Finding, Findings};

/// How often each thing was left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LeftOut(BTreeMap<Reason, u64>);

/// Why something is left out, or what must be known about what is taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    OtherEnvironments,
    Conditions,
    Values,
    OtherRegisters,
    NoPcr,
    NotJudged,
    OtherBank,
    UnnamedDigests,
    UnknownAlgorithm,
    EndorsedValues,
    ConditionalEndorsements,
    IdentityKeys,
    AttestKeys,
    Domains,
    CoswidTriples,
    OtherTags,
    Extensions,
    DependentRims,
    ReplacedHere,
    ReplacesElsewhere,
    Instance,
    ImaPolicy,
    Alternatives,
}

impl LeftOut {
    pub(super) fn add(&mut self, reason: Reason, count: usize) {
        if count > 0 {
            let entry = self.0.entry(reason).or_default();
            *entry = entry.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        }
    }

    pub(super) fn append(&mut self, other: &Self) {
        for (reason, count) in &other.0 {
            let entry = self.0.entry(*reason).or_default();
            *entry = entry.saturating_add(*count);
        }
    }

    pub(super) fn findings(&self) -> Findings {
        let mut findings = Findings::new();
        for (reason, count) in &self.0 {
            let (id, message, fix) = reason.words();
            findings.push(Finding::warning(format!("references.import.{id}"), message).found(count).fix(fix));
        }
        findings
    }
}

impl Reason {
    /// Id, what happened, and what to do.
    const fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::OtherEnvironments => (
                "environments",
                "reference triples of other environments are left out",
                "import each environment into a bundle of its own",
            ),
            Self::Conditions => (
                "conditions",
                "digests that count only together with more (svn, flags, raw values, authorities) are left out: alone they would accept more",
                "judge them by hand, or ask their author for digests alone",
            ),
            Self::Values => (
                "values",
                "measurements without a digest (svn, flags, raw values, versions) are left out: no evidence here shows them",
                "none is needed where the digests pin the same content",
            ),
            Self::OtherRegisters => (
                "registers",
                "integrity registers of an element that is no TPM are left out",
                "only registers under no name, or under `pcr`, `pcrs`, `tpm`, `tpm2`, `vtpm`, are taken for PCRs",
            ),
            Self::NoPcr => (
                "no-pcr",
                "integrity registers that are no PCR are left out",
                "PCRs are 0 to 23, as a number or as `pcr7`",
            ),
            Self::NotJudged => (
                "not-judged",
                "PCRs that are never judged by value are left out",
                "none is needed: their logs are replayed and judged event by event",
            ),
            Self::OtherBank => (
                "bank",
                "PCRs without a SHA-256 digest are left out",
                "only that bank is judged by value: ask their author for it",
            ),
            Self::UnnamedDigests => (
                "unnamed-digests",
                "digests that belong to no file are left out: neither key nor name is an absolute path",
                "capture or predict the PCR that they go into",
            ),
            Self::UnknownAlgorithm => (
                "algorithm",
                "digests of an algorithm that is not known here are left out",
                "ask their author for SHA-256, SHA-384 or SHA-512",
            ),
            Self::EndorsedValues => (
                "endorsed-values",
                "endorsed values are left out: they are claims about a host, not values to hold evidence against",
                "let the appraisal policy demand what matters",
            ),
            Self::ConditionalEndorsements => {
                ("conditional", "conditional endorsements are left out", "let the appraisal policy demand what matters")
            }
            Self::IdentityKeys => {
                ("identity-keys", "identity keys are left out", "name EKs or their roots in the trust directory")
            }
            Self::AttestKeys => (
                "attest-keys",
                "attestation keys are left out",
                "none is needed: an AK is proven at enrolment to belong to its EK",
            ),
            Self::Domains => {
                ("domains", "domain triples are left out", "a host is judged as a whole: look at what they connect")
            }
            Self::CoswidTriples => (
                "coswid",
                "links to CoSWID tags are left out",
                "make the digests of installed files with `hostmark refs ima`",
            ),
            Self::OtherTags => (
                "tags",
                "tags that are no CoMID (CoSWID, tag lists, others) are left out",
                "make the digests of installed files with `hostmark refs ima`",
            ),
            Self::Extensions => (
                "extensions",
                "extensions that the draft does not define are left out",
                "look at the file: nothing was guessed",
            ),
            Self::DependentRims => (
                "dependent-rims",
                "other manifests that it refers to are not fetched",
                "obtain and import them one by one",
            ),
            Self::ReplacedHere => (
                "replaced",
                "tags that another tag of the same file replaces are left out",
                "none is needed: their author disowns them",
            ),
            Self::ReplacesElsewhere => (
                "replaces",
                "it replaces tags that are not in this file",
                "take what was imported from them out of your bundles",
            ),
            Self::Instance => (
                "instance",
                "the values are meant for one device or one group of devices",
                "let only the policy of these hosts name the bundle: hosts are not told apart by it",
            ),
            Self::ImaPolicy => (
                "ima-policy",
                "the IMA policy's file is taken as a known file only",
                "write its digest into the window's `ima_policy` if hosts must load it",
            ),
            Self::Alternatives => {
                ("alternatives", "a PCR has several acceptable values", "review that all of them are still wanted")
            }
        }
    }
}
