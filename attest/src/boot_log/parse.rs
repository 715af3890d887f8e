//! Framing of a boot log: PFP 1.06 sections 10.2 (TCG_PCR_EVENT2), 10.4.5 (EV_NO_ACTION), older TCG_PCClientPCREvent.
//!
//! Establishes where each event begins and ends, that its digests have a known size, and that nothing but padding follows the
//! last one. Establishes nothing about digests, types or data. What cannot be framed is an error that names the byte; what is
//! framed but odd is a finding.

use super::{BootLog, EventType, Format, PCR_COUNT, PSEUDO_PCR, Record};
use crate::bytes::{ParseError, Problem, Reader};
use crate::digest::HashAlg;
use crate::finding::{Finding, Findings};

/// Largest log. Firmware reserves 64 KiB to 1 MiB for it; a confidential guest's area may be padded further.
pub const LOG_MAX: usize = 16 << 20;

/// Most events. Real logs hold fewer than 300, the longest known some thousand.
pub const EVENTS_MAX: usize = 65_536;

/// Bytes of an event, at a guess: most have more.
const EVENT_USUAL: usize = 128;

/// Most digests per event and algorithms per header: HASH_COUNT of TPM 2.0 implementations is at most 16.
pub const DIGESTS_MAX: u32 = 16;

/// Longest digest that a header may declare: SHA-512 and its like.
const DIGEST_SIZE_MAX: u16 = 64;

const SPEC_ID: &[u8] = b"Spec ID Event";
const SPEC_ID_AGILE: &[u8] = b"Spec ID Event03\0";
const STARTUP_LOCALITY: &[u8] = b"StartupLocality\0";

impl BootLog {
    /// Reads a log as the kernel shows it (`binary_bios_measurements`) or as firmware keeps it, padding included.
    ///
    /// # Errors
    /// Framing that does not hold, with the byte.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new(bytes);
        if bytes.len() > LOG_MAX {
            let (found, limit) = (wide(bytes.len()), wide(LOG_MAX));
            return Err(reader.error(Problem::OverLimit { what: "the boot log's length", found, limit }));
        }
        let mut log = Self {
            format: Format::Sha1,
            bytes: Vec::new(),
            records: Vec::with_capacity((bytes.len() / EVENT_USUAL).min(EVENTS_MAX)),
            declared: vec![(HashAlg::Sha1.to_tpm(), HashAlg::Sha1.size())],
            startup_locality: None,
            hcrtm: false,
            findings: Findings::new(),
        };
        if padding(bytes).is_some() {
            return Err(reader.error(Problem::Malformed { what: "the boot log holds no event" }));
        }
        let header = event_sha1(&mut reader)?;
        let data = bytes.get(header.data.clone()).unwrap_or_default();
        if header.event_type == EventType::EV_NO_ACTION && data.starts_with(SPEC_ID_AGILE) {
            log.format = Format::CryptoAgile;
            log.declared = log.spec_id(Reader::nested(data, header.data.start), &mut reader)?;
        }
        let mut tally = Tally::default();
        tally.note(&mut log, &header, data);
        log.records.push(header);

