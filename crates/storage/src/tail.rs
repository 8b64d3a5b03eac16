//! Following a run's log: from memory where it reaches, from the database where it does not.
//!
//! **Invariant:** a [`Follower`] gives every committed event once and in order. It is a cursor and
//! reads; it owns no queue, so a slow one costs the writer nothing. A [`Tail`] holds a contiguous
//! end of the log or nothing: an event that is not the next one empties it. However many follow a
//! run, the database is asked for news of it once per [`POLL`], and not at all while we write it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use control_plane_domain::{RunId, Seq};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::model::LogEntry;
use crate::store::Store;

/// Most events that a tail keeps.
const MAX_EVENTS: usize = 1024;
/// Most bytes of bodies that a tail keeps.
const MAX_BYTES: usize = 1024 * 1024;
/// Most events that are read from the database at once.
const PAGE: usize = 1000;
/// How often the database is asked about a run when nobody here tells of news: another process may
/// be the writer.
const POLL: Duration = Duration::from_millis(500);

/// The tails of the runs that somebody follows.
#[derive(Default)]
pub(crate) struct Hub {
    tails: Mutex<HashMap<RunId, Weak<Tail>>>,
}

impl Hub {
    fn tail(&self, id: RunId) -> Arc<Tail> {
        let mut tails = lock(&self.tails);
        if let Some(tail) = tails.get(&id).and_then(Weak::upgrade) {
            return tail;
        }
        // The map only grows with runs that are followed; what nobody follows goes here.
        if tails.len() > 64 && tails.len().is_power_of_two() {
            tails.retain(|_, tail| tail.strong_count() > 0);
        }
        let tail = Arc::new(Tail::new());
        tails.insert(id, Arc::downgrade(&tail));
        tail
    }

    /// Shows committed events to whoever follows the run.
    pub(crate) fn publish(&self, id: RunId, entries: impl Iterator<Item = LogEntry>) {
        let tail = {
            let mut tails = lock(&self.tails);
            match tails.get(&id).map(Weak::upgrade) {
                Some(Some(tail)) => tail,
                Some(None) => {
                    tails.remove(&id);
                    return;
                }
                None => return,
            }
        };
        tail.publish(entries);
    }

    /// Forgets what a run's tail holds: the log may have another writer now.
    pub(crate) fn forget(&self, id: RunId) {
        let tail = lock(&self.tails).get(&id).and_then(Weak::upgrade);
        if let Some(tail) = tail {
            *lock(&tail.ring) = Ring::default();
            tail.tell();
        }
    }

    /// Tells whoever follows the run that it was deleted.
    pub(crate) fn remove(&self, id: RunId) {
        let tail = lock(&self.tails).remove(&id).and_then(|tail| tail.upgrade());
        if let Some(tail) = tail {
            tail.gone.store(true, Ordering::Release);
            tail.tell();
        }
    }
}

struct Tail {
    ring: Mutex<Ring>,
    /// The run was deleted.
    gone: AtomicBool,
    /// Goes up with every change; followers wait on it.
    news: watch::Sender<u64>,
}

/// The end of a log, as far as it is known and kept.
#[derive(Default)]
struct Ring {
    events: VecDeque<Arc<LogEntry>>,
    bytes: usize,
    /// The last event that we know to be committed, kept or not.
    end: Option<Seq>,
    /// When we last knew that nothing follows `end`.
    checked: Option<Instant>,
}

/// What a ring says to a cursor.
enum Answer {
    /// The next events.
    Events(Vec<Arc<LogEntry>>),
    /// There are none, as of a moment ago.
    Nothing,
    /// The database has to be asked.
    Ask,
}

impl Ring {
    fn push(&mut self, entry: LogEntry) {
        if self.end.is_some_and(|end| end + 1 != entry.seq) {
            if self.holds(&entry) {
                return;
            }
            *self = Self::default();
        }
        self.end = Some(entry.seq);
        self.bytes += entry.body.len();
        self.events.push_back(Arc::new(entry));
        while self.events.len() > MAX_EVENTS || (self.bytes > MAX_BYTES && self.events.len() > 1) {
            if let Some(oldest) = self.events.pop_front() {
                self.bytes -= oldest.body.len();
            }
        }
    }

    /// The events from `cursor` on.
    fn after(&self, cursor: Seq) -> Option<impl Iterator<Item = &Arc<LogEntry>>> {
        let first = self.events.front()?.seq;
        let skip = usize::try_from(cursor + 1 - first).ok()?;
        Some(self.events.iter().skip(skip))
    }

    fn holds(&self, entry: &LogEntry) -> bool {
        self.after(entry.seq - 1)
            .and_then(|mut events| events.next())
            .is_some_and(|held| held.hash == entry.hash)
    }

