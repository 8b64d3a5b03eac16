//! Rows that follow from the log: `run_projections` and `run_metrics`.

use control_plane_domain::metrics::RunMetrics;
use control_plane_domain::{RunId, Timestamp};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::Value;

use super::Connection;
use super::schema::{run_metrics, run_projections};
use crate::error::Result;
use crate::model::ProjectionRow;
use crate::types::DbUuid;

#[derive(Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = run_projections)]
pub(super) struct ProjectionColumns {
    run_id: DbUuid,
    version: i64,
    schema_version: i32,
    run_summary: Value,
    participants: Value,
    graph: Value,
    decision: Value,
    signals: Value,
    progress: Value,
    timeline: Value,
    trace_summary: Value,
    outbound_messages: Value,
    policy: Value,
    llm: Value,
    fold: Value,
}

impl From<&ProjectionRow> for ProjectionColumns {
    fn from(row: &ProjectionRow) -> Self {
        let row = row.clone();
        Self {
            run_id: DbUuid(row.run_id.0),
            version: row.version,
            schema_version: row.schema_version,
            run_summary: row.run_summary,
            participants: row.participants,
            graph: row.graph,
            decision: row.decision,
            signals: row.signals,
            progress: row.progress,
            timeline: row.timeline,
            trace_summary: row.trace_summary,
            outbound_messages: row.outbound_messages,
            policy: row.policy,
            llm: row.llm,
            fold: row.fold,
        }
    }
}

impl From<ProjectionColumns> for ProjectionRow {
    fn from(row: ProjectionColumns) -> Self {
        Self {
            run_id: RunId(row.run_id.0),
            version: row.version,
            schema_version: row.schema_version,
            run_summary: row.run_summary,
            participants: row.participants,
            graph: row.graph,
            decision: row.decision,
            signals: row.signals,
            progress: row.progress,
            timeline: row.timeline,
            trace_summary: row.trace_summary,
            outbound_messages: row.outbound_messages,
            policy: row.policy,
            llm: row.llm,
            fold: row.fold,
        }
    }
}

/// Loads a run's snapshot.
pub(crate) async fn projection_get(
    conn: &mut Connection,
    id: RunId,
) -> Result<Option<ProjectionRow>> {
    let row = run_projections::table
        .find(DbUuid(id.0))
        .select(ProjectionColumns::as_select())
        .first(conn)
        .await
        .optional()?;
    Ok(row.map(ProjectionRow::from))
}

/// Loads a run's snapshot, if its version is above `after` and at most `until`.
pub(crate) async fn projection_within(
    conn: &mut Connection,
    id: RunId,
    after: i64,
    until: i64,
) -> Result<Option<ProjectionRow>> {
    let row = run_projections::table
        .find(DbUuid(id.0))
        .filter(run_projections::version.gt(after))
        .filter(run_projections::version.le(until))
        .select(ProjectionColumns::as_select())
        .first(conn)
        .await
        .optional()?;
    Ok(row.map(ProjectionRow::from))
}

/// Writes a run's snapshot, whatever was there.
pub(crate) async fn projection_put(conn: &mut Connection, row: &ProjectionRow) -> Result<()> {
    let row = ProjectionColumns::from(row);
    diesel::insert_into(run_projections::table)
        .values(&row)
        .on_conflict(run_projections::run_id)
        .do_update()
        .set(&row)
        .execute(conn)
        .await?;
    Ok(())
}

#[derive(Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = run_metrics, treat_none_as_null = true, treat_none_as_default_value = false)]
pub(super) struct MetricsRow {
    run_id: DbUuid,
    event_count: i64,
    message_count: i64,
    signal_count: i64,
    proposal_count: i64,
    tool_call_count: i64,
    decision_count: i64,
    stream_reconnect_count: i64,
    prompt_tokens: i64,
    completion_tokens: i64,
    total_tokens: i64,
    estimated_cost_usd: f64,
    first_event_at: Option<Timestamp>,
    last_event_at: Option<Timestamp>,
    duration_ms: Option<i64>,
    session_state: Option<String>,
    ended: bool,
}

impl From<&RunMetrics> for MetricsRow {
    fn from(metrics: &RunMetrics) -> Self {
        Self {
            run_id: DbUuid(metrics.run_id.0),
            event_count: metrics.event_count,
            message_count: metrics.message_count,
            signal_count: metrics.signal_count,
            proposal_count: metrics.proposal_count,
            tool_call_count: metrics.tool_call_count,
            decision_count: metrics.decision_count,
            stream_reconnect_count: metrics.stream_reconnect_count,
            prompt_tokens: metrics.prompt_tokens,
            completion_tokens: metrics.completion_tokens,
            total_tokens: metrics.total_tokens,
            estimated_cost_usd: metrics.estimated_cost_usd,
            first_event_at: metrics.first_event_at,
            last_event_at: metrics.last_event_at,
            duration_ms: metrics.duration_ms,
            session_state: metrics.session_state.clone(),
            ended: metrics.ended,
        }
    }
}

impl From<MetricsRow> for RunMetrics {
    fn from(row: MetricsRow) -> Self {
        Self {
            run_id: RunId(row.run_id.0),
            event_count: row.event_count,
            message_count: row.message_count,
            signal_count: row.signal_count,
            proposal_count: row.proposal_count,
            tool_call_count: row.tool_call_count,
            decision_count: row.decision_count,
            stream_reconnect_count: row.stream_reconnect_count,
            prompt_tokens: row.prompt_tokens,
            completion_tokens: row.completion_tokens,
            total_tokens: row.total_tokens,
            estimated_cost_usd: row.estimated_cost_usd,
            first_event_at: row.first_event_at,
            last_event_at: row.last_event_at,
            duration_ms: row.duration_ms,
            session_state: row.session_state,
            ended: row.ended,
        }
    }
}

/// Loads a run's figures.
pub(crate) async fn metrics_get(conn: &mut Connection, id: RunId) -> Result<Option<RunMetrics>> {
    let row = run_metrics::table
        .find(DbUuid(id.0))
        .select(MetricsRow::as_select())
        .first(conn)
        .await
        .optional()?;
    Ok(row.map(RunMetrics::from))
}

/// Inserts a run's figures.
pub(crate) async fn metrics_insert(conn: &mut Connection, metrics: &RunMetrics) -> Result<()> {
    diesel::insert_into(run_metrics::table).values(MetricsRow::from(metrics)).execute(conn).await?;
    Ok(())
}
