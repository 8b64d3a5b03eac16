//! Watchers that are slow, come back, or watch what goes wrong.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use control_plane_domain::{Clock, EventType, SystemClock};
use control_plane_http::Settings;
use control_plane_storage::TailLimits;
use control_plane_storage::model::Deleted;
use control_plane_testkit::database::TestDb;
use control_plane_testkit::sse::{Frame, Parser, SseClient};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::support::{Api, DEADLINE, Journal, Setup};

const MESSAGE: EventType = EventType::MessageReceived;

fn path(api: &Api, journal: &Journal, query: &str) -> String {
    api.at(&format!("/runs/{}/stream{query}", journal.id()))
}

fn event_ids(frames: &[Frame]) -> Vec<i64> {
    let events = frames.iter().filter(|frame| frame.name() == "canonical_event");
    events.filter_map(Frame::cursor).collect()
}

/// How many frames of each name there are.
fn count(frames: &[Frame]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for frame in frames {
        *counts.entry(frame.name()).or_default() += 1;
    }
    counts
}

/// Opens a stream on a socket with hardly any room, and reads its first bytes only. HTTP/1.0: what
/// follows the head is the stream itself.
async fn stall(api: &Api, journal: &Journal) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let address = api.url.trim_start_matches("http://").parse().unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    let target = format!("/runs/{}/stream?afterSeq=0&includeSnapshot=false", journal.id());
    let request = format!("GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains("event: caught_up\nid: 1\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).await.unwrap();
        read.extend(byte);
    }
    stream
}

