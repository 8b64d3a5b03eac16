//! The append of SQLite: one blocking closure, one immediate transaction, prepared statements.

use std::collections::BTreeMap;
use std::sync::Arc;

use control_plane_domain::{Position, RunId};
use diesel::prelude::*;

use super::schema::{
    feed, run_artifacts, run_events_canonical, run_events_raw, run_inbox, run_metrics,
    run_projections, run_snapshots, runs, runtime_sessions,
};
use super::{Connection, derived, events, raw, runs as run_queries, sessions, snapshots};
use crate::error::Result;
use crate::filing;
use crate::model::Append;
use crate::types::DbUuid;

/// Writes all batches in one transaction. The result has, for each run that was not fenced off,
/// the position before its first event.
pub(crate) async fn append(
    conn: &mut Connection,
    batches: Vec<Arc<Append>>,
) -> Result<BTreeMap<RunId, Position>> {
    let work = conn
        .spawn_blocking(move |conn| conn.immediate_transaction(|conn| append_all(conn, &batches)));
    Ok(work.await?)
}

fn append_all(
    conn: &mut SqliteConnection,
    batches: &[Arc<Append>],
) -> QueryResult<BTreeMap<RunId, Position>> {
    let mut bases = BTreeMap::new();
    for batch in batches {
        if advance_run(conn, batch)? {
            let count = i64::try_from(batch.entries.len()).unwrap_or(i64::MAX);
            let last: i64 = diesel::update(feed::table)
                .set(feed::last.eq(feed::last + count))
                .returning(feed::last)
                .get_result(conn)?;
            write_rows(conn, batch, last - count)?;
            bases.insert(batch.lease.run_id, last - count);
        }
    }
    Ok(bases)
}

/// The fence: `false` when the run's epoch or end has moved on.
fn advance_run(conn: &mut SqliteConnection, batch: &Append) -> QueryResult<bool> {
    let run = &batch.run;
    let target = runs::table
        .find(DbUuid(run.id.0))
        .filter(runs::epoch.eq(batch.lease.epoch))
        .filter(runs::last_event_seq.eq(batch.expected_seq));
    let advanced = diesel::update(target)
        .set((
            runs::status.eq(run.state.as_str()),
            runs::runtime_version.eq(&run.runtime_version),
            runs::runtime_session_id.eq(run.session_id.as_ref().map(|id| id.as_str())),
            runs::last_event_seq.eq(run.last_seq),
            runs::chain_hash.eq(batch.chain.0.to_vec()),
            runs::error_code.eq(&run.error_code),
            runs::error_message.eq(&run.error_message),
            runs::started_at.eq(run.started_at),
            runs::ended_at.eq(run.ended_at),
            runs::updated_at.eq(run.updated_at),
        ))
        .execute(conn)?;
    if advanced == 1 && (run.state.is_terminal() || batch.binds()) {
        let stored: serde_json::Value =
            runs::table.find(DbUuid(run.id.0)).select(runs::tags).first(conn)?;
        diesel::update(runs::table.find(DbUuid(run.id.0)))
            .set((
                runs::metadata.eq(serde_json::Value::Object(run.metadata.clone())),
                runs::mode.eq(run.mode.as_str()),
                runs::tags.eq(filing::keeping_mark(&run.tags, &stored)),
                runs::source_kind.eq(&run.source_kind),
                runs::source_ref.eq(&run.source_ref),
                runs::environment.eq(run_queries::filed(run, "environment")),
                runs::scenario_ref.eq(run_queries::filed(run, "scenarioRef")),
            ))
            .execute(conn)?;
    }
    Ok(advanced == 1)
}

fn write_rows(conn: &mut SqliteConnection, batch: &Append, base: Position) -> QueryResult<()> {
    diesel::update(runtime_sessions::table.find(DbUuid(batch.run.id.0)))
        .set(sessions::SessionRow::from(&batch.session))
        .execute(conn)?;
    diesel::update(run_metrics::table.find(DbUuid(batch.run.id.0)))
        .set(derived::MetricsRow::from(&batch.metrics))
        .execute(conn)?;
    for envelope in &batch.raw {
        diesel::insert_into(run_events_raw::table)
            .values(raw::RawRow::from(envelope))
            .execute(conn)?;
    }
    for entry in &batch.entries {
        let position = base + entry.seq - batch.expected_seq;
        diesel::insert_into(run_events_canonical::table)
            .values(events::EventRow::new(entry, position))
            .execute(conn)?;
    }
    if let Some(projection) = &batch.projection {
        let row = derived::ProjectionColumns::from(projection);
        diesel::insert_into(run_projections::table)
            .values(&row)
            .on_conflict(run_projections::run_id)
            .do_update()
            .set(&row)
            .execute(conn)?;
    }
    for snapshot in &batch.snapshots {
        let row = snapshots::SnapshotColumns::from(snapshot);
        diesel::insert_into(run_snapshots::table)
            .values(&row)
            .on_conflict((run_snapshots::run_id, run_snapshots::version))
            .do_update()
            .set(&row)
            .execute(conn)?;
    }
    for artifact in &batch.artifacts {
        diesel::insert_into(run_artifacts::table)
            .values(derived::ArtifactRow::from(artifact))
            .execute(conn)?;
    }
    for id in &batch.inbox_used {
        let item = run_inbox::table.find(id).filter(run_inbox::run_id.eq(DbUuid(batch.run.id.0)));
        diesel::delete(item).execute(conn)?;
    }
    Ok(())
}
