//! A REST client that shows whatever certificate a test wants, or none, and hides nothing of the answer.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use hostmark_attest::wire::ErrorBody;
use reqwest::Method;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Longer than any answer takes on a loaded machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A client of one verifier. Calls block; clones share connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    runtime: Arc<tokio::runtime::Runtime>,
}

/// A certificate and its key, PEM.
#[derive(Debug, Clone, Copy)]
pub struct Credentials<'a> {
    /// Certificate and chain.
    pub certificate: &'a str,
    /// PKCS#8 key.
    pub key: &'a str,
}

impl Client {
    /// Speaks to `base` (`https://…`), trusting the CA (PEM), with a certificate or none.
    ///
    /// # Errors
    /// When a certificate or key is unusable.
    pub fn new(base: &str, ca: &str, credentials: Option<Credentials<'_>>) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
            roots.add(certificate?)?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots);
        let config = match credentials {
            None => builder.with_no_client_auth(),
            Some(Credentials { certificate, key }) => {
                let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<_, _>>()?;
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes())?)?
            }
        };
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .no_proxy()
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT)
            .build()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Self { http, base: base.trim_end_matches('/').to_owned(), runtime: Arc::new(runtime) })
    }

    /// With certificate and key from files.
    ///
    /// # Errors
    /// When they cannot be read or used.
    pub fn from_files(base: &str, ca: &Path, certificate: &Path, key: &Path) -> anyhow::Result<Self> {
        let read = |path: &Path| std::fs::read_to_string(path).with_context(|| path.display().to_string());
        let (certificate, key) = (read(certificate)?, read(key)?);
        Self::new(base, &read(ca)?, Some(Credentials { certificate: &certificate, key: &key }))
    }

    /// The same client at another verifier's address.
    #[must_use]
    pub fn at(&self, base: &str) -> Self {
        Self { base: base.trim_end_matches('/').to_owned(), ..self.clone() }
    }

    /// Sends a request with a body of any media type, or none.
    ///
    /// # Errors
    /// When no answer came.
    pub fn send(&self, method: Method, path: &str, body: Option<(&str, Vec<u8>)>) -> anyhow::Result<Answer> {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some((media_type, bytes)) = body {
            request = request.header("content-type", media_type).body(bytes);
        }
        self.runtime.block_on(async {
            let response = request.send().await.with_context(|| path.to_owned())?;
            let status = response.status().as_u16();
            Ok(Answer { path: path.to_owned(), status, body: response.bytes().await?.to_vec() })
        })
    }

    /// `GET`.
    ///
    /// # Errors
    /// When no answer came.
    pub fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.send(Method::GET, path, None)
    }

    /// `POST` of JSON.
    ///
    /// # Errors
    /// When no answer came.
    pub fn post(&self, path: &str, body: &impl Serialize) -> anyhow::Result<Answer> {
        self.send(Method::POST, path, Some(("application/json", serde_json::to_vec(body)?)))
    }

    /// `PUT` of JSON.
    ///
    /// # Errors
    /// When no answer came.
    pub fn put(&self, path: &str, body: &impl Serialize) -> anyhow::Result<Answer> {
        self.send(Method::PUT, path, Some(("application/json", serde_json::to_vec(body)?)))
    }

    /// `DELETE`.
    ///
    /// # Errors
    /// When no answer came.
    pub fn delete(&self, path: &str) -> anyhow::Result<Answer> {
        self.send(Method::DELETE, path, None)
    }
}

/// What came back, whatever its status.
#[derive(Debug, Clone)]
pub struct Answer {
    path: String,
    /// HTTP status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Demands a status of 2xx and reads the JSON body.
    ///
    /// # Errors
    /// Another status, or another body.
    pub fn read<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        if !(200..300).contains(&self.status) {
            bail!("{self}");
        }
        serde_json::from_slice(&self.body).with_context(|| self.to_string())
    }

    /// The body as JSON; null when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The ids of all findings of a refusal, the first one's first.
    ///
    /// # Errors
    /// When the body is no refusal.
    pub fn refusal(&self) -> anyhow::Result<Vec<String>> {
        if (200..300).contains(&self.status) {
            bail!("not a refusal: {self}");
        }
        let body: ErrorBody = serde_json::from_slice(&self.body).with_context(|| self.to_string())?;
        let first = body.error.id;
        let others = body.findings.into_iter().map(|finding| finding.id).filter(|id| *id != first);
        let mut ids: Vec<String> = others.collect();
        ids.insert(0, first);
        Ok(ids)
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}: {} {}", self.path, self.status, String::from_utf8_lossy(&self.body))
    }
}
