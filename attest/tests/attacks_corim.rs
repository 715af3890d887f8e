//! Signed CoRIMs: whose word counts, when, and what of it. Each attack has its honest twin.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "common/corim.rs"]
mod made;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PSS_SHA256};
use hostmark_attest::digest::{Digest, HashAlg};
use hostmark_attest::finding::Findings;
use hostmark_attest::policy::References;
use hostmark_attest::policy::corim::{CorimError, Signer, VerifiedCorim};
use hostmark_attest::policy::import::Imported;
use made::{
    Author, Envelope, array, bytes, class, comid, corim, head, int, map, named, payload, period, reference, registers,
    sha256, tag, text, time,
};
use proptest::prelude::{ProptestConfig, any, prop, prop_assert, prop_assert_eq, proptest};
use time::OffsetDateTime;
use time::macros::datetime;

const NOW: OffsetDateTime = datetime!(2026-11-22 12:00 UTC);

fn trusted(author: &Author) -> Vec<Signer> {
    vec![Signer::from_spki("acme.pem", &author.spki()).unwrap()]
}

fn verify(file: &[u8], author: &Author) -> Result<VerifiedCorim, CorimError> {
    VerifiedCorim::verify(file, &trusted(author), NOW)
}

/// What a file gives, without a choice of environment.
fn import(file: &[u8], author: &Author) -> Result<Imported, CorimError> {
    verify(file, author)?.import(None, 3).map(|(imported, _)| imported)
}

fn refused(error: CorimError) -> String {
    match error {
        CorimError::Refused(findings) => findings.as_slice()[0].id.clone(),
        other => panic!("not a refusal: {other}"),
    }
}

fn ids(findings: &Findings) -> Vec<(String, String)> {
    let found = |one: &hostmark_attest::finding::Finding| one.found.clone().unwrap_or_default();
    let strip = |id: &str| id.strip_prefix("references.import.").unwrap().to_owned();
    findings.as_slice().iter().map(|one| (strip(&one.id), found(one))).collect()
}

/// What a payload of these reference triples gives.
fn of_triples(author: &Author, triples: &[Vec<u8>]) -> Result<Imported, CorimError> {
    import(&author.signed(&corim(&[comid("c", &[(0, array(triples))])], &[])), author)
}

