//! A small run with everything that a bundle can have.

use bytes::Bytes;
use control_plane_domain::envelope::EnvelopeSource;
use control_plane_domain::event::{ChainHash, EventDraft, Source, Subject, SubjectKind};
use control_plane_domain::metrics::RunMetrics;
use control_plane_domain::run::RunMode;
use control_plane_domain::time::from_unix_ms;
use control_plane_domain::{
    CanonicalEvent, Envelope, EventType, RunId, RunState, Seq, SessionState, Timestamp,
};
use control_plane_projection::{PriceTable, Projection, apply_metrics};
use control_plane_storage::model::{LogEntry, RawEnvelope};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::bundle::format::{Gap, Link, Ordinals, Scope, Truncated};
use crate::bundle::record::{ArtifactRecord, RunRecord, SessionFacts, SessionRecord};
use crate::bundle::write::{Closing, Shape, Writer};

fn at(ms: i64) -> Timestamp {
    // 2026-11-28T12:00:00Z
    from_unix_ms(1_795_867_200_000 + ms).unwrap()
}

/// What goes into a bundle. The fields are changed by tests; nothing is made to fit again.
#[derive(Clone)]
pub(super) struct Sample {
    pub(super) run: RunRecord,
    session: SessionRecord,
    pub(super) state: Projection,
    pub(super) metrics: RunMetrics,
    pub(super) artifacts: Vec<ArtifactRecord>,
    pub(super) events: Vec<LogEntry>,
    pub(super) raw: Vec<RawEnvelope>,
    pub(super) gaps: Vec<Gap>,
    pub(super) ordinals: Ordinals,
    pub(super) truncated: Option<Truncated>,
    from: (Seq, ChainHash),
    /// The end of the log.
    log: (Seq, ChainHash),
}

impl Sample {
    /// Eight events, the third of which tells of a gap; three envelopes around it and a signal.
    pub(super) fn new() -> Self {
        let run_id = RunId(Uuid::from_u128(7));
        let mut events = Vec::new();
        let (mut state, mut metrics) = (Projection::empty(run_id), RunMetrics::empty(run_id));
        let mut chain = ChainHash::EMPTY;
        for seq in 1..=8 {
            let event = event(run_id, seq);
            state.apply(&event);
            apply_metrics(&mut metrics, &event, &PriceTable::default());
            let entry = entry(&event, chain);
            chain = entry.hash;
            events.push(entry);
        }
        let raw = [(1, "m1"), (2, "m2"), (6, "m6")]
            .map(|(ordinal, id)| envelope(run_id, Some(ordinal), id))
            .into_iter()
            .chain([envelope(run_id, None, "s1")])
            .collect();
        Self {
            run: run(run_id),
            session: session(run_id),
            state,
            metrics,
            artifacts: ["first", "second"].map(|label| artifact(run_id, label)).into(),
            events,
            raw,
            gaps: vec![Gap { from_ordinal: 3, to_ordinal: Some(5), reason: None }],
            ordinals: Ordinals { first: Some(1), last: Some(6), recorded: 3, cursor: 6 },
            truncated: None,
            from: (0, ChainHash::EMPTY),
            log: (8, chain),
        }
    }

    /// The head of the whole log.
    pub(super) fn chain(&self) -> ChainHash {
        self.log.1
    }

    /// Leaves the events after this one out.
    pub(super) fn cut_at(&mut self, seq: Seq) {
        self.events.retain(|event| event.seq <= seq);
    }

    /// Leaves the events up to this one out.
    pub(super) fn begin_after(&mut self, seq: Seq) {
        let last = self.events.iter().find(|event| event.seq == seq).unwrap();
        self.from = (seq, last.hash);
        self.events.retain(|event| event.seq > seq);
    }

    /// Gives an event to another run.
    pub(super) fn foreign_event(&mut self, index: usize) {
        let seq = self.events[index].seq;
        let before = self.events[index - 1].hash;
        self.events[index] = entry(&event(RunId::random(), seq), before);
    }

    pub(super) fn bundle(&self, shape: Shape) -> Vec<u8> {
        let mut writer = Writer::new(shape, &self.run, Some(&self.session), self.from);
        let (state, metrics) = (Some(&self.state), Some(&self.metrics));
        writer.state(state, metrics, &self.artifacts, at(0));
        self.events.iter().for_each(|event| writer.event(event));
        self.raw.iter().for_each(|raw| writer.raw(raw));
        writer.finish(Closing {
            log_id: "the log".to_owned(),
            scope: Scope {
                canonical_events: true,
                raw_events: true,
                after_seq: self.from.0,
                after_ordinal: 0,
                after_signal: None,
            },
            log: Link::new(self.log.0, self.log.1),
            ordinals: self.ordinals,
            gaps: self.gaps.clone(),
            signal_gaps: Vec::new(),
            truncated: self.truncated.clone(),
        });
        writer.take().to_vec()
    }
}

