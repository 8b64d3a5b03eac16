//! `POST /stream-tickets`: a secret that opens one run's streams, for clients that can put it into
//! a URL and nothing into a header (a browser's `EventSource`).
//!
//! **Invariant:** a ticket is shown once, to whoever asked for it, and kept as its hash; it opens
//! the streams of one run and nothing else, and not for longer than its key is accepted.

mod renew;

use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpResponse, web};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use control_plane_domain::time::millis;
use control_plane_domain::{RunId, Timestamp};
use control_plane_storage::{Error, Ticket, TicketHash};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::body::JsonBody;
use crate::context::ApiContext;
use crate::error::{ApiError, ErrorBody};
use crate::runs::{check_id, find};

pub(crate) use renew::{Held, Renewals};

/// How long a new ticket may wait for its first stream.
const FIRST_USE: TimeDelta = TimeDelta::seconds(60);
/// How long it may wait for the next one after a stream has closed.
const AFTER_CLOSE: TimeDelta = TimeDelta::minutes(2);
/// How long after it was made it opens streams at most.
const LONGEST: TimeDelta = TimeDelta::hours(24);
/// How long an expired ticket is kept: a stream that is still open may yet extend it, when the
/// database was away for a while.
const KEPT: TimeDelta = TimeDelta::hours(1);

const UNKNOWN: ApiError = ApiError::Unauthorized("The ticket is not known");
const EXPIRED: ApiError = ApiError::Unauthorized("The ticket has expired; ask for a new one");
const FOREIGN: ApiError = ApiError::Unauthorized("The ticket is for another run");
const KEYLESS: ApiError = ApiError::Unauthorized("The ticket's API key is not accepted any more");

/// A ticket, told once.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TicketView {
    /// The secret: `?ticket=` of the run's streams.
    ticket: String,
    #[schema(value_type = uuid::Uuid)]
    run_id: String,
    /// Until when a stream must have been opened with it.
    #[serde(with = "millis")]
    #[schema(value_type = String)]
    expires_at: Timestamp,
}

/// `POST /stream-tickets`
#[utoipa::path(
    post, path = "/stream-tickets", tag = "events",
    request_body(content = Object, description = "`{runId}`: a run's id, or its session's"),
    responses(
        (status = 201, body = TicketView),
        (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody),
    )
)]
pub(crate) async fn create(
    context: web::Data<ApiContext>,
    caller: web::ReqData<Caller>,
    body: JsonBody,
) -> Result<HttpResponse, ApiError> {
    let id = parse(&body.0.unwrap_or(Value::Null)).map_err(ApiError::Validation)?;
    let run_id = find(&context.store, &id).await?.id;
    let secret = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    let now = context.clock.now();
    let ticket = Ticket {
        run_id,
        key_hash: caller.key.as_bytes().to_vec(),
        made_at: now,
        expires_at: now + FIRST_USE,
    };
    let expires_at = ticket.expires_at;
    context.store.ticket_create(hash(&secret), ticket).await?;
    clean(&context, now);
    Ok(HttpResponse::Created().insert_header((CACHE_CONTROL, "no-store")).json(TicketView {
        ticket: secret,
        run_id: run_id.to_string(),
        expires_at,
    }))
}

/// A ticket that was shown and is good; in the request's extensions.
#[derive(Clone, Copy)]
pub(crate) struct Shown(pub(crate) TicketHash);

/// The ticket of a query string, if there is one.
pub(crate) fn in_query(raw: &str) -> Option<String> {
    let pairs = web::Query::<Vec<(String, String)>>::from_query(raw).ok()?.into_inner();
    pairs.into_iter().find(|(name, text)| name == "ticket" && !text.is_empty()).map(|(_, it)| it)
}

/// Who asks with this ticket for the streams of the run that `id` names.
pub(crate) async fn check(
    context: &ApiContext,
    secret: &str,
    id: &str,
) -> Result<(Caller, Shown), ApiError> {
    let hash = hash(secret);
    let ticket = context.store.ticket_find(hash).await?.ok_or(UNKNOWN)?;
    if !is_good(&ticket, context.clock.now()) {
        return Err(EXPIRED);
    }
    let caller = context.keys.of_ticket(&ticket.key_hash).ok_or(KEYLESS)?;
    if names(context, id, ticket.run_id).await? { Ok((caller, Shown(hash))) } else { Err(FOREIGN) }
}

fn is_good(ticket: &Ticket, now: Timestamp) -> bool {
    let Ticket { run_id: _, key_hash: _, made_at, expires_at } = ticket;
    now < *expires_at && now < *made_at + LONGEST
}

/// Whether a path's `id` is this run, by its own id or its session's. Whether another run exists
/// is not for a ticket to find out.
async fn names(context: &ApiContext, id: &str, run_id: RunId) -> Result<bool, ApiError> {
    if id.parse::<RunId>().is_ok_and(|id| id == run_id) {
        return Ok(true);
    }
    if check_id(id).is_err() {
        return Ok(false);
    }
    match context.store.run_find(id).await {
        Ok(run) => Ok(run.id == run_id),
        Err(Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn hash(secret: &str) -> TicketHash {
    Sha256::digest(secret).into()
}

fn parse(body: &Value) -> Result<String, Vec<String>> {
    let Value::Object(fields) = body else {
        return Err(vec!["the body must be a JSON object".to_owned()]);
    };
    let unknown = fields.keys().filter(|name| *name != "runId");
    let mut faults: Vec<String> =
        unknown.map(|name| format!("{name} is not a known field")).collect();
    let id = match fields.get("runId") {
        None | Some(Value::Null) => Err("runId is required"),
        Some(Value::String(id)) if check_id(id).is_ok() => Ok(id.clone()),
        Some(_) => Err("runId must be the id of a run or of a session"),
    };
    match id {
        Ok(id) if faults.is_empty() => Ok(id),
        Ok(_) => Err(faults),
        Err(fault) => {
            faults.push(fault.to_owned());
            Err(faults)
        }
    }
}

/// Removes old tickets, some each time that one is made: they never pile up, and nobody waits.
fn clean(context: &ApiContext, now: Timestamp) {
    let store = context.store.clone();
    context.executor.spawn(async move {
        if let Err(error) = store.tickets_clean(now - KEPT).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "Expired stream tickets could not be removed"
            );
        }
    });
}

#[cfg(test)]
mod tests;
