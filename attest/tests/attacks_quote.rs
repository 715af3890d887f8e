//! Attack rows A1–A28 that a quote answers: the exact finding, the honest twin in the same test, a software TPM that signs
//! for real.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;

use common::{AK_ATTRIBUTES, SoftwareKey, SoftwareTpm, certify_info, quote_info, tpm2b, tpmt_public_rsa};
use hostmark_attest::digest::{Digest, HashAlg, PcrBanks};
use hostmark_attest::finding::{Findings, Severity};
use hostmark_attest::quote::{QuoteExpectation, verify_quote};
use hostmark_attest::selection::{BankSelection, PcrSelection};
use hostmark_attest::tools::{Outcome, QuoteFiles, read_ak, read_serialized_pcrs, verify_quote_files};
use hostmark_attest::tpm::attest::{Attest, AttestType};
use hostmark_attest::tpm::name::{RH_ENDORSEMENT, RH_OWNER};
use hostmark_attest::tpm::public::Public;
use hostmark_attest::tpm::signature::Signature;
use hostmark_attest::tpm::signed::{Expectation, Ids, QUOTE, Signer, TAG, TLS_KEY, verify_attest};
use proptest::prelude::*;

const NONCE: [u8; 32] = [0x5a; 32];

fn select(text: &str) -> PcrSelection {
    PcrSelection::from_text(text).unwrap()
}

/// Ids of the findings that refuse; empty when the quote is genuine.
fn refusals(
    tpm: &SoftwareTpm,
    ak: &Public,
    attest: &[u8],
    signature: &[u8],
    values: &PcrBanks,
    list: &str,
) -> Vec<String> {
    let expect = QuoteExpectation {
        signer: Signer::EnrolledAk { public: ak, ek_name: &tpm.ek_name },
        selection: &select(list),
        qualifying_data: &NONCE,
    };
    match verify_quote(attest, signature, values, &expect) {
        Ok((_, findings)) => {
            assert!(findings.acceptable());
            Vec::new()
        }
        Err(findings) => errors(&findings),
    }
}

fn errors(findings: &Findings) -> Vec<String> {
    let errors = findings.as_slice().iter().filter(|finding| finding.severity == Severity::Error);
    errors.map(|finding| finding.id.clone()).collect()
}

/// The honest quote over `list`.
fn honest(tpm: &SoftwareTpm, list: &str) {
    let attest = tpm.quote(&select(list), &NONCE).build();
    let none = refusals(tpm, &tpm.ak.public, &attest, &tpm.ak.sign(&attest), &tpm.values(&select(list)), list);
    assert!(none.is_empty(), "the honest twin: {none:?}");
}

const LIST: &str = "sha256:0,1,2,3,4,5,6,7";

#[test]
fn a1_outside_data_signed_by_the_restricted_ak() {
    let tpm = SoftwareTpm::new();
    honest(&tpm, LIST);
    let mut lie = tpm.quote(&select(LIST), &NONCE);
    lie.magic = 0x4654_4347;
    for outside in [lie.build(), b"outside data".to_vec()] {
        let got = refusals(&tpm, &tpm.ak.public, &outside, &tpm.ak.sign(&outside), &tpm.values(&select(LIST)), LIST);
        assert_eq!(got, ["quote.magic"]);
    }
}

#[test]
fn a1b_right_magic_signed_by_another_key() {
    let tpm = SoftwareTpm::new();
    honest(&tpm, LIST);
    let attest = tpm.quote(&select(LIST), &NONCE).build();
    for other in [SoftwareKey::tls(), SoftwareKey::ak()] {
        let got = refusals(&tpm, &tpm.ak.public, &attest, &other.sign(&attest), &tpm.values(&select(LIST)), LIST);
        assert_eq!(got, ["quote.signature"]);
    }
}

