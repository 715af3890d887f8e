//! Rows of the attack table that an enrolment answers, over TLS against the running verifier: each attack is refused by its exact
//! findings and leaves no host behind; an honest host enrols in the same test and is trusted.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use hostmark_attest::digest::HashAlg;
use hostmark_attest::selection::PcrSelection;
use hostmark_attest::tpm::name::RH_OWNER;
use hostmark_attest::tpm::public::{ObjectAttributes, Public};
use hostmark_attest::wire::{Activation, B64, EnrolmentChallenge, EnrolmentOutcome, EnrolmentRequest};
use hostmark_tests::attester::{Attester, SoftwareEk};
use hostmark_tests::client::{Answer, Client};
use hostmark_tests::forge::{AK_ATTRIBUTES, AttestBuilder, SoftwareKey, TLS_KEY_ATTRIBUTES, tpmt_public_rsa};
use hostmark_tests::lab::{Lab, POOL};
use hostmark_tests::pki::{Ca, ek_curve, ek_rsa, unknown_critical};
use hostmark_tests::scene::{PRODUCTION, Scene, errors, owned, refusal};
use hostmark_verifier::api::types::{PreregisteredHost, Preregistrations, Standing};

const ECDSA_SHA256: Option<(u16, HashAlg)> = Some((0x0018, HashAlg::Sha256));

fn refused(what: &str, status: u16, expect: &[&str], answer: &Answer) {
    assert_eq!((answer.status, refusal(answer)), (status, owned(expect)), "{what}: {answer}");
}

/// No host and no waiting enrolment exists but these.
fn only(scene: &Scene, hosts: &[&Attester]) {
    let mut known: Vec<String> = scene.lab.hosts().unwrap().into_iter().map(|one| one.host).collect();
    let mut expect: Vec<String> = hosts.iter().map(|one| one.identity().host.clone()).collect();
    known.sort();
    expect.sort();
    assert_eq!(known, expect);
}

/// A new enrolment's challenge and an answer with this TLS key and lie.
fn activation(host: &Attester, tls: &SoftwareKey, change: impl FnOnce(&mut AttestBuilder)) -> Answer {
    let challenge: EnrolmentChallenge = host.begin(None).read().unwrap();
    host.activate(&challenge.enrolment, &host.activation(&challenge, tls, change))
}

#[test]
fn a2_the_service_refuses_an_ak_by_its_attribute() {
    let scene = Scene::start("");
    let rows = [
        ("ak.restricted", AK_ATTRIBUTES.without(ObjectAttributes::RESTRICTED)),
        ("ak.fixed-tpm", AK_ATTRIBUTES.without(ObjectAttributes::FIXED_TPM)),
        ("ak.fixed-parent", AK_ATTRIBUTES.without(ObjectAttributes::FIXED_PARENT)),
        ("ak.sensitive-data-origin", AK_ATTRIBUTES.without(ObjectAttributes::SENSITIVE_DATA_ORIGIN)),
        ("ak.sign", AK_ATTRIBUTES.without(ObjectAttributes::SIGN)),
        ("ak.decrypt", AK_ATTRIBUTES.with(ObjectAttributes::DECRYPT)),
        ("ak.no-da", AK_ATTRIBUTES.without(ObjectAttributes::NO_DA)),
    ];
    let mut host = scene.stranger();
    for (id, attributes) in rows {
        let good = std::mem::replace(&mut host.tpm.ak, SoftwareKey::new(attributes, ECDSA_SHA256));
        refused(id, 422, &[id], &host.begin(None));
        host.tpm.ak = good;
    }
    only(&scene, &[]);
    scene.enrol(&mut host, "node-1");
    scene.trusted(&host);
}

