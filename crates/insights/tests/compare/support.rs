//! Conversations, and the runs that they become.

use control_plane_domain::control::{self, StreamStatus};
use control_plane_domain::event::EventDraft;
use control_plane_domain::metrics::RunMetrics;
use control_plane_domain::normalize::Normalizer;
use control_plane_domain::run::RunMode;
use control_plane_domain::{
    CanonicalEvent, Envelope, Run, RunId, RunState, Session, SessionId, SessionState, Timestamp,
    payload, time,
};
use control_plane_insights::compare::{self, Comparison, Side, Teller};
use control_plane_projection::{PriceTable, Projection, apply_metrics};
use serde_json::{Map, Value, json};
use uuid::Uuid;

pub(crate) const DECISION: &str = "macp.mode.decision.v1";
pub(crate) const PROPOSAL: &str = "macp.mode.proposal.v1";
pub(crate) const TASK: &str = "macp.mode.task.v1";
pub(crate) const HANDOFF: &str = "macp.mode.handoff.v1";
pub(crate) const QUORUM: &str = "macp.mode.quorum.v1";
pub(crate) const MULTI_ROUND: &str = "ext.multi_round.v1";

const START: i64 = 1_763_800_000_000;

/// Something said. Ids are left to whoever renders it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    pub(crate) sender: String,
    pub(crate) message_type: &'static str,
    /// The number of the proposal that it makes or is about.
    pub(crate) about: Option<usize>,
    /// The number of the one that it replaces.
    pub(crate) replaces: Option<usize>,
    pub(crate) fields: Value,
}

pub(crate) fn line(
    sender: &str,
    message_type: &'static str,
    about: impl Into<Option<usize>>,
    fields: Value,
) -> Line {
    Line { sender: sender.to_owned(), message_type, about: about.into(), replaces: None, fields }
}

/// A conversation, after its `SessionStart`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Talk {
    pub(crate) mode: &'static str,
    pub(crate) policy: String,
    pub(crate) participants: Vec<String>,
    pub(crate) lines: Vec<Line>,
    pub(crate) ends: RunState,
}

impl Talk {
    pub(crate) fn new(mode: &'static str, participants: &[&str], lines: Vec<Line>) -> Self {
        Self {
            mode,
            policy: "policy.default".to_owned(),
            participants: participants.iter().map(|&one| one.to_owned()).collect(),
            lines,
            ends: RunState::Completed,
        }
    }
}

/// What makes two renderings of one conversation differ: ids and times.
#[derive(Debug, Clone)]
pub(crate) struct Dress {
    pub(crate) salt: u64,
    /// Milliseconds.
    pub(crate) start: i64,
    pub(crate) pace: i64,
}

impl Dress {
    pub(crate) const PLAIN: Self = Self { salt: 1, start: 0, pace: 1000 };

    fn id(&self, what: &str) -> String {
        Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{} {what}", self.salt).as_bytes()).to_string()
    }
}

/// The run that a conversation becomes.
pub(crate) fn side(talk: &Talk, dress: &Dress) -> Side {
    told(&events(talk, dress), talk, dress)
}

/// The run of these events.
pub(crate) fn told(events: &[CanonicalEvent], talk: &Talk, dress: &Dress) -> Side {
    let (mut run, _) = records(talk, dress);
    run.state = talk.ends;
    let mut state = Projection::empty(run.id);
    let mut metrics = RunMetrics::empty(run.id);
    let mut teller = Teller::new();
    for event in events {
        state.apply(event);
        apply_metrics(&mut metrics, event, &PriceTable::default());
        teller.hear(event);
    }
    Side { run, state, metrics, story: teller.finish() }
}

/// Compares two conversations, each with ids and times of its own.
pub(crate) fn compared(left: &Talk, right: &Talk) -> Comparison {
    let other = Dress { salt: 2, start: 86_400_000, pace: 1000 };
    compare::runs(&side(left, &Dress::PLAIN), &side(right, &other))
}

pub(crate) fn events(talk: &Talk, dress: &Dress) -> Vec<CanonicalEvent> {
    let (mut run, session) = records(talk, dress);
    let mut log =
        Log { run_id: run.id, events: Vec::new(), now: at(dress.start), pace: dress.pace };
    log.add([control::run_created(&run, talk.mode)]);
    run.advance(RunState::Starting, log.now).unwrap();
    log.add([control::run_started(&run, talk.mode, log.now)]);
    log.add(control::session_bound(&session, log.now));
    log.add([
        control::session_state_changed(&run, &session.session_id, SessionState::Open, log.now),
        control::stream_opened(&session.session_id, StreamStatus::Opened, 0, None, log.now),
    ]);
    let mut normalizer = Normalizer::new(talk.participants.clone(), None);
    let start = Line {
        sender: talk.participants[0].clone(),
        message_type: "SessionStart",
        about: None,
        replaces: None,
        fields: json!({
            "intent": "a test", "participants": talk.participants, "modeVersion": "1.0.0",
            "configurationVersion": "1", "policyVersion": talk.policy, "ttlMs": 60_000,
        }),
    };
    for (number, line) in std::iter::once(&start).chain(&talk.lines).enumerate() {
        log.now += chrono::TimeDelta::milliseconds(dress.pace);
        let envelope = envelope(talk, line, number, dress, log.now);
        let drafts = match line.message_type {
            "Signal" => normalizer.signal(&envelope, true, log.now),
            _ => normalizer.envelope(&envelope, log.now),
        };
        log.add(drafts);
    }
    if talk.ends.is_terminal() {
        run.state = talk.ends;
        run.ended_at = Some(log.now);
        log.add(control::run_state(&run, log.now));
    }
    log.events
}

