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

/// A client on a socket with hardly any room.
struct Slow {
    socket: TcpStream,
    /// What was read of the body, less the chunks that were taken off.
    raw: Vec<u8>,
}

impl Slow {
    /// Opens a stream and reads it only until it is caught up.
    async fn open(api: &Api, journal: &Journal) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let address = api.url.trim_start_matches("http://").parse().unwrap();
        let mut socket = socket.connect(address).await.unwrap();
        let target = format!("/runs/{}/stream?afterSeq=0&includeSnapshot=false", journal.id());
        let head = "Host: localhost\r\nConnection: close";
        let request = format!("GET {target} HTTP/1.1\r\n{head}\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut raw = Vec::new();
        while !String::from_utf8_lossy(&raw).contains("event: caught_up\nid: 1\n") {
            raw.push(socket.read_u8().await.unwrap());
        }
        let body = raw.windows(4).position(|it| it == b"\r\n\r\n").unwrap() + 4;
        Self { socket, raw: raw.split_off(body) }
    }

    /// The whole chunks (RFC 9112, section 7.1) among what was read.
    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        while let Some(line) = self.raw.windows(2).position(|it| it == b"\r\n") {
            let size = String::from_utf8_lossy(&self.raw[..line]).into_owned();
            let (start, size) = (line + 2, usize::from_str_radix(&size, 16).unwrap());
            let Some(chunk) = self.raw.get(start..start + size) else { break };
            if self.raw.len() < start + size + 2 {
                break;
            }
            body.extend(chunk);
            self.raw.drain(..start + size + 2);
        }
        body
    }

    /// Reads everything that it has not read, up to the run's end; all frames from the first on.
    async fn catch_up(mut self) -> Vec<Frame> {
        let mut parser = Parser::default();
        let mut frames: Vec<Frame> = Vec::new();
        while !frames.iter().any(|frame| frame.name() == "end") {
            let read = timeout(DEADLINE, self.socket.read_buf(&mut self.raw)).await;
            assert_ne!(read.unwrap().unwrap(), 0, "it ended after {:?}", count(&frames));
            frames.extend(parser.push(&self.chunks()));
        }
        frames
    }

    /// Reads everything that comes until the server closes; the whole body.
    async fn read_to_end(mut self) -> Vec<u8> {
        timeout(DEADLINE, self.socket.read_to_end(&mut self.raw)).await.unwrap().unwrap();
        self.chunks()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_read_hold_up_nobody_and_lose_nothing() {
    const EVENTS: usize = 300;
    let tail = TailLimits { events: 16, ..TailLimits::default() };
    let api = Api::set(Setup { tail, ..Setup::default() }).await;
    let mut journal = Journal::create(&api.store).await;
    let mut stalled = Vec::new();
    for _ in 0..4 {
        stalled.push(Slow::open(&api, &journal).await);
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
        let frames = client.catch_up().await;
        assert_eq!(event_ids(&frames), (1..=last).collect::<Vec<_>>());
        let counts = count(&frames);
        let once = (counts["caught_up"], counts["lagged"], counts["end"]);
        assert_eq!(once, (1, 1, 1), "{counts:?}");
        let lagged = frames.iter().position(|frame| frame.name() == "lagged").unwrap();
        let (before, after) = frames.split_at(lagged);
        assert_eq!(after[0].id, None);
        assert_eq!(after[0].json()["from"], json!(event_ids(before).last()));
        assert!(after[0].json()["latestSeq"].as_i64() > after[0].json()["from"].as_i64());
    }
    api.stop().await;
}

/// What is handed to a socket at once is less than a frame.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_stops_in_the_middle_of_a_large_frame_ends_after_it() {
    let api = Api::start().await;
    let mut journal = Journal::create(&api.store).await;
    let client = Slow::open(&api, &journal).await;
    // More than any socket takes.
    for _ in 0..300 {
        journal.append_large(1, 48 * 1024).await;
    }

    api.streams.cancel();
    let body = client.read_to_end().await;

    assert!(body.ends_with(b"\n\n"), "half a frame is the last");
    let frames = Parser::default().push(&body);
    let ids = event_ids(&frames);
    assert!((1..300).contains(&ids.len()), "it was stopped on the way, not at {}", ids.len());
    for frame in frames.iter().filter(|frame| frame.name() == "canonical_event") {
        assert_eq!(frame.json()["seq"].as_i64(), frame.cursor());
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
