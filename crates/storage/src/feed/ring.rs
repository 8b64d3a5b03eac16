//! The end of the feed, kept in memory for all who follow it.
//!
//! **Invariant:** what is retained between `start` and `end` is here, all of it and in order. It is
//! filled only with pages that were read from the database one after the other: commits are
//! published in another order than that of their positions.

use std::collections::VecDeque;
use std::sync::Arc;

use control_plane_domain::Position;

use super::filter::{FeedEntry, FeedFilter};
use crate::config::TailLimits;
use crate::tail::TailEntry;

/// The last events of the feed.
pub(super) struct Ring {
    events: VecDeque<FeedEntry>,
    bytes: usize,
    start: Position,
    end: Position,
    limits: TailLimits,
}

/// What a ring says to a cursor.
#[derive(Debug)]
pub(super) enum Answer {
    /// The next events, and the cursor after them. `rest` when the ring holds more.
    Events { entries: Vec<TailEntry>, cursor: Position, rest: bool },
    /// The cursor is at the end, or beyond it.
    AtEnd,
    /// The cursor is before what is kept: the database has it, up to here at least.
    Before(Position),
}

impl Ring {
    /// An empty one after the last position.
    pub(super) fn new(end: Position, limits: TailLimits) -> Self {
        Self { events: VecDeque::new(), bytes: 0, start: end, end, limits }
    }

    pub(super) fn end(&self) -> Position {
        self.end
    }

    /// Takes the page that follows `end`.
    pub(super) fn extend(&mut self, page: Vec<FeedEntry>) {
        for event in page {
            self.end = event.entry.position;
            self.bytes += event.bytes();
            self.events.push_back(event);
            while self.events.len() > 1 && self.is_too_large() {
                if let Some(oldest) = self.events.pop_front() {
                    self.bytes -= oldest.bytes();
                    self.start = oldest.entry.position;
                }
            }
        }
    }

    fn is_too_large(&self) -> bool {
        let TailLimits { events, bytes } = self.limits;
        self.events.len() > events || self.bytes > bytes
    }

    /// At most `limit` events after a cursor that pass the filter.
    pub(super) fn answer(&self, cursor: Position, limit: usize, filter: &FeedFilter) -> Answer {
        if cursor >= self.end {
            return Answer::AtEnd;
        }
        if cursor < self.start {
            return Answer::Before(self.end);
        }
        let first = self.events.partition_point(|event| event.entry.position <= cursor);
        let mut entries: Vec<TailEntry> = Vec::new();
        for event in self.events.iter().skip(first) {
            if !filter.takes(event) {
                continue;
            }
            if entries.len() == limit {
                let cursor = entries.last().map_or(cursor, |entry| entry.position);
                return Answer::Events { entries, cursor, rest: true };
            }
            entries.push(TailEntry::Kept(Arc::clone(&event.entry)));
        }
        Answer::Events { entries, cursor: self.end, rest: false }
    }
}

#[cfg(test)]
mod tests;
