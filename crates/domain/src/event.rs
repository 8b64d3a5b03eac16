//! Canonical events: what happened to a run, in one JSON shape everywhere (spec 5.1).
//!
//! **Invariant:** an event is encoded once, by [`CanonicalEvent::encode`]; that text is what is
//! stored, hashed and sent.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::id::{EventId, RunId, Seq};
use crate::time::{self, Timestamp};

/// The shape of events and projections that this version writes.
pub const SCHEMA_VERSION: u32 = 3;

macro_rules! event_types {
    ($($variant:ident => $name:literal,)*) => {
        /// The type of a canonical event (spec 5.3, and two of our own).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum EventType {
            $(#[serde(rename = $name)] $variant,)*
        }

        impl EventType {
            /// Every type.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name on the wire and in the database.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

event_types! {
    RunCreated => "run.created",
    RunStarted => "run.started",
    RunCompleted => "run.completed",
    RunFailed => "run.failed",
    RunCancelled => "run.cancelled",
    RunSuspended => "run.suspended",
    RunResumed => "run.resumed",
    SessionBound => "session.bound",
    SessionStreamOpened => "session.stream.opened",
    SessionStreamGap => "session.stream.gap",
    SessionStreamDiverged => "session.stream.diverged",
    SessionStateChanged => "session.state.changed",
    ParticipantSeen => "participant.seen",
    MessageSent => "message.sent",
    MessageReceived => "message.received",
    MessageSendFailed => "message.send_failed",
    SignalEmitted => "signal.emitted",
    SignalAcknowledged => "signal.acknowledged",
    ProposalCreated => "proposal.created",
    ProposalUpdated => "proposal.updated",
    DecisionProposed => "decision.proposed",
    DecisionFinalized => "decision.finalized",
    ProgressReported => "progress.reported",
    ToolCalled => "tool.called",
    ToolCompleted => "tool.completed",
    ArtifactCreated => "artifact.created",
    PolicyResolved => "policy.resolved",
    PolicyCommitmentEvaluated => "policy.commitment.evaluated",
    PolicyDenied => "policy.denied",
    LlmCallCompleted => "llm.call.completed",
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no event type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an event type")]
pub struct UnknownEventType;

impl FromStr for EventType {
    type Err = UnknownEventType;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == text).ok_or(UnknownEventType)
    }
}

/// What kind of thing an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubjectKind {
    Run,
    Session,
    Participant,
    Message,
    Signal,
    Proposal,
    Decision,
    Tool,
    Artifact,
    Trace,
    Policy,
}

impl SubjectKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Session => "session",
            Self::Participant => "participant",
            Self::Message => "message",
            Self::Signal => "signal",
            Self::Proposal => "proposal",
            Self::Decision => "decision",
            Self::Tool => "tool",
            Self::Artifact => "artifact",
            Self::Trace => "trace",
            Self::Policy => "policy",
        }
    }
}

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    pub kind: SubjectKind,
    pub id: String,
}

impl Subject {
    pub fn new(kind: SubjectKind, id: impl Into<String>) -> Self {
        Self { kind, id: id.into() }
    }
}

/// Who made an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SourceKind {
    #[serde(rename = "runtime")]
    Runtime,
    #[serde(rename = "macp-control-plane", alias = "control-plane")]
    ControlPlane,
    #[serde(rename = "replay")]
    Replay,
}

impl SourceKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Runtime => "runtime",
            Self::ControlPlane => "macp-control-plane",
            Self::Replay => "replay",
        }
    }
}

/// Where an event comes from (spec 5.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    pub kind: SourceKind,
    /// `rust-runtime`, or the part of ours that made it: `run-manager`, `run-executor`,
    /// `stream-consumer`, `run-recovery`, `observability-controller`.
    pub name: String,
    /// The MACP message type of the envelope that the event was made from.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub raw_type: Option<String>,
}

impl Source {
    /// A part of this control plane.
    pub fn control_plane(name: &str) -> Self {
        Self { kind: SourceKind::ControlPlane, name: name.to_owned(), raw_type: None }
    }

    /// The runtime, by an envelope of type `raw_type`.
    pub fn runtime(raw_type: &str) -> Self {
        Self {
            kind: SourceKind::Runtime,
            name: "rust-runtime".to_owned(),
            raw_type: Some(raw_type.to_owned()),
        }
    }
}

/// Trace context; only what is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Trace {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_span_id: Option<String>,
}

/// An event that has no place in a log yet.
#[derive(Debug, Clone, PartialEq)]
pub struct EventDraft {
    pub event_type: EventType,
    pub ts: Timestamp,
    pub subject: Option<Subject>,
    pub source: Source,
    pub trace: Option<Trace>,
    pub data: Map<String, Value>,
}

impl EventDraft {
    /// Gives the event its place.
    pub fn into_event(self, run_id: RunId, seq: Seq, received_at: Timestamp) -> CanonicalEvent {
        let Self { event_type, ts, subject, source, trace, data } = self;
        CanonicalEvent {
            id: EventId::of(run_id, seq),
            run_id,
            seq,
            ts,
            received_at,
            event_type,
            schema_version: SCHEMA_VERSION,
            subject,
            source,
            trace,
            data,
        }
    }
}

/// An event of a run's log (spec 5.1, with `receivedAt`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CanonicalEvent {
    pub id: EventId,
    pub run_id: RunId,
    pub seq: Seq,
    /// When it happened: the envelope's own time, or ours for events of our own.
    #[serde(with = "time::millis")]
    pub ts: Timestamp,
    /// When we learned of it; never before `ts`.
    #[serde(with = "time::millis")]
    pub received_at: Timestamp,
    #[serde(rename = "type")]
    pub event_type: EventType,
    pub schema_version: u32,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub subject: Option<Subject>,
    pub source: Source,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trace: Option<Trace>,
    pub data: Map<String, Value>,
}

impl CanonicalEvent {
    /// The text that is stored, hashed and sent: JSON on one line.
    pub fn encode(&self) -> String {
        // Maps with string keys, finite numbers and strings: serde_json has nothing to refuse.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The head of a log's hash chain: SHA-256 over the previous head and the event's text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ChainHash(pub [u8; 32]);

impl ChainHash {
    /// The head of an empty log.
    pub const EMPTY: Self = Self([0; 32]);

    /// The head after an event with this `text`.
    #[must_use]
    pub fn then(self, text: &str) -> Self {
        use sha2::{Digest, Sha256};
        Self(Sha256::new().chain_update(self.0).chain_update(text).finalize().into())
    }
}

impl fmt::Display for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex::encode(self.0))
    }
}

impl fmt::Debug for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
