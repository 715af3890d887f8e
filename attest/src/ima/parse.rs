//! The two forms of an IMA list: `binary_runtime_measurements` and `ascii_runtime_measurements`.
//!
//! Linux `ima_fs.c` (`ima_measurements_show`, `ima_ascii_measurements_show`). Binary, little endian: PCR, template digest, length and name,
//! then the length and the template data; the legacy `ima` template has a digest and a length-prefixed name in their place. A list in
//! ascii is rewritten to the binary form, so that both replay by the same code. This establishes framing only.

use std::borrow::Cow;

use super::entry::{Entry, LEGACY_NAME_LEN, TemplateData};
use crate::bytes::{ParseError, Problem, Reader};
use crate::digest::HashAlg;

/// Longest list: ten times what a busy host logs between boots; larger ones are refused before any work.
pub const LIST_MAX: usize = 64 << 20;
/// Most entries: a list of this length takes a verifier about a second.
pub const ENTRIES_MAX: u64 = 1_000_000;
/// What a list is too long by, as its error names it.
pub const LIST_SIZE: &str = "size of the IMA list";
/// See [`LIST_SIZE`].
pub const LIST_ENTRIES: &str = "number of IMA entries";
/// Longest template name: the longest format string of the kernel has 69 bytes.
pub const NAME_MAX: u32 = 255;
/// Longest template data: a measured buffer may be an SELinux policy of a few megabytes.
pub const DATA_MAX: u32 = 16 << 20;
/// Longest path: PATH_MAX of Linux. A longer one is not a path but is framed by the same data limit.
pub const PATH_MAX: usize = 4096;
/// Width of the template digest in `binary_runtime_measurements`: SHA-1, whatever the banks.
const SHA1_LEN: usize = 20;
/// Width of the PCR index that begins an entry.
const PCR_LEN: usize = 4;

/// The form of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ImaFormat {
    /// `binary_runtime_measurements`.
    Binary,
    /// `ascii_runtime_measurements`, or one of the per-bank files with wider template digests.
    Ascii,
}

impl ImaFormat {
    /// Tells the forms apart by the first byte: a PCR index in binary is a control character, in ascii a digit or a space. An empty
    /// list is a binary one.
    #[must_use]
    pub fn detect(list: &[u8]) -> Self {
        if list.first().is_some_and(|byte| *byte >= b' ') { Self::Ascii } else { Self::Binary }
    }
}

/// A well-framed list. Its entries are claims until [`super::replay_prefix`] has verified them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImaLog<'a> {
    list: Cow<'a, [u8]>,
    digest_len: usize,
    count: u64,
    stray: usize,
}

impl<'a> ImaLog<'a> {
    /// Reads a list in the form that its first byte shows.
    ///
    /// # Errors
    /// At the byte where the list is malformed or over a limit.
    pub fn parse(list: &'a [u8]) -> Result<Self, ParseError> {
        Self::parse_as(list, ImaFormat::detect(list))
    }

    /// Reads a list in the given form.
    ///
    /// # Errors
    /// At the byte where the list is malformed or over a limit.
    pub fn parse_as(list: &'a [u8], format: ImaFormat) -> Result<Self, ParseError> {
        let size = u64::try_from(list.len()).unwrap_or(u64::MAX);
        if list.len() > LIST_MAX {
            return Err(over(0, LIST_SIZE, size, 64 << 20));
        }
        let (list, digest_len) = match format {
            ImaFormat::Binary => (Cow::Borrowed(list), SHA1_LEN),
            ImaFormat::Ascii => {
                let (list, digest_len) = super::ascii::to_binary(list)?;
                (Cow::Owned(list), digest_len)
            }
        };
        let mut reader = Reader::new(&list);
        let mut count = 0u64;
        // Bytes too few to hold a PCR index are no entry: files pass through tools that add a line end.
        while reader.left() >= PCR_LEN {
            if count >= ENTRIES_MAX {
                return Err(over(reader.position(), LIST_ENTRIES, count.saturating_add(1), ENTRIES_MAX));
            }
            entry(&mut reader, digest_len)?;
            count = count.saturating_add(1);
        }
        let stray = reader.left();
        Ok(Self { list, digest_len, count, stray })
    }

    /// How many entries the list has.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.count
    }

    /// True when the list has no entry.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes behind the last entry, too few to begin another.
    #[must_use]
    pub const fn stray_bytes(&self) -> usize {
        self.stray
    }

    /// The bank that the list's template digests are of: SHA-1, or as wide as the per-bank file has them.
    #[must_use]
    pub const fn listed_bank(&self) -> HashAlg {
        match self.digest_len {
            32 => HashAlg::Sha256,
            48 => HashAlg::Sha384,
            64 => HashAlg::Sha512,
            _ => HashAlg::Sha1,
        }
    }

    /// The entries, unverified.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let mut reader = Reader::new(&self.list);
        let digest_len = self.digest_len;
        // Parsing went through the whole list once: an entry is missing only at its end.
        std::iter::from_fn(move || if reader.left() < PCR_LEN { None } else { entry(&mut reader, digest_len).ok() })
    }
}

/// Where the entries of a binary list begin, and, last, where the last whole one ends: a list that is read while the kernel or a copy
/// appends to it may end within an entry.
///
/// # Errors
/// At the byte where the list is malformed or over a limit; never because its end is missing.
pub fn boundaries(list: &[u8]) -> Result<Vec<usize>, ParseError> {
    let mut reader = Reader::new(list);
    let mut found = vec![0];
    while reader.left() >= PCR_LEN {
        match entry(&mut reader, SHA1_LEN) {
            Ok(_) => found.push(reader.position()),
            Err(ParseError { problem: Problem::Truncated { .. }, .. }) => break,
            Err(error) => return Err(error),
        }
        let entries = u64::try_from(found.len()).unwrap_or(u64::MAX).saturating_sub(1);
        if entries > ENTRIES_MAX {
            return Err(over(reader.position(), LIST_ENTRIES, entries, ENTRIES_MAX));
        }
    }
    Ok(found)
}

pub(super) const fn over(at: usize, what: &'static str, found: u64, limit: u64) -> ParseError {
    ParseError { at, problem: Problem::OverLimit { what, found, limit } }
}

fn bounded(reader: &mut Reader<'_>, limit: u32, what: &'static str) -> Result<usize, ParseError> {
    let at = reader.position();
    let length = reader.le32(what)?;
    if length > limit {
        return Err(over(at, what, u64::from(length), u64::from(limit)));
    }
    Ok(usize::try_from(length).unwrap_or(usize::MAX))
}

fn entry<'a>(reader: &mut Reader<'a>, digest_len: usize) -> Result<Entry<'a>, ParseError> {
    let at = reader.position();
    let pcr = reader.le32("PCR of an IMA entry")?;
    if pcr > 23 {
        return Err(over(at, "PCR of an IMA entry", u64::from(pcr), 23));
    }
    let listed = reader.take(digest_len, "template digest")?;
    let length = bounded(reader, NAME_MAX, "length of the template name")?;
    let name = reader.take(length, "template name")?;
    let data = if name == b"ima" {
        let digest = reader.take(SHA1_LEN, "file digest of the legacy template")?;
        let length = bounded(reader, 255, "length of the legacy event name")?;
        debug_assert!(length < LEGACY_NAME_LEN);
        TemplateData::Legacy { digest, name: reader.take(length, "legacy event name")? }
    } else {
        let length = bounded(reader, DATA_MAX, "length of the template data")?;
        TemplateData::Fields(reader.take(length, "template data")?)
    };
    Ok(Entry { at, pcr, listed, name, data })
}
