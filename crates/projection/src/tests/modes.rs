//! A session of each mode, and what its state says at the end.

use serde_json::{Value, json};

use super::support::{DECISION, HANDOFF, Log, MULTI_ROUND, PROPOSAL, QUORUM, TASK, only};

fn vote(proposal: &str, vote: &str) -> Value {
    json!({ "proposalId": proposal, "vote": vote, "reason": "r" })
}

/// Alice proposes, bob evaluates, bob and carol vote, alice commits.
fn decision() -> Log {
    let mut log = Log::begun(DECISION, &["alice", "bob", "carol"]);
    log.say("alice", "SessionStart", json!({ "participants": ["alice", "bob", "carol"] }))
        .say("alice", "Proposal", json!({ "proposalId": "p1", "option": "ship" }))
        .say(
            "bob",
            "Evaluation",
            json!({
                "proposalId": "p1", "recommendation": "APPROVE", "confidence": 0.9,
                "reason": "solid",
            }),
        )
        .say("bob", "Vote", vote("p1", "APPROVE"))
        .say("carol", "Vote", vote("p1", "REJECT"));
    log
}

fn commit(action: &str, positive: bool) -> Value {
    json!({
        "commitmentId": "c1", "action": action, "reason": "done", "outcomePositive": positive,
    })
}

#[test]
fn a_decision_is_tallied_and_final() {
    let mut log = decision();
    log.say("alice", "Commitment", commit("decision.selected", true));

    let state = log.json();

    let current = &state["decision"]["current"];
    assert_eq!(
        only(
            current,
            &["action", "confidence", "finalized", "proposalId", "commitmentId", "resolvedBy"]
        ),
        json!({
            "action": "decision.selected", "confidence": 0.5, "finalized": true,
            "proposalId": "p1", "commitmentId": "c1", "resolvedBy": "alice",
        })
    );
    assert_eq!(current["outcomePositive"], json!(true));
    assert_eq!(current["reasons"], json!(["done"]));
    let said: Vec<_> = current["proposals"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| only(one, &["participantId", "action", "vote", "messageType"]))
        .collect();
    assert_eq!(
        said,
        [
            json!({
                "participantId": "alice", "action": "ship", "vote": null,
                "messageType": "Proposal",
            }),
            json!({
                "participantId": "bob", "action": "APPROVE", "vote": null,
                "messageType": "Evaluation",
            }),
            json!({
                "participantId": "bob", "action": "APPROVE", "vote": "allow",
                "messageType": "Vote",
            }),
            json!({
                "participantId": "carol", "action": "REJECT", "vote": "deny",
                "messageType": "Vote",
            }),
        ]
    );
    assert_eq!(
        state["policy"]["voteTally"],
        json!([{
            "commitmentId": "p1", "proposalId": "p1", "allow": 1, "deny": 1, "abstain": 0,
            "threshold": 2, "quorum": { "required": 3, "cast": 2 },
        }])
    );
    assert_eq!(state["policy"]["quorumStatus"], json!("reached"));
    assert_eq!(state["policy"]["outcomePositive"], json!(true));
    assert_eq!(state["run"]["status"], json!("running"), "the run itself goes on");
}

#[test]
fn the_graph_of_a_decision_shows_its_steps() {
    let mut log = decision();
    log.say("alice", "Commitment", commit("decision.selected", true));

    let graph = &log.json()["graph"];

    let nodes: Vec<_> = graph["nodes"].as_array().unwrap().iter().map(|node| &node["id"]).collect();
    assert_eq!(
        nodes,
        ["alice", "bob", "carol", "__start", "__proposal", "__decision", "__outcome"]
    );
    let edges: Vec<_> = graph["edges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|edge| {
            let part = |name: &str| edge[name].as_str().unwrap().to_owned();
            format!("{} -{}-> {}", part("from"), part("kind"), part("to"))
        })
        .collect();
    assert_eq!(
        edges,
        [
            "__start -session.bound-> alice",
            "alice -fanout-> bob",
            "alice -fanout-> carol",
            "alice -SessionStart-> bob",
            "alice -SessionStart-> carol",
            "alice -proposes-> __proposal",
            "__proposal -review-> bob",
            "__proposal -review-> carol",
            "alice -Proposal-> bob",
            "alice -Proposal-> carol",
            "bob -evaluation-> __decision",
            "bob -vote-> __decision",
            "carol -vote-> __decision",
            "__decision -commits-> __outcome",
        ]
    );
}

