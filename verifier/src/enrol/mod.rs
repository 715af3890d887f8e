//! Enrolment: which TPM is this, does the AK live beside its EK, and does the TLS key live in it.
//!
//! TPM 2.0 Library Part 1, 24 (credential protection). [`begin`] judges EK and AK and makes the challenge; [`activation`] judges the answer. Both
//! are pure: what an outcome changes is one command of the store. Who may become which host is decided there, never here.

pub mod enrolled;
pub mod renewal;

use std::time::Duration;

use hostmark_attest::check::violated;
use hostmark_attest::digest::sha256;
use hostmark_attest::finding::{Finding, Findings};
use hostmark_attest::identity::ak::verify_ak;
use hostmark_attest::identity::certify::{CertifiedTlsKey, TlsKeyEvidence, verify_tls_key};
use hostmark_attest::identity::class::TpmClass;
use hostmark_attest::identity::credential::make_credential;
use hostmark_attest::identity::ek::verify_ek;
use hostmark_attest::tpm::public::Public;
use hostmark_attest::wire::{Activation, B64, EnrolmentChallenge, EnrolmentRequest, Nonce};
use subtle::ConstantTimeEq as _;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::clock::{Now, millis};
use crate::keys::random;
use crate::refusal::{Kind, Outcome, Refusal};
use crate::store::{EnrolmentRow, NewEnrolment};
use crate::trust::Trust;

/// Start of a join token: tells people, and secret scanners, what it is.
const TOKEN_PREFIX: &str = "hmt_";
/// A join token in characters: the prefix and 32 bytes in base64url.
const TOKEN_LENGTH: usize = 47;

/// A TPM class as a number that grows with trust, for a join token's least class.
#[must_use]
pub fn class_rank(name: &str) -> Option<usize> {
    let class = TpmClass::from_name(name)?;
    let order = [
        TpmClass::None,
        TpmClass::Simulated,
        TpmClass::Unverified,
        TpmClass::Virtual,
        TpmClass::Firmware,
        TpmClass::Hardware,
    ];
    order.iter().position(|one| *one == class)
}

/// A new join token and its hash.
///
/// # Errors
/// 500 without randomness.
pub fn make_token() -> Outcome<(Zeroizing<String>, [u8; 32])> {
    use base64::Engine as _;
    let secret = Zeroizing::new(random::<32>().map_err(Refusal::internal)?);
    let encoded = Zeroizing::new(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(secret.as_slice()));
    let token = Zeroizing::new(format!("{TOKEN_PREFIX}{}", encoded.as_str()));
    let hash = sha256(&[token.as_bytes()]);
    Ok((token, hash))
}

/// The wall time for certificates.
#[must_use]
pub fn wall(now: &Now) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(now.unix_ms.div_euclid(1000)).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn malformed(field: &str, error: impl std::fmt::Display) -> Refusal {
    Refusal::field(field, error)
}

