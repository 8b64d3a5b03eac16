//! Rows of `run_snapshots`: what a run's state was on the way.

use control_plane_domain::{RunId, Seq};
use diesel::prelude::*;
use diesel_async::{AsyncConnection, RunQueryDsl};

use super::Connection;
use super::schema::run_snapshots;
use crate::error::Result;
use crate::model::SnapshotRow;
use crate::types::DbUuid;

#[derive(Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = run_snapshots)]
pub(super) struct SnapshotColumns {
    run_id: DbUuid,
    version: i64,
    schema_version: i32,
    state: String,
}

impl From<&SnapshotRow> for SnapshotColumns {
    fn from(row: &SnapshotRow) -> Self {
        let SnapshotRow { run_id, version, schema_version, state } = row;
        Self {
            run_id: DbUuid(run_id.0),
            version: *version,
            schema_version: *schema_version,
            state: state.clone(),
        }
    }
}

impl From<SnapshotColumns> for SnapshotRow {
    fn from(row: SnapshotColumns) -> Self {
        let SnapshotColumns { run_id, version, schema_version, state } = row;
        Self { run_id: RunId(run_id.0), version, schema_version, state }
    }
}

/// The newest state of this schema version that was kept at event `until` or before.
pub(crate) async fn newest(
    conn: &mut Connection,
    id: RunId,
    until: Seq,
    schema_version: i32,
) -> Result<Option<SnapshotRow>> {
    let row: Option<SnapshotColumns> = run_snapshots::table
        .filter(run_snapshots::run_id.eq(DbUuid(id.0)))
        .filter(run_snapshots::version.le(until))
        .filter(run_snapshots::schema_version.eq(schema_version))
        .order(run_snapshots::version.desc())
        .select(SnapshotColumns::as_select())
        .first(conn)
        .await
        .optional()?;
    Ok(row.map(SnapshotRow::from))
}

/// The versions of the states that are kept, oldest first.
pub(crate) async fn versions(conn: &mut Connection, id: RunId) -> Result<Vec<Seq>> {
    Ok(run_snapshots::table
        .filter(run_snapshots::run_id.eq(DbUuid(id.0)))
        .order(run_snapshots::version.asc())
        .select(run_snapshots::version)
        .load(conn)
        .await?)
}

/// Keeps these states, whatever was there.
pub(crate) async fn put(conn: &mut Connection, rows: &[SnapshotRow]) -> Result<()> {
    conn.transaction(async |conn| {
        for row in rows.iter().map(SnapshotColumns::from) {
            diesel::insert_into(run_snapshots::table)
                .values(&row)
                .on_conflict((run_snapshots::run_id, run_snapshots::version))
                .do_update()
                .set(&row)
                .execute(conn)
                .await?;
        }
        Ok(())
    })
    .await
}

/// Drops every state that is kept of a run.
pub(crate) async fn clear(conn: &mut Connection, id: RunId) -> Result<()> {
    let rows = run_snapshots::table.filter(run_snapshots::run_id.eq(DbUuid(id.0)));
    diesel::delete(rows).execute(conn).await?;
    Ok(())
}
