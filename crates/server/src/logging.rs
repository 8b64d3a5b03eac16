//! Logs: JSON in production, readable in development.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

/// How to log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogConfig {
    /// A level, or directives such as `info,control_plane_http=debug`.
    pub(crate) filter: String,
    pub(crate) format: Format,
}

/// Who reads the logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// A program: one JSON object per line.
    Json,
    /// A person.
    Readable,
}

/// Starts logging to standard error.
pub(crate) fn start(config: &LogConfig) -> anyhow::Result<()> {
    // What the HTTP server says of its workers is of use to nobody who did not ask for it.
    let filter = parse(&format!("actix_server=warn,{}", config.filter)).context("LOG_LEVEL")?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let started = match config.format {
        Format::Json => subscriber
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .try_init(),
        Format::Readable => subscriber.compact().try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("logging cannot be started: {error}"))
}

/// Reads `LOG_LEVEL`.
pub(crate) fn parse(text: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    EnvFilter::builder().parse(text)
}
