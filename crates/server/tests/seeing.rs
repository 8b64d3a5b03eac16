//! What an operator sees: every condition of a run, from any instance, and the figures.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "clippy takes only functions with `#[test]` for tests, not what they call"
)]

mod support;

use control_plane_domain::{RunId, SessionId};
use control_plane_testkit::agent::SessionSpec;
use control_plane_testkit::database::{Kind, TestDb};
use control_plane_testkit::message;
use control_plane_testkit::process::ServerProcess;
use control_plane_testkit::runtime::{Durability, OBSERVER_TOKEN, Options, RuntimeProcess};
use control_plane_testkit::scripted::ScriptedRuntime;
use control_plane_testkit::{DEADLINE, wait_for};
use serde_json::Value;
use support::{Stage, Talk, descriptor};

/// Waits until the diagnosis names this condition.
async fn diagnosis(server: &ServerProcess, run: RunId, condition: &str) -> Value {
    let path = format!("/runs/{run}/diagnosis");
    let ask = async || server.get(&path).await.1;
    wait_for(DEADLINE, ask, |found| found["condition"] == condition).await
}

/// Waits until the diagnosis' sentence has these words.
async fn says(server: &ServerProcess, run: RunId, words: &str) -> String {
    let path = format!("/runs/{run}/diagnosis");
    let ask = async || server.get(&path).await.1["summary"].as_str().unwrap_or("").to_owned();
    wait_for(DEADLINE, ask, |found: &String| found.contains(words)).await
}

