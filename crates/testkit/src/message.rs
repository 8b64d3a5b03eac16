//! What agents say: a message type and its encoded payload, for every standard mode, the
//! multi-round extension and the ambient plane.
//!
//! **Invariant:** payloads are canonical protobuf, as the SDKs send them.

use control_plane_domain::SessionId;
use control_plane_runtime::proto;
use control_plane_runtime::proto::modes::{
    decision as decision_pb, handoff as handoff_pb, multi_round as multi_round_pb,
    proposal as proposal_pb, quorum as quorum_pb, task as task_pb,
};
use serde_json::Value;

/// `macp.mode.decision.v1`
pub const DECISION: &str = "macp.mode.decision.v1";
/// `macp.mode.proposal.v1`
pub const PROPOSAL: &str = "macp.mode.proposal.v1";
/// `macp.mode.task.v1`
pub const TASK: &str = "macp.mode.task.v1";
/// `macp.mode.handoff.v1`
pub const HANDOFF: &str = "macp.mode.handoff.v1";
/// `macp.mode.quorum.v1`
pub const QUORUM: &str = "macp.mode.quorum.v1";
/// `ext.multi_round.v1`
pub const MULTI_ROUND: &str = "ext.multi_round.v1";

/// The mode version that every session here has.
pub const MODE_VERSION: &str = "1.0.0";
/// The configuration version that every session here has.
pub const CONFIGURATION_VERSION: &str = "config.default";
/// The policy of sessions that name none.
pub const POLICY_VERSION: &str = "policy.default";

/// A message before it has an id, a session and a sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `Proposal`, `Vote`, …
    pub message_type: &'static str,
    /// Encoded.
    pub payload: Vec<u8>,
}

impl Message {
    /// Any payload; also one that does not decode.
    pub fn raw(message_type: &'static str, payload: impl Into<Vec<u8>>) -> Self {
        Self { message_type, payload: payload.into() }
    }

    fn of(message_type: &'static str, payload: &impl prost::Message) -> Self {
        Self { message_type, payload: payload.encode_to_vec() }
    }
}

/// `Commitment`, in every mode, under the default policy. A negative one has no
/// `outcome_positive` on the wire.
pub fn commitment(commitment_id: &str, action: &str, outcome: Outcome) -> Message {
    commitment_under(POLICY_VERSION, commitment_id, action, outcome)
}

/// `Commitment` that replaces the decision of another session, whose hash is `commitment_hash`.
pub fn commitment_instead_of(session: &SessionId, commitment_hash: &str, action: &str) -> Message {
    let plain = payload(POLICY_VERSION, "c1", action, Outcome::Positive);
    let supersedes = Some(proto::CommitmentRef {
        session_id: session.as_str().to_owned(),
        commitment_hash: commitment_hash.to_owned(),
    });
    Message::of("Commitment", &proto::CommitmentPayload { supersedes, ..plain })
}

/// `Commitment` in a session that is bound to another policy.
pub fn commitment_under(
    policy_version: &str,
    commitment_id: &str,
    action: &str,
    outcome: Outcome,
) -> Message {
    Message::of("Commitment", &payload(policy_version, commitment_id, action, outcome))
}

fn payload(
    policy_version: &str,
    commitment_id: &str,
    action: &str,
    outcome: Outcome,
) -> proto::CommitmentPayload {
    proto::CommitmentPayload {
        commitment_id: commitment_id.to_owned(),
        action: action.to_owned(),
        authority_scope: "session".to_owned(),
        reason: format!("{action} by the initiator"),
        mode_version: MODE_VERSION.to_owned(),
        policy_version: policy_version.to_owned(),
        configuration_version: CONFIGURATION_VERSION.to_owned(),
        outcome_positive: outcome == Outcome::Positive,
        supersedes: None,
    }
}

/// How a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// What was proposed is done.
    Positive,
    /// It is not.
    Negative,
}

/// `Signal`: ambient, about `session_id`.
pub fn signal(signal_type: &str, session_id: &str, data: &Value) -> Message {
    Message::of(
        "Signal",
        &proto::SignalPayload {
            signal_type: signal_type.to_owned(),
            data: data.to_string().into_bytes(),
            confidence: 0.5,
            correlation_session_id: session_id.to_owned(),
        },
    )
}

/// The signal by which an agent reports a call of a language model.
pub fn llm_call(
    session_id: &str,
    model: &str,
    prompt_tokens: u64,
    completion_tokens: u64,
) -> Message {
    signal(
        "llm.call.completed",
        session_id,
        &serde_json::json!({
            "model": model,
            "promptTokens": prompt_tokens,
            "completionTokens": completion_tokens,
            "latencyMs": 120,
        }),
    )
}

/// `Progress`.
pub fn progress(token: &str, progress: f64, total: f64, text: &str) -> Message {
    Message::of(
        "Progress",
        &proto::ProgressPayload {
            progress_token: token.to_owned(),
            progress,
            total,
            message: text.to_owned(),
            target_message_id: String::new(),
        },
    )
}

