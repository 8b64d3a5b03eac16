//! Reading state through a store.

use bytes::Bytes;
use control_plane_domain::RunState;
use control_plane_domain::event::ChainHash;
use control_plane_domain::metrics::RunMetrics;
use control_plane_storage::model::NewRun;
use control_plane_storage::{Config, DatabaseUrl};
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::tests::support::{DECISION, Log};

fn log() -> Log {
    let mut log = Log::begun(DECISION, &["alice", "bob"]);
    log.say("alice", "Proposal", json!({ "proposalId": "p1" }));
    for at in 0..1200 {
        log.say("bob", "Note", json!({ "n": at }));
    }
    log.say("bob", "Vote", json!({ "proposalId": "p1", "vote": "APPROVE" }))
        .say("alice", "Commitment", json!({ "commitmentId": "c1", "outcomePositive": true }))
        .enters(RunState::Completed);
    log
}

/// A store with this log in it.
async fn store(log: &Log) -> (Store, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let url = DatabaseUrl::Sqlite(folder.path().join("control-plane.db"));
    let store = Store::connect(&Config::new(url)).unwrap();
    store.migrate().await.unwrap();
    let mut hash = ChainHash::EMPTY;
    let entries: Vec<LogEntry> = log
        .events
        .iter()
        .map(|event| {
            let text = event.encode();
            hash = hash.then(&text);
            LogEntry {
                run_id: event.run_id,
                seq: event.seq,
                position: 0,
                ts: event.ts,
                received_at: event.received_at,
                event_type: event.event_type,
                subject: None,
                hash,
                body: Bytes::from(text),
            }
        })
        .collect();
    let mut run = log.run.clone();
    run.last_seq = log.events.last().unwrap().seq;
    let new =
        NewRun { metrics: RunMetrics::empty(run.id), session: log.session.clone(), run, entries };
    store.run_create(new).await.unwrap();
    (store, folder)
}

#[tokio::test]
async fn the_state_is_the_snapshot_and_the_events_after_it() {
    let log = log();
    let (store, _folder) = store(&log).await;
    let mut snapshot = Projection::empty(log.run.id);
    log.events.iter().take(10).for_each(|event| snapshot.apply(event));
    // What only the snapshot says shows that it was used.
    snapshot.policy.policy_description = Some("from the snapshot".to_owned());

    let without = load(&store, log.run.id).await.unwrap();
    store.projection_put(snapshot.to_row()).await.unwrap();
    let with = load(&store, log.run.id).await.unwrap();

    assert_eq!(without, log.state());
    assert_eq!(with.policy.policy_description.as_deref(), Some("from the snapshot"));
    assert_eq!(with.timeline, without.timeline);
}

#[tokio::test]
async fn a_snapshot_of_another_version_is_left_aside() {
    let log = log();
    let (store, _folder) = store(&log).await;
    let mut old = Projection::empty(log.run.id).to_row();
    old.schema_version -= 1;
    old.version = 5;
    store.projection_put(old).await.unwrap();

    assert_eq!(load(&store, log.run.id).await.unwrap(), log.state());
}

#[tokio::test]
async fn the_state_at_an_event_knows_nothing_of_what_came_later() {
    let log = log();
    let (store, _folder) = store(&log).await;
    store.projection_put(log.state().to_row()).await.unwrap();

    for seq in [0, 1, 7, 1000, 1001, log.state().version(), 1_000_000] {
        let mut expected = Projection::empty(log.run.id);
        log.events.iter().filter(|event| event.seq <= seq).for_each(|event| expected.apply(event));
        assert_eq!(at(&store, log.run.id, seq).await.unwrap(), expected, "{seq}");
    }
}

#[tokio::test]
async fn rebuilding_drops_what_was_stored_and_keeps_the_result() {
    let log = log();
    let (store, _folder) = store(&log).await;
    let mut wrong = log.state();
    wrong.run.status = RunState::Queued;
    store.projection_put(wrong.to_row()).await.unwrap();

    let rebuilt = rebuild(&store, log.run.id).await.unwrap();

    assert_eq!(rebuilt, log.state());
    assert_eq!(load(&store, log.run.id).await.unwrap(), log.state());
}

#[tokio::test]
async fn a_run_without_events_has_the_empty_state() {
    let log = log();
    let (store, _folder) = store(&log).await;
    let other = control_plane_domain::RunId::random();
    assert_eq!(load(&store, other).await.unwrap(), Projection::empty(other));
}
