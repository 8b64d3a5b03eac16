//! Turns errors into answers: the only file that knows which failure has which status.
//!
//! **Invariant:** every answer above 399 has one body, `{statusCode, errorCode, error, message,
//! details?}`; `errorCode` is stable and `message` is for people. What went wrong inside is logged
//! here, once, with its whole chain, and never sent.

use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderValue, RETRY_AFTER};
use actix_web::{HttpResponse, ResponseError};
use control_plane_domain::runtime::{RuntimeError, RuntimeErrorKind};
use control_plane_recovery::{ArtifactError, AskError, LaunchError, LifecycleError, MAX_ARTIFACTS};
use control_plane_storage as storage;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// Everything that a handler can answer with instead of what was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The request says something that we do not take; one sentence per fault.
    #[error("{}", .0.join("; "))]
    Validation(Vec<String>),
    #[error("{0}")]
    BadRequest(String),
    #[error("{0}")]
    Unauthorized(&'static str),
    #[error("this API key may only read")]
    ReadOnlyKey,
    #[error("this API key may not do that: it takes an admin's")]
    AdminOnly,
    #[error("run {0} not found")]
    RunNotFound(String),
    #[error("runtime provider '{0}' is not registered")]
    UnknownRuntime(String),
    #[error("Cannot {method} {path}")]
    NoSuchRoute { method: String, path: String },
    #[error("Cannot {method} {path}; allowed: {allowed}")]
    MethodNotAllowed { method: String, path: String, allowed: String },
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the body must be application/json")]
    UnsupportedMediaType,
    #[error("{0}")]
    Removed(String),
    #[error("the server is shutting down")]
    Draining,
    #[error("{0}")]
    TooManyStreams(StreamLimit),
    #[error(transparent)]
    Storage(storage::Error),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// Somebody whom a client named did not do what we asked for.
    #[error("{0}")]
    BadGateway(String),
    #[error("the run's owner has not answered yet; try again")]
    OwnerLate,
    #[error("the session is held by run {run_id}")]
    SessionTaken { run_id: String },
    #[error("this idempotency key was used with another request")]
    IdempotencyConflict,
    /// There is no room for another artifact.
    #[error("a run has at most {0} artifacts")]
    ArtifactLimit(usize),
    #[error("run {0} was imported and cannot be changed: it is the record of another server")]
    ReadOnlyRun(String),
    #[error("{0}")]
    Internal(String),
}

/// What a stream that is one too many ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamLimit {
    PerKey,
    InAll,
}

impl StreamLimit {
    /// The name in the figures.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::PerKey => "key",
            Self::InAll => "all",
        }
    }
}

impl fmt::Display for StreamLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PerKey => "this API key has as many event streams open as it may",
            Self::InAll => "the server has as many event streams open as it may",
        })
    }
}

/// The one error body.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ErrorBody {
    /// The HTTP status.
    pub(crate) status_code: u16,
    /// Stable, for programs.
    pub(crate) error_code: &'static str,
    /// The status in words.
    pub(crate) error: &'static str,
    /// A sentence, or for validation an array of sentences that each name the field's path.
    #[schema(value_type = Object)]
    pub(crate) message: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    pub(crate) details: Option<Map<String, Value>>,
}