        while !reader.is_empty() {
            if let Some(byte) = padding(reader.rest()) {
                let left = reader.left();
                log.findings.push(
                    Finding::info("boot.log-padded", "the log area is padded after the last event")
                        .found(format!("{left} bytes of {byte:#04x}")),
                );
                break;
            }
            if log.records.len() >= EVENTS_MAX {
                let limit = wide(EVENTS_MAX);
                return Err(reader.error(Problem::OverLimit {
                    what: "the number of events",
                    found: limit.saturating_add(1),
                    limit,
                }));
            }
            let record = match log.format {
                Format::Sha1 => event_sha1(&mut reader)?,
                Format::CryptoAgile => log.event_agile(&mut reader, &mut tally)?,
            };
            tally.note(&mut log, &record, bytes.get(record.data.clone()).unwrap_or_default());
            log.records.push(record);
        }
        tally.finish(&mut log);
        log.bytes = bytes.to_vec();
        Ok(log)
    }

    /// Size of a digest: as declared by the header, else by the algorithm itself.
    pub(super) fn digest_size(&self, id: u16) -> Option<usize> {
        let declared = self.declared.iter().find(|(known, _)| *known == id).map(|(_, size)| *size);
        declared.or_else(|| HashAlg::from_tpm(id).map(HashAlg::size))
    }

    /// TCG_EfiSpecIDEvent: the algorithms and their digest sizes.
    fn spec_id(&mut self, mut data: Reader<'_>, after: &mut Reader<'_>) -> Result<Vec<(u16, usize)>, ParseError> {
        data.take(SPEC_ID_AGILE.len(), "the Spec ID signature")?;
        data.take(8, "the Spec ID versions")?;
        let start = data.clone();
        let count = data.le32("the number of algorithms")?;
        if count == 0 || count > DIGESTS_MAX {
            let problem = Problem::OverLimit {
                what: "the number of algorithms",
                found: u64::from(count),
                limit: u64::from(DIGESTS_MAX),
            };
            return Err(start.error(if count == 0 {
                Problem::Malformed { what: "the header declares no algorithm" }
            } else {
                problem
            }));
        }
        let mut declared: Vec<(u16, usize)> = Vec::new();
        for _ in 0..count {
            let start = data.clone();
            let id = data.le16("an algorithm id")?;
            let size = data.le16("a digest size")?;
            if size == 0 || size > DIGEST_SIZE_MAX {
                let (found, limit) = (u64::from(size), u64::from(DIGEST_SIZE_MAX));
                return Err(start.error(Problem::OverLimit { what: "a declared digest size", found, limit }));
            }
            let size = usize::from(size);
            if let Some(alg) = HashAlg::from_tpm(id).filter(|alg| alg.size() != size) {
                let (expected, found) = (wide(alg.size()), wide(size));
                return Err(start.error(Problem::Mismatch { what: "a declared digest size", expected, found }));
            }
            if declared.iter().any(|(known, _)| *known == id) {
                return Err(start.error(Problem::Malformed { what: "the header declares an algorithm twice" }));
            }
            if HashAlg::from_tpm(id).is_none() {
                self.findings.push(
                    Finding::info("boot.unknown-bank", "the log carries a bank of an algorithm that is not known here")
                        .found(format!("{id:#06x}")),
                );
            }
            declared.push((id, size));
        }
        if data.is_empty() {
            self.findings
                .push(Finding::info("boot.spec-id-size", "the header ends before its vendor information size"));
            return Ok(declared);
        }
        let vendor = usize::from(data.u8("the vendor information size")?);
        if data.left() < vendor && data.is_empty() {
            // Some firmware counts the header's size without the vendor information that follows it.
            after.take(vendor, "the vendor information")?;
            self.findings
                .push(Finding::info("boot.spec-id-size", "the header's size leaves out its vendor information"));
            return Ok(declared);
        }
        data.take(vendor, "the vendor information")?;
        if !data.is_empty() {
            self.findings.push(
                Finding::info("boot.spec-id-size", "the header is longer than its fields")
                    .found(format!("{} bytes more", data.left())),
            );
        }
        Ok(declared)
    }

    /// TCG_PCR_EVENT2.
    fn event_agile(&self, reader: &mut Reader<'_>, tally: &mut Tally) -> Result<Record, ParseError> {
        let at = reader.position();
        let pcr = reader.le32("an event's PCR index")?;
        let event_type = EventType(reader.le32("an event's type")?);
        let start = reader.clone();
        let count = reader.le32("an event's digest count")?;
        if count == 0 {
            return Err(start.error(Problem::Malformed { what: "an event has no digest" }));
        }
        if count > DIGESTS_MAX {
            let (found, limit) = (u64::from(count), u64::from(DIGESTS_MAX));
            return Err(start.error(Problem::OverLimit { what: "an event's digest count", found, limit }));
        }
        let first = reader.position();
        let mut seen = [0u16; DIGESTS_MAX as usize];
        for position in 0..count as usize {
            let start = reader.clone();
            let id = reader.le16("a digest's algorithm")?;
            let Some(size) = self.digest_size(id) else {
                return Err(start.error(Problem::Unknown { what: "a digest's algorithm", found: u64::from(id) }));
            };
            if seen.iter().take(position).any(|known| *known == id) {
                return Err(start.error(Problem::Malformed { what: "an event has two digests of one algorithm" }));
            }
            if let Some(slot) = seen.get_mut(position) {
                *slot = id;
            }
            reader.take(size, "a digest")?;
        }
        let used = seen.get(..count as usize).unwrap_or_default();
        if event_type != EventType::EV_NO_ACTION && self.declared.iter().any(|(id, _)| !used.contains(id)) {
            tally.incomplete = tally.incomplete.saturating_add(1);
        }
        if used.iter().any(|id| !self.declared.iter().any(|(known, _)| known == id)) {
            tally.undeclared = tally.undeclared.saturating_add(1);
        }
        let digests = first..reader.position();
        let data = event_data(reader)?;
        Ok(Record { at, pcr, event_type, digests, data })
    }
}

