//! What the runtime delivers, in our own types.

use crate::id::SessionId;
use crate::time::Timestamp;

/// An accepted MACP envelope (RFC-MACP-0001; `macp/v1/envelope.proto`).
///
/// Text fields hold no U+0000: PostgreSQL refuses it, so [`Envelope::sanitize`] has replaced it
/// before the envelope entered a queue. The payload's bytes are exact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    pub macp_version: String,
    /// Empty for ambient messages.
    pub mode: String,
    pub message_type: String,
    pub message_id: String,
    /// Empty for ambient messages.
    pub session_id: String,
    pub sender: String,
    /// The sender's claim, in milliseconds since the Unix epoch. Informational: order is by ordinal.
    pub timestamp_unix_ms: i64,
    pub payload: Vec<u8>,
    /// Whether [`Envelope::sanitize`] changed a text field.
    pub sanitized: bool,
}

impl Envelope {
    /// Replaces U+0000 by U+FFFD in the text fields, and says so.
    #[must_use]
    pub fn sanitize(mut self) -> Self {
        let fields = [
            &mut self.macp_version,
            &mut self.mode,
            &mut self.message_type,
            &mut self.message_id,
            &mut self.session_id,
            &mut self.sender,
        ];
        for field in fields {
            if field.contains('\0') {
                *field = field.replace('\0', "\u{FFFD}");
                self.sanitized = true;
            }
        }
        self
    }
}

/// Which stream an envelope came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvelopeSource {
    /// `StreamSession`: accepted history, with an ordinal.
    Session,
    /// `WatchSignals`: ambient, never replayed, without an ordinal.
    Signal,
}

impl EnvelopeSource {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Signal => "signal",
        }
    }
}

/// A change that `WatchSessions` told of.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionChange {
    pub kind: SessionChangeKind,
    pub session_id: SessionId,
    /// Absent when the runtime has evicted the session.
    pub session: Option<crate::session::SessionInfo>,
    pub observed_at: Option<Timestamp>,
}

/// A `Signal` or `Progress` that `WatchSignals` told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignalSeen {
    pub envelope: Envelope,
    /// Whether the runtime vouches for the sender (RFC-MACP-0004 §4.1); without that the signal
    /// moves no operational state.
    pub sender_authenticated: bool,
}

/// `SessionLifecycleEvent.EventType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionChangeKind {
    /// Also sent once per registered session when the watch starts, whatever its state.
    Created,
    Resolved,
    Expired,
    Suspended,
    Resumed,
    Cancelled,
    /// A value that this version does not know: a reason to look, never a state.
    Unknown,
}
