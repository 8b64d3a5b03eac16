//! What a circuit breaker says of itself: the part of it that people and programs see.

use std::fmt;

use crate::time::Timestamp;

/// Whether calls are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// All of them.
    Closed,
    /// One at a time, to see how it goes.
    HalfOpen,
    /// None.
    Open,
}

impl BreakerState {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "CLOSED",
            Self::HalfOpen => "HALF_OPEN",
            Self::Open => "OPEN",
        }
    }
}

impl fmt::Display for BreakerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// That a breaker became something, when, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerChange {
    pub state: BreakerState,
    pub entered_at: Timestamp,
    pub reason: String,
}

/// A circuit breaker around calls.
pub trait CircuitBreaker: Send + Sync {
    /// What it is now.
    fn state(&self) -> BreakerState;

    /// What it was lately, oldest first, from its start on at most.
    fn history(&self) -> Vec<BreakerChange>;

    /// Closes it, whatever it is.
    fn reset(&self);
}
