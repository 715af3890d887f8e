//! Rows of the attack table that a round answers, over TLS against the running verifier: each attack is refused by its exact
//! findings and grants nothing; an honest round is trusted before and after it.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use hostmark_attest::digest::{Digest, HashAlg};
use hostmark_attest::evidence::{Evidence, ImaPart};
use hostmark_attest::selection::{BankSelection, PcrSelection};
use hostmark_attest::tpm::name::RH_OWNER;
use hostmark_attest::wire::{B64, Challenge, DOMAIN_QUOTE, HostState, RoundOutcome};
use hostmark_tests::attester::{Attester, Draft};
use hostmark_tests::client::Answer;
use hostmark_tests::forge::{AttestBuilder, SoftwareKey, tpm2b};
use hostmark_tests::lab::{POLICY_NAME, shipped};
use hostmark_tests::scene::{Scene, errors, owned, refusal};
use hostmark_verifier::api::views::PublishFile;
use serde_json::Value;

const BANK: HashAlg = HashAlg::Sha256;

fn select(text: &str) -> PcrSelection {
    PcrSelection::from_text(text).unwrap()
}

/// Publishes a policy, signed by the operator; the ids that refuse it.
fn policy_refusal(scene: &Scene, toml: &str) -> Vec<String> {
    let signature = scene.lab.verifier.operator().sign_file(&hostmark_attest::policy::POLICY, toml.as_bytes()).unwrap();
    let file = PublishFile { name: POLICY_NAME.to_owned(), toml: toml.to_owned(), signature };
    let answer = scene.lab.admin.post("/v1/policies", &file).unwrap();
    assert_eq!(answer.status, 422, "{answer}");
    refusal(&answer)
}

/// Quotes another selection than was asked for, with its own values beside it.
fn quote(host: &Attester, draft: &mut Draft, selection: &PcrSelection) {
    let bound = draft.attest.extra_data.clone();
    draft.attest = host.quote(selection);
    draft.attest.extra_data = bound;
    draft.values = host.tpm.values(selection);
}

#[test]
fn a1_the_service_refuses_outside_data_signed_by_the_ak() {
    let scene = Scene::start("");
    let host = scene.enrolled("node-1");
    let magic = |draft: &mut Draft| draft.attest.magic = 0x4654_4347;
    scene.round_refused(&host, "another magic", &["quote.magic"], magic, |_| ());
    let outside = |evidence: &mut Evidence| {
        evidence.quote.attest = B64(b"outside data".to_vec());
        evidence.quote.signature = B64(host.tpm.ak.sign(b"outside data"));
    };
    scene.round_refused(&host, "outside data", &["quote.magic"], |_| (), outside);
}

#[test]
fn a1b_the_service_refuses_a_quote_signed_by_another_key() {
    let scene = Scene::start("");
    let host = scene.enrolled("node-1");
    for (what, key) in [("the TLS key", &host.tls), ("a software key", &SoftwareKey::ak())] {
        let sign = |evidence: &mut Evidence| evidence.quote.signature = B64(key.sign(&evidence.quote.attest.0));
        scene.round_refused(&host, what, &["quote.signature"], |_| (), sign);
    }
}

#[test]
fn a3_the_service_takes_a_nonce_once_from_its_host_in_its_time() {
    let scene = Scene::start("nonce_life = \"6s\"");
    let (host, other) = (scene.enrolled("node-1"), scene.enrolled("node-2"));
    let evidence = |challenge: &Challenge| host.sign(host.draft(challenge)).encode();

    let used = evidence(&host.challenge());
    assert_eq!(host.send(used.clone()).read::<RoundOutcome>().unwrap().state, HostState::Proven);
    scene.refused(&host, "used twice", 422, &["nonce.used"], || host.send(used));

    scene.refused(&host, "of another host", 422, &["nonce.other-host"], || host.send(evidence(&other.challenge())));
    scene.trusted(&other);

    let mut unknown = host.challenge();
    unknown.nonce.0[0] ^= 1;
    scene.refused(&host, "never issued", 422, &["nonce.unknown"], || host.send(evidence(&unknown)));

    let mut renewal = host.challenge();
    renewal.nonce = host.renewal_challenge().nonce;
    scene.refused(&host, "for something else", 422, &["nonce.purpose"], || host.send(evidence(&renewal)));

    let late = host.challenge();
    scene.refused(&host, "expired", 422, &["nonce.expired"], || {
        std::thread::sleep(std::time::Duration::from_millis(6100));
        host.send(evidence(&late))
    });

    // The old quote under a fresh nonce.
    let old = host.sign(host.draft(&host.challenge())).quote;
    scene.round_refused(&host, "old quote", &["quote.nonce"], |_| (), |evidence| evidence.quote = old);
}

