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
use hostmark_attest::identity::certificate::read_certificate_file;
use hostmark_attest::identity::class::{QUIRKS, TpmClass, TrustBundle};
use hostmark_attest::identity::ek::{GenuineEk, verify_ek};
use hostmark_attest::identity::ek_certificate::inspect_ek_certificate;
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

const ROWS: [(&str, Expect, &str); 11] = [
    ("PCVT_TPM20__slb9665_rsa_ca003.der", Accepted(TpmClass::Hardware, &[]), "IFX (Infineon) SLB 9665 5.40"),
    (
        "guard-oss__npct75x_rsa.der",
        Accepted(TpmClass::Hardware, &["ek.quirk.unsorted-set"]),
        "NTC (Nuvoton) NPCT75x 7.2",
    ),
    (
        "keylime__st33htphahb4_rsa.der",
        Accepted(TpmClass::Hardware, &["ek.quirk.explicit-default", "ek.quirk.critical-policies"]),
        "STM (STMicroelectronics) ST33HTPHAHB4 73.4",
    ),
    (
        "paccor__st33htphahd4_rsa.der",
        Accepted(TpmClass::Hardware, &["ek.quirk.critical-policies"]),
        "STM (STMicroelectronics) ST33HTPHAHD4 1.257",
    ),
    ("kunpengsecl__z32h330tc_rsa.der", Accepted(TpmClass::Hardware, &[]), "NTZ (Nationz) Z32H330TC 7.81"),
    (
        "go-tpm-kit__intel_ptt_spt_rsa.der",
        Accepted(TpmClass::Firmware, &["ek.quirk.explicit-default", "ek.quirk.critical-policies"]),
        "INTC (Intel) SPT 2.0",
    ),
    (
        "go-tpm-tools__google_vtpm_rsa_cos85.der",
        Accepted(TpmClass::Virtual, &["ek.quirk.explicit-default"]),
        "GOOG (Google) vTPM 8214.1297",
    ),
    (
        "go-tpm-tools__google_vtpm_ecc_enc_pca.der",
        Accepted(TpmClass::Virtual, &["ek.quirk.explicit-default", "ek.quirk.no-eku"]),
        "",
    ),
    ("salrashid123-tpm2__swtpm_rsa2048.der", Accepted(TpmClass::Simulated, &[]), "id:00001014 swtpm 8228.293"),
    // TPM 1.2: SHA-1 signatures, whatever is tolerated of the key.
    ("HIRS__st33zp24_tpm12_oaep.der", Refused(&["ek.algorithm"]), "STM (STMicroelectronics) ST33ZP24PVSP 13.12"),
    ("HIRS__npct6xx_tpm12_oaep.der", Refused(&["ek.algorithm"]), "NTC (Nuvoton) NPCT6xx 5.129"),
];

/// The same certificate as a TPM's index or a tool's file holds it.
const WRAPPED: [(&str, &str, &str); 3] = [
    ("HIRS__npct6xx_tpm12_oaep.padded.cer", "HIRS__npct6xx_tpm12_oaep.der", "ek.quirk.nv-padding"),
    ("HIRS__st33zp24_tpm12_oaep.nvraw_7byte_header.bin", "HIRS__st33zp24_tpm12_oaep.der", "ek.quirk.nv-header"),
    ("kunpengsecl__z32h330tc_rsa.nvraw1500.bin", "kunpengsecl__z32h330tc_rsa.der", "ek.quirk.nv-padding"),
];

