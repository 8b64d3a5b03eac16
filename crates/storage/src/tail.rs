//! Following a run's log: from memory where it reaches, from the database where it does not.
//!
//! **Invariant:** a [`Follower`] gives every committed event once and in order. It is a cursor and
//! reads; it owns no queue, so a slow one costs the writer nothing. However many follow a run, the
//! database is asked how it is now and then ([`Store::poll`]), and not at all while we write it.

mod ring;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use control_plane_domain::{RunId, Seq};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::config::TailLimits;
use crate::error::{Error, Result};
use crate::model::{Head, LogEntry};
use crate::store::Store;
use ring::{Answer, Ring};

pub(crate) use ring::weight;
pub use ring::{KeptEntry, TailEntry};

/// Most events that are read from the database at once.
const PAGE: usize = 1000;
/// A follower that is back for more within this time is quick enough to have the next page read
/// while it is busy with the last one. For a slow one that would only take memory.
const QUICK: Duration = Duration::from_millis(100);
/// How long [`Follower::changed`] waits at most.
const SOON: Duration = Duration::from_millis(100);

/// The tails of the runs that somebody follows.
pub(crate) struct Hub {
    limits: TailLimits,
    tails: Mutex<HashMap<RunId, Weak<Tail>>>,
}

impl Hub {
    /// Tails of this size.
    pub(crate) fn new(limits: TailLimits) -> Self {
        Self { limits, tails: Mutex::default() }
    }

