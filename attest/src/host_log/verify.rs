//! The host log against the quoted PCR, the boot and the PCR's number.

use super::record::{Event, HostLog, Record, replay_digests};
use crate::digest::Digest;
use crate::finding::{Finding, Findings};

/// What a host log must fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLogContext<'a> {
    /// The PCR that the policy gives the host log.
    pub pcr: u8,
    /// That PCR's value after the boot log's events (zero where it has none).
    pub start: Digest,
    /// That PCR's quoted value.
    pub quoted: Digest,
    /// The boot id that the round's other evidence names.
    pub boot_id: &'a str,
}

/// A host log that reproduces the quoted PCR. Only [`HostLog::verify`] makes one.
#[derive(Debug)]
pub struct VerifiedHostLog {
    events: Vec<Event>,
    findings: Findings,
}

impl VerifiedHostLog {
    /// The events in the order in which they were extended.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The digest of the engine manifest that was measured last.
    #[must_use]
    pub fn last_manifest(&self) -> Option<[u8; 32]> {
        self.events.iter().rev().find_map(|event| match event {
            Event::Manifest { sha256 } => Some(*sha256),
            _ => None,
        })
    }

    /// What was noticed and does not refuse: events of unknown kinds.
    #[must_use]
    pub const fn findings(&self) -> &Findings {
        &self.findings
    }
}

const REBOOT: &str =
    "the log and the PCR part for good: reboot the host; if it happens again, find out what extends this PCR";

impl HostLog {
    /// Verifies the log against the quoted PCR.
    ///
    /// # Errors
    /// Findings, at least one of them an error: `host-log.empty` (no record, but the PCR moved), `host-log.pcr`, `host-log.digest` (a listed digest is not
    /// its event's), `host-log.replay` (an entry without an extend, an extend without an entry, an edited entry), `host-log.first-record` (it is not the boot
    /// event), `host-log.boot-id` (of another boot).
    pub fn verify(&self, context: &HostLogContext<'_>) -> Result<VerifiedHostLog, Findings> {
        let mut findings = Findings::new();
        let events: Vec<Event> = self.records.iter().map(Record::event).collect();
        if self.records.is_empty() {
            findings.check("host-log.empty", context.quoted != context.start, || {
                Finding::error("", format!("PCR {} was extended, but the host log is empty", context.pcr))
                    .expected(context.start)
                    .found(context.quoted)
                    .fix(REBOOT)
            });
        } else {
            self.check_replay(context, &mut findings);
            check_boot(&events, context, &mut findings);
        }
        let unknown = events.iter().filter(|event| matches!(event, Event::Unknown { .. })).count();
        findings.check("host-log.unknown-event", unknown > 0, || {
            let kind = events.iter().find_map(|event| match event {
                Event::Unknown { kind } => Some(kind.as_str()),
                _ => None,
            });
            Finding::warning("", format!("the host log has {unknown} events that this verifier does not know"))
                .found(kind.unwrap_or_default())
                .fix("update the verifier before the hosts")
        });
        if findings.acceptable() { Ok(VerifiedHostLog { events, findings }) } else { Err(findings) }
    }

    fn check_replay(&self, context: &HostLogContext<'_>, findings: &mut Findings) {
        findings.check("host-log.pcr", self.pcr != Some(context.pcr), || {
            Finding::error("", "the host log names another PCR than the policy")
                .expected(context.pcr)
                .found(self.pcr.unwrap_or_default())
                .fix("give hostd and the appraisal policy the same PCR")
        });
        let digests: Vec<[u8; 32]> = self.records.iter().map(Record::digest).collect();
        let forged = self.records.iter().zip(&digests).position(|(record, digest)| *digest != record.listed);
        findings.check("host-log.digest", forged.is_some(), || {
            let record = forged.and_then(|index| self.records.get(index));
            Finding::error("", format!("the digest of record {} is not that of its event", forged.unwrap_or_default()))
                .expected(record.map(|record| hex::encode(record.digest())).unwrap_or_default())
                .found(record.map(|record| hex::encode(record.listed)).unwrap_or_default())
                .fix(REBOOT)
        });
        let replayed = replay_digests(&digests, context.start);
        findings.check("host-log.replay", replayed != context.quoted, || {
            let text = "the host log does not give the quoted PCR {}: something else than hostd extended it, or the log was changed";
            Finding::error("", text.replace("{}", &context.pcr.to_string()))
                .expected(context.quoted)
                .found(replayed)
                .fix(REBOOT)
        });
    }
}

fn check_boot(events: &[Event], context: &HostLogContext<'_>, findings: &mut Findings) {
    let first = events.first();
    findings.check("host-log.first-record", !matches!(first, Some(Event::Boot { .. })), || {
        Finding::error("", "the first record of the host log does not bind a boot")
            .expected("boot")
            .found(match first {
                Some(Event::Manifest { .. }) => "manifest",
                Some(Event::ContentUnknown { .. }) => "content-unknown",
                Some(Event::Unknown { kind }) => kind,
                _ => "",
            })
            .fix(REBOOT)
    });
    let other = events.iter().find_map(|event| match event {
        Event::Boot { boot_id, .. } if boot_id != context.boot_id => Some(boot_id.as_str()),
        _ => None,
    });
    findings.check("host-log.boot-id", other.is_some(), || {
        Finding::error("", "the host log is of another boot")
            .expected(context.boot_id)
            .found(other.unwrap_or_default())
            .fix("hostd must start a new log with each boot: remove the old one and reboot the host")
    });
}
