//! Every template of an IMA list: what its entry measured, in binary and in ascii, and what a declared format may not do.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    missing_docs,
    reason = "a test fails by panicking"
)]

#[path = "common/template.rs"]
mod template;

use hostmark_attest::digest::sha256;
use hostmark_attest::ima::{DigestOf, ImaLog, Shape, inspect};
use proptest::prelude::*;
use template::{digest, entry, hex, line, name};

const PATH: &str = "/usr/bin/a b";
const SIGNATURE: [u8; 12] = [3, 2, 4, 1, 2, 3, 4, 0, 3, 9, 9, 9];

struct Row {
    template: &'static str,
    fields: Vec<Vec<u8>>,
    /// The fields as the kernel shows them in ascii.
    words: String,
    shape: Shape,
    of: DigestOf,
    signed: bool,
}

fn rows() -> Vec<Row> {
    let hash = sha256(&[b"content"]);
    let (plain, file, verity) = (digest("sha256", &hash), digest("ima:sha256", &hash), digest("verity:sha256", &hash));
    let shown = format!("sha256:{}", hex(&hash));
    let (path, sig) = (name(PATH), SIGNATURE.to_vec());
    let buffer = b"0a buffer".to_vec();
    let of_buffer = sha256(&[&buffer]);
    let modsig = vec![0x30, 0x82, 1, 2];
    let xattrs = [name("security.ima|security.selinux"), vec![1, 0, 0, 0, 2, 0, 0, 0], vec![7, 8, 9]];
    let owner = [vec![0xe8, 3, 0, 0], vec![0, 0, 0, 0], vec![0xed, 0x81]];
    let evm = vec![5, 2, 4, 1, 2, 3, 4, 0, 1, 9];
    let row = |template, fields: &[&Vec<u8>], words: String, shape, of, signed| Row {
        template,
        fields: fields.iter().map(|one| (*one).clone()).collect(),
        words,
        shape,
        of,
        signed,
    };
    let (unsaid, sha) = (DigestOf::Unsaid, &shown);
    let (x, o, s) = (&xattrs, &owner, hex(&sig));
    let evm_words =
        format!("{sha} {PATH} {} security.ima|security.selinux {} {} 1000 0 33261", hex(&evm), hex(&x[1]), hex(&x[2]));
    vec![
        row("ima-ng", &[&plain, &path], format!("{sha} {PATH}"), Shape::Ng, unsaid, false),
        row("ima-ngv2", &[&file, &path], format!("ima:{sha} {PATH}"), Shape::Ng, DigestOf::File, false),
        row("ima-ngv2", &[&verity, &path], format!("verity:{sha} {PATH}"), Shape::Ng, DigestOf::Verity, false),
        row("ima-sig", &[&plain, &path, &sig], format!("{sha} {PATH} {s}"), Shape::Sig, unsaid, true),
        row("ima-sig", &[&plain, &path, &vec![]], format!("{sha} {PATH} "), Shape::Sig, unsaid, false),
        row(
            "ima-sigv2",
            &[&verity, &path, &sig],
            format!("verity:{sha} {PATH} {s}"),
            Shape::Sig,
            DigestOf::Verity,
            true,
        ),
        row(
            "ima-buf",
            &[&digest("sha256", &of_buffer), &path, &buffer],
            format!("sha256:{} {PATH} {}", hex(&of_buffer), hex(&buffer)),
            Shape::Buf,
            unsaid,
            false,
        ),
        row(
            "ima-modsig",
            &[&plain, &path, &sig, &plain, &modsig],
            format!("{sha} {PATH} {s} {sha} {}", hex(&modsig)),
            Shape::Modsig,
            unsaid,
            true,
        ),
        row(
            "ima-modsig",
            &[&plain, &path, &vec![], &vec![], &vec![]],
            format!("{sha} {PATH}   "),
            Shape::Modsig,
            unsaid,
            false,
        ),
        row(
            "evm-sig",
            &[&plain, &path, &evm, &x[0], &x[1], &x[2], &o[0], &o[1], &o[2]],
            evm_words,
            Shape::EvmSig,
            unsaid,
            false,
        ),
        // Declared by ima_template_fmt=.
        row("d-ng|n-ng", &[&plain, &path], format!("{sha} {PATH}"), Shape::Ng, unsaid, false),
        row("n-ng|d-ng", &[&path, &plain], format!("{PATH} {sha}"), Shape::Declared, unsaid, false),
        row(
            "d-ngv2|n-ng|sig|iuid",
            &[&file, &path, &sig, &o[0]],
            format!("ima:{sha} {PATH} {s} 1000"),
            Shape::Declared,
            DigestOf::File,
            true,
        ),
        row("iuid|d-ng|n-ng", &[&o[0], &plain, &path], format!("1000 {sha} {PATH}"), Shape::Declared, unsaid, false),
    ]
}

