//! What tpm2-tools writes: readers for the files of `hostmark verify quote`.
//!
//! tpm2_quote(1), tpm2_pcrread(1), tpm2_readpublic(1). Offline use: the key is whatever the user says it is, so nothing
//! vouches that it lives in a TPM, and no enrolment attribute is applied. Signatures that come without their TPMT_SIGNATURE
//! header (raw RSA, DER ECDSA) are accepted, and said to be so.

use std::collections::BTreeMap;

use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Serialize;

use crate::bytes::{ParseError, Problem, Reader};
use crate::digest::{Digest, HashAlg, PcrBanks};
use crate::finding::{Finding, Findings};
use crate::quote::{GenuineQuote, QuoteExpectation, verify_quote};
use crate::selection::{BankSelection, PcrSelection};
use crate::tpm::attest::{Attest, AttestError, Attested, TPM_GENERATED_VALUE, bitmap};
use crate::tpm::key::PublicKey;
use crate::tpm::public::{KeyScheme, ObjectAttributes, Public};
use crate::tpm::signature::{Signature, SignatureValue};
use crate::tpm::signed::Signer;
use crate::tpm::{ALG_RSAPSS, ALG_RSASSA};

/// An AK as a user has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AkFile {
    /// The key.
    pub key: PublicKey,
    /// Its public area, where the file holds one.
    pub public: Option<Public>,
}

/// The contents of the files, and the options, of `hostmark verify quote`.
#[derive(Debug, Clone, Copy)]
pub struct QuoteFiles<'a> {
    /// `tpm2_quote -m`: TPMS_ATTEST or TPM2B_ATTEST.
    pub attest: &'a [u8],
    /// `tpm2_quote -s`: TPMT_SIGNATURE; also a bare RSA or DER ECDSA signature.
    pub signature: &'a [u8],
    /// TPM2B_PUBLIC, TPMT_PUBLIC, or a SubjectPublicKeyInfo in PEM or DER.
    pub ak: &'a [u8],
    /// `tpm2_quote -o`, serialized or values.
    pub pcrs: &'a [u8],
    /// The raw qualifyingData.
    pub nonce: &'a [u8],
    /// The exact selection, where the user states one.
    pub select: Option<&'a PcrSelection>,
}

/// Which file cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum QuoteFile {
    /// `--attest`
    Attest,
    /// `--signature`
    Signature,
    /// `--ak`
    Ak,
    /// `--pcrs`
    Pcrs,
}

impl std::fmt::Display for QuoteFile {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::Attest => "--attest",
            Self::Signature => "--signature",
            Self::Ak => "--ak",
            Self::Pcrs => "--pcrs",
        })
    }
}

/// A file that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {error}")]
pub struct FileError {
    /// Which.
    pub file: QuoteFile,
    /// Where and why.
    pub error: ParseError,
}

/// Verified or refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// No finding refuses.
    Verified,
    /// At least one does.
    Refused,
}

/// The answer of an offline `verify` command, as its JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Verified or refused.
    pub verdict: Outcome,
    /// Every finding.
    pub findings: Findings,
}

impl From<Findings> for Verdict {
    fn from(findings: Findings) -> Self {
        let verdict = if findings.acceptable() { Outcome::Verified } else { Outcome::Refused };
        Self { verdict, findings }
    }
}

/// What a verified quote says, as its JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QuoteFacts {
    /// The AK's name in hex, recomputed from its public area; None where the file holds a key alone.
    pub ak_name: Option<String>,
    /// The AK's kind of key.
    pub ak_key: String,
    /// The PCRs that are covered, as `sha256:0,1`.
    pub selection: String,
    /// The values of these PCRs in hex, by bank and index.
    pub pcrs: BTreeMap<&'static str, BTreeMap<u8, String>>,
    /// pcrDigest in hex: the hash of these values.
    pub pcr_digest: String,
    /// Milliseconds for which the TPM has been powered since it was last cleared.
    pub clock: u64,
    /// TPM resets since then.
    pub reset_count: u32,
    /// Restarts and resumes since the last reset.
    pub restart_count: u32,
    /// Whether no value of the clock above this one was ever shown.
    pub safe: bool,
    /// The TPM's firmware version in hex. Like both counts, a TPM obfuscates it for keys outside the endorsement and platform hierarchies.
    pub firmware_version: String,
}

