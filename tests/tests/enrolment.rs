//! Enrolment and renewal over the wire: real software TPMs, hostd's own client, a verifier behind TLS. Rows of the attack table, each with its
//! honest twin.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use hostmark_attest::digest::sha256;
use hostmark_attest::selection::PcrSelection;
use hostmark_attest::span::Span;
use hostmark_attest::tpm::public::Public;
use hostmark_attest::wire::{
    Activation, B64, DOMAIN_QUOTE, DOMAIN_TLS, EnrolmentChallenge, EnrolmentOutcome, EnrolmentPoll, EnrolmentRequest,
    HostIdentity, Nonce, Renewal, RenewalChallenge, RenewalRequest, SignedAttest,
};
use hostmark_hostd::client::{Client, ClientError};
use hostmark_hostd::provision::{Progress, ProvisionError, Provisioned, Request, provision};
use hostmark_hostd::tpm::{Auth, EkKind, Identity, Tcti, Tpm};
use hostmark_tests::swtpm::{self, LocalCa, Swtpm};
use hostmark_verifier::api::types::{
    Approve, Assign, CreateToken, CreatedToken, Host, PreregisteredHost, Preregistrations, Rebind, SetTag, Standing,
};
use hostmark_verifier::config::Config;
use hostmark_verifier::server::Server;
use hostmark_verifier::setup;
use hostmark_verifier::state::AppState;
use reqwest::StatusCode;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A verifier in this process and the trust that the operator gave it.
struct Verifier {
    dir: tempfile::TempDir,
    state: AppState,
    url: String,
    operator: reqwest::Client,
}

impl Verifier {
    async fn start(trusted: &[PathBuf], change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            state_dir: dir.path().join("state"),
            trust_dir: dir.path().join("trust"),
            ..Config::default()
        };
        change(&mut config);
        let class = config.trust_dir.join("ek/simulated");
        std::fs::create_dir_all(&class).unwrap();
        for file in trusted {
            std::fs::copy(file, class.join(file.file_name().unwrap())).unwrap();
        }
        let made = setup::init(&config.state_dir, "admin", &config).unwrap();
        let state = setup::load(config).unwrap();
        let server = Server::bind(state.clone()).await.unwrap();
        let url = format!("https://127.0.0.1:{}", server.address().unwrap().port());
        tokio::spawn(server.run(std::future::pending()));
        let operator = operator(&made);
        Self { dir, state, url, operator }
    }

    fn pin(&self) -> [u8; 32] {
        hex::decode(self.state.ca.pin()).unwrap().try_into().unwrap()
    }

    fn stranger(&self) -> Client {
        Client::pinned(&self.url, self.pin()).unwrap()
    }

    async fn post(&self, path: &str, body: &impl serde::Serialize) -> (StatusCode, serde_json::Value) {
        let answer = self.operator.post(format!("{}{path}", self.url)).json(body).send().await.unwrap();
        (answer.status(), serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default())
    }

    async fn hosts(&self) -> Vec<Host> {
        self.operator.get(format!("{}/v1/hosts", self.url)).send().await.unwrap().json().await.unwrap()
    }

    async fn token(&self, node: &str, min_class: &str) -> String {
        let new = CreateToken {
            assignment: assign(node),
            ek_id: None,
            min_class: Some(min_class.into()),
            expires_in: "1h".parse().unwrap(),
        };
        let (status, answer) = self.post("/v1/tokens", &new).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
        serde_json::from_value::<CreatedToken>(answer).unwrap().token
    }
}

fn operator(made: &setup::Made) -> reqwest::Client {
    let read = |path: &Path| std::fs::read(path).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&read(&made.ca_certificate)).unwrap()).unwrap();
    let chain = CertificateDer::pem_slice_iter(&read(&made.admin_certificate)).collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(&read(&made.admin_key)).unwrap();
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build().unwrap()
}

fn assign(node: &str) -> Assign {
    Assign { node: node.into(), scheduler: "swarm-a".into(), label: "internal".into(), policy: None }
}

/// A machine with a software TPM, and what hostd keeps on it.
struct Machine {
    dir: tempfile::TempDir,
    _swtpm: Swtpm,
    tpm: Tpm,
}

