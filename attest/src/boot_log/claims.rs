//! Claims from a boot log: PFP 1.06 sections 3.3.4 (PCR usage), 10.4.1 (event types); UEFI 2.10 section 32 (Secure Boot).
//!
//! A claim is made only from data that hashes to its logged digest, in the PCR where the profile puts it, at a place that nobody
//! can reach after boot. It holds **only if the replay of its PCR matched genuine values**; the caller has that proof.
//!
//! What a host can forge shapes the rules. It chooses types, data and the order between PCRs; and root may extend PCR 0–15 after
//! boot, which appends to a PCR but never inserts. So the end of the firmware's part is found by the separator's **digest**, not
//! by a type; before it, everything in PCR 7 must be authenticated, so that no event can be hidden behind another type or other
//! data; and a PCR's first event is worth more than a later one.
//!
//! Not established: that an unlogged kernel did not measure its command line elsewhere; that PCR 9 or 12 was not empty before
//! root extended it (PCR 4 tells which kernel ran, and whether that kernel measures its load options).

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::authentic::{UefiVariable, grub_text};
use super::{Authenticity, BootLog, Event, EventType};
use crate::digest::{Digest, HashAlg};
use crate::finding::{Finding, Findings};

/// EFI_GLOBAL_VARIABLE, 8be4df61-93ca-11d2-aa0d-00e098032b8c, as it stands in memory.
const EFI_GLOBAL_VARIABLE: [u8; 16] =
    [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c];

/// Separator data that ends the firmware's part of a PCR (PFP 10.4.1, EV_SEPARATOR).
const SEPARATORS: [[u8; 4]; 2] = [[0; 4], [0xff; 4]];

/// Separator data of a firmware that met an error.
const SEPARATOR_ERROR: [u8; 4] = [1, 0, 0, 0];

/// EV_EFI_ACTION strings of PCR 4 that are no program. Only these spare an event from being listed as one.
const BOOT_ACTIONS: [&str; 4] = [
    "Calling EFI Application from Boot Option",
    "Returning from EFI Application from Boot Option",
    "Booting to Boot Option",
    "Start Option ROM Scan",
];

/// First words of GRUB commands that choose a kernel and its command line.
const GRUB_KERNEL_COMMANDS: [&str; 7] =
    ["linux", "linuxefi", "linux16", "multiboot", "multiboot2", "xen_hypervisor", "chainloader"];

/// Longest command line that becomes a claim: Linux's COMMAND_LINE_SIZE is 2048 on x86 and 4096 at most elsewhere.
const COMMAND_LINE_MAX: usize = 8192;

/// Whether the firmware enforced Secure Boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SecureBoot {
    /// The one authenticated SecureBoot variable before PCR 7's separator is 1.
    On,
    /// It is 0.
    Off,
    /// It is absent, unauthenticated, malformed or contradictory.
    Unknown,
}

impl SecureBoot {
    /// `on`, `off` or `unknown`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Unknown => "unknown",
        }
    }
}

/// Where a command line was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CommandLineSource {
    /// PCR 8: GRUB's own measurement of what it passes to the kernel.
    Grub,
    /// PCR 9: the first event is the kernel's measurement of its load options.
    LoadOptions,
    /// PCR 12: systemd-stub's measurement of a command line that did not come from the image.
    SystemdStub,
}

/// A kernel command line that a PCR holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CommandLine {
    /// The text.
    pub text: String,
    /// The PCR that it rests on.
    pub pcr: u8,
    /// Who measured it.
    pub source: CommandLineSource,
    /// Whether root could have extended it after boot, where that PCR was still empty: true unless the kernel itself measured
    /// it first. Trust it then only if PCR 4 names a loader that measures there.
    pub extendable_later: bool,
}

/// Something in PCR 4 that is neither a known action nor a separator: a program that was started, by its Authenticode digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BootEntry {
    /// Position in the log.
    pub event: usize,
    /// The type as logged, which proves nothing.
    pub logged_type: String,
    /// The digest, in hex.
    pub digest: String,
}

