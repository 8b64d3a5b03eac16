//! Tickets: what opens a run's streams for clients that cannot send headers, and for how long.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use control_plane_domain::clock::ManualClock;
use control_plane_domain::{Clock, EventType, Timestamp, time};
use control_plane_http::Settings;
use control_plane_storage::TicketHash;
use control_plane_testkit::database::TestDb;
use control_plane_testkit::sse::SseClient;
use control_plane_testkit::{wait_for, wait_until};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{Api, DEADLINE, Journal, Setup, read};

const MINUTE: i64 = 60_000;
/// How often tickets are extended here.
const RENEWAL: Duration = Duration::from_millis(20);

/// A server whose clock stands still, and the clock.
async fn with_clock(database: TestDb) -> (Api, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at_unix_ms(1_795_000_000_000));
    let settings =
        Settings { ticket_renewal: RENEWAL, max_streams_per_key: 1, ..Settings::default() };
    let database = Arc::new(database);
    let keys = "ui:read:alpha,probe:read:beta".to_owned();
    let api =
        Api::set(Setup { database, keys, settings, clock: clock.clone(), ..Setup::default() })
            .await;
    (api, clock)
}

async fn ask(api: &Api, key: &str, body: &Value) -> (u16, Value) {
    let request = api.client.post(api.at("/stream-tickets")).bearer_auth(key).json(body);
    read(request.send().await.unwrap()).await
}

async fn ticket(api: &Api, key: &str, id: impl ToString) -> String {
    let (status, body) = ask(api, key, &json!({ "runId": id.to_string() })).await;
    assert_eq!(status, 201, "{body}");
    body["ticket"].as_str().unwrap().to_owned()
}

async fn open(api: &Api, id: impl ToString, ticket: &str) -> SseClient {
    let query = format!("afterSeq=0&includeSnapshot=false&ticket={ticket}");
    SseClient::open(api.at(&format!("/runs/{}/stream?{query}", id.to_string()))).await
}

/// The status and the sentence of a stream that is refused.
async fn refusal(api: &Api, path: &str) -> (u16, String) {
    let answer = api.client.get(api.at(path)).send().await.unwrap();
    // A stream has no end to wait for.
    assert_ne!(answer.status(), 200, "{path}");
    let (status, body) = read(answer).await;
    (status, body["message"].as_str().unwrap_or_default().to_owned())
}

async fn expiry(api: &Api, ticket: &str) -> Timestamp {
    let hash: TicketHash = Sha256::digest(ticket).into();
    api.store.ticket_find(hash).await.unwrap().unwrap().expires_at
}

/// Waits until the ticket's life ends this long from now, give or take how often it is extended.
async fn is_extended(api: &Api, clock: &ManualClock, ticket: &str, ms: i64) {
    let until = clock.now() + chrono::TimeDelta::milliseconds(ms);
    let margin = chrono::TimeDelta::from_std(RENEWAL).unwrap();
    wait_for(DEADLINE, || expiry(api, ticket), |at| (until..=until + margin).contains(at)).await;
}

/// Waits until the one place of the key is free: the server has noticed that a stream is gone.
async fn is_closed(api: &Api, journal: &Journal) {
    let url = api.at(&format!("/runs/{}/stream", journal.id()));
    wait_until(DEADLINE, async || {
        SseClient::open_with_key(url.clone(), "alpha").await.status() == 200
    })
    .await;
}

