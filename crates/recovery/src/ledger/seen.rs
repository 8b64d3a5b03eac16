//! The message ids recorded last, and where each stands.
//!
//! Ids are kept as keyed 128-bit hashes, so that no sender decides how much memory they take.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;

use control_plane_domain::Ordinal;

/// How many ids are remembered to recognize what is delivered again.
pub(super) const REMEMBERED: usize = 1024;

type Key = (u64, u64);

/// See the module.
pub(super) struct Seen {
    hashers: [RandomState; 2],
    order: VecDeque<Key>,
    places: HashMap<Key, Ordinal>,
    /// From here on every ordinal recorded is remembered.
    complete_from: Ordinal,
}

impl Seen {
    /// The ids of the last envelopes recorded, oldest first, of which the last one stands at
    /// `cursor`, when nothing is missing there.
    ///
    /// Where there is a gap further back, the ids before it are given too high a place. Nothing
    /// asks for those: a subscription never starts more than one envelope before the cursor.
    pub(super) fn new(ids: &[String], cursor: Ordinal, last_is_known: bool) -> Self {
        let mut seen = Self {
            hashers: [RandomState::new(), RandomState::new()],
            order: VecDeque::new(),
            places: HashMap::new(),
            complete_from: if last_is_known { cursor } else { cursor + 1 },
        };
        let count = Ordinal::try_from(ids.len()).unwrap_or(Ordinal::MAX);
        for (id, at) in ids.iter().zip(cursor.saturating_sub(count) + 1..) {
            seen.remember(id, at);
        }
        seen
    }

    /// Where this id stands, when it was recorded lately.
    pub(super) fn place(&self, id: &str) -> Option<Ordinal> {
        self.places.get(&self.key(id)).copied()
    }

    /// Whether an id that has no [`Seen::place`] cannot stand at `ordinal`.
    pub(super) fn knows_all_at(&self, ordinal: Ordinal) -> bool {
        ordinal >= self.complete_from
    }

    pub(super) fn remember(&mut self, id: &str, at: Ordinal) {
        let key = self.key(id);
        if self.places.insert(key, at).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > REMEMBERED {
            if let Some(at) = self.order.pop_front().and_then(|oldest| self.places.remove(&oldest))
            {
                self.complete_from = self.complete_from.max(at + 1);
            }
        }
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
