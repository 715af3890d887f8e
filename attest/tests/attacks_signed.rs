//! Signed files: signatures of versions 2 and 3, keys of the policy and of measured keyrings. Each attack has its honest twin.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reads its recordings"
)]

mod common;
#[path = "common/template.rs"]
mod template;

use std::collections::BTreeMap;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use common::bench::{Host, judge, policy, told};
use hostmark_attest::appraisal::{Appraisal, Judge};
use hostmark_attest::digest::{HashAlg, sha256};
use hostmark_attest::ima::keys::ImaKey;
use hostmark_attest::ima::signature::is_signed;
use hostmark_attest::ima::{DigestOf, FileMeasurement};
use hostmark_attest::manifest::EngineManifest;
use hostmark_attest::policy::{AppraisalPolicy, PolicyError};
use hostmark_attest::tier::{Submodule, Tier};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};

/// Keys made for this test with OpenSSL; their private halves are gone.
const RSA: &str = "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA66ZrwkPtwubXf1Sazxki\nxRSONdkJvZ5pIzDsXXgAMhvJ5/ri098BooWpJSjD012Gvi9gwrrv0uOK5NUwPyuu\nsMqx3iSkfIC95Ta0nl1m0llVZBPdjah7qEhLzKyvODIg1K7cY+eNtBW+hUND2we0\nsQ/TryOsHQJ5mYNP/XSsC82UQOyGmALUssqQa8DZB4DWCZd0Y4ahY+9YtavWhgPE\nyfc2h4jVKdfOvl544KTfGrGmdwWEdiHFRmlmqI0leogJTp5G2RsMBi7a/jaLejmy\nZuiEEAfXtKfk8rCcvQwmadoAfQmrFQByLogvOgiUFmE2uV0hEOGUqCJzDaTdS61u\nlQIDAQAB\n-----END PUBLIC KEY-----\n";
const EC: &str = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEih7ZDjT5RtahEF7FBMDrjcqGrEbU\n5ez+8kNsI7IRkkIysNWJtkklJtLReGgc/6XiLEMubVbKJuZyinU7jVU5oA==\n-----END PUBLIC KEY-----\n";
/// What `evmctl ima_sign` of ima-evm-utils 1.4 wrote for a file that holds `hostmark`.
const BY_RSA: &str = "030204be6d523d0100624d04f146a461d1872745013b3ef53a4af1584f683d66d2c0d340247333a9f5802d5d966800f17a2014a225c8ad259beea4311dba9a582805938a4a7d13e8a7eb1dd1d883ff7e892992c3a0c9e0c155a7713ca217ed3b923a41a68abade04587cdd20f2f44bcad06360d1bcdd9fe76b5891deab346d5a82b8a34b6fed4e92189ddaa43dc506a2d92167cff00b73401a7295e4312013f8f152b9c64a13423466da1862eb0182ebfea0ad5ca18a99ac9aa269cc6ffe5c02b27652e894c822c6565e5cae0c60645f630b21bde91f9c68a31fc3562c15d653bcbc4d115212ac678afd3f26197ce541a7f533822c19f7a36a825aaaec8e6532a0925c6cbd5f712770";
const BY_EC: &str = "030204999e069000473045022058cd40bfafa088661cd2b1d6a4e5a1e3455fe520e4aef3fe7c0c6200355eba33022100bf707b56f1ad260277e07be81bc07f60e3f4e723e25de3b53f8f15ac00d5f897";
/// What `openssl dgst -sha256 -sign` wrote for that file's `struct ima_file_id` of fs-verity, with a header in front.
const BY_EC_V3: &str = "060304999e069000473045022055129cd41ae914a0362c140fb9ec94da6daf2f8daac4b8c48a251234fe5362350221009e45b41718bbf1097f8a4b3f955c373d5e3c1a3b801c0e729f59f27d77c6391d";

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes().chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

