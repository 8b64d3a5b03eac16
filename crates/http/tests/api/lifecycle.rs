//! Cancelling, suspending and resuming, as far as no runtime is needed for it.

use serde_json::{Value, json};

use crate::support::{Api, DEADLINE, Journal, descriptor, read};

/// The run's path, once it waits for its session.
async fn waiting(api: &Api, metadata: Value) -> String {
    let mut body = descriptor();
    body["session"]["metadata"] = metadata;
    let (status, launched) = api.post("/runs", &body).await;
    assert_eq!(status, 201, "{launched}");
    let path = format!("/runs/{}", launched["runId"].as_str().unwrap());
    let ask = async || api.get(&path).await.1["status"].clone();
    control_plane_testkit::wait_for(DEADLINE, ask, |status| status == "starting").await;
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_waits_for_its_session_is_cancelled_with_and_without_a_body() {
    let api = Api::start().await;
    for body in [json!({}), json!({ "reason": "no longer needed" })] {
        let path = waiting(&api, json!({})).await;

        let (status, run) = api.post(&format!("{path}/cancel"), &body).await;
        let (again, same) = api.post(&format!("{path}/cancel"), &body).await;

        assert_eq!((status, &run["status"]), (201, &json!("cancelled")));
        assert!(run["endedAt"].is_string() && run["runtimeSessionId"].is_string());
        assert_eq!((again, same), (201, run));
    }
    let path = waiting(&api, json!({})).await;
    let bare = api.client.post(api.at(&format!("{path}/cancel"))).send().await.unwrap();
    assert_eq!(read(bare).await.0, 201);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_in_this_state_is_refused() {
    let api = Api::start().await;
    let path = waiting(&api, json!({})).await;
    let journal = Journal::create(&api.store).await;
    let running = format!("/runs/{}", journal.id());

    for (path, action, words) in [
        (&path, "suspend", "only running runs can be suspended (current status: starting)"),
        (&path, "resume", "only suspended runs can be resumed (current status: starting)"),
        (&running, "resume", "only suspended runs can be resumed (current status: running)"),
        (&running, "cancel", "no cancelCallback in metadata"),
    ] {
        let (status, body) = api.post(&format!("{path}/{action}"), &json!({})).await;
        assert_eq!((status, &body["errorCode"]), (400, &json!("VALIDATION_ERROR")), "{action}");
        assert!(body["message"].as_str().unwrap().contains(words), "{body}");
    }
    let (status, body) = api.post(&format!("{running}/suspend"), &json!({})).await;
    assert_eq!((status, &body["errorCode"]), (403, &json!("FORBIDDEN")));
    assert_eq!(body["details"]["grpcCode"], 7);
    assert_eq!(api.get(&running).await.1["status"], "running");
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_runs_and_unknown_fields_are_named() {
    let api = Api::start().await;
    let path = waiting(&api, json!({})).await;
    let nobody = format!("/runs/{}", uuid::Uuid::new_v4());

    for action in ["cancel", "suspend", "resume"] {
        let (missing, body) = api.post(&format!("{nobody}/{action}"), &json!({})).await;
        assert_eq!((missing, &body["errorCode"]), (404, &json!("RUN_NOT_FOUND")));
        for (given, words) in [
            (json!({ "why": "x" }), "why is not a known field"),
            (json!({ "reason": 7 }), "reason must be a string"),
            (json!(["x"]), "must be a JSON object"),
        ] {
            let (status, body) = api.post(&format!("{path}/{action}"), &given).await;
            assert_eq!(status, 400);
            assert!(body["message"][0].as_str().unwrap().contains(words), "{body}");
        }
    }
    assert_eq!(api.get(&path).await.1["status"], "starting");
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_may_only_read_changes_no_run() {
    let api = Api::with_keys("ui:read:reader,ops:operate:operator").await;
    let journal = Journal::create(&api.store).await;

    for action in ["cancel", "suspend", "resume"] {
        let url = api.at(&format!("/runs/{}/{action}", journal.id()));
        for (key, is_let_in) in [("reader", false), ("operator", true)] {
            let response = api.client.post(&url).bearer_auth(key).send().await.unwrap();
            let (status, body) = read(response).await;
            let keyed = status == 403 && body["details"]["grpcCode"].is_null();
            assert_eq!(keyed, !is_let_in, "{action} with {key}: {status} {body}");
        }
    }
    api.stop().await;
}
