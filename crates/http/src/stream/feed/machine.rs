//! Which frame of the feed comes next. No I/O and no clock, as for the stream of a run.
//!
//! **Invariant:** events are sent in order and each once; `caught_up` comes once, after the
//! backlog; a heartbeat has an id only where nothing waits to be sent, so that the id is a bookmark:
//! everything up to it was sent, or did not pass the filter.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use control_plane_domain::{EventType, Position};
use control_plane_storage::{FeedPage, TailEntry};

use super::request::FeedOpening;
use crate::stream::frame::{Frame, gap_of};
use crate::stream::machine::database_fault;
use crate::stream::machine::pace::Backoff;
use crate::stream::request::Reset;

/// What to do next. Asking again without an answer gives the same again.
#[derive(Debug)]
pub(super) enum Step {
    Send(Frame),
    /// Read the feed after the cursor, then call [`Machine::read`].
    Read,
    /// Wait for news of the feed (then call [`Machine::woken`]) or for this instant.
    Wait(Instant),
    /// Wait for this instant: the database needs a rest.
    Pause(Instant),
}

/// A connection's place in the feed.
pub(super) struct Machine {
    heartbeat: Duration,
    /// Control frames that come before anything else.
    queue: VecDeque<Frame>,
    /// Events that were read and not sent.
    pending: VecDeque<TailEntry>,
    cursor: Position,
    /// The cursor once everything that was read is sent.
    bookmark: Position,
    /// The last position that we know of.
    latest: Position,
    caught_up: bool,
    announced: bool,
    heartbeat_due: Instant,
    retry_at: Option<Instant>,
    backoff: Backoff,
}

impl Machine {
    pub(super) fn new(
        opening: FeedOpening,
        heartbeat: Duration,
        retry_ms: u64,
        now: Instant,
    ) -> Self {
        let FeedOpening { after, latest, reset } = opening;
        let mut queue = VecDeque::from([Frame::Opening { retry_ms }]);
        queue.extend(reset.map(Frame::Reset));
        Self {
            heartbeat,
            queue,
            pending: VecDeque::new(),
            cursor: after,
            bookmark: after,
            latest,
            caught_up: false,
            announced: false,
            heartbeat_due: now + heartbeat,
            retry_at: None,
            backoff: Backoff::new(),
        }
    }

    /// How many events wait to be sent.
    pub(super) fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// The last event that was sent, or left out.
    pub(super) fn cursor(&self) -> Position {
        self.cursor
    }

    /// What to do next.
    pub(super) fn step(&mut self, now: Instant) -> Step {
        if let Some(frame) = self.queue.pop_front() {
            return Step::Send(frame);
        }
        if self.pending.is_empty() {
            self.cursor = self.bookmark;
        }
        if now >= self.heartbeat_due {
            return Step::Send(self.heartbeat(now));
        }
        if let Some(entry) = self.pending.pop_front() {
            return Step::Send(self.pass(entry));
        }
        if let Some(at) = self.retry_at.filter(|at| now < *at) {
            return Step::Pause(at.min(self.heartbeat_due));
        }
        if !self.caught_up {
            return Step::Read;
        }
        if !self.announced {
            self.announced = true;
            return Step::Send(Frame::CaughtUp(self.cursor));
        }
        Step::Wait(self.heartbeat_due)
    }

    fn pass(&mut self, entry: TailEntry) -> Frame {
        self.cursor = entry.position;
        if entry.event_type == EventType::SessionStreamGap {
            self.queue.extend(gap_of(&entry));
        }
        Frame::FeedEvent(entry)
    }

    fn heartbeat(&mut self, now: Instant) -> Frame {
        self.heartbeat_due = now + self.heartbeat;
        let at_end = self.caught_up && self.announced && self.pending.is_empty();
        Frame::Heartbeat { id: at_end.then_some(self.cursor), latest: self.latest }
    }

    /// There is news of the feed.
    pub(super) fn woken(&mut self) {
        self.caught_up = false;
    }

    /// This follows.
    pub(super) fn read(&mut self, page: FeedPage) {
        let FeedPage { entries, cursor, latest, more, expired, fell } = page;
        self.retry_at = None;
        self.backoff.reset();
        self.latest = self.latest.max(latest);
        if fell && self.announced {
            self.queue.push_back(Frame::Lagged { from: self.bookmark, latest: self.latest });
        }
        let reset = |from| Reset { reason: "expired", requested: Some(self.bookmark), from };
        self.queue.extend(expired.map(reset).map(Frame::Reset));
        self.pending.extend(entries);
        self.bookmark = cursor;
        self.caught_up = !more;
    }

    /// The database did not answer: the client is told, and it is asked again later.
    pub(super) fn failed(&mut self, now: Instant) {
        self.retry_at = Some(now + self.backoff.wait());
        self.queue.push_back(database_fault());
    }
}

#[cfg(test)]
mod tests;
