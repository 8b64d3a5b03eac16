//! A PostgreSQL for the tests: the one that is named, or a cluster that lives as long as the task.
//!
//! **Invariant:** the cluster ends with this process, however this process ends. A shell keeps it
//! and waits for its standard input to close, which not even `kill -9` of ours can prevent.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio, id};
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{env, iter};

use anyhow::{Context, Result, bail};

use crate::packages::{self, is_root};
use crate::shell::capture;

const START_DEADLINE: Duration = Duration::from_secs(60);

/// Keeps the server running until standard input closes, then removes every trace of it.
/// `$1`: the folder of the executables, `$2`: the cluster's folder, `$3`: the port.
const KEEPER: &str = r#"
trap : INT TERM HUP
"$1/postgres" -D "$2/data" -k "$2" -h 127.0.0.1 -p "$3" -c max_connections=300 \
    >"$2/server.log" 2>&1 </dev/null &
cat >/dev/null
"$1/pg_ctl" -D "$2/data" -m immediate stop >/dev/null 2>&1
wait
rm -rf "$2"
"#;

/// A PostgreSQL server that answers.
#[derive(Debug)]
pub(crate) struct Postgres {
    url: String,
    /// `None` for a server that was there already.
    keeper: Option<Child>,
}

impl Postgres {
    /// The server of `TEST_DATABASE_URL`, or a cluster of our own.
    pub(crate) fn ensure() -> Result<Self> {
        if let Ok(url) = env::var("TEST_DATABASE_URL")
            && !url.is_empty()
        {
            return Ok(Self { url, keeper: None });
        }
        let programs = match find_programs() {
            Some(programs) => programs,
            None => install()?,
        };
        Self::start(&programs)
    }

    /// Where it answers.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    fn start(programs: &Path) -> Result<Self> {
        let account = Account::find()?;
        let folder = create_folder(account.as_ref())?;
        let as_account = |program: &Path| match &account {
            Some(account) => account.run(program),
            None => Command::new(program),
        };

        let mut initdb = as_account(&programs.join("initdb"));
        initdb.current_dir(&folder).arg("--pgdata").arg(folder.join("data"));
        initdb.args(["--username", "postgres", "--auth", "trust", "--encoding", "UTF8"]);
        let output = initdb.args(["--locale", "C", "--no-sync"]).output();
        let output = output.context("`initdb` could not be started")?;
        if !output.status.success() {
            bail!("`initdb` failed: {}", String::from_utf8_lossy(&output.stderr));
        }

        let port = free_port()?;
        let mut keeper = as_account(Path::new("/bin/sh"));
        keeper.current_dir(&folder).args(["-c", KEEPER, "keeper"]);
        keeper.arg(programs).arg(&folder).arg(port.to_string());
        let keeper = keeper.stdin(Stdio::piped()).spawn().context("`sh` could not be started")?;
        let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
        let cluster = Self { url, keeper: Some(keeper) };
        wait_until_ready(&folder)?;
        println!("PostgreSQL answers at {}", cluster.url);
        Ok(cluster)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            // The keeper does the rest; waiting only keeps the next task from overtaking it.
            drop(keeper.wait());
        }
    }
}

/// The account that runs the server when we are root, which PostgreSQL refuses to be.
#[derive(Debug)]
struct Account {
    name: &'static str,
    user: u32,
    group: u32,
}

impl Account {
    /// `None` when we are not root and need no other account.
    fn find() -> Result<Option<Self>> {
        if !is_root() {
            return Ok(None);
        }
        for name in ["postgres", "nobody"] {
            let number = |flag| capture("id", &[flag, name]).and_then(|text| text.parse().ok());
            if let (Some(user), Some(group)) = (number("-u"), number("-g")) {
                return Ok(Some(Self { name, user, group }));
            }
        }
        bail!("PostgreSQL does not run as root, and there is no account `postgres` or `nobody`")
    }

