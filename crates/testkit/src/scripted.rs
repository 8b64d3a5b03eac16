//! A runtime that does what a test tells it: the same gRPC service in this process, with faults.
//!
//! **Invariant:** without a fault it behaves as the real one does towards an observer: a
//! subscription replays what was accepted after its ordinal and then follows, an unknown session
//! is not found, a compacted one says where its history starts again, and a session's end does not
//! end its streams.

#![expect(clippy::expect_used, reason = "a test's failure is a panic")]

mod fault;
mod script;
mod service;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use control_plane_domain::SessionId;
use control_plane_domain::session::SessionState;
use control_plane_runtime::proto;
use control_plane_runtime::proto::macp_runtime_service_server::MacpRuntimeServiceServer;
use control_plane_runtime::{Client, Config};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Identity, Server, ServerTlsConfig};

pub use fault::{Failure, Fault, Then, UnaryFault};

use crate::agent::SessionSpec;
use crate::message::Message;
use crate::receipts;
use crate::runtime::free_port;
use script::Script;
use service::Service;

const BIND_WITHIN: Duration = Duration::from_secs(10);

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub struct ServerTls {
    /// The chain that the server shows.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// The scripted runtime. What it was told survives [`ScriptedRuntime::stop`].
pub struct ScriptedRuntime {
    port: u16,
    tls: Option<ServerTls>,
    script: Arc<Script>,
    /// A tokio runtime of its own, so that stopping it cuts every connection, as a crash does.
    server: Option<tokio::runtime::Runtime>,
}

impl ScriptedRuntime {
    /// Starts on a free port, without sessions.
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    /// The same behind TLS.
    pub async fn start_tls(tls: ServerTls) -> Self {
        Self::start_with(Some(tls)).await
    }

    async fn start_with(tls: Option<ServerTls>) -> Self {
        let script = Arc::new(Script::default());
        let mut scripted = Self { port: free_port(), tls, script, server: None };
        scripted.restart().await;
        scripted
    }

    /// `host:port`; the same after a restart.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The settings of a client for it.
    pub fn client_config(&self) -> Config {
        Config::new(self.address())
    }

    /// A client for it.
    pub fn client(&self) -> Client {
        Client::new(&self.client_config()).expect("the settings are good")
    }

    /// Cuts every connection and takes no more.
    pub fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown_background();
        }
    }

    /// Stops if it runs, and starts again on the same port.
    pub async fn restart(&mut self) {
        self.stop();
        let server = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a tokio runtime can be built");
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let (script, tls) = (Arc::clone(&self.script), self.tls.clone());
        let (bound, ready) = tokio::sync::oneshot::channel();
        server.spawn(async move {
            let deadline = Instant::now() + BIND_WITHIN;
            // The port of the one before is given back when its last task is gone.
            let listener = loop {
                match TcpListener::bind(address).await {
                    Ok(listener) => break listener,
                    Err(error) => assert!(Instant::now() < deadline, "{address}: {error}"),
                }
                sleep(Duration::from_millis(10)).await;
            };
            let mut builder = Server::builder();
            if let Some(tls) = tls {
                let identity = Identity::from_pem(tls.certificate, tls.key);
                let config = ServerTlsConfig::new().identity(identity);
                builder = builder.tls_config(config).expect("the certificate is good");
            }
            let heard = Arc::clone(&script);
            let service = MacpRuntimeServiceServer::with_interceptor(
                Service::new(script),
                move |request: tonic::Request<()>| {
                    heard.hear_trace(request.metadata());
                    Ok(request)
                },
            );
            bound.send(()).expect("somebody waits for the port");
            let serving = builder.add_service(service);
            drop(serving.serve_with_incoming(TcpListenerStream::new(listener)).await);
        });
        self.server = Some(server);
        ready.await.expect("the port can be bound");
    }

    /// A new open session, with its `SessionStart` by `initiator` as the first envelope; told to
    /// the watches. Gives the message id.
    pub fn open_session(&self, spec: &SessionSpec, initiator: &str) -> String {
        self.script.open(spec, initiator)
    }

    /// Accepts an envelope of `sender`; gives its message id.
    pub fn accept(&self, session: &SessionId, sender: &str, message: Message) -> String {
        let mode = self.script.metadata(session).mode;
        self.accept_envelope(
            session,
            crate::agent::envelope(sender, session.as_str(), &mode, message),
        )
    }

    /// Accepts exactly this envelope; gives its message id.
    pub fn accept_envelope(&self, session: &SessionId, envelope: proto::Envelope) -> String {
        let id = envelope.message_id.clone();
        self.script.accept(session, envelope);
        id
    }

    /// Accepts the `Commitment` that resolves the session; the watches are told at once, and
    /// there is an unsigned receipt in the standard modes.
    pub fn resolve(&self, session: &SessionId, sender: &str, commitment: Message) -> String {
        if self.script.metadata(session).mode.starts_with("macp.mode.") {
            self.set_receipt(session, receipts::document(session, &commitment.payload));
        }
        let id = self.accept(session, sender, commitment);
        self.set_state(session, SessionState::Resolved);
        id
    }

    /// Moves the session to `state` and tells the watches. Streams don't hear of it.
    pub fn set_state(&self, session: &SessionId, state: SessionState) {
        self.script.set_state(session, state);
    }

    /// Holds back what is accepted from now on: subscribers get it at [`Self::release`] only, so
    /// that a watch overtakes it.
    pub fn hold(&self, session: &SessionId) {
        self.script.session(session, |session| session.held = true);
    }

    /// Lets go of what was held back.
    pub fn release(&self, session: &SessionId) {
        self.script.session(session, |session| session.held = false);
    }

    /// Forgets the history so far: a subscription below its end is told so.
    pub fn compact(&self, session: &SessionId) {
        self.script.session(session, |session| session.base = session.envelopes.len());
    }

    /// Forgets the session; receipts stay.
    pub fn evict(&self, session: &SessionId) {
        self.script.evict(session);
    }

    /// What `GetDecisionReceipt` answers.
    pub fn set_receipt(&self, session: &SessionId, receipt: Value) {
        self.script.set_receipt(session, receipt);
    }

    /// What `GetReceiptKeys` answers: these JWKs. None to begin with.
    pub fn set_receipt_keys(&self, keys: Vec<Value>) {
        self.script.set_receipt_keys(keys);
    }

    /// Changes what `GetSession` says: a runtime that lost its data, other participants.
    pub fn change_metadata(
        &self,
        session: &SessionId,
        change: impl FnOnce(&mut proto::SessionMetadata),
    ) {
        self.script.session(session, |session| change(&mut session.metadata));
    }

    /// The next subscription to `session` gets `fault`; one more call, one more subscription.
    pub fn fail_next_subscription(&self, session: &SessionId, fault: Fault) {
        self.script.plan_fault(session, fault);
    }

    /// Ends the open subscriptions to `session`, without an error.
    pub fn end_streams(&self, session: &SessionId) {
        self.script.session(session, |session| session.generation += 1);
    }

    /// Ends the open watches over sessions as those that were too slow.
    pub fn lag_watches(&self) {
        self.script.lag_watches();
    }

    /// The next call of `method` (`GetSession`, …) goes like this; one more call, one more time.
    pub fn fail_next(&self, method: &'static str, fault: UnaryFault) {
        self.script.plan_unary(method, fault);
    }

    /// `after_sequence` of each subscription to `session` so far.
    pub fn subscriptions(&self, session: &SessionId) -> Vec<u64> {
        self.script.subscriptions(session)
    }

    /// `traceparent` and `tracestate` of each call that came with the first.
    pub fn traces(&self) -> Vec<(String, Option<String>)> {
        self.script.traces()
    }

    /// How many calls of `method` came so far.
    pub fn calls(&self, method: &str) -> usize {
        self.script.calls(method)
    }
}

impl Drop for ScriptedRuntime {
    fn drop(&mut self) {
        self.stop();
    }
}
