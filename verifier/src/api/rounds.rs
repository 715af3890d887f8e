//! `/v1/challenges` and `/v1/evidence`: the loop, for hosts.

use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, State};
use hostmark_attest::check::violated;
use hostmark_attest::finding::Finding;
use hostmark_attest::wire::{Challenge, EVIDENCE_TYPE, RoundOutcome};

use super::BodyBytes;
use crate::auth::Caller;
use crate::refusal::{Kind, Outcome, Refusal};
use crate::rounds;
use crate::server::Deadline;
use crate::state::AppState;

/// What is left of a request's time to say that its round failed.
const ANSWER: Duration = Duration::from_millis(100);

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
    Extension(Deadline(end)): Extension<Deadline>,
    body: BodyBytes,
) -> Outcome<Json<RoundOutcome>> {
    let host = caller.host()?.to_owned();
    if violated("request.media-type", body.media_type != EVIDENCE_TYPE) {
        let finding = Finding::error("request.media-type", "this route takes a round's evidence")
            .expected(EVIDENCE_TYPE)
            .found(body.media_type);
        return Err(Refusal::new(Kind::MediaType, finding));
    }
    // A little before the whole request's end, so that the host is told what happened, and told the truth.
    let end = end.checked_sub(ANSWER).unwrap_or(end);
    let round = state.compute(move |state| rounds::round(state, &host, &body.bytes, end));
    match tokio::time::timeout_at(end.into(), round).await {
        Ok(outcome) => outcome.map(Json),
        Err(_) => Err(Refusal::internal("the appraisal took too long")),
    }
}
