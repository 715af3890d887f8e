//! Enrolment and renewal: how this host becomes known to a verifier.
//!
//! DESIGN, Identity and enrolment; `hostmark_attest::wire`. Each step is kept before the next begins, so that a run that was
//! broken off anywhere is continued by running again: same TPM keys, same enrolment, no second host. hostd proves and asks; who
//! this host is (id, node name, label) comes in the answer.

pub mod input;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hostmark_attest::digest::sha256;
use hostmark_attest::tpm::public::Public;
use hostmark_attest::wire::{
    Activation, B64, DOMAIN_QUOTE, DOMAIN_TLS, EnrolmentChallenge, EnrolmentOutcome, EnrolmentPoll, EnrolmentRequest,
    HostIdentity, Nonce, Renewal, RenewalChallenge, RenewalRequest,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::{Zeroize as _, Zeroizing};

use crate::client::{Client, ClientError, TlsKey};
use crate::state;
use crate::tpm::{EkKind, Identity, Tpm, TpmError};

/// Who this host is, once approved.
const HOST_FILE: &str = "host.json";
/// An enrolment that waits for its approver.
const PENDING_FILE: &str = "enrolment.json";
/// Both hold one certificate chain at most.
const MAX_FILE: u64 = 256 * 1024;
/// Bounds on the pause between two questions, whatever the verifier asks for.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Why this host is not provisioned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProvisionError {
    /// The TPM.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// The verifier, or the way to it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A file of the state directory.
    #[error("{}: {source}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The certificate request could not be made.
    #[error("the certificate request could not be made: {0}")]
    Request(#[from] rcgen::Error),
    /// This host belongs to another verifier.
    #[error("this host is provisioned at {found} (CA {pin}), not at {asked}; run `hostd deprovision` first")]
    OtherVerifier {
        /// The verifier it is provisioned at.
        found: String,
        /// SHA-256 of that verifier's CA certificate, hex.
        pin: String,
        /// The verifier that was asked for, and its pin.
        asked: String,
    },
    /// Renewal of a host that was never provisioned.
    #[error("this host is not provisioned; run `hostd provision`")]
    NotProvisioned,
}

/// What is kept of a provisioned host.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provisioned {
    /// The verifier's address.
    pub verifier: String,
    /// DER of the verifier's CA certificate.
    pub ca: B64,
    /// The host's id, node name, certificate.
    pub identity: HostIdentity,
}

/// What is kept of an enrolment that is not decided.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pending {
    verifier: String,
    ca: B64,
    enrolment: String,
    ek_id: String,
    /// The activation's secret: whoever has it may fetch a certificate that is useless without the TPM.
    secret: B64,
    /// SHA-256 of the join token that it was begun with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<B64>,
}

/// How far provisioning came.
#[derive(Debug, Clone)]
pub enum Progress {
    /// The host is known.
    Provisioned(Box<Provisioned>),
    /// An approver must decide first.
    Pending {
        /// The enrolment's id.
        enrolment: String,
        /// By what the approver knows this machine's TPM: SHA-256 of the EK's SubjectPublicKeyInfo.
        ek_id: String,
        /// Ask again after this time.
        retry: Duration,
    },
}

impl Provisioned {
    /// Reads what is kept; None when the host is not provisioned.
    ///
    /// # Errors
    /// [`ProvisionError::State`].
    pub fn load(state_dir: &Path) -> Result<Option<Self>, ProvisionError> {
        load(&state_dir.join(HOST_FILE))
    }

    /// The end of the certificate. A time that can not be read counts as past.
    #[must_use]
    pub fn not_after(&self) -> OffsetDateTime {
        OffsetDateTime::parse(&self.identity.not_after, &Rfc3339).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    /// The beginning of the certificate, where it can be read.
    #[must_use]
    pub fn not_before(&self) -> Option<OffsetDateTime> {
        let der = CertificateDer::from_pem_slice(self.identity.certificate.as_bytes()).ok()?;
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).ok()?;
        Some(certificate.validity().not_before.to_datetime())
    }

    /// A client that proves to be this host.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn client(&self, tpm: &Tpm, keys: &Identity) -> Result<Client, ClientError> {
        Client::authenticated(&self.verifier, &self.ca.0, &self.identity.certificate, tpm, keys)
    }

    /// Gets a new certificate by a quote of the AK, over server-authenticated TLS. Works before and after the old one's end.
    ///
    /// # Errors
    /// [`ProvisionError`]; the old certificate stays.
    pub async fn renew(&mut self, state_dir: &Path, tpm: &Tpm, keys: &Identity) -> Result<(), ProvisionError> {
        let client = Client::anonymous(&self.verifier, &self.ca.0)?;
        let host = self.identity.host.clone();
        let (_, challenge): (_, RenewalChallenge) =
            client.post("/v1/renewals/challenge", &RenewalRequest { host: host.clone() }).await?;
        let csr = certificate_request(tpm, keys)?;
        let nonce = challenge.nonce;
        let renewal = Renewal {
            host,
            nonce,
            quote: tpm.quote(&challenge.selection, &nonce.bind(DOMAIN_QUOTE, &csr))?.signed,
            tls_public: B64(keys.tls_public.clone()),
            certification: tpm.certify_tls_key(&nonce.bind(DOMAIN_TLS, &csr))?,
            csr: B64(csr),
        };
        let (_, identity): (_, HostIdentity) = client.post("/v1/renewals", &renewal).await?;
        self.identity = identity;
        self.keep(state_dir, tpm)
    }

    /// Writes the tag, if one came, and keeps the rest.
    fn keep(&mut self, state_dir: &Path, tpm: &Tpm) -> Result<(), ProvisionError> {
        if let Some(tag) = self.identity.tag.take() {
            tpm.write_tag(&tag.nv.0)?;
        }
        save(&state_dir.join(HOST_FILE), self)
    }
}

