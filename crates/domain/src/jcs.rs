//! The canonical form of JSON (RFC 8785), as far as evidence needs it: the bytes that are hashed or
//! signed.
//!
//! **Invariant:** equal values have equal bytes, whatever their members' order was. A value whose
//! form would depend on how numbers are rounded has none: nothing can have been signed over it.

use std::fmt::Write as _;

use serde_json::Value;

/// The largest integer that every reader of JSON reads as it is.
const MAX_SAFE: i64 = (1 << 53) - 1;

/// The canonical text; `None` for a value with a fraction, or an integer beyond 2^53.
pub fn canonical(value: &Value) -> Option<String> {
    let mut out = String::new();
    write(value, &mut out)?;
    Some(out)
}

fn write(value: &Value, out: &mut String) -> Option<()> {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => {
            let number = number.as_i64().filter(|it| (-MAX_SAFE..=MAX_SAFE).contains(it))?;
            out.push_str(&number.to_string());
        }
        Value::String(text) => string(text, out),
        Value::Array(items) => {
            out.push('[');
            for (place, item) in items.iter().enumerate() {
                separate(place, out);
                write(item, out)?;
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut members: Vec<(&String, &Value)> = members.iter().collect();
            // By UTF-16, which is not the order of UTF-8 beyond the basic plane.
            members.sort_by(|(one, _), (other, _)| one.encode_utf16().cmp(other.encode_utf16()));
            out.push('{');
            for (place, (name, member)) in members.into_iter().enumerate() {
                separate(place, out);
                string(name, out);
                out.push(':');
                write(member, out)?;
            }
            out.push('}');
        }
    }
    Some(())
}

fn separate(place: usize, out: &mut String) {
    if place > 0 {
        out.push(',');
    }
}

fn string(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            control if control < ' ' => {
                // Writing to a string does not fail.
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn members_are_sorted_by_utf_16_and_nothing_is_between_them() {
        let value = json!({ "\u{1F702}": 1, "\u{FB33}": [true, null], "b": { "z": "", "a": -7 } });

        let text = canonical(&value).unwrap();

        // The first unit of the astral one is a surrogate, which is below U+FB33.
        assert_eq!(text, "{\"b\":{\"a\":-7,\"z\":\"\"},\"\u{1F702}\":1,\"\u{FB33}\":[true,null]}");
    }

    #[test]
    fn texts_are_escaped_as_little_as_json_allows() {
        let text = canonical(&json!("\"\\/\u{8}\t\n\u{c}\r\u{1}\u{1f}\u{7f}é\u{1F702}\u{2028}"));
        let wanted = "\"\\\"\\\\/\\b\\t\\n\\f\\r\\u0001\\u001f\u{7f}é\u{1F702}\u{2028}\"";
        assert_eq!(text.as_deref(), Some(wanted));
    }

    #[test]
    fn what_readers_may_round_has_no_form() {
        assert_eq!(canonical(&json!(9_007_199_254_740_991_i64)).unwrap(), "9007199254740991");
        for number in [json!(9_007_199_254_740_992_i64), json!(u64::MAX), json!(0.5), json!([1e3])]
        {
            assert_eq!(canonical(&number), None, "{number}");
        }
    }

    proptest! {
        #[test]
        fn the_form_is_read_back_as_the_value(texts in prop::collection::btree_map(".*", ".*", 0..6)) {
            let value = json!(texts);
            let text = canonical(&value).unwrap();
            prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        }
    }
}
