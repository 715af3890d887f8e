//! The firmware's boot event log: TCG PC Client Platform Firmware Profile 1.06, section 10 (event logging).
//!
//! [`BootLog::parse`] establishes framing; [`BootLog::compare`] that the log explains quoted PCR values; [`BootLog::claims`]
//! what may be said from event data. None of them establishes that the PCR values come from a TPM: that is the quote's part,
//! and a claim is worth nothing before the replay of its PCR has matched genuine values.
//!
//! A log is the host's word. Digests are held by the replay; event **types**, **data** and the **order between PCRs** are not
//! hashed into any PCR, so whoever sends the log chooses them freely.

mod authentic;
mod claims;
mod describe;
mod inspect;
mod parse;
mod replay;
mod replayed;

use std::ops::Range;

use crate::digest::{Digest, HashAlg};
use crate::finding::Findings;

pub use authentic::Authenticity;
pub use claims::{Authorities, BootClaims, BootEntry, CommandLine, CommandLineSource, ImageSection, SecureBoot};
pub use describe::{Description, Loaded, Text, Unhashed, VariableClaim};
pub use inspect::{EventView, Inspection, inspect, list_events};
pub use parse::{DIGESTS_MAX, EVENTS_MAX, LOG_MAX};
pub use replay::BootQuirks;
pub use replayed::ReplayedBootLog;

/// PCR index of events that are logged but extended nowhere (Windows keeps a quote of its own there).
pub const PSEUDO_PCR: u32 = 0xffff_ffff;

/// PCRs of a PC Client TPM: 0–23.
pub const PCR_COUNT: u32 = 24;

/// An event's type (PFP 10.4.1; `TXT_`: Intel TXT Software Development Guide, appendix F). Not hashed: it selects how data is read, and proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventType(pub u32);

macro_rules! event_types {
    ($($name:ident = $value:literal),+ $(,)?) => {
        impl EventType {
            $(#[doc = concat!("`", stringify!($name), "`")] pub const $name: Self = Self($value);)+

            /// The specification's name, or None for a number it does not name.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($name)),)+
                    _ => None,
                }
            }

            /// By the specification's name.
            #[must_use]
            pub fn by_name(name: &str) -> Option<Self> {
                match name {
                    $(stringify!($name) => Some(Self::$name),)+
                    _ => None,
                }
            }
        }
    };
}

event_types! {
    EV_PREBOOT_CERT = 0x0,
    EV_POST_CODE = 0x1,
    EV_UNUSED = 0x2,
    EV_NO_ACTION = 0x3,
    EV_SEPARATOR = 0x4,
    EV_ACTION = 0x5,
    EV_EVENT_TAG = 0x6,
    EV_S_CRTM_CONTENTS = 0x7,
    EV_S_CRTM_VERSION = 0x8,
    EV_CPU_MICROCODE = 0x9,
    EV_PLATFORM_CONFIG_FLAGS = 0xa,
    EV_TABLE_OF_DEVICES = 0xb,
    EV_COMPACT_HASH = 0xc,
    EV_IPL = 0xd,
    EV_IPL_PARTITION_DATA = 0xe,
    EV_NONHOST_CODE = 0xf,
    EV_NONHOST_CONFIG = 0x10,
    EV_NONHOST_INFO = 0x11,
    EV_OMIT_BOOT_DEVICE_EVENTS = 0x12,
    EV_POST_CODE2 = 0x13,
    TXT_PCR_MAPPING = 0x401,
    TXT_HASH_START = 0x402,
    TXT_COMBINED_HASH = 0x403,
    TXT_MLE_HASH = 0x404,
    TXT_BIOSAC_REG_DATA = 0x40a,
    TXT_CPU_SCRTM_STAT = 0x40b,
    TXT_LCP_CONTROL_HASH = 0x40c,
    TXT_ELEMENTS_HASH = 0x40d,
    TXT_STM_HASH = 0x40e,
    TXT_OSSINITDATA_CAP_HASH = 0x40f,
    TXT_SINIT_PUBKEY_HASH = 0x410,
    TXT_LCP_HASH = 0x411,
    TXT_LCP_DETAILS_HASH = 0x412,
    TXT_LCP_AUTHORITIES_HASH = 0x413,
    TXT_NV_INFO_HASH = 0x414,
    TXT_CAP_VALUE = 0x4ff,
    EV_EFI_VARIABLE_DRIVER_CONFIG = 0x8000_0001,
    EV_EFI_VARIABLE_BOOT = 0x8000_0002,
    EV_EFI_BOOT_SERVICES_APPLICATION = 0x8000_0003,
    EV_EFI_BOOT_SERVICES_DRIVER = 0x8000_0004,
    EV_EFI_RUNTIME_SERVICES_DRIVER = 0x8000_0005,
    EV_EFI_GPT_EVENT = 0x8000_0006,
    EV_EFI_ACTION = 0x8000_0007,
    EV_EFI_PLATFORM_FIRMWARE_BLOB = 0x8000_0008,
    EV_EFI_HANDOFF_TABLES = 0x8000_0009,
    EV_EFI_PLATFORM_FIRMWARE_BLOB2 = 0x8000_000a,
    EV_EFI_HANDOFF_TABLES2 = 0x8000_000b,
    EV_EFI_VARIABLE_BOOT2 = 0x8000_000c,
    EV_EFI_GPT_EVENT2 = 0x8000_000d,
    EV_EFI_HCRTM_EVENT = 0x8000_0010,
    EV_EFI_VARIABLE_AUTHORITY = 0x8000_00e0,
    EV_EFI_SPDM_FIRMWARE_BLOB = 0x8000_00e1,
    EV_EFI_SPDM_FIRMWARE_CONFIG = 0x8000_00e2,
    EV_EFI_SPDM_DEVICE_POLICY = 0x8000_00e3,
    EV_EFI_SPDM_DEVICE_AUTHORITY = 0x8000_00e4,
}

