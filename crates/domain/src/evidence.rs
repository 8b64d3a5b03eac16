//! What was seen of a session that tells whether its record is whole.
//!
//! **Invariant:** everything here was said by the runtime on another occasion than the envelopes
//! themselves: the frames of a stream carry no number, so a count that is not held against
//! something else proves nothing.

use serde::{Deserialize, Serialize};

use crate::id::Ordinal;
use crate::time::{self, Timestamp};

/// What was seen while a session was followed, and at its end.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// How often the stream was opened again behind something that is recorded.
    pub reattaches: i64,
    /// How often of these the envelope recorded last came first, as it must.
    pub overlaps_shown: i64,
    /// The last ordinal at which a subscription to that number brought what is recorded there: up
    /// to here we count as the runtime does.
    pub counted_to: Ordinal,
    /// What was seen when the session was over. Boxed, because most sessions in memory are not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ending: Option<Box<Ending>>,
}

/// What was seen when a session was over.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ending {
    /// Why nothing more was waited for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub settled_by: Option<SettledBy>,
    /// How many messages of each participant the runtime has counted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub activity: Option<Activity>,
    /// How our count of envelopes compares with the runtime's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub count: Option<Count>,
}

/// Why the history of a session that is over counted as read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SettledBy {
    /// The Commitment that resolved it is the last envelope.
    Commitment,
    /// A subscription that was made after the end, and was served, brought nothing more.
    Silence,
    /// The runtime said how many envelopes there were.
    Count,
}

/// `SessionMetadata.participant_activity` of a session that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    #[serde(with = "time::millis")]
    pub at: Timestamp,
    /// By participant, in the order of their ids.
    pub messages: Vec<(String, u32)>,
}

/// What the runtime has, held against what is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Count {
    /// How many envelopes the runtime has accepted in all.
    pub total: Ordinal,
    /// From which ordinal on its envelopes were compared with ours; absent where they are compacted,
    /// and it only told their number.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub compared_from: Option<Ordinal>,
    /// The runtime's ordinals, `from..=to`, of envelopes that are not recorded.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub missing: Vec<(Ordinal, Ordinal)>,
    /// How many more are not recorded, somewhere before those that were compared.
    #[serde(default)]
    pub unplaced: Ordinal,
    /// How many are recorded in another order.
    #[serde(default)]
    pub misplaced: Ordinal,
}

impl Evidence {
    /// Notes that a subscription to this ordinal brought what is recorded there.
    pub fn counted(&mut self, ordinal: Ordinal) {
        self.counted_to = self.counted_to.max(ordinal);
    }

    /// What was seen at the end, to be added to.
    pub fn ending(&mut self) -> &mut Ending {
        self.ending.get_or_insert_default()
    }
}

impl Activity {
    /// What was said at `at`, which comes in no order.
    pub fn new(mut messages: Vec<(String, u32)>, at: Timestamp) -> Self {
        messages.sort();
        Self { at, messages }
    }
}

impl Count {
    /// How many envelopes of the runtime's are not recorded.
    pub fn lost(&self) -> Ordinal {
        self.missing.iter().map(|(from, to)| to - from + 1).sum::<Ordinal>() + self.unplaced
    }
}
