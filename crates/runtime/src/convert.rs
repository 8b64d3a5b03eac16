//! The protocol's messages as the domain's values.
//!
//! **Invariant:** total, and no text that leaves here holds U+0000: PostgreSQL refuses it.

use control_plane_domain::envelope::{SessionChange, SessionChangeKind};
use control_plane_domain::runtime::{Manifest, ModeDescriptor, Root, RuntimeInfo};
use control_plane_domain::session::SessionInfo;
use control_plane_domain::{Envelope, SessionId, SessionState, time};
use serde_json::{Map, Value, json};

use crate::proto;
use crate::proto::session_lifecycle_event::EventType;

pub(crate) fn envelope(wire: proto::Envelope) -> Envelope {
    Envelope {
        macp_version: wire.macp_version,
        mode: wire.mode,
        message_type: wire.message_type,
        message_id: wire.message_id,
        session_id: wire.session_id,
        sender: wire.sender,
        timestamp_unix_ms: wire.timestamp_unix_ms,
        payload: wire.payload,
        sanitized: false,
    }
    .sanitize()
}

pub(crate) fn session(wire: proto::SessionMetadata) -> SessionInfo {
    let state = state(wire.state());
    SessionInfo {
        session_id: SessionId::trusted(clean(wire.session_id)),
        state,
        mode: clean(wire.mode),
        mode_version: clean(wire.mode_version),
        configuration_version: clean(wire.configuration_version),
        policy_version: clean(wire.policy_version),
        initiator: clean(wire.initiator),
        participants: wire.participants.into_iter().map(clean).collect(),
        context_id: Some(clean(wire.context_id)).filter(|id| !id.is_empty()),
        extension_keys: wire.extension_keys.into_iter().map(clean).collect(),
        started_at_unix_ms: wire.started_at_unix_ms,
        expires_at_unix_ms: wire.expires_at_unix_ms,
        activity: wire
            .participant_activity
            .into_iter()
            .map(|activity| (clean(activity.participant_id), activity.message_count))
            .collect(),
    }
}

/// `None` without a session: the event then says about whom it is nowhere.
pub(crate) fn session_change(wire: proto::SessionLifecycleEvent) -> Option<SessionChange> {
    let kind = change_kind(wire.event_type);
    let session = session(wire.session.filter(|session| !session.session_id.is_empty())?);
    Some(SessionChange {
        kind,
        session_id: session.session_id.clone(),
        session: Some(session),
        observed_at: match wire.observed_at_unix_ms {
            0 => None,
            ms => time::from_unix_ms(ms),
        },
    })
}

pub(crate) fn runtime_info(wire: proto::InitializeResponse) -> RuntimeInfo {
    let (name, version) = match wire.runtime_info {
        Some(info) => (clean(info.name), clean(info.version)),
        None => (String::new(), String::new()),
    };
    RuntimeInfo {
        name,
        version,
        supported_modes: wire.supported_modes.into_iter().map(clean).collect(),
        capabilities: wire.capabilities.map(capabilities).unwrap_or_default(),
    }
}

pub(crate) fn manifest(wire: proto::AgentManifest) -> Manifest {
    Manifest {
        agent_id: clean(wire.agent_id),
        title: clean(wire.title),
        description: clean(wire.description),
        supported_modes: wire.supported_modes.into_iter().map(clean).collect(),
        metadata: texts(wire.metadata),
    }
}

pub(crate) fn mode(wire: proto::ModeDescriptor) -> ModeDescriptor {
    ModeDescriptor {
        mode: clean(wire.mode),
        mode_version: clean(wire.mode_version),
        title: clean(wire.title),
        description: clean(wire.description),
        determinism_class: clean(wire.determinism_class),
        participant_model: clean(wire.participant_model),
        message_types: wire.message_types.into_iter().map(clean).collect(),
        terminal_message_types: wire.terminal_message_types.into_iter().map(clean).collect(),
        schema_uris: texts(wire.schema_uris),
    }
}

pub(crate) fn root(wire: proto::Root) -> Root {
    Root { uri: clean(wire.uri), name: clean(wire.name) }
}

pub(crate) fn state(wire: proto::SessionState) -> SessionState {
    match wire {
        proto::SessionState::Unspecified => SessionState::Unspecified,
        proto::SessionState::Open => SessionState::Open,
        proto::SessionState::Resolved => SessionState::Resolved,
        proto::SessionState::Expired => SessionState::Expired,
        proto::SessionState::Suspended => SessionState::Suspended,
        proto::SessionState::Cancelled => SessionState::Cancelled,
    }
}

