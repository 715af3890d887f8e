//! `/v1/hosts`: what people see of hosts and decide about them.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use hostmark_attest::identity::tag::verify_provisioning;

use super::Body;
use super::types::{Approve, Host, Label, Maintenance, Rebind, Retire, SetTag};
use crate::auth::{Caller, Role};
use crate::clock::{Now, millis};
use crate::names;
use crate::refusal::{Outcome, Refusal};
use crate::state::AppState;
use crate::store::HostRow;

/// Longest maintenance: longer absences are retirements.
const MAINTENANCE_MAX: std::time::Duration = std::time::Duration::from_secs(30 * 86_400);

/// A host by id or node name; both grammars are strict, so nothing else reaches the store.
pub(super) async fn find(state: &AppState, text: &str) -> Outcome<HostRow> {
    if names::id("host", text).is_err() {
        names::node("host", text)?;
    }
    let text = text.to_owned();
    state.store(move |store| store.find_host(&text)).await
}

/// A known host and where it stands at `now`: proof that has lapsed is not shown as proof.
fn known(state: &AppState, row: HostRow, now: &Now) -> Host {
    let standing = state.standings.host(&row.id);
    let stands = standing.map(|(standing, rules)| standing.state(now, rules.longest_lease_ms()));
    Host::known(row, stands, now)
}

/// Lists hosts, waiting ones first.
pub(super) async fn list(State(state): State<AppState>) -> Outcome<Json<Vec<Host>>> {
    let list = state.compute(|state| {
        let now = state.now();
        state.refresh(&now)?;
        let mut list: Vec<Host> = state.store.pending_enrolments()?.into_iter().map(Host::from).collect();
        list.extend(state.store.hosts()?.into_iter().map(|row| known(state, row, &now)));
        Ok(list)
    });
    Ok(Json(list.await?))
}

/// Shows one host. A host may see itself only (D2).
pub(super) async fn show(
    State(state): State<AppState>,
    caller: Caller,
    Path(host): Path<String>,
) -> Outcome<Json<Host>> {
    caller.about(&host)?;
    let row = match find(&state, &host).await {
        Err(refusal) if refusal.id() == "host.unknown" && caller.role() != Role::Host => {
            let waiting = state.store(|store| store.pending_enrolments()).await?;
            let found = waiting.into_iter().find(|one| one.host == host || one.id == host);
            return found.map(|one| Json(Host::from(one))).ok_or(refusal);
        }
        other => other?,
    };
    let shown = state.compute(move |state| {
        let now = state.now();
        state.refresh(&now)?;
        Ok(known(state, row, &now))
    });
    Ok(Json(shown.await?))
}

/// Approves a waiting host.
pub(super) async fn approve(
    State(state): State<AppState>,
    caller: Caller,
    Path(host): Path<String>,
    Body(new): Body<Approve>,
) -> Outcome<StatusCode> {
    names::id("host", &host)?;
    let to = new.assignment.checked(&state.config.levels, &state.config.default_policy)?;
    let now = state.now();
    tracing::info!(%host, node = %to.node, by = %caller.name(), "host approval");
    state.store(move |store| store.approve(&now, &caller.actor(), &host, &to)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives a host another label.
pub(super) async fn label(
    State(state): State<AppState>,
    caller: Caller,
    Path(host): Path<String>,
    Body(new): Body<Label>,
) -> Outcome<StatusCode> {
    let to = names::label("label", &new.label, &state.config.levels)?;
    let row = find(&state, &host).await?;
    let now = state.now();
    state.store(move |store| store.set_label(&now, &caller.actor(), &row.id, &to)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Plans an absence, or ends it.
pub(super) async fn maintenance(
    State(state): State<AppState>,
    caller: Caller,
    Path(host): Path<String>,
    Body(new): Body<Maintenance>,
) -> Outcome<StatusCode> {
    let now = state.now();
    let until = match new.for_ {
        Some(span) if span.0.is_zero() || span.0 > MAINTENANCE_MAX => {
            return Err(Refusal::field("for", "above zero and at most 30d"));
        }
        Some(span) => now.unix_ms.saturating_add(millis(span.0)),
        None => 0,
    };
    let row = find(&state, &host).await?;
    state.store(move |store| store.set_maintenance(&now, &caller.actor(), &row.id, until)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lets a waiting enrolment take the host's place.
pub(super) async fn rebind(
    State(state): State<AppState>,
    caller: Caller,
    Path(host): Path<String>,
    Body(new): Body<Rebind>,
) -> Outcome<StatusCode> {
    if let Some(enrolment) = &new.enrolment {
        names::id("enrolment", enrolment)?;
    }
    let row = find(&state, &host).await?;
    let now = state.now();
    tracing::info!(host = %row.id, by = %caller.name(), "host rebinding");
    state.store(move |store| store.rebind(&now, &caller.actor(), &row.id, new.enrolment.as_deref())).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Retires a host.
pub(super) async fn retire(
    State(state): State<AppState>,
    caller: Caller,
    Path(host): Path<String>,
    Body(Retire {}): Body<Retire>,
) -> Outcome<StatusCode> {
    let row = find(&state, &host).await?;
    let now = state.now();
    tracing::info!(host = %row.id, by = %caller.name(), "host retirement");
    state.store(move |store| store.retire(&now, &caller.actor(), &row.id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Records a signed tag for a host: signed by a trusted operator key, for this host's EK, newer than the one before.
pub(super) async fn tag(
    State(state): State<AppState>,
    caller: Caller,
    Path(host): Path<String>,
    Body(new): Body<SetTag>,
) -> Outcome<StatusCode> {
    let row = find(&state, &host).await?;
    let now = state.now();
    let provisioned =
        state.by_trust(&now, |trust| verify_provisioning(&new.nv.0, &trust.signers).map_err(Refusal::findings))?;
    let (ek, serial) = (provisioned.tag().ek.clone(), provisioned.tag().serial);
    state.store(move |store| store.set_tag(&now, &caller.actor(), &row.id, &new.nv.0, &ek, serial)).await?;
    Ok(StatusCode::NO_CONTENT)
}
