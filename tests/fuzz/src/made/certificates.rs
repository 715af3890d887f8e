//! Certificates and lists of makers in DER, written by hand so that a run has the same seeds each time. Their signatures are of the
//! right shape only.

use hostmark_attest::tpm::public::Public;

use super::{AK, EK};

/// One element.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let contents = parts.concat();
    let length = contents.len().to_be_bytes();
    let bare = &length[length.iter().position(|byte| *byte != 0).unwrap_or(length.len() - 1)..];
    let head = if contents.len() < 0x80 { vec![length[7]] } else { [&[0x80 | bare.len() as u8], bare].concat() };
    [&[tag], head.as_slice(), &contents].concat()
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    der(0x30, parts)
}

fn oid(arcs: &[u32]) -> Vec<u8> {
    let mut contents = vec![(arcs[0] * 40 + arcs[1]) as u8];
    for arc in &arcs[2..] {
        let digits = (0..5).rev().map(|digit| (arc >> (7 * digit)) & 0x7f).collect::<Vec<_>>();
        let first = digits.iter().position(|digit| *digit != 0).unwrap_or(4);
        contents.extend(digits[first..4].iter().map(|digit| *digit as u8 | 0x80));
        contents.push(digits[4] as u8);
    }
    der(6, &[&contents])
}

fn text(text: &str) -> Vec<u8> {
    der(0x0c, &[text.as_bytes()])
}

/// A relative distinguished name of one attribute.
fn relative(arcs: &[u32], value: &str) -> Vec<u8> {
    der(0x31, &[&sequence(&[&oid(arcs), &text(value)])])
}

fn name(common: &str) -> Vec<u8> {
    sequence(&[&relative(&[2, 5, 4, 3], common)])
}

fn extension(arcs: &[u32], value: &[u8]) -> Vec<u8> {
    sequence(&[&oid(arcs), &der(4, &[value])])
}

/// ecdsa-with-SHA256.
fn algorithm() -> Vec<u8> {
    sequence(&[&oid(&[1, 2, 840, 10045, 4, 3, 2])])
}

/// r and s that verify nothing.
fn signature() -> Vec<u8> {
    der(3, &[&[0], &sequence(&[&der(2, &[&[9; 32]]), &der(2, &[&[9; 32]])])])
}

fn validity() -> Vec<u8> {
    sequence(&[&der(0x17, &[b"240101000000Z"]), &der(0x17, &[b"400101000000Z"])])
}

fn certificate(key: &[u8], extensions: &[Vec<u8>]) -> Vec<u8> {
    let key = Public::parse_tpm2b(key).ok().and_then(|public| public.key().to_spki()).unwrap_or_default();
    let fields = sequence(&[
        &der(0xa0, &[&[2, 1, 2]]),
        &[2, 2, 0x12, 0x34],
        &algorithm(),
        &name("Maker's CA"),
        &validity(),
        &name("device"),
        &key,
        &der(0xa3, &[&sequence(&[&extensions.concat()])]),
    ]);
    sequence(&[&fields, &algorithm(), &signature()])
}

fn usage(arcs: &[u32]) -> Vec<u8> {
    extension(&[2, 5, 29, 37], &sequence(&[&oid(arcs)]))
}

/// A directoryName of these attributes, as a GeneralNames.
fn directory(attributes: &[(&[u32], &str)]) -> Vec<u8> {
    let list: Vec<u8> = attributes.iter().flat_map(|(arcs, value)| relative(arcs, value)).collect();
    sequence(&[&der(0xa4, &[&sequence(&[&list])])])
}

