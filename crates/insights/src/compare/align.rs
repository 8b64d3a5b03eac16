//! Which step of one story is which of the other.
//!
//! **Invariant:** what one participant says about one proposal in one way is one sequence, and
//! sequences are aligned each by itself: who spoke before whom makes no difference between runs.
//! Swapping the stories swaps the pairs; where several alignments are equally good, what was said
//! decides, not on which side it was.

use std::collections::BTreeMap;

use super::pair::Pairing;
use super::story::{Kind, Step, Story};
use super::value::is_wording;

/// Largest table of one alignment; longer sequences are paired place by place.
const MAX_CELLS: usize = 1_000_000;
const WORDED_OTHERWISE: u32 = 1;
const GAP: u32 = 3;
/// Less than leaving both out.
const SAID_OTHERWISE: u32 = 4;

/// How the steps of two stories belong together, by their places.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Aligned {
    /// In the order of the left.
    pub(super) pairs: Vec<(usize, usize)>,
    /// Whether a sequence was too long to be aligned well.
    pub(super) is_rough: bool,
}

/// What is one sequence.
type Slot<'a> = (&'a Kind, Option<&'a str>, Option<usize>);

/// The steps of one slot in one story, with their places.
type Told<'a> = Vec<(usize, &'a Step)>;

/// A step, as far as its sequence cares.
struct Said {
    place: usize,
    /// All of it.
    whole: String,
    /// What it comes to.
    gist: String,
}

impl Said {
    fn new((place, step): (usize, &Step)) -> Self {
        let mut said =
            Self { place, whole: step.message_type.clone(), gist: step.message_type.clone() };
        for (name, field) in &step.fields {
            let part = format!("\n{name}: {}", field.mark());
            said.whole.push_str(&part);
            if !is_wording(name) {
                said.gist.push_str(&part);
            }
        }
        said
    }
}

/// Aligns two stories.
pub(super) fn align(left: &Story, right: &Story, proposals: &Pairing) -> Aligned {
    let mut slots: BTreeMap<Slot<'_>, (Told<'_>, Told<'_>)> = BTreeMap::new();
    for (place, step) in left.steps.iter().enumerate() {
        let about = step.proposal.and_then(|proposal| proposals.left(proposal));
        slots.entry(slot(step, about)).or_default().0.push((place, step));
    }
    for (place, step) in right.steps.iter().enumerate() {
        let about = step.proposal.and_then(|proposal| proposals.right(proposal));
        slots.entry(slot(step, about)).or_default().1.push((place, step));
    }
    let mut aligned = Aligned::default();
    for (ours, theirs) in slots.into_values() {
        if ours.is_empty() || theirs.is_empty() {
            continue;
        }
        let ours: Vec<Said> = ours.into_iter().map(Said::new).collect();
        let theirs: Vec<Said> = theirs.into_iter().map(Said::new).collect();
        sequence(&ours, &theirs, &mut aligned);
    }
    aligned.pairs.sort_unstable();
    aligned
}

fn slot(step: &Step, about: Option<usize>) -> Slot<'_> {
    match step.kind {
        // A session has one, whoever makes it and whatever it is named after.
        Kind::Commitment => (&step.kind, None, None),
        Kind::Start
        | Kind::Proposal
        | Kind::Evaluation
        | Kind::Objection
        | Kind::Vote
        | Kind::Response
        | Kind::Withdrawal
        | Kind::Ballot
        | Kind::TaskResponse
        | Kind::TaskUpdate
        | Kind::TaskResult
        | Kind::HandoffContext
        | Kind::HandoffResponse
        | Kind::Contribution
        | Kind::Other(_) => (&step.kind, step.participant.as_deref(), about),
    }
}

/// Pairs the steps of two sequences so that as little as possible differs.
fn sequence(ours: &[Said], theirs: &[Said], aligned: &mut Aligned) {
    let (mut ours, mut theirs) = (ours, theirs);
    let mut take = |our: &Said, their: &Said| aligned.pairs.push((our.place, their.place));
    while let (Some((our, after)), Some((their, behind))) =
        (ours.split_first(), theirs.split_first())
        && our.whole == their.whole
    {
        take(our, their);
        (ours, theirs) = (after, behind);
    }
    while let (Some((our, before)), Some((their, ahead))) = (ours.split_last(), theirs.split_last())
        && our.whole == their.whole
    {
        take(our, their);
        (ours, theirs) = (before, ahead);
    }
    if ours.len().saturating_mul(theirs.len()) > MAX_CELLS {
        aligned.is_rough = true;
        aligned.pairs.extend(ours.iter().zip(theirs).map(|(our, their)| (our.place, their.place)));
        return;
    }
    let costs = Costs::of(ours, theirs);
    let (mut i, mut j) = (0, 0);
    while let (Some(our), Some(their)) = (ours.get(i), theirs.get(j)) {
        let both = costs.from(i + 1, j + 1).saturating_add(difference(our, their));
        let ours_out = costs.from(i + 1, j).saturating_add(GAP);
        let theirs_out = costs.from(i, j + 1).saturating_add(GAP);
        if both <= ours_out && both <= theirs_out {
            take(our, their);
            (i, j) = (i + 1, j + 1);
        } else if ours_out < theirs_out || (ours_out == theirs_out && our.whole < their.whole) {
            i += 1;
        } else {
            j += 1;
        }
    }
}