/// What a CA's certificate is: whose signature it bears.
enum Signed {
    ByItself,
    By(&'static str),
}
use Signed::{By, ByItself};

const CAS: [(&str, Signed); 31] = [
    ("go-tpm-tools__CA_EK_AK_CA_Intermediate.c84de811.cer", By("go-tpm-tools__CA_EK_AK_CA_Root.59475959.cer")),
    ("go-tpm-tools__CA_EK_AK_CA_Root.59475959.cer", ByItself),
    (GOOGLE_2020, By(GOOGLE_ROOT)),
    (GOOGLE_2021, By(GOOGLE_ROOT)),
    (GOOGLE_ROOT, ByItself),
    ("guard-oss__CA_IFX_TPM_EK_Intermediate_CA_08.608dd48f.cer", By("guard-oss__CA_IFX_TPM_EK_Root_CA.7df2c375.cer")),
    ("guard-oss__CA_IFX_TPM_EK_Root_CA.7df2c375.cer", By(VERISIGN)),
    ("guard-oss__CA_Intel_TPM_EK_intermediate_for_GLK_EPID_PROD_pid_7.291f8cd7.cer", By(INTEL_ROOT)),
    ("guard-oss__CA_Intel_TPM_EK_intermediate_for_SPTH_EPID_PROD.e365738e.cer", By(INTEL_ROOT)),
    (INTEL_ROOT, ByItself),
    (
        "guard-oss__CA_Nationz_TPM_Manufacturing_CA_001.01f984f6.cer",
        By("guard-oss__CA_Nationz_TPM_Root_CA.1293d71d.cer"),
    ),
    ("guard-oss__CA_Nationz_TPM_Root_CA.1293d71d.cer", ByItself),
    // Signed with SHA-1: a root's own signature proves nothing anyway, and no leaf below it is accepted.
    ("guard-oss__CA_Nuvoton_TPM_Root_CA_2010.970b1cb0.cer", ByItself),
    (VERISIGN, ByItself),
    ("salrashid123-tpm2__CA_swtpm-localca-rootca.0b046a7a.cer", ByItself),
    ("salrashid123-tpm2__CA_swtpm-localca.73f4ab04.cer", By("salrashid123-tpm2__CA_swtpm-localca-rootca.0b046a7a.cer")),
    (GLOBALSIGN_ECC, ByItself),
    (GLOBALSIGN, ByItself),
    ("tpm-ca-certificates__CA_Infineon_OPTIGA_TM_RSA_Manufacturing_CA_003.5bd8f015.cer", By(INFINEON_ROOT)),
    ("tpm-ca-certificates__CA_Infineon_OPTIGA_TM_RSA_Manufacturing_CA_007.cfc15fe7.cer", By(INFINEON_ROOT)),
    ("tpm-ca-certificates__CA_Infineon_OPTIGA_TM_RSA_Manufacturing_CA_029.fc7160ea.cer", By(INFINEON_ROOT)),
    (INFINEON_ROOT, ByItself),
    ("tpm-ca-certificates__CA_Nuvoton_TPM_Root_CA_1110.2782e51a.cer", ByItself),
    ("tpm-ca-certificates__CA_Nuvoton_TPM_Root_CA_2111.cd8185ff.cer", ByItself),
    ("tpm-ca-certificates__CA_STM_TPM_ECC_Intermediate_CA_01.015bcfc3.cer", By(STM_ECC_ROOT)),
    (STM_ECC_ROOT, By(GLOBALSIGN_ECC)),
    ("tpm-ca-certificates__CA_STM_TPM_EK_Intermediate_CA_02.dc62a3b9.cer", By(STM_ROOT)),
    ("tpm-ca-certificates__CA_STM_TPM_EK_Intermediate_CA_05.870fc181.cer", By(STM_ROOT)),
    ("tpm-ca-certificates__CA_STM_TPM_EK_Intermediate_CA_06.9343d2d7.cer", By(STM_ROOT)),
    (STM_ROOT, By(GLOBALSIGN)),
    ("tpm-ca-certificates__CAonly_AMD_AMDTPM.14aac9fd.cer", ByItself),
];
const GOOGLE_2020: &str = "go-tpm-tools__CA_tpm_ek_v1_cloud_host-signer-0-2020-10-22T14_02_08-07_00_K_1.5d8dbcf8.cer";
const GOOGLE_2021: &str = "go-tpm-tools__CA_tpm_ek_v1_cloud_host-signer-0-2021-10-12T04_22_11-07_00_K_1.7132b6ea.cer";
const GOOGLE_ROOT: &str = "go-tpm-tools__CA_tpm_ek_v1_cloud_host_root-signer-0-2018-04-06T10_58_26-07_00.9bd5285f.cer";
const VERISIGN: &str = "guard-oss__CA_VeriSign_Trusted_Platform_Module_Root_CA.967bb3d4.cer";
const INTEL_ROOT: &str = "guard-oss__CA_Intel_TPM_EK_root_cert_signing.2e1b3ba7.cer";
const INFINEON_ROOT: &str = "tpm-ca-certificates__CA_Infineon_OPTIGA_TM_RSA_Root_CA.899e3547.cer";
const STM_ROOT: &str = "tpm-ca-certificates__CA_STM_TPM_EK_Root_CA.f8e37a86.cer";
const STM_ECC_ROOT: &str = "tpm-ca-certificates__CA_STM_TPM_ECC_Root_CA_01.c541d7e5.cer";
const GLOBALSIGN: &str = "tpm-ca-certificates__CA_GlobalSign_Trusted_Platform_Module_Root_CA.f27bf02c.cer";
const GLOBALSIGN_ECC: &str = "tpm-ca-certificates__CA_GlobalSign_Trusted_Platform_Module_ECC_Root_CA.5a8c7b5e.cer";

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
    for (name, _) in CAS {
        bundle
            .add(class(name), &std::fs::read(folder.join(name)).unwrap())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    bundle
}

/// The public area that a TPM with this certificate has.
fn public_of(certificate: &[u8]) -> Public {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).unwrap();
    let spki = parsed.public_key();
    // TPM 1.2's key is bound to OAEP in the certificate.
    let key = PublicKey::from_spki(spki.raw)
        .unwrap_or_else(|_| PublicKey::from_rsa_public_key(&spki.subject_public_key.data).unwrap());
    pki::ek_of(&key, EK_ATTRIBUTES)
}

