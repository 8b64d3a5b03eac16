//! The state at any moment of any log, on both databases, whichever states are kept on the way.

use control_plane_domain::Seq;
use control_plane_storage::Store;
use control_plane_testkit::database::{Kind, TestDb};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;

use super::property;
use super::support::{Log, at};
use crate::state;

/// Puts the log into the store, with these states of it.
async fn record(store: &Store, log: &Log, kept: &[Index], newest: Option<Index>) {
    log.record(store).await;
    let state_of = |index: &Index| log.state_at(index.get(&log.events).seq);
    let rows = kept.iter().map(|index| state_of(index).to_snapshot().unwrap()).collect();
    store.snapshots_put(rows).await.unwrap();
    if let Some(newest) = newest {
        store.projection_put(state_of(&newest).to_row()).await.unwrap();
    }
}

/// The first moment whose state is not that of a cold fold.
async fn first_wrong(store: &Store, log: &Log) -> Option<Seq> {
    let mut expected = log.state_at(0);
    for event in &log.events {
        expected.apply(event);
        if state::at(store, log.run.id, event.seq).await.unwrap() != expected {
            return Some(event.seq);
        }
    }
    None
}

#[test]
fn the_state_at_an_event_is_what_it_was_whatever_is_kept() {
    for kind in Kind::ALL {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let database = TestDb::new(kind);
        let store = runtime.block_on(async { database.store() });
        let kept = prop::collection::vec(any::<Index>(), 0..4);
        let cases = (property::log(), kept, any::<Option<Index>>());
        let mut runner = TestRunner::new(ProptestConfig::with_cases(16));

        let outcome = runner.run(&cases, |(log, kept, newest)| {
            let wrong = runtime.block_on(async {
                record(&store, &log, &kept, newest).await;
                let wrong = first_wrong(&store, &log).await;
                store.run_delete(log.run.id, at(0)).await.unwrap();
                wrong
            });
            prop_assert_eq!(wrong, None);
            Ok(())
        });

        outcome.unwrap_or_else(|fault| panic!("{kind:?}: {fault}"));
        drop(store);
        drop(runtime);
    }
}
