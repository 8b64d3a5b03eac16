//! The server as its users see it: watched live, resumed across a kill, stopped under load.

#![expect(
    clippy::unwrap_used,
    reason = "clippy takes only functions with `#[test]` for tests, not what they call"
)]

mod support;

use control_plane_domain::SessionId;
use control_plane_testkit::database::Kind;
use control_plane_testkit::message;
use control_plane_testkit::process::ServerProcess;
use control_plane_testkit::runtime::{Durability, Options, RuntimeProcess};
use control_plane_testkit::sse::{Frame, SseClient};
use control_plane_testkit::{DEADLINE, play};
use support::{EXIT, Stage, Talk};

fn event_ids(frames: &[Frame]) -> Vec<i64> {
    let events = frames.iter().filter(|frame| frame.name() == "canonical_event");
    events.map(|frame| frame.cursor().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_sees_a_decision_from_its_first_event_to_its_last() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let stage = Stage::set(kind, &runtime).await;
        let session = SessionId::random();
        let run = stage.post(&session, message::DECISION).await;
        let url = stage.server.url(&format!("/runs/{session}/stream?afterSeq=0"));
        let mut watcher = SseClient::open(url).await;

        let accepted = play::decision(&cast, &session).await;
        let frames = watcher.collect_until("end", DEADLINE).await;

        let ids = event_ids(&frames);
        let end = frames.last().unwrap().json();
        assert_eq!(ids, (1..=end["latestSeq"].as_i64().unwrap()).collect::<Vec<_>>());
        assert_eq!(end["status"], "completed");
        let received = frames.iter().filter(|frame| {
            frame.name() == "canonical_event" && frame.json()["type"] == "message.received"
        });
        assert_eq!(received.count(), accepted.len());
        let names: Vec<&str> = frames.iter().map(Frame::name).collect();
        let caught_up = names.iter().position(|name| *name == "caught_up");
        let snapshot = names.iter().position(|name| *name == "snapshot");
        assert!(caught_up.is_some() && caught_up < snapshot, "{names:?}");
        stage.is_whole(run, &accepted).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_resumes_across_kills_gets_every_event_once() {
    let runtime = RuntimeProcess::start(Options::new(Durability::KeepsHistory)).await;
    let cast = runtime.cast().await;
    let mut stage = Stage::set(Kind::Sqlite, &runtime).await;
    let mut talk = Talk::open(&cast).await;
    let run = stage.post(&talk.session, message::DECISION).await;
    let url = stage.server.url(&format!("/runs/{run}/stream?afterSeq=0"));
    let mut watcher = SseClient::open(url.clone()).await;
    let mut ids = Vec::new();

    for _ in 0..5 {
        talk.evaluate(&cast).await;
        // One event at least, and perhaps more, before the server dies.
        while event_ids(&[watcher.next(DEADLINE).await.expect("a frame")]).is_empty() {}
        let last = watcher.last_event_id().unwrap().to_owned();
        let seen: i64 = last.parse().unwrap();
        let next: i64 = ids.last().copied().unwrap_or_default() + 1;
        ids.extend(next..=seen);
        stage.server.kill();
        stage.server.restart().await;
        watcher = SseClient::resume(url.clone(), last).await;
        assert_eq!(watcher.header("x-macp-replay-from"), Some(seen.to_string().as_str()));
    }
    talk.end(&cast).await;
    let frames = watcher.collect_until("end", DEADLINE).await;

    ids.extend(event_ids(&frames));
    let latest = frames.last().unwrap().json()["latestSeq"].as_i64().unwrap();
    assert_eq!(ids, (1..=latest).collect::<Vec<_>>());
    stage.is_whole(run, &talk.accepted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_stops_in_time_and_cleanly_under_load() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let mut stage = Stage::set(kind, &runtime).await;
        let mut talk = Talk::open(&cast).await;
        let run = stage.post(&talk.session, message::DECISION).await;
        let mut watchers = Vec::new();
        for _ in 0..50 {
            let url = stage.server.url(&format!("/runs/{run}/stream?afterSeq=0"));
            watchers.push(SseClient::open(url).await);
        }

        let talking = async {
            for _ in 0..50 {
                talk.evaluate(&cast).await;
            }
        };
        let (code, ()) = tokio::join!(stage.server.terminate(EXIT), talking);

        assert_eq!(code, 0);
        for mut watcher in watchers {
            // Every stream ends at a frame's end: what is parsed is whole.
            while watcher.next(DEADLINE).await.is_some() {}
        }
        stage.server.restart().await;
        talk.end(&cast).await;
        stage.reaches(run, "completed").await;
        stage.is_whole(run, &talk.accepted).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_on_the_same_sqlite_file_is_refused_by_name() {
    let runtime = RuntimeProcess::in_memory().await;
    let stage = Stage::set(Kind::Sqlite, &runtime).await;

    let mut second = ServerProcess::serve()
        .env("DATABASE_URL", &stage.url)
        .env("RUNTIME_ADDRESS", runtime.address())
        .env("RUNTIME_ALLOW_INSECURE", "true")
        .spawn();

    let code = second.ended(DEADLINE).await;
    assert_ne!(code, 0);
    assert!(second.log().contains("another process has the database"), "{}", second.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_the_configuration_is_told_at_once() {
    let mut server = ServerProcess::serve()
        .env("DATABASE_URL", "mysql://nowhere")
        .env("STREAM_IDLE_TIMEOUT_MS", "soon")
        .env("RUN_RECOVERY_ENABLED", "perhaps")
        .spawn();

    let code = server.ended(DEADLINE).await;

    assert_ne!(code, 0);
    for name in ["DATABASE_URL", "STREAM_IDLE_TIMEOUT_MS", "RUN_RECOVERY_ENABLED"] {
        assert!(server.log().contains(name), "{name} in {}", server.log());
    }
}