#[test]
fn a4_quote_of_another_host_with_equal_pcrs() {
    let (tpm, other) = (SoftwareTpm::new(), SoftwareTpm::new());
    honest(&tpm, LIST);
    honest(&other, LIST);
    let attest = other.quote(&select(LIST), &NONCE).build();
    let got = refusals(&tpm, &tpm.ak.public, &attest, &other.ak.sign(&attest), &tpm.values(&select(LIST)), LIST);
    assert_eq!(got, ["quote.signature"]);
}

#[test]
fn a5_values_not_selected_and_empty_selection() {
    let tpm = SoftwareTpm::new();
    honest(&tpm, LIST);
    let attest = tpm.quote(&select(LIST), &NONCE).build();
    let signature = tpm.ak.sign(&attest);
    let more = tpm.values(&select("sha256:0,1,2,3,4,5,6,7,10"));
    assert_eq!(refusals(&tpm, &tpm.ak.public, &attest, &signature, &more, LIST), ["quote.values-unselected"]);
    let mut other_bank = tpm.values(&select(LIST));
    other_bank.extend(tpm.values(&select("sha1:0")));
    assert_eq!(refusals(&tpm, &tpm.ak.public, &attest, &signature, &other_bank, LIST), ["quote.values-unselected"]);
    let fewer = tpm.values(&select("sha256:0,1,2,3,4,5,6"));
    assert_eq!(refusals(&tpm, &tpm.ak.public, &attest, &signature, &fewer, LIST), ["quote.values-missing"]);

    // A required PCR is missing from the quote; nothing at all is quoted.
    let nothing = PcrSelection::new(vec![BankSelection { bank: HashAlg::Sha256, bitmap: 0 }]);
    for (quoted, expected) in [
        (select("sha256:0,1,2,3,4,5,6"), select(LIST)),
        (PcrSelection::default(), select(LIST)),
        (nothing.clone(), select(LIST)),
        (nothing.clone(), nothing.clone()),
        (PcrSelection::default(), PcrSelection::default()),
    ] {
        let attest = tpm.quote(&quoted, &NONCE).build();
        let expect = QuoteExpectation {
            signer: Signer::EnrolledAk { public: &tpm.ak.public, ek_name: &tpm.ek_name },
            selection: &expected,
            qualifying_data: &NONCE,
        };
        let findings = verify_quote(&attest, &tpm.ak.sign(&attest), &tpm.values(&quoted), &expect).unwrap_err();
        assert_eq!(errors(&findings), ["quote.selection"]);
    }
}

#[test]
fn a6_split_selection_that_shifts_positions() {
    let list = "sha256:0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23";
    let mut tpm = SoftwareTpm::new();
    honest(&tpm, list);
    // PCR 16 was reset and extended to the value that PCR 4 should have; PCR 4 itself is left out.
    let wanted = Digest::new(HashAlg::Sha256, &[0x44; 32]).unwrap();
    tpm.set(HashAlg::Sha256, 16, wanted);
    let one = |bitmap| BankSelection { bank: HashAlg::Sha256, bitmap };
    let split = PcrSelection::new(vec![one(0x0f), one(1 << 16), one(0x00ff_ffe0)]);
    let attest = tpm.quote(&split, &NONCE).build();
    let mut forged = tpm.values(&select(list));
    forged.get_mut(&HashAlg::Sha256).unwrap().insert(4, wanted);
    // The composite over the expected list is the signed digest: only the list's equality tells.
    let (whole, split_info) = (quote_info(&select(list), &forged), quote_info(&split, &tpm.pcrs));
    assert_eq!(whole[whole.len() - 32..], split_info[split_info.len() - 32..]);
    let got = refusals(&tpm, &tpm.ak.public, &attest, &tpm.ak.sign(&attest), &forged, list);
    assert_eq!(got, ["quote.selection"]);
    honest(&tpm, list);
}

