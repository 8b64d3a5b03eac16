//! The demo, the measurements and the crash harness: each builds the server, then hands over to an
//! example of the test kit that talks to it.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::postgres::Postgres;
use crate::runtime;
use crate::shell::{cargo, run, target};

/// How it is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Profile {
    Dev,
    Release,
}

impl Profile {
    fn folder(self) -> PathBuf {
        target().join(match self {
            Self::Dev => "debug",
            Self::Release => "release",
        })
    }
}

/// Builds the server with an embedded runtime and plays the demo.
pub(crate) fn demo(once: bool, debug: bool) -> Result<()> {
    let profile = if debug { Profile::Dev } else { Profile::Release };
    println!("Building (a few minutes the first time)");
    build("demo", profile)?;
    let mut demo = example("demo", profile);
    if once {
        demo.arg("--once");
    }
    // Replaced by the demo: Ctrl-C then goes to it alone, and its exit code is ours.
    Err(hand_over(&mut demo)).context("the demo could not be started")
}

/// Builds the server and measures it.
pub(crate) fn bench(arguments: &[String]) -> Result<()> {
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let profile = if quick { Profile::Dev } else { Profile::Release };
    let runtime = runtime::ensure()?;
    build("bench", profile)?;
    let postgres = Postgres::ensure()?;
    let mut bench = example("bench", profile);
    bench.args(arguments).env("MACP_RUNTIME_BIN", runtime);
    run(bench.env("TEST_DATABASE_URL", postgres.url()))
}

/// Builds the server and kills it, again and again. The dev profile, whose crates the tests have
/// built already, and which is as slow as a machine that is busy.
pub(crate) fn crash(arguments: &[String]) -> Result<()> {
    let runtime = runtime::ensure()?;
    build("crash", Profile::Dev)?;
    let postgres = Postgres::ensure()?;
    let mut crash = example("crash", Profile::Dev);
    crash.args(arguments).env("MACP_RUNTIME_BIN", runtime);
    run(crash.env("TEST_DATABASE_URL", postgres.url()))
}

fn build(name: &str, profile: Profile) -> Result<()> {
    let mut build = cargo(&["build", "--workspace"]);
    build.args(["--features", "control-plane-server/embedded-runtime"]);
    build.args(["--bin", "macp-control-plane", "--example", name]);
    if profile == Profile::Release {
        build.arg("--release");
    }
    run(build.env("PROTOC", runtime::protoc()?))
}

fn example(name: &str, profile: Profile) -> Command {
    let mut example = Command::new(profile.folder().join("examples").join(name));
    example.env("MACP_CONTROL_PLANE_BIN", profile.folder().join("macp-control-plane"));
    example
}

fn hand_over(command: &mut Command) -> io::Error {
    command.exec()
}
