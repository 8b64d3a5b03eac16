//! Traces: where a run's root span is, and who tells of it.
//!
//! **Invariant:** of the runs that are over, each is given to one caller, once, however many
//! instances ask.

use control_plane_domain::{EventType, Run, RunId, RunTrace, Timestamp};

use crate::error::Result;
use crate::model::LogEntry;
use crate::store::Store;

impl Store {
    /// Where a run is in its trace, if it has one.
    pub async fn run_trace(&self, id: RunId) -> Result<Option<RunTrace>> {
        let ids = [id];
        read!(self, traces::of(&ids))?.remove(&id).transpose()
    }

    /// Takes at most `limit` runs that are over and of which nobody has told.
    pub async fn traces_claim(&self, now: Timestamp, limit: i64) -> Result<Vec<(Run, RunTrace)>> {
        self.task(move |store: Self| async move { change!(store, traces::claim(now, limit)) }).await
    }

    /// The first `limit` events of a run that are of these types, in order.
    pub async fn moments(
        &self,
        id: RunId,
        types: &'static [EventType],
        limit: i64,
    ) -> Result<Vec<LogEntry>> {
        read!(self, traces::moments(id, types, limit))
    }
}
