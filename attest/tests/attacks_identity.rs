//! Rows A2, A9, A12, A14, A20–A23, A25 and A28 of the attack table, on the production verification: each asserts the exact finding, and
//! the honest twin passes in the same test. (A10 needs a TPM: tests/credential_swtpm.)
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;
#[path = "common/identity.rs"]
mod pki;

use common::{AK_ATTRIBUTES, SoftwareKey, SoftwareTpm, TLS_KEY_ATTRIBUTES, certify_info, nv_info, tpm2b};
use hostmark_attest::digest::HashAlg;
use hostmark_attest::finding::Findings;
use hostmark_attest::identity::ak::{AkPublic, verify_ak};
use hostmark_attest::identity::certify::{CertifiedTlsKey, TlsKeyEvidence, verify_tls_key};
use hostmark_attest::identity::class::{TpmClass, TrustBundle};
use hostmark_attest::identity::devid::{IdentityKind, verify_identity};
use hostmark_attest::identity::ek::verify_ek;
use hostmark_attest::identity::nv::{NvPublic, TAG_ATTRIBUTES_DEFINED, TAG_INDEX};
use hostmark_attest::identity::tag::{NV_MAX, Tag, TagError, TagEvidence, VerifiedTag, verify_tag};
use hostmark_attest::jws::{KeySet, Signer as _, SoftwareKey as SignerKey};
use hostmark_attest::tpm::attest::AttestType;
use hostmark_attest::tpm::name::{Name, RH_OWNER};
use hostmark_attest::tpm::public::{ObjectAttributes, Public};
use hostmark_attest::wire::{DOMAIN_QUOTE, DOMAIN_TAG, DOMAIN_TLS, Nonce};
use pki::{
    Ca, EK_ATTRIBUTES, NOW, SERIAL, ek_certificate, ek_curve, ek_modulus, ek_p256, ek_rsa, refusals, roca_modulus,
    unknown_critical,
};
use rcgen::{CertificateParams, DnType, IsCa, KeyPair};

const NONCE: Nonce = Nonce([9; 32]);
const ECDSA_SHA256: Option<(u16, HashAlg)> = Some((0x0018, HashAlg::Sha256));

fn bundle(class: TpmClass, ca: &Ca) -> TrustBundle {
    let mut bundle = TrustBundle::new();
    bundle.add(class, &ca.der()).unwrap();
    bundle
}

// ---- AK ----

#[test]
fn a2_each_wrong_attribute_of_an_ak_is_refused_by_its_name() {
    verify_ak(&SoftwareKey::ak().public).unwrap();
    let rows = [
        ("ak.restricted", AK_ATTRIBUTES.without(ObjectAttributes::RESTRICTED)),
        ("ak.fixed-tpm", AK_ATTRIBUTES.without(ObjectAttributes::FIXED_TPM)),
        ("ak.fixed-parent", AK_ATTRIBUTES.without(ObjectAttributes::FIXED_PARENT)),
        ("ak.sensitive-data-origin", AK_ATTRIBUTES.without(ObjectAttributes::SENSITIVE_DATA_ORIGIN)),
        ("ak.sign", AK_ATTRIBUTES.without(ObjectAttributes::SIGN)),
        ("ak.decrypt", AK_ATTRIBUTES.with(ObjectAttributes::DECRYPT)),
        ("ak.no-da", AK_ATTRIBUTES.without(ObjectAttributes::NO_DA)),
    ];
    for (id, attributes) in rows {
        assert_eq!(refusals(verify_ak(&SoftwareKey::new(attributes, ECDSA_SHA256).public)), [id]);
    }
    // The scheme is fixed in the key, or the caller would choose it.
    assert_eq!(refusals(verify_ak(&SoftwareKey::new(AK_ATTRIBUTES, None).public)), ["ak.scheme"]);
    let sha384 = Some((0x0018, HashAlg::Sha384));
    assert_eq!(refusals(verify_ak(&SoftwareKey::new(AK_ATTRIBUTES, sha384).public)), ["ak.scheme"]);
    let mut raw = SoftwareKey::ak().public.as_bytes().to_vec();
    raw[3] = 0x0c;
    assert_eq!(refusals(verify_ak(&Public::parse(&raw).unwrap())), ["ak.name-alg"]);
}

#[test]
fn a23_sha1_in_the_aks_scheme_or_in_the_signature_is_refused() {
    let sha1 = Some((0x0018, HashAlg::Sha1));
    verify_ak(&SoftwareKey::ak().public).unwrap();
    assert_eq!(refusals(verify_ak(&SoftwareKey::new(AK_ATTRIBUTES, sha1).public)), ["ak.sha1"]);

    let mut tls = TlsCase::new();
    tls.judge().unwrap();
    let mut signature = tls.signature();
    signature[3] = 0x04;
    tls.forged_signature = Some(signature);
    assert_eq!(refusals(tls.judge()), ["tls-key.sha1"]);
}

#[test]
fn a14_wrong_sizes_and_curves_are_refused_before_any_signature_work() {
    let ca = Ca::new("Maker", "Root");
    let key = KeyPair::generate().unwrap();
    let bundle = bundle(TpmClass::Hardware, &ca);
    let certificate = ca.issue(&key, |_| {});
    verify_ek(&ek_p256(&key, EK_ATTRIBUTES), Some(&certificate), &[], &bundle, NOW).unwrap();
    for public in [ek_rsa(1024), ek_rsa(4096), ek_rsa(16384), ek_curve(2), ek_curve(0x20)] {
        // The certificate is for another key: it is not even looked at.
        let refused = verify_ek(&public, Some(&certificate), &[], &bundle, NOW);
        assert_eq!(refusals(refused), ["ek.key-size"], "{public:?}");
    }

    verify_ak(&SoftwareKey::ak().public).unwrap();
    for bits in [1024u16, 3072, 16384] {
        let mut raw = vec![0, 1, 0, 0x0b];
        raw.extend(AK_ATTRIBUTES.0.to_be_bytes());
        raw.extend([0, 0, 0, 0x10, 0, 0x14, 0, 0x0b]);
        raw.extend(bits.to_be_bytes());
        raw.extend([0; 4]);
        raw.extend(tpm2b(&vec![0xc5; usize::from(bits) / 8]));
        assert_eq!(refusals(verify_ak(&Public::parse(&raw).unwrap())), ["ak.key-size"], "{bits}");
    }
}

