//! What `hostmark inspect boot-log` shows: a boot log read alone, without a quote.
//!
//! Establishes framing and which PCR values the log would explain. Nothing shown here is proven: there is no quote.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Authenticity, BootLog, Description, Event, EventType, ImageSection, SecureBoot};
use crate::bytes::{ParseError, Reader};
use crate::digest::HashAlg;
use crate::finding::{Finding, Findings, Severity};

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
    /// A startup locality and firmware blobs in words; of everything else the printable characters of the data, cut.
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
        findings.append(weighed(&log, bank, seen));
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
            summary: decoded(&event).unwrap_or_else(|| summary(event.data())),
        })
        .collect();
    let image = bank.map_or_else(Vec::new, |bank| log.claims(bank).0.image);
    let description = bank.map(|bank| log.describe(bank));
    Ok(Inspection { image, description, event_list: Some(list), ..inspect(bytes)? })
}

/// Types that firmware of the field gets wrong: Dell and others hash another version string, older EDK II another part of an authority.
const OFTEN_DIFFERS: [EventType; 2] = [EventType::EV_S_CRTM_VERSION, EventType::EV_EFI_VARIABLE_AUTHORITY];

/// For a reader without a quote: how many events of which type have data that is not what was measured, as a warning where no
/// firmware is known to write such a log.
fn weighed(log: &BootLog, bank: HashAlg, seen: Findings) -> Findings {
    let mut kinds: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let mut odd = false;
    for event in log.events().filter(|event| event.authenticity(bank) == Authenticity::Differs) {
        let (count, _) = kinds.entry(event.event_type().to_string()).or_insert((0, event.index));
        *count = count.saturating_add(1);
        odd |= !OFTEN_DIFFERS.contains(&event.event_type());
    }
    let told = kinds.iter().map(|(kind, (count, first))| format!("{count} {kind} (first: event {first})"));
    let told = told.collect::<Vec<_>>().join(", ");
    let weigh = |one: Finding| {
        if one.id != "boot.event-data-unauthenticated" {
            return one;
        }
        let one = one.found(&told);
        if odd {
            let fix = "believe nothing that these events say: text or digest was changed after the firmware wrote it, unless the log is damaged; \
                       inspect it with -v (DATA: differs), and read it again on the machine";
            Finding { severity: Severity::Warning, ..one }.fix(fix)
        } else {
            one
        }
    };
    seen.into_vec().into_iter().map(weigh).collect::<Vec<_>>().into()
}

/// What PFP 1.06 defines for data that is no text: 10.4.5.3 (startup locality), 10.2.2 (firmware blobs).
fn decoded(event: &Event<'_>) -> Option<String> {
    let mut reader = Reader::new(event.data());
    match event.event_type() {
        EventType::EV_NO_ACTION => {
            let locality = event.data().strip_prefix(b"StartupLocality\0")?;
            let [locality] = locality else { return None };
            Some(match locality {
                4 => "StartupLocality 4: PCR 0 starts at 4, after an H-CRTM".to_owned(),
                other => format!("StartupLocality {other}: PCR 0 starts at {other}"),
            })
        }
        EventType::EV_EFI_PLATFORM_FIRMWARE_BLOB | EventType::EV_EFI_PLATFORM_FIRMWARE_BLOB2 => {
            let name = match event.event_type() {
                EventType::EV_EFI_PLATFORM_FIRMWARE_BLOB2 => {
                    let size = reader.u8("a description's size").ok()?;
                    summary(reader.take(usize::from(size), "a description").ok()?)
                }
                _ => "firmware volume".to_owned(),
            };
            let (base, length) = (reader.le64("a place").ok()?, reader.le64("a length").ok()?);
            reader.is_empty().then(|| format!("{name}: {length} bytes at {base:#x}"))
        }
        _ => None,
    }
}

/// ASCII as it stands, UTF-16's zero bytes left out, all else as dots.
fn summary(data: &[u8]) -> String {
    let shown = data.iter().filter(|byte| **byte != 0).take(SUMMARY_MAX);
    shown.map(|byte| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_that_is_no_text_is_told_in_words() {
        let place = [0x0083_0000u64.to_le_bytes(), 0x000d_0000u64.to_le_bytes()].concat();
        let named = [&[3u8][..], b"PEI", &place].concat();
        // Type, data, summary. What does not fit its type is shown as it stands.
        let rows: [(u32, &[u8], &str); 7] = [
            (3, b"StartupLocality\0\x03", "StartupLocality 3: PCR 0 starts at 3"),
            (3, b"StartupLocality\0\x04", "StartupLocality 4: PCR 0 starts at 4, after an H-CRTM"),
            (3, b"StartupLocality\0\x03x", "StartupLocality.x"),
            (0x8000_0008, &place, "firmware volume: 851968 bytes at 0x830000"),
            (0x8000_000a, &named, "PEI: 851968 bytes at 0x830000"),
            (0x8000_0008, b"BIOS image", "BIOS image"),
            (0x8000_0007, b"Calling EFI", "Calling EFI"),
        ];
        let mut log = Vec::new();
        for (kind, data, _) in rows {
            log.extend([0u32.to_le_bytes(), kind.to_le_bytes()].concat());
            log.extend([7; 20]);
            log.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
            log.extend(data);
        }
        let seen = list_events(&log).unwrap().event_list.unwrap();
        for (one, (_, _, expect)) in seen.iter().zip(rows) {
            assert_eq!(one.summary, expect);
        }
        assert_eq!(seen.len(), rows.len());
    }
}
