//! What SQLite's catalogue says.

use diesel::connection::SimpleConnection;
use diesel::sql_types::{Bool, Text};
use diesel::{Connection, QueryableByName, RunQueryDsl, SqliteConnection, sql_query};

use crate::{Column, Tables};

/// Every kind of integer is one to SQLite.
const COLUMNS: &str = "
    SELECT m.name AS table_name, c.name AS column_name,
           CASE WHEN lower(c.type) LIKE '%int%' THEN 'integer' ELSE lower(c.type) END AS kind,
           c.\"notnull\" = 0 AS nullable
    FROM sqlite_master m JOIN pragma_table_info(m.name) c
    WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite~_%' ESCAPE '~'
      AND m.name NOT LIKE '~_~_diesel%' ESCAPE '~'";

const DUMP: &str = "
    SELECT type || ' ' || name || ' ' || coalesce(sql, '') AS line FROM sqlite_master
    WHERE name NOT LIKE 'sqlite~_%' ESCAPE '~' ORDER BY 1";

/// Foreign keys whose column is not the first one of any complete index, or the primary key.
const BARE_KEYS: &str = "
    SELECT m.name || '.' || k.\"from\" AS line
    FROM sqlite_master m JOIN pragma_foreign_key_list(m.name) k
    WHERE m.type = 'table' AND k.seq = 0
      AND NOT EXISTS (
          SELECT 1 FROM pragma_index_list(m.name) i JOIN pragma_index_info(i.name) c
          WHERE i.partial = 0 AND c.seqno = 0 AND c.name = k.\"from\")
      AND NOT EXISTS (
          SELECT 1 FROM pragma_table_info(m.name) p WHERE p.pk = 1 AND p.name = k.\"from\")
    ORDER BY 1";

#[derive(QueryableByName)]
struct ColumnRow {
    #[diesel(sql_type = Text)]
    table_name: String,
    #[diesel(sql_type = Text)]
    column_name: String,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Bool)]
    nullable: bool,
}

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = Text)]
    line: String,
}

pub(crate) fn connect(url: &str) -> SqliteConnection {
    SqliteConnection::establish(url.strip_prefix("sqlite://").unwrap()).unwrap()
}

pub(crate) fn execute(connection: &mut SqliteConnection, statements: &[String]) {
    for statement in statements {
        connection.batch_execute(statement).unwrap();
    }
}

pub(crate) fn tables(connection: &mut SqliteConnection) -> Tables {
    let mut tables = Tables::new();
    for row in sql_query(COLUMNS).load::<ColumnRow>(connection).unwrap() {
        let ColumnRow { table_name, column_name, kind, nullable } = row;
        tables.entry(table_name).or_default().insert(column_name, Column { kind, nullable });
    }
    tables
}

pub(crate) fn dump(connection: &mut SqliteConnection) -> Vec<String> {
    lines(connection, DUMP)
}

pub(crate) fn foreign_keys_without_index(connection: &mut SqliteConnection) -> Vec<String> {
    lines(connection, BARE_KEYS)
}

fn lines(connection: &mut SqliteConnection, query: &str) -> Vec<String> {
    let rows = sql_query(query).load::<Line>(connection).unwrap();
    rows.into_iter().map(|row| row.line).collect()
}