#[test]
fn b8_a_signature_is_over_this_files_digest_by_a_named_key() {
    let (rsa, ec) = (ImaKey::from_pem(RSA).unwrap(), ImaKey::from_pem(EC).unwrap());
    let (good, other) = (sha256(&[b"hostmark"]), sha256(&[b"other"]));
    let (by_rsa, by_ec, v3) = (bytes(BY_RSA), bytes(BY_EC), bytes(BY_EC_V3));
    let with = |signature: &[u8], at: usize, value: u8| {
        let mut signature = signature.to_vec();
        signature[at] = value;
        signature
    };
    let (unsaid, file, verity) = (DigestOf::Unsaid, DigestOf::File, DigestOf::Verity);
    // (signature, algorithm, digest, what it is of, keys, signed)
    type Row<'a> = (&'a str, Vec<u8>, &'a str, [u8; 32], DigestOf, Vec<&'a ImaKey>, bool);
    let rows: Vec<Row<'_>> = vec![
        ("RSA", by_rsa.clone(), "sha256", good, unsaid, vec![&ec, &rsa], true),
        ("EC", by_ec.clone(), "sha256", good, file, vec![&rsa, &ec], true),
        ("fs-verity", v3.clone(), "sha256", good, verity, vec![&ec], true),
        ("another file", by_rsa.clone(), "sha256", other, unsaid, vec![&rsa], false),
        ("another file", by_ec.clone(), "sha256", other, unsaid, vec![&ec], false),
        ("another verity file", v3.clone(), "sha256", other, verity, vec![&ec], false),
        ("no key", by_rsa.clone(), "sha256", good, unsaid, vec![], false),
        ("another key", by_rsa.clone(), "sha256", good, unsaid, vec![&ec], false),
        ("a file's signature for a verity digest", by_ec.clone(), "sha256", good, verity, vec![&ec], false),
        ("a verity signature for a file's digest", v3.clone(), "sha256", good, file, vec![&ec], false),
        ("a verity signature where the template does not say", v3.clone(), "sha256", good, unsaid, vec![&ec], false),
        ("version 3 of a file's", with(&by_ec, 1, 3), "sha256", good, file, vec![&ec], false),
        ("version 1", with(&by_ec, 1, 1), "sha256", good, file, vec![&ec], false),
        ("an EVM signature", with(&by_ec, 0, 5), "sha256", good, file, vec![&ec], false),
        ("another algorithm in the header", with(&by_ec, 2, 5), "sha256", good, file, vec![&ec], false),
        ("SHA-1 in the header", with(&by_ec, 2, 2), "sha256", good, file, vec![&ec], false),
        ("another algorithm of the entry", by_ec.clone(), "sm3", good, file, vec![&ec], false),
        ("another key id", with(&by_ec, 3, 0), "sha256", good, file, vec![&ec], false),
        ("another size", with(&by_ec, 8, 0x46), "sha256", good, file, vec![&ec], false),
        ("a byte behind it", [by_ec.as_slice(), &[0]].concat(), "sha256", good, file, vec![&ec], false),
        ("a flipped byte", with(&by_ec, 20, 0), "sha256", good, file, vec![&ec], false),
        ("a truncated one", by_ec[..by_ec.len() - 1].to_vec(), "sha256", good, file, vec![&ec], false),
    ];
    for (what, signature, alg, digest, of, keys, expect) in rows {
        let entry =
            FileMeasurement { alg, digest: &digest, of, path: b"/x", signature: Some(&signature), buffer: None };
        assert_eq!(is_signed(&entry, keys.iter().copied(), &mut 10), expect, "{what}");
        assert!(!is_signed(&entry, keys.iter().copied(), &mut 0), "{what}: no verification is left");
    }
    let unsigned =
        FileMeasurement { alg: "sha256", digest: &good, of: file, path: b"/x", signature: None, buffer: None };
    assert!(!is_signed(&unsigned, [&rsa, &ec], &mut 10));
}

/// Somebody who issues certificates.
struct Issuer(CertifiedIssuer<'static, rcgen::KeyPair>);

impl Issuer {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// A signer of files, and its certificate.
    fn signer(&self) -> (Signer, Vec<u8>) {
        self.signer_with(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning])
    }

    /// A key whose certificate says something else of it.
    fn signer_with(&self, change: impl FnOnce(&mut CertificateParams)) -> (Signer, Vec<u8>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["ima".to_owned()]).unwrap();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        change(&mut params);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.serialized_der()).unwrap();
        (Signer { pair, pem: key.public_key_pem() }, certificate.der().to_vec())
    }
}

struct Signer {
    pair: EcdsaKeyPair,
    pem: String,
}

