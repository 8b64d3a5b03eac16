//! What is said of runs that people would ask about.

use control_plane_domain::event::{EventDraft, Source};
use control_plane_domain::{EventType, RunState};
use control_plane_insights::compare::{self, Change, Comparison};
use serde_json::{Value, json};

use crate::support::{
    DECISION, Dress, HANDOFF, Line, MULTI_ROUND, PROPOSAL, QUORUM, TASK, Talk, compared, events,
    line, side, told,
};

fn vote(who: &str, about: usize, vote: &str) -> Line {
    line(who, "Vote", about, json!({ "vote": vote, "reason": format!("{vote}, I say") }))
}

fn commitment(about: impl Into<Option<usize>>, action: &str, positive: bool) -> Line {
    let fields = json!({ "action": action, "reason": "counted", "outcomePositive": positive });
    line("lead", "Commitment", about, fields)
}

fn fraud() -> Talk {
    Talk::new(
        DECISION,
        &["lead", "risk-agent", "growth-agent"],
        vec![
            line("lead", "Proposal", 0, json!({ "option": "step_up", "rationale": "odd device" })),
            line(
                "growth-agent",
                "Proposal",
                1,
                json!({ "option": "approve", "rationale": "loyal" }),
            ),
            line(
                "risk-agent",
                "Evaluation",
                0,
                json!({ "recommendation": "APPROVE", "confidence": 0.75, "reason": "new device" }),
            ),
            line(
                "growth-agent",
                "Objection",
                0,
                json!({ "severity": "low", "reason": "friction" }),
            ),
            vote("risk-agent", 0, "APPROVE"),
            vote("growth-agent", 0, "APPROVE"),
            commitment(0, "decision.selected", true),
        ],
    )
}

fn edited(talk: Talk, edit: impl FnOnce(&mut Vec<Line>)) -> Comparison {
    let mut other = talk.clone();
    edit(&mut other.lines);
    compared(&talk, &other)
}

#[test]
fn one_vote_that_turned_the_outcome_is_said_in_one_sentence() {
    let found = edited(fraud(), |lines| {
        lines[4] = vote("risk-agent", 0, "REJECT");
        lines[6] = commitment(0, "decision.declined", false);
    });

    assert_eq!(
        found.summary,
        "risk-agent voted REJECT instead of APPROVE on 'step_up'; the outcome turned negative"
    );
    let first = found.first_divergence.unwrap();
    assert_eq!((first.change, first.kind.as_str()), (Change::Changed, "vote"));
    assert_eq!(first.after_steps, 5);
    let (left, right) = (first.left.unwrap(), first.right.unwrap());
    assert_eq!(left.seq, right.seq);
    assert_eq!((&left.value["vote"], &right.value["vote"]), (&json!("APPROVE"), &json!("REJECT")));
    assert_eq!(right.proposal.as_deref(), Some("step_up"));
    assert_eq!(found.decision_diff.changed, ["outcome", "action", "confidence"]);
    assert_eq!(found.confidence_delta, Some(-0.5));
    let tally = &found.policy_diff.tallies[0];
    let counted = |tally: &Option<compare::Tally>| tally.as_ref().map(|one| (one.allow, one.deny));
    assert_eq!((counted(&tally.left), counted(&tally.right)), (Some((2, 0)), Some((1, 1))));
    let who: Vec<&str> =
        found.participant_changes.iter().map(|one| one.participant_id.as_str()).collect();
    assert_eq!(who, ["lead", "risk-agent"]);
}

