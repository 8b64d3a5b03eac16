//! `macp-control-plane serve`: starts the parts in order and stops them in the opposite one.
//!
//! **Invariant:** the listener is bound only when the database answers and is migrated, and the
//! engine recovers runs while requests are served already. On a signal streams end first, then
//! HTTP, then the engine's tasks, within [`DRAIN`]; a second signal ends the process at once.

use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use actix_web::web;
use anyhow::Context as _;
use control_plane_domain::SystemClock;
use control_plane_http::{ApiContext, Parts};
use control_plane_outbound::Client as HttpClient;
use control_plane_recovery::Engine;
use control_plane_runtime::{Client, Minter};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::signals::Signals;
use crate::telemetry::Telemetry;
use crate::{database, figures, open_files};

/// How long everything that runs may take to end.
const DRAIN: Duration = Duration::from_secs(4);

/// Serves until a signal.
pub(crate) async fn serve(config: Config) -> anyhow::Result<ExitCode> {
    serve_then(config, |_address| ()).await
}

/// The same, and tells `ready` the address once requests are taken.
pub(crate) async fn serve_then(
    config: Config,
    ready: impl FnOnce(std::net::SocketAddr),
) -> anyhow::Result<ExitCode> {
    open_files::raise();
    let mut signals = Signals::listen().context("signals")?;
    let metrics = figures::install()?;
    let outbound = HttpClient::guarded(config.outbound.clone())?;
    let mut to_runtime = config.runtime.clone();
    if let Some(minter) = config.minter.clone() {
        // Only the operator names the auth service, so it may be anywhere.
        to_runtime.minter = Some(Minter::new(minter, Arc::new(HttpClient::trusted()?)));
    }
    let telemetry = config.telemetry.clone().map(Telemetry::start).transpose()?;
    let tracer = telemetry.as_ref().map(Telemetry::tracer);
    to_runtime.tracer.clone_from(&tracer);
    let runtime = Client::new(&to_runtime).context("the runtime's client")?;
    let store = tokio::select! {
        store = database::open(&config) => store?,
        signal = signals.next() => {
            tracing::info!("{signal} while waiting for the database");
            return Ok(ExitCode::SUCCESS);
        }
    };
    let log_id = database::log_id(&store).await?;
    let listener = TcpListener::bind((config.host, config.port))
        .with_context(|| format!("cannot listen on {}:{}", config.host, config.port))?;
    let address = listener.local_addr()?;

    let streams = CancellationToken::new();
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let clock = Arc::new(SystemClock);
    tasks.spawn(figures::upkeep(metrics.clone(), stop.clone()));
    let engine = Engine::start(
        store.clone(),
        Arc::new(runtime),
        clock.clone(),
        control_plane_recovery::Config { tracer, ..config.engine },
        stop.clone(),
        tasks.clone(),
    );
    let context = web::Data::new(ApiContext::new(Parts {
        store,
        engine,
        outbound: Arc::new(outbound),
        clock,
        keys: config.keys,
        settings: config.http,
        stop: streams.clone(),
        log_id,
        metrics: Some(metrics),
    }));
    let server = control_plane_http::server(context, listener, config.workers)?;
    let handle = server.handle();
    let mut serving = tokio::spawn(server);
    tracing::info!(http.address = %address, "Listening on http://{address}");
    ready(address);

    let code = tokio::select! {
        signal = signals.next() => {
            tracing::info!("{signal}: stopping");
            ExitCode::SUCCESS
        }
        ended = &mut serving => {
            tracing::error!(result = ?ended, "The HTTP server ended by itself");
            ExitCode::FAILURE
        }
    };
    let drain = async {
        streams.cancel();
        handle.stop(true).await;
        stop.cancel();
        tasks.close();
        tasks.wait().await;
        if let Some(telemetry) = telemetry {
            telemetry.flush().await;
        }
    };
    tokio::select! {
        drained = tokio::time::timeout(DRAIN, drain) => match drained {
            Ok(()) => tracing::info!("Stopped"),
            Err(_) => tracing::warn!("Gave up draining after {DRAIN:?}"),
        },
        signal = signals.next() => {
            tracing::warn!("A second signal, {signal}: not waiting any longer");
            std::process::exit(1);
        }
    }
    Ok(code)
}