#[test]
fn a3_evidence_for_another_policy_is_asked_for_again() {
    let scene = Scene::start("");
    let host = scene.enrolled("node-1");
    scene.trusted(&host);
    let before = scene.standing(&host).result;
    let evidence = host.sign(host.draft(&host.challenge())).encode();
    let newer = shipped("appraisal", POLICY_NAME).unwrap().replace("version = 1\n", "version = 2\n");
    scene.lab.publish_policy(POLICY_NAME, &newer).unwrap();
    let outcome: RoundOutcome = host.send(evidence.clone()).read().unwrap();
    assert_eq!((outcome.resend, errors(&outcome.findings)), (true, owned(&["round.outdated"])));
    assert_eq!((outcome.result.is_none(), &scene.standing(&host).result), (true, &before), "nothing is renewed");
    assert_eq!(refusal(&host.send(evidence)), ["nonce.used"]);
    scene.trusted(&host);
}

#[test]
fn a4_the_service_refuses_another_hosts_quote() {
    let scene = Scene::start("");
    let (host, other) = (scene.enrolled("node-1"), scene.enrolled("node-2"));
    scene.trusted(&other);
    assert_eq!(host.tpm.pcrs[&BANK], other.tpm.pcrs[&BANK], "same model, same PCR values");
    let of_other = |evidence: &mut Evidence| {
        let mut attest = other.quote(&select("sha256:0,1,2,3,4,5,6,7,8,9,10,11,12,13,14"));
        attest.extra_data = evidence.unanchored().nonce.bind(DOMAIN_QUOTE, evidence.unanchored_bytes()).to_vec();
        evidence.quote = other.signed(&attest);
    };
    scene.round_refused(&host, "host B's quote for host A", &["quote.signature"], |_| (), of_other);
    scene.trusted(&other);
}

#[test]
fn a5_the_service_wants_exactly_the_selected_pcrs_and_a_policy_that_selects_enough() {
    let scene = Scene::start("");
    let host = scene.enrolled("node-1");
    let set = |index| {
        move |evidence: &mut Evidence| {
            evidence.pcrs.get_mut(&BANK).unwrap().insert(index, Digest::zero(BANK));
        }
    };
    let remove = |index| {
        move |evidence: &mut Evidence| {
            evidence.pcrs.get_mut(&BANK).unwrap().remove(&index);
        }
    };
    scene.round_refused(&host, "value of an unselected PCR", &["quote.values-unselected"], |_| (), set(15));
    scene.round_refused(&host, "value left out", &["quote.values-missing"], |_| (), remove(7));
    let rows = [
        ("no bank", PcrSelection::default()),
        ("empty bitmap", PcrSelection::new(vec![BankSelection { bank: BANK, bitmap: 0 }])),
        ("PCR 7 left out", select("sha256:0,1,2,3,4,5,6,8,9,10,11,12,13,14")),
        ("PCR 15 besides", select("sha256:0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15")),
    ];
    for (what, selection) in rows {
        scene.round_refused(&host, what, &["quote.selection"], |draft| quote(&host, draft, &selection), |_| ());
    }

    let policy = shipped("appraisal", POLICY_NAME).unwrap().replace("version = 1", "version = 2");
    for index in 0..8 {
        let lacking = policy.replacen(&format!("{index}, "), "", 1);
        assert_eq!(policy_refusal(&scene, &lacking), ["policy.boot-pcrs"], "PCR {index}");
    }
    scene.lab.publish_policy(POLICY_NAME, &policy).unwrap();
    scene.trusted(&host);
}

