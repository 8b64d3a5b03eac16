//! Which instances live, and runs for which none does: what only PostgreSQL can say.

use control_plane_domain::RunId;
use diesel::sql_types::{Array, BigInt, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::Connection;
use super::ownership::ACTIVE;
use crate::error::Result;
use crate::model::Lease;

/// The channel of hints.
pub(super) const CHANNEL: &str = "macp_news";

#[derive(diesel::QueryableByName)]
struct Held {
    #[diesel(sql_type = BigInt)]
    key: i64,
}

/// Every advisory lock that is held in this database, once for each that holds it.
pub(crate) async fn held(conn: &mut Connection) -> Result<Vec<i64>> {
    let held: Vec<Held> = diesel::sql_query(
        "SELECT (classid::bigint << 32) | objid::bigint AS key FROM pg_locks
         WHERE locktype = 'advisory' AND objsubid = 1 AND granted
           AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    )
    .load(conn)
    .await?;
    Ok(held.into_iter().map(|held| held.key).collect())
}

#[derive(diesel::QueryableByName)]
struct Taken {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = BigInt)]
    epoch: i64,
}

/// Takes at most `limit` active runs of the dead, or of nobody, for `to`. Those that somebody else
/// is just taking or writing are left to the next time.
pub(crate) async fn take_free(
    conn: &mut Connection,
    dead: &[i64],
    limit: i64,
    to: i64,
) -> Result<Vec<Lease>> {
    let taken: Vec<Taken> = diesel::sql_query(format!(
        "WITH free AS (
             SELECT id FROM runs WHERE {ACTIVE} AND (owner IS NULL OR owner = ANY ($1))
             LIMIT $2 FOR UPDATE SKIP LOCKED)
         UPDATE runs r SET owner = $3, epoch = r.epoch + 1, parked_reason = NULL
         FROM free WHERE r.id = free.id RETURNING r.id, r.epoch"
    ))
    .bind::<Array<BigInt>, _>(dead)
    .bind::<BigInt, _>(limit)
    .bind::<BigInt, _>(to)
    .load(conn)
    .await?;
    Ok(taken.into_iter().map(|run| Lease { run_id: RunId(run.id), epoch: run.epoch }).collect())
}

/// Sends texts to whoever listens.
pub(crate) async fn notify(conn: &mut Connection, texts: &[String]) -> Result<()> {
    // A hint need not survive a power failure, so nobody waits for the disk.
    diesel::sql_query(format!(
        "SELECT set_config('synchronous_commit', 'off', true), pg_notify('{CHANNEL}', said)
         FROM unnest($1) AS said"
    ))
    .bind::<Array<Text>, _>(texts)
    .execute(conn)
    .await?;
    Ok(())
}
