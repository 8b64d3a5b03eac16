//! Runs without an owner, where only one process can be one.

use control_plane_domain::RunId;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::Connection;
use super::ownership::is_active;
use super::schema::runs;
use crate::error::Result;
use crate::model::Lease;
use crate::types::DbUuid;

/// Takes at most `limit` active runs of the dead, or of nobody, for `to`.
pub(crate) async fn take_free(
    conn: &mut Connection,
    dead: &[i64],
    limit: i64,
    to: i64,
) -> Result<Vec<Lease>> {
    let free: Vec<DbUuid> = runs::table
        .filter(is_active())
        .filter(runs::owner.is_null().or(runs::owner.eq_any(dead)))
        .select(runs::id)
        .limit(limit)
        .load(conn)
        .await?;
    let mut leases = Vec::with_capacity(free.len());
    // A statement has room for some ten thousand values.
    for some in free.chunks(1000) {
        let rows: Vec<(DbUuid, i64)> = diesel::update(runs::table.filter(runs::id.eq_any(some)))
            .set((
                runs::owner.eq(to),
                runs::epoch.eq(runs::epoch + 1),
                runs::parked_reason.eq(None::<String>),
            ))
            .returning((runs::id, runs::epoch))
            .get_results(conn)
            .await?;
        leases.extend(rows.into_iter().map(|(id, epoch)| Lease { run_id: RunId(id.0), epoch }));
    }
    Ok(leases)
}