#[test]
fn each_kind_of_change_has_its_sentence() {
    type Edit = fn(&mut Vec<Line>);
    let cases: &[(Edit, &str)] = &[
        (
            |lines| lines[0].fields["option"] = json!("step_up by phone"),
            "lead proposed 'step_up by phone' instead of 'step_up'; \
             the outcome is the same: 'decision.selected', positive",
        ),
        (
            |lines| lines[2].fields["confidence"] = json!(0.5),
            "risk-agent evaluated 'step_up' with confidence 0.5 instead of 0.75; \
             the outcome is the same: 'decision.selected', positive",
        ),
        (
            |lines| lines[3].fields["severity"] = json!("critical"),
            "growth-agent objected to 'step_up' with severity critical instead of low; \
             the outcome is the same: 'decision.selected', positive",
        ),
        (
            |lines| drop(lines.remove(3)),
            "only in the left run growth-agent objected to 'step_up'; \
             the outcome is the same: 'decision.selected', positive",
        ),
        (
            |lines| lines.insert(6, vote("lead", 1, "ABSTAIN")),
            "only in the right run lead voted ABSTAIN on 'approve'; \
             the outcome is the same: 'decision.selected', positive",
        ),
        (
            |lines| lines[6].about = Some(1),
            "lead committed to 'approve' instead of 'step_up'; \
             'approve' was chosen instead of 'step_up'",
        ),
        (
            |lines| lines[6].fields["action"] = json!("decision.escalated"),
            "lead committed 'decision.escalated' instead of 'decision.selected'; \
             the action is 'decision.escalated' instead of 'decision.selected'",
        ),
        (
            |lines| lines[5].fields["reason"] = json!("fine by me"),
            "both runs took the same 8 steps, 1 of them worded otherwise; \
             the outcome is the same: 'decision.selected', positive",
        ),
        (
            |lines| lines.swap(4, 5),
            "both runs took the same 8 steps, 1 of them in another order; \
             the outcome is the same: 'decision.selected', positive",
        ),
        (
            |lines| drop(lines.pop()),
            "only in the left run lead committed 'decision.selected'; \
             the right run came to no decision and is completed",
        ),
        (
            |lines| {
                lines[2].fields["recommendation"] = json!("BLOCK");
                lines[3].fields["severity"] = json!("high");
                lines[4].fields["vote"] = json!("ABSTAIN");
            },
            "risk-agent recommended BLOCK instead of APPROVE on 'step_up', and 2 more steps \
             differ; the outcome is the same: 'decision.selected', positive",
        ),
        (
            |_| {},
            "both runs took the same 8 steps; \
             the outcome is the same: 'decision.selected', positive",
        ),
    ];
    for (edit, sentence) in cases {
        assert_eq!(edited(fraud(), edit).summary, *sentence);
    }
}

#[test]
fn the_other_modes_are_told_by_their_own_steps() {
    let offer = json!({ "title": "100 pieces", "summary": "an offer" });
    let negotiation = Talk::new(
        PROPOSAL,
        &["lead", "buyer"],
        vec![
            line("lead", "Proposal", 0, offer),
            line("buyer", "Accept", 0, json!({ "reason": "fine" })),
        ],
    );
    let task = Talk::new(
        TASK,
        &["lead", "worker"],
        vec![
            line("lead", "TaskRequest", 0, json!({ "title": "sum up", "instructions": "briefly" })),
            line("worker", "TaskComplete", 0, json!({ "assignee": "worker", "summary": "done" })),
        ],
    );
    let handoff = Talk::new(
        HANDOFF,
        &["lead", "night"],
        vec![
            line(
                "lead",
                "HandoffOffer",
                0,
                json!({ "scope": "on call", "targetParticipant": "night" }),
            ),
            line("night", "HandoffAccept", 0, json!({ "acceptedBy": "night" })),
        ],
    );
    let quorum = Talk::new(
        QUORUM,
        &["lead", "owner"],
        vec![
            line(
                "lead",
                "ApprovalRequest",
                0,
                json!({ "action": "delete", "requiredApprovals": 1 }),
            ),
            line("owner", "Approve", 0, json!({ "reason": "yes" })),
        ],
    );
    let rounds = Talk::new(
        MULTI_ROUND,
        &["lead", "one"],
        vec![
            line("lead", "Contribute", None, json!({ "value": "blue" })),
            line("one", "Contribute", None, json!({ "value": "green" })),
        ],
    );
    for (talk, becomes, sentence) in [
        (negotiation, "Reject", "buyer said Reject instead of Accept to '100 pieces'"),
        (task, "TaskFail", "worker said TaskFail instead of TaskComplete to 'sum up'"),
        (
            handoff,
            "HandoffDecline",
            "night said HandoffDecline instead of HandoffAccept to 'on call → night'",
        ),
        (quorum, "Abstain", "owner said Abstain instead of Approve to 'delete'"),
    ] {
        let found = edited(talk, |lines| lines[1].message_type = becomes);
        assert_eq!(found.alignment.differences.len(), 1);
        assert_eq!(found.alignment.differences[0].sentence, sentence);
    }
    let found = edited(rounds, |lines| lines[1].fields["value"] = json!("blue"));
    assert_eq!(
        found.alignment.differences[0].sentence,
        "one contributed 'blue' instead of 'green'"
    );
}

#[test]
fn the_order_of_what_one_says_matters_and_of_who_speaks_first_does_not() {
    let said = |values: [(&str, &str); 3]| {
        let lines =
            values.map(|(who, value)| line(who, "Contribute", None, json!({ "value": value })));
        Talk::new(MULTI_ROUND, &["a", "b"], lines.to_vec())
    };
    let left = said([("a", "blue"), ("b", "red"), ("a", "green")]);

    let others_order = compared(&left, &said([("b", "red"), ("a", "blue"), ("a", "green")]));
    let own_order = compared(&left, &said([("a", "green"), ("b", "red"), ("a", "blue")]));

    assert_eq!(others_order.alignment.differences, []);
    assert_eq!((others_order.alignment.reordered, others_order.identical), (1, false));
    assert!(!own_order.alignment.differences.is_empty());
}

