//! The calls.
//!
//! **Invariant:** every call, and the opening of every stream, has a deadline. Unary calls have a
//! connection of their own, so that streams can never starve a health check, and the circuit
//! breaker is asked before each; streams pass it by.

mod lifecycle;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use control_plane_domain::breaker::CircuitBreaker;
use control_plane_domain::envelope::{SessionChange, SignalSeen};
use control_plane_domain::receipt::Receipt;
use control_plane_domain::runtime::{
    Manifest, ModeDescriptor, Modes, Root, Runtime, RuntimeError, RuntimeErrorKind, RuntimeInfo,
    SessionPage,
};
use control_plane_domain::session::SessionInfo;
use control_plane_domain::trace::Tracer;
use control_plane_domain::{Envelope, Ordinal, SessionId, SessionState, TraceContext};
use futures_core::stream::BoxStream;
use futures_util::future::{FutureExt, ready};
use futures_util::stream::{self, StreamExt};
use serde_json::Value;
use tokio::sync::oneshot;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::authorized::{Again, Authorized, Credentials};
use crate::config::{Config, ConfigError};
use crate::guard::Guard;
use crate::pool::{Pool, Slot};
use crate::proto::macp_runtime_service_client::MacpRuntimeServiceClient as Stub;
use crate::proto::stream_session_response::Response as Frame;
use crate::stream::{Hold, adapt};
use crate::traced::Traced;
use crate::{convert, error, proto};

const PROTOCOL_VERSION: &str = "1.0";
/// The most that the runtime puts into a page.
const PAGE_SIZE: i32 = 1000;
/// A page may hold 1,000 sessions of 1,000 participants.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// The runtime's default is 1 MiB of payload; operators may raise it.
const MAX_FRAME_BYTES: usize = 16 * 1024 * 1024;

/// A runtime over gRPC. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Client {
    address: String,
    credentials: Credentials,
    timeout: Duration,
    channel: Channel,
    unary: Stub<Authorized>,
    guard: Arc<Guard>,
    streams: Arc<Pool>,
    tracer: Option<Arc<dyn Tracer>>,
    /// What the calls of this clone are part of.
    trace: Option<Traced>,
}

impl Client {
    /// A client that connects when it is first used. Needs a tokio runtime around it.
    ///
    /// # Errors
    /// [`ConfigError`] for what cannot work: the address, the token, the CA file.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let credentials = config.credentials()?;
        let channel = config.unary_endpoint()?.connect_lazy();
        Ok(Self {
            address: config.address.clone(),
            timeout: config.request_timeout,
            unary: unary_stub(&channel, &credentials, None),
            channel,
            credentials,
            guard: Guard::new(config.breaker_threshold, config.breaker_cool_down),
            streams: Pool::new(config.stream_endpoint()?, config.max_streams_per_connection),
            tracer: config.tracer.clone(),
            trace: None,
        })
    }

    /// Makes a unary call, if the circuit breaker lets it through. `answer` does nothing until it
    /// is waited for.
    async fn call<T>(
        &self,
        method: &'static str,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, RuntimeError> {
        let passage = self.guard.admit()?;
        let outcome = self.timed(method, answer).await;
        match &outcome {
            // The runtime was not asked, so this says nothing of it.
            Err(fault) if fault.kind == RuntimeErrorKind::NoCredentials => drop(passage),
            Ok(_) | Err(_) => passage.end(outcome.as_ref().err()),
        }
        outcome
    }

    /// Waits for `answer` until the deadline, and takes its time.
    async fn timed<T>(
        &self,
        method: &'static str,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, RuntimeError> {
        let started = Instant::now();
        let outcome = match tokio::time::timeout(self.timeout, answer).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(error::from_status(&self.address, method, &status)),
            Err(_) => Err(error::deadline(&self.address, method, self.timeout)),
        };
        let status = if outcome.is_ok() { "ok" } else { "error" };
        metrics::histogram!("grpc_call_duration_seconds", "method" => method, "status" => status)
            .record(started.elapsed().as_secs_f64());
        outcome
    }

    /// Opens a stream in `slot`, which is given back when that fails.
    async fn open<T>(
        &self,
        method: &'static str,
        slot: &Slot,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, RuntimeError> {
        let outcome = self.timed(method, answer).await;
        if outcome.is_ok() {
            self.guard.reached();
        }
        if outcome.as_ref().is_err_and(|error| error.kind == RuntimeErrorKind::Timeout) {
            slot.retire_connection();
        }
        outcome
    }

    /// What streams are opened with. A subscription's request is a stream of its own.
    fn stream_stub(&self, slot: &Slot) -> Stub<Authorized> {
        let channel = Authorized::new(slot.channel(), self.credentials.clone(), Again::Never)
            .within(self.trace.clone());
        Stub::new(channel).max_decoding_message_size(MAX_FRAME_BYTES)
    }

    fn hold(&self, method: &'static str, slot: Slot, open: Option<oneshot::Sender<()>>) -> Hold {
        Hold { open, slot, address: self.address.clone(), method }
    }
}

