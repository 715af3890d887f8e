//! `/healthz`, `/readyz`, `/metrics`, `/v1/keys`, `/v1/whoami`.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header::CONTENT_TYPE};
use axum::response::IntoResponse;

use super::types::{Ready, WhoAmI};
use crate::auth::Caller;
use crate::state::AppState;

/// The process answers.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// The verifier can accept changes: the store answers and its audit chain is whole.
pub(crate) async fn readyz(State(state): State<AppState>) -> impl IntoResponse {
    let reason = match state.store.read_only() {
        Some(finding) => Some(finding.to_string()),
        None => state.store.audit_head().err().map(|refusal| refusal.first.to_string()),
    };
    let status = if reason.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Ready { ready: reason.is_none(), reason, version: env!("CARGO_PKG_VERSION").to_owned() }))
}

/// The public keys for results, permits and audit heads (RFC 7517).
pub(super) async fn keys(State(state): State<AppState>) -> impl IntoResponse {
    Json(serde_json::json!({ "keys": state.keys.jwks() }))
}

/// Prometheus text.
pub(crate) async fn metrics(State(state): State<AppState>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], state.metrics.render())
}

/// Who the caller is, as the verifier sees it.
pub(super) async fn whoami(caller: Caller) -> Json<WhoAmI> {
    Json(WhoAmI { role: caller.role(), name: caller.name().to_owned(), serial: caller.serial().to_owned() })
}