impl ApiError {
    /// The status and the code that belongs to it.
    fn classify(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Validation(faults) => (StatusCode::BAD_REQUEST, validation_code(faults)),
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "VALIDATION_ERROR"),
            Self::Unauthorized(_) => (StatusCode::UNAUTHORIZED, "UNAUTHENTICATED"),
            Self::ReadOnlyKey | Self::AdminOnly => (StatusCode::FORBIDDEN, "FORBIDDEN"),
            Self::RunNotFound(_) => (StatusCode::NOT_FOUND, "RUN_NOT_FOUND"),
            Self::UnknownRuntime(_) | Self::NoSuchRoute { .. } => {
                (StatusCode::NOT_FOUND, "NOT_FOUND")
            }
            Self::MethodNotAllowed { .. } => (StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED"),
            Self::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE"),
            Self::UnsupportedMediaType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE")
            }
            Self::Removed(_) => (StatusCode::GONE, "ENDPOINT_REMOVED"),
            Self::Draining | Self::OwnerLate => {
                (StatusCode::SERVICE_UNAVAILABLE, "SERVICE_UNAVAILABLE")
            }
            Self::BadGateway(_) => (StatusCode::BAD_GATEWAY, "INTERNAL_ERROR"),
            Self::TooManyStreams(_) => (StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED"),
            Self::SessionTaken { .. } => (StatusCode::CONFLICT, "SESSION_ALREADY_EXISTS"),
            Self::IdempotencyConflict | Self::ArtifactLimit(_) => {
                (StatusCode::CONFLICT, "CONFLICT")
            }
            Self::ReadOnlyRun(_) => (StatusCode::CONFLICT, "RUN_READ_ONLY"),
            Self::Storage(error) => classify_storage(error),
            Self::Runtime(error) => classify_runtime(&error.kind),
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR"),
        }
    }

    /// What the client reads.
    fn message(&self, status: StatusCode) -> Value {
        match self {
            Self::Validation(faults) => json!(faults),
            Self::Storage(_) if status == StatusCode::SERVICE_UNAVAILABLE => {
                json!("the database does not answer; try again")
            }
            Self::Storage(_) | Self::Internal(_) if status.is_server_error() => {
                json!("Internal server error")
            }
            Self::BadRequest(_)
            | Self::Unauthorized(_)
            | Self::ReadOnlyKey
            | Self::AdminOnly
            | Self::RunNotFound(_)
            | Self::UnknownRuntime(_)
            | Self::NoSuchRoute { .. }
            | Self::MethodNotAllowed { .. }
            | Self::TooLarge(_)
            | Self::UnsupportedMediaType
            | Self::Removed(_)
            | Self::Draining
            | Self::BadGateway(_)
            | Self::OwnerLate
            | Self::TooManyStreams(_)
            | Self::Storage(_)
            | Self::Runtime(_)
            | Self::SessionTaken { .. }
            | Self::IdempotencyConflict
            | Self::ArtifactLimit(_)
            | Self::ReadOnlyRun(_)
            | Self::Internal(_) => json!(self.to_string()),
        }
    }

    fn details(&self) -> Option<Map<String, Value>> {
        let details = match self {
            Self::SessionTaken { run_id } => json!({ "runId": run_id }),
            Self::Runtime(error) => json!({ "grpcCode": error.grpc_code }),
            Self::TooLarge(limit) | Self::ArtifactLimit(limit) => json!({ "limit": limit }),
            Self::Validation(_)
            | Self::BadRequest(_)
            | Self::Unauthorized(_)
            | Self::ReadOnlyKey
            | Self::AdminOnly
            | Self::RunNotFound(_)
            | Self::UnknownRuntime(_)
            | Self::NoSuchRoute { .. }
            | Self::MethodNotAllowed { .. }
            | Self::UnsupportedMediaType
            | Self::Removed(_)
            | Self::Draining
            | Self::BadGateway(_)
            | Self::OwnerLate
            | Self::TooManyStreams(_)
            | Self::Storage(_)
            | Self::IdempotencyConflict
            | Self::ReadOnlyRun(_)
            | Self::Internal(_) => return None,
        };
        match details {
            Value::Object(details) => Some(details),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => None,
        }
    }

    /// How many seconds to wait before asking again. Streams stay open for long, and those who are
    /// refused together should not all come back together.
    fn retry_after(&self) -> HeaderValue {
        if matches!(self, Self::TooManyStreams(_)) {
            HeaderValue::from(5 + u16::from(rand::random::<u8>() % 6))
        } else if let Self::Runtime(RuntimeError {
            kind: RuntimeErrorKind::CircuitOpen { retry_after },
            ..
        }) = self
        {
            HeaderValue::from(retry_after.as_secs().saturating_add(1))
        } else {
            HeaderValue::from_static("1")
        }
    }

    /// The body that is sent.
    pub(crate) fn body(&self) -> ErrorBody {
        let (status, error_code) = self.classify();
        ErrorBody {
            status_code: status.as_u16(),
            error_code,
            error: status.canonical_reason().unwrap_or("Error"),
            message: self.message(status),
            details: self.details(),
        }
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.classify().0
    }

    fn error_response(&self) -> HttpResponse {
        let status = self.status_code();
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error = self as &dyn std::error::Error, "Request failed");
        } else if status.is_server_error() {
            tracing::warn!(error = self as &dyn std::error::Error, "Request refused");
        }
        let mut response = HttpResponse::build(status).json(self.body());
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            response.headers_mut().insert(RETRY_AFTER, self.retry_after());
        }
        if let Self::MethodNotAllowed { allowed, .. } = self
            && let Ok(allowed) = HeaderValue::from_str(allowed)
        {
            response.headers_mut().insert(actix_web::http::header::ALLOW, allowed);
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(
                actix_web::http::header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer"),
            );
        }
        response
    }
}

impl From<storage::Error> for ApiError {
    fn from(error: storage::Error) -> Self {
        match error {
            storage::Error::NotFound { entity: storage::Entity::Run, id } => Self::RunNotFound(id),
            storage::Error::SessionTaken { run_id } => {
                Self::SessionTaken { run_id: run_id.to_string() }
            }
            storage::Error::IdempotencyConflict { .. } => Self::IdempotencyConflict,
            storage::Error::ReadOnly { run_id } => Self::ReadOnlyRun(run_id.to_string()),
            error @ (storage::Error::NotFound { .. }
            | storage::Error::Transition(_)
            | storage::Error::Corrupt { .. }
            | storage::Error::Unavailable(_)
            | storage::Error::Refused(_)
            | storage::Error::Query(_)
            | storage::Error::Config(_)
            | storage::Error::Migration(_)
            | storage::Error::Task) => Self::Storage(error),
        }
    }
}