fn unary_stub(
    channel: &Channel,
    credentials: &Credentials,
    trace: Option<Traced>,
) -> Stub<Authorized> {
    let channel = Authorized::new(channel.clone(), credentials.clone(), Again::Once).within(trace);
    Stub::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES)
}

/// We can do all of it; only the lists that we do not watch are not announced.
fn our_capabilities() -> proto::Capabilities {
    proto::Capabilities {
        sessions: Some(proto::SessionsCapability {
            stream: true,
            list_sessions: true,
            watch_sessions: true,
        }),
        cancellation: Some(proto::CancellationCapability { cancel_session: true }),
        progress: Some(proto::ProgressCapability { progress: true }),
        manifest: Some(proto::ManifestCapability { get_manifest: true }),
        mode_registry: Some(proto::ModeRegistryCapability {
            list_modes: true,
            list_changed: false,
        }),
        roots: Some(proto::RootsCapability { list_roots: true, list_changed: false }),
        ..proto::Capabilities::default()
    }
}

#[async_trait]
impl Runtime for Client {
    fn address(&self) -> String {
        self.address.clone()
    }

    fn breaker(&self) -> Option<&dyn CircuitBreaker> {
        Some(&*self.guard)
    }

    fn within(&self, trace: &TraceContext) -> Option<Arc<dyn Runtime>> {
        let (tracer, parent) = (self.tracer.clone()?, trace.clone());
        let traced = Traced { tracer, parent, timeout: self.timeout };
        let mut within = self.clone();
        within.unary = unary_stub(&self.channel, &self.credentials, Some(traced.clone()));
        within.trace = Some(traced);
        Some(Arc::new(within))
    }

    async fn initialize(&self) -> Result<RuntimeInfo, RuntimeError> {
        let request = proto::InitializeRequest {
            supported_protocol_versions: vec![PROTOCOL_VERSION.to_owned()],
            client_info: Some(proto::ClientInfo {
                name: "macp-control-plane".to_owned(),
                title: "macp-control-plane".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                description: "Observes and records coordination runs".to_owned(),
                website_url: String::new(),
            }),
            capabilities: Some(our_capabilities()),
        };
        let mut stub = self.unary.clone();
        let answer = self.call("Initialize", stub.initialize(Request::new(request))).await?;
        Ok(convert::runtime_info(answer))
    }

    async fn get_session(&self, id: &SessionId) -> Result<SessionInfo, RuntimeError> {
        let request = proto::GetSessionRequest { session_id: id.as_str().to_owned() };
        let mut stub = self.unary.clone();
        let answer = self.call("GetSession", stub.get_session(Request::new(request))).await?;
        let metadata = answer.metadata.ok_or_else(|| error::malformed("GetSession", "session"))?;
        Ok(convert::session(metadata))
    }

    async fn list_sessions(&self, page_token: Option<&str>) -> Result<SessionPage, RuntimeError> {
        let request = proto::ListSessionsRequest {
            page_size: PAGE_SIZE,
            page_token: page_token.unwrap_or_default().to_owned(),
        };
        let mut stub = self.unary.clone();
        let answer = self.call("ListSessions", stub.list_sessions(Request::new(request))).await?;
        Ok(SessionPage {
            sessions: answer.sessions.into_iter().map(convert::session).collect(),
            next_page_token: Some(answer.next_page_token).filter(|token| !token.is_empty()),
        })
    }

