//! The schema that diesel compiles against is the schema that the migrations make.
//!
//! `cargo xtask schema --check` runs these tests: `schema.rs` is written by hand, so nothing else
//! would notice that a column is missing or may be null.

#![expect(
    clippy::unwrap_used,
    reason = "clippy takes only functions with `#[test]` for tests, not what they call"
)]

use std::collections::{BTreeMap, BTreeSet};

use control_plane_testkit::database::TestDb;

mod declared;
mod postgres;
mod sqlite;

use declared::{Dialect, declared, downs, migrations, ups};

/// A column: its type in the database, and whether it may be null.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Column {
    kind: String,
    nullable: bool,
}

/// Every table with its columns.
type Tables = BTreeMap<String, BTreeMap<String, Column>>;

/// What only one side has, as lines that can be read.
fn differences(found: &Tables, declared: &Tables) -> Vec<String> {
    let lines = |tables: &Tables| -> BTreeSet<String> {
        let columns = tables.iter().flat_map(|(table, columns)| {
            columns.iter().map(move |(name, Column { kind, nullable })| {
                let null = if *nullable { "null" } else { "not null" };
                format!("{table}.{name} {kind} {null}")
            })
        });
        columns.collect()
    };
    let (found, declared) = (lines(found), lines(declared));
    let only_found = found.difference(&declared).map(|line| format!("only migrated: {line}"));
    let only_declared = declared.difference(&found).map(|line| format!("only declared: {line}"));
    only_found.chain(only_declared).collect()
}

#[tokio::test]
async fn postgres_has_the_columns_that_diesel_sees() {
    let database = TestDb::postgres();

    let found = postgres::tables(&postgres::connect(database.url()).await).await;

    assert_eq!(differences(&found, &declared(Dialect::Postgres)), Vec::<String>::new());
}

#[test]
fn sqlite_has_the_columns_that_diesel_sees() {
    let database = TestDb::sqlite();

    let found = sqlite::tables(&mut sqlite::connect(database.url()));

    assert_eq!(differences(&found, &declared(Dialect::Sqlite)), Vec::<String>::new());
}

#[test]
fn both_databases_have_the_same_tables_and_migrations() {
    let shape = |dialect| -> BTreeMap<String, Vec<(String, bool)>> {
        let columns = |columns: BTreeMap<String, Column>| {
            columns.into_iter().map(|(name, column)| (name, column.nullable)).collect()
        };
        declared(dialect).into_iter().map(|(name, table)| (name, columns(table))).collect()
    };

    assert_eq!(shape(Dialect::Postgres), shape(Dialect::Sqlite));
    assert_eq!(migrations(Dialect::Postgres), migrations(Dialect::Sqlite));
}

#[tokio::test]
async fn going_up_down_and_up_leaves_the_same_schema_in_postgres() {
    let database = TestDb::postgres_empty();
    let client = postgres::connect(database.url()).await;

    let empty = postgres::dump(&client).await;
    postgres::execute(&client, &ups(Dialect::Postgres)).await;
    let first = postgres::dump(&client).await;
    postgres::execute(&client, &downs(Dialect::Postgres)).await;
    let reverted = postgres::dump(&client).await;
    postgres::execute(&client, &ups(Dialect::Postgres)).await;
    let second = postgres::dump(&client).await;

    assert_eq!(reverted, empty);
    assert_eq!(second, first);
    assert_ne!(first, empty);
}

#[test]
fn going_up_down_and_up_leaves_the_same_schema_in_sqlite() {
    let database = TestDb::sqlite_empty();
    let mut connection = sqlite::connect(database.url());

    let empty = sqlite::dump(&mut connection);
    sqlite::execute(&mut connection, &ups(Dialect::Sqlite));
    let first = sqlite::dump(&mut connection);
    sqlite::execute(&mut connection, &downs(Dialect::Sqlite));
    let reverted = sqlite::dump(&mut connection);
    sqlite::execute(&mut connection, &ups(Dialect::Sqlite));
    let second = sqlite::dump(&mut connection);

    assert_eq!(reverted, empty);
    assert_eq!(second, first);
    assert_ne!(first, empty);
}

/// Without one, deleting a run reads whole tables.
#[tokio::test]
async fn every_foreign_key_has_an_index_in_postgres() {
    let database = TestDb::postgres();

    let bare = postgres::foreign_keys_without_index(&postgres::connect(database.url()).await).await;

    assert_eq!(bare, Vec::<String>::new());
}

#[test]
fn every_foreign_key_has_an_index_in_sqlite() {
    let database = TestDb::sqlite();

    let bare = sqlite::foreign_keys_without_index(&mut sqlite::connect(database.url()));

    assert_eq!(bare, Vec::<String>::new());
}
