//! A run's metadata while it is followed: as text, a tenth of what the tree of values takes. It is
//! looked into twice in a run's life, when it is adopted and when it ends, which is told in it.

use control_plane_domain::Timestamp;
use serde_json::{Map, Value, json};

use super::Ledger;

/// What the sums over runs look at with every batch.
const KEPT: [&str; 3] = ["environment", "scenarioRef", "outcomePositive"];

/// What stays with the run as values.
pub(super) fn kept(metadata: &Map<String, Value>) -> Map<String, Value> {
    let entry = |key: &str| Some((key.to_owned(), metadata.get(key)?.clone()));
    KEPT.into_iter().filter_map(entry).collect()
}

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

impl Ledger {
    pub(super) fn set_metadata(&mut self, metadata: Map<String, Value>) {
        self.run.metadata = kept(&metadata);
        self.metadata = Packed::pack(metadata);
    }

    /// What a finished run's metadata tells at a glance (spec 8.6).
    pub(super) fn enrich(&mut self, now: Timestamp) {
        let duration = self.run.started_at.map(|started| (now - started).num_milliseconds());
        let decision = serde_json::to_value(&self.projection).unwrap_or_default();
        let current = decision
            .pointer("/decision/current")
            .filter(|current| current.get("finalized").and_then(Value::as_bool) == Some(true));
        let facts = json!({
            "durationMs": duration,
            "eventCount": self.metrics.event_count,
            "signalCount": self.metrics.signal_count,
            "decisionCount": (self.metrics.decision_count > 0).then_some(self.metrics.decision_count),
            "totalTokens": (self.metrics.total_tokens > 0).then_some(self.metrics.total_tokens),
            "estimatedCostUsd": (self.metrics.total_tokens > 0).then_some(self.metrics.estimated_cost_usd),
            "finalAction": current.and_then(|current| current.get("action")),
            "finalConfidence": current.and_then(|current| current.get("confidence")),
            "outcomePositive": current.and_then(|current| current.get("outcomePositive")),
        });
        if let Value::Object(facts) = facts {
            let known = facts.into_iter().filter(|(_, value)| !value.is_null());
            let mut metadata = self.metadata.unpack();
            metadata.extend(known);
            self.set_metadata(metadata);
        }
        if let Some(milliseconds) = duration.and_then(|ms| u32::try_from(ms).ok()) {
            metrics::histogram!(
                "macp_run_duration_seconds",
                "terminal_status" => self.run.state.as_str(),
                "mode_name" => self.session.mode_name.clone(),
            )
            .record(f64::from(milliseconds) / 1000.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch;
    use chrono::DateTime;
    use control_plane_domain::metrics::RunMetrics;
    use control_plane_domain::rollup::{self, Filing};
    use control_plane_domain::{Run, RunDescriptor, RunState};
    use proptest::prelude::*;

    #[test]
    fn the_sums_see_in_what_is_kept_what_they_see_in_the_whole() {
        let metadata = json!({
            "environment": "staging", "scenarioRef": "fraud", "outcomePositive": false,
            "executionRequest": { "mode": "live" }, "durationMs": 12,
        });
        let Value::Object(metadata) = metadata else { unreachable!() };
        let descriptor = RunDescriptor::parse(&json!({
            "mode": "live", "runtime": { "kind": "rust" },
            "session": {
                "modeName": "macp.mode.decision.v1", "modeVersion": "1.0.0",
                "configurationVersion": "c", "ttlMs": 1000, "participants": [{ "id": "alice" }],
            },
        }));
        let (mut whole, _session) = launch::records(&descriptor.unwrap(), DateTime::UNIX_EPOCH);
        whole.state = RunState::Completed;
        whole.metadata = metadata.clone();
        let part = Run { metadata: kept(&metadata), ..whole.clone() };

        let metrics = RunMetrics::empty(whole.id);
        assert_ne!(whole, part);
        assert_eq!(Filing::of(&part), Filing::of(&whole));
        assert_eq!(rollup::standing(&part, &metrics), rollup::standing(&whole, &metrics));
    }

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