// ---- EK ----

#[test]
fn a9_a_certificate_that_no_trusted_root_signed_is_refused() {
    let ca = Ca::new("Maker", "Root");
    let key = KeyPair::generate().unwrap();
    let public = ek_p256(&key, EK_ATTRIBUTES);
    let bundle = bundle(TpmClass::Hardware, &ca);
    let judge = |certificate: &[u8]| verify_ek(&public, Some(certificate), &[], &bundle, NOW);

    let honest = judge(&ca.issue(&key, |_| {})).unwrap();
    assert_eq!(honest.class(), TpmClass::Hardware);
    assert_eq!(honest.id(), &public.key().id().unwrap());
    assert_eq!(honest.advice().worst(), None);

    let self_signed = ek_certificate().self_signed(&key).unwrap().der().to_vec();
    assert_eq!(refusals(judge(&self_signed)), ["ek.chain"], "self-signed");
    let unknown = Ca::new("Somebody", "Root").issue(&key, |_| {});
    assert_eq!(refusals(judge(&unknown)), ["ek.chain"], "unknown CA");
    let same_name = Ca::new("Maker", "Root").issue(&key, |_| {});
    assert_eq!(refusals(judge(&same_name)), ["ek.chain"], "the CA's name, another key");
    let future = ca.issue(&key, |params| params.not_before = time::macros::datetime!(2030-01-01 0:00 UTC));
    assert_eq!(refusals(judge(&future)), ["ek.chain"], "not valid yet");

    let critical = ca.issue(&key, |params| params.custom_extensions.push(unknown_critical()));
    assert_eq!(refusals(judge(&critical)), ["ek.critical-extension"]);
    let server = ca.issue(&key, |params| params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth]);
    assert!(refusals(judge(&server)).contains(&"ek.usage".to_owned()), "a TLS server's certificate");
    let none = ca.issue(&key, |params| params.extended_key_usages = vec![]);
    assert_eq!(refusals(judge(&none)), ["ek.usage"], "no usage at all");
    let authority = ca.issue(&key, |params| params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained));
    assert_eq!(refusals(judge(&authority)), ["ek.chain"], "a CA's certificate");

    let expired =
        judge(&ca.issue(&key, |params| params.not_after = time::macros::datetime!(2024-01-01 0:00 UTC))).unwrap();
    assert!(expired.advice().has("ek.expired"), "expiry is advice: {:?}", expired.advice());
    assert_eq!(expired.class(), TpmClass::Hardware);
}

#[test]
fn a9_an_ek_certificate_speaks_for_one_key_and_one_shape() {
    let ca = Ca::new("Maker", "Root");
    let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let bundle = bundle(TpmClass::Hardware, &ca);
    let certificate = ca.issue(&key, |_| {});
    let judge = |public: &Public, certificate: &[u8]| verify_ek(public, Some(certificate), &[], &bundle, NOW);
    judge(&ek_p256(&key, EK_ATTRIBUTES), &certificate).unwrap();
    assert_eq!(refusals(judge(&ek_p256(&other, EK_ATTRIBUTES), &certificate)), ["ek.key-mismatch"]);
    for attributes in [EK_ATTRIBUTES & !2, EK_ATTRIBUTES | 1 << 18, EK_ATTRIBUTES & !(1 << 16)] {
        assert_eq!(refusals(judge(&ek_p256(&key, attributes), &certificate)), ["ek.attributes"], "{attributes:#x}");
    }
    assert_eq!(refusals(judge(&ek_p256(&key, EK_ATTRIBUTES), b"not DER")), ["ek.certificate"]);
    let padded = [certificate.as_slice(), &[0xff; 100]].concat();
    assert_eq!(refusals(judge(&ek_p256(&key, EK_ATTRIBUTES), &padded)), ["ek.certificate"]);
    let mut lenient = bundle.clone();
    lenient.tolerate("nv-padding").unwrap();
    let tolerated = verify_ek(&ek_p256(&key, EK_ATTRIBUTES), Some(&padded), &[], &lenient, NOW).unwrap();
    assert!(tolerated.advice().has("ek.quirk.nv-padding"), "a tolerated quirk is shown");
    let trailer = [certificate.as_slice(), &[1; 100]].concat();
    let refused = verify_ek(&ek_p256(&key, EK_ATTRIBUTES), Some(&trailer), &[], &lenient, NOW);
    assert_eq!(refusals(refused), ["ek.certificate"], "other bytes are no padding");
}

#[test]
fn a12_the_roots_directory_gives_the_class_and_no_text_does() {
    let (maker, simulator) =
        (Ca::new("Infineon Technologies AG", "OPTIGA Root"), Ca::new("Infineon Technologies AG", "OPTIGA Root"));
    let key = KeyPair::generate().unwrap();
    let public = ek_p256(&key, EK_ATTRIBUTES);
    let mut bundle = bundle(TpmClass::Hardware, &maker);
    bundle.add(TpmClass::Simulated, &simulator.der()).unwrap();
    let class = |ca: &Ca, bundle: &TrustBundle| {
        let certificate = ca.issue(&key, |params| params.distinguished_name.push(DnType::OrganizationName, "Infineon"));
        verify_ek(&public, Some(&certificate), &[], bundle, NOW).unwrap().class()
    };
    assert_eq!(class(&maker, &bundle), TpmClass::Hardware);
    assert_eq!(class(&simulator, &bundle), TpmClass::Simulated, "the same subject, another key");

    // A root that somebody also put among the hardware makers' stays what it is.
    bundle.add(TpmClass::Hardware, &simulator.der()).unwrap();
    assert_eq!(class(&simulator, &bundle), TpmClass::Simulated, "two classes: the lowest");
    assert_eq!(class(&maker, &bundle), TpmClass::Hardware);

    // The class is the current bundle's: taken out, the root gives nothing.
    let certificate = simulator.issue(&key, |_| {});
    let now = self::bundle(TpmClass::Hardware, &maker);
    assert_eq!(refusals(verify_ek(&public, Some(&certificate), &[], &now, NOW)), ["ek.chain"]);
}