/// The specification's name, else the number in hex.
impl std::fmt::Display for EventType {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name() {
            Some(name) => out.write_str(name),
            None => write!(out, "{:#010x}", self.0),
        }
    }
}

/// How a log is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// TCG_PCR_EVENT2 after a Spec ID Event03 header: several banks.
    CryptoAgile,
    /// TCG_PCClientPCREvent throughout: SHA-1 only.
    Sha1,
}

impl Format {
    /// `crypto-agile` or `sha1`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CryptoAgile => "crypto-agile",
            Self::Sha1 => "sha1",
        }
    }
}

/// Where one event lies in the log.
#[derive(Debug, Clone)]
struct Record {
    /// Byte where the event begins.
    at: usize,
    pcr: u32,
    event_type: EventType,
    /// The digest list: (algorithm id, digest) pairs, or one bare SHA-1 digest.
    digests: Range<usize>,
    data: Range<usize>,
}

/// A parsed boot log. It owns its bytes; events are views into them.
#[derive(Debug, Clone)]
pub struct BootLog {
    format: Format,
    bytes: Vec<u8>,
    records: Vec<Record>,
    /// (TPM_ALG_ID, digest size) as the header declares them, in its order.
    declared: Vec<(u16, usize)>,
    /// Locality of the first StartupLocality event.
    startup_locality: Option<u8>,
    hcrtm: bool,
    findings: Findings,
}

/// One event of a log.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    log: &'a BootLog,
    record: &'a Record,
    /// Position in the log, the header being 0.
    pub index: usize,
}

impl BootLog {
    /// The layout.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// The banks that the log carries and this crate knows, in the header's order.
    pub fn banks(&self) -> impl Iterator<Item = HashAlg> + '_ {
        self.declared.iter().filter_map(|(id, _)| HashAlg::from_tpm(*id))
    }

    /// The strongest bank that can be replayed: what `inspect` authenticates event data with.
    #[must_use]
    pub fn best_bank(&self) -> Option<HashAlg> {
        self.banks().filter(|bank| bank.computable()).max_by_key(|bank| bank.size())
    }

    /// The events in the log's order, the header included.
    pub fn events(&self) -> impl DoubleEndedIterator<Item = Event<'_>> + ExactSizeIterator {
        self.records.iter().enumerate().map(|(index, record)| Event { log: self, record, index })
    }

    /// Number of events, the header included.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.records.len()
    }

    /// Never true: a log without an event does not parse.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// What the framing itself showed.
    #[must_use]
    pub const fn findings(&self) -> &Findings {
        &self.findings
    }

    /// The locality that started the TPM, if the log says so. It is proven by the replay of PCR 0, whose first value it is.
    #[must_use]
    pub const fn startup_locality(&self) -> Option<u8> {
        self.startup_locality
    }
}

impl<'a> Event<'a> {
    /// Byte where the event begins.
    #[must_use]
    pub const fn at(&self) -> usize {
        self.record.at
    }

    /// The PCR index as logged.
    #[must_use]
    pub const fn pcr(&self) -> u32 {
        self.record.pcr
    }

    /// The type as logged. Not hashed.
    #[must_use]
    pub const fn event_type(&self) -> EventType {
        self.record.event_type
    }

    /// The event data as logged. Hashed only where [`Event::authenticity`] says so.
    #[must_use]
    pub fn data(&self) -> &'a [u8] {
        self.log.bytes.get(self.record.data.clone()).unwrap_or_default()
    }

    /// The PCR that this event extends: none for EV_NO_ACTION and for indices that no TPM has.
    #[must_use]
    pub fn extends(&self) -> Option<u8> {
        if self.record.event_type == EventType::EV_NO_ACTION || self.record.pcr >= PCR_COUNT {
            return None;
        }
        u8::try_from(self.record.pcr).ok()
    }

    /// The digests of known algorithms.
    pub fn digests(&self) -> impl Iterator<Item = Digest> + use<'a> {
        let mut rest = self.log.bytes.get(self.record.digests.clone()).unwrap_or_default();
        let log = self.log;
        // The header is laid out as a SHA-1 event in both formats.
        let bare = log.format == Format::Sha1 || self.index == 0;
        std::iter::from_fn(move || {
            loop {
                if bare {
                    let digest = Digest::new(HashAlg::Sha1, rest);
                    rest = &[];
                    return digest;
                }
                let (id, tail) = rest.split_first_chunk::<2>()?;
                let id = u16::from_le_bytes(*id);
                let size = log.digest_size(id)?;
                let digest = tail.get(..size)?;
                rest = tail.get(size..)?;
                if let Some(alg) = HashAlg::from_tpm(id) {
                    return Digest::new(alg, digest);
                }
            }
        })
    }

    /// The digest of one bank.
    #[must_use]
    pub fn digest(&self, bank: HashAlg) -> Option<Digest> {
        self.digests().find(|digest| digest.alg() == bank)
    }
}
