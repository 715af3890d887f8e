//! `hostmark audit`: verifies the chain of changes here, record by record, and exports it.
//!
//! The verifier's word is not taken: every hash is computed again and held against the signed head. A head or keys that were
//! kept elsewhere show more than those that the verifier itself gives: use `--head` and `--keys`.

use std::path::PathBuf;

use clap::Subcommand;
use hostmark_attest::finding::{Finding, Findings};
use hostmark_attest::tools::Outcome as Verdict;
use serde::Serialize;
use time::OffsetDateTime;

use super::answer::Answer;
use super::client::Client;
use super::connect::Connection;
use super::failure::Failure;
use super::show::{Mood, Style, facts};
use super::{Outcome, input, jwks, when};
use crate::api::types::AuditHead;
use crate::audit::{Record, Walk, verify_head};

/// `hostmark audit …`
#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// Verify the whole chain against its signed head. Exit 1 at the first bad record.
    Verify {
        /// A signed head that was kept elsewhere: the chain must still contain it.
        #[arg(long, value_name = "FILE")]
        head: Option<PathBuf>,
        /// The verifier's public keys, kept elsewhere. Without it, the verifier is asked.
        #[arg(long, value_name = "JWKS")]
        keys: Option<PathBuf>,
    },
    /// Print the records since a time, one JSON object a line.
    Export {
        /// RFC 3339, or seconds since 1970.
        #[arg(long, value_name = "TIME", value_parser = when::parse)]
        since: Option<OffsetDateTime>,
    },
}

/// Records in one answer.
const PAGE: usize = 1000;

impl Audit {
    pub(super) fn run(self, connection: &Connection, style: Style) -> Outcome {
        let client = Client::new(connection)?;
        match self {
            Self::Verify { head, keys } => verify(&client, head.as_deref(), keys.as_deref(), style),
            Self::Export { since } => {
                let since = since.map_or(i64::MIN, when::millis);
                let mut records = Vec::new();
                pages(&client, |record| {
                    if record.unix_ms >= since {
                        records.push(record);
                    }
                    Ok(())
                })?;
                let lines = records.iter().filter_map(|record| serde_json::to_string(record).ok());
                let text: String = lines.map(|line| line + "\n").collect();
                Ok(Answer::new(&records, text)?.product())
            }
        }
    }
}

fn pages(
    client: &Client,
    mut take: impl FnMut(Record) -> Result<(), Box<Finding>>,
) -> Result<Option<Finding>, Failure> {
    let mut since = 1u64;
    loop {
        let query = [("since", since.to_string()), ("limit", PAGE.to_string())];
        let page: Vec<Record> = client.query(&["v1", "audit"], &query)?;
        let full = page.len() == PAGE;
        for record in page {
            since = record.seq.saturating_add(1);
            if let Err(finding) = take(record) {
                return Ok(Some(*finding));
            }
        }
        if !full {
            return Ok(None);
        }
    }
}

#[derive(Debug, Serialize)]
struct View {
    verdict: Verdict,
    records: u64,
    /// Hash of the last good record, hex.
    hash: Option<String>,
    findings: Findings,
}

fn verify(client: &Client, head: Option<&std::path::Path>, keys: Option<&std::path::Path>, style: Style) -> Outcome {
    let trusted = match keys {
        Some(path) => jwks::read(path, "audit-heads")?,
        None => jwks::parse("the verifier's keys", &client.get(&["v1", "keys"])?, "audit-heads")?,
    };
    // The head first: the chain may grow while it is read, and must contain this head all the same.
    let heads = match head {
        Some(path) => vec![input::read_text(path, "a signed head", input::SMALL_MAX)?],
        None => client.get::<AuditHead>(&["v1", "audit", "head"])?.head.into_iter().collect(),
    };
    let mut findings = Findings::new();
    let mut signed = None;
    for token in heads {
        match verify_head(&token, &trusted) {
            Ok(head) => signed = Some(head),
            Err(more) => findings.append(more),
        }
    }
    if signed.is_none() && findings.acceptable() {
        findings
            .push(Finding::warning("audit.head-absent", "the verifier has no signed head: a cut tail would not show"));
    }
    let mut walk = Walk::new(signed);
    let (mut records, mut last) = (0u64, None);
    let bad = pages(client, |record| {
        walk.step(&record)?;
        records = record.seq;
        last = Some(record.hash);
        Ok(())
    })?;
    match bad {
        Some(finding) => findings.push(finding),
        None => {
            if let Err(finding) = walk.finish() {
                findings.push(*finding);
            }
        }
    }
    let good = findings.acceptable();
    let word = if good { style.paint(Mood::Good, "verified") } else { style.paint(Mood::Bad, "refused") };
    let mut text = format!("verdict  {word}\n");
    text += &facts([("records", records.to_string()), ("hash", last.clone().unwrap_or_else(|| "none".to_owned()))]);
    text += &style.findings(findings.as_slice());
    let verdict = if good { Verdict::Verified } else { Verdict::Refused };
    Ok(Answer::new(&View { verdict, records, hash: last, findings }, text)?.refused_if(!good))
}
