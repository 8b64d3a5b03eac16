//! From a descriptor to the record of a run.

use control_plane_domain::descriptor::{
    MAX_TTL_MS, Participant, RunDescriptor, RuntimeRef, SessionRequest,
};
use control_plane_domain::run::RunMode;
use control_plane_domain::session::SessionInfo;
use control_plane_domain::{
    Run, RunId, RunState, RunTrace, Session, SessionId, SessionState, Timestamp, time,
};
use control_plane_storage::Error;
use control_plane_storage::model::NewRun;
use serde_json::{Map, Value, json};

use crate::ledger;

/// The one runtime that there is.
const RUNTIME_KIND: &str = "rust";
/// The time to live of a session whose end is unknown.
const DEFAULT_TTL_MS: i64 = 300_000;

/// A run that was recorded, now or by an earlier request with the same idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launched {
    pub run_id: RunId,
    pub session_id: SessionId,
    pub state: RunState,
    pub trace_id: Option<String>,
    /// Whether this call recorded it, or made it the caller's: discovery may have found its session.
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
            | Error::ReadOnly { .. }
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
pub(crate) fn new_run(
    descriptor: &RunDescriptor,
    trace: Option<RunTrace>,
    now: Timestamp,
) -> NewRun {
    let (run, session) = records(descriptor, now);
    ledger::new_run(run, session, trace)
}

/// The records of a session that was found. The run has its session's id where that is a UUID and
/// `id_is_free`.
pub(crate) fn discovered(
    info: &SessionInfo,
    id_is_free: bool,
    trace: Option<RunTrace>,
    now: Timestamp,
) -> NewRun {
    let (mut run, mut session) = records(&described(info, now), now);
    if let Some(id) = run_id(&info.session_id).filter(|_| id_is_free) {
        run.id = id;
        session.run_id = id;
    }
    // Nobody has asked for it yet.
    run.request_hash = None;
    ledger::new_run(run, session, trace)
}

/// The id that a session gives to its run: itself, when it is a UUID as UUIDs are written.
pub(crate) fn run_id(session: &SessionId) -> Option<RunId> {
    let id = session.as_str().parse::<RunId>().ok()?;
    (id.to_string() == session.as_str()).then_some(id)
}

/// What somebody would have posted for a session that was found (spec 8.7; spec README 10).
fn described(info: &SessionInfo, now: Timestamp) -> RunDescriptor {
    let or = |text: &String, default: &str| {
        if text.is_empty() { default.to_owned() } else { text.clone() }
    };
    let ttl_ms = match info.expires_at_unix_ms.saturating_sub(info.started_at_unix_ms) {
        known @ 1.. => known.min(MAX_TTL_MS),
        _unknown => DEFAULT_TTL_MS,
    };
    let metadata = json!({
        "source": "session-discovery",
        "discoveredAt": time::format(now),
        "initiator": info.initiator,
    });
    RunDescriptor {
        mode: RunMode::Live,
        runtime: RuntimeRef { kind: RUNTIME_KIND.to_owned(), version: None },
        session: SessionRequest {
            session_id: Some(info.session_id.clone()),
            mode_name: info.mode.clone(),
            mode_version: or(&info.mode_version, "1.0.0"),
            configuration_version: or(&info.configuration_version, "config.default"),
            policy_version: Some(info.policy_version.clone()).filter(|text| !text.is_empty()),
            ttl_ms,
            participants: info
                .participants
                .iter()
                .map(|id| Participant { id: id.clone() })
                .collect(),
            metadata: metadata.as_object().cloned(),
        },
        execution: None,
    }
}

