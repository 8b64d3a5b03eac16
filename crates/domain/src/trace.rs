//! Trace context as W3C defines it, spans, and the port through which they leave.
//!
//! **Invariant:** no id is all zeros, and what is read from a header follows the rules of
//! `traceparent`: whatever does not is no trace at all. Who makes spans waits for nobody, and
//! nothing that becomes of a span changes what it is about.

mod context;
mod live;

use std::borrow::Cow;
use std::fmt::Debug;

pub use context::{NoTrace, SpanId, TraceContext, TraceId};
pub use live::LiveSpan;

/// Nanoseconds since the Unix epoch.
pub type UnixNanos = u64;

/// Where spans come from and go to.
pub trait Tracer: Debug + Send + Sync + 'static {
    /// The context of a new span: a child of `parent`, or the root of a trace of its own.
    fn begin(&self, parent: Option<&TraceContext>) -> TraceContext;

    /// The time, as spans take it.
    fn now(&self) -> UnixNanos;

    /// Takes a span that is over. It never waits; what is too much is dropped and counted.
    fn end(&self, span: Span);
}

/// A span that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub context: TraceContext,
    pub parent: Option<SpanId>,
    pub name: Cow<'static, str>,
    pub kind: SpanKind,
    pub start: UnixNanos,
    pub end: UnixNanos,
    pub attributes: Vec<Attribute>,
    pub events: Vec<SpanEvent>,
    pub status: SpanStatus,
}

/// On which side of a call a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    Internal,
    /// A request that we answer.
    Server,
    /// A request that we make.
    Client,
}

/// How what a span is about ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpanStatus {
    /// As it should, or nobody says.
    Unset,
    Ok,
    /// It failed, and why.
    Error(String),
}

/// A moment within a span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanEvent {
    pub name: Cow<'static, str>,
    pub at: UnixNanos,
    pub attributes: Vec<Attribute>,
}

/// A name and what it is.
pub type Attribute = (&'static str, AttributeValue);

/// What an attribute is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttributeValue {
    Text(String),
    Integer(i64),
    Flag(bool),
}

impl From<&str> for AttributeValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for AttributeValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for AttributeValue {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<usize> for AttributeValue {
    fn from(number: usize) -> Self {
        Self::Integer(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<bool> for AttributeValue {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

/// The trace of a run: the context of its root span, and whose child that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunTrace {
    pub context: TraceContext,
    /// The span that asked for the run.
    pub parent: Option<SpanId>,
}

impl RunTrace {
    /// The trace of a new run, as part of `parent` if there is one.
    pub fn begin(tracer: &dyn Tracer, parent: Option<&TraceContext>) -> Self {
        let context = tracer.begin(parent);
        Self { context, parent: parent.map(|parent| parent.span_id) }
    }
}
