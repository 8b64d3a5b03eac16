//! What was heard and is not recorded yet, and when nothing could be heard.
//!
//! **Invariant:** of any time after the first, the ear knows what was said, or that it does not
//! know: a signal that it has no room for and a watch that is down are gaps. It is bounded in number
//! and bytes, and nothing in it waits.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::TimeDelta;
use control_plane_domain::Timestamp;
use control_plane_domain::envelope::SignalSeen;
use control_plane_storage::{SignalGap, SignalWatch};
use tokio::sync::Notify;

/// Most signals that wait here, and most bytes of them.
const MAX_SIGNALS: usize = 20_000;
const MAX_BYTES: usize = 32 * 1024 * 1024;
/// Most gaps that wait here; beyond it they run into one.
const MAX_GAPS: usize = 1000;
/// What a signal takes besides its texts and its payload.
const OVERHEAD: usize = 256;
/// How long an instance without the duty remembers what it heard. The one that has it is found to
/// be gone much sooner.
const REMEMBERED: TimeDelta = TimeDelta::seconds(60);
/// After this long without an answer a connection counts as broken (the client's pings), so this is
/// how long before a break nothing may have come through.
const SILENT: TimeDelta = TimeDelta::seconds(30);
/// How far the clocks of two instances may differ. What is recorded twice for it is dropped.
const SKEW: TimeDelta = TimeDelta::seconds(5);

/// Nobody watched.
pub(super) const AWAY: &str = "away";
/// The watch broke.
const BROKEN: &str = "broken";
/// The runtime cut the watch, because we were slow.
const LAGGED: &str = "lagged";
/// There was no more room for what the database did not take.
const OVERFLOW: &str = "overflow";

/// How the watch came to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// In order: everything before was delivered.
    Ended,
    /// The runtime dropped signals after the last one that it delivered.
    Lagged,
    /// The connection is gone, perhaps for a while already.
    Broken,
    /// We leave.
    Left,
}

/// See the module.
pub(crate) struct Ear {
    inner: Mutex<Inner>,
    news: Notify,
    look: Notify,
}

/// A signal, and when it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) at: Timestamp,
    pub(super) seen: SignalSeen,
}

/// What is to be recorded next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Work {
    pub(super) items: Vec<Item>,
    pub(super) gaps: Vec<SignalGap>,
    /// What was said before is in here, or recorded already.
    pub(super) heard_until: Option<Timestamp>,
    /// Whether more waits.
    pub(super) more: bool,
    /// How many of the gaps have an end.
    closed: usize,
    /// Where the open gap begins that is recorded.
    told: Option<Timestamp>,
}

impl Work {
    /// The gaps that nobody knows of yet.
    pub(super) fn new_gaps(&self) -> impl Iterator<Item = &SignalGap> {
        let is_one = |gap: &SignalGap| gap.to.is_none_or(|to| to > gap.from);
        self.gaps.iter().filter(move |gap| is_one(gap) && self.told != Some(gap.from))
    }
}

struct Inner {
    /// Whether somebody records: then nothing is forgotten that was not recorded.
    recording: bool,
    heard: VecDeque<Item>,
    bytes: usize,
    /// Everything said before this may be forgotten.
    forgotten: Timestamp,
    /// When nothing was heard, as far as it is not recorded yet.
    missed: VecDeque<SignalGap>,
    /// Since when the watch is down, and why.
    down: Option<(Timestamp, &'static str)>,
    /// Since when there is no room.
    full: Option<Timestamp>,
    /// Where the open gap begins that is recorded.
    told: Option<Timestamp>,
    /// When the watch last gave a sign of life.
    sign: Timestamp,
    /// Whether the watch was tried at all.
    tried: bool,
}

impl Default for Ear {
    fn default() -> Self {
        let never = Timestamp::MIN_UTC;
        Self {
            inner: Mutex::new(Inner {
                recording: false,
                heard: VecDeque::new(),
                bytes: 0,
                forgotten: never,
                missed: VecDeque::new(),
                down: Some((never, AWAY)),
                full: None,
                told: None,
                sign: never,
                tried: false,
            }),
            news: Notify::new(),
            look: Notify::new(),
        }
    }
}

/// What the reader tells.
impl Ear {
    /// The watch is open.
    pub(super) fn opened(&self, at: Timestamp) {
        let mut inner = self.lock();
        inner.tried = true;
        inner.sign = at;
        if let Some((from, reason)) = inner.down.take() {
            inner.miss(from, at, reason);
        }
        drop(inner);
        self.news.notify_one();
    }

