//! Raw envelopes in a bundle.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use control_plane_domain::envelope::EnvelopeSource;
use control_plane_domain::{Envelope, Ordinal, RunId, Timestamp};
use control_plane_storage::model::RawEnvelope;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::exact;

/// What the peers of this system call an accepted envelope.
const ENVELOPE: &str = "stream-envelope";

/// An envelope as the runtime delivered it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawRecord {
    /// It follows from run and ordinal, or for a signal from sender and message id.
    pub id: Uuid,
    pub run_id: RunId,
    /// The runtime's ordinal; `null` for a signal.
    pub seq: Option<Ordinal>,
    /// When it was received.
    #[serde(with = "exact")]
    pub ts: Timestamp,
    pub kind: String,
    /// `session` or `signal`.
    pub source_name: String,
    pub payload: RawPayload,
    pub trace_id: Option<String>,
    pub span_id: Option<String>,
    #[serde(with = "exact")]
    pub created_at: Timestamp,
}

/// What was received.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawPayload {
    pub kind: String,
    #[serde(with = "exact")]
    pub received_at: Timestamp,
    pub sender_authenticated: bool,
    pub envelope: EnvelopeRecord,
}

/// An envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvelopeRecord {
    pub macp_version: String,
    pub mode: String,
    pub message_type: String,
    pub message_id: String,
    pub session_id: String,
    pub sender: String,
    pub timestamp_unix_ms: i64,
    /// Whether U+0000 was replaced in one of the texts above.
    pub sanitized: bool,
    pub payload_base64: String,
}

impl From<&RawEnvelope> for RawRecord {
    fn from(raw: &RawEnvelope) -> Self {
        let RawEnvelope { run_id, source, ordinal, received_at, sender_authenticated, envelope } =
            raw;
        let Envelope {
            macp_version,
            mode,
            message_type,
            message_id,
            session_id,
            sender,
            timestamp_unix_ms,
            payload,
            sanitized,
        } = envelope;
        let name = match ordinal {
            Some(ordinal) => format!("raw:{ordinal}"),
            None => format!("{}:{sender}:{message_id}", source.as_str()),
        };
        Self {
            id: Uuid::new_v5(&run_id.0, name.as_bytes()),
            run_id: *run_id,
            seq: *ordinal,
            ts: *received_at,
            kind: ENVELOPE.to_owned(),
            source_name: source.as_str().to_owned(),
            payload: RawPayload {
                kind: ENVELOPE.to_owned(),
                received_at: *received_at,
                sender_authenticated: *sender_authenticated,
                envelope: EnvelopeRecord {
                    macp_version: macp_version.clone(),
                    mode: mode.clone(),
                    message_type: message_type.clone(),
                    message_id: message_id.clone(),
                    session_id: session_id.clone(),
                    sender: sender.clone(),
                    timestamp_unix_ms: *timestamp_unix_ms,
                    sanitized: *sanitized,
                    payload_base64: STANDARD.encode(payload),
                },
            },
            trace_id: None,
            span_id: None,
            created_at: *received_at,
        }
    }
}

/// Why a record is not one that we wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    #[error("sourceName is '{0}', not session or signal")]
    Source(String),
    #[error("payloadBase64 is not Base64")]
    Payload,
}

impl TryFrom<RawRecord> for RawEnvelope {
    type Error = RecordFault;

    fn try_from(record: RawRecord) -> Result<Self, RecordFault> {
        let RawPayload { received_at, sender_authenticated, envelope, kind: _ } = record.payload;
        let source = match record.source_name.as_str() {
            "session" => EnvelopeSource::Session,
            "signal" => EnvelopeSource::Signal,
            _ => return Err(RecordFault::Source(record.source_name)),
        };
        let payload =
            STANDARD.decode(envelope.payload_base64).map_err(|_text| RecordFault::Payload)?;
        Ok(Self {
            run_id: record.run_id,
            source,
            ordinal: record.seq,
            received_at,
            sender_authenticated,
            envelope: Envelope {
                macp_version: envelope.macp_version,
                mode: envelope.mode,
                message_type: envelope.message_type,
                message_id: envelope.message_id,
                session_id: envelope.session_id,
                sender: envelope.sender,
                timestamp_unix_ms: envelope.timestamp_unix_ms,
                payload,
                sanitized: envelope.sanitized,
            },
        })
    }
}
