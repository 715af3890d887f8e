//! Requests to the verifier: TLS 1.3, its CA or pin and no other root, the operator's certificate.
//!
//! RFC 8446. No proxies, no redirects, no resumption. It establishes whom the command speaks to; what an operator may do is the
//! verifier's to say.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use hostmark_attest::digest::sha256;
use hostmark_attest::finding::{Finding, Severity};
use hostmark_attest::wire::ErrorBody;
use reqwest::{Method, StatusCode, Url};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::connect::{Anchor, Connection};
use super::failure::Failure;
use super::input;

/// A fleet of 10,000 hosts with their findings stays below this.
const ANSWER_MAX: usize = 64 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Characters of a foreign error page that are shown.
const SHOWN_MAX: usize = 200;

/// A connection to one verifier.
#[derive(Debug)]
pub(super) struct Client {
    runtime: tokio::runtime::Runtime,
    http: reqwest::Client,
    base: Url,
}

/// No body.
pub(super) const NOTHING: Option<&()> = None;

impl Client {
    /// Prepares a connection; nothing is sent yet.
    pub(super) fn new(connection: &Connection) -> Result<Self, Failure> {
        let target = connection.target()?;
        let base = Url::parse(&target.verifier).ok().filter(|url| url.scheme() == "https" && url.has_host());
        let base = base.ok_or_else(|| {
            Failure::unusable(format!("`{}` is no verifier's address: write https://HOST:PORT", target.verifier))
        })?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verify: Arc<dyn ServerCertVerifier> = match &target.anchor {
            Anchor::Pin(pin) => Arc::new(PinVerifier { pin: *pin, provider: Arc::clone(&provider) }),
            Anchor::File(path) => {
                let pem = input::read(path, "a CA certificate", input::SMALL_MAX)?;
                let wrong = || Failure::unusable(format!("{}: holds no CA certificate in PEM", path.display()));
                let mut roots = RootCertStore::empty();
                for certificate in CertificateDer::pem_slice_iter(&pem) {
                    certificate.ok().and_then(|one| roots.add(one).ok()).ok_or_else(wrong)?;
                }
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                    .build()
                    .map_err(|_| wrong())?
            }
        };
        let pem = input::read(&target.cert, "a certificate", input::SMALL_MAX)?;
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect();
        if chain.is_empty() {
            return Err(Failure::unusable(format!("{}: holds no certificate in PEM", target.cert.display())));
        }
        let pem = zeroize::Zeroizing::new(input::read(&target.key, "a private key", input::SMALL_MAX)?);
        let key = PrivateKeyDer::from_pem_slice(&pem)
            .map_err(|_| Failure::unusable(format!("{}: holds no private key in PEM", target.key.display())))?;
        let unusable = |error: rustls::Error| {
            Failure::unusable(format!(
                "{} and {} cannot be used together: {error}",
                target.cert.display(),
                target.key.display()
            ))
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(verify)
            .with_client_auth_cert(chain, key)
            .map_err(unusable)?;
        config.resumption = Resumption::disabled();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .https_only(true)
            .tcp_nodelay(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .user_agent(concat!("hostmark/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Failure::unusable(reasons(&error)))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::unusable(format!("no async runtime: {error}")))?;
        Ok(Self { runtime, http, base })
    }

    /// GET.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, Failure> {
        self.json(Method::GET, path, &[], NOTHING)
    }

    /// GET with a query.
    pub(super) fn query<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, String)]) -> Result<T, Failure> {
        self.json(Method::GET, path, query, NOTHING)
    }

    /// POST with an answer.
    pub(super) fn post<T: DeserializeOwned>(&self, path: &[&str], body: &impl Serialize) -> Result<T, Failure> {
        self.json(Method::POST, path, &[], Some(body))
    }

    /// POST without an answer.
    pub(super) fn order(&self, path: &[&str], body: &impl Serialize) -> Result<(), Failure> {
        self.send(Method::POST, path, &[], Some(body)).map(|_| ())
    }

