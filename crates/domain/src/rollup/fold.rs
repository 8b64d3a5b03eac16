//! What a run adds to the figures.

use serde_json::{Map, Value};

use super::{Amount, DECLINED, Figure, Figures, bin_of};
use crate::event::{CanonicalEvent, EventType};
use crate::metrics::RunMetrics;
use crate::outcome;
use crate::run::{Run, RunState};
use crate::time::Timestamp;

/// The code of a failure that has none.
const UNKNOWN: &str = "UNKNOWN";
/// Longest id of a participant, in bytes.
const MAX_ID: usize = 512;
/// What a dollar and a certainty are counted in.
const MILLION: f64 = 1_000_000.0;

/// What a run's record and figures add. It changes as they do.
pub fn standing(run: &Run, metrics: &RunMetrics) -> Figures {
    let mut figures = Figures::default();
    let created = run.created_at;
    figures.add(Figure::Created, "", created, Amount::new(1, 0));
    match run.state {
        RunState::Completed => {
            let declined = run.metadata.get("outcomePositive") == Some(&Value::Bool(false));
            let duration = run
                .started_at
                .zip(run.ended_at)
                .map(|(started, ended)| (ended - started).num_milliseconds().max(0));
            let subject = if declined { DECLINED } else { "" };
            let amount = Amount::new(1, duration.unwrap_or(0));
            figures.add(Figure::Completed, subject, created, amount);
            if let Some((duration, ended)) = duration.zip(run.ended_at) {
                let bin = bin_of(duration).to_string();
                figures.add(Figure::Ended, &bin, ended, amount);
            }
        }
        RunState::Failed => {
            let code = run.error_code.as_deref().unwrap_or(UNKNOWN);
            figures.add(Figure::Failed, code, created, Amount::new(1, 0));
        }
        RunState::Cancelled => figures.add(Figure::Cancelled, "", created, Amount::new(1, 0)),
        RunState::Queued
        | RunState::Starting
        | RunState::BindingSession
        | RunState::Running
        | RunState::Suspended => {}
    }
    let usage = Amount::new(metrics.total_tokens, millionths(metrics.estimated_cost_usd));
    if !usage.is_zero() {
        figures.add(Figure::Usage, "", created, usage);
    }
    figures
}

/// As much of an event as is counted.
#[derive(Debug, Clone, Copy)]
pub struct Fact<'a> {
    pub event_type: EventType,
    pub ts: Timestamp,
    /// The id of what the event is about.
    pub subject: Option<&'a str>,
    pub data: &'a Map<String, Value>,
}

impl<'a> From<&'a CanonicalEvent> for Fact<'a> {
    fn from(event: &'a CanonicalEvent) -> Self {
        Self {
            event_type: event.event_type,
            ts: event.ts,
            subject: event.subject.as_ref().map(|subject| subject.id.as_str()),
            data: &event.data,
        }
    }
}

impl Fact<'_> {
    /// Whether events of this type are counted at all.
    pub fn counts(event_type: EventType) -> bool {
        use EventType as Type;
        match event_type {
            Type::MessageSent
            | Type::MessageReceived
            | Type::MessageSendFailed
            | Type::SignalEmitted
            | Type::DecisionFinalized
            | Type::ParticipantSeen
            | Type::LlmCallCompleted => true,
            Type::RunCreated
            | Type::RunStarted
            | Type::RunCompleted
            | Type::RunFailed
            | Type::RunCancelled
            | Type::RunSuspended
            | Type::RunResumed
            | Type::SessionBound
            | Type::SessionStreamOpened
            | Type::SessionStreamGap
            | Type::SessionStreamDiverged
            | Type::SessionStateChanged
            | Type::SignalAcknowledged
            | Type::ProposalCreated
            | Type::ProposalUpdated
            | Type::DecisionProposed
            | Type::ProgressReported
            | Type::ToolCalled
            | Type::ToolCompleted
            | Type::ArtifactCreated
            | Type::PolicyResolved
            | Type::PolicyCommitmentEvaluated
            | Type::PolicyDenied => false,
        }
    }

    /// Who sent it, if somebody vouches for that.
    fn sender(&self) -> Option<&str> {
        let doubtful = self.data.get("senderAuthenticated") == Some(&Value::Bool(false));
        let sender = self.data.get("sender").and_then(Value::as_str);
        let sender = sender.filter(|sender| !sender.is_empty() && !doubtful)?;
        // As long as the id of a subject, which tells of the same participant.
        sender.get(..sender.floor_char_boundary(MAX_ID))
    }

    fn payload(&self) -> Option<&Map<String, Value>> {
        self.data.get("decodedPayload").or_else(|| self.data.get("payload"))?.as_object()
    }

    fn number(&self, field: &str) -> Option<f64> {
        self.payload()?.get(field)?.as_f64().filter(|number| number.is_finite())
    }
}

/// Adds what an event of a run that was created at `created` adds.
pub fn event(figures: &mut Figures, fact: &Fact<'_>, created: Timestamp) {
    let one = Amount::new(1, 0);
    match fact.event_type {
        EventType::ParticipantSeen => {
            if let Some(participant) = fact.subject {
                figures.add(Figure::AgentRuns, participant, created, one);
            }
        }
        EventType::MessageSent | EventType::MessageReceived | EventType::MessageSendFailed => {
            let Some(sender) = fact.sender() else { return };
            figures.add(Figure::AgentMessages, sender, created, one);
            if let Some(sure) = fact.number("confidence").filter(|sure| (0.0..=1.0).contains(sure))
            {
                let amount = Amount::new(1, millionths(sure));
                figures.add(Figure::AgentConfidence, sender, created, amount);
            }
        }
        EventType::SignalEmitted => {
            figures.add(Figure::Signals, "", fact.ts, one);
            if let Some(sender) = fact.sender() {
                figures.add(Figure::AgentSignals, sender, created, one);
            }
        }
        EventType::LlmCallCompleted => {
            let latency = fact.number("latencyMs").filter(|ms| *ms >= 0.0);
            if let Some((sender, ms)) = fact.sender().zip(latency) {
                figures.add(Figure::AgentLatency, sender, created, Amount::new(1, whole(ms)));
            }
        }
        EventType::DecisionFinalized => {
            let positive = fact.payload().and_then(outcome::is_positive);
            let amount = match positive {
                Some(true) => one,
                Some(false) => Amount::new(0, 1),
                None => return,
            };
            figures.add(Figure::Decisions, "", fact.ts, amount);
        }
        EventType::RunCreated
        | EventType::RunStarted
        | EventType::RunCompleted
        | EventType::RunFailed
        | EventType::RunCancelled
        | EventType::RunSuspended
        | EventType::RunResumed
        | EventType::SessionBound
        | EventType::SessionStreamOpened
        | EventType::SessionStreamGap
        | EventType::SessionStreamDiverged
        | EventType::SessionStateChanged
        | EventType::SignalAcknowledged
        | EventType::ProposalCreated
        | EventType::ProposalUpdated
        | EventType::DecisionProposed
        | EventType::ProgressReported
        | EventType::ToolCalled
        | EventType::ToolCompleted
        | EventType::ArtifactCreated
        | EventType::PolicyResolved
        | EventType::PolicyCommitmentEvaluated
        | EventType::PolicyDenied => {}
    }
}

fn millionths(value: f64) -> i64 {
    whole(value * MILLION)
}

#[expect(clippy::cast_possible_truncation, reason = "`as` saturates, and NaN is 0")]
fn whole(value: f64) -> i64 {
    value.round() as i64
}
