//! Which browsers may call: those whose page comes from a configured origin.

use actix_web::http::Method;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// What a page may read besides the body.
const EXPOSED: &str =
    "X-MACP-Replay-From, X-MACP-Latest-Seq, X-MACP-Log-Id, x-request-id, Location, Retry-After";
/// What a page may send.
const ALLOWED_HEADERS: &str =
    "authorization, content-type, idempotency-key, last-event-id, x-request-id";
const ALLOWED_METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE";

/// Whether a browser asks before it sends the real request.
pub(super) fn is_preflight(method: &Method, request: &HeaderMap) -> bool {
    *method == Method::OPTIONS
        && request.contains_key(header::ORIGIN)
        && request.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The headers that an answer to this request gets.
pub(super) fn headers(origins: &[String], request: &HeaderMap, method: &Method) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = request.get(header::ORIGIN) else { return headers };
    let anyone = origins.iter().any(|allowed| allowed == "*");
    if !anyone && !origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()) {
        return headers;
    }
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    let mut set = |name: HeaderName, value: &'static str| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    if !anyone {
        set(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, "true");
    }
    if is_preflight(method, request) {
        set(header::ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS);
        set(header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
        set(header::ACCESS_CONTROL_MAX_AGE, "600");
    } else {
        set(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_origin(origin: &'static str) -> HeaderMap {
        let mut request = HeaderMap::new();
        request.insert(header::ORIGIN, HeaderValue::from_static(origin));
        request
    }

    #[test]
    fn only_a_configured_origin_is_let_in() {
        let origins = ["http://localhost:3000".to_owned()];
        let good = headers(&origins, &from_origin("http://localhost:3000"), &Method::GET);
        let bad = headers(&origins, &from_origin("http://evil.example"), &Method::GET);
        assert_eq!(good.get("access-control-allow-origin").unwrap(), "http://localhost:3000");
        assert_eq!(good.get("access-control-allow-credentials").unwrap(), "true");
        assert!(!bad.contains_key("access-control-allow-origin"));
        assert_eq!(bad.get("vary").unwrap(), "Origin");
    }

    #[test]
    fn a_star_lets_everybody_in_without_credentials() {
        let answer = headers(&["*".to_owned()], &from_origin("http://a.example"), &Method::GET);
        assert_eq!(answer.get("access-control-allow-origin").unwrap(), "http://a.example");
        assert!(!answer.contains_key("access-control-allow-credentials"));
    }

    #[test]
    fn a_preflight_is_told_what_it_may_send() {
        let mut request = from_origin("http://localhost:3000");
        request.insert(header::ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("POST"));
        let answer = headers(&["http://localhost:3000".to_owned()], &request, &Method::OPTIONS);
        let allowed = answer.get("access-control-allow-headers").unwrap().to_str().unwrap();
        for name in ["authorization", "content-type", "idempotency-key", "last-event-id"] {
            assert!(allowed.contains(name), "{name}");
        }
    }
}
