//! Signals that a run may lack, because nobody recorded them when they were sent.
//!
//! **Invariant:** an empty answer means that every signal that the runtime sent while the run was
//! active was recorded, or is held, or was counted as dropped.

use control_plane_domain::RunId;
use control_plane_storage::{Result, Store};

pub use control_plane_storage::SignalGap;

/// The gaps of the watch over signals that touch the time in which a run was active, from its
/// creation to its end, oldest first. One without an end lasts.
///
/// They say that signals *may* be missing: the runtime does not replay them, so nobody can know. A
/// gap is given whole, also where it begins before the run or ends after it.
///
/// # Errors
/// `NotFound` when there is no such run, and those of the database.
pub async fn gaps_of_run(store: &Store, id: RunId) -> Result<Vec<SignalGap>> {
    let run = store.run_get(id).await?;
    store.signal_gaps(run.created_at, run.ended_at).await
}
