//! `/v1/standings`, `/v1/hosts/{host}/standing`, `/v1/pools`, `/v1/placements`: what is asked about trust, now.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, State};
use hostmark_attest::finding::Finding;
use hostmark_attest::pool::Mode;
use hostmark_attest::tier::Submodule;
use hostmark_attest::wire::PoolPlace;

use super::Body;
use super::hosts::find;
use super::views::{
    PlacementRequest, PlacementResponse, PoolSummary, PoolVerdict, StandingDetail, StandingFields, StandingSummary,
    SubsystemDetail,
};
use crate::clock::{Now, millis, rfc3339};
use crate::names;
use crate::placement;
use crate::refusal::{Kind, Outcome, Refusal};
use crate::rules::{CompiledPool, Rules};
use crate::standing::{Standing, View};
use crate::state::AppState;

fn mode(pool: &CompiledPool) -> &'static str {
    match pool.pool.mode() {
        Mode::Enforce => "enforce",
        Mode::Observe => "observe",
    }
}

fn fields(standing: &Standing, rules: &Rules, now: &Now) -> StandingFields {
    let row = &standing.row;
    StandingFields {
        host: row.id.clone(),
        node: row.assignment.node.clone(),
        scheduler: row.assignment.scheduler.clone(),
        label: row.assignment.label.to_string(),
        state: standing.state(now, rules.longest_lease_ms()),
        tpm_class: standing
            .result
            .as_ref()
            .map_or_else(|| row.class.clone(), |result| result.host_claims().tpm_class.to_string()),
        age_ms: standing.age_ms(now),
    }
}

fn summary(standing: &Standing, rules: &Rules, now: &Now) -> StandingSummary {
    let pools = standing.pools(rules, now).into_iter();
    StandingSummary {
        fields: fields(standing, rules, now),
        tiers: standing.result.iter().flat_map(|result| Submodule::ALL.map(|name| (name, result.tier(name)))).collect(),
        pools: pools
            .map(|(pool, left)| PoolPlace { pool, not_after: rfc3339(now.unix_ms.saturating_add_unsigned(left)) })
            .collect(),
        reason: unjudged(standing, rules).or_else(|| standing.reason()),
    }
}

/// Why nobody can judge the host now, if so: its policy, or references that it names, are not published or not usable.
fn unjudged(standing: &Standing, rules: &Rules) -> Option<Finding> {
    rules.judge(&standing.row.assignment.policy).err().map(|refusal| *refusal.first)
}

/// Those of these appraisal policies that judge nobody now, each once, as warnings. What was just ordered stands, whether they can be told or not.
pub(super) async fn unjudged_policies(state: &AppState, policies: impl IntoIterator<Item = String>) -> Vec<Finding> {
    let policies: BTreeSet<String> = policies.into_iter().collect();
    let view = view(state).await.ok();
    view.iter().flat_map(|(view, _)| policies.iter().filter_map(|policy| view.rules.unjudged(policy))).collect()
}

fn verdict(pool: &CompiledPool, standing: &Standing, rules: &Rules, now: &Now) -> PoolVerdict {
    let left = standing.left_ms(pool.pool.name(), now);
    PoolVerdict {
        pool: pool.pool.name().to_owned(),
        mode: mode(pool).to_owned(),
        admitted: left.is_some(),
        not_after: left.map(|left| rfc3339(now.unix_ms.saturating_add_unsigned(left))),
        rule: pool.admission.name().to_owned(),
        conditions: standing.explain(pool, rules, now),
    }
}

async fn view(state: &AppState) -> Outcome<(View, Now)> {
    state
        .compute(|state| {
            let now = state.now();
            state.refresh(&now)?;
            Ok((state.standings.view(), now))
        })
        .await
}

/// Every host.
pub(super) async fn list(State(state): State<AppState>) -> Outcome<Json<Vec<StandingSummary>>> {
    let (view, now) = view(&state).await?;
    Ok(Json(view.hosts.values().map(|one| summary(one, &view.rules, &now)).collect()))
}

