//! The TCG Canonical Event Log, format version 1.0: one record type, three encodings (sections 5.1 TLV, 5.2 CBOR, 5.3 JSON), and
//! systemd's log of its own measurements, which is CEL-JSON without record numbers (systemd-pcrextend(8)).
//!
//! Establishes framing and which PCR values a log explains on top of what was there before. A record's digests are the log's word
//! until the replay of their PCR equals a quoted value; its content is worth something only where it hashes to such a digest
//! ([`Record::authenticity`]). Record numbers, content types and the order between PCRs are hashed nowhere.
//! The host log has a stricter parser of its own ([`crate::host_log`]).

mod cbor;
mod inspect;
mod json;
mod tlv;
pub mod userspace;

use std::collections::BTreeMap;

use crate::bytes::{ParseError, Problem};
use crate::digest::{Digest, HashAlg, PcrValues};
use crate::finding::{Finding, Findings};
pub use inspect::{CelReport, RecordView, inspect};

/// Longest log: firmware, IMA and a system's own events of one boot, many times over.
pub const LOG_MAX: usize = 16 << 20;
/// Most records.
pub const RECORDS_MAX: usize = 262_144;
/// Most digests of one record: as in a boot log.
const DIGESTS_MAX: usize = 16;
/// PCRs of a PC Client TPM.
const PCR_COUNT: u32 = 24;

/// How a log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Section 5.1.
    Tlv,
    /// Section 5.2: an array or a sequence of records.
    Cbor,
    /// Section 5.3: an array, or records one after another, with or without RFC 7464 separators.
    Json,
}

impl Encoding {
    /// Tells the encodings apart by the first byte: a TLV record begins with the type of its number, which is 0; CBOR with an array
    /// or a map.
    #[must_use]
    pub fn detect(log: &[u8]) -> Self {
        match log.first() {
            Some(0) => Self::Tlv,
            Some(0x80..) => Self::Cbor,
            _ => Self::Json,
        }
    }

    /// `cel-tlv`, `cel-cbor` or `cel-json`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tlv => "cel-tlv",
            Self::Cbor => "cel-cbor",
            Self::Json => "cel-json",
        }
    }
}

/// What a record extends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Index {
    /// A PCR.
    Pcr(u32),
    /// An NV index of type extend.
    Nv(u32),
}

/// What a record says was measured.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Content {
    /// `cel`: about the log itself (version, end of firmware, a state change), by its number.
    Management(u64),
    /// `pcclient_std`: an event of the PC Client profile.
    PcClient {
        /// EV_…
        event_type: u32,
        /// Its data.
        data: Vec<u8>,
    },
    /// `ima_template`: an entry of an IMA list.
    ImaTemplate {
        /// The template's name.
        name: String,
        /// The template data.
        data: Vec<u8>,
    },
    /// `systemd`: what PID 1 and its tools measure.
    Systemd {
        /// `phase`, `filesystem`, `volume-key`…
        event_type: String,
        /// What was measured, or for a secret what it belongs to.
        text: String,
    },
    /// Another type, by its name or number, with its bytes where they are plain.
    Other {
        /// The type.
        kind: String,
        /// The content where it is one string or byte string.
        data: Vec<u8>,
    },
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Byte where the record begins; in a JSON array where the array does.
    pub at: usize,
    /// Its number, where the log has one.
    pub recnum: Option<u64>,
    /// What it extends.
    pub index: Index,
    /// The digests of algorithms that this crate knows.
    pub digests: Vec<Digest>,
    /// What was measured.
    pub content: Content,
}

/// What a record's digest says of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CelAuthenticity {
    /// The content hashes to the digest.
    Whole,
    /// The digest is of something that the record does not hold, or keyed.
    Elsewhere,
}

impl Record {
    /// The digest of one bank.
    #[must_use]
    pub fn digest(&self, bank: HashAlg) -> Option<&Digest> {
        self.digests.iter().find(|digest| digest.alg() == bank)
    }

    /// Whether the content hashes to the digest of `bank`.
    #[must_use]
    pub fn authenticity(&self, bank: HashAlg) -> CelAuthenticity {
        let hashed = match &self.content {
            Content::PcClient { data, .. } | Content::ImaTemplate { data, .. } | Content::Other { data, .. } => {
                data.as_slice()
            }
            Content::Systemd { text, .. } => text.as_bytes(),
            Content::Management(_) => return CelAuthenticity::Elsewhere,
        };
        // What is not there hashes to something too, and says nothing.
        if hashed.is_empty() {
            return CelAuthenticity::Elsewhere;
        }
        match (bank.hash(&[hashed]), self.digest(bank)) {
            (Some(hash), Some(digest)) if hash == *digest => CelAuthenticity::Whole,
            _ => CelAuthenticity::Elsewhere,
        }
    }

    /// Whether the record extends anything: EV_NO_ACTION does not.
    fn extends(&self) -> Option<u8> {
        match (&self.content, self.index) {
            (Content::PcClient { event_type: 3, .. }, _) | (_, Index::Nv(_)) => None,
            (_, Index::Pcr(pcr)) => u8::try_from(pcr).ok(),
        }
    }
}

