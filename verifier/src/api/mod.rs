//! The REST API: one file per endpoint group, and **one table** of routes.
//!
//! Handlers translate: bytes to a command, a command's outcome to an answer. What decides is in `store`, `enrol` and the core library.
//! The table below is what the router is built from and what the role tests read: a route exists with its roles, or not at all.

mod audit;
mod body;
mod health;
mod operators;
pub mod types;

use axum::routing::{MethodRouter, get, post};

use crate::auth::{Access, Role};
use crate::state::AppState;

pub use body::{Body, BodyBytes};
pub(crate) use health::{metrics, readyz};

/// One route: path, method, who may use it, how large its body may be, and its handler.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// `GET`, `POST`, `PUT` or `DELETE`, as the handler has it.
    pub method: &'static str,
    /// Path with `{parameters}`.
    pub path: &'static str,
    /// Who may use it.
    pub access: Access,
    /// Largest body, in bytes.
    pub body_max: usize,
    /// Makes the handler.
    pub handler: fn() -> MethodRouter<AppState>,
}

/// Bodies that people and schedulers send.
pub const SMALL: usize = 64 * 1024;
/// Bulk imports: about 10,000 pre-registrations.
pub const BULK: usize = 4 * 1024 * 1024;

/// Everybody with a certificate but hosts.
pub const PEOPLE: Access =
    Access::Roles(&[Role::Viewer, Role::Scheduler, Role::Provisioner, Role::Approver, Role::Auditor, Role::Admin]);
/// Changes of hosts, pools and policies.
pub const APPROVERS: Access = Access::Roles(&[Role::Approver, Role::Admin]);
/// Tokens and pre-registrations.
pub const PROVISIONERS: Access = Access::Roles(&[Role::Provisioner, Role::Admin]);
/// The audit chain.
pub const AUDITORS: Access = Access::Roles(&[Role::Auditor, Role::Admin]);
/// Operators themselves.
pub const ADMINS: Access = Access::Roles(&[Role::Admin]);
/// Hosts, about themselves.
pub const HOSTS: Access = Access::Roles(&[Role::Host]);
/// Anybody: health, public keys, and what a host without a certificate needs.
pub const PUBLIC: Access = Access::Public;

const fn route(
    method: &'static str,
    path: &'static str,
    access: Access,
    body_max: usize,
    handler: fn() -> MethodRouter<AppState>,
) -> Route {
    Route { method, path, access, body_max, handler }
}

/// The routes of this file's groups.
static ROUTES: &[Route] = &[
    route("GET", "/healthz", PUBLIC, 0, || get(health::healthz)),
    route("GET", "/readyz", PUBLIC, 0, || get(health::readyz)),
    route("GET", "/v1/keys", PUBLIC, 0, || get(health::keys)),
    route("GET", "/metrics", PEOPLE, 0, || get(health::metrics)),
    route("GET", "/v1/whoami", Access::Roles(&Role::ALL), 0, || get(health::whoami)),
    route("GET", "/v1/operators", AUDITORS, 0, || get(operators::list)),
    route("POST", "/v1/operators", ADMINS, SMALL, || post(operators::add)),
    route("DELETE", "/v1/operators/{name}", ADMINS, 0, || axum::routing::delete(operators::remove)),
    route("GET", "/v1/audit", AUDITORS, 0, || get(audit::list)),
    route("GET", "/v1/audit/head", AUDITORS, 0, || get(audit::head)),
];

/// Every route of the verifier. A new group adds its table here.
pub fn routes() -> impl Iterator<Item = &'static Route> {
    ROUTES.iter()
}
