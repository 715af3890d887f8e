//! A16, A20 and A22 over TLS against the running verifier: evidence that is absent, and asset tags that are not this host's own.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use hostmark_attest::evidence::{Evidence, TagEvidence};
use hostmark_attest::identity::nv::{NvPublic, TAG_ATTRIBUTES, TAG_ATTRIBUTES_DEFINED};
use hostmark_attest::policy::POLICY;
use hostmark_attest::tpm::attest::AttestType;
use hostmark_attest::wire::{B64, Nonce};
use hostmark_tests::attester::{Attester, Draft};
use hostmark_tests::client::Answer;
use hostmark_tests::forge::{nv_info, tpm2b};
use hostmark_tests::lab::{POLICY_NAME, shipped};
use hostmark_tests::operator::OperatorKey;
use hostmark_tests::scene::{Scene, owned, refusal};
use hostmark_verifier::api::types::SetTag;
use hostmark_verifier::api::views::PublishFile;

fn set_tag(scene: &Scene, host: &Attester, nv: &[u8]) -> Answer {
    let path = format!("/v1/hosts/{}/tag", host.identity().host);
    scene.lab.admin.post(&path, &SetTag { nv: B64(nv.to_vec()) }).unwrap()
}

#[test]
fn a16_absent_evidence_is_never_taken_for_unconfigured() {
    let scene = Scene::start("");
    let host = scene.enrolled("node-1");
    type Row = (&'static str, fn(&mut Evidence), &'static [&'static str]);
    let rows: [Row; 3] = [
        ("no boot log", |evidence| evidence.boot_log.clear(), &["boot.malformed"]),
        ("no host log", |evidence| evidence.host_log.clear(), &["host-log.empty"]),
        ("no IMA list", |evidence| (evidence.ima.from, evidence.ima.list) = (0, Vec::new()), &["ima.replay"]),
    ];
    for (what, change, expect) in rows {
        scene.round_refused(&host, what, expect, |_| (), change);
    }
    let unmeasured = |draft: &mut Draft| {
        draft.unanchored.manifest.clear();
        draft.bind();
    };
    scene.round_refused(&host, "no manifest", &["engine.manifest-unlogged"], unmeasured, |_| ());

    let policy = shipped("appraisal", POLICY_NAME).unwrap().replace("version = 1", "version = 2");
    let rows = [
        ("policy.ima-pcr", policy.replace("10, 11", "11")),
        ("policy.host-log-pcr", policy.replace("12, 13,", "12,")),
        ("policy.resettable-pcr", policy.replace("13, 14", "13, 14, 16")),
    ];
    for (id, toml) in rows {
        let signature = scene.lab.verifier.operator().sign_file(&POLICY, toml.as_bytes()).unwrap();
        let file = PublishFile { name: POLICY_NAME.to_owned(), toml, signature };
        scene.refused(&host, id, 422, &[id], || scene.lab.admin.post("/v1/policies", &file).unwrap());
    }
    scene.lab.publish_policy(POLICY_NAME, &policy).unwrap();
    scene.trusted(&host);
}

#[test]
fn a22_the_service_takes_a_tag_only_from_its_own_index_of_its_own_tpm() {
    let scene = Scene::start("");
    let (mut host, other) = (scene.enrolled("node-1"), scene.enrolled("node-2"));
    let operator = scene.lab.verifier.operator();
    let (first, second) = (host.sign_tag(operator, 1, |_| ()), host.sign_tag(operator, 2, |_| ()));
    assert_eq!(set_tag(&scene, &host, &first).status, 204);
    host.tag = Some(first.clone());
    scene.trusted(&host);
    let verdict = scene.lab.verdict("phi-a", "node-1").unwrap();
    assert!(verdict.conditions.iter().any(|one| one.id == "admission.location" && one.met), "the tag proves a place");

    let index = NvPublic::of_tag(u16::try_from(first.len()).unwrap());
    let of_index = |change: fn(&mut NvPublic)| {
        let mut index = index.clone();
        change(&mut index);
        let (host, first) = (&host, &first);
        move |nonce: &Nonce| host.held_tag_in(&index, nonce, first, |_| ())
    };
    let redefined = of_index(|index| index.attributes = TAG_ATTRIBUTES | (1 << 2));
    let unwritten = of_index(|index| index.attributes = TAG_ATTRIBUTES_DEFINED);
    let with_policy = of_index(|index| index.auth_policy = vec![7; 32]);
    let elsewhere = of_index(|index| index.index += 1);
    let larger = of_index(|index| index.data_size += 8);
    // The Name of one index beside the public area of another.
    let two = |nonce: &Nonce| TagEvidence { nv_public: index.to_bytes(), ..elsewhere(nonce) };
    let name = hostmark_attest::tpm::name::Name::of(index.name_alg, &index.to_bytes()).unwrap();
    let offset =
        |nonce: &Nonce| host.held_tag(nonce, &first, |attest| attest.body = nv_info(name.as_bytes(), 8, &first));
    let part = |nonce: &Nonce| {
        host.held_tag(nonce, &first, |attest| attest.body = nv_info(name.as_bytes(), 0, &first[..first.len() - 8]))
    };
    let contents = |nonce: &Nonce| {
        host.held_tag(nonce, &first, |attest| attest.body = nv_info(name.as_bytes(), 0, &vec![0; first.len()]))
    };
    let digest_form = |nonce: &Nonce| {
        host.held_tag(nonce, &first, |attest| {
            attest.kind = AttestType::Other(0x801c);
            attest.body = [tpm2b(name.as_bytes()), tpm2b(&[7; 32])].concat();
        })
    };
    let foreign = other.sign_tag(operator, 9, |_| ());
    let others = |nonce: &Nonce| host.held_tag(nonce, &foreign, |_| ());
    let others_tpm = |nonce: &Nonce| other.held_tag(nonce, &first, |_| ());
    let old_nonce = |_: &Nonce| host.held_tag(&Nonce([1; 32]), &first, |_| ());
    let mallory = host.sign_tag(&OperatorKey::generate().unwrap(), 3, |_| ());
    let unknown_key = |nonce: &Nonce| host.held_tag(nonce, &mallory, |_| ());
    let mut edited = first.clone();
    let at = edited.windows(8).position(|one| one == b"internal").unwrap();
    edited[at..at + 8].copy_from_slice(b"interna1");
    let relabelled = |nonce: &Nonce| host.held_tag(nonce, &edited, |_| ());
    let quote = |nonce: &Nonce| {
        host.held_tag(nonce, &first, |attest| {
            let bound = attest.extra_data.clone();
            *attest = host.quote(&hostmark_attest::selection::PcrSelection::from_text("sha256:0").unwrap());
            attest.extra_data = bound;
        })
    };
    let certify = |nonce: &Nonce| {
        host.held_tag(nonce, &first, |attest| *attest = host.tpm.certify(&host.tls.public, &attest.extra_data))
    };
    type Lie<'a> = &'a dyn Fn(&Nonce) -> TagEvidence;
    let rows: [(&str, Lie<'_>, &[&str]); 17] = [
        ("index redefined by the owner", &redefined, &["tag.index"]),
        ("index never written", &unwritten, &["tag.index"]),
        ("index with a policy", &with_policy, &["tag.index"]),
        ("another index", &elsewhere, &["tag.index"]),
        ("two indices", &two, &["tag.index"]),
        ("larger index", &larger, &["tag.offset"]),
        ("partial offset", &offset, &["tag.offset"]),
        ("a part", &part, &["tag.contents", "tag.offset"]),
        ("other contents", &contents, &["tag.contents"]),
        ("digest form", &digest_form, &["tag.digest-form", "tag.type"]),
        ("another EK's tag", &others, &["tag.ek"]),
        ("certified by another TPM", &others_tpm, &["tag.signature"]),
        ("an old certification", &old_nonce, &["tag.nonce"]),
        ("a key that nobody trusts", &unknown_key, &["tag.provisioning.key"]),
        ("edited payload", &relabelled, &["tag.provisioning.signature"]),
        ("a quote (A20)", &quote, &["tag.type"]),
        ("a key's certification (A20)", &certify, &["tag.type"]),
    ];
    for (what, lie, expect) in rows {
        let lie = |draft: &mut Draft| {
            draft.unanchored.tag = Some(lie(&draft.unanchored.nonce));
            draft.bind();
        };
        scene.round_refused(&host, what, expect, lie, |_| ());
    }

    // A newer tag was written and seen: the older one is refused from then on, by the host's rounds and by the operator's route.
    assert_eq!(set_tag(&scene, &host, &second).status, 204);
    let old = host.challenge();
    assert_eq!(old.tag.unwrap().nv.0, second, "the challenge brings the newer tag");
    host.tag = Some(second);
    let lie = |draft: &mut Draft| {
        draft.unanchored.tag = Some(host.held_tag(&draft.unanchored.nonce, &first, |_| ()));
        draft.bind();
    };
    scene.round_refused(&host, "an older serial", &["tag.serial"], lie, |_| ());
    let answer = set_tag(&scene, &host, &first);
    assert_eq!((answer.status, refusal(&answer)), (409, owned(&["tag.serial"])));
    for (what, nv, id) in [("another EK's", &foreign, "tag.ek"), ("unknown key", &mallory, "tag.provisioning.key")] {
        let answer = set_tag(&scene, &host, nv);
        assert_eq!((answer.status, refusal(&answer)), (422, owned(&[id])), "{what}");
    }
    scene.trusted(&host);
    scene.trusted(&other);
}
