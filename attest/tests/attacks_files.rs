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
use hostmark_attest::digest::HashAlg;
use hostmark_attest::finding::Findings;
use hostmark_attest::identity::tag::{self, Tag, verify_provisioning};
use hostmark_attest::jws::{self, KeySet, Purpose, Signer as _, SoftwareKey};
use hostmark_attest::permit::{PERMIT, Permit};
use hostmark_attest::policy::{POLICY, REFERENCES};
use hostmark_attest::result::{RESULT, VerifiedResult};
use hostmark_attest::stored_round::STORED_ROUND;
use hostmark_attest::tpm::name::Name;

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
            let id = |found: Option<Findings>| found.map(|one| one.as_slice()[0].id.clone());
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

/// The id of what refuses it.
fn refusal<T>(outcome: Result<T, Findings>) -> Option<String> {
    outcome.err().map(|findings| findings.as_slice()[0].id.clone())
}

#[test]
fn a22_a_signed_tag_has_one_form() {
    let mine = key();
    let mut keys = KeySet::new();
    keys.insert(mine.kid(), mine.point());
    let contents = |payload: &str| {
        let token = jws::sign_detached(&tag::PURPOSE, payload.as_bytes(), &mine).unwrap();
        [&u16::try_from(payload.len()).unwrap().to_be_bytes(), payload.as_bytes(), token.as_bytes()].concat()
    };
    let tag = Tag {
        ek: Name::of(HashAlg::Sha256, b"ek").unwrap(),
        serial: 7,
        label: "internal@a".parse().unwrap(),
        location: "jp-east/rack-7".into(),
        not_before: 1,
        not_after: 2,
    };
    let good = String::from_utf8(tag.to_bytes()).unwrap();
    assert_eq!(verify_provisioning(&contents(&good), &keys).unwrap().tag(), &tag, "the honest twin");
    let serial = good.replace("\"serial\":7,", "");
    for (name, payload) in [
        ("white space", good.replace(',', ", ")),
        ("another order", serial.replace("{\"ek\"", "{\"serial\":7,\"ek\"")),
        ("a field missing", serial),
        ("a field that nobody knows", good.replace('{', "{\"x\":1,")),
        ("a location that is none", good.replace("rack-7", "Rack 7")),
        ("over before it begins", good.replace("\"not_before\":1", "\"not_before\":3")),
        ("longer than any index", good.replace("rack-7", &"r".repeat(2048))),
    ] {
        assert_ne!(payload, good, "{name}");
        assert_eq!(refusal(verify_provisioning(&contents(&payload), &keys)).as_deref(), Some("tag.payload"), "{name}");
    }
    let whole = contents(&good);
    for cut in [&whole[..1], &whole[..whole.len() / 4]] {
        assert_eq!(refusal(verify_provisioning(cut, &keys)).as_deref(), Some("tag.payload"));
    }
}

#[test]
fn d3_a_token_that_lacks_a_claim_is_no_result_and_no_permit() {
    let mine = key();
    let mut keys = KeySet::new();
    keys.insert(mine.kid(), mine.point());
    for payload in [b"{}".as_slice(), br#"{"sub":"h"}"#, b"[]", b""] {
        let token = jws::sign(&RESULT, payload, &mine).unwrap();
        assert_eq!(refusal(VerifiedResult::verify(&token, &keys, "h", 0)).as_deref(), Some("result.claims"));
        let token = jws::sign(&PERMIT, payload, &mine).unwrap();
        assert_eq!(refusal(Permit::verify(&token, &keys, 0)).as_deref(), Some("permit.claims"));
    }
}
