//! The trace that calls are part of: each is a span, and says so to the runtime.
//!
//! **Invariant:** without a trace nothing is sent and nothing is measured. A call that is not
//! waited for any more has failed if that is for its deadline; otherwise it was given up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use control_plane_domain::TraceContext;
use control_plane_domain::trace::{LiveSpan, SpanKind, SpanStatus, Tracer};
use tonic::Code;
use tonic::codegen::http::{HeaderValue, Request};

use crate::authorized::Answer;

/// The deadline begins a moment before the call does.
const MARGIN: Duration = Duration::from_millis(10);

/// Where the spans of calls go, and whose children they are.
#[derive(Debug, Clone)]
pub(crate) struct Traced {
    pub(crate) tracer: Arc<dyn Tracer>,
    pub(crate) parent: TraceContext,
    /// The deadline of calls.
    pub(crate) timeout: Duration,
}

/// A call under way.
pub(crate) struct Call {
    /// `None` once it is answered.
    span: Option<LiveSpan>,
    due: Instant,
}

impl Traced {
    /// Begins the span of a call, and has the call name it.
    pub(crate) fn begin<B>(&self, request: &mut Request<B>) -> Call {
        let path = request.uri().path().trim_start_matches('/');
        let (service, method) = path.split_once('/').unwrap_or(("", path));
        let name = format!("runtime.{}", snake(method));
        let span = LiveSpan::begin(&self.tracer, Some(&self.parent), name, SpanKind::Client)
            .with("rpc.system", "grpc")
            .with("rpc.service", service)
            .with("rpc.method", method);
        let context = span.context();
        let headers = request.headers_mut();
        if let Ok(value) = HeaderValue::from_str(&context.traceparent()) {
            headers.insert("traceparent", value);
        }
        if let Some(Ok(value)) = context.state.as_deref().map(HeaderValue::from_str) {
            headers.insert("tracestate", value);
        }
        Call { span: Some(span), due: Instant::now() + self.timeout.saturating_sub(MARGIN) }
    }
}

impl Call {
    /// Ends the span as the answer begins. A call that fails is answered by a head alone.
    pub(crate) fn end(mut self, answer: &Answer) {
        let Some(mut span) = self.span.take() else { return };
        let status = match answer {
            Ok(response) => {
                let code = response.headers().get("grpc-status").map(HeaderValue::as_bytes);
                let code = code.map_or(Code::Ok, Code::from_bytes);
                span.note(("rpc.grpc.status_code", i64::from(i32::from(code)).into()));
                match code == Code::Ok {
                    true => SpanStatus::Ok,
                    false => SpanStatus::Error(format!("{code:?}")),
                }
            }
            Err(fault) => SpanStatus::Error(fault.to_string()),
        };
        span.end(status);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if Instant::now() >= self.due
            && let Some(span) = self.span.take()
        {
            span.end(SpanStatus::Error("the deadline passed".to_owned()));
        }
    }
}

/// `GetSession` as `get_session`.
fn snake(method: &str) -> String {
    let mut name = String::with_capacity(method.len() + 4);
    for letter in method.chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_named_as_the_others_are() {
        for (method, name) in [("GetSession", "get_session"), ("Initialize", "initialize")] {
            assert_eq!(snake(method), name);
        }
    }
}
