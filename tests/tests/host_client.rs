//! hostd's HTTPS client against real TLS servers: the pin, the host's key in the TPM, limits.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;

use hostmark_attest::digest::sha256;
use hostmark_attest::tpm::public::Public;
use hostmark_hostd::client::{Client, ClientError};
use hostmark_hostd::tpm::{Auth, EkKind, Tpm};
use hostmark_tests::swtpm::{self, LocalCa, Swtpm};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

struct TestCa {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    pem: String,
}

impl TestCa {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate = params.self_signed(&key).unwrap();
        Self { issuer: Issuer::new(params, key), der: certificate.der().clone(), pem: certificate.pem() }
    }

    fn pin(&self) -> [u8; 32] {
        sha256(&[&self.der])
    }

    fn server(&self, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        (vec![certificate.der().clone(), self.der.clone()], private)
    }
}

struct Server<'a> {
    ca: &'a TestCa,
    name: &'a str,
    clients: Option<&'a TestCa>,
    versions: &'static [&'static SupportedProtocolVersion],
    answer: Vec<u8>,
}

impl Server<'_> {
    /// Serves one connection and gives the server's address.
    fn once(self) -> String {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(self.versions).unwrap();
        let (chain, key) = self.ca.server(self.name);
        let builder = match self.clients {
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                roots.add(clients.der.clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
                builder.with_client_cert_verifier(verifier)
            }
            None => builder.with_no_client_auth(),
        };
        let config = Arc::new(builder.with_single_cert(chain, key).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut tls = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
            // A refused handshake is what some rows are about.
            if tls.read(&mut [0; 4096]).is_ok() {
                let _ = tls.write_all(&self.answer).and_then(|()| tls.flush());
                tls.conn.send_close_notify();
                let _ = tls.flush();
            }
        });
        format!("https://{address}")
    }
}

const TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
const TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];

fn answer(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len()).into_bytes()
}

fn get(client: &Client) -> Result<serde_json::Value, ClientError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(client.get("/v1/x")).map(|(_, value)| value)
}

#[test]
fn only_the_pinned_verifier_is_spoken_to() {
    let (ours, theirs) = (TestCa::new(), TestCa::new());
    let good =
        |ca| Server { ca, name: "127.0.0.1", clients: None, versions: TLS13, answer: answer("200 OK", "{\"a\":1}") };

    let client = Client::pinned(&good(&ours).once(), ours.pin()).unwrap();
    assert_eq!(client.pinned_ca(), None, "nothing is believed before a connection");
    assert_eq!(get(&client).unwrap(), serde_json::json!({ "a": 1 }));
    assert_eq!(client.pinned_ca().unwrap(), ours.der.as_ref());

    let client = Client::pinned(&good(&theirs).once(), ours.pin()).unwrap();
    assert!(matches!(get(&client).unwrap_err(), ClientError::Pin { .. }), "another CA");

    // The pinned CA is shown, and the leaf is another's.
    let mixed = {
        let (mut chain, key) = theirs.server("127.0.0.1");
        chain[1] = ours.der.clone();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(TLS13)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let _ = StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), stream).read(&mut [0; 64]);
        });
        format!("https://{address}")
    };
    let client = Client::pinned(&mixed, ours.pin()).unwrap();
    let error = get(&client).unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    assert_eq!(client.pinned_ca(), None, "a chain that does not verify leaves no CA behind");

    let other_name = Server { name: "elsewhere", ..good(&ours) };
    assert!(get(&Client::pinned(&other_name.once(), ours.pin()).unwrap()).is_err(), "another server's name");
    let old = Server { versions: TLS12, ..good(&ours) };
    assert!(get(&Client::pinned(&old.once(), ours.pin()).unwrap()).is_err(), "TLS 1.2");
    assert!(matches!(Client::pinned("http://127.0.0.1:1", ours.pin()), Err(ClientError::Address(_))));
}

#[test]
fn answers_are_bounded_and_named() {
    let ca = TestCa::new();
    let serve = |bytes| Server { ca: &ca, name: "127.0.0.1", clients: None, versions: TLS13, answer: bytes }.once();
    let ask = |bytes| get(&Client::pinned(&serve(bytes), ca.pin()).unwrap()).unwrap_err();

    let refusal = r#"{"error":{"id":"token.used","severity":"error","message":"the token was used"}}"#;
    let error = ask(answer("403 Forbidden", refusal));
    assert!(matches!(error, ClientError::Refused { status: 403, .. }), "{error}");
    assert!(error.to_string().contains("the token was used"), "{error}");

    let error = ask(answer("502 Bad Gateway", "<html>\u{1b}[31mproxy"));
    assert!(matches!(error, ClientError::Unexpected { status: 502, .. }), "{error}");
    assert!(!error.to_string().contains('\u{1b}'), "control characters are not shown");
    assert!(error.is_temporary());

    let large = answer("200 OK", &"x".repeat(9 << 20));
    assert!(matches!(ask(large), ClientError::TooLarge { .. }));
    let moved = b"HTTP/1.1 302 Found\r\nlocation: https://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n".to_vec();
    assert!(matches!(ask(moved), ClientError::Unexpected { status: 302, .. }), "redirects are not followed");
}

#[test]
fn the_host_proves_itself_with_a_key_that_stays_in_the_tpm() {
    if !swtpm::available("mutual TLS with a TPM key") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let tpm_ca = LocalCa::new(&directory.path().join("ca")).unwrap();
    let swtpm = Swtpm::start(&directory.path().join("tpm"), &tpm_ca).unwrap();
    let tpm = Tpm::open(&swtpm.tcti().parse().unwrap(), Auth::default()).unwrap();
    let keys = tpm.create_keys(&directory.path().join("state"), EkKind::EccP384).unwrap();

    let (ca, stranger) = (TestCa::new(), TestCa::new());
    let spki = Public::parse(&keys.tls_public).unwrap().key().to_spki().unwrap();
    let public = rcgen::SubjectPublicKeyInfo::from_der(&spki).unwrap();
    let certify = |by: &TestCa| {
        let certificate = CertificateParams::default().signed_by(&public, &by.issuer).unwrap();
        format!("{}{}", certificate.pem(), by.pem)
    };
    let serve = || Server {
        ca: &ca,
        name: "127.0.0.1",
        clients: Some(&ca),
        versions: TLS13,
        answer: answer("200 OK", "{\"known\":true}"),
    };
    let client = |certificate: &str| Client::authenticated(&serve().once(), &ca.der, certificate, &tpm, &keys);

    assert_eq!(get(&client(&certify(&ca)).unwrap()).unwrap(), serde_json::json!({ "known": true }));
    assert!(get(&client(&certify(&stranger)).unwrap()).is_err(), "a certificate of another CA");
    assert!(get(&Client::anonymous(&serve().once(), &ca.der).unwrap()).is_err(), "no certificate");
    let other_key = CertificateParams::default().signed_by(&KeyPair::generate().unwrap(), &ca.issuer).unwrap().pem();
    assert!(matches!(client(&other_key), Err(ClientError::Certificate(_))), "a certificate of another key");
}
