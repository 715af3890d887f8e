//! Logs of a host: boot logs, IMA lists, canonical event logs, the host log, the kernel's command line.
//!
//! Beside "it returns": a replay is computed a second time here, in a few lines; what is told of an event rests on a digest that
//! is recomputed here; and what no quoted value explains claims nothing.

use std::collections::{BTreeMap, BTreeSet};

use hostmark_attest::boot_log::{self, Authenticity, BootLog, BootQuirks, EventType, SecureBoot};
use hostmark_attest::ccel::CcEventLog;
use hostmark_attest::cel::userspace::UserspaceLog;
use hostmark_attest::cel::{self, CelLog, Content, Encoding, Index};
use hostmark_attest::digest::{Digest, HashAlg, PcrValues};
use hostmark_attest::host_log::{Event, HostLog, HostLogContext, Record};
use hostmark_attest::ima::parse::{ImaFormat, boundaries};
use hostmark_attest::ima::replay::replay_all;
use hostmark_attest::ima::signature::FileSignature;
use hostmark_attest::ima::{self, Entry, FileMeasurement, ImaLog, ImaPosition, ImaQuirks, replay_prefix};
use hostmark_attest::kernel_parameters::{Lockdown, Words, boots_with_tcb, parameters, reads_whole, resumes_from_disk};

use super::shown_on_one_line;
use crate::made;

const BANK: HashAlg = HashAlg::Sha256;

/// H(value ‖ digest), from `start`, over the digests in turn.
fn fold(start: Digest, digests: impl IntoIterator<Item = Digest>) -> Option<Digest> {
    digests.into_iter().try_fold(start, |value, digest| value.alg().hash(&[value.as_bytes(), digest.as_bytes()]))
}

/// A zero digest whose last byte is this.
fn locality(bank: HashAlg, number: u8) -> Option<Digest> {
    let mut bytes = vec![0; bank.size()];
    *bytes.last_mut()? = number;
    Digest::new(bank, &bytes)
}

pub(super) fn boot_log(bytes: &[u8]) {
    let (log, shown) = (BootLog::parse(bytes), boot_log::list_events(bytes));
    assert_eq!(log.is_ok(), shown.is_ok(), "what can be framed can be shown");
    let (Ok(log), Ok(shown)) = (log, shown) else { return };
    shown_on_one_line(&shown);
    assert_eq!(shown.events, log.len());
    for bank in log.banks().filter(|bank| bank.computable()).collect::<BTreeSet<_>>() {
        let values = replayed(&log, bank);
        boot_claims(&log, bank);
        described(&log, bank);
        let (_, findings) = log.explain_quoted(bank, &values, values.keys().copied(), BootQuirks::default());
        assert!(!findings.has("boot.replay"), "a log explains what it replays to");
        unexplained(&log, bank);
        for event in log.events() {
            let _ = event.authenticity(bank);
        }
    }
}

/// The replay, and the same by hand.
fn replayed(log: &BootLog, bank: HashAlg) -> PcrValues {
    let values = log.replay_bank(bank);
    let mut digests = BTreeMap::<u8, Vec<Digest>>::new();
    for event in log.events() {
        if let Some((pcr, digest)) = event.extends().zip(event.digest(bank)) {
            digests.entry(pcr).or_default().push(digest);
        }
    }
    assert!(values.keys().eq(digests.keys()), "exactly the PCRs with events have values");
    for (pcr, list) in digests {
        let starts = match pcr {
            0 => [log.startup_locality().unwrap_or(0), 4].to_vec(),
            _ => vec![0],
        };
        let by_hand = starts.into_iter().filter_map(|start| fold(locality(bank, start)?, list.iter().copied()));
        assert!(by_hand.into_iter().any(|value| values.get(&pcr) == Some(&value)), "PCR {pcr}");
    }
    values
}

/// Whether data of this PCR hashes to its digest.
fn rests_on(log: &BootLog, bank: HashAlg, pcr: u8, wanted: impl Fn(&[u8]) -> bool) -> bool {
    log.events().filter(|event| event.extends() == Some(pcr)).any(|event| {
        let whole = !matches!(event.authenticity(bank), Authenticity::Differs | Authenticity::Elsewhere);
        whole && wanted(event.data())
    })
}

