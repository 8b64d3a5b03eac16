//! The binary as a process: how it starts, refuses, migrates and stops.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use control_plane_testkit::process::ServerProcess;
use control_plane_testkit::sse::SseClient;
use control_plane_testkit::{DEADLINE, wait_for};
use serde_json::{Value, json};

/// Runs the binary to its end with exactly these variables.
fn run(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_macp-control-plane"))
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .current_dir(folder)
        .output()
        .unwrap()
}

#[test]
fn a_bad_environment_is_refused_with_every_fault() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["serve"], &[("PORT", "none"), ("AUTH_API_KEYS", "a:b")]);

    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    for name in ["PORT=\"none\"", "AUTH_API_KEYS", "RUNTIME_TLS"] {
        assert!(said.contains(name), "{name}: {said}");
    }
    assert!(!folder.path().join("data").exists(), "it touched the disk before it complained");
}

#[test]
fn a_schema_is_migrated_and_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let environment = [("APP_ENV", "development"), ("DATABASE_URL", "sqlite://a.db")];
    let no_migration = [environment[0], environment[1], ("AUTO_MIGRATE", "false")];

    let refused = run(folder.path(), &["serve"], &no_migration);
    let up = run(folder.path(), &["migrate"], &environment);
    let down = run(folder.path(), &["migrate", "--revert"], &environment);
    let again = run(folder.path(), &["serve"], &no_migration);

    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("macp-control-plane migrate"));
    assert!(up.status.success() && down.status.success());
    assert_eq!(again.status.code(), Some(1));
}

#[cfg(not(feature = "embedded-runtime"))]
#[test]
fn dev_without_a_runtime_says_how_to_build_one() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["dev"], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("--features embedded-runtime"));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_stops_with_code_0_while_streams_are_open() {
    // No runtime answers here: that is no reason not to serve.
    let mut server = ServerProcess::serve().env("RUNTIME_ADDRESS", "127.0.0.1:9").start().await;
    let (_, launched) = server
        .post(
            "/runs",
            &json!({
                "mode": "live",
                "runtime": { "kind": "rust" },
                "session": {
                    "modeName": "macp.mode.decision.v1",
                    "modeVersion": "1.0.0",
                    "configurationVersion": "1",
                    "ttlMs": 60_000,
                    "participants": [{ "id": "alice" }],
                },
            }),
        )
        .await;
    let path = format!("/runs/{}/stream?afterSeq=0", launched["runId"].as_str().unwrap());
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = SseClient::open(server.url(&path)).await;
        stream.collect_until("caught_up", DEADLINE).await;
        streams.push(stream);
    }

    let code = server.terminate(Duration::from_secs(5)).await;

    assert_eq!(code, 0);
    assert!(server.log().contains("http.address"));
    for mut stream in streams {
        while let Some(frame) = stream.next(DEADLINE).await {
            assert!(frame.data.is_some());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_of_requests_and_streams_can_be_scraped() {
    let server = ServerProcess::serve().env("RUNTIME_ADDRESS", "127.0.0.1:9").start().await;
    let scrape = || async {
        let answer = reqwest::get(server.url("/metrics")).await.unwrap();
        answer.text().await.unwrap()
    };
    let counted = |text: &String| text.contains("http_requests_total{");
    let text = wait_for(DEADLINE, scrape, counted).await;
    for name in [
        "http_request_duration_seconds_bucket",
        "active_sse_connections{stream=\"run\"} 0",
        "process_cpu",
    ] {
        assert!(text.contains(name), "{name}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn production_logs_one_json_object_a_line_and_development_text() {
    let request_in = async |environment: &str| {
        let server = ServerProcess::serve()
            .env("APP_ENV", environment)
            .env("AUTH_API_KEYS", "secret")
            .env("RUNTIME_ADDRESS", "127.0.0.1:9")
            .env("RUNTIME_ALLOW_INSECURE", "true")
            .start()
            .await;
        let answer = reqwest::Client::new()
            .get(server.url("/runs"))
            .bearer_auth("secret")
            .header("x-request-id", "the-request")
            .send();
        assert_eq!(answer.await.unwrap().status().as_u16(), 200);
        let log = async || server.log();
        let has_line = |log: &String| log.contains("the-request") && log.ends_with('\n');
        wait_for(DEADLINE, log, has_line).await
    };

    let production = request_in("production").await;
    let development = request_in("development").await;

    let lines: Vec<Value> =
        production.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let request = lines.iter().find(|line| line["request.id"] == "the-request").unwrap();
    assert_eq!(request["level"], "INFO");
    assert_eq!(request["http.path"], "/runs");
    assert_eq!(request["http.status_code"], 200);
    assert!(lines.iter().all(|line| line["timestamp"].is_string() && line["message"].is_string()));
    assert!(!production.contains("secret"));
    let line = development.lines().find(|line| line.contains("the-request")).unwrap();
    assert!(serde_json::from_str::<Value>(line).is_err(), "{line}");
}
