//! How much is recorded of a run, without reading it.

use control_plane_domain::{Ordinal, RunId, Seq};
use diesel::dsl::{count_star, max, min, sql};
use diesel::prelude::*;
use diesel::sql_types::Bool;
use diesel_async::RunQueryDsl;

use super::Connection;
use super::schema::{run_events_canonical as events, run_events_raw as raw};
use crate::error::Result;
use crate::tally::{Counted, Tally};
use crate::types::DbUuid;

/// See [`crate::Store::run_tally`].
pub(crate) async fn tally(
    conn: &mut Connection,
    id: RunId,
    cursor: Ordinal,
    last_seq: Seq,
) -> Result<Tally> {
    let key = DbUuid(id.0);
    let (count, first, last): (i64, Option<i64>, Option<i64>) = raw::table
        .filter(raw::run_id.eq(key))
        .filter(raw::ordinal.le(cursor))
        .select((count_star(), min(raw::ordinal), max(raw::ordinal)))
        .first(conn)
        .await?;
    let envelopes = Counted { count, first, last };
    let (count, first, last): (i64, Option<i64>, Option<i64>) = events::table
        .filter(events::run_id.eq(key))
        .filter(events::seq.le(last_seq))
        .select((count_star(), min(events::seq), max(events::seq)))
        .first(conn)
        .await?;
    let events = Counted { count, first, last };
    let last_type = raw::table
        .filter(raw::run_id.eq(key))
        .filter(raw::ordinal.eq(envelopes.last))
        .select(raw::message_type)
        .first(conn)
        .await
        .optional()?;
    let senders = raw::table
        .filter(raw::run_id.eq(key))
        .filter(raw::ordinal.le(cursor))
        .filter(raw::message_type.ne("SessionStart"))
        // What the runtime says in somebody's name is that of nobody.
        .filter(sql::<Bool>(
            "NOT (run_events_raw.message_type = 'HandoffAccept' \
             AND run_events_raw.message_id LIKE 'implicit-accept:%')",
        ))
        .group_by(raw::sender)
        .order(raw::sender.asc())
        .select((raw::sender, count_star()))
        .load(conn)
        .await?;
    Ok(Tally { envelopes, events, last_type, senders })
}
