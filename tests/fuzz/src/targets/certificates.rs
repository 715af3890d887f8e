//! Certificates of hosts and makers, and the lists that revoke them.
//!
//! Beside "it returns": texts are on one line, nothing that is added to what refuses makes it accept, and a chain that is not
//! there makes no signature count.

use hostmark_attest::identity::certificate::read_certificate_file;
use hostmark_attest::identity::class::{TpmClass, TrustBundle};
use hostmark_attest::identity::devid::{read_identity, verify_identity};
use hostmark_attest::identity::ek::verify_ek;
use hostmark_attest::identity::ek_certificate::inspect_ek_certificate;
use hostmark_attest::identity::platform_certificate::PlatformCertificate;
use hostmark_attest::identity::roca;
use hostmark_attest::identity::tpm_attributes::{TpmAttributes, TpmSpecification};
use hostmark_attest::ima::ImaKey;
use hostmark_attest::tpm::key::PublicKey;
use hostmark_attest::tpm::public::Public;
use time::OffsetDateTime;
use time::macros::datetime;

use super::shown_on_one_line;
use crate::made;

const NOW: OffsetDateTime = datetime!(2026-11-22 8:00 UTC);

/// The CAs of the recorded EK certificate.
fn trusted() -> TrustBundle {
    let mut bundle = TrustBundle::new();
    for ca in [made::EK_ROOT, made::EK_INTERMEDIATE] {
        assert_eq!(bundle.add(TpmClass::Simulated, ca), Ok(()));
    }
    bundle
}

pub(super) fn identity(bytes: &[u8]) {
    let read = read_identity(bytes);
    let verified = verify_identity(bytes, &[], &trusted(), NOW);
    assert!(verify_identity(bytes, &[], &TrustBundle::new(), NOW).is_err(), "nobody vouches for it");
    if let Ok(read) = &read {
        shown_on_one_line(read);
    }
    if let Ok(verified) = verified {
        assert_eq!(verified.class(), TpmClass::Simulated);
        assert_eq!(Ok(verified.certificate().kind), read.map(|read| read.kind));
    }
    // What a host sends beside it is no root.
    assert!(verify_identity(bytes, &[bytes.to_vec()], &TrustBundle::new(), NOW).is_err());
}

pub(super) fn ek(bytes: &[u8]) {
    if let Ok(shown) = inspect_ek_certificate(bytes) {
        shown_on_one_line(&shown);
    }
    let Ok(ek) = Public::parse_tpm2b(made::EK) else { return };
    let judge = |bundle: &TrustBundle| verify_ek(&ek, Some(bytes), &[bytes.to_vec()], bundle, NOW);
    assert!(judge(&TrustBundle::new()).is_err(), "nobody vouches for it");
    if judge(&trusted()).is_ok() {
        // A signature is over every byte of the certificate, its own encoding aside.
        assert_eq!(bytes.get(..128), made::EK_CERTIFICATE.get(..128));
    }
    let mut tolerant = trusted();
    for quirk in hostmark_attest::identity::class::QUIRKS {
        assert_eq!(tolerant.tolerate(quirk.id), Ok(()));
    }
    let _ = judge(&tolerant);
}

/// The values of extensions, the modulus of a key, and what a file may wrap a certificate in.
pub(super) fn attributes(bytes: &[u8]) {
    if let Ok(Some(tpm)) = TpmAttributes::from_alternative_name(bytes) {
        shown_on_one_line(&tpm);
    }
    if let Ok(Some(specification)) = TpmSpecification::from_directory_attributes(bytes) {
        shown_on_one_line(&specification);
    }
    if !bytes.is_empty() {
        assert_eq!(roca::is_weak(bytes), roca::is_weak(&[&[0, 0], bytes].concat()), "leading zeros are no number");
    }
    if let Ok(file) = read_certificate_file(bytes) {
        let again = read_certificate_file(&file.der);
        assert_eq!(again.as_ref().map(|again| &again.der), Ok(&file.der));
        assert!(again.is_ok_and(|again| again.findings.as_slice().is_empty()), "bare DER is wrapped in nothing");
    }
    if let Ok(key) = PublicKey::from_rsa_public_key(bytes) {
        let _ = (key.weakness(), key.id());
    }
    if let Ok(key) = PublicKey::from_spki(bytes)
        && let Some(spki) = key.to_spki()
    {
        assert_eq!(PublicKey::from_spki(&spki).as_ref(), Ok(&key), "a key's own form is the key's");
    }
}

pub(super) fn platform(bytes: &[u8]) {
    let Ok(read) = PlatformCertificate::parse(bytes) else { return };
    shown_on_one_line(&read);
    let chains = [Vec::new(), vec![bytes.to_vec()], vec![made::EK_CERTIFICATE.to_vec()]];
    for chain in chains {
        assert!(!read.check_chain(&chain, NOW).acceptable(), "no given certificate signed it");
    }
    if let Some(holder) = &read.ek_certificate {
        let _ = (holder.is(made::EK_CERTIFICATE), holder.is(bytes));
    }
}

/// A CRL, or any file of a class's directory.
pub(super) fn trust_file(bytes: &[u8]) {
    let Ok(ek) = Public::parse_tpm2b(made::EK) else { return };
    let judge = |bundle: &TrustBundle| verify_ek(&ek, Some(made::EK_CERTIFICATE), &[], bundle, NOW).is_ok();
    let (mut alone, mut with) = (TrustBundle::new(), trusted());
    let added = alone.add(TpmClass::Simulated, bytes);
    assert_eq!(with.add(TpmClass::Simulated, bytes), added);
    assert!(added.is_ok() || judge(&with), "a file that is refused changes nothing");
    // The EK's certificate needs two above it: no list and no single certificate vouches for it.
    assert!(bytes.first() != Some(&0x30) || !judge(&alone));
}

pub(super) fn ima_key(bytes: &[u8]) {
    assert_eq!(ImaKey::issued(bytes, &[]), None, "nobody issued it");
    let _ = ImaKey::from_spki(bytes);
    let _ = ImaKey::from_pem(&String::from_utf8_lossy(bytes));
}
