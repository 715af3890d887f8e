//! `hostmark waiver`: the real binary, on files made here.
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

use command::{json_of, run};

#[test]
fn a_waiver_is_checked_and_signed_by_an_operators_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (key, file) = (path("signer.pem"), path("userns.toml"));
    assert_eq!(run(&["key", "create", &key]).0, 0);
    let text = "controls = ['docker.userns-remap']\nhosts = ['node-7']\nreason = 'the build hosts mount volumes'\napprover = 'A. Person'\nexpires = '2027-01-31T00:00:00Z'\n";
    std::fs::write(&file, text).unwrap();
    let shown = json_of(0, &["waiver", "check", &file]);
    assert_eq!((&shown["hosts"][0], shown.get("kid")), (&"node-7".into(), None));

    let signed = json_of(0, &["waiver", "sign", &file, "--key", &key]);
    let kid = &json_of(0, &["key", "show", &key])["kid"];
    assert_eq!(&signed["kid"], kid);
    let signature = std::fs::read_to_string(dir.path().join("userns.toml.sig")).unwrap();
    assert!(signature.contains("..") && signature.ends_with('\n'), "detached: {signature}");

    std::fs::write(&file, text.replace("'node-7'", "'*'")).unwrap();
    let (code, out, error) = run(&["waiver", "sign", &file, "--key", &key]);
    assert_eq!((code, out.as_str(), error.matches('\n').count()), (2, "", 1), "{error}");
    assert!(error.contains("userns.toml") && error.contains("no node name"), "{error}");
}
