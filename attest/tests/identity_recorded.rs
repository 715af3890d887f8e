//! EK certificates, EKs and AKs of the recorded boots (testdata/recorded): swtpm's local CA gives class `simulated`.
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

use std::path::PathBuf;

use hostmark_attest::identity::ak::verify_ak;
use hostmark_attest::identity::class::{TpmClass, TrustBundle};
use hostmark_attest::identity::ek::verify_ek;
use hostmark_attest::tpm::attest::Attest;
use hostmark_attest::tpm::name::{RH_ENDORSEMENT, qualified_name};
use hostmark_attest::tpm::public::Public;
use pki::{NOW, refusals};

const BOOTS: [&str; 5] = ["plain", "other-cmdline", "secureboot", "systemd", "systemd-again"];

fn read(path: &str) -> Vec<u8> {
    std::fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/recorded").join(path)).unwrap()
}

fn swtpm_bundle() -> TrustBundle {
    let mut bundle = TrustBundle::new();
    for file in ["swtpm-localca-rootca-cert.pem", "swtpm-localca-issuer-cert.pem"] {
        bundle.add(TpmClass::Simulated, &read(file)).unwrap();
    }
    bundle
}

#[test]
fn recorded_eks_are_simulated_and_only_with_their_own_certificate() {
    let bundle = swtpm_bundle();
    let mut ids = Vec::new();
    for boot in BOOTS {
        let public = Public::parse_tpm2b(&read(&format!("{boot}/ek.pub"))).unwrap();
        let rsa = read(&format!("{boot}/ekcert-rsa.der"));
        let genuine = verify_ek(&public, Some(&rsa), &[], &bundle, NOW).unwrap();
        assert_eq!(genuine.class(), TpmClass::Simulated);
        ids.push(*genuine.id());
        let ecc = read(&format!("{boot}/ekcert-ecc384.der"));
        let refused = verify_ek(&public, Some(&ecc), &[], &bundle, NOW);
        assert_eq!(refusals(refused), ["ek.key-mismatch"], "{boot}: the ECC certificate is for the other EK");
        let nobody = verify_ek(&public, Some(&rsa), &[], &TrustBundle::new(), NOW);
        assert_eq!(refusals(nobody), ["ek.chain"], "{boot}: an empty bundle trusts nothing");
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), BOOTS.len(), "each boot has a TPM of its own");
}

#[test]
fn recorded_aks_live_under_their_eks_in_the_endorsement_hierarchy() {
    for boot in BOOTS {
        let ek = Public::parse_tpm2b(&read(&format!("{boot}/ek.pub"))).unwrap();
        let ak = Public::parse_tpm2b(&read(&format!("{boot}/ak.pub"))).unwrap();
        assert_eq!(ak.name().as_bytes(), read(&format!("{boot}/ak.name")));
        // tpm2_createak sets no noDA; everything else is as hostd makes it.
        assert_eq!(refusals(verify_ak(&ak)), ["ak.no-da"], "{boot}");
        let quote = Attest::parse(&read(&format!("{boot}/quote.msg"))).unwrap();
        let place = qualified_name(RH_ENDORSEMENT, &[ek.name(), ak.name()]).unwrap();
        assert_eq!(quote.qualified_signer, place.as_bytes(), "{boot}");
    }
}
