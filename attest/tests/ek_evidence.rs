//! EK certificates of real TPMs (third-party evidence, read in place through HOSTMARK_EVIDENCE): each maker's chain and its outcome.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reads its fixtures"
)]

#[path = "common/identity.rs"]
mod pki;

use std::path::{Path, PathBuf};

use hostmark_attest::finding::Findings;
use hostmark_attest::identity::class::{TpmClass, TrustBundle};
use hostmark_attest::identity::ek::{GenuineEk, verify_ek};
use hostmark_attest::tpm::key::PublicKey;
use hostmark_attest::tpm::public::Public;
use pki::{EK_ATTRIBUTES, NOW, refusals};

/// What becomes of a certificate.
enum Expect {
    /// The class, and the ids of its advice.
    Accepted(TpmClass, &'static [&'static str]),
    Refused(&'static [&'static str]),
}
use Expect::{Accepted, Refused};

const ROWS: [(&str, Expect); 11] = [
    ("PCVT_TPM20__slb9665_rsa_ca003.der", Accepted(TpmClass::Hardware, &[])),
    ("guard-oss__npct75x_rsa.der", Accepted(TpmClass::Hardware, &[])),
    ("keylime__st33htphahb4_rsa.der", Accepted(TpmClass::Hardware, &["ek.quirk.critical-policies"])),
    ("paccor__st33htphahd4_rsa.der", Accepted(TpmClass::Hardware, &["ek.quirk.critical-policies"])),
    ("kunpengsecl__z32h330tc_rsa.der", Accepted(TpmClass::Hardware, &[])),
    ("go-tpm-kit__intel_ptt_spt_rsa.der", Accepted(TpmClass::Firmware, &["ek.quirk.critical-policies"])),
    ("go-tpm-tools__google_vtpm_rsa_cos85.der", Accepted(TpmClass::Virtual, &[])),
    ("go-tpm-tools__google_vtpm_ecc_enc_pca.der", Accepted(TpmClass::Virtual, &["ek.quirk.no-eku"])),
    ("salrashid123-tpm2__swtpm_rsa2048.der", Accepted(TpmClass::Simulated, &[])),
    // TPM 1.2: SHA-1 signatures, and a key that is bound to OAEP in the certificate.
    ("HIRS__st33zp24_tpm12_oaep.der", Refused(&["ek.algorithm", "ek.key-mismatch"])),
    ("HIRS__npct6xx_tpm12_oaep.der", Refused(&["ek.algorithm", "ek.key-mismatch"])),
];

fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("HOSTMARK_EVIDENCE").map(|root| Path::new(&root).join("ekcert"));
    if folder.is_none() {
        eprintln!("skipped: HOSTMARK_EVIDENCE is not set");
    }
    folder
}

/// The class into whose directory an operator would put this CA, by its file's name.
fn class(name: &str) -> TpmClass {
    match () {
        () if name.contains("swtpm") => TpmClass::Simulated,
        () if name.contains("EK_AK_CA") || name.contains("tpm_ek_v1_cloud") => TpmClass::Virtual,
        () if name.contains("Intel") || name.contains("AMD") => TpmClass::Firmware,
        () => TpmClass::Hardware,
    }
}

fn bundle(folder: &Path) -> TrustBundle {
    let mut bundle = TrustBundle::new();
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.contains("__CA") {
            bundle.add(class(&name), &std::fs::read(&path).unwrap()).unwrap_or_else(|error| panic!("{name}: {error}"));
            count += 1;
        }
    }
    assert!(count > 25, "{count} CA certificates");
    bundle
}

/// The public area that a TPM with this certificate has.
fn public_of(certificate: &[u8]) -> Public {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).unwrap();
    match PublicKey::from_spki(parsed.public_key().raw) {
        Ok(key) => pki::ek_of(&key, EK_ATTRIBUTES),
        // TPM 1.2's rsaesOaep: any EK stands in.
        Err(_) => pki::ek_rsa(2048),
    }
}

fn judge(bundle: &TrustBundle, certificate: &[u8]) -> Result<GenuineEk, Findings> {
    verify_ek(&public_of(certificate), Some(certificate), &[], bundle, NOW)
}

#[test]
fn real_ek_certificates_have_their_outcomes() {
    let Some(folder) = folder() else { return };
    let strict = bundle(&folder);
    let mut bundle = strict.clone();
    for quirk in ["no-eku", "critical-policies"] {
        bundle.tolerate(quirk).unwrap();
    }
    let mut wrong = Vec::new();
    for (name, expect) in ROWS {
        let certificate = std::fs::read(folder.join(name)).unwrap();
        let outcome = judge(&bundle, &certificate);
        let right = match (&expect, &outcome) {
            (Accepted(class, advice), Ok(genuine)) => {
                let given: Vec<_> = genuine.advice().as_slice().iter().map(|one| one.id.as_str()).collect();
                genuine.class() == *class && given == *advice
            }
            (Refused(ids), Err(_)) => refusals(outcome.clone()) == *ids,
            _ => false,
        };
        // A quirk that nobody tolerates refuses.
        let by_quirk = matches!(expect, Accepted(_, advice) if !advice.is_empty());
        let strictly = judge(&strict, &certificate);
        if !right || by_quirk != (outcome.is_ok() && strictly.is_err()) {
            wrong.push(format!("{name}: {outcome:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_whole_nv_index_needs_its_quirk() {
    let Some(folder) = folder() else { return };
    let mut bundle = bundle(&folder);
    let exact = std::fs::read(folder.join("kunpengsecl__z32h330tc_rsa.der")).unwrap();
    let padded = std::fs::read(folder.join("kunpengsecl__z32h330tc_rsa.nvraw1500.bin")).unwrap();
    assert!(padded.starts_with(&exact), "the index is the certificate and padding");
    judge(&bundle, &exact).unwrap();
    assert_eq!(refusals(judge(&bundle, &padded)), ["ek.certificate"]);
    bundle.tolerate("nv-padding").unwrap();
    assert!(judge(&bundle, &padded).unwrap().advice().has("ek.quirk.nv-padding"));
}
