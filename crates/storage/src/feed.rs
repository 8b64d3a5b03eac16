//! Following the events of all runs, in the order of their positions.
//!
//! **Invariant:** a [`FeedFollower`] gives every event that passes its filter once and in order, and
//! its cursor tells up to where it has looked, whatever the filter left out. It is a cursor and
//! reads: from one ring in memory that one reader fills for all, and where that does not reach, from
//! the database in bounded pages.

mod filter;
mod ring;
mod tail;

use std::sync::Arc;

use control_plane_domain::{Position, Seq};
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::model::LogEntry;
use crate::store::Store;
use crate::tail::TailEntry;
use ring::Answer;
use tail::{Tail, Told};

pub(crate) use filter::FeedEntry;
pub use filter::FeedFilter;
pub(crate) use tail::Feed;

/// Most events of one page.
const MAX_PAGE: usize = 1000;
/// How many positions a filter is held against at once: one that nothing passes must not keep the
/// database busy for long.
const SCAN: Position = 4096;

/// From where to where the feed reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedBounds {
    /// The first position that is retained, or the next one to come.
    pub first: Position,
    /// The last position that was given out; 0 before there was any.
    pub last: Position,
}

impl FeedBounds {
    /// The cursor before everything that is retained.
    pub fn start(&self) -> Position {
        self.first - 1
    }
}

/// What follows a cursor.
#[derive(Debug, Clone)]
pub struct FeedPage {
    pub entries: Vec<TailEntry>,
    /// The follower's cursor after this page: what is up to here and not in a page did not pass the
    /// filter.
    pub cursor: Position,
    /// The last position that is known of.
    pub latest: Position,
    /// More may be there already. `false` when this is all there is.
    pub more: bool,
    /// What was between the cursor and this position is not retained any more.
    pub expired: Option<Position>,
    /// The follower was at the end once and was then too slow for what is kept in memory: it reads
    /// from the database until it has caught up. Told once.
    pub fell: bool,
}

impl Store {
    /// From where to where the feed reaches now.
    pub async fn feed_bounds(&self) -> Result<FeedBounds> {
        let bounds = self.feed_bounds_now().await?;
        self.feed_reaches(bounds.last);
        Ok(bounds)
    }

    /// The feed has events up to here: whoever follows it is to see them.
    pub(crate) fn feed_reaches(&self, last: Position) {
        if let Some(tail) = self.0.feed.followed() {
            tail.reaches(self, last);
        }
    }

    /// Follows all runs from the event after `after`: what is there first, then what comes.
    ///
    /// ```
    /// # use control_plane_storage::{Config, DatabaseUrl, FeedFilter, Store};
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let url = format!("sqlite://{}", folder.path().join("a.db").display());
    /// # let store = Store::connect(&Config::new(DatabaseUrl::parse(&url)?))?;
    /// # store.migrate().await?;
    /// let mut follower = store.follow_feed(0, FeedFilter::default());
    /// loop {
    ///     let page = follower.try_next(100).await?;
    ///     for event in &page.entries {
    ///         println!("{} {} {}", event.position, event.run_id, event.event_type);
    ///     }
    ///     if !page.more {
    ///         println!("that is all up to {}", page.cursor);
    ///         break; // or wait: follower.changed().await
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn follow_feed(&self, after: Position, filter: FeedFilter) -> FeedFollower {
        let tail = self.0.feed.tail();
        let news = tail.end.subscribe();
        let store = self.clone();
        FeedFollower {
            store,
            filter,
            cursor: after,
            run_seq: 0,
            tail,
            news,
            from_store: false,
            was_live: false,
            behind: false,
        }
    }

    /// Something was committed: whoever follows the feed is to see it.
    pub(crate) fn feed_news(&self) {
        if let Some(tail) = self.0.feed.followed() {
            tail.news(self);
        }
    }

    async fn feed_bounds_now(&self) -> Result<FeedBounds> {
        read!(self, feed::bounds())
    }

    async fn feed_after(&self, after: Position, limit: usize) -> Result<Vec<FeedEntry>> {
        let limit = page_size(limit);
        read!(self, feed::after(after, limit))
    }

