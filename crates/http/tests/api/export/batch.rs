//! Several bundles at once.

use control_plane_domain::RunId;
use control_plane_testkit::database::Kind;
use serde_json::{Value, json};

use super::bundle::Bundle;
use super::{api, recorded};
use crate::support::{Api, Journal};

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_has_an_entry_per_id_in_the_order_given() {
    for kind in Kind::ALL {
        let api = api(kind).await;
        let (one, other) = (recorded(&api).await, Journal::create(&api.store).await);
        let unknown = RunId::random().to_string();
        let ids = json!([unknown, one.id(), "not/an/id", other.session_id(), one.id()]);

        let (status, body) = api.post("/runs/batch/export", &json!({ "runIds": ids })).await;

        assert_eq!(status, 201);
        let entries = body.as_array().unwrap();
        assert_eq!(entries.len(), 5);
        let failed = |id: &Value, code: &str, error: &str| json!({ "runId": id, "status": "failed", "ok": false, "errorCode": code, "error": error });
        let missing = format!("run {unknown} not found");
        assert_eq!(entries[0], failed(&ids[0], "RUN_NOT_FOUND", &missing));
        let malformed = "Validation failed (uuid is expected)";
        assert_eq!(entries[2], failed(&ids[2], "VALIDATION_ERROR", malformed));
        for (at, id) in [(1, one.id()), (3, other.id()), (4, one.id())] {
            let bundle = Bundle::of(&entries[at].to_string());
            assert_eq!(bundle.value["run"]["id"], id.to_string());
            let head = api.store.run_head(id).await.unwrap();
            assert_eq!(bundle.manifest["log"]["hash"], head.hash.to_string());
            assert_eq!(json!(bundle.event_texts().len()), head.last_seq);
            assert_eq!(bundle.value["rawEvents"], json!([]));
        }
        assert_eq!(api.post("/runs/batch/export", &json!({ "runIds": [] })).await.1, json!([]));
        api.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_no_list_of_ids_is_refused() {
    let api = Api::start().await;
    let many = vec![RunId::random().to_string(); 501];
    for (body, message) in [
        (json!({ "runIds": many }), "runIds must contain at most 500 elements"),
        (json!({ "ids": [] }), "runIds must be an array"),
    ] {
        let (status, answer) = api.post("/runs/batch/export", &body).await;
        assert_eq!((status, &answer["errorCode"]), (400, &json!("VALIDATION_ERROR")));
        assert_eq!(answer["message"][0], message);
    }
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_may_only_read_may_export() {
    let api = Api::with_keys("ui:read:reader").await;
    let journal = Journal::create(&api.store).await;
    let body = json!({ "runIds": [journal.id()] });

    let batch = api.client.post(api.at("/runs/batch/export")).json(&body).bearer_auth("reader");
    let one =
        api.client.get(api.at(&format!("/runs/{}/export", journal.id()))).bearer_auth("reader");

    assert_eq!(batch.send().await.unwrap().status(), 201);
    assert_eq!(one.send().await.unwrap().status(), 200);
    assert_eq!(api.post("/runs/batch/export", &body).await.0, 401);
    api.stop().await;
}
