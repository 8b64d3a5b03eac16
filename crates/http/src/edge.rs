//! The outermost layer: request id, CORS, one log line and two figures per request.
//!
//! **Invariant:** every answer passes here, errors and panics too, so each has `x-request-id`, the
//! CORS headers and the one error body. Paths are counted by route pattern, so that what clients
//! type cannot grow the metrics.

mod cors;

use std::time::Instant;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{CONTENT_ENCODING, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{HttpMessage, HttpResponse, ResponseError, web};

use crate::auth::Caller;
use crate::context::ApiContext;
use crate::error::ApiError;
use crate::traces;

/// The name of the header that ties an answer to its log line.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest request id that is taken over.
const MAX_REQUEST_ID: usize = 128;

/// Wraps everything else.
pub(crate) async fn edge(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let started = Instant::now();
    let method = request.method().clone();
    let path = request.path().to_owned();
    let request_id = request_id(request.headers());
    let mut extra = HeaderMap::new();
    if let Some(context) = request.app_data::<web::Data<ApiContext>>() {
        extra = cors::headers(&context.settings.cors_origins, request.headers(), &method);
    }
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        extra.insert(REQUEST_ID, value);
    }

    if cors::is_preflight(&method, request.headers()) {
        let mut response = request.into_response(HttpResponse::NoContent().finish());
        append(response.headers_mut(), &extra);
        return Ok(response);
    }
    let span = traces::begin(&request);
    match next.call(request).await {
        Ok(response) => {
            let mut response = response.map_into_boxed_body();
            append(response.headers_mut(), &extra);
            // "Not compressed" is meant for the layers inside; on the wire it is not said.
            if response.headers().get(CONTENT_ENCODING).is_some_and(|it| it == "identity") {
                response.headers_mut().remove(CONTENT_ENCODING);
            }
            let pattern = response.request().match_pattern();
            if let Some(span) = span {
                traces::end(span, known_method(&method), pattern.as_deref(), response.status());
            }
            let caller = response.request().extensions().get::<Caller>().map(|it| it.name.clone());
            let done =
                Done { method, path, pattern, request_id, caller, status: response.status() };
            done.record(started);
            Ok(response)
        }
        Err(error) => {
            // Handlers' errors are answers already: this is a panic, or a layer that failed.
            let status = error.as_response_error().status_code();
            if let Some(span) = span {
                traces::end(span, known_method(&method), None, status);
            }
            let done = Done { method, path, pattern: None, request_id, caller: None, status };
            done.record(started);
            Err(Failed { headers: extra }.into())
        }
    }
}

/// A request that is over.
struct Done {
    method: Method,
    path: String,
    pattern: Option<String>,
    request_id: String,
    caller: Option<String>,
    status: StatusCode,
}

impl Done {
    fn record(self, started: Instant) {
        let Self { method, path, pattern, request_id, caller, status } = self;
        let elapsed = started.elapsed();
        let method = known_method(&method);
        let quiet = matches!(pattern.as_deref(), Some("/healthz" | "/readyz" | "/metrics"));
        let labels = [
            ("method", method.to_owned()),
            ("path", pattern.unwrap_or_else(|| "unmatched".to_owned())),
            ("status_code", status.as_u16().to_string()),
        ];
        metrics::counter!("http_requests_total", &labels).increment(1);
        metrics::histogram!("http_request_duration_seconds", &labels).record(elapsed.as_secs_f64());
        let duration_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let status = status.as_u16();
        let actor = caller.as_deref().unwrap_or("-");
        if quiet {
            tracing::debug!(
                http.method = method,
                http.path = path,
                http.status_code = status,
                duration_ms,
                request.id = request_id,
                actor,
                "{method} {path} {status}"
            );
        } else {
            tracing::info!(
                http.method = method,
                http.path = path,
                http.status_code = status,
                duration_ms,
                request.id = request_id,
                actor,
                "{method} {path} {status}"
            );
        }
    }
}

/// The answer to a request during which something broke.
#[derive(Debug, thiserror::Error)]
#[error("a request handler failed")]
struct Failed {
    headers: HeaderMap,
}

impl ResponseError for Failed {
    fn status_code(&self) -> StatusCode {
        StatusCode::INTERNAL_SERVER_ERROR
    }

    fn error_response(&self) -> HttpResponse {
        let error = ApiError::Internal("a request handler panicked".to_owned());
        let mut response = error.error_response();
        append(response.headers_mut(), &self.headers);
        response
    }
}

fn append(headers: &mut HeaderMap, extra: &HeaderMap) {
    for (name, value) in extra {
        headers.append(name.clone(), value.clone());
    }
}

/// Takes over the caller's id, less what has no place in a log line; makes one otherwise.
fn request_id(headers: &HeaderMap) -> String {
    let given: String = headers
        .get(&REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .chars()
        .filter(|it| it.is_ascii_alphanumeric() || "-_.:/+=@".contains(*it))
        .take(MAX_REQUEST_ID)
        .collect();
    if given.is_empty() { uuid::Uuid::new_v4().to_string() } else { given }
}

fn known_method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_of(given: &'static str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_static(given));
        request_id(&headers)
    }

    #[test]
    fn a_request_id_is_taken_over() {
        assert_eq!(id_of("trace-1/2:3"), "trace-1/2:3");
    }

    #[test]
    fn a_request_id_cannot_forge_a_log_line() {
        assert_eq!(id_of("a b\"{}\tc"), "abc");
    }

    #[test]
    fn a_missing_or_empty_request_id_is_made() {
        assert_eq!(request_id(&HeaderMap::new()).len(), 36);
        assert_eq!(id_of("").len(), 36);
    }

    #[test]
    fn a_long_request_id_is_cut() {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_str(&"x".repeat(5000)).unwrap());
        assert_eq!(request_id(&headers).len(), MAX_REQUEST_ID);
    }

    #[test]
    fn invented_methods_share_a_label() {
        assert_eq!(known_method(&Method::from_bytes(b"BREW").unwrap()), "OTHER");
    }
}
