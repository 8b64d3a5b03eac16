//! The client against the real runtime, against a scripted one, and over TLS.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test's failure is a panic")]

mod breaker;
mod common;
mod credentials;
mod measured;
mod plays;
mod real;
mod scripted;
mod tls;
