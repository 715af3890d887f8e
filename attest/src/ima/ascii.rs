//! Rewrites `ascii_runtime_measurements` to the binary form.
//!
//! Linux `ima_template_lib.c` (`ima_show_template_field_data`): one line per entry, `PCR digest template fields…`. A line break inside a path
//! cannot be told from a new entry: such a list is malformed here, and the binary form must be sent.

use std::io::BufRead as _;

use super::parse::{ENTRIES_MAX, PATH_MAX, over};
use crate::bytes::{ParseError, Problem};

/// One line, and where it starts.
struct Line<'a> {
    at: usize,
    rest: &'a [u8],
}

impl<'a> Line<'a> {
    fn error(&self, what: &'static str) -> ParseError {
        ParseError { at: self.at, problem: Problem::Malformed { what } }
    }

    /// Takes what stands before the next space, and the space.
    fn word(&mut self, what: &'static str) -> Result<&'a [u8], ParseError> {
        let end = position(self.rest, b' ').ok_or_else(|| self.error(what))?;
        let word = self.rest.get(..end).unwrap_or_default();
        let next = end.saturating_add(1);
        self.rest = self.rest.get(next..).unwrap_or_default();
        self.at = self.at.saturating_add(next);
        Ok(word)
    }
}

/// Where a byte stands first. The standard library looks for it many bytes at a time.
fn position(bytes: &[u8], wanted: u8) -> Option<usize> {
    let mut rest = bytes;
    // Reading from a slice cannot fail.
    let taken = rest.skip_until(wanted).unwrap_or_default();
    taken.checked_sub(1).filter(|last| bytes.get(*last) == Some(&wanted))
}

/// What stands before the next line end.
fn first_line(rest: &[u8]) -> &[u8] {
    rest.get(..position(rest, b'\n').unwrap_or(rest.len())).unwrap_or(rest)
}

/// The list in binary form, with the width of its template digests.
pub(super) fn to_binary(list: &[u8]) -> Result<(Vec<u8>, usize), ParseError> {
    // No line of the kernel's grows: its digests alone halve by more than the lengths take. Memory is taken where it is written.
    let mut out = Vec::with_capacity(list.len());
    let mut width = None;
    let mut at = 0usize;
    let mut count = 0u64;
    while at < list.len() {
        let line = first_line(list.get(at..).unwrap_or_default());
        if !line.is_empty() {
            count = count.saturating_add(1);
            if count > ENTRIES_MAX {
                return Err(over(at, "number of IMA entries", count, ENTRIES_MAX));
            }
            one(Line { at, rest: line }, &mut width, &mut out)?;
        }
        at = at.saturating_add(line.len()).saturating_add(1);
    }
    Ok((out, width.unwrap_or(20)))
}

fn one(mut line: Line<'_>, width: &mut Option<usize>, out: &mut Vec<u8>) -> Result<(), ParseError> {
    if let Some(rest) = line.rest.strip_prefix(b" ") {
        // The kernel pads the PCR index to two characters.
        line = Line { at: line.at.saturating_add(1), rest };
    }
    let at = line.at;
    let pcr = line.word("an IMA line begins with a PCR index and a space")?;
    let pcr: u32 = std::str::from_utf8(pcr)
        .ok()
        .filter(|text| text.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .ok_or(ParseError { at, problem: Problem::Malformed { what: "the PCR index is not a number" } })?;
    out.extend_from_slice(&pcr.to_le_bytes());

    let at = line.at;
    let listed = line.word("a template digest and a space must follow the PCR")?;
    unhex(listed, at, "template digest", out)?;
    let listed = listed.len() / 2;
    if !matches!(listed, 20 | 32 | 48 | 64) || width.is_some_and(|width| width != listed) {
        return Err(ParseError { at, problem: Problem::Malformed { what: "width of the template digest" } });
    }
    *width = Some(listed);

    let at = line.at;
    let name = line.word("a template name and a space must follow the template digest")?;
    put(out, name);
    if name == b"ima" {
        let at = line.at;
        let digest = line.word("a file digest and a space must follow the template name")?;
        if digest.len() != 40 {
            return Err(ParseError { at, problem: Problem::Malformed { what: "width of the legacy file digest" } });
        }
        unhex(digest, at, "file digest", out)?;
        put(out, line.rest);
        return Ok(());
    }
    let format = match name {
        b"ima-modsig" => MODSIG,
        b"evm-sig" => EVM_SIG,
        name => name,
    };
    // What ends with its name, or with one field behind it, may have lost its last space to a tool: guessed below.
    if !USUAL.contains(&format) {
        let Some(ids) = super::template::declared(format) else {
            let what = "the ascii form of this template cannot be replayed: send the binary list";
            return Err(ParseError { at, problem: Problem::Malformed { what } });
        };
        return sized(out, |out| by_format(&mut line, &ids, out));
    }
    sized(out, |out| {
        digest_field(&mut line, out)?;
        match name {
            b"ima-sig" | b"d-ng|n-ng|sig" | b"ima-sigv2" | b"d-ngv2|n-ng|sig" | b"ima-buf" | b"d-ng|n-ng|buf" => {
                path_and_third(&line, out)
            }
            _ => path_field(&line, line.rest, out),
        }
    })
}

/// Writes a length and what `write` appends. A failure leaves garbage behind, and ends the list.
fn sized(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> Result<(), ParseError>) -> Result<(), ParseError> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out)?;
    let length = out.len().saturating_sub(start).saturating_sub(4);
    if let Some(place) = out.get_mut(start..).and_then(|rest| rest.first_chunk_mut::<4>()) {
        *place = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
    }
    Ok(())
}

