//! No cut and no flipped byte of a valid log ever yields a fuller claim (ATTACKS.md B1, B3, B5, B7, B11).
//!
//! "Fuller" is exact here. A log is held against the PCR values that the honest log was quoted with, and yields a set of facts: the
//! PCRs that it explains, the digests that it affirms there, the entries that it verifies, and the claims that rest on them. The facts
//! of a cut or flipped log are a subset of the honest log's. What no digest covers (an event's type, a template's name where it decides
//! nothing, a record's number) is no fact, and may change freely.
//!
//! Every byte position is tried where a log is short; of long ones some positions, others in each run.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a test fails by panicking, and reads its recordings"
)]

mod common;
#[path = "common/forge.rs"]
mod forge;
#[path = "common/template.rs"]
mod template;

use std::collections::{BTreeMap, BTreeSet};

use common::bench::{Host, judge, policy};
use forge::{quoted, recorded};
use hostmark_attest::appraisal::{Appraisal, Endorsed, Judge, appraise};
use hostmark_attest::boot_log::{Authenticity, BootLog, BootQuirks, SecureBoot};
use hostmark_attest::ccel::CcEventLog;
use hostmark_attest::cel::userspace::UserspaceLog;
use hostmark_attest::cel::{CelAuthenticity, CelLog, Content, Index};
use hostmark_attest::digest::{Digest, HashAlg, PcrValues, sha256};
use hostmark_attest::evidence::Evidence;
use hostmark_attest::finding::Findings;
use hostmark_attest::genuine::{GenuineEvidence, Last, RoundExpectation};
use hostmark_attest::host_log::{Event, HostLog, HostLogContext, Record};
use hostmark_attest::identity::ak::verify_ak;
use hostmark_attest::identity::class::TpmClass;
use hostmark_attest::ima::parse::ImaFormat;
use hostmark_attest::ima::replay::replay_all;
use hostmark_attest::ima::{ImaLog, ImaPosition, ImaQuirks, replay_prefix};
use hostmark_attest::jws::KeySet;
use hostmark_attest::manifest::EngineManifest;
use hostmark_attest::replay::{ParsedLogs, ReplayedLogs};
use hostmark_attest::tier::{Submodule, Tier};
use hostmark_attest::wire::Nonce;
use proptest::prelude::*;
use time::macros::datetime;

const BANK: HashAlg = HashAlg::Sha256;

/// What a log is believed. A line for each fact.
type Facts = BTreeSet<String>;

/// The bits that are flipped: the lowest, case in ascii, the highest, all.
const MASKS: [u8; 4] = [0x01, 0x20, 0x80, 0xff];

/// Cuts the log before a byte, and flips that byte.
fn mutations(log: &[u8], at: usize) -> impl Iterator<Item = (String, Vec<u8>)> {
    let flipped = MASKS.map(|mask| {
        let mut bytes = log.to_vec();
        bytes[at] ^= mask;
        (format!("byte {at} ^ {mask:#04x}"), bytes)
    });
    std::iter::once((format!("cut at {at}"), log[..at].to_vec())).chain(flipped)
}

/// Nothing that is made of the log at this byte says more than the log does.
fn never_fuller(log: &[u8], honest: &Facts, at: usize, facts: &impl Fn(&[u8]) -> Facts) {
    for (what, bytes) in mutations(log, at) {
        only(&what, &facts(&bytes), honest);
    }
}

fn only(what: &str, told: &Facts, honest: &Facts) {
    let more: Vec<_> = told.difference(honest).collect();
    assert!(more.is_empty(), "{what} yields {more:#?}");
}

/// At each byte of a short log.
fn exhaust(log: &[u8], least: usize, facts: impl Fn(&[u8]) -> Facts) {
    let honest = facts(log);
    assert!(honest.len() >= least, "the honest log yields its facts: {honest:#?}");
    for at in 0..log.len() {
        never_fuller(log, &honest, at, &facts);
    }
}

// ---- boot log

