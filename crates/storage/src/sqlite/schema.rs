//! The tables, as diesel sees them; `cargo xtask schema --check` holds them against a migrated database.

diesel::table! {
    use diesel::sql_types::{BigInt, Integer, Text};

    feed (id) {
        id -> Integer,
        last -> BigInt,
        log_id -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::{BigInt, Binary, Bool, Jsonb, Nullable, Text, TimestamptzSqlite};

    runs (id) {
        id -> Text,
        status -> Text,
        mode -> Text,
        runtime_kind -> Text,
        runtime_version -> Nullable<Text>,
        runtime_session_id -> Nullable<Text>,
        trace_id -> Nullable<Text>,
        idempotency_key -> Nullable<Text>,
        request_hash -> Nullable<Text>,
        last_event_seq -> BigInt,
        chain_hash -> Binary,
        source_kind -> Nullable<Text>,
        source_ref -> Nullable<Text>,
        environment -> Nullable<Text>,
        scenario_ref -> Nullable<Text>,
        tags -> Jsonb,
        metadata -> Jsonb,
        error_code -> Nullable<Text>,
        error_message -> Nullable<Text>,
        created_at -> TimestamptzSqlite,
        started_at -> Nullable<TimestamptzSqlite>,
        ended_at -> Nullable<TimestamptzSqlite>,
        updated_at -> TimestamptzSqlite,
        archived_at -> Nullable<TimestamptzSqlite>,
        owner -> Nullable<BigInt>,
        epoch -> BigInt,
        parked_reason -> Nullable<Text>,
        rolled_up -> Nullable<Bool>,
        imported_at -> Nullable<TimestamptzSqlite>,
    }
}

diesel::table! {
    use diesel::sql_types::{BigInt, Jsonb, Nullable, Text, TimestamptzSqlite};

    runtime_sessions (run_id) {
        run_id -> Text,
        runtime_kind -> Text,
        runtime_session_id -> Text,
        mode_name -> Text,
        mode_version -> Text,
        configuration_version -> Text,
        policy_version -> Text,
        initiator_participant_id -> Nullable<Text>,
        session_state -> Text,
        metadata -> Jsonb,
        started_at_unix_ms -> Nullable<BigInt>,
        expires_at -> Nullable<TimestamptzSqlite>,
        last_seen_at -> Nullable<TimestamptzSqlite>,
        last_stream_cursor -> BigInt,
        last_message_id -> Nullable<Text>,
        last_event_ts -> Nullable<TimestamptzSqlite>,
        stream_connected_at -> Nullable<TimestamptzSqlite>,
        stream_disconnected_at -> Nullable<TimestamptzSqlite>,
        created_at -> TimestamptzSqlite,
        updated_at -> TimestamptzSqlite,
        reattaches -> BigInt,
        overlaps_shown -> BigInt,
        counted_to -> BigInt,
        ending -> Nullable<Text>,
    }
}

diesel::table! {
    use diesel::sql_types::{BigInt, Binary, Bool, Nullable, Text, TimestamptzSqlite};

    run_events_raw (run_id, message_id, sender) {
        run_id -> Text,
        source -> Text,
        ordinal -> Nullable<BigInt>,
        message_id -> Text,
        message_type -> Text,
        mode -> Text,
        session_id -> Text,
        sender -> Text,
        macp_version -> Text,
        ts_unix_ms -> BigInt,
        received_at -> TimestamptzSqlite,
        payload -> Binary,
        sender_authenticated -> Bool,
        sanitized -> Bool,
    }
}

diesel::table! {
    use diesel::sql_types::{BigInt, Binary, Nullable, Text, TimestamptzSqlite};

    run_events_canonical (run_id, seq) {
        run_id -> Text,
        seq -> BigInt,
        position -> Nullable<BigInt>,
        ts -> TimestamptzSqlite,
        received_at -> TimestamptzSqlite,
        #[sql_name = "type"]
        event_type -> Text,
        subject_kind -> Nullable<Text>,
        subject_id -> Nullable<Text>,
        hash -> Binary,
        body -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::{BigInt, Jsonb, Text, TimestamptzSqlite};

    run_inbox (id) {
        id -> BigInt,
        run_id -> Text,
        kind -> Text,
        dedup_key -> Text,
        payload -> Jsonb,
        created_at -> TimestamptzSqlite,
    }
}

diesel::table! {
    use diesel::sql_types::{BigInt, Integer, Jsonb, Text};

    run_projections (run_id) {
        run_id -> Text,
        version -> BigInt,
        schema_version -> Integer,
        run_summary -> Jsonb,
        participants -> Jsonb,
        graph -> Jsonb,
        decision -> Jsonb,
        signals -> Jsonb,
        progress -> Jsonb,
        timeline -> Jsonb,
        trace_summary -> Jsonb,
        outbound_messages -> Jsonb,
        policy -> Jsonb,
        llm -> Jsonb,
        fold -> Jsonb,
    }
}

diesel::table! {
    use diesel::sql_types::{BigInt, Integer, Text};

    run_snapshots (run_id, version) {
        run_id -> Text,
        version -> BigInt,
        schema_version -> Integer,
        state -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::{BigInt, Bool, Double, Nullable, Text, TimestamptzSqlite};

    run_metrics (run_id) {
        run_id -> Text,
        event_count -> BigInt,
        message_count -> BigInt,
        signal_count -> BigInt,
        proposal_count -> BigInt,
        tool_call_count -> BigInt,
        decision_count -> BigInt,
        stream_reconnect_count -> BigInt,
        prompt_tokens -> BigInt,
        completion_tokens -> BigInt,
        total_tokens -> BigInt,
        estimated_cost_usd -> Double,
        first_event_at -> Nullable<TimestamptzSqlite>,
        last_event_at -> Nullable<TimestamptzSqlite>,
        duration_ms -> Nullable<BigInt>,
        session_state -> Nullable<Text>,
        ended -> Bool,
    }
}

diesel::table! {
    use diesel::sql_types::{Jsonb, Nullable, Text, TimestamptzSqlite};

    run_artifacts (id) {
        id -> Text,
        run_id -> Text,
        kind -> Text,
        label -> Text,
        uri -> Nullable<Text>,
        inline -> Nullable<Jsonb>,
        created_at -> TimestamptzSqlite,
    }
}

diesel::table! {
    use diesel::sql_types::{Text, TimestamptzSqlite};

    session_tombstones (runtime_session_id) {
        runtime_session_id -> Text,
        run_id -> Text,
        deleted_at -> TimestamptzSqlite,
    }
}

diesel::table! {
    use diesel::sql_types::{Binary, Text, TimestamptzSqlite};

    stream_tickets (hash) {
        hash -> Binary,
        run_id -> Text,
        key_hash -> Binary,
        made_at -> TimestamptzSqlite,
        expires_at -> TimestamptzSqlite,
    }
}

diesel::table! {
    use diesel::sql_types::{BigInt, Jsonb, Text, TimestamptzSqlite};

    held_signals (id) {
        id -> BigInt,
        session_id -> Text,
        target_message_id -> Text,
        sender -> Text,
        message_id -> Text,
        payload -> Jsonb,
        heard_at -> TimestamptzSqlite,
    }
}

diesel::table! {
    use diesel::sql_types::{Integer, Nullable, TimestamptzSqlite};

    signal_watch (id) {
        id -> Integer,
        last_heard_at -> Nullable<TimestamptzSqlite>,
    }
}

diesel::table! {
    use diesel::sql_types::{Nullable, Text, TimestamptzSqlite};

    signal_watch_gaps (from_at) {
        from_at -> TimestamptzSqlite,
        to_at -> Nullable<TimestamptzSqlite>,
        reason -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::{Bool, Nullable, Text, TimestamptzSqlite};

    run_traces (run_id) {
        run_id -> Text,
        span_id -> Text,
        parent_span_id -> Nullable<Text>,
        sampled -> Bool,
        trace_state -> Nullable<Text>,
        told_at -> Nullable<TimestamptzSqlite>,
    }
}

diesel::table! {
    use diesel::sql_types::{Bool, Integer, Nullable, Text, TimestamptzSqlite};

    run_receipts (run_id) {
        run_id -> Text,
        state -> Text,
        document -> Nullable<Text>,
        detail -> Nullable<Text>,
        attempts -> Integer,
        due_at -> TimestamptzSqlite,
        answered_at -> Nullable<TimestamptzSqlite>,
        indexed -> Bool,
        supersedes_session_id -> Nullable<Text>,
    }
}

diesel::table! {
    use diesel::sql_types::{BigInt, Bool, Integer, Text, TimestamptzSqlite};

    rollups (whole, grain, figure, bucket, subject, environment, source_ref, scenario_ref) {
        whole -> Bool,
        grain -> Integer,
        figure -> Text,
        bucket -> TimestamptzSqlite,
        subject -> Text,
        environment -> Text,
        source_ref -> Text,
        scenario_ref -> Text,
        count -> BigInt,
        sum -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::{Nullable, Text, TimestamptzSqlite};

    receipt_keys (issuer, kid) {
        issuer -> Text,
        kid -> Text,
        public_key -> Text,
        pinned_at -> TimestamptzSqlite,
        refused_key -> Nullable<Text>,
        refused_at -> Nullable<TimestamptzSqlite>,
    }
}

diesel::allow_tables_to_appear_in_same_query!(
    feed,
    runs,
    runtime_sessions,
    run_events_raw,
    run_events_canonical,
    run_inbox,
    run_projections,
    run_snapshots,
    run_metrics,
    run_artifacts,
    run_traces,
    session_tombstones,
    stream_tickets,
    held_signals,
    signal_watch,
    signal_watch_gaps,
    rollups,
    run_receipts,
    receipt_keys,
);