impl Signer {
    /// What `security.ima` of this content is.
    fn sign(&self, content: &[u8]) -> Vec<u8> {
        let value = self.pair.sign(&SystemRandom::new(), content).unwrap();
        let id = HashAlg::Sha1.hash(&[self.pair.public_key().as_ref()]).unwrap();
        let size = u16::try_from(value.as_ref().len()).unwrap().to_be_bytes();
        [&[3, 2, 4], &id.as_bytes()[16..], &size, value.as_ref()].concat()
    }
}

fn manifest() -> EngineManifest {
    EngineManifest { version: 1, root_is_default: true, engines: BTreeMap::new() }
}

/// A policy under which unknown files refuse, with these lines in `[ima]`.
fn rules(lines: &str) -> String {
    policy("").replace("unknown = \"warning\"\n", &format!("unknown = \"contraindicated\"\n{lines}"))
}

fn judge_of(lines: &str) -> Judge {
    judge(&rules(lines), &[&manifest()])
}

fn runtime(appraisal: &Appraisal) -> (Vec<&str>, Tier) {
    let ids = told(appraisal).into_iter().map(|(_, id)| id).filter(|id| id.starts_with("ima."));
    (ids.collect(), appraisal.tier(Submodule::Runtime))
}

#[test]
fn b8_a_signed_file_is_known_and_only_by_keys_that_the_policy_names() {
    let issuer = Issuer::new("ca");
    let ((signer, _), (other, _)) = (issuer.signer(), issuer.signer());
    let judge = judge_of(&format!("signers = [\"\"\"{}\"\"\"]\n", signer.pem));
    let unknown = (vec!["ima.unknown-file"], Tier::Contraindicated);
    let good = (vec![], Tier::Affirming);
    let rows = [
        ("signed", template::signed("/usr/bin/new", b"new", &signer.sign(b"new")), good.clone()),
        ("another content", template::signed("/usr/bin/new", b"evil", &signer.sign(b"new")), unknown.clone()),
        ("another key", template::signed("/usr/bin/new", b"new", &other.sign(b"new")), unknown.clone()),
        ("unsigned", template::signed("/usr/bin/new", b"new", &[]), unknown.clone()),
    ];
    for (what, list, expect) in rows {
        let mut host = Host::boot(&manifest());
        assert_eq!(runtime(&host.round(&judge).unwrap()), good, "honest twin");
        host.measure(&list);
        assert_eq!(runtime(&host.round(&judge).unwrap()), expect, "{what}");
        // A policy that names no key does not know it either way.
        let mut host = Host::boot(&manifest());
        host.measure(&list);
        assert_eq!(runtime(&host.round(&judge_of("")).unwrap()), unknown, "{what}");
    }
}