#[test]
fn a_negative_commitment_has_no_outcome_on_the_wire_and_is_negative() {
    let mut log = decision();
    log.say("alice", "Commitment", json!({ "commitmentId": "c1", "action": "decision.rejected" }));

    let state = log.json();

    assert_eq!(state["decision"]["current"]["outcomePositive"], json!(false));
    assert_eq!(state["policy"]["quorumStatus"], json!("failed"));
}

#[test]
fn a_commitment_that_says_nothing_of_its_outcome_is_read_by_its_action() {
    for (action, outcome) in [
        ("decision.rejected", json!(false)),
        ("task.completed", json!(true)),
        ("declined", json!(false)),
        ("something.else", json!(null)),
    ] {
        let mut log = Log::begun("ext.other.v1", &["alice"]);
        log.say("alice", "Note", json!({}));
        log.raw(
            control_plane_domain::EventType::DecisionFinalized,
            (control_plane_domain::event::SubjectKind::Decision, "c1"),
            json!({ "decodedPayload": { "commitmentId": "c1", "action": action } }),
        );
        let current = &log.json()["decision"]["current"];
        let answer = current.as_object().unwrap().get("outcomePositive");
        assert_eq!(answer, Some(&outcome), "{action}");
    }
}

#[test]
fn a_second_vote_is_an_anomaly_and_the_first_one_stands() {
    let mut log = decision();
    log.say("bob", "Vote", vote("p1", "REJECT"));

    let state = log.json();

    assert_eq!(state["policy"]["voteTally"][0]["allow"], json!(1));
    assert_eq!(state["policy"]["voteTally"][0]["deny"], json!(1));
    assert_eq!(
        only(&state["decision"]["anomalies"][0], &["kind", "sender", "subjectId", "detail"]),
        json!({
            "kind": "duplicate_vote", "sender": "bob", "subjectId": "p1",
            "detail": "kept the first vote allow, discarded deny",
        })
    );
}

#[test]
fn a_late_vote_is_listed_and_counted_and_changes_no_decision() {
    let mut log = decision();
    log.say("alice", "Commitment", commit("decision.selected", true));
    let before = log.json();

    log.say("alice", "Vote", vote("p2", "ABSTAIN"));

    let after = log.json();
    for field in ["action", "finalized", "proposalId", "confidence", "outcomePositive", "reasons"] {
        assert_eq!(
            after["decision"]["current"][field], before["decision"]["current"][field],
            "{field}"
        );
    }
    assert_eq!(after["decision"]["current"]["proposals"].as_array().unwrap().len(), 5);
    assert_eq!(after["policy"]["voteTally"][1]["abstain"], json!(1));
    assert_eq!(after["policy"]["quorumStatus"], json!("reached"));
}

#[test]
fn a_second_commitment_is_an_anomaly_and_the_first_one_stands() {
    let mut log = decision();
    log.say("alice", "Commitment", commit("decision.selected", true));
    log.say("bob", "Commitment", json!({ "commitmentId": "c2", "action": "decision.rejected" }));

    let state = log.json();

    assert_eq!(state["decision"]["current"]["commitmentId"], json!("c1"));
    assert_eq!(state["decision"]["anomalies"][0]["kind"], json!("duplicate_commitment"));
}

#[test]
fn a_known_policy_sets_the_threshold() {
    for (policy, threshold) in [
        ("policy.std.unanimous", 3),
        ("policy.std.supermajority", 2),
        ("policy.std.majority", 2),
        ("policy.default", 2),
    ] {
        let mut log = Log::empty(DECISION, &["alice", "bob", "carol"]);
        log.session.policy_version = policy.to_owned();
        log.created().started().bound().opened();
        log.say("bob", "Vote", vote("p1", "APPROVE"));
        let state = log.json();
        assert_eq!(state["policy"]["policyVersion"], json!(policy));
        assert_eq!(state["policy"]["voteTally"][0]["threshold"], json!(threshold), "{policy}");
    }
}

