//! IMA lists, per entry, against what no replay can leave out.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use hostmark_attest::digest::{Digest, HashAlg, sha256};
use hostmark_attest::ima::{ImaFormat, ImaLog, ImaPosition, ImaQuirks, Measured, batches, replay_prefix};
use hostmark_attest::policy::References;
use hostmark_tests::lab::reference_boot;
use time::OffsetDateTime;

use crate::measure::{Table, turns};
use crate::pure::BANK;

/// Entries of the made IMA list: a host that has run for months.
pub const ENTRIES: u32 = 100_000;

fn path(number: u32) -> String {
    format!("/usr/lib/x86_64-linux-gnu/libexample-{number:06}.so.1")
}

/// `ima-sig` entries of a SHA-256 kernel whose files carry P-256 signatures, in the binary list's form.
fn made_list() -> Vec<u8> {
    fn field(out: &mut Vec<u8>, parts: &[&[u8]]) {
        let body = parts.concat();
        out.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
        out.extend(body);
    }
    let mut list = Vec::new();
    for number in 0..ENTRIES {
        let (digest, path) = (file_digest(number), path(number));
        let mut data = Vec::new();
        field(&mut data, &[b"sha256:\0", &digest]);
        field(&mut data, &[path.as_bytes(), b"\0"]);
        // A signature's header (type, version, hash, key id, length), and 71 bytes in its place.
        field(&mut data, &[&[3, 2, 4, 1, 2, 3, 4, 0, 71], &digest, &digest, &[7; 7]]);
        list.extend(10u32.to_le_bytes());
        list.extend(HashAlg::Sha1.hash(&[&data]).unwrap().as_bytes());
        field(&mut list, &[b"ima-sig"]);
        field(&mut list, &[&data]);
    }
    list
}

/// The same list as `ascii_runtime_measurements` shows it.
fn as_ascii(list: &[u8]) -> Vec<u8> {
    let log = ImaLog::parse_as(list, ImaFormat::Binary).unwrap();
    let line = |entry: hostmark_attest::ima::Entry<'_>| {
        let file = entry.measurement().unwrap();
        let (listed, digest) = (hex::encode(entry.listed_digest()), hex::encode(file.digest));
        let signature = hex::encode(file.signature.unwrap_or_default());
        format!("10 {listed} {} {}:{digest} {} {signature}\n", entry.template(), file.alg, file.path_lossy())
            .into_bytes()
    };
    log.entries().flat_map(line).collect()
}

/// The digest of the made list's file of this number.
fn file_digest(number: u32) -> [u8; 32] {
    sha256(&[&number.to_be_bytes()])
}

/// `[window.ima]` of a bundle that names every file of the made list, as `hostmark refs capture` writes it.
pub fn named_files() -> String {
    let mut files = "[window.ima]\n".to_owned();
    for number in 0..ENTRIES {
        writeln!(files, "\"{}\" = [\"sha256:{}\"]", path(number), hex::encode(file_digest(number))).unwrap();
    }
    files
}

/// A made list in both forms, from its bytes to every file looked up in references of 100,000 digests.
pub fn with_references(table: &mut Table) {
    let binary = made_list();
    let ascii = as_ascii(&binary);
    let references = References::parse("made", &format!("version = 1\n[[window]]\n{}", named_files())).unwrap();
    let window = references.open(OffsetDateTime::UNIX_EPOCH).next().unwrap();
    for (name, list) in [("binary", binary), ("ascii", ascii)] {
        let log = ImaLog::parse(&list).unwrap();
        let pcr10 = log
            .entries()
            .fold(Digest::zero(BANK), |pcr, entry| pcr.extend(&entry.template_digest(BANK).unwrap()).unwrap());
        let quoted = BTreeMap::from([(BANK, pcr10)]);
        let part = list.len() / usize::try_from(ENTRIES).unwrap();
        let entries: Vec<&[u8]> = list.chunks_exact(part).collect();
        let ours = || {
            let log = ImaLog::parse(&list).unwrap();
            let prefix = replay_prefix(&log, &ImaPosition::default(), &quoted, ImaQuirks::default()).unwrap();
            let named = |one: &Measured<'_>| one.digest.is_some_and(|digest| window.knows_file(&digest));
            // As an appraisal asks.
            batches(prefix.entries())
                .flat_map(|batch| batch.iter().map(named).collect::<Vec<_>>())
                .filter(|it| *it)
                .count()
        };
        assert_eq!(ours(), usize::try_from(ENTRIES).unwrap());
        let twice = || entries.iter().map(|entry| (sha256(&[entry]), sha256(&[entry]))).fold(0, fold);
        let (figure, floor) = turns(ours, twice);
        let count = f64::from(ENTRIES);
        let what = format!("IMA entry ({name}), looked up in a policy of 100,000 digests");
        table.goal(&what, figure / count, "two SHA-256 of its bytes", floor / count, 1.8);
    }
}

/// Parse and replay of an IMA list, per entry.
pub fn replayed(table: &mut Table) {
    let recorded = reference_boot().unwrap().ima().unwrap();
    for (name, list) in [("IMA entry of 100,000 ima-sig", made_list()), ("IMA entry of a recorded list", recorded)] {
        let log = ImaLog::parse_as(&list, ImaFormat::Binary).unwrap();
        let pcr10 = log.entries().fold(Digest::zero(BANK), |pcr, entry| {
            let digest = if entry.is_violation() { Digest::ones(BANK) } else { entry.template_digest(BANK).unwrap() };
            pcr.extend(&digest).unwrap()
        });
        let quoted = BTreeMap::from([(BANK, pcr10)]);
        let starts: Vec<usize> = log.entries().map(|entry| entry.at()).chain([list.len()]).collect();
        let entries: Vec<&[u8]> = starts.windows(2).map(|two| &list[two[0]..two[1]]).collect();
        let ours = || {
            let log = ImaLog::parse_as(&list, ImaFormat::Binary).unwrap();
            replay_prefix(&log, &ImaPosition::default(), &quoted, ImaQuirks::default()).unwrap().verified()
        };
        assert_eq!(usize::try_from(ours()).unwrap(), entries.len());
        let count = f64::from(u32::try_from(entries.len()).unwrap());
        let twice = || entries.iter().map(|entry| (sha256(&[entry]), sha256(&[entry]))).fold(0, fold);
        let (figure, floor) = turns(ours, twice);
        table.times(name, figure / count, "two SHA-256 of its bytes", floor / count);
        // What no replay can leave out: the entry's hash, and the extend over two digests.
        let least = || {
            let extended = |pcr: [u8; 32], entry: &&[u8]| sha256(&[&pcr, &sha256(&[entry])]);
            entries.iter().fold([0; 32], extended)
        };
        let (figure, floor) = turns(ours, least);
        table.times("the same", figure / count, "one SHA-256 of its bytes, one extend", floor / count);
    }
}

fn fold(sum: u8, two: ([u8; 32], [u8; 32])) -> u8 {
    sum ^ two.0[0] ^ two.1[1]
}
