//! A boot log together with the PCRs that it was shown to explain: the only form in which its claims may be appraised.
//!
//! Establishes that each claim rests on a PCR whose replay equals a quoted value. Whether the quoted values are genuine is the
//! quote's part: hand in values that a verified quote covers.

use std::collections::{BTreeMap, BTreeSet};

use super::replay::BootQuirks;
use super::{Authorities, BootClaims, BootLog, CommandLine, Description, SecureBoot};
use crate::digest::{HashAlg, PcrValues};
use crate::finding::Findings;

/// A log of which some PCRs are explained. Only [`BootLog::explain_quoted`] makes one.
#[derive(Debug, Clone)]
pub struct ReplayedBootLog<'a> {
    log: &'a BootLog,
    bank: HashAlg,
    explained: BTreeSet<u8>,
}

impl BootLog {
    /// Replays against quoted values, as [`BootLog::compare`], and keeps which of the PCRs matched, by a tolerated quirk or without.
    #[must_use]
    pub fn explain_quoted(
        &self,
        bank: HashAlg,
        quoted: &PcrValues,
        indices: impl IntoIterator<Item = u8>,
        quirks: BootQuirks,
    ) -> (ReplayedBootLog<'_>, Findings) {
        let mut findings = Findings::new();
        let replayed = self.replay_for(bank, &mut findings);
        let explained = self.explain_replayed(bank, replayed.as_ref(), quoted, indices, quirks, &mut findings);
        (explained, findings)
    }

    /// As [`BootLog::explain_quoted`], with what [`BootLog::replay_for`] gave.
    pub(crate) fn explain_replayed(
        &self,
        bank: HashAlg,
        replayed: Option<&PcrValues>,
        quoted: &PcrValues,
        indices: impl IntoIterator<Item = u8>,
        quirks: BootQuirks,
        findings: &mut Findings,
    ) -> ReplayedBootLog<'_> {
        let holds = |index: &u8| self.compare_one(bank, replayed, quoted, *index, quirks, findings);
        let explained = indices.into_iter().filter(holds).collect();
        ReplayedBootLog { log: self, bank, explained }
    }
}

impl ReplayedBootLog<'_> {
    /// The PCRs that the log explains.
    #[must_use]
    pub const fn explained(&self) -> &BTreeSet<u8> {
        &self.explained
    }

    /// Counts a PCR as explained whose quoted value the caller derived from the log's part and known later extensions.
    pub(crate) fn extended_later(mut self, pcr: u8) -> Self {
        self.explained.insert(pcr);
        self
    }

    /// The claims that rest on explained PCRs; the others are left out as if the log said nothing.
    #[must_use]
    pub fn claims(&self) -> (BootClaims, Findings) {
        self.claims_beside(&[])
    }

    /// The same, where these banks too are quoted.
    #[must_use]
    pub fn claims_beside(&self, quoted: &[HashAlg]) -> (BootClaims, Findings) {
        let (mut claims, findings) = self.log.claims_beside(self.bank, quoted);
        let holds = |pcr: u8| self.explained.contains(&pcr);
        if !holds(7) {
            claims.secure_boot = SecureBoot::Unknown;
        }
        if !holds(4) {
            claims.boot_applications = None;
        }
        if !holds(0) {
            claims.crtm_version = None;
        }
        if !holds(11) {
            claims.image.clear();
        }
        claims.command_line = claims.command_line.filter(|line| holds(line.pcr));
        claims.separators.retain(|pcr| holds(*pcr));
        (claims, findings)
    }

    /// SHA-256 of the content of PK, KEK, db and dbx, by name, if PCR 7 is explained. A name that is missing proves nothing.
    #[must_use]
    pub fn key_databases(&self) -> BTreeMap<&'static str, [u8; 32]> {
        if self.explained.contains(&7) { self.log.key_databases(self.bank) } else { BTreeMap::new() }
    }

    /// Whose keys vouched for what was started, and shim's level, if PCR 7 is explained.
    #[must_use]
    pub fn authorities(&self) -> Option<Authorities> {
        self.log.authorities(self.bank).filter(|_| self.explained.contains(&7))
    }

    /// What the log says for people, as far as it rests on explained PCRs. What extends nothing is left out.
    #[must_use]
    pub fn describe(&self) -> Description {
        let mut description = self.log.describe(self.bank);
        description.retain(|pcr| self.explained.contains(&pcr));
        description.unhashed.clear();
        description
    }

    /// As [`BootLog::confirm_command_line`], if PCR 9 is explained.
    #[must_use]
    pub fn confirm_command_line(&self, text: &str) -> Option<CommandLine> {
        self.log.confirm_command_line(self.bank, text).filter(|line| self.explained.contains(&line.pcr))
    }
}
