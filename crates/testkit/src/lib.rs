//! What tests need and nothing ships: databases, a server process, SSE clients of our own and
//! everybody's, real agents.
//!
//! **Invariant:** everything cleans up after itself when a test passes, and leaves what explains
//! the failure when it does not. Waits are for conditions and have deadlines.

use std::io::Write;

pub mod agent;
pub mod auth;
pub mod browser;
pub mod cluster;
pub mod curl;
pub mod database;
pub mod document;
pub mod link;
pub mod listener;
pub mod message;
pub mod network;
pub mod nginx;
pub mod pages;
pub mod play;
pub mod process;
pub mod program;
pub mod receipts;
pub mod runtime;
pub mod script;
pub mod scripted;
pub mod sse;
pub mod tls;
pub mod vectors;

mod postgres;
mod wait;

pub use wait::{DEADLINE, wait_for, wait_until};

/// A client that talks to 127.0.0.1 itself, whatever proxy the machine has.
fn http_client() -> reqwest::Client {
    let client = reqwest::Client::builder().no_proxy().build();
    client.unwrap_or_else(|error| panic!("no HTTP client: {error}"))
}

/// A line for whoever reads the output of a failed test.
fn say(line: &str) {
    // A closed standard error must not turn into a second panic.
    drop(writeln!(std::io::stderr(), "{line}"));
}
