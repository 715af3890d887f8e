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
    Outcome, QuoteFiles, Verdict, read_ak, read_serialized_pcrs, unwrap_attest, verify_quote_files,
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
