//! CEL-TLV, section 5.1: type (one byte), length (four bytes, big endian), value; a record is its number, its PCR or NV index, its
//! digests and its content, in this order.

use super::{Content, Index, Record, add, digest, malformed, pcr, push};
use crate::bytes::{ParseError, Reader};
use crate::digest::Digest;

const RECNUM: u8 = 0;
const PCR: u8 = 1;
const NV_INDEX: u8 = 2;
const DIGESTS: u8 = 3;
pub(super) const MANAGEMENT: u64 = 4;
pub(super) const PCCLIENT_STD: u64 = 5;
pub(super) const IMA_TEMPLATE: u64 = 7;

/// Type and value.
fn tlv<'a>(reader: &mut Reader<'a>, what: &'static str) -> Result<(u8, Reader<'a>), ParseError> {
    let kind = reader.u8(what)?;
    let length = usize::try_from(reader.be32(what)?).unwrap_or(usize::MAX);
    Ok((kind, reader.sub(length, what)?))
}

/// A big-endian number of at most eight bytes: encoders use as many as they like.
fn number(value: &Reader<'_>) -> Result<u64, ParseError> {
    let bytes = value.rest();
    if bytes.is_empty() || bytes.len() > 8 {
        return Err(malformed(value.position(), "a number has 1 to 8 bytes"));
    }
    Ok(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

pub(super) fn records(log: &[u8]) -> Result<Vec<Record>, ParseError> {
    let mut reader = Reader::new(log);
    let mut records = Vec::new();
    while !reader.is_empty() {
        push(&mut records, record(&mut reader)?)?;
    }
    Ok(records)
}

fn record(reader: &mut Reader<'_>) -> Result<Record, ParseError> {
    let at = reader.position();
    let (kind, value) = tlv(reader, "a record's number")?;
    if kind != RECNUM {
        return Err(malformed(at, "a record begins with its number"));
    }
    let recnum = Some(number(&value)?);
    let (kind, value) = tlv(reader, "a record's index")?;
    let index = match kind {
        PCR => pcr(value.position(), number(&value)?)?,
        NV_INDEX => Index::Nv(u32::try_from(number(&value)?).map_err(|_| malformed(value.position(), "an NV index"))?),
        _ => return Err(malformed(value.position(), "a PCR or an NV index must follow a record's number")),
    };
    let (kind, value) = tlv(reader, "a record's digests")?;
    if kind != DIGESTS {
        return Err(malformed(value.position(), "digests must follow a record's index"));
    }
    let digests = digests(value)?;
    let (kind, value) = tlv(reader, "a record's content")?;
    Ok(Record { at, recnum, index, digests, content: content(u64::from(kind), value)? })
}

fn digests(mut list: Reader<'_>) -> Result<Vec<Digest>, ParseError> {
    let mut digests = Vec::new();
    while !list.is_empty() {
        let (alg, value) = tlv(&mut list, "a digest")?;
        let at = value.position();
        add(at, &mut digests, digest(at, u64::from(alg), value.rest())?)?;
    }
    Ok(digests)
}

fn content(kind: u64, mut value: Reader<'_>) -> Result<Content, ParseError> {
    Ok(match kind {
        MANAGEMENT => Content::Management(u64::from(tlv(&mut value, "a management event")?.0)),
        PCCLIENT_STD => {
            let (event_type, data) = both(value)?;
            let event_type = u32::try_from(number(&event_type)?);
            let event_type = event_type.map_err(|_| malformed(data.position(), "an event type has four bytes"))?;
            Content::PcClient { event_type, data: data.rest().to_vec() }
        }
        IMA_TEMPLATE => {
            let (name, data) = both(value)?;
            Content::ImaTemplate { name: String::from_utf8_lossy(name.rest()).into_owned(), data: data.rest().to_vec() }
        }
        kind => Content::Other { kind: kind.to_string(), data: value.rest().to_vec() },
    })
}

/// Items 0 and 1, in either order, and nothing else.
fn both(mut value: Reader<'_>) -> Result<(Reader<'_>, Reader<'_>), ParseError> {
    let (first, one) = tlv(&mut value, "a content's first item")?;
    let (second, two) = tlv(&mut value, "a content's second item")?;
    value.finish("a record's content")?;
    match (first, second) {
        (0, 1) => Ok((one, two)),
        (1, 0) => Ok((two, one)),
        _ => Err(malformed(one.position(), "a content has the items 0 and 1")),
    }
}
