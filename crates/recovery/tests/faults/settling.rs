//! The end of a session is told before its last envelopes are delivered.

use std::time::Duration;

use control_plane_domain::{RunState, SessionState};
use control_plane_recovery::Config;
use control_plane_testkit::database::Kind;
use control_plane_testkit::scripted::{Fault, Then, UnaryFault};

use super::support::config;
use super::{Stage, commitment};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resolution_that_overtakes_its_envelopes_loses_none() {
    for kind in Kind::ALL {
        let (mut stage, run) = Stage::followed(kind).await;

        stage.runtime.hold(&stage.session);
        stage.say(3);
        stage.resolve();
        stage.subscribed(2).await;
        stage.runtime.release(&stage.session);

        stage.rig.reaches(run, RunState::Completed).await;
        stage.is_whole(run).await;
        assert_eq!(stage.rig.last_event(run).await, "run.completed");
        assert_eq!(stage.runtime.calls("GetDecisionReceipt"), 0);
        stage.rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancellation_that_overtakes_its_envelopes_loses_none() {
    for kind in Kind::ALL {
        let patience = Config { settle_quiet: Duration::from_secs(3), ..config() };
        let (mut stage, run) = Stage::followed_with(kind, patience).await;

        stage.runtime.hold(&stage.session);
        stage.say(3);
        stage.runtime.set_state(&stage.session, SessionState::Cancelled);
        stage.subscribed(2).await;
        stage.runtime.release(&stage.session);

        stage.rig.reaches(run, RunState::Cancelled).await;
        stage.is_whole(run).await;
        assert_eq!(stage.rig.last_event(run).await, "run.cancelled");
        stage.rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stalled_stream_withholds_the_probe_brings() {
    let mut stage = Stage::set(Kind::Sqlite, config()).await;
    stage.runtime.fail_next_subscription(&stage.session, Fault::after(2, Then::Stall));
    stage.say(1);
    let run = stage.post().await;
    stage.caught_up(run).await;

    stage.say(4);
    stage.runtime.set_state(&stage.session, SessionState::Cancelled);

    stage.rig.reaches(run, RunState::Cancelled).await;
    stage.is_whole(run).await;
    stage.rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_and_the_stream_together_record_each_envelope_once() {
    let (mut stage, run) = Stage::followed(Kind::Sqlite).await;
    // The probe repeats itself while the stream delivers the same.
    stage.runtime.fail_next_subscription(&stage.session, Fault::after(3, Then::Repeat(3)));

    stage.runtime.hold(&stage.session);
    stage.say(5);
    stage.resolve();
    stage.subscribed(2).await;
    stage.runtime.release(&stage.session);

    stage.rig.reaches(run, RunState::Completed).await;
    stage.is_whole(run).await;
    stage.rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_that_fails_leaves_it_to_the_stream() {
    let (mut stage, run) = Stage::followed(Kind::Sqlite).await;
    stage.runtime.fail_next_subscription(&stage.session, Fault::after(1, Then::End));

    stage.runtime.hold(&stage.session);
    stage.say(2);
    stage.resolve();
    stage.subscribed(2).await;
    stage.runtime.release(&stage.session);

    stage.rig.reaches(run, RunState::Completed).await;
    stage.is_whole(run).await;
    stage.rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_that_hangs_is_no_proof_that_all_is_here() {
    let mut stage = Stage::set(Kind::Sqlite, config()).await;
    stage.runtime.fail_next_subscription(&stage.session, Fault::after(2, Then::Stall));
    stage.say(1);
    let run = stage.post().await;
    stage.caught_up(run).await;

    stage.say(3);
    stage.runtime.fail_next("StreamSession", UnaryFault::Hang);
    stage.runtime.set_state(&stage.session, SessionState::Cancelled);

    stage.rig.reaches(run, RunState::Cancelled).await;
    stage.is_whole(run).await;
    assert_eq!(stage.rig.last_event(run).await, "run.cancelled");
    stage.rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_stream_of_a_session_that_is_over_is_no_proof_either() {
    let mut stage = Stage::set(Kind::Sqlite, config()).await;
    stage.say(3);
    stage.runtime.set_state(&stage.session, SessionState::Cancelled);
    stage.runtime.fail_next_subscription(&stage.session, Fault::at_once(Then::Stall));

    let run = stage.post().await;

    stage.rig.reaches(run, RunState::Cancelled).await;
    stage.is_whole(run).await;
    stage.rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_ends_while_settling_is_replaced_by_the_probe() {
    let (mut stage, run) = Stage::followed(Kind::Sqlite).await;

    stage.runtime.hold(&stage.session);
    stage.say(2);
    stage.resolve();
    stage.subscribed(2).await;
    stage.runtime.end_streams(&stage.session);
    stage.runtime.release(&stage.session);

    stage.rig.reaches(run, RunState::Completed).await;
    stage.is_whole(run).await;
    assert_eq!(stage.rig.last_event(run).await, "run.completed");
    stage.rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commitment_that_does_not_resolve_ends_nothing() {
    let (mut stage, run) = Stage::followed(Kind::Sqlite).await;

    stage.accepted.push(stage.runtime.accept(&stage.session, "alice", commitment()));
    stage.caught_up(run).await;
    stage.say(2);
    stage.caught_up(run).await;
    assert_eq!(stage.rig.store.run_get(run).await.unwrap().state, RunState::Running);
    stage.resolve();

    stage.rig.reaches(run, RunState::Completed).await;
    stage.is_whole(run).await;
    stage.rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resolution_that_the_watch_missed_is_noticed_by_its_commitment() {
    let (mut stage, run) = Stage::followed(Kind::Sqlite).await;

    // The state changes without a word to the watches.
    stage.runtime.change_metadata(&stage.session, |metadata| metadata.state = 2);
    stage.say(2);
    stage.accepted.push(stage.runtime.accept(&stage.session, "alice", commitment()));

    stage.rig.reaches(run, RunState::Completed).await;
    stage.is_whole(run).await;
    stage.rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_the_watch_missed_is_noticed_by_the_sweep() {
    let often = Config { sweep: Duration::from_millis(200), ..config() };
    let (mut stage, run) = Stage::followed_with(Kind::Sqlite, often).await;

    stage.say(2);
    stage.runtime.change_metadata(&stage.session, |metadata| metadata.state = 5);

    stage.rig.reaches(run, RunState::Cancelled).await;
    stage.is_whole(run).await;
    stage.rig.stop().await;
}
