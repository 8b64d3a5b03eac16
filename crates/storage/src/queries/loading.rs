//! Everything that following a run again needs, of many runs at once.

use std::collections::{BTreeMap, BTreeSet};

use control_plane_domain::event::ChainHash;
use control_plane_domain::metrics::RunMetrics;
use control_plane_domain::{Ordinal, Run, RunId, Seq, Session};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::Connection;
use super::derived::{MetricsRow, ProjectionColumns};
use super::events::EventRow;
use super::runs::RunRow;
use super::schema::{
    run_events_canonical as events, run_events_raw as raw, run_inbox, run_metrics, run_projections,
    runs, runtime_sessions,
};
use super::sessions::SessionRow;
use super::traces;
use crate::error::{Entity, Error, Result};
use crate::loading::{LoadedRun, Recorded};
use crate::model::{LogEntry, ProjectionRow};
use crate::types::DbUuid;

/// How each run is stored. A run that does not exist is missing; one with a row that is no good is
/// its own fault and no other's.
///
/// `remembered` ordinals up to the cursor are read, and the events after the snapshot unless there
/// are more than `longest`.
pub(crate) async fn load(
    conn: &mut Connection,
    ids: &[RunId],
    remembered: Ordinal,
    longest: Seq,
) -> Result<Vec<(RunId, Result<LoadedRun>)>> {
    let keys: Vec<DbUuid> = ids.iter().map(|id| DbUuid(id.0)).collect();
    // In this order: a run that was deleted is not one without a session.
    let mut sessions = sessions(conn, &keys).await?;
    let runs = runs(conn, &keys).await?;
    let mut snapshots = snapshots(conn, &keys).await?;
    let mut metrics = metrics(conn, &keys).await?;
    let mut recorded = recorded(conn, &keys, remembered).await?;
    let asked = asked(conn, &keys).await?;
    let traced = |(id, run): &(RunId, Result<(Run, ChainHash)>)| {
        run.as_ref().is_ok_and(|(run, _)| run.trace_id.is_some()).then_some(*id)
    };
    let traced: Vec<RunId> = runs.iter().filter_map(traced).collect();
    let mut traces = traces::of(conn, &traced).await?;
    let short = |(id, run): &(RunId, Result<(Run, ChainHash)>)| {
        let version = snapshots.get(id).map_or(0, |row| row.version);
        let events = run.as_ref().map_or(Seq::MAX, |(run, _)| run.last_seq - version);
        (events <= longest).then_some(*id)
    };
    let short: BTreeSet<RunId> = runs.iter().filter_map(short).collect();
    let mut tails = tails(conn, &short).await?;
    let of_run = |(id, run): (RunId, Result<(Run, ChainHash)>)| {
        let assemble = || {
            let (run, chain) = run?;
            let session = sessions.remove(&id).ok_or_else(|| Error::Corrupt {
                entity: Entity::Session,
                id: id.to_string(),
                column: "run_id",
            })?;
            let tail = match short.contains(&id) {
                true => Some(tails.remove(&id).transpose()?.unwrap_or_default()),
                false => None,
            };
            Ok(LoadedRun {
                run,
                session: session?,
                chain,
                snapshot: snapshots.remove(&id),
                tail,
                metrics: metrics.remove(&id),
                recorded: recorded.remove(&id).unwrap_or_default(),
                asked: asked.contains(&id),
                trace: traces.remove(&id).transpose()?,
            })
        };
        (id, assemble())
    };
    Ok(runs.into_iter().map(of_run).collect())
}

async fn sessions(
    conn: &mut Connection,
    keys: &[DbUuid],
) -> Result<BTreeMap<RunId, Result<Session>>> {
    let rows: Vec<(DbUuid, SessionRow)> = runtime_sessions::table
        .filter(runtime_sessions::run_id.eq_any(keys))
        .select((runtime_sessions::run_id, SessionRow::as_select()))
        .load(conn)
        .await?;
    Ok(rows.into_iter().map(|(id, row)| (RunId(id.0), Session::try_from(row))).collect())
}

