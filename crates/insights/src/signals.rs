//! Signals that a run may lack, because nobody recorded them when they were sent.
//!
//! **Invariant:** an empty answer means that every signal that the runtime sent while the run was
//! active was recorded, or is held, or was counted as dropped.

use control_plane_domain::{Run, RunId, Session, Timestamp, time};
use control_plane_storage::{Result, Store};

pub use control_plane_storage::SignalGap;

/// The gaps of the watch over signals that touch the time in which a run was active, from the
/// beginning of its session to its end, oldest first. One without an end lasts.
///
/// They say that signals *may* be missing: the runtime does not replay them, so nobody can know. A
/// gap is given whole, also where it begins before the run or ends after it.
///
/// # Errors
/// `NotFound` when there is no such run, and those of the database.
pub async fn gaps_of_run(store: &Store, id: RunId) -> Result<Vec<SignalGap>> {
    let run = store.run_get(id).await?;
    let session = store.session_get(id).await?;
    store.signal_gaps(began(&run, session.as_ref()), run.ended_at).await
}

/// When the run's session began, which may have been long before we heard of it.
pub(crate) fn began(run: &Run, session: Option<&Session>) -> Timestamp {
    let started = session.and_then(|session| session.started_at_unix_ms);
    started.and_then(time::from_unix_ms).map_or(run.created_at, |at| at.min(run.created_at))
}
