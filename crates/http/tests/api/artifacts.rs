//! Artifacts of a run: added, listed, fetched, removed, and told of in the log.

use std::sync::Arc;

use control_plane_http::Settings;
use control_plane_testkit::database::{Kind, TestDb};
use serde_json::{Value, json};

use crate::support::{Api, Journal, Setup, descriptor, read};

const MAX_BYTES: usize = 2048;

async fn start(kind: Kind) -> Api {
    let settings = Settings { artifact_max_bytes: MAX_BYTES, ..Settings::default() };
    let database = Arc::new(TestDb::new(kind));
    Api::set(Setup { database, settings, ..Setup::default() }).await
}

/// A run whose session nobody has started, so somebody here follows it.
async fn active(api: &Api) -> String {
    let (status, launched) = api.post("/runs", &descriptor()).await;
    assert_eq!(status, 201, "{launched}");
    format!("/runs/{}", launched["runId"].as_str().unwrap())
}

async fn finished(api: &Api) -> String {
    let mut journal = Journal::create(&api.store).await;
    journal.complete().await;
    format!("/runs/{}", journal.id())
}

async fn post_with_key(api: &Api, path: &str, key: &str, body: &Value) -> (u16, Value) {
    let request = api.client.post(api.at(path)).header("idempotency-key", key).json(body);
    read(request.send().await.unwrap()).await
}

fn report(label: &str) -> Value {
    json!({ "kind": "report", "label": label, "uri": "s3://b/r.pdf", "inline": { "pages": 3, "ü": [1.5, null] } })
}

