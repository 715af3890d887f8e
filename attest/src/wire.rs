//! What a host and the verifier say to each other: JSON bodies and media types.
//!
//! One place, so that hostd and the verifier cannot disagree. Every type here is untrusted when it arrives; none is a proof.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::finding::Finding;
use crate::selection::PcrSelection;

/// Media type of a round's evidence: a deterministic CBOR CMW collection (see [`crate::evidence`]).
pub const EVIDENCE_TYPE: &str = "application/vnd.hostmark.evidence+cbor;v=1";

/// Domain string of a quote's qualifyingData.
pub const DOMAIN_QUOTE: &[u8] = b"hostmark-quote-v1";
/// Domain string of the AK's certification of the TLS key.
pub const DOMAIN_TLS: &[u8] = b"hostmark-tls-v1";
/// Domain string of the asset tag's certification.
pub const DOMAIN_TAG: &[u8] = b"hostmark-tag-v1";

/// Bytes that travel as standard base64 in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct B64(pub Vec<u8>);

impl Serialize for B64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::Engine as _;
        serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for B64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use base64::Engine as _;
        let text = String::deserialize(deserializer)?;
        base64::engine::general_purpose::STANDARD.decode(text).map(Self).map_err(D::Error::custom)
    }
}

/// A verifier's nonce: 32 bytes, one encoding (64 lower-case hex digits).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nonce(pub [u8; 32]);

impl Nonce {
    /// `SHA-256(domain ‖ nonce ‖ SHA-256(bound))`: what a signed structure carries to be bound to this nonce.
    #[must_use]
    pub fn bind(&self, domain: &[u8], bound: &[u8]) -> [u8; 32] {
        crate::digest::sha256(&[domain, &self.0, &crate::digest::sha256(&[bound])])
    }
}

impl std::fmt::Display for Nonce {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&hex::encode(self.0))
    }
}

impl Serialize for Nonce {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Nonce {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(D::Error::custom("a nonce is lower-case hex"));
        }
        let bytes = hex::decode(&text).map_err(D::Error::custom)?;
        bytes.try_into().map(Self).map_err(|_| D::Error::custom("a nonce has 32 bytes"))
    }
}

/// A TPMS_ATTEST and the TPMT_SIGNATURE over exactly these bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedAttest {
    /// TPMS_ATTEST, as the TPM marshalled it.
    pub attest: B64,
    /// TPMT_SIGNATURE.
    pub signature: B64,
}

/// `POST /v1/enrolments`, over server-authenticated TLS.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolmentRequest {
    /// TPMT_PUBLIC of the EK.
    pub ek_public: B64,
    /// DER of the EK certificate, where the TPM has one.
    pub ek_certificate: Option<B64>,
    /// DER of intermediate CAs that the TPM or the machine's maker supplies.
    #[serde(default)]
    pub ek_intermediates: Vec<B64>,
    /// TPMT_PUBLIC of the AK.
    pub ak_public: B64,
    /// A join token, if the host was given one.
    #[serde(default)]
    pub token: Option<String>,
}

/// The answer to [`EnrolmentRequest`] (201): prove that the AK lives beside this EK.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolmentChallenge {
    /// Id of this enrolment, a UUID.
    pub enrolment: String,
    /// TPM2B_ID_OBJECT with its size field.
    pub credential_blob: B64,
    /// TPM2B_ENCRYPTED_SECRET with its size field.
    pub encrypted_secret: B64,
    /// Bound into the TLS key's certification.
    pub nonce: Nonce,
    /// Time left to answer, in milliseconds.
    pub expires_in_ms: u64,
}

/// `POST /v1/enrolments/{id}/activation`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Activation {
    /// What TPM2_ActivateCredential returned (certInfo).
    pub secret: B64,
    /// TPMT_PUBLIC of the TLS key.
    pub tls_public: B64,
    /// PKCS#10 request in DER, signed by the TLS key.
    pub csr: B64,
    /// TPM2_Certify of the TLS key by the AK; extraData = [`Nonce::bind`]([`DOMAIN_TLS`], CSR).
    pub certification: SignedAttest,
}

/// `POST /v1/enrolments/{id}/certificate`: asks again, proving to be the same host by the activation's secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolmentPoll {
    /// The secret of [`Activation`].
    pub secret: B64,
}

