//! What the session stream never shows, and sessions that are over or suspended when first seen.

mod support;

use std::time::Duration;

use control_plane_domain::{Clock, RunState, SessionId, SessionState, SystemClock};
use control_plane_recovery::Config;
use control_plane_testkit::agent::{Cast, SessionSpec};
use control_plane_testkit::database::Kind;
use control_plane_testkit::runtime::{Durability, Options, RuntimeProcess};
use control_plane_testkit::scripted::ScriptedRuntime;
use control_plane_testkit::{DEADLINE, message, play, wait_for, wait_until};
use support::{Rig, config};

/// Opens a Decision with one proposal, and returns what was accepted.
async fn opened(cast: &Cast, session: &SessionId) -> Vec<String> {
    let spec = SessionSpec::new(message::DECISION, &["alice", "bob", "carol"]).with_id(session);
    let start = cast.alice.start_session(&spec).await;
    let proposal = message::decision::proposal("p1", "deploy");
    vec![start, cast.alice.say(session, message::DECISION, proposal).await]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suspended_resumed_and_cancelled_reach_the_run() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let rig = Rig::start(kind, runtime.client());
        let session = SessionId::random();
        let run = rig.post(&session, message::DECISION).await;
        let accepted = opened(&cast, &session).await;
        rig.reaches(run, RunState::Running).await;

        cast.alice.suspend(&session, "lunch").await;
        rig.reaches(run, RunState::Suspended).await;
        cast.alice.resume(&session, "back").await;
        rig.reaches(run, RunState::Running).await;
        cast.alice.cancel(&session, "enough").await;
        rig.reaches(run, RunState::Cancelled).await;

        rig.is_whole(run, &accepted).await;
        let story = rig.story(run).await;
        for told in ["run.suspended", "run.resumed", "run.cancelled"] {
            assert_eq!(story.iter().filter(|name| *name == told).count(), 1, "{told} in {story:?}");
        }
        assert_eq!(story.last().map(String::as_str), Some("run.cancelled"));
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_suspended_when_first_seen_is_followed() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let rig = Rig::start(Kind::Sqlite, runtime.client());
    let session = SessionId::random();
    let mut accepted = opened(&cast, &session).await;
    cast.alice.suspend(&session, "later").await;

    let run = rig.post(&session, message::DECISION).await;

    rig.reaches(run, RunState::Suspended).await;
    cast.alice.resume(&session, "now").await;
    rig.reaches(run, RunState::Running).await;
    let vote = message::decision::vote("p1", "APPROVE");
    accepted.push(cast.bob.say(&session, message::DECISION, vote).await);
    rig.has_recorded(run, accepted.len()).await;
    rig.is_whole(run, &accepted).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_cancelled_when_first_seen_is_recorded_as_that() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let rig = Rig::start(Kind::Postgres, runtime.client());
    let session = SessionId::random();
    let accepted = opened(&cast, &session).await;
    cast.alice.cancel(&session, "never mind").await;

    let run = rig.post(&session, message::DECISION).await;

    rig.reaches(run, RunState::Cancelled).await;
    rig.is_whole(run, &accepted).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_session_fails_its_run_and_says_so() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let rig = Rig::start(Kind::Sqlite, runtime.client());
    let session = SessionId::random();
    let run = rig.post(&session, message::DECISION).await;
    let mut spec =
        SessionSpec::new(message::DECISION, &["alice", "bob", "carol"]).with_id(&session);
    spec.ttl_ms = 700;
    let accepted = vec![cast.alice.start_session(&spec).await];

    rig.reaches(run, RunState::Failed).await;

    let failed = rig.store.run_get(run).await.unwrap();
    assert_eq!(failed.error_code.as_deref(), Some("SESSION_EXPIRED"));
    rig.is_whole(run, &accepted).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resolved_session_that_was_compacted_is_settled_by_its_receipt() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::start(Options::new(Durability::CompactsEndedSessions)).await;
        let cast = runtime.cast().await;
        let session = SessionId::random();
        let accepted = play::decision(&cast, &session).await;
        let rig = Rig::start(kind, runtime.client());

        let run = rig.post(&session, message::DECISION).await;

        rig.reaches(run, RunState::Completed).await;
        let gap = rig.has_event(run, "session.stream.gap").await;
        assert_eq!(gap.data["fromOrdinal"], 1);
        assert_eq!(gap.data["toOrdinal"], accepted.len());
        let finalized = rig.has_event(run, "decision.finalized").await;
        assert_eq!(finalized.data["source"], "receipt");
        assert_eq!(finalized.data["action"], "decision.selected");
        let state = control_plane_projection::state::load(&rig.store, run).await.unwrap();
        let state = serde_json::to_value(&state).unwrap();
        assert_eq!(state["decision"]["current"]["finalized"], true, "{state:#}");
        assert!(state["run"]["historyGap"].is_object(), "{state:#}");
        rig.log_is_sound(run).await;
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_never_starts_fails_its_run_and_is_free_again() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let patience = Config { session_wait: Duration::from_millis(300), ..config() };
    let rig = Rig::with_config(Kind::Sqlite, runtime.client(), patience);
    let session = SessionId::random();

    let late = rig.post(&session, message::DECISION).await;

    rig.reaches(late, RunState::Failed).await;
    let failed = rig.store.run_get(late).await.unwrap();
    assert_eq!(failed.error_code.as_deref(), Some("RUNTIME_TIMEOUT"));
    let accepted = play::decision(&cast, &session).await;
    let again = rig.post(&session, message::DECISION).await;
    assert_ne!(again, late);
    rig.reaches(again, RunState::Completed).await;
    rig.is_whole(again, &accepted).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mode_that_the_runtime_does_not_offer_fails_the_run() {
    let runtime = RuntimeProcess::in_memory().await;
    let rig = Rig::start(Kind::Sqlite, runtime.client());

    let run = rig.post(&SessionId::random(), "macp.mode.unheard.v1").await;

    rig.reaches(run, RunState::Failed).await;
    let failed = rig.store.run_get(run).await.unwrap();
    assert_eq!(failed.error_code.as_deref(), Some("MODE_NOT_SUPPORTED"));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_was_suspended_expires_when_its_new_time_is_over() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    // Nobody lists the sessions, and the runtime looks for itself once a minute only: the run has
    // to know when to ask.
    let far = Duration::from_secs(3600);
    let rare = Config { sweep: far, stream_idle: far, ..config() };
    let rig = Rig::with_config(Kind::Sqlite, runtime.client(), rare);
    let session = SessionId::random();
    let run = rig.post(&session, message::DECISION).await;
    let mut spec =
        SessionSpec::new(message::DECISION, &["alice", "bob", "carol"]).with_id(&session);
    spec.ttl_ms = 3000;
    let accepted = vec![cast.alice.start_session(&spec).await];
    rig.reaches(run, RunState::Running).await;
    cast.alice.suspend(&session, "a pause that is longer than its life").await;
    rig.reaches(run, RunState::Suspended).await;
    let due = rig.store.session_get(run).await.unwrap().unwrap().expires_at.unwrap();
    // When it was due first, the run asked, and was told that the session is suspended.
    let asked = due + chrono::TimeDelta::seconds(1);
    wait_until(DEADLINE, async || SystemClock.now() > asked).await;
    assert_eq!(rig.store.run_get(run).await.unwrap().state, RunState::Suspended);

    cast.alice.resume(&session, "go on").await;

    rig.reaches(run, RunState::Running).await;
    let soon = Duration::from_secs(25);
    let ask = async || rig.store.run_get(run).await.unwrap().state;
    wait_for(soon, ask, |state| *state == RunState::Failed).await;
    rig.fails_with(run, "SESSION_EXPIRED").await;
    rig.is_whole(run, &accepted).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_fails_no_run_whether_it_is_suspended_or_not() {
    for kind in Kind::ALL {
        let runtime = ScriptedRuntime::start().await;
        let impatient = Config {
            stream_idle: Duration::from_millis(50),
            sweep: Duration::from_millis(50),
            max_retries: 1,
            ..config()
        };
        let rig = Rig::with_config(kind, runtime.client(), impatient);
        let spec = || SessionSpec::new(message::DECISION, &["alice", "bob", "carol"]);
        let (quiet, paused) = (spec(), spec());
        let of_quiet = [runtime.open_session(&quiet, "alice")];
        let of_paused = [runtime.open_session(&paused, "alice")];
        runtime.set_state(&paused.session_id, SessionState::Suspended);
        let silent = rig.post(&quiet.session_id, message::DECISION).await;
        let suspended = rig.post(&paused.session_id, message::DECISION).await;

        // Each was looked at again and again, because nothing came.
        for spec in [&quiet, &paused] {
            let looks = async || runtime.subscriptions(&spec.session_id).len() >= 20;
            wait_until(DEADLINE, looks).await;
        }

        assert_eq!(rig.store.run_get(silent).await.unwrap().state, RunState::Running);
        assert_eq!(rig.store.run_get(suspended).await.unwrap().state, RunState::Suspended);
        rig.is_whole(silent, &of_quiet).await;
        rig.is_whole(suspended, &of_paused).await;
        rig.stop().await;
    }
}