fn change_kind(wire: i32) -> SessionChangeKind {
    match EventType::try_from(wire) {
        Ok(EventType::Created) => SessionChangeKind::Created,
        Ok(EventType::Resolved) => SessionChangeKind::Resolved,
        Ok(EventType::Expired) => SessionChangeKind::Expired,
        Ok(EventType::Suspended) => SessionChangeKind::Suspended,
        Ok(EventType::Resumed) => SessionChangeKind::Resumed,
        Ok(EventType::Cancelled) => SessionChangeKind::Cancelled,
        Ok(EventType::Unspecified) | Err(_) => SessionChangeKind::Unknown,
    }
}

/// Only what the runtime told: a capability that it left out is not there.
fn capabilities(wire: proto::Capabilities) -> Map<String, Value> {
    let proto::Capabilities {
        sessions,
        cancellation,
        progress,
        manifest,
        mode_registry,
        roots,
        policy_registry,
        decision_receipt,
        experimental,
    } = wire;
    let entries = [
        (
            "sessions",
            sessions.map(|it| {
                json!({
                    "stream": it.stream,
                    "listSessions": it.list_sessions,
                    "watchSessions": it.watch_sessions,
                })
            }),
        ),
        ("cancellation", cancellation.map(|it| json!({ "cancelSession": it.cancel_session }))),
        ("progress", progress.map(|it| json!({ "progress": it.progress }))),
        ("manifest", manifest.map(|it| json!({ "getManifest": it.get_manifest }))),
        (
            "modeRegistry",
            mode_registry
                .map(|it| json!({ "listModes": it.list_modes, "listChanged": it.list_changed })),
        ),
        (
            "roots",
            roots.map(|it| json!({ "listRoots": it.list_roots, "listChanged": it.list_changed })),
        ),
        (
            "policyRegistry",
            policy_registry.map(|it| {
                json!({
                    "registerPolicy": it.register_policy,
                    "listPolicies": it.list_policies,
                    "listChanged": it.list_changed,
                    "ruleExtensions": it.rule_extensions.into_iter().map(clean).collect::<Vec<_>>(),
                    "whatIfReplay": it.what_if_replay,
                })
            }),
        ),
        (
            "decisionReceipt",
            decision_receipt.map(
                |it| json!({ "getDecisionReceipt": it.get_decision_receipt, "signed": it.signed }),
            ),
        ),
        ("experimental", experimental.map(|it| json!({ "features": texts(it.features) }))),
    ];
    entries.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

fn texts(wire: impl IntoIterator<Item = (String, String)>) -> Map<String, Value> {
    wire.into_iter().map(|(key, value)| (clean(key), Value::String(clean(value)))).collect()
}

fn clean(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{FFFD}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_without_a_context_has_none() {
        let info = session(proto::SessionMetadata {
            session_id: "s".to_owned(),
            state: 2,
            participants: vec!["a\0b".to_owned()],
            ..proto::SessionMetadata::default()
        });
        assert_eq!(info.context_id, None);
        assert_eq!(info.state, SessionState::Resolved);
        assert_eq!(info.participants, ["a\u{FFFD}b"]);
    }

    #[test]
    fn a_state_of_tomorrow_is_unspecified() {
        let info =
            session(proto::SessionMetadata { state: 99, ..proto::SessionMetadata::default() });
        assert_eq!(info.state, SessionState::Unspecified);
    }

    #[test]
    fn a_change_without_a_session_is_skipped_and_an_unknown_kind_is_not() {
        let nobody = proto::SessionLifecycleEvent::default();
        assert_eq!(session_change(nobody), None);

        let unknown = proto::SessionLifecycleEvent {
            event_type: 42,
            session: Some(proto::SessionMetadata {
                session_id: "s".to_owned(),
                ..proto::SessionMetadata::default()
            }),
            observed_at_unix_ms: 0,
        };
        let change = session_change(unknown).unwrap();
        assert_eq!(change.kind, SessionChangeKind::Unknown);
        assert_eq!(change.observed_at, None);
    }

    #[test]
    fn only_told_capabilities_are_there() {
        let info = runtime_info(proto::InitializeResponse {
            capabilities: Some(proto::Capabilities {
                progress: Some(proto::ProgressCapability { progress: true }),
                ..proto::Capabilities::default()
            }),
            ..proto::InitializeResponse::default()
        });
        assert_eq!(Value::Object(info.capabilities), json!({ "progress": { "progress": true } }));
    }
}
