//! The end of a run's log, as far as it is known and kept in memory.
//!
//! **Invariant:** a [`Ring`] holds a contiguous end of the log or nothing, and no more than its
//! limits: an event that is not the next one empties it.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use control_plane_domain::Seq;
use tokio::time::Instant;

use crate::config::TailLimits;
use crate::model::{Head, LogEntry};

/// What an event takes besides its texts.
const OVERHEAD: usize = size_of::<KeptEntry>() + 128;

/// An event that a [`super::Follower`] gives out.
#[derive(Debug, Clone)]
pub enum TailEntry {
    /// Read from the database for this follower.
    Read(Arc<LogEntry>),
    /// In memory, shared by all who follow the run.
    Kept(Arc<KeptEntry>),
}

impl Deref for TailEntry {
    type Target = LogEntry;

    fn deref(&self) -> &LogEntry {
        match self {
            Self::Read(entry) => entry,
            Self::Kept(entry) => entry,
        }
    }
}

/// An event in memory, with room for the form in which it is sent.
#[derive(Debug)]
pub struct KeptEntry {
    entry: LogEntry,
    encoded: OnceLock<Bytes>,
}

impl KeptEntry {
    pub(crate) fn new(entry: LogEntry) -> Self {
        Self { entry, encoded: OnceLock::new() }
    }

    /// What `encode` makes of the event; it is called once, whoever asks and how often. The form
    /// should not be much longer than the event's body: that is how it is counted.
    pub fn encoded(&self, encode: impl FnOnce(&LogEntry) -> Bytes) -> &Bytes {
        self.encoded.get_or_init(|| encode(&self.entry))
    }
}

impl Deref for KeptEntry {
    type Target = LogEntry;

    fn deref(&self) -> &LogEntry {
        &self.entry
    }
}

/// The end of a log.
pub(super) struct Ring {
    limits: TailLimits,
    events: VecDeque<Arc<KeptEntry>>,
    /// What the events take, their encoded forms included.
    bytes: usize,
    /// The first event that was kept since the ring was empty: what lies between it and the oldest
    /// one had to go.
    since: Seq,
    /// The last event that we know to be committed and have seen.
    end: Option<Seq>,
    /// The last event that the database has told of.
    latest: Seq,
    /// The last event that another instance has told of.
    told: Seq,
    /// When we last knew that nothing follows `end`.
    checked: Option<Instant>,
    /// The run as it is after `end`, once it is over.
    ended: Option<Head>,
}

/// What a ring says to a cursor.
pub(super) enum Answer {
    /// The next events.
    Events(Vec<TailEntry>),
    /// There are none, as of a moment ago.
    Nothing,
    /// It is time to ask the database how the run is.
    Poll,
    /// The database has to be asked for events.
    Ask,
}

impl Ring {
    pub(super) fn new(limits: TailLimits) -> Self {
        Self {
            limits,
            events: VecDeque::new(),
            bytes: 0,
            since: 0,
            end: None,
            latest: 0,
            told: 0,
            checked: None,
            ended: None,
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.limits);
    }

    /// Takes committed events, the newest ones.
    pub(super) fn publish(&mut self, entries: impl Iterator<Item = LogEntry>, now: Instant) {
        for entry in entries {
            self.push(entry);
        }
        self.checked = Some(now);
    }

    fn push(&mut self, entry: LogEntry) {
        if self.end.is_some_and(|end| end + 1 != entry.seq) {
            if self.holds(&entry) {
                return;
            }
            self.clear();
        }
        if self.events.is_empty() {
            self.since = entry.seq;
        }
        self.end = Some(entry.seq);
        self.latest = self.latest.max(entry.seq);
        self.ended = None;
        self.bytes += weight(&entry);
        self.events.push_back(Arc::new(KeptEntry::new(entry)));
        let TailLimits { events, bytes } = self.limits;
        while self.events.len() > events.max(1) || (self.bytes > bytes && self.events.len() > 1) {
            if let Some(oldest) = self.events.pop_front() {
                self.bytes -= weight(&oldest);
            }
        }
    }

