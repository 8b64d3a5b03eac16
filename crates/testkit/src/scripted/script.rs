//! What the scripted runtime knows and was told to do.
//!
//! **Invariant:** a subscription is a cursor over a session's envelopes, woken by a counter, so
//! nothing is lost or doubled unless a fault says so.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use control_plane_domain::session::SessionState;
use control_plane_domain::{Clock, SessionId, SystemClock};
use control_plane_runtime::proto::session_lifecycle_event::EventType;
use control_plane_runtime::proto::{self, SessionLifecycleEvent, SessionMetadata};
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};
use tonic::metadata::MetadataMap;

use super::fault::{Fault, UnaryFault};
use crate::agent::{SessionSpec, envelope};
use crate::message;

pub(super) struct Session {
    pub(super) metadata: SessionMetadata,
    pub(super) envelopes: Vec<proto::Envelope>,
    /// Envelopes up to here are compacted.
    pub(super) base: usize,
    pub(super) held: bool,
    /// How many there were when `held` was set.
    pub(super) visible: usize,
    /// Subscriptions of an older one end.
    pub(super) generation: u64,
}

pub(super) struct Script {
    inner: Mutex<Inner>,
    /// Counts changes; subscriptions wait on it.
    changed: watch::Sender<u64>,
    /// `None` ends the watches: they were too slow.
    lifecycle: broadcast::Sender<Option<SessionLifecycleEvent>>,
}

#[derive(Default)]
struct Inner {
    sessions: BTreeMap<String, Session>,
    receipts: HashMap<String, Value>,
    /// The keys of a JWK set.
    receipt_keys: Vec<Value>,
    /// By session, also before it exists.
    faults: HashMap<String, VecDeque<Fault>>,
    unary: HashMap<&'static str, VecDeque<UnaryFault>>,
    subscriptions: HashMap<String, Vec<u64>>,
    calls: HashMap<String, usize>,
    traces: Vec<(String, Option<String>)>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            changed: watch::channel(0).0,
            lifecycle: broadcast::channel(4096).0,
        }
    }
}

impl Script {
    pub(super) fn open(&self, spec: &SessionSpec, initiator: &str) -> String {
        let now = SystemClock.now().timestamp_millis();
        let policy = match spec.policy_version.as_str() {
            "" => message::POLICY_VERSION,
            version => version,
        };
        let metadata = SessionMetadata {
            session_id: spec.session_id.as_str().to_owned(),
            mode: spec.mode.clone(),
            state: proto::SessionState::Open.into(),
            started_at_unix_ms: now,
            expires_at_unix_ms: now + spec.ttl_ms,
            mode_version: message::MODE_VERSION.to_owned(),
            configuration_version: message::CONFIGURATION_VERSION.to_owned(),
            policy_version: policy.to_owned(),
            participants: spec.participants.clone(),
            participant_activity: Vec::new(),
            initiator: initiator.to_owned(),
            context_id: spec.context_id.clone(),
            extension_keys: spec.extensions.keys().cloned().collect(),
        };
        let start = envelope(initiator, spec.session_id.as_str(), &spec.mode, spec.message());
        let message_id = start.message_id.clone();
        let session = Session {
            metadata: metadata.clone(),
            envelopes: vec![start],
            base: 0,
            held: false,
            visible: 1,
            generation: 0,
        };
        self.lock().sessions.insert(metadata.session_id.clone(), session);
        self.announce(EventType::Created, metadata);
        self.wake();
        message_id
    }

    pub(super) fn accept(&self, id: &SessionId, envelope: proto::Envelope) {
        self.session(id, |session| session.envelopes.push(envelope));
    }

    pub(super) fn set_state(&self, id: &SessionId, state: SessionState) {
        let (wire, event) = match state {
            SessionState::Unspecified => (proto::SessionState::Unspecified, EventType::Unspecified),
            SessionState::Open => (proto::SessionState::Open, EventType::Resumed),
            SessionState::Resolved => (proto::SessionState::Resolved, EventType::Resolved),
            SessionState::Expired => (proto::SessionState::Expired, EventType::Expired),
            SessionState::Suspended => (proto::SessionState::Suspended, EventType::Suspended),
            SessionState::Cancelled => (proto::SessionState::Cancelled, EventType::Cancelled),
        };
        self.session(id, |session| session.metadata.state = wire.into());
        self.announce(event, self.metadata(id));
    }

    /// Changes a session, which must exist, and wakes the subscriptions.
    pub(super) fn session(&self, id: &SessionId, change: impl FnOnce(&mut Session)) {
        let mut inner = self.lock();
        let Some(session) = inner.sessions.get_mut(id.as_str()) else {
            panic!("the scripted runtime has no session {id}");
        };
        change(session);
        if !session.held {
            session.visible = session.envelopes.len();
        }
        drop(inner);
        self.wake();
    }

