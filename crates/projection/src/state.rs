//! Reading a run's state: its snapshot, and what the log has after it.
//!
//! **Invariant:** the log is the truth. A snapshot that is missing, of another version or too new
//! for the question is left aside, and the answer is the same, only later.

use control_plane_domain::{CanonicalEvent, RunId, Seq};
use control_plane_storage::model::LogEntry;
use control_plane_storage::{Entity, Error, Result, Store};

use crate::projection::Projection;

/// Events that are read at once.
const PAGE: i64 = 1000;

/// The state of a run now. A run that has no events, or does not exist, has the empty state.
///
/// # Errors
/// Those of the store.
pub async fn load(store: &Store, run_id: RunId) -> Result<Projection> {
    let snapshot = store.projection_get(run_id).await?.and_then(Projection::from_row);
    let state = snapshot.unwrap_or_else(|| Projection::empty(run_id));
    fold_tail(store, state, Seq::MAX).await
}

/// The state of a run as it was after event `seq`.
///
/// # Errors
/// Those of the store.
pub async fn at(store: &Store, run_id: RunId, seq: Seq) -> Result<Projection> {
    let snapshot = store.projection_get(run_id).await?.filter(|row| row.version <= seq);
    let snapshot = snapshot.and_then(Projection::from_row);
    let state = snapshot.unwrap_or_else(|| Projection::empty(run_id));
    fold_tail(store, state, seq).await
}

/// Drops the snapshot, folds the whole log, keeps the result as the new snapshot and returns it.
///
/// # Errors
/// Those of the store.
pub async fn rebuild(store: &Store, run_id: RunId) -> Result<Projection> {
    let state = fold_tail(store, Projection::empty(run_id), Seq::MAX).await?;
    store.projection_put(state.to_row()).await?;
    Ok(state)
}

/// The event in a log entry.
///
/// # Errors
/// [`Error::Corrupt`] when the text is not one that we wrote.
pub fn event(entry: &LogEntry) -> Result<CanonicalEvent> {
    serde_json::from_slice(&entry.body).map_err(|_| Error::Corrupt {
        entity: Entity::Event,
        id: format!("{} of run {}", entry.seq, entry.run_id),
        column: "body",
    })
}

async fn fold_tail(store: &Store, mut state: Projection, until: Seq) -> Result<Projection> {
    while state.version() < until {
        let wanted = PAGE.min(until.saturating_sub(state.version()));
        let page = store.events(state.run.run_id, state.version(), wanted).await?;
        for entry in &page {
            if entry.seq <= until {
                state.apply(&event(entry)?);
            }
        }
        let is_last = i64::try_from(page.len()).unwrap_or(i64::MAX) < wanted;
        if is_last || page.last().is_none_or(|entry| entry.seq >= until) {
            break;
        }
    }
    Ok(state)
}

#[cfg(test)]
mod tests;