/// Claims come only from recomputed digests.
fn boot_claims(log: &BootLog, bank: HashAlg) {
    let (claims, _) = log.claims(bank);
    for program in claims.boot_applications.iter().flatten() {
        let event = log.events().nth(program.event);
        let digest = event.filter(|event| event.extends() == Some(4)).and_then(|event| event.digest(bank));
        assert_eq!(digest.map(|digest| digest.to_string()).as_ref(), Some(&program.digest), "a program of PCR 4");
    }
    if claims.secure_boot != SecureBoot::Unknown {
        let name: Vec<u8> = "SecureBoot".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let holds = |data: &[u8]| {
            data.windows(name.len()).any(|part| part == name)
                && bank.hash(&[data]).is_some_and(|hash| {
                    log.events().any(|event| event.extends() == Some(7) && event.digest(bank) == Some(hash))
                })
        };
        assert!(rests_on(log, bank, 7, holds), "Secure Boot rests on its variable");
    }
    if let Some(line) = &claims.command_line {
        assert!(rests_on(log, bank, line.pcr, |_| true), "a command line rests on data of its PCR");
    }
    if let Some(version) = &claims.crtm_version {
        assert!(rests_on(log, bank, 0, |data| hex(data).starts_with(version.as_str())), "the CRTM's version");
    }
    for section in &claims.image {
        let there = log.events().any(|event| event.digest(bank).is_some_and(|d| d.to_string() == section.digest));
        assert!(there, "a section's digest was extended");
    }
}

/// What people are shown as text or variable hashes to the event's digest.
fn described(log: &BootLog, bank: HashAlg) {
    let description = log.describe(bank);
    let of = |index: usize, pcr: u8| {
        let event = log.events().nth(index);
        assert!(event.is_some_and(|event| event.extends() == Some(pcr)), "an event of the PCR that is named");
        event.map(|event| event.authenticity(bank))
    };
    for text in &description.texts {
        let authenticity = of(text.event, text.pcr);
        assert!(matches!(authenticity, Some(Authenticity::Whole | Authenticity::TextAfterLabel)), "{text:?}");
    }
    for variable in &description.variables {
        let authenticity = of(variable.event, variable.pcr);
        let expect = if variable.named { Authenticity::Whole } else { Authenticity::VariableContent };
        assert_eq!(authenticity, Some(expect), "{variable:?}");
    }
    for loaded in &description.loaded {
        of(loaded.event, loaded.pcr);
    }
}

/// No quoted value, no claim.
fn unexplained(log: &BootLog, bank: HashAlg) {
    let (nothing, findings) = log.explain_quoted(bank, &PcrValues::new(), 0..24, BootQuirks::default());
    assert!(findings.has("boot.replay") && nothing.explained().is_empty());
    let (claims, _) = nothing.claims();
    assert_eq!(claims.secure_boot, SecureBoot::Unknown);
    assert!(claims.command_line.is_none() && claims.boot_applications.is_none() && claims.crtm_version.is_none());
    assert!(claims.separators.is_empty() && claims.image.is_empty() && nothing.key_databases().is_empty());
    let shown = nothing.describe();
    assert!(shown.variables.is_empty() && shown.loaded.is_empty() && shown.texts.is_empty());
}

pub(super) fn ccel(bytes: &[u8]) {
    let Ok(log) = CcEventLog::parse(bytes) else { return };
    let _ = log.findings();
    for bank in log.banks().filter(|bank| bank.computable()).collect::<BTreeSet<_>>() {
        let mut digests = BTreeMap::<u8, Vec<Digest>>::new();
        for event in log.events().filter(|event| event.event_type() != EventType::EV_NO_ACTION) {
            if let Some((register, digest)) = event.extends().zip(event.digest(bank)) {
                digests.entry(register).or_default().push(digest);
            }
        }
        let by_hand: BTreeMap<u8, Digest> =
            digests.into_iter().filter_map(|(one, list)| Some((one, fold(Digest::zero(bank), list)?))).collect();
        assert_eq!(log.replay(bank), by_hand, "registers start at zero");
    }
}

pub(super) fn ima_binary(bytes: &[u8]) {
    assert_eq!(ima::inspect(bytes).is_ok(), ima::list_entries(bytes).is_ok());
    let (log, starts) = (ImaLog::parse_as(bytes, ImaFormat::Binary), boundaries(bytes));
    let Ok(log) = log else { return };
    let begins: Vec<usize> = log.entries().map(|entry| entry.at()).collect();
    assert_eq!(begins.len() as u64, log.len());
    let Ok(mut starts) = starts else { panic!("a list that can be read has boundaries") };
    assert_eq!(starts.pop(), Some(bytes.len() - log.stray_bytes()));
    assert_eq!(starts, begins);
    ima_list(&log);
    as_ascii(&log);
}

