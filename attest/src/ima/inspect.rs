//! What `hostmark inspect ima` shows of a list, binary or ascii.
//!
//! A description of the file alone: without a quoted PCR 10 nothing in it is verified.

use std::collections::BTreeMap;

use serde::Serialize;

use super::entry::Entry;
use super::parse::ImaLog;
use super::replay::{Notes, replay_all};
use crate::bytes::ParseError;
use crate::digest::HashAlg;
use crate::finding::{Findings, one_line};

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
    /// The first entries one by one, where asked for; at most [`LISTED_MAX`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry_list: Option<Vec<EntryView>>,
}

/// Most entries that are listed: a list may have some hundred thousand, and who reads them all reads the file.
pub const LISTED_MAX: usize = 10_000;

/// One entry as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EntryView {
    /// Position in the list.
    pub index: usize,
    /// The PCR as listed, which is not hashed.
    pub pcr: u32,
    /// The template's name, which is not hashed.
    pub template: String,
    /// The file's digest as `alg:hex`; `violation` where nothing in the entry is authenticated; empty where the data is of another form.
    pub digest: String,
    /// The path as logged, on one line.
    pub path: String,
    /// Whether the entry holds a signature. It is not verified here.
    pub signed: bool,
}

/// As [`inspect`], with the entries.
///
/// # Errors
/// At the byte where it is malformed or over a limit.
pub fn list_entries(list: &[u8]) -> Result<ImaReport, ParseError> {
    let log = ImaLog::parse(list)?;
    let view = |(index, entry): (usize, Entry<'_>)| {
        let file = entry.measurement();
        let digest = match &file {
            Some(file) => format!("{}:{}", one_line(file.alg), hex::encode(file.digest)),
            None if entry.is_violation() => "violation".to_owned(),
            None => String::new(),
        };
        let path = file.map(|file| file.path).or_else(|| entry.unauthenticated_path()).unwrap_or_default();
        EntryView {
            index,
            pcr: entry.pcr(),
            template: one_line(&entry.template()),
            digest,
            path: one_line(&String::from_utf8_lossy(path)),
            signed: file.is_some_and(|file| file.signature.is_some()),
        }
    };
    let entry_list = Some(log.entries().take(LISTED_MAX).enumerate().map(view).collect());
    Ok(ImaReport { entry_list, ..inspect(list)? })
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
        let count = templates.entry(one_line(&entry.template())).or_default();
        *count = count.saturating_add(1);
        notes.look(index, &entry, log.listed_bank());
    }
    let replayed = replay_all(&log, &[HashAlg::Sha1, HashAlg::Sha256]);
    let bank = |bank| replayed.get(&bank).map(ToString::to_string).unwrap_or_default();
    let pcr10 = ReplayedPcr { sha1: bank(HashAlg::Sha1), sha256: bank(HashAlg::Sha256) };
    let (violations, findings) = (notes.violations, notes.report(&log));
    Ok(ImaReport { entries: log.len(), templates, pcr10, violations, findings, entry_list: None })
}
