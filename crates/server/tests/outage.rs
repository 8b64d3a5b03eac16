//! Outages of the runtime as people see them: in answers, probes, logs, and on streams.

#![expect(
    clippy::indexing_slicing,
    reason = "clippy takes only functions with `#[test]` for tests, not what they call"
)]

mod support;

use std::fs;

use control_plane_domain::SessionId;
use control_plane_testkit::agent::SessionSpec;
use control_plane_testkit::database::{Kind, TestDb};
use control_plane_testkit::message::{self, Outcome};
use control_plane_testkit::process::{ServerCommand, ServerProcess};
use control_plane_testkit::runtime::{Durability, Options, RuntimeProcess};
use control_plane_testkit::scripted::{ScriptedRuntime, ServerTls};
use control_plane_testkit::sse::{Frame, SseClient};
use control_plane_testkit::{DEADLINE, tls, wait_for, wait_until};
use serde_json::{Value, json};
use support::{Stage, Talk, descriptor};

const HISTORY: &str = "/admin/circuit-breaker/history";

/// Asks for the runtime's manifest until the answer has this code.
async fn until_refused_with(server: &ServerProcess, code: &str) {
    let ask = async || server.get("/runtime/manifest").await.1;
    wait_for(DEADLINE, ask, |body| body["errorCode"] == code).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_opens_the_circuit_and_its_end_closes_it() {
    let mut runtime = RuntimeProcess::start(Options::new(Durability::KeepsHistory)).await;
    let cast = runtime.cast().await;
    // So long that only the runtime's return can end it.
    let hour = [("RUNTIME_CIRCUIT_BREAKER_RESET_MS", "3600000")];
    let stage = Stage::with(Kind::Sqlite, &runtime, &hour).await;
    let server = &stage.server;
    let mut talk = Talk::open(&cast).await;
    let run = stage.post(&talk.session, message::DECISION).await;
    stage.has_recorded(run, 2).await;
    let (_, ready) = server.get("/readyz").await;
    assert_eq!(ready["circuitBreaker"], "CLOSED");

    runtime.kill().await;
    until_refused_with(server, "CIRCUIT_BREAKER_OPEN").await;

    let answer = reqwest::get(server.url("/runtime/modes")).await.unwrap();
    assert_eq!(answer.status().as_u16(), 503);
    let wait: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=3600).contains(&wait), "{wait}");
    let told = |body: &Value| body["runtime"]["ok"] == false && body["circuitBreaker"] == "OPEN";
    let ask = async || {
        let (status, body) = server.get("/readyz").await;
        assert_eq!(status, 200, "it is no reason to take a server out of service");
        body
    };
    let ready = wait_for(DEADLINE, ask, told).await;
    assert!(ready["runtime"]["detail"].as_str().unwrap().contains("reached"), "{ready}");
    let (_, health) = server.get("/runtime/health").await;
    assert_eq!((&health["ok"], &health["circuitBreaker"]), (&json!(false), &json!("OPEN")));
    let (_, shown) = server.get(&format!("{HISTORY}?window=1h")).await;
    assert_eq!(shown["history"][0]["reason"], "initial");
    assert_eq!(shown["history"][1]["state"], "OPEN");
    assert_eq!(shown["history"][1]["reason"], "5 consecutive failures");
    assert_eq!(shown["state"], "OPEN");
    let metrics = reqwest::get(server.url("/metrics")).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("\ncircuit_breaker_state 2\n"), "{metrics}");
    assert_eq!(stage.reaches(run, "running").await["status"], "running");

    // A reset lets calls through again, and they fail.
    let (status, reset) = server.post("/admin/circuit-breaker/reset", &json!({})).await;
    assert_eq!((status, reset), (200, json!({ "status": "ok", "state": "CLOSED" })));
    until_refused_with(server, "RUNTIME_UNAVAILABLE").await;
    until_refused_with(server, "CIRCUIT_BREAKER_OPEN").await;

    runtime.restart().await;
    let cast = runtime.cast().await;
    talk.end(&cast).await;
    let ask = async || server.get("/runtime/manifest").await.0;
    wait_for(DEADLINE, ask, |status| *status == 200).await;
    let (_, shown) = server.get(HISTORY).await;
    assert_eq!(shown["state"], "CLOSED");
    stage.reaches(run, "completed").await;
    stage.is_whole(run, &talk.accepted).await;
    assert!(server.log().contains("The circuit breaker opened"), "{}", server.log());
    assert!(server.log().contains("is reached again"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_that_came_back_empty_fails_its_runs_and_says_so_to_watchers() {
    for kind in Kind::ALL {
        let mut runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let stage = Stage::set(kind, &runtime).await;
        let talk = Talk::open(&cast).await;
        let run = stage.post(&talk.session, message::DECISION).await;
        stage.has_recorded(run, 2).await;
        let url = stage.server.url(&format!("/runs/{run}/stream?afterSeq=0"));
        let mut watcher = SseClient::open(url).await;

        runtime.kill().await;
        runtime.restart_empty().await;

        let frames = watcher.collect_until("end", DEADLINE).await;
        let gap = frames.iter().find(|frame| frame.name() == "gap").unwrap().json();
        assert_eq!(gap, json!({ "fromOrdinal": 3, "toOrdinal": null }));
        let failed = stage.reaches(run, "failed").await;
        assert_eq!(failed["errorCode"], "SESSION_GONE", "{failed}");
        let (_, state) = stage.server.get(&format!("/runs/{run}/state")).await;
        assert_eq!(state["run"]["errorCode"], "SESSION_GONE");
        let shown = json!({ "fromOrdinal": 3, "toOrdinal": null, "missing": 0 });
        assert_eq!(state["run"]["historyGap"], shown);
        stage.is_whole(run, &talk.accepted).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_compacted_while_we_were_dead_is_a_gap_for_watchers_and_in_the_state() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::start(Options::new(Durability::CompactsEndedSessions)).await;
        let cast = runtime.cast().await;
        let mut stage = Stage::set(kind, &runtime).await;
        let mut talk = Talk::open(&cast).await;
        let run = stage.post(&talk.session, message::DECISION).await;
        stage.has_recorded(run, 2).await;
        let url = stage.server.url(&format!("/runs/{run}/stream?afterSeq=0"));
        let mut watcher = SseClient::open(url.clone()).await;
        watcher.collect_until("caught_up", DEADLINE).await;
        let last = watcher.last_event_id().unwrap().to_owned();

        stage.server.kill();
        talk.evaluate(&cast).await;
        talk.end(&cast).await;
        stage.server.restart().await;
        let mut watcher = SseClient::resume(url, last).await;

        let frames = watcher.collect_until("end", DEADLINE).await;
        let at = frames.iter().position(|frame| frame.name() == "gap").unwrap();
        assert_eq!(frames[at].json(), json!({ "fromOrdinal": 3, "toOrdinal": 5 }));
        let before = frames[..at].iter().rev().find(|frame| frame.name() == "canonical_event");
        assert_eq!(before.map(Frame::json).unwrap()["type"], "session.stream.gap");
        assert_eq!(frames.last().unwrap().json()["status"], "completed");
        let (_, state) = stage.server.get(&format!("/runs/{run}/state")).await;
        let shown = json!({ "fromOrdinal": 3, "toOrdinal": 5, "missing": 3 });
        assert_eq!(state["run"]["historyGap"], shown);
        assert_eq!(state["decision"]["current"]["action"], "decision.selected");
    }
}

/// A server that speaks TLS with a runtime, and trusts whom the file names.
fn encrypted(runtime: &ScriptedRuntime, database: &TestDb, roots: &str) -> ServerCommand {
    ServerProcess::serve()
        .env("DATABASE_URL", database.url())
        .env("RUNTIME_ADDRESS", runtime.address())
        .env("RUNTIME_TLS", "true")
        .env("RUNTIME_TLS_CA_FILE", roots)
}

/// Waits until readiness tells of the runtime with all of these words.
async fn readiness_tells(server: &ServerProcess, words: &[&str]) {
    let ask = async || {
        let (status, body) = server.get("/readyz").await;
        (status, body["runtime"]["detail"].as_str().unwrap_or_default().to_owned())
    };
    let tells = |(status, detail): &(u16, String)| {
        *status == 200 && words.iter().all(|word| detail.contains(word))
    };
    wait_for(DEADLINE, ask, tells).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_that_cannot_be_trusted_is_named_and_waited_for() {
    for kind in Kind::ALL {
        let (good_roots, certificate): (String, ServerTls) = tls::authority();
        let (strange_roots, _) = tls::authority();
        let folder = tempfile::tempdir().unwrap();
        let roots = folder.path().join("roots.pem");
        fs::write(&roots, strange_roots).unwrap();
        let runtime = ScriptedRuntime::start_tls(certificate).await;
        let database = TestDb::new(kind);
        let roots_file = roots.to_str().unwrap();
        let mut server = encrypted(&runtime, &database, roots_file).start().await;
        let spec = SessionSpec::new(message::DECISION, &["alice", "bob"]);
        runtime.open_session(&spec, "alice");
        let body = descriptor(&spec.session_id, message::DECISION);
        let (_, launched) = server.post("/runs", &body).await;
        let path = format!("/runs/{}", launched["runId"].as_str().unwrap());

        readiness_tells(&server, &["cannot be reached", "certificate"]).await;
        let logged = async || {
            let log = server.log();
            log.contains("invalid peer certificate") && log.contains(&runtime.address())
        };
        wait_until(DEADLINE, logged).await;
        // Once per outage and place, not once per attempt.
        until_refused_with(&server, "CIRCUIT_BREAKER_OPEN").await;
        let warnings = server.log().matches("The watch over sessions broke").count();
        assert_eq!(warnings, 1, "{}", server.log());
        let status = async || server.get(&path).await.1["status"].clone();
        wait_for(DEADLINE, status, |status| status == "starting").await;
        assert_eq!(runtime.calls("GetSession"), 0);

        fs::write(&roots, good_roots).unwrap();
        server.restart().await;
        let commitment = message::commitment("c1", "decision.selected", Outcome::Positive);
        runtime.resolve(&spec.session_id, "alice", commitment);
        let ask = async || server.get(&path).await.1;
        wait_for(DEADLINE, ask, |run| run["status"] == "completed").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_without_tls_is_named_and_waited_for() {
    let (roots, _) = tls::authority();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("roots.pem");
    fs::write(&file, roots).unwrap();
    let runtime = ScriptedRuntime::start().await;
    let database = TestDb::new(Kind::Sqlite);
    let server = encrypted(&runtime, &database, file.to_str().unwrap()).start().await;
    let session = SessionId::random();
    let (_, launched) = server.post("/runs", &descriptor(&session, message::DECISION)).await;
    let path = format!("/runs/{}", launched["runId"].as_str().unwrap());

    readiness_tells(&server, &["cannot be reached", &runtime.address()]).await;

    until_refused_with(&server, "CIRCUIT_BREAKER_OPEN").await;
    let status = async || server.get(&path).await.1["status"].clone();
    wait_for(DEADLINE, status, |status| status == "starting").await;
    assert_eq!(runtime.calls("GetSession"), 0);
}
