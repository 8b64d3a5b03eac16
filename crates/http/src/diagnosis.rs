//! Why a run is where it is.

use actix_web::{HttpResponse, web};
use control_plane_insights::diagnosis::{diagnose, read};

use crate::context::ApiContext;
use crate::error::{ApiError, ErrorBody};
use crate::runs::find;

/// `GET /runs/{id}/diagnosis`
#[utoipa::path(
    get, path = "/runs/{id}/diagnosis", tag = "runs",
    params(("id" = String, Path, description = "A run's id, or its session's")),
    responses(
        (status = 200, body = Object, description = "Why the run is where it is: `summary` is one sentence, the other fields are its parts"),
        (status = 404, body = ErrorBody),
    )
)]
pub(crate) async fn diagnosis(
    context: web::Data<ApiContext>,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let run = find(&context.store, &id).await?;
    let facts = read(&context.store, run.id, context.clock.now()).await?;
    Ok(HttpResponse::Ok().json(diagnose(&facts)))
}
