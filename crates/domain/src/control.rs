//! The events that this control plane makes itself (spec 5.4, and our own two).

use serde_json::{Map, Value, json};

use crate::event::{EventDraft, EventType, Source, Subject, SubjectKind, Trace};
use crate::id::{Ordinal, SessionId};
use crate::run::{Run, RunState};
use crate::session::{Session, SessionState};
use crate::time::{self, Timestamp};

fn draft(
    event_type: EventType,
    ts: Timestamp,
    subject: Subject,
    source: &str,
    trace_id: Option<&String>,
    data: Value,
) -> EventDraft {
    let Value::Object(mut data) = data else { return empty(event_type, ts, subject, source) };
    data.retain(|_, value| !value.is_null());
    EventDraft {
        event_type,
        ts,
        subject: Some(subject),
        source: Source::control_plane(source),
        trace: trace_id.map(|id| Trace { trace_id: Some(id.clone()), ..Trace::default() }),
        data,
    }
}

fn empty(event_type: EventType, ts: Timestamp, subject: Subject, source: &str) -> EventDraft {
    EventDraft {
        event_type,
        ts,
        subject: Some(subject),
        source: Source::control_plane(source),
        trace: None,
        data: Map::new(),
    }
}

fn run_subject(run: &Run) -> Subject {
    Subject::new(SubjectKind::Run, run.id.to_string())
}

fn session_subject(id: &SessionId) -> Subject {
    Subject::new(SubjectKind::Session, id.as_str())
}

/// `run.created`.
pub fn run_created(run: &Run, mode_name: &str) -> EventDraft {
    draft(
        EventType::RunCreated,
        run.created_at,
        run_subject(run),
        "run-manager",
        run.trace_id.as_ref(),
        json!({
            "status": run.state.as_str(),
            "modeName": mode_name,
            "runtimeKind": run.runtime_kind,
            "runtimeVersion": run.runtime_version,
            "sessionId": run.session_id.as_ref().map(SessionId::as_str),
            "traceId": run.trace_id,
        }),
    )
}

/// `run.started`: attaching begins.
pub fn run_started(run: &Run, mode_name: &str, now: Timestamp) -> EventDraft {
    draft(
        EventType::RunStarted,
        now,
        run_subject(run),
        "run-manager",
        run.trace_id.as_ref(),
        json!({
            "status": run.state.as_str(),
            "startedAt": run.started_at.map(time::format),
            "modeName": mode_name,
            "runtimeKind": run.runtime_kind,
            "traceId": run.trace_id,
        }),
    )
}

/// `session.bound` and one `participant.seen` per declared participant.
pub fn session_bound(session: &Session, now: Timestamp) -> Vec<EventDraft> {
    let seen = session.participants.iter().map(|participant| participant_seen(participant, now));
    std::iter::once(bound(session, now)).chain(seen).collect()
}

/// The second `session.bound`, of a run that was discovered and is somebody's now. Where what was
/// posted and the session disagree, the session's facts stay, and `differences` names both.
pub fn session_adopted(
    session: &Session,
    differences: Map<String, Value>,
    now: Timestamp,
) -> EventDraft {
    let mut draft = bound(session, now);
    draft.data.insert("adopted".to_owned(), Value::Bool(true));
    if !differences.is_empty() {
        draft.data.insert("differences".to_owned(), Value::Object(differences));
    }
    draft
}

/// `participant.seen` of somebody who was declared.
pub fn participant_seen(participant: &str, now: Timestamp) -> EventDraft {
    draft(
        EventType::ParticipantSeen,
        now,
        Subject::new(SubjectKind::Participant, participant),
        "run-manager",
        None,
        json!({ "participantId": participant, "status": "idle" }),
    )
}

fn bound(session: &Session, now: Timestamp) -> EventDraft {
    draft(
        EventType::SessionBound,
        now,
        session_subject(&session.session_id),
        "run-manager",
        None,
        json!({
            "sessionId": session.session_id.as_str(),
            "initiator": session.initiator.as_deref().unwrap_or(""),
            "state": session.state.as_str(),
            "modeName": session.mode_name,
            "modeVersion": session.mode_version,
            "configurationVersion": session.configuration_version,
            "policyVersion": if session.policy_version.is_empty() { "policy.default" } else { session.policy_version.as_str() },
            "participants": session.participants,
            "contextId": session.context_id,
            "extensionKeys": if session.extension_keys.is_empty() { Value::Null } else { json!(session.extension_keys) },
        }),
    )
}

/// `session.state.changed`.
pub fn session_state_changed(
    run: &Run,
    session_id: &SessionId,
    state: SessionState,
    now: Timestamp,
) -> EventDraft {
    draft(
        EventType::SessionStateChanged,
        now,
        session_subject(session_id),
        "run-manager",
        run.trace_id.as_ref(),
        json!({ "sessionId": session_id.as_str(), "state": state.as_str() }),
    )
}

/// Why a stream was opened, as `session.stream.opened` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamStatus {
    Opened,
    Reconnecting,
    /// The first attach after a restart of this server.
    Recovered,
}

