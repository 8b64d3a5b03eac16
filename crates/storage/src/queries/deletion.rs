//! Deleting a run, and remembering its session (`session_tombstones`).

use control_plane_domain::{RunId, RunState, SessionId, Timestamp};
use diesel::dsl::exists;
use diesel::prelude::*;
use diesel_async::{AsyncConnection, RunQueryDsl};

use super::schema::{runs, session_tombstones};
use super::{Connection, runs as run_queries};
use crate::error::Result;
use crate::model::Deleted;
use crate::types::DbUuid;

/// Deletes a run that is over, with everything that hangs on it, and leaves a tombstone of its
/// session. One that was imported goes whatever its state, since nobody follows it, and leaves no
/// tombstone: its session was never ours to find. The row goes first: whoever appends to the run either was before us, and what it wrote
/// goes as well, or waits for us and finds no run.
pub(crate) async fn delete(conn: &mut Connection, id: RunId, now: Timestamp) -> Result<Deleted> {
    conn.transaction(async |conn| {
        let over: Vec<&str> = RunState::ALL
            .into_iter()
            .filter(|state| state.is_terminal())
            .map(RunState::as_str)
            .collect();
        let may_go = runs::status.eq_any(over).or(runs::imported_at.is_not_null());
        let target = runs::table.find(DbUuid(id.0)).filter(may_go);
        let deleted: Option<(Option<String>, bool)> = diesel::delete(target)
            .returning((runs::runtime_session_id, runs::imported_at.is_not_null()))
            .get_result(conn)
            .await
            .optional()?;
        let Some((session, imported)) = deleted else {
            return Ok(Deleted::Active(run_queries::head(conn, id).await?.state));
        };
        // A run that ended before it was bound has released its session: that one may still come.
        if let Some(session_id) = session
            && !imported
        {
            let grave = (
                session_tombstones::run_id.eq(DbUuid(id.0)),
                session_tombstones::deleted_at.eq(now),
            );
            diesel::insert_into(session_tombstones::table)
                .values((session_tombstones::runtime_session_id.eq(session_id), grave))
                .on_conflict(session_tombstones::runtime_session_id)
                .do_update()
                .set(grave)
                .execute(conn)
                .await?;
        }
        Ok(Deleted::Done)
    })
    .await
}

/// Whether a run of this session was deleted.
pub(crate) async fn has_tombstone(conn: &mut Connection, id: &SessionId) -> Result<bool> {
    let graves = session_tombstones::table.find(id.as_str());
    Ok(diesel::select(exists(graves)).get_result(conn).await?)
}
