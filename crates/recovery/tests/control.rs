//! Suspending, resuming and cancelling a run by hand, with those who may and those who may not.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "clippy takes only functions with `#[test]` for tests, not what they call"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use control_plane_domain::runtime::RuntimeErrorKind;
use control_plane_domain::{RunDescriptor, RunId, RunState, SessionId, SystemClock};
use control_plane_outbound::{AllowList, Client};
use control_plane_recovery::{Changed, Config, Engine, LifecycleError};
use control_plane_storage::{DatabaseUrl, Store};
use control_plane_testkit::agent::{Cast, SessionSpec};
use control_plane_testkit::database::Kind;
use control_plane_testkit::listener::{Listener, Reply};
use control_plane_testkit::runtime::RuntimeProcess;
use control_plane_testkit::scripted::{Failure, ScriptedRuntime, UnaryFault};
use control_plane_testkit::{DEADLINE, message, wait_until};
use serde_json::{Value, json};
use support::{Rig, config, descriptor};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const MODE: &str = message::DECISION;

/// Registers a policy that lets the control plane act on its sessions.
async fn delegating(cast: &Cast) -> String {
    let id = format!("policy.test.{}", SessionId::random().as_str());
    let authority = json!({
        "commitment": { "authority": "designated_role", "designated_roles": ["control-plane"] },
    });
    cast.alice.register_policy(&id, MODE, &authority).await;
    id
}

/// Alice starts a session under this policy, and says something.
async fn opened(cast: &Cast, session: &SessionId, policy: &str) -> Vec<String> {
    let mut spec = SessionSpec::new(MODE, &["alice", "bob", "carol"]).with_id(session);
    policy.clone_into(&mut spec.policy_version);
    let start = cast.alice.start_session(&spec).await;
    let proposal = message::decision::proposal("p1", "deploy");
    vec![start, cast.alice.say(session, MODE, proposal).await]
}

/// Posts a run whose session has these metadata.
async fn post(rig: &Rig, session: &SessionId, metadata: Value) -> RunId {
    let mut body = serde_json::to_value(descriptor(session, MODE)).unwrap();
    body["session"]["metadata"] = metadata;
    rig.engine.launch(RunDescriptor::parse(&body).unwrap()).await.unwrap().run_id
}

/// A run that is followed, with what was accepted in its session.
async fn running(rig: &Rig, cast: &Cast, policy: &str, metadata: Value) -> (RunId, Vec<String>) {
    let session = SessionId::random();
    let accepted = opened(cast, &session, policy).await;
    let run = post(rig, &session, metadata).await;
    rig.reaches(run, RunState::Running).await;
    rig.has_recorded(run, accepted.len()).await;
    (run, accepted)
}

fn delegated() -> Value {
    json!({ "cancellationDelegated": true })
}

fn callback(server: &Listener) -> Value {
    json!({ "cancelCallback": { "url": server.url("/cancel"), "bearer": "hush" } })
}

/// A client that may call this machine.
fn open() -> Client {
    Client::guarded(AllowList::parse(&["127.0.0.1".to_owned()]).unwrap()).unwrap()
}

async fn cancel(rig: &Rig, run: RunId) -> Result<Changed, LifecycleError> {
    rig.engine.cancel(run, Some("enough"), &open()).await
}

/// The run is over, once, and nothing comes after that.
async fn ended_once(rig: &Rig, run: RunId, name: &str) {
    let story = rig.story(run).await;
    let ends = ["run.completed", "run.failed", "run.cancelled"];
    let told: Vec<&String> = story.iter().filter(|it| ends.contains(&it.as_str())).collect();
    assert_eq!(told, [name], "{story:?}");
    assert_eq!(story.last().map(String::as_str), Some(name));
}

