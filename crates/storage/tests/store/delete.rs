//! A run that is deleted is gone with everything, and stays gone.

use std::sync::Arc;

use control_plane_domain::RunId;
use control_plane_domain::run::RunState;
use control_plane_storage::model::{Appended, Artifact, Deleted, EventFilter};
use control_plane_storage::{Error, Store};
use control_plane_testkit::DEADLINE;
use control_plane_testkit::database::TestDb;
use serde_json::json;
use tokio::time::timeout;

use crate::support::{Writer, at, log, new_run};

/// A run that ended as completed, with a row in every table that hangs on it.
async fn completed(store: &Store) -> Writer {
    let mut writer = Writer::create(store).await;
    let mut batch = writer.batch(5);
    batch.run.state = RunState::Completed;
    batch.artifacts = vec![Artifact {
        id: uuid::Uuid::new_v4(),
        run_id: writer.id(),
        kind: "report".to_owned(),
        label: "r".to_owned(),
        uri: None,
        inline: None,
        created_at: at(0),
    }];
    writer.commit(store, batch).await;
    let asked =
        store.inbox_push(writer.id(), "signal", "k".to_owned(), json!({}), at(0)).await.unwrap();
    assert!(asked);
    writer
}

fn is_not_found<T>(answer: Result<T, Error>) -> bool {
    matches!(answer, Err(Error::NotFound { .. }))
}

on_both_databases! {
    async fn a_run_goes_with_everything_and_leaves_a_tombstone(database: TestDb) {
        let store = database.store();
        let gone = completed(&store).await;
        let kept = completed(&store).await;
        let (id, session) = (gone.id(), gone.session.session_id.clone());
        assert!(!store.session_is_deleted(&session).await.unwrap());

        let deleted = store.run_delete(id, at(9)).await.unwrap();

        assert_eq!(deleted, Deleted::Done);
        assert!(store.session_is_deleted(&session).await.unwrap());
        assert!(is_not_found(store.run_get(id).await));
        assert!(is_not_found(store.run_find(session.as_str()).await));
        assert_eq!(store.session_get(id).await.unwrap(), None);
        assert_eq!(log(&store, id).await, []);
        assert_eq!(store.list_raw_by_run(id, 0, 9).await.unwrap(), []);
        assert_eq!(store.inbox_list(id).await.unwrap(), []);
        assert_eq!(store.artifact_list(id).await.unwrap(), []);
        assert_eq!(store.metrics_get(id).await.unwrap(), None);
        assert!(is_not_found(store.run_delete(id, at(9)).await));
        assert_eq!(log(&store, kept.id()).await.len(), 6, "the others stay");
        assert!(!store.session_is_deleted(&kept.session.session_id).await.unwrap());
    }

    async fn only_a_run_that_is_over_is_deleted(database: TestDb) {
        let store = database.store();
        for state in RunState::ALL {
            let mut new = new_run();
            new.run.state = state;
            let id = Writer::create_from(&store, new).await.id();
            let expected = if state.is_terminal() { Deleted::Done } else { Deleted::Active(state) };

            assert_eq!(store.run_delete(id, at(9)).await.unwrap(), expected);

            assert_eq!(is_not_found(store.run_get(id).await), state.is_terminal(), "{state:?}");
        }
        assert!(is_not_found(store.run_delete(RunId::random(), at(9)).await));
    }

    async fn a_session_that_was_released_has_no_tombstone(database: TestDb) {
        let store = database.store();
        let mut new = new_run();
        new.run.state = RunState::Failed;
        new.run.session_id = None;
        let run = Writer::create_from(&store, new).await;

        store.run_delete(run.id(), at(9)).await.unwrap();

        assert!(!store.session_is_deleted(&run.session.session_id).await.unwrap());
    }

    async fn a_session_that_is_recorded_again_can_be_deleted_again(database: TestDb) {
        let store = database.store();
        let first = completed(&store).await;
        store.run_delete(first.id(), at(9)).await.unwrap();
        let mut new = new_run();
        new.run.state = RunState::Completed;
        new.run.session_id = first.run.session_id.clone();
        let second = Writer::create_from(&store, new).await;

        let deleted = store.run_delete(second.id(), at(10)).await.unwrap();

        assert_eq!(deleted, Deleted::Done);
        assert!(store.session_is_deleted(&first.session.session_id).await.unwrap());
    }

    async fn who_follows_the_log_is_told_at_once(database: TestDb) {
        let store = database.store();
        let run = completed(&store).await;
        let mut follower = store.follow(run.id(), 6);
        assert!(follower.try_next(10).await.unwrap().is_empty());
        let waiting = tokio::spawn(async move { follower.next(10).await });

        store.run_delete(run.id(), at(9)).await.unwrap();

        let told = timeout(DEADLINE, waiting).await.unwrap().unwrap();
        assert!(is_not_found(told));
    }

    async fn the_feed_has_a_hole_where_the_run_was(database: TestDb) {
        let store = database.store();
        let (gone, kept) = (completed(&store).await, completed(&store).await);
        let all = EventFilter { limit: 100, ..EventFilter::default() };
        let before = store.event_list(&all).await.unwrap().items;
        let end = store.feed_end().await.unwrap();

        store.run_delete(gone.id(), at(9)).await.unwrap();

        let after = store.event_list(&all).await.unwrap().items;
        let expected: Vec<_> =
            before.into_iter().filter(|entry| entry.run_id == kept.id()).collect();
        assert_eq!(after, expected);
        assert_eq!(store.feed_end().await.unwrap(), end);
    }

    async fn an_append_to_a_run_that_goes_is_fenced_or_goes_with_it(database: TestDb) {
        let store = database.store();
        for _round in 0..20 {
            let run = completed(&store).await;
            let other = Writer::create(&store).await;
            let batches = vec![run.batch(3), other.batch(3)];

            let (outcomes, deleted) =
                tokio::join!(store.append(batches), store.run_delete(run.id(), at(9)));

            assert_eq!(deleted.unwrap(), Deleted::Done);
            assert!(matches!(outcomes[0], Appended::Committed | Appended::Fenced), "{outcomes:?}");
            assert_eq!(outcomes[1], Appended::Committed);
            assert_eq!(log(&store, run.id()).await, []);
            assert_eq!(store.append(vec![run.batch(1)]).await, [Appended::Fenced]);
            assert_eq!(store.run_retake(run.lease).await.unwrap(), None);
        }
    }

    async fn of_many_who_delete_a_run_one_does(database: TestDb) {
        let store = Arc::new(database.store());
        let id = completed(&store).await.id();

        let tries = (0..8).map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.run_delete(id, at(9)).await })
        });
        let answers = futures_util::future::join_all(tries).await;

        let (done, rest): (Vec<_>, Vec<_>) = answers
            .into_iter()
            .map(Result::unwrap)
            .partition(|answer| matches!(answer, Ok(Deleted::Done)));
        assert_eq!(done.len(), 1);
        assert!(rest.into_iter().all(is_not_found));
    }
}
