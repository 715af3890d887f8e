//! CBOR as CoRIM and COSE use it, read into a bounded tree whose items know their byte.
//!
//! RFC 8949. Definite and indefinite arrays and maps; heads need not be the shortest. A string in pieces is refused: what is signed is
//! taken as it stands. So are a key that a map has twice (§5.6), a key that is neither a number nor a text, and bytes after the item.
//! It establishes framing, never meaning.

use crate::bytes::{ParseError, Problem, Reader};

/// Deepest nesting: a digest in a register of a CoMID is ten levels deep, a COSE key in a condition a few more.
const DEPTH_MAX: usize = 32;
/// Most pairs of one map: the largest that the draft knows has sixteen, a map of registers one for each PCR.
const MAP_MAX: usize = 256;
/// Most items of one file: ten for each of 200,000 files.
const ITEMS_MAX: usize = 1 << 21;

/// What of an item is shown, in bytes.
pub(super) const SHOWN_MAX: usize = 512;

/// What may still be read of a file, however many of its byte strings are opened.
#[derive(Debug)]
pub(super) struct Budget {
    items: usize,
}

impl Budget {
    pub(super) const fn new() -> Self {
        Self { items: ITEMS_MAX }
    }
}

/// One item, and where it begins.
#[derive(Debug)]
pub(super) struct Item<'a> {
    pub(super) at: usize,
    pub(super) value: Value<'a>,
}

#[derive(Debug)]
pub(super) enum Value<'a> {
    Uint(u64),
    /// −1 − n.
    Negative(u64),
    /// With the byte where the content begins.
    Bytes(&'a [u8], usize),
    Text(&'a str),
    Array(Vec<Item<'a>>),
    Map(Vec<(Item<'a>, Item<'a>)>),
    Tag(u64, Box<Item<'a>>),
    /// A floating-point number. Nothing here has a use for its value.
    Float,
    /// false 20, true 21, null 22, undefined 23.
    Simple(u8),
}

pub(super) const fn malformed(at: usize, what: &'static str) -> ParseError {
    ParseError { at, problem: Problem::Malformed { what } }
}

/// The one item that `bytes`, beginning at byte `base` of the file, hold.
pub(super) fn parse<'a>(
    bytes: &'a [u8],
    base: usize,
    budget: &mut Budget,
    what: &'static str,
) -> Result<Item<'a>, ParseError> {
    let mut reader = Reader::nested(bytes, base);
    let item = item(&mut reader, 0, budget)?;
    reader.finish(what)?;
    Ok(item)
}

/// The argument of an item's head; None: its length is indefinite.
fn argument(reader: &mut Reader<'_>, at: usize, low: u8) -> Result<Option<u64>, ParseError> {
    const WHAT: &str = "the head of a CBOR item";
    Ok(Some(match low {
        0..24 => u64::from(low),
        24 => u64::from(reader.u8(WHAT)?),
        25 => u64::from(reader.be16(WHAT)?),
        26 => u64::from(reader.be32(WHAT)?),
        27 => reader.be64(WHAT)?,
        31 => return Ok(None),
        _ => return Err(malformed(at, "the head of a CBOR item is reserved")),
    }))
}

fn item<'a>(reader: &mut Reader<'a>, depth: usize, budget: &mut Budget) -> Result<Item<'a>, ParseError> {
    let at = reader.position();
    let limit = |what, found: usize, limit: usize| {
        let number = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        ParseError { at, problem: Problem::OverLimit { what, found: number(found), limit: number(limit) } }
    };
    if depth > DEPTH_MAX {
        return Err(limit("the depth of CBOR items", depth, DEPTH_MAX));
    }
    let left = budget.items.checked_sub(1);
    budget.items = left.ok_or_else(|| limit("the number of CBOR items", ITEMS_MAX.saturating_add(1), ITEMS_MAX))?;
    let head = reader.u8("a CBOR item")?;
    let (major, low) = (head >> 5, head & 0x1f);
    let length = argument(reader, at, low)?;
    let deeper = depth.saturating_add(1);
    let value = match (major, length) {
        (0, Some(number)) => Value::Uint(number),
        (1, Some(number)) => Value::Negative(number),
        (2, Some(length)) => {
            let begins = reader.position();
            Value::Bytes(string(reader, length, "a byte string")?, begins)
        }
        (3, Some(length)) => {
            let bytes = string(reader, length, "a text")?;
            Value::Text(std::str::from_utf8(bytes).map_err(|_| malformed(at, "a text is not UTF-8"))?)
        }
        (2 | 3, None) => return Err(malformed(at, "a string in pieces (indefinite length): sign it with one length")),
        (4, count) => {
            let mut items = Vec::new();
            let mut left = counted(reader, count, "an array")?;
            while more(reader, &mut left)? {
                items.push(item(reader, deeper, budget)?);
            }
            Value::Array(items)
        }
        (5, count) => {
            let mut pairs: Vec<(Item<'a>, Item<'a>)> = Vec::new();
            let mut left = counted(reader, count, "a map")?;
            while more(reader, &mut left)? {
                if pairs.len() >= MAP_MAX {
                    return Err(limit("the number of keys of a map", MAP_MAX.saturating_add(1), MAP_MAX));
                }
                let key = item(reader, deeper, budget)?;
                if !matches!(key.value, Value::Uint(_) | Value::Negative(_) | Value::Text(_)) {
                    return Err(malformed(key.at, "a map's key is neither a number nor a text"));
                }
                if pairs.iter().any(|(other, _)| other.is_key(&key)) {
                    return Err(malformed(key.at, "a map has one key twice"));
                }
                pairs.push((key, item(reader, deeper, budget)?));
            }
            Value::Map(pairs)
        }
        (6, Some(tag)) => Value::Tag(tag, Box::new(item(reader, deeper, budget)?)),
        (7, Some(number)) => match low {
            25..=27 => Value::Float,
            // RFC 8949 §3.3: below 32 a second byte says nothing that the first cannot.
            24 if number < 32 => return Err(malformed(at, "a simple value is in the wrong form")),
            _ => Value::Simple(u8::try_from(number).unwrap_or(u8::MAX)),
        },
        (7, None) => return Err(malformed(at, "a break without an indefinite length")),
        _ => return Err(malformed(at, "a number or a tag has no length")),
    };
    Ok(Item { at, value })
}

