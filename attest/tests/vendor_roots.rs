//! The shipped bundle of makers' certificates, configs/trust: each line of its manifest holds, and nothing lies beside it.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reads the shipped files"
)]

#[path = "common/identity.rs"]
mod pki;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hostmark_attest::digest::sha256;
use hostmark_attest::identity::class::{TpmClass, TrustBundle};
use hostmark_attest::identity::ek::verify_ek_certificate;
use hostmark_attest::identity::roca;
use hostmark_attest::tpm::key::PublicKey;
use pki::NOW;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::prelude::X509Certificate;

fn trust() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/trust")
}

/// Class and file, as the manifest names it, of every file below ek/.
fn files() -> Vec<(TpmClass, String)> {
    let mut found = Vec::new();
    for class in std::fs::read_dir(trust().join("ek")).unwrap() {
        let class = class.unwrap().file_name().into_string().unwrap();
        for file in std::fs::read_dir(trust().join("ek").join(&class)).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            found.push((TpmClass::from_name(&class).unwrap(), format!("ek/{class}/{name}")));
        }
    }
    found.sort();
    found
}

fn certificates(file: &str) -> Vec<Vec<u8>> {
    let pem = std::fs::read(trust().join(file)).unwrap();
    CertificateDer::pem_slice_iter(&pem).map(|one| one.unwrap().to_vec()).collect()
}

fn parse(der: &[u8]) -> X509Certificate<'_> {
    let (rest, parsed) = x509_parser::parse_x509_certificate(der).unwrap();
    assert!(rest.is_empty());
    parsed
}

fn bundle() -> TrustBundle {
    let mut bundle = TrustBundle::new();
    for (class, file) in files() {
        bundle.add(class, &std::fs::read(trust().join(file)).unwrap()).unwrap();
    }
    bundle
}

#[test]
fn every_certificate_is_the_one_that_the_manifest_tells() {
    let manifest: toml::Table = std::fs::read_to_string(trust().join("manifest.toml")).unwrap().parse().unwrap();
    assert!(manifest["date"].is_datetime());
    let told = manifest["certificate"].as_array().unwrap();
    let mut held: BTreeMap<String, (TpmClass, String, Vec<u8>)> = BTreeMap::new();
    for (class, file) in files() {
        for der in certificates(&file) {
            assert!(held.insert(hex::encode(sha256(&[&der])), (class, file.clone(), der)).is_none(), "{file}: twice");
        }
    }
    assert_eq!(told.len(), held.len());
    let all: Vec<Vec<u8>> = held.values().map(|(_, _, der)| der.clone()).collect();
    let mut vendors = BTreeMap::new();
    for entry in told {
        let text = |key: &str| entry[key].as_str().unwrap_or_else(|| panic!("{entry}: {key}"));
        let (class, file, der) = held.get(text("sha256")).unwrap_or_else(|| panic!("{entry} is not there"));
        assert_eq!((class.name(), file.as_str()), (text("class"), text("file")));
        assert!(!text("source").is_empty() && !text("verified").is_empty(), "{entry}");
        let parsed = parse(der);
        for (key, time) in [("not_before", parsed.validity().not_before), ("not_after", parsed.validity().not_after)] {
            let shown = time.to_datetime().format(&time::format_description::well_known::Rfc3339).unwrap();
            assert_eq!(entry[key].to_string(), shown, "{entry}");
        }
        let common_name = parsed.subject().iter_common_name().next().unwrap().as_str().unwrap();
        assert!(text("subject").replace('\\', "").contains(common_name), "{entry}");
        assert!(parsed.is_ca(), "{entry}");
        let weak = matches!(
            PublicKey::from_spki(parsed.public_key().raw).unwrap(),
            PublicKey::Rsa { modulus, .. } if roca::is_weak(&modulus)
        );
        assert!(!weak, "{entry}");

        // A root signed itself; anything else was signed by another certificate of the bundle.
        let root = entry["root"].as_bool().unwrap();
        assert_eq!(root, parsed.subject().as_raw() == parsed.issuer().as_raw(), "{entry}");
        let signers = all.iter().filter(|one| parse(one).subject().as_raw() == parsed.issuer().as_raw());
        let verifies = |one: &&Vec<u8>| pki::is_signed_by(der, parse(one).public_key().raw);
        assert!(signers.filter(verifies).any(|one| root == (one == der)), "{entry}: nobody here signed it");
        *vendors.entry(text("vendor").to_owned()).or_insert(0) += 1;
    }
    let names: Vec<&str> = vendors.keys().map(String::as_str).collect();
    assert_eq!(names, ["AMD", "Google", "Infineon", "Intel", "Microsoft", "Nationz", "Nuvoton", "STMicroelectronics"]);
    // What is missing is said, with what to do instead.
    for entry in manifest["absent"].as_array().unwrap() {
        assert!(
            ["vendor", "what", "instead"].iter().all(|key| entry[*key].as_str().is_some_and(|one| !one.is_empty()))
        );
    }
    let _ = bundle();
}

#[test]
fn real_ek_certificates_chain_to_it() {
    let Some(folder) = std::env::var_os("HOSTMARK_EVIDENCE").map(|root| Path::new(&root).join("ekcert")) else {
        println!("skipped: HOSTMARK_EVIDENCE is not set");
        return;
    };
    let mut bundle = bundle();
    for quirk in ["no-eku", "critical-policies"] {
        bundle.tolerate(quirk).unwrap();
    }
    let rows = [
        ("PCVT_TPM20__slb9665_rsa_ca003.der", TpmClass::Hardware),
        ("guard-oss__npct75x_rsa.der", TpmClass::Hardware),
        ("keylime__st33htphahb4_rsa.der", TpmClass::Hardware),
        ("paccor__st33htphahd4_rsa.der", TpmClass::Hardware),
        ("kunpengsecl__z32h330tc_rsa.der", TpmClass::Hardware),
        ("go-tpm-kit__intel_ptt_spt_rsa.der", TpmClass::Firmware),
        ("go-tpm-tools__google_vtpm_rsa_cos85.der", TpmClass::Virtual),
        ("go-tpm-tools__google_vtpm_ecc_enc_pca.der", TpmClass::Virtual),
    ];
    for (name, class) in rows {
        let certificate = std::fs::read(folder.join(name)).unwrap();
        let (found, findings) = verify_ek_certificate(&certificate, &[], &bundle, NOW);
        assert_eq!((found, findings.acceptable()), (class, true), "{name}: {findings:?}");
    }
    // A simulator's certificate does not, whatever it says.
    let swtpm = std::fs::read(folder.join("salrashid123-tpm2__swtpm_rsa2048.der")).unwrap();
    let (found, findings) = verify_ek_certificate(&swtpm, &[], &bundle, NOW);
    assert!(found == TpmClass::Unverified && findings.has("ek.chain"), "{findings:?}");
}