    /// The watch is down, or still is.
    pub(super) fn closed(&self, at: Timestamp, how: Closed) {
        let mut inner = self.lock();
        inner.tried = true;
        if inner.down.is_none() {
            let (from, reason) = match how {
                Closed::Ended => (at, BROKEN),
                Closed::Left => (at, AWAY),
                Closed::Lagged => (inner.sign, LAGGED),
                Closed::Broken => (inner.sign.max(before(at, SILENT)), BROKEN),
            };
            inner.down = Some((from.min(at), reason));
        }
        drop(inner);
        self.news.notify_one();
    }

    /// A signal came.
    pub(super) fn heard(&self, at: Timestamp, seen: SignalSeen) {
        let mut inner = self.lock();
        inner.sign = at;
        let size = size(&seen);
        if inner.recording && !inner.has_room(size) {
            inner.full.get_or_insert(at);
            drop(inner);
            metrics::counter!("macp_signals_total", "outcome" => "overflow").increment(1);
            return;
        }
        if let Some(since) = inner.full.take() {
            inner.miss(since, at, OVERFLOW);
        }
        inner.bytes += size;
        inner.heard.push_back(Item { at, seen });
        inner.forget(at);
        drop(inner);
        self.news.notify_one();
    }
}

/// What the recorder asks.
impl Ear {
    /// Waits until there may be something to record.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    /// Waits until a run is new.
    pub(super) async fn asked_to_look(&self) {
        self.look.notified().await;
    }

    /// A run is new: signals may be held for it.
    pub(crate) fn look(&self) {
        self.look.notify_one();
    }

    /// Whether it is known by now if there is a watch to be had.
    pub(super) fn has_tried(&self) -> bool {
        self.lock().tried
    }

    /// What was heard here is recorded from now on, beginning where `watch` ended.
    pub(super) fn take_over(&self, watch: &SignalWatch, now: Timestamp) {
        self.lock().take_over(watch, now);
        self.news.notify_one();
    }

    /// Somebody else records.
    pub(super) fn step_down(&self, now: Timestamp) {
        let mut inner = self.lock();
        inner.recording = false;
        inner.told = None;
        if let Some(since) = inner.full.take() {
            inner.miss(since, now, OVERFLOW);
        }
        inner.forget(now);
    }

    /// What to record next: at most so many signals, and so many bytes of them.
    pub(super) fn work(&self, most: usize, most_bytes: usize, now: Timestamp) -> Work {
        self.lock().work(most, most_bytes, now)
    }

