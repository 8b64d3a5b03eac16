//! Which frame comes next. No I/O and no clock: the stream does what [`Machine::step`] says and
//! tells it what came of it, so that every order of things is a row in a table.
//!
//! **Invariant:** events are sent in order and each once; `caught_up` comes once, after the
//! backlog, and the first snapshot right after it; a snapshot comes exactly when the cursor is what
//! the snapshot has folded; `end` comes when the store says that the run is over and the cursor is
//! its last event.

pub(super) mod pace;

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use control_plane_domain::{EventType, Seq};
use control_plane_storage::TailEntry;
use control_plane_storage::model::Head;

use super::frame::{Frame, gap_of};
use super::pump::Close;
use super::request::{Ask, Opening};
use pace::{Backoff, Pace};

/// After so many failures in a row to have the state, a run that is over ends without it.
const LAST_FOLD: u32 = 3;

/// How many events are kept room for while nothing comes.
const LIVE: usize = 8;

/// What to do next. Asking again without an answer gives the same again.
#[derive(Debug)]
pub(super) enum Step {
    Send(Frame),
    /// Read the log after the cursor, then call [`Machine::read`].
    Read,
    /// Fold the state up to this event at least, then call [`Machine::folded`].
    Fold(Seq),
    /// Ask the store how the run is, then call [`Machine::head`].
    AskHead,
    /// Wait for news of the log (then call [`Machine::woken`]) or for this instant.
    Wait(Instant),
    Close(Close),
}

/// What a read brought.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) entries: Vec<TailEntry>,
    /// There are more.
    pub(super) more: bool,
    /// The last event that is known of.
    pub(super) latest: Seq,
    /// The connection was too slow for what is kept in memory, and reads from the store now.
    pub(super) fell: bool,
}

/// A connection's place in the stream.
pub(super) struct Machine {
    ask: Ask,
    /// Control frames that come before anything else.
    queue: VecDeque<Frame>,
    /// Events that were read and not sent.
    pending: VecDeque<TailEntry>,
    cursor: Seq,
    /// The last event that we know of.
    latest: Seq,
    /// The last read brought all there was.
    caught_up: bool,
    /// There may be more by now.
    news: bool,
    /// `caught_up` was sent.
    announced: bool,
    /// A snapshot, and the event that it waits for.
    snapshot: Option<(Seq, Bytes)>,
    /// The state has changed since the last snapshot.
    changed: bool,
    snapshots: Pace,
    fold_backoff: Backoff,
    failed_folds: u32,
    heartbeat_due: Instant,
    /// The run has ended, as far as events tell.
    over: bool,
    ended_at: Option<Seq>,
    head_asked_at: Option<Seq>,
    retry_at: Option<Instant>,
    read_backoff: Backoff,
    closing: Option<Close>,
}

impl Machine {
    pub(super) fn new(ask: Ask, opening: Opening, retry_ms: u64, now: Instant) -> Self {
        let Opening { after, latest, over, reset } = opening;
        let mut queue = VecDeque::from([Frame::Opening { retry_ms }]);
        queue.extend(reset.map(Frame::Reset));
        Self {
            queue,
            pending: VecDeque::new(),
            cursor: after,
            latest,
            caught_up: false,
            news: false,
            announced: false,
            snapshot: None,
            changed: true,
            snapshots: Pace::new(now),
            fold_backoff: Backoff::new(),
            failed_folds: 0,
            heartbeat_due: now + ask.heartbeat,
            over,
            ended_at: None,
            head_asked_at: None,
            retry_at: None,
            read_backoff: Backoff::new(),
            closing: None,
            ask,
        }
    }

    /// How many events wait to be sent.
    pub(super) fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// The last event that was sent, or left out.
    pub(super) fn cursor(&self) -> Seq {
        self.cursor
    }

    /// What to do next.
    pub(super) fn step(&mut self, now: Instant) -> Step {
        loop {
            if let Some(frame) = self.queue.pop_front() {
                return Step::Send(frame);
            }
            if let Some(why) = self.closing {
                return Step::Close(why);
            }
            if now >= self.heartbeat_due {
                return Step::Send(self.heartbeat(now));
            }
            if let Some(frame) = self.due_snapshot(now) {
                return Step::Send(frame);
            }
            let Some(entry) = self.pending.pop_front() else { return self.idle(now) };
            if let Some(frame) = self.pass(entry) {
                return Step::Send(frame);
            }
        }
    }

    /// The snapshot that waits for this very place, after the word that history is over.
    fn due_snapshot(&mut self, now: Instant) -> Option<Frame> {
        let (version, _) = self.snapshot.as_ref()?;
        if *version > self.cursor {
            return None;
        }
        if !self.announced {
            return Some(self.announce());
        }
        let (_, frame) = self.snapshot.take()?;
        self.changed = false;
        self.snapshots.sent(now);
        Some(Frame::Snapshot(frame))
    }