pub(super) fn ima_ascii(bytes: &[u8]) {
    assert_eq!(ima::inspect(bytes).is_ok(), ima::list_entries(bytes).is_ok());
    let Ok(log) = ImaLog::parse_as(bytes, ImaFormat::Ascii) else { return };
    // Each line by itself says what it says among the others.
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let mut entries = log.entries();
    for line in lines {
        let Ok(alone) = ImaLog::parse_as(line, ImaFormat::Ascii) else { panic!("a line of a list is a list") };
        let (Some(one), Some(among), true) = (alone.entries().next(), entries.next(), alone.len() == 1) else {
            panic!("one line, one entry");
        };
        assert_eq!(measured(&one), measured(&among));
        assert_eq!(one.listed_digest(), among.listed_digest());
    }
    assert!(entries.next().is_none());
    ima_list(&log);
}

type Measured = (u32, String, Option<Digest>, Option<(String, Vec<u8>, Vec<u8>)>);

fn measured(entry: &Entry<'_>) -> Measured {
    let file = entry.measurement().map(|file| (file.alg.to_owned(), file.digest.to_vec(), file.path.to_vec()));
    (entry.pcr(), entry.template().into_owned(), entry.template_digest(BANK), file)
}

fn ima_list(log: &ImaLog<'_>) {
    let mut value = Digest::zero(BANK);
    for entry in log.entries() {
        let _ = (entry.shape(), entry.name_fits(), entry.unauthenticated_path());
        if let Some(file) = entry.measurement() {
            assert!(!entry.is_violation(), "a violation measures nothing");
            let _ = (file.file_digest(), file.path_lossy().len(), file.signature.and_then(FileSignature::parse));
            if let (Some(buffer), Some(digest)) = (file.buffer, file.file_digest()) {
                assert_eq!(digest.alg().hash(&[buffer]), Some(digest), "a buffer hashes to the entry's digest");
            }
        }
        if entry.pcr() == 10 {
            let extended = if entry.is_violation() { Some(Digest::ones(BANK)) } else { entry.template_digest(BANK) };
            value = extended.and_then(|digest| fold(value, [digest])).unwrap_or(value);
        }
    }
    let values = replay_all(log, &[BANK]);
    assert_eq!(values.get(&BANK), Some(&value), "PCR 10 by hand");
    // The list verifies against its own value, and a prefix never has more than was asked.
    match replay_prefix(log, &ImaPosition::default(), &values, ImaQuirks::default()) {
        Ok(prefix) => assert!(prefix.verified() + prefix.tail() == log.len() && prefix.end().pcr10 == values),
        Err(mismatch) => panic!("{mismatch}"),
    }
    let other = BTreeMap::from([(BANK, Digest::ones(BANK))]);
    assert!(replay_prefix(log, &ImaPosition::default(), &other, ImaQuirks::default()).is_err());
    let _ = ima::check_boot_aggregate(log.entries().next().as_ref(), &BTreeMap::new());
}

/// Binary and ascii agree: an entry that the kernel would show in one line is read from it as from its bytes.
fn as_ascii(log: &ImaLog<'_>) {
    for entry in log.entries() {
        let Some(file) = entry.measurement() else { continue };
        let template = entry.template();
        let plain = file.path.iter().all(|byte| byte.is_ascii_graphic());
        let known = match template.as_ref() {
            "ima-ng" | "d-ng|n-ng" => file.signature.is_none() && file.buffer.is_none(),
            "ima-sig" | "d-ng|n-ng|sig" | "ima-buf" | "d-ng|n-ng|buf" => true,
            _ => false,
        };
        if !plain || !known || !entry.name_fits() || file.path.len() > ima::parse::PATH_MAX {
            continue;
        }
        let line = ascii(&entry, &file, &template);
        let Ok(read) = ImaLog::parse_as(line.as_bytes(), ImaFormat::Ascii) else { panic!("not read: {line}") };
        assert_eq!(read.entries().next().map(|entry| measured(&entry)), Some(measured(&entry)), "{line}");
    }
}

