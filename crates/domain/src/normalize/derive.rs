//! The event that a message type stands for, and the few that come besides (spec 5.6, 4 and 5).
//!
//! **Invariant:** a message gives at most one `progress.reported` and one `policy.*` event, so that
//! nothing is counted twice.

use serde_json::{Map, Number, Value};

use super::{Message, insert, lift, text_of};
use crate::event::{EventDraft, EventType, SubjectKind};

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
const DECISION_IDS: &[&str] = &["commitmentId", "commitment_id", "decisionId", "decision_id"];
const SIGNAL_IDS: &[&str] = &["signalId", "signal_id"];
const TOOL_IDS: &[&str] = &["toolCallId", "tool_call_id", "requestId", "request_id"];
const POLICY_IDS: &[&str] = &["policyId", "policy_id", "policyVersion", "policy_version"];
const EVALUATION_IDS: &[&str] = &["commitmentId", "commitment_id"];
const DENIAL_IDS: &[&str] = &["commitmentId", "commitment_id", "policyId", "policy_id"];

/// What a message type becomes; the subject's id is the first of `ids`, else the message's.
struct Rule {
    event_type: EventType,
    subject: SubjectKind,
    ids: &'static [&'static str],
}

fn rule(message_type: &str) -> Option<Rule> {
    use EventType as Event;
    let (event_type, subject, ids) = match message_type {
        "Signal" => (Event::SignalEmitted, SubjectKind::Signal, &[] as &[_]),
        "SignalAck" | "SignalAcknowledged" => {
            (Event::SignalAcknowledged, SubjectKind::Signal, SIGNAL_IDS)
        }
        "Commitment" => (Event::DecisionFinalized, SubjectKind::Decision, DECISION_IDS),
        "Proposal" | "CounterProposal" | "ApprovalRequest" | "TaskRequest" | "HandoffOffer" => {
            (Event::ProposalCreated, SubjectKind::Proposal, PROPOSAL_IDS)
        }
        "Evaluation" | "Objection" | "Vote" | "Accept" | "Reject" | "Withdraw" | "Approve"
        | "Abstain" | "TaskAccept" | "TaskReject" | "TaskUpdate" | "TaskComplete" | "TaskFail"
        | "HandoffContext" | "HandoffAccept" | "HandoffDecline" | "Contribute" => {
            (Event::ProposalUpdated, SubjectKind::Proposal, PROPOSAL_IDS)
        }
        "Progress" => (Event::ProgressReported, SubjectKind::Message, &[] as &[_]),
        "PolicyResolved" => (Event::PolicyResolved, SubjectKind::Policy, POLICY_IDS),
        "PolicyCommitmentEvaluated" => {
            (Event::PolicyCommitmentEvaluated, SubjectKind::Policy, EVALUATION_IDS)
        }
        "PolicyDenied" => (Event::PolicyDenied, SubjectKind::Policy, DENIAL_IDS),
        other => {
            let is = |name: &str| other.eq_ignore_ascii_case(name);
            if is("ToolCall") || is("ToolRequest") {
                (Event::ToolCalled, SubjectKind::Tool, TOOL_IDS)
            } else if is("ToolResult") || is("ToolCompleted") || is("ToolOutput") {
                (Event::ToolCompleted, SubjectKind::Tool, TOOL_IDS)
            } else {
                return None;
            }
        }
    };
    Some(Rule { event_type, subject, ids })
}

