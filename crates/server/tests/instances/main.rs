//! Several processes on one PostgreSQL database: any of them serves any run, whichever dies.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "clippy takes only functions with `#[test]` for tests, not what they call"
)]

#[path = "../support/mod.rs"]
mod support;

mod fleet;
mod killed;
mod sharing;
mod watcher;