/// An IAK certificate: tcg-kp-AIKCertificate, a hardwareModuleName, and what the CA says that it verified.
#[must_use]
pub fn iak() -> Vec<u8> {
    let module = sequence(&[&oid(&[2, 23, 133, 1, 2]), &der(4, &[b"SN-0001"])]);
    let other = der(0xa0, &[&oid(&[1, 3, 6, 1, 5, 5, 7, 8, 4]), &der(0xa0, &[&module])]);
    let policy = sequence(&[&sequence(&[&oid(&[2, 23, 133, 11, 1, 2])])]);
    let extensions = [
        usage(&[2, 23, 133, 8, 3]),
        extension(&[2, 5, 29, 17], &sequence(&[&other])),
        extension(&[2, 5, 29, 32], &policy),
        extension(&[2, 5, 29, 15], &[3, 2, 7, 0x80]),
    ];
    certificate(AK, &extensions)
}

/// SubjectPublicKeyInfo of the AK.
#[must_use]
pub fn key() -> Vec<u8> {
    Public::parse_tpm2b(AK).ok().and_then(|public| public.key().to_spki()).unwrap_or_default()
}

/// PKCS#10 for the AK's key.
#[must_use]
pub fn request() -> Vec<u8> {
    let info = sequence(&[&[2, 1, 0], &name("host"), &key(), &[0xa0, 0]]);
    sequence(&[&info, &algorithm(), &signature()])
}

/// The value of a subjectAltName that names a TPM.
#[must_use]
pub fn tpm_attributes() -> Vec<u8> {
    let attributes: [(&[u32], &str); 3] =
        [(&[2, 23, 133, 2, 1], "id:494E5443"), (&[2, 23, 133, 2, 2], "ADL"), (&[2, 23, 133, 2, 3], "id:02580012")];
    directory(&attributes)
}

/// The value of a subjectDirectoryAttributes that names a TPM's specification.
#[must_use]
pub fn tpm_specification() -> Vec<u8> {
    let specification = sequence(&[&text("2.0"), &[2, 1, 0], &[2, 2, 0, 0x8a]]);
    sequence(&[&sequence(&[&oid(&[2, 23, 133, 2, 16]), &der(0x31, &[&specification])])])
}

/// An EK certificate with the TPM's manufacturer, model, version and specification.
#[must_use]
pub fn ek() -> Vec<u8> {
    let points = sequence(&[&sequence(&[&der(0xa0, &[&der(0xa0, &[&der(0x86, &[b"http://ca.example/ek.crl"])])])])]);
    let extensions = [
        usage(&[2, 23, 133, 8, 1]),
        extension(&[2, 5, 29, 17], &tpm_attributes()),
        extension(&[2, 5, 29, 9], &tpm_specification()),
        extension(&[2, 5, 29, 31], &points),
    ];
    certificate(EK, &extensions)
}

const PLATFORM: [(&[u32], &str); 4] = [
    (&[2, 23, 133, 5, 1, 1], "Dell Inc."),
    (&[2, 23, 133, 5, 1, 4], "PowerEdge R340"),
    (&[2, 23, 133, 5, 1, 5], "1\n0"),
    (&[2, 23, 133, 5, 1, 6], "ABC123"),
];

fn components() -> Vec<u8> {
    let component = sequence(&[&text("Maker"), &text("Board")]);
    let list = sequence(&[&der(0xa0, &[&component.repeat(3)])]);
    let kind = sequence(&[&oid(&[2, 23, 133, 8, 2])]);
    sequence(&[
        &sequence(&[&oid(&[2, 23, 133, 2, 25]), &der(0x31, &[&kind])]),
        &sequence(&[&oid(&[2, 23, 133, 5, 1, 7, 2]), &der(0x31, &[&list])]),
    ])
}

/// A platform certificate as an attribute certificate.
#[must_use]
pub fn platform() -> Vec<u8> {
    let names = sequence(&[&der(0xa4, &[&name("EK CA")])]);
    let holder = sequence(&[&der(0xa0, &[&names, &[2, 2, 0x12, 0x34]])]);
    let issuer = der(0xa0, &[&sequence(&[&der(0xa4, &[&name("Maker's CA")])])]);
    let validity = sequence(&[&der(0x18, &[b"20240101050000Z"]), &der(0x18, &[b"20300101050000Z"])]);
    let extensions = sequence(&[&extension(&[2, 5, 29, 17], &directory(&PLATFORM))]);
    let info = sequence(&[
        &[2, 1, 1],
        &holder,
        &issuer,
        &algorithm(),
        &[2, 2, 0x12, 0x34],
        &validity,
        &components(),
        &extensions,
    ]);
    sequence(&[&info, &algorithm(), &signature()])
}