    async fn watch_sessions(
        &self,
    ) -> Result<BoxStream<'static, Result<SessionChange, RuntimeError>>, RuntimeError> {
        const METHOD: &str = "WatchSessions";
        let slot = self.streams.acquire();
        let mut stub = self.stream_stub(&slot);
        let request = Request::new(proto::WatchSessionsRequest {});
        let streaming = self.open(METHOD, &slot, stub.watch_sessions(request)).await?;
        Ok(adapt(streaming, self.hold(METHOD, slot, None), |wire| {
            wire.event.and_then(convert::session_change).map(Ok)
        }))
    }

    async fn watch_signals(
        &self,
    ) -> Result<BoxStream<'static, Result<SignalSeen, RuntimeError>>, RuntimeError> {
        const METHOD: &str = "WatchSignals";
        let slot = self.streams.acquire();
        let mut stub = self.stream_stub(&slot);
        let request = Request::new(proto::WatchSignalsRequest {});
        let streaming = self.open(METHOD, &slot, stub.watch_signals(request)).await?;
        Ok(adapt(streaming, self.hold(METHOD, slot, None), |wire| {
            let sender_authenticated = wire.sender_authenticated;
            wire.envelope.map(|envelope| {
                Ok(SignalSeen { envelope: convert::envelope(envelope), sender_authenticated })
            })
        }))
    }

    /// What the runtime thinks of the subscription (not found, forbidden, compacted) comes as the
    /// stream's first item: it answers a subscription only by what it then sends.
    async fn subscribe(
        &self,
        id: &SessionId,
        after: Ordinal,
    ) -> Result<BoxStream<'static, Result<Envelope, RuntimeError>>, RuntimeError> {
        const METHOD: &str = "StreamSession";
        let slot = self.streams.acquire();
        let mut stub = self.stream_stub(&slot);
        let frame = proto::StreamSessionRequest {
            envelope: None,
            subscribe_session_id: id.as_str().to_owned(),
            after_sequence: u64::try_from(after).unwrap_or_default(),
        };
        // One frame, and then nothing until the stream is dropped. (A channel would keep room for
        // 32 frames.)
        let (open, closed) = oneshot::channel();
        let until_closed = closed.into_stream().filter_map(|_closed| ready(None));
        let request = Request::new(stream::iter([frame]).chain(until_closed));
        let streaming = self.open(METHOD, &slot, stub.stream_session(request)).await?;
        let id = id.clone();
        Ok(adapt(streaming, self.hold(METHOD, slot, Some(open)), move |wire| {
            match wire.response? {
                Frame::Error(frame) => Some(Err(error::from_frame(&frame))),
                Frame::Envelope(envelope) => {
                    let ours = envelope.session_id.is_empty() || envelope.session_id == id.as_str();
                    ours.then(|| Ok(convert::envelope(envelope)))
                }
            }
        }))
    }

    async fn decision_receipt(&self, id: &SessionId) -> Result<Receipt, RuntimeError> {
        const METHOD: &str = "GetDecisionReceipt";
        let request = proto::GetDecisionReceiptRequest { session_id: id.as_str().to_owned() };
        let mut stub = self.unary.clone();
        let answer = self.call(METHOD, stub.get_decision_receipt(Request::new(request))).await?;
        Receipt::parse(answer.receipt_json)
            .ok_or_else(|| error::malformed(METHOD, "receipt that is JSON"))
    }

    async fn receipt_keys(&self) -> Result<Value, RuntimeError> {
        const METHOD: &str = "GetReceiptKeys";
        let mut stub = self.unary.clone();
        let request = Request::new(proto::GetReceiptKeysRequest {});
        let answer = self.call(METHOD, stub.get_receipt_keys(request)).await?;
        serde_json::from_str(&answer.jwks_json)
            .map_err(|_| error::malformed(METHOD, "key set that is JSON"))
    }

    async fn cancel_session(
        &self,
        id: &SessionId,
        reason: &str,
    ) -> Result<SessionState, RuntimeError> {
        self.cancel(id, reason).await
    }

    async fn suspend_session(
        &self,
        id: &SessionId,
        reason: &str,
    ) -> Result<SessionState, RuntimeError> {
        self.suspend(id, reason).await
    }

    async fn resume_session(
        &self,
        id: &SessionId,
        reason: &str,
    ) -> Result<SessionState, RuntimeError> {
        self.resume(id, reason).await
    }

    async fn manifest(&self) -> Result<Manifest, RuntimeError> {
        let request = proto::GetManifestRequest::default();
        let mut stub = self.unary.clone();
        let answer = self.call("GetManifest", stub.get_manifest(Request::new(request))).await?;
        let manifest =
            answer.manifest.ok_or_else(|| error::malformed("GetManifest", "manifest"))?;
        Ok(convert::manifest(manifest))
    }

    async fn modes(&self, which: Modes) -> Result<Vec<ModeDescriptor>, RuntimeError> {
        let mut stub = self.unary.clone();
        let modes = match which {
            Modes::Standard => {
                let request = Request::new(proto::ListModesRequest {});
                self.call("ListModes", stub.list_modes(request)).await?.modes
            }
            Modes::Extension => {
                let request = Request::new(proto::ListExtModesRequest {});
                self.call("ListExtModes", stub.list_ext_modes(request)).await?.modes
            }
        };
        Ok(modes.into_iter().map(convert::mode).collect())
    }

    async fn roots(&self) -> Result<Vec<Root>, RuntimeError> {
        let mut stub = self.unary.clone();
        let request = Request::new(proto::ListRootsRequest {});
        let answer = self.call("ListRoots", stub.list_roots(request)).await?;
        Ok(answer.roots.into_iter().map(convert::root).collect())
    }
}