    /// It is recorded.
    pub(super) fn done(&self, work: &Work) {
        let mut inner = self.lock();
        for _ in &work.items {
            if let Some(item) = inner.heard.pop_front() {
                inner.bytes -= size(&item.seen);
            }
        }
        inner.missed.drain(..work.closed);
        let open = work.gaps.iter().find(|gap| gap.to.is_none());
        inner.told = open.map(|gap| gap.from).or(inner.told);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it holds this lock.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn has_room(&self, size: usize) -> bool {
        self.heard.len() < MAX_SIGNALS && self.bytes + size <= MAX_BYTES
    }

    fn miss(&mut self, from: Timestamp, to: Timestamp, reason: &str) {
        if from >= to {
            return;
        }
        if self.missed.len() >= MAX_GAPS
            && let Some(last) = self.missed.back_mut()
        {
            last.to = Some(to);
            return;
        }
        self.missed.push_back(SignalGap { from, to: Some(to), reason: reason.to_owned() });
    }

    /// Without the duty, only the last minute is kept, and of that what there is room for.
    fn forget(&mut self, now: Timestamp) {
        if self.recording {
            return;
        }
        let oldest = before(now, REMEMBERED);
        while let Some(item) = self.heard.front()
            && (item.at < oldest || !self.has_room(0))
        {
            self.forgotten = self.forgotten.max(item.at);
            if let Some(item) = self.heard.pop_front() {
                self.bytes -= size(&item.seen);
            }
        }
        self.forgotten = self.forgotten.max(oldest);
        let forgotten = self.forgotten;
        self.missed.retain(|gap| gap.to.is_none_or(|to| to > forgotten));
    }

    fn take_over(&mut self, watch: &SignalWatch, now: Timestamp) {
        // Before anybody ever watched there was nothing to miss.
        let recorded = watch.last_heard_at.unwrap_or(now);
        let since = watch.open.as_ref().map_or(recorded, |open| open.from.min(recorded));
        while let Some(item) = self.heard.front()
            && item.at < before(since, SKEW)
        {
            if let Some(item) = self.heard.pop_front() {
                self.bytes -= size(&item.seen);
            }
        }
        let mut missed = std::mem::take(&mut self.missed);
        let forgotten = self.forgotten;
        self.miss(since, forgotten, AWAY);
        for gap in &mut missed {
            gap.from = gap.from.max(since);
        }
        missed.retain(|gap| gap.to.is_none_or(|to| gap.from < to));
        self.missed.append(&mut missed);
        if let Some((from, _)) = &mut self.down {
            *from = (*from).max(since);
        }
        if let Some(open) = &watch.open {
            self.resolve(open);
        }
        self.recording = true;
        self.told = None;
    }

    /// What became of a gap that another instance left open: it is ours as well, for the same
    /// reason, or it was none.
    fn resolve(&mut self, open: &SignalGap) {
        let mut ours = false;
        for gap in self.missed.iter_mut().filter(|gap| gap.from == open.from) {
            gap.reason.clone_from(&open.reason);
            ours = true;
        }
        ours |= self.down.is_some_and(|(from, _)| from == open.from);
        if !ours {
            self.missed.push_front(SignalGap { to: Some(open.from), ..open.clone() });
        }
    }

    fn work(&mut self, most: usize, most_bytes: usize, now: Timestamp) -> Work {
        if self.has_room(0)
            && let Some(since) = self.full.take()
        {
            self.miss(since, now, OVERFLOW);
        }
        let (mut items, mut bytes) = (Vec::new(), 0);
        for item in self.heard.iter().take(most) {
            if bytes >= most_bytes {
                break;
            }
            bytes += size(&item.seen);
            items.push(item.clone());
        }
        let more = items.len() < self.heard.len();
        let mut gaps: Vec<SignalGap> = self.missed.iter().cloned().collect();
        let closed = gaps.len();
        if let Some((from, reason)) = self.down
            && self.told != Some(from)
        {
            gaps.push(SignalGap { from, to: None, reason: reason.to_owned() });
        }
        let heard_until = if more {
            items.last().map(|item| item.at)
        } else {
            // What is missing since then has no end yet, so no gap says it.
            let known = [self.down.map(|(from, _)| from), self.full].into_iter().flatten().min();
            Some(known.unwrap_or(now))
        };
        Work { items, gaps, heard_until, more, closed, told: self.told }
    }
}

fn before(at: Timestamp, by: TimeDelta) -> Timestamp {
    at.checked_sub_signed(by).unwrap_or(at)
}

fn size(seen: &SignalSeen) -> usize {
    let envelope = &seen.envelope;
    let texts = [
        &envelope.macp_version,
        &envelope.mode,
        &envelope.message_type,
        &envelope.message_id,
        &envelope.session_id,
        &envelope.sender,
    ];
    OVERHEAD + envelope.payload.len() + texts.iter().map(|text| text.len()).sum::<usize>()
}

#[cfg(test)]
mod tests;
