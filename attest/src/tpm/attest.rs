//! TPMS_ATTEST: what a TPM signs about itself.
//!
//! TPM 2.0 Library Part 2, 10.12. It establishes framing only. A restricted key signs outside data only when that data does
//! **not** begin with TPM_GENERATED_VALUE; so bytes with another magic are not a broken attestation but something else
//! altogether, and [`Attest::parse`] says so by an outcome of its own ([`AttestError::NotProducedByTpm`]): an [`Attest`]
//! always carried the right magic. Whose key signed it is [`super::signed`]'s part.

use std::fmt;

use super::name::NAME_MAX;
use super::public::read_hash;
use crate::bytes::{ParseError, Problem, Reader};
use crate::selection::{BankSelection, PcrSelection};

/// TPM_GENERATED_VALUE: 0xff and "TCG".
pub const TPM_GENERATED_VALUE: u32 = 0xff54_4347;

/// Longest extraData: TPM2B_DATA holds an algorithm identifier and a SHA-512 digest.
const EXTRA_DATA_MAX: u16 = 66;
/// Longest digest.
const DIGEST_MAX: u16 = 64;
/// Longest NV contents: above every TPM's MAX_NV_BUFFER_SIZE (1024 to 2048 in the field).
const NV_CONTENTS_MAX: u16 = 4096;
/// Most bank selections: HASH_COUNT of the reference implementation is below it.
const BANKS_MAX: u32 = 16;
/// Longest PCR bitmap in bytes: 32 PCRs; a PC Client TPM has 24.
const BITMAP_MAX: u8 = 4;

/// TPM_ST_ATTEST_*: what kind of attestation it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum AttestType {
    /// TPM_ST_ATTEST_NV: contents of an NV index.
    Nv,
    /// TPM_ST_ATTEST_CERTIFY: an object is loaded beside the signing key.
    Certify,
    /// TPM_ST_ATTEST_QUOTE: PCR values.
    Quote,
    /// Any other type: its body is not read.
    Other(u16),
}

impl AttestType {
    /// By TPM_ST.
    #[must_use]
    pub const fn from_tpm(id: u16) -> Self {
        match id {
            0x8014 => Self::Nv,
            0x8017 => Self::Certify,
            0x8018 => Self::Quote,
            other => Self::Other(other),
        }
    }

    /// The TPM_ST.
    #[must_use]
    pub const fn to_tpm(self) -> u16 {
        match self {
            Self::Nv => 0x8014,
            Self::Certify => 0x8017,
            Self::Quote => 0x8018,
            Self::Other(id) => id,
        }
    }
}

impl fmt::Display for AttestType {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Nv => "TPM_ST_ATTEST_NV",
            Self::Certify => "TPM_ST_ATTEST_CERTIFY",
            Self::Quote => "TPM_ST_ATTEST_QUOTE",
            Self::Other(0x8015) => "TPM_ST_ATTEST_COMMAND_AUDIT",
            Self::Other(0x8016) => "TPM_ST_ATTEST_SESSION_AUDIT",
            Self::Other(0x8019) => "TPM_ST_ATTEST_TIME",
            Self::Other(0x801a) => "TPM_ST_ATTEST_CREATION",
            Self::Other(0x801c) => "TPM_ST_ATTEST_NV_DIGEST",
            Self::Other(id) => return write!(out, "TPM_ST {id:#06x}"),
        })
    }
}

/// TPMS_CLOCK_INFO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClockInfo {
    /// Milliseconds for which the TPM has been powered since it was last cleared; root may set it forward.
    pub clock: u64,
    /// TPM resets since the TPM was last cleared.
    pub reset_count: u32,
    /// TPM restarts and resumes since the last reset.
    pub restart_count: u32,
    /// False after an unorderly shutdown, until the clock has passed every value it may have shown before.
    pub safe: bool,
}

/// The part of a TPMS_ATTEST that depends on its type.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Attested {
    /// TPMS_QUOTE_INFO.
    Quote {
        /// The exact list, in its order.
        selection: PcrSelection,
        /// Hash, by the signing scheme's algorithm, of the selected values.
        pcr_digest: Vec<u8>,
    },
    /// TPMS_CERTIFY_INFO.
    Certify {
        /// The certified object's Name.
        name: Vec<u8>,
        /// Its Qualified Name.
        qualified_name: Vec<u8>,
    },
    /// TPMS_NV_CERTIFY_INFO.
    Nv {
        /// The index's Name, which covers its attributes and policy.
        index_name: Vec<u8>,
        /// Where the contents begin in the index.
        offset: u16,
        /// The contents.
        contents: Vec<u8>,
    },
    /// A type whose body is not read.
    Other(AttestType),
}

