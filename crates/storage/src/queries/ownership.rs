//! Who follows which run (`owner`, `epoch`), and what is asked of it (`run_inbox`).

use std::collections::HashSet;

use control_plane_domain::{RunId, Timestamp};
use diesel::dsl::{count, count_star, exists, sql};
use diesel::expression::SqlLiteral;
use diesel::prelude::*;
use diesel::sql_types::Bool;
use diesel_async::RunQueryDsl;
use serde_json::Value;

use super::Connection;
use super::schema::{run_inbox, runs};
use crate::error::{Error, Result};
use crate::model::{InboxItem, InboxPage, Lease};
use crate::types::DbUuid;

/// The run is not over, and not one that is only read here. As plain text, so that both planners
/// see that `runs_active_idx` has it all.
pub(crate) const ACTIVE: &str = "runs.status IN ('queued', 'starting', 'binding_session', 'running', 'suspended') \
     AND runs.imported_at IS NULL";

pub(crate) fn is_active() -> SqlLiteral<Bool> {
    sql(ACTIVE)
}

/// The owners of runs that are not over, how many each has, and how many of these are parked;
/// `None` for runs without one.
pub(crate) async fn owners(conn: &mut Connection) -> Result<Vec<(Option<i64>, i64, i64)>> {
    let counts = (runs::owner, count_star(), count(runs::parked_reason));
    Ok(runs::table.filter(is_active()).group_by(runs::owner).select(counts).load(conn).await?)
}

/// The runs of `owner` that are neither over nor parked.
pub(crate) async fn owned(conn: &mut Connection, owner: i64) -> Result<Vec<RunId>> {
    let mine = runs::table
        .filter(is_active())
        .filter(runs::owner.eq(owner))
        .filter(runs::parked_reason.is_null());
    let ids: Vec<DbUuid> = mine.select(runs::id).load(conn).await?;
    Ok(ids.into_iter().map(|id| RunId(id.0)).collect())
}

/// Leaves a run to whoever wants it. The epoch goes up, so nothing can be written any more under
/// the lease. `false` when it was over already.
pub(crate) async fn release(conn: &mut Connection, lease: Lease) -> Result<bool> {
    let released = diesel::update(
        runs::table.find(DbUuid(lease.run_id.0)).filter(runs::epoch.eq(lease.epoch)),
    )
    .set((runs::owner.eq(None::<i64>), runs::epoch.eq(runs::epoch + 1)))
    .execute(conn)
    .await?;
    Ok(released == 1)
}

/// The same for every run of `owner` that is not over; how many there were.
pub(crate) async fn release_all(conn: &mut Connection, owner: i64) -> Result<usize> {
    let released = diesel::update(runs::table.filter(is_active()).filter(runs::owner.eq(owner)))
        .set((runs::owner.eq(None::<i64>), runs::epoch.eq(runs::epoch + 1)))
        .execute(conn)
        .await?;
    Ok(released)
}

/// Takes one run, whatever its state and owner; none that is only read here.
pub(crate) async fn take_run(
    conn: &mut Connection,
    id: RunId,
    owner: i64,
) -> Result<Option<Lease>> {
    let run = runs::table.find(DbUuid(id.0)).filter(runs::imported_at.is_null());
    let epoch: Option<i64> = diesel::update(run)
        .set((runs::owner.eq(owner), runs::epoch.eq(runs::epoch + 1)))
        .returning(runs::epoch)
        .get_result(conn)
        .await
        .optional()?;
    Ok(epoch.map(|epoch| Lease { run_id: id, epoch }))
}

/// Renews a lease of our own with a new epoch, after whatever is still under way under the old one.
pub(crate) async fn retake(
    conn: &mut Connection,
    lease: Lease,
    owner: i64,
) -> Result<Option<Lease>> {
    let epoch: Option<i64> = diesel::update(
        runs::table
            .find(DbUuid(lease.run_id.0))
            .filter(runs::owner.eq(owner))
            .filter(runs::epoch.eq(lease.epoch)),
    )
    .set(runs::epoch.eq(runs::epoch + 1))
    .returning(runs::epoch)
    .get_result(conn)
    .await
    .optional()?;
    Ok(epoch.map(|epoch| Lease { epoch, ..lease }))
}

/// The same, of a run whose lease is not known.
pub(crate) async fn retake_own(
    conn: &mut Connection,
    id: RunId,
    owner: i64,
) -> Result<Option<Lease>> {
    let mine = runs::table
        .filter(runs::id.eq(DbUuid(id.0)))
        .filter(is_active())
        .filter(runs::owner.eq(owner))
        .filter(runs::parked_reason.is_null());
    let epoch: Option<i64> = diesel::update(mine)
        .set(runs::epoch.eq(runs::epoch + 1))
        .returning(runs::epoch)
        .get_result(conn)
        .await
        .optional()?;
    Ok(epoch.map(|epoch| Lease { run_id: id, epoch }))
}

