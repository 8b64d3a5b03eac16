//! Real gRPC agents: they start sessions and say things, each as itself.
//!
//! **Invariant:** what was not accepted is a panic with the runtime's reason, so that a test never
//! goes on with half a conversation. [`Agent::try_say`] is for refusals that a test wants to see.

#![expect(clippy::expect_used, reason = "a test's failure is a panic")]

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use control_plane_domain::{Clock, SessionId, SystemClock};
use control_plane_runtime::proto;
use control_plane_runtime::proto::macp_runtime_service_client::MacpRuntimeServiceClient as Stub;
use prost::Message as _;
use serde_json::Value;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use uuid::Uuid;

use crate::message::{self, Message};
use crate::runtime::agent_token;

const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A session to start.
#[derive(Debug, Clone)]
pub struct SessionSpec {
    /// Random unless set.
    pub session_id: SessionId,
    /// One of the constants of [`crate::message`].
    pub mode: String,
    /// Who may speak.
    pub participants: Vec<String>,
    /// What it is about.
    pub intent: String,
    /// Empty binds the default policy.
    pub policy_version: String,
    /// How long it may take.
    pub ttl_ms: i64,
    /// Empty for none.
    pub context_id: String,
    /// Opaque to the runtime.
    pub extensions: BTreeMap<String, Vec<u8>>,
}

impl SessionSpec {
    /// A session of `mode` with an hour to live.
    pub fn new(mode: &str, participants: &[&str]) -> Self {
        Self {
            session_id: SessionId::random(),
            mode: mode.to_owned(),
            participants: participants.iter().map(|&name| name.to_owned()).collect(),
            intent: "a test".to_owned(),
            policy_version: String::new(),
            ttl_ms: 3_600_000,
            context_id: String::new(),
            extensions: BTreeMap::new(),
        }
    }

    /// With this id.
    #[must_use]
    pub fn with_id(mut self, id: &SessionId) -> Self {
        self.session_id = id.clone();
        self
    }

    /// The message that starts it.
    pub fn message(&self) -> Message {
        let payload = proto::SessionStartPayload {
            intent: self.intent.clone(),
            participants: self.participants.clone(),
            mode_version: message::MODE_VERSION.to_owned(),
            configuration_version: message::CONFIGURATION_VERSION.to_owned(),
            policy_version: self.policy_version.clone(),
            ttl_ms: self.ttl_ms,
            roots: Vec::new(),
            context_id: self.context_id.clone(),
            extensions: self.extensions.clone().into_iter().collect::<HashMap<_, _>>(),
            max_suspend_ms: 0,
        };
        Message::raw("SessionStart", payload.encode_to_vec())
    }
}

/// One participant, connected.
#[derive(Clone)]
pub struct Agent {
    /// The sender of what it says.
    pub name: String,
    authorization: MetadataValue<Ascii>,
    stub: Stub<Channel>,
}

