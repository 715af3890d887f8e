//! Records and events of the host log: the one format that hostd writes and the verifier reads.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::bytes::{ParseError, Problem};
use crate::digest::{Digest, HashAlg, sha256};

/// Longest log: it starts anew with each boot and holds a record for each change of an engine's configuration.
pub const LOG_MAX: usize = 4 << 20;
/// Most records: a host whose configuration changed this often since boot needs a person.
pub const RECORDS_MAX: u64 = 10_000;
/// Longest event: the longest that is known has under 200 bytes.
pub const EVENT_MAX: usize = 4096;
/// The content type of every record.
const CONTENT_TYPE: &str = "hostmark";

/// One event: what a record's content says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The first record of a boot: binds the log to it.
    Boot {
        /// The kernel's boot id (`/proc/sys/kernel/random/boot_id`).
        boot_id: String,
        /// hostd's version.
        hostd: String,
    },
    /// The engine manifest changed.
    Manifest {
        /// SHA-256 of the manifest's canonical bytes.
        sha256: [u8; 32],
    },
    /// Something that is measured was another for a while, or could not be read: nobody knows what it was.
    ContentUnknown {
        /// A path.
        what: String,
        /// Why, in stable words.
        why: String,
    },
    /// Bytes that this release does not understand: a newer kind, or no event at all. Never a reason for trust.
    Unknown {
        /// The kind that the event names; empty when it is not readable.
        kind: String,
    },
}

#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BootEvent {
    event: String,
    boot_id: String,
    hostd: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestEvent {
    event: String,
    sha256: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ContentUnknownEvent {
    event: String,
    what: String,
    why: String,
}

impl Event {
    /// Reads event bytes. What it cannot read is [`Event::Unknown`].
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let kind = serde_json::from_slice::<Kind<'_>>(bytes).map(|kind| kind.event).unwrap_or_default();
        let known = match &*kind {
            "boot" => serde_json::from_slice::<BootEvent>(bytes)
                .ok()
                .map(|event| Self::Boot { boot_id: event.boot_id, hostd: event.hostd }),
            "manifest" => serde_json::from_slice::<ManifestEvent>(bytes)
                .ok()
                .and_then(|event| Digest::from_hex(HashAlg::Sha256, &event.sha256))
                .and_then(|digest| digest.as_bytes().try_into().ok())
                .map(|sha256| Self::Manifest { sha256 }),
            "content-unknown" => serde_json::from_slice::<ContentUnknownEvent>(bytes)
                .ok()
                .map(|event| Self::ContentUnknown { what: event.what, why: event.why }),
            _ => None,
        };
        known.unwrap_or_else(|| Self::Unknown { kind: kind.into_owned() })
    }

    /// The event's bytes: compact JSON, fields in a fixed order. An unknown event is written as its kind alone.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let json = match self {
            Self::Boot { boot_id, hostd } => serde_json::to_vec(&BootEvent {
                event: "boot".to_owned(),
                boot_id: boot_id.clone(),
                hostd: hostd.clone(),
            }),
            Self::Manifest { sha256 } => {
                serde_json::to_vec(&ManifestEvent { event: "manifest".to_owned(), sha256: hex::encode(sha256) })
            }
            Self::ContentUnknown { what, why } => serde_json::to_vec(&ContentUnknownEvent {
                event: "content-unknown".to_owned(),
                what: what.clone(),
                why: why.clone(),
            }),
            Self::Unknown { kind } => serde_json::to_vec(&serde_json::json!({ "event": kind })),
        };
        // Strings and maps of strings always serialise.
        json.unwrap_or_default()
    }
}

/// A record as it stands in the log.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    recnum: u64,
    pcr: u8,
    #[serde(borrow)]
    digests: Vec<LineDigest<'a>>,
    #[serde(borrow)]
    content_type: Cow<'a, str>,
    #[serde(borrow)]
    content: Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LineDigest<'a> {
    #[serde(borrow)]
    hash_alg: Cow<'a, str>,
    #[serde(borrow)]
    digest: Cow<'a, str>,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The digest as the log has it: a claim.
    pub(super) listed: [u8; 32],
    /// The event's bytes.
    pub(super) content: Vec<u8>,
}

