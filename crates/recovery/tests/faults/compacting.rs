//! The real runtime as it is by default: it compacts a session the moment it ends, and forgets it
//! some time after. What we missed then is said, to the ordinal, and the receipt decides.

use control_plane_domain::runtime::{Runtime, RuntimeErrorKind};
use control_plane_domain::{RunId, RunState, SessionId};
use control_plane_projection::state;
use control_plane_testkit::agent::SessionSpec;
use control_plane_testkit::database::Kind;
use control_plane_testkit::link::{Link, Way};
use control_plane_testkit::runtime::{Durability, Options, RuntimeProcess};
use control_plane_testkit::{DEADLINE, message, play, wait_until};
use serde_json::{Value, json};

use super::network::{Talk, beyond};
use super::support::Rig;

async fn compacting() -> RuntimeProcess {
    RuntimeProcess::start(Options::new(Durability::CompactsEndedSessions)).await
}

/// One that forgets what is over within seconds.
async fn forgetful() -> RuntimeProcess {
    let options = Options::new(Durability::CompactsEndedSessions)
        .with("MACP_SESSION_RETENTION_SECS", "1")
        .with("MACP_CLEANUP_INTERVAL_SECS", "1");
    RuntimeProcess::start(options).await
}

/// What the state says of the history.
async fn history_gap(rig: &Rig, run: RunId) -> Value {
    let state = serde_json::to_value(state::load(&rig.store, run).await.unwrap()).unwrap();
    state["run"]["historyGap"].clone()
}