    fn announce(&mut self) -> Frame {
        self.announced = true;
        // A long history needed more room than what comes will.
        self.pending.shrink_to(LIVE);
        Frame::CaughtUp(self.cursor)
    }

    /// What to do when nothing is there to be sent.
    fn idle(&mut self, now: Instant) -> Step {
        if let Some(at) = self.retry_at.filter(|at| now < *at) {
            return Step::Wait(at.min(self.heartbeat_due));
        }
        if self.news || !self.caught_up {
            return Step::Read;
        }
        let wants_snapshot = self.ask.include_snapshot && self.changed && self.snapshot.is_none();
        if wants_snapshot && now >= self.snapshots.due() {
            return Step::Fold(self.cursor);
        }
        // The first snapshot is had before this, so that no event comes in between.
        if !self.announced && self.snapshot.is_none() {
            return Step::Send(self.announce());
        }
        let asked = self.head_asked_at == Some(self.cursor) || self.ended_at == Some(self.cursor);
        let settled =
            self.snapshot.is_none() && (!wants_snapshot || self.failed_folds >= LAST_FOLD);
        if self.over && settled && !asked {
            return Step::AskHead;
        }
        let until = if wants_snapshot { self.snapshots.due() } else { self.heartbeat_due };
        Step::Wait(until.min(self.heartbeat_due))
    }

    /// Moves the cursor over an event; the frame is `None` when the client does not want it.
    fn pass(&mut self, entry: TailEntry) -> Option<Frame> {
        self.cursor = entry.seq;
        self.latest = self.latest.max(entry.seq);
        self.changed = true;
        if entry.event_type == EventType::SessionStreamGap {
            self.queue.extend(gap_of(&entry));
        }
        self.over |= matches!(
            entry.event_type,
            EventType::RunCompleted | EventType::RunFailed | EventType::RunCancelled
        );
        let wanted = self.ask.types.is_empty() || self.ask.types.contains(&entry.event_type);
        wanted.then(|| match entry {
            TailEntry::Read(entry) => Frame::Event(entry),
            TailEntry::Kept(entry) => Frame::Shared(entry),
        })
    }

    fn heartbeat(&mut self, now: Instant) -> Frame {
        self.heartbeat_due = now + self.ask.heartbeat;
        // A second look, should the store have been behind the log.
        self.head_asked_at = None;
        let at_end = self.caught_up && self.announced && self.pending.is_empty();
        Frame::Heartbeat { id: at_end.then_some(self.cursor), latest: self.latest }
    }

    /// There is news of the log.
    pub(super) fn woken(&mut self) {
        self.news = true;
    }

    /// These events follow.
    pub(super) fn read(&mut self, page: Page) {
        let Page { entries, more, latest, fell } = page;
        self.retry_at = None;
        self.read_backoff.reset();
        self.news = false;
        self.caught_up = !more;
        self.latest = self.latest.max(latest);
        if fell && self.announced {
            self.queue.push_back(Frame::Lagged { from: self.cursor, latest: self.latest });
        }
        self.pending.extend(entries);
    }

    /// The state is folded up to `version`; `frame` is it.
    pub(super) fn folded(&mut self, version: Seq, frame: Bytes) {
        self.fold_backoff.reset();
        self.failed_folds = 0;
        // Events that we have not read are in it: they are sent first.
        self.news |= version > self.cursor;
        self.snapshot = Some((version, frame));
    }

    /// The state cannot be had now. Events go on; the snapshot is tried again later.
    pub(super) fn fold_failed(&mut self, now: Instant) {
        self.failed_folds += 1;
        self.snapshots.delay(now + self.fold_backoff.wait());
        self.queue.push_back(database_fault());
    }

    /// The store's word on the run.
    pub(super) fn head(&mut self, head: &Head) {
        let Head { state, last_seq, hash, imported: _ } = *head;
        self.head_asked_at = Some(self.cursor);
        self.latest = self.latest.max(last_seq);
        if last_seq > self.cursor {
            self.news = true;
        } else if last_seq == self.cursor && head.is_over() {
            self.ended_at = Some(self.cursor);
            self.queue.push_back(Frame::End { state, seq: self.cursor, hash });
            self.closing = self.ask.close_on_end.then_some(Close::Ended);
        }
    }

    /// The database did not answer: the client is told, and it is asked again later.
    pub(super) fn failed(&mut self, now: Instant) {
        self.retry_at = Some(now + self.read_backoff.wait());
        self.queue.push_back(database_fault());
    }

    /// The run is not there any more.
    pub(super) fn gone(&mut self) {
        self.queue.push_back(Frame::Error {
            code: "RUN_DELETED",
            message: "the run was deleted",
            retryable: false,
        });
        self.closing = Some(Close::Deleted);
    }
}

pub(super) fn database_fault() -> Frame {
    Frame::Error {
        code: "SERVICE_UNAVAILABLE",
        message: "the database does not answer; the stream goes on when it does",
        retryable: true,
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
