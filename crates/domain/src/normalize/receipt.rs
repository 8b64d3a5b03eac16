//! Reads a decision receipt (RFC-MACP-0013): what a resolved session decided, when its end was
//! not seen.
//!
//! **Invariant:** a receipt of another session, or of a format that we do not know, says nothing.

use serde_json::{Map, Value};

use super::{MAX_SUBJECT_ID, clip, insert, lift, text_of};
use crate::event::{EventDraft, EventType, Source, Subject, SubjectKind};
use crate::receipt::FORMAT;
use crate::session::Session;
use crate::time::{self, Timestamp};

const FIELDS: &[(&str, &str)] = &[
    ("commitment_id", "commitmentId"),
    ("action", "action"),
    ("authority_scope", "authorityScope"),
    ("reason", "reason"),
    ("mode_version", "modeVersion"),
    ("policy_version", "policyVersion"),
    ("configuration_version", "configurationVersion"),
    ("outcome_positive", "outcomePositive"),
];

/// The Commitment in a `macp-receipt/1` document, named as a decoded payload names it: camelCase,
/// empty texts left out, `outcomePositive` always there.
pub fn commitment(receipt: &Value) -> Option<Map<String, Value>> {
    if receipt.get("receipt_format")?.as_str()? != FORMAT {
        return None;
    }
    let projected = receipt.get("commitment")?.as_object()?;
    let mut fields = Map::new();
    for (theirs, ours) in FIELDS {
        match projected.get(*theirs) {
            Some(Value::String(text)) if !text.is_empty() => {
                insert(&mut fields, ours, &text.replace('\0', "\u{FFFD}"));
            }
            Some(Value::Bool(value)) => {
                fields.insert((*ours).to_owned(), Value::Bool(*value));
            }
            _ => {}
        }
    }
    fields.entry("outcomePositive").or_insert(Value::Bool(false));
    if let Some(superseded) = projected.get("supersedes").and_then(Value::as_object) {
        let mut reference = Map::new();
        for (theirs, ours) in [("session_id", "sessionId"), ("commitment_hash", "commitmentHash")] {
            if let Some(text) = text_of(superseded, &[theirs]) {
                insert(&mut reference, ours, &text.replace('\0', "\u{FFFD}"));
            }
        }
        fields.insert("supersedes".to_owned(), Value::Object(reference));
    }
    Some(fields)
}

/// When the receipt was issued.
pub(super) fn issued_at(receipt: &Value) -> Option<Timestamp> {
    let text = receipt.get("issued_at")?.as_str()?;
    text.parse::<Timestamp>().ok().map(time::truncate)
}

/// `decision.finalized`, with no time of its own yet.
pub(super) fn draft(session: &Session, receipt: &Value) -> Option<EventDraft> {
    let session_id = session.session_id.as_str();
    if receipt.get("session_id")?.as_str()? != session_id {
        return None;
    }
    let fields = commitment(receipt)?;
    let mut data = Map::new();
    insert(&mut data, "modeName", &session.mode_name);
    insert(&mut data, "messageType", "Commitment");
    insert(&mut data, "sessionId", session_id);
    insert(&mut data, "source", "receipt");
    let top = receipt.as_object()?;
    for (theirs, ours) in [("commitment_hash", "commitmentHash"), ("issuer", "issuer")] {
        if let Some(text) = text_of(top, &[theirs]) {
            insert(&mut data, ours, &text.replace('\0', "\u{FFFD}"));
        }
    }
    lift(&mut data, &fields);
    let id = text_of(&fields, &["commitmentId"]).unwrap_or(session_id);
    let id = clip(id, MAX_SUBJECT_ID).to_owned();
    data.insert("decodedPayload".to_owned(), Value::Object(fields));
    Some(EventDraft {
        event_type: EventType::DecisionFinalized,
        ts: Timestamp::default(),
        subject: Some(Subject::new(SubjectKind::Decision, id)),
        source: Source::runtime("Commitment"),
        trace: None,
        data,
    })
}
