//! Platform certificates that this test issues: what is read, and that only a chain the reader brings makes the signature count.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "common/identity.rs"]
mod pki;

use hostmark_attest::finding::Findings;
use hostmark_attest::identity::platform_certificate::{Components, PlatformCertificate};
use pki::{Ca, NOW, SERIAL, refusals};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SigningKey as _};

/// One element of DER.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let contents = parts.concat();
    let mut out = vec![tag];
    match contents.len() {
        short @ 0..=0x7f => out.push(u8::try_from(short).unwrap()),
        long => {
            out.push(0x82);
            out.extend(u16::try_from(long).unwrap().to_be_bytes());
            // 0x81 where one byte suffices.
            if long < 0x100 {
                out.truncate(1);
                out.extend([0x81, u8::try_from(long).unwrap()]);
            }
        }
    }
    out.extend(contents);
    out
}

fn oid(arcs: &[u32]) -> Vec<u8> {
    let mut contents = vec![u8::try_from(arcs[0] * 40 + arcs[1]).unwrap()];
    for arc in &arcs[2..] {
        let mut bytes = vec![u8::try_from(arc & 0x7f).unwrap()];
        let mut rest = arc >> 7;
        while rest > 0 {
            bytes.insert(0, u8::try_from(rest & 0x7f).unwrap() | 0x80);
            rest >>= 7;
        }
        contents.extend(bytes);
    }
    der(6, &[&contents])
}

fn attribute(arcs: &[u32], text: &str) -> Vec<u8> {
    der(0x31, &[&der(0x30, &[&oid(arcs), &der(0x0c, &[text.as_bytes()])])])
}

const ECDSA_SHA256: [u32; 7] = [1, 2, 840, 10045, 4, 3, 2];

/// What a maker puts into one, and who signs.
struct Maker {
    ca: Ca,
    key: KeyPair,
    certificate: Vec<u8>,
}

impl Maker {
    fn new() -> Self {
        let ca = Ca::new("Maker", "Platform Root");
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "Platform signer");
        params.is_ca = IsCa::ExplicitNoCa;
        params.not_after = time::macros::datetime!(2040-01-01 0:00 UTC);
        let certificate = params.signed_by(&key, &Issuer::from_params(&ca.params, &ca.key)).unwrap();
        Self { certificate: certificate.der().to_vec(), ca, key }
    }

    /// An attribute certificate for the EK certificate, listing `components` of them.
    fn issue(&self, ek: &[u8], components: usize) -> Vec<u8> {
        let (_, ek) = x509_parser::parse_x509_certificate(ek).unwrap();
        let names = der(0x30, &[&der(0xa4, &[ek.issuer().as_raw()])]);
        let holder = der(0x30, &[&der(0xa0, &[&names, &der(2, &[ek.raw_serial()])])]);
        let (_, own) = x509_parser::parse_x509_certificate(&self.certificate).unwrap();
        let issuer = der(0xa0, &[&der(0x30, &[&der(0xa4, &[own.subject().as_raw()])])]);
        let algorithm = der(0x30, &[&oid(&ECDSA_SHA256)]);
        let validity = der(0x30, &[&der(0x18, &[b"20240101050000Z"]), &der(0x18, &[b"20300101050000Z"])]);
        let component = der(0x30, &[&der(0x0c, &[b"Maker"]), &der(0x0c, &[b"Board"])]);
        let list = der(0xa0, &[&component.repeat(components)]);
        let configuration = der(0x30, &[&oid(&[2, 23, 133, 5, 1, 7, 2]), &der(0x31, &[&der(0x30, &[&list])])]);
        let kind = der(0x30, &[&oid(&[2, 23, 133, 2, 25]), &der(0x31, &[&der(0x30, &[&oid(&[2, 23, 133, 8, 2])])])]);
        let name = der(
            0x30,
            &[
                &attribute(&[2, 23, 133, 5, 1, 1], "Dell Inc."),
                &attribute(&[2, 23, 133, 5, 1, 4], "PowerEdge R340"),
                &attribute(&[2, 23, 133, 5, 1, 5], "1\n0"),
                &attribute(&[2, 23, 133, 5, 1, 6], "ABC123"),
            ],
        );
        let names = der(0x30, &[&der(0xa4, &[&name])]);
        let extensions = der(0x30, &[&der(0x30, &[&oid(&[2, 5, 29, 17]), &der(4, &[&names])])]);
        let info = der(
            0x30,
            &[
                &[2, 1, 1],
                &holder,
                &issuer,
                &algorithm,
                &[2, 2, 0x12, 0x34],
                &validity,
                &der(0x30, &[&kind, &configuration]),
                &extensions,
            ],
        );
        let signature = self.key.sign(&info).unwrap();
        der(0x30, &[&info, &algorithm, &der(3, &[&[0], &signature])])
    }
}