#[test]
fn a7_another_bank_or_order_of_banks() {
    let tpm = SoftwareTpm::new();
    for honest_list in [LIST, "sha1:0,1+sha256:0,1"] {
        honest(&tpm, honest_list);
    }
    for (quoted, expected) in [
        ("sha1:0,1,2,3,4,5,6,7", LIST),
        ("sha256:0,1+sha1:0,1", "sha1:0,1+sha256:0,1"),
        ("sha1:0,1+sha256:0,1", "sha256:0,1"),
    ] {
        let attest = tpm.quote(&select(quoted), &NONCE).build();
        let values = tpm.values(&select(quoted));
        let got = refusals(&tpm, &tpm.ak.public, &attest, &tpm.ak.sign(&attest), &values, expected);
        assert_eq!(got, ["quote.selection"]);
    }
}

#[test]
fn a14_key_sizes_are_refused_before_any_signature_work() {
    let tpm = SoftwareTpm::new();
    honest(&tpm, LIST);
    let attest = tpm.quote(&select(LIST), &NONCE).build();
    for (bits, bytes) in [(1024u16, 128usize), (16384, 2048)] {
        let ak = Public::parse(&tpmt_public_rsa(AK_ATTRIBUTES, bits, &vec![0xc1; bytes])).unwrap();
        let signature = [&[0x00, 0x14, 0x00, 0x0b], tpm2b(&vec![0x11; bytes]).as_slice()].concat();
        let got = refusals(&tpm, &ak, &attest, &signature, &tpm.values(&select(LIST)), LIST);
        assert_eq!(got, ["quote.key-size"]);
    }
    // The AK's own public area, its curve relabelled as P-521 (and as BN-256).
    for curve in [5u8, 0x10] {
        let mut raw = tpm.ak.public.as_bytes().to_vec();
        let at = raw.len() - (2 + 2 + 2 + 32 + 2 + 32) + 1;
        assert_eq!(raw[at], 3);
        raw[at] = curve;
        let ak = Public::parse(&raw).unwrap();
        let got = refusals(&tpm, &ak, &attest, &tpm.ak.sign(&attest), &tpm.values(&select(LIST)), LIST);
        assert_eq!(got, ["quote.key-size"]);
    }
}

#[test]
fn a14_a23_no_attestation_of_any_type_counts_under_a_weak_key_or_hash() {
    let tpm = SoftwareTpm::new();
    let quote = tpm.quote(&select(LIST), &NONCE);
    let certify = tpm.certify(&SoftwareKey::tls().public, &NONCE);
    let nv = tpm.nv_certify(tpm.ek_name.as_bytes(), 0, b"tag", &NONCE);
    let short = Public::parse(&tpmt_public_rsa(AK_ATTRIBUTES, 1024, &[0xc1; 128])).unwrap();
    let by_short = [&[0x00, 0x14, 0x00, 0x0b], tpm2b(&[0x11; 128]).as_slice()].concat();
    for (ids, kind, attest) in
        [(&QUOTE, AttestType::Quote, quote), (&TLS_KEY, AttestType::Certify, certify), (&TAG, AttestType::Nv, nv)]
    {
        let judge = |key: &Public, attest: &[u8], signature: &[u8]| {
            let signer = Signer::BareKey { key: key.key(), scheme: None };
            verify_attest(attest, signature, &Expectation { ids, kind, signer, qualifying_data: &NONCE })
        };
        let honest = attest.build();
        let (_, told) = judge(&tpm.ak.public, &honest, &tpm.ak.sign(&honest)).unwrap();
        assert!(told.as_slice().is_empty(), "{told:?}");
        assert_eq!(errors(&judge(&short, &honest, &by_short).unwrap_err()), [ids.key_size]);
        let mut sha1 = tpm.ak.sign(&honest);
        sha1[3] = 0x04;
        assert_eq!(errors(&judge(&tpm.ak.public, &honest, &sha1).unwrap_err()), [ids.sha1]);

        // Not a refusal: a TPM that lost its power in disorder is told.
        let mut unsafe_clock = attest.clone();
        unsafe_clock.clock_info.safe = false;
        let unsafe_clock = unsafe_clock.build();
        let (_, told) = judge(&tpm.ak.public, &unsafe_clock, &tpm.ak.sign(&unsafe_clock)).unwrap();
        assert!(told.has(ids.clock_safe) && told.worst() == Some(Severity::Info), "{told:?}");

        let mut long = attest;
        long.body.push(0);
        let long = long.build();
        assert_eq!(errors(&judge(&tpm.ak.public, &long, &tpm.ak.sign(&long)).unwrap_err()), [ids.malformed]);
        assert_eq!(errors(&judge(&tpm.ak.public, &honest, &[0, 0x10]).unwrap_err()), [ids.malformed]);
    }
}

