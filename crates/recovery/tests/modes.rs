//! Every mode to its end, on the real runtime and on both databases.

mod support;

use control_plane_domain::{RunState, SessionId};
use control_plane_testkit::agent::{Agent, Cast, SessionSpec};
use control_plane_testkit::database::Kind;
use control_plane_testkit::message::Outcome;
use control_plane_testkit::runtime::RuntimeProcess;
use control_plane_testkit::{message, play};
use support::Rig;

macro_rules! a_mode_is_followed_to_its_end {
    ($($name:ident: $mode:expr, $play:path;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            for kind in Kind::ALL {
                let runtime = RuntimeProcess::in_memory().await;
                let cast = runtime.cast().await;
                let rig = Rig::start(kind, runtime.client());
                posted_before_the_agents_start(&rig, &cast).await;
                posted_after_the_end(&rig, &cast).await;
                rig.stop().await;
            }

            async fn posted_before_the_agents_start(rig: &Rig, cast: &Cast) {
                let session = SessionId::random();
                let run = rig.post(&session, $mode).await;
                rig.reaches(run, RunState::Starting).await;

                let accepted = $play(cast, &session).await;

                rig.reaches(run, RunState::Completed).await;
                rig.is_whole(run, &accepted).await;
                let story = rig.story(run).await;
                assert_eq!(story.last().map(String::as_str), Some("run.completed"));
                let finalized = story.iter().position(|name| name == "decision.finalized");
                assert!(finalized < story.iter().position(|name| name == "run.completed"));
                assert!(finalized.is_some());
            }

            async fn posted_after_the_end(rig: &Rig, cast: &Cast) {
                let session = SessionId::random();
                let accepted = $play(cast, &session).await;

                let run = rig.post(&session, $mode).await;

                rig.reaches(run, RunState::Completed).await;
                rig.is_whole(run, &accepted).await;
            }
        }
    )*};
}

a_mode_is_followed_to_its_end! {
    a_decision_is_followed_to_its_end: message::DECISION, play::decision;
    a_proposal_is_followed_to_its_end: message::PROPOSAL, play::proposal;
    a_task_is_followed_to_its_end: message::TASK, play::task;
    a_handoff_is_followed_to_its_end: message::HANDOFF, play::handoff;
    a_quorum_is_followed_to_its_end: message::QUORUM, play::quorum;
    a_refused_quorum_is_followed_to_its_end: message::QUORUM, play::quorum_refused;
    a_multi_round_is_followed_to_its_end: message::MULTI_ROUND, play::multi_round;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_tells_its_story_in_the_order_in_which_it_happened() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let rig = Rig::start(Kind::Sqlite, runtime.client());
    let session = SessionId::random();
    let run = rig.post(&session, message::DECISION).await;
    let spec = SessionSpec::new(message::DECISION, &["alice", "bob", "carol"]).with_id(&session);
    cast.alice.start_session(&spec).await;
    rig.reaches(run, RunState::Running).await;

    let say = async |agent: &Agent, what| agent.say(&session, message::DECISION, what).await;
    say(&cast.alice, message::decision::proposal("p1", "deploy")).await;
    say(&cast.bob, message::decision::vote("p1", "APPROVE")).await;
    say(&cast.alice, message::commitment("c1", "decision.selected", Outcome::Positive)).await;

    rig.reaches(run, RunState::Completed).await;
    let story = rig.story(run).await;
    let begins = [
        "run.created",
        "run.started",
        "session.bound",
        "participant.seen",
        "participant.seen",
        "participant.seen",
        "session.state.changed",
        "session.stream.opened",
        "proposal.created",
        "proposal.updated",
    ];
    let ends = ["decision.finalized", "session.state.changed", "run.completed"];
    assert_eq!(story, [&begins[..], &ends[..]].concat());
    rig.stop().await;
}