impl QuoteFacts {
    fn of(quote: &GenuineQuote, ak: &AkFile, pcr_digest: &[u8]) -> Self {
        let bank = |(bank, values): (&HashAlg, &BTreeMap<u8, Digest>)| {
            (bank.name(), values.iter().map(|(index, value)| (*index, value.to_string())).collect())
        };
        let clock = quote.clock_info();
        Self {
            ak_name: ak.public.as_ref().map(|public| hex::encode(public.name().as_bytes())),
            ak_key: ak.key.kind(),
            selection: quote.selection().to_string(),
            pcrs: quote.pcrs().iter().map(bank).collect(),
            pcr_digest: hex::encode(pcr_digest),
            clock: clock.clock,
            reset_count: clock.reset_count,
            restart_count: clock.restart_count,
            safe: clock.safe,
            firmware_version: format!("{:#018x}", quote.firmware_version()),
        }
    }
}

/// The answer of `hostmark verify quote`, as its JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QuoteVerdict {
    /// Verified or refused.
    pub verdict: Outcome,
    /// Every finding.
    pub findings: Findings,
    /// What was verified; nothing of a quote that is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quote: Option<QuoteFacts>,
}

/// Verifies a quote from files.
///
/// # Errors
/// [`FileError`] when a file cannot be read as what it should be. Anything suspicious that can be read is a finding.
pub fn verify_quote_files(files: &QuoteFiles<'_>) -> Result<QuoteVerdict, FileError> {
    let at = |file| move |error| FileError { file, error };
    let attest = unwrap_attest(files.attest);
    let parsed = match Attest::parse(attest) {
        Ok(parsed) => Some(parsed.attested),
        Err(AttestError::NotProducedByTpm { .. }) => None,
        Err(AttestError::Malformed(error)) => return Err(at(QuoteFile::Attest)(error)),
    };
    let (own, pcr_digest) = match parsed {
        Some(Attested::Quote { selection, pcr_digest }) => (selection, pcr_digest),
        _ => (PcrSelection::default(), Vec::new()),
    };
    let ak = read_ak(files.ak).map_err(at(QuoteFile::Ak))?;
    let scheme = ak.public.as_ref().and_then(Public::scheme);
    let mut findings = Findings::new();
    let signature = match Signature::parse(files.signature) {
        Ok(_) => files.signature.to_vec(),
        Err(error) => {
            let bare = bare_signature(files.signature, attest, &ak.key, scheme, pcr_digest.len());
            let bare = bare.ok_or(error).map_err(at(QuoteFile::Signature))?;
            findings.push(
                Finding::info(
                    "quote.signature-bare",
                    "the signature has no TPMT_SIGNATURE header: its scheme is inferred",
                )
                .found(bare.describe()),
            );
            bare.to_bytes().unwrap_or_default()
        }
    };
    // A file of bare values can only be read by the quote's own list; without a quote there is none.
    let values = match read_serialized_pcrs(files.pcrs) {
        Some(read) => read.map_err(at(QuoteFile::Pcrs))?,
        None if own.selects_nothing() => PcrBanks::new(),
        None => read_pcr_values(files.pcrs, &own).map_err(at(QuoteFile::Pcrs))?,
    };
    if files.select.is_none() {
        findings.push(
            Finding::info("quote.selection-unstated", "no selection was stated: the quote's own is taken")
                .found(&own)
                .fix("state the PCRs that must be covered with --select"),
        );
    }
    if let Some(public) = &ak.public {
        findings.check("quote.ak-unrestricted", !public.attributes().has(ObjectAttributes::RESTRICTED), || {
            Finding::warning("", "the AK is not restricted: its holder can sign any bytes, a made-up quote too")
                .expected("restricted")
                .found(public.attributes())
                .fix("quote with a restricted key")
        });
    }
    let expect = QuoteExpectation {
        signer: Signer::BareKey { key: &ak.key, scheme },
        selection: files.select.unwrap_or(&own),
        qualifying_data: files.nonce,
    };
    let mut quote = None;
    findings.append(match verify_quote(attest, &signature, &values, &expect) {
        Ok((genuine, more)) => {
            quote = Some(QuoteFacts::of(&genuine, &ak, &pcr_digest));
            more
        }
        Err(more) => more,
    });
    let quote = quote.filter(|_| findings.acceptable());
    let Verdict { verdict, findings } = findings.into();
    Ok(QuoteVerdict { verdict, findings, quote })
}

/// The TPMS_ATTEST inside a TPM2B_ATTEST, or the bytes themselves.
#[must_use]
pub fn unwrap_attest(input: &[u8]) -> &[u8] {
    let mut reader = Reader::new(input);
    match reader.be16("size") {
        Ok(size)
            if usize::from(size) == reader.left() && reader.rest().starts_with(&TPM_GENERATED_VALUE.to_be_bytes()) =>
        {
            reader.rest()
        }
        _ => input,
    }
}