fn boot_facts(bytes: &[u8], values: &PcrValues) -> Facts {
    let mut facts = Facts::new();
    let Ok(log) = BootLog::parse(bytes) else { return facts };
    let (replayed, _) = log.explain_quoted(BANK, values, 0..24, BootQuirks::default());
    for event in log.events() {
        if let (Some(pcr), Some(digest)) =
            (event.extends().filter(|pcr| replayed.explained().contains(pcr)), event.digest(BANK))
        {
            facts.insert(format!("PCR {pcr} holds {digest}"));
        }
    }
    facts.extend(replayed.explained().iter().map(|pcr| format!("PCR {pcr} is explained")));
    let (claims, _) = replayed.claims();
    if claims.secure_boot != SecureBoot::Unknown {
        facts.insert(format!("Secure Boot {:?}", claims.secure_boot));
    }
    facts.extend(claims.command_line.map(|line| format!("command line {line:?}")));
    facts.extend(claims.boot_applications.into_iter().flatten().map(|one| format!("program {}", one.digest)));
    facts.extend(claims.separators.iter().map(|pcr| format!("PCR {pcr} has a separator")));
    facts.extend(claims.crtm_version.map(|version| format!("CRTM {version}")));
    facts.extend(claims.image.iter().map(|section| format!("section {section:?}")));
    facts.extend(replayed.key_databases().iter().map(|(name, digest)| format!("{name} {digest:x?}")));
    let line = String::from_utf8_lossy(&recorded("systemd", "cmdline")).into_owned();
    facts.extend(replayed.confirm_command_line(&line).map(|line| format!("confirmed {line:?}")));
    let shown = replayed.describe();
    facts.extend(shown.loaded.iter().map(|one| format!("PCR {} holds {}", one.pcr, one.digest)));
    facts.extend(shown.texts.iter().map(|one| format!("PCR {} says {:?}, {}", one.pcr, one.text, one.by_firmware)));
    facts.extend(shown.variables.iter().map(|one| {
        // A name that is not hashed is the log's word.
        let name = if one.named { &one.name } else { "" };
        format!("PCR {} has the variable {name:?} {} {}", one.pcr, one.sha256, one.by_firmware)
    }));
    facts
}