#[test]
fn b8_a_measured_key_of_a_named_issuer_signs_only_if_it_is_for_code() {
    let issuer = Issuer::new("ca");
    let judge = judge_of(&format!("[ima.keyrings]\n\".ima\" = [\"\"\"{}\"\"\"]\n", issuer.pem()));
    type Change = fn(&mut CertificateParams);
    let rows: [(&str, bool, Change); 6] = [
        ("for code", true, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning]),
        ("for signatures", true, |_| {}),
        ("a TLS client's", false, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
        ("for agreement", false, |params| params.key_usages = vec![KeyUsagePurpose::KeyAgreement]),
        ("for nothing it says", false, |params| params.key_usages.clear()),
        ("a CA's", false, |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
    ];
    for (what, good, change) in rows {
        let (signer, certificate) = issuer.signer_with(change);
        let mut host = Host::boot(&manifest());
        host.measure(&template::key(".ima", &certificate));
        host.measure(&template::signed("/usr/bin/new", b"new", &signer.sign(b"new")));
        let expect = match good {
            true => (vec![], Tier::Affirming),
            false => (vec!["ima.unknown-key", "ima.unknown-file"], Tier::Contraindicated),
        };
        assert_eq!(runtime(&host.round(&judge).unwrap()), expect, "{what}");
    }
}

#[test]
fn b8_a_measured_key_signs_only_if_a_named_issuer_signed_it() {
    let (issuer, evil) = (Issuer::new("ca"), Issuer::new("ca"));
    let ((signer, certificate), (own, forged)) = (issuer.signer(), evil.signer());
    let judge = judge_of(&format!("[ima.keyrings]\n\".ima\" = [\"\"\"{}\"\"\"]\n", issuer.pem()));
    let good = (vec![], Tier::Affirming);
    let file = |signer: &Signer| template::signed("/usr/bin/new", b"new", &signer.sign(b"new"));
    let refused = |ids: &[&'static str]| (ids.to_vec(), Tier::Contraindicated);
    let tampered = |at: usize| {
        let mut certificate = certificate.clone();
        let end = certificate.len();
        certificate[end - at] ^= 1;
        certificate
    };
    type Row<'a> = (&'a str, Vec<u8>, (Vec<&'a str>, Tier));
    let rows: Vec<Row<'_>> = vec![
        ("issued, then a file", [template::key(".ima", &certificate), file(&signer)].concat(), good.clone()),
        (
            "the file before its key",
            [file(&signer), template::key(".ima", &certificate)].concat(),
            refused(&["ima.unknown-file"]),
        ),
        ("no key", file(&signer), refused(&["ima.unknown-file"])),
        // Root extends a key of its own, and signs with it.
        (
            "root's key",
            [template::key(".ima", &forged), file(&own)].concat(),
            refused(&["ima.unknown-key", "ima.unknown-file"]),
        ),
        ("root's key alone", template::key(".ima", &forged), refused(&["ima.unknown-key"])),
        (
            "root's file under the issued key",
            [template::key(".ima", &certificate), file(&own)].concat(),
            refused(&["ima.unknown-file"]),
        ),
        ("a certificate with another signature", template::key(".ima", &tampered(3)), refused(&["ima.unknown-key"])),
        (
            "with a byte behind it",
            template::key(".ima", &[certificate.as_slice(), &[0]].concat()),
            refused(&["ima.unknown-key"]),
        ),
        // A keyring that the policy does not name, and a file of the keyring's name.
        (
            "another keyring",
            [template::key(".platform", &certificate), file(&signer)].concat(),
            refused(&["ima.unknown-file", "ima.unknown-file"]),
        ),
        ("a file named .ima", template::signed(".ima", &certificate, &[]), refused(&["ima.unknown-file"])),
    ];
    for (what, list, expect) in rows {
        let mut host = Host::boot(&manifest());
        host.measure(&list);
        assert_eq!(runtime(&host.round(&judge).unwrap()), expect, "{what}");
    }
    // The key is kept between rounds of a boot, and only then.
    let mut host = Host::boot(&manifest());
    host.measure(&template::key(".ima", &certificate));
    assert_eq!(runtime(&host.round(&judge).unwrap()), good);
    host.measure(&file(&signer));
    assert_eq!(runtime(&host.round(&judge).unwrap()), good, "a delta");
    let kept = host.state.as_ref().unwrap().runtime().keys.len();
    assert_eq!(kept, 1);
    let mut rebooted = Host::boot(&manifest());
    rebooted.measure(&file(&signer));
    assert_eq!(runtime(&rebooted.round(&judge).unwrap()), refused(&["ima.unknown-file"]));
}

#[test]
fn b8_what_names_no_signer_is_refused_in_a_policy() {
    let pem = Issuer::new("ca").pem();
    let invalid = |lines: &str| AppraisalPolicy::parse("p", &rules(lines)).unwrap_err();
    assert!(
        AppraisalPolicy::parse(
            "p",
            &rules(&format!("[ima.keyrings]\n\".builtin_trusted_keys\" = [\"\"\"{pem}\"\"\"]\n"))
        )
        .is_ok()
    );
    for keyring in ["\"/usr/bin/x\"", "\"ima\"", "\".\"", "\".ima/x\"", "\"\""] {
        let error = invalid(&format!("[ima.keyrings]\n{keyring} = [\"\"\"{pem}\"\"\"]\n"));
        assert!(matches!(&error, PolicyError::Invalid { id: "policy.keyring", .. }), "{keyring}: {error}");
    }
    assert!(matches!(invalid("[ima.keyrings]\n\".ima\" = []\n"), PolicyError::Invalid { id: "policy.keyring", .. }));
    for signer in ["", "x", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
        let error = invalid(&format!("signers = [\"\"\"{signer}\"\"\"]\n"));
        assert!(matches!(&error, PolicyError::Toml { .. }), "{signer}: {error}");
    }
}
