//! The sections of a run's state, as clients read them (spec 6.1).
//!
//! **Invariant:** every list has a bound, so that the state of a run does not grow with its log.

use std::collections::VecDeque;

use control_plane_domain::event::Subject;
use control_plane_domain::time;
use control_plane_domain::{EventId, EventType, RunId, RunState, Seq, Timestamp};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::keyed::{Keyed, KeyedList};

/// Most participants.
pub(crate) const MAX_PARTICIPANTS: usize = 1000;
/// Most nodes of the graph: the participants and a few of its own.
pub(crate) const MAX_NODES: usize = 1010;
pub(crate) const MAX_EDGES: usize = 300;
pub(crate) const MAX_CONTRIBUTIONS: usize = 50;
pub(crate) const MAX_ANOMALIES: usize = 50;
pub(crate) const MAX_SIGNALS: usize = 200;
pub(crate) const MAX_PROGRESS: usize = 100;
pub(crate) const MAX_RECENT: usize = 50;
pub(crate) const MAX_ARTIFACTS: usize = 500;
pub(crate) const MAX_EVALUATIONS: usize = 50;
pub(crate) const MAX_EXPECTED: usize = 100;
pub(crate) const MAX_TALLIES: usize = 100;
pub(crate) const MAX_CALLS: usize = 100;

/// `null` is an answer, absence is none.
fn answered<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<bool>>, D::Error> {
    Option::<bool>::deserialize(deserializer).map(Some)
}

/// `run`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunSummary {
    pub run_id: RunId,
    pub status: RunState,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub runtime_session_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mode_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub context_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub extension_keys: Option<Vec<String>>,
    /// Of a run that failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub history_gap: Option<HistoryGap>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub diverged: Option<Divergence>,
}

/// What of the session's history is not in the log and cannot be read any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryGap {
    /// The first ordinal missing.
    pub from_ordinal: i64,
    /// The last one missing; none when nobody can say where the history ended.
    pub to_ordinal: Option<i64>,
    /// How many are known to be missing in all.
    pub missing: i64,
}

/// That the session's id stands for another history now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Divergence {
    /// Up to which ordinal the log tells the first history.
    pub ordinal: i64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
    #[serde(with = "time::millis")]
    pub ts: Timestamp,
}

/// How a participant, or a node of the graph, is doing. In the order in which a node rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Idle,
    Waiting,
    Active,
    Completed,
    Failed,
    /// Over before it did anything.
    Skipped,
}

impl Status {
    /// Whether nothing more is expected.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Skipped)
    }
}

/// One of `participants`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Participant {
    pub participant_id: String,
    pub status: Status,
    #[serde(with = "time::millis_option", skip_serializing_if = "Option::is_none", default)]
    pub latest_activity_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub latest_summary: Option<String>,
}

impl Keyed for Participant {
    fn key(&self) -> &str {
        &self.participant_id
    }
}

/// `graph`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Graph {
    pub nodes: KeyedList<Node, MAX_NODES>,
    pub edges: VecDeque<Edge>,
}

/// A participant, or a step of the session's life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    pub id: String,
    pub kind: String,
    pub status: Status,
}

impl Keyed for Node {
    fn key(&self) -> &str {
        &self.id
    }
}

/// The last time that something went from one node to another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Edge {
    pub from: String,
    pub to: String,
    pub kind: String,
    #[serde(with = "time::millis")]
    pub ts: Timestamp,
}

/// `decision`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub current: Option<Finding>,
    /// Messages that the mode's rules discard, in the SDKs' words.
    #[serde(skip_serializing_if = "VecDeque::is_empty", default)]
    pub anomalies: VecDeque<Anomaly>,
}

/// Where the session's decision stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    pub action: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub confidence: Option<f64>,
    #[serde(default)]
    pub reasons: Vec<String>,
    pub finalized: bool,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub proposal_id: Option<String>,
    /// Absent before the decision; `null` when it does not say.
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "answered")]
    pub outcome_positive: Option<Option<bool>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub prompt: Option<String>,
    #[serde(default)]
    pub proposals: VecDeque<Contribution>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub commitment_id: Option<String>,
    #[serde(with = "time::millis_option", skip_serializing_if = "Option::is_none", default)]
    pub resolved_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub resolved_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub supersedes: Option<Supersedes>,
    /// `receipt` when the Commitment itself was not seen.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source: Option<String>,
}

/// The commitment of another session that this one replaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Supersedes {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub session_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub commitment_hash: Option<String>,
}

