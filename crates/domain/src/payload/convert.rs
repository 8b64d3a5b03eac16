//! A protobuf message as JSON: camelCase names, only what was on the wire.
//!
//! **Invariant:** every protobuf value has a JSON value; numbers that JSON does not have are texts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost_reflect::{DynamicMessage, Kind, MapKey, Value as Field};
use serde_json::{Map, Number, Value};

use super::scrub;

/// The fields of `message`, moved out of it.
pub(super) fn object(mut message: DynamicMessage, sanitized: &mut bool) -> Map<String, Value> {
    message
        .take_fields()
        .map(|(field, value)| (field.json_name().to_owned(), json(value, &field.kind(), sanitized)))
        .collect()
}

fn json(field: Field, kind: &Kind, sanitized: &mut bool) -> Value {
    match field {
        Field::Bool(value) => Value::Bool(value),
        Field::I32(value) => Value::from(value),
        Field::I64(value) => Value::from(value),
        Field::U32(value) => Value::from(value),
        Field::U64(value) => Value::from(value),
        Field::F32(value) => float(f64::from(value)),
        Field::F64(value) => float(value),
        Field::String(value) => Value::String(scrub::text(value, sanitized)),
        Field::Bytes(value) => Value::String(STANDARD.encode(value)),
        Field::EnumNumber(number) => enum_name(number, kind),
        Field::Message(message) => Value::Object(object(message, sanitized)),
        Field::List(items) => {
            Value::Array(items.into_iter().map(|item| json(item, kind, sanitized)).collect())
        }
        Field::Map(entries) => {
            let entry = kind.as_message().map(|entry| entry.map_entry_value_field().kind());
            let kind = entry.as_ref().unwrap_or(kind);
            Value::Object(
                entries
                    .into_iter()
                    .map(|(name, value)| {
                        (scrub::text(key(name), sanitized), json(value, kind, sanitized))
                    })
                    .collect(),
            )
        }
    }
}

fn float(value: f64) -> Value {
    match Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None if value.is_nan() => Value::from("NaN"),
        None if value > 0.0 => Value::from("Infinity"),
        None => Value::from("-Infinity"),
    }
}

fn enum_name(number: i32, kind: &Kind) -> Value {
    let name = kind.as_enum().and_then(|kind| kind.get_value(number));
    name.map_or_else(|| Value::from(number), |value| Value::from(value.name()))
}

fn key(key: MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key,
    }
}
