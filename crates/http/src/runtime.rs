//! What the runtime says of itself (spec 1.3.28).

use actix_web::{HttpRequest, HttpResponse, web};
use control_plane_domain::runtime::Modes;
use serde::Serialize;
use utoipa::ToSchema;

use crate::context::ApiContext;
use crate::error::{ApiError, ErrorBody};
use crate::health::{RuntimeHealth, breaker_state};
use crate::query::Query;
use crate::traces;

type Context = web::Data<ApiContext>;

/// `GET /runtime/manifest`
#[utoipa::path(
    get, path = "/runtime/manifest", tag = "runtime",
    responses((status = 200, body = Object), (status = 503, body = ErrorBody))
)]
pub(crate) async fn manifest(
    context: Context,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let mut manifest = traces::runtime(&context, &request).manifest().await?;
    if manifest.agent_id.is_empty() {
        "macp-runtime".clone_into(&mut manifest.agent_id);
    }
    Ok(HttpResponse::Ok().json(manifest))
}

/// `GET /runtime/modes`
#[utoipa::path(
    get, path = "/runtime/modes", tag = "runtime",
    params(("include" = Option<String>, Query, description = "`ext` adds the extension modes")),
    responses((status = 200, body = Vec<Object>), (status = 503, body = ErrorBody))
)]
pub(crate) async fn modes(
    context: Context,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let mut query = Query::new(request.query_string());
    let extensions = query.choice("include", &[("ext", true)]).unwrap_or(false);
    query.finish()?;
    let runtime = traces::runtime(&context, &request);
    let mut modes = runtime.modes(Modes::Standard).await?;
    if extensions {
        modes.extend(runtime.modes(Modes::Extension).await?);
    }
    Ok(HttpResponse::Ok().json(modes))
}

/// `GET /runtime/roots`
#[utoipa::path(
    get, path = "/runtime/roots", tag = "runtime",
    responses((status = 200, body = Vec<Object>), (status = 503, body = ErrorBody))
)]
pub(crate) async fn roots(
    context: Context,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok().json(traces::runtime(&context, &request).roots().await?))
}

/// How the runtime is, and whether it is called at all.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Health {
    #[serde(flatten)]
    runtime: RuntimeHealth,
    /// `CLOSED`, `HALF_OPEN` or `OPEN`.
    circuit_breaker: &'static str,
}

/// `GET /runtime/health`: always 200, the body says how it is.
#[utoipa::path(
    get, path = "/runtime/health", tag = "runtime",
    responses((status = 200, body = Health))
)]
pub(crate) async fn health(context: Context) -> HttpResponse {
    let runtime = context.runtime_probe.ask(&context).await;
    let circuit_breaker = breaker_state(&context).as_str();
    HttpResponse::Ok().json(Health { runtime, circuit_breaker })
}