/// `Progress` that says only which message it is about.
pub fn progress_on(target_message_id: &str) -> Message {
    Message::of(
        "Progress",
        &proto::ProgressPayload {
            progress_token: "work".to_owned(),
            progress: 1.0,
            total: 2.0,
            message: "getting there".to_owned(),
            target_message_id: target_message_id.to_owned(),
        },
    )
}

/// Decision mode.
pub mod decision {
    use super::{Message, decision_pb as pb};

    /// `Proposal`.
    pub fn proposal(proposal_id: &str, option: &str) -> Message {
        proposal_with_data(proposal_id, option, &[])
    }

    /// `Proposal` with supporting data.
    pub fn proposal_with_data(proposal_id: &str, option: &str, data: &[u8]) -> Message {
        Message::of(
            "Proposal",
            &pb::ProposalPayload {
                proposal_id: proposal_id.to_owned(),
                option: option.to_owned(),
                rationale: format!("because of {option}"),
                supporting_data: data.to_vec(),
            },
        )
    }

    /// `Evaluation`; `APPROVE`, `REVIEW`, `BLOCK` or `REJECT`.
    pub fn evaluation(proposal_id: &str, recommendation: &str, confidence: f64) -> Message {
        Message::of(
            "Evaluation",
            &pb::EvaluationPayload {
                proposal_id: proposal_id.to_owned(),
                recommendation: recommendation.to_owned(),
                confidence,
                reason: format!("{recommendation} after a look"),
            },
        )
    }

    /// `Objection`; `low`, `medium`, `high` or `critical`.
    pub fn objection(proposal_id: &str, severity: &str) -> Message {
        Message::of(
            "Objection",
            &pb::ObjectionPayload {
                proposal_id: proposal_id.to_owned(),
                reason: format!("a {severity} concern"),
                severity: severity.to_owned(),
            },
        )
    }

    /// `Vote`; `APPROVE`, `REJECT` or `ABSTAIN`.
    pub fn vote(proposal_id: &str, vote: &str) -> Message {
        Message::of(
            "Vote",
            &pb::VotePayload {
                proposal_id: proposal_id.to_owned(),
                vote: vote.to_owned(),
                reason: format!("{vote} it is"),
            },
        )
    }
}

/// Proposal mode.
pub mod proposal {
    use super::{Message, proposal_pb as pb};

    /// `Proposal`.
    pub fn proposal(proposal_id: &str, title: &str) -> Message {
        Message::of(
            "Proposal",
            &pb::ProposalPayload {
                proposal_id: proposal_id.to_owned(),
                title: title.to_owned(),
                summary: format!("an offer: {title}"),
                details: Vec::new(),
                tags: vec!["test".to_owned()],
            },
        )
    }

    /// `CounterProposal`.
    pub fn counter_proposal(proposal_id: &str, supersedes: &str, title: &str) -> Message {
        Message::of(
            "CounterProposal",
            &pb::CounterProposalPayload {
                proposal_id: proposal_id.to_owned(),
                supersedes_proposal_id: supersedes.to_owned(),
                title: title.to_owned(),
                summary: format!("a counteroffer: {title}"),
                details: Vec::new(),
            },
        )
    }

    /// `Accept`.
    pub fn accept(proposal_id: &str) -> Message {
        let (proposal_id, reason) = (proposal_id.to_owned(), "fine".to_owned());
        Message::of("Accept", &pb::AcceptPayload { proposal_id, reason })
    }

    /// `Reject` that leaves room to go on.
    pub fn reject(proposal_id: &str) -> Message {
        let (proposal_id, reason) = (proposal_id.to_owned(), "too little".to_owned());
        Message::of("Reject", &pb::RejectPayload { proposal_id, reason, terminal: false })
    }

    /// `Reject` that makes the session eligible for a negative commitment.
    pub fn reject_for_good(proposal_id: &str) -> Message {
        let (proposal_id, reason) = (proposal_id.to_owned(), "never".to_owned());
        Message::of("Reject", &pb::RejectPayload { proposal_id, reason, terminal: true })
    }

    /// `Withdraw`; by the proposal's author.
    pub fn withdraw(proposal_id: &str) -> Message {
        let (proposal_id, reason) = (proposal_id.to_owned(), "on second thought".to_owned());
        Message::of("Withdraw", &pb::WithdrawPayload { proposal_id, reason })
    }
}

/// Task mode.
pub mod task {
    use super::{Message, task_pb as pb};

    /// `TaskRequest`; by the initiator.
    pub fn request(task_id: &str, title: &str, assignee: &str) -> Message {
        Message::of(
            "TaskRequest",
            &pb::TaskRequestPayload {
                task_id: task_id.to_owned(),
                title: title.to_owned(),
                instructions: format!("please: {title}"),
                requested_assignee: assignee.to_owned(),
                input: Vec::new(),
                deadline_unix_ms: 0,
            },
        )
    }