impl Agent {
    /// Connects to `address` (`host:port`) as `name`.
    pub async fn connect(address: &str, name: &str, token: &str) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .expect("an address of the form host:port")
            .timeout(CALL_TIMEOUT);
        let channel = endpoint.connect().await.expect("the runtime takes connections");
        Self::over(channel, name, token)
    }

    fn over(channel: Channel, name: &str, token: &str) -> Self {
        let authorization = format!("Bearer {token}").parse().expect("a token is a header value");
        Self { name: name.to_owned(), authorization, stub: Stub::new(channel) }
    }

    /// Starts a session; gives the id of the `SessionStart`.
    pub async fn start_session(&self, spec: &SessionSpec) -> String {
        self.say(&spec.session_id, &spec.mode, spec.message()).await
    }

    /// Says something in a session; gives the message's id once it is accepted.
    pub async fn say(&self, session: &SessionId, mode: &str, message: Message) -> String {
        let message_type = message.message_type;
        match self.try_say(session, mode, message).await {
            Ok(ack) => ack.message_id,
            Err(refusal) => panic!(
                "{}'s {message_type} was refused: {}: {}",
                self.name, refusal.code, refusal.message
            ),
        }
    }

    /// The same, with the refusal for the test to see.
    pub async fn try_say(
        &self,
        session: &SessionId,
        mode: &str,
        message: Message,
    ) -> Result<proto::Ack, proto::MacpError> {
        self.send(self.envelope(session.as_str(), mode, message)).await
    }

    /// Sends any envelope; the same one again is acknowledged as a duplicate.
    pub async fn send(&self, envelope: proto::Envelope) -> Result<proto::Ack, proto::MacpError> {
        self.deliver(envelope).await.expect("Send is answered")
    }

    /// The same where the runtime may not be there: the outer error leaves open whether the
    /// envelope was accepted, and sending it again tells.
    ///
    /// # Errors
    /// The status of a call that was not answered.
    pub async fn deliver(
        &self,
        envelope: proto::Envelope,
    ) -> Result<Result<proto::Ack, proto::MacpError>, Status> {
        let request = self.request(proto::SendRequest { envelope: Some(envelope) });
        let response = self.stub.clone().send(request).await?;
        let ack = response.into_inner().ack.expect("an answer to Send has an ack");
        Ok(if ack.ok { Ok(ack) } else { Err(ack.error.unwrap_or_default()) })
    }

    /// An envelope of this agent, with a new message id.
    pub fn envelope(&self, session: &str, mode: &str, message: Message) -> proto::Envelope {
        envelope(&self.name, session, mode, message)
    }

    /// Sends an ambient `Signal` or `Progress`, which belongs to no session.
    pub async fn signal(&self, message: Message) -> String {
        let ack = self.send(self.envelope("", "", message)).await;
        ack.expect("the signal is accepted").message_id
    }

    /// Reports progress in `session`.
    pub async fn progress(&self, session: &SessionId, mode: &str, done: f64, total: f64) -> String {
        self.say(session, mode, message::progress("work", done, total, "getting there")).await
    }

    /// Cancels a session; the initiator may.
    pub async fn cancel(&self, session: &SessionId, reason: &str) -> proto::Ack {
        self.try_cancel(session, reason).await.expect("CancelSession is allowed")
    }

    /// The same where the runtime may refuse, or not be there.
    ///
    /// # Errors
    /// The status of the call.
    pub async fn try_cancel(
        &self,
        session: &SessionId,
        reason: &str,
    ) -> Result<proto::Ack, Status> {
        let request = self.request(proto::CancelSessionRequest {
            session_id: session.as_str().to_owned(),
            reason: reason.to_owned(),
        });
        let answer = self.stub.clone().cancel_session(request).await?;
        Ok(answer.into_inner().ack.expect("an ack"))
    }

    /// Suspends a session; the initiator may.
    pub async fn suspend(&self, session: &SessionId, reason: &str) -> proto::Ack {
        self.try_suspend(session, reason).await.expect("SuspendSession is allowed")
    }

    /// The same where the runtime may refuse, or not be there.
    ///
    /// # Errors
    /// The status of the call.
    pub async fn try_suspend(
        &self,
        session: &SessionId,
        reason: &str,
    ) -> Result<proto::Ack, Status> {
        let request = self.request(proto::SuspendSessionRequest {
            session_id: session.as_str().to_owned(),
            reason: reason.to_owned(),
        });
        let answer = self.stub.clone().suspend_session(request).await?;
        Ok(answer.into_inner().ack.expect("an ack"))
    }

    /// Resumes a session; the initiator may.
    pub async fn resume(&self, session: &SessionId, reason: &str) -> proto::Ack {
        self.try_resume(session, reason).await.expect("ResumeSession is allowed")
    }

    /// The same where the runtime may refuse, or not be there.
    ///
    /// # Errors
    /// The status of the call.
    pub async fn try_resume(
        &self,
        session: &SessionId,
        reason: &str,
    ) -> Result<proto::Ack, Status> {
        let request = self.request(proto::ResumeSessionRequest {
            session_id: session.as_str().to_owned(),
            reason: reason.to_owned(),
        });
        let answer = self.stub.clone().resume_session(request).await?;
        Ok(answer.into_inner().ack.expect("an ack"))
    }

    /// Registers a governance policy; Alice may.
    pub async fn register_policy(&self, policy_id: &str, mode: &str, rules: &Value) {
        let request = self.request(proto::RegisterPolicyRequest {
            policy_descriptor: Some(proto::PolicyDescriptor {
                policy_id: policy_id.to_owned(),
                mode: mode.to_owned(),
                description: "a test's policy".to_owned(),
                rules: rules.to_string(),
                schema_version: 3,
                registered_at_unix_ms: 0,
            }),
        });
        let answer = self.stub.clone().register_policy(request).await;
        let answer = answer.expect("RegisterPolicy is allowed").into_inner();
        assert!(answer.ok, "the policy was refused: {}", answer.error);
    }

    fn request<T>(&self, body: T) -> Request<T> {
        let mut request = Request::new(body);
        request.metadata_mut().insert("authorization", self.authorization.clone());
        request
    }
}

/// An envelope from `sender`, with a new message id and the time of now.
pub fn envelope(sender: &str, session: &str, mode: &str, message: Message) -> proto::Envelope {
    proto::Envelope {
        macp_version: "1.0".to_owned(),
        mode: mode.to_owned(),
        message_type: message.message_type.to_owned(),
        message_id: Uuid::new_v4().to_string(),
        session_id: session.to_owned(),
        sender: sender.to_owned(),
        timestamp_unix_ms: SystemClock.now().timestamp_millis(),
        payload: message.payload,
    }
}

/// The agents that a [`crate::runtime::RuntimeProcess`] knows, over one connection.
#[derive(Clone)]
pub struct Cast {
    /// Starts the sessions, and may register policies.
    pub alice: Agent,
    /// Takes part.
    pub bob: Agent,
    /// Takes part.
    pub carol: Agent,
    /// Takes part where it needs a fourth; elsewhere a stranger.
    pub dave: Agent,
}

impl Cast {
    /// Connects them all, each with its own token.
    pub async fn connect(address: &str) -> Self {
        let alice = Agent::connect(address, "alice", &agent_token("alice")).await;
        let channel = |name: &str| Agent {
            name: name.to_owned(),
            authorization: format!("Bearer {}", agent_token(name)).parse().expect("a token"),
            stub: alice.stub.clone(),
        };
        let (bob, carol, dave) = (channel("bob"), channel("carol"), channel("dave"));
        Self { alice, bob, carol, dave }
    }
}