#[test]
fn a25_an_ek_without_certificate_is_unverified_whatever_the_bundle() {
    let ca = Ca::new("Maker", "Root");
    let key = KeyPair::generate().unwrap();
    let public = ek_p256(&key, EK_ATTRIBUTES);
    let bundle = bundle(TpmClass::Hardware, &ca);
    assert_eq!(
        verify_ek(&public, Some(&ca.issue(&key, |_| {})), &[], &bundle, NOW).unwrap().class(),
        TpmClass::Hardware
    );
    let bare = verify_ek(&public, None, &[], &bundle, NOW).unwrap();
    assert_eq!(bare.class(), TpmClass::Unverified);
    assert!(bare.advice().has("ek.no-certificate"));
    assert!(bare.class() < TpmClass::Virtual, "below every class that a production pool can name");
}

/// The certificate with ecdsa-with-SHA224 in both places: an algorithm that nobody accepts any more.
fn with_sha224(certificate: &[u8]) -> Vec<u8> {
    let mut weak = certificate.to_vec();
    let oid = [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
    let places: Vec<_> = (0..weak.len() - oid.len()).filter(|at| weak[*at..].starts_with(&oid)).collect();
    assert_eq!(places.len(), 2);
    for at in places {
        weak[at + 7] = 1;
    }
    weak
}

#[test]
fn a9_an_identity_certificate_counts_by_its_root_its_use_and_its_time() {
    let ca = Ca::new("Maker", "Root");
    let key = KeyPair::generate().unwrap();
    let aik = rcgen::ExtendedKeyUsagePurpose::Other(vec![2, 23, 133, 8, 3]);
    let issue = |ca: &Ca, change: &dyn Fn(&mut CertificateParams)| {
        ca.issue(&key, |params| {
            params.extended_key_usages = vec![aik.clone()];
            params.serial_number = Some(SERIAL.into());
            change(params);
        })
    };
    let with = |certificate: &[u8], lists: &[Vec<u8>]| {
        let mut bundle = bundle(TpmClass::Virtual, &ca);
        lists.iter().for_each(|list| bundle.add(TpmClass::Virtual, list).unwrap());
        verify_identity(certificate, &[], &bundle, NOW)
    };
    let judge = |certificate: &[u8]| with(certificate, &[]);

    let honest = judge(&issue(&ca, &|_| {})).unwrap();
    assert_eq!((honest.class(), honest.certificate().kind), (TpmClass::Virtual, IdentityKind::Ak));
    assert_eq!(*honest.key(), *ek_p256(&key, EK_ATTRIBUTES).key());

    assert_eq!(refusals(judge(&issue(&Ca::new("Maker", "Root"), &|_| {}))), ["identity.chain"]);
    let expired = issue(&ca, &|params| params.not_after = time::macros::datetime!(2026-01-01 0:00 UTC));
    assert_eq!(refusals(judge(&expired)), ["identity.chain"], "unlike an EK's");
    let critical = issue(&ca, &|params| params.custom_extensions.push(unknown_critical()));
    assert_eq!(refusals(judge(&critical)), ["identity.critical-extension"]);
    assert_eq!(refusals(judge(&ca.issue(&key, |_| {}))), ["identity.usage"], "an EK certificate");
    let encrypts = issue(&ca, &|params| params.key_usages = vec![rcgen::KeyUsagePurpose::KeyAgreement]);
    assert_eq!(refusals(judge(&encrypts)), ["identity.usage"]);
    let code = issue(&ca, &|params| params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::CodeSigning]);
    assert_eq!(refusals(judge(&code)), ["identity.chain"]);
    let good = issue(&ca, &|_| {});
    assert_eq!(refusals(judge(&with_sha224(&good))), ["identity.algorithm"]);
    assert_eq!(refusals(with(&good, &[ca.revoke(&[SERIAL], NOW)])), ["identity.revoked"]);
    assert_eq!(refusals(with(&good, &[Ca::new("Maker", "Root").revoke(&[], NOW)])), ["identity.crl"]);
    assert_eq!(refusals(judge(b"not DER")), ["identity.certificate"]);

    let other = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    let curve = ca.issue(&other, |params| params.extended_key_usages = vec![aik.clone()]);
    assert_eq!(refusals(judge(&curve)), ["identity.key"]);
}

#[test]
fn a26_an_ek_whose_private_part_can_be_computed_is_refused() {
    let ca = Ca::new("Maker", "Root");
    let bundle = bundle(TpmClass::Hardware, &ca);
    let weak = roca_modulus();
    let mut sound = weak.clone();
    *sound.last_mut().unwrap() ^= 2;
    verify_ek(&ek_modulus(&sound), None, &[], &bundle, NOW).unwrap();
    assert_eq!(refusals(verify_ek(&ek_modulus(&weak), None, &[], &bundle, NOW)), ["ek.roca"]);

    // The same chip makes such AKs.
    let ak = |modulus: &[u8]| {
        let mut raw = vec![0, 1, 0, 0x0b];
        raw.extend(AK_ATTRIBUTES.0.to_be_bytes());
        raw.extend([0, 0, 0, 0x10, 0, 0x14, 0, 0x0b, 8, 0, 0, 0, 0, 0]);
        raw.extend(tpm2b(modulus));
        verify_ak(&Public::parse(&raw).unwrap())
    };
    ak(&sound).unwrap();
    assert_eq!(refusals(ak(&weak)), ["ak.roca"]);
}