/// Parks a run: it is not followed until the next start, and says why.
pub(crate) async fn park(conn: &mut Connection, lease: Lease, reason: &str) -> Result<bool> {
    let parked = diesel::update(
        runs::table.find(DbUuid(lease.run_id.0)).filter(runs::epoch.eq(lease.epoch)),
    )
    .set(runs::parked_reason.eq(Some(reason)))
    .execute(conn)
    .await?;
    Ok(parked == 1)
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = run_inbox)]
struct InboxRow {
    id: i64,
    run_id: DbUuid,
    kind: String,
    dedup_key: String,
    payload: Value,
    created_at: Timestamp,
}

impl From<InboxRow> for InboxItem {
    fn from(row: InboxRow) -> Self {
        Self {
            id: row.id,
            run_id: RunId(row.run_id.0),
            kind: row.kind,
            dedup_key: row.dedup_key,
            payload: row.payload,
            created_at: row.created_at,
        }
    }
}

/// Puts an item into a run's inbox; `false` when the same item is there already.
///
/// A run that is only read here takes none. It is that from the beginning, so nothing comes between
/// asking and inserting.
pub(crate) async fn inbox_push(
    conn: &mut Connection,
    id: RunId,
    kind: &str,
    dedup_key: &str,
    payload: &Value,
    now: Timestamp,
) -> Result<bool> {
    let imported: Option<bool> = runs::table
        .find(DbUuid(id.0))
        .select(runs::imported_at.is_not_null())
        .first(conn)
        .await
        .optional()?;
    if imported == Some(true) {
        return Err(Error::ReadOnly { run_id: id });
    }
    let inserted = diesel::insert_into(run_inbox::table)
        .values((
            run_inbox::run_id.eq(DbUuid(id.0)),
            run_inbox::kind.eq(kind),
            run_inbox::dedup_key.eq(dedup_key),
            run_inbox::payload.eq(payload),
            run_inbox::created_at.eq(now),
        ))
        .on_conflict_do_nothing()
        .execute(conn)
        .await?;
    Ok(inserted == 1)
}

/// What is in a run's inbox, oldest first.
pub(crate) async fn inbox_list(conn: &mut Connection, id: RunId) -> Result<Vec<InboxItem>> {
    let rows: Vec<InboxRow> = run_inbox::table
        .filter(run_inbox::run_id.eq(DbUuid(id.0)))
        .order(run_inbox::id.asc())
        .select(InboxRow::as_select())
        .load(conn)
        .await?;
    Ok(rows.into_iter().map(InboxItem::from).collect())
}

/// At most `limit` of what is in a run's inbox besides `done`, oldest first.
pub(crate) async fn inbox_page(
    conn: &mut Connection,
    id: RunId,
    done: &[i64],
    limit: usize,
) -> Result<InboxPage> {
    let ours = run_inbox::run_id.eq(DbUuid(id.0));
    let mut rows: Vec<InboxRow> = run_inbox::table
        .filter(ours)
        .filter(run_inbox::id.ne_all(done.to_vec()))
        .order(run_inbox::id.asc())
        .limit(i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1))
        .select(InboxRow::as_select())
        .load(conn)
        .await?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let left: Vec<i64> = run_inbox::table
        .filter(ours)
        .filter(run_inbox::id.eq_any(done.to_vec()))
        .select(run_inbox::id)
        .load(conn)
        .await?;
    let left: HashSet<i64> = left.into_iter().collect();
    let gone = done.iter().copied().filter(|item| !left.contains(item)).collect();
    Ok(InboxPage { items: rows.into_iter().map(InboxItem::from).collect(), gone, more })
}

/// Whether something is asked of a run.
pub(crate) async fn inbox_has(
    conn: &mut Connection,
    id: RunId,
    kind: &str,
    dedup_key: &str,
) -> Result<bool> {
    let items = run_inbox::table
        .filter(run_inbox::run_id.eq(DbUuid(id.0)))
        .filter(run_inbox::kind.eq(kind))
        .filter(run_inbox::dedup_key.eq(dedup_key));
    Ok(diesel::select(exists(items)).get_result(conn).await?)
}

/// Which runs have something in their inbox.
pub(crate) async fn inbox_runs(conn: &mut Connection) -> Result<Vec<RunId>> {
    let ids: Vec<DbUuid> = run_inbox::table.select(run_inbox::run_id).distinct().load(conn).await?;
    Ok(ids.into_iter().map(|id| RunId(id.0)).collect())
}
