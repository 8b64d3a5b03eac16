//! Who voted what (spec 6.10).
//!
//! **Invariant:** one vote for each participant and proposal. Where the mode says that the first
//! one stands, a second is an anomaly; in negotiation the latest one stands, and accepting one
//! offer takes back the acceptance of another.

use super::decision::{Said, anomaly};
use crate::projection::Projection;
use crate::read;
use crate::sections::{MAX_TALLIES, Quorum, Vote, VoteTally};
use crate::threshold;

const QUORUM: &str = "macp.mode.quorum.v1";
const PROPOSAL: &str = "macp.mode.proposal.v1";

/// What becomes of a vote.
enum Ruling {
    /// It stands, in place of the sender's earlier one.
    Stands,
    /// It does not count.
    Discarded { kind: &'static str, detail: String },
}

/// Counts what `said` means for its proposal.
pub(super) fn count(state: &mut Projection, said: &Said<'_>, vote: Option<Vote>) {
    let id = said.proposal_id.as_str();
    if id.is_empty() {
        return;
    }
    match said.message_type {
        "ApprovalRequest" => open(state, said),
        // What was accepted and then withdrawn is accepted by nobody.
        "Withdraw" => {
            if let Some(votes) = state.memory.votes.get_mut(id) {
                votes.clear();
                recount(state, said.mode, id);
            }
        }
        _ => {}
    }
    let Some(vote) = vote else { return };
    match ruling(state, said, vote) {
        Ruling::Discarded { kind, detail } => {
            anomaly(state, said.event, kind, id.to_owned(), detail);
        }
        Ruling::Stands => record(state, said, vote),
    }
}

/// The share of approvals among the votes for or against; `None` while there are none.
pub(super) fn share(state: &Projection, proposal_id: &str) -> Option<f64> {
    let tally = state.policy.vote_tally.iter().find(|one| one.proposal_id == proposal_id)?;
    let decisive = tally.allow + tally.deny;
    #[expect(clippy::cast_precision_loss, reason = "votes are at most thousands")]
    let share = tally.allow as f64 / decisive as f64;
    (decisive > 0).then_some(share)
}

/// A request says itself how many approvals it needs, before anybody voted.
fn open(state: &mut Projection, said: &Said<'_>) {
    if let Some(required) = read::integer(said.payload, "requiredApprovals") {
        state.memory.required_approvals.insert(said.proposal_id.clone(), required.max(1));
    }
    recount(state, said.mode, &said.proposal_id);
    state.policy.quorum_status.get_or_insert_with(|| "pending".to_owned());
}

fn ruling(state: &Projection, said: &Said<'_>, vote: Vote) -> Ruling {
    let votes = state.memory.votes.get(&said.proposal_id);
    let earlier = votes.and_then(|votes| votes.get(said.sender)).copied();
    match said.message_type {
        "Vote" => first_stands("duplicate_vote", earlier, vote),
        "Approve" | "Abstain" => first_stands("duplicate_ballot", earlier, vote),
        "Reject" if said.mode == QUORUM => first_stands("duplicate_ballot", earlier, vote),
        "TaskAccept" => {
            let holder = state.memory.votes.iter().find_map(|(task, votes)| {
                let (who, _) = votes.iter().find(|(_, vote)| **vote == Vote::Allow)?;
                Some((who, task))
            });
            match holder {
                Some((who, task)) => Ruling::Discarded {
                    kind: "duplicate_task_accept",
                    detail: format!("task {task} is already accepted by {who}"),
                },
                None => Ruling::Stands,
            }
        }
        "HandoffAccept" | "HandoffDecline" => match votes.and_then(|votes| votes.iter().next()) {
            Some((who, earlier)) => Ruling::Discarded {
                kind: "settled_handoff",
                detail: format!("already settled by {who}: {}", name(*earlier)),
            },
            None => Ruling::Stands,
        },
        _ => Ruling::Stands,
    }
}

fn first_stands(kind: &'static str, earlier: Option<Vote>, vote: Vote) -> Ruling {
    match earlier {
        Some(earlier) => Ruling::Discarded {
            kind,
            detail: format!("kept the first vote {}, discarded {}", name(earlier), name(vote)),
        },
        None => Ruling::Stands,
    }
}

fn name(vote: Vote) -> &'static str {
    match vote {
        Vote::Allow => "allow",
        Vote::Deny => "deny",
        Vote::Abstain => "abstain",
    }
}

fn record(state: &mut Projection, said: &Said<'_>, vote: Vote) {
    if said.mode == PROPOSAL && vote == Vote::Allow {
        take_back(state, said);
    }
    let votes = state.memory.votes.entry(said.proposal_id.clone()).or_default();
    if votes.len() < crate::sections::MAX_PARTICIPANTS || votes.contains_key(said.sender) {
        votes.insert(said.sender.to_owned(), vote);
    }
    recount(state, said.mode, &said.proposal_id);
    state.policy.quorum_status.get_or_insert_with(|| "pending".to_owned());
}

/// In negotiation everybody accepts at most one offer: the latest.
fn take_back(state: &mut Projection, said: &Said<'_>) {
    let mut changed = Vec::new();
    for (proposal, votes) in &mut state.memory.votes {
        if *proposal != said.proposal_id && votes.get(said.sender) == Some(&Vote::Allow) {
            votes.remove(said.sender);
            changed.push(proposal.clone());
        }
    }
    for proposal in changed {
        recount(state, said.mode, &proposal);
    }
}

/// Brings the proposal's line up to date, or adds it; the oldest goes when there are too many.
fn recount(state: &mut Projection, mode: &str, proposal_id: &str) {
    let (required, threshold) = bar(state, mode, proposal_id);
    let votes = state.memory.votes.get(proposal_id);
    let of = |wanted: Vote| {
        let count = votes.map_or(0, |votes| votes.values().filter(|vote| **vote == wanted).count());
        i64::try_from(count).unwrap_or(i64::MAX)
    };
    let (allow, deny, abstain) = (of(Vote::Allow), of(Vote::Deny), of(Vote::Abstain));
    let tally = VoteTally {
        commitment_id: proposal_id.to_owned(),
        proposal_id: proposal_id.to_owned(),
        allow,
        deny,
        abstain,
        threshold,
        quorum: Quorum { required, cast: allow + deny + abstain },
    };
    let lines = &mut state.policy.vote_tally;
    if let Some(line) = lines.iter_mut().find(|line| line.proposal_id == proposal_id) {
        *line = tally;
        return;
    }
    lines.push_back(tally);
    while lines.len() > MAX_TALLIES {
        if let Some(oldest) = lines.pop_front() {
            state.memory.votes.remove(&oldest.proposal_id);
            state.memory.required_approvals.remove(&oldest.proposal_id);
        }
    }
}

/// How many may vote on a proposal, and how many must approve.
fn bar(state: &Projection, mode: &str, proposal_id: &str) -> (i64, i64) {
    if matches!(mode, "macp.mode.task.v1" | "macp.mode.handoff.v1") {
        // One participant takes it on, or nobody does.
        return (1, 1);
    }
    let known = i64::try_from(state.participants.len()).unwrap_or(i64::MAX);
    let eligible = if state.memory.declared > 0 { state.memory.declared } else { known };
    let threshold = match (state.memory.bar, state.memory.required_approvals.get(proposal_id)) {
        (Some(bar), _) => bar.approvals(eligible),
        (None, Some(required)) => *required,
        (None, None) => threshold::half(eligible),
    };
    (eligible, threshold)
}