#[test]
fn a_policy_that_is_resolved_sets_the_threshold_by_its_rules() {
    let mut log = Log::begun(QUORUM, &["alice", "bob", "carol", "dave"]);
    log.session.mode_name = "ext.gov.v1".to_owned();
    log.say(
        "alice",
        "PolicyResolved",
        json!({
            "policyId": "policy.acme", "description": "d",
            "rules": { "voting": { "algorithm": "supermajority", "threshold": 0.75 } },
        }),
    );
    log.session.mode_name = DECISION.to_owned();
    log.say("bob", "Vote", vote("p1", "APPROVE"));

    let policy = &log.json()["policy"];

    assert_eq!(policy["policyVersion"], json!("policy.acme"));
    assert_eq!(policy["policyDescription"], json!("d"));
    assert_eq!(policy["voteTally"][0]["threshold"], json!(3));
}

#[test]
fn a_quorum_counts_approvals_rejections_and_abstentions_against_its_own_bar() {
    let mut log = Log::begun(QUORUM, &["alice", "bob", "carol", "dave"]);
    log.say(
        "alice",
        "ApprovalRequest",
        json!({ "requestId": "r1", "action": "deploy", "requiredApprovals": 2 }),
    );
    let asked = log.json();
    log.say("bob", "Approve", json!({ "requestId": "r1" }))
        .say("carol", "Abstain", json!({ "requestId": "r1" }))
        .say("dave", "Reject", json!({ "requestId": "r1" }))
        .say("dave", "Approve", json!({ "requestId": "r1" }))
        .say("alice", "Approve", json!({ "requestId": "r1" }))
        .say("alice", "Commitment", commit("quorum.approved", true));

    let state = log.json();

    assert_eq!(
        asked["policy"]["voteTally"],
        json!([{
            "commitmentId": "r1", "proposalId": "r1", "allow": 0, "deny": 0, "abstain": 0,
            "threshold": 2, "quorum": { "required": 4, "cast": 0 },
        }])
    );
    assert_eq!(asked["policy"]["quorumStatus"], json!("pending"));
    assert_eq!(
        state["policy"]["voteTally"],
        json!([{
            "commitmentId": "r1", "proposalId": "r1", "allow": 2, "deny": 1, "abstain": 1,
            "threshold": 2, "quorum": { "required": 4, "cast": 4 },
        }])
    );
    assert_eq!(state["policy"]["quorumStatus"], json!("reached"));
    assert_eq!(state["decision"]["current"]["proposalId"], json!("r1"));
    assert_eq!(state["decision"]["anomalies"][0]["kind"], json!("duplicate_ballot"));
}

