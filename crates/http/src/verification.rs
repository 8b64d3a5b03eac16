//! What a run decided: whether that is what others say, and which decisions it belongs to.

use actix_web::{HttpResponse, web};
use control_plane_insights::verification::{self, lineage};

use crate::context::ApiContext;
use crate::error::{ApiError, ErrorBody};
use crate::runs::find;

/// `GET /runs/{id}/verification`
#[utoipa::path(
    get, path = "/runs/{id}/verification", tag = "runs",
    params(("id" = String, Path, description = "A run's id, or its session's")),
    responses(
        (status = 200, body = Object, description = "The Commitment, its canonical hash as recomputed from what is recorded, and what that was compared with: `status` is `pending`, `verified`, `mismatch` or `cannot_verify`, `reason` is one sentence"),
        (status = 404, body = ErrorBody),
    )
)]
pub(crate) async fn verification(
    context: web::Data<ApiContext>,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let run = find(&context.store, &id).await?;
    let facts = verification::read(&context.store, &run, context.clock.now()).await?;
    Ok(HttpResponse::Ok().json(verification::verify(&facts)))
}

/// `GET /runs/{id}/lineage`
#[utoipa::path(
    get, path = "/runs/{id}/lineage", tag = "runs",
    params(("id" = String, Path, description = "A run's id, or its session's")),
    responses(
        (status = 200, body = Object, description = "The decisions that this one replaces, and those that replace it, nearest first, each with whether the hash that is named is that of the Commitment here"),
        (status = 404, body = ErrorBody),
    )
)]
pub(crate) async fn lineage(
    context: web::Data<ApiContext>,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let run = find(&context.store, &id).await?;
    Ok(HttpResponse::Ok().json(lineage::read(&context.store, &run).await?))
}
