//! Runs to write, and the numbers that a writer of a run keeps.

use bytes::Bytes;
use control_plane_domain::envelope::EnvelopeSource;
use control_plane_domain::event::ChainHash;
use control_plane_domain::metrics::RunMetrics;
use control_plane_domain::rollup::Rollups;
use control_plane_domain::run::{RunMode, RunState};
use control_plane_domain::session::{Session, SessionState};
use control_plane_domain::time::from_unix_ms;
use control_plane_domain::{Envelope, EventType, Run, RunId, Seq, SessionId, Timestamp};
use control_plane_storage::Store;
use control_plane_storage::model::{
    Append, Appended, Created, Lease, LogEntry, NewRun, RawEnvelope,
};
use serde_json::{Map, json};
use tokio_postgres::{Client, NoTls};

/// An instant, `ms` milliseconds after the one at which every test starts.
pub(crate) fn at(ms: i64) -> Timestamp {
    from_unix_ms(1_795_000_000_123 + ms).unwrap()
}

/// A run that nobody has seen yet.
pub(crate) fn new_run() -> NewRun {
    let id = RunId::random();
    let session_id = SessionId::random();
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
        last_seq: 1,
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
    };
    let session = Session {
        run_id: id,
        runtime_kind: "rust".to_owned(),
        session_id,
        mode_name: "macp.mode.decision.v1".to_owned(),
        mode_version: "1.0.0".to_owned(),
        configuration_version: "c1".to_owned(),
        policy_version: "p1".to_owned(),
        initiator: None,
        state: SessionState::Unspecified,
        participants: Vec::new(),
        context_id: None,
        extension_keys: Vec::new(),
        started_at_unix_ms: None,
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
    };
    let entries = vec![entry(id, 1, EventType::RunCreated, ChainHash::EMPTY)];
    NewRun { run, session, entries, metrics: RunMetrics::empty(id), trace: None }
}

/// An event of a log whose head was `before`.
pub(crate) fn entry(run_id: RunId, seq: Seq, event_type: EventType, before: ChainHash) -> LogEntry {
    let body = json!({ "seq": seq, "type": event_type, "text": "Grüße \"und\" 日本" }).to_string();
    LogEntry {
        run_id,
        seq,
        position: 0,
        ts: at(seq),
        received_at: at(seq + 1),
        event_type,
        subject: (seq % 2 == 0).then(|| ("message".to_owned(), format!("m{seq}"))),
        hash: before.then(&body),
        body: Bytes::from(body),
    }
}

/// The one writer of a run, as far as it knows.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    pub(crate) lease: Lease,
    pub(crate) run: Run,
    pub(crate) session: Session,
    pub(crate) chain: ChainHash,
    pub(crate) metrics: RunMetrics,
}

impl Writer {
    /// Creates a run.
    pub(crate) async fn create(store: &Store) -> Self {
        Self::create_from(store, new_run()).await
    }

    /// Creates this run.
    pub(crate) async fn create_from(store: &Store, new: NewRun) -> Self {
        let Created::New(lease) = store.run_create(new.clone()).await.unwrap() else {
            panic!("{} is there already", new.run.id);
        };
        let chain = new.entries.last().unwrap().hash;
        let NewRun { run, session, entries: _, metrics, trace: _ } = new;
        Self { lease, run, session, chain, metrics }
    }

    pub(crate) fn id(&self) -> RunId {
        self.run.id
    }

    /// The next batch: `count` envelopes and an event for each.
    pub(crate) fn batch(&self, count: i64) -> Append {
        let id = self.id();
        let (mut run, mut session) = (self.run.clone(), self.session.clone());
        let mut metrics = self.metrics.clone();
        let mut chain = self.chain;
        let mut raw = Vec::new();
        let mut entries = Vec::new();
        for _ in 0..count {
            session.cursor += 1;
            let envelope = envelope(&session);
            session.last_message_id = Some(envelope.message_id.clone());
            raw.push(RawEnvelope {
                run_id: id,
                source: EnvelopeSource::Session,
                ordinal: Some(session.cursor),
                received_at: at(session.cursor),
                sender_authenticated: true,
                envelope,
            });
            let event = entry(id, run.last_seq + 1, EventType::MessageReceived, chain);
            (run.last_seq, chain) = (event.seq, event.hash);
            entries.push(event);
        }
        run.updated_at = at(run.last_seq);
        session.updated_at = at(run.last_seq);
        metrics.event_count += count;
        Append {
            lease: self.lease,
            expected_seq: self.run.last_seq,
            run,
            chain,
            session,
            raw,
            entries,
            projection: None,
            snapshots: Vec::new(),
            metrics,
            artifacts: Vec::new(),
            inbox_used: Vec::new(),
            rollups: Rollups::default(),
            receipt: None,
        }
    }

    /// Goes on from a batch that was committed.
    pub(crate) fn follow(&mut self, batch: &Append) {
        self.run = batch.run.clone();
        self.session = batch.session.clone();
        self.chain = batch.chain;
        self.metrics = batch.metrics.clone();
    }

    /// Appends a batch, which must succeed.
    pub(crate) async fn commit(&mut self, store: &Store, batch: Append) {
        assert_eq!(store.append(vec![batch.clone()]).await, [Appended::Committed]);
        self.follow(&batch);
    }
}

fn envelope(session: &Session) -> Envelope {
    Envelope {
        macp_version: "1.0".to_owned(),
        mode: session.mode_name.clone(),
        message_type: "Proposal".to_owned(),
        message_id: format!("message-{}", session.cursor),
        session_id: session.session_id.as_str().to_owned(),
        sender: "agent://ä".to_owned(),
        timestamp_unix_ms: -5,
        payload: vec![0, 1, 2, 255],
        sanitized: false,
    }
}

/// Every event of a run, read in small pages.
pub(crate) async fn log(store: &Store, id: RunId) -> Vec<LogEntry> {
    let mut events: Vec<LogEntry> = Vec::new();
    loop {
        let after = events.last().map_or(0, |event| event.seq);
        let page = store.list_canonical_range(id, after, 97).await.unwrap();
        if page.is_empty() {
            return events;
        }
        events.extend(page);
    }
}

/// A connection of the test's own, beside the store's.
pub(crate) async fn client(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}
