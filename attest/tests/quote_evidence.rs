//! Third-party quotes, read in place through HOSTMARK_EVIDENCE: each gives the outcome that its collector verified.
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

use hostmark_attest::digest::{Digest, HashAlg, PcrBanks};
use hostmark_attest::finding::Severity;
use hostmark_attest::tools::{
    Outcome, QuoteFiles, QuoteVerdict as Verdict, read_ak, read_serialized_pcrs, unwrap_attest, verify_quote_files,
};
use hostmark_attest::tpm::attest::{Attest, Attested};
use hostmark_attest::tpm::key::PublicKey;
use hostmark_attest::tpm::name::{Name, RH_ENDORSEMENT, RH_OWNER, qualified_name};
use hostmark_attest::tpm::public::Public;
use serde_json::Value;

fn folder() -> Option<PathBuf> {
    let Some(root) = std::env::var_os("HOSTMARK_EVIDENCE") else {
        println!("skipped: HOSTMARK_EVIDENCE is not set");
        return None;
    };
    Some(Path::new(&root).join("quote"))
}

/// The first of these files that exists.
fn read(folder: &Path, name: &str, endings: &[&str]) -> Option<Vec<u8>> {
    endings.iter().find_map(|ending| std::fs::read(folder.join(format!("{name}.{ending}"))).ok())
}

/// The values that the source states beside the quote.
fn stated_values(meta: &Value) -> PcrBanks {
    let mut banks = PcrBanks::new();
    for (bank, values) in meta["pcrs"].as_object().into_iter().flatten() {
        let alg = HashAlg::from_name(bank).unwrap();
        for (index, value) in values.as_object().unwrap() {
            let value = Digest::from_hex(alg, value.as_str().unwrap()).unwrap();
            banks.entry(alg).or_default().insert(index.parse().unwrap(), value);
        }
    }
    banks
}

fn errors(verdict: &Verdict) -> Vec<&str> {
    let errors = verdict.findings.as_slice().iter().filter(|finding| finding.severity == Severity::Error);
    errors.map(|finding| finding.id.as_str()).collect()
}

