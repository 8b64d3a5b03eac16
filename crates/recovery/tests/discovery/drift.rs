//! Where the runtime's sessions and our runs differ.

use std::time::Duration;

use control_plane_domain::{RunState, SessionId, SessionState};
use control_plane_recovery::{Config, DriftError};
use control_plane_testkit::database::Kind;
use control_plane_testkit::message;
use control_plane_testkit::runtime::RuntimeProcess;
use control_plane_testkit::scripted::{Failure, ScriptedRuntime, UnaryFault};

use super::support::{Rig, config};
use super::{discovering, ended, opened, spec};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_discovery_nothing_differs_and_without_it_strangers_are_named() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let (open, over) = (SessionId::random(), SessionId::random());
        opened(&cast, &open).await;
        let mut accepted = opened(&cast, &over).await;
        ended(&cast, &over, &mut accepted).await;
        let rig = Rig::start(kind, runtime.client());
        let waiting = SessionId::random();
        let run = rig.post(&waiting, message::DECISION).await;
        rig.reaches(run, RunState::Starting).await;

        let drift = rig.engine.drift().await.unwrap();

        assert_eq!(drift.incomplete, None);
        assert_eq!((drift.sessions, drift.live_sessions, drift.pages), (2, 1, 1));
        assert_eq!((drift.active_runs, drift.waiting_runs), (1, 1));
        assert_eq!(drift.untracked.total, 1);
        assert_eq!(drift.untracked.items[0].session.session_id, open);
        assert!(!drift.untracked.items[0].deleted);
        assert_eq!((drift.missing.total, drift.state.total), (0, 0), "it only waits");

        let (database, client, _) = rig.stop().await;
        let rig = Rig::resume(database, client, discovering());
        let run = rig.finds(&open).await;
        rig.reaches(run, RunState::Running).await;
        let run = rig.finds(&over).await;
        rig.reaches(run, RunState::Completed).await;
        let drift = rig.engine.drift().await.unwrap();
        assert_eq!((drift.untracked.total, drift.missing.total, drift.state.total), (0, 0, 0));
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_whose_session_is_gone_or_something_else_are_named() {
    let scripted = ScriptedRuntime::start().await;
    // The lists of the engine itself would have the run look.
    let seldom = Config { sweep: Duration::from_secs(3600), ..config() };
    let rig = Rig::with_config(Kind::Postgres, scripted.client(), seldom);
    let (gone, changed) = (SessionId::random(), SessionId::random());
    let mut runs = Vec::new();
    for session in [&gone, &changed] {
        let run = rig.post(session, message::DECISION).await;
        scripted.open_session(&spec(session), "alice");
        rig.reaches(run, RunState::Running).await;
        runs.push(run);
    }

    // Its stream ends, and the answer to what became of it stays away.
    scripted.fail_next("GetSession", UnaryFault::Hang);
    scripted.end_streams(&gone);
    scripted.evict(&gone);
    scripted.change_metadata(&changed, |metadata| {
        metadata.state = control_plane_runtime::proto::SessionState::Suspended.into();
    });
    let drift = rig.engine.drift().await.unwrap();

    assert_eq!(drift.missing.total, 1);
    assert_eq!(
        (drift.missing.items[0].run_id, &drift.missing.items[0].session_id),
        (runs[0], &gone)
    );
    assert_eq!(drift.state.total, 1);
    let state = &drift.state.items[0];
    assert_eq!((state.run_id, state.run_state), (runs[1], RunState::Running));
    assert_eq!(state.session_state, SessionState::Suspended);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_listed_is_not_taken_for_absent() {
    let scripted = ScriptedRuntime::start().await;
    for _ in 0..1001 {
        scripted.open_session(&spec(&SessionId::random()), "alice");
    }
    let rig = Rig::start(Kind::Sqlite, scripted.client());
    scripted.fail_next("ListSessions", UnaryFault::Delay(Duration::ZERO));
    scripted.fail_next("ListSessions", UnaryFault::Fail(Failure::Internal));
    scripted.fail_next("ListSessions", UnaryFault::Fail(Failure::Internal));

    let partial = rig.engine.drift().await.unwrap();
    let nothing = rig.engine.drift().await;
    let all = rig.engine.drift().await.unwrap();

    assert_eq!((partial.pages, partial.sessions), (1, 1000));
    assert!(partial.incomplete.unwrap().contains("did not list them all"));
    assert!(matches!(nothing, Err(DriftError::Runtime(_))), "{nothing:?}");
    assert_eq!((all.pages, all.sessions, all.incomplete), (2, 1001, None));
    assert_eq!((all.untracked.total, all.untracked.items.len()), (1001, 1000));
    rig.stop().await;
}
