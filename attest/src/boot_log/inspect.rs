//! What `hostmark inspect boot-log` shows: a boot log read alone, without a quote.
//!
//! Establishes framing and which PCR values the log would explain. Nothing shown here is proven: there is no quote.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{BootLog, Description, ImageSection, SecureBoot};
use crate::bytes::ParseError;
use crate::finding::Findings;

/// The JSON of `hostmark inspect boot-log`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// `crypto-agile` or `sha1`.
    pub format: &'static str,
    /// Number of events, the header included.
    pub events: usize,
    /// Replayed values in hex by bank and PCR index; only PCRs that have events.
    pub banks: BTreeMap<&'static str, BTreeMap<u8, String>>,
    /// What the log says, unproven.
    pub secure_boot: SecureBoot,
    /// The sections of a unified kernel image that PCR 11 begins with, where events are asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub image: Vec<ImageSection>,
    /// What was seen on the way.
    pub findings: Findings,
    /// What the log says of variables, programs and texts, where events are asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<Description>,
    /// The events one by one, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_list: Option<Vec<EventView>>,
}

/// One event as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventView {
    /// Position in the log.
    pub index: usize,
    /// The PCR index as logged.
    pub pcr: u32,
    /// The type's name as logged.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Digests in hex by bank.
    pub digests: BTreeMap<&'static str, String>,
    /// Length of the event data in bytes.
    pub size: usize,
    /// Whether the data hashes to the digest of the strongest bank: `whole`, `variable-content`, `text-after-label`, `elsewhere`, `differs`.
    pub authenticated: &'static str,
    /// The printable characters of the data, cut.
    pub summary: String,
}

/// Longest summary in characters: one terminal line.
const SUMMARY_MAX: usize = 80;

/// Reads a log and tells what it says.
///
/// # Errors
/// A log that cannot be framed, with the byte.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, ParseError> {
    let log = BootLog::parse(bytes)?;
    let mut findings = log.findings().clone();
    let mut secure_boot = SecureBoot::Unknown;
    if let Some(bank) = log.best_bank() {
        let (claims, seen) = log.claims(bank);
        secure_boot = claims.secure_boot;
        findings.append(seen);
    }
    let banks = log
        .replay()
        .into_iter()
        .map(|(bank, values)| {
            (bank.name(), values.into_iter().map(|(index, value)| (index, value.to_string())).collect())
        })
        .collect();
    Ok(Inspection {
        format: log.format().name(),
        events: log.len(),
        banks,
        secure_boot,
        image: Vec::new(),
        findings,
        description: None,
        event_list: None,
    })
}

/// As [`inspect`], with every event.
///
/// # Errors
/// A log that cannot be framed, with the byte.
pub fn list_events(bytes: &[u8]) -> Result<Inspection, ParseError> {
    let log = BootLog::parse(bytes)?;
    let bank = log.best_bank();
    let list = log
        .events()
        .map(|event| EventView {
            index: event.index,
            pcr: event.pcr(),
            event_type: event.event_type().to_string(),
            digests: event.digests().map(|digest| (digest.alg().name(), digest.to_string())).collect(),
            size: event.data().len(),
            authenticated: bank.map_or("elsewhere", |bank| event.authenticity(bank).name()),
            summary: summary(event.data()),
        })
        .collect();
    let image = bank.map_or_else(Vec::new, |bank| log.claims(bank).0.image);
    let description = bank.map(|bank| log.describe(bank));
    Ok(Inspection { image, description, event_list: Some(list), ..inspect(bytes)? })
}

/// ASCII as it stands, UTF-16's zero bytes left out, all else as dots.
fn summary(data: &[u8]) -> String {
    let shown = data.iter().filter(|byte| **byte != 0).take(SUMMARY_MAX);
    shown.map(|byte| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' }).collect()
}
