//! What leaves the system of a run's metadata.
//!
//! **Invariant:** the bearer of a cancel callback is not in it.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

/// Metadata whose `cancelCallback.bearer` reads `"***"`, wherever the callback stands.
#[derive(Debug, Clone, Copy)]
pub struct Masked<'a>(pub &'a Map<String, Value>);

impl Masked<'_> {
    /// What stands in for a secret.
    pub const MASK: &'static str = "***";
}

impl Serialize for Masked<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_map(self.0, false, serializer)
    }
}

struct MaskedValue<'a> {
    value: &'a Value,
    /// Whether the value is a cancel callback.
    callback: bool,
}

impl Serialize for MaskedValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.value {
            Value::Object(map) => serialize_map(map, self.callback, serializer),
            Value::Array(items) => serializer.collect_seq(
                items.iter().map(|value| MaskedValue { value, callback: self.callback }),
            ),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                self.value.serialize(serializer)
            }
        }
    }
}

fn serialize_map<S: Serializer>(
    map: &Map<String, Value>,
    callback: bool,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut entries = serializer.serialize_map(Some(map.len()))?;
    for (key, value) in map {
        if callback && key == "bearer" {
            entries.serialize_entry(key, Masked::MASK)?;
        } else {
            let callback = key == "cancelCallback";
            entries.serialize_entry(key, &MaskedValue { value, callback })?;
        }
    }
    entries.end()
}
