//! Making a run: its row, its session, its first events and its figures, or nothing.

use control_plane_domain::Run;
use control_plane_domain::event::ChainHash;
use diesel_async::AsyncConnection;

use super::{Connection, derived, events, rollups, runs, sessions, traces};
use crate::error::{Error, Result};
use crate::model::{Created, Lease, LogEntry, NewRun};

/// How often a run that stood in the way may have gone when we look for it.
const ATTEMPTS: u32 = 5;

/// Inserts a run with everything that belongs to it, or finds the one that its idempotency key
/// made. The entries come back with their positions.
pub(crate) async fn create(
    conn: &mut Connection,
    new: NewRun,
    owner: i64,
) -> Result<(Created, Vec<LogEntry>)> {
    for _attempt in 0..ATTEMPTS {
        if let Some(done) = create_once(conn, &new, owner).await? {
            return Ok(done);
        }
    }
    Err(Error::Unavailable("the run that stands in the way comes and goes".to_owned()))
}

async fn create_once(
    conn: &mut Connection,
    new: &NewRun,
    owner: i64,
) -> Result<Option<(Created, Vec<LogEntry>)>> {
    conn.transaction(async |conn| {
        let chain = new.entries.last().map_or(ChainHash::EMPTY, |entry| entry.hash);
        if !runs::insert(conn, &new.run, chain, Some(owner)).await? {
            let found = existing(conn, &new.run).await?;
            return Ok(found.map(|created| (created, Vec::new())));
        }
        sessions::insert(conn, &new.session).await?;
        derived::metrics_insert(conn, &new.metrics).await?;
        if let Some(trace) = &new.trace {
            traces::insert(conn, new.run.id, trace).await?;
        }
        let count = i64::try_from(new.entries.len()).unwrap_or(i64::MAX);
        let first = events::take_positions(conn, count).await?;
        events::insert(conn, &new.entries, first).await?;
        rollups::add_new(conn, std::iter::once(new)).await?;
        let entries = (first..)
            .zip(&new.entries)
            .map(|(position, entry)| LogEntry { position, ..entry.clone() })
            .collect();
        Ok(Some((Created::New(Lease { run_id: new.run.id, epoch: 1 }), entries)))
    })
    .await
}

/// Why a run could not be inserted: its key, its session or its id is taken. `None` when what stood
/// in the way is gone by now.
async fn existing(conn: &mut Connection, new: &Run) -> Result<Option<Created>> {
    if let Some(key) = &new.idempotency_key
        && let Some(run) = runs::by_key(conn, key).await?
    {
        return if run.request_hash == new.request_hash {
            Ok(Some(Created::Existing(Box::new(run))))
        } else {
            Err(Error::IdempotencyConflict { run_id: run.id })
        };
    }
    if let Some(session_id) = &new.session_id
        && let Some(run) = runs::by_session(conn, session_id).await?
    {
        return Err(Error::SessionTaken { run_id: run.id });
    }
    match runs::get(conn, new.id).await {
        Ok(run) => Err(Error::SessionTaken { run_id: run.id }),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(fault) => Err(fault),
    }
}
