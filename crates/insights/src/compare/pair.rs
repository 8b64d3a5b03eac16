//! Which proposal of one story is which of the other.
//!
//! **Invariant:** swapping the stories swaps the pairs. Ties are broken by places and contents, which
//! know nothing of sides.

use std::collections::BTreeMap;

use super::story::Proposal;

/// Most comparisons of texts among the proposals of one participant; beyond that order decides.
const MAX_COMPARED: usize = 10_000;

/// A number for every proposal of both stories; those of a pair have the same.
#[derive(Debug, Default)]
pub(super) struct Pairing {
    left: Vec<usize>,
    right: Vec<usize>,
}

impl Pairing {
    pub(super) fn left(&self, proposal: usize) -> Option<usize> {
        self.left.get(proposal).copied()
    }

    pub(super) fn right(&self, proposal: usize) -> Option<usize> {
        self.right.get(proposal).copied()
    }
}

/// Pairs what has the same content, first that of the same proposer; then, of each proposer, what is
/// most alike: it was worded otherwise.
pub(super) fn pair(left: &[Proposal], right: &[Proposal]) -> Pairing {
    let mut pairs = Pairs { left: vec![None; left.len()], right: vec![None; right.len()], next: 0 };
    pairs.by_key(left, right, |one| (one.group, one.content.0, one.proposer.as_str()));
    pairs.by_key(left, right, |one| (one.group, one.content.0, ""));
    pairs.by_likeness(left, right);
    let Pairs { left, right, mut next } = pairs;
    let mut number = |taken: Vec<Option<usize>>| {
        let numbers = taken.into_iter().map(|number| {
            number.unwrap_or_else(|| {
                next += 1;
                next - 1
            })
        });
        numbers.collect()
    };
    Pairing { left: number(left), right: number(right) }
}

struct Pairs {
    left: Vec<Option<usize>>,
    right: Vec<Option<usize>>,
    next: usize,
}

type Groups<K> = BTreeMap<K, (Vec<usize>, Vec<usize>)>;

impl Pairs {
    fn take(&mut self, left: usize, right: usize) {
        if let (Some(left), Some(right)) = (self.left.get_mut(left), self.right.get_mut(right)) {
            (*left, *right) = (Some(self.next), Some(self.next));
            self.next += 1;
        }
    }

    /// Those who have no partner yet, by a key.
    fn single<'a, K: Ord>(
        &self,
        left: &'a [Proposal],
        right: &'a [Proposal],
        key: impl Fn(&'a Proposal) -> K,
    ) -> Groups<K> {
        let mut groups: Groups<K> = BTreeMap::new();
        for ((index, one), taken) in left.iter().enumerate().zip(&self.left) {
            if taken.is_none() {
                groups.entry(key(one)).or_default().0.push(index);
            }
        }
        for ((index, one), taken) in right.iter().enumerate().zip(&self.right) {
            if taken.is_none() {
                groups.entry(key(one)).or_default().1.push(index);
            }
        }
        groups
    }

    /// Of several with the same key the first goes with the first.
    fn by_key<'a, K: Ord>(
        &mut self,
        left: &'a [Proposal],
        right: &'a [Proposal],
        key: impl Fn(&'a Proposal) -> K,
    ) {
        for (ours, theirs) in self.single(left, right, key).into_values() {
            for (left, right) in ours.into_iter().zip(theirs) {
                self.take(left, right);
            }
        }
    }

    fn by_likeness(&mut self, left: &[Proposal], right: &[Proposal]) {
        let groups = self.single(left, right, |one| (one.group, one.proposer.as_str()));
        for (ours, theirs) in groups.into_values() {
            if ours.len().saturating_mul(theirs.len()) > MAX_COMPARED {
                for (left, right) in ours.into_iter().zip(theirs) {
                    self.take(left, right);
                }
                continue;
            }
            let mut couples = Vec::new();
            for (place, our) in ours.iter().enumerate() {
                for (other, their) in theirs.iter().enumerate() {
                    let alike = left.get(*our).zip(right.get(*their)).map_or(0, likeness);
                    let key = (u32::MAX - alike, place.abs_diff(other), place + other);
                    couples.push((key, *our, *their));
                }
            }
            couples.sort_unstable_by_key(|(key, _, _)| *key);
            for (_, our, their) in couples {
                let is_free = |taken: &[Option<usize>], index: usize| {
                    taken.get(index).is_some_and(Option::is_none)
                };
                if is_free(&self.left, our) && is_free(&self.right, their) {
                    self.take(our, their);
                }
            }
        }
    }
}

/// How many words two have in common, of a thousand.
fn likeness((one, other): (&Proposal, &Proposal)) -> u32 {
    let all = one.words.len() + other.words.len();
    let common = one.words.intersection(&other.words).count();
    let share = (2000 * common).checked_div(all).unwrap_or(0);
    u32::try_from(share).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use control_plane_domain::event::ChainHash;

    use super::*;

    fn offer(proposer: &str, text: &str) -> Proposal {
        Proposal {
            label: text.to_owned(),
            group: "offer",
            proposer: proposer.to_owned(),
            content: ChainHash::EMPTY.then(text),
            words: text.split(' ').map(str::to_owned).collect(),
        }
    }

    /// For each on the left the place of its partner on the right.
    fn partners(left: &[Proposal], right: &[Proposal]) -> Vec<Option<usize>> {
        let pairing = pair(left, right);
        let there = |number: usize| pairing.right.iter().position(|other| *other == number);
        pairing.left.iter().map(|number| there(*number)).collect()
    }

    #[test]
    fn what_is_the_same_is_found_wherever_it_stands_and_whoever_said_it() {
        let left = [offer("a", "x"), offer("a", "y"), offer("b", "z")];
        let right = [offer("c", "z"), offer("a", "y"), offer("a", "x")];
        assert_eq!(partners(&left, &right), [Some(2), Some(1), Some(0)]);
    }

    #[test]
    fn the_same_twice_goes_with_those_of_its_proposer() {
        let left = [offer("a", "x"), offer("b", "x")];
        let right = [offer("b", "x"), offer("a", "x")];
        assert_eq!(partners(&left, &right), [Some(1), Some(0)]);
    }

    #[test]
    fn what_was_worded_otherwise_goes_with_what_is_most_alike() {
        let left = [offer("a", "deploy all now"), offer("a", "roll it back")];
        let right = [offer("a", "roll it all back"), offer("a", "deploy most now")];
        assert_eq!(partners(&left, &right), [Some(1), Some(0)]);
        assert_eq!(partners(&right, &left), [Some(1), Some(0)]);
    }

    #[test]
    fn what_somebody_else_proposed_otherwise_is_another_proposal() {
        let left = [offer("a", "deploy now")];
        let right = [offer("b", "deploy later")];
        assert_eq!(partners(&left, &right), [None]);
    }
}
