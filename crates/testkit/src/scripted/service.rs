//! The gRPC face of the script.
//!
//! **Invariant:** it holds no state of its own but each stream's cursor.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;

use control_plane_domain::{SessionId, SessionState};
use control_plane_runtime::proto::macp_runtime_service_server::MacpRuntimeService;
use control_plane_runtime::proto::stream_session_response::Response as Frame;
use control_plane_runtime::proto::{self, StreamSessionResponse, WatchSessionsResponse};
use futures_util::StreamExt;
use futures_util::stream::unfold;
use tokio::sync::broadcast;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use super::fault::{Failure, Fault, Then, UnaryFault};
use super::script::Script;
use crate::message;

pub(super) struct Service {
    script: Arc<Script>,
}

impl Service {
    pub(super) fn new(script: Arc<Script>) -> Self {
        Self { script }
    }

    /// Moves a session on, for whoever asks, and acknowledges it.
    fn change(&self, id: &str, state: SessionState) -> Result<proto::Ack, Status> {
        if self.script.find(id).is_none() {
            return Err(Failure::NotFound.status());
        }
        self.script.set_state(&SessionId::trusted(id.to_owned()), state);
        let session_state = self.script.find(id).map_or(0, |metadata| metadata.state);
        Ok(proto::Ack { ok: true, session_state, ..proto::Ack::default() })
    }

    /// Lets a planned fault happen to this call.
    async fn enter(&self, method: &str) -> Result<(), Status> {
        match self.script.called(method) {
            None => Ok(()),
            Some(UnaryFault::Fail(failure)) => Err(failure.status()),
            Some(UnaryFault::Delay(duration)) => {
                tokio::time::sleep(duration).await;
                Ok(())
            }
            Some(UnaryFault::Hang) => pending().await,
        }
    }
}

/// One subscription.
struct Subscription {
    script: Arc<Script>,
    /// Held, so that the caller's closing of its side ends the stream.
    inbound: Streaming<proto::StreamSessionRequest>,
    session: String,
    /// Envelopes delivered, by their place in the session.
    cursor: usize,
    generation: u64,
    delivered: usize,
    fault: Option<Fault>,
    /// To be delivered again.
    repeat: VecDeque<proto::Envelope>,
    last: Vec<proto::Envelope>,
    over: bool,
}

enum Step {
    Deliver(proto::Envelope),
    Wait,
    End,
}

impl Subscription {
    async fn next(&mut self) -> Option<Result<StreamSessionResponse, Status>> {
        if self.over {
            return None;
        }
        let mut changes = self.script.changes();
        loop {
            if let Some(envelope) = self.repeat.pop_front() {
                return Some(Ok(frame(Frame::Envelope(envelope))));
            }
            if let Some(fault) = self.fault.take_if(|fault| self.delivered >= fault.after) {
                match fault.then {
                    Then::End => return None,
                    Then::Stall => pending().await,
                    Then::Repeat(count) => {
                        let skip = self.last.len().saturating_sub(count);
                        self.repeat = self.last.iter().skip(skip).cloned().collect();
                        continue;
                    }
                    Then::Fail(failure) => return self.fail(&failure),
                    Then::Tell(failure) => return Some(Ok(self.tell(&failure))),
                }
            }
            match self.step() {
                Step::Deliver(envelope) => {
                    self.cursor += 1;
                    self.delivered += 1;
                    self.last.push(envelope.clone());
                    return Some(Ok(frame(Frame::Envelope(envelope))));
                }
                Step::End => return None,
                Step::Wait => {}
            }
            tokio::select! {
                changed = changes.changed() => changed.ok()?,
                frame = self.inbound.message() => match frame {
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return None,
                },
            }
        }
    }

    fn step(&self) -> Step {
        let step = self.script.look(&self.session, |session| {
            if session.generation != self.generation {
                return Step::End;
            }
            let mut visible = session.envelopes.iter().take(session.visible);
            visible.nth(self.cursor).cloned().map_or(Step::Wait, Step::Deliver)
        });
        // An evicted session is not heard of again, and its streams stay open.
        step.unwrap_or(Step::Wait)
    }

    fn fail(&mut self, failure: &Failure) -> Option<Result<StreamSessionResponse, Status>> {
        self.over = true;
        Some(Err(failure.status()))
    }