/// The line of an entry, as `ima_ascii_measurements_show` writes it.
fn ascii(entry: &Entry<'_>, file: &FileMeasurement<'_>, template: &str) -> String {
    let third = match template {
        "ima-ng" | "d-ng|n-ng" => String::new(),
        _ => format!(" {}", hex(file.signature.or(file.buffer).unwrap_or_default())),
    };
    let (listed, path) = (hex(entry.listed_digest()), String::from_utf8_lossy(file.path));
    format!("{:2} {listed} {template} {}:{} {path}{third}\n", entry.pcr(), file.alg, hex(file.digest))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn cel_json(bytes: &[u8]) {
    cel(bytes, Encoding::Json);
    let Ok(log) = UserspaceLog::parse(bytes) else { return };
    let Ok(frame) = CelLog::parse(bytes) else { panic!("systemd's log is a canonical event log") };
    let quoted = frame.replay(BANK, &PcrValues::new());
    let (replayed, _) = log.explain_quoted(BANK, &PcrValues::new(), &quoted, &[]);
    assert!(replayed.explained().iter().all(|pcr| quoted.contains_key(pcr)));
    assert!(replayed.events().all(|event| replayed.explained().contains(&event.pcr)));
    let (others, _) = log.explain_quoted(BANK, &PcrValues::new(), &quoted, &(0..24).collect::<Vec<_>>());
    assert!(others.explained().is_empty(), "two logs for one PCR explain nothing");
}

pub(super) fn cel_cbor(bytes: &[u8]) {
    cel(bytes, Encoding::Cbor);
}

pub(super) fn cel_tlv(bytes: &[u8]) {
    cel(bytes, Encoding::Tlv);
}

/// One encoding: the replay by hand, what is shown, and the same records after they were written as TLV.
fn cel(bytes: &[u8], encoding: Encoding) {
    let shown = cel::inspect(bytes, true);
    let Ok(log) = CelLog::parse(bytes) else { return assert!(shown.is_err()) };
    if log.encoding() != encoding {
        return;
    }
    if let Ok(shown) = &shown {
        shown_on_one_line(shown);
    }
    let mut digests = BTreeMap::<u8, Option<Vec<Digest>>>::new();
    for record in log.records() {
        let (Index::Pcr(pcr), false) =
            (record.index, matches!(record.content, Content::PcClient { event_type: 3, .. }))
        else {
            continue;
        };
        let list = digests.entry(pcr as u8).or_insert_with(|| Some(Vec::new()));
        *list = list.take().zip(record.digest(BANK)).map(|(mut list, digest)| {
            list.push(*digest);
            list
        });
    }
    let by_hand: PcrValues =
        digests.into_iter().filter_map(|(pcr, list)| Some((pcr, fold(Digest::zero(BANK), list?)?))).collect();
    assert_eq!(log.replay(BANK, &PcrValues::new()), by_hand);
    let tlv: Vec<u8> = log.records().iter().filter_map(made::record_as_tlv).flatten().collect();
    let Ok(again) = CelLog::parse(&tlv) else { panic!("written as TLV, it is not read") };
    let mut expect: Vec<_> =
        log.records().iter().filter(|record| made::record_as_tlv(record).is_some()).cloned().collect();
    for (one, read) in expect.iter_mut().zip(again.records()) {
        one.at = read.at;
    }
    assert_eq!(again.records(), expect);
}

pub(super) fn host_log(bytes: &[u8]) {
    let event = Event::parse(bytes);
    if !matches!(event, Event::Unknown { .. }) {
        assert_eq!(Event::parse(&event.to_bytes()), event);
    }
    let Ok(log) = HostLog::parse(bytes) else { return };
    let start = Digest::zero(BANK);
    let digests = log.records().iter().filter_map(|record| Digest::new(BANK, &record.digest()));
    let quoted = log.replay(start);
    assert_eq!(fold(start, digests), Some(quoted));
    let context = |quoted| HostLogContext { pcr: log.pcr().unwrap_or(13), start, quoted, boot_id: made::BOOT_ID };
    if let Ok(verified) = log.verify(&context(quoted)) {
        let events: Vec<Event> = log.records().iter().map(Record::event).collect();
        assert_eq!(verified.events(), events);
        assert!(
            events.is_empty()
                || matches!(events.first(), Some(Event::Boot { boot_id, .. }) if boot_id == made::BOOT_ID)
        );
    }
    assert!(log.verify(&context(Digest::ones(BANK))).is_err(), "another value is never explained");
}

pub(super) fn kernel_parameters(bytes: &[u8]) {
    let line = String::from_utf8_lossy(bytes);
    let _ = (Lockdown::of(&line), resumes_from_disk(&line), boots_with_tcb(&line), reads_whole(&line));
    assert!(parameters(&line).count() <= line.len() + 1);
    let words = Words { has: line.split_whitespace().map(str::to_owned).collect(), lacks: Vec::new() };
    if words.is_sound() {
        let _ = words.accept(&line);
    }
}
