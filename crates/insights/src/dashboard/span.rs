//! Which period is shown, and in which steps.

use chrono::Duration;
use control_plane_domain::Timestamp;
use control_plane_domain::rollup::Grain;
use control_plane_storage::Period;

use super::Shown;

/// Longest period: a chart has a point for each day of it.
const MAX_DAYS: i64 = 3660;

/// A period that ends now, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Window {
    QuarterHour,
    Hour,
    SixHours,
    #[default]
    Day,
    Week,
    Month,
}

impl Window {
    /// All of them, with their names.
    pub const NAMED: [(&'static str, Self); 6] = [
        ("15m", Self::QuarterHour),
        ("1h", Self::Hour),
        ("6h", Self::SixHours),
        ("24h", Self::Day),
        ("7d", Self::Week),
        ("30d", Self::Month),
    ];
    /// Those that the old name of the parameter has.
    pub const OLD: [(&'static str, Self); 3] =
        [("24h", Self::Day), ("7d", Self::Week), ("30d", Self::Month)];

    fn length(self) -> Duration {
        match self {
            Self::QuarterHour => Duration::minutes(15),
            Self::Hour => Duration::hours(1),
            Self::SixHours => Duration::hours(6),
            Self::Day => Duration::hours(24),
            Self::Week => Duration::days(7),
            Self::Month => Duration::days(30),
        }
    }
}

/// Why there is no such period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SpanFault {
    #[error("from must be before to")]
    Backwards,
    #[error("from and to must not be more than {MAX_DAYS} days apart")]
    TooLong,
}

/// A period of whole minutes, and the steps of its charts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub from: Timestamp,
    /// Exclusive.
    pub to: Timestamp,
    pub step: Grain,
}

impl Span {
    /// From the minute of `from` to the end of that of `to`; what is not said comes from the window
    /// and from `now`.
    ///
    /// # Errors
    /// [`SpanFault`] when that is no period.
    pub fn new(
        window: Window,
        from: Option<Timestamp>,
        to: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Self, SpanFault> {
        let ended = ceil(to.unwrap_or(now));
        let from = from.map_or_else(|| ended - window.length(), |from| Grain::Minute.floor(from));
        if from >= ended {
            return Err(SpanFault::Backwards);
        }
        if ended - from > Duration::days(MAX_DAYS) {
            return Err(SpanFault::TooLong);
        }
        Ok(Self::whole(from, ended))
    }

    /// A window that ends with the minute that is `now`.
    pub fn ending(window: Window, now: Timestamp) -> Self {
        let to = ceil(now);
        Self::whole(to - window.length(), to)
    }

    fn whole(from: Timestamp, to: Timestamp) -> Self {
        let length = to - from;
        let step = if length <= Duration::hours(6) {
            Grain::Minute
        } else if length <= Duration::hours(48) {
            Grain::Hour
        } else {
            Grain::Day
        };
        Self { from, to, step }
    }

    /// The same in the store's terms.
    pub(super) fn period(&self) -> Period {
        Period::new(self.from, self.to)
    }

    /// The start of each step that the period touches, whether or not something happened in it.
    pub(super) fn buckets(&self) -> Vec<Timestamp> {
        let first = self.step.floor(self.from);
        std::iter::successors(Some(first), |start| Some(*start + self.step.length()))
            .take_while(|start| *start < self.to)
            .collect()
    }

    pub(super) fn shown(&self) -> Shown {
        let bucket = match self.step {
            Grain::Minute => "minute",
            Grain::Hour => "hour",
            Grain::Day => "day",
        };
        Shown { from: self.from, to: self.to, bucket }
    }
}

/// The end of the minute that `at` is in, or `at` where one begins.
fn ceil(at: Timestamp) -> Timestamp {
    let start = Grain::Minute.floor(at);
    if start == at { at } else { start + Grain::Minute.length() }
}
