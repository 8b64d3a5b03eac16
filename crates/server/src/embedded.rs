//! The real MACP runtime inside this process, for development.
//!
//! **Invariant:** it listens on loopback only, since its tokens are known to everybody, and it
//! keeps the history of ended sessions, so that nothing a developer does is lost to compaction.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use macp_runtime::log_store::LogStore;
use macp_runtime::mode_registry::ModeRegistry;
use macp_runtime::pb::macp_runtime_service_server::MacpRuntimeServiceServer;
use macp_runtime::policy::DefaultPolicyEvaluator;
use macp_runtime::policy::registry::PolicyRegistry;
use macp_runtime::recovery::recover_sessions;
use macp_runtime::registry::SessionRegistry;
use macp_runtime::runtime::Runtime;
use macp_runtime::security::SecurityLayer;
use macp_runtime::server::MacpServer;
use macp_runtime::storage::{
    FileBackend, MemoryBackend, StorageBackend, cleanup_temp_files, migrate_if_needed,
};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

/// The token by which this process observes.
pub(crate) const OBSERVER_TOKEN: &str = "dev-control-plane";
/// Agents that may start and join sessions; the token of each is `dev-` and its name.
pub(crate) const AGENTS: [&str; 4] = ["alice", "bob", "carol", "dave"];

/// The published runtime's own defaults.
const MAX_STREAMS: u32 = 128;
const MAX_CONCURRENT_CALLS: usize = 64;
const MAX_MESSAGE_BYTES: usize = 1024 * 1024 + 64 * 1024;
const MAINTENANCE_EVERY: Duration = Duration::from_secs(60);
const KEEP_IN_MEMORY_SECONDS: u64 = 3600;
/// Streams never end by themselves, so a drain needs an end.
const DRAIN: Duration = Duration::from_secs(2);

/// A running runtime.
pub(crate) struct Embedded {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    stop: CancellationToken,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
    maintenance: JoinHandle<()>,
    /// Where sessions are kept; `None` in memory.
    durable: Option<(Arc<dyn StorageBackend>, Arc<SessionRegistry>)>,
}

impl Embedded {
    /// Drains, and stores what it knows.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        let Self { address: _, stop, mut serving, maintenance, durable } = self;
        stop.cancel();
        if tokio::time::timeout(DRAIN, &mut serving).await.is_err() {
            serving.abort();
        }
        maintenance.abort();
        let Some((storage, registry)) = durable else { return Ok(()) };
        for session in registry.get_all_sessions().await {
            storage.save_session(&session).await.context("the embedded runtime's sessions")?;
        }
        Ok(())
    }
}

/// Starts a runtime on `listen` (port 0 picks one) that keeps its sessions in `data_dir`, or in
/// memory.
///
/// # Errors
/// When `listen` is not loopback or taken, or when the data cannot be read.
pub(crate) async fn start(listen: SocketAddr, data_dir: Option<&Path>) -> anyhow::Result<Embedded> {
    ensure!(
        listen.ip().is_loopback(),
        "the embedded runtime's tokens are public: it listens on loopback only, not on {listen}"
    );
    let registry = Arc::new(SessionRegistry::new());
    let log = Arc::new(LogStore::new());
    let modes = Arc::new(ModeRegistry::build_default(Arc::new(DefaultPolicyEvaluator)));
    let policies = Arc::new(PolicyRegistry::new());
    let storage: Arc<dyn StorageBackend> = match data_dir {
        Some(directory) => {
            let backend = file_backend(directory).with_context(|| {
                format!("the embedded runtime's data in {}", directory.display())
            })?;
            recover_sessions(&backend, &registry, &log, &modes, &policies, false)
                .await
                .context("the embedded runtime's sessions")?;
            Arc::new(backend)
        }
        None => Arc::new(MemoryBackend),
    };
    let durable = data_dir.map(|_| (Arc::clone(&storage), Arc::clone(&registry)));
    let runtime = Runtime::with_registries(storage, registry, log, modes, policies)
        .with_compact_terminal_logs(false);
    let runtime = Arc::new(runtime);
    let security = SecurityLayer::dev_mode()
        .with_static_tokens(&tokens())
        .map_err(|error| anyhow!("the embedded runtime's tokens: {error}"))?;
    let service = MacpRuntimeServiceServer::new(MacpServer::new(Arc::clone(&runtime), security))
        .max_decoding_message_size(MAX_MESSAGE_BYTES);

    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("the embedded runtime cannot listen on {listen}"))?;
    let address = listener.local_addr()?;
    let stop = CancellationToken::new();
    let serving = tokio::spawn(
        Server::builder()
            .concurrency_limit_per_connection(MAX_CONCURRENT_CALLS)
            .max_concurrent_streams(Some(MAX_STREAMS))
            .add_service(service)
            .serve_with_incoming_shutdown(
                TcpListenerStream::new(listener),
                stop.clone().cancelled_owned(),
            ),
    );
    let maintenance = tokio::spawn(maintain(runtime));
    tracing::info!(%address, "Embedded runtime listens");
    Ok(Embedded { address, stop, serving, maintenance, durable })
}