struct Log {
    run_id: RunId,
    events: Vec<CanonicalEvent>,
    now: Timestamp,
    pace: i64,
}

impl Log {
    fn add(&mut self, drafts: impl IntoIterator<Item = EventDraft>) {
        for draft in drafts {
            let seq = self.events.last().map_or(1, |event| event.seq + 1);
            let received_at = draft.ts + chrono::TimeDelta::milliseconds(self.pace / 7);
            self.events.push(draft.into_event(self.run_id, seq, received_at));
        }
    }
}

fn at(ms: i64) -> Timestamp {
    time::from_unix_ms(START + ms).unwrap()
}

fn envelope(talk: &Talk, line: &Line, number: usize, dress: &Dress, now: Timestamp) -> Envelope {
    let is_signal = line.message_type == "Signal";
    let session_id = dress.id("session");
    let mut fields = line.fields.clone();
    let proposal = |number: usize| json!(dress.id(&format!("proposal {number}")));
    if let Some(about) = line.about {
        fields[id_field(talk.mode, line.message_type)] = proposal(about);
    }
    if let Some(replaced) = line.replaces {
        fields["supersedesProposalId"] = proposal(replaced);
    }
    if line.message_type == "Commitment" {
        fields["policyVersion"] = json!(talk.policy);
        if line.about.is_none() {
            fields["commitmentId"] = json!(dress.id("commitment"));
        }
    }
    if line.message_type == "TaskRequest" {
        fields["deadlineUnixMs"] = json!(now.timestamp_millis() + 5000);
    }
    if is_signal {
        fields["correlationSessionId"] = json!(session_id);
    }
    let mode = if is_signal { "" } else { talk.mode };
    let payload = payload::encode(mode, line.message_type, &fields);
    Envelope {
        macp_version: "1.0".to_owned(),
        mode: mode.to_owned(),
        message_type: line.message_type.to_owned(),
        message_id: dress.id(&format!("message {number}")),
        session_id: if is_signal { String::new() } else { session_id },
        sender: line.sender.clone(),
        timestamp_unix_ms: now.timestamp_millis(),
        payload: payload.unwrap_or_else(|| fields.to_string().into_bytes()),
        sanitized: false,
    }
}

fn id_field(mode: &str, message_type: &str) -> &'static str {
    match (mode, message_type) {
        (_, "Commitment") => "commitmentId",
        (QUORUM, _) => "requestId",
        (TASK, _) => "taskId",
        (HANDOFF, _) => "handoffId",
        _ => "proposalId",
    }
}

fn records(talk: &Talk, dress: &Dress) -> (Run, Session) {
    let session_id = SessionId::trusted(dress.id("session"));
    let id: RunId = dress.id("run").parse().unwrap();
    let created_at = at(dress.start);
    let run = Run {
        id,
        state: RunState::Queued,
        mode: RunMode::Live,
        runtime_kind: "rust".to_owned(),
        runtime_version: None,
        session_id: Some(session_id.clone()),
        trace_id: None,
        idempotency_key: None,
        request_hash: None,
        last_seq: 0,
        source_kind: None,
        source_ref: None,
        tags: Vec::new(),
        metadata: Map::new(),
        error_code: None,
        error_message: None,
        created_at,
        started_at: None,
        ended_at: None,
        updated_at: created_at,
        archived_at: None,
        parked_reason: None,
        imported_at: None,
    };
    let session = Session {
        run_id: id,
        runtime_kind: "rust".to_owned(),
        session_id,
        mode_name: talk.mode.to_owned(),
        mode_version: "1.0.0".to_owned(),
        configuration_version: "1".to_owned(),
        policy_version: talk.policy.clone(),
        initiator: talk.participants.first().cloned(),
        state: SessionState::Open,
        participants: talk.participants.clone(),
        context_id: Some(dress.id("context")),
        extension_keys: Vec::new(),
        started_at_unix_ms: Some(created_at.timestamp_millis()),
        expires_at: None,
        last_seen_at: None,
        cursor: 0,
        last_message_id: None,
        last_event_ts: None,
        connected_at: None,
        disconnected_at: None,
        created_at,
        updated_at: created_at,
        evidence: control_plane_domain::evidence::Evidence::default(),
    };
    (run, session)
}