/// Reads what a stalled client has not read, up to the run's end.
async fn catch_up(mut stream: TcpStream) -> Vec<Frame> {
    let mut parser = Parser::default();
    let mut frames: Vec<Frame> = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    while !frames.iter().any(|frame| frame.name() == "end") {
        let read = timeout(DEADLINE, stream.read(&mut buffer)).await.unwrap().unwrap();
        assert_ne!(read, 0, "it ended after {:?}", count(&frames));
        frames.extend(parser.push(buffer.get(..read).unwrap()));
    }
    frames
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_read_hold_up_nobody_and_lose_nothing() {
    const EVENTS: usize = 300;
    let tail = TailLimits { events: 16, ..TailLimits::default() };
    let api = Api::set(Setup { tail, ..Setup::default() }).await;
    let mut journal = Journal::create(&api.store).await;
    let mut stalled = Vec::new();
    for _ in 0..4 {
        stalled.push(stall(&api, &journal).await);
    }
    let healthy = path(&api, &journal, "?afterSeq=0&includeSnapshot=false");
    let mut healthy = SseClient::open(healthy).await;
    healthy.collect_until("caught_up", DEADLINE).await;

    // More than any socket takes; each event is seen before the next one is written.
    for _ in 0..EVENTS {
        journal.append_large(1, 48 * 1024).await;
        let frames = healthy.collect_until("canonical_event", DEADLINE).await;
        assert_eq!(event_ids(&frames), [journal.last_seq()]);
    }
    journal.complete().await;
    let last = journal.last_seq();
    assert_eq!(event_ids(&healthy.collect_until("end", DEADLINE).await), [last]);

    for client in stalled {
        let frames = catch_up(client).await;
        assert_eq!(event_ids(&frames), (2..=last).collect::<Vec<_>>());
        let counts = count(&frames);
        assert_eq!((counts["lagged"], counts["end"]), (1, 1), "{counts:?}");
        assert!(!counts.contains_key("caught_up"), "that was before");
        let lagged = frames.iter().position(|frame| frame.name() == "lagged").unwrap();
        let (before, after) = frames.split_at(lagged);
        assert_eq!(after[0].id, None);
        assert_eq!(after[0].json()["from"], json!(event_ids(before).last()));
        assert!(after[0].json()["latestSeq"].as_i64() > after[0].json()["from"].as_i64());
    }
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_open_for_long_ends_after_a_frame_and_is_resumed() {
    let settings = Settings { stream_max_age: Duration::from_secs(1), ..Settings::default() };
    let api = Api::set(Setup { settings, ..Setup::default() }).await;
    let mut journal = Journal::create(&api.store).await;
    let mut stream = SseClient::open(path(&api, &journal, "?afterSeq=0")).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        journal.append(&[MESSAGE, MESSAGE]).await;
        let mut frames = Vec::new();
        while let Some(frame) = stream.next(DEADLINE).await {
            frames.push(frame);
        }
        ids.extend(event_ids(&frames));
        assert_eq!(count(&frames)["caught_up"], 1);
        let retry = stream.retry().unwrap();
        assert!((1000..2000).contains(&retry), "{retry}");
        stream = stream.reconnect().await;
        assert_eq!(stream.status(), 200);
    }
    journal.complete().await;
    let rest = stream.collect_until("end", DEADLINE).await;

    ids.extend(event_ids(&rest));
    assert_eq!(ids, (1..=journal.last_seq()).collect::<Vec<_>>());
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_of_a_run_that_is_deleted_are_told_and_let_go() {
    let api = Api::start().await;
    let mut journal = Journal::create(&api.store).await;
    journal.complete().await;
    let mut watchers = Vec::new();
    for query in ["?afterSeq=0", "?afterSeq=0&includeSnapshot=false", ""] {
        let mut watcher = SseClient::open(path(&api, &journal, query)).await;
        watcher.collect_until("end", DEADLINE).await;
        watchers.push(watcher);
    }

    let deleted = api.store.run_delete(journal.id(), SystemClock.now()).await.unwrap();

    assert_eq!(deleted, Deleted::Done);
    for mut watcher in watchers {
        let told = watcher.collect_until("stream_error", DEADLINE).await.pop().unwrap();
        assert_eq!(told.id, None);
        assert_eq!(told.json()["errorCode"], "RUN_DELETED");
        assert_eq!(told.json()["retryable"], false);
        assert!(watcher.next(DEADLINE).await.is_none());
        assert_eq!(watcher.reconnect().await.status(), 404);
    }
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_fault_is_told_and_the_stream_goes_on_after_it() {
    let database = Arc::new(TestDb::postgres());
    let api = Api::set(Setup { database: Arc::clone(&database), ..Setup::default() }).await;
    let mut journal = Journal::create(&api.store).await;
    journal.append(&[MESSAGE; 5]).await;
    database.tamper("ALTER TABLE run_events_canonical RENAME TO hidden").await;
    let mut stream = SseClient::open(path(&api, &journal, "?afterSeq=0")).await;

    let told = stream.collect_until("stream_error", DEADLINE).await.pop().unwrap();
    database.tamper("ALTER TABLE hidden RENAME TO run_events_canonical").await;
    let frames = stream.collect_until("snapshot", DEADLINE).await;

    assert_eq!(told.id, None);
    assert_eq!(told.json()["errorCode"], "SERVICE_UNAVAILABLE");
    assert_eq!(told.json()["retryable"], true);
    assert_eq!(event_ids(&frames), (1..=6).collect::<Vec<_>>());
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_may_read_from_where_it_is_served() {
    let api = Api::start().await;
    let journal = Journal::create(&api.store).await;
    let request = api.client.get(path(&api, &journal, "?afterSeq=0"));

    let answer = request.header("origin", "http://localhost:3000").send().await.unwrap();

    let exposed = answer.headers()["access-control-expose-headers"].to_str().unwrap();
    for name in ["X-MACP-Replay-From", "X-MACP-Latest-Seq", "X-MACP-Log-Id"] {
        assert!(exposed.contains(name), "{exposed}");
        assert!(answer.headers().contains_key(name), "{name}");
    }
    drop(answer);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_a_cursor_has_one_once_it_is_caught_up() {
    let api = Api::start().await;
    let mut journal = Journal::create(&api.store).await;
    journal.append(&[MESSAGE; 3]).await;
    let mut stream = SseClient::open(path(&api, &journal, "")).await;
    let frames = stream.collect_until("snapshot", DEADLINE).await;
    assert_eq!(frames.iter().map(Frame::name).collect::<Vec<_>>(), ["caught_up", "snapshot"]);

    journal.append(&[MESSAGE]).await;
    stream.collect_until("canonical_event", DEADLINE).await;
    let resumed = path(&api, &journal, "?includeSnapshot=false");
    let mut stream = SseClient::resume(resumed, frames[0].id.as_deref().unwrap()).await;

    assert_eq!(event_ids(&stream.collect_until("caught_up", DEADLINE).await), [5]);
    api.stop().await;
}
