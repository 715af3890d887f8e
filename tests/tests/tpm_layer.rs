//! hostd's TPM operations on real software TPMs, judged by the library that judges hosts.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::path::Path;
use std::process::{Command, Stdio};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use hostmark_attest::digest::{Digest, HashAlg, sha256};
use hostmark_attest::identity::ak::verify_ak;
use hostmark_attest::identity::credential::{AesKey, ProtectionKey, make_credential};
use hostmark_attest::selection::PcrSelection;
use hostmark_attest::tpm::attest::{AttestType, Attested};
use hostmark_attest::tpm::public::Public;
use hostmark_attest::tpm::signed::{self, Expectation, GenuineAttest, Ids, Signer, verify_attest};
use hostmark_attest::wire::{DOMAIN_TAG, Nonce, SignedAttest};
use hostmark_hostd::tpm::{Auth, EkKind, Identity, Tcti, Tpm, TpmError};
use hostmark_tests::swtpm::{self, LocalCa, Swtpm};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

struct Bench {
    directory: tempfile::TempDir,
    swtpm: Swtpm,
}

impl Bench {
    fn start(what: &str) -> Option<Self> {
        if !swtpm::available(what) {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let ca = LocalCa::new(&directory.path().join("ca")).unwrap();
        let swtpm = Swtpm::start(&directory.path().join("tpm"), &ca).unwrap();
        Some(Self { directory, swtpm })
    }

    fn open(&self) -> Tpm {
        let tcti: Tcti = self.swtpm.tcti().parse().unwrap();
        Tpm::open(&tcti, Auth::default()).unwrap()
    }

    /// Runs a tpm2-tools program on this TPM.
    fn try_tool(&self, line: &[&str]) -> bool {
        let tcti = self.swtpm.tcti();
        let mut run = Command::new(line[0]);
        run.args(&line[1..]).env("TPM2TOOLS_TCTI", tcti).env("TSS2_LOG", "all+NONE");
        run.stderr(Stdio::null()).stdout(Stdio::null()).status().unwrap().success()
    }

    fn tool(&self, line: &[&str]) {
        assert!(self.try_tool(line), "{line:?}");
    }

    /// Writes the P-256 EK certificate's NV index, with the padding that some vendors leave.
    fn write_certificate(&self, der: &[u8]) {
        let file = self.directory.path().join("certificate");
        let padded = [der, &[0xFF; 50]].concat();
        std::fs::write(&file, &padded).unwrap();
        let size = padded.len().to_string();
        let attributes = "ownerread|ownerwrite|authread|no_da";
        self.tool(&["tpm2_nvdefine", "-Q", "0x1c0000a", "-C", "o", "-s", &size, "-a", attributes]);
        self.tool(&["tpm2_nvwrite", "-Q", "0x1c0000a", "-C", "o", "-i", file.to_str().unwrap()]);
    }

    /// Certifies the P-256 EK, as a vendor would: swtpm_setup does it for RSA and P-384 only.
    fn certify_p256_ek(&self) {
        let (context, pem) = (self.directory.path().join("ek.ctx"), self.directory.path().join("ek.pem"));
        let (context, pem) = (context.to_str().unwrap(), pem.to_str().unwrap());
        self.tool(&["tpm2_createek", "-Q", "-G", "ecc", "-c", context, "-u", pem, "-f", "pem"]);
        let key = rcgen::SubjectPublicKeyInfo::from_pem(&std::fs::read_to_string(pem).unwrap()).unwrap();
        let ca = rcgen::KeyPair::generate().unwrap();
        let issuer = rcgen::Issuer::new(rcgen::CertificateParams::default(), ca);
        let certificate = rcgen::CertificateParams::default().signed_by(&key, &issuer).unwrap();
        self.write_certificate(certificate.der());
    }

    fn state(&self) -> std::path::PathBuf {
        self.directory.path().join("state")
    }
}

fn genuine(
    ids: &'static Ids,
    kind: AttestType,
    signed: &SignedAttest,
    identity: &Identity,
    ek: &[u8],
    qualifying: &[u8],
) -> GenuineAttest {
    let (ak, ek) = (Public::parse(&identity.ak_public).unwrap(), Public::parse(ek).unwrap());
    let signer = Signer::EnrolledAk { public: &ak, ek_name: ek.name() };
    let expect = Expectation { ids, kind, signer, qualifying_data: qualifying };
    let (genuine, _) = verify_attest(&signed.attest.0, &signed.signature.0, &expect).unwrap();
    // The same attestation answers no other challenge.
    let other = Expectation { qualifying_data: b"another challenge", ..expect };
    assert!(verify_attest(&signed.attest.0, &signed.signature.0, &other).unwrap_err().has(ids.nonce));
    genuine
}

fn protection_key(ek: &[u8]) -> ProtectionKey {
    let public = Public::parse(ek).unwrap();
    let aes = if public.name_alg() == HashAlg::Sha384 { AesKey::Bits256 } else { AesKey::Bits128 };
    ProtectionKey { key: public.key().clone(), name_alg: public.name_alg(), aes }
}

/// Everything an enrolment and a round ask of the TPM, under one kind of EK.
fn whole_flow(tpm: &Tpm, state: &Path, kind: EkKind) {
    let ek = tpm.ek(Some(kind)).unwrap();
    assert_eq!(ek.kind, kind);
    assert!(ek.certificate.is_some());
    let identity = tpm.create_keys(state, kind).unwrap();
    assert_eq!(identity, tpm.create_keys(state, kind).unwrap(), "a second call finds the same keys");

    verify_ak(&Public::parse(&identity.ak_public).unwrap()).unwrap();

    // Credential activation: this AK with this EK, nothing else.
    let secret = [7u8; 32];
    let ak_name = Public::parse(&identity.ak_public).unwrap().name().as_bytes().to_vec();
    let mut random = |bytes: &mut [u8]| aws_lc_rs::rand::fill(bytes).unwrap();
    let credential = make_credential(&protection_key(&ek.public), &ak_name, &secret, &mut random).unwrap();
    let opened = tpm.activate_credential(&credential.id_object, &credential.encrypted_secret).unwrap();
    assert_eq!(opened.as_slice(), secret);
    let tls_name = Public::parse(&identity.tls_public).unwrap().name().as_bytes().to_vec();
    let other = make_credential(&protection_key(&ek.public), &tls_name, &secret, &mut random).unwrap();
    let refused = tpm.activate_credential(&other.id_object, &other.encrypted_secret).unwrap_err();
    assert!(refused.response_code().is_some(), "{refused}");

    // A quote over more PCRs than one read returns.
    let selection = PcrSelection::from_text("sha256:0,1,2,3,4,5,6,7,8,9,10,11,12,13,14").unwrap();
    let quoted = tpm.quote(&selection, b"challenge").unwrap();
    let quote = genuine(&signed::QUOTE, AttestType::Quote, &quoted.signed, &identity, &ek.public, b"challenge");
    let Attested::Quote { selection: found, pcr_digest } = &quote.attest().attested else { panic!("not a quote") };
    assert_eq!(found, &selection);
    let values = &quoted.pcrs[&HashAlg::Sha256];
    assert_eq!(values.len(), 15);
    let composite: Vec<&[u8]> = values.values().map(Digest::as_bytes).collect();
    assert_eq!(pcr_digest.as_slice(), sha256(&composite));

    // The TLS key: certified by the AK, signs.
    let certification = tpm.certify_tls_key(b"csr").unwrap();
    let certified = genuine(&signed::TLS_KEY, AttestType::Certify, &certification, &identity, &ek.public, b"csr");
    let Attested::Certify { name, .. } = &certified.attest().attested else { panic!("not a certification") };
    assert_eq!(name, &tls_name);
    let tls = Public::parse(&identity.tls_public).unwrap();
    let message = b"a handshake";
    let signature = tpm.sign(sha256(&[message])).unwrap();
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, tls.key().key_bytes());
    key.verify(message, &signature).unwrap();
    key.verify(b"another", &signature).unwrap_err();
}

