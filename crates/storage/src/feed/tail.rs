//! One reader for all who follow the feed.
//!
//! **Invariant:** at most one page is being read for all followers together, in a task of its own,
//! so that no follower that is dropped or slow holds up another. Who asks whether something is new
//! gets an answer that was read after it asked, or at most one [`Store::poll`] before if
//! nobody is known to have written since.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use control_plane_domain::Position;
use tokio::sync::watch;
use tokio::time::Instant;

use super::filter::{FeedEntry, FeedFilter};
use super::ring::{Answer, Ring};
use crate::config::TailLimits;
use crate::error::{Error, Result};
use crate::store::Store;

/// Most events that are read at once.
const PAGE: usize = 512;

/// Where the store keeps the tail: it lives as long as somebody follows.
pub(crate) struct Feed {
    tail: Mutex<Weak<Tail>>,
    limits: TailLimits,
}

impl Feed {
    /// Keeps no more than this in memory.
    pub(crate) fn new(limits: TailLimits) -> Self {
        Self { tail: Mutex::default(), limits }
    }

    pub(super) fn tail(&self) -> Arc<Tail> {
        let mut place = lock(&self.tail);
        if let Some(tail) = place.upgrade() {
            return tail;
        }
        let tail = Arc::new(Tail::new(self.limits));
        *place = Arc::downgrade(&tail);
        tail
    }

    /// The tail, if somebody follows.
    pub(super) fn followed(&self) -> Option<Arc<Tail>> {
        lock(&self.tail).upgrade()
    }
}

/// What the followers share.
pub(super) struct Tail {
    state: Mutex<State>,
    /// The end of what is known; followers wait for it to move.
    pub(super) end: watch::Sender<Position>,
    /// How the last read ended: `Some` for a fault.
    rounds: watch::Sender<Option<String>>,
    limits: TailLimits,
}

#[derive(Default)]
struct State {
    /// `None` until the end of the feed is known.
    ring: Option<Ring>,
    /// Goes up whenever there may be something new.
    wanted: u64,
    /// The value of `wanted` at the start of the last read that reached the end.
    done: u64,
    /// When that was.
    checked: Option<Instant>,
    reading: bool,
}

impl State {
    /// Whether what the ring holds is all there is.
    fn is_fresh(&self, poll: Duration, now: Instant) -> bool {
        let recent = self.checked.is_some_and(|at| now.duration_since(at) < poll);
        self.done == self.wanted && recent
    }
}

/// What a tail says to a follower.
pub(super) enum Told {
    Ring(Answer),
    /// The log has no more.
    Nothing,
    /// A page is being read; this tells how that ended.
    Wait(watch::Receiver<Option<String>>),
}

impl Tail {
    fn new(limits: TailLimits) -> Self {
        let state = Mutex::default();
        Self { state, end: watch::Sender::new(0), rounds: watch::Sender::new(None), limits }
    }

    /// There may be something new.
    pub(super) fn news(self: &Arc<Self>, store: &Store) {
        let reading = {
            let mut state = lock(&self.state);
            state.wanted += 1;
            self.read(&mut state)
        };
        start(store, reading);
    }

    /// Somebody saw that the feed reaches this far.
    pub(super) fn reaches(self: &Arc<Self>, store: &Store, last: Position) {
        if lock(&self.state).ring.as_ref().is_some_and(|ring| ring.end() < last) {
            self.news(store);
        }
    }

    /// What follows a cursor.
    pub(super) fn ask(
        self: &Arc<Self>,
        store: &Store,
        cursor: Position,
        limit: usize,
        filter: &FeedFilter,
    ) -> Told {
        let mut state = lock(&self.state);
        match state.ring.as_ref().map(|ring| ring.answer(cursor, limit, filter)) {
            Some(answer @ (Answer::Events { .. } | Answer::Before(_))) => Told::Ring(answer),
            Some(Answer::AtEnd) if state.is_fresh(store.poll(), Instant::now()) => Told::Nothing,
            Some(Answer::AtEnd) | None => {
                if state.done == state.wanted {
                    state.wanted += 1;
                }
                // Before the read begins, so that its end is not missed.
                let round = self.rounds.subscribe();
                let reading = self.read(&mut state);
                drop(state);
                start(store, reading);
                Told::Wait(round)
            }
        }
    }

    /// A reader to be started, unless there is one.
    fn read(self: &Arc<Self>, state: &mut State) -> Option<Reading> {
        let idle = !std::mem::replace(&mut state.reading, true);
        idle.then(|| Reading { tail: Arc::clone(self), over: false })
    }

    /// Where the next page begins, and what will have been done once it is read.
    fn begin(&self) -> (Option<Position>, u64) {
        let state = lock(&self.state);
        (state.ring.as_ref().map(Ring::end), state.wanted)
    }

    /// Takes in what was read; whether to go on.
    fn finish(&self, read: Result<Read>, goal: u64, started: Instant, followed: bool) -> bool {
        let mut state = lock(&self.state);
        let (complete, fault) = match read {
            Ok(Read::End(end)) => {
                state.ring = Some(Ring::new(end, self.limits));
                (true, None)
            }
            Ok(Read::Page(page)) => {
                let complete = page.len() < PAGE;
                if let Some(ring) = &mut state.ring {
                    ring.extend(page);
                }
                (complete, None)
            }
            Err(fault) => (false, Some(describe(&fault))),
        };
        if complete {
            state.done = goal;
            state.checked = Some(started);
        }
        let again = fault.is_none() && followed && state.done < state.wanted;
        state.reading = again;
        let end = state.ring.as_ref().map_or(0, Ring::end);
        self.end.send_if_modified(|known| std::mem::replace(known, end) != end);
        self.rounds.send_replace(fault);
        again
    }
}

enum Read {
    /// The last position: the first thing to know.
    End(Position),
    Page(Vec<FeedEntry>),
}

/// The one task that reads.
struct Reading {
    tail: Arc<Tail>,
    over: bool,
}

/// Not under the lock: on a runtime that has ended the task is dropped at once, and takes it.
fn start(store: &Store, reading: Option<Reading>) {
    if let Some(reading) = reading {
        store.spawn(reading.run(store.clone()));
    }
}

impl Reading {
    async fn run(mut self, store: Store) {
        while !self.over {
            let (after, goal) = self.tail.begin();
            let started = Instant::now();
            let read = match after {
                None => store.feed_bounds_now().await.map(|bounds| Read::End(bounds.last)),
                Some(after) => store.feed_after(after, PAGE).await.map(Read::Page),
            };
            let followed = Arc::strong_count(&self.tail) > 1;
            self.over = !self.tail.finish(read, goal, started, followed);
        }
    }
}

impl Drop for Reading {
    /// A task that did not come to its end: whoever waits must hear of it.
    fn drop(&mut self) {
        if !self.over {
            lock(&self.tail.state).reading = false;
            self.tail.rounds.send_replace(Some("the reader ended early".to_owned()));
        }
    }
}

fn describe(fault: &Error) -> String {
    if let Error::Unavailable(reason) = fault {
        return reason.clone();
    }
    match std::error::Error::source(fault) {
        Some(source) => format!("{fault}: {source}"),
        None => fault.to_string(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
