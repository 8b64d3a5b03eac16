//! Named measurements against a real server process and the real runtime, one line of JSON each.
//! `cargo xtask bench [scenario…] [--quick]` builds and runs them; no test asserts a figure.
#![expect(clippy::print_stdout, reason = "figures go to standard output")]
#![expect(clippy::indexing_slicing, reason = "a JSON value gives null for what is not there")]

use std::env;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};
use control_plane_testkit::database::{Kind, TestDb};
use control_plane_testkit::process::ServerProcess;
use control_plane_testkit::runtime::{OBSERVER_TOKEN, RuntimeProcess};
use serde_json::json;

mod dashboard;
mod export;
mod fanout;
mod idle;
mod ingest;
mod latency;
mod many;
mod replay;
mod streams;
mod swarm;

use fanout::Load;

const SCENARIOS: [&str; 14] = [
    "ingest",
    "latency",
    "rapid",
    "fanout_200",
    "fanout_2000",
    "backlog",
    "idle_memory",
    "idle_streams",
    "replay_state",
    "export",
    "sessions",
    "quiet_runs",
    "reattach",
    "dashboard",
];

/// How long a measurement may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    Full,
    /// About a second each: shows that the measurement works, and nothing about speed.
    Quick,
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut size = Size::Full;
    let mut wanted = Vec::new();
    for argument in env::args().skip(1) {
        match argument.as_str() {
            "--quick" => size = Size::Quick,
            name if SCENARIOS.contains(&name) => wanted.push(argument),
            other => bail!("there is no scenario `{other}`, only {SCENARIOS:?} and `--quick`"),
        }
    }
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|other| other == name);

    for kind in Kind::ALL {
        if is_wanted("ingest") {
            report("ingest", ingest::measure(kind, size).await?, "envelopes/s", kind);
        }
        if is_wanted("latency") {
            let latency::Figures { median, high } = latency::measure(kind, size).await?;
            report("latency_p50", median, "ms", kind);
            report("latency_p99", high, "ms", kind);
        }
        for (name, load) in loads(size) {
            if is_wanted(name) {
                let latency::Figures { median, high } = fanout::measure(kind, load).await?;
                report(&format!("{name}_p50"), median, "ms", kind);
                report(&format!("{name}_p99"), high, "ms", kind);
            }
        }
        if is_wanted("backlog") {
            report("backlog", streams::backlog(kind, size).await?, "frames/s", kind);
        }
        if is_wanted("replay_state") {
            let (median, slowest) = replay::measure(kind, size).await?;
            report("replay_state_p50", median, "ms", kind);
            report("replay_state_max", slowest, "ms", kind);
        }
        if is_wanted("export") {
            for figures in export::measure(kind, size).await? {
                let of = |name: &str| format!("export_{}_{name}", figures.shape);
                report(&of("first_byte"), figures.first_byte_ms, "ms", kind);
                report(&of("whole"), figures.seconds, "s", kind);
                report(&of("rate"), figures.megabytes_per_second, "MB/s", kind);
                report(&of("memory"), figures.memory, "MiB", kind);
                for (task, effort) in [("verify", figures.verified), ("import", figures.imported)] {
                    report(&format!("{task}_{}_whole", figures.shape), effort.seconds, "s", kind);
                    report(&format!("{task}_{}_memory", figures.shape), effort.memory, "MiB", kind);
                }
            }
        }
        if is_wanted("sessions") {
            let (sessions, seconds) = many::heard(kind, size).await?;
            report("sessions", sessions, "sessions", kind);
            report("sessions_all_heard", seconds, "s", kind);
        }
        if is_wanted("quiet_runs") {
            report("quiet_runs", many::quiet(kind, size).await?, "KiB/run", kind);
        }
        if is_wanted("reattach") {
            report("reattach", many::reattach(kind, size).await?, "s", kind);
        }
        // What is measured is PostgreSQL: one process has no SQLite of two million events to share.
        if is_wanted("dashboard") && kind == Kind::Postgres {
            for (name, figure) in dashboard::measure(size).await? {
                report(&name, figure, "ms", kind);
            }
        }
        if is_wanted("idle_memory") {
            report("idle_memory", idle::measure(kind).await?, "MiB", kind);
        }
        if is_wanted("idle_streams") {
            report("idle_streams", streams::idle(kind, size).await?, "MiB", kind);
        }
    }
    Ok(())
}

/// One subscriber at 1,000 envelopes a second, and many at 20.
fn loads(size: Size) -> [(&'static str, Load); 3] {
    let load = |subscribers, envelopes, millis| Load {
        subscribers: if size == Size::Full { subscribers } else { subscribers.min(20) },
        envelopes: if size == Size::Full { envelopes } else { envelopes / 10 },
        every: Duration::from_millis(millis),
    };
    [
        ("rapid", load(1, 10_000, 1)),
        ("fanout_200", load(200, 200, 50)),
        ("fanout_2000", load(2000, 200, 50)),
    ]
}

/// A server that observes this runtime and stores into this database.
async fn serve(runtime: &RuntimeProcess, database: &TestDb) -> ServerProcess {
    let command = ServerProcess::serve()
        .env("DATABASE_URL", database.url())
        .env("RUNTIME_ADDRESS", runtime.address())
        .env("RUNTIME_BEARER_TOKEN", OBSERVER_TOKEN)
        .env("SESSION_DISCOVERY_ENABLED", "false")
        .env("LOG_LEVEL", "warn");
    command.start().await
}

fn report(scenario: &str, figure: f64, unit: &str, kind: Kind) {
    let database = match kind {
        Kind::Postgres => "postgres",
        Kind::Sqlite => "sqlite",
    };
    let figure = (figure * 100.0).round() / 100.0;
    let line = json!({
        "scenario": scenario,
        "figure": figure,
        "unit": unit,
        "database": database,
        "commit": commit(),
    });
    println!("{line}");
}

fn commit() -> String {
    let output = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.ok().filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}
