//! The REST API: one file per endpoint group, and **one table** of routes.
//!
//! Handlers translate: bytes to a command, a command's outcome to an answer. What decides is in `store`, `enrol` and the core library.
//! The table below is what the router is built from and what the role tests read: a route exists with its roles, or not at all.

mod audit;
mod body;
mod enrolments;
mod health;
mod hosts;
mod operators;
mod preregistrations;
mod renewals;
mod rounds;
mod rules;
mod standings;
mod tokens;
pub mod types;
pub mod views;

use axum::routing::{MethodRouter, delete, get, post};

use crate::auth::{Access, Role};
use crate::state::AppState;

pub(crate) use body::too_large;
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

/// A round's evidence.
pub const EVIDENCE: usize = hostmark_attest::evidence::EVIDENCE_MAX;
/// A reference bundle: some 200,000 files.
pub const REFERENCES: usize = 32 * 1024 * 1024;

/// Whoever places workloads.
pub const SCHEDULERS: Access = Access::Roles(&[Role::Scheduler, Role::Admin]);
/// Everybody with a certificate but hosts.
pub const PEOPLE: Access =
    Access::Roles(&[Role::Viewer, Role::Scheduler, Role::Provisioner, Role::Approver, Role::Auditor, Role::Admin]);
/// Changes of hosts, pools and policies.
pub const APPROVERS: Access = Access::Roles(&[Role::Approver, Role::Admin]);
/// Tokens and pre-registrations.
pub const PROVISIONERS: Access = Access::Roles(&[Role::Provisioner, Role::Admin]);
/// Looking at tokens and pre-registrations.
pub const PROVISIONERS_AND_AUDITORS: Access = Access::Roles(&[Role::Provisioner, Role::Auditor, Role::Admin]);
/// Everybody with a certificate. A handler with this access checks that a host asks about itself only.
pub const EVERYBODY: Access = Access::Roles(&Role::ALL);
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
    route("GET", "/v1/whoami", EVERYBODY, 0, || get(health::whoami)),
    route("GET", "/v1/operators", AUDITORS, 0, || get(operators::list)),
    route("POST", "/v1/operators", ADMINS, SMALL, || post(operators::add)),
    route("DELETE", "/v1/operators/{name}", ADMINS, 0, || delete(operators::remove)),
    route("POST", "/v1/enrolments", PUBLIC, SMALL, || post(enrolments::begin)),
    route("POST", "/v1/enrolments/{id}/activation", PUBLIC, SMALL, || post(enrolments::activate)),
    route("POST", "/v1/enrolments/{id}/certificate", PUBLIC, SMALL, || post(enrolments::poll)),
    route("POST", "/v1/renewals/challenge", PUBLIC, SMALL, || post(renewals::challenge)),
    route("POST", "/v1/renewals", PUBLIC, SMALL, || post(renewals::renew)),
    route("GET", "/v1/tokens", PROVISIONERS_AND_AUDITORS, 0, || get(tokens::list)),
    route("POST", "/v1/tokens", PROVISIONERS, SMALL, || post(tokens::create)),
    route("DELETE", "/v1/tokens/{id}", PROVISIONERS, 0, || delete(tokens::revoke)),
    route("GET", "/v1/preregistrations", PROVISIONERS_AND_AUDITORS, 0, || get(preregistrations::list)),
    route("POST", "/v1/preregistrations", PROVISIONERS, BULK, || post(preregistrations::import)),
    route("DELETE", "/v1/preregistrations/{ek}", PROVISIONERS, 0, || delete(preregistrations::remove)),
    route("GET", "/v1/hosts", PEOPLE, 0, || get(hosts::list)),
    route("GET", "/v1/hosts/{host}", EVERYBODY, 0, || get(hosts::show)),
    route("POST", "/v1/hosts/{host}/approve", APPROVERS, SMALL, || post(hosts::approve)),
    route("POST", "/v1/hosts/{host}/label", APPROVERS, SMALL, || post(hosts::label)),
    route("POST", "/v1/hosts/{host}/maintenance", APPROVERS, SMALL, || post(hosts::maintenance)),
    route("POST", "/v1/hosts/{host}/rebind", APPROVERS, SMALL, || post(hosts::rebind)),
    route("POST", "/v1/hosts/{host}/retire", APPROVERS, SMALL, || post(hosts::retire)),
    route("POST", "/v1/hosts/{host}/tag", APPROVERS, SMALL, || post(hosts::tag)),
    route("POST", "/v1/challenges", HOSTS, SMALL, || post(rounds::challenge)),
    route("POST", "/v1/evidence", HOSTS, EVIDENCE, || post(rounds::evidence)),
    route("GET", "/v1/standings", PEOPLE, 0, || get(standings::list)),
    route("GET", "/v1/hosts/{host}/standing", PEOPLE, 0, || get(standings::show)),
    route("GET", "/v1/pools", PEOPLE, 0, || get(standings::pools)),
    route("POST", "/v1/pools", APPROVERS, BULK, || post(rules::apply_pools)),
    route("GET", "/v1/pools/{pool}/hosts/{host}", PEOPLE, 0, || get(standings::explain)),
    route("POST", "/v1/placements", SCHEDULERS, SMALL, || post(standings::place)),
    route("POST", "/v1/policies", APPROVERS, BULK, || post(rules::policy)),
    route("POST", "/v1/references", APPROVERS, REFERENCES, || post(rules::references)),
    route("GET", "/v1/audit", AUDITORS, 0, || get(audit::list)),
    route("GET", "/v1/audit/head", AUDITORS, 0, || get(audit::head)),
];

/// Every route of the verifier. A new group adds its table here.
pub fn routes() -> impl Iterator<Item = &'static Route> {
    ROUTES.iter()
}
