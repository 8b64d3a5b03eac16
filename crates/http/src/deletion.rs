//! Deleting a run (spec 1.3.13).

use actix_web::{HttpResponse, web};
use control_plane_storage::model::Deleted;

use crate::auth::Caller;
use crate::context::ApiContext;
use crate::error::{ApiError, ErrorBody};
use crate::runs::find;

/// `DELETE /runs/{id}`
#[utoipa::path(
    delete, path = "/runs/{id}", tag = "runs",
    params(("id" = String, Path, description = "A run's id, or its session's")),
    responses(
        (status = 204, description = "The run is gone with everything that belongs to it; its session is not discovered again"),
        (status = 400, body = ErrorBody, description = "The run is not over"),
        (status = 403, body = ErrorBody, description = "Only an admin's key may delete"),
        (status = 404, body = ErrorBody),
    )
)]
pub(crate) async fn delete(
    context: web::Data<ApiContext>,
    caller: web::ReqData<Caller>,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    remove(&context, &caller, &id).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Deletes a run that is over.
pub(crate) async fn remove(
    context: &ApiContext,
    caller: &Caller,
    id: &str,
) -> Result<(), ApiError> {
    let run = find(&context.store, id).await?;
    match context.store.run_delete(run.id, context.clock.now()).await? {
        Deleted::Done => {
            tracing::info!(run.id = %run.id, caller.name, "Run {} was deleted", run.id);
            Ok(())
        }
        Deleted::Active(state) => Err(ApiError::BadRequest(format!(
            "only terminal runs (completed, failed, cancelled) can be deleted (current status: {})",
            state.as_str()
        ))),
    }
}