fn difference(our: &Said, their: &Said) -> u32 {
    if our.whole == their.whole {
        0
    } else if our.gist == their.gist {
        WORDED_OTHERWISE
    } else {
        SAID_OTHERWISE
    }
}

/// What aligning the rest of two sequences costs, from any two places on.
struct Costs {
    width: usize,
    cells: Vec<u32>,
}

impl Costs {
    fn of(ours: &[Said], theirs: &[Said]) -> Self {
        let width = theirs.len() + 1;
        let mut costs = Self { width, cells: vec![0; width * (ours.len() + 1)] };
        for i in (0..=ours.len()).rev() {
            for j in (0..width).rev() {
                let cost = match (ours.get(i), theirs.get(j)) {
                    (Some(our), Some(their)) => {
                        let both = costs.from(i + 1, j + 1) + difference(our, their);
                        both.min(costs.from(i + 1, j) + GAP).min(costs.from(i, j + 1) + GAP)
                    }
                    (Some(_), None) => costs.from(i + 1, j) + GAP,
                    (None, Some(_)) => costs.from(i, j + 1) + GAP,
                    (None, None) => 0,
                };
                if let Some(cell) = costs.cells.get_mut(i * width + j) {
                    *cell = cost;
                }
            }
        }
        costs
    }

    fn from(&self, i: usize, j: usize) -> u32 {
        self.cells.get(i * self.width + j).copied().unwrap_or(0)
    }
}

impl Aligned {
    /// How many pairs stand in another order than the rest: what is left when the longest run of
    /// pairs that rise on both sides is taken away.
    pub(super) fn reordered(&self) -> usize {
        // The smallest end of a rising run of each length.
        let mut ends: Vec<usize> = Vec::new();
        for (_, right) in &self.pairs {
            let length = ends.partition_point(|end| end < right);
            match ends.get_mut(length) {
                Some(end) => *end = *right,
                None => ends.push(*right),
            }
        }
        self.pairs.len() - ends.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(words: &str) -> Vec<Said> {
        let each = words.split_whitespace().enumerate();
        // A word in lower case is the one in upper case, worded otherwise.
        each.map(|(place, word)| Said { place, whole: word.into(), gist: word.to_uppercase() })
            .collect()
    }

    fn pairs(ours: &str, theirs: &str) -> Vec<(usize, usize)> {
        let mut aligned = Aligned::default();
        sequence(&said(ours), &said(theirs), &mut aligned);
        aligned.pairs.sort_unstable();
        aligned.pairs
    }

    #[test]
    fn one_change_is_one_change() {
        assert_eq!(pairs("A R A", "R R A"), [(0, 0), (1, 1), (2, 2)]);
        assert_eq!(pairs("A B C", "A C"), [(0, 0), (2, 1)]);
        assert_eq!(pairs("A A", "A A A").len(), 2);
        assert_eq!(pairs("A B", "b"), [(1, 0)]);
        assert_eq!(pairs("A", "B"), [(0, 0)]);
        assert_eq!(pairs("", "B"), []);
    }

    #[test]
    fn what_can_be_aligned_in_two_ways_is_aligned_the_same_from_both_sides() {
        for (one, other) in [("A B", "B A"), ("A B C D", "D C B A"), ("A a B", "B a A a")] {
            let mut turned: Vec<_> = pairs(other, one).into_iter().map(|(i, j)| (j, i)).collect();
            turned.sort_unstable();
            assert_eq!(pairs(one, other), turned, "{one} and {other}");
        }
    }

    #[test]
    fn sequences_that_are_too_long_are_paired_place_by_place_and_that_is_said() {
        let long = |word: &str| (0..1001).map(|n| format!("{word}{n} ")).collect::<String>();
        let (ours, theirs) = (said(&long("A")), said(&long("B")));
        let mut aligned = Aligned::default();

        sequence(&ours, &theirs, &mut aligned);

        assert!(aligned.is_rough);
        assert_eq!(aligned.pairs.len(), 1001);
        assert!(aligned.pairs.iter().all(|(left, right)| left == right));
    }

    #[test]
    fn steps_that_changed_places_are_counted() {
        let moved = |pairs: &[(usize, usize)]| {
            Aligned { pairs: pairs.to_vec(), is_rough: false }.reordered()
        };
        assert_eq!(moved(&[(0, 0), (1, 1), (2, 3)]), 0);
        assert_eq!(moved(&[(0, 1), (1, 0), (2, 2)]), 1);
        assert_eq!(moved(&[]), 0);
    }
}
