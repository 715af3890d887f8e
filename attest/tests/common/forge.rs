//! A recorded boot log that a test rewrites as a host may, before it sends it.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::PathBuf;

use hostmark_attest::boot_log::{BootLog, EventType};
use hostmark_attest::digest::{Digest, HashAlg, PcrValues, sha256};

pub const BANK: HashAlg = HashAlg::Sha256;
/// The PCRs that a recorded boot log explains.
pub const PCRS: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 14];

/// An event as the host writes it: every field is its own choice.
#[derive(Debug, Clone, PartialEq)]
pub struct Ev {
    pub pcr: u32,
    pub kind: EventType,
    pub digest: [u8; 32],
    pub data: Vec<u8>,
}

/// A log that the host may rewrite before it sends it.
#[derive(Debug, Clone)]
pub struct Forge {
    pub header: Vec<u8>,
    pub events: Vec<Ev>,
}

pub fn recorded(boot: &str, name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/recorded").join(boot).join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn quoted(boot: &str) -> PcrValues {
    let text = String::from_utf8(recorded(boot, "pcrs.quoted.txt")).unwrap();
    let rows = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.map(|row| (row[1].parse().unwrap(), Digest::from_hex(BANK, row[2]).unwrap())).collect()
}

impl Forge {
    pub fn of(boot: &str) -> Self {
        let bytes = recorded(boot, "boot-log.bin");
        let log = BootLog::parse(&bytes).unwrap();
        let second = log.events().nth(1).unwrap().at();
        let events = log.events().skip(1).map(|event| Ev {
            pcr: event.pcr(),
            kind: event.event_type(),
            digest: event.digest(BANK).unwrap().as_bytes().try_into().unwrap(),
            data: event.data().to_vec(),
        });
        let forge = Self { header: bytes[..second].to_vec(), events: events.collect() };
        assert_eq!(forge.bytes(), bytes, "the forge writes what it read");
        forge
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.header.clone();
        for event in &self.events {
            out.extend(event.pcr.to_le_bytes());
            out.extend(event.kind.0.to_le_bytes());
            out.extend(1u32.to_le_bytes());
            out.extend(BANK.to_tpm().to_le_bytes());
            out.extend(event.digest);
            out.extend((event.data.len() as u32).to_le_bytes());
            out.extend(&event.data);
        }
        out
    }

    pub fn log(&self) -> BootLog {
        BootLog::parse(&self.bytes()).unwrap()
    }

    /// Position of the n-th event of a PCR.
    pub fn at(&self, pcr: u32, n: usize) -> usize {
        self.events.iter().enumerate().filter(|(_, event)| event.pcr == pcr).nth(n).unwrap().0
    }

    pub fn secure_boot_at(&self) -> usize {
        self.at(7, 0)
    }

    pub fn separator_at(&self, pcr: u32) -> usize {
        self.events.iter().position(|event| event.pcr == pcr && event.kind == EventType::EV_SEPARATOR).unwrap()
    }

    /// An event that root extends after boot, with matching digest.
    pub fn extend(&mut self, pcr: u32, kind: EventType, data: &[u8]) {
        self.events.push(Ev { pcr, kind, digest: sha256(&[data]), data: data.to_vec() });
    }

    /// The values that a TPM holds which was extended with exactly these digests.
    pub fn values(&self) -> PcrValues {
        let mut values: PcrValues = PCRS.iter().map(|index| (*index, Digest::zero(BANK))).collect();
        for event in self.events.iter().filter(|event| event.kind != EventType::EV_NO_ACTION) {
            let value = values.entry(event.pcr as u8).or_insert(Digest::zero(BANK));
            *value = value.extend(&Digest::new(BANK, &event.digest).unwrap()).unwrap();
        }
        values
    }
}