#[test]
fn a9_the_service_refuses_ek_certificates_that_its_roots_do_not_vouch_for() {
    let scene = Scene::start("");
    let mut host = scene.stranger();
    let pair = rcgen::KeyPair::try_from(host.ek.pair.serialized_der()).unwrap();
    let selfsigned = hostmark_tests::pki::ek_certificate().self_signed(&pair).unwrap().der().to_vec();
    let honest = host.ek.certificate.clone().unwrap();
    let same_name = Ca::new("Hostmark", "Software TPMs");
    let other_key = SoftwareEk::new(&scene.ca).certificate.unwrap();
    let critical = scene.ca.issue(&pair, |params| params.custom_extensions.push(unknown_critical()));
    let no_usage = scene.ca.issue(&pair, |params| params.extended_key_usages.clear());
    let rows: [(&str, Vec<u8>, &[&str]); 8] = [
        ("self-signed", selfsigned, &["ek.chain"]),
        ("unknown CA", Ca::new("Maker", "Root").issue(&pair, |_| ()), &["ek.chain"]),
        ("the CA's name, another key", same_name.issue(&pair, |_| ()), &["ek.chain"]),
        ("unknown critical extension", critical, &["ek.critical-extension"]),
        ("no usage", no_usage, &["ek.usage"]),
        ("another EK's", other_key, &["ek.key-mismatch"]),
        ("bytes behind it", [honest.as_slice(), &[1]].concat(), &["ek.certificate"]),
        ("no certificate", b"x".to_vec(), &["ek.certificate"]),
    ];
    for (what, certificate, expect) in rows {
        host.ek.certificate = Some(certificate);
        refused(what, 422, expect, &host.begin(None));
    }
    only(&scene, &[]);

    // Expiry is advice: a TPM outlives its certificate. The approver is told.
    let expired =
        |params: &mut rcgen::CertificateParams| params.not_after = time::macros::datetime!(2021-01-01 0:00 UTC);
    host.ek.certificate = Some(scene.ca.issue(&pair, expired));
    assert!(matches!(host.enrol(None), EnrolmentOutcome::Pending { .. }));
    let pending = scene.lab.hosts().unwrap().remove(0);
    assert!(pending.findings.iter().any(|one| one.id == "ek.expired"), "{:?}", pending.findings);
    host.ek.certificate = Some(honest);
    scene.enrol(&mut host, "node-1");
    scene.trusted(&host);
}

#[test]
fn a10_the_service_refuses_an_activation_by_another_tpm_or_for_another_ak() {
    let scene = Scene::start("");
    let (mut host, thief) = (scene.stranger(), scene.stranger());
    let waiting: EnrolmentChallenge = host.begin(None).read().unwrap();
    // Another TPM cannot open it, nor can this one for another key.
    assert_eq!(thief.ek.open(&waiting, host.tpm.ak.public.name()), None);
    assert_eq!(host.ek.open(&waiting, thief.tpm.ak.public.name()), None);
    let answer = thief.activate(&waiting.enrolment, &thief.activation(&waiting, &thief.tls, |_| ()));
    refused("by another TPM", 422, &["enrolment.secret"], &answer);
    let longer = |secret: &[u8]| [secret, &[0]].concat();
    type Guess = fn(&[u8]) -> Vec<u8>;
    let guesses: [Guess; 3] = [|_| vec![0; 32], |_| Vec::new(), longer];
    for guess in guesses {
        let challenge: EnrolmentChallenge = host.begin(None).read().unwrap();
        let mut lie = host.activation(&challenge, &host.tls, |_| ());
        let truth = lie.secret.clone();
        lie.secret = B64(guess(&truth.0));
        refused("guess", 422, &["enrolment.secret"], &host.activate(&challenge.enrolment, &lie));
        // Guessing burns the enrolment: the right secret comes too late.
        lie.secret = truth;
        refused("burnt", 409, &["enrolment.used"], &host.activate(&challenge.enrolment, &lie));
        let poll = serde_json::json!({ "secret": B64(vec![0; 32]) });
        let path = format!("/v1/enrolments/{}/certificate", challenge.enrolment);
        refused("poll", 422, &["enrolment.secret"], &host.stranger().post(&path, &poll).unwrap());
    }
    only(&scene, &[]);
    scene.enrol(&mut host, "node-1");
    scene.trusted(&host);
}

