//! CEL-CBOR, section 5.2: a record is a map with the numbers of CEL-TLV's types as keys; the log is an array of records, or one
//! record after another (RFC 8742).

use minicbor::Decoder;
use minicbor::data::Type;
use minicbor::decode::Error;

use super::tlv::{IMA_TEMPLATE, MANAGEMENT, PCCLIENT_STD};
use super::{Content, Index, Record, add, digest, malformed, pcr, push};
use crate::bytes::ParseError;
use crate::digest::Digest;

/// Most keys of a record: four, and one content.
const KEYS_MAX: u64 = 8;

pub(super) fn records(log: &[u8]) -> Result<Vec<Record>, ParseError> {
    let mut d = Decoder::new(log);
    let mut records = Vec::new();
    if d.datatype().ok().is_some_and(|kind| matches!(kind, Type::Array | Type::ArrayIndef)) {
        let count = read(&d.clone(), d.array())?;
        let mut left = count;
        while left != Some(0) {
            if count.is_none() && d.datatype().ok() == Some(Type::Break) {
                read(&d.clone(), d.skip())?;
                break;
            }
            push(&mut records, record(&mut d)?)?;
            left = left.map(|left| left.saturating_sub(1));
        }
        if d.position() != log.len() {
            return Err(malformed(d.position(), "bytes follow the log's array"));
        }
        return Ok(records);
    }
    while d.position() < log.len() {
        push(&mut records, record(&mut d)?)?;
    }
    Ok(records)
}

/// Names the byte where reading began.
fn read<T>(before: &Decoder<'_>, result: Result<T, Error>) -> Result<T, ParseError> {
    result.map_err(|_| malformed(before.position(), "a record is not CEL-CBOR"))
}

fn record(d: &mut Decoder<'_>) -> Result<Record, ParseError> {
    let at = d.position();
    let keys = read(&d.clone(), d.map())?.filter(|keys| *keys <= KEYS_MAX);
    let keys = keys.ok_or_else(|| malformed(at, "a record is a map of at most eight keys"))?;
    let (mut recnum, mut index, mut digests, mut content) = (None, None, None, None);
    for _ in 0..keys {
        let here = d.position();
        let key = read(&d.clone(), d.u64())?;
        let again = match key {
            0 => recnum.replace(read(&d.clone(), d.u64())?).is_some(),
            1 => index.replace(pcr(here, read(&d.clone(), d.u64())?)?).is_some(),
            2 => index.replace(Index::Nv(read(&d.clone(), d.u32())?)).is_some(),
            3 => digests.replace(digest_list(d)?).is_some(),
            key => content.replace(content_of(key, d)?).is_some(),
        };
        if again {
            return Err(malformed(here, "a record says one thing twice"));
        }
    }
    let missing = |what| malformed(at, what);
    Ok(Record {
        at,
        recnum,
        index: index.ok_or_else(|| missing("a record names neither a PCR nor an NV index"))?,
        digests: digests.ok_or_else(|| missing("a record has no digests"))?,
        content: content.ok_or_else(|| missing("a record has no content"))?,
    })
}

/// A map from algorithm to digest, or an array of pairs.
fn digest_list(d: &mut Decoder<'_>) -> Result<Vec<Digest>, ParseError> {
    let at = d.position();
    let pairs = read(&d.clone(), d.datatype())? == Type::Array;
    let count = if pairs { read(&d.clone(), d.array())? } else { read(&d.clone(), d.map())? };
    let count = count.filter(|count| *count <= 16).ok_or_else(|| malformed(at, "a record has at most 16 digests"))?;
    let mut digests = Vec::new();
    for _ in 0..count {
        if pairs && read(&d.clone(), d.array())? != Some(2) {
            return Err(malformed(d.position(), "a digest is an algorithm and its bytes"));
        }
        let here = d.position();
        let alg = read(&d.clone(), d.u64())?;
        let bytes = read(&d.clone(), d.bytes())?;
        add(here, &mut digests, digest(here, alg, bytes)?)?;
    }
    Ok(digests)
}

fn content_of(kind: u64, d: &mut Decoder<'_>) -> Result<Content, ParseError> {
    let at = d.position();
    match kind {
        MANAGEMENT => {
            let read_kind = read(&d.clone(), d.datatype())?;
            if read_kind != Type::Map {
                return Err(malformed(at, "a management event is a map"));
            }
            let mut inner = d.clone();
            let count = read(&inner.clone(), inner.map())?;
            let kind = if count == Some(0) { 0 } else { read(&inner.clone(), inner.u64())? };
            read(&d.clone(), d.skip())?;
            Ok(Content::Management(kind))
        }
        PCCLIENT_STD | IMA_TEMPLATE => {
            if read(&d.clone(), d.map())? != Some(2) || read(&d.clone(), d.u64())? != 0 {
                return Err(malformed(at, "a content has the items 0 and 1, in this order"));
            }
            let (event_type, name) = match kind {
                PCCLIENT_STD => (read(&d.clone(), d.u32())?, String::new()),
                _ => (0, text(d)?),
            };
            if read(&d.clone(), d.u64())? != 1 {
                return Err(malformed(at, "a content has the items 0 and 1, in this order"));
            }
            let data = read(&d.clone(), d.bytes())?.to_vec();
            Ok(if kind == PCCLIENT_STD {
                Content::PcClient { event_type, data }
            } else {
                Content::ImaTemplate { name, data }
            })
        }
        kind => {
            let data = match read(&d.clone(), d.datatype())? {
                Type::Bytes => read(&d.clone(), d.bytes())?.to_vec(),
                Type::String => read(&d.clone(), d.str())?.as_bytes().to_vec(),
                _ => {
                    read(&d.clone(), d.skip())?;
                    Vec::new()
                }
            };
            Ok(Content::Other { kind: kind.to_string(), data })
        }
    }
}

fn text(d: &mut Decoder<'_>) -> Result<String, ParseError> {
    match read(&d.clone(), d.datatype())? {
        Type::Bytes => Ok(String::from_utf8_lossy(read(&d.clone(), d.bytes())?).into_owned()),
        _ => Ok(read(&d.clone(), d.str())?.to_owned()),
    }
}
