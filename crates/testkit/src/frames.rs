//! A runtime between a client and the real one, which edits what a session's stream delivers.
//!
//! **Invariant:** without an edit it passes on every call, every frame and every error as it is; an
//! edit concerns one frame of one session, by its ordinal at the real runtime, and is used up.

#![expect(clippy::expect_used, reason = "a test's failure is a panic")]

use std::collections::{HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use control_plane_domain::{Ordinal, SessionId};
use control_plane_runtime::Config;
use control_plane_runtime::proto;
use control_plane_runtime::proto::macp_runtime_service_client::MacpRuntimeServiceClient as Stub;
use control_plane_runtime::proto::macp_runtime_service_server::{
    MacpRuntimeService, MacpRuntimeServiceServer,
};
use control_plane_runtime::proto::stream_session_response::Response as Frame;
use futures_util::StreamExt;
use futures_util::stream::unfold;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::task::AbortOnDropHandle;
use tonic::codegen::BoxStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit {
    /// It never arrives.
    Drop,
    /// It arrives twice.
    Double,
    /// It arrives after the one that follows it.
    Swap,
}

/// An edit that waits for its frame.
#[derive(Debug, Clone, Copy)]
struct Planned {
    ordinal: Ordinal,
    edit: Edit,
    times: usize,
}

/// What is shared by all streams.
struct Shared {
    /// By session.
    planned: Mutex<HashMap<String, Vec<Planned>>>,
    /// How often streams were cut.
    cuts: watch::Sender<u64>,
}

impl Shared {
    /// Uses up an edit of this frame.
    fn take(&self, session: &str, ordinal: Ordinal) -> Option<Edit> {
        let mut planned = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        let edits = planned.get_mut(session)?;
        let one = edits.iter_mut().find(|one| one.ordinal == ordinal && one.times > 0)?;
        one.times -= 1;
        Some(one.edit)
    }
}

/// See the module.
pub struct FrameProxy {
    port: u16,
    shared: Arc<Shared>,
    _serving: AbortOnDropHandle<()>,
}

impl FrameProxy {
    /// In front of the runtime at `host:port`, which need not be there yet.
    pub async fn to(runtime: impl Into<String>) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{}", runtime.into()));
        let stub = Stub::new(endpoint.expect("an address of the form host:port").connect_lazy());
        let shared = Arc::new(Shared { planned: Mutex::default(), cuts: watch::channel(0).0 });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let port = listener.local_addr().expect("a bound address").port();
        let service = Service { stub, shared: Arc::clone(&shared) };
        let serving = tokio::spawn(async move {
            let server = Server::builder().add_service(MacpRuntimeServiceServer::new(service));
            drop(server.serve_with_incoming(TcpListenerStream::new(listener)).await);
        });
        Self { port, shared, _serving: AbortOnDropHandle::new(serving) }
    }

    /// The settings of a client that reaches the runtime through it.
    pub fn client_config(&self, direct: Config) -> Config {
        Config { address: format!("127.0.0.1:{}", self.port), ..direct }
    }

    /// The next `times` times that this frame of the session is delivered, this becomes of it.
    pub fn edit(&self, session: &SessionId, ordinal: Ordinal, edit: Edit, times: usize) {
        let mut planned = self.shared.planned.lock().unwrap_or_else(PoisonError::into_inner);
        let edits = planned.entry(session.as_str().to_owned()).or_default();
        edits.push(Planned { ordinal, edit, times });
    }

    /// Ends every stream of a session that is open, without an error.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }
}

struct Service {
    stub: Stub<Channel>,
    shared: Arc<Shared>,
}

/// A stream of frames on its way.
struct Passing {
    frames: Streaming<proto::StreamSessionResponse>,
    shared: Arc<Shared>,
    cuts: watch::Receiver<u64>,
    /// Session and ordinal of what was subscribed to, once that was said.
    asked: watch::Receiver<Option<(String, Ordinal)>>,
    /// How many envelopes the runtime has delivered.
    count: Ordinal,
    /// To be delivered next.
    ready: VecDeque<proto::StreamSessionResponse>,
    /// To be delivered after the next one.
    held: Option<proto::StreamSessionResponse>,
}

