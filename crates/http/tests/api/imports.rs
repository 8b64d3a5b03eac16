//! Importing what another server exported.

use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use control_plane_domain::descriptor::RunDescriptor;
use control_plane_domain::event::{ChainHash, EventDraft, Source};
use control_plane_domain::metrics::RunMetrics;
use control_plane_domain::{Clock as _, EventType, RunId, RunState, SystemClock};
use control_plane_http::Settings;
use control_plane_projection::{PriceTable, apply_metrics};
use control_plane_storage::model::{LogEntry, NewRun};
use control_plane_testkit::database::TestDb;
use control_plane_testkit::sse::SseClient;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::support::{Api, DEADLINE, Setup, descriptor, read, records};

/// Records a run of three events and `more`, that is in this state after them.
async fn record(api: &Api, state: RunState, more: usize) -> RunId {
    let (mut run, session) = records(&RunDescriptor::parse(&descriptor()).unwrap());
    let mut kinds = vec![
        (EventType::RunCreated, json!({ "status": "queued" })),
        (EventType::SessionBound, json!({ "state": "SESSION_STATE_OPEN" })),
        (EventType::RunStarted, json!({ "status": "running" })),
    ];
    kinds.extend((0..more).map(|_| (EventType::MessageReceived, json!({ "note": "Grüße" }))));
    if state == RunState::Completed {
        kinds.push((EventType::RunCompleted, json!({ "status": "completed" })));
    }
    run.state = state;
    let (mut entries, mut metrics) = (Vec::new(), RunMetrics::empty(run.id));
    let mut chain = ChainHash::EMPTY;
    for (event_type, data) in kinds {
        run.last_seq += 1;
        let now = SystemClock.now();
        let Value::Object(data) = data else { panic!("not an object") };
        let source = Source::control_plane("run-manager");
        let draft = EventDraft { event_type, ts: now, subject: None, source, trace: None, data };
        let event = draft.into_event(run.id, run.last_seq, now);
        apply_metrics(&mut metrics, &event, &PriceTable::default());
        let body = event.encode();
        chain = chain.then(&body);
        entries.push(LogEntry {
            run_id: run.id,
            seq: event.seq,
            position: 0,
            ts: now,
            received_at: now,
            event_type,
            subject: None,
            hash: chain,
            body: Bytes::from(body),
        });
    }
    let id = run.id;
    api.store.run_create(NewRun { run, session, entries, metrics, trace: None }).await.unwrap();
    id
}

async fn export(api: &Api, run: RunId, query: &str) -> Vec<u8> {
    let url = api.at(&format!("/runs/{run}/export{query}"));
    let answer = api.client.get(url).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    answer.bytes().await.unwrap().to_vec()
}

async fn import(api: &Api, bundle: Vec<u8>) -> (u16, Value) {
    read(api.client.post(api.at("/runs/import")).body(bundle).send().await.unwrap()).await
}

fn packed(bundle: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(bundle).unwrap();
    packed.finish().unwrap()
}

