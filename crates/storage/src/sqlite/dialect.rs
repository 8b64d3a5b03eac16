//! Conditions and inserts that SQLite writes in its own way.

use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{Bool, Text};
use diesel::upsert::excluded;
use diesel_async::RunQueryDsl;

use super::rollups::RollupRow;
use super::schema::{held_signals, rollups, run_events_canonical, run_inbox, runs};
use super::signals::{HeldRow, InboxRow};
use super::{Connection, Db};
use crate::error::Result;
use crate::like;
use crate::rollups::Period;

type Condition<'a> = Box<dyn BoxableExpression<runs::table, Db, SqlType = Bool> + 'a>;

/// The run has this tag.
pub(super) fn has_tag<'a>(tag: &str) -> Condition<'a> {
    Box::new(
        sql::<Bool>("EXISTS (SELECT 1 FROM json_each(runs.tags) AS tag WHERE tag.value = ")
            .bind::<Text, _>(tag.to_owned())
            .sql(")"),
    )
}

/// `column` has `part` in it, whatever its case. A NULL has nothing.
pub(super) fn contains<'a>(column: &str, part: &str) -> Condition<'a> {
    Box::new(
        sql::<Bool>(&format!("COALESCE({column}, '') LIKE "))
            .bind::<Text, _>(like::anywhere(part))
            .sql(" ESCAPE '\\'"),
    )
}

/// One of the run's tags has `part` in it.
pub(super) fn tag_contains<'a>(part: &str) -> Condition<'a> {
    Box::new(
        sql::<Bool>("EXISTS (SELECT 1 FROM json_each(runs.tags) AS tag WHERE tag.value LIKE ")
            .bind::<Text, _>(like::anywhere(part))
            .sql(" ESCAPE '\\')"),
    )
}

/// The event's run belongs to a scenario: its source is exactly `scenario`, or its scenario has it
/// in its name, whatever the case of ASCII letters. `FeedFilter` says the same of events in memory.
pub(super) fn of_scenario<'a>(
    scenario: &str,
) -> Box<dyn BoxableExpression<run_events_canonical::table, Db, SqlType = Bool> + 'a> {
    Box::new(
        sql::<Bool>("run_events_canonical.run_id IN (SELECT id FROM runs WHERE runs.source_ref = ")
            .bind::<Text, _>(scenario.to_owned())
            .sql(" OR COALESCE(runs.scenario_ref, '') LIKE ")
            .bind::<Text, _>(like::anywhere(scenario))
            .sql(" ESCAPE '\\')"),
    )
}

/// Inserts inbox items that are not there yet.
pub(super) async fn insert_inbox(conn: &mut Connection, rows: Vec<InboxRow<'_>>) -> Result<()> {
    for row in rows {
        diesel::insert_into(run_inbox::table)
            .values(row)
            .on_conflict_do_nothing()
            .execute(conn)
            .await?;
    }
    Ok(())
}

/// Holds signals that are not held yet.
pub(super) async fn insert_held(conn: &mut Connection, rows: Vec<HeldRow<'_>>) -> Result<()> {
    for row in rows {
        diesel::insert_into(held_signals::table)
            .values(row)
            .on_conflict_do_nothing()
            .execute(conn)
            .await?;
    }
    Ok(())
}

type OfRollup = Box<dyn BoxableExpression<rollups::table, Db, SqlType = Bool>>;

/// The bucket is one of those that make up the period.
pub(super) fn within(period: &Period) -> OfRollup {
    let mut within: OfRollup = Box::new(sql::<Bool>("FALSE"));
    for tile in period.tiles() {
        let tile = rollups::grain
            .eq(tile.grain.minutes())
            .and(rollups::bucket.ge(tile.from))
            .and(rollups::bucket.lt(tile.to));
        within = Box::new(within.or(tile));
    }
    within
}

/// The sum is of runs whose source is exactly `scenario`, or whose scenario has it in its name.
pub(super) fn filed_under(scenario: &str) -> OfRollup {
    Box::new(
        sql::<Bool>("(rollups.source_ref = ")
            .bind::<Text, _>(control_plane_domain::rollup::name(scenario).into_owned())
            .sql(" OR rollups.scenario_ref LIKE ")
            .bind::<Text, _>(like::anywhere(scenario))
            .sql(" ESCAPE '\\')"),
    )
}

/// The same of a run.
pub(super) fn run_filed_under<'a>(scenario: &str) -> Condition<'a> {
    Box::new(
        sql::<Bool>("(COALESCE(runs.source_ref, '') = ")
            .bind::<Text, _>(scenario.to_owned())
            .sql(" OR COALESCE(runs.scenario_ref, '') LIKE ")
            .bind::<Text, _>(like::anywhere(scenario))
            .sql(" ESCAPE '\\')"),
    )
}

/// Changes sums.
pub(super) async fn add_rollups(conn: &mut Connection, rows: Vec<RollupRow>) -> Result<()> {
    for row in rows {
        diesel::insert_into(rollups::table)
            .values(row)
            .on_conflict(rollups::table.primary_key())
            .do_update()
            .set((
                rollups::count.eq(rollups::count + excluded(rollups::count)),
                rollups::sum.eq(rollups::sum + excluded(rollups::sum)),
            ))
            .execute(conn)
            .await?;
    }
    Ok(())
}

/// Makes all reads of the transaction that has just begun see the same moment: they do.
#[expect(clippy::unused_async, reason = "the other database has to ask for it")]
pub(super) async fn freeze(_conn: &mut Connection) -> Result<()> {
    Ok(())
}
