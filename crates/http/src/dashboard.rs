//! How runs went, over all of them (spec 1.3.31, 11.12).

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use control_plane_insights::dashboard::{self, Overview, Span, Window};
use control_plane_storage::FilingFilter;
use serde::Serialize;

use crate::context::ApiContext;
use crate::error::{ApiError, ErrorBody};
use crate::health::RuntimeHealth;
use crate::query::Query;
use crate::views::RunView;

type Context = web::Data<ApiContext>;

/// Runs of the list.
const RECENT: i64 = 10;
/// How long the answer waits for the runtime's: after that the last one does.
const RUNTIME_PATIENCE: Duration = Duration::from_millis(30);
/// Participants of an answer, and at most.
const AGENTS: i64 = 200;
const AGENTS_MAX: i64 = 1000;

/// What the dashboard shows.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OverviewView<'a> {
    #[serde(flatten)]
    figures: Overview,
    /// The newest ones, whatever the period.
    recent_runs: Vec<RunView<'a>>,
    runtime_health: RuntimeHealth,
}

/// `GET /dashboard/overview`
#[utoipa::path(
    get, path = "/dashboard/overview", tag = "dashboard",
    params(
        ("window" = Option<String>, Query, description = "15m, 1h, 6h, 24h (default), 7d or 30d: the period ends now"),
        ("range" = Option<String>, Query, description = "24h, 7d or 30d: the old name; `window` wins"),
        ("from" = Option<String>, Query, description = "YYYY-MM-DD or RFC 3339: the period's first minute"),
        ("to" = Option<String>, Query, description = "YYYY-MM-DD or RFC 3339, exclusive"),
        ("scenarioRef" = Option<String>, Query, description = "The source exactly, or a part of the scenario's name, whatever its case"),
        ("environment" = Option<String>, Query, description = "Exact"),
    ),
    responses((status = 200, body = Object, description = "`period`, `kpis`, `charts`, `recentRuns` and `runtimeHealth`"), (status = 400, body = ErrorBody))
)]
pub(crate) async fn overview(
    context: Context,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let mut query = Query::new(request.query_string());
    let span = read_span(&mut query, &context);
    let filter = read_filter(&mut query);
    query.finish()?;
    let span = span.unwrap_or_else(|| Span::ending(Window::default(), context.clock.now()));
    let (figures, recent, health) = tokio::join!(
        dashboard::overview(&context.store, &span, &filter),
        context.store.runs_recent(filter.clone(), RECENT),
        glance(&context),
    );
    let (figures, recent) = (figures?, recent?);
    Ok(HttpResponse::Ok().json(OverviewView {
        figures,
        recent_runs: recent.iter().map(RunView::from).collect(),
        runtime_health: health,
    }))
}

/// `GET /dashboard/agents/metrics`
#[utoipa::path(
    get, path = "/dashboard/agents/metrics", tag = "dashboard",
    params(
        ("window" = Option<String>, Query, description = "15m, 1h, 6h, 24h, 7d or 30d: runs that were created on a day of it; all runs when no period is given"),
        ("range" = Option<String>, Query, description = "24h, 7d or 30d: the old name; `window` wins"),
        ("from" = Option<String>, Query, description = "YYYY-MM-DD or RFC 3339"),
        ("to" = Option<String>, Query, description = "YYYY-MM-DD or RFC 3339, exclusive"),
        ("scenarioRef" = Option<String>, Query, description = "The source exactly, or a part of the scenario's name, whatever its case"),
        ("environment" = Option<String>, Query, description = "Exact"),
        ("limit" = Option<i64>, Query, description = "1 to 1000, default 200"),
    ),
    responses((status = 200, body = Vec<Object>, description = "Participants, those with the most runs first"), (status = 400, body = ErrorBody))
)]
pub(crate) async fn agents(
    context: Context,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let mut query = Query::new(request.query_string());
    let span = read_span(&mut query, &context);
    let filter = read_filter(&mut query);
    let limit = query.integer("limit", 1..=AGENTS_MAX).unwrap_or(AGENTS);
    query.finish()?;
    let limit = usize::try_from(limit).unwrap_or_default();
    let agents = dashboard::agents(&context.store, span.as_ref(), &filter, limit).await?;
    Ok(HttpResponse::Ok().json(agents))
}

fn read_filter(query: &mut Query) -> FilingFilter {
    FilingFilter { environment: query.text("environment"), scenario: query.text("scenarioRef") }
}

/// The period that is asked for, if one is.
fn read_span(query: &mut Query, context: &ApiContext) -> Option<Span> {
    let window = query.choice("window", &Window::NAMED);
    let range = query.choice("range", &Window::OLD);
    let (from, to) = (query.time("from"), query.time("to"));
    let window = window.or(range);
    if window.is_none() && from.is_none() && to.is_none() {
        return None;
    }
    match Span::new(window.unwrap_or_default(), from, to, context.clock.now()) {
        Ok(span) => Some(span),
        Err(fault) => {
            query.fault(fault.to_string());
            None
        }
    }
}

/// How the runtime is, without waiting for it: a dashboard is looked at when it is away.
async fn glance(context: &Context) -> RuntimeHealth {
    let asking = {
        let context = context.clone();
        // In a task of its own, so that the answer is there for the next one.
        context.executor.clone().spawn(async move { context.runtime_probe.ask(&context).await })
    };
    let health = match tokio::time::timeout(RUNTIME_PATIENCE, asking).await {
        Ok(Ok(health)) => health,
        Ok(Err(_)) | Err(_) => context.runtime_probe.last(&context.settings.runtime_kind),
    };
    health.without_manifest()
}