#[test]
fn a26_a_revoked_ek_is_refused_whatever_the_age_of_the_list() {
    let ca = Ca::new("Maker", "Root");
    let key = KeyPair::generate().unwrap();
    let public = ek_p256(&key, EK_ATTRIBUTES);
    let certificate = ca.issue(&key, |params| params.serial_number = Some(SERIAL.into()));
    let judge = |lists: &[Vec<u8>]| {
        let mut bundle = bundle(TpmClass::Hardware, &ca);
        lists.iter().for_each(|list| bundle.add(TpmClass::Hardware, list).unwrap());
        verify_ek(&public, Some(&certificate), &[], &bundle, NOW)
    };
    let (fresh, old) = (NOW - time::Duration::days(2), NOW - time::Duration::days(90));

    let honest = judge(&[ca.revoke(&[SERIAL + 1], fresh)]).unwrap();
    assert_eq!((honest.class(), honest.advice().worst()), (TpmClass::Hardware, None));
    assert_eq!(refusals(judge(&[ca.revoke(&[SERIAL], fresh)])), ["ek.revoked"]);

    let stale = judge(&[ca.revoke(&[], old)]).unwrap();
    assert_eq!(stale.advice().as_slice()[0].id, "ek.crl-stale");
    assert_eq!(refusals(judge(&[ca.revoke(&[SERIAL], old)])), ["ek.revoked"], "an old list revokes too");
    assert_eq!(refusals(judge(&[ca.revoke(&[SERIAL], fresh), ca.revoke(&[], old)])), ["ek.revoked"], "two lists");
    let unborn = judge(&[ca.revoke(&[], NOW + time::Duration::days(1))]).unwrap();
    assert!(unborn.advice().has("ek.crl-stale"), "a list from the future is out of date too");

    // A list under the CA's name that it did not sign: what it leaves out would be trusted.
    let impostor = Ca::new("Maker", "Root");
    assert_eq!(refusals(judge(&[impostor.revoke(&[], fresh)])), ["ek.crl"]);
    // Another CA's list says nothing of this certificate.
    judge(&[Ca::new("Other", "Root").revoke(&[SERIAL], fresh)]).unwrap();

    // A root that stands in two classes, with the list in the lower one alone.
    let in_two = |lists: &[Vec<u8>]| {
        let mut bundle = bundle(TpmClass::Hardware, &ca);
        bundle.add(TpmClass::Virtual, ca.certificate.der()).unwrap();
        lists.iter().for_each(|list| bundle.add(TpmClass::Virtual, list).unwrap());
        verify_ek(&public, Some(&certificate), &[], &bundle, NOW)
    };
    assert_eq!(in_two(&[]).unwrap().class(), TpmClass::Virtual);
    assert_eq!(refusals(in_two(&[ca.revoke(&[SERIAL], fresh)])), ["ek.revoked"]);
}

#[test]
fn a9_without_extended_key_usage_only_a_cloud_makes_eks() {
    let ca = Ca::new("Cloud", "Root");
    let key = KeyPair::generate().unwrap();
    let public = ek_p256(&key, EK_ATTRIBUTES);
    let certificate = ca.issue(&key, |params| {
        params.extended_key_usages.clear();
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyAgreement];
    });
    for (class, good) in [(TpmClass::Virtual, true), (TpmClass::Hardware, false), (TpmClass::Firmware, false)] {
        let mut bundle = bundle(class, &ca);
        bundle.tolerate("no-eku").unwrap();
        let judged = verify_ek(&public, Some(&certificate), &[], &bundle, NOW);
        match good {
            true => assert!(judged.unwrap().advice().has("ek.quirk.no-eku"), "{class:?}"),
            false => assert_eq!(refusals(judged), ["ek.usage"], "{class:?}"),
        }
    }
}

#[test]
fn a26_a_revoked_intermediate_is_refused_though_it_is_trusted_as_it_stands() {
    let ca = Ca::new("Maker", "Root");
    let (between, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let public = ek_p256(&key, EK_ATTRIBUTES);
    let judge = |critical: bool, lists: &[Vec<u8>]| {
        let mut params = Ca::new("Maker", "Intermediate").params;
        params.serial_number = Some(SERIAL.into());
        let any_policy = vec![0x30, 8, 0x30, 6, 6, 4, 0x55, 0x1d, 0x20, 0];
        let mut policies = rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 32], any_policy);
        policies.set_criticality(critical);
        params.custom_extensions.push(policies);
        let intermediate = params.signed_by(&between, &rcgen::Issuer::from_params(&ca.params, &ca.key)).unwrap();
        let leaf = ek_certificate().signed_by(&key, &rcgen::Issuer::from_params(&params, &between)).unwrap();
        let mut bundle = bundle(TpmClass::Hardware, &ca);
        bundle.tolerate("critical-policies").unwrap();
        bundle.add(TpmClass::Hardware, intermediate.der()).unwrap();
        lists.iter().for_each(|list| bundle.add(TpmClass::Hardware, list).unwrap());
        verify_ek(&public, Some(leaf.der()), &[], &bundle, NOW)
    };
    for critical in [false, true] {
        let honest = judge(critical, &[ca.revoke(&[SERIAL + 1], NOW)]).unwrap();
        assert_eq!(honest.advice().has("ek.quirk.critical-policies"), critical);
        assert_eq!(refusals(judge(critical, &[ca.revoke(&[SERIAL], NOW)])), ["ek.revoked"], "critical: {critical}");
    }
}

