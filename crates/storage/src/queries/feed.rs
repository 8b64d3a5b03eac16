//! The feed over all runs, by position.
//!
//! **Invariant:** positions become visible in their own order, so what is read after a position is
//! complete up to the last one that is read.

use control_plane_domain::{Position, Seq};
use diesel::dsl::min;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::Connection;
use super::events::{EventRow, filtered};
use super::schema::{feed, run_events_canonical as events, runs};
use crate::error::Result;
use crate::feed::{FeedBounds, FeedEntry, FeedFilter};
use crate::model::{EventFilter, LogEntry};

/// From where to where the feed reaches, as of one moment.
pub(crate) async fn bounds(conn: &mut Connection) -> Result<FeedBounds> {
    let first = events::table.select(min(events::position)).single_value();
    let (last, first): (i64, Option<i64>) =
        feed::table.select((feed::last, first)).first(conn).await?;
    Ok(FeedBounds { first: first.unwrap_or(last + 1), last })
}

/// Everything after a position, each event with what a filter asks of its run.
pub(crate) async fn after(
    conn: &mut Connection,
    position: Position,
    limit: i64,
) -> Result<Vec<FeedEntry>> {
    let rows: Vec<(EventRow, Option<String>, Option<String>)> = events::table
        .inner_join(runs::table.on(runs::id.eq(events::run_id)))
        .filter(events::position.gt(position))
        .order(events::position.asc())
        .limit(limit)
        .select((EventRow::as_select(), runs::source_ref, runs::scenario_ref))
        .load(conn)
        .await?;
    rows.into_iter()
        .map(|(row, source_ref, scenario_ref)| {
            Ok(FeedEntry::new(LogEntry::try_from(row)?, source_ref, scenario_ref))
        })
        .collect()
}

/// The events between two positions (the first exclusive, the second inclusive) that pass a
/// filter, and from where on events were retained once they had been read.
pub(crate) async fn page(
    conn: &mut Connection,
    filter: &FeedFilter,
    (after, to): (Position, Position),
    after_seq: Seq,
    limit: i64,
) -> Result<(Vec<LogEntry>, Position)> {
    let FeedFilter { run_id, scenario_ref, types } = filter.clone();
    let filter = EventFilter { run_id, scenario_ref, types, ..EventFilter::default() };
    let query = filtered(&filter)
        .filter(events::position.gt(after))
        .filter(events::position.le(to))
        .select(EventRow::as_select())
        .limit(limit);
    // Within a run both orders are the same, and its seqs are an index of its own.
    let query = if run_id.is_some() {
        query.filter(events::seq.gt(after_seq)).order(events::seq.asc())
    } else {
        query.order(events::position.asc())
    };
    let rows: Vec<EventRow> = query.load(conn).await?;
    let entries = rows.into_iter().map(LogEntry::try_from).collect::<Result<_>>()?;
    // Asked last: nothing that is retained now was missing before.
    let FeedBounds { first, last: _ } = bounds(conn).await?;
    Ok((entries, first))
}