#[test]
fn d24_reference_values_of_others_count_under_a_trusted_key_only() {
    let (author, other, strong) = (Author::p256(), Author::p256(), Author::p384());
    let good = author.signed(&payload());
    let verified = verify(&good, &author).unwrap();
    assert_eq!((verified.id(), verified.author(), verified.signer()), ("corim-1", "ACME", "acme.pem"));
    let (imported, environment) = verified.import(None, 3).unwrap();
    assert_eq!((imported.entries, environment.as_str()), (3, "ACME R340"));
    let bundle = References::parse("r", &imported.text).unwrap();
    assert_eq!((bundle.version(), bundle.model()), (3, Some("R340")));
    let accepts = |pcr, byte, at| {
        let value = Digest::new(HashAlg::Sha256, &[byte; 32]).unwrap();
        bundle.open(at).any(|window| window.pcr(HashAlg::Sha256, pcr).is_some_and(|set| set.contains(&value)))
    };
    assert!(accepts(0, 0xaa, NOW) && accepts(4, 0xbb, NOW) && !accepts(0, 0xbb, NOW) && !accepts(7, 0, NOW));
    let known = |byte| Digest::new(HashAlg::Sha256, &[byte; 32]).unwrap();
    assert!(bundle.open(NOW).any(|window| window.knows_file(&known(1)) && !window.knows_file(&known(2))));
    // The signature's period is the window's.
    let until = OffsetDateTime::from_unix_timestamp(1_900_000_000).unwrap();
    assert!(accepts(0, 0xaa, until - time::Duration::SECOND) && !accepts(0, 0xaa, until));

    // P-384 by ES384, RSA by PS256, under the newer numbers, and a signer among others.
    for (author, alg) in [(&author, -9), (&strong, -35), (&strong, -51)] {
        let file = Envelope::of(alg, &payload()).signed(author);
        let signers = [trusted(&other), trusted(author)].concat();
        VerifiedCorim::verify(&file, &signers, NOW).unwrap();
    }
    let rsa = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let envelope = Envelope::of(-37, &payload());
    let mut signature = vec![0; rsa.public_modulus_len()];
    rsa.sign(&RSA_PSS_SHA256, &SystemRandom::new(), &envelope.to_be_signed(), &mut signature).unwrap();
    let spki = rsa.public_key().as_der().unwrap();
    let signers = [Signer::from_spki("rsa.pem", spki.as_ref()).unwrap()];
    VerifiedCorim::verify(&envelope.with_signature(&signature), &signers, NOW).unwrap();

    let mut flipped = good.clone();
    let at = good.windows(4).position(|four| four == [0xaa; 4]).unwrap();
    flipped[at] ^= 1;
    let envelope = Envelope::of(-7, &payload());
    let unsigned_alg = Envelope { unprotected: vec![(1, int(-7))], ..envelope.clone() }.without(1);
    let foreign = Envelope { unprotected: vec![(4, bytes(b"the trusted key"))], ..envelope.clone() }.signed(&other);
    // (attack, file, check)
    let rows = [
        ("a byte of the payload", flipped, "corim.signature"),
        ("another key", other.signed(&payload()), "corim.signature"),
        ("another key that claims the trusted key's id", foreign, "corim.signature"),
        ("no signature", envelope.with_signature(b""), "corim.signature"),
        ("zeros", envelope.with_signature(&[0; 64]), "corim.signature"),
        ("a signature in DER", envelope.with_signature(&[0x30; 70]), "corim.signature"),
        (
            "a signature over other headers",
            {
                let signature = author.sign(&envelope.clone().with(4, bytes(b"k")).to_be_signed());
                envelope.with_signature(&signature)
            },
            "corim.signature",
        ),
        ("another algorithm of the same key", Envelope::of(-35, &payload()).signed(&author), "corim.key"),
        ("a key of another kind", strong.signed(&payload()), "corim.key"),
        ("alg none", envelope.clone().with(1, text("none")).signed(&author), "corim.algorithm"),
        ("alg 0", envelope.clone().with(1, int(0)).signed(&author), "corim.algorithm"),
        ("HMAC with the public key", envelope.clone().with(1, int(5)).signed(&author), "corim.algorithm"),
        ("no algorithm", envelope.clone().without(1).signed(&author), "corim.algorithm"),
        ("an algorithm that is not protected", unsigned_alg.signed(&author), "corim.algorithm"),
        (
            "an unknown critical parameter",
            envelope.clone().with(2, array(&[int(99)])).with(99, int(1)).signed(&author),
            "corim.critical",
        ),
        (
            "a critical parameter with a name",
            {
                let mut file = envelope.clone();
                file.protected.push((2, array(&[int(1), int(2)])));
                file.signed(&author)
            },
            "corim.critical",
        ),
        (
            "another content",
            envelope.clone().with(3, text("application/swid+cbor")).signed(&author),
            "corim.content-type",
        ),
        ("no content type", envelope.clone().without(3).signed(&author), "corim.content-type"),
    ];
    for (attack, file, check) in rows {
        assert_eq!(refused(verify(&file, &author).unwrap_err()), check, "{attack}");
    }
    // What is critical and understood is no offence.
    verify(&envelope.clone().with(2, array(&[int(1), int(3), int(8)])).signed(&author), &author).unwrap();
    assert_eq!(refused(VerifiedCorim::verify(&good, &[], NOW).unwrap_err()), "corim.key");
}

