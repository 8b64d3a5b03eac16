WITH batch AS (
    SELECT * FROM json_to_recordset(?::json) AS b(
        id uuid, epoch bigint, expected_seq bigint, entries bigint, status text,
        runtime_version text, runtime_session_id text, last_event_seq bigint, chain_hash bytea,
        metadata jsonb, error_code text, error_message text, started_at timestamptz,
        ended_at timestamptz, updated_at timestamptz, files boolean, mode text, tags jsonb,
        source_kind text, source_ref text, environment text, scenario_ref text, receipt text)
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
    RETURNING r.id, b.expected_seq, b.entries, r.rolled_up
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
        stream_disconnected_at = s.stream_disconnected_at, updated_at = s.updated_at,
        reattaches = s.reattaches, overlaps_shown = s.overlaps_shown,
        counted_to = s.counted_to, ending = s.ending
    FROM json_to_recordset(?::json) AS s(
        run_id uuid, mode_name text, mode_version text, configuration_version text,
        policy_version text, initiator_participant_id text, session_state text, metadata jsonb,
        started_at_unix_ms bigint, expires_at timestamptz, last_seen_at timestamptz,
        last_stream_cursor bigint, last_message_id text, last_event_ts timestamptz,
        stream_connected_at timestamptz, stream_disconnected_at timestamptz,
        updated_at timestamptz, reattaches bigint, overlaps_shown bigint, counted_to bigint,
        ending text) JOIN fenced f ON f.id = s.run_id
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
), receipt_rows AS (
    INSERT INTO run_receipts (run_id, state, document, attempts, due_at, indexed)
    SELECT b.id, 'pending', b.receipt, 0, b.updated_at, false
    FROM batch b JOIN fenced f ON f.id = b.id WHERE b.status = 'completed'
    ON CONFLICT (run_id) DO NOTHING
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
), rollup_rows AS (
    INSERT INTO rollups AS t
    SELECT d.whole, d.grain, d.figure, d.bucket, d.subject, d.environment, d.source_ref,
        d.scenario_ref, sum(d.count)::bigint, sum(d.sum)::bigint
    FROM unnest(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        AS d(run_id, whole, grain, figure, bucket, subject, environment, source_ref, scenario_ref,
            count, sum)
    JOIN fenced f ON f.id = d.run_id AND f.rolled_up
    JOIN based b ON b.id = d.run_id
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
    ON CONFLICT (whole, grain, figure, bucket, subject, environment, source_ref, scenario_ref)
    DO UPDATE SET count = t.count + excluded.count, sum = t.sum + excluded.sum
)
SELECT id, base FROM based
