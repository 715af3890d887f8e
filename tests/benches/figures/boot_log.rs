//! Boot logs against hashing their bytes.

use std::path::PathBuf;

use hostmark_attest::boot_log::{BootLog, BootQuirks, EventType};
use hostmark_attest::digest::{Digest, sha256};
use hostmark_attest::policy::capture::{Capture, capture};
use hostmark_attest::policy::{AppraisalPolicy, References};
use hostmark_tests::lab::{POLICY_NAME, shipped};
use hostmark_tests::recording::Recording;
use time::OffsetDateTime;

use crate::measure::{Table, turns};
use crate::pure::BANK;

/// A physical machine's boot log, where the third-party evidence is at hand.
const REAL_LOG: &str = "eventlog/keylime__binary_bios_measurements-secureboot.bin";
/// Events of the longer log: what a physical machine's firmware writes.
const LONG: usize = 100;

/// A recorded boot whose firmware had more to measure: its own firmware volumes and boot variables (PCR 0 and 1), again and again
/// before their separators.
fn longer(recorded: &[u8]) -> Vec<u8> {
    let log = BootLog::parse(recorded).unwrap();
    let starts: Vec<usize> = log.events().map(|event| event.at()).chain([recorded.len()]).collect();
    let piece = |index: usize| &recorded[starts[index]..starts[index + 1]];
    let separates = |pcr: u32, kind: EventType| pcr <= 1 && kind == EventType::EV_SEPARATOR;
    let first = log.events().find(|event| separates(event.pcr(), event.event_type())).unwrap().index;
    let measured = log.events().skip(1).filter(|event| event.pcr() <= 1 && event.index < first);
    let measured: Vec<&[u8]> = measured.map(|event| piece(event.index)).collect();
    let mut made: Vec<&[u8]> = (0..first).map(piece).collect();
    made.extend(measured.iter().cycle().take(LONG - log.len()));
    made.extend((first..log.len()).map(piece));
    made.concat()
}

/// Boot logs against hashing each event's data once. A replay alone hashes digests only; the claims hash the data.
pub fn figures(table: &mut Table) {
    let recorded = Recording::named("secureboot").unwrap().boot_log().unwrap();
    let mut logs = vec![("recorded in QEMU, lengthened", longer(&recorded)), ("recorded in QEMU", recorded)];
    match std::env::var_os("HOSTMARK_EVIDENCE") {
        Some(evidence) => {
            logs.push(("of a physical machine", std::fs::read(PathBuf::from(evidence).join(REAL_LOG)).unwrap()))
        }
        None => eprintln!("skipped: the boot log of a physical machine (HOSTMARK_EVIDENCE is not set)"),
    }
    for (name, bytes) in logs {
        let parsed = BootLog::parse(&bytes).unwrap();
        let data: Vec<Vec<u8>> = parsed.events().map(|event| event.data().to_vec()).collect();
        let what =
            format!("boot log {name}, {} events, {} bytes: parse and replay, no data hashed", data.len(), bytes.len());
        let hashed = || data.iter().map(|one| sha256(&[one])[0]).fold(0, |sum, one| sum ^ one);
        let (figure, floor) = turns(|| BootLog::parse(&bytes).unwrap().replay_bank(BANK), hashed);
        table.times(&what, figure, "SHA-256 of each event's data", floor);
        let whole = || {
            let log = BootLog::parse(&bytes).unwrap();
            (log.replay_bank(BANK), log.claims(BANK))
        };
        let (figure, floor) = turns(whole, hashed);
        table.times("the same with claims, data hashed", figure, "SHA-256 of each event's data", floor);
        let quoted = parsed.replay_bank(BANK);
        let policy = AppraisalPolicy::parse(POLICY_NAME, &shipped("appraisal", POLICY_NAME).unwrap()).unwrap();
        let captured = capture(&Capture { boot_log: &bytes, ..Capture::default() }, 1).unwrap();
        let references = References::parse("made", &captured).unwrap();
        let judged = || {
            let log = BootLog::parse(&bytes).unwrap();
            let (replayed, mut findings) =
                log.explain_quoted(BANK, &quoted, quoted.keys().copied(), BootQuirks::default());
            let (claims, noticed) = replayed.claims();
            findings.append(noticed);
            let window = references.open(OffsetDateTime::UNIX_EPOCH).next().unwrap();
            let named =
                |(pcr, value): (&u8, &Digest)| window.pcr(BANK, *pcr).is_none_or(|accepted| accepted.contains(value));
            let rules = policy.rules().iter().filter(|rule| rule.claim == "secure_boot");
            let held = rules.filter(|rule| rule.want.accepts(claims.secure_boot.name())).count();
            (quoted.iter().all(named), held, claims, findings)
        };
        assert!(judged().0);
        let (figure, floor) = turns(judged, || sha256(&[&bytes]));
        let what = format!("boot log {name}, {} events: parse, replay, claims, policy", data.len());
        table.goal(&what, figure, "SHA-256 of its bytes", floor, 3.0);
    }
}
