//! When something is done again: after a failure, and after a snapshot.

use std::time::{Duration, Instant};

const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(8);

/// The time between two snapshots, and how late one may be without moving the next. Of any five in
/// a row the first and the last are a second apart, so there are at most four in a second.
pub(super) const SNAPSHOT_EVERY: Duration = Duration::from_millis(260);
const SLACK: Duration = Duration::from_millis(40);

/// Waits that double from failure to failure.
pub(in crate::stream) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(in crate::stream) fn new() -> Self {
        Self { next: FIRST_RETRY }
    }

    /// How long to wait after one more failure.
    pub(in crate::stream) fn wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(LAST_RETRY);
        wait
    }

    /// It went well.
    pub(in crate::stream) fn reset(&mut self) {
        *self = Self::new();
    }
}

/// When the next snapshot may be sent.
pub(super) struct Pace {
    due: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { due: now }
    }

    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// One was sent. After one in time the next is due a period after that was, so that the
    /// connections of a run ask for the same snapshot at the same time.
    pub(super) fn sent(&mut self, now: Instant) {
        let from = if now <= self.due + SLACK { self.due } else { now };
        self.due = from + SNAPSHOT_EVERY;
    }

    /// It cannot be had for now.
    pub(super) fn delay(&mut self, until: Instant) {
        self.due = until;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn waits_between_failures_grow_and_start_again_after_a_success() {
        let mut backoff = Backoff::new();
        let waits: Vec<Duration> = (0..7).map(|_| backoff.wait()).collect();
        assert_eq!((waits[0], waits[1], waits[6]), (FIRST_RETRY, FIRST_RETRY * 2, LAST_RETRY));
        backoff.reset();
        assert_eq!(backoff.wait(), FIRST_RETRY);
    }

    proptest! {
        #[test]
        fn there_are_at_most_four_snapshots_in_any_second(late in proptest::collection::vec(0_u64..400, 5..50)) {
            let mut pace = Pace::new(Instant::now());
            let mut sent = Vec::new();
            for late in late {
                let now = pace.due() + Duration::from_millis(late);
                pace.sent(now);
                sent.push(now);
            }
            for five in sent.windows(5) {
                prop_assert!(five[4] - five[0] >= Duration::from_secs(1));
            }
        }
    }
}
