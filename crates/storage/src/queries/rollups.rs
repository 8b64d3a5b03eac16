//! Rows of `rollups`, and whether a run is in them (`runs.rolled_up`).
//!
//! The feed's row is locked before the first sum is touched, by every writer: so they never wait for
//! each other at the sums, and never in a circle.

use std::collections::HashMap;

use control_plane_domain::metrics::RunMetrics;
use control_plane_domain::rollup::{self, Amount, Fact, Figures, Filing, Key, Rollups, Sign};
use control_plane_domain::{EventType, Run, RunId, RunState, Seq, Timestamp};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use diesel_async::{AsyncConnection, RunQueryDsl};
use serde_json::{Map, Value};

use super::runs::RunRow;
use super::schema::{rollups, run_events_canonical as events, run_metrics, runs};
use super::{Connection, derived, dialect, events as event_queries};
use crate::error::Result;
use crate::model::NewRun;
use crate::rollups::{FilingFilter, Missing, Period, SourceSum, Sum, Total, Waiting};
use crate::types::DbUuid;

/// Events of a page that is counted.
const PAGE: i64 = 2000;
/// Most runs in one answer of those that are not counted yet.
const MAX_MISSING: i64 = 200;
/// Most events of runs that are counted together.
const MAX_EVENTS: i64 = 10 * PAGE;

/// A sum that changes.
#[derive(Debug, Clone, PartialEq, Insertable)]
#[diesel(table_name = rollups)]
pub(super) struct RollupRow {
    whole: bool,
    grain: i32,
    figure: &'static str,
    bucket: Timestamp,
    subject: String,
    environment: String,
    source_ref: String,
    scenario_ref: String,
    count: i64,
    sum: i64,
}

impl RollupRow {
    /// The changes, in the order of their keys.
    pub(super) fn all(changes: &Rollups) -> Vec<Self> {
        changes.iter().map(|(key, amount)| Self::new(key, amount)).collect()
    }

    fn new(key: &Key, amount: Amount) -> Self {
        let Filing { environment, source_ref, scenario_ref } =
            key.filing.clone().unwrap_or_default();
        Self {
            whole: key.filing.is_none(),
            grain: key.grain.minutes(),
            figure: key.figure.as_str(),
            bucket: key.bucket,
            subject: key.subject.clone(),
            environment,
            source_ref,
            scenario_ref,
            count: amount.count,
            sum: amount.sum,
        }
    }
}

/// Counts runs that were made in this transaction. The feed's row is locked.
pub(super) async fn add_new<'a>(
    conn: &mut Connection,
    new: impl Iterator<Item = &'a NewRun>,
) -> Result<()> {
    let mut changes = Rollups::default();
    for NewRun { run, metrics, .. } in new {
        changes.file(&Filing::of(run), &rollup::standing(run, metrics), Sign::Plus);
    }
    dialect::add_rollups(conn, RollupRow::all(&changes)).await
}

/// What a run's events after `after` add, up to `until`, to the figures; and the last
/// one, if there may be more.
async fn count_page(
    conn: &mut Connection,
    figures: &mut Figures,
    id: RunId,
    after: Seq,
    until: Seq,
    created: Timestamp,
) -> Result<Option<Seq>> {
    type Row = (i64, Timestamp, String, Option<String>, String);
    let rows: Vec<Row> = events::table
        .filter(events::run_id.eq(DbUuid(id.0)))
        .filter(events::seq.gt(after))
        .filter(events::seq.le(until))
        .order(events::seq.asc())
        .limit(PAGE)
        .select((events::seq, events::ts, events::event_type, events::subject_id, events::body))
        .load(conn)
        .await?;
    let is_full = i64::try_from(rows.len()).is_ok_and(|count| count == PAGE);
    let last = rows.last().filter(|_| is_full).map(|(seq, ..)| *seq);
    for (_seq, ts, event_type, subject, body) in rows {
        // What does not read as an event of ours was not counted either.
        let Ok(event_type) = event_type.parse() else { continue };
        if !Fact::counts(event_type) {
            continue;
        }
        let Some(data) = data_of(&body) else { continue };
        let fact = Fact { event_type, ts, subject: subject.as_deref(), data: &data };
        rollup::event(figures, &fact, created);
    }
    Ok(last)
}

fn data_of(body: &str) -> Option<Map<String, Value>> {
    #[derive(serde::Deserialize)]
    struct Body {
        data: Map<String, Value>,
    }
    serde_json::from_str::<Body>(body).ok().map(|body| body.data)
}

/// What a run's events up to `until` add, page by page.
pub(crate) async fn figures(conn: &mut Connection, id: RunId, until: Seq) -> Result<Figures> {
    let created: Option<Timestamp> =
        runs::table.find(DbUuid(id.0)).select(runs::created_at).first(conn).await.optional()?;
    let mut figures = Figures::default();
    if let Some(created) = created {
        count_on(conn, &mut figures, id, 0, until, created).await?;
    }
    Ok(figures)
}

