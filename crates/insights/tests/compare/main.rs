//! Comparing runs: what must hold of every two, and what is said of some.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test's helpers fail as the test does"
)]

mod examples;
mod metamorphic;
mod support;
mod talks;