fn string<'a>(reader: &mut Reader<'a>, length: u64, what: &'static str) -> Result<&'a [u8], ParseError> {
    reader.take(usize::try_from(length).unwrap_or(usize::MAX), what)
}

/// A count that what is left can hold: each item has a byte at least.
fn counted(reader: &Reader<'_>, count: Option<u64>, what: &'static str) -> Result<Option<usize>, ParseError> {
    let Some(count) = count else { return Ok(None) };
    let need = usize::try_from(count).unwrap_or(usize::MAX);
    if need > reader.left() {
        return Err(reader.error(Problem::Truncated { what, need, left: reader.left() }));
    }
    Ok(Some(need))
}

/// Whether another item follows; takes the break of an indefinite length.
fn more(reader: &mut Reader<'_>, left: &mut Option<usize>) -> Result<bool, ParseError> {
    match left {
        Some(0) => Ok(false),
        Some(count) => {
            *count = count.saturating_sub(1);
            Ok(true)
        }
        None if reader.rest().first() == Some(&0xff) => reader.u8("a break").map(|_| false),
        None => Ok(true),
    }
}

impl<'a> Item<'a> {
    /// Whether both are the same key, however it is written.
    pub(super) fn is_key(&self, other: &Self) -> bool {
        match (&self.value, &other.value) {
            (Value::Uint(one), Value::Uint(two)) | (Value::Negative(one), Value::Negative(two)) => one == two,
            (Value::Text(one), Value::Text(two)) => one == two,
            _ => false,
        }
    }

    pub(super) const fn error(&self, what: &'static str) -> ParseError {
        malformed(self.at, what)
    }

