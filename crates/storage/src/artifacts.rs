//! Artifacts: files and links that belong to a run.
//!
//! **Invariant:** they are added by the append that tells of it, and by nothing else. Removing one
//! leaves the log as it is.

use control_plane_domain::RunId;
use uuid::Uuid;

use crate::error::Result;
use crate::model::Artifact;
use crate::store::Store;

impl Store {
    /// A run's artifacts, oldest first.
    pub async fn artifact_list(&self, id: RunId) -> Result<Vec<Artifact>> {
        read!(self, artifacts::list(id))
    }

    /// At most `limit` of them that come after `after`, which need not be there any more.
    pub async fn artifact_page(
        &self,
        id: RunId,
        after: Option<ArtifactCursor>,
        limit: i64,
    ) -> Result<Vec<Artifact>> {
        read!(self, artifacts::page(id, after, limit))
    }

    /// The ids of all of them.
    pub async fn artifact_ids(&self, id: RunId) -> Result<Vec<Uuid>> {
        read!(self, artifacts::ids(id))
    }

    /// One of them.
    pub async fn artifact_get(&self, id: RunId, artifact: Uuid) -> Result<Option<Artifact>> {
        read!(self, artifacts::get(id, artifact))
    }

    /// Removes one of them; `false` when there is none.
    pub async fn artifact_delete(&self, id: RunId, artifact: Uuid) -> Result<bool> {
        self.task(move |store: Self| async move { change!(store, artifacts::delete(id, artifact)) })
            .await
    }
}

/// The last artifact of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArtifactCursor {
    pub at: control_plane_domain::Timestamp,
    pub id: Uuid,
}
