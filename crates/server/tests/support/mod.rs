//! A server process between a real runtime and a real database, and what must hold afterwards.

#![expect(dead_code, reason = "each test binary uses its own part")]
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "clippy takes only functions with `#[test]` for tests, not what they call"
)]

use std::time::Duration;

use control_plane_domain::{RunId, SessionId};
use control_plane_insights::integrity;
use control_plane_storage::{Access, Config, DatabaseUrl, Store};
use control_plane_testkit::agent::{Cast, SessionSpec};
use control_plane_testkit::database::{Kind, TestDb};
use control_plane_testkit::message::{self, Message, Outcome};
use control_plane_testkit::process::ServerProcess;
use control_plane_testkit::runtime::{OBSERVER_TOKEN, RuntimeProcess};
use control_plane_testkit::{DEADLINE, wait_for};
use serde_json::{Value, json};

/// How long the server may take to go after SIGTERM.
pub(crate) const EXIT: Duration = Duration::from_secs(5);

/// A server, and a reader of its database.
pub(crate) struct Stage {
    pub(crate) server: ServerProcess,
    pub(crate) store: Store,
    /// Where the database is.
    pub(crate) url: String,
    _database: Option<TestDb>,
}

impl Stage {
    pub(crate) async fn set(kind: Kind, runtime: &RuntimeProcess) -> Self {
        Self::with(kind, runtime, &[]).await
    }

    /// The same, with variables of the test's own.
    pub(crate) async fn with(
        kind: Kind,
        runtime: &RuntimeProcess,
        variables: &[(&str, &str)],
    ) -> Self {
        let database = TestDb::new(kind);
        let stage = Self::at(database.url(), runtime, variables).await;
        Self { _database: Some(database), ..stage }
    }

    /// The same on a database that is there already, which need not be migrated.
    pub(crate) async fn at(
        url: &str,
        runtime: &RuntimeProcess,
        variables: &[(&str, &str)],
    ) -> Self {
        let server = ServerProcess::serve()
            .env("DATABASE_URL", url)
            .env("RUNTIME_ADDRESS", runtime.address())
            .env("RUNTIME_BEARER_TOKEN", OBSERVER_TOKEN)
            .env("RUNTIME_ALLOW_INSECURE", "true")
            .env("LOG_LEVEL", "info");
        let server = variables.iter().fold(server, |server, (name, value)| server.env(name, value));
        let server = server.start().await;
        let config = Config::new(DatabaseUrl::parse(url).unwrap());
        let store = Store::connect(&Config { access: Access::Read, ..config }).unwrap();
        Self { server, store, url: url.to_owned(), _database: None }
    }

    /// `POST /runs` for a session.
    pub(crate) async fn post(&self, session: &SessionId, mode: &str) -> RunId {
        let (status, body) = self.server.post("/runs", &descriptor(session, mode)).await;
        assert_eq!(status, 201, "{body:#}");
        assert_eq!(body["sessionId"], session.as_str());
        body["runId"].as_str().unwrap().parse().unwrap()
    }

    /// Waits until `GET /runs/{id}` says this status.
    pub(crate) async fn reaches(&self, run: RunId, status: &str) -> Value {
        let path = format!("/runs/{run}");
        let ask = async || self.server.get(&path).await.1;
        wait_for(DEADLINE, ask, |run| run["status"] == status).await
    }

    /// Waits until this many envelopes of a run are recorded.
    pub(crate) async fn has_recorded(&self, run: RunId, envelopes: usize) {
        let ask = async || self.store.list_raw_by_run(run, 0, 100_000).await.unwrap().len();
        wait_for(DEADLINE, ask, |count| *count >= envelopes).await;
    }

    /// How many events are recorded over all runs.
    pub(crate) async fn events(&self) -> i64 {
        self.store.feed_end().await.unwrap_or_default()
    }

    /// Waits until this many events are recorded over all runs.
    pub(crate) async fn has_events(&self, events: i64) {
        wait_for(DEADLINE, async || self.events().await, |now| *now >= events).await;
    }

    /// Every accepted message is recorded once, in order, and nothing is unsound.
    pub(crate) async fn is_whole(&self, run: RunId, accepted: &[String]) {
        let raw = self.store.list_raw_by_run(run, 0, 1_000_000).await.unwrap();
        let ids: Vec<&str> = raw.iter().map(|raw| raw.envelope.message_id.as_str()).collect();
        assert_eq!(ids, accepted, "run {run}");
        let found = integrity::check(&self.store, run).await.unwrap();
        assert!(found.is_sound(), "run {run}: {found:#?}");
        assert_eq!(found.gaps, []);
    }
}

/// The body of `POST /runs`.
pub(crate) fn descriptor(session: &SessionId, mode: &str) -> Value {
    json!({
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
    })
}

/// A Decision that goes on until it is ended.
pub(crate) struct Talk {
    pub(crate) session: SessionId,
    pub(crate) accepted: Vec<String>,
}

impl Talk {
    pub(crate) async fn open(cast: &Cast) -> Self {
        let session = SessionId::random();
        let spec =
            SessionSpec::new(message::DECISION, &["alice", "bob", "carol"]).with_id(&session);
        let accepted = vec![cast.alice.start_session(&spec).await];
        let mut talk = Self { session, accepted };
        talk.say(cast, message::decision::proposal("p1", "deploy")).await;
        talk
    }

    pub(crate) async fn say(&mut self, cast: &Cast, what: Message) {
        self.accepted.push(cast.alice.say(&self.session, message::DECISION, what).await);
    }

    pub(crate) async fn evaluate(&mut self, cast: &Cast) {
        self.say(cast, message::decision::evaluation("p1", "REVIEW", 0.5)).await;
    }

    pub(crate) async fn end(&mut self, cast: &Cast) {
        self.say(cast, message::decision::vote("p1", "APPROVE")).await;
        let commitment = message::commitment("c1", "decision.selected", Outcome::Positive);
        self.say(cast, commitment).await;
    }
}