/// Whoever meets a critical extension is told in which certificate it stands, and which quirk allows it, if one does.
#[test]
fn a_critical_extension_is_named_with_its_certificate_and_its_remedy() {
    let ca = Ca::new("Maker", "Root");
    let (between, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let public = ek_p256(&key, EK_ATTRIBUTES);
    let judge = |extension: rcgen::CustomExtension, in_leaf: bool, held: bool, tolerated: bool| {
        let mut params = Ca::new("Maker", "Intermediate 5").params;
        let mut leaf = ek_certificate();
        if in_leaf { &mut leaf } else { &mut params }.custom_extensions.push(extension);
        let intermediate = params.signed_by(&between, &rcgen::Issuer::from_params(&ca.params, &ca.key)).unwrap();
        let leaf = leaf.signed_by(&key, &rcgen::Issuer::from_params(&params, &between)).unwrap();
        let mut bundle = bundle(TpmClass::Hardware, &ca);
        if tolerated {
            bundle.tolerate("critical-policies").unwrap();
        }
        let mut sent = vec![intermediate.der().to_vec()];
        if held {
            bundle.add(TpmClass::Hardware, &sent.remove(0)).unwrap();
        }
        verify_ek(&public, Some(leaf.der()), &sent, &bundle, NOW)
    };
    let policies = || {
        let any_policy = vec![0x30, 8, 0x30, 6, 6, 4, 0x55, 0x1d, 0x20, 0];
        let mut policies = rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 32], any_policy);
        policies.set_criticality(true);
        policies
    };
    let quirk = "ek_quirks = [\"critical-policies\"] into verifier.toml";
    let rows = [
        (policies(), false, true, false, "2.5.29.32 (certificatePolicies) in the trusted intermediate", quirk),
        (
            policies(),
            false,
            false,
            false,
            "2.5.29.32 (certificatePolicies) in the sent intermediate",
            "(trust/ek/<class>/)",
        ),
        (
            policies(),
            false,
            false,
            true,
            "2.5.29.32 (certificatePolicies) in the sent intermediate",
            "(trust/ek/<class>/)",
        ),
        (policies(), true, true, true, "2.5.29.32 (certificatePolicies) in the leaf", "no quirk allows it"),
        (unknown_critical(), true, true, false, "1.3.6.1.4.1.99999.1 in the leaf", "no quirk allows it"),
        (
            unknown_critical(),
            false,
            true,
            true,
            "1.3.6.1.4.1.99999.1 in the trusted intermediate",
            "no quirk allows it",
        ),
    ];
    for (extension, in_leaf, held, tolerated, found, fix) in rows {
        let findings = judge(extension, in_leaf, held, tolerated).unwrap_err();
        let one = findings.as_slice().iter().find(|one| one.id == "ek.critical-extension").unwrap();
        assert!(one.found.as_ref().unwrap().starts_with(found), "{one}");
        assert_eq!(one.found.as_ref().unwrap().contains("Intermediate 5"), !in_leaf, "{one}");
        assert!(one.fix.as_ref().unwrap().contains(fix), "{one}");
    }
    judge(policies(), false, true, true).unwrap();
}

#[test]
fn a26_what_stands_above_an_intermediate_that_is_trusted_as_it_stands_may_be_revoked_too() {
    let ca = Ca::new("Maker", "Root");
    let (upper, lower, key) =
        (KeyPair::generate().unwrap(), KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let public = ek_p256(&key, EK_ATTRIBUTES);
    let mut over = Ca::new("Maker", "Upper").params;
    over.serial_number = Some(SERIAL.into());
    let over_certificate = over.signed_by(&upper, &rcgen::Issuer::from_params(&ca.params, &ca.key)).unwrap();
    let mut under = Ca::new("Maker", "Lower").params;
    let mut policies =
        rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 32], vec![0x30, 8, 0x30, 6, 6, 4, 0x55, 0x1d, 0x20, 0]);
    policies.set_criticality(true);
    under.custom_extensions.push(policies);
    let under_certificate = under.signed_by(&lower, &rcgen::Issuer::from_params(&over, &upper)).unwrap();
    let leaf = ek_certificate().signed_by(&key, &rcgen::Issuer::from_params(&under, &lower)).unwrap();
    let judge = |serial: u64| {
        let mut bundle = bundle(TpmClass::Hardware, &ca);
        bundle.tolerate("critical-policies").unwrap();
        for file in [over_certificate.der(), under_certificate.der()] {
            bundle.add(TpmClass::Hardware, file).unwrap();
        }
        bundle.add(TpmClass::Hardware, &ca.revoke(&[serial], NOW)).unwrap();
        verify_ek(&public, Some(leaf.der()), &[], &bundle, NOW)
    };
    judge(SERIAL + 1).unwrap();
    assert_eq!(refusals(judge(SERIAL)), ["ek.revoked"]);
}

// ---- TLS key ----

/// A TLS key and its certification; a test changes one part.
struct TlsCase {
    tpm: SoftwareTpm,
    key: SoftwareKey,
    csr: Vec<u8>,
    /// Stands in for what TPM2_Certify would make.
    forged_attest: Option<Vec<u8>>,
    forged_signature: Option<Vec<u8>>,
}

impl TlsCase {
    fn new() -> Self {
        Self::with(TLS_KEY_ATTRIBUTES)
    }

    fn with(attributes: ObjectAttributes) -> Self {
        let key = SoftwareKey::new(attributes, None);
        let csr = request(&key);
        Self { tpm: SoftwareTpm::new(), key, csr, forged_attest: None, forged_signature: None }
    }

    fn ak(&self) -> AkPublic {
        verify_ak(&self.tpm.ak.public).unwrap()
    }

    fn attest(&self) -> Vec<u8> {
        let extra = NONCE.bind(DOMAIN_TLS, &self.csr);
        self.forged_attest.clone().unwrap_or_else(|| self.tpm.certify(&self.key.public, &extra).build())
    }

    fn signature(&self) -> Vec<u8> {
        self.forged_signature.clone().unwrap_or_else(|| self.tpm.ak.sign(&self.attest()))
    }

    fn judge(&self) -> Result<CertifiedTlsKey, Findings> {
        let (attest, signature) = (self.attest(), self.signature());
        let evidence = TlsKeyEvidence {
            attest: &attest,
            signature: &signature,
            tls_public: self.key.public.as_bytes(),
            csr: &self.csr,
        };
        verify_tls_key(&evidence, &self.ak(), &self.tpm.ek_name, &NONCE)
    }
}

