//! hostd's enrolment and renewal on a software TPM against the verifier, over real TLS.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use hostmark_attest::label::Label;
use hostmark_attest::span::Span;
use hostmark_attest::tpm::public::Public;
use hostmark_hostd::client::ClientError;
use hostmark_hostd::config::{Config, parse_pin};
use hostmark_hostd::doctor::{State, examine};
use hostmark_hostd::provision::{Progress, ProvisionError, Provisioned, Request, deprovision, provision};
use hostmark_hostd::tpm::{Auth, EkKind, Tpm};
use hostmark_tests::swtpm::{self, LocalCa, Swtpm};
use hostmark_verifier::api::types::WhoAmI;
use hostmark_verifier::auth::Role;
use hostmark_verifier::config::Config as VerifierConfig;
use hostmark_verifier::enrol::make_token;
use hostmark_verifier::server::Server;
use hostmark_verifier::setup;
use hostmark_verifier::state::AppState;
use hostmark_verifier::store::{Assignment, NewToken};
use zeroize::Zeroizing;

struct Scene {
    directory: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    verifier: AppState,
    address: String,
    tpm: Tpm,
    swtpm: Swtpm,
}

impl Scene {
    /// A verifier that trusts the TPM's maker as `simulated`, and a host that is unknown to it.
    fn new(what: &str, certificate_life: Duration) -> Option<Self> {
        if !swtpm::available(what) {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let ca = LocalCa::new(&at("ca")).unwrap();
        let swtpm = Swtpm::start(&at("tpm"), &ca).unwrap();
        let class = at("trust/ek/simulated");
        std::fs::create_dir_all(&class).unwrap();
        for (number, file) in ca.certificates().iter().enumerate() {
            std::fs::copy(file, class.join(format!("{number}.pem"))).unwrap();
        }
        let config = VerifierConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            state_dir: at("verifier"),
            trust_dir: at("trust"),
            host_certificate: Span(certificate_life),
            ..VerifierConfig::default()
        };
        setup::init(&config.state_dir, "admin", &config).unwrap();
        let verifier = setup::load(config).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let server = runtime.block_on(Server::bind(verifier.clone())).unwrap();
        let address = format!("https://{}", server.address().unwrap());
        runtime.spawn(server.run(std::future::pending()));
        let tpm = Tpm::open(&swtpm.tcti().parse().unwrap(), Auth::default()).unwrap();
        Some(Self { directory, runtime, verifier, address, tpm, swtpm })
    }

    fn state_dir(&self) -> PathBuf {
        self.directory.path().join("host")
    }

    fn provision(&self, token: Option<&str>, ek: Option<EkKind>) -> Result<Progress, ProvisionError> {
        let state_dir = self.state_dir();
        let token = token.map(|token| Zeroizing::new(token.to_owned()));
        let ca_pin = parse_pin("pin", &self.verifier.ca.pin()).unwrap();
        let request = Request { verifier: &self.address, ca_pin, token, ek, state_dir: &state_dir };
        self.runtime.block_on(provision(&self.tpm, &request))
    }

    fn provisioned(&self, token: Option<&str>) -> Provisioned {
        match self.provision(token, None).unwrap() {
            Progress::Provisioned(host) => *host,
            other @ Progress::Pending { .. } => panic!("{other:?}"),
        }
    }

    /// Whom the verifier sees when the host shows its certificate.
    fn whoami(&self, host: &Provisioned) -> WhoAmI {
        let keys = self.tpm.open_keys(&self.state_dir()).unwrap();
        let client = host.client(&self.tpm, &keys).unwrap();
        self.runtime.block_on(client.get("/v1/whoami")).unwrap().1
    }

