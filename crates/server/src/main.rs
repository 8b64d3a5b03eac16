//! The binary `macp-control-plane`: configuration, wiring and signals.
//!
//! **Invariant:** no logic. What a request or an envelope means is decided in the crates below;
//! here their parts are put together, started in order and stopped in the opposite one.

mod bundle;
mod config;
mod database;
mod dev;
#[cfg(feature = "embedded-runtime")]
mod embedded;
mod figures;
mod logging;
mod open_files;
mod serve;
mod signals;
mod telemetry;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Config;

/// Follows coordination sessions on a MACP runtime. Configured by the environment alone.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the API and follow runs.
    Serve,
    /// Bring the database's schema up to this version.
    Migrate {
        /// Take every migration back instead: the data is gone then.
        #[arg(long)]
        revert: bool,
    },
    /// Check a run's bundle offline: whether it is what was exported.
    Verify(bundle::VerifyArguments),
    /// Load a run's bundle into the database, to be read only. The server need not run.
    Import {
        /// The bundle; `-` for standard input.
        file: PathBuf,
    },
    /// Serve with an embedded database and a real runtime in this process, for development.
    Dev,
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Serve => with_config(environment, serve::serve).await,
        Command::Migrate { revert } => {
            with_config(environment, move |config| database::migrate(config, revert)).await
        }
        Command::Verify(arguments) => return bundle::verify(arguments),
        Command::Import { file } => {
            with_config(environment, move |config| bundle::import(config, file)).await
        }
        Command::Dev => dev::dev().await,
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Reads the configuration, starts logging and goes on.
async fn with_config<F>(
    lookup: impl Fn(&str) -> Option<String>,
    work: impl FnOnce(Config) -> F,
) -> anyhow::Result<ExitCode>
where
    F: Future<Output = anyhow::Result<ExitCode>>,
{
    let (config, warnings) = Config::read(lookup)?;
    logging::start(&config.log)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    work(config).await
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Says on standard error why nothing was started; logging may not be there yet.
fn complain(message: &str) {
    // With standard error gone there is nobody left to tell.
    let _ = writeln!(std::io::stderr(), "macp-control-plane: {message}");
}
