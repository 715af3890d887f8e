//! TLS 1.3 with optional client certificates, and the accept loop.
//!
//! RFC 8446. A client certificate is verified against our CA at the handshake: chain, signature, usage. Whether it still counts is asked on
//! every request (`auth`), so expiry is **not** judged here: an expired host must be told so, to renew. No tickets, no resumption.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme,
};

use crate::ca::{Ca, CaError};
use crate::clock::Now;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// rustls refused the configuration.
    #[error("TLS: {0}")]
    Rustls(#[from] Error),
    /// The server certificate could not be made.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The CA certificate is no trust anchor.
    #[error("the CA certificate is unusable as a trust anchor: {0}")]
    Anchor(#[from] rustls::server::VerifierBuilderError),
}

/// Verifies client certificates at a time at which they were valid; `auth` judges the present.
#[derive(Debug)]
struct ByChain(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for ByChain {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let bad = || Error::InvalidCertificate(CertificateError::BadEncoding);
        let (_, certificate) = x509_parser::parse_x509_certificate(end_entity).map_err(|_| bad())?;
        let end = u64::try_from(certificate.validity().not_after.timestamp()).map_err(|_| bad())?;
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now.as_secs().min(end)));
        self.0.verify_client_cert(end_entity, intermediates, at)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// The server certificate of the day.
#[derive(Debug)]
pub struct ServerCertificate(std::sync::RwLock<Arc<CertifiedKey>>);

impl ServerCertificate {
    /// Makes the first one.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new(ca: &Ca, names: &[String], now: &Now) -> Result<Self, TlsError> {
        Ok(Self(std::sync::RwLock::new(Self::make(ca, names, now)?)))
    }

    fn make(ca: &Ca, names: &[String], now: &Now) -> Result<Arc<CertifiedKey>, TlsError> {
        let (chain, key) = ca.server(names, now)?;
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)?;
        Ok(Arc::new(CertifiedKey::new(chain, key)))
    }

    /// Makes another one, for new connections.
    ///
    /// # Errors
    /// [`TlsError`]; the old one stays.
    pub fn renew(&self, ca: &Ca, names: &[String], now: &Now) -> Result<(), TlsError> {
        let fresh = Self::make(ca, names, now)?;
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = fresh;
        Ok(())
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner)))
    }
}

/// The server's TLS configuration.
///
/// # Errors
/// [`TlsError`].
pub fn server_config(ca: &Ca, certificate: Arc<ServerCertificate>) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(ca.certificate().clone())?;
    let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(ByChain(inner)))
        .with_cert_resolver(certificate);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Where a request came from; handlers get it as an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remote(pub SocketAddr);