async fn count_on(
    conn: &mut Connection,
    figures: &mut Figures,
    id: RunId,
    after: Seq,
    until: Seq,
    created: Timestamp,
) -> Result<()> {
    let mut after = after;
    while let Some(last) = count_page(conn, figures, id, after, until, created).await? {
        after = last;
    }
    Ok(())
}

/// A run as it is in this transaction, which nobody else changes any more.
pub(super) struct Held {
    pub(super) run: Run,
    pub(super) rolled_up: Option<bool>,
}

/// Locks the row of a run to the end of the transaction; `None` when there is no such run.
pub(super) async fn hold(conn: &mut Connection, id: RunId) -> Result<Option<Held>> {
    // An update that changes nothing locks on both databases.
    let held: Option<(RunRow, Option<bool>)> = diesel::update(runs::table.find(DbUuid(id.0)))
        .set(runs::updated_at.eq(runs::updated_at))
        .returning((RunRow::as_returning(), runs::rolled_up))
        .get_result(conn)
        .await
        .optional()?;
    let held = held.map(|(row, rolled_up)| Ok(Held { run: row.try_into()?, rolled_up }));
    held.transpose()
}

/// What a run whose row is held adds, or takes away, given what its events up to `counted` add.
pub(super) async fn share(
    conn: &mut Connection,
    run: &Run,
    mut figures: Figures,
    counted: Seq,
    sign: Sign,
) -> Result<Rollups> {
    count_on(conn, &mut figures, run.id, counted, run.last_seq, run.created_at).await?;
    let metrics = derived::metrics_get(conn, run.id).await?;
    let metrics = metrics.unwrap_or_else(|| RunMetrics::empty(run.id));
    figures.merge(&rollup::standing(run, &metrics));
    let mut changes = Rollups::default();
    changes.file(&Filing::of(run), &figures, sign);
    Ok(changes)
}

/// Changes the sums. Nobody can append before the transaction ends, so it should be its last step.
pub(super) async fn apply(conn: &mut Connection, changes: &Rollups) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    event_queries::take_positions(conn, 0).await?;
    dialect::add_rollups(conn, RollupRow::all(changes)).await
}

/// Counts a run that an older version has recorded; `false` when that is done, or the run is gone.
///
/// Its log is read before the transaction, so that a long one locks nothing; what came meanwhile is
/// read in it. What is appended later counts itself.
pub(crate) async fn catch_up(conn: &mut Connection, id: RunId) -> Result<bool> {
    let last: Option<i64> =
        runs::table.find(DbUuid(id.0)).select(runs::last_event_seq).first(conn).await.optional()?;
    let Some(last) = last else { return Ok(false) };
    // One page locks nobody out for long.
    let last = if last > PAGE { last } else { 0 };
    let read = if last > 0 { figures(conn, id, last).await? } else { Figures::default() };
    conn.transaction(async |conn| {
        let Some(Held { run, rolled_up: Some(false) }) = hold(conn, id).await? else {
            return Ok(false);
        };
        let changes = share(conn, &run, read, last, Sign::Plus).await?;
        diesel::update(runs::table.find(DbUuid(id.0)))
            .set(runs::rolled_up.eq(Some(true)))
            .execute(conn)
            .await?;
        apply(conn, &changes).await?;
        Ok(true)
    })
    .await
}

/// Counts runs that are over and have short logs, all at once: who has a hundred thousand of them does
/// not want to wait for each. Those that somebody else has counted meanwhile are left alone.
pub(crate) async fn catch_up_small(conn: &mut Connection, ids: &[RunId]) -> Result<()> {
    let ids: Vec<DbUuid> = ids.iter().map(|id| DbUuid(id.0)).collect();
    conn.transaction(async |conn| {
        let target = runs::table
            .filter(runs::id.eq_any(&ids))
            .filter(runs::rolled_up.eq(false))
            .filter(runs::last_event_seq.le(PAGE));
        let rows: Vec<RunRow> = diesel::update(target)
            .set(runs::rolled_up.eq(Some(true)))
            .returning(RunRow::as_returning())
            .get_results(conn)
            .await?;
        let mut counted: HashMap<RunId, (Run, Figures)> = HashMap::new();
        for row in rows {
            let run = Run::try_from(row)?;
            counted.insert(run.id, (run, Figures::default()));
        }
        let ids: Vec<DbUuid> = counted.keys().map(|id| DbUuid(id.0)).collect();
        count_small(conn, &ids, &mut counted).await?;
        let metrics: Vec<derived::MetricsRow> = run_metrics::table
            .filter(run_metrics::run_id.eq_any(&ids))
            .select(derived::MetricsRow::as_select())
            .load(conn)
            .await?;
        let mut metrics: HashMap<RunId, RunMetrics> = metrics
            .into_iter()
            .map(RunMetrics::from)
            .map(|metrics| (metrics.run_id, metrics))
            .collect();
        let mut changes = Rollups::default();
        for (id, (run, mut figures)) in counted {
            let metrics = metrics.remove(&id).unwrap_or_else(|| RunMetrics::empty(id));
            figures.merge(&rollup::standing(&run, &metrics));
            changes.file(&Filing::of(&run), &figures, Sign::Plus);
        }
        apply(conn, &changes).await
    })
    .await
}

