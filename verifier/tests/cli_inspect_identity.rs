//! `hostmark inspect ek-cert`, `ak` and `platform-cert`: the real binary on recorded TPMs, on what this test issues, and, where
//! HOSTMARK_EVIDENCE names them, on third-party certificates.
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

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use command::{json_of, run};

fn recorded(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../attest/testdata/recorded").join(file);
    path.to_str().unwrap().to_owned()
}

fn ids(json: &Value) -> Vec<&str> {
    json["findings"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect()
}

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A trust directory with the recorded TPMs' CA in this class.
fn trust(class: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("ek").join(class);
    std::fs::create_dir_all(&folder).unwrap();
    for file in ["swtpm-localca-rootca-cert.pem", "swtpm-localca-issuer-cert.pem"] {
        std::fs::copy(recorded(file), folder.join(file)).unwrap();
    }
    dir
}

#[test]
fn an_ek_certificate_is_shown_and_judged_by_a_trust_directory() {
    let dir = trust("simulated");
    for (file, key) in [("plain/ekcert-rsa.der", "RSA-2048"), ("plain/ekcert-ecc384.der", "P-384")] {
        let file = recorded(file);
        let view = json_of(0, &["inspect", "ek-cert", &file]);
        assert_eq!((&view["key"], &view["tpm"]["model"]), (&json!(key), &json!("swtpm")), "{view}");
        assert_eq!(view["specification"]["family"], json!("2.0"));
        assert_eq!((ids(&view), view.get("class")), (vec!["ek.quirk.no-end"], None));

        let judge = ["inspect", "ek-cert", &file, "--trust", shown(dir.path())];
        assert_eq!(json_of(0, &judge)["class"], json!("simulated"));
        let late = json_of(1, &[&judge[..], &["--at", "2001-01-01T00:00:00Z"]].concat());
        assert_eq!((&late["class"], ids(&late)[0]), (&json!(null), "ek.chain"));
    }
    // A directory that is none, or lies too deep, or too high, is no trust directory that happens to be empty.
    let deep = dir.path().join("ek/simulated");
    let (ek, missing) = (dir.path().join("ek"), dir.path().join("trsut"));
    let file = recorded("plain/ekcert-rsa.der");
    let right = format!("--trust {}", shown(&dir.path().canonicalize().unwrap()));
    for (path, expect) in [
        (deep.as_path(), right.as_str()),
        (&ek, &right),
        (&missing, "trsut is no directory"),
        (dir.path().parent().unwrap(), "holds no ek/"),
    ] {
        let (code, out, err) = run(&["inspect", "ek-cert", &file, "--trust", shown(path)]);
        assert_eq!((code, out.as_str()), (2, ""), "{err}");
        assert!(err.contains(expect), "{err}");
    }

    let empty = tempfile::tempdir().unwrap();
    std::fs::create_dir(empty.path().join("ek")).unwrap();
    let file = recorded("plain/ekcert-rsa.der");
    let refused = json_of(1, &["inspect", "ek-cert", &file, "--trust", shown(empty.path())]);
    assert!(ids(&refused).contains(&"ek.chain"), "{refused}");
    let (code, out, err) = run(&["inspect", "ek-cert", &file, "--trust", shown(empty.path()), "--quirk", "sloppy"]);
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    assert!(err.contains("unknown quirk `sloppy`"), "{err}");
    let (code, text, _) = run(&["inspect", "ek-cert", &file]);
    assert!(code == 0 && text.contains("swtpm") && text.contains("key id"), "{text}");
}

#[test]
fn an_ak_is_shown_with_what_is_wrong_with_it() {
    let view = json_of(1, &["inspect", "ak", &recorded("plain/ak.pub")]);
    let name = std::fs::read(recorded("plain/ak.name")).unwrap();
    assert_eq!(view["name"], json!(hex::encode(name)));
    assert_eq!((&view["key"], &view["scheme"]), (&json!("P-256"), &json!("ECDSA with sha256")));
    assert!(view["attributes"].as_array().unwrap().contains(&json!("restricted")), "{view}");
    // tpm2_createak made the recorded one.
    assert_eq!(ids(&view), ["ak.no-da"]);

    // The EK is no AK: each missing attribute is named.
    let ek = json_of(1, &["inspect", "ak", &recorded("plain/ek.pub")]);
    for id in ["ak.sign", "ak.decrypt", "ak.no-da", "ak.scheme"] {
        assert!(ids(&ek).contains(&id), "{ek}");
    }

    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = dir.path().join("ak.pem");
    std::fs::write(&pem, key.public_key_pem()).unwrap();
    let bare = json_of(0, &["inspect", "ak", shown(&pem)]);
    assert_eq!((&bare["format"], ids(&bare)), (&json!("public key"), vec!["ak.public-area"]));
    let certificate = json_of(0, &["inspect", "ak", &recorded("plain/ekcert-rsa.der")]);
    assert_eq!(certificate["kind"], json!("unstated"), "an EK certificate is no AK's");
}

#[test]
fn what_is_malformed_is_named_with_its_byte() {
    let dir = tempfile::tempdir().unwrap();
    let certificate = std::fs::read(recorded("plain/ekcert-rsa.der")).unwrap();
    let ak = std::fs::read(recorded("plain/ak.pub")).unwrap();
    let rows: [(&str, &[u8], &str); 7] = [
        ("ek-cert", b"", "at byte 0: "),
        ("ek-cert", &certificate[..100], "at byte 4: "),
        ("ek-cert", b"-----BEGIN PUBLIC KEY-----\n", "at byte 0: the PEM holds something else"),
        ("ak", &ak[..20], "at byte "),
        ("ak", b"-----BEGIN CERTIFICATE-----\nMII", "at byte "),
        ("platform-cert", &certificate[..100], "at byte 4: "),
        ("platform-cert", &certificate, "at byte 0: not a platform certificate"),
    ];
    for (what, bytes, expect) in rows {
        let file = dir.path().join("file");
        std::fs::write(&file, bytes).unwrap();
        let (code, out, err) = run(&["inspect", what, shown(&file)]);
        assert_eq!((code, out.as_str(), err.matches('\n').count()), (2, "", 1), "{what}: {err}");
        assert!(err.contains(expect), "{what}: {err}");
    }
}

#[test]
fn a_platform_certificate_counts_under_the_chain_that_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let root_key = rcgen::KeyPair::generate().unwrap();
    let mut root = rcgen::CertificateParams::new([]).unwrap();
    root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    root.distinguished_name.push(rcgen::DnType::CommonName, "Maker");
    let mut params = rcgen::CertificateParams::new([]).unwrap();
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::Other(vec![2, 23, 133, 8, 4])];
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &rcgen::Issuer::from_params(&root, &root_key)).unwrap();
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(dir.path().join(name), bytes).unwrap();
        dir.path().join(name)
    };
    let file = write("platform.der", certificate.der());
    let ca = write("ca.pem", root.self_signed(&root_key).unwrap().pem().as_bytes());
    let other = write("other.pem", root.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem().as_bytes());
    let view = json_of(0, &["inspect", "platform-cert", shown(&file)]);
    assert_eq!((&view["form"], view.get("verified")), (&json!("public-key"), None));
    assert_eq!(json_of(0, &["inspect", "platform-cert", shown(&file), "--chain", shown(&ca)])["verified"], json!(true));
    let refused = json_of(1, &["inspect", "platform-cert", shown(&file), "--chain", shown(&other)]);
    assert_eq!((&refused["verified"], ids(&refused)), (&json!(false), vec!["platform-certificate.signature"]));
    // This form names no EK, so no EK is its own.
    let foreign = json_of(1, &["inspect", "platform-cert", shown(&file), "--chain", shown(&ca), "--ek", shown(&file)]);
    assert_eq!((&foreign["verified"], &foreign["ek_is_holder"]), (&json!(true), &json!(false)));
    assert_eq!(ids(&foreign), ["platform-certificate.holder"]);
}

#[test]
fn third_party_certificates_are_read() {
    let Some(root) = std::env::var_os("HOSTMARK_EVIDENCE").map(PathBuf::from) else {
        println!("skipped: HOSTMARK_EVIDENCE is not set");
        return;
    };
    let mut count = 0;
    for folder in ["ekcert", "iak"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let what = if folder == "iak" { "ak" } else { "ek-cert" };
            let view = json_of(0, &["inspect", what, shown(&path)]);
            assert!(view["serial"].is_string() && view["findings"].is_array(), "{name}: {view}");
            let ca = name.contains("__CA") || name.ends_with(".pem");
            if folder == "ekcert" && !ca && !name.contains("ecc_enc_pca") {
                assert!(view["tpm"]["manufacturer"].is_string(), "{name}: {view}");
            }
            count += 1;
        }
    }
    assert!(count >= 57, "{count}");
}