#[test]
fn each_template_says_what_was_measured() {
    for row in rows() {
        let fields: Vec<&[u8]> = row.fields.iter().map(Vec::as_slice).collect();
        let binary = entry(row.template, &fields);
        let log = ImaLog::parse(&binary).unwrap();
        let parsed = log.entries().next().unwrap();
        assert_eq!((parsed.shape(), parsed.name_fits()), (row.shape, true), "{}", row.template);
        let file = parsed.measurement().unwrap();
        assert_eq!(
            (file.path, file.of, file.signature.is_some()),
            (PATH.as_bytes(), row.of, row.signed),
            "{}",
            row.template
        );
        assert_eq!(file.buffer.is_some(), row.shape == Shape::Buf, "{}", row.template);
        assert!(inspect(&binary).unwrap().findings.as_slice().is_empty(), "{}", row.template);

        let ascii = line(&binary, row.template, &row.words);
        let log = ImaLog::parse(&ascii).unwrap_or_else(|error| panic!("{}: {error}", row.template));
        let twin = log.entries().next().unwrap();
        assert_eq!(twin.measurement(), Some(file), "{}: {}", row.template, row.words);
        assert_eq!(
            twin.template_digest(log.listed_bank()).unwrap().as_bytes(),
            twin.listed_digest(),
            "{}",
            row.template
        );
    }
}

/// The kernel hashed data of a format that it was told; the host declares another one for it, to have a field of its choice (an
/// attribute's value, a signature) read as the file's digest.
#[test]
fn b7_a_declared_format_never_moves_the_digest() {
    let (evil, good) = (sha256(&[b"evil"]), sha256(&[b"good"]));
    let (evil, chosen, path) = (digest("sha256", &evil), digest("sha256", &good), name("/usr/bin/x"));
    let bare = vec![7u8; 20];
    // (what the kernel hashed, declared instead)
    let rows: [(&[&Vec<u8>], &str); 9] = [
        (&[&evil, &path, &chosen, &chosen], "evmsig|n-ng|d-ng|modsig"),
        (&[&evil, &path, &chosen], "xattrvalues|n-ng|d-ng"),
        (&[&evil, &path, &chosen], "d-modsig|n-ng|d-ng"),
        (&[&evil, &path, &chosen], "buf|n-ng|d-ng"),
        (&[&evil, &path, &chosen], "sig|n-ng|d-ng"),
        (&[&path, &evil, &chosen], "n-ng|modsig|d-ng"),
        (&[&evil, &chosen, &path], "d-ng|d-ng|n-ng"),
        (&[&bare, &path, &chosen], "evmsig|n-ng|d-ng"),
        (&[&evil, &path, &chosen], "unknown|n-ng|d-ng"),
    ];
    for (fields, declared) in rows {
        let fields: Vec<&[u8]> = fields.iter().map(|one| one.as_slice()).collect();
        let list = entry(declared, &fields);
        let log = ImaLog::parse(&list).unwrap();
        let file = log.entries().next().unwrap().measurement();
        assert!(file.is_none_or(|file| file.digest != sha256(&[b"good"])), "{declared}: {file:?}");
    }
    // Honest twin: the format that the kernel was told.
    let list = entry("n-ng|d-ng|xattrvalues", &[&path, &evil, &chosen]);
    let log = ImaLog::parse(&list).unwrap();
    assert_eq!(log.entries().next().unwrap().measurement().unwrap().digest, sha256(&[b"evil"]));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// One byte of the hashed data flipped, or the entry renamed to any other template: no other digest is ever read than one that
    /// stands in the data at the file digest's own place.
    #[test]
    fn b7_no_name_yields_another_digest(row in 0usize..14, other in 0usize..14) {
        let rows = rows();
        let fields: Vec<&[u8]> = rows[row].fields.iter().map(Vec::as_slice).collect();
        let (honest, renamed) = (entry(rows[row].template, &fields), entry(rows[other].template, &fields));
        let (honest, renamed) = (ImaLog::parse(&honest).unwrap(), ImaLog::parse(&renamed).unwrap());
        let digest = |log: &ImaLog<'_>| log.entries().next().unwrap().measurement().map(|file| file.digest.to_vec());
        prop_assert!(digest(&renamed).is_none() || digest(&renamed) == digest(&honest));
    }
}
