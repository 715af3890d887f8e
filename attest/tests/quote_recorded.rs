//! The recorded boots: every quote verifies, below its EK, and nothing near it does.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![allow(clippy::disallowed_methods, reason = "tests read files")]

use std::path::{Path, PathBuf};

use hostmark_attest::counters::{Continuity, Counters, compare};
use hostmark_attest::digest::PcrBanks;
use hostmark_attest::finding::Findings;
use hostmark_attest::quote::{GenuineQuote, QuoteExpectation, verify_quote};
use hostmark_attest::selection::PcrSelection;
use hostmark_attest::tools::{
    Outcome, QuoteFile, QuoteFiles, read_pcr_values, read_serialized_pcrs, verify_quote_files,
};
use hostmark_attest::tpm::attest::Attest;
use hostmark_attest::tpm::name::{RH_ENDORSEMENT, RH_OWNER, qualified_name};
use hostmark_attest::tpm::public::Public;
use hostmark_attest::tpm::signed::Signer;

const NONCE: &[u8] = b"hostmark-recording-nonce-001";
const BOOTS: [(&str, &str); 5] = [
    ("plain", "sha256:0,1,2,3,4,5,6,7,8,9,10,11,14"),
    ("other-cmdline", "sha256:0,1,2,3,4,5,6,7,8,9,10,11,14"),
    ("secureboot", "sha256:0,1,2,3,4,5,6,7,8,9,10,11,14"),
    ("systemd", "sha256:0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"),
    ("systemd-again", "sha256:0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"),
];

fn read(boot: &str, file: &str) -> Vec<u8> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/recorded");
    let path: &Path = &root.join(boot).join(file);
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn verify(boot: &str, selection: &str, nonce: &[u8], ek_of: &str) -> Result<(GenuineQuote, Findings), Findings> {
    let ek = Public::parse_tpm2b(&read(ek_of, "ek.pub")).unwrap();
    let ak = Public::parse_tpm2b(&read(boot, "ak.pub")).unwrap();
    let values = read_serialized_pcrs(&read(boot, "quote.pcrs")).unwrap().unwrap();
    let expect = QuoteExpectation {
        signer: Signer::EnrolledAk { public: &ak, ek_name: ek.name() },
        selection: &PcrSelection::from_text(selection).unwrap(),
        qualifying_data: nonce,
    };
    verify_quote(&read(boot, "quote.msg"), &read(boot, "quote.sig"), &values, &expect)
}

fn ids(findings: &Findings) -> Vec<&str> {
    findings.as_slice().iter().map(|finding| finding.id.as_str()).collect()
}

#[test]
fn every_recorded_quote_verifies_for_its_own_ek() {
    for (boot, selection) in BOOTS {
        let (quote, findings) = verify(boot, selection, NONCE, boot).unwrap_or_else(|f| panic!("{boot}: {f:?}"));
        // An emulated TPM that was not shut down in order says that its clock is not safe; nothing else is to be said.
        assert!(ids(&findings).iter().all(|id| *id == "quote.clock-safe"), "{boot}: {findings:?}");
        let quoted = String::from_utf8(read(boot, "pcrs.quoted.txt")).unwrap();
        let mut told = PcrBanks::new();
        for line in quoted.lines() {
            let [bank, index, value] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let bank = hostmark_attest::digest::HashAlg::from_name(bank).unwrap();
            let value = hostmark_attest::digest::Digest::from_hex(bank, value).unwrap();
            told.entry(bank).or_default().insert(index.parse().unwrap(), value);
        }
        assert_eq!(quote.pcrs(), &told, "{boot}");
    }
}

#[test]
fn the_qualified_signer_is_the_formula() {
    for (boot, _) in BOOTS {
        let ek = Public::parse_tpm2b(&read(boot, "ek.pub")).unwrap();
        let ak = Public::parse_tpm2b(&read(boot, "ak.pub")).unwrap();
        assert_eq!(ak.name().as_bytes(), read(boot, "ak.name"), "{boot}");
        let attest = Attest::parse(&read(boot, "quote.msg")).unwrap();
        let endorsement = qualified_name(RH_ENDORSEMENT, &[ek.name(), ak.name()]).unwrap();
        assert_eq!(attest.qualified_signer, endorsement.as_bytes(), "{boot}");
        let owner = qualified_name(RH_OWNER, &[ek.name(), ak.name()]).unwrap();
        assert_ne!(attest.qualified_signer, owner.as_bytes(), "{boot}");
        assert_eq!(Public::parse(ak.as_bytes()).unwrap(), ak);
    }
}

#[test]
fn near_misses_are_named() {
    let rows: [(&str, &[u8], &str, &str); 4] = [
        (BOOTS[3].1, &NONCE[..27], "systemd", "quote.nonce"),
        (BOOTS[0].1, NONCE, "systemd", "quote.selection"),
        (BOOTS[3].1, NONCE, "systemd-again", "quote.signer"),
        (BOOTS[3].1, b"", "systemd", "quote.nonce"),
    ];
    for (selection, nonce, ek_of, id) in rows {
        let findings = verify("systemd", selection, nonce, ek_of).unwrap_err();
        let errors: Vec<_> = findings
            .as_slice()
            .iter()
            .filter(|finding| finding.severity == hostmark_attest::finding::Severity::Error)
            .map(|finding| finding.id.as_str())
            .collect();
        assert_eq!(errors, [id]);
    }
}

