//! `POST /v1/pools`, `/v1/policies`, `/v1/references`: what operators publish.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use hostmark_attest::finding::Finding;
use hostmark_attest::jws::verify_detached;
use hostmark_attest::policy::PolicyError;
use hostmark_attest::pool::is_name;

use super::Body;
use super::views::{ApplyPools, NamedFile, PoolChanges, PublishFile, Published};
use crate::auth::Caller;
use crate::refusal::{Kind, Outcome, Refusal};
use crate::rules::{self, Rules, StoredFile, StoredRules};
use crate::state::AppState;
use crate::store::SignedKind;

fn invalid(error: &PolicyError) -> Refusal {
    match error {
        PolicyError::Unsigned { findings, .. } => Refusal::findings(findings.clone()),
        PolicyError::Invalid { id, .. } => Refusal::new(Kind::Refused, Finding::error(*id, error.to_string())),
        _ => Refusal::new(Kind::Malformed, Finding::error("file.malformed", error.to_string())),
    }
}

fn stored(file: NamedFile) -> Outcome<StoredFile> {
    if !is_name(&file.name) {
        return Err(Refusal::field("name", "a file's name matches [a-z][a-z0-9-]{0,62}"));
    }
    Ok(StoredFile { name: file.name, toml: file.toml, signature: String::new() })
}

fn files(list: Vec<NamedFile>) -> Outcome<Vec<StoredFile>> {
    let mut files = list.into_iter().map(stored).collect::<Outcome<Vec<_>>>()?;
    files.sort_by(|a, b| a.name.cmp(&b.name));
    let unique: BTreeSet<&str> = files.iter().map(|file| file.name.as_str()).collect();
    if unique.len() != files.len() {
        return Err(Refusal::field("name", "a file is named twice"));
    }
    Ok(files)
}

/// Applies all pools and admission policies at once, or says what that would change.
pub(super) async fn apply_pools(
    State(state): State<AppState>,
    caller: Caller,
    Body(request): Body<ApplyPools>,
) -> Outcome<Json<PoolChanges>> {
    let (pools, admission) = (files(request.pools)?, files(request.admission)?);
    let actor = caller.actor();
    let changes = state
        .compute(move |state| {
            let now = state.now();
            state.refresh(&now)?;
            let before = state.store.rules()?;
            let next = StoredRules { pools, admission, ..before.clone() };
            rules::pools(&next, &state.config.levels).map_err(|error| invalid(&error))?;
            let mut changes = compare(&before, &next);
            let trust = state.trust();
            let ahead = Rules::compile(&next, &trust.signers, &state.config.levels);
            changes.warnings = ahead.waiting_pools();
            let view = state.standings.view();
            for standing in view.hosts.values() {
                let node = &standing.row.assignment.node;
                let now_in: BTreeSet<String> =
                    standing.pools(&view.rules, &now).into_iter().map(|(pool, _)| format!("{pool}/{node}")).collect();
                let then_in: BTreeSet<String> = standing
                    .under(&ahead)
                    .pools(&ahead, &now)
                    .into_iter()
                    .map(|(pool, _)| format!("{pool}/{node}"))
                    .collect();
                changes.enter.extend(then_in.difference(&now_in).cloned());
                changes.leave.extend(now_in.difference(&then_in).cloned());
            }
            if !request.dry_run {
                state.store.apply_pools(&now, &actor, &next)?;
                state.refresh(&now)?;
                changes.applied = true;
            }
            Ok(changes)
        })
        .await?;
    tracing::info!(applied = changes.applied, "pools");
    Ok(Json(changes))
}

fn compare(before: &StoredRules, next: &StoredRules) -> PoolChanges {
    let mut changes = PoolChanges::default();
    let text = |list: &[StoredFile], name: &str| list.iter().find(|one| one.name == name).map(|one| one.toml.clone());
    for (kind, old, new) in [("pools", &before.pools, &next.pools), ("admission", &before.admission, &next.admission)] {
        for file in new {
            match text(old, &file.name) {
                None => changes.added.push(format!("{kind}/{}", file.name)),
                Some(known) if known != file.toml => changes.changed.push(format!("{kind}/{}", file.name)),
                Some(_) => {}
            }
        }
        changes.removed.extend(
            old.iter().filter(|file| text(new, &file.name).is_none()).map(|file| format!("{kind}/{}", file.name)),
        );
    }
    changes
}

async fn publish(state: AppState, caller: Caller, request: PublishFile, kind: SignedKind) -> Outcome<Json<Published>> {
    let mut file = stored(NamedFile { name: request.name, toml: request.toml })?;
    file.signature = request.signature.trim().to_owned();
    let actor = caller.actor();
    let published = state
        .compute(move |state| {
            let now = state.now();
            let (version, mut waits_for, signer) = state.by_trust(&now, |trust| {
                let signers = &trust.signers;
                let (judged, purpose) = match kind {
                    SignedKind::Policy => (
                        rules::appraisal(&file, signers).map(|policy| (policy.version(), policy.references().to_vec())),
                        &hostmark_attest::policy::POLICY,
                    ),
                    SignedKind::References => (
                        rules::references(&file, signers).map(|bundle| (bundle.version(), Vec::new())),
                        &hostmark_attest::policy::REFERENCES,
                    ),
                };
                let (version, waits_for) = judged.map_err(|error| invalid(&error))?;
                let signer = verify_detached(purpose, file.toml.as_bytes(), &file.signature, signers)
                    .map_err(Refusal::findings)?;
                Ok((version, waits_for, signer))
            })?;
            state.store.publish(&now, &actor, kind, &file, version, &signer)?;
            state.refresh(&now)?;
            let known = state.store.rules()?.references;
            waits_for.retain(|bundle| !known.iter().any(|one| one.name == *bundle));
            Ok(Published { name: file.name, version, signer, waits_for })
        })
        .await?;
    tracing::info!(name = %published.name, version = published.version, waits_for = ?published.waits_for, "published");
    Ok(Json(published))
}

/// Publishes an appraisal policy.
pub(super) async fn policy(
    State(state): State<AppState>,
    caller: Caller,
    Body(request): Body<PublishFile>,
) -> Outcome<Json<Published>> {
    publish(state, caller, request, SignedKind::Policy).await
}

/// Publishes a reference bundle.
pub(super) async fn references(
    State(state): State<AppState>,
    caller: Caller,
    Body(request): Body<PublishFile>,
) -> Outcome<Json<Published>> {
    publish(state, caller, request, SignedKind::References).await
}
