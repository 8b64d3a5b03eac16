//! Artifacts of a run: listed, added, fetched and removed (spec 1.3.22).
//!
//! **Invariant:** an artifact is added by the run's owner, together with the event that tells of
//! it. Removing one takes the row; the log goes on saying that it was there.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use control_plane_domain::Run;
use control_plane_recovery::NewArtifact;
use control_plane_storage::model::Artifact;
use control_plane_storage::{ArtifactCursor, Entity, Error};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::auth::Caller;
use crate::body::JsonBody;
use crate::context::ApiContext;
use crate::error::{ApiError, ErrorBody};
use crate::launch::idempotency_key;
use crate::query::Query;
use crate::runs::find;
use crate::views::ArtifactView;

/// What an artifact may be.
const KINDS: [&str; 5] = ["trace", "json", "report", "log", "bundle"];
/// The longest label and the longest URI, in characters.
const MAX_LABEL: usize = 255;
const MAX_URI: usize = 2048;
/// What would run in the console of whoever follows the link.
const UNSAFE_SCHEMES: [&str; 3] = ["javascript", "vbscript", "data"];

type Context = web::Data<ApiContext>;
type Who = web::ReqData<Caller>;

/// A page of artifacts.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ArtifactList)]
pub(crate) struct ArtifactListView {
    data: Vec<ArtifactView>,
    limit: i64,
    /// `cursor` of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// `GET /runs/{id}/artifacts`
#[utoipa::path(
    get, path = "/runs/{id}/artifacts", tag = "runs",
    params(
        ("id" = String, Path, description = "A run's id, or its session's"),
        ("limit" = Option<i64>, Query, description = "1 to 100; with it the answer is a page"),
        ("cursor" = Option<String>, Query, description = "The `nextCursor` of a page"),
    ),
    responses(
        (status = 200, body = Vec<ArtifactView>, description = "Oldest first; with `limit` or `cursor` `{data, limit, nextCursor?}`"),
        (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody),
    )
)]
pub(crate) async fn list(
    context: Context,
    request: HttpRequest,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let run = find(&context.store, &id).await?;
    let mut query = Query::new(request.query_string());
    let limit = query.integer("limit", 1..=100);
    let cursor = query.one("cursor");
    let after = cursor.as_deref().and_then(decode_cursor);
    if cursor.is_some() && after.is_none() {
        query.fault("cursor must be the nextCursor of a page".to_owned());
    }
    query.finish()?;
    if limit.is_none() && cursor.is_none() {
        let artifacts = context.store.artifact_list(run.id).await?;
        let views: Vec<ArtifactView> = artifacts.into_iter().map(ArtifactView::from).collect();
        return Ok(HttpResponse::Ok().json(views));
    }
    let limit = limit.unwrap_or(100);
    let mut found = context.store.artifact_page(run.id, after, limit + 1).await?;
    let size = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = found.len() > size;
    found.truncate(size);
    let next_cursor = found.last().filter(|_| more).map(encode_cursor);
    let data = found.into_iter().map(ArtifactView::from).collect();
    Ok(HttpResponse::Ok().json(ArtifactListView { data, limit, next_cursor }))
}

/// `POST /runs/{id}/artifacts`
#[utoipa::path(
    post, path = "/runs/{id}/artifacts", tag = "runs",
    params(
        ("id" = String, Path, description = "A run's id, or its session's"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body give the same artifact"),
    ),
    request_body(content = Object, description = "`kind` (trace, json, report, log or bundle), `label`, and `uri` or `inline` (an object)"),
    responses(
        (status = 201, body = ArtifactView, description = "It is there, and the log says so",
            headers(("Location" = String, description = "The artifact"))),
        (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody, description = "The key was used for another artifact, or the run has as many as it may"),
        (status = 413, body = ErrorBody),
        (status = 503, body = ErrorBody, description = "The run's owner has not answered yet; the same key makes trying again harmless"),
    )
)]
pub(crate) async fn create(
    context: Context,
    caller: Who,
    request: HttpRequest,
    id: web::Path<String>,
    body: JsonBody,
) -> Result<HttpResponse, ApiError> {
    let run = find(&context.store, &id).await?;
    let artifact_id = match idempotency_key(&request)? {
        Some(key) => Uuid::new_v5(&run.id.0, format!("artifact {key}").as_bytes()),
        None => Uuid::new_v4(),
    };
    let new = read(body.0, artifact_id, context.settings.artifact_max_bytes)?;
    let (engine, run_id) = (context.engine.clone(), run.id);
    // In a task of its own: a client that leaves must not stop it midway.
    let adding = context.executor.spawn(async move { engine.artifact_add(run_id, new).await });
    let added =
        adding.await.map_err(|error| ApiError::Internal(format!("it ended early: {error}")))??;
    tracing::info!(run.id = %run_id, caller.name, artifact.id = %added.id, "Added an artifact");
    Ok(HttpResponse::Created()
        .insert_header((header::LOCATION, format!("/runs/{run_id}/artifacts/{}", added.id)))
        .json(ArtifactView::from(added)))
}

