//! Third-party IMA lists against their known values. Read in place through HOSTMARK_EVIDENCE, never committed.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    unreachable_pub,
    missing_docs,
    reason = "a test fails by panicking, and reads its evidence"
)]

#[path = "common/evidence.rs"]
mod evidence;

use std::collections::BTreeMap;
use std::path::PathBuf;

use hostmark_attest::digest::{Digest, HashAlg, PcrBanks};
use hostmark_attest::finding::Findings;
use hostmark_attest::ima::{ImaLog, ImaPosition, ImaQuirks, check_boot_aggregate, inspect, replay_prefix};

/// keylime's samples stand in no row: they end with a line that is none.
const SAMPLES: &str = "keylime__ima_ast_samples";

fn evidence() -> Option<PathBuf> {
    evidence::folder("ima", LISTS.len() + 1).and_then(|ima| ima.parent().map(PathBuf::from))
}

#[test]
fn every_fixture_has_a_row() {
    let Some(folder) = evidence() else { return };
    evidence::complete(&folder.join("ima"), LISTS.iter().map(|list| list.file).chain([SAMPLES]), |_| false);
}

fn ids(findings: &Findings) -> Vec<&str> {
    findings.as_slice().iter().map(|finding| finding.id.as_str()).collect()
}

/// What is known of one list.
struct Known {
    file: &'static str,
    entries: u64,
    templates: &'static [(&'static str, u64)],
    violations: u64,
    /// Replayed SHA-1 PCR 10; empty where it is not known.
    sha1: &'static str,
    findings: &'static [&'static str],
}

const fn known(
    file: &'static str,
    entries: u64,
    templates: &'static [(&'static str, u64)],
    violations: u64,
    sha1: &'static str,
    findings: &'static [&'static str],
) -> Known {
    Known { file, entries, templates, violations, sha1, findings }
}

#[rustfmt::skip]
const LISTS: &[Known] = &[
    known("charra__ascii_runtime_measurements", 1646, &[("ima-ng", 1646)], 0, "590ff33e88b7eb0aef5ddbc29c331c25d2a1fa10", &[]),
    known("charra__binary_runtime_measurements.bin", 1650, &[("ima-ng", 1650)], 0, "b9d6433e7b6f9d17ee6ae6bf42df902984df2dcd", &[]),
    known("global-trust-authority__ima_sha256-template-digest.log", 2, &[("ima-ng", 2)], 0, "", &[]),
    known("guard-oss__h12ssl.ascii_measurements", 2380, &[("ima-ng", 2380)], 2, "5cd6fd5308dd67bd03a2d35e786e2a4ff17972f2", &[]),
    known("guard-oss__h12ssl.binary_measurements.bin", 2365, &[("ima-ng", 2365)], 2, "2bb0c97734a8b7f19d732be845e08819ddec5705", &[]),
    known("guard-oss__x1carbon8-gentoo-imabuf.bin", 37, &[("ima-buf", 4), ("ima-ng", 33)], 0, "b36e0420fbacfa4fd23e7d2e86d5e94fd635cd69", &["ima.other-pcr"]),
    known("ibmtss__sha1-imasig.bin", 362, &[("ima-sig", 362)], 0, "9be6bac02bf18d09d17e726c2df00bca4e8831ea", &[]),
    known("intel-secl__ascii_runtime_measurements_imasig", 101, &[("ima-sig", 101)], 2, "70d750b2dcfc7e0c17bdcc6fa01564f129fcd3af", &[]),
    known("keylime__ima-log-sha1", 2, &[("ima-ng", 2)], 1, "62e5bdf4783228f7deec959f0a89a4739af79ac5", &[]),
    known("keylime__ima-log-sha256", 2, &[("ima-ng", 2)], 0, "8adcb4304b78ee782bbba3733b191591e75dc83d", &[]),
    // SM3 template digests are as wide as SHA-256 ones and cannot be computed here: said, never passed over.
    known("keylime__ima-log-sm3_256", 2, &[("ima-ng", 2)], 1, "", &["ima.template-digest"]),
    known("rust-keylime__ascii_runtime_measurements", 826, &[("ima-ng", 826)], 0, "82231c67a69da98dc5b3aa10f6343d33109225fc", &[]),
    known("tpm2-tss__sml-ima-ng-sha1.bin", 6, &[("ima-ng", 6)], 0, "ef2a20de2a84a4780f92ab11d5c4934c709dff00", &["ima.stray-bytes"]),
    known("tpm2-tss__sml-ima-sha1-invalidated.bin", 1, &[("ima", 1)], 1, "bac37b84f007d0238af95af707cac8d61254870e", &[]),
    known("tpm2-tss__sml-ima-sha1.bin", 12, &[("ima", 12)], 0, "062a05a9d18d1a51775ff8162bf6964b8dd23eb4", &["ima.stray-bytes"]),
];

