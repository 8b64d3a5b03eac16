-- The feed over all runs: one row. `last` is taken as the last lock of every append and held to its
-- commit, so positions are visible in their own order. `log_id` names this log.
CREATE TABLE feed (
    id integer PRIMARY KEY NOT NULL CHECK (id = 1),
    last bigint NOT NULL,
    log_id text NOT NULL
);
INSERT INTO feed (id, last, log_id) VALUES (1, 0, lower(hex(randomblob(16))));

CREATE TABLE runs (
    id text PRIMARY KEY NOT NULL,
    status text NOT NULL,
    mode text NOT NULL,
    runtime_kind text NOT NULL,
    runtime_version text,
    runtime_session_id text,
    trace_id text,
    idempotency_key text,
    request_hash text,
    last_event_seq bigint NOT NULL,
    chain_hash blob NOT NULL,
    source_kind text,
    source_ref text,
    environment text,
    scenario_ref text,
    tags blob NOT NULL,
    metadata blob NOT NULL,
    error_code text,
    error_message text,
    created_at text NOT NULL,
    started_at text,
    ended_at text,
    updated_at text NOT NULL,
    archived_at text,
    owner bigint,
    epoch bigint NOT NULL,
    parked_reason text
);
CREATE UNIQUE INDEX runs_runtime_session_id_unique ON runs (runtime_session_id);
CREATE UNIQUE INDEX runs_idempotency_key_unique ON runs (idempotency_key);
CREATE INDEX runs_created_at_idx ON runs (created_at, id);
CREATE INDEX runs_updated_at_idx ON runs (updated_at, id);
CREATE INDEX runs_status_idx ON runs (status, created_at);
CREATE INDEX runs_active_idx ON runs (owner)
    WHERE status IN ('queued', 'starting', 'binding_session', 'running', 'suspended');

CREATE TABLE runtime_sessions (
    run_id text PRIMARY KEY NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    runtime_kind text NOT NULL,
    runtime_session_id text NOT NULL,
    mode_name text NOT NULL,
    mode_version text NOT NULL,
    configuration_version text NOT NULL,
    policy_version text NOT NULL,
    initiator_participant_id text,
    session_state text NOT NULL,
    metadata blob NOT NULL,
    started_at_unix_ms bigint,
    expires_at text,
    last_seen_at text,
    last_stream_cursor bigint NOT NULL,
    last_message_id text,
    last_event_ts text,
    stream_connected_at text,
    stream_disconnected_at text,
    created_at text NOT NULL,
    updated_at text NOT NULL
);
CREATE INDEX runtime_sessions_session_idx ON runtime_sessions (runtime_session_id);

-- Accepted envelopes. Session envelopes have an ordinal, signals have none.
CREATE TABLE run_events_raw (
    run_id text NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    source text NOT NULL,
    ordinal bigint,
    message_id text NOT NULL,
    message_type text NOT NULL,
    mode text NOT NULL,
    session_id text NOT NULL,
    sender text NOT NULL,
    macp_version text NOT NULL,
    ts_unix_ms bigint NOT NULL,
    received_at text NOT NULL,
    payload blob NOT NULL,
    sender_authenticated boolean NOT NULL,
    sanitized boolean NOT NULL
);
CREATE UNIQUE INDEX run_events_raw_ordinal_unique ON run_events_raw (run_id, ordinal);
CREATE UNIQUE INDEX run_events_raw_message_unique ON run_events_raw (run_id, message_id)
    WHERE source = 'session';
CREATE UNIQUE INDEX run_events_raw_signal_unique ON run_events_raw (run_id, sender, message_id)
    WHERE source = 'signal';
CREATE INDEX run_events_raw_received_idx ON run_events_raw (run_id, received_at);

-- Canonical events. `body` is the exact text that is sent; `hash` chains over it.
CREATE TABLE run_events_canonical (
    run_id text NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    seq bigint NOT NULL,
    position bigint NOT NULL,
    ts text NOT NULL,
    received_at text NOT NULL,
    type text NOT NULL,
    subject_kind text,
    subject_id text,
    hash blob NOT NULL,
    body text NOT NULL,
    PRIMARY KEY (run_id, seq)
);
CREATE UNIQUE INDEX run_events_canonical_position_unique ON run_events_canonical (position);
CREATE INDEX run_events_canonical_ts_idx ON run_events_canonical (run_id, ts);

-- What others than a run's own stream want of it; used up in the append that does it.
CREATE TABLE run_inbox (
    id integer PRIMARY KEY AUTOINCREMENT NOT NULL,
    run_id text NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    kind text NOT NULL,
    dedup_key text NOT NULL,
    payload blob NOT NULL,
    created_at text NOT NULL
);
CREATE UNIQUE INDEX run_inbox_dedup_unique ON run_inbox (run_id, kind, dedup_key);

-- A snapshot of the log, one column per section.
CREATE TABLE run_projections (
    run_id text PRIMARY KEY NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    version bigint NOT NULL,
    schema_version integer NOT NULL,
    run_summary blob NOT NULL,
    participants blob NOT NULL,
    graph blob NOT NULL,
    decision blob NOT NULL,
    signals blob NOT NULL,
    progress blob NOT NULL,
    timeline blob NOT NULL,
    trace_summary blob NOT NULL,
    outbound_messages blob NOT NULL,
    policy blob NOT NULL,
    llm blob NOT NULL,
    fold blob NOT NULL
);

CREATE TABLE run_metrics (
    run_id text PRIMARY KEY NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    event_count bigint NOT NULL,
    message_count bigint NOT NULL,
    signal_count bigint NOT NULL,
    proposal_count bigint NOT NULL,
    tool_call_count bigint NOT NULL,
    decision_count bigint NOT NULL,
    stream_reconnect_count bigint NOT NULL,
    prompt_tokens bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    total_tokens bigint NOT NULL,
    estimated_cost_usd double NOT NULL,
    first_event_at text,
    last_event_at text,
    duration_ms bigint,
    session_state text,
    ended boolean NOT NULL
);

CREATE TABLE run_artifacts (
    id text PRIMARY KEY NOT NULL,
    run_id text NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    kind text NOT NULL,
    label text NOT NULL,
    uri text,
    inline blob,
    created_at text NOT NULL
);
CREATE INDEX run_artifacts_run_idx ON run_artifacts (run_id, created_at);

-- Sessions whose run was deleted: discovery leaves them alone.
CREATE TABLE session_tombstones (
    runtime_session_id text PRIMARY KEY NOT NULL,
    run_id text NOT NULL,
    deleted_at text NOT NULL
);
