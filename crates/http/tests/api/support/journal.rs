//! The writer of one run's log, in place of an engine.

use bytes::Bytes;
use chrono::TimeDelta;
use control_plane_domain::descriptor::RunDescriptor;
use control_plane_domain::event::{ChainHash, EventDraft, Source, Subject, SubjectKind};
use control_plane_domain::metrics::RunMetrics;
use control_plane_domain::rollup::{self, Fact, Figures, Filing, Rollups, Sign};
use control_plane_domain::{
    CanonicalEvent, Clock, EventType, Run, RunId, RunState, Session, SystemClock,
};
use control_plane_storage::Store;
use control_plane_storage::model::{Append, Appended, Created, Lease, LogEntry, NewRun};
use serde_json::{Value, json};

use super::{descriptor, records};

/// The writer of one run's log.
pub(crate) struct Journal {
    store: Store,
    lease: Lease,
    run: Run,
    pub(crate) session: Session,
    chain: ChainHash,
    /// How much later than now its events are.
    ahead: TimeDelta,
    /// What the sums over runs have of the run's record.
    counted: Figures,
}

impl Journal {
    /// Records a running run with an empty log but for `run.created`.
    pub(crate) async fn create(store: &Store) -> Self {
        Self::create_of(store, "").await
    }

    /// The same for a run of this scenario.
    pub(crate) async fn create_of(store: &Store, scenario: &str) -> Self {
        let body = RunDescriptor::parse(&descriptor()).unwrap();
        let (mut run, session) = records(&body);
        run.metadata.insert("scenarioRef".to_owned(), json!(scenario));
        let mut journal = Self {
            store: store.clone(),
            lease: Lease { run_id: run.id, epoch: 0 },
            run,
            session,
            chain: ChainHash::EMPTY,
            ahead: TimeDelta::zero(),
            counted: Figures::default(),
        };
        journal.counted = journal.standing();
        let entries = vec![journal.entry(EventType::RunCreated, json!({ "status": "queued" }))];
        let new = NewRun {
            run: journal.run.clone(),
            session: journal.session.clone(),
            entries,
            metrics: RunMetrics::empty(journal.run.id),
            trace: None,
        };
        match store.run_create(new).await.unwrap() {
            Created::New(lease) => journal.lease = lease,
            Created::Existing(run) => panic!("{run:?}"),
        }
        journal
    }

    pub(crate) fn id(&self) -> RunId {
        self.run.id
    }

    pub(crate) fn session_id(&self) -> String {
        self.session.session_id.to_string()
    }

    /// The last event's number.
    pub(crate) fn last_seq(&self) -> i64 {
        self.run.last_seq
    }

    /// Appends one event per type, in one commit.
    pub(crate) async fn append(&mut self, types: &[EventType]) {
        let events = types.iter().map(|kind| (*kind, data_of(*kind))).collect();
        self.append_events(events).await;
    }

    /// Appends these events, in one commit.
    pub(crate) async fn append_events(&mut self, events: Vec<(EventType, Value)>) {
        let batch = self.batch(events);
        self.commit(batch).await;
    }

    /// A commit of these events, which is to be made before the next one.
    pub(crate) fn batch(&mut self, events: Vec<(EventType, Value)>) -> Append {
        let expected_seq = self.run.last_seq;
        let entries: Vec<LogEntry> =
            events.into_iter().map(|(kind, data)| self.entry(kind, data)).collect();
        self.holding(expected_seq, entries)
    }

    fn holding(&mut self, expected_seq: i64, entries: Vec<LogEntry>) -> Append {
        let rollups = self.rollups(&entries);
        Append {
            lease: self.lease,
            expected_seq,
            run: self.run.clone(),
            chain: self.chain,
            session: self.session.clone(),
            raw: vec![],
            entries,
            projection: None,
            snapshots: vec![],
            metrics: RunMetrics::empty(self.run.id),
            artifacts: vec![],
            inbox_used: vec![],
            rollups,
            receipt: None,
        }
    }

    pub(crate) async fn commit(&self, batch: Append) {
        let appended = self.store.append(vec![batch]).await;
        assert_eq!(appended, [Appended::Committed]);
    }