#[test]
fn a15_qualifying_data_padded_truncated_prefixed() {
    let tpm = SoftwareTpm::new();
    honest(&tpm, LIST);
    let hex_text = hex::encode(NONCE).into_bytes();
    let rows: [Vec<u8>; 6] = [
        [NONCE.as_slice(), &[0; 1]].concat(),
        [&[0; 1], NONCE.as_slice()].concat(),
        NONCE[..31].to_vec(),
        Vec::new(),
        hex_text,
        [0x5b; 32].to_vec(),
    ];
    for extra_data in rows {
        let attest = tpm.quote(&select(LIST), &extra_data).build();
        let got = refusals(&tpm, &tpm.ak.public, &attest, &tpm.ak.sign(&attest), &tpm.values(&select(LIST)), LIST);
        assert_eq!(got, ["quote.nonce"]);
    }
}

#[test]
fn a17_relabelled_or_changed_values() {
    let tpm = SoftwareTpm::new();
    let list = "sha256:0,23";
    honest(&tpm, list);
    let attest = tpm.quote(&select(list), &NONCE).build();
    let signature = tpm.ak.sign(&attest);
    // PCR 23 was quoted; the unsigned part calls it 10, and the verifier asked for 10.
    let mut relabelled = tpm.values(&select(list));
    let bank = relabelled.get_mut(&HashAlg::Sha256).unwrap();
    let value = bank.remove(&23).unwrap();
    bank.insert(10, value);
    assert_eq!(refusals(&tpm, &tpm.ak.public, &attest, &signature, &relabelled, "sha256:0,10"), ["quote.selection"]);
    assert_eq!(
        refusals(&tpm, &tpm.ak.public, &attest, &signature, &relabelled, list),
        ["quote.values-unselected", "quote.values-missing"]
    );
    let mut changed = tpm.values(&select(list));
    changed.get_mut(&HashAlg::Sha256).unwrap().insert(23, Digest::zero(HashAlg::Sha256));
    assert_eq!(refusals(&tpm, &tpm.ak.public, &attest, &signature, &changed, list), ["quote.pcr-digest"]);
    // The bank's map says sha256, the digest says sha1.
    let mut confused = tpm.values(&select(list));
    confused.get_mut(&HashAlg::Sha256).unwrap().insert(23, Digest::zero(HashAlg::Sha1));
    assert_eq!(refusals(&tpm, &tpm.ak.public, &attest, &signature, &confused, list), ["quote.values-missing"]);
}

