//! Archiving a run and taking it out again (spec 1.3.20).

use control_plane_domain::{Run, RunId, Timestamp};
use diesel::prelude::*;
use diesel_async::{AsyncConnection, RunQueryDsl};
use serde_json::Value;

use super::schema::runs;
use super::{Connection, runs as run_queries};
use crate::error::Result;
use crate::filing::{marked, unmarked};
use crate::types::DbUuid;

/// Archives a run, unless it is archived already. The first update takes the row, so that nobody
/// changes the tags between our reading and our writing them.
pub(crate) async fn archive(conn: &mut Connection, id: RunId, now: Timestamp) -> Result<Run> {
    conn.transaction(async |conn| {
        let target = runs::table.find(DbUuid(id.0)).filter(runs::archived_at.is_null());
        let tags: Option<Value> = diesel::update(target)
            .set((runs::archived_at.eq(now), runs::updated_at.eq(now)))
            .returning(runs::tags)
            .get_result(conn)
            .await
            .optional()?;
        if let Some(tags) = tags {
            write_tags(conn, id, marked(tags)).await?;
        }
        run_queries::get(conn, id).await
    })
    .await
}

/// The other way round.
pub(crate) async fn unarchive(conn: &mut Connection, id: RunId, now: Timestamp) -> Result<Run> {
    conn.transaction(async |conn| {
        let target = runs::table.find(DbUuid(id.0)).filter(runs::archived_at.is_not_null());
        let tags: Option<Value> = diesel::update(target)
            .set((runs::archived_at.eq(None::<Timestamp>), runs::updated_at.eq(now)))
            .returning(runs::tags)
            .get_result(conn)
            .await
            .optional()?;
        if let Some(tags) = tags {
            write_tags(conn, id, unmarked(tags)).await?;
        }
        run_queries::get(conn, id).await
    })
    .await
}

async fn write_tags(conn: &mut Connection, id: RunId, tags: Value) -> Result<()> {
    diesel::update(runs::table.find(DbUuid(id.0))).set(runs::tags.eq(tags)).execute(conn).await?;
    Ok(())
}
