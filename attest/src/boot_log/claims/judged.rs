//! A log's events with what one bank's digests say of their data: each event's data is hashed once for all claims.

use super::super::{Authenticity, BootLog, Event};
use crate::digest::{Digest, HashAlg};
use crate::finding::{Finding, Findings};

/// One event, judged.
#[derive(Debug, Clone, Copy)]
pub(in crate::boot_log) struct JudgedEvent<'a> {
    pub(in crate::boot_log) event: Event<'a>,
    /// The PCR that it extends.
    pub(in crate::boot_log) pcr: Option<u8>,
    /// Its digest in the bank.
    pub(in crate::boot_log) digest: Option<Digest>,
    pub(in crate::boot_log) data: Authenticity,
}

/// Every event, judged by one bank.
#[derive(Debug, Clone)]
pub(in crate::boot_log) struct Judged<'a> {
    pub(in crate::boot_log) bank: HashAlg,
    pub(in crate::boot_log) events: Vec<JudgedEvent<'a>>,
}

impl<'a> Judged<'a> {
    pub(in crate::boot_log) fn in_pcr(&self, pcr: u8) -> impl Iterator<Item = &JudgedEvent<'a>> {
        self.events.iter().filter(move |one| one.pcr == Some(pcr))
    }

    /// Whether the data hashes to the digest, whatever the type says: a type may claim that something else was hashed.
    pub(in crate::boot_log) fn is_whole(&self, one: &JudgedEvent<'a>) -> bool {
        match one.data {
            Authenticity::Whole => true,
            Authenticity::Elsewhere => one.digest.is_some() && self.bank.hash(&[one.event.data()]) == one.digest,
            _ => false,
        }
    }
}

impl BootLog {
    pub(in crate::boot_log) fn judged(&self, bank: HashAlg) -> Judged<'_> {
        let mut content_only = false;
        let events = self.events().map(|event| {
            let digest = event.digest(bank);
            let data = event.authenticity_of(bank, digest, content_only);
            content_only |= data == Authenticity::VariableContent;
            JudgedEvent { event, pcr: event.extends(), digest, data }
        });
        Judged { bank, events: events.collect() }
    }

    /// Events whose data should hash to their digest and does not: they yield no claim.
    #[must_use]
    pub fn unauthenticated(&self, bank: HashAlg) -> Findings {
        self.judged(bank).unauthenticated()
    }
}

impl Judged<'_> {
    pub(super) fn unauthenticated(&self) -> Findings {
        let mut findings = Findings::new();
        let (mut differs, mut content) = (0usize, 0usize);
        let mut first = None;
        for one in &self.events {
            match one.data {
                Authenticity::Differs => {
                    differs = differs.saturating_add(1);
                    first = first.or(Some((one.event.index, one.event.event_type(), one.event.pcr())));
                }
                Authenticity::VariableContent => content = content.saturating_add(1),
                _ => {}
            }
        }
        if let Some((index, kind, pcr)) = first {
            findings.check("boot.event-data-unauthenticated", differs > 0, || {
                Finding::info("", "event data does not hash to the logged digest; it is used for no claim")
                    .expected("data that hashes to its digest")
                    .found(format!("{differs} events, first event {index} ({kind}, PCR {pcr})"))
            });
        }
        if content > 0 {
            findings.push(
                Finding::info(
                    "boot.variable-content-only",
                    "firmware measures the content of boot variables without their names",
                )
                .found(format!("{content} events")),
            );
        }
        findings
    }
}
