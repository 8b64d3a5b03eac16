//! How to reach a runtime, checked before anything is called.
//!
//! **Invariant:** a secret has no `Debug` and leaves this module only as a header that is marked
//! sensitive.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use control_plane_domain::trace::Tracer;
use tonic::codegen::http::HeaderValue;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use crate::authorized::Credentials;
use crate::minter::Minter;

/// A window of one stream. Small, so that a stalled stream takes little of its connection's.
const STREAM_WINDOW: u32 = 64 * 1024;
const UNARY_STREAM_WINDOW: u32 = 1024 * 1024;
const UNARY_CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;
/// The protocol's own limit is one less than 2 GiB.
const MAX_WINDOW: u32 = 1 << 30;

const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a runtime is, and who we are there.
#[derive(Clone)]
pub struct Config {
    /// `host:port`; with `http://` or `https://` in front if you like. `https://` implies TLS.
    pub address: String,
    /// TLS, when the runtime serves it.
    pub tls: Option<Tls>,
    /// The observer's token.
    pub bearer_token: Option<Secret>,
    /// Where short-lived tokens come from; they go before `bearer_token`, which then counts only
    /// if the minter is to fall back on it.
    pub minter: Option<Minter>,
    /// The deadline of a unary call, and of opening a stream.
    pub request_timeout: Duration,
    /// The deadline of a TCP connect, and of a TLS handshake.
    pub connect_timeout: Duration,
    /// How many streams a connection carries. The runtime allows 128, and a call above its limit
    /// waits without a word, so stay well below.
    pub max_streams_per_connection: usize,
    /// After how many failures in a row unary calls are not made any more for a while; at least 1.
    pub breaker_threshold: u32,
    /// For how long.
    pub breaker_cool_down: Duration,
    /// Where the spans of calls within a trace go; without it there is none.
    pub tracer: Option<Arc<dyn Tracer>>,
}

impl Config {
    /// The runtime at `address`, without TLS and without a token.
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            tls: None,
            bearer_token: None,
            minter: None,
            request_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            max_streams_per_connection: 100,
            breaker_threshold: 5,
            breaker_cool_down: Duration::from_secs(30),
            tracer: None,
        }
    }

    /// The endpoint for unary calls.
    pub(crate) fn unary_endpoint(&self) -> Result<Endpoint, ConfigError> {
        Ok(self
            .endpoint()?
            .initial_stream_window_size(UNARY_STREAM_WINDOW)
            .initial_connection_window_size(UNARY_CONNECTION_WINDOW))
    }

    /// The endpoint for streams: its connection window has room for each stream's, so that
    /// streams that nobody reads cannot stop the others.
    pub(crate) fn stream_endpoint(&self) -> Result<Endpoint, ConfigError> {
        let streams = u32::try_from(self.max_streams_per_connection).unwrap_or(u32::MAX);
        let connection = STREAM_WINDOW.saturating_mul(streams.saturating_add(1)).min(MAX_WINDOW);
        Ok(self
            .endpoint()?
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(connection))
    }

    /// Who we are.
    pub(crate) fn credentials(&self) -> Result<Credentials, ConfigError> {
        let token = self.authorization()?;
        Ok(match (&self.minter, token) {
            (Some(minter), token) => Credentials::Minted {
                minter: minter.clone(),
                fallback: token.filter(|_| minter.config().fall_back),
            },
            (None, Some(token)) => Credentials::Static(token),
            (None, None) => Credentials::Nobody,
        })
    }

    /// The static token as a header.
    fn authorization(&self) -> Result<Option<HeaderValue>, ConfigError> {
        let Some(Secret(token)) = &self.bearer_token else { return Ok(None) };
        let Ok(mut value) = HeaderValue::try_from(format!("Bearer {token}")) else {
            return Err(ConfigError::Token);
        };
        value.set_sensitive(true);
        Ok(Some(value))
    }

    fn endpoint(&self) -> Result<Endpoint, ConfigError> {
        if self.max_streams_per_connection == 0 {
            return Err(ConfigError::NoStreams);
        }
        let (host, https) = match self.address.split_once("://") {
            Some(("http", host)) => (host, false),
            Some(("https", host)) => (host, true),
            Some(_) => return Err(ConfigError::Scheme { address: self.address.clone() }),
            None => (self.address.as_str(), false),
        };
        let scheme = if https || self.tls.is_some() { "https" } else { "http" };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{host}"))
            .map_err(|source| ConfigError::Address { address: self.address.clone(), source })?
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true);
        match (&self.tls, https) {
            (Some(tls), _) => self.with_tls(endpoint, tls.ca_file.as_deref()),
            (None, true) => self.with_tls(endpoint, None),
            (None, false) => Ok(endpoint),
        }
    }

    /// The system's roots and the given ones. Where the system has none (a minimal image), the
    /// given ones have to do.
    fn with_tls(&self, endpoint: Endpoint, ca: Option<&Path>) -> Result<Endpoint, ConfigError> {
        let tls = ClientTlsConfig::new().timeout(self.connect_timeout);
        let Some(path) = ca else {
            return endpoint.tls_config(tls.with_native_roots()).map_err(ConfigError::Tls);
        };
        let pem = fs::read(path)
            .map_err(|source| ConfigError::CaFile { path: path.to_owned(), source })?;
        if !String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----") {
            return Err(ConfigError::NoCertificate { path: path.to_owned() });
        }
        let tls = tls.ca_certificate(Certificate::from_pem(pem));
        endpoint
            .clone()
            .tls_config(tls.clone().with_native_roots())
            .or_else(|_| endpoint.tls_config(tls))
            .map_err(ConfigError::Tls)
    }
}

