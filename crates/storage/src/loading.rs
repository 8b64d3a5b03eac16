//! Reading many runs at once, as following them again needs them.
//!
//! **Invariant:** the answer is the same as that of reading each run for itself. After a restart a
//! thousand runs are a few statements, not ten thousand.

use control_plane_domain::event::ChainHash;
use control_plane_domain::metrics::RunMetrics;
use control_plane_domain::{Ordinal, Run, RunId, RunTrace, Seq, Session};

use crate::error::{Error, Result};
use crate::model::{LogEntry, ProjectionRow};
use crate::store::Store;

/// A run as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedRun {
    pub run: Run,
    pub session: Session,
    /// The head of the log's chain.
    pub chain: ChainHash,
    /// The run's snapshot, if one was taken.
    pub snapshot: Option<ProjectionRow>,
    /// The events after it, in order; `None` when they are too many to read beside others.
    pub tail: Option<Vec<LogEntry>>,
    pub metrics: Option<RunMetrics>,
    /// The envelopes of its session that were recorded last, oldest first.
    pub recorded: Vec<Recorded>,
    /// Whether something is in its inbox.
    pub asked: bool,
    /// Where it is in its trace, if it has one.
    pub trace: Option<RunTrace>,
}

/// An envelope that is recorded: as much of it as tells it from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    pub ordinal: Ordinal,
    pub message_id: String,
    pub message_type: String,
}

impl Store {
    /// Reads these runs, in the order asked for: of each its envelopes at the last `remembered`
    /// ordinals, and the events after its snapshot unless there are more than `longest`.
    ///
    /// # Errors
    /// Those of the database; and for a single run [`Error::NotFound`], or [`Error::Corrupt`] when
    /// one of its rows is no good.
    pub async fn runs_load(
        &self,
        ids: &[RunId],
        remembered: Ordinal,
        longest: Seq,
    ) -> Result<Vec<Result<LoadedRun>>> {
        let wanted = ids.to_vec();
        let mut found: Vec<_> = read!(self, loading::load(&wanted, remembered, longest))?;
        let take = |id: &RunId| match found.iter().position(|(found, _)| found == id) {
            Some(at) => found.swap_remove(at).1,
            None => Err(Error::run_not_found(id)),
        };
        Ok(ids.iter().map(take).collect())
    }
}
