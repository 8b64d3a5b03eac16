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
    use diesel::sql_types::{BigInt, Binary, Bool, Jsonb, Nullable, Text, Timestamptz, Uuid};

    runs (id) {
        id -> Uuid,
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
        created_at -> Timestamptz,
        started_at -> Nullable<Timestamptz>,
        ended_at -> Nullable<Timestamptz>,
        updated_at -> Timestamptz,
        archived_at -> Nullable<Timestamptz>,
        owner -> Nullable<BigInt>,
        epoch -> BigInt,
        parked_reason -> Nullable<Text>,
        rolled_up -> Nullable<Bool>,
        imported_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    use diesel::sql_types::{BigInt, Jsonb, Nullable, Text, Timestamptz, Uuid};

    runtime_sessions (run_id) {
        run_id -> Uuid,
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
        expires_at -> Nullable<Timestamptz>,
        last_seen_at -> Nullable<Timestamptz>,
        last_stream_cursor -> BigInt,
        last_message_id -> Nullable<Text>,
        last_event_ts -> Nullable<Timestamptz>,
        stream_connected_at -> Nullable<Timestamptz>,
        stream_disconnected_at -> Nullable<Timestamptz>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        reattaches -> BigInt,
        overlaps_shown -> BigInt,
        counted_to -> BigInt,
        ending -> Nullable<Text>,
    }
}

diesel::table! {
    use diesel::sql_types::{BigInt, Binary, Bool, Nullable, Text, Timestamptz, Uuid};

    run_events_raw (run_id, message_id, sender) {
        run_id -> Uuid,
        source -> Text,
        ordinal -> Nullable<BigInt>,
        message_id -> Text,
        message_type -> Text,
        mode -> Text,
        session_id -> Text,
        sender -> Text,
        macp_version -> Text,
        ts_unix_ms -> BigInt,
        received_at -> Timestamptz,
        payload -> Binary,
        sender_authenticated -> Bool,
        sanitized -> Bool,
    }
}

diesel::table! {
    use diesel::sql_types::{BigInt, Binary, Nullable, Text, Timestamptz, Uuid};

    run_events_canonical (run_id, seq) {
        run_id -> Uuid,
        seq -> BigInt,
        position -> Nullable<BigInt>,
        ts -> Timestamptz,
        received_at -> Timestamptz,
        #[sql_name = "type"]
        event_type -> Text,
        subject_kind -> Nullable<Text>,
        subject_id -> Nullable<Text>,
        hash -> Binary,
        body -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::{BigInt, Jsonb, Text, Timestamptz, Uuid};

    run_inbox (id) {
        id -> BigInt,
        run_id -> Uuid,
        kind -> Text,
        dedup_key -> Text,
        payload -> Jsonb,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    use diesel::sql_types::{BigInt, Integer, Jsonb, Uuid};

    run_projections (run_id) {
        run_id -> Uuid,
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
    use diesel::sql_types::{BigInt, Integer, Text, Uuid};

    run_snapshots (run_id, version) {
        run_id -> Uuid,
        version -> BigInt,
        schema_version -> Integer,
        state -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::{BigInt, Bool, Double, Nullable, Text, Timestamptz, Uuid};

    run_metrics (run_id) {
        run_id -> Uuid,
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
        first_event_at -> Nullable<Timestamptz>,
        last_event_at -> Nullable<Timestamptz>,
        duration_ms -> Nullable<BigInt>,
        session_state -> Nullable<Text>,
        ended -> Bool,
    }
}

diesel::table! {
    use diesel::sql_types::{Jsonb, Nullable, Text, Timestamptz, Uuid};

    run_artifacts (id) {
        id -> Uuid,
        run_id -> Uuid,
        kind -> Text,
        label -> Text,
        uri -> Nullable<Text>,
        inline -> Nullable<Jsonb>,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    use diesel::sql_types::{Text, Timestamptz, Uuid};

    session_tombstones (runtime_session_id) {
        runtime_session_id -> Text,
        run_id -> Uuid,
        deleted_at -> Timestamptz,
    }
}

diesel::table! {
    use diesel::sql_types::{Binary, Timestamptz, Uuid};

    stream_tickets (hash) {
        hash -> Binary,
        run_id -> Uuid,
        key_hash -> Binary,
        made_at -> Timestamptz,
        expires_at -> Timestamptz,
    }
}

diesel::table! {
    use diesel::sql_types::{BigInt, Jsonb, Text, Timestamptz};

    held_signals (id) {
        id -> BigInt,
        session_id -> Text,
        target_message_id -> Text,
        sender -> Text,
        message_id -> Text,
        payload -> Jsonb,
        heard_at -> Timestamptz,
    }
}

diesel::table! {
    use diesel::sql_types::{Integer, Nullable, Timestamptz};

    signal_watch (id) {
        id -> Integer,
        last_heard_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    use diesel::sql_types::{Nullable, Text, Timestamptz};

    signal_watch_gaps (from_at) {
        from_at -> Timestamptz,
        to_at -> Nullable<Timestamptz>,
        reason -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::{Bool, Nullable, Text, Timestamptz, Uuid};

    run_traces (run_id) {
        run_id -> Uuid,
        span_id -> Text,
        parent_span_id -> Nullable<Text>,
        sampled -> Bool,
        trace_state -> Nullable<Text>,
        told_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    use diesel::sql_types::{Bool, Integer, Nullable, Text, Timestamptz, Uuid};

    run_receipts (run_id) {
        run_id -> Uuid,
        state -> Text,
        document -> Nullable<Text>,
        detail -> Nullable<Text>,
        attempts -> Integer,
        due_at -> Timestamptz,
        answered_at -> Nullable<Timestamptz>,
        indexed -> Bool,
        supersedes_session_id -> Nullable<Text>,
    }
}

diesel::table! {
    use diesel::sql_types::{BigInt, Bool, Integer, Text, Timestamptz};

    rollups (whole, grain, figure, bucket, subject, environment, source_ref, scenario_ref) {
        whole -> Bool,
        grain -> Integer,
        figure -> Text,
        bucket -> Timestamptz,
        subject -> Text,
        environment -> Text,
        source_ref -> Text,
        scenario_ref -> Text,
        count -> BigInt,
        sum -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::{Nullable, Text, Timestamptz};

    receipt_keys (issuer, kid) {
        issuer -> Text,
        kid -> Text,
        public_key -> Text,
        pinned_at -> Timestamptz,
        refused_key -> Nullable<Text>,
        refused_at -> Nullable<Timestamptz>,
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
