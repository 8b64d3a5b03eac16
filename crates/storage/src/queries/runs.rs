//! Rows of `runs`.

use control_plane_domain::event::ChainHash;
use control_plane_domain::run::{Run, RunMode, RunState};
use control_plane_domain::{RunId, SessionId, Timestamp};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::Value;

use super::dialect;
use super::schema::runs;
use super::{Connection, Db};
use crate::error::{Entity, Error, Result};
use crate::model::{Head, Page, RunCursor, RunFilter, RunOrder};
use crate::types::DbUuid;

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = runs, treat_none_as_default_value = false)]
pub(super) struct RunRow {
    pub(super) id: DbUuid,
    status: String,
    mode: String,
    runtime_kind: String,
    runtime_version: Option<String>,
    runtime_session_id: Option<String>,
    trace_id: Option<String>,
    idempotency_key: Option<String>,
    request_hash: Option<String>,
    last_event_seq: i64,
    source_kind: Option<String>,
    source_ref: Option<String>,
    tags: Value,
    metadata: Value,
    error_code: Option<String>,
    error_message: Option<String>,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    updated_at: Timestamp,
    archived_at: Option<Timestamp>,
    parked_reason: Option<String>,
    imported_at: Option<Timestamp>,
}

/// The columns of a new row that a [`Run`] does not show.
#[derive(Insertable)]
#[diesel(table_name = runs, treat_none_as_default_value = false)]
pub(super) struct HiddenColumns {
    chain_hash: Vec<u8>,
    environment: Option<String>,
    scenario_ref: Option<String>,
    owner: Option<i64>,
    epoch: i64,
    rolled_up: Option<bool>,
}

impl From<&Run> for RunRow {
    fn from(run: &Run) -> Self {
        Self {
            id: DbUuid(run.id.0),
            status: run.state.as_str().to_owned(),
            mode: run.mode.as_str().to_owned(),
            runtime_kind: run.runtime_kind.clone(),
            runtime_version: run.runtime_version.clone(),
            runtime_session_id: run.session_id.as_ref().map(|id| id.as_str().to_owned()),
            trace_id: run.trace_id.clone(),
            idempotency_key: run.idempotency_key.clone(),
            request_hash: run.request_hash.clone(),
            last_event_seq: run.last_seq,
            source_kind: run.source_kind.clone(),
            source_ref: run.source_ref.clone(),
            tags: Value::from(run.tags.clone()),
            metadata: Value::Object(run.metadata.clone()),
            error_code: run.error_code.clone(),
            error_message: run.error_message.clone(),
            created_at: run.created_at,
            started_at: run.started_at,
            ended_at: run.ended_at,
            updated_at: run.updated_at,
            archived_at: run.archived_at,
            parked_reason: run.parked_reason.clone(),
            imported_at: run.imported_at,
        }
    }
}

impl TryFrom<RunRow> for Run {
    type Error = Error;

    fn try_from(row: RunRow) -> Result<Self> {
        let corrupt =
            |column| Error::Corrupt { entity: Entity::Run, id: row.id.0.to_string(), column };
        let mode = match row.mode.as_str() {
            "live" => RunMode::Live,
            "sandbox" => RunMode::Sandbox,
            _ => return Err(corrupt("mode")),
        };
        let Value::Object(metadata) = row.metadata else { return Err(corrupt("metadata")) };
        Ok(Self {
            id: RunId(row.id.0),
            state: row.status.parse::<RunState>().map_err(|_unknown| corrupt("status"))?,
            mode,
            tags: serde_json::from_value(row.tags).map_err(|_not_texts| corrupt("tags"))?,
            metadata,
            runtime_kind: row.runtime_kind,
            runtime_version: row.runtime_version,
            session_id: row.runtime_session_id.map(SessionId::trusted),
            trace_id: row.trace_id,
            idempotency_key: row.idempotency_key,
            request_hash: row.request_hash,
            last_seq: row.last_event_seq,
            source_kind: row.source_kind,
            source_ref: row.source_ref,
            error_code: row.error_code,
            error_message: row.error_message,
            created_at: row.created_at,
            started_at: row.started_at,
            ended_at: row.ended_at,
            updated_at: row.updated_at,
            archived_at: row.archived_at,
            parked_reason: row.parked_reason,
            imported_at: row.imported_at,
        })
    }
}

/// Inserts a run; `false` when its id, session or idempotency key is taken.
pub(crate) async fn insert(
    conn: &mut Connection,
    run: &Run,
    chain: ChainHash,
    owner: Option<i64>,
) -> Result<bool> {
    let inserted = diesel::insert_into(runs::table)
        .values(row(run, chain, owner))
        .on_conflict_do_nothing()
        .execute(conn)
        .await?;
    Ok(inserted == 1)
}

/// A new run's columns.
pub(super) fn row(run: &Run, chain: ChainHash, owner: Option<i64>) -> (RunRow, HiddenColumns) {
    let hidden = HiddenColumns {
        chain_hash: chain.0.to_vec(),
        environment: filed(run, "environment"),
        scenario_ref: filed(run, "scenarioRef"),
        owner,
        epoch: 1,
        // Whoever inserts the row counts the run in the same transaction; other servers' runs are
        // theirs to count.
        rolled_up: run.imported_at.is_none().then_some(true),
    };
    (RunRow::from(run), hidden)
}

/// A text of the run's metadata that has a column of its own, so that filters find it.
pub(super) fn filed(run: &Run, key: &str) -> Option<String> {
    run.metadata.get(key).and_then(Value::as_str).map(str::to_owned)
}