/// `session.stream.opened`. `cursor` is the last ordinal recorded.
pub fn stream_opened(
    session_id: &SessionId,
    status: StreamStatus,
    cursor: Ordinal,
    detail: Option<&str>,
    now: Timestamp,
) -> EventDraft {
    let (status, source) = match status {
        StreamStatus::Opened => ("opened", "stream-consumer"),
        StreamStatus::Reconnecting => ("reconnecting", "stream-consumer"),
        StreamStatus::Recovered => ("recovered", "run-recovery"),
    };
    draft(
        EventType::SessionStreamOpened,
        now,
        session_subject(session_id),
        source,
        None,
        json!({
            "sessionId": session_id.as_str(),
            "status": status,
            "detail": detail,
            "afterOrdinal": cursor,
        }),
    )
}

/// The reason of a gap whose envelopes were accepted and not delivered. It is in the runtime's
/// ordinals: what came after was counted without them, so it leaves no hole in ours.
pub const NOT_DELIVERED: &str = "NOT_DELIVERED";

/// `session.stream.gap`: envelopes `from..=to` were accepted and cannot be read any more.
pub fn stream_gap(
    session_id: &SessionId,
    from: Ordinal,
    to: Ordinal,
    reason: &str,
    now: Timestamp,
) -> EventDraft {
    draft(
        EventType::SessionStreamGap,
        now,
        session_subject(session_id),
        "stream-consumer",
        None,
        json!({
            "sessionId": session_id.as_str(),
            "fromOrdinal": from,
            "toOrdinal": to,
            "missing": to - from + 1,
            "reason": reason,
        }),
    )
}

/// `session.stream.gap` without a known end: envelopes from `from` on may be missing.
pub fn stream_gap_open(
    session_id: &SessionId,
    from: Ordinal,
    reason: &str,
    now: Timestamp,
) -> EventDraft {
    draft(
        EventType::SessionStreamGap,
        now,
        session_subject(session_id),
        "stream-consumer",
        None,
        json!({ "sessionId": session_id.as_str(), "fromOrdinal": from, "reason": reason }),
    )
}

/// `session.stream.gap` of envelopes that were accepted, were not delivered, and cannot be placed:
/// `missing` of those from `from` to `to`.
pub fn stream_loss(
    session_id: &SessionId,
    from: Ordinal,
    to: Ordinal,
    missing: Ordinal,
    reason: &str,
    now: Timestamp,
) -> EventDraft {
    draft(
        EventType::SessionStreamGap,
        now,
        session_subject(session_id),
        "stream-consumer",
        None,
        json!({
            "sessionId": session_id.as_str(),
            "fromOrdinal": from,
            "toOrdinal": to,
            "missing": missing,
            "reason": reason,
        }),
    )
}

/// `session.stream.diverged`: under this session's id there is another history now.
pub fn stream_diverged(
    session_id: &SessionId,
    cursor: Ordinal,
    detail: &str,
    now: Timestamp,
) -> EventDraft {
    draft(
        EventType::SessionStreamDiverged,
        now,
        session_subject(session_id),
        "stream-consumer",
        None,
        json!({ "sessionId": session_id.as_str(), "ordinal": cursor, "detail": detail }),
    )
}

/// The event of a state that a run has just entered: `run.completed`, `run.failed`,
/// `run.cancelled`, `run.suspended` or `run.resumed`; `None` for states that have none of their own.
pub fn run_state(run: &Run, now: Timestamp) -> Option<EventDraft> {
    let event_type = match run.state {
        RunState::Completed => EventType::RunCompleted,
        RunState::Failed => EventType::RunFailed,
        RunState::Cancelled => EventType::RunCancelled,
        RunState::Suspended => EventType::RunSuspended,
        RunState::Running => EventType::RunResumed,
        RunState::Queued | RunState::Starting | RunState::BindingSession => return None,
    };
    Some(draft(
        event_type,
        now,
        run_subject(run),
        "run-manager",
        run.trace_id.as_ref(),
        json!({
            "status": run.state.as_str(),
            "endedAt": run.ended_at.map(time::format),
            "runtimeSessionId": run.session_id.as_ref().map(SessionId::as_str),
            "traceId": run.trace_id,
            "errorCode": run.error_code,
            "error": run.error_message,
        }),
    ))
}

/// `artifact.created`.
pub fn artifact_created(
    id: &str,
    kind: &str,
    label: &str,
    uri: Option<&str>,
    now: Timestamp,
) -> EventDraft {
    draft(
        EventType::ArtifactCreated,
        now,
        Subject::new(SubjectKind::Artifact, id),
        "observability-controller",
        None,
        json!({ "kind": kind, "label": label, "artifactId": id, "uri": uri }),
    )
}

/// The kind and the label of the artifact that leads to a run's trace.
pub const TRACE_ARTIFACT: (&str, &str) = ("trace", "Root run trace");

/// `artifact.created` of the one that leads to a run's trace.
pub fn trace_artifact_created(id: &str, trace_id: &String, now: Timestamp) -> EventDraft {
    let (kind, label) = TRACE_ARTIFACT;
    draft(
        EventType::ArtifactCreated,
        now,
        Subject::new(SubjectKind::Artifact, id),
        "run-executor",
        Some(trace_id),
        json!({ "kind": kind, "label": label, "artifactId": id, "traceId": trace_id }),
    )
}
