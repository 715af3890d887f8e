//! HTTPS to the verifier: TLS 1.3 only, one CA, the host's key in the TPM.
//!
//! RFC 8446. Before enrolment the CA is known by its pin, SHA-256 of its certificate: the server sends the CA certificate in its
//! chain, and the chain must verify up to exactly that one. Afterwards the CA itself is kept. No system roots, no proxies, no
//! redirects, no session resumption: every connection proves both keys anew. It establishes whom hostd speaks to, and nothing
//! about what is said.

use std::error::Error as _;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hostmark_attest::digest::sha256;
use hostmark_attest::tpm::public::Public;
use hostmark_attest::wire::ErrorBody;
use reqwest::{Response, StatusCode, Url};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::sign::{CertifiedKey, Signer, SigningKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureAlgorithm, SignatureScheme,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::tpm::{Identity, Tpm};

/// A round's outcome with all its findings stays far below this.
const MAX_BODY: usize = 8 << 20;
/// A body of an error page; the rest is of no use.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Appraisal of a whole first round on a small verifier takes seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Most words of a foreign error body that are shown.
const MAX_SHOWN: usize = 200;

/// Why the verifier gave no useful answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The address is not one hostd speaks to.
    #[error("`{0}` is no verifier's address: write https://HOST:PORT")]
    Address(String),
    /// No connection, or it broke.
    #[error("the verifier at {url} can not be reached: {reason}")]
    Unreachable {
        /// Its address.
        url: String,
        /// The chain of reasons.
        reason: String,
    },
    /// The server's chain has no CA with the pinned digest.
    #[error(
        "the server at {url} does not show the CA that is pinned ({pin}): this is another verifier, or somebody between; compare with `verifier init`'s pin"
    )]
    Pin {
        /// Its address.
        url: String,
        /// The pin in hex.
        pin: String,
    },
    /// The verifier refused, and said why.
    #[error("the verifier refused ({status}): {}", explain(body))]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its reasons.
        body: Box<ErrorBody>,
    },
    /// Something answered that is no verifier.
    #[error("{url} answered {status}, which is no answer of a verifier: {shown}")]
    Unexpected {
        /// What was asked.
        url: String,
        /// HTTP status.
        status: u16,
        /// The start of its answer.
        shown: String,
    },
    /// An answer above the limit.
    #[error("the answer of {url} is larger than {MAX_BODY} bytes")]
    TooLarge {
        /// What was asked.
        url: String,
    },
    /// Certificate or key cannot be used.
    #[error("the host's certificate can not be used: {0}; run `hostd provision`")]
    Certificate(String),
}

fn explain(body: &ErrorBody) -> String {
    let findings = if body.findings.is_empty() { std::slice::from_ref(&body.error) } else { &body.findings };
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl ClientError {
    /// Whether trying again later may help.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } | Self::Unexpected { status, .. } => *status == 429 || *status >= 500,
            _ => false,
        }
    }

    /// The HTTP status of a refusal.
    #[must_use]
    pub const fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } | Self::Unexpected { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// A connection pool to one verifier.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    pinned: Option<Arc<PinVerifier>>,
}

