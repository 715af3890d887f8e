//! AK, IAK and IDevID certificates of makers and clouds (third-party evidence, read in place through HOSTMARK_EVIDENCE): each with
//! its known outcome, those beside the quotes included.
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
use hostmark_attest::identity::class::{TpmClass, TrustBundle};
use hostmark_attest::identity::devid::{GenuineIdentity, IdentityKind, read_identity, verify_identity};
use hostmark_attest::tools::read_ak;
use pki::{NOW, refusals};
use time::OffsetDateTime;
use time::macros::datetime;

fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("HOSTMARK_EVIDENCE").map(PathBuf::from);
    if folder.is_none() {
        println!("skipped: HOSTMARK_EVIDENCE is not set");
    }
    folder
}

/// What becomes of a certificate under these CAs.
enum Expect {
    /// A root of the class vouches for it.
    Vouched,
    Refused(&'static [&'static str]),
}
use Expect::{Refused, Vouched};

struct Row {
    file: &'static str,
    kind: IdentityKind,
    /// Whether the key it certifies is fit: SHA-1 and 1024 bits are not.
    cas: &'static [&'static str],
    expect: Expect,
}

const GOOGLE: &[&str] =
    &["iak/go-tpm-tools__CA_EK_AK_CA_Intermediate.c84de811.cer", "iak/go-tpm-tools__CA_EK_AK_CA_Root.59475959.cer"];
const AZURE: &[&str] = &[
    "iak/attested-tls__CA_Azure_Virtual_TPM_Root_Certificate_Authority_2023.e6c596b1.cer",
    "iak/attested-tls__CA_Azure_Cloud_Virtual_TPM_CA_2025.41a1675d.cer",
    "iak/attested-tls__CA_Azure_Cloud_Virtual_TPM_CA_-_24.acad819d.cer",
];
const HPE: &[&str] =
    &["iak/keylime__CA_Isaac_HPE_Intermediate_CA.edd21d39.cer", "iak/keylime__CA_Isaac_HPE_Root_CA.d20f772f.cer"];

const ROWS: [Row; 7] = [
    // Its issuer was never published.
    Row {
        file: "iak/HIRS__hirs_attestation_identity.der",
        kind: IdentityKind::Ak,
        cas: AZURE,
        expect: Refused(&["identity.chain"]),
    },
    // Its issuer, "Global Virtual TPM CA - 03", is not in the collection.
    Row {
        file: "iak/attested-tls__azure_ak_global_ca03.der",
        kind: IdentityKind::Ak,
        cas: AZURE,
        expect: Refused(&["identity.chain"]),
    },
    Row {
        file: "iak/go-tpm-tools__google_ak_ecc_sign_pca.der",
        kind: IdentityKind::Unstated,
        cas: GOOGLE,
        expect: Vouched,
    },
    // Valid until May 2026.
    Row {
        file: "iak/keylime__hpe_idevid.der",
        kind: IdentityKind::IDevId,
        cas: HPE,
        expect: Refused(&["identity.chain"]),
    },
    Row {
        file: "quote/cmc__tpm_test_valid.akcert.pem",
        kind: IdentityKind::Unstated,
        cas: &["quote/cmc__tpm_test_valid.ca.pem"],
        expect: Vouched,
    },
    Row {
        file: "quote/cmc__tpm_test_valid.akcert.pem",
        kind: IdentityKind::Unstated,
        cas: &["quote/cmc__tpm_test_valid.wrong-ca.pem"],
        expect: Refused(&["identity.chain"]),
    },
    Row {
        file: "quote/vaportpm__gcp-amd.akchain.pem",
        kind: IdentityKind::Unstated,
        cas: &["quote/vaportpm__gcp-amd.akchain.pem"],
        expect: Vouched,
    },
];

