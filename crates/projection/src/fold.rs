//! What each event does to the state (spec 6.2 to 6.11).
//!
//! **Invariant:** an event whose sender nobody vouches for is listed, and moves nothing else.

mod decision;
mod message;
mod run;
mod tally;

use control_plane_domain::{CanonicalEvent, EventType, RunState};
use serde_json::Value;

use crate::price::PriceTable;
use crate::projection::Projection;
use crate::read::{self, push_capped};
use crate::sections::{
    CommitmentEvaluation, LlmCall, MAX_ARTIFACTS, MAX_CALLS, MAX_EVALUATIONS, MAX_PROGRESS,
    MAX_RECENT, MAX_SIGNALS, ProgressEntry, Signal, TimelineEntry,
};
use crate::threshold::Bar;

/// Largest payload of a signal that the state repeats, in bytes or so.
const MAX_SIGNAL_PAYLOAD: usize = 8 * 1024;

/// Folds one event.
pub(crate) fn event(state: &mut Projection, event: &CanonicalEvent) {
    timeline(state, event);
    trace(state, event);
    if read::is_doubtful(event) {
        if event.event_type == EventType::SignalEmitted {
            signal(state, event);
        }
        return;
    }
    match event.event_type {
        EventType::RunCreated => run::lifecycle(state, event, RunState::Queued),
        EventType::RunStarted => run::lifecycle(state, event, RunState::Starting),
        EventType::RunCompleted => run::lifecycle(state, event, RunState::Completed),
        EventType::RunFailed => run::lifecycle(state, event, RunState::Failed),
        EventType::RunCancelled => run::lifecycle(state, event, RunState::Cancelled),
        EventType::RunSuspended => run::lifecycle(state, event, RunState::Suspended),
        EventType::RunResumed => run::lifecycle(state, event, RunState::Running),
        EventType::SessionBound => run::bound(state, event),
        EventType::SessionStateChanged => run::session_state(state, event),
        EventType::SessionStreamGap => run::gap(state, event),
        EventType::SessionStreamDiverged => run::diverged(state, event),
        EventType::ParticipantSeen => message::participant_seen(state, event),
        EventType::MessageSent => message::sent(state, event),
        EventType::MessageReceived => message::received(state, event),
        EventType::MessageSendFailed => {
            let outbound = &mut state.outbound_messages;
            outbound.total = outbound.total.saturating_add(1);
            outbound.rejected = outbound.rejected.saturating_add(1);
        }
        EventType::SignalEmitted => signal(state, event),
        EventType::SignalAcknowledged => acknowledged(state, event),
        EventType::ProposalCreated | EventType::ProposalUpdated => decision::said(state, event),
        EventType::DecisionFinalized => decision::finalized(state, event),
        EventType::ProgressReported => progress(state, event),
        EventType::ArtifactCreated => artifact(state, event),
        EventType::PolicyResolved => policy_resolved(state, event),
        EventType::PolicyCommitmentEvaluated => evaluated(state, event),
        EventType::LlmCallCompleted => llm_call(state, event),
        EventType::SessionStreamOpened
        | EventType::DecisionProposed
        | EventType::ToolCalled
        | EventType::ToolCompleted
        | EventType::PolicyDenied => {}
    }
}

fn timeline(state: &mut Projection, event: &CanonicalEvent) {
    let timeline = &mut state.timeline;
    timeline.latest_seq = event.seq;
    timeline.total_events = timeline.total_events.saturating_add(1);
    let entry = TimelineEntry {
        id: event.id,
        seq: event.seq,
        ts: event.ts,
        event_type: event.event_type,
        subject: event.subject.clone(),
    };
    push_capped(&mut timeline.recent, entry, MAX_RECENT);
}

fn trace(state: &mut Projection, event: &CanonicalEvent) {
    // All zeros is how a tracer that is off says "none".
    let real = |id: &&String| id.bytes().any(|byte| byte != b'0');
    let Some(trace) = &event.trace else { return };
    if let Some(id) = trace.trace_id.as_ref().filter(real) {
        state.trace.trace_id = Some(id.clone());
    }
    if let Some(id) = trace.span_id.as_ref().filter(real) {
        state.trace.last_span_id = Some(id.clone());
        state.trace.span_count = state.trace.span_count.saturating_add(1);
    }
}

/// The id of what the event is about.
fn subject_id(event: &CanonicalEvent) -> Option<&str> {
    event.subject.as_ref().map(|subject| subject.id.as_str()).filter(|id| !id.is_empty())
}

fn signal(state: &mut Projection, event: &CanonicalEvent) {
    let payload = read::payload(event);
    let name = read::kept_id(payload, &["signalType", "signal_type"])
        .or_else(|| read::kept_id(&event.data, &["messageType"]));
    let signal = Signal {
        id: subject_id(event).map_or_else(|| event.id.to_string(), |id| read::id(id).to_owned()),
        name: name.unwrap_or_else(|| "Signal".to_owned()),
        severity: read::kept_id(payload, &["severity"]),
        source_participant_id: read::kept_id(&event.data, &["sender"]),
        ts: event.ts,
        confidence: read::number(payload, "confidence"),
        payload: read::bounded(payload, MAX_SIGNAL_PAYLOAD),
        acknowledged_at: None,
        acknowledged_by: None,
        sender_authenticated: event.data.get("senderAuthenticated").and_then(Value::as_bool),
    };
    push_capped(&mut state.signals.signals, signal, MAX_SIGNALS);
}

