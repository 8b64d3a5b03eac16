//! A PostgreSQL server of the test's own, which it may stop, restart and give certificates to.
//!
//! **Invariant:** the server is stopped and removed when its [`Cluster`] goes out of scope.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test's failure is a panic")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::runtime::free_port;

/// The user that a server runs as when we are root, which PostgreSQL refuses to be run by.
const NOBODY: (u32, &str) = (65534, "nobody");

/// How a server is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Connections are ended, and what was committed is written out.
    Fast,
    /// As a crash does: its processes are just ended, and the next start recovers.
    Immediate,
}

impl Stop {
    fn mode(self) -> &'static str {
        match self {
            Self::Fast => "--mode=fast",
            Self::Immediate => "--mode=immediate",
        }
    }
}

/// A running server. It is stopped and removed when it goes out of scope.
pub struct Cluster {
    folder: TempDir,
    bin: PathBuf,
    port: u16,
}

impl Cluster {
    /// Starts a server with these `files` in its data folder and these lines in its configuration.
    ///
    /// # Panics
    /// When there is no PostgreSQL, here and below, or it does not do as it is told.
    pub fn start(files: &[(&str, &str)], settings: &str) -> Self {
        let folder = TempDir::with_prefix("macp-cluster-").unwrap();
        let cluster = Self { folder, bin: binaries(), port: free_port() };
        let port = cluster.port;
        own(cluster.folder.path(), 0o755);
        let data = cluster.data();
        cluster.run(
            "initdb",
            &["--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-sync", "--pgdata"],
            &data,
        );
        for (name, content) in files {
            let path = data.join(name);
            fs::write(&path, content).unwrap();
            own(&path, 0o600);
        }
        let configuration = data.join("postgresql.conf");
        let lines = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = ''\n\
             fsync = off\n{settings}\n"
        );
        let before = fs::read_to_string(&configuration).unwrap();
        fs::write(&configuration, before + &lines).unwrap();
        cluster.start_again();
        cluster
    }

    /// The URL of its database, at `host`, with this `query`.
    pub fn url(&self, host: &str, query: &str) -> String {
        format!("postgres://postgres@{host}:{}/postgres?{query}", self.port)
    }

    /// Stops it and starts it again.
    pub fn restart(&self) {
        self.control(&["restart", "--mode=fast"]);
    }

    /// Stops it.
    pub fn stop(&self, how: Stop) {
        self.control(&["stop", how.mode()]);
    }

    /// Starts it after [`Cluster::stop`].
    pub fn start_again(&self) {
        self.control(&["start"]);
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn control(&self, what: &[&str]) {
        let log = self.folder.path().join("log");
        let log = log.to_str().unwrap();
        let rest = ["--silent", "--wait", "--log", log, "--pgdata"];
        self.run("pg_ctl", &[what, &rest].concat(), &self.data());
    }

    fn run(&self, program: &str, arguments: &[&str], data: &Path) {
        let output = self.command(program).args(arguments).arg(data).output().unwrap();
        assert!(output.status.success(), "{program} failed: {}", text(&output));
    }

    fn command(&self, program: impl AsRef<Path>) -> Command {
        let program = self.bin.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command
                .args(["--reuid", NOBODY.1, "--regid", "nogroup", "--clear-groups"])
                .arg(program);
            command
        } else {
            Command::new(program)
        };
        command
            .current_dir(self.folder.path())
            .env_clear()
            .env("LC_ALL", "C")
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let stop = ["stop", "--silent", "--wait", "--mode=immediate", "--pgdata"];
        drop(self.command("pg_ctl").args(stop).arg(self.data()).output());
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// Gives a file to the user that the server runs as.
fn own(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    if is_root() {
        chown(path, Some(NOBODY.0), Some(NOBODY.0)).unwrap();
    }
}

/// Where PostgreSQL's programs are: the newest of Debian's, or what is on the path.
fn binaries() -> PathBuf {
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    versions.sort_by_key(|bin| {
        let version = bin.parent().and_then(Path::file_name).and_then(OsStr::to_str);
        version.and_then(|version| version.parse::<u32>().ok())
    });
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).find(|bin| bin.join("initdb").exists());
    let found = versions.pop().or(on_path);
    found.expect("PostgreSQL's initdb is needed, in /usr/lib/postgresql/*/bin or on the path")
}