    pub(super) fn map(&self, what: &'static str) -> Result<&[(Self, Self)], ParseError> {
        match &self.value {
            Value::Map(pairs) => Ok(pairs),
            _ => Err(self.error(what)),
        }
    }

    /// An array of at least one item: CoRIM has no other.
    pub(super) fn array(&self, what: &'static str) -> Result<&[Self], ParseError> {
        match &self.value {
            Value::Array(items) if !items.is_empty() => Ok(items),
            _ => Err(self.error(what)),
        }
    }

    pub(super) fn text(&self, what: &'static str) -> Result<&'a str, ParseError> {
        match &self.value {
            Value::Text(text) => Ok(text),
            _ => Err(self.error(what)),
        }
    }

    pub(super) fn bytes(&self, what: &'static str) -> Result<(&'a [u8], usize), ParseError> {
        match &self.value {
            Value::Bytes(bytes, begins) => Ok((bytes, *begins)),
            _ => Err(self.error(what)),
        }
    }

    /// The content of a tag.
    pub(super) fn tagged(&self, tag: u64) -> Option<&Self> {
        match &self.value {
            Value::Tag(found, content) if *found == tag => Some(content),
            _ => None,
        }
    }

    /// A number that 64 bits with a sign can hold.
    pub(super) fn integer(&self) -> Option<i64> {
        match &self.value {
            Value::Uint(number) => i64::try_from(*number).ok(),
            Value::Negative(number) => i64::try_from(*number).ok()?.checked_neg()?.checked_sub(1),
            _ => None,
        }
    }

    /// As people write CBOR (RFC 8949 §8), for names and messages; cut where it grows longer than [`SHOWN_MAX`].
    pub(super) fn shown(&self) -> String {
        let mut out = String::new();
        self.show(&mut out);
        out
    }

    fn show(&self, out: &mut String) {
        if out.len() > SHOWN_MAX {
            return;
        }
        match &self.value {
            Value::Uint(number) => out.push_str(&number.to_string()),
            Value::Negative(number) => out.push_str(&(-1i128).saturating_sub(i128::from(*number)).to_string()),
            Value::Bytes(bytes, _) => {
                out.push_str(&format!("h'{}'", hex::encode(bytes.get(..SHOWN_MAX).unwrap_or(bytes))))
            }
            Value::Text(text) => out.extend(format!("{text:?}").chars().take(SHOWN_MAX)),
            Value::Array(items) => {
                out.push('[');
                for item in items {
                    item.show(out);
                    out.push(' ');
                }
                out.push(']');
            }
            Value::Map(pairs) => {
                out.push('{');
                for (key, value) in pairs {
                    key.show(out);
                    out.push(':');
                    value.show(out);
                    out.push(' ');
                }
                out.push('}');
            }
            Value::Tag(tag, content) => {
                out.push_str(&format!("{tag}("));
                content.show(out);
                out.push(')');
            }
            Value::Float => out.push_str("float"),
            Value::Simple(number) => out.push_str(&format!("simple({number})")),
        }
    }

    pub(super) const fn is_null(&self) -> bool {
        matches!(self.value, Value::Simple(22))
    }
}

/// The value of a map's numbered key.
pub(super) fn get<'i, 'a>(map: &'i [(Item<'a>, Item<'a>)], key: i64) -> Option<&'i Item<'a>> {
    map.iter().find(|(found, _)| found.integer() == Some(key)).map(|(_, value)| value)
}

/// As [`get`], for a key that must be there; `at` is the map's byte.
pub(super) fn need<'i, 'a>(
    map: &'i [(Item<'a>, Item<'a>)],
    key: i64,
    at: usize,
    what: &'static str,
) -> Result<&'i Item<'a>, ParseError> {
    get(map, key).ok_or_else(|| malformed(at, what))
}

/// How many keys are none of these.
pub(super) fn others(map: &[(Item<'_>, Item<'_>)], known: std::ops::RangeInclusive<i64>) -> usize {
    map.iter().filter(|(key, _)| key.integer().is_none_or(|key| !known.contains(&key))).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Item<'_>, ParseError> {
        parse(bytes, 100, &mut Budget::new(), "the test")
    }

