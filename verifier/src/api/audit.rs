//! `/v1/audit`.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};

use super::types::{AuditHead, AuditQuery};
use crate::audit::Record;
use crate::refusal::{Outcome, Refusal};
use crate::state::AppState;

/// Records in order.
pub(super) async fn list(
    State(state): State<AppState>,
    query: Result<Query<AuditQuery>, QueryRejection>,
) -> Outcome<Json<Vec<Record>>> {
    let Query(query) = query.map_err(|error| Refusal::field("query", error.body_text()))?;
    Ok(Json(state.store(move |store| store.audit_records(query.since, query.limit)).await?))
}

/// The signed head.
pub(super) async fn head(State(state): State<AppState>) -> Outcome<Json<AuditHead>> {
    Ok(Json(AuditHead { head: state.store(|store| store.audit_head()).await? }))
}
