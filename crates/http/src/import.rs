//! Importing a run that another server exported.

use std::fs::File;
use std::io;
use std::time::Duration;

use actix_web::http::header::{CONTENT_ENCODING, LOCATION};
use actix_web::{HttpRequest, HttpResponse, web};
use control_plane_recovery::{ImportError, Imported, import as import_bundle};
use futures_util::StreamExt as _;
use tokio::io::AsyncWriteExt as _;

use crate::auth::Caller;
use crate::context::ApiContext;
use crate::error::{ApiError, ErrorBody};
use crate::views::RunView;

/// How long the body may bring nothing.
const PATIENCE: Duration = Duration::from_secs(60);

/// `POST /runs/import`
#[utoipa::path(
    post, path = "/runs/import", tag = "runs",
    request_body(content = Object, content_type = "application/json", description = "A bundle, as one object or in lines, also compressed with gzip; at most `IMPORT_MAX_BYTES` unpacked"),
    responses(
        (status = 201, body = RunView, headers(("Location" = String, description = "The run")), description = "The run is there, to be read only"),
        (status = 400, body = ErrorBody, description = "The bundle is not sound, or not the whole log; `message` names every finding"),
        (status = 409, body = ErrorBody, description = "There is a run of this id or of its session; `details.runId` is it"),
        (status = 413, body = ErrorBody, description = "The bundle is too large"),
        (status = 415, body = ErrorBody, description = "Another `Content-Encoding` than gzip"),
        (status = 503, body = ErrorBody),
    )
)]
pub(crate) async fn import(
    context: web::Data<ApiContext>,
    caller: web::ReqData<Caller>,
    request: HttpRequest,
    body: web::Payload,
) -> Result<HttpResponse, ApiError> {
    if context.stop.is_cancelled() {
        return Err(ApiError::Draining);
    }
    // What is compressed is recognized by its bytes, whatever is said of it.
    let encoding = request.headers().get(CONTENT_ENCODING).map(|value| value.to_str());
    if encoding.is_some_and(|encoding| !matches!(encoding, Ok("gzip" | "x-gzip" | "identity"))) {
        return Err(ApiError::UnsupportedMediaType);
    }
    let at_most = context.settings.import_max_bytes;
    let file = spool(body, at_most).await?;
    let (store, now) = (context.store.clone(), context.clock.now());
    // In a task of its own: a client that leaves does not undo what it has sent.
    let importing = context
        .executor
        .spawn(async move { import_bundle(&store, file, Some(at_most), now).await });
    let Imported { run, report } = importing
        .await
        .map_err(|error| ApiError::Internal(format!("the import ended early: {error}")))??;
    tracing::info!(
        run.id = %run.id, caller.name, events = report.canonical_events,
        "Run {} was imported", run.id
    );
    Ok(HttpResponse::Created()
        .insert_header((LOCATION, format!("/runs/{}", run.id)))
        .json(RunView::from(&run)))
}

/// Takes the body into a file that nobody else sees, and that is gone when it is closed.
async fn spool(mut body: web::Payload, at_most: u64) -> Result<File, ApiError> {
    let file = tempfile::tempfile().map_err(no_room)?;
    let mut file = tokio::fs::File::from_std(file);
    let mut received: u64 = 0;
    loop {
        let chunk = tokio::time::timeout(PATIENCE, body.next()).await;
        let chunk = chunk.map_err(|_late| {
            ApiError::BadRequest("the body stopped coming before its end".to_owned())
        })?;
        let Some(chunk) = chunk else { break };
        let chunk = chunk
            .map_err(|error| ApiError::BadRequest(format!("the body cannot be read: {error}")))?;
        received = received.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        if received > at_most {
            return Err(ApiError::TooLarge(usize::try_from(at_most).unwrap_or(usize::MAX)));
        }
        file.write_all(&chunk).await.map_err(no_room)?;
    }
    file.flush().await.map_err(no_room)?;
    Ok(file.into_std().await)
}

fn no_room(error: io::Error) -> ApiError {
    ApiError::Internal(format!("a bundle cannot be kept in a temporary file: {error}"))
}

impl From<ImportError> for ApiError {
    fn from(error: ImportError) -> Self {
        match error {
            ImportError::Unsound(report) => Self::Validation(report.faults()),
            ImportError::Partial(_) => Self::BadRequest(error.to_string()),
            ImportError::TooLarge(at_most) => {
                Self::TooLarge(usize::try_from(at_most).unwrap_or(usize::MAX))
            }
            ImportError::Storage(error) => error.into(),
            ImportError::Changed | ImportError::Io(_) => Self::Internal(error.to_string()),
        }
    }
}