    pub(super) fn metadata(&self, id: &SessionId) -> SessionMetadata {
        let Some(metadata) = self.find(id.as_str()) else {
            panic!("the scripted runtime has no session {id}");
        };
        metadata
    }

    pub(super) fn find(&self, id: &str) -> Option<SessionMetadata> {
        self.lock().sessions.get(id).map(|session| session.metadata.clone())
    }

    /// A page of the sessions after `token`, and the token of the next one.
    pub(super) fn page(&self, token: &str, size: usize) -> (Vec<SessionMetadata>, String) {
        let inner = self.lock();
        let mut rest = inner.sessions.range(token.to_owned()..).filter(|(id, _)| *id != token);
        let page: Vec<_> =
            rest.by_ref().take(size).map(|(_, session)| session.metadata.clone()).collect();
        let more = rest.next().is_some();
        let next = page.last().filter(|_| more).map(|last| last.session_id.clone());
        (page, next.unwrap_or_default())
    }

    pub(super) fn evict(&self, id: &SessionId) {
        self.lock().sessions.remove(id.as_str());
        self.wake();
    }

    pub(super) fn set_receipt(&self, id: &SessionId, receipt: Value) {
        self.lock().receipts.insert(id.as_str().to_owned(), receipt);
    }

    pub(super) fn receipt(&self, id: &str) -> Option<Value> {
        self.lock().receipts.get(id).cloned()
    }

    pub(super) fn set_receipt_keys(&self, keys: Vec<Value>) {
        self.lock().receipt_keys = keys;
    }

    pub(super) fn receipt_keys(&self) -> Value {
        json!({ "keys": self.lock().receipt_keys })
    }

    pub(super) fn plan_fault(&self, id: &SessionId, fault: Fault) {
        self.lock().faults.entry(id.as_str().to_owned()).or_default().push_back(fault);
    }

    pub(super) fn plan_unary(&self, method: &'static str, fault: UnaryFault) {
        self.lock().unary.entry(method).or_default().push_back(fault);
    }

    /// Counts the call and says how it shall go.
    pub(super) fn called(&self, method: &str) -> Option<UnaryFault> {
        let mut inner = self.lock();
        *inner.calls.entry(method.to_owned()).or_default() += 1;
        inner.unary.get_mut(method)?.pop_front()
    }

    /// Keeps what a call says of its trace.
    pub(super) fn hear_trace(&self, metadata: &MetadataMap) {
        let text = |name| metadata.get(name).and_then(|value| value.to_str().ok());
        if let Some(parent) = text("traceparent") {
            let state = text("tracestate").map(str::to_owned);
            self.lock().traces.push((parent.to_owned(), state));
        }
    }

    pub(super) fn traces(&self) -> Vec<(String, Option<String>)> {
        self.lock().traces.clone()
    }

    pub(super) fn calls(&self, method: &str) -> usize {
        self.lock().calls.get(method).copied().unwrap_or_default()
    }

    /// Notes the subscription and says how it shall go.
    pub(super) fn subscribed(&self, id: &str, after: u64) -> Option<Fault> {
        let mut inner = self.lock();
        inner.subscriptions.entry(id.to_owned()).or_default().push(after);
        inner.faults.get_mut(id)?.pop_front()
    }

    pub(super) fn subscriptions(&self, id: &SessionId) -> Vec<u64> {
        self.lock().subscriptions.get(id.as_str()).cloned().unwrap_or_default()
    }

    /// Asks about one session under the lock; `None` when it is gone.
    pub(super) fn look<T>(&self, id: &str, question: impl FnOnce(&Session) -> T) -> Option<T> {
        self.lock().sessions.get(id).map(question)
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Every session as created, and what happens from then on.
    pub(super) fn lifecycle(
        &self,
    ) -> (Vec<SessionLifecycleEvent>, broadcast::Receiver<Option<SessionLifecycleEvent>>) {
        let live = self.lifecycle.subscribe();
        let inner = self.lock();
        let known = inner.sessions.values();
        let initial =
            known.map(|session| lifecycle_event(EventType::Created, session.metadata.clone()));
        (initial.collect(), live)
    }

    fn announce(&self, kind: EventType, metadata: SessionMetadata) {
        // Nobody watches: nobody to tell.
        drop(self.lifecycle.send(Some(lifecycle_event(kind, metadata))));
    }

    pub(super) fn lag_watches(&self) {
        drop(self.lifecycle.send(None));
    }

    fn wake(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lifecycle_event(kind: EventType, metadata: SessionMetadata) -> SessionLifecycleEvent {
    SessionLifecycleEvent {
        event_type: kind.into(),
        session: Some(metadata),
        observed_at_unix_ms: SystemClock.now().timestamp_millis(),
    }
}
