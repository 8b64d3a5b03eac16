//! How long the dashboard takes to answer over a great many runs.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use control_plane_testkit::database::{Kind, TestDb};
use control_plane_testkit::runtime::RuntimeProcess;

use crate::{Size, serve};

/// Events of each run.
const EVENTS: i64 = 20;

/// What is asked for, by the name of its figure.
const ASKED: [(&str, &str); 8] = [
    ("overview_24h", "/dashboard/overview?window=24h"),
    ("overview_7d", "/dashboard/overview?window=7d"),
    ("overview_30d", "/dashboard/overview?window=30d"),
    ("overview_24h_environment", "/dashboard/overview?window=24h&environment=staging"),
    ("overview_30d_environment", "/dashboard/overview?window=30d&environment=staging"),
    ("overview_30d_scenario", "/dashboard/overview?window=30d&scenarioRef=scenario-7"),
    ("agents", "/dashboard/agents/metrics"),
    ("agents_7d_environment", "/dashboard/agents/metrics?window=7d&environment=staging"),
];

/// Runs over the last thirty days: of 20 scenarios in 3 environments, 9 of 10 completed, some
/// declined, some waiting.
const RUNS: &str = "
INSERT INTO runs (id, status, mode, runtime_kind, runtime_session_id, last_event_seq, chain_hash,
    source_ref, environment, scenario_ref, tags, metadata, error_code, created_at, started_at,
    ended_at, updated_at, epoch, rolled_up)
SELECT ('00000000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,
    CASE WHEN n % 1000 = 0 THEN 'queued' WHEN n % 1000 = 1 THEN 'suspended'
        WHEN n % 10 = 2 THEN 'failed' WHEN n % 100 = 3 THEN 'cancelled' ELSE 'completed' END,
    'live', 'rust', 'session-' || n, $EVENTS, '\\x00'::bytea, 'scenario-' || n % 20,
    (ARRAY['staging', 'production', 'development'])[1 + n % 3], 'Scenario ' || n % 20, '[]',
    jsonb_build_object('environment', (ARRAY['staging', 'production', 'development'])[1 + n % 3],
        'scenarioRef', 'Scenario ' || n % 20, 'outcomePositive', n % 7 > 0),
    CASE WHEN n % 10 = 2 THEN (ARRAY['SESSION_EXPIRED', 'SESSION_GONE'])[1 + n / 10 % 2] END,
    at, at, CASE WHEN n % 1000 > 1 THEN at + n % 600 * interval '1 second' END, at, 1, false
FROM (SELECT n, date_trunc('milliseconds', now() - n * interval '30 days' / $RUNS) AS at
    FROM generate_series(1, $RUNS) AS n) AS made";

const FIGURES: &str = "
INSERT INTO run_metrics (run_id, event_count, message_count, signal_count, proposal_count,
    tool_call_count, decision_count, stream_reconnect_count, prompt_tokens, completion_tokens,
    total_tokens, estimated_cost_usd, ended)
SELECT id, $EVENTS, 12, 1, 0, 0, 1, 0, 1000, 500, 1500, 0.0075, ended_at IS NOT NULL FROM runs";

/// Three participants are seen and say twelve things; a signal, a model call, a decision.
const LOGS: &str = "
INSERT INTO run_events_canonical
SELECT id, seq, (n - 1) * $EVENTS + seq, created_at + seq * interval '1 second',
    created_at + seq * interval '1 second', type, 'participant', agent, '\\x00'::bytea,
    format('{\"seq\":%s,\"type\":\"%s\",\"data\":{\"sender\":\"%s\",\"decodedPayload\":{\"confidence\":0.%s,\"latencyMs\":%s,\"outcomePositive\":%s}}}',
        seq, type, agent, seq, seq * 10, n % 7 > 0)
FROM (SELECT id, created_at, row_number() OVER (ORDER BY id) AS n FROM runs) AS runs,
    generate_series(1, $EVENTS) AS seq,
    LATERAL (SELECT CASE WHEN seq = 1 THEN 'run.created' WHEN seq <= 4 THEN 'participant.seen'
        WHEN seq = 17 THEN 'signal.emitted' WHEN seq = 18 THEN 'llm.call.completed'
        WHEN seq = 19 THEN 'decision.finalized' WHEN seq = 20 THEN 'run.completed'
        ELSE 'message.received' END AS type, 'agent-' || (n + seq % 3) % 50 AS agent) AS said";

/// Milliseconds, the median, the 99th and the last of a hundred, for each thing that is asked for.
/// The slowest of the first thing is the first question that the server is asked at all.
pub(crate) async fn measure(size: Size) -> Result<Vec<(String, f64)>> {
    let runs = if size == Size::Full { 100_000 } else { 500 };
    let database = TestDb::new(Kind::Postgres);
    let sql = |text: &str| {
        text.replace("$RUNS", &runs.to_string()).replace("$EVENTS", &EVENTS.to_string())
    };
    for statement in [RUNS, FIGURES, LOGS] {
        database.tamper(&sql(statement)).await;
    }
    let last = format!("UPDATE feed SET last = {}", runs * EVENTS);
    for statement in [last.as_str(), "ANALYZE"] {
        database.tamper(statement).await;
    }
    // As for runs of an older version: each log is read, and the sums are written.
    let store = database.store();
    while store.rollups_catch_up().await? {}
    // What the database does by itself some time after so many rows were written.
    for table in ["rollups", "runs"] {
        database.tamper(&format!("VACUUM ANALYZE {table}")).await;
    }

    let runtime = RuntimeProcess::in_memory().await;
    let server = serve(&runtime, &database).await;
    let rounds = if size == Size::Full { 100 } else { 5 };
    let mut figures = Vec::new();
    for (name, path) in ASKED {
        let mut taken = Vec::new();
        for _ in 0..rounds {
            let start = Instant::now();
            let (status, body) = server.get(path).await;
            taken.push(start.elapsed().as_secs_f64() * 1000.0);
            ensure!(status == 200, "{path} answered {status}: {body}");
        }
        taken.sort_by(f64::total_cmp);
        // The nearest rank: of a hundred, the 99th.
        for (what, percent) in [("p50", 50_usize), ("p99", 99), ("max", 100)] {
            let rank = (taken.len() * percent).div_ceil(100);
            let figure = taken.get(rank.saturating_sub(1)).context("nothing was measured")?;
            figures.push((format!("dashboard_{name}_{what}"), *figure));
        }
    }
    let (_, month) = server.get("/dashboard/overview?window=30d").await;
    let seen = &month["kpis"]["totalRuns"];
    ensure!(seen.as_i64() >= Some(runs - runs / 1000 - 1), "the month has {seen} of {runs} runs");
    Ok(figures)
}
