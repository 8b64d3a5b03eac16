//! Makes logs.

use bytes::Bytes;
use control_plane_domain::control::{self, StreamStatus};
use control_plane_domain::event::{ChainHash, EventDraft, Source, Subject, SubjectKind};
use control_plane_domain::metrics::RunMetrics;
use control_plane_domain::normalize::Normalizer;
use control_plane_domain::run::RunMode;
use control_plane_domain::{
    CanonicalEvent, Envelope, EventType, Run, RunId, RunState, Seq, Session, SessionId,
    SessionState, Timestamp, payload, time,
};
use control_plane_storage::Store;
use control_plane_storage::model::{LogEntry, NewRun};
use serde_json::{Map, Value, json};

use crate::Projection;

pub(crate) const DECISION: &str = "macp.mode.decision.v1";
pub(crate) const PROPOSAL: &str = "macp.mode.proposal.v1";
pub(crate) const TASK: &str = "macp.mode.task.v1";
pub(crate) const HANDOFF: &str = "macp.mode.handoff.v1";
pub(crate) const QUORUM: &str = "macp.mode.quorum.v1";
pub(crate) const MULTI_ROUND: &str = "ext.multi_round.v1";

const START: i64 = 1_763_800_000_000;

pub(crate) fn at(ms: i64) -> Timestamp {
    time::from_unix_ms(START + ms).unwrap()
}

pub(crate) fn run_id() -> RunId {
    "6f9619ff-8b86-4d01-b42d-00cf4fc964ff".parse().unwrap()
}

/// A run's log in the making.
pub(crate) struct Log {
    pub(crate) run: Run,
    pub(crate) session: Session,
    pub(crate) normalizer: Normalizer,
    pub(crate) events: Vec<CanonicalEvent>,
    clock: i64,
}

impl Log {
    /// A log with nothing in it, for a session of `mode`.
    pub(crate) fn empty(mode: &str, participants: &[&str]) -> Self {
        let session_id = SessionId::trusted("0190b6c4-6f2a-7cc3-9d5e-1f2a3b4c5d6e");
        let participants: Vec<String> = participants.iter().map(|&one| one.to_owned()).collect();
        Self {
            run: run(&session_id),
            normalizer: Normalizer::new(participants.clone(), None),
            session: session(session_id, mode, participants),
            events: Vec::new(),
            clock: 0,
        }
    }

    /// A log up to the point where the session is followed.
    pub(crate) fn begun(mode: &str, participants: &[&str]) -> Self {
        let mut log = Self::empty(mode, participants);
        log.created().started().bound().opened();
        log
    }

    pub(crate) fn now(&mut self) -> Timestamp {
        self.clock += 1000;
        at(self.clock)
    }

    pub(crate) fn add(&mut self, drafts: impl IntoIterator<Item = EventDraft>) -> &mut Self {
        for draft in drafts {
            let seq = self.events.last().map_or(1, |event| event.seq + 1);
            let received_at = draft.ts.max(at(self.clock));
            self.events.push(draft.into_event(self.run.id, seq, received_at));
        }
        self
    }

    pub(crate) fn created(&mut self) -> &mut Self {
        let mode = self.session.mode_name.clone();
        self.add([control::run_created(&self.run, &mode)])
    }

    pub(crate) fn started(&mut self) -> &mut Self {
        let now = self.now();
        let mode = self.session.mode_name.clone();
        self.run.advance(RunState::Starting, now).unwrap();
        self.add([control::run_started(&self.run, &mode, now)])
    }

    pub(crate) fn bound(&mut self) -> &mut Self {
        let now = self.now();
        let drafts = control::session_bound(&self.session, now);
        self.add(drafts)
    }

    pub(crate) fn opened(&mut self) -> &mut Self {
        let now = self.now();
        let id = self.session.session_id.clone();
        self.session_state(SessionState::Open).add([control::stream_opened(
            &id,
            StreamStatus::Opened,
            0,
            None,
            now,
        )])
    }

    pub(crate) fn session_state(&mut self, state: SessionState) -> &mut Self {
        let now = self.now();
        let id = self.session.session_id.clone();
        let draft = control::session_state_changed(&self.run, &id, state, now);
        self.add([draft])
    }

    /// The event of a state that the run enters.
    pub(crate) fn enters(&mut self, state: RunState) -> &mut Self {
        let now = self.now();
        self.run.state = state;
        if state.is_terminal() {
            self.run.ended_at = Some(now);
        }
        let draft = control::run_state(&self.run, now);
        self.add(draft)
    }

    /// An event of any type, as somebody else may have made it.
    pub(crate) fn raw(
        &mut self,
        event_type: EventType,
        subject: (SubjectKind, &str),
        data: Value,
    ) -> &mut Self {
        let ts = self.now();
        let Value::Object(data) = data else { panic!("data is an object") };
        self.add([EventDraft {
            event_type,
            ts,
            subject: Some(Subject::new(subject.0, subject.1)),
            source: Source::control_plane("test"),
            trace: None,
            data,
        }])
    }

    /// A message of the session.
    pub(crate) fn say(&mut self, sender: &str, message_type: &str, fields: Value) -> &mut Self {
        let now = self.now();
        let mode = self.session.mode_name.clone();
        let envelope = self.envelope(&mode, sender, message_type, &fields);
        let drafts = self.normalizer.envelope(&envelope, now);
        self.add(drafts)
    }

