//! The same for many runs at once.

use control_plane_testkit::database::TestDb;
use serde_json::{Value, json};

use crate::filing::on;
use crate::support::{Api, DEADLINE, Journal, descriptor, read};

/// The `status` of each entry of a batch, in order.
fn outcomes(answer: &Value) -> Vec<&str> {
    let entries = answer.as_array().unwrap_or_else(|| panic!("{answer}")).iter();
    entries.map(|entry| entry["status"].as_str().unwrap()).collect()
}

async fn batch(api: &Api, deed: &str, ids: &[String]) -> Value {
    let (status, answer) =
        api.post(&format!("/runs/batch/{deed}"), &json!({ "runIds": ids })).await;
    assert_eq!(status, 201, "{answer}");
    let given: Vec<&str> =
        answer.as_array().unwrap().iter().map(|entry| entry["runId"].as_str().unwrap()).collect();
    assert_eq!(given, ids, "one entry for each id, in the order given");
    answer
}

fn unknown() -> String {
    uuid::Uuid::new_v4().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_archived_and_taken_out_together() {
    for database in [TestDb::sqlite(), TestDb::postgres()] {
        let api = on(database).await;
        let (one, other) = (Journal::create(&api.store).await, Journal::create(&api.store).await);
        let ids = [
            one.id().to_string(),
            unknown(),
            other.session_id(),
            "no id".to_owned(),
            one.id().to_string(),
        ];

        let archived = batch(&api, "archive", &ids).await;
        let hidden = api.get("/runs").await.1["total"].clone();
        let back = batch(&api, "unarchive", &ids).await;

        assert_eq!(outcomes(&archived), ["archived", "failed", "archived", "failed", "archived"]);
        assert_eq!((&archived[0]["ok"], &archived[0]["error"]), (&json!(true), &Value::Null));
        assert_eq!(archived[1]["ok"], false);
        assert!(archived[1]["error"].as_str().unwrap().ends_with("not found"), "{archived}");
        assert_eq!(archived[3]["error"], "Validation failed (uuid is expected)");
        assert_eq!(hidden, 0);
        assert_eq!(outcomes(&back), ["unarchived", "failed", "unarchived", "failed", "unarchived"]);
        assert_eq!(api.get("/runs").await.1["total"], 2);
        api.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_cancelled_in_the_end_counts_as_cancelled() {
    for database in [TestDb::sqlite(), TestDb::postgres()] {
        let api = on(database).await;
        let mut waiting = Vec::new();
        for _ in 0..3 {
            let id = api.post("/runs", &descriptor()).await.1["runId"].as_str().unwrap().to_owned();
            let ask = async || api.get(&format!("/runs/{id}")).await.1["status"].clone();
            control_plane_testkit::wait_for(DEADLINE, ask, |status| status == "starting").await;
            waiting.push(id);
        }
        let running = Journal::create(&api.store).await;
        let mut over = Journal::create(&api.store).await;
        over.complete().await;
        let mut ids = waiting.clone();
        ids.extend([running.id().to_string(), over.id().to_string(), unknown()]);

        let answer = batch(&api, "cancel", &ids).await;
        let again = batch(&api, "cancel", &waiting).await;

        let cancelled = ["cancelled"; 3];
        assert_eq!(outcomes(&answer)[..3], cancelled);
        assert_eq!(outcomes(&answer)[3..], ["failed"; 3]);
        assert_eq!(outcomes(&again), cancelled);
        let why = |index: usize| answer[index]["error"].as_str().unwrap().to_owned();
        assert!(why(3).contains("no cancelCallback in metadata"), "{answer}");
        assert!(why(4).contains("over already (current status: completed)"), "{answer}");
        assert_eq!(api.get(&format!("/runs/{}", running.id())).await.1["status"], "running");
        api.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_are_over_are_deleted_together() {
    for database in [TestDb::sqlite(), TestDb::postgres()] {
        let api = on(database).await;
        let (mut one, mut other) =
            (Journal::create(&api.store).await, Journal::create(&api.store).await);
        one.complete().await;
        other.complete().await;
        let running = Journal::create(&api.store).await;
        let ids = [
            one.id().to_string(),
            running.id().to_string(),
            other.id().to_string(),
            one.id().to_string(),
        ];

        let answer = batch(&api, "delete", &ids).await;

        assert_eq!(outcomes(&answer), ["deleted", "failed", "deleted", "deleted"]);
        assert!(answer[1]["error"].as_str().unwrap().starts_with("only terminal runs"));
        assert_eq!(api.get("/runs").await.1["total"], 1);
        api.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_delete_one_may_delete_many_and_nobody_else() {
    let api = Api::with_keys("ui:read:reader,ops:operate:operator,root:admin:admin").await;
    let mut journal = Journal::create(&api.store).await;
    journal.complete().await;
    let body = json!({ "runIds": [journal.id()] });

    for (deed, key, status) in [
        ("archive", "reader", 403),
        ("archive", "operator", 201),
        ("delete", "reader", 403),
        ("delete", "operator", 403),
        ("delete", "admin", 201),
    ] {
        let url = api.at(&format!("/runs/batch/{deed}"));
        let request = api.client.post(url).bearer_auth(key).json(&body);
        let (answered, told) = read(request.send().await.unwrap()).await;
        assert_eq!(answered, status, "{deed} with {key}: {told}");
    }
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_has_a_limit_and_its_faults_are_named() {
    let api = Api::start().await;
    let many: Vec<String> = (0..501).map(|_| unknown()).collect();
    for deed in ["cancel", "archive", "unarchive", "delete"] {
        let path = format!("/runs/batch/{deed}");
        for (body, words) in [
            (json!({ "runIds": many }), "runIds must contain at most 500 elements"),
            (json!({ "runIds": ["a", 1] }), "runIds.1 must be a string"),
            (json!({ "runIds": [], "reason": "x" }), "reason is not a known field"),
            (json!({}), "runIds is required"),
        ] {
            let (status, fault) = api.post(&path, &body).await;
            assert_eq!((status, &fault["errorCode"]), (400, &json!("VALIDATION_ERROR")));
            assert_eq!(fault["message"], json!([words]));
        }
        assert_eq!(api.post(&path, &json!({ "runIds": [] })).await, (201, json!([])));
    }
    api.stop().await;
}
