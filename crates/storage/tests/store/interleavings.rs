//! Followers, a writer, faults and a memory of three events in every order of things: what a
//! follower gets over all its lives, each begun at the last event it got, is the log.

use std::path::Path;

use control_plane_domain::Seq;
use control_plane_storage::{Config, Error, Follower, Store, TailLimits};
use control_plane_testkit::database::TestDb;
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use futures_util::FutureExt as _;
use proptest::prelude::*;
use tokio::runtime::Runtime;

use crate::support::Writer;

const KEPT: usize = 3;
const FOLLOWERS: usize = 3;

#[derive(Debug, Clone)]
enum Op {
    Publish(i64),
    Read {
        who: usize,
        limit: usize,
    },
    /// Begins to read, and goes away before it is done.
    GiveUp {
        who: usize,
        limit: usize,
    },
    /// Comes back with the last event it got.
    Resume {
        who: usize,
    },
    /// Reads while the database has no events.
    ReadAtFault {
        who: usize,
        limit: usize,
    },
    /// The run gets a new owner: what memory holds is forgotten.
    ChangeHands,
}

fn op() -> impl Strategy<Value = Op> {
    let (who, limit) = (0..FOLLOWERS, 1..6_usize);
    prop_oneof![
        4 => (1..6_i64).prop_map(Op::Publish),
        8 => (who.clone(), limit.clone()).prop_map(|(who, limit)| Op::Read { who, limit }),
        2 => (who.clone(), limit.clone()).prop_map(|(who, limit)| Op::GiveUp { who, limit }),
        2 => who.clone().prop_map(|who| Op::Resume { who }),
        1 => (who, limit).prop_map(|(who, limit)| Op::ReadAtFault { who, limit }),
        1 => Just(Op::ChangeHands),
    ]
}

/// One follower's lives.
struct Reader {
    follower: Follower,
    seen: Vec<Seq>,
    /// In this life it was at the end once.
    was_live: bool,
}

impl Reader {
    fn last(&self) -> Seq {
        self.seen.last().copied().unwrap_or(0)
    }

    /// Only who was at the end falls, and only from further away than memory reaches.
    fn check_fall(&mut self, cursor: Seq, end: Seq) {
        if self.follower.take_fall() {
            let unread = usize::try_from(end - cursor).unwrap();
            assert!(self.was_live && unread > KEPT, "it fell, {unread} events from the end");
        }
    }

    async fn read(&mut self, limit: usize, end: Seq) -> Result<usize, Error> {
        let before = self.last();
        let read = self.follower.try_next(limit).await;
        self.check_fall(before, end);
        let events = read?;
        self.seen.extend(events.iter().map(|event| event.seq));
        self.was_live |= self.last() == end;
        assert_eq!(self.follower.cursor(), self.last());
        Ok(events.len())
    }
}

/// Takes the events away, or puts them back.
fn rename(path: &Path, from: &str, to: &str) {
    let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    let wait = "PRAGMA busy_timeout = 20000";
    connection.batch_execute(wait).unwrap();
    connection.batch_execute(&format!("ALTER TABLE {from} RENAME TO {to}")).unwrap();
}

async fn play(store: &Store, path: &Path, ops: &[Op]) {
    let mut writer = Writer::create(store).await;
    let id = writer.id();
    let new = |after| store.follow(id, after);
    let mut readers: Vec<Reader> = (0..FOLLOWERS)
        .map(|_| Reader { follower: new(0), seen: vec![], was_live: false })
        .collect();
    for op in ops {
        let end = writer.run.last_seq;
        match *op {
            Op::Publish(count) => {
                let batch = writer.batch(count);
                writer.commit(store, batch).await;
            }
            Op::Read { who, limit } => drop(readers[who].read(limit, end).await.unwrap()),
            Op::GiveUp { who, limit } => {
                let reader = &mut readers[who];
                let before = reader.follower.cursor();
                let read = reader.follower.try_next(limit).now_or_never();
                reader.check_fall(before, end);
                if let Some(read) = read {
                    reader.seen.extend(read.unwrap().iter().map(|event| event.seq));
                    reader.was_live |= reader.last() == end;
                } else {
                    assert_eq!(reader.follower.cursor(), before);
                }
            }
            Op::Resume { who } => {
                let reader = &mut readers[who];
                reader.follower = new(reader.last());
                reader.was_live = false;
            }
            Op::ReadAtFault { who, limit } => {
                rename(path, "run_events_canonical", "hidden");
                let before = readers[who].last();
                let read = readers[who].read(limit, end).await;
                assert!(read.is_ok() || readers[who].last() == before);
                rename(path, "hidden", "run_events_canonical");
            }
            Op::ChangeHands => writer.lease = store.run_take(id).await.unwrap(),
        }
    }
    let end = writer.run.last_seq;
    for reader in &mut readers {
        while reader.last() < end {
            let events = reader.follower.next(2).await.unwrap();
            reader.seen.extend(events.iter().map(|event| event.seq));
        }
        assert_eq!(reader.seen, (1..=end).collect::<Vec<_>>());
    }
}

#[test]
fn a_follower_gets_the_log_whatever_happens_in_whatever_order() {
    let database = TestDb::sqlite();
    let runtime = Runtime::new().unwrap();
    let tail = TailLimits { events: KEPT, bytes: 1 << 20 };
    let config = Config { tail, ..database.config() };
    let _inside = runtime.enter();
    let store = Store::connect(&config).unwrap();
    let path = Path::new(database.url().strip_prefix("sqlite://").unwrap());

    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 60,
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    });
    let ops = proptest::collection::vec(op(), 1..60);
    runner
        .run(&ops, |ops| {
            runtime.block_on(play(&store, path, &ops));
            Ok(())
        })
        .unwrap_or_else(|fault| panic!("{fault}"));
}