    /// A signal or a progress report.
    pub(crate) fn signal(
        &mut self,
        sender: &str,
        message_type: &str,
        fields: Value,
        authenticated: bool,
    ) -> &mut Self {
        let now = self.now();
        let envelope = self.envelope("", sender, message_type, &fields);
        let drafts = self.normalizer.signal(&envelope, authenticated, now);
        self.add(drafts)
    }

    fn envelope(&self, mode: &str, sender: &str, message_type: &str, fields: &Value) -> Envelope {
        Envelope {
            macp_version: "1.0".to_owned(),
            mode: mode.to_owned(),
            message_type: message_type.to_owned(),
            message_id: format!("m{}", self.events.len()),
            session_id: if mode.is_empty() {
                String::new()
            } else {
                self.session.session_id.as_str().to_owned()
            },
            sender: sender.to_owned(),
            timestamp_unix_ms: START + self.clock,
            payload: payload::encode(mode, message_type, fields)
                .unwrap_or_else(|| fields.to_string().into_bytes()),
            sanitized: false,
        }
    }

    /// The state after all of it.
    pub(crate) fn state(&self) -> Projection {
        let mut state = Projection::empty(self.run.id);
        for event in &self.events {
            state.apply(event);
        }
        state
    }

    /// The state after event `seq`.
    pub(crate) fn state_at(&self, seq: Seq) -> Projection {
        let mut state = Projection::empty(self.run.id);
        self.events.iter().filter(|event| event.seq <= seq).for_each(|event| state.apply(event));
        state
    }

    /// Puts the log into a store, as that of a run that is over.
    pub(crate) async fn record(&self, store: &Store) {
        let mut hash = ChainHash::EMPTY;
        let entries: Vec<LogEntry> = self
            .events
            .iter()
            .map(|event| {
                let text = event.encode();
                hash = hash.then(&text);
                LogEntry {
                    run_id: event.run_id,
                    seq: event.seq,
                    position: 0,
                    ts: event.ts,
                    received_at: event.received_at,
                    event_type: event.event_type,
                    subject: None,
                    hash,
                    body: Bytes::from(text),
                }
            })
            .collect();
        let mut run = self.run.clone();
        run.last_seq = self.events.last().unwrap().seq;
        run.state = RunState::Completed;
        let (metrics, session) = (RunMetrics::empty(run.id), self.session.clone());
        store.run_create(NewRun { run, session, entries, metrics, trace: None }).await.unwrap();
    }

    /// The state as a client reads it.
    pub(crate) fn json(&self) -> Value {
        serde_json::to_value(self.state()).unwrap()
    }
}

/// `fields` of an object, to compare only these.
pub(crate) fn only(object: &Value, fields: &[&str]) -> Value {
    let picked: Map<String, Value> =
        fields.iter().map(|&name| (name.to_owned(), object[name].clone())).collect();
    json!(picked)
}

/// Writes the state to a row, the row to text and back, and reads it again.
pub(crate) fn stored(state: &Projection) -> Projection {
    let mut row = state.to_row();
    for section in [
        &mut row.run_summary,
        &mut row.participants,
        &mut row.graph,
        &mut row.decision,
        &mut row.signals,
        &mut row.progress,
        &mut row.timeline,
        &mut row.trace_summary,
        &mut row.outbound_messages,
        &mut row.policy,
        &mut row.llm,
        &mut row.fold,
    ] {
        *section = serde_json::from_str(&section.to_string()).unwrap();
    }
    Projection::from_row(row).unwrap()
}

fn run(session_id: &SessionId) -> Run {
    Run {
        id: run_id(),
        state: RunState::Queued,
        mode: RunMode::Live,
        runtime_kind: "rust".to_owned(),
        runtime_version: None,
        session_id: Some(session_id.clone()),
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736".to_owned()),
        idempotency_key: None,
        request_hash: None,
        last_seq: 0,
        source_kind: None,
        source_ref: None,
        tags: Vec::new(),
        metadata: Map::new(),
        error_code: None,
        error_message: None,
        created_at: at(0),
        started_at: None,
        ended_at: None,
        updated_at: at(0),
        archived_at: None,
        parked_reason: None,
        imported_at: None,
    }
}

fn session(session_id: SessionId, mode: &str, participants: Vec<String>) -> Session {
    Session {
        run_id: run_id(),
        runtime_kind: "rust".to_owned(),
        session_id,
        mode_name: mode.to_owned(),
        mode_version: "1.0.0".to_owned(),
        configuration_version: "1".to_owned(),
        policy_version: String::new(),
        initiator: participants.first().cloned(),
        state: SessionState::Open,
        participants,
        context_id: Some("ctx:1".to_owned()),
        extension_keys: vec!["ext.a".to_owned()],
        started_at_unix_ms: Some(START),
        expires_at: None,
        last_seen_at: None,
        cursor: 0,
        last_message_id: None,
        last_event_ts: None,
        connected_at: None,
        disconnected_at: None,
        created_at: at(0),
        updated_at: at(0),
        evidence: control_plane_domain::evidence::Evidence::default(),
    }
}
