//! Does an event's data hash to its logged digest? PFP 1.06 section 10.4.1 says per type what is measured.
//!
//! Establishes that the data, or a named part of it, is what the PCR was extended with. Does not establish the event's type or
//! its meaning: the same bytes may have been measured under another type.

use super::{BootLog, Event, EventType};
use crate::bytes::Reader;
use crate::digest::{Digest, HashAlg};

/// What the logged digest says about the event's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Authenticity {
    /// The digest is the hash of the whole data.
    Whole,
    /// The digest is the hash of the variable's content alone (firmware that follows an older profile for boot variables).
    VariableContent,
    /// The digest is the hash of the text after GRUB's unhashed label.
    TextAfterLabel,
    /// The type's digest is of something that the log does not hold (a program, a table, a firmware volume).
    Elsewhere,
    /// The digest should be of the data and is not.
    Differs,
}

impl Authenticity {
    /// The name used in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::VariableContent => "variable-content",
            Self::TextAfterLabel => "text-after-label",
            Self::Elsewhere => "elsewhere",
            Self::Differs => "differs",
        }
    }
}

/// UEFI_VARIABLE_DATA (PFP 10.2.6), as it stands in an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UefiVariable<'a> {
    /// VariableName, a GUID in its in-memory byte order.
    pub(super) guid: [u8; 16],
    /// UnicodeName as UTF-16LE bytes.
    pub(super) name: &'a [u8],
    /// VariableData.
    pub(super) content: &'a [u8],
}

impl<'a> UefiVariable<'a> {
    /// Reads data that is exactly one variable.
    pub(super) fn parse(data: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(data);
        let guid = reader.array("a GUID").ok()?;
        let name = usize::try_from(reader.le64("a name's length").ok()?).ok()?.checked_mul(2)?;
        let content = usize::try_from(reader.le64("a content's length").ok()?).ok()?;
        let name = reader.take(name, "a name").ok()?;
        let content = reader.take(content, "a content").ok()?;
        reader.is_empty().then_some(Self { guid, name, content })
    }

    /// Whether the name is this ASCII text.
    pub(super) fn is_named(&self, text: &str) -> bool {
        let (units, rest) = self.name.as_chunks::<2>();
        rest.is_empty() && units.iter().map(|unit| u16::from_le_bytes(*unit)).eq(text.encode_utf16())
    }
}

/// Labels that GRUB puts before the command line of a kernel: upstream's, and that of older Red Hat builds.
const KERNEL_LABELS: [&str; 2] = ["kernel_cmdline: ", "grub_kernel_cmdline "];

/// GRUB's other labels.
const OTHER_LABELS: [&str; 3] = ["grub_cmd: ", "module_cmdline: ", "grub_cmd "];

/// The text that GRUB hashed, without its label and the closing NUL, and whether the label says that it is a kernel's command
/// line. The label itself is not hashed.
pub(super) fn grub_text(data: &[u8]) -> Option<(&[u8], bool)> {
    let after = |labels: &[&str]| labels.iter().find_map(|label| data.strip_prefix(label.as_bytes()));
    let kernel = after(&KERNEL_LABELS);
    let text = kernel.or_else(|| after(&OTHER_LABELS))?;
    Some((text.strip_suffix(&[0]).unwrap_or(text), kernel.is_some()))
}

impl Authenticity {
    /// The digest is that of what the log holds.
    const fn holds(self) -> bool {
        matches!(self, Self::Whole | Self::VariableContent | Self::TextAfterLabel)
    }
}

impl BootLog {
    /// The first event whose data hashes to its digest in one of these banks and not in the other, though it has both: one of the two
    /// was not what the firmware extended (CVE-2021-42299: an operating system fills a bank that the firmware left empty).
    pub(super) fn disagreement(&self, bank: HashAlg, other: HashAlg) -> Option<Event<'_>> {
        self.events().find(|event| {
            let both = event.digest(bank).is_some() && event.digest(other).is_some();
            both && event.authenticity(bank).holds() != event.authenticity(other).holds()
        })
    }
}

impl Event<'_> {
    /// Compares the data with the logged digest of `bank`.
    #[must_use]
    pub fn authenticity(&self, bank: HashAlg) -> Authenticity {
        self.authenticity_of(bank, self.digest(bank), false)
    }

    /// As [`Event::authenticity`], with the digest at hand. `content_first` is a guess that spares a hash: a firmware measures the whole
    /// of each boot variable, or the content of each.
    pub(super) fn authenticity_of(&self, bank: HashAlg, digest: Option<Digest>, content_first: bool) -> Authenticity {
        let Some(digest) = digest.filter(|_| bank.computable()) else {
            return Authenticity::Elsewhere;
        };
        let data = self.data();
        let is = |part: &[u8]| bank.hash(&[part]) == Some(digest);
        // Types do not matter here: data that hashes to the digest is what was measured.
        let kind = self.event_type();
        if hashed_elsewhere(kind) {
            return Authenticity::Elsewhere;
        }
        if kind == EventType::EV_IPL
            && let Some((text, _)) = grub_text(data)
        {
            // Upstream hashes the text without its closing NUL, Red Hat's commands with it.
            let texts = is(text) || bank.hash(&[text, &[0]]) == Some(digest);
            return match texts {
                true => Authenticity::TextAfterLabel,
                false if is(data) => Authenticity::Whole,
                false => Authenticity::Differs,
            };
        }
        if kind == EventType::EV_EFI_VARIABLE_BOOT {
            let content = || UefiVariable::parse(data).is_some_and(|variable| is(variable.content));
            return match content_first && content() {
                true => Authenticity::VariableContent,
                false if is(data) => Authenticity::Whole,
                false if !content_first && content() => Authenticity::VariableContent,
                false => Authenticity::Differs,
            };
        }
        if is(data) {
            return Authenticity::Whole;
        }
        match kind {
            kind if hashes_its_data(kind) => Authenticity::Differs,
            _ => Authenticity::Elsewhere,
        }
    }
}

/// Types whose digest the profile defines as the hash of the event's data.
const fn hashes_its_data(kind: EventType) -> bool {
    matches!(
        kind,
        EventType::EV_SEPARATOR
            | EventType::EV_ACTION
            | EventType::EV_EFI_ACTION
            | EventType::EV_S_CRTM_VERSION
            | EventType::EV_EFI_VARIABLE_DRIVER_CONFIG
            | EventType::EV_EFI_VARIABLE_BOOT
            | EventType::EV_EFI_VARIABLE_BOOT2
            | EventType::EV_EFI_VARIABLE_AUTHORITY
            | EventType::EV_EFI_GPT_EVENT
            | EventType::EV_OMIT_BOOT_DEVICE_EVENTS
    )
}

/// Types whose digest is never that of the data, so that hashing large data can be spared.
const fn hashed_elsewhere(kind: EventType) -> bool {
    matches!(
        kind,
        EventType::EV_NO_ACTION
            | EventType::EV_EFI_BOOT_SERVICES_APPLICATION
            | EventType::EV_EFI_BOOT_SERVICES_DRIVER
            | EventType::EV_EFI_RUNTIME_SERVICES_DRIVER
            | EventType::EV_EFI_PLATFORM_FIRMWARE_BLOB
            | EventType::EV_EFI_PLATFORM_FIRMWARE_BLOB2
            | EventType::EV_EFI_HCRTM_EVENT
    )
}
