//! The state of the runs that somebody watches, folded once for all who do.
//!
//! **Invariant:** a run's state is folded forward by whoever asks first and its JSON written once
//! per version, so two hundred subscribers cost as much as one. Nobody watching, nothing is kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use control_plane_domain::{RunId, Seq};
use control_plane_projection::{Projection, state};
use control_plane_storage::{Follower, Result, Store};

use super::frame;

/// Events that are folded at a time.
const READ: usize = 256;

/// The watched runs.
pub(crate) struct Snapshots {
    store: Store,
    runs: Mutex<HashMap<RunId, Weak<Shared>>>,
}

/// One watched run. It lives as long as a connection holds it.
pub(super) struct Shared {
    store: Store,
    run_id: RunId,
    folding: tokio::sync::Mutex<Option<Folding>>,
}

struct Folding {
    projection: Projection,
    follower: Follower,
    /// The snapshot frame of the projection as it is.
    frame: Bytes,
}

impl Snapshots {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, runs: Mutex::default() }
    }

    /// The state of a run, shared with whoever else watches it.
    pub(super) fn of(&self, run_id: RunId) -> Arc<Shared> {
        // Nothing panics while it holds the lock.
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = runs.get(&run_id).and_then(Weak::upgrade) {
            return shared;
        }
        if runs.len() >= 64 && runs.len().is_power_of_two() {
            runs.retain(|_, shared| shared.strong_count() > 0);
        }
        let shared = Arc::new(Shared {
            store: self.store.clone(),
            run_id,
            folding: tokio::sync::Mutex::default(),
        });
        runs.insert(run_id, Arc::downgrade(&shared));
        shared
    }
}

impl Shared {
    /// The state after event `seq` or a later one: its version, and its frame.
    ///
    /// # Errors
    /// Those of the database.
    pub(super) async fn at_least(&self, seq: Seq) -> Result<(Seq, Bytes)> {
        let mut slot = self.folding.lock().await;
        let mut folding = match slot.take() {
            Some(folding) if folding.projection.version() >= seq => {
                let answer = (folding.projection.version(), folding.frame.clone());
                *slot = Some(folding);
                return Ok(answer);
            }
            Some(folding) => folding,
            None => self.load().await?,
        };
        // From here on the slot is empty until the fold is whole: a caller that goes away, or an
        // error, makes the next one load again.
        while folding.projection.version() < seq {
            // No further than asked: who asks would have to catch up with it first.
            let missing = usize::try_from(seq - folding.projection.version()).unwrap_or(READ);
            for entry in folding.follower.next(missing.min(READ)).await? {
                folding.projection.apply(&state::event(&entry)?);
            }
        }
        folding.frame = encode(&folding.projection);
        let answer = (folding.projection.version(), folding.frame.clone());
        *slot = Some(folding);
        Ok(answer)
    }

    async fn load(&self) -> Result<Folding> {
        let projection = state::load(&self.store, self.run_id).await?;
        let follower = self.store.follow(self.run_id, projection.version());
        let frame = Bytes::new();
        Ok(Folding { projection, follower, frame })
    }
}

fn encode(projection: &Projection) -> Bytes {
    // Its keys are texts and its numbers finite: there is nothing to refuse.
    frame::snapshot(&serde_json::to_string(projection).unwrap_or_default())
}
