//! Streams that repeat themselves, break, stall, or tell another story.

use std::time::Duration;

use control_plane_domain::RunState;
use control_plane_recovery::Config;
use control_plane_testkit::database::Kind;
use control_plane_testkit::scripted::{Failure, Fault, Then};
use control_plane_testkit::{DEADLINE, wait_until};

use super::Stage;
use super::support::config;

fn quick() -> Config {
    Config { backoff_base: Duration::from_millis(5), ..config() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_delivered_twice_is_recorded_once() {
    for kind in Kind::ALL {
        let mut stage = Stage::set(kind, config()).await;
        stage.runtime.fail_next_subscription(&stage.session, Fault::after(3, Then::Repeat(2)));
        stage.runtime.fail_next_subscription(&stage.session, Fault::after(1, Then::Repeat(1)));
        stage.say(3);
        let run = stage.post().await;
        stage.caught_up(run).await;

        stage.runtime.end_streams(&stage.session);
        stage.say(2);
        stage.resolve();

        stage.rig.reaches(run, RunState::Completed).await;
        stage.is_whole(run).await;
        assert_eq!(stage.runtime.subscriptions(&stage.session)[..2], [0, 3]);
        stage.rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_breaks_after_any_frame_loses_nothing() {
    let ends = [
        Then::End,
        Then::Fail(Failure::Internal),
        Then::Fail(Failure::Lagged),
        Then::Tell(Failure::Internal),
    ];
    for then in ends {
        for after in 0..=6 {
            let mut stage = Stage::set(Kind::Sqlite, quick()).await;
            let fault = Fault::after(after, then.clone());
            stage.runtime.fail_next_subscription(&stage.session, fault);
            stage.say(5);
            let run = stage.post().await;
            stage.caught_up(run).await;
            stage.subscribed(2).await;

            stage.resolve();

            stage.rig.reaches(run, RunState::Completed).await;
            stage.is_whole(run).await;
            let told = stage.rig.count_status(run, "reconnecting").await;
            assert_eq!(told, 1, "one outage, after {after} frames by {then:?}");
            stage.rig.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_breaks_again_and_again_gets_to_the_end() {
    for kind in Kind::ALL {
        for every in 2..=5 {
            let mut stage = Stage::set(kind, quick()).await;
            for _ in 0..20 {
                let fault = Fault::after(every, Then::Fail(Failure::Lagged));
                stage.runtime.fail_next_subscription(&stage.session, fault);
            }
            stage.say(12);
            stage.resolve();

            let run = stage.post().await;

            stage.rig.reaches(run, RunState::Completed).await;
            stage.is_whole(run).await;
            // The first one opens it, and the last one looks back when it is over.
            let outages = stage.runtime.subscriptions(&stage.session).len() - 2;
            assert_eq!(stage.rig.count_status(run, "reconnecting").await, outages);
            stage.rig.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_many_attempts_is_one_event() {
    let mut stage = Stage::set(Kind::Sqlite, quick()).await;
    stage.runtime.fail_next_subscription(&stage.session, Fault::after(2, Then::End));
    for _ in 0..4 {
        // What is accepted, shows the overlap and breaks again is no recovery.
        let fault = Fault::after(1, Then::Fail(Failure::Internal));
        stage.runtime.fail_next_subscription(&stage.session, fault);
        let fault = Fault::at_once(Then::Fail(Failure::Internal));
        stage.runtime.fail_next_subscription(&stage.session, fault);
    }
    stage.say(1);
    let run = stage.post().await;
    stage.subscribed(10).await;

    stage.say(1);
    stage.resolve();

    stage.rig.reaches(run, RunState::Completed).await;
    stage.is_whole(run).await;
    assert_eq!(stage.rig.count_status(run, "reconnecting").await, 1);
    stage.rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_stalls_is_opened_anew_without_a_word() {
    for kind in Kind::ALL {
        let idle = Config { stream_idle: Duration::from_millis(300), ..config() };
        let mut stage = Stage::set(kind, idle).await;
        stage.runtime.fail_next_subscription(&stage.session, Fault::after(2, Then::Stall));
        stage.say(1);
        let run = stage.post().await;
        stage.caught_up(run).await;

        stage.say(2);
        stage.caught_up(run).await;
        let told = stage.rig.events(run).await.len();
        let seen = stage.runtime.subscriptions(&stage.session).len();
        stage.subscribed(seen + 3).await;

        assert_eq!(stage.rig.events(run).await.len(), told, "idling does not grow the log");
        assert_eq!(stage.rig.count_status(run, "reconnecting").await, 0);
        let last = stage.runtime.subscriptions(&stage.session).pop();
        assert_eq!(last, Some(3), "the last envelope is seen again");
        stage.resolve();
        stage.rig.reaches(run, RunState::Completed).await;
        stage.is_whole(run).await;
        stage.rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_envelope_in_the_place_of_the_last_one_is_another_history() {
    for kind in Kind::ALL {
        let (mut stage, run) = Stage::followed(kind).await;
        stage.say(2);
        stage.caught_up(run).await;
        let ours = stage.accepted.clone();

        stage.replace_history(run).await;
        stage.say(4);
        stage.runtime.end_streams(&stage.session);
        stage.runtime.release(&stage.session);

        stage.rig.fails_with(run, "SESSION_DIVERGED").await;
        stage.rig.has_event(run, "session.stream.diverged").await;
        stage.rig.is_whole(run, &ours).await;
        stage.rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_that_lacks_the_last_envelope_is_another_history() {
    let patience = Config { overlap_patience: Duration::from_millis(300), ..config() };
    let (mut stage, run) = Stage::followed_with(Kind::Sqlite, patience).await;
    stage.say(3);
    stage.caught_up(run).await;
    let ours = stage.accepted.clone();

    stage.replace_history(run).await;
    stage.runtime.end_streams(&stage.session);
    stage.runtime.release(&stage.session);

    stage.rig.fails_with(run, "SESSION_DIVERGED").await;
    stage.rig.is_whole(run, &ours).await;
    stage.rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_began_at_another_time_is_another_history() {
    let (mut stage, run) = Stage::followed(Kind::Sqlite).await;
    stage.say(1);
    stage.caught_up(run).await;

    stage.runtime.change_metadata(&stage.session, |metadata| metadata.started_at_unix_ms += 1);
    stage.runtime.end_streams(&stage.session);

    stage.rig.fails_with(run, "SESSION_DIVERGED").await;
    stage.is_whole(run).await;
    stage.rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_that_delivers_nothing_for_a_while_has_not_lost_its_history() {
    let patience = Config { overlap_patience: Duration::from_millis(200), ..quick() };
    let (mut stage, run) = Stage::followed_with(Kind::Sqlite, patience).await;
    stage.say(2);
    stage.caught_up(run).await;
    for _ in 0..8 {
        stage.runtime.fail_next_subscription(&stage.session, Fault::at_once(Then::Stall));
    }

    stage.runtime.end_streams(&stage.session);
    stage.subscribed(10).await;
    stage.say(1);
    stage.resolve();

    stage.rig.reaches(run, RunState::Completed).await;
    stage.is_whole(run).await;
    stage.rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_of_the_runtime_in_the_middle_of_many_streams_is_one_outage() {
    let (mut stage, run) = Stage::followed(Kind::Postgres).await;
    let mut others = Vec::new();
    for _ in 0..20 {
        let mut spec = stage.spec.clone();
        spec.session_id = control_plane_domain::SessionId::random();
        let start = stage.runtime.open_session(&spec, "alice");
        let run = stage.rig.post(&spec.session_id, &spec.mode).await;
        stage.rig.has_recorded(run, 1).await;
        others.push((run, spec.session_id, start));
    }

    stage.runtime.stop();
    let told = async || stage.rig.count_status(run, "reconnecting").await == 1;
    wait_until(DEADLINE, told).await;
    stage.runtime.restart().await;

    stage.resolve();
    stage.rig.reaches(run, RunState::Completed).await;
    stage.is_whole(run).await;
    for (run, session, start) in others {
        let end = stage.runtime.resolve(&session, "alice", super::commitment());
        stage.rig.reaches(run, RunState::Completed).await;
        stage.rig.is_whole(run, &[start, end]).await;
        assert_eq!(stage.rig.count_status(run, "reconnecting").await, 1);
    }
    stage.rig.stop().await;
}
