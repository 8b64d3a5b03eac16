//! A connection that breaks leaves a write's outcome unknown, and the store whole.

use std::time::Duration;

use control_plane_storage::model::Appended;
use control_plane_storage::{Config, Store};
use control_plane_testkit::database::TestDb;
use control_plane_testkit::{DEADLINE, wait_for, wait_until};
use futures_util::future::join_all;
use tokio_postgres::Client;

use crate::support::{Writer, client, log};

/// Ends every connection to the database but the one that asks.
async fn end_others(client: &Client) {
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    client.execute(end, &[]).await.unwrap();
}

async fn others(client: &Client) -> i64 {
    let count = "SELECT count(*) FROM pg_stat_activity \
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    client.query_one(count, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_in_the_middle_leaves_the_outcome_unknown() {
    let database = TestDb::postgres();
    let store = database.store();
    let mut writer = Writer::create(&store).await;
    let mut locker = client(database.url()).await;
    let observer = client(database.url()).await;
    let lock = locker.transaction().await.unwrap();
    lock.execute("SELECT FROM feed FOR UPDATE", &[]).await.unwrap();
    let append = tokio::spawn({
        let (store, batches) = (store.clone(), vec![writer.batch(2)]);
        async move { store.append(batches).await }
    });
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    wait_until(DEADLINE, async || {
        observer.query_one(end, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;

    let outcomes = append.await.unwrap();

    assert!(matches!(&outcomes[..], [Appended::Unknown(why)] if !why.is_empty()), "{outcomes:?}");
    lock.rollback().await.unwrap();
    // What the owner does then: take the run again, look, and go on.
    writer.lease = store.run_take(writer.id()).await.unwrap();
    assert_eq!(store.run_head(writer.id()).await.unwrap().last_seq, 1);
    let batch = writer.batch(2);
    writer.commit(&store, batch).await;
    assert_eq!(log(&store, writer.id()).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_broke_while_idle_are_not_used_again() {
    let database = TestDb::postgres();
    let store = database.store();
    let mut writer = Writer::create(&store).await;
    let observer = client(database.url()).await;
    for result in join_all((0..10).map(|_| store.ping())).await {
        result.unwrap();
    }
    assert!(others(&observer).await > 1);
    end_others(&observer).await;
    wait_until(DEADLINE, async || others(&observer).await == 0).await;
    // A read is free to try again, so it shows nothing; a write may come before the news.
    store.ping().await.unwrap();

    for result in join_all((0..10).map(|_| store.run_get(writer.id()))).await {
        result.unwrap();
    }
    let batch = writer.batch(1);
    writer.commit(&store, batch).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_go_on_whatever_breaks() {
    let database = TestDb::postgres();
    let store = database.store();
    let mut writer = Writer::create(&store).await;
    let observer = client(database.url()).await;
    let killer = tokio::spawn(async move {
        for _ in 0..25 {
            end_others(&observer).await;
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    });
    while !killer.is_finished() {
        let batch = writer.batch(3);
        match &store.append(vec![batch.clone()]).await[..] {
            [Appended::Committed] => writer.follow(&batch),
            [Appended::Unknown(_)] => {
                let take = || store.run_take(writer.id());
                writer.lease = wait_for(DEADLINE, take, Result::is_ok).await.unwrap();
                let head = || store.run_head(writer.id());
                let seq = wait_for(DEADLINE, head, Result::is_ok).await.unwrap().last_seq;
                if seq == batch.run.last_seq {
                    let lease = writer.lease;
                    writer.follow(&batch);
                    writer.lease = lease;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    killer.await.unwrap();
    wait_until(DEADLINE, async || store.ping().await.is_ok()).await;

    let events = log(&store, writer.id()).await;
    assert!((1..).zip(&events).all(|(seq, event)| (event.seq, event.position) == (seq, seq)));
    assert_eq!(i64::try_from(events.len()).unwrap(), writer.run.last_seq);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_there_is_unavailable() {
    let database = TestDb::postgres();
    let writer = Writer::create(&database.store()).await;
    let mut config = database.config();
    let nowhere = database.url().replace(&format!(":{}/", port(database.url())), ":1/");
    config.url = control_plane_storage::DatabaseUrl::parse(&nowhere).unwrap();
    let store =
        Store::connect(&Config { pool_timeout: Duration::from_millis(200), ..config }).unwrap();

    let ping = store.ping().await;
    let outcomes = store.append(vec![writer.batch(1)]).await;

    assert!(matches!(&ping, Err(fault) if fault.is_transient()), "{ping:?}");
    assert!(matches!(outcomes[..], [Appended::Unknown(_)]), "{outcomes:?}");
    assert!(store.instance_hold().await.is_err());
}

fn port(url: &str) -> u16 {
    url::Url::parse(url).unwrap().port().unwrap_or(5432)
}
