//! The records in a bundle, as they are written and as they are read back.
//!
//! **Invariant:** what a record holds is what a row holds, but for secrets (`"***"`) and for what
//! belongs to a server and not to a run: its idempotency key, its request's hash, who owns it.

mod exact;
mod raw;

use control_plane_domain::evidence::Evidence;
use control_plane_domain::run::RunMode;
use control_plane_domain::{
    Masked, Ordinal, Run, RunId, RunState, Seq, Session, SessionId, SessionState, Timestamp,
};
use control_plane_storage::model::Artifact;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use exact::option as exact_option;
pub use raw::{EnvelopeRecord, RawPayload, RawRecord, RecordFault};

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RunRecord {
    pub id: RunId,
    pub status: RunState,
    pub mode: RunMode,
    pub runtime_kind: String,
    pub runtime_version: Option<String>,
    pub runtime_session_id: Option<String>,
    pub trace_id: Option<String>,
    /// The end of its log when it was exported.
    pub last_event_seq: Seq,
    pub source: Option<SourceRecord>,
    pub tags: Vec<String>,
    pub metadata: Map<String, Value>,
    pub error_code: Option<String>,
    pub error_message: Option<String>,
    #[serde(with = "exact")]
    pub created_at: Timestamp,
    #[serde(with = "exact_option")]
    pub started_at: Option<Timestamp>,
    #[serde(with = "exact_option")]
    pub ended_at: Option<Timestamp>,
    #[serde(with = "exact")]
    pub updated_at: Timestamp,
    #[serde(with = "exact_option")]
    pub archived_at: Option<Timestamp>,
    pub parked_reason: Option<String>,
}

/// Where a run comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceRecord {
    pub kind: Option<String>,
    #[serde(rename = "ref")]
    pub reference: Option<String>,
}

impl From<&Run> for RunRecord {
    fn from(run: &Run) -> Self {
        let Run {
            id,
            state,
            mode,
            runtime_kind,
            runtime_version,
            session_id,
            trace_id,
            idempotency_key: _,
            request_hash: _,
            last_seq,
            source_kind,
            source_ref,
            tags,
            metadata,
            error_code,
            error_message,
            created_at,
            started_at,
            ended_at,
            updated_at,
            archived_at,
            parked_reason,
            imported_at: _,
        } = run;
        let source = SourceRecord { kind: source_kind.clone(), reference: source_ref.clone() };
        Self {
            id: *id,
            status: *state,
            mode: *mode,
            runtime_kind: runtime_kind.clone(),
            runtime_version: runtime_version.clone(),
            runtime_session_id: session_id.as_ref().map(|id| id.as_str().to_owned()),
            trace_id: trace_id.clone(),
            last_event_seq: *last_seq,
            source: (source.kind.is_some() || source.reference.is_some()).then_some(source),
            tags: tags.clone(),
            metadata: masked(metadata),
            error_code: error_code.clone(),
            error_message: error_message.clone(),
            created_at: *created_at,
            started_at: *started_at,
            ended_at: *ended_at,
            updated_at: *updated_at,
            archived_at: *archived_at,
            parked_reason: parked_reason.clone(),
        }
    }
}

impl From<RunRecord> for Run {
    fn from(record: RunRecord) -> Self {
        let RunRecord {
            id,
            status,
            mode,
            runtime_kind,
            runtime_version,
            runtime_session_id,
            trace_id,
            last_event_seq,
            source,
            tags,
            metadata,
            error_code,
            error_message,
            created_at,
            started_at,
            ended_at,
            updated_at,
            archived_at,
            parked_reason,
        } = record;
        let (source_kind, source_ref) =
            source.map_or((None, None), |source| (source.kind, source.reference));
        Self {
            id,
            state: status,
            mode,
            runtime_kind,
            runtime_version,
            session_id: runtime_session_id.map(SessionId::trusted),
            trace_id,
            idempotency_key: None,
            request_hash: None,
            last_seq: last_event_seq,
            source_kind,
            source_ref,
            tags,
            metadata,
            error_code,
            error_message,
            created_at,
            started_at,
            ended_at,
            updated_at,
            archived_at,
            parked_reason,
            imported_at: None,
        }
    }
}

fn masked(metadata: &Map<String, Value>) -> Map<String, Value> {
    match serde_json::to_value(Masked(metadata)) {
        Ok(Value::Object(masked)) => masked,
        // A map gives a map.
        Ok(_) | Err(_) => Map::new(),
    }
}