/// Judges EK and AK, and makes the credential that only this EK's TPM opens, and only for this AK.
///
/// # Errors
/// 400 for bytes that are no TPMT_PUBLIC; 422 with every finding of `ek.*` and `ak.*`.
pub fn begin(
    trust: &Trust,
    request: &EnrolmentRequest,
    life: Duration,
    now: &Now,
) -> Outcome<(NewEnrolment, EnrolmentChallenge)> {
    let token_hash = match &request.token {
        None => None,
        Some(token) if token.len() == TOKEN_LENGTH && token.starts_with(TOKEN_PREFIX) => {
            Some(sha256(&[token.as_bytes()]))
        }
        Some(_) => {
            return Err(malformed("token", "not a join token; give the file that `hostmark token create` wrote"));
        }
    };
    let ek_public = Public::parse(&request.ek_public.0).map_err(|error| malformed("ek_public", error))?;
    let ak_public = Public::parse(&request.ak_public.0).map_err(|error| malformed("ak_public", error))?;
    let certificate = request.ek_certificate.as_ref().map(|one| one.0.as_slice());
    let intermediates: Vec<Vec<u8>> = request.ek_intermediates.iter().map(|one| one.0.clone()).collect();
    let ek = verify_ek(&ek_public, certificate, &intermediates, &trust.ek, wall(now));
    let ak = verify_ak(&ak_public);
    let (ek, ak) = match (ek, ak) {
        (Ok(ek), Ok(ak)) => (ek, ak),
        (ek, ak) => {
            // Both are told at once: a person fixes both at once.
            let mut findings = ek.err().unwrap_or_default();
            findings.append(ak.err().unwrap_or_default());
            return Err(Refusal::findings(findings));
        }
    };
    let secret = Zeroizing::new(random::<32>().map_err(Refusal::internal)?);
    let mut failed = false;
    let mut fill = |out: &mut [u8]| failed |= aws_lc_rs::rand::fill(out).is_err();
    let credential =
        make_credential(ek.protection(), ak.name().as_bytes(), secret.as_slice(), &mut fill).map_err(|error| {
            Refusal::findings(
                Finding::error("ek.protection", "no secret can be protected for this EK").found(error).into(),
            )
        })?;
    if failed {
        return Err(Refusal::internal("no randomness"));
    }
    let nonce = Nonce(random().map_err(Refusal::internal)?);
    let new = NewEnrolment {
        id: uuid::Uuid::new_v4().to_string(),
        host: uuid::Uuid::new_v4().to_string(),
        ek_id: hex::encode(ek.id()),
        ek_public: request.ek_public.0.clone(),
        ek_certificate: request.ek_certificate.as_ref().map(|one| one.0.clone()),
        ek_intermediates: request.ek_intermediates.clone(),
        class: ek.class().name().to_owned(),
        ak_public: request.ak_public.0.clone(),
        ak_name: ak.name().as_bytes().to_vec(),
        token_hash,
        secret_hash: sha256(&[secret.as_slice()]),
        nonce,
        life,
        findings: ek.advice().clone(),
    };
    let challenge = EnrolmentChallenge {
        enrolment: new.id.clone(),
        credential_blob: B64(credential.id_object),
        encrypted_secret: B64(credential.encrypted_secret),
        nonce,
        expires_in_ms: u64::try_from(millis(life)).unwrap_or_default(),
    };
    Ok((new, challenge))
}

/// Whether `secret` is the one that the credential carried. Constant time.
///
/// # Errors
/// 422 `enrolment.secret`.
pub fn check_secret(enrolment: &EnrolmentRow, secret: &[u8]) -> Outcome<()> {
    let same: bool = sha256(&[secret]).ct_eq(&enrolment.secret_hash).into();
    if violated("enrolment.secret", !same) {
        let finding =
            Finding::error("enrolment.secret", "the credential was not opened: another TPM, or another AK, answered");
        return Err(Refusal::findings(finding.fix("begin a new enrolment on the TPM that holds both keys").into()));
    }
    Ok(())
}

/// Judges the answer to the challenge: the secret, then the TLS key.
///
/// # Errors
/// 422 `enrolment.secret`, or every finding of `tls-key.*`.
pub fn activation(enrolment: &EnrolmentRow, answer: &Activation) -> Outcome<CertifiedTlsKey> {
    check_secret(enrolment, &answer.secret.0)?;
    let evidence = TlsKeyEvidence {
        attest: &answer.certification.attest.0,
        signature: &answer.certification.signature.0,
        tls_public: &answer.tls_public.0,
        csr: &answer.csr.0,
    };
    tls_key(&enrolment.ek_public, &enrolment.ak_public, &evidence, &enrolment.nonce)
}

/// Judges a TLS key by the AK and EK that are on record.
fn tls_key(
    ek_public: &[u8],
    ak_public: &[u8],
    evidence: &TlsKeyEvidence<'_>,
    nonce: &Nonce,
) -> Outcome<CertifiedTlsKey> {
    let ek = Public::parse(ek_public).map_err(Refusal::internal)?;
    let ak = Public::parse(ak_public).map_err(Refusal::internal)?;
    let ak = verify_ak(&ak).map_err(Refusal::findings)?;
    verify_tls_key(evidence, &ak, ek.name(), nonce).map_err(Refusal::findings)
}

/// A refusal's findings, for the record.
#[must_use]
pub fn all(refusal: &Refusal) -> Vec<Finding> {
    if refusal.all.is_empty() { vec![(*refusal.first).clone()] } else { refusal.all.clone() }
}

/// Whether a refused activation burns its enrolment: yes for bad evidence, no where another request was merely first.
#[must_use]
pub fn burns(refusal: &Refusal) -> bool {
    refusal.kind == Kind::Refused
}

/// Findings as a list that a store row can hold.
#[must_use]
pub fn findings(list: &[Finding]) -> Findings {
    Findings::from(list.to_vec())
}
