//! Whether the record of a run is whole.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use control_plane_domain::Run;
use control_plane_insights::completeness::{Asked, judge, read};

use crate::context::ApiContext;
use crate::error::{ApiError, ErrorBody};
use crate::query::Query;
use crate::runs::find;

/// How long the runtime may take to answer: without it there is an answer too.
const PATIENCE: Duration = Duration::from_secs(5);

/// `GET /runs/{id}/completeness`
#[utoipa::path(
    get, path = "/runs/{id}/completeness", tag = "runs",
    params(
        ("id" = String, Path, description = "A run's id, or its session's"),
        ("ask" = Option<bool>, Query, description = "Whether the runtime is asked, too, what it counted; false by default"),
    ),
    responses(
        (status = 200, body = Object, description = "Whether the record is whole: `status` is complete, gap or unknown, `ranges` is what is missing, `evidence` how we know"),
        (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody),
    )
)]
pub(crate) async fn completeness(
    context: web::Data<ApiContext>,
    id: web::Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let mut query = Query::new(request.query_string());
    let asks = query.flag("ask").unwrap_or(false);
    query.finish()?;
    let run = find(&context.store, &id).await?;
    let asked = if asks { ask(&context, &run).await } else { Asked::No };
    let facts = read(&context.store, run.id, asked, context.clock.now()).await?;
    Ok(HttpResponse::Ok().json(judge(&facts)))
}

async fn ask(context: &ApiContext, run: &Run) -> Asked {
    let Some(session) = &run.session_id else {
        return Asked::Silent("the run has no session".to_owned());
    };
    let asking = context.engine.runtime().get_session(session);
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(Ok(info)) => Asked::Told(Box::new(info)),
        Ok(Err(fault)) => Asked::Silent(fault.message),
        Err(_late) => Asked::Silent("it does not answer in time".to_owned()),
    }
}
