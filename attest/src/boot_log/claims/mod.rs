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

mod authorities;
mod command_line;
pub(super) mod judged;
mod secure_boot;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Authenticity, BootLog, Event, EventType};
use crate::digest::{Digest, HashAlg};
use crate::finding::{Finding, Findings, Severity};
pub use authorities::Authorities;
pub use command_line::{CommandLine, CommandLineSource};
use judged::{Judged, JudgedEvent};
pub use secure_boot::SecureBoot;

/// EFI_GLOBAL_VARIABLE, 8be4df61-93ca-11d2-aa0d-00e098032b8c, as it stands in memory.
pub(super) const EFI_GLOBAL_VARIABLE: [u8; 16] =
    [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c];

/// EFI_IMAGE_SECURITY_DATABASE_GUID, d719b2cb-3d3a-4596-a3bc-dad00e67656f, as it stands in memory.
pub(super) const IMAGE_SECURITY_DATABASE: [u8; 16] =
    [0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f];

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

/// Most bytes of a CRTM version that are shown.
const CRTM_VERSION_MAX: usize = 256;

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
pub(super) struct Known {
    pub(super) separators: Vec<Digest>,
    error: Option<Digest>,
    pub(super) boot_actions: Vec<Digest>,
}

impl Known {
    pub(super) fn new(bank: HashAlg) -> Self {
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
        self.claims_beside(bank, &[])
    }

    /// The same, where these banks too are quoted.
    #[must_use]
    pub fn claims_beside(&self, bank: HashAlg, quoted: &[HashAlg]) -> (BootClaims, Findings) {
        let known = Known::new(bank);
        let judged = self.judged(bank);
        let mut findings = judged.unauthenticated();
        self.agree(bank, quoted, &mut findings);
        let separators = judged.separators(&known, &mut findings);
        let secure_boot = judged.secure_boot(&known, &mut findings);
        let boot_applications = Some(judged.boot_applications(&known));
        let command_line = judged.command_line(&mut findings);
        let crtm_version = judged
            .in_pcr(0)
            .find(|one| one.event.event_type() == EventType::EV_S_CRTM_VERSION && one.data == Authenticity::Whole)
            .map(|one| one.event.data())
            .map(|data| hex::encode(data.get(..CRTM_VERSION_MAX).unwrap_or(data)));
        let claims = BootClaims {
            bank: bank.name(),
            secure_boot,
            command_line,
            boot_applications,
            separators,
            crtm_version,
            image: judged.image(),
        };
        (claims, findings)
    }

    /// Every bank that the log carries must tell of the same data. What it says of one that is not quoted is nobody's word: whoever forges
    /// a log leaves it out, and some firmware writes rubbish for a bank that is not active. The header is laid out as a SHA-1 event and
    /// extends nothing.
    fn agree(&self, bank: HashAlg, quoted: &[HashAlg], findings: &mut Findings) {
        let others = self.banks().filter(|other| *other != bank && other.computable() && bank.computable());
        for other in others.collect::<BTreeSet<_>>() {
            let differs = self.disagreement(bank, other);
            findings.check("boot.banks-disagree", differs.is_some(), || {
                let which = differs.map_or_else(String::new, |one| format!("event {} ({})", one.index, one.event_type()));
                let severity = if quoted.contains(&other) { Severity::Error } else { Severity::Warning };
                Finding::new("", severity, format!("the log's {bank} and {other} banks do not tell of the same data"))
                    .expected("data that hashes to its digest in every bank, or in none")
                    .found(which)
                    .fix("a bank that the firmware does not extend can be filled by root: update the firmware, or let it extend one bank only")
            });
        }
    }

    pub(crate) fn in_pcr(&self, pcr: u8) -> impl Iterator<Item = Event<'_>> {
        self.events().filter(move |event| event.extends() == Some(pcr))
    }
}

impl Judged<'_> {
    fn separators(&self, known: &Known, findings: &mut Findings) -> BTreeSet<u8> {
        let mut count = BTreeMap::<u8, usize>::new();
        for JudgedEvent { event, pcr, digest, .. } in &self.events {
            let (Some(pcr @ 0..=7), Some(digest)) = (*pcr, *digest) else { continue };
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

    /// Every digest of PCR 4 that is no known text. Types are ignored, so that no program can be hidden behind another one.
    fn boot_applications(&self, known: &Known) -> Vec<BootEntry> {
        self.in_pcr(4)
            .filter_map(|one| Some((one.event, one.digest?)))
            .filter(|(_, digest)| !known.separators.contains(digest) && !known.boot_actions.contains(digest))
            .map(|(event, digest)| BootEntry {
                event: event.index,
                logged_type: event.event_type().to_string(),
                digest: digest.to_string(),
            })
            .collect()
    }

    /// The sections that PCR 11 begins with, each name told by its digest: the log's text for it is not hashed.
    fn image(&self) -> Vec<ImageSection> {
        let mut digests = self.in_pcr(11).map_while(|one| one.digest).peekable();
        // Most logs have no such image: its names are hashed only where there may be one.
        if digests.peek().is_none() {
            return Vec::new();
        }
        let hash = |name: &str| self.bank.hash(&[name.as_bytes(), &[0]]);
        let names: Vec<_> = crate::predict::measured_sections().map(|name| (name, hash(name))).collect();
        std::iter::from_fn(|| {
            let told = digests.next()?;
            let (name, _) = names.iter().find(|(_, digest)| *digest == Some(told))?;
            Some(ImageSection { name, digest: digests.next()?.to_string() })
        })
        .collect()
    }
}