#[test]
fn the_files_of_tpm2_tools_give_a_verdict() {
    for (boot, selection) in BOOTS {
        let (attest, signature) = (read(boot, "quote.msg"), read(boot, "quote.sig"));
        let (ak, pcrs) = (read(boot, "ak.pub"), read(boot, "quote.pcrs"));
        let select = PcrSelection::from_text(selection).unwrap();
        let public = Public::parse_tpm2b(&ak).unwrap();
        let spki = public.key().to_spki().unwrap();
        let pem = {
            use base64::Engine as _;
            let body = base64::engine::general_purpose::STANDARD.encode(&spki);
            format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n\0trailing").into_bytes()
        };
        let bare: Vec<u8> = read_serialized_pcrs(&pcrs)
            .unwrap()
            .unwrap()
            .values()
            .flat_map(|bank| bank.values().flat_map(|value| value.as_bytes().to_vec()))
            .collect();
        assert!(read_serialized_pcrs(&bare).is_none());
        assert!(read_pcr_values(&bare[1..], &select).is_err());
        let wrapped = [u16::try_from(attest.len()).unwrap().to_be_bytes().to_vec(), attest.clone()].concat();
        let whole = QuoteFiles {
            attest: &attest,
            signature: &signature,
            ak: &ak,
            pcrs: &pcrs,
            nonce: NONCE,
            select: Some(&select),
        };
        for files in [
            whole,
            QuoteFiles { attest: &wrapped, ..whole },
            QuoteFiles { ak: public.as_bytes(), ..whole },
            QuoteFiles { ak: &pem, ..whole },
            QuoteFiles { ak: &spki, ..whole },
            QuoteFiles { pcrs: &bare, ..whole },
        ] {
            let verdict = verify_quote_files(&files).unwrap();
            assert_eq!(verdict.verdict, Outcome::Verified, "{boot}: {:?}", verdict.findings);
        }

        let verdict = verify_quote_files(&QuoteFiles { select: None, ..whole }).unwrap();
        assert_eq!(verdict.verdict, Outcome::Verified);
        assert!(verdict.findings.has("quote.selection-unstated"));
        let json = serde_json::to_value(&verdict).unwrap();
        assert_eq!(json["verdict"], "verified");

        let verdict = verify_quote_files(&QuoteFiles { nonce: b"", ..whole }).unwrap();
        assert_eq!(verdict.verdict, Outcome::Refused);
        assert!(verdict.findings.has("quote.nonce"));

        let mut swapped = bare.clone();
        swapped[0] ^= 1;
        let verdict = verify_quote_files(&QuoteFiles { pcrs: &swapped, ..whole }).unwrap();
        assert!(verdict.verdict == Outcome::Refused && verdict.findings.has("quote.pcr-digest"));

        for (files, file) in [
            (QuoteFiles { attest: &attest[..40], ..whole }, QuoteFile::Attest),
            (QuoteFiles { signature: &signature[..40], ..whole }, QuoteFile::Signature),
            (QuoteFiles { ak: &ak[..40], ..whole }, QuoteFile::Ak),
            (QuoteFiles { ak: b"-----BEGIN RUBBISH-----", ..whole }, QuoteFile::Ak),
            (QuoteFiles { pcrs: &bare[..40], ..whole }, QuoteFile::Pcrs),
        ] {
            assert_eq!(verify_quote_files(&files).unwrap_err().file, file);
        }
    }
}

#[test]
fn every_truncation_is_an_error_value() {
    let (attest, signature) = (read("systemd", "quote.msg"), read("systemd", "quote.sig"));
    let (ak, pcrs) = (read("systemd", "ak.pub"), read("systemd", "quote.pcrs"));
    for end in 0..attest.len() {
        assert!(Attest::parse(&attest[..end]).is_err());
    }
    for end in 0..signature.len() {
        assert!(hostmark_attest::tpm::signature::Signature::parse(&signature[..end]).is_err());
    }
    for end in 0..ak.len() {
        assert!(Public::parse_tpm2b(&ak[..end]).is_err());
        assert!(hostmark_attest::tools::read_ak(&ak[..end]).is_err());
    }
    for end in 0..pcrs.len() {
        assert!(read_serialized_pcrs(&pcrs[..end]).is_none_or(|read| read.is_err()));
    }
    for input in [[attest.as_slice(), &[0]].concat(), [signature.as_slice(), &[0]].concat()] {
        assert!(Attest::parse(&input).is_err());
        assert!(hostmark_attest::tpm::signature::Signature::parse(&input).is_err());
    }
}

#[test]
fn a8_counters_that_fall_are_refused() {
    let before = Counters { reset_count: 4, restart_count: 1, clock: 1000 };
    let rows: [(u32, u32, u64, Continuity, &[&str]); 8] = [
        (4, 1, 1000, Continuity::SameBoot, &[]),
        (4, 1, 2000, Continuity::SameBoot, &[]),
        (4, 2, 2000, Continuity::Resumed, &["counters.resumed"]),
        (5, 0, 10, Continuity::Rebooted, &[]),
        (3, 9, 9000, Continuity::Rebooted, &["counters.reset-fell"]),
        (4, 1, 999, Continuity::Rebooted, &["counters.clock-fell"]),
        (4, 0, 2000, Continuity::Rebooted, &["counters.restart-fell"]),
        (4, 2, 999, Continuity::Rebooted, &["counters.clock-fell"]),
    ];
    for (reset_count, restart_count, clock, want, want_ids) in rows {
        let (continuity, findings) = compare(&before, &Counters { reset_count, restart_count, clock });
        assert_eq!((continuity, ids(&findings)), (want, want_ids.to_vec()));
        assert_eq!(findings.acceptable(), want_ids.is_empty() || want_ids == ["counters.resumed"]);
        assert_eq!(continuity.demands_whole_logs(), continuity == Continuity::Rebooted);
    }
}
