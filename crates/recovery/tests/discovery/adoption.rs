//! A run that was discovered becomes that of whoever posts its session.

use control_plane_domain::{RunDescriptor, RunState, SessionId};
use control_plane_recovery::LaunchError;
use control_plane_testkit::database::Kind;
use control_plane_testkit::message;
use control_plane_testkit::runtime::RuntimeProcess;
use control_plane_testkit::scripted::{Fault, ScriptedRuntime, Then, UnaryFault};
use control_plane_testkit::{DEADLINE, play, wait_for, wait_until};
use serde_json::{Value, json};

use super::support::Rig;
use super::{discovering, ended, opened, spec};

/// What a launcher posts, with everything by which runs are filed.
fn posted(session: &SessionId, key: Option<&str>, tag: &str) -> RunDescriptor {
    let mut execution = json!({ "tags": [tag], "requester": { "actorId": "u-1" } });
    if let Some(key) = key {
        execution["idempotencyKey"] = json!(key);
    }
    RunDescriptor::parse(&json!({
        "mode": "sandbox",
        "runtime": { "kind": "rust", "version": "0.13" },
        "session": {
            "sessionId": session.as_str(),
            "modeName": message::DECISION,
            "modeVersion": "1.0.0",
            "configurationVersion": "another",
            "ttlMs": 600_000,
            "participants": [{ "id": "alice" }, { "id": "bob" }, { "id": "mallory" }],
            "metadata": {
                "source": "playground", "sourceRef": "case-7", "environment": "staging",
                "scenarioRef": "fraud", "cancelCallback": { "url": "https://a.example/cancel" },
            },
        },
        "execution": execution,
    }))
    .unwrap()
}

/// The events of an adoption.
async fn adoptions(rig: &Rig, run: control_plane_domain::RunId) -> Vec<Value> {
    let events = rig.events(run).await;
    let bound = events.iter().filter(|event| event.event_type.as_str() == "session.bound");
    bound
        .map(|event| Value::Object(event.data.clone()))
        .filter(|data| data["adopted"] == true)
        .collect()
}