/// What a boot log says, of one bank.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BootClaims {
    /// The bank whose digests authenticated the data.
    pub bank: &'static str,
    /// Rests on PCR 7.
    pub secure_boot: SecureBoot,
    /// A command line that the log itself spells out.
    pub command_line: Option<CommandLine>,
    /// Rests on PCR 4: every digest in it that is not a known action or separator, whatever its logged type.
    /// None where PCR 4 is not explained, which is not the same as no program.
    pub boot_applications: Option<Vec<BootEntry>>,
    /// The PCRs among 0–7 that hold a separator.
    pub separators: BTreeSet<u8>,
    /// EV_S_CRTM_VERSION of PCR 0, in hex, if authenticated.
    pub crtm_version: Option<String>,
    /// Rests on PCR 11: the sections of a unified kernel image that it begins with. On a boot without systemd's stub root could
    /// have extended them later: PCR 4 tells which loader ran.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub image: Vec<ImageSection>,
}

/// A section of a unified kernel image as its stub measured it: first the name, then the data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageSection {
    /// The section's name.
    pub name: &'static str,
    /// The digest of its data, in hex.
    pub digest: String,
}

/// Digests of fixed texts in one bank.
struct Known {
    separators: Vec<Digest>,
    error: Option<Digest>,
    boot_actions: Vec<Digest>,
}

impl Known {
    fn new(bank: HashAlg) -> Self {
        Self {
            separators: SEPARATORS.iter().filter_map(|data| bank.hash(&[data])).collect(),
            error: bank.hash(&[&SEPARATOR_ERROR]),
            boot_actions: BOOT_ACTIONS.iter().filter_map(|text| bank.hash(&[text.as_bytes()])).collect(),
        }
    }
}

impl BootLog {
    /// What the digests of `bank` support, unproven, and what was seen on the way. Appraise only
    /// [`ReplayedBootLog::claims`](super::ReplayedBootLog::claims).
    #[must_use]
    pub fn claims(&self, bank: HashAlg) -> (BootClaims, Findings) {
        let known = Known::new(bank);
        let mut findings = self.unauthenticated(bank);
        let separators = self.separators(bank, &known, &mut findings);
        let secure_boot = self.secure_boot(bank, &known, &mut findings);
        let boot_applications = Some(self.boot_applications(bank, &known));
        let command_line = self.command_line(bank, &mut findings);
        let crtm_version = self
            .in_pcr(0)
            .find(|event| {
                event.event_type() == EventType::EV_S_CRTM_VERSION && event.authenticity(bank) == Authenticity::Whole
            })
            .map(|event| hex::encode(event.data().get(..256).unwrap_or_else(|| event.data())));
        let claims = BootClaims {
            bank: bank.name(),
            secure_boot,
            command_line,
            boot_applications,
            separators,
            crtm_version,
            image: self.image(bank),
        };
        (claims, findings)
    }

