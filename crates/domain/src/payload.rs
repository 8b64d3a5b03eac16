//! Reads an envelope's payload into JSON (spec 5.7).
//!
//! **Invariant:** [`decode`] is total. Whatever an agent sends becomes a value that can be stored:
//! bytes that cannot be read are kept as base64 with the reason, U+0000 (which PostgreSQL refuses)
//! becomes U+FFFD and is flagged, and nothing nests deeper than [`MAX_DEPTH`].

mod convert;
mod schema;
mod scrub;
#[cfg(test)]
mod tests;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost_reflect::DynamicMessage;
use prost_reflect::prost::Message as _;
use serde::de::DeserializeSeed as _;
use serde_json::{Map, Value, json};

/// Deepest JSON that is taken apart. An event nests it a few levels further, and the whole must
/// stay readable for a parser that stops at 128.
pub const MAX_DEPTH: usize = 64;

/// The `payloadTypeName` of a payload that was JSON.
pub const JSON_TYPE: &str = "__json__";

/// A payload, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// What is recorded; `None` when nothing was sent and no type says what that means.
    pub fields: Option<Map<String, Value>>,
    /// How [`Decoded::fields`] came about.
    pub encoding: Encoding,
    /// The protobuf type, or [`JSON_TYPE`].
    pub type_name: Option<&'static str>,
    /// Whether a U+0000 was replaced.
    pub sanitized: bool,
    /// Why the bytes could not be read.
    pub error: Option<String>,
}

/// What a payload turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// No bytes, and no type that gives them a meaning.
    Empty,
    /// A message of a known type: its fields.
    Protobuf,
    /// A JSON object: its fields.
    Json,
    /// Another JSON value, under `json`.
    JsonValue,
    /// UTF-8, under `text`, beside its bytes.
    Text,
    /// Anything else, under `payloadBase64`.
    Base64,
}

impl Decoded {
    fn new(encoding: Encoding, fields: Map<String, Value>) -> Self {
        Self { fields: Some(fields), encoding, type_name: None, sanitized: false, error: None }
    }

    /// The fields that the sender named; empty unless the payload is a message or an object.
    pub fn named(&self) -> Option<&Map<String, Value>> {
        match self.encoding {
            Encoding::Protobuf | Encoding::Json => self.fields.as_ref(),
            Encoding::Empty | Encoding::JsonValue | Encoding::Text | Encoding::Base64 => None,
        }
    }
}

/// Reads `payload` by the mode's table, then the core table, then as JSON or text.
pub fn decode(mode: &str, message_type: &str, payload: &[u8]) -> Decoded {
    if mode == schema::MULTI_ROUND && message_type == "Contribute" {
        return contribute(mode, message_type, payload);
    }
    let Some(known) = schema::find(mode, message_type) else { return untyped(payload) };
    match DynamicMessage::decode(known.descriptor.clone(), payload) {
        Ok(message) => protobuf(message, known.name, message_type),
        // A client that speaks JSON where protobuf is due: its fields are what it meant.
        Err(error) => json_object(payload).unwrap_or_else(|| {
            undecodable(payload, format!("the payload is not a {}: {error}", known.name))
        }),
    }
}

/// Encodes `fields` (camelCase JSON) as the protobuf type of this message; `None` when there is no
/// such type, or when the fields do not fit it.
pub fn encode(mode: &str, message_type: &str, fields: &Value) -> Option<Vec<u8>> {
    let known = schema::find(mode, message_type)?;
    known.descriptor.clone().deserialize(fields).ok().map(|message| message.encode_to_vec())
}

/// `Contribute` of multi-round: JSON is the old form, protobuf the canonical one. Some canonical
/// encodings are JSON too (a length byte of 10, 13, 32 or 123 reads as white space or `{`), so
/// JSON is believed only when the bytes are not also what protobuf would have written.
fn contribute(mode: &str, message_type: &str, payload: &[u8]) -> Decoded {
    let message = schema::find(mode, message_type).and_then(|known| {
        DynamicMessage::decode(known.descriptor.clone(), payload)
            .ok()
            .map(|message| (message, known.name))
    });
    let canonical = message.as_ref().is_some_and(|(message, _)| {
        message.unknown_fields().next().is_none() && message.encode_to_vec() == payload
    });
    if !canonical && let Some(decoded) = json_object(payload) {
        return decoded;
    }
    match message {
        Some((message, name)) => protobuf(message, name, message_type),
        None => untyped(payload),
    }
}

fn protobuf(message: DynamicMessage, name: &'static str, message_type: &str) -> Decoded {
    let mut sanitized = false;
    let mut fields = convert::object(message, &mut sanitized);
    if message_type == "Commitment" {
        // Encoders omit proto3 defaults: a negative commitment has no outcome on the wire.
        fields.entry("outcomePositive").or_insert(Value::Bool(false));
    }
    Decoded { type_name: Some(name), sanitized, ..Decoded::new(Encoding::Protobuf, fields) }
}

/// The text rule: JSON, else UTF-8, else bytes.
fn untyped(payload: &[u8]) -> Decoded {
    if payload.is_empty() {
        return Decoded {
            fields: None,
            encoding: Encoding::Empty,
            type_name: None,
            sanitized: false,
            error: None,
        };
    }
    if let Some(decoded) = json_object(payload) {
        return decoded;
    }
    let mut sanitized = false;
    let (encoding, mut fields) = match parse_json(payload, &mut sanitized) {
        Some(value) => (Encoding::JsonValue, json!({ "json": value, "encoding": "json" })),
        None => match std::str::from_utf8(payload) {
            Ok(text) => {
                let text = scrub::text(text.to_owned(), &mut sanitized);
                let bytes = STANDARD.encode(payload);
                let fields = json!({ "text": text, "encoding": "text", "payloadBase64": bytes });
                (Encoding::Text, fields)
            }
            Err(error) => {
                return undecodable(
                    payload,
                    format!("the payload has no known type and is not text: {error}"),
                );
            }
        },
    };
    let fields = fields.as_object_mut().map(std::mem::take).unwrap_or_default();
    let type_name = (encoding == Encoding::JsonValue).then_some(JSON_TYPE);
    Decoded { type_name, sanitized, ..Decoded::new(encoding, fields) }
}

fn json_object(payload: &[u8]) -> Option<Decoded> {
    let first = payload.iter().find(|byte| !byte.is_ascii_whitespace())?;
    if *first != b'{' {
        return None;
    }
    let mut sanitized = false;
    match parse_json(payload, &mut sanitized)? {
        Value::Object(fields) => Some(Decoded {
            type_name: Some(JSON_TYPE),
            sanitized,
            ..Decoded::new(Encoding::Json, fields)
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            None
        }
    }
}

/// JSON that is not too deep to store, without U+0000.
pub(crate) fn parse_json(bytes: &[u8], sanitized: &mut bool) -> Option<Value> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    scrub::value(value, MAX_DEPTH, sanitized)
}

fn undecodable(payload: &[u8], error: String) -> Decoded {
    let mut fields = Map::new();
    fields.insert("payloadBase64".to_owned(), Value::String(STANDARD.encode(payload)));
    fields.insert("encoding".to_owned(), Value::String("base64".to_owned()));
    // The reason may quote what was sent.
    let error = scrub::text(error, &mut false);
    Decoded { error: Some(error), ..Decoded::new(Encoding::Base64, fields) }
}
