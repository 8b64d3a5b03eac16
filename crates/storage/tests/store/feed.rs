//! Positions number the events of all runs without a hole, and become visible in their own order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use control_plane_domain::Position;
use control_plane_storage::Store;
use control_plane_storage::model::{Append, Appended, EventFilter};
use control_plane_testkit::database::TestDb;
use futures_util::future::join_all;
use tokio::task::JoinHandle;

use crate::support::{Writer, log, new_run};

/// Pages through the feed until it is told that nobody writes any more; the positions in the order
/// in which they became visible.
fn read_feed(store: Store, done: Arc<AtomicBool>, limit: i64) -> JoinHandle<Vec<Position>> {
    tokio::spawn(async move {
        let mut positions = Vec::new();
        loop {
            let was_done = done.load(Ordering::SeqCst);
            let after = positions.last().copied().unwrap_or(0);
            let filter = EventFilter { after, limit, ..EventFilter::default() };
            let page = store.event_list(&filter).await.unwrap();
            if page.items.is_empty() && was_done {
                return positions;
            }
            positions.extend(page.items.iter().map(|event| event.position));
            tokio::task::yield_now().await;
        }
    })
}

/// Writes batches for its runs, of sizes that follow from `seed`, several runs at once.
async fn write_some(store: Store, seed: i64, rounds: i64) -> i64 {
    let mut writers =
        [Writer::create(&store).await, Writer::create(&store).await, Writer::create(&store).await];
    let mut written = 3;
    for round in 0..rounds {
        let batches: Vec<Append> = (0..)
            .zip(&writers)
            .map(|(place, writer)| writer.batch((seed * 7 + round * 3 + place * 5) % 6))
            .collect();
        let outcomes = store.append(batches.clone()).await;
        assert_eq!(outcomes, [Appended::Committed, Appended::Committed, Appended::Committed]);
        for (writer, batch) in writers.iter_mut().zip(&batches) {
            writer.follow(batch);
            written += i64::try_from(batch.entries.len()).unwrap();
        }
        // Rolled back after it took its positions, or before: neither may leave a hole.
        let mut refused = writers[0].batch(2);
        refused.raw[1].ordinal = refused.raw[0].ordinal;
        let outcomes = store.append(vec![refused]).await;
        assert!(matches!(outcomes[..], [Appended::Refused(_)]), "{outcomes:?}");
    }
    for writer in &writers {
        let events = log(&store, writer.id()).await;
        assert!((1..).zip(&events).all(|(seq, event)| event.seq == seq));
        assert!(events.windows(2).all(|pair| pair[0].position < pair[1].position));
    }
    written
}

on_both_databases! {
    async fn positions_have_no_hole_and_are_seen_in_order(database: TestDb) {
        let store = database.store();
        let done = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> =
            [1, 7, 1000].map(|limit| read_feed(store.clone(), Arc::clone(&done), limit)).into();

        let writers = (0..8).map(|seed| tokio::spawn(write_some(store.clone(), seed, 12)));
        let written: i64 = join_all(writers).await.into_iter().map(Result::unwrap).sum();
        done.store(true, Ordering::SeqCst);

        for reader in readers {
            assert_eq!(reader.await.unwrap(), (1..=written).collect::<Vec<_>>());
        }
        assert_eq!(store.feed_end().await.unwrap(), written);
    }

    async fn a_run_that_is_not_made_takes_no_position(database: TestDb) {
        let store = database.store();
        let first = Writer::create(&store).await;
        let mut second = new_run();
        second.run.session_id = first.run.session_id.clone();

        store.run_create(second).await.unwrap_err();

        assert_eq!(store.feed_end().await.unwrap(), 1);
    }

    async fn a_log_keeps_its_name(database: TestDb) {
        let store = database.store();
        let name = store.log_id().await.unwrap();
        drop(store);

        let store = database.store();

        assert!(!name.is_empty());
        assert_eq!(store.log_id().await.unwrap(), name);
        assert_ne!(TestDb::sqlite().store().log_id().await.unwrap(), name);
    }
}