/// Loads a run.
pub(crate) async fn get(conn: &mut Connection, id: RunId) -> Result<Run> {
    runs::table
        .find(DbUuid(id.0))
        .select(RunRow::as_select())
        .first(conn)
        .await
        .optional()?
        .ok_or_else(|| Error::run_not_found(id))?
        .try_into()
}

/// The run that follows a session.
pub(crate) async fn by_session(conn: &mut Connection, id: &SessionId) -> Result<Option<Run>> {
    let row = runs::table
        .filter(runs::runtime_session_id.eq(id.as_str()))
        .select(RunRow::as_select())
        .first(conn)
        .await
        .optional()?;
    row.map(Run::try_from).transpose()
}

/// The run that an idempotency key made.
pub(crate) async fn by_key(conn: &mut Connection, key: &str) -> Result<Option<Run>> {
    let row = runs::table
        .filter(runs::idempotency_key.eq(key))
        .select(RunRow::as_select())
        .first(conn)
        .await
        .optional()?;
    row.map(Run::try_from).transpose()
}

/// How far a run is.
pub(crate) async fn head(conn: &mut Connection, id: RunId) -> Result<Head> {
    let (status, last_seq, hash, imported): (String, i64, Vec<u8>, bool) = runs::table
        .find(DbUuid(id.0))
        .select((
            runs::status,
            runs::last_event_seq,
            runs::chain_hash,
            runs::imported_at.is_not_null(),
        ))
        .first(conn)
        .await
        .optional()?
        .ok_or_else(|| Error::run_not_found(id))?;
    let corrupt = |column| Error::Corrupt { entity: Entity::Run, id: id.to_string(), column };
    Ok(Head {
        state: status.parse().map_err(|_unknown| corrupt("status"))?,
        last_seq,
        hash: ChainHash(hash.try_into().map_err(|_length| corrupt("chain_hash"))?),
        imported,
    })
}

/// A page of runs.
pub(crate) async fn list(conn: &mut Connection, filter: &RunFilter) -> Result<Page<Run>> {
    let total = filtered(filter).count().get_result(conn).await?;
    let mut query = filtered(filter).select(RunRow::as_select()).limit(filter.limit + 1);
    if let Some(RunCursor { at, id }) = filter.cursor {
        let id = DbUuid(id.0);
        // The first condition alone is what an index can start from.
        query = match (filter.order, filter.ascending) {
            (RunOrder::CreatedAt, true) => query
                .filter(runs::created_at.ge(at))
                .filter(runs::created_at.ne(at).or(runs::id.gt(id))),
            (RunOrder::CreatedAt, false) => query
                .filter(runs::created_at.le(at))
                .filter(runs::created_at.ne(at).or(runs::id.lt(id))),
            (RunOrder::UpdatedAt, true) => query
                .filter(runs::updated_at.ge(at))
                .filter(runs::updated_at.ne(at).or(runs::id.gt(id))),
            (RunOrder::UpdatedAt, false) => query
                .filter(runs::updated_at.le(at))
                .filter(runs::updated_at.ne(at).or(runs::id.lt(id))),
        };
    } else {
        query = query.offset(filter.offset);
    }
    query = match (filter.order, filter.ascending) {
        (RunOrder::CreatedAt, true) => query.order((runs::created_at.asc(), runs::id.asc())),
        (RunOrder::CreatedAt, false) => query.order((runs::created_at.desc(), runs::id.desc())),
        (RunOrder::UpdatedAt, true) => query.order((runs::updated_at.asc(), runs::id.asc())),
        (RunOrder::UpdatedAt, false) => query.order((runs::updated_at.desc(), runs::id.desc())),
    };
    let mut rows: Vec<RunRow> = query.load(conn).await?;
    let more = rows.len() > usize::try_from(filter.limit).unwrap_or(usize::MAX);
    rows.truncate(usize::try_from(filter.limit).unwrap_or(usize::MAX));
    let items = rows.into_iter().map(Run::try_from).collect::<Result<_>>()?;
    Ok(Page { items, total, more })
}

fn filtered(filter: &RunFilter) -> runs::BoxedQuery<'_, Db> {
    let mut query = runs::table.into_boxed::<Db>();
    if let Some(status) = filter.status {
        query = query.filter(runs::status.eq(status.as_str()));
    }
    for tag in &filter.tags {
        query = query.filter(dialect::has_tag(tag));
    }
    if let Some(after) = filter.created_after {
        query = query.filter(runs::created_at.gt(after));
    }
    if let Some(before) = filter.created_before {
        query = query.filter(runs::created_at.lt(before));
    }
    if !filter.include_sandbox {
        query = query.filter(runs::mode.ne("sandbox"));
    }
    if !filter.include_archived {
        query = query.filter(runs::archived_at.is_null());
    }
    if let Some(environment) = &filter.environment {
        query = query.filter(runs::environment.eq(environment));
    }
    if let Some(scenario) = &filter.scenario_ref {
        query = query.filter(dialect::contains("runs.scenario_ref", scenario));
    }
    if let Some(search) = &filter.search {
        query = query.filter(
            dialect::contains("CAST(runs.id AS text)", search)
                .or(dialect::contains("runs.runtime_session_id", search))
                .or(dialect::contains("runs.scenario_ref", search))
                .or(dialect::contains("runs.environment", search))
                .or(dialect::tag_contains(search)),
        );
    }
    query
}