#[test]
fn every_operation_under_an_rsa_ek() {
    let Some(bench) = Bench::start("TPM operations under an RSA EK") else { return };
    whole_flow(&bench.open(), &bench.state(), EkKind::Rsa2048);
}

#[test]
fn every_operation_under_a_p384_ek() {
    let Some(bench) = Bench::start("TPM operations under a P-384 EK") else { return };
    whole_flow(&bench.open(), &bench.state(), EkKind::EccP384);
}

#[test]
fn every_operation_under_a_p256_ek() {
    let Some(bench) = Bench::start("TPM operations under a P-256 EK") else { return };
    assert_eq!(bench.open().ek(None).unwrap().kind, EkKind::Rsa2048, "swtpm certifies no P-256 EK");
    let absent = bench.open().ek(Some(EkKind::EccP256)).unwrap_err();
    assert!(matches!(absent, TpmError::NoEkCertificate { kind: Some(EkKind::EccP256) }), "{absent}");
    bench.certify_p256_ek();
    assert_eq!(bench.open().ek(None).unwrap().kind, EkKind::EccP256, "the certified kind that is fastest");
    whole_flow(&bench.open(), &bench.state(), EkKind::EccP256);
}

#[test]
fn a_certificate_of_another_ek_is_told() {
    let Some(bench) = Bench::start("a foreign EK certificate") else { return };
    let other = std::fs::read(bench.directory.path().join("ca/issuercert.pem")).unwrap();
    bench.write_certificate(CertificateDer::from_pem_slice(&other).unwrap().as_ref());
    let refused = bench.open().ek(Some(EkKind::EccP256)).unwrap_err();
    assert!(matches!(refused, TpmError::EkMismatch { kind: EkKind::EccP256 }), "{refused}");
}

