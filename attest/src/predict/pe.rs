//! PE/COFF images: Microsoft PE format ("COFF file header", "optional header", "section table", "attribute certificate
//! table") and the Authenticode image hash as UEFI firmware computes it (PFP 1.06 section 10.2.3, TCG2's PE measurement).
//!
//! Establishes where headers, sections and certificates lie, that none of them overlap, and the image's Authenticode digest.
//! Does **not** establish that a signature is valid, nor what the firmware's loader makes of the image in memory: relocations
//! or overlapping addresses may change a section after it was hashed here.

use std::ops::Range;

use crate::bytes::{ParseError, Problem, Reader};
use crate::digest::{Digest, HashAlg};

/// Largest image. An EFI system partition is seldom larger, and a UKI with a whole root file system as initrd still fits.
pub const IMAGE_MAX: usize = 512 << 20;

/// Most sections: the limit of the Windows loader. A UKI has about 15, a kernel 4.
pub const SECTIONS_MAX: u16 = 96;

/// Most data directories: the format defines 16.
const DIRECTORIES_MAX: u32 = 16;

/// Index of the certificate table among the data directories.
const CERTIFICATES: u32 = 4;

/// Where the DOS header keeps the PE header's offset.
const PE_OFFSET_AT: usize = 0x3c;

/// One row of the section table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// The name, zero-padded to 8 bytes.
    name: [u8; 8],
    /// Where its row lies, for errors.
    row: usize,
    /// Bytes in memory.
    virtual_size: usize,
    /// Where its data lies in the image; empty where it has none.
    data: Range<usize>,
}

impl Section {
    /// The name without its padding.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        let end = self.name.iter().position(|byte| *byte == 0).unwrap_or(self.name.len());
        self.name.get(..end).unwrap_or_default()
    }

    /// Where its row of the table lies in the outermost input.
    pub(super) const fn row(&self) -> usize {
        self.row
    }
}

/// A framed PE image. It borrows its bytes.
#[derive(Debug, Clone)]
pub struct Image<'a> {
    bytes: &'a [u8],
    /// Offset of the image in the outermost input.
    base: usize,
    /// Where the optional header's CheckSum lies.
    checksum: usize,
    /// Where the certificate table's directory entry lies, if there is one.
    certificate_entry: Option<usize>,
    /// Bytes of certificates at the image's end.
    certificates: usize,
    headers: usize,
    sections: Vec<Section>,
}