    async fn feed_page(
        &self,
        filter: &FeedFilter,
        between: (Position, Position),
        after_seq: Seq,
        limit: usize,
    ) -> Result<(Vec<LogEntry>, Position)> {
        let (filter, limit) = (filter.clone(), page_size(limit));
        read!(self, feed::page(&filter, between, after_seq, limit))
    }
}

fn page_size(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// A cursor over the events of all runs. Made by [`Store::follow_feed`].
pub struct FeedFollower {
    store: Store,
    filter: FeedFilter,
    cursor: Position,
    /// For a filter on one run: the last of its events that came from the database.
    run_seq: Seq,
    tail: Arc<Tail>,
    news: watch::Receiver<Position>,
    from_store: bool,
    /// It was at the end once.
    was_live: bool,
    /// It fell out of memory and has not been at the end since.
    behind: bool,
}

impl FeedFollower {
    /// The position up to which everything was given out, or did not pass the filter.
    pub fn cursor(&self) -> Position {
        self.cursor
    }

    /// The last position that anybody here knows of; the cursor at least.
    pub fn latest(&self) -> Position {
        self.cursor.max(*self.tail.end.borrow())
    }

    /// Whether the last page came from the database and not from memory.
    pub fn reads_from_store(&self) -> bool {
        self.from_store
    }

    /// What follows, at most `limit` events. An empty page is not the end while there is `more`.
    ///
    /// Dropping the future loses nothing: the cursor moves only with what is given out.
    ///
    /// # Errors
    /// Those of the database; the cursor stays where it is.
    pub async fn try_next(&mut self, limit: usize) -> Result<FeedPage> {
        let limit = limit.clamp(1, MAX_PAGE);
        self.news.mark_unchanged();
        loop {
            match self.tail.ask(&self.store, self.cursor, limit, &self.filter) {
                Told::Ring(Answer::Events { entries, cursor, rest }) => {
                    self.cursor = cursor;
                    self.from_store = false;
                    // At the end of the ring the next call finds out whether it is that of the log.
                    let more = rest || !entries.is_empty();
                    if more {
                        return Ok(self.page(entries, more));
                    }
                }
                Told::Ring(Answer::AtEnd) | Told::Nothing => {
                    (self.was_live, self.behind) = (true, false);
                    return Ok(self.page(vec![], false));
                }
                Told::Ring(Answer::Before(end)) => return self.read(end, limit).await,
                Told::Wait(mut round) => {
                    // The sender lives in `self.tail`, so it cannot be gone.
                    let _ = round.changed().await;
                    if let Some(fault) = round.borrow().clone() {
                        return Err(Error::Unavailable(fault));
                    }
                }
            }
        }
    }

    /// A page from the database, which has everything up to `end`.
    async fn read(&mut self, end: Position, limit: usize) -> Result<FeedPage> {
        // What nothing is left out of, or one run is read of, has an index that leads to it.
        let indexed = self.filter.takes_all() || self.filter.run_id.is_some();
        let to = if indexed { end } else { end.min(self.cursor.saturating_add(SCAN)) };
        let (entries, first) =
            self.store.feed_page(&self.filter, (self.cursor, to), self.run_seq, limit).await?;
        self.from_store = true;
        let fell = self.was_live && !std::mem::replace(&mut self.behind, true);
        if first - 1 > self.cursor {
            self.cursor = first - 1;
            let expired = Some(self.cursor);
            return Ok(FeedPage { expired, fell, ..self.page(vec![], true) });
        }
        let last = entries.last().map(|entry| (entry.position, entry.seq));
        self.cursor = last.filter(|_| entries.len() == limit).map_or(to, |(position, _)| position);
        if let Some((_, seq)) = last.filter(|_| self.filter.run_id.is_some()) {
            self.run_seq = seq;
        }
        let entries = entries.into_iter().map(|entry| TailEntry::Read(Arc::new(entry))).collect();
        Ok(FeedPage { fell, ..self.page(entries, true) })
    }

    fn page(&self, entries: Vec<TailEntry>, more: bool) -> FeedPage {
        let (cursor, latest) = (self.cursor, self.latest());
        FeedPage { entries, cursor, latest, more, expired: None, fell: false }
    }

    /// Waits until there may be something new.
    pub async fn changed(&mut self) {
        // The sender lives in `self.tail`, so it cannot be gone.
        let _ = tokio::time::timeout(self.store.poll(), self.news.changed()).await;
    }
}
