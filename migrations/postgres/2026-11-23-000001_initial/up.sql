-- The feed over all runs: one row. `last` is taken as the last lock of every append and held to its
-- commit, so positions are visible in their own order. `log_id` names this log.
CREATE TABLE feed (
    id integer PRIMARY KEY CHECK (id = 1),
    last bigint NOT NULL,
    log_id text NOT NULL
);
INSERT INTO feed (id, last, log_id) VALUES (1, 0, gen_random_uuid()::text);

CREATE TABLE runs (
    id uuid PRIMARY KEY,
    status text NOT NULL,
    mode text NOT NULL,
    runtime_kind text NOT NULL,
    runtime_version text,
    runtime_session_id text,
    trace_id text,
    idempotency_key text,
    request_hash text,
    last_event_seq bigint NOT NULL,
    chain_hash bytea NOT NULL,
    source_kind text,
    source_ref text,
    environment text,
    scenario_ref text,
    tags jsonb NOT NULL,
    metadata jsonb NOT NULL,
    error_code text,
    error_message text,
    created_at timestamptz NOT NULL,
    started_at timestamptz,
    ended_at timestamptz,
    updated_at timestamptz NOT NULL,
    archived_at timestamptz,
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
    run_id uuid PRIMARY KEY REFERENCES runs (id) ON DELETE CASCADE,
    runtime_kind text NOT NULL,
    runtime_session_id text NOT NULL,
    mode_name text NOT NULL,
    mode_version text NOT NULL,
    configuration_version text NOT NULL,
    policy_version text NOT NULL,
    initiator_participant_id text,
    session_state text NOT NULL,
    metadata jsonb NOT NULL,
    started_at_unix_ms bigint,
    expires_at timestamptz,
    last_seen_at timestamptz,
    last_stream_cursor bigint NOT NULL,
    last_message_id text,
    last_event_ts timestamptz,
    stream_connected_at timestamptz,
    stream_disconnected_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE INDEX runtime_sessions_session_idx ON runtime_sessions (runtime_session_id);

-- Accepted envelopes. Session envelopes have an ordinal, signals have none.
CREATE TABLE run_events_raw (
    run_id uuid NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    source text NOT NULL,
    ordinal bigint,
    message_id text NOT NULL,
    message_type text NOT NULL,
    mode text NOT NULL,
    session_id text NOT NULL,
    sender text NOT NULL,
    macp_version text NOT NULL,
    ts_unix_ms bigint NOT NULL,
    received_at timestamptz NOT NULL,
    payload bytea NOT NULL,
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
    run_id uuid NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    seq bigint NOT NULL,
    position bigint NOT NULL,
    ts timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    type text NOT NULL,
    subject_kind text,
    subject_id text,
    hash bytea NOT NULL,
    body text NOT NULL,
    PRIMARY KEY (run_id, seq)
);
CREATE UNIQUE INDEX run_events_canonical_position_unique ON run_events_canonical (position);
CREATE INDEX run_events_canonical_ts_idx ON run_events_canonical (run_id, ts);

-- What others than a run's own stream want of it; used up in the append that does it.
CREATE TABLE run_inbox (
    id bigserial PRIMARY KEY,
    run_id uuid NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    kind text NOT NULL,
    dedup_key text NOT NULL,
    payload jsonb NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE UNIQUE INDEX run_inbox_dedup_unique ON run_inbox (run_id, kind, dedup_key);

-- A snapshot of the log, one column per section.
CREATE TABLE run_projections (
    run_id uuid PRIMARY KEY REFERENCES runs (id) ON DELETE CASCADE,
    version bigint NOT NULL,
    schema_version integer NOT NULL,
    run_summary jsonb NOT NULL,
    participants jsonb NOT NULL,
    graph jsonb NOT NULL,
    decision jsonb NOT NULL,
    signals jsonb NOT NULL,
    progress jsonb NOT NULL,
    timeline jsonb NOT NULL,
    trace_summary jsonb NOT NULL,
    outbound_messages jsonb NOT NULL,
    policy jsonb NOT NULL,
    llm jsonb NOT NULL,
    fold jsonb NOT NULL
);

CREATE TABLE run_metrics (
    run_id uuid PRIMARY KEY REFERENCES runs (id) ON DELETE CASCADE,
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
    estimated_cost_usd double precision NOT NULL,
    first_event_at timestamptz,
    last_event_at timestamptz,
    duration_ms bigint,
    session_state text,
    ended boolean NOT NULL
);

CREATE TABLE run_artifacts (
    id uuid PRIMARY KEY,
    run_id uuid NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    kind text NOT NULL,
    label text NOT NULL,
    uri text,
    inline jsonb,
    created_at timestamptz NOT NULL
);
CREATE INDEX run_artifacts_run_idx ON run_artifacts (run_id, created_at);

-- Sessions whose run was deleted: discovery leaves them alone.
CREATE TABLE session_tombstones (
    runtime_session_id text PRIMARY KEY,
    run_id uuid NOT NULL,
    deleted_at timestamptz NOT NULL
);