fn code(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["errorCode"].as_str().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imported_run_is_read_like_any_other_and_is_not_in_the_feed() {
    let from = Api::start().await;
    let run = record(&from, RunState::Completed, 20).await;
    let bundle = export(&from, run, "?format=jsonl&includeRaw=true").await;
    for database in [TestDb::sqlite(), TestDb::postgres()] {
        let api = Api::set(Setup { database: Arc::new(database), ..Setup::default() }).await;
        let path = format!("/runs/{run}");

        let url = api.at("/runs/import");
        let answer = api.client.post(url).body(packed(&bundle)).send().await.unwrap();
        let location = answer.headers().get("location").cloned();
        let (status, imported) = read(answer).await;

        assert_eq!((status, location.unwrap().to_str().unwrap()), (201, path.as_str()));
        assert!(imported["importedAt"].is_string(), "{imported}");
        let (_, shown) = api.get(&path).await;
        assert_eq!(shown, imported);
        let (_, by_session) =
            api.get(&format!("/runs/{}", shown["runtimeSessionId"].as_str().unwrap())).await;
        assert_eq!(by_session, shown);
        for part in ["events", "state", "metrics", "artifacts", "replay/state?seq=4"] {
            let path = format!("{path}/{part}");
            assert_eq!(api.get(&path).await, from.get(&path).await, "{part}");
        }
        let (_, feed) = api.get("/events").await;
        assert_eq!((feed["total"].as_i64(), feed["data"].clone()), (Some(0), json!([])));
        let (_, of_run) = api.get(&format!("/events?runId={run}")).await;
        assert_eq!(
            (of_run["total"].as_i64(), &of_run["data"][0]["position"]),
            (Some(24), &Value::Null)
        );
        let mut stream = SseClient::open(api.at(&format!("{path}/stream?afterSeq=0"))).await;
        let end = stream.collect_until("end", DEADLINE).await.pop().unwrap().json();
        assert_eq!(
            (end["status"].as_str(), shown["lastEventSeq"].as_i64()),
            (Some("completed"), Some(24))
        );
        api.stop().await;
    }
    from.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_of_a_run_that_was_active_when_it_was_exported_ends_with_its_status() {
    let (from, api) = (Api::start().await, Api::start().await);
    let run = record(&from, RunState::Running, 2).await;
    let bundle = export(&from, run, "").await;

    let (status, imported) = import(&api, bundle).await;

    assert_eq!((status, imported["status"].as_str()), (201, Some("running")));
    let path = format!("/runs/{run}/stream");
    let mut stream = SseClient::open(api.at(&format!("{path}?afterSeq=0&closeOnEnd=true"))).await;
    let frames = stream.collect_until("end", DEADLINE).await;
    assert_eq!(frames.last().unwrap().json()["status"], "running");
    assert!(stream.next(DEADLINE).await.is_none());
    let url = api.at(&path);
    let resumed = api.client.get(url).header("last-event-id", "5").send().await.unwrap();
    assert_eq!(resumed.status().as_u16(), 204, "nothing will come any more");
    let (_, diagnosis) = api.get(&format!("/runs/{run}/diagnosis")).await;
    assert_eq!(diagnosis["condition"], "imported", "{diagnosis}");
    from.stop().await;
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_change_an_imported_run_is_refused_and_deleting_it_is_not() {
    let (from, api) = (Api::start().await, Api::start().await);
    let run = record(&from, RunState::Running, 2).await;
    assert_eq!(import(&api, export(&from, run, "").await).await.0, 201);

    for action in ["cancel", "suspend", "resume"] {
        let answer = api.post(&format!("/runs/{run}/{action}"), &json!({})).await;
        assert_eq!(code(&answer), (409, "RUN_READ_ONLY"), "{action}");
    }
    let artifacts = format!("/runs/{run}/artifacts");
    let added = api.post(&artifacts, &json!({ "kind": "report", "label": "mine" })).await;
    assert_eq!(code(&added), (409, "RUN_READ_ONLY"));
    let removed = api.delete(&format!("{artifacts}/{run}")).await;
    assert_eq!(code(&removed), (409, "RUN_READ_ONLY"));
    assert_eq!(api.delete(&format!("/runs/{run}")).await.0, 204);
    assert_eq!(api.get(&format!("/runs/{run}")).await.0, 404);
    assert_eq!(import(&api, export(&from, run, "").await).await.0, 201, "it may come back");
    from.stop().await;
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_is_taken_is_a_conflict_that_names_the_run() {
    let api = Api::start().await;
    let run = record(&api, RunState::Completed, 0).await;

    let taken = import(&api, export(&api, run, "").await).await;

    assert_eq!(code(&taken), (409, "SESSION_ALREADY_EXISTS"));
    assert_eq!(taken.1["details"]["runId"], json!(run));
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_is_not_sound_or_not_whole_is_refused_by_what_is_wrong() {
    let (from, api) = (Api::start().await, Api::start().await);
    let run = record(&from, RunState::Completed, 3).await;
    let bundle = export(&from, run, "").await;
    let text = String::from_utf8(bundle.clone()).unwrap();
    let cut = bundle[..bundle.len() - 20].to_vec();

    for (bad, word) in [
        (
            text.replacen("Grüße", "Gruße", 1).into_bytes(),
            "event 4, canonicalEvents[3] was changed",
        ),
        (cut, "layout: the bundle is cut"),
        (b"hello".to_vec(), "layout"),
        (Vec::new(), "layout"),
        (export(&from, run, "?eventLimit=4").await, "events 5 to 7 were cut off"),
        (export(&from, run, "?afterSeq=2").await, "its events begin after event 2"),
        (export(&from, run, "?includeCanonical=false").await, "it has no canonical events"),
    ] {
        let refused = import(&api, bad).await;
        assert_eq!(code(&refused), (400, "VALIDATION_ERROR"), "{word}");
        let said = refused.1["message"].to_string();
        assert!(said.contains(word), "{word}: {said}");
    }
    assert_eq!(api.get("/runs").await.1["total"], 0);
    from.stop().await;
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_is_too_large_is_refused_packed_or_not() {
    let from = Api::start().await;
    let settings = Settings { import_max_bytes: 20_000, ..Settings::default() };
    let api = Api::set(Setup { settings, ..Setup::default() }).await;
    let run = record(&from, RunState::Completed, 200).await;
    let bundle = export(&from, run, "").await;
    let small = packed(&bundle);
    assert!(bundle.len() > 20_000 && small.len() < 20_000, "{} {}", bundle.len(), small.len());

    for body in [bundle, small] {
        let refused = import(&api, body).await;
        assert_eq!(code(&refused), (413, "PAYLOAD_TOO_LARGE"));
        assert_eq!(refused.1["details"]["limit"], 20_000);
    }
    let request = api.client.post(api.at("/runs/import")).header("content-encoding", "br");
    let encoded = read(request.body("x").send().await.unwrap()).await;
    assert_eq!(code(&encoded), (415, "UNSUPPORTED_MEDIA_TYPE"));
    from.stop().await;
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn importing_takes_a_key_that_may_change_things() {
    let api = Api::with_keys("a:read:reads,b:operate:operates").await;

    let by = async |key: &str| {
        let request = api.client.post(api.at("/runs/import")).bearer_auth(key).body("x");
        request.send().await.unwrap().status().as_u16()
    };

    assert_eq!((by("reads").await, by("operates").await), (403, 400));
    api.stop().await;
}
