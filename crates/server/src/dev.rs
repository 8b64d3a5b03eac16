//! `macp-control-plane dev`: everything in one process, for development.

/// Without the real runtime compiled in there is nothing to develop against.
#[cfg(not(feature = "embedded-runtime"))]
#[expect(clippy::unused_async, reason = "the same signature as with the feature")]
pub(crate) async fn dev() -> anyhow::Result<std::process::ExitCode> {
    anyhow::bail!(
        "`dev` needs the real runtime compiled in, and this binary was built without it. \
         `cargo xtask demo` builds and starts one that has it; by hand it is \
         `cargo build -p control-plane-server --features embedded-runtime`, \
         with PROTOC naming a protobuf compiler"
    )
}

#[cfg(feature = "embedded-runtime")]
pub(crate) use with_runtime::dev;

#[cfg(feature = "embedded-runtime")]
mod with_runtime {
    use std::fmt::Write as _;
    use std::io::Write as _;
    use std::net::{Ipv4Addr, SocketAddr};
    use std::path::Path;
    use std::process::ExitCode;

    use anyhow::Context as _;

    use crate::config::Config;
    use crate::embedded::{self, AGENTS, Embedded, OBSERVER_TOKEN};
    use crate::{logging, serve};

    /// Where the runtime listens if it can: agents' examples name this port.
    const RUNTIME_PORT: u16 = 50051;
    /// Where the embedded runtime keeps its sessions.
    const RUNTIME_DATA: &str = "data/runtime";

    /// Serves with an embedded runtime until a signal.
    pub(crate) async fn dev() -> anyhow::Result<ExitCode> {
        // The runtime's own address is not known yet, and not needed to start logging.
        let (config, _) = Config::read(|name| setting(name, None))?;
        logging::start(&config.log)?;
        let runtime = start_runtime().await?;
        let address = runtime.address;
        let (config, warnings) = Config::read(|name| setting(name, Some(address)))?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        let served = serve::serve_then(config, |http| {
            // With standard output gone there is nobody left to tell.
            let _ = std::io::stdout().write_all(welcome(http, address).as_bytes());
        })
        .await;
        runtime.stop().await.context("stopping the embedded runtime")?;
        served
    }

    /// `MACP_DEV_RUNTIME_PORT` decides; otherwise the usual port, or any that is free.
    async fn start_runtime() -> anyhow::Result<Embedded> {
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let data = Path::new(RUNTIME_DATA);
        if let Ok(port) = std::env::var("MACP_DEV_RUNTIME_PORT") {
            let port = port.parse().context("MACP_DEV_RUNTIME_PORT must be a port")?;
            return embedded::start(at(port), Some(data)).await;
        }
        let free = std::net::TcpListener::bind(at(RUNTIME_PORT)).is_ok();
        embedded::start(at(if free { RUNTIME_PORT } else { 0 }), Some(data)).await
    }

    /// The environment, over development's defaults, under what the embedded runtime decides.
    fn setting(name: &str, runtime: Option<SocketAddr>) -> Option<String> {
        match name {
            "APP_ENV" => Some("development".to_owned()),
            "RUNTIME_ADDRESS" => runtime.map(|address| address.to_string()),
            "RUNTIME_BEARER_TOKEN" => Some(OBSERVER_TOKEN.to_owned()),
            "RUNTIME_TLS" | "RUNTIME_TLS_CA_FILE" => None,
            _ => std::env::var(name).ok(),
        }
    }

    fn welcome(http: SocketAddr, runtime: SocketAddr) -> String {
        let mut text = format!(
            "\nThe control plane serves http://{http} (no API key needed)\n\
             A MACP runtime serves grpc://{runtime} with these tokens:\n"
        );
        for name in AGENTS {
            // Writing to memory does not fail.
            let _ = writeln!(text, "  {name:<6} dev-{name}");
        }
        let _ = writeln!(
            text,
            "\nTry:\n  curl -s http://{http}/runs\n  curl -s http://{http}/runtime/modes\n  \
             curl -N 'http://{http}/runs/RUN_OR_SESSION_ID/stream?afterSeq=0'\n\
             Ctrl-C stops it; what it recorded is in ./data\n"
        );
        text
    }
}
