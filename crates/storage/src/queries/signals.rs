//! Signals: into inboxes (`run_inbox`), held (`held_signals`), and not heard (`signal_watch`,
//! `signal_watch_gaps`).

use std::collections::HashMap;

use control_plane_domain::{RunId, Timestamp};
use diesel::prelude::*;
use diesel_async::{AsyncConnection, RunQueryDsl};
use serde_json::Value;

use super::schema::{
    held_signals as held, run_inbox, runs, signal_watch, signal_watch_gaps as gaps,
};
use super::{Connection, dialect, raw};
use crate::error::Result;
use crate::signals::{
    About, HeldFound, NewSignal, SIGNAL, SignalGap, SignalNews, SignalWatch, SignalsDone,
};
use crate::types::DbUuid;

/// Most gaps of an answer.
const MAX_GAPS: i64 = 1000;
/// The one row of `signal_watch`.
const WATCH: i32 = 1;

/// An inbox item to insert.
#[derive(Insertable)]
#[diesel(table_name = run_inbox)]
pub(super) struct InboxRow<'a> {
    run_id: DbUuid,
    kind: &'static str,
    dedup_key: String,
    payload: &'a Value,
    created_at: Timestamp,
}

/// A signal to hold.
#[derive(Insertable)]
#[diesel(table_name = held)]
pub(super) struct HeldRow<'a> {
    session_id: &'a str,
    target_message_id: &'a str,
    sender: &'a str,
    message_id: &'a str,
    payload: &'a Value,
    heard_at: Timestamp,
}

fn inbox_row<'a>(
    run: RunId,
    sender: &str,
    message_id: &str,
    payload: &'a Value,
    heard_at: Timestamp,
) -> InboxRow<'a> {
    InboxRow {
        run_id: DbUuid(run.0),
        kind: SIGNAL,
        dedup_key: format!("{sender}\n{message_id}"),
        payload,
        created_at: heard_at,
    }
}

/// What is known of a signal's run.
enum Place {
    Run(RunId),
    Unknown,
    /// Several runs have the message.
    Ambiguous,
}

/// The runs of sessions and of messages.
struct Places {
    sessions: HashMap<String, RunId>,
    messages: HashMap<String, Option<RunId>>,
}

impl Places {
    async fn look_up(
        conn: &mut Connection,
        sessions: Vec<&str>,
        messages: Vec<&str>,
    ) -> Result<Self> {
        let mut found = HashMap::new();
        if !sessions.is_empty() {
            let rows: Vec<(Option<String>, DbUuid)> = runs::table
                .filter(runs::runtime_session_id.eq_any(distinct(sessions)))
                .filter(runs::imported_at.is_null())
                .select((runs::runtime_session_id, runs::id))
                .load(conn)
                .await?;
            let rows = rows.into_iter().filter_map(|(session, id)| Some((session?, RunId(id.0))));
            found.extend(rows);
        }
        let messages = raw::runs_of_messages(conn, &distinct(messages)).await?;
        Ok(Self { sessions: found, messages })
    }

    fn of_session(&self, session: &str) -> Place {
        self.sessions.get(session).map_or(Place::Unknown, |id| Place::Run(*id))
    }

    fn of_message(&self, message: &str) -> Place {
        match self.messages.get(message) {
            Some(Some(id)) => Place::Run(*id),
            Some(None) => Place::Ambiguous,
            None => Place::Unknown,
        }
    }
}

fn distinct(mut texts: Vec<&str>) -> Vec<&str> {
    texts.sort_unstable();
    texts.dedup();
    texts
}

fn distinct_runs(mut runs: Vec<RunId>) -> Vec<RunId> {
    runs.sort();
    runs.dedup();
    runs
}

/// See [`crate::Store::signals_record`].
pub(crate) async fn record(conn: &mut Connection, news: &SignalNews) -> Result<SignalsDone> {
    conn.transaction(async |conn| {
        let done = record_signals(conn, news).await?;
        for gap in &news.gaps {
            put_gap(conn, gap).await?;
        }
        if let Some(until) = news.heard_until {
            // Somebody else may know of a later moment: each is true by itself.
            let behind =
                signal_watch::last_heard_at.is_null().or(signal_watch::last_heard_at.lt(until));
            diesel::update(signal_watch::table.find(WATCH).filter(behind))
                .set(signal_watch::last_heard_at.eq(Some(until)))
                .execute(conn)
                .await?;
        }
        Ok(done)
    })
    .await
}

