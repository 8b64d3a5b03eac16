//! When calls are not even made: the circuit breaker as a machine, told the time and the outcomes.
//!
//! **Invariant:** it opens only after so many failures in a row, and while it is half open one call
//! at most is under way. A call that was let through before the last change changes nothing any
//! more, however it ends.

use std::time::{Duration, Instant};

use control_plane_domain::breaker::BreakerState;

/// How soon to ask again while another call finds out how the runtime is.
const WHILE_PROBING: Duration = Duration::from_millis(250);

/// See the module.
pub(crate) struct Breaker {
    threshold: u32,
    cool_down: Duration,
    place: Place,
    /// Counts the changes; a permit is of one era.
    era: u64,
}

enum Place {
    Closed {
        /// In a row.
        failures: u32,
    },
    Open {
        until: Instant,
    },
    HalfOpen {
        /// Whether a call is under way.
        probing: bool,
    },
}

/// The right to make one call. It must be settled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Permit {
    era: u64,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The runtime answered, be it with a refusal.
    Answered,
    /// It did not, or not sensibly.
    Failed,
    /// Nobody waited for it.
    Abandoned,
}

/// What the breaker has just become, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) state: BreakerState,
    pub(crate) reason: String,
}

/// The answer to somebody who wants to call.
pub(crate) enum Admission {
    /// Call. The change is the one that this made.
    Granted(Permit, Option<Change>),
    /// Don't; asking again makes sense after this.
    Refused(Duration),
}

impl Breaker {
    /// A closed one, which opens after `threshold` failures in a row, for `cool_down`.
    pub(crate) fn new(threshold: u32, cool_down: Duration) -> Self {
        Self { threshold, cool_down, place: Place::Closed { failures: 0 }, era: 0 }
    }

    pub(crate) fn state(&self) -> BreakerState {
        match self.place {
            Place::Closed { .. } => BreakerState::Closed,
            Place::Open { .. } => BreakerState::Open,
            Place::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Somebody wants to call.
    pub(crate) fn admit(&mut self, now: Instant) -> Admission {
        let mut change = None;
        match &mut self.place {
            Place::Closed { .. } => {}
            Place::Open { until } if now < *until => return Admission::Refused(*until - now),
            Place::Open { .. } => {
                let reason = format!("reset timeout after {}ms", self.cool_down.as_millis());
                change = Some(self.change_to(Place::HalfOpen { probing: true }, reason));
            }
            Place::HalfOpen { probing: true } => return Admission::Refused(WHILE_PROBING),
            Place::HalfOpen { probing } => *probing = true,
        }
        Admission::Granted(Permit { era: self.era }, change)
    }

    /// A call has ended.
    pub(crate) fn settle(
        &mut self,
        permit: Permit,
        outcome: Outcome,
        now: Instant,
    ) -> Option<Change> {
        if permit.era != self.era {
            return None;
        }
        let until = now + self.cool_down;
        match (&mut self.place, outcome) {
            (Place::Closed { failures }, Outcome::Answered) => *failures = 0,
            (Place::Closed { failures }, Outcome::Failed) => {
                *failures += 1;
                let failures = *failures;
                if failures >= self.threshold {
                    let reason = format!("{failures} consecutive failures");
                    return Some(self.change_to(Place::Open { until }, reason));
                }
            }
            (Place::HalfOpen { .. }, Outcome::Answered) => {
                let reason = "half-open probe succeeded".to_owned();
                return Some(self.change_to(Place::Closed { failures: 0 }, reason));
            }
            (Place::HalfOpen { .. }, Outcome::Failed) => {
                let reason = "half-open probe failed".to_owned();
                return Some(self.change_to(Place::Open { until }, reason));
            }
            (Place::HalfOpen { probing }, Outcome::Abandoned) => *probing = false,
            // No call is let through while it is open.
            (Place::Closed { .. }, Outcome::Abandoned) | (Place::Open { .. }, _) => {}
        }
        None
    }

    /// The runtime was heard of in another way, so there is no use in waiting any longer; whether
    /// it answers calls, one of them has to show.
    pub(crate) fn reached(&mut self) -> Option<Change> {
        match self.place {
            Place::Open { .. } => {
                let reason = "a stream opened".to_owned();
                Some(self.change_to(Place::HalfOpen { probing: false }, reason))
            }
            Place::Closed { .. } | Place::HalfOpen { .. } => None,
        }
    }

    /// Somebody knows better.
    pub(crate) fn reset(&mut self) -> Option<Change> {
        if let Place::Closed { failures } = &mut self.place {
            *failures = 0;
            return None;
        }
        Some(self.change_to(Place::Closed { failures: 0 }, "manual reset".to_owned()))
    }

    fn change_to(&mut self, place: Place, reason: String) -> Change {
        self.place = place;
        self.era += 1;
        Change { state: self.state(), reason }
    }
}

#[cfg(test)]
mod tests;
