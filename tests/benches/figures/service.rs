//! Figures of a running verifier: a process of its own with its store on disk, driven over mutual TLS on loopback.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hostmark_attest::wire::{Challenge, EVIDENCE_TYPE, EnrolmentOutcome, HostState, RoundOutcome};
use hostmark_tests::attester::{Attester, Draft, SoftwareEk};
use hostmark_tests::lab::{LABEL, Lab, SCHEDULER, host_boot};
use hostmark_tests::pki::Ca;
use hostmark_verifier::api::types::{PreregisteredHost, Preregistrations};
use hostmark_verifier::api::views::{PlacementRequest, PlacementResponse, Spread};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::runtime::Runtime;

use crate::measure::{Table, median, quantile, seconds};
use crate::wire::{Client, Echo, Exchange, Http, Load, client_config, load};

/// Enrolled and admitted hosts.
pub const HOSTS: usize = 200;
/// Connections that ask at the same time.
const CONNECTIONS: usize = 16;
/// One measurement of one side.
const SPAN: Duration = Duration::from_secs(2);
/// Measurements of each side, in turns.
const SPANS: usize = 5;
/// Hosts that a placement query asks for.
const PLACED: u32 = 3;
/// Clock ticks per second in /proc/PID/stat: USER_HZ, 100 on every architecture that Linux exports it for.
const TICKS: f64 = 100.0;
/// What the load needs beyond the shipped limits.
const LIMITS: &str = "[limits]\nchallenges_per_minute = 1000000\nenrolments_per_minute = 1000000\n";

/// A verifier, and hosts in software that it has enrolled.
pub struct Site {
    pub ca: Ca,
    pub hosts: Vec<Arc<Attester>>,
    lab: Lab,
    runtime: Runtime,
    address: SocketAddr,
    idle: f64,
    directory: tempfile::TempDir,
}

impl Site {
    /// Starts the verifier with the shipped rules and enrols so many hosts.
    pub fn start(count: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ca = Ca::new("Hostmark", "Software TPMs");
        let root = directory.path().join("root.pem");
        std::fs::write(&root, ca.certificate.pem()).unwrap();
        let lab = Lab::trusting(&directory.path().join("lab"), LIMITS, vec![("simulated".to_owned(), root)]).unwrap();
        lab.publish_rules().unwrap();
        let idle = resident(&lab);
        let recording = host_boot().unwrap();
        let started = Instant::now();
        let mut hosts: Vec<Attester> =
            (0..count).map(|_| Attester::boot(&lab.verifier, SoftwareEk::new(&ca), &recording)).collect();
        let row = |(number, host): (usize, &Attester)| PreregisteredHost {
            ek_id: host.ek.id(),
            assignment: Lab::assignment(&format!("node-{number:03}")),
        };
        let list = Preregistrations { hosts: hosts.iter().enumerate().map(row).collect() };
        let _: serde_json::Value = lab.admin.post("/v1/preregistrations", &list).unwrap().read().unwrap();
        for host in &mut hosts {
            assert!(matches!(host.enrol(None), EnrolmentOutcome::Approved { .. }));
        }
        eprintln!("{count} hosts enrolled after {:.1} s", started.elapsed().as_secs_f64());
        Self {
            hosts: hosts.into_iter().map(Arc::new).collect(),
            runtime: tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap(),
            address: lab.verifier.url().trim_start_matches("https://").parse().unwrap(),
            ca,
            lab,
            idle,
            directory,
        }
    }

    fn pid(&self) -> u32 {
        self.lab.verifier.process().unwrap().pid()
    }

    /// Every host on a connection of its own, after its first round.
    async fn attesters(&self) -> Vec<Rounds> {
        let authority = std::fs::read_to_string(self.lab.verifier.ca()).unwrap();
        let mut clients = Vec::new();
        for host in &self.hosts {
            let key = PrivateKeyDer::try_from(host.tls.pair.to_pkcs8v1().unwrap().as_ref().to_vec()).unwrap();
            let http = Http::connect(self.address, client_config(&authority, &host.identity().certificate, key)).await;
            let mut client = Rounds { http, host: Arc::clone(host), draft: None, bytes: Vec::new() };
            client.step().await;
            clients.push(client);
        }
        clients
    }

