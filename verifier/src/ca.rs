//! The verifier's own certificate authority: its server certificate and the client certificates of hosts and operators.
//!
//! RFC 5280. Role and id stand in the subject (`O=hostmark:ROLE`, `CN=` the operator's name or host id); they count only together with the
//! store's row of the serial (see `auth`). Establishes who may speak, never whether a host is trusted.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;

use hostmark_attest::digest::sha256;

use crate::auth::Role;
use crate::clock::{Now, millis};
use crate::keys::{KeyError, random};

/// Life of the CA certificate.
const CA_LIFE: Duration = Duration::from_secs(10 * 366 * 86_400);
/// Life of a server certificate; it is made anew at every start and once a day.
const SERVER_LIFE: Duration = Duration::from_secs(30 * 86_400);
/// How far before now a certificate begins, for clients whose clocks are behind.
const BACKDATE: Duration = Duration::from_secs(300);
/// Largest certificate request. A P-256 request with a long subject has about 600 bytes; RSA-4096 about 1,600.
const CSR_MAX: usize = 8 * 1024;

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaError {
    /// The request is not a PKCS#10 request that its own key has signed.
    #[error("not a PKCS#10 certificate request signed by its own key")]
    Request,
    /// The request's key is not on the list.
    #[error("the key of a client certificate must be ECDSA P-256 or P-384, or Ed25519")]
    RequestKey,
    /// A name cannot stand in a certificate.
    #[error("`{0}` cannot stand in a certificate")]
    Name(String),
    /// The CA's own files are unusable.
    #[error("the CA certificate or key is unusable: {0}")]
    Ca(#[from] rcgen::Error),
    /// No randomness.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// A certificate that the store must record before it is handed out.
#[derive(Debug, Clone)]
pub struct Issued {
    /// Serial number in hex, as the store keeps it.
    pub serial: String,
    /// The role in the subject.
    pub role: Role,
    /// The common name.
    pub subject: String,
    /// DER.
    pub der: Vec<u8>,
    /// The certificate and its issuer, PEM.
    pub chain_pem: String,
    /// End, milliseconds since 1970.
    pub not_after_unix_ms: i64,
}

/// The certificate authority.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Ca").field("pin", &self.pin()).finish_non_exhaustive()
    }
}

fn name(organization: &str, common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, DnValue::Utf8String(organization.to_owned()));
    name.push(DnType::CommonName, DnValue::Utf8String(common.to_owned()));
    name
}

fn at(unix_ms: i64) -> OffsetDateTime {
    // X.509 times have whole seconds; rounding down never lengthens a life.
    OffsetDateTime::from_unix_timestamp(unix_ms.div_euclid(1000)).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// Parameters that every certificate of ours shares, and the serial. The first byte is 1..=127, so that the number's DER form is these bytes.
fn base(now: &Now, life: Duration, subject: DistinguishedName) -> Result<(CertificateParams, String, i64), KeyError> {
    let mut serial = random::<16>()?;
    if let Some(first) = serial.first_mut() {
        *first = (*first & 0x7f) | 0x01;
    }
    let not_after = now.unix_after(life).div_euclid(1000).saturating_mul(1000);
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    params.not_before = at(now.unix_ms.saturating_sub(millis(BACKDATE)));
    params.not_after = at(not_after);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.use_authority_key_identifier_extension = true;
    Ok((params, hex::encode(serial), not_after))
}

/// The key of a request that its own signature covers. Everything else a request asks for is ignored.
///
/// # Errors
/// [`CaError::Request`], [`CaError::RequestKey`].
pub fn request_key(csr: &[u8]) -> Result<impl PublicKeyData + use<>, CaError> {
    if csr.len() > CSR_MAX {
        return Err(CaError::Request);
    }
    let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr))
        .map_err(|_| CaError::Request)?;
    let allowed = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519];
    if !allowed.contains(&request.public_key.algorithm()) {
        return Err(CaError::RequestKey);
    }
    Ok(request.public_key)
}

impl Ca {
    /// Makes the self-signed CA certificate, once, at `verifier init`. Returns its PEM.
    ///
    /// # Errors
    /// [`CaError`].
    pub fn create(key: &KeyPair, now: &Now) -> Result<String, CaError> {
        let id = random::<4>()?;
        let (mut params, _, _) = base(now, CA_LIFE, name("hostmark", &format!("Hostmark CA {}", hex::encode(id))))?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(params.self_signed(key)?.pem())
    }

    /// Uses the CA certificate and its key.
    ///
    /// # Errors
    /// [`CaError::Ca`].
    pub fn load(pem: &str, key: KeyPair) -> Result<Self, CaError> {
        use rustls_pki_types::pem::PemObject as _;
        let certificate =
            CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { issuer, certificate, pem: pem.to_owned() })
    }

    /// The CA certificate.
    #[must_use]
    pub const fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The CA certificate, PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// What hosts and operators pin: SHA-256 of the CA certificate's DER, in hex.
    #[must_use]
    pub fn pin(&self) -> String {
        hex::encode(sha256(&[&self.certificate]))
    }

    /// A server certificate on a fresh key, with the CA certificate behind it (a client that pins needs to see it).
    ///
    /// # Errors
    /// [`CaError`].
    pub fn server(
        &self,
        names: &[String],
        now: &Now,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), CaError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let (mut params, _, _) = base(now, SERVER_LIFE, name("hostmark:verifier", "verifier"))?;
        for text in names {
            params.subject_alt_names.push(match text.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(text.clone().try_into().map_err(|_| CaError::Name(text.clone()))?),
            });
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer)?;
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok((vec![certificate.der().clone(), self.certificate.clone()], private))
    }

    /// A client certificate for a key. Only its subject, set here, says who it is.
    ///
    /// # Errors
    /// [`CaError`].
    pub fn client(
        &self,
        key: &impl PublicKeyData,
        role: Role,
        subject: &str,
        life: Duration,
        now: &Now,
    ) -> Result<Issued, CaError> {
        let (mut params, serial, not_after_unix_ms) =
            base(now, life, name(&format!("hostmark:{}", role.name()), subject))?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(key, &self.issuer)?;
        let chain_pem = format!("{}{}", certificate.pem(), self.pem);
        Ok(Issued {
            serial,
            role,
            subject: subject.to_owned(),
            der: certificate.der().to_vec(),
            chain_pem,
            not_after_unix_ms,
        })
    }
}