    /// DELETE.
    pub(super) fn delete(&self, path: &[&str]) -> Result<(), Failure> {
        self.send(Method::DELETE, path, &[], NOTHING).map(|_| ())
    }

    fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
        body: Option<&impl Serialize>,
    ) -> Result<T, Failure> {
        let answer = self.send(method, path, query, body)?;
        serde_json::from_slice(&answer).map_err(|error| {
            Failure::unreachable(format!(
                "{} answered something that this release does not understand ({error}): use the hostmark of the \
                 verifier's release",
                self.base
            ))
        })
    }

    /// Sends, and returns the body of a good answer.
    fn send(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
        body: Option<&impl Serialize>,
    ) -> Result<Vec<u8>, Failure> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            // Each part is one segment: no name reaches another route.
            segments.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = self.http.request(method, url);
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        let (status, bytes) = self
            .runtime
            .block_on(async {
                let mut response = request.send().await?;
                let mut bytes = Vec::new();
                while let Some(chunk) = response.chunk().await? {
                    if bytes.len().saturating_add(chunk.len()) > ANSWER_MAX {
                        return Ok((response.status(), None));
                    }
                    bytes.extend_from_slice(&chunk);
                }
                Ok::<_, reqwest::Error>((response.status(), Some(bytes)))
            })
            .map_err(|error| self.unreachable(&error))?;
        let bytes = bytes.ok_or_else(|| {
            Failure::unreachable(format!("the answer of {} is larger than {ANSWER_MAX} bytes", self.base))
        })?;
        if status.is_success() { Ok(bytes) } else { Err(self.refused(status, &bytes)) }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let why = reasons(error);
        let fix = if why.contains("UnknownIssuer") || why.contains("certificate") {
            "it is another verifier, or somebody between: compare --ca or --ca-pin with `verifier init`'s"
        } else {
            "is it running, and is --verifier right?"
        };
        Failure::unreachable(format!("cannot reach the verifier at {}: {why}: {fix}", self.base))
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> Failure {
        let Ok(body) = serde_json::from_slice::<ErrorBody>(body) else {
            let text: String = String::from_utf8_lossy(body).chars().take(SHOWN_MAX).collect();
            return Failure::unreachable(format!("{} answered {status}, as no verifier does: {text}", self.base));
        };
        let fix = match status {
            StatusCode::UNAUTHORIZED => Some("your certificate does not count: ask an admin for another"),
            StatusCode::FORBIDDEN => Some("your role may not do this: ask somebody whose role may"),
            StatusCode::NOT_FOUND => {
                Some("see what there is: hostmark host list, pool list, token list, operator list")
            }
            _ => None,
        };
        let mut first = body.error.clone();
        if let (None, Some(fix)) = (&first.fix, fix) {
            first = first.fix(fix);
        }
        let message = match status.as_u16() {
            400 | 404 | 413 | 415 => return Failure::unusable(first.to_string()).with(&body),
            429 | 500.. => return Failure::unreachable(first.to_string()).with(&body),
            _ => format!("refused: {first}"),
        };
        Failure::refused(message, &others(&body)).with(&body)
    }
}

/// The refusing findings behind the first.
fn others(body: &ErrorBody) -> Vec<Finding> {
    let heavy = |one: &&Finding| one.severity == Severity::Error && one.id != body.error.id;
    body.findings.iter().filter(heavy).cloned().collect()
}

/// The deepest reason: reqwest's own text names none.
fn reasons(error: &reqwest::Error) -> String {
    let mut last = error.to_string();
    let mut source = error.source();
    while let Some(deeper) = source {
        last = deeper.to_string();
        source = deeper.source();
    }
    last
}

/// Verifies a server by the digest of the CA certificate that it sends in its chain.
#[derive(Debug)]
struct PinVerifier {
    pin: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let pinned = intermediates.iter().find(|one| sha256(&[one]) == self.pin);
        let ca = pinned.ok_or(CertificateError::UnknownIssuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
