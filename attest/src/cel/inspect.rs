//! What `hostmark inspect cel` shows of a canonical event log. Nothing shown here is proven: there is no quote.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{CelAuthenticity, CelLog, Content, Index};
use crate::boot_log::EventType;
use crate::bytes::ParseError;
use crate::digest::{HashAlg, PcrValues};
use crate::finding::{Findings, one_line};

/// The JSON of `hostmark inspect cel`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CelReport {
    /// `cel-tlv`, `cel-cbor` or `cel-json`.
    pub format: &'static str,
    /// Number of records.
    pub events: usize,
    /// Records by content type.
    pub content: BTreeMap<String, usize>,
    /// What the records give on PCRs that were zero before them, in hex by bank and index.
    pub banks: BTreeMap<&'static str, BTreeMap<u8, String>>,
    /// What was noticed.
    pub findings: Findings,
    /// The records one by one, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_list: Option<Vec<RecordView>>,
}

/// One record as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecordView {
    /// Its number, where the log has one.
    pub recnum: Option<u64>,
    /// `pcr 4` or `nv 0x01c10103`.
    pub index: String,
    /// The content's type.
    pub content: String,
    /// Digests in hex by bank.
    pub digests: BTreeMap<&'static str, String>,
    /// Whether the content hashes to the digest of the strongest bank: `whole` or `elsewhere`.
    pub authenticated: &'static str,
    /// What the content says, on one line.
    pub detail: String,
}

/// Reads a log and tells what it says; with `list`, record by record.
///
/// # Errors
/// A log that cannot be framed, with the byte.
pub fn inspect(bytes: &[u8], list: bool) -> Result<CelReport, ParseError> {
    let log = CelLog::parse(bytes)?;
    let mut content = BTreeMap::<String, usize>::new();
    for record in log.records() {
        let count = content.entry(kind(&record.content)).or_default();
        *count = count.saturating_add(1);
    }
    let banks = [HashAlg::Sha1, HashAlg::Sha256, HashAlg::Sha384, HashAlg::Sha512];
    let replayed = banks.map(|bank| (bank.name(), log.replay(bank, &PcrValues::new())));
    let shown = |values: PcrValues| values.into_iter().map(|(pcr, value)| (pcr, value.to_string())).collect();
    let banks =
        replayed.into_iter().filter(|(_, values)| !values.is_empty()).map(|(bank, values)| (bank, shown(values)));
    Ok(CelReport {
        format: log.encoding().name(),
        events: log.records().len(),
        content,
        banks: banks.collect(),
        findings: log.findings().clone(),
        event_list: list.then(|| log.records().iter().map(view).collect()),
    })
}

fn kind(content: &Content) -> String {
    match content {
        Content::Management(_) => "cel".to_owned(),
        Content::PcClient { .. } => "pcclient_std".to_owned(),
        Content::ImaTemplate { .. } => "ima_template".to_owned(),
        Content::Systemd { .. } => "systemd".to_owned(),
        Content::Other { kind, .. } => one_line(kind),
    }
}

fn view(record: &super::Record) -> RecordView {
    let bank = record
        .digests
        .iter()
        .map(crate::digest::Digest::alg)
        .filter(|alg| alg.computable())
        .max_by_key(|alg| alg.size());
    let whole = bank.is_some_and(|bank| record.authenticity(bank) == CelAuthenticity::Whole);
    let detail = match &record.content {
        Content::Management(kind) => format!("event {kind:#x}"),
        Content::PcClient { event_type, data } => {
            format!("{} {}", EventType(*event_type), String::from_utf8_lossy(data))
        }
        Content::ImaTemplate { name, data } => format!("{name}, {} bytes", data.len()),
        Content::Systemd { event_type, text } => format!("{event_type} {text}"),
        Content::Other { data, .. } => String::from_utf8_lossy(data).into_owned(),
    };
    RecordView {
        recnum: record.recnum,
        index: match record.index {
            Index::Pcr(pcr) => format!("pcr {pcr}"),
            Index::Nv(index) => format!("nv {index:#010x}"),
        },
        content: kind(&record.content),
        digests: record.digests.iter().map(|digest| (digest.alg().name(), digest.to_string())).collect(),
        authenticated: if whole { "whole" } else { "elsewhere" },
        detail: one_line(&detail),
    }
}
