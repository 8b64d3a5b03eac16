//! How much all runs together hold that is not committed yet.
//!
//! **Invariant:** what is held is given back when its share goes, whatever becomes of the run. A run
//! that holds nothing may always begin, so nobody waits for somebody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Most bytes, but for one envelope of each run and what follows from it.
const MOST: usize = 256 * 1024 * 1024;

/// What is held by all.
#[derive(Debug, Default)]
pub(crate) struct Budget(AtomicUsize);

/// What one run holds in one batch.
#[derive(Debug, Default)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Share {
    /// An empty one.
    pub(crate) fn of(budget: &Arc<Budget>) -> Self {
        Self { budget: Arc::clone(budget), bytes: 0 }
    }

    /// An empty one of the same budget.
    pub(crate) fn another(&self) -> Self {
        Self::of(&self.budget)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.budget.0.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether more may be taken in before this is committed.
    pub(crate) fn may_grow(&self) -> bool {
        self.bytes == 0 || self.budget.0.load(Ordering::Relaxed) < MOST
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_all_is_held_a_run_that_holds_nothing_may_still_begin() {
        let budget = Arc::<Budget>::default();
        let (mut greedy, mut modest) = (Share::of(&budget), Share::of(&budget));
        greedy.add(MOST);

        let may_begin = modest.may_grow();
        modest.add(1);

        assert!(may_begin && !modest.may_grow() && !greedy.may_grow());
    }

    #[test]
    fn what_was_held_is_given_back() {
        let budget = Arc::<Budget>::default();
        let mut waiting = Share::of(&budget);
        waiting.add(1);
        let mut batch = waiting.another();
        batch.add(MOST);

        drop(batch);

        assert!(waiting.may_grow());
        assert_eq!(budget.0.load(Ordering::Relaxed), 1);
    }
}
