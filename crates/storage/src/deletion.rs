//! Deleting runs.
//!
//! **Invariant:** a run is deleted with everything that hangs on it and its session's tombstone is
//! written, or nothing happens. Its positions in the feed are not used again.

use control_plane_domain::{RunId, SessionId, Timestamp};

use crate::error::Result;
use crate::model::Deleted;
use crate::store::Store;

impl Store {
    /// Deletes a run that is over. Who follows its log here is told that it is gone; who still has
    /// a lease on it is fenced off.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`], and those of the database.
    pub async fn run_delete(&self, id: RunId, now: Timestamp) -> Result<Deleted> {
        self.task(move |store: Self| async move {
            let deleted = change!(store, deletion::delete(id, now))?;
            if deleted == Deleted::Done {
                store.0.hub.remove(id);
                store.tell(|news| news.gone.extend([id]));
            }
            Ok(deleted)
        })
        .await
    }

    /// Whether a run of this session was deleted: it is not to be discovered again.
    pub async fn session_is_deleted(&self, id: &SessionId) -> Result<bool> {
        let id = id.clone();
        read!(self, deletion::has_tombstone(&id))
    }
}