/// Templates of a digest, a name and at most one more field.
const USUAL: [&[u8]; 10] = [
    b"ima-ng",
    b"d-ng|n-ng",
    b"ima-ngv2",
    b"d-ngv2|n-ng",
    b"ima-sig",
    b"d-ng|n-ng|sig",
    b"ima-sigv2",
    b"d-ngv2|n-ng|sig",
    b"ima-buf",
    b"d-ng|n-ng|buf",
];
/// What `ima-modsig` stands for.
const MODSIG: &[u8] = b"d-ng|n-ng|sig|d-modsig|modsig";
/// What `evm-sig` stands for.
const EVM_SIG: &[u8] = b"d-ng|n-ng|evmsig|xattrnames|xattrlengths|xattrvalues|iuid|igid|imode";

/// Every field stands between single spaces, an empty one too; only a name may hold spaces itself.
fn by_format(line: &mut Line<'_>, ids: &[&str], data: &mut Vec<u8>) -> Result<(), ParseError> {
    let name = ids.iter().position(|id| matches!(*id, "n" | "n-ng")).unwrap_or(ids.len());
    let (before, after) = ids.split_at(name);
    for id in before {
        let word = line.word("a field and a space must follow")?;
        shown_field(line, id, word, data)?;
    }
    let Some((_, after)) = after.split_first() else {
        return Err(line.error("a template without a name field"));
    };
    let mut rest = line.rest;
    let mut words = Vec::with_capacity(after.len());
    for _ in after {
        let space = rest.iter().rposition(|byte| *byte == b' ').ok_or_else(|| line.error("a field is missing"))?;
        let (head, word) = rest.split_at(space);
        words.push(word.get(1..).unwrap_or_default());
        rest = head;
    }
    path_field(line, rest, data)?;
    for (id, word) in after.iter().zip(words.iter().rev()) {
        shown_field(line, id, word, data)?;
    }
    Ok(())
}

/// One field as the kernel shows it: digests as `alg:hex`, numbers in decimal, attribute names as they are, anything else in hex.
fn shown_field(line: &Line<'_>, id: &str, word: &[u8], data: &mut Vec<u8>) -> Result<(), ParseError> {
    let number = || std::str::from_utf8(word).ok().and_then(|text| text.parse::<u32>().ok());
    match id {
        _ if word.is_empty() => put(data, &[]),
        "d-ng" | "d-ngv2" | "d-modsig" => shown_digest(word, line.at, data)?,
        "iuid" | "igid" => {
            put(data, &number().ok_or_else(|| line.error("an owner is a number"))?.to_le_bytes());
        }
        "imode" => {
            let mode = number().and_then(|mode| u16::try_from(mode).ok());
            put(data, &mode.ok_or_else(|| line.error("a mode is a number"))?.to_le_bytes());
        }
        "xattrnames" => path_field(line, word, data)?,
        _ => sized(data, |data| unhex(word, line.at, "field", data))?,
    }
    Ok(())
}