#[test]
fn a6_the_service_refuses_a_split_selection_that_shifts_positions() {
    let scene = Scene::start("");
    let mut host = scene.enrolled("node-1");
    scene.trusted(&host);
    // A boot loader that nobody knows is in PCR 4; PCR 16 was reset and shows what PCR 4 should.
    let wanted = host.tpm.pcrs[&BANK][&4];
    let list = select("sha256:0,1,2,3,4,5,6,7,8,9,10,11,12,13,14");
    let truth = host.tpm.values(&list);
    host.tpm.set(BANK, 4, Digest::zero(BANK));
    host.tpm.set(BANK, 16, wanted);
    let part = |bitmap| BankSelection { bank: BANK, bitmap };
    let split = PcrSelection::new(vec![part(0b1111), part(1 << 16), part(0b0111_1111_1110_0000)]);
    let mut draft = host.draft(&host.challenge());
    quote(&host, &mut draft, &split);
    draft.values = truth;
    let answer = host.send(host.sign(draft).encode());
    scene.refused_outcome(&host, "split selection", &["quote.selection"], &answer);
    host.tpm.set(BANK, 4, wanted);
    scene.trusted(&host);
}

#[test]
fn a7_the_service_refuses_another_bank() {
    let scene = Scene::start("");
    let host = scene.enrolled("node-1");
    for list in ["sha1:0,1,2,3,4,5,6,7,8,9,10,11,12,13,14", "sha1:0+sha256:0,1,2,3,4,5,6,7,8,9,10,11,12,13,14"] {
        scene.round_refused(&host, list, &["quote.selection"], |draft| quote(&host, draft, &select(list)), |_| ());
    }
    // The values alone are called another bank's.
    let relabel = |evidence: &mut Evidence| {
        let mut sha1 = evidence.pcrs.clone();
        let values = sha1.remove(&BANK).unwrap();
        let cut = |value: &Digest| Digest::new(HashAlg::Sha1, &value.as_bytes()[..20]).unwrap();
        sha1.insert(HashAlg::Sha1, values.iter().map(|(index, value)| (*index, cut(value))).collect());
        evidence.pcrs = sha1;
    };
    let expect = ["quote.values-missing", "quote.values-unselected"];
    scene.round_refused(&host, "values of a SHA-1 bank", &expect, |_| (), relabel);
    let policy = shipped("appraisal", POLICY_NAME).unwrap().replace("version = 1", "version = 2");
    assert_eq!(policy_refusal(&scene, &policy.replace("{ sha256", "{ sha1 = [0], sha256")), ["policy.bank"]);
}

#[test]
fn a8_the_service_refuses_fallen_counters_and_wants_whole_logs_after_a_reset() {
    let scene = Scene::start("");
    let mut host = scene.enrolled("node-1");
    type Lie = fn(&mut Draft);
    let lies: [(&str, Lie); 3] = [
        ("counters.reset-fell", |draft| draft.attest.clock_info.reset_count -= 1),
        ("counters.clock-fell", |draft| draft.attest.clock_info.clock -= 1),
        ("counters.restart-fell", |draft| draft.attest.clock_info.restart_count -= 1),
    ];
    for (id, lie) in lies {
        scene.trusted(&host);
        scene.refused_outcome(&host, id, &[id], &lying(&host, lie));
        // The state that was put back begins anew with its next boot. Without one, it is another row's matter (A24).
        host.reboot();
        host.clock.restart_count = 2;
        scene.trusted(&host);
    }

    // After a reset, the rest of the old list is not taken: whole logs are asked for, and nothing is renewed meanwhile.
    let challenge = host.challenge();
    assert!(challenge.ima_from > 0);
    let before = scene.standing(&host);
    host.reboot();
    let mut draft = host.draft(&challenge);
    draft.ima.from = challenge.ima_from;
    draft.ima.list.clear();
    let outcome: RoundOutcome = host.send(host.sign(draft).encode()).read().unwrap();
    assert!(outcome.resend && outcome.result.is_none(), "{outcome:?}");
    assert_eq!(errors(&outcome.findings), ["ima.delta-after-reset"]);
    assert_eq!(scene.standing(&host).result, before.result, "trust neither ends nor grows");
    assert_eq!(host.challenge().ima_from, 0);
    scene.trusted(&host);
}

