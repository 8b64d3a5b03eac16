//! The same for many runs at once (spec 7.5).
//!
//! **Invariant:** an answer has one entry for each id, in the order given, and a run that cannot be
//! had does not keep the others from being done.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix_web::{HttpResponse, web};
use control_plane_domain::RunState;
use control_plane_recovery::Changed;
use futures_util::stream::{self, StreamExt};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::body::{JsonBody, fields_of};
use crate::context::ApiContext;
use crate::error::{ApiError, ErrorBody};
use crate::runs::find;
use crate::{deletion, filing};

/// The most ids of one request.
pub(crate) const MAX_IDS: usize = 500;
/// How many runs are worked on at once: cancelling one may wait for somebody else.
const AT_ONCE: usize = 16;

type Context = web::Data<ApiContext>;
type Who = web::ReqData<Caller>;

/// What became of one run.
#[derive(Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = BatchEntry)]
pub(crate) struct EntryView {
    /// As it was given.
    run_id: String,
    /// cancelled, archived, unarchived, deleted or failed.
    status: &'static str,
    /// Whether it is not failed.
    ok: bool,
    /// Why it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    error: Option<Value>,
}

/// What is done to each run.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Cancel,
    Archive,
    Unarchive,
    Delete,
}

impl Deed {
    fn done(self) -> &'static str {
        match self {
            Self::Cancel => "cancelled",
            Self::Archive => "archived",
            Self::Unarchive => "unarchived",
            Self::Delete => "deleted",
        }
    }

    async fn to(self, context: &ApiContext, caller: &Caller, id: &str) -> Result<(), ApiError> {
        match self {
            Self::Cancel => cancel_one(context, caller, id).await,
            Self::Archive => filing::set_archived(context, caller, id, true).await.map(drop),
            Self::Unarchive => filing::set_archived(context, caller, id, false).await.map(drop),
            Self::Delete => deletion::remove(context, caller, id).await,
        }
    }
}

/// `POST /runs/batch/cancel`
#[utoipa::path(
    post, path = "/runs/batch/cancel", tag = "runs",
    request_body(content = Object, description = "`runIds`: at most 500 ids of runs or of their sessions"),
    responses(
        (status = 201, body = Vec<EntryView>, description = "One entry for each id. A run that is not cancelled, or not yet, is `failed`, and `error` says why"),
        (status = 400, body = ErrorBody),
    )
)]
pub(crate) async fn cancel(
    context: Context,
    caller: Who,
    body: JsonBody,
) -> Result<HttpResponse, ApiError> {
    each(context, caller, body, Deed::Cancel).await
}

/// `POST /runs/batch/archive`
#[utoipa::path(
    post, path = "/runs/batch/archive", tag = "runs",
    request_body(content = Object, description = "`runIds`: at most 500 ids of runs or of their sessions"),
    responses(
        (status = 201, body = Vec<EntryView>, description = "One entry for each id"),
        (status = 400, body = ErrorBody),
    )
)]
pub(crate) async fn archive(
    context: Context,
    caller: Who,
    body: JsonBody,
) -> Result<HttpResponse, ApiError> {
    each(context, caller, body, Deed::Archive).await
}

/// `POST /runs/batch/unarchive`
#[utoipa::path(
    post, path = "/runs/batch/unarchive", tag = "runs",
    request_body(content = Object, description = "`runIds`: at most 500 ids of runs or of their sessions"),
    responses(
        (status = 201, body = Vec<EntryView>, description = "One entry for each id"),
        (status = 400, body = ErrorBody),
    )
)]
pub(crate) async fn unarchive(
    context: Context,
    caller: Who,
    body: JsonBody,
) -> Result<HttpResponse, ApiError> {
    each(context, caller, body, Deed::Unarchive).await
}

/// `POST /runs/batch/delete`
#[utoipa::path(
    post, path = "/runs/batch/delete", tag = "runs",
    request_body(content = Object, description = "`runIds`: at most 500 ids of runs or of their sessions"),
    responses(
        (status = 201, body = Vec<EntryView>, description = "One entry for each id. A run that is not over is `failed`"),
        (status = 400, body = ErrorBody),
        (status = 403, body = ErrorBody, description = "Only an admin's key may delete"),
    )
)]
pub(crate) async fn delete(
    context: Context,
    caller: Who,
    body: JsonBody,
) -> Result<HttpResponse, ApiError> {
    each(context, caller, body, Deed::Delete).await
}

