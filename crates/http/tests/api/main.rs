//! The API through a real server on a real SQLite database; only the runtime is a stand-in.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test's helpers fail as the test does"
)]

mod batch;
mod breaker;
mod compare;
mod compression;
mod delete;
mod feed;
mod filing;
mod leaving;
mod lifecycle;
mod limits;
mod raw;
mod replay;
mod requests;
mod runs;
mod stream;
mod support;
mod tickets;
mod watchers;
