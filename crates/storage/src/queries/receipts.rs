//! Rows of `run_receipts` and `receipt_keys`.

use control_plane_domain::{RunId, RunState, SessionId, Timestamp};
use diesel::prelude::*;
use diesel_async::{AsyncConnection, RunQueryDsl};
use uuid::Uuid;

use super::Connection;
use super::schema::{receipt_keys, run_receipts as receipts, runs};
use crate::error::{Entity, Error, Result};
use crate::receipts::{
    KeySeen, PendingReceipt, PinnedKey, ReceiptAnswer, ReceiptState, RunReceipt,
};
use crate::types::DbUuid;

#[derive(Queryable, Selectable)]
#[diesel(table_name = receipts)]
struct ReceiptRow {
    run_id: DbUuid,
    state: String,
    document: Option<String>,
    detail: Option<String>,
    attempts: i32,
    answered_at: Option<Timestamp>,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = receipt_keys)]
struct KeyRow {
    kid: String,
    public_key: String,
    pinned_at: Timestamp,
    refused_key: Option<String>,
    refused_at: Option<Timestamp>,
}

impl TryFrom<ReceiptRow> for RunReceipt {
    type Error = Error;

    fn try_from(row: ReceiptRow) -> Result<Self> {
        let state = ReceiptState::ALL.into_iter().find(|state| state.as_str() == row.state);
        let id = row.run_id.0.to_string();
        Ok(Self {
            state: state.ok_or(Error::Corrupt { entity: Entity::Run, id, column: "state" })?,
            document: row.document,
            detail: row.detail,
            attempts: row.attempts,
            answered_at: row.answered_at,
        })
    }
}

/// A run's receipt.
pub(crate) async fn get(conn: &mut Connection, id: RunId) -> Result<Option<RunReceipt>> {
    let row = receipts::table
        .find(DbUuid(id.0))
        .select(ReceiptRow::as_select())
        .first(conn)
        .await
        .optional()?;
    row.map(RunReceipt::try_from).transpose()
}

