//! Signatures and hashes by themselves: one thread, no network, no store.

use std::hint::black_box;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, KeyPair as _, ParsedPublicKey, UnparsedPublicKey};
use hostmark_attest::digest::{HashAlg, sha256};
use hostmark_attest::quote::{QuoteExpectation, verify_quote};
use hostmark_attest::selection::PcrSelection;
use hostmark_attest::tpm::signed::Signer;
use hostmark_tests::forge::SoftwareTpm;

use crate::measure::{Table, turns};

/// The bank that is judged.
pub const BANK: HashAlg = HashAlg::Sha256;

/// The DER (RFC 3279 2.2.3) of a TPMT_SIGNATURE as the software TPM writes it: ECDSA, r and s padded to 32 bytes. It is what
/// verifies fastest, so the floors verify it.
pub fn der(signature: &[u8]) -> Vec<u8> {
    let integer = |padded: &[u8]| {
        let zeros = padded.iter().take_while(|byte| **byte == 0).count();
        let sign = if padded[zeros] >= 0x80 { vec![0] } else { Vec::new() };
        let number = [sign.as_slice(), &padded[zeros..]].concat();
        [[2, u8::try_from(number.len()).unwrap()].as_slice(), &number].concat()
    };
    let both = [integer(&signature[6..38]), integer(&signature[40..72])].concat();
    [[0x30, u8::try_from(both.len()).unwrap()].as_slice(), &both].concat()
}

/// A quote of 12 PCRs, P-256, against its signature alone.
pub fn quote(table: &mut Table) {
    let tpm = SoftwareTpm::new();
    let selection = PcrSelection::one(BANK, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]).unwrap();
    let nonce = [7; 32];
    let attest = tpm.quote(&selection, &nonce).build();
    let (signature, values) = (tpm.ak.sign(&attest), tpm.values(&selection));
    let expect = QuoteExpectation {
        signer: Signer::EnrolledAk { public: &tpm.ak.public, ek_name: &tpm.ek_name },
        selection: &selection,
        qualifying_data: &nonce,
    };
    let point = tpm.ak.pair.public_key().as_ref();
    let bare = der(&signature);
    let ours = || verify_quote(&attest, &signature, &values, &expect).unwrap();
    let (figure, floor) =
        turns(ours, || UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(&attest, &bare).unwrap());
    table.goal("quote of 12 PCRs, P-256", figure, "the bare signature, key as bytes", floor, 1.15);
    let parsed = ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).unwrap();
    let (figure, floor) = turns(ours, || parsed.verify_sig(&attest, &bare).unwrap());
    table.times("the same", figure, "the bare signature, key parsed before", floor);
}

/// The library's SHA-256 against another implementation: the floors below hash with the library's.
pub fn hashing(table: &mut Table) {
    let bytes = vec![0x5a; 1 << 20];
    for (name, size) in [("SHA-256 of 64 bytes", 64), ("SHA-256 of 1 MiB", 1 << 20)] {
        let part = &bytes[..size];
        let (figure, floor) =
            turns(|| sha256(&[part]), || aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, black_box(part)));
        table.times(name, figure, "the same in aws-lc", floor);
    }
}
