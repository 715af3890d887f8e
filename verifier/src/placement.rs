//! Where may a workload run, now: hosts with permits, or why none.
//!
//! Hostmark never schedules (law 4): it answers with as many proven hosts as were asked for, spread over zones where that is
//! wanted, and the scheduler chooses. A permit is signed when it is asked for and ends with the lease.

use std::collections::BTreeMap;

use hostmark_attest::finding::Finding;
use hostmark_attest::label::Label;
use hostmark_attest::pool::Mode;

use crate::api::views::{Placed, PlacementRequest, PlacementResponse, Spread, Unplaced};
use crate::clock::{Now, rfc3339};
use crate::keys::Keys;
use crate::names;
use crate::refusal::{Outcome, Refusal};
use crate::rules::CompiledPool;
use crate::standing::{Standing, View};

/// Most hosts that one query may ask for.
const COUNT_MAX: u32 = 1000;
/// Most hosts whose refusal is explained in one answer.
const EXPLAINED_MAX: usize = 20;

/// Answers a placement query.
///
/// # Errors
/// 400 naming the field.
pub fn place(request: &PlacementRequest, view: &View, keys: &Keys, now: &Now) -> Outcome<PlacementResponse> {
    let levels = view.rules.levels();
    let label: Label = names::label("label", &request.label, levels)?;
    if let Some(scheduler) = &request.scheduler {
        names::name("scheduler", scheduler)?;
    }
    if request.count == 0 || request.count > COUNT_MAX {
        return Err(Refusal::field("count", format!("ask for 1 to {COUNT_MAX} hosts")));
    }
    let wanted = usize::try_from(request.count).unwrap_or(usize::MAX);
    let mut found: Vec<(&CompiledPool, &Standing, u64)> = Vec::new();
    let mut refused: Vec<(&CompiledPool, &Standing)> = Vec::new();
    for pool in view.rules.pools().filter(|one| one.pool.mode() == Mode::Enforce && one.pool.accepts(&label, levels)) {
        for standing in view.hosts.values().filter(|one| in_scheduler(one, request)) {
            match standing.left_ms(pool.pool.name(), now) {
                Some(left) if !found.iter().any(|(_, known, _)| known.row.id == standing.row.id) => {
                    found.push((pool, standing, left));
                }
                Some(_) => {}
                None if refused.len() < EXPLAINED_MAX => refused.push((pool, standing)),
                None => {}
            }
        }
    }
    let carried = view.rules.pools().any(|one| one.pool.mode() == Mode::Enforce && one.pool.accepts(&label, levels));
    let reason = (!carried).then(|| {
        Finding::error("placement.no-pool", "no enforcing pool accepts workloads with this label")
            .found(&label)
            .fix("apply a pool with this label, or one that dominates it: hostmark pool list")
    });
    // The longest permits first: they are worth most to whoever waits for an image to be pulled.
    found.sort_by_key(|(_, _, left)| std::cmp::Reverse(*left));
    if request.spread == Spread::Zone {
        found = round_robin(found);
    }
    let mut hosts = Vec::new();
    for (pool, standing, _) in found {
        if hosts.len() == wanted {
            break;
        }
        if let Some(placed) = permit(pool, standing, view, keys, now)? {
            hosts.push(placed);
        }
    }
    let refused = if hosts.len() < wanted { explain(&refused, view, now) } else { Vec::new() };
    Ok(PlacementResponse { label: label.to_string(), asked: request.count, hosts, refused, reason })
}

fn in_scheduler(standing: &Standing, request: &PlacementRequest) -> bool {
    request.scheduler.as_ref().is_none_or(|wanted| *wanted == standing.row.assignment.scheduler)
}

fn zone(standing: &Standing) -> &str {
    let place = standing.result.as_ref().and_then(|result| result.host_claims().tag_location.as_deref());
    place.and_then(|place| place.split('/').next()).unwrap_or_default()
}

/// One host of each zone, then the second of each, and so on.
fn round_robin<'v>(found: Vec<(&'v CompiledPool, &'v Standing, u64)>) -> Vec<(&'v CompiledPool, &'v Standing, u64)> {
    let mut turns = BTreeMap::<&str, usize>::new();
    let mut numbered: Vec<_> = found
        .into_iter()
        .map(|one| {
            let turn = turns.entry(zone(one.1)).or_default();
            *turn = turn.saturating_add(1);
            (*turn, one)
        })
        .collect();
    numbered.sort_by_key(|(turn, _)| *turn);
    numbered.into_iter().map(|(_, one)| one).collect()
}

fn permit(pool: &CompiledPool, standing: &Standing, view: &View, keys: &Keys, now: &Now) -> Outcome<Option<Placed>> {
    let Some((admission, left)) = standing.admission(pool, &view.rules, now) else { return Ok(None) };
    let sequence = standing.last.as_ref().map_or(0, |last| last.sequence);
    let claims = admission.permit(now.unix_ms, left, sequence);
    let token = claims.sign(&keys.permits).map_err(Refusal::internal)?;
    Ok(Some(Placed {
        host: claims.host,
        node: claims.node,
        scheduler: standing.row.assignment.scheduler.clone(),
        pool: claims.pool,
        location: standing.result.as_ref().and_then(|result| result.host_claims().tag_location.clone()),
        not_after: rfc3339(claims.not_after),
        remaining_ms: claims.remaining_ms,
        permit: token,
    }))
}

fn explain(refused: &[(&CompiledPool, &Standing)], view: &View, now: &Now) -> Vec<Unplaced> {
    refused
        .iter()
        .map(|(pool, standing)| Unplaced {
            host: standing.row.id.clone(),
            node: standing.row.assignment.node.clone(),
            pool: pool.pool.name().to_owned(),
            unmet: standing.explain(pool, &view.rules, now).into_iter().filter(|one| !one.met).collect(),
        })
        .collect()
}
