//! What a server that has nothing to do keeps in memory.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use control_plane_testkit::database::{Kind, TestDb};
use control_plane_testkit::runtime::RuntimeProcess;

use crate::serve;

/// Long enough for what starts late.
const SETTLE: Duration = Duration::from_secs(1);

/// Resident memory in MiB.
pub(crate) async fn measure(kind: Kind) -> Result<f64> {
    let runtime = RuntimeProcess::in_memory().await;
    let database = TestDb::new(kind);
    let server = serve(&runtime, &database).await;
    tokio::time::sleep(SETTLE).await;
    resident(server.pid().context("the server does not run")?)
}

/// The resident memory of a process in MiB.
pub(crate) fn resident(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .context("resident memory is read from /proc, which only Linux has")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kibibytes: u32 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(f64::from(kibibytes) / 1024.0)
}
