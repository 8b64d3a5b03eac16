//! A run's figures.

use control_plane_domain::RunId;
use control_plane_domain::metrics::RunMetrics;
use control_plane_storage::{Result, Store};

/// The figures of a run, folded in the same transactions as its events; zeros before its first.
///
/// # Errors
/// `NotFound` when there is no such run, and those of the database.
pub async fn metrics(store: &Store, id: RunId) -> Result<RunMetrics> {
    if let Some(metrics) = store.metrics_get(id).await? {
        return Ok(metrics);
    }
    store.run_head(id).await?;
    Ok(RunMetrics::empty(id))
}
