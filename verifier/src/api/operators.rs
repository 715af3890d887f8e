//! `/v1/operators`.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject as _;

use super::Body;
use super::types::{AddOperator, Operator, OperatorCertificate};
use crate::auth::{Caller, Role};
use crate::ca::request_key;
use crate::clock::rfc3339;
use crate::names;
use crate::refusal::{Outcome, Refusal};
use crate::state::AppState;

/// Adds an operator from a certificate request.
pub(super) async fn add(
    State(state): State<AppState>,
    caller: Caller,
    Body(new): Body<AddOperator>,
) -> Outcome<(StatusCode, Json<OperatorCertificate>)> {
    names::operator("name", &new.name)?;
    if new.role == Role::Host {
        return Err(Refusal::field("role", "a host is enrolled with its TPM, never added as an operator"));
    }
    let csr = CertificateSigningRequestDer::from_pem_slice(new.csr.as_bytes())
        .map_err(|_| Refusal::field("csr", "not a PEM certificate request"))?;
    let key = request_key(&csr).map_err(|error| Refusal::field("csr", error))?;
    let now = state.now();
    let life = state.config.operator_certificate.0;
    let issued = state.ca.client(&key, new.role, &new.name, life, &now).map_err(Refusal::internal)?;
    let answer = OperatorCertificate {
        name: new.name,
        role: new.role,
        certificate: issued.chain_pem.clone(),
        not_after: rfc3339(issued.not_after_unix_ms),
    };
    state.store(move |store| store.add_operator(&now, &caller.actor(), &issued)).await?;
    tracing::info!(operator = %answer.name, role = answer.role.name(), "operator added");
    Ok((StatusCode::CREATED, Json(answer)))
}

/// Removes an operator; every certificate of theirs is revoked at once.
pub(super) async fn remove(
    State(state): State<AppState>,
    caller: Caller,
    Path(name): Path<String>,
) -> Outcome<StatusCode> {
    names::operator("name", &name)?;
    let now = state.now();
    let removed = name.clone();
    state.store(move |store| store.remove_operator(&now, &caller.actor(), &removed)).await?;
    tracing::info!(operator = %name, "operator removed");
    Ok(StatusCode::NO_CONTENT)
}

/// Lists the operators.
pub(super) async fn list(State(state): State<AppState>) -> Outcome<Json<Vec<Operator>>> {
    let rows = state.store(|store| store.operators()).await?;
    let list = rows
        .into_iter()
        .map(|row| Operator {
            name: row.name,
            role: row.role,
            added: rfc3339(row.added_unix_ms),
            added_by: row.added_by,
        })
        .collect();
    Ok(Json(list))
}
