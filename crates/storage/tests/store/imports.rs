//! Runs of other servers: loaded as a whole or not at all, read like any other, and left alone.

use bytes::Bytes;
use control_plane_domain::event::ChainHash;
use control_plane_domain::{EventType, Run, RunId, RunState, Seq};
use control_plane_storage::model::{
    Artifact, Deleted, EventFilter, LogEntry, NewRun, RawEnvelope, SnapshotRow,
};
use control_plane_storage::{
    About, Adopted, Adoption, Error, FeedFilter, ImportPage, ImportedRun, NewSignal, SignalNews,
    Store,
};
use control_plane_testkit::database::TestDb;
use serde_json::json;
use tokio::sync::mpsc;

use crate::support::{Writer, at, entry, log, new_run};

/// A run of another server, with its pages.
struct Foreign {
    new: ImportedRun,
    events: Vec<LogEntry>,
    raw: Vec<RawEnvelope>,
    artifacts: Vec<Artifact>,
}

/// A run with `count` events that was in this state when it was exported.
fn foreign(state: RunState, count: Seq) -> Foreign {
    let NewRun { run, session, entries: _, metrics, trace: _ } = new_run();
    let run = Run { state, last_seq: count, imported_at: Some(at(9)), ..run };
    let (mut events, mut chain) = (Vec::new(), ChainHash::EMPTY);
    for seq in 1..=count {
        let event = entry(run.id, seq, EventType::MessageReceived, chain);
        chain = event.hash;
        events.push(event);
    }
    let artifacts = vec![Artifact {
        id: uuid::Uuid::new_v4(),
        run_id: run.id,
        kind: "report".to_owned(),
        label: "a".to_owned(),
        uri: None,
        inline: Some(json!({ "n": 1.5 })),
        created_at: at(3),
    }];
    let writer = Writer {
        lease: control_plane_storage::model::Lease { run_id: run.id, epoch: 0 },
        run: run.clone(),
        session: session.clone(),
        chain,
        metrics: metrics.clone(),
    };
    let raw = writer.batch(count).raw;
    let new = ImportedRun { run, session: Some(session), chain, metrics };
    Foreign { new, events, raw, artifacts }
}

impl Foreign {
    fn id(&self) -> RunId {
        self.new.run.id
    }

    async fn import(&self, store: &Store) -> Result<(), Error> {
        self.import_with(store, true).await
    }

    /// Without its last page, if that is wanted.
    async fn import_with(&self, store: &Store, whole: bool) -> Result<(), Error> {
        let (pages, receiver) = mpsc::channel(2);
        let importing = store.run_import(self.new.clone(), receiver);
        let sending = async move {
            let _ = pages.send(ImportPage::Artifacts(self.artifacts.clone())).await;
            for events in self.events.chunks(7) {
                let _ = pages.send(ImportPage::Events(events.to_vec())).await;
            }
            for raw in self.raw.chunks(5) {
                let _ = pages.send(ImportPage::Envelopes(raw.to_vec())).await;
            }
            let kept = SnapshotRow {
                run_id: self.id(),
                version: 2,
                schema_version: 4,
                state: "{}".to_owned(),
            };
            let _ = pages.send(ImportPage::Snapshots(vec![kept])).await;
            if whole {
                let _ = pages.send(ImportPage::End(Box::new(state(self.id())))).await;
            }
        };
        tokio::join!(importing, sending).0
    }
}

fn state(run_id: RunId) -> control_plane_storage::model::ProjectionRow {
    let none = || json!({});
    control_plane_storage::model::ProjectionRow {
        run_id,
        version: 3,
        schema_version: 4,
        run_summary: none(),
        participants: none(),
        graph: none(),
        decision: none(),
        signals: none(),
        progress: none(),
        timeline: none(),
        trace_summary: none(),
        outbound_messages: none(),
        policy: none(),
        llm: none(),
        fold: none(),
    }
}

