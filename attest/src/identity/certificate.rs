//! Certificates in files: what people, tools and TPMs wrap them in, and what every kind of them says.
//!
//! RFC 7468 (PEM), RFC 5280 4 (fields), TCG PC Client TPM 1.2 7.3.2 (TCG_PCCLIENT_STORED_CERT). For files that a person looks at:
//! what a host sends is exact DER, and never comes this way. It establishes what is written, not that it is true.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::extensions::{DistributionPointName, GeneralName, ParsedExtension};
use x509_parser::prelude::X509Certificate;

use super::class::{
    EXPLICIT_DEFAULT, NO_END, NV_HEADER, NV_PADDING, PEM_TEXT, RSAES_OAEP, UNSORTED_SET, quirk_finding,
};
use super::der::{Deviations, Element};
use super::ek::oaep_key;
use crate::bytes::{ParseError, Problem, Reader};
use crate::finding::{Findings, one_line};
use crate::tpm::key::PublicKey;

/// Largest certificate that is looked at: platform certificates list every component, and stay below 64 KiB.
pub const CERTIFICATE_FILE_MAX: usize = 256 * 1024;

/// A certificate as a file holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFile {
    /// The exact DER.
    pub der: Vec<u8>,
    /// What it was wrapped in, as `ek.quirk.*`.
    pub findings: Findings,
}

/// Finds the certificate in a file: PEM (also with text around it), DER, DER in the padding or behind the header of an NV index.
///
/// # Errors
/// Anything else, with its byte.
pub fn read_certificate_file(input: &[u8]) -> Result<CertificateFile, ParseError> {
    if input.len() > CERTIFICATE_FILE_MAX {
        let found = u64::try_from(input.len()).unwrap_or(u64::MAX);
        let limit = u64::try_from(CERTIFICATE_FILE_MAX).unwrap_or(u64::MAX);
        return Err(ParseError { at: 0, problem: Problem::OverLimit { what: "the file's size", found, limit } });
    }
    let mut findings = Findings::new();
    let unwrapped;
    // TCG_PCCLIENT_STORED_CERT: tag 0x1001, type full (0), size; TCG_FULL_CERT: tag 0x1002.
    let (bytes, base) = match (find(input, b"-----BEGIN "), input) {
        (Some(at), _) => {
            let (der, around) = pem(input, at)?;
            if around {
                findings.push(quirk_finding(PEM_TEXT));
            }
            unwrapped = der;
            (unwrapped.as_slice(), 0)
        }
        (None, [0x10, 0x01, 0x00, _, _, 0x10, 0x02, rest @ ..]) => {
            findings.push(quirk_finding(NV_HEADER));
            (rest, 7)
        }
        (None, _) => (input, 0),
    };
    let (der, rest) = whole(bytes, base)?;
    // Makers fill an index with 0x00, 0xff or (Nuvoton) 0x11, and people put what they read into PEM.
    if rest.iter().any(|byte| Some(byte) != rest.first()) {
        let at = bytes.len().saturating_sub(rest.len()).saturating_add(base);
        return Err(ParseError { at, problem: Problem::Trailing { what: "the certificate", left: rest.len() } });
    }
    if !rest.is_empty() {
        findings.push(quirk_finding(NV_PADDING));
    }
    Ok(CertificateFile { der: der.to_vec(), findings })
}

/// The first element of `bytes`, every constructed part of it framed to its end, and what follows it.
fn whole(bytes: &[u8], base: usize) -> Result<(&[u8], &[u8]), ParseError> {
    let mut reader = Reader::nested(bytes, base);
    let first = reader.clone();
    let certificate = Element::next(&mut reader, "the certificate")?;
    if certificate.tag != super::der::SEQUENCE {
        let found = certificate.tag.into();
        return Err(first.error(Problem::Mismatch { what: "the certificate's first byte", expected: 0x30, found }));
    }
    framed(certificate.contents, 0)?;
    Ok((certificate.whole, reader.rest()))
}

/// Follows constructed elements, so that a broken one is named by its byte.
fn framed(mut reader: Reader<'_>, depth: u8) -> Result<(), ParseError> {
    /// Deepest nesting that is followed: certificates stay below 12.
    const DEPTH_MAX: u8 = 24;
    while depth < DEPTH_MAX && !reader.is_empty() {
        let element = Element::next(&mut reader, "an element of the certificate")?;
        if element.tag & 0x20 != 0 {
            framed(element.contents, depth.saturating_add(1))?;
        }
    }
    Ok(())
}