/// A run's session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionRecord {
    pub run_id: RunId,
    pub runtime_kind: String,
    pub runtime_session_id: String,
    pub mode_name: String,
    pub mode_version: String,
    pub configuration_version: String,
    pub policy_version: String,
    pub initiator_participant_id: Option<String>,
    pub session_state: SessionState,
    pub started_at_unix_ms: Option<i64>,
    #[serde(with = "exact_option")]
    pub expires_at: Option<Timestamp>,
    #[serde(with = "exact_option")]
    pub last_seen_at: Option<Timestamp>,
    /// Nothing is known of them: the key is there for readers who look for it.
    pub capabilities: Map<String, Value>,
    /// The last ordinal that is recorded, or known to be missing.
    pub last_stream_cursor: Ordinal,
    pub last_message_id: Option<String>,
    #[serde(with = "exact_option")]
    pub last_event_ts: Option<Timestamp>,
    #[serde(with = "exact_option")]
    pub stream_connected_at: Option<Timestamp>,
    #[serde(with = "exact_option")]
    pub stream_disconnected_at: Option<Timestamp>,
    pub metadata: SessionFacts,
    /// What tells whether the record is whole.
    pub evidence: Evidence,
    #[serde(with = "exact")]
    pub created_at: Timestamp,
    #[serde(with = "exact")]
    pub updated_at: Timestamp,
}

/// What a session's record calls its metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionFacts {
    pub participants: Vec<String>,
    pub context_id: Option<String>,
    pub extension_keys: Vec<String>,
}

impl From<&Session> for SessionRecord {
    fn from(session: &Session) -> Self {
        let Session {
            run_id,
            runtime_kind,
            session_id,
            mode_name,
            mode_version,
            configuration_version,
            policy_version,
            initiator,
            state,
            participants,
            context_id,
            extension_keys,
            started_at_unix_ms,
            expires_at,
            last_seen_at,
            cursor,
            last_message_id,
            last_event_ts,
            connected_at,
            disconnected_at,
            created_at,
            updated_at,
            evidence,
        } = session;
        Self {
            run_id: *run_id,
            runtime_kind: runtime_kind.clone(),
            runtime_session_id: session_id.as_str().to_owned(),
            mode_name: mode_name.clone(),
            mode_version: mode_version.clone(),
            configuration_version: configuration_version.clone(),
            policy_version: policy_version.clone(),
            initiator_participant_id: initiator.clone(),
            session_state: *state,
            started_at_unix_ms: *started_at_unix_ms,
            expires_at: *expires_at,
            last_seen_at: *last_seen_at,
            capabilities: Map::new(),
            last_stream_cursor: *cursor,
            last_message_id: last_message_id.clone(),
            last_event_ts: *last_event_ts,
            stream_connected_at: *connected_at,
            stream_disconnected_at: *disconnected_at,
            metadata: SessionFacts {
                participants: participants.clone(),
                context_id: context_id.clone(),
                extension_keys: extension_keys.clone(),
            },
            evidence: evidence.clone(),
            created_at: *created_at,
            updated_at: *updated_at,
        }
    }
}

impl From<SessionRecord> for Session {
    fn from(record: SessionRecord) -> Self {
        let SessionRecord {
            run_id,
            runtime_kind,
            runtime_session_id,
            mode_name,
            mode_version,
            configuration_version,
            policy_version,
            initiator_participant_id,
            session_state,
            started_at_unix_ms,
            expires_at,
            last_seen_at,
            capabilities: _,
            last_stream_cursor,
            last_message_id,
            last_event_ts,
            stream_connected_at,
            stream_disconnected_at,
            metadata: SessionFacts { participants, context_id, extension_keys },
            evidence,
            created_at,
            updated_at,
        } = record;
        Self {
            run_id,
            runtime_kind,
            session_id: SessionId::trusted(runtime_session_id),
            mode_name,
            mode_version,
            configuration_version,
            policy_version,
            initiator: initiator_participant_id,
            state: session_state,
            participants,
            context_id,
            extension_keys,
            started_at_unix_ms,
            expires_at,
            last_seen_at,
            cursor: last_stream_cursor,
            last_message_id,
            last_event_ts,
            connected_at: stream_connected_at,
            disconnected_at: stream_disconnected_at,
            created_at,
            updated_at,
            evidence,
        }
    }
}

/// An artifact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ArtifactRecord {
    pub id: Uuid,
    pub run_id: RunId,
    pub kind: String,
    pub label: String,
    pub uri: Option<String>,
    pub inline: Option<Value>,
    #[serde(with = "exact")]
    pub created_at: Timestamp,
}

impl From<Artifact> for ArtifactRecord {
    fn from(artifact: Artifact) -> Self {
        let Artifact { id, run_id, kind, label, uri, inline, created_at } = artifact;
        Self { id, run_id, kind, label, uri, inline, created_at }
    }
}

impl From<ArtifactRecord> for Artifact {
    fn from(record: ArtifactRecord) -> Self {
        let ArtifactRecord { id, run_id, kind, label, uri, inline, created_at } = record;
        Self { id, run_id, kind, label, uri, inline, created_at }
    }
}

#[cfg(test)]
mod tests;
