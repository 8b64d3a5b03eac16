//! What was decided.

use control_plane_projection::{Finding, Projection};
use serde::Serialize;

use super::differences;
use super::pair::Pairing;
use super::report::Pair;
use super::story::{Kind, Story};

/// How the decisions of two runs differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DecisionDiff {
    /// Which of the following differ.
    pub changed: Vec<&'static str>,
    pub finalized: Pair<bool>,
    /// `positive`, `negative`, `unknown` where the commitment does not say, or `undecided`.
    pub outcome: Pair<&'static str>,
    pub action: Pair<Option<String>>,
    /// What was committed to, where the commitment is named after it.
    pub proposal: Pair<Option<String>>,
    pub confidence: Pair<Option<f64>>,
    pub reasons: Pair<Vec<String>>,
    /// Who made the commitment.
    pub resolved_by: Pair<Option<String>>,
}

/// A decision, as far as it does not depend on ids.
struct Decided {
    finalized: bool,
    outcome: &'static str,
    action: Option<String>,
    proposal: Option<usize>,
    confidence: Option<f64>,
    reasons: Vec<String>,
    resolved_by: Option<String>,
}

impl Decided {
    fn new(state: &Projection, story: &Story) -> Self {
        let current = state.decision.current.as_ref();
        let confidence = current.and_then(|current| current.confidence);
        let Some(current) = current.filter(|current| current.finalized) else {
            // What is on the table is named by its id, and is no decision.
            return Self {
                finalized: false,
                outcome: "undecided",
                action: None,
                proposal: None,
                confidence,
                reasons: Vec::new(),
                resolved_by: None,
            };
        };
        Self {
            finalized: true,
            outcome: outcome(current),
            action: Some(current.action.clone()),
            proposal: committed(current, story),
            confidence,
            reasons: current.reasons.clone(),
            resolved_by: current.resolved_by.clone(),
        }
    }
}

fn outcome(current: &Finding) -> &'static str {
    match current.outcome_positive.flatten() {
        Some(true) => "positive",
        Some(false) => "negative",
        None => "unknown",
    }
}

/// The proposal that the commitment is named after; the only one there is, if it is named otherwise.
fn committed(current: &Finding, story: &Story) -> Option<usize> {
    let named = story
        .steps
        .iter()
        .find(|step| step.kind == Kind::Commitment)
        .and_then(|step| step.proposal)
        .or_else(|| story.ids.get(current.commitment_id.as_deref()?).copied());
    named.or((story.proposals.len() == 1 && story.stops_at.is_none()).then_some(0))
}

pub(super) fn compare(
    (left, ours): (&Projection, &Story),
    (right, theirs): (&Projection, &Story),
    pairing: &Pairing,
) -> DecisionDiff {
    let (left, right) = (Decided::new(left, ours), Decided::new(right, theirs));
    let chosen = left.proposal.zip(right.proposal);
    let label =
        |story: &Story, index: Option<usize>| Some(story.proposals.get(index?)?.label.clone());
    let mut changed = Vec::new();
    let mut note = |name, differs| {
        if differs {
            changed.push(name);
        }
    };
    note("finalized", left.finalized != right.finalized);
    note("outcome", left.outcome != right.outcome);
    note("action", left.action != right.action);
    // Where one commitment is not named after its proposal, nothing is known.
    let is_other = |(our, their)| differences::is_other((ours, our), (theirs, their), pairing);
    note("proposal", chosen.is_some_and(is_other));
    note("confidence", left.confidence != right.confidence);
    note("reasons", left.reasons != right.reasons);
    let by = left.resolved_by.as_ref().zip(right.resolved_by.as_ref());
    note("resolvedBy", by.is_some_and(|(left, right)| left != right));
    DecisionDiff {
        changed,
        finalized: Pair::new(left.finalized, right.finalized),
        outcome: Pair::new(left.outcome, right.outcome),
        action: Pair::new(left.action, right.action),
        proposal: Pair::new(label(ours, left.proposal), label(theirs, right.proposal)),
        confidence: Pair::new(left.confidence, right.confidence),
        reasons: Pair::new(left.reasons, right.reasons),
        resolved_by: Pair::new(left.resolved_by, right.resolved_by),
    }
}
