//! `/v1/challenges` and `/v1/evidence`: the loop, for hosts.

use axum::Json;
use axum::extract::State;
use hostmark_attest::finding::Finding;
use hostmark_attest::wire::{Challenge, EVIDENCE_TYPE, RoundOutcome};

use super::BodyBytes;
use crate::auth::Caller;
use crate::refusal::{Kind, Outcome, Refusal};
use crate::rounds;
use crate::state::AppState;

/// Issues a challenge.
pub(super) async fn challenge(State(state): State<AppState>, caller: Caller) -> Outcome<Json<Challenge>> {
    let host = caller.host()?.to_owned();
    state.challenges.take(&host, &state.now())?;
    state.compute(move |state| rounds::challenge(state, &host)).await.map(Json)
}

/// Takes a round's evidence.
pub(super) async fn evidence(
    State(state): State<AppState>,
    caller: Caller,
    body: BodyBytes,
) -> Outcome<Json<RoundOutcome>> {
    let host = caller.host()?.to_owned();
    if body.media_type != EVIDENCE_TYPE {
        let finding = Finding::error("request.media-type", "this route takes a round's evidence")
            .expected(EVIDENCE_TYPE)
            .found(body.media_type);
        return Err(Refusal::new(Kind::MediaType, finding));
    }
    state.compute(move |state| rounds::round(state, &host, &body.bytes)).await.map(Json)
}