    fn tell(&self, failure: &Failure) -> StreamSessionResponse {
        frame(Frame::Error(proto::MacpError {
            code: failure.codes().0.to_owned(),
            message: "scripted".to_owned(),
            session_id: self.session.clone(),
            message_id: String::new(),
            details: failure.details(),
        }))
    }
}

fn frame(frame: Frame) -> StreamSessionResponse {
    StreamSessionResponse { response: Some(frame) }
}

#[tonic::async_trait]
impl MacpRuntimeService for Service {
    async fn initialize(
        &self,
        _: Request<proto::InitializeRequest>,
    ) -> Result<Response<proto::InitializeResponse>, Status> {
        self.enter("Initialize").await?;
        let modes = [
            message::MULTI_ROUND,
            message::DECISION,
            message::HANDOFF,
            message::PROPOSAL,
            message::QUORUM,
            message::TASK,
        ];
        Ok(Response::new(proto::InitializeResponse {
            selected_protocol_version: "1.0".to_owned(),
            runtime_info: Some(proto::RuntimeInfo {
                name: "scripted-runtime".to_owned(),
                version: "0.0.0".to_owned(),
                ..proto::RuntimeInfo::default()
            }),
            capabilities: Some(proto::Capabilities::default()),
            supported_modes: modes.map(str::to_owned).to_vec(),
            instructions: String::new(),
        }))
    }

    async fn get_session(
        &self,
        request: Request<proto::GetSessionRequest>,
    ) -> Result<Response<proto::GetSessionResponse>, Status> {
        self.enter("GetSession").await?;
        match self.script.find(&request.get_ref().session_id) {
            Some(metadata) => {
                Ok(Response::new(proto::GetSessionResponse { metadata: Some(metadata) }))
            }
            None => Err(Failure::NotFound.status()),
        }
    }

    async fn list_sessions(
        &self,
        request: Request<proto::ListSessionsRequest>,
    ) -> Result<Response<proto::ListSessionsResponse>, Status> {
        self.enter("ListSessions").await?;
        let proto::ListSessionsRequest { page_size, page_token } = request.into_inner();
        let size = usize::try_from(page_size).ok().filter(|&size| size > 0).unwrap_or(100);
        let (sessions, next_page_token) = self.script.page(&page_token, size.min(1000));
        Ok(Response::new(proto::ListSessionsResponse { sessions, next_page_token }))
    }

    async fn get_decision_receipt(
        &self,
        request: Request<proto::GetDecisionReceiptRequest>,
    ) -> Result<Response<proto::GetDecisionReceiptResponse>, Status> {
        self.enter("GetDecisionReceipt").await?;
        let id = &request.get_ref().session_id;
        match (self.script.receipt(id), self.script.find(id)) {
            (Some(receipt), _) => Ok(Response::new(proto::GetDecisionReceiptResponse {
                receipt_json: receipt.to_string(),
            })),
            (None, Some(_)) => Err(Failure::ReceiptUnavailable.status()),
            (None, None) => Err(Failure::NotFound.status()),
        }
    }

    async fn get_receipt_keys(
        &self,
        _: Request<proto::GetReceiptKeysRequest>,
    ) -> Result<Response<proto::GetReceiptKeysResponse>, Status> {
        self.enter("GetReceiptKeys").await?;
        let jwks_json = self.script.receipt_keys().to_string();
        Ok(Response::new(proto::GetReceiptKeysResponse { jwks_json }))
    }

    async fn cancel_session(
        &self,
        request: Request<proto::CancelSessionRequest>,
    ) -> Result<Response<proto::CancelSessionResponse>, Status> {
        self.enter("CancelSession").await?;
        let ack = self.change(&request.get_ref().session_id, SessionState::Cancelled)?;
        Ok(Response::new(proto::CancelSessionResponse { ack: Some(ack) }))
    }

    async fn suspend_session(
        &self,
        request: Request<proto::SuspendSessionRequest>,
    ) -> Result<Response<proto::SuspendSessionResponse>, Status> {
        self.enter("SuspendSession").await?;
        let ack = self.change(&request.get_ref().session_id, SessionState::Suspended)?;
        Ok(Response::new(proto::SuspendSessionResponse { ack: Some(ack) }))
    }

