//! Signed files and tokens: each counts for one purpose, under one algorithm, over exactly its bytes (ATTACKS.md A22, D3, D11).
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as URL;
use hostmark_attest::identity::tag;
use hostmark_attest::jws::{self, KeySet, Purpose, Signer as _, SoftwareKey};
use hostmark_attest::permit::PERMIT;
use hostmark_attest::policy::{POLICY, REFERENCES};
use hostmark_attest::result::RESULT;
use hostmark_attest::stored_round::STORED_ROUND;

const PURPOSES: [&Purpose; 6] = [&POLICY, &REFERENCES, &tag::PURPOSE, &STORED_ROUND, &PERMIT, &RESULT];

fn key() -> SoftwareKey {
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
    SoftwareKey::from_pkcs8(document.as_ref()).unwrap()
}

#[test]
fn d3_d11_what_is_signed_counts_for_one_purpose_under_one_algorithm() {
    const FILE: &[u8] = b"version = 7\n";
    let (mine, other) = (key(), key());
    let mut keys = KeySet::new();
    keys.insert(mine.kid(), mine.point());
    for (number, purpose) in PURPOSES.into_iter().enumerate() {
        let refused = |token: &str, file: &[u8]| {
            let whole = jws::verify(purpose, token, &keys).err();
            let [head, _, tail] = token.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
            let detached = jws::verify_detached(purpose, file, &format!("{head}..{tail}"), &keys).err();
            let id = |found: Option<hostmark_attest::finding::Findings>| found.map(|one| one.as_slice()[0].id.clone());
            let (whole, detached) = (id(whole), id(detached));
            assert_eq!(whole, detached, "{}", purpose.typ);
            whole
        };
        let good = jws::sign(purpose, FILE, &mine).unwrap();
        assert_eq!(refused(&good, FILE), None, "{}: the honest twin", purpose.typ);

        let [head, body, tail] = good.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
        let headed = |alg: &str| {
            let header = format!(r#"{{"alg":"{alg}","kid":"{}","typ":"{}"}}"#, mine.kid(), purpose.typ);
            format!("{}.{body}.{tail}", URL.encode(header))
        };
        for alg in ["none", "HS256", "ES384", ""] {
            assert_eq!(refused(&headed(alg), FILE).as_deref(), Some(purpose.algorithm), "{alg}");
        }
        for foreign in PURPOSES.into_iter().enumerate().filter(|(other, _)| *other != number).map(|(_, one)| one) {
            let token = jws::sign(foreign, FILE, &mine).unwrap();
            assert_eq!(refused(&token, FILE).as_deref(), Some(purpose.purpose), "{} as {}", foreign.typ, purpose.typ);
        }
        let changed = format!("{head}.{}.{tail}", URL.encode(b"version = 6\n"));
        assert_eq!(refused(&changed, b"version = 6\n").as_deref(), Some(purpose.signature));
        assert_eq!(refused(&jws::sign(purpose, FILE, &other).unwrap(), FILE).as_deref(), Some(purpose.key));
        assert_eq!(refused(&format!("!.{body}.{tail}"), FILE).as_deref(), Some(purpose.malformed));
    }
}
