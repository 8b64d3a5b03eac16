//! The run's own life: status, session, gaps, and what its end means for everybody.
//!
//! **Invariant:** the status follows the run. Only `run.*` events end it; a session that is over,
//! or a decision that is made, does not, because the rest of the history may still come.

use control_plane_domain::{CanonicalEvent, RunState, SessionState};
use serde_json::Value;

use crate::projection::Projection;
use crate::read;
use crate::sections::{Divergence, HistoryGap, MAX_EXPECTED, Status};
use crate::threshold::Bar;

/// `run.created` to `run.resumed`: the run entered the state `entered`.
pub(super) fn lifecycle(state: &mut Projection, event: &CanonicalEvent, entered: RunState) {
    if !state.run.status.is_terminal() {
        let told = read::text(&event.data, &["status"]).and_then(|text| text.parse().ok());
        state.run.status = told.unwrap_or(entered);
    }
    let run = &mut state.run;
    for (field, names) in [
        (&mut run.runtime_session_id, &["runtimeSessionId", "sessionId"][..]),
        (&mut run.started_at, &["startedAt"][..]),
        (&mut run.ended_at, &["endedAt"][..]),
        (&mut run.trace_id, &["traceId"][..]),
        (&mut run.mode_name, &["modeName"][..]),
        (&mut run.error_code, &["errorCode"][..]),
        (&mut run.error, &["error"][..]),
    ] {
        if let Some(text) = read::kept_text(&event.data, names) {
            *field = Some(text);
        }
    }
    match entered {
        RunState::Queued => {
            if let Some(prompt) = read::kept_text(&event.data, &["decisionPrompt"]) {
                state.decision.current.get_or_insert_default().prompt = Some(prompt);
            }
        }
        RunState::Completed => sweep(state, Status::Completed),
        RunState::Failed => {
            sweep(state, Status::Failed);
            settle_quorum(state);
        }
        RunState::Cancelled => {
            sweep(state, Status::Completed);
            settle_quorum(state);
        }
        RunState::Starting | RunState::BindingSession | RunState::Running | RunState::Suspended => {
        }
    }
}

/// `session.bound`. A second one, when a run that was discovered is adopted, changes no status.
pub(super) fn bound(state: &mut Projection, event: &CanonicalEvent) {
    let adopted = event.data.get("adopted").and_then(Value::as_bool) == Some(true);
    if !adopted && matches!(state.run.status, RunState::Queued | RunState::Starting) {
        state.run.status = RunState::BindingSession;
    }
    session_facts(state, event);
    if let Some(declared) = read::texts(&event.data, "participants")
        && !declared.is_empty()
    {
        state.memory.declared = i64::try_from(declared.len()).unwrap_or(i64::MAX);
    }
    if let Some(mode) = read::kept_id(&event.data, &["modeName"]) {
        state.run.mode_name = Some(mode);
    }
    if let Some(version) = read::kept_id(&event.data, &["policyVersion"]) {
        if version != state.policy.policy_version {
            state.memory.bar = Bar::of_policy(&version);
        }
        state.policy.policy_version = version;
    }
    if let Some(Value::Array(expected)) = event.data.get("expectedCommitments") {
        if !expected.is_empty() {
            state.policy.quorum_status.get_or_insert_with(|| "pending".to_owned());
        }
        let expected = expected.iter().take(MAX_EXPECTED).cloned().collect();
        state.policy.expected_commitments = Some(expected);
    }
}

/// `session.state.changed`.
pub(super) fn session_state(state: &mut Projection, event: &CanonicalEvent) {
    session_facts(state, event);
    let told = read::text(&event.data, &["state"]).and_then(|text| text.parse().ok());
    match told {
        Some(SessionState::Open) if !state.run.status.is_terminal() => {
            state.run.status = RunState::Running;
        }
        Some(SessionState::Suspended) if !state.run.status.is_terminal() => {
            state.run.status = RunState::Suspended;
        }
        _ => {}
    }
}

fn session_facts(state: &mut Projection, event: &CanonicalEvent) {
    if let Some(session) = read::kept_id(&event.data, &["sessionId"]) {
        state.run.runtime_session_id = Some(session);
    }
    if let Some(context) = read::kept_id(&event.data, &["contextId"]) {
        state.run.context_id = Some(context);
    }
    if let Some(keys) = read::texts(&event.data, "extensionKeys") {
        state.run.extension_keys = Some(keys.into_iter().take(100).map(str::to_owned).collect());
    }
}

/// `session.stream.gap`. One without an end is the last one, and nobody can say how much it is.
pub(super) fn gap(state: &mut Projection, event: &CanonicalEvent) {
    let ordinal = |name: &str| read::integer(&event.data, name);
    let Some(from) = ordinal("fromOrdinal") else { return };
    let to = ordinal("toOrdinal");
    let span = to.map_or(0, |to| to.saturating_sub(from).saturating_add(1));
    let missing = ordinal("missing").unwrap_or(span).max(0);
    state.run.history_gap = Some(match state.run.history_gap {
        None => HistoryGap { from_ordinal: from, to_ordinal: to, missing },
        Some(gap) => HistoryGap {
            from_ordinal: gap.from_ordinal.min(from),
            to_ordinal: gap.to_ordinal.zip(to).map(|(one, other)| one.max(other)),
            missing: gap.missing.saturating_add(missing),
        },
    });
}

/// `session.stream.diverged`: the first time counts.
pub(super) fn diverged(state: &mut Projection, event: &CanonicalEvent) {
    state.run.diverged.get_or_insert_with(|| Divergence {
        ordinal: read::integer(&event.data, "ordinal").unwrap_or(0),
        detail: read::kept_text(&event.data, &["detail"]),
        ts: event.ts,
    });
}

/// Nobody is still working in a run that is over (spec 6.11).
fn sweep(state: &mut Projection, outcome: Status) {
    let unfinished = || state.participants.iter().filter(|one| !one.status.is_final());
    let culprit = if outcome == Status::Failed {
        unfinished()
            .filter_map(|one| Some((one.latest_activity_at?, one.participant_id.clone())))
            // Of two at the same instant, the one who was there first.
            .reduce(|best, next| if next.0 > best.0 { next } else { best })
            .map(|(_, id)| id)
    } else {
        None
    };
    let graph = &mut state.graph;
    for participant in state.participants.iter_mut().filter(|one| !one.status.is_final()) {
        participant.status = if participant.latest_activity_at.is_none() {
            Status::Skipped
        } else if culprit.as_deref() == Some(&participant.participant_id) {
            Status::Failed
        } else {
            Status::Completed
        };
        if let Some(node) = graph.nodes.get_mut(&participant.participant_id) {
            node.status = participant.status;
        }
    }
}

/// A run that failed or was cancelled leaves no quorum open.
fn settle_quorum(state: &mut Projection) {
    if matches!(state.policy.quorum_status.as_deref(), None | Some("pending")) {
        let allowed = state.policy.commitment_evaluations.iter().any(|one| one.decision == "allow");
        let status = if allowed { "reached" } else { "failed" };
        state.policy.quorum_status = Some(status.to_owned());
    }
}
