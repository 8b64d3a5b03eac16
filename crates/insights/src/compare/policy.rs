//! By what rules it was decided, and how the votes stood.

use std::collections::BTreeMap;

use control_plane_projection::{Projection, VoteTally};
use serde::Serialize;

use super::pair::Pairing;
use super::report::Pair;
use super::story::Story;

/// How the policies of two runs, and what they made of the votes, differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyDiff {
    /// Which of the following differ.
    pub changed: Vec<&'static str>,
    pub policy_version: Pair<String>,
    /// `pending`, `reached` or `failed`.
    pub quorum_status: Pair<Option<String>>,
    /// What the policy said of the commitments, in order.
    pub evaluations: Pair<Vec<String>>,
    /// The votes on each proposal where they, or what they must reach, differ.
    pub tallies: Vec<Pair<Option<Tally>>>,
}

/// The votes on one proposal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Tally {
    pub proposal: String,
    pub allow: i64,
    pub deny: i64,
    pub abstain: i64,
    /// The approvals needed.
    pub threshold: i64,
    /// How many may vote.
    pub eligible: i64,
    pub cast: i64,
}

impl Tally {
    fn new(line: &VoteTally, proposal: String) -> Self {
        Self {
            proposal,
            allow: line.allow,
            deny: line.deny,
            abstain: line.abstain,
            threshold: line.threshold,
            eligible: line.quorum.required,
            cast: line.quorum.cast,
        }
    }

    /// Whether two say the same, whatever the proposals are called.
    fn is_as(&self, other: &Self) -> bool {
        let Self { proposal: _, allow, deny, abstain, threshold, eligible, cast } = other;
        (self.allow, self.deny, self.abstain) == (*allow, *deny, *abstain)
            && (self.threshold, self.eligible, self.cast) == (*threshold, *eligible, *cast)
    }
}

pub(super) fn compare(
    (left, ours): (&Projection, &Story),
    (right, theirs): (&Projection, &Story),
    pairing: &Pairing,
) -> PolicyDiff {
    let mut lines: BTreeMap<usize, (Option<Tally>, Option<Tally>)> = BTreeMap::new();
    for (index, tally) in tallies(left, ours) {
        if let Some(number) = pairing.left(index) {
            lines.entry(number).or_default().0 = Some(tally);
        }
    }
    for (index, tally) in tallies(right, theirs) {
        if let Some(number) = pairing.right(index) {
            lines.entry(number).or_default().1 = Some(tally);
        }
    }
    let mut tallies: Vec<Pair<Option<Tally>>> = lines
        .into_values()
        .filter(|(left, right)| match (left, right) {
            (Some(left), Some(right)) => !left.is_as(right),
            (left, right) => left.is_some() || right.is_some(),
        })
        .map(|(left, right)| Pair::new(left, right))
        .collect();
    tallies.sort_by_key(|pair| {
        let (left, right) = (pair.left.clone(), pair.right.clone());
        if left <= right { (left, right) } else { (right, left) }
    });
    let (left, right) = (&left.policy, &right.policy);
    let evaluations = Pair::new(evaluations(left), evaluations(right));
    let mut changed = Vec::new();
    for (name, differs) in [
        ("policyVersion", left.policy_version != right.policy_version),
        ("quorumStatus", left.quorum_status != right.quorum_status),
        ("evaluations", evaluations.left != evaluations.right),
        ("tallies", !tallies.is_empty()),
    ] {
        if differs {
            changed.push(name);
        }
    }
    PolicyDiff {
        changed,
        policy_version: Pair::new(left.policy_version.clone(), right.policy_version.clone()),
        quorum_status: Pair::new(left.quorum_status.clone(), right.quorum_status.clone()),
        evaluations,
        tallies,
    }
}

fn tallies<'a>(
    state: &'a Projection,
    story: &'a Story,
) -> impl Iterator<Item = (usize, Tally)> + 'a {
    state.policy.vote_tally.iter().filter_map(|line| {
        let index = *story.ids.get(&line.proposal_id)?;
        let label = story.proposals.get(index)?.label.clone();
        Some((index, Tally::new(line, label)))
    })
}

fn evaluations(policy: &control_plane_projection::Policy) -> Vec<String> {
    let said = policy.commitment_evaluations.iter().map(|one| {
        if one.reasons.is_empty() {
            one.decision.clone()
        } else {
            format!("{}: {}", one.decision, one.reasons.join("; "))
        }
    });
    said.collect()
}