#[test]
fn b24_the_service_tells_of_a_list_beyond_the_limit_in_bounded_memory() {
    let scene = Scene::start("");
    let (host, bystander) = (scene.enrolled("node-1"), scene.enrolled("node-2"));
    scene.trusted(&bystander);
    // A tenant floods the list: more entries than a verifier reads, of the fewest bytes; and one that hostd could not send.
    let shortest = [&10u32.to_le_bytes(), [1; 20].as_slice(), &[0; 8]].concat();
    let flooded = ImaPart { from: 0, list: shortest.repeat(1_000_001), left_out: 0 };
    let unsent = ImaPart { from: 0, list: Vec::new(), left_out: 64 << 20 };
    for ima in [flooded, unsent] {
        scene.round_refused(&host, "a flooded list", &["ima.too-long"], |draft| draft.ima = ima, |_| ());
    }
    scene.trusted(&bystander);
    let status = format!("/proc/{}/status", scene.lab.verifier.process().unwrap().pid());
    let status = std::fs::read_to_string(status).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    // The body, what is parsed of it, and what the verifier keeps of its evidence: a few times the largest body.
    assert!(peak < 400_000, "{peak} kB");
}

/// The answer to a round whose quote lies.
fn lying(host: &Attester, lie: impl FnOnce(&mut Draft)) -> Answer {
    let mut draft = host.draft(&host.challenge());
    lie(&mut draft);
    host.send(host.sign(draft).encode())
}

/// Boots the next boot after that many resets, with the counters that the TPM has.
fn boots_as(host: &mut Attester, resets: u32) {
    let clock = host.clock;
    host.clock.reset_count = resets;
    host.reboot();
    host.clock = clock;
}