/// What [`provision`] needs to know.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The verifier's address.
    pub verifier: &'a str,
    /// SHA-256 of its CA certificate.
    pub ca_pin: [u8; 32],
    /// A join token.
    pub token: Option<Zeroizing<String>>,
    /// The EK to use; None: the first kind with a certificate.
    pub ek: Option<EkKind>,
    /// Where keys and progress are kept.
    pub state_dir: &'a Path,
}

impl Request<'_> {
    fn token_digest(&self) -> Option<B64> {
        self.token.as_ref().map(|token| B64(sha256(&[token.as_bytes()]).to_vec()))
    }
}

/// Enrols this host, or continues where an earlier call stopped. Call again after [`Progress::Pending`].
///
/// # Errors
/// [`ProvisionError`]. After a refusal, calling again begins a new enrolment with the same keys.
pub async fn provision(tpm: &Tpm, request: &Request<'_>) -> Result<Progress, ProvisionError> {
    let dir = request.state_dir;
    state::directory(dir).map_err(|source| ProvisionError::State { path: dir.to_owned(), source })?;
    if let Some(mut host) = Provisioned::load(dir)? {
        host.check(request)?;
        // The last step of an enrolment that was cut off after its certificate was kept.
        forget(&dir.join(PENDING_FILE))?;
        let keys = tpm.open_keys(dir)?;
        if host.not_after() <= OffsetDateTime::now_utc() {
            host.renew(dir, tpm, &keys).await?;
        }
        return Ok(Progress::Provisioned(Box::new(host)));
    }
    let client = Client::pinned(request.verifier, request.ca_pin)?;
    if let Some(mut pending) = load_pending(dir)?
        && input::same_address(&pending.verifier, request.verifier)
    {
        match poll(&client, &pending).await {
            // A token that this enrolment does not have may approve the host at once. Until the verifier has taken it, the old one waits.
            Ok(EnrolmentOutcome::Pending { .. })
                if request.token.is_some() && pending.token != request.token_digest() => {}
            Ok(outcome) => {
                pending.ca = B64(client.pinned_ca().unwrap_or_default());
                return finish(tpm, dir, pending, outcome);
            }
            // Begin anew with the same keys. A join token that was used up made a host, and the same EK and AK are that host without
            // another token.
            Err(error) if is_gone(&error) => forget(&dir.join(PENDING_FILE))?,
            Err(error) => {
                forget_if_final(&error, dir)?;
                return Err(error.into());
            }
        }
    }
    enrol(tpm, &client, request).await
}

/// The verifier has forgotten the enrolment, never got its activation, or has a newer one of this host. What a person decided is none of
/// these, and is told.
fn is_gone(error: &ClientError) -> bool {
    const GONE: [&str; 2] = ["enrolment.not-activated", "enrolment.superseded"];
    match error {
        ClientError::Refused { status: 404 | 410, .. } => true,
        ClientError::Refused { status: 409, body } => GONE.contains(&body.error.id.as_str()),
        _ => false,
    }
}

/// Progress only: what cannot be read is begun anew.
fn load_pending(dir: &Path) -> Result<Option<Pending>, ProvisionError> {
    let path = dir.join(PENDING_FILE);
    match load(&path) {
        Err(ProvisionError::State { source, .. })
            if matches!(source.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            tracing::warn!(%source, "the kept enrolment can not be read; beginning a new one");
            forget(&path)?;
            Ok(None)
        }
        loaded => loaded,
    }
}

async fn poll(client: &Client, pending: &Pending) -> Result<EnrolmentOutcome, ClientError> {
    let path = format!("/v1/enrolments/{}/certificate", pending.enrolment);
    Ok(client.post(&path, &EnrolmentPoll { secret: pending.secret.clone() }).await?.1)
}