/// The answer to [`Activation`] and [`EnrolmentPoll`]: 200 when approved, 202 while pending.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase", deny_unknown_fields)]
#[non_exhaustive]
pub enum EnrolmentOutcome {
    /// An approver must decide first.
    Pending {
        /// Ask again after this many milliseconds.
        retry_in_ms: u64,
    },
    /// The host is known from now on.
    Approved {
        /// The host's identity.
        host: HostIdentity,
    },
}

/// What a host is, as the verifier sees it. A host never names itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostIdentity {
    /// Host id, a UUID given by the verifier.
    pub host: String,
    /// Node name (RFC 1123), given by the approver.
    pub node: String,
    /// The host's certificate and its issuer, PEM.
    pub certificate: String,
    /// End of the certificate, RFC 3339.
    pub not_after: String,
    /// The asset tag to write into NV, where one was signed for this host.
    #[serde(default)]
    pub tag: Option<SignedTag>,
}

/// An asset tag and its detached signature, opaque to the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedTag {
    /// The exact bytes that NV holds: payload and signature (see `identity::tag`).
    pub nv: B64,
}

/// `POST /v1/renewals/challenge`, over server-authenticated TLS: for a host whose certificate has expired.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewalRequest {
    /// Host id.
    pub host: String,
}

/// The answer to [`RenewalRequest`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewalChallenge {
    /// Bound into the quote and the certification.
    pub nonce: Nonce,
    /// What to quote.
    pub selection: PcrSelection,
    /// Time left to answer, in milliseconds.
    pub expires_in_ms: u64,
}

/// `POST /v1/renewals`: the quote's qualifyingData = [`Nonce::bind`]([`DOMAIN_QUOTE`], CSR). Answered with [`HostIdentity`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Renewal {
    /// Host id.
    pub host: String,
    /// The challenge's nonce.
    pub nonce: Nonce,
    /// The AK's quote over the challenge's selection.
    pub quote: SignedAttest,
    /// TPMT_PUBLIC of the TLS key.
    pub tls_public: B64,
    /// PKCS#10 request in DER, signed by the TLS key.
    pub csr: B64,
    /// As in [`Activation`].
    pub certification: SignedAttest,
}

/// The answer to `POST /v1/challenges` (empty JSON object as body; mutual TLS).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Challenge {
    /// Single use; the lease counts from its issue.
    pub nonce: Nonce,
    /// Time left to answer, in milliseconds.
    pub expires_in_ms: u64,
    /// Exactly what to quote.
    pub selection: PcrSelection,
    /// Send the IMA list from this entry on (0: whole).
    pub ima_from: u64,
    /// The reset count for which `ima_from` holds; under another, send the list from 0.
    pub reset_count: u32,
    /// A tag to write into NV before quoting, when the operator signed a newer one.
    #[serde(default)]
    pub tag: Option<SignedTag>,
}

/// The answer to `POST /v1/evidence` (200 whatever the verdict; the body says it).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoundOutcome {
    /// State of the host after this round.
    pub state: HostState,
    /// Every finding of the appraisal.
    pub findings: Vec<Finding>,
    /// The Attestation Result, a signed JWT (EAR); absent when the evidence was refused as not genuine.
    #[serde(default)]
    pub result: Option<String>,
    /// Pools that admit the host now, with the end of each permit (RFC 3339).
    pub pools: Vec<PoolPlace>,
    /// Attest again after this many milliseconds (before jitter).
    pub next_in_ms: u64,
    /// The evidence was not enough to continue from the last round: ask a new challenge and send whole logs at once.
    #[serde(default)]
    pub resend: bool,
}

/// A pool that admits the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolPlace {
    /// The pool's name.
    pub pool: String,
    /// End of the permit, RFC 3339.
    pub not_after: String,
}

/// Whether a host is trusted now. Law 3: what happens to its workloads is the pool's rule, not this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum HostState {
    /// Approved, never proven.
    Unproven,
    /// Fresh proof within the lease.
    Proven,
    /// No fresh proof.
    Lapsed,
    /// The evidence is bad.
    Disproven,
    /// Planned absence.
    Maintenance,
}

/// The body of every answer outside 2xx.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorBody {
    /// What went wrong; its id is the first finding's.
    pub error: Finding,
    /// All findings, when there is more than one.
    #[serde(default)]
    pub findings: Vec<Finding>,
}
