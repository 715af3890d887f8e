//! Rewrites `ascii_runtime_measurements` to the binary form.
//!
//! Linux `ima_template_lib.c` (`ima_show_template_field_data`): one line per entry, `PCR digest template fields…`. A line break inside a path
//! cannot be told from a new entry: such a list is malformed here, and the binary form must be sent.

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
        let end = self.rest.iter().position(|byte| *byte == b' ').ok_or_else(|| self.error(what))?;
        let word = self.rest.get(..end).unwrap_or_default();
        let next = end.saturating_add(1);
        self.rest = self.rest.get(next..).unwrap_or_default();
        self.at = self.at.saturating_add(next);
        Ok(word)
    }
}

/// The list in binary form, with the width of its template digests.
pub(super) fn to_binary(list: &[u8]) -> Result<(Vec<u8>, usize), ParseError> {
    let mut out = Vec::with_capacity(list.len());
    let mut width = None;
    let mut at = 0usize;
    let mut count = 0u64;
    for line in list.split(|byte| *byte == b'\n') {
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
    let listed = unhex(line.word("a template digest and a space must follow the PCR")?, at, "template digest")?;
    let known = matches!(listed.len(), 20 | 32 | 48 | 64);
    if !known || width.is_some_and(|width| width != listed.len()) {
        return Err(ParseError { at, problem: Problem::Malformed { what: "width of the template digest" } });
    }
    *width = Some(listed.len());
    out.extend_from_slice(&listed);

    let at = line.at;
    let name = line.word("a template name and a space must follow the template digest")?;
    put(out, name);
    if name == b"ima" {
        let at = line.at;
        let digest = unhex(line.word("a file digest and a space must follow the template name")?, at, "file digest")?;
        if digest.len() != 20 {
            return Err(ParseError { at, problem: Problem::Malformed { what: "width of the legacy file digest" } });
        }
        out.extend_from_slice(&digest);
        put(out, line.rest);
        return Ok(());
    }
    let mut data = Vec::with_capacity(line.rest.len());
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
        by_format(&mut line, &ids, &mut data)?;
        put(out, &data);
        return Ok(());
    }
    digest_field(&mut line, &mut data)?;
    match name {
        b"ima-sig" | b"d-ng|n-ng|sig" | b"ima-sigv2" | b"d-ngv2|n-ng|sig" | b"ima-buf" | b"d-ng|n-ng|buf" => {
            let (path, third) = path_and_third(line.rest);
            path_field(&line, path, &mut data)?;
            put(&mut data, &third);
        }
        _ => path_field(&line, line.rest, &mut data)?,
    }
    put(out, &data);
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
        _ => put(data, &unhex(word, line.at, "field")?),
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
    let mut field = alg.to_vec();
    field.extend_from_slice(b":\0");
    field.extend(unhex(digest.get(1..).unwrap_or_default(), digest_at, "file digest")?);
    put(data, &field);
    Ok(())
}

/// A path and the hex field behind its last space. The kernel writes that space even before an empty field, tools strip it: a last word that is
/// not hex belongs to the path. A wrong guess changes the template data, which then does not replay.
fn path_and_third(rest: &[u8]) -> (&[u8], Vec<u8>) {
    let Some(space) = rest.iter().rposition(|byte| *byte == b' ') else { return (rest, Vec::new()) };
    let (path, third) = rest.split_at(space);
    match hex::decode(third.get(1..).unwrap_or_default()) {
        Ok(third) => (path, third),
        Err(_) => (rest, Vec::new()),
    }
}

fn path_field(line: &Line<'_>, path: &[u8], data: &mut Vec<u8>) -> Result<(), ParseError> {
    if path.len() > PATH_MAX {
        let found = u64::try_from(path.len()).unwrap_or(u64::MAX);
        return Err(over(line.at, "length of a path", found, 4096));
    }
    let mut field = path.to_vec();
    field.push(0);
    put(data, &field);
    Ok(())
}

/// A length and the bytes. Every length here is below the list's limit.
fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn unhex(text: &[u8], at: usize, what: &'static str) -> Result<Vec<u8>, ParseError> {
    hex::decode(text).map_err(|error| {
        let at = match error {
            hex::FromHexError::InvalidHexCharacter { index, .. } => at.saturating_add(index),
            _ => at,
        };
        ParseError { at, problem: Problem::Malformed { what } }
    })
}
