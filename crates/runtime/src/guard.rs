//! The circuit breaker where calls pass: with a clock, a memory for people, and figures.
//!
//! **Invariant:** a passage is settled whatever becomes of its call, also when nobody waits for the
//! answer any more.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use control_plane_domain::breaker::{BreakerChange, BreakerState, CircuitBreaker};
use control_plane_domain::runtime::RuntimeError;
use control_plane_domain::{Clock, SystemClock};

use crate::breaker::{Admission, Breaker, Change, Outcome, Permit};
use crate::error;

/// How many changes are remembered.
const MAX_HISTORY: usize = 200;

/// See the module.
pub(crate) struct Guard {
    inner: Mutex<Inner>,
}

struct Inner {
    breaker: Breaker,
    history: VecDeque<BreakerChange>,
    /// What the last failure was, for those who are refused because of it.
    last_fault: String,
}

/// A call that may be made.
pub(crate) struct Passage {
    guard: Arc<Guard>,
    permit: Option<Permit>,
}

impl Guard {
    /// Lets everything through until `threshold` calls in a row have failed, and then nothing for
    /// `cool_down`.
    pub(crate) fn new(threshold: u32, cool_down: Duration) -> Arc<Self> {
        let initial = BreakerChange {
            state: BreakerState::Closed,
            entered_at: SystemClock.now(),
            reason: "initial".to_owned(),
        };
        gauge(BreakerState::Closed);
        Arc::new(Self {
            inner: Mutex::new(Inner {
                breaker: Breaker::new(threshold, cool_down),
                history: VecDeque::from([initial]),
                last_fault: String::new(),
            }),
        })
    }

    /// Lets a call through, or says why not.
    pub(crate) fn admit(self: &Arc<Self>) -> Result<Passage, RuntimeError> {
        let mut inner = self.lock();
        match inner.breaker.admit(Instant::now()) {
            Admission::Granted(permit, change) => {
                inner.note(change);
                drop(inner);
                Ok(Passage { guard: Arc::clone(self), permit: Some(permit) })
            }
            Admission::Refused(retry_after) => {
                metrics::counter!("circuit_breaker_refusals_total").increment(1);
                Err(error::circuit_open(retry_after, &inner.last_fault))
            }
        }
    }

    /// A stream opened, so the runtime is there.
    pub(crate) fn reached(&self) {
        let mut inner = self.lock();
        let change = inner.breaker.reached();
        inner.note(change);
    }

    /// Every change is one step under the lock, so a panic elsewhere leaves it whole.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Passage {
    /// The call has ended, with this error if there was one.
    pub(crate) fn end(mut self, error: Option<&RuntimeError>) {
        let fault = error.filter(|error| error.kind.is_fault());
        match fault {
            Some(_) => metrics::counter!("macp_circuit_breaker_failures_total").increment(1),
            None => metrics::counter!("macp_circuit_breaker_success_total").increment(1),
        }
        self.settle(fault.map_or(Outcome::Answered, |_| Outcome::Failed), fault);
    }

    fn settle(&mut self, outcome: Outcome, fault: Option<&RuntimeError>) {
        let Some(permit) = self.permit.take() else { return };
        let mut inner = self.guard.lock();
        if let Some(fault) = fault {
            inner.last_fault.clone_from(&fault.message);
        }
        let change = inner.breaker.settle(permit, outcome, Instant::now());
        inner.note(change);
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.settle(Outcome::Abandoned, None);
    }
}

impl Inner {
    fn note(&mut self, change: Option<Change>) {
        let Some(Change { state, reason }) = change else { return };
        gauge(state);
        metrics::counter!("circuit_breaker_transitions_total", "to" => state.as_str()).increment(1);
        if state == BreakerState::Open {
            let fault = &self.last_fault;
            tracing::warn!(reason, fault, "The circuit breaker opened: calls are not made for now");
        } else {
            tracing::info!(reason, "The circuit breaker is {state} now");
        }
        if self.history.len() >= MAX_HISTORY {
            self.history.pop_front();
        }
        let entered_at = SystemClock.now();
        self.history.push_back(BreakerChange { state, entered_at, reason });
    }
}

impl CircuitBreaker for Guard {
    fn state(&self) -> BreakerState {
        self.lock().breaker.state()
    }

    fn history(&self) -> Vec<BreakerChange> {
        self.lock().history.iter().cloned().collect()
    }

    fn reset(&self) {
        let mut inner = self.lock();
        let change = inner.breaker.reset();
        inner.note(change);
    }
}

fn gauge(state: BreakerState) {
    let value = match state {
        BreakerState::Closed => 0.0,
        BreakerState::HalfOpen => 1.0,
        BreakerState::Open => 2.0,
    };
    metrics::gauge!("circuit_breaker_state").set(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use control_plane_domain::runtime::RuntimeErrorKind as Kind;

    fn error(kind: Kind) -> RuntimeError {
        RuntimeError { kind, grpc_code: 0, message: "why".to_owned() }
    }

    #[test]
    fn only_faults_of_the_runtime_count() {
        let guard = Guard::new(1, Duration::from_secs(60));
        for kind in [
            Kind::NotFound,
            Kind::HistoryUnavailable { lowest_available: 1 },
            Kind::ReceiptUnavailable,
            Kind::RateLimited,
            Kind::StreamLagged,
            Kind::Unauthenticated,
            Kind::Forbidden,
            Kind::InvalidArgument,
            Kind::Conflict,
            Kind::Unimplemented,
        ] {
            guard.admit().unwrap().end(Some(&error(kind.clone())));
            assert_eq!(guard.state(), BreakerState::Closed, "{kind:?}");
        }
        for kind in [Kind::Unavailable, Kind::Timeout, Kind::Internal] {
            guard.admit().unwrap().end(Some(&error(kind.clone())));
            assert_eq!(guard.state(), BreakerState::Open, "{kind:?}");
            guard.reset();
        }
    }

    #[test]
    fn whoever_is_refused_is_told_why_and_how_long() {
        let guard = Guard::new(1, Duration::from_secs(60));
        guard.admit().unwrap().end(Some(&error(Kind::Internal)));

        let refusal = guard.admit().err().unwrap();

        let Kind::CircuitOpen { retry_after } = refusal.kind else { panic!("{refusal:?}") };
        assert!(retry_after <= Duration::from_secs(60));
        assert_eq!(refusal.message, "the circuit breaker is open: why");
    }

    #[test]
    fn a_call_that_is_dropped_frees_the_probe() {
        let guard = Guard::new(1, Duration::ZERO);
        guard.admit().unwrap().end(Some(&error(Kind::Internal)));
        drop(guard.admit().unwrap());
        assert_eq!(guard.state(), BreakerState::HalfOpen);

        guard.admit().unwrap().end(None);

        assert_eq!(guard.state(), BreakerState::Closed);
    }

    #[test]
    fn so_many_changes_are_remembered_and_no_more() {
        let guard = Guard::new(1, Duration::from_secs(60));
        assert_eq!(guard.history().len(), 1);
        for _ in 0..150 {
            guard.admit().unwrap().end(Some(&error(Kind::Timeout)));
            guard.reset();
        }
        let history = guard.history();
        assert_eq!(history.len(), MAX_HISTORY);
        assert_eq!(history.last().unwrap().reason, "manual reset");
        assert!(history.is_sorted_by_key(|change| change.entered_at));
    }
}