/// That the run is filed as it was posted.
async fn is_filed(rig: &Rig, run: control_plane_domain::RunId, tag: &str) {
    let adopted = rig.store.run_get(run).await.unwrap();
    assert_eq!(adopted.tags, [tag, "sandbox"]);
    assert_eq!(adopted.mode, control_plane_domain::run::RunMode::Sandbox);
    assert_eq!(adopted.source_kind.as_deref(), Some("playground"));
    assert_eq!(adopted.source_ref.as_deref(), Some("case-7"));
    assert_eq!(adopted.runtime_version.as_deref(), Some("0.13"));
    assert_eq!(adopted.metadata["environment"], "staging");
    assert_eq!(adopted.metadata["scenarioRef"], "fraud");
    assert_eq!(adopted.metadata["requester"], json!({ "actorId": "u-1" }));
    assert_eq!(adopted.metadata["cancelCallback"]["url"], "https://a.example/cancel");
    assert_eq!(adopted.metadata["executionRequest"]["execution"]["tags"], json!([tag]));
    assert!(!adopted.is_unclaimed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_was_found_is_taken_over_while_it_goes_on() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let rig = Rig::with_config(kind, runtime.client(), discovering());
        let session = SessionId::random();
        let mut accepted = opened(&cast, &session).await;
        let run = rig.finds(&session).await;
        rig.reaches(run, RunState::Running).await;

        let launched = rig.engine.launch(posted(&session, Some("key"), "t")).await.unwrap();

        assert_eq!((launched.run_id, &launched.session_id), (run, &session));
        assert_eq!(launched.state, RunState::Running);
        is_filed(&rig, run, "t").await;
        let told = adoptions(&rig, run).await;
        assert_eq!(told.len(), 1);
        assert_eq!(told[0]["participants"], json!(["alice", "bob", "carol"]));
        assert_eq!(
            told[0]["differences"],
            json!({
                "configurationVersion": { "requested": "another", "session": "config.default" },
                "participants": {
                    "requested": ["alice", "bob", "mallory"], "session": ["alice", "bob", "carol"],
                },
            })
        );
        // The same request again is the same run; another one is told whose it is.
        let again = rig.engine.launch(posted(&session, Some("key"), "t")).await.unwrap();
        assert_eq!((again.run_id, again.created), (run, false));
        let other = rig.engine.launch(posted(&session, None, "other")).await;
        assert!(matches!(other, Err(LaunchError::SessionTaken { run_id }) if run_id == run));

        ended(&cast, &session, &mut accepted).await;
        rig.reaches(run, RunState::Completed).await;
        rig.is_whole(run, &accepted).await;
        is_filed(&rig, run, "t").await;
        assert_eq!(rig.store.run_get(run).await.unwrap().metadata["decisionCount"], 1);
        assert_eq!(adoptions(&rig, run).await.len(), 1);
        assert_eq!(rig.count_runs().await, 1);
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_was_found_and_is_over_is_taken_over_as_it_is() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let session = SessionId::random();
        let accepted = play::decision(&cast, &session).await;
        let rig = Rig::with_config(kind, runtime.client(), discovering());
        let run = rig.finds(&session).await;
        rig.reaches(run, RunState::Completed).await;
        let before = rig.store.run_get(run).await.unwrap();

        let launched = rig.engine.launch(posted(&session, None, "late")).await.unwrap();

        assert_eq!((launched.run_id, launched.state), (run, RunState::Completed));
        is_filed(&rig, run, "late").await;
        let after = rig.store.run_get(run).await.unwrap();
        assert_eq!(after.metadata["durationMs"], before.metadata["durationMs"]);
        assert_eq!(after.metadata["finalAction"], before.metadata["finalAction"]);
        assert_eq!(after.ended_at, before.ended_at);
        assert_eq!(adoptions(&rig, run).await.len(), 1);
        rig.is_whole(run, &accepted).await;
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_posted_first_is_not_found_besides() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let rig = Rig::with_config(kind, runtime.client(), discovering());
        let session = SessionId::random();
        let run = rig.post(&session, message::DECISION).await;
        let mut accepted = opened(&cast, &session).await;
        ended(&cast, &session, &mut accepted).await;
        rig.reaches(run, RunState::Completed).await;
        // This one is found later than that one would have been.
        let marker = SessionId::random();
        opened(&cast, &marker).await;
        rig.finds(&marker).await;

        assert_eq!(rig.count_runs().await, 2);
        assert_eq!(adoptions(&rig, run).await, Vec::<Value>::new());
        rig.is_whole(run, &accepted).await;
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_comes_first_a_session_has_one_run_and_one_launcher() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let rig = Rig::with_config(kind, runtime.client(), discovering());
        let sessions: Vec<SessionId> = (0..20).map(|_| SessionId::random()).collect();
        let scene = async |session: &SessionId| {
            let post = async |tag: &str| rig.engine.launch(posted(session, None, tag)).await;
            let start = async || opened(&cast, session).await;
            let (accepted, one, other) = tokio::join!(start(), post("one"), post("other"));
            (session.clone(), accepted, one, other)
        };

        let outcomes = futures_util::future::join_all(sessions.iter().map(scene)).await;

        for (session, mut accepted, one, other) in outcomes {
            let run = rig.finds(&session).await;
            let winners = [("one", &one), ("other", &other)];
            let won: Vec<&str> =
                winners.iter().filter(|(_, it)| it.is_ok()).map(|(tag, _)| *tag).collect();
            assert_eq!(won.len(), 1, "{one:?} {other:?}");
            for outcome in [&one, &other] {
                let of = match outcome {
                    Ok(launched) => launched.run_id,
                    Err(LaunchError::SessionTaken { run_id }) => *run_id,
                    Err(other) => panic!("{other:?}"),
                };
                assert_eq!(of, run);
            }
            ended(&cast, &session, &mut accepted).await;
            rig.reaches(run, RunState::Completed).await;
            is_filed(&rig, run, won[0]).await;
            rig.is_whole(run, &accepted).await;
        }
        assert_eq!(rig.count_runs().await, 20);
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_request_at_once_gives_everybody_the_same_run() {
    for kind in Kind::ALL {
        let scripted = ScriptedRuntime::start().await;
        let rig = Rig::with_config(kind, scripted.client(), discovering());
        let session = SessionId::random();
        scripted.open_session(&spec(&session), "alice");
        let run = rig.finds(&session).await;

        let post = || rig.engine.launch(posted(&session, Some("key"), "t"));
        let outcomes = futures_util::future::join_all((0..6).map(|_| post())).await;

        for outcome in outcomes {
            assert_eq!(outcome.unwrap().run_id, run);
        }
        wait_until(DEADLINE, async || adoptions(&rig, run).await.len() == 1).await;
        rig.reaches(run, RunState::Running).await;
        rig.log_is_sound(run).await;
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_taken_over_before_it_is_bound_and_its_participants_are_told_once() {
    let scripted = ScriptedRuntime::start().await;
    let rig = Rig::with_config(Kind::Sqlite, scripted.client(), discovering());
    let session = SessionId::random();
    // The first answer stays away until the call's own deadline.
    scripted.fail_next("GetSession", UnaryFault::Delay(std::time::Duration::from_secs(2)));
    scripted.open_session(&spec(&session), "alice");
    let run = rig.finds(&session).await;
    rig.reaches(run, RunState::Starting).await;

    let launched = rig.engine.launch(posted(&session, None, "t")).await.unwrap();

    assert_eq!((launched.run_id, launched.state), (run, RunState::Starting));
    assert_eq!(rig.state(run).await["run"]["status"], "starting");
    rig.reaches(run, RunState::Running).await;
    let story = rig.story(run).await;
    assert_eq!(story.iter().filter(|name| *name == "session.bound").count(), 2, "{story:?}");
    assert_eq!(story.iter().filter(|name| *name == "participant.seen").count(), 3, "{story:?}");
    is_filed(&rig, run, "t").await;
    rig.log_is_sound(run).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adoption_that_nobody_carried_out_is_carried_out_after_a_restart() {
    for kind in Kind::ALL {
        let scripted = ScriptedRuntime::start().await;
        let rig = Rig::with_config(kind, scripted.client(), discovering());
        let session = SessionId::random();
        scripted.fail_next_subscription(&session, Fault::after(1, Then::Stall));
        scripted.open_session(&spec(&session), "alice");
        let run = rig.finds(&session).await;
        rig.reaches(run, RunState::Running).await;
        let (database, client, config) = rig.stop().await;
        // The claim is made, and the process is gone before the owner hears of it.
        let descriptor = posted(&session, None, "t");
        let adoption = control_plane_storage::Adoption {
            request_hash: "hash".to_owned(),
            idempotency_key: None,
            kind: "adoption",
            dedup_key: "adoption".to_owned(),
            payload: json!({ "request": descriptor, "request_hash": "hash" }),
            now: control_plane_domain::time::from_unix_ms(1).unwrap(),
        };
        let store = database.store();
        store.run_adopt(run, adoption).await.unwrap();
        drop(store);

        let resume = async || Rig::resume(database, client, config);
        let rig = resume().await;

        wait_for(DEADLINE, async || adoptions(&rig, run).await.len(), |count| *count == 1).await;
        is_filed(&rig, run, "t").await;
        rig.stop().await;
    }
}