fn event(run_id: RunId, seq: Seq) -> CanonicalEvent {
    let (event_type, data) = match seq {
        1 => (EventType::RunCreated, json!({ "status": "queued" })),
        2 => (EventType::RunStarted, json!({ "status": "running" })),
        3 => (EventType::SessionStreamGap, json!({ "fromOrdinal": 3, "toOrdinal": 5 })),
        4 => (
            EventType::LlmCallCompleted,
            json!({ "decodedPayload": { "promptTokens": 10, "completionTokens": 3 } }),
        ),
        8 => (EventType::RunCompleted, json!({ "status": "completed" })),
        seq => (
            EventType::MessageReceived,
            json!({ "note": format!("event {seq}"), "text": "Grüße \"}]\\\n" }),
        ),
    };
    let Value::Object(data) = data else { panic!("not an object") };
    let draft = EventDraft {
        event_type,
        ts: at(seq),
        subject: Some(Subject::new(SubjectKind::Run, run_id.to_string())),
        source: Source::control_plane("run-manager"),
        trace: None,
        data,
    };
    let mut event = draft.into_event(run_id, seq, at(seq));
    // The same bytes each time.
    event.id = serde_json::from_value(json!(Uuid::from_u128(seq.unsigned_abs().into()))).unwrap();
    event
}

fn entry(event: &CanonicalEvent, before: ChainHash) -> LogEntry {
    let body = event.encode();
    LogEntry {
        run_id: event.run_id,
        seq: event.seq,
        position: 0,
        ts: event.ts,
        received_at: event.received_at,
        event_type: event.event_type,
        subject: None,
        hash: before.then(&body),
        body: Bytes::from(body),
    }
}

fn envelope(run_id: RunId, ordinal: Option<i64>, message_id: &str) -> RawEnvelope {
    let source = match ordinal {
        Some(_) => EnvelopeSource::Session,
        None => EnvelopeSource::Signal,
    };
    RawEnvelope {
        run_id,
        source,
        ordinal,
        received_at: at(1),
        sender_authenticated: true,
        envelope: Envelope {
            macp_version: "1.0".to_owned(),
            mode: "m".to_owned(),
            message_type: "Proposal".to_owned(),
            message_id: message_id.to_owned(),
            session_id: "s".to_owned(),
            sender: "alice".to_owned(),
            timestamp_unix_ms: 5,
            payload: vec![0, 1, 255],
            sanitized: false,
        },
    }
}

fn artifact(run_id: RunId, label: &str) -> ArtifactRecord {
    ArtifactRecord {
        id: Uuid::from_u128(u128::try_from(label.len()).unwrap()),
        run_id,
        kind: "report".to_owned(),
        label: label.to_owned(),
        uri: None,
        inline: Some(json!({ "a": [1.5, null] })),
        created_at: at(2),
    }
}

fn run(id: RunId) -> RunRecord {
    RunRecord {
        id,
        status: RunState::Completed,
        mode: RunMode::Live,
        runtime_kind: "rust".to_owned(),
        runtime_version: None,
        runtime_session_id: Some("session".to_owned()),
        trace_id: None,
        last_event_seq: 8,
        source: None,
        tags: vec!["t".to_owned()],
        metadata: Map::new(),
        error_code: None,
        error_message: None,
        created_at: at(0),
        started_at: None,
        ended_at: Some(at(8)),
        updated_at: at(8),
        archived_at: None,
        parked_reason: None,
    }
}

fn session(run_id: RunId) -> SessionRecord {
    SessionRecord {
        run_id,
        runtime_kind: "rust".to_owned(),
        runtime_session_id: "session".to_owned(),
        mode_name: "m".to_owned(),
        mode_version: "1.0.0".to_owned(),
        configuration_version: String::new(),
        policy_version: String::new(),
        initiator_participant_id: None,
        session_state: SessionState::Resolved,
        started_at_unix_ms: None,
        expires_at: None,
        last_seen_at: None,
        capabilities: Map::new(),
        last_stream_cursor: 6,
        last_message_id: None,
        last_event_ts: None,
        stream_connected_at: None,
        stream_disconnected_at: None,
        metadata: SessionFacts { participants: vec![], context_id: None, extension_keys: vec![] },
        evidence: control_plane_domain::evidence::Evidence::default(),
        created_at: at(0),
        updated_at: at(0),
    }
}