/// A figure of `/metrics`; 0 when it is not there.
async fn figure(server: &ServerProcess, name: &str) -> f64 {
    let text = reqwest::get(server.url("/metrics")).await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

/// Waits until a figure is this.
async fn counts(server: &ServerProcess, name: &str, wanted: f64) {
    wait_for(DEADLINE, async || figure(server, name).await, |found| *found == wanted).await;
}

/// A second instance on the database of another.
async fn beside(url: &str, runtime: &RuntimeProcess, recovers: bool) -> ServerProcess {
    let server = ServerProcess::serve()
        .env("DATABASE_URL", url)
        .env("RUNTIME_ADDRESS", runtime.address())
        .env("RUNTIME_BEARER_TOKEN", OBSERVER_TOKEN)
        .env("RUNTIME_ALLOW_INSECURE", "true")
        .env("RUN_RECOVERY_ENABLED", recovers);
    server.start().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_diagnosed_from_its_wait_for_a_session_to_its_end() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let stage = Stage::set(kind, &runtime).await;
        let server = &stage.server;
        let session = SessionId::random();
        let run = stage.post(&session, message::DECISION).await;

        let waiting = diagnosis(server, run, "waiting_for_session").await;
        let spec =
            SessionSpec::new(message::DECISION, &["alice", "bob", "carol"]).with_id(&session);
        cast.alice.start_session(&spec).await;
        says(server, run, "Waiting for a proposal of alice, bob or carol").await;
        let say = async |what| cast.alice.say(&session, message::DECISION, what).await;
        say(message::decision::proposal("p1", "deploy")).await;
        says(server, run, "Waiting for evaluations or votes of bob and carol on p1").await;
        say(message::decision::vote("p1", "APPROVE")).await;
        says(server, run, "Waiting for votes of bob and carol on p1").await;
        cast.alice.suspend(&session, "lunch").await;
        let suspended = diagnosis(server, run, "suspended").await;
        cast.alice.resume(&session, "back").await;
        let resumed = diagnosis(server, run, "waiting_for_participants").await;
        let outcome = message::Outcome::Positive;
        say(message::commitment("c1", "decision.selected", outcome)).await;
        let finished = diagnosis(server, run, "finished").await;

        let begins = |found: &Value, words: &str| {
            assert!(found["summary"].as_str().unwrap().starts_with(words), "{found:#}");
        };
        begins(&waiting, "Waiting for the session to be started since 20");
        assert_eq!(waiting["owner"]["here"], true, "{waiting:#}");
        assert_eq!(waiting["sessionId"], session.as_str());
        begins(&suspended, "Suspended since 20");
        let banked = suspended["suspension"]["bankedTtlMs"].as_i64().unwrap();
        assert!((3_500_000..=3_600_000).contains(&banked), "{suspended:#}");
        assert_eq!(resumed["waitingFor"]["participants"], serde_json::json!(["bob", "carol"]));
        begins(&finished, "Completed at 20");
        assert_eq!(finished["end"]["action"], "decision.selected");
        assert_eq!(finished["end"]["outcomePositive"], true);
        let (status, _) = server.get(&format!("/runs/{}/diagnosis", RunId::random())).await;
        assert_eq!(status, 404);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_that_is_away_is_seen_on_every_run_until_it_is_back() {
    for kind in Kind::ALL {
        let mut runtime = RuntimeProcess::start(Options::new(Durability::KeepsHistory)).await;
        let cast = runtime.cast().await;
        let stage = Stage::set(kind, &runtime).await;
        let server = &stage.server;
        let talk = Talk::open(&cast).await;
        let followed = stage.post(&talk.session, message::DECISION).await;
        stage.has_recorded(followed, 2).await;
        diagnosis(server, followed, "waiting_for_participants").await;

        runtime.kill().await;
        let waiting = stage.post(&SessionId::random(), message::DECISION).await;
        let away = diagnosis(server, followed, "runtime_unreachable").await;
        let never_seen = diagnosis(server, waiting, "runtime_unreachable").await;
        runtime.restart().await;

        // Nobody says anything, and it shows all the same.
        diagnosis(server, followed, "waiting_for_participants").await;
        diagnosis(server, waiting, "waiting_for_session").await;
        for found in [away, never_seen] {
            let words = "The runtime cannot be reached since 20";
            assert!(found["summary"].as_str().unwrap().starts_with(words), "{found:#}");
            assert!(found["outage"]["since"].is_string(), "{found:#}");
        }
        counts(server, "macp_stream_reconnects_total", 1.0).await;
        assert!(figure(server, r#"macp_attaches_total{outcome="reopened"}"#).await >= 1.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_instance_tells_which_one_follows_a_run_and_when_that_one_is_gone() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let mut stage = Stage::set(Kind::Postgres, &runtime).await;
    let talk = Talk::open(&cast).await;
    let run = stage.post(&talk.session, message::DECISION).await;
    stage.has_recorded(run, 2).await;
    let onlooker = beside(&stage.url, &runtime, false).await;

    let here = diagnosis(&stage.server, run, "waiting_for_participants").await;
    let there = diagnosis(&onlooker, run, "waiting_for_participants").await;
    stage.server.kill();
    let gone = diagnosis(&onlooker, run, "not_followed").await;
    let heir = beside(&stage.url, &runtime, true).await;
    let taken = diagnosis(&heir, run, "waiting_for_participants").await;

    let instance = here["owner"]["instance"].as_str().unwrap();
    assert_eq!(
        here["owner"],
        serde_json::json!({ "instance": instance, "alive": true, "here": true })
    );
    assert_eq!(
        there["owner"],
        serde_json::json!({ "instance": instance, "alive": true, "here": false })
    );
    let named = format!("followed by another instance, {instance}");
    assert!(there["summary"].as_str().unwrap().contains(&named), "{there:#}");
    let named = format!("instance {instance} is gone");
    assert!(gone["summary"].as_str().unwrap().contains(&named), "{gone:#}");
    assert_ne!(taken["owner"]["instance"], instance);
    assert_eq!(taken["owner"]["here"], true);
    counts(&heir, r#"macp_takeovers_total{when="start"}"#, 1.0).await;
    counts(&heir, r#"macp_attaches_total{outcome="recovered"}"#, 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_that_are_taken_over_from_a_dead_instance_are_counted() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let mut stage = Stage::set(Kind::Postgres, &runtime).await;
    let other = beside(&stage.url, &runtime, true).await;
    for _ in 0..3 {
        let talk = Talk::open(&cast).await;
        let run = stage.post(&talk.session, message::DECISION).await;
        stage.has_recorded(run, 2).await;
    }

    stage.server.kill();

    counts(&other, r#"macp_takeovers_total{when="running"}"#, 3.0).await;
    counts(&other, r#"macp_attaches_total{outcome="recovered"}"#, 3.0).await;
    assert_eq!(figure(&other, r#"macp_takeovers_total{when="start"}"#).await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_compacted_while_the_server_was_away_is_told_and_counted() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::start(Options::new(Durability::CompactsEndedSessions)).await;
        let cast = runtime.cast().await;
        let mut stage = Stage::set(kind, &runtime).await;
        let mut talk = Talk::open(&cast).await;
        let run = stage.post(&talk.session, message::DECISION).await;
        stage.has_recorded(run, 2).await;

        stage.server.kill();
        talk.evaluate(&cast).await;
        talk.end(&cast).await;
        stage.server.restart().await;

        let found = diagnosis(&stage.server, run, "finished").await;
        let summary = found["summary"].as_str().unwrap();
        let gap = "envelopes 3 to 5 of its history cannot be read any more";
        let receipt = "decision.selected (positive), as the decision receipt says";
        assert!(summary.contains(gap) && summary.contains(receipt), "{summary}");
        counts(&stage.server, "macp_history_gaps_total", 1.0).await;
        counts(&stage.server, "macp_history_gap_envelopes_total", 3.0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_whose_session_expires_or_never_starts_says_which() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let stage = Stage::with(Kind::Sqlite, &runtime, &[("SESSION_POLL_TIMEOUT_MS", "300")]).await;
    let mut short = SessionSpec::new(message::DECISION, &["alice", "bob"]);
    short.ttl_ms = 1000;
    cast.alice.start_session(&short).await;

    let expired = stage.post(&short.session_id, message::DECISION).await;
    let never = stage.post(&SessionId::random(), message::DECISION).await;

    says(&stage.server, expired, "with SESSION_EXPIRED: the session expired").await;
    says(&stage.server, never, "with RUNTIME_TIMEOUT: the session did not start").await;
}

/// PostgreSQL indexes no text of this length.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_parked_gives_its_reason_to_whoever_asks() {
    let runtime = ScriptedRuntime::start().await;
    let database = TestDb::new(Kind::Postgres);
    let server = ServerProcess::serve()
        .env("DATABASE_URL", database.url())
        .env("RUNTIME_ADDRESS", runtime.address())
        .env("RUNTIME_ALLOW_INSECURE", "true")
        .start()
        .await;
    let spec = SessionSpec::new(message::DECISION, &["alice", "bob", "carol"]);
    runtime.open_session(&spec, "alice");
    let (_, body) = server.post("/runs", &descriptor(&spec.session_id, message::DECISION)).await;
    let run: RunId = body["runId"].as_str().unwrap().parse().unwrap();
    diagnosis(&server, run, "waiting_for_participants").await;

    let mut envelope = control_plane_testkit::agent::envelope(
        "bob",
        spec.session_id.as_str(),
        message::DECISION,
        message::decision::proposal("p1", "deploy"),
    );
    envelope.message_id = (0..1000).map(|_| SessionId::random().to_string()).collect();
    runtime.accept_envelope(&spec.session_id, envelope);

    let parked = diagnosis(&server, run, "parked").await;
    let words = "Parked until a server starts anew: ";
    assert!(parked["summary"].as_str().unwrap().starts_with(words), "{parked:#}");
    assert!(parked["parkedReason"].is_string(), "{parked:#}");
    counts(&server, "macp_parked_runs_total", 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lag_is_measured_from_an_envelope_to_its_commit() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let stage = Stage::set(kind, &runtime).await;
        let mut talk = Talk::open(&cast).await;

        let run = stage.post(&talk.session, message::DECISION).await;
        talk.end(&cast).await;
        stage.reaches(run, "completed").await;

        let server = &stage.server;
        assert!(figure(server, "macp_ingest_lag_seconds_count").await >= 1.0);
        assert!(figure(server, "macp_ingest_lag_seconds_sum").await < 60.0);
        counts(server, "macp_lag_seconds", 0.0).await;
        counts(server, "macp_lag_ordinals", 0.0).await;
        counts(server, r#"macp_attaches_total{outcome="opened"}"#, 1.0).await;
        let text = reqwest::get(server.url("/metrics")).await.unwrap().text().await.unwrap();
        for name in ["macp_redeliveries_total 0", "macp_parked_runs_total 0"] {
            assert!(text.contains(name), "{name} is there before it happens");
        }
    }
}
