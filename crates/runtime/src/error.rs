//! How a gRPC failure becomes a [`RuntimeError`].
//!
//! **Invariant:** by `macp-error-code` where the runtime sent one, else by the gRPC code, else by
//! where the status was made; never by text. A failure of the connection is always
//! [`RuntimeErrorKind::Unavailable`], whatever code the transport chose for it.

use std::error::Error as _;
use std::time::Duration;

use control_plane_domain::Ordinal;
use control_plane_domain::runtime::{RuntimeError, RuntimeErrorKind as Kind};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::proto;

/// Marks a status that we made because there is no token. No runtime sends it.
const NO_CREDENTIALS: &str = "control-plane-no-credentials";

/// A status that says why there is no token.
pub(crate) fn no_credentials(message: String) -> Status {
    let mut status = Status::unavailable(message);
    status.metadata_mut().insert(NO_CREDENTIALS, MetadataValue::from_static("true"));
    status
}

/// A status that the runtime sent, or that our transport made.
pub(crate) fn from_status(address: &str, method: &str, status: &Status) -> RuntimeError {
    if status.metadata().contains_key(NO_CREDENTIALS) {
        return RuntimeError {
            kind: Kind::NoCredentials,
            grpc_code: Code::Unavailable.into(),
            message: status.message().to_owned(),
        };
    }
    if status.source().is_some() && connection_failed(status.code()) {
        return RuntimeError {
            kind: Kind::Unavailable,
            grpc_code: Code::Unavailable.into(),
            message: format!("the runtime at {address} cannot be reached: {}", chain(status)),
        };
    }
    let details = status.metadata().get_bin("macp-error-details-bin");
    let details = details.and_then(|value| value.to_bytes().ok());
    let kind = status
        .metadata()
        .get("macp-error-code")
        .and_then(|value| value.to_str().ok())
        .and_then(|code| by_registry(code, details.as_deref().unwrap_or_default()))
        .unwrap_or_else(|| by_grpc(status.code()));
    let message = match status.message() {
        "" => format!("the runtime refused {method} ({:?})", status.code()),
        text => text.to_owned(),
    };
    RuntimeError { kind, grpc_code: status.code().into(), message }
}

/// An `error` frame inside a stream that stays open.
pub(crate) fn from_frame(frame: &proto::MacpError) -> RuntimeError {
    let kind = by_registry(&frame.code, &frame.details).unwrap_or(Kind::Internal);
    let message = match frame.message.as_str() {
        "" => format!("the runtime refused the subscription ({})", frame.code),
        text => text.to_owned(),
    };
    RuntimeError { grpc_code: to_grpc(&kind).into(), kind, message }
}

/// The call took longer than it may.
pub(crate) fn deadline(address: &str, method: &str, limit: Duration) -> RuntimeError {
    RuntimeError {
        kind: Kind::Timeout,
        grpc_code: Code::DeadlineExceeded.into(),
        message: format!("the runtime at {address} did not answer {method} within {limit:?}"),
    }
}

/// The call was not made.
pub(crate) fn circuit_open(retry_after: Duration, last_fault: &str) -> RuntimeError {
    RuntimeError {
        kind: Kind::CircuitOpen { retry_after },
        grpc_code: Code::Unavailable.into(),
        message: format!("the circuit breaker is open: {last_fault}"),
    }
}

/// An answer that misses what it must have.
pub(crate) fn malformed(method: &str, what: &str) -> RuntimeError {
    RuntimeError {
        kind: Kind::Internal,
        grpc_code: Code::Internal.into(),
        message: format!("the runtime's answer to {method} has no {what}"),
    }
}

/// Codes that the transport uses for a lost or refused connection.
fn connection_failed(code: Code) -> bool {
    matches!(code, Code::Unknown | Code::Internal | Code::Cancelled | Code::Unavailable)
}

/// The causes of a failure of ours: `transport error: … : invalid peer certificate: …`.
fn chain(status: &Status) -> String {
    let mut text = String::new();
    let mut cause = status.source();
    while let Some(error) = cause {
        let line = error.to_string();
        if !text.ends_with(&line) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&line);
        }
        cause = error.source();
    }
    text
}

/// The error registry of RFC-MACP-0001. `None` for a code that says less than the gRPC one.
fn by_registry(code: &str, details: &[u8]) -> Option<Kind> {
    Some(match code {
        "SESSION_NOT_FOUND" | "AGENT_NOT_FOUND" | "UNKNOWN_POLICY_VERSION" => Kind::NotFound,
        "HISTORY_UNAVAILABLE" => {
            Kind::HistoryUnavailable { lowest_available: lowest_available(details)? }
        }
        "RECEIPT_UNAVAILABLE" => Kind::ReceiptUnavailable,
        "RATE_LIMITED" => Kind::RateLimited,
        "STREAM_LAGGED" => Kind::StreamLagged,
        "UNAUTHENTICATED" => Kind::Unauthenticated,
        "FORBIDDEN" | "POLICY_DENIED" => Kind::Forbidden,
        "INVALID_ENVELOPE"
        | "INVALID_REQUEST"
        | "INVALID_SESSION_ID"
        | "INVALID_POLICY_DEFINITION"
        | "MODE_NOT_SUPPORTED"
        | "UNSUPPORTED_PROTOCOL_VERSION"
        | "PAYLOAD_TOO_LARGE" => Kind::InvalidArgument,
        "SESSION_NOT_OPEN"
        | "SESSION_ALREADY_EXISTS"
        | "DUPLICATE_MESSAGE"
        | "REGISTRY_READ_ONLY" => Kind::Conflict,
        "INTERNAL_ERROR" => Kind::Internal,
        _ => return None,
    })
}

fn lowest_available(details: &[u8]) -> Option<Ordinal> {
    let details: serde_json::Value = serde_json::from_slice(details).ok()?;
    details.get("lowest_available_sequence")?.as_i64()
}

fn by_grpc(code: Code) -> Kind {
    match code {
        Code::InvalidArgument | Code::OutOfRange => Kind::InvalidArgument,
        Code::FailedPrecondition | Code::Aborted | Code::AlreadyExists => Kind::Conflict,
        Code::NotFound => Kind::NotFound,
        Code::PermissionDenied => Kind::Forbidden,
        Code::Unauthenticated => Kind::Unauthenticated,
        Code::ResourceExhausted => Kind::RateLimited,
        Code::Unimplemented => Kind::Unimplemented,
        Code::Unavailable => Kind::Unavailable,
        Code::DeadlineExceeded => Kind::Timeout,
        Code::Ok | Code::Cancelled | Code::Unknown | Code::Internal | Code::DataLoss => {
            Kind::Internal
        }
    }
}

/// The code that the runtime would have used for a status.
fn to_grpc(kind: &Kind) -> Code {
    match kind {
        Kind::NotFound => Code::NotFound,
        Kind::HistoryUnavailable { .. } | Kind::ReceiptUnavailable | Kind::Conflict => {
            Code::FailedPrecondition
        }
        Kind::RateLimited | Kind::StreamLagged => Code::ResourceExhausted,
        Kind::Unauthenticated => Code::Unauthenticated,
        Kind::Forbidden => Code::PermissionDenied,
        Kind::InvalidArgument => Code::InvalidArgument,
        Kind::Unimplemented => Code::Unimplemented,
        Kind::Unavailable | Kind::NoCredentials | Kind::CircuitOpen { .. } => Code::Unavailable,
        Kind::Timeout => Code::DeadlineExceeded,
        Kind::Internal => Code::Internal,
    }
}

#[cfg(test)]
mod tests;