async fn runs(
    conn: &mut Connection,
    keys: &[DbUuid],
) -> Result<Vec<(RunId, Result<(Run, ChainHash)>)>> {
    let rows: Vec<(DbUuid, RunRow, Vec<u8>)> = runs::table
        .filter(runs::id.eq_any(keys))
        .select((runs::id, RunRow::as_select(), runs::chain_hash))
        .load(conn)
        .await?;
    let run = |(id, row, hash): (DbUuid, RunRow, Vec<u8>)| {
        let column = "chain_hash";
        let corrupt =
            |_length| Error::Corrupt { entity: Entity::Run, id: id.0.to_string(), column };
        let chain = hash.try_into().map(ChainHash).map_err(corrupt);
        (RunId(id.0), chain.and_then(|chain| Ok((Run::try_from(row)?, chain))))
    };
    Ok(rows.into_iter().map(run).collect())
}

async fn snapshots(
    conn: &mut Connection,
    keys: &[DbUuid],
) -> Result<BTreeMap<RunId, ProjectionRow>> {
    let rows: Vec<ProjectionColumns> = run_projections::table
        .filter(run_projections::run_id.eq_any(keys))
        .select(ProjectionColumns::as_select())
        .load(conn)
        .await?;
    let rows = rows.into_iter().map(ProjectionRow::from);
    Ok(rows.map(|row| (row.run_id, row)).collect())
}

async fn metrics(conn: &mut Connection, keys: &[DbUuid]) -> Result<BTreeMap<RunId, RunMetrics>> {
    let rows: Vec<MetricsRow> = run_metrics::table
        .filter(run_metrics::run_id.eq_any(keys))
        .select(MetricsRow::as_select())
        .load(conn)
        .await?;
    let rows = rows.into_iter().map(RunMetrics::from);
    Ok(rows.map(|metrics| (metrics.run_id, metrics)).collect())
}

/// The last envelopes of each run's session, oldest first.
async fn recorded(
    conn: &mut Connection,
    keys: &[DbUuid],
    remembered: Ordinal,
) -> Result<BTreeMap<RunId, Vec<Recorded>>> {
    let rows: Vec<(DbUuid, Option<i64>, String, String)> = raw::table
        .inner_join(runtime_sessions::table.on(runtime_sessions::run_id.eq(raw::run_id)))
        .filter(raw::run_id.eq_any(keys))
        .filter(raw::ordinal.gt((runtime_sessions::last_stream_cursor - remembered).nullable()))
        .order((raw::run_id.asc(), raw::ordinal.asc()))
        .select((raw::run_id, raw::ordinal, raw::message_id, raw::message_type))
        .load(conn)
        .await?;
    let mut recorded: BTreeMap<RunId, Vec<Recorded>> = BTreeMap::new();
    for (id, ordinal, message_id, message_type) in rows {
        if let Some(ordinal) = ordinal {
            let envelope = Recorded { ordinal, message_id, message_type };
            recorded.entry(RunId(id.0)).or_default().push(envelope);
        }
    }
    Ok(recorded)
}

async fn asked(conn: &mut Connection, keys: &[DbUuid]) -> Result<BTreeSet<RunId>> {
    let ids: Vec<DbUuid> = run_inbox::table
        .filter(run_inbox::run_id.eq_any(keys))
        .select(run_inbox::run_id)
        .distinct()
        .load(conn)
        .await?;
    Ok(ids.into_iter().map(|id| RunId(id.0)).collect())
}

/// The events after each run's snapshot, in order.
async fn tails(
    conn: &mut Connection,
    ids: &BTreeSet<RunId>,
) -> Result<BTreeMap<RunId, Result<Vec<LogEntry>>>> {
    let keys: Vec<DbUuid> = ids.iter().map(|id| DbUuid(id.0)).collect();
    let rows: Vec<EventRow> = events::table
        .left_join(run_projections::table.on(run_projections::run_id.eq(events::run_id)))
        .filter(events::run_id.eq_any(keys))
        .filter(
            run_projections::version
                .nullable()
                .is_null()
                .or(events::seq.nullable().gt(run_projections::version.nullable())),
        )
        .order((events::run_id.asc(), events::seq.asc()))
        .select(EventRow::as_select())
        .load(conn)
        .await?;
    let mut tails: BTreeMap<RunId, Result<Vec<LogEntry>>> = BTreeMap::new();
    for row in rows {
        let (id, entry) = (row.run(), LogEntry::try_from(row));
        let tail = tails.entry(id).or_insert_with(|| Ok(Vec::new()));
        match (tail, entry) {
            (Ok(tail), Ok(entry)) => tail.push(entry),
            (tail @ Ok(_), Err(fault)) => *tail = Err(fault),
            (Err(_), _) => {}
        }
    }
    Ok(tails)
}
