//! Rows of `run_events_raw`.

use std::collections::{HashMap, HashSet};

use control_plane_domain::envelope::{Envelope, EnvelopeSource};
use control_plane_domain::{Ordinal, RunId};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::Bool;
use diesel_async::RunQueryDsl;

use super::Connection;
use super::schema::{run_events_raw as raw, runs};
use crate::error::Result;
use crate::model::RawEnvelope;
use crate::types::{DbTime, DbUuid};

/// How many keys a query asks for: SQLite takes a parameter for each.
const AT_ONCE: usize = 500;
/// Most rows that are read to find out which runs have some messages.
const RUNS_AT_ONCE: i64 = 1000;

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = raw, treat_none_as_default_value = false)]
pub(super) struct RawRow {
    run_id: DbUuid,
    source: String,
    ordinal: Option<i64>,
    message_id: String,
    message_type: String,
    mode: String,
    session_id: String,
    sender: String,
    macp_version: String,
    ts_unix_ms: i64,
    received_at: DbTime,
    payload: Vec<u8>,
    sender_authenticated: bool,
    sanitized: bool,
}

impl From<&RawEnvelope> for RawRow {
    fn from(raw: &RawEnvelope) -> Self {
        let envelope = &raw.envelope;
        Self {
            run_id: DbUuid(raw.run_id.0),
            source: raw.source.as_str().to_owned(),
            ordinal: raw.ordinal,
            message_id: envelope.message_id.clone(),
            message_type: envelope.message_type.clone(),
            mode: envelope.mode.clone(),
            session_id: envelope.session_id.clone(),
            sender: envelope.sender.clone(),
            macp_version: envelope.macp_version.clone(),
            ts_unix_ms: envelope.timestamp_unix_ms,
            received_at: DbTime(raw.received_at),
            payload: envelope.payload.clone(),
            sender_authenticated: raw.sender_authenticated,
            sanitized: envelope.sanitized,
        }
    }
}

impl From<RawRow> for RawEnvelope {
    fn from(row: RawRow) -> Self {
        Self {
            run_id: RunId(row.run_id.0),
            source: if row.source == "signal" {
                EnvelopeSource::Signal
            } else {
                EnvelopeSource::Session
            },
            ordinal: row.ordinal,
            received_at: row.received_at.0,
            sender_authenticated: row.sender_authenticated,
            envelope: Envelope {
                macp_version: row.macp_version,
                mode: row.mode,
                message_type: row.message_type,
                message_id: row.message_id,
                session_id: row.session_id,
                sender: row.sender,
                timestamp_unix_ms: row.ts_unix_ms,
                payload: row.payload,
                sanitized: row.sanitized,
            },
        }
    }
}

/// Session envelopes of a run after ordinal `after`, in order.
pub(crate) async fn range(
    conn: &mut Connection,
    id: RunId,
    after: Ordinal,
    limit: i64,
) -> Result<Vec<RawEnvelope>> {
    let rows: Vec<RawRow> = raw::table
        .filter(raw::run_id.eq(DbUuid(id.0)))
        .filter(raw::ordinal.gt(after))
        .order(raw::ordinal.asc())
        .limit(limit)
        .select(RawRow::as_select())
        .load(conn)
        .await?;
    Ok(rows.into_iter().map(RawEnvelope::from).collect())
}

/// The last session envelope of a run.
pub(crate) async fn last(conn: &mut Connection, id: RunId) -> Result<Option<RawEnvelope>> {
    let row: Option<RawRow> = raw::table
        .filter(raw::run_id.eq(DbUuid(id.0)))
        .filter(raw::ordinal.is_not_null())
        .order(raw::ordinal.desc())
        .limit(1)
        .select(RawRow::as_select())
        .first(conn)
        .await
        .optional()?;
    Ok(row.map(RawEnvelope::from))
}

/// The message ids of the last `limit` session envelopes, oldest first.
pub(crate) async fn last_message_ids(
    conn: &mut Connection,
    id: RunId,
    limit: i64,
) -> Result<Vec<String>> {
    let mut ids: Vec<String> = raw::table
        .filter(raw::run_id.eq(DbUuid(id.0)))
        .filter(raw::ordinal.is_not_null())
        .order(raw::ordinal.desc())
        .limit(limit)
        .select(raw::message_id)
        .load(conn)
        .await?;
    ids.reverse();
    Ok(ids)
}

/// Which of these signals, by sender and message id, are recorded already.
pub(crate) async fn signals_recorded(
    conn: &mut Connection,
    id: RunId,
    signals: &[(String, String)],
) -> Result<HashSet<(String, String)>> {
    let mut recorded = HashSet::new();
    for signals in signals.chunks(AT_ONCE) {
        let mut senders: Vec<&str> = signals.iter().map(|(sender, _)| sender.as_str()).collect();
        senders.sort_unstable();
        senders.dedup();
        let message_ids = signals.iter().map(|(_, message_id)| message_id.as_str());
        let rows: Vec<(String, String)> = raw::table
            .filter(raw::run_id.eq(DbUuid(id.0)))
            // As plain text, so that the planner sees that the index of signals has it all.
            .filter(sql::<Bool>("run_events_raw.source = 'signal'"))
            .filter(raw::sender.eq_any(senders))
            .filter(raw::message_id.eq_any(message_ids))
            .select((raw::sender, raw::message_id))
            .load(conn)
            .await?;
        recorded.extend(rows);
    }
    // The rows are those of any sender with any of the ids.
    let asked: HashSet<&(String, String)> = signals.iter().collect();
    recorded.retain(|row| asked.contains(row));
    Ok(recorded)
}

/// The run that has a session envelope of each message id; `None` for an id that several runs have.
pub(crate) async fn runs_of_messages(
    conn: &mut Connection,
    ids: &[&str],
) -> Result<HashMap<String, Option<RunId>>> {
    let mut found: HashMap<String, Option<RunId>> = HashMap::new();
    for ids in ids.chunks(AT_ONCE) {
        let rows = with_messages(conn, ids, RUNS_AT_ONCE).await?;
        let complete = i64::try_from(rows.len()).unwrap_or(i64::MAX) < RUNS_AT_ONCE;
        note(&mut found, rows);
        if complete {
            continue;
        }
        // Some id stands in so many runs that it hid the others.
        for id in ids {
            if found.get(*id).is_none_or(Option::is_some) {
                let rows = with_messages(conn, &[*id], 2).await?;
                note(&mut found, rows);
            }
        }
    }
    Ok(found)
}

/// Takes in which run has which message. The same row again says nothing new.
fn note(found: &mut HashMap<String, Option<RunId>>, rows: Vec<(String, DbUuid)>) {
    for (message_id, run) in rows {
        let run = Some(RunId(run.0));
        let place = found.entry(message_id).or_insert(run);
        if *place != run {
            *place = None;
        }
    }
}

async fn with_messages(
    conn: &mut Connection,
    ids: &[&str],
    limit: i64,
) -> Result<Vec<(String, DbUuid)>> {
    let rows = raw::table
        .inner_join(runs::table.on(runs::id.eq(raw::run_id)))
        // A run that is only read here takes no signals.
        .filter(runs::imported_at.is_null())
        // As plain text, so that the planner sees that the index of messages has it all.
        .filter(sql::<Bool>("run_events_raw.source = 'session'"))
        .filter(raw::message_id.eq_any(ids.to_vec()))
        .select((raw::message_id, raw::run_id))
        .limit(limit);
    Ok(rows.load(conn).await?)
}
