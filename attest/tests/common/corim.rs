//! Signed CoRIMs made by hand, piece by piece, so that each piece can be wrong.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(unreachable_pub, missing_docs, reason = "shared by test binaries")]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
};

/// The head of an item: major type and argument, in the shortest form.
pub fn head(major: u8, argument: u64) -> Vec<u8> {
    let first = major << 5;
    match argument {
        0..24 => vec![first | argument as u8],
        24..=0xff => vec![first | 24, argument as u8],
        0x100..=0xffff => [&[first | 25], (argument as u16).to_be_bytes().as_slice()].concat(),
        0x1_0000..=0xffff_ffff => [&[first | 26], (argument as u32).to_be_bytes().as_slice()].concat(),
        _ => [&[first | 27], argument.to_be_bytes().as_slice()].concat(),
    }
}

pub fn int(number: i64) -> Vec<u8> {
    if number < 0 { head(1, (-1 - number).unsigned_abs()) } else { head(0, number.unsigned_abs()) }
}

pub fn bytes(content: &[u8]) -> Vec<u8> {
    [head(2, content.len() as u64), content.to_vec()].concat()
}

pub fn text(content: &str) -> Vec<u8> {
    [head(3, content.len() as u64), content.as_bytes().to_vec()].concat()
}

pub fn array(items: &[Vec<u8>]) -> Vec<u8> {
    [head(4, items.len() as u64), items.concat()].concat()
}

/// A map with numbered keys, in the order given.
pub fn map(pairs: &[(i64, Vec<u8>)]) -> Vec<u8> {
    named(&pairs.iter().map(|(key, value)| (int(*key), value.clone())).collect::<Vec<_>>())
}

/// A map with any keys.
pub fn named(pairs: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let body: Vec<u8> = pairs.iter().flat_map(|(key, value)| [key.clone(), value.clone()].concat()).collect();
    [head(5, pairs.len() as u64), body].concat()
}

pub fn tag(number: u64, content: &[u8]) -> Vec<u8> {
    [head(6, number), content.to_vec()].concat()
}

/// Seconds since 1970, as the draft tags them.
pub fn time(seconds: i64) -> Vec<u8> {
    tag(1, &int(seconds))
}

/// A validity-map.
pub fn period(from: Option<i64>, until: i64) -> Vec<u8> {
    let mut pairs: Vec<(i64, Vec<u8>)> = from.map(|from| (0, time(from))).into_iter().collect();
    pairs.push((1, time(until)));
    map(&pairs)
}

/// SHA-256 of a register or file whose bytes are all `byte`.
pub fn sha256(byte: u8) -> Vec<u8> {
    array(&[int(1), bytes(&[byte; 32])])
}

/// Integrity registers, under no key: PCR → digest.
pub fn registers(pcrs: &[(i64, u8)]) -> Vec<u8> {
    let list: Vec<_> = pcrs.iter().map(|(pcr, byte)| (*pcr, array(&[sha256(*byte)]))).collect();
    map(&[(1, map(&[(14, map(&list))]))])
}

/// A file's digest, with the path as the key.
pub fn file(path: &str, byte: u8) -> Vec<u8> {
    map(&[(0, text(path)), (1, map(&[(2, array(&[sha256(byte)]))]))])
}

/// An environment of a vendor and a model.
pub fn class(vendor: &str, model: &str) -> Vec<u8> {
    map(&[(0, map(&[(1, text(vendor)), (2, text(model))]))])
}

/// A reference triple.
pub fn reference(environment: Vec<u8>, measurements: &[Vec<u8>]) -> Vec<u8> {
    array(&[environment, array(measurements)])
}

/// A CoMID with these triples by kind, tagged.
pub fn comid(id: &str, triples: &[(i64, Vec<u8>)]) -> Vec<u8> {
    tag(506, &bytes(&map(&[(1, map(&[(0, text(id))])), (4, map(triples))])))
}

/// A CoRIM with these tags and further keys, tagged.
pub fn corim(tags: &[Vec<u8>], more: &[(i64, Vec<u8>)]) -> Vec<u8> {
    let mut pairs = vec![(0, text("corim-1")), (1, array(tags))];
    pairs.extend_from_slice(more);
    tag(501, &map(&pairs))
}

/// A payload that has a bit of everything that is taken over: two PCRs and a file of one environment.
pub fn payload() -> Vec<u8> {
    let triple = reference(class("ACME", "R340"), &[registers(&[(0, 0xaa), (4, 0xbb)]), file("/usr/bin/a", 0x01)]);
    corim(&[comid("comid-1", &[(0, array(&[triple]))])], &[])
}

/// A key that signs CoRIMs.
pub struct Author {
    pair: EcdsaKeyPair,
    pub alg: i64,
}

impl Author {
    pub fn p256() -> Self {
        Self { pair: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(), alg: -7 }
    }

    pub fn p384() -> Self {
        Self { pair: EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap(), alg: -35 }
    }

    /// SubjectPublicKeyInfo.
    pub fn spki(&self) -> Vec<u8> {
        self.pair.public_key().as_der().unwrap().as_ref().to_vec()
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
    }

    /// A signed CoRIM in the usual form.
    pub fn signed(&self, payload: &[u8]) -> Vec<u8> {
        Envelope::of(self.alg, payload).signed(self)
    }
}

/// The parts of a signed CoRIM before they are signed.
#[derive(Clone)]
pub struct Envelope {
    pub protected: Vec<(i64, Vec<u8>)>,
    pub unprotected: Vec<(i64, Vec<u8>)>,
    pub payload: Vec<u8>,
}

impl Envelope {
    pub fn of(alg: i64, payload: &[u8]) -> Self {
        let meta = map(&[(0, map(&[(0, text("ACME"))])), (1, period(Some(1_700_000_000), 1_900_000_000))]);
        Self {
            protected: vec![(1, int(alg)), (3, text("application/rim+cbor")), (8, bytes(&meta))],
            unprotected: Vec::new(),
            payload: payload.to_vec(),
        }
    }

    /// The same with another value of a protected parameter.
    pub fn with(mut self, key: i64, value: Vec<u8>) -> Self {
        self.protected.retain(|(other, _)| *other != key);
        self.protected.push((key, value));
        self
    }

    /// The same without a protected parameter.
    pub fn without(mut self, key: i64) -> Self {
        self.protected.retain(|(other, _)| *other != key);
        self
    }

    pub fn signed(&self, author: &Author) -> Vec<u8> {
        self.with_signature(&author.sign(&self.to_be_signed()))
    }

    pub fn to_be_signed(&self) -> Vec<u8> {
        let protected = bytes(&map(&self.protected));
        array(&[text("Signature1"), protected, bytes(b""), bytes(&self.payload)])
    }

    pub fn with_signature(&self, signature: &[u8]) -> Vec<u8> {
        let protected = bytes(&map(&self.protected));
        tag(18, &array(&[protected, map(&self.unprotected), bytes(&self.payload), bytes(signature)]))
    }
}
