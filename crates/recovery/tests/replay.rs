//! A recorded run, looked at again: its state after any event is what it was then.

#![expect(
    clippy::unwrap_used,
    reason = "clippy takes only functions with `#[test]` for tests, not what they call"
)]

mod support;

use std::collections::BTreeMap;

use control_plane_domain::{RunId, RunState, Seq, SessionId};
use control_plane_projection::{Projection, SNAPSHOT_DISTANCE, state};
use control_plane_storage::Store;
use control_plane_testkit::agent::SessionSpec;
use control_plane_testkit::database::Kind;
use control_plane_testkit::message::Outcome;
use control_plane_testkit::runtime::RuntimeProcess;
use control_plane_testkit::{DEADLINE, message, play, wait_for};
use serde_json::Value;
use support::Rig;

fn json(projection: &Projection) -> Value {
    serde_json::to_value(projection).unwrap()
}

/// Folds a run while it happens, event by event, until it is over: its state after each.
fn watch(store: &Store, run: RunId) -> tokio::task::JoinHandle<Vec<Value>> {
    let store = store.clone();
    let mut follower = store.follow(run, 0);
    tokio::spawn(async move {
        let mut live = Projection::empty(run);
        let mut states = vec![json(&live)];
        loop {
            for entry in follower.next(1).await.unwrap() {
                live.apply(&state::event(&entry).unwrap());
                states.push(json(&live));
            }
            if live.run.status == RunState::Completed {
                return states;
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_at_every_event_of_a_decision_is_what_it_was_when_it_was_live() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let rig = Rig::start(kind, runtime.client());
        let session = SessionId::random();
        let run = rig.post(&session, message::DECISION).await;
        let watching = watch(&rig.store, run);
        let spec =
            SessionSpec::new(message::DECISION, &["alice", "bob", "carol"]).with_id(&session);
        cast.alice.start_session(&spec).await;
        let mut seen: BTreeMap<Seq, Value> = BTreeMap::new();
        for (count, (agent, what)) in (2..).zip([
            (&cast.alice, message::decision::proposal("p1", "deploy now")),
            (&cast.bob, message::decision::proposal("p2", "deploy tomorrow")),
            (&cast.bob, message::decision::evaluation("p1", "APPROVE", 0.9)),
            (&cast.carol, message::decision::evaluation("p2", "REVIEW", 0.3)),
            (&cast.bob, message::decision::vote("p1", "APPROVE")),
            (&cast.carol, message::decision::vote("p1", "REJECT")),
            (&cast.alice, message::commitment("c1", "decision.selected", Outcome::Positive)),
        ]) {
            agent.say(&session, message::DECISION, what).await;
            rig.has_recorded(run, count).await;
            // What `GET /runs/{id}/state` says now.
            let now = state::load(&rig.store, run).await.unwrap();
            seen.insert(now.version(), json(&now));
        }
        rig.reaches(run, RunState::Completed).await;
        let live = tokio::time::timeout(DEADLINE, watching).await.unwrap().unwrap();

        let end = rig.store.run_get(run).await.unwrap().last_seq;
        assert_eq!(live.len(), usize::try_from(end).unwrap() + 1);
        for (seq, expected) in (0..).zip(&live) {
            let replayed = json(&state::at(&rig.store, run, seq).await.unwrap());
            assert_eq!(&replayed, expected, "after event {seq}, {kind:?}");
        }
        assert!(seen.len() > 3, "the run was looked at while it went on");
        for (seq, expected) in &seen {
            assert_eq!(&json(&state::at(&rig.store, run, *seq).await.unwrap()), expected);
        }
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_run_keeps_its_state_on_the_way() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let rig = Rig::start(kind, runtime.client());
        let session = SessionId::random();
        play::open_for_load(&cast, &session).await;
        let half = usize::try_from(SNAPSHOT_DISTANCE).unwrap() / 2;
        // Half of it is read from history, and half while it happens: two events each.
        play::contribute_many(&cast.alice, &session, half, 32).await;
        let run = rig.post(&session, message::MULTI_ROUND).await;
        play::contribute_many(&cast.alice, &session, half + 20, 32).await;
        let wanted = 2 * SNAPSHOT_DISTANCE + 20;
        let ask = async || rig.store.run_get(run).await.unwrap().last_seq;
        wait_for(DEADLINE, ask, |seq| *seq >= wanted).await;

        let versions = rig.store.snapshot_versions(run).await.unwrap();

        assert_eq!(versions, [SNAPSHOT_DISTANCE, 2 * SNAPSHOT_DISTANCE]);
        let mut cold = Projection::empty(run);
        for event in rig.events(run).await {
            cold.apply(&event);
            let near = event.seq % SNAPSHOT_DISTANCE;
            if near < 2 || near == SNAPSHOT_DISTANCE - 1 || event.seq == 700 {
                let replayed = state::at(&rig.store, run, event.seq).await.unwrap();
                assert_eq!(replayed, cold, "after event {}, {kind:?}", event.seq);
            }
        }
        rig.stop().await;
    }
}
