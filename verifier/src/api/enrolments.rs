//! `/v1/enrolments`: what a host without a certificate may ask.

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use hostmark_attest::tpm::public::Public;
use hostmark_attest::wire::{
    Activation, B64, EnrolmentChallenge, EnrolmentOutcome, EnrolmentPoll, EnrolmentRequest, HostIdentity, SignedTag,
};
use rcgen::{PublicKeyData, SubjectPublicKeyInfo};

use super::Body;
use crate::auth::Role;
use crate::ca::Issued;
use crate::clock::{Now, rfc3339};
use crate::enrol;
use crate::metrics::ENROLMENTS;
use crate::names;
use crate::refusal::{Outcome, Refusal};
use crate::state::AppState;
use crate::store::HostRow;
use crate::tls::Remote;

/// A pending host asks again after this long: a person decides in minutes, and a thousand waiting hosts cost 100 requests a second.
const RETRY_MS: u64 = 10_000;

/// Takes one of the address's requests without a certificate.
pub(super) fn limited(state: &AppState, remote: Remote, now: &Now) -> Outcome<()> {
    state.enrolments.take(&remote.0.ip().to_string(), now)
}

/// What a host learns about itself.
pub(super) fn identity(host: &HostRow, issued: &Issued) -> HostIdentity {
    HostIdentity {
        host: host.id.clone(),
        node: host.assignment.node.clone(),
        certificate: issued.chain_pem.clone(),
        not_after: rfc3339(issued.not_after_unix_ms),
        tag: host.tag_nv.clone().map(|nv| SignedTag { nv: B64(nv) }),
    }
}

/// A certificate for a host's judged TLS key (DER of its SubjectPublicKeyInfo).
pub(super) fn host_certificate(state: &AppState, spki: &[u8], host: &str, now: &Now) -> Outcome<Issued> {
    let key = SubjectPublicKeyInfo::from_der(spki).map_err(Refusal::internal)?;
    let _ = key.algorithm();
    state.ca.client(&key, Role::Host, host, state.config.host_certificate.0, now).map_err(Refusal::internal)
}

fn count(outcome: &'static str) {
    metrics::counter!(ENROLMENTS, "outcome" => outcome).increment(1);
}

/// Begins an enrolment: the answer is a credential that only the right TPM opens.
pub(super) async fn begin(
    State(state): State<AppState>,
    Extension(remote): Extension<Remote>,
    Body(request): Body<EnrolmentRequest>,
) -> Outcome<(StatusCode, Json<EnrolmentChallenge>)> {
    let now = state.now();
    limited(&state, remote, &now)?;
    let (inner, life) = (state.clone(), state.config.enrolment_deadline.0);
    let begun = state.store(move |store| {
        // RSA and EC work, a millisecond or so, and then the row: off the async threads.
        let (new, challenge) = inner.by_trust(&now, |trust| enrol::begin(trust, &request, life, &now))?;
        store.begin_enrolment(&now, &new)?;
        Ok((new.ek_id, new.class, challenge))
    });
    match begun.await {
        Ok((ek_id, class, challenge)) => {
            tracing::info!(enrolment = %challenge.enrolment, %ek_id, %class, remote = %remote.0, "enrolment begun");
            Ok((StatusCode::CREATED, Json(challenge)))
        }
        Err(refusal) => {
            count("refused");
            tracing::warn!(remote = %remote.0, finding = %refusal.first, "enrolment refused");
            Err(refusal)
        }
    }
}

fn answer(outcome: Option<(HostRow, Issued)>) -> Response {
    match outcome {
        Some((host, issued)) => {
            (StatusCode::OK, Json(EnrolmentOutcome::Approved { host: identity(&host, &issued) })).into_response()
        }
        None => (StatusCode::ACCEPTED, Json(EnrolmentOutcome::Pending { retry_in_ms: RETRY_MS })).into_response(),
    }
}

/// Judges the answer to the credential. Bad evidence burns the enrolment.
pub(super) async fn activate(
    State(state): State<AppState>,
    Extension(remote): Extension<Remote>,
    Path(id): Path<String>,
    Body(request): Body<Activation>,
) -> Outcome<Response> {
    names::id("id", &id)?;
    let now = state.now();
    limited(&state, remote, &now)?;
    let (inner, enrolment) = (state.clone(), id.clone());
    let outcome = state
        .store(move |store| {
            let row = store.enrolment(&enrolment)?;
            let judged = enrol::activation(&row, &request).and_then(|key| {
                let issue = |host: &str| host_certificate(&inner, key.spki(), host, &now);
                store.activate(&now, &enrolment, &request.tls_public.0, enrol::class_rank, issue)
            });
            if let Err(refusal) = &judged
                && enrol::burns(refusal)
            {
                store.refuse_enrolment(&now, &enrolment, &enrol::all(refusal))?;
            }
            judged
        })
        .await;
    match &outcome {
        Ok(Some((host, _))) => {
            count("approved");
            tracing::info!(enrolment = %id, host = %host.id, node = %host.assignment.node, "host enrolled");
        }
        Ok(None) => {
            count("pending");
            tracing::info!(enrolment = %id, "enrolment waits for approval");
        }
        Err(refusal) => {
            count("refused");
            tracing::warn!(enrolment = %id, finding = %refusal.first, "activation refused");
        }
    }
    outcome.map(answer)
}

/// Asks again whether a person has approved.
pub(super) async fn poll(
    State(state): State<AppState>,
    Extension(remote): Extension<Remote>,
    Path(id): Path<String>,
    Body(request): Body<EnrolmentPoll>,
) -> Outcome<Response> {
    names::id("id", &id)?;
    let now = state.now();
    limited(&state, remote, &now)?;
    let inner = state.clone();
    let outcome = state.store(move |store| {
        let row = store.enrolment(&id)?;
        enrol::check_secret(&row, &request.secret.0)?;
        store.collect(&now, &id, |host, tls_public| {
            let public = Public::parse(tls_public).map_err(Refusal::internal)?;
            let spki = public
                .key()
                .to_spki()
                .ok_or_else(|| Refusal::internal("a stored TLS key has no SubjectPublicKeyInfo"))?;
            host_certificate(&inner, &spki, host, &now)
        })
    });
    Ok(answer(outcome.await?))
}