/// Sends all activations at once.
fn together(all: impl Iterator<Item = (Client, String, Activation)>) -> Vec<Answer> {
    let all: Vec<_> = all.collect();
    let start = std::sync::Barrier::new(all.len());
    let send = |(client, enrolment, activation): &(Client, String, Activation)| {
        start.wait();
        client.post(&format!("/v1/enrolments/{enrolment}/activation"), activation).unwrap()
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = all.iter().map(|one| scope.spawn(|| send(one))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn a11_of_a_hundred_uses_of_one_token_or_secret_one_wins() {
    const MANY: usize = 100;
    let scene = Scene::start("");
    let token = scene.token("node-1");
    let mut host = scene.stranger();
    let answers: Vec<Answer> = together((0..MANY).map(|_| {
        host.replace_tpm(SoftwareEk::new(&scene.ca));
        let challenge: EnrolmentChallenge = host.begin(Some(&token.token)).read().unwrap();
        let activation = host.activation(&challenge, &host.tls, |_| ());
        (host.stranger().clone(), challenge.enrolment, activation)
    }));
    let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert_eq!((won.len(), lost.len()), (1, MANY - 1));
    for answer in lost {
        refused("one token", 422, &["token.used"], answer);
    }
    assert_eq!(scene.lab.hosts().unwrap().len(), 1);

    // One secret of one TPM.
    host.replace_tpm(SoftwareEk::new(&scene.ca));
    let token = scene.token("node-2");
    let challenge: EnrolmentChallenge = host.begin(Some(&token.token)).read().unwrap();
    let activation = host.activation(&challenge, &host.tls, |_| ());
    let one = (host.stranger().clone(), challenge.enrolment, activation);
    let answers = together((0..MANY).map(|_| one.clone()));
    let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert_eq!((won.len(), lost.len()), (1, MANY - 1));
    for answer in lost {
        refused("one secret", 409, &["enrolment.used"], answer);
    }
    let EnrolmentOutcome::Approved { host: identity } = won[0].read().unwrap() else { panic!("{}", won[0]) };
    host.become_host(identity);
    scene.trusted(&host);
}

#[test]
fn a13_the_service_lets_nobody_take_a_hosts_place_without_a_person() {
    let scene = Scene::start("");
    let mut host = scene.enrolled("node-1");
    scene.trusted(&host);

    // The same TPM with another AK.
    let good = std::mem::replace(&mut host.tpm.ak, SoftwareKey::ak());
    assert_eq!(activation(&host, &SoftwareKey::tls(), |_| ()).status, 202);
    host.tpm.ak = good;
    // Another TPM with a token for the same node.
    let thief = scene.stranger();
    let token = scene.token("node-1");
    let challenge: EnrolmentChallenge = thief.begin(Some(&token.token)).read().unwrap();
    let answer = thief.activate(&challenge.enrolment, &thief.activation(&challenge, &thief.tls, |_| ()));
    assert_eq!(answer.status, 202, "{answer}");
    let id = host.identity().host.clone();
    let waiting = || {
        let all = scene.lab.hosts().unwrap();
        all.iter().filter(|one| one.state == Standing::RebindPending && one.host == id).count()
    };
    assert_eq!(waiting(), 2, "both wait for a person");
    // Another TPM that knows the AK (a copied virtual TPM under another EK).
    let mut clone = scene.stranger();
    std::mem::swap(&mut clone.tpm.ak, &mut host.tpm.ak);
    refused("another EK, the same AK", 422, &["enrolment.ak-taken"], &activation(&clone, &clone.tls, |_| ()));
    std::mem::swap(&mut clone.tpm.ak, &mut host.tpm.ak);

    // Approving as if it were new is refused: that would replace the host without looking.
    let approve = serde_json::json!({ "assignment": Lab::assignment("node-9") });
    let path = format!("/v1/hosts/{}/approve", host.identity().host);
    refused("approved as new", 409, &["enrolment.rebind"], &scene.lab.admin.post(&path, &approve).unwrap());
    let rebind = format!("/v1/hosts/{}/rebind", host.identity().host);
    let nothing = serde_json::json!({});
    refused("which one?", 409, &["enrolment.ambiguous"], &scene.lab.admin.post(&rebind, &nothing).unwrap());
    scene.trusted(&host);
    assert_eq!(waiting(), 2, "nothing was replaced");
}

#[test]
fn a14_the_service_refuses_keys_that_are_not_on_the_list() {
    let scene = Scene::start("");
    let mut host = scene.stranger();
    let begin = |change: &dyn Fn(&mut EnrolmentRequest)| {
        let mut request = host.request(None);
        change(&mut request);
        host.stranger().post("/v1/enrolments", &request).unwrap()
    };
    for ek in [ek_rsa(1024), ek_rsa(16384), ek_curve(5), ek_curve(0x10)] {
        let kind = ek.key().kind();
        let without = |request: &mut EnrolmentRequest| {
            (request.ek_public, request.ek_certificate) = (B64(ek.as_bytes().to_vec()), None);
        };
        refused(&format!("{kind} as EK"), 422, &["ek.key-size"], &begin(&without));
    }
    let relabelled = |public: &Public, curve: u8| {
        let mut raw = public.as_bytes().to_vec();
        let at = raw.len() - (2 + 2 + 2 + 32 + 2 + 32) + 1;
        assert_eq!(raw[at], 3);
        raw[at] = curve;
        raw
    };
    let rsa = |bits: u16| {
        let mut raw = tpmt_public_rsa(AK_ATTRIBUTES, bits, &vec![0xc5; usize::from(bits) / 8]);
        // RSASSA with SHA-256 in place of TPM_ALG_NULL, so that the size alone is wrong.
        raw.splice(12..14, [0x00, 0x14, 0x00, 0x0b]);
        raw
    };
    for ak in [rsa(1024), rsa(16384), relabelled(&host.tpm.ak.public, 4), relabelled(&host.tpm.ak.public, 0x10)] {
        let lie = |request: &mut EnrolmentRequest| request.ak_public = B64(ak.clone());
        refused("AK", 422, &["ak.key-size"], &begin(&lie));
    }
    let challenge: EnrolmentChallenge = host.begin(None).read().unwrap();
    let mut lie = host.activation(&challenge, &host.tls, |_| ());
    lie.tls_public = B64(relabelled(&host.tls.public, 5));
    let answer = host.activate(&challenge.enrolment, &lie);
    assert_eq!(answer.status, 422);
    assert!(refusal(&answer).contains(&"tls-key.key-size".to_owned()), "{answer}");
    only(&scene, &[]);
    scene.enrol(&mut host, "node-1");
    scene.trusted(&host);
}

#[test]
fn a20_the_service_takes_no_other_attestation_for_a_certification() {
    let scene = Scene::start("");
    let mut host = scene.stranger();
    let quote = |attest: &mut AttestBuilder| {
        let bound = attest.extra_data.clone();
        *attest = host.quote(&PcrSelection::from_text("sha256:0").unwrap());
        attest.extra_data = bound;
    };
    refused("a quote", 422, &["tls-key.type"], &activation(&host, &host.tls, quote));
    let nv = |attest: &mut AttestBuilder| {
        *attest = host.tpm.nv_certify(host.tls.public.name().as_bytes(), 0, b"x", &attest.extra_data);
    };
    refused("an NV certification", 422, &["tls-key.type"], &activation(&host, &host.tls, nv));
    only(&scene, &[]);
    scene.enrol(&mut host, "node-1");
    scene.trusted(&host);
}

#[test]
fn a21_the_service_refuses_an_imported_tls_key_although_certify_succeeds() {
    let scene = Scene::start("");
    let mut host = scene.stranger();
    let rows = [
        ("tls-key.sensitive-data-origin", TLS_KEY_ATTRIBUTES.without(ObjectAttributes::SENSITIVE_DATA_ORIGIN)),
        ("tls-key.fixed-tpm", TLS_KEY_ATTRIBUTES.without(ObjectAttributes::FIXED_TPM)),
        ("tls-key.fixed-parent", TLS_KEY_ATTRIBUTES.without(ObjectAttributes::FIXED_PARENT)),
        ("tls-key.restricted", TLS_KEY_ATTRIBUTES.with(ObjectAttributes::RESTRICTED)),
        ("tls-key.decrypt", TLS_KEY_ATTRIBUTES.with(ObjectAttributes::DECRYPT)),
        ("tls-key.sign", TLS_KEY_ATTRIBUTES.without(ObjectAttributes::SIGN)),
    ];
    for (id, attributes) in rows {
        refused(id, 422, &[id], &activation(&host, &SoftwareKey::new(attributes, None), |_| ()));
    }
    // A good public area that is not the certified key's.
    let imported = SoftwareKey::new(TLS_KEY_ATTRIBUTES.without(ObjectAttributes::SENSITIVE_DATA_ORIGIN), None);
    let name = imported.public.name().as_bytes().to_vec();
    let lie = |attest: &mut AttestBuilder| attest.body = hostmark_tests::forge::certify_info(&name, &name);
    refused("another key certified", 422, &["tls-key.name"], &activation(&host, &host.tls, lie));
    only(&scene, &[]);
    scene.enrol(&mut host, "node-1");
    scene.trusted(&host);

    // Nor at a renewal.
    let challenge = host.renewal_challenge();
    let good = std::mem::replace(&mut host.tls, imported);
    let answer = host.stranger().post("/v1/renewals", &host.renewal(&challenge)).unwrap();
    refused("renewal", 422, &["tls-key.sensitive-data-origin"], &answer);
    host.tls = good;
    assert_eq!(host.stranger().post("/v1/renewals", &host.renewal(&challenge)).unwrap().status, 200, "honest");
}

#[test]
fn a23_the_service_refuses_sha1_in_an_aks_scheme() {
    let scene = Scene::start("");
    let mut host = scene.stranger();
    let rows = [("ak.sha1", Some((0x0018, HashAlg::Sha1))), ("ak.scheme", None)];
    for (id, scheme) in rows {
        let good = std::mem::replace(&mut host.tpm.ak, SoftwareKey::new(AK_ATTRIBUTES, scheme));
        refused(id, 422, &[id], &host.begin(None));
        host.tpm.ak = good;
    }
    let challenge: EnrolmentChallenge = host.begin(None).read().unwrap();
    let mut lie = host.activation(&challenge, &host.tls, |_| ());
    lie.certification.signature.0[3] = 0x04;
    refused("certification", 422, &["tls-key.sha1"], &host.activate(&challenge.enrolment, &lie));
    only(&scene, &[]);
    scene.enrol(&mut host, "node-1");
    scene.trusted(&host);
}

#[test]
fn a25_a_tpm_without_certificate_enters_no_pool_of_certified_ones() {
    let scene = Scene::start("");
    let mut host = scene.stranger();
    host.ek.certificate = None;
    let row = PreregisteredHost { ek_id: host.ek.id(), assignment: Lab::assignment("node-1") };
    let list = Preregistrations { hosts: vec![row] };
    let _: serde_json::Value = scene.lab.admin.post("/v1/preregistrations", &list).unwrap().read().unwrap();
    assert!(matches!(host.enrol(None), EnrolmentOutcome::Approved { .. }));
    let outcome = host.round();
    assert_eq!(errors(&outcome.findings), Vec::<String>::new());
    assert_eq!(outcome.pools.len(), 0, "genuine evidence of an unknown TPM opens no pool");
    assert!(!scene.placed(&host));
    let told = scene.standing(&host);
    assert_eq!(told.fields.tpm_class, "unverified");
    for pool in [POOL, PRODUCTION] {
        let verdict = scene.lab.verdict(pool, "node-1").unwrap();
        let unmet: Vec<_> = verdict.conditions.iter().filter(|one| !one.met).map(|one| one.id.as_str()).collect();
        assert_eq!((verdict.admitted, unmet), (false, vec!["admission.tpm-class"]), "{pool}");
    }
    scene.trusted(&scene.enrolled("node-2"));
}

#[test]
fn a12_a_software_tpm_enters_no_production_pool_whatever_its_ca_is_called() {
    let vendor = Ca::new("Infineon Technologies AG", "Infineon OPTIGA(TM) RSA Root CA 2");
    for ca in [Ca::new("Hostmark", "Software TPMs"), vendor] {
        let scene = Scene::trusting("", ca);
        let host = scene.enrolled("node-1");
        scene.trusted(&host);
        assert_eq!(scene.standing(&host).fields.tpm_class, "simulated");
        let verdict = scene.lab.verdict(PRODUCTION, "node-1").unwrap();
        let unmet: Vec<_> = verdict.conditions.iter().filter(|one| !one.met).map(|one| one.id.as_str()).collect();
        assert_eq!((verdict.admitted, unmet), (false, vec!["admission.tpm-class"]));
        let verdict = scene.lab.verdict("phi-a", "node-1").unwrap();
        assert!(!verdict.admitted && verdict.conditions.iter().any(|one| one.id == "admission.tpm-class" && !one.met));
        let placed = scene.lab.place("restricted:phi@hospital-a", 1).unwrap();
        assert!(placed.hosts.is_empty());
    }
}

#[test]
fn a28_the_service_enrols_no_ak_of_the_owner_hierarchy() {
    let scene = Scene::start("");
    let mut host = scene.stranger();
    let owner = host.tpm.qualified_signer(RH_OWNER);
    let lie = |attest: &mut AttestBuilder| attest.qualified_signer = owner;
    refused("owner hierarchy", 422, &["tls-key.signer"], &activation(&host, &host.tls, lie));
    only(&scene, &[]);
    scene.enrol(&mut host, "node-1");
    scene.trusted(&host);
}
