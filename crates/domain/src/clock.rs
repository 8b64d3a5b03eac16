//! Where "now" comes from, so that a test decides it.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::time::{self, Timestamp};

/// The current time, to the millisecond.
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that asks the machine")]
    fn now(&self) -> Timestamp {
        time::truncate(chrono::Utc::now())
    }
}

/// A clock that stands still until it is told to move.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// Starts at `unix_ms` milliseconds since the Unix epoch.
    pub fn at_unix_ms(unix_ms: i64) -> Self {
        Self(AtomicI64::new(unix_ms))
    }

    /// Moves on by `ms` milliseconds.
    pub fn advance_ms(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        time::from_unix_ms(self.0.load(Ordering::SeqCst)).unwrap_or_default()
    }
}
