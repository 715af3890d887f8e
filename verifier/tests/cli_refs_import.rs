//! `hostmark refs import`: the real binary on a Keylime runtime policy and on CoRIMs that are made and signed here.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reads files"
)]

mod command;
#[path = "../../attest/tests/common/corim.rs"]
mod made;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use command::{json_of, run};
use made::{Author, Envelope, array, class, comid, corim, int, map, payload, reference, registers, tag};

#[test]
fn a_keylime_policy_becomes_a_bundle() {
    let dir = tempfile::tempdir().unwrap();
    let (file, out) = (dir.path().join("policy.json"), dir.path().join("files.toml"));
    let (file, out) = (file.to_str().unwrap(), out.to_str().unwrap());
    let digest = "01".repeat(32);
    let policy = json!({"meta": {"version": 1}, "digests": {"/usr/bin/a": [digest]}, "excludes": ["/x\n.*"]});
    std::fs::write(file, policy.to_string()).unwrap();
    let view = json_of(0, &["refs", "import", file, "-o", out, "--version", "4"]);
    assert_eq!((&view["format"], &view["entries"]), (&json!("keylime-runtime-policy"), &json!(1)));
    assert_eq!(view["findings"][0]["id"], json!("references.import.excludes"));
    assert_eq!(json_of(0, &["policy", "check", out])["files"][0]["version"], json!(4));
    let (code, text, _) = run(&["refs", "import", file]);
    assert!(code == 0 && text.contains("\n# note: references.import.excludes"), "{text}");
    assert!(text.parse::<toml::Table>().is_ok(), "{text}");
    let (code, _, err) = run(&["refs", "import", file, "--environment", "R340"]);
    assert!(code == 2 && err.contains("has no signature") && err.contains("leave out --signer"), "{err}");

    std::fs::write(file, b"{\"meta\": {").unwrap();
    let (code, out, err) = run(&["refs", "import", file]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("at byte "), "{err}");
}

fn pem(author: &Author) -> String {
    let body = STANDARD.encode(author.spki());
    format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")
}

#[test]
fn d24_a_corim_becomes_a_bundle_under_its_authors_key_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(path(name), bytes).unwrap();
        path(name)
    };
    let (author, other) = (Author::p256(), Author::p384());
    let (key, foreign) = (write("acme.pem", pem(&author).as_bytes()), write("other.pem", pem(&other).as_bytes()));
    let file = write("fw.corim", &author.signed(&payload()));
    let out = path("fw.toml");
    let at = "2026-11-22T12:00:00Z";
    let arguments = ["refs", "import", &file, "--signer", &foreign, "--signer", &key, "--at", at, "--version", "5"];
    let view = json_of(0, &[arguments.as_slice(), &["--from", "corim", "-o", &out]].concat());
    assert_eq!((&view["format"], &view["entries"]), (&json!("corim"), &json!(3)));
    assert_eq!(
        view["corim"],
        json!({"id": "corim-1", "author": "ACME", "signer": key, "environment": "ACME R340",
               "from": "2023-11-14T22:13:20Z", "until": "2030-03-17T17:46:40Z"})
    );
    assert_eq!(json_of(0, &["policy", "check", &out])["files"][0]["version"], json!(5));
    let (code, text, err) = run(&arguments);
    assert!(code == 0 && text.contains(&format!("# signed by: ACME ({key})\n")), "{text}{err}");
    let bundle: toml::Table = text.parse().unwrap();
    assert_eq!((bundle["model"].as_str(), bundle["version"].as_integer()), (Some("R340"), Some(5)));
    let window = &bundle["window"].as_array().unwrap()[0];
    assert_eq!(window["pcrs"]["sha256"]["4"][0].as_str(), Some("bb".repeat(32).as_str()));
    assert_eq!(window["until"].as_str(), Some("2030-03-17T17:46:40Z"));

    // Several environments, of which one is named; what is left out is told.
    let of = |model, byte| reference(class("ACME", model), &[registers(&[(0, byte)])]);
    let triples = [(0, array(&[of("R340", 1), of("R650", 2)])), (1, array(&[int(0)]))];
    let two = write("two.corim", &author.signed(&corim(&[comid("c", &triples)], &[])));
    let named = json_of(0, &["refs", "import", &two, "--signer", &key, "--at", at, "--environment", "R650"]);
    assert_eq!(named["findings"][0]["id"], json!("references.import.environments"));
    assert_eq!(named["findings"][1]["id"], json!("references.import.endorsed-values"));
    assert!(named["bundle"].as_str().unwrap().contains("model = \"R650\""), "{named}");

    let mut flipped = author.signed(&payload());
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    let critical = Envelope::of(-7, &payload()).with(2, array(&[int(99)])).with(99, int(1)).signed(&author);
    let profiled = author.signed(&corim(&[comid("c", &triples)], &[(3, tag(111, &made::bytes(&[1])))]));
    let plain = author.signed(&corim(&[comid("c", &[(1, array(&[map(&[])]))])], &[]));
    let private = "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n";
    let of_author: &[&str] = &["--signer", &key, "--at", at];
    let (late, secret) = ("2031-01-01T00:00:00Z", write("key", private.as_bytes()));
    // (file, options, exit, parts of the one line)
    type Row<'a> = (&'a str, &'a [u8], &'a [&'a str], i32, &'a [&'a str]);
    let rows: [Row<'_>; 13] = [
        ("other", &other.signed(&payload()), of_author, 1, &["corim.key", "name the key"]),
        ("flipped", &flipped, of_author, 1, &["corim.signature", &key, "obtain the file"]),
        (
            "expired",
            &author.signed(&payload()),
            &["--signer", &key, "--at", late],
            1,
            &["corim.expired", "2030-03-17", "newer"],
        ),
        ("critical", &critical, of_author, 1, &["corim.critical", "found 99"]),
        ("profile", &profiled, of_author, 1, &["corim.profile", "111(h'01')", "without a profile"]),
        ("unsigned", &payload(), of_author, 2, &["an unsigned CoRIM"]),
        ("nobody", &author.signed(&payload()), &["--at", at], 2, &["name their public key with --signer"]),
        ("secret", &author.signed(&payload()), &["--signer", &secret], 2, &["is a private key", "public key"]),
        ("no key", &author.signed(&payload()), &["--signer", &file], 2, &["UTF-8"]),
        ("empty", &plain, of_author, 2, &["no reference value", "endorsed values are left out"]),
        ("cut", &author.signed(&payload())[..100], of_author, 2, &["at byte ", "needs"]),
        ("which", &std::fs::read(&two).unwrap(), of_author, 2, &["--environment", "`ACME R340`, `ACME R650`"]),
        ("json", b"{}", &["--from", "corim", "--signer", &key], 2, &["at byte 1"]),
    ];
    for (name, bytes, options, code, parts) in rows {
        let file = write("row", bytes);
        let bundle = path("row.toml");
        let (exit, out, err) = run(&[&["refs", "import", &file, "-o", &bundle], options].concat());
        assert_eq!((exit, out.as_str(), err.matches('\n').count()), (code, "", 1), "{name}: {err}");
        for part in parts {
            assert!(err.contains(part), "{name}: {part} in {err}");
        }
        assert!(!std::path::Path::new(&bundle).exists(), "{name}: nothing is written");
    }
}
