//! The message ids recorded last, and where each stands.
//!
//! Ids are kept as keyed 128-bit hashes, so that no sender decides how much memory they take.

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use control_plane_domain::Ordinal;
use control_plane_storage::Recorded;

/// How many ids are remembered to recognize what is delivered again. They are few enough to be
/// looked through one by one, and every quiet run keeps them.
pub(super) const REMEMBERED: usize = 256;

type Key = (u64, u64);

/// See the module.
pub(super) struct Seen {
    hashers: [RandomState; 2],
    /// Oldest first.
    recent: VecDeque<(Key, Ordinal)>,
    /// From here on every ordinal recorded is remembered.
    complete_from: Ordinal,
}

impl Seen {
    /// The envelopes recorded last, oldest first, of a log whose last ordinal is `cursor`.
    pub(super) fn new(recorded: &[Recorded], cursor: Ordinal) -> Self {
        let mut seen = Self {
            hashers: [RandomState::new(), RandomState::new()],
            recent: VecDeque::with_capacity(recorded.len()),
            complete_from: cursor + 1,
        };
        for envelope in recorded {
            seen.remember(&envelope.message_id, envelope.ordinal);
        }
        // Back to where the first one is missing.
        for envelope in recorded.iter().rev() {
            if envelope.ordinal + 1 != seen.complete_from {
                break;
            }
            seen.complete_from = envelope.ordinal;
        }
        seen
    }

    /// Where this id stands, when it was recorded lately.
    pub(super) fn place(&self, id: &str) -> Option<Ordinal> {
        let wanted = self.key(id);
        self.recent.iter().rev().find(|(key, _)| *key == wanted).map(|(_, at)| *at)
    }

    /// Whether an id that has no [`Seen::place`] cannot stand at `ordinal`.
    pub(super) fn knows_all_at(&self, ordinal: Ordinal) -> bool {
        ordinal >= self.complete_from
    }

    pub(super) fn remember(&mut self, id: &str, at: Ordinal) {
        if self.recent.len() >= REMEMBERED
            && let Some((_, oldest)) = self.recent.pop_front()
        {
            self.complete_from = self.complete_from.max(oldest + 1);
        }
        self.recent.push_back((self.key(id), at));
    }

    /// Nothing is known of the ordinals up to `to`.
    pub(super) fn skip_to(&mut self, to: Ordinal) {
        self.complete_from = to + 1;
    }

    fn key(&self, id: &str) -> Key {
        let [first, second] = &self.hashers;
        (first.hash_one(id), second.hash_one(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(ordinals: impl IntoIterator<Item = Ordinal>) -> Vec<Recorded> {
        let one = |ordinal: Ordinal| Recorded {
            ordinal,
            message_id: format!("m{ordinal}"),
            message_type: "Vote".to_owned(),
        };
        ordinals.into_iter().map(one).collect()
    }

    #[test]
    fn behind_a_gap_ids_keep_their_places_and_the_gap_is_not_known() {
        let seen = Seen::new(&recorded([1, 2, 6, 7]), 7);

        assert_eq!(seen.place("m2"), Some(2));
        assert_eq!(seen.place("m7"), Some(7));
        let known: Vec<bool> = (4..=8).map(|ordinal| seen.knows_all_at(ordinal)).collect();
        assert_eq!(known, [false, false, true, true, true]);
    }

    #[test]
    fn a_log_that_ends_with_a_gap_knows_nothing_at_its_end() {
        let seen = Seen::new(&recorded([1, 2]), 5);
        assert!(!seen.knows_all_at(5));
        assert!(seen.knows_all_at(6));
    }

    #[test]
    fn only_the_last_ones_are_remembered() {
        let mut seen = Seen::new(&[], 0);
        let last = Ordinal::try_from(REMEMBERED).unwrap() + 3;
        for ordinal in 1..=last {
            seen.remember(&format!("m{ordinal}"), ordinal);
        }

        assert_eq!((seen.place("m3"), seen.place("m4")), (None, Some(4)));
        assert!(!seen.knows_all_at(3));
        assert!(seen.knows_all_at(4));
    }
}