on_both_databases! {
    async fn what_is_imported_is_read_as_it_was(database: TestDb) {
        let store = database.store();
        let foreign = foreign(RunState::Completed, 40);

        foreign.import(&store).await.unwrap();

        let id = foreign.id();
        assert_eq!(store.run_get(id).await.unwrap(), foreign.new.run);
        assert_eq!(store.session_get(id).await.unwrap(), foreign.new.session);
        assert_eq!(log(&store, id).await, foreign.events);
        assert_eq!(store.list_raw_by_run(id, 0, 100).await.unwrap(), foreign.raw);
        assert_eq!(store.metrics_get(id).await.unwrap(), Some(foreign.new.metrics.clone()));
        assert_eq!(store.artifact_list(id).await.unwrap(), foreign.artifacts);
        assert_eq!(store.projection_get(id).await.unwrap(), Some(state(id)));
        let head = store.run_head(id).await.unwrap();
        assert_eq!((head.hash, head.is_over()), (foreign.new.chain, true));
    }

    async fn the_feed_never_has_an_imported_event(database: TestDb) {
        let store = database.store();
        let own = Writer::create(&store).await;
        let foreign = foreign(RunState::Completed, 5);

        foreign.import(&store).await.unwrap();
        let after = Writer::create(&store).await;

        let every = EventFilter { limit: 100, ..EventFilter::default() };
        let all = store.event_list(&every).await.unwrap();
        let runs: Vec<RunId> = all.items.iter().map(|event| event.run_id).collect();
        assert_eq!((runs, all.total), (vec![own.id(), after.id()], 2));
        let page = store.follow_feed(0, FeedFilter::default()).try_next(100).await.unwrap();
        assert_eq!(page.entries.iter().map(|it| it.position).collect::<Vec<_>>(), [1, 2]);
        let of_run = FeedFilter { run_id: Some(foreign.id()), ..FeedFilter::default() };
        let page = store.follow_feed(0, of_run).try_next(100).await.unwrap();
        assert_eq!(page.entries.len(), 0);
        let of_run =
            EventFilter { run_id: Some(foreign.id()), limit: 100, ..EventFilter::default() };
        assert_eq!(store.event_list(&of_run).await.unwrap().items, foreign.events);
        assert_eq!(store.feed_bounds().await.unwrap().last, 2);
    }

    async fn a_run_or_session_that_is_there_already_is_named(database: TestDb) {
        let store = database.store();
        let foreign = foreign(RunState::Completed, 3);
        foreign.import(&store).await.unwrap();
        let mut other = self::foreign(RunState::Completed, 3);
        other.new.run.session_id = foreign.new.run.session_id.clone();
        let mut same = self::foreign(RunState::Completed, 3);
        same.new.run.id = foreign.id();

        for taken in [&foreign, &other, &same] {
            let refused = taken.import(&store).await.unwrap_err();
            let is_named =
                matches!(refused, Error::SessionTaken { run_id } if run_id == foreign.id());
            assert!(is_named, "{refused:?}");
        }
        assert!(store.run_get(other.id()).await.is_err());
    }

    async fn an_import_without_its_end_leaves_nothing(database: TestDb) {
        let store = database.store();
        let foreign = foreign(RunState::Completed, 30);

        let refused = foreign.import_with(&store, false).await.unwrap_err();

        assert!(matches!(refused, Error::Refused(_)), "{refused:?}");
        assert!(matches!(store.run_get(foreign.id()).await, Err(Error::NotFound { .. })));
        assert_eq!(log(&store, foreign.id()).await, []);
        foreign.import(&store).await.unwrap();
    }

    async fn events_that_do_not_fit_together_leave_nothing(database: TestDb) {
        let store = database.store();
        let mut foreign = foreign(RunState::Completed, 30);
        foreign.events[20] = LogEntry { body: Bytes::from("{}"), ..foreign.events[3].clone() };

        let refused = foreign.import(&store).await.unwrap_err();

        assert!(matches!(refused, Error::Refused(_)), "{refused:?}");
        assert!(matches!(store.run_get(foreign.id()).await, Err(Error::NotFound { .. })));
    }

    async fn nobody_takes_an_imported_run_whatever_its_state(database: TestDb) {
        let store = database.store();
        for state in [RunState::Running, RunState::Suspended, RunState::Queued] {
            foreign(state, 3).import(&store).await.unwrap();
        }
        let foreign = foreign(RunState::Running, 3);
        foreign.import(&store).await.unwrap();
        store.instance_takes_runs(true).await.unwrap();

        let census = store.census().await.unwrap();
        let claimed = store.runs_claim().await.unwrap();
        let taken = store.run_take(foreign.id()).await.unwrap_err();

        assert_eq!((census.all, census.free), (0, 0));
        assert_eq!(claimed, []);
        assert!(matches!(taken, Error::ReadOnly { run_id } if run_id == foreign.id()));
        assert_eq!(store.runs_owned().await.unwrap(), []);
        assert_eq!(store.active_sessions(None, 10).await.unwrap(), []);
        assert_eq!(store.runs_release().await.unwrap(), 0);
    }

    async fn nothing_is_asked_of_an_imported_run(database: TestDb) {
        let store = database.store();
        let foreign = foreign(RunState::Running, 3);
        foreign.import(&store).await.unwrap();
        let session = foreign.new.run.session_id.clone().unwrap();

        let pushed =
            store.inbox_push(foreign.id(), "cancel", "1".to_owned(), json!({}), at(10)).await;
        let about = [
            About::Session(session.as_str().to_owned()),
            About::Message(foreign.raw[0].envelope.message_id.clone()),
        ];
        let signals = about.into_iter().enumerate().map(|(number, about)| NewSignal {
            about,
            sender: "a".to_owned(),
            message_id: format!("s{number}"),
            payload: json!({}),
            heard_at: at(1),
        });
        let news = SignalNews {
            signals: signals.collect(),
            gaps: vec![],
            heard_until: None,
            hold_at_most: 10,
        };
        let heard = store.signals_record(news).await.unwrap();
        let delivered = store.signals_deliver().await.unwrap();

        assert!(matches!(pushed, Err(Error::ReadOnly { .. })), "{pushed:?}");
        assert_eq!((heard.recorded, heard.held, delivered.recorded), (0, 2, 0));
        assert_eq!(store.inbox_runs().await.unwrap(), []);
    }

    async fn the_session_of_an_imported_run_is_neither_found_nor_adopted(database: TestDb) {
        let store = database.store();
        let foreign = foreign(RunState::Running, 3);
        foreign.import(&store).await.unwrap();
        let session = foreign.new.run.session_id.clone().unwrap();

        let known = store.sessions_known(std::slice::from_ref(&session)).await.unwrap();
        let adoption = Adoption {
            request_hash: "h".to_owned(),
            idempotency_key: None,
            kind: "adoption",
            dedup_key: "adoption".to_owned(),
            payload: json!({}),
            now: at(1),
        };
        let adopted = store.run_adopt(foreign.id(), adoption).await.unwrap();

        assert!(known.imported.contains(&session) && known.runs.is_empty());
        assert_eq!(adopted, Adopted::Taken);
        assert_eq!(store.run_get(foreign.id()).await.unwrap().request_hash, None);
    }

    async fn an_imported_run_is_deleted_whatever_its_state_and_leaves_no_tombstone(database: TestDb) {
        let store = database.store();
        let foreign = foreign(RunState::Running, 3);
        foreign.import(&store).await.unwrap();
        let session = foreign.new.run.session_id.clone().unwrap();

        let deleted = store.run_delete(foreign.id(), at(20)).await.unwrap();

        assert_eq!(deleted, Deleted::Done);
        assert!(!store.session_is_deleted(&session).await.unwrap());
        assert_eq!(log(&store, foreign.id()).await, []);
        foreign.import(&store).await.unwrap();
    }

    async fn a_run_whose_session_was_deleted_here_may_come_back_as_an_import(database: TestDb) {
        let store = database.store();
        let mut own = Writer::create(&store).await;
        let mut batch = own.batch(1);
        batch.run.state = RunState::Completed;
        own.commit(&store, batch).await;
        store.run_delete(own.id(), at(20)).await.unwrap();
        let mut foreign = foreign(RunState::Completed, 3);
        foreign.new.run.session_id = own.run.session_id.clone();

        foreign.import(&store).await.unwrap();
        store.run_delete(foreign.id(), at(30)).await.unwrap();

        let session = own.run.session_id.unwrap();
        assert!(store.session_is_deleted(&session).await.unwrap(), "the tombstone is our own");
    }
}