async fn events_of(api: &Api, run: &str) -> Vec<Value> {
    let (_, page) = api.get(&format!("{run}/events?type=artifact.created")).await;
    page["data"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_is_added_with_its_event_to_active_and_finished_runs() {
    for kind in Kind::ALL {
        let api = start(kind).await;
        for run in [active(&api).await, finished(&api).await] {
            let path = format!("{run}/artifacts");

            let (status, added) = api.post(&path, &report("r")).await;

            assert_eq!(status, 201, "{added}");
            assert_eq!(
                (&added["kind"], &added["label"], &added["uri"]),
                (&json!("report"), &json!("r"), &json!("s3://b/r.pdf"))
            );
            assert_eq!(added["inline"], report("r")["inline"]);
            assert_eq!(run, format!("/runs/{}", added["runId"].as_str().unwrap()));
            assert!(added["createdAt"].as_str().unwrap().ends_with('Z'));
            let one = format!("{path}/{}", added["id"].as_str().unwrap());
            assert_eq!(api.get(&one).await, (200, added.clone()));
            assert_eq!(api.get(&path).await, (200, json!([added])));
            let events = events_of(&api, &run).await;
            assert_eq!(events.len(), 1);
            assert_eq!(
                events[0]["data"],
                json!({ "kind": "report", "label": "r", "uri": "s3://b/r.pdf", "artifactId": added["id"] })
            );
            assert_eq!(events[0]["source"]["name"], "observability-controller");
            let (_, traces) = api.get(&format!("{run}/traces")).await;
            assert_eq!(traces["linkedArtifacts"], json!([added["id"]]));
        }
        api.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_with_the_same_key_adds_nothing_and_another_body_is_refused() {
    for kind in Kind::ALL {
        let api = start(kind).await;
        let run = finished(&api).await;
        let path = format!("{run}/artifacts");

        let first = post_with_key(&api, &path, "k", &report("r")).await;
        let again = post_with_key(&api, &path, "k", &report("r")).await;
        let (status, refused) = post_with_key(&api, &path, "k", &report("other")).await;
        let other = post_with_key(&api, &path, "k2", &report("r")).await;
        let bare = api.post(&path, &report("r")).await;

        assert_eq!(first.0, 201);
        assert_eq!(again, first);
        assert_eq!((status, &refused["errorCode"]), (409, &json!("CONFLICT")));
        let mut ids = [&first.1["id"], &other.1["id"], &bare.1["id"]].map(Value::to_string);
        ids.sort();
        assert!(ids[0] != ids[1] && ids[1] != ids[2], "{ids:?}");
        assert_eq!(events_of(&api, &run).await.len(), 3);
        api.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_that_come_together_add_one() {
    for kind in Kind::ALL {
        let api = start(kind).await;
        let run = finished(&api).await;
        let path = format!("{run}/artifacts");

        let body = report("r");
        let posts = (0..6).map(|_| post_with_key(&api, &path, "k", &body));
        let answers = futures_util::future::join_all(posts).await;

        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
        assert_eq!(answers[0].0, 201);
        assert_eq!(events_of(&api, &run).await.len(), 1);
        api.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_artifact_is_gone_and_the_log_still_says_that_it_was_there() {
    for kind in Kind::ALL {
        let api = start(kind).await;
        let run = finished(&api).await;
        let path = format!("{run}/artifacts");
        let (_, added) = post_with_key(&api, &path, "k", &report("r")).await;
        let one = format!("{path}/{}", added["id"].as_str().unwrap());

        let (status, _) = api.delete(&one).await;
        let (again, gone) = api.delete(&one).await;

        assert_eq!((status, again, &gone["errorCode"]), (204, 404, &json!("NOT_FOUND")));
        assert_eq!(api.get(&one).await.0, 404);
        assert_eq!(api.get(&path).await, (200, json!([])));
        assert_eq!(events_of(&api, &run).await.len(), 1);
        // The key is free again.
        let (status, anew) = post_with_key(&api, &path, "k", &report("another")).await;
        assert_eq!((status, &anew["label"]), (201, &json!("another")));
        assert_eq!(events_of(&api, &run).await.len(), 2);
        api.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_belongs_to_its_run_and_unknown_ones_are_not_found() {
    for kind in Kind::ALL {
        let api = start(kind).await;
        let (run, other) = (finished(&api).await, finished(&api).await);
        let (_, added) = api.post(&format!("{run}/artifacts"), &report("r")).await;
        let id = added["id"].as_str().unwrap();
        let unknown = "/runs/6f9619ff-8b86-4d01-b42d-00cf4fc964ff";

        for (path, code) in [
            (format!("{other}/artifacts/{id}"), "NOT_FOUND"),
            (format!("{run}/artifacts/no-uuid"), "NOT_FOUND"),
            (format!("{unknown}/artifacts/{id}"), "RUN_NOT_FOUND"),
        ] {
            let (status, body) = api.get(&path).await;
            assert_eq!((status, &body["errorCode"]), (404, &json!(code)), "{path}");
            let (status, body) = api.delete(&path).await;
            assert_eq!((status, &body["errorCode"]), (404, &json!(code)), "{path}");
        }
        let (status, body) = api.post(&format!("{unknown}/artifacts"), &report("r")).await;
        assert_eq!((status, &body["errorCode"]), (404, &json!("RUN_NOT_FOUND")));
        assert_eq!(api.get(&format!("{run}/artifacts/{id}")).await.0, 200);
        api.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_or_cannot_be_stored_is_refused_by_its_field() {
    for kind in Kind::ALL {
        let api = start(kind).await;
        let run = finished(&api).await;
        let path = format!("{run}/artifacts");
        let large = "x".repeat(MAX_BYTES);

        for (field, value) in [
            ("inline", json!({ "a": large })),
            ("inline", json!({ "a": "\u{0}" })),
            ("kind", json!("file")),
            ("label", json!("")),
            ("size", json!(1)),
        ] {
            let mut body = report("r");
            body[field] = value;
            let (status, refused) = api.post(&path, &body).await;
            assert_eq!((status, &refused["errorCode"]), (400, &json!("VALIDATION_ERROR")));
            let message = refused["message"].to_string();
            assert!(message.contains(field), "{message}");
        }
        let fits =
            json!({ "kind": "json", "label": "l", "inline": { "a": "x".repeat(MAX_BYTES - 8) } });
        assert_eq!(api.post(&path, &fits).await.0, 201);
        assert_eq!(events_of(&api, &run).await.len(), 1);
        api.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_comes_whole_or_in_pages() {
    for kind in Kind::ALL {
        let api = start(kind).await;
        let run = finished(&api).await;
        let path = format!("{run}/artifacts");
        for label in ["a", "b", "c", "d", "e"] {
            assert_eq!(api.post(&path, &report(label)).await.0, 201);
        }
        let (_, whole) = api.get(&path).await;

        let (_, first) = api.get(&format!("{path}?limit=2")).await;
        let cursor = first["nextCursor"].as_str().unwrap();
        let (_, second) = api.get(&format!("{path}?limit=2&cursor={cursor}")).await;
        let cursor = second["nextCursor"].as_str().unwrap();
        let (_, last) = api.get(&format!("{path}?cursor={cursor}")).await;

        let pages = [&first, &second, &last].map(|page| page["data"].as_array().unwrap().clone());
        assert_eq!(pages.each_ref().map(Vec::len), [2, 2, 1]);
        assert_eq!(json!(pages.concat()), whole);
        assert_eq!((&last["nextCursor"], &last["limit"]), (&Value::Null, &json!(100)));
        for bad in ["limit=0", "limit=101", "limit=x", "cursor=x"] {
            assert_eq!(api.get(&format!("{path}?{bad}")).await.0, 400, "{bad}");
        }
        api.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_has_a_hundred_artifacts_at_most_also_when_they_come_together() {
    for kind in Kind::ALL {
        let api = start(kind).await;
        let run = finished(&api).await;
        let path = format!("{run}/artifacts");
        let small = json!({ "kind": "log", "label": "l" });

        let mut statuses = Vec::new();
        for _ in 0..5 {
            let posts = (0..21).map(|_| api.post(&path, &small));
            let answers = futures_util::future::join_all(posts).await;
            statuses.extend(answers.into_iter().map(|(status, _)| status));
        }
        statuses.sort_unstable();

        assert_eq!(statuses[..100], [201; 100]);
        assert_eq!(statuses[100..], [409; 5]);
        assert_eq!(api.get(&path).await.1.as_array().unwrap().len(), 100);
        api.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_does_not_answer_is_a_503_and_the_key_makes_trying_again_harmless() {
    let api = Api::start().await;
    // Nobody follows it: its owner is this store, which has no task for it.
    let mut journal = Journal::create(&api.store).await;
    let path = format!("/runs/{}/artifacts", journal.id());

    let request = api.client.post(api.at(&path)).header("idempotency-key", "k").json(&report("r"));
    let late = request.send().await.unwrap();

    assert_eq!(late.status().as_u16(), 503);
    assert!(late.headers().contains_key("retry-after"));
    journal.complete().await;
    assert_eq!(post_with_key(&api, &path, "k", &report("r")).await.0, 201);
    assert_eq!(api.get(&path).await.1.as_array().unwrap().len(), 1);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tracing_no_trace_id_is_made_or_taken_over() {
    for kind in Kind::ALL {
        let api = start(kind).await;
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let request = api.client.post(api.at("/runs")).header("traceparent", parent);
        let (_, launched) = read(request.json(&descriptor()).send().await.unwrap()).await;
        let run = format!("/runs/{}", launched["runId"].as_str().unwrap());

        let (status, traces) = api.get(&format!("{run}/traces")).await;

        assert_eq!(launched.get("traceId"), None);
        assert_eq!(api.get(&run).await.1["traceId"], Value::Null);
        assert_eq!(status, 200);
        assert_eq!(
            (&traces["spanCount"], &traces["linkedArtifacts"], traces.get("traceId")),
            (&json!(0), &json!([]), None)
        );
        assert!(traces["runStatus"].is_string());
        assert_eq!(api.get("/runs/6f9619ff-8b86-4d01-b42d-00cf4fc964ff/traces").await.0, 404);
        api.stop().await;
    }
}
