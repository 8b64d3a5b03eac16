//! Whoever writes at the same time, and however readers page and reconnect: what each of them has
//! read is exactly the committed log.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use control_plane_domain::{EventType, Position, RunId, Seq};
use control_plane_storage::model::{Appended, EventFilter, LogEntry};
use control_plane_storage::{Config, FeedFilter, Store, TailLimits};
use control_plane_testkit::DEADLINE;
use control_plane_testkit::database::{Kind, TestDb};
use futures_util::future::join_all;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::support::{Writer, log, new_run};

/// How long a reader that saw nothing for so long is given.
const PATIENCE: std::time::Duration = DEADLINE;

/// What happens in one case.
#[derive(Debug, Clone)]
struct Plan {
    /// For each task the rounds, and for each round the sizes of its two runs' batches.
    writers: Vec<Vec<(i64, i64)>>,
    /// How many events stay in memory.
    keep: usize,
    /// The limits of those who read pages.
    pages: Vec<i64>,
    followers: Vec<Following>,
}

#[derive(Debug, Clone)]
struct Following {
    after: Position,
    limit: usize,
    /// After how many pages it reconnects, again and again.
    connections: Vec<u8>,
    /// Whether it goes on from the last event it saw, or from its bookmark.
    from_event: bool,
    filter: Filtered,
}

#[derive(Debug, Clone, Copy)]
enum Filtered {
    Nothing,
    Type,
    Scenario,
}

fn plan() -> impl Strategy<Value = Plan> {
    let filter = prop_oneof![
        3 => Just(Filtered::Nothing), 1 => Just(Filtered::Type), 1 => Just(Filtered::Scenario),
    ];
    let connections = vec(1_u8..9, 1..5);
    let following = (0_i64..300, 1_usize..70, connections, any::<bool>(), filter).prop_map(
        |(after, limit, connections, from_event, filter)| Following {
            after: (after - 150).max(0),
            limit,
            connections,
            from_event,
            filter,
        },
    );
    let writers = vec(vec((0_i64..25, 0_i64..5), 1..15), 2..5);
    (writers, 1_usize..200, vec(1_i64..80, 1..3), vec(following, 2..7))
        .prop_map(|(writers, keep, pages, followers)| Plan { writers, keep, pages, followers })
}

/// Writes to two runs, in one transaction each round; every third round ends in one that is rolled
/// back after it took its positions.
async fn write(store: Store, rounds: Vec<(i64, i64)>) -> [RunId; 2] {
    let mut new = new_run();
    new.run.metadata.insert("scenarioRef".to_owned(), json!("Two halves"));
    let mut writers = [Writer::create_from(&store, new).await, Writer::create(&store).await];
    for (round, (first, second)) in rounds.into_iter().enumerate() {
        let batches = vec![writers[0].batch(first), writers[1].batch(second)];
        assert_eq!(store.append(batches.clone()).await, [Appended::Committed, Appended::Committed]);
        for (writer, batch) in writers.iter_mut().zip(&batches) {
            writer.follow(batch);
        }
        if round % 3 == 2 {
            let mut refused = writers[0].batch(2);
            refused.raw[1].ordinal = refused.raw[0].ordinal;
            let outcomes = store.append(vec![refused]).await;
            assert!(matches!(outcomes[..], [Appended::Refused(_)]), "{outcomes:?}");
        }
    }
    writers.map(|writer| writer.id())
}

/// Reads pages, as `GET /events` does, until it has reached the end.
fn page(store: Store, end: Arc<AtomicI64>, limit: i64) -> JoinHandle<Vec<LogEntry>> {
    tokio::spawn(async move {
        let mut events: Vec<LogEntry> = Vec::new();
        loop {
            let after = events.last().map_or(0, |event| event.position);
            if after == end.load(Ordering::SeqCst) {
                return events;
            }
            let filter = EventFilter { after, limit, ..EventFilter::default() };
            events.extend(store.event_list(&filter).await.unwrap().items);
        }
    })
}

