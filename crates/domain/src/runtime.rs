//! The port to a MACP runtime: what we ask of it, and how it says no.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_core::stream::BoxStream;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::breaker::CircuitBreaker;
use crate::envelope::{Envelope, SessionChange, SignalSeen};
use crate::id::{Ordinal, SessionId};
use crate::receipt::Receipt;
use crate::session::{SessionInfo, SessionState};
use crate::trace::TraceContext;

/// What we ask of a runtime. Every unary call has a deadline of its own.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Where it is, for people.
    fn address(&self) -> String;

    /// What guards its unary calls; streams pass it by.
    fn breaker(&self) -> Option<&dyn CircuitBreaker> {
        None
    }

    /// The same runtime, whose calls are part of `trace`; `None` when calls are not traced.
    fn within(&self, _trace: &TraceContext) -> Option<Arc<dyn Runtime>> {
        None
    }

    /// `Initialize`: who it is and which modes it offers.
    async fn initialize(&self) -> Result<RuntimeInfo, RuntimeError>;

    async fn get_session(&self, id: &SessionId) -> Result<SessionInfo, RuntimeError>;

    /// One page of at most 1,000 sessions; `page_token` is the previous page's.
    async fn list_sessions(&self, page_token: Option<&str>) -> Result<SessionPage, RuntimeError>;

    /// `WatchSessions`: one `Created` per session, then changes as they happen.
    async fn watch_sessions(
        &self,
    ) -> Result<BoxStream<'static, Result<SessionChange, RuntimeError>>, RuntimeError>;

    /// `WatchSignals`: ambient signals and all progress, from now on; nothing is replayed.
    async fn watch_signals(
        &self,
    ) -> Result<BoxStream<'static, Result<SignalSeen, RuntimeError>>, RuntimeError>;

    /// A passive subscription to a session's accepted envelopes after ordinal `after` (exclusive;
    /// 0 replays all). The stream does not end with the session: dropping it unsubscribes.
    async fn subscribe(
        &self,
        id: &SessionId,
        after: Ordinal,
    ) -> Result<BoxStream<'static, Result<Envelope, RuntimeError>>, RuntimeError>;

    /// `GetDecisionReceipt`: the `macp-receipt/1` document (RFC-MACP-0013).
    async fn decision_receipt(&self, id: &SessionId) -> Result<Receipt, RuntimeError>;

    /// `GetReceiptKeys`: the JWK set that receipts are verified with. It needs no credentials.
    async fn receipt_keys(&self) -> Result<Value, RuntimeError>;

    /// `CancelSession`, as ourselves: what the session is afterwards, which for one that was over
    /// is what it was. Only its initiator and whom its policy names may.
    async fn cancel_session(
        &self,
        id: &SessionId,
        reason: &str,
    ) -> Result<SessionState, RuntimeError>;

    /// `SuspendSession`; the same rules.
    async fn suspend_session(
        &self,
        id: &SessionId,
        reason: &str,
    ) -> Result<SessionState, RuntimeError>;

    /// `ResumeSession`; the same rules. A session that was suspended for too long expires instead.
    async fn resume_session(
        &self,
        id: &SessionId,
        reason: &str,
    ) -> Result<SessionState, RuntimeError>;

    async fn manifest(&self) -> Result<Manifest, RuntimeError>;

    /// `ListModes` and `ListExtModes`.
    async fn modes(&self, which: Modes) -> Result<Vec<ModeDescriptor>, RuntimeError>;

    async fn roots(&self) -> Result<Vec<Root>, RuntimeError>;
}

/// Which modes to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modes {
    Standard,
    Extension,
}

/// `InitializeResponse`.
#[derive(Debug, Clone, PartialEq)]
pub struct RuntimeInfo {
    pub name: String,
    pub version: String,
    pub supported_modes: Vec<String>,
    /// camelCase, as `POST /runs/validate` returns it.
    pub capabilities: Map<String, Value>,
}

/// `ListSessionsResponse`.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionPage {
    pub sessions: Vec<SessionInfo>,
    pub next_page_token: Option<String>,
}

/// `AgentManifest`, as spec 1.3.28 returns it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub agent_id: String,
    pub title: String,
    pub description: String,
    pub supported_modes: Vec<String>,
    pub metadata: Map<String, Value>,
}

/// `ModeDescriptor`, as spec 1.3.28 returns it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModeDescriptor {
    pub mode: String,
    pub mode_version: String,
    pub title: String,
    pub description: String,
    pub determinism_class: String,
    pub participant_model: String,
    pub message_types: Vec<String>,
    pub terminal_message_types: Vec<String>,
    pub schema_uris: Map<String, Value>,
}

/// `Root`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Root {
    pub uri: String,
    pub name: String,
}

/// Why a call or a stream failed, mapped by `macp-error-code` where the runtime sent one and by the
/// gRPC status elsewhere; never by text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RuntimeError {
    pub kind: RuntimeErrorKind,
    /// The gRPC status code.
    pub grpc_code: i32,
    /// The runtime's own sentence.
    pub message: String,
}

/// What a [`RuntimeError`] means to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeErrorKind {
    /// `SESSION_NOT_FOUND`, or any other NOT_FOUND.
    NotFound,
    /// Envelopes up to and including `lowest_available` cannot be replayed any more.
    HistoryUnavailable {
        lowest_available: Ordinal,
    },
    /// `RECEIPT_UNAVAILABLE`: the session exists and did not resolve.
    ReceiptUnavailable,
    /// `RATE_LIMITED`: wait, it is no verdict.
    RateLimited,
    /// `STREAM_LAGGED`: this subscriber was too slow; subscribe again.
    StreamLagged,
    /// The credentials are missing or wrong.
    Unauthenticated,
    /// The credentials do not allow this.
    Forbidden,
    InvalidArgument,
    /// FAILED_PRECONDITION, ABORTED or ALREADY_EXISTS.
    Conflict,
    Unimplemented,
    /// The runtime cannot be reached, or is going down.
    Unavailable,
    /// The deadline passed.
    Timeout,
    Internal,
    /// No token could be had, so the runtime was not asked.
    NoCredentials,
    /// The circuit breaker did not let the call through: the ones before it failed.
    CircuitOpen {
        retry_after: Duration,
    },
}

impl RuntimeErrorKind {
    /// Whether trying again later can help without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::RateLimited
            | Self::StreamLagged
            | Self::Unavailable
            | Self::Timeout
            | Self::Internal
            | Self::Conflict
            | Self::NoCredentials
            | Self::CircuitOpen { .. } => true,
            Self::NotFound
            | Self::HistoryUnavailable { .. }
            | Self::ReceiptUnavailable
            | Self::Unauthenticated
            | Self::Forbidden
            | Self::InvalidArgument
            | Self::Unimplemented => false,
        }
    }

    /// Whether the runtime, or the way to it, is to blame. All else are answers, which only a
    /// runtime that works gives, or never left this process.
    pub fn is_fault(&self) -> bool {
        match self {
            Self::Unavailable | Self::Timeout | Self::Internal => true,
            Self::NotFound
            | Self::HistoryUnavailable { .. }
            | Self::ReceiptUnavailable
            | Self::RateLimited
            | Self::StreamLagged
            | Self::Unauthenticated
            | Self::Forbidden
            | Self::InvalidArgument
            | Self::Conflict
            | Self::Unimplemented
            | Self::NoCredentials
            | Self::CircuitOpen { .. } => false,
        }
    }
}

impl fmt::Display for RuntimeErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
