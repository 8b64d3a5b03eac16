//! Recorded runs, replayed by the server as its users see it.

#![expect(
    clippy::unwrap_used,
    reason = "clippy takes only functions with `#[test]` for tests, not what they call"
)]

mod support;

use std::collections::BTreeMap;

use control_plane_testkit::DEADLINE;
use control_plane_testkit::database::Kind;
use control_plane_testkit::message;
use control_plane_testkit::runtime::RuntimeProcess;
use control_plane_testkit::sse::{Frame, SseClient};
use serde_json::{Value, json};
use support::{Stage, Talk};
use tokio::time::timeout;

/// The frames until the stream closes by itself.
async fn whole(mut stream: SseClient) -> Vec<Frame> {
    let mut frames = Vec::new();
    let reading = async {
        while let Some(frame) = stream.next(DEADLINE).await {
            frames.push(frame);
        }
    };
    // A replay that never ends would go on with heartbeats.
    timeout(DEADLINE, reading).await.unwrap();
    frames
}

fn events(frames: &[Frame]) -> Vec<(Option<String>, Value)> {
    let events = frames.iter().filter(|frame| frame.name() == "canonical_event");
    events.map(|frame| (frame.id.clone(), frame.json())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recorded_decision_is_replayed_as_it_was_seen_live() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let stage = Stage::set(kind, &runtime).await;
        let mut talk = Talk::open(&cast).await;
        let run = stage.post(&talk.session, message::DECISION).await;
        let mut watcher =
            SseClient::open(stage.server.url(&format!("/runs/{run}/stream?afterSeq=0"))).await;
        let mut live = watcher.collect_until("snapshot", DEADLINE).await;
        for _ in 0..4 {
            talk.evaluate(&cast).await;
            live.extend(watcher.collect_until("snapshot", DEADLINE).await);
        }
        talk.end(&cast).await;
        live.extend(watcher.collect_until("end", DEADLINE).await);
        let mut states: BTreeMap<i64, Value> = BTreeMap::new();
        for snapshot in live.iter().filter(|frame| frame.name() == "snapshot") {
            let state = snapshot.json();
            states.insert(state["timeline"]["latestSeq"].as_i64().unwrap(), state);
        }

        let (status, replay) =
            stage.server.post(&format!("/runs/{run}/replay"), &json!({ "speed": 1000 })).await;
        let stream = stage.server.url(replay["streamUrl"].as_str().unwrap());
        let replayed = whole(SseClient::open(stream.clone()).await).await;

        assert_eq!(status, 201);
        assert_eq!(events(&replayed), events(&live), "{kind:?}");
        let (end, live_end) = (replayed.last().unwrap(), live.last().unwrap());
        assert_eq!((end.name(), &end.id, end.json()), ("end", &live_end.id, live_end.json()));
        let last = end.cursor().unwrap();
        for cursor in 0..last {
            let rest = whole(SseClient::resume(stream.clone(), cursor).await).await;
            let from = usize::try_from(cursor).unwrap();
            assert_eq!(events(&rest), events(&live)[from..], "after {cursor}, {kind:?}");
        }
        assert_eq!(SseClient::resume(stream, last).await.status(), 204);
        assert!(states.len() > 2, "it was looked at while it went on");
        for (seq, state) in states {
            let url = format!("{}?seq={seq}", replay["stateUrl"].as_str().unwrap());
            assert_eq!(stage.server.get(&url).await, (200, state), "at {seq}, {kind:?}");
        }
    }
}
