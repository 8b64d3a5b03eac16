//! A caller that goes away leaves nothing half done and nothing broken.

use control_plane_domain::RunId;
use control_plane_storage::Store;
use control_plane_storage::model::{NewRun, RunFilter};
use control_plane_testkit::database::TestDb;
use control_plane_testkit::{DEADLINE, wait_until};
use tokio::task::JoinHandle;

use crate::support::{Writer, log, new_run};

/// Starts work and drops it a moment later: after more turns of the scheduler each time.
async fn drop_after<T: Send + 'static>(task: JoinHandle<T>, turns: usize) {
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
    task.abort();
    let _ = task.await;
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
        for turns in 0..300 {
            let read = { let store = store.clone(); async move { store.list_canonical_range(id, 0, 2000).await } };
            drop_after(tokio::spawn(read), turns % 40).await;
        }

        let page = store.run_list(&RunFilter { limit: 10, ..RunFilter::default() }).await.unwrap();

        assert_eq!(page.total, 1);
        assert_eq!(log(&store, id).await.len(), 2001);
    }
}
