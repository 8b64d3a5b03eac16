//! A ledger from what is in the database.

use std::sync::Arc;

use control_plane_domain::metrics::RunMetrics;
use control_plane_domain::{Ordinal, Seq};
use control_plane_projection::{PriceTable, state};
use control_plane_storage::model::Lease;
use control_plane_storage::{Error, LoadedRun, Store};

use super::seen::REMEMBERED;
use super::{COMMITMENT, Ledger, Parts};

/// How many of the last envelopes a ledger wants to know.
pub(crate) const RECORDED: Ordinal = REMEMBERED as Ordinal;
/// The longest tail of a log that is read together with those of other runs; one snapshot to the
/// next, in a run that goes along quietly.
pub(crate) const TAIL: Seq = 512;

impl Ledger {
    /// A run as it was read from the database.
    pub(crate) async fn of(
        store: &Store,
        lease: Lease,
        loaded: LoadedRun,
        prices: &Arc<PriceTable>,
    ) -> Result<Self, Error> {
        let LoadedRun { run, session, chain, snapshot, tail, metrics, recorded, trace, asked } =
            loaded;
        let id = lease.run_id;
        let snapshot_at = snapshot.as_ref().map_or(0, |row| row.version);
        let folded = match &tail {
            Some(tail) => state::fold(id, snapshot, tail)?,
            None => None,
        };
        let projection = match folded {
            Some(projection) => projection,
            None => state::load(store, id).await?,
        };
        let is_last = |ordinal| ordinal == session.cursor;
        Ok(Self::new(Parts {
            lease,
            chain,
            projection,
            metrics: metrics.unwrap_or_else(|| RunMetrics::empty(id)),
            commitment_last: recorded
                .last()
                .is_some_and(|last| is_last(last.ordinal) && last.message_type == COMMITMENT),
            recorded,
            snapshot_at,
            trace: trace.map(|trace| trace.context),
            prices: Arc::clone(prices),
            // Who posts it may be recorded already, and what follows from that still asked for.
            may_move: run.is_unclaimed() || asked,
            run,
            session,
        }))
    }
}
