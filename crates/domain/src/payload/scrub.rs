//! Takes out of JSON what a database refuses.
//!
//! **Invariant:** a value that went through [`value`] holds no U+0000 and nests no deeper than it
//! was allowed to.

use serde_json::{Map, Value};

/// `text` without U+0000.
pub(super) fn text(text: String, sanitized: &mut bool) -> String {
    if !text.contains('\0') {
        return text;
    }
    *sanitized = true;
    text.replace('\0', "\u{FFFD}")
}

/// `value` without U+0000, its keys included; `None` when it nests deeper than `depth`.
pub(super) fn value(value: Value, depth: usize, sanitized: &mut bool) -> Option<Value> {
    Some(match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
        Value::String(string) => Value::String(text(string, sanitized)),
        Value::Array(mut items) => {
            let depth = depth.checked_sub(1)?;
            for item in &mut items {
                *item = self::value(item.take(), depth, sanitized)?;
            }
            Value::Array(items)
        }
        Value::Object(fields) => Value::Object(object(fields, depth, sanitized)?),
    })
}

fn object(
    mut fields: Map<String, Value>,
    depth: usize,
    sanitized: &mut bool,
) -> Option<Map<String, Value>> {
    let depth = depth.checked_sub(1)?;
    if fields.keys().any(|key| key.contains('\0')) {
        fields = fields.into_iter().map(|(key, value)| (text(key, sanitized), value)).collect();
    }
    for (_, field) in &mut fields {
        *field = value(field.take(), depth, sanitized)?;
    }
    Some(fields)
}
