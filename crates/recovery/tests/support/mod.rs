//! An engine on a real database, and what must hold of every run it followed.

#![expect(dead_code, reason = "each test binary uses its own part")]
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "clippy takes only functions with `#[test]` for tests, not what they call"
)]

use std::sync::Arc;
use std::time::Duration;

use control_plane_domain::event::ChainHash;
use control_plane_domain::metrics::RunMetrics;
use control_plane_domain::runtime::Runtime;
use control_plane_domain::{
    CanonicalEvent, Clock, RunDescriptor, RunId, RunState, SessionId, SystemClock,
};
use control_plane_projection::{Projection, apply_metrics, state};
use control_plane_recovery::{Config, Engine};
use control_plane_storage::model::RunFilter;
use control_plane_storage::{DatabaseUrl, Store};
use control_plane_testkit::database::{Kind, TestDb};
use control_plane_testkit::{DEADLINE, wait_for};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// An engine, its database, and the means to stop it.
pub(crate) struct Rig {
    pub(crate) database: TestDb,
    pub(crate) store: Store,
    pub(crate) engine: Engine,
    stop: CancellationToken,
    tasks: TaskTracker,
    config: Config,
    runtime: Arc<dyn Runtime>,
}

/// Another engine on a rig's database.
pub(crate) struct Second {
    pub(crate) engine: Engine,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Second {
    pub(crate) async fn stop(self) {
        let Self { engine, stop, tasks } = self;
        stop.cancel();
        tasks.close();
        drop(engine);
        tokio::time::timeout(DEADLINE, tasks.wait()).await.expect("the engine stops");
    }
}

/// Waits that a test can afford.
pub(crate) fn config() -> Config {
    Config {
        // Tests count runs and events; those of discovery switch it on.
        discovery_enabled: false,
        // Tests count what the runtime is asked.
        receipts_enabled: false,
        session_wait: Duration::from_secs(30),
        settle_quiet: Duration::from_millis(300),
        settle_patience: Duration::from_secs(2),
        claim: Duration::from_millis(200),
        backoff_base: Duration::from_millis(50),
        backoff_max: Duration::from_secs(1),
        ..Config::default()
    }
}

impl Rig {
    pub(crate) fn start(kind: Kind, runtime: impl Runtime) -> Self {
        Self::with_config(kind, runtime, config())
    }

    pub(crate) fn with_config(kind: Kind, runtime: impl Runtime, config: Config) -> Self {
        Self::on(TestDb::new(kind), Arc::new(runtime), config, Arc::new(SystemClock))
    }

    pub(crate) fn with_clock(kind: Kind, runtime: impl Runtime, clock: Arc<dyn Clock>) -> Self {
        Self::on(TestDb::new(kind), Arc::new(runtime), config(), clock)
    }

    fn on(
        database: TestDb,
        runtime: Arc<dyn Runtime>,
        config: Config,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let url = DatabaseUrl::parse(database.url()).unwrap();
        let store = Store::connect(&control_plane_storage::Config::new(url)).unwrap();
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let engine = Engine::start(
            store.clone(),
            Arc::clone(&runtime),
            clock,
            config.clone(),
            stop.clone(),
            tasks.clone(),
        );
        Self { database, store, engine, stop, tasks, config, runtime }
    }

    /// Starts another engine on the database of one that was stopped.
    pub(crate) fn resume(database: TestDb, runtime: Arc<dyn Runtime>, config: Config) -> Self {
        Self::on(database, runtime, config, Arc::new(SystemClock))
    }

    pub(crate) async fn stop(self) -> (TestDb, Arc<dyn Runtime>, Config) {
        let Self { database, store, engine, stop, tasks, config, runtime } = self;
        stop.cancel();
        tasks.close();
        drop(engine);
        tokio::time::timeout(DEADLINE, tasks.wait()).await.expect("the engine stops");
        // Whatever a test did, the dashboard's sums are those of the logs.
        let wrong = control_plane_insights::dashboard::differences(&store).await.unwrap();
        assert_eq!(wrong, Vec::<String>::new());
        (database, runtime, config)
    }

    /// Another engine on the same database, for a second process.
    pub(crate) fn second(&self) -> Second {
        let url = DatabaseUrl::parse(self.database.url()).unwrap();
        let store = Store::connect(&control_plane_storage::Config::new(url)).unwrap();
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let engine = Engine::start(
            store,
            Arc::clone(&self.runtime),
            Arc::new(SystemClock),
            self.config.clone(),
            stop.clone(),
            tasks.clone(),
        );
        Second { engine, stop, tasks }
    }

    /// Waits until there is a run for a session, whoever made it.
    pub(crate) async fn finds(&self, session: &SessionId) -> RunId {
        let ask = async || self.store.run_find(session.as_str()).await.ok();
        wait_for(DEADLINE, ask, Option::is_some).await.unwrap().id
    }

    /// How many runs there are.
    pub(crate) async fn count_runs(&self) -> i64 {
        let all = RunFilter { include_sandbox: true, limit: 1, ..RunFilter::default() };
        self.store.run_list(&all).await.unwrap().total
    }

    /// Posts a run for a session.
    pub(crate) async fn post(&self, session: &SessionId, mode: &str) -> RunId {
        let launched = self.engine.launch(descriptor(session, mode)).await.unwrap();
        assert_eq!(&launched.session_id, session);
        launched.run_id
    }

    /// The run's state as clients see it.
    pub(crate) async fn state(&self, run: RunId) -> serde_json::Value {
        serde_json::to_value(state::load(&self.store, run).await.unwrap()).unwrap()
    }