#[test]
fn participants_signals_policies_and_figures_are_held_against_each_other() {
    let call = |tokens: i64, latency: i64| {
        use base64::Engine as _;
        let call = json!({ "model": "gpt-4o", "promptTokens": tokens, "latencyMs": latency });
        let data = base64::engine::general_purpose::STANDARD.encode(call.to_string());
        line("lead", "Signal", None, json!({ "signalType": "llm.call.completed", "data": data }))
    };
    let (mut left, mut right) = (fraud(), fraud());
    left.lines.insert(0, call(1000, 100));
    left.lines.insert(0, line("lead", "Signal", None, json!({ "signalType": "old" })));
    right.lines.insert(0, call(3000, 400));
    right.participants[2] = "sales-agent".to_owned();
    right.policy = "policy.std.unanimous".to_owned();
    right.ends = RunState::Failed;

    let found = compared(&left, &right);

    let diff = &found.participants_diff;
    assert_eq!((&diff.added[..], diff.common.len()), (&["sales-agent".to_owned()][..], 3));
    assert_eq!(found.signals_diff.removed, ["old"]);
    assert_eq!((found.tokens_delta.prompt, found.tokens_delta.total), (2000, 2000));
    assert!((found.cost_delta_usd - 0.005).abs() < 1e-12);
    assert_eq!(found.latency_delta.llm_mean_ms, Some(300.0));
    assert_eq!(found.policy_diff.policy_version.right, "policy.std.unanimous");
    assert!(found.policy_diff.changed.contains(&"policyVersion"));
    assert_eq!(found.policy_diff.tallies[0].right.as_ref().unwrap().threshold, 3);
    assert!(!found.status_match);
    assert_eq!(found.alignment.differences, []);
}

#[test]
fn a_commitment_that_only_a_receipt_tells_of_is_the_same_commitment() {
    let talk = fraud();
    let whole = side(&talk, &Dress::PLAIN);
    let mut cut = talk.clone();
    cut.lines.pop();
    let mut log = events(&cut, &Dress::PLAIN);
    let last = log.pop().unwrap();
    let payload = json!({
        "commitmentId": "elsewhere", "action": "decision.selected", "reason": "counted",
        "outcomePositive": true,
    });
    let data =
        json!({ "messageType": "Commitment", "source": "receipt", "decodedPayload": payload });
    let draft = EventDraft {
        event_type: EventType::DecisionFinalized,
        ts: last.ts,
        subject: None,
        source: Source::runtime("Commitment"),
        trace: None,
        data: data.as_object().unwrap().clone(),
    };
    log.push(draft.into_event(last.run_id, last.seq, last.ts));

    let found = compare::runs(&whole, &told(&log, &talk, &Dress::PLAIN));

    assert_eq!(found.alignment.differences, []);
    assert_eq!(found.decision_diff.changed, Vec::<&str>::new());
}

#[test]
fn what_is_too_long_is_cut_and_still_told_apart() {
    let long = |end: &str| json!("x".repeat(5000) + end);
    let found = edited(fraud(), |lines| lines[0].fields["rationale"] = long("a"));
    let shown = &found.alignment.differences[0].right.as_ref().unwrap().value["rationale"];
    assert!(shown.as_str().unwrap().len() < 400);
    let mut left = fraud();
    left.lines[0].fields["rationale"] = long("a");
    let mut right = left.clone();
    assert!(compared(&left, &right).identical);
    right.lines[0].fields["rationale"] = long("b");
    assert_eq!(compared(&left, &right).alignment.changed, 1);
}

#[test]
fn a_run_that_is_too_long_is_compared_as_far_as_that_goes_and_says_so() {
    let said = |count: usize, word: &str| {
        let lines = (0..count).map(|number| {
            line("a", "Contribute", None, json!({ "value": format!("{word}{number}") }))
        });
        Talk::new(MULTI_ROUND, &["a"], lines.collect())
    };

    let found = compared(&said(10_050, "x"), &said(1500, "y"));

    let value = serde_json::to_value(&found).unwrap();
    let limits: Vec<&str> =
        value["limits"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(limits.len(), 3, "{limits:?}");
    assert!(limits[0].starts_with("the left run was compared up to event"), "{limits:?}");
    assert!(limits[1].contains("place by place"), "{limits:?}");
    assert_eq!(limits[2], "500 of 9999 differences are listed");
    assert_eq!(found.alignment.differences.len(), 500);
    assert_eq!(found.alignment.changed, 1500);
}
