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

/// Two options, evaluations, an objection, votes: `p1` wins two to one.
pub async fn decision(cast: &Cast, session: &SessionId) -> Vec<String> {
    let Cast { alice, bob, carol, dave: _ } = cast;
    let spec = SessionSpec::new(message::DECISION, &["alice", "bob", "carol"]).with_id(session);
    let mut scene = Scene::open(alice, &spec).await;
    scene.say(alice, message::decision::proposal("p1", "deploy now")).await;
    scene.say(bob, message::decision::proposal("p2", "deploy tomorrow")).await;
    scene.say(bob, message::decision::evaluation("p1", "APPROVE", 0.9)).await;
    scene.say(carol, message::decision::evaluation("p1", "REVIEW", 0.4)).await;
    scene.say(carol, message::decision::objection("p1", "low")).await;
    scene.say(alice, message::decision::vote("p1", "APPROVE")).await;
    scene.say(bob, message::decision::vote("p1", "APPROVE")).await;
    scene.say(carol, message::decision::vote("p1", "REJECT")).await;
    scene.say(alice, message::commitment("p1", "decision.selected", Outcome::Positive)).await;
    scene.accepted
}

/// An offer, a rejection, a counteroffer that both accept.
pub async fn proposal(cast: &Cast, session: &SessionId) -> Vec<String> {
    let Cast { alice, bob, .. } = cast;
    let spec = SessionSpec::new(message::PROPOSAL, &["alice", "bob"]).with_id(session);
    let mut scene = Scene::open(alice, &spec).await;
    scene.say(alice, message::proposal::proposal("o1", "100 pieces")).await;
    scene.say(bob, message::proposal::reject("o1")).await;
    scene.say(bob, message::proposal::counter_proposal("o2", "o1", "120 pieces")).await;
    scene.say(alice, message::proposal::withdraw("o1")).await;
    scene.say(alice, message::proposal::accept("o2")).await;
    scene.say(bob, message::proposal::accept("o2")).await;
    scene.say(alice, message::commitment("c1", "proposal.accepted", Outcome::Positive)).await;
    scene.accepted
}

/// A task that Bob takes, reports on and completes.
pub async fn task(cast: &Cast, session: &SessionId) -> Vec<String> {
    let Cast { alice, bob, .. } = cast;
    let spec = SessionSpec::new(message::TASK, &["alice", "bob"]).with_id(session);
    let mut scene = Scene::open(alice, &spec).await;
    scene.say(alice, message::task::request("t1", "sum up the quarter", "bob")).await;
    scene.say(bob, message::task::accept("t1", "bob")).await;
    scene.say(bob, message::task::update("t1", 0.5, "half of it")).await;
    scene.say(bob, message::task::complete("t1", "bob", "a good quarter")).await;
    scene.say(alice, message::commitment("c1", "task.completed", Outcome::Positive)).await;
    scene.accepted
}

/// An offer with context: Bob declines, Carol accepts.
pub async fn handoff(cast: &Cast, session: &SessionId) -> Vec<String> {
    let Cast { alice, bob, carol, .. } = cast;
    let spec = SessionSpec::new(message::HANDOFF, &["alice", "bob", "carol"]).with_id(session);
    let mut scene = Scene::open(alice, &spec).await;
    scene.say(alice, message::handoff::offer("h1", "bob", "on call")).await;
    scene.say(bob, message::handoff::decline("h1", "bob")).await;
    scene.say(alice, message::handoff::offer("h2", "carol", "on call")).await;
    scene.say(alice, message::handoff::context("h2", "two open incidents")).await;
    scene.say(carol, message::handoff::accept("h2", "carol")).await;
    scene.say(alice, message::commitment("c1", "handoff.accepted", Outcome::Positive)).await;
    scene.accepted
}

/// Two of three have to approve: one does, one abstains, one more does.
pub async fn quorum(cast: &Cast, session: &SessionId) -> Vec<String> {
    let Cast { alice, bob, carol, dave } = cast;
    let spec = SessionSpec::new(message::QUORUM, &["bob", "carol", "dave"]).with_id(session);
    let mut scene = Scene::open(alice, &spec).await;
    scene.say(alice, message::quorum::request("r1", "delete the old data", 2)).await;
    scene.say(bob, message::quorum::approve("r1")).await;
    scene.say(carol, message::quorum::abstain("r1")).await;
    scene.say(dave, message::quorum::approve("r1")).await;
    scene.say(alice, message::commitment("c1", "quorum.approved", Outcome::Positive)).await;
    scene.accepted
}

/// The same request, refused: the outcome is negative.
pub async fn quorum_refused(cast: &Cast, session: &SessionId) -> Vec<String> {
    let Cast { alice, bob, carol, dave: _ } = cast;
    let spec = SessionSpec::new(message::QUORUM, &["bob", "carol", "dave"]).with_id(session);
    let mut scene = Scene::open(alice, &spec).await;
    scene.say(alice, message::quorum::request("r1", "delete the backups", 2)).await;
    scene.say(bob, message::quorum::reject("r1")).await;
    scene.say(carol, message::quorum::reject("r1")).await;
    scene.say(alice, message::commitment("c1", "quorum.rejected", Outcome::Negative)).await;
    scene.accepted
}

/// Two who disagree first, one of them in the old JSON form, and then agree.
pub async fn multi_round(cast: &Cast, session: &SessionId) -> Vec<String> {
    let Cast { alice, bob, carol, dave: _ } = cast;
    let spec = SessionSpec::new(message::MULTI_ROUND, &["bob", "carol"]).with_id(session);
    let mut scene = Scene::open(alice, &spec).await;
    scene.say(bob, message::multi_round::contribute("blue")).await;
    scene.say(carol, message::multi_round::contribute_json("green")).await;
    scene.say(carol, message::multi_round::contribute("blue")).await;
    scene.say(alice, message::commitment("c1", "multi_round.converged", Outcome::Positive)).await;
    scene.accepted
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
