//! What a caller asks for when it posts a run, and everything that can be wrong with it (spec 1.3.1).
//!
//! **Invariant:** [`RunDescriptor::parse`] reports every fault at once, each as a sentence that
//! starts with the field's path; a descriptor that exists is a valid one.

mod check;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::id::SessionId;
use crate::run::RunMode;
use check::Check;

/// `POST /runs`, checked.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunDescriptor {
    pub mode: RunMode,
    pub runtime: RuntimeRef,
    pub session: SessionRequest,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution: Option<Execution>,
}

/// Which runtime the session is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuntimeRef {
    pub kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// The session that the agents open; we only follow it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionRequest {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
    pub mode_name: String,
    pub mode_version: String,
    pub configuration_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_version: Option<String>,
    pub ttl_ms: i64,
    pub participants: Vec<Participant>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
}

/// A declared participant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Participant {
    pub id: String,
}

/// How the run is to be filed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Execution {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requester: Option<Requester>,
}

/// On whose behalf the run was posted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Requester {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor_type: Option<String>,
}

/// Everything that is wrong with a request, in the order of the document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct Faults(pub Vec<String>);

/// Longest `session.ttlMs` that the runtime takes: a day.
pub const MAX_TTL_MS: i64 = 86_400_000;
/// Most participants that the runtime takes.
pub const MAX_PARTICIPANTS: usize = 1000;
/// Most tags of a run.
pub const MAX_TAGS: usize = 100;

impl RunDescriptor {
    /// Checks a request body.
    ///
    /// # Errors
    /// [`Faults`]: a sentence for each fault, unknown fields included.
    pub fn parse(body: &Value) -> Result<Self, Faults> {
        let mut check = Check::new();
        let Some(root) = check.root(body, &["mode", "runtime", "session", "execution"]) else {
            return Err(check.into_faults());
        };
        let mode = match check.choice(root, "mode", &["live", "sandbox"]) {
            Some("sandbox") => RunMode::Sandbox,
            _ => RunMode::Live,
        };
        let runtime = check.required_object(root, "runtime", &["kind", "version"]).map(|runtime| {
            RuntimeRef {
                kind: check.text(runtime, "runtime.kind", 64),
                version: check.optional_text(runtime, "runtime.version", 64),
            }
        });
        let session = check.required_object(root, "session", SESSION_FIELDS);
        let session = session.map(|session| parse_session(&mut check, session));
        let execution =
            check.optional_object(root, "execution", &["idempotencyKey", "tags", "requester"]);
        let execution = execution.map(|execution| Execution {
            idempotency_key: check.optional_text(execution, "execution.idempotencyKey", 255),
            tags: check.texts(execution, "execution.tags", MAX_TAGS, 255),
            requester: check
                .optional_object(execution, "execution.requester", &["actorId", "actorType"])
                .map(|requester| Requester {
                    actor_id: check.optional_text(requester, "execution.requester.actorId", 255),
                    actor_type: check
                        .optional_choice(
                            requester,
                            "execution.requester.actorType",
                            &["user", "service", "system"],
                        )
                        .map(str::to_owned),
                }),
        });
        match (runtime, session) {
            (Some(runtime), Some(session)) if check.is_clean() => {
                Ok(Self { mode, runtime, session, execution })
            }
            _ => Err(check.into_faults()),
        }
    }

    /// `execution.idempotencyKey`.
    pub fn idempotency_key(&self) -> Option<&str> {
        self.execution.as_ref()?.idempotency_key.as_deref()
    }

    /// A text of `session.metadata`.
    pub fn metadata_text(&self, key: &str) -> Option<&str> {
        self.session.metadata.as_ref()?.get(key)?.as_str()
    }

    /// The declared participants.
    pub fn participants(&self) -> Vec<String> {
        self.session.participants.iter().map(|participant| participant.id.clone()).collect()
    }
}

const SESSION_FIELDS: &[&str] = &[
    "sessionId",
    "modeName",
    "modeVersion",
    "configurationVersion",
    "policyVersion",
    "ttlMs",
    "participants",
    "metadata",
];

fn parse_session(check: &mut Check, session: &Map<String, Value>) -> SessionRequest {
    SessionRequest {
        session_id: check.optional_text(session, "session.sessionId", 255).and_then(|text| {
            SessionId::parse(&text).map_err(|fault| check.fault(fault.to_string())).ok()
        }),
        mode_name: check.text(session, "session.modeName", 255),
        mode_version: check.text_or_empty(session, "session.modeVersion", 64),
        configuration_version: check.text_or_empty(session, "session.configurationVersion", 128),
        policy_version: check
            .optional_text(session, "session.policyVersion", 128)
            .filter(|text| !text.is_empty()),
        ttl_ms: check.integer(session, "session.ttlMs", 1, MAX_TTL_MS),
        participants: parse_participants(check, session),
        metadata: check.metadata(session, "session.metadata"),
    }
}

fn parse_participants(check: &mut Check, session: &Map<String, Value>) -> Vec<Participant> {
    let items = match session.get("participants") {
        Some(Value::Array(items)) => items,
        None | Some(Value::Null) => {
            check.fault("session.participants is required".to_owned());
            return Vec::new();
        }
        Some(_) => {
            check.fault("session.participants must be an array".to_owned());
            return Vec::new();
        }
    };
    if items.is_empty() {
        check.fault("session.participants must contain at least 1 element".to_owned());
    }
    if items.len() > MAX_PARTICIPANTS {
        check.fault("session.participants: Maximum 1000 participants per session".to_owned());
        return Vec::new();
    }
    let mut participants: Vec<Participant> = Vec::with_capacity(items.len());
    let mut seen = std::collections::BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        let path = format!("session.participants.{index}");
        let Some(item) = check.object_at(item, &path, &["id"]) else { continue };
        let id = check.text(item, &format!("{path}.id"), 255);
        if !id.is_empty() && !seen.insert(id.clone()) {
            check.fault(format!("{path}.id must be unique: '{id}' is listed twice"));
        }
        participants.push(Participant { id });
    }
    participants
}

#[cfg(test)]
mod tests;