#[test]
fn authorizations_are_used_where_they_are_set() {
    let Some(bench) = Bench::start("hierarchy authorizations") else { return };
    bench.tool(&["tpm2_changeauth", "-Q", "-c", "owner", "own"]);
    bench.tool(&["tpm2_changeauth", "-Q", "-c", "endorsement", "end"]);
    let tpm = bench.open();
    let refused = tpm.create_keys(&bench.state(), EkKind::Rsa2048).unwrap_err();
    assert!(refused.response_code().unwrap().wrong_auth(), "{refused}");
    assert!(refused.to_string().contains("--tpm-auth-file"), "{refused}");
    drop(tpm);
    let auth = Auth { owner: b"own".to_vec().into(), endorsement: b"end".to_vec().into() };
    let tpm = Tpm::open(&bench.swtpm.tcti().parse().unwrap(), auth).unwrap();
    whole_flow(&tpm, &bench.state(), EkKind::EccP384);
    tpm.write_tag(b"a tag").unwrap();
    assert_eq!(tpm.facts().unwrap().auth_set, [true, true, false]);
}

/// What a dictionary attack leaves behind must not end attestation.
#[test]
fn a_lockout_stops_no_round() {
    let Some(bench) = Bench::start("dictionary-attack lockout") else { return };
    bench.tool(&["tpm2_dictionarylockout", "-Q", "-s", "-n", "1", "-t", "1000", "-l", "1000"]);
    bench.tool(&["tpm2_nvdefine", "-Q", "0x1800b00", "-C", "o", "-s", "8", "-p", "right", "-a", "authread|authwrite"]);
    let file = bench.directory.path().join("8-bytes");
    std::fs::write(&file, [0; 8]).unwrap();
    let file = file.to_str().unwrap();
    for _ in 0..3 {
        bench.try_tool(&["tpm2_nvwrite", "-Q", "0x1800b00", "-C", "0x1800b00", "-P", "wrong", "-i", file]);
    }
    let tpm = bench.open();
    let facts = tpm.facts().unwrap();
    assert!(facts.in_lockout, "{facts:?}");
    for kind in [EkKind::Rsa2048, EkKind::EccP384] {
        whole_flow(&tpm, &bench.directory.path().join(kind.name()), kind);
    }
}

#[test]
fn extending_moves_exactly_one_pcr() {
    let Some(bench) = Bench::start("PCR extension") else { return };
    let tpm = bench.open();
    let selection = PcrSelection::from_text("sha256:12,13").unwrap();
    let before = tpm.pcr_read(&selection).unwrap();
    let digest = Digest::new(HashAlg::Sha256, &sha256(&[b"event"])).unwrap();
    tpm.pcr_extend(13, &[digest]).unwrap();
    let after = tpm.pcr_read(&selection).unwrap();
    assert_eq!(after[&HashAlg::Sha256][&12], before[&HashAlg::Sha256][&12]);
    assert_eq!(Some(after[&HashAlg::Sha256][&13]), before[&HashAlg::Sha256][&13].extend(&digest));
    let inactive = tpm.pcr_read(&PcrSelection::from_text("sha1:0").unwrap()).unwrap_err();
    assert!(matches!(inactive, TpmError::InactiveBank { bank: HashAlg::Sha1 }), "{inactive}");
}

