//! The append of PostgreSQL: one statement, so one round trip and one transaction.
//!
//! Its SQL never changes, so it is prepared once. What there is one of per run comes as a JSON
//! array, what there are many of as an array per column. The fenced update feeds every insert: a
//! run whose epoch or end has moved on drops out, alone.

use std::collections::BTreeMap;

use control_plane_domain::rollup::Filing;
use control_plane_domain::{Position, RunId, Timestamp};
use diesel::pg::Pg;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::sql_types::{
    Array, BigInt, Binary, Bool, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel_async::RunQueryDsl;
use serde_json::Value;
use uuid::Uuid;

use super::{Connection, runs, sessions};
use crate::error::Result;
use crate::model::Append;

/// `?` marks the parameters, in order.
const SQL: &str = include_str!("append.sql");

#[derive(Default)]
struct Statement<'a> {
    runs: String,
    sessions: String,
    metrics: String,
    projections: String,
    snapshots: Snapshots<'a>,
    artifacts: String,
    inbox: Vec<i64>,
    raw: Raw<'a>,
    canonical: Canonical<'a>,
    rollups: Rollups<'a>,
}

#[derive(Default)]
struct Snapshots<'a> {
    run_id: Vec<Uuid>,
    version: Vec<i64>,
    schema_version: Vec<i32>,
    state: Vec<&'a str>,
}

#[derive(Default)]
struct Raw<'a> {
    run_id: Vec<Uuid>,
    source: Vec<&'static str>,
    ordinal: Vec<Option<i64>>,
    message_id: Vec<&'a str>,
    message_type: Vec<&'a str>,
    mode: Vec<&'a str>,
    session_id: Vec<&'a str>,
    sender: Vec<&'a str>,
    macp_version: Vec<&'a str>,
    ts_unix_ms: Vec<i64>,
    received_at: Vec<Timestamp>,
    payload: Vec<&'a [u8]>,
    sender_authenticated: Vec<bool>,
    sanitized: Vec<bool>,
}

#[derive(Default)]
struct Canonical<'a> {
    run_id: Vec<Uuid>,
    seq: Vec<i64>,
    ts: Vec<Timestamp>,
    received_at: Vec<Timestamp>,
    event_type: Vec<&'static str>,
    subject_kind: Vec<Option<&'a str>>,
    subject_id: Vec<Option<&'a str>>,
    hash: Vec<&'a [u8]>,
    body: Vec<&'a str>,
}

#[derive(Default)]
struct Rollups<'a> {
    run_id: Vec<Uuid>,
    whole: Vec<bool>,
    grain: Vec<i32>,
    figure: Vec<&'static str>,
    bucket: Vec<Timestamp>,
    subject: Vec<&'a str>,
    environment: Vec<&'a str>,
    source_ref: Vec<&'a str>,
    scenario_ref: Vec<&'a str>,
    count: Vec<i64>,
    sum: Vec<i64>,
}

/// Writes all batches in one transaction. The result has, for each run that was not fenced off,
/// the position before its first event.
pub(crate) async fn append(
    conn: &mut Connection,
    batches: &[&Append],
) -> Result<BTreeMap<RunId, Position>> {
    let statement = Statement::new(batches);
    let rows: Vec<(Uuid, i64)> = statement.load(conn).await?;
    Ok(rows.into_iter().map(|(id, base)| (RunId(id), base)).collect())
}

fn json(rows: impl Iterator<Item = Value>) -> String {
    Value::Array(rows.collect()).to_string()
}