/// `GET /runs/{id}/artifacts/{artifactId}`
#[utoipa::path(
    get, path = "/runs/{id}/artifacts/{artifactId}", tag = "runs",
    params(
        ("id" = String, Path, description = "A run's id, or its session's"),
        ("artifactId" = String, Path, description = "The artifact's id"),
    ),
    responses((status = 200, body = ArtifactView), (status = 404, body = ErrorBody))
)]
pub(crate) async fn show(
    context: Context,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, ApiError> {
    let (run, artifact) = place(&context, &path).await?;
    let found = context.store.artifact_get(run.id, artifact).await?;
    let found = found.ok_or_else(|| not_found(&path.1))?;
    Ok(HttpResponse::Ok().json(ArtifactView::from(found)))
}

/// `DELETE /runs/{id}/artifacts/{artifactId}`
#[utoipa::path(
    delete, path = "/runs/{id}/artifacts/{artifactId}", tag = "runs",
    params(
        ("id" = String, Path, description = "A run's id, or its session's"),
        ("artifactId" = String, Path, description = "The artifact's id"),
    ),
    responses(
        (status = 204, description = "It is gone; the log still says that it was there"),
        (status = 404, body = ErrorBody),
    )
)]
pub(crate) async fn delete(
    context: Context,
    caller: Who,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, ApiError> {
    let (run, artifact) = place(&context, &path).await?;
    if run.imported_at.is_some() {
        return Err(ApiError::ReadOnlyRun(run.id.to_string()));
    }
    if !context.store.artifact_delete(run.id, artifact).await? {
        return Err(not_found(&path.1));
    }
    tracing::info!(run.id = %run.id, caller.name, artifact.id = %artifact, "Removed an artifact");
    Ok(HttpResponse::NoContent().finish())
}

async fn place(context: &Context, path: &(String, String)) -> Result<(Run, Uuid), ApiError> {
    let (id, artifact) = path;
    let run = find(&context.store, id).await?;
    Ok((run, Uuid::try_parse(artifact).map_err(|_other| not_found(artifact))?))
}

fn not_found(id: &str) -> ApiError {
    ApiError::Storage(Error::NotFound { entity: Entity::Artifact, id: id.to_owned() })
}

/// `{ kind, label, uri?, inline? }`, and nothing else.
fn read(body: Option<Value>, id: Uuid, max_bytes: usize) -> Result<NewArtifact, ApiError> {
    let Some(Value::Object(mut fields)) = body else {
        return Err(ApiError::Validation(vec!["the body must be a JSON object".to_owned()]));
    };
    let mut faults = Vec::new();
    let kind = text(&mut fields, "kind", &mut faults).unwrap_or_default();
    if !KINDS.contains(&kind.as_str()) {
        faults.push(format!("kind must be one of: {}", KINDS.join(", ")));
    }
    let label = text(&mut fields, "label", &mut faults).unwrap_or_default();
    if label.trim().is_empty() || label.chars().count() > MAX_LABEL || label.contains('\0') {
        faults.push(format!("label must have 1 to {MAX_LABEL} characters, none of them U+0000"));
    }
    let uri = text(&mut fields, "uri", &mut faults);
    if uri.as_deref().is_some_and(|uri| !is_link(uri)) {
        faults.push(format!(
            "uri must be a link of at most {MAX_URI} characters without white space, and must \
             not be a script"
        ));
    }
    let inline = fields.remove("inline").filter(|value| !value.is_null());
    if let Some(value) = &inline {
        let size = value.to_string().len();
        if !value.is_object() {
            faults.push("inline must be an object".to_owned());
        } else if size > max_bytes {
            faults.push(format!(
                "inline must be at most {max_bytes} bytes of JSON (ARTIFACT_MAX_BYTES), and has {size}"
            ));
        } else if holds_nul(value) {
            faults.push("inline must not contain U+0000".to_owned());
        }
    }
    faults.extend(fields.keys().map(|name| format!("{name} is not a known field")));
    if !faults.is_empty() {
        return Err(ApiError::Validation(faults));
    }
    Ok(NewArtifact { id, kind, label, uri, inline })
}

/// A text, or nothing; anything else is a fault.
fn text(fields: &mut Map<String, Value>, name: &str, faults: &mut Vec<String>) -> Option<String> {
    match fields.remove(name) {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text),
        Some(_) => {
            faults.push(format!("{name} must be a string"));
            None
        }
    }
}

