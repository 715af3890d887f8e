//! `/v1/renewals`: another certificate for a host that proves its AK, without a person.

use axum::Json;
use axum::extract::{Extension, State};
use hostmark_attest::wire::{HostIdentity, Renewal, RenewalChallenge, RenewalRequest};

use super::Body;
use super::enrolments::{host_certificate, identity, limited};
use crate::enrol::renewal;
use crate::names;
use crate::refusal::Outcome;
use crate::rounds;
use crate::state::AppState;
use crate::store::Purpose;
use crate::tls::Remote;

/// Asks for a nonce.
pub(super) async fn challenge(
    State(state): State<AppState>,
    Extension(remote): Extension<Remote>,
    Body(request): Body<RenewalRequest>,
) -> Outcome<Json<RenewalChallenge>> {
    names::id("host", &request.host)?;
    let now = state.now();
    limited(&state, remote, &now)?;
    let life = state.config.nonce_life.0;
    let issued = state
        .store(move |store| {
            store.enrolled(&request.host)?;
            store.issue_nonce(&now, &request.host, Purpose::Renewal, life, "{}")
        })
        .await?;
    Ok(Json(RenewalChallenge {
        nonce: issued.nonce,
        selection: renewal::selection(),
        expires_in_ms: issued.expires_in_ms,
    }))
}

/// Judges the quote and the TLS key, uses the nonce up, and issues the certificate.
pub(super) async fn renew(
    State(state): State<AppState>,
    Extension(remote): Extension<Remote>,
    Body(request): Body<Renewal>,
) -> Outcome<Json<HostIdentity>> {
    names::id("host", &request.host)?;
    let now = state.now();
    limited(&state, remote, &now)?;
    let inner = state.clone();
    let host = request.host.clone();
    let outcome = state
        .store(move |store| {
            let judged = store.enrolled(&request.host)?;
            let key = renewal::verify(&judged, &request)?;
            renewal::one_machine(rounds::kept(&inner, &judged).ok().flatten().map(|(_, kept)| kept).as_ref())?;
            let issued = host_certificate(&inner, key.spki(), &request.host, &now)?;
            let row = store.renew_certificate(&now, judged.row(), &request.nonce, &issued)?;
            Ok(identity(&row, &issued))
        })
        .await;
    match &outcome {
        Ok(_) => tracing::info!(%host, "host certificate renewed"),
        Err(refusal) => tracing::warn!(%host, finding = %refusal.first, "renewal refused"),
    }
    Ok(Json(outcome?))
}
