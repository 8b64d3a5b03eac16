//! Calls that fail, hang or are refused, and what the watch tells too fast.

use std::time::Duration;

use control_plane_domain::breaker::BreakerState;
use control_plane_domain::{RunState, SessionState};
use control_plane_recovery::Config;
use control_plane_testkit::database::Kind;
use control_plane_testkit::scripted::{Failure, Fault, Then, UnaryFault};
use control_plane_testkit::{DEADLINE, wait_until};

use super::support::config;
use super::{Stage, UNAUTHENTICATED, UNAVAILABLE};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_fails_is_made_again() {
    let faults = [
        UnaryFault::Fail(Failure::Internal),
        UnaryFault::Fail(Failure::RateLimited),
        UnaryFault::Fail(Failure::Plain(UNAVAILABLE.into())),
        // Wrong credentials are for the operator to mend.
        UnaryFault::Fail(Failure::Plain(UNAUTHENTICATED.into())),
        UnaryFault::Delay(Duration::from_millis(500)),
        UnaryFault::Hang,
    ];
    for method in ["GetSession", "StreamSession"] {
        for fault in &faults {
            let mut stage = Stage::set(Kind::Sqlite, config()).await;
            stage.runtime.fail_next(method, fault.clone());
            stage.runtime.fail_next(method, fault.clone());

            let run = stage.post().await;
            stage.say(1);
            stage.resolve();

            stage.rig.reaches(run, RunState::Completed).await;
            stage.is_whole(run).await;
            stage.rig.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_we_may_not_observe_fails_the_run() {
    let call = Stage::set(Kind::Sqlite, config()).await;
    call.runtime.fail_next("GetSession", UnaryFault::Fail(Failure::Forbidden));
    let subscription = Stage::set(Kind::Sqlite, config()).await;
    subscription.runtime.fail_next("StreamSession", UnaryFault::Fail(Failure::Forbidden));
    let frame = Stage::set(Kind::Sqlite, config()).await;
    let told = Fault::at_once(Then::Tell(Failure::Forbidden));
    frame.runtime.fail_next_subscription(&frame.session, told);

    for stage in [call, subscription, frame] {
        let run = stage.post().await;
        stage.rig.fails_with(run, "FORBIDDEN").await;
        assert_eq!(stage.rig.last_event(run).await, "run.failed");
        stage.rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patience_that_is_limited_ends() {
    for method in ["GetSession", "StreamSession"] {
        let limited = Config { max_retries: 2, ..config() };
        let stage = Stage::set(Kind::Sqlite, limited).await;
        for _ in 0..3 {
            let fault = UnaryFault::Fail(Failure::Plain(UNAVAILABLE.into()));
            stage.runtime.fail_next(method, fault);
        }

        let run = stage.post().await;

        stage.rig.fails_with(run, "RUNTIME_UNAVAILABLE").await;
        stage.rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patience_that_is_limited_ends_also_behind_an_open_circuit() {
    let limited = Config { max_retries: 2, backoff_max: Duration::from_millis(200), ..config() };
    let mut stage = Stage::set(Kind::Sqlite, limited).await;
    stage.runtime.stop();
    let runtime = std::sync::Arc::clone(stage.rig.engine.runtime());
    let opened = async || {
        let _failed = runtime.manifest().await;
        runtime.breaker().unwrap().state() == BreakerState::Open
    };
    wait_until(DEADLINE, opened).await;

    let run = stage.post().await;

    stage.rig.fails_with(run, "RUNTIME_UNAVAILABLE").await;
    let failed = stage.rig.store.run_get(run).await.unwrap();
    assert!(failed.error_message.unwrap().contains("the circuit breaker is open"));
    stage.rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patience_begins_anew_with_every_envelope() {
    let limited = Config { max_retries: 2, backoff_base: Duration::from_millis(5), ..config() };
    let mut stage = Stage::set(Kind::Sqlite, limited).await;
    for _ in 0..8 {
        let fault = Fault::after(2, Then::Fail(Failure::Internal));
        stage.runtime.fail_next_subscription(&stage.session, fault);
        let fault = Fault::at_once(Then::Fail(Failure::Internal));
        stage.runtime.fail_next_subscription(&stage.session, fault);
    }
    stage.say(12);
    stage.resolve();

    let run = stage.post().await;

    stage.rig.reaches(run, RunState::Completed).await;
    stage.is_whole(run).await;
    stage.rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_before_the_session_is_seen_writes_nothing() {
    let mut stage = Stage::set(Kind::Sqlite, config()).await;
    stage.runtime.stop();
    let run = stage.post().await;
    stage.rig.reaches(run, RunState::Starting).await;
    stage.runtime.restart().await;
    stage.resolve();

    stage.rig.reaches(run, RunState::Completed).await;
    stage.is_whole(run).await;
    assert_eq!(stage.rig.count_status(run, "reconnecting").await, 0);
    stage.rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_changes_than_anybody_reads_leave_the_right_state() {
    for kind in Kind::ALL {
        let (mut stage, run) = Stage::followed(kind).await;

        for _ in 0..500 {
            stage.runtime.set_state(&stage.session, SessionState::Suspended);
            stage.runtime.set_state(&stage.session, SessionState::Open);
        }
        stage.runtime.set_state(&stage.session, SessionState::Suspended);

        // The last change leads here, whatever became of the others.
        let settled = async || {
            stage.runtime.subscriptions(&stage.session).len() > 1
                || stage.rig.count_status(run, "opened").await == 1
        };
        wait_until(DEADLINE, settled).await;
        stage.rig.reaches(run, RunState::Suspended).await;
        stage.runtime.set_state(&stage.session, SessionState::Open);
        stage.rig.reaches(run, RunState::Running).await;
        stage.resolve();
        stage.rig.reaches(run, RunState::Completed).await;
        stage.is_whole(run).await;
        stage.rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suspended_and_resumed_at_once_are_both_told() {
    let (mut stage, run) = Stage::followed(Kind::Sqlite).await;

    stage.runtime.set_state(&stage.session, SessionState::Suspended);
    stage.runtime.set_state(&stage.session, SessionState::Open);
    stage.rig.has_event(run, "run.resumed").await;
    stage.say(1);
    stage.resolve();

    stage.rig.reaches(run, RunState::Completed).await;
    stage.is_whole(run).await;
    let story = stage.rig.story(run).await;
    let ends = ["run.suspended", "session.state.changed", "run.resumed"];
    let at = story.iter().position(|name| name == "run.suspended").unwrap();
    assert_eq!(story[at..at + 3], ends);
    stage.rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_session_may_expire() {
    let (stage, run) = Stage::followed(Kind::Sqlite).await;
    stage.runtime.set_state(&stage.session, SessionState::Suspended);
    stage.rig.reaches(run, RunState::Suspended).await;

    stage.runtime.set_state(&stage.session, SessionState::Expired);

    stage.rig.fails_with(run, "SESSION_EXPIRED").await;
    stage.is_whole(run).await;
    assert_eq!(stage.rig.last_event(run).await, "run.failed");
    stage.rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_the_watch_missed_is_noticed_by_the_sweep() {
    let often = Config { sweep: Duration::from_millis(200), ..config() };
    let (stage, run) = Stage::followed_with(Kind::Sqlite, often).await;

    stage.runtime.change_metadata(&stage.session, |metadata| metadata.state = SUSPENDED);
    stage.rig.reaches(run, RunState::Suspended).await;
    stage.runtime.change_metadata(&stage.session, |metadata| metadata.state = OPEN);
    stage.rig.reaches(run, RunState::Running).await;

    stage.is_whole(run).await;
    stage.rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_evicted_under_our_eyes_is_noticed() {
    let idle = Config { stream_idle: Duration::from_millis(300), ..config() };
    let (stage, run) = Stage::followed_with(Kind::Sqlite, idle).await;

    stage.runtime.evict(&stage.session);

    stage.rig.fails_with(run, "SESSION_GONE").await;
    stage.is_whole(run).await;
    stage.rig.stop().await;
}

/// `macp.v1.SessionState` on the wire.
const OPEN: i32 = 1;
const SUSPENDED: i32 = 4;
