//! Reading an event's `data`, which anybody may have filled.
//!
//! **Invariant:** what is missing or of another type is absent, and what is kept is bounded.

use std::collections::VecDeque;
use std::sync::LazyLock;

use control_plane_domain::CanonicalEvent;
use serde_json::{Map, Value};

/// Longest text that the state keeps, in bytes.
const MAX_TEXT: usize = 2048;
/// Longest id that the state keeps, in bytes.
const MAX_ID: usize = 512;

/// The fields of an object.
pub(crate) type Fields = Map<String, Value>;

/// The event's decoded payload; empty when it has none.
pub(crate) fn payload(event: &CanonicalEvent) -> &Fields {
    static NOTHING: LazyLock<Fields> = LazyLock::new(Fields::new);
    let decoded = event.data.get("decodedPayload").or_else(|| event.data.get("payload"));
    decoded.and_then(Value::as_object).unwrap_or(&NOTHING)
}

/// The first of `names` that is a text with something in it.
pub(crate) fn text<'a>(fields: &'a Fields, names: &[&str]) -> Option<&'a str> {
    names.iter().find_map(|name| fields.get(*name)?.as_str().filter(|text| !text.is_empty()))
}

/// The first of `names` that is a text, cut to what the state keeps.
pub(crate) fn kept_text(fields: &Fields, names: &[&str]) -> Option<String> {
    text(fields, names).map(|text| clip(text, MAX_TEXT).to_owned())
}

/// The first of `names` that is an id, cut to what the state keeps.
pub(crate) fn kept_id(fields: &Fields, names: &[&str]) -> Option<String> {
    text(fields, names).map(|text| id(text).to_owned())
}

/// An id, cut to what the state keeps.
pub(crate) fn id(text: &str) -> &str {
    clip(text, MAX_ID)
}

/// A number that is one.
pub(crate) fn number(fields: &Fields, name: &str) -> Option<f64> {
    fields.get(name)?.as_f64().filter(|number| number.is_finite())
}

/// A whole number.
pub(crate) fn integer(fields: &Fields, name: &str) -> Option<i64> {
    let value = fields.get(name)?;
    value.as_i64().or_else(|| {
        let number = value.as_f64()?;
        #[expect(clippy::cast_possible_truncation, reason = "`as` saturates")]
        let integer = number as i64;
        number.is_finite().then_some(integer)
    })
}

/// The texts of a list, each cut to what the state keeps of an id.
pub(crate) fn texts<'a>(fields: &'a Fields, name: &str) -> Option<Vec<&'a str>> {
    let items = fields.get(name)?.as_array()?;
    Some(items.iter().filter_map(Value::as_str).filter(|text| !text.is_empty()).map(id).collect())
}

/// Whether nobody vouches for who sent this: then it is a record and moves nothing.
pub(crate) fn is_doubtful(event: &CanonicalEvent) -> bool {
    event.data.get("senderAuthenticated") == Some(&Value::Bool(false))
}

/// `value`, unless it is larger than `budget` bytes or so.
pub(crate) fn bounded(value: &Fields, budget: usize) -> Option<Fields> {
    fn cost(value: &Value) -> usize {
        8 + match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(cost).sum(),
            Value::Object(fields) => total(fields),
        }
    }
    fn total(fields: &Fields) -> usize {
        fields.iter().map(|(key, value)| key.len() + cost(value)).sum()
    }
    (total(value) <= budget).then(|| value.clone())
}

/// Appends, and drops the oldest when there are more than `cap`.
pub(crate) fn push_capped<T>(list: &mut VecDeque<T>, item: T, cap: usize) {
    let too_many = (list.len() + 1).saturating_sub(cap).min(list.len());
    list.drain(..too_many);
    if list.len() == list.capacity() {
        list.reserve_exact(growth(list.len()));
    }
    list.push_back(item);
}

/// Room for how many more a full list of `len` gets: doubling would leave up to half of it empty, in
/// each of thousands of quiet runs.
pub(crate) fn growth(len: usize) -> usize {
    (len / 4).max(2)
}

/// The start of `text`, at most `max` bytes of it.
fn clip(text: &str, max: usize) -> &str {
    text.get(..text.floor_char_boundary(max)).unwrap_or(text)
}
