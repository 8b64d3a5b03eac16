//! A server on a port of its own, and a log to serve.

mod journal;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::web;
use async_trait::async_trait;
use control_plane_domain::descriptor::RunDescriptor;
use control_plane_domain::outbound::{Answer, Call, Outbound, OutboundError};
use control_plane_domain::receipt::Receipt;
use control_plane_domain::runtime::{
    Manifest, ModeDescriptor, Modes, Root, Runtime, RuntimeError, RuntimeErrorKind, RuntimeInfo,
    SessionPage,
};
use control_plane_domain::session::SessionInfo;
use control_plane_domain::{
    Clock, Envelope, Ordinal, Run, RunId, RunState, Session, SessionId, SessionState, SystemClock,
};
use control_plane_http::auth::ApiKeys;
use control_plane_http::{ApiContext, Parts, Settings};
use control_plane_recovery::Engine;
use control_plane_storage::{Config, Store, TailLimits};
use control_plane_testkit::database::TestDb;
use futures_util::stream::BoxStream;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use journal::Journal;

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A running server.
pub(crate) struct Api {
    pub(crate) url: String,
    pub(crate) context: web::Data<ApiContext>,
    pub(crate) store: Store,
    pub(crate) client: reqwest::Client,
    pub(crate) streams: CancellationToken,
    stop: CancellationToken,
    tasks: TaskTracker,
    http: actix_web::dev::ServerHandle,
    pub(crate) database: Arc<TestDb>,
}

/// What a server is made of.
pub(crate) struct Setup {
    pub(crate) database: Arc<TestDb>,
    pub(crate) keys: String,
    pub(crate) settings: Settings,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) tail: TailLimits,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            database: Arc::new(TestDb::sqlite()),
            keys: String::new(),
            settings: Settings::default(),
            clock: Arc::new(SystemClock),
            tail: TailLimits::default(),
        }
    }
}

impl Api {
    /// Without API keys.
    pub(crate) async fn start() -> Self {
        Self::with_keys("").await
    }

    /// With these API keys.
    pub(crate) async fn with_keys(keys: &str) -> Self {
        Self::set(Setup { keys: keys.to_owned(), ..Setup::default() }).await
    }

    /// As wanted.
    pub(crate) async fn set(setup: Setup) -> Self {
        let Setup { database, keys, settings, clock, tail } = setup;
        let store = Store::connect(&Config { tail, ..database.config() }).unwrap();
        let streams = CancellationToken::new();
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let config = control_plane_recovery::Config {
            recovery_enabled: false,
            discovery_enabled: false,
            // Tests put receipts where they are read.
            receipts_enabled: false,
            ..control_plane_recovery::Config::default()
        };
        let engine = Engine::start(
            store.clone(),
            Arc::new(Silent),
            Arc::clone(&clock),
            config,
            stop.clone(),
            tasks.clone(),
        );
        let context = web::Data::new(ApiContext::new(Parts {
            store: store.clone(),
            engine,
            outbound: Arc::new(Mute),
            clock,
            keys: ApiKeys::parse(&keys).unwrap_or_else(|faults| panic!("{faults:?}")),
            settings,
            stop: streams.clone(),
            log_id: store.log_id().await.unwrap(),
            metrics: None,
        }));
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = control_plane_http::server(context.clone(), listener, 1).unwrap();
        let http = server.handle();
        tokio::spawn(server);
        let client = reqwest::Client::new();
        Self { url, context, store, client, streams, stop, tasks, http, database }
    }

    /// Stops in the order of the binary.
    pub(crate) async fn stop(self) {
        self.streams.cancel();
        self.http.stop(true).await;
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    pub(crate) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// `GET`: the status and the body, `null` when it is no JSON.
    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        read(self.client.get(self.at(path)).send().await.unwrap()).await
    }

    /// `DELETE`.
    pub(crate) async fn delete(&self, path: &str) -> (u16, Value) {
        read(self.client.delete(self.at(path)).send().await.unwrap()).await
    }

    /// `POST` of a JSON body.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        read(self.client.post(self.at(path)).json(body).send().await.unwrap()).await
    }
}