#[test]
fn every_list_has_its_known_values() {
    let Some(folder) = evidence() else { return };
    for list in LISTS {
        let name = list.file;
        let bytes = std::fs::read(folder.join("ima").join(name)).unwrap();
        let report = inspect(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        let templates: BTreeMap<String, u64> = list.templates.iter().map(|(t, n)| ((*t).to_owned(), *n)).collect();
        assert_eq!((report.entries, report.violations), (list.entries, list.violations), "{name}");
        assert_eq!(report.templates, templates, "{name}");
        assert_eq!(ids(&report.findings), list.findings, "{name}: {:?}", report.findings);
        if !list.sha1.is_empty() {
            assert_eq!(report.pcr10.sha1, list.sha1, "{name}");
        }
        // What `inspect` replays is what a quote of it would verify.
        let log = ImaLog::parse(&bytes).unwrap();
        let quoted = BTreeMap::from([
            (HashAlg::Sha1, Digest::from_hex(HashAlg::Sha1, &report.pcr10.sha1).unwrap()),
            (HashAlg::Sha256, Digest::from_hex(HashAlg::Sha256, &report.pcr10.sha256).unwrap()),
        ]);
        let prefix = replay_prefix(&log, &ImaPosition::default(), &quoted, ImaQuirks::default()).unwrap();
        assert!(prefix.verified() <= log.len() && prefix.violations() == list.violations, "{name}");
    }
}

/// keylime's samples end with a line whose file digest is not hex: the list is malformed at that byte, the rest is not.
#[test]
fn keylime_samples() {
    let Some(folder) = evidence() else { return };
    let bytes = std::fs::read(folder.join("ima").join(SAMPLES)).unwrap();
    let bad = bytes.windows(6).position(|window| window == b"sha1:I").unwrap() + 5;
    assert_eq!(ImaLog::parse(&bytes).unwrap_err().at, bad);
    let last = bytes[..bad].iter().rposition(|byte| *byte == b'\n').unwrap();
    let report = inspect(&bytes[..last]).unwrap();
    let expect = [("ima", 1), ("ima-buf", 1), ("ima-ng", 1), ("ima-sig", 3)];
    assert_eq!(report.templates, expect.map(|(name, count)| (name.to_owned(), count)).into());
    assert_eq!(report.findings.as_slice(), []);
}

/// A list and a boot log of the same boot: the aggregate is the hash of the PCRs that the boot log replays to.
#[test]
fn boot_aggregates() {
    let Some(folder) = evidence() else { return };
    let replayed = std::fs::read(folder.join("eventlog/_replayed_pcrs.dev.json")).unwrap();
    let replayed: serde_json::Value = serde_json::from_slice(&replayed).unwrap();
    let rows = [
        ("charra__binary_runtime_measurements.bin", "", &["ima.tpm-bypass"][..]),
        (
            "guard-oss__h12ssl.binary_measurements.bin",
            "guard-oss__h12ssl.bios_measurements.bin",
            &["ima.boot-aggregate-0-7"],
        ),
        ("guard-oss__x1carbon8-gentoo-imabuf.bin", "guard-oss__x1carbon8-gentoo-uki_invalid-eventlog.bin", &[]),
        ("guard-oss__x1carbon8-gentoo-imabuf.bin", "guard-oss__h12ssl.bios_measurements.bin", &["ima.boot-aggregate"]),
        ("ibmtss__sha1-imasig.bin", "", &["ima.boot-aggregate-bank"]),
    ];
    for (list, boot_log, expect) in rows {
        let bytes = std::fs::read(folder.join("ima").join(list)).unwrap();
        let log = ImaLog::parse(&bytes).unwrap();
        let first = log.entries().next();
        let findings =
            check_boot_aggregate(first.as_ref(), &banks(&replayed["logs"][format!("eventlog/{boot_log}")]["pcrs"]));
        assert_eq!(ids(&findings), expect, "{list} with {boot_log}: {findings:?}");
    }
}

fn banks(json: &serde_json::Value) -> PcrBanks {
    let mut banks = PcrBanks::new();
    for (name, values) in json.as_object().into_iter().flatten() {
        let Some(bank) = HashAlg::from_name(name) else { continue };
        // A PCR without an event is zero.
        banks.insert(bank, (0..16).map(|index| (index, Digest::zero(bank))).collect());
        for (index, value) in values.as_object().into_iter().flatten() {
            let value = Digest::from_hex(bank, value.as_str().unwrap()).unwrap();
            banks.entry(bank).or_default().insert(index.parse().unwrap(), value);
        }
    }
    banks
}
