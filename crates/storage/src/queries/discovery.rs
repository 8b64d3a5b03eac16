//! Sessions held against runs, runs for sessions that nobody registered, and their adoption.

use std::collections::{HashMap, HashSet};

use control_plane_domain::event::ChainHash;
use control_plane_domain::{RunId, RunState, SessionId};
use diesel::dsl::exists;
use diesel::prelude::*;
use diesel_async::{AsyncConnection, RunQueryDsl};
use uuid::Uuid;

use super::schema::{runs, runtime_sessions, session_tombstones};
use super::{Connection, bulk, derived, events, ownership, rollups, runs as run_queries, sessions};
use crate::discovery::{ActiveSession, Adopted, Adoption, KnownSessions};
use crate::error::{Entity, Error, Result};
use crate::model::{LogEntry, NewRun};
use crate::types::DbUuid;

/// What is known of these sessions.
pub(crate) async fn known(conn: &mut Connection, ids: &[SessionId]) -> Result<KnownSessions> {
    let names: Vec<&str> = ids.iter().map(SessionId::as_str).collect();
    let rows: Vec<(Option<String>, DbUuid, String)> = runs::table
        .filter(runs::runtime_session_id.eq_any(&names))
        .select((runs::runtime_session_id, runs::id, runs::status))
        .load(conn)
        .await?;
    let mut known = KnownSessions::default();
    for (session, id, status) in rows {
        let state = status.parse().map_err(|_unknown| Error::Corrupt {
            entity: Entity::Run,
            id: id.0.to_string(),
            column: "status",
        })?;
        if let Some(session) = session {
            known.runs.insert(SessionId::trusted(session), (RunId(id.0), state));
        }
    }
    known.deleted = tombstones(conn, &names).await?;
    known.deleted.retain(|session| !known.runs.contains_key(session));
    let uuids: Vec<DbUuid> =
        names.iter().filter_map(|name| Uuid::try_parse(name).ok()).map(DbUuid).collect();
    let taken: Vec<DbUuid> =
        runs::table.filter(runs::id.eq_any(uuids)).select(runs::id).load(conn).await?;
    known.ids = taken.into_iter().map(|id| RunId(id.0)).collect();
    Ok(known)
}

async fn tombstones(conn: &mut Connection, names: &[&str]) -> Result<HashSet<SessionId>> {
    let rows: Vec<String> = session_tombstones::table
        .filter(session_tombstones::runtime_session_id.eq_any(names))
        .select(session_tombstones::runtime_session_id)
        .load(conn)
        .await?;
    Ok(rows.into_iter().map(SessionId::trusted).collect())
}

/// Inserts the runs whose session is free; the result has their entries with their positions.
///
/// Tombstones are looked for after the rows are in: a run of the same session that stood in the way
/// was deleted before, so its tombstone is there to be seen.
pub(crate) async fn create_all(
    conn: &mut Connection,
    new: Vec<NewRun>,
    owner: i64,
) -> Result<HashMap<RunId, Vec<LogEntry>>> {
    let mut new = new;
    // Two who insert the same sessions wait for each other in one direction only.
    new.sort_by(|one, other| one.session.session_id.cmp(&other.session.session_id));
    conn.transaction(async |conn| {
        let rows = new.iter().map(|new| {
            let chain = new.entries.last().map_or(ChainHash::EMPTY, |entry| entry.hash);
            run_queries::row(&new.run, chain, owner)
        });
        let inserted = bulk::runs(conn, rows.collect()).await?;
        let mut inserted: HashSet<RunId> = inserted.into_iter().map(|id| RunId(id.0)).collect();
        let names: Vec<&str> = new.iter().map(|new| new.session.session_id.as_str()).collect();
        let buried = tombstones(conn, &names).await?;
        let ours = |new: &&NewRun| inserted.contains(&new.run.id);
        let back: Vec<RunId> = new
            .iter()
            .filter(ours)
            .filter(|new| buried.contains(&new.session.session_id))
            .map(|new| new.run.id)
            .collect();
        if !back.is_empty() {
            let ids: Vec<DbUuid> = back.iter().map(|id| DbUuid(id.0)).collect();
            diesel::delete(runs::table.filter(runs::id.eq_any(ids))).execute(conn).await?;
            inserted.retain(|id| !back.contains(id));
        }
        let ours = |new: &&NewRun| inserted.contains(&new.run.id);
        let made: Vec<&NewRun> = new.iter().filter(ours).collect();
        if made.is_empty() {
            return Ok(HashMap::new());
        }
        let rows = made.iter().map(|new| sessions::SessionRow::from(&new.session));
        bulk::sessions(conn, rows.collect()).await?;
        let rows = made.iter().map(|new| derived::MetricsRow::from(&new.metrics));
        bulk::metrics(conn, rows.collect()).await?;
        let count = made.iter().map(|new| new.entries.len()).sum::<usize>();
        let first = events::take_positions(conn, i64::try_from(count).unwrap_or(i64::MAX)).await?;
        let mut placed: HashMap<RunId, Vec<LogEntry>> = HashMap::new();
        let mut rows = Vec::with_capacity(count);
        for (position, entry) in (first..).zip(made.iter().flat_map(|new| &new.entries)) {
            rows.push(events::EventRow::new(entry, position));
            let entry = LogEntry { position, ..entry.clone() };
            placed.entry(entry.run_id).or_default().push(entry);
        }
        bulk::events(conn, rows).await?;
        rollups::add_new(conn, made.iter().copied()).await?;
        Ok(placed)
    })
    .await
}