async fn count_small(
    conn: &mut Connection,
    ids: &[DbUuid],
    counted: &mut HashMap<RunId, (Run, Figures)>,
) -> Result<()> {
    type Row = (DbUuid, Timestamp, String, Option<String>, String);
    let types = EventType::ALL.iter().filter(|event_type| Fact::counts(**event_type));
    let types: Vec<&str> = types.map(|event_type| event_type.as_str()).collect();
    let rows: Vec<Row> = events::table
        .filter(events::run_id.eq_any(ids))
        .filter(events::event_type.eq_any(types))
        .select((events::run_id, events::ts, events::event_type, events::subject_id, events::body))
        .load(conn)
        .await?;
    for (id, ts, event_type, subject, body) in rows {
        let Ok(event_type) = event_type.parse() else { continue };
        let Some(data) = data_of(&body) else { continue };
        if let Some((run, figures)) = counted.get_mut(&RunId(id.0)) {
            let fact = Fact { event_type, ts, subject: subject.as_deref(), data: &data };
            rollup::event(figures, &fact, run.created_at);
        }
    }
    Ok(())
}

/// Some runs that an older version has recorded, and nobody has counted yet.
pub(crate) async fn missing(conn: &mut Connection) -> Result<Missing> {
    let rows: Vec<(DbUuid, String, i64)> = runs::table
        .filter(runs::rolled_up.eq(false))
        .order(runs::id.asc())
        .limit(MAX_MISSING)
        .select((runs::id, runs::status, runs::last_event_seq))
        .load(conn)
        .await?;
    let mut missing = Missing::default();
    let mut events = 0;
    for (id, status, last) in rows {
        let over = status.parse::<RunState>().is_ok_and(RunState::is_terminal);
        if over && last <= PAGE && events + last <= MAX_EVENTS {
            events += last;
            missing.small.push(RunId(id.0));
        } else {
            missing.others.push(RunId(id.0));
        }
    }
    Ok(missing)
}

