//! Sessions that nobody registered: each gets a run, once, whoever finds it and whoever posts it.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "clippy takes only functions with `#[test]` for tests, not what they call"
)]

#[path = "../support/mod.rs"]
mod support;

mod adoption;
mod drift;
mod found;
mod instances;
mod many;

use std::time::Duration;

use control_plane_domain::SessionId;
use control_plane_recovery::Config;
use control_plane_testkit::agent::{Cast, SessionSpec};
use control_plane_testkit::message::{self, Outcome};
use support::config;

/// The engine looks for sessions, and lists them often.
fn discovering() -> Config {
    Config { discovery_enabled: true, sweep: Duration::from_millis(200), ..config() }
}

/// A Decision among three.
fn spec(session: &SessionId) -> SessionSpec {
    SessionSpec::new(message::DECISION, &["alice", "bob", "carol"]).with_id(session)
}

/// Opens a Decision with one proposal, and returns what was accepted.
async fn opened(cast: &Cast, session: &SessionId) -> Vec<String> {
    let start = cast.alice.start_session(&spec(session)).await;
    let proposal = message::decision::proposal("p1", "deploy");
    vec![start, cast.alice.say(session, message::DECISION, proposal).await]
}

/// Votes and commits.
async fn ended(cast: &Cast, session: &SessionId, accepted: &mut Vec<String>) {
    let vote = message::decision::vote("p1", "APPROVE");
    accepted.push(cast.alice.say(session, message::DECISION, vote).await);
    let commitment = message::commitment("p1", "decision.selected", Outcome::Positive);
    accepted.push(cast.alice.say(session, message::DECISION, commitment).await);
}