fn refused(findings: Findings) -> Vec<String> {
    refusals(Err::<(), _>(findings))
}

#[test]
fn a_platform_certificate_is_read_and_counts_under_its_chain_alone() {
    let maker = Maker::new();
    let ek_ca = Ca::new("Chip", "EK Root");
    let key = KeyPair::generate().unwrap();
    let ek = ek_ca.issue(&key, |params| params.serial_number = Some(SERIAL.into()));
    let bytes = maker.issue(&ek, 3);
    let read = PlatformCertificate::parse(&bytes).unwrap();
    assert_eq!((read.form, read.kind), ("attribute", Some("platform")));
    let names = [&read.manufacturer, &read.model, &read.version, &read.serial].map(|one| one.as_deref().unwrap());
    assert_eq!(names, ["Dell Inc.", "PowerEdge R340", "1\\u{a}0", "ABC123"]);
    assert_eq!(read.components, Some(Components { count: 3, version: 2 }));
    assert_eq!((read.certificate_serial.as_str(), read.not_after.as_str()), ("1234", "2030-01-01T05:00:00Z"));
    let holder = read.ek_certificate.as_ref().unwrap();
    assert!(holder.is(&ek) && !holder.is(&ek_ca.issue(&key, |_| {})));

    let chain = [maker.certificate.clone(), maker.ca.der()];
    assert!(read.check_chain(&chain, NOW).as_slice().is_empty());
    assert_eq!(refused(read.check_chain(&[], NOW)), ["platform-certificate.signature"]);
    assert_eq!(refused(read.check_chain(&chain[1..], NOW)), ["platform-certificate.signature"]);
    assert_eq!(refused(read.check_chain(&chain[..1], NOW)), ["platform-certificate.chain"]);
    let other = Maker::new();
    let impostor = [other.certificate.clone(), other.ca.der()];
    assert_eq!(refused(read.check_chain(&impostor, NOW)), ["platform-certificate.signature"]);
    let mixed = [maker.certificate.clone(), other.ca.der()];
    assert_eq!(refused(read.check_chain(&mixed, NOW)), ["platform-certificate.chain"]);
    for now in [time::macros::datetime!(2023-06-01 0:00 UTC), time::macros::datetime!(2031-06-01 0:00 UTC)] {
        assert_eq!(refused(read.check_chain(&chain, now)), ["platform-certificate.validity"], "{now}");
    }

    // Any changed byte is an error, another text, or a signature that does not verify.
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        if let Ok(read) = PlatformCertificate::parse(&changed) {
            assert!(!read.check_chain(&chain, NOW).acceptable(), "byte {at}");
        }
        assert!(PlatformCertificate::parse(&bytes[..at]).is_err(), "{at} bytes");
    }
}

#[test]
fn a_public_key_platform_certificate_is_read_too() {
    let ca = Ca::new("Maker", "Root");
    let key = KeyPair::generate().unwrap();
    let bytes = ca.issue(&key, |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(vec![2, 23, 133, 8, 4])];
    });
    let read = PlatformCertificate::parse(&bytes).unwrap();
    assert_eq!((read.form, read.kind, read.components), ("public-key", Some("platform"), None));
    assert!(read.check_chain(&[ca.der()], NOW).acceptable());
    assert_eq!(refused(read.check_chain(&[Ca::new("Maker", "Root").der()], NOW)), ["platform-certificate.signature"]);
    // Any other certificate is none.
    assert!(PlatformCertificate::parse(&ca.issue(&key, |_| {})).is_err());
}
