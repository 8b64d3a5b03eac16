//! What is asked of a run is done once, whatever the run is doing.

use control_plane_domain::{Clock, RunId, RunState, SessionId, SystemClock};
use control_plane_recovery::MAX_ARTIFACTS;
use control_plane_testkit::database::Kind;
use control_plane_testkit::message;
use control_plane_testkit::runtime::{Durability, Options, RuntimeProcess};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Talk;
use super::support::Rig;

fn artifact(id: Uuid) -> Value {
    json!({ "id": id, "kind": "report", "label": "a report", "inline": { "pages": 3 } })
}

async fn ask(rig: &Rig, run: RunId, key: &str, payload: Value) {
    rig.engine.ask(run, "artifact", key.to_owned(), payload).await.unwrap();
}

/// The run has these artifacts, each with one event, and nothing is left to do.
async fn has_exactly(rig: &Rig, run: RunId, ids: &[Uuid]) {
    let mut stored: Vec<Uuid> =
        rig.store.artifact_list(run).await.unwrap().iter().map(|artifact| artifact.id).collect();
    let mut wanted = ids.to_vec();
    stored.sort();
    wanted.sort();
    assert_eq!(stored, wanted);
    let story = rig.story(run).await;
    let told = story.iter().filter(|name| *name == "artifact.created").count();
    assert_eq!(told, ids.len());
    assert_eq!(rig.store.inbox_list(run).await.unwrap(), []);
    rig.log_is_sound(run).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_artifact_is_added_to_a_run_in_every_state() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let rig = Rig::start(kind, runtime.client());
        let waiting = rig.post(&SessionId::random(), message::DECISION).await;
        let mut talk = Talk::open(&cast).await;
        let run = rig.post(&talk.session, message::DECISION).await;
        rig.has_recorded(run, 2).await;
        let ids = [Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4()];

        ask(&rig, waiting, "a", artifact(ids[2])).await;
        ask(&rig, run, "live", artifact(ids[0])).await;
        talk.end(&cast).await;
        rig.reaches(run, RunState::Completed).await;
        ask(&rig, run, "finished", artifact(ids[1])).await;

        has_exactly(&rig, waiting, &ids[2..]).await;
        has_exactly(&rig, run, &ids[..2]).await;
        assert_eq!(rig.last_event(run).await, "artifact.created");
        rig.is_whole(run, &talk.accepted).await;
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_twice_is_done_once() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let rig = Rig::start(kind, runtime.client());
        let mut talk = Talk::open(&cast).await;
        let run = rig.post(&talk.session, message::DECISION).await;
        rig.has_recorded(run, 2).await;
        let (live, finished) = (Uuid::new_v4(), Uuid::new_v4());

        // At the same time, and again when the first time is past.
        for _ in 0..2 {
            let asked = (0..4).map(|_| ask(&rig, run, "live", artifact(live)));
            futures_util::future::join_all(asked).await;
        }
        talk.end(&cast).await;
        rig.reaches(run, RunState::Completed).await;
        for _ in 0..2 {
            let asked = (0..4).map(|_| ask(&rig, run, "finished", artifact(finished)));
            futures_util::future::join_all(asked).await;
        }

        has_exactly(&rig, run, &[live, finished]).await;
        assert_eq!(rig.store.run_get(run).await.unwrap().parked_reason, None);
        rig.is_whole(run, &talk.accepted).await;
        rig.stop().await;
    }
}

/// More than is read at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inbox_of_any_size_is_carried_out_in_its_order() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let rig = Rig::start(kind, runtime.client());
        let waiting = rig.post(&SessionId::random(), message::DECISION).await;
        let mut talk = Talk::open(&cast).await;
        let live = rig.post(&talk.session, message::DECISION).await;
        rig.has_recorded(live, 2).await;
        let mut over = Talk::open(&cast).await;
        let finished = rig.post(&over.session, message::DECISION).await;
        over.end(&cast).await;
        rig.reaches(finished, RunState::Completed).await;

        for run in [waiting, live, finished] {
            let ids: Vec<Uuid> = std::iter::repeat_with(Uuid::new_v4).take(700).collect();
            for id in &ids {
                let key = id.to_string();
                let now = SystemClock.now();
                rig.store.inbox_push(run, "artifact", key, artifact(*id), now).await.unwrap();
            }
            ask(&rig, run, "the last one", artifact(Uuid::new_v4())).await;

            has_exactly(&rig, run, &ids[..MAX_ARTIFACTS]).await;
        }
        talk.end(&cast).await;
        rig.reaches(live, RunState::Completed).await;
        rig.is_whole(live, &talk.accepted).await;
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_runtime_keeps_nothing_from_being_done() {
    let mut runtime = RuntimeProcess::start(Options::new(Durability::KeepsHistory)).await;
    let cast = runtime.cast().await;
    let rig = Rig::start(Kind::Sqlite, runtime.client());
    let mut talk = Talk::open(&cast).await;
    let run = rig.post(&talk.session, message::DECISION).await;
    rig.has_recorded(run, 2).await;
    runtime.kill().await;
    let id = Uuid::new_v4();

    ask(&rig, run, "a", artifact(id)).await;

    has_exactly(&rig, run, &[id]).await;
    runtime.restart().await;
    let cast = runtime.cast().await;
    talk.end(&cast).await;
    rig.reaches(run, RunState::Completed).await;
    rig.is_whole(run, &talk.accepted).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_nobody_understands_costs_the_run_nothing() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let rig = Rig::start(Kind::Sqlite, runtime.client());
    let mut talk = Talk::open(&cast).await;
    let run = rig.post(&talk.session, message::DECISION).await;
    rig.has_recorded(run, 2).await;

    rig.engine.ask(run, "from the future", "a".to_owned(), json!({})).await.unwrap();
    ask(&rig, run, "b", json!({ "id": "no id" })).await;

    has_exactly(&rig, run, &[]).await;
    talk.end(&cast).await;
    rig.reaches(run, RunState::Completed).await;
    rig.is_whole(run, &talk.accepted).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asking_a_finished_run_leaves_the_one_after_it_alone() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let patience = control_plane_recovery::Config {
        session_wait: std::time::Duration::from_millis(100),
        ..super::support::config()
    };
    let rig = Rig::with_config(Kind::Sqlite, runtime.client(), patience);
    let session = SessionId::random();
    let too_early = rig.post(&session, message::DECISION).await;
    rig.reaches(too_early, RunState::Failed).await;
    let participants = ["alice", "bob", "carol"];
    let spec = control_plane_testkit::agent::SessionSpec::new(message::DECISION, &participants)
        .with_id(&session);
    let accepted = vec![cast.alice.start_session(&spec).await];
    let run = rig.post(&session, message::DECISION).await;
    rig.has_recorded(run, 1).await;

    let id = Uuid::new_v4();
    ask(&rig, too_early, "a", artifact(id)).await;
    // The run that follows the session still hears of it.
    cast.alice.cancel(&session, "enough").await;

    rig.reaches(run, RunState::Cancelled).await;
    has_exactly(&rig, too_early, &[id]).await;
    rig.is_whole(run, &accepted).await;
    rig.stop().await;
}