    fn standing(&self) -> Figures {
        rollup::standing(&self.run, &RunMetrics::empty(self.run.id))
    }

    /// What a batch of these events changes in the sums over runs.
    fn rollups(&mut self, entries: &[LogEntry]) -> Rollups {
        let filing = Filing::of(&self.run);
        let mut figures = self.standing();
        let mut changes = Rollups::default();
        changes.file(&filing, &self.counted, Sign::Minus);
        self.counted = figures.clone();
        for entry in entries {
            let event: CanonicalEvent = serde_json::from_slice(&entry.body).unwrap();
            rollup::event(&mut figures, &Fact::from(&event), self.run.created_at);
        }
        changes.file(&filing, &figures, Sign::Plus);
        changes
    }

    /// Appends one event with this content.
    pub(crate) async fn append_one(&mut self, event_type: EventType, data: Value) {
        self.append_events(vec![(event_type, data)]).await;
    }

    /// Appends that a participant was seen.
    pub(crate) async fn seen(&mut self, id: &str) {
        let draft = control_plane_domain::control::participant_seen(id, SystemClock.now());
        let expected_seq = self.run.last_seq;
        let entry = self.entry_of(draft);
        let batch = self.holding(expected_seq, vec![entry]);
        self.commit(batch).await;
    }

    /// Fails the run.
    pub(crate) async fn fail(&mut self, code: &str) {
        self.run.state = RunState::Failed;
        self.run.error_code = Some(code.to_owned());
        self.run.ended_at = Some(SystemClock.now());
        self.append(&[EventType::RunFailed]).await;
    }

    /// Suspends the run, or resumes it.
    pub(crate) async fn turn(&mut self, state: RunState) {
        let suspends = state == RunState::Suspended;
        let told = if suspends { EventType::RunSuspended } else { EventType::RunResumed };
        self.run.state = state;
        self.append(&[told]).await;
    }

    /// Gives the run up.
    pub(crate) async fn park(&self, reason: &str) {
        assert!(self.store.run_park(self.lease, reason.to_owned()).await.unwrap());
    }

    /// Appends events of about this many bytes, in one commit.
    pub(crate) async fn append_large(&mut self, count: usize, bytes: usize) {
        let data = json!({ "note": "x".repeat(bytes) });
        self.append_events(vec![(EventType::MessageReceived, data); count]).await;
    }

    /// What is appended from here on happened so much later.
    pub(crate) fn let_pass(&mut self, time: TimeDelta) {
        self.ahead += time;
    }

    /// Ends the run as completed.
    pub(crate) async fn complete(&mut self) {
        self.run.state = RunState::Completed;
        self.run.ended_at = Some(SystemClock.now());
        self.append(&[EventType::RunCompleted]).await;
    }

    fn entry(&mut self, event_type: EventType, data: Value) -> LogEntry {
        let Value::Object(data) = data else { panic!("not an object") };
        self.entry_of(EventDraft {
            event_type,
            ts: SystemClock.now() + self.ahead,
            subject: Some(Subject::new(SubjectKind::Run, self.run.id.to_string())),
            source: Source::control_plane("run-manager"),
            trace: None,
            data,
        })
    }

    fn entry_of(&mut self, draft: EventDraft) -> LogEntry {
        let now = SystemClock.now() + self.ahead;
        self.run.last_seq += 1;
        let event = draft.into_event(self.run.id, self.run.last_seq, now);
        let body = event.encode();
        self.chain = self.chain.then(&body);
        LogEntry {
            run_id: self.run.id,
            seq: event.seq,
            position: 0,
            ts: event.ts,
            received_at: event.received_at,
            event_type: event.event_type,
            subject: event.subject.map(|it| (it.kind.as_str().to_owned(), it.id)),
            hash: self.chain,
            body: Bytes::from(body),
        }
    }
}

fn data_of(event_type: EventType) -> Value {
    if event_type == EventType::SessionStreamGap {
        json!({ "fromOrdinal": 2, "toOrdinal": 4 })
    } else if event_type == EventType::RunCompleted {
        json!({ "status": "completed" })
    } else {
        json!({ "note": "test" })
    }
}