/// Gives a run that nobody posted to whoever posts it now.
pub(crate) async fn adopt(
    conn: &mut Connection,
    id: RunId,
    adoption: &Adoption,
) -> Result<Adopted> {
    conn.transaction(async |conn| {
        let unclaimed = runs::table.find(DbUuid(id.0)).filter(runs::request_hash.is_null());
        let unbound = runtime_sessions::table
            .filter(runtime_sessions::run_id.eq(runs::id))
            .filter(runtime_sessions::started_at_unix_ms.is_null());
        // There is nothing in it to have, and a new run may do better.
        let released = diesel::update(
            unclaimed.filter(runs::status.eq(RunState::Failed.as_str())).filter(exists(unbound)),
        )
        .set(runs::runtime_session_id.eq(None::<String>))
        .execute(conn)
        .await?;
        if released == 1 {
            return Ok(Adopted::Released);
        }
        let claimed = diesel::update(unclaimed)
            .set((
                runs::request_hash.eq(Some(&adoption.request_hash)),
                runs::idempotency_key.eq(&adoption.idempotency_key),
            ))
            .execute(conn)
            .await?;
        if claimed == 0 {
            return run_queries::head(conn, id).await.map(|_there| Adopted::Taken);
        }
        let Adoption { kind, dedup_key, payload, now, .. } = adoption;
        ownership::inbox_push(conn, id, kind, dedup_key, payload, *now).await?;
        Ok(Adopted::Done)
    })
    .await
}

/// Runs that are not over, with their sessions.
pub(crate) async fn active(
    conn: &mut Connection,
    after: Option<RunId>,
    limit: i64,
) -> Result<Vec<ActiveSession>> {
    type Row = (DbUuid, String, String, String, Option<i64>);
    let sessions = runtime_sessions::table.on(runtime_sessions::run_id.eq(runs::id));
    let rows: Vec<Row> = runs::table
        .inner_join(sessions)
        .filter(ownership::is_active())
        .filter(runs::id.gt(DbUuid(after.map_or(Uuid::nil(), |id| id.0))))
        .order(runs::id.asc())
        .limit(limit)
        .select((
            runs::id,
            runs::status,
            runtime_sessions::runtime_session_id,
            runtime_sessions::session_state,
            runtime_sessions::started_at_unix_ms,
        ))
        .load(conn)
        .await?;
    let active = |(id, status, session, session_state, started): Row| {
        let corrupt = |entity, column| Error::Corrupt { entity, id: id.0.to_string(), column };
        Ok(ActiveSession {
            run_id: RunId(id.0),
            state: status.parse().map_err(|_unknown| corrupt(Entity::Run, "status"))?,
            session_id: SessionId::trusted(session),
            session_state: session_state
                .parse()
                .map_err(|_unknown| corrupt(Entity::Session, "session_state"))?,
            bound: started.is_some(),
        })
    };
    rows.into_iter().map(active).collect()
}
