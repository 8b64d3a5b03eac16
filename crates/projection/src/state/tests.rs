//! Reading state through a store.

use control_plane_domain::RunState;
use control_plane_storage::{Access, Config, DatabaseUrl};
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::projection::SNAPSHOT_DISTANCE;
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

/// A log that passes two states to be kept.
fn long_log() -> Log {
    let mut log = Log::begun(DECISION, &["alice", "bob"]);
    while log.events.last().unwrap().seq < 2 * SNAPSHOT_DISTANCE + 100 {
        let number = log.events.len();
        log.say("bob", "Note", json!({ "n": number }));
    }
    log
}

/// A store with this log in it.
async fn store(log: &Log) -> (Store, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::connect(&Config::new(url(&folder))).unwrap();
    store.migrate().await.unwrap();
    log.record(&store).await;
    (store, folder)
}

fn url(folder: &TempDir) -> DatabaseUrl {
    DatabaseUrl::Sqlite(folder.path().join("control-plane.db"))
}

/// A state that says where it comes from.
fn marked(mut state: Projection, mark: &str) -> Projection {
    state.policy.policy_description = Some(mark.to_owned());
    state
}

fn mark(state: &Projection) -> Option<&str> {
    state.policy.policy_description.as_deref()
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
        assert_eq!(at(&store, log.run.id, seq).await.unwrap(), log.state_at(seq), "{seq}");
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

#[tokio::test]
async fn the_fold_starts_at_the_newest_state_that_is_not_too_new() {
    let log = log();
    let (store, _folder) = store(&log).await;
    let id = log.run.id;
    let kept = [(500, "first"), (700, "second")];
    let rows = kept.map(|(seq, mark)| marked(log.state_at(seq), mark).to_snapshot().unwrap());
    store.snapshots_put(rows.to_vec()).await.unwrap();
    store.projection_put(marked(log.state_at(900), "newest").to_row()).await.unwrap();

    for (seq, expected) in [
        (499, None),
        (500, Some("first")),
        (699, Some("first")),
        (700, Some("second")),
        (899, Some("second")),
        (900, Some("newest")),
        (1000, Some("newest")),
    ] {
        let state = at(&store, id, seq).await.unwrap();
        assert_eq!((state.version(), mark(&state)), (seq, expected));
        assert_eq!(state.timeline, log.state_at(seq).timeline);
    }
}

#[tokio::test]
async fn a_kept_state_of_another_version_or_run_is_left_aside() {
    let log = log();
    let (store, _folder) = store(&log).await;
    let good = log.state_at(600).to_snapshot().unwrap();
    let mut old = marked(log.state_at(700), "old").to_snapshot().unwrap();
    old.schema_version -= 1;
    let mut broken = good.clone();
    (broken.version, broken.state) = (800, "{}".to_owned());
    let mut foreign = marked(Projection::empty(RunId::random()), "foreign").to_snapshot().unwrap();
    (foreign.version, foreign.run_id) = (900, log.run.id);

    for row in [good, old, broken, foreign] {
        store.snapshots_put(vec![row]).await.unwrap();
        assert_eq!(at(&store, log.run.id, 1000).await.unwrap(), log.state_at(1000));
    }
}

#[tokio::test]
async fn a_long_log_without_kept_states_has_them_once_somebody_asked() {
    let log = long_log();
    let (store, _folder) = store(&log).await;
    let id = log.run.id;
    let (one, two) = (SNAPSHOT_DISTANCE, 2 * SNAPSHOT_DISTANCE);
    assert_eq!(at(&store, id, one - 1).await.unwrap(), log.state_at(one - 1));
    assert_eq!(store.snapshot_versions(id).await.unwrap(), Vec::<Seq>::new());

    let state = at(&store, id, two + 50).await.unwrap();

    assert_eq!(state, log.state_at(two + 50));
    assert_eq!(store.snapshot_versions(id).await.unwrap(), [one, two]);
    for version in [one, two] {
        let row = store.snapshot_newest(id, version).await.unwrap().unwrap();
        assert_eq!(Projection::from_snapshot(&row).unwrap(), log.state_at(version));
    }
}

#[tokio::test]
async fn a_store_that_is_not_written_to_answers_all_the_same() {
    let log = long_log();
    let (store, folder) = store(&log).await;
    let reader = Config { access: Access::Read, ..Config::new(url(&folder)) };
    let reader = Store::connect(&reader).unwrap();

    let state = at(&reader, log.run.id, Seq::MAX).await.unwrap();

    assert_eq!(state, log.state());
    assert_eq!(store.snapshot_versions(log.run.id).await.unwrap(), Vec::<Seq>::new());
}

#[tokio::test]
async fn rebuilding_keeps_the_states_on_the_way_anew() {
    let log = long_log();
    let (store, _folder) = store(&log).await;
    let id = log.run.id;
    let wrong = [10, SNAPSHOT_DISTANCE]
        .map(|seq| marked(log.state_at(seq), "wrong").to_snapshot().unwrap());
    store.snapshots_put(wrong.to_vec()).await.unwrap();

    let rebuilt = rebuild(&store, id).await.unwrap();

    assert_eq!(rebuilt, log.state());
    let versions = store.snapshot_versions(id).await.unwrap();
    assert_eq!(versions, [SNAPSHOT_DISTANCE, 2 * SNAPSHOT_DISTANCE]);
    for seq in [20, SNAPSHOT_DISTANCE, SNAPSHOT_DISTANCE + 9] {
        assert_eq!(at(&store, id, seq).await.unwrap(), log.state_at(seq));
    }
}