    fn token(&self, node: &str, min_class: &str) -> String {
        let (token, hash) = make_token().unwrap();
        let now = self.verifier.now();
        let new = NewToken {
            id: "11111111-1111-4111-8111-111111111111".to_owned(),
            hash,
            ek_id: None,
            min_class: Some(min_class.to_owned()),
            expires_unix_ms: now.unix_ms + 60_000,
            assignment: assignment(node),
        };
        self.verifier.store.create_token(&now, "test", &new).unwrap();
        token.to_string()
    }
}

fn assignment(node: &str) -> Assignment {
    let label: Label = "internal".parse().unwrap();
    Assignment { node: node.to_owned(), scheduler: "swarm".to_owned(), label, policy: "server-uki".to_owned() }
}

const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn a_join_token_makes_a_host_once_and_running_again_changes_nothing() {
    let Some(scene) = Scene::new("provisioning with a join token", DAY) else { return };
    let token = scene.token("node-1", "simulated");
    let host = scene.provisioned(Some(&token));
    assert_eq!(host.identity.node, "node-1");
    let seen = scene.whoami(&host);
    assert_eq!((seen.role, seen.name.as_str()), (Role::Host, host.identity.host.as_str()));

    let again = scene.provisioned(None);
    assert_eq!(again.identity.host, host.identity.host);
    assert_eq!(again.identity.certificate, host.identity.certificate);

    // The host's record was lost, its TPM keys were not: a new enrolment finds the same host.
    let kept = std::fs::read_to_string(scene.state_dir().join("host.json")).unwrap();
    std::fs::remove_file(scene.state_dir().join("host.json")).unwrap();
    let host_again = scene.provisioned(None);
    assert_eq!(host_again.identity.host, host.identity.host, "the same AK is the same host");
    assert!(!kept.contains(&token), "the token is kept nowhere");
}

#[test]
fn a_host_waits_for_its_approver_and_continues() {
    let Some(scene) = Scene::new("provisioning with an approver", DAY) else { return };
    let told = [0, 1].map(|_| match scene.provision(None, None).unwrap() {
        Progress::Pending { ek_id, .. } => ek_id,
        Progress::Provisioned(host) => panic!("{host:?}"),
    });
    let waiting = scene.verifier.store.pending_enrolments().unwrap();
    assert_eq!(waiting.len(), 1, "running again is the same enrolment");
    assert!(told.iter().all(|ek_id| *ek_id == waiting[0].ek_id), "both sides name the machine alike");
    let kept = std::fs::read(scene.state_dir().join("enrolment.json")).unwrap();
    let now = scene.verifier.now();
    scene.verifier.store.approve(&now, "test", &waiting[0].host, &assignment("node-2")).unwrap();
    let host = scene.provisioned(None);
    assert_eq!(host.identity.host, waiting[0].host);
    assert_eq!(scene.whoami(&host).name, host.identity.host);
    assert!(!scene.state_dir().join("enrolment.json").exists());

    // The answer was lost on its way: the kept enrolment is asked for it once more.
    std::fs::write(scene.state_dir().join("enrolment.json"), kept).unwrap();
    std::fs::remove_file(scene.state_dir().join("host.json")).unwrap();
    let again = scene.provisioned(None);
    assert_eq!(again.identity.host, host.identity.host);
    assert_eq!(scene.whoami(&again).name, host.identity.host);
    assert!(matches!(
        scene.runtime.block_on(async {
            let state_dir = scene.state_dir();
            let other = Request {
                verifier: "https://127.0.0.1:1",
                ca_pin: [0; 32],
                token: None,
                ek: None,
                state_dir: &state_dir,
            };
            provision(&scene.tpm, &other).await
        }),
        Err(ProvisionError::OtherVerifier { .. })
    ));
    deprovision(&scene.state_dir()).unwrap();
    assert!(Provisioned::load(&scene.state_dir()).unwrap().is_none());
}