/// Follows with many connections, until it has reached the end.
fn follow(store: Store, end: Arc<AtomicI64>, plan: Following) -> JoinHandle<Vec<LogEntry>> {
    let Following { after, limit, connections, from_event, filter } = plan;
    let filter = match filter {
        Filtered::Nothing => FeedFilter::default(),
        Filtered::Type => {
            FeedFilter { types: vec![EventType::RunCreated], ..FeedFilter::default() }
        }
        Filtered::Scenario => {
            FeedFilter { scenario_ref: Some("O HALVE".to_owned()), ..FeedFilter::default() }
        }
    };
    tokio::spawn(async move {
        let mut events: Vec<LogEntry> = Vec::new();
        let mut cursor = after;
        for pages in connections.into_iter().cycle() {
            let mut follower = store.follow_feed(cursor, filter.clone());
            for _ in 0..pages {
                let next = tokio::time::timeout(PATIENCE, follower.try_next(limit));
                let page = next.await.expect("a read does not end").unwrap();
                assert!(page.expired.is_none() && page.entries.len() <= limit);
                events.extend(page.entries.iter().map(|event| LogEntry::clone(event)));
                if follower.cursor() >= end.load(Ordering::SeqCst) {
                    return events;
                }
                if !page.more {
                    follower.changed().await;
                }
            }
            let seen = events.last().map_or(after, |event| event.position);
            cursor = if from_event { seen } else { follower.cursor() };
        }
        events
    })
}

async fn hold(database: &TestDb, plan: Plan) {
    let Plan { writers, keep, pages, followers } = plan;
    let feed = TailLimits { events: keep, bytes: 1_000_000 };
    let store = Store::connect(&Config { feed, ..database.config() }).unwrap();
    let end = Arc::new(AtomicI64::new(i64::MAX));
    let paging: Vec<_> =
        pages.iter().map(|limit| page(store.clone(), Arc::clone(&end), *limit)).collect();
    let following: Vec<_> = followers
        .iter()
        .map(|plan| follow(store.clone(), Arc::clone(&end), plan.clone()))
        .collect();

    let writing = writers.into_iter().map(|rounds| tokio::spawn(write(store.clone(), rounds)));
    let runs: Vec<[RunId; 2]> = join_all(writing).await.into_iter().map(Result::unwrap).collect();
    end.store(store.feed_end().await.unwrap(), Ordering::SeqCst);

    // The log as each run has it, put in the order of positions.
    let mut committed = Vec::new();
    for run in runs.iter().flatten() {
        let events = log(&store, *run).await;
        assert!((1..).zip(&events).all(|(seq, event)| event.seq == seq));
        committed.extend(events);
    }
    committed.sort_by_key(|event| event.position);
    assert!((1..).zip(&committed).all(|(position, event)| event.position == position));
    let mut seqs: HashMap<RunId, Seq> = HashMap::new();
    for event in &committed {
        let seq = seqs.entry(event.run_id).or_default();
        assert_eq!(event.seq, *seq + 1, "a run's events are not in its own order");
        *seq = event.seq;
    }
    for reader in paging {
        assert_eq!(reader.await.unwrap(), committed);
    }
    for (plan, reader) in followers.into_iter().zip(following) {
        let passes = |event: &&LogEntry| match plan.filter {
            Filtered::Nothing => true,
            Filtered::Type => event.event_type == EventType::RunCreated,
            Filtered::Scenario => runs.iter().any(|[named, _]| *named == event.run_id),
        };
        let expected = committed.iter().filter(|event| event.position > plan.after);
        let expected: Vec<_> = expected.filter(passes).cloned().collect();
        assert_eq!(reader.await.unwrap(), expected, "{plan:?}");
    }
}

fn holds(kind: Kind) {
    let cases =
        Cases { cases: 8, max_shrink_iters: 4, failure_persistence: None, ..Cases::default() };
    let result = TestRunner::new(cases).run(&plan(), |plan| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let database = TestDb::new(kind);
        runtime.block_on(hold(&database, plan));
        Ok(())
    });
    result.unwrap_or_else(|fault| panic!("{fault}"));
}

#[test]
fn pages_and_streams_put_together_are_the_committed_log_on_sqlite() {
    holds(Kind::Sqlite);
}

#[test]
fn pages_and_streams_put_together_are_the_committed_log_on_postgres() {
    holds(Kind::Postgres);
}
