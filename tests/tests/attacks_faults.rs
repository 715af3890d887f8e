//! Faults of the verifier's machine (D7) and inside an appraisal (D20): nothing acknowledged is lost, no host gains trust, and it
//! goes on by itself. Real processes, real files; what fails is killed, limited, locked or moved away.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hostmark_attest::wire::{B64, Challenge, EVIDENCE_TYPE, HostState, RoundOutcome};
use hostmark_tests::attester::Attester;
use hostmark_tests::client::{Answer, Client};
use hostmark_tests::lab::Lab;
use hostmark_tests::process::{Daemon, run};
use hostmark_tests::programs::program;
use hostmark_tests::scene::Scene;
use hostmark_tests::wait::until;
use hostmark_verifier::api::types::{CreateToken, CreatedToken, Token};
use reqwest::Method;
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(90);

fn new_token() -> CreateToken {
    CreateToken {
        assignment: Lab::assignment("later"),
        ek_id: None,
        min_class: Some("simulated".to_owned()),
        expires_in: "1h".parse().unwrap(),
    }
}

/// Asks for a token; its id when the verifier acknowledged it.
fn token(admin: &Client) -> Result<String, Option<Answer>> {
    let answer = admin.post("/v1/tokens", &new_token()).map_err(|_| None)?;
    answer.read::<CreatedToken>().map(|made| made.id).map_err(|_| Some(answer))
}

/// A round that may meet a dead verifier. `good`: signed by the AK.
fn try_round(host: &Attester, good: bool) -> Option<RoundOutcome> {
    let challenge: Challenge = host.client().post("/v1/challenges", &json!({})).ok()?.read().ok()?;
    let mut evidence = host.sign(host.draft(&challenge));
    if !good {
        evidence.quote.signature = B64(host.tls.sign(&evidence.quote.attest.0));
    }
    let body = Some((EVIDENCE_TYPE, evidence.encode()));
    host.client().send(Method::POST, "/v1/evidence", body).ok()?.read().ok()
}

fn database(scene: &Scene) -> rusqlite::Connection {
    let sql = rusqlite::Connection::open(store(scene)).unwrap();
    sql.busy_timeout(Duration::from_secs(10)).unwrap();
    sql
}

fn store(scene: &Scene) -> PathBuf {
    scene.lab.verifier.state_dir().join("store.sqlite")
}

fn sequence(scene: &Scene, host: &Attester) -> u64 {
    let query = "SELECT coalesce((SELECT sequence FROM results WHERE host = ?), 0)";
    database(scene).query_row(query, [&host.identity().host], |row| row.get(0)).unwrap()
}

/// Every acknowledged token is there, the audit chain is whole and names each, and the store takes changes.
fn nothing_lost(scene: &Scene, acknowledged: &BTreeSet<String>) {
    let ready = scene.lab.admin.get("/readyz").unwrap();
    assert_eq!(ready.status, 200, "{ready}");
    let listed: Vec<Token> = scene.lab.admin.get("/v1/tokens").unwrap().read().unwrap();
    let listed: BTreeSet<String> = listed.into_iter().map(|one| one.id).collect();
    assert_eq!(acknowledged.difference(&listed).collect::<Vec<_>>(), Vec::<&String>::new(), "acknowledged and lost");
    let mut named = BTreeSet::new();
    let mut since = 1;
    loop {
        let page: Vec<Value> = scene.lab.admin.get(&format!("/v1/audit?since={since}")).unwrap().read().unwrap();
        since += page.len();
        named.extend(
            page.iter()
                .filter(|one| one["action"] == "token.create")
                .map(|one| one["subject"].as_str().unwrap().to_owned()),
        );
        if page.is_empty() {
            break;
        }
    }
    assert_eq!(named, listed, "a change and its record are one");
}

