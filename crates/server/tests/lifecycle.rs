//! Suspending, resuming and cancelling through the server, and a server whose tokens are minted.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "clippy takes only functions with `#[test]` for tests, not what they call"
)]

mod support;

use control_plane_domain::{RunId, SessionId};
use control_plane_testkit::agent::{Cast, SessionSpec};
use control_plane_testkit::auth::AuthService;
use control_plane_testkit::database::Kind;
use control_plane_testkit::listener::{Listener, Reply};
use control_plane_testkit::message;
use control_plane_testkit::runtime::{OBSERVER_TOKEN, Options, RuntimeProcess};
use serde_json::{Value, json};
use support::{EXIT, Stage, Talk, descriptor};

/// Starts a session under this policy, and a run with these metadata that follows it.
async fn running(stage: &Stage, cast: &Cast, policy: &str, metadata: Value) -> (RunId, SessionId) {
    let mut spec = SessionSpec::new(message::DECISION, &["alice", "bob", "carol"]);
    policy.clone_into(&mut spec.policy_version);
    cast.alice.start_session(&spec).await;
    let mut body = descriptor(&spec.session_id, message::DECISION);
    body["session"]["metadata"] = metadata;
    let (status, launched) = stage.server.post("/runs", &body).await;
    assert_eq!(status, 201, "{launched}");
    let run = launched["runId"].as_str().unwrap().parse().unwrap();
    stage.reaches(run, "running").await;
    stage.has_recorded(run, 1).await;
    (run, spec.session_id)
}

/// What a `POST` to the run answers: the status, and the run's status or the error's code.
async fn act(stage: &Stage, run: impl ToString, action: &str) -> (u16, String) {
    let path = format!("/runs/{}/{action}", run.to_string());
    let (status, body) = stage.server.post(&path, &json!({ "reason": "a test" })).await;
    let told = body.get("errorCode").filter(|code| code.is_string()).or(body.get("status"));
    (status, told.and_then(Value::as_str).unwrap_or_default().to_owned())
}

fn said(status: u16, word: &str) -> (u16, String) {
    (status, word.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_suspended_resumed_and_cancelled_where_the_policy_lets_us() {
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
        let delegated = json!({ "cancellationDelegated": true });
        let (free, session) = running(&stage, &cast, "policy.test.ours", delegated.clone()).await;
        let (bound, _) = running(&stage, &cast, "", delegated).await;

        // Runs are found by their session's id, too.
        assert_eq!(act(&stage, session.as_str(), "suspend").await, said(201, "suspended"));
        assert_eq!(act(&stage, free, "suspend").await, said(400, "VALIDATION_ERROR"));
        assert_eq!(act(&stage, free, "resume").await, said(201, "running"));
        assert_eq!(act(&stage, free, "cancel").await, said(201, "cancelled"));
        assert_eq!(act(&stage, free, "cancel").await, said(201, "cancelled"));
        for action in ["suspend", "cancel"] {
            assert_eq!(act(&stage, bound, action).await, said(403, "FORBIDDEN"));
        }

        assert_eq!(stage.server.get(&format!("/runs/{bound}")).await.1["status"], "running");
        let state = stage.server.get(&format!("/runs/{free}/state")).await.1;
        assert_eq!(state["run"]["status"], "cancelled", "{state:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_callback_is_made_only_where_an_operator_has_opened_the_way() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let server = Listener::always(Reply::Json(503, json!({}))).await;
    let callback = json!({ "cancelCallback": { "url": server.url("/cancel"), "bearer": "hush" } });
    let closed = Stage::set(Kind::Sqlite, &runtime).await;
    let open = [("OUTBOUND_ALLOWED_HOSTS", "127.0.0.1")];
    let opened = Stage::with(Kind::Sqlite, &runtime, &open).await;
    let (inside, _) = running(&closed, &cast, "", callback.clone()).await;
    let (outside, _) = running(&opened, &cast, "", callback).await;

    assert_eq!(act(&closed, inside, "cancel").await, said(502, "INTERNAL_ERROR"));
    assert_eq!(server.received().len(), 0);
    assert_eq!(act(&opened, outside, "cancel").await, said(502, "INTERNAL_ERROR"));
    assert_eq!(server.received().len(), 1);

    for (stage, run) in [(&closed, inside), (&opened, outside)] {
        assert_eq!(stage.server.get(&format!("/runs/{run}")).await.1["status"], "running");
        assert!(!stage.server.log().contains("hush"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_minted_tokens_waits_for_the_service_that_mints_them() {
    for kind in Kind::ALL {
        let auth = AuthService::start(2).await;
        auth.set_down(true);
        let runtime = RuntimeProcess::start(AuthService::trusted_by(Options::default())).await;
        let cast = runtime.cast().await;
        let url = auth.url();
        let mut stage = Stage::with(
            kind,
            &runtime,
            &[("MACP_AUTH_SERVICE_URL", url.as_str()), ("MACP_AUTH_TOKEN_SENDER", "control-plane")],
        )
        .await;
        let mut talk = Talk::open(&cast).await;
        let run = stage.post(&talk.session, message::DECISION).await;
        stage.reaches(run, "starting").await;
        let (status, body) = stage.server.get("/runtime/modes").await;
        assert_eq!((status, &body["errorCode"]), (503, &json!("RUNTIME_UNAVAILABLE")));
        assert!(body["message"].as_str().unwrap().contains("auth service"), "{body}");

        auth.set_down(false);

        stage.reaches(run, "running").await;
        talk.evaluate(&cast).await;
        talk.end(&cast).await;
        stage.reaches(run, "completed").await;
        stage.is_whole(run, &talk.accepted).await;
        let log = stage.server.log();
        assert!(log.contains("the auth service at"), "{log}");
        assert!(!log.contains("eyJ") && !log.contains(OBSERVER_TOKEN), "{log}");
        assert_eq!(stage.server.terminate(EXIT).await, 0);
    }
}