impl From<LaunchError> for ApiError {
    fn from(error: LaunchError) -> Self {
        match error {
            LaunchError::SessionTaken { run_id } => {
                Self::SessionTaken { run_id: run_id.to_string() }
            }
            LaunchError::IdempotencyConflict { .. } => Self::IdempotencyConflict,
            LaunchError::Storage(error) => error.into(),
            LaunchError::Draining => Self::Draining,
        }
    }
}

impl From<ArtifactError> for ApiError {
    fn from(error: ArtifactError) -> Self {
        match error {
            ArtifactError::Ask(AskError::Storage(error)) => error.into(),
            ArtifactError::Ask(AskError::Late) => Self::OwnerLate,
            ArtifactError::Conflict => Self::IdempotencyConflict,
            ArtifactError::TooMany => Self::ArtifactLimit(MAX_ARTIFACTS),
        }
    }
}

impl From<LifecycleError> for ApiError {
    fn from(error: LifecycleError) -> Self {
        match error {
            LifecycleError::NotRunning(_)
            | LifecycleError::NotSuspended(_)
            | LifecycleError::NoSession
            | LifecycleError::NoWay => Self::BadRequest(error.to_string()),
            LifecycleError::Callback(_) | LifecycleError::CallbackRefused(_) => {
                Self::BadGateway(error.to_string())
            }
            LifecycleError::Runtime(error) => error.into(),
            LifecycleError::Late => Self::OwnerLate,
            LifecycleError::Storage(error) => error.into(),
        }
    }
}

/// A session id that the runtime would refuse has a code of its own (spec 2.2).
fn validation_code(faults: &[String]) -> &'static str {
    let invalid_session_id = control_plane_domain::id::InvalidSessionId.to_string();
    match faults {
        [only] if *only == invalid_session_id => "INVALID_SESSION_ID",
        _ => "VALIDATION_ERROR",
    }
}

fn classify_storage(error: &storage::Error) -> (StatusCode, &'static str) {
    match error {
        storage::Error::NotFound { .. } => (StatusCode::NOT_FOUND, "NOT_FOUND"),
        storage::Error::SessionTaken { .. } => (StatusCode::CONFLICT, "SESSION_ALREADY_EXISTS"),
        storage::Error::IdempotencyConflict { .. } => (StatusCode::CONFLICT, "CONFLICT"),
        storage::Error::ReadOnly { .. } => (StatusCode::CONFLICT, "RUN_READ_ONLY"),
        storage::Error::Transition(_) => (StatusCode::CONFLICT, "INVALID_STATE_TRANSITION"),
        storage::Error::Unavailable(_) | storage::Error::Task => {
            (StatusCode::SERVICE_UNAVAILABLE, "SERVICE_UNAVAILABLE")
        }
        storage::Error::Corrupt { .. }
        | storage::Error::Refused(_)
        | storage::Error::Query(_)
        | storage::Error::Config(_)
        | storage::Error::Migration(_) => (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR"),
    }
}

/// Spec 2.3, by what the error means rather than by its gRPC status.
fn classify_runtime(kind: &RuntimeErrorKind) -> (StatusCode, &'static str) {
    match kind {
        RuntimeErrorKind::NotFound => (StatusCode::NOT_FOUND, "NOT_FOUND"),
        RuntimeErrorKind::HistoryUnavailable { .. }
        | RuntimeErrorKind::ReceiptUnavailable
        | RuntimeErrorKind::Conflict => (StatusCode::CONFLICT, "CONFLICT"),
        RuntimeErrorKind::RateLimited | RuntimeErrorKind::StreamLagged => {
            (StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED")
        }
        RuntimeErrorKind::Unauthenticated => (StatusCode::UNAUTHORIZED, "UNAUTHENTICATED"),
        RuntimeErrorKind::Forbidden => (StatusCode::FORBIDDEN, "FORBIDDEN"),
        RuntimeErrorKind::InvalidArgument => (StatusCode::BAD_REQUEST, "VALIDATION_ERROR"),
        RuntimeErrorKind::Unimplemented => (StatusCode::NOT_IMPLEMENTED, "NOT_IMPLEMENTED"),
        RuntimeErrorKind::Unavailable | RuntimeErrorKind::NoCredentials => {
            (StatusCode::SERVICE_UNAVAILABLE, "RUNTIME_UNAVAILABLE")
        }
        RuntimeErrorKind::CircuitOpen { .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, "CIRCUIT_BREAKER_OPEN")
        }
        RuntimeErrorKind::Timeout => (StatusCode::GATEWAY_TIMEOUT, "RUNTIME_TIMEOUT"),
        RuntimeErrorKind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR"),
    }
}

#[cfg(test)]
mod tests;
