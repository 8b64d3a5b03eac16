//! Which frame comes next. No I/O and no clock: the pump does what [`Machine::step`] says and
//! tells it what came of it, so that every order of things is a row in a table.
//!
//! **Invariant:** events are sent in order and each once; `caught_up` comes once, after the
//! backlog; a snapshot comes exactly when the cursor is what the snapshot has folded; `end` comes
//! when the store says that the run is over and the cursor is its last event.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use control_plane_domain::{EventType, Seq};
use control_plane_storage::model::{Head, LogEntry};

use super::frame::{Frame, gap_of};
use super::pump::Close;
use super::request::{Ask, Opening};

/// The time between two snapshots: at most four a second.
const SNAPSHOT_EVERY: Duration = Duration::from_millis(250);
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(8);

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

/// A connection's place in the stream.
pub(super) struct Machine {
    ask: Ask,
    /// Control frames that come before anything else.
    queue: VecDeque<Frame>,
    /// Events that were read and not sent.
    pending: VecDeque<Arc<LogEntry>>,
    cursor: Seq,
    /// The last event that we know of.
    latest: Seq,
    caught_up: bool,
    announced: bool,
    /// A snapshot, and the event that it waits for.
    snapshot: Option<(Seq, Bytes)>,
    /// The state has changed since the last snapshot.
    changed: bool,
    snapshot_due: Instant,
    heartbeat_due: Instant,
    /// The run has ended, as far as events tell.
    over: bool,
    ended_at: Option<Seq>,
    head_asked_at: Option<Seq>,
    retry_at: Option<Instant>,
    retry_after: Duration,
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
            announced: false,
            snapshot: None,
            changed: true,
            snapshot_due: now,
            heartbeat_due: now + ask.heartbeat,
            over,
            ended_at: None,
            head_asked_at: None,
            retry_at: None,
            retry_after: FIRST_RETRY,
            closing: None,
            ask,
        }
    }

    /// How many events wait to be sent.
    pub(super) fn waiting(&self) -> usize {
        self.pending.len()
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
            if let Some((_, frame)) = self.snapshot.take_if(|(version, _)| *version <= self.cursor)
            {
                self.changed = false;
                self.plan_snapshot(now);
                return Step::Send(Frame::Snapshot(frame));
            }
            let Some(entry) = self.pending.pop_front() else { return self.idle(now) };
            if let Some(frame) = self.pass(entry) {
                return Step::Send(frame);
            }
        }
    }

    /// What to do when nothing is there to be sent.
    fn idle(&mut self, now: Instant) -> Step {
        if let Some(at) = self.retry_at.filter(|at| now < *at) {
            return Step::Wait(at.min(self.heartbeat_due));
        }
        if !self.caught_up {
            return Step::Read;
        }
        if !self.announced {
            self.announced = true;
            return Step::Send(Frame::CaughtUp(self.cursor));
        }
        let wants_snapshot = self.ask.include_snapshot && self.changed && self.snapshot.is_none();
        if wants_snapshot && now >= self.snapshot_due {
            return Step::Fold(self.cursor);
        }
        let settled = !wants_snapshot && self.snapshot.is_none();
        let asked = self.head_asked_at == Some(self.cursor) || self.ended_at == Some(self.cursor);
        if self.over && settled && !asked {
            return Step::AskHead;
        }
        Step::Wait(if wants_snapshot {
            self.heartbeat_due.min(self.snapshot_due)
        } else {
            self.heartbeat_due
        })
    }

    /// Moves the cursor over an event; the frame is `None` when the client does not want it.
    fn pass(&mut self, entry: Arc<LogEntry>) -> Option<Frame> {
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
        wanted.then_some(Frame::Event(entry))
    }

    fn heartbeat(&mut self, now: Instant) -> Frame {
        self.heartbeat_due = now + self.ask.heartbeat;
        // A second look, should the store have been behind the log.
        self.head_asked_at = None;
        let at_end = self.caught_up && self.announced && self.pending.is_empty();
        Frame::Heartbeat { id: at_end.then_some(self.cursor), latest: self.latest }
    }

    /// After one at its due time the next is due a period later, so that the connections of a run
    /// ask for the same snapshot at the same time.
    fn plan_snapshot(&mut self, now: Instant) {
        let regular = self.snapshot_due + SNAPSHOT_EVERY;
        self.snapshot_due = if now < regular { regular } else { now + SNAPSHOT_EVERY };
    }

    /// There is news of the log.
    pub(super) fn woken(&mut self) {
        self.caught_up = false;
    }

    /// These events follow; `limit` were asked for, so fewer are all there is.
    pub(super) fn read(&mut self, entries: Vec<Arc<LogEntry>>, limit: usize) {
        self.retry_at = None;
        self.retry_after = FIRST_RETRY;
        self.caught_up = entries.len() < limit;
        self.pending.extend(entries);
    }

    /// The state is folded up to `version`; `frame` is it.
    pub(super) fn folded(&mut self, version: Seq, frame: Bytes) {
        if version > self.cursor {
            self.caught_up = false;
        }
        self.snapshot = Some((version, frame));
    }

    /// The state cannot be had now. Events go on; the snapshot is tried again later.
    pub(super) fn fold_failed(&mut self, now: Instant) {
        self.snapshot_due = now + self.next_retry();
        self.queue.push_back(database_fault());
    }

    /// The store's word on the run.
    pub(super) fn head(&mut self, head: &Head) {
        let Head { state, last_seq, hash } = *head;
        self.head_asked_at = Some(self.cursor);
        self.latest = self.latest.max(last_seq);
        if last_seq > self.cursor {
            self.caught_up = false;
        } else if state.is_terminal() {
            self.ended_at = Some(self.cursor);
            self.queue.push_back(Frame::End { state, seq: self.cursor, hash });
            self.closing = self.ask.close_on_end.then_some(Close::Ended);
        }
    }

    /// The database did not answer: the client is told, and it is asked again later.
    pub(super) fn failed(&mut self, now: Instant) {
        self.retry_at = Some(now + self.next_retry());
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

    fn next_retry(&mut self) -> Duration {
        let wait = self.retry_after;
        self.retry_after = (wait * 2).min(LAST_RETRY);
        wait
    }
}

fn database_fault() -> Frame {
    Frame::Error {
        code: "SERVICE_UNAVAILABLE",
        message: "the database does not answer; the stream goes on when it does",
        retryable: true,
    }
}

#[cfg(test)]
mod tests;
