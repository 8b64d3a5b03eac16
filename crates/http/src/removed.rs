//! Endpoints that are gone (spec 1.3.17): agents talk to the runtime themselves.

use actix_web::web;

use crate::error::ApiError;
use crate::runs::check_id;

/// `POST /runs/{id}/messages`
#[utoipa::path(
    post, path = "/runs/{id}/messages", tag = "runs", params(("id" = String, Path)),
    responses((status = 410, description = "Removed", body = crate::error::ErrorBody))
)]
pub(crate) async fn messages(id: web::Path<String>) -> Result<String, ApiError> {
    gone(&id, "messages")
}

/// `POST /runs/{id}/signal`
#[utoipa::path(
    post, path = "/runs/{id}/signal", tag = "runs", params(("id" = String, Path)),
    responses((status = 410, description = "Removed", body = crate::error::ErrorBody))
)]
pub(crate) async fn signal(id: web::Path<String>) -> Result<String, ApiError> {
    gone(&id, "signal")
}

/// `POST /runs/{id}/context`
#[utoipa::path(
    post, path = "/runs/{id}/context", tag = "runs", params(("id" = String, Path)),
    responses((status = 410, description = "Removed", body = crate::error::ErrorBody))
)]
pub(crate) async fn context(id: web::Path<String>) -> Result<String, ApiError> {
    gone(&id, "context")
}

fn gone(id: &str, endpoint: &str) -> Result<String, ApiError> {
    check_id(id)?;
    Err(ApiError::Removed(format!(
        "POST /runs/:id/{endpoint} was removed: the control plane only observes. Agents send their \
         own envelopes to the runtime, with macp-sdk-python or macp-sdk-typescript"
    )))
}
