//! The server as a process of its own, so that it can be killed, stopped and started again.
//!
//! **Invariant:** a process never outlives its [`ServerProcess`], and when a wait fails, the end of
//! its log is in the panic.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::panicking;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::runtime::free_port;
use crate::wait::DEADLINE;

const PAUSE: Duration = Duration::from_millis(10);
/// How much of a log a panic shows.
const TAIL_LINES: usize = 60;

/// How a server is started.
#[derive(Debug, Clone)]
pub struct ServerCommand {
    task: &'static str,
    settings: BTreeMap<String, String>,
    folder: Option<PathBuf>,
}

impl ServerCommand {
    /// Sets a variable of its environment, which is empty but for what a process needs.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.settings.insert(name.to_owned(), value.to_string());
        self
    }

    /// The folder that it runs in; a temporary one if none is given.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Starts it and waits until `/readyz` says 200.
    ///
    /// # Panics
    /// When it cannot be started, or is not ready in a minute.
    pub async fn start(self) -> ServerProcess {
        let mut server = self.spawn();
        server.wait_until_ready(DEADLINE).await;
        server
    }

    /// Starts it without waiting.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(self) -> ServerProcess {
        let own = TempDir::with_prefix("macp-server-")
            .unwrap_or_else(|error| panic!("no temporary folder: {error}"));
        let port = match self.settings.get("PORT") {
            Some(port) => port.parse().unwrap_or_else(|_| panic!("PORT={port} is no port")),
            None => free_port(),
        };
        let log = own.path().join("server.log");
        let mut server = ServerProcess { command: self, port, log, own: Some(own), child: None };
        server.launch();
        server
    }
}

/// A running server, or one that was stopped and can be started again at the same port.
#[derive(Debug)]
pub struct ServerProcess {
    command: ServerCommand,
    port: u16,
    log: PathBuf,
    own: Option<TempDir>,
    child: Option<Child>,
}

impl ServerProcess {
    /// `macp-control-plane serve` on 127.0.0.1, in development.
    pub fn serve() -> ServerCommand {
        Self::task("serve")
    }

    /// `macp-control-plane dev`: with an embedded runtime.
    pub fn dev() -> ServerCommand {
        Self::task("dev")
    }

    fn task(task: &'static str) -> ServerCommand {
        ServerCommand { task, settings: BTreeMap::new(), folder: None }
            .env("APP_ENV", "development")
            .env("HOST", "127.0.0.1")
            .env("RUST_BACKTRACE", "1")
    }

    /// Where it answers, without a slash at the end.
    pub fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The URL of a path that begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base_url())
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The id of the process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Everything that it logged so far, over all its starts.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until `/readyz` says 200.
    ///
    /// # Panics
    /// When it ends by itself, or is not ready within `deadline`.
    pub async fn wait_until_ready(&mut self, deadline: Duration) {
        let client = crate::http_client();
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) = self.exit_status() {
                self.fail(&format!("the server ended by itself ({status})"));
            }
            let answer = client.get(self.url("/readyz")).timeout(Duration::from_secs(5));
            let ready = answer.send().await.is_ok_and(|answer| answer.status().as_u16() == 200);
            // An answer may come from a stranger on our port; ours has then failed to listen.
            if ready && self.exit_status().is_none() {
                return;
            }
            if Instant::now() > end {
                self.fail(&format!("the server was not ready within {deadline:?}"));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Ends it as `kill -9` does, in the middle of whatever it does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Asks it to end (SIGTERM), and returns its exit code.
    ///
    /// # Panics
    /// When it does not run, or has not ended within `deadline`, or not by itself.
    pub async fn terminate(&mut self, deadline: Duration) -> i32 {
        self.signal("TERM");
        self.ended(deadline).await
    }

    /// Sends it a signal: `STOP` freezes it, `CONT` lets it go on.
    ///
    /// # Panics
    /// When it does not run.
    pub fn signal(&self, name: &str) {
        let Some(pid) = self.pid() else { self.fail("the server does not run") };
        // The shell's own `kill`: small systems have no other.
        let sent = Command::new("/bin/sh").args(["-c", &format!("kill -{name} {pid}")]).status();
        assert!(sent.is_ok_and(|status| status.success()), "SIG{name} could not be sent to {pid}");
    }

    /// Waits until it has ended by itself, and returns its exit code.
    ///
    /// # Panics
    /// When it does not end within `deadline`.
    pub async fn ended(&mut self, deadline: Duration) -> i32 {
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) = self.exit_status() {
                self.child = None;
                return status
                    .code()
                    .unwrap_or_else(|| self.fail(&format!("the server was killed ({status})")));
            }
            if Instant::now() > end {
                self.fail(&format!("the server did not end within {deadline:?}"));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Starts it again at the same port with the same settings (after killing it, if it still
    /// runs) and waits until it is ready.
    ///
    /// # Panics
    /// When it is not ready in a minute.
    pub async fn restart(&mut self) {
        self.start_again();
        self.wait_until_ready(DEADLINE).await;
    }

    /// The same without waiting.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_again(&mut self) {
        self.kill();
        self.launch();
    }

    /// `GET path`: the status and the JSON body, `null` if there is none.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.send(crate::http_client().get(self.url(path))).await
    }

    /// `POST path` with a JSON body.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.send(crate::http_client().post(self.url(path)).json(body)).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        let answer = match request.timeout(DEADLINE).send().await {
            Ok(answer) => answer,
            Err(error) => self.fail(&format!("the server does not answer: {error}")),
        };
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap_or_default();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    fn launch(&mut self) {
        let program = program();
        let own = self.own.as_ref().map(TempDir::path);
        let folder = self.command.folder.as_deref().or(own).unwrap_or(Path::new("."));
        let log = open_log(&self.log);
        let error_log = log.try_clone().unwrap_or_else(|error| panic!("no log: {error}"));
        let mut command = Command::new(&program);
        command.arg(self.command.task).current_dir(folder).env_clear();
        for name in ["PATH", "HOME", "TMPDIR"] {
            command.envs(env::var_os(name).map(|value| (name, value)));
        }
        command.envs(&self.command.settings).env("PORT", self.port.to_string());
        command.stdin(Stdio::null()).stdout(log).stderr(error_log);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{} cannot be started: {error}", program.display()));
        self.child = Some(child);
    }

    fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().ok().flatten()
    }

    fn fail(&self, why: &str) -> ! {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(TAIL_LINES)..).unwrap_or_default();
        panic!("{why}; the end of its log:\n{}", tail.join("\n"))
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.kill();
        if panicking()
            && let Some(own) = self.own.take()
        {
            crate::say(&format!("the server's log is kept in {}", own.keep().display()));
        }
    }
}

fn open_log(path: &Path) -> File {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap_or_else(|error| panic!("{} cannot be opened: {error}", path.display()))
}

/// The server's executable: `MACP_CONTROL_PLANE_BIN`, or the one that cargo built last.
///
/// # Panics
/// When there is none.
pub fn program() -> PathBuf {
    if let Some(path) = env::var_os("MACP_CONTROL_PLANE_BIN") {
        return PathBuf::from(path);
    }
    // Tests run from `target/<profile>/deps`.
    let built = env::current_exe().ok().and_then(|test| {
        let profile = test.parent()?.parent()?;
        Some(profile.join("macp-control-plane"))
    });
    match built {
        Some(path) if path.is_file() => path,
        Some(_) | None => panic!(
            "there is no server to start: run `cargo xtask test`, or `cargo build --bin \
             macp-control-plane`, or set MACP_CONTROL_PLANE_BIN"
        ),
    }
}
