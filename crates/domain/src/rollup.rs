//! What the dashboard counts: figures of runs, rolled up by time and by how runs are filed.
//!
//! **Invariant:** what a run adds is a function of its record, its figures and its log, and of
//! nothing else. So a batch adds the difference between after and before, a run that is deleted takes
//! the same away again, and counting all logs anew gives the sums that are kept.

mod bins;
mod fold;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;

use chrono::Duration;
use serde_json::Value;

use crate::run::Run;
use crate::time::Timestamp;

pub use bins::{bin_of, middle_of};
pub use fold::{Fact, event, standing};

/// Longest name in a key, in bytes: keys are rows of an index, which have to fit a page.
const MAX_NAME: usize = 256;
/// How much of a longer name is kept, before what tells it from others.
const KEPT_NAME: usize = 200;

/// How much time a sum is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grain {
    Minute,
    Hour,
    Day,
}

impl Grain {
    /// Every grain, from the finest on.
    pub const ALL: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

    /// Its length, which is also its number in the database.
    pub fn minutes(self) -> i32 {
        match self {
            Self::Minute => 1,
            Self::Hour => 60,
            Self::Day => 1440,
        }
    }

    /// The grain of this length.
    pub fn of_minutes(minutes: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|grain| grain.minutes() == minutes)
    }

    /// Its length.
    pub fn length(self) -> Duration {
        Duration::minutes(i64::from(self.minutes()))
    }

    /// The start of the bucket that `at` is in.
    pub fn floor(self, at: Timestamp) -> Timestamp {
        let seconds = i64::from(self.minutes()) * 60;
        let start = at.timestamp().div_euclid(seconds) * seconds;
        // Only the first instants there are have no start.
        Timestamp::from_timestamp(start, 0).unwrap_or(at)
    }
}

