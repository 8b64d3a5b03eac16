//! Conversations of every mode, at random.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

use crate::support::{DECISION, HANDOFF, Line, MULTI_ROUND, PROPOSAL, QUORUM, TASK, Talk, line};

pub(crate) const PEOPLE: [&str; 4] = ["alice", "bob", "carol", "dave"];
const MODES: [&str; 6] = [DECISION, PROPOSAL, TASK, HANDOFF, QUORUM, MULTI_ROUND];

/// Whether proposals may have the same text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Texts {
    Distinct,
    Any,
}

/// A choice that is made once the rest is known.
type Dice = (Index, Index, Index, Index);

fn dice() -> impl Strategy<Value = Dice> {
    (any::<Index>(), any::<Index>(), any::<Index>(), any::<Index>())
}

pub(crate) fn talk(texts: Texts) -> impl Strategy<Value = Talk> {
    talk_in(select(MODES.to_vec()), texts)
}

pub(crate) fn talk_in(
    mode: impl Strategy<Value = &'static str>,
    texts: Texts,
) -> impl Strategy<Value = Talk> {
    (
        mode,
        prop::collection::vec(dice(), 1..5),
        prop::collection::vec(dice(), 0..24),
        prop::option::of(dice()),
    )
        .prop_map(move |(mode, proposals, rest, end)| {
            let mut lines = Vec::new();
            if mode != MULTI_ROUND {
                for (number, roll) in proposals.iter().enumerate() {
                    lines.push(proposal(mode, number, roll, texts));
                }
            }
            let made = lines.len();
            lines.extend(rest.iter().map(|roll| utterance(mode, made, roll)));
            lines.extend(end.map(|roll| commitment(made, &roll)));
            Talk::new(mode, &PEOPLE, lines)
        })
}

fn proposal(mode: &str, number: usize, (who, text, extra, _): &Dice, texts: Texts) -> Line {
    let who = *who.get(&PEOPLE);
    let text = *text.get(&["ship it", "roll it back", "wait a day"]);
    let text = match texts {
        Texts::Distinct => format!("{text} {number}"),
        Texts::Any => text.to_owned(),
    };
    let explained = *extra.get(&["it is time", "nobody objects"]);
    match mode {
        DECISION => {
            line(who, "Proposal", number, json!({ "option": text, "rationale": explained }))
        }
        PROPOSAL if number > 0 && extra.index(2) == 0 => Line {
            replaces: Some(number - 1),
            ..line(who, "CounterProposal", number, json!({ "title": text, "summary": text }))
        },
        PROPOSAL => line(who, "Proposal", number, json!({ "title": text, "summary": text })),
        TASK => {
            let task = json!({ "title": text, "instructions": text, "requestedAssignee": "bob" });
            line(who, "TaskRequest", number, task)
        }
        HANDOFF => {
            let offer = json!({ "targetParticipant": "bob", "scope": text, "reason": explained });
            line(who, "HandoffOffer", number, offer)
        }
        _ => {
            let request = json!({ "action": text, "summary": explained, "requiredApprovals": 2 });
            line(who, "ApprovalRequest", number, request)
        }
    }
}

fn utterance(mode: &str, made: usize, (who, what, about, how): &Dice) -> Line {
    let who = *who.get(&PEOPLE);
    if what.index(9) == 8 {
        let name = *how.get(&["session.context", "risk.high"]);
        return line(who, "Signal", None, json!({ "signalType": name, "confidence": 0.5 }));
    }
    let reason = *how.get(&["yes", "no", "maybe"]);
    let of = |kinds: &[&'static str]| *what.get(kinds);
    let (kind, fields): (&'static str, Value) = match mode {
        DECISION => match of(&["Evaluation", "Objection", "Vote"]) {
            "Evaluation" => {
                let recommendation = *how.get(&["APPROVE", "REVIEW", "BLOCK"]);
                let confidence = *how.get(&[0.25, 0.5, 0.75]);
                let fields = json!({ "recommendation": recommendation, "confidence": confidence });
                ("Evaluation", fields)
            }
            "Objection" => {
                let severity = *how.get(&["low", "high"]);
                ("Objection", json!({ "reason": reason, "severity": severity }))
            }
            _ => {
                let vote = *how.get(&["APPROVE", "REJECT", "ABSTAIN"]);
                ("Vote", json!({ "vote": vote, "reason": reason }))
            }
        },
        PROPOSAL => (of(&["Accept", "Reject", "Withdraw"]), json!({ "reason": reason })),
        TASK => match of(&["TaskAccept", "TaskReject", "TaskUpdate", "TaskComplete", "TaskFail"]) {
            "TaskUpdate" => {
                let progress = *how.get(&[0.25, 0.5, 0.75]);
                ("TaskUpdate", json!({ "status": "in_progress", "progress": progress }))
            }
            "TaskComplete" => ("TaskComplete", json!({ "assignee": who, "summary": reason })),
            other => (other, json!({ "assignee": who, "reason": reason })),
        },
        HANDOFF => match of(&["HandoffContext", "HandoffAccept", "HandoffDecline"]) {
            "HandoffContext" => ("HandoffContext", json!({ "contentType": reason })),
            other => (other, json!({ "reason": reason })),
        },
        QUORUM => (of(&["Approve", "Reject", "Abstain"]), json!({ "reason": reason })),
        _ => ("Contribute", json!({ "value": reason })),
    };
    let about = (made > 0).then(|| about.index(made));
    line(who, kind, about, fields)
}

fn commitment(made: usize, (who, action, about, outcome): &Dice) -> Line {
    let action = *action.get(&["decision.selected", "decision.declined"]);
    let fields = json!({
        "action": action, "reason": "done", "authorityScope": "session", "modeVersion": "1.0.0",
        "configurationVersion": "1", "outcomePositive": outcome.index(2) == 0,
    });
    let about = Some(about.index(made + 1)).filter(|number| *number < made);
    let who = *who.get(&PEOPLE);
    line(who, "Commitment", about, fields)
}
