//! Reading what completeness follows from.

use control_plane_domain::{EventType, Ordinal, RunId, Timestamp};
use control_plane_projection::{HistoryGap, state};
use control_plane_storage::model::{EventFilter, LogEntry};
use control_plane_storage::{Result, Store};
use serde_json::Value;

use super::{Asked, Facts, Gap, Signals};
use crate::signals::began;

/// Most gaps of a history that are listed.
const MAX_GAPS: i64 = 1000;

/// Reads what is stored of a run: counts of what is recorded, never all of it.
///
/// # Errors
/// `NotFound`, and those of the database.
pub async fn read(store: &Store, id: RunId, asked: Asked, now: Timestamp) -> Result<Facts> {
    // The rows first: what is counted up to them was written with them, or before.
    let (run, session, _) = store.run_ownership(id).await?;
    let head = store.run_head(id).await?;
    let cursor = session.as_ref().map_or(0, |session| session.cursor);
    let tally = store.run_tally(id, cursor, head.last_seq).await?;
    let end = store.events(id, (head.last_seq - 1).max(0), 1).await?;
    let chain_ends =
        end.first().is_some_and(|entry| entry.seq == head.last_seq && entry.hash == head.hash);
    let told = state::load(store, id).await?.run;
    let gaps = match told.history_gap {
        Some(gap) => gaps(store, id, gap).await?,
        None => Vec::new(),
    };
    let began = began(&run, session.as_ref());
    let signals = Signals {
        gaps: store.signal_gaps(began, run.ended_at).await?,
        heard_until: store.signal_watch().await?.last_heard_at,
    };
    Ok(Facts {
        tally,
        last_seq: head.last_seq,
        chain_ends,
        gaps,
        diverged: told.diverged,
        signals,
        asked,
        now,
        run,
        session,
    })
}

/// The state has all gaps in one, and the log has each.
async fn gaps(store: &Store, id: RunId, all: HistoryGap) -> Result<Vec<Gap>> {
    let filter = EventFilter {
        run_id: Some(id),
        types: vec![EventType::SessionStreamGap],
        limit: MAX_GAPS,
        ..EventFilter::default()
    };
    let listed = store.event_list(&filter).await?;
    let gaps: Vec<Gap> = listed.items.iter().filter_map(gap).collect();
    if gaps.is_empty() || listed.more {
        let HistoryGap { from_ordinal: from, to_ordinal: to, missing } = all;
        return Ok(vec![Gap { from, to, missing, reason: "HISTORY_UNAVAILABLE".to_owned() }]);
    }
    Ok(gaps)
}

fn gap(entry: &LogEntry) -> Option<Gap> {
    let event: Value = serde_json::from_slice(&entry.body).ok()?;
    let data = event.get("data")?;
    let number = |key: &str| data.get(key).and_then(Value::as_i64);
    let from = number("fromOrdinal")?;
    let to = number("toOrdinal");
    let span: Ordinal = to.map_or(0, |to| to - from + 1);
    Some(Gap {
        from,
        to,
        missing: number("missing").unwrap_or(span),
        reason: data.get("reason").and_then(Value::as_str).unwrap_or("UNKNOWN").to_owned(),
    })
}