/// The contents of the first PEM block that begins at `at`, and whether text stands around it.
fn pem(input: &[u8], at: usize) -> Result<(Vec<u8>, bool), ParseError> {
    let malformed = |at, what| ParseError { at, problem: Problem::Malformed { what } };
    let begin = input.get(at..).unwrap_or_default();
    let line = begin.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let label = line.trim_ascii_end().strip_prefix(b"-----BEGIN ").and_then(|rest| rest.strip_suffix(b"-----"));
    if !matches!(label, Some(b"CERTIFICATE" | b"X509 CERTIFICATE" | b"ATTRIBUTE CERTIFICATE")) {
        return Err(malformed(at, "the PEM holds something else than a certificate"));
    }
    let body_at = at.saturating_add(line.len());
    let body = input.get(body_at..).unwrap_or_default();
    let end = find(body, b"-----END ").ok_or_else(|| malformed(input.len(), "the PEM has no END line"))?;
    let (body, tail) = body.split_at_checked(end).unwrap_or_default();
    let digits: Vec<u8> = body.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let der = STANDARD.decode(&digits).map_err(|_| malformed(body_at, "the PEM is not base64"))?;
    let after = tail.iter().position(|byte| *byte == b'\n').and_then(|line| tail.get(line..)).unwrap_or_default();
    let text = |bytes: &[u8]| bytes.iter().any(|byte| !byte.is_ascii_whitespace());
    Ok((der, text(input.get(..at).unwrap_or_default()) || text(after)))
}

fn find(input: &[u8], wanted: &[u8]) -> Option<usize> {
    input.windows(wanted.len()).position(|window| window == wanted)
}

/// What every X.509 certificate says, for people and their scripts. Texts are on one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CertificateFacts {
    /// The subject; empty in most EK certificates.
    pub subject: String,
    /// The issuer.
    pub issuer: String,
    /// The serial number in hex.
    pub serial: String,
    /// RFC 3339.
    pub not_before: String,
    /// RFC 3339.
    pub not_after: String,
    /// `RSA-2048`, `P-256`.
    pub key: String,
    /// SHA-256 of the key's SubjectPublicKeyInfo in hex: for an EK, the EK id.
    pub key_id: Option<String>,
    /// Object identifier of the signature's algorithm.
    pub signature_algorithm: String,
    /// Extended key usages, by object identifier.
    pub extended_key_usage: Vec<String>,
    /// Certificate policies, by object identifier.
    pub policies: Vec<String>,
    /// Where its issuer says that revocations are published.
    pub crl: Vec<String>,
    /// SHA-256 of the certificate in hex.
    pub sha256: String,
}

impl CertificateFacts {
    /// Reads them, and the key: None where it is neither RSA nor on a named curve.
    #[must_use]
    pub fn of(der: &[u8], certificate: &X509Certificate<'_>) -> (Self, Option<PublicKey>) {
        let spki = certificate.public_key();
        let key = PublicKey::from_spki(spki.raw).ok().or_else(|| oaep_key(certificate));
        let (mut usages, mut policies, mut crl) = (Vec::new(), Vec::new(), Vec::new());
        for extension in certificate.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::ExtendedKeyUsage(usage) => {
                    let named = [
                        (usage.any, "2.5.29.37.0"),
                        (usage.server_auth, "1.3.6.1.5.5.7.3.1"),
                        (usage.client_auth, "1.3.6.1.5.5.7.3.2"),
                        (usage.code_signing, "1.3.6.1.5.5.7.3.3"),
                        (usage.email_protection, "1.3.6.1.5.5.7.3.4"),
                        (usage.time_stamping, "1.3.6.1.5.5.7.3.8"),
                        (usage.ocsp_signing, "1.3.6.1.5.5.7.3.9"),
                    ];
                    usages.extend(named.into_iter().filter(|(set, _)| *set).map(|(_, oid)| oid.to_owned()));
                    usages.extend(usage.other.iter().map(|oid| oid.to_id_string()));
                }
                ParsedExtension::CertificatePolicies(list) => {
                    policies.extend(list.iter().map(|one| one.policy_id.to_id_string()));
                }
                ParsedExtension::CRLDistributionPoints(points) => {
                    for point in points.iter() {
                        if let Some(DistributionPointName::FullName(names)) = &point.distribution_point {
                            crl.extend(names.iter().filter_map(|name| match name {
                                GeneralName::URI(uri) => Some(one_line(uri)),
                                _ => None,
                            }));
                        }
                    }
                }
                _ => {}
            }
        }
        let facts = Self {
            subject: one_line(&certificate.subject().to_string()),
            issuer: one_line(&certificate.issuer().to_string()),
            serial: hex::encode(certificate.raw_serial()),
            not_before: rfc3339(certificate.validity().not_before.to_datetime()),
            not_after: rfc3339(certificate.validity().not_after.to_datetime()),
            key: key.as_ref().map_or_else(|| spki.algorithm.algorithm.to_id_string(), PublicKey::kind),
            key_id: key.as_ref().and_then(PublicKey::id).map(hex::encode),
            signature_algorithm: certificate.signature_algorithm.algorithm.to_id_string(),
            extended_key_usage: usages,
            policies,
            crl,
            sha256: hex::encode(crate::digest::sha256(&[der])),
        };
        (facts, key)
    }
}