#[test]
fn a_task_is_one_proposal_with_its_progress() {
    let mut log = Log::begun(TASK, &["alice", "bob", "carol"]);
    log.say("alice", "TaskRequest", json!({ "taskId": "t1", "title": "Write" }))
        .say("bob", "TaskAccept", json!({ "taskId": "t1", "assignee": "bob" }))
        .say("carol", "TaskAccept", json!({ "taskId": "t1", "assignee": "carol" }))
        .say("bob", "TaskUpdate", json!({ "taskId": "t1", "progress": 0.5, "status": "half" }))
        .say("bob", "TaskComplete", json!({ "taskId": "t1", "summary": "ok" }))
        .say("alice", "Commitment", commit("task.completed", true));

    let state = log.json();

    assert_eq!(
        state["policy"]["voteTally"],
        json!([{
            "commitmentId": "t1", "proposalId": "t1", "allow": 1, "deny": 0, "abstain": 0,
            "threshold": 1, "quorum": { "required": 1, "cast": 1 },
        }])
    );
    assert_eq!(state["decision"]["current"]["proposalId"], json!("t1"));
    assert_eq!(state["decision"]["anomalies"][0]["kind"], json!("duplicate_task_accept"));
    let entries: Vec<_> = state["progress"]["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| only(entry, &["participantId", "percentage", "message"]))
        .collect();
    assert_eq!(
        entries,
        [
            json!({ "participantId": "bob", "percentage": 50.0, "message": "half" }),
            json!({ "participantId": "bob", "percentage": 100.0, "message": "completed" }),
        ]
    );
}

#[test]
fn a_handoff_that_the_runtime_accepts_is_accepted_by_its_target() {
    let mut log = Log::begun(HANDOFF, &["alice", "bob"]);
    log.say(
        "alice",
        "HandoffOffer",
        json!({ "handoffId": "h1", "targetParticipant": "bob", "scope": "all" }),
    )
    .say("alice", "HandoffContext", json!({ "handoffId": "h1", "contentType": "text/plain" }))
    .say(
        "bob",
        "HandoffAccept",
        json!({ "handoffId": "h1", "acceptedBy": "bob", "implicit": true }),
    )
    .say("bob", "HandoffDecline", json!({ "handoffId": "h1", "declinedBy": "bob" }))
    .say("alice", "Commitment", commit("handoff.accepted", true));

    let state = log.json();

    assert_eq!(
        only(&state["policy"]["voteTally"][0], &["proposalId", "allow", "deny", "threshold"]),
        json!({ "proposalId": "h1", "allow": 1, "deny": 0, "threshold": 1 })
    );
    assert_eq!(state["policy"]["voteTally"].as_array().unwrap().len(), 1);
    assert_eq!(state["decision"]["current"]["proposalId"], json!("h1"));
    assert_eq!(state["decision"]["anomalies"][0]["kind"], json!("settled_handoff"));
}

#[test]
fn a_negotiator_accepts_one_offer_at_a_time() {
    let mut log = Log::begun(PROPOSAL, &["alice", "bob"]);
    log.say("alice", "Proposal", json!({ "proposalId": "p1", "title": "First" }))
        .say(
            "bob",
            "CounterProposal",
            json!({ "proposalId": "p2", "supersedesProposalId": "p1", "summary": "cheaper" }),
        )
        .say("alice", "Reject", json!({ "proposalId": "p2", "reason": "no" }))
        .say("bob", "Accept", json!({ "proposalId": "p1" }))
        .say("alice", "Accept", json!({ "proposalId": "p2" }))
        .say("bob", "Accept", json!({ "proposalId": "p2" }));

    let state = log.json();

    let tally: Vec<_> = state["policy"]["voteTally"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| only(line, &["proposalId", "allow", "deny"]))
        .collect();
    assert_eq!(
        tally,
        [
            json!({ "proposalId": "p2", "allow": 2, "deny": 0 }),
            json!({ "proposalId": "p1", "allow": 0, "deny": 0 }),
        ]
    );
    assert_eq!(state["decision"].get("anomalies"), None);

    log.say("bob", "Withdraw", json!({ "proposalId": "p2" }));
    assert_eq!(log.json()["policy"]["voteTally"][0]["allow"], json!(0));
}

#[test]
fn contributions_of_rounds_are_listed_and_are_no_proposals() {
    let mut log = Log::begun(MULTI_ROUND, &["alice", "bob"]);
    log.say("alice", "Contribute", json!({ "value": "blue" }))
        .say("bob", "Contribute", json!({ "value": "green" }))
        .say("bob", "Contribute", json!({ "value": "blue" }))
        .say("alice", "Commitment", commit("multi_round.converged", true));

    let state = log.json();

    let current = &state["decision"]["current"];
    let values: Vec<_> =
        current["proposals"].as_array().unwrap().iter().map(|one| &one["action"]).collect();
    assert_eq!(values, ["blue", "green", "blue"]);
    assert_eq!(current["proposalId"], json!("c1"));
    assert_eq!(state["policy"].get("voteTally"), None);
}

#[test]
fn json_payloads_of_old_agents_fold_as_well() {
    let mut log = Log::begun("ext.other.v1", &["alice", "bob"]);
    log.say("alice", "Proposal", json!({ "proposal_id": "p1", "action": "go" })).say(
        "bob",
        "Vote",
        json!({ "proposal_id": "p1", "vote": "yes" }),
    );

    let state = log.json();

    assert_eq!(state["decision"]["current"]["proposalId"], json!("p1"));
    assert_eq!(state["policy"]["voteTally"][0]["allow"], json!(1));
}