impl Passing {
    async fn next(&mut self) -> Option<Result<proto::StreamSessionResponse, Status>> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some(Ok(frame));
            }
            let frame = tokio::select! {
                _ = self.cuts.changed() => return None,
                frame = self.frames.message() => match frame {
                    Ok(frame) => frame?,
                    Err(status) => return Some(Err(status)),
                },
            };
            if !matches!(frame.response, Some(Frame::Envelope(_))) {
                return Some(Ok(frame));
            }
            self.count += 1;
            self.pass(frame);
        }
    }

    fn pass(&mut self, frame: proto::StreamSessionResponse) {
        let asked = self.asked.borrow().clone();
        let edit =
            asked.and_then(|(session, after)| self.shared.take(&session, after + self.count));
        match edit {
            Some(Edit::Drop) => {}
            Some(Edit::Double) => self.ready.extend([frame.clone(), frame]),
            Some(Edit::Swap) => {
                self.held = Some(frame);
                return;
            }
            None => self.ready.push_back(frame),
        }
        self.ready.extend(self.held.take());
    }
}

/// Passes on what a client says in a session's stream, until it is gone or nobody listens.
async fn carry(
    mut inbound: Streaming<proto::StreamSessionRequest>,
    say: mpsc::Sender<proto::StreamSessionRequest>,
    asked: watch::Sender<Option<(String, Ordinal)>>,
) {
    while let Ok(Some(said)) = inbound.message().await {
        if !said.subscribe_session_id.is_empty() {
            let after = Ordinal::try_from(said.after_sequence).unwrap_or(Ordinal::MAX);
            asked.send_replace(Some((said.subscribe_session_id.clone(), after)));
        }
        if say.send(said).await.is_err() {
            return;
        }
    }
}

/// Passes calls on as they are.
macro_rules! pass_on {
    ($($name:ident: $request:ident => $response:ident;)*) => {
        #[tonic::async_trait]
        impl MacpRuntimeService for Service {
            $(
                async fn $name(
                    &self,
                    request: Request<proto::$request>,
                ) -> Result<Response<proto::$response>, Status> {
                    self.stub.clone().$name(request).await
                }
            )*

            async fn watch_sessions(
                &self,
                request: Request<proto::WatchSessionsRequest>,
            ) -> Result<Response<BoxStream<proto::WatchSessionsResponse>>, Status> {
                let answer = self.stub.clone().watch_sessions(request).await?;
                Ok(answer.map(StreamExt::boxed))
            }

            async fn watch_signals(
                &self,
                request: Request<proto::WatchSignalsRequest>,
            ) -> Result<Response<BoxStream<proto::WatchSignalsResponse>>, Status> {
                let answer = self.stub.clone().watch_signals(request).await?;
                Ok(answer.map(StreamExt::boxed))
            }

            async fn stream_session(
                &self,
                request: Request<Streaming<proto::StreamSessionRequest>>,
            ) -> Result<Response<BoxStream<proto::StreamSessionResponse>>, Status> {
                let (metadata, extensions, inbound) = request.into_parts();
                let (asked, heard) = watch::channel(None);
                let (say, outbound) = mpsc::channel(4);
                tokio::spawn(carry(inbound, say, asked));
                let outbound = ReceiverStream::new(outbound);
                let request = Request::from_parts(metadata, extensions, outbound);
                let cuts = self.shared.cuts.subscribe();
                let answer = self.stub.clone().stream_session(request).await?;
                let shared = Arc::clone(&self.shared);
                Ok(answer.map(|frames| {
                    let passing = Passing {
                        frames,
                        shared,
                        cuts,
                        asked: heard,
                        count: 0,
                        ready: VecDeque::new(),
                        held: None,
                    };
                    unfold(passing, |mut passing| async move {
                        passing.next().await.map(|frame| (frame, passing))
                    })
                    .boxed()
                }))
            }
        }
    };
}

pass_on! {
    initialize: InitializeRequest => InitializeResponse;
    get_session: GetSessionRequest => GetSessionResponse;
    list_sessions: ListSessionsRequest => ListSessionsResponse;
    get_decision_receipt: GetDecisionReceiptRequest => GetDecisionReceiptResponse;
    cancel_session: CancelSessionRequest => CancelSessionResponse;
    suspend_session: SuspendSessionRequest => SuspendSessionResponse;
    resume_session: ResumeSessionRequest => ResumeSessionResponse;
    get_manifest: GetManifestRequest => GetManifestResponse;
    list_modes: ListModesRequest => ListModesResponse;
    list_ext_modes: ListExtModesRequest => ListExtModesResponse;
    list_roots: ListRootsRequest => ListRootsResponse;
}
