//! Reads a JSON body: at most 1 MiB, and every fault has its own status.

use actix_web::http::header::CONTENT_TYPE;
use actix_web::web::Bytes;
use actix_web::{FromRequest, HttpRequest, dev::Payload};
use futures_util::future::LocalBoxFuture;
use serde_json::{Map, Value};

use crate::error::ApiError;

/// The largest body that is read.
pub(crate) const MAX_BYTES: usize = 1024 * 1024;

/// A JSON body; `None` when it is empty, which is fine where no field is required.
#[derive(Debug)]
pub(crate) struct JsonBody(pub(crate) Option<Value>);

impl FromRequest for JsonBody {
    type Error = actix_web::Error;
    type Future = LocalBoxFuture<'static, Result<Self, Self::Error>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let json = request
            .headers()
            .get(CONTENT_TYPE)
            .is_none_or(|value| value.to_str().is_ok_and(is_json));
        let bytes = Bytes::from_request(request, payload);
        Box::pin(async move {
            let bytes = bytes.await.map_err(|error| read_error(&error))?;
            Ok(Self(parse(&bytes, json)?))
        })
    }
}

/// The fields of a body of which none is required; others than `known` are refused by name.
pub(crate) fn fields_of(
    body: Option<Value>,
    known: &[&str],
) -> Result<Map<String, Value>, ApiError> {
    let fault = |sentence: String| ApiError::Validation(vec![sentence]);
    match body {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(fields)) => {
            match fields.keys().find(|name| !known.contains(&name.as_str())) {
                Some(unknown) => Err(fault(format!("{unknown} is not a known field"))),
                None => Ok(fields),
            }
        }
        Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            Err(fault("the body must be a JSON object".to_owned()))
        }
    }
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

fn parse(bytes: &[u8], json: bool) -> Result<Option<Value>, ApiError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    if !json {
        return Err(ApiError::UnsupportedMediaType);
    }
    serde_json::from_slice(bytes)
        .map(Some)
        .map_err(|error| ApiError::BadRequest(format!("the body is not valid JSON: {error}")))
}

fn read_error(error: &actix_web::Error) -> ApiError {
    match error.as_response_error().status_code().as_u16() {
        413 => ApiError::TooLarge(MAX_BYTES),
        _ => ApiError::BadRequest(format!("the body cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_type_is_json_with_and_without_parameters() {
        for good in
            ["application/json", "Application/JSON; charset=utf-8", "application/merge-patch+json"]
        {
            assert!(is_json(good), "{good}");
        }
        for bad in ["text/plain", "application/x-www-form-urlencoded", "json", ""] {
            assert!(!is_json(bad), "{bad}");
        }
    }

    #[test]
    fn an_empty_body_is_no_body_whatever_its_type() {
        assert_eq!(parse(b"", false).unwrap(), None);
        assert_eq!(parse(b"", true).unwrap(), None);
    }

    #[test]
    fn a_body_that_is_too_deep_is_refused() {
        let deep = "[".repeat(100_000);
        assert!(matches!(parse(deep.as_bytes(), true), Err(ApiError::BadRequest(_))));
    }

    #[test]
    fn a_body_of_another_type_is_unsupported() {
        assert!(matches!(parse(b"a=b", false), Err(ApiError::UnsupportedMediaType)));
    }
}
