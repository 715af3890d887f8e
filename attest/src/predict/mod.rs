//! Prediction: which PCR values a unified kernel image will give, computed from its file without booting it.
//!
//! PFP 1.06 sections 3.3.4.5 (PCR 4) and 8.2.4 (boot attempts); systemd-stub(7) (PCR 11, 12, 13); systemd-pcrphase.service(8);
//! Linux's EFI stub (PCR 9: load options, then the initrd that it loads by LINUX_EFI_INITRD_MEDIA_GUID). Establishes the values
//! that **this file** gives on a machine whose firmware follows the profile, with nothing beside the file: no credentials or
//! extensions on the ESP, no load options in the boot entry. Does **not** establish that a machine booted it, that the
//! signature is valid, or anything of PCR 0–3 and 5–7, which are the firmware's.
//!
//! Compared with booted machines: OVMF 2022.11, systemd-stub 252, Linux 6.1. Another stub is named in a finding.

pub mod pe;
mod phase;
mod uki;

use std::collections::BTreeMap;

use crate::boot_log::{BootLog, EventType, SecureBoot};
use crate::digest::{Digest, HashAlg};
use crate::finding::{Finding, Findings};

pub use pe::IMAGE_MAX;
pub use phase::Phase;
pub use uki::{STUB_TESTED, Uki, measured_sections};

/// Most boot options that failed before the image was started: firmware keeps a handful, each makes two events.
pub const FAILED_OPTIONS_MAX: u8 = 32;

/// EV_EFI_ACTION strings of PCR 4 around each boot attempt.
const CALLING: &str = "Calling EFI Application from Boot Option";
const RETURNING: &str = "Returning from EFI Application from Boot Option";

/// What a prediction needs to know of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conditions {
    /// Whether Secure Boot is on: the stub then starts its kernel without the firmware, which does not measure it again.
    pub secure_boot: bool,
    /// Boot options that the firmware tried in vain before the image; at most [`FAILED_OPTIONS_MAX`] count.
    pub failed_options: u8,
    /// The phase in which PCR 11 is wanted.
    pub phase: Phase,
    /// Whether the initrd runs systemd, which marks two phases of its own.
    pub systemd_initrd: bool,
}

impl Conditions {
    /// Takes the firmware's part from the boot log of a machine of the same kind: Secure Boot, and the failed boot options.
    #[must_use]
    pub fn like(self, log: &BootLog, bank: HashAlg) -> Self {
        let secure_boot = match log.claims(bank).0.secure_boot {
            SecureBoot::On => true,
            SecureBoot::Off => false,
            SecureBoot::Unknown => self.secure_boot,
        };
        let returning = bank.hash(&[RETURNING.as_bytes()]);
        let failed = log.events().filter(|event| event.extends() == Some(4) && event.digest(bank) == returning).count();
        Self { secure_boot, failed_options: u8::try_from(failed).unwrap_or(u8::MAX), ..self }
    }
}

/// One measurement that will be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PredictedEvent {
    /// The event's type in the log; none where systemd extends without a log.
    pub event_type: Option<EventType>,
    /// What is measured, for a person.
    pub what: String,
    /// Its digest.
    pub digest: Digest,
}

/// One PCR's value, and the measurements that make it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PredictedPcr {
    /// The value.
    pub value: Digest,
    /// In their order; none for a PCR that stays zero.
    pub events: Vec<PredictedEvent>,
}

/// What an image will give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prediction {
    /// The bank.
    pub bank: HashAlg,
    /// The conditions it holds under.
    pub conditions: Conditions,
    /// PCR 4, 9, 11, 12 and 13 (13: its boot part, before the host log). A PCR that cannot be predicted is absent, and a finding says why.
    pub pcrs: BTreeMap<u8, PredictedPcr>,
    /// PCR 11 before systemd's phases: what the boot log alone gives.
    pub boot_part: Digest,
    /// What limits the prediction.
    pub findings: Findings,
}

/// Why nothing can be predicted at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PredictError {
    /// The bank's algorithm can be read but not computed.
    #[error("the {0} bank cannot be computed here")]
    Bank(HashAlg),
}