#[test]
fn a24_two_machines_with_one_tpm_lose_their_permits_until_a_person_looks() {
    let scene = Scene::start("");
    let bystander = scene.enrolled("node-0");
    scene.trusted(&bystander);
    let suspicions = |host: &Attester| -> Vec<Value> {
        let all: Vec<Value> = scene.lab.admin.get("/v1/audit?since=0").unwrap().read().unwrap();
        let is =
            |one: &&Value| one["action"] == "host.clone-suspected" && one["subject"] == host.identity().host.as_str();
        all.iter().filter(is).cloned().collect()
    };

    // A copy of the running machine, whose clock is behind; and one that was booted by itself, in the same reset of the same state.
    type Copy = (&'static str, fn(&mut Attester), fn(&mut Attester), &'static str, &'static [&'static str]);
    let copies: [Copy; 2] = [
        (
            "node-1",
            |host| host.clock.clock -= 50_000,
            |host| host.clock.clock += 60_000,
            "counters.clock-fell",
            &["counters.clock-fell", "counters.clone-suspected"],
        ),
        (
            "node-2",
            |host| boots_as(host, 98),
            |host| {
                let before = host.clock.reset_count - 1;
                boots_as(host, before);
            },
            "host-log.boot-changed",
            &["counters.clone-suspected"],
        ),
    ];
    for (node, to_copy, to_original, first, then) in copies {
        let mut host = scene.enrolled(node);
        scene.trusted(&host);
        to_copy(&mut host);
        // Whatever a copy is asked to send again, it sends.
        let answer = lying(&host, |_| ());
        let resent = answer.read::<RoundOutcome>().unwrap().resend;
        scene.refused_outcome(&host, node, &[first], &if resent { lying(&host, |_| ()) } else { answer });
        assert!(suspicions(&host).is_empty(), "{node}: one answer may be a state that was put back");
        to_original(&mut host);
        scene.refused_outcome(&host, node, &["counters.clone-suspected"], &lying(&host, |_| ()));
        to_copy(&mut host);
        scene.refused_outcome(&host, node, then, &lying(&host, |_| ()));
        to_original(&mut host);
        host.reboot();
        scene.refused_outcome(
            &host,
            "a boot brings nothing back",
            &["counters.clone-suspected"],
            &lying(&host, |_| ()),
        );
        // Neither gets another certificate; a bystander does.
        let renewed = |host: &Attester| {
            let challenge = host.renewal_challenge();
            host.stranger().post("/v1/renewals", &host.renewal(&challenge)).unwrap()
        };
        assert_eq!(refusal(&renewed(&host)), ["renewal.clone-suspected"]);
        assert_eq!(renewed(&bystander).status, 200);
        let told = scene.standing(&host);
        let shown = told.refused.iter().find(|one| one.id == "counters.clone-suspected").expect("explained");
        assert!(shown.fix.as_ref().is_some_and(|fix| fix.contains("host retire")), "{shown:?}");
        assert_eq!(suspicions(&host).len(), 1, "{node}: told once in the audit");
        scene.trusted(&bystander);

        // A person retires the host, and enrols the machine with a new TPM.
        let retire = format!("/v1/hosts/{}/retire", host.identity().host);
        assert_eq!(scene.lab.admin.post(&retire, &serde_json::json!({})).unwrap().status, 204);
        scene.trusted(&scene.enrolled(node));
    }
}

#[test]
fn a24_an_answer_that_was_held_back_tells_nothing_of_its_host() {
    let scene = Scene::start("");
    let mut host = scene.enrolled("node-1");
    // The evidence of a first challenge is held back on its way, and that of a second one is recorded meanwhile.
    let first = host.challenge();
    let held_back = host.sign(host.draft(&first)).encode();
    let again = |host: &mut Attester| {
        host.clock.clock += 1_000;
        scene.refused(host, "held back", 422, &["nonce.superseded"], || host.send(held_back.clone()));
    };
    again(&mut host);
    again(&mut host);
    let all: Vec<Value> = scene.lab.admin.get("/v1/audit?since=0").unwrap().read().unwrap();
    assert!(all.iter().all(|one| !one["action"].as_str().unwrap().starts_with("host.clone")), "{all:?}");
    // Honest twins: a challenge that was never answered ends no other, and an older one counts while no later round is recorded.
    let (first, second) = (host.challenge(), host.challenge());
    for challenge in [first, second] {
        host.clock.clock += 1_000;
        let outcome: RoundOutcome = host.send(host.sign(host.draft(&challenge)).encode()).read().unwrap();
        assert_eq!((outcome.state, errors(&outcome.findings)), (HostState::Proven, Vec::new()));
    }
    scene.trusted(&host);
}

#[test]
fn a24_a_copy_that_is_reset_before_each_of_its_answers_is_suspected() {
    let scene = Scene::start("");
    let mut host = scene.enrolled("node-1");
    scene.trusted(&host);
    let original = host.clock.reset_count;
    let boot = |host: &mut Attester, reset_count: u32| {
        host.clock.clock += 1_000;
        host.clock.reset_count = reset_count - 1;
        host.reboot();
    };
    for copy in [original + 1, original + 2] {
        boot(&mut host, copy);
        scene.trusted(&host);
        boot(&mut host, original);
        let expect: &[&str] = match copy - original {
            1 => &["counters.reset-fell"],
            _ => &["counters.clone-suspected", "counters.reset-fell"],
        };
        scene.refused_outcome(&host, "the original", expect, &lying(&host, |_| ()));
    }
    boot(&mut host, original + 3);
    scene.refused_outcome(&host, "the copy", &["counters.clone-suspected"], &lying(&host, |_| ()));

    // Honest twin: an earlier boot that was put back once is refused, and trusted from its next boot on.
    let mut host = scene.enrolled("node-2");
    scene.trusted(&host);
    boot(&mut host, original + 1);
    scene.trusted(&host);
    boot(&mut host, original);
    for _ in 0..2 {
        host.clock.clock += 1_000;
        scene.refused_outcome(&host, "put back", &["counters.reset-fell"], &lying(&host, |_| ()));
    }
    boot(&mut host, original + 2);
    scene.trusted(&host);
    host.clock.clock += 1_000;
    scene.trusted(&host);
}

