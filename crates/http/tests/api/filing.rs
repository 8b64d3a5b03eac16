//! Archiving a run, doing it again, and what was sent in it.

use std::sync::Arc;

use control_plane_domain::EventType;
use control_plane_testkit::database::TestDb;
use serde_json::{Value, json};

use crate::support::{Api, Journal, Setup, descriptor};

/// A server on this database.
pub(crate) async fn on(database: TestDb) -> Api {
    Api::set(Setup { database: Arc::new(database), ..Setup::default() }).await
}

/// How many runs a list shows.
async fn listed(api: &Api, query: &str) -> Value {
    api.get(&format!("/runs{query}")).await.1["total"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archived_run_is_out_of_sight_until_it_is_taken_out_again() {
    for database in [TestDb::sqlite(), TestDb::postgres()] {
        let api = on(database).await;
        let journal = Journal::create(&api.store).await;
        let path = format!("/runs/{}", journal.id());
        let before = api.get(&path).await.1;

        let (status, archived) = api.post(&format!("{path}/archive"), &json!({})).await;
        let again = api.post(&format!("/runs/{}/archive", journal.session_id()), &json!({})).await;

        assert_eq!((status, &archived["tags"]), (201, &json!(["test", "archived"])));
        assert!(archived["archivedAt"].is_string());
        assert_eq!(archived["status"], "running");
        assert_eq!(again, (201, archived.clone()));
        assert_eq!(listed(&api, "").await, 0);
        assert_eq!(listed(&api, "?includeArchived=true&tags=archived").await, 1);
        assert_eq!(api.get(&path).await.1, archived);

        let (status, back) = api.post(&format!("{path}/unarchive"), &json!({})).await;
        let again = api.post(&format!("{path}/unarchive"), &json!({})).await;

        assert_eq!((status, &back["tags"]), (201, &json!(["test"])));
        assert_eq!((&back["archivedAt"], &back["createdAt"]), (&Value::Null, &before["createdAt"]));
        assert_eq!(again, (201, back));
        assert_eq!(listed(&api, "").await, 1);
        api.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_archived_goes_on_and_stays_archived() {
    for database in [TestDb::sqlite(), TestDb::postgres()] {
        let api = on(database).await;
        let mut journal = Journal::create(&api.store).await;
        let path = format!("/runs/{}", journal.id());
        api.post(&format!("{path}/archive"), &json!({})).await;

        // What the owner has in memory knows nothing of it.
        journal.append(&[EventType::SessionBound]).await;
        journal.complete().await;

        let run = api.get(&path).await.1;
        assert_eq!(
            (&run["status"], &run["tags"]),
            (&json!("completed"), &json!(["test", "archived"]))
        );
        assert!(run["archivedAt"].is_string());
        api.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_is_posted_as_its_run_was_for_a_session_of_its_own() {
    for database in [TestDb::sqlite(), TestDb::postgres()] {
        let api = on(database).await;
        let mut body = descriptor();
        body["session"]["sessionId"] = json!(uuid::Uuid::new_v4());
        body["session"]["metadata"] = json!({
            "scenarioRef": "fraud",
            "cancelCallback": { "url": "https://a.example/cancel", "bearer": "hush" },
        });
        body["execution"] = json!({ "idempotencyKey": "first", "tags": ["old"] });
        let (_, original) = api.post("/runs", &body).await;
        let path = format!("/runs/{}/clone", original["runId"].as_str().unwrap());

        let url = api.at(&path);
        let response = api.client.post(url).json(&json!({ "tags": ["new"] })).send().await.unwrap();
        let location = response.headers()["location"].to_str().unwrap().to_owned();
        let status = response.status().as_u16();
        let launched: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();

        assert_eq!(status, 201);
        let id = launched["runId"].as_str().unwrap();
        assert_eq!(location, format!("/runs/{id}"));
        assert_ne!(launched["runId"], original["runId"]);
        assert_ne!(launched["sessionId"], original["sessionId"]);
        let run = api.get(&location).await.1;
        assert_eq!((&run["tags"], &run["idempotencyKey"]), (&json!(["new"]), &Value::Null));
        assert_eq!(run["metadata"]["scenarioRef"], "fraud");
        assert_eq!(run["metadata"]["cancelCallback"]["bearer"], "***");
        let stored = api.store.run_find(id).await.unwrap();
        assert_eq!(stored.metadata["cancelCallback"]["bearer"], "hush");
        let bare = api.client.post(api.at(&path)).send().await.unwrap();
        assert_eq!(bare.status().as_u16(), 201);
        api.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_with_a_key_is_made_once() {
    let api = Api::start().await;
    let (_, original) = api.post("/runs", &descriptor()).await;
    let url = api.at(&format!("/runs/{}/clone", original["runId"].as_str().unwrap()));
    let clone = async |tag: &str| {
        let request = api.client.post(&url).header("idempotency-key", "k");
        let response = request.json(&json!({ "tags": [tag] })).send().await.unwrap();
        let status = response.status().as_u16();
        let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        (status, body["runId"].clone())
    };

    let (first, again, other) = (clone("a").await, clone("a").await, clone("b").await);

    assert_eq!((first.0, &first), (201, &again));
    assert_eq!(other.0, 409);
    assert_eq!(listed(&api, "").await, 2);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_cloned_is_refused() {
    let api = Api::start().await;
    let (_, original) = api.post("/runs", &descriptor()).await;
    let path = format!("/runs/{}/clone", original["runId"].as_str().unwrap());
    let bare = format!("/runs/{}/clone", Journal::create(&api.store).await.id());
    let nobody = format!("/runs/{}/clone", uuid::Uuid::new_v4());

    for (path, body, status, words) in [
        (&path, json!({ "context": { "amount": 5 } }), 400, "context must be empty"),
        (&path, json!({ "context": 5 }), 400, "context must be an object"),
        (&path, json!({ "tags": "a" }), 400, "tags must be an array"),
        (&path, json!({ "mode": "live" }), 400, "mode is not a known field"),
        (&bare, json!({ "context": {} }), 400, "it has no executionRequest"),
        (&nobody, json!({}), 404, "not found"),
    ] {
        let (answered, fault) = api.post(path, &body).await;
        assert_eq!(answered, status, "{fault}");
        assert!(fault["message"].to_string().contains(words), "{fault}");
    }
    assert_eq!(listed(&api, "").await, 2);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_runs_and_unknown_fields_are_named() {
    let api = Api::start().await;
    let path = format!("/runs/{}", Journal::create(&api.store).await.id());
    for action in ["archive", "unarchive"] {
        let nobody = format!("/runs/{}/{action}", uuid::Uuid::new_v4());
        assert_eq!(api.post(&nobody, &json!({})).await.0, 404);
        let (status, fault) = api.post(&format!("{path}/{action}"), &json!({ "why": 1 })).await;
        assert_eq!(status, 400);
        assert_eq!(fault["message"][0], "why is not a known field");
        // Consoles send a content type and no body.
        let request = api.client.post(api.at(&format!("{path}/{action}")));
        let bare = request.header("content-type", "application/json").send().await.unwrap();
        assert_eq!(bare.status().as_u16(), 201);
    }
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_through_us_and_a_log_that_tells_of_it_is_believed() {
    for database in [TestDb::sqlite(), TestDb::postgres()] {
        let api = on(database).await;
        let silent = Journal::create(&api.store).await;
        let mut spoken = Journal::create(&api.store).await;
        let sent = json!({
            "messageId": "m1", "messageType": "Proposal", "sender": "alice", "to": ["bob"],
            "sessionId": "s", "ack": { "ok": true },
        });
        let failed = json!({ "messageId": "m2", "messageType": "Vote", "error": "refused" });
        let log = vec![(EventType::MessageSent, sent), (EventType::MessageSendFailed, failed)];
        spoken.append_events(log).await;
        let path = format!("/runs/{}/messages", spoken.id());

        let quiet = api.get(&format!("/runs/{}/messages", silent.id())).await;
        let (status, rows) = api.get(&path).await;
        let later = api.get(&format!("{path}?afterSeq=2&limit=1")).await.1;

        assert_eq!(quiet, (200, json!([])));
        assert_eq!((status, rows.as_array().unwrap().len()), (200, 2));
        assert_eq!(
            (&rows[0]["status"], &rows[0]["recipients"]),
            (&json!("accepted"), &json!(["bob"]))
        );
        assert_eq!(
            (&rows[1]["status"], &rows[1]["errorMessage"]),
            (&json!("rejected"), &json!("refused"))
        );
        assert_eq!(later, json!([rows[1]]));
        assert_eq!(api.get(&format!("{path}?limit=0")).await.0, 400);
        let nobody = format!("/runs/{}/messages", uuid::Uuid::new_v4());
        assert_eq!(api.get(&nobody).await.0, 404);
        api.stop().await;
    }
}
