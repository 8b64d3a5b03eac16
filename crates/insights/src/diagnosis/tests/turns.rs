//! Whose turn it is, mode by mode.

use serde_json::json;

use super::*;

const PROPOSAL: &str = "macp.mode.proposal.v1";
const TASK: &str = "macp.mode.task.v1";
const HANDOFF: &str = "macp.mode.handoff.v1";
const QUORUM: &str = "macp.mode.quorum.v1";
const MULTI_ROUND: &str = "ext.multi_round.v1";

fn waits_for(facts: &Facts) -> String {
    let diagnosis = diagnose(facts);
    assert_eq!(diagnosis.condition, Condition::WaitingForParticipants, "{}", diagnosis.summary);
    let text = diagnosis.summary.strip_prefix("Waiting for ").unwrap();
    text.strip_suffix('.').unwrap().to_owned()
}

#[test]
fn a_decision_waits_for_a_proposal_evaluations_votes_and_the_commitment() {
    let p1 = json!({ "proposalId": "p1" });
    let vote = |vote: &str| json!({ "proposalId": "p1", "vote": vote });
    let mut facts = facts(DECISION).running(&["alice", "bob", "carol"]);
    assert_eq!(waits_for(&facts), "a proposal of alice, bob or carol");

    facts = facts.said("alice", "Proposal", p1.clone());
    assert_eq!(waits_for(&facts), "evaluations or votes of bob and carol on p1");

    facts = facts.said("bob", "Evaluation", p1.clone());
    assert_eq!(waits_for(&facts), "evaluations or votes of carol on p1");

    facts = facts.said("carol", "Evaluation", p1);
    assert_eq!(waits_for(&facts), "votes of alice, bob and carol on p1");

    facts = facts.said("alice", "Vote", vote("APPROVE"));
    let waiting = diagnose(&facts).waiting_for.unwrap();
    assert_eq!((waiting.what, waiting.subject_id.as_deref()), (What::Votes, Some("p1")));
    assert_eq!(waiting.participants, ["bob", "carol"]);

    facts = facts.said("bob", "Vote", vote("ABSTAIN")).said("carol", "Vote", vote("REJECT"));
    assert_eq!(waits_for(&facts), "the Commitment of alice, who began the session");
}

#[test]
fn a_negotiation_waits_for_everybody_to_accept_the_open_offer() {
    let offer = |id: &str| json!({ "proposalId": id });
    let mut facts = facts(PROPOSAL).running(&["alice", "bob"]);
    assert_eq!(waits_for(&facts), "a proposal of alice or bob");

    facts = facts.said("alice", "Proposal", offer("o1"));
    assert_eq!(waits_for(&facts), "acceptances of alice and bob of o1");

    facts = facts.said("bob", "CounterProposal", offer("o2")).said("alice", "Accept", offer("o2"));
    assert_eq!(waits_for(&facts), "acceptances of bob of o2");

    let withdrawn = facts.clone().said("bob", "Withdraw", offer("o2"));
    assert_eq!(waits_for(&withdrawn), "acceptances of alice and bob of o1");

    facts = facts.said("bob", "Accept", offer("o2"));
    assert_eq!(waits_for(&facts), "the Commitment of alice, who began the session");
}

#[test]
fn a_task_waits_for_its_request_its_acceptance_and_its_result() {
    let t1 = json!({ "taskId": "t1" });
    let mut facts = facts(TASK).running(&["alice", "bob", "carol"]);
    assert_eq!(waits_for(&facts), "a task to be requested by alice");

    facts = facts.said("alice", "TaskRequest", t1.clone());
    assert_eq!(waits_for(&facts), "the task named t1 to be accepted by bob or carol");

    facts = facts.said("bob", "TaskReject", t1.clone());
    assert_eq!(waits_for(&facts), "the task named t1 to be accepted by carol");

    facts = facts.said("carol", "TaskAccept", t1.clone()).said("carol", "TaskUpdate", t1.clone());
    assert_eq!(waits_for(&facts), "carol to complete the task named t1");

    facts = facts.said("carol", "TaskComplete", t1);
    assert_eq!(waits_for(&facts), "the Commitment of alice, who began the session");
}

#[test]
fn a_handoff_waits_for_its_offer_and_its_answer() {
    let handoff = |id: &str| json!({ "handoffId": id });
    let mut facts = facts(HANDOFF).running(&["alice", "bob"]);
    assert_eq!(waits_for(&facts), "a handoff to be offered by alice");

    facts = facts.said("alice", "HandoffOffer", handoff("h1"));
    assert_eq!(waits_for(&facts), "the handoff named h1 to be answered by bob");

    facts = facts.said("bob", "HandoffDecline", handoff("h1"));
    assert_eq!(waits_for(&facts), "a handoff to be offered by alice");

    facts = facts.said("alice", "HandoffOffer", handoff("h2")).said(
        "bob",
        "HandoffAccept",
        handoff("h2"),
    );
    assert_eq!(waits_for(&facts), "the Commitment of alice, who began the session");
}

#[test]
fn a_quorum_waits_for_ballots_until_there_are_enough() {
    let request = json!({ "requestId": "r1", "requiredApprovals": 2 });
    let r1 = json!({ "requestId": "r1" });
    let mut facts = facts(QUORUM).running(&["bob", "carol", "dave"]);
    assert_eq!(waits_for(&facts), "an approval to be requested by alice");

    facts = facts.said("alice", "ApprovalRequest", request);
    assert_eq!(waits_for(&facts), "approvals of bob, carol and dave on r1");

    facts = facts.said("bob", "Approve", r1.clone()).said("carol", "Abstain", r1.clone());
    assert_eq!(waits_for(&facts), "approvals of dave on r1");

    facts = facts.said("dave", "Approve", r1);
    assert_eq!(waits_for(&facts), "the Commitment of alice, who began the session");
}

#[test]
fn rounds_go_on_until_everybody_says_the_same() {
    let value = |value: &str| json!({ "value": value });
    let mut facts = facts(MULTI_ROUND).running(&["bob", "carol"]);
    assert_eq!(waits_for(&facts), "contributions of bob and carol");

    facts = facts.said("bob", "Contribute", value("blue"));
    assert_eq!(waits_for(&facts), "contributions of carol");

    facts = facts.said("carol", "Contribute", value("green"));
    assert_eq!(waits_for(&facts), "contributions of bob and carol");

    facts = facts.said("carol", "Contribute", value("blue"));
    assert_eq!(waits_for(&facts), "the Commitment of alice, who began the session");
}