impl Client {
    /// Trusts the server whose chain ends in the CA with this digest. For enrolment.
    ///
    /// # Errors
    /// [`ClientError::Address`].
    pub fn pinned(verifier: &str, pin: [u8; 32]) -> Result<Self, ClientError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verify = Arc::new(PinVerifier { pin, provider: Arc::clone(&provider), seen: OnceLock::new() });
        let config = tls13(&provider)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verify) as Arc<dyn ServerCertVerifier>)
            .with_no_client_auth();
        Ok(Self { pinned: Some(verify), ..Self::build(verifier, config)? })
    }

    /// Trusts servers of this CA, and shows no certificate. For renewal.
    ///
    /// # Errors
    /// [`ClientError::Address`], [`ClientError::Certificate`].
    pub fn anonymous(verifier: &str, ca: &[u8]) -> Result<Self, ClientError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        Self::build(verifier, tls13(&provider)?.with_root_certificates(roots(ca)?).with_no_client_auth())
    }

    /// Trusts servers of this CA, and proves to be the host whose certificate chain (PEM) is over the TPM's TLS key.
    ///
    /// # Errors
    /// [`ClientError::Address`], [`ClientError::Certificate`].
    pub fn authenticated(
        verifier: &str,
        ca: &[u8],
        certificate: &str,
        tpm: &Tpm,
        identity: &Identity,
    ) -> Result<Self, ClientError> {
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| ClientError::Certificate(error.to_string()))?;
        if chain.is_empty() {
            return Err(ClientError::Certificate("it is not PEM".to_owned()));
        }
        let key = TlsKey::new(tpm.clone(), identity)?;
        let certified = CertifiedKey::new(chain, Arc::new(key));
        certified.keys_match().map_err(|error| ClientError::Certificate(error.to_string()))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = tls13(&provider)?
            .with_root_certificates(roots(ca)?)
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        Self::build(verifier, config)
    }

    fn build(verifier: &str, mut config: ClientConfig) -> Result<Self, ClientError> {
        let base = Url::parse(verifier).ok().filter(|url| url.scheme() == "https" && url.has_host());
        let base = base.ok_or_else(|| ClientError::Address(verifier.to_owned()))?;
        config.resumption = Resumption::disabled();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .https_only(true)
            .tcp_nodelay(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .user_agent(concat!("hostd/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| ClientError::Certificate(reasons(&error)))?;
        Ok(Self { http, base, pinned: None })
    }

    /// The CA certificate (DER) that matched the pin, once a connection was made.
    #[must_use]
    pub fn pinned_ca(&self) -> Option<Vec<u8>> {
        self.pinned.as_ref()?.seen.get()?.as_ref().cloned()
    }

    /// Posts JSON and reads JSON.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<(StatusCode, T), ClientError> {
        let url = self.url(path);
        let sent = self.http.post(url.clone()).json(body).send().await;
        self.answer(&url, sent).await
    }

    /// Posts bytes of a media type and reads JSON.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn post_bytes<T: DeserializeOwned>(
        &self,
        path: &str,
        media_type: &'static str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, T), ClientError> {
        let url = self.url(path);
        let sent = self.http.post(url.clone()).header("content-type", media_type).body(body).send().await;
        self.answer(&url, sent).await
    }

    /// Gets JSON.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<(StatusCode, T), ClientError> {
        let url = self.url(path);
        let sent = self.http.get(url.clone()).send().await;
        self.answer(&url, sent).await
    }

    /// Opens a stream of server-sent events; the caller reads chunks as they come, without a timeout over the whole.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn stream(&self, path: &str) -> Result<Response, ClientError> {
        let url = self.url(path);
        // The client's timeout covers the whole body; a stream is meant to last for days.
        let lasting = Duration::from_secs(7 * 86_400);
        let sent = self.http.get(url.clone()).header("accept", "text/event-stream").timeout(lasting).send().await;
        let response = sent.map_err(|error| self.unreachable(&url, &error))?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        Err(refused(&url, response.status(), &read_bounded(&url, response).await?))
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        let prefix = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{prefix}{path}"));
        url
    }

    async fn answer<T: DeserializeOwned>(
        &self,
        url: &Url,
        sent: Result<Response, reqwest::Error>,
    ) -> Result<(StatusCode, T), ClientError> {
        let response = sent.map_err(|error| self.unreachable(url, &error))?;
        let status = response.status();
        let body = read_bounded(url, response).await?;
        if !status.is_success() {
            return Err(refused(url, status, &body));
        }
        serde_json::from_slice(&body).map(|value| (status, value)).map_err(|_| unexpected(url, status, &body))
    }

    fn unreachable(&self, url: &Url, error: &reqwest::Error) -> ClientError {
        match &self.pinned {
            Some(verify) if verify.seen.get() == Some(&None) => {
                ClientError::Pin { url: url.to_string(), pin: hex::encode(verify.pin) }
            }
            _ => ClientError::Unreachable { url: url.to_string(), reason: reasons(error) },
        }
    }
}