#[test]
fn every_quote_gives_its_known_outcome() {
    let Some(folder) = folder() else { return };
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_suffix(".meta.json")?.to_owned()))
        .collect();
    names.sort();
    assert!(names.len() >= 19, "{names:?}");
    let (mut verified, mut refused, mut skipped) = (0, 0, 0);
    for name in &names {
        let meta: Value = serde_json::from_slice(&read(&folder, name, &["meta.json"]).unwrap()).unwrap();
        let attest = read(&folder, name, &["quote.bin"]).unwrap();
        let told = &meta["attest"];

        // What the collector read in it is what we read.
        let read_back = Attest::parse(unwrap_attest(&attest)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(hex::encode(&read_back.qualified_signer), told["qualifiedSigner"], "{name}");
        assert_eq!(hex::encode(&read_back.extra_data), told["extraData_hex"], "{name}");
        assert_eq!(read_back.clock_info.clock, told["clock"], "{name}");
        assert_eq!(read_back.clock_info.reset_count, told["resetCount"], "{name}");
        assert_eq!(read_back.clock_info.restart_count, told["restartCount"], "{name}");
        assert_eq!(u8::from(read_back.clock_info.safe), told["safe"], "{name}");
        assert_eq!(format!("{:016x}", read_back.firmware_version), told["firmwareVersion"], "{name}");
        let Attested::Quote { selection, pcr_digest } = &read_back.attested else { panic!("{name}") };
        assert_eq!(hex::encode(pcr_digest), told["pcrDigest"], "{name}");
        let lists: Vec<Value> = selection
            .banks()
            .iter()
            .map(|one| serde_json::json!({ "bank": one.bank.name(), "pcrs": one.indices().collect::<Vec<_>>() }))
            .collect();
        assert_eq!(Value::from(lists), told["pcrSelect"], "{name}");

        let Some(ak) = read(&folder, name, &["ak.pem"]) else {
            println!("skipped: {name}: no AK is known");
            skipped += 1;
            continue;
        };
        let signature = read(&folder, name, &["sig.bin", "sig.raw"]).unwrap();
        let nonce = hex::decode(meta["nonce_hex"].as_str().unwrap()).unwrap();
        let stated = stated_values(&meta);
        let tools_file = read(&folder, name, &["quotepcr.tools.bin", "pcrblob.tools.bin"]);
        let pcrs = tools_file.clone().unwrap_or_else(|| {
            let banks = selection.banks().iter();
            let all = banks.flat_map(|one| one.indices().map(move |index| (one.bank, index)));
            all.flat_map(|(bank, index)| {
                let value = stated.get(&bank).and_then(|bank| bank.get(&index)).copied();
                value.unwrap_or_else(|| Digest::zero(bank)).as_bytes().to_vec()
            })
            .collect()
        });
        let files = QuoteFiles {
            attest: &attest,
            signature: &signature,
            ak: &ak,
            pcrs: &pcrs,
            nonce: &nonce,
            select: Some(selection),
        };
        let verdict = verify_quote_files(&files).unwrap_or_else(|error| panic!("{name}: {error}"));
        let notes = meta["collector_verification"].to_string();
        let want: &[&str] = if notes.contains("signature INVALID") {
            &["quote.signature"]
        } else if stated.is_empty() && tools_file.is_none() {
            // The source holds no values: zeros stand in for them, and must be noticed.
            &["quote.pcr-digest"]
        } else {
            &[]
        };
        assert_eq!(errors(&verdict), want, "{name}: {:?}", verdict.findings);
        assert_eq!(verdict.findings.has("quote.signature-bare"), notes.contains("no TPMT_SIGNATURE header"), "{name}");
        if verdict.verdict == Outcome::Verified {
            verified += 1
        } else {
            refused += 1
        }

        // Near it, nothing verifies.
        for at in [attest.len() - 1, attest.len() / 2, 8] {
            let mut flipped = attest.clone();
            flipped[at] ^= 1;
            let verdict = verify_quote_files(&QuoteFiles { attest: &flipped, ..files });
            assert!(verdict.is_err() || verdict.is_ok_and(|one| one.verdict == Outcome::Refused), "{name}");
        }
        let longer = [nonce.as_slice(), &[0]].concat();
        let verdict = verify_quote_files(&QuoteFiles { nonce: &longer, ..files }).unwrap();
        assert_eq!(verdict.verdict, Outcome::Refused, "{name}");
    }
    println!("{verified} verified, {refused} refused as told, {skipped} skipped");
    assert!(verified >= 15);
}

#[test]
fn public_areas_and_names_are_those_of_the_source() {
    let Some(folder) = folder() else { return };
    let name = "keylime__test-data_swtpm";
    let ak = Public::parse_tpm2b(&read(&folder, name, &["akpub.tpm2b.bin"]).unwrap()).unwrap();
    let ek = Public::parse_tpm2b(&read(&folder, name, &["ekpub.tpm2b.bin"]).unwrap()).unwrap();
    assert_eq!(ak.name().as_bytes(), read(&folder, name, &["ak.name.bin"]).unwrap());
    assert_eq!(*ak.key(), read_ak(&read(&folder, name, &["ak.pem"]).unwrap()).unwrap().key);
    let attest = Attest::parse(&read(&folder, name, &["quote.bin"]).unwrap()).unwrap();
    let chain: [&Name; 2] = [ek.name(), ak.name()];
    assert_eq!(qualified_name(RH_ENDORSEMENT, &chain).unwrap().as_bytes(), attest.qualified_signer);
    assert_ne!(qualified_name(RH_OWNER, &chain).unwrap().as_bytes(), attest.qualified_signer);
    assert!(read_serialized_pcrs(&read(&folder, name, &["quotepcr.tools.bin"]).unwrap()).unwrap().is_ok());

    let name = "go-tpm-tools__gce-cos-85-nonce9009";
    let ak = Public::parse(&read(&folder, name, &["akpub.tpmt.bin"]).unwrap()).unwrap();
    assert!(matches!(ak.key(), PublicKey::Rsa { .. }) && ak.key().weakness().is_none());
    assert_eq!(*ak.key(), read_ak(&read(&folder, name, &["sha256.ak.pem"]).unwrap()).unwrap().key);
}

