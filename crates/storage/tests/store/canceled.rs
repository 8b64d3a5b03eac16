//! A caller that goes away leaves nothing half done and nothing broken.

use std::time::Duration;

use control_plane_domain::RunId;
use control_plane_storage::Store;
use control_plane_storage::model::{NewRun, RunFilter};
use control_plane_testkit::database::TestDb;
use control_plane_testkit::{DEADLINE, wait_until};
use futures_util::future::join_all;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::support::{Writer, log, new_run};

/// Starts work and drops it a moment later: after more turns of the scheduler each time.
async fn drop_after<T: Send + 'static>(task: JoinHandle<T>, turns: usize) {
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
    task.abort();
    let panicked = task.await.is_err_and(|ended| ended.is_panic());
    assert!(!panicked, "what the one before left behind");
}

async fn run_exists(store: &Store, id: RunId) -> bool {
    store.run_get(id).await.is_ok()
}

on_both_databases! {
    async fn a_run_whose_creator_went_away_is_whole_or_not_there(database: TestDb) {
        let store = database.store();
        let mut created: Vec<NewRun> = Vec::new();
        for turns in 0..60 {
            let new = new_run();
            let create = { let (store, new) = (store.clone(), new.clone()); async move { store.run_create(new).await } };
            drop_after(tokio::spawn(create), turns * 3).await;
            created.push(new);
        }
        // Those that had started end before this one, or at any rate by themselves.
        let last = Writer::create(&store).await;
        assert!(run_exists(&store, last.id()).await);

        for new in created {
            wait_until(DEADLINE, async || {
                let there = run_exists(&store, new.run.id).await;
                let events = log(&store, new.run.id).await.len();
                let session = store.session_get(new.run.id).await.unwrap().is_some();
                (there && events == 1 && session) || (!there && events == 0 && !session)
            }).await;
        }
    }

    async fn an_append_whose_caller_went_away_is_whole_or_not_there(database: TestDb) {
        let store = database.store();
        let mut writer = Writer::create(&store).await;
        for turns in 0..40 {
            let batch = writer.batch(5);
            let append = { let (store, batch) = (store.clone(), batch.clone()); async move { store.append(vec![batch]).await } };
            drop_after(tokio::spawn(append), turns * 3).await;
            // Fences off what was not written yet, and waits for what is being written.
            writer.lease = store.run_take(writer.id()).await.unwrap();
            let head = store.run_head(writer.id()).await.unwrap();
            if head.last_seq != writer.run.last_seq {
                let lease = writer.lease;
                writer.follow(&batch);
                writer.lease = lease;
            }
            assert_eq!((head.last_seq, head.hash), (writer.run.last_seq, writer.chain));
            assert_eq!(log(&store, writer.id()).await.len(), usize::try_from(head.last_seq).unwrap());
            assert_eq!(store.session_get(writer.id()).await.unwrap().unwrap().cursor, writer.session.cursor);
        }
    }

    async fn readers_that_went_away_break_nothing(database: TestDb) {
        let store = database.store();
        let mut writer = Writer::create(&store).await;
        let batch = writer.batch(2000);
        writer.commit(&store, batch).await;
        let id = writer.id();
        for step in 0..200 {
            // While it waits for a connection, before the query starts, in its middle, after it.
            let patience = Duration::from_micros(step % 40 * 100);
            drop(timeout(patience, store.list_canonical_range(id, 0, 2000)).await);
        }

        let page = store.run_list(&RunFilter { limit: 10, ..RunFilter::default() }).await.unwrap();

        assert_eq!(page.total, 1);
        assert_eq!(log(&store, id).await.len(), 2001);
    }

    async fn the_runtime_of_a_caller_may_end_before_the_store(database: TestDb) {
        let store = database.store();
        let mut writer = Writer::create(&store).await;
        let batch = writer.batch(500);
        writer.commit(&store, batch).await;
        for step in 0..20 {
            let (elsewhere, id) = (store.clone(), writer.id());
            // As a worker of a web server does: one thread, and handlers that are dropped.
            let worker = std::thread::spawn(move || {
                let builder = &mut tokio::runtime::Builder::new_current_thread();
                builder.enable_all().build().unwrap().block_on(async {
                    let reads = (0..12).map(|_| elsewhere.list_canonical_range(id, 0, 500));
                    drop(timeout(Duration::from_micros(step * 300), join_all(reads)).await);
                    let created = timeout(Duration::from_micros(step * 50), elsewhere.run_create(new_run()));
                    drop(created.await);
                });
            });
            tokio::task::spawn_blocking(|| worker.join()).await.unwrap().unwrap();

            let batch = writer.batch(1);
            writer.commit(&store, batch).await;
        }
    }
}

#[tokio::test]
async fn one_thread_is_enough() {
    for database in [TestDb::sqlite_empty(), TestDb::postgres_empty()] {
        let store = database.store();
        assert!(store.migrations_pending().await.unwrap());
        store.migrate().await.unwrap();
        assert!(!store.migrations_pending().await.unwrap());
        let mut writer = Writer::create(&store).await;
        let batch = writer.batch(500);
        writer.commit(&store, batch).await;
        for step in 0..40 {
            let read = store.list_canonical_range(writer.id(), 0, 500);
            drop(timeout(Duration::from_micros(step * 100), read).await);
        }
        assert_eq!(log(&store, writer.id()).await.len(), 501);
        store.revert().await.unwrap();
    }
}
