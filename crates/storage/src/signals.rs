//! Signals on their way to their runs, and when nobody heard any.
//!
//! **Invariant:** a signal is in the inbox of its run, held until its run is known, or counted as
//! dropped; and what may have been sent before [`SignalWatch::last_heard_at`] was recorded, unless a
//! gap says that it was not. Neither depends on who writes: keys make the same twice the same once.

use std::collections::HashSet;

use control_plane_domain::{RunId, Timestamp};
use serde_json::Value;

use crate::error::Result;
use crate::store::Store;

/// The kind of inbox items that are signals.
pub const SIGNAL: &str = "signal";

/// Held signals that are looked at together.
const PAGE: i64 = 500;

/// What a signal names, by which its run is found.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum About {
    /// A session.
    Session(String),
    /// A message; it counts when exactly one run has it, whether that run is over or not.
    Message(String),
}

/// A signal that was heard.
#[derive(Debug, Clone, PartialEq)]
pub struct NewSignal {
    pub about: About,
    pub sender: String,
    /// With `sender`, what makes it one signal within a run.
    pub message_id: String,
    /// What lies in the inbox.
    pub payload: Value,
    pub heard_at: Timestamp,
}

/// A time in which signals may have been sent that nobody recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignalGap {
    pub from: Timestamp,
    /// `None` while it lasts. A gap that ends where it begins was none, and is forgotten.
    pub to: Option<Timestamp>,
    /// A word: `away` (no instance watched), `broken` (the watch broke), `lagged` (the runtime cut
    /// it because we were slow), `overflow` (the database took too long).
    pub reason: String,
}

/// What is to be written of the watch.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SignalNews {
    /// In the order in which they were heard.
    pub signals: Vec<NewSignal>,
    /// New gaps, and open ones that have an end now.
    pub gaps: Vec<SignalGap>,
    /// What was sent before is recorded with this, or earlier.
    pub heard_until: Option<Timestamp>,
    /// Most signals that are held; the oldest make room.
    pub hold_at_most: i64,
}

/// What became of signals.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SignalsDone {
    /// Whose inbox has news, each once.
    pub runs: Vec<RunId>,
    /// How many went to an inbox.
    pub recorded: usize,
    /// How many are held, their run being unknown.
    pub held: usize,
    /// How many name a message that several runs have: dropped.
    pub ambiguous: usize,
    /// How many were held and had to make room: dropped.
    pub crowded_out: usize,
}

/// How far the watch is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SignalWatch {
    /// `None` before anybody ever watched.
    pub last_heard_at: Option<Timestamp>,
    /// The gap that lasts, if one does.
    pub open: Option<SignalGap>,
}

/// What there is to do for a page of held signals.
pub(crate) struct HeldFound {
    /// The page's last id; `None` when there is no page.
    pub(crate) last: Option<i64>,
    pub(crate) known: Vec<(i64, RunId)>,
    pub(crate) ambiguous: Vec<i64>,
    /// How many of the page wait on.
    pub(crate) waiting: usize,
}

impl Store {
    /// Writes what was heard, and what was not, in one transaction.
    ///
    /// # Errors
    /// [`crate::Error::Refused`] when a run was deleted meanwhile, or the database does not take one
    /// of the signals; nothing was written then.
    pub async fn signals_record(&self, news: SignalNews) -> Result<SignalsDone> {
        self.task(move |store: Self| async move {
            let done = change!(store, signals::record(&news))?;
            store.tell_asked(&done);
            Ok(done)
        })
        .await
    }

    /// Whoever owns these runs is to look.
    fn tell_asked(&self, done: &SignalsDone) {
        if !done.runs.is_empty() {
            self.tell(|news| news.asked.extend(&done.runs));
        }
    }

    /// Hands over the held signals whose run is known by now.
    ///
    /// # Errors
    /// As [`Store::signals_record`]; some may be handed over then.
    pub async fn signals_deliver(&self) -> Result<SignalsDone> {
        let (mut after, mut all) = (0, SignalsDone::default());
        loop {
            let found = read!(self, signals::held_found(after, PAGE))?;
            let Some(last) = found.last else { return Ok(all) };
            after = last;
            all.held += found.waiting;
            if found.known.is_empty() && found.ambiguous.is_empty() {
                continue;
            }
            let delivered = self.task(move |store: Self| async move {
                let done = change!(store, signals::deliver(&found.known, &found.ambiguous))?;
                store.tell_asked(&done);
                Ok(done)
            });
            let done = delivered.await?;
            all.recorded += done.recorded;
            all.ambiguous += done.ambiguous;
            all.runs.extend(done.runs);
            all.runs.sort();
            all.runs.dedup();
        }
    }

    /// Drops the signals that are held since before then; how many.
    pub async fn signals_expire(&self, before: Timestamp) -> Result<usize> {
        self.task(move |store: Self| async move { change!(store, signals::expire(before)) }).await
    }

    /// How many signals are held.
    pub async fn signals_held(&self) -> Result<i64> {
        read!(self, signals::held())
    }

    /// Which of these signals, by sender and message id, a run has recorded: what two instances
    /// heard counts once.
    pub async fn signals_recorded(
        &self,
        id: RunId,
        signals: Vec<(String, String)>,
    ) -> Result<HashSet<(String, String)>> {
        read!(self, raw::signals_recorded(id, &signals))
    }

    /// How far the watch is.
    pub async fn signal_watch(&self) -> Result<SignalWatch> {
        read!(self, signals::watch_get())
    }

    /// The gaps that touch a time, oldest first; without `to` the time has no end.
    pub async fn signal_gaps(
        &self,
        from: Timestamp,
        to: Option<Timestamp>,
    ) -> Result<Vec<SignalGap>> {
        read!(self, signals::gaps(from, to))
    }
}
