//! Filing runs: doing one again, archiving it, and what was sent in it (spec 1.3.12, 1.3.18, 1.3.20).

use actix_web::{HttpRequest, HttpResponse, web};
use control_plane_domain::descriptor::Faults;
use control_plane_domain::{CanonicalEvent, EventType, Masked, Run, RunDescriptor};
use control_plane_projection::state;
use control_plane_storage::model::EventFilter;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::body::{JsonBody, fields_of};
use crate::context::ApiContext;
use crate::error::{ApiError, ErrorBody};
use crate::launch::{self, LaunchView};
use crate::query::Query;
use crate::runs::find;
use crate::views::{RunView, Time};

type Context = web::Data<ApiContext>;
type Who = web::ReqData<Caller>;

/// `POST /runs/{id}/clone`
#[utoipa::path(
    post, path = "/runs/{id}/clone", tag = "runs",
    params(
        ("id" = String, Path, description = "A run's id, or its session's"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key for the same clone gives the same run"),
    ),
    request_body(content = Option<Object>, description = "`tags`, which stand in for the run's own; may be left out"),
    responses(
        (status = 201, body = LaunchView, headers(("Location" = String, description = "The new run")),
            description = "A run as this one was posted, for a session of its own"),
        (status = 400, body = ErrorBody, description = "The run was not posted with a descriptor that can be posted again, or a context was given"),
        (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody, description = "The key was used with another body"),
    )
)]
pub(crate) async fn clone(
    context: Context,
    request: HttpRequest,
    id: web::Path<String>,
    body: JsonBody,
) -> Result<HttpResponse, ApiError> {
    let fields = fields_of(body.0, &["tags", "context"])?;
    check_context(&fields)?;
    let run = find(&context.store, &id).await?;
    let descriptor = again(&run, fields.get("tags"))?;
    launch::start(&context, &request, descriptor).await
}

/// The console sends a context; there is nobody whom we could give it to.
fn check_context(fields: &Map<String, Value>) -> Result<(), ApiError> {
    let fault = |sentence: &str| Err(ApiError::Validation(vec![sentence.to_owned()]));
    match fields.get("context") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Object(given)) if given.is_empty() => Ok(()),
        Some(Value::Object(_)) => fault(
            "context must be empty: the control plane only observes, agents get theirs elsewhere",
        ),
        Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            fault("context must be an object")
        }
    }
}

/// How the run was posted, without what was this run's alone. The secrets are those that are
/// stored, not what clients see of them.
fn again(run: &Run, tags: Option<&Value>) -> Result<RunDescriptor, ApiError> {
    let refuse =
        |why: &str| Err(ApiError::BadRequest(format!("run {} cannot be cloned: {why}", run.id)));
    let Some(Value::Object(stored)) = run.metadata.get("executionRequest") else {
        return refuse("it has no executionRequest");
    };
    let mut request = stored.clone();
    if let Some(Value::Object(session)) = request.get_mut("session") {
        session.remove("sessionId");
        if let Some(Value::Object(metadata)) = session.get_mut("metadata") {
            if metadata.get("source").and_then(Value::as_str) == Some("session-discovery") {
                // Its session was found; nobody finds the clone's.
                metadata.remove("source");
                metadata.remove("discoveredAt");
            }
            let bearer = metadata.get("cancelCallback").and_then(|callback| callback.get("bearer"));
            if bearer.and_then(Value::as_str) == Some(Masked::MASK) {
                return refuse("the secret of its cancelCallback is not known here");
            }
        }
    }
    let tags = tags.filter(|tags| !tags.is_null());
    let execution = request.entry("execution").or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(execution) = execution {
        execution.remove("idempotencyKey");
        if let Some(tags) = tags {
            execution.insert("tags".to_owned(), tags.clone());
        }
    }
    RunDescriptor::parse(&Value::Object(request)).map_err(|Faults(faults)| {
        let (given, stored): (Vec<_>, Vec<_>) =
            faults.iter().partition(|fault| tags.is_some() && fault.starts_with("execution.tags"));
        if given.is_empty() {
            let stored: Vec<&str> = stored.into_iter().map(String::as_str).collect();
            let stored = stored.join("; ");
            return ApiError::BadRequest(format!("run {} cannot be cloned: {stored}", run.id));
        }
        let named = given.into_iter().map(|fault| fault.replacen("execution.", "", 1));
        ApiError::Validation(named.collect())
    })
}

