//! The clients that people use, against the real server: browsers, curl, Python, a proxy between.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "clippy takes only functions with `#[test]` for tests, not what they call"
)]

mod browser;
mod curl;
mod python;

#[path = "../support/mod.rs"]
mod support;

/// `1..=last`, which is what every client must have seen.
fn all(last: i64) -> Vec<i64> {
    (1..=last).collect()
}
