//! What the repository says: `schema.rs` and the migrations of each database.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Column, Tables};

/// Which database's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Postgres,
    Sqlite,
}

impl Dialect {
    fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Sqlite => "sqlite",
        }
    }

    /// The database's name of a type of diesel.
    fn kind(self, diesel: &str) -> &'static str {
        match (self, diesel) {
            (Self::Postgres, "BigInt") => "bigint",
            (Self::Postgres, "Binary") => "bytea",
            (Self::Postgres, "Bool") => "boolean",
            (Self::Postgres, "Double") => "double precision",
            (Self::Postgres, "Integer") => "integer",
            (Self::Postgres, "Jsonb") => "jsonb",
            (Self::Postgres, "Text") => "text",
            (Self::Postgres, "Timestamptz") => "timestamp with time zone",
            (Self::Postgres, "Uuid") => "uuid",
            (Self::Sqlite, "Binary" | "Jsonb") => "blob",
            (Self::Sqlite, "Bool") => "boolean",
            (Self::Sqlite, "Double") => "double",
            (Self::Sqlite, "BigInt" | "Integer") => "integer",
            (Self::Sqlite, "Text" | "TimestamptzSqlite") => "text",
            _ => panic!("{self:?} has no name for {diesel}: give it one here"),
        }
    }
}

/// The tables of `schema.rs`.
pub(crate) fn declared(dialect: Dialect) -> Tables {
    let path = crate_folder().join("src").join(dialect.name()).join("schema.rs");
    let tables = parse(&fs::read_to_string(path).unwrap(), dialect);
    assert!(!tables.is_empty(), "schema.rs declares no table that this test can read");
    tables
}

fn parse(text: &str, dialect: Dialect) -> Tables {
    let mut tables = Tables::new();
    let mut table = None;
    let mut name_in_database = None;
    for line in text.lines().map(str::trim) {
        if line.ends_with("table! {") {
            table = None;
        } else if let Some(name) = table_name(line) {
            tables.entry(name.to_owned()).or_default();
            table = Some(name.to_owned());
        } else if let Some(name) = line.strip_prefix("#[sql_name = \"") {
            name_in_database = Some(name.trim_end_matches("\"]").to_owned());
        } else if let (Some(table), Some((name, kind))) = (&table, line.split_once(" -> ")) {
            let kind = kind.trim_end_matches(',');
            let inner = kind.strip_prefix("Nullable<").map(|kind| kind.trim_end_matches('>'));
            let column = Column {
                kind: dialect.kind(inner.unwrap_or(kind)).to_owned(),
                nullable: inner.is_some(),
            };
            let name = name_in_database.take().unwrap_or_else(|| name.to_owned());
            tables.entry(table.clone()).or_default().insert(name, column);
        }
    }
    tables
}

/// `runs (id) {`
fn table_name(line: &str) -> Option<&str> {
    let (name, key) = line.strip_suffix(" {")?.split_once(" (")?;
    (key.ends_with(')') && name.chars().all(|letter| letter.is_alphanumeric() || letter == '_'))
        .then_some(name)
}

/// The names of the migrations, oldest first.
pub(crate) fn migrations(dialect: Dialect) -> Vec<String> {
    let entries = fs::read_dir(migrations_folder(dialect)).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(!names.is_empty(), "there are no migrations");
    names
}

/// Every `up.sql`, oldest first.
pub(crate) fn ups(dialect: Dialect) -> Vec<String> {
    migrations(dialect).iter().map(|name| read(dialect, name, "up.sql")).collect()
}

/// Every `down.sql`, newest first.
pub(crate) fn downs(dialect: Dialect) -> Vec<String> {
    migrations(dialect).iter().rev().map(|name| read(dialect, name, "down.sql")).collect()
}

fn read(dialect: Dialect, migration: &str, file: &str) -> String {
    fs::read_to_string(migrations_folder(dialect).join(migration).join(file)).unwrap()
}

fn migrations_folder(dialect: Dialect) -> PathBuf {
    crate_folder().join("../../migrations").join(dialect.name())
}

fn crate_folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