#[test]
fn a_der_signature_is_the_same_signature() {
    let Some(folder) = folder() else { return };
    let name = "vaportpm__gcp-amd";
    let meta: Value = serde_json::from_slice(&read(&folder, name, &["meta.json"]).unwrap()).unwrap();
    let attest = read(&folder, name, &["quote.bin"]).unwrap();
    let values = stated_values(&meta);
    let pcrs: Vec<u8> =
        values.values().flat_map(|bank| bank.values().flat_map(|one| one.as_bytes().to_vec())).collect();
    let verdict = verify_quote_files(&QuoteFiles {
        attest: &attest,
        signature: &read(&folder, name, &["sig.der"]).unwrap(),
        ak: &read(&folder, name, &["ak.pem"]).unwrap(),
        pcrs: &pcrs,
        nonce: &hex::decode(meta["nonce_hex"].as_str().unwrap()).unwrap(),
        select: None,
    })
    .unwrap();
    assert_eq!(verdict.verdict, Outcome::Verified, "{:?}", verdict.findings);
    assert!(verdict.findings.has("quote.signature-bare") && verdict.findings.has("quote.selection-unstated"));
}

/// What stands beside the quotes, and where it is tested: here, with the identity certificates, with the boot logs; or what holds one of
/// those in its source's own wrapping.
const COMPANIONS: [&str; 31] = [
    // This file's.
    "meta.json",
    "quote.bin",
    "sig.bin",
    "sig.raw",
    "sig.der",
    "ak.pem",
    "ak.name.bin",
    "akpub.tpm2b.bin",
    "akpub.tpmt.bin",
    "ekpub.tpm2b.bin",
    "quotepcr.tools.bin",
    "pcrblob.tools.bin",
    // iak_evidence.rs, boot_log_evidence.rs.
    "akcert.pem",
    "akchain.pem",
    "ca.pem",
    "wrong-ca.pem",
    "ekak_cert.der",
    "eventlog.bin",
    // Wrappings of the above.
    "json",
    "evidence-trimmed.json",
    "pb",
    "token",
    "txt",
    // A credential for keylime's EK; TEE evidence of hosts whose vTPM quoted.
    "mkcred.bin",
    "hcl-report.bin",
    "snp-report.bin",
    "td-quote.bin",
    "vcek.der",
    // Per bank.
    "sha1.",
    "sha256.",
    "sha384.",
];

#[test]
fn no_file_is_left_out() {
    let Some(folder) = folder() else { return };
    let files: Vec<String> =
        std::fs::read_dir(&folder).unwrap().map(|one| one.unwrap().file_name().into_string().unwrap()).collect();
    let quotes: Vec<&str> = files.iter().filter_map(|name| name.strip_suffix(".quote.bin")).collect();
    assert_eq!(quotes.len(), 19);
    for name in &files {
        let kind = name.split_once("__").and_then(|(_, rest)| rest.split_once('.')).map_or("", |(_, kind)| kind);
        let known = COMPANIONS.iter().any(|one| kind == *one || (one.ends_with('.') && kind.starts_with(one)));
        assert!(known, "{name} has no test");
    }
    // Each quote has what every_quote_gives_its_known_outcome reads.
    for quote in quotes {
        assert!(files.contains(&format!("{quote}.meta.json")), "{quote}");
    }
}

#[test]
fn a_credential_is_the_one_that_its_ek_and_ak_frame() {
    let Some(folder) = folder() else { return };
    let name = "keylime__test-data_swtpm";
    let credential = read(&folder, name, &["mkcred.bin"]).unwrap();
    let ek = Public::parse_tpm2b(&read(&folder, name, &["ekpub.tpm2b.bin"]).unwrap()).unwrap();
    // tpm2_makecredential: magic, version, TPM2B_ID_OBJECT, TPM2B_ENCRYPTED_SECRET.
    let mut reader = hostmark_attest::bytes::Reader::new(&credential);
    assert_eq!((reader.be32("magic").unwrap(), reader.be32("version").unwrap()), (0xbadc_c0de, 1));
    let (blob, secret) = (reader.tpm2b(256, "blob").unwrap(), reader.tpm2b(512, "secret").unwrap());
    assert!(reader.is_empty() && !blob.is_empty());
    assert_eq!(Some(secret.len() * 8), ek.key().bits());
}
