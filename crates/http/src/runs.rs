//! Reading runs: lists, one run, its state and figures.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use control_plane_domain::{Run, RunId, RunState, SessionId, time};
use control_plane_projection::{Projection, state as projection_state};
use control_plane_storage::Store;
use control_plane_storage::model::{Page, RunCursor, RunFilter, RunOrder};
use serde::Serialize;

use crate::context::ApiContext;
use crate::error::{ApiError, ErrorBody};
use crate::query::Query;
use crate::views::{RunListView, RunView};

type Context = web::Data<ApiContext>;

/// `GET /runs`
#[utoipa::path(
    get, path = "/runs", tag = "runs",
    params(
        ("status" = Option<String>, Query, description = "One run status"),
        ("tags" = Option<String>, Query, description = "Comma-separated; a run must have all of them"),
        ("createdAfter" = Option<String>, Query, description = "YYYY-MM-DD or RFC 3339, exclusive"),
        ("createdBefore" = Option<String>, Query, description = "YYYY-MM-DD or RFC 3339, exclusive"),
        ("limit" = Option<i64>, Query, description = "1 to 200, default 50"),
        ("offset" = Option<i64>, Query, description = "Default 0"),
        ("cursor" = Option<String>, Query, description = "`nextCursor` of the previous page; wins over `offset`"),
        ("sortBy" = Option<String>, Query, description = "createdAt (default) or updatedAt"),
        ("sortOrder" = Option<String>, Query, description = "desc (default) or asc"),
        ("includeSandbox" = Option<bool>, Query),
        ("includeArchived" = Option<bool>, Query),
        ("environment" = Option<String>, Query, description = "Exact"),
        ("scenarioRef" = Option<String>, Query, description = "A part of it, whatever its case"),
        ("search" = Option<String>, Query, description = "A part of id, session id, scenario, environment or a tag"),
    ),
    responses((status = 200, body = RunListView), (status = 400, body = ErrorBody))
)]
pub(crate) async fn list(context: Context, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let filter = read_filter(request.query_string())?;
    let Page { items, total, more } = context.store.run_list(&filter).await?;
    let next_cursor = items.last().filter(|_| more).map(|run| encode_cursor(run, filter.order));
    Ok(HttpResponse::Ok().json(RunListView {
        data: items.iter().map(RunView::from).collect(),
        total,
        limit: filter.limit,
        offset: filter.offset,
        next_cursor,
    }))
}

/// `GET /runs/{id}`
#[utoipa::path(
    get, path = "/runs/{id}", tag = "runs",
    params(("id" = String, Path, description = "A run's id, or its session's")),
    responses((status = 200, body = RunView), (status = 404, body = ErrorBody))
)]
pub(crate) async fn show(
    context: Context,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let run = find(&context.store, &id).await?;
    // For clients whose library hides the headers of a stream.
    let log_id = ("X-MACP-Log-Id", context.log_id.as_str());
    Ok(HttpResponse::Ok().insert_header(log_id).json(RunView::from(&run)))
}

/// `GET /runs/{id}/state`
#[utoipa::path(
    get, path = "/runs/{id}/state", tag = "runs",
    params(("id" = String, Path, description = "A run's id, or its session's")),
    responses((status = 200, body = Object, description = "The run's state"), (status = 404, body = ErrorBody))
)]
pub(crate) async fn state(
    context: Context,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let run = find(&context.store, &id).await?;
    let projection = projection_state::load(&context.store, run.id).await?;
    Ok(HttpResponse::Ok().json(projection))
}

/// `GET /runs/{id}/metrics`
#[utoipa::path(
    get, path = "/runs/{id}/metrics", tag = "runs",
    params(("id" = String, Path, description = "A run's id, or its session's")),
    responses((status = 200, body = Object, description = "The run's figures"), (status = 404, body = ErrorBody))
)]
pub(crate) async fn metrics(
    context: Context,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let run = find(&context.store, &id).await?;
    let metrics = control_plane_insights::metrics(&context.store, run.id).await?;
    Ok(HttpResponse::Ok().json(metrics))
}

/// What a rebuild answers: the state, and what the console looks for.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rebuilt {
    #[serde(flatten)]
    projection: Projection,
    rebuilt: bool,
    latest_seq: i64,
}

