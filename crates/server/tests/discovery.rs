//! Sessions that nobody posted, through a server process with its defaults.

mod support;

use control_plane_domain::SessionId;
use control_plane_testkit::agent::SessionSpec;
use control_plane_testkit::database::Kind;
use control_plane_testkit::runtime::RuntimeProcess;
use control_plane_testkit::{DEADLINE, message, wait_for};
use serde_json::json;
use support::Stage;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_there_under_its_id_and_becomes_the_run_that_is_posted_for_it() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let stage = Stage::set(kind, &runtime).await;
        let session = SessionId::random();
        let spec = SessionSpec::new(message::DECISION, &["alice", "bob"]).with_id(&session);
        cast.alice.start_session(&spec).await;
        let path = format!("/runs/{session}");
        let ask = async || stage.server.get(&path).await;
        let is_running = |(_, run): &(u16, serde_json::Value)| run["status"] == "running";
        let (status, found) = wait_for(DEADLINE, ask, is_running).await;
        assert_eq!((status, &found["sourceKind"]), (200, &json!("session-discovery")));

        let mut posted = json!({
            "mode": "live",
            "runtime": { "kind": "rust" },
            "session": {
                "sessionId": session, "modeName": message::DECISION, "modeVersion": "1.0.0",
                "configurationVersion": "config.default", "ttlMs": 60_000,
                "participants": [{ "id": "alice" }, { "id": "bob" }],
                "metadata": { "source": "playground" },
            },
            "execution": { "tags": ["mine"] },
        });
        let (status, launched) = stage.server.post("/runs", &posted).await;

        assert_eq!(status, 201, "{launched}");
        assert_eq!(launched["runId"], found["id"]);
        assert_eq!(
            (&launched["sessionId"], &launched["status"]),
            (&json!(session), &json!("running"))
        );
        let (_, run) = stage.server.get(&path).await;
        assert_eq!((&run["tags"], &run["sourceKind"]), (&json!(["mine"]), &json!("playground")));
        posted["execution"]["tags"] = json!(["theirs"]);
        let (status, refused) = stage.server.post("/runs", &posted).await;
        assert_eq!((status, &refused["errorCode"]), (409, &json!("SESSION_ALREADY_EXISTS")));
        assert_eq!(refused["details"]["runId"], found["id"]);
        let (status, drift) = stage.server.get("/admin/runtime/sessions").await;
        assert_eq!(status, 200);
        assert_eq!(
            drift,
            json!({
                "complete": true, "pagesFetched": 1, "runtimeSessionCount": 1,
                "liveRuntimeSessionCount": 1, "trackedRunCount": 1, "waitingRunCount": 0,
                "untrackedSessionCount": 0, "untrackedSessions": [],
                "missingFromRuntimeCount": 0, "missingFromRuntime": [],
                "stateDriftCount": 0, "stateDrift": [],
            })
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_discovery_switched_off_a_session_is_only_named() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let off = [("SESSION_DISCOVERY_ENABLED", "false")];
    let stage = Stage::with(Kind::Sqlite, &runtime, &off).await;
    let session = SessionId::random();
    let spec = SessionSpec::new(message::DECISION, &["alice", "bob"]).with_id(&session);
    cast.alice.start_session(&spec).await;

    let (status, drift) = stage.server.get("/admin/runtime/sessions").await;

    assert_eq!(status, 200);
    let stranger = &drift["untrackedSessions"][0];
    assert_eq!(stranger["sessionId"], json!(session));
    assert_eq!(stranger["state"], "SESSION_STATE_OPEN");
    assert_eq!((&stranger["initiator"], &stranger["deleted"]), (&json!("alice"), &json!(false)));
    assert_eq!(drift["untrackedSessionCount"], 1);
    assert_eq!(stage.server.get(&format!("/runs/{session}")).await.0, 404);
}
