//! What clients see of a run and its artifacts (spec 1.3.3, 1.3.22).
//!
//! **Invariant:** every key is there, times are RFC 3339 with milliseconds, and the bearer of a
//! cancel callback never leaves the server.

use control_plane_domain::run::Run;
use control_plane_domain::{SessionId, Timestamp, time};
use control_plane_storage::model::Artifact;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// What stands in for a secret.
pub(crate) const MASK: &str = "***";

/// A run.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Run)]
pub(crate) struct RunView<'a> {
    #[schema(value_type = uuid::Uuid)]
    id: String,
    /// queued, starting, `binding_session`, running, suspended, completed, failed or cancelled.
    status: &'static str,
    /// live or sandbox.
    mode: &'static str,
    runtime_kind: &'a str,
    runtime_version: Option<&'a str>,
    runtime_session_id: Option<&'a str>,
    trace_id: Option<&'a str>,
    idempotency_key: Option<&'a str>,
    last_event_seq: i64,
    source_kind: Option<&'a str>,
    source_ref: Option<&'a str>,
    tags: &'a [String],
    /// `executionRequest`, `requester`, `environment`, `scenarioRef` and what the end added.
    #[schema(value_type = Object)]
    metadata: Masked<'a>,
    error_code: Option<&'a str>,
    error_message: Option<&'a str>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Time,
    #[schema(value_type = Option<String>, format = DateTime)]
    started_at: Option<Time>,
    #[schema(value_type = Option<String>, format = DateTime)]
    ended_at: Option<Time>,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Time,
    #[schema(value_type = Option<String>, format = DateTime)]
    archived_at: Option<Time>,
    /// Why the run is not followed any more although it has not ended.
    parked_reason: Option<&'a str>,
}

impl<'a> From<&'a Run> for RunView<'a> {
    fn from(run: &'a Run) -> Self {
        let Run {
            id,
            state,
            mode,
            runtime_kind,
            runtime_version,
            session_id,
            trace_id,
            idempotency_key,
            request_hash: _,
            last_seq,
            source_kind,
            source_ref,
            tags,
            metadata,
            error_code,
            error_message,
            created_at,
            started_at,
            ended_at,
            updated_at,
            archived_at,
            parked_reason,
        } = run;
        Self {
            id: id.to_string(),
            status: state.as_str(),
            mode: mode.as_str(),
            runtime_kind,
            runtime_version: runtime_version.as_deref(),
            runtime_session_id: session_id.as_ref().map(SessionId::as_str),
            trace_id: trace_id.as_deref(),
            idempotency_key: idempotency_key.as_deref(),
            last_event_seq: *last_seq,
            source_kind: source_kind.as_deref(),
            source_ref: source_ref.as_deref(),
            tags,
            metadata: Masked(metadata),
            error_code: error_code.as_deref(),
            error_message: error_message.as_deref(),
            created_at: Time(*created_at),
            started_at: started_at.map(Time),
            ended_at: ended_at.map(Time),
            updated_at: Time(*updated_at),
            archived_at: archived_at.map(Time),
            parked_reason: parked_reason.as_deref(),
        }
    }
}

/// A page of runs.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RunList)]
pub(crate) struct RunListView<'a> {
    pub(crate) data: Vec<RunView<'a>>,
    /// All runs that match, not only this page's.
    pub(crate) total: i64,
    pub(crate) limit: i64,
    pub(crate) offset: i64,
    /// `cursor` of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_cursor: Option<String>,
}

/// An artifact.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Artifact)]
pub(crate) struct ArtifactView {
    id: uuid::Uuid,
    #[schema(value_type = uuid::Uuid)]
    run_id: String,
    kind: String,
    label: String,
    uri: Option<String>,
    #[schema(value_type = Option<Object>)]
    inline: Option<Value>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Time,
}

impl From<Artifact> for ArtifactView {
    fn from(artifact: Artifact) -> Self {
        let Artifact { id, run_id, kind, label, uri, inline, created_at } = artifact;
        let run_id = run_id.to_string();
        Self { id, run_id, kind, label, uri, inline, created_at: Time(created_at) }
    }
}

/// An instant as it is sent.
pub(crate) struct Time(pub(crate) Timestamp);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&time::format(self.0))
    }
}

/// Metadata whose `cancelCallback.bearer` reads `"***"`, wherever the callback stands.
pub(crate) struct Masked<'a>(pub(crate) &'a Map<String, Value>);

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
            entries.serialize_entry(key, MASK)?;
        } else {
            let callback = key == "cancelCallback";
            entries.serialize_entry(key, &MaskedValue { value, callback })?;
        }
    }
    entries.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use control_plane_domain::run::RunMode;
    use control_plane_domain::{RunId, RunState};
    use serde_json::json;

    fn run(metadata: Value) -> Run {
        let Value::Object(metadata) = metadata else { panic!("not an object") };
        let at = time::from_unix_ms(1_763_800_000_000).unwrap();
        Run {
            id: RunId(uuid::Uuid::nil()),
            state: RunState::BindingSession,
            mode: RunMode::Live,
            runtime_kind: "rust".into(),
            runtime_version: None,
            session_id: None,
            trace_id: None,
            idempotency_key: None,
            request_hash: Some("never sent".into()),
            last_seq: 3,
            source_kind: None,
            source_ref: None,
            tags: vec![],
            metadata,
            error_code: None,
            error_message: None,
            created_at: at,
            started_at: Some(at),
            ended_at: None,
            updated_at: at,
            archived_at: None,
            parked_reason: None,
        }
    }

    #[test]
    fn a_run_has_all_its_keys_and_iso_times() {
        let run = run(json!({}));
        let view = serde_json::to_value(RunView::from(&run)).unwrap();
        assert_eq!(view.as_object().unwrap().len(), 21);
        assert_eq!(view["status"], "binding_session");
        assert_eq!(view["createdAt"], "2025-11-22T08:26:40.000Z");
        assert_eq!(view["archivedAt"], Value::Null);
    }

    #[test]
    fn the_bearer_of_a_callback_is_masked_everywhere() {
        let callback = json!({ "url": "https://a.example/", "bearer": "hush" });
        let run = run(json!({
            "cancelCallback": callback,
            "bearer": "not a secret of ours",
            "executionRequest": { "session": { "metadata": { "cancelCallback": callback } } },
        }));
        let text = serde_json::to_string(&RunView::from(&run)).unwrap();
        assert!(!text.contains("hush"), "{text}");
        assert_eq!(text.matches(r#""bearer":"***""#).count(), 2);
        assert!(text.contains("not a secret of ours"));
        assert!(text.contains("https://a.example/"));
    }
}
