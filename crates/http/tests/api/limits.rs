//! How many streams may be open, and that what a client held is free when it is gone.

use std::cell::RefCell;
use std::io::Read;
use std::net::Shutdown;
use std::time::Duration;

use control_plane_domain::EventType;
use control_plane_http::Settings;
use control_plane_testkit::sse::SseClient;
use control_plane_testkit::wait_until;

use crate::raw;
use crate::support::{Api, DEADLINE, Journal, Setup, read};

/// How long the server may take to stop.
const STOP: Duration = Duration::from_secs(5);

async fn with_places(all: usize, per_key: usize, keys: &str) -> Api {
    let settings =
        Settings { max_streams: all, max_streams_per_key: per_key, ..Settings::default() };
    Api::set(Setup { keys: keys.to_owned(), settings, ..Setup::default() }).await
}

/// Waits until one more stream may be open, and opens it.
async fn open_when_there_is_room(url: &str) -> SseClient {
    let opened = RefCell::new(None);
    wait_until(DEADLINE, async || {
        let stream = SseClient::open(url).await;
        let open = stream.status() == 200;
        opened.replace(Some(stream));
        open
    })
    .await;
    opened.into_inner().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_has_enough_streams_is_told_to_come_back_later() {
    let api = with_places(10, 2, "a:read:alpha,b:read:beta").await;
    let journal = Journal::create(&api.store).await;
    let url = api.at(&format!("/runs/{}/stream", journal.id()));
    let _first = SseClient::open_with_key(url.clone(), "alpha").await;
    let second = SseClient::open_with_key(url.clone(), "alpha").await;

    let refused = api.client.get(&url).bearer_auth("alpha").send().await.unwrap();

    let wait: u32 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((5..=10).contains(&wait), "{wait}");
    let (status, body) = read(refused).await;
    assert_eq!((status, body["errorCode"].as_str()), (429, Some("RATE_LIMITED")), "{body}");
    assert_eq!(SseClient::open_with_key(url.clone(), "beta").await.status(), 200);
    // Its tickets are no way around it.
    let asked = api.client.post(api.at("/stream-tickets")).bearer_auth("alpha");
    let asked = asked.json(&serde_json::json!({ "runId": journal.id().to_string() }));
    let (_, made) = read(asked.send().await.unwrap()).await;
    let with_ticket = format!("{url}?ticket={}", made["ticket"].as_str().unwrap());
    assert_eq!(SseClient::open(&with_ticket).await.status(), 429);
    drop(second);
    open_when_there_is_room(&with_ticket).await;
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_enough_streams_refuses_every_key() {
    let api = with_places(1, 10, "a:read:alpha,b:read:beta").await;
    let journal = Journal::create(&api.store).await;
    let url = api.at(&format!("/runs/{}/stream", journal.id()));
    let _open = SseClient::open_with_key(url.clone(), "alpha").await;

    let refused = SseClient::open_with_key(url.clone(), "beta").await;

    assert_eq!(refused.status(), 429);
    assert_eq!(refused.header("content-type"), Some("application/json"));
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_stream_needs_no_place() {
    let api = with_places(1, 1, "").await;
    let mut journal = Journal::create(&api.store).await;
    journal.complete().await;
    let path = format!("/runs/{}/stream", journal.id());
    let _open = SseClient::open(api.at(&path)).await;

    assert_eq!(SseClient::open(api.at(&path)).await.status(), 429);
    assert_eq!(SseClient::resume(api.at(&path), 2).await.status(), 204);
    assert_eq!(api.get(&format!("{path}?afterSeq=x")).await.0, 400);
    let unknown = "/runs/6f9619ff-8b86-4d01-b42d-00cf4fc964ff/stream";
    assert_eq!(api.get(unknown).await.0, 404);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_gone_is_noticed_without_a_heartbeat() {
    let ways: [fn(std::net::TcpStream); 3] =
        [drop, raw::reset, |stream| stream.shutdown(Shutdown::Write).unwrap()];
    for go in ways {
        let api = with_places(1, 1, "").await;
        let journal = Journal::create(&api.store).await;
        let path = format!("/runs/{}/stream?heartbeatMs=45000", journal.id());
        let mut client = raw::open(&api, &path);
        client.read_exact(&mut [0; 64]).unwrap();
        assert_eq!(SseClient::open(api.at(&path)).await.status(), 429);

        go(client);

        open_when_there_is_room(&api.at(&path)).await;
        api.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_does_not_hold_up_the_stop() {
    let api = Api::start().await;
    let mut journal = Journal::create(&api.store).await;
    journal.append_large(200, 64 * 1024).await;
    let mut stalled = raw::open(&api, &format!("/runs/{}/stream?afterSeq=0", journal.id()));
    stalled.read_exact(&mut [0; 64]).unwrap();

    let stopped = tokio::time::timeout(STOP, api.stop()).await;

    stopped.expect("it waited for a client that takes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_is_closed_and_hinders_nobody() {
    let stall_timeout = Duration::from_secs(1);
    let settings = Settings { max_streams: 2, stall_timeout, ..Settings::default() };
    let api = Api::set(Setup { settings, ..Setup::default() }).await;
    let mut journal = Journal::create(&api.store).await;
    // More than the system keeps for a socket.
    journal.append_large(200, 64 * 1024).await;
    let path = format!("/runs/{}/stream?includeSnapshot=false&afterSeq=0", journal.id());
    let mut stalled = raw::open(&api, &path);
    stalled.read_exact(&mut [0; 64]).unwrap();
    let mut reader = SseClient::open(api.at(&path)).await;
    reader.collect_until("caught_up", DEADLINE).await;

    open_when_there_is_room(&api.at(&path)).await;

    journal.append(&[EventType::MessageReceived]).await;
    let live = reader.collect_until("canonical_event", DEADLINE).await;
    assert_eq!(live.last().unwrap().cursor(), Some(202));
    let mut rest = Vec::new();
    let ended = tokio::task::spawn_blocking(move || {
        stalled.set_read_timeout(Some(DEADLINE)).unwrap();
        stalled.read_to_end(&mut rest).map_err(|error| error.kind())
    });
    assert_eq!(ended.await.unwrap(), Err(std::io::ErrorKind::ConnectionReset));
    api.stop().await;
}
