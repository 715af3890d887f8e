//! A verifier in this process, on a port of its own, and clients of every kind.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hostmark_verifier::auth::Role;
use hostmark_verifier::config::Config;
use hostmark_verifier::server::Server;
use hostmark_verifier::setup;
use hostmark_verifier::state::AppState;
use rcgen::KeyPair;
use reqwest::{Client, Method, StatusCode};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub trait ReadWrite: std::io::Read + std::io::Write {}
impl<T: std::io::Read + std::io::Write> ReadWrite for T {}

pub struct Running {
    pub dir: tempfile::TempDir,
    pub state: AppState,
    pub address: SocketAddr,
}

impl Running {
    pub async fn start() -> Self {
        Self::start_with(|_, _| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Config, &Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            state_dir: dir.path().join("state"),
            trust_dir: dir.path().join("trust"),
            ..Config::default()
        };
        change(&mut config, dir.path());
        setup::init(&config.state_dir, "admin", &config).unwrap();
        let state = setup::load(config).unwrap();
        let server = Server::bind(state.clone()).await.unwrap();
        let address = server.address().unwrap();
        tokio::spawn(server.run(std::future::pending()));
        Self { dir, state, address }
    }

    fn tls(
        &self,
        identity: Option<(&str, &str)>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> rustls::ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.state.ca.certificate().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<_, _>>().unwrap();
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
            }
        }
    }

    fn http(&self, tls: rustls::ClientConfig) -> Client {
        Client::builder().tls_backend_preconfigured(tls).no_proxy().timeout(Duration::from_secs(30)).build().unwrap()
    }

    pub fn anonymous(&self) -> Client {
        self.http(self.tls(None, &[&rustls::version::TLS13]))
    }

    pub fn tls12(&self) -> Client {
        self.http(self.tls(None, &[&rustls::version::TLS12]))
    }

    pub fn with_certificate(&self, certificate: &str, key: &str) -> Client {
        self.http(self.tls(Some((certificate, key)), &[&rustls::version::TLS13]))
    }

    pub fn admin(&self) -> Client {
        let state = &self.state.config.state_dir;
        let read = |name: &str| std::fs::read_to_string(state.join(name)).unwrap();
        self.with_certificate(&read("admin.pem"), &read("admin.key"))
    }

    fn issue(&self, role: Role, name: &str, life: Duration, past: Duration, record: bool) -> Client {
        let key = KeyPair::generate().unwrap();
        let mut now = self.state.now();
        now.unix_ms -= i64::try_from(past.as_millis()).unwrap();
        let issued = self.state.ca.client(&key, role, name, life, &now).unwrap();
        if record {
            self.state.store.write(&now, |tx| tx.record_certificate(&issued)).unwrap();
        }
        self.with_certificate(&issued.chain_pem, &key.serialize_pem())
    }

    /// A client whose certificate counts.
    pub fn client(&self, role: Role, name: &str) -> Client {
        self.issue(role, name, Duration::from_secs(3600), Duration::ZERO, true)
    }

    /// An admin whose certificate ended an hour ago.
    pub fn expired(&self) -> Client {
        self.issue(Role::Admin, "late", Duration::from_secs(3600), Duration::from_secs(7200), true)
    }

    /// A certificate of our CA that the store does not know.
    pub fn stranger(&self) -> Client {
        self.issue(Role::Admin, "stranger", Duration::from_secs(3600), Duration::ZERO, false)
    }

    /// An admin by another CA of the same name.
    pub fn foreign(&self) -> Client {
        let ca_key = KeyPair::generate().unwrap();
        let pem = hostmark_verifier::ca::Ca::create(&ca_key, &self.state.now()).unwrap();
        let ca = hostmark_verifier::ca::Ca::load(&pem, ca_key).unwrap();
        let key = KeyPair::generate().unwrap();
        let issued = ca.client(&key, Role::Admin, "admin", Duration::from_secs(60), &self.state.now()).unwrap();
        self.with_certificate(&issued.chain_pem, &key.serialize_pem())
    }

    pub fn revoke(&self, name: &str) {
        self.state.store.write(&self.state.now(), |tx| tx.revoke_certificates(false, name).map(|_| ())).unwrap();
    }

    pub fn audit_length(&self) -> usize {
        self.state.store.audit_records(0, 1000).unwrap().len()
    }

    pub async fn try_send(&self, client: &Client, path: &str) -> Result<StatusCode, reqwest::Error> {
        Ok(client.get(format!("https://localhost:{}{path}", self.address.port())).send().await?.status())
    }

    /// Sends a request and gives status and text.
    pub async fn exchange(
        &self,
        client: &Client,
        method: &str,
        path: &str,
        body: Option<String>,
    ) -> (StatusCode, String) {
        let url = format!("https://localhost:{}{path}", self.address.port());
        let mut request = client.request(Method::from_bytes(method.as_bytes()).unwrap(), url);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let response = request.send().await.unwrap();
        (response.status(), response.text().await.unwrap())
    }

    fn id((status, text): (StatusCode, String)) -> (StatusCode, String) {
        let id = serde_json::from_str::<serde_json::Value>(&text)
            .ok()
            .and_then(|body| body["error"]["id"].as_str().map(str::to_owned))
            .unwrap_or_default();
        (status, id)
    }

    /// Status and finding id of a request.
    pub async fn send_to(
        &self,
        client: &Client,
        method: &str,
        path: &str,
        body: Option<String>,
    ) -> (StatusCode, String) {
        Self::id(self.exchange(client, method, path, body).await)
    }

    /// The same with some value for each path parameter.
    pub async fn send(&self, client: &Client, method: &str, path: &str) -> (StatusCode, String) {
        let path = path
            .replace("{name}", "nobody")
            .replace("{ek}", &"0".repeat(64))
            .replace("{pool}", "nowhere")
            .replace("{host}", "00000000-0000-4000-8000-000000000000")
            .replace("{id}", "00000000-0000-4000-8000-000000000000");
        self.send_to(client, method, &path, None).await
    }

    pub async fn send_as(&self, client: &Client, path: &str, media: &str, body: &str) -> (StatusCode, String) {
        let url = format!("https://localhost:{}{path}", self.address.port());
        let response = client.post(url).header("content-type", media).body(body.to_owned()).send().await.unwrap();
        Self::id((response.status(), response.text().await.unwrap()))
    }

    /// Talks over a bare TLS connection without certificate.
    pub fn raw<T>(&self, talk: impl FnOnce(&mut dyn ReadWrite) -> T) -> T {
        let config = Arc::new(self.tls(None, &[&rustls::version::TLS13]));
        let mut socket = std::net::TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut tls = rustls::ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
        talk(&mut rustls::Stream::new(&mut tls, &mut socket))
    }

    /// A raw handshake with a client that would resume.
    pub fn handshake_kind(&self) -> rustls::HandshakeKind {
        use std::io::{Read as _, Write as _};
        let config = Arc::new(self.tls(None, &[&rustls::version::TLS13]));
        let mut kind = None;
        for _ in 0..2 {
            let mut socket = std::net::TcpStream::connect(self.address).unwrap();
            let mut tls = rustls::ClientConnection::new(Arc::clone(&config), "localhost".try_into().unwrap()).unwrap();
            let mut stream = rustls::Stream::new(&mut tls, &mut socket);
            stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            assert!(answer.starts_with(b"HTTP/1.1 200"));
            kind = tls.handshake_kind();
        }
        kind.unwrap()
    }
}
