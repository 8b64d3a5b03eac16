//! The client of a MACP runtime: [`Client`] implements the domain's `Runtime` port over gRPC.
//!
//! **Invariant:** it says nothing in a session: no call exists here that sends an envelope. Streams
//! never exceed what a connection may carry, and nothing waits without a deadline but a stream that
//! is open.

pub mod proto;

mod authorized;
mod breaker;
mod client;
mod codec;
mod config;
mod convert;
mod error;
mod guard;
mod minter;
mod pool;
mod stream;
mod traced;

pub use client::Client;
pub use config::{Config, ConfigError, Secret, Tls};
pub use minter::{MintError, Minter, MinterConfig};
