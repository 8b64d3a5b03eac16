//! The fold of events into a run's figures (spec 11.8).
//!
//! **Invariant:** a model call is counted once, by its own event; and once the run's terminal event
//! is counted, its times stand still.

use control_plane_domain::metrics::RunMetrics;
use control_plane_domain::{CanonicalEvent, EventType};

use crate::price::PriceTable;
use crate::read;

/// Counts `event`. The caller sees to it that each event comes once.
pub fn apply(metrics: &mut RunMetrics, event: &CanonicalEvent, prices: &PriceTable) {
    let add = |count: &mut i64| *count = count.saturating_add(1);
    add(&mut metrics.event_count);
    let mut ends = false;
    match event.event_type {
        EventType::MessageSent | EventType::MessageReceived | EventType::MessageSendFailed => {
            add(&mut metrics.message_count);
        }
        EventType::SignalEmitted => add(&mut metrics.signal_count),
        EventType::ProposalCreated | EventType::ProposalUpdated => {
            add(&mut metrics.proposal_count);
        }
        EventType::ToolCalled | EventType::ToolCompleted => add(&mut metrics.tool_call_count),
        EventType::DecisionProposed | EventType::DecisionFinalized => {
            add(&mut metrics.decision_count);
        }
        EventType::SessionStreamOpened => {
            if read::text(&event.data, &["status"]) == Some("reconnecting") {
                add(&mut metrics.stream_reconnect_count);
            }
        }
        EventType::SessionStateChanged | EventType::SessionBound => {
            if let Some(state) = read::kept_id(&event.data, &["state"]) {
                metrics.session_state = Some(state);
            }
        }
        EventType::LlmCallCompleted => llm_call(metrics, event, prices),
        EventType::RunCompleted | EventType::RunFailed | EventType::RunCancelled => ends = true,
        EventType::RunCreated
        | EventType::RunStarted
        | EventType::RunSuspended
        | EventType::RunResumed
        | EventType::SessionStreamGap
        | EventType::SessionStreamDiverged
        | EventType::ParticipantSeen
        | EventType::SignalAcknowledged
        | EventType::ProgressReported
        | EventType::ArtifactCreated
        | EventType::PolicyResolved
        | EventType::PolicyCommitmentEvaluated
        | EventType::PolicyDenied => {}
    }
    if !metrics.ended {
        times(metrics, event);
        metrics.ended = ends;
    }
}

fn llm_call(metrics: &mut RunMetrics, event: &CanonicalEvent, prices: &PriceTable) {
    if read::is_doubtful(event) {
        return;
    }
    let call = read::payload(event);
    let count = |name: &str| read::integer(call, name).unwrap_or(0).max(0);
    let (prompt, completion) = (count("promptTokens"), count("completionTokens"));
    metrics.prompt_tokens = metrics.prompt_tokens.saturating_add(prompt);
    metrics.completion_tokens = metrics.completion_tokens.saturating_add(completion);
    metrics.total_tokens = metrics.prompt_tokens.saturating_add(metrics.completion_tokens);
    metrics.estimated_cost_usd += prices.cost(read::text(call, &["model"]), prompt, completion);
}

/// A session that was found late has events from before the run was made, hence earliest and
/// latest rather than first and last.
fn times(metrics: &mut RunMetrics, event: &CanonicalEvent) {
    let first = metrics.first_event_at.map_or(event.ts, |at| at.min(event.ts));
    let last = metrics.last_event_at.map_or(event.ts, |at| at.max(event.ts));
    metrics.first_event_at = Some(first);
    metrics.last_event_at = Some(last);
    metrics.duration_ms = Some((last - first).num_milliseconds());
}
