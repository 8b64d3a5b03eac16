//! Instants in a bundle: with milliseconds, or with microseconds where there are some.

use chrono::{SecondsFormat, SubsecRound as _};
use control_plane_domain::{Timestamp, time};
use serde::{Deserialize, Deserializer, Serializer};

pub(crate) fn format(at: Timestamp) -> String {
    if at == time::truncate(at) {
        time::format(at)
    } else {
        at.trunc_subsecs(6).to_rfc3339_opts(SecondsFormat::Micros, true)
    }
}

pub(super) fn serialize<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*at))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Timestamp, D::Error> {
    Timestamp::deserialize(deserializer)
}

/// The same for an `Option`.
pub(super) mod option {
    use super::{Deserialize, Deserializer, Serializer, Timestamp};

    pub(in super::super) fn serialize<S: Serializer>(
        at: &Option<Timestamp>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => super::serialize(at, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        Option::<Timestamp>::deserialize(deserializer)
    }
}