/// TLS to the runtime: the system's roots, and those of a file.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// More roots, as PEM.
    pub ca_file: Option<PathBuf>,
}

/// A text that must not be printed.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Takes the text out of sight.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// Why a [`Config`] cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The address names no host.
    #[error("the runtime's address {address:?} is not `host:port`")]
    Address {
        /// As it was given.
        address: String,
        #[source]
        source: tonic::transport::Error,
    },
    /// The address has a scheme that we don't speak.
    #[error("the runtime's address {address:?} is neither http nor https")]
    Scheme {
        /// As it was given.
        address: String,
    },
    /// The token has characters that a header cannot carry.
    #[error("the runtime's bearer token has characters that a header cannot carry")]
    Token,
    /// The file of roots cannot be read.
    #[error("the CA file {} cannot be read", path.display())]
    CaFile {
        /// Which file.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The file of roots has none.
    #[error("the CA file {} has no PEM certificate", path.display())]
    NoCertificate {
        /// Which file.
        path: PathBuf,
    },
    /// TLS cannot be set up: no roots, or bad ones.
    #[error("TLS to the runtime cannot be set up")]
    Tls(#[source] tonic::transport::Error),
    /// A connection that may carry no stream is of no use.
    #[error("at least one stream per connection is needed")]
    NoStreams,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_with_and_without_a_scheme() {
        for (address, uri) in [
            ("127.0.0.1:50051", "http://127.0.0.1:50051/"),
            ("http://runtime:50051", "http://runtime:50051/"),
            ("[::1]:50051", "http://[::1]:50051/"),
        ] {
            let endpoint = Config::new(address).unary_endpoint().unwrap();
            assert_eq!(endpoint.uri().to_string(), uri);
        }
    }

    #[test]
    fn what_cannot_work_is_refused_before_anything_is_called() {
        let mut no_streams = Config::new("runtime:1");
        no_streams.max_streams_per_connection = 0;
        let mut no_file = Config::new("runtime:1");
        no_file.tls = Some(Tls { ca_file: Some(PathBuf::from("/nowhere/ca.pem")) });
        let mut bad_token = Config::new("runtime:1");
        bad_token.bearer_token = Some(Secret::new("a\nb"));

        assert!(matches!(no_streams.unary_endpoint(), Err(ConfigError::NoStreams)));
        assert!(matches!(no_file.stream_endpoint(), Err(ConfigError::CaFile { .. })));
        assert!(matches!(bad_token.authorization(), Err(ConfigError::Token)));
        let scheme = Config::new("ftp://runtime").unary_endpoint();
        assert!(matches!(scheme, Err(ConfigError::Scheme { .. })));
        let address = Config::new("not an address").unary_endpoint();
        assert!(matches!(address, Err(ConfigError::Address { .. })));
    }

    #[test]
    fn the_token_is_marked_sensitive() {
        let mut config = Config::new("runtime:1");
        config.bearer_token = Some(Secret::new("hush"));

        let header = config.authorization().unwrap().unwrap();

        assert_eq!(header.to_str().unwrap(), "Bearer hush");
        assert!(!format!("{header:?}").contains("hush"));
    }
}
