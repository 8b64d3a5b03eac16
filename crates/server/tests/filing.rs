//! Runs that are done again and cancelled together, on the real runtime.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "clippy takes only functions with `#[test]` for tests, not what they call"
)]

mod support;

use control_plane_domain::{RunId, SessionId};
use control_plane_testkit::agent::{Cast, SessionSpec};
use control_plane_testkit::database::Kind;
use control_plane_testkit::listener::{Listener, Reply};
use control_plane_testkit::runtime::RuntimeProcess;
use control_plane_testkit::{message, play};
use serde_json::{Value, json};
use support::{Stage, descriptor};

/// What the launch or clone at `path` made.
async fn launched(stage: &Stage, path: &str, body: &Value) -> (RunId, SessionId) {
    let (status, made) = stage.server.post(path, body).await;
    assert_eq!(status, 201, "{made}");
    let run = made["runId"].as_str().unwrap().parse().unwrap();
    (run, SessionId::trusted(made["sessionId"].as_str().unwrap()))
}

/// Starts the session of a run, under this policy.
async fn begin(stage: &Stage, cast: &Cast, run: RunId, session: &SessionId, policy: &str) {
    let participants = ["alice", "bob", "carol"];
    let mut spec = SessionSpec::new(message::DECISION, &participants).with_id(session);
    policy.clone_into(&mut spec.policy_version);
    cast.alice.start_session(&spec).await;
    stage.reaches(run, "running").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_is_followed_to_its_end_and_its_callback_knows_the_secret() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let initiator = Listener::always(Reply::Json(503, json!({}))).await;
        let open = [("OUTBOUND_ALLOWED_HOSTS", "127.0.0.1")];
        let stage = Stage::with(kind, &runtime, &open).await;
        let mut body = descriptor(&SessionId::random(), message::DECISION);
        body["session"]["metadata"] =
            json!({ "cancelCallback": { "url": initiator.url("/cancel"), "bearer": "hush" } });
        let (first, session) = launched(&stage, "/runs", &body).await;
        play::decision(&cast, &session).await;
        stage.reaches(first, "completed").await;

        let path = format!("/runs/{first}/clone");
        let (second, session) = launched(&stage, &path, &json!({ "tags": ["again"] })).await;
        let (third, other) = launched(&stage, &path, &json!({})).await;
        play::decision(&cast, &session).await;
        begin(&stage, &cast, third, &other, "").await;
        let (status, _) = stage.server.post(&format!("/runs/{third}/cancel"), &json!({})).await;

        let run = stage.reaches(second, "completed").await;
        assert_eq!((status, &run["tags"]), (502, &json!(["again"])));
        let asked = initiator.received();
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].headers["authorization"], "Bearer hush");
        assert!(!run.to_string().contains("hush") && !stage.server.log().contains("hush"));
        let body = json!({ "leftRunId": first, "rightRunId": second });
        let (status, found) = stage.server.post("/runs/compare", &body).await;
        assert_eq!((status, &found["identical"]), (201, &json!(true)), "{found:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_cancelled_together_where_their_policy_lets_us() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let ours = json!({
            "commitment": {
                "authority": "designated_role", "designated_roles": ["control-plane"],
            },
        });
        cast.alice.register_policy("policy.test.ours", message::DECISION, &ours).await;
        let stage = Stage::set(kind, &runtime).await;
        let mut ids = Vec::new();
        for policy in ["policy.test.ours", "policy.test.ours", ""] {
            let mut body = descriptor(&SessionId::random(), message::DECISION);
            body["session"]["metadata"] = json!({ "cancellationDelegated": true });
            let (run, session) = launched(&stage, "/runs", &body).await;
            begin(&stage, &cast, run, &session, policy).await;
            ids.push(run);
        }

        let body = json!({ "runIds": ids });
        let (status, answer) = stage.server.post("/runs/batch/cancel", &body).await;
        let (_, archived) = stage.server.post("/runs/batch/archive", &body).await;
        let (_, deleted) = stage.server.post("/runs/batch/delete", &body).await;

        let outcomes = |answer: &Value| -> Vec<String> {
            let entries = answer.as_array().unwrap().iter();
            entries.map(|entry| entry["status"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(status, 201);
        assert_eq!(outcomes(&answer), ["cancelled", "cancelled", "failed"], "{answer:#}");
        assert_eq!(outcomes(&archived), ["archived", "archived", "archived"]);
        assert_eq!(outcomes(&deleted), ["deleted", "deleted", "failed"]);
        stage.reaches(ids[2], "running").await;
    }
}
