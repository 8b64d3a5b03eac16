//! An open stream, as the figures see it.
//!
//! **Invariant:** it is counted while it lives, and its end is counted once, with its reason.

use std::time::Instant;

use super::limits::Admission;
use super::pump::Close;

/// One open stream.
pub(super) struct Open {
    kind: &'static str,
    frames: metrics::Counter,
    bytes: metrics::Counter,
    lag: metrics::Histogram,
    /// When it was opened; nothing was sent since.
    unused_since: Option<Instant>,
    closed: Option<Close>,
    /// Freed with the stream.
    _admission: Admission,
}

impl Open {
    /// Counts a stream of this kind: `run`, `feed` or `replay`.
    pub(super) fn count(kind: &'static str, admission: Admission) -> Self {
        metrics::gauge!("active_sse_connections", "stream" => kind).increment(1.0);
        Self {
            kind,
            frames: metrics::counter!("sse_frames_total", "stream" => kind),
            bytes: metrics::counter!("sse_bytes_total", "stream" => kind),
            lag: metrics::histogram!("sse_lag_events", "stream" => kind),
            unused_since: Some(Instant::now()),
            closed: None,
            _admission: admission,
        }
    }

    /// How many events it has to send before it is caught up.
    pub(super) fn backlog(&self, events: i64) {
        let events = u32::try_from(events.max(0)).unwrap_or(u32::MAX);
        metrics::histogram!("sse_backlog_events", "stream" => self.kind).record(events);
    }

    /// These frames go out now, the first one besides the greeting among them.
    pub(super) fn sent(&mut self, frames: u64, bytes: usize) {
        self.frames.increment(frames);
        self.bytes.increment(u64::try_from(bytes).unwrap_or(u64::MAX));
        if frames > 0
            && let Some(opened) = self.unused_since.take()
        {
            metrics::histogram!("sse_first_frame_seconds", "stream" => self.kind)
                .record(opened.elapsed());
        }
    }

    /// It sends events while the log has this many more.
    pub(super) fn lags(&self, events: i64) {
        self.lag.record(u32::try_from(events.max(0)).unwrap_or(u32::MAX));
    }

    /// The stream is to end after what was sent.
    pub(super) fn close(&mut self, why: Close) {
        self.closed.get_or_insert(why);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closed.is_some()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::gauge!("active_sse_connections", "stream" => self.kind).decrement(1.0);
        let why = self.closed.unwrap_or(Close::Left).as_str();
        metrics::counter!("sse_closes_total", "stream" => self.kind, "reason" => why).increment(1);
    }
}

/// A client was told by a 204 that there is nothing more.
pub(super) fn count_no_content(kind: &'static str) {
    metrics::counter!("sse_no_content_total", "stream" => kind).increment(1);
}
