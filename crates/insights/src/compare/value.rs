//! What a payload says, without ids and times.
//!
//! **Invariant:** two fields are equal exactly when what was sent was, however much of it is kept to
//! be shown.

use std::collections::{BTreeMap, BTreeSet};

use control_plane_domain::event::ChainHash;
use serde_json::{Map, Value};

/// The fields of a step, by their names.
pub(super) type Fields = BTreeMap<String, Field>;

/// Longest text of a field that is shown, in bytes.
const MAX_TEXT: usize = 300;
/// Most fields of a step that are kept apart.
const MAX_FIELDS: usize = 24;
/// Where the others are.
const REST: &str = "…";

/// Names of proposals in payloads.
pub(super) const PROPOSAL_IDS: &[&str] = &[
    "proposalId",
    "proposal_id",
    "requestId",
    "request_id",
    "taskId",
    "task_id",
    "handoffId",
    "handoff_id",
];
pub(super) const COMMITMENT_IDS: &[&str] = &["commitmentId", "commitment_id"];
pub(super) const SUPERSEDED_IDS: &[&str] = &["supersedesProposalId", "supersedes_proposal_id"];

/// Counted elsewhere: what a model call took is no part of what was said.
const COSTS: &[&str] = &["llmCall", "llm_call", "tokenUsage", "token_usage"];
/// Said of the whole session, and compared as such.
const OF_SESSION: &[&str] =
    &["participants", "policyVersion", "policy_version", "contextId", "context_id"];
/// What a commitment repeats of its session.
const OF_COMMITMENT: &[&str] = &[
    "modeVersion",
    "mode_version",
    "policyVersion",
    "policy_version",
    "configurationVersion",
    "configuration_version",
];
/// Fields that explain: models word them anew each time.
const WORDING: &[&str] =
    &["reason", "reasons", "rationale", "summary", "message", "supportingData", "supporting_data"];

/// A value, as much of it as is shown, and what tells it from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) shown: Value,
    /// The whole, when it is too long to be shown.
    whole: Option<ChainHash>,
}

impl Field {
    pub(super) fn new(value: Value) -> Self {
        let text = match &value {
            Value::String(text) => text.clone(),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => value.to_string(),
        };
        if text.len() <= MAX_TEXT {
            return Self { shown: value, whole: None };
        }
        let whole = Some(ChainHash::EMPTY.then(&value.to_string()));
        Self { shown: Value::String(format!("{}…", clip(&text, MAX_TEXT))), whole }
    }

    /// A text that differs when the field does.
    pub(super) fn mark(&self) -> String {
        match self.whole {
            Some(whole) => format!("{} {whole}", self.shown),
            None => self.shown.to_string(),
        }
    }

    /// About how many bytes it keeps.
    pub(super) fn size(&self) -> usize {
        64 + match &self.shown {
            Value::String(text) => text.len(),
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
            shown @ (Value::Array(_) | Value::Object(_)) => shown.to_string().len(),
        }
    }
}

/// The ids that a log has told of so far, and what to say instead.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) sessions: BTreeSet<String>,
    pub(super) messages: BTreeSet<String>,
    /// With the label of each.
    pub(super) proposals: BTreeMap<String, String>,
}

impl Known {
    fn instead_of(&self, id: &str) -> Option<String> {
        if self.sessions.contains(id) {
            return Some("(this session)".to_owned());
        }
        if let Some(label) = self.proposals.get(id) {
            return Some(format!("(proposal: {label})"));
        }
        self.messages.contains(id).then(|| "(a message)".to_owned())
    }
}

/// Whether a field only explains.
pub(super) fn is_wording(name: &str) -> bool {
    WORDING.contains(&name)
}

/// The fields of a message, for comparing.
pub(super) fn fields(message_type: &str, payload: &Map<String, Value>, known: &Known) -> Fields {
    let mut fields = Fields::new();
    let mut rest = Vec::new();
    for (name, value) in payload {
        if is_dropped(message_type, name, payload) {
            continue;
        }
        let value = match name.as_str() {
            // Which commitment it replaces are ids; that it replaces one is not.
            "supersedes" if message_type == "Commitment" => Value::Bool(true),
            _ => match plain(name, value, known) {
                Some(value) => value,
                None => continue,
            },
        };
        if fields.len() < MAX_FIELDS {
            fields.insert(name.clone(), Field::new(value));
        } else {
            rest.push(format!("{name}: {value}"));
        }
    }
    if !rest.is_empty() {
        let count = rest.len();
        let shown = Value::String(format!("{count} more fields"));
        let whole = Some(ChainHash::EMPTY.then(&rest.join("\n")));
        fields.insert(REST.to_owned(), Field { shown, whole });
    }
    fields
}

fn is_dropped(message_type: &str, name: &str, payload: &Map<String, Value>) -> bool {
    PROPOSAL_IDS.contains(&name)
        || COMMITMENT_IDS.contains(&name)
        || SUPERSEDED_IDS.contains(&name)
        || (message_type == "SessionStart" && OF_SESSION.contains(&name))
        || (message_type == "Commitment" && OF_COMMITMENT.contains(&name))
        // The bytes of a text that stands beside them.
        || (name == "payloadBase64" && payload.contains_key("text"))
}

/// A value without what it cost, times and known ids; `None` when nothing is left of it.
fn plain(name: &str, value: &Value, known: &Known) -> Option<Value> {
    if COSTS.contains(&name) || is_time(name, value) {
        return None;
    }
    match value {
        Value::String(text) if is_id(name) => {
            Some(Value::String(known.instead_of(text).unwrap_or_else(|| text.clone())))
        }
        Value::Array(items) => {
            let items = items.iter().filter_map(|item| plain(name, item, known));
            Some(Value::Array(items.collect()))
        }
        Value::Object(inner) => {
            let plain: Map<String, Value> = inner
                .iter()
                .filter_map(|(name, value)| Some((name.clone(), plain(name, value, known)?)))
                .collect();
            // What held nothing but costs is as if it were not there.
            (inner.is_empty() || !plain.is_empty()).then_some(Value::Object(plain))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Some(value.clone()),
    }
}

fn is_time(name: &str, value: &Value) -> bool {
    value.is_number() && (name.ends_with("UnixMs") || name.ends_with("unix_ms"))
}

fn is_id(name: &str) -> bool {
    ["Id", "_id", "Ids", "_ids"].iter().any(|end| name.ends_with(end)) || name == "id"
}

/// The first of `names` that is a text with something in it.
pub(super) fn text<'a>(fields: &'a Map<String, Value>, names: &[&str]) -> Option<&'a str> {
    names.iter().find_map(|name| fields.get(*name)?.as_str().filter(|text| !text.is_empty()))
}

/// The start of `text`, at most `max` bytes of it.
pub(super) fn clip(text: &str, max: usize) -> &str {
    text.get(..text.floor_char_boundary(max)).unwrap_or(text)
}
