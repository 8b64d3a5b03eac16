//! The messages of OTLP that carry spans, as far as we fill them in: `ExportTraceServiceRequest`
//! and its answer, of `opentelemetry.proto.collector.trace.v1`.
//!
//! **Invariant:** names and numbers are those of the protocol; a test reads what is written here
//! with the protocol's own, published types.

use control_plane_domain::trace::{
    Attribute, AttributeValue, Span, SpanEvent, SpanKind, SpanStatus,
};
use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Request {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Response {
    #[prost(message, optional, tag = "1")]
    pub(super) partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PartialSuccess {
    #[prost(int64, tag = "1")]
    pub(super) rejected_spans: i64,
    #[prost(string, tag = "2")]
    pub(super) error_message: String,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<WireSpan>,
}

#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct WireSpan {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(string, tag = "3")]
    trace_state: String,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, repeated, tag = "11")]
    events: Vec<Event>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    flags: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(fixed64, tag = "1")]
    time_unix_nano: u64,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "3")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(oneof = "Value", tags = "1, 2, 3")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Value {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Flag(bool),
    #[prost(int64, tag = "3")]
    Integer(i64),
}

impl Resource {
    /// From names and texts.
    pub(super) fn new(attributes: &[(String, String)]) -> Self {
        let pair = |(key, value): &(String, String)| pair(key, Value::Text(value.clone()));
        Self { attributes: attributes.iter().map(pair).collect() }
    }
}

/// A request that carries these spans.
pub(super) fn request(resource: &Resource, spans: Vec<Span>) -> Vec<u8> {
    let scope = Scope {
        name: "macp-control-plane".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let spans = spans.into_iter().map(WireSpan::from).collect();
    let request = Request {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource.clone()),
            scope_spans: vec![ScopeSpans { scope: Some(scope), spans }],
        }],
    };
    request.encode_to_vec()
}

impl From<Span> for WireSpan {
    fn from(span: Span) -> Self {
        let Span { context, parent, name, kind, start, end, attributes, events, status } = span;
        Self {
            trace_id: context.trace_id.bytes().to_vec(),
            span_id: context.span_id.bytes().to_vec(),
            trace_state: context.state.unwrap_or_default(),
            parent_span_id: parent.map(|parent| parent.bytes().to_vec()).unwrap_or_default(),
            name: name.into_owned(),
            kind: match kind {
                SpanKind::Internal => 1,
                SpanKind::Server => 2,
                SpanKind::Client => 3,
            },
            start_time_unix_nano: start,
            end_time_unix_nano: end,
            attributes: attributes.into_iter().map(attribute).collect(),
            events: events.into_iter().map(Event::from).collect(),
            status: match status {
                SpanStatus::Unset => None,
                SpanStatus::Ok => Some(Status { message: String::new(), code: 1 }),
                SpanStatus::Error(message) => Some(Status { message, code: 2 }),
            },
            flags: u32::from(context.sampled),
        }
    }
}

impl From<SpanEvent> for Event {
    fn from(event: SpanEvent) -> Self {
        let SpanEvent { name, at, attributes } = event;
        Self {
            time_unix_nano: at,
            name: name.into_owned(),
            attributes: attributes.into_iter().map(attribute).collect(),
        }
    }
}

fn attribute((key, value): Attribute) -> KeyValue {
    let value = match value {
        AttributeValue::Text(text) => Value::Text(text),
        AttributeValue::Integer(number) => Value::Integer(number),
        AttributeValue::Flag(flag) => Value::Flag(flag),
    };
    pair(key, value)
}

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}