    fn in_pcr(&self, pcr: u8) -> impl Iterator<Item = Event<'_>> {
        self.events().filter(move |event| event.extends() == Some(pcr))
    }

    fn separators(&self, bank: HashAlg, known: &Known, findings: &mut Findings) -> BTreeSet<u8> {
        let mut count = BTreeMap::<u8, usize>::new();
        for event in self.events() {
            let (Some(pcr @ 0..=7), Some(digest)) = (event.extends(), event.digest(bank)) else { continue };
            let ends = known.separators.contains(&digest);
            if ends {
                count.entry(pcr).and_modify(|count| *count = count.saturating_add(1)).or_insert(1);
            }
            let retyped = ends && event.event_type() != EventType::EV_SEPARATOR;
            findings.check("boot.event-type", retyped, || {
                Finding::warning(
                    "",
                    format!("event {} extends PCR {pcr} with a separator under another type", event.index),
                )
                .expected(EventType::EV_SEPARATOR)
                .found(event.event_type())
            });
            // The same four bytes may be another variable's content.
            let error = Some(digest) == known.error && event.event_type() == EventType::EV_SEPARATOR;
            findings.check("boot.separator-error", error, || {
                Finding::warning(
                    "",
                    format!("the firmware ended PCR {pcr} with an error separator (event {})", event.index),
                )
            });
        }
        for pcr in 0..=7 {
            let found = count.get(&pcr).copied().unwrap_or(0);
            findings.check("boot.separator-missing", found == 0, || {
                Finding::warning(
                    "",
                    format!("PCR {pcr} holds no separator, so nothing tells where the firmware's part ends"),
                )
                .expected("1 separator")
                .found("none")
            });
            findings.check("boot.separator-repeated", found > 1, || {
                Finding::warning("", format!("PCR {pcr} holds several separators; the first ends the firmware's part"))
                    .expected("1 separator")
                    .found(found)
            });
        }
        count.into_keys().collect()
    }

    /// Secure Boot, from the only place that root cannot reach later: PCR 7 before its first separator.
    fn secure_boot(&self, bank: HashAlg, known: &Known, findings: &mut Findings) -> SecureBoot {
        let mut separated = false;
        let mut hidden = None;
        let mut values = Vec::new();
        let mut typed = true;
        for event in self.in_pcr(7) {
            let Some(digest) = event.digest(bank) else {
                hidden = hidden.or(Some(event.index));
                continue;
            };
            if known.separators.contains(&digest) {
                separated = true;
                break;
            }
            if bank.hash(&[event.data()]) != Some(digest) {
                hidden = hidden.or(Some(event.index));
            }
            let Some(variable) = UefiVariable::parse(event.data()) else { continue };
            if variable.guid == EFI_GLOBAL_VARIABLE && variable.is_named("SecureBoot") {
                typed &= event.event_type() == EventType::EV_EFI_VARIABLE_DRIVER_CONFIG;
                values.push(variable.content);
            }
        }
        let fix = "update the firmware, or judge this host by a reference value of PCR 7";
        let sure = [
            findings.check("boot.secure-boot-unseparated", !separated, || {
                Finding::warning("", "PCR 7 has no separator, so Secure Boot may have been claimed after boot").fix(fix)
            }),
            findings.check("boot.secure-boot-unauthenticated", hidden.is_some(), || {
                Finding::warning("", "an event of PCR 7 before its separator does not hash to its digest: it may hide the SecureBoot variable")
                    .expected("data that hashes to its digest")
                    .found(format!("event {}", hidden.unwrap_or_default()))
                    .fix(fix)
            }),
            findings.check("boot.secure-boot-type", !typed, || {
                Finding::warning("", "the SecureBoot variable is logged under another type")
                    .expected(EventType::EV_EFI_VARIABLE_DRIVER_CONFIG)
                    .fix(fix)
            }),
            findings.check("boot.secure-boot-repeated", values.len() > 1, || {
                Finding::warning("", "PCR 7 holds several SecureBoot variables before its separator")
                    .expected("1 variable")
                    .found(format!("{} variables", values.len()))
                    .fix(fix)
            }),
            findings.check("boot.secure-boot-absent", values.is_empty(), || {
                Finding::warning("", "PCR 7 holds no SecureBoot variable before its separator").fix(fix)
            }),
        ];
        let Some(value) = values.last() else { return SecureBoot::Unknown };
        let whole = findings.check("boot.secure-boot-malformed", !matches!(value, [0 | 1]), || {
            Finding::warning("", "the SecureBoot variable is not one byte of 0 or 1")
                .expected("1 byte")
                .found(format!("{} bytes", value.len()))
                .fix(fix)
        });
        let value = if value.first() == Some(&1) { SecureBoot::On } else { SecureBoot::Off };
        if whole && sure.into_iter().all(|passed| passed) { value } else { SecureBoot::Unknown }
    }

    /// Every digest of PCR 4 that is no known text. Types are ignored, so that no program can be hidden behind another one.
    fn boot_applications(&self, bank: HashAlg, known: &Known) -> Vec<BootEntry> {
        self.in_pcr(4)
            .filter_map(|event| Some((event, event.digest(bank)?)))
            .filter(|(_, digest)| !known.separators.contains(digest) && !known.boot_actions.contains(digest))
            .map(|(event, digest)| BootEntry {
                event: event.index,
                logged_type: event.event_type().to_string(),
                digest: digest.to_string(),
            })
            .collect()
    }

    /// The sections that PCR 11 begins with, each name told by its digest: the log's text for it is not hashed.
    fn image(&self, bank: HashAlg) -> Vec<ImageSection> {
        let names: Vec<_> =
            crate::predict::measured_sections().map(|name| (name, bank.hash(&[name.as_bytes(), &[0]]))).collect();
        let mut digests = self.in_pcr(11).map_while(|event| event.digest(bank));
        std::iter::from_fn(|| {
            let told = digests.next()?;
            let (name, _) = names.iter().find(|(_, digest)| *digest == Some(told))?;
            Some(ImageSection { name, digest: digests.next()?.to_string() })
        })
        .collect()
    }

    /// Confirms that the kernel was started with this command line, which the log holds only as a digest: the first event of
    /// PCR 9 is the kernel's own measurement of its load options (UTF-16LE with a closing NUL).
    #[must_use]
    pub fn confirm_command_line(&self, bank: HashAlg, text: &str) -> Option<CommandLine> {
        let text = text.strip_suffix('\n').unwrap_or(text);
        if text.len() > COMMAND_LINE_MAX {
            return None;
        }
        let options: Vec<u8> = text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
        let measured = self.in_pcr(9).next()?.digest(bank)?;
        let matches = bank.hash(&[&options]) == Some(measured);
        (!crate::check::violated("boot.command-line", !matches)).then(|| CommandLine {
            text: text.to_owned(),
            pcr: 9,
            source: CommandLineSource::LoadOptions,
            extendable_later: false,
        })
    }

    fn command_line(&self, bank: HashAlg, findings: &mut Findings) -> Option<CommandLine> {
        self.grub_command_line(bank, findings).or_else(|| self.stub_command_line(bank, findings))
    }

    /// GRUB hashes the text and not its label, so that a label may be moved to another text. What cannot be hidden is the command
    /// that loads the kernel: it stands in PCR 8 too, as long as every text there is authenticated.
    fn grub_command_line(&self, bank: HashAlg, findings: &mut Findings) -> Option<CommandLine> {
        let mut candidates = BTreeSet::<&[u8]>::new();
        let mut commands = BTreeSet::<&[u8]>::new();
        let mut hidden = false;
        for event in self.in_pcr(8) {
            let text = match event.authenticity(bank) {
                Authenticity::TextAfterLabel => grub_text(event.data()),
                Authenticity::Whole => Some((event.data(), false)),
                _ => None,
            };
            let Some((text, labelled)) = text else {
                hidden = true;
                continue;
            };
            if labelled && event.event_type() == EventType::EV_IPL {
                candidates.insert(text);
            }
            if let Some((word, rest)) = split_word(text)
                && GRUB_KERNEL_COMMANDS.iter().any(|known| known.as_bytes() == word)
            {
                commands.insert(rest);
            }
        }
        if candidates.is_empty() {
            return None;
        }
        let ambiguous = hidden
            || candidates.len() != 1
            || commands.iter().any(|command| candidates.iter().all(|text| !same_words(command, text)));
        let sure = findings.check("boot.command-line-ambiguous", ambiguous, || {
            Finding::warning("", "PCR 8 holds texts that leave open which command line the kernel got")
                .expected("1 kernel command line, and every text authenticated")
                .found(format!("{} command lines, {} load commands", candidates.len(), commands.len()))
        });
        let text = std::str::from_utf8(candidates.into_iter().next_back().filter(|_| sure)?).ok()?;
        // GRUB puts the kernel's path in front.
        (text.len() <= COMMAND_LINE_MAX).then(|| CommandLine {
            text: text.to_owned(),
            pcr: 8,
            source: CommandLineSource::Grub,
            extendable_later: true,
        })
    }

    /// systemd-stub measures a command line from outside the image into PCR 12, data and all.
    fn stub_command_line(&self, bank: HashAlg, findings: &mut Findings) -> Option<CommandLine> {
        let mut texts = self
            .in_pcr(12)
            .filter(|event| event.event_type() == EventType::EV_IPL && event.authenticity(bank) == Authenticity::Whole);
        let text = utf16_text(texts.next()?.data())?;
        let sure = findings.check("boot.command-line-repeated", texts.next().is_some(), || {
            Finding::warning("", "PCR 12 holds several texts that may be the command line")
        });
        sure.then_some(CommandLine { text, pcr: 12, source: CommandLineSource::SystemdStub, extendable_later: true })
    }
}

/// The first word and what follows its one space.
fn split_word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| *byte == b' ')?;
    Some((text.get(..end)?, text.get(end..)?.strip_prefix(b" ")?))
}

/// Equal but for quotes and backslashes, which GRUB puts around words when it passes a command line on.
fn same_words(a: &[u8], b: &[u8]) -> bool {
    let plain =
        |text: &[u8]| text.iter().copied().filter(|byte| !matches!(byte, b'"' | b'\'' | b'\\')).collect::<Vec<u8>>();
    plain(a) == plain(b)
}

/// UTF-16LE with a closing NUL.
fn utf16_text(data: &[u8]) -> Option<String> {
    if data.len() > COMMAND_LINE_MAX || !data.len().is_multiple_of(2) {
        return None;
    }
    let units = data.as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect::<Vec<_>>();
    String::from_utf16(units.strip_suffix(&[0])?).ok()
}
