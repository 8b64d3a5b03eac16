//! The trace of a run, and the traces that requests are part of (spec 1.3.21, 11.11).
//!
//! **Invariant:** without tracing no request is measured, and no trace id is made or taken over.

use std::sync::Arc;

use actix_web::dev::ServiceRequest;
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::{HttpMessage, HttpRequest, HttpResponse, web};
use control_plane_domain::TraceContext;
use control_plane_domain::runtime::Runtime;
use control_plane_domain::trace::{LiveSpan, SpanKind, SpanStatus};
use control_plane_projection::state as projection_state;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::context::ApiContext;
use crate::error::{ApiError, ErrorBody};
use crate::runs::find;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// Probes and scrapers ask all the time, and nobody wants to see it.
const QUIET: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// A run's trace.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RunTrace)]
pub(crate) struct TraceView {
    /// 32 hex digits; absent when the run was not traced.
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    /// How many of the run's events name a span.
    span_count: Value,
    /// The last span that an event names.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_span_id: Option<Value>,
    /// The span that begins and ends with the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    root_span_id: Option<String>,
    /// The span that asked for the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<String>,
    /// Whether the run's spans are exported.
    #[serde(skip_serializing_if = "Option::is_none")]
    sampled: Option<bool>,
    /// The ids of all artifacts that the log tells of.
    #[schema(value_type = Vec<String>)]
    linked_artifacts: Value,
    run_status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    scenario_ref: Option<String>,
}

/// `GET /runs/{id}/traces`
#[utoipa::path(
    get, path = "/runs/{id}/traces", tag = "runs",
    params(("id" = String, Path, description = "A run's id, or its session's")),
    responses((status = 200, body = TraceView), (status = 404, body = ErrorBody))
)]
pub(crate) async fn show(
    context: web::Data<ApiContext>,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let run = find(&context.store, &id).await?;
    let place = context.store.run_trace(run.id).await?;
    let state = projection_state::load(&context.store, run.id).await?;
    let state = serde_json::to_value(state).unwrap_or_default();
    let section = |key: &str| state.get("trace").and_then(|trace| trace.get(key)).cloned();
    let scenario = run.metadata.get("scenarioRef").and_then(Value::as_str);
    Ok(HttpResponse::Ok().json(TraceView {
        trace_id: run.trace_id,
        span_count: section("spanCount").unwrap_or_else(|| 0.into()),
        last_span_id: section("lastSpanId").filter(|id| !id.is_null()),
        root_span_id: place.as_ref().map(|place| place.context.span_id.to_string()),
        parent_span_id: place.as_ref().and_then(|place| place.parent).map(|id| id.to_string()),
        sampled: place.as_ref().map(|place| place.context.sampled),
        linked_artifacts: section("linkedArtifacts").unwrap_or_else(|| Value::Array(Vec::new())),
        run_status: run.state.as_str(),
        scenario_ref: run.source_ref.or_else(|| scenario.map(str::to_owned)),
    }))
}

/// Begins the span of a request; what happens in it finds its context in the request.
pub(crate) fn begin(request: &ServiceRequest) -> Option<LiveSpan> {
    let context = request.app_data::<web::Data<ApiContext>>()?;
    let tracer = context.engine.tracer()?;
    if QUIET.contains(&request.path()) {
        return None;
    }
    let method = request.method().as_str().to_owned();
    let caller = caller(request.headers());
    let span = LiveSpan::begin(tracer, caller.as_ref(), method.clone(), SpanKind::Server)
        .with("http.request.method", method)
        .with("url.path", request.path());
    request.extensions_mut().insert(span.context().clone());
    Some(span)
}

/// Ends the span of a request when its answer begins: a stream may go on for hours.
pub(crate) fn end(mut span: LiveSpan, method: &str, pattern: Option<&str>, status: StatusCode) {
    if let Some(pattern) = pattern {
        span.rename(format!("{method} {pattern}"));
        span.note(("http.route", pattern.into()));
    }
    span.note(("http.response.status_code", i64::from(status.as_u16()).into()));
    span.end(match status.is_server_error() {
        true => SpanStatus::Error(status.canonical_reason().unwrap_or("Error").to_owned()),
        // What a client does wrong is no fault of ours.
        false => SpanStatus::Unset,
    });
}

/// The trace that a request is part of; `None` when nothing is traced.
pub(crate) fn of(request: &HttpRequest) -> Option<TraceContext> {
    request.extensions().get::<TraceContext>().cloned()
}

/// The runtime, whose calls are part of the request's trace.
pub(crate) fn runtime(context: &ApiContext, request: &HttpRequest) -> Arc<dyn Runtime> {
    context.engine.runtime_within(of(request).as_ref())
}

/// The caller's place in its trace, if its headers name one.
fn caller(headers: &HeaderMap) -> Option<TraceContext> {
    let mut parents = headers.get_all(TRACEPARENT);
    let parent = parents.next()?.to_str().ok()?;
    // With two of them nobody knows which one is meant.
    if parents.next().is_some() {
        return None;
    }
    let states: Option<Vec<&str>> =
        headers.get_all(TRACESTATE).map(HeaderValue::to_str).map(Result::ok).collect();
    let state = states.filter(|states| !states.is_empty()).map(|states| states.join(","));
    TraceContext::parse(parent, state.as_deref()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(given: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_caller_is_who_the_one_valid_header_names() {
        let context = caller(&headers(&[
            ("traceparent", PARENT),
            ("tracestate", "a=1"),
            ("tracestate", "b=2"),
        ]));
        let context = context.unwrap();
        assert_eq!(context.traceparent(), PARENT);
        assert_eq!(context.state.as_deref(), Some("a=1,b=2"));
    }

    #[test]
    fn none_two_or_a_bad_header_name_nobody() {
        for given in [
            vec![],
            vec![("tracestate", "a=1")],
            vec![("traceparent", "nonsense")],
            vec![("traceparent", PARENT), ("traceparent", PARENT)],
        ] {
            assert_eq!(caller(&headers(&given)), None, "{given:?}");
        }
    }
}
