//! `cargo xtask`: what cargo cannot say by itself, from the checks to the demo.
//!
//! **Invariant:** whatever a task starts ends with it, and nothing is skipped in silence: what a
//! task needs is there, is brought, or is named in the error.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool talks to its user"
)]

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod checks;
mod layers;
mod packages;
mod play;
mod postgres;
mod runtime;
mod sdk;
mod shell;
mod tidy;

/// The tasks of this workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Builds and starts everything, plays a Decision between real agents and shows the stream.
    Demo {
        /// End when the decision is made, with exit code 0 if all was as expected.
        #[arg(long)]
        once: bool,
        /// Use the dev profile, which the tests have built already.
        #[arg(long)]
        debug: bool,
    },
    /// Every test, on both databases, with the real runtime and real clients.
    Test {
        /// Passed on to the test runner.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        filters: Vec<String>,
    },
    /// Every check that is not a test, cheapest first.
    Ci,
    /// Brings a database to the newest schema, or takes every migration back.
    Migrate {
        /// The database; `DATABASE_URL` if it is not given.
        #[arg(long)]
        database_url: Option<String>,
        /// Take every migration back: the data is gone then.
        #[arg(long)]
        revert: bool,
    },
    /// Holds `schema.rs` against freshly migrated databases.
    Schema {
        /// The only thing to do so far; required, so that others can come.
        #[arg(long, required = true)]
        check: bool,
    },
    /// Holds the crates' dependencies against the layers.
    Layers,
    /// Holds the files against the house rules that no lint knows.
    Tidy,
    /// The named measurements, one line of JSON each.
    Bench {
        /// Scenarios and options, `--quick` among them (the dev profile, about a second each).
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Kills servers and runtimes at random while agents talk, checks that nothing is lost, and
    /// prints a report.
    Crash {
        /// `--rounds N`, `--seed S`, `--database sqlite|postgres|both`, `--jobs N`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Builds the real MACP runtime under `target/`, if it is not there yet.
    Runtime,
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Demo { once, debug } => play::demo(once, debug),
        Task::Test { filters } => checks::test(&filters),
        Task::Ci => checks::ci(),
        Task::Migrate { database_url, revert } => checks::migrate(database_url.as_deref(), revert),
        Task::Schema { check: _ } => checks::schema(),
        Task::Layers => layers::check(),
        Task::Tidy => tidy::check(),
        Task::Bench { arguments } => play::bench(&arguments),
        Task::Crash { arguments } => play::crash(&arguments),
        Task::Runtime => {
            println!("{}", runtime::ensure()?.display());
            Ok(())
        }
    }
}