#[test]
fn a_tag_is_written_replaced_and_certified() {
    let Some(bench) = Bench::start("asset tag") else { return };
    let tpm = bench.open();
    let ek = tpm.ek(None).unwrap();
    let identity = tpm.create_keys(&bench.state(), ek.kind).unwrap();
    let nonce = Nonce([9; 32]);
    assert!(tpm.tag_evidence(&nonce).unwrap().is_none());
    for tag in [vec![1u8; 300], vec![2u8; 300], vec![3u8; 700]] {
        tpm.write_tag(&tag).unwrap();
        assert_eq!(tpm.read_tag().unwrap().as_ref(), Some(&tag));
        let evidence = tpm.tag_evidence(&nonce).unwrap().unwrap();
        let bound = nonce.bind(DOMAIN_TAG, &tag);
        let certified = genuine(&signed::TAG, AttestType::Nv, &evidence.certification, &identity, &ek.public, &bound);
        let Attested::Nv { contents, offset: 0, .. } = &certified.attest().attested else { panic!("not the tag") };
        assert_eq!(contents, &tag);
    }
    assert!(matches!(tpm.write_tag(&[0; 4000]).unwrap_err(), TpmError::TagTooLarge { .. }));
    tpm.remove_tag().unwrap();
    assert!(tpm.read_tag().unwrap().is_none());
}

#[test]
fn a_reset_raises_the_counter_and_keys_are_found_again() {
    let Some(mut bench) = Bench::start("TPM reset") else { return };
    let tpm = bench.open();
    let kind = tpm.ek(None).unwrap().kind;
    let identity = tpm.create_keys(&bench.state(), kind).unwrap();
    let before = tpm.time().unwrap();
    bench.swtpm.reset().unwrap();
    let selection = PcrSelection::from_text("sha256:0").unwrap();
    // The broken connection is told, once; the command after it works, with the keys loaded again.
    assert!(matches!(tpm.quote(&selection, b"1").unwrap_err(), TpmError::Unreachable { .. }));
    tpm.quote(&selection, b"2").unwrap();
    assert_eq!(tpm.time().unwrap().reset_count, before.reset_count + 1);
    // A new process opens the same keys.
    drop(tpm);
    let again = bench.open();
    assert!(matches!(again.quote(&selection, b"3").unwrap_err(), TpmError::NoKeys));
    assert_eq!(again.open_keys(&bench.state()).unwrap(), identity);
    again.quote(&selection, b"3").unwrap();
}

#[test]
fn keys_of_another_tpm_are_refused_by_name() {
    let Some(bench) = Bench::start("keys of another TPM") else { return };
    let Some(other) = Bench::start("keys of another TPM") else { return };
    let kind = EkKind::Rsa2048;
    bench.open().create_keys(&bench.state(), kind).unwrap();
    let refused = other.open().open_keys(&bench.state()).unwrap_err();
    assert!(refused.response_code().unwrap().foreign_blob(), "{refused}");
}

#[test]
fn slots_are_not_lost() {
    let Some(bench) = Bench::start("transient objects") else { return };
    let tpm = bench.open();
    tpm.create_keys(&bench.state(), EkKind::Rsa2048).unwrap();
    for _ in 0..5 {
        tpm.ek(None).unwrap();
        tpm.activate_credential(&[0, 1, 0], &[0, 1, 0]).unwrap_err();
        tpm.replace_tls_key(&bench.state()).unwrap();
    }
    tpm.sign([0; 32]).unwrap();
    // A client that dies leaves its keys loaded; the next one is not short of slots.
    drop(tpm);
    for _ in 0..3 {
        let next = bench.open();
        next.open_keys(&bench.state()).unwrap();
        next.ek(None).unwrap();
    }
    let facts = bench.open().facts().unwrap();
    assert!(facts.looks_simulated());
    assert_eq!(facts.banks, ["sha256"]);
    assert!(!facts.in_lockout);
}
