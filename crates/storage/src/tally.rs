//! How much is recorded of a run, without reading it.

use control_plane_domain::{Ordinal, RunId, Seq};

use crate::error::Result;
use crate::store::Store;

/// What there is of a run up to an ordinal and an event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// Session envelopes, by ordinal.
    pub envelopes: Counted,
    /// Canonical events, by seq.
    pub events: Counted,
    /// The type of the last session envelope.
    pub last_type: Option<String>,
    /// How many session envelopes each sender has, in the order of their ids; without the
    /// `SessionStart`, and without what the runtime said in a participant's name.
    pub senders: Vec<(String, i64)>,
}

/// How many numbers there are, and from where to where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    pub count: i64,
    pub first: Option<i64>,
    pub last: Option<i64>,
}

impl Store {
    /// Counts what is recorded of a run up to ordinal `cursor` and event `last_seq`.
    ///
    /// # Errors
    /// Those of the database. A run that does not exist has nothing.
    pub async fn run_tally(&self, id: RunId, cursor: Ordinal, last_seq: Seq) -> Result<Tally> {
        read!(self, tally::tally(id, cursor, last_seq))
    }
}
