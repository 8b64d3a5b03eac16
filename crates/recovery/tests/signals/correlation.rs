//! How a signal's run is found.

use control_plane_domain::{RunState, SessionId};
use control_plane_testkit::database::Kind;
use control_plane_testkit::runtime::RuntimeProcess;
use control_plane_testkit::{DEADLINE, message, play, wait_for};
use serde_json::json;

use super::support::Rig;
use super::{is_told, open, running, tell};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_and_a_report_of_progress_are_recorded_in_the_run_they_name() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let rig = Rig::start(kind, runtime.client());
        let (session, run, accepted) = running(&rig, &cast).await;

        cast.bob.progress(&session, message::DECISION, 1.0, 2.0).await;
        let call = message::signal(
            "llm.call.completed",
            session.as_str(),
            &json!({ "model": "gpt-4o", "tokenUsage": { "promptTokens": 100, "completionTokens": 20 } }),
        );
        cast.carol.signal(call).await;

        rig.has_event(run, "progress.reported").await;
        let told = rig.has_event(run, "llm.call.completed").await;
        assert_eq!(told.data["senderAuthenticated"], true, "{:#?}", told.data);
        let ask = async || rig.store.metrics_get(run).await.unwrap().unwrap().total_tokens;
        wait_for(DEADLINE, ask, |tokens| *tokens == 120).await;
        assert_eq!(rig.store.inbox_list(run).await.unwrap(), []);
        rig.is_whole(run, &accepted).await;
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_after_the_end_still_reaches_the_log() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let rig = Rig::start(kind, runtime.client());
        let session = SessionId::random();
        let run = rig.post(&session, message::DECISION).await;
        let accepted = play::decision(&cast, &session).await;
        rig.reaches(run, RunState::Completed).await;

        let id = tell(&cast.bob, &session, "afterthought").await;

        is_told(&rig, run, &[id]).await;
        rig.is_whole(run, &accepted).await;
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_on_a_message_reaches_the_run_that_has_it() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let rig = Rig::start(kind, runtime.client());
        let (_, active, accepted) = running(&rig, &cast).await;
        let session = SessionId::random();
        let over = rig.post(&session, message::DECISION).await;
        let said = play::decision(&cast, &session).await;
        rig.reaches(over, RunState::Completed).await;

        let on_active = cast.bob.signal(message::progress_on(&accepted[0])).await;
        let on_over = cast.bob.signal(message::progress_on(&said[3])).await;

        is_told(&rig, active, &[on_active]).await;
        is_told(&rig, over, &[on_over]).await;
        rig.is_whole(active, &accepted).await;
        rig.is_whole(over, &said).await;
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_on_a_message_that_two_runs_have_reaches_neither() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let rig = Rig::start(kind, runtime.client());
        let mut runs = Vec::new();
        for _ in 0..2 {
            let (session, run, mut accepted) = running(&rig, &cast).await;
            let what = message::decision::proposal("p1", "deploy");
            let mut envelope = cast.alice.envelope(session.as_str(), message::DECISION, what);
            "the-same-in-both".clone_into(&mut envelope.message_id);
            accepted.push(cast.alice.send(envelope).await.unwrap().message_id);
            rig.has_recorded(run, 2).await;
            runs.push((session, run, accepted));
        }

        cast.bob.signal(message::progress_on("the-same-in-both")).await;
        // Signals are recorded in their order, so when these are there, that one was decided.
        for (session, run, accepted) in &runs {
            let id = tell(&cast.bob, session, "fence").await;
            is_told(&rig, *run, &[id]).await;
            rig.is_whole(*run, accepted).await;
        }

        assert_eq!(rig.store.signals_held().await.unwrap(), 0, "it will never be clearer");
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_named_decides_before_a_message() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let rig = Rig::start(Kind::Sqlite, runtime.client());
    let (session, run, accepted) = running(&rig, &cast).await;
    let (_, other, elsewhere) = running(&rig, &cast).await;

    // Progress of one session on a message of another one.
    let what = message::progress_on(&elsewhere[0]);
    let id = cast.bob.say(&session, message::DECISION, what).await;

    is_told(&rig, run, &[id]).await;
    is_told(&rig, other, &[]).await;
    rig.is_whole(run, &accepted).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_id_of_a_run_is_no_session() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let rig = Rig::start(Kind::Sqlite, runtime.client());
    let (session, run, _) = running(&rig, &cast).await;

    cast.bob.signal(message::signal("lost", &run.to_string(), &json!({}))).await;
    let id = tell(&cast.bob, &session, "fence").await;

    is_told(&rig, run, &[id]).await;
    assert_eq!(rig.store.signals_held().await.unwrap(), 1);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_that_the_database_refuses_costs_no_other() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let rig = Rig::start(Kind::Postgres, runtime.client());
    let (session, run, accepted) = running(&rig, &cast).await;
    let refuse = "ALTER TABLE run_inbox ADD CHECK (dedup_key NOT LIKE '%poison')";
    rig.database.tamper(refuse).await;
    let unknown = SessionId::random();
    let send = async |session: &SessionId, id: &str| {
        let what = message::signal("note", session.as_str(), &json!({}));
        let mut envelope = cast.bob.envelope("", "", what);
        id.clone_into(&mut envelope.message_id);
        cast.bob.send(envelope).await.unwrap();
    };

    tokio::join!(send(&session, "a"), send(&session, "poison"), send(&session, "b"));
    send(&unknown, "held").await;

    is_told(&rig, run, &["a".to_owned(), "b".to_owned()]).await;
    super::holds(&rig, 1).await;
    open(&cast, &unknown).await;
    let late = rig.post(&unknown, message::DECISION).await;
    is_told(&rig, late, &["held".to_owned()]).await;
    rig.is_whole(run, &accepted).await;
    rig.stop().await;
}