/// Reads an AK: TPM2B_PUBLIC, TPMT_PUBLIC, or a SubjectPublicKeyInfo in PEM (bytes behind it are ignored) or DER.
///
/// # Errors
/// None of them.
pub fn read_ak(input: &[u8]) -> Result<AkFile, ParseError> {
    if let Some(at) = input.windows(11).position(|window| window == b"-----BEGIN ") {
        let spki = SubjectPublicKeyInfoDer::from_pem_slice(input).map_err(|_| ParseError {
            at,
            problem: Problem::Malformed { what: "the PEM holds no readable PUBLIC KEY" },
        })?;
        return Ok(AkFile { key: PublicKey::from_spki(&spki)?, public: None });
    }
    if input.first() == Some(&0x30) {
        return Ok(AkFile { key: PublicKey::from_spki(input)?, public: None });
    }
    let mut reader = Reader::new(input);
    let size = reader.be16("the AK")?;
    let public = if usize::from(size) == reader.left() { Public::parse_tpm2b(input)? } else { Public::parse(input)? };
    Ok(AkFile { key: public.key().clone(), public: Some(public) })
}

/// Gives a bare signature its scheme: the one that the key fixes, or RSASSA before RSAPSS; the hash is the one that the
/// key fixes, or has pcrDigest's length (a TPM hashes PCR values with the scheme's own hash). None where that is impossible.
fn bare_signature(
    input: &[u8],
    attest: &[u8],
    key: &PublicKey,
    scheme: Option<KeyScheme>,
    digest_size: usize,
) -> Option<Signature> {
    let sized = [HashAlg::Sha256, HashAlg::Sha384, HashAlg::Sha512, HashAlg::Sha1];
    let hash = scheme
        .and_then(|one| one.hash)
        .or_else(|| sized.into_iter().find(|alg| alg.size() == digest_size))
        .unwrap_or(HashAlg::Sha256);
    match key {
        PublicKey::Ec { .. } => {
            let (r, s) = read_der_ecdsa(input)?;
            Some(Signature { hash, value: SignatureValue::Ecdsa { r, s } })
        }
        PublicKey::Rsa { modulus, .. } if input.len() == modulus.len() => {
            let ssa = Signature { hash, value: SignatureValue::RsaSsa(input.to_vec()) };
            let pss = Signature { hash, value: SignatureValue::RsaPss(input.to_vec()) };
            match scheme.map(|one| one.scheme) {
                Some(ALG_RSAPSS) => Some(pss),
                Some(ALG_RSASSA) => Some(ssa),
                _ if ssa.verify(key, attest).is_err() && pss.verify(key, attest).is_ok() => Some(pss),
                _ => Some(ssa),
            }
        }
        PublicKey::Rsa { .. } => None,
    }
}

/// `SEQUENCE { INTEGER r, INTEGER s }` with short lengths, as every P-256 and P-384 signature has them.
fn read_der_ecdsa(input: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    fn element<'a>(reader: &mut Reader<'a>, tag: u8) -> Option<&'a [u8]> {
        let found = reader.u8("tag").ok()?;
        let size = reader.u8("length").ok()?;
        (found == tag && size < 0x80).then(|| reader.take(usize::from(size), "contents").ok()).flatten()
    }
    let mut outer = Reader::new(input);
    let mut inner = Reader::new(element(&mut outer, 0x30)?);
    let (r, s) = (element(&mut inner, 0x02)?, element(&mut inner, 0x02)?);
    (outer.is_empty() && inner.is_empty()).then(|| (r.to_vec(), s.to_vec()))
}

/// Slots of a TPML_PCR_SELECTION in memory (TPM2_NUM_PCR_BANKS).
const SELECTION_SLOTS: usize = 16;
/// Slots of a TPML_DIGEST in memory.
const DIGEST_SLOTS: usize = 8;
/// Bytes of a digest slot in memory (TPM2B_DIGEST's buffer).
const DIGEST_SLOT: usize = 64;
/// Bytes before the digest lists: the selection (a count and slots of 8 bytes) and the number of lists.
const HEAD: usize = 4 + SELECTION_SLOTS * 8 + 4;
/// Bytes of a TPML_DIGEST in memory.
const DIGEST_LIST: usize = 4 + DIGEST_SLOTS * (2 + DIGEST_SLOT);

