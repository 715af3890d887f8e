//! Trust is a lease (law 2), held against hosts in software over the wire: when it ends, what ends it sooner, what a restart or a
//! second verifier changes, and that no host is given what another one proved (D1, D2, D14, D21, A27).
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use hostmark_attest::wire::{B64, EnrolmentChallenge, EnrolmentOutcome, EnrolmentRequest, HostState, RoundOutcome};
use hostmark_tests::attester::Attester;
use hostmark_tests::client::{Answer, Client, Credentials};
use hostmark_tests::lab::{LABEL, Lab, POLICY_NAME, POOL, reference_boot, shipped, shipped_files};
use hostmark_tests::operator::capture_references;
use hostmark_tests::process::run;
use hostmark_tests::scene::{Scene, errors};
use hostmark_tests::wait::until;
use hostmark_verifier::api::types::{Host, PreregisteredHost, Preregistrations, Standing};
use hostmark_verifier::api::views::{ApplyPools, Placed, PlacementResponse};
use hostmark_verifier::keys::Keys;
use reqwest::Method;
use serde_json::{Value, json};

/// Longer than anything here takes on a loaded machine.
const LONG: Duration = Duration::from_secs(60);
/// A lease that ends while a test watches.
const SHORT: Duration = Duration::from_secs(6);

/// Only the laboratory's pool, changed by `edit`.
fn pool(edit: impl Fn(&str) -> String) -> ApplyPools {
    let mut pools = shipped_files("pools").unwrap();
    pools.retain(|file| file.name == POOL);
    pools[0].toml = edit(&pools[0].toml);
    let mut admission = shipped_files("admission").unwrap();
    admission.retain(|file| file.name == POOL);
    ApplyPools { pools, admission, dry_run: false }
}

fn apply(scene: &Scene, edit: impl Fn(&str) -> String) {
    let _: Value = scene.lab.admin.post("/v1/pools", &pool(edit)).unwrap().read().unwrap();
}

fn lease(text: &'static str) -> impl Fn(&str) -> String {
    move |toml| toml.replace("lease = \"60s\"", &format!("lease = \"{text}\""))
}

fn place(client: &Client) -> PlacementResponse {
    client.post("/v1/placements", &json!({ "label": LABEL, "count": 100 })).unwrap().read().unwrap()
}

fn placed_on(client: &Client, host: &Attester) -> Option<Placed> {
    place(client).hosts.into_iter().find(|one| one.host == host.identity().host)
}

fn state(scene: &Scene, host: &Attester) -> HostState {
    scene.standing(host).fields.state
}

/// Sends a round that the AK did not sign.
fn lie(host: &Attester) -> RoundOutcome {
    let mut evidence = host.sign(host.draft(&host.challenge()));
    evidence.quote.signature = B64(host.tls.sign(&evidence.quote.attest.0));
    host.send(evidence.encode()).read().unwrap()
}

fn database(scene: &Scene) -> rusqlite::Connection {
    let sql = rusqlite::Connection::open(scene.lab.verifier.state_dir().join("store.sqlite")).unwrap();
    sql.busy_timeout(Duration::from_secs(10)).unwrap();
    sql
}

fn sequence(scene: &Scene, host: &Attester) -> i64 {
    let id = &host.identity().host;
    database(scene).query_row("SELECT sequence FROM results WHERE host = ?", [id], |row| row.get(0)).unwrap()
}

