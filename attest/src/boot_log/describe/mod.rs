//! What a boot log says, for people: variables, programs, files, texts. PFP 1.06 section 10.4.1, by event type.
//!
//! Everything here rests on digests that were recomputed, or **is** a digest whose subject's name is only logged; the field says
//! which. A type is not hashed, so a text is "measured into PCR n", and what measured it is told by the programs of PCR 4. What
//! follows a PCR's separator may have been appended by root after boot. Nothing here is judged: claims are made in
//! [`super::BootLog::claims`]. Not read on a round's way, so that certificates cost nobody anything.

mod device_path;
mod guid;
mod variables;
mod windows;

use std::collections::BTreeSet;

use serde::Serialize;

use super::authentic::{UefiVariable, grub_text};
use super::claims::judged::{Judged, JudgedEvent};
use super::claims::{EFI_GLOBAL_VARIABLE, IMAGE_SECURITY_DATABASE, Known};
use super::{Authenticity, BootLog, Event, EventType, PSEUDO_PCR};
use crate::bytes::Reader;
use crate::digest::{HashAlg, sha256};
use crate::finding::one_line;
pub use variables::VariableClaim;

/// SHIM_LOCK_GUID, 605dab50-e046-4300-abb6-3dd810dd8b23, as it stands in memory.
const SHIM_LOCK: [u8; 16] =
    [0x50, 0xab, 0x5d, 0x60, 0x46, 0xe0, 0x00, 0x43, 0xab, 0xb6, 0x3d, 0xd8, 0x10, 0xdd, 0x8b, 0x23];

/// Tags of EV_EVENT_TAG that Linux's EFI stub and systemd's stub use (Linux `efistub.h`, systemd `tpm2-pcr.h`).
const TAGS: [(u32, &str); 6] = [
    (0x8f3b_22ec, "linux-initrd"),
    (0x8f3b_22ed, "linux-load-options"),
    (0xf5bc_582a, "loader-conf"),
    (0x6c46_f751, "devicetree-addon"),
    (0x49df_fe0f, "initrd-addon"),
    (0xdac0_8e1a, "ucode-addon"),
];

/// PCRs whose events are mostly digests of things that the log does not hold: option ROMs and drivers, programs, GRUB's and the
/// kernel's files, the stub's sections, parameters and extensions, shim's lists, a dynamic launch.
const LOADED: [u8; 12] = [2, 4, 9, 11, 12, 13, 14, 17, 18, 19, 20, 21];

/// Everything that a log says of one bank.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Description {
    /// Variables whose content a PCR holds: Secure Boot and its keys, authorities, shim's lists, boot order and options.
    pub variables: Vec<VariableClaim>,
    /// Digests of what the log does not hold, with the name that the log gives it.
    pub loaded: Vec<Loaded>,
    /// Texts and tables that a PCR holds.
    pub texts: Vec<Text>,
    /// Events that extend nothing, by their kind: the log's word.
    pub unhashed: Vec<Unhashed>,
    /// Something was measured into PCR 17: a dynamic launch (TXT, SKINIT) happened, if that PCR replays from zero.
    pub dynamic_launch: bool,
}

/// A digest of something that the log does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Loaded {
    /// Position in the log.
    pub event: usize,
    /// The PCR that it rests on.
    pub pcr: u8,
    /// Before the PCR's first separator: nobody can have extended it after boot.
    pub by_firmware: bool,
    /// The digest in hex: of a program its Authenticode digest.
    pub digest: String,
    /// The type as logged, which proves nothing.
    pub logged_type: String,
    /// A device path, a file name, a tag, as logged, which proves nothing.
    pub logged_name: String,
}

/// A text that hashes to its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Text {
    /// Position in the log.
    pub event: usize,
    /// The PCR that it rests on.
    pub pcr: u8,
    /// Before the PCR's first separator: nobody can have extended it after boot.
    pub by_firmware: bool,
    /// `action`, `crtm-version`, `gpt`, `grub`, `kernel-command-line`, `separator` (an operating system's),
    /// `separator-error` (a firmware's), `stub-command-line`, `tag`, `windows`.
    pub kind: &'static str,
    /// The text, on one line.
    pub text: String,
}

/// An EV_NO_ACTION event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unhashed {
    /// Position in the log.
    pub event: usize,
    /// `spec-id`, `startup-locality`, `rim-locator`, `nv-index`, `pseudo-pcr`, `unknown`.
    pub kind: &'static str,
    /// Its signature, printable characters only.
    pub signature: String,
}