#[test]
fn a15_the_service_takes_qualifying_data_and_nonces_in_one_form() {
    let scene = Scene::start("");
    let host = scene.enrolled("node-1");
    type Change = fn(Vec<u8>) -> Vec<u8>;
    let lies: [(&str, Change); 6] = [
        ("padded", |data| [data.as_slice(), &[0]].concat()),
        ("prefixed", |data| [&[0], data.as_slice()].concat()),
        ("truncated", |data| data[..31].to_vec()),
        ("empty", |_| Vec::new()),
        ("in hex", |data| hex::encode(data).into_bytes()),
        ("twice", |data| data.repeat(2)),
    ];
    for (what, change) in lies {
        let lie = |draft: &mut Draft| draft.attest.extra_data = change(draft.attest.extra_data.clone());
        scene.round_refused(&host, what, &["quote.nonce"], lie, |_| ());
    }
    let raw = |draft: &mut Draft| draft.attest.extra_data = draft.unanchored.nonce.0.to_vec();
    scene.round_refused(&host, "the bare nonce", &["quote.nonce"], raw, |_| ());

    // The same nonce in another encoding: longer CBOR heads, other lengths; upper-case hex where it travels in JSON.
    let body = host.sign(host.draft(&host.challenge())).encode();
    let at = |body: &[u8], part: &[u8]| body.windows(part.len()).position(|one| one == part).unwrap();
    let start = at(&body, b"enonce\x58\x20");
    let longer = [&body[..start + 6], &[0x59, 0], &body[start + 7..]].concat();
    let short = [&body[..start + 7], &[0x1f], &body[start + 9..]].concat();
    for (what, lie) in [("longer head", longer), ("31 bytes", short), ("trailing", [body.as_slice(), &[0]].concat())] {
        scene.refused(&host, what, 400, &["evidence.malformed"], || host.send(lie));
    }
    let challenge = host.renewal_challenge();
    let renewal = serde_json::to_string(&host.renewal(&challenge)).unwrap();
    let nonce = challenge.nonce.to_string();
    for lie in [nonce.to_uppercase(), format!("{nonce}00"), nonce[..62].to_owned(), format!(" {nonce}")] {
        let body = renewal.replace(&nonce, &lie).into_bytes();
        let post = |body| host.stranger().send(reqwest::Method::POST, "/v1/renewals", Some(("application/json", body)));
        let answer = post(body).unwrap();
        assert_eq!((answer.status, refusal(&answer)), (400, vec!["request.malformed".to_owned()]), "{lie}");
    }
    let answer = host.stranger().post("/v1/renewals", &serde_json::from_str::<serde_json::Value>(&renewal).unwrap());
    assert_eq!(answer.unwrap().status, 200, "the honest twin: nothing of it was used up");
}

