//! Waiting for a condition instead of for a time.
//!
//! **Invariant:** a wait ends as soon as its condition holds, and a wait that does not end says
//! where in the test it was.

use std::fmt::Debug;
use std::panic::Location;
use std::time::{Duration, Instant};

/// How long a test waits for what should happen at once. It is generous, because machines are
/// shared, and it costs nothing when all is well.
pub const DEADLINE: Duration = Duration::from_secs(60);

const PAUSE: Duration = Duration::from_millis(10);

/// Waits until the condition holds.
///
/// # Panics
/// When it does not hold within `deadline`.
#[track_caller]
pub fn wait_until<C, F>(deadline: Duration, condition: C) -> impl Future<Output = ()>
where
    C: FnMut() -> F,
    F: Future<Output = bool>,
{
    let place = Location::caller();
    let mut condition = condition;
    async move {
        let end = Instant::now() + deadline;
        while !condition().await {
            assert!(
                Instant::now() < end,
                "{place}: the condition did not hold within {deadline:?}"
            );
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Asks until the answer is as wanted, and returns it.
///
/// # Panics
/// When no such answer came within `deadline`; the last one is shown.
#[track_caller]
pub fn wait_for<T, A, F>(
    deadline: Duration,
    ask: A,
    wanted: impl Fn(&T) -> bool,
) -> impl Future<Output = T>
where
    T: Debug,
    A: FnMut() -> F,
    F: Future<Output = T>,
{
    let place = Location::caller();
    let mut ask = ask;
    async move {
        let end = Instant::now() + deadline;
        loop {
            let answer = ask().await;
            if wanted(&answer) {
                return answer;
            }
            assert!(
                Instant::now() < end,
                "{place}: no wanted answer within {deadline:?}; the last one was {answer:#?}"
            );
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn a_wait_ends_when_its_condition_holds() {
        let asked = Cell::new(0);

        wait_until(DEADLINE, async || {
            asked.set(asked.get() + 1);
            asked.get() == 3
        })
        .await;

        assert_eq!(asked.get(), 3);
    }

    #[tokio::test]
    async fn the_wanted_answer_is_returned() {
        let asked = Cell::new(0);
        let ask = async || {
            asked.set(asked.get() + 1);
            asked.get()
        };

        assert_eq!(wait_for(DEADLINE, ask, |answer| *answer > 4).await, 5);
    }

    #[tokio::test]
    #[should_panic(expected = "the condition did not hold within 20ms")]
    async fn a_wait_that_does_not_end_panics() {
        wait_until(Duration::from_millis(20), async || false).await;
    }
}