/// A PKCS#10 request by this key.
fn request(key: &SoftwareKey) -> Vec<u8> {
    let pkcs8 = key.pair.to_pkcs8v1().unwrap();
    let pair = KeyPair::try_from(pkcs8.as_ref()).unwrap();
    CertificateParams::new([]).unwrap().serialize_request(&pair).unwrap().der().to_vec()
}

#[test]
fn a20_only_a_certification_certifies_a_tls_key() {
    let mut case = TlsCase::new();
    let honest = case.judge().unwrap();
    assert_eq!(honest.spki(), case.key.public.key().to_spki().unwrap());

    let extra = NONCE.bind(DOMAIN_TLS, &case.csr);
    let name = case.key.public.name().as_bytes().to_vec();
    // A quote of no PCR, an NV certification, a creation attestation: all by the genuine AK, all for this nonce.
    let empty_quote = [&[0; 4][..], &tpm2b(&[0; 32])].concat();
    for (kind, body) in [
        (AttestType::Quote, empty_quote),
        (AttestType::Nv, nv_info(&name, 0, &name)),
        (AttestType::Other(0x801a), certify_info(&name, &name)),
    ] {
        case.forged_attest = Some(case.tpm.attest(kind, &extra, body).build());
        assert_eq!(refusals(case.judge()), ["tls-key.type"], "{kind}");
    }
    // The reverse for tags: a certification is no NV certification.
    let tag = TagCase::new();
    tag.judge().unwrap();
    let certify = tag.tpm.attest(AttestType::Certify, &tag.extra(), certify_info(&name, &name)).build();
    assert_eq!(refusals(TagCase { forged_attest: Some(certify), ..tag }.judge()), ["tag.type"]);
}

#[test]
fn a21_an_imported_tls_key_is_refused_though_it_certifies() {
    TlsCase::new().judge().unwrap();
    let rows = [
        ("tls-key.sensitive-data-origin", TLS_KEY_ATTRIBUTES.without(ObjectAttributes::SENSITIVE_DATA_ORIGIN)),
        ("tls-key.fixed-tpm", TLS_KEY_ATTRIBUTES.without(ObjectAttributes::FIXED_TPM)),
        ("tls-key.fixed-parent", TLS_KEY_ATTRIBUTES.without(ObjectAttributes::FIXED_PARENT)),
        ("tls-key.sign", TLS_KEY_ATTRIBUTES.without(ObjectAttributes::SIGN)),
        ("tls-key.decrypt", TLS_KEY_ATTRIBUTES.with(ObjectAttributes::DECRYPT)),
        ("tls-key.restricted", TLS_KEY_ATTRIBUTES.with(ObjectAttributes::RESTRICTED)),
    ];
    for (id, attributes) in rows {
        assert_eq!(refusals(TlsCase::with(attributes).judge()), [id]);
    }
}

#[test]
fn a28_an_ak_in_the_owner_hierarchy_is_refused() {
    let mut case = TlsCase::new();
    case.judge().unwrap();
    let mut attest = case.tpm.certify(&case.key.public, &NONCE.bind(DOMAIN_TLS, &case.csr));
    attest.qualified_signer = case.tpm.qualified_signer(RH_OWNER);
    case.forged_attest = Some(attest.build());
    assert_eq!(refusals(case.judge()), ["tls-key.signer"]);
}

#[test]
fn a1_a3_a19_a_certification_binds_key_request_nonce_and_signer() {
    let case = TlsCase::new();
    case.judge().unwrap();
    let extra = NONCE.bind(DOMAIN_TLS, &case.csr);
    let with = |attest: Vec<u8>, signature: Option<Vec<u8>>| {
        let signature = signature.unwrap_or_else(|| case.tpm.ak.sign(&attest));
        let evidence = TlsKeyEvidence {
            attest: &attest,
            signature: &signature,
            tls_public: case.key.public.as_bytes(),
            csr: &case.csr,
        };
        verify_tls_key(&evidence, &case.ak(), &case.tpm.ek_name, &NONCE)
    };
    let honest = case.tpm.certify(&case.key.public, &extra);
    with(honest.build(), None).unwrap();

    let mut magic = honest.clone();
    magic.magic ^= 1;
    assert_eq!(refusals(with(magic.build(), None)), ["tls-key.magic"], "A1");
    let by_itself = case.key.sign(&honest.build());
    assert_eq!(refusals(with(honest.build(), Some(by_itself))), ["tls-key.signature"], "A1b: signed by the TLS key");

    for (extra, what) in [
        (Nonce([8; 32]).bind(DOMAIN_TLS, &case.csr).to_vec(), "another nonce"),
        (NONCE.bind(DOMAIN_TLS, b"another request").to_vec(), "another request"),
        (NONCE.bind(DOMAIN_QUOTE, &case.csr).to_vec(), "another domain"),
        ([&extra[..], &[0]].concat(), "padded"),
        (extra[..31].to_vec(), "truncated"),
        (vec![], "none"),
    ] {
        let attest = case.tpm.certify(&case.key.public, &extra).build();
        assert_eq!(refusals(with(attest, None)), ["tls-key.nonce"], "A3, A15: {what}");
    }

    let other = SoftwareKey::tls();
    let attest = case.tpm.certify(&other.public, &extra).build();
    assert_eq!(refusals(with(attest, None)), ["tls-key.name"], "another key was certified");
}

#[test]
fn a19_the_request_is_for_the_certified_key_and_by_it() {
    let mut case = TlsCase::new();
    case.judge().unwrap();
    let honest = case.csr.clone();
    // Another key's whole request: key and signature are both another's.
    case.csr = request(&SoftwareKey::tls());
    assert_eq!(refusals(case.judge()), ["tls-key.csr-key", "tls-key.csr-signature"]);
    // The right key, a flipped bit in the signature.
    case.csr = honest.clone();
    *case.csr.last_mut().unwrap() ^= 1;
    assert_eq!(refusals(case.judge()), ["tls-key.csr-signature"]);
    // A request is exactly one.
    case.csr = [honest.as_slice(), &[0]].concat();
    assert_eq!(refusals(case.judge()), ["tls-key.csr"]);
    case.csr = b"no request".to_vec();
    assert_eq!(refusals(case.judge()), ["tls-key.csr"]);
}