/// Does it to each run, in a task of its own: a client that leaves must not stop it midway.
async fn each(
    context: Context,
    caller: Who,
    body: JsonBody,
    deed: Deed,
) -> Result<HttpResponse, ApiError> {
    let ids = run_ids(body.0)?;
    let caller = caller.into_inner();
    let executor = context.executor.clone();
    let inner: Arc<ApiContext> = context.into_inner();
    let given = ids.clone();
    let working = executor.spawn(async move {
        // An id that is given twice is one run, and is done once.
        let unique: BTreeMap<String, ()> = given.into_iter().map(|id| (id, ())).collect();
        stream::iter(unique.into_keys())
            .map(|id| entry(&inner, &caller, id, deed))
            .buffer_unordered(AT_ONCE)
            .map(|entry| (entry.run_id.clone(), entry))
            .collect::<BTreeMap<String, EntryView>>()
            .await
    });
    let entries = working
        .await
        .map_err(|error| ApiError::Internal(format!("the batch ended early: {error}")))?;
    let answer: Vec<&EntryView> = ids.iter().filter_map(|id| entries.get(id)).collect();
    Ok(HttpResponse::Created().json(answer))
}

async fn entry(context: &ApiContext, caller: &Caller, run_id: String, deed: Deed) -> EntryView {
    match deed.to(context, caller, &run_id).await {
        Ok(()) => EntryView { run_id, status: deed.done(), ok: true, error: None },
        Err(error) => {
            let body = error.body();
            if body.status_code >= 500 {
                let cause = &error as &dyn std::error::Error;
                tracing::warn!(run.id = run_id, error = cause, "A run of a batch failed");
            }
            EntryView { run_id, status: "failed", ok: false, error: Some(body.message) }
        }
    }
}

/// Only a run that is cancelled in the end counts as cancelled.
async fn cancel_one(context: &ApiContext, caller: &Caller, id: &str) -> Result<(), ApiError> {
    let run = find(&context.store, id).await?;
    let outbound = context.outbound.clone();
    let Changed { run, done } =
        context.engine.cancel(run.id, Some("batch cancel"), &*outbound).await?;
    tracing::info!(run.id = %run.id, caller.name, done, "Run {} is to be cancelled", run.id);
    match run.state {
        RunState::Cancelled => Ok(()),
        RunState::Completed | RunState::Failed => {
            let status = run.state.as_str();
            Err(ApiError::BadRequest(format!("the run is over already (current status: {status})")))
        }
        RunState::Queued
        | RunState::Starting
        | RunState::BindingSession
        | RunState::Running
        | RunState::Suspended => Err(ApiError::BadRequest(format!(
            "cancelling was asked for and is not done yet: the run ends when its session does \
             (current status: {})",
            run.state.as_str()
        ))),
    }
}

/// `{ runIds: string[] }`
pub(crate) fn run_ids(body: Option<Value>) -> Result<Vec<String>, ApiError> {
    let mut fields = fields_of(body, &["runIds"])?;
    let fault = |sentence: String| ApiError::Validation(vec![sentence]);
    let items = match fields.remove("runIds") {
        Some(Value::Array(items)) => items,
        None | Some(Value::Null) => return Err(fault("runIds is required".to_owned())),
        Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => {
            return Err(fault("runIds must be an array".to_owned()));
        }
    };
    if items.len() > MAX_IDS {
        return Err(fault(format!("runIds must contain at most {MAX_IDS} elements")));
    }
    let mut ids = Vec::with_capacity(items.len());
    let mut faults = Vec::new();
    for (index, item) in items.into_iter().enumerate() {
        match item {
            Value::String(id) => ids.push(id),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => faults.push(format!("runIds.{index} must be a string")),
        }
    }
    if faults.is_empty() { Ok(ids) } else { Err(ApiError::Validation(faults)) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ids_are_taken_in_the_order_given() {
        let ids = run_ids(Some(json!({ "runIds": ["b", "a", "b"] }))).unwrap();
        assert_eq!(ids, ["b", "a", "b"]);
        assert!(run_ids(Some(json!({ "runIds": [] }))).unwrap().is_empty());
    }

    #[test]
    fn another_body_is_refused_by_name() {
        let many = vec!["x"; MAX_IDS + 1];
        for (body, word) in [
            (None, "runIds is required"),
            (Some(json!([])), "object"),
            (Some(json!({ "runIds": "a" })), "runIds must be an array"),
            (Some(json!({ "runIds": ["a", 1, null] })), "runIds.1 must be a string; runIds.2"),
            (Some(json!({ "runIds": [], "ids": [] })), "ids is not a known field"),
            (Some(json!({ "runIds": many })), "at most 500"),
        ] {
            let refused = run_ids(body).unwrap_err().to_string();
            assert!(refused.contains(word), "{refused}");
        }
    }
}
