//! Signals and progress reach the run that they are about, once each, whenever they were sent and
//! whoever heard them; and when nobody did, that is said.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "clippy takes only functions with `#[test]` for tests, not what they call"
)]

#[path = "../support/mod.rs"]
mod support;

mod burst;
mod correlation;
mod doubtful;
mod figures;
mod gaps;
mod held;
mod several;

use control_plane_domain::{CanonicalEvent, RunId, RunState, SessionId};
use control_plane_storage::Store;
use control_plane_testkit::agent::{Agent, Cast, SessionSpec};
use control_plane_testkit::{DEADLINE, message, wait_for};
use serde_json::json;
use support::Rig;

/// Alice opens a Decision.
async fn open(cast: &Cast, session: &SessionId) -> String {
    let spec = SessionSpec::new(message::DECISION, &["alice", "bob", "carol"]).with_id(session);
    cast.alice.start_session(&spec).await
}

/// A run that follows a Decision; and what was accepted in it.
async fn running(rig: &Rig, cast: &Cast) -> (SessionId, RunId, Vec<String>) {
    let session = SessionId::random();
    let run = rig.post(&session, message::DECISION).await;
    let accepted = vec![open(cast, &session).await];
    rig.reaches(run, RunState::Running).await;
    rig.has_recorded(run, 1).await;
    (session, run, accepted)
}

/// Sends a signal about a session; its message id.
async fn tell(agent: &Agent, session: &SessionId, what: &str) -> String {
    agent.signal(message::signal(what, session.as_str(), &json!({}))).await
}

/// The message ids of the signals and the progress in a run's log, in their order.
async fn told(rig: &Rig, run: RunId) -> Vec<String> {
    let is_signal = |event: &CanonicalEvent| {
        matches!(event.event_type.as_str(), "signal.emitted" | "progress.reported")
    };
    let events = rig.events(run).await.into_iter().filter(is_signal);
    events.map(|event| event.data["messageId"].as_str().unwrap().to_owned()).collect()
}

/// Waits until exactly these are in a run's log, in any order, and nothing is left to do.
async fn is_told(rig: &Rig, run: RunId, ids: &[String]) {
    let sorted = |mut ids: Vec<String>| {
        ids.sort();
        ids
    };
    let wanted = sorted(ids.to_vec());
    let ask = async || {
        let left = rig.store.inbox_list(run).await.unwrap().len();
        (sorted(told(rig, run).await), left)
    };
    let found = wait_for(DEADLINE, ask, |(told, left)| *left == 0 && *told == wanted).await;
    assert_eq!(found, (wanted, 0));
}

/// Waits until so many signals are held.
async fn holds(rig: &Rig, signals: i64) {
    let ask = async || rig.store.signals_held().await.unwrap();
    wait_for(DEADLINE, ask, |held| *held == signals).await;
}

/// Waits until the engine listens, and has the duty to record.
async fn records(rig: &Rig) {
    records_in(&rig.store).await;
}

/// The same of any engine on a database.
async fn records_in(store: &Store) {
    let ask = async || store.signal_watch().await.unwrap();
    wait_for(DEADLINE, ask, |watch| watch.last_heard_at.is_some()).await;
}