fn acknowledged(state: &mut Projection, event: &CanonicalEvent) {
    let named = read::text(read::payload(event), &["signalId", "signal_id"]);
    let Some(target) = named.or_else(|| subject_id(event)).map(read::id) else { return };
    let found = state.signals.signals.iter_mut().rev().find(|signal| signal.id == target);
    if let Some(signal) = found {
        signal.acknowledged_at = Some(event.ts);
        signal.acknowledged_by = read::kept_id(&event.data, &["sender"]);
    }
}

fn progress(state: &mut Projection, event: &CanonicalEvent) {
    let payload = read::payload(event);
    let entry = ProgressEntry {
        participant_id: read::kept_id(&event.data, &["sender"]).unwrap_or_default(),
        percentage: read::number(payload, "percentage")
            .or_else(|| read::number(payload, "progress")),
        message: read::kept_text(payload, &["message", "status"]).unwrap_or_default(),
        ts: event.ts,
    };
    push_capped(&mut state.progress.entries, entry, MAX_PROGRESS);
}

fn artifact(state: &mut Projection, event: &CanonicalEvent) {
    let id = subject_id(event).map_or_else(|| event.id.to_string(), |id| read::id(id).to_owned());
    if !state.trace.linked_artifacts.contains(&id) {
        push_capped(&mut state.trace.linked_artifacts, id, MAX_ARTIFACTS);
    }
}

fn policy_resolved(state: &mut Projection, event: &CanonicalEvent) {
    let payload = read::payload(event);
    let version = read::kept_id(payload, &["policyVersion", "policy_version"])
        .or_else(|| read::kept_id(&event.data, &["policyVersion"]))
        .unwrap_or_default();
    let bar = payload.get("rules").and_then(Bar::of_rules).or_else(|| Bar::of_policy(&version));
    if bar.is_some() || version != state.policy.policy_version {
        state.memory.bar = bar;
    }
    state.policy.policy_version = version;
    let description = read::kept_text(payload, &["description", "policyDescription"]);
    state.policy.policy_description = Some(description.unwrap_or_default());
    state.policy.resolved_at = Some(event.ts);
}

fn evaluated(state: &mut Projection, event: &CanonicalEvent) {
    let payload = read::payload(event);
    let evaluation = CommitmentEvaluation {
        commitment_id: read::kept_id(payload, &["commitmentId", "commitment_id"])
            .or_else(|| subject_id(event).map(|id| read::id(id).to_owned()))
            .unwrap_or_default(),
        decision: read::kept_id(payload, &["decision"]).unwrap_or_else(|| "allow".to_owned()),
        reasons: decision::listed_reasons(payload),
        ts: event.ts,
    };
    if evaluation.decision == "allow" {
        state.policy.quorum_status = Some("reached".to_owned());
    }
    push_capped(&mut state.policy.commitment_evaluations, evaluation, MAX_EVALUATIONS);
}

fn llm_call(state: &mut Projection, event: &CanonicalEvent) {
    static PRICES: std::sync::LazyLock<PriceTable> = std::sync::LazyLock::new(PriceTable::default);
    let payload = read::payload(event);
    let count = |name: &str| read::integer(payload, name).map(|count| count.max(0));
    let prompt_tokens = count("promptTokens").unwrap_or(0);
    let completion_tokens = count("completionTokens").unwrap_or(0);
    let sum = prompt_tokens.saturating_add(completion_tokens);
    let model = read::kept_id(payload, &["model"]);
    let call = LlmCall {
        participant_id: read::kept_id(&event.data, &["sender"]).unwrap_or_default(),
        estimated_cost_usd: PRICES.cost(model.as_deref(), prompt_tokens, completion_tokens),
        model,
        prompt_tokens,
        completion_tokens,
        total_tokens: count("totalTokens").unwrap_or(sum),
        latency_ms: read::number(payload, "latencyMs"),
        ts: event.ts,
        message_id: read::kept_id(&event.data, &["messageId"]),
        artifact_id: read::kept_id(payload, &["artifactId"]),
    };
    let totals = &mut state.llm.totals;
    totals.call_count = totals.call_count.saturating_add(1);
    totals.prompt_tokens = totals.prompt_tokens.saturating_add(call.prompt_tokens);
    totals.completion_tokens = totals.completion_tokens.saturating_add(call.completion_tokens);
    totals.total_tokens = totals.total_tokens.saturating_add(call.total_tokens);
    totals.estimated_cost_usd += call.estimated_cost_usd;
    push_capped(&mut state.llm.calls, call, MAX_CALLS);
}