/// The event of the message's type. Takes the decoded payload: it is the last to need it.
pub(super) fn derived(message: &mut Message<'_>) -> Option<EventDraft> {
    let rule = rule(&message.envelope.message_type)?;
    let mut data = message.base();
    if let Some(type_name) = message.decoded.type_name {
        insert(&mut data, "payloadTypeName", type_name);
    }
    let named = message.named();
    let id = named.and_then(|fields| text_of(fields, rule.ids));
    let id = id.unwrap_or(&message.envelope.message_id).to_owned();
    if let Some(fields) = named {
        if rule.event_type == EventType::PolicyResolved
            && let Some(version) =
                text_of(fields, &["policyVersion", "policy_version", "policyId", "policy_id"])
        {
            insert(&mut data, "policyVersion", version);
        }
        lift(&mut data, fields);
    }
    let mut payload = message.decoded.fields.take();
    if rule.event_type == EventType::ProgressReported {
        let mut fields = payload.unwrap_or_default();
        complete_progress(&mut data, &mut fields);
        payload = Some(fields);
    }
    if let Some(fields) = payload {
        data.insert("decodedPayload".to_owned(), Value::Object(fields));
    }
    Some(message.draft(rule.event_type, rule.subject, &id, data))
}

/// A `Progress` with its percentage worked out and its message there, if only empty.
fn complete_progress(data: &mut Map<String, Value>, fields: &mut Map<String, Value>) {
    let number = |name: &str| fields.get(name).and_then(Value::as_f64);
    let percentage = match (number("progress"), number("total")) {
        (Some(progress), Some(total)) if total > 0.0 => percent(progress / total * 100.0),
        (Some(progress), _) => percent_of(progress),
        (None, _) => None,
    };
    if let Some(percentage) = percentage {
        data.insert("percentage".to_owned(), percentage.clone());
        fields.insert("percentage".to_owned(), percentage);
    }
    fields.entry("message").or_insert_with(|| Value::String(String::new()));
    data.entry("message").or_insert_with(|| Value::String(String::new()));
}

/// The events besides: progress that a task message tells of, and a denial that any message can.
pub(super) fn extra(message: &Message<'_>) -> Vec<EventDraft> {
    let mut drafts = Vec::new();
    drafts.extend(task_progress(message));
    drafts.extend(denial(message));
    drafts
}

fn task_progress(message: &Message<'_>) -> Option<EventDraft> {
    let empty = Map::new();
    let fields = message.named().unwrap_or(&empty);
    let (percentage, text) = match message.envelope.message_type.as_str() {
        "TaskUpdate" => {
            let progress = fields.get("progress")?.as_f64()?;
            (percent_of(progress), text_of(fields, &["message", "status"]).unwrap_or(""))
        }
        "TaskComplete" => (percent(100.0), "completed"),
        "TaskFail" => (None, text_of(fields, &["reason"]).unwrap_or("failed")),
        _ => return None,
    };
    let mut progress = Map::new();
    if let Some(percentage) = percentage {
        progress.insert("percentage".to_owned(), percentage);
    }
    insert(&mut progress, "message", text);
    let mut data = message.base();
    lift(&mut data, &progress);
    if let Some(task) = text_of(fields, &["taskId", "task_id"]) {
        insert(&mut data, "taskId", task);
    }
    data.insert("decodedPayload".to_owned(), Value::Object(progress));
    let id = &message.envelope.message_id;
    Some(message.draft(EventType::ProgressReported, SubjectKind::Message, id, data))
}

fn denial(message: &Message<'_>) -> Option<EventDraft> {
    let fields = message.named()?;
    if fields.get("policyDenied") != Some(&Value::Bool(true)) {
        return None;
    }
    // A message about a policy is one event already.
    if rule(&message.envelope.message_type)
        .is_some_and(|rule| matches!(rule.subject, SubjectKind::Policy))
    {
        return None;
    }
    let id = text_of(fields, DENIAL_IDS).unwrap_or(&message.envelope.message_id);
    let mut data = message.base();
    lift(&mut data, fields);
    data.insert("decodedPayload".to_owned(), Value::Object(fields.clone()));
    Some(message.draft(EventType::PolicyDenied, SubjectKind::Policy, id, data))
}

/// Senders report a fraction or a percentage; up to 1 it is taken for a fraction.
fn percent_of(progress: f64) -> Option<Value> {
    percent(if progress <= 1.0 { progress * 100.0 } else { progress })
}

fn percent(value: f64) -> Option<Value> {
    if value.is_nan() {
        return None;
    }
    Number::from_f64(value.clamp(0.0, 100.0)).map(Value::Number)
}