    fn tail(&self, id: RunId) -> Arc<Tail> {
        let mut tails = lock(&self.tails);
        if let Some(tail) = tails.get(&id).and_then(Weak::upgrade) {
            return tail;
        }
        // The map only grows with runs that are followed; what nobody follows goes here.
        if tails.len() > 64 && tails.len().is_power_of_two() {
            tails.retain(|_, tail| tail.strong_count() > 0);
        }
        let tail = Arc::new(Tail::new(self.limits));
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

    /// Takes note of what another instance says: these logs reach this far.
    pub(crate) fn hear(&self, logs: &BTreeMap<RunId, Seq>) {
        let told: Vec<_> = {
            let tails = lock(&self.tails);
            let followed = |id| tails.get(id).and_then(Weak::upgrade);
            logs.iter().filter_map(|(id, seq)| Some((followed(id)?, *seq))).collect()
        };
        for (tail, seq) in told {
            lock(&tail.ring).hear(seq);
            // One reads, and then the others find it in memory.
            tail.hint.notify_one();
        }
    }

    /// Has everybody look into the database: something may have been missed.
    pub(crate) fn doubt(&self) {
        let followed: Vec<_> = lock(&self.tails).values().filter_map(Weak::upgrade).collect();
        for tail in followed {
            lock(&tail.ring).doubt();
            tail.tell();
        }
    }

    /// Forgets what a run's tail holds: the log may have another writer now.
    pub(crate) fn forget(&self, id: RunId) {
        let tail = lock(&self.tails).get(&id).and_then(Weak::upgrade);
        if let Some(tail) = tail {
            lock(&tail.ring).clear();
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
    /// Held by whoever asks how the run is, so that the others wait for the answer.
    asking: tokio::sync::Mutex<()>,
    /// Held by the one who is to look into the database when there is no news for a while.
    watch_duty: tokio::sync::Mutex<()>,
    /// Whoever has that duty is to look now.
    hint: Notify,
    /// Goes up with every change; followers wait on it.
    news: watch::Sender<u64>,
}

impl Tail {
    fn new(limits: TailLimits) -> Self {
        Self {
            ring: Mutex::new(Ring::new(limits)),
            gone: AtomicBool::new(false),
            asking: tokio::sync::Mutex::default(),
            watch_duty: tokio::sync::Mutex::default(),
            hint: Notify::new(),
            news: watch::Sender::new(0),
        }
    }

    fn publish(&self, entries: impl Iterator<Item = LogEntry>) {
        lock(&self.ring).publish(entries, Instant::now());
        self.gone.store(false, Ordering::Release);
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
    /// It was at the log's end once.
    was_live: bool,
    /// It fell out of memory and has not been at the end since.
    behind: bool,
    /// It fell, and [`Follower::take_fall`] has not told it yet.
    fell: bool,
    /// The last page was not all there was.
    more: bool,
    /// The page after the last one, on its way.
    ahead: Option<Reading>,
    /// When the last page came from the database.
    read_at: Option<Instant>,
}

/// A page that is being read from the database.
struct Reading {
    after: Seq,
    limit: usize,
    began: Instant,
    page: JoinHandle<Result<Vec<LogEntry>>>,
}

impl Reading {
    /// The page, how many events were asked for, and when.
    async fn done(self) -> Result<(Vec<LogEntry>, usize, Instant)> {
        let events = self.page.await.map_err(|_ended| Error::Task)??;
        Ok((events, self.limit, self.began))
    }
}

impl Follower {
    pub(crate) fn new(store: Store, hub: &Hub, run_id: RunId, cursor: Seq) -> Self {
        let tail = hub.tail(run_id);
        let news = tail.news.subscribe();
        Self {
            store,
            run_id,
            cursor,
            tail,
            news,
            from_store: false,
            was_live: false,
            behind: false,
            fell: false,
            more: false,
            ahead: None,
            read_at: None,
        }
    }

    /// The last event given out, or where following started.
    pub fn cursor(&self) -> Seq {
        self.cursor
    }

    /// The last event that anybody here knows of; the cursor at least.
    pub fn latest(&self) -> Seq {
        lock(&self.tail.ring).latest().max(self.cursor)
    }

    /// Whether the last events came from the database and not from memory.
    pub fn reads_from_store(&self) -> bool {
        self.from_store
    }

    /// Whether it was at the log's end, was then too slow for what is kept in memory, and has not
    /// caught up since.
    pub fn is_behind(&self) -> bool {
        self.behind
    }

    /// Whether it fell behind since this was asked last.
    pub fn take_fall(&mut self) -> bool {
        std::mem::take(&mut self.fell)
    }

    /// Whether the log had more when the last events were given out, however few they were.
    pub fn has_more(&self) -> bool {
        self.more
    }

    /// The next events, at most `limit`; none when the log has no more yet.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such run, or not any more, and those of the database;
    /// the cursor stays where it is.
    pub async fn try_next(&mut self, limit: usize) -> Result<Vec<TailEntry>> {
        self.news.mark_unchanged();
        let limit = limit.clamp(1, PAGE);
        let (events, from_store, more) = loop {
            self.check_gone()?;
            match self.answer(limit) {
                Answer::Events(events) => {
                    let more = events.len() >= limit;
                    break (events, false, more);
                }
                Answer::Nothing => break (Vec::new(), false, false),
                Answer::Poll => drop(self.ask_head().await?),
                Answer::Ask => {
                    let (events, more) = self.ask(limit).await?;
                    break (events, true, more);
                }
            }
        };
        let given = events.len();
        let mut contiguous = Vec::with_capacity(events.len());
        for event in events {
            // A reader never passes a hole: what is missing is not committed yet.
            if event.seq != self.cursor + 1 {
                break;
            }
            self.cursor = event.seq;
            contiguous.push(event);
        }
        self.more = more && contiguous.len() == given;
        if !contiguous.is_empty() {
            self.from_store = from_store;
        }
        if lock(&self.tail.ring).ends_at(self.cursor) {
            self.was_live = true;
            self.behind = false;
        }
        Ok(contiguous)
    }

    fn answer(&mut self, limit: usize) -> Answer {
        let mut ring = lock(&self.tail.ring);
        if self.was_live && !self.behind && ring.has_dropped(self.cursor) {
            self.behind = true;
            self.fell = true;
        }
        ring.answer(self.cursor, limit, self.store.poll(), Instant::now())
    }

    /// The next events, and whether there are more: what was read ahead may be a short page.
    async fn ask(&mut self, limit: usize) -> Result<(Vec<TailEntry>, bool)> {
        let quick = self.read_at.is_some_and(|at| at.elapsed() < QUICK);
        let ahead = self.ahead.take().filter(|ahead| ahead.after == self.cursor);
        let (mut events, asked, began) = match ahead {
            Some(ahead) => match ahead.done().await {
                Ok(page) => page,
                // What was wrong then may be over.
                Err(_past) => self.start(self.cursor, limit).done().await?,
            },
            None => self.start(self.cursor, limit).done().await?,
        };
        self.read_at = Some(Instant::now());
        // What was read ahead may be more than is wanted now.
        let more = events.len() >= limit.min(asked);
        events.truncate(limit);
        if let Some(last) = events.last()
            && more
            && quick
        {
            self.ahead = Some(self.start(last.seq, limit));
        }
        let limit = if more { events.len() } else { asked };
        let events: Vec<_> = events.into_iter().map(Arc::new).collect();
        let mut ring = lock(&self.tail.ring);
        let is_news = ring.learn(self.cursor, &events, limit, began);
        let kept = ring.kept(self.cursor, limit).filter(|kept| kept.len() >= events.len());
        drop(ring);
        if is_news {
            self.tail.tell();
        }
        Ok((kept.unwrap_or_else(|| events.into_iter().map(TailEntry::Read).collect()), more))
    }

    fn start(&self, after: Seq, limit: usize) -> Reading {
        let (run_id, most) = (self.run_id, i64::try_from(limit).unwrap_or(i64::MAX));
        let read = move |store: Store| async move { store.events(run_id, after, most).await };
        Reading { after, limit, began: Instant::now(), page: self.store.start(read) }
    }

    /// How the run is. Of many who ask about the end of a run, one asks the database.
    ///
    /// # Errors
    /// [`Error::NotFound`], and those of the database.
    pub async fn head(&self) -> Result<Head> {
        let _turn = self.tail.asking.lock().await;
        self.check_gone()?;
        let known = lock(&self.tail.ring).ended_at(self.cursor);
        match known {
            Some(head) => Ok(head),
            None => self.ask_head().await,
        }
    }

    async fn ask_head(&self) -> Result<Head> {
        let asked = self.store.run_head(self.run_id).await;
        if matches!(asked, Err(Error::NotFound { .. })) {
            self.tail.gone.store(true, Ordering::Release);
            self.tail.tell();
        }
        let head = asked?;
        lock(&self.tail.ring).learn_head(self.cursor, &head, Instant::now());
        Ok(head)
    }

    fn check_gone(&self) -> Result<()> {
        if self.tail.gone.load(Ordering::Acquire) {
            return Err(Error::run_not_found(self.run_id));
        }
        Ok(())
    }

    /// The next events, at most `limit` and at least one: waits for it.
    ///
    /// Dropping the future loses nothing: the cursor moves only with what is given out.
    ///
    /// # Errors
    /// As [`Follower::try_next`].
    pub async fn next(&mut self, limit: usize) -> Result<Vec<TailEntry>> {
        loop {
            let events = self.try_next(limit).await?;
            if !events.is_empty() {
                return Ok(events);
            }
            self.turn().await;
        }
    }

    /// Waits until there is news, or until it falls to this follower to look for some. However
    /// many wait, one at a time is woken for that; it should read then.
    pub async fn turn(&mut self) {
        // The senders live in `self.tail`, so they cannot be gone.
        tokio::select! {
            _ = self.news.changed() => {}
            _duty = self.tail.watch_duty.lock() => {
                tokio::select! {
                    _ = self.news.changed() => {}
                    () = self.tail.hint.notified() => {}
                    () = tokio::time::sleep(self.store.poll()) => {}
                }
            }
        }
    }

    /// Waits until there is news, but not for long: for those few who wait for something that need
    /// not be an event.
    pub async fn changed(&mut self) {
        // The sender lives in `self.tail`, so it cannot be gone.
        let _ = tokio::time::timeout(SOON, self.news.changed()).await;
    }
}