impl<'a> Statement<'a> {
    fn new(batches: &[&'a Append]) -> Self {
        let mut statement = Self {
            runs: json(batches.iter().copied().map(run_row)),
            sessions: json(batches.iter().copied().map(session_row)),
            metrics: json(batches.iter().copied().map(metrics_row)),
            projections: json(batches.iter().copied().filter_map(projection_row)),
            artifacts: json(batches.iter().flat_map(|batch| &batch.artifacts).map(artifact_row)),
            inbox: batches.iter().flat_map(|batch| batch.inbox_used.iter().copied()).collect(),
            ..Self::default()
        };
        for batch in batches {
            statement.push_snapshots(batch);
            statement.push_raw(batch);
            statement.push_canonical(batch);
            statement.push_rollups(batch);
        }
        statement
    }

    fn push_snapshots(&mut self, batch: &'a Append) {
        let columns = &mut self.snapshots;
        for snapshot in &batch.snapshots {
            columns.run_id.push(snapshot.run_id.0);
            columns.version.push(snapshot.version);
            columns.schema_version.push(snapshot.schema_version);
            columns.state.push(&snapshot.state);
        }
    }

    fn push_raw(&mut self, batch: &'a Append) {
        let columns = &mut self.raw;
        for raw in &batch.raw {
            let envelope = &raw.envelope;
            columns.run_id.push(raw.run_id.0);
            columns.source.push(raw.source.as_str());
            columns.ordinal.push(raw.ordinal);
            columns.message_id.push(&envelope.message_id);
            columns.message_type.push(&envelope.message_type);
            columns.mode.push(&envelope.mode);
            columns.session_id.push(&envelope.session_id);
            columns.sender.push(&envelope.sender);
            columns.macp_version.push(&envelope.macp_version);
            columns.ts_unix_ms.push(envelope.timestamp_unix_ms);
            columns.received_at.push(raw.received_at);
            columns.payload.push(&envelope.payload);
            columns.sender_authenticated.push(raw.sender_authenticated);
            columns.sanitized.push(envelope.sanitized);
        }
    }

    fn push_canonical(&mut self, batch: &'a Append) {
        let columns = &mut self.canonical;
        for entry in &batch.entries {
            let subject = entry.subject.as_ref();
            columns.run_id.push(entry.run_id.0);
            columns.seq.push(entry.seq);
            columns.ts.push(entry.ts);
            columns.received_at.push(entry.received_at);
            columns.event_type.push(entry.event_type.as_str());
            columns.subject_kind.push(subject.map(|(kind, _)| kind.as_str()));
            columns.subject_id.push(subject.map(|(_, id)| id.as_str()));
            columns.hash.push(&entry.hash.0);
            columns.body.push(std::str::from_utf8(&entry.body).unwrap_or_default());
        }
    }

    fn push_rollups(&mut self, batch: &'a Append) {
        let columns = &mut self.rollups;
        for (key, amount) in batch.rollups.iter() {
            let filed = |name: fn(&Filing) -> &str| key.filing.as_ref().map_or("", name);
            columns.run_id.push(batch.lease.run_id.0);
            columns.whole.push(key.filing.is_none());
            columns.grain.push(key.grain.minutes());
            columns.figure.push(key.figure.as_str());
            columns.bucket.push(key.bucket);
            columns.subject.push(&key.subject);
            columns.environment.push(filed(|filing| &filing.environment));
            columns.source_ref.push(filed(|filing| &filing.source_ref));
            columns.scenario_ref.push(filed(|filing| &filing.scenario_ref));
            columns.count.push(amount.count);
            columns.sum.push(amount.sum);
        }
    }
}

fn run_row(batch: &Append) -> Value {
    let run = &batch.run;
    let mut row = serde_json::json!({
        "id": run.id,
        "epoch": batch.lease.epoch,
        "expected_seq": batch.expected_seq,
        "entries": batch.entries.len(),
        "status": run.state.as_str(),
        "runtime_version": run.runtime_version,
        "runtime_session_id": run.session_id.as_ref().map(|id| id.as_str()),
        "last_event_seq": run.last_seq,
        "chain_hash": format!("\\x{}", hex::encode(batch.chain.0)),
        // Absent keeps what is there.
        "metadata": batch.files().then_some(&run.metadata),
        "error_code": run.error_code,
        "error_message": run.error_message,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "updated_at": run.updated_at,
        "receipt": batch.receipt,
    });
    if batch.binds()
        && let Value::Object(row) = &mut row
    {
        for (column, value) in [
            ("files", Value::Bool(true)),
            ("mode", run.mode.as_str().into()),
            ("tags", run.tags.clone().into()),
            ("source_kind", run.source_kind.clone().into()),
            ("source_ref", run.source_ref.clone().into()),
            ("environment", runs::filed(run, "environment").into()),
            ("scenario_ref", runs::filed(run, "scenarioRef").into()),
        ] {
            row.insert(column.to_owned(), value);
        }
    }
    row
}

fn session_row(batch: &Append) -> Value {
    let session = &batch.session;
    serde_json::json!({
        "run_id": session.run_id,
        "mode_name": session.mode_name,
        "mode_version": session.mode_version,
        "configuration_version": session.configuration_version,
        "policy_version": session.policy_version,
        "initiator_participant_id": session.initiator,
        "session_state": session.state.as_str(),
        // A thousand participants are not written with every batch: binding a session is an event.
        "metadata": batch.binds().then(|| sessions::metadata(session)),
        "started_at_unix_ms": session.started_at_unix_ms,
        "expires_at": session.expires_at,
        "last_seen_at": session.last_seen_at,
        "last_stream_cursor": session.cursor,
        "last_message_id": session.last_message_id,
        "last_event_ts": session.last_event_ts,
        "stream_connected_at": session.connected_at,
        "stream_disconnected_at": session.disconnected_at,
        "updated_at": session.updated_at,
        "reattaches": session.evidence.reattaches,
        "overlaps_shown": session.evidence.overlaps_shown,
        "counted_to": session.evidence.counted_to,
        "ending": sessions::ending(session),
    })
}

fn metrics_row(batch: &Append) -> Value {
    let metrics = &batch.metrics;
    serde_json::json!({
        "run_id": metrics.run_id,
        "event_count": metrics.event_count,
        "message_count": metrics.message_count,
        "signal_count": metrics.signal_count,
        "proposal_count": metrics.proposal_count,
        "tool_call_count": metrics.tool_call_count,
        "decision_count": metrics.decision_count,
        "stream_reconnect_count": metrics.stream_reconnect_count,
        "prompt_tokens": metrics.prompt_tokens,
        "completion_tokens": metrics.completion_tokens,
        "total_tokens": metrics.total_tokens,
        "estimated_cost_usd": metrics.estimated_cost_usd,
        "first_event_at": metrics.first_event_at,
        "last_event_at": metrics.last_event_at,
        "duration_ms": metrics.duration_ms,
        "session_state": metrics.session_state,
        "ended": metrics.ended,
    })
}

fn projection_row(batch: &Append) -> Option<Value> {
    let row = batch.projection.as_ref()?;
    Some(serde_json::json!({
        "run_id": row.run_id,
        "version": row.version,
        "schema_version": row.schema_version,
        "run_summary": row.run_summary,
        "participants": row.participants,
        "graph": row.graph,
        "decision": row.decision,
        "signals": row.signals,
        "progress": row.progress,
        "timeline": row.timeline,
        "trace_summary": row.trace_summary,
        "outbound_messages": row.outbound_messages,
        "policy": row.policy,
        "llm": row.llm,
        "fold": row.fold,
    }))
}

fn artifact_row(artifact: &crate::model::Artifact) -> Value {
    serde_json::json!({
        "id": artifact.id,
        "run_id": artifact.run_id,
        "kind": artifact.kind,
        "label": artifact.label,
        "uri": artifact.uri,
        "inline": artifact.inline,
        "created_at": artifact.created_at,
    })
}

impl QueryFragment<Pg> for Statement<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let mut parts = SQL.split('?');
        macro_rules! bind {
            ($($kind:ty => $value:expr,)*) => {$(
                out.push_sql(parts.next().unwrap_or_default());
                out.push_bind_param::<$kind, _>($value)?;
            )*};
        }
        let Self {
            runs,
            sessions,
            metrics,
            projections,
            snapshots,
            artifacts,
            inbox,
            raw,
            canonical,
            rollups,
        } = self;
        bind! {
            Text => runs,
            Text => sessions,
            Text => metrics,
            Text => projections,
            Array<SqlUuid> => &snapshots.run_id,
            Array<BigInt> => &snapshots.version,
            Array<Integer> => &snapshots.schema_version,
            Array<Text> => &snapshots.state,
            Text => artifacts,
            Array<BigInt> => inbox,
            Array<SqlUuid> => &raw.run_id,
            Array<Text> => &raw.source,
            Array<Nullable<BigInt>> => &raw.ordinal,
            Array<Text> => &raw.message_id,
            Array<Text> => &raw.message_type,
            Array<Text> => &raw.mode,
            Array<Text> => &raw.session_id,
            Array<Text> => &raw.sender,
            Array<Text> => &raw.macp_version,
            Array<BigInt> => &raw.ts_unix_ms,
            Array<Timestamptz> => &raw.received_at,
            Array<Binary> => &raw.payload,
            Array<Bool> => &raw.sender_authenticated,
            Array<Bool> => &raw.sanitized,
            Array<SqlUuid> => &canonical.run_id,
            Array<BigInt> => &canonical.seq,
            Array<Timestamptz> => &canonical.ts,
            Array<Timestamptz> => &canonical.received_at,
            Array<Text> => &canonical.event_type,
            Array<Nullable<Text>> => &canonical.subject_kind,
            Array<Nullable<Text>> => &canonical.subject_id,
            Array<Binary> => &canonical.hash,
            Array<Text> => &canonical.body,
            Array<SqlUuid> => &rollups.run_id,
            Array<Bool> => &rollups.whole,
            Array<Integer> => &rollups.grain,
            Array<Text> => &rollups.figure,
            Array<Timestamptz> => &rollups.bucket,
            Array<Text> => &rollups.subject,
            Array<Text> => &rollups.environment,
            Array<Text> => &rollups.source_ref,
            Array<Text> => &rollups.scenario_ref,
            Array<BigInt> => &rollups.count,
            Array<BigInt> => &rollups.sum,
        }
        out.push_sql(parts.next().unwrap_or_default());
        Ok(())
    }
}

/// The SQL is the same for every value, so diesel may keep it prepared.
impl QueryId for Statement<'_> {
    type QueryId = Statement<'static>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl Query for Statement<'_> {
    type SqlType = (SqlUuid, BigInt);
}
