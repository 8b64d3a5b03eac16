//! An open stream, as the figures see it.
//!
//! **Invariant:** it is counted while it lives, and its end is counted once, with its reason.

use super::pump::Close;

/// One open stream.
pub(super) struct Open {
    frames: metrics::Counter,
    bytes: metrics::Counter,
    closed: Option<Close>,
}

impl Open {
    /// Counts a stream of this kind: `run`, `feed` or `replay`.
    pub(super) fn count(kind: &'static str) -> Self {
        metrics::gauge!("active_sse_connections").increment(1.0);
        Self {
            frames: metrics::counter!("sse_frames_total", "stream" => kind),
            bytes: metrics::counter!("sse_bytes_total", "stream" => kind),
            closed: None,
        }
    }

    pub(super) fn sent(&self, frames: u64, bytes: usize) {
        self.frames.increment(frames);
        self.bytes.increment(u64::try_from(bytes).unwrap_or(u64::MAX));
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
        metrics::gauge!("active_sse_connections").decrement(1.0);
        let why = self.closed.unwrap_or(Close::Left).as_str();
        metrics::counter!("sse_closes_total", "reason" => why).increment(1);
    }
}
