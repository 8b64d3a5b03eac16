//! `GET /runs/{id}/stream`: a run's events as they happen, after all that happened before; and in
//! `feed` those of all runs.
//!
//! **Invariant:** a client that sends back the last id it saw gets every later event once, in
//! order. A connection is a cursor with one chunk in flight: it reads what it needs next from the
//! shared log and holds no queue of its own.

mod chunk;
pub(crate) mod feed;
mod frame;
mod limits;
mod machine;
mod open;
mod page;
mod pump;
pub(crate) mod replay;
mod request;
mod run;
mod snapshots;

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, ContentEncoding, HeaderMap};
use actix_web::{HttpRequest, HttpResponse, web};

use crate::context::ApiContext;
use crate::error::{ApiError, ErrorBody};
use crate::runs::find;
use limits::admit;
use open::Open;
use pump::{Producer, Pump};
use request::{Ask, Log, Plan, decide};
use run::RunStream;

pub(crate) use limits::Limits;
pub(crate) use snapshots::Snapshots;

/// `GET /runs/{id}/stream`
#[utoipa::path(
    get, path = "/runs/{id}/stream", tag = "events",
    params(
        ("id" = String, Path, description = "A run's id, or its session's"),
        ("Last-Event-ID" = Option<i64>, Header, description = "The last id seen; wins over the query"),
        ("lastEventId" = Option<i64>, Query, description = "The same, for clients that cannot send headers"),
        ("afterSeq" = Option<i64>, Query, description = "0 is everything; without any cursor only what comes"),
        ("logId" = Option<String>, Query, description = "`X-MACP-Log-Id` of an earlier answer"),
        ("includeSnapshot" = Option<bool>, Query, description = "Default true"),
        ("heartbeatMs" = Option<i64>, Query, description = "1000 to 45000"),
        ("types" = Option<String>, Query, description = "Comma-separated event types"),
        ("closeOnEnd" = Option<bool>, Query, description = "Default: whether Last-Event-ID was sent"),
    ),
    security(("apiKey" = []), ("ticket" = [])),
    responses(
        (status = 200, body = String, content_type = "text/event-stream"),
        (status = 204, description = "The run is over and the cursor is its end"),
        (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody),
        (status = 429, body = ErrorBody, description = "Too many streams are open"),
    )
)]
pub(crate) async fn stream(
    context: web::Data<ApiContext>,
    request: HttpRequest,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let ask = Ask::parse(
        request.query_string(),
        last_event_id(request.headers())?,
        context.settings.heartbeat,
    )?;
    if context.stop.is_cancelled() {
        return Err(ApiError::Draining);
    }
    let run = find(&context.store, &id).await?;
    let log = Log { id: &context.log_id, last_seq: run.last_seq, over: run.is_over() };
    let opening = match decide(&ask, &log) {
        Plan::NoContent => return Ok(no_content("run")),
        Plan::Open(opening) => opening,
    };
    let run = RunStream::new(&context, run.id, ask, opening.clone());
    respond(&context, &request, "run", opening.after, log.last_seq, run)
}

/// The answer that is a stream, if one more may be open; `kind` is its name in the figures.
fn respond(
    context: &web::Data<ApiContext>,
    request: &HttpRequest,
    kind: &'static str,
    from: i64,
    latest: i64,
    producer: impl Producer,
) -> Result<HttpResponse, ApiError> {
    let open = Open::count(kind, admit(context, request, kind)?);
    open.backlog(latest - from);
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/event-stream"))
        .insert_header((CACHE_CONTROL, "no-cache, no-store, no-transform"))
        .insert_header(("X-Accel-Buffering", "no"))
        // Keeps a compressing layer of this process away; the outermost layer takes it off again.
        .insert_header(ContentEncoding::Identity)
        .insert_header(("X-MACP-Replay-From", from.to_string()))
        .insert_header(("X-MACP-Latest-Seq", latest.to_string()))
        .insert_header(("X-MACP-Log-Id", context.log_id.as_str()))
        .streaming(Pump::new(context.clone(), open, producer).into_body()))
}

/// The answer that makes a client stop asking.
fn no_content(kind: &'static str) -> HttpResponse {
    open::count_no_content(kind);
    HttpResponse::NoContent().finish()
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let text = value.to_str().map_err(|_not_text| {
        ApiError::Validation(vec!["Last-Event-ID must be a non-negative integer".to_owned()])
    })?;
    Ok(Some(text.trim()).filter(|text| !text.is_empty()))
}
