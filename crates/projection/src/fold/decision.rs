//! Proposals, what is said of them, and the decision (spec 6.9).
//!
//! **Invariant:** a decision that is final stays as it is: what comes later is listed and counted,
//! and changes neither its action nor its proposal.

use std::collections::VecDeque;

use control_plane_domain::{CanonicalEvent, outcome};

use super::{subject_id, tally};
use crate::projection::Projection;
use crate::read::{self, Fields, push_capped};
use crate::sections::{
    Anomaly, Contribution, Finding, MAX_ANOMALIES, MAX_CONTRIBUTIONS, Supersedes, Vote,
};

const PROPOSAL_IDS: &[&str] = &[
    "proposalId",
    "proposal_id",
    "requestId",
    "request_id",
    "taskId",
    "task_id",
    "handoffId",
    "handoff_id",
];
/// Most reasons that are kept of one message.
const MAX_REASONS: usize = 20;

/// A message about a proposal, as the fold reads it.
pub(super) struct Said<'a> {
    pub(super) event: &'a CanonicalEvent,
    pub(super) payload: &'a Fields,
    pub(super) message_type: &'a str,
    pub(super) mode: &'a str,
    pub(super) sender: &'a str,
    /// Empty when the message names none.
    pub(super) proposal_id: String,
}

impl<'a> Said<'a> {
    fn read(event: &'a CanonicalEvent) -> Self {
        let payload = read::payload(event);
        let text = |name: &str| read::text(&event.data, &[name]).unwrap_or("");
        let message_type = text("messageType");
        let named = read::kept_id(payload, PROPOSAL_IDS).or_else(|| {
            // An event is about its own message where nothing else is named; as the id of a
            // proposal that would make one of every contribution.
            subject_id(event)
                .filter(|id| message_type != "Contribute" && *id != text("messageId"))
                .map(|id| read::id(id).to_owned())
        });
        Self {
            event,
            payload,
            message_type,
            mode: text("modeName"),
            sender: read::id(text("sender")),
            proposal_id: named.unwrap_or_default(),
        }
    }

    /// Evaluations and objections are opinions, never votes.
    fn vote(&self) -> Option<Vote> {
        if matches!(self.message_type, "Evaluation" | "Objection") {
            return None;
        }
        let told = read::text(self.payload, &["vote"]).map(str::to_uppercase);
        match told.as_deref() {
            Some("APPROVE" | "ACCEPT" | "ALLOW" | "YES") => return Some(Vote::Allow),
            Some("REJECT" | "DENY" | "BLOCK" | "NO") => return Some(Vote::Deny),
            Some("ABSTAIN") => return Some(Vote::Abstain),
            Some(_) | None => {}
        }
        match self.message_type {
            "Accept" | "Approve" | "TaskAccept" | "HandoffAccept" => Some(Vote::Allow),
            "Reject" | "TaskReject" | "HandoffDecline" => Some(Vote::Deny),
            "Abstain" => Some(Vote::Abstain),
            _ => None,
        }
    }

    fn contribution(&self, vote: Option<Vote>) -> Contribution {
        let action = ["vote", "recommendation", "action", "option", "revisedAction"]
            .into_iter()
            .find_map(|name| read::kept_text(self.payload, &[name]));
        let value = || match self.message_type {
            "Contribute" => read::kept_text(self.payload, &["value"]),
            _ => None,
        };
        let message_type = Some(self.message_type.to_owned()).filter(|name| !name.is_empty());
        let confidence = read::number(self.payload, "confidence");
        Contribution {
            participant_id: self.sender.to_owned(),
            action: action
                .or_else(value)
                .or_else(|| message_type.clone())
                .unwrap_or_else(|| "contribution".to_owned()),
            confidence: confidence.or_else(|| (self.message_type == "Vote").then_some(1.0)),
            reasons: reasons(self.payload),
            ts: self.event.ts,
            vote,
            message_type,
            proposal_id: Some(self.proposal_id.clone()).filter(|id| !id.is_empty()),
        }
    }
}