#[test]
fn d19_a_permit_ends_exactly_a_lease_after_the_nonces_issue() {
    let scene = Scene::start("");
    apply(&scene, lease("6s"));
    let host = scene.enrolled("node-1");
    let before = Instant::now();
    let challenge = host.challenge();
    let issued = Instant::now();
    let outcome: RoundOutcome = host.send(host.sign(host.draft(&challenge)).encode()).read().unwrap();
    assert_eq!(outcome.state, HostState::Proven, "{:?}", errors(&outcome.findings));
    let asked = Instant::now();
    let placed = placed_on(&scene.lab.admin, &host).expect("a proven host gets a permit");
    let answered = Instant::now();
    // What the permit says: never later than the lease allows, and no shorter than it must be.
    let left = Duration::from_millis(placed.remaining_ms);
    let slack = Duration::from_millis(2);
    assert!(asked + left <= issued + SHORT + slack, "the permit outlives the lease");
    assert!(answered + left + slack >= before + SHORT, "the permit is shorter than the lease");
    let permit = scene.lab.verifier.state_dir().join("permit");
    std::fs::write(&permit, &placed.permit).unwrap();
    let keys: Value = scene.lab.admin.get("/v1/keys").unwrap().read().unwrap();
    let jwks = scene.lab.verifier.state_dir().join("keys.json");
    std::fs::write(&jwks, keys.to_string()).unwrap();
    let judge = || {
        let mut command = scene.lab.verifier.hostmark_command().unwrap();
        command.args(["--output", "json", "verify", "permit"]).arg(&permit).arg("--keys").arg(&jwks);
        run(command.args(["--node", "node-1", "--pool", POOL])).unwrap()
    };
    let honest = judge();
    assert_eq!(honest.code, Some(0), "honest: {honest}");

    // What the verifier does: yes until the end, no from then on.
    let (no, _) = until("placements refuse", LONG, || {
        let asked = Instant::now();
        let yes = placed_on(&scene.lab.admin, &host).is_some();
        assert!(!yes || asked < issued + SHORT + slack, "a permit after the lease's end");
        Ok((!yes).then(Instant::now))
    })
    .unwrap();
    assert!(no + slack >= before + SHORT, "refused before the lease's end");
    assert_eq!(state(&scene, &host), HostState::Lapsed);
    let listed: Vec<Host> = scene.lab.admin.get("/v1/hosts").unwrap().read().unwrap();
    assert_eq!(listed[0].state, Standing::Lapsed);
    let unmet = place(&scene.lab.admin).refused;
    assert!(unmet.iter().any(|one| !one.unmet.is_empty()), "{unmet:?}");
    let finished = judge();
    assert_eq!(
        (finished.code, finished.json().unwrap()["findings"][0]["id"].as_str()),
        (Some(1), Some("permit.expired"))
    );
    // And it comes back without hands.
    assert_eq!(host.round().state, HostState::Proven);
    assert!(placed_on(&scene.lab.admin, &host).is_some());
}

#[test]
fn law_2_maintenance_modes_and_changed_rules_count_at_once() {
    let scene = Scene::start("");
    let admin = &scene.lab.admin;
    let host = scene.enrolled("node-1");
    scene.trusted(&host);
    let path = format!("/v1/hosts/{}/maintenance", host.identity().host);

    assert_eq!(admin.post(&path, &json!({ "for": "1h" })).unwrap().status, 204);
    assert_eq!((state(&scene, &host), scene.placed(&host)), (HostState::Maintenance, false));
    let outcome = host.round();
    assert_eq!((outcome.state, outcome.pools.len()), (HostState::Maintenance, 0), "a round does not end maintenance");
    assert_eq!(admin.post(&path, &json!({})).unwrap().status, 204);
    scene.trusted(&host);

    // Observed: told, without effect.
    apply(&scene, |toml| toml.replace("\"enforce\"", "\"observe\""));
    let outcome = host.round();
    assert_eq!((outcome.state, outcome.pools.len()), (HostState::Proven, 0));
    assert!(scene.lab.verdict(POOL, "node-1").unwrap().admitted && !scene.placed(&host));
    apply(&scene, str::to_owned);
    assert!(scene.placed(&host));

    // Another rule of the pool: without a new round.
    apply(&scene, |toml| toml.replace("\"internal\"", "\"restricted\""));
    assert!(!scene.placed(&host));
    apply(&scene, str::to_owned);
    assert!(scene.placed(&host));
    apply(&scene, lease("3s"));
    until("a shorter lease counts for what was proven before", LONG, || Ok((!scene.placed(&host)).then_some(())))
        .unwrap();
    apply(&scene, str::to_owned);

    // Another clearance.
    let label = format!("/v1/hosts/{}/label", host.identity().host);
    assert_eq!(admin.post(&label, &json!({ "label": "public" })).unwrap().status, 204);
    assert!(!scene.placed(&host), "a host below the pool's label");
    assert_eq!(admin.post(&label, &json!({ "label": LABEL })).unwrap().status, 204);
    scene.trusted(&host);

    // Other references and another policy: files that earlier ones judged are judged again, from the first entry on.
    assert!(host.challenge().ima_from > 0, "honest: the list goes on");
    let references = capture_references(&reference_boot().unwrap(), 2).unwrap();
    scene.lab.publish_references(POLICY_NAME, &references).unwrap();
    assert_eq!(host.challenge().ima_from, 0, "all files are judged again");
    scene.trusted(&host);
    assert!(host.challenge().ima_from > 0);
    let policy = shipped("appraisal", POLICY_NAME).unwrap();
    let version: u64 = policy.lines().find_map(|line| line.strip_prefix("version = ")).unwrap().parse().unwrap();
    let newer = policy.replace(&format!("version = {version}"), &format!("version = {}", version + 1));
    scene.lab.publish_policy(POLICY_NAME, &newer).unwrap();
    assert_eq!(host.challenge().ima_from, 0);
    scene.trusted(&host);
}

