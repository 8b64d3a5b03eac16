//! A collector of spans: takes OTLP over HTTP, as protobuf, and reads it with the protocol's own
//! published types.
//!
//! **Invariant:** a request that it cannot read is a panic of the test that looks, not silence.

#![expect(clippy::expect_used, reason = "a test's failure is a panic")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message as _;
use serde_json::{Value, json};

use crate::listener::{Listener, Received, Reply};

/// The collector.
pub struct Collector {
    listener: Listener,
    down: Arc<AtomicBool>,
}

/// A span as it arrived; ids are hex.
#[derive(Debug, Clone, PartialEq)]
pub struct SeenSpan {
    /// The `service.name` that it came from.
    pub service: String,
    pub trace_id: String,
    pub span_id: String,
    /// Empty for a root.
    pub parent_span_id: String,
    pub trace_state: String,
    pub name: String,
    pub kind: SpanKind,
    pub start: Duration,
    pub end: Duration,
    pub attributes: BTreeMap<String, Value>,
    /// Name and attributes of each.
    pub events: Vec<(String, BTreeMap<String, Value>)>,
    pub status: StatusCode,
    pub status_message: String,
}

impl Collector {
    /// One that takes everything.
    pub async fn start() -> Self {
        let down = Arc::new(AtomicBool::new(false));
        let its = Arc::clone(&down);
        let answer = move |_: &Received| {
            let status = if its.load(Ordering::SeqCst) { 503 } else { 200 };
            Reply::Json(status, json!({}))
        };
        Self { listener: Listener::start(answer).await, down }
    }

    /// What `OTEL_EXPORTER_OTLP_ENDPOINT` is to be.
    pub fn endpoint(&self) -> String {
        self.listener.url("")
    }

    /// Whether it fails from now on.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    /// The requests that came.
    pub fn received(&self) -> Vec<Received> {
        self.listener.received()
    }

    /// Every span that arrived, also twice if it came twice.
    ///
    /// # Panics
    /// When a request cannot be read.
    pub fn spans(&self) -> Vec<SeenSpan> {
        let requests = self.received();
        requests.iter().flat_map(spans).collect()
    }
}

fn spans(received: &Received) -> Vec<SeenSpan> {
    assert_eq!(received.line, "POST /v1/traces HTTP/1.1");
    let content_type = received.headers.get("content-type").map(String::as_str);
    assert_eq!(content_type, Some("application/x-protobuf"));
    let request = ExportTraceServiceRequest::decode(received.raw.as_slice())
        .expect("the request is an ExportTraceServiceRequest");
    let mut spans = Vec::new();
    for resource_spans in request.resource_spans {
        let resource = resource_spans.resource.expect("spans come from somewhere");
        let resource = attributes(&resource.attributes);
        let name = resource.get("service.name").and_then(Value::as_str);
        let service = name.expect("it has a name").to_owned();
        for span in resource_spans.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            spans.push(seen(&service, span));
        }
    }
    spans
}

fn seen(service: &str, span: Span) -> SeenSpan {
    let status = span.status.clone().unwrap_or_default();
    SeenSpan {
        service: service.to_owned(),
        trace_id: hex::encode(&span.trace_id),
        span_id: hex::encode(&span.span_id),
        parent_span_id: hex::encode(&span.parent_span_id),
        kind: span.kind(),
        start: Duration::from_nanos(span.start_time_unix_nano),
        end: Duration::from_nanos(span.end_time_unix_nano),
        attributes: attributes(&span.attributes),
        events: span
            .events
            .iter()
            .map(|event| (event.name.clone(), attributes(&event.attributes)))
            .collect(),
        status: status.code(),
        status_message: status.message,
        trace_state: span.trace_state,
        name: span.name,
    }
}

fn attributes(pairs: &[KeyValue]) -> BTreeMap<String, Value> {
    let value = |pair: &KeyValue| match pair.value.as_ref().and_then(|any| any.value.as_ref()) {
        Some(Any::StringValue(text)) => json!(text),
        Some(Any::BoolValue(flag)) => json!(flag),
        Some(Any::IntValue(number)) => json!(number),
        other => panic!("{} is {other:?}", pair.key),
    };
    pairs.iter().map(|pair| (pair.key.clone(), value(pair))).collect()
}
