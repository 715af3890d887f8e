//! Secure Boot: UEFI 2.10 section 32.3, PFP 1.06 section 3.3.4.8 (PCR 7).
//!
//! Establishes what the firmware's own SecureBoot variable said before PCR 7's separator, the only place that root cannot reach
//! after boot. Does not establish which keys it trusts: those are variables of the same place (see `databases`), and PCR 7's value.

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::authentic::UefiVariable;
use super::super::{BootLog, EventType};
use super::judged::{Judged, JudgedEvent};
use super::{EFI_GLOBAL_VARIABLE, IMAGE_SECURITY_DATABASE, Known};
use crate::digest::{HashAlg, sha256};
use crate::finding::{Finding, Findings};

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

/// The variables that say whose programs may start, with the vendor that each belongs to.
const DATABASES: [(&str, [u8; 16]); 4] = [
    ("PK", EFI_GLOBAL_VARIABLE),
    ("KEK", EFI_GLOBAL_VARIABLE),
    ("db", IMAGE_SECURITY_DATABASE),
    ("dbx", IMAGE_SECURITY_DATABASE),
];

impl BootLog {
    /// SHA-256 of the content of PK, KEK, db and dbx, by name, unproven: each stands once before PCR 7's separator, and nothing
    /// there leaves Secure Boot open. Empty where it does. Appraise only [`super::super::ReplayedBootLog::key_databases`].
    pub(in crate::boot_log) fn key_databases(&self, bank: HashAlg) -> BTreeMap<&'static str, [u8; 32]> {
        let (judged, known) = (self.judged(bank), Known::new(bank));
        if judged.secure_boot(&known, &mut Findings::new()) == SecureBoot::Unknown {
            return BTreeMap::new();
        }
        let mut found = BTreeMap::<&str, Vec<&[u8]>>::new();
        let ends = |one: &&JudgedEvent<'_>| one.digest.is_some_and(|digest| known.separators.contains(&digest));
        for one in judged.in_pcr(7).take_while(|one| !ends(one)) {
            let typed = one.event.event_type() == EventType::EV_EFI_VARIABLE_DRIVER_CONFIG;
            let Some(variable) = UefiVariable::parse(one.event.data()).filter(|_| typed) else { continue };
            let is = |(name, vendor): &&(&'static str, [u8; 16])| variable.guid == *vendor && variable.is_named(name);
            if let Some((name, _)) = DATABASES.iter().find(is) {
                found.entry(name).or_default().push(variable.content);
            }
        }
        let once = |(name, contents): (&'static str, Vec<&[u8]>)| match contents.as_slice() {
            [content] => Some((name, sha256(&[content]))),
            _ => None,
        };
        found.into_iter().filter_map(once).collect()
    }
}

impl Judged<'_> {
    /// Secure Boot, from the only place that root cannot reach later: PCR 7 before its first separator.
    pub(super) fn secure_boot(&self, known: &Known, findings: &mut Findings) -> SecureBoot {
        let mut separated = false;
        let mut hidden = None;
        let mut values = Vec::new();
        let mut typed = true;
        for one in self.in_pcr(7) {
            let event = one.event;
            let Some(digest) = one.digest else {
                hidden = hidden.or(Some(event.index));
                continue;
            };
            if known.separators.contains(&digest) {
                separated = true;
                break;
            }
            if !self.is_whole(one) {
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
}
