//! Launching a run, and checking beforehand whether it would work (spec 1.3.1, 1.3.2).

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use control_plane_domain::RunDescriptor;
use control_plane_domain::descriptor::{Execution, Faults};
use control_plane_domain::runtime::RuntimeInfo;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::body::JsonBody;
use crate::context::ApiContext;
use crate::error::{ApiError, ErrorBody};

/// The header that makes a retry harmless.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The longest key that is kept.
const MAX_KEY: usize = 255;

/// The answer to a launch.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LaunchView {
    #[schema(value_type = uuid::Uuid)]
    run_id: String,
    session_id: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
}

/// The answer to a check.
#[derive(Serialize, ToSchema)]
pub(crate) struct ValidationView {
    valid: bool,
    errors: Vec<String>,
    warnings: Vec<String>,
    runtime: RuntimeView,
}

/// What the runtime said of itself.
#[derive(Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RuntimeView {
    reachable: bool,
    supported_modes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    capabilities: Option<Map<String, Value>>,
}

/// `POST /runs`
#[utoipa::path(
    post, path = "/runs", tag = "runs",
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key and body give the same run")),
    request_body(content = Object, description = "A run descriptor"),
    responses(
        (status = 201, body = LaunchView, headers(("Location" = String, description = "The run")),
            description = "The run; the one that was discovered, if the session was found before"),
        (status = 400, body = ErrorBody),
        (status = 409, body = ErrorBody, description = "The session has somebody's run, or the key another body"),
    )
)]
pub(crate) async fn launch(
    context: web::Data<ApiContext>,
    request: HttpRequest,
    body: JsonBody,
) -> Result<HttpResponse, ApiError> {
    let mut descriptor = RunDescriptor::parse(&body.0.unwrap_or(Value::Null))
        .map_err(|Faults(faults)| ApiError::Validation(faults))?;
    take_key(&mut descriptor, &request)?;
    start(&context, descriptor).await
}

/// Files the key of the request's header with the descriptor.
pub(crate) fn take_key(
    descriptor: &mut RunDescriptor,
    request: &HttpRequest,
) -> Result<(), ApiError> {
    match request.headers().get(IDEMPOTENCY_KEY) {
        Some(value) => apply_key(descriptor, value.to_str().ok()),
        None => Ok(()),
    }
}

/// Launches a run in a task of its own, and answers with where it is.
pub(crate) async fn start(
    context: &ApiContext,
    descriptor: RunDescriptor,
) -> Result<HttpResponse, ApiError> {
    if descriptor.runtime.kind != context.settings.runtime_kind {
        return Err(ApiError::UnknownRuntime(descriptor.runtime.kind));
    }
    let engine = context.engine.clone();
    let launching = context.executor.spawn(async move { engine.launch(descriptor).await });
    let launched = launching
        .await
        .map_err(|error| ApiError::Internal(format!("the launch ended early: {error}")))??;
    Ok(HttpResponse::Created()
        .insert_header((header::LOCATION, format!("/runs/{}", launched.run_id)))
        .json(LaunchView {
            run_id: launched.run_id.to_string(),
            session_id: launched.session_id.to_string(),
            status: launched.state.as_str(),
            trace_id: launched.trace_id,
        }))
}

/// `POST /runs/validate`
#[utoipa::path(
    post, path = "/runs/validate", tag = "runs",
    request_body(content = Object, description = "A run descriptor"),
    responses((status = 201, body = ValidationView), (status = 400, body = ErrorBody, description = "Not JSON"))
)]
pub(crate) async fn validate(
    context: web::Data<ApiContext>,
    body: JsonBody,
) -> Result<HttpResponse, ApiError> {
    let body = body.0.unwrap_or(Value::Null);
    let mut errors = match RunDescriptor::parse(&body) {
        Ok(_) => Vec::new(),
        Err(Faults(faults)) => faults,
    };
    let kind = body.pointer("/runtime/kind").and_then(Value::as_str);
    if let Some(kind) = kind.filter(|kind| *kind != context.settings.runtime_kind) {
        errors.push(ApiError::UnknownRuntime(kind.to_owned()).to_string());
        return Ok(answer(errors, Vec::new(), RuntimeView::default()));
    }
    let Some(session) = body.get("session").filter(|session| session.is_object()) else {
        return Ok(answer(errors, Vec::new(), RuntimeView::default()));
    };
    match context.engine.runtime().initialize().await {
        Ok(RuntimeInfo { supported_modes, capabilities, .. }) => {
            let mode = session.get("modeName").and_then(Value::as_str).unwrap_or_default();
            errors.extend(unsupported_mode(mode, &supported_modes));
            let capabilities = Some(capabilities);
            let runtime = RuntimeView { reachable: true, supported_modes, capabilities };
            Ok(answer(errors, Vec::new(), runtime))
        }
        Err(error) => {
            let warning = format!("Runtime not reachable: {error}");
            Ok(answer(errors, vec![warning], RuntimeView::default()))
        }
    }
}

