//! Real runtimes: the published `macp-runtime` binary as a child process.
//!
//! **Invariant:** a missing binary fails the test and never skips it; a child does not outlive its
//! [`RuntimeProcess`].

#![expect(clippy::expect_used, reason = "a test's failure is a panic")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use std::{env, fs};

use control_plane_domain::runtime::Runtime;
use control_plane_runtime::{Client, Config, Secret};
use serde_json::json;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::agent::Cast;

/// The token of `control-plane`: it observes and cannot start sessions.
pub const OBSERVER_TOKEN: &str = "observer-token";
/// Agents that have a token ([`agent_token`]). Alice may register policies.
pub const AGENTS: [&str; 4] = ["alice", "bob", "carol", "dave"];

const READY_WITHIN: Duration = Duration::from_secs(30);
const POLL_EVERY: Duration = Duration::from_millis(20);

/// The token of one of [`AGENTS`].
pub fn agent_token(name: &str) -> String {
    format!("{name}-token")
}

/// What a runtime forgets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Everything when it stops, nothing before.
    MemoryOnly,
    /// Nothing.
    KeepsHistory,
    /// The history of a session the moment it ends: the published default.
    CompactsEndedSessions,
}

/// How to start a runtime.
#[derive(Debug, Clone)]
pub struct Options {
    /// In memory by default.
    pub durability: Durability,
    /// More settings; they win over ours.
    pub environment: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self::new(Durability::MemoryOnly)
    }
}

impl Options {
    /// With limits that no test reaches.
    pub fn new(durability: Durability) -> Self {
        Self { durability, environment: Vec::new() }
    }

    /// With one more setting.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A running runtime.
pub struct RuntimeProcess {
    options: Options,
    port: u16,
    home: TempDir,
    /// Counts the data directories, so that an empty one is a new one.
    generation: u32,
    child: Option<Child>,
}

impl RuntimeProcess {
    /// Starts one and waits until it answers.
    pub async fn start(options: Options) -> Self {
        let home = tempfile::tempdir().expect("a directory for the runtime");
        fs::write(home.path().join("tokens.json"), tokens()).expect("the tokens are written");
        let mut process = Self { options, port: free_port(), home, generation: 0, child: None };
        let mut attempts = 0;
        // Somebody may have taken the port between our look and the child's.
        while let Err(log) = process.launch().await {
            attempts += 1;
            assert!(attempts < 5, "the runtime does not start:\n{log}");
            process.port = free_port();
        }
        process
    }

    /// One in memory.
    pub async fn in_memory() -> Self {
        Self::start(Options::default()).await
    }

    /// `host:port`; the same after a restart.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The settings of a client that observes it.
    pub fn client_config(&self) -> Config {
        let mut config = Config::new(self.address());
        config.bearer_token = Some(Secret::new(OBSERVER_TOKEN));
        config
    }

    /// A client that observes it.
    pub fn client(&self) -> Client {
        Client::new(&self.client_config()).expect("the settings are good")
    }

    /// Its agents.
    pub async fn cast(&self) -> Cast {
        Cast::connect(&self.address()).await
    }

    /// Where it keeps its data and its log.
    pub fn folder(&self) -> &Path {
        self.home.path()
    }