/// Waits until the runtime does not know the session any more.
async fn is_evicted(runtime: &RuntimeProcess, session: &SessionId) {
    let client = runtime.client();
    let gone = async || {
        let answer = client.get_session(session).await;
        answer.is_err_and(|fault| fault.kind == RuntimeErrorKind::NotFound)
    };
    wait_until(DEADLINE, gone).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_follows_when_a_session_ends_misses_nothing() {
    for kind in Kind::ALL {
        let runtime = compacting().await;
        let cast = runtime.cast().await;
        let rig = Rig::start(kind, runtime.client());
        for _ in 0..5 {
            let mut talk = Talk::open(&cast).await;
            let run = rig.post(&talk.session, message::DECISION).await;
            rig.has_recorded(run, 2).await;

            talk.go_on(&cast, 5).await;
            talk.end(&cast).await;

            rig.reaches(run, RunState::Completed).await;
            rig.is_whole(run, &talk.accepted).await;
            assert_eq!(history_gap(&rig, run).await, Value::Null);
        }
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_during_an_outage_is_an_exact_gap_and_a_receipt() {
    for kind in Kind::ALL {
        let runtime = compacting().await;
        let cast = runtime.cast().await;
        let link = Link::to(runtime.address()).await;
        let rig = Rig::start(kind, beyond(&link, &runtime));
        let mut talk = Talk::open(&cast).await;
        let run = rig.post(&talk.session, message::DECISION).await;
        rig.has_recorded(run, 2).await;

        link.set(Way::Cut);
        talk.go_on(&cast, 2).await;
        talk.end(&cast).await;
        link.set(Way::Open);

        rig.reaches(run, RunState::Completed).await;
        let gap = json!({ "fromOrdinal": 3, "toOrdinal": 6, "missing": 4 });
        assert_eq!(history_gap(&rig, run).await, gap);
        let told = rig.has_event(run, "session.stream.gap").await;
        assert_eq!(told.data["reason"], "HISTORY_UNAVAILABLE");
        let finalized = rig.has_event(run, "decision.finalized").await;
        assert_eq!(finalized.data["source"], "receipt");
        assert_eq!(finalized.data["action"], "decision.selected");
        assert_eq!(rig.last_event(run).await, "run.completed");
        assert_eq!(rig.ordinals(run).await, [1, 2]);
        rig.log_is_sound(run).await;
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_the_runtime_did_not_survive_by_much_is_settled_all_the_same() {
    for kind in Kind::ALL {
        let mut runtime = compacting().await;
        let cast = runtime.cast().await;
        let link = Link::to(runtime.address()).await;
        let rig = Rig::start(kind, beyond(&link, &runtime));
        let mut talk = Talk::open(&cast).await;
        let run = rig.post(&talk.session, message::DECISION).await;
        rig.has_recorded(run, 2).await;

        link.set(Way::Cut);
        talk.end(&cast).await;
        runtime.kill().await;
        runtime.restart().await;
        link.set(Way::Open);

        rig.reaches(run, RunState::Completed).await;
        let gap = json!({ "fromOrdinal": 3, "toOrdinal": 4, "missing": 2 });
        assert_eq!(history_gap(&rig, run).await, gap);
        rig.has_event(run, "decision.finalized").await;
        rig.log_is_sound(run).await;
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_was_over_before_it_was_posted_is_told_by_its_receipt_alone() {
    for kind in Kind::ALL {
        let runtime = compacting().await;
        let cast = runtime.cast().await;
        let session = SessionId::random();
        let accepted = play::quorum_refused(&cast, &session).await;
        let rig = Rig::start(kind, runtime.client());

        let run = rig.post(&session, message::QUORUM).await;

        rig.reaches(run, RunState::Completed).await;
        let missing = accepted.len();
        let gap = json!({ "fromOrdinal": 1, "toOrdinal": missing, "missing": missing });
        assert_eq!(history_gap(&rig, run).await, gap);
        let finalized = rig.has_event(run, "decision.finalized").await;
        assert_eq!(finalized.data["outcomePositive"], false);
        assert_eq!(rig.ordinals(run).await, [0_i64; 0]);
        rig.log_is_sound(run).await;
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_did_not_resolve_or_has_no_receipts_ends_as_its_session_did() {
    for kind in Kind::ALL {
        let runtime = compacting().await;
        let cast = runtime.cast().await;
        let link = Link::to(runtime.address()).await;
        let rig = Rig::start(kind, beyond(&link, &runtime));
        let mut cancelled = Talk::open(&cast).await;
        let first = rig.post(&cancelled.session, message::DECISION).await;
        let rounds = SessionId::random();
        let spec = SessionSpec::new(message::MULTI_ROUND, &["bob", "carol"]).with_id(&rounds);
        cast.alice.start_session(&spec).await;
        let second = rig.post(&rounds, message::MULTI_ROUND).await;
        rig.has_recorded(first, 2).await;
        rig.has_recorded(second, 1).await;

        link.set(Way::Cut);
        cancelled.go_on(&cast, 1).await;
        cast.alice.cancel(&cancelled.session, "enough").await;
        for agent in [&cast.bob, &cast.carol] {
            let said = message::multi_round::contribute("blue");
            agent.say(&rounds, message::MULTI_ROUND, said).await;
        }
        let converged =
            message::commitment("c1", "multi_round.converged", message::Outcome::Positive);
        cast.alice.say(&rounds, message::MULTI_ROUND, converged).await;
        link.set(Way::Open);

        rig.reaches(first, RunState::Cancelled).await;
        let gap = json!({ "fromOrdinal": 3, "toOrdinal": 3, "missing": 1 });
        assert_eq!(history_gap(&rig, first).await, gap);
        rig.reaches(second, RunState::Completed).await;
        let gap = json!({ "fromOrdinal": 2, "toOrdinal": 4, "missing": 3 });
        assert_eq!(history_gap(&rig, second).await, gap);
        for run in [first, second] {
            let story = rig.story(run).await;
            assert!(!story.iter().any(|name| name == "decision.finalized"), "{story:?}");
            rig.log_is_sound(run).await;
        }
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_forgotten_is_told_by_its_receipt_and_the_gap_has_no_end() {
    for kind in Kind::ALL {
        let runtime = forgetful().await;
        let cast = runtime.cast().await;
        let rig = Rig::start(kind, runtime.client());
        let mut resolved = Talk::open(&cast).await;
        let first = rig.post(&resolved.session, message::DECISION).await;
        let cancelled = Talk::open(&cast).await;
        let second = rig.post(&cancelled.session, message::DECISION).await;
        rig.has_recorded(first, 2).await;
        rig.has_recorded(second, 2).await;

        let (database, client, config) = rig.stop().await;
        resolved.end(&cast).await;
        cast.alice.cancel(&cancelled.session, "enough").await;
        is_evicted(&runtime, &resolved.session).await;
        is_evicted(&runtime, &cancelled.session).await;
        let rig = Rig::resume(database, client, config);

        rig.reaches(first, RunState::Completed).await;
        let finalized = rig.has_event(first, "decision.finalized").await;
        assert_eq!(finalized.data["source"], "receipt");
        rig.fails_with(second, "SESSION_ENDED_UNRESOLVED").await;
        for run in [first, second] {
            let gap = json!({ "fromOrdinal": 3, "toOrdinal": null, "missing": 0 });
            assert_eq!(history_gap(&rig, run).await, gap);
            rig.log_is_sound(run).await;
        }
        rig.stop().await;
    }
}
