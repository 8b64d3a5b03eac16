//! Signals and progress reach the run that they name, live and after its end, once each.

mod support;

use control_plane_domain::{RunState, SessionId};
use control_plane_testkit::agent::SessionSpec;
use control_plane_testkit::database::Kind;
use control_plane_testkit::runtime::RuntimeProcess;
use control_plane_testkit::{DEADLINE, message, play, wait_for};
use serde_json::json;
use support::Rig;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_and_a_report_of_progress_are_recorded_in_the_run_they_name() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let rig = Rig::start(kind, runtime.client());
        let session = SessionId::random();
        let run = rig.post(&session, message::DECISION).await;
        let spec =
            SessionSpec::new(message::DECISION, &["alice", "bob", "carol"]).with_id(&session);
        let accepted = vec![cast.alice.start_session(&spec).await];
        rig.reaches(run, RunState::Running).await;
        rig.has_recorded(run, 1).await;

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
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let rig = Rig::start(Kind::Sqlite, runtime.client());
    let session = SessionId::random();
    let run = rig.post(&session, message::DECISION).await;
    let accepted = play::decision(&cast, &session).await;
    rig.reaches(run, RunState::Completed).await;

    cast.bob.signal(message::signal("afterthought", session.as_str(), &json!({}))).await;

    rig.has_event(run, "signal.emitted").await;
    rig.is_whole(run, &accepted).await;
    rig.stop().await;
}
