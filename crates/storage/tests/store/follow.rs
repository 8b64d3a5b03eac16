//! Followers see every event once and in order, whoever writes and however slow they are.

use std::time::Duration;

use control_plane_domain::{RunId, Seq};
use control_plane_storage::{Access, Config, Store};
use control_plane_testkit::DEADLINE;
use control_plane_testkit::database::TestDb;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::support::{Writer, log};

/// How a follower reads.
#[derive(Clone, Copy)]
enum Pace {
    /// As fast as it goes.
    Fast,
    /// Lets others go first after each page.
    Slow,
    /// Gives up waiting again and again.
    Impatient,
}

/// Follows a run to `end`; the seqs in the order in which they came.
fn follow(
    store: &Store,
    id: RunId,
    after: Seq,
    end: Seq,
    limit: usize,
    pace: Pace,
) -> JoinHandle<Vec<Seq>> {
    let mut follower = store.follow(id, after);
    tokio::spawn(async move {
        let mut seqs = Vec::new();
        while follower.cursor() < end {
            let patience = match pace {
                Pace::Fast | Pace::Slow => DEADLINE,
                Pace::Impatient => Duration::from_micros(seqs.len() as u64 % 7 * 150),
            };
            let before = follower.cursor();
            match (timeout(patience, follower.next(limit)).await, pace) {
                (Ok(events), _) => seqs.extend(events.unwrap().iter().map(|event| event.seq)),
                (Err(_), Pace::Impatient) => assert_eq!(follower.cursor(), before),
                (Err(_), Pace::Fast | Pace::Slow) => panic!("nothing after {before}"),
            }
            if matches!(pace, Pace::Slow) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        seqs
    })
}

on_both_databases! {
    async fn followers_who_start_at_any_time_get_everything(database: TestDb) {
        const END: Seq = 4001;
        let store = database.store();
        let mut writer = Writer::create(&store).await;
        let id = writer.id();
        let mut followers = Vec::new();
        let mut after = 0;
        while writer.run.last_seq < END {
            let at_end = writer.run.last_seq;
            for pace in [Pace::Fast, Pace::Slow, Pace::Impatient] {
                if followers.len() < 45 {
                    followers.push((after, follow(&store, id, after, END, 1 + followers.len() * 13, pace)));
                    followers.push((at_end, follow(&store, id, at_end, END, 1000, pace)));
                }
            }
            after += 3;
            let batch = writer.batch((writer.run.last_seq * 31 % 150 + 1).min(END - writer.run.last_seq));
            writer.commit(&store, batch).await;
        }

        for (after, follower) in followers {
            assert_eq!(follower.await.unwrap(), (after + 1..=END).collect::<Vec<_>>());
        }
    }

    async fn a_follower_sees_the_very_text_that_is_stored(database: TestDb) {
        let store = database.store();
        let mut writer = Writer::create(&store).await;
        let mut follower = store.follow(writer.id(), 1);
        assert!(follower.try_next(10).await.unwrap().is_empty());
        let batch = writer.batch(5);
        writer.commit(&store, batch).await;

        let live = follower.next(10).await.unwrap();

        assert!(!follower.reads_from_store());
        let stored = log(&store, writer.id()).await;
        assert!(live.iter().map(|event| &**event).eq(&stored[1..]));
    }

    async fn a_short_page_is_not_the_end_while_there_is_more(database: TestDb) {
        const END: Seq = 3001;
        let store = database.store();
        let mut writer = Writer::create(&store).await;
        let batch = writer.batch(END - 1);
        writer.commit(&store, batch).await;
        let mut follower = store.follow(writer.id(), 0);

        // A page that is read ahead is as long as the one before it.
        for limit in [50, 100, 400, 200, 800].into_iter().cycle() {
            let events = follower.try_next(limit).await.unwrap();
            assert!(events.len() <= limit);
            if !follower.has_more() {
                break;
            }
        }

        assert_eq!(follower.cursor(), END);
    }

    async fn a_follower_of_a_run_that_changed_hands_misses_nothing(database: TestDb) {
        let store = database.store();
        let mut writer = Writer::create(&store).await;
        let follower = follow(&store, writer.id(), 0, 301, 10, Pace::Fast);
        for _ in 0..30 {
            let batch = writer.batch(10);
            writer.commit(&store, batch).await;
            writer.lease = store.run_take(writer.id()).await.unwrap();
        }

        assert_eq!(follower.await.unwrap(), (1..=301).collect::<Vec<_>>());
    }

    async fn another_process_follows_by_asking_the_database(database: TestDb) {
        let store = database.store();
        let mut writer = Writer::create(&store).await;
        let config = Config { access: Access::Read, ..database.config() };
        let elsewhere = Store::connect(&config).unwrap();
        let followers = [Pace::Fast, Pace::Slow, Pace::Impatient]
            .map(|pace| follow(&elsewhere, writer.id(), 0, 241, 50, pace));
        for _ in 0..12 {
            let batch = writer.batch(20);
            writer.commit(&store, batch).await;
            tokio::time::sleep(Duration::from_millis(60)).await;
        }

        for follower in followers {
            assert_eq!(follower.await.unwrap(), (1..=241).collect::<Vec<_>>());
        }
    }

    async fn a_cursor_beyond_the_end_waits_for_its_event(database: TestDb) {
        let store = database.store();
        let mut writer = Writer::create(&store).await;
        let ahead = follow(&store, writer.id(), 5, 8, 10, Pace::Fast);
        let behind = follow(&store, writer.id(), 0, 8, 10, Pace::Fast);
        for count in [2, 2, 3] {
            let batch = writer.batch(count);
            writer.commit(&store, batch).await;
        }

        assert_eq!(ahead.await.unwrap(), [6, 7, 8]);
        assert_eq!(behind.await.unwrap(), (1..=8).collect::<Vec<_>>());
    }
}