#[test]
fn a20_attestations_of_another_type() {
    let tpm = SoftwareTpm::new();
    honest(&tpm, LIST);
    let tls = SoftwareKey::tls();
    let quote = tpm.quote(&select(LIST), &NONCE);
    let certify = tpm.certify(&tls.public, &NONCE);
    let nv = tpm.nv_certify(tls.public.name().as_bytes(), 0, b"tag", &NONCE);
    let mut other = quote.clone();
    other.kind = AttestType::Other(0x8019);
    for lie in [&certify, &nv, &other] {
        let attest = lie.build();
        let got = refusals(&tpm, &tpm.ak.public, &attest, &tpm.ak.sign(&attest), &tpm.values(&select(LIST)), LIST);
        assert_eq!(got, ["quote.type"]);
    }

    // The reverse, and the honest twin of each.
    let rows: [(&'static Ids, AttestType, [&common::AttestBuilder; 2], &common::AttestBuilder, &str); 2] = [
        (&TLS_KEY, AttestType::Certify, [&quote, &nv], &certify, "tls-key.type"),
        (&TAG, AttestType::Nv, [&quote, &certify], &nv, "tag.type"),
    ];
    for (ids, kind, lies, truth, id) in rows {
        let signer = Signer::EnrolledAk { public: &tpm.ak.public, ek_name: &tpm.ek_name };
        let expect = Expectation { ids, kind, signer, qualifying_data: &NONCE };
        let attest = truth.build();
        assert_eq!(verify_attest(&attest, &tpm.ak.sign(&attest), &expect).unwrap().0.attest().kind(), kind);
        for lie in lies {
            let attest = lie.build();
            let findings = verify_attest(&attest, &tpm.ak.sign(&attest), &expect).unwrap_err();
            assert_eq!(errors(&findings), [id]);
        }
    }
}

#[test]
fn a23_sha1_in_the_scheme_or_in_the_signature() {
    let tpm = SoftwareTpm::new();
    honest(&tpm, LIST);
    let attest = tpm.quote(&select(LIST), &NONCE).build();
    let mut signature = tpm.ak.sign(&attest);
    signature[3] = 0x04;
    let values = tpm.values(&select(LIST));
    assert_eq!(refusals(&tpm, &tpm.ak.public, &attest, &signature, &values, LIST), ["quote.sha1"]);

    // A key whose scheme is SHA-1, signing with SHA-256 all the same.
    let old = SoftwareTpm { ak: SoftwareKey::new(AK_ATTRIBUTES, Some((0x0018, HashAlg::Sha1))), ..SoftwareTpm::new() };
    let attest = old.quote(&select(LIST), &NONCE).build();
    let got = refusals(&old, &old.ak.public, &attest, &old.ak.sign(&attest), &old.values(&select(LIST)), LIST);
    assert_eq!(got, ["quote.sha1"]);

    // Another hash than the key's, and another family.
    let mut sha384 = tpm.ak.sign(&attest);
    sha384[3] = 0x0c;
    let rsa = [&[0x00, 0x14, 0x00, 0x0b], tpm2b(&[1; 256]).as_slice()].concat();
    for signature in [sha384, rsa] {
        let got = refusals(&tpm, &tpm.ak.public, &attest, &signature, &values, LIST);
        assert_eq!(got, ["quote.algorithm"]);
    }
}

#[test]
fn a28_ak_in_the_owner_hierarchy() {
    let tpm = SoftwareTpm::new();
    honest(&tpm, LIST);
    let mut attest = tpm.quote(&select(LIST), &NONCE);
    let direct = hostmark_attest::tpm::name::qualified_name(RH_ENDORSEMENT, &[tpm.ak.public.name()]).unwrap();
    for qualified_signer in [tpm.qualified_signer(RH_OWNER), direct.as_bytes().to_vec(), Vec::new()] {
        attest.qualified_signer = qualified_signer;
        let attest = attest.build();
        let got = refusals(&tpm, &tpm.ak.public, &attest, &tpm.ak.sign(&attest), &tpm.values(&select(LIST)), LIST);
        assert_eq!(got, ["quote.signer"]);
    }
}

#[test]
fn an_unsafe_clock_is_told_and_refuses_nothing() {
    let tpm = SoftwareTpm::new();
    let mut attest = tpm.quote(&select(LIST), &NONCE);
    attest.clock_info.safe = false;
    let attest = attest.build();
    let expect = QuoteExpectation {
        signer: Signer::EnrolledAk { public: &tpm.ak.public, ek_name: &tpm.ek_name },
        selection: &select(LIST),
        qualifying_data: &NONCE,
    };
    let (quote, findings) = verify_quote(&attest, &tpm.ak.sign(&attest), &tpm.values(&select(LIST)), &expect).unwrap();
    assert!(findings.has("quote.clock-safe") && findings.worst() == Some(Severity::Info));
    assert_eq!(quote.signer(), Some(tpm.ak.public.name()));
    assert_eq!(quote.clock_info().reset_count, 7);
}

#[test]
fn malformed_structures_are_a_finding() {
    let tpm = SoftwareTpm::new();
    let values = tpm.values(&select(LIST));
    let mut wide = tpm.quote(&select(LIST), &NONCE);
    wide.body = [0u32.to_be_bytes().as_slice(), &tpm2b(&[0; 32])].concat();
    wide.body[3] = 1;
    wide.body.splice(4..4, [0x00, 0x0b, 5, 1, 0, 0, 0, 0]);
    let mut long = tpm.quote(&select(LIST), &NONCE);
    long.body.push(0);
    let mut certify = tpm.quote(&select(LIST), &NONCE);
    certify.body = certify_info(b"", b"");
    for attest in [wide.build(), long.build(), certify.build()] {
        let got = refusals(&tpm, &tpm.ak.public, &attest, &tpm.ak.sign(&attest), &values, LIST);
        assert_eq!(got, ["quote.malformed"]);
    }
    let attest = tpm.quote(&select(LIST), &NONCE).build();
    assert_eq!(refusals(&tpm, &tpm.ak.public, &attest, &[0, 0x10], &values, LIST), ["quote.malformed"]);
}

#[test]
fn an_unrestricted_ak_is_told_by_the_offline_tool() {
    let tpm = SoftwareTpm::new();
    let unrestricted = SoftwareTpm { ak: SoftwareKey::tls(), ..SoftwareTpm::new() };
    for (tpm, told) in [(&tpm, false), (&unrestricted, true)] {
        let attest = tpm.quote(&select(LIST), &NONCE).build();
        let pcrs: Vec<u8> =
            tpm.values(&select(LIST))[&HashAlg::Sha256].values().flat_map(|one| one.as_bytes().to_vec()).collect();
        let verdict = verify_quote_files(&QuoteFiles {
            attest: &attest,
            signature: &tpm.ak.sign(&attest),
            ak: tpm.ak.public.as_bytes(),
            pcrs: &pcrs,
            nonce: &NONCE,
            select: Some(&select(LIST)),
        })
        .unwrap();
        assert_eq!((verdict.verdict, verdict.findings.has("quote.ak-unrestricted")), (Outcome::Verified, told));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn no_flipped_bit_verifies(at in 0usize..4096, bit in 0u8..8) {
        let tpm = SoftwareTpm::new();
        let mut attest = tpm.quote(&select(LIST), &NONCE).build();
        let mut signature = tpm.ak.sign(&attest);
        let total = attest.len() + signature.len();
        let at = at % total;
        match at.checked_sub(attest.len()) {
            None => attest[at] ^= 1 << bit,
            Some(at) => signature[at] ^= 1 << bit,
        }
        let got = refusals(&tpm, &tpm.ak.public, &attest, &signature, &tpm.values(&select(LIST)), LIST);
        prop_assert!(!got.is_empty());
    }
    #[test]
    fn no_bytes_panic(noise in proptest::collection::vec(any::<u8>(), 0..300), at in any::<prop::sample::Index>()) {
        // Noise alone, and noise written over a real structure, which gets further into each parser.
        let tpm = SoftwareTpm::new();
        let attest = tpm.quote(&select(LIST), &NONCE).build();
        let signature = tpm.ak.sign(&attest);
        for real in [Vec::new(), attest, signature, tpm.ak.public.as_bytes().to_vec(), vec![1; 668]] {
            let mut input = real.clone();
            let start = at.index(real.len() + 1);
            input.truncate(start);
            input.extend(&noise);
            input.extend(real.iter().skip(start + noise.len()));
            let _ = (Attest::parse(&input), Signature::parse(&input), Public::parse(&input), Public::parse_tpm2b(&input));
            let _ = (read_ak(&input), read_serialized_pcrs(&input));
        }
    }
}