    /// Waits until the run is in this state.
    pub(crate) async fn reaches(&self, run: RunId, state: RunState) {
        let ask = async || self.store.run_get(run).await.map(|run| (run.state, run.error_message));
        wait_for(DEADLINE, ask, |now| now.as_ref().is_ok_and(|(now, _)| *now == state))
            .await
            .unwrap();
    }

    /// Waits until this many envelopes are recorded.
    pub(crate) async fn has_recorded(&self, run: RunId, envelopes: usize) {
        let ask = async || self.store.list_raw_by_run(run, 0, 100_000).await.unwrap().len();
        wait_for(DEADLINE, ask, |count| *count >= envelopes).await;
    }

    /// Waits until an event with `"type": name` and this status or reason is in the log.
    pub(crate) async fn has_event(&self, run: RunId, name: &str) -> CanonicalEvent {
        let ask = async || {
            self.events(run).await.into_iter().find(|event| event.event_type.as_str() == name)
        };
        wait_for(DEADLINE, ask, Option::is_some).await.unwrap()
    }

    pub(crate) async fn events(&self, run: RunId) -> Vec<CanonicalEvent> {
        let entries = self.store.events(run, 0, 1_000_000).await.unwrap();
        entries.iter().map(|entry| serde_json::from_slice(&entry.body).unwrap()).collect()
    }

    /// The types of the events, in order, without the messages'.
    pub(crate) async fn story(&self, run: RunId) -> Vec<String> {
        let events = self.events(run).await;
        let told = events.iter().map(|event| event.event_type.as_str());
        told.filter(|name| *name != "message.received").map(str::to_owned).collect()
    }

    /// Why the run failed, once it has.
    pub(crate) async fn fails_with(&self, run: RunId, code: &str) {
        self.reaches(run, RunState::Failed).await;
        let failed = self.store.run_get(run).await.unwrap();
        assert_eq!(failed.error_code.as_deref(), Some(code), "{:?}", failed.error_message);
    }

    /// How many events have this status: `opened`, `reconnecting`, `recovered`.
    pub(crate) async fn count_status(&self, run: RunId, status: &str) -> usize {
        let events = self.events(run).await;
        let is = |event: &&CanonicalEvent| event.data.get("status").is_some_and(|it| it == status);
        events
            .iter()
            .filter(is)
            .filter(|event| event.event_type.as_str().contains("stream"))
            .count()
    }

    /// The ordinals that are recorded.
    pub(crate) async fn ordinals(&self, run: RunId) -> Vec<i64> {
        let raw = self.store.list_raw_by_run(run, 0, 100_000).await.unwrap();
        raw.iter().filter_map(|raw| raw.ordinal).collect()
    }

    /// The last event of the log.
    pub(crate) async fn last_event(&self, run: RunId) -> String {
        self.story(run).await.pop().unwrap_or_default()
    }

    /// What must hold of every run: the recorded ids are exactly those accepted, once each and in
    /// order; the log is contiguous and its chain unbroken; the state is a cold fold of it.
    pub(crate) async fn is_whole(&self, run: RunId, accepted: &[String]) {
        let raw = self.store.list_raw_by_run(run, 0, 1_000_000).await.unwrap();
        let ordinals: Vec<i64> = raw.iter().filter_map(|raw| raw.ordinal).collect();
        let wanted: Vec<i64> = (1..=i64::try_from(accepted.len()).unwrap()).collect();
        assert_eq!(ordinals, wanted);
        let ids: Vec<&str> = raw.iter().map(|raw| raw.envelope.message_id.as_str()).collect();
        assert_eq!(ids, accepted);
        self.log_is_sound(run).await;
    }

    /// The part of [`Rig::is_whole`] that holds even when envelopes are missing.
    pub(crate) async fn log_is_sound(&self, run: RunId) {
        // A run that goes on may be written meanwhile: all three are to be of one moment.
        let read = async || {
            let head = self.store.run_head(run).await.unwrap();
            let entries = self.store.events(run, 0, 1_000_000).await.unwrap();
            let warm = state::load(&self.store, run).await.unwrap();
            let figures = self.store.metrics_get(run).await.unwrap().unwrap();
            let same = self.store.run_head(run).await.unwrap().last_seq == head.last_seq;
            same.then_some((head, entries, warm, figures))
        };
        let (head, entries, warm, figures) =
            wait_for(DEADLINE, read, Option::is_some).await.unwrap();
        let mut chain = ChainHash::EMPTY;
        let mut cold = Projection::empty(run);
        let mut counted = RunMetrics::empty(run);
        for (entry, seq) in entries.iter().zip(1..) {
            assert_eq!(entry.seq, seq);
            let text = std::str::from_utf8(&entry.body).unwrap();
            chain = chain.then(text);
            assert_eq!(entry.hash, chain);
            let event = serde_json::from_str(text).unwrap();
            cold.apply(&event);
            apply_metrics(&mut counted, &event, &self.config.prices);
        }
        assert_eq!(figures, counted);
        assert_eq!((head.last_seq, head.hash), (i64::try_from(entries.len()).unwrap(), chain));
        assert_eq!(serde_json::to_value(&warm).unwrap(), serde_json::to_value(&cold).unwrap());
    }
}

/// What a caller posts for a session.
pub(crate) fn descriptor(session: &SessionId, mode: &str) -> RunDescriptor {
    RunDescriptor::parse(&json!({
        "mode": "live",
        "runtime": { "kind": "rust" },
        "session": {
            "sessionId": session.as_str(),
            "modeName": mode,
            "modeVersion": "1.0.0",
            "configurationVersion": "config.default",
            "ttlMs": 600_000,
            "participants": [{ "id": "alice" }, { "id": "bob" }, { "id": "carol" }],
        },
    }))
    .unwrap()
}
