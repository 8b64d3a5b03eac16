//! What is left over of an alignment.
//!
//! **Invariant:** the order is that of the runs, and the same from both sides.

use serde::Serialize;

use super::align::Aligned;
use super::pair::Pairing;
use super::story::{Kind, Step, Story};
use super::value::is_wording;

/// How a step differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It is in the right run only.
    Added,
    /// It is in the left run only.
    Removed,
    /// It is in both, and not the same.
    Changed,
}

/// A step that is not the same in both runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) change: Change,
    left: Option<usize>,
    right: Option<usize>,
    pub(super) fields: Vec<String>,
    pub(super) wording_only: bool,
    /// How many steps both have before it.
    pub(super) after: usize,
}

impl Difference {
    pub(super) fn left<'a>(&self, story: &'a Story) -> Option<&'a Step> {
        story.steps.get(self.left?)
    }

    pub(super) fn right<'a>(&self, story: &'a Story) -> Option<&'a Step> {
        story.steps.get(self.right?)
    }
}

/// Who did it. A commitment may be made by another on the other side; then nobody in particular.
pub(super) fn participant<'a>(left: Option<&'a Step>, right: Option<&'a Step>) -> Option<&'a str> {
    let who = |step: Option<&'a Step>| step.and_then(|step| step.participant.as_deref());
    match (who(left), who(right)) {
        (Some(left), Some(right)) => Some(left).filter(|left| *left == right),
        (left, right) => left.or(right),
    }
}

/// Whether two proposals are neither a pair nor of the same content, as one that was made twice.
pub(super) fn is_other(
    (left, our): (&Story, usize),
    (right, their): (&Story, usize),
    pairing: &Pairing,
) -> bool {
    let content = |story: &Story, index: usize| {
        let proposal = story.proposals.get(index)?;
        Some((proposal.group, proposal.content)).filter(|(group, _)| !group.is_empty())
    };
    pairing.left(our) != pairing.right(their)
        && content(left, our).is_none_or(|ours| content(right, their) != Some(ours))
}

/// The first that is more than a matter of words; of none, the first.
pub(super) fn first(found: &[Difference]) -> Option<&Difference> {
    found.iter().find(|one| !one.wording_only).or_else(|| found.first())
}

pub(super) fn find(
    left: &Story,
    right: &Story,
    pairing: &Pairing,
    aligned: &Aligned,
) -> Vec<Difference> {
    let mut partners = (vec![None; left.steps.len()], vec![None; right.steps.len()]);
    for (our, their) in &aligned.pairs {
        if let (Some(ours), Some(theirs)) = (partners.0.get_mut(*our), partners.1.get_mut(*their)) {
            (*ours, *theirs) = (Some(*their), Some(*our));
        }
    }
    let before = (common_before(&partners.0), common_before(&partners.1));
    let common = |left: Option<usize>, right: Option<usize>| {
        let left = left.and_then(|place| before.0.get(place)).copied();
        let right = right.and_then(|place| before.1.get(place)).copied();
        match (left, right) {
            (Some(left), Some(right)) => left.min(right),
            (left, right) => left.or(right).unwrap_or(0),
        }
    };
    let alone = |change, left, right| Difference {
        change,
        left,
        right,
        fields: Vec::new(),
        wording_only: false,
        after: common(left, right),
    };
    let mut found = Vec::new();
    for (place, (step, partner)) in left.steps.iter().zip(&partners.0).enumerate() {
        let Some(there) = *partner else {
            found.push(alone(Change::Removed, Some(place), None));
            continue;
        };
        let Some(other) = right.steps.get(there) else { continue };
        let fields = changed_fields((left, step), (right, other), pairing);
        if !fields.is_empty() {
            let wording_only = fields.iter().all(|name| is_wording(name));
            let changed = alone(Change::Changed, Some(place), Some(there));
            found.push(Difference { fields, wording_only, ..changed });
        }
    }
    for (place, partner) in partners.1.iter().enumerate() {
        if partner.is_none() {
            found.push(alone(Change::Added, None, Some(place)));
        }
    }
    found.sort_by_cached_key(|difference| key(difference, left, right));
    found
}

/// For each step, how many before it have a partner.
fn common_before(partners: &[Option<usize>]) -> Vec<usize> {
    let mut common = 0;
    let counted = partners.iter().map(|partner| {
        let before = common;
        common += usize::from(partner.is_some());
        before
    });
    counted.collect()
}

/// Where a difference stands. Nothing in it depends on which side is which.
fn key(difference: &Difference, left: &Story, right: &Story) -> impl Ord + use<> {
    let places = match (difference.left, difference.right) {
        (Some(left), Some(right)) => (left.min(right), left.max(right)),
        (left, right) => (left.or(right).unwrap_or(0), usize::MAX),
    };
    let told = |story: &Story, step: Option<&Step>| {
        step.map(|step| {
            let fields: Vec<String> = step
                .fields
                .iter()
                .map(|(name, field)| format!("{name}: {}", field.mark()))
                .collect();
            let label = story.label(step).unwrap_or_default().to_owned();
            (step.participant.clone(), step.kind.clone(), label, step.message_type.clone(), fields)
        })
    };
    let ours = told(left, difference.left(left));
    let theirs = told(right, difference.right(right));
    let told = if ours <= theirs { (ours, theirs) } else { (theirs, ours) };
    (difference.after, places, told)
}

/// The names of what differs in two steps that belong together.
fn changed_fields(
    (ours, left): (&Story, &Step),
    (theirs, right): (&Story, &Step),
    pairing: &Pairing,
) -> Vec<String> {
    let mut names: Vec<&str> = Vec::new();
    if left.message_type != right.message_type {
        names.push("messageType");
    }
    if left.kind == Kind::Commitment {
        // What one side does not know is no difference.
        let by = left.participant.as_ref().zip(right.participant.as_ref());
        if by.is_some_and(|(left, right)| left != right) {
            names.push("participant");
        }
        let about = left.proposal.zip(right.proposal);
        if about.is_some_and(|(our, their)| is_other((ours, our), (theirs, their), pairing)) {
            names.push("proposal");
        }
    }
    let replaces_another = match (left.supersedes, right.supersedes) {
        (Some(our), Some(their)) => is_other((ours, our), (theirs, their), pairing),
        (our, their) => our != their,
    };
    if replaces_another {
        names.push("supersedes");
    }
    let all = left
        .fields
        .keys()
        .chain(right.fields.keys().filter(|name| !left.fields.contains_key(*name)));
    names.extend(
        all.filter(|name| left.fields.get(*name) != right.fields.get(*name)).map(String::as_str),
    );
    let mut names: Vec<String> = names.into_iter().map(str::to_owned).collect();
    names.sort_unstable();
    names
}

impl Story {
    /// What a step is about, for people.
    pub(super) fn label(&self, step: &Step) -> Option<&str> {
        self.proposals.get(step.proposal?).map(|proposal| proposal.label.as_str())
    }
}
