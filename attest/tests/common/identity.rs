//! Makers' CAs and EKs in software, for tests: real certificates with generated keys.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(unreachable_pub, missing_docs, reason = "shared by test binaries")]

use hostmark_attest::finding::{Findings, Severity};
use hostmark_attest::tpm::key::PublicKey;
use hostmark_attest::tpm::public::Public;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, CustomExtension, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use time::OffsetDateTime;

/// The moment at which the tests judge: in the year 2026.
pub const NOW: OffsetDateTime = time::macros::datetime!(2026-11-22 08:00 UTC);

/// The ids of the findings that refuse, sorted. A list of one is what an attack must give.
pub fn refusals<T: std::fmt::Debug>(result: Result<T, Findings>) -> Vec<String> {
    let findings = result.expect_err("accepted");
    let mut ids: Vec<String> =
        findings.as_slice().iter().filter(|one| one.severity == Severity::Error).map(|one| one.id.clone()).collect();
    for one in findings.as_slice().iter().filter(|one| one.severity == Severity::Error) {
        assert!(!one.message.is_empty(), "{}: a finding says what is wrong", one.id);
    }
    ids.sort();
    ids
}

/// A root CA under any name: anybody can write a vendor's.
pub struct Ca {
    pub params: CertificateParams,
    pub key: KeyPair,
    pub certificate: Certificate,
}

impl Ca {
    pub fn new(organization: &str, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::OrganizationName, organization);
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap();
        Self { params, key, certificate }
    }

    pub fn der(&self) -> Vec<u8> {
        self.certificate.der().to_vec()
    }

    /// An EK certificate for this key, after `change`.
    pub fn issue(&self, ek: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = ek_certificate();
        change(&mut params);
        params.signed_by(ek, &Issuer::from_params(&self.params, &self.key)).unwrap().der().to_vec()
    }
}

/// The serial number of certificates that [`Ca::revoke`] can name.
pub const SERIAL: u64 = 0x8000_0001;

impl Ca {
    /// A CRL that names these serial numbers, valid for a month from `issued`.
    pub fn revoke(&self, serials: &[u64], issued: OffsetDateTime) -> Vec<u8> {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: issued,
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: issued,
            next_update: issued + time::Duration::days(30),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&Issuer::from_params(&self.params, &self.key)).unwrap().der().to_vec()
    }
}

/// What every EK certificate has: its extended key usage and a validity around [`NOW`].
pub fn ek_certificate() -> CertificateParams {
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "EK");
    params.not_before = time::macros::datetime!(2020-01-01 0:00 UTC);
    params.not_after = time::macros::datetime!(2040-01-01 0:00 UTC);
    params.is_ca = IsCa::ExplicitNoCa;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(vec![2, 23, 133, 8, 1])];
    params
}

/// A critical extension under a private OID.
pub fn unknown_critical() -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
    extension.set_criticality(true);
    extension
}

/// fixedTPM|fixedParent|sensitiveDataOrigin|adminWithPolicy|restricted|decrypt: the EK templates of the TCG's low range.
pub const EK_ATTRIBUTES: u32 = 0x0003_00b2;

/// TPMT_PUBLIC of an EK, from its parts: type, key parameters after the scheme, unique.
fn tpmt_public(kind: u16, attributes: u32, parameters: &[u8], unique: &[u8]) -> Public {
    let mut out = kind.to_be_bytes().to_vec();
    out.extend([0, 0x0b]);
    out.extend(attributes.to_be_bytes());
    out.extend([0, 0]);
    out.extend([0, 6, 0, 128, 0, 0x43, 0, 0x10]); // AES-128-CFB; no scheme
    out.extend(parameters);
    out.extend(unique);
    Public::parse(&out).unwrap()
}

fn tpm2b(bytes: &[u8]) -> Vec<u8> {
    [u16::try_from(bytes.len()).unwrap().to_be_bytes().as_slice(), bytes].concat()
}

/// The public area of a P-256 EK.
pub fn ek_p256(key: &KeyPair, attributes: u32) -> Public {
    let point = key.public_key_raw();
    let half = (point.len() - 1) / 2;
    let unique = [tpm2b(&point[1..=half]), tpm2b(&point[half + 1..])].concat();
    tpmt_public(0x23, attributes, &[0, 3, 0, 0x10], &unique)
}

/// The public area of an EK on another curve (TPM_ECC_CURVE), with any point.
pub fn ek_curve(curve: u16) -> Public {
    let unique = [tpm2b(&[1; 28]), tpm2b(&[2; 28])].concat();
    tpmt_public(0x23, EK_ATTRIBUTES, &[curve.to_be_bytes(), [0, 0x10]].concat(), &unique)
}

