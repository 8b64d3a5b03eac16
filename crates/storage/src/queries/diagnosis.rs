//! What tells who has a run, and what its log said last.

use control_plane_domain::{EventType, Run, RunId, Session};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::Connection;
use super::events::EventRow;
use super::runs::RunRow;
use super::schema::{run_events_canonical as events, run_inbox, runs, runtime_sessions};
use super::sessions::SessionRow;
use crate::diagnosis::Rows;
use crate::error::{Error, Result};
use crate::model::LogEntry;
use crate::types::DbUuid;

/// Reads the rows of a run.
pub(crate) async fn rows(conn: &mut Connection, id: RunId) -> Result<Rows> {
    let key = DbUuid(id.0);
    let found: Option<(RunRow, Option<SessionRow>, Option<i64>, i64)> = runs::table
        .left_join(runtime_sessions::table.on(runtime_sessions::run_id.eq(runs::id)))
        .filter(runs::id.eq(key))
        .select((RunRow::as_select(), Option::<SessionRow>::as_select(), runs::owner, runs::epoch))
        .first(conn)
        .await
        .optional()?;
    let (run, session, owner, epoch) = found.ok_or_else(|| Error::run_not_found(id))?;
    let asked = run_inbox::table.filter(run_inbox::run_id.eq(key)).count().get_result(conn).await?;
    let session = session.map(Session::try_from).transpose()?;
    Ok(Rows { run: Run::try_from(run)?, session, owner, epoch, asked })
}

/// The last event of a type in a run's log.
pub(crate) async fn last_event(
    conn: &mut Connection,
    id: RunId,
    event_type: EventType,
) -> Result<Option<LogEntry>> {
    let row: Option<EventRow> = events::table
        .filter(events::run_id.eq(DbUuid(id.0)))
        .filter(events::event_type.eq(event_type.as_str()))
        .order(events::seq.desc())
        .select(EventRow::as_select())
        .first(conn)
        .await
        .optional()?;
    row.map(LogEntry::try_from).transpose()
}
