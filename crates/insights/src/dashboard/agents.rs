//! What each participant did.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use control_plane_domain::rollup::{Amount, Figure};
use control_plane_storage::{FilingFilter, Period, Result, Store};
use serde::Serialize;

use super::{Span, mean, ratio, rounded};

/// A participant's figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    pub participant_id: String,
    /// Runs that it was in, whether or not it said something.
    pub runs: i64,
    pub signals: i64,
    pub messages: i64,
    /// Of its messages that say how sure it is, from 0 to 1; 0 when none does.
    pub average_confidence: f64,
    /// How many those are.
    pub confidence_count: i64,
    /// Of its model calls that say how long they took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub average_latency_ms: Option<i64>,
}

#[derive(Default)]
struct Counts {
    runs: i64,
    signals: i64,
    messages: i64,
    confidence: Amount,
    latency: Amount,
}

/// The participants with the most runs that were created on the days of a period, most first.
///
/// # Errors
/// Those of the database.
pub async fn agents(
    store: &Store,
    span: Option<&Span>,
    filter: &FilingFilter,
    limit: usize,
) -> Result<Vec<Agent>> {
    let figures = [
        Figure::AgentRuns,
        Figure::AgentMessages,
        Figure::AgentSignals,
        Figure::AgentConfidence,
        Figure::AgentLatency,
    ];
    let period = span.map_or_else(Period::always, |span| Period::days(span.from, span.to));
    let totals = store.rollup_totals(&figures, period, filter.clone()).await?;
    let mut agents: BTreeMap<String, Counts> = BTreeMap::new();
    for total in totals {
        let counts = agents.entry(total.subject).or_default();
        match total.figure {
            Figure::AgentRuns => counts.runs = total.amount.count,
            Figure::AgentMessages => counts.messages = total.amount.count,
            Figure::AgentSignals => counts.signals = total.amount.count,
            Figure::AgentConfidence => counts.confidence = total.amount,
            Figure::AgentLatency => counts.latency = total.amount,
            Figure::Created
            | Figure::Completed
            | Figure::Failed
            | Figure::Cancelled
            | Figure::Usage
            | Figure::Ended
            | Figure::Signals
            | Figure::Decisions => {}
        }
    }
    let mut agents: Vec<Agent> =
        agents.into_iter().map(|(id, counts)| shown(id, &counts)).collect();
    // They come by their ids, and this keeps the order of equals.
    agents.sort_by_key(|agent| Reverse(agent.runs));
    agents.truncate(limit);
    Ok(agents)
}

fn shown(participant_id: String, counts: &Counts) -> Agent {
    let Amount { count, sum } = counts.confidence;
    let millionths = if count > 0 { ratio(sum, count) } else { 0.0 };
    Agent {
        participant_id,
        runs: counts.runs,
        signals: counts.signals,
        messages: counts.messages,
        average_confidence: rounded(millionths / 1_000_000.0, 4),
        confidence_count: count,
        average_latency_ms: mean(counts.latency),
    }
}