#[test]
fn law_2_a_restart_keeps_what_was_proven_in_this_boot_and_nothing_of_another() {
    let mut scene = Scene::start("");
    let (good, bad) = (scene.enrolled("node-1"), scene.enrolled("node-2"));
    scene.trusted(&good);
    assert_eq!(lie(&bad).state, HostState::Disproven);
    scene.lab.verifier.kill();
    scene.lab.verifier.restart().unwrap();
    assert_eq!((state(&scene, &good), state(&scene, &bad)), (HostState::Proven, HostState::Disproven));
    assert!(scene.placed(&good) && !scene.placed(&bad));

    // The same machine after a boot: its boot times mean nothing now. The seal is the verifier's own.
    scene.lab.verifier.kill();
    let keys = Keys::load(&scene.lab.verifier.state_dir()).unwrap();
    let sql = database(&scene);
    let id = &good.identity().host;
    let row =
        "SELECT state, result, issued_boot_ms, issued_unix_ms, sequence, boot_id, seal FROM results WHERE host = ?";
    type Row = (String, String, i64, i64, u64, String, Vec<u8>);
    let (state_was, result, boot_ms, unix_ms, number, boot, seal): Row = sql
        .query_row(row, [id], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?, r.get(5)?, r.get(6)?)))
        .unwrap();
    let sealed = |boot: &str| {
        let (boot_ms, unix_ms, number) = (boot_ms.to_be_bytes(), unix_ms.to_be_bytes(), number.to_be_bytes());
        let parts: [&[u8]; 7] =
            [id.as_bytes(), state_was.as_bytes(), result.as_bytes(), boot.as_bytes(), &boot_ms, &unix_ms, &number];
        let mut message = b"result".to_vec();
        for part in parts {
            message.extend_from_slice(&u64::try_from(part.len()).unwrap().to_be_bytes());
            message.extend_from_slice(part);
        }
        keys.seal_row(&message)
    };
    assert_eq!(sealed(&boot), seal, "this test knows the seal's form");
    let other = "11111111-2222-4333-8444-555555555555";
    sql.execute("UPDATE results SET boot_id = ?, seal = ? WHERE host = ?", rusqlite::params![other, sealed(other), id])
        .unwrap();
    drop(sql);
    scene.lab.verifier.restart().unwrap();
    assert_eq!((state(&scene, &good), scene.placed(&good)), (HostState::Lapsed, false));
    scene.trusted(&good);
}

#[test]
fn a19_a_result_that_is_changed_in_the_database_is_nobodys_proof() {
    let scene = Scene::start("");
    apply(&scene, lease("6s"));
    let (good, bad) = (scene.enrolled("node-1"), scene.enrolled("node-2"));
    let (mine, theirs) = (good.identity().host.clone(), bad.identity().host.clone());
    assert_eq!((good.round().state, lie(&bad).state), (HostState::Proven, HostState::Disproven));
    let attacks = [
        (
            "a later nonce",
            format!("UPDATE results SET issued_boot_ms = issued_boot_ms + 4000 WHERE host = '{mine}'"),
            &good,
        ),
        ("another boot", format!("UPDATE results SET boot_id = 'x' WHERE host = '{mine}'"), &good),
        ("good after all", format!("UPDATE results SET state = 'proven' WHERE host = '{theirs}'"), &bad),
        (
            "another host's proof",
            format!(
                "UPDATE results SET (state, result, boot_id, issued_boot_ms, issued_unix_ms, sequence, seal) = (SELECT state, result, \
                 boot_id, issued_boot_ms, issued_unix_ms, sequence, seal FROM results WHERE host = '{mine}') WHERE host = '{theirs}'"
            ),
            &bad,
        ),
        ("malformed", format!("UPDATE results SET sequence = -1 WHERE host = '{theirs}'"), &bad),
    ];
    for (what, statement, host) in attacks {
        assert_eq!(good.round().state, HostState::Proven);
        assert_eq!(database(&scene).execute(&statement, []).unwrap(), 1, "{what}");
        let told = scene.standing(host);
        let ids: Vec<&str> = told.refused.iter().map(|one| one.id.as_str()).collect();
        assert_eq!(ids, [if what == "malformed" { "store.row" } else { "result.seal" }], "{what}");
        assert_eq!(told.fields.state, HostState::Unproven, "{what}");
        assert!(!scene.placed(host), "{what}");
        assert_eq!(scene.placed(&good), host.identity().host != mine, "{what}: the other host stands as it stood");
        if what == "malformed" {
            database(&scene).execute("UPDATE results SET sequence = 1 WHERE host = ?", [&theirs]).unwrap();
        }
        assert_eq!(lie(&bad).state, HostState::Disproven, "{what}: the next round is judged as ever");
    }
}

