//! Exports: a run, or several, as bundles that are written while they are sent.
//!
//! **Invariant:** a body that ends as bodies end is a whole bundle. Whatever goes wrong after the
//! first byte ends the connection abnormally, so that nobody takes a part for the whole.

pub(crate) mod batch;
mod request;

use actix_web::http::header::{ACCEPT, CACHE_CONTROL, HeaderMap};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use control_plane_insights::bundle::export::{Ask, Export};
use control_plane_insights::bundle::write::Shape;
use futures_util::{Stream, stream};

use crate::context::ApiContext;
use crate::error::{ApiError, ErrorBody};
use crate::runs::find;

type Context = web::Data<ApiContext>;

/// What an export in lines is.
const NDJSON: &str = "application/x-ndjson";
const JSON: &str = "application/json";

/// `GET /runs/{id}/export`
#[utoipa::path(
    get, path = "/runs/{id}/export", tag = "insights",
    params(
        ("id" = String, Path, description = "A run's id, or its session's"),
        ("includeCanonical" = Option<bool>, Query, description = "Default true"),
        ("includeRaw" = Option<bool>, Query, description = "Default false"),
        ("eventLimit" = Option<i64>, Query, description = "Most events, and most raw envelopes; without it all of them. A bundle that was cut says so in `truncated`, and how to go on"),
        ("afterSeq" = Option<i64>, Query, description = "The events after this one"),
        ("afterOrdinal" = Option<i64>, Query, description = "The session's envelopes after this one"),
        ("afterSignal" = Option<String>, Query, description = "The signals after this place, as `truncated` gives it"),
        ("format" = Option<String>, Query, description = "json (default) or jsonl: one line per item. jsonl answers JSON to those who accept `application/json` and nothing else"),
    ),
    responses(
        (status = 200, body = Object, description = "The bundle; application/x-ndjson for jsonl"),
        (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody),
        (status = 503, body = ErrorBody),
    )
)]
pub(crate) async fn export(
    context: Context,
    request: HttpRequest,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let mut ask = request::read(request.query_string())?;
    if accepts_json_alone(request.headers()) {
        ask.shape = Shape::Json;
    }
    send(&context, &id, ask).await
}

/// `GET /runs/{id}/export/stream`
#[utoipa::path(
    get, path = "/runs/{id}/export/stream", tag = "insights",
    params(
        ("id" = String, Path, description = "A run's id, or its session's"),
        ("includeCanonical" = Option<bool>, Query, description = "Default true"),
        ("includeRaw" = Option<bool>, Query, description = "Default false"),
        ("eventLimit" = Option<i64>, Query, description = "As of `/runs/{id}/export`"),
        ("afterSeq" = Option<i64>, Query, description = "As of `/runs/{id}/export`"),
        ("afterOrdinal" = Option<i64>, Query, description = "As of `/runs/{id}/export`"),
        ("afterSignal" = Option<String>, Query, description = "As of `/runs/{id}/export`"),
    ),
    responses(
        (status = 200, body = String, content_type = "application/x-ndjson", description = "The bundle, one line per item; the last one is `end`"),
        (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody),
        (status = 503, body = ErrorBody),
    )
)]
pub(crate) async fn export_stream(
    context: Context,
    request: HttpRequest,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let ask = Ask { shape: Shape::Lines, ..request::read(request.query_string())? };
    send(&context, &id, ask).await
}

async fn send(context: &Context, id: &str, ask: Ask) -> Result<HttpResponse, ApiError> {
    if context.stop.is_cancelled() {
        return Err(ApiError::Draining);
    }
    let kind = match ask.shape {
        Shape::Json => JSON,
        Shape::Lines => NDJSON,
    };
    let export = open(context, id, ask).await?;
    Ok(HttpResponse::Ok()
        .content_type(kind)
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header(("X-MACP-Latest-Seq", export.latest_seq().to_string()))
        .insert_header(("X-MACP-Log-Id", context.log_id.as_str()))
        .streaming(body(export)))
}

/// Finds the run and takes its picture: after this it is known that there is something to send.
async fn open(context: &ApiContext, id: &str, ask: Ask) -> Result<Export, ApiError> {
    let run = find(&context.store, id).await?;
    let now = context.clock.now();
    Ok(Export::open(&context.store, run.id, ask, &context.log_id, now).await?)
}

/// The body was cut.
#[derive(Debug, thiserror::Error)]
#[error("the export broke off")]
struct BrokenOff;

/// The chunks, one at a time and only when they are asked for.
fn body(export: Export) -> impl Stream<Item = Result<Bytes, BrokenOff>> {
    // Boxed: it moves with every chunk. Gone after a failure: nothing may follow.
    stream::unfold(Some(Box::new(export)), |export| async move {
        let mut export = export?;
        match next(&mut export).await {
            Ok(chunk) => Some((Ok(chunk?), Some(export))),
            Err(broken) => Some((Err(broken), None)),
        }
    })
}

/// The next bytes of an export; why there are none goes into our log.
async fn next(export: &mut Export) -> Result<Option<Bytes>, BrokenOff> {
    export.next().await.map_err(|error| {
        tracing::warn!(error = &error as &dyn std::error::Error, "An export broke off");
        metrics::counter!("macp_exports_broken_off_total").increment(1);
        BrokenOff
    })
}

/// Whether a client would not know what to do with lines.
fn accepts_json_alone(headers: &HeaderMap) -> bool {
    let accepted: Vec<String> = headers
        .get_all(ACCEPT)
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|item| item.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
        .collect();
    let takes = |kind: &str| accepted.iter().any(|item| item == kind);
    takes(JSON)
        && !["*/*", "application/*", NDJSON, "application/ndjson", "application/jsonl"]
            .into_iter()
            .any(takes)
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    #[test]
    fn lines_are_for_those_who_take_them() {
        let alone = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            accepts_json_alone(&headers)
        };
        for json in ["application/json", "Application/JSON;q=0.9", "text/html, application/json"] {
            assert!(alone(json), "{json}");
        }
        for lines in [
            "",
            "*/*",
            "text/html",
            "application/json, text/plain, */*",
            "application/x-ndjson",
            "application/x-ndjson, application/json;q=0.5",
        ] {
            assert!(!alone(lines), "{lines}");
        }
        assert!(!accepts_json_alone(&HeaderMap::new()));
    }
}
