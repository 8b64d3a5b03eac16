//! Where runs are in their traces (`run_traces`).

use std::collections::BTreeMap;

use control_plane_domain::trace::{SpanId, TraceId};
use control_plane_domain::{EventType, Run, RunId, RunState, RunTrace, Timestamp, TraceContext};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::Connection;
use super::events::EventRow;
use super::runs::RunRow;
use super::schema::{run_events_canonical as events, run_traces, runs};
use crate::error::{Entity, Error, Result};
use crate::model::LogEntry;
use crate::types::DbUuid;

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = run_traces, treat_none_as_default_value = false)]
pub(super) struct TraceRow {
    run_id: DbUuid,
    span_id: String,
    parent_span_id: Option<String>,
    sampled: bool,
    trace_state: Option<String>,
}

impl TraceRow {
    pub(super) fn new(id: RunId, trace: &RunTrace) -> Self {
        let RunTrace { context, parent } = trace;
        // The trace's own id is the run's.
        let TraceContext { trace_id: _, span_id, sampled, state } = context;
        Self {
            run_id: DbUuid(id.0),
            span_id: span_id.to_string(),
            parent_span_id: parent.map(|parent| parent.to_string()),
            sampled: *sampled,
            trace_state: state.clone(),
        }
    }

    fn read(self, trace_id: &str) -> Result<RunTrace> {
        let corrupt =
            |column| Error::Corrupt { entity: Entity::Run, id: self.run_id.0.to_string(), column };
        let span = |text: &str, column| text.parse::<SpanId>().map_err(|_none| corrupt(column));
        Ok(RunTrace {
            parent: match &self.parent_span_id {
                Some(text) => Some(span(text, "parent_span_id")?),
                None => None,
            },
            context: TraceContext {
                trace_id: trace_id.parse::<TraceId>().map_err(|_none| corrupt("trace_id"))?,
                span_id: span(&self.span_id, "span_id")?,
                sampled: self.sampled,
                state: self.trace_state,
            },
        })
    }
}

/// Inserts the place of a new run.
pub(super) async fn insert(conn: &mut Connection, id: RunId, trace: &RunTrace) -> Result<()> {
    diesel::insert_into(run_traces::table).values(TraceRow::new(id, trace)).execute(conn).await?;
    Ok(())
}

/// Where these runs are; those without a trace are missing.
pub(crate) async fn of(
    conn: &mut Connection,
    ids: &[RunId],
) -> Result<BTreeMap<RunId, Result<RunTrace>>> {
    if ids.is_empty() {
        return Ok(BTreeMap::new());
    }
    let keys: Vec<DbUuid> = ids.iter().map(|id| DbUuid(id.0)).collect();
    let rows: Vec<(TraceRow, Option<String>)> = run_traces::table
        .inner_join(runs::table.on(runs::id.eq(run_traces::run_id)))
        .filter(run_traces::run_id.eq_any(keys))
        .select((TraceRow::as_select(), runs::trace_id))
        .load(conn)
        .await?;
    let of_run = |(row, trace_id): (TraceRow, Option<String>)| {
        (RunId(row.run_id.0), row.read(trace_id.as_deref().unwrap_or_default()))
    };
    Ok(rows.into_iter().map(of_run).collect())
}

/// Takes at most `limit` runs that are over and that nobody has told of: whoever asks now gets
/// them, and nobody else ever will.
pub(crate) async fn claim(
    conn: &mut Connection,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<(Run, RunTrace)>> {
    let over = RunState::ALL.into_iter().filter(|state| state.is_terminal()).map(RunState::as_str);
    let ids: Vec<DbUuid> = run_traces::table
        .inner_join(runs::table.on(runs::id.eq(run_traces::run_id)))
        .filter(run_traces::told_at.is_null())
        .filter(runs::status.eq_any(over))
        .limit(limit)
        .select(run_traces::run_id)
        .load(conn)
        .await?;
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    // Asked again: somebody else may have been faster.
    let ours: Vec<DbUuid> = diesel::update(
        run_traces::table
            .filter(run_traces::run_id.eq_any(ids))
            .filter(run_traces::told_at.is_null()),
    )
    .set(run_traces::told_at.eq(now))
    .returning(run_traces::run_id)
    .get_results(conn)
    .await?;
    let rows: Vec<(RunRow, TraceRow)> = runs::table
        .inner_join(run_traces::table.on(run_traces::run_id.eq(runs::id)))
        .filter(runs::id.eq_any(ours))
        .select((RunRow::as_select(), TraceRow::as_select()))
        .load(conn)
        .await?;
    let whole = |(run, trace): (RunRow, TraceRow)| -> Result<(Run, RunTrace)> {
        let run = Run::try_from(run)?;
        let trace = trace.read(run.trace_id.as_deref().unwrap_or_default())?;
        Ok((run, trace))
    };
    // A row that is no good keeps nobody from telling of the others.
    Ok(rows.into_iter().filter_map(|row: (RunRow, TraceRow)| whole(row).ok()).collect())
}

/// The first `limit` events of a run that are of these types, in order.
pub(crate) async fn moments(
    conn: &mut Connection,
    id: RunId,
    types: &[EventType],
    limit: i64,
) -> Result<Vec<LogEntry>> {
    let names: Vec<&str> = types.iter().map(|kind| kind.as_str()).collect();
    let rows: Vec<EventRow> = events::table
        .filter(events::run_id.eq(DbUuid(id.0)))
        .filter(events::event_type.eq_any(names))
        .order(events::seq.asc())
        .limit(limit)
        .select(EventRow::as_select())
        .load(conn)
        .await?;
    rows.into_iter().map(LogEntry::try_from).collect()
}
