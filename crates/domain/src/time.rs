//! Instants, to the millisecond, in UTC.
//!
//! **Invariant:** a [`Timestamp`] that we made has no part below a millisecond, so that what is
//! stored, hashed and sent is the same value everywhere.

use chrono::{DateTime, SecondsFormat, SubsecRound, Utc};

/// An instant in UTC.
pub type Timestamp = DateTime<Utc>;

/// Drops what is below a millisecond.
pub fn truncate(at: Timestamp) -> Timestamp {
    at.trunc_subsecs(3)
}

/// From milliseconds since the Unix epoch; `None` when chrono cannot represent it.
pub fn from_unix_ms(ms: i64) -> Option<Timestamp> {
    DateTime::from_timestamp_millis(ms)
}

/// RFC 3339 in UTC with milliseconds: `2026-11-22T09:46:30.085Z`.
pub fn format(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// `#[serde(with = "time::millis")]`: a [`Timestamp`] as [`format()`] writes it.
pub mod millis {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Timestamp;

    pub fn serialize<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&super::format(*at))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        Timestamp::deserialize(deserializer)
    }
}

/// The same for an `Option`.
pub mod millis_option {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Timestamp;

    pub fn serialize<S: Serializer>(
        at: &Option<Timestamp>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => serializer.collect_str(&super::format(*at)),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        Option::<Timestamp>::deserialize(deserializer)
    }
}
