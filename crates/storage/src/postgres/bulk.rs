//! Many rows at once: one statement, so one round trip.

use diesel_async::RunQueryDsl;
use diesel_async::methods::LoadQuery;

use super::Connection;
use super::derived::MetricsRow;
use super::events::EventRow;
use super::raw::RawRow;
use super::runs::{HiddenColumns, RunRow};
use super::schema::{
    run_events_canonical, run_events_raw, run_metrics, run_traces, runs, runtime_sessions,
};
use super::sessions::SessionRow;
use super::traces::TraceRow;
use crate::error::Result;
use crate::model::LogEntry;
use crate::types::DbUuid;

/// Inserts the runs whose id, session and key are free, and tells which.
pub(super) async fn runs(
    conn: &mut Connection,
    rows: Vec<(RunRow, HiddenColumns)>,
) -> Result<Vec<DbUuid>> {
    Ok(diesel::insert_into(runs::table)
        .values(rows)
        .on_conflict_do_nothing()
        .returning(runs::id)
        .get_results(conn)
        .await?)
}

pub(super) async fn sessions(conn: &mut Connection, rows: Vec<SessionRow>) -> Result<()> {
    diesel::insert_into(runtime_sessions::table).values(rows).execute(conn).await?;
    Ok(())
}

pub(super) async fn metrics(conn: &mut Connection, rows: Vec<MetricsRow>) -> Result<()> {
    diesel::insert_into(run_metrics::table).values(rows).execute(conn).await?;
    Ok(())
}

pub(super) async fn events(conn: &mut Connection, rows: Vec<EventRow>) -> Result<()> {
    diesel::insert_into(run_events_canonical::table).values(rows).execute(conn).await?;
    Ok(())
}

/// The events that a query asks for.
pub(super) async fn read_events<Q>(conn: &mut Connection, query: Q) -> Result<Vec<LogEntry>>
where
    Q: LoadQuery<'static, Connection, EventRow> + Send + 'static,
{
    let rows = query.load(conn).await?;
    rows.into_iter().map(LogEntry::try_from).collect()
}

pub(super) async fn traces(conn: &mut Connection, rows: Vec<TraceRow>) -> Result<()> {
    diesel::insert_into(run_traces::table).values(rows).execute(conn).await?;
    Ok(())
}

pub(super) async fn envelopes(conn: &mut Connection, rows: Vec<RawRow>) -> Result<()> {
    diesel::insert_into(run_events_raw::table).values(rows).execute(conn).await?;
    Ok(())
}