/// The run goes on, and its log does not say that anything else was tried.
async fn goes_on(rig: &Rig, run: RunId) {
    assert_eq!(rig.store.run_get(run).await.unwrap().state, RunState::Running);
    let story = rig.story(run).await;
    for name in ["run.cancelled", "run.suspended", "run.failed"] {
        assert!(!story.iter().any(|told| told == name), "{story:?}");
    }
    assert_eq!(rig.store.inbox_list(run).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_suspends_resumes_and_cancels() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let policy = delegating(&cast).await;
        let rig = Rig::start(kind, runtime.client());
        let (run, accepted) = running(&rig, &cast, &policy, delegated()).await;

        let suspended = rig.engine.suspend(run, None).await.unwrap();
        let twice = rig.engine.suspend(run, None).await.unwrap_err();
        let resumed = rig.engine.resume(run, Some("lunch is over")).await.unwrap();
        let again = rig.engine.resume(run, None).await.unwrap_err();
        let cancelled = cancel(&rig, run).await.unwrap();
        let once_more = cancel(&rig, run).await.unwrap();

        assert_eq!((suspended.run.state, suspended.done), (RunState::Suspended, true));
        assert!(matches!(twice, LifecycleError::NotRunning(RunState::Suspended)), "{twice}");
        assert_eq!((resumed.run.state, resumed.done), (RunState::Running, true));
        assert!(matches!(again, LifecycleError::NotSuspended(RunState::Running)), "{again}");
        assert_eq!((cancelled.run.state, cancelled.done), (RunState::Cancelled, true));
        assert_eq!(once_more.run, cancelled.run);
        ended_once(&rig, run, "run.cancelled").await;
        rig.is_whole(run, &accepted).await;
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_of_the_runtime_changes_nothing() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let rig = Rig::start(kind, runtime.client());
        let (run, accepted) = running(&rig, &cast, "", delegated()).await;

        let refusals = [
            rig.engine.suspend(run, None).await.unwrap_err(),
            cancel(&rig, run).await.unwrap_err(),
        ];

        for refusal in refusals {
            let LifecycleError::Runtime(fault) = refusal else { panic!("{refusal}") };
            assert_eq!((fault.kind, fault.grpc_code), (RuntimeErrorKind::Forbidden, 7));
        }
        goes_on(&rig, run).await;
        let session = rig.store.session_get(run).await.unwrap().unwrap().session_id;
        cast.alice.suspend(&session, "for now").await;
        rig.reaches(run, RunState::Suspended).await;
        assert!(rig.engine.resume(run, None).await.is_err());
        assert_eq!(rig.store.run_get(run).await.unwrap().state, RunState::Suspended);
        rig.is_whole(run, &accepted).await;
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_cancel_at_once_end_the_run_once() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let policy = delegating(&cast).await;
        let rig = Rig::start(kind, runtime.client());
        let (run, accepted) = running(&rig, &cast, &policy, delegated()).await;

        let all = futures_util::future::join_all((0..8).map(|_| cancel(&rig, run))).await;

        assert!(all.iter().all(Result::is_ok), "{all:?}");
        rig.reaches(run, RunState::Cancelled).await;
        ended_once(&rig, run, "run.cancelled").await;
        rig.is_whole(run, &accepted).await;
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callback_that_accepts_ends_the_run_when_its_session_ends() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let rig = Rig::start(kind, runtime.client());
        let session = SessionId::random();
        let accepted = opened(&cast, &session, "").await;
        // The initiator does what it is told.
        let (alice, its) = (cast.alice.clone(), session.clone());
        let server = Listener::start(move |_| {
            let (alice, its) = (alice.clone(), its.clone());
            tokio::spawn(async move { alice.cancel(&its, "told to").await });
            Reply::Json(202, json!({}))
        })
        .await;
        let run = post(&rig, &session, callback(&server)).await;
        rig.reaches(run, RunState::Running).await;

        let cancelled = cancel(&rig, run).await.unwrap();
        let once_more = cancel(&rig, run).await.unwrap();

        assert_eq!((cancelled.run.state, cancelled.done), (RunState::Cancelled, true));
        assert_eq!(once_more.run, cancelled.run);
        let received = server.received();
        assert_eq!(received.len(), 1, "a run that is over calls nobody");
        assert_eq!(received[0].line, "POST /cancel HTTP/1.1");
        assert_eq!(received[0].body, json!({ "runId": run, "reason": "enough" }));
        assert_eq!(received[0].headers["authorization"], "Bearer hush");
        ended_once(&rig, run, "run.cancelled").await;
        rig.is_whole(run, &accepted).await;
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callback_that_only_says_yes_does_not_end_a_run_whose_session_goes_on() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let rig = Rig::start(Kind::Sqlite, runtime.client());
    let server = Listener::always(Reply::Json(200, json!({}))).await;
    let (run, accepted) = running(&rig, &cast, "", callback(&server)).await;

    let taken_on = rig.engine.cancel(run, None, &open()).await.unwrap();

    assert_eq!((taken_on.run.state, taken_on.done), (RunState::Running, false));
    assert_eq!(server.received()[0].body, json!({ "runId": run, "reason": null }));
    goes_on(&rig, run).await;
    rig.is_whole(run, &accepted).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callback_that_fails_changes_nothing() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let patience = Config { callback_timeout: Duration::from_millis(300), ..config() };
        let rig = Rig::with_config(kind, runtime.client(), patience);
        let inner = Listener::always(Reply::Json(200, json!({}))).await;
        let replies = [
            Reply::Json(403, json!({})),
            Reply::Json(500, json!({})),
            Reply::Redirect(inner.url("/cancel")),
            Reply::Nothing,
            Reply::Close,
        ];
        for reply in replies {
            let server = Listener::always(reply.clone()).await;
            let (run, _) = running(&rig, &cast, "", callback(&server)).await;

            let refusal = cancel(&rig, run).await.unwrap_err();

            assert!(
                matches!(
                    refusal,
                    LifecycleError::Callback(_) | LifecycleError::CallbackRefused(403 | 500 | 302)
                ),
                "{reply:?}: {refusal}"
            );
            assert!(!refusal.to_string().contains("hush"));
            assert_eq!(server.received().len(), 1);
            goes_on(&rig, run).await;
        }
        assert_eq!(inner.received(), []);
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callback_at_a_private_address_is_not_called() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let rig = Rig::start(Kind::Sqlite, runtime.client());
    let server = Listener::always(Reply::Json(200, json!({}))).await;
    let careful = Client::guarded(AllowList::default()).unwrap();
    let (run, _) = running(&rig, &cast, "", callback(&server)).await;

    let refusal = rig.engine.cancel(run, None, &careful).await.unwrap_err();

    assert!(matches!(refusal, LifecycleError::Callback(_)), "{refusal}");
    assert_eq!(server.received(), []);
    goes_on(&rig, run).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delegation_goes_before_a_callback() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let policy = delegating(&cast).await;
    let rig = Rig::start(Kind::Sqlite, runtime.client());
    let server = Listener::always(Reply::Json(500, json!({}))).await;
    let mut both = callback(&server);
    both["cancellationDelegated"] = json!(true);
    let (run, _) = running(&rig, &cast, &policy, both).await;

    assert!(cancel(&rig, run).await.unwrap().done);

    assert_eq!(server.received(), []);
    ended_once(&rig, run, "run.cancelled").await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_nobody_may_cancel_from_here_says_so() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let rig = Rig::start(Kind::Sqlite, runtime.client());
    let (run, _) = running(&rig, &cast, "", json!({})).await;

    let refusal = cancel(&rig, run).await.unwrap_err();

    assert!(matches!(refusal, LifecycleError::NoWay), "{refusal}");
    goes_on(&rig, run).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_waits_for_its_session_is_cancelled_and_waits_no_more() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let rig = Rig::start(kind, runtime.client());
        let server = Listener::always(Reply::Json(500, json!({}))).await;
        for metadata in [json!({}), delegated(), callback(&server)] {
            let session = SessionId::random();
            let run = post(&rig, &session, metadata).await;
            rig.reaches(run, RunState::Starting).await;

            let cancelled = cancel(&rig, run).await.unwrap();

            assert_eq!((cancelled.run.state, cancelled.done), (RunState::Cancelled, true));
            assert_eq!(cancelled.run.session_id, Some(session.clone()), "it keeps its session");
            wait_until(DEADLINE, async || rig.engine.following() == 0).await;
            // Its session comes after all, and is not followed.
            opened(&cast, &session, "").await;
            ended_once(&rig, run, "run.cancelled").await;
            rig.is_whole(run, &[]).await;
        }
        assert_eq!(server.received(), []);
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_cancelled_while_the_runtime_is_away() {
    let mut runtime = ScriptedRuntime::start().await;
    let client = runtime.client();
    runtime.stop();
    let rig = Rig::start(Kind::Sqlite, client);
    let plain = post(&rig, &SessionId::random(), json!({})).await;
    let ours = post(&rig, &SessionId::random(), delegated()).await;
    rig.reaches(plain, RunState::Starting).await;
    rig.reaches(ours, RunState::Starting).await;

    let cancelled = cancel(&rig, plain).await.unwrap();
    let refused = cancel(&rig, ours).await.unwrap_err();

    assert_eq!(cancelled.run.state, RunState::Cancelled);
    // Its session may exist, and we are the one who has to cancel it.
    let LifecycleError::Runtime(fault) = refused else { panic!("{refused}") };
    assert_eq!(fault.kind, RuntimeErrorKind::Unavailable);
    assert_eq!(rig.store.run_get(ours).await.unwrap().state, RunState::Starting);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_was_cancelled_before_it_was_seen_is_recorded_first() {
    let mut runtime = ScriptedRuntime::start().await;
    let rig = Rig::start(Kind::Sqlite, runtime.client());
    let session = SessionId::random();
    for _ in 0..2 {
        runtime.fail_next("GetSession", UnaryFault::Fail(Failure::Internal));
    }
    let spec = SessionSpec::new(MODE, &["alice", "bob", "carol"]).with_id(&session);
    let accepted = vec![runtime.open_session(&spec, "alice")];
    let run = post(&rig, &session, delegated()).await;

    let cancelled = cancel(&rig, run).await.unwrap();

    assert_eq!(cancelled.run.state, RunState::Cancelled);
    rig.is_whole(run, &accepted).await;
    ended_once(&rig, run, "run.cancelled").await;
    runtime.stop();
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_arrives_although_the_watch_is_gone() {
    let runtime = ScriptedRuntime::start().await;
    // Every watch breaks at once, and nobody lists the sessions.
    for _ in 0..10_000 {
        runtime.fail_next("WatchSessions", UnaryFault::Fail(Failure::Internal));
    }
    let deaf = Config { sweep: Duration::from_secs(3600), ..config() };
    let rig = Rig::with_config(Kind::Sqlite, runtime.client(), deaf);
    let spec = SessionSpec::new(MODE, &["alice", "bob", "carol"]);
    let accepted = vec![runtime.open_session(&spec, "alice")];
    let run = post(&rig, &spec.session_id, delegated()).await;
    rig.has_recorded(run, 1).await;
    rig.reaches(run, RunState::Running).await;

    let suspended = rig.engine.suspend(run, None).await.unwrap();
    let resumed = rig.engine.resume(run, None).await.unwrap();
    let cancelled = cancel(&rig, run).await.unwrap();

    assert_eq!((suspended.run.state, suspended.done), (RunState::Suspended, true));
    assert_eq!((resumed.run.state, resumed.done), (RunState::Running, true));
    assert_eq!((cancelled.run.state, cancelled.done), (RunState::Cancelled, true));
    rig.is_whole(run, &accepted).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_that_does_not_answer_is_no_consent() {
    let runtime = ScriptedRuntime::start().await;
    let mut hasty = runtime.client_config();
    hasty.request_timeout = Duration::from_millis(500);
    let client = control_plane_runtime::Client::new(&hasty).unwrap();
    let rig = Rig::start(Kind::Sqlite, client);
    let spec = SessionSpec::new(MODE, &["alice", "bob", "carol"]);
    runtime.open_session(&spec, "alice");
    let run = post(&rig, &spec.session_id, delegated()).await;
    rig.reaches(run, RunState::Running).await;
    runtime.fail_next("CancelSession", UnaryFault::Hang);

    let LifecycleError::Runtime(fault) = cancel(&rig, run).await.unwrap_err() else {
        panic!("not the runtime's")
    };

    assert_eq!(fault.kind, RuntimeErrorKind::Timeout);
    goes_on(&rig, run).await;
    assert!(cancel(&rig, run).await.unwrap().done);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_of_another_instance_is_cancelled_from_here() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let policy = delegating(&cast).await;
    let owner = Rig::start(Kind::Postgres, runtime.client());
    let (run, accepted) = running(&owner, &cast, &policy, delegated()).await;
    let waiting = post(&owner, &SessionId::random(), json!({})).await;
    owner.reaches(waiting, RunState::Starting).await;
    let url = DatabaseUrl::parse(owner.database.url()).unwrap();
    let store = Store::connect(&control_plane_storage::Config::new(url)).unwrap();
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let other = Engine::start(
        store,
        Arc::new(runtime.client()),
        Arc::new(SystemClock),
        config(),
        stop.clone(),
        tasks.clone(),
    );

    for id in [run, waiting] {
        let cancelled = other.cancel(id, None, &open()).await.unwrap();
        assert_eq!((cancelled.run.state, cancelled.done), (RunState::Cancelled, true));
        ended_once(&owner, id, "run.cancelled").await;
    }

    assert_eq!(other.following(), 0);
    owner.is_whole(run, &accepted).await;
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    owner.stop().await;
}
