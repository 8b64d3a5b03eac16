//! The two laws of the fold, on logs of sessions of every mode.

use control_plane_domain::control;
use control_plane_domain::{RunState, SessionState};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::support::{
    DECISION, HANDOFF, Log, MULTI_ROUND, PROPOSAL, QUORUM, TASK, at, run_id, stored,
};
use crate::Projection;

#[derive(Debug, Clone)]
enum Step {
    Say { sender: String, message_type: &'static str, fields: Value },
    Signal { sender: String, message_type: &'static str, fields: Value, authenticated: bool },
    State(SessionState),
    Enter(RunState),
    Bind,
    Gap(i64),
}

fn sender() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec!["alice", "bob", "carol"]).prop_map(str::to_owned),
        1 => "[a-e_]{0,2}",
    ]
}

fn fields() -> impl Strategy<Value = Value> {
    let id = prop::sample::select(vec!["x1", "x2", "x3"]);
    let ballot = prop::sample::select(vec!["APPROVE", "REJECT", "ABSTAIN", "whatever"]);
    (id, ballot, any::<f64>(), any::<bool>(), 0_u32..5, "\\PC{0,6}").prop_map(
        |(id, ballot, number, flag, count, text)| {
            let ratio = if number.is_finite() { number.abs() % 1.0 } else { 0.5 };
            json!({
                "proposalId": id, "requestId": id, "taskId": id, "handoffId": id,
                "commitmentId": id, "vote": ballot, "recommendation": ballot,
                "confidence": ratio, "progress": ratio, "outcomePositive": flag,
                "requiredApprovals": count, "reason": text, "value": text, "action": text,
                "signalType": text, "participants": ["alice", "bob", text],
                "tokenUsage": { "promptTokens": count, "model": "gpt-4o", "x": ratio },
            })
        },
    )
}

/// Only the fields that the message's type has, so that it goes over the wire as protobuf.
fn fitting(mode: &str, message_type: &str, fields: &Value) -> Value {
    let Value::Object(all) = fields else { return fields.clone() };
    let mut kept = serde_json::Map::new();
    for (name, value) in all {
        let one = json!({ name: value });
        if control_plane_domain::payload::encode(mode, message_type, &one).is_some() {
            kept.insert(name.clone(), value.clone());
        }
    }
    if kept.is_empty() { fields.clone() } else { Value::Object(kept) }
}

fn step() -> impl Strategy<Value = Step> {
    let types = prop::sample::select(vec![
        "SessionStart",
        "Proposal",
        "Evaluation",
        "Objection",
        "Vote",
        "CounterProposal",
        "Accept",
        "Reject",
        "Withdraw",
        "TaskRequest",
        "TaskAccept",
        "TaskReject",
        "TaskUpdate",
        "TaskComplete",
        "TaskFail",
        "HandoffOffer",
        "HandoffContext",
        "HandoffAccept",
        "HandoffDecline",
        "ApprovalRequest",
        "Approve",
        "Abstain",
        "Contribute",
        "Commitment",
        "PolicyResolved",
        "PolicyCommitmentEvaluated",
        "SignalAck",
        "ToolCall",
        "Other",
    ]);
    let signals = prop::sample::select(vec!["Signal", "Progress"]);
    let states = prop::sample::select(vec![
        SessionState::Open,
        SessionState::Suspended,
        SessionState::Resolved,
        SessionState::Expired,
    ]);
    let runs = prop::sample::select(vec![
        RunState::Suspended,
        RunState::Running,
        RunState::Completed,
        RunState::Failed,
        RunState::Cancelled,
    ]);
    prop_oneof![
        20 => (sender(), types, fields()).prop_map(|(sender, message_type, fields)| {
            Step::Say { sender, message_type, fields }
        }),
        4 => (sender(), signals, fields(), any::<bool>()).prop_map(
            |(sender, message_type, fields, authenticated)| {
                Step::Signal { sender, message_type, fields, authenticated }
            }
        ),
        1 => states.prop_map(Step::State),
        1 => runs.prop_map(Step::Enter),
        1 => Just(Step::Bind),
        1 => (1_i64..20).prop_map(Step::Gap),
    ]
}

/// Logs of sessions of every mode.
pub(super) fn log() -> impl Strategy<Value = Log> {
    let modes = prop::sample::select(vec![
        DECISION,
        PROPOSAL,
        TASK,
        HANDOFF,
        QUORUM,
        MULTI_ROUND,
        "ext.other.v1",
    ]);
    (modes, prop::collection::vec(step(), 0..60)).prop_map(|(mode, steps)| {
        let mut log = Log::begun(mode, &["alice", "bob"]);
        for step in steps {
            take(&mut log, mode, step);
        }
        log
    })
}

fn take(log: &mut Log, mode: &str, step: Step) {
    match step {
        Step::Say { sender, message_type, fields } => {
            log.say(&sender, message_type, fitting(mode, message_type, &fields));
        }
        Step::Signal { sender, message_type, fields, authenticated } => {
            let fields = fitting("", message_type, &fields);
            log.signal(&sender, message_type, fields, authenticated);
        }
        Step::State(state) => {
            log.session_state(state);
        }
        Step::Enter(state) => {
            log.enters(state);
        }
        Step::Bind => {
            log.bound();
        }
        Step::Gap(to) => {
            let id = log.session.session_id.clone();
            log.add([control::stream_gap(&id, 1, to, "compacted", at(1))]);
        }
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.events.iter().map(|event| event.encode())).finish()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_split_into_batches_gives_the_same_state(
        log in log(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let whole = log.state();

        let mut cuts: Vec<usize> =
            cuts.iter().map(|cut| cut.index(log.events.len() + 1)).collect();
        cuts.sort_unstable();
        let mut state = Projection::empty(run_id());
        for (at, event) in log.events.iter().enumerate() {
            if cuts.contains(&at) {
                state = stored(&state);
            }
            state.apply(event);
        }

        prop_assert_eq!(&stored(&state), &whole);
        prop_assert_eq!(state, whole);
    }

    #[test]
    fn an_event_that_is_folded_already_changes_nothing(
        log in log(),
        again in prop::collection::vec(any::<prop::sample::Index>(), 1..20),
    ) {
        let mut state = log.state();
        let before = state.clone();

        for index in again {
            state.apply(index.get(&log.events));
        }

        prop_assert_eq!(&state, &before);
        prop_assert_eq!(state.version(), log.events.last().map_or(0, |event| event.seq));
    }

    #[test]
    fn an_event_read_from_its_text_folds_to_the_same(log in log()) {
        let mut state = Projection::empty(run_id());
        for event in &log.events {
            state.apply(&serde_json::from_str(&event.encode()).unwrap());
        }
        prop_assert_eq!(state, log.state());
    }
}