/// A TPMS_ATTEST with the right magic. Not signed by anybody yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attest {
    /// Qualified Name of the signing key: the only trace of its hierarchy. As the TPM wrote it, so it may be empty.
    pub qualified_signer: Vec<u8>,
    /// The caller's qualifyingData.
    pub extra_data: Vec<u8>,
    /// The TPM's counters (the reset and restart counts are obfuscated for keys outside the endorsement and platform hierarchies).
    pub clock_info: ClockInfo,
    /// The TPM's own firmware version (obfuscated for keys outside the endorsement and platform hierarchies).
    pub firmware_version: u64,
    /// The part that depends on the type.
    pub attested: Attested,
}

/// Why bytes are not a TPMS_ATTEST.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttestError {
    /// The magic is another one: whatever was signed, no TPM produced it.
    #[error("the magic is {magic:#010x}, not TPM_GENERATED_VALUE: no TPM produced these bytes")]
    NotProducedByTpm {
        /// What stands in its place.
        magic: u32,
    },
    /// The magic is right, the rest is not.
    #[error(transparent)]
    Malformed(#[from] ParseError),
}

impl Attest {
    /// Reads a TPMS_ATTEST that fills its input.
    ///
    /// # Errors
    /// [`AttestError::NotProducedByTpm`] on another magic; [`AttestError::Malformed`] on bad framing, an unknown bank, a
    /// bitmap above 4 bytes, or trailing bytes (behind a type that is read).
    pub fn parse(input: &[u8]) -> Result<Self, AttestError> {
        let mut reader = Reader::new(input);
        let magic = reader.be32("magic")?;
        if magic != TPM_GENERATED_VALUE {
            return Err(AttestError::NotProducedByTpm { magic });
        }
        Ok(Self::read(&mut reader)?)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        let kind = AttestType::from_tpm(reader.be16("type")?);
        let qualified_signer = reader.tpm2b(NAME_MAX, "qualifiedSigner")?.to_vec();
        let extra_data = reader.tpm2b(EXTRA_DATA_MAX, "extraData")?.to_vec();
        let clock_info = ClockInfo {
            clock: reader.be64("clock")?,
            reset_count: reader.be32("resetCount")?,
            restart_count: reader.be32("restartCount")?,
            safe: read_yes_no(reader, "safe")?,
        };
        let firmware_version = reader.be64("firmwareVersion")?;
        let attested = match kind {
            AttestType::Quote => Attested::Quote {
                selection: read_selection(reader)?,
                pcr_digest: reader.tpm2b(DIGEST_MAX, "pcrDigest")?.to_vec(),
            },
            AttestType::Certify => Attested::Certify {
                name: reader.tpm2b(NAME_MAX, "name")?.to_vec(),
                qualified_name: reader.tpm2b(NAME_MAX, "qualifiedName")?.to_vec(),
            },
            AttestType::Nv => Attested::Nv {
                index_name: reader.tpm2b(NAME_MAX, "indexName")?.to_vec(),
                offset: reader.be16("offset")?,
                contents: reader.tpm2b(NV_CONTENTS_MAX, "nvContents")?.to_vec(),
            },
            AttestType::Other(_) => Attested::Other(kind),
        };
        if !matches!(attested, Attested::Other(_)) {
            reader.finish("TPMS_ATTEST")?;
        }
        Ok(Self { qualified_signer, extra_data, clock_info, firmware_version, attested })
    }

    /// The type.
    #[must_use]
    pub const fn kind(&self) -> AttestType {
        match self.attested {
            Attested::Quote { .. } => AttestType::Quote,
            Attested::Certify { .. } => AttestType::Certify,
            Attested::Nv { .. } => AttestType::Nv,
            Attested::Other(kind) => kind,
        }
    }
}

/// TPMI_YES_NO.
fn read_yes_no(reader: &mut Reader<'_>, what: &'static str) -> Result<bool, ParseError> {
    let start = reader.clone();
    match reader.u8(what)? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(start.error(Problem::Unknown { what, found: u64::from(other) })),
    }
}

/// TPML_PCR_SELECTION, kept as the list that it is.
fn read_selection(reader: &mut Reader<'_>) -> Result<PcrSelection, ParseError> {
    let start = reader.clone();
    let count = reader.be32("the number of PCR banks")?;
    if count > BANKS_MAX {
        let (found, limit) = (u64::from(count), u64::from(BANKS_MAX));
        return Err(start.error(Problem::OverLimit { what: "the number of PCR banks", found, limit }));
    }
    let mut banks = Vec::new();
    for _ in 0..count {
        let bank = read_hash(reader, "the PCR bank")?;
        let start = reader.clone();
        let size = reader.u8("sizeofSelect")?;
        if size > BITMAP_MAX {
            let (found, limit) = (u64::from(size), u64::from(BITMAP_MAX));
            return Err(start.error(Problem::OverLimit { what: "sizeofSelect", found, limit }));
        }
        banks.push(BankSelection { bank, bitmap: bitmap(reader.take(usize::from(size), "pcrSelect")?) });
    }
    Ok(PcrSelection::new(banks))
}

/// Bit `n % 8` of byte `n / 8` is PCR `n`: a little-endian number.
pub(crate) fn bitmap(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |bits, byte| bits << 8 | u32::from(*byte))
}
