//! CEL-JSON, section 5.3; RFC 7464 (0x1E before each record), as systemd writes it, is read too.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use super::{Content, Index, Record, add, digest, malformed, pcr, push};
use crate::boot_log::EventType;
use crate::bytes::ParseError;
use crate::digest::HashAlg;

/// RFC 7464's record separator.
const SEPARATOR: u8 = 0x1e;

#[derive(Deserialize)]
struct Line {
    recnum: Option<u64>,
    pcr: Option<u64>,
    nv_index: Option<Value>,
    digests: Vec<LineDigest>,
    // tpm2-tss names it so.
    #[serde(alias = "type")]
    content_type: String,
    #[serde(alias = "sub_event", default)]
    content: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LineDigest {
    hash_alg: Value,
    digest: String,
}

pub(super) fn records(log: &[u8]) -> Result<Vec<Record>, ParseError> {
    let mut records = Vec::new();
    let start = log.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(log.len());
    if log.get(start) == Some(&b'[') {
        let lines: Vec<Line> = serde_json::from_slice(log).map_err(|error| at_error(log, 0, &error))?;
        for line in lines {
            push(&mut records, record(line, start)?)?;
        }
        return Ok(records);
    }
    let mut at = 0usize;
    for line in log.split_inclusive(|byte| *byte == b'\n') {
        // A record ends with its line, or where the next separator stands.
        for part in line.split_inclusive(|byte| *byte == SEPARATOR) {
            let text = part.strip_suffix(&[SEPARATOR]).unwrap_or(part);
            if !text.iter().all(u8::is_ascii_whitespace) {
                let line: Line = serde_json::from_slice(text).map_err(|error| at_error(text, at, &error))?;
                push(&mut records, record(line, at)?)?;
            }
            at = at.saturating_add(part.len());
        }
    }
    Ok(records)
}

/// serde_json counts lines and columns.
fn at_error(text: &[u8], base: usize, error: &serde_json::Error) -> ParseError {
    let before = text
        .split_inclusive(|byte| *byte == b'\n')
        .take(error.line().saturating_sub(1))
        .map(<[u8]>::len)
        .sum::<usize>();
    let at = base.saturating_add(before).saturating_add(error.column().saturating_sub(1));
    malformed(at, "a record is not CEL-JSON")
}

fn record(line: Line, at: usize) -> Result<Record, ParseError> {
    let index = match (line.pcr, line.nv_index) {
        (Some(index), None) => pcr(at, index)?,
        (None, Some(index)) => {
            let index = number(&index).and_then(|index| u32::try_from(index).ok());
            Index::Nv(index.ok_or_else(|| malformed(at, "an NV index is a number of 32 bits"))?)
        }
        _ => return Err(malformed(at, "a record names either a PCR or an NV index")),
    };
    let mut digests = Vec::new();
    for one in &line.digests {
        let alg = match one.hash_alg.as_str().and_then(HashAlg::from_name) {
            Some(alg) => Some(u64::from(alg.to_tpm())),
            None => number(&one.hash_alg),
        };
        let bytes = hex::decode(&one.digest).map_err(|_| malformed(at, "a digest is hexadecimal"))?;
        // A name that is not known here may be one that others know.
        if let Some(alg) = alg {
            add(at, &mut digests, digest(at, alg, &bytes)?)?;
        }
    }
    Ok(Record { at, recnum: line.recnum, index, digests, content: content(line.content_type, line.content, at)? })
}

/// A number, or the text `0x…` of one.
fn number(value: &Value) -> Option<u64> {
    let hex = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    value.as_u64().or_else(|| value.as_str().and_then(hex))
}

fn content(kind: String, content: Value, at: usize) -> Result<Content, ParseError> {
    let text = |name: &str| content.get(name).and_then(Value::as_str);
    let bytes = |name: &str| {
        let hex = text(name).ok_or_else(|| malformed(at, "a content lacks its data"))?;
        hex::decode(hex).map_err(|_| malformed(at, "a content's data is hexadecimal"))
    };
    Ok(match kind.as_str() {
        "pcclient_std" => {
            let named = text("event_type").and_then(EventType::by_name).map(|kind| u64::from(kind.0));
            let event_type = named.or_else(|| content.get("event_type").and_then(number));
            let event_type = event_type.and_then(|kind| u32::try_from(kind).ok());
            let event_type = event_type.ok_or_else(|| malformed(at, "an event type is its name or its number"))?;
            Content::PcClient { event_type, data: bytes("event_data")? }
        }
        "ima_template" => {
            let name = text("template_name").ok_or_else(|| malformed(at, "a template has a name"))?.to_owned();
            Content::ImaTemplate { name, data: bytes("template_data")? }
        }
        "systemd" => Content::Systemd {
            event_type: text("eventType").unwrap_or_default().to_owned(),
            text: text("string").unwrap_or_default().to_owned(),
        },
        "cel" => Content::Management(content.get("type").and_then(number).unwrap_or_default()),
        // The host log's content is base64; any other string is shown as it stands.
        "hostmark" => {
            let data = content.as_str().and_then(|text| STANDARD.decode(text).ok());
            Content::Other { kind, data: data.ok_or_else(|| malformed(at, "the content of a record is not base64"))? }
        }
        _ => Content::Other { kind, data: content.as_str().unwrap_or_default().as_bytes().to_vec() },
    })
}
