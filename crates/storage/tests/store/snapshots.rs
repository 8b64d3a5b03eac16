//! States that are kept on the way through a log.

use control_plane_domain::{RunId, Seq};
use control_plane_storage::Store;
use control_plane_storage::model::{Appended, PROJECTION_SCHEMA_VERSION, SnapshotRow};
use control_plane_testkit::database::TestDb;

use crate::support::{Writer, at};

fn kept(run_id: RunId, version: Seq, text: &str) -> SnapshotRow {
    // What JSON escapes, and what it does not.
    let state = format!("{{\"text\":\"{text} Grüße \\u0000\"}}");
    SnapshotRow { run_id, version, schema_version: PROJECTION_SCHEMA_VERSION, state }
}

async fn newest(store: &Store, id: RunId, until: Seq) -> Option<SnapshotRow> {
    store.snapshot_newest(id, until).await.unwrap()
}

on_both_databases! {
    async fn states_are_kept_by_the_append_that_passes_them(database: TestDb) {
        let store = database.store();
        let (mut one, mut other) = (Writer::create(&store).await, Writer::create(&store).await);
        for writer in [&mut one, &mut other] {
            let mut batch = writer.batch(9);
            batch.snapshots = [2, 5, 10].map(|seq| kept(writer.id(), seq, "a")).to_vec();
            writer.commit(&store, batch).await;
        }
        let id = one.id();

        assert_eq!(store.snapshot_versions(id).await.unwrap(), [2, 5, 10]);
        for (until, expected) in [(1, None), (2, Some(2)), (4, Some(2)), (9, Some(5)), (99, Some(10))] {
            let expected = expected.map(|version| kept(id, version, "a"));
            assert_eq!(newest(&store, id, until).await, expected, "{until}");
        }
    }

    async fn a_batch_that_is_fenced_or_refused_keeps_nothing(database: TestDb) {
        let store = database.store();
        let stale = Writer::create(&store).await;
        store.run_take(stale.id()).await.unwrap();
        let foreign = Writer::create(&store).await;
        let mut batches = vec![stale.batch(2), foreign.batch(2)];
        for batch in &mut batches {
            batch.snapshots = vec![kept(stale.id(), 2, "a")];
        }

        let outcomes = store.append(batches).await;

        assert_eq!(outcomes[0], Appended::Fenced);
        assert!(matches!(outcomes[1], Appended::Refused(_)), "{outcomes:?}");
        assert_eq!(store.snapshot_versions(stale.id()).await.unwrap(), Vec::<Seq>::new());
    }

    async fn a_state_that_is_kept_again_replaces_the_one_before(database: TestDb) {
        let store = database.store();
        let mut writer = Writer::create(&store).await;
        let id = writer.id();
        store.snapshots_put(vec![kept(id, 2, "a"), kept(id, 3, "a")]).await.unwrap();

        store.snapshots_put(vec![kept(id, 2, "b")]).await.unwrap();
        let mut batch = writer.batch(3);
        batch.snapshots = vec![kept(id, 3, "c")];
        writer.commit(&store, batch).await;

        assert_eq!(newest(&store, id, 2).await, Some(kept(id, 2, "b")));
        assert_eq!(newest(&store, id, 9).await, Some(kept(id, 3, "c")));
    }

    async fn a_state_of_another_version_of_the_fold_is_not_found(database: TestDb) {
        let store = database.store();
        let id = Writer::create(&store).await.id();
        let old = SnapshotRow { schema_version: PROJECTION_SCHEMA_VERSION - 1, ..kept(id, 3, "a") };
        store.snapshots_put(vec![kept(id, 2, "a"), old]).await.unwrap();

        assert_eq!(newest(&store, id, 9).await, Some(kept(id, 2, "a")));
    }

    async fn what_is_kept_goes_with_its_run_and_on_request(database: TestDb) {
        let store = database.store();
        let (cleared, deleted) = (Writer::create(&store).await, Writer::create(&store).await);
        for writer in [&cleared, &deleted] {
            store.snapshots_put(vec![kept(writer.id(), 1, "a")]).await.unwrap();
        }
        let mut over = deleted.batch(1);
        over.run.state = control_plane_domain::RunState::Failed;
        assert_eq!(store.append(vec![over]).await, [Appended::Committed]);

        store.snapshots_clear(cleared.id()).await.unwrap();
        store.run_delete(deleted.id(), at(0)).await.unwrap();

        assert_eq!(newest(&store, cleared.id(), 9).await, None);
        assert_eq!(newest(&store, deleted.id(), 9).await, None);
        assert!(store.snapshots_put(vec![kept(deleted.id(), 1, "a")]).await.is_err());
    }
}
