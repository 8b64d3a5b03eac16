//! Catch-up: how many envelopes a second come from a runtime that has them all into the database.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use control_plane_domain::{Clock, SessionId, SystemClock};
use control_plane_testkit::database::{Kind, TestDb};
use control_plane_testkit::process::ServerProcess;
use control_plane_testkit::runtime::RuntimeProcess;
use control_plane_testkit::{message, play};
use serde_json::{Value, json};

use crate::{Size, serve};

const RUNS: usize = 20;
/// How many messages of one session the agents have under way while the runtime is filled.
const IN_FLIGHT: usize = 32;
const POLL: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(600);

/// Envelopes a second, from the first one received to the last one committed.
pub(crate) async fn measure(kind: Kind, size: Size) -> Result<f64> {
    let envelopes = match size {
        Size::Full => 200_000,
        Size::Quick => 2_000,
    };
    let runtime = RuntimeProcess::in_memory().await;
    let sessions = fill(&runtime, envelopes / RUNS).await;
    let database = TestDb::new(kind);
    let server = serve(&runtime, &database).await;

    let mut runs = Vec::new();
    for session in &sessions {
        let (status, run) = server.post("/runs", &descriptor(session)).await;
        ensure!(status == 201, "POST /runs answered {status}: {run}");
        runs.push(run["runId"].as_str().context("the answer has no runId")?.to_owned());
    }
    // Besides the contributions, each session has its SessionStart.
    let expected = i64::try_from(envelopes + RUNS)?;
    let stored = wait_until_stored(&server, expected).await?;

    let mut first = i64::MAX;
    let mut messages = 0;
    for run in &runs {
        first = first.min(first_received(&server, run).await?);
        let (_, metrics) = server.get(&format!("/runs/{run}/metrics")).await;
        messages += metrics["messageCount"].as_i64().unwrap_or_default();
    }
    ensure!(messages == expected, "{messages} messages were stored, not {expected}");
    let milliseconds = i32::try_from(stored - first)?.max(1);
    Ok(f64::from(i32::try_from(expected)?) * 1000.0 / f64::from(milliseconds))
}

async fn fill(runtime: &RuntimeProcess, each: usize) -> Vec<SessionId> {
    let cast = runtime.cast().await;
    let sessions: Vec<SessionId> = (0..RUNS).map(|_| SessionId::random()).collect();
    for session in &sessions {
        play::open_for_load(&cast, session).await;
        play::contribute_many(&cast.alice, session, each, IN_FLIGHT).await;
    }
    sessions
}

/// The moment at which every run had all its events, in milliseconds.
async fn wait_until_stored(server: &ServerProcess, expected: i64) -> Result<i64> {
    let deadline = Instant::now() + PATIENCE;
    let mut before = -1;
    let mut reached = SystemClock.now().timestamp_millis();
    // An envelope is two events here, and each run has a few of our own besides. So the end is
    // when there are enough, and no more come.
    loop {
        ensure!(Instant::now() < deadline, "not stored within {PATIENCE:?}: {before} events");
        let (_, page) = server.get("/runs?limit=50").await;
        let rows = page["data"].as_array().map(Vec::as_slice).unwrap_or_default();
        let events: i64 = rows.iter().filter_map(|run| run["lastEventSeq"].as_i64()).sum();
        let now = SystemClock.now().timestamp_millis();
        if events != before {
            reached = now;
            before = events;
        }
        if events >= 2 * (expected - i64::try_from(RUNS)?) && now - reached > 500 {
            return Ok(reached);
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn first_received(server: &ServerProcess, run: &str) -> Result<i64> {
    let (_, events) = server.get(&format!("/runs/{run}/events?limit=20")).await;
    let events = events.as_array().context("the events are no array")?;
    let received = |event: &Value| -> Option<i64> {
        let text = event["receivedAt"].as_str()?;
        Some(chrono::DateTime::parse_from_rfc3339(text).ok()?.timestamp_millis())
    };
    let messages = events.iter().filter(|event| event["type"] == "message.received");
    messages.filter_map(received).min().context("the run has no message")
}

/// What is asked of `POST /runs`.
pub(crate) fn descriptor(session: &SessionId) -> Value {
    json!({
        "mode": "live",
        "runtime": { "kind": "rust" },
        "session": {
            "sessionId": session,
            "modeName": message::MULTI_ROUND,
            "modeVersion": message::MODE_VERSION,
            "configurationVersion": message::CONFIGURATION_VERSION,
            "policyVersion": message::POLICY_VERSION,
            "ttlMs": 3_600_000,
            "participants": [{ "id": "alice" }, { "id": "bob" }],
        },
    })
}
