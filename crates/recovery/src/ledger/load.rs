//! A ledger from what is in the database.

use control_plane_domain::metrics::RunMetrics;
use control_plane_projection::state;
use control_plane_storage::model::Lease;
use control_plane_storage::{Entity, Error, Store};

use super::seen::REMEMBERED;
use super::{Ledger, Parts, is_commitment};

impl Ledger {
    /// Loads a run as it is in the database.
    pub(crate) async fn load(store: &Store, lease: Lease) -> Result<Self, Error> {
        let id = lease.run_id;
        // In this order: a run that was deleted is not one without a session.
        let session = store.session_get(id).await?;
        let run = store.run_get(id).await?;
        let session = session.ok_or_else(|| Error::Corrupt {
            entity: Entity::Session,
            id: id.to_string(),
            column: "run_id",
        })?;
        let last = store.list_raw_by_run(id, session.cursor - 1, 1).await?;
        let remembered = i64::try_from(REMEMBERED).unwrap_or(i64::MAX);
        Ok(Self::new(Parts {
            lease,
            chain: store.run_head(id).await?.hash,
            projection: state::load(store, id).await?,
            metrics: store.metrics_get(id).await?.unwrap_or_else(|| RunMetrics::empty(id)),
            last_message_ids: store.last_message_ids(id, remembered).await?,
            commitment_last: last.first().is_some_and(|raw| is_commitment(&raw.envelope)),
            snapshot_at: store.projection_get(id).await?.map_or(0, |row| row.version),
            run,
            session,
        }))
    }
}
