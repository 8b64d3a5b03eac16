//! Many rows at once: one after another, since there is no round trip to save.

use diesel::SqliteConnection;
use diesel::query_dsl::LoadQuery;
use diesel_async::RunQueryDsl;

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
    let mut inserted = Vec::with_capacity(rows.len());
    for row in rows {
        let id = row.0.id;
        let insert = diesel::insert_into(runs::table).values(row).on_conflict_do_nothing();
        if insert.execute(conn).await? == 1 {
            inserted.push(id);
        }
    }
    Ok(inserted)
}

pub(super) async fn sessions(conn: &mut Connection, rows: Vec<SessionRow>) -> Result<()> {
    for row in rows {
        diesel::insert_into(runtime_sessions::table).values(row).execute(conn).await?;
    }
    Ok(())
}

pub(super) async fn metrics(conn: &mut Connection, rows: Vec<MetricsRow>) -> Result<()> {
    for row in rows {
        diesel::insert_into(run_metrics::table).values(row).execute(conn).await?;
    }
    Ok(())
}

pub(super) async fn events(conn: &mut Connection, rows: Vec<EventRow>) -> Result<()> {
    // In one piece of work: an import has a hundred thousand of them.
    let work = conn.spawn_blocking(move |conn| {
        rows.into_iter().try_for_each(|row| {
            let insert = diesel::insert_into(run_events_canonical::table).values(row);
            diesel::RunQueryDsl::execute(insert, conn).map(drop)
        })
    });
    Ok(work.await?)
}

/// The events that a query asks for. Where they are read they are decoded, too: rows that leave
/// the thread that reads them are copied, column by column.
pub(super) async fn read_events<Q>(conn: &mut Connection, query: Q) -> Result<Vec<LogEntry>>
where
    Q: LoadQuery<'static, SqliteConnection, EventRow> + Send + 'static,
{
    let work = conn.spawn_blocking(move |conn| {
        let rows: Vec<EventRow> = diesel::RunQueryDsl::load(query, conn)?;
        Ok(rows.into_iter().map(LogEntry::try_from).collect())
    });
    work.await?
}

pub(super) async fn traces(conn: &mut Connection, rows: Vec<TraceRow>) -> Result<()> {
    for row in rows {
        diesel::insert_into(run_traces::table).values(row).execute(conn).await?;
    }
    Ok(())
}

pub(super) async fn envelopes(conn: &mut Connection, rows: Vec<RawRow>) -> Result<()> {
    let work = conn.spawn_blocking(move |conn| {
        rows.into_iter().try_for_each(|row| {
            let insert = diesel::insert_into(run_events_raw::table).values(row);
            diesel::RunQueryDsl::execute(insert, conn).map(drop)
        })
    });
    Ok(work.await?)
}
