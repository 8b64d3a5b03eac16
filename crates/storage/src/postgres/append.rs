//! The append of PostgreSQL: one statement, so one round trip and one transaction.
//!
//! Its SQL never changes, so it is prepared once. What there is one of per run comes as a JSON
//! array, what there are many of as an array per column. The fenced update feeds every insert: a
//! run whose epoch or end has moved on drops out, alone.

use std::collections::BTreeMap;

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
const SQL: &str = "
WITH batch AS (
    SELECT * FROM json_to_recordset(?::json) AS b(
        id uuid, epoch bigint, expected_seq bigint, entries bigint, status text,
        runtime_version text, runtime_session_id text, last_event_seq bigint, chain_hash bytea,
        metadata jsonb, error_code text, error_message text, started_at timestamptz,
        ended_at timestamptz, updated_at timestamptz, files boolean, mode text, tags jsonb,
        source_kind text, source_ref text, environment text, scenario_ref text)
), locked AS (
    SELECT r.id FROM runs r JOIN batch b
      ON r.id = b.id AND r.epoch = b.epoch AND r.last_event_seq = b.expected_seq
    ORDER BY r.id FOR NO KEY UPDATE OF r
), fenced AS (
    UPDATE runs r SET status = b.status, runtime_version = b.runtime_version,
        runtime_session_id = b.runtime_session_id, last_event_seq = b.last_event_seq,
        chain_hash = b.chain_hash, metadata = COALESCE(b.metadata, r.metadata),
        error_code = b.error_code, error_message = b.error_message, started_at = b.started_at,
        ended_at = b.ended_at, updated_at = b.updated_at, mode = COALESCE(b.mode, r.mode),
        tags = COALESCE(CASE
            WHEN (b.tags @> f.mark) = (r.tags @> f.mark) THEN b.tags
            WHEN r.tags @> f.mark THEN b.tags || f.mark
            ELSE b.tags - 'archived' END, r.tags),
        source_kind = CASE WHEN b.files THEN b.source_kind ELSE r.source_kind END,
        source_ref = CASE WHEN b.files THEN b.source_ref ELSE r.source_ref END,
        environment = CASE WHEN b.files THEN b.environment ELSE r.environment END,
        scenario_ref = CASE WHEN b.files THEN b.scenario_ref ELSE r.scenario_ref END
    FROM batch b JOIN locked l ON l.id = b.id,
        (SELECT jsonb_build_array('archived') AS mark) f
    WHERE r.id = b.id AND r.epoch = b.epoch AND r.last_event_seq = b.expected_seq
    RETURNING r.id, b.expected_seq, b.entries
), placed AS (
    SELECT id, expected_seq,
        (sum(entries) OVER (ORDER BY id) - entries)::bigint AS skip,
        (sum(entries) OVER ())::bigint AS total
    FROM fenced
), taken AS (
    UPDATE feed SET last = last + COALESCE((SELECT max(total) FROM placed), 0) RETURNING last
), based AS (
    SELECT p.id, p.expected_seq, t.last - p.total + p.skip AS base FROM placed p, taken t
), session_rows AS (
    UPDATE runtime_sessions t SET mode_name = s.mode_name, mode_version = s.mode_version,
        configuration_version = s.configuration_version, policy_version = s.policy_version,
        initiator_participant_id = s.initiator_participant_id, session_state = s.session_state,
        metadata = COALESCE(s.metadata, t.metadata), started_at_unix_ms = s.started_at_unix_ms,
        expires_at = s.expires_at, last_seen_at = s.last_seen_at,
        last_stream_cursor = s.last_stream_cursor, last_message_id = s.last_message_id,
        last_event_ts = s.last_event_ts, stream_connected_at = s.stream_connected_at,
        stream_disconnected_at = s.stream_disconnected_at, updated_at = s.updated_at
    FROM json_to_recordset(?::json) AS s(
        run_id uuid, mode_name text, mode_version text, configuration_version text,
        policy_version text, initiator_participant_id text, session_state text, metadata jsonb,
        started_at_unix_ms bigint, expires_at timestamptz, last_seen_at timestamptz,
        last_stream_cursor bigint, last_message_id text, last_event_ts timestamptz,
        stream_connected_at timestamptz, stream_disconnected_at timestamptz,
        updated_at timestamptz) JOIN fenced f ON f.id = s.run_id
    WHERE t.run_id = s.run_id
), metric_rows AS (
    UPDATE run_metrics t SET event_count = m.event_count, message_count = m.message_count,
        signal_count = m.signal_count, proposal_count = m.proposal_count,
        tool_call_count = m.tool_call_count, decision_count = m.decision_count,
        stream_reconnect_count = m.stream_reconnect_count, prompt_tokens = m.prompt_tokens,
        completion_tokens = m.completion_tokens, total_tokens = m.total_tokens,
        estimated_cost_usd = m.estimated_cost_usd, first_event_at = m.first_event_at,
        last_event_at = m.last_event_at, duration_ms = m.duration_ms,
        session_state = m.session_state, ended = m.ended
    FROM json_to_recordset(?::json) AS m(
        run_id uuid, event_count bigint, message_count bigint, signal_count bigint,
        proposal_count bigint, tool_call_count bigint, decision_count bigint,
        stream_reconnect_count bigint, prompt_tokens bigint, completion_tokens bigint,
        total_tokens bigint, estimated_cost_usd double precision, first_event_at timestamptz,
        last_event_at timestamptz, duration_ms bigint, session_state text, ended boolean)
    JOIN fenced f ON f.id = m.run_id
    WHERE t.run_id = m.run_id
), projection_rows AS (
    INSERT INTO run_projections
    SELECT p.run_id, p.version, p.schema_version, COALESCE(p.run_summary, 'null'),
        COALESCE(p.participants, 'null'), COALESCE(p.graph, 'null'),
        COALESCE(p.decision, 'null'), COALESCE(p.signals, 'null'), COALESCE(p.progress, 'null'),
        COALESCE(p.timeline, 'null'), COALESCE(p.trace_summary, 'null'),
        COALESCE(p.outbound_messages, 'null'), COALESCE(p.policy, 'null'),
        COALESCE(p.llm, 'null'), COALESCE(p.fold, 'null')
    FROM json_to_recordset(?::json) AS p(
        run_id uuid, version bigint, schema_version integer, run_summary jsonb,
        participants jsonb, graph jsonb, decision jsonb, signals jsonb, progress jsonb,
        timeline jsonb, trace_summary jsonb, outbound_messages jsonb, policy jsonb, llm jsonb,
        fold jsonb) JOIN fenced f ON f.id = p.run_id
    ON CONFLICT (run_id) DO UPDATE SET version = excluded.version,
        schema_version = excluded.schema_version, run_summary = excluded.run_summary,
        participants = excluded.participants, graph = excluded.graph,
        decision = excluded.decision, signals = excluded.signals, progress = excluded.progress,
        timeline = excluded.timeline, trace_summary = excluded.trace_summary,
        outbound_messages = excluded.outbound_messages, policy = excluded.policy,
        llm = excluded.llm, fold = excluded.fold
), snapshot_rows AS (
    INSERT INTO run_snapshots
    SELECT s.* FROM unnest(?, ?, ?, ?) AS s(run_id, version, schema_version, state)
    JOIN fenced f ON f.id = s.run_id
    ON CONFLICT (run_id, version) DO UPDATE SET schema_version = excluded.schema_version,
        state = excluded.state
), artifact_rows AS (
    INSERT INTO run_artifacts
    SELECT a.* FROM json_to_recordset(?::json) AS a(
        id uuid, run_id uuid, kind text, label text, uri text, inline jsonb,
        created_at timestamptz) JOIN fenced f ON f.id = a.run_id
), inbox_rows AS (
    DELETE FROM run_inbox i USING fenced f WHERE i.run_id = f.id AND i.id = ANY (?)
), raw_rows AS (
    INSERT INTO run_events_raw
    SELECT r.* FROM unnest(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        AS r(run_id, source, ordinal, message_id, message_type, mode, session_id, sender,
            macp_version, ts_unix_ms, received_at, payload, sender_authenticated, sanitized)
    JOIN fenced f ON f.id = r.run_id
), canonical_rows AS (
    INSERT INTO run_events_canonical
    SELECT c.run_id, c.seq, b.base + c.seq - b.expected_seq, c.ts, c.received_at, c.type,
        c.subject_kind, c.subject_id, c.hash, c.body
    FROM unnest(?, ?, ?, ?, ?, ?, ?, ?, ?)
        AS c(run_id, seq, ts, received_at, type, subject_kind, subject_id, hash, body)
    JOIN based b ON b.id = c.run_id
)
SELECT id, base FROM based";

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
        "metadata": (run.state.is_terminal() || batch.binds()).then_some(&run.metadata),
        "error_code": run.error_code,
        "error_message": run.error_message,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "updated_at": run.updated_at,
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
