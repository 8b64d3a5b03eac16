//! API keys: who calls, and what they may do (spec 11.1).
//!
//! **Invariant:** a key is kept as its SHA-256 and compared with every known one in constant time;
//! neither the keys nor what a client presented can be printed.

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::AUTHORIZATION;
use actix_web::middleware::Next;
use actix_web::{HttpMessage, ResponseError, web};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::context::ApiContext;
use crate::error::ApiError;

/// What a key allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `GET` only.
    Read,
    /// Runs may be launched and changed, and nothing deleted.
    Operate,
    /// Everything.
    Admin,
}

/// Who a request comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The key's name: the actor in logs and audits.
    pub name: String,
    pub role: Role,
}

/// The accepted keys. No `Debug`, on purpose.
#[derive(Clone, Default)]
pub struct ApiKeys(Vec<Key>);

#[derive(Clone)]
struct Key {
    caller: Caller,
    hash: [u8; 32],
}

impl ApiKeys {
    /// Reads `AUTH_API_KEYS`: comma-separated, each `key` (an admin named `key-1`, `key-2`, …) or
    /// `name:role:key`.
    ///
    /// # Errors
    /// A sentence per fault; none quotes a key.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        let mut keys: Vec<Key> = Vec::new();
        let mut faults = Vec::new();
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        for (index, entry) in entries.enumerate() {
            let number = index + 1;
            let parts: Vec<&str> = entry.splitn(3, ':').collect();
            let (name, role, secret) = match parts.as_slice() {
                [secret] => (format!("key-{number}"), Some(Role::Admin), *secret),
                [name, role, secret] => ((*name).to_owned(), parse_role(role), *secret),
                _ => (String::new(), None, ""),
            };
            let Some(role) = role.filter(|_| !name.is_empty() && !secret.is_empty()) else {
                faults.push(format!(
                    "entry {number} must be `key` or `name:role:key` with a role of read, operate or admin"
                ));
                continue;
            };
            let hash: [u8; 32] = Sha256::digest(secret).into();
            if keys.iter().any(|key| key.hash == hash || key.caller.name == name) {
                faults.push(format!("entry {number} repeats an earlier key or name"));
                continue;
            }
            keys.push(Key { caller: Caller { name, role }, hash });
        }
        if faults.is_empty() { Ok(Self(keys)) } else { Err(faults) }
    }

    /// Whether no key is configured: everybody is let in then.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Finds the caller behind an `Authorization` header.
    fn identify(&self, header: Option<&str>) -> Result<Caller, ApiError> {
        if self.is_empty() {
            return Ok(Caller { name: "anonymous".to_owned(), role: Role::Admin });
        }
        let header = header.ok_or(ApiError::Unauthorized("Missing Authorization header"))?;
        let token = strip_bearer(header);
        if token.is_empty() {
            return Err(ApiError::Unauthorized("Empty authorization token"));
        }
        let presented: [u8; 32] = Sha256::digest(token).into();
        let mut found = u32::MAX;
        for (index, key) in (0_u32..).zip(&self.0) {
            let same: Choice = key.hash.ct_eq(&presented);
            found = u32::conditional_select(&found, &index, same);
        }
        let key = usize::try_from(found).ok().and_then(|index| self.0.get(index));
        key.map(|key| key.caller.clone())
            .ok_or(ApiError::Unauthorized("Invalid authorization token"))
    }
}

fn parse_role(text: &str) -> Option<Role> {
    match text {
        "read" => Some(Role::Read),
        "operate" => Some(Role::Operate),
        "admin" => Some(Role::Admin),
        _ => None,
    }
}

/// `Bearer k` or the raw `k`. A header's trailing blanks are gone before we see it, so an empty
/// bearer token is the bare word.
fn strip_bearer(header: &str) -> &str {
    match header.split_at_checked(6) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => {
            if rest.is_empty() {
                rest
            } else {
                rest.strip_prefix(' ').unwrap_or(header)
            }
        }
        _ => header,
    }
}

/// Lets a request through if its key allows it.
pub(crate) async fn require(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    match authorize(&request) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            Ok(next.call(request).await?.map_into_boxed_body())
        }
        Err(error) => Ok(request.into_response(error.error_response())),
    }
}

fn authorize(request: &ServiceRequest) -> Result<Caller, ApiError> {
    let context = request
        .app_data::<web::Data<ApiContext>>()
        .ok_or_else(|| ApiError::Internal("no context in the application".to_owned()))?;
    let header = match request.headers().get(AUTHORIZATION) {
        None => None,
        Some(value) => Some(
            value.to_str().map_err(|_| ApiError::Unauthorized("Invalid authorization token"))?,
        ),
    };
    let caller = context.keys.identify(header)?;
    allow(&caller, request.method())?;
    Ok(caller)
}

fn allow(caller: &Caller, method: &Method) -> Result<(), ApiError> {
    let reads = *method == Method::GET || *method == Method::HEAD;
    match caller.role {
        Role::Read if !reads => Err(ApiError::ReadOnlyKey),
        // What is deleted cannot be had back.
        Role::Operate if *method == Method::DELETE => Err(ApiError::AdminOnly),
        Role::Read | Role::Operate | Role::Admin => Ok(()),
    }
}

#[cfg(test)]
mod tests;
