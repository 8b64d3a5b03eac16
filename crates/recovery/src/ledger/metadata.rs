//! A run's metadata while it is followed: as text, a tenth of what the tree of values takes. It is
//! looked into twice in a run's life, when it is adopted and when it ends.

use serde_json::{Map, Value};

/// See the module.
pub(super) struct Packed(Box<str>);

impl Packed {
    pub(super) fn pack(metadata: Map<String, Value>) -> Self {
        Self(Value::Object(metadata).to_string().into_boxed_str())
    }

    pub(super) fn unpack(&self) -> Map<String, Value> {
        // We wrote it ourselves, so it is an object.
        serde_json::from_str(&self.0).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_comes_out_as_it_was(number: f64, whole: i64, text: String, key: String) {
            let value = json!({ key: [number, whole, text, null, { "deep": { "deeper": number } }] });
            let Value::Object(metadata) = value else { unreachable!() };

            let packed = Packed::pack(metadata.clone());

            prop_assert_eq!(packed.unpack(), metadata);
        }
    }
}
