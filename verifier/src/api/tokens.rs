//! `/v1/tokens`.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use hostmark_attest::check::violated;
use hostmark_attest::finding::Finding;

use super::Body;
use super::standings::unjudged_policies;
use super::types::{CreateToken, CreatedToken, Token};
use crate::auth::Caller;
use crate::clock::{millis, rfc3339};
use crate::enrol::{class_rank, make_token};
use crate::names;
use crate::refusal::{Kind, Outcome, Refusal};
use crate::state::AppState;
use crate::store::NewToken;

/// Longest life of a join token.
const LIFE_MAX: std::time::Duration = std::time::Duration::from_secs(30 * 86_400);

/// Makes a join token. It is shown in this answer only.
pub(super) async fn create(
    State(state): State<AppState>,
    caller: Caller,
    Body(new): Body<CreateToken>,
) -> Outcome<(StatusCode, Json<CreatedToken>)> {
    let assignment = new.assignment.checked(&state.config.levels, &state.config.default_policy)?;
    if let Some(ek) = &new.ek_id {
        names::ek_id("ek_id", ek)?;
    }
    if let Some(class) = &new.min_class
        && class_rank(class).is_none()
    {
        return Err(Refusal::field("min_class", "the classes are simulated, unverified, virtual, firmware, hardware"));
    }
    if violated("token.unbound", new.ek_id.is_none() && new.min_class.is_none()) {
        let finding =
            Finding::error("token.unbound", "a join token is bound to one TPM (ek_id) or to a least class (min_class)");
        return Err(Refusal::new(Kind::Malformed, finding));
    }
    if new.expires_in.0.is_zero() || new.expires_in.0 > LIFE_MAX {
        return Err(Refusal::field("expires_in", "above zero and at most 30d"));
    }
    let now = state.now();
    let (token, hash) = make_token()?;
    let expires_unix_ms = now.unix_ms.saturating_add(millis(new.expires_in.0));
    let id = uuid::Uuid::new_v4().to_string();
    let row =
        NewToken { id: id.clone(), hash, ek_id: new.ek_id, min_class: new.min_class, expires_unix_ms, assignment };
    let policy = row.assignment.policy.clone();
    state.store(move |store| store.create_token(&now, &caller.actor(), &row)).await?;
    tracing::info!(token = %id, "join token created");
    let (token, expires) = (token.to_string(), rfc3339(expires_unix_ms));
    let warnings = unjudged_policies(&state, [policy]).await;
    Ok((StatusCode::CREATED, Json(CreatedToken { id, token, expires, warnings })))
}

/// Lists join tokens, without the tokens.
pub(super) async fn list(State(state): State<AppState>) -> Outcome<Json<Vec<Token>>> {
    let rows = state.store(|store| store.tokens()).await?;
    Ok(Json(rows.into_iter().map(Token::from).collect()))
}

/// Revokes an unused join token.
pub(super) async fn revoke(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Outcome<StatusCode> {
    names::id("id", &id)?;
    let now = state.now();
    state.store(move |store| store.revoke_token(&now, &caller.actor(), &id)).await?;
    Ok(StatusCode::NO_CONTENT)
}