/// Cut at every byte, and every byte flipped by one of the masks: a boot log is too long for all of them in each run.
#[test]
fn b1_b3_no_cut_or_flip_of_a_boot_log_is_fuller() {
    let (log, values) = (recorded("systemd", "boot-log.bin"), quoted("systemd"));
    let honest = boot_facts(&log, &values);
    assert!(honest.len() > 60, "{honest:#?}");
    for at in 0..log.len() {
        let mutations: Vec<_> = mutations(&log, at).collect();
        for (what, bytes) in [&mutations[0], &mutations[1 + at % MASKS.len()]] {
            only(what, &boot_facts(bytes, &values), &honest);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// With Secure Boot's databases, which are most of the log.
    #[test]
    fn b1_b3_no_cut_or_flip_of_a_log_of_secure_boot_is_fuller(at in any::<prop::sample::Index>(), kind in 0usize..5) {
        let (log, values) = (recorded("secureboot", "boot-log.bin"), quoted("secureboot"));
        let (what, bytes) = mutations(&log, at.index(log.len())).nth(kind).unwrap();
        only(&what, &boot_facts(&bytes, &values), &boot_facts(&log, &values));
    }
}

// ---- IMA lists

fn ima_facts(bytes: &[u8], format: ImaFormat, values: &BTreeMap<HashAlg, Digest>) -> Facts {
    let mut facts = Facts::new();
    let Ok(log) = ImaLog::parse_as(bytes, format) else { return facts };
    let Ok(prefix) = replay_prefix(&log, &ImaPosition::default(), values, ImaQuirks::default()) else { return facts };
    for (number, entry) in prefix.entries().enumerate() {
        let digest = entry.template_digest(BANK).unwrap();
        // Nothing in a violation is hashed but that it is one.
        facts.insert(if entry.is_violation() {
            format!("entry {number} is a violation")
        } else {
            format!("entry {number} is {digest}")
        });
        if let Some(file) = entry.measurement() {
            let (signature, buffer) = (file.signature.map(template::hex), file.buffer.map(template::hex));
            let (path, digest) = (template::hex(file.path), template::hex(file.digest));
            facts.insert(format!("entry {number} measured {path} {} {digest} {:?}", file.alg, file.of));
            facts.extend(signature.map(|one| format!("entry {number} signed {one}")));
            facts.extend(buffer.map(|one| format!("entry {number} holds {one}")));
        }
    }
    facts
}

/// PCR 10 of the whole list, as the kernel extended it.
fn pcr10(list: &[u8], format: ImaFormat) -> BTreeMap<HashAlg, Digest> {
    replay_all(&ImaLog::parse_as(list, format).unwrap(), &[BANK])
}

/// Binary and ascii of a list with an entry of every template, a violation among them.
fn templates() -> (Vec<u8>, Vec<u8>) {
    use template::{digest, entry, hex, line, name};
    let hash = sha256(&[b"content"]);
    let (plain, file, path) = (digest("sha256", &hash), digest("ima:sha256", &hash), name("/usr/bin/a b"));
    let verity = digest("verity:sha256", &hash);
    let sig = [3, 2, 4, 1, 2, 3, 4, 0, 3, 9, 9, 9];
    let buffer = b"0a buffer";
    let of_buffer = digest("sha256", &sha256(&[buffer]));
    let modsig = [0x30, 0x82, 1, 2];
    let (sha, shown) = (format!("sha256:{}", hex(&hash)), hex(&sig));
    let rows: [(&str, Vec<&[u8]>, String); 8] = [
        ("ima-ng", vec![&plain, &path], format!("{sha} /usr/bin/a b")),
        ("ima-ngv2", vec![&file, &path], format!("ima:{sha} /usr/bin/a b")),
        ("ima-sig", vec![&plain, &path, &sig], format!("{sha} /usr/bin/a b {shown}")),
        ("ima-sigv2", vec![&verity, &path, &sig], format!("verity:{sha} /usr/bin/a b {shown}")),
        (
            "ima-buf",
            vec![&of_buffer, &path, buffer],
            format!("sha256:{} /usr/bin/a b {}", hex(&sha256(&[buffer])), hex(buffer)),
        ),
        (
            "ima-modsig",
            vec![&plain, &path, &sig, &plain, &modsig],
            format!("{sha} /usr/bin/a b {shown} {sha} {}", hex(&modsig)),
        ),
        ("n-ng|d-ng", vec![&path, &plain], format!("/usr/bin/a b {sha}")),
        ("d-ngv2|n-ng|sig|iuid", vec![&file, &path, &sig, &[0; 4]], format!("ima:{sha} /usr/bin/a b {shown} 0")),
    ];
    let (mut binary, mut ascii) = (Vec::new(), Vec::new());
    for (template, fields, words) in &rows {
        let mut one = entry(template, fields);
        ascii.extend(line(&one, template, words));
        binary.extend_from_slice(&one);
        if *template == "ima-ng" {
            one[4..24].fill(0);
            ascii.extend(line(&one, template, words));
            binary.extend_from_slice(&one);
        }
    }
    (binary, ascii)
}

#[test]
fn b7_no_cut_or_flip_of_a_list_in_any_template_is_fuller() {
    let (binary, ascii) = templates();
    let values = pcr10(&binary, ImaFormat::Binary);
    assert_eq!(pcr10(&ascii, ImaFormat::Ascii), values);
    assert_eq!(ima_facts(&ascii, ImaFormat::Ascii, &values), ima_facts(&binary, ImaFormat::Binary, &values));
    exhaust(&binary, 22, |bytes| ima_facts(bytes, ImaFormat::Binary, &values));
    exhaust(&ascii, 22, |bytes| ima_facts(bytes, ImaFormat::Ascii, &values));
}

#[test]
fn b7_no_cut_or_flip_of_the_beginning_of_a_recorded_list_is_fuller() {
    let list = recorded("systemd", "ima.bin");
    let end = ImaLog::parse(&list).unwrap().entries().nth(12).unwrap().at();
    let values = pcr10(&list[..end], ImaFormat::Binary);
    exhaust(&list[..end], 24, |bytes| ima_facts(bytes, ImaFormat::Binary, &values));
    // The same entries before others, which are its tail: nothing of it becomes a fact.
    assert_eq!(ima_facts(&list, ImaFormat::Binary, &values), ima_facts(&list[..end], ImaFormat::Binary, &values));
    let lines = recorded("systemd", "ima.txt");
    let end = lines.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(11).unwrap().0 + 1;
    exhaust(&lines[..end], 24, |bytes| ima_facts(bytes, ImaFormat::Ascii, &values));
}

// ---- canonical event logs

/// A text measured by systemd, in every encoding; the digests of both banks.
fn cel() -> [(&'static str, Vec<u8>); 3] {
    let tlv = |kind: u8, value: &[u8]| [&[kind], (value.len() as u32).to_be_bytes().as_slice(), value].concat();
    let hash = |alg: HashAlg, data: &[u8]| alg.hash(&[data]).unwrap().as_bytes().to_vec();
    let records: [(u8, &[u8], u8); 4] =
        [(11, b"enter-initrd", 7), (11, b"leave-initrd", 7), (4, b"\0\0\0\0", 5), (15, b"machine-id:01", 5)];
    let (mut as_tlv, mut as_cbor, mut as_json) = (Vec::new(), vec![0x80 | records.len() as u8], Vec::new());
    for (number, (pcr, data, kind)) in records.iter().enumerate() {
        let (sha1, sha2) = (hash(HashAlg::Sha1, data), hash(BANK, data));
        let first: &[u8] = if *kind == 7 { b"ima-ng" } else { &[0, 0, 0, 5] };
        as_tlv.extend(tlv(0, &(number as u64).to_be_bytes()));
        as_tlv.extend(tlv(1, &[*pcr]));
        as_tlv.extend(tlv(3, &[tlv(4, &sha1), tlv(0x0b, &sha2)].concat()));
        as_tlv.extend(tlv(*kind, &[tlv(0, first), tlv(1, data)].concat()));
        let text = |bytes: &[u8]| [&[0x40 | bytes.len() as u8], bytes].concat();
        let named = if *kind == 7 { [&[0x66], first].concat() } else { vec![5] };
        as_cbor.extend([0xa4, 0, number as u8, 1, *pcr, 3, 0xa2, 4, 0x54]);
        as_cbor.extend(
            [sha1.as_slice(), &[0x0b, 0x58, 0x20], &sha2, &[*kind, 0xa2, 0], &named, &[1], &text(data)].concat(),
        );
        let hex = template::hex;
        let (name, content) = if *kind == 7 {
            ("ima_template", format!("{{\"template_name\":\"ima-ng\",\"template_data\":\"{}\"}}", hex(data)))
        } else {
            ("pcclient_std", format!("{{\"event_type\":5,\"event_data\":\"{}\"}}", hex(data)))
        };
        as_json.extend(format!(
            "{{\"recnum\":{number},\"pcr\":{pcr},\"digests\":[{{\"hashAlg\":\"sha1\",\"digest\":\"{}\"}},{{\"hashAlg\":\"sha256\",\"digest\":\"{}\"}}],\"content_type\":\"{name}\",\"content\":{content}}}\n",
            hex(&sha1), hex(&sha2)
        ).into_bytes());
    }
    [("tlv", as_tlv), ("cbor", as_cbor), ("json", as_json)]
}

/// Of PCRs that replay to what was quoted: every digest, and every content that hashes to its digest.
fn cel_facts(bytes: &[u8], values: &PcrValues) -> Facts {
    let mut facts = Facts::new();
    let Ok(log) = CelLog::parse(bytes) else { return facts };
    let replayed = log.replay(BANK, &PcrValues::new());
    for (number, record) in log.records().iter().enumerate() {
        let Index::Pcr(pcr) = record.index else { continue };
        let pcr = pcr as u8;
        if !values.contains_key(&pcr) || values.get(&pcr) != replayed.get(&pcr) {
            continue;
        }
        facts.insert(format!("PCR {pcr} is explained"));
        facts.extend(record.digest(BANK).map(|digest| format!("PCR {pcr} holds {digest}")));
        let data = match &record.content {
            Content::PcClient { data, .. } | Content::ImaTemplate { data, .. } | Content::Other { data, .. } => data,
            Content::Systemd { text, .. } => text.as_bytes(),
            _ => continue,
        };
        if record.authenticity(BANK) == CelAuthenticity::Whole {
            facts.insert(format!("record {number} says {}", template::hex(data)));
        }
    }
    facts
}

#[test]
fn b1_b3_no_cut_or_flip_of_a_canonical_event_log_is_fuller() {
    let logs = cel();
    let values = CelLog::parse(&logs[0].1).unwrap().replay(BANK, &PcrValues::new());
    for (encoding, log) in &logs {
        let parsed = CelLog::parse(log).unwrap();
        assert_eq!((parsed.records().len(), parsed.replay(BANK, &PcrValues::new())), (4, values.clone()), "{encoding}");
        exhaust(log, 11, |bytes| cel_facts(bytes, &values));
    }
}

#[test]
fn b1_b11_no_cut_or_flip_of_systemds_log_is_fuller() {
    let boot = PcrValues::from([(11, BANK.hash(&[b"the stub's part"]).unwrap())]);
    let line = |pcr: u8, kind: &str, text: &str| {
        let digest = BANK.hash(&[text.as_bytes()]).unwrap();
        format!(
            "\u{1e}{{\"pcr\":{pcr},\"digests\":[{{\"hashAlg\":\"sha256\",\"digest\":\"{digest}\"}}],\"content_type\":\"systemd\",\"content\":{{\"string\":\"{text}\",\"bootId\":\"b\",\"timestamp\":1,\"eventType\":\"{kind}\"}}}}\n"
        )
    };
    let log = [
        line(11, "phase", "enter-initrd"),
        line(11, "phase", "leave-initrd"),
        line(15, "machine-id", "machine-id:0123"),
    ]
    .concat();
    let values = CelLog::parse(log.as_bytes()).unwrap().replay(BANK, &boot);
    exhaust(log.as_bytes(), 5, |bytes| {
        let mut facts = Facts::new();
        let Ok(log) = UserspaceLog::parse(bytes) else { return facts };
        let (replayed, _) = log.explain_quoted(BANK, &boot, &values, &[]);
        facts.extend(replayed.explained().iter().map(|pcr| format!("PCR {pcr} is explained")));
        facts.extend(replayed.events().map(|event| format!("PCR {} says {:?}", event.pcr, event.text)));
        facts
    });
}

// ---- confidential guests

/// A log of one SHA-384 bank: (register, type, data), each digest that of its data but a program's.
fn ccel() -> Vec<u8> {
    let mut log = [0u32.to_le_bytes(), 3u32.to_le_bytes()].concat();
    log.extend([0; 20]);
    log.extend(33u32.to_le_bytes());
    log.extend(b"Spec ID Event03\0\0\0\0\0\0\x02\0\x02\x01\0\0\0\x0c\0\x30\0\0");
    let events: [(u32, u32, &[u8]); 6] = [
        (1, 0x8000_0001, b"a variable"),
        (1, 4, &[0; 4]),
        (2, 0x8000_0003, b"a program"),
        (2, 5, b"an action"),
        (3, 0xd, b"kernel_cmdline: /vmlinuz quiet"),
        (4, 0xd, b"something"),
    ];
    for (register, kind, data) in events {
        log.extend([register.to_le_bytes(), kind.to_le_bytes(), 1u32.to_le_bytes()].concat());
        log.extend([0x0c, 0]);
        let measured = if kind == 0x8000_0003 { b"the program's file" } else { data };
        log.extend(HashAlg::Sha384.hash(&[measured]).unwrap().as_bytes());
        log.extend((data.len() as u32).to_le_bytes());
        log.extend_from_slice(data);
    }
    log
}

#[test]
fn c8_no_cut_or_flip_of_a_confidential_guests_log_is_fuller() {
    let log = ccel();
    let values = CcEventLog::parse(&log).unwrap().replay(HashAlg::Sha384);
    exhaust(&log, 12, |bytes| {
        let mut facts = Facts::new();
        let Ok(log) = CcEventLog::parse(bytes) else { return facts };
        let replayed = log.replay(HashAlg::Sha384);
        for event in log.events() {
            let Some(register) = event.extends().filter(|one| values.contains_key(one)) else { continue };
            if values.get(&register) == replayed.get(&register) {
                facts.insert(format!("register {register} is explained"));
                facts.extend(event.digest(HashAlg::Sha384).map(|digest| format!("register {register} holds {digest}")));
                if event.authenticity(HashAlg::Sha384) == Authenticity::Whole {
                    facts.insert(format!("register {register} says {}", template::hex(event.data())));
                }
            }
        }
        facts
    });
}

// ---- host log

#[test]
fn b11_no_cut_or_flip_of_a_host_log_is_fuller() {
    let start = Digest::zero(BANK);
    let unknown = Event::ContentUnknown { what: "/etc/docker/daemon.json".into(), why: "too large".into() };
    let events = [
        Event::Boot { boot_id: "this".into(), hostd: "0.1.0".into() },
        Event::Manifest { sha256: [1; 32] },
        unknown,
        Event::Manifest { sha256: [2; 32] },
    ];
    let log: Vec<u8> = (0..).zip(&events).flat_map(|(number, event)| Record::encode(number, 13, event).0).collect();
    let quoted = HostLog::parse(&log).unwrap().replay(start);
    exhaust(&log, 5, |bytes| {
        let mut facts = Facts::new();
        let Ok(log) = HostLog::parse(bytes) else { return facts };
        let context = HostLogContext { pcr: 13, start, quoted, boot_id: "this" };
        let Ok(verified) = log.verify(&context) else { return facts };
        facts.extend(verified.events().iter().enumerate().map(|(number, event)| format!("{number}: {event:?}")));
        facts.extend(verified.last_manifest().map(|digest| format!("manifest {digest:x?}")));
        facts
    });
}

// ---- whole rounds

/// What a submodule's tier is worth to an admission policy.
fn worth(tier: Tier) -> u8 {
    [Tier::Warning, Tier::Affirming].into_iter().filter(|want| tier.meets(*want)).count() as u8
}

/// Judges evidence whose logs were changed on the way; None when the host is asked to send it again.
fn judged(host: &Host, evidence: Evidence, judge: &Judge) -> Option<Appraisal> {
    let ak = verify_ak(&host.tpm.ak.public).unwrap();
    let (now, nonce) = (datetime!(2026-11-22 12:00 UTC), Nonce([9; 32]));
    let expect = RoundExpectation {
        ak: &ak,
        ek_name: &host.tpm.ek_name,
        tag_signers: &KeySet::new(),
        tag_serial: None,
        now,
        nonce,
        selection: judge.policy().selection(),
        last: Last::FirstRound,
    };
    let genuine = GenuineEvidence::verify(evidence, &expect).unwrap();
    let parsed = ParsedLogs::parse(&genuine);
    let logs = ReplayedLogs::replay(&genuine, &parsed, judge, None).ok()?;
    let endorsed = Endorsed { class: TpmClass::Simulated, findings: Findings::new() };
    appraise(&logs, judge, endorsed, "host-1", "ak-1", None, now).ok()
}

fn worths(appraisal: &Appraisal) -> Vec<(Submodule, u8)> {
    Submodule::ALL.iter().map(|one| (*one, worth(appraisal.tier(*one)))).collect()
}

/// A good host, and one that ran what no reference names, edited its engine, and extended the host log's PCR behind hostd's back.
fn hosts() -> [(Host, Judge); 2] {
    let manifest = EngineManifest { version: 1, root_is_default: true, engines: BTreeMap::new() };
    let judge = judge(&policy(""), &[&manifest]);
    let strict = policy("").replace("unknown = \"warning\"", "unknown = \"contraindicated\"");
    let mut bad = Host::boot(&manifest);
    bad.reads("/usr/bin/implant", b"an implant");
    bad.report(&EngineManifest { root_is_default: false, ..manifest.clone() });
    let severe = common::bench::judge(&strict, &[&manifest]);
    [(Host::boot(&manifest), judge), (bad, severe)]
}

#[test]
fn b1_b5_no_cut_or_flip_of_a_log_gives_a_better_tier() {
    for (host, judge) in hosts() {
        let honest = host.evidence(&judge, Nonce([9; 32]));
        let best = worths(&judged(&host, honest.clone(), &judge).unwrap());
        let lengths = [honest.boot_log.len(), honest.ima.list.len(), honest.host_log.len()];
        let strategy = (0usize..3, any::<prop::sample::Index>(), 0usize..5);
        let config = ProptestConfig { cases: 160, failure_persistence: None, ..ProptestConfig::default() };
        proptest!(config, |((which, at, kind) in strategy)| {
            let at = at.index(lengths[which]);
            let mut evidence = honest.clone();
            let log = match which {
                0 => &mut evidence.boot_log,
                1 => &mut evidence.ima.list,
                _ => &mut evidence.host_log,
            };
            let (what, bytes) = mutations(log, at).nth(kind).unwrap();
            *log = bytes;
            if let Some(appraisal) = judged(&host, evidence, &judge) {
                for ((submodule, now), (_, best)) in worths(&appraisal).into_iter().zip(&best) {
                    prop_assert!(now <= *best, "log {which}, {what}: {submodule} is worth {now}, not {best}");
                }
            }
        });
    }
}
