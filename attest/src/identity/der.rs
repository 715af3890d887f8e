//! Elements of DER, read one by one from untrusted bytes.
//!
//! X.690 8 and 10. For the structures that no crate here reads: the TPM's attributes in an alternative name, hardware module names,
//! attribute certificates, and the deviations from DER that makers ship. It establishes framing only; signatures are always
//! checked over the received bytes, never over what is read here.

use crate::bytes::{ParseError, Problem, Reader};

/// BOOLEAN.
pub(crate) const BOOLEAN: u8 = 0x01;
/// INTEGER.
pub(crate) const INTEGER: u8 = 0x02;
/// BIT STRING.
pub(crate) const BIT_STRING: u8 = 0x03;
/// OCTET STRING.
pub(crate) const OCTET_STRING: u8 = 0x04;
/// OBJECT IDENTIFIER.
pub(crate) const OID: u8 = 0x06;
/// UTF8String.
pub(crate) const UTF8: u8 = 0x0c;
/// GeneralizedTime.
pub(crate) const GENERALIZED_TIME: u8 = 0x18;
/// SEQUENCE and SEQUENCE OF.
pub(crate) const SEQUENCE: u8 = 0x30;
/// SET and SET OF.
pub(crate) const SET: u8 = 0x31;

/// Deepest nesting that is followed: certificates stay below 12.
const DEPTH_MAX: u8 = 24;

/// One element.
#[derive(Debug, Clone)]
pub(crate) struct Element<'a> {
    /// The identifier octet.
    pub(crate) tag: u8,
    /// What it holds.
    pub(crate) contents: Reader<'a>,
    /// Identifier, length and contents as they stand.
    pub(crate) whole: &'a [u8],
}

impl<'a> Element<'a> {
    /// Takes the next element.
    ///
    /// # Errors
    /// Tags above 30, indefinite or padded lengths, and what ends too early.
    pub(crate) fn next(reader: &mut Reader<'a>, what: &'static str) -> Result<Self, ParseError> {
        let (start, all) = (reader.left(), reader.rest());
        let tag = reader.u8(what)?;
        if tag & 0x1f == 0x1f {
            return Err(reader.error(Problem::Unknown { what: "the DER tag", found: u64::from(tag) }));
        }
        let length = match reader.u8("a DER length")? {
            short @ 0..=0x7f => usize::from(short),
            long => {
                let count = usize::from(long & 0x7f);
                if !(1..=4).contains(&count) {
                    return Err(reader.error(Problem::Unknown { what: "the DER length", found: u64::from(long) }));
                }
                let bytes = reader.take(count, "a DER length")?;
                let length = bytes.iter().fold(0usize, |sum, byte| (sum << 8) | usize::from(*byte));
                if length < 0x80 || bytes.first() == Some(&0) {
                    let found = u64::try_from(length).unwrap_or(u64::MAX);
                    return Err(reader.error(Problem::Unknown { what: "the padded DER length", found }));
                }
                length
            }
        };
        let contents = reader.sub(length, what)?;
        let whole = all.get(..start.saturating_sub(reader.left())).unwrap_or_default();
        Ok(Self { tag, contents, whole })
    }

    /// Every element of `reader`, to its end.
    pub(crate) fn all(mut reader: Reader<'a>, what: &'static str) -> Result<Vec<Self>, ParseError> {
        let mut list = Vec::new();
        while !reader.is_empty() {
            list.push(Self::next(&mut reader, what)?);
        }
        Ok(list)
    }

    /// The contents of the next element, which must have this tag.
    pub(crate) fn expect(reader: &mut Reader<'a>, tag: u8, what: &'static str) -> Result<Reader<'a>, ParseError> {
        let at = reader.clone();
        let element = Self::next(reader, what)?;
        if element.tag == tag {
            return Ok(element.contents);
        }
        Err(at.error(Problem::Mismatch { what, expected: tag.into(), found: element.tag.into() }))
    }

    /// The contents of the next element if it has this tag; otherwise nothing is taken.
    pub(crate) fn optional(
        reader: &mut Reader<'a>,
        tag: u8,
        what: &'static str,
    ) -> Result<Option<Reader<'a>>, ParseError> {
        if reader.rest().first() == Some(&tag) { Self::expect(reader, tag, what).map(Some) } else { Ok(None) }
    }

    /// The contents as text, for the string types; host-provided, so callers make it fit one line.
    pub(crate) fn text(&self) -> Option<String> {
        let bytes = self.contents.rest();
        match self.tag {
            // UTF8String, NumericString, PrintableString, IA5String, VisibleString
            UTF8 | 0x12 | 0x13 | 0x16 | 0x1a => std::str::from_utf8(bytes).ok().map(str::to_owned),
            // TeletexString: Latin-1 in practice.
            0x14 => Some(bytes.iter().map(|byte| char::from(*byte)).collect()),
            // BMPString
            0x1e => {
                let units: Vec<u16> = bytes.as_chunks().0.iter().map(|pair| u16::from_be_bytes(*pair)).collect();
                String::from_utf16(&units).ok()
            }
            _ => None,
        }
    }
}

