//! Reading a whole run for somebody who takes it along: a picture of one moment, and then the
//! record up to there, page by page.
//!
//! **Invariant:** nothing is held between two reads, no connection and no snapshot, so however long
//! it takes to carry a run away, nobody else notices. That the pages still belong to the picture is
//! because a log only grows: whoever reads keeps to the end that the picture has.

use control_plane_domain::event::ChainHash;
use control_plane_domain::metrics::RunMetrics;
use control_plane_domain::{EventType, Ordinal, Run, RunId, Seq, Session};

use crate::error::Result;
use crate::model::{Artifact, LogEntry, ProjectionRow, RawEnvelope};
use crate::store::Store;

/// A run at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct RunPicture {
    pub run: Run,
    /// The head of the log's chain at the run's `last_seq`.
    pub hash: ChainHash,
    pub session: Option<Session>,
    /// The newest snapshot, which may be older than the log's end.
    pub projection: Option<ProjectionRow>,
    pub metrics: Option<RunMetrics>,
    pub artifacts: Vec<Artifact>,
}

/// Which ordinals are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrdinalsRecorded {
    pub first: Option<Ordinal>,
    pub last: Option<Ordinal>,
    pub count: i64,
}

/// Where a signal stands among those of its run, which have no ordinals: they are read by sender
/// and message id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SignalPlace {
    pub sender: String,
    pub message_id: String,
}

impl SignalPlace {
    /// The place of this signal.
    pub fn of(raw: &RawEnvelope) -> Self {
        let (sender, message_id) = (raw.envelope.sender.clone(), raw.envelope.message_id.clone());
        Self { sender, message_id }
    }
}

impl Store {
    /// A run with everything that hangs on it but for its record, read in one transaction.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`], and those of the database, here and below.
    pub async fn run_picture(&self, id: RunId) -> Result<RunPicture> {
        read!(self, export::picture(id))
    }

    /// At most `limit` events of one type, after `after` and up to `until`, in order. It is looked
    /// for among all events in between.
    pub async fn events_of(
        &self,
        id: RunId,
        event_type: EventType,
        after: Seq,
        until: Seq,
        limit: i64,
    ) -> Result<Vec<LogEntry>> {
        read!(self, export::events_of(id, event_type, after, until, limit))
    }

    /// Which ordinals of a run's session are recorded after `after` and up to `until`.
    pub async fn ordinals_recorded(
        &self,
        id: RunId,
        after: Ordinal,
        until: Ordinal,
    ) -> Result<OrdinalsRecorded> {
        read!(self, export::ordinals(id, after, until))
    }

    /// At most `limit` signals of a run after a place, by sender and message id.
    pub async fn list_signals_by_run(
        &self,
        id: RunId,
        after: Option<&SignalPlace>,
        limit: i64,
    ) -> Result<Vec<RawEnvelope>> {
        let after = after.cloned();
        read!(self, export::signals(id, after.as_ref(), limit))
    }

    /// How many signals a run has after a place.
    pub async fn count_signals_by_run(
        &self,
        id: RunId,
        after: Option<&SignalPlace>,
    ) -> Result<i64> {
        let after = after.cloned();
        read!(self, export::signal_count(id, after.as_ref()))
    }
}