    fn run(&self, program: &Path) -> Command {
        let mut command;
        if capture("setpriv", &["--version"]).is_some() {
            command = Command::new("setpriv");
            command.arg(format!("--reuid={}", self.user));
            command.arg(format!("--regid={}", self.group)).args(["--clear-groups", "--"]);
        } else {
            command = Command::new("runuser");
            command.args(["-u", self.name, "--"]);
        }
        command.arg(program);
        command
    }
}

/// The folder that has both `initdb` and `postgres`.
fn find_programs() -> Option<PathBuf> {
    let search_path = env::var_os("PATH").unwrap_or_default();
    let configured = capture("pg_config", &["--bindir"]).map(PathBuf::from);
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry.file_name().to_string_lossy().parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort();
    let newest_first = versions.into_iter().rev().map(|(_, folder)| folder);
    env::split_paths(&search_path)
        .chain(configured)
        .chain(newest_first)
        .chain(iter::once(PathBuf::from("/usr/local/bin")))
        .find(|folder| {
            ["initdb", "pg_ctl", "postgres"].iter().all(|name| folder.join(name).is_file())
        })
}

fn install() -> Result<PathBuf> {
    const ADVICE: &str = "the tests need PostgreSQL 14 or newer: install it (Debian: `apt-get \
        install postgresql`), or set TEST_DATABASE_URL to a server where databases may be created";
    packages::install(&["postgresql"], ADVICE)?;
    find_programs().context(ADVICE)
}

fn create_folder(account: Option<&Account>) -> Result<PathBuf> {
    let name = |attempt: u32| format!("macp-postgres-{}-{attempt}", id());
    let folders = (0..100).map(|attempt| env::temp_dir().join(name(attempt)));
    for folder in folders {
        match fs::DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => {
                if let Some(Account { user, group, .. }) = account {
                    chown(&folder, Some(*user), Some(*group))?;
                }
                return Ok(folder);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("cannot create {folder:?}")),
        }
    }
    bail!("cannot create a folder for PostgreSQL under {:?}", env::temp_dir())
}

/// Below the range from which systems take the ports of outgoing connections: none of those can
/// take it between our look and the server's.
fn free_port() -> Result<u16> {
    let seed = u16::try_from(id() % 10_000)?;
    (0..100)
        .map(|attempt| 10_000 + (seed + attempt * 97) % 10_000)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .context("no free port on 127.0.0.1")
}

/// The server writes its state into its own lock file.
fn wait_until_ready(folder: &Path) -> Result<()> {
    let deadline = Instant::now() + START_DEADLINE;
    while Instant::now() < deadline {
        let lock = fs::read_to_string(folder.join("data/postmaster.pid")).unwrap_or_default();
        if lock.lines().any(|line| line.trim() == "ready") {
            return Ok(());
        }
        sleep(Duration::from_millis(20));
    }
    let log = fs::read_to_string(folder.join("server.log")).unwrap_or_default();
    bail!("PostgreSQL did not start within {START_DEADLINE:?}:\n{log}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Stand-ins that show only what we rely on: a server that says when it is ready, and ends
    /// when it is told to.
    const STAND_INS: &[(&str, &str)] = &[
        ("initdb", "mkdir -p \"$2\""),
        ("postgres", "echo $$ >\"$2/pid\"; echo ready >\"$2/postmaster.pid\"; exec sleep 600"),
        ("pg_ctl", "kill \"$(cat \"$2/pid\")\""),
    ];

    fn stand_ins() -> PathBuf {
        let folder = env::temp_dir().join(format!("macp-stand-ins-{}", id()));
        fs::create_dir_all(&folder).unwrap();
        for (name, script) in STAND_INS {
            let path = folder.join(name);
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        folder
    }

    fn clusters() -> usize {
        let ours = format!("macp-postgres-{}-", id());
        let entries = fs::read_dir(env::temp_dir()).unwrap().filter_map(Result::ok);
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&ours)).count()
    }

    #[test]
    fn a_cluster_ends_with_its_keeper_and_leaves_nothing_behind() {
        let programs = stand_ins();

        let cluster = Postgres::start(&programs).unwrap();
        let during = clusters();
        drop(cluster);

        assert_eq!((during, clusters()), (1, 0));
        fs::remove_dir_all(programs).unwrap();
    }
}
