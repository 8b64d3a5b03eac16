//! Turns what the runtime delivers into canonical events (spec 5.6).
//!
//! **Invariant:** total and deterministic. The same envelopes in the same order give the same
//! drafts, whatever is in them; the only state is who has been seen and the time of the last event.

mod derive;
mod llm;
#[cfg(test)]
mod property;
mod receipt;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::envelope::Envelope;
use crate::event::{EventDraft, EventType, Source, Subject, SubjectKind};
use crate::payload::{self, Decoded};
use crate::session::Session;
use crate::time::{self, Timestamp};

pub use receipt::commitment as receipt_commitment;

/// Times before the year 2000 are no times: somebody sent seconds, or a counter.
const EARLIEST_UNIX_MS: i64 = 946_684_800_000;
/// Longest id of a subject, in bytes: it is a database column and a line in a list.
const MAX_SUBJECT_ID: usize = 512;
/// Longest text that is repeated at the top level of `data`, in bytes.
const MAX_LIFTED_TEXT: usize = 1024;
/// Most fields that are repeated at the top level of `data`.
const MAX_LIFTED_FIELDS: usize = 64;
/// What a payload's field may not be taken for at the top level of `data`.
const RESERVED: &[&str] =
    &["adopted", "decodeError", "runId", "sanitized", "senderAuthenticated", "source"];

/// Makes a run's runtime events, in the order of its envelopes.
#[derive(Debug, Clone, Default)]
pub struct Normalizer {
    known: HashSet<String>,
    last_ts: Option<Timestamp>,
}

/// What a signal is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Correlation {
    /// The session it names, in the payload or else on the envelope.
    pub session_id: Option<String>,
    /// The message that a `Progress` reports on. It says less than a session: ids of messages are
    /// their senders' own, so several sessions may have the same.
    pub target_message_id: Option<String>,
}

/// Which session or message an envelope of `WatchSignals` is about.
pub fn correlate(envelope: &Envelope) -> Correlation {
    let decoded = payload::decode(&envelope.mode, &envelope.message_type, &envelope.payload);
    let named = |names: &[&str]| {
        decoded.named().and_then(|fields| text_of(fields, names)).map(str::to_owned)
    };
    let own = Some(envelope.session_id.clone()).filter(|id| !id.is_empty());
    Correlation {
        session_id: named(&["correlationSessionId", "correlation_session_id"]).or(own),
        target_message_id: named(&["targetMessageId", "target_message_id"]),
    }
}

impl Normalizer {
    /// Starts with the participants that the run has seen and the time of its last runtime event.
    pub fn new(known: impl IntoIterator<Item = String>, last_ts: Option<Timestamp>) -> Self {
        Self { known: known.into_iter().collect(), last_ts }
    }

    /// The time of the last event made.
    pub fn last_ts(&self) -> Option<Timestamp> {
        self.last_ts
    }

    /// The events of an accepted envelope of the session's own stream.
    pub fn envelope(&mut self, envelope: &Envelope, received_at: Timestamp) -> Vec<EventDraft> {
        self.message(envelope, None, received_at)
    }

    /// The events of a `Signal` or `Progress`. They carry `senderAuthenticated`; when it is false,
    /// they are a record and move nothing.
    pub fn signal(
        &mut self,
        envelope: &Envelope,
        sender_authenticated: bool,
        received_at: Timestamp,
    ) -> Vec<EventDraft> {
        self.message(envelope, Some(sender_authenticated), received_at)
    }

    /// `decision.finalized` from the Commitment of a `macp-receipt/1` document, for a session whose
    /// end was not seen; `None` when the document is not one of this session.
    pub fn receipt(
        &mut self,
        session: &Session,
        receipt: &Value,
        received_at: Timestamp,
    ) -> Option<EventDraft> {
        // A receipt is issued on demand, so this is only the latest time it can have happened.
        let issued = receipt::issued_at(receipt).map_or(0, |at| at.timestamp_millis());
        let mut draft = receipt::draft(session, receipt)?;
        draft.ts = self.stamp(issued, received_at);
        Some(draft)
    }

    fn message(
        &mut self,
        envelope: &Envelope,
        authenticated: Option<bool>,
        received_at: Timestamp,
    ) -> Vec<EventDraft> {
        let ts = self.stamp(envelope.timestamp_unix_ms, received_at);
        let decoded = payload::decode(&envelope.mode, &envelope.message_type, &envelope.payload);
        let mut message = Message { envelope, decoded, authenticated, ts };
        let mut drafts = Vec::with_capacity(4);
        drafts.extend(self.participant_seen(&message));
        drafts.push(message.received());
        drafts.extend(message.llm_call());
        let extra = derive::extra(&message);
        drafts.extend(derive::derived(&mut message));
        drafts.extend(extra);
        drafts
    }

    fn participant_seen(&mut self, message: &Message<'_>) -> Option<EventDraft> {
        let sender = &message.envelope.sender;
        let vouched = message.authenticated != Some(false);
        if sender.is_empty() || !vouched || self.known.contains(sender) {
            return None;
        }
        self.known.insert(sender.clone());
        let mut data = Map::new();
        insert(&mut data, "participantId", sender.as_str());
        Some(message.draft(EventType::ParticipantSeen, SubjectKind::Participant, sender, data))
    }

