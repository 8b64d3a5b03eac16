//! Tickets across the death of a process, and that nothing tells them on.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "clippy takes only functions with `#[test]` for tests, not what they call"
)]

mod support;

use std::collections::BTreeSet;

use control_plane_storage::Ticket;
use control_plane_testkit::database::Kind;
use control_plane_testkit::runtime::{Durability, Options, RuntimeProcess};
use control_plane_testkit::sse::{Frame, SseClient};
use control_plane_testkit::{DEADLINE, message, wait_for};
use serde_json::json;
use sha2::{Digest, Sha256};
use support::{EXIT, Stage, Talk};

async fn ticket(stage: &Stage, id: impl ToString) -> String {
    let (status, made) =
        stage.server.post("/stream-tickets", &json!({ "runId": id.to_string() })).await;
    assert_eq!(status, 201, "{made}");
    made["ticket"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_survives_a_kill_in_the_middle_of_its_stream() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::start(Options::new(Durability::KeepsHistory)).await;
        let cast = runtime.cast().await;
        let mut stage = Stage::set(kind, &runtime).await;
        let mut talk = Talk::open(&cast).await;
        let run = stage.post(&talk.session, message::DECISION).await;
        let ticket = ticket(&stage, &talk.session).await;
        let url = stage.server.url(&format!("/runs/{run}/stream?afterSeq=0&ticket={ticket}"));
        let mut watcher = SseClient::open(url.clone()).await;
        let before = watcher.collect_until("caught_up", DEADLINE).await;
        // An open stream leaves time for the server to come back, and for its client as well.
        let hash = Sha256::digest(&ticket).into();
        let extended = |found: &Option<Ticket>| {
            let Some(Ticket { made_at, expires_at, .. }) = found else { return false };
            (*expires_at - *made_at).num_seconds() >= 120
        };
        let stored = async || stage.store.ticket_find(hash).await.unwrap();
        wait_for(DEADLINE, stored, extended).await;

        stage.server.kill();
        talk.end(&cast).await;
        stage.server.restart().await;
        let last = watcher.last_event_id().unwrap().to_owned();
        let mut watcher = SseClient::resume(url, last).await;
        let after = watcher.collect_until("end", DEADLINE).await;

        let events = before.iter().chain(&after).filter(|it| it.name() == "canonical_event");
        let ids: Vec<i64> = events.filter_map(Frame::cursor).collect();
        assert_eq!(ids, (1..=ids.len() as i64).collect::<Vec<_>>());
        stage.is_whole(run, &talk.accepted).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_log_and_no_figure_shows_a_ticket() {
    let runtime = RuntimeProcess::in_memory().await;
    let mut stage = Stage::with(Kind::Postgres, &runtime, &[("LOG_LEVEL", "trace")]).await;
    let session = control_plane_domain::SessionId::random();
    let run = stage.post(&session, message::DECISION).await;
    let good = ticket(&stage, run).await;
    let mut statuses = BTreeSet::new();
    for secret in [good.as_str(), "not-a-ticket-of-ours"] {
        for path in [
            format!("/runs/{run}/stream?ticket={secret}"),
            format!("/runs/{run}/stream?afterSeq=x&ticket={secret}"),
            format!("/runs/{run}/stream?%zz&ticket={secret}"),
            format!("/runs/{run}?ticket={secret}"),
            format!("/runs/{}/stream?ticket={secret}", control_plane_domain::RunId::random()),
            format!("/nowhere?ticket={secret}"),
            format!("/runs/{run}/stream?ticket={secret}&ticket= x"),
        ] {
            let answer = reqwest::get(stage.server.url(&path)).await.unwrap();
            statuses.insert(answer.status().as_u16());
            if answer.status() != 200 {
                let text = answer.text().await.unwrap();
                assert!(!text.contains(secret), "{text}");
            }
        }
    }
    let figures = reqwest::get(stage.server.url("/metrics")).await.unwrap().text().await.unwrap();

    assert_eq!(stage.server.terminate(EXIT).await, 0);

    assert_eq!(statuses, BTreeSet::from([200, 400, 401, 404]));
    let log = stage.server.log();
    assert!(log.contains(&format!("GET /runs/{run}/stream 401")), "{log}");
    for secret in [good.as_str(), "not-a-ticket-of-ours"] {
        assert!(!figures.contains(secret), "{figures}");
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None);
    }
}
