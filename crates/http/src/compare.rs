//! Two runs, held against each other (spec 1.3.26, 7.4).

use actix_web::{HttpResponse, web};
use control_plane_insights::compare;
use serde_json::{Map, Value};

use crate::body::{JsonBody, fields_of};
use crate::context::ApiContext;
use crate::error::{ApiError, ErrorBody};
use crate::runs::find;

/// `POST /runs/compare`
#[utoipa::path(
    post, path = "/runs/compare", tag = "runs",
    request_body(content = Object, description = "`leftRunId` and `rightRunId`: ids of runs or of their sessions"),
    responses(
        (status = 201, body = Object, description = "What the right run has otherwise than the left one, from where on, and a sentence that says it"),
        (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody, description = "One of the runs is not known; the left one is looked for first"),
    )
)]
pub(crate) async fn compare(
    context: web::Data<ApiContext>,
    body: JsonBody,
) -> Result<HttpResponse, ApiError> {
    let fields = fields_of(body.0, &["leftRunId", "rightRunId"])?;
    let [left, right] = ids(&fields)?;
    let left = find(&context.store, left).await?;
    let right = find(&context.store, right).await?;
    let (left, right) =
        (compare::read(&context.store, left).await?, compare::read(&context.store, right).await?);
    // Long runs take a while, and the thread is also others'.
    let comparing =
        context.executor.spawn_blocking(move || serde_json::to_vec(&compare::runs(&left, &right)));
    let body = comparing
        .await
        .map_err(|error| ApiError::Internal(format!("the comparison ended early: {error}")))?
        .map_err(|error| {
            ApiError::Internal(format!("the comparison cannot be written: {error}"))
        })?;
    Ok(HttpResponse::Created().content_type("application/json").body(body))
}

/// Both ids, or everything that is wrong with them.
fn ids(fields: &Map<String, Value>) -> Result<[&str; 2], ApiError> {
    let mut faults = Vec::new();
    let ids = ["leftRunId", "rightRunId"].map(|name| match fields.get(name) {
        Some(Value::String(id)) if !id.is_empty() => id.as_str(),
        Some(Value::Null) | None => {
            faults.push(format!("{name} is required"));
            ""
        }
        Some(_) => {
            faults.push(format!("{name} must be the id of a run or of its session"));
            ""
        }
    });
    if faults.is_empty() { Ok(ids) } else { Err(ApiError::Validation(faults)) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_ids_are_wanted_and_every_fault_is_named() {
        let taken = json!({ "leftRunId": "a", "rightRunId": "b" });
        assert_eq!(ids(taken.as_object().unwrap()).unwrap(), ["a", "b"]);
        for (body, words) in [
            (json!({}), "leftRunId is required; rightRunId is required"),
            (json!({ "leftRunId": "a", "rightRunId": 7 }), "rightRunId must be the id"),
            (json!({ "leftRunId": "", "rightRunId": "b" }), "leftRunId must be the id"),
        ] {
            let refused = ids(body.as_object().unwrap()).unwrap_err().to_string();
            assert!(refused.contains(words), "{refused}");
        }
    }
}