/// The run and the session of a descriptor.
pub(crate) fn records(descriptor: &RunDescriptor, now: Timestamp) -> (Run, Session) {
    let request = serde_json::to_string(descriptor).unwrap_or_default();
    let session_id = descriptor.session.session_id.clone().unwrap_or_else(SessionId::random);
    let mut descriptor = descriptor.clone();
    descriptor.session.session_id = Some(session_id.clone());

    let text = |key: &str| descriptor.metadata_text(key).map(str::to_owned);
    let mut tags =
        descriptor.execution.as_ref().map(|execution| execution.tags.clone()).unwrap_or_default();
    if descriptor.mode == RunMode::Sandbox && !tags.iter().any(|tag| tag == "sandbox") {
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
        imported_at: None,
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
        evidence: control_plane_domain::evidence::Evidence::default(),
    };
    (run, session)
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

        let new = new_run(&asked, None, from_unix_ms(1).unwrap());

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

    fn found(id: &str) -> SessionInfo {
        SessionInfo {
            session_id: SessionId::trusted(id),
            state: SessionState::Open,
            mode: "macp.mode.task.v1".to_owned(),
            mode_version: String::new(),
            configuration_version: "c-2".to_owned(),
            policy_version: String::new(),
            initiator: "alice".to_owned(),
            participants: vec!["alice".to_owned(), "bob".to_owned()],
            context_id: None,
            extension_keys: Vec::new(),
            started_at_unix_ms: 1000,
            expires_at_unix_ms: 61_000,
            activity: Vec::new(),
        }
    }

    #[test]
    fn a_session_that_was_found_says_how_it_would_have_been_posted() {
        let id = "0190b6c4-6f2a-7cc3-9d5e-1f2a3b4c5d6e";

        let new = discovered(&found(id), true, None, from_unix_ms(1).unwrap());

        assert!(new.run.is_unclaimed());
        assert_eq!(new.run.id.to_string(), id);
        assert_eq!(new.session.run_id, new.run.id);
        assert_eq!(new.entries[0].run_id, new.run.id);
        assert_eq!(new.run.source_kind.as_deref(), Some("session-discovery"));
        let request = &new.run.metadata["executionRequest"];
        assert_eq!(request["session"]["modeVersion"], "1.0.0");
        assert_eq!(request["session"]["ttlMs"], 60_000);
        assert_eq!(request["session"]["metadata"]["initiator"], "alice");
        assert_eq!(request["session"]["metadata"]["discoveredAt"], "1970-01-01T00:00:00.001Z");
        let posted = RunDescriptor::parse(request).unwrap();
        assert_eq!(posted.participants(), ["alice", "bob"]);
    }

    #[test]
    fn only_a_free_uuid_as_uuids_are_written_is_the_runs_id() {
        let now = from_unix_ms(1).unwrap();
        for id in ["0190b6c46f2a7cc39d5e1f2a3b4c5d6e", "abcdefghijklmnopqrstuv"] {
            let first = discovered(&found(id), true, None, now);
            let second = discovered(&found(id), true, None, now);
            assert_ne!(first.run.id, second.run.id, "{id}");
            assert_eq!(first.session.session_id.as_str(), id);
        }
        let id = "0190b6c4-6f2a-7cc3-9d5e-1f2a3b4c5d6e";
        assert_ne!(discovered(&found(id), false, None, now).run.id.to_string(), id);
    }

    #[test]
    fn a_session_whose_end_is_unknown_gets_five_minutes() {
        let mut info = found("abcdefghijklmnopqrstuv");
        info.expires_at_unix_ms = 0;
        assert_eq!(described(&info, from_unix_ms(1).unwrap()).session.ttl_ms, 300_000);
        info.expires_at_unix_ms = i64::MAX;
        assert_eq!(described(&info, from_unix_ms(1).unwrap()).session.ttl_ms, MAX_TTL_MS);
    }

    #[test]
    fn the_same_request_has_the_same_hash_although_it_leaves_the_session_to_us() {
        let now = from_unix_ms(1).unwrap();
        let first = new_run(&descriptor(json!({})), None, now);
        let second = new_run(&descriptor(json!({})), None, now);
        let other = new_run(&descriptor(json!({ "x": 1 })), None, now);
        assert_eq!(first.run.request_hash, second.run.request_hash);
        assert_ne!(first.run.request_hash, other.run.request_hash);
        assert_ne!(first.session.session_id, second.session.session_id);
    }
}
