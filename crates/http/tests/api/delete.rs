//! Deleting a run.

use control_plane_domain::EventType;
use control_plane_testkit::sse::SseClient;
use serde_json::json;

use crate::support::{Api, DEADLINE, Journal, read};

const MESSAGE: EventType = EventType::MessageReceived;

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_deleted_once_it_is_over() {
    let api = Api::start().await;
    let mut journal = Journal::create(&api.store).await;
    let path = format!("/runs/{}", journal.id());

    let (early, refused) = api.delete(&path).await;
    journal.complete().await;
    // Consoles send a content type with every request, and no body.
    let request = api.client.delete(api.at(&format!("/runs/{}", journal.session_id())));
    let deleted = request.header("content-type", "application/json").send().await.unwrap();

    assert_eq!((early, &refused["errorCode"]), (400, &json!("VALIDATION_ERROR")));
    let message = refused["message"].as_str().unwrap();
    assert!(message.starts_with("only terminal runs") && message.contains("running"), "{message}");
    assert_eq!((deleted.status().as_u16(), deleted.text().await.unwrap().as_str()), (204, ""));
    for path in [path.clone(), format!("{path}/events"), format!("{path}/stream")] {
        let (status, body) = api.get(&path).await;
        assert_eq!((status, &body["errorCode"]), (404, &json!("RUN_NOT_FOUND")), "{path}");
    }
    assert_eq!(api.delete(&path).await.0, 404);
    assert_eq!(api.get("/runs").await.1["total"], 0);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_follows_the_run_is_told_and_the_stream_closes() {
    let api = Api::start().await;
    let mut journal = Journal::create(&api.store).await;
    journal.append(&[MESSAGE, MESSAGE]).await;
    journal.complete().await;
    let path = format!("/runs/{}", journal.id());
    let mut parked = SseClient::open(api.at(&format!("{path}/stream?afterSeq=0"))).await;
    parked.collect_until("end", DEADLINE).await;

    assert_eq!(api.delete(&path).await.0, 204);

    let frames = parked.collect_until("stream_error", DEADLINE).await;
    let told = frames.last().unwrap();
    assert_eq!(
        (told.json()["errorCode"].clone(), told.json()["retryable"].clone()),
        (json!("RUN_DELETED"), json!(false))
    );
    assert_eq!(told.id, None);
    assert!(parked.next(DEADLINE).await.is_none());
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_under_way_is_told() {
    let api = Api::start().await;
    let mut journal = Journal::create(&api.store).await;
    for _ in 0..40 {
        journal.append(&[MESSAGE]).await;
        journal.let_pass(chrono::TimeDelta::milliseconds(100));
    }
    journal.complete().await;
    let path = format!("/runs/{}", journal.id());
    let mut replay = SseClient::open(api.at(&format!("{path}/replay/stream"))).await;
    replay.next(DEADLINE).await.expect("the first event");

    assert_eq!(api.delete(&path).await.0, 204);

    let frames = replay.collect_until("stream_error", DEADLINE).await;
    assert_eq!(frames.last().unwrap().json()["errorCode"], "RUN_DELETED");
    assert!(replay.next(DEADLINE).await.is_none());
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_admins_key_deletes() {
    let api = Api::with_keys("ui:read:reader,ops:operate:operator,root:admin:admin").await;
    let mut journal = Journal::create(&api.store).await;
    journal.complete().await;
    let url = api.at(&format!("/runs/{}", journal.id()));

    for (key, status) in [("reader", 403), ("operator", 403), ("admin", 204)] {
        let response = api.client.delete(&url).bearer_auth(key).send().await.unwrap();
        assert_eq!(read(response).await.0, status, "{key}");
    }
    api.stop().await;
}