impl Record {
    /// The line (with its line end) that stands in the log for `event`, and the digest to extend into `pcr`'s SHA-256 bank.
    #[must_use]
    pub fn encode(recnum: u64, pcr: u8, event: &Event) -> (Vec<u8>, [u8; 32]) {
        let content = event.to_bytes();
        let digest = sha256(&[&content]);
        let line = Line {
            recnum,
            pcr,
            digests: vec![LineDigest { hash_alg: HashAlg::Sha256.name().into(), digest: hex::encode(digest).into() }],
            content_type: CONTENT_TYPE.into(),
            content: STANDARD.encode(&content).into(),
        };
        let mut bytes = serde_json::to_vec(&line).unwrap_or_default();
        bytes.push(b'\n');
        (bytes, digest)
    }

    /// The event, unverified until the log is.
    #[must_use]
    pub fn event(&self) -> Event {
        Event::parse(&self.content)
    }

    /// SHA-256 of the event's bytes: what was to be extended.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        sha256(&[&self.content])
    }
}

/// A well-formed host log. Its events are claims until [`HostLog::verify`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostLog {
    pub(super) records: Vec<Record>,
    pub(super) pcr: Option<u8>,
}

impl HostLog {
    /// Reads a log: records numbered from 0 without a gap, all of one PCR, each line ended.
    ///
    /// # Errors
    /// At the byte where the log is malformed or over a limit.
    pub fn parse(log: &[u8]) -> Result<Self, ParseError> {
        if log.len() > LOG_MAX {
            return Err(over(0, "size of the host log", log.len(), LOG_MAX));
        }
        let mut parsed = Self::default();
        let (mut at, mut expected) = (0usize, 0u64);
        for line in log.split_inclusive(|byte| *byte == b'\n') {
            let problem = |problem| ParseError { at, problem };
            let text = line.strip_suffix(b"\n").ok_or_else(|| malformed(at, "the last record has no line end"))?;
            if expected >= RECORDS_MAX {
                let what = "number of host-log records";
                return Err(problem(Problem::OverLimit {
                    what,
                    found: expected.saturating_add(1),
                    limit: RECORDS_MAX,
                }));
            }
            let record: Line<'_> = serde_json::from_slice(text).map_err(|error| {
                malformed(at.saturating_add(error.column().saturating_sub(1)), "a host-log record is not CEL-JSON")
            })?;
            if record.recnum != expected {
                let what = "recnum of a host-log record";
                return Err(problem(Problem::Mismatch { what, expected, found: record.recnum }));
            }
            let pcr = *parsed.pcr.get_or_insert(record.pcr);
            if record.pcr != pcr {
                let (expected, found) = (u64::from(pcr), u64::from(record.pcr));
                return Err(problem(Problem::Mismatch { what: "PCR of a host-log record", expected, found }));
            }
            parsed.records.push(content(&record, at)?);
            at = at.saturating_add(line.len());
            expected = expected.saturating_add(1);
        }
        match parsed.pcr {
            Some(pcr @ 24..) => Err(over(0, "PCR of the host log", usize::from(pcr), 23)),
            _ => Ok(parsed),
        }
    }

    /// The records, unverified.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The PCR that the records name. None when there is no record.
    #[must_use]
    pub const fn pcr(&self) -> Option<u8> {
        self.pcr
    }

    /// The PCR's value after all records, extended from `start`. Digests are recomputed from the events' bytes.
    #[must_use]
    pub fn replay(&self, start: Digest) -> Digest {
        let digests: Vec<[u8; 32]> = self.records.iter().map(Record::digest).collect();
        replay_digests(&digests, start)
    }
}

/// The value after these digests were extended.
pub(super) fn replay_digests(digests: &[[u8; 32]], start: Digest) -> Digest {
    digests.iter().fold(start, |value, digest| {
        // Another bank than SHA-256 stays where it is, and then matches nothing that moved.
        Digest::new(HashAlg::Sha256, digest).and_then(|digest| value.extend(&digest)).unwrap_or(value)
    })
}

