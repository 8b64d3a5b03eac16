//! Who was live and is too slow for what is kept in memory falls behind, and nobody else does.

use control_plane_domain::run::RunState;
use control_plane_domain::{RunId, Seq};
use control_plane_storage::model::Deleted;
use control_plane_storage::{Access, Config, Error, Follower, Store, TailLimits};
use control_plane_testkit::DEADLINE;
use control_plane_testkit::database::TestDb;
use tokio::time::timeout;

use crate::support::{Writer, at};

/// A memory of three events.
fn small(database: &TestDb) -> Config {
    Config { tail: TailLimits { events: 3, bytes: 1 << 20 }, ..database.config() }
}

async fn publish(store: &Store, writer: &mut Writer, count: i64) {
    let batch = writer.batch(count);
    writer.commit(store, batch).await;
}

/// Reads to the end in pages of four: the events, and in how many reads it was seen to fall.
async fn drain(follower: &mut Follower) -> (Vec<Seq>, usize) {
    let (mut seqs, mut falls) = (Vec::new(), 0);
    loop {
        let events = follower.try_next(4).await.unwrap();
        falls += usize::from(follower.take_fall());
        if events.is_empty() {
            return (seqs, falls);
        }
        seqs.extend(events.iter().map(|event| event.seq));
    }
}

async fn live(store: &Store, id: RunId, after: Seq) -> Follower {
    let mut follower = store.follow(id, after);
    assert_eq!(drain(&mut follower).await.1, 0, "a backlog is no fall");
    follower
}

on_both_databases! {
    async fn a_live_follower_that_is_too_slow_falls_once_and_catches_up(database: TestDb) {
        let store = Store::connect(&small(&database)).unwrap();
        let mut writer = Writer::create(&store).await;
        let mut follower = live(&store, writer.id(), 0).await;

        publish(&store, &mut writer, 3).await;
        assert_eq!(drain(&mut follower).await, (vec![2, 3, 4], 0), "memory reaches back");

        publish(&store, &mut writer, 10).await;
        assert_eq!(follower.try_next(4).await.unwrap().len(), 4);
        assert!(follower.is_behind() && follower.take_fall() && follower.reads_from_store());
        // More while it catches up is the same fall.
        publish(&store, &mut writer, 5).await;
        assert_eq!(drain(&mut follower).await, ((9..=19).collect(), 0));
        assert!(!follower.is_behind());

        publish(&store, &mut writer, 1).await;
        assert_eq!(drain(&mut follower).await, (vec![20], 0));
        publish(&store, &mut writer, 4).await;
        assert_eq!(drain(&mut follower).await, ((21..=24).collect(), 1), "another fall");
    }

    async fn a_long_backlog_is_no_fall(database: TestDb) {
        let store = Store::connect(&small(&database)).unwrap();
        let mut writer = Writer::create(&store).await;
        // The memory is there and has dropped something.
        let _other = live(&store, writer.id(), 0).await;
        publish(&store, &mut writer, 30).await;
        let mut follower = store.follow(writer.id(), 0);
        assert_eq!(follower.try_next(4).await.unwrap().len(), 4);
        publish(&store, &mut writer, 30).await;

        assert_eq!(drain(&mut follower).await, ((5..=61).collect(), 0));
    }

    async fn a_memory_that_was_emptied_makes_nobody_fall(database: TestDb) {
        let store = Store::connect(&small(&database)).unwrap();
        let mut writer = Writer::create(&store).await;
        let mut follower = live(&store, writer.id(), 0).await;
        publish(&store, &mut writer, 2).await;
        writer.lease = store.run_take(writer.id()).await.unwrap();
        publish(&store, &mut writer, 2).await;

        assert_eq!(drain(&mut follower).await, ((2..=5).collect(), 0));
    }

    async fn following_another_process_is_no_fall(database: TestDb) {
        let store = database.store();
        let elsewhere = Config { access: Access::Read, ..small(&database) };
        let elsewhere = Store::connect(&elsewhere).unwrap();
        let mut writer = Writer::create(&store).await;
        let mut follower = live(&elsewhere, writer.id(), 0).await;
        let mut seqs = Vec::new();
        for _ in 0..3 {
            publish(&store, &mut writer, 20).await;
            seqs.extend(follower.next(4).await.unwrap().iter().map(|event| event.seq));
            let (rest, falls) = drain(&mut follower).await;
            seqs.extend(rest);
            assert!(falls == 0 && !follower.take_fall());
        }

        assert_eq!(seqs, (2..=61).collect::<Vec<_>>());
    }

    async fn a_run_that_another_process_deletes_is_gone_for_its_followers(database: TestDb) {
        let store = database.store();
        let elsewhere = Config { access: Access::Read, ..database.config() };
        let elsewhere = Store::connect(&elsewhere).unwrap();
        let mut writer = Writer::create(&store).await;
        let mut batch = writer.batch(2);
        batch.run.state = RunState::Completed;
        writer.commit(&store, batch).await;
        let mut followers = Vec::new();
        for after in [0, 1, 3] {
            followers.push(live(&elsewhere, writer.id(), after).await);
        }
        assert_eq!(followers[0].head().await.unwrap().last_seq, 3);

        assert_eq!(store.run_delete(writer.id(), at(9)).await.unwrap(), Deleted::Done);

        for mut follower in followers {
            let told = timeout(DEADLINE, follower.next(4)).await.unwrap();
            assert!(matches!(told, Err(Error::NotFound { .. })), "{told:?}");
            assert!(matches!(follower.head().await, Err(Error::NotFound { .. })));
        }
    }
}
