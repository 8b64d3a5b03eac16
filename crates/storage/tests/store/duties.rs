//! What one instance at a time does.

use control_plane_storage::Duty;
use control_plane_testkit::database::TestDb;
use control_plane_testkit::{DEADLINE, wait_until};

use crate::support::client;

#[tokio::test(flavor = "multi_thread")]
async fn one_store_at_a_time_has_a_duty_and_another_takes_it_when_that_one_dies() {
    let database = TestDb::postgres();
    let (first, second) = (database.store(), database.store());

    assert!(first.duty_hold(Duty::Discovery).await.unwrap());

    assert!(first.duty_hold(Duty::Discovery).await.unwrap(), "it keeps it");
    assert!(!second.duty_hold(Duty::Discovery).await.unwrap());
    assert!(second.duty_hold(Duty::Signals).await.unwrap(), "that is another duty");
    assert!(!first.duty_hold(Duty::Signals).await.unwrap());
    drop(first);
    wait_until(DEADLINE, async || second.duty_hold(Duty::Discovery).await.unwrap()).await;
    assert!(second.duty_hold(Duty::Signals).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duty_is_lost_with_the_connection_that_it_hangs_on() {
    let database = TestDb::postgres();
    let (first, second) = (database.store(), database.store());
    assert!(first.duty_hold(Duty::Signals).await.unwrap());

    let ended = client(database.url())
        .await
        .execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            &[],
        )
        .await
        .unwrap();

    assert!(ended > 0);
    wait_until(DEADLINE, async || second.duty_hold(Duty::Signals).await.unwrap()).await;
    assert!(!first.duty_hold(Duty::Signals).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_the_one_process_has_every_duty() {
    let database = TestDb::sqlite();
    let store = database.store();

    assert!(store.duty_hold(Duty::Discovery).await.unwrap());
    assert!(store.duty_hold(Duty::Signals).await.unwrap());
}
