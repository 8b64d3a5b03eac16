//! Deleting a run, and remembering its session (`session_tombstones`).

use control_plane_domain::rollup::{Figures, Rollups, Sign};
use control_plane_domain::{RunId, SessionId, Timestamp};
use diesel::dsl::exists;
use diesel::prelude::*;
use diesel_async::{AsyncConnection, RunQueryDsl};

use super::rollups::Held;
use super::schema::{
    run_events_canonical as events, run_events_raw as raw, runs, session_tombstones,
};
use super::{Connection, rollups, runs as run_queries};
use crate::error::{Error, Result};
use crate::model::Deleted;
use crate::types::DbUuid;

/// Deletes a run that is over, with everything that hangs on it, takes it out of the sums and leaves
/// a tombstone of its session. One that was imported goes whatever its state, since nobody follows
/// it, and leaves no tombstone: its session was never ours to find. The row goes first: whoever
/// appends to the run either was before us, and what it wrote goes as well, or waits for us and
/// finds no run.
pub(crate) async fn delete(conn: &mut Connection, id: RunId, now: Timestamp) -> Result<Deleted> {
    // Most of a long log is read before anything is locked.
    let read = run_queries::get(conn, id).await?;
    let figures = match (read.imported_at.is_some(), read.state.is_terminal()) {
        (true, _) => Figures::default(),
        (false, true) => rollups::figures(conn, id, read.last_seq).await?,
        (false, false) => return Ok(Deleted::Active(read.state)),
    };
    conn.transaction(async |conn| {
        let Some(Held { run, rolled_up }) = rollups::hold(conn, id).await? else {
            return Err(Error::run_not_found(id));
        };
        // A run that was never counted takes nothing away.
        let changes = match rolled_up {
            Some(true) => rollups::share(conn, &run, figures, read.last_seq, Sign::Minus).await?,
            Some(false) | None => Rollups::default(),
        };
        diesel::delete(runs::table.find(DbUuid(id.0))).execute(conn).await?;
        // PostgreSQL has no constraint that would (migration `lean_log`).
        let log = events::table.filter(events::run_id.eq(DbUuid(id.0)));
        diesel::delete(log).execute(conn).await?;
        let envelopes = raw::table.filter(raw::run_id.eq(DbUuid(id.0)));
        diesel::delete(envelopes).execute(conn).await?;
        // A run that ended before it was bound has released its session: that one may still come.
        if let Some(session_id) = &run.session_id
            && run.imported_at.is_none()
        {
            let grave = (
                session_tombstones::run_id.eq(DbUuid(id.0)),
                session_tombstones::deleted_at.eq(now),
            );
            diesel::insert_into(session_tombstones::table)
                .values((session_tombstones::runtime_session_id.eq(session_id.as_str()), grave))
                .on_conflict(session_tombstones::runtime_session_id)
                .do_update()
                .set(grave)
                .execute(conn)
                .await?;
        }
        rollups::apply(conn, &changes).await?;
        Ok(Deleted::Done)
    })
    .await
}

/// Whether a run of this session was deleted.
pub(crate) async fn has_tombstone(conn: &mut Connection, id: &SessionId) -> Result<bool> {
    let graves = session_tombstones::table.find(id.as_str());
    Ok(diesel::select(exists(graves)).get_result(conn).await?)
}
