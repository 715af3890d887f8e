//! Signed CoRIMs: a mutated payload is signed anew, because nothing behind the signature would be reached otherwise.

use std::sync::OnceLock;

use hostmark_attest::policy::corim::Signer;
#[path = "../../../attest/tests/common/corim.rs"]
mod made;

use made::{Author, array, class, comid, int, map, named, reference, registers, sha256, tag, text};

fn author() -> &'static (Author, Vec<Signer>) {
    static AUTHOR: OnceLock<(Author, Vec<Signer>)> = OnceLock::new();
    AUTHOR.get_or_init(|| {
        let author = Author::p256();
        let signers = Signer::from_spki("fuzz", &author.spki()).into_iter().collect();
        (author, signers)
    })
}

/// Those whose signature counts.
#[must_use]
pub fn signers() -> &'static [Signer] {
    &author().1
}

/// These bytes as the payload of a signed CoRIM.
#[must_use]
pub fn envelope(payload: &[u8]) -> Vec<u8> {
    author().0.signed(payload)
}

/// A signed CoRIM.
#[must_use]
pub fn corim() -> Vec<u8> {
    envelope(&made::payload())
}

/// A payload with every part that is read or counted.
#[must_use]
pub fn payload() -> Vec<u8> {
    let digests = || array(&[sha256(1), array(&[text("my-alg"), made::bytes(&[1])])]);
    let more = [
        map(&[(0, text("pcrs")), (1, map(&[(14, named(&[(text("pcr7"), digests()), (int(1), digests())]))]))]),
        map(&[(0, text("/usr/bin/b")), (1, map(&[(2, digests()), (0, map(&[(0, text("1.2"))]))]))]),
        map(&[(1, map(&[(1, tag(553, &int(3))), (4, tag(560, &made::bytes(b"raw")))]))]),
        made::file("/etc/ima/ima-policy", 3),
    ];
    let device = map(&[(0, map(&[(0, tag(37, &made::bytes(&[1; 16])))])), (1, tag(550, &made::bytes(&[1; 8])))]);
    let triples = [
        reference(class("ACME", "R340"), &[&[registers(&[(0, 1), (4, 2)])], more.as_slice()].concat()),
        reference(device, &[registers(&[(0, 3)])]),
    ];
    let tags = [comid("a", &[(0, array(&triples)), (1, array(&[int(0)]))]), tag(505, &made::bytes(b"\xa0"))];
    made::corim(&tags, &[(4, made::period(None, 1_900_000_000))])
}