async fn record_signals(conn: &mut Connection, news: &SignalNews) -> Result<SignalsDone> {
    let mut done = SignalsDone::default();
    if news.signals.is_empty() {
        return Ok(done);
    }
    let (mut sessions, mut messages) = (Vec::new(), Vec::new());
    for signal in &news.signals {
        match &signal.about {
            About::Session(id) => sessions.push(id.as_str()),
            About::Message(id) => messages.push(id.as_str()),
        }
    }
    let places = Places::look_up(conn, sessions, messages).await?;
    let (mut known, mut unknown, mut found) = (Vec::new(), Vec::new(), Vec::new());
    for signal in &news.signals {
        let NewSignal { about, sender, message_id, payload, heard_at } = signal;
        let (session_id, target_message_id, place) = match about {
            About::Session(id) => (id.as_str(), "", places.of_session(id)),
            About::Message(id) => ("", id.as_str(), places.of_message(id)),
        };
        match place {
            Place::Run(id) => {
                known.push(inbox_row(id, sender, message_id, payload, *heard_at));
                found.push(id);
            }
            Place::Unknown => unknown.push(HeldRow {
                session_id,
                target_message_id,
                sender,
                message_id,
                payload,
                heard_at: *heard_at,
            }),
            Place::Ambiguous => done.ambiguous += 1,
        }
    }
    (done.recorded, done.held) = (known.len(), unknown.len());
    done.runs = distinct_runs(found);
    if !known.is_empty() {
        dialect::insert_inbox(conn, known).await?;
    }
    if !unknown.is_empty() {
        dialect::insert_held(conn, unknown).await?;
        done.crowded_out = make_room(conn, news.hold_at_most).await?;
    }
    Ok(done)
}

/// Drops the oldest held signals beyond `at_most`.
async fn make_room(conn: &mut Connection, at_most: i64) -> Result<usize> {
    let kept: Option<i64> = held::table
        .select(held::id)
        .order(held::id.desc())
        .offset(at_most)
        .first(conn)
        .await
        .optional()?;
    match kept {
        Some(last) => {
            Ok(diesel::delete(held::table.filter(held::id.le(last))).execute(conn).await?)
        }
        None => Ok(0),
    }
}

async fn put_gap(conn: &mut Connection, gap: &SignalGap) -> Result<()> {
    let SignalGap { from, to, reason } = gap;
    if to.is_some_and(|to| to <= *from) {
        let none = gaps::table.find(*from).filter(gaps::to_at.is_null());
        diesel::delete(none).execute(conn).await?;
        return Ok(());
    }
    diesel::insert_into(gaps::table)
        .values((gaps::from_at.eq(*from), gaps::to_at.eq(*to), gaps::reason.eq(reason.as_str())))
        .on_conflict_do_nothing()
        .execute(conn)
        .await?;
    if let Some(to) = to {
        // A gap that has an end keeps it, unless it turns out to be longer.
        let shorter = gaps::to_at.is_null().or(gaps::to_at.lt(*to));
        diesel::update(gaps::table.find(*from).filter(shorter))
            .set(gaps::to_at.eq(Some(*to)))
            .execute(conn)
            .await?;
    }
    Ok(())
}

