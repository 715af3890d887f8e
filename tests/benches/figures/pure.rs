//! Figures of the pure library: one thread, no network, no store.

use std::collections::{BTreeMap, HashSet};
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, KeyPair as _, ParsedPublicKey, UnparsedPublicKey};
use hostmark_attest::appraisal::{Appraisal, Endorsed, Judge, appraise};
use hostmark_attest::boot_log::{BootLog, BootQuirks};
use hostmark_attest::digest::{Digest, HashAlg, sha256};
use hostmark_attest::evidence::Evidence;
use hostmark_attest::finding::Findings;
use hostmark_attest::genuine::{GenuineEvidence, Last, RoundExpectation};
use hostmark_attest::identity::ak::{AkPublic, verify_ak};
use hostmark_attest::identity::class::{TpmClass, TrustBundle};
use hostmark_attest::identity::ek::verify_ek;
use hostmark_attest::ima::{ImaFormat, ImaLog, ImaPosition, ImaQuirks, replay_prefix};
use hostmark_attest::jws::{KeySet, SoftwareKey};
use hostmark_attest::policy::{AppraisalPolicy, References};
use hostmark_attest::quote::{QuoteExpectation, verify_quote};
use hostmark_attest::replay::{ParsedLogs, ReplayedLogs};
use hostmark_attest::selection::PcrSelection;
use hostmark_attest::state::RoundState;
use hostmark_attest::tpm::signed::Signer;
use hostmark_attest::wire::{Challenge, Nonce};
use hostmark_tests::attester::Attester;
use hostmark_tests::forge::SoftwareTpm;
use hostmark_tests::lab::{POLICY_NAME, reference_boot, shipped};
use hostmark_tests::operator::capture_references;
use hostmark_tests::pki::Ca;
use hostmark_tests::recording::Recording;
use time::OffsetDateTime;
use time::macros::datetime;

use crate::measure::{Table, turns};

const BANK: HashAlg = HashAlg::Sha256;
const NOW: OffsetDateTime = datetime!(2026-11-22 12:00 UTC);
/// Entries of the made IMA list: a host that has run for months.
const ENTRIES: u32 = 100_000;
/// A physical machine's boot log, where the third-party evidence is at hand.
const REAL_LOG: &str = "eventlog/keylime__binary_bios_measurements-secureboot.bin";

/// The DER (RFC 3279 2.2.3) of a TPMT_SIGNATURE as the software TPM writes it: ECDSA, r and s padded to 32 bytes. It is what
/// verifies fastest, so the floors verify it.
fn der(signature: &[u8]) -> Vec<u8> {
    let integer = |padded: &[u8]| {
        let zeros = padded.iter().take_while(|byte| **byte == 0).count();
        let sign = if padded[zeros] >= 0x80 { vec![0] } else { Vec::new() };
        let number = [sign.as_slice(), &padded[zeros..]].concat();
        [[2, u8::try_from(number.len()).unwrap()].as_slice(), &number].concat()
    };
    let both = [integer(&signature[6..38]), integer(&signature[40..72])].concat();
    [[0x30, u8::try_from(both.len()).unwrap()].as_slice(), &both].concat()
}

/// A quote of 12 PCRs, P-256, against its signature alone.
pub fn quote(table: &mut Table) {
    let tpm = SoftwareTpm::new();
    let selection = PcrSelection::one(BANK, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]).unwrap();
    let nonce = [7; 32];
    let attest = tpm.quote(&selection, &nonce).build();
    let (signature, values) = (tpm.ak.sign(&attest), tpm.values(&selection));
    let expect = QuoteExpectation {
        signer: Signer::EnrolledAk { public: &tpm.ak.public, ek_name: &tpm.ek_name },
        selection: &selection,
        qualifying_data: &nonce,
    };
    let point = tpm.ak.pair.public_key().as_ref();
    let bare = der(&signature);
    let ours = || verify_quote(&attest, &signature, &values, &expect).unwrap();
    let (figure, floor) =
        turns(ours, || UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(&attest, &bare).unwrap());
    table.times("quote of 12 PCRs, P-256", figure, "the bare signature, key as bytes", floor);
    let parsed = ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).unwrap();
    let (figure, floor) = turns(ours, || parsed.verify_sig(&attest, &bare).unwrap());
    table.times("the same", figure, "the bare signature, key parsed before", floor);
}

