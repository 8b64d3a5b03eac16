//! Who follows a run: after a crash, with recovery switched off, and with two engines.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use control_plane_domain::event::ChainHash;
use control_plane_domain::metrics::RunMetrics;
use control_plane_domain::rollup::{self, Fact, Figures, Filing, Rollups, Sign};
use control_plane_domain::run::RunMode;
use control_plane_domain::{
    CanonicalEvent, Clock, Run, RunId, RunState, Session, SessionId, SessionState, SystemClock,
    Timestamp, control,
};
use control_plane_recovery::{Config, Engine};
use control_plane_storage::model::{Append, Created, LogEntry, NewRun};
use control_plane_storage::{DatabaseUrl, Store};
use control_plane_testkit::database::{Kind, TestDb};
use control_plane_testkit::message;
use control_plane_testkit::runtime::RuntimeProcess;
use control_plane_testkit::{DEADLINE, wait_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Talk;
use super::support::{Rig, config, descriptor};

/// A queued run as a process leaves it that dies right after recording it.
fn queued(session_id: &SessionId, now: Timestamp) -> NewRun {
    let id = RunId::random();
    let run = Run {
        id,
        state: RunState::Queued,
        mode: RunMode::Live,
        runtime_kind: "rust".to_owned(),
        runtime_version: None,
        session_id: Some(session_id.clone()),
        trace_id: None,
        idempotency_key: None,
        request_hash: Some("posted".to_owned()),
        last_seq: 1,
        source_kind: None,
        source_ref: None,
        tags: Vec::new(),
        metadata: serde_json::Map::new(),
        error_code: None,
        error_message: None,
        created_at: now,
        started_at: None,
        ended_at: None,
        updated_at: now,
        archived_at: None,
        parked_reason: None,
        imported_at: None,
    };
    let session = Session {
        run_id: id,
        runtime_kind: "rust".to_owned(),
        session_id: session_id.clone(),
        mode_name: message::DECISION.to_owned(),
        mode_version: "1.0.0".to_owned(),
        configuration_version: "config.default".to_owned(),
        policy_version: "policy.default".to_owned(),
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
        created_at: now,
        updated_at: now,
        evidence: control_plane_domain::evidence::Evidence::default(),
    };
    let created = control::run_created(&run, message::DECISION);
    let entries = vec![entry(created, id, 1, ChainHash::EMPTY, now)];
    let mut metrics = RunMetrics::empty(id);
    metrics.event_count = 1;
    NewRun { run, session, entries, metrics, trace: None }
}

fn entry(
    draft: control_plane_domain::EventDraft,
    run_id: RunId,
    seq: i64,
    chain: ChainHash,
    now: Timestamp,
) -> LogEntry {
    let event = draft.into_event(run_id, seq, now);
    let body = event.encode();
    LogEntry {
        run_id,
        seq,
        position: 0,
        ts: event.ts,
        received_at: event.received_at,
        event_type: event.event_type,
        subject: event.subject.map(|subject| (subject.kind.as_str().to_owned(), subject.id)),
        hash: chain.then(&body),
        body: Bytes::from(body),
    }
}

async fn record(database: &TestDb, new: NewRun) -> control_plane_storage::model::Lease {
    let store = database.store();
    let Created::New(lease) = store.run_create(new).await.unwrap() else {
        panic!("the run is there already");
    };
    lease
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queued_run_that_a_crash_left_is_started() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let mut talk = Talk::open(&cast).await;
        let database = TestDb::new(kind);
        let new = queued(&talk.session, SystemClock.now());
        let run = new.run.id;
        record(&database, new).await;

        let rig = Rig::resume(database, Arc::new(runtime.client()), config());
        rig.has_recorded(run, 2).await;
        talk.end(&cast).await;

        rig.reaches(run, RunState::Completed).await;
        rig.is_whole(run, &talk.accepted).await;
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_whose_lease_was_lost_on_its_way_to_us_is_followed_all_the_same() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let mut talk = Talk::open(&cast).await;
        let rig = Rig::start(kind, runtime.client());
        let new = queued(&talk.session, SystemClock.now());
        let run = new.run.id;

        // It is ours, says the database, and the engine was never told.
        rig.store.run_create(new).await.unwrap();

        rig.has_recorded(run, 2).await;
        talk.end(&cast).await;
        rig.reaches(run, RunState::Completed).await;
        rig.is_whole(run, &talk.accepted).await;
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_a_crash_left_in_the_middle_of_binding_is_promoted() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let mut talk = Talk::open(&cast).await;
        let database = TestDb::new(kind);
        let run = leave_in_binding(&database, &runtime, &talk.session).await;

        let rig = Rig::resume(database, Arc::new(runtime.client()), config());
        rig.reaches(run, RunState::Running).await;
        talk.end(&cast).await;

        rig.reaches(run, RunState::Completed).await;
        rig.is_whole(run, &talk.accepted).await;
        assert_eq!(rig.count_status(run, "recovered").await, 1);
        rig.stop().await;
    }
}

