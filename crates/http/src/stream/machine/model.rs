//! A client, a log and a memory that is too small, in every order of things: what the client has
//! got in all, over all its connections, is the log.

use std::time::Duration;

use control_plane_domain::RunState;
use control_plane_domain::event::ChainHash;
use proptest::prelude::*;

use super::super::request::{Log, Plan, decide};
use super::tests::{ask, entry};
use super::*;

const PAGE: usize = 3;

#[derive(Debug, Clone)]
enum Op {
    /// The writer commits some events.
    Publish(usize),
    /// It commits an event that tells of a gap.
    PublishGap,
    /// The run's last event, and its end; after that everything that comes is late.
    EndRun,
    /// The connection does so many things: half of one is to begin what takes time.
    Act(usize),
    /// The database goes away, or comes back.
    Database(bool),
    /// The connection is lost; the client comes back with the last id it saw.
    Reconnect,
    Pass(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        3 => (1..4_usize).prop_map(Op::Publish),
        1 => Just(Op::PublishGap),
        1 => Just(Op::EndRun),
        8 => (1..12_usize).prop_map(Op::Act),
        1 => any::<bool>().prop_map(Op::Database),
        1 => Just(Op::Reconnect),
        2 => (0..400_u64).prop_map(Op::Pass),
        1 => Just(Op::Pass(15_000)),
    ];
    proptest::collection::vec(op, 0..80)
}

/// A follower, as far as falling goes.
#[derive(Default)]
struct Memory {
    was_live: bool,
    behind: bool,
}

struct World {
    log: Vec<EventType>,
    state: RunState,
    /// How many events memory holds.
    kept: Seq,
    database: bool,
    now: Instant,
    wishes: Ask,
    connection: Option<Connection>,
    // The client, over all its connections:
    last_id: Option<Seq>,
    got: Vec<Seq>,
    ended_at: Option<Seq>,
}

/// What a client sees of one connection, and what that must agree with.
struct Connection {
    machine: Machine,
    begun: Option<Step>,
    read_to: Seq,
    memory: Memory,
    opened_at: Seq,
    /// The end of the log when the store was asked for it last.
    head: Option<Seq>,
    caught_up: bool,
    last_snapshot: Option<Seq>,
    snapshots: Vec<Instant>,
    falls: usize,
    lagged: usize,
    fold_failed: bool,
    last: String,
}

impl World {
    fn new(kept: Seq, wishes: Ask) -> Self {
        let now = Instant::now();
        let mut world = Self {
            log: vec![],
            state: RunState::Running,
            kept,
            database: true,
            now,
            wishes,
            connection: None,
            last_id: None,
            got: vec![],
            ended_at: None,
        };
        world.connect();
        world
    }

    fn end(&self) -> Seq {
        Seq::try_from(self.log.len()).unwrap()
    }

    fn is_over(&self) -> bool {
        self.state.is_terminal()
    }

