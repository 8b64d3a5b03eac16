//! How many approvals a proposal needs, where the policy or the request says so.
//!
//! **Invariant:** nothing is invented: rules that we do not know give no [`Bar`], and the caller
//! falls back to half of those who may vote.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The bar that a policy sets.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Bar {
    /// This share of those who may vote.
    Share(f64),
    /// All of them.
    All,
    /// This many.
    Count(i64),
}

impl Bar {
    /// The bar of a policy that every runtime knows.
    pub(crate) fn of_policy(id: &str) -> Option<Self> {
        match id {
            "policy.std.majority" => Some(Self::Share(0.5)),
            "policy.std.supermajority" => Some(Self::Share(2.0 / 3.0)),
            "policy.std.unanimous" => Some(Self::All),
            _ => None,
        }
    }

    /// The bar in a policy's rules: `voting` of the decision mode, `threshold` of the quorum mode.
    pub(crate) fn of_rules(rules: &Value) -> Option<Self> {
        let parsed;
        let rules = match rules {
            // On the wire of the runtime, rules are JSON in a text.
            Value::String(text) => {
                parsed = serde_json::from_str::<Value>(text).ok()?;
                &parsed
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => rules,
        };
        if let Some(threshold) = rules.get("threshold").filter(|rule| rule.is_object()) {
            let value = threshold.get("value")?.as_f64().filter(|value| *value > 0.0)?;
            return match threshold.get("type").and_then(Value::as_str).unwrap_or("n_of_m") {
                "n_of_m" | "count" => {
                    #[expect(clippy::cast_possible_truncation, reason = "`as` saturates")]
                    let count = value as i64;
                    Some(Self::Count(count))
                }
                "percentage" => Some(Self::Share(value / 100.0)),
                _ => None,
            };
        }
        let voting = rules.get("voting")?;
        let share = voting.get("threshold").and_then(Value::as_f64).unwrap_or(0.5);
        match voting.get("algorithm")?.as_str()? {
            "majority" | "supermajority" if share > 0.0 && share <= 1.0 => Some(Self::Share(share)),
            "unanimous" => Some(Self::All),
            _ => None,
        }
    }

    /// The approvals needed when `eligible` may vote; at least one.
    pub(crate) fn approvals(self, eligible: i64) -> i64 {
        let needed = match self {
            Self::Count(count) => count,
            Self::All => eligible,
            Self::Share(share) => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_precision_loss,
                    reason = "participants are at most thousands; two thirds of 3 is 2, not 3"
                )]
                let needed = (share * eligible as f64 - 1e-9).ceil() as i64;
                needed
            }
        };
        needed.max(1)
    }
}

/// Half of `eligible`, rounded up: the bar when nothing is known.
pub(crate) fn half(eligible: i64) -> i64 {
    eligible / 2 + eligible % 2
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_bar_is_what_the_rules_say() {
        let cases = [
            (json!({ "voting": { "algorithm": "majority" } }), Some(2)),
            (json!({ "voting": { "algorithm": "supermajority", "threshold": 0.67 } }), Some(3)),
            (json!({ "voting": { "algorithm": "unanimous" } }), Some(3)),
            (json!({ "voting": { "algorithm": "none" } }), None),
            (json!({ "threshold": { "type": "n_of_m", "value": 2 } }), Some(2)),
            (json!({ "threshold": { "type": "percentage", "value": 34 } }), Some(2)),
            (json!({ "threshold": { "type": "weighted", "value": 2 } }), None),
            (json!(r#"{"voting":{"algorithm":"unanimous"}}"#), Some(3)),
            (json!("not json"), None),
            (json!(null), None),
        ];
        for (rules, approvals) in cases {
            let found = Bar::of_rules(&rules).map(|bar| bar.approvals(3));
            assert_eq!(found, approvals, "{rules}");
        }
    }

    #[test]
    fn a_reserved_policy_is_known_by_its_name() {
        let approvals = |id: &str| Bar::of_policy(id).map(|bar| bar.approvals(3));
        assert_eq!(approvals("policy.std.majority"), Some(2));
        assert_eq!(approvals("policy.std.supermajority"), Some(2));
        assert_eq!(approvals("policy.std.unanimous"), Some(3));
        assert_eq!(approvals("policy.default"), None);
    }
}