/// `alg:hex` becomes `alg:\0digest`.
fn digest_field(line: &mut Line<'_>, data: &mut Vec<u8>) -> Result<(), ParseError> {
    let at = line.at;
    let word = line.word("a file digest and a space must follow the template name")?;
    shown_digest(word, at, data)
}

fn shown_digest(word: &[u8], at: usize, data: &mut Vec<u8>) -> Result<(), ParseError> {
    let colon = word
        .iter()
        .rposition(|byte| *byte == b':')
        .ok_or(ParseError { at, problem: Problem::Malformed { what: "a file digest is alg:hex" } })?;
    let (alg, digest) = word.split_at(colon);
    let digest_at = at.saturating_add(colon).saturating_add(1);
    sized(data, |data| {
        data.extend_from_slice(alg);
        data.extend_from_slice(b":\0");
        unhex(digest.get(1..).unwrap_or_default(), digest_at, "file digest", data)
    })
}

/// A path and the hex field behind its last space. The kernel writes that space even before an empty field, tools strip it: a last word that is
/// not hex belongs to the path. A wrong guess changes the template data, which then does not replay.
fn path_and_third(line: &Line<'_>, data: &mut Vec<u8>) -> Result<(), ParseError> {
    // Few paths hold a space: the first one is nearly always the last one too, and what is hex behind it holds none.
    let last = || line.rest.iter().rposition(|byte| *byte == b' ');
    for space in std::iter::once_with(|| position(line.rest, b' ')).chain(std::iter::once_with(last)).flatten() {
        let (start, (path, third)) = (data.len(), line.rest.split_at(space));
        path_field(line, path, data)?;
        if sized(data, |data| unhex(third.get(1..).unwrap_or_default(), line.at, "field", data)).is_ok() {
            return Ok(());
        }
        data.truncate(start);
    }
    path_field(line, line.rest, data)?;
    put(data, &[]);
    Ok(())
}

fn path_field(line: &Line<'_>, path: &[u8], data: &mut Vec<u8>) -> Result<(), ParseError> {
    if path.len() > PATH_MAX {
        let found = u64::try_from(path.len()).unwrap_or(u64::MAX);
        return Err(over(line.at, "length of a path", found, 4096));
    }
    sized(data, |data| {
        data.extend_from_slice(path);
        data.push(0);
        Ok(())
    })
}

/// A length and the bytes. Every length here is below the list's limit.
fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Characters that are read at a time: the length of a SHA-256 in hexadecimal.
const BLOCK: usize = 64;

/// What a character stands for; above 15 where it is no hexadecimal digit. Without a branch, so that the compiler can do many at once.
#[inline]
const fn nibble(character: u8) -> u8 {
    let (digit, letter) = (character.wrapping_sub(b'0'), (character | 0x20).wrapping_sub(b'a'));
    let bad = if letter < 6 { letter.wrapping_add(10) } else { 0xff };
    if digit < 10 { digit } else { bad }
}

/// Appends what hexadecimal text stands for: most of an ascii list is such text.
fn unhex(text: &[u8], at: usize, what: &'static str, out: &mut Vec<u8>) -> Result<(), ParseError> {
    let (blocks, rest) = text.as_chunks::<BLOCK>();
    let (pairs, odd) = rest.as_chunks::<2>();
    let mut bad = u8::from(!odd.is_empty()).wrapping_neg();
    for block in blocks {
        let nibbles = block.map(nibble);
        bad |= nibbles.iter().fold(0, |all, one| all | one);
        let (pairs, _) = nibbles.as_chunks::<2>();
        out.extend(pairs.iter().map(|[high, low]| high << 4 | low));
    }
    out.extend(pairs.iter().map(|[high, low]| {
        let (high, low) = (nibble(*high), nibble(*low));
        bad |= high | low;
        high << 4 | low
    }));
    // Digits are below 16, whatever is none has the upper bits set.
    if bad < 16 {
        return Ok(());
    }
    let first = text.iter().position(|character| nibble(*character) > 15).unwrap_or_default();
    Err(ParseError { at: at.saturating_add(first), problem: Problem::Malformed { what } })
}