#[test]
fn an_expired_certificate_is_renewed_by_a_quote_and_brings_the_tag() {
    let Some(scene) = Scene::new("renewal by quote", Duration::from_secs(2)) else { return };
    let token = scene.token("node-3", "simulated");
    let first = scene.provisioned(Some(&token));
    let tag = vec![0x5A; 200];
    let row = scene.verifier.store.host(&first.identity.host).unwrap().unwrap();
    let ek = Public::parse(&row.ek_public).unwrap();
    scene.verifier.store.set_tag(&scene.verifier.now(), "test", &row.id, &tag, ek.name(), 1).unwrap();
    std::thread::sleep(Duration::from_millis(3100));
    let second = scene.provisioned(None);
    assert_eq!(second.identity.host, first.identity.host);
    assert_ne!(second.identity.certificate, first.identity.certificate);
    assert!(second.not_after() > first.not_after());
    assert_eq!(scene.tpm.read_tag().unwrap().unwrap(), tag);
    assert!(second.identity.tag.is_none(), "the tag is in NV, not in a file");
}

#[test]
fn every_kind_of_ek_enrols() {
    for kind in [EkKind::Rsa2048, EkKind::EccP384] {
        let Some(scene) = Scene::new("enrolment by kind of EK", DAY) else { return };
        let token = scene.token("node-4", "simulated");
        let progress = scene.provision(Some(&token), Some(kind)).unwrap();
        assert!(matches!(progress, Progress::Provisioned(_)), "{kind}");
    }
}

#[test]
fn a_refusal_is_told_with_its_finding_and_leaves_the_host_free_to_try_again() {
    let Some(scene) = Scene::new("refused provisioning", DAY) else { return };
    let weak = scene.token("node-5", "hardware");
    let error = scene.provision(Some(&weak), None).unwrap_err();
    let ProvisionError::Client(ClientError::Refused { status, body }) = &error else { panic!("{error}") };
    assert_eq!((*status, body.error.id.as_str()), (422, "token.class"), "{error}");
    assert!(!error.to_string().contains(&weak), "a token is never shown");
    assert!(matches!(scene.provision(None, None).unwrap(), Progress::Pending { .. }));
}

#[test]
fn doctor_finds_what_provisioning_made() {
    let Some(scene) = Scene::new("doctor", DAY) else { return };
    let config = Config {
        verifier: Some(scene.address.clone()),
        ca_pin: Some(scene.verifier.ca.pin()),
        tpm: scene.swtpm.tcti(),
        state_dir: scene.state_dir(),
        ..Config::default()
    };
    let token = scene.token("node-6", "simulated");
    scene.provisioned(Some(&token));
    // A software TPM serves one client: the scene's own goes before doctor comes.
    let Scene { directory: _directory, runtime, tpm, swtpm: _swtpm, .. } = scene;
    drop(tpm);
    let examine = |config: &Config| {
        let checks = runtime.block_on(examine(config, Auth::default()));
        checks.into_iter().map(|check| (check.id, check.state)).collect::<BTreeMap<_, _>>()
    };
    let checks = examine(&config);
    for id in
        ["tpm.bank", "tpm.ek-certificate", "tpm.keys", "tpm.signing-time", "host.provisioned", "verifier.reachable"]
    {
        assert_eq!(checks[id], State::Ok, "{id}");
    }
    assert_eq!(checks["tpm.kind"], State::Warning, "a software TPM is named as one");

    let fresh = Config { state_dir: config.state_dir.with_file_name("none"), ..config.clone() };
    let checks = examine(&fresh);
    assert_eq!((checks["tpm.keys"], checks["host.provisioned"]), (State::Skipped, State::Warning));
    assert_eq!(checks["verifier.reachable"], State::Ok, "by the pin");
    let wrong = Config { ca_pin: Some("00".repeat(32)), tpm: "swtpm:port=1".to_owned(), ..fresh };
    let checks = examine(&wrong);
    assert_eq!((checks["tpm.reachable"], checks["verifier.reachable"]), (State::Failed, State::Failed));
}