/// Opens a stream as soon as the one place of the key is free.
async fn open_again(api: &Api, journal: &Journal, ticket: &str) -> SseClient {
    let opened = RefCell::new(None);
    wait_until(DEADLINE, async || {
        let stream = open(api, journal.id(), ticket).await;
        let refused = stream.status() == 429;
        opened.replace(Some(stream));
        !refused
    })
    .await;
    opened.into_inner().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_opens_the_stream_of_its_run_by_either_id() {
    let api = Api::with_keys("ops:operate:alpha,ui:read:beta").await;
    let journal = Journal::create(&api.store).await;
    let body = json!({ "runId": journal.session_id() });
    let request = api.client.post(api.at("/stream-tickets")).bearer_auth("beta").json(&body);
    let answer = request.send().await.unwrap();
    let cached = answer.headers()["cache-control"].to_str().unwrap().to_owned();
    let (status, made) = read(answer).await;

    assert_eq!((status, cached.as_str()), (201, "no-store"));
    assert_eq!(made["runId"], journal.id().to_string());
    assert!(made["expiresAt"].as_str().unwrap().ends_with('Z'), "{made}");
    let ticket = made["ticket"].as_str().unwrap();
    assert_eq!(ticket.len(), 43);
    for id in [journal.id().to_string(), journal.session_id()] {
        let mut stream = open(&api, &id, ticket).await;
        assert_eq!(stream.status(), 200);
        stream.collect_until("caught_up", DEADLINE).await;
    }
    let replay = format!("/runs/{}/replay/stream?mode=instant&ticket={ticket}", journal.id());
    assert_eq!(SseClient::open(api.at(&replay)).await.status(), 200);
    // Headers that a browser sends by itself do no harm.
    let url = api.at(&format!("/runs/{}/stream?ticket={ticket}", journal.id()));
    let with_password = api.client.get(url).basic_auth("user", Some("password")).send();
    assert_eq!(with_password.await.unwrap().status().as_u16(), 200);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_opens_nothing_else() {
    let api = Api::with_keys("alpha").await;
    let journal = Journal::create(&api.store).await;
    let other = Journal::create(&api.store).await;
    let (id, ticket) = (journal.id(), ticket(&api, "alpha", journal.id()).await);

    for other in [
        other.id().to_string(),
        other.session_id(),
        "6f9619ff-8b86-4d01-b42d-00cf4fc964ff".to_owned(),
        "no-id".to_owned(),
    ] {
        let path = format!("/runs/{other}/stream?ticket={ticket}");
        assert_eq!(refusal(&api, &path).await, (401, "The ticket is for another run".to_owned()));
    }
    for path in ["/runs", "/events", &format!("/runs/{id}"), &format!("/runs/{id}/events")] {
        let path = format!("{path}?ticket={ticket}");
        assert_eq!(refusal(&api, &path).await, (401, "Missing Authorization header".to_owned()));
    }
    let path = format!("/runs/{id}/stream?ticket={}", "A".repeat(43));
    assert_eq!(refusal(&api, &path).await, (401, "The ticket is not known".to_owned()));
    let path = format!("/runs/{id}/stream?ticket=");
    assert_eq!(refusal(&api, &path).await, (401, "Missing Authorization header".to_owned()));
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_for_a_ticket_takes_a_key_and_a_run() {
    let api = Api::with_keys("ui:read:alpha").await;
    let unknown = json!({ "runId": "6f9619ff-8b86-4d01-b42d-00cf4fc964ff" });

    let (missing, _) = api.post("/stream-tickets", &unknown).await;
    let (not_found, body) = ask(&api, "alpha", &unknown).await;
    let (bad, faults) = ask(&api, "alpha", &json!({ "run": "x" })).await;

    assert_eq!((missing, not_found, bad), (401, 404, 400));
    assert_eq!(body["errorCode"], "RUN_NOT_FOUND");
    assert_eq!(faults["message"], json!(["run is not a known field", "runId is required"]));
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_keys_tickets_work_too() {
    let api = Api::start().await;
    let journal = Journal::create(&api.store).await;
    let (status, made) =
        api.post("/stream-tickets", &json!({ "runId": journal.id().to_string() })).await;

    assert_eq!(status, 201);
    assert_eq!(open(&api, journal.id(), made["ticket"].as_str().unwrap()).await.status(), 200);
    assert_eq!(open(&api, journal.id(), "another").await.status(), 401);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_waits_a_minute_for_its_first_stream() {
    let (api, clock) = with_clock(TestDb::sqlite()).await;
    let journal = Journal::create(&api.store).await;
    let (status, made) = ask(&api, "alpha", &json!({ "runId": journal.session_id() })).await;
    let late = ticket(&api, "alpha", journal.id()).await;
    let in_time = made["ticket"].as_str().unwrap();
    let minute_later = clock.now() + chrono::TimeDelta::milliseconds(MINUTE);
    assert_eq!((status, &made["expiresAt"]), (201, &json!(time::format(minute_later))));

    clock.advance_ms(MINUTE - 1);
    assert_eq!(open(&api, journal.id(), in_time).await.status(), 200);

    clock.advance_ms(1);
    let path = format!("/runs/{}/stream?ticket={late}", journal.id());
    let expired = (401, "The ticket has expired; ask for a new one".to_owned());
    assert_eq!(refusal(&api, &path).await, expired);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_lives_as_long_as_its_stream_and_two_minutes_more() {
    for database in [TestDb::sqlite(), TestDb::postgres()] {
        let (api, clock) = with_clock(database).await;
        let journal = Journal::create(&api.store).await;
        let ticket = ticket(&api, "alpha", journal.id()).await;
        let stream = open(&api, journal.id(), &ticket).await;
        for _ in 0..3 {
            is_extended(&api, &clock, &ticket, 2 * MINUTE).await;
            clock.advance_ms(20 * MINUTE);
        }
        is_extended(&api, &clock, &ticket, 2 * MINUTE).await;

        drop(stream);
        is_closed(&api, &journal).await;
        clock.advance_ms(2 * MINUTE - 1);
        let again = open_again(&api, &journal, &ticket).await;
        assert_eq!(again.status(), 200);
        is_extended(&api, &clock, &ticket, 2 * MINUTE).await;

        drop(again);
        is_closed(&api, &journal).await;
        clock.advance_ms(2 * MINUTE + i64::try_from(RENEWAL.as_millis()).unwrap());
        assert_eq!(open(&api, journal.id(), &ticket).await.status(), 401);
        api.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_streams_keeps_their_ticket() {
    let clock = Arc::new(ManualClock::at_unix_ms(1_795_000_000_000));
    let settings = Settings { ticket_renewal: RENEWAL, max_streams: 2, ..Settings::default() };
    let api = Api::set(Setup { clock: clock.clone(), settings, ..Setup::default() }).await;
    let journal = Journal::create(&api.store).await;
    let body = json!({ "runId": journal.id().to_string() });
    let (_, made) = api.post("/stream-tickets", &body).await;
    let ticket = made["ticket"].as_str().unwrap();
    let _stays = open(&api, journal.id(), ticket).await;
    drop(open(&api, journal.id(), ticket).await);
    let url = api.at(&format!("/runs/{}/stream", journal.id()));
    wait_until(DEADLINE, async || SseClient::open(url.clone()).await.status() == 200).await;

    // The first time may be the late trace of an opening.
    for _ in 0..2 {
        clock.advance_ms(10 * MINUTE);
        is_extended(&api, &clock, ticket, 2 * MINUTE).await;
    }
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_day_a_ticket_opens_nothing_more_and_its_open_stream_goes_on() {
    let (api, clock) = with_clock(TestDb::sqlite()).await;
    let mut journal = Journal::create(&api.store).await;
    let ticket = ticket(&api, "alpha", journal.id()).await;
    let mut stream = open(&api, journal.id(), &ticket).await;
    clock.advance_ms(24 * 60 * MINUTE - 1);
    is_extended(&api, &clock, &ticket, 2 * MINUTE).await;
    assert_eq!(open(&api, journal.id(), &ticket).await.status(), 429, "good, but for the place");

    clock.advance_ms(1);

    assert_eq!(open(&api, journal.id(), &ticket).await.status(), 401);
    stream.collect_until("caught_up", DEADLINE).await;
    journal.append(&[EventType::MessageReceived]).await;
    stream.collect_until("canonical_event", DEADLINE).await;
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_is_good_on_every_instance_that_accepts_its_key() {
    let database = Arc::new(TestDb::postgres());
    let with = async |keys: &str| {
        let (database, keys) = (Arc::clone(&database), keys.to_owned());
        Api::set(Setup { database, keys, ..Setup::default() }).await
    };
    let first = with("a:read:alpha,b:read:beta").await;
    let second = with("other:operate:beta").await;
    let journal = Journal::create(&first.store).await;
    let (alpha, beta) =
        (ticket(&first, "alpha", journal.id()).await, ticket(&first, "beta", journal.id()).await);

    assert_eq!(open(&second, journal.id(), &beta).await.status(), 200);
    let path = format!("/runs/{}/stream?ticket={alpha}", journal.id());
    let removed = (401, "The ticket's API key is not accepted any more".to_owned());
    assert_eq!(refusal(&second, &path).await, removed);
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_ends_with_its_run() {
    let api = Api::start().await;
    let mut journal = Journal::create(&api.store).await;
    journal.complete().await;
    let body = json!({ "runId": journal.id().to_string() });
    let (_, made) = api.post("/stream-tickets", &body).await;
    let ticket = made["ticket"].as_str().unwrap();
    assert_eq!(open(&api, journal.id(), ticket).await.status(), 200);

    let deleted = api.client.delete(api.at(&format!("/runs/{}", journal.id()))).send().await;

    assert!(deleted.unwrap().status().is_success());
    assert_eq!(open(&api, journal.id(), ticket).await.status(), 401);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_the_database_ends_no_stream_and_is_made_up_for() {
    let database = TestDb::postgres();
    let url = database.url().to_owned();
    let run = async |sql: &str| {
        let (client, connection) =
            tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute(sql).await.unwrap();
    };
    let (api, clock) = with_clock(database).await;
    let mut journal = Journal::create(&api.store).await;
    let ticket = ticket(&api, "alpha", journal.id()).await;
    let mut stream = open(&api, journal.id(), &ticket).await;
    stream.collect_until("caught_up", DEADLINE).await;
    is_extended(&api, &clock, &ticket, 2 * MINUTE).await;

    run("ALTER TABLE stream_tickets RENAME TO away").await;
    clock.advance_ms(10 * MINUTE);
    let path = format!("/runs/{}/stream?ticket={ticket}", journal.id());
    assert!(api.get(&path).await.0 >= 500);
    journal.append(&[EventType::MessageReceived]).await;
    stream.collect_until("canonical_event", DEADLINE).await;
    run("ALTER TABLE away RENAME TO stream_tickets").await;

    is_extended(&api, &clock, &ticket, 2 * MINUTE).await;
    drop(stream);
    api.stop().await;
}
