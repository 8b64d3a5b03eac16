//! The event stream over a real connection.

use control_plane_domain::EventType;
use control_plane_testkit::sse::{Frame, SseClient};
use serde_json::json;

use crate::support::{Api, DEADLINE, Journal};

const MESSAGE: EventType = EventType::MessageReceived;

fn names(frames: &[Frame]) -> Vec<String> {
    frames
        .iter()
        .map(|frame| match (frame.name(), frame.cursor()) {
            ("canonical_event", Some(seq)) => seq.to_string(),
            (name, _) => name.to_owned(),
        })
        .collect()
}

fn path(api: &Api, journal: &Journal, query: &str) -> String {
    api.at(&format!("/runs/{}/stream{query}", journal.id()))
}

#[tokio::test(flavor = "multi_thread")]
async fn history_comes_first_then_what_happens() {
    let api = Api::start().await;
    let mut journal = Journal::create(&api.store).await;
    journal.append(&[MESSAGE, MESSAGE]).await;
    let mut stream = SseClient::open(path(&api, &journal, "?afterSeq=0")).await;

    let history = stream.collect_until("snapshot", DEADLINE).await;
    journal.append(&[MESSAGE]).await;
    let live = stream.collect_until("snapshot", DEADLINE).await;

    assert_eq!(names(&history), ["1", "2", "3", "caught_up", "snapshot"]);
    assert_eq!(history.last().unwrap().json()["timeline"]["latestSeq"], 3);
    assert_eq!(history.last().unwrap().id, None);
    assert_eq!(names(&live), ["4", "snapshot"]);
    assert_eq!(live.last().unwrap().json()["timeline"]["latestSeq"], 4);
    assert_eq!(stream.status(), 200);
    assert_eq!(stream.header("content-type"), Some("text/event-stream"));
    assert_eq!(stream.header("cache-control"), Some("no-cache, no-store, no-transform"));
    assert_eq!(stream.header("x-accel-buffering"), Some("no"));
    assert_eq!(stream.header("content-encoding"), None);
    assert_eq!(stream.header("x-macp-replay-from"), Some("0"));
    assert_eq!(stream.header("x-macp-latest-seq"), Some("3"));
    assert_eq!(stream.header("x-macp-log-id"), Some(api.store.log_id().await.unwrap().as_str()));
    assert!(stream.retry().is_some() && stream.comments() > 0);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_of_small_and_large_events_comes_whole_before_caught_up() {
    let api = Api::start().await;
    let mut journal = Journal::create(&api.store).await;
    // Large ones are read fewer at a time, also those that are read ahead.
    for _ in 0..3 {
        journal.append(&[MESSAGE; 700]).await;
        journal.append_large(200, 3000).await;
    }
    journal.append(&[MESSAGE; 1500]).await;
    let query = "?afterSeq=0&includeSnapshot=false";
    let mut stream = SseClient::open(path(&api, &journal, query)).await;

    let history = names(&stream.collect_until("caught_up", DEADLINE).await);

    let seqs = (1..=journal.last_seq()).map(|seq| seq.to_string());
    assert!(history.iter().cloned().eq(seqs.chain(["caught_up".to_owned()])), "{history:?}");
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resuming_after_every_event_gives_each_once() {
    let api = Api::start().await;
    let mut journal = Journal::create(&api.store).await;
    journal.append(&[MESSAGE; 8]).await;
    journal.complete().await;
    let mut seen = Vec::new();
    let mut stream =
        SseClient::open(path(&api, &journal, "?afterSeq=0&includeSnapshot=false")).await;
    while stream.status() == 200 {
        let frame = stream.next(DEADLINE).await.unwrap();
        seen.extend(
            Some(&frame).filter(|it| it.name() == "canonical_event").and_then(Frame::cursor),
        );
        stream = stream.reconnect().await;
    }
    assert_eq!(seen, (1..=10).collect::<Vec<_>>());
    assert_eq!(stream.status(), 204);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_connection_gets_the_whole_of_a_finished_run() {
    let api = Api::start().await;
    let mut journal = Journal::create(&api.store).await;
    journal.append(&[EventType::SessionStreamGap]).await;
    journal.complete().await;
    let head = api.store.run_head(journal.id()).await.unwrap();
    let mut stream = SseClient::open(path(&api, &journal, "?afterSeq=0")).await;

    let frames = stream.collect_until("end", DEADLINE).await;

    assert_eq!(names(&frames), ["1", "2", "gap", "3", "caught_up", "snapshot", "end"]);
    assert_eq!(frames[2].json(), json!({ "fromOrdinal": 2, "toOrdinal": 4 }));
    let end = frames.last().unwrap();
    assert_eq!(end.cursor(), Some(3));
    assert_eq!(
        end.json(),
        json!({ "status": "completed", "latestSeq": 3, "totalEvents": 3, "hash": head.hash.to_string() })
    );
    // Parked, not closed: a late event arrives, and the end again.
    journal.append(&[EventType::ArtifactCreated]).await;
    let more = stream.collect_until("end", DEADLINE).await;
    assert_eq!(names(&more), ["4", "snapshot", "end"]);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_asked_to_closes_after_the_end() {
    let api = Api::start().await;
    let mut journal = Journal::create(&api.store).await;
    let mut stream =
        SseClient::open(path(&api, &journal, "?closeOnEnd=true&includeSnapshot=false")).await;
    assert_eq!(names(&stream.collect_until("caught_up", DEADLINE).await), ["caught_up"]);

    journal.complete().await;

    assert_eq!(names(&stream.collect_until("end", DEADLINE).await), ["2", "end"]);
    assert!(stream.next(DEADLINE).await.is_none());
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_does_not_fit_the_log_starts_again() {
    let api = Api::start().await;
    let journal = Journal::create(&api.store).await;
    for (query, reason, requested) in [
        ("?afterSeq=9", "beyond_end", json!(9)),
        ("?afterSeq=1&logId=another", "log_changed", json!(1)),
    ] {
        let mut stream = SseClient::open(path(&api, &journal, query)).await;
        let frames = stream.collect_until("caught_up", DEADLINE).await;
        assert_eq!(names(&frames), ["reset", "1", "caught_up"]);
        assert_eq!(
            frames[0].json(),
            json!({ "reason": reason, "requested": requested, "from": 0 })
        );
        assert_eq!(frames[0].id, None);
    }
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_is_answered_before_the_stream_opens() {
    let api = Api::start().await;
    let journal = Journal::create(&api.store).await;
    for (path, status) in [
        (path(&api, &journal, "?afterSeq=x"), 400),
        (path(&api, &journal, "?heartbeatMs=5"), 400),
        (path(&api, &journal, "?types=nope"), 400),
        (api.at("/runs/6f9619ff-8b86-4d01-b42d-00cf4fc964ff/stream"), 404),
    ] {
        let stream = SseClient::open(path.clone()).await;
        assert_eq!(stream.status(), status, "{path}");
        assert_eq!(stream.header("content-type"), Some("application/json"), "{path}");
    }
    assert_eq!(SseClient::resume(path(&api, &journal, ""), "x").await.status(), 400);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filtered_stream_bookmarks_its_place_by_heartbeat() {
    let api = Api::start().await;
    let mut journal = Journal::create(&api.store).await;
    let query = "?afterSeq=0&includeSnapshot=false&types=proposal.created&heartbeatMs=1000";
    let mut stream = SseClient::open(path(&api, &journal, query)).await;
    journal.append(&[MESSAGE, EventType::ProposalCreated, MESSAGE]).await;

    let frames = stream.collect_until("heartbeat", DEADLINE).await;

    assert!(names(&frames).contains(&"3".to_owned()));
    assert!(!names(&frames).contains(&"2".to_owned()));
    let beat = frames.last().unwrap();
    assert_eq!((beat.cursor(), &beat.json()["latestSeq"]), (Some(4), &json!(4)));
    assert!(beat.json()["ts"].is_string());
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_subscribers_see_the_same_events() {
    let api = Api::start().await;
    let mut journal = Journal::create(&api.store).await;
    let mut streams = Vec::new();
    for _ in 0..200 {
        streams.push(SseClient::open(path(&api, &journal, "?afterSeq=0")).await);
    }
    journal.append(&[MESSAGE; 5]).await;
    journal.complete().await;
    for mut stream in streams {
        let frames = stream.collect_until("end", DEADLINE).await;
        let seqs: Vec<i64> = frames
            .iter()
            .filter(|frame| frame.name() == "canonical_event")
            .filter_map(Frame::cursor)
            .collect();
        assert_eq!(seqs, (1..=7).collect::<Vec<_>>());
    }
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_backlog_arrives_whole() {
    let api = Api::start().await;
    let mut journal = Journal::create(&api.store).await;
    for _ in 0..20 {
        journal.append(&[MESSAGE; 250]).await;
    }
    let mut stream =
        SseClient::open(path(&api, &journal, "?afterSeq=0&includeSnapshot=false")).await;
    let frames = stream.collect_until("caught_up", DEADLINE).await;
    let seqs: Vec<i64> = frames.iter().filter_map(Frame::cursor).collect();
    assert_eq!(seqs.len(), 5002);
    assert!(seqs.is_sorted());
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_between_two_frames_when_the_server_stops() {
    let api = Api::start().await;
    let journal = Journal::create(&api.store).await;
    let mut stream = SseClient::open(path(&api, &journal, "?afterSeq=0")).await;
    stream.collect_until("snapshot", DEADLINE).await;

    let stopping = tokio::time::timeout(DEADLINE, api.stop());

    stopping.await.expect("an open stream held the server up");
    assert!(stream.next(DEADLINE).await.is_none());
}