/// A platform certificate as a public-key certificate.
#[must_use]
pub fn platform_of_a_key() -> Vec<u8> {
    let extensions = [
        usage(&[2, 23, 133, 8, 4]),
        extension(&[2, 5, 29, 17], &directory(&PLATFORM)),
        extension(&[2, 5, 29, 9], &components()),
    ];
    certificate(AK, &extensions)
}

/// A CRL of the issuer of the recorded EK certificate that names its serial number, and one more.
#[must_use]
pub fn crl() -> Vec<u8> {
    let ek = super::EK_CERTIFICATE;
    // The certificate's fields: version, serial number, algorithm, issuer.
    let (serial, issuer) = parts(ek).unwrap_or_default();
    let when = der(0x17, &[b"260101000000Z"]);
    let revoked = sequence(&[&sequence(&[&serial, &when]), &sequence(&[&[2, 1, 7], &when])]);
    let number = der(0xa0, &[&sequence(&[&extension(&[2, 5, 29, 20], &[2, 1, 1])])]);
    let next = der(0x17, &[b"270101000000Z"]);
    let fields = sequence(&[&[2, 1, 1], &algorithm(), &issuer, &when, &next, &revoked, &number]);
    sequence(&[&fields, &algorithm(), &signature()])
}

/// Serial number and issuer of a certificate, each as the whole element.
fn parts(certificate: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (_, fields, _) = element(certificate)?;
    let (_, inside, _) = element(fields)?;
    let (_, _, after_version) = element(inside)?;
    let (serial, _, after_serial) = element(after_version)?;
    let (_, _, after_algorithm) = element(after_serial)?;
    let (issuer, _, _) = element(after_algorithm)?;
    Some((serial.to_vec(), issuer.to_vec()))
}

/// The first element, its contents, and what follows it.
fn element(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let first = usize::from(*bytes.get(1)?);
    let (head, length) = match first {
        short @ 0..0x80 => (2, short),
        long => {
            let count = long & 0x7f;
            let digits = bytes.get(2..2 + count)?;
            (2 + count, digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)))
        }
    };
    let whole = bytes.get(..head + length)?;
    Some((whole, whole.get(head..)?, bytes.get(head + length..)?))
}

#[cfg(test)]
mod tests {
    use hostmark_attest::identity::class::{TpmClass, TrustBundle};
    use hostmark_attest::identity::devid::{IdentityKind, read_identity};
    use hostmark_attest::identity::ek_certificate::inspect_ek_certificate;
    use hostmark_attest::identity::platform_certificate::PlatformCertificate;

    #[test]
    fn made_certificates_say_what_their_readers_look_for() {
        let iak = read_identity(&super::iak()).unwrap();
        assert_eq!((iak.kind, iak.hardware_module.unwrap().hw_serial.as_str()), (IdentityKind::Iak, "SN-0001"));
        assert_eq!(iak.verified_by_ca, ["the key is fixedTPM"]);
        let ek = inspect_ek_certificate(&super::ek()).unwrap();
        assert_eq!(ek.tpm.unwrap().to_string(), "INTC (Intel) ADL 600.18");
        assert_eq!(ek.specification.unwrap().revision, 138);
        assert_eq!(ek.facts.crl, ["http://ca.example/ek.crl"]);
        for made in [super::platform(), super::platform_of_a_key()] {
            let read = PlatformCertificate::parse(&made).unwrap();
            assert_eq!((read.components.unwrap().count, read.serial.as_deref()), (3, Some("ABC123")));
        }
        TrustBundle::new().add(TpmClass::Simulated, &super::crl()).unwrap();
    }
}
