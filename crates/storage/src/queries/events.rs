//! Rows of `run_events_canonical`, and the feed that numbers them.

use bytes::Bytes;
use control_plane_domain::event::ChainHash;
use control_plane_domain::{EventType, Position, RunId, Seq};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::schema::{feed, run_events_canonical as events};
use super::{Connection, Db, bulk, dialect};
use crate::error::{Entity, Error, Result};
use crate::model::{EventFilter, LogEntry, Page};
use crate::types::{DbTime, DbUuid};

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = events, treat_none_as_default_value = false)]
pub(super) struct EventRow {
    run_id: DbUuid,
    seq: i64,
    position: Option<i64>,
    ts: DbTime,
    received_at: DbTime,
    event_type: String,
    subject_kind: Option<String>,
    subject_id: Option<String>,
    hash: Vec<u8>,
    body: String,
}

impl EventRow {
    /// Whose event it is.
    pub(super) fn run(&self) -> RunId {
        RunId(self.run_id.0)
    }

    pub(super) fn new(entry: &LogEntry, position: Position) -> Self {
        Self { position: Some(position), ..Self::unplaced(entry) }
    }

    /// An event that the feed does not have.
    pub(super) fn unplaced(entry: &LogEntry) -> Self {
        let (subject_kind, subject_id) = entry.subject.clone().unzip();
        Self {
            run_id: DbUuid(entry.run_id.0),
            seq: entry.seq,
            position: None,
            ts: DbTime(entry.ts),
            received_at: DbTime(entry.received_at),
            event_type: entry.event_type.as_str().to_owned(),
            subject_kind,
            subject_id,
            hash: entry.hash.0.to_vec(),
            body: String::from_utf8_lossy(&entry.body).into_owned(),
        }
    }
}

impl TryFrom<EventRow> for LogEntry {
    type Error = Error;

    fn try_from(row: EventRow) -> Result<Self> {
        let corrupt = |column| Error::Corrupt {
            entity: Entity::Event,
            id: format!("{} of run {}", row.seq, row.run_id.0),
            column,
        };
        Ok(Self {
            run_id: RunId(row.run_id.0),
            seq: row.seq,
            position: row.position.unwrap_or_default(),
            ts: row.ts.0,
            received_at: row.received_at.0,
            event_type: row.event_type.parse::<EventType>().map_err(|_unknown| corrupt("type"))?,
            subject: row.subject_kind.zip(row.subject_id),
            hash: ChainHash(row.hash.try_into().map_err(|_length| corrupt("hash"))?),
            body: Bytes::from(row.body),
        })
    }
}

/// Events of a run after `after`, in order.
pub(crate) async fn range(
    conn: &mut Connection,
    id: RunId,
    after: Seq,
    limit: i64,
) -> Result<Vec<LogEntry>> {
    let rows = events::table
        .filter(events::run_id.eq(DbUuid(id.0)))
        .filter(events::seq.gt(after))
        .order(events::seq.asc())
        .limit(limit)
        .select(EventRow::as_select());
    bulk::read_events(conn, rows).await
}

/// A page of events of one run, by seq, or of all, by position.
pub(crate) async fn list(conn: &mut Connection, filter: &EventFilter) -> Result<Page<LogEntry>> {
    let total = filtered(filter).count().get_result(conn).await?;
    let query = filtered(filter).select(EventRow::as_select()).limit(filter.limit + 1);
    let query = if filter.run_id.is_some() {
        query.filter(events::seq.gt(filter.after)).order(events::seq.asc())
    } else {
        query.filter(events::position.gt(filter.after)).order(events::position.asc())
    };
    let mut rows: Vec<EventRow> = query.load(conn).await?;
    let limit = usize::try_from(filter.limit).unwrap_or(usize::MAX);
    let more = rows.len() > limit;
    rows.truncate(limit);
    let items = rows.into_iter().map(LogEntry::try_from).collect::<Result<_>>()?;
    Ok(Page { items, total, more })
}

/// Events of a filter, in no order and from no place on.
pub(super) fn filtered(filter: &EventFilter) -> events::BoxedQuery<'_, Db> {
    let mut query = events::table.into_boxed::<Db>();
    match filter.run_id {
        Some(id) => query = query.filter(events::run_id.eq(DbUuid(id.0))),
        // Those of imported runs are in no order with the others.
        None => query = query.filter(events::position.is_not_null()),
    }
    if let Some(scenario) = &filter.scenario_ref {
        query = query.filter(dialect::of_scenario(scenario));
    }
    if !filter.types.is_empty() {
        let names: Vec<&str> = filter.types.iter().map(|kind| kind.as_str()).collect();
        query = query.filter(events::event_type.eq_any(names));
    }
    if let Some(after) = filter.after_ts {
        query = query.filter(events::ts.gt(after));
    }
    if let Some(before) = filter.before_ts {
        query = query.filter(events::ts.lt(before));
    }
    query
}

/// Takes `count` positions; the first is the result. The lock is held to the commit.
pub(crate) async fn take_positions(conn: &mut Connection, count: i64) -> Result<Position> {
    let last: i64 = diesel::update(feed::table)
        .set(feed::last.eq(feed::last + count))
        .returning(feed::last)
        .get_result(conn)
        .await?;
    Ok(last - count + 1)
}

/// Inserts events at consecutive positions.
pub(crate) async fn insert(
    conn: &mut Connection,
    entries: &[LogEntry],
    first: Position,
) -> Result<()> {
    for (position, entry) in (first..).zip(entries) {
        diesel::insert_into(events::table)
            .values(EventRow::new(entry, position))
            .execute(conn)
            .await?;
    }
    Ok(())
}

/// The name of this log, and the last position given out.
pub(crate) async fn feed_head(conn: &mut Connection) -> Result<(String, Position)> {
    Ok(feed::table.select((feed::log_id, feed::last)).first(conn).await?)
}
