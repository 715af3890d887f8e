//! What `hostmark inspect ima` shows of a list, binary or ascii.
//!
//! A description of the file alone: without a quoted PCR 10 nothing in it is verified.

use std::collections::BTreeMap;

use serde::Serialize;

use super::parse::ImaLog;
use super::replay::{Notes, replay_all};
use crate::bytes::ParseError;
use crate::digest::HashAlg;
use crate::finding::Findings;

/// The description of a list.
#[derive(Debug, Clone, Serialize)]
pub struct ImaReport {
    /// Entries, those of other PCRs included.
    pub entries: u64,
    /// Entries by template name. Names are not hashed.
    pub templates: BTreeMap<String, u64>,
    /// PCR 10 as the whole list gives it, in hex.
    pub pcr10: ReplayedPcr,
    /// Entries with a zero template digest.
    pub violations: u64,
    /// What was noticed.
    pub findings: Findings,
}

/// PCR 10 by bank, in hex.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ReplayedPcr {
    /// SHA-1 bank.
    pub sha1: String,
    /// SHA-256 bank.
    pub sha256: String,
}

/// Describes a list.
///
/// # Errors
/// At the byte where it is malformed or over a limit.
pub fn inspect(list: &[u8]) -> Result<ImaReport, ParseError> {
    let log = ImaLog::parse(list)?;
    let mut templates: BTreeMap<String, u64> = BTreeMap::new();
    let mut notes = Notes::default();
    for (index, entry) in (0u64..).zip(log.entries()) {
        let count = templates.entry(crate::finding::one_line(&entry.template())).or_default();
        *count = count.saturating_add(1);
        notes.look(index, &entry, log.listed_bank());
    }
    let replayed = replay_all(&log, &[HashAlg::Sha1, HashAlg::Sha256]);
    let bank = |bank| replayed.get(&bank).map(ToString::to_string).unwrap_or_default();
    let pcr10 = ReplayedPcr { sha1: bank(HashAlg::Sha1), sha256: bank(HashAlg::Sha256) };
    Ok(ImaReport { entries: log.len(), templates, pcr10, violations: notes.violations, findings: notes.report(&log) })
}