    /// `TaskAccept`.
    pub fn accept(task_id: &str, assignee: &str) -> Message {
        let (task_id, assignee) = (task_id.to_owned(), assignee.to_owned());
        Message::of(
            "TaskAccept",
            &pb::TaskAcceptPayload { task_id, assignee, reason: "ready".to_owned() },
        )
    }

    /// `TaskReject`.
    pub fn reject(task_id: &str, assignee: &str) -> Message {
        let (task_id, assignee) = (task_id.to_owned(), assignee.to_owned());
        Message::of(
            "TaskReject",
            &pb::TaskRejectPayload { task_id, assignee, reason: "busy".to_owned() },
        )
    }

    /// `TaskUpdate`; by the assignee.
    pub fn update(task_id: &str, progress: f64, text: &str) -> Message {
        Message::of(
            "TaskUpdate",
            &pb::TaskUpdatePayload {
                task_id: task_id.to_owned(),
                status: "in_progress".to_owned(),
                progress,
                message: text.to_owned(),
                partial_output: Vec::new(),
            },
        )
    }

    /// `TaskComplete`; by the assignee.
    pub fn complete(task_id: &str, assignee: &str, summary: &str) -> Message {
        Message::of(
            "TaskComplete",
            &pb::TaskCompletePayload {
                task_id: task_id.to_owned(),
                assignee: assignee.to_owned(),
                output: summary.as_bytes().to_vec(),
                summary: summary.to_owned(),
            },
        )
    }

    /// `TaskFail`; by the assignee.
    pub fn fail(task_id: &str, assignee: &str, error_code: &str) -> Message {
        Message::of(
            "TaskFail",
            &pb::TaskFailPayload {
                task_id: task_id.to_owned(),
                assignee: assignee.to_owned(),
                error_code: error_code.to_owned(),
                reason: "it did not work".to_owned(),
                retryable: true,
            },
        )
    }
}

/// Handoff mode.
pub mod handoff {
    use super::{Message, handoff_pb as pb};

    /// `HandoffOffer`.
    pub fn offer(handoff_id: &str, target: &str, scope: &str) -> Message {
        Message::of(
            "HandoffOffer",
            &pb::HandoffOfferPayload {
                handoff_id: handoff_id.to_owned(),
                target_participant: target.to_owned(),
                scope: scope.to_owned(),
                reason: "end of shift".to_owned(),
            },
        )
    }

    /// `HandoffContext`.
    pub fn context(handoff_id: &str, text: &str) -> Message {
        Message::of(
            "HandoffContext",
            &pb::HandoffContextPayload {
                handoff_id: handoff_id.to_owned(),
                content_type: "text/plain".to_owned(),
                context: text.as_bytes().to_vec(),
            },
        )
    }

    /// `HandoffAccept`; by the target.
    pub fn accept(handoff_id: &str, by: &str) -> Message {
        Message::of(
            "HandoffAccept",
            &pb::HandoffAcceptPayload {
                handoff_id: handoff_id.to_owned(),
                accepted_by: by.to_owned(),
                reason: "got it".to_owned(),
                implicit: false,
            },
        )
    }

    /// `HandoffDecline`; by the target.
    pub fn decline(handoff_id: &str, by: &str) -> Message {
        Message::of(
            "HandoffDecline",
            &pb::HandoffDeclinePayload {
                handoff_id: handoff_id.to_owned(),
                declined_by: by.to_owned(),
                reason: "away".to_owned(),
            },
        )
    }
}

/// Quorum mode.
pub mod quorum {
    use super::{Message, quorum_pb as pb};

    /// `ApprovalRequest`; by the initiator.
    pub fn request(request_id: &str, action: &str, required_approvals: u32) -> Message {
        Message::of(
            "ApprovalRequest",
            &pb::ApprovalRequestPayload {
                request_id: request_id.to_owned(),
                action: action.to_owned(),
                summary: format!("may we {action}?"),
                details: Vec::new(),
                required_approvals,
            },
        )
    }

    /// `Approve`.
    pub fn approve(request_id: &str) -> Message {
        let (request_id, reason) = (request_id.to_owned(), "yes".to_owned());
        Message::of("Approve", &pb::ApprovePayload { request_id, reason })
    }

    /// `Reject`.
    pub fn reject(request_id: &str) -> Message {
        let (request_id, reason) = (request_id.to_owned(), "no".to_owned());
        Message::of("Reject", &pb::RejectPayload { request_id, reason })
    }

    /// `Abstain`.
    pub fn abstain(request_id: &str) -> Message {
        let (request_id, reason) = (request_id.to_owned(), "not mine".to_owned());
        Message::of("Abstain", &pb::AbstainPayload { request_id, reason })
    }
}

/// The multi-round extension.
pub mod multi_round {
    use super::{Message, multi_round_pb as pb};

    /// `Contribute`.
    pub fn contribute(value: &str) -> Message {
        Message::of("Contribute", &pb::ContributePayload { value: value.to_owned() })
    }

    /// `Contribute` in its old form.
    pub fn contribute_json(value: &str) -> Message {
        Message::raw("Contribute", serde_json::json!({ "value": value }).to_string())
    }
}