/// The library's SHA-256 against another implementation: the floors below hash with the library's.
pub fn hashing(table: &mut Table) {
    let bytes = vec![0x5a; 1 << 20];
    for (name, size) in [("SHA-256 of 64 bytes", 64), ("SHA-256 of 1 MiB", 1 << 20)] {
        let part = &bytes[..size];
        let (figure, floor) =
            turns(|| sha256(&[part]), || aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, black_box(part)));
        table.times(name, figure, "the same in aws-lc", floor);
    }
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
        let digest = sha256(&[&number.to_be_bytes()]);
        let path = format!("/usr/lib/x86_64-linux-gnu/libexample-{number:06}.so.1");
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

/// A made list in both forms, from its bytes to every file looked up in references of 100,000 digests.
pub fn ima_with_references(table: &mut Table) {
    let binary = made_list();
    let ascii = as_ascii(&binary);
    let known: HashSet<Digest> =
        (0..ENTRIES).map(|number| Digest::new(BANK, &sha256(&[&number.to_be_bytes()])).unwrap()).collect();
    for (name, list) in [("binary", binary), ("ascii", ascii)] {
        let log = ImaLog::parse(&list).unwrap();
        let pcr10 = log
            .entries()
            .fold(Digest::zero(BANK), |pcr, entry| pcr.extend(&entry.template_digest(BANK).unwrap()).unwrap());
        let quoted = BTreeMap::from([(BANK, pcr10)]);
        let part = list.len() / usize::try_from(ENTRIES).unwrap();
        let entries: Vec<&[u8]> = list.chunks(part).collect();
        let ours = || {
            let log = ImaLog::parse(&list).unwrap();
            let prefix = replay_prefix(&log, &ImaPosition::default(), &quoted, ImaQuirks::default()).unwrap();
            let digests = prefix.entries().filter_map(|entry| entry.measurement()?.file_digest());
            digests.filter(|digest| known.contains(digest)).count()
        };
        assert_eq!(ours(), usize::try_from(ENTRIES).unwrap());
        let twice = || entries.iter().map(|entry| (sha256(&[entry]), sha256(&[entry]))).fold(0, fold);
        let (figure, floor) = turns(ours, twice);
        let count = f64::from(ENTRIES);
        let what = format!("IMA entry ({name}), looked up in 100,000 references");
        table.times(&what, figure / count, "two SHA-256 of its bytes", floor / count);
    }
}

/// Parse and replay of an IMA list, per entry.
pub fn ima(table: &mut Table) {
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

/// Boot logs against hashing each event's data once. A replay alone hashes digests only; the claims hash the data.
pub fn boot_log(table: &mut Table) {
    let recorded = Recording::named("secureboot").unwrap().boot_log().unwrap();
    let mut logs = vec![("recorded in QEMU", recorded)];
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
        let proven = || {
            let log = BootLog::parse(&bytes).unwrap();
            let (replayed, _) = log.explain_quoted(BANK, &quoted, quoted.keys().copied(), BootQuirks::default());
            replayed.claims()
        };
        let (figure, floor) = turns(proven, || sha256(&[&bytes]));
        table.times("parse, held against the quote, claims", figure, "SHA-256 of the log's bytes", floor);
    }
}

struct Rounds<'a> {
    host: &'a Attester,
    ak: AkPublic,
    judge: Judge,
    signers: KeySet,
    key: SoftwareKey,
    nonce: Nonce,
}

