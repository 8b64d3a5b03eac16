//! How long to wait for a runtime that failed.
//!
//! **Invariant:** an outage counts once, however many runs notice it; the first event received
//! ends it. Nobody sleeps on when the runtime is reached again.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Over how long those who are woken spread, so that they don't ask in the same instant.
const SPREAD: Duration = Duration::from_millis(250);

/// The one back-off of all runs on a runtime.
pub(crate) struct Backoff {
    base: Duration,
    max: Duration,
    state: Mutex<State>,
    reached: Notify,
}

#[derive(Clone, Copy)]
struct State {
    failures: u32,
    counted_at: Option<Instant>,
}

impl Backoff {
    pub(crate) fn new(base: Duration, max: Duration) -> Self {
        let state = State { failures: 0, counted_at: None };
        Self { base, max, state: Mutex::new(state), reached: Notify::new() }
    }

    /// Notes that an attempt that began at `began` failed; the wait before the next one, with up
    /// to a fifth of jitter.
    pub(crate) fn failed(&self, began: Instant, now: Instant) -> Duration {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Attempts that were under way when a failure was counted belong to the same failure.
        if state.counted_at.is_none_or(|counted| began > counted) {
            state.failures = state.failures.saturating_add(1);
            state.counted_at = Some(now);
        }
        let delay = delay(self.base, self.max, state.failures);
        delay.mul_f64(1.0 + rand::random::<f64>() / 5.0).min(self.max)
    }

    /// Notes that an attempt that began at `began` failed, and waits before the next one: as long
    /// as [`Backoff::failed`] says, or until the runtime is reached again.
    pub(crate) fn pause(&self, began: Instant) -> impl Future<Output = ()> + Send {
        // Before the failure is counted, so that no news comes between the two.
        let reached = self.reached.notified();
        let wait = self.failed(began, Instant::now());
        self.sleep_or(reached, wait)
    }

    /// Waits so long, or until the runtime is reached again.
    pub(crate) fn sleep(&self, wait: Duration) -> impl Future<Output = ()> + Send {
        self.sleep_or(self.reached.notified(), wait.min(self.max))
    }

    async fn sleep_or(&self, reached: Notified<'_>, wait: Duration) {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = reached => {
                let spread = self.base.min(SPREAD);
                tokio::time::sleep(spread.mul_f64(rand::random())).await;
            }
        }
    }

    /// Notes that the runtime can be reached again: whoever waits tries at once.
    pub(crate) fn reached(&self) {
        self.succeeded();
        self.reached.notify_waiters();
    }

    /// Notes that the runtime delivered something.
    pub(crate) fn succeeded(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.failures > 0 {
            *state = State { failures: 0, counted_at: None };
        }
    }
}

/// The wait after `failures` in a row, without jitter.
fn delay(base: Duration, max: Duration, failures: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1).min(30));
    base.saturating_mul(doubled).min(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_millis(250);
    const MAX: Duration = Duration::from_secs(30);

    #[test]
    fn the_wait_doubles_up_to_the_longest() {
        let waits: Vec<u128> = (1..=9).map(|n| delay(BASE, MAX, n).as_millis()).collect();
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
        assert_eq!(delay(BASE, MAX, u32::MAX), MAX);
    }

    #[test]
    fn an_outage_that_many_notice_counts_once() {
        let backoff = Backoff::new(BASE, MAX);
        let began = Instant::now();
        let noticed = began + Duration::from_secs(1);
        for _ in 0..300 {
            assert!(backoff.failed(began, noticed) < BASE * 2);
        }
        let again = noticed + Duration::from_secs(1);
        assert!(backoff.failed(again, again) >= BASE * 2);
        backoff.succeeded();
        assert!(backoff.failed(again, again) < BASE * 2);
    }

    #[tokio::test]
    async fn whoever_waits_is_woken_when_the_runtime_is_reached() {
        let backoff = Backoff::new(Duration::from_millis(1), Duration::from_secs(3600));
        for _ in 0..30 {
            let began = Instant::now();
            backoff.failed(began, began);
        }
        let waiting = backoff.pause(Instant::now());

        backoff.reached();

        tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap();
        let began = Instant::now();
        assert!(backoff.failed(began, began) < Duration::from_secs(1), "it is a new outage");
    }
}
