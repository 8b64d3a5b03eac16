//! API keys: who calls, and what they may do (spec 11.1).
//!
//! **Invariant:** a key is kept as its SHA-256 and compared with every known one in constant time;
//! neither the keys nor what a client presented can be printed. Which kind of access a route gives
//! is said in the table of routes and nowhere else.

use std::fmt;

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
use crate::tickets::{self, Shown};

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
    /// Which key it was.
    pub key: KeyMark,
}

/// Tells keys apart without being one: a hash of a key's hash. It is what a ticket remembers.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyMark([u8; 32]);

impl KeyMark {
    /// Of those who need no key.
    pub(crate) const NONE: Self = Self([0; 32]);

    /// Of the key with this hash.
    pub(crate) fn of(key_hash: &[u8; 32]) -> Self {
        let digest = Sha256::new().chain_update("stream ticket").chain_update(key_hash);
        Self(digest.finalize().into())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for KeyMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyMark")
    }
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
            keys.push(Key { caller: Caller { name, role, key: KeyMark::of(&hash) }, hash });
        }
        if faults.is_empty() { Ok(Self(keys)) } else { Err(faults) }
    }

    /// Whether no key is configured: everybody is let in then.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Finds the caller whose ticket remembers this mark, if the key is still accepted.
    pub(crate) fn of_ticket(&self, mark: &[u8]) -> Option<Caller> {
        if self.is_empty() {
            return Some(anonymous()).filter(|caller| caller.key.as_bytes() == mark);
        }
        let mut callers = self.0.iter().map(|key| &key.caller);
        callers.find(|caller| caller.key.as_bytes() == mark).cloned()
    }

    /// Finds the caller behind an `Authorization` header.
    fn identify(&self, header: Option<&str>) -> Result<Caller, ApiError> {
        if self.is_empty() {
            return Ok(anonymous());
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

fn anonymous() -> Caller {
    Caller { name: "anonymous".to_owned(), role: Role::Admin, key: KeyMark::NONE }
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

/// Lets a request through if its key allows the method.
pub(crate) async fn key(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let caller = identify(&request).and_then(|caller| {
        allow(&caller, request.method())?;
        Ok(caller)
    });
    pass(request, next, caller).await
}

/// Lets a request through if it has a key.
pub(crate) async fn any_key(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let caller = identify(&request);
    pass(request, next, caller).await
}

/// Lets a request through if it has an admin's key.
pub(crate) async fn admin(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let caller = identify(&request).and_then(|caller| match caller.role {
        Role::Admin => Ok(caller),
        Role::Read | Role::Operate => Err(ApiError::AdminOnly),
    });
    pass(request, next, caller).await
}

/// Lets a request through if it has a ticket for the run of its path, or else a key. Where a ticket
/// is shown it decides: a browser sends headers of its own, such as a proxy's password.
pub(crate) async fn key_or_ticket(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let Some(ticket) = tickets::in_query(request.query_string()) else {
        return key(request, next).await;
    };
    let id = request.match_info().get("id").unwrap_or_default().to_owned();
    let shown = match context(&request) {
        Ok(context) => tickets::check(&context, &ticket, &id).await,
        Err(error) => Err(error),
    };
    let caller = shown.and_then(|(caller, shown)| {
        allow(&caller, request.method())?;
        request.extensions_mut().insert::<Shown>(shown);
        Ok(caller)
    });
    pass(request, next, caller).await
}

async fn pass(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
    caller: Result<Caller, ApiError>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    match caller {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            Ok(next.call(request).await?.map_into_boxed_body())
        }
        Err(error) => Ok(request.into_response(error.error_response())),
    }
}

fn context(request: &ServiceRequest) -> Result<web::Data<ApiContext>, ApiError> {
    let context = request.app_data::<web::Data<ApiContext>>();
    context.cloned().ok_or_else(|| ApiError::Internal("no context in the application".to_owned()))
}

fn identify(request: &ServiceRequest) -> Result<Caller, ApiError> {
    let header = match request.headers().get(AUTHORIZATION) {
        None => None,
        Some(value) => Some(
            value.to_str().map_err(|_| ApiError::Unauthorized("Invalid authorization token"))?,
        ),
    };
    context(request)?.keys.identify(header)
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