async fn enrol(tpm: &Tpm, client: &Client, request: &Request<'_>) -> Result<Progress, ProvisionError> {
    let keys = match tpm.open_keys(request.state_dir) {
        Err(TpmError::NoKeys) => {
            let kind = tpm.ek(request.ek)?.kind;
            tpm.create_keys(request.state_dir, kind)?
        }
        other => other?,
    };
    let ek = tpm.ek(Some(keys.ek))?;
    let ek_id =
        Public::parse(&ek.public).ok().and_then(|public| public.key().id()).map(hex::encode).unwrap_or_default();
    let mut ask = EnrolmentRequest {
        ek_public: B64(ek.public),
        ek_certificate: ek.certificate.map(B64),
        ek_intermediates: ek.intermediates.into_iter().map(B64).collect(),
        ak_public: B64(keys.ak_public.clone()),
        token: request.token.as_ref().map(|token| token.to_string()),
    };
    let answer = client.post("/v1/enrolments", &ask).await;
    ask.token.zeroize();
    let (_, challenge): (_, EnrolmentChallenge) = answer?;
    let secret = tpm.activate_credential(&challenge.credential_blob.0, &challenge.encrypted_secret.0)?;
    let csr = certificate_request(tpm, &keys)?;
    let activation = Activation {
        secret: B64(secret.to_vec()),
        tls_public: B64(keys.tls_public.clone()),
        certification: tpm.certify_tls_key(&tls_binding(&challenge.nonce, &csr))?,
        csr: B64(csr),
    };
    let pending = Pending {
        verifier: request.verifier.to_owned(),
        ca: B64(client.pinned_ca().unwrap_or_default()),
        enrolment: challenge.enrolment,
        ek_id,
        secret: activation.secret.clone(),
        token: request.token_digest(),
    };
    // Kept before it is sent: if the answer is lost, polling finds the enrolment again.
    save(&request.state_dir.join(PENDING_FILE), &pending)?;
    let path = format!("/v1/enrolments/{}/activation", pending.enrolment);
    match client.post::<EnrolmentOutcome>(&path, &activation).await {
        Ok((_, outcome)) => finish(tpm, request.state_dir, pending, outcome),
        Err(error) => {
            forget_if_final(&error, request.state_dir)?;
            Err(error.into())
        }
    }
}

/// A refusal is told once; the next call begins a new enrolment.
fn forget_if_final(error: &ClientError, state_dir: &Path) -> Result<(), ProvisionError> {
    match error {
        ClientError::Refused { .. } if !error.is_temporary() => forget(&state_dir.join(PENDING_FILE)),
        _ => Ok(()),
    }
}

fn finish(
    tpm: &Tpm,
    state_dir: &Path,
    pending: Pending,
    outcome: EnrolmentOutcome,
) -> Result<Progress, ProvisionError> {
    match outcome {
        EnrolmentOutcome::Approved { host } => {
            let mut host = Provisioned { verifier: pending.verifier, ca: pending.ca, identity: host };
            host.keep(state_dir, tpm)?;
            forget(&state_dir.join(PENDING_FILE))?;
            Ok(Progress::Provisioned(Box::new(host)))
        }
        EnrolmentOutcome::Pending { retry_in_ms } => {
            let retry = Duration::from_millis(retry_in_ms).clamp(PAUSE.0, PAUSE.1);
            Ok(Progress::Pending { enrolment: pending.enrolment, ek_id: pending.ek_id, retry })
        }
        // The enum is open for later states; what hostd does not know, it waits out.
        _ => Ok(Progress::Pending { enrolment: pending.enrolment, ek_id: pending.ek_id, retry: PAUSE.1 }),
    }
}

fn tls_binding(nonce: &Nonce, csr: &[u8]) -> [u8; 32] {
    nonce.bind(DOMAIN_TLS, csr)
}

/// A PKCS#10 request (RFC 2986) for the TLS key, signed by the TPM. It names nobody: the verifier does.
fn certificate_request(tpm: &Tpm, keys: &Identity) -> Result<Vec<u8>, ProvisionError> {
    let key = TlsKey::new(tpm.clone(), keys)?;
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    Ok(params.serialize_request(&key)?.der().to_vec())
}

/// Forgets verifier, certificate and keys. The tag in NV stays: it is the operator's.
///
/// # Errors
/// [`ProvisionError::State`].
pub fn deprovision(state_dir: &Path) -> Result<(), ProvisionError> {
    for name in [PENDING_FILE, HOST_FILE] {
        forget(&state_dir.join(name))?;
    }
    crate::tpm::forget_keys(state_dir).map_err(|source| ProvisionError::State { path: state_dir.to_owned(), source })
}

fn load<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, ProvisionError> {
    let failed = |source| ProvisionError::State { path: path.to_owned(), source };
    let Some(bytes) = state::read(path, MAX_FILE).map_err(failed)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| failed(error.into()))
}

fn save(path: &Path, value: &impl Serialize) -> Result<(), ProvisionError> {
    let failed = |source| ProvisionError::State { path: path.to_owned(), source };
    let bytes = serde_json::to_vec_pretty(value).map_err(|error| failed(error.into()))?;
    state::write(path, &bytes).map_err(failed)
}

fn forget(path: &Path) -> Result<(), ProvisionError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(ProvisionError::State { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}