/// Records a run and binds it, as the engine does, and goes no further.
async fn leave_in_binding(
    database: &TestDb,
    runtime: &RuntimeProcess,
    session_id: &SessionId,
) -> RunId {
    use control_plane_domain::runtime::Runtime;
    let info = runtime.client().get_session(session_id).await.unwrap();
    let now = SystemClock.now();
    let new = queued(session_id, now);
    let (mut run, mut session, mut metrics) =
        (new.run.clone(), new.session.clone(), new.metrics.clone());
    let mut chain = new.entries[0].hash;
    let lease = record(database, new).await;

    run.advance(RunState::Starting, now).unwrap();
    run.advance(RunState::BindingSession, now).unwrap();
    session.bind(&info, now);
    let mut drafts = vec![control::run_started(&run, message::DECISION, now)];
    drafts.extend(control::session_bound(&session, now));
    let mut entries = Vec::new();
    for (draft, seq) in drafts.into_iter().zip(2..) {
        let next = entry(draft, run.id, seq, chain, now);
        chain = next.hash;
        run.last_seq = seq;
        entries.push(next);
    }
    metrics.event_count = run.last_seq;
    let mut figures = Figures::default();
    for entry in &entries {
        let event: CanonicalEvent = serde_json::from_slice(&entry.body).unwrap();
        rollup::event(&mut figures, &Fact::from(&event), run.created_at);
    }
    let mut rollups = Rollups::default();
    rollups.file(&Filing::of(&run), &figures, Sign::Plus);
    let id = run.id;
    let batch = Append {
        lease,
        expected_seq: 1,
        run,
        chain,
        session,
        raw: Vec::new(),
        entries,
        projection: None,
        snapshots: Vec::new(),
        metrics,
        artifacts: Vec::new(),
        inbox_used: Vec::new(),
        rollups,
        receipt: None,
    };
    // The record's store is closed by now, and this one is another owner's in name only.
    let outcomes = database.store().append(vec![batch]).await;
    assert_eq!(outcomes, [control_plane_storage::model::Appended::Committed]);
    id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_recovery_runs_are_left_alone() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let rig = Rig::start(kind, runtime.client());
        let talk = Talk::open(&cast).await;
        let left = rig.post(&talk.session, message::DECISION).await;
        rig.has_recorded(left, 2).await;

        let (database, client, config) = rig.stop().await;
        let rig = Rig::resume(database, client, Config { recovery_enabled: false, ..config });
        let before = rig.events(left).await.len();
        let mut other = Talk::open(&cast).await;
        let run = rig.post(&other.session, message::DECISION).await;
        other.end(&cast).await;

        rig.reaches(run, RunState::Completed).await;
        rig.is_whole(run, &other.accepted).await;
        assert_eq!(rig.store.run_get(left).await.unwrap().state, RunState::Running);
        assert_eq!(rig.events(left).await.len(), before);
        rig.stop().await;
    }
}