/// Reads PCR values as tpm2-tools serializes them: the memory of a TPML_PCR_SELECTION, the number of TPML_DIGESTs (32 bits)
/// and their memory, little endian. None when the length or the first count is not such a file's (then it holds bare values).
#[must_use]
pub fn read_serialized_pcrs(input: &[u8]) -> Option<Result<PcrBanks, ParseError>> {
    let lists = input.len().checked_sub(HEAD)?;
    let banks = Reader::new(input).le32("the number of PCR banks").ok()?;
    let plausible = lists.is_multiple_of(DIGEST_LIST) && (1..=16).contains(&banks);
    plausible.then(|| read_serialized(Reader::new(input)))
}

fn read_serialized(mut reader: Reader<'_>) -> Result<PcrBanks, ParseError> {
    let count = usize::try_from(reader.le32("the number of PCR banks")?).unwrap_or(usize::MAX);
    let mut banks = Vec::new();
    for slot in 0..SELECTION_SLOTS {
        let start = reader.clone();
        let id = reader.le16("the PCR bank")?;
        let size = reader.u8("sizeofSelect")?;
        let bits: [u8; 4] = reader.array("pcrSelect")?;
        reader.u8("padding")?;
        if slot >= count {
            continue;
        }
        let bank = HashAlg::from_tpm(id)
            .ok_or_else(|| start.error(Problem::Unknown { what: "the PCR bank", found: u64::from(id) }))?;
        let used = bits.get(..usize::from(size)).ok_or_else(|| {
            start.error(Problem::OverLimit { what: "sizeofSelect", found: u64::from(size), limit: 4 })
        })?;
        banks.push(BankSelection { bank, bitmap: bitmap(used) });
    }
    let start = reader.clone();
    let lists = reader.le32("the number of digest lists")?;
    if usize::try_from(lists).ok().and_then(|lists| lists.checked_mul(DIGEST_LIST)) != Some(reader.left()) {
        return Err(start.error(Problem::Malformed { what: "the number of digest lists is not the file's" }));
    }
    let mut digests = Vec::new();
    for _ in 0..lists {
        let start = reader.clone();
        let used = reader.le32("the number of digests")?;
        let used = usize::try_from(used).ok().filter(|used| *used <= DIGEST_SLOTS).ok_or_else(|| {
            start.error(Problem::OverLimit { what: "the number of digests", found: u64::from(used), limit: 8 })
        })?;
        for slot in 0..DIGEST_SLOTS {
            let at = reader.clone();
            let size = usize::from(reader.le16("the digest's size")?);
            let bytes = reader.take(DIGEST_SLOT, "the digest")?;
            if slot < used {
                let digest = bytes
                    .get(..size)
                    .ok_or_else(|| at.error(Problem::Malformed { what: "the digest's size is above 64" }))?;
                digests.push((at, digest));
            }
        }
    }
    let mut digests = digests.into_iter();
    let values = assign(&PcrSelection::new(banks), |alg| {
        let (at, bytes) = digests
            .next()
            .ok_or_else(|| reader.error(Problem::Malformed { what: "fewer digests than selected PCRs" }))?;
        Digest::new(alg, bytes)
            .ok_or_else(|| at.error(Problem::Malformed { what: "the digest's size is not the bank's" }))
    })?;
    match digests.next() {
        None => Ok(values),
        Some((at, _)) => Err(at.error(Problem::Malformed { what: "more digests than selected PCRs" })),
    }
}

/// Reads PCR values that stand one after another in the order of `selection`.
///
/// # Errors
/// Another length.
pub fn read_pcr_values(input: &[u8], selection: &PcrSelection) -> Result<PcrBanks, ParseError> {
    let mut reader = Reader::new(input);
    let values = assign(selection, |alg| {
        let start = reader.clone();
        let bytes = reader.take(alg.size(), "a PCR value")?;
        Digest::new(alg, bytes).ok_or_else(|| start.error(Problem::Malformed { what: "a PCR value" }))
    })?;
    reader.finish("the PCR values")?;
    Ok(values)
}

/// Gives each selected PCR its value, in the selection's order. A PCR that is listed twice must have one value.
fn assign(
    selection: &PcrSelection,
    mut next: impl FnMut(HashAlg) -> Result<Digest, ParseError>,
) -> Result<PcrBanks, ParseError> {
    let mut values = PcrBanks::new();
    for one in selection.banks() {
        for index in one.indices() {
            let value = next(one.bank)?;
            let before = values.entry(one.bank).or_default().insert(index, value);
            if before.is_some_and(|before| before != value) {
                let problem = Problem::Malformed { what: "a PCR is listed twice with two values" };
                return Err(ParseError { at: 0, problem });
            }
        }
    }
    Ok(values)
}
