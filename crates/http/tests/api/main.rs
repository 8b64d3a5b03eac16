//! The API through a real server on a real SQLite database; only the runtime is a stand-in.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test's helpers fail as the test does"
)]

mod artifacts;
mod batch;
mod breaker;
mod compare;
mod completeness;
mod compression;
mod dashboard;
mod delete;
mod export;
mod feed;
mod filing;
mod imports;
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
mod verification;
mod watchers;
