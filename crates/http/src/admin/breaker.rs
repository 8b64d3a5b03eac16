//! The circuit breaker around calls to the runtime (spec 1.3.34, 1.3.35).

use actix_web::{HttpRequest, HttpResponse, web};
use chrono::TimeDelta;
use control_plane_domain::breaker::{BreakerChange, BreakerState};
use control_plane_domain::{Timestamp, time};
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::context::ApiContext;
use crate::error::{ApiError, ErrorBody};
use crate::health::breaker_state;
use crate::query::Query;

type Context = web::Data<ApiContext>;

/// What `window` may be, in hours.
const WINDOWS: &[(&str, i64)] = &[("1h", 1), ("6h", 6), ("24h", 24), ("7d", 7 * 24)];

/// The answer to a reset.
#[derive(Serialize, ToSchema)]
pub(crate) struct Reset {
    status: &'static str,
    /// What it is now: `CLOSED`.
    state: &'static str,
}

/// What the breaker is, and what it was.
#[derive(Serialize, ToSchema)]
pub(crate) struct History {
    /// `CLOSED`, `HALF_OPEN` or `OPEN`.
    state: &'static str,
    /// Oldest first; since the server started, and the last 200 at most.
    history: Vec<Change>,
}

/// That it became something.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Change {
    state: &'static str,
    #[serde(with = "time::millis")]
    #[schema(value_type = String, format = DateTime)]
    entered_at: Timestamp,
    reason: String,
}

impl From<BreakerChange> for Change {
    fn from(change: BreakerChange) -> Self {
        let BreakerChange { state, entered_at, reason } = change;
        Self { state: state.as_str(), entered_at, reason }
    }
}

/// `POST /admin/circuit-breaker/reset`: closes it, whatever it is. The next call finds out.
#[utoipa::path(
    post, path = "/admin/circuit-breaker/reset", tag = "admin",
    responses(
        (status = 200, body = Reset),
        (status = 403, body = ErrorBody, description = "It takes an admin's key"),
    )
)]
pub(crate) async fn reset(context: Context, caller: web::ReqData<Caller>) -> HttpResponse {
    let before = breaker_state(&context);
    if let Some(breaker) = context.engine.runtime().breaker() {
        breaker.reset();
    }
    tracing::info!(caller.name, "The circuit breaker was {before} and is reset");
    HttpResponse::Ok().json(Reset { status: "ok", state: BreakerState::Closed.as_str() })
}

/// `GET /admin/circuit-breaker/history`
#[utoipa::path(
    get, path = "/admin/circuit-breaker/history", tag = "admin",
    params(
        ("window" = Option<String>, Query, description = "1h, 6h, 24h or 7d; `since` wins"),
        ("since" = Option<String>, Query, description = "RFC 3339, or a date"),
    ),
    responses(
        (status = 200, body = History),
        (status = 400, body = ErrorBody),
        (status = 403, body = ErrorBody, description = "It takes an admin's key"),
    )
)]
pub(crate) async fn history(
    context: Context,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let mut query = Query::new(request.query_string());
    let hours = query.choice("window", WINDOWS);
    let since = query.time("since");
    query.finish()?;
    let window = hours.map(|hours| context.clock.now() - TimeDelta::hours(hours));
    let from = since.or(window);
    let breaker = context.engine.runtime().breaker();
    let changes = breaker.map(|breaker| breaker.history()).unwrap_or_default();
    let history = changes
        .into_iter()
        .filter(|change| from.is_none_or(|from| change.entered_at >= from))
        .map(Change::from)
        .collect();
    let state = breaker_state(&context).as_str();
    Ok(HttpResponse::Ok().json(History { state, history }))
}
