//! Memory of idle hosts: what the verifier keeps of each beside its store.
//!
//! A process of its own loads them: what this one freed while it made the store would be used again, and counted for nothing.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use hostmark_attest::appraisal::Appraisal;
use hostmark_attest::result::ResultClaims;
use hostmark_tests::attester::Attester;
use hostmark_tests::lab::{LABEL, POLICY_NAME, SCHEDULER, shipped_files};
use hostmark_verifier::clock::{Clock, Now};
use hostmark_verifier::config::Config;
use hostmark_verifier::keys::Keys;
use hostmark_verifier::standing::Standings;
use hostmark_verifier::store::{Assignment, HostRow, Store, StoredResult};
use hostmark_verifier::trust::Trust;
use rusqlite::params;

use crate::measure::Table;

/// Hosts of a large site.
const IDLE: u32 = 100_000;
/// Bytes of memory that one may take, in KiB.
const MOST: f64 = 4.0;
/// The argument with which this program does nothing but load such a store: state directory and moment follow.
pub const LOAD: &str = "load-idle-hosts";

/// Loads a filled store as the verifier does after a start, and prints by how many KiB that made this process grow.
pub fn load(state: &Path, unix_ms: &str, boot_ms: &str) {
    let keys = Arc::new(Keys::load(state).unwrap());
    let store = Store::open(&state.join("store.sqlite"), Arc::clone(&keys)).unwrap();
    // However long the store took to fill, the hosts are fresh.
    let now =
        Now { unix_ms: unix_ms.parse().unwrap(), boot_ms: boot_ms.parse().unwrap(), ..Clock::new().unwrap().now() };
    let (trust, config) = (Arc::new(Trust::default()), Config::default());
    let standings = Standings::default();
    let before = resident();
    standings.refresh(&store, &keys, &trust, &config, &now).unwrap();
    let grown = resident() - before;
    let view = standings.view();
    assert_eq!(view.hosts.len(), usize::try_from(IDLE).unwrap());
    assert!(view.hosts.values().all(|one| one.result.is_some() && !one.pools(&view.rules, &now).is_empty()));
    println!("{grown}");
}

/// Fills a store with as many enrolled and proven hosts, each with its own row, signed result and sealed state, and has it loaded.
/// `proven`: an honest host's round.
pub fn idle_hosts(table: &mut Table, host: &Attester, proven: impl Fn() -> Appraisal) {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let keys = Arc::new(Keys::create(&state).unwrap());
    let store = Store::create(&state.join("store.sqlite"), Arc::clone(&keys)).unwrap();
    let now = Clock::new().unwrap().now();
    let sealed = proven().state().seal(&keys.seal);
    let issued = now.unix_ms / 1000;
    let claims = proven().into_result(String::new(), issued, issued + 3600);
    let mut stored = 0;
    let seeded = store.write(&now, |tx| {
        for kind in ["pools", "admission"] {
            let into = if kind == "pools" { "pools" } else { "admission_policies" };
            for file in shipped_files(kind).unwrap() {
                tx.execute(&format!("INSERT INTO {into} VALUES (?,?,0,'bench')"), [&file.name, &file.toml])?;
            }
        }
        let mut hosts = tx.prepare("INSERT INTO hosts (id, state, node, scheduler, label, policy, class, ek_id, ek_public, ek_certificate, ek_intermediates, ak_public, ak_name, approved_unix_ms, approved_by, kept_state, seal) VALUES (?,'approved',?,?,?,?,?,?,?,?,'[]',?,?,?,?,1,?)")?;
        let mut results = tx.prepare("INSERT INTO results (host, state, result, findings, policy, policy_version, boot_id, issued_boot_ms, issued_unix_ms, sequence, seal) VALUES (?,'proven',?,'[]',?,1,?,?,?,1,?)")?;
        let mut states = tx.prepare("INSERT INTO host_state (host, ak_name, sealed) VALUES (?,?,?)")?;
        for number in 0..IDLE {
            let row = row(host, number);
            let seal = keys.seal_row(&row.seal_message());
            let to = &row.assignment;
            hosts.execute(params![
                row.id, to.node, to.scheduler, to.label.to_string(), to.policy, row.class, row.ek_id, row.ek_public,
                row.ek_certificate, row.ak_public, row.ak_name, row.approved_unix_ms, row.approved_by, seal
            ])?;
            let token = ResultClaims { sub: row.id.clone(), ..claims.clone() }.sign(&keys.results).unwrap();
            let result = StoredResult {
                disproven: false,
                result: Some(token),
                findings: Vec::new(),
                boot_id: now.boot_id.to_string(),
                issued_boot_ms: now.boot_ms,
                issued_unix_ms: now.unix_ms,
                sequence: 1,
            };
            let seal = keys.seal_row(&result.seal_message(&row.id, "proven"));
            stored += row.seal_message().len() + row.ek_certificate.as_ref().map_or(0, Vec::len) + sealed.len();
            stored += result.seal_message(&row.id, "proven").len() + 2 * seal.len();
            results.execute(params![
                row.id, result.result, POLICY_NAME, result.boot_id, result.issued_boot_ms, result.issued_unix_ms, seal
            ])?;
            states.execute(params![row.id, row.ak_name, sealed])?;
        }
        Ok(())
    });
    seeded.unwrap();
    drop(store);
    let mut loading = Command::new(std::env::current_exe().unwrap());
    loading.arg(LOAD).arg(&state).args([now.unix_ms.to_string(), now.boot_ms.to_string()]);
    let loaded = loading.output().unwrap();
    assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
    let grown: f64 = String::from_utf8(loaded.stdout).unwrap().trim().parse().unwrap();
    let each = grown / f64::from(IDLE);
    let stored = stored as f64 / 1024.0 / f64::from(IDLE);
    let what = format!("resident memory of an idle host, {IDLE} hosts admitted");
    table.push(
        &what,
        format!("{each:.2} KiB"),
        "its stored state",
        format!("{stored:.2} KiB"),
        format!("{:.2}× its size", each / stored),
    );
    table.wanted(each, MOST, " KiB");
}

fn row(host: &Attester, number: u32) -> HostRow {
    let own = |what: &str| hostmark_attest::digest::sha256(&[what.as_bytes(), &number.to_be_bytes()]);
    HostRow {
        id: format!("00000000-0000-4000-8000-{number:012}"),
        retired: false,
        assignment: Assignment {
            node: format!("node-{number:06}"),
            scheduler: SCHEDULER.to_owned(),
            label: LABEL.parse().unwrap(),
            policy: POLICY_NAME.to_owned(),
        },
        class: "simulated".to_owned(),
        ek_id: hex::encode(own("ek")),
        ek_public: host.ek.public.as_bytes().to_vec(),
        ek_certificate: host.ek.certificate.clone(),
        ek_intermediates: Vec::new(),
        ak_public: host.tpm.ak.public.as_bytes().to_vec(),
        ak_name: own("ak").to_vec(),
        approved_unix_ms: 0,
        approved_by: "operator:bench".to_owned(),
        tag_nv: None,
        tag_serial: 0,
        maintenance_until_unix_ms: 0,
        generation: 1,
        kept_state: true,
        seal: Vec::new(),
    }
}

/// VmRSS of this process in KiB.
fn resident() -> f64 {
    let status = std::fs::read_to_string(Path::new("/proc/self/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
