//! A18 and A19 against the running verifier: ids that try to write its log, and a database that somebody else writes.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use hostmark_attest::wire::{EnrolmentChallenge, HostState, RoundOutcome};
use hostmark_tests::attester::{Attester, Draft};
use hostmark_tests::client::Answer;
use hostmark_tests::forge::SoftwareKey;
use hostmark_tests::pki::Ca;
use hostmark_tests::scene::{Scene, owned, refusal};
use rcgen::DnType;
use reqwest::Method;
use rusqlite::{Connection, params};

/// What a forged log line would begin with.
const FORGED: &str = "2026-11-22T00:00:00.000000Z  INFO hostmark_verifier: host enrolled FORGED";

fn post(host: &Attester, path: &str, json: &serde_json::Value) -> Answer {
    host.stranger().post(path, json).unwrap()
}

#[test]
fn a18_ids_have_one_form_and_no_text_makes_a_second_log_line() {
    let scene = Scene::start("");
    let host = scene.enrolled("node-1");
    scene.trusted(&host);
    let id = host.identity().host.clone();
    let hostile = [
        format!("{id}\n{FORGED}"),
        format!("\u{1b}[2J{id}"),
        format!("{id}\0"),
        format!("\r\n{FORGED}"),
        id.to_uppercase(),
        format!(" {id}"),
        id.replace('-', ""),
        "../../etc/passwd".to_owned(),
        "' OR 1=1 --".to_owned(),
        String::new(),
        "a".repeat(60_000),
    ];
    let encoded = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
    for text in &hostile {
        let what = text.chars().take(60).collect::<String>();
        let check = |answer: &Answer, id: &str| {
            assert_eq!((answer.status, refusal(answer)), (400, owned(&[id])), "{what:?}: {answer}");
        };
        check(&post(&host, "/v1/renewals/challenge", &serde_json::json!({ "host": text })), "request.host");
        let mut renewal = host.renewal(&host.renewal_challenge());
        renewal.host.clone_from(text);
        check(&host.stranger().post("/v1/renewals", &renewal).unwrap(), "request.host");
        // A path is at most 16 KiB with its headers.
        if !text.is_empty() && text.len() < 1000 {
            let secret = serde_json::json!({ "secret": "" });
            check(&post(&host, &format!("/v1/enrolments/{}/certificate", encoded(text)), &secret), "request.id");
            let show = scene.lab.admin.get(&format!("/v1/hosts/{}", encoded(text))).unwrap();
            if text != &id.replace('-', "") {
                check(&show, "request.host");
            }
            let approve = serde_json::json!({ "assignment": hostmark_tests::lab::Lab::assignment("node-2") });
            check(
                &scene.lab.admin.post(&format!("/v1/hosts/{}/approve", encoded(text)), &approve).unwrap(),
                "request.host",
            );
            let mut named = approve.clone();
            named["assignment"]["node"] = text.as_str().into();
            if text != &id.replace('-', "") {
                let path = format!("/v1/hosts/{id}/approve");
                check(&scene.lab.admin.post(&path, &named).unwrap(), "request.node");
            }
        }
    }
    // 1 MB is not even read.
    let megabyte = serde_json::json!({ "host": "a".repeat(1 << 20) });
    let answer = post(&host, "/v1/renewals/challenge", &megabyte);
    assert_eq!((answer.status, refusal(&answer)), (413, owned(&["request.size"])));
    let long = host.stranger().send(Method::GET, &format!("/v1/hosts/{}", "a".repeat(1 << 20)), None);
    assert!(long.is_err() || (400..500).contains(&long.unwrap().status));

    // Text of the host's that the verifier quotes: issuer and subject of certificates, JSON keys, facts, boot ids.
    let mut evil = Ca::new("Maker", "Root");
    evil.params.distinguished_name.push(DnType::CommonName, format!("Root\n{FORGED}\u{1b}[31m"));
    let mut stranger = scene.stranger();
    let pair = rcgen::KeyPair::try_from(stranger.ek.pair.serialized_der()).unwrap();
    stranger.ek.certificate = Some(evil.issue(&pair, |_| ()));
    let answer = stranger.begin(None);
    assert_eq!((answer.status, refusal(&answer)), (422, owned(&["ek.chain"])), "{answer}");
    let answer = post(&host, "/v1/enrolments", &serde_json::json!({ format!("x\n{FORGED}"): 1 }));
    assert_eq!((answer.status, refusal(&answer)), (400, owned(&["request.malformed"])));
    let answer = post(&host, "/v1/enrolments", &serde_json::json!({ "token": format!("hmt_\n{FORGED}") }));
    assert_eq!(answer.status, 400);
    let hostile_words = |draft: &mut Draft| {
        draft.unanchored.hostd = format!("0.1\n{FORGED}");
        draft.unanchored.facts.insert(format!("k\n{FORGED}"), format!("v\n{FORGED}"));
        draft.bind();
    };
    let mut draft = host.draft(&host.challenge());
    hostile_words(&mut draft);
    let outcome: RoundOutcome = host.send(host.sign(draft).encode()).read().unwrap();
    assert_eq!(outcome.state, HostState::Proven, "what a host says of itself proves nothing and harms nothing");
    let foreign = |draft: &mut Draft| {
        draft.unanchored.boot_id = format!("b\n{FORGED}");
        draft.bind();
    };
    scene.round_refused(&host, "boot id", &["host-log.boot-id"], foreign, |_| ());

    let log = scene.lab.verifier.log();
    assert!(log.contains("enrolment refused"), "{log}");
    for line in log.lines().filter(|line| !line.starts_with("listening ")) {
        assert!(
            line.starts_with("20") && line.contains(" verifier: ") | line.contains(" hostmark_verifier::"),
            "a line of its own: {line:?}"
        );
        assert!(!line.starts_with(FORGED) && !line.chars().any(char::is_control), "{line:?}");
    }
    scene.trusted(&host);
}