impl Uki<'_> {
    /// Predicts one bank.
    ///
    /// # Errors
    /// [`PredictError::Bank`].
    pub fn predict(&self, bank: HashAlg, conditions: &Conditions) -> Result<Prediction, PredictError> {
        self.predicted(bank, conditions).ok_or(PredictError::Bank(bank))
    }

    fn predicted(&self, bank: HashAlg, conditions: &Conditions) -> Option<Prediction> {
        let mut findings = Findings::new();
        findings.check("predict.stub", !self.stub_is_tested(), || {
            Finding::warning(
                "",
                "another stub than the one that predictions were compared with: it may measure otherwise",
            )
            .expected(format!("systemd-stub {STUB_TESTED}"))
            .found(self.stub().unwrap_or("no stub that names itself"))
            .fix("compare the prediction with one boot of this image before it is published")
        });
        let mut image = Pcr::new(bank);
        for (name, data) in self.measured() {
            image.extend(Some(EventType::EV_IPL), format!("{name}: its name"), bank.hash(&[name.as_bytes(), &[0]])?)?;
            let what = format!("{name}: its {} bytes", data.len());
            image.extend(Some(EventType::EV_IPL), what, bank.hash(&[data])?)?;
        }
        let boot_part = image.value;
        for word in conditions.phase.words(conditions.systemd_initrd) {
            image.extend(None, format!("systemd phase {word}"), bank.hash(&[word.as_bytes()])?)?;
        }
        let mut pcrs = BTreeMap::from([
            (4, self.firmware(bank, conditions)?.done()),
            (11, image.done()),
            (12, Pcr::new(bank).done()),
            (13, Pcr::new(bank).done()),
        ]);
        let combined = self.packs_initrd();
        let known = findings.check("predict.initrd", combined, || {
            Finding::warning("", "PCR 9 is left out: the stub packs .pcrsig and .pcrpkey into an initrd of its own")
                .fix("capture PCR 9 from one boot of this image: hostmark refs capture")
        });
        let line = self.command_line().filter(|line| !line.is_empty());
        let given = findings.check("predict.command-line", line.is_none(), || {
            Finding::warning(
                "",
                "PCR 9 and 12 are left out: the image holds no command line, so the boot entry gives it",
            )
            .fix("build the image with a .cmdline section")
        });
        if !given {
            pcrs.remove(&12);
        }
        if let Some(line) = line.filter(|_| known && given) {
            pcrs.insert(9, self.kernel_stub(bank, line)?.done());
        }
        Some(Prediction { bank, conditions: *conditions, pcrs, boot_part, findings })
    }

    /// PCR 4: each boot attempt, the image, and the kernel where the stub has the firmware load it.
    fn firmware(&self, bank: HashAlg, conditions: &Conditions) -> Option<Pcr> {
        let mut pcr = Pcr::new(bank);
        let action =
            |text: &str| Some((Some(EventType::EV_EFI_ACTION), text.to_owned(), bank.hash(&[text.as_bytes()])?));
        pcr.extend_with(action(CALLING)?)?;
        let separator = bank.hash(&[&[0; 4]])?;
        pcr.extend(Some(EventType::EV_SEPARATOR), "the end of the firmware's part".to_owned(), separator)?;
        for _ in 0..conditions.failed_options.min(FAILED_OPTIONS_MAX) {
            pcr.extend_with(action(RETURNING)?)?;
            pcr.extend_with(action(CALLING)?)?;
        }
        let program = Some(EventType::EV_EFI_BOOT_SERVICES_APPLICATION);
        pcr.extend(program, "the image, by its Authenticode digest".to_owned(), self.image().authenticode(bank)?)?;
        if !conditions.secure_boot {
            let what = "the kernel in it, by its Authenticode digest".to_owned();
            pcr.extend(program, what, self.kernel().authenticode(bank)?)?;
        }
        Some(pcr)
    }

    /// PCR 9: the kernel's EFI stub measures what it was given.
    fn kernel_stub(&self, bank: HashAlg, line: &str) -> Option<Pcr> {
        let mut pcr = Pcr::new(bank);
        let tag = Some(EventType::EV_EVENT_TAG);
        let options: Vec<u8> = line.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
        pcr.extend(tag, "load options: .cmdline in UTF-16".to_owned(), bank.hash(&[&options])?)?;
        if let Some(initrd) = self.section(".initrd") {
            pcr.extend(tag, "Linux initrd: .initrd".to_owned(), bank.hash(&[initrd])?)?;
        }
        Some(pcr)
    }
}

/// A PCR that is being extended.
struct Pcr {
    value: Digest,
    events: Vec<PredictedEvent>,
}

impl Pcr {
    const fn new(bank: HashAlg) -> Self {
        Self { value: Digest::zero(bank), events: Vec::new() }
    }

    fn extend(&mut self, event_type: Option<EventType>, what: String, digest: Digest) -> Option<()> {
        self.value = self.value.extend(&digest)?;
        self.events.push(PredictedEvent { event_type, what, digest });
        Some(())
    }

    fn extend_with(&mut self, (event_type, what, digest): (Option<EventType>, String, Digest)) -> Option<()> {
        self.extend(event_type, what, digest)
    }

    fn done(self) -> PredictedPcr {
        PredictedPcr { value: self.value, events: self.events }
    }
}