fn judge(bundle: &TrustBundle, certificate: &[u8]) -> Result<GenuineEk, Findings> {
    verify_ek(&public_of(certificate), Some(certificate), &[], bundle, NOW)
}

#[test]
fn real_ek_certificates_have_their_outcomes() {
    let Some(folder) = folder() else { return };
    let strict = bundle(&folder);
    let mut bundle = strict.clone();
    for quirk in ["no-eku", "critical-policies", "rsaes-oaep"] {
        bundle.tolerate(quirk).unwrap();
    }
    let mut wrong = Vec::new();
    for (name, expect, tpm) in ROWS {
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
        // By itself it says the same of the TPM.
        let alone = inspect_ek_certificate(&certificate).unwrap();
        let read = alone.tpm.as_ref().map_or_else(String::new, ToString::to_string);
        assert_eq!(read, tpm, "{name}");
        if let Ok(genuine) = &outcome {
            assert_eq!(genuine.tpm(), alone.tpm.as_ref(), "{name}");
        }
        assert_eq!(alone.findings.has("ek.algorithm"), outcome.is_err(), "{name}: {:?}", alone.findings);
        assert!(!alone.findings.has("ek.roca"), "{name}");
        // A quirk that loosens a check refuses where nobody tolerates it.
        let loosens = |id: &&str| QUIRKS.iter().any(|one| one.loosens && id.ends_with(one.id));
        let by_quirk = matches!(expect, Accepted(_, advice) if advice.iter().any(loosens));
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

#[test]
fn a_tpm_12_key_needs_its_quirk() {
    let Some(folder) = folder() else { return };
    let mut bundle = bundle(&folder);
    bundle.tolerate("critical-policies").unwrap();
    for name in ["HIRS__st33zp24_tpm12_oaep.der", "HIRS__npct6xx_tpm12_oaep.der"] {
        let certificate = std::fs::read(folder.join(name)).unwrap();
        assert_eq!(refusals(judge(&bundle, &certificate)), ["ek.algorithm", "ek.key-mismatch"], "{name}");
    }
}

#[test]
fn a_certificate_is_found_in_what_wraps_it() {
    let Some(folder) = folder() else { return };
    for (name, exact, quirk) in WRAPPED {
        let read = read_certificate_file(&std::fs::read(folder.join(name)).unwrap()).unwrap();
        assert_eq!(read.der, std::fs::read(folder.join(exact)).unwrap(), "{name}");
        let ids: Vec<_> = read.findings.as_slice().iter().map(|one| one.id.as_str()).collect();
        assert_eq!(ids, [quirk], "{name}");
    }
}

#[test]
fn every_ca_is_signed_by_the_one_it_names() {
    let Some(folder) = folder() else { return };
    for (name, signed) in CAS {
        let der = std::fs::read(folder.join(name)).unwrap();
        let issuer = match signed {
            ByItself => der.clone(),
            By(issuer) => std::fs::read(folder.join(issuer)).unwrap(),
        };
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
        let (_, issuer) = x509_parser::parse_x509_certificate(&issuer).unwrap();
        assert_eq!(certificate.issuer().as_raw(), issuer.subject().as_raw(), "{name}");
        assert!(pki::is_signed_by(&der, issuer.public_key().raw), "{name}");
        assert_eq!(
            matches!(signed, ByItself),
            certificate.issuer().as_raw() == certificate.subject().as_raw(),
            "{name}"
        );
    }
}

#[test]
fn no_file_is_left_out() {
    let Some(folder) = folder() else { return };
    let mut known: Vec<&str> = ROWS.iter().map(|row| row.0).collect();
    known.extend(WRAPPED.iter().map(|row| row.0));
    known.extend(CAS.iter().map(|row| row.0));
    known.sort_unstable();
    let mut present: Vec<String> =
        std::fs::read_dir(&folder).unwrap().map(|one| one.unwrap().file_name().into_string().unwrap()).collect();
    present.sort();
    assert_eq!(present, known);
}
