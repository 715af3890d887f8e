//! The event log of a confidential guest (CCEL): UEFI 2.10 section 38.4.1 (EFI_CC_EVENT_LOG_FORMAT_TCG_2), ACPI table CCEL.
//!
//! It is framed as a crypto-agile boot log; what an event names is a measurement register (Intel TDX: 0 is MRTD, 1 to 4 are
//! RTMR0 to RTMR3), and registers start at zero whatever a locality event says. Establishes framing and which register values
//! the log explains. Does **not** establish that the values are genuine (the quote's part), and makes no claim from event data:
//! one register holds what several PCRs of a PC hold, so that the rules of a boot log's separators do not carry over.

use std::collections::BTreeMap;

use crate::boot_log::{BootLog, Event, EventType, Format};
use crate::bytes::{ParseError, Problem};
use crate::digest::{Digest, HashAlg};
use crate::finding::{Finding, Findings};

/// Measurement registers of Intel TDX: MRTD and RTMR0–3. No other platform's log is in use.
pub const REGISTER_COUNT: u8 = 5;

/// A confidential guest's log, framed.
#[derive(Debug, Clone)]
pub struct CcEventLog {
    log: BootLog,
}

impl CcEventLog {
    /// Reads the log area as ACPI's CCEL table points to it, padding included.
    ///
    /// # Errors
    /// Framing that does not hold, and a log without the crypto-agile header, with the byte.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let log = BootLog::parse(bytes)?;
        if log.format() != Format::CryptoAgile {
            let problem = Problem::Malformed { what: "a CC event log begins with a Spec ID Event03" };
            return Err(ParseError { at: 0, problem });
        }
        Ok(Self { log })
    }

    /// The events, the header included. An event's PCR index is its register's.
    pub fn events(&self) -> impl ExactSizeIterator<Item = Event<'_>> {
        self.log.events()
    }

    /// The banks that the log carries. TDX extends SHA-384.
    pub fn banks(&self) -> impl Iterator<Item = HashAlg> + '_ {
        self.log.banks()
    }

    /// The registers' values: one without events is absent, never zero.
    #[must_use]
    pub fn replay(&self, bank: HashAlg) -> BTreeMap<u8, Digest> {
        self.log.replay_from(bank, 0)
    }

    /// What is odd about the log. Several separators in one register leave open where the firmware's part ends: refused, since
    /// nothing tells which of them was appended later.
    #[must_use]
    pub fn findings(&self) -> Findings {
        let mut findings = self.log.findings().clone();
        let mut separators = BTreeMap::<u8, usize>::new();
        let mut outside = 0usize;
        for event in self.events() {
            match event.extends() {
                Some(register) if register >= REGISTER_COUNT => outside = outside.saturating_add(1),
                Some(register) if event.event_type() == EventType::EV_SEPARATOR => {
                    separators.entry(register).and_modify(|count| *count = count.saturating_add(1)).or_insert(1);
                }
                _ => {}
            }
        }
        findings.check("ccel.register-out-of-range", outside > 0, || {
            Finding::error("", "events name a measurement register that the platform does not have")
                .expected(format!("0 to {}", REGISTER_COUNT.saturating_sub(1)))
                .found(format!("{outside} events"))
        });
        for (register, count) in separators {
            findings.check("ccel.separator-repeated", count > 1, || {
                Finding::error("", format!("register {register} holds several separators"))
                    .expected("1 separator")
                    .found(count)
                    .fix("use a guest firmware that measures one separator for each register")
            });
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of one SHA-384 bank, then events of (register, type, data).
    fn log(events: &[(u32, EventType, &[u8])]) -> Vec<u8> {
        let mut header = b"Spec ID Event03\0".to_vec();
        header.extend([0, 0, 0, 0, 0, 2, 0, 2, 1, 0, 0, 0, 0x0c, 0, 48, 0, 0]);
        let mut out = [0u32.to_le_bytes(), 3u32.to_le_bytes()].concat();
        out.extend([0; 20]);
        out.extend(33u32.to_le_bytes());
        out.extend(header);
        for (register, kind, data) in events {
            out.extend(register.to_le_bytes());
            out.extend(kind.0.to_le_bytes());
            out.extend([1, 0, 0, 0, 0x0c, 0]);
            out.extend(HashAlg::Sha384.hash(&[data]).unwrap().as_bytes());
            out.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
            out.extend_from_slice(data);
        }
        out
    }

    #[test]
    fn c8_several_separators_in_one_register_are_refused() {
        let separator = |register| (register, EventType::EV_SEPARATOR, &[0u8; 4][..]);
        let rows: [(&[u32], &[&str]); 4] = [
            (&[1, 2], &[]),
            (&[1, 1], &["ccel.separator-repeated"]),
            (&[1, 2, 2, 1], &["ccel.separator-repeated", "ccel.separator-repeated"]),
            (&[1, 5], &["ccel.register-out-of-range"]),
        ];
        for (registers, expect) in rows {
            let events: Vec<_> = registers.iter().map(|register| separator(*register)).collect();
            let parsed = CcEventLog::parse(&log(&events)).unwrap();
            let found = parsed.findings();
            let ids: Vec<&str> = found.as_slice().iter().map(|one| one.id.as_str()).collect();
            assert_eq!(ids, expect, "{registers:?}");
        }
    }

    #[test]
    fn registers_start_at_zero_whatever_a_locality_event_says() {
        let zero = Digest::zero(HashAlg::Sha384);
        let digest = HashAlg::Sha384.hash(&[b"x"]).unwrap();
        let events = [(0, EventType::EV_NO_ACTION, &b"StartupLocality\0\x03"[..]), (0, EventType::EV_ACTION, b"x")];
        let replayed = CcEventLog::parse(&log(&events)).unwrap().replay(HashAlg::Sha384);
        assert_eq!(replayed, BTreeMap::from([(0, zero.extend(&digest).unwrap())]));
    }
}