    /// Connections of the first admin that ask one thing again and again.
    async fn askers(&self, method: &'static str, path: &'static str, body: &[u8], hosts: usize) -> Vec<Ask> {
        let authority = std::fs::read_to_string(self.lab.verifier.ca()).unwrap();
        let (certificate, key) = self.lab.verifier.admin();
        let certificate = std::fs::read_to_string(certificate).unwrap();
        let mut askers = Vec::new();
        for _ in 0..CONNECTIONS {
            let config = client_config(&authority, &certificate, PrivateKeyDer::from_pem_file(&key).unwrap());
            let http = Http::connect(self.address, config).await;
            askers.push(Ask { http, method, path, body: body.to_vec(), hosts });
        }
        askers
    }

    /// Rounds end to end, placements, memory.
    pub fn figures(&self, table: &mut Table) {
        self.runtime.block_on(async {
            let mut everybody = self.attesters().await;
            let busy = everybody.split_off(HOSTS - CONNECTIONS);
            let busy = self.rounds(table, busy).await;
            everybody.extend(busy);
            self.placements(table, &mut everybody).await;
            let (now, idle) = (resident(&self.lab), self.idle);
            let what = format!("resident memory, {HOSTS} hosts admitted, {} connections", HOSTS + 2 * CONNECTIONS);
            let each = format!("{:.0} KiB a host", (now - idle) * 1024.0 / HOSTS as f64);
            table.push(&what, format!("{now:.1} MiB"), "before the first host", format!("{idle:.1} MiB"), each);
        });
    }