fn answer(errors: Vec<String>, warnings: Vec<String>, runtime: RuntimeView) -> HttpResponse {
    let valid = errors.is_empty();
    HttpResponse::Created().json(ValidationView { valid, errors, warnings, runtime })
}

fn unsupported_mode(mode: &str, supported: &[String]) -> Option<String> {
    let unknown =
        !mode.is_empty() && !supported.is_empty() && !supported.iter().any(|it| it == mode);
    unknown.then(|| {
        format!(
            "session.modeName '{mode}' is not supported by the runtime; supported: {}",
            supported.join(", ")
        )
    })
}

/// Files the header's key with the descriptor, where the body says nothing else.
fn apply_key(descriptor: &mut RunDescriptor, header: Option<&str>) -> Result<(), ApiError> {
    let key = header.unwrap_or_default();
    if key.is_empty() || key.len() > MAX_KEY {
        let fault = format!("Idempotency-Key must be 1 to {MAX_KEY} visible ASCII characters");
        return Err(ApiError::Validation(vec![fault]));
    }
    let execution = descriptor.execution.get_or_insert_with(|| Execution {
        idempotency_key: None,
        tags: Vec::new(),
        requester: None,
    });
    match &execution.idempotency_key {
        Some(given) if given != key => Err(ApiError::Validation(vec![
            "execution.idempotencyKey must be the same as the Idempotency-Key header".to_owned(),
        ])),
        Some(_) => Ok(()),
        None => {
            execution.idempotency_key = Some(key.to_owned());
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn descriptor(execution: Value) -> RunDescriptor {
        RunDescriptor::parse(&json!({
            "mode": "live",
            "runtime": { "kind": "rust" },
            "session": {
                "modeName": "macp.mode.decision.v1",
                "modeVersion": "1.0.0",
                "configurationVersion": "1",
                "ttlMs": 60_000,
                "participants": [{ "id": "a" }],
            },
            "execution": execution,
        }))
        .unwrap()
    }

    #[test]
    fn the_header_files_its_key_where_the_body_has_none() {
        for execution in [Value::Null, json!({ "tags": ["t"] }), json!({ "idempotencyKey": "k" })] {
            let mut descriptor = descriptor(execution);
            apply_key(&mut descriptor, Some("k")).unwrap();
            assert_eq!(descriptor.idempotency_key(), Some("k"));
        }
    }

    #[test]
    fn two_different_keys_are_refused() {
        let mut descriptor = descriptor(json!({ "idempotencyKey": "other" }));
        assert!(matches!(apply_key(&mut descriptor, Some("k")), Err(ApiError::Validation(_))));
    }

    #[test]
    fn a_key_that_cannot_be_kept_is_refused() {
        let long = "k".repeat(MAX_KEY + 1);
        for key in [Some(""), Some(long.as_str()), None] {
            assert!(apply_key(&mut descriptor(Value::Null), key).is_err());
        }
    }

    #[test]
    fn a_mode_that_the_runtime_lacks_is_named() {
        let supported = ["a".to_owned(), "b".to_owned()];
        assert_eq!(unsupported_mode("a", &supported), None);
        assert_eq!(unsupported_mode("c", &[]), None);
        let fault = unsupported_mode("c", &supported).unwrap();
        assert!(fault.contains("'c'") && fault.contains("a, b"), "{fault}");
    }
}