impl<'a> Image<'a> {
    /// Frames an image that is the whole input.
    ///
    /// # Errors
    /// What cannot be framed, with the byte.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        Self::parse_at(bytes, 0)
    }

    /// Frames an image that began at byte `base` of the outermost input.
    pub(super) fn parse_at(bytes: &'a [u8], base: usize) -> Result<Self, ParseError> {
        let mut reader = Reader::nested(bytes, base);
        if bytes.len() > IMAGE_MAX {
            let (found, limit) = (wide(bytes.len()), wide(IMAGE_MAX));
            return Err(reader.error(Problem::OverLimit { what: "the image's length", found, limit }));
        }
        if reader.clone().take(2, "the DOS signature")? != b"MZ" {
            return Err(reader.error(Problem::Malformed { what: "the image does not begin with the DOS signature MZ" }));
        }
        reader.take(PE_OFFSET_AT, "the DOS header")?;
        let place = reader.clone();
        let pe = size(reader.le32("the PE header's offset")?);
        let mut reader = Reader::nested(bytes, base);
        if pe > bytes.len() {
            return Err(place.error(Problem::Malformed { what: "the PE header lies beyond the image's end" }));
        }
        reader.take(pe, "the bytes before the PE header")?;
        let place = reader.clone();
        if reader.take(4, "the PE signature")? != b"PE\0\0" {
            return Err(place.error(Problem::Malformed { what: "no PE signature where the DOS header says" }));
        }

        reader.le16("the machine")?;
        let place = reader.clone();
        let count = reader.le16("the number of sections")?;
        if count > SECTIONS_MAX {
            let (found, limit) = (u64::from(count), u64::from(SECTIONS_MAX));
            return Err(place.error(Problem::OverLimit { what: "the number of sections", found, limit }));
        }
        reader.take(12, "the time stamp and symbol table")?;
        let optional_size = usize::from(reader.le16("the optional header's size")?);
        reader.le16("the characteristics")?;
        let optional = reader.sub(optional_size, "the optional header")?;
        let mut image = Self {
            bytes,
            base,
            checksum: 0,
            certificate_entry: None,
            certificates: 0,
            headers: 0,
            sections: Vec::with_capacity(usize::from(count)),
        };
        let certificates = image.optional_header(optional)?;
        for _ in 0..count {
            image.sections.push(section(&mut reader, base, bytes.len())?);
        }
        let table_end = reader.position().saturating_sub(base);
        if image.headers < table_end || image.headers > bytes.len() {
            return Err(reader.error(Problem::Malformed {
                what: "SizeOfHeaders does not hold the section table, or exceeds the image",
            }));
        }
        image.check_layout(certificates)?;
        Ok(image)
    }

    /// Reads the fields that the hash needs; returns the certificate table's place as the image gives it.
    fn optional_header(&mut self, mut reader: Reader<'_>) -> Result<Option<Certificates>, ParseError> {
        let place = reader.clone();
        // Bytes between SizeOfHeaders' neighbours and the number of directories differ: PE32+ has 8-byte sizes.
        let sizes = match reader.le16("the optional header's magic")? {
            0x10b => 24,
            0x20b => 40,
            found => {
                return Err(
                    place.error(Problem::Unknown { what: "the optional header's magic", found: u64::from(found) })
                );
            }
        };
        reader.take(58, "the optional header's fields")?;
        self.headers = size(reader.le32("SizeOfHeaders")?);
        self.checksum = reader.position().saturating_sub(self.base);
        reader.le32("CheckSum")?;
        reader.take(sizes, "the optional header's sizes")?;
        let place = reader.clone();
        let directories = reader.le32("the number of data directories")?;
        if directories > DIRECTORIES_MAX {
            let (found, limit) = (u64::from(directories), u64::from(DIRECTORIES_MAX));
            return Err(place.error(Problem::OverLimit { what: "the number of data directories", found, limit }));
        }
        if directories <= CERTIFICATES {
            return Ok(None);
        }
        reader.take(32, "the data directories")?;
        let at = reader.position();
        self.certificate_entry = Some(at.saturating_sub(self.base));
        // Unlike the other directories, this one holds a file offset.
        let start = size(reader.le32("the certificate table's offset")?);
        let length = size(reader.le32("the certificate table's size")?);
        Ok((length > 0).then_some(Certificates { at, start, length }))
    }

    /// Headers, sections and certificates follow one another, and certificates end the image: firmware takes its hash to be so.
    fn check_layout(&mut self, certificates: Option<Certificates>) -> Result<(), ParseError> {
        let refuse = |at, what| Err(ParseError { at, problem: Problem::Malformed { what } });
        let mut end = self.headers;
        let mut filled: Vec<&Section> = self.sections.iter().filter(|one| !one.data.is_empty()).collect();
        filled.sort_by_key(|one| one.data.start);
        for section in filled {
            if section.data.start < end {
                return refuse(section.row, "a section's data overlaps the headers or another section's");
            }
            end = section.data.end;
        }
        if let Some(Certificates { at, start, length }) = certificates {
            if start < end || start.checked_add(length) != Some(self.bytes.len()) {
                return refuse(at, "the certificate table overlaps a section or does not end the image");
            }
            self.certificates = length;
        }
        Ok(())
    }

    /// Whether the image carries certificates. They are not verified.
    #[must_use]
    pub const fn is_signed(&self) -> bool {
        self.certificates > 0
    }

    /// The section table, in its order.
    #[must_use]
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// A section's data as it stands in memory: VirtualSize bytes of the file, and where they begin in the outermost input.
    ///
    /// # Errors
    /// A section that is longer in memory than in the file: what fills it is the loader's.
    pub fn data(&self, section: &Section) -> Result<(&'a [u8], usize), ParseError> {
        let at = self.base.saturating_add(section.data.start);
        self.bytes
            .get(section.data.clone())
            .and_then(|data| data.get(..section.virtual_size))
            .map(|data| (data, at))
            .ok_or({
                ParseError {
                    at: section.row,
                    problem: Problem::Malformed { what: "a measured section is longer in memory than in the file" },
                }
            })
    }

    /// The Authenticode digest: everything but CheckSum, the certificate table's directory entry and the certificates. Zero
    /// padding that a signing tool puts before the certificates is part of it. None where `bank` cannot be computed.
    #[must_use]
    pub fn authenticode(&self, bank: HashAlg) -> Option<Digest> {
        let after_checksum = self.checksum.saturating_add(4);
        let mut ranges: Vec<Range<usize>> = Vec::from([Range { start: 0, end: self.checksum }]);
        match self.certificate_entry {
            Some(entry) => ranges.extend([after_checksum..entry, entry.saturating_add(8)..self.headers]),
            None => ranges.push(after_checksum..self.headers),
        }
        let mut data: Vec<Range<usize>> = self.sections.iter().map(|one| one.data.clone()).collect();
        data.retain(|range| !range.is_empty());
        data.sort_by_key(|range| range.start);
        // What follows is found by the sum of the bytes hashed, not by an offset: with a gap between sections the last bytes
        // are hashed twice, and firmware does so too.
        let hashed = data.iter().fold(self.headers, |sum, range| sum.saturating_add(range.len()));
        ranges.extend(data);
        let end = self.bytes.len().saturating_sub(self.certificates);
        if hashed < end {
            ranges.push(hashed..end);
        }
        let parts: Option<Vec<&[u8]>> = ranges.into_iter().map(|range| self.bytes.get(range)).collect();
        bank.hash(&parts?)
    }
}

/// The certificate table's directory entry.
#[derive(Debug, Clone, Copy)]
struct Certificates {
    /// Where the entry lies, for errors.
    at: usize,
    start: usize,
    length: usize,
}

fn section(reader: &mut Reader<'_>, base: usize, end: usize) -> Result<Section, ParseError> {
    let row = reader.position();
    let name = reader.array("a section's name")?;
    let virtual_size = size(reader.le32("a section's size in memory")?);
    reader.le32("a section's address")?;
    let length = size(reader.le32("a section's size in the file")?);
    let place = reader.clone();
    let start = size(reader.le32("a section's offset in the file")?);
    reader.take(16, "a section's relocations and flags")?;
    let data = if length == 0 { 0..0 } else { start..start.saturating_add(length) };
    if data.end > end {
        let left = end.saturating_sub(start);
        let at = if start > end { place.position() } else { base.saturating_add(start) };
        return Err(ParseError { at, problem: Problem::Truncated { what: "a section's data", need: length, left } });
    }
    Ok(Section { name, row, virtual_size, data })
}

fn size(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
