//! Everything about one run at one moment, and its record piece by piece.

use control_plane_domain::event::ChainHash;
use control_plane_domain::{EventType, Ordinal, Run, RunId, Seq, Session};
use diesel::dsl::{count_star, max, min, sql};
use diesel::prelude::*;
use diesel::sql_types::Bool;
use diesel_async::{AsyncConnection, RunQueryDsl};

use super::events::EventRow;
use super::raw::RawRow;
use super::runs::RunRow;
use super::schema::{run_events_canonical as events, run_events_raw as raw, runs};
use super::{Connection, Db, artifacts, derived, dialect, sessions};
use crate::error::{Entity, Error, Result};
use crate::export::{OrdinalsRecorded, RunPicture, SignalPlace};
use crate::model::{LogEntry, RawEnvelope};
use crate::types::DbUuid;

/// Reads a run's rows, all of the same moment.
pub(crate) async fn picture(conn: &mut Connection, id: RunId) -> Result<RunPicture> {
    conn.transaction(async |conn| {
        dialect::freeze(conn).await?;
        let found: Option<(RunRow, Vec<u8>)> = runs::table
            .find(DbUuid(id.0))
            .select((RunRow::as_select(), runs::chain_hash))
            .first(conn)
            .await
            .optional()?;
        let (run, hash) = found.ok_or_else(|| Error::run_not_found(id))?;
        let corrupt = |_length| Error::Corrupt {
            entity: Entity::Run,
            id: id.to_string(),
            column: "chain_hash",
        };
        let session: Option<Session> = sessions::get(conn, id).await?;
        Ok(RunPicture {
            run: Run::try_from(run)?,
            hash: ChainHash(hash.try_into().map_err(corrupt)?),
            session,
            projection: derived::projection_get(conn, id).await?,
            metrics: derived::metrics_get(conn, id).await?,
            artifacts: artifacts::list(conn, id).await?,
        })
    })
    .await
}

/// Events of one type of a run, after `after` and up to `until`, in order.
pub(crate) async fn events_of(
    conn: &mut Connection,
    id: RunId,
    event_type: EventType,
    after: Seq,
    until: Seq,
    limit: i64,
) -> Result<Vec<LogEntry>> {
    let rows: Vec<EventRow> = events::table
        .filter(events::run_id.eq(DbUuid(id.0)))
        .filter(events::seq.gt(after))
        .filter(events::seq.le(until))
        .filter(events::event_type.eq(event_type.as_str()))
        .order(events::seq.asc())
        .limit(limit)
        .select(EventRow::as_select())
        .load(conn)
        .await?;
    rows.into_iter().map(LogEntry::try_from).collect()
}

/// Which ordinals of a run are recorded after `after` and up to `until`.
pub(crate) async fn ordinals(
    conn: &mut Connection,
    id: RunId,
    after: Ordinal,
    until: Ordinal,
) -> Result<OrdinalsRecorded> {
    let (first, last, count) = raw::table
        .filter(raw::run_id.eq(DbUuid(id.0)))
        .filter(raw::ordinal.gt(after))
        .filter(raw::ordinal.le(until))
        .select((min(raw::ordinal), max(raw::ordinal), count_star()))
        .first(conn)
        .await?;
    Ok(OrdinalsRecorded { first, last, count })
}

/// Signals of a run after a place, by sender and message id.
pub(crate) async fn signals(
    conn: &mut Connection,
    id: RunId,
    after: Option<&SignalPlace>,
    limit: i64,
) -> Result<Vec<RawEnvelope>> {
    let rows: Vec<RawRow> = signals_after(id, after)
        .order((raw::sender.asc(), raw::message_id.asc()))
        .limit(limit)
        .select(RawRow::as_select())
        .load(conn)
        .await?;
    Ok(rows.into_iter().map(RawEnvelope::from).collect())
}

/// How many signals a run has after a place.
pub(crate) async fn signal_count(
    conn: &mut Connection,
    id: RunId,
    after: Option<&SignalPlace>,
) -> Result<i64> {
    Ok(signals_after(id, after).count().get_result(conn).await?)
}

fn signals_after(id: RunId, after: Option<&SignalPlace>) -> raw::BoxedQuery<'_, Db> {
    let query = raw::table
        .into_boxed::<Db>()
        .filter(raw::run_id.eq(DbUuid(id.0)))
        // As plain text, so that the planner sees that the index of signals has it all.
        .filter(sql::<Bool>("run_events_raw.source = 'signal'"));
    let Some(SignalPlace { sender, message_id }) = after else { return query };
    // The first condition alone is what an index can start from.
    query
        .filter(raw::sender.ge(sender))
        .filter(raw::sender.ne(sender).or(raw::message_id.gt(message_id)))
}
