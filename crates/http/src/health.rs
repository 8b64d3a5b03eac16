//! Probes, figures and the API's own description (spec 1.3.36, README 17).
//!
//! **Invariant:** liveness asks nobody. Readiness is the database, the migrations and not draining,
//! within two seconds; the runtime is in its body only, since its outage must not take every
//! replica out of service.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use actix_web::{HttpResponse, web};
use control_plane_domain::breaker::BreakerState;
use control_plane_domain::runtime::Manifest;
use control_plane_storage as storage;
use serde::Serialize;
use tokio::sync::Mutex;
use utoipa::{OpenApi, ToSchema};

use crate::context::ApiContext;
use crate::error::ErrorBody;
use crate::openapi::Document;

type Context = web::Data<ApiContext>;

/// How long readiness may take at most, less what the answer itself needs.
const DEADLINE: Duration = Duration::from_millis(1800);
/// How long the runtime's answer holds, so that probes do not load it.
const PROBE_HOLDS: Duration = Duration::from_secs(2);

/// How the runtime is.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RuntimeHealth {
    ok: bool,
    runtime_kind: String,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    manifest: Option<Manifest>,
}

impl RuntimeHealth {
    pub(crate) fn without_manifest(self) -> Self {
        Self { manifest: None, ..self }
    }
}

/// Asks the runtime how it is, at most once in a while.
#[derive(Default)]
pub(crate) struct RuntimeProbe {
    /// Held by whoever asks.
    asked: Mutex<Option<(Instant, RuntimeHealth)>>,
    /// The same answer, for those who cannot wait.
    last: std::sync::Mutex<Option<RuntimeHealth>>,
}

impl RuntimeProbe {
    /// The answer before this one, however old; without asking.
    pub(crate) fn last(&self, runtime_kind: &str) -> RuntimeHealth {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone().unwrap_or_else(|| RuntimeHealth {
            ok: false,
            runtime_kind: runtime_kind.to_owned(),
            detail: "the runtime has not answered yet".to_owned(),
            manifest: None,
        })
    }

    /// The runtime's health, at most [`PROBE_HOLDS`] old.
    pub(crate) async fn ask(&self, context: &ApiContext) -> RuntimeHealth {
        let mut last = self.asked.lock().await;
        if let Some((at, health)) = &*last
            && at.elapsed() < PROBE_HOLDS
        {
            return health.clone();
        }
        let runtime = context.engine.runtime();
        let asked = tokio::time::timeout(DEADLINE, runtime.manifest()).await;
        let (detail, manifest) = match asked {
            Ok(Ok(manifest)) => (format!("connected to {}", runtime.address()), Some(manifest)),
            Ok(Err(error)) => (error.to_string(), None),
            Err(_) => (format!("{} does not answer", runtime.address()), None),
        };
        let runtime_kind = context.settings.runtime_kind.clone();
        let health = RuntimeHealth { ok: manifest.is_some(), runtime_kind, detail, manifest };
        *last = Some((Instant::now(), health.clone()));
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(health.clone());
        health
    }
}

/// The answer of liveness.
#[derive(Serialize, ToSchema)]
pub(crate) struct Liveness {
    ok: bool,
    service: &'static str,
}

/// The answer of readiness.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Readiness {
    ok: bool,
    /// ok, unhealthy or migrating.
    database: &'static str,
    runtime: RuntimeHealth,
    /// ok, or draining while the server stops.
    stream_consumer: &'static str,
    /// `CLOSED`, `HALF_OPEN` or `OPEN`: whether the runtime is called.
    circuit_breaker: &'static str,
}

/// What the circuit breaker around calls to the runtime is.
pub(crate) fn breaker_state(context: &ApiContext) -> BreakerState {
    let breaker = context.engine.runtime().breaker();
    breaker.map_or(BreakerState::Closed, |breaker| breaker.state())
}

/// `GET /healthz`: the process runs.
#[utoipa::path(
    get, path = "/healthz", tag = "operations", security(()),
    responses((status = 200, body = Liveness))
)]
pub(crate) async fn healthz() -> HttpResponse {
    HttpResponse::Ok().json(Liveness { ok: true, service: "macp-control-plane" })
}

/// `GET /readyz`: requests may be sent here.
#[utoipa::path(
    get, path = "/readyz", tag = "operations", security(()),
    responses((status = 200, body = Readiness), (status = 503, body = Readiness))
)]
pub(crate) async fn readyz(context: Context) -> HttpResponse {
    let database = tokio::time::timeout(DEADLINE, ask_database(&context.store));
    let (database, runtime) = tokio::join!(database, context.runtime_probe.ask(&context));
    let database = match database {
        Ok(Ok(false)) => "ok",
        Ok(Ok(true)) => "migrating",
        Ok(Err(_)) | Err(_) => "unhealthy",
    };
    let draining = context.stop.is_cancelled();
    let ok = database == "ok" && !draining;
    let body = Readiness {
        ok,
        database,
        runtime: runtime.without_manifest(),
        stream_consumer: if draining { "draining" } else { "ok" },
        // After the runtime was asked, which may have changed it.
        circuit_breaker: breaker_state(&context).as_str(),
    };
    if ok {
        HttpResponse::Ok().json(body)
    } else {
        HttpResponse::ServiceUnavailable().insert_header(("Retry-After", "1")).json(body)
    }
}

/// Whether migrations are missing.
async fn ask_database(store: &storage::Store) -> storage::Result<bool> {
    store.ping().await?;
    store.migrations_pending().await
}

/// `GET /metrics`: Prometheus text.
#[utoipa::path(
    get, path = "/metrics", tag = "operations", security(()),
    responses((status = 200, body = String, content_type = "text/plain"), (status = 500, body = ErrorBody))
)]
pub(crate) async fn metrics(context: Context) -> HttpResponse {
    let text = context.metrics.as_ref().map(|handle| {
        crate::process::record();
        context.engine.record_figures();
        handle.run_upkeep();
        handle.render()
    });
    HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4; charset=utf-8")
        .body(text.unwrap_or_default())
}

/// `GET /openapi.json`: this API.
#[utoipa::path(
    get, path = "/openapi.json", tag = "operations", security(()),
    responses((status = 200, body = Object))
)]
pub(crate) async fn openapi() -> HttpResponse {
    HttpResponse::Ok().json(Document::openapi())
}
