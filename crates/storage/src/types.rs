//! Column types that differ between the databases, as one Rust type each.

use std::fmt::Write as _;

use chrono::{DateTime, Datelike, Timelike};
use control_plane_domain::Timestamp;
use diesel::backend::Backend;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::pg::Pg;
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::{Text, Timestamptz, TimestamptzSqlite, Uuid as SqlUuid};
use diesel::sqlite::Sqlite;
use uuid::Uuid;

/// A UUID: `uuid` in PostgreSQL, text in SQLite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, AsExpression, FromSqlRow)]
#[diesel(sql_type = SqlUuid)]
#[diesel(sql_type = Text)]
pub(crate) struct DbUuid(pub(crate) Uuid);

impl ToSql<SqlUuid, Pg> for DbUuid {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        <Uuid as ToSql<SqlUuid, Pg>>::to_sql(&self.0, out)
    }
}

impl FromSql<SqlUuid, Pg> for DbUuid {
    fn from_sql(value: <Pg as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
        <Uuid as FromSql<SqlUuid, Pg>>::from_sql(value).map(Self)
    }
}

impl ToSql<Text, Sqlite> for DbUuid {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(self.0.to_string());
        Ok(IsNull::No)
    }
}

impl FromSql<Text, Sqlite> for DbUuid {
    fn from_sql(value: <Sqlite as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
        let text = <String as FromSql<Text, Sqlite>>::from_sql(value)?;
        Ok(Self(Uuid::try_parse(&text)?))
    }
}

/// A time: SQLite has it as text, and diesel, which takes any format, is an order slower at it than
/// what knows the one that it writes.
#[derive(Debug, Clone, Copy, AsExpression, FromSqlRow)]
#[diesel(sql_type = Timestamptz)]
#[diesel(sql_type = TimestamptzSqlite)]
pub(crate) struct DbTime(pub(crate) Timestamp);

impl From<DbTime> for Timestamp {
    fn from(time: DbTime) -> Self {
        time.0
    }
}

impl FromSql<Timestamptz, Pg> for DbTime {
    fn from_sql(value: <Pg as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
        <Timestamp as FromSql<Timestamptz, Pg>>::from_sql(value).map(Self)
    }
}

impl ToSql<Timestamptz, Pg> for DbTime {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        <Timestamp as ToSql<Timestamptz, Pg>>::to_sql(&self.0, &mut out.reborrow())
    }
}

impl ToSql<TimestamptzSqlite, Sqlite> for DbTime {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(text(self.0));
        Ok(IsNull::No)
    }
}

/// As diesel writes it, so that texts are in the order of the times: without a fraction that is zero.
fn text(at: Timestamp) -> String {
    let milliseconds = at.timestamp_subsec_millis();
    // A leap second has more of them.
    let is_plain = milliseconds < 1000 && at.nanosecond().is_multiple_of(1_000_000);
    if !is_plain || !(0..=9999).contains(&at.year()) {
        return at.format("%F %T%.f%:z").to_string();
    }
    let mut text = String::with_capacity(29);
    let (year, month, day) = (at.year(), at.month(), at.day());
    let (hour, minute, second) = (at.hour(), at.minute(), at.second());
    // Writing to a string does not fail.
    let _ = write!(text, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}");
    if milliseconds > 0 {
        let _ = write!(text, ".{milliseconds:03}");
    }
    text.push_str("+00:00");
    text
}

impl FromSql<TimestamptzSqlite, Sqlite> for DbTime {
    fn from_sql(value: <Sqlite as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
        let text = <String as FromSql<Text, Sqlite>>::from_sql(value)?;
        Ok(Self(DateTime::parse_from_rfc3339(&text)?.to_utc()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_the_text_that_diesel_writes_and_reads() {
        let times = [0, 1, -1, 999, 1_795_046_400_000, 1_795_046_400_120, 253_402_300_799_999]
            .map(|ms| DateTime::from_timestamp_millis(ms).unwrap());
        let odd = [
            DateTime::from_timestamp(1_795_046_400, 1).unwrap(),
            DateTime::from_timestamp(253_402_300_800, 0).unwrap(),
            DateTime::from_timestamp(-62_167_219_201, 0).unwrap(),
        ];
        for at in times.into_iter().chain(odd) {
            assert_eq!(text(at), at.format("%F %T%.f%:z").to_string());
        }
        for at in times {
            assert_eq!(DateTime::parse_from_rfc3339(&text(at)).unwrap(), at);
        }
    }
}
