//! Who follows the feed gets every event that passes the filter once and in order, from memory or
//! from the database, and knows up to where it has looked.

use std::time::Duration;

use control_plane_domain::{EventType, Position};
use control_plane_storage::model::EventFilter;
use control_plane_storage::{
    Access, Config, Error, FeedBounds, FeedFilter, FeedFollower, Store, TailLimits,
};
use control_plane_testkit::DEADLINE;
use control_plane_testkit::database::TestDb;
use futures_util::future::join_all;
use serde_json::json;
use tokio::time::timeout;

use crate::support::{Writer, entry, new_run};

/// A store whose feed keeps so few events that followers soon fall behind.
fn forgetful(database: &TestDb, events: usize) -> Store {
    let feed = TailLimits { events, bytes: 1_000_000 };
    Store::connect(&Config { feed, ..database.config() }).unwrap()
}

fn of_types(types: &[EventType]) -> FeedFilter {
    FeedFilter { types: types.to_vec(), ..FeedFilter::default() }
}

async fn write(store: &Store, writer: &mut Writer, count: i64) {
    let batch = writer.batch(count);
    writer.commit(store, batch).await;
}

/// Everything that is there.
async fn rest(follower: &mut FeedFollower, limit: usize) -> Vec<Position> {
    let mut positions = Vec::new();
    loop {
        let page = follower.try_next(limit).await.unwrap();
        assert!(page.entries.len() <= limit && page.cursor == follower.cursor());
        assert_eq!(page.expired, None);
        positions.extend(page.entries.iter().map(|event| event.position));
        if !page.more {
            return positions;
        }
    }
}

/// What comes, up to this position at least.
async fn until(follower: &mut FeedFollower, end: Position) -> Vec<Position> {
    let mut positions = Vec::new();
    let reading = async {
        while follower.cursor() < end {
            positions.extend(rest(follower, 100).await);
            if follower.cursor() < end {
                follower.changed().await;
            }
        }
    };
    timeout(DEADLINE, reading).await.expect("what was committed never came");
    positions
}