impl BootLog {
    /// Describes the log by the digests of `bank`, unproven.
    #[must_use]
    pub fn describe(&self, bank: HashAlg) -> Description {
        let judged = self.judged(bank);
        let known = Known::new(bank);
        let mut out = Description {
            variables: Vec::new(),
            loaded: Vec::new(),
            texts: Vec::new(),
            unhashed: self.events().filter_map(unhashed).collect(),
            dynamic_launch: judged.in_pcr(17).next().is_some(),
        };
        let ends = |one: &JudgedEvent<'_>| one.digest.is_some_and(|digest| known.separators.contains(&digest));
        // A PCR without a separator has no end of the firmware's part.
        let mut firmware: BTreeSet<u8> =
            judged.events.iter().filter(|one| ends(one)).filter_map(|one| one.pcr).collect();
        firmware.retain(|pcr| *pcr < 8);
        for one in &judged.events {
            let Some(pcr) = one.pcr else { continue };
            if ends(one) {
                firmware.remove(&pcr);
            } else {
                out.note(&judged, one, pcr, firmware.contains(&pcr));
            }
        }
        out
    }
}

impl Description {
    /// Leaves out what rests on other PCRs.
    pub(super) fn retain(&mut self, holds: impl Fn(u8) -> bool) {
        self.variables.retain(|one| holds(one.pcr));
        self.loaded.retain(|one| holds(one.pcr));
        self.texts.retain(|one| holds(one.pcr));
        self.dynamic_launch &= holds(17);
    }

    fn note(&mut self, judged: &Judged<'_>, one: &JudgedEvent<'_>, pcr: u8, by_firmware: bool) {
        let event = one.event;
        match one.data {
            Authenticity::Whole | Authenticity::VariableContent if is_variable(event.event_type()) => {
                self.variables.extend(variable(event, pcr, by_firmware, one.data));
            }
            Authenticity::Whole | Authenticity::TextAfterLabel => {
                let text = |(kind, text)| Text { event: event.index, pcr, by_firmware, kind, text };
                self.texts.extend(texts(event, pcr).into_iter().map(text));
            }
            Authenticity::Elsewhere if LOADED.contains(&pcr) => {
                let digest = one.digest.map(|digest| digest.to_string()).unwrap_or_default();
                // A type may claim that the data is of something else, and the digest be the data's all the same.
                let logged_name = if judged.is_whole(one) { String::new() } else { logged_name(event) };
                let logged_type = event.event_type().to_string();
                self.loaded.push(Loaded { event: event.index, pcr, by_firmware, digest, logged_type, logged_name });
            }
            _ => {}
        }
    }
}

const fn is_variable(kind: EventType) -> bool {
    matches!(
        kind,
        EventType::EV_EFI_VARIABLE_DRIVER_CONFIG
            | EventType::EV_EFI_VARIABLE_BOOT
            | EventType::EV_EFI_VARIABLE_BOOT2
            | EventType::EV_EFI_VARIABLE_AUTHORITY
    )
}

fn variable(event: Event<'_>, pcr: u8, by_firmware: bool, data: Authenticity) -> Option<VariableClaim> {
    let variable = UefiVariable::parse(event.data())?;
    let units = variable.name.as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit));
    let name: String = char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    let authority = event.event_type() == EventType::EV_EFI_VARIABLE_AUTHORITY;
    let content = variables::read(&variable, &name, authority);
    // A variable of another vendor may have any name.
    let known = [EFI_GLOBAL_VARIABLE, IMAGE_SECURITY_DATABASE, SHIM_LOCK].contains(&variable.guid);
    let name = if known { name } else { format!("{name}-{}", guid::text(variable.guid)) };
    Some(VariableClaim {
        event: event.index,
        pcr,
        by_firmware,
        name: one_line(&name),
        named: data == Authenticity::Whole,
        sha256: hex::encode(sha256(&[variable.content])),
        size: variable.content.len(),
        certificates: content.certificates,
        entries: content.entries,
        value: content.value,
    })
}