/// `POST /runs/{id}/projection/rebuild`
#[utoipa::path(
    post, path = "/runs/{id}/projection/rebuild", tag = "runs",
    params(("id" = String, Path, description = "A run's id, or its session's")),
    responses(
        (status = 201, body = Object, description = "The state, with `rebuilt` and `latestSeq`"),
        (status = 404, body = ErrorBody),
    )
)]
pub(crate) async fn rebuild(
    context: Context,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let run = find(&context.store, &id).await?;
    let store = context.store.clone();
    // A task of its own: a client that leaves must not stop it midway.
    let rebuilding =
        context.executor.spawn(async move { projection_state::rebuild(&store, run.id).await });
    let projection = rebuilding
        .await
        .map_err(|error| ApiError::Internal(format!("the rebuild ended early: {error}")))??;
    let latest_seq = projection.version();
    let location = format!("/runs/{}/state", run.id);
    Ok(HttpResponse::Created().insert_header((header::LOCATION, location)).json(Rebuilt {
        projection,
        rebuilt: true,
        latest_seq,
    }))
}

/// Finds a run by its id or its session's.
pub(crate) async fn find(store: &Store, id: &str) -> Result<Run, ApiError> {
    check_id(id)?;
    Ok(store.run_find(id).await?)
}

/// Refuses what is neither a run's id nor a session's.
pub(crate) fn check_id(id: &str) -> Result<(), ApiError> {
    if id.parse::<RunId>().is_ok() || SessionId::parse(id).is_ok() {
        Ok(())
    } else {
        Err(ApiError::BadRequest("Validation failed (uuid is expected)".to_owned()))
    }
}

fn read_filter(raw: &str) -> Result<RunFilter, ApiError> {
    let mut query = Query::new(raw);
    let states = RunState::ALL.map(|state| (state.as_str(), state));
    let order = query
        .choice("sortBy", &[("createdAt", RunOrder::CreatedAt), ("updatedAt", RunOrder::UpdatedAt)])
        .unwrap_or_default();
    let cursor = query.one("cursor").and_then(|text| {
        let cursor = decode_cursor(&text, order);
        if cursor.is_none() {
            query.fault("cursor must be the nextCursor of a page in the same order".to_owned());
        }
        cursor
    });
    let filter = RunFilter {
        status: query.choice("status", &states),
        tags: query.list("tags"),
        created_after: query.time("createdAfter"),
        created_before: query.time("createdBefore"),
        include_sandbox: query.flag("includeSandbox").unwrap_or(false),
        include_archived: query.flag("includeArchived").unwrap_or(false),
        environment: query.text("environment"),
        scenario_ref: query.text("scenarioRef"),
        search: query.text("search"),
        order,
        ascending: query.choice("sortOrder", &[("asc", true), ("desc", false)]).unwrap_or(false),
        limit: query.integer("limit", 1..=200).unwrap_or(50),
        offset: query.integer("offset", 0..=i64::MAX).unwrap_or(0),
        cursor,
    };
    query.finish()?;
    Ok(filter)
}

/// Opaque to clients: the order it belongs to, the instant in microseconds and the id.
fn encode_cursor(run: &Run, order: RunOrder) -> String {
    let (order, at) = match order {
        RunOrder::CreatedAt => ('c', run.created_at),
        RunOrder::UpdatedAt => ('u', run.updated_at),
    };
    URL_SAFE_NO_PAD.encode(format!("{order}{}.{}", at.timestamp_micros(), run.id))
}

fn decode_cursor(text: &str, order: RunOrder) -> Option<RunCursor> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let text = text.strip_prefix(match order {
        RunOrder::CreatedAt => 'c',
        RunOrder::UpdatedAt => 'u',
    })?;
    let (at, id) = text.split_once('.')?;
    let at = chrono::DateTime::from_timestamp_micros(at.parse().ok()?)?;
    // What no clock of ours gives is not a cursor of ours either.
    let at =
        Some(at).filter(|at| *at <= time::from_unix_ms(4_102_444_800_000).unwrap_or_default())?;
    Some(RunCursor { at, id: id.parse().ok()? })
}

#[cfg(test)]
mod tests;