impl Rounds<'_> {
    fn bytes(&self, ima_from: u64) -> Vec<u8> {
        let selection = self.judge.policy().selection().clone();
        let reset_count = self.host.clock.reset_count;
        let challenge =
            Challenge { nonce: self.nonce, expires_in_ms: 60_000, selection, ima_from, reset_count, tag: None };
        self.host.sign(self.host.draft(&challenge)).encode()
    }

    fn appraise(&self, bytes: &[u8], endorsed: Endorsed, state: Option<&RoundState>) -> Appraisal {
        let expect = RoundExpectation {
            ak: &self.ak,
            ek_name: &self.host.tpm.ek_name,
            tag_signers: &self.signers,
            tag_serial: None,
            now: NOW,
            nonce: self.nonce,
            selection: self.judge.policy().selection(),
            last: state.map_or(Last::FirstRound, |state| Last::Round(state.counters())),
        };
        let genuine = GenuineEvidence::verify(Evidence::parse(bytes).unwrap(), &expect).unwrap();
        let parsed = ParsedLogs::parse(&genuine);
        let logs = ReplayedLogs::replay(&genuine, &parsed, self.judge.policy(), state).unwrap();
        appraise(&logs, &self.judge, endorsed, "host-1", "ak-1", state, NOW).unwrap()
    }

    fn result(&self, bytes: &[u8], endorsed: Endorsed, state: Option<&RoundState>) -> String {
        let appraisal = self.appraise(bytes, endorsed, state);
        assert!(!appraisal.disproven());
        let issued = NOW.unix_timestamp();
        appraisal.into_result("host-1".to_owned(), issued, issued + 60).sign(&self.key).unwrap()
    }
}

/// From a round's bytes to its signed result, against one verification and one signature.
pub fn appraisal(table: &mut Table, host: &Attester, ca: &Ca) {
    let references = capture_references(&reference_boot().unwrap(), 1).unwrap();
    let references = Arc::new(References::parse(POLICY_NAME, &references).unwrap());
    let policy = AppraisalPolicy::parse(POLICY_NAME, &shipped("appraisal", POLICY_NAME).unwrap()).unwrap();
    let rounds = Rounds {
        host,
        ak: verify_ak(&host.tpm.ak.public).unwrap(),
        judge: Judge::new(Arc::new(policy), &[references]).unwrap(),
        signers: KeySet::new(),
        key: SoftwareKey::from_pkcs8(rcgen::KeyPair::generate().unwrap().serialized_der()).unwrap(),
        nonce: Nonce([9; 32]),
    };
    let simulated = || Endorsed { class: TpmClass::Simulated, findings: Findings::new() };
    let first = rounds.bytes(0);
    let state = rounds.appraise(&first, simulated(), None).state().clone();
    let steady = rounds.bytes(state.ima().entries);

    let message = host.quote(rounds.judge.policy().selection()).build();
    let signature = der(&host.tpm.ak.sign(&message));
    let point = host.tpm.ak.pair.public_key().as_ref();
    let random = SystemRandom::new();
    let least = || {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(&message, &signature).unwrap();
        host.tpm.ak.pair.sign(&random, &message).unwrap()
    };
    let floor_is = "one verification, one signature (P-256)";
    let name = |what: &str, bytes: &[u8]| format!("{what} of {} bytes, to the signed result", bytes.len());
    let (figure, floor) = turns(|| rounds.result(&steady, simulated(), Some(&state)), least);
    table.times(&name("appraisal of a steady round", &steady), figure, floor_is, floor);
    let (figure, floor) = turns(|| rounds.result(&first, simulated(), None), least);
    table.times(&name("appraisal of a first round", &first), figure, floor_is, floor);

    // The class is derived anew in every round.
    let mut bundle = TrustBundle::new();
    bundle.add(TpmClass::Simulated, ca.certificate.pem().as_bytes()).unwrap();
    let certificate = host.ek.certificate.as_deref();
    let (figure, floor) = turns(
        || verify_ek(&host.ek.public, certificate, &[], &bundle, NOW).unwrap(),
        || {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(&message, &signature).unwrap();
        },
    );
    table.times("EK certificate to its class, every round", figure, "one verification (P-256)", floor);
}
