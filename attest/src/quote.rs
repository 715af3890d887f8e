//! Quotes: which PCR values a TPM signed, for which challenge.
//!
//! TPM 2.0 Library Part 3, 18.4 (TPM2_Quote); Part 2, 10.12.1 (TPMS_QUOTE_INFO). It establishes that the expected key attested
//! exactly the expected list of PCRs, for exactly this qualifyingData, with exactly these values. It does **not** establish
//! that the key lives in a TPM (enrolment does), nor that any value is good (replay and appraisal do).

use crate::digest::{HashAlg, PcrBanks};
use crate::finding::{Finding, Findings};
use crate::selection::PcrSelection;
use crate::tpm::attest::{AttestType, Attested, ClockInfo};
use crate::tpm::name::Name;
use crate::tpm::signed::{self, Expectation, QUOTE, Signer};

/// What a quote must be.
#[derive(Debug, Clone, Copy)]
pub struct QuoteExpectation<'a> {
    /// Whose signature.
    pub signer: Signer<'a>,
    /// The exact list of (bank, bitmap).
    pub selection: &'a PcrSelection,
    /// The exact qualifyingData.
    pub qualifying_data: &'a [u8],
}

/// A quote that passed every check, with the PCR values that it covers. Only [`verify_quote`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenuineQuote {
    pcrs: PcrBanks,
    selection: PcrSelection,
    clock_info: ClockInfo,
    firmware_version: u64,
    hash: HashAlg,
    signer: Option<Name>,
}

impl GenuineQuote {
    /// The values of the selected PCRs, and of no other.
    #[must_use]
    pub const fn pcrs(&self) -> &PcrBanks {
        &self.pcrs
    }

    /// The quoted list.
    #[must_use]
    pub const fn selection(&self) -> &PcrSelection {
        &self.selection
    }

    /// The TPM's clock and counters when it signed.
    #[must_use]
    pub const fn clock_info(&self) -> ClockInfo {
        self.clock_info
    }

    /// The TPM's firmware version.
    #[must_use]
    pub const fn firmware_version(&self) -> u64 {
        self.firmware_version
    }

    /// The signing scheme's hash.
    #[must_use]
    pub const fn hash(&self) -> HashAlg {
        self.hash
    }

    /// Name of the enrolled AK that signed; None where a bare key was expected.
    #[must_use]
    pub const fn signer(&self) -> Option<&Name> {
        self.signer.as_ref()
    }
}

/// Verifies a TPMS_ATTEST of type quote, the TPMT_SIGNATURE over exactly these bytes, and the values that came beside them.
/// The findings beside a proof refuse nothing.
///
/// # Errors
/// The findings, of which at least one refuses. Bytes that cannot be read are the finding `quote.malformed`.
pub fn verify_quote(
    attest: &[u8],
    signature: &[u8],
    pcr_values: &PcrBanks,
    expect: &QuoteExpectation<'_>,
) -> Result<(GenuineQuote, Findings), Findings> {
    let (genuine, mut findings) = signed::open(
        attest,
        signature,
        &Expectation {
            ids: &QUOTE,
            kind: AttestType::Quote,
            signer: expect.signer,
            qualifying_data: expect.qualifying_data,
        },
    )?;
    // Another type got this far only in a build that removed the check of the type: it selects nothing.
    let nothing = (PcrSelection::default(), Vec::new());
    let (selection, pcr_digest) = match &genuine.attest().attested {
        Attested::Quote { selection, pcr_digest } => (selection, pcr_digest),
        _ => (&nothing.0, &nothing.1),
    };
    let exact = findings.check("quote.selection", selection != expect.selection || selection.selects_nothing(), || {
        Finding::error("", "the quote does not cover exactly the list of PCRs that was asked for")
            .expected(if expect.selection.selects_nothing() {
                "at least one PCR".to_owned()
            } else {
                expect.selection.to_string()
            })
            .found(if selection.selects_nothing() { "no PCR".to_owned() } else { selection.to_string() })
            .fix("quote exactly the expected banks and PCRs, in their order")
    });
    let pcrs = if exact {
        check_values(&mut findings, selection, pcr_values, genuine.hash(), pcr_digest)
    } else {
        PcrBanks::new()
    };
    if !findings.acceptable() {
        return Err(findings);
    }
    let quote = GenuineQuote {
        pcrs,
        selection: selection.clone(),
        clock_info: genuine.attest().clock_info,
        firmware_version: genuine.attest().firmware_version,
        hash: genuine.hash(),
        signer: match expect.signer {
            Signer::EnrolledAk { public, .. } => Some(public.name().clone()),
            Signer::BareKey { .. } => None,
        },
    };
    Ok((quote, findings))
}

/// Checks the values that came unsigned against what was signed, and gives the selected ones.
fn check_values(
    findings: &mut Findings,
    selection: &PcrSelection,
    values: &PcrBanks,
    hash: HashAlg,
    pcr_digest: &[u8],
) -> PcrBanks {
    let given = values.iter().flat_map(|(bank, pcrs)| pcrs.keys().map(move |index| (*bank, *index)));
    let unselected: Vec<String> = given
        .filter(|(bank, index)| !selection.contains(*bank, *index))
        .map(|(bank, index)| format!("{bank}:{index}"))
        .collect();
    findings.check("quote.values-unselected", !unselected.is_empty(), || {
        Finding::error("", "values were given for PCRs that the quote does not cover: nothing vouches for them")
            .expected(format!("values of {selection} only"))
            .found(unselected.join(", "))
            .fix("send the values of the quoted PCRs, each under its own bank and index")
    });

    let mut pcrs = PcrBanks::new();
    let mut missing = Vec::new();
    let mut composite = Vec::with_capacity(values.values().map(|bank| bank.len().saturating_mul(hash.size())).sum());
    for one in selection.banks() {
        for index in one.indices() {
            match values.get(&one.bank).and_then(|bank| bank.get(&index)).filter(|value| value.alg() == one.bank) {
                Some(value) => {
                    composite.extend_from_slice(value.as_bytes());
                    pcrs.entry(one.bank).or_default().insert(index, *value);
                }
                None => missing.push(format!("{}:{index}", one.bank)),
            }
        }
    }
    let whole = findings.check("quote.values-missing", !missing.is_empty(), || {
        Finding::error("", "values of quoted PCRs are missing")
            .expected(format!("values of {selection}"))
            .found(format!("none for {}", missing.join(", ")))
            .fix("send the value of every quoted PCR")
    });
    let digest = hash.hash(&[&composite]);
    let same = digest.is_some_and(|digest| digest.as_bytes() == pcr_digest);
    if whole {
        findings.check("quote.pcr-digest", !same, || {
            Finding::error("", "the given PCR values are not the quoted ones: their composite is not pcrDigest")
                .expected(hex::encode(pcr_digest))
                .found(digest.map_or_else(|| "not computable".to_owned(), |digest| digest.to_string()))
                .fix("read the PCRs and quote again, until no PCR changes in between")
        });
    }
    pcrs
}