/// The texts in data that hashes to its digest.
fn texts(event: Event<'_>, pcr: u8) -> Vec<(&'static str, String)> {
    let data = event.data();
    match event.event_type() {
        EventType::EV_IPL => match grub_text(data) {
            Some((text, true)) => vec![("kernel-command-line", lossy(text))],
            Some((text, false)) => vec![("grub", lossy(text))],
            None if pcr == 12 => vec![("stub-command-line", one_line(&device_path::utf16(data)))],
            None => vec![("grub", lossy(data))],
        },
        EventType::EV_ACTION | EventType::EV_EFI_ACTION => vec![("action", lossy(data))],
        EventType::EV_EFI_GPT_EVENT => variables::gpt(data).map(|text| ("gpt", text)).into_iter().collect(),
        EventType::EV_SEPARATOR if pcr < 8 => vec![("separator-error", hex::encode(data.get(..16).unwrap_or(data)))],
        EventType::EV_SEPARATOR => vec![("separator", printable(data))],
        EventType::EV_S_CRTM_VERSION => vec![("crtm-version", version(data))],
        EventType::EV_EVENT_TAG | EventType::EV_COMPACT_HASH if matches!(pcr, 11..=14) => {
            let items = windows::items(data);
            items.into_iter().map(|(name, value)| ("windows", one_line(&format!("{name}={value}")))).collect()
        }
        EventType::EV_EVENT_TAG => vec![("tag", tag(data))],
        _ => Vec::new(),
    }
}

/// A version as firmware writes one: a GUID, UTF-16, or ASCII.
fn version(data: &[u8]) -> String {
    let text = device_path::utf16(data);
    match <[u8; 16]>::try_from(data) {
        Ok(guid) if !text.is_ascii() => guid::text(guid),
        _ if text.is_ascii() => one_line(&text),
        _ => printable(data),
    }
}

fn lossy(text: &[u8]) -> String {
    one_line(String::from_utf8_lossy(text).trim_end_matches('\0'))
}

/// The tag's name or number, and the text behind it.
fn tag(data: &[u8]) -> String {
    let mut reader = Reader::new(data);
    let (Ok(id), Ok(_)) = (reader.le32("a tag"), reader.le32("a size")) else { return String::new() };
    let name = TAGS.iter().find(|(known, _)| *known == id).map(|(_, name)| *name);
    let name = name.map_or_else(|| format!("{id:#010x}"), str::to_owned);
    one_line(&format!("{name}: {}", printable(reader.rest())))
}

/// The name that the log gives to something that it does not hold.
fn logged_name(event: Event<'_>) -> String {
    let data = event.data();
    match event.event_type() {
        EventType::EV_EFI_BOOT_SERVICES_APPLICATION
        | EventType::EV_EFI_BOOT_SERVICES_DRIVER
        | EventType::EV_EFI_RUNTIME_SERVICES_DRIVER => one_line(&image_path(data).unwrap_or_default()),
        EventType::EV_EVENT_TAG => tag(data),
        _ => printable(data),
    }
}

/// UEFI_IMAGE_LOAD_EVENT (PFP 10.2.3): place, length, link time place, then the device path.
fn image_path(data: &[u8]) -> Option<String> {
    let mut reader = Reader::new(data);
    reader.take(24, "where an image lay").ok()?;
    let length = usize::try_from(reader.le64("a path's length").ok()?).ok()?;
    Some(device_path::text(reader.take(length, "a path").ok()?))
}

/// ASCII as it stands, UTF-16's zero bytes left out, all else as dots, cut to a line.
fn printable(data: &[u8]) -> String {
    let shown = data.iter().filter(|byte| **byte != 0).take(160);
    shown.map(|byte| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' }).collect()
}

/// PFP 1.06 section 10.4.5: EV_NO_ACTION by its signature; and what stands in the pseudo-PCR.
fn unhashed(event: Event<'_>) -> Option<Unhashed> {
    const KINDS: [(&[u8], &str); 5] = [
        (b"Spec ID Event", "spec-id"),
        (b"StartupLocality\0", "startup-locality"),
        (b"SP800-155 Event", "rim-locator"),
        (b"NvIndexInstance\0", "nv-index"),
        (b"NvIndexDynamic\0\0", "nv-index"),
    ];
    let kind = match event.event_type() {
        _ if event.pcr() == PSEUDO_PCR => "pseudo-pcr",
        EventType::EV_NO_ACTION => {
            KINDS.iter().find(|(start, _)| event.data().starts_with(start)).map_or("unknown", |(_, kind)| kind)
        }
        _ => return None,
    };
    let data = event.data();
    let signature = if kind == "pseudo-pcr" { String::new() } else { printable(data.get(..16).unwrap_or(data)) };
    Some(Unhashed { event: event.index, kind, signature })
}
