//! Histories that are compacted or gone: the exact range is told, and the receipt decides.

use std::time::Duration;

use control_plane_domain::{RunState, SessionState};
use control_plane_recovery::Config;
use control_plane_testkit::database::Kind;
use control_plane_testkit::receipts::document;
use control_plane_testkit::scripted::{Failure, Fault, Then, UnaryFault};
use control_plane_testkit::{DEADLINE, wait_until};

use super::support::{Rig, config};
use super::{Stage, commitment};

/// The ranges that the log says are missing.
async fn gaps(rig: &Rig, run: control_plane_domain::RunId) -> Vec<(i64, i64)> {
    let events = rig.events(run).await;
    let gaps = events.iter().filter(|event| event.event_type.as_str() == "session.stream.gap");
    let number = |value: &serde_json::Value| value.as_i64().unwrap();
    gaps.map(|gap| (number(&gap.data["fromOrdinal"]), number(&gap.data["toOrdinal"]))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_compacted_before_it_is_first_seen_is_followed_from_there() {
    for kind in Kind::ALL {
        let mut stage = Stage::set(kind, config()).await;
        stage.say(3);
        stage.runtime.compact(&stage.session);

        let run = stage.post().await;
        stage.subscribed(2).await;
        stage.say(2);
        stage.rig.has_recorded(run, 2).await;
        stage.resolve();

        stage.rig.reaches(run, RunState::Completed).await;
        assert_eq!(gaps(&stage.rig, run).await, [(1, 4)]);
        assert_eq!(stage.rig.ordinals(run).await, [5, 6, 7]);
        assert_eq!(stage.rig.last_event(run).await, "run.completed");
        assert_eq!(stage.runtime.calls("GetDecisionReceipt"), 0);
        stage.rig.log_is_sound(run).await;
        stage.rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_of_the_call_itself_says_the_same() {
    let mut stage = Stage::set(Kind::Sqlite, config()).await;
    stage.say(1);
    stage.runtime.compact(&stage.session);
    let refusal = UnaryFault::Fail(Failure::HistoryUnavailable(2));
    stage.runtime.fail_next("StreamSession", refusal);

    let run = stage.post().await;
    stage.subscribed(1).await;
    stage.say(1);
    stage.resolve();

    stage.rig.reaches(run, RunState::Completed).await;
    assert_eq!(gaps(&stage.rig, run).await, [(1, 2)]);
    assert_eq!(stage.rig.ordinals(run).await, [3, 4]);
    stage.rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_compacted_while_the_stream_was_down_is_a_gap() {
    let (mut stage, run) = Stage::followed(Kind::Sqlite).await;
    stage.say(1);
    stage.caught_up(run).await;

    stage.runtime.hold(&stage.session);
    stage.say(2);
    stage.runtime.compact(&stage.session);
    stage.runtime.end_streams(&stage.session);
    stage.subscribed(3).await;
    stage.runtime.release(&stage.session);
    stage.say(2);
    stage.rig.has_recorded(run, 4).await;

    assert_eq!(gaps(&stage.rig, run).await, [(3, 4)]);
    assert_eq!(stage.rig.ordinals(run).await, [1, 2, 5, 6]);
    // From here on the overlap is checked again.
    stage.runtime.end_streams(&stage.session);
    stage.subscribed(4).await;
    assert_eq!(stage.runtime.subscriptions(&stage.session), [0, 1, 4, 5]);
    stage.resolve();
    stage.rig.reaches(run, RunState::Completed).await;
    stage.rig.log_is_sound(run).await;
    stage.rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_compacted_after_it_was_recorded_is_no_gap() {
    let (mut stage, run) = Stage::followed(Kind::Sqlite).await;
    stage.say(2);
    stage.caught_up(run).await;

    stage.runtime.compact(&stage.session);
    stage.runtime.end_streams(&stage.session);
    stage.subscribed(3).await;
    stage.say(2);
    stage.resolve();

    stage.rig.reaches(run, RunState::Completed).await;
    stage.is_whole(run).await;
    assert_eq!(stage.runtime.subscriptions(&stage.session)[..3], [0, 2, 3]);
    stage.rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compaction_that_makes_no_sense_is_waited_out() {
    let (mut stage, run) = Stage::followed(Kind::Sqlite).await;
    stage.say(2);
    stage.caught_up(run).await;
    for _ in 0..3 {
        let fault = Fault::at_once(Then::Fail(Failure::HistoryUnavailable(1)));
        stage.runtime.fail_next_subscription(&stage.session, fault);
    }

    stage.runtime.end_streams(&stage.session);
    stage.subscribed(5).await;
    stage.resolve();

    stage.rig.reaches(run, RunState::Completed).await;
    stage.is_whole(run).await;
    assert_eq!(stage.rig.count_status(run, "reconnecting").await, 1);
    stage.rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tail_of_a_session_that_resolved_while_we_were_away_is_told_by_its_receipt() {
    for kind in Kind::ALL {
        let (mut stage, run) = Stage::followed(kind).await;
        stage.say(1);
        stage.caught_up(run).await;

        let stage = stage
            .away(|scene| {
                scene.say(2);
                scene.resolve();
                scene.runtime.compact(&scene.session);
                // Busy is no verdict.
                for _ in 0..3 {
                    let busy = UnaryFault::Fail(Failure::RateLimited);
                    scene.runtime.fail_next("GetDecisionReceipt", busy);
                }
            })
            .await;

        stage.rig.reaches(run, RunState::Completed).await;
        assert_eq!(gaps(&stage.rig, run).await, [(3, 5)]);
        assert_eq!(stage.runtime.calls("GetDecisionReceipt"), 4);
        let finalized = stage.rig.has_event(run, "decision.finalized").await;
        assert_eq!(finalized.data["source"], "receipt");
        assert_eq!(stage.rig.last_event(run).await, "run.completed");
        stage.rig.log_is_sound(run).await;
        stage.rig.stop().await;
    }
}

/// What ends a run is committed at once, whatever is asked of the run while it is looked into: a
/// process that came after a crash in between would take the decision from the receipt again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_receipt_tells_is_committed_with_the_end_of_the_run() {
    for kind in Kind::ALL {
        let patient = Config { settle_patience: Duration::from_secs(5), ..config() };
        let mut stage = Stage::set(kind, patient).await;
        stage.say(3);
        // It is resolved as soon as the run is followed, and not before: nobody may hear of it.
        let commitment = commitment();
        stage.runtime.set_receipt(&stage.session, document(&stage.session, &commitment.payload));
        stage.runtime.accept(&stage.session, "alice", commitment);
        stage.runtime.compact(&stage.session);
        let run = stage.post().await;
        stage.subscribed(2).await;
        let before = stage.runtime.calls("GetSession");
        stage.runtime.fail_next("GetSession", UnaryFault::Hang);

        stage.runtime.set_state(&stage.session, SessionState::Resolved);
        wait_until(DEADLINE, async || stage.runtime.calls("GetSession") > before).await;
        assert_eq!(stage.runtime.calls("GetDecisionReceipt"), 1, "it is looked back");
        let artifact = serde_json::json!({
            "id": uuid::Uuid::new_v4(), "kind": "report", "label": "a report",
        });
        stage.rig.engine.ask(run, "artifact", "k".to_owned(), artifact).await.unwrap();
        assert_eq!(stage.rig.last_event(run).await, "artifact.created");

        stage.rig.reaches(run, RunState::Completed).await;
        let story = stage.rig.story(run).await;
        let end = ["artifact.created", "decision.finalized", "session.state.changed"];
        assert_eq!(story[story.len() - 4..story.len() - 1], end);
        assert_eq!(story.last().unwrap(), "run.completed");
        stage.rig.log_is_sound(run).await;
        stage.rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_compacted_right_at_our_cursor_misses_nothing() {
    let (mut stage, run) = Stage::followed(Kind::Sqlite).await;
    stage.say(1);
    stage.caught_up(run).await;

    let stage = stage
        .away(|scene| {
            scene.runtime.set_state(&scene.session, SessionState::Cancelled);
            scene.runtime.compact(&scene.session);
        })
        .await;

    stage.rig.reaches(run, RunState::Cancelled).await;
    stage.is_whole(run).await;
    assert_eq!(gaps(&stage.rig, run).await, []);
    assert_eq!(stage.runtime.calls("GetDecisionReceipt"), 0);
    stage.rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_resolves_and_is_compacted_while_we_follow_is_settled() {
    let (mut stage, run) = Stage::followed(Kind::Sqlite).await;

    // The stream still brings what it has; a probe is told that the history is gone.
    stage.runtime.hold(&stage.session);
    stage.say(2);
    stage.resolve();
    stage.runtime.compact(&stage.session);
    stage.subscribed(2).await;
    stage.runtime.release(&stage.session);

    stage.rig.reaches(run, RunState::Completed).await;
    stage.is_whole(run).await;
    assert_eq!(gaps(&stage.rig, run).await, []);
    stage.rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_neither_stream_nor_probe_bring_of_a_compacted_history_is_a_gap() {
    let (mut stage, run) = Stage::followed(Kind::Sqlite).await;

    stage.runtime.hold(&stage.session);
    stage.say(2);
    stage.resolve();
    stage.runtime.compact(&stage.session);

    stage.rig.reaches(run, RunState::Completed).await;
    assert_eq!(gaps(&stage.rig, run).await, [(2, 4)]);
    assert_eq!(stage.rig.ordinals(run).await, [1]);
    stage.rig.has_event(run, "decision.finalized").await;
    assert_eq!(stage.rig.last_event(run).await, "run.completed");
    stage.rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resolved_session_without_a_receipt_is_completed_all_the_same() {
    let mut stage = Stage::set(Kind::Sqlite, config()).await;
    stage.say(1);
    stage.resolve();
    stage.runtime.compact(&stage.session);
    stage.runtime.fail_next("GetDecisionReceipt", UnaryFault::Fail(Failure::ReceiptUnavailable));

    let run = stage.post().await;

    stage.rig.reaches(run, RunState::Completed).await;
    assert_eq!(gaps(&stage.rig, run).await, [(1, 3)]);
    stage.rig.log_is_sound(run).await;
    stage.rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evicted_session_ends_as_its_receipt_says() {
    let (stage, run) = Stage::followed(Kind::Sqlite).await;

    let stage = stage
        .away(|scene| {
            scene.resolve();
            scene.runtime.evict(&scene.session);
            // Wrong credentials are no answer.
            let unknown = Failure::Plain(super::UNAUTHENTICATED.into());
            scene.runtime.fail_next("GetDecisionReceipt", UnaryFault::Fail(unknown));
        })
        .await;

    stage.rig.reaches(run, RunState::Completed).await;
    let gap = stage.rig.has_event(run, "session.stream.gap").await;
    assert_eq!(gap.data["fromOrdinal"], 2);
    assert!(!gap.data.contains_key("toOrdinal"), "nobody can say");
    stage.rig.has_event(run, "decision.finalized").await;
    assert_eq!(stage.rig.ordinals(run).await, [1]);
    stage.rig.log_is_sound(run).await;
    stage.rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receipt_that_is_withheld_is_not_waited_for() {
    let (stage, run) = Stage::followed(Kind::Sqlite).await;

    let stage = stage
        .away(|scene| {
            scene.resolve();
            scene.runtime.evict(&scene.session);
            let fault = UnaryFault::Fail(Failure::Forbidden);
            scene.runtime.fail_next("GetDecisionReceipt", fault);
        })
        .await;

    stage.rig.fails_with(run, "SESSION_GONE").await;
    let failed = stage.rig.store.run_get(run).await.unwrap();
    assert!(failed.error_message.unwrap().contains("gives no receipt"));
    stage.rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evicted_session_without_a_receipt_fails_its_run() {
    let (stage, run) = Stage::followed(Kind::Sqlite).await;
    let stage = stage.away(|scene| scene.runtime.evict(&scene.session)).await;
    stage.rig.fails_with(run, "SESSION_GONE").await;
    stage.is_whole(run).await;
    stage.rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evicted_session_that_did_not_resolve_fails_its_run() {
    let (stage, run) = Stage::followed(Kind::Sqlite).await;
    let stage = stage
        .away(|scene| {
            scene.runtime.evict(&scene.session);
            let none = UnaryFault::Fail(Failure::ReceiptUnavailable);
            scene.runtime.fail_next("GetDecisionReceipt", none);
        })
        .await;
    stage.rig.fails_with(run, "SESSION_ENDED_UNRESOLVED").await;
    stage.is_whole(run).await;
    stage.rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evicted_session_whose_commitment_is_recorded_needs_no_receipt() {
    let (mut stage, run) = Stage::followed(Kind::Sqlite).await;
    stage.accepted.push(stage.runtime.accept(&stage.session, "alice", super::commitment()));
    stage.caught_up(run).await;

    let stage = stage.away(|scene| scene.runtime.evict(&scene.session)).await;

    stage.rig.reaches(run, RunState::Completed).await;
    stage.is_whole(run).await;
    assert_eq!(stage.runtime.calls("GetDecisionReceipt"), 0);
    stage.rig.stop().await;
}
