//! Why a request was refused, for every layer: the store and the core make refusals, handlers turn them into [`ErrorBody`] answers.
//!
//! A refusal is not an internal error of ours made visible: what the database or a file said goes to the log, never to the client.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use hostmark_attest::finding::{Finding, Findings};
use hostmark_attest::wire::ErrorBody;

/// What kind of refusal; it decides the HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// 400: the request is malformed.
    Malformed,
    /// 401: no certificate, or one that no longer counts.
    Unauthenticated,
    /// 403: this caller may not.
    Forbidden,
    /// 404.
    NotFound,
    /// 409: the state of things does not allow it now.
    Conflict,
    /// 413.
    TooLarge,
    /// 415.
    MediaType,
    /// 422: the evidence or the enrolment is refused; the findings say why.
    Refused,
    /// 429.
    TooMany,
    /// 500: our own fault.
    Internal,
    /// 503: the store is away or read-only.
    Unavailable,
    /// 408: the client was too slow.
    Timeout,
}

impl Kind {
    /// The HTTP status.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Conflict => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Refused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
        }
    }
}

/// A refused request, explained.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{first}")]
pub struct Refusal {
    /// What kind.
    pub kind: Kind,
    /// The finding that decided.
    pub first: Box<Finding>,
    /// All findings, where there is more than one.
    pub all: Vec<Finding>,
}

/// What every command of the store and the core returns.
pub type Outcome<T> = Result<T, Refusal>;

impl Refusal {
    /// A refusal with one finding.
    #[must_use]
    pub fn new(kind: Kind, finding: Finding) -> Self {
        Self { kind, first: Box::new(finding), all: Vec::new() }
    }

    /// 400, naming the field.
    #[must_use]
    pub fn field(field: &str, problem: impl std::fmt::Display) -> Self {
        Self::new(
            Kind::Malformed,
            Finding::error(format!("request.{field}"), format!("the field `{field}` is not valid: {problem}")),
        )
    }

    /// 404.
    #[must_use]
    pub fn not_found(what: &str) -> Self {
        Self::new(Kind::NotFound, Finding::error(format!("{what}.unknown"), format!("no such {what}")))
    }

    /// 409.
    #[must_use]
    pub fn conflict(id: &str, message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, Finding::error(id, message))
    }

    /// 500: what happened goes to the log, the client learns only that it was us.
    #[must_use]
    pub fn internal(what: impl std::fmt::Display) -> Self {
        tracing::error!(error = %what, "internal error");
        Self::new(
            Kind::Internal,
            Finding::error("error", "the verifier failed while answering; nothing was granted")
                .fix("see the verifier's log"),
        )
    }

    /// 422 with the findings of a stage.
    #[must_use]
    pub fn findings(findings: Findings) -> Self {
        let all = findings.into_vec();
        let worst = all.iter().max_by_key(|finding| finding.severity).cloned();
        let first = worst.unwrap_or_else(|| Finding::error("error", "refused without a finding"));
        Self { kind: Kind::Refused, first: Box::new(first), all }
    }

    /// Whether a finding of this id is among the reasons.
    #[must_use]
    pub fn names(&self, id: &str) -> bool {
        self.first.id == id || self.all.iter().any(|finding| finding.id == id)
    }

    /// The id of the finding that decided.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.first.id
    }
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        tracing::error!(error = %error, "store error");
        // What is in the row cannot be read: to ask again will not help, and no other row is affected (D22).
        if matches!(
            error,
            rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
        ) {
            let finding = Finding::error("store.row", "a stored row is malformed; nothing is granted by it");
            return Self::new(Kind::Refused, finding.fix("restore the database, or enrol the host again"));
        }
        Self::new(
            Kind::Unavailable,
            Finding::error("store.unavailable", "the store did not accept the change; nothing was granted")
                .fix("try again; see the verifier's log"),
        )
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = ErrorBody { error: *self.first, findings: self.all };
        (self.kind.status(), Json(body)).into_response()
    }
}
