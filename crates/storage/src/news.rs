//! What instances tell each other: hints over the database, which a slow poll backs up.
//!
//! **Invariant:** a hint says where to look and nothing else, so that one that is lost, late or
//! doubled costs time and never an event. It is sent after the commit, in a transaction of its own:
//! whoever appends never waits for it, nor for others who send.

mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use control_plane_domain::{Position, RunId, Seq};
use tokio::sync::Notify;

use crate::error::Result;
use crate::postgres::Heard;
use crate::store::{Backend, Store};

/// The shortest time between two hints of this process; what comes in between is sent together.
const GAP: Duration = Duration::from_millis(5);
/// More runs than this are not named one by one.
const MAX_RUNS: usize = 4096;
/// How often the database is asked when nobody tells of news.
pub(crate) const POLL: Duration = Duration::from_millis(500);
/// The same while we listen to the others.
pub(crate) const SLOW_POLL: Duration = Duration::from_secs(5);

/// What may be worth a look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// The feed reaches this far.
    pub(crate) position: Position,
    /// The logs of these runs reach this far.
    pub(crate) logs: BTreeMap<RunId, Seq>,
    /// Something is in the inboxes of these runs.
    pub(crate) asked: BTreeSet<RunId>,
    /// These runs were deleted.
    pub(crate) gone: BTreeSet<RunId>,
    /// Runs wait for an owner.
    pub(crate) free: bool,
    /// There was too much to name.
    pub(crate) all: bool,
}

impl News {
    /// A log was written.
    pub(crate) fn wrote(&mut self, id: RunId, seq: Seq, position: Position) {
        self.position = self.position.max(position);
        let known = self.logs.entry(id).or_insert(seq);
        *known = seq.max(*known);
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn bound(&mut self) {
        if self.logs.len().max(self.asked.len()).max(self.gone.len()) > MAX_RUNS {
            *self = Self { position: self.position, all: true, free: true, ..Self::default() };
        }
    }
}

/// What waits to be sent.
#[derive(Default)]
pub(crate) struct Outgoing(Mutex<Pending>);

#[derive(Default)]
struct Pending {
    news: News,
    sending: bool,
}

/// What was heard, and for whom.
#[derive(Default)]
pub(crate) struct Ears {
    /// The number of the connection that we listen on; 0 when we do not.
    listening: AtomicU64,
    knocks: Mutex<Knock>,
    knocked: Notify,
}

/// What whoever follows runs here has to look at.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Knock {
    /// Something is in the inboxes of these runs; their owners may be elsewhere.
    pub asked: BTreeSet<RunId>,
    /// Runs may wait for an owner, or we may have missed something.
    pub look: bool,
}

impl Store {
    /// Waits until another instance has told of something to do. For one caller at a time.
    /// Dropping the future loses nothing.
    pub async fn knock(&self) -> Knock {
        let ears = &self.0.ears;
        loop {
            let knock = std::mem::take(&mut *lock(&ears.knocks));
            if knock != Knock::default() {
                return knock;
            }
            ears.knocked.notified().await;
        }
    }

    /// How often to ask the database about what others may write.
    pub(crate) fn poll(&self) -> Duration {
        match self.0.ears.listening.load(Ordering::Acquire) {
            0 => POLL,
            _ => SLOW_POLL,
        }
    }

    /// Tells the other instances, soon.
    pub(crate) fn tell(&self, note: impl FnOnce(&mut News)) {
        if matches!(self.0.backend, Backend::Sqlite(_)) {
            return;
        }
        let begin = {
            let mut pending = lock(&self.0.outgoing.0);
            note(&mut pending.news);
            pending.news.bound();
            !pending.news.is_empty() && !std::mem::replace(&mut pending.sending, true)
        };
        if begin {
            self.spawn(Sending { store: self.clone(), over: false }.run());
        }
    }

    /// Tells the other instances now.
    pub(crate) async fn tell_now(&self, news: &News) -> Result<()> {
        match &self.0.backend {
            Backend::Postgres(db) => db.notify(text::encode(news, self.0.instance)).await,
            Backend::Sqlite(_) => Ok(()),
        }
    }

    /// Takes in what the database's connection for hints has to say.
    pub(crate) fn hear(&self, heard: Heard<'_>) {
        let ears = &self.0.ears;
        match heard {
            Heard::Began(connection) => {
                ears.listening.store(connection, Ordering::Release);
                self.look_at_all();
            }
            Heard::Lost(connection) => {
                let listening = &ears.listening;
                let ours =
                    listening.compare_exchange(connection, 0, Ordering::AcqRel, Ordering::Acquire);
                if ours.is_ok() {
                    // They wait too long for a time without hints.
                    self.look_at_all();
                }
            }
            Heard::Said(text) => match text::decode(text) {
                Some((from, news)) if from != self.0.instance => self.take_in(&news),
                Some(_) | None => {}
            },
        }
    }

    fn take_in(&self, news: &News) {
        let News { position, logs, asked, gone, free, all } = news;
        if *all {
            self.look_at_all();
        }
        self.0.hub.hear(logs);
        for id in gone {
            self.0.hub.remove(*id);
        }
        self.feed_reaches(*position);
        self.knocked(asked, *free);
    }

    /// Something may have been missed.
    fn look_at_all(&self) {
        self.0.hub.doubt();
        self.feed_news();
        self.knocked(&BTreeSet::new(), true);
    }

    fn knocked(&self, asked: &BTreeSet<RunId>, look: bool) {
        let ears = &self.0.ears;
        {
            let mut knock = lock(&ears.knocks);
            knock.look |= look;
            knock.asked.extend(asked);
            if knock.asked.len() > MAX_RUNS {
                *knock = Knock { look: true, ..Knock::default() };
            }
        }
        ears.knocked.notify_one();
    }
}

/// The one task that sends. It lives as long as there is something to send.
struct Sending {
    store: Store,
    over: bool,
}

impl Sending {
    async fn run(mut self) {
        while let Some(news) = self.take() {
            if let Err(fault) = self.store.tell_now(&news).await {
                // Whoever waits for it asks the database before long.
                tracing::debug!(error = %fault, "Could not tell the other instances of news");
            }
            tokio::time::sleep(GAP).await;
        }
    }

    fn take(&mut self) -> Option<News> {
        let mut pending = lock(&self.store.0.outgoing.0);
        let news = std::mem::take(&mut pending.news);
        self.over = news.is_empty();
        pending.sending = !self.over;
        (!self.over).then_some(news)
    }
}

impl Drop for Sending {
    /// A runtime that ends drops its tasks; another one may still use the store.
    fn drop(&mut self) {
        if !self.over {
            lock(&self.store.0.outgoing.0).sending = false;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