/// Runs a tpm2-tools program on a TPM that nobody else has open: swtpm takes one client.
fn tool(swtpm: &Swtpm, line: &[&str]) {
    let mut run = Command::new(line[0]);
    run.args(&line[1..]).env("TPM2TOOLS_TCTI", swtpm.tcti()).env("TSS2_LOG", "all+NONE");
    assert!(run.stderr(Stdio::null()).stdout(Stdio::null()).status().unwrap().success(), "{line:?}");
}

impl Machine {
    fn start(ca: &LocalCa) -> Self {
        Self::start_with(ca, |_, _| {})
    }

    fn start_with(ca: &LocalCa, prepare: impl FnOnce(&Swtpm, &Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let swtpm = Swtpm::start(&dir.path().join("tpm"), ca).unwrap();
        prepare(&swtpm, dir.path());
        let tcti: Tcti = swtpm.tcti().parse().unwrap();
        let tpm = Tpm::open(&tcti, Auth::default()).unwrap();
        Self { dir, _swtpm: swtpm, tpm }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn keys(&self, kind: EkKind) -> Identity {
        std::fs::create_dir_all(self.state()).unwrap();
        self.tpm.create_keys(&self.state(), kind).unwrap()
    }

    async fn provision(
        &self,
        verifier: &Verifier,
        ek: Option<EkKind>,
        token: Option<String>,
    ) -> Result<Progress, ProvisionError> {
        let state = self.state();
        let request = Request {
            verifier: &verifier.url,
            ca_pin: verifier.pin(),
            token: token.map(Into::into),
            ek,
            state_dir: &state,
        };
        provision(&self.tpm, &request).await
    }

    fn request(&self, keys: &Identity, token: Option<String>) -> EnrolmentRequest {
        let ek = self.tpm.ek(Some(keys.ek)).unwrap();
        EnrolmentRequest {
            ek_public: B64(ek.public),
            ek_certificate: ek.certificate.map(B64),
            ek_intermediates: ek.intermediates.into_iter().map(B64).collect(),
            ak_public: B64(keys.ak_public.clone()),
            token,
        }
    }

    fn csr(&self, keys: &Identity) -> Vec<u8> {
        let public = Public::parse(&keys.tls_public).unwrap().key().key_bytes();
        let params = rcgen::CertificateParams::default();
        params.serialize_request(&Remote { tpm: self.tpm.clone(), public }).unwrap().der().to_vec()
    }

    fn activation(&self, keys: &Identity, challenge: &EnrolmentChallenge) -> Activation {
        let secret = self.tpm.activate_credential(&challenge.credential_blob.0, &challenge.encrypted_secret.0).unwrap();
        let csr = self.csr(keys);
        Activation {
            secret: B64(secret.to_vec()),
            tls_public: B64(keys.tls_public.clone()),
            certification: self.tpm.certify_tls_key(&challenge.nonce.bind(DOMAIN_TLS, &csr)).unwrap(),
            csr: B64(csr),
        }
    }

    fn renewal(&self, host: &str, keys: &Identity, challenge: &RenewalChallenge) -> Renewal {
        let csr = self.csr(keys);
        let nonce = challenge.nonce;
        Renewal {
            host: host.into(),
            nonce,
            quote: self.tpm.quote(&challenge.selection, &nonce.bind(DOMAIN_QUOTE, &csr)).unwrap().signed,
            tls_public: B64(keys.tls_public.clone()),
            certification: self.tpm.certify_tls_key(&nonce.bind(DOMAIN_TLS, &csr)).unwrap(),
            csr: B64(csr),
        }
    }
}

/// The TLS key in the TPM, as rcgen signs requests with it.
struct Remote {
    tpm: Tpm,
    public: Vec<u8>,
}

impl rcgen::PublicKeyData for Remote {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for Remote {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.tpm.sign(sha256(&[message])).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

/// Status and first finding of a refusal.
fn refused<T: std::fmt::Debug>(outcome: Result<T, ClientError>) -> (u16, String) {
    match outcome.unwrap_err() {
        ClientError::Refused { status, body } => (status, body.error.id),
        other => panic!("{other}"),
    }
}

fn provisioned(progress: Progress) -> Provisioned {
    match progress {
        Progress::Provisioned(host) => *host,
        other => panic!("{other:?}"),
    }
}

async fn begin(client: &Client, request: &EnrolmentRequest) -> Result<EnrolmentChallenge, ClientError> {
    Ok(client.post("/v1/enrolments", request).await?.1)
}

async fn activate(
    client: &Client,
    challenge: &EnrolmentChallenge,
    answer: &Activation,
) -> Result<EnrolmentOutcome, ClientError> {
    Ok(client.post(&format!("/v1/enrolments/{}/activation", challenge.enrolment), answer).await?.1)
}

fn ca() -> (tempfile::TempDir, LocalCa) {
    let dir = tempfile::tempdir().unwrap();
    let ca = LocalCa::new(&dir.path().join("ca")).unwrap();
    (dir, ca)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_enrols_by_each_kind_of_approval_and_is_renewed() {
    if !swtpm::available("enrolment by each kind of approval") {
        return;
    }
    let (_dir, ca) = ca();
    let machines = [Machine::start(&ca), Machine::start(&ca), Machine::start(&ca)];
    let verifier =
        Verifier::start(&ca.certificates(), |config| config.host_certificate = Span(std::time::Duration::from_secs(3)))
            .await;

    // A join token, RSA-2048 EK.
    let token = verifier.token("node-1", "simulated").await;
    let by_token = provisioned(machines[0].provision(&verifier, Some(EkKind::Rsa2048), Some(token)).await.unwrap());
    assert_eq!(by_token.identity.node, "node-1");

    // A pre-registered TPM, P-384 EK.
    let ek = Public::parse(&machines[1].tpm.ek(Some(EkKind::EccP384)).unwrap().public).unwrap();
    let ek_id = hex::encode(ek.key().id().unwrap());
    let list =
        Preregistrations { hosts: vec![PreregisteredHost { ek_id: ek_id.clone(), assignment: assign("node-2") }] };
    assert_eq!(verifier.post("/v1/preregistrations", &list).await.0, StatusCode::CREATED);
    let by_ek = provisioned(machines[1].provision(&verifier, Some(EkKind::EccP384), None).await.unwrap());
    assert_eq!(by_ek.identity.node, "node-2");

    // A person.
    assert!(matches!(machines[2].provision(&verifier, None, None).await.unwrap(), Progress::Pending { .. }));
    let waiting = verifier.hosts().await.into_iter().find(|host| host.state == Standing::Pending).unwrap();
    assert_eq!(waiting.class, "simulated");
    assert!(matches!(machines[2].provision(&verifier, None, None).await.unwrap(), Progress::Pending { .. }), "still");
    let path = format!("/v1/hosts/{}/approve", waiting.host);
    assert_eq!(
        verifier.post(&path, &Approve { assignment: assign("node-2") }).await.0,
        StatusCode::CONFLICT,
        "D14: taken"
    );
    assert_eq!(verifier.post(&path, &Approve { assignment: assign("node-3") }).await.0, StatusCode::NO_CONTENT);
    let by_person = provisioned(machines[2].provision(&verifier, None, None).await.unwrap());
    assert_eq!((by_person.identity.node.as_str(), by_person.identity.host.as_str()), ("node-3", waiting.host.as_str()));

    // Its certificate speaks for it, until it ends; then the AK's quote renews it.
    let keys = machines[2].tpm.open_keys(&machines[2].state()).unwrap();
    let client = by_person.client(&machines[2].tpm, &keys).unwrap();
    let own = format!("/v1/hosts/{}", by_person.identity.host);
    let (_, shown): (_, Host) = client.get(&own).await.unwrap();
    assert_eq!(shown.state, Standing::Unproven);
    assert_eq!(
        refused(client.get::<Host>(&format!("/v1/hosts/{}", by_ek.identity.host)).await).1,
        "auth.other-host",
        "D2"
    );
    tokio::time::sleep(std::time::Duration::from_millis(3100)).await;
    assert_eq!(refused(client.get::<Host>(&own).await), (401, "auth.expired".into()), "D1: on an open connection");
    let renewed = provisioned(machines[2].provision(&verifier, None, None).await.unwrap());
    assert_eq!(renewed.identity.host, by_person.identity.host);
    let client = renewed.client(&machines[2].tpm, &keys).unwrap();
    assert!(client.get::<Host>(&own).await.is_ok());
    drop(verifier.dir);
}

/// Certifies the P-256 EK as a maker would: swtpm_setup does it for RSA and P-384 only. The root is left in `root.pem`.
fn certify_p256_ek(swtpm: &Swtpm, dir: &Path) {
    let path = |name: &str| dir.join(name).display().to_string();
    tool(swtpm, &["tpm2_createek", "-Q", "-G", "ecc", "-c", &path("ek.ctx"), "-u", &path("ek.pem"), "-f", "pem"]);
    let key = rcgen::SubjectPublicKeyInfo::from_pem(&std::fs::read_to_string(path("ek.pem")).unwrap()).unwrap();
    let root = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    params.distinguished_name.push(rcgen::DnType::CommonName, "maker of P-256 EKs");
    std::fs::write(path("root.pem"), params.self_signed(&root).unwrap().pem()).unwrap();
    let issuer = rcgen::Issuer::new(params, root);
    let mut leaf = rcgen::CertificateParams::default();
    leaf.key_usages = vec![rcgen::KeyUsagePurpose::KeyAgreement];
    leaf.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::Other(vec![2, 23, 133, 8, 1])];
    leaf.is_ca = rcgen::IsCa::ExplicitNoCa;
    let der = leaf.signed_by(&key, &issuer).unwrap().der().to_vec();
    std::fs::write(path("ek.der"), &der).unwrap();
    let size = der.len().to_string();
    tool(
        swtpm,
        &["tpm2_nvdefine", "-Q", "0x1c0000a", "-C", "o", "-s", &size, "-a", "ownerread|ownerwrite|authread|no_da"],
    );
    tool(swtpm, &["tpm2_nvwrite", "-Q", "0x1c0000a", "-C", "o", "-i", &path("ek.der")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_a_p256_ek_enrols() {
    if !swtpm::available("enrolment with a P-256 EK") {
        return;
    }
    let (_dir, ca) = ca();
    let machine = Machine::start_with(&ca, certify_p256_ek);
    let verifier = Verifier::start(&[machine.dir.path().join("root.pem")], |_| {}).await;
    let token = verifier.token("node-1", "simulated").await;
    let host = provisioned(machine.provision(&verifier, Some(EkKind::EccP256), Some(token)).await.unwrap());
    assert_eq!(host.identity.node, "node-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a10_an_activation_by_another_tpm_or_for_another_ak_is_refused() {
    if !swtpm::available("A10") {
        return;
    }
    let (_dir, ca) = ca();
    let (honest, other) = (Machine::start(&ca), Machine::start(&ca));
    let verifier = Verifier::start(&ca.certificates(), |_| {}).await;
    let client = verifier.stranger();
    let (keys, foreign) = (honest.keys(EkKind::Rsa2048), other.keys(EkKind::Rsa2048));

    // The other TPM shows the honest EK, which anybody can read, with its own AK: neither TPM opens the credential.
    let mixed = EnrolmentRequest { ak_public: B64(foreign.ak_public.clone()), ..honest.request(&keys, None) };
    let challenge = begin(&client, &mixed).await.unwrap();
    assert!(other.tpm.activate_credential(&challenge.credential_blob.0, &challenge.encrypted_secret.0).is_err());
    assert!(honest.tpm.activate_credential(&challenge.credential_blob.0, &challenge.encrypted_secret.0).is_err());

    // So it guesses, or answers with the secret of an enrolment of its own.
    let own = begin(&client, &other.request(&foreign, None)).await.unwrap();
    let borrowed = other.activation(&foreign, &own);
    assert_eq!(refused(activate(&client, &challenge, &borrowed).await), (422, "enrolment.secret".into()));
    assert_eq!(
        refused(activate(&client, &challenge, &borrowed).await),
        (422, "enrolment.secret".into()),
        "burnt, and no oracle"
    );
    let poll = EnrolmentPoll { secret: B64(vec![0; 32]) };
    let asked = client.post::<EnrolmentOutcome>(&format!("/v1/enrolments/{}/certificate", own.enrolment), &poll).await;
    assert_eq!(refused(asked), (422, "enrolment.secret".into()));

    // A TLS key of another TPM under an honest secret.
    let challenge = begin(&client, &honest.request(&keys, None)).await.unwrap();
    let mut answer = honest.activation(&keys, &challenge);
    let theirs = other.csr(&foreign);
    answer.certification = other.tpm.certify_tls_key(&challenge.nonce.bind(DOMAIN_TLS, &theirs)).unwrap();
    (answer.tls_public, answer.csr) = (B64(foreign.tls_public.clone()), B64(theirs));
    assert_eq!(refused(activate(&client, &challenge, &answer).await), (422, "tls-key.signature".into()));

    // The honest twin.
    let challenge = begin(&client, &honest.request(&keys, None)).await.unwrap();
    let answer = honest.activation(&keys, &challenge);
    assert!(matches!(activate(&client, &challenge, &answer).await.unwrap(), EnrolmentOutcome::Pending { .. }));
    assert_eq!(refused(activate(&client, &challenge, &answer).await), (409, "enrolment.used".into()), "A11: once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a11_one_token_by_many_hosts_at_once() {
    if !swtpm::available("A11") {
        return;
    }
    let (_dir, ca) = ca();
    let machine = Machine::start(&ca);
    let verifier = Verifier::start(&ca.certificates(), |_| {}).await;
    let client = Arc::new(verifier.stranger());
    let token = verifier.token("node-1", "simulated").await;
    let keys = machine.keys(EkKind::Rsa2048);
    // One TPM cannot be a hundred hosts; one activation sent a hundred times is the race on the wire. The store's tests have 100 TPMs.
    let challenge = Arc::new(begin(&client, &machine.request(&keys, Some(token))).await.unwrap());
    let answer = Arc::new(machine.activation(&keys, &challenge));
    let running: Vec<_> = (0..100)
        .map(|_| {
            let (client, challenge, answer) = (Arc::clone(&client), Arc::clone(&challenge), Arc::clone(&answer));
            tokio::spawn(async move { activate(&client, &challenge, &answer).await })
        })
        .collect();
    let mut won = 0;
    for one in running {
        match one.await.unwrap() {
            Ok(EnrolmentOutcome::Approved { .. }) => won += 1,
            outcome => assert_eq!(refused(outcome), (409, "enrolment.used".into())),
        }
    }
    assert_eq!(won, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a13_another_tpm_or_ak_waits_for_a_person() {
    if !swtpm::available("A13") {
        return;
    }
    let (_dir, ca) = ca();
    let (first, second) = (Machine::start(&ca), Machine::start(&ca));
    let verifier = Verifier::start(&ca.certificates(), |_| {}).await;
    let token = verifier.token("node-1", "simulated").await;
    let host = provisioned(first.provision(&verifier, Some(EkKind::Rsa2048), Some(token)).await.unwrap());

    // The same TPM with a new AK, even with a token for another node.
    hostmark_hostd::provision::deprovision(&first.state()).unwrap();
    let token = verifier.token("node-9", "simulated").await;
    assert!(matches!(
        first.provision(&verifier, Some(EkKind::Rsa2048), Some(token)).await.unwrap(),
        Progress::Pending { .. }
    ));
    // Another TPM, with a token that names the host's node.
    let token = verifier.token("node-1", "simulated").await;
    assert!(matches!(second.provision(&verifier, None, Some(token)).await.unwrap(), Progress::Pending { .. }));
    let waiting: Vec<Host> =
        verifier.hosts().await.into_iter().filter(|one| one.state == Standing::RebindPending).collect();
    assert_eq!(waiting.len(), 2);
    assert!(waiting.iter().all(|one| one.host == host.identity.host));
    let path = format!("/v1/hosts/{}", host.identity.host);
    let (status, answer) = verifier.post(&format!("{path}/approve"), &Approve { assignment: assign("node-1") }).await;
    assert_eq!((status, &answer["error"]["id"]), (StatusCode::CONFLICT, &"enrolment.rebind".into()));

    // A person chooses; the other one stays out.
    let kept = waiting.iter().find(|one| one.enrolment.is_some()).unwrap();
    let rebind = Rebind { enrolment: kept.enrolment.clone() };
    assert_eq!(verifier.post(&format!("{path}/rebind"), &rebind).await.0, StatusCode::NO_CONTENT);
    let again = provisioned(first.provision(&verifier, Some(EkKind::Rsa2048), None).await.unwrap());
    assert_eq!((again.identity.host, again.identity.node), (host.identity.host, "node-1".into()));
    let out = second.provision(&verifier, None, None).await;
    assert!(
        matches!(&out, Err(ProvisionError::Client(ClientError::Refused { body, .. })) if body.error.id == "enrolment.refused"),
        "{out:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_a9_a12_a14_a25_what_is_no_endorsed_tpm_is_refused_or_told() {
    if !swtpm::available("A2, A9, A12, A14, A25") {
        return;
    }
    let (_dir, own) = ca();
    let (_other_dir, other) = ca();
    let (machine, foreign) = (Machine::start(&own), Machine::start(&other));
    let verifier = Verifier::start(&own.certificates(), |_| {}).await;
    let client = verifier.stranger();
    let (keys, theirs) = (machine.keys(EkKind::Rsa2048), foreign.keys(EkKind::Rsa2048));
    let honest = machine.request(&keys, None);
    let attributes = |bit: u8, byte: usize, set: bool| {
        let mut request = honest.clone();
        let bytes = &mut request.ak_public.0;
        bytes[byte] = if set { bytes[byte] | bit } else { bytes[byte] & !bit };
        request
    };
    let mut small = honest.clone();
    // TPMT_PUBLIC of an RSA EK ends in the modulus' TPM2B; half of it is RSA-1024.
    let whole = small.ek_public.0.len();
    small.ek_public.0.truncate(whole - 128);
    small.ek_public.0[whole - 258..whole - 256].copy_from_slice(&128u16.to_be_bytes());
    let key_bits = whole - 258 - 6;
    small.ek_public.0[key_bits..key_bits + 2].copy_from_slice(&1024u16.to_be_bytes());
    let swapped = EnrolmentRequest { ek_certificate: foreign.request(&theirs, None).ek_certificate, ..honest.clone() };
    let rows = [
        ("A2 restricted clear", attributes(0x01, 5, false), "ak.restricted"),
        ("A2 fixedTPM clear", attributes(0x02, 7, false), "ak.fixed-tpm"),
        ("A2 imported", attributes(0x20, 7, false), "ak.sensitive-data-origin"),
        ("A2 decrypt", attributes(0x02, 5, true), "ak.decrypt"),
        ("A2 noDA clear", attributes(0x04, 6, false), "ak.no-da"),
        ("A9 unknown CA", foreign.request(&theirs, None), "ek.chain"),
        ("A9 another TPM's certificate", swapped, "ek.key-mismatch"),
        ("A14 RSA-1024", small, "ek.key-size"),
    ];
    for (name, request, expect) in rows {
        let ClientError::Refused { status, body } = begin(&client, &request).await.unwrap_err() else {
            panic!("{name}")
        };
        let ids: Vec<&str> = body.findings.iter().map(|finding| finding.id.as_str()).collect();
        assert!(status == 422 && ids.contains(&expect), "{name}: {status} {ids:?}");
    }
    assert!(begin(&client, &honest).await.is_ok(), "the honest twin");

    // A25: without a certificate it is unverified, whoever approves it; A12: a token may ask for more than that.
    let bare = |token| EnrolmentRequest { ek_certificate: None, ..machine.request(&keys, token) };
    let token = verifier.token("node-1", "virtual").await;
    let challenge = begin(&client, &bare(Some(token.clone()))).await.unwrap();
    let refusal = refused(activate(&client, &challenge, &machine.activation(&keys, &challenge)).await);
    assert_eq!(refusal, (422, "token.class".into()));
    let challenge = begin(&client, &machine.request(&keys, Some(token))).await.unwrap();
    let refusal = refused(activate(&client, &challenge, &machine.activation(&keys, &challenge)).await);
    assert_eq!(refusal, (422, "token.class".into()), "A12: simulated");
    let list = Preregistrations {
        hosts: vec![PreregisteredHost {
            ek_id: hex::encode(Public::parse(&honest.ek_public.0).unwrap().key().id().unwrap()),
            assignment: assign("node-1"),
        }],
    };
    assert_eq!(verifier.post("/v1/preregistrations", &list).await.0, StatusCode::CREATED);
    let challenge = begin(&client, &bare(None)).await.unwrap();
    let outcome = activate(&client, &challenge, &machine.activation(&keys, &challenge)).await.unwrap();
    assert!(matches!(outcome, EnrolmentOutcome::Approved { .. }));
    assert_eq!(verifier.hosts().await[0].class, "unverified");
}

#[tokio::test(flavor = "multi_thread")]
async fn a18_d14_a_host_names_nothing() {
    if !swtpm::available("A18, D14") {
        return;
    }
    let (_dir, ca) = ca();
    let machine = Machine::start(&ca);
    let verifier = Verifier::start(&ca.certificates(), |_| {}).await;
    let client = verifier.stranger();
    let keys = machine.keys(EkKind::Rsa2048);
    let honest = serde_json::to_value(machine.request(&keys, None)).unwrap();
    let with = |field: &str, value: serde_json::Value| {
        let mut body = honest.clone();
        body[field] = value;
        body
    };
    let rows = [
        ("a node name", with("node", "node-1".into()), (400, "request.malformed")),
        ("a host id", with("host", "6f1c2f0e-2f57-4c3e-9a51-6f4f3f8b1a00".into()), (400, "request.malformed")),
        ("a label", with("label", "restricted".into()), (400, "request.malformed")),
        ("a token with a newline", with("token", "hmt_\n".into()), (400, "request.token")),
        ("one megabyte", with("token", "x".repeat(1 << 20).into()), (413, "request.size")),
        ("bytes that are no key", with("ak_public", "AAAA".into()), (400, "request.ak_public")),
    ];
    for (name, body, (status, id)) in rows {
        assert_eq!(
            refused(client.post::<serde_json::Value>("/v1/enrolments", &body).await),
            (status, id.to_owned()),
            "{name}"
        );
    }
    for id in ["x%0ay", "..%2f", "6F1C2F0E-2F57-4C3E-9A51-6F4F3F8B1A00", &"a".repeat(5000)] {
        let poll = EnrolmentPoll { secret: B64(vec![0; 32]) };
        let asked = client.post::<EnrolmentOutcome>(&format!("/v1/enrolments/{id}/certificate"), &poll).await;
        assert_eq!(refused(asked), (400, "request.id".into()));
    }
    assert!(client.post::<EnrolmentChallenge>("/v1/enrolments", &honest).await.is_ok(), "the honest twin");
}

#[tokio::test(flavor = "multi_thread")]
async fn a22_a_tag_is_signed_for_this_machine_and_newer_than_the_last() {
    if !swtpm::available("A22 (provisioning)") {
        return;
    }
    let (_dir, ca) = ca();
    let (machine, other) = (Machine::start(&ca), Machine::start(&ca));
    let signer = rcgen::KeyPair::generate().unwrap();
    let stranger = rcgen::KeyPair::generate().unwrap();
    let verifier = Verifier::start(&ca.certificates(), |config| {
        let signers = config.trust_dir.join("signers");
        std::fs::create_dir_all(&signers).unwrap();
        std::fs::write(signers.join("ann.pem"), signer.public_key_pem()).unwrap();
    })
    .await;
    let token = verifier.token("node-1", "simulated").await;
    let host = provisioned(machine.provision(&verifier, Some(EkKind::Rsa2048), Some(token)).await.unwrap());
    let tag = |machine: &Machine, serial, key: &rcgen::KeyPair| {
        let ek = Public::parse(&machine.tpm.ek(Some(EkKind::Rsa2048)).unwrap().public).unwrap();
        let key = hostmark_attest::jws::SoftwareKey::from_pkcs8(key.serialized_der()).unwrap();
        let tag = hostmark_attest::identity::tag::Tag {
            ek: ek.name().clone(),
            serial,
            label: "internal".parse().unwrap(),
            location: "jp-east/rack-7".into(),
            not_before: 0,
            not_after: u64::from(u32::MAX),
        };
        SetTag { nv: B64(tag.sign(&key).unwrap()) }
    };
    let path = format!("/v1/hosts/{}/tag", host.identity.host);
    let mut cut = tag(&machine, 6, &signer);
    cut.nv.0.pop();
    let honest = tag(&machine, 5, &signer);
    let rows = [
        ("honest", honest.clone(), 204, ""),
        ("again", honest.clone(), 409, "tag.serial"),
        ("older", tag(&machine, 4, &signer), 409, "tag.serial"),
        ("another machine's", tag(&other, 6, &signer), 422, "tag.ek"),
        ("by a stranger", tag(&machine, 6, &stranger), 422, "tag.provisioning.key"),
        ("cut", cut, 422, "tag.provisioning.malformed"),
    ];
    for (name, body, status, id) in rows {
        let (got, answer) = verifier.post(&path, &body).await;
        assert_eq!((got.as_u16(), answer["error"]["id"].as_str().unwrap_or("")), (status, id), "{name}");
    }
    // The host gets it with its next certificate, and writes it into its TPM.
    let keys = machine.tpm.open_keys(&machine.state()).unwrap();
    let mut host = host;
    host.renew(&machine.state(), &machine.tpm, &keys).await.unwrap();
    assert_eq!(machine.tpm.read_tag().unwrap(), Some(honest.nv.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a3_a4_a15_a20_a_renewal_is_bound_to_nonce_host_and_key() {
    if !swtpm::available("A3, A4, A15, A20") {
        return;
    }
    let (_dir, ca) = ca();
    let (a, b) = (Machine::start(&ca), Machine::start(&ca));
    let verifier =
        Verifier::start(&ca.certificates(), |config| config.nonce_life = Span(std::time::Duration::from_secs(4))).await;
    let client = verifier.stranger();
    let enrol = async |machine: &Machine, node: &str| {
        let token = verifier.token(node, "simulated").await;
        provisioned(machine.provision(&verifier, Some(EkKind::Rsa2048), Some(token)).await.unwrap()).identity.host
    };
    let (host_a, host_b) = (enrol(&a, "node-a").await, enrol(&b, "node-b").await);
    let (keys_a, keys_b) = (a.tpm.open_keys(&a.state()).unwrap(), b.tpm.open_keys(&b.state()).unwrap());
    let challenge = async |host: &str| -> RenewalChallenge {
        client.post("/v1/renewals/challenge", &RenewalRequest { host: host.into() }).await.unwrap().1
    };
    let renew = async |renewal: &Renewal| -> Result<HostIdentity, ClientError> {
        Ok(client.post("/v1/renewals", renewal).await?.1)
    };

    let first = a.renewal(&host_a, &keys_a, &challenge(&host_a).await);
    assert_eq!(renew(&first).await.unwrap().host, host_a, "the honest twin");
    assert_eq!(refused(renew(&first).await), (422, "nonce.used".into()));
    let for_b = challenge(&host_b).await;
    assert_eq!(refused(renew(&a.renewal(&host_a, &keys_a, &for_b)).await), (422, "nonce.other-host".into()));
    let mut unknown = challenge(&host_a).await;
    unknown.nonce = Nonce([9; 32]);
    assert_eq!(refused(renew(&a.renewal(&host_a, &keys_a, &unknown)).await), (422, "nonce.unknown".into()));
    assert_eq!(
        refused(renew(&b.renewal(&host_a, &keys_b, &challenge(&host_a).await)).await),
        (422, "quote.signature".into()),
        "A4"
    );

    let fresh = challenge(&host_a).await;
    let good = a.renewal(&host_a, &keys_a, &fresh);
    let other_selection = PcrSelection::from_text("sha256:16").unwrap();
    let elsewhere = a.tpm.quote(&other_selection, &fresh.nonce.bind(DOMAIN_QUOTE, &good.csr.0)).unwrap().signed;
    let quoted_raw = a.tpm.quote(&fresh.selection, &fresh.nonce.0).unwrap().signed;
    let padded = a
        .tpm
        .quote(&fresh.selection, &[&fresh.nonce.bind(DOMAIN_QUOTE, &good.csr.0)[..], &[0]].concat())
        .unwrap()
        .signed;
    let another_csr = a.csr(&keys_a);
    let with_quote = |quote: SignedAttest| Renewal { quote, ..good.clone() };
    let rows = [
        ("A20 a certification as the quote", with_quote(good.certification.clone()), "quote.type"),
        (
            "A20 a quote as the certification",
            Renewal { certification: good.quote.clone(), ..good.clone() },
            "tls-key.type",
        ),
        ("A5 another PCR", with_quote(elsewhere), "renewal.selection"),
        ("A15 the nonce itself", with_quote(quoted_raw), "quote.nonce"),
        ("A15 padded", with_quote(padded), "quote.nonce"),
        ("another request under the same quote", Renewal { csr: B64(another_csr), ..good.clone() }, "quote.nonce"),
        ("another key", Renewal { tls_public: B64(keys_b.tls_public.clone()), ..good.clone() }, "tls-key.name"),
    ];
    for (name, renewal, expect) in rows {
        let ClientError::Refused { status, body } = renew(&renewal).await.unwrap_err() else { panic!("{name}") };
        let ids: Vec<&str> = body.findings.iter().map(|finding| finding.id.as_str()).collect();
        assert!(status == 422 && (ids.contains(&expect) || body.error.id == expect), "{name}: {status} {ids:?}");
    }
    let mut upper = serde_json::to_value(&good).unwrap();
    upper["nonce"] = good.nonce.to_string().to_uppercase().into();
    let twice = client.post::<HostIdentity>("/v1/renewals", &upper).await;
    assert_eq!(refused(twice), (400, "request.malformed".into()), "A15: one encoding");
    assert!(renew(&good).await.is_ok(), "no refusal used the nonce up");
    let late = a.renewal(&host_a, &keys_a, &challenge(&host_a).await);
    tokio::time::sleep(std::time::Duration::from_millis(4100)).await;
    assert_eq!(refused(renew(&late).await), (422, "nonce.expired".into()));
}
