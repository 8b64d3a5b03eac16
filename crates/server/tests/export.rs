//! A real decision, taken along.

mod support;

use control_plane_testkit::DEADLINE;
use control_plane_testkit::database::Kind;
use control_plane_testkit::message;
use control_plane_testkit::runtime::RuntimeProcess;
use control_plane_testkit::sse::SseClient;
use serde_json::{Value, json};
use support::{Stage, Talk};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bundle_of_a_decision_ends_where_its_stream_ends() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let stage = Stage::set(kind, &runtime).await;
        let mut talk = Talk::open(&cast).await;
        let run = stage.post(&talk.session, message::DECISION).await;
        talk.evaluate(&cast).await;
        talk.end(&cast).await;
        stage.reaches(run, "completed").await;

        let path = format!("/runs/{run}/stream?afterSeq=0&includeSnapshot=false");
        let mut stream = SseClient::open(stage.server.url(&path)).await;
        let frames = stream.collect_until("end", DEADLINE).await;
        let path = format!("/runs/{run}/export?includeRaw=true");
        let (status, bundle) = stage.server.get(&path).await;

        assert_eq!(status, 200);
        let end = frames.last().unwrap();
        let link = json!({ "seq": end.cursor(), "hash": end.json()["hash"] });
        assert_eq!(bundle["manifest"]["log"], link, "{kind:?}");
        assert_eq!(bundle["manifest"]["chain"]["to"], link);
        let streamed = frames.iter().filter(|frame| frame.name() == "canonical_event");
        let streamed: Vec<Value> = streamed.map(|frame| frame.json()).collect();
        assert_eq!(bundle["canonicalEvents"], json!(streamed));
        let raw = bundle["rawEvents"].as_array().unwrap();
        let ids = raw.iter().map(|raw| raw["payload"]["envelope"]["messageId"].as_str().unwrap());
        assert_eq!(ids.collect::<Vec<_>>(), talk.accepted);
        let count = talk.accepted.len();
        assert_eq!(
            bundle["manifest"]["ordinals"],
            json!({ "first": 1, "last": count, "recorded": count, "cursor": count })
        );
        assert_eq!(bundle["manifest"]["gaps"], json!([]));
        assert_eq!(bundle["run"]["status"], "completed");
        assert_eq!(bundle["projection"]["decision"]["current"]["finalized"], true);
        assert_eq!(bundle["session"]["sessionState"], "SESSION_STATE_RESOLVED");
    }
}
