//! The client of a MACP runtime: [`Client`] implements the domain's `Runtime` port over gRPC.
//!
//! **Invariant:** it only observes. No call that changes the runtime exists here, streams never
//! exceed what a connection may carry, and nothing waits without a deadline but a stream that is
//! open.

pub mod proto;

mod client;
mod config;
mod convert;
mod error;
mod pool;
mod stream;

pub use client::Client;
pub use config::{Config, ConfigError, Secret, Tls};
