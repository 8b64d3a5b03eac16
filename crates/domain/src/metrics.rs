//! The figures of a run (spec 11.8). The fold that makes them is in the projection crate.

use serde::{Deserialize, Serialize};

use crate::id::RunId;
use crate::time::{self, Timestamp};

/// Counts and sums over a run's canonical events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunMetrics {
    pub run_id: RunId,
    pub event_count: i64,
    pub message_count: i64,
    pub signal_count: i64,
    pub proposal_count: i64,
    pub tool_call_count: i64,
    pub decision_count: i64,
    pub stream_reconnect_count: i64,
    pub prompt_tokens: i64,
    pub completion_tokens: i64,
    pub total_tokens: i64,
    pub estimated_cost_usd: f64,
    #[serde(with = "time::millis_option")]
    pub first_event_at: Option<Timestamp>,
    /// Stands still once the run has ended.
    #[serde(with = "time::millis_option")]
    pub last_event_at: Option<Timestamp>,
    pub duration_ms: Option<i64>,
    pub session_state: Option<String>,
    /// Whether the run's terminal event has been counted.
    #[serde(skip)]
    pub ended: bool,
}

impl RunMetrics {
    /// Nothing counted yet.
    pub fn empty(run_id: RunId) -> Self {
        Self {
            run_id,
            event_count: 0,
            message_count: 0,
            signal_count: 0,
            proposal_count: 0,
            tool_call_count: 0,
            decision_count: 0,
            stream_reconnect_count: 0,
            prompt_tokens: 0,
            completion_tokens: 0,
            total_tokens: 0,
            estimated_cost_usd: 0.0,
            first_event_at: None,
            last_event_at: None,
            duration_ms: None,
            session_state: None,
            ended: false,
        }
    }
}