#[test]
fn a19_a_swapped_row_is_refused_and_put_back_it_is_trusted_again() {
    let scene = Scene::start("");
    let (host, other) = (scene.enrolled("node-1"), scene.enrolled("node-2"));
    scene.trusted(&host);
    scene.trusted(&other);
    let database = Connection::open(scene.lab.verifier.state_dir().join("store.sqlite")).unwrap();
    database.busy_timeout(Duration::from_secs(30)).unwrap();
    let id = host.identity().host.as_str();
    let mallory = SoftwareKey::ak();
    let (ak, name) = (mallory.public.as_bytes(), mallory.public.name().as_bytes());
    let of = |one: &Attester, column: &str| -> Vec<u8> {
        let query = format!("SELECT CAST({column} AS BLOB) FROM hosts WHERE id = ?");
        database.query_row(&query, [&one.identity().host], |row| row.get(0)).unwrap()
    };
    let other_ek = other.ek.public.as_bytes();
    type Changes<'a> = &'a [(&'a str, &'a [u8])];
    let rows: [(&str, Changes<'_>); 6] = [
        ("another AK", &[("ak_public", ak), ("ak_name", name)]),
        ("another AK under the old name", &[("ak_public", ak)]),
        ("another EK", &[("ek_public", other_ek)]),
        ("another label", &[("label", b"restricted")]),
        ("another policy", &[("policy", b"server-uki")]),
        ("another node", &[("node", b"node-9")]),
    ];
    for (what, changes) in rows {
        let honest: Vec<Vec<u8>> = changes.iter().map(|(column, _)| of(&host, column)).collect();
        let write = |column: &str, value: &[u8]| {
            let text = matches!(column, "label" | "policy" | "node");
            let set = if text { "CAST(?1 AS TEXT)" } else { "?1" };
            let statement = format!("UPDATE hosts SET {column} = {set} WHERE id = ?2");
            assert_eq!(database.execute(&statement, params![value, id]).unwrap(), 1);
        };
        let challenge = host.challenge();
        for (column, value) in changes {
            write(column, value);
        }
        let asked = host.client().post("/v1/challenges", &serde_json::json!({})).unwrap();
        let sent = host.send(host.sign(host.draft(&challenge)).encode());
        // The one whose key was slipped in answers.
        let mut draft = host.draft(&challenge);
        draft.attest.qualified_signer = host.tpm.qualified_signer(hostmark_attest::tpm::name::RH_ENDORSEMENT);
        let mut evidence = host.sign(draft);
        evidence.quote.signature.0 = mallory.sign(&evidence.quote.attest.0);
        let forged = host.send(evidence.encode());
        let renewed = post(&host, "/v1/renewals/challenge", &serde_json::json!({ "host": id }));
        for answer in [asked, sent, forged, renewed] {
            assert_eq!((answer.status, refusal(&answer)), (422, owned(&["host.sealed"])), "{what}: {answer}");
        }
        assert!(!scene.placed(&host), "{what}: no permit for a host whose row was changed");
        for ((column, _), value) in changes.iter().zip(&honest) {
            write(column, value);
        }
        scene.trusted(&host);
    }

    // What was kept between rounds is sealed as well, and bound to its host.
    let kept = |one: &Attester| -> Vec<u8> {
        let id = &one.identity().host;
        database.query_row("SELECT sealed FROM host_state WHERE host = ?", [id], |row| row.get(0)).unwrap()
    };
    let (mine, others) = (kept(&host), kept(&other));
    let keep = |sealed: &[u8]| {
        database.execute("UPDATE host_state SET sealed = ? WHERE host = ?", params![sealed, id]).unwrap()
    };
    keep(&others);
    let sent = host.send(host.sign(host.draft(&host.challenge())).encode());
    assert_eq!((sent.status, refusal(&sent)), (422, owned(&["state.seal"])), "{sent}");
    keep(&mine);
    scene.trusted(&host);
    scene.trusted(&other);
    let challenge: EnrolmentChallenge = other.begin(None).read().unwrap();
    assert!(!challenge.enrolment.is_empty());
}

#[test]
fn a19_a_kept_state_that_is_deleted_is_missed() {
    let scene = Scene::start("");
    let (host, other) = (scene.enrolled("node-1"), scene.enrolled("node-2"));
    scene.trusted(&host);
    let database = Connection::open(scene.lab.verifier.state_dir().join("store.sqlite")).unwrap();
    database.busy_timeout(Duration::from_secs(30)).unwrap();
    let id = host.identity().host.as_str();
    let rows: [(&str, &str, &str); 4] = [
        ("the state", "DELETE FROM host_state WHERE host = ?", "state.missing"),
        (
            "the state and the result",
            "WITH gone(id) AS (VALUES (?)) DELETE FROM results WHERE host = (SELECT id FROM gone)",
            "state.missing",
        ),
        ("what tells of it", "UPDATE hosts SET kept_state = 0 WHERE id = ?", "host.sealed"),
        ("and put back", "UPDATE hosts SET kept_state = 1 WHERE id = ?", "state.missing"),
    ];
    database
        .execute_batch(&format!(
            "CREATE TABLE good_state AS SELECT * FROM host_state WHERE host = '{id}';
             CREATE TABLE good_results AS SELECT * FROM results WHERE host = '{id}';"
        ))
        .unwrap();
    let challenge = host.challenge();
    for (what, attack, expect) in rows {
        assert_eq!(database.execute(attack, [id]).unwrap(), 1, "{what}");
        // A round that was asked for before and one that is asked for now; a sealed row that was changed is asked for nothing.
        let mut challenges = vec![challenge.clone()];
        if expect != "host.sealed" {
            challenges.push(host.challenge());
        }
        for challenge in challenges {
            let sent = host.send(host.sign(host.draft(&challenge)).encode());
            assert_eq!((sent.status, refusal(&sent)), (422, owned(&[expect])), "{what}: {sent}");
        }
    }
    // Nobody else is hurt, a host in its first round least of all; and the backup mends it.
    scene.trusted(&other);
    database
        .execute_batch(
            "INSERT INTO host_state SELECT * FROM good_state; INSERT INTO results SELECT * FROM good_results;",
        )
        .unwrap();
    scene.trusted(&host);
}
