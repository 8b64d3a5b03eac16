//! What others asked of the run.

use control_plane_domain::RunId;
use control_plane_storage::model::{Artifact, InboxItem};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::{Exit, Task};

/// The kind of an item that adds an artifact.
pub(crate) const ARTIFACT: &str = "artifact";

#[derive(Deserialize)]
struct ArtifactRequest {
    id: Uuid,
    kind: String,
    label: String,
    uri: Option<String>,
    inline: Option<Value>,
}

impl Task<'_> {
    /// Carries out what is in the inbox; it is committed with the next batch.
    pub(super) async fn take_inbox(&mut self) -> Result<(), Exit> {
        let id = self.ledger.run.id;
        let items = match self.context.store.inbox_list(id).await {
            Ok(items) => items,
            Err(fault) => return Err(Exit::Reload(fault.to_string())),
        };
        for item in items {
            if self.ledger.has_done(item.id) {
                continue;
            }
            self.carry_out(id, item);
        }
        Ok(())
    }

    fn carry_out(&mut self, run_id: RunId, item: InboxItem) {
        let now = self.now();
        let InboxItem { id, kind, payload, .. } = item;
        if kind == ARTIFACT
            && let Ok(request) = serde_json::from_value::<ArtifactRequest>(payload)
        {
            let ArtifactRequest { id: artifact_id, kind, label, uri, inline } = request;
            let artifact =
                Artifact { id: artifact_id, run_id, kind, label, uri, inline, created_at: now };
            self.ledger.artifact(artifact, id, now);
        } else {
            // A newer version may have asked for it; ours cannot do it, and says so.
            tracing::warn!(run.id = %run_id, inbox.kind = kind, "Dropped an unknown request");
            self.ledger.inbox_done(id);
        }
    }
}