    #[test]
    fn every_head_is_read_or_refused_at_its_byte() {
        for good in [
            b"\x00".as_slice(),
            b"\x18\x01",
            b"\x3b\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x42ab",
            b"\x62ab",
            b"\x82\x00\x01",
            b"\x9f\x00\xff",
            b"\xbf\x00\x01\xff",
            b"\xa2\x01\x01\x61\x31\x01",
            b"\xd2\x00",
            b"\xf9\x00\x00",
            b"\xf6",
            b"\xf8\x20",
            b"\x80",
        ] {
            assert!(read(good).is_ok(), "{good:x?}");
        }
        // (bytes, at, part of the reason)
        let rows: &[(&[u8], usize, &str)] = &[
            (b"", 100, "needs 1 bytes"),
            (b"\x00\x00", 101, "1 bytes follow the end of the test"),
            (b"\x1c", 100, "reserved"),
            (b"\x1f", 100, "no length"),
            (b"\xdf\x00", 100, "no length"),
            (b"\x19\x00", 101, "needs 2 bytes"),
            (b"\x43ab", 101, "needs 3 bytes"),
            (b"\x5f\x41a\xff", 100, "in pieces"),
            (b"\x7f\x61a\xff", 100, "in pieces"),
            (b"\x61\xff", 100, "UTF-8"),
            (b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff", 109, "an array needs"),
            (b"\xbb\x00\x00\x00\x00\xff\xff\xff\xff", 109, "a map needs"),
            (b"\xff", 100, "a break"),
            (b"\xf8\x10", 100, "wrong form"),
            (b"\x9f\x00", 102, "needs 1 bytes"),
            (b"\xa2\x01\x00\x01\x00", 103, "one key twice"),
            (b"\xa2\x01\x00\x18\x01\x00", 103, "one key twice"),
            (b"\xa1\x41a\x00", 101, "neither a number nor a text"),
            (b"\xbf\x01\xff", 102, "a break"),
        ];
        for (bytes, at, part) in rows {
            let error = read(bytes).unwrap_err();
            assert!(error.at == *at && error.to_string().contains(part), "{bytes:x?}: {error}");
        }
    }

    #[test]
    fn depth_keys_and_items_have_limits() {
        let nested = |depth: usize| [vec![0x81; depth], vec![0]].concat();
        assert!(read(&nested(DEPTH_MAX)).is_ok());
        for depth in [DEPTH_MAX.saturating_add(1), 100_000] {
            assert!(read(&nested(depth)).unwrap_err().to_string().contains("the depth of CBOR items is 33"));
        }
        let keys = |count: u16| {
            let pairs = (0..count).flat_map(|key| [&[0x19], key.to_be_bytes().as_slice(), &[0]].concat());
            [&[0xb9], count.to_be_bytes().as_slice()].concat().into_iter().chain(pairs).collect::<Vec<u8>>()
        };
        assert!(read(&keys(256)).is_ok());
        assert!(read(&keys(257)).unwrap_err().to_string().contains("keys of a map is 257, the limit is 256"));
        let mut budget = Budget { items: 3 };
        assert!(parse(b"\x82\x00\x00", 0, &mut budget, "x").is_ok());
        assert!(parse(b"\x00", 0, &mut budget, "x").unwrap_err().to_string().contains("the number of CBOR items"));
    }

    #[test]
    fn a_number_is_what_it_says() {
        let rows: [(&[u8], Option<i64>); 6] = [
            (b"\x00", Some(0)),
            (b"\x26", Some(-7)),
            (b"\x38\x22", Some(-35)),
            (b"\x3b\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MIN)),
            (b"\x1b\x80\x00\x00\x00\x00\x00\x00\x00", None),
            (b"\x61a", None),
        ];
        for (bytes, number) in rows {
            assert_eq!(read(bytes).unwrap().integer(), number, "{bytes:x?}");
        }
    }
}
