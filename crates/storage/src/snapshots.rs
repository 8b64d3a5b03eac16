//! States that are kept on the way through a log, beside the newest one (`run_projections`).
//!
//! **Invariant:** a row is what folding the log up to its version gives, so writing it again, or
//! losing it, changes no answer.

use control_plane_domain::{RunId, Seq};

use crate::error::Result;
use crate::model::{PROJECTION_SCHEMA_VERSION, ProjectionRow, SnapshotRow};
use crate::store::Store;

impl Store {
    /// The newest state that was kept at event `until` or before, by this version of the fold.
    ///
    /// # Errors
    /// Those of the database, here and below.
    pub async fn snapshot_newest(&self, id: RunId, until: Seq) -> Result<Option<SnapshotRow>> {
        read!(self, snapshots::newest(id, until, PROJECTION_SCHEMA_VERSION))
    }

    /// After which events a state is kept, oldest first.
    pub async fn snapshot_versions(&self, id: RunId) -> Result<Vec<Seq>> {
        read!(self, snapshots::versions(id))
    }

    /// The run's newest snapshot, if it is above `after` and at most `until`.
    pub async fn projection_within(
        &self,
        id: RunId,
        after: Seq,
        until: Seq,
    ) -> Result<Option<ProjectionRow>> {
        read!(self, derived::projection_within(id, after, until))
    }

    /// Keeps these states, whatever was there.
    pub async fn snapshots_put(&self, rows: Vec<SnapshotRow>) -> Result<()> {
        self.task(move |store: Self| async move { change!(store, snapshots::put(&rows)) }).await
    }

    /// Drops every state that is kept of a run.
    pub async fn snapshots_clear(&self, id: RunId) -> Result<()> {
        self.task(move |store: Self| async move { change!(store, snapshots::clear(id)) }).await
    }
}