    async fn rounds(&self, table: &mut Table, mut clients: Vec<Rounds>) -> Vec<Rounds> {
        // The second round is a steady one: its bytes are the echo's.
        for client in &mut clients {
            client.step().await;
        }
        let script = clients[0].bytes.clone();
        let bytes: usize = script.iter().map(|one| one.sent + one.received).sum();
        let echo = Echo::serve(script).await;
        let mut echoes = Vec::new();
        for _ in 0..clients.len() {
            echoes.push(echo.connect().await);
        }
        let (mut ours, mut floor, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..SPANS {
            let before = cpu_seconds(self.pid());
            let one;
            (clients, one) = load(clients, SPAN).await;
            cpu.push((cpu_seconds(self.pid()) - before) / one.latencies.len() as f64);
            ours.push(one);
            let one;
            (echoes, one) = load(echoes, SPAN).await;
            floor.push(one);
        }
        let what = format!("rounds end to end, {CONNECTIONS} hosts at once, {bytes} bytes each");
        report(table, &what, ours, "a bare TLS echo of these bytes", floor);
        let commit = commit(self.directory.path().join("bare.sqlite"));
        let least = format!("{} each", seconds(commit));
        table.push(
            "CPU of the verifier for a round",
            seconds(median(cpu)),
            "two durable SQLite commits, waiting",
            seconds(2.0 * commit),
            least,
        );
        clients
    }

    async fn placements(&self, table: &mut Table, everybody: &mut Vec<Rounds>) {
        let request = PlacementRequest {
            label: LABEL.to_owned(),
            count: PLACED,
            spread: Spread::None,
            scheduler: Some(SCHEDULER.to_owned()),
        };
        let hosts = usize::try_from(PLACED).unwrap();
        let body = serde_json::to_vec(&request).unwrap();
        let mut queries = self.askers("POST", "/v1/placements", &body, hosts).await;
        let mut health = self.askers("GET", "/healthz", b"", 0).await;
        let (mut ours, mut floor) = (Vec::new(), Vec::new());
        for _ in 0..SPANS {
            // Leases are short: everybody attests again before each span.
            let clients = std::mem::take(everybody);
            *everybody = load(clients, Duration::from_nanos(1)).await.0;
            let one;
            (queries, one) = load(queries, SPAN).await;
            ours.push(one);
            let one;
            (health, one) = load(health, SPAN).await;
            floor.push(one);
        }
        let what = format!("placements of {PLACED} among {HOSTS} hosts, 3 pools, {CONNECTIONS} at once");
        report(table, &what, ours, "GET /healthz", floor);
    }
}

fn report(table: &mut Table, what: &str, mut ours: Vec<Load>, floor_is: &str, mut floor: Vec<Load>) {
    let rate = |loads: &[Load]| median(loads.iter().map(|one| one.per_second).collect());
    table.rates(what, rate(&ours), floor_is, rate(&floor));
    let all =
        |loads: &mut [Load]| loads.iter_mut().flat_map(|one| std::mem::take(&mut one.latencies)).collect::<Vec<_>>();
    let (mut ours, mut floor) = (all(&mut ours), all(&mut floor));
    for (name, part) in [("p50", 0.50), ("p99", 0.99)] {
        table.times(&format!("{name} of these"), quantile(&mut ours, part), floor_is, quantile(&mut floor, part));
    }
}

/// A host that runs rounds.
struct Rounds {
    http: Http,
    host: Arc<Attester>,
    /// The parts of a round that stay the same.
    draft: Option<Draft>,
    bytes: Vec<Exchange>,
}

impl Client for Rounds {
    async fn step(&mut self) {
        let answer = self.http.call("POST", "/v1/challenges", "application/json", b"{}").await;
        let challenge: Challenge = serde_json::from_slice(answer).unwrap();
        self.bytes = vec![self.http.last];
        let same = self.draft.take().filter(|draft| draft.ima.from == challenge.ima_from);
        let mut draft = same.unwrap_or_else(|| self.host.draft(&challenge));
        draft.unanchored.nonce = challenge.nonce;
        draft.bind();
        let evidence = self.host.sign(draft.clone()).encode();
        let answer = self.http.call("POST", "/v1/evidence", EVIDENCE_TYPE, &evidence).await;
        let outcome: RoundOutcome = serde_json::from_slice(answer).unwrap();
        self.bytes.push(self.http.last);
        assert_eq!((outcome.state, outcome.pools.len()), (HostState::Proven, 1), "{:?}", outcome.findings);
        self.draft = Some(draft);
    }
}

/// A client that asks one thing.
struct Ask {
    http: Http,
    method: &'static str,
    path: &'static str,
    body: Vec<u8>,
    hosts: usize,
}

impl Client for Ask {
    async fn step(&mut self) {
        let answer = self.http.call(self.method, self.path, "application/json", &self.body).await;
        if self.hosts > 0 {
            let placed: PlacementResponse = serde_json::from_slice(answer).unwrap();
            assert_eq!(placed.hosts.len(), self.hosts);
        }
    }
}

/// VmRSS of the verifier in MiB.
fn resident(lab: &Lab) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", lab.verifier.process().unwrap().pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

/// CPU seconds of a process so far (proc(5): utime and stime are fields 14 and 15, after a name that may hold spaces).
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / TICKS
}

/// Seconds of one durable commit of one small row, as the store commits, on the same file system.
fn commit(path: PathBuf) -> f64 {
    let sql = rusqlite::Connection::open(path).unwrap();
    sql.pragma_update(None, "journal_mode", "WAL").unwrap();
    sql.pragma_update(None, "synchronous", "FULL").unwrap();
    sql.execute_batch("CREATE TABLE one (number INTEGER PRIMARY KEY, bytes BLOB NOT NULL)").unwrap();
    let samples = (0..200)
        .map(|_| {
            let started = Instant::now();
            sql.execute("INSERT INTO one (bytes) VALUES (zeroblob(1024))", []).unwrap();
            started.elapsed().as_secs_f64()
        })
        .collect();
    median(samples)
}