#[test]
fn d24_what_is_over_or_of_an_unknown_profile_is_refused() {
    let author = Author::p256();
    let second = |seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap();
    let at = |file: &[u8], seconds| VerifiedCorim::verify(file, &trusted(&author), second(seconds));
    let file = author.signed(&payload());
    for good in [1_700_000_000, 1_899_999_999] {
        at(&file, good).unwrap();
    }
    assert_eq!(refused(at(&file, 1_699_999_999).unwrap_err()), "corim.not-yet");
    assert_eq!(refused(at(&file, 1_900_000_000).unwrap_err()), "corim.expired");

    // The manifest's own period counts too, and so do the claims; the window has what all of them allow.
    let tags = [comid("c", &[(0, array(&[reference(class("A", "B"), &[registers(&[(0, 1)])])]))])];
    let shorter = author.signed(&corim(&tags, &[(4, period(Some(1_750_000_000), 1_800_000_000))]));
    assert_eq!(refused(at(&shorter, 1_749_999_999).unwrap_err()), "corim.not-yet");
    assert_eq!(refused(at(&shorter, 1_800_000_000).unwrap_err()), "corim.expired");
    let verified = at(&shorter, 1_760_000_000).unwrap();
    let (imported, _) = verified.import(None, 1).unwrap();
    assert!(imported.text.contains("from = \"2025-06-15T15:06:40Z\""), "{}", imported.text);
    assert!(imported.text.contains("until = \"2027-01-15T08:00:00Z\""), "{}", imported.text);
    let claims = |exp| map(&[(1, text("ACME")), (4, int(exp)), (5, int(1_700_000_000))]);
    let with = |exp| Envelope::of(-7, &payload()).with(15, claims(exp)).signed(&author);
    at(&with(1_800_000_000), 1_799_999_999).unwrap();
    assert_eq!(refused(at(&with(1_800_000_000), 1_800_000_000).unwrap_err()), "corim.expired");
    let endless = Envelope::of(-7, &payload()).without(8).with(15, map(&[(1, text("ACME"))])).signed(&author);
    assert_eq!(at(&endless, 4_000_000_000).unwrap().period(), (None, None));

    for profile in [tag(32, &text("https://example.com/p")), text("p"), tag(111, &bytes(&[0x2a])), array(&[text("p")])]
    {
        let file = author.signed(&corim(&tags, &[(3, profile)]));
        assert_eq!(refused(verify(&file, &author).unwrap_err()), "corim.profile");
    }
}

#[test]
fn d24_alternatives_that_a_bundle_cannot_keep_apart_are_refused() {
    let author = Author::p256();
    let triple = |pcrs: &[(i64, u8)]| reference(class("A", "B"), &[registers(pcrs)]);
    // One PCR varies: every combination is some triple's.
    let imported = of_triples(&author, &[triple(&[(0, 1), (4, 2)]), triple(&[(0, 1), (4, 3)])]).unwrap();
    assert_eq!(ids(&imported.findings), [("alternatives".to_owned(), "1".to_owned())]);
    assert_eq!(imported.entries, 2);
    // Parts of one state.
    assert_eq!(of_triples(&author, &[triple(&[(0, 1)]), triple(&[(4, 2)])]).unwrap().entries, 2);
    for triples in [
        vec![triple(&[(0, 1), (4, 2)]), triple(&[(0, 3), (4, 4)])],
        vec![triple(&[(0, 1), (2, 2)]), triple(&[(2, 3), (4, 4)]), triple(&[(4, 5), (0, 6)])],
    ] {
        assert_eq!(refused(of_triples(&author, &triples).unwrap_err()), "corim.alternatives");
    }
}

#[test]
fn the_environment_is_chosen_and_never_guessed() {
    let author = Author::p256();
    let of = |environment, byte| reference(environment, &[registers(&[(0, byte)])]);
    let same_model = map(&[(0, map(&[(1, text("ACME")), (2, text("R650")), (3, int(1))]))]);
    let triples = array(&[of(class("ACME", "R340"), 1), of(class("ACME", "R650"), 2), of(same_model, 3)]);
    let file = author.signed(&corim(&[comid("c", &[(0, triples)])], &[]));
    let verified = verify(&file, &author).unwrap();
    assert_eq!(verified.environments().collect::<Vec<_>>(), ["ACME R340", "ACME R650", "ACME R650, layer 1"]);
    for (wanted, byte) in [("R340", 1u8), ("ACME R340", 1), ("ACME R650", 2), ("ACME R650, layer 1", 3)] {
        let (imported, _) = verified.import(Some(wanted), 1).unwrap();
        assert!(imported.text.contains(&hex(byte)), "{wanted}: {}", imported.text);
        assert_eq!(ids(&imported.findings), [("environments".to_owned(), "2".to_owned())]);
    }
    for wanted in [None, Some("R650"), Some("ACME"), Some("")] {
        let error = verified.import(wanted, 1).unwrap_err();
        assert!(matches!(error, CorimError::Environment { all: 3, .. }), "{wanted:?}: {error}");
        assert!(error.to_string().contains("`ACME R650, layer 1`"), "{error}");
    }
    // One device's values are taken only by name, and told.
    let device = map(&[(0, map(&[(2, text("R340"))])), (1, tag(550, &bytes(&[1; 8])))]);
    let one = author.signed(&corim(&[comid("c", &[(0, array(&[of(device, 1)]))])], &[]));
    let verified = verify(&one, &author).unwrap();
    assert!(matches!(verified.import(None, 1), Err(CorimError::Environment { all: 1, .. })));
    let (imported, label) = verified.import(Some("R340"), 1).unwrap();
    assert_eq!(
        (label.as_str(), ids(&imported.findings)[0].0.as_str()),
        ("R340, instance 550(h'0101010101010101')", "instance")
    );
}