/// Looks for the runs of at most `limit` held signals after the id `after`.
pub(crate) async fn held_found(conn: &mut Connection, after: i64, limit: i64) -> Result<HeldFound> {
    let page: Vec<(i64, String, String)> = held::table
        .filter(held::id.gt(after))
        .order(held::id.asc())
        .limit(limit)
        .select((held::id, held::session_id, held::target_message_id))
        .load(conn)
        .await?;
    let named = |text: &str| !text.is_empty();
    let sessions = page.iter().map(|row| row.1.as_str()).filter(|id| named(id)).collect();
    let messages = page.iter().map(|row| row.2.as_str()).filter(|id| named(id)).collect();
    let places = Places::look_up(conn, sessions, messages).await?;
    let last = page.last().map(|row| row.0);
    let mut found = HeldFound { last, known: Vec::new(), ambiguous: Vec::new(), waiting: 0 };
    for (id, session, message) in &page {
        let place =
            if named(session) { places.of_session(session) } else { places.of_message(message) };
        match place {
            Place::Run(run) => found.known.push((*id, run)),
            Place::Unknown => found.waiting += 1,
            Place::Ambiguous => found.ambiguous.push(*id),
        }
    }
    Ok(found)
}

/// Moves held signals to the inboxes of their runs, and drops the ambiguous ones.
pub(crate) async fn deliver(
    conn: &mut Connection,
    known: &[(i64, RunId)],
    ambiguous: &[i64],
) -> Result<SignalsDone> {
    conn.transaction(async |conn| {
        let places: HashMap<i64, RunId> = known.iter().copied().collect();
        // Whoever else delivers the same deletes it too, so each is counted by one.
        let mut taken: Vec<(i64, String, String, Value, Timestamp)> =
            diesel::delete(held::table.filter(held::id.eq_any(places.keys().copied())))
                .returning((
                    held::id,
                    held::sender,
                    held::message_id,
                    held::payload,
                    held::heard_at,
                ))
                .get_results(conn)
                .await?;
        taken.sort_by_key(|row| row.0);
        let (mut rows, mut found) = (Vec::new(), Vec::new());
        for (id, sender, message_id, payload, heard_at) in &taken {
            if let Some(run) = places.get(id) {
                rows.push(inbox_row(*run, sender, message_id, payload, *heard_at));
                found.push(*run);
            }
        }
        let recorded = rows.len();
        if !rows.is_empty() {
            dialect::insert_inbox(conn, rows).await?;
        }
        let dropped =
            diesel::delete(held::table.filter(held::id.eq_any(ambiguous.iter().copied())))
                .execute(conn)
                .await?;
        Ok(SignalsDone {
            runs: distinct_runs(found),
            recorded,
            ambiguous: dropped,
            ..SignalsDone::default()
        })
    })
    .await
}

/// Drops what is held since before then.
pub(crate) async fn expire(conn: &mut Connection, before: Timestamp) -> Result<usize> {
    Ok(diesel::delete(held::table.filter(held::heard_at.lt(before))).execute(conn).await?)
}

/// How many are held.
pub(crate) async fn held(conn: &mut Connection) -> Result<i64> {
    Ok(held::table.count().get_result(conn).await?)
}

type GapRow = (Timestamp, Option<Timestamp>, String);

fn gap((from, to, reason): GapRow) -> SignalGap {
    SignalGap { from, to, reason }
}

/// How far the watch is.
pub(crate) async fn watch_get(conn: &mut Connection) -> Result<SignalWatch> {
    let last: Option<Option<Timestamp>> = signal_watch::table
        .find(WATCH)
        .select(signal_watch::last_heard_at)
        .first(conn)
        .await
        .optional()?;
    let open: Option<GapRow> = gaps::table
        .filter(gaps::to_at.is_null())
        .order(gaps::from_at.asc())
        .first(conn)
        .await
        .optional()?;
    Ok(SignalWatch { last_heard_at: last.flatten(), open: open.map(gap) })
}

/// The gaps that touch a time.
pub(crate) async fn gaps(
    conn: &mut Connection,
    from: Timestamp,
    to: Option<Timestamp>,
) -> Result<Vec<SignalGap>> {
    let mut query = gaps::table
        .filter(gaps::to_at.is_null().or(gaps::to_at.ge(from)))
        .order(gaps::from_at.asc())
        .limit(MAX_GAPS)
        .into_boxed::<super::Db>();
    if let Some(to) = to {
        query = query.filter(gaps::from_at.le(to));
    }
    let rows: Vec<GapRow> = query.load(conn).await?;
    Ok(rows.into_iter().map(gap).collect())
}
