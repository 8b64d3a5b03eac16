//! Which frame of a replay comes next, and when. No I/O and no clock: the stream does what
//! [`Machine::step`] says and tells it what came of it.
//!
//! **Invariant:** events are sent in order and each once; a timed replay waits before an event as
//! long as was waited when it happened, divided by its speed, and never longer than it may; `end`
//! comes after the last event, and then nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use control_plane_domain::event::ChainHash;
use control_plane_domain::{EventType, RunState, Seq, Timestamp};
use control_plane_storage::model::LogEntry;

use super::super::frame::{Frame, gap_of};
use super::super::pump::Close;
use super::super::request::Ask;
use super::plan::Opening;
use crate::replay::{Mode, Options};

/// Most events that are read at once.
const MAX_READ: usize = 512;
/// The same for a replay that waits between them: what was read is held meanwhile.
const MAX_READ_TIMED: usize = 16;
/// How far a timed replay may be behind its own time and catch up: timers and clients are late by
/// a little, again and again.
const CATCH_UP: Duration = Duration::from_millis(250);
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(8);

/// What to do next. Asking again without an answer gives the same again.
#[derive(Debug)]
pub(super) enum Step {
    Send(Frame),
    /// Read the log, at most so many events, then call [`Machine::read`].
    Read {
        after: Seq,
        limit: usize,
    },
    /// Ask the store how the run is, then call [`Machine::head`].
    AskHead,
    Wait(Instant),
    Close(Close),
}

/// How long a replay pauses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// `None` when it does not.
    speed: Option<f64>,
    max_delay: Duration,
}

impl Pace {
    pub(super) fn new(options: &Options, max_delay: Duration) -> Self {
        let speed = match options.mode {
            Mode::Timed => Some(options.speed),
            Mode::Instant | Mode::Step => None,
        };
        Self { speed, max_delay }
    }

    /// The pause between two events of these times.
    fn delay(&self, from: Timestamp, to: Timestamp) -> Duration {
        let Some(speed) = self.speed else { return Duration::ZERO };
        let recorded = (to - from).to_std().unwrap_or_default();
        Duration::try_from_secs_f64(recorded.as_secs_f64() / speed)
            .map_or(self.max_delay, |delay| delay.min(self.max_delay))
    }
}

/// A connection's place in the replay.
pub(super) struct Machine {
    types: Vec<EventType>,
    heartbeat: Duration,
    pace: Pace,
    /// Control frames that come before anything else.
    queue: VecDeque<Frame>,
    /// Events that were read and not sent.
    pending: VecDeque<Arc<LogEntry>>,
    cursor: Seq,
    last: Seq,
    latest: Seq,
    /// The chain's head at the cursor, where that is known.
    hash: Option<ChainHash>,
    /// The time of the event that was sent last, and when it was due here.
    previous: Option<(Timestamp, Instant)>,
    heartbeat_due: Instant,
    /// Events were not where they should be.
    missing: bool,
    retry_at: Option<Instant>,
    retry_after: Duration,
    closing: Option<Close>,
}

impl Machine {
    pub(super) fn new(ask: Ask, pace: Pace, opening: Opening, retry_ms: u64, now: Instant) -> Self {
        let Opening { after, last, latest, reset } = opening;
        let mut queue = VecDeque::from([Frame::Opening { retry_ms }]);
        queue.extend(reset.map(Frame::Reset));
        Self {
            types: ask.types,
            heartbeat: ask.heartbeat,
            pace,
            queue,
            pending: VecDeque::new(),
            cursor: after,
            last,
            latest,
            hash: (last == 0).then_some(ChainHash::EMPTY),
            previous: None,
            heartbeat_due: now + ask.heartbeat,
            missing: false,
            retry_at: None,
            retry_after: FIRST_RETRY,
            closing: None,
        }
    }

    /// Whether many frames are about to come.
    pub(super) fn is_busy(&self) -> bool {
        self.pace.speed.is_none() && self.pending.len() > 8
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
                self.heartbeat_due = now + self.heartbeat;
                return Step::Send(Frame::Heartbeat { id: Some(self.cursor), latest: self.latest });
            }
            let Some(entry) = self.pending.front() else { return self.idle(now) };
            if !self.types.is_empty() && !self.types.contains(&entry.event_type) {
                self.pass();
                continue;
            }
            let (ts, due) = (entry.ts, self.due(entry, now));
            if now < due {
                return Step::Wait(due.min(self.heartbeat_due));
            }
            if let Some(entry) = self.pass() {
                let behind = now.checked_sub(CATCH_UP).unwrap_or(now);
                self.previous = Some((ts, due.max(behind)));
                return Step::Send(Frame::Event(entry));
            }
        }
    }

    /// What to do when nothing is there to be sent.
    fn idle(&mut self, now: Instant) -> Step {
        if let Some(at) = self.retry_at.filter(|at| now < *at) {
            return Step::Wait(at.min(self.heartbeat_due));
        }
        if self.missing {
            return Step::AskHead;
        }
        if self.cursor < self.last {
            let most = if self.pace.speed.is_some() { MAX_READ_TIMED } else { MAX_READ };
            let rest = usize::try_from(self.last - self.cursor).unwrap_or(usize::MAX);
            return Step::Read { after: self.cursor, limit: rest.min(most) };
        }
        if self.hash.is_none() {
            // Nothing was replayed, and `end` tells the hash all the same.
            return Step::Read { after: self.last - 1, limit: 1 };
        }
        Step::AskHead
    }

    /// When an event is to be sent.
    fn due(&self, entry: &LogEntry, now: Instant) -> Instant {
        match self.previous {
            Some((ts, at)) => at + self.pace.delay(ts, entry.ts),
            None => now,
        }
    }

    /// Moves the cursor over the next event.
    fn pass(&mut self) -> Option<Arc<LogEntry>> {
        let entry = self.pending.pop_front()?;
        self.cursor = entry.seq;
        self.hash = Some(entry.hash);
        if entry.event_type == EventType::SessionStreamGap {
            self.queue.extend(gap_of(&entry));
        }
        Some(entry)
    }

    /// What was read.
    pub(super) fn read(&mut self, entries: impl IntoIterator<Item = Arc<LogEntry>>) {
        self.retry_at = None;
        let mut next = self.cursor + 1;
        let mut of_use = false;
        for entry in entries {
            if entry.seq == next && entry.seq <= self.last {
                next += 1;
                self.pending.push_back(entry);
            } else if entry.seq == self.last && self.cursor == self.last {
                self.hash = Some(entry.hash);
            } else {
                continue;
            }
            of_use = true;
        }
        if of_use {
            self.retry_after = FIRST_RETRY;
        }
        self.missing = !of_use;
    }

    /// The store's word on the run.
    pub(super) fn head(&mut self, state: RunState, now: Instant) {
        if std::mem::take(&mut self.missing) {
            return self.failed(now);
        }
        let hash = self.hash.unwrap_or(ChainHash::EMPTY);
        self.queue.push_back(Frame::End { state, seq: self.last, hash });
        self.closing = Some(Close::Ended);
    }

    /// The database did not answer: the client is told, and it is asked again later.
    pub(super) fn failed(&mut self, now: Instant) {
        self.retry_at = Some(now + self.retry_after);
        self.retry_after = (self.retry_after * 2).min(LAST_RETRY);
        self.queue.push_back(Frame::Error {
            code: "SERVICE_UNAVAILABLE",
            message: "the database does not answer; the replay goes on when it does",
            retryable: true,
        });
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

#[cfg(test)]
mod tests;