/// The public area of an RSA EK of any size.
pub fn ek_rsa(bits: u16) -> Public {
    let parameters = [&bits.to_be_bytes()[..], &[0; 4]].concat();
    tpmt_public(1, EK_ATTRIBUTES, &parameters, &tpm2b(&vec![0xc5; usize::from(bits) / 8]))
}

/// The public area of an RSA EK with this modulus.
pub fn ek_modulus(modulus: &[u8]) -> Public {
    ek_of(&PublicKey::rsa(modulus, 0), EK_ATTRIBUTES)
}

/// A modulus of 2048 bits with ROCA's fingerprint: k·M + 65537^a, M the product of the primes up to 167.
pub fn roca_modulus() -> Vec<u8> {
    fn times(number: &mut Vec<u8>, factor: u32) {
        let mut carry = 0u64;
        for byte in number.iter_mut() {
            let sum = u64::from(*byte) * u64::from(factor) + carry;
            *byte = u8::try_from(sum & 0xff).unwrap();
            carry = sum >> 8;
        }
        while carry > 0 {
            number.push(u8::try_from(carry & 0xff).unwrap());
            carry >>= 8;
        }
    }
    let mut multiple = vec![1u8];
    for prime in (2u32..168).filter(|n| (2..*n).all(|d| n % d != 0)) {
        times(&mut multiple, prime);
    }
    // Any k: here one that makes the product's highest byte the 256th.
    while multiple.len() < 256 {
        let factor = if multiple.len() < 254 { 0xfff1 } else { 251 };
        times(&mut multiple, factor);
    }
    while multiple[255] < 0x80 {
        times(&mut multiple, 2);
    }
    let mut power = vec![1u8];
    (0..90).for_each(|_| times(&mut power, 65537));
    let mut carry = 0u16;
    for (at, byte) in multiple.iter_mut().enumerate() {
        let sum = u16::from(*byte) + u16::from(power.get(at).copied().unwrap_or_default()) + carry;
        *byte = u8::try_from(sum & 0xff).unwrap();
        carry = sum >> 8;
    }
    assert!(carry == 0 && multiple.len() == 256);
    multiple.reverse();
    multiple
}

/// The public area of an EK with this key.
pub fn ek_of(key: &PublicKey, attributes: u32) -> Public {
    match key {
        PublicKey::Rsa { modulus, exponent } => {
            let bits = u16::try_from(key.bits().unwrap()).unwrap();
            let parameters = [&bits.to_be_bytes()[..], &exponent.to_be_bytes()].concat();
            tpmt_public(1, attributes, &parameters, &tpm2b(modulus))
        }
        PublicKey::Ec { curve, x, y } => {
            let parameters = [curve.to_tpm().to_be_bytes(), [0, 0x10]].concat();
            tpmt_public(0x23, attributes, &parameters, &[tpm2b(x), tpm2b(y)].concat())
        }
        _ => panic!("another kind of key"),
    }
}

/// Whether a certificate's own signature verifies under this SubjectPublicKeyInfo. SHA-1 too: makers' old roots have it, and what is
/// asked here is only who made the certificate.
pub fn is_signed_by(certificate: &[u8], spki: &[u8]) -> bool {
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
        RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey,
        VerificationAlgorithm,
    };
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).unwrap();
    let algorithm: &'static dyn VerificationAlgorithm =
        match parsed.signature_algorithm.algorithm.to_id_string().as_str() {
            "1.2.840.113549.1.1.5" => &RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            "1.2.840.113549.1.1.11" => &RSA_PKCS1_2048_8192_SHA256,
            "1.2.840.113549.1.1.12" => &RSA_PKCS1_2048_8192_SHA384,
            "1.2.840.113549.1.1.13" => &RSA_PKCS1_2048_8192_SHA512,
            "1.2.840.10045.4.3.2" => match spki.len() {
                ..=100 => &ECDSA_P256_SHA256_ASN1,
                _ => &aws_lc_rs::signature::ECDSA_P384_SHA256_ASN1,
            },
            "1.2.840.10045.4.3.3" => match spki.len() {
                ..=100 => &aws_lc_rs::signature::ECDSA_P256_SHA384_ASN1,
                _ => &ECDSA_P384_SHA384_ASN1,
            },
            "1.2.840.10045.4.3.4" => &aws_lc_rs::signature::ECDSA_P521_SHA512_ASN1,
            other => panic!("{other}"),
        };
    let signed = parsed.tbs_certificate.as_ref();
    UnparsedPublicKey::new(algorithm, spki).verify(signed, &parsed.signature_value.data).is_ok()
}