async fn read_bounded(url: &Url, mut response: Response) -> Result<Vec<u8>, ClientError> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len().saturating_add(chunk.len()) <= MAX_BODY => body.extend_from_slice(&chunk),
            Ok(Some(_)) => return Err(ClientError::TooLarge { url: url.to_string() }),
            Ok(None) => return Ok(body),
            Err(error) => return Err(ClientError::Unreachable { url: url.to_string(), reason: reasons(&error) }),
        }
    }
}

fn refused(url: &Url, status: StatusCode, body: &[u8]) -> ClientError {
    match serde_json::from_slice(body) {
        Ok(body) => ClientError::Refused { status: status.as_u16(), body: Box::new(body) },
        Err(_) => unexpected(url, status, body),
    }
}

fn unexpected(url: &Url, status: StatusCode, body: &[u8]) -> ClientError {
    let text: String = String::from_utf8_lossy(body).chars().take(MAX_SHOWN).collect();
    let shown = hostmark_attest::finding::one_line(&text);
    ClientError::Unexpected { url: url.to_string(), status: status.as_u16(), shown }
}

/// An error with everything behind it: reqwest's own text names no reason.
fn reasons(error: &reqwest::Error) -> String {
    let mut last = error.to_string();
    let mut source = error.source();
    while let Some(deeper) = source {
        last = deeper.to_string();
        source = deeper.source();
    }
    last
}

fn tls13(
    provider: &Arc<CryptoProvider>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, ClientError> {
    ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| ClientError::Certificate(error.to_string()))
}

fn roots(ca: &[u8]) -> Result<RootCertStore, ClientError> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(ca.to_vec())).map_err(|error| ClientError::Certificate(error.to_string()))?;
    Ok(roots)
}

/// Verifies a server by the digest of its CA.
struct PinVerifier {
    pin: [u8; 32],
    provider: Arc<CryptoProvider>,
    /// The CA that matched and verified; `Some(None)` when the first chain held none with the pinned digest.
    seen: OnceLock<Option<Vec<u8>>>,
}

impl fmt::Debug for PinVerifier {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "PinVerifier({})", hex::encode(self.pin))
    }
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
        let Some(ca) = intermediates.iter().find(|one| sha256(&[one]) == self.pin) else {
            self.seen.get_or_init(|| None);
            return Err(CertificateError::UnknownIssuer.into());
        };
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let verified = verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        self.seen.get_or_init(|| Some(ca.to_vec()));
        Ok(verified)
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
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The TLS key in the TPM. A handshake waits for one TPM2_Sign.
#[derive(Debug, Clone)]
pub(crate) struct TlsKey {
    tpm: Tpm,
    spki: Vec<u8>,
    point: Vec<u8>,
}

impl TlsKey {
    pub(crate) fn new(tpm: Tpm, identity: &Identity) -> Result<Self, ClientError> {
        let public = Public::parse(&identity.tls_public)
            .map_err(|error| ClientError::Certificate(format!("the TLS key's public area: {error}")))?;
        let spki = public.key().to_spki().unwrap_or_default();
        Ok(Self { tpm, spki, point: public.key().key_bytes() })
    }
}

impl SigningKey for TlsKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SignatureScheme::ECDSA_NISTP256_SHA256).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(self.spki.as_slice()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for TlsKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.tpm.sign(sha256(&[message])).map_err(|error| rustls::Error::General(error.to_string()))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

impl rcgen::PublicKeyData for TlsKey {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for TlsKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.tpm.sign(sha256(&[message])).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}