    async fn resume_session(
        &self,
        request: Request<proto::ResumeSessionRequest>,
    ) -> Result<Response<proto::ResumeSessionResponse>, Status> {
        self.enter("ResumeSession").await?;
        let ack = self.change(&request.get_ref().session_id, SessionState::Open)?;
        Ok(Response::new(proto::ResumeSessionResponse { ack: Some(ack) }))
    }

    async fn get_manifest(
        &self,
        _: Request<proto::GetManifestRequest>,
    ) -> Result<Response<proto::GetManifestResponse>, Status> {
        self.enter("GetManifest").await?;
        let manifest = proto::AgentManifest {
            agent_id: "scripted-runtime".to_owned(),
            title: "Scripted runtime".to_owned(),
            ..proto::AgentManifest::default()
        };
        Ok(Response::new(proto::GetManifestResponse { manifest: Some(manifest) }))
    }

    async fn list_modes(
        &self,
        _: Request<proto::ListModesRequest>,
    ) -> Result<Response<proto::ListModesResponse>, Status> {
        self.enter("ListModes").await?;
        Ok(Response::new(proto::ListModesResponse::default()))
    }

    async fn list_ext_modes(
        &self,
        _: Request<proto::ListExtModesRequest>,
    ) -> Result<Response<proto::ListExtModesResponse>, Status> {
        self.enter("ListExtModes").await?;
        Ok(Response::new(proto::ListExtModesResponse::default()))
    }

    async fn list_roots(
        &self,
        _: Request<proto::ListRootsRequest>,
    ) -> Result<Response<proto::ListRootsResponse>, Status> {
        self.enter("ListRoots").await?;
        Ok(Response::new(proto::ListRootsResponse::default()))
    }

    async fn stream_session(
        &self,
        request: Request<Streaming<proto::StreamSessionRequest>>,
    ) -> Result<Response<BoxStream<StreamSessionResponse>>, Status> {
        self.enter("StreamSession").await?;
        let mut inbound = request.into_inner();
        let script = Arc::clone(&self.script);
        let opening = async move {
            let Some(first) = inbound.message().await? else {
                return Err(Status::cancelled("no subscription came"));
            };
            let (session, after) = (first.subscribe_session_id, first.after_sequence);
            let fault = script.subscribed(&session, after);
            let known = script.look(&session, |found| (found.base, found.generation));
            let Some((base, generation)) = known else {
                return Err(Failure::NotFound.status());
            };
            let cursor = usize::try_from(after).unwrap_or(usize::MAX);
            if cursor < base {
                let lowest = u64::try_from(base).unwrap_or(u64::MAX);
                return Err(Failure::HistoryUnavailable(lowest).status());
            }
            let delivered = 0;
            let (repeat, last, over) = (VecDeque::new(), Vec::new(), false);
            Ok(Subscription {
                script,
                inbound,
                session,
                cursor,
                generation,
                delivered,
                fault,
                repeat,
                last,
                over,
            })
        };
        // As at the real runtime, the answer's head comes before the first frame is read.
        let stream = futures_util::stream::once(opening).flat_map(|opened| match opened {
            Err(status) => futures_util::stream::iter([Err(status)]).boxed(),
            Ok(subscription) => unfold(subscription, |mut subscription| async move {
                subscription.next().await.map(|item| (item, subscription))
            })
            .boxed(),
        });
        Ok(Response::new(stream.boxed()))
    }

    async fn watch_sessions(
        &self,
        _: Request<proto::WatchSessionsRequest>,
    ) -> Result<Response<BoxStream<WatchSessionsResponse>>, Status> {
        self.enter("WatchSessions").await?;
        let (initial, live) = self.script.lifecycle();
        let initial = futures_util::stream::iter(initial);
        let live = unfold(Some(live), |live| async move {
            let mut live = live?;
            loop {
                match live.recv().await {
                    Ok(Some(event)) => return Some((Ok(event), Some(live))),
                    Ok(None) => return Some((Err(Failure::Lagged.status()), None)),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        });
        let events = initial.map(Ok).chain(live);
        let responses =
            events.map(|event| event.map(|event| WatchSessionsResponse { event: Some(event) }));
        Ok(Response::new(responses.boxed()))
    }
}
