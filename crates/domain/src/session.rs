//! The runtime's session as we know it, and how far we have read it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::evidence::Evidence;
use crate::id::{Ordinal, RunId, SessionId};
use crate::time::Timestamp;

/// `macp.v1.SessionState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SessionState {
    #[serde(rename = "SESSION_STATE_UNSPECIFIED")]
    Unspecified,
    #[serde(rename = "SESSION_STATE_OPEN")]
    Open,
    #[serde(rename = "SESSION_STATE_RESOLVED")]
    Resolved,
    #[serde(rename = "SESSION_STATE_EXPIRED")]
    Expired,
    #[serde(rename = "SESSION_STATE_SUSPENDED")]
    Suspended,
    #[serde(rename = "SESSION_STATE_CANCELLED")]
    Cancelled,
}

impl SessionState {
    const ALL: [Self; 6] = [
        Self::Unspecified,
        Self::Open,
        Self::Resolved,
        Self::Expired,
        Self::Suspended,
        Self::Cancelled,
    ];

    /// The protobuf name, on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "SESSION_STATE_UNSPECIFIED",
            Self::Open => "SESSION_STATE_OPEN",
            Self::Resolved => "SESSION_STATE_RESOLVED",
            Self::Expired => "SESSION_STATE_EXPIRED",
            Self::Suspended => "SESSION_STATE_SUSPENDED",
            Self::Cancelled => "SESSION_STATE_CANCELLED",
        }
    }

    /// Whether the session accepts nothing any more.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Resolved | Self::Expired | Self::Cancelled)
    }
}

impl fmt::Display for SessionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no session state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a session state")]
pub struct UnknownSessionState;

impl FromStr for SessionState {
    type Err = UnknownSessionState;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or(UnknownSessionState)
    }
}

/// `macp.v1.SessionMetadata`: what the runtime says of a session.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionInfo {
    pub session_id: SessionId,
    pub state: SessionState,
    pub mode: String,
    pub mode_version: String,
    pub configuration_version: String,
    pub policy_version: String,
    pub initiator: String,
    pub participants: Vec<String>,
    pub context_id: Option<String>,
    pub extension_keys: Vec<String>,
    /// In milliseconds since the Unix epoch; with the initiator, the identity of a history.
    pub started_at_unix_ms: i64,
    pub expires_at_unix_ms: i64,
    /// Accepted messages per participant; empty after a restart of the runtime, and never
    /// counting the `SessionStart`.
    pub activity: Vec<(String, u32)>,
}

impl SessionInfo {
    /// How many envelopes are accepted at least: the `SessionStart`, and what is counted.
    pub fn accepted_at_least(&self) -> Ordinal {
        1 + self.activity.iter().map(|(_, messages)| Ordinal::from(*messages)).sum::<Ordinal>()
    }
}

/// A run's session: the facts it was bound with, and how far its stream is recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    pub run_id: RunId,
    pub runtime_kind: String,
    pub session_id: SessionId,
    pub mode_name: String,
    pub mode_version: String,
    pub configuration_version: String,
    pub policy_version: String,
    pub initiator: Option<String>,
    pub state: SessionState,
    pub participants: Vec<String>,
    pub context_id: Option<String>,
    pub extension_keys: Vec<String>,
    /// The runtime's `started_at_unix_ms`, once bound.
    pub started_at_unix_ms: Option<i64>,
    pub expires_at: Option<Timestamp>,
    pub last_seen_at: Option<Timestamp>,
    /// The last ordinal recorded, or known to be missing; 0 before the first.
    pub cursor: Ordinal,
    /// The message id at `cursor`; `None` when that ordinal is in a gap.
    pub last_message_id: Option<String>,
    /// The `ts` of the last event made from an envelope: the floor of the next one's.
    pub last_event_ts: Option<Timestamp>,
    pub connected_at: Option<Timestamp>,
    pub disconnected_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// What tells whether the record of it is whole.
    pub evidence: Evidence,
}

impl Session {
    /// Takes over the runtime's facts: they win over what the descriptor said.
    pub fn bind(&mut self, info: &SessionInfo, now: Timestamp) {
        self.mode_name.clone_from(&info.mode);
        self.mode_version.clone_from(&info.mode_version);
        self.configuration_version.clone_from(&info.configuration_version);
        self.policy_version.clone_from(&info.policy_version);
        self.initiator = Some(info.initiator.clone());
        self.state = info.state;
        self.participants.clone_from(&info.participants);
        self.context_id.clone_from(&info.context_id);
        self.extension_keys.clone_from(&info.extension_keys);
        self.started_at_unix_ms = Some(info.started_at_unix_ms);
        self.expires_at = crate::time::from_unix_ms(info.expires_at_unix_ms);
        self.last_seen_at = Some(now);
        self.updated_at = now;
    }

    /// Since when the session cannot be followed because the runtime does not answer; `None` while
    /// it is followed, or waits for something else.
    pub fn unreachable_since(&self) -> Option<Timestamp> {
        self.disconnected_at.filter(|at| self.connected_at.is_none_or(|connected| connected < *at))
    }

    /// Notes that the runtime does not answer; `false` when that was noted before.
    pub fn disconnect(&mut self, now: Timestamp) -> bool {
        if self.unreachable_since().is_some() {
            return false;
        }
        let least = self.connected_at.map(|at| at + chrono::TimeDelta::milliseconds(1));
        self.disconnected_at = Some(least.map_or(now, |least| least.max(now)));
        true
    }

    /// Notes that the session is followed; `false` when it was all along.
    pub fn connect(&mut self, now: Timestamp) -> bool {
        let returned = self.unreachable_since();
        self.connected_at = Some(returned.map_or(now, |since| since.max(now)));
        returned.is_some()
    }

    /// Whether `info` tells of the history that this session was bound to.
    pub fn is_same_history(&self, info: &SessionInfo) -> bool {
        self.started_at_unix_ms.is_none_or(|at| at == info.started_at_unix_ms)
            && self.initiator.as_deref().is_none_or(|initiator| initiator == info.initiator)
    }
}
