//! What instances tell each other, and that nothing depends on it.

use std::time::Duration;

use control_plane_domain::Seq;
use control_plane_storage::{Error, FeedFilter, Store};
use control_plane_testkit::database::TestDb;
use control_plane_testkit::network::Network;
use control_plane_testkit::{DEADLINE, wait_for, wait_until};
use serde_json::json;
use url::Url;

use crate::support::{Writer, at, client, new_run};

async fn listening(database: &TestDb) -> Store {
    let store = database.store();
    store.instance_hold().await.unwrap();
    store
}

/// Ends the connection that the stores' locks hang on, on which they listen as well.
async fn strike(database: &TestDb) {
    let end = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let ended = client(database.url()).await.execute(end, &[]).await.unwrap();
    assert!(ended > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_hears_of_what_another_one_writes_without_asking() {
    let database = TestDb::postgres();
    let (writing, reading) = (listening(&database).await, listening(&database).await);
    let mut writer = Writer::create(&writing).await;
    let mut follower = reading.follow(writer.id(), 0);
    let mut feed = reading.follow_feed(0, FeedFilter::default());
    while follower.try_next(10).await.unwrap().is_empty() {}
    while feed.try_next(10).await.unwrap().more {}
    assert_eq!((follower.latest(), feed.latest()), (1, 1));

    let batch = writer.batch(5);
    writer.commit(&writing, batch).await;

    // Nobody reads on, so only a hint can tell.
    wait_until(DEADLINE, async || follower.latest() == 6).await;
    wait_until(DEADLINE, async || feed.latest() == 6).await;
    assert_eq!(follower.next(10).await.unwrap().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_follow_a_run_one_reads_what_was_told() {
    const FOLLOWERS: usize = 60;
    let database = TestDb::postgres();
    let (writing, reading) = (listening(&database).await, listening(&database).await);
    let mut writer = Writer::create(&writing).await;
    let mut waiting = Vec::new();
    for _ in 0..FOLLOWERS {
        let mut follower = reading.follow(writer.id(), 0);
        assert_eq!(follower.next(10).await.unwrap().len(), 1);
        assert_eq!(follower.try_next(10).await.unwrap().len(), 0);
        waiting.push(tokio::spawn(async move {
            assert_eq!(follower.next(10).await.unwrap().len(), 1);
            follower.reads_from_store()
        }));
    }
    let batch = writer.batch(1);
    writer.commit(&writing, batch).await;

    let mut from_store = 0;
    for follower in waiting {
        from_store += usize::from(follower.await.unwrap());
    }

    assert!(from_store < FOLLOWERS / 4, "{from_store} of {FOLLOWERS} asked the database");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_told_what_is_asked_and_that_runs_are_free() {
    let database = TestDb::postgres();
    let (asking, asked) = (listening(&database).await, listening(&database).await);
    let run = Writer::create(&asked).await;
    let own = asked.knock().await;
    assert!(own.look, "it looks at once when it begins to listen");

    asking.inbox_push(run.id(), "cancel", "a".to_owned(), json!(null), at(0)).await.unwrap();
    let told = tokio::time::timeout(DEADLINE, asked.knock()).await.unwrap();
    assert_eq!((told.asked.into_iter().collect::<Vec<_>>(), told.look), (vec![run.id()], false));

    assert!(asking.run_release(run.lease).await.unwrap());
    assert!(tokio::time::timeout(DEADLINE, asked.knock()).await.unwrap().look);

    Writer::create(&asking).await;
    assert_eq!(asking.runs_release().await.unwrap(), 1);
    assert!(tokio::time::timeout(DEADLINE, asked.knock()).await.unwrap().look);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_by_another_instance_ends_following() {
    let database = TestDb::postgres();
    let (deleting, reading) = (listening(&database).await, listening(&database).await);
    let mut new = new_run();
    new.run.state = control_plane_domain::RunState::Completed;
    let run = Writer::create_from(&deleting, new).await;
    let mut follower = reading.follow(run.id(), 0);
    assert_eq!(follower.next(10).await.unwrap().len(), 1);

    deleting.run_delete(run.id(), at(1)).await.unwrap();

    let gone = tokio::time::timeout(DEADLINE, follower.next(10)).await.unwrap();
    assert!(matches!(gone, Err(Error::NotFound { .. })), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn losing_the_listening_connection_again_and_again_loses_nothing() {
    const ROUNDS: i64 = 12;
    let database = TestDb::postgres();
    let (writing, reading) = (listening(&database).await, listening(&database).await);
    let mut writer = Writer::create(&writing).await;
    let end = 1 + ROUNDS * 4;
    let follow = |store: &Store, id| {
        let mut follower = store.follow(id, 0);
        tokio::spawn(async move {
            let mut seqs: Vec<Seq> = Vec::new();
            while follower.cursor() < end {
                let events = tokio::time::timeout(DEADLINE, follower.next(100)).await.unwrap();
                // The database's other connections may be struck as well.
                seqs.extend(events.unwrap_or_default().iter().map(|event| event.seq));
            }
            seqs
        })
    };
    let followers = [follow(&reading, writer.id()), follow(&writing, writer.id())];

    for round in 0..ROUNDS {
        strike(&database).await;
        let batch = writer.batch(2);
        writer.commit(&writing, batch).await;
        // Whether it listens again before or after the next batch.
        if round % 2 == 0 {
            wait_until(DEADLINE, async || reading.instance_hold().await.is_ok()).await;
        }
        let batch = writer.batch(2);
        writer.commit(&writing, batch).await;
        wait_until(DEADLINE, async || writing.instance_hold().await.is_ok()).await;
        wait_until(DEADLINE, async || reading.instance_hold().await.is_ok()).await;
    }

    for follower in followers {
        assert_eq!(follower.await.unwrap(), (1..=end).collect::<Vec<_>>());
    }
    assert!(reading.knock().await.look, "what it missed may be anything");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_behind_a_network_that_fell_silent_is_dead_before_long() {
    let database = TestDb::postgres();
    let mut url = Url::parse(database.url()).unwrap();
    let network = Network::before(url.port().unwrap(), []).await;
    url.set_port(Some(network.port())).unwrap();
    let config = control_plane_storage::DatabaseUrl::parse(url.as_str()).unwrap();
    let far = Store::connect(&control_plane_storage::Config::new(config)).unwrap();
    far.instance_hold().await.unwrap();
    let near = listening(&database).await;
    let run = Writer::create(&far).await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let beating = tokio::spawn(async move {
        let mut stopped = stopped;
        loop {
            tokio::select! {
                _ = tokio::time::sleep(Duration::from_millis(500)) => {}
                _ = &mut stopped => return far,
            }
            drop(far.instance_hold().await);
        }
    });
    assert_eq!(near.census().await.unwrap().free, 0);

    network.fall_silent();

    // Both ends are acknowledged all the while: only the server's patience tells.
    let alive = async || {
        near.instance_hold().await.unwrap();
        near.runs_claim().await.unwrap()
    };
    let leases = wait_for(DEADLINE, alive, |leases| !leases.is_empty()).await;
    assert_eq!(leases.iter().map(|lease| lease.run_id).collect::<Vec<_>>(), [run.id()]);
    stop.send(()).unwrap();
    drop(beating.await.unwrap());
}