fn judge(folder: &Path, row: &Row, now: OffsetDateTime) -> Result<GenuineIdentity, Findings> {
    let mut bundle = TrustBundle::new();
    for ca in row.cas {
        bundle.add(TpmClass::Virtual, &std::fs::read(folder.join(ca)).unwrap()).unwrap();
    }
    let file = read_certificate_file(&std::fs::read(folder.join(row.file)).unwrap()).unwrap();
    verify_identity(&file.der, &[], &bundle, now)
}

#[test]
fn real_identity_certificates_have_their_outcomes() {
    let Some(folder) = folder() else { return };
    for row in &ROWS {
        let der = read_certificate_file(&std::fs::read(folder.join(row.file)).unwrap()).unwrap().der;
        assert_eq!(read_identity(&der).unwrap().kind, row.kind, "{}", row.file);
        let outcome = judge(&folder, row, NOW);
        match row.expect {
            Vouched => assert_eq!(outcome.unwrap().class(), TpmClass::Virtual, "{}", row.file),
            Refused(ids) => assert_eq!(refusals(outcome), ids, "{}", row.file),
        }
    }
}

#[test]
fn an_idevid_names_its_device_and_ends_with_its_time() {
    let Some(folder) = folder() else { return };
    let row = ROWS.iter().find(|row| row.kind == IdentityKind::IDevId).unwrap();
    let genuine = judge(&folder, row, datetime!(2025-01-01 0:00 UTC)).unwrap();
    let module = genuine.certificate().hardware_module.clone().unwrap();
    assert!(module.tpm20 && module.hw_serial.starts_with("STM :"), "{module:?}");
    assert!(genuine.certificate().facts.policies.is_empty() && genuine.certificate().verified_by_ca.is_empty());
    for now in [datetime!(2023-08-23 0:00 UTC), datetime!(2026-05-19 0:00 UTC)] {
        assert_eq!(refusals(judge(&folder, row, now)), ["identity.chain"], "{now}");
    }
}

#[test]
fn the_certificate_beside_a_quote_is_its_aks_and_ends_with_its_time() {
    let Some(folder) = folder() else { return };
    let row = &ROWS[6];
    let genuine = judge(&folder, row, OffsetDateTime::from_unix_timestamp(1_770_019_200).unwrap()).unwrap();
    let ak = read_ak(&std::fs::read(folder.join("quote/vaportpm__gcp-amd.ak.pem")).unwrap()).unwrap();
    assert_eq!(*genuine.key(), ak.key);
    for seconds in [1_577_836_800, 2_840_140_800] {
        let now = OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        assert_eq!(refusals(judge(&folder, row, now)), ["identity.chain"], "{now}");
    }
    // cmc's, and the certificate that Google's attestation of 2021 carries for its EK.
    let cmc = judge(&folder, &ROWS[4], NOW).unwrap();
    let ak = read_ak(&std::fs::read(folder.join("quote/cmc__tpm_test_valid.ak.pem")).unwrap()).unwrap();
    assert_eq!(*cmc.key(), ak.key);
}

#[test]
fn no_file_is_left_out() {
    let Some(folder) = folder() else { return };
    let mut known: Vec<String> =
        ROWS.iter().flat_map(|row| [row.file].into_iter().chain(row.cas.iter().copied())).map(str::to_owned).collect();
    // The two CAs of the IDevID in one file.
    let chain = "iak/keylime__iak_idevid_chain.pem";
    let mut bundle = TrustBundle::new();
    bundle.add(TpmClass::Virtual, &std::fs::read(folder.join(chain)).unwrap()).unwrap();
    let idevid = std::fs::read(folder.join("iak/keylime__hpe_idevid.der")).unwrap();
    verify_identity(&idevid, &[], &bundle, datetime!(2025-01-01 0:00 UTC)).unwrap();
    known.push(chain.to_owned());
    known.retain(|name| name.starts_with("iak/"));
    known.sort();
    known.dedup();
    let mut present: Vec<String> = std::fs::read_dir(folder.join("iak"))
        .unwrap()
        .map(|one| format!("iak/{}", one.unwrap().file_name().into_string().unwrap()))
        .collect();
    present.sort();
    assert_eq!(present, known);
}
