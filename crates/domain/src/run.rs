//! The run lifecycle: which states exist and which moves between them are legal (spec 3).
//!
//! **Invariant:** a run never leaves a terminal state. [`Run::advance`] is the only code that
//! changes a state, so neither storage nor recovery can invent a transition.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::id::{RunId, Seq, SessionId};
use crate::time::Timestamp;

/// Where a run is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Recorded; nothing has been asked of the runtime yet.
    Queued,
    /// Waiting for its session to exist.
    Starting,
    /// The session is known and the stream is being opened.
    BindingSession,
    /// Its session is followed.
    Running,
    /// Its session is suspended; it is still followed.
    Suspended,
    Completed,
    Failed,
    Cancelled,
}

impl RunState {
    /// Every state, in the order of a life.
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::Starting,
        Self::BindingSession,
        Self::Running,
        Self::Suspended,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The name on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Starting => "starting",
            Self::BindingSession => "binding_session",
            Self::Running => "running",
            Self::Suspended => "suspended",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the run is over.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// Whether a run may go from `self` to `to` (the table of spec 3.1).
    pub fn may_become(self, to: Self) -> bool {
        use RunState::{
            BindingSession, Cancelled, Completed, Failed, Queued, Running, Starting, Suspended,
        };
        match self {
            Queued => matches!(to, Starting | Failed | Cancelled),
            Starting => matches!(to, BindingSession | Failed | Cancelled),
            BindingSession => matches!(to, Running | Failed | Cancelled),
            Running => matches!(to, Suspended | Completed | Failed | Cancelled),
            Suspended => matches!(to, Running | Completed | Failed | Cancelled),
            Completed | Failed | Cancelled => false,
        }
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no run state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a run state")]
pub struct UnknownRunState;

impl FromStr for RunState {
    type Err = UnknownRunState;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or(UnknownRunState)
    }
}

/// A move that the table of spec 3.1 does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot transition run {id} from '{from}' to '{to}'")]
pub struct IllegalTransition {
    pub id: RunId,
    pub from: RunState,
    pub to: RunState,
}

/// Why a run failed: a stable code (spec README 4) and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub code: FailureCode,
    pub message: String,
}

/// The `errorCode` of a failed run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureCode {
    /// The runtime does not offer the run's mode.
    ModeNotSupported,
    /// The session did not appear within `SESSION_POLL_TIMEOUT_MS`.
    RuntimeTimeout,
    /// The session expired.
    SessionExpired,
    /// The runtime knows neither the session nor a receipt of it.
    SessionGone,
    /// The session ended and nothing tells how.
    SessionEndedUnresolved,
    /// The runtime refuses to let us observe the session.
    Forbidden,
    /// Another history appeared under the session's id.
    SessionDiverged,
    /// Attaching was tried `STREAM_MAX_RETRIES` times.
    RuntimeUnavailable,
}

impl FailureCode {
    /// The code on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ModeNotSupported => "MODE_NOT_SUPPORTED",
            Self::RuntimeTimeout => "RUNTIME_TIMEOUT",
            Self::SessionExpired => "SESSION_EXPIRED",
            Self::SessionGone => "SESSION_GONE",
            Self::SessionEndedUnresolved => "SESSION_ENDED_UNRESOLVED",
            Self::Forbidden => "FORBIDDEN",
            Self::SessionDiverged => "SESSION_DIVERGED",
            Self::RuntimeUnavailable => "RUNTIME_UNAVAILABLE",
        }
    }
}

/// What kind of run the caller asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunMode {
    Live,
    Sandbox,
}

impl RunMode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Sandbox => "sandbox",
        }
    }
}

/// A run: the record of one session that is, was or will be followed.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    pub id: RunId,
    pub state: RunState,
    pub mode: RunMode,
    pub runtime_kind: String,
    pub runtime_version: Option<String>,
    /// `None` once a run that ended before it was bound has released its session.
    pub session_id: Option<SessionId>,
    pub trace_id: Option<String>,
    pub idempotency_key: Option<String>,
    /// SHA-256 of the request that made the run, hex; `None` as long as discovery alone knows of it.
    pub request_hash: Option<String>,
    /// The last event of the run's log; 0 for an empty one.
    pub last_seq: Seq,
    pub source_kind: Option<String>,
    pub source_ref: Option<String>,
    pub tags: Vec<String>,
    /// `executionRequest`, `requester`, `environment`, `scenarioRef` and what the run's end added.
    pub metadata: Map<String, Value>,
    pub error_code: Option<String>,
    pub error_message: Option<String>,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    pub updated_at: Timestamp,
    pub archived_at: Option<Timestamp>,
    /// Why the run is not followed any more although it has not ended: what it brings cannot be
    /// recorded. Set beside the log, by whoever gave up.
    pub parked_reason: Option<String>,
    /// When the run was loaded from a bundle: another server recorded it, and here it is only read.
    pub imported_at: Option<Timestamp>,
}

impl Run {
    /// Whether nobody has posted this run: it was made for a session that was found.
    pub fn is_unclaimed(&self) -> bool {
        self.request_hash.is_none()
    }

    /// Whether no event will come any more: the run has ended, or is one that is only read here,
    /// whatever its state was when it was exported.
    pub fn is_over(&self) -> bool {
        self.state.is_terminal() || self.imported_at.is_some()
    }

    /// Moves the run on and sets the columns that belong to the move (spec 3.1). The reason of a
    /// failure is set by [`Run::fail`].
    ///
    /// # Errors
    /// [`IllegalTransition`] when [`RunState::may_become`] says no.
    pub fn advance(&mut self, to: RunState, now: Timestamp) -> Result<(), IllegalTransition> {
        if !self.state.may_become(to) {
            return Err(IllegalTransition { id: self.id, from: self.state, to });
        }
        match to {
            RunState::Starting => self.started_at = Some(now),
            RunState::Completed | RunState::Failed | RunState::Cancelled => {
                self.ended_at = Some(now);
            }
            RunState::Queued
            | RunState::BindingSession
            | RunState::Running
            | RunState::Suspended => {}
        }
        self.state = to;
        self.updated_at = now;
        Ok(())
    }

    /// Fails the run, with its reason.
    ///
    /// # Errors
    /// [`IllegalTransition`] when the run is over.
    pub fn fail(&mut self, failure: &Failure, now: Timestamp) -> Result<(), IllegalTransition> {
        self.advance(RunState::Failed, now)?;
        self.error_code = Some(failure.code.as_str().to_owned());
        self.error_message = Some(failure.message.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests;