/// Those that are due, the latest first.
pub(crate) async fn due(
    conn: &mut Connection,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<PendingReceipt>> {
    type Row = (DbUuid, Option<String>, Option<String>, i32, bool);
    let rows: Vec<Row> = receipts::table
        .inner_join(runs::table.on(runs::id.eq(receipts::run_id)))
        .filter(is_pending())
        .filter(receipts::due_at.le(now))
        .order((receipts::due_at.desc(), receipts::run_id.asc()))
        .limit(limit)
        .select((
            receipts::run_id,
            runs::runtime_session_id,
            receipts::document,
            receipts::attempts,
            receipts::indexed,
        ))
        .load(conn)
        .await?;
    let pending = |(id, session, document, attempts, indexed): Row| PendingReceipt {
        run_id: RunId(id.0),
        session_id: session.map(SessionId::trusted),
        document,
        attempts,
        indexed,
    };
    Ok(rows.into_iter().map(pending).collect())
}

/// As plain text, so that the planner sees that the index of what is pending has it all.
fn is_pending() -> diesel::expression::SqlLiteral<diesel::sql_types::Bool> {
    diesel::dsl::sql("run_receipts.state = 'pending'")
}

/// Inserts rows for runs that completed and have none.
pub(crate) async fn note(
    conn: &mut Connection,
    after: Option<RunId>,
    limit: i64,
    now: Timestamp,
) -> Result<Option<RunId>> {
    let missing: Vec<DbUuid> = runs::table
        .left_join(receipts::table.on(receipts::run_id.eq(runs::id)))
        .filter(runs::status.eq(RunState::Completed.as_str()))
        .filter(receipts::run_id.is_null())
        // Those of other servers are theirs to ask for.
        .filter(runs::imported_at.is_null())
        .filter(runs::id.gt(DbUuid(after.map_or(Uuid::nil(), |id| id.0))))
        .order(runs::id.asc())
        .limit(limit)
        .select(runs::id)
        .load(conn)
        .await?;
    for id in &missing {
        let inserted = diesel::insert_into(receipts::table)
            .values((
                receipts::run_id.eq(*id),
                receipts::state.eq(ReceiptState::Pending.as_str()),
                receipts::attempts.eq(0),
                receipts::due_at.eq(now),
                receipts::indexed.eq(false),
            ))
            .on_conflict_do_nothing()
            .execute(conn)
            .await;
        match inserted.map_err(Error::from) {
            // The run was deleted just now.
            Ok(_) | Err(Error::Refused(_)) => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(missing.last().map(|id| RunId(id.0)))
}

/// Records whose decision a run's own replaces.
pub(crate) async fn index(
    conn: &mut Connection,
    id: RunId,
    supersedes: Option<&str>,
) -> Result<()> {
    diesel::update(receipts::table.find(DbUuid(id.0)))
        .set((receipts::indexed.eq(true), receipts::supersedes_session_id.eq(supersedes)))
        .execute(conn)
        .await?;
    Ok(())
}

/// Records an answer, unless there is one.
pub(crate) async fn answer(conn: &mut Connection, id: RunId, answer: &ReceiptAnswer) -> Result<()> {
    conn.transaction(async |conn| {
        let ReceiptAnswer { state, document, detail, keys, now } = answer;
        diesel::update(receipts::table.find(DbUuid(id.0)).filter(is_pending()))
            .set((
                receipts::state.eq(state.as_str()),
                receipts::document.eq(document.as_deref()),
                receipts::detail.eq(detail.as_deref()),
                receipts::answered_at.eq(Some(*now)),
            ))
            .execute(conn)
            .await?;
        for key in keys {
            pin(conn, key, *now).await?;
        }
        Ok(())
    })
    .await
}

/// Pins a key that is new. One that is not what is pinned is noted, and changes nothing.
async fn pin(conn: &mut Connection, key: &KeySeen, now: Timestamp) -> Result<()> {
    let KeySeen { issuer, kid, public_key } = key;
    diesel::insert_into(receipt_keys::table)
        .values((
            receipt_keys::issuer.eq(issuer),
            receipt_keys::kid.eq(kid),
            receipt_keys::public_key.eq(public_key),
            receipt_keys::pinned_at.eq(now),
        ))
        .on_conflict_do_nothing()
        .execute(conn)
        .await?;
    let other =
        receipt_keys::table.find((issuer, kid)).filter(receipt_keys::public_key.ne(public_key));
    diesel::update(other)
        .set((
            receipt_keys::refused_key.eq(Some(public_key)),
            receipt_keys::refused_at.eq(Some(now)),
        ))
        .execute(conn)
        .await?;
    Ok(())
}

/// Puts a receipt off.
pub(crate) async fn postpone(
    conn: &mut Connection,
    id: RunId,
    document: Option<&str>,
    detail: &str,
    due_at: Timestamp,
) -> Result<()> {
    diesel::update(receipts::table.find(DbUuid(id.0)).filter(is_pending()))
        .set((
            receipts::document.eq(document),
            receipts::detail.eq(Some(detail)),
            receipts::attempts.eq(receipts::attempts + 1),
            receipts::due_at.eq(due_at),
        ))
        .execute(conn)
        .await?;
    Ok(())
}

/// The keys of an issuer.
pub(crate) async fn keys(conn: &mut Connection, issuer: &str) -> Result<Vec<PinnedKey>> {
    let rows: Vec<KeyRow> = receipt_keys::table
        .filter(receipt_keys::issuer.eq(issuer))
        .order(receipt_keys::kid.asc())
        .select(KeyRow::as_select())
        .load(conn)
        .await?;
    let pinned = |row: KeyRow| PinnedKey {
        kid: row.kid,
        public_key: row.public_key,
        pinned_at: row.pinned_at,
        refused: row.refused_key.zip(row.refused_at),
    };
    Ok(rows.into_iter().map(pinned).collect())
}

/// The runs whose decision replaces that of a session.
pub(crate) async fn superseding(
    conn: &mut Connection,
    session: &SessionId,
    limit: i64,
) -> Result<Vec<RunId>> {
    let rows: Vec<DbUuid> = receipts::table
        .filter(receipts::supersedes_session_id.eq(session.as_str()))
        .order(receipts::run_id.asc())
        .limit(limit)
        .select(receipts::run_id)
        .load(conn)
        .await?;
    Ok(rows.into_iter().map(|id| RunId(id.0)).collect())
}