fn hex(byte: u8) -> String {
    format!("{byte:02x}").repeat(32)
}

#[test]
fn what_a_bundle_cannot_say_is_counted_and_told() {
    let author = Author::p256();
    let environment = || class("A", "B");
    let measured = |values: &[(i64, Vec<u8>)]| map(&[(1, map(values))]);
    let keyed = |key: Vec<u8>, values: &[(i64, Vec<u8>)]| map(&[(0, key), (1, map(values))]);
    let digests = || array(&[sha256(1)]);
    let one = |list: Vec<u8>| named(&[(int(0), list)]);
    let sha384 = |alg: Vec<u8>| array(&[array(&[alg, bytes(&[7; 48])])]);
    // (measurement, what is told, entries beside the one that is always there)
    type Row<'a> = (&'a str, Vec<u8>, &'a [(&'a str, &'a str)], usize);
    let rows: Vec<Row<'_>> = vec![
        ("a PCR as text", measured(&[(14, named(&[(text("PCR7"), digests()), (text("9"), digests())]))]), &[], 2),
        ("a PCR under the TPM's name", keyed(text("TPM"), &[(14, one(digests()))]), &[], 1),
        ("RTMRs", keyed(text("rtmr"), &[(14, one(digests()))]), &[("registers", "1")], 0),
        ("registers under a number", keyed(int(3), &[(14, one(digests()))]), &[("registers", "1")], 0),
        (
            "no PCR",
            measured(&[(14, named(&[(int(24), digests()), (text("boot"), digests()), (text("+7"), digests())]))]),
            &[("no-pcr", "3")],
            0,
        ),
        ("PCR 1 and 10", measured(&[(14, map(&[(1, digests()), (10, digests())]))]), &[("not-judged", "2")], 0),
        ("another bank", measured(&[(14, one(sha384(int(7))))]), &[("bank", "1")], 0),
        (
            "an unknown algorithm beside",
            measured(&[(14, one(array(&[sha256(1), array(&[text("my-alg"), bytes(&[1])])])))]),
            &[("algorithm", "1")],
            1,
        ),
        ("a file by name", measured(&[(2, digests()), (11, text("/usr/bin/b"))]), &[], 1),
        ("a file by SHA-384", keyed(text("/b"), &[(2, sha384(text("sha-384")))]), &[], 1),
        ("a file by SHA3", keyed(text("/b"), &[(2, sha384(int(11)))]), &[("algorithm", "1")], 0),
        ("the IMA policy", keyed(text("/etc/ima/ima-policy"), &[(2, digests())]), &[("ima-policy", "1")], 1),
        ("a digest of no file", keyed(text("firmware"), &[(2, digests())]), &[("unnamed-digests", "1")], 0),
        ("a version beside", keyed(text("/b"), &[(2, digests()), (0, map(&[(0, text("1.2"))]))]), &[], 1),
        (
            "a minimum svn beside",
            keyed(text("/b"), &[(2, digests()), (1, tag(553, &int(3)))]),
            &[("conditions", "1")],
            0,
        ),
        ("flags beside", measured(&[(14, one(digests())), (3, map(&[(3, vec![0xf4])]))]), &[("conditions", "1")], 0),
        ("an extension beside", keyed(text("/b"), &[(2, digests()), (-1, int(3))]), &[("conditions", "1")], 0),
        (
            "an authority",
            map(&[(0, text("/b")), (1, map(&[(2, digests())])), (2, array(&[tag(560, &bytes(b"k"))]))]),
            &[("conditions", "1")],
            0,
        ),
        ("a raw value", measured(&[(4, tag(560, &bytes(b"raw")))]), &[("values", "1")], 0),
        ("an svn", measured(&[(1, tag(552, &int(3)))]), &[("values", "1")], 0),
    ];
    for (what, measurement, told, entries) in rows {
        let triple = reference(environment(), &[registers(&[(2, 9)]), measurement]);
        let imported = of_triples(&author, &[triple]).unwrap_or_else(|error| panic!("{what}: {error}"));
        let expected: Vec<_> = told.iter().map(|(id, count)| ((*id).to_owned(), (*count).to_owned())).collect();
        assert_eq!((ids(&imported.findings), imported.entries), (expected, entries + 1), "{what}");
    }

    // Triples, tags, links and extensions.
    let values = || (0, array(&[reference(environment(), &[registers(&[(0, 1)])])]));
    let list = |count: usize| array(&vec![int(0); count]);
    let kinds = [
        values(),
        (1, list(1)),
        (2, list(2)),
        (3, list(3)),
        (4, list(1)),
        (5, list(1)),
        (6, list(4)),
        (8, list(1)),
        (10, list(2)),
        (-7, list(1)),
    ];
    let linked = |id: &str, links: &[(&str, i64)], pcr: i64| {
        let links: Vec<_> = links.iter().map(|(to, how)| map(&[(0, text(to)), (1, int(*how))])).collect();
        let triples = map(&[(0, array(&[reference(environment(), &[registers(&[(pcr, 5)])])]))]);
        tag(506, &bytes(&map(&[(1, map(&[(0, text(id))])), (3, array(&links)), (4, triples)])))
    };
    let tags = [
        comid("a", &kinds),
        linked("b", &[("a", 0), ("c", 1), ("elsewhere", 1)], 2),
        linked("c", &[("a", 0)], 4),
        tag(505, &bytes(b"\xa0")),
        tag(508, &bytes(b"\xa0")),
    ];
    let file = author.signed(&corim(&tags, &[(2, array(&[map(&[(0, text("https://x"))])])), (-9, int(1))]));
    let imported = import(&file, &author).unwrap();
    let expected = [
        ("endorsed-values", "1"),
        ("conditional", "3"),
        ("identity-keys", "2"),
        ("attest-keys", "3"),
        ("domains", "2"),
        ("coswid", "4"),
        ("tags", "2"),
        ("extensions", "2"),
        ("dependent-rims", "1"),
        ("replaced", "1"),
        ("replaces", "1"),
    ];
    assert_eq!(ids(&imported.findings), expected.map(|(id, count)| (id.to_owned(), count.to_owned())));
    assert_eq!(imported.entries, 2, "PCR 0 and 2, not the replaced tag's 4: {}", imported.text);

    // Nothing is left: the reasons are in the error.
    let triple = reference(environment(), &[measured(&[(1, int(3))])]);
    let error = of_triples(&author, &[triple]).unwrap_err();
    assert!(matches!(error, CorimError::Empty(_)) && error.to_string().contains("without a digest"), "{error}");
    let error = import(&author.signed(&corim(&[tag(505, &bytes(b""))], &[])), &author).unwrap_err();
    assert!(error.to_string().contains("tags that are no CoMID"), "{error}");
}