/// An absolute URI or a relative one.
fn is_link(text: &str) -> bool {
    let plain = !text.is_empty()
        && text.chars().count() <= MAX_URI
        && !text.chars().any(|it| it.is_whitespace() || it.is_control());
    let scheme = text.split(['/', '?', '#']).next().and_then(|head| head.split_once(':'));
    let harmless = scheme
        .is_none_or(|(scheme, _)| !UNSAFE_SCHEMES.iter().any(|it| it.eq_ignore_ascii_case(scheme)));
    plain && harmless
}

/// The databases refuse it.
fn holds_nul(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(fields) => {
            fields.iter().any(|(key, value)| key.contains('\0') || holds_nul(value))
        }
    }
}

/// Opaque to clients: the instant in microseconds and the id.
fn encode_cursor(artifact: &Artifact) -> String {
    let at = artifact.created_at.timestamp_micros();
    BASE64_URL_SAFE_NO_PAD.encode(format!("{at}.{}", artifact.id))
}

fn decode_cursor(text: &str) -> Option<ArtifactCursor> {
    let text = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let (at, id) = text.split_once('.')?;
    // Thirteen digits of milliseconds reach the year 2286; what no clock gives is no cursor.
    let at = Some(at).filter(|at| at.len() <= 16)?;
    let at = chrono::DateTime::from_timestamp_micros(at.parse().ok()?)?;
    Some(ArtifactCursor { at, id: id.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(body: Value) -> Vec<String> {
        match read(Some(body), Uuid::nil(), 40) {
            Err(ApiError::Validation(faults)) => faults,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_optional_may_be_left_out() {
        for body in [
            json!({ "kind": "log", "label": "l" }),
            json!({ "kind": "log", "label": "l", "uri": null, "inline": null }),
        ] {
            let new = read(Some(body), Uuid::nil(), 40).unwrap();
            assert_eq!((new.kind.as_str(), new.uri, new.inline), ("log", None, None));
        }
    }

    #[test]
    fn every_fault_names_its_field() {
        let good = json!({ "kind": "json", "label": "l" });
        let long = "x".repeat(3000);
        for (field, value) in [
            ("kind", json!("file")),
            ("kind", json!(1)),
            ("label", json!("  ")),
            ("label", json!(long)),
            ("label", json!("a\u{0}")),
            ("uri", json!("")),
            ("uri", json!("a b")),
            ("uri", json!(long)),
            ("uri", json!("JavaScript:alert(1)")),
            ("uri", json!("data:text/html,x")),
            ("inline", json!([])),
            ("inline", json!({ "a": long })),
            ("inline", json!({ "a\u{0}": [1] })),
            ("inline", json!({ "a": ["\u{0}"] })),
            ("inlined", json!({})),
        ] {
            let mut body = good.clone();
            body[field] = value;
            let faults = faults(body);
            assert!(faults.iter().all(|fault| fault.starts_with(field)), "{faults:?}");
        }
        assert_eq!(faults(json!([])), ["the body must be a JSON object"]);
    }

    #[test]
    fn a_link_is_a_uri_or_a_part_of_one() {
        for good in ["https://a.example/x?y#z", "s3://bucket/key", "reports/1.json", "/a:b", "ü"] {
            assert!(is_link(good), "{good}");
        }
    }

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        let artifact = Artifact {
            id: Uuid::from_u128(7),
            run_id: control_plane_domain::RunId::random(),
            kind: String::new(),
            label: String::new(),
            uri: None,
            inline: None,
            created_at: control_plane_domain::time::from_unix_ms(1_763_800_000_123).unwrap(),
        };
        let cursor = decode_cursor(&encode_cursor(&artifact)).unwrap();
        assert_eq!((cursor.at, cursor.id), (artifact.created_at, artifact.id));
        for bad in ["", "x", "MQ", "OTk5OTk5OTk5OTk5OTk5OTk5OS5h"] {
            assert_eq!(decode_cursor(bad), None, "{bad}");
        }
    }
}
