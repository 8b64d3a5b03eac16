//! What holds for SQLite alone: one process that writes, any number that read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use control_plane_storage::model::{Appended, RunFilter};
use control_plane_storage::{Access, Config, DatabaseUrl, Error, Store};
use control_plane_testkit::database::TestDb;
use diesel::connection::SimpleConnection;
use diesel::prelude::*;

use crate::support::{Writer, new_run};

#[tokio::test(flavor = "multi_thread")]
async fn a_second_writer_is_refused_and_told_why() {
    let database = TestDb::sqlite();
    let store = database.store();

    let second = Store::connect(&database.config());

    let Err(Error::Config(reason)) = second.map(drop) else { panic!("it was let in") };
    assert!(reason.contains("another process has the database"), "{reason}");
    drop(store);
    assert!(Store::connect(&database.config()).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_reads_beside_the_writer_and_writes_nothing() {
    let database = TestDb::sqlite();
    let store = database.store();
    let run = Writer::create(&store).await.run;
    let reader = Store::connect(&Config { access: Access::Read, ..database.config() }).unwrap();

    assert_eq!(reader.run_get(run.id).await.unwrap(), run);

    let refused = reader.run_create(new_run()).await;
    assert!(matches!(refused, Err(Error::Config(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_does_not_make_a_database() {
    let database = TestDb::sqlite_empty();
    let config = Config { access: Access::Read, ..database.config() };

    let missing = Store::connect(&config);

    let Err(Error::Config(reason)) = missing.map(drop) else { panic!("it was made") };
    assert!(reason.starts_with("there is no database"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_database_is_an_error_and_not_a_panic() {
    let database = TestDb::sqlite_empty();
    let path = database.url().strip_prefix("sqlite://").unwrap();
    std::fs::write(path, "this is not a database, however long one looks at it".repeat(100))
        .unwrap();
    let url = DatabaseUrl::parse(database.url()).unwrap();
    let store = Store::connect(&Config::new(url)).unwrap();

    store.ping().await.unwrap_err();
    store.migrate().await.unwrap_err();
    store.run_create(new_run()).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_told_that_the_database_is_locked() {
    let database = TestDb::sqlite();
    let store = database.store();
    let done = Arc::new(AtomicBool::new(false));
    let elsewhere = Store::connect(&Config { access: Access::Read, ..database.config() }).unwrap();
    let readers: Vec<_> = (0..24)
        .map(|n| {
            let store = if n % 2 == 0 { store.clone() } else { elsewhere.clone() };
            let done = Arc::clone(&done);
            tokio::spawn(async move {
                while !done.load(Ordering::SeqCst) {
                    let filter = RunFilter { limit: 5, ..RunFilter::default() };
                    store.run_list(&filter).await.unwrap();
                }
            })
        })
        .collect();
    let writers = (0..4).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut writer = Writer::create(&store).await;
            for _ in 0..40 {
                let mut batch = writer.batch(20);
                batch.raw[0].envelope.payload = vec![7; 200_000];
                writer.commit(&store, batch).await;
            }
        })
    });

    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    done.store(true, Ordering::SeqCst);

    for reader in readers {
        reader.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_finds_the_file_locked_waits_for_it() {
    let database = TestDb::sqlite();
    let store = database.store();
    let writer = Writer::create(&store).await;
    let path = database.url().strip_prefix("sqlite://").unwrap();
    let mut intruder = SqliteConnection::establish(path).unwrap();
    intruder.batch_execute("BEGIN IMMEDIATE").unwrap();
    let append = tokio::spawn({
        let (store, batch) = (store.clone(), writer.batch(1));
        async move { store.append(vec![batch]).await }
    });
    store.ping().await.unwrap();
    intruder.batch_execute("COMMIT").unwrap();

    assert_eq!(append.await.unwrap(), [Appended::Committed]);
}