    /// The events from `cursor` on.
    fn after(&self, cursor: Seq) -> Option<impl Iterator<Item = &Arc<KeptEntry>>> {
        let first = self.events.front()?.seq;
        let skip = usize::try_from(cursor + 1 - first).ok()?;
        Some(self.events.iter().skip(skip))
    }

    fn holds(&self, entry: &LogEntry) -> bool {
        self.after(entry.seq - 1)
            .and_then(|mut events| events.next())
            .is_some_and(|held| held.hash == entry.hash)
    }

    /// What it holds after `cursor`, if it reaches back so far.
    pub(super) fn kept(&self, cursor: Seq, limit: usize) -> Option<Vec<TailEntry>> {
        let events = self.after(cursor)?;
        Some(events.take(limit).map(|event| TailEntry::Kept(Arc::clone(event))).collect())
    }

    /// Answers a follower. Who is told to poll does so for all: the others are told that there is
    /// nothing until it is time again.
    pub(super) fn answer(
        &mut self,
        cursor: Seq,
        limit: usize,
        poll: Duration,
        now: Instant,
    ) -> Answer {
        if self.end.is_none_or(|end| cursor > end) {
            return Answer::Ask;
        }
        if self.end == Some(cursor) {
            if self.latest > cursor {
                return Answer::Ask;
            }
            if self.checked.is_some_and(|checked| now.duration_since(checked) < poll) {
                return Answer::Nothing;
            }
            self.checked = Some(now);
            return Answer::Poll;
        }
        self.kept(cursor, limit).map_or(Answer::Ask, Answer::Events)
    }

    /// Whether the next event was kept once and had to make room: whoever is at `cursor` and once
    /// was at the end was too slow.
    pub(super) fn has_dropped(&self, cursor: Seq) -> bool {
        let first = self.events.front().map_or(self.since, |oldest| oldest.seq);
        (self.since..first).contains(&(cursor + 1))
    }

    /// Whether nothing is known to follow `cursor`.
    pub(super) fn ends_at(&self, cursor: Seq) -> bool {
        self.end == Some(cursor) && self.latest <= cursor
    }

    /// The last event that is known of.
    pub(super) fn latest(&self) -> Seq {
        self.latest
    }

    /// Takes note of what the database answered to `cursor`; whether that is news to others.
    pub(super) fn learn(
        &mut self,
        cursor: Seq,
        events: &[Arc<LogEntry>],
        limit: usize,
        now: Instant,
    ) -> bool {
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
        if self.end == Some(known) {
            self.checked = complete.then_some(now);
            if complete {
                // What we were told of while this was being read is still to come.
                self.latest = known.max(self.told);
            }
        }
        self.end != before
    }

    /// Takes note of what another instance says: the log reaches this far.
    pub(super) fn hear(&mut self, seq: Seq) {
        self.told = self.told.max(seq);
        self.latest = self.latest.max(seq);
    }

    /// There may be more than is known.
    pub(super) fn doubt(&mut self) {
        self.checked = None;
    }

    /// Takes note of how the database says the run is, if it was asked when `cursor` was the end
    /// and nothing came since.
    pub(super) fn learn_head(&mut self, cursor: Seq, head: &Head, now: Instant) {
        if self.end != Some(cursor) {
            return;
        }
        if head.last_seq < cursor {
            // The log is not the one that we know.
            self.clear();
            return;
        }
        self.latest = self.latest.max(head.last_seq);
        if head.last_seq == cursor {
            self.checked = Some(now);
            self.ended = head.is_over().then_some(*head);
        }
    }

    /// The run's end, if it is known to be over at `cursor`.
    pub(super) fn ended_at(&self, cursor: Seq) -> Option<Head> {
        self.ended.filter(|head| head.last_seq == cursor)
    }
}

/// What an event takes when it is kept.
pub(crate) fn weight(entry: &LogEntry) -> usize {
    // The body, and once more in the form that is sent.
    2 * entry.body.len() + OVERHEAD
}

#[cfg(test)]
mod tests;