#[test]
fn d7_killed_between_any_two_writes_it_loses_nothing_and_grants_nothing() {
    const KILLS: usize = 8;
    let mut scene = Scene::start("");
    let good = [scene.enrolled("node-1"), scene.enrolled("node-2")];
    let bad = scene.enrolled("node-3");
    for host in &good {
        scene.trusted(host);
    }
    let admin = scene.lab.admin.clone();
    let done = AtomicBool::new(false);
    let acknowledged = Mutex::new(BTreeSet::new());
    let answers = AtomicUsize::new(0);
    let rounds = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let first: Vec<u64> = good.iter().map(|host| sequence(&scene, host)).collect();
    std::thread::scope(|scope| {
        // Whatever happens below, the others end.
        struct End<'a>(&'a AtomicBool);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let _end = End(&done);
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    if let Ok(id) = token(&admin) {
                        acknowledged.lock().unwrap().insert(id);
                        answers.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
        for (host, rounds) in good.iter().zip(&rounds) {
            let (done, answers) = (&done, &answers);
            scope.spawn(move || {
                while !done.load(Ordering::SeqCst) {
                    if let Some(outcome) = try_round(host, true) {
                        assert_eq!(outcome.state, HostState::Proven, "{:?}", outcome.findings);
                        rounds.fetch_add(1, Ordering::SeqCst);
                        answers.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                if let Some(outcome) = try_round(&bad, false) {
                    assert_eq!((outcome.state, outcome.pools.len()), (HostState::Disproven, 0));
                }
            }
        });
        for kill in 0..KILLS {
            // At another point of the load each time, whatever is being written then.
            let target = answers.load(Ordering::SeqCst) + 3 + kill * 2;
            until("the load goes on", LONG, || Ok((answers.load(Ordering::SeqCst) >= target).then_some(()))).unwrap();
            scene.lab.verifier.kill();
            // Only what was acknowledged before it came back counts as acknowledged before the kill.
            let before = acknowledged.lock().unwrap().clone();
            scene.lab.verifier.restart().unwrap();
            let listed: Vec<Token> = scene.lab.admin.get("/v1/tokens").unwrap().read().unwrap();
            let listed: BTreeSet<String> = listed.into_iter().map(|one| one.id).collect();
            assert!(before.is_subset(&listed), "kill {kill}: acknowledged and lost");
            assert!(!scene.placed(&bad), "kill {kill}");
        }
    });
    nothing_lost(&scene, &acknowledged.lock().unwrap());
    for ((host, rounds), first) in good.iter().zip(&rounds).zip(first) {
        let recorded = sequence(&scene, host) - first;
        let told = u64::try_from(rounds.load(Ordering::SeqCst)).unwrap();
        assert!(recorded >= told, "{told} rounds were acknowledged, {recorded} recorded");
        scene.trusted(host);
    }
    assert!(!scene.placed(&bad));
    scene.trusted(&bad);
}

/// The same verifier, started so that a full disk is an error and not a signal.
fn restart_without_signal(scene: &mut Scene) -> Daemon {
    scene.lab.verifier.kill();
    let directory = scene.lab.verifier.state_dir().parent().unwrap().to_owned();
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$0\" serve --config \"$1\" 2>/dev/null >/dev/null"]);
    command.arg(program("verifier").unwrap()).arg(directory.join("verifier.toml"));
    let mut process = Daemon::start("verifier", &mut command, &directory.join("limited.log")).unwrap();
    until("it serves", LONG, || {
        process.must_run()?;
        Ok(scene.lab.admin.get("/readyz").ok().filter(|answer| answer.status == 200))
    })
    .unwrap();
    process
}

