//! What the agents say: whether to release on a Friday.

use std::time::Duration;

use control_plane_domain::SessionId;
use control_plane_testkit::agent::{Agent, SessionSpec};
use control_plane_testkit::message::{self, DECISION, Message, Outcome, decision};

/// Who takes part; the first one opens the session and commits.
pub(crate) const AGENTS: [&str; 3] = ["alice", "bob", "carol"];

struct Scene<'a> {
    session: &'a SessionId,
    pause: Duration,
}

/// Plays it to its end. Agents speak gRPC to the runtime and know nothing of the control plane.
/// The vote begins when `read` says that the reports were read.
pub(crate) async fn decision(
    runtime: &str,
    session: &SessionId,
    pause: Duration,
    read: impl Future<Output = bool>,
) {
    // `dev` gives each of its agents such a token.
    let connect = async |name: &str| Agent::connect(runtime, name, &format!("dev-{name}")).await;
    let [alice, bob, carol] =
        [connect("alice").await, connect("bob").await, connect("carol").await];
    let mut spec = SessionSpec::new(DECISION, &AGENTS).with_id(session);
    spec.intent = "Release version 2 this week?".to_owned();
    alice.start_session(&spec).await;

    let scene = Scene { session, pause };
    scene.say(&alice, decision::proposal("friday", "release on Friday")).await;
    scene.say(&bob, decision::proposal("monday", "release on Monday")).await;
    // Progress and the use of language models travel beside the session, as ambient messages.
    scene.say(&bob, message::progress("review", 3.0, 4.0, "3 of 4 checks are done")).await;
    bob.signal(message::llm_call(session.as_str(), "reviewer-large", 1840, 212)).await;
    scene.say(&bob, decision::evaluation("friday", "REVIEW", 0.55)).await;
    scene.say(&carol, decision::evaluation("monday", "APPROVE", 0.9)).await;
    scene.say(&carol, decision::objection("friday", "medium")).await;
    // Without them the vote goes on all the same; that they are missing is told at the end.
    read.await;
    scene.say(&alice, decision::vote("monday", "APPROVE")).await;
    scene.say(&bob, decision::vote("monday", "APPROVE")).await;
    scene.say(&carol, decision::vote("monday", "APPROVE")).await;
    let commitment = message::commitment("monday", "decision.selected", Outcome::Positive);
    scene.say(&alice, commitment).await;
}

impl Scene<'_> {
    async fn say(&self, agent: &Agent, message: Message) {
        tokio::time::sleep(self.pause).await;
        agent.say(self.session, DECISION, message).await;
    }
}