/// `POST /runs/{id}/archive`
#[utoipa::path(
    post, path = "/runs/{id}/archive", tag = "runs",
    params(("id" = String, Path, description = "A run's id, or its session's")),
    responses(
        (status = 201, body = RunView, description = "The run is archived: lists leave it out, and everything else goes on"),
        (status = 404, body = ErrorBody),
    )
)]
pub(crate) async fn archive(
    context: Context,
    caller: Who,
    id: web::Path<String>,
    body: JsonBody,
) -> Result<HttpResponse, ApiError> {
    fields_of(body.0, &[])?;
    let run = set_archived(&context, &caller, &id, true).await?;
    Ok(HttpResponse::Created().json(RunView::from(&run)))
}

/// `POST /runs/{id}/unarchive`
#[utoipa::path(
    post, path = "/runs/{id}/unarchive", tag = "runs",
    params(("id" = String, Path, description = "A run's id, or its session's")),
    responses(
        (status = 201, body = RunView, description = "The run is in the lists again"),
        (status = 404, body = ErrorBody),
    )
)]
pub(crate) async fn unarchive(
    context: Context,
    caller: Who,
    id: web::Path<String>,
    body: JsonBody,
) -> Result<HttpResponse, ApiError> {
    fields_of(body.0, &[])?;
    let run = set_archived(&context, &caller, &id, false).await?;
    Ok(HttpResponse::Created().json(RunView::from(&run)))
}

/// Puts a run into the archive, or takes it out.
pub(crate) async fn set_archived(
    context: &ApiContext,
    caller: &Caller,
    id: &str,
    archived: bool,
) -> Result<Run, ApiError> {
    let run = find(&context.store, id).await?;
    let now = context.clock.now();
    let run = match archived {
        true => context.store.run_archive(run.id, now).await?,
        false => context.store.run_unarchive(run.id, now).await?,
    };
    tracing::info!(run.id = %run.id, caller.name, archived, "Run {} was filed", run.id);
    Ok(run)
}

/// A message that was sent through the control plane.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SentView {
    #[schema(value_type = uuid::Uuid)]
    id: String,
    #[schema(value_type = uuid::Uuid)]
    run_id: String,
    runtime_session_id: Value,
    message_id: Value,
    message_type: Value,
    sender: Value,
    recipients: Value,
    /// accepted or rejected.
    status: &'static str,
    ack: Value,
    error_message: Value,
    #[schema(value_type = String, format = DateTime)]
    created_at: Time,
}

impl SentView {
    fn new(mut event: CanonicalEvent) -> Self {
        let accepted = event.event_type == EventType::MessageSent;
        let mut take = |name: &str| event.data.remove(name).unwrap_or(Value::Null);
        Self {
            runtime_session_id: take("sessionId"),
            message_id: take("messageId"),
            message_type: take("messageType"),
            sender: take("sender"),
            recipients: Some(take("to"))
                .filter(|to| !to.is_null())
                .unwrap_or_else(|| Value::Array(Vec::new())),
            ack: take("ack"),
            error_message: take("error"),
            status: if accepted { "accepted" } else { "rejected" },
            id: event.id.to_string(),
            run_id: event.run_id.to_string(),
            created_at: Time(event.ts),
        }
    }
}

/// `GET /runs/{id}/messages`
#[utoipa::path(
    get, path = "/runs/{id}/messages", tag = "runs",
    params(
        ("id" = String, Path, description = "A run's id, or its session's"),
        ("afterSeq" = Option<i64>, Query, description = "Of the event that told of a message; exclusive, default 0"),
        ("limit" = Option<i64>, Query, description = "1 to 10000, default 200"),
    ),
    responses(
        (status = 200, body = Vec<SentView>, description = "What was sent through the control plane. It only observes, so this is empty, unless the log came from one that spoke"),
        (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody),
    )
)]
pub(crate) async fn messages(
    context: Context,
    request: HttpRequest,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let mut query = Query::new(request.query_string());
    let mut filter = EventFilter {
        types: vec![EventType::MessageSent, EventType::MessageSendFailed],
        after: query.integer("afterSeq", 0..=i64::MAX).unwrap_or(0),
        limit: query.integer("limit", 1..=10_000).unwrap_or(200),
        ..EventFilter::default()
    };
    query.finish()?;
    filter.run_id = Some(find(&context.store, &id).await?.id);
    let page = context.store.event_list(&filter).await?;
    let mut rows = Vec::with_capacity(page.items.len());
    for entry in &page.items {
        rows.push(SentView::new(state::event(entry)?));
    }
    Ok(HttpResponse::Ok().json(rows))
}

#[cfg(test)]
mod tests;