/// What deviates in a certificate's own encoding, as `ek.quirk.*`.
#[must_use]
pub(super) fn deviations(der: &[u8], certificate: &X509Certificate<'_>) -> Findings {
    let seen = Deviations::of(der);
    // 9999-12-31T23:59:59Z
    let no_end = certificate.validity().not_after.timestamp() == 253_402_300_799;
    let oaep = oaep_key(certificate).is_some();
    let rows = [
        (seen.unsorted_set, UNSORTED_SET),
        (seen.explicit_default, EXPLICIT_DEFAULT),
        (no_end, NO_END),
        (oaep, RSAES_OAEP),
    ];
    rows.into_iter().filter(|(seen, _)| *seen).map(|(_, id)| quirk_finding(id)).collect::<Vec<_>>().into()
}

/// The certificate in DER that fills its input.
///
/// # Errors
/// What is no X.509 certificate.
pub(super) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, ParseError> {
    match x509_parser::parse_x509_certificate(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok((rest, _)) => Err(ParseError {
            at: der.len().saturating_sub(rest.len()),
            problem: Problem::Trailing { what: "the certificate", left: rest.len() },
        }),
        Err(_) => Err(ParseError { at: 0, problem: Problem::Malformed { what: "not an X.509 certificate" } }),
    }
}

pub(super) fn rfc3339(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_else(|_| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_found_in_what_holds_it() {
        let pem = include_bytes!("../../testdata/recorded/swtpm-localca-rootca-cert.pem");
        let plain = read_certificate_file(pem).unwrap();
        assert!(plain.findings.as_slice().is_empty());
        let der = plain.der;
        let [high, low] = u16::try_from(der.len() + 2).unwrap().to_be_bytes();
        let header = [0x10, 0x01, 0x00, high, low, 0x10, 0x02];
        let in_pem = |der: &[u8]| {
            format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(der)).into_bytes()
        };
        let rows: [(Vec<u8>, &[&str]); 8] = [
            (in_pem(&[der.as_slice(), &[0xff; 40]].concat()), &["ek.quirk.nv-padding"]),
            (der.clone(), &[]),
            ([der.as_slice(), &[0; 40]].concat(), &["ek.quirk.nv-padding"]),
            ([der.as_slice(), &[0xff; 40]].concat(), &["ek.quirk.nv-padding"]),
            ([der.as_slice(), &[0x11; 40]].concat(), &["ek.quirk.nv-padding"]),
            ([&header, der.as_slice()].concat(), &["ek.quirk.nv-header"]),
            ([b"Subject: x\n", pem.as_slice()].concat(), &["ek.quirk.pem-text"]),
            ([pem.as_slice(), b"\0\0rest"].concat(), &["ek.quirk.pem-text"]),
        ];
        for (input, expect) in rows {
            let read = read_certificate_file(&input).unwrap();
            let ids: Vec<_> = read.findings.as_slice().iter().map(|one| one.id.as_str()).collect();
            assert_eq!((read.der == der, ids.as_slice()), (true, expect));
        }
        let length = der.len();
        let bad: [(Vec<u8>, usize); 7] = [
            (in_pem(&[der.as_slice(), &[0, 1]].concat()), length),
            (Vec::new(), 0),
            (vec![b'x'; 200], 0),
            (der[..length - 1].to_vec(), 4),
            ([der.as_slice(), &[0, 1]].concat(), length),
            (b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n".to_vec(), 0),
            (b"-----BEGIN CERTIFICATE-----\nMIIB".to_vec(), 32),
        ];
        for (input, at) in bad {
            assert_eq!(read_certificate_file(&input).unwrap_err().at, at, "{input:x?}");
        }
    }
}