/// `proposal.created` and `proposal.updated`.
pub(super) fn said(state: &mut Projection, event: &CanonicalEvent) {
    let said = Said::read(event);
    let vote = said.vote();
    tally::count(state, &said, vote);
    let contribution = said.contribution(vote);
    let share = tally::share(state, &said.proposal_id);
    let mut current = state.decision.current.take().unwrap_or_default();
    if !current.finalized {
        current.action = if !said.proposal_id.is_empty() {
            said.proposal_id.clone()
        } else if said.message_type == "Contribute" {
            contribution.action.clone()
        } else {
            subject_id(event).map_or("proposal", read::id).to_owned()
        };
        current.confidence =
            share.or_else(|| read::number(said.payload, "confidence")).or(current.confidence);
        let reason = read::kept_text(said.payload, &["reason", "summary", "rationale"]);
        current.reasons = vec![reason.unwrap_or_else(|| event.event_type.as_str().to_owned())];
        if !said.proposal_id.is_empty() {
            current.proposal_id = Some(said.proposal_id.clone());
        }
    }
    push_capped(&mut current.proposals, contribution, MAX_CONTRIBUTIONS);
    state.decision.current = Some(current);
}

/// `decision.finalized`.
pub(super) fn finalized(state: &mut Projection, event: &CanonicalEvent) {
    let payload = read::payload(event);
    let commitment_id = read::kept_id(payload, &["commitmentId", "commitment_id"])
        .or_else(|| subject_id(event).map(|id| read::id(id).to_owned()));
    let current = state.decision.current.take().unwrap_or_default();
    if current.finalized {
        let detail = match &current.commitment_id {
            Some(first) => format!("kept the first commitment {first}"),
            None => "kept the first commitment".to_owned(),
        };
        state.decision.current = Some(current);
        anomaly(state, event, "duplicate_commitment", commitment_id.unwrap_or_default(), detail);
        return;
    }
    let action = read::kept_text(payload, &["action"]).unwrap_or_else(|| "resolved".to_owned());
    let outcome = outcome::is_positive(payload);
    // A session with no proposal (or one whose start we never saw) is known by its commitment.
    let proposal_id = current.proposal_id.or_else(|| commitment_id.clone());
    let share = proposal_id.as_deref().and_then(|id| tally::share(state, id));
    let reason = read::kept_text(payload, &["reason"]);
    state.decision.current = Some(Finding {
        action,
        confidence: read::number(payload, "confidence").or(share).or(current.confidence),
        reasons: vec![reason.unwrap_or_else(|| "Commitment observed".to_owned())],
        finalized: true,
        proposal_id: Some(proposal_id.unwrap_or_default()),
        outcome_positive: Some(outcome),
        prompt: current.prompt,
        proposals: current.proposals,
        commitment_id,
        resolved_at: Some(event.ts),
        resolved_by: read::kept_id(&event.data, &["sender"]),
        supersedes: superseded(payload),
        source: read::kept_id(&event.data, &["source"]),
    });
    let policy = &mut state.policy;
    policy.outcome_positive = Some(outcome);
    policy.resolved_at.get_or_insert(event.ts);
    if matches!(policy.quorum_status.as_deref(), None | Some("pending")) {
        let status = if outcome == Some(false) { "failed" } else { "reached" };
        policy.quorum_status = Some(status.to_owned());
    }
}

/// Notes a message that does not count.
pub(super) fn anomaly(
    state: &mut Projection,
    event: &CanonicalEvent,
    kind: &str,
    subject: String,
    detail: String,
) {
    let text = |name: &str| read::kept_id(&event.data, &[name]).unwrap_or_default();
    let anomaly = Anomaly {
        kind: kind.to_owned(),
        message_type: text("messageType"),
        message_id: text("messageId"),
        sender: text("sender"),
        subject_id: subject,
        detail,
        seq: event.seq,
        ts: event.ts,
    };
    push_capped(&mut state.decision.anomalies, anomaly, MAX_ANOMALIES);
}

/// The texts of `reasons`.
pub(super) fn listed_reasons(payload: &Fields) -> Vec<String> {
    let listed = read::texts(payload, "reasons").unwrap_or_default();
    listed.into_iter().take(MAX_REASONS).map(str::to_owned).collect()
}

fn reasons(payload: &Fields) -> Vec<String> {
    let single = ["reason", "rationale", "summary"].into_iter();
    let mut reasons: VecDeque<String> =
        single.filter_map(|name| read::kept_text(payload, &[name])).collect();
    reasons.extend(listed_reasons(payload));
    reasons.truncate(MAX_REASONS);
    reasons.into()
}

fn superseded(payload: &Fields) -> Option<Supersedes> {
    let reference = payload.get("supersedes")?.as_object()?;
    let session_id = read::kept_id(reference, &["sessionId", "session_id"]);
    let commitment_hash = read::kept_id(reference, &["commitmentHash", "commitment_hash"]);
    (session_id.is_some() || commitment_hash.is_some())
        .then_some(Supersedes { session_id, commitment_hash })
}
