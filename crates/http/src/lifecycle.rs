//! Cancelling, suspending and resuming a run (spec 1.3.9 to 1.3.11, 8.5).

use actix_web::{HttpResponse, web};
use control_plane_domain::RunId;
use control_plane_recovery::{Changed, Engine, LifecycleError};
use serde_json::Value;

use crate::auth::Caller;
use crate::body::JsonBody;
use crate::context::ApiContext;
use crate::error::{ApiError, ErrorBody};
use crate::runs::find;
use crate::views::RunView;

/// The longest reason.
const MAX_REASON: usize = 2000;

type Context = web::Data<ApiContext>;
type Who = web::ReqData<Caller>;

/// `POST /runs/{id}/cancel`
#[utoipa::path(
    post, path = "/runs/{id}/cancel", tag = "runs",
    params(("id" = String, Path, description = "A run's id, or its session's")),
    request_body(content = Option<Object>, description = "`reason`, a text; may be left out"),
    responses(
        (status = 201, body = RunView, description = "The run is over; one that was over already is as it was"),
        (status = 202, body = RunView, description = "Taken on, and not done yet: the run ends when its session does"),
        (status = 400, body = ErrorBody, description = "The run's metadata hold neither `cancelCallback` nor `cancellationDelegated`"),
        (status = 403, body = ErrorBody, description = "The runtime does not let us; the run goes on"),
        (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody, description = "The run was imported: it is only read here"),
        (status = 502, body = ErrorBody, description = "The callback failed or refused; the run goes on"),
        (status = 503, body = ErrorBody, description = "The runtime, or the run's owner, cannot be reached"),
    )
)]
pub(crate) async fn cancel(
    context: Context,
    caller: Who,
    id: web::Path<String>,
    body: JsonBody,
) -> Result<HttpResponse, ApiError> {
    let reason = reason(body.0)?;
    let outbound = context.outbound.clone();
    change(&context, &caller, &id, "cancelled", async move |engine: Engine, run| {
        engine.cancel(run, reason.as_deref(), &*outbound).await
    })
    .await
}

/// `POST /runs/{id}/suspend`
#[utoipa::path(
    post, path = "/runs/{id}/suspend", tag = "runs",
    params(("id" = String, Path, description = "A run's id, or its session's")),
    request_body(content = Option<Object>, description = "`reason`, a text; may be left out"),
    responses(
        (status = 201, body = RunView, description = "The run is suspended"),
        (status = 202, body = RunView, description = "Its session is, and the run will be"),
        (status = 400, body = ErrorBody, description = "The run is not running"),
        (status = 403, body = ErrorBody, description = "The runtime does not let us; the run goes on"),
        (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody, description = "The run was imported: it is only read here"),
        (status = 503, body = ErrorBody, description = "The runtime, or the run's owner, cannot be reached"),
    )
)]
pub(crate) async fn suspend(
    context: Context,
    caller: Who,
    id: web::Path<String>,
    body: JsonBody,
) -> Result<HttpResponse, ApiError> {
    let reason = reason(body.0)?;
    change(&context, &caller, &id, "suspended", async move |engine: Engine, run| {
        engine.suspend(run, reason.as_deref()).await
    })
    .await
}

/// `POST /runs/{id}/resume`
#[utoipa::path(
    post, path = "/runs/{id}/resume", tag = "runs",
    params(("id" = String, Path, description = "A run's id, or its session's")),
    request_body(content = Option<Object>, description = "`reason`, a text; may be left out"),
    responses(
        (status = 201, body = RunView, description = "The run is running, or over: a session that was suspended for too long expires"),
        (status = 202, body = RunView, description = "Its session is open, and the run will be running"),
        (status = 400, body = ErrorBody, description = "The run is not suspended"),
        (status = 403, body = ErrorBody, description = "The runtime does not let us; the run stays suspended"),
        (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody, description = "The run was imported: it is only read here"),
        (status = 503, body = ErrorBody, description = "The runtime, or the run's owner, cannot be reached"),
    )
)]
pub(crate) async fn resume(
    context: Context,
    caller: Who,
    id: web::Path<String>,
    body: JsonBody,
) -> Result<HttpResponse, ApiError> {
    let reason = reason(body.0)?;
    change(&context, &caller, &id, "resumed", async move |engine: Engine, run| {
        engine.resume(run, reason.as_deref()).await
    })
    .await
}

/// Does it in a task of its own: a client that leaves must not stop it midway.
async fn change<W, F>(
    context: &Context,
    caller: &Caller,
    id: &str,
    what: &'static str,
    work: W,
) -> Result<HttpResponse, ApiError>
where
    W: FnOnce(Engine, RunId) -> F,
    F: Future<Output = Result<Changed, LifecycleError>> + Send + 'static,
{
    let run = find(&context.store, id).await?;
    let working = context.executor.spawn(work(context.engine.clone(), run.id));
    let Changed { run, done } =
        working.await.map_err(|error| ApiError::Internal(format!("it ended early: {error}")))??;
    tracing::info!(run.id = %run.id, caller.name, done, "Run {} is to be {what}", run.id);
    let mut answer = if done { HttpResponse::Created() } else { HttpResponse::Accepted() };
    Ok(answer.json(RunView::from(&run)))
}

/// `{ reason?: string }`, or nothing at all.
fn reason(body: Option<Value>) -> Result<Option<String>, ApiError> {
    let fields = match body {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(fields)) => fields,
        Some(_) => return Err(fault("the body must be a JSON object")),
    };
    if let Some(unknown) = fields.keys().find(|name| *name != "reason") {
        return Err(fault(&format!("{unknown} is not a known field")));
    }
    match fields.get("reason") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.chars().count() > MAX_REASON => {
            Err(fault(&format!("reason must be at most {MAX_REASON} characters long")))
        }
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(fault("reason must be a string")),
    }
}

fn fault(sentence: &str) -> ApiError {
    ApiError::Validation(vec![sentence.to_owned()])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_reason_may_be_given() {
        for none in [None, Some(Value::Null), Some(json!({})), Some(json!({ "reason": null }))] {
            assert_eq!(reason(none).unwrap(), None);
        }
        assert_eq!(reason(Some(json!({ "reason": "late" }))).unwrap().as_deref(), Some("late"));
    }

    #[test]
    fn another_body_is_refused_by_name() {
        let long = "x".repeat(MAX_REASON + 1);
        for (body, word) in [
            (json!([]), "object"),
            (json!({ "why": "x" }), "why"),
            (json!({ "reason": 1 }), "reason"),
            (json!({ "reason": long }), "2000"),
        ] {
            let refused = reason(Some(body)).unwrap_err().to_string();
            assert!(refused.contains(word), "{refused}");
        }
    }
}
