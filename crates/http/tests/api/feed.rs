//! The stream of all runs over a real connection.

use control_plane_domain::EventType;
use control_plane_testkit::sse::{Frame, SseClient};
use serde_json::{Value, json};

use crate::support::{Api, DEADLINE, Journal};

const MESSAGE: EventType = EventType::MessageReceived;

fn names(frames: &[Frame]) -> Vec<String> {
    frames
        .iter()
        .map(|frame| match (frame.name(), frame.cursor()) {
            ("canonical_event", Some(position)) => position.to_string(),
            (name, _) => name.to_owned(),
        })
        .collect()
}

/// The data of the events among the frames.
fn events(frames: &[Frame]) -> Vec<Value> {
    frames.iter().filter(|it| it.name() == "canonical_event").map(Frame::json).collect()
}

async fn open(api: &Api, query: &str) -> SseClient {
    SseClient::open(api.at(&format!("/events/stream{query}"))).await
}

/// The rows of a page, and where the next one begins.
async fn page(api: &Api, query: &str) -> (Vec<Value>, Option<i64>) {
    let (status, mut body) = api.get(&format!("/events{query}")).await;
    assert_eq!(status, 200, "{body}");
    let next = body.get("nextCursor").and_then(Value::as_i64);
    let Some(Value::Array(rows)) = body.get_mut("data").map(Value::take) else { panic!("{body}") };
    (rows, next)
}