/// The sums of some figures over a period, where runs are filed as the filter says.
pub(crate) async fn sums(
    conn: &mut Connection,
    figures: &[&'static str],
    period: &Period,
    filter: &FilingFilter,
) -> Result<Vec<Sum>> {
    type Row = (String, Timestamp, String, i64, i64);
    let mut query = rollups::table
        .group_by((rollups::figure, rollups::bucket, rollups::subject))
        .select((
            rollups::figure,
            rollups::bucket,
            rollups::subject,
            sql::<BigInt>("CAST(SUM(rollups.count) AS bigint)"),
            sql::<BigInt>("CAST(SUM(rollups.sum) AS bigint)"),
        ))
        .into_boxed()
        .filter(rollups::whole.eq(filter.is_open()))
        .filter(rollups::figure.eq_any(figures))
        .filter(dialect::within(period));
    if let Some(environment) = &filter.environment {
        query = query.filter(rollups::environment.eq(rollup::name(environment)));
    }
    if let Some(scenario) = &filter.scenario {
        query = query.filter(dialect::filed_under(scenario));
    }
    let rows: Vec<Row> = query.load(conn).await?;
    let sum = |(figure, bucket, subject, count, sum): Row| {
        let figure = rollup::Figure::named(&figure)?;
        Some(Sum { figure, bucket, subject, amount: Amount::new(count, sum) })
    };
    Ok(rows.into_iter().filter_map(sum).filter(|sum| !sum.amount.is_zero()).collect())
}

/// The sums of some figures over all of a period, one for each subject.
pub(crate) async fn totals(
    conn: &mut Connection,
    figures: &[&'static str],
    period: &Period,
    filter: &FilingFilter,
) -> Result<Vec<Total>> {
    let mut query = rollups::table
        .group_by((rollups::figure, rollups::subject))
        .select((
            rollups::figure,
            rollups::subject,
            sql::<BigInt>("CAST(SUM(rollups.count) AS bigint)"),
            sql::<BigInt>("CAST(SUM(rollups.sum) AS bigint)"),
        ))
        .into_boxed()
        .filter(rollups::whole.eq(filter.is_open()))
        .filter(rollups::figure.eq_any(figures))
        .filter(dialect::within(period));
    if let Some(environment) = &filter.environment {
        query = query.filter(rollups::environment.eq(rollup::name(environment)));
    }
    if let Some(scenario) = &filter.scenario {
        query = query.filter(dialect::filed_under(scenario));
    }
    let rows: Vec<(String, String, i64, i64)> = query.load(conn).await?;
    let total = |(figure, subject, count, sum): (String, String, i64, i64)| {
        let figure = rollup::Figure::named(&figure)?;
        Some(Total { figure, subject, amount: Amount::new(count, sum) })
    };
    Ok(rows.into_iter().filter_map(total).filter(|total| !total.amount.is_zero()).collect())
}

/// The sources with the most of a figure over a period, most first.
pub(crate) async fn sources(
    conn: &mut Connection,
    figure: &'static str,
    period: &Period,
    filter: &FilingFilter,
    limit: i64,
) -> Result<Vec<SourceSum>> {
    let count = || sql::<BigInt>("CAST(SUM(rollups.count) AS bigint)");
    let mut query = rollups::table
        .group_by(rollups::source_ref)
        .select((rollups::source_ref, count()))
        .order((count().desc(), rollups::source_ref.asc()))
        .limit(limit)
        .into_boxed()
        .filter(rollups::whole.eq(false))
        .filter(rollups::figure.eq(figure))
        .filter(dialect::within(period));
    if let Some(environment) = &filter.environment {
        query = query.filter(rollups::environment.eq(rollup::name(environment)));
    }
    if let Some(scenario) = &filter.scenario {
        query = query.filter(dialect::filed_under(scenario));
    }
    let rows: Vec<(String, i64)> = query.load(conn).await?;
    let rows = rows.into_iter().filter(|(_, count)| *count > 0);
    Ok(rows.map(|(source_ref, count)| SourceSum { source_ref, count }).collect())
}

/// Every sum that is kept.
pub(crate) async fn kept(conn: &mut Connection) -> Result<Rollups> {
    type Row = (bool, i32, String, Timestamp, String, String, String, String, i64, i64);
    let rows: Vec<Row> = rollups::table.select(rollups::all_columns).load(conn).await?;
    let sum = |row: Row| {
        let (whole, grain, figure, bucket, subject, environment, source_ref, scenario_ref, ..) =
            row;
        let key = Key {
            filing: (!whole).then_some(Filing { environment, source_ref, scenario_ref }),
            grain: rollup::Grain::of_minutes(grain)?,
            figure: rollup::Figure::named(&figure)?,
            bucket,
            subject,
        };
        Some((key, Amount::new(row.8, row.9)))
    };
    Ok(rows.into_iter().filter_map(sum).collect())
}

/// When runs of a period were created that are in one of these states now. They are few, so they
/// are looked up rather than counted.
pub(crate) async fn waiting(
    conn: &mut Connection,
    states: &[&'static str],
    from: Timestamp,
    to: Timestamp,
    filter: &FilingFilter,
) -> Result<Vec<Waiting>> {
    let mut query = runs::table
        .select((runs::status, runs::created_at))
        .into_boxed()
        .filter(runs::status.eq_any(states))
        .filter(runs::rolled_up.eq(true))
        .filter(runs::created_at.ge(from))
        .filter(runs::created_at.lt(to));
    if let Some(environment) = &filter.environment {
        query = query.filter(runs::environment.eq(environment));
    }
    if let Some(scenario) = &filter.scenario {
        query = query.filter(dialect::run_filed_under(scenario));
    }
    let rows: Vec<(String, Timestamp)> = query.load(conn).await?;
    let waiting = |(status, created_at): (String, Timestamp)| {
        Some(Waiting { state: status.parse().ok()?, created_at })
    };
    Ok(rows.into_iter().filter_map(waiting).collect())
}

/// The newest runs that are neither archived, nor for practice, nor another server's.
pub(crate) async fn recent(
    conn: &mut Connection,
    filter: &FilingFilter,
    limit: i64,
) -> Result<Vec<Run>> {
    let mut query = runs::table
        .select(RunRow::as_select())
        .into_boxed()
        .filter(runs::mode.ne("sandbox"))
        .filter(runs::archived_at.is_null())
        .filter(runs::imported_at.is_null())
        .order((runs::created_at.desc(), runs::id.desc()))
        .limit(limit);
    if let Some(environment) = &filter.environment {
        query = query.filter(runs::environment.eq(environment));
    }
    if let Some(scenario) = &filter.scenario {
        query = query.filter(dialect::run_filed_under(scenario));
    }
    let rows: Vec<RunRow> = query.load(conn).await?;
    rows.into_iter().map(Run::try_from).collect()
}
