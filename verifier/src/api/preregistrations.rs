//! `/v1/preregistrations`: TPMs that are approved before they ask.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;

use super::Body;
use super::standings::unjudged_policies;
use super::types::{Imported, PreregisteredHost, Preregistrations};
use crate::auth::Caller;
use crate::names;
use crate::refusal::{Outcome, Refusal};
use crate::state::AppState;
use crate::store::Preregistration;

/// Most rows in one import.
const ROWS_MAX: usize = 10_000;

/// Imports rows: all of them or none.
pub(super) async fn import(
    State(state): State<AppState>,
    caller: Caller,
    Body(list): Body<Preregistrations>,
) -> Outcome<(StatusCode, Json<Imported>)> {
    if list.hosts.is_empty() || list.hosts.len() > ROWS_MAX {
        return Err(Refusal::field("hosts", format!("between 1 and {ROWS_MAX} rows")));
    }
    let mut rows = Vec::with_capacity(list.hosts.len());
    for (position, one) in list.hosts.into_iter().enumerate() {
        let place = |mut refusal: Refusal| {
            refusal.first.message = format!("hosts[{position}]: {}", refusal.first.message);
            refusal
        };
        names::ek_id("ek_id", &one.ek_id).map_err(place)?;
        let assignment = one.assignment.checked(&state.config.levels, &state.config.default_policy).map_err(place)?;
        rows.push(Preregistration { ek_id: one.ek_id, assignment });
    }
    let imported = rows.len();
    let policies: Vec<String> = rows.iter().map(|row| row.assignment.policy.clone()).collect();
    let now = state.now();
    state.store(move |store| store.preregister(&now, &caller.actor(), &rows)).await?;
    tracing::info!(imported, "hosts pre-registered");
    let warnings = unjudged_policies(&state, policies).await;
    Ok((StatusCode::CREATED, Json(Imported { imported, warnings })))
}

/// Lists pre-registered TPMs.
pub(super) async fn list(State(state): State<AppState>) -> Outcome<Json<Vec<PreregisteredHost>>> {
    let rows = state.store(|store| store.preregistrations()).await?;
    Ok(Json(
        rows.into_iter().map(|row| PreregisteredHost { ek_id: row.ek_id, assignment: row.assignment.into() }).collect(),
    ))
}

/// Removes one.
pub(super) async fn remove(
    State(state): State<AppState>,
    caller: Caller,
    Path(ek): Path<String>,
) -> Outcome<StatusCode> {
    names::ek_id("ek", &ek)?;
    let now = state.now();
    state.store(move |store| store.remove_preregistration(&now, &caller.actor(), &ek)).await?;
    Ok(StatusCode::NO_CONTENT)
}