/// One host, explained. A host is named by its id or its node.
pub(super) async fn show(State(state): State<AppState>, Path(host): Path<String>) -> Outcome<Json<StandingDetail>> {
    let id = find(&state, &host).await?.id;
    let (view, now) = view(&state).await?;
    let standing = view.hosts.get(&id).ok_or_else(|| Refusal::not_found("host"))?;
    // A row that was changed from outside is among what was refused; it has no result to show.
    let stored = match state.store(move |store| store.result(&id)).await {
        Err(refusal) if refusal.kind == Kind::Unavailable => return Err(refusal),
        stored => stored.ok().flatten(),
    };
    // A round that was recorded meanwhile is not the one that is explained here.
    let shown = standing.last.as_ref().map(|last| last.sequence);
    let token = stored.filter(|stored| Some(stored.sequence) == shown).and_then(|stored| stored.result);
    let subsystem = |name: Submodule| {
        let result = standing.result.as_ref()?;
        Some((name, SubsystemDetail { tier: result.tier(name), findings: result.findings(name).to_vec() }))
    };
    let last = standing.last.as_ref();
    let mut refused = standing.refused.clone();
    refused.extend(last.map(|last| last.findings.clone()).unwrap_or_default());
    refused.extend(unjudged(standing, &view.rules));
    Ok(Json(StandingDetail {
        fields: fields(standing, &view.rules, &now),
        appraisal: standing.result.as_ref().map(|result| {
            let said = result.host_claims();
            format!("{}@{}", said.appraisal, said.appraisal_version)
        }),
        boot: standing.result.as_ref().and_then(|result| result.host_claims().boot.clone()),
        subsystems: Submodule::ALL.into_iter().filter_map(subsystem).collect(),
        refused,
        pools: view.rules.pools().map(|pool| verdict(pool, standing, &view.rules, &now)).collect(),
        result: token,
    }))
}

/// Every pool.
pub(super) async fn pools(State(state): State<AppState>) -> Outcome<Json<Vec<PoolSummary>>> {
    let (view, now) = view(&state).await?;
    let one = |pool: &CompiledPool| {
        let cleared = |host: &Standing| view.rules.levels().dominates(&host.row.assignment.label, pool.pool.label());
        let (admitted, refused): (Vec<_>, Vec<_>) = view
            .hosts
            .values()
            .filter(|host| cleared(host))
            .partition(|host| host.left_ms(pool.pool.name(), &now).is_some());
        let nodes = |hosts: Vec<&std::sync::Arc<Standing>>| {
            hosts.into_iter().map(|host| host.row.assignment.node.clone()).collect()
        };
        PoolSummary {
            pool: pool.pool.name().to_owned(),
            label: pool.pool.label().to_string(),
            mode: mode(pool).to_owned(),
            lease_ms: u64::try_from(millis(pool.pool.lease())).unwrap_or_default(),
            admission: pool.admission.name().to_owned(),
            admitted: nodes(admitted),
            refused: nodes(refused),
        }
    };
    Ok(Json(view.rules.pools().map(one).collect()))
}

/// One pool and one host, with every condition.
pub(super) async fn explain(
    State(state): State<AppState>,
    Path((pool, host)): Path<(String, String)>,
) -> Outcome<Json<PoolVerdict>> {
    names::name("pool", &pool)?;
    let id = find(&state, &host).await?.id;
    let (view, now) = view(&state).await?;
    let standing = view.hosts.get(&id).ok_or_else(|| Refusal::not_found("host"))?;
    let pool = view.rules.pool(&pool).ok_or_else(|| Refusal::not_found("pool"))?;
    Ok(Json(verdict(pool, standing, &view.rules, &now)))
}

/// Hosts with permits, or why none.
pub(super) async fn place(
    State(state): State<AppState>,
    Body(request): Body<PlacementRequest>,
) -> Outcome<Json<PlacementResponse>> {
    let (view, now) = view(&state).await?;
    placement::place(&request, &view, &state.keys, &now).map(Json)
}