/// An engine in a process of its own, as far as the database can tell.
pub(super) struct Doomed {
    host: Option<tokio::runtime::Runtime>,
    pub(super) engine: Engine,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Doomed {
    pub(super) async fn start(database: &TestDb, runtime: control_plane_runtime::Client) -> Self {
        let host = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let url = DatabaseUrl::parse(database.url()).unwrap();
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (stopping, tracked) = (stop.clone(), tasks.clone());
        let engine = host.spawn(async move {
            let store = Store::connect(&control_plane_storage::Config::new(url)).unwrap();
            let clock = Arc::new(SystemClock);
            Engine::start(store, Arc::new(runtime), clock, config(), stopping, tracked)
        });
        let engine = engine.await.unwrap();
        Self { host: Some(host), engine, stop, tasks }
    }

    pub(super) async fn post(&self, session: &SessionId) -> RunId {
        let (engine, asked) = (self.engine.clone(), descriptor(session, message::DECISION));
        let host = self.host.as_ref().unwrap();
        host.spawn(async move { engine.launch(asked).await }).await.unwrap().unwrap().run_id
    }

    /// Everything ends where it stands, and its connections break.
    fn crash(mut self) {
        self.host.take().unwrap().shutdown_background();
    }

    pub(super) async fn leave(mut self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.host.take().unwrap().shutdown_background();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_engines_one_follows_and_the_other_takes_over() {
    for orderly in [true, false] {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let rig = Rig::start(Kind::Postgres, runtime.client());
        let first = Doomed::start(&rig.database, runtime.client()).await;
        let mut talks = Vec::new();
        for _ in 0..5 {
            let talk = Talk::open(&cast).await;
            let run = first.post(&talk.session).await;
            rig.has_recorded(run, 2).await;
            talks.push((run, talk));
        }
        // The second one looks for runs without an owner all the while, and finds none.
        let mut own = Talk::open(&cast).await;
        let run = rig.post(&own.session, message::DECISION).await;
        own.end(&cast).await;
        rig.reaches(run, RunState::Completed).await;
        wait_until(DEADLINE, async || rig.engine.following() == 0).await;
        assert_eq!(first.engine.following(), 5);

        if orderly {
            first.leave().await;
        } else {
            first.crash();
        }
        wait_until(DEADLINE, async || rig.engine.following() == 5).await;

        for (run, talk) in &mut talks {
            talk.end(&cast).await;
            rig.reaches(*run, RunState::Completed).await;
            rig.is_whole(*run, &talk.accepted).await;
            assert_eq!(rig.count_status(*run, "recovered").await, 1);
        }
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_may_be_asked_something_by_an_engine_that_does_not_follow_it() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let rig = Rig::start(Kind::Postgres, runtime.client());
    let other = Doomed::start(&rig.database, runtime.client()).await;
    let talk = Talk::open(&cast).await;
    let run = other.post(&talk.session).await;
    rig.has_recorded(run, 2).await;

    let artifact = serde_json::json!({
        "id": uuid::Uuid::new_v4(), "kind": "report", "label": "a report",
    });
    rig.engine.ask(run, "artifact", "k".to_owned(), artifact).await.unwrap();

    assert_eq!(rig.store.artifact_list(run).await.unwrap().len(), 1);
    assert_eq!(rig.engine.following(), 0);
    other.leave().await;
    rig.stop().await;
}

/// A clock that panics once, when it is told to: nothing else reaches into a run's task.
#[derive(Default)]
struct Trap(AtomicBool);

impl Clock for Trap {
    fn now(&self) -> Timestamp {
        assert!(!self.0.swap(false, Ordering::SeqCst), "the trap");
        SystemClock.now()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_panics_is_started_again() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let clock = Arc::new(Trap::default());
    let rig = Rig::with_clock(Kind::Sqlite, runtime.client(), clock.clone());
    let mut talk = Talk::open(&cast).await;
    let run = rig.post(&talk.session, message::DECISION).await;
    rig.has_recorded(run, 2).await;

    clock.0.store(true, Ordering::SeqCst);
    talk.end(&cast).await;

    rig.reaches(run, RunState::Completed).await;
    assert!(!clock.0.load(Ordering::SeqCst), "the trap has sprung");
    rig.is_whole(run, &talk.accepted).await;
    rig.stop().await;
}
