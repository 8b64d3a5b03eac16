//! What opens a run's streams in place of an API key (`stream_tickets`).

use control_plane_domain::{RunId, Timestamp};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::Connection;
use super::schema::stream_tickets;
use crate::error::Result;
use crate::tickets::{Ticket, TicketHash};
use crate::types::DbUuid;

#[derive(Queryable, Selectable)]
#[diesel(table_name = stream_tickets)]
struct TicketRow {
    run_id: DbUuid,
    key_hash: Vec<u8>,
    made_at: Timestamp,
    expires_at: Timestamp,
}

/// Records a ticket.
pub(crate) async fn create(conn: &mut Connection, hash: TicketHash, ticket: &Ticket) -> Result<()> {
    let Ticket { run_id, key_hash, made_at, expires_at } = ticket;
    diesel::insert_into(stream_tickets::table)
        .values((
            stream_tickets::hash.eq(hash.as_slice()),
            stream_tickets::run_id.eq(DbUuid(run_id.0)),
            stream_tickets::key_hash.eq(key_hash.as_slice()),
            stream_tickets::made_at.eq(*made_at),
            stream_tickets::expires_at.eq(*expires_at),
        ))
        .execute(conn)
        .await?;
    Ok(())
}

/// Loads a ticket.
pub(crate) async fn find(conn: &mut Connection, hash: TicketHash) -> Result<Option<Ticket>> {
    let row: Option<TicketRow> = stream_tickets::table
        .find(hash.as_slice())
        .select(TicketRow::as_select())
        .first(conn)
        .await
        .optional()?;
    Ok(row.map(|row| Ticket {
        run_id: RunId(row.run_id.0),
        key_hash: row.key_hash,
        made_at: row.made_at,
        expires_at: row.expires_at,
    }))
}

/// Lets tickets live until then, unless they live longer already.
pub(crate) async fn extend(
    conn: &mut Connection,
    hashes: &[TicketHash],
    until: Timestamp,
) -> Result<usize> {
    let hashes = hashes.iter().map(TicketHash::as_slice);
    let extended = diesel::update(
        stream_tickets::table
            .filter(stream_tickets::hash.eq_any(hashes))
            .filter(stream_tickets::expires_at.lt(until)),
    )
    .set(stream_tickets::expires_at.eq(until))
    .execute(conn)
    .await?;
    Ok(extended)
}

/// Removes at most `limit` tickets that expired before then.
pub(crate) async fn clean(conn: &mut Connection, before: Timestamp, limit: i64) -> Result<usize> {
    let hashes: Vec<Vec<u8>> = stream_tickets::table
        .filter(stream_tickets::expires_at.lt(before))
        .order(stream_tickets::expires_at.asc())
        .limit(limit)
        .select(stream_tickets::hash)
        .load(conn)
        .await?;
    if hashes.is_empty() {
        return Ok(0);
    }
    // Asked again: one of them may have been extended in between.
    let removed = diesel::delete(
        stream_tickets::table
            .filter(stream_tickets::hash.eq_any(hashes))
            .filter(stream_tickets::expires_at.lt(before)),
    )
    .execute(conn)
    .await?;
    Ok(removed)
}