/// An OBJECT IDENTIFIER's contents in dotted form.
pub(crate) fn oid(contents: &[u8]) -> String {
    let mut out = String::new();
    let mut arc = 0u64;
    for byte in contents {
        arc = (arc.wrapping_shl(7)) | u64::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            continue;
        }
        if out.is_empty() {
            let first = (arc / 40).min(2);
            out = format!("{first}.{}", arc.saturating_sub(first.saturating_mul(40)));
        } else {
            out = format!("{out}.{arc}");
        }
        arc = 0;
    }
    out
}

/// What deviates from DER in a structure that makers sign all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Deviations {
    /// The members of a SET OF are not in ascending order (X.690 11.6).
    pub(crate) unsorted_set: bool,
    /// A FALSE that is the default is written out (X.690 11.5). Every BOOLEAN of a certificate defaults to FALSE.
    pub(crate) explicit_default: bool,
}

impl Deviations {
    /// Looks through a whole structure, OCTET STRINGs that hold DER included.
    pub(crate) fn of(input: &[u8]) -> Self {
        let mut seen = Self::default();
        seen.look(Reader::new(input), 0);
        seen
    }

    fn look(&mut self, mut reader: Reader<'_>, depth: u8) {
        while depth < DEPTH_MAX && !reader.is_empty() {
            let Ok(element) = Element::next(&mut reader, "an element") else { return };
            let inside = element.contents.clone();
            match element.tag {
                BOOLEAN if inside.rest() == [0] => self.explicit_default = true,
                SET => {
                    let mut before: Option<&[u8]> = None;
                    let members = Element::all(inside.clone(), "a member").unwrap_or_default();
                    for member in &members {
                        self.unsorted_set |= before.is_some_and(|before| before > member.whole);
                        before = Some(member.whole);
                    }
                    self.look(inside, depth.saturating_add(1));
                }
                OCTET_STRING if Element::all(inside.clone(), "an element").is_ok_and(|list| list.len() == 1) => {
                    self.look(inside, depth.saturating_add(1));
                }
                tag if tag & 0x20 != 0 => self.look(inside, depth.saturating_add(1)),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_is_framed_or_refused_at_its_byte() {
        let mut reader = Reader::new(&[0x30, 3, 2, 1, 5, 0x0c, 1, b'x']);
        let list = Element::all(Element::expect(&mut reader, SEQUENCE, "it").unwrap(), "member").unwrap();
        assert_eq!((list.len(), list[0].tag, list[0].whole), (1, INTEGER, &[2u8, 1, 5][..]));
        assert_eq!(Element::next(&mut reader, "text").unwrap().text().as_deref(), Some("x"));
        let long = [[0x04, 0x81, 0x80].as_slice(), &[7; 128]].concat();
        assert_eq!(Element::next(&mut Reader::new(&long), "it").unwrap().contents.left(), 128);
        let rows: [(&[u8], usize); 7] = [
            (&[], 0),
            (&[0x30], 1),
            (&[0x30, 2, 0], 2),
            (&[0x30, 0x80, 0, 0], 2),
            (&[0x30, 0x81, 5, 0, 0, 0, 0, 0], 3),
            (&[0x1f, 1, 0], 1),
            (&[0x30, 0x85, 0, 0, 0, 0, 1, 0], 2),
        ];
        for (input, at) in rows {
            assert_eq!(Element::next(&mut Reader::new(input), "it").unwrap_err().at, at, "{input:x?}");
        }
        assert_eq!(oid(&[0x67, 0x81, 0x05, 0x08, 0x01]), "2.23.133.8.1");
        assert_eq!(oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 7]), "1.2.840.113549.1.1.7");
    }

    #[test]
    fn deviations_are_seen_at_any_depth() {
        let sorted = [0x31, 6, 2, 1, 1, 2, 1, 2];
        let unsorted = [0x31, 6, 2, 1, 2, 2, 1, 1];
        let inside = [[0x04, 8].as_slice(), &unsorted].concat();
        let rows: [(&[u8], Deviations); 5] = [
            (&sorted, Deviations::default()),
            (&unsorted, Deviations { unsorted_set: true, explicit_default: false }),
            (&inside, Deviations { unsorted_set: true, explicit_default: false }),
            (&[0x30, 3, 1, 1, 0], Deviations { unsorted_set: false, explicit_default: true }),
            (&[0x30, 3, 1, 1, 0xff], Deviations::default()),
        ];
        for (input, expect) in rows {
            assert_eq!(Deviations::of(input), expect, "{input:x?}");
        }
        assert_eq!(Deviations::of(&[0x30; 4096]), Deviations::default(), "a deep or broken structure ends");
    }
}
