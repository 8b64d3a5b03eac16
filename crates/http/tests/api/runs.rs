//! Launching and reading runs.

use control_plane_domain::EventType;
use serde_json::{Value, json};

use crate::support::{Api, Journal, descriptor, read};

const MESSAGE: EventType = EventType::MessageReceived;

#[tokio::test(flavor = "multi_thread")]
async fn a_launched_run_is_created_with_its_place() {
    let api = Api::start().await;
    let response = api.client.post(api.at("/runs")).json(&descriptor()).send().await.unwrap();
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let (status, launched) = read(response).await;

    assert_eq!((status, &launched["status"]), (201, &json!("queued")));
    let run_id = launched["runId"].as_str().unwrap();
    assert_eq!(location, format!("/runs/{run_id}"));

    let (_, by_run) = api.get(&location).await;
    let (_, by_session) =
        api.get(&format!("/runs/{}", launched["sessionId"].as_str().unwrap())).await;
    assert_eq!(by_run["id"], run_id);
    assert_eq!(by_session["id"], run_id);
    assert_eq!(
        by_run["metadata"]["executionRequest"]["session"]["sessionId"],
        launched["sessionId"]
    );
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_and_body_give_the_same_run_and_another_body_conflicts() {
    let api = Api::start().await;
    let post = |body: Value, key: &'static str| {
        api.client.post(api.at("/runs")).header("idempotency-key", key).json(&body).send()
    };
    let (_, first) = read(post(descriptor(), "k").await.unwrap()).await;
    let (_, second) = read(post(descriptor(), "k").await.unwrap()).await;
    let mut other = descriptor();
    other["session"]["ttlMs"] = json!(1);
    let (conflict, _) = read(post(other, "k").await.unwrap()).await;
    let mut two_keys = descriptor();
    two_keys["execution"] = json!({ "idempotencyKey": "x" });
    let (refused, _) = read(post(two_keys, "k").await.unwrap()).await;

    assert_eq!(first["runId"], second["runId"]);
    assert_eq!(first["sessionId"], second["sessionId"]);
    assert_eq!((conflict, refused), (409, 400));
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_posted_once() {
    let api = Api::start().await;
    let mut body = descriptor();
    body["session"]["sessionId"] = json!("6f9619ff-8b86-4d01-b42d-00cf4fc964ff");
    let (_, first) = api.post("/runs", &body).await;
    let (status, second) = api.post("/runs", &body).await;

    assert_eq!((status, &second["errorCode"]), (409, &json!("SESSION_ALREADY_EXISTS")));
    assert_eq!(second["details"]["runId"], first["runId"]);

    body["session"]["sessionId"] = json!("too short");
    let (status, refused) = api.post("/runs", &body).await;
    assert_eq!((status, &refused["errorCode"]), (400, &json!("INVALID_SESSION_ID")));
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callbacks_secret_never_comes_back() {
    let api = Api::start().await;
    let mut body = descriptor();
    body["session"]["metadata"] =
        json!({ "cancelCallback": { "url": "https://a.example/cancel", "bearer": "hush" } });
    let (_, launched) = api.post("/runs", &body).await;
    let path = format!("/runs/{}", launched["runId"].as_str().unwrap());
    for path in [path.as_str(), "/runs"] {
        let text = api.get(path).await.1.to_string();
        assert!(!text.contains("hush") && text.contains("***"), "{path}: {text}");
    }
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_runtime_kind_is_not_found() {
    let api = Api::start().await;
    let mut body = descriptor();
    body["runtime"]["kind"] = json!("java");
    let (status, answer) = api.post("/runs", &body).await;
    assert_eq!(
        (status, &answer["message"]),
        (404, &json!("runtime provider 'java' is not registered"))
    );
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_paged_by_its_cursor_without_a_gap() {
    let api = Api::start().await;
    for _ in 0..5 {
        Journal::create(&api.store).await;
    }
    let mut seen = Vec::new();
    let mut path = "/runs?limit=2".to_owned();
    loop {
        let (_, page) = api.get(&path).await;
        assert_eq!(page["total"], 5);
        seen.extend(page["data"].as_array().unwrap().iter().map(|run| run["id"].to_string()));
        let Some(cursor) = page.get("nextCursor") else { break };
        path = format!("/runs?limit=2&cursor={}", cursor.as_str().unwrap());
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 5);
    assert_eq!(api.get("/runs?tags=test").await.1["total"], 5);
    assert_eq!(api.get("/runs?status=completed").await.1["total"], 0);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_a_bare_array_without_filters_and_an_object_with() {
    let api = Api::start().await;
    let mut journal = Journal::create(&api.store).await;
    journal.append(&[MESSAGE, EventType::ProposalCreated, MESSAGE]).await;
    let id = journal.id();

    let (_, all) = api.get(&format!("/runs/{id}/events")).await;
    let (_, rest) = api.get(&format!("/runs/{id}/events?afterSeq=2&limit=1")).await;
    let (_, filtered) = api.get(&format!("/runs/{id}/events?type=message.received")).await;

    let seqs = |rows: &Value| -> Vec<i64> {
        rows.as_array().unwrap().iter().map(|row| row["seq"].as_i64().unwrap()).collect()
    };
    assert_eq!(seqs(&all), [1, 2, 3, 4]);
    assert_eq!(seqs(&rest), [3]);
    assert_eq!(seqs(&filtered["data"]), [2, 4]);
    assert_eq!((&filtered["total"], &filtered["nextCursor"]), (&json!(2), &json!(4)));
    assert!(all[0]["receivedAt"].is_string() && all[0]["source"]["kind"].is_string());
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_feed_goes_on_by_position_and_a_run_by_seq() {
    let api = Api::start().await;
    let mut first = Journal::create(&api.store).await;
    let mut second = Journal::create(&api.store).await;
    first.append(&[MESSAGE, MESSAGE]).await;
    second.append(&[MESSAGE]).await;

    let mut positions = Vec::new();
    let mut after = json!(0);
    loop {
        let (_, page) = api.get(&format!("/events?limit=2&afterSeq={after}")).await;
        for row in page["data"].as_array().unwrap() {
            positions.push(row["position"].as_i64().unwrap());
        }
        match page.get("nextCursor") {
            Some(next) => after = next.clone(),
            None => break,
        }
    }
    assert_eq!(positions.len(), 5);
    assert!(positions.is_sorted());
    let (_, of_run) = api.get(&format!("/events?runId={}&limit=1", first.session_id())).await;
    assert_eq!(of_run["nextCursor"], 1);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_names_its_log_for_clients_that_cannot_see_the_headers_of_a_stream() {
    let api = Api::start().await;
    let journal = Journal::create(&api.store).await;

    let run = api.client.get(api.at(&format!("/runs/{}", journal.id()))).send().await.unwrap();

    let log_id = api.store.log_id().await.unwrap();
    assert_eq!(run.headers()["x-macp-log-id"].to_str().unwrap(), log_id);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn state_figures_and_artifacts_of_a_run_are_there() {
    let api = Api::start().await;
    let mut journal = Journal::create(&api.store).await;
    journal.append(&[MESSAGE]).await;
    let id = journal.id();

    let (_, state) = api.get(&format!("/runs/{id}/state")).await;
    let (rebuilt_status, rebuilt) =
        api.post(&format!("/runs/{id}/projection/rebuild"), &json!({})).await;
    let (_, metrics) = api.get(&format!("/runs/{id}/metrics")).await;
    let (_, artifacts) = api.get(&format!("/runs/{id}/artifacts")).await;

    assert_eq!(state["timeline"]["latestSeq"], 2);
    assert_eq!(
        (rebuilt_status, &rebuilt["rebuilt"], &rebuilt["latestSeq"]),
        (201, &json!(true), &json!(2))
    );
    assert_eq!(rebuilt["timeline"], state["timeline"]);
    assert_eq!(metrics["runId"], id.to_string());
    assert_eq!(artifacts, json!([]));
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_run_says_why() {
    let api = Api::start().await;
    let journal = Journal::create(&api.store).await;
    let path = format!("/runs/{}", journal.id());
    let (_, before) = api.get(&path).await;

    journal.park("its data is refused").await;

    let (_, shown) = api.get(&path).await;
    let (_, listed) = api.get("/runs").await;
    assert_eq!(before["parkedReason"], Value::Null);
    assert_eq!(shown["parkedReason"], "its data is refused");
    assert_eq!(listed["data"][0]["parkedReason"], "its data is refused");
    api.stop().await;
}
