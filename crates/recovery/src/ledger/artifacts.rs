//! Artifacts: with each, the log says that it is there.

use control_plane_domain::{Timestamp, control};
use control_plane_storage::model::Artifact;
use serde_json::json;
use uuid::Uuid;

use super::Ledger;

impl Ledger {
    /// Adds an artifact with its event, carrying out inbox item `item`.
    pub(crate) fn artifact(&mut self, artifact: Artifact, item: i64, now: Timestamp) {
        self.event(
            control::artifact_created(
                &artifact.id.to_string(),
                &artifact.kind,
                &artifact.label,
                artifact.uri.as_deref(),
                now,
            ),
            now,
        );
        self.artifacts.insert(artifact.id, item);
        self.pending.artifacts.push(artifact);
        self.inbox_done(item);
    }

    /// Adds the artifact that leads to the run's trace, if it has one. There is one for ever: its
    /// id follows from the run's.
    pub(crate) fn trace_artifact(&mut self, now: Timestamp) {
        let Some(trace_id) = self.run.trace_id.clone() else { return };
        let (run_id, (kind, label)) = (self.run.id, control::TRACE_ARTIFACT);
        let id = Uuid::new_v5(&run_id.0, kind.as_bytes());
        self.event(control::trace_artifact_created(&id.to_string(), &trace_id, now), now);
        self.pending.artifacts.push(Artifact {
            id,
            run_id,
            kind: kind.to_owned(),
            label: label.to_owned(),
            uri: None,
            inline: Some(json!({ "traceId": trace_id })),
            created_at: now,
        });
    }

    /// Whether this ledger added an artifact of this id for an item that may still be there.
    pub(crate) fn has_artifact(&self, id: Uuid) -> bool {
        self.artifacts.contains_key(&id)
    }

    /// How many artifacts this ledger added for items that may still be there, and which are not
    /// among `known`.
    pub(crate) fn artifacts_besides(&self, known: &std::collections::HashSet<Uuid>) -> usize {
        self.artifacts.keys().filter(|id| !known.contains(id)).count()
    }
}