#[test]
fn what_the_draft_does_not_allow_is_refused_at_its_byte() {
    let author = Author::p256();
    let environment = || class("A", "B");
    let good = || array(&[reference(environment(), &[registers(&[(0, 1)])])]);
    let triples = |list: Vec<u8>| author.signed(&corim(&[comid("c", &[(0, list)])], &[]));
    let measured = |values: Vec<u8>| triples(array(&[reference(environment(), &[map(&[(1, values)])])]));
    let digest = |alg: Vec<u8>, length: usize| {
        measured(map(&[(14, map(&[(0, array(&[array(&[alg, bytes(&vec![1; length])])]))]))]))
    };
    let twice = |pairs: &[(i64, Vec<u8>)]| map(pairs);
    let envelope = || Envelope::of(-7, &payload());
    let deep = |depth: usize| [vec![0x81; depth], int(0)].concat();
    let unprotected = |pairs: Vec<(i64, Vec<u8>)>| Envelope { unprotected: pairs, ..envelope() }.signed(&author);
    let other_author = map(&[(1, text("Mallory"))]);
    let meta = |content: Vec<u8>| envelope().with(8, bytes(&content)).signed(&author);
    let detached = tag(18, &array(&[bytes(&map(&envelope().protected)), map(&[]), vec![0xf6], bytes(&[0; 64])]));
    let rows: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", vec![], "at byte 0"),
        ("a text", b"{}".to_vec(), "at byte 1"),
        ("unsigned", payload(), "unsigned CoRIM"),
        ("unsigned, as earlier drafts wrap it", tag(500, &payload()), "unsigned CoRIM"),
        ("another COSE message", tag(98, &array(&[int(0)])), "at byte 0: not a COSE_Sign1"),
        ("three parts", tag(18, &array(&[bytes(b""), map(&[]), bytes(b"")])), "an array of four"),
        ("no protected header", tag(18, &array(&[bytes(b""), map(&[]), bytes(b""), bytes(b"")])), "at byte 3"),
        ("detached", detached, "the payload is detached"),
        ("a hash envelope", envelope().with(258, int(-16)).signed(&author), "hash envelope"),
        ("bytes after it", [author.signed(&payload()), vec![0]].concat(), "1 bytes follow the end of the signed CoRIM"),
        (
            "bytes after the payload",
            author.signed(&[payload(), vec![0]].concat()),
            "1 bytes follow the end of the CoRIM",
        ),
        (
            "one label in both headers",
            unprotected(vec![(3, text("application/rim+cbor"))]),
            "protected and unprotected at once",
        ),
        ("crit that is not protected", unprotected(vec![(2, array(&[int(99)]))]), "not protected"),
        ("crit of nothing", envelope().with(2, array(&[int(99)])).signed(&author), "is not in the protected header"),
        ("an empty crit", envelope().with(2, array(&[])).signed(&author), "an array of labels"),
        ("nobody signed", envelope().without(8).signed(&author), "neither corim-meta nor CWT claims"),
        ("two authors", envelope().with(15, other_author).signed(&author), "two signers"),
        ("no signer in corim-meta", meta(map(&[(1, period(None, 1_900_000_000))])), "names no signer"),
        (
            "a period without an end",
            meta(map(&[(0, map(&[(0, text("A"))])), (1, map(&[(0, time(1))]))])),
            "a period has no end",
        ),
        (
            "a time in words",
            meta(map(&[(0, map(&[(0, text("A"))])), (1, map(&[(1, text("2026"))]))])),
            "not tagged as seconds",
        ),
        (
            "a time with a fraction",
            meta(map(&[(0, map(&[(0, text("A"))])), (1, map(&[(1, tag(1, &[0xf9, 0, 0]))]))])),
            "a whole number of seconds",
        ),
        (
            "a time beyond",
            meta(map(&[(0, map(&[(0, text("A"))])), (1, period(None, i64::MAX))])),
            "beyond the calendar",
        ),
        ("no CoRIM inside", author.signed(&int(1)), "the payload is not a CoRIM"),
        ("no tags", author.signed(&tag(501, &map(&[(0, text("x"))]))), "no tags"),
        ("an empty list of tags", author.signed(&corim(&[], &[])), "tags are an array"),
        ("a tag without its number", author.signed(&corim(&[bytes(b"")], &[])), "has no CBOR tag"),
        (
            "a key twice",
            author.signed(&tag(
                501,
                &twice(&[(0, text("x")), (0, text("y")), (1, array(&[comid("c", &[(0, good())])]))]),
            )),
            "one key twice",
        ),
        (
            "a key twice in a CoMID",
            author.signed(&corim(&[comid("c", &[(0, good()), (0, good())])], &[])),
            "one key twice",
        ),
        (
            "a register twice",
            measured(map(&[(14, map(&[(0, array(&[sha256(1)])), (0, array(&[sha256(2)]))]))])),
            "one key twice",
        ),
        (
            "a register twice, as number and text",
            measured(map(&[(14, named(&[(int(0), array(&[sha256(1)])), (text("pcr0"), array(&[sha256(2)]))]))])),
            "two values for one PCR",
        ),
        (
            "one id for two tags",
            author.signed(&corim(&[comid("c", &[(0, good())]), comid("c", &[(0, good())])], &[])),
            "two tags have one id",
        ),
        (
            "no triples",
            author.signed(&corim(&[tag(506, &bytes(&map(&[(1, map(&[(0, text("c"))]))])))], &[])),
            "has no triples",
        ),
        (
            "a measurement in no list",
            triples(array(&[array(&[environment(), registers(&[(0, 1)])])])),
            "measurements are an array",
        ),
        (
            "no environment",
            triples(array(&[reference(map(&[]), &[registers(&[(0, 1)])])])),
            "an environment is named by",
        ),
        (
            "an environment of unknown words",
            triples(array(&[reference(map(&[(9, int(1))]), &[registers(&[(0, 1)])])])),
            "an environment is named by",
        ),
        (
            "a model with a line break",
            triples(array(&[reference(class("A", "B\nC"), &[registers(&[(0, 1)])])])),
            "no control characters",
        ),
        ("no values", measured(map(&[])), "has no values"),
        ("a short digest", digest(int(1), 31), "not the length of its algorithm"),
        ("a truncated algorithm's length", digest(text("sha-256"), 16), "not the length of its algorithm"),
        (
            "two digests of one algorithm",
            measured(map(&[(14, map(&[(0, array(&[sha256(1), sha256(2)]))]))])),
            "two digests of one algorithm",
        ),
        (
            "a relation of its own",
            author.signed(&corim(
                &[tag(
                    506,
                    &bytes(&map(&[
                        (1, map(&[(0, text("c"))])),
                        (3, array(&[map(&[(0, text("d")), (1, int(7))])])),
                        (4, map(&[(0, good())])),
                    ])),
                )],
                &[],
            )),
            "neither supplements nor replaces",
        ),
        ("too deep", author.signed(&corim(&[deep(40)], &[])), "the depth of CBOR items is 33"),
        ("a count beyond the file", author.signed(&[head(6, 501), head(5, u64::MAX)].concat()), "a map needs"),
        ("a length beyond the file", [head(6, 18), head(4, 4), head(2, u64::MAX)].concat(), "a byte string needs"),
        (
            "a payload in pieces",
            [tag(18, &[0x84]), bytes(&map(&envelope().protected)), map(&[]), vec![0x5f, 0x41, 0, 0xff], bytes(b"")]
                .concat(),
            "in pieces",
        ),
    ];
    for (what, file, part) in rows {
        let error = import(&file, &author).map(|_| ()).unwrap_err();
        assert!(matches!(error, CorimError::Malformed(_) | CorimError::Unsigned), "{what}: {error:?}");
        let error = error.to_string();
        assert!(error.contains(part), "{what}: {error}");
        assert!(error.contains("at byte ") || error.contains("unsigned"), "{what}: {error}");
    }
    // Indefinite lengths of arrays and maps are CBOR too.
    let indefinite = [vec![0x9f], bytes(&map(&envelope().protected)), vec![0xbf, 0xff], bytes(&payload())].concat();
    let signature = author.sign(&envelope().to_be_signed());
    let file = tag(18, &[indefinite, bytes(&signature), vec![0xff]].concat());
    let honest = import(&author.signed(&payload()), &author).unwrap();
    assert_eq!(import(&file, &author).unwrap(), honest);
    // So are the tags that earlier drafts put around it.
    assert_eq!(import(&tag(500, &tag(502, &author.signed(&payload()))), &author).unwrap(), honest);
}