    fn connect(&mut self) {
        let ask = Ask { cursor: Some(self.last_id.unwrap_or(0)), ..self.wishes.clone() };
        let log = Log { id: "log", last_seq: self.end(), over: self.is_over() };
        let opening = match decide(&ask, &log) {
            Plan::NoContent => {
                assert_eq!(self.last_id, Some(self.end()), "told to stop too early");
                // Who lost the connection right before the end learns it this way.
                self.ended_at = self.last_id;
                self.connection = None;
                return;
            }
            Plan::Open(opening) => opening,
        };
        assert_eq!(opening.reset, None);
        self.connection = Some(Connection {
            read_to: opening.after,
            opened_at: self.end(),
            head: None,
            machine: Machine::new(ask, opening, 1000, self.now),
            begun: None,
            memory: Memory::default(),
            caught_up: false,
            last_snapshot: None,
            snapshots: vec![],
            falls: 0,
            lagged: 0,
            fold_failed: false,
            last: String::new(),
        });
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Publish(count) => self.log.extend(vec![EventType::MessageReceived; *count]),
            Op::PublishGap => self.log.push(EventType::SessionStreamGap),
            Op::EndRun => {
                self.log.push(EventType::RunCompleted);
                self.state = RunState::Completed;
            }
            Op::Act(times) => {
                for _ in 0..*times {
                    self.act();
                }
            }
            Op::Database(works) => self.database = *works,
            Op::Reconnect => self.connect(),
            Op::Pass(ms) => self.now += Duration::from_millis(*ms),
        }
    }

    /// Begins the next thing, or ends the one that was begun. The instant of a wait, if it waits.
    fn act(&mut self) -> Option<Instant> {
        let Some(mut connection) = self.connection.take() else {
            // Told to stop, and it did; a late event is for those who ask again.
            if self.last_id != Some(self.end()) {
                self.connect();
            }
            return None;
        };
        let mut wait = None;
        match connection.begun.take() {
            None => match connection.machine.step(self.now) {
                Step::Send(frame) => self.receive(&mut connection, &frame),
                step @ (Step::Read
                | Step::Fold(_)
                | Step::AskHead
                | Step::Wait(_)
                | Step::Close(_)) => connection.begun = Some(step),
            },
            Some(Step::Close(why)) => {
                assert_eq!(why, Close::Ended);
                assert_eq!(self.ended_at, self.last_id);
                self.connect();
                return None;
            }
            Some(step) if !self.database => match step {
                Step::Fold(_) => {
                    connection.fold_failed = true;
                    connection.machine.fold_failed(self.now);
                }
                Step::Wait(until) => wait = Some(until),
                Step::Read | Step::AskHead | Step::Send(_) | Step::Close(_) => {
                    connection.machine.failed(self.now);
                }
            },
            Some(Step::Send(_)) => panic!("sent already"),
            Some(Step::Read) => self.read(&mut connection),
            Some(Step::Fold(seq)) => {
                // Somebody else may have had it folded further.
                let version = seq.max(self.end());
                connection.machine.folded(version, Bytes::from(version.to_string()));
            }
            Some(Step::AskHead) => {
                connection.head = Some(self.end());
                connection.machine.head(&Head {
                    state: self.state,
                    last_seq: self.end(),
                    hash: ChainHash::EMPTY,
                    imported: false,
                });
            }
            Some(Step::Wait(until)) => {
                connection.machine.woken();
                wait = Some(until);
            }
        }
        self.connection = Some(connection);
        wait
    }

    fn read(&self, connection: &mut Connection) {
        let after = connection.read_to;
        let memory = &mut connection.memory;
        let fell = memory.was_live && !memory.behind && after + self.kept < self.end();
        memory.behind |= fell;
        // Before that it is the backlog.
        connection.falls += usize::from(fell && connection.caught_up);
        let entries: Vec<TailEntry> = (after + 1..=self.end())
            .take(PAGE)
            .map(|seq| entry(seq, self.log[usize::try_from(seq).unwrap() - 1]))
            .collect();
        connection.read_to += Seq::try_from(entries.len()).unwrap();
        if connection.read_to == self.end() {
            *memory = Memory { was_live: true, behind: false };
        }
        let more = entries.len() == PAGE;
        connection.machine.read(Page { entries, more, latest: self.end(), fell });
    }

    fn wants(&self, seq: Seq) -> bool {
        let kind = self.log[usize::try_from(seq).unwrap() - 1];
        self.wishes.types.is_empty() || self.wishes.types.contains(&kind)
    }

    /// The client gets a frame: this is the contract.
    fn receive(&mut self, connection: &mut Connection, frame: &Frame) {
        let cursor = connection.machine.cursor();
        let name = super::tests::describe(frame);
        let before = std::mem::replace(&mut connection.last, name);
        match frame {
            Frame::Event(entry) => {
                let next = self.got.last().copied().unwrap_or(0) + 1;
                let expected = (next..=self.end()).find(|seq| self.wants(*seq));
                assert_eq!(Some(entry.seq), expected, "after {:?}", self.got);
                self.got.push(entry.seq);
                self.last_id = Some(entry.seq);
            }
            Frame::CaughtUp(seq) => {
                assert!(!connection.caught_up, "caught up twice");
                assert_eq!(*seq, cursor);
                assert!(*seq >= connection.opened_at, "caught up before the backlog was sent");
                connection.caught_up = true;
                self.has_all_up_to(*seq);
                self.last_id = Some(*seq);
            }
            Frame::Snapshot(text) => {
                let version: Seq = std::str::from_utf8(text).unwrap().parse().unwrap();
                assert!(self.wishes.include_snapshot && connection.caught_up);
                assert_eq!(version, cursor, "a snapshot from elsewhere");
                self.has_all_up_to(version);
                assert_ne!(connection.last_snapshot, Some(version), "nothing has changed");
                if connection.last_snapshot.is_none() && !connection.fold_failed {
                    assert!(before.starts_with("caught_up") || before.starts_with("beat"));
                }
                connection.last_snapshot = Some(version);
                connection.snapshots.push(self.now);
                if let [.., first, _, _, _, fifth] = connection.snapshots[..] {
                    assert!(fifth - first >= Duration::from_secs(1), "five snapshots in a second");
                }
            }
            Frame::Heartbeat { id, .. } => {
                if let Some(id) = id {
                    assert!(connection.caught_up);
                    assert_eq!(*id, cursor);
                    self.has_all_up_to(*id);
                    self.last_id = Some(*id);
                }
            }
            Frame::Lagged { from, .. } => {
                connection.lagged += 1;
                assert!(connection.caught_up && connection.lagged <= connection.falls);
                assert_eq!(*from, cursor);
            }
            Frame::Gap { .. } => assert_eq!(
                self.log[usize::try_from(cursor).unwrap() - 1],
                EventType::SessionStreamGap
            ),
            Frame::End { state, seq, .. } => {
                assert_eq!((*state, *seq), (self.state, cursor));
                assert_eq!(connection.head, Some(cursor), "not the end when the store was asked");
                assert!(self.is_over() && connection.caught_up);
                self.has_all_up_to(*seq);
                self.ended_at = Some(*seq);
                self.last_id = Some(*seq);
            }
            Frame::Opening { .. } | Frame::Error { retryable: true, .. } => {}
            Frame::Shared(_)
            | Frame::FeedEvent(_)
            | Frame::Retry { .. }
            | Frame::Reset(_)
            | Frame::Error { .. } => {
                panic!("{frame:?}")
            }
        }
    }

    fn has_all_up_to(&self, seq: Seq) {
        let wanted: Vec<Seq> = (1..=seq).filter(|seq| self.wants(*seq)).collect();
        assert_eq!(self.got, wanted, "at {seq}");
    }

    /// Nothing happens any more: the client must get the rest.
    fn settle(&mut self) {
        self.database = true;
        for _ in 0..1500 {
            if let Some(until) = self.act() {
                self.now = self.now.max(until);
            }
        }
        self.has_all_up_to(self.end());
        assert_eq!(self.ended_at, self.is_over().then(|| self.end()), "the end");
        if let Some(connection) = &self.connection {
            assert!(connection.caught_up);
            let covered = connection.last_snapshot == Some(self.end());
            assert!(covered || !self.wishes.include_snapshot, "the last state is missing");
            assert_eq!(connection.lagged, connection.falls, "told of every fall");
        }
    }
}

fn wishes() -> impl Strategy<Value = Ask> {
    let types = prop_oneof![
        2 => Just(vec![]),
        1 => Just(vec![EventType::SessionStreamGap, EventType::RunCompleted]),
    ];
    (any::<bool>(), any::<bool>(), types).prop_map(|(include_snapshot, close_on_end, types)| Ask {
        include_snapshot,
        close_on_end,
        types,
        ..ask()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn a_client_gets_the_log_whatever_happens_in_whatever_order(
        kept in 1..6_i64,
        wishes in wishes(),
        ops in ops(),
    ) {
        let mut world = World::new(kept, wishes);
        for op in &ops {
            world.apply(op);
        }
        world.settle();
    }
}