/// No file of the process may grow beyond `limit` bytes: what a full disk is to a writer.
fn limit_files(process: &Daemon, limit: &str) {
    let pid = process.pid().to_string();
    run(Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={limit}:")])).unwrap().good().unwrap();
}

#[test]
fn d7_a_full_disk_refuses_and_is_over_when_it_is_over() {
    let mut scene = Scene::start("");
    let (host, bad) = (scene.enrolled("node-1"), scene.enrolled("node-2"));
    scene.trusted(&host);
    let process = restart_without_signal(&mut scene);
    let mut acknowledged: BTreeSet<String> = (0..3).map(|_| token(&scene.lab.admin).unwrap()).collect();
    for cycle in 0..3 {
        let wal = std::fs::metadata(store(&scene).with_extension("sqlite-wal")).unwrap().len();
        limit_files(&process, &(wal.max(8192) - 4096 * cycle).to_string());
        // A checkpoint may make room once more; then there is none.
        let (refused, _) = until("the disk is full", LONG, || match token(&scene.lab.admin) {
            Ok(id) => {
                acknowledged.insert(id);
                Ok(None)
            }
            Err(answer) => Ok(Some(answer.expect("it answers"))),
        })
        .unwrap();
        assert_eq!((refused.status, refused.refusal().unwrap()), (503, vec!["store.unavailable".to_owned()]));
        let before = sequence(&scene, &host);
        let challenge = host.client().post("/v1/challenges", &json!({})).unwrap();
        assert_eq!((challenge.status, challenge.refusal().unwrap()), (503, vec!["store.unavailable".to_owned()]));
        assert_eq!(sequence(&scene, &host), before);
        assert!(!scene.placed(&bad), "nothing was proven");
        limit_files(&process, "unlimited");
        scene.trusted(&host);
        acknowledged.insert(token(&scene.lab.admin).unwrap());
        nothing_lost(&scene, &acknowledged);
    }
    drop(process);
    scene.lab.verifier.restart().unwrap();
    nothing_lost(&scene, &acknowledged);
    scene.trusted(&host);
}

#[test]
fn d7_a_locked_database_refuses_and_is_over_when_it_is_over() {
    let scene = Scene::start("");
    let (host, bad) = (scene.enrolled("node-1"), scene.enrolled("node-2"));
    scene.trusted(&host);
    let mut acknowledged = BTreeSet::from([token(&scene.lab.admin).unwrap()]);
    let before = sequence(&scene, &host);
    let round = host.sign(host.draft(&host.challenge())).encode();
    let other = database(&scene);
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let scene = &scene;
        let change = scope.spawn(move || token(&scene.lab.admin).unwrap_err().unwrap());
        let round = scope.spawn(|| host.send(round));
        let answers = vec![change.join().unwrap(), round.join().unwrap()];
        // Reads go on meanwhile, and say no more than was proven.
        assert!(!scene.placed(&bad));
        answers
    });
    for answer in &answers {
        assert_eq!((answer.status, answer.refusal().unwrap()), (503, vec!["store.unavailable".to_owned()]), "{answer}");
    }
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(sequence(&scene, &host), before, "nothing was renewed");
    acknowledged.insert(token(&scene.lab.admin).unwrap());
    scene.trusted(&host);
    nothing_lost(&scene, &acknowledged);
}

#[test]
fn d7_a_database_that_was_moved_away_comes_back_with_every_acknowledged_change() {
    let mut scene = Scene::start("");
    let (host, bad) = (scene.enrolled("node-1"), scene.enrolled("node-2"));
    scene.trusted(&host);
    let mut acknowledged = BTreeSet::from([token(&scene.lab.admin).unwrap()]);
    let files = ["", "-wal", "-shm"].map(|end| PathBuf::from(format!("{}{end}", store(&scene).display())));
    let away = files.clone().map(|file| file.with_file_name(format!("away-{}", file.file_name().unwrap().display())));
    for (from, to) in files.iter().zip(&away) {
        std::fs::rename(from, to).unwrap();
    }
    // It may go on by the files that it holds open, or refuse; what it acknowledges counts.
    for _ in 0..5 {
        match token(&scene.lab.admin) {
            Ok(id) => drop(acknowledged.insert(id)),
            Err(answer) => assert_eq!(answer.expect("it answers").status, 503),
        }
        let _ = try_round(&host, true);
        assert!(try_round(&bad, false).is_none_or(|outcome| outcome.pools.is_empty()));
    }
    // A start without its database is refused with what to do; it never makes an empty one.
    assert!(!files[0].exists(), "no other database takes its place");
    for (to, from) in files.iter().zip(&away) {
        std::fs::rename(from, to).unwrap();
    }
    scene.trusted(&host);
    acknowledged.insert(token(&scene.lab.admin).unwrap());
    nothing_lost(&scene, &acknowledged);
    scene.lab.verifier.kill();
    for (from, to) in files.iter().zip(&away) {
        let _ = std::fs::rename(from, to);
    }
    let refused = scene.lab.verifier.restart().unwrap_err().to_string();
    assert!(refused.contains("does not exist"), "{refused}");
    assert!(!files[0].exists());
    for (to, from) in files.iter().zip(&away) {
        let _ = std::fs::rename(from, to);
    }
    scene.lab.verifier.restart().unwrap();
    nothing_lost(&scene, &acknowledged);
    scene.trusted(&host);
    assert!(!scene.placed(&bad));
}