fn file_backend(directory: &Path) -> std::io::Result<FileBackend> {
    std::fs::create_dir_all(directory)?;
    migrate_if_needed(directory)?;
    cleanup_temp_files(directory);
    FileBackend::new(directory.to_owned())
}

/// Expires what is overdue, settles deadlines, and forgets what ended long ago.
async fn maintain(runtime: Arc<Runtime>) {
    let mut ticks = tokio::time::interval(MAINTENANCE_EVERY);
    loop {
        ticks.tick().await;
        runtime.cleanup_expired_sessions().await;
        // After the expiry: what is overdue in both ways expires.
        runtime.sweep_due_synthetic_accepts().await;
        runtime.evict_stale_sessions(KEEP_IN_MEMORY_SECONDS).await;
    }
}

fn tokens() -> String {
    let observer = json!({
        "token": OBSERVER_TOKEN,
        "sender": "control-plane",
        "is_observer": true,
        "can_start_sessions": false,
    });
    let agents = AGENTS.map(|name| json!({ "token": format!("dev-{name}"), "sender": name }));
    let all: Vec<_> = [observer].into_iter().chain(agents).collect();
    json!({ "tokens": all }).to_string()
}

#[cfg(test)]
mod tests {
    use control_plane_domain::runtime::Runtime as _;
    use control_plane_runtime::{Client, Config, Secret};
    use control_plane_testkit::agent::{Agent, SessionSpec};
    use control_plane_testkit::message;

    use super::*;

    fn client(embedded: &Embedded, token: &str) -> Client {
        let mut config = Config::new(embedded.address.to_string());
        config.bearer_token = Some(Secret::new(token));
        Client::new(&config).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_observer_is_let_in_and_a_stranger_is_not() {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let embedded = start(listen, None).await.unwrap();

        let observer = client(&embedded, OBSERVER_TOKEN);
        let known = observer.list_sessions(None).await;
        let stranger = client(&embedded, "guess").list_sessions(None).await;

        assert_eq!(observer.initialize().await.unwrap().version, "0.13.0");
        assert!(known.is_ok());
        assert!(stranger.is_err());
        embedded.stop().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_agents_said_survives_a_restart() {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let directory = tempfile::tempdir().unwrap();
        let first = start(listen, Some(directory.path())).await.unwrap();
        let address = first.address.to_string();
        let alice = Agent::connect(&address, "alice", "dev-alice").await;
        let spec = SessionSpec::new(message::DECISION, &["alice"]);
        alice.start_session(&spec).await;
        first.stop().await.unwrap();

        let second = start(listen, Some(directory.path())).await.unwrap();
        let session = client(&second, OBSERVER_TOKEN).get_session(&spec.session_id).await.unwrap();

        assert_eq!(session.initiator, "alice");
        second.stop().await.unwrap();
    }

    #[tokio::test]
    async fn it_never_listens_beyond_loopback() {
        let listen = SocketAddr::from(([0, 0, 0, 0], 0));
        assert!(start(listen, None).await.is_err());
    }
}