#[test]
fn a17_the_service_refuses_relabelled_and_changed_values() {
    let scene = Scene::start("");
    let mut host = scene.enrolled("node-1");
    // PCR 23 holds what PCR 10 should and is quoted in its place; the unsigned part calls it 10.
    let wanted = host.tpm.pcrs[&BANK][&10];
    host.tpm.set(BANK, 23, wanted);
    let list = select("sha256:0,1,2,3,4,5,6,7,8,9,11,12,13,14,23");
    let lie = |draft: &mut Draft| {
        quote(&host, draft, &list);
        let values = draft.values.get_mut(&BANK).unwrap();
        let value = values.remove(&23).unwrap();
        values.insert(10, value);
    };
    scene.round_refused(&host, "PCR 23 as 10", &["quote.selection"], lie, |_| ());
    let moved = |evidence: &mut Evidence| {
        let values = evidence.pcrs.get_mut(&BANK).unwrap();
        let value = values.remove(&10).unwrap();
        values.insert(23, value);
    };
    let expect = ["quote.values-missing", "quote.values-unselected"];
    scene.round_refused(&host, "10 as 23", &expect, |_| (), moved);
    let changed = |evidence: &mut Evidence| {
        evidence.pcrs.get_mut(&BANK).unwrap().insert(7, Digest::zero(BANK));
    };
    scene.round_refused(&host, "another value", &["quote.pcr-digest"], |_| (), changed);
}

#[test]
fn a20_the_service_takes_no_other_attestation_for_a_quote() {
    let scene = Scene::start("");
    let host = scene.enrolled("node-1");
    type Make = fn(&Attester, &[u8]) -> AttestBuilder;
    let kinds: [(&str, Make); 2] = [
        ("CERTIFY", |host, bound| host.tpm.certify(&host.tls.public, bound)),
        ("NV", |host, bound| host.tpm.nv_certify(host.tls.public.name().as_bytes(), 0, b"tag", bound)),
    ];
    for (what, make) in kinds {
        let lie = |draft: &mut Draft| {
            draft.attest = make(&host, &draft.attest.extra_data);
            draft.attest.clock_info = host.clock;
        };
        scene.round_refused(&host, what, &["quote.type"], lie, |_| ());
    }
    let renewal = |answer: Answer| (answer.status, refusal(&answer));
    let challenge = host.renewal_challenge();
    let mut reversed = host.renewal(&challenge);
    std::mem::swap(&mut reversed.quote, &mut reversed.certification);
    let answer = host.stranger().post("/v1/renewals", &reversed).unwrap();
    assert_eq!(renewal(answer), (422, vec!["quote.type".to_owned()]));
    let mut reversed = host.renewal(&challenge);
    reversed.certification = reversed.quote.clone();
    let answer = host.stranger().post("/v1/renewals", &reversed).unwrap();
    assert_eq!(renewal(answer), (422, vec!["tls-key.type".to_owned()]));
    assert_eq!(host.stranger().post("/v1/renewals", &host.renewal(&challenge)).unwrap().status, 200, "honest");
}

#[test]
fn a23_the_service_refuses_sha1_and_foreign_schemes() {
    let scene = Scene::start("");
    let host = scene.enrolled("node-1");
    let hash = |id| move |evidence: &mut Evidence| evidence.quote.signature.0[3] = id;
    scene.round_refused(&host, "SHA-1 in the signature", &["quote.sha1"], |_| (), hash(0x04));
    scene.round_refused(&host, "SHA-384 in the signature", &["quote.algorithm"], |_| (), hash(0x0c));
    let rsa = |evidence: &mut Evidence| {
        evidence.quote.signature = B64([&[0x00, 0x14, 0x00, 0x0b], tpm2b(&[1; 256]).as_slice()].concat());
    };
    scene.round_refused(&host, "an RSA signature", &["quote.algorithm"], |_| (), rsa);
}

#[test]
fn a28_the_service_refuses_a_quote_of_the_owner_hierarchy() {
    let scene = Scene::start("");
    let host = scene.enrolled("node-1");
    let owner = |draft: &mut Draft| draft.attest.qualified_signer = host.tpm.qualified_signer(RH_OWNER);
    scene.round_refused(&host, "owner hierarchy", &["quote.signer"], owner, |_| ());
    let nothing = |draft: &mut Draft| draft.attest.qualified_signer.clear();
    scene.round_refused(&host, "no signer", &["quote.signer"], nothing, |_| ());
}
