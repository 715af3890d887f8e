//! Canonical event logs: the three encodings say the same, the specification's own record is read, systemd's log replays, and what
//! is cut or flipped never says more.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::type_complexity,
    reason = "a test fails by panicking"
)]

#[path = "common/systemd_log.rs"]
mod systemd_log;

use std::collections::BTreeSet;

use hostmark_attest::cel::userspace::{LOG_MAX, UserspaceLog};
use hostmark_attest::cel::{CelAuthenticity, CelLog, Content, Encoding, Index, Record};
use hostmark_attest::digest::{Digest, HashAlg, PcrValues};
use minicbor::Encoder;
use proptest::prelude::*;
use systemd_log::Measured;

const BANK: HashAlg = HashAlg::Sha256;
const BANKS: [HashAlg; 2] = [HashAlg::Sha1, HashAlg::Sha256];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn record(recnum: u64, index: Index, hashed: &[u8], content: Content) -> Record {
    let digests = BANKS.map(|bank| bank.hash(&[hashed]).unwrap()).to_vec();
    Record { at: 0, recnum: Some(recnum), index, digests, content }
}

/// What every encoding can say.
fn records() -> Vec<Record> {
    let event = |event_type, data: &[u8]| Content::PcClient { event_type, data: data.to_vec() };
    let ima = Content::ImaTemplate { name: "ima-ng".into(), data: b"template data".to_vec() };
    vec![
        record(0, Index::Pcr(0), b"", event(3, b"StartupLocality\0\x03")),
        record(1, Index::Pcr(4), b"\0\0\0\0", event(4, &[0; 4])),
        record(2, Index::Pcr(4), b"the program", event(0x8000_0003, b"where it lay")),
        record(3, Index::Pcr(10), b"template data", ima),
        record(0, Index::Nv(0x01c1_0103), b"x", Content::Other { kind: "80".into(), data: b"x".to_vec() }),
    ]
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind], u32::try_from(value.len()).unwrap().to_be_bytes().as_slice(), value].concat()
}

fn as_tlv(records: &[Record]) -> Vec<u8> {
    let one = |record: &Record| {
        let (kind, index) = match record.index {
            Index::Pcr(pcr) => (1, pcr),
            Index::Nv(index) => (2, index),
        };
        let digests: Vec<u8> =
            record.digests.iter().flat_map(|one| tlv(one.alg().to_tpm() as u8, one.as_bytes())).collect();
        let (content, value) = match &record.content {
            Content::PcClient { event_type, data } => (5, [tlv(0, &event_type.to_be_bytes()), tlv(1, data)].concat()),
            Content::ImaTemplate { name, data } => (7, [tlv(0, name.as_bytes()), tlv(1, data)].concat()),
            Content::Other { kind, data } => (kind.parse().unwrap(), data.clone()),
            other => panic!("{other:?}"),
        };
        [
            tlv(0, &record.recnum.unwrap().to_be_bytes()),
            tlv(kind, &index.to_be_bytes()),
            tlv(3, &digests),
            tlv(content, &value),
        ]
        .concat()
    };
    records.iter().flat_map(one).collect()
}