pub(crate) async fn read(response: reqwest::Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let kind = response.headers().get("content-type");
    if kind.is_some_and(|kind| kind == "text/event-stream") {
        // It has no end to wait for.
        return (status, Value::Null);
    }
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

/// A descriptor that `POST /runs` takes.
pub(crate) fn descriptor() -> Value {
    json!({
        "mode": "live",
        "runtime": { "kind": "rust" },
        "session": {
            "modeName": "macp.mode.decision.v1",
            "modeVersion": "1.0.0",
            "configurationVersion": "1",
            "ttlMs": 60_000,
            "participants": [{ "id": "alice" }, { "id": "bob" }],
        },
    })
}

pub(crate) fn records(body: &RunDescriptor) -> (Run, Session) {
    let now = SystemClock.now();
    let session_id = SessionId::random();
    let run = Run {
        id: RunId::random(),
        state: RunState::Running,
        mode: body.mode,
        runtime_kind: "rust".to_owned(),
        runtime_version: None,
        session_id: Some(session_id.clone()),
        trace_id: None,
        idempotency_key: None,
        request_hash: None,
        last_seq: 0,
        source_kind: None,
        source_ref: None,
        tags: vec!["test".to_owned()],
        metadata: Map::new(),
        error_code: None,
        error_message: None,
        created_at: now,
        started_at: Some(now),
        ended_at: None,
        updated_at: now,
        archived_at: None,
        parked_reason: None,
        imported_at: None,
    };
    let session = Session {
        run_id: run.id,
        runtime_kind: "rust".to_owned(),
        session_id,
        mode_name: body.session.mode_name.clone(),
        mode_version: body.session.mode_version.clone(),
        configuration_version: body.session.configuration_version.clone(),
        policy_version: "policy.default".to_owned(),
        initiator: None,
        state: SessionState::Open,
        participants: body.participants(),
        context_id: None,
        extension_keys: vec![],
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
    (run, session)
}

/// A runtime that knows its modes and no session.
struct Silent;

/// Reaches nobody.
struct Mute;

#[async_trait]
impl Outbound for Mute {
    async fn post(&self, _call: Call) -> Result<Answer, OutboundError> {
        Err(OutboundError::Forbidden { host: "localhost".to_owned() })
    }
}

fn refuse<T>(kind: RuntimeErrorKind, grpc_code: i32) -> Result<T, RuntimeError> {
    Err(RuntimeError { kind, grpc_code, message: "not here".to_owned() })
}

#[async_trait]
impl Runtime for Silent {
    fn address(&self) -> String {
        "nowhere:1".to_owned()
    }

    async fn initialize(&self) -> Result<RuntimeInfo, RuntimeError> {
        Ok(RuntimeInfo {
            name: "silent".to_owned(),
            version: "0".to_owned(),
            supported_modes: vec!["macp.mode.decision.v1".to_owned()],
            capabilities: Map::new(),
        })
    }

    async fn get_session(&self, _id: &SessionId) -> Result<SessionInfo, RuntimeError> {
        refuse(RuntimeErrorKind::NotFound, 5)
    }

    async fn list_sessions(&self, _page: Option<&str>) -> Result<SessionPage, RuntimeError> {
        Ok(SessionPage { sessions: vec![], next_page_token: None })
    }

    async fn watch_sessions(
        &self,
    ) -> Result<
        BoxStream<'static, Result<control_plane_domain::envelope::SessionChange, RuntimeError>>,
        RuntimeError,
    > {
        Ok(Box::pin(futures_util::stream::pending()))
    }

    async fn watch_signals(
        &self,
    ) -> Result<
        BoxStream<'static, Result<control_plane_domain::envelope::SignalSeen, RuntimeError>>,
        RuntimeError,
    > {
        Ok(Box::pin(futures_util::stream::pending()))
    }

    async fn subscribe(
        &self,
        _id: &SessionId,
        _after: Ordinal,
    ) -> Result<BoxStream<'static, Result<Envelope, RuntimeError>>, RuntimeError> {
        refuse(RuntimeErrorKind::NotFound, 5)
    }

    async fn decision_receipt(&self, _id: &SessionId) -> Result<Receipt, RuntimeError> {
        refuse(RuntimeErrorKind::NotFound, 5)
    }

    async fn receipt_keys(&self) -> Result<Value, RuntimeError> {
        Ok(json!({ "keys": [] }))
    }

    async fn cancel_session(&self, _: &SessionId, _: &str) -> Result<SessionState, RuntimeError> {
        refuse(RuntimeErrorKind::NotFound, 5)
    }

    async fn suspend_session(&self, _: &SessionId, _: &str) -> Result<SessionState, RuntimeError> {
        refuse(RuntimeErrorKind::Forbidden, 7)
    }

    async fn resume_session(&self, _: &SessionId, _: &str) -> Result<SessionState, RuntimeError> {
        refuse(RuntimeErrorKind::Forbidden, 7)
    }

    async fn manifest(&self) -> Result<Manifest, RuntimeError> {
        Ok(Manifest {
            agent_id: String::new(),
            title: "Silent".to_owned(),
            description: String::new(),
            supported_modes: vec![],
            metadata: Map::new(),
        })
    }

    async fn modes(&self, which: Modes) -> Result<Vec<ModeDescriptor>, RuntimeError> {
        let mode = match which {
            Modes::Standard => "macp.mode.decision.v1",
            Modes::Extension => "ext.multi_round.v1",
        };
        Ok(vec![ModeDescriptor {
            mode: mode.to_owned(),
            mode_version: "1.0.0".to_owned(),
            title: String::new(),
            description: String::new(),
            determinism_class: String::new(),
            participant_model: String::new(),
            message_types: vec![],
            terminal_message_types: vec![],
            schema_uris: Map::new(),
        }])
    }

    async fn roots(&self) -> Result<Vec<Root>, RuntimeError> {
        refuse(RuntimeErrorKind::Unavailable, 14)
    }
}