    /// SIGKILL: no farewell, and what was not written is gone.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.expect("a child of ours can be killed");
        }
    }

    /// SIGTERM: it drains, which ends streams without an error, and goes.
    pub async fn terminate(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        signal(&child, "TERM").await;
        let gone = tokio::time::timeout(READY_WITHIN, child.wait()).await;
        gone.expect("the runtime goes when told to").expect("a child of ours can be waited for");
    }

    /// SIGSTOP: it hangs, with its connections open, and answers nothing.
    pub async fn pause(&self) {
        signal(self.child.as_ref().expect("the runtime runs"), "STOP").await;
    }

    /// SIGCONT: it goes on where it hung.
    pub async fn go_on(&self) {
        signal(self.child.as_ref().expect("the runtime runs"), "CONT").await;
    }

    /// Starts it again on the same port, with what it kept. Kills it first if it runs.
    pub async fn restart(&mut self) {
        self.kill().await;
        let deadline = Instant::now() + READY_WITHIN;
        while let Err(log) = self.launch().await {
            assert!(Instant::now() < deadline, "the runtime does not start again:\n{log}");
        }
    }

    /// The same with all data lost.
    pub async fn restart_empty(&mut self) {
        self.generation += 1;
        self.restart().await;
    }

    /// One try; what the child said when it fails.
    async fn launch(&mut self) -> Result<(), String> {
        let log = self.home.path().join("runtime.log");
        let output = fs::File::options().create(true).append(true).open(&log);
        let output = output.expect("the log can be written");
        let errors = output.try_clone().expect("a file handle can be copied");
        let mut command = Command::new(binary());
        command
            .env_clear()
            .env("MACP_BIND_ADDR", self.address())
            .env("MACP_ALLOW_INSECURE", "1")
            .env("MACP_AUTH_TOKENS_FILE", self.home.path().join("tokens.json"))
            .env("MACP_SESSION_START_LIMIT_PER_MINUTE", "1000000")
            .env("MACP_MESSAGE_LIMIT_PER_MINUTE", "100000000")
            .env("MACP_SHUTDOWN_DRAIN_SECS", "1")
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .current_dir(self.home.path())
            .kill_on_drop(true);
        let data = self.home.path().join(format!("data-{}", self.generation));
        match self.options.durability {
            Durability::MemoryOnly => command.env("MACP_MEMORY_ONLY", "1"),
            Durability::KeepsHistory => {
                command.env("MACP_DATA_DIR", data).env("MACP_COMPACT_TERMINAL_LOGS", "0")
            }
            Durability::CompactsEndedSessions => command.env("MACP_DATA_DIR", data),
        };
        command.envs(self.options.environment.iter().map(|(name, value)| (name, value)));
        let mut child = command.spawn().expect("the runtime's binary can be started");

        let mut config = self.client_config();
        // It is asked until it is there, whatever that looks like.
        config.breaker_threshold = u32::MAX;
        let client = Client::new(&config).expect("the settings are good");
        let deadline = Instant::now() + READY_WITHIN;
        while client.initialize().await.is_err() {
            let exited = child.try_wait().expect("a child of ours can be asked").is_some();
            if exited || Instant::now() > deadline {
                return Err(fs::read_to_string(&log).unwrap_or_default());
            }
            sleep(POLL_EVERY).await;
        }
        // An answer may come from a stranger on our port; our child has then failed to bind.
        match child.try_wait().expect("a child of ours can be asked") {
            None => {
                self.child = Some(child);
                Ok(())
            }
            Some(_) => Err(fs::read_to_string(&log).unwrap_or_default()),
        }
    }
}

async fn signal(child: &Child, name: &str) {
    let pid = child.id().expect("the child was not waited for");
    let command = format!("kill -{name} {pid}");
    let status = Command::new("sh").args(["-c", &command]).status().await;
    assert!(status.expect("sh runs").success(), "SIG{name} was not sent");
}

/// A free port below the ones that the system gives to outgoing connections, so that it is still
/// free when a server comes back to it.
pub(crate) fn free_port() -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u128 = 12_000;
    for _ in 0..1000 {
        let offset = u16::try_from(Uuid::new_v4().as_u128() % COUNT).unwrap_or_default();
        if TcpListener::bind(("127.0.0.1", FIRST + offset)).is_ok() {
            return FIRST + offset;
        }
    }
    panic!("no port is free")
}

fn tokens() -> String {
    let observer = json!({
        "token": OBSERVER_TOKEN,
        "sender": "control-plane",
        "is_observer": true,
        "can_start_sessions": false,
    });
    let agents = AGENTS.map(|name| {
        json!({
            "token": agent_token(name),
            "sender": name,
            "can_manage_mode_registry": name == "alice",
        })
    });
    let all: Vec<_> = [observer].into_iter().chain(agents).collect();
    json!({ "tokens": all }).to_string()
}

/// `MACP_RUNTIME_BIN`, or where xtask installs it.
fn binary() -> PathBuf {
    let path = env::var_os("MACP_RUNTIME_BIN").map_or_else(
        || {
            let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
            workspace.join("target/macp-runtime/bin/macp-runtime")
        },
        PathBuf::from,
    );
    assert!(
        path.is_file(),
        "the runtime's binary is not at {}: run the tests by `cargo xtask test`, which installs it",
        path.display()
    );
    path
}