#[test]
fn a27_one_nonce_at_two_verifiers_wins_once() {
    let scene = Scene::start("");
    let replica = scene.lab.verifier.replica().unwrap();
    let host = scene.enrolled("node-1");
    scene.trusted(&host);
    let clients = [host.client().clone(), host.client().at(&replica.url)];
    let media = hostmark_attest::wire::EVIDENCE_TYPE;
    for repetition in 0..50 {
        let before = sequence(&scene, &host);
        let body = host.sign(host.draft(&host.challenge())).encode();
        let start = std::sync::Barrier::new(2);
        let answers: Vec<Answer> = std::thread::scope(|scope| {
            let threads: Vec<_> = clients
                .iter()
                .map(|client| {
                    let (start, body) = (&start, body.clone());
                    scope.spawn(move || {
                        start.wait();
                        client.send(Method::POST, "/v1/evidence", Some((media, body))).unwrap()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|one| one.status == 200);
        assert_eq!((won.len(), lost.len()), (1, 1), "{repetition}: {} {}", answers[0], answers[1]);
        assert_eq!((lost[0].status, lost[0].refusal().unwrap()), (422, vec!["nonce.used".to_owned()]), "{repetition}");
        assert_eq!(won[0].read::<RoundOutcome>().unwrap().state, HostState::Proven);
        assert_eq!(sequence(&scene, &host), before + 1, "{repetition}: one round was recorded");
    }
}

#[test]
fn law_2_disproven_at_one_verifier_is_disproven_at_the_other_at_once() {
    let scene = Scene::start("");
    let replica = scene.lab.verifier.replica().unwrap();
    let there = scene.lab.admin.at(&replica.url);
    let host = scene.enrolled("node-1");
    for _ in 0..5 {
        scene.trusted(&host);
        assert!(placed_on(&there, &host).is_some(), "proven here is proven there");
        assert_eq!(lie(&host).state, HostState::Disproven);
        assert!(placed_on(&there, &host).is_none() && placed_on(&scene.lab.admin, &host).is_none());
        let path = format!("/v1/hosts/{}/standing", host.identity().host);
        let told: Value = there.get(&path).unwrap().read().unwrap();
        assert_eq!(
            (told["state"].as_str(), told["refused"][0]["id"].as_str()),
            (Some("disproven"), Some("quote.signature"))
        );
    }
    scene.trusted(&host);
    apply(&scene, |toml| toml.replace("\"internal\"", "\"restricted\""));
    assert!(placed_on(&there, &host).is_none(), "a pool changed at one is changed at the other");
}

#[test]
fn d1_a_retired_hosts_certificate_is_refused_on_old_and_new_connections() {
    let scene = Scene::start("");
    let (host, other) = (scene.enrolled("node-1"), scene.enrolled("node-2"));
    scene.trusted(&host);
    let open = host.challenge();
    let retire = format!("/v1/hosts/{}/retire", host.identity().host);
    assert_eq!(scene.lab.admin.post(&retire, &json!({})).unwrap().status, 204);
    let ca = std::fs::read_to_string(scene.lab.verifier.ca()).unwrap();
    let key = rcgen::KeyPair::try_from(host.tls.pair.to_pkcs8v1().unwrap().as_ref()).unwrap().serialize_pem();
    let credentials = Credentials { certificate: &host.identity().certificate, key: &key };
    let again = Client::new(&scene.lab.verifier.url(), &ca, Some(credentials)).unwrap();
    for (what, client) in [("the old connection", host.client()), ("a new one", &again)] {
        for (method, path) in [("GET", "/v1/whoami"), ("POST", "/v1/challenges")] {
            let body = (method == "POST").then(|| ("application/json", b"{}".to_vec()));
            let answer = client.send(Method::from_bytes(method.as_bytes()).unwrap(), path, body).unwrap();
            assert_eq!(
                (answer.status, answer.refusal().unwrap()),
                (401, vec!["auth.revoked".to_owned()]),
                "{what}: {path}"
            );
        }
    }
    let late = host.send(host.sign(host.draft(&open)).encode());
    assert_eq!((late.status, late.refusal().unwrap()), (401, vec!["auth.revoked".to_owned()]));
    assert!(!scene.placed(&host));
    scene.trusted(&other);
}

#[test]
fn d2_a_hosts_certificate_is_for_its_own_routes() {
    let scene = Scene::start("");
    let (a, b) = (scene.enrolled("node-1"), scene.enrolled("node-2"));
    scene.trusted(&a);
    scene.trusted(&b);
    let theirs = &b.identity().host;
    let own = a.client().get(&format!("/v1/hosts/{}", a.identity().host)).unwrap();
    assert_eq!(own.status, 200, "honest: {own}");
    let rows: Vec<(&str, String, Value, &str)> = vec![
        ("GET", format!("/v1/hosts/{theirs}"), Value::Null, "auth.other-host"),
        ("GET", "/v1/hosts/node-2".into(), Value::Null, "auth.other-host"),
        ("GET", format!("/v1/hosts/{theirs}/standing"), Value::Null, "auth.role"),
        ("GET", "/v1/hosts".into(), Value::Null, "auth.role"),
        ("GET", format!("/v1/pools/{POOL}/hosts/{theirs}"), Value::Null, "auth.role"),
        ("POST", format!("/v1/hosts/{theirs}/retire"), json!({}), "auth.role"),
        ("POST", format!("/v1/hosts/{theirs}/maintenance"), json!({ "for": "1h" }), "auth.role"),
        ("POST", format!("/v1/hosts/{}/label", a.identity().host), json!({ "label": "restricted" }), "auth.role"),
        ("POST", "/v1/placements".into(), json!({ "label": LABEL, "count": 1 }), "auth.role"),
    ];
    for (method, path, body, id) in rows {
        let body = (method == "POST").then(|| ("application/json", body.to_string().into_bytes()));
        let answer = a.client().send(Method::from_bytes(method.as_bytes()).unwrap(), &path, body).unwrap();
        assert_eq!((answer.status, answer.refusal().unwrap()), (403, vec![id.to_owned()]), "{method} {path}");
    }
    // Evidence of B, shown with A's certificate: for B's nonce, and for A's own.
    let answer = a.send(b.sign(b.draft(&b.challenge())).encode());
    assert_eq!((answer.status, answer.refusal().unwrap()), (422, vec!["nonce.other-host".to_owned()]));
    scene.trusted(&b);
    let outcome: RoundOutcome = a.send(b.sign(b.draft(&a.challenge())).encode()).read().unwrap();
    assert_eq!(outcome.state, HostState::Disproven);
    assert!(scene.placed(&b) && !scene.placed(&a));
    scene.trusted(&a);
}

#[test]
fn d14_a_host_never_names_itself() {
    let scene = Scene::start("");
    let victim = scene.enrolled("node-1");
    scene.trusted(&victim);
    let mut host = scene.stranger();
    let row = |node: &str| Preregistrations {
        hosts: vec![PreregisteredHost { ek_id: host.ek.id(), assignment: Lab::assignment(node) }],
    };
    // The approver's mistake is refused too: a node is one host.
    let taken = scene.lab.admin.post("/v1/preregistrations", &row("node-1")).unwrap();
    assert_eq!(taken.status, 409, "{taken}");
    let _: Value = scene.lab.admin.post("/v1/preregistrations", &row("node-2")).unwrap().read().unwrap();

    // In the enrolment's fields: refused.
    let request: EnrolmentRequest = host.request(None);
    for field in ["node", "hostname", "host", "label", "scheduler"] {
        let mut claims = serde_json::to_value(&request).unwrap();
        claims[field] = "node-1".into();
        let answer = host.stranger().post("/v1/enrolments", &claims).unwrap();
        assert_eq!((answer.status, answer.refusal().unwrap()), (400, vec!["request.malformed".to_owned()]), "{field}");
    }
    // In the subject of its request: ignored.
    let challenge: EnrolmentChallenge = host.begin(None).read().unwrap();
    let key = rcgen::KeyPair::try_from(host.tls.pair.to_pkcs8v1().unwrap().as_ref()).unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["node-1".to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "hostmark:admin");
    params.distinguished_name.push(rcgen::DnType::CommonName, victim.identity().host.as_str());
    let csr = params.serialize_request(&key).unwrap().der().to_vec();
    let mut activation = host.activation(&challenge, &host.tls, |_| ());
    activation.certification = host.signed(&host.certify(&host.tls, &challenge.nonce, &csr));
    activation.csr = B64(csr);
    let outcome: EnrolmentOutcome = host.activate(&challenge.enrolment, &activation).read().unwrap();
    let EnrolmentOutcome::Approved { host: identity } = outcome else { panic!("{outcome:?}") };
    assert_eq!(identity.node, "node-2");
    assert_ne!(identity.host, victim.identity().host);
    host.become_host(identity);
    let who: Value = host.client().get("/v1/whoami").unwrap().read().unwrap();
    assert_eq!((who["role"].as_str(), who["name"].as_str()), (Some("host"), Some(host.identity().host.as_str())));

    // In the facts of a round: words, never a name.
    let mut draft = host.draft(&host.challenge());
    for fact in ["hostname", "node", "host", "label", "scheduler"] {
        draft.unanchored.facts.insert(fact.to_owned(), "node-1".to_owned());
    }
    draft.bind();
    let outcome: RoundOutcome = host.send(host.sign(draft).encode()).read().unwrap();
    assert_eq!(outcome.state, HostState::Proven, "{:?}", errors(&outcome.findings));
    let placed = placed_on(&scene.lab.admin, &host).unwrap();
    assert_eq!((placed.node.as_str(), placed.scheduler.as_str()), ("node-2", "swarm-a"));
    let nodes: Vec<String> = place(&scene.lab.admin).hosts.into_iter().map(|one| one.node).collect();
    assert_eq!(nodes.iter().collect::<BTreeSet<_>>().len(), nodes.len(), "one host per node");
    scene.trusted(&victim);
}

/// The ways of being bad that D21 mixes, and one of being good.
fn round_of(host: &Attester, way: usize) -> RoundOutcome {
    let mut draft = host.draft(&host.challenge());
    match way {
        1 => draft.attest.extra_data = vec![7; 32],
        2 => draft.boot_log[40] ^= 1,
        3 => {
            draft.unanchored.manifest = b"{}".to_vec();
            draft.bind();
        }
        4 => draft.attest.clock_info.reset_count = 1,
        _ => {}
    }
    let mut evidence = host.sign(draft);
    if way == 5 {
        evidence.quote.signature = B64(host.tls.sign(&evidence.quote.attest.0));
    }
    host.send(evidence.encode()).read().unwrap()
}

#[test]
fn d21_no_host_is_told_anothers_findings() {
    const HOSTS: usize = 20;
    const ROUNDS: usize = 10;
    let scene = Scene::start("");
    // Half of them honest, the others bad in five ways.
    let hosts: Vec<(usize, Attester)> = (0..HOSTS)
        .map(|n| (if n % 2 == 0 { 0 } else { 1 + (n / 2) % 5 }, scene.enrolled(&format!("node-{n}"))))
        .collect();
    // Each one alone first: what it must be told, however many speak at once. All begin with an honest round.
    let alone: Vec<Vec<String>> = hosts
        .iter()
        .map(|(way, host)| {
            scene.trusted(host);
            errors(&round_of(host, *way).findings)
        })
        .collect();
    let distinct: BTreeSet<&Vec<String>> = alone.iter().filter(|ids| !ids.is_empty()).collect();
    assert_eq!(distinct.len(), 5, "five ways, five answers: {distinct:?}");
    std::thread::scope(|scope| {
        for ((way, host), expect) in hosts.iter().zip(&alone) {
            let scene = &scene;
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    let outcome = round_of(host, *way);
                    assert_eq!(&errors(&outcome.findings), expect, "{}", host.identity().node);
                    let good = expect.is_empty();
                    assert_eq!(outcome.state == HostState::Proven, good);
                    assert_eq!(outcome.pools.is_empty(), !good);
                    let told = scene.standing(host);
                    assert_eq!(
                        (told.fields.host == host.identity().host, told.fields.state == outcome.state),
                        (true, true)
                    );
                    assert_eq!(scene.placed(host), good, "{}", host.identity().node);
                }
            });
        }
    });
}
