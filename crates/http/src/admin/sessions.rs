//! The runtime's sessions held against our runs.

use actix_web::{HttpResponse, web};
use control_plane_recovery::{Drift, DriftError, Listed, Missing, StateDrift, Untracked};
use serde::Serialize;
use utoipa::ToSchema;

use crate::context::ApiContext;
use crate::error::{ApiError, ErrorBody};

/// How the runtime's sessions and our runs differ. Of each list the first thousand are given, and
/// its count has them all.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SessionDrift)]
pub(crate) struct DriftView {
    /// Whether all sessions and all active runs were looked at.
    complete: bool,
    /// Why they were not.
    #[serde(skip_serializing_if = "Option::is_none")]
    incomplete_reason: Option<String>,
    pages_fetched: u32,
    runtime_session_count: usize,
    /// Sessions that are not over.
    live_runtime_session_count: usize,
    /// Runs that are not over.
    tracked_run_count: usize,
    /// Those of them whose session has not started.
    waiting_run_count: usize,
    untracked_session_count: usize,
    /// Live sessions without a run.
    untracked_sessions: Vec<UntrackedView>,
    missing_from_runtime_count: Option<usize>,
    /// Active runs whose session the runtime does not list; `null` when not all were looked at.
    missing_from_runtime: Option<Vec<MissingView>>,
    state_drift_count: usize,
    /// Runs that are in another state than their session. For a moment after a change, that is no
    /// fault.
    state_drift: Vec<StateDriftView>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = UntrackedSession)]
struct UntrackedView {
    session_id: String,
    mode: String,
    state: &'static str,
    started_at_unix_ms: i64,
    initiator: String,
    /// Its run was deleted, so it gets no other by itself.
    deleted: bool,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = MissingSession)]
struct MissingView {
    run_id: String,
    runtime_session_id: String,
    status: &'static str,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SessionStateDrift)]
struct StateDriftView {
    run_id: String,
    runtime_session_id: String,
    status: &'static str,
    session_state: &'static str,
}

impl From<Drift> for DriftView {
    fn from(drift: Drift) -> Self {
        let Drift {
            incomplete,
            pages,
            sessions,
            live_sessions,
            active_runs,
            waiting_runs,
            untracked,
            missing,
            state,
        } = drift;
        let complete = incomplete.is_none();
        let (untracked_session_count, untracked_sessions) = views(untracked);
        let (missing_count, missing) = views(missing);
        let (state_drift_count, state_drift) = views(state);
        Self {
            complete,
            incomplete_reason: incomplete,
            pages_fetched: pages,
            runtime_session_count: sessions,
            live_runtime_session_count: live_sessions,
            tracked_run_count: active_runs,
            waiting_run_count: waiting_runs,
            untracked_session_count,
            untracked_sessions,
            missing_from_runtime_count: complete.then_some(missing_count),
            missing_from_runtime: complete.then_some(missing),
            state_drift_count,
            state_drift,
        }
    }
}

fn views<T, V: From<T>>(listed: Listed<T>) -> (usize, Vec<V>) {
    (listed.total, listed.items.into_iter().map(V::from).collect())
}

impl From<Untracked> for UntrackedView {
    fn from(Untracked { session, deleted }: Untracked) -> Self {
        Self {
            session_id: session.session_id.to_string(),
            mode: session.mode,
            state: session.state.as_str(),
            started_at_unix_ms: session.started_at_unix_ms,
            initiator: session.initiator,
            deleted,
        }
    }
}

impl From<Missing> for MissingView {
    fn from(Missing { run_id, session_id, state }: Missing) -> Self {
        Self {
            run_id: run_id.to_string(),
            runtime_session_id: session_id.to_string(),
            status: state.as_str(),
        }
    }
}

impl From<StateDrift> for StateDriftView {
    fn from(drift: StateDrift) -> Self {
        let StateDrift { run_id, session_id, run_state, session_state } = drift;
        Self {
            run_id: run_id.to_string(),
            runtime_session_id: session_id.to_string(),
            status: run_state.as_str(),
            session_state: session_state.as_str(),
        }
    }
}

impl From<DriftError> for ApiError {
    fn from(error: DriftError) -> Self {
        match error {
            DriftError::Storage(error) => error.into(),
            DriftError::Runtime(error) => error.into(),
        }
    }
}

/// `GET /admin/runtime/sessions`
#[utoipa::path(
    get, path = "/admin/runtime/sessions", tag = "operations",
    responses(
        (status = 200, body = DriftView),
        (status = 403, body = ErrorBody, description = "It takes an admin's key"),
        (status = 503, body = ErrorBody, description = "The runtime does not answer"),
    )
)]
pub(crate) async fn show(context: web::Data<ApiContext>) -> Result<HttpResponse, ApiError> {
    let drift = context.engine.drift().await?;
    Ok(HttpResponse::Ok().json(DriftView::from(drift)))
}
