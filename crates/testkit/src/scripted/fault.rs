//! What can go wrong, and how it looks on the wire.
//!
//! **Invariant:** failures carry the code, the metadata and the details that the real runtime
//! sends with them.

use std::time::Duration;

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// What happens to a subscription after it delivered some frames.
#[derive(Debug, Clone)]
pub struct Fault {
    /// How many frames come before it.
    pub after: usize,
    /// What then happens.
    pub then: Then,
}

impl Fault {
    /// After `after` frames.
    pub fn after(after: usize, then: Then) -> Self {
        Self { after, then }
    }

    /// Instead of any frame.
    pub fn at_once(then: Then) -> Self {
        Self::after(0, then)
    }
}

/// How a subscription goes on.
#[derive(Debug, Clone)]
pub enum Then {
    /// It ends without an error, as in a drain.
    End,
    /// It stays open and says nothing more.
    Stall,
    /// The last so many frames come once more, then it goes on.
    Repeat(usize),
    /// It ends with this.
    Fail(Failure),
    /// An `error` frame comes, and it stays open.
    Tell(Failure),
}

/// What happens to a unary call.
#[derive(Debug, Clone)]
pub enum UnaryFault {
    /// It fails.
    Fail(Failure),
    /// It takes this much longer.
    Delay(Duration),
    /// It is never answered.
    Hang,
}

/// A failure as the runtime words it.
#[derive(Debug, Clone)]
pub enum Failure {
    /// `STREAM_LAGGED`
    Lagged,
    /// `HISTORY_UNAVAILABLE`: resume after this.
    HistoryUnavailable(u64),
    /// `SESSION_NOT_FOUND`
    NotFound,
    /// `RECEIPT_UNAVAILABLE`
    ReceiptUnavailable,
    /// `RATE_LIMITED`
    RateLimited,
    /// `FORBIDDEN`
    Forbidden,
    /// `INTERNAL_ERROR`
    Internal,
    /// Any gRPC code, without a registry code.
    Plain(Code),
}

impl Failure {
    /// The registry's code and gRPC's.
    pub(super) fn codes(&self) -> (&'static str, Code) {
        match self {
            Self::Lagged => ("STREAM_LAGGED", Code::ResourceExhausted),
            Self::HistoryUnavailable(_) => ("HISTORY_UNAVAILABLE", Code::FailedPrecondition),
            Self::NotFound => ("SESSION_NOT_FOUND", Code::NotFound),
            Self::ReceiptUnavailable => ("RECEIPT_UNAVAILABLE", Code::FailedPrecondition),
            Self::RateLimited => ("RATE_LIMITED", Code::ResourceExhausted),
            Self::Forbidden => ("FORBIDDEN", Code::PermissionDenied),
            Self::Internal => ("INTERNAL_ERROR", Code::Internal),
            Self::Plain(code) => ("", *code),
        }
    }

    pub(super) fn details(&self) -> Vec<u8> {
        match self {
            Self::HistoryUnavailable(lowest) => {
                format!(r#"{{"lowest_available_sequence":{lowest}}}"#).into_bytes()
            }
            Self::Lagged
            | Self::NotFound
            | Self::ReceiptUnavailable
            | Self::RateLimited
            | Self::Forbidden
            | Self::Internal
            | Self::Plain(_) => Vec::new(),
        }
    }

    pub(super) fn status(&self) -> Status {
        let (registry, code) = self.codes();
        let mut status = Status::new(code, format!("scripted: {registry}"));
        if !registry.is_empty() {
            let value = MetadataValue::from_static(registry);
            status.metadata_mut().insert("macp-error-code", value);
        }
        let details = self.details();
        if !details.is_empty() {
            let value = MetadataValue::from_bytes(&details);
            status.metadata_mut().insert_bin("macp-error-details-bin", value);
        }
        status
    }
}