fn content(line: &Line<'_>, at: usize) -> Result<Record, ParseError> {
    if line.content_type != CONTENT_TYPE {
        return Err(malformed(at, "the content type of a host-log record is not `hostmark`"));
    }
    let listed = match line.digests.as_slice() {
        [one] if one.hash_alg == HashAlg::Sha256.name() => Digest::from_hex(HashAlg::Sha256, &one.digest),
        _ => None,
    };
    let listed = listed.and_then(|digest| digest.as_bytes().try_into().ok());
    let listed = listed.ok_or_else(|| malformed(at, "a host-log record has exactly one digest, of sha256"))?;
    let content =
        STANDARD.decode(line.content.as_bytes()).map_err(|_| malformed(at, "the content of a record is not base64"))?;
    if content.len() > EVENT_MAX {
        return Err(over(at, "size of a host-log event", content.len(), EVENT_MAX));
    }
    Ok(Record { listed, content })
}

const fn malformed(at: usize, what: &'static str) -> ParseError {
    ParseError { at, problem: Problem::Malformed { what } }
}

fn over(at: usize, what: &'static str, found: usize, limit: usize) -> ParseError {
    let wide = |count| u64::try_from(count).unwrap_or(u64::MAX);
    ParseError { at, problem: Problem::OverLimit { what, found: wide(found), limit: wide(limit) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: &str = r#"{"event":"boot","boot_id":"b","hostd":"0.1.0"}"#;

    #[test]
    fn one_format_for_writer_and_reader() {
        let boot = Event::Boot { boot_id: "b".into(), hostd: "0.1.0".into() };
        let manifest = Event::Manifest { sha256: [7; 32] };
        let unknown = Event::ContentUnknown { what: "/etc/docker/daemon.json".into(), why: "too large".into() };
        assert_eq!(Event::parse(&unknown.to_bytes()), unknown);
        assert_eq!(boot.to_bytes(), BOOT.as_bytes());
        let (first, digest) = Record::encode(0, 13, &boot);
        let expect = format!(
            r#"{{"recnum":0,"pcr":13,"digests":[{{"hashAlg":"sha256","digest":"{}"}}],"content_type":"hostmark","content":"{}"}}"#,
            hex::encode(sha256(&[BOOT.as_bytes()])),
            STANDARD.encode(BOOT)
        );
        assert_eq!(String::from_utf8(first.clone()).unwrap(), expect + "\n");
        let log = [first, Record::encode(1, 13, &manifest).0].concat();
        let log = HostLog::parse(&log).unwrap();
        let events: Vec<Event> = log.records().iter().map(Record::event).collect();
        assert_eq!((events, log.pcr(), log.records()[0].digest()), (vec![boot, manifest], Some(13), digest));
    }

    #[test]
    fn what_is_not_an_event_is_unknown() {
        let rows = [
            (r#"{"event":"later","x":1}"#, "later"),
            (r#"{"event":"boot","boot_id":"b"}"#, "boot"),
            (r#"{"event":"boot","boot_id":"b","hostd":"1","x":2}"#, "boot"),
            (r#"{"event":"manifest","sha256":"00"}"#, "manifest"),
            (r#"{"event":"content-unknown","what":"/x"}"#, "content-unknown"),
            ("\u{0}", ""),
        ];
        for (bytes, kind) in rows {
            assert_eq!(Event::parse(bytes.as_bytes()), Event::Unknown { kind: kind.into() }, "{bytes}");
        }
    }

    #[test]
    fn a_malformed_log_is_refused_at_its_byte() {
        let line = |recnum, pcr| {
            let event = Event::Unknown { kind: "x".into() };
            String::from_utf8(Record::encode(recnum, pcr, &event).0).unwrap()
        };
        let first = line(0, 13);
        let next = first.len();
        let rows = [
            (line(1, 13), 0),
            (first.clone() + &line(0, 13), next),
            (first.clone() + &line(2, 13), next),
            (first.clone() + &line(1, 14), next),
            (first.clone() + "\n", next),
            (first.trim_end().to_owned(), 0),
            (first.replace("hostmark", "cel"), 0),
            (first.replace("sha256", "sha1"), 0),
            (line(0, 24), 0),
            (first.replace(r#"{"recnum":0"#, r#"{"recnum":0,"recnum":0"#), 19),
        ];
        for (log, at) in rows {
            let error = HostLog::parse(log.as_bytes()).unwrap_err();
            assert_eq!(error.at, at, "{log}: {error}");
        }
        assert_eq!(HostLog::parse(b""), Ok(HostLog::default()));
    }
}