on_both_databases! {
    async fn who_waits_is_woken_by_a_commit_of_any_run(database: TestDb) {
        let store = database.store();
        let (mut one, mut other) = (Writer::create(&store).await, Writer::create(&store).await);
        let mut follower = store.follow_feed(2, FeedFilter::default());
        assert_eq!(rest(&mut follower, 10).await, [0; 0]);

        write(&store, &mut one, 2).await;
        assert_eq!(until(&mut follower, 4).await, [3, 4]);
        write(&store, &mut other, 1).await;
        assert_eq!(until(&mut follower, 5).await, [5]);
        Writer::create(&store).await;
        assert_eq!(until(&mut follower, 6).await, [6]);

        assert!(!follower.reads_from_store());
    }

    async fn what_is_committed_before_a_look_is_seen_by_it(database: TestDb) {
        let store = database.store();
        let mut writer = Writer::create(&store).await;
        let mut follower = store.follow_feed(0, FeedFilter::default());
        let mut seen = Vec::new();
        for _ in 0..40 {
            write(&store, &mut writer, 3).await;
            seen.extend(rest(&mut follower, 100).await);
            assert_eq!(seen.last(), Some(&writer.run.last_seq));
        }

        assert_eq!(seen, (1..=121).collect::<Vec<_>>());
    }

    async fn another_process_follows_by_asking_the_database(database: TestDb) {
        let store = database.store();
        let config = Config { access: Access::Read, ..database.config() };
        let elsewhere = Store::connect(&config).unwrap();
        let mut follower = elsewhere.follow_feed(0, FeedFilter::default());
        assert_eq!(rest(&mut follower, 10).await, [0; 0]);
        let mut writer = Writer::create(&store).await;
        write(&store, &mut writer, 4).await;

        assert_eq!(until(&mut follower, 5).await, [1, 2, 3, 4, 5]);

        // Somebody learned where the feed ends: nobody may say any more that there is nothing.
        write(&store, &mut writer, 2).await;
        assert_eq!(elsewhere.feed_bounds().await.unwrap(), FeedBounds { first: 1, last: 7 });
        assert_eq!(rest(&mut follower, 10).await, [6, 7]);
    }

    async fn who_falls_out_of_memory_reads_pages_and_comes_back(database: TestDb) {
        let store = forgetful(&database, 8);
        let mut writer = Writer::create(&store).await;
        let mut quick = store.follow_feed(1, FeedFilter::default());
        let mut slow = store.follow_feed(1, FeedFilter::default());
        assert_eq!(rest(&mut slow, 5).await, [0; 0]);
        for round in 0..30 {
            write(&store, &mut writer, 7).await;
            let end = writer.run.last_seq;
            assert_eq!(until(&mut quick, end).await, (end - 6..=end).collect::<Vec<_>>());
            assert!(!quick.reads_from_store(), "round {round}");
        }

        let first = slow.try_next(5).await.unwrap();
        assert!(slow.reads_from_store() && first.more && first.fell);
        assert_eq!((first.cursor, first.latest), (6, 211));
        assert!(!slow.try_next(5).await.unwrap().fell, "it is told once");
        assert_eq!(rest(&mut slow, 5).await, (12..=211).collect::<Vec<_>>());
        assert!(!slow.reads_from_store());
    }

    async fn a_filter_gives_the_same_from_memory_as_from_the_database(database: TestDb) {
        let store = database.store();
        let mut new = new_run();
        new.run.source_ref = Some("source@1".to_owned());
        let mut sourced = Writer::create_from(&store, new).await;
        let mut new = new_run();
        new.run.metadata.insert("scenarioRef".to_owned(), json!("Fraud_ÄÖ"));
        let mut named = Writer::create_from(&store, new).await;
        let types = vec![EventType::RunCreated, EventType::DecisionFinalized];
        let scenario = |text: &str| FeedFilter { scenario_ref: Some(text.to_owned()), ..FeedFilter::default() };
        let filters = [
            FeedFilter::default(),
            of_types(&types),
            FeedFilter { run_id: Some(named.id()), ..FeedFilter::default() },
            FeedFilter { run_id: Some(sourced.id()), types, ..scenario("source@1") },
            scenario("SOURCE@1"),
            scenario("fRAUD_Ä"),
            scenario("fraud_ä"),
            scenario("fraud%"),
            scenario("raudx"),
        ];
        let mut live: Vec<_> =
            filters.iter().map(|filter| (store.follow_feed(2, filter.clone()), Vec::new())).collect();
        assert_eq!(rest(&mut live[0].0, 10).await, [0; 0]);
        let config = Config { access: Access::Read, ..database.config() };
        for round in 0..12 {
            for writer in [&mut sourced, &mut named] {
                let mut batch = writer.batch(round % 3);
                let event = entry(writer.id(), batch.run.last_seq + 1, EventType::DecisionFinalized, batch.chain);
                (batch.run.last_seq, batch.chain) = (event.seq, event.hash);
                batch.entries.push(event);
                writer.commit(&store, batch).await;
            }
            let mut other = Writer::create(&store).await;
            write(&store, &mut other, 1).await;
            let end = store.feed_end().await.unwrap();
            for (follower, seen) in &mut live {
                seen.extend(until(follower, end).await);
                assert!(!follower.reads_from_store());
                assert_eq!(follower.cursor(), end, "the bookmark is behind what was looked at");
            }
        }

        let mut counts = Vec::new();
        for (filter, (_, seen)) in filters.into_iter().zip(live) {
            // Nobody has followed there yet, so this comes from the database.
            let elsewhere = Store::connect(&config).unwrap();
            let mut late = elsewhere.follow_feed(2, filter.clone());
            let first = late.try_next(1).await.unwrap();
            assert!(late.reads_from_store() && !first.fell);
            let mut stored: Vec<_> = first.entries.iter().map(|event| event.position).collect();
            stored.extend(rest(&mut late, 7).await);
            assert_eq!(stored, seen, "{filter:?}");
            let FeedFilter { run_id, scenario_ref, types } = filter;
            let all = EventFilter { run_id, scenario_ref, types, limit: 1000, ..EventFilter::default() };
            let listed = store.event_list(&all).await.unwrap().items;
            let listed: Vec<_> = listed.iter().map(|event| event.position).filter(|it| *it > 2).collect();
            assert_eq!(listed, seen, "{all:?}");
            counts.push(seen.len());
        }
        assert_eq!(counts, [72, 36, 24, 12, 0, 24, 0, 0, 0]);
    }

    async fn a_filter_that_nothing_passes_gives_bookmarks_on_the_way(database: TestDb) {
        let store = forgetful(&database, 8);
        let mut writer = Writer::create(&store).await;
        for _ in 0..9 {
            write(&store, &mut writer, 1000).await;
        }
        let mut follower = store.follow_feed(0, of_types(&[EventType::RunFailed]));

        let mut bookmarks = Vec::new();
        loop {
            let page = follower.try_next(100).await.unwrap();
            assert!(page.entries.is_empty());
            bookmarks.push(page.cursor);
            if !page.more {
                break;
            }
        }

        assert_eq!(bookmarks, [4096, 8192, 9001, 9001]);
        let one = FeedFilter { run_id: Some(writer.id()), ..of_types(&[EventType::RunCreated]) };
        let page = store.follow_feed(0, one).try_next(100).await.unwrap();
        assert_eq!((page.entries.len(), page.cursor), (1, 9001));
    }

    async fn a_run_is_followed_by_position_across_its_pages(database: TestDb) {
        let store = database.store();
        let (mut one, mut other) = (Writer::create(&store).await, Writer::create(&store).await);
        for _ in 0..30 {
            write(&store, &mut one, 3).await;
            write(&store, &mut other, 2).await;
        }
        let filter = FeedFilter { run_id: Some(other.id()), ..FeedFilter::default() };
        let mut follower = store.follow_feed(6, filter);

        let positions = rest(&mut follower, 4).await;

        let expected: Vec<_> = (0..30).flat_map(|round| [6 + round * 5, 7 + round * 5]).collect();
        assert_eq!(positions, expected[1..]);
        assert_eq!(follower.cursor(), 152);
    }

    async fn what_was_deleted_in_the_middle_is_passed(database: TestDb) {
        let store = forgetful(&database, 4);
        let (mut one, mut other) = (Writer::create(&store).await, Writer::create(&store).await);
        write(&store, &mut other, 10).await;
        write(&store, &mut one, 10).await;
        let mut live = store.follow_feed(22, FeedFilter::default());
        assert_eq!(rest(&mut live, 10).await, [0; 0]);
        let gone = "DELETE FROM run_events_canonical WHERE position > 2 AND position < 13";
        database.tamper(gone).await;

        let mut follower = store.follow_feed(0, FeedFilter::default());
        assert_eq!(rest(&mut follower, 3).await, [1, 2].into_iter().chain(13..=22).collect::<Vec<_>>());

        let mut filtered = store.follow_feed(0, of_types(&[EventType::RunCreated]));
        assert_eq!(rest(&mut filtered, 3).await, [1, 2]);
        assert_eq!(filtered.cursor(), 22);
    }

    async fn what_retention_took_from_under_a_cursor_is_told(database: TestDb) {
        let store = forgetful(&database, 4);
        let mut writer = Writer::create(&store).await;
        write(&store, &mut writer, 29).await;
        assert_eq!(store.feed_bounds().await.unwrap(), FeedBounds { first: 1, last: 30 });
        let mut behind = store.follow_feed(0, FeedFilter::default());
        assert_eq!(behind.try_next(5).await.unwrap().cursor, 5);
        let mut filtered = store.follow_feed(0, of_types(&[EventType::RunFailed]));
        database.tamper("DELETE FROM run_events_canonical WHERE position <= 20").await;
        let bounds = store.feed_bounds().await.unwrap();
        assert_eq!((bounds, bounds.start()), (FeedBounds { first: 21, last: 30 }, 20));

        for follower in [&mut behind, &mut filtered] {
            let page = follower.try_next(5).await.unwrap();
            assert_eq!((page.expired, page.entries.len(), page.cursor, page.more), (Some(20), 0, 20, true));
        }

        assert_eq!(rest(&mut behind, 5).await, (21..=30).collect::<Vec<_>>());
        assert_eq!(rest(&mut filtered, 5).await, [0; 0]);
        let mut at_start = store.follow_feed(20, FeedFilter::default());
        assert_eq!(rest(&mut at_start, 5).await, (21..=30).collect::<Vec<_>>());
        database.tamper("DELETE FROM run_events_canonical").await;
        assert_eq!(store.feed_bounds().await.unwrap(), FeedBounds { first: 31, last: 30 });
        let page = store.follow_feed(7, FeedFilter::default()).try_next(5).await.unwrap();
        assert_eq!((page.expired, page.cursor), (Some(30), 30));
    }

    async fn a_cursor_beyond_the_end_waits_for_its_event(database: TestDb) {
        let store = database.store();
        let mut writer = Writer::create(&store).await;
        let mut ahead = store.follow_feed(5, FeedFilter::default());
        assert_eq!(rest(&mut ahead, 10).await, [0; 0]);
        for count in [2, 2, 3] {
            write(&store, &mut writer, count).await;
        }

        assert_eq!(until(&mut ahead, 8).await, [6, 7, 8]);
    }

    async fn a_fault_is_told_to_everybody_and_loses_nothing(database: TestDb) {
        let store = database.store();
        let mut writer = Writer::create(&store).await;
        let mut followers: Vec<_> =
            (0..20).map(|_| store.follow_feed(0, FeedFilter::default())).collect();
        assert_eq!(rest(&mut followers[0], 10).await, [1]);
        database.tamper("ALTER TABLE run_events_canonical RENAME TO away").await;
        // Sooner or later: what was read a moment ago holds for a moment.
        let told = followers.iter_mut().map(|follower| async {
            loop {
                if let Err(fault) = follower.try_next(10).await {
                    return fault;
                }
                follower.changed().await;
            }
        });
        let faults = timeout(DEADLINE, join_all(told)).await.expect("somebody was not told");
        assert!(faults.iter().all(Error::is_transient), "{faults:?}");
        database.tamper("ALTER TABLE away RENAME TO run_events_canonical").await;

        write(&store, &mut writer, 3).await;

        for (place, follower) in followers.iter_mut().enumerate() {
            let expected: Vec<_> = (if place == 0 { 2 } else { 1 }..=4).collect();
            assert_eq!(rest(follower, 10).await, expected);
        }
    }

    async fn who_goes_away_in_the_middle_of_a_read_holds_up_nobody(database: TestDb) {
        let store = database.store();
        let mut writer = Writer::create(&store).await;
        let mut patient = store.follow_feed(0, FeedFilter::default());
        let mut seen = Vec::new();
        for round in 0..40 {
            let mut hasty = store.follow_feed(round, FeedFilter::default());
            let waits = Duration::from_micros(u64::try_from(round * 25).unwrap());
            // Dropped while it waits, mostly.
            let _ = timeout(waits, hasty.try_next(10)).await;
            write(&store, &mut writer, 1).await;
            seen.extend(rest(&mut patient, 10).await);
        }

        assert_eq!(seen, (1..=41).collect::<Vec<_>>());
    }
}
