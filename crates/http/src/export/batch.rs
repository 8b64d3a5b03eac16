//! `POST /runs/batch/export`: several bundles in one array.

use std::vec::IntoIter;

use actix_web::HttpResponse;
use actix_web::http::header::CACHE_CONTROL;
use bytes::Bytes;
use control_plane_insights::bundle::export::{Ask, Export};
use control_plane_insights::bundle::write::Shape;
use futures_util::{Stream, stream};
use serde::Serialize;
use serde_json::Value;

use super::{BrokenOff, Context, JSON, next, open};
use crate::body::JsonBody;
use crate::error::{ApiError, ErrorBody};

/// Most runs of a request.
const MAX_RUNS: usize = 500;

/// `POST /runs/batch/export`
#[utoipa::path(
    post, path = "/runs/batch/export", tag = "insights",
    request_body(content = Object, description = "`{\"runIds\": […]}`: at most 500 ids of runs or their sessions"),
    responses(
        (status = 201, body = Vec<Object>, description = "One entry per id, in the order given: a bundle with its events and without raw envelopes, or `{runId, status: \"failed\", ok: false, errorCode, error}`"),
        (status = 400, body = ErrorBody),
        (status = 413, body = ErrorBody),
        (status = 415, body = ErrorBody),
        (status = 503, body = ErrorBody),
    )
)]
pub(crate) async fn export(context: Context, body: JsonBody) -> Result<HttpResponse, ApiError> {
    if context.stop.is_cancelled() {
        return Err(ApiError::Draining);
    }
    let ids = read(body.0)?;
    Ok(HttpResponse::Created()
        .content_type(JSON)
        .insert_header((CACHE_CONTROL, "no-store"))
        .streaming(array(context, ids)))
}

/// The ids of a body, every fault of which is named.
fn read(body: Option<Value>) -> Result<Vec<String>, ApiError> {
    let Some(Value::Object(mut fields)) = body else {
        return Err(ApiError::Validation(vec!["the body must be an object".to_owned()]));
    };
    let mut faults = Vec::new();
    let mut ids = Vec::new();
    match fields.remove("runIds") {
        Some(Value::Array(items)) if items.len() > MAX_RUNS => {
            faults.push(format!("runIds must contain at most {MAX_RUNS} elements"));
        }
        Some(Value::Array(items)) => {
            for (at, item) in items.into_iter().enumerate() {
                match item {
                    Value::String(id) => ids.push(id),
                    Value::Null
                    | Value::Bool(_)
                    | Value::Number(_)
                    | Value::Array(_)
                    | Value::Object(_) => faults.push(format!("runIds[{at}] must be a string")),
                }
            }
        }
        Some(_) | None => faults.push("runIds must be an array".to_owned()),
    }
    faults.extend(fields.keys().map(|name| format!("{name} is not a known field")));
    if faults.is_empty() { Ok(ids) } else { Err(ApiError::Validation(faults)) }
}

/// A run that cannot be exported.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Failed<'a> {
    run_id: &'a str,
    status: &'static str,
    ok: bool,
    error_code: &'static str,
    error: Value,
}

/// What is left of a batch.
struct Batch {
    context: Context,
    ids: IntoIter<String>,
    /// The bundle that is being sent.
    current: Option<Export>,
    begun: bool,
    ended: bool,
}

fn array(context: Context, ids: Vec<String>) -> impl Stream<Item = Result<Bytes, BrokenOff>> {
    let batch = Batch { context, ids: ids.into_iter(), current: None, begun: false, ended: false };
    stream::unfold(Some(Box::new(batch)), |batch| async move {
        let mut batch = batch?;
        match batch.next().await {
            Ok(chunk) => Some((Ok(chunk?), Some(batch))),
            Err(broken) => Some((Err(broken), None)),
        }
    })
}

impl Batch {
    async fn next(&mut self) -> Result<Option<Bytes>, BrokenOff> {
        if let Some(export) = &mut self.current {
            match next(export).await? {
                Some(chunk) => return Ok(Some(chunk)),
                None => self.current = None,
            }
        }
        if self.ended {
            return Ok(None);
        }
        let Some(id) = self.ids.next() else {
            self.ended = true;
            return Ok(Some(Bytes::from_static(if self.begun { b"]" } else { b"[]" })));
        };
        let separator: &'static [u8] =
            if std::mem::replace(&mut self.begun, true) { b"," } else { b"[" };
        Ok(Some(match open(&self.context, &id, Ask::events(Shape::Json)).await {
            Ok(export) => {
                self.current = Some(export);
                Bytes::from_static(separator)
            }
            // Nothing of this one was sent, so the others can be.
            Err(error) => [separator, &failed(&id, &error)].concat().into(),
        }))
    }
}

fn failed(id: &str, error: &ApiError) -> Vec<u8> {
    let ErrorBody { error_code, message, .. } = error.body();
    let failed = Failed { run_id: id, status: "failed", ok: false, error_code, error: message };
    serde_json::to_vec(&failed).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ids_are_taken_in_their_order_and_as_often_as_they_stand() {
        let ids = read(Some(json!({ "runIds": ["b", "a", "b"] }))).unwrap();
        assert_eq!(ids, ["b", "a", "b"]);
        assert!(read(Some(json!({ "runIds": [] }))).unwrap().is_empty());
    }

    #[test]
    fn every_fault_of_a_body_is_named() {
        let many = vec!["a"; 501];
        for (body, expected) in [
            (None, "the body must be an object"),
            (Some(json!([])), "the body must be an object"),
            (Some(json!({})), "runIds must be an array"),
            (Some(json!({ "runIds": "a" })), "runIds must be an array"),
            (Some(json!({ "runIds": ["a", 1] })), "runIds[1] must be a string"),
            (Some(json!({ "runIds": many })), "runIds must contain at most 500 elements"),
            (Some(json!({ "runIds": [], "more": 1 })), "more is not a known field"),
        ] {
            assert_eq!(read(body).unwrap_err().to_string(), expected);
        }
    }
}
