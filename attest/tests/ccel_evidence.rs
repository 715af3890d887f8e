//! CC event logs of real guests, read in place from the folder named by HOSTMARK_EVIDENCE. Skipped, and said so, without it.
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

use hostmark_attest::ccel::CcEventLog;
use hostmark_attest::digest::HashAlg;

const REPEATED: &str = "ccel.separator-repeated";
const PADDED: &str = "boot.log-padded";

/// Log, events with the header, the first eight bytes of each register's replay, findings.
type Row = (&'static str, usize, &'static [(u8, &'static str)], &'static [&'static str]);

#[rustfmt::skip]
const LOGS: [Row; 9] = [
    ("cc-trusted-api__ccel_data.bin", 99, &[(1, "c15727cac1f57d0e"), (2, "61e958c6f954ce23"), (3, "58bc48d5c4866725")], &[PADDED, REPEATED]),
    ("dstack__ccel.bin", 19, &[(1, "274c2344116db7c6"), (2, "bdcf4ee0f7fdfe7c")], &[PADDED]),
    ("go-eventlog__CCEL_unpadded.data.bin", 20, &[(1, "8083cd6898cc52a9"), (2, "6484f0d72c03521c"), (3, "c3e7ed9d7e909b29")], &[REPEATED]),
    ("go-eventlog__cos-113-intel-tdx.bin", 44, &[(1, "3fa2f61f395b7f5f"), (2, "f62dbc072bd5d3f3"), (3, "4969684dc87381fc")], &[PADDED]),
    ("go-eventlog__event_log.bin", 28, &[(1, "f68df15175d7c810"), (2, "8adfd9a44e117252")], &[PADDED, REPEATED, REPEATED]),
    ("trustauthority-client-for-go__CCEL.data.bin", 20, &[(1, "8083cd6898cc52a9"), (2, "6484f0d72c03521c"), (3, "c3e7ed9d7e909b29")], &[PADDED, REPEATED]),
    ("trustee__CCEL_data.bin", 6, &[(1, "2dc712306a963ead"), (2, "0fa3be56af61208b")], &[PADDED]),
    ("trustee__CCEL_data_gcp.bin", 22, &[(1, "3300980705adf09d"), (2, "204d49f78d29918f")], &[PADDED]),
    ("trustee__CCEL_data_ovmf.bin", 21, &[(1, "8566f998798db094"), (2, "775b9f6bfe99f8a3"), (3, "94eaf7a7bf398ed8")], &[PADDED, REPEATED]),
];

#[test]
fn every_fixture_has_a_row() {
    let Some(folder) = evidence::folder("ccel", LOGS.len()) else { return };
    let companion = |name: &str| [".table.bin", ".json", ".txt"].iter().any(|end| name.ends_with(end));
    evidence::complete(&folder, LOGS.map(|row| row.0), companion);
}

#[test]
fn each_log_replays_to_its_known_registers() {
    let Some(folder) = evidence::folder("ccel", LOGS.len()) else { return };
    for (name, events, registers, findings) in LOGS {
        let log = CcEventLog::parse(&evidence::read(&folder.join(name))).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(log.events().len(), events, "{name}");
        assert_eq!(log.banks().collect::<Vec<_>>(), [HashAlg::Sha384], "{name}");
        let replayed = log.replay(HashAlg::Sha384);
        let replayed: Vec<(u8, String)> =
            replayed.iter().map(|(register, value)| (*register, value.to_string()[..16].to_owned())).collect();
        let expect: Vec<(u8, String)> =
            registers.iter().map(|(register, hex)| (*register, (*hex).to_owned())).collect();
        assert_eq!(replayed, expect, "{name}");
        let found = log.findings();
        let ids: Vec<&str> = found.as_slice().iter().map(|one| one.id.as_str()).collect();
        assert_eq!(ids, findings, "{name}: {found:?}");
    }
}