#[test]
fn d24_no_truncated_file_and_no_flipped_bit_is_taken() {
    let author = Author::p256();
    let good = author.signed(&payload());
    import(&good, &author).unwrap();
    for length in 0..good.len() {
        let error = verify(&good[..length], &author).map(|_| ()).unwrap_err();
        assert!(matches!(error, CorimError::Malformed(_)), "{length}: {error}");
    }
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut file = good.clone();
            file[at] ^= 1 << bit;
            assert!(verify(&file, &author).is_err(), "byte {at}, bit {bit}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// The unprotected header is empty here, so that every byte is signed or framing.
    #[test]
    fn d24_no_flipped_byte_is_taken(at in any::<prop::sample::Index>(), change in 1u8..) {
        let author = Author::p256();
        let mut file = author.signed(&payload());
        let at = at.index(file.len());
        file[at] ^= change;
        prop_assert!(verify(&file, &author).is_err(), "byte {at}");
    }

    /// A key id is a hint: whatever is written there, the values are the same or there are none.
    #[test]
    fn d24_what_is_not_signed_changes_nothing(at in any::<prop::sample::Index>(), change in 1u8..) {
        let author = Author::p256();
        let hint = vec![(4, bytes(b"a key id that is long enough to be hit"))];
        let good = Envelope { unprotected: hint, ..Envelope::of(-7, &payload()) }.signed(&author);
        let honest = import(&good, &author).unwrap();
        let mut file = good;
        let at = at.index(file.len());
        file[at] ^= change;
        if let Ok(imported) = import(&file, &author) {
            prop_assert_eq!(imported, honest, "byte {}", at);
        }
    }
}