macro_rules! figures {
    ($($(#[$doc:meta])* $variant:ident => $name:literal,)*) => {
        /// What is counted, and where in time.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Figure {
            $($(#[$doc])* $variant,)*
        }

        impl Figure {
            /// The name in the database.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The figure of this name.
            pub fn named(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

figures! {
    /// Runs, when they were created.
    Created => "created",
    /// Completed runs, when they were created; the sum is their milliseconds. The subject is
    /// [`DECLINED`] for those whose outcome is negative.
    Completed => "completed",
    /// Failed runs, when they were created, by their error code.
    Failed => "failed",
    /// Cancelled runs, when they were created.
    Cancelled => "cancelled",
    /// Tokens, when the run was created; the sum is their cost in millionths of a dollar.
    Usage => "usage",
    /// Completed runs, when they ended, by the bin of their duration; the sum is their milliseconds.
    Ended => "ended",
    /// Signals, when they were sent.
    Signals => "signals",
    /// Positive decisions, when they were made; the sum is the negative ones.
    Decisions => "decisions",
    /// Runs that a participant was in, by the day of the run, like all that follows.
    AgentRuns => "agent.runs",
    /// A participant's messages.
    AgentMessages => "agent.messages",
    /// A participant's signals.
    AgentSignals => "agent.signals",
    /// How often a participant said how sure it was; the sum is that, in millionths.
    AgentConfidence => "agent.confidence",
    /// A participant's model calls that say how long they took; the sum is their milliseconds.
    AgentLatency => "agent.latency",
}

/// The subject of completed runs whose outcome is negative.
pub const DECLINED: &str = "declined";

impl Figure {
    /// Whether it is about a participant. Those are kept by days only, so that a batch of messages
    /// costs little.
    pub fn is_of_agent(self) -> bool {
        match self {
            Self::AgentRuns
            | Self::AgentMessages
            | Self::AgentSignals
            | Self::AgentConfidence
            | Self::AgentLatency => true,
            Self::Created
            | Self::Completed
            | Self::Failed
            | Self::Cancelled
            | Self::Usage
            | Self::Ended
            | Self::Signals
            | Self::Decisions => false,
        }
    }

    fn grains(self) -> &'static [Grain] {
        if self.is_of_agent() { &[Grain::Day] } else { &Grain::ALL }
    }
}

/// A count, and the sum of what was counted. Whole numbers: taking away is exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    pub count: i64,
    pub sum: i64,
}

impl Amount {
    pub fn new(count: i64, sum: i64) -> Self {
        Self { count, sum }
    }

    pub fn is_zero(self) -> bool {
        self == Self::default()
    }

    fn add(&mut self, other: Self, sign: Sign) {
        match sign {
            Sign::Plus => {
                self.count = self.count.saturating_add(other.count);
                self.sum = self.sum.saturating_add(other.sum);
            }
            Sign::Minus => {
                self.count = self.count.saturating_sub(other.count);
                self.sum = self.sum.saturating_sub(other.sum);
            }
        }
    }
}

/// Whether something is counted or taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    Plus,
    Minus,
}

/// What one figure is of, and the start of the finest bucket that it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cell {
    figure: Figure,
    subject: String,
    bucket: Timestamp,
}

impl Cell {
    /// What cells are in the order of.
    fn as_key(&self) -> (Figure, &str, Timestamp) {
        (self.figure, &self.subject, self.bucket)
    }
}

/// Figures of one run, wherever it is filed, in the order of their cells: they are few, and a run
/// that is followed has some all the time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Figures(Vec<(Cell, Amount)>);

impl Figures {
    /// Counts something at an instant.
    pub fn add(&mut self, figure: Figure, subject: &str, at: Timestamp, amount: Amount) {
        let finest = if figure.is_of_agent() { Grain::Day } else { Grain::Minute };
        self.count(figure, &name(subject), finest.floor(at), amount);
    }

    /// Counts all of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (Cell { figure, subject, bucket }, amount) in &other.0 {
            self.count(*figure, subject, *bucket, *amount);
        }
    }

    fn count(&mut self, figure: Figure, subject: &str, bucket: Timestamp, amount: Amount) {
        let wanted = (figure, subject, bucket);
        let place = self.0.binary_search_by(|(cell, _)| cell.as_key().cmp(&wanted));
        match place {
            Ok(place) => {
                if let Some((_, known)) = self.0.get_mut(place) {
                    known.add(amount, Sign::Plus);
                }
            }
            Err(place) => {
                let cell = Cell { figure, subject: subject.to_owned(), bucket };
                self.0.insert(place, (cell, amount));
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Where a run is filed. What it does not name is ''.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Filing {
    pub environment: String,
    pub source_ref: String,
    pub scenario_ref: String,
}

impl Filing {
    /// Where this run is filed.
    pub fn of(run: &Run) -> Self {
        let text = |key: &str| run.metadata.get(key).and_then(Value::as_str).unwrap_or_default();
        Self {
            environment: name(text("environment")).into_owned(),
            source_ref: name(run.source_ref.as_deref().unwrap_or_default()).into_owned(),
            scenario_ref: name(text("scenarioRef")).into_owned(),
        }
    }
}

/// The key of a sum that is kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// `None` for the sum over all runs, wherever they are filed.
    pub filing: Option<Filing>,
    pub grain: Grain,
    pub figure: Figure,
    pub bucket: Timestamp,
    pub subject: String,
}

/// Changes of the sums that are kept, at most one for each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rollups(BTreeMap<Key, Amount>);

impl Rollups {
    /// Counts figures of a run that is filed there, or takes them away.
    pub fn file(&mut self, filing: &Filing, figures: &Figures, sign: Sign) {
        for (cell, amount) in &figures.0 {
            for grain in cell.figure.grains() {
                for filing in [None, Some(filing.clone())] {
                    let key = Key {
                        filing,
                        grain: *grain,
                        figure: cell.figure,
                        bucket: grain.floor(cell.bucket),
                        subject: cell.subject.clone(),
                    };
                    self.0.entry(key).or_default().add(*amount, sign);
                }
            }
        }
    }

    /// Adds the changes of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (key, amount) in &other.0 {
            self.0.entry(key.clone()).or_default().add(*amount, Sign::Plus);
        }
    }

    /// Takes the changes of `other` away.
    pub fn subtract(&mut self, other: &Self) {
        for (key, amount) in &other.0 {
            self.0.entry(key.clone()).or_default().add(*amount, Sign::Minus);
        }
    }

    /// The changes that change something, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, Amount)> {
        let changes = self.0.iter().map(|(key, amount)| (key, *amount));
        changes.filter(|(_, amount)| !amount.is_zero())
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

impl FromIterator<(Key, Amount)> for Rollups {
    fn from_iter<T: IntoIterator<Item = (Key, Amount)>>(changes: T) -> Self {
        let mut rollups = Self::default();
        for (key, amount) in changes {
            rollups.0.entry(key).or_default().add(amount, Sign::Plus);
        }
        rollups
    }
}

/// A name as keys have it: a long one is cut, and told from others by a hash.
pub fn name(text: &str) -> Cow<'_, str> {
    if text.len() <= MAX_NAME {
        return Cow::Borrowed(text);
    }
    use sha2::{Digest, Sha256};
    let start = text.get(..text.floor_char_boundary(KEPT_NAME)).unwrap_or_default();
    let hash = hex::encode(Sha256::digest(text));
    Cow::Owned(format!("{start}#{}", hash.get(..16).unwrap_or(&hash)))
}
