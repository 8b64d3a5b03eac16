//! Which failure has which status, code and body.

use super::*;

fn runtime(kind: RuntimeErrorKind, grpc_code: i32) -> ApiError {
    ApiError::Runtime(RuntimeError { kind, grpc_code, message: "what it said".to_owned() })
}

fn circuit_open() -> RuntimeErrorKind {
    RuntimeErrorKind::CircuitOpen { retry_after: std::time::Duration::from_millis(20_400) }
}

#[test]
fn an_open_circuit_says_when_to_come_back() {
    let answer = runtime(circuit_open(), 14).error_response();
    assert_eq!(answer.headers().get(RETRY_AFTER).unwrap(), "21");
}

#[test]
fn every_failure_has_its_status_and_code() {
    let table = [
        (ApiError::Validation(vec!["limit must be an integer".into()]), 400, "VALIDATION_ERROR"),
        (
            ApiError::Validation(vec![
                "session.sessionId must be a UUID v4/v7 or base64url 22+ chars".into(),
            ]),
            400,
            "INVALID_SESSION_ID",
        ),
        (ApiError::Unauthorized("Missing Authorization header"), 401, "UNAUTHENTICATED"),
        (ApiError::ReadOnlyKey, 403, "FORBIDDEN"),
        (ApiError::RunNotFound("x".into()), 404, "RUN_NOT_FOUND"),
        (ApiError::UnknownRuntime("java".into()), 404, "NOT_FOUND"),
        (
            ApiError::MethodNotAllowed {
                method: "PUT".into(),
                path: "/".into(),
                allowed: "GET".into(),
            },
            405,
            "METHOD_NOT_ALLOWED",
        ),
        (ApiError::SessionTaken { run_id: "r".into() }, 409, "SESSION_ALREADY_EXISTS"),
        (ApiError::IdempotencyConflict, 409, "CONFLICT"),
        (ApiError::ArtifactLimit(100), 409, "CONFLICT"),
        (ApiError::Removed("gone".into()), 410, "ENDPOINT_REMOVED"),
        (ApiError::TooLarge(1), 413, "PAYLOAD_TOO_LARGE"),
        (ApiError::UnsupportedMediaType, 415, "UNSUPPORTED_MEDIA_TYPE"),
        (ApiError::Draining, 503, "SERVICE_UNAVAILABLE"),
        (ApiError::Internal("secret".into()), 500, "INTERNAL_ERROR"),
        (runtime(RuntimeErrorKind::NotFound, 5), 404, "NOT_FOUND"),
        (runtime(RuntimeErrorKind::RateLimited, 8), 429, "RATE_LIMITED"),
        (runtime(RuntimeErrorKind::Unauthenticated, 16), 401, "UNAUTHENTICATED"),
        (runtime(RuntimeErrorKind::Forbidden, 7), 403, "FORBIDDEN"),
        (runtime(RuntimeErrorKind::InvalidArgument, 3), 400, "VALIDATION_ERROR"),
        (runtime(RuntimeErrorKind::Conflict, 9), 409, "CONFLICT"),
        (runtime(RuntimeErrorKind::Unimplemented, 12), 501, "NOT_IMPLEMENTED"),
        (runtime(RuntimeErrorKind::Unavailable, 14), 503, "RUNTIME_UNAVAILABLE"),
        (runtime(circuit_open(), 14), 503, "CIRCUIT_BREAKER_OPEN"),
        (runtime(RuntimeErrorKind::Timeout, 4), 504, "RUNTIME_TIMEOUT"),
        (runtime(RuntimeErrorKind::Internal, 13), 500, "INTERNAL_ERROR"),
    ];
    for (error, status, code) in table {
        let body = error.body();
        assert_eq!((body.status_code, body.error_code), (status, code), "{error:?}");
        assert_eq!(error.error_response().status().as_u16(), status);
    }
}

#[test]
fn the_body_of_a_validation_error_lists_every_fault() {
    let body = ApiError::Validation(vec!["a is required".into(), "b is required".into()]).body();
    assert_eq!(
        serde_json::to_value(body).unwrap(),
        json!({
            "statusCode": 400,
            "errorCode": "VALIDATION_ERROR",
            "error": "Bad Request",
            "message": ["a is required", "b is required"],
        })
    );
}

#[test]
fn what_went_wrong_inside_is_not_sent() {
    let body = ApiError::Internal("password=hunter2".into()).body();
    assert_eq!(body.message, json!("Internal server error"));
}

#[test]
fn a_runtime_error_carries_its_grpc_code_and_its_sentence() {
    let body = serde_json::to_value(runtime(RuntimeErrorKind::NotFound, 5).body()).unwrap();
    assert_eq!(body["details"], json!({ "grpcCode": 5 }));
    assert_eq!(body["message"], "what it said");
}

#[test]
fn a_busy_answer_says_when_to_come_back() {
    for error in [ApiError::Draining, runtime(RuntimeErrorKind::RateLimited, 8)] {
        assert!(error.error_response().headers().contains_key(RETRY_AFTER), "{error:?}");
    }
}

#[test]
fn a_wrong_method_is_told_the_right_ones() {
    let error = ApiError::MethodNotAllowed {
        method: "PUT".into(),
        path: "/runs".into(),
        allowed: "GET, POST".into(),
    };
    assert_eq!(error.error_response().headers().get("allow").unwrap(), "GET, POST");
}