/// `pairs`: digests as an array of pairs instead of a map. `array`: the records in an array instead of one after another.
fn as_cbor(records: &[Record], pairs: bool, array: bool) -> Vec<u8> {
    let mut e = Encoder::new(Vec::new());
    if array {
        e.array(records.len() as u64).unwrap();
    }
    for record in records {
        e.map(4).unwrap().u8(0).unwrap().u64(record.recnum.unwrap()).unwrap();
        match record.index {
            Index::Pcr(pcr) => e.u8(1).unwrap().u32(pcr).unwrap(),
            Index::Nv(index) => e.u8(2).unwrap().u32(index).unwrap(),
        };
        e.u8(3).unwrap();
        let count = record.digests.len() as u64;
        if pairs {
            e.array(count).unwrap()
        } else {
            e.map(count).unwrap()
        };
        for digest in &record.digests {
            if pairs {
                e.array(2).unwrap();
            }
            e.u16(digest.alg().to_tpm()).unwrap().bytes(digest.as_bytes()).unwrap();
        }
        match &record.content {
            Content::PcClient { event_type, data } => {
                e.u8(5)
                    .unwrap()
                    .map(2)
                    .unwrap()
                    .u8(0)
                    .unwrap()
                    .u32(*event_type)
                    .unwrap()
                    .u8(1)
                    .unwrap()
                    .bytes(data)
                    .unwrap();
            }
            Content::ImaTemplate { name, data } => {
                e.u8(7).unwrap().map(2).unwrap().u8(0).unwrap().str(name).unwrap().u8(1).unwrap().bytes(data).unwrap();
            }
            Content::Other { kind, data } => {
                e.u8(kind.parse().unwrap()).unwrap().bytes(data).unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
    e.into_writer()
}

fn as_json(records: &[Record]) -> Vec<String> {
    let one = |record: &Record| {
        let index = match record.index {
            Index::Pcr(pcr) => format!("\"pcr\":{pcr}"),
            Index::Nv(index) => format!("\"nv_index\":\"{index:#x}\""),
        };
        let digests: Vec<String> = record
            .digests
            .iter()
            .map(|one| format!("{{\"hashAlg\":\"{}\",\"digest\":\"{one}\"}}", one.alg()))
            .collect();
        let content = match &record.content {
            Content::PcClient { event_type, data } => {
                format!("\"pcclient_std\",\"content\":{{\"event_type\":{event_type},\"event_data\":\"{}\"}}", hex(data))
            }
            Content::ImaTemplate { name, data } => {
                format!(
                    "\"ima_template\",\"content\":{{\"template_name\":\"{name}\",\"template_data\":\"{}\"}}",
                    hex(data)
                )
            }
            Content::Other { kind, data } => format!("\"{kind}\",\"content\":\"{}\"", String::from_utf8_lossy(data)),
            other => panic!("{other:?}"),
        };
        let digests = digests.join(",");
        format!("{{\"recnum\":{},{index},\"digests\":[{digests}],\"content_type\":{content}}}", record.recnum.unwrap())
    };
    records.iter().map(one).collect()
}

#[test]
fn three_encodings_say_the_same() {
    let expect = records();
    let lines = as_json(&expect);
    let separated: String = lines.iter().map(|line| format!("\u{1e}{line}\n")).collect();
    let logs = [
        (Encoding::Tlv, as_tlv(&expect)),
        (Encoding::Cbor, as_cbor(&expect, false, true)),
        (Encoding::Cbor, as_cbor(&expect, true, false)),
        (Encoding::Json, lines.join("\n").into_bytes()),
        (Encoding::Json, format!("[{}]\n", lines.join(",\n")).into_bytes()),
        (Encoding::Json, separated.into_bytes()),
    ];
    let mut before = PcrValues::new();
    before.insert(4, Digest::ones(BANK));
    for (encoding, log) in logs {
        let parsed = CelLog::parse(&log).unwrap_or_else(|error| panic!("{encoding:?}: {error}"));
        assert_eq!(parsed.encoding(), encoding);
        assert!(parsed.findings().as_slice().is_empty(), "{:?}", parsed.findings());
        let found: Vec<Record> = parsed.records().iter().map(|one| Record { at: 0, ..one.clone() }).collect();
        assert_eq!(found, expect, "{encoding:?}");
        let whole = |one: &Record| one.authenticity(BANK) == CelAuthenticity::Whole;
        assert_eq!(found.iter().map(whole).collect::<Vec<_>>(), [false, true, false, true, true]);
        // PCR 4 on top of what it held, PCR 10 from zero; EV_NO_ACTION and NV indices extend no PCR.
        let digest = |hashed: &[u8]| BANK.hash(&[hashed]).unwrap();
        let pcr4 = Digest::ones(BANK).extend(&digest(&[0; 4])).unwrap().extend(&digest(b"the program")).unwrap();
        let pcr10 = Digest::zero(BANK).extend(&digest(b"template data")).unwrap();
        assert_eq!(parsed.replay(BANK, &before), PcrValues::from([(4, pcr4), (10, pcr10)]));
        assert!(parsed.replay(HashAlg::Sha384, &before).is_empty(), "a bank that no record carries explains nothing");
    }
}

/// Section 5.3's example.
#[test]
fn the_specifications_record_is_read() {
    let text = r#"{"content":{"event_type":"EV_COMPACT_HASH","event_data":"44656c6c20436f6e66696775726174696f6e20496e666f726d6174696f6e2032"},"content_type":"pcclient_std","pcr":6,"recnum":2,"digests":[{"hashAlg":"sha1","digest":"bac9a8935b720760bcdea2faae75152f5d1e4bea"},{"hashAlg":"0x000B","digest":"d18bf8d221a3a3b08774c8d077328c4b2ca205e4f1618ad4bac2b5786f453bc7"}]}"#;
    let log = CelLog::parse(text.as_bytes()).unwrap();
    let record = &log.records()[0];
    let expect = Content::PcClient { event_type: 0xc, data: b"Dell Configuration Information 2".to_vec() };
    assert_eq!((&record.content, record.index, record.digests.len()), (&expect, Index::Pcr(6), 2));
}

#[test]
fn what_is_malformed_is_refused_at_its_byte() {
    let good = records();
    let line = as_json(&good)[1].clone();
    let edited = |from: &str, to: &str| line.replacen(from, to, 1).into_bytes();
    let two = |json: &[u8]| [line.as_bytes(), b"\n", json].concat();
    let next = line.len() + 1;
    let tlv = as_tlv(&good);
    let rows: [(&str, Vec<u8>, usize); 14] = [
        ("a PCR that no TPM has", two(&edited("\"pcr\":4", "\"pcr\":24")), next),
        ("no index", two(&edited("\"pcr\":4,", "")), next),
        ("two indices", two(&edited("\"pcr\":4", "\"pcr\":4,\"nv_index\":1")), next),
        ("a short digest", two(&edited("\"digest\":\"9", "\"digest\":\"")), next),
        ("two digests of one algorithm", two(&edited("sha256", "sha1")), next),
        ("no JSON", two(b"x"), next),
        ("two records in a line", two(format!("{line}{line}").as_bytes()), next + line.len()),
        ("TLV: an end within", tlv[..tlv.len() - 1].to_vec(), tlv.len() - 1),
        ("TLV: digests before the index", [&tlv[..13], &tlv[22..]].concat(), 18),
        ("TLV: a number of nine bytes", [&[0, 0, 0, 0, 9], [0; 9].as_slice()].concat(), 5),
        ("CBOR: a string", vec![0x81, 0x61, 0x61], 1),
        (
            "CBOR: bytes behind the array",
            [as_cbor(&good, false, true), vec![0]].concat(),
            as_cbor(&good, false, true).len(),
        ),
        ("CBOR: an endless map", vec![0xbf, 0xff], 0),
        ("CBOR: one key twice", vec![0xa2, 0, 1, 0, 1], 3),
    ];
    for (what, log, at) in rows {
        match CelLog::parse(&log) {
            Err(error) => assert_eq!(error.at, at, "{what}: {error}"),
            Ok(parsed) => panic!("{what}: {parsed:?}"),
        }
    }
    assert!(CelLog::parse(b"").unwrap().records().is_empty());
}

#[test]
fn b1_records_that_were_moved_are_told_by_their_numbers() {
    let honest = records();
    let ids = |records: &[Record]| -> Vec<String> {
        let log = CelLog::parse(&as_tlv(records)).unwrap();
        log.findings().as_slice().iter().map(|one| one.id.clone()).collect()
    };
    assert!(ids(&honest).is_empty());
    let mut moved = honest.clone();
    moved.swap(1, 2);
    assert_eq!(ids(&moved), ["cel.record-order"]);
    assert_eq!(ids(&[honest.clone(), vec![honest[1].clone()]].concat()), ["cel.record-order"]);
    let lines = as_json(&honest);
    let unnumbered = lines[0].replacen("\"recnum\":0,", "", 1);
    let log = CelLog::parse(format!("{unnumbered}\n{}", lines[1]).as_bytes()).unwrap();
    assert!(log.findings().has("cel.record-numbers"));
}

fn boot_of_systemd() -> Vec<Measured> {
    systemd_log::boot()
}

/// The texts of that boot that hash to what was extended; a volume key's digest is keyed.
const TEXTS: [&str; 6] = [
    "enter-initrd",
    "leave-initrd",
    "machine-id:0123456789abcdef0123456789abcdef",
    "file-system:/:ext4:4-5-6::::",
    "sysinit",
    "ready",
];

/// PCR 11 and 15 of a boot whose boot log left these values.
fn values(measured: &[Measured], boot: &PcrValues) -> PcrValues {
    CelLog::parse(&systemd_log::log(measured, &BANKS)).unwrap().replay(BANK, boot)
}

#[test]
fn b1_b11_systemds_log_explains_its_pcrs_or_names_them() {
    let boot = PcrValues::from([(11, BANK.hash(&[b"the stub's part"]).unwrap())]);
    let honest = boot_of_systemd();
    let mut quoted = values(&honest, &boot);
    quoted.insert(7, Digest::zero(BANK));
    let judge = |measured: &[Measured], boot: &PcrValues, others: &[u8]| {
        let log = UserspaceLog::parse(&systemd_log::log(measured, &BANKS)).unwrap();
        let (replayed, findings) = log.explain_quoted(BANK, boot, &quoted, others);
        let ids: Vec<String> = findings.as_slice().iter().map(|one| one.id.clone()).collect();
        let texts: Vec<String> = replayed.events().map(|one| one.text.to_owned()).collect();
        (ids, replayed.explained().clone(), texts)
    };
    let (ids, explained, texts) = judge(&honest, &boot, &[10, 13]);
    assert_eq!((ids, explained), (vec![], BTreeSet::from([11, 15])));
    assert_eq!(texts, TEXTS);

    let without = |at: usize| {
        let mut measured = honest.clone();
        measured.remove(at);
        measured
    };
    let with = |one: Measured| [&honest[..], &[one]].concat();
    let mut swapped = honest.clone();
    swapped.swap(0, 2);
    let mut forged = honest.clone();
    forged[5] = Measured::phase("shutdown");
    let mut replaced = honest.clone();
    replaced[5].text = "shutdown".to_owned();
    let mut other_id = honest.clone();
    other_id[3].text = "machine-id:ffff".to_owned();
    let mut keyed = honest.clone();
    keyed[1].text = "cryptsetup:other:1".to_owned();
    let (replay, unhashed, second) =
        ("userspace-log.replay", "userspace-log.event-data-unauthenticated", "userspace-log.second-log");
    let (both, fifteen) = (BTreeSet::from([11, 15]), BTreeSet::from([15]));
    let none = PcrValues::new();
    type Row<'a> = (&'a str, Vec<Measured>, &'a PcrValues, &'a [u8], &'a [&'a str], &'a BTreeSet<u8>);
    let rows: [Row<'_>; 12] = [
        ("a record removed", without(5), &boot, &[], &[replay], &fifteen),
        ("records reordered", swapped, &boot, &[], &[replay], &fifteen),
        ("another digest", forged, &boot, &[], &[replay], &fifteen),
        ("one more record", with(Measured::phase("x")), &boot, &[], &[replay], &fifteen),
        ("another boot log", honest.clone(), &none, &[], &[replay], &fifteen),
        ("a record of the other PCR removed", without(3), &boot, &[], &[replay], &BTreeSet::from([11])),
        ("another log extends it too", honest.clone(), &boot, &[15], &[second], &BTreeSet::from([11])),
        ("IMA's PCR", with(Measured::new(10, "phase", "x")), &boot, &[10, 13], &[second], &both),
        (
            "a PCR of the firmware",
            with(Measured::new(7, "phase", "x")),
            &boot,
            &[10, 13],
            &["userspace-log.pcr"],
            &both,
        ),
        // The replay holds, the text is nobody's: it is left out.
        ("another word", replaced, &boot, &[], &[unhashed, "userspace-log.phases"], &both),
        ("another machine id", other_id, &boot, &[], &[unhashed], &both),
        // Nobody but who has the key can tell.
        ("another volume", keyed, &boot, &[], &[], &both),
    ];
    for (what, measured, boot, others, expect, explained) in rows {
        let (ids, found, texts) = judge(&measured, boot, others);
        assert_eq!((ids, &found), (expect.iter().map(|id| (*id).to_owned()).collect(), explained), "{what}");
        assert!(texts.iter().all(|text| TEXTS.contains(&text.as_str())), "{what}");
    }
    // Another content type, another encoding, and a log without an end are not systemd's.
    let line = honest[0].line(&BANKS);
    let foreign = line.replace("\"systemd\"", "\"hostmark2\"");
    assert!(UserspaceLog::parse(foreign.as_bytes()).is_err());
    assert!(UserspaceLog::parse(&as_tlv(&records())).is_err());
    assert!(UserspaceLog::parse(b"").unwrap().pcrs().is_empty());
    assert!(UserspaceLog::parse(&line.as_bytes().repeat(LOG_MAX / line.len())).is_ok());
    assert!(UserspaceLog::parse(&line.as_bytes().repeat(LOG_MAX / line.len() + 1)).is_err());
}

#[test]
fn b1_each_bank_that_systemds_log_carries_is_held_against_the_quote() {
    let measured = boot_of_systemd();
    let banks = [BANK, HashAlg::Sha384];
    let bank = HashAlg::Sha384;
    let boot = PcrValues::from([(11, bank.hash(&[b"the stub's part"]).unwrap())]);
    let log = UserspaceLog::parse(&systemd_log::log(&measured, &banks)).unwrap();
    let honest = log.replay(bank, &boot);
    assert!(log.compare_bank(bank, &boot, &honest).acceptable());
    for pcr in [11, 15] {
        let mut other = honest.clone();
        other.insert(pcr, Digest::zero(bank));
        let findings = log.compare_bank(bank, &boot, &other);
        assert!(findings.as_slice().iter().all(|one| one.message.contains(&format!("PCR {pcr} of the sha384"))));
        assert!(findings.has("userspace-log.replay"), "{pcr}");
    }
    // Records without the bank explain nothing in it: what the policy judges by is the other bank's matter.
    let log = UserspaceLog::parse(&systemd_log::log(&measured, &[BANK])).unwrap();
    assert!(log.compare_bank(bank, &boot, &honest).as_slice().is_empty());
    let (replayed, findings) = log.explain_quoted(bank, &boot, &honest, &[]);
    assert!(findings.has("userspace-log.replay") && replayed.explained().is_empty());
}

#[test]
fn what_systemd_measured_is_told_by_what_hashes_to_it() {
    let boot = PcrValues::new();
    let told = |measured: &[Measured]| {
        let log = UserspaceLog::parse(&systemd_log::log(measured, &BANKS)).unwrap();
        let quoted = log.replay(BANK, &boot);
        let (replayed, findings) = log.explain_quoted(BANK, &boot, &quoted, &[]);
        let phases = replayed.phases().map(|words| words.join(" "));
        (phases, replayed.machine_id().map(str::to_owned), findings.has("userspace-log.phases"))
    };
    let words = |words: &[&str]| -> Vec<Measured> { words.iter().map(|word| Measured::phase(word)).collect() };
    let id = || Measured::machine_id("ab");
    let rows: [(Vec<Measured>, Option<&str>, Option<&str>, bool); 9] = [
        (words(&["enter-initrd"]), Some("enter-initrd"), None, false),
        (words(&["sysinit", "ready"]), Some("sysinit ready"), None, false),
        (words(&["enter-initrd", "leave-initrd", "sysinit"]), Some("enter-initrd leave-initrd sysinit"), None, false),
        (words(&["ready", "sysinit"]), None, None, true),
        (words(&["sysinit", "ready", "ready"]), None, None, true),
        // Another root file system after a soft reboot.
        (words(&["sysinit", "ready", "shutdown", "final", "sysinit"]), None, None, true),
        (vec![id()], None, Some("ab"), false),
        (vec![id(), Measured::machine_id("cd")], None, None, false),
        (vec![Measured { hashed: b"x".to_vec(), ..id() }], None, None, false),
    ];
    for (measured, phases, id, other) in rows {
        assert_eq!(told(&measured), (phases.map(str::to_owned), id.map(str::to_owned), other), "{measured:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever byte is flipped or wherever systemd's log is cut: nothing is told that the honest log does not tell.
    #[test]
    fn b1_b3_no_flip_or_cut_of_systemds_log_tells_more(at in 0usize..5000, mask in 1u8..=255, cut in any::<bool>()) {
        let boot = PcrValues::from([(11, BANK.hash(&[b"the stub's part"]).unwrap())]);
        let measured = boot_of_systemd();
        let quoted = values(&measured, &boot);
        let mut bytes = systemd_log::log(&measured, &[BANK]);
        let at = at % bytes.len();
        if cut { bytes.truncate(at) } else { bytes[at] ^= mask }
        if let Ok(log) = UserspaceLog::parse(&bytes) {
            let (replayed, _) = log.explain_quoted(BANK, &boot, &quoted, &[]);
            prop_assert!(replayed.events().all(|one| TEXTS.contains(&one.text)));
            prop_assert!(replayed.explained().is_subset(&BTreeSet::from([11, 15])));
        }
    }

    /// As above for the three encodings: a PCR's replay is the honest one only with the honest digests.
    #[test]
    fn b1_b5_no_flip_or_cut_of_any_encoding_replays_otherwise(which in 0usize..4, at in 0usize..5000, mask in 1u8..=255, cut in any::<bool>()) {
        let records = records();
        let json = as_json(&records).join("\n").into_bytes();
        let mut bytes = [as_tlv(&records), as_cbor(&records, false, true), as_cbor(&records, true, false), json][which].clone();
        let honest = CelLog::parse(&bytes).unwrap();
        let at = at % bytes.len();
        if cut { bytes.truncate(at) } else { bytes[at] ^= mask }
        if let Ok(log) = CelLog::parse(&bytes) {
            let texts = |log: &CelLog| -> BTreeSet<String> {
                let whole = log.records().iter().filter(|one| one.authenticity(BANK) == CelAuthenticity::Whole);
                whole.map(|one| one.digest(BANK).unwrap().to_string()).collect()
            };
            prop_assert!(log.records().len() <= honest.records().len());
            prop_assert!(texts(&log).is_subset(&texts(&honest)), "{:?}", log);
        }
    }

    /// Arbitrary bytes are an error or a log, never a panic.
    #[test]
    fn b5_arbitrary_bytes_are_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = CelLog::parse(&bytes);
        let _ = UserspaceLog::parse(&bytes);
    }
}
