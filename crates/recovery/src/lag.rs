//! How far the log is behind what was said: what was read and is not committed.
//!
//! **Invariant:** a run whose commit did not clearly succeed waits until a later one does, or until
//! it was read anew, so that a database that is away shows.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use control_plane_domain::envelope::EnvelopeSource;
use control_plane_domain::{RunId, Timestamp, time};
use control_plane_storage::model::{Append, Appended, RawEnvelope};

/// Since when each run has envelopes that are read and not committed, by the envelopes' own time.
#[derive(Default)]
pub(crate) struct Lag(Mutex<HashMap<RunId, Timestamp>>);

/// What a batch brings, for when it is committed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    run_id: RunId,
    /// When its last envelope was said; `None` for a batch without any.
    last: Option<Timestamp>,
}

impl Lag {
    /// A batch is about to be committed.
    pub(crate) fn begins(&self, batch: &Append) -> Load {
        let run_id = batch.run.id;
        let mut said = batch.raw.iter().filter_map(said);
        let first = said.next();
        let last = said.next_back().or(first);
        if let Some(first) = first {
            self.lock().entry(run_id).or_insert(first);
        }
        Load { run_id, last }
    }

    /// It ended so.
    pub(crate) fn ended(&self, load: Load, outcome: &Appended, now: Timestamp) {
        match outcome {
            Appended::Committed => {
                if let Some(last) = load.last {
                    metrics::histogram!("macp_ingest_lag_seconds").record(seconds(last, now));
                }
            }
            Appended::Fenced | Appended::Refused(_) => {}
            Appended::Unknown(_) => return,
        }
        self.forget(load.run_id);
    }

    /// The run was read anew, or is not followed here any more.
    pub(crate) fn forget(&self, run_id: RunId) {
        self.lock().remove(&run_id);
    }

    /// How long the envelope that waits longest has waited, in seconds.
    pub(crate) fn longest(&self, now: Timestamp) -> f64 {
        let oldest = self.lock().values().min().copied();
        oldest.map_or(0.0, |since| seconds(since, now))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RunId, Timestamp>> {
        // Nothing panics while it holds this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When a session's envelope was said; signals have an order of their own.
fn said(raw: &RawEnvelope) -> Option<Timestamp> {
    match raw.source {
        EnvelopeSource::Session => time::from_unix_ms(raw.envelope.timestamp_unix_ms),
        EnvelopeSource::Signal => None,
    }
}

/// An agent's clock may be ahead of ours.
fn seconds(since: Timestamp, now: Timestamp) -> f64 {
    let waited = (now - since).to_std().unwrap_or_default();
    waited.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        time::from_unix_ms(1_700_000_000_000 + seconds * 1000).unwrap()
    }

    #[test]
    fn the_envelope_that_waits_longest_counts_until_its_commit_is_known() {
        let lag = Lag::default();
        let (slow, quick) = (RunId::random(), RunId::random());
        lag.lock().insert(slow, at(0));
        lag.lock().insert(quick, at(5));
        let ended = |run_id, outcome| {
            lag.ended(Load { run_id, last: None }, &outcome, at(10));
            lag.longest(at(10))
        };

        assert_eq!(ended(slow, Appended::Unknown("gone".to_owned())), 10.0);
        assert_eq!(ended(slow, Appended::Committed), 5.0);
        assert_eq!(ended(quick, Appended::Fenced), 0.0);
    }

    #[test]
    fn an_agent_whose_clock_is_ahead_waits_no_time() {
        assert_eq!(seconds(at(10), at(0)), 0.0);
    }
}
