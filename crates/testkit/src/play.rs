//! Whole conversations, mode by mode, from the `SessionStart` to the `Commitment`.
//!
//! **Invariant:** each gives the ids of the accepted messages in the order in which they were
//! accepted, which is what an observer must have recorded.

use std::time::Duration;

use control_plane_domain::SessionId;
use futures_util::stream::{self, StreamExt};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::agent::{Agent, Cast, SessionSpec};
use crate::message::{self, Message, Outcome};
use crate::script::{self, Line, Script};

const IMPLICIT_ACCEPT_WITHIN: Duration = Duration::from_secs(30);

/// One conversation as it goes on.
struct Scene<'a> {
    session: &'a SessionId,
    mode: &'a str,
    accepted: Vec<String>,
}

impl<'a> Scene<'a> {
    async fn open(initiator: &Agent, spec: &'a SessionSpec) -> Self {
        let accepted = vec![initiator.start_session(spec).await];
        Self { session: &spec.session_id, mode: &spec.mode, accepted }
    }

    async fn say(&mut self, agent: &Agent, message: Message) {
        self.accepted.push(agent.say(self.session, self.mode, message).await);
    }
}

/// Says all of a script, after its `SessionStart`.
pub async fn perform(cast: &Cast, session: &SessionId, script: &Script) -> Vec<String> {
    let spec = SessionSpec::new(script.mode, script.participants).with_id(session);
    let mut scene = Scene::open(&cast.alice, &spec).await;
    for Line { speaker, message } in &script.lines {
        scene.say(speaker.of(cast), message.clone()).await;
    }
    scene.accepted
}

/// [`script::decision`].
pub async fn decision(cast: &Cast, session: &SessionId) -> Vec<String> {
    perform(cast, session, &script::decision()).await
}

/// [`script::proposal`].
pub async fn proposal(cast: &Cast, session: &SessionId) -> Vec<String> {
    perform(cast, session, &script::proposal()).await
}

/// [`script::task`].
pub async fn task(cast: &Cast, session: &SessionId) -> Vec<String> {
    perform(cast, session, &script::task()).await
}

/// [`script::handoff`].
pub async fn handoff(cast: &Cast, session: &SessionId) -> Vec<String> {
    perform(cast, session, &script::handoff()).await
}

/// [`script::quorum`].
pub async fn quorum(cast: &Cast, session: &SessionId) -> Vec<String> {
    perform(cast, session, &script::quorum()).await
}

/// [`script::quorum_refused`].
pub async fn quorum_refused(cast: &Cast, session: &SessionId) -> Vec<String> {
    perform(cast, session, &script::quorum_refused()).await
}

/// [`script::multi_round`].
pub async fn multi_round(cast: &Cast, session: &SessionId) -> Vec<String> {
    perform(cast, session, &script::multi_round()).await
}

/// A handoff that nobody answers, under a policy by which the runtime then accepts it itself: an
/// envelope that no agent sent, named `implicit-accept:h1`.
pub async fn implicit_handoff(cast: &Cast, session: &SessionId) -> Vec<String> {
    const POLICY: &str = "policy.test.implicit-accept";
    let Cast { alice, .. } = cast;
    let rules = json!({
        "acceptance": { "implicit_accept_timeout_ms": 50 },
        "commitment": { "authority": "initiator_only" },
    });
    alice.register_policy(POLICY, message::HANDOFF, &rules).await;
    let mut spec = SessionSpec::new(message::HANDOFF, &["alice", "bob"]).with_id(session);
    spec.policy_version = POLICY.to_owned();
    let mut scene = Scene::open(alice, &spec).await;
    scene.say(alice, message::handoff::offer("h1", "bob", "on call")).await;

    // Refused until the offer counts as accepted; what is refused is not part of the history.
    let deadline = Instant::now() + IMPLICIT_ACCEPT_WITHIN;
    let commitment = message::commitment_under(POLICY, "c1", "handoff.accepted", Outcome::Positive);
    let last = loop {
        match alice.try_say(session, message::HANDOFF, commitment.clone()).await {
            Ok(ack) => break ack.message_id,
            Err(refusal) => assert!(Instant::now() < deadline, "never accepted: {refusal:?}"),
        }
        sleep(Duration::from_millis(10)).await;
    };
    scene.accepted.extend(["implicit-accept:h1".to_owned(), last]);
    scene.accepted
}

/// Opens a session that stays open and takes any number of [`contribute_many`].
pub async fn open_for_load(cast: &Cast, session: &SessionId) -> String {
    let spec = SessionSpec::new(message::MULTI_ROUND, &["alice", "bob"]).with_id(session);
    cast.alice.start_session(&spec).await
}

/// Says `count` things in a session of [`open_for_load`], up to `in_flight` at once, so in no
/// given order. Raise the runtime's limits for it, as [`crate::runtime::Options`] does.
pub async fn contribute_many(agent: &Agent, session: &SessionId, count: usize, in_flight: usize) {
    stream::iter(0..count)
        .for_each_concurrent(in_flight, |number| async move {
            let message = message::multi_round::contribute(&format!("value {number}"));
            agent.say(session, message::MULTI_ROUND, message).await;
        })
        .await;
}
