//! The checks and the tests, in the order in which they are cheapest.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::postgres::Postgres;
use crate::shell::{capture, cargo, run, target};
use crate::{layers, packages, runtime, sdk, tidy};

/// Everything at once and the embedded runtime with it, so that all test builds share one set of
/// compiled crates.
const EVERYTHING: &[&str] = &["--workspace", "--features", "control-plane-server/embedded-runtime"];

/// Every check that is not a test.
pub(crate) fn ci() -> Result<()> {
    run(&mut cargo(&["fmt", "--all", "--check"]))?;
    layers::check()?;
    tidy::check()?;
    // First without the embedded runtime, which shows that building needs no `protoc`.
    run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    let mut clippy = with_everything(&["clippy"])?;
    run(clippy.args(["--all-targets", "--", "-D", "warnings"]))?;
    run(cargo(&["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))?;
    schema()
}

/// Holds `schema.rs` against freshly migrated databases of both kinds.
pub(crate) fn schema() -> Result<()> {
    let postgres = Postgres::ensure()?;
    let mut test = with_everything(&["test"])?;
    run(test.args(["--test", "schema"]).env("TEST_DATABASE_URL", postgres.url()))
}

/// Every test; with filters, those that match.
pub(crate) fn test(filters: &[String]) -> Result<()> {
    let clients = packages::ensure(packages::CLIENTS)?;
    let python = clients.iter().find(|(variable, _)| *variable == "PYTHON_BIN");
    let python = python.map_or_else(|| PathBuf::from("python3"), |(_, path)| path.clone());
    let sdk = sdk::ensure(&python)?;
    let postgres = Postgres::ensure()?;
    let runtime = runtime::ensure()?;
    let prepare = |mut command: Command| {
        command
            .envs(clients.iter().map(|(variable, path)| (variable, path)))
            .env("TEST_DATABASE_URL", postgres.url())
            .env("MACP_RUNTIME_BIN", &runtime)
            .env(sdk::VARIABLE, &sdk)
            .env("MACP_CONTROL_PLANE_BIN", target().join("debug").join("macp-control-plane"));
        command
    };
    // Tests start the server as a process of its own, and kill it.
    run(with_everything(&["build"])?.args(["--bin", "macp-control-plane"]))?;

    // Before the others, so that the last line is the one that counts them.
    if filters.is_empty() {
        run(&mut prepare(with_everything(&["test", "--doc"])?))?;
    }
    let nextest = capture("cargo", &["nextest", "--version"]).is_some();
    let runner: &[&str] = if nextest { &["nextest", "run"] } else { &["test"] };
    let mut tests = prepare(with_everything(runner)?);
    tests.arg("--no-fail-fast");
    if !nextest {
        // Doc tests have run, on their own.
        tests.args(["--all-targets", "--"]);
    }
    run(tests.args(filters))?;
    Ok(())
}

/// Runs the server's own `migrate`, so that there is one way to migrate.
pub(crate) fn migrate(database_url: Option<&str>, revert: bool) -> Result<()> {
    let mut command = cargo(&["run", "--quiet", "--package", "control-plane-server", "--"]);
    command.arg("migrate").env("APP_ENV", "development");
    if let Some(url) = database_url {
        command.env("DATABASE_URL", url);
    }
    if revert {
        command.arg("--revert");
    }
    run(&mut command)
}

fn with_everything(task: &[&str]) -> Result<Command> {
    let mut command = cargo(task);
    command.args(EVERYTHING).env("PROTOC", runtime::protoc()?);
    Ok(command)
}