/// A log, framed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CelLog {
    encoding: Encoding,
    records: Vec<Record>,
    findings: Findings,
}

impl CelLog {
    /// Reads a log in the encoding that its first byte shows.
    ///
    /// # Errors
    /// At the byte where the log is malformed or over a limit.
    pub fn parse(log: &[u8]) -> Result<Self, ParseError> {
        if log.len() > LOG_MAX {
            return Err(over(0, "size of the event log", log.len(), LOG_MAX));
        }
        let encoding = Encoding::detect(log);
        let records = match encoding {
            Encoding::Tlv => tlv::records(log)?,
            Encoding::Cbor => cbor::records(log)?,
            Encoding::Json => json::records(log)?,
        };
        let findings = noticed(&records);
        Ok(Self { encoding, records, findings })
    }

    /// The encoding.
    #[must_use]
    pub const fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The records, unverified.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// What the framing itself showed.
    #[must_use]
    pub const fn findings(&self) -> &Findings {
        &self.findings
    }

    /// The banks that every extending record of a PCR carries are replayed: the value of each PCR that has records, from what it
    /// held before (zero where `before` says nothing). A PCR with a record that lacks the bank's digest has no value.
    #[must_use]
    pub fn replay(&self, bank: HashAlg, before: &PcrValues) -> PcrValues {
        let mut values = BTreeMap::<u8, Option<Digest>>::new();
        for record in &self.records {
            let Some(pcr) = record.extends() else { continue };
            let start = || Some(before.get(&pcr).copied().unwrap_or_else(|| Digest::zero(bank)));
            let value = values.entry(pcr).or_insert_with(start);
            *value = value.zip(record.digest(bank)).and_then(|(value, digest)| value.extend(digest));
        }
        values.into_iter().filter_map(|(pcr, value)| Some((pcr, value?))).collect()
    }
}

/// Record numbers ascend within a PCR or NV index (section 4.2.1), and each digest's algorithm stands once.
fn noticed(records: &[Record]) -> Findings {
    let mut findings = Findings::new();
    let mut last = BTreeMap::<Index, u64>::new();
    let mut disorder = None;
    for record in records {
        let Some(number) = record.recnum else { continue };
        if last.insert(record.index, number).is_some_and(|before| before >= number) {
            disorder = disorder.or(Some((number, record.at)));
        }
    }
    findings.check("cel.record-order", disorder.is_some(), || {
        let (number, at) = disorder.unwrap_or_default();
        Finding::warning("", "record numbers do not ascend: records were removed, repeated or moved")
            .found(format!("record {number} at byte {at}"))
    });
    let unnumbered = records.iter().filter(|record| record.recnum.is_none()).count();
    findings.check("cel.record-numbers", unnumbered > 0 && unnumbered < records.len(), || {
        Finding::warning("", "only some records have a number").found(format!("{unnumbered} without"))
    });
    findings
}

/// A checked index of a PCR.
fn pcr(at: usize, index: u64) -> Result<Index, ParseError> {
    u32::try_from(index)
        .ok()
        .filter(|index| *index < PCR_COUNT)
        .map(Index::Pcr)
        .ok_or(ParseError { at, problem: Problem::OverLimit { what: "PCR of a record", found: index, limit: 23 } })
}

/// A digest of a known algorithm and its length; None for an algorithm that is not known here.
fn digest(at: usize, alg: u64, bytes: &[u8]) -> Result<Option<Digest>, ParseError> {
    let Some(alg) = u16::try_from(alg).ok().and_then(HashAlg::from_tpm) else { return Ok(None) };
    Digest::new(alg, bytes).map(Some).ok_or_else(|| malformed(at, "a digest has another length than its algorithm"))
}

/// Adds a digest; two of one algorithm are malformed: which was extended would be the reader's choice.
fn add(at: usize, digests: &mut Vec<Digest>, digest: Option<Digest>) -> Result<(), ParseError> {
    let Some(digest) = digest else { return Ok(()) };
    if digests.iter().any(|known| known.alg() == digest.alg()) {
        return Err(malformed(at, "a record has two digests of one algorithm"));
    }
    if digests.len() >= DIGESTS_MAX {
        return Err(over(at, "digests of a record", digests.len().saturating_add(1), DIGESTS_MAX));
    }
    digests.push(digest);
    Ok(())
}

/// Adds a record within the limit.
fn push(records: &mut Vec<Record>, record: Record) -> Result<(), ParseError> {
    if records.len() >= RECORDS_MAX {
        return Err(over(record.at, "number of records", records.len().saturating_add(1), RECORDS_MAX));
    }
    records.push(record);
    Ok(())
}

const fn malformed(at: usize, what: &'static str) -> ParseError {
    ParseError { at, problem: Problem::Malformed { what } }
}

fn over(at: usize, what: &'static str, found: usize, limit: usize) -> ParseError {
    let wide = |count| u64::try_from(count).unwrap_or(u64::MAX);
    ParseError { at, problem: Problem::OverLimit { what, found: wide(found), limit: wide(limit) } }
}
