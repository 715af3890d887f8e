//! The kernel's command line: GRUB's measurements (PCR 8), the kernel's own of its load options (PCR 9), systemd-stub's (PCR 12).
//!
//! Establishes a text that a PCR holds and that nothing in the same PCR contradicts. Does not establish that no other loader ran:
//! PCR 4 tells that.

use std::collections::BTreeSet;

use serde::Serialize;

use super::super::authentic::grub_text;
use super::super::{Authenticity, BootLog, EventType};
use super::judged::{Judged, JudgedEvent};
use crate::digest::HashAlg;
use crate::finding::{Finding, Findings};

/// First words of GRUB commands that choose a kernel and its command line.
const GRUB_KERNEL_COMMANDS: [&str; 7] =
    ["linux", "linuxefi", "linux16", "multiboot", "multiboot2", "xen_hypervisor", "chainloader"];

/// Longest command line that becomes a claim: Linux's COMMAND_LINE_SIZE is 2048 on x86 and 4096 at most elsewhere.
const COMMAND_LINE_MAX: usize = 8192;

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

impl BootLog {
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
}

impl Judged<'_> {
    pub(super) fn command_line(&self, findings: &mut Findings) -> Option<CommandLine> {
        self.grub_command_line(findings).or_else(|| self.stub_command_line(findings))
    }

    /// GRUB hashes the text and not its label, so that a label may be moved to another text. What cannot be hidden is the command
    /// that loads the kernel: it stands in PCR 8 too, as long as every text there is authenticated.
    fn grub_command_line(&self, findings: &mut Findings) -> Option<CommandLine> {
        let mut candidates = BTreeSet::<&[u8]>::new();
        let mut commands = BTreeSet::<&[u8]>::new();
        let mut hidden = false;
        for JudgedEvent { event, data, .. } in self.in_pcr(8) {
            let text = match data {
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
    fn stub_command_line(&self, findings: &mut Findings) -> Option<CommandLine> {
        let mut texts = self
            .in_pcr(12)
            .filter(|one| one.event.event_type() == EventType::EV_IPL && one.data == Authenticity::Whole);
        let text = utf16_text(texts.next()?.event.data())?;
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
