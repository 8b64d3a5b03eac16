//! From a descriptor to the record of a run.

use control_plane_domain::descriptor::RunDescriptor;
use control_plane_domain::{Run, RunId, RunState, Session, SessionId, SessionState, Timestamp};
use control_plane_storage::Error;
use control_plane_storage::model::NewRun;
use serde_json::{Map, Value};

use crate::ledger;

/// A run that was recorded, now or by an earlier request with the same idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launched {
    pub run_id: RunId,
    pub session_id: SessionId,
    pub state: RunState,
    pub trace_id: Option<String>,
    /// Whether this call recorded it.
    pub created: bool,
}

/// Why a run was not recorded.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The session has a run already.
    #[error("session already exists: it is followed by run {run_id}")]
    SessionTaken { run_id: RunId },
    /// The key was used for another request.
    #[error("the idempotency key was used for another request, which made run {run_id}")]
    IdempotencyConflict { run_id: RunId },
    #[error("the server is shutting down")]
    Draining,
    #[error(transparent)]
    Storage(Error),
}

impl From<Error> for LaunchError {
    fn from(error: Error) -> Self {
        match error {
            Error::SessionTaken { run_id } => Self::SessionTaken { run_id },
            Error::IdempotencyConflict { run_id } => Self::IdempotencyConflict { run_id },
            other @ (Error::NotFound { .. }
            | Error::Transition(_)
            | Error::Corrupt { .. }
            | Error::Unavailable(_)
            | Error::Refused(_)
            | Error::Query(_)
            | Error::Config(_)
            | Error::Migration(_)
            | Error::Task) => Self::Storage(other),
        }
    }
}

/// The records that a descriptor makes at `now`.
pub(crate) fn new_run(descriptor: &RunDescriptor, now: Timestamp) -> NewRun {
    let request = serde_json::to_string(descriptor).unwrap_or_default();
    let session_id = descriptor.session.session_id.clone().unwrap_or_else(SessionId::random);
    let mut descriptor = descriptor.clone();
    descriptor.session.session_id = Some(session_id.clone());

    let text = |key: &str| descriptor.metadata_text(key).map(str::to_owned);
    let mut tags =
        descriptor.execution.as_ref().map(|execution| execution.tags.clone()).unwrap_or_default();
    if descriptor.mode == control_plane_domain::run::RunMode::Sandbox
        && !tags.iter().any(|tag| tag == "sandbox")
    {
        tags.push("sandbox".to_owned());
    }
    let run = Run {
        id: RunId::random(),
        state: RunState::Queued,
        mode: descriptor.mode,
        runtime_kind: descriptor.runtime.kind.clone(),
        runtime_version: descriptor.runtime.version.clone(),
        session_id: Some(session_id.clone()),
        trace_id: None,
        idempotency_key: descriptor.idempotency_key().map(str::to_owned),
        request_hash: Some(hash(&request)),
        last_seq: 0,
        source_kind: text("source"),
        source_ref: text("sourceRef"),
        tags,
        metadata: metadata(&descriptor),
        error_code: None,
        error_message: None,
        created_at: now,
        started_at: None,
        ended_at: None,
        updated_at: now,
        archived_at: None,
        parked_reason: None,
    };
    let requested = &descriptor.session;
    let session = Session {
        run_id: run.id,
        runtime_kind: descriptor.runtime.kind.clone(),
        session_id,
        mode_name: requested.mode_name.clone(),
        mode_version: requested.mode_version.clone(),
        configuration_version: requested.configuration_version.clone(),
        policy_version: requested
            .policy_version
            .clone()
            .unwrap_or_else(|| "policy.default".to_owned()),
        initiator: None,
        state: SessionState::Unspecified,
        participants: descriptor.participants(),
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
    };
    ledger::new_run(run, session)
}

/// What the run's metadata holds from the start (spec 1.3.3; spec README 11).
fn metadata(descriptor: &RunDescriptor) -> Map<String, Value> {
    let mut metadata = Map::new();
    let request = serde_json::to_value(descriptor).unwrap_or_default();
    metadata.insert("executionRequest".to_owned(), request);
    let requester =
        descriptor.execution.as_ref().and_then(|execution| execution.requester.as_ref());
    if let Some(requester) = requester {
        metadata
            .insert("requester".to_owned(), serde_json::to_value(requester).unwrap_or_default());
    }
    let given = descriptor.session.metadata.as_ref();
    for key in
        ["environment", "scenarioRef", "templateId", "cancelCallback", "cancellationDelegated"]
    {
        if let Some(value) = given.and_then(|given| given.get(key)).filter(|value| !value.is_null())
        {
            metadata.insert(key.to_owned(), value.clone());
        }
    }
    metadata.insert("modeName".to_owned(), Value::from(descriptor.session.mode_name.clone()));
    metadata
}

fn hash(text: &str) -> String {
    control_plane_domain::event::ChainHash::EMPTY.then(text).to_string()
}

#[cfg(test)]
mod tests {
    use control_plane_domain::time::from_unix_ms;
    use serde_json::json;

    use super::*;

    fn descriptor(metadata: Value) -> RunDescriptor {
        RunDescriptor::parse(&json!({
            "mode": "sandbox",
            "runtime": { "kind": "rust" },
            "session": {
                "modeName": "macp.mode.decision.v1", "modeVersion": "1.0.0",
                "configurationVersion": "c", "ttlMs": 1000,
                "participants": [{ "id": "alice" }], "metadata": metadata,
            },
        }))
        .unwrap()
    }

    #[test]
    fn what_filters_look_for_is_copied_to_the_run() {
        let asked = descriptor(json!({
            "environment": "staging", "scenarioRef": "fraud", "source": "playground",
            "sourceRef": "s-1", "private": 1,
        }));

        let new = new_run(&asked, from_unix_ms(1).unwrap());

        assert_eq!(new.run.metadata["environment"], "staging");
        assert_eq!(new.run.metadata["scenarioRef"], "fraud");
        assert!(!new.run.metadata.contains_key("private"));
        assert_eq!(new.run.source_kind.as_deref(), Some("playground"));
        assert_eq!(new.run.tags, ["sandbox"]);
        assert_eq!(
            new.run.metadata["executionRequest"]["session"]["sessionId"],
            new.session.session_id.as_str()
        );
        assert_eq!(new.entries.len(), 1);
        assert_eq!(new.run.last_seq, 1);
    }

    #[test]
    fn the_same_request_has_the_same_hash_although_it_leaves_the_session_to_us() {
        let now = from_unix_ms(1).unwrap();
        let first = new_run(&descriptor(json!({})), now);
        let second = new_run(&descriptor(json!({})), now);
        let other = new_run(&descriptor(json!({ "x": 1 })), now);
        assert_eq!(first.run.request_hash, second.run.request_hash);
        assert_ne!(first.run.request_hash, other.run.request_hash);
        assert_ne!(first.session.session_id, second.session.session_id);
    }
}