// ---- Asset tag ----

/// A signed tag in a TPM; a test changes one part.
struct TagCase {
    tpm: SoftwareTpm,
    operator: SignerKey,
    nv: Vec<u8>,
    public: NvPublic,
    last_serial: Option<u64>,
    forged_attest: Option<Vec<u8>>,
}

fn operator() -> SignerKey {
    SignerKey::from_pkcs8(&KeyPair::generate().unwrap().serialize_der()).unwrap()
}

fn tag(ek: &Name) -> Tag {
    let now = u64::try_from(NOW.unix_timestamp()).unwrap();
    Tag {
        ek: ek.clone(),
        serial: 7,
        label: "restricted:phi@hospital-a".parse().unwrap(),
        location: "jp-east/rack-7".to_owned(),
        not_before: now - 60,
        not_after: now + 60,
    }
}

impl TagCase {
    fn new() -> Self {
        Self::with(|_| {})
    }

    /// A tag that the operator really signed, after `change`.
    fn with(change: impl FnOnce(&mut Tag)) -> Self {
        let (tpm, operator) = (SoftwareTpm::new(), operator());
        let mut tag = tag(&tpm.ek_name);
        change(&mut tag);
        let nv = tag.sign(&operator).unwrap();
        let public = NvPublic::of_tag(u16::try_from(nv.len()).unwrap());
        Self { tpm, operator, nv, public, last_serial: Some(7), forged_attest: None }
    }

    fn extra(&self) -> [u8; 32] {
        NONCE.bind(DOMAIN_TAG, &self.nv)
    }

    fn index_name(&self) -> Vec<u8> {
        Name::of(HashAlg::Sha256, &self.public.to_bytes()).unwrap().as_bytes().to_vec()
    }

    fn judge(&self) -> Result<VerifiedTag, Findings> {
        let attest = self
            .forged_attest
            .clone()
            .unwrap_or_else(|| self.tpm.nv_certify(&self.index_name(), 0, &self.nv, &self.extra()).build());
        self.judge_signed(&attest, &self.tpm.ak.sign(&attest))
    }

    fn judge_signed(&self, attest: &[u8], signature: &[u8]) -> Result<VerifiedTag, Findings> {
        let mut signers = KeySet::new();
        signers.insert(self.operator.kid(), self.operator.point());
        let evidence = TagEvidence { nv: &self.nv, nv_public: &self.public.to_bytes(), attest, signature };
        let ak = verify_ak(&self.tpm.ak.public).unwrap();
        verify_tag(&evidence, &ak, &self.tpm.ek_name, &NONCE, &signers, self.last_serial, NOW)
    }
}

#[test]
fn a22_a_tag_that_is_not_this_hosts_newest_is_refused() {
    let verified = TagCase::new().judge().unwrap();
    assert_eq!((verified.tag().serial, verified.tag().location.as_str()), (7, "jp-east/rack-7"));
    TagCase { last_serial: None, ..TagCase::new() }.judge().unwrap();

    assert_eq!(refusals(TagCase { last_serial: Some(8), ..TagCase::new() }.judge()), ["tag.serial"], "older serial");
    let other = SoftwareTpm::new().ek_name;
    assert_eq!(refusals(TagCase::with(|tag| tag.ek = other).judge()), ["tag.ek"], "another EK's tag");
    let now = u64::try_from(NOW.unix_timestamp()).unwrap();
    assert_eq!(refusals(TagCase::with(|tag| tag.not_after = now - 1).judge()), ["tag.validity"], "over");
    assert_eq!(refusals(TagCase::with(|tag| tag.not_before = now + 1).judge()), ["tag.validity"], "not yet");

    let unsigned = TagCase { operator: operator(), ..TagCase::new() };
    assert_eq!(refusals(unsigned.judge()), ["tag.provisioning.key"], "a key nobody trusts");
    // The owner writes a better label and keeps the old signature; index, certification and nonce are genuine.
    let mut forged = TagCase::new();
    let at = forged.nv.windows(3).position(|three| three == b"phi").unwrap();
    forged.nv[at..at + 3].copy_from_slice(b"pci");
    assert_eq!(refusals(forged.judge()), ["tag.provisioning.signature"]);
    let mut spaced = TagCase::new();
    spaced.nv = vec![0, 1, b'{'];
    spaced.public.data_size = 3;
    assert_eq!(refusals(spaced.judge()), ["tag.provisioning.malformed"]);
}

#[test]
fn a22_an_index_that_is_not_the_tags_own_is_refused() {
    TagCase::new().judge().unwrap();
    // Redefined by the owner: other attributes, another handle, a policy. The TPM's certification of it is genuine.
    for change in [
        (|public: &mut NvPublic| public.attributes |= 1 << 2) as fn(&mut NvPublic),
        |public| public.attributes = TAG_ATTRIBUTES_DEFINED,
        |public| public.index = TAG_INDEX + 1,
        |public| public.auth_policy = vec![1; 32],
    ] {
        let mut case = TagCase::new();
        change(&mut case.public);
        assert_eq!(refusals(case.judge()), ["tag.index"], "{:?}", case.public);
    }
    // The right public area, but the TPM certified an index of another Name.
    let case = TagCase::new();
    let other = Name::of(HashAlg::Sha256, b"another index").unwrap();
    let attest = case.tpm.nv_certify(other.as_bytes(), 0, &case.nv, &case.extra()).build();
    assert_eq!(refusals(TagCase { forged_attest: Some(attest), ..case }.judge()), ["tag.index"]);
}

