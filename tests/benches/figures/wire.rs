//! Load over loopback TLS: a lean HTTP/1.1 client that keeps its connection, a bare echo, and the clock around both.
//!
//! The client costs as little as it can, since it shares the machine with the server it measures.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A client's TLS 1.3: trusts `ca` (PEM), shows a certificate (PEM) and its key.
pub fn client_config(ca: &str, certificate: &str, key: PrivateKeyDer<'static>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<_, _>>().unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).unwrap().with_root_certificates(roots);
    Arc::new(builder.with_client_auth_cert(chain, key).unwrap())
}

async fn connect(address: SocketAddr, config: Arc<ClientConfig>) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    TlsConnector::from(config).connect(ServerName::from(address.ip()), stream).await.unwrap()
}

/// Bytes of a request and of its answer, heads included.
#[derive(Debug, Clone, Copy, Default)]
pub struct Exchange {
    pub sent: usize,
    pub received: usize,
}

/// A connection that speaks HTTP/1.1.
pub struct Http {
    stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
    address: SocketAddr,
    pub last: Exchange,
}

impl Http {
    pub async fn connect(address: SocketAddr, config: Arc<ClientConfig>) -> Self {
        Self { stream: connect(address, config).await, buffer: Vec::new(), address, last: Exchange::default() }
    }

    /// One request; its answer must be 200 with a content-length.
    pub async fn call(&mut self, method: &str, path: &str, media_type: &str, body: &[u8]) -> &[u8] {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\naccept: */*\r\ncontent-type: {media_type}\r\ncontent-length: {}\r\n\r\n",
            self.address,
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.stream.write_all(&request).await.unwrap();
        self.stream.flush().await.unwrap();
        self.buffer.clear();
        let head = loop {
            assert!(self.stream.read_buf(&mut self.buffer).await.unwrap() > 0, "{path}: the server closed");
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let text = String::from_utf8(self.buffer[..head].to_vec()).unwrap().to_ascii_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a content-length");
        let end = head + length.parse::<usize>().unwrap();
        while self.buffer.len() < end {
            assert!(self.stream.read_buf(&mut self.buffer).await.unwrap() > 0, "{path}: the server closed");
        }
        self.last = Exchange { sent: request.len(), received: end };
        let body = &self.buffer[head..end];
        assert!(text.starts_with("http/1.1 200"), "{path}: {text}{}", String::from_utf8_lossy(body));
        body
    }
}

/// A TLS 1.3 server that reads and writes as many bytes as a script of exchanges says, again and again, and looks at none.
pub struct Echo {
    address: SocketAddr,
    config: Arc<ClientConfig>,
    script: Arc<[Exchange]>,
}

impl Echo {
    /// Listens on a free port of loopback, with mutual TLS as the verifier has it.
    pub async fn serve(script: Vec<Exchange>) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
        let secret = || PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let clients =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(clients.build().unwrap())
            .with_single_cert(vec![certificate.der().clone()], secret())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let echo = Self {
            address: listener.local_addr().unwrap(),
            config: client_config(&certificate.pem(), &certificate.pem(), secret()),
            script: script.into(),
        };
        let script = Arc::clone(&echo.script);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, script) = (acceptor.clone(), Arc::clone(&script));
                tokio::spawn(async move {
                    stream.set_nodelay(true).unwrap();
                    let mut stream = acceptor.accept(stream).await.unwrap();
                    let mut bytes = vec![0; 1 << 20];
                    for exchange in script.iter().cycle() {
                        if stream.read_exact(&mut bytes[..exchange.sent]).await.is_err() {
                            return;
                        }
                        stream.write_all(&bytes[..exchange.received]).await.unwrap();
                        stream.flush().await.unwrap();
                    }
                });
            }
        });
        echo
    }

    pub async fn connect(&self) -> EchoClient {
        let stream = connect(self.address, Arc::clone(&self.config)).await;
        EchoClient { stream, script: Arc::clone(&self.script), bytes: vec![0; 1 << 20] }
    }
}

/// Runs the script once a step.
pub struct EchoClient {
    stream: TlsStream<TcpStream>,
    script: Arc<[Exchange]>,
    bytes: Vec<u8>,
}

impl Client for EchoClient {
    async fn step(&mut self) {
        for exchange in self.script.iter() {
            self.stream.write_all(&self.bytes[..exchange.sent]).await.unwrap();
            self.stream.flush().await.unwrap();
            self.stream.read_exact(&mut self.bytes[..exchange.received]).await.unwrap();
        }
    }
}

/// One connection's work.
pub trait Client: Send + 'static {
    fn step(&mut self) -> impl Future<Output = ()> + Send;
}

/// What clients did in one span.
#[derive(Default)]
pub struct Load {
    pub per_second: f64,
    pub latencies: Vec<Duration>,
}

/// Lets every client take steps, each its next as soon as its last is done, until `span` is over, at least one. The clients come back.
pub async fn load<C: Client>(clients: Vec<C>, span: Duration) -> (Vec<C>, Load) {
    let started = Instant::now();
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                loop {
                    let before = Instant::now();
                    client.step().await;
                    latencies.push(before.elapsed());
                    if started.elapsed() >= span {
                        break;
                    }
                }
                (client, latencies)
            })
        })
        .collect();
    let (mut back, mut load) = (Vec::new(), Load::default());
    for task in tasks {
        let (client, latencies) = task.await.unwrap();
        back.push(client);
        load.latencies.extend(latencies);
    }
    load.per_second = load.latencies.len() as f64 / started.elapsed().as_secs_f64();
    (back, load)
}
