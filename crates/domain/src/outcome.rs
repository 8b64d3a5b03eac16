//! What a commitment says about its outcome.
//!
//! **Invariant:** there is one answer for one payload, wherever it is asked for.

use serde_json::{Map, Value};

/// Whether the outcome is positive; `None` when neither the payload nor the name of its action says.
pub fn is_positive(payload: &Map<String, Value>) -> Option<bool> {
    let told = ["outcomePositive", "outcome_positive"]
        .into_iter()
        .find_map(|name| payload.get(name).filter(|value| !value.is_null()));
    if let Some(value) = told {
        return Some(truthy(value));
    }
    inferred(payload.get("action").and_then(Value::as_str).unwrap_or_default())
}

fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64().is_some_and(|number| number != 0.0),
        Value::String(text) => !text.is_empty() && !text.eq_ignore_ascii_case("false"),
        Value::Array(_) | Value::Object(_) => true,
    }
}

/// What the action's last word says, for a commitment that does not say it itself:
/// `decision.rejected` is a negative one.
fn inferred(action: &str) -> Option<bool> {
    let action = action.to_lowercase();
    match action.rsplit('.').next().unwrap_or_default() {
        "approve" | "approved" | "accept" | "accepted" | "selected" | "completed" => Some(true),
        "reject" | "rejected" | "decline" | "declined" | "failed" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_payload_says_wins_over_the_name_of_its_action() {
        for (payload, expected) in [
            (json!({ "outcomePositive": false, "action": "approved" }), Some(false)),
            (json!({ "outcome_positive": "true" }), Some(true)),
            (json!({ "outcomePositive": null, "action": "decision.rejected" }), Some(false)),
            (json!({ "action": "Decision.Approved" }), Some(true)),
            (json!({ "action": "refund" }), None),
            (json!({}), None),
        ] {
            assert_eq!(is_positive(payload.as_object().unwrap()), expected, "{payload}");
        }
    }
}