/// Two runs whose events lie between each other's: positions 1 to 8.
async fn two_runs(api: &Api) -> (Journal, Journal) {
    let mut one = Journal::create_of(&api.store, "Fraud case").await;
    let mut other = Journal::create(&api.store).await;
    one.append(&[MESSAGE, EventType::ProposalCreated]).await;
    other.append(&[MESSAGE, EventType::ProposalCreated]).await;
    one.append(&[MESSAGE]).await;
    other.append(&[MESSAGE]).await;
    (one, other)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_events_of_all_runs_come_by_position_and_then_live() {
    let api = Api::start().await;
    let (mut one, mut other) = two_runs(&api).await;
    let mut stream = open(&api, "?afterSeq=0").await;

    let history = stream.collect_until("caught_up", DEADLINE).await;
    one.complete().await;
    other.append(&[EventType::SessionStreamGap]).await;
    let live = stream.collect_until("gap", DEADLINE).await;

    assert_eq!(names(&history), ["1", "2", "3", "4", "5", "6", "7", "8", "caught_up"]);
    assert_eq!(history.last().unwrap().cursor(), Some(8));
    assert_eq!(history.last().unwrap().json(), json!({ "seq": 8 }));
    assert_eq!(events(&history), page(&api, "?limit=8").await.0);
    // No snapshot, and the end of a run is not that of the stream.
    assert_eq!(names(&live), ["9", "10", "gap"]);
    assert_eq!(live[2].id, None);
    assert_eq!(stream.status(), 200);
    assert_eq!(stream.header("content-type"), Some("text/event-stream"));
    assert_eq!(stream.header("cache-control"), Some("no-cache, no-store, no-transform"));
    assert_eq!(stream.header("x-accel-buffering"), Some("no"));
    assert_eq!(stream.header("x-macp-replay-from"), Some("0"));
    assert_eq!(stream.header("x-macp-latest-seq"), Some("8"));
    assert_eq!(stream.header("x-macp-log-id"), Some(api.store.log_id().await.unwrap().as_str()));
    assert!(stream.retry().is_some() && stream.comments() > 0);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_cursor_only_what_comes_is_sent() {
    let api = Api::start().await;
    let (mut one, _other) = two_runs(&api).await;
    let mut stream = open(&api, "").await;
    let opening = stream.collect_until("caught_up", DEADLINE).await;

    one.append(&[MESSAGE]).await;

    assert_eq!(names(&opening), ["caught_up"]);
    assert_eq!(opening[0].cursor(), Some(8));
    assert_eq!(stream.header("x-macp-replay-from"), Some("8"));
    assert_eq!(stream.next(DEADLINE).await.unwrap().cursor(), Some(9));
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resuming_after_every_event_gives_each_once() {
    let api = Api::start().await;
    let _runs = two_runs(&api).await;
    let url = api.at("/events/stream");
    let mut seen = Vec::new();
    let mut stream = SseClient::open(format!("{url}?afterSeq=0")).await;
    while seen.len() < 8 {
        let frame = stream.next(DEADLINE).await.unwrap();
        assert_eq!(frame.name(), "canonical_event");
        let position = frame.cursor().unwrap();
        seen.push(position);
        // By each of the ways to say it; the header wins over what the URL says.
        stream = match position % 3 {
            0 => SseClient::open(format!("{url}?lastEventId={position}&afterSeq=0")).await,
            1 => SseClient::open(format!("{url}?afterSeq={position}")).await,
            _ => SseClient::resume(format!("{url}?lastEventId=1&afterSeq=0"), position).await,
        };
    }

    assert_eq!(seen, (1..=8).collect::<Vec<_>>());
    assert_eq!(stream.next(DEADLINE).await.unwrap().name(), "caught_up");
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_the_stream_go_on_from_each_others_cursors() {
    let api = Api::start().await;
    let (mut one, _other) = two_runs(&api).await;
    let mut seen = Vec::new();

    let (rows, next) = page(&api, "?limit=3").await;
    seen.extend(rows);
    let mut stream = open(&api, &format!("?afterSeq={}", next.unwrap())).await;
    let frames = [stream.next(DEADLINE).await.unwrap(), stream.next(DEADLINE).await.unwrap()];
    seen.extend(events(&frames));
    let (rows, next) =
        page(&api, &format!("?limit=2&afterSeq={}", stream.last_event_id().unwrap())).await;
    seen.extend(rows);
    let mut stream = SseClient::resume(api.at("/events/stream"), next.unwrap()).await;
    seen.extend(events(&stream.collect_until("caught_up", DEADLINE).await));
    one.append(&[MESSAGE, MESSAGE]).await;
    seen.extend(events(&[stream.next(DEADLINE).await.unwrap()]));
    let (rows, next) = page(&api, &format!("?afterSeq={}", stream.last_event_id().unwrap())).await;
    seen.extend(rows);

    assert_eq!(next, None);
    let (all, _) = page(&api, "").await;
    assert_eq!(seen, all);
    let positions: Vec<_> = all.iter().filter_map(|row| row["position"].as_i64()).collect();
    assert_eq!(positions, (1..=10).collect::<Vec<_>>());
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_choose_by_run_by_scenario_and_by_type() {
    let api = Api::start().await;
    let (one, other) = two_runs(&api).await;
    for (query, expected) in [
        (format!("runId={}", one.id()), vec!["1", "3", "4", "7"]),
        (format!("runId={}", other.session_id()), vec!["2", "5", "6", "8"]),
        ("scenarioRef=fRAUD".to_owned(), vec!["1", "3", "4", "7"]),
        ("scenarioRef=Fraud%25".to_owned(), vec![]),
        ("types=run.created,proposal.created".to_owned(), vec!["1", "2", "4", "6"]),
        (format!("types=proposal.created&scenarioRef=case&runId={}", other.id()), vec![]),
        (format!("types=proposal.created&scenarioRef=case&runId={}", one.id()), vec!["4"]),
    ] {
        let mut stream = open(&api, &format!("?afterSeq=0&{query}")).await;
        let mut frames = stream.collect_until("caught_up", DEADLINE).await;
        let end = frames.pop().unwrap();
        assert_eq!(names(&frames), expected, "{query}");
        assert_eq!(end.cursor(), Some(8), "{query}");
    }
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filtered_stream_bookmarks_its_place_by_heartbeat() {
    let api = Api::start().await;
    let (mut one, _other) = two_runs(&api).await;
    let mut stream = open(&api, "?types=run.failed&heartbeatMs=1000").await;
    stream.collect_until("caught_up", DEADLINE).await;
    one.append(&[MESSAGE, MESSAGE, MESSAGE]).await;

    let mut beat = stream.next(DEADLINE).await.unwrap();
    while beat.cursor() != Some(11) {
        // One that was due before the stream had looked at what came.
        assert!(beat.name() == "heartbeat" && matches!(beat.cursor(), None | Some(8)), "{beat:?}");
        beat = stream.next(DEADLINE).await.unwrap();
    }

    assert_eq!((beat.name(), &beat.json()["latestSeq"]), ("heartbeat", &json!(11)));
    assert!(beat.json()["ts"].is_string());
    let mut resumed = stream.reconnect().await;
    assert_eq!(resumed.header("x-macp-replay-from"), Some("11"));
    assert_eq!(resumed.next(DEADLINE).await.unwrap().cursor(), Some(11));
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_the_log_cannot_serve_is_put_to_its_beginning() {
    let api = Api::start().await;
    let _runs = two_runs(&api).await;
    api.database.tamper("DELETE FROM run_events_canonical WHERE position <= 5").await;
    for (query, reason, requested) in [
        ("?afterSeq=9", "beyond_end", json!(9)),
        ("?afterSeq=2", "expired", json!(2)),
        ("?afterSeq=7&logId=another", "log_changed", json!(7)),
        ("?logId=another", "log_changed", json!(null)),
    ] {
        let mut stream = open(&api, query).await;
        let frames = stream.collect_until("caught_up", DEADLINE).await;
        assert_eq!(names(&frames), ["reset", "6", "7", "8", "caught_up"], "{query}");
        let data = json!({ "reason": reason, "requested": requested, "from": 5 });
        assert_eq!((frames[0].json(), &frames[0].id), (data, &None));
        assert_eq!(stream.header("x-macp-replay-from"), Some("5"));
    }
    let log_id = api.store.log_id().await.unwrap();
    let mut stream = open(&api, &format!("?afterSeq=5&logId={log_id}")).await;
    let frames = stream.collect_until("caught_up", DEADLINE).await;
    assert_eq!(names(&frames), ["6", "7", "8", "caught_up"]);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_is_answered_before_the_stream_opens() {
    let api = Api::with_keys("watcher:read:0123456789abcdef0123456789abcdef").await;
    let key = "0123456789abcdef0123456789abcdef";
    for (query, status) in [
        ("?afterSeq=x", 400),
        ("?lastEventId=-1", 400),
        ("?heartbeatMs=5", 400),
        ("?types=nope", 400),
        ("?scenarioRef=a&scenarioRef=b", 400),
        ("?runId=%00", 400),
        ("?runId=6f9619ff-8b86-4d01-b42d-00cf4fc964ff", 404),
    ] {
        let url = api.at(&format!("/events/stream{query}"));
        let response = api.client.get(url).bearer_auth(key).send().await.unwrap();
        assert_eq!(response.status(), status, "{query}");
        assert_eq!(response.headers()["content-type"], "application/json", "{query}");
    }
    assert_eq!(open(&api, "").await.status(), 401);
    let resumed = api.client.get(api.at("/events/stream")).header("last-event-id", "x");
    assert_eq!(resumed.bearer_auth(key).send().await.unwrap().status(), 400);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_fails_is_told_and_the_stream_goes_on() {
    let api = Api::start().await;
    let (mut one, _other) = two_runs(&api).await;
    let mut stream = open(&api, "?afterSeq=0").await;
    stream.collect_until("caught_up", DEADLINE).await;
    api.database.tamper("ALTER TABLE run_events_canonical RENAME TO away").await;

    let frames = stream.collect_until("stream_error", DEADLINE).await;

    let fault = frames.last().unwrap();
    assert_eq!(fault.json()["errorCode"], "SERVICE_UNAVAILABLE");
    assert_eq!((&fault.json()["retryable"], &fault.id), (&json!(true), &None));
    api.database.tamper("ALTER TABLE away RENAME TO run_events_canonical").await;
    one.append(&[MESSAGE]).await;
    let frames = stream.collect_until("canonical_event", DEADLINE).await;
    assert_eq!(frames.last().unwrap().cursor(), Some(9));
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_watchers_see_the_same_whoever_writes() {
    let api = Api::start().await;
    let mut streams = Vec::new();
    for place in 0..100 {
        let query = if place % 2 == 0 { "?afterSeq=0" } else { "" };
        let mut stream = open(&api, query).await;
        assert_eq!(stream.next(DEADLINE).await.unwrap().name(), "caught_up");
        streams.push(stream);
    }
    let mut writers = Vec::new();
    for _ in 0..4 {
        let store = api.store.clone();
        writers.push(tokio::spawn(async move {
            let mut journal = Journal::create(&store).await;
            for count in 0..10 {
                journal.append(&vec![MESSAGE; count % 4 + 1]).await;
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let end = api.store.feed_end().await.unwrap();
    for stream in &mut streams {
        for expected in 1..=end {
            let frame = stream.next(DEADLINE).await.unwrap();
            assert_eq!((frame.name(), frame.cursor()), ("canonical_event", Some(expected)));
        }
    }
    api.stop().await;
}
