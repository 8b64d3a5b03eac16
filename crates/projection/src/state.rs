//! Reading a run's state: its snapshot, and what the log has after it.
//!
//! **Invariant:** the log is the truth. A snapshot that is missing, of another version or too new
//! for the question is left aside, and the answer is the same, only later.

use control_plane_domain::{CanonicalEvent, RunId, Seq};
use control_plane_storage::model::{LogEntry, ProjectionRow};
use control_plane_storage::{Entity, Error, Result, Store};

use crate::projection::Projection;

/// Events that are read at once.
const PAGE: i64 = 1000;

/// What becomes of states that are to be kept and are passed on the way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// They are there already, or somebody else's business.
    Nothing,
    /// They are written, if the store can be written to.
    IfPossible,
    /// They are written.
    Every,
}

/// The state of a run now. A run that has no events, or does not exist, has the empty state.
///
/// # Errors
/// Those of the store.
pub async fn load(store: &Store, run_id: RunId) -> Result<Projection> {
    let state = match store.projection_get(run_id).await?.map(Projection::from_row) {
        Some(Some(state)) => state,
        // Another version folded it.
        Some(None) => nearest(store, run_id, Seq::MAX).await?,
        // It has but begun: nothing is kept of it yet.
        None => Projection::empty(run_id),
    };
    fold_tail(store, state, Seq::MAX, Keep::Nothing).await
}

/// The state that a snapshot and all events after it give, for callers who have read both; `None`
/// when another version took the snapshot.
///
/// # Errors
/// [`Error::Corrupt`] when an event is not one that we wrote.
pub fn fold(
    run_id: RunId,
    snapshot: Option<ProjectionRow>,
    tail: &[LogEntry],
) -> Result<Option<Projection>> {
    let mut state = match snapshot.map(Projection::from_row) {
        Some(Some(state)) => state,
        Some(None) => return Ok(None),
        None => Projection::empty(run_id),
    };
    for entry in tail {
        state.apply(&event(entry)?);
    }
    Ok(Some(state))
}

/// The state of a run as it was after event `seq`; of one that has fewer, the state now.
///
/// States that should be kept on the way and are not (an older version wrote the log, or folded it
/// otherwise) are kept for the next who asks.
///
/// # Errors
/// Those of the store.
pub async fn at(store: &Store, run_id: RunId, seq: Seq) -> Result<Projection> {
    let state = nearest(store, run_id, seq).await?;
    fold_tail(store, state, seq, Keep::IfPossible).await
}

/// The state of a run as it was after event `seq`, from a snapshot that was read beside it. Nothing
/// is written.
///
/// # Errors
/// [`Error::NotFound`] when the log ends before, as that of a run that was deleted does; and those
/// of the store.
pub async fn until(
    store: &Store,
    run_id: RunId,
    snapshot: Option<ProjectionRow>,
    seq: Seq,
) -> Result<Projection> {
    let snapshot = snapshot.and_then(Projection::from_row);
    let state = match snapshot.filter(|state| state.version() <= seq) {
        Some(state) => state,
        None => nearest(store, run_id, seq).await?,
    };
    let state = fold_tail(store, state, seq, Keep::Nothing).await?;
    if state.version() < seq {
        return Err(Error::NotFound { entity: Entity::Run, id: run_id.to_string() });
    }
    Ok(state)
}

/// Drops all snapshots, folds the whole log, keeps the result and what is to be kept on the way,
/// and returns it.
///
/// # Errors
/// Those of the store.
pub async fn rebuild(store: &Store, run_id: RunId) -> Result<Projection> {
    store.snapshots_clear(run_id).await?;
    let state = fold_tail(store, Projection::empty(run_id), Seq::MAX, Keep::Every).await?;
    store.projection_put(state.to_row()).await?;
    Ok(state)
}

/// The newest state that is stored and not beyond event `seq`.
async fn nearest(store: &Store, run_id: RunId, seq: Seq) -> Result<Projection> {
    let kept = store.snapshot_newest(run_id, seq).await?;
    let kept = kept.as_ref().and_then(Projection::from_snapshot);
    let version = kept.as_ref().map_or(0, Projection::version);
    let newest = store.projection_within(run_id, version, seq).await?;
    let newest = newest.and_then(Projection::from_row);
    Ok(newest.or(kept).unwrap_or_else(|| Projection::empty(run_id)))
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

/// Folds the log on.
async fn fold_tail(
    store: &Store,
    mut state: Projection,
    until: Seq,
    mut keep: Keep,
) -> Result<Projection> {
    while state.version() < until {
        let wanted = PAGE.min(until.saturating_sub(state.version()));
        let page = store.events(state.run.run_id, state.version(), wanted).await?;
        let mut kept = Vec::new();
        for entry in &page {
            if entry.seq <= until {
                state.apply(&event(entry)?);
                if keep != Keep::Nothing {
                    kept.extend(state.snapshot_due());
                }
            }
        }
        if !kept.is_empty() {
            match (store.snapshots_put(kept).await, keep) {
                (Err(fault), Keep::Every) => return Err(fault),
                // Without it the answer is the same, only later.
                (Err(_), Keep::IfPossible | Keep::Nothing) => keep = Keep::Nothing,
                (Ok(()), _) => {}
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
