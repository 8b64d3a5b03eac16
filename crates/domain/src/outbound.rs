//! The port to HTTP servers elsewhere: whoever a client names (a cancel callback), or an operator.
//!
//! **Invariant:** every call says how long it may take and how much of its answer is wanted, so
//! that nobody waits or reads without a bound. A call holds secrets and has no `Debug`.

use std::time::Duration;

use async_trait::async_trait;

/// Sends `POST` requests. Redirects are not followed: they are answers like others.
#[async_trait]
pub trait Outbound: Send + Sync + 'static {
    /// Makes one call, once.
    async fn post(&self, call: Call) -> Result<Answer, OutboundError>;
}

/// A `POST` of a JSON body.
pub struct Call {
    /// `http` or `https`.
    pub url: String,
    /// Besides those that HTTP itself wants.
    pub headers: Vec<(&'static str, String)>,
    /// JSON.
    pub body: Vec<u8>,
    /// For all of it, from the name's resolution to the last byte that is read.
    pub timeout: Duration,
    /// How many bytes of the answer's body are read; the rest is not waited for.
    pub wanted: usize,
}

/// What came back.
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The first bytes of the body, at most as many as were wanted.
    pub body: Vec<u8>,
}

impl Answer {
    /// Whether the status is one of success.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Why there is no answer. The texts name no address: whoever aims a call must not learn from it
/// what is in our network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutboundError {
    /// The URL is not one that can be called.
    #[error("the URL {0}")]
    Url(&'static str),
    /// The host is not on the internet, and no allow-list opens it.
    #[error("calls to {host} are not allowed")]
    Forbidden {
        /// As the URL names it.
        host: String,
    },
    /// No connection, or one that broke.
    #[error("{host} cannot be reached: {detail}")]
    Unreachable {
        /// As the URL names it.
        host: String,
        /// For people.
        detail: String,
    },
    /// The time was over.
    #[error("{host} did not answer within {} ms", limit.as_millis())]
    Timeout {
        /// As the URL names it.
        host: String,
        /// How long the call could take.
        limit: Duration,
    },
}