#[test]
fn a22_only_the_whole_contents_certified_now_count() {
    let case = TagCase::new();
    case.judge().unwrap();
    let name = case.index_name();
    let judge = |case: TagCase, attest: Vec<u8>| TagCase { forged_attest: Some(attest), ..case }.judge();

    let attest = case.tpm.nv_certify(&name, 4, &case.nv, &case.extra()).build();
    assert_eq!(refusals(judge(case, attest)), ["tag.offset"], "an offset");

    let mut case = TagCase::new();
    case.public.data_size += 4;
    assert_eq!(refusals(case.judge()), ["tag.offset"], "a part of a larger index");

    let case = TagCase::new();
    let mut contents = case.nv.clone();
    contents[5] ^= 1;
    let attest = case.tpm.nv_certify(&case.index_name(), 0, &contents, &case.extra()).build();
    assert_eq!(refusals(judge(case, attest)), ["tag.contents"], "the TPM holds something else");

    let case = TagCase::new();
    let attest =
        case.tpm.nv_certify(&case.index_name(), 0, &case.nv, &Nonce([1; 32]).bind(DOMAIN_TAG, &case.nv)).build();
    assert_eq!(refusals(judge(case, attest)), ["tag.nonce"], "an older certification");

    let case = TagCase::new();
    let mut attest = case.tpm.nv_certify(&case.index_name(), 0, &case.nv, &case.extra());
    attest.qualified_signer = case.tpm.qualified_signer(RH_OWNER);
    let attest = attest.build();
    assert_eq!(refusals(judge(case, attest)), ["tag.signer"], "an AK elsewhere");

    let case = TagCase::new();
    let body = [tpm2b(&case.index_name()), tpm2b(&[0; 32])].concat();
    let attest = case.tpm.attest(AttestType::Other(0x801c), &case.extra(), body).build();
    assert_eq!(refusals(judge(case, attest)), ["tag.digest-form", "tag.type"], "the digest form");
}

#[test]
fn a_tag_that_no_tpm_could_certify_is_not_signed() {
    let (operator, ek) = (operator(), SoftwareTpm::new().ek_name);
    let location = |location: &str| Tag { location: location.to_owned(), ..tag(&ek) }.sign(&operator).map(|_| ());
    location("jp-east/rack-7").unwrap();
    for bad in ["", "/", "jp-east/", "JP", "a//b", "a b", &"x".repeat(129)] {
        assert_eq!(location(bad).unwrap_err(), TagError::Location, "{bad}");
    }
    let label =
        format!("restricted:{}", (0..7).map(|n| format!("{}{n}", "x".repeat(31))).collect::<Vec<_>>().join(","));
    // The longest tag there can be still fits the smallest TPM.
    let long = Tag { label: label.parse().unwrap(), location: "x".repeat(128), serial: u64::MAX, ..tag(&ek) };
    assert!(long.sign(&operator).unwrap().len() <= NV_MAX);
    assert_eq!(Tag { not_after: 0, ..tag(&ek) }.sign(&operator).unwrap_err(), TagError::Validity);
}

#[test]
fn a1_a23_a_tags_certification_is_the_aks_and_a_tpms() {
    let judge = |change: fn(&mut common::AttestBuilder), sign: fn(&TagCase, &[u8]) -> Vec<u8>| {
        let case = TagCase::new();
        let mut attest = case.tpm.nv_certify(&case.index_name(), 0, &case.nv, &case.extra());
        change(&mut attest);
        let attest = attest.build();
        let signature = sign(&case, &attest);
        case.judge_signed(&attest, &signature)
    };
    let honest: fn(&TagCase, &[u8]) -> Vec<u8> = |case, attest| case.tpm.ak.sign(attest);
    judge(|_| {}, honest).unwrap();
    assert_eq!(refusals(judge(|attest| attest.magic ^= 1, honest)), ["tag.magic"]);
    assert_eq!(refusals(judge(|_| {}, |_, attest| SoftwareKey::ak().sign(attest))), ["tag.signature"]);
    for (id, sign) in [
        ("tag.sha1", (|case, attest| relabelled(case, attest, 0x04)) as fn(&TagCase, &[u8]) -> Vec<u8>),
        ("tag.algorithm", |case, attest| relabelled(case, attest, 0x0c)),
    ] {
        assert_eq!(refusals(judge(|_| {}, sign)), [id]);
    }
    let mut tls = TlsCase::new();
    let mut signature = tls.signature();
    signature[3] = 0x0c;
    tls.forged_signature = Some(signature);
    assert_eq!(refusals(tls.judge()), ["tls-key.algorithm"]);
}

/// The AK's signature under another hash's name.
fn relabelled(case: &TagCase, attest: &[u8], hash: u8) -> Vec<u8> {
    let mut signature = case.tpm.ak.sign(attest);
    signature[3] = hash;
    signature
}

#[test]
fn a14_a_weak_tls_key_is_refused_though_it_certifies() {
    let mut case = TlsCase::new();
    case.judge().unwrap();
    let raw = common::tpmt_public_rsa(TLS_KEY_ATTRIBUTES, 1024, &[0xc5; 128]);
    case.key.public = Public::parse(&raw).unwrap();
    assert_eq!(refusals(case.judge()), ["tls-key.csr-key", "tls-key.csr-signature", "tls-key.key-size"]);
}

#[test]
fn a23_a9_what_cannot_be_protected_or_verified_is_refused_by_its_name() {
    let ca = Ca::new("Maker", "Root");
    let key = KeyPair::generate().unwrap();
    let bundle = bundle(TpmClass::Hardware, &ca);
    let public = ek_p256(&key, EK_ATTRIBUTES);
    let certificate = ca.issue(&key, |_| {});
    verify_ek(&public, Some(&certificate), &[], &bundle, NOW).unwrap();

    // AES-128 in another mode (CBC); AES-192.
    for (at, value) in [(15, 0x42), (13, 192)] {
        let mut raw = public.as_bytes().to_vec();
        raw[at] = value;
        let refused = verify_ek(&Public::parse(&raw).unwrap(), Some(&certificate), &[], &bundle, NOW);
        assert_eq!(refusals(refused), ["ek.protection"], "byte {at}");
    }
    let weak = with_sha224(&certificate);
    assert_eq!(refusals(verify_ek(&public, Some(&weak), &[], &bundle, NOW)), ["ek.algorithm"]);
}