    /// The envelope's own time, never before the last event's and never after its arrival.
    fn stamp(&mut self, claimed_unix_ms: i64, received_at: Timestamp) -> Timestamp {
        let claimed = if claimed_unix_ms < EARLIEST_UNIX_MS {
            None
        } else {
            time::from_unix_ms(claimed_unix_ms)
        };
        let floor = self.last_ts.unwrap_or(Timestamp::MIN_UTC);
        let ts = claimed.unwrap_or(received_at).max(floor).min(received_at);
        self.last_ts = Some(ts.max(floor));
        ts
    }
}

/// An envelope and what it says.
struct Message<'a> {
    envelope: &'a Envelope,
    decoded: Decoded,
    /// For signals only.
    authenticated: Option<bool>,
    ts: Timestamp,
}

impl Message<'_> {
    fn named(&self) -> Option<&Map<String, Value>> {
        self.decoded.named()
    }

    /// The session that the message is about.
    fn session_id(&self) -> &str {
        if !self.envelope.session_id.is_empty() {
            return &self.envelope.session_id;
        }
        self.named()
            .and_then(|fields| text_of(fields, &["correlationSessionId", "correlation_session_id"]))
            .unwrap_or("")
    }

    /// What the `data` of every event of this message starts with.
    fn base(&self) -> Map<String, Value> {
        let mut data = Map::new();
        insert(&mut data, "modeName", self.envelope.mode.as_str());
        insert(&mut data, "messageType", self.envelope.message_type.as_str());
        insert(&mut data, "messageId", self.envelope.message_id.as_str());
        insert(&mut data, "sessionId", self.session_id());
        insert(&mut data, "sender", self.envelope.sender.as_str());
        if let Some(authenticated) = self.authenticated {
            data.insert("senderAuthenticated".to_owned(), Value::Bool(authenticated));
        }
        if self.envelope.sanitized || self.decoded.sanitized {
            data.insert("sanitized".to_owned(), Value::Bool(true));
        }
        if let Some(error) = &self.decoded.error {
            insert(&mut data, "decodeError", error.as_str());
        }
        data
    }

    fn draft(
        &self,
        event_type: EventType,
        kind: SubjectKind,
        subject: &str,
        data: Map<String, Value>,
    ) -> EventDraft {
        EventDraft {
            event_type,
            ts: self.ts,
            subject: Some(Subject::new(kind, clip(subject, MAX_SUBJECT_ID))),
            source: Source::runtime(&self.envelope.message_type),
            trace: None,
            data,
        }
    }

    fn received(&self) -> EventDraft {
        let mut data = self.base();
        if let Some(type_name) = self.decoded.type_name {
            insert(&mut data, "payloadTypeName", type_name);
        }
        match &self.decoded.fields {
            Some(fields) => {
                data.insert("payload".to_owned(), Value::Object(fields.clone()));
                data.insert("decodedPayload".to_owned(), Value::Object(fields.clone()));
            }
            None => {
                let mut fields = Map::new();
                insert(&mut fields, "payloadBase64", "");
                data.insert("payload".to_owned(), Value::Object(fields));
            }
        }
        if let Some(fields) = self.named() {
            lift(&mut data, fields);
        }
        self.draft(
            EventType::MessageReceived,
            SubjectKind::Message,
            &self.envelope.message_id,
            data,
        )
    }

    fn llm_call(&self) -> Option<EventDraft> {
        let call = llm::descriptor(self.named()?)?;
        let mut data = self.base();
        lift(&mut data, &call);
        data.insert("decodedPayload".to_owned(), Value::Object(call));
        let id = &self.envelope.message_id;
        Some(self.draft(EventType::LlmCallCompleted, SubjectKind::Message, id, data))
    }
}

fn insert(data: &mut Map<String, Value>, key: &str, value: &str) {
    data.insert(key.to_owned(), Value::String(value.to_owned()));
}

/// Repeats the payload's own short scalars at the top level, where consoles look for them; what is
/// there already stays.
fn lift(data: &mut Map<String, Value>, fields: &Map<String, Value>) {
    for (key, value) in fields.iter().take(MAX_LIFTED_FIELDS) {
        let short = match value {
            Value::String(text) => text.len() <= MAX_LIFTED_TEXT,
            Value::Bool(_) | Value::Number(_) => true,
            Value::Null | Value::Array(_) | Value::Object(_) => false,
        };
        if short && !data.contains_key(key) && !RESERVED.contains(&key.as_str()) {
            data.insert(key.clone(), value.clone());
        }
    }
}

/// The first of `names` that is a text with something in it.
fn text_of<'a>(fields: &'a Map<String, Value>, names: &[&str]) -> Option<&'a str> {
    names.iter().find_map(|name| fields.get(*name)?.as_str().filter(|text| !text.is_empty()))
}

/// The start of `text`, at most `max` bytes of it.
fn clip(text: &str, max: usize) -> &str {
    text.get(..text.floor_char_boundary(max)).unwrap_or(text)
}