/// A proposal, or what somebody said of one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Contribution {
    pub participant_id: String,
    pub action: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub confidence: Option<f64>,
    pub reasons: Vec<String>,
    #[serde(with = "time::millis")]
    pub ts: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub vote: Option<Vote>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub proposal_id: Option<String>,
}

/// How somebody voted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Vote {
    Allow,
    Deny,
    Abstain,
}

/// A message that was accepted and that the mode's rules say does not count.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Anomaly {
    /// `duplicate_vote`, `duplicate_ballot`, `duplicate_task_accept`, `settled_handoff` or
    /// `duplicate_commitment`.
    pub kind: String,
    pub message_type: String,
    pub message_id: String,
    pub sender: String,
    pub subject_id: String,
    pub detail: String,
    pub seq: Seq,
    #[serde(with = "time::millis")]
    pub ts: Timestamp,
}

/// `signals`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Signals {
    pub signals: VecDeque<Signal>,
}

/// A signal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Signal {
    pub id: String,
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub severity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source_participant_id: Option<String>,
    #[serde(with = "time::millis")]
    pub ts: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub confidence: Option<f64>,
    /// Absent when it is too large for a state; the event has it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub payload: Option<Map<String, Value>>,
    #[serde(with = "time::millis_option", skip_serializing_if = "Option::is_none", default)]
    pub acknowledged_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub acknowledged_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sender_authenticated: Option<bool>,
}

/// `progress`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    pub entries: VecDeque<ProgressEntry>,
}

/// How far somebody said to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProgressEntry {
    pub participant_id: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub percentage: Option<f64>,
    pub message: String,
    #[serde(with = "time::millis")]
    pub ts: Timestamp,
}

/// `timeline`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeline {
    pub latest_seq: Seq,
    pub total_events: i64,
    pub recent: VecDeque<TimelineEntry>,
}

/// One of the last events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TimelineEntry {
    pub id: EventId,
    pub seq: Seq,
    #[serde(with = "time::millis")]
    pub ts: Timestamp,
    #[serde(rename = "type")]
    pub event_type: EventType,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub subject: Option<Subject>,
}

/// `trace`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trace_id: Option<String>,
    pub span_count: i64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_span_id: Option<String>,
    pub linked_artifacts: VecDeque<String>,
}

/// `outboundMessages`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboundMessages {
    pub total: i64,
    pub queued: i64,
    pub accepted: i64,
    pub rejected: i64,
}

/// `policy`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    pub policy_version: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub policy_description: Option<String>,
    #[serde(with = "time::millis_option", skip_serializing_if = "Option::is_none", default)]
    pub resolved_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "answered")]
    pub outcome_positive: Option<Option<bool>>,
    pub commitment_evaluations: VecDeque<CommitmentEvaluation>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expected_commitments: Option<Vec<Value>>,
    #[serde(skip_serializing_if = "VecDeque::is_empty", default)]
    pub vote_tally: VecDeque<VoteTally>,
    /// `pending`, `reached` or `failed`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub quorum_status: Option<String>,
}

/// What a policy said of a commitment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommitmentEvaluation {
    pub commitment_id: String,
    pub decision: String,
    pub reasons: Vec<String>,
    #[serde(with = "time::millis")]
    pub ts: Timestamp,
}

/// The votes on one proposal: one for each participant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VoteTally {
    /// The proposal, under the name that consoles know.
    pub commitment_id: String,
    pub proposal_id: String,
    pub allow: i64,
    pub deny: i64,
    pub abstain: i64,
    /// The approvals needed.
    pub threshold: i64,
    pub quorum: Quorum,
}

/// How many may vote, and how many did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quorum {
    pub required: i64,
    pub cast: i64,
}

/// `llm`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Llm {
    pub calls: VecDeque<LlmCall>,
    pub totals: LlmTotals,
}

/// A model call that a participant reported.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LlmCall {
    pub participant_id: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub model: Option<String>,
    pub prompt_tokens: i64,
    pub completion_tokens: i64,
    pub total_tokens: i64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub latency_ms: Option<f64>,
    #[serde(with = "time::millis")]
    pub ts: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub artifact_id: Option<String>,
    pub estimated_cost_usd: f64,
}

/// Sums over all calls, those that are not listed any more included.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LlmTotals {
    pub call_count: i64,
    pub prompt_tokens: i64,
    pub completion_tokens: i64,
    pub total_tokens: i64,
    pub estimated_cost_usd: f64,
}