#[test]
fn d20_a_round_that_takes_too_long_is_an_error_and_renews_nothing() {
    let mut scene = Scene::start("");
    // The shortest limit that an honest round keeps on a loaded machine, and shorter than the store waits for a lock.
    let config = scene.lab.verifier.state_dir().parent().unwrap().join("verifier.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("[limits]", "[limits]\nrequest = \"3s\"")).unwrap();
    scene.lab.verifier.kill();
    scene.lab.verifier.restart().unwrap();
    let host = scene.enrolled("node-1");
    scene.trusted(&host);
    let before = (sequence(&scene, &host), scene.standing(&host).result);
    let body = host.sign(host.draft(&host.challenge())).encode();
    let other = database(&scene);
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let asked = Instant::now();
    let answer = host.send(body.clone());
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert_eq!((answer.status, answer.refusal().unwrap()), (500, vec!["error".to_owned()]));
    // The host was told that nothing was granted; the round, still waiting for the store, now gets it.
    other.execute_batch("ROLLBACK").unwrap();
    until("the late round ends", LONG, || Ok(scene.lab.verifier.log().contains("not recorded in time").then_some(())))
        .unwrap();
    assert_eq!((sequence(&scene, &host), scene.standing(&host).result), before, "nothing was renewed");
    let again = host.send(body);
    assert_eq!(again.read::<RoundOutcome>().unwrap().state, HostState::Proven, "its nonce was not used up");
    scene.trusted(&host);
}

#[test]
fn d20_an_error_inside_an_appraisal_renews_nothing() {
    let scene = Scene::start("");
    let (host, other) = (scene.enrolled("node-1"), scene.enrolled("node-2"));
    let id = &host.identity().host;
    let faults = [
        (
            "the store refuses the result",
            format!(
                "CREATE TRIGGER fault BEFORE INSERT ON results WHEN NEW.host = '{id}' BEGIN SELECT RAISE(ABORT, 'fault'); END"
            ),
            "DROP TRIGGER fault".to_owned(),
            503,
            "store.unavailable",
        ),
        (
            "what was kept is another's",
            format!("CREATE TABLE good AS SELECT host, sealed FROM host_state WHERE host = '{id}'; UPDATE host_state SET sealed = CAST(x'00' || substr(sealed, 2) AS BLOB) WHERE host = '{id}'"),
            "UPDATE host_state SET sealed = (SELECT sealed FROM good) WHERE host = (SELECT host FROM good); DROP TABLE good;".to_owned(),
            422,
            "state.seal",
        ),
    ];
    for (what, fault, repair, status, expect) in faults {
        scene.trusted(&host);
        let before = (sequence(&scene, &host), scene.standing(&host).result);
        let body = host.sign(host.draft(&host.challenge())).encode();
        database(&scene).execute_batch(&fault).unwrap();
        let answer = host.send(body);
        assert_eq!((answer.status, answer.refusal().unwrap()), (status, vec![expect.to_owned()]), "{what}");
        assert_eq!((sequence(&scene, &host), scene.standing(&host).result), before, "{what}: nothing was renewed");
        scene.trusted(&other);
        database(&scene).execute_batch(&repair).unwrap();
        scene.trusted(&host);
    }
}
