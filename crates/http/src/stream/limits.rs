//! How many streams may be open: with one key, and in all.
//!
//! **Invariant:** a stream is counted from before it opens until it is dropped, however it ends, so
//! the counts never drift; and a client that is refused is told so, rather than left waiting for a
//! connection that nobody takes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix_web::{HttpMessage, HttpRequest};

use crate::auth::{Caller, KeyMark};
use crate::context::ApiContext;
use crate::error::{ApiError, StreamLimit};
use crate::tickets::{Held, Shown};

/// The streams that are open.
pub(crate) struct Limits(Arc<Mutex<Counts>>);

struct Counts {
    max: usize,
    max_per_key: usize,
    all: usize,
    by_key: HashMap<KeyMark, usize>,
}

impl Limits {
    pub(crate) fn new(max: usize, max_per_key: usize) -> Self {
        let counts = Counts { max, max_per_key, all: 0, by_key: HashMap::new() };
        Self(Arc::new(Mutex::new(counts)))
    }

    /// Lowers the limit to what the system has room for.
    pub(crate) fn cap(&self, room: usize) {
        let mut counts = lock(&self.0);
        if room < counts.max {
            tracing::info!(
                "There is room for {room} streams, not for {}: more open files would allow them",
                counts.max
            );
            counts.max = room;
        }
    }

    /// Counts one more stream of this key.
    fn take(&self, key: KeyMark) -> Result<Permit, StreamLimit> {
        let mut counts = lock(&self.0);
        if counts.all >= counts.max {
            return Err(StreamLimit::InAll);
        }
        let of_key = counts.by_key.get(&key).copied().unwrap_or_default();
        if of_key >= counts.max_per_key {
            return Err(StreamLimit::PerKey);
        }
        counts.all += 1;
        counts.by_key.insert(key, of_key + 1);
        Ok(Permit { counts: Arc::clone(&self.0), key })
    }
}

/// One stream that may be open.
struct Permit {
    counts: Arc<Mutex<Counts>>,
    key: KeyMark,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        counts.all = counts.all.saturating_sub(1);
        let of_key = counts.by_key.get(&self.key).copied().unwrap_or_default();
        if of_key > 1 {
            counts.by_key.insert(self.key, of_key - 1);
        } else {
            counts.by_key.remove(&self.key);
        }
    }
}

/// What a stream holds while it is open, and what is freed with it.
pub(super) struct Admission {
    // First, so that whoever sees the place free finds the ticket let go.
    _ticket: Option<Held>,
    _permit: Permit,
}

/// Lets a stream open for whoever sent this request.
pub(super) fn admit(
    context: &ApiContext,
    request: &HttpRequest,
    kind: &'static str,
) -> Result<Admission, ApiError> {
    let extensions = request.extensions();
    let key = extensions.get::<Caller>().map_or(KeyMark::NONE, |caller| caller.key);
    let permit = context.streams.take(key).map_err(|limit| {
        let labels = [("stream", kind), ("limit", limit.as_str())];
        metrics::counter!("sse_refusals_total", &labels).increment(1);
        ApiError::TooManyStreams(limit)
    })?;
    let ticket = extensions.get::<Shown>().map(|Shown(hash)| context.tickets.hold(*hash));
    Ok(Admission { _ticket: ticket, _permit: permit })
}

/// A panic elsewhere leaves counts as good as before.
fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> (KeyMark, KeyMark) {
        (KeyMark::of(&[1; 32]), KeyMark::of(&[2; 32]))
    }

    #[test]
    fn one_key_cannot_take_the_places_of_another() {
        let limits = Limits::new(10, 2);
        let (loud, quiet) = keys();
        let _first = limits.take(loud).unwrap();
        let _second = limits.take(loud).unwrap();

        assert_eq!(limits.take(loud).err(), Some(StreamLimit::PerKey));
        assert!(limits.take(quiet).is_ok());
    }

    #[test]
    fn all_keys_share_what_there_is() {
        let limits = Limits::new(10, 10);
        limits.cap(20);
        limits.cap(2);
        let (one, other) = keys();
        let _first = limits.take(one).unwrap();
        let _second = limits.take(other).unwrap();

        assert_eq!(limits.take(one).err(), Some(StreamLimit::InAll));
    }

    #[test]
    fn a_stream_that_ends_makes_room_and_leaves_nothing() {
        let limits = Limits::new(1, 1);
        let (key, _) = keys();
        for _ in 0..3 {
            drop(limits.take(key).unwrap());
        }
        let counts = lock(&limits.0);
        assert_eq!((counts.all, counts.by_key.len()), (0, 0));
    }
}