/// TCG_PCClientPCREvent.
fn event_sha1(reader: &mut Reader<'_>) -> Result<Record, ParseError> {
    let at = reader.position();
    let pcr = reader.le32("an event's PCR index")?;
    let event_type = EventType(reader.le32("an event's type")?);
    let first = reader.position();
    reader.take(HashAlg::Sha1.size(), "an event's SHA-1 digest")?;
    let digests = first..reader.position();
    let data = event_data(reader)?;
    Ok(Record { at, pcr, event_type, digests, data })
}

fn event_data(reader: &mut Reader<'_>) -> Result<std::ops::Range<usize>, ParseError> {
    let size = reader.le32("an event's size")?;
    let start = reader.position();
    reader.take(usize::try_from(size).unwrap_or(usize::MAX), "an event's data")?;
    Ok(start..reader.position())
}

/// The padding byte, when these bytes are nothing but zeros or nothing but 0xff.
fn padding(rest: &[u8]) -> Option<u8> {
    let first = *rest.first().unwrap_or(&0);
    (matches!(first, 0 | 0xff) && rest.iter().all(|byte| *byte == first)).then_some(first)
}

fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// What is counted while events are read, told once at the end.
#[derive(Default)]
struct Tally {
    spec_ids: usize,
    localities: Vec<u8>,
    pcr0_extended: bool,
    late_locality: bool,
    out_of_range: usize,
    pseudo: usize,
    incomplete: usize,
    undeclared: usize,
}

impl Tally {
    fn note(&mut self, log: &mut BootLog, record: &Record, data: &[u8]) {
        match record.pcr {
            PSEUDO_PCR => self.pseudo = self.pseudo.saturating_add(1),
            PCR_COUNT.. => self.out_of_range = self.out_of_range.saturating_add(1),
            _ => {}
        }
        if record.event_type != EventType::EV_NO_ACTION {
            self.pcr0_extended |= record.pcr == 0;
            log.hcrtm |= record.pcr == 0 && record.event_type == EventType::EV_EFI_HCRTM_EVENT;
            return;
        }
        if data.starts_with(SPEC_ID) {
            self.spec_ids = self.spec_ids.saturating_add(1);
        }
        if let Some([locality]) = data.strip_prefix(STARTUP_LOCALITY) {
            self.late_locality |= self.pcr0_extended;
            // A few are enough to tell that there are several.
            if self.localities.len() < 8 {
                self.localities.push(*locality);
            }
        }
    }

    fn finish(self, log: &mut BootLog) {
        log.startup_locality = self.localities.first().copied();
        let findings = &mut log.findings;
        let several = |count: usize| format!("{count} events");
        findings.check("boot.spec-id-repeated", self.spec_ids > 1, || {
            Finding::warning("", "the log holds several Spec ID events: it may be several logs in one")
                .expected("1 event")
                .found(several(self.spec_ids))
        });
        findings.check("boot.startup-locality-repeated", self.localities.len() > 1, || {
            Finding::warning("", "the log holds several StartupLocality events; the first is used")
                .found(format!("localities {:?}", self.localities))
        });
        findings.check("boot.startup-locality-late", self.late_locality, || {
            Finding::warning("", "a StartupLocality event follows events that extend PCR 0")
        });
        findings.check("boot.pcr-out-of-range", self.out_of_range > 0, || {
            Finding::warning("", "events name a PCR that no TPM has; they extend nothing")
                .found(several(self.out_of_range))
        });
        findings.check("boot.bank-incomplete", self.incomplete > 0, || {
            Finding::warning("", "events lack the digest of a bank that the header declares")
                .found(several(self.incomplete))
        });
        findings.check("boot.bank-undeclared", self.undeclared > 0, || {
            Finding::warning("", "events carry digests of an algorithm that the header does not declare")
                .found(several(self.undeclared))
        });
        if self.pseudo > 0 {
            findings.push(
                Finding::info("boot.pseudo-pcr", "events in the pseudo-PCR 0xffffffff extend nothing")
                    .found(several(self.pseudo)),
            );
        }
        findings.check("boot.sha1-only", log.format == Format::Sha1, || {
            Finding::warning("", "the log carries SHA-1 digests only")
                .fix("enable the TPM's SHA-256 bank in the firmware")
        });
    }
}