    /// Answers a follower. Who is told to ask does so for all: the others are told that there is
    /// nothing until it is time again.
    fn answer(&mut self, cursor: Seq, limit: usize, now: Instant) -> Answer {
        if self.end.is_none_or(|end| cursor > end) {
            return Answer::Ask;
        }
        if self.end == Some(cursor) {
            if self.checked.is_some_and(|checked| now.duration_since(checked) < POLL) {
                return Answer::Nothing;
            }
            self.checked = Some(now);
            return Answer::Ask;
        }
        match self.after(cursor) {
            Some(events) => Answer::Events(events.take(limit).cloned().collect()),
            None => Answer::Ask,
        }
    }

    /// Takes note of what the database answered to `cursor`; whether that is news to others.
    fn learn(&mut self, cursor: Seq, events: &[Arc<LogEntry>], limit: usize, now: Instant) -> bool {
        let complete = events.len() < limit;
        if self.end.is_none() {
            // A page from the middle of a log is no end.
            if !complete {
                return false;
            }
            self.end = Some(cursor);
        }
        let before = self.end;
        for event in events {
            if self.end == Some(event.seq - 1) {
                self.push(LogEntry::clone(event));
            }
        }
        let known = events.last().map_or(cursor, |event| event.seq);
        if complete && self.end == Some(known) {
            self.checked = Some(now);
        }
        self.end != before
    }
}

impl Tail {
    fn new() -> Self {
        Self { ring: Mutex::default(), gone: AtomicBool::new(false), news: watch::Sender::new(0) }
    }

    fn publish(&self, entries: impl Iterator<Item = LogEntry>) {
        let mut ring = lock(&self.ring);
        for entry in entries {
            ring.push(entry);
        }
        ring.checked = Some(Instant::now());
        drop(ring);
        self.tell();
    }

    fn tell(&self) {
        self.news.send_modify(|news| *news += 1);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A cursor over a run's log. Made by [`Store::follow`].
pub struct Follower {
    store: Store,
    run_id: RunId,
    cursor: Seq,
    tail: Arc<Tail>,
    news: watch::Receiver<u64>,
    from_store: bool,
}

impl Follower {
    pub(crate) fn new(store: Store, hub: &Hub, run_id: RunId, cursor: Seq) -> Self {
        let tail = hub.tail(run_id);
        let news = tail.news.subscribe();
        Self { store, run_id, cursor, tail, news, from_store: false }
    }

    /// The last event given out, or where following started.
    pub fn cursor(&self) -> Seq {
        self.cursor
    }

    /// Whether the last events came from the database and not from memory.
    pub fn reads_from_store(&self) -> bool {
        self.from_store
    }

    /// The next events, at most `limit`; none when the log has no more yet.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the run was deleted, and those of the database; the cursor stays
    /// where it is.
    pub async fn try_next(&mut self, limit: usize) -> Result<Vec<Arc<LogEntry>>> {
        self.news.mark_unchanged();
        if self.tail.gone.load(Ordering::Acquire) {
            return Err(Error::run_not_found(self.run_id));
        }
        let limit = limit.clamp(1, PAGE);
        let answer = lock(&self.tail.ring).answer(self.cursor, limit, Instant::now());
        let (events, from_store) = match answer {
            Answer::Events(events) => (events, false),
            Answer::Nothing => return Ok(Vec::new()),
            Answer::Ask => (self.ask(limit).await?, true),
        };
        let mut contiguous = Vec::with_capacity(events.len());
        for event in events {
            // A reader never passes a hole: what is missing is not committed yet.
            if event.seq != self.cursor + 1 {
                break;
            }
            self.cursor = event.seq;
            contiguous.push(event);
        }
        if !contiguous.is_empty() {
            self.from_store = from_store;
        }
        Ok(contiguous)
    }

    async fn ask(&self, limit: usize) -> Result<Vec<Arc<LogEntry>>> {
        let page = i64::try_from(limit).unwrap_or(i64::MAX);
        let events = self.store.events(self.run_id, self.cursor, page).await?;
        let events: Vec<_> = events.into_iter().map(Arc::new).collect();
        if lock(&self.tail.ring).learn(self.cursor, &events, limit, Instant::now()) {
            self.tail.tell();
        }
        Ok(events)
    }

    /// The next events, at most `limit` and at least one: waits for it.
    ///
    /// Dropping the future loses nothing: the cursor moves only with what is given out.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn next(&mut self, limit: usize) -> Result<Vec<Arc<LogEntry>>> {
        loop {
            let events = self.try_next(limit).await?;
            if !events.is_empty() {
                return Ok(events);
            }
            self.changed().await;
        }
    }

    /// Waits until there may be something new.
    pub async fn changed(&mut self) {
        // The sender lives in `self.tail`, so it cannot be gone.
        let _ = tokio::time::timeout(POLL, self.news.changed()).await;
    }
}

#[cfg(test)]
mod tests;
