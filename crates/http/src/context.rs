//! What every handler may use.

use std::sync::Arc;
use std::time::Duration;

use control_plane_domain::Clock;
use control_plane_domain::outbound::Outbound;
use control_plane_recovery::Engine;
use control_plane_storage::Store;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::auth::ApiKeys;
use crate::health::RuntimeProbe;
use crate::stream::{Limits, Snapshots};
use crate::tickets::Renewals;

/// What the server hands to its handlers; shared by all workers.
pub struct ApiContext {
    pub(crate) store: Store,
    pub(crate) engine: Engine,
    /// For what clients can aim.
    pub(crate) outbound: Arc<dyn Outbound>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) keys: ApiKeys,
    pub(crate) settings: Settings,
    /// Cancelled when the server is to stop: streams end, readiness turns red.
    pub(crate) stop: CancellationToken,
    /// Names the log; changes when a database is restored or rebuilt.
    pub(crate) log_id: String,
    pub(crate) metrics: Option<PrometheusHandle>,
    /// Where work goes that must outlive its request: a worker's own runtime ends with the HTTP
    /// side, before runs are drained.
    pub(crate) executor: Handle,
    pub(crate) snapshots: Snapshots,
    /// The streams that are open.
    pub(crate) streams: Limits,
    /// The tickets that they were opened with.
    pub(crate) tickets: Renewals,
    pub(crate) runtime_probe: RuntimeProbe,
}

/// What the configuration says about the HTTP side.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The registered provider, as `runtime.kind` names it.
    pub runtime_kind: String,
    /// The origins that browsers may call from.
    pub cors_origins: Vec<String>,
    /// How often an event stream says that it is alive.
    pub heartbeat: Duration,
    /// The longest pause of a timed replay.
    pub replay_max_delay: Duration,
    /// How long an event stream stays open before its client has to come back, on average.
    pub stream_max_age: Duration,
    /// How many event streams may be open, in all and with one key.
    pub max_streams: usize,
    pub max_streams_per_key: usize,
    /// How long a socket may take nothing before it is closed.
    pub stall_timeout: Duration,
    /// How often the ticket of an open stream is extended.
    pub ticket_renewal: Duration,
    /// The largest `inline` of an artifact, in bytes of JSON.
    pub artifact_max_bytes: usize,
    /// The longest bundle that is imported, unpacked.
    pub import_max_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            runtime_kind: "rust".to_owned(),
            cors_origins: vec!["http://localhost:3000".to_owned()],
            heartbeat: Duration::from_secs(15),
            replay_max_delay: Duration::from_secs(2),
            stream_max_age: Duration::from_secs(30 * 60),
            max_streams: 20_000,
            max_streams_per_key: 15_000,
            stall_timeout: Duration::from_secs(30),
            ticket_renewal: Duration::from_secs(30),
            artifact_max_bytes: 256 * 1024,
            import_max_bytes: 1024 * 1024 * 1024,
        }
    }
}

/// The parts that an [`ApiContext`] is made of.
pub struct Parts {
    pub store: Store,
    pub engine: Engine,
    /// For what clients can aim: it has to be careful.
    pub outbound: Arc<dyn Outbound>,
    pub clock: Arc<dyn Clock>,
    pub keys: ApiKeys,
    pub settings: Settings,
    pub stop: CancellationToken,
    pub log_id: String,
    /// Renders `GET /metrics`; without it that answers with nothing.
    pub metrics: Option<PrometheusHandle>,
}

impl ApiContext {
    /// Puts the parts together. Work that outlives a request runs on the runtime that this is
    /// called on.
    pub fn new(parts: Parts) -> Self {
        let Parts { store, engine, outbound, clock, keys, settings, stop, log_id, metrics } = parts;
        let snapshots = Snapshots::new(store.clone());
        let runtime_probe = RuntimeProbe::default();
        let executor = Handle::current();
        let streams = Limits::new(settings.max_streams, settings.max_streams_per_key);
        let tickets = Renewals::start(store.clone(), Arc::clone(&clock), settings.ticket_renewal);
        Self {
            store,
            engine,
            outbound,
            clock,
            keys,
            settings,
            stop,
            log_id,
            metrics,
            executor,
            snapshots,
            streams,
            tickets,
            runtime_probe,
        }
    }
}
